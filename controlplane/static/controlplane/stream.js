// The stream of live events: one connection of a visible page, for the notices and for all that is loaded again.
(function () {
  "use strict";
  const AGAIN = 30000; // ms until the next try at a server that refuses the stream, such as for too many of them

  function pass(kind, text) {
    document.dispatchEvent(new CustomEvent("sluice:event", { detail: { kind: kind, data: JSON.parse(text).data } }));
  }

  function begin() {
    const notices = document.getElementById("notices");
    if (!notices) return;
    const names = notices.dataset.names.split(" ");
    let stream = null, later = 0;

    function open() {
      stream = new EventSource(notices.dataset.events);
      names.forEach(function (kind) {
        stream.addEventListener(kind, function (event) { pass(kind, event.data); });
      });
      // What happened while there was no connection is on the server: everything is loaded again.
      stream.addEventListener("open", function () { document.dispatchEvent(new CustomEvent("sluice:stream")); });
      stream.addEventListener("error", function () {
        if (stream && stream.readyState === EventSource.CLOSED) { close(); later = setTimeout(follow, AGAIN); }
      });
    }

    function close() {
      clearTimeout(later);
      if (stream) stream.close();
      stream = null;
    }

    // A browser has few connections to one server: hidden pages keep none.
    function follow() {
      if (document.hidden) close();
      else if (!stream) { clearTimeout(later); open(); }
    }
    document.addEventListener("visibilitychange", follow);
    window.addEventListener("pagehide", close);
    window.addEventListener("pageshow", function (event) { if (event.persisted) follow(); });
    follow();
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin); else begin();
})();
