/* What scrolls inside itself - wide formulas, code, tables - can be reached and scrolled with the keyboard. */
"use strict";

(function () {
  const WIDE = ".bd-article :is(div.math, pre, .numbers, .pst-scrollable-table-container, .output)";

  function reach() {
    document.querySelectorAll(WIDE).forEach((box) => {
      if (box.scrollWidth > box.clientWidth && window.getComputedStyle(box).overflowX !== "visible") box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    });
  }

  function start() {
    reach();
    window.addEventListener("resize", reach);
    document.addEventListener("toggle", reach, true);
  }

  window.addEventListener("load", start);
})();
