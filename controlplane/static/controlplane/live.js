// The toolbar: how often figures are refreshed, which period charts show, which project is shown.
(function () {
  "use strict";
  const KEY = "sluice-refresh";
  let chosen = null; // where nothing can be stored
  const CHOICES = ["0", "1", "5", "30"];
  const SOONEST = 1000; // between two loads that live events cause
  const BUSY = 3000; // the same after some loads without a pause: on a busy instance something happens all the time
  const SOME = 5;
  const SETTLED = 1700; // after an event: until then the server may answer with figures of before

  function stored() {
    try { return localStorage.getItem(KEY); } catch (error) { return null; } // storage may be forbidden
  }

  function seconds() {
    const found = stored();
    return CHOICES.includes(found) ? Number(found) : 5;
  }

  function store(value) {
    try { localStorage.setItem(KEY, value); } catch (error) { chosen = Number(value); }
  }
  let last = Date.now();

  function every() { return chosen === null ? seconds() : chosen; }

  // Text that is being selected would be lost: the panel waits until it is not selected any more.
  function isSelected(panel) {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && selection.containsNode(panel, true);
  }

  function load(panel) {
    if (!panel.classList.contains("htmx-request") && !isSelected(panel)) htmx.trigger(panel, "tick");
  }

  // Who walks through a panel by the keyboard stays at the same place when the panel is replaced.
  const FOCUSABLE = "a[href], button, input, select, [tabindex]";
  let place = null;
  document.addEventListener("htmx:beforeSwap", function (event) {
    const panel = event.detail.target, active = document.activeElement;
    place = null;
    if (!panel || !panel.matches || !panel.matches("[data-live]") || !panel.contains(active) || panel === active) return;
    const all = Array.from(panel.querySelectorAll(FOCUSABLE));
    place = { id: panel.id, panel: panel, at: all.indexOf(active) };
  });
  document.addEventListener("htmx:afterSwap", function () {
    if (!place || place.at < 0) return;
    const panel = place.panel.isConnected ? place.panel : document.getElementById(place.id);
    const found = panel && panel.querySelectorAll(FOCUSABLE)[place.at];
    if (found && document.activeElement === document.body) found.focus({ preventScroll: true });
    place = null;
  });

  function refresh() {
    last = Date.now();
    document.querySelectorAll("[data-live]").forEach(load);
  }

  // Live events that are not shown yet: when each family, and each job, was last in one.
  const happened = new Map(), jobs = new Map();
  let lastOfEvents = 0, without = 0;

  document.addEventListener("sluice:event", function (event) {
    happened.set(event.detail.kind.split(".")[0], Date.now());
    const own = document.querySelector("[data-job]");
    if (own && own.dataset.job === event.detail.data.job) jobs.set(own.dataset.job, Date.now());
  });
  document.addEventListener("sluice:stream", function () {
    document.querySelectorAll("[data-on]").forEach(function (panel) {
      panel.dataset.on.split(" ").forEach(function (family) { happened.set(family, Date.now()); });
      if (panel.dataset.job) jobs.set(panel.dataset.job, Date.now());
    });
  });

  function isConcerned(panel) {
    if (panel.dataset.job && !jobs.has(panel.dataset.job)) return false;
    return panel.dataset.on.split(" ").some(function (family) { return happened.has(family); });
  }

  function follow(now) {
    const since = now - lastOfEvents;
    if (since > 2 * BUSY) without = 0;
    if (!happened.size || since < (without < SOME ? SOONEST : BUSY)) return;
    lastOfEvents = now;
    without += 1;
    document.querySelectorAll("[data-live][data-on]").forEach(function (panel) { if (isConcerned(panel)) load(panel); });
    [happened, jobs].forEach(function (known) {
      known.forEach(function (at, key) { if (now - at >= SETTLED) known.delete(key); });
    });
  }

  setInterval(function () {
    const pace = every(), now = Date.now();
    if (!pace || document.hidden) return;
    if (now - last >= pace * 1000 - 50) refresh();
    else follow(now);
  }, 250);
  document.addEventListener("visibilitychange", function () { if (!document.hidden && every()) refresh(); });

  // A link inside that waits for its dialog would be replaced, and the dialog would never open; and text may have been
  // selected since the request was sent.
  document.addEventListener("htmx:beforeSwap", function (event) {
    const panel = event.detail.target;
    if (!panel || !panel.matches || !panel.matches("[data-live]")) return;
    if (panel.querySelector(".htmx-request") || isSelected(panel)) {
      event.detail.shouldSwap = false;
    }
  });

  function period() { return new URLSearchParams(location.search).get("period") || "1h"; }

  document.addEventListener("htmx:configRequest", function (event) {
    const panel = event.detail.elt;
    if (panel && panel.matches && panel.matches("[data-period]")) event.detail.parameters.period = period();
  });

  function markPeriod() {
    document.querySelectorAll("#periods a").forEach(function (link) {
      if (link.dataset.periodName === period()) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  }

  // A slider that moves the number in a field of the form.
  function couple(slider) {
    const field = document.getElementById(slider.dataset.slides);
    if (!field) return;
    function follow() {
      const value = Number(field.value) || 0;
      if (value > Number(slider.max)) slider.max = String(value * 4);
      slider.value = String(value);
    }
    slider.max = String(Math.max(10, (Number(field.value) || 0) * 4));
    follow();
    field.addEventListener("input", follow);
    slider.addEventListener("input", function () {
      field.value = slider.value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    });
  }

  // The palette's own focus comes after a fixed time, in which a busy browser may not have shown its field yet.
  function focusPalette(tries) {
    const field = document.getElementById("search-input-command");
    if (!field || document.activeElement === field) return;
    if (field.offsetParent) field.focus();
    else if (tries > 0) setTimeout(function () { focusPalette(tries - 1); }, 50);
  }

  function begin() {
    // Links of a panel work as soon as they are there; a click within the usual delay would be lost.
    htmx.config.defaultSettleDelay = 0;
    const control = document.querySelector("#refresh select");
    if (control && document.querySelector("[data-live]")) {
      control.parentElement.hidden = false;
      control.value = String(seconds());
      control.addEventListener("change", function () { store(control.value); if (every()) refresh(); });
    }
    const periods = document.getElementById("periods");
    if (periods && document.querySelector("[data-period]")) {
      periods.hidden = false;
      markPeriod();
      periods.addEventListener("click", function (event) {
        const link = event.target.closest("a");
        if (!link) return;
        event.preventDefault();
        const query = new URLSearchParams(location.search);
        query.set("period", link.dataset.periodName);
        history.replaceState(null, "", location.pathname + "?" + query + location.hash);
        markPeriod();
        document.querySelectorAll("[data-period]").forEach(function (panel) { htmx.trigger(panel, "tick"); });
      });
    }
    document.querySelectorAll("[data-slides]").forEach(couple);
    // Select2 reports changes to jQuery only.
    const $ = window.django && window.django.jQuery;
    if ($) $(document).on("select2:select select2:clear", "form select", function () {
      this.dispatchEvent(new Event("change", { bubbles: true }));
    });
    document.querySelectorAll("select[data-submit]").forEach(function (select) {
      select.addEventListener("change", function () { select.form.submit(); });
    });
    const palette = document.getElementById("open-palette");
    if (palette) palette.addEventListener("click", function (event) {
      event.stopPropagation();
      window.dispatchEvent(new CustomEvent("opencommand"));
    });
    window.addEventListener("opencommand", function () { focusPalette(100); });
    document.addEventListener("keydown", function (event) {
      if ((event.ctrlKey || event.metaKey) && event.key === "k") focusPalette(100);
    });
    const help = document.getElementById("open-help");
    if (help) help.addEventListener("click", function () { document.dispatchEvent(new CustomEvent("sluice:help")); });
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin); else begin();
})();
