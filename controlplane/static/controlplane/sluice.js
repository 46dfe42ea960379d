// Live figures: what happens when they can't be refreshed, and names for what the theme's widgets leave unnamed.
(function () {
  "use strict";
  const LATE = 15000;

  // In the person's time zone, like all other times of the page.
  function clock(time) {
    const zone = document.getElementById("zone");
    return time.toLocaleTimeString("en-GB", {
      hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short", timeZone: zone ? zone.dataset.zone : "UTC",
    });
  }

  function note(panel, text) {
    let line = panel.querySelector(":scope > .sl-stale-note");
    if (!line) {
      line = document.createElement("p");
      line.className = "sl-stale-note";
      line.setAttribute("role", "status");
      panel.prepend(line);
    }
    if (line.textContent !== text) line.textContent = text;
    panel.classList.add("sl-stale");
  }

  function stale(panel, why) {
    const since = panel.dataset.fresh;
    note(panel, why + (since ? " Figures are from " + clock(new Date(Number(since))) + "." : " No figures yet."));
  }

  function fresh(panel) {
    panel.dataset.fresh = String(Date.now());
    panel.classList.remove("sl-stale");
    const line = panel.querySelector(":scope > .sl-stale-note");
    if (line) line.remove();
  }

  function panelOf(event) {
    const element = event.detail.elt || event.target;
    return element && element.closest ? element.closest("[data-live]") : null;
  }

  function onFailure(name, why) {
    document.addEventListener(name, function (event) {
      const panel = panelOf(event);
      if (panel) stale(panel, typeof why === "function" ? why(event) : why);
    });
  }

  onFailure("htmx:sendError", "No connection to the server.");
  onFailure("htmx:timeout", "The server does not answer.");
  onFailure("htmx:responseError", function (event) {
    return "The server answered with an error (" + event.detail.xhr.status + ").";
  });
  document.addEventListener("htmx:afterSwap", function (event) {
    const panel = panelOf(event);
    if (panel) fresh(panel);
  });
  // Several panels find out at the same moment that the session has ended. The first one's redirect stands:
  // a second one would abort the navigation that the first has begun.
  let leaving = false;
  document.addEventListener("htmx:beforeOnLoad", function (event) {
    if (leaving) event.preventDefault();
    else if (event.detail.xhr.getResponseHeader("HX-Redirect")) leaving = true;
  });
  document.addEventListener("htmx:beforeRequest", function (event) {
    if (leaving) event.preventDefault();
  });
  window.addEventListener("pageshow", function () { leaving = false; });

  document.addEventListener("htmx:configRequest", function (event) {
    if (panelOf(event)) event.detail.timeout = LATE;
  });
  window.addEventListener("offline", function () {
    document.querySelectorAll("[data-live]").forEach(function (panel) { stale(panel, "You are offline."); });
  });

  // Each control needs a name that a screen reader can say.
  function nameOf(control) {
    const row = control.closest("tr");
    const cell = control.closest("td, th");
    if (cell && row && cell.cellIndex >= 0) {
      const head = control.closest("table").querySelectorAll("thead th")[cell.cellIndex];
      if (head && head.textContent.trim()) return head.textContent.trim();
    }
    return control.getAttribute("placeholder") || control.getAttribute("title")
      || (control.getAttribute("name") || "").replace(/^.*-/, "").replace(/_/g, " ").trim();
  }

  function isNamed(control) {
    return control.getAttribute("aria-label") || control.getAttribute("aria-labelledby") || control.title
      || (control.labels && Array.from(control.labels).some(function (label) { return label.textContent.trim(); }));
  }

  // The name of the select that one of select2's boxes stands for.
  function nameOfSelect(box) {
    const container = box.closest(".select2");
    const select = container && container.previousElementSibling;
    if (!select) return "Search";
    const label = select.labels && select.labels[0] || document.querySelector('label[for="' + select.id + '"]');
    return label && label.textContent.trim() || select.getAttribute("aria-label") || nameOf(select);
  }

  function nameControls() {
    document.querySelectorAll("input:not([type=hidden]), select, textarea").forEach(function (control) {
      if (!isNamed(control)) {
        const name = control.classList.contains("select2-search__field") ? nameOfSelect(control)
          : control.classList.contains("action-select") ? "Select this row"
          : control.id === "action-toggle" || control.classList.contains("action-toggle") ? "Select all rows" : nameOf(control);
        if (name) control.setAttribute("aria-label", name);
      }
    });
    document.querySelectorAll("[role=combobox]:not(input):not(select)").forEach(function (box) {
      const name = nameOfSelect(box);
      if (name) { box.removeAttribute("aria-labelledby"); box.setAttribute("aria-label", name); }
    });
    document.querySelectorAll(".select2-selection__rendered[role=textbox]").forEach(function (box) {
      const name = nameOfSelect(box);
      if (name) box.setAttribute("aria-label", name);
    });
    // Chosen items of select2 and its search box are no list.
    document.querySelectorAll("ul.select2-selection__rendered").forEach(function (list) {
      list.setAttribute("role", "group");
      list.querySelectorAll("li").forEach(function (item) { item.setAttribute("role", "none"); });
    });
    document.querySelectorAll(".help-tooltip[aria-label]").forEach(function (mark) { mark.setAttribute("role", "img"); });
    // What scrolls is reached by the keyboard.
    document.querySelectorAll(".sl-scroll, [data-live]").forEach(function (box) {
      if (box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible") box.tabIndex = 0;
    });
    document.querySelectorAll("button, a[href], a[x-on\\:click]").forEach(function (button) {
      const text = button.innerText.trim();
      const icon = button.querySelector(".material-symbols-outlined");
      if (icon && !button.getAttribute("aria-label") && text === icon.innerText.trim()) {
        button.setAttribute("aria-label", button.title || text.replace(/_/g, " "));
      }
    });
    const form = document.getElementById("login-form") || document.querySelector("form[method=post]");
    const main = document.getElementById("main") || form && form.parentElement;
    if (main && !document.querySelector("[role=main], main")) main.setAttribute("role", "main");
  }

  // A field that belongs to some choices of a select is shown under those only.
  function showFieldsOfChoice() {
    document.querySelectorAll("[data-only-for]").forEach(function (field) {
      const words = field.dataset.onlyFor.split(" ");
      const select = field.form && field.form.elements[words[0]];
      const line = field.closest("[data-field], .field-line") || field.parentElement.parentElement;
      if (select && line) line.style.display = words.slice(1).includes(select.value) ? "" : "none";
    });
  }
  document.addEventListener("change", showFieldsOfChoice);

  // Copying: of JSON, of IDs and of a new key.
  function addCopyButtons() {
    document.querySelectorAll("pre.sl-json, code.sl-secret, [data-copy]").forEach(function (source) {
      if (source.dataset.copyable || !source.textContent.trim()) return;
      source.dataset.copyable = "1";
      const text = source.textContent.trim();
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sl-copy";
      button.textContent = "Copy";
      button.addEventListener("click", function () {
        navigator.clipboard.writeText(text).then(
          function () { button.textContent = "Copied"; },
          function () { button.textContent = "Select the text to copy it"; }
        );
        setTimeout(function () { button.textContent = "Copy"; }, 2000);
      });
      source.after(button);
    });
  }

  const SHORTCUTS = [["?", "Show this help"], ["/", "Search in the list"], ["t", "Search in the navigation"],
    ["j, k", "Next and previous row of a list"], ["x", "Select the row"], ["Enter", "Open the row"],
    ["Ctrl+K", "Open the command palette"], ["Esc", "Close a dialog"]];

  function showHelp() {
    let box = document.getElementById("sl-help");
    if (!box) {
      box = document.createElement("dialog");
      box.id = "sl-help";
      box.className = "sl-help";
      box.setAttribute("aria-label", "Keyboard shortcuts");
      const list = document.createElement("dl");
      SHORTCUTS.forEach(function (pair) {
        const key = document.createElement("dt"), does = document.createElement("dd");
        key.textContent = pair[0];
        does.textContent = pair[1];
        list.append(key, does);
      });
      const close = document.createElement("button");
      close.type = "button";
      close.className = "sl-button";
      close.textContent = "Close";
      close.addEventListener("click", function () { box.close(); });
      box.append(list, close);
      document.body.append(box);
    }
    if (!box.open) box.showModal();
  }

  document.addEventListener("sluice:help", showHelp);
  document.addEventListener("keydown", function (event) {
    const typing = event.target.closest && event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key === "?" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); showHelp(); }
  });

  // Help texts mark literals with backticks.
  function showLiterals() {
    document.querySelectorAll("[id$=_helptext], .help, .text-xs").forEach(function (text) {
      if (text.children.length || !/`[^`]+`/.test(text.textContent)) return;
      const parts = text.textContent.split("`");
      text.replaceChildren();
      parts.forEach(function (part, index) {
        const piece = index % 2 && index < parts.length - 1 ? document.createElement("code") : document.createTextNode("");
        piece.textContent = part;
        text.append(piece);
      });
    });
  }

  function begin() {
    showLiterals();
    nameControls();
    addCopyButtons();
    showFieldsOfChoice();
    let due = 0;
    new MutationObserver(function () {
      clearTimeout(due);
      due = setTimeout(function () { nameControls(); addCopyButtons(); }, 50);
    }).observe(document.body, { childList: true, subtree: true });
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin); else begin();
})();
