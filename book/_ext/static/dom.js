/* How the scripts of a page make elements. */
"use strict";

(function () {
  function make(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function button(words, className, action) {
    const made = make("button", { type: "button", className, textContent: words });
    made.addEventListener("click", action);
    return made;
  }

  /* What changes in it is read out, when the reader aloud has time. */
  function status(tag, className) {
    const made = make(tag, { className });
    made.setAttribute("role", "status");
    made.setAttribute("aria-live", "polite");
    return made;
  }

  window.normlabDom = { make, button, status };
})();
