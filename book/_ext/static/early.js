/* What must be known before the page is drawn: light or dark - a dark page must not flash white, and paper is light -
   and whether it is opened at its top. */
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

  /* Who begins at the top sees it before the rest is laid out, which takes a phone more than a second. The rest follows
     at once, a section a frame. Who comes for a place further down, or back to one, needs all that is above it. */
  const [visit] = performance.getEntriesByType("navigation");
  if (window.location.hash || visit?.type !== "navigate") return;
  document.documentElement.classList.add("opening");
  window.addEventListener("load", () => {
    const sections = [...document.querySelectorAll(".bd-article > section > section")];
    const follow = () => {
      sections.shift()?.classList.add("laid-out");
      if (sections.length) window.requestAnimationFrame(follow);
      else document.documentElement.classList.remove("opening");
    };
    follow();
  });
})();
