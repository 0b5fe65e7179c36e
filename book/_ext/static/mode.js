/* Chooses light or dark before the page is drawn - a dark page must not flash white - and light for paper. */
"use strict";

(function () {
  let stored = null;
  try { stored = window.localStorage.getItem("mode"); } catch { /* Where storage is refused, the system's mode rules. */ }
  const mode = ["light", "dark"].includes(stored) ? stored : "auto";
  const system = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.mode = mode;
  document.documentElement.dataset.theme = mode === "auto" ? system : mode;

  /* Paper is light, and code takes its colors from the mode. */
  let onScreen = null;
  window.addEventListener("beforeprint", () => {
    onScreen = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
  });
  window.addEventListener("afterprint", () => { document.documentElement.dataset.theme = onScreen; });
})();
