/* What a reader has done in the exercises, kept in this browser; and how much of the course that is, in the list of pages.
   Nothing here asks a server for anything. */
"use strict";

(function () {
  const STORE = "normlab-work:1:";
  const EXERCISE = `${STORE}exercise:`;
  const CELLS = `${STORE}cells:`;
  const chapters = window.normlabCourse?.chapters ?? {};
  // Where storage is refused, work lasts as long as the page.
  const fallback = new Map();

  function read(key) {
    try { return JSON.parse(window.localStorage.getItem(key) ?? fallback.get(key) ?? "null"); } catch { return null; }
  }

  function write(key, value) {
    const text = JSON.stringify(value);
    try { window.localStorage.setItem(key, text); } catch { fallback.set(key, text); }
  }

  /* An exercise: {text, tried, solved, verdict}; `text` is null while it is the stub. */
  function get(name) {
    const found = read(EXERCISE + name);
    const fits = found && typeof found === "object" && (found.text === null || typeof found.text === "string");
    return fits ? found : { text: null, tried: false, solved: false, verdict: null };
  }

  function set(name, change) {
    write(EXERCISE + name, { ...get(name), ...change });
    if ("solved" in change) show();
  }

  function forgetAll() {
    fallback.clear();
    try {
      Object.keys(window.localStorage).filter((key) => key.startsWith(STORE)).forEach((key) => window.localStorage.removeItem(key));
    } catch { /* Then there is nothing stored. */ }
    show();
  }

  /* ---- In the list of pages ---- */

  const here = window.location.pathname;
  const stemOf = (path) => path.split("/").pop().replace(/\.html$/, "");
  const counts = [];
  let total = null;

  function place() {
    const list = document.querySelector("nav.bd-links");
    if (!list || !window.normlabCourse?.runner || window.location.protocol === "file:") return;
    list.querySelectorAll("a.reference.internal").forEach((link) => {
      const stem = link.getAttribute("href") === "#" ? stemOf(here) : stemOf(new URL(link.href).pathname);
      if (!chapters[stem]) return;
      const shown = document.createElement("span");
      shown.className = "work-count";
      shown.setAttribute("aria-hidden", "true");
      const spoken = document.createElement("span");
      spoken.className = "visually-hidden";
      link.append(" ", shown, spoken);
      counts.push({ stem, shown, spoken });
    });
    if (!counts.length) return;
    total = document.createElement("p");
    total.className = "work-total";
    list.append(total);
    show();
  }

  function show() {
    const solved = (stem) => chapters[stem].filter((name) => get(name).solved).length;
    let [done, all] = [0, 0];
    Object.keys(chapters).forEach((stem) => { done += solved(stem); all += chapters[stem].length; });
    counts.forEach(({ stem, shown, spoken }) => {
      const [some, of] = [solved(stem), chapters[stem].length];
      shown.textContent = `${some}/${of}`;
      shown.classList.toggle("work-begun", some > 0);
      shown.classList.toggle("work-complete", some === of);
      spoken.textContent = `, ${some} of ${of} exercises solved`;
    });
    if (total) total.textContent = `${done} of ${all} exercises solved in this browser`;
  }

  window.addEventListener("storage", show);
  place();

  window.normlabWork = {
    get,
    set,
    forgetAll,
    cells: (chapter) => read(CELLS + chapter) ?? {},
    setCells: (chapter, cells) => write(CELLS + chapter, cells),
  };
})();
