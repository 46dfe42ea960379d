// Keys for lists, and dialogs that are ready to be typed into.
(function () {
  "use strict";
  const ROWS = "#result_list tbody tr, #groups tbody tr, #policy-use tbody tr";
  let current = -1;

  function rows() {
    return Array.from(document.querySelectorAll(ROWS)).filter(function (row) {
      return row.checkVisibility() && row.querySelector("a, input.action-select");
    });
  }

  function mark(all, position) {
    all.forEach(function (row) { row.classList.remove("sl-current"); row.removeAttribute("aria-current"); });
    current = position;
    all[position].classList.add("sl-current");
    all[position].setAttribute("aria-current", "true");
    all[position].scrollIntoView({ block: "nearest" });
  }

  function busy(event) {
    return event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")
      || event.target.closest && event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]")
      || Array.from(document.querySelectorAll("#modal-overlay, #command-results")).some(function (box) { return box.checkVisibility(); });
  }

  document.addEventListener("keydown", function (event) {
    if (!"jkx".includes(event.key) && event.key !== "Enter" || busy(event)) return;
    const all = rows();
    if (!all.length) return;
    const row = all[current];
    if (event.key === "j") mark(all, Math.min(current + 1, all.length - 1));
    else if (event.key === "k") mark(all, Math.max(current - 1, 0));
    else if (!row) return;
    else if (event.key === "x") { const box = row.querySelector("input.action-select"); if (box) box.click(); }
    else if (!event.target.closest("a, button")) {
      const link = row.querySelector("th a, td a");
      if (link) link.click();
    } else return;
    event.preventDefault();
  });

  // The field that is to be filled in: not those that say what the dialog is about.
  function focusDialog(tries) {
    const field = document.querySelector("#dialog-form :is(input:not([type=hidden]), textarea, select):not([name=key], [name=project])");
    if (!field) return;
    if (!field.checkVisibility() && tries) { setTimeout(function () { focusDialog(tries - 1); }, 40); return; }
    field.focus();
    if (field.select && field.tagName === "INPUT") field.select();
  }
  // A page that asks before it acts is like a dialog.
  function focusQuestion() {
    const field = document.querySelector("form.sl-confirm [name=reason]");
    if (field) field.focus();
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", focusQuestion); else focusQuestion();
  document.addEventListener("htmx:afterSettle", function (event) {
    if (event.detail.target && event.detail.target.id === "modal-content") focusDialog(25);
  });
})();
