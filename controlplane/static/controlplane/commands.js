// The palette's verbs open a page's dialog; the jobs' search box suggests completions.
(function () {
  "use strict";

  // `?do=pause` presses the page's own button; `?do=reset&key=...` opens the dialog for one subject.
  function act() {
    const query = new URLSearchParams(location.search);
    const verb = query.get("do");
    if (!verb) return;
    query.delete("do");
    const given = new URLSearchParams();
    ["key", "project", "used"].forEach(function (name) {
      if (query.has(name)) { given.set(name, query.get(name)); query.delete(name); }
    });
    history.replaceState(null, "", location.pathname + (query.toString() ? "?" + query : "") + location.hash);
    const path = { close_breaker: "close", clear_cooldown: "clear-cooldown", pause_pool: "pause", resume_pool: "resume" }[verb] || verb;
    const button = document.querySelector('[hx-target="#modal-content"][hx-get$="/' + CSS.escape(path) + '/"]');
    if (!button) return;
    if (given.toString()) {
      const link = button.cloneNode(true);
      link.setAttribute("hx-get", button.getAttribute("hx-get") + "?" + given);
      link.hidden = true;
      button.parentElement.append(link);
      htmx.process(link);
      setTimeout(function () { link.click(); }, 150); // the theme registers the copy in between
    } else {
      button.click();
    }
  }

  function suggest(box) {
    const list = document.createElement("ul");
    list.id = "suggestions";
    list.className = "sl-suggestions";
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "Suggestions");
    list.hidden = true;
    box.parentElement.style.position = "relative";
    box.parentElement.append(list);
    box.setAttribute("autocomplete", "off");
    box.setAttribute("role", "combobox");
    box.setAttribute("aria-autocomplete", "list");
    box.setAttribute("aria-controls", "suggestions");
    box.setAttribute("aria-expanded", "false");
    let due = 0, asked = 0, current = -1;

    function close() { list.hidden = true; current = -1; box.setAttribute("aria-expanded", "false"); }

    function choose(text) {
      const words = box.value.split(" ");
      words[words.length - 1] = text;
      box.value = words.join(" ") + (text.endsWith(":") || text.endsWith(".") ? "" : " ");
      box.focus();
      ask();
    }

    function show(found) {
      list.replaceChildren();
      found.forEach(function (text, index) {
        const item = document.createElement("li");
        item.setAttribute("role", "option");
        item.id = "suggestion-" + index;
        item.textContent = text;
        item.addEventListener("mousedown", function (event) { event.preventDefault(); choose(text); });
        list.append(item);
      });
      list.hidden = !found.length;
      current = -1;
      box.setAttribute("aria-expanded", String(!!found.length));
    }

    function ask() {
      const number = ++asked;
      fetch(document.getElementById("job-suggestions").dataset.address + "?q=" + encodeURIComponent(box.value.split(" ").pop()))
        .then(function (answer) { return answer.ok ? answer.json() : { results: [] }; })
        .then(function (found) { if (number === asked && document.activeElement === box) show(found.results); }, close);
    }

    box.addEventListener("input", function () { clearTimeout(due); due = setTimeout(ask, 120); });
    box.addEventListener("focus", ask);
    box.addEventListener("blur", function () { setTimeout(close, 150); });
    box.addEventListener("keydown", function (event) {
      const items = list.children;
      if (list.hidden || !items.length) return;
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        if (items[current]) items[current].removeAttribute("aria-selected");
        current = (current + (event.key === "ArrowDown" ? 1 : items.length - 1 + (current < 0 ? 1 : 0))) % items.length;
        items[current].setAttribute("aria-selected", "true");
        box.setAttribute("aria-activedescendant", items[current].id);
      } else if ((event.key === "Enter" || event.key === "Tab") && current >= 0) {
        event.preventDefault();
        choose(items[current].textContent);
      } else if (event.key === "Escape") close();
    });
  }

  function begin() {
    const palette = document.getElementById("search-input-command");
    if (palette) palette.placeholder = "A page, a name, an ID, or a verb: pause QUEUE, reset USER, test ACCOUNT";
    const box = document.getElementById("job-suggestions") && document.getElementById("searchbar");
    if (box) suggest(box);
    setTimeout(act, 50); // after the theme
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin); else begin();
})();
