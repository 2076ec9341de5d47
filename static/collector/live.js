/* The dashboard's refresh: what was scrolled or unfolded stays so; stale figures are called that. */
(function () {
  "use strict";
  var scrolled = {};
  var opened = {};

  function boxes() {
    return document.querySelectorAll("#panels .scroll-box[id]");
  }

  function folds() {
    return document.querySelectorAll("#panels details[id]");
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
    opened = {};
    folds().forEach(function (fold) {
      opened[fold.id] = fold.open;
    });
  });
  document.addEventListener("htmx:afterSwap", function () {
    boxes().forEach(function (box) {
      box.scrollLeft = scrolled[box.id] || 0;
    });
    folds().forEach(function (fold) {
      if (fold.id in opened) {
        fold.open = opened[fold.id];
      }
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
