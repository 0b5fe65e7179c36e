/* Loads the pictures that nobody has come near yet once nothing else is to do: the page may be printed, or the mode change. */
"use strict";

(function () {
  const soon = window.requestIdleCallback ?? ((work) => window.setTimeout(work, 500));

  function load() {
    if (navigator.connection?.saveData) return;
    document.querySelectorAll("img[loading=lazy]").forEach((picture) => { picture.loading = "eager"; });
  }

  window.addEventListener("load", () => soon(load));
})();
