// The stream of live events, for the notices and for all that is loaded again. A browser opens about six connections to one
// server, and a stream keeps one: of all visible pages one has the stream and sends the events to the others.
(function () {
  "use strict";
  const AGAIN = 30000; // milliseconds after which a stream that the server refused is opened again

  function take(message) {
    if (message.kind) document.dispatchEvent(new CustomEvent("sluice:event", { detail: message }));
    else document.dispatchEvent(new CustomEvent("sluice:stream"));
  }

  function begin() {
    const notices = document.getElementById("notices");
    if (!notices) return;
    const names = notices.dataset.names.split(" "), address = notices.dataset.events;
    const channel = window.BroadcastChannel ? new BroadcastChannel("sluice:" + address) : null;
    let stream = null, later = 0, waiting = null, release = null;

    function send(message) {
      take(message);
      if (channel) channel.postMessage(message);
    }

    function open() {
      stream = new EventSource(address);
      names.forEach(function (kind) {
        stream.addEventListener(kind, function (event) { send({ kind: kind, data: JSON.parse(event.data).data }); });
      });
      // What happened while there was no connection is on the server: everything is loaded again.
      stream.addEventListener("open", function () { send({}); });
      stream.addEventListener("error", function () {
        if (stream && stream.readyState === EventSource.CLOSED) { stop(); later = setTimeout(start, AGAIN); }
      });
    }

    function start() {
      clearTimeout(later);
      if (stream || waiting || document.hidden) return;
      // Only pages from https or from this machine have locks; others have a stream each.
      if (!navigator.locks || !channel) { open(); return; }
      waiting = new AbortController();
      navigator.locks.request("sluice:" + address, { signal: waiting.signal }, function () {
        open();
        return new Promise(function (done) { release = done; });
      }).catch(function (error) { if (error.name !== "AbortError") throw error; });
    }

    function stop() {
      clearTimeout(later);
      if (stream) stream.close();
      if (release) release();
      else if (waiting) waiting.abort();
      stream = waiting = release = null;
    }

    if (channel) channel.onmessage = function (event) { if (!document.hidden) take(event.data); };
    document.addEventListener("visibilitychange", function () { if (document.hidden) stop(); else start(); });
    window.addEventListener("pagehide", stop);
    window.addEventListener("pageshow", function (event) { if (event.persisted) start(); });
    start();
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin); else begin();
})();
