/* The dashboard's refresh: keep scrolled tables where they are, and say so when figures are stale. */
(function () {
  "use strict";
  var scrolled = {};

  function boxes() {
    return document.querySelectorAll("#panels .scroll-box[id]");
  }

  function stale(words) {
    var state = document.getElementById("ops-state");
    if (state) {
      state.textContent = words;
      state.classList.add("stale");
    }
  }

  document.addEventListener("visibilitychange", function () {
    if (!document.hidden) {
      window.htmx.trigger("#panels", "refresh");
    }
  });
  document.addEventListener("htmx:beforeRequest", function (event) {
    if (document.hidden) {
      event.preventDefault();
    }
  });
  document.addEventListener("htmx:beforeSwap", function () {
    scrolled = {};
    boxes().forEach(function (box) {
      scrolled[box.id] = box.scrollLeft;
    });
  });
  document.addEventListener("htmx:afterSwap", function () {
    boxes().forEach(function (box) {
      box.scrollLeft = scrolled[box.id] || 0;
    });
  });
  document.addEventListener("htmx:sendError", function () {
    stale("No answer; these figures are old");
  });
  document.addEventListener("htmx:timeout", function () {
    stale("No answer in time; these figures are old");
  });
  document.addEventListener("htmx:responseError", function (event) {
    stale("The server answered " + event.detail.xhr.status + "; these figures are old");
  });
})();
