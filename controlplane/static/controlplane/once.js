// A form that is sent is not sent again by a second click: two keys would be made of one.
(function () {
  "use strict";
  const AGAIN = 5000; // after so long an answer is not expected any more

  function again(form) {
    if (form.dataset.sent) return true;
    form.dataset.sent = "1";
    setTimeout(function () { delete form.dataset.sent; }, AGAIN);
    return false;
  }

  document.addEventListener("submit", function (event) {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post" || form.hasAttribute("hx-post")) return;
    if (again(form)) event.preventDefault();
  });
  window.addEventListener("pageshow", function () {
    document.querySelectorAll("form[data-sent]").forEach(function (form) { delete form.dataset.sent; });
  });

  function dialog(event) {
    const element = event.detail.elt;
    return element && element.matches && element.matches("#dialog form") ? element : null;
  }
  document.addEventListener("htmx:beforeRequest", function (event) {
    const form = dialog(event);
    if (form && again(form)) event.preventDefault();
  });
  // The dialog stays with what is to be corrected; otherwise the page is left.
  document.addEventListener("htmx:afterRequest", function (event) {
    const form = dialog(event);
    if (form && !event.detail.xhr.getResponseHeader("HX-Redirect")) delete form.dataset.sent;
  });
})();
