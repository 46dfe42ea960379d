// Notices of what happens now, from the stream of live events. Each person chooses the kinds.
(function () {
  "use strict";
  const KEY = "sluice-muted";
  const AGAIN = 30000; // a kind that was shown is counted for so long before it is shown again
  const SHOWN = 10000;
  const KINDS = {
    "limit.denied": ["Rate limited", function (d) { return (d.key || "callers") + " by " + d.policy; }],
    "job.dead": ["Retries exhausted", function (d) { return d.type + " in " + d.queue + ": " + d.category; },
      function (d, base) { return base + "queues/job/?q=id:" + encodeURIComponent(d.job); }],
    "breaker.opened": ["Circuit breaker opened", function (d) { return d.pool + "/" + d.account + (d.why ? ": " + d.why : ""); }],
    "account.disabled": ["Account disabled", function (d) { return d.pool + "/" + d.account + (d.why ? ": " + d.why : ""); }],
    "account.pool_limited": ["Pool limited", function (d) { return d.pool + (d.why ? ": " + d.why : ""); }],
    "queue.paused": ["Queue paused", function (d) { return d.queue + (d.why ? ": " + d.why : ""); },
      function (d, base) { return base + "queues/queue/?q=" + encodeURIComponent(d.queue); }],
    "alert.raised": ["Alert", function (d) { return d.subject + ": " + d.summary; },
      function (d, base) { return base + "controlplane/alert/" + encodeURIComponent(d.alert) + "/change/"; }]
  };
  const QUIET = ["limit.denied"]; // muted until a user turns it on: a refusal by a quota is normal

  function muted() {
    try { return JSON.parse(localStorage.getItem(KEY)) || QUIET; } catch (error) { return QUIET; }
  }
  function mute(kind, off) {
    const kinds = muted().filter(function (one) { return one !== kind; });
    if (off) kinds.push(kind);
    try { localStorage.setItem(KEY, JSON.stringify(kinds)); } catch (error) { /* until the page is left */ }
  }

  const last = {}, waiting = {};

  function show(kind, data, base) {
    if (muted().includes(kind) || data.ignored) return;
    const now = Date.now();
    waiting[kind] = (waiting[kind] || 0) + (data.count || 1);
    if (last[kind] && now - last[kind] < AGAIN) return;
    last[kind] = now;
    const count = waiting[kind];
    waiting[kind] = 0;
    const place = document.getElementById("toasts");
    const toast = document.createElement("div");
    toast.className = "sl-toast";
    toast.dataset.kind = kind;
    const head = document.createElement("b");
    head.textContent = KINDS[kind][0] + (count > 1 ? " (" + count + ")" : "");
    const text = document.createElement(KINDS[kind][2] ? "a" : "span");
    text.textContent = KINDS[kind][1](data);
    if (KINDS[kind][2]) text.href = KINDS[kind][2](data, base);
    const silence = document.createElement("button");
    silence.type = "button";
    silence.textContent = "Mute";
    silence.title = "Show no more notices of this kind";
    silence.addEventListener("click", function () { mute(kind, true); mark(); toast.remove(); });
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "×";
    close.setAttribute("aria-label", "Close");
    close.addEventListener("click", function () { toast.remove(); });
    toast.append(head, text, silence, close);
    place.append(toast);
    while (place.children.length > 4) place.firstChild.remove();
    setTimeout(function () { toast.remove(); }, SHOWN);
  }

  function mark() {
    const kinds = muted();
    document.querySelectorAll("#notices input").forEach(function (box) { box.checked = !kinds.includes(box.value); });
  }

  function begin() {
    const notices = document.getElementById("notices");
    if (!notices) return;
    const list = notices.querySelector("div");
    Object.keys(KINDS).forEach(function (kind) {
      const label = document.createElement("label"), box = document.createElement("input");
      box.type = "checkbox";
      box.value = kind;
      box.addEventListener("change", function () { mute(kind, !box.checked); });
      label.append(box, " " + KINDS[kind][0]);
      list.append(label);
    });
    mark();
    const place = document.createElement("div");
    place.id = "toasts";
    place.setAttribute("role", "status");
    place.setAttribute("aria-live", "polite");
    document.body.append(place);
    document.addEventListener("sluice:event", function (event) {
      if (KINDS[event.detail.kind]) show(event.detail.kind, event.detail.data, notices.dataset.base);
    });
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin); else begin();
})();
