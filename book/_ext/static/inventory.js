/* Makes the inventory a questionnaire: answer, see your score, come back after the course, see what became of it.
   Answers stay in this browser: nothing here asks a server for anything. */
"use strict";

(function () {
  const block = document.getElementById("inventory");
  if (!block) return;

  const STORE = "normlab-inventory";
  const OPEN = "-";
  const STAGES = ["before", "between", "after", "end"];

  const { make, button, status } = window.normlabDom;

  /* ---- The questions, as they stand in the page ---- */

  const items = [...block.querySelectorAll(".inventory-item")];
  const folded = block.querySelector(".inventory-answers");
  const answers = [...folded.querySelectorAll(".inventory-answer")];
  const count = items.length;

  const questions = items.map((item, index) => {
    const options = [...item.querySelectorAll(".inventory-options > li")];
    return {
      item,
      options,
      answer: answers[index],
      letters: options.map((option) => option.dataset.letter),
      right: item.dataset.right,
      chapter: answers[index].querySelector(".inventory-chapter"),
      belief: (letter) => answers[index].querySelector(`.inventory-others > [data-letter="${letter}"]`),
    };
  });

  /* ---- What is remembered: {version, stage, before, after}, answers as text, one letter a question ---- */

  const none = OPEN.repeat(count);
  const fresh = () => ({ version: block.dataset.version, stage: "before", before: none, after: none });

  /* Why `state` is not what this page can go on from, or null. */
  function fault(state) {
    const fits = (text) => typeof text === "string" && text.length === count
      && [...text].every((letter, index) => letter === OPEN || questions[index].letters.includes(letter));
    if (!state || typeof state !== "object" || !("version" in state)) return "This file holds no answers of this page.";
    if (state.version !== block.dataset.version) return "These answers belong to another version of the questions.";
    if (!STAGES.includes(state.stage) || !fits(state.before) || !fits(state.after)) return "These answers are damaged.";
    return null;
  }

  function remembered() {
    try { return JSON.parse(window.localStorage.getItem(STORE)); } catch { return null; }
  }

  function remember() {
    try {
      if (state.stage === "before" && state.before === none) window.localStorage.removeItem(STORE);
      else window.localStorage.setItem(STORE, JSON.stringify(state));
    } catch { /* Where storage is refused, answers last as long as the page. */ }
  }

  const stored = remembered();
  const unusable = stored && fault(stored);
  let state = stored && !unusable ? stored : fresh();

  /* ---- Scores ---- */

  const numbers = (wanted) => questions.map((_, index) => index).filter(wanted);
  const rightOf = (text) => numbers((index) => text[index] === questions[index].right).length;
  const inWords = (right) => `${right} of ${count} right (${Math.round((100 * right) / count)} %)`;

  function gainInWords(before, after) {
    if (before === count) return "Nothing was missing before, so there is no gain to compute.";
    const gain = ((after - before) / (count - before)).toFixed(2).replace("-", "\u2212");
    return after < before
      ? `Normalized gain: ${gain}: ${before - after} fewer than before.`
      : `Normalized gain: ${gain}: ${after - before} more, of the ${count - before} that were missing.`;
  }

  /* ---- The parts that only a browser has ---- */

  const title = make("p", { className: "inventory-title", tabIndex: -1 });
  const report = make("div", { className: "inventory-report" });
  const again = button("I have finished the course: answer again", "inventory-again", () => {
    state = { ...state, stage: "after", after: none };
    show();
    questions[0].item.querySelector("input").focus();
  });
  const panel = make("div", { className: "inventory-panel" }, title, report, again);

  const progress = make("p", { className: "inventory-progress" });
  const warning = status("p", "inventory-warning");
  const finish = button("Finish", "inventory-finish", () => {
    const open = numbers((index) => state[state.stage][index] === OPEN);
    if (open.length && !warning.textContent) {
      warning.textContent = `Still open: ${open.map((index) => index + 1).join(", ")}. They count as not right.`;
      finish.textContent = "Finish anyway";
      return;
    }
    state = { ...state, stage: state.stage === "before" ? "between" : "end" };
    show();
    title.focus({ preventScroll: true });
    block.scrollIntoView();
  });
  const bar = make("div", { className: "inventory-bar" }, progress, warning, finish);

  const said = status("p", "inventory-said");
  const asText = make("p", { className: "inventory-text" });
  const download = button("Save them as a file", "inventory-quiet", () => {
    const file = new Blob([`${JSON.stringify(state, null, 2)}\n`], { type: "application/json" });
    const link = make("a", { href: URL.createObjectURL(file), download: "inventory-answers.json" });
    link.click();
    URL.revokeObjectURL(link.href);
  });
  const chooser = make("input", { type: "file", accept: ".json,application/json", hidden: true });
  const upload = button("Load them from a file", "inventory-quiet", () => chooser.click());
  chooser.addEventListener("change", async () => {
    let read = null;
    try { read = JSON.parse(await chooser.files[0].text()); } catch { /* Then it is no file of ours. */ }
    chooser.value = "";
    const wrong = fault(read);
    if (!wrong) {
      const { version, stage, before, after } = read;
      state = { version, stage, before, after };
      show();
    }
    said.textContent = wrong ?? "Loaded.";
  });
  const FORGET = "Forget them";
  const forget = button(FORGET, "inventory-quiet", () => {
    if (forget.textContent === FORGET) {
      forget.textContent = "Forget all answers, really";
      return;
    }
    state = fresh();
    show();
    said.textContent = "All answers are forgotten.";
    title.focus();
  });
  forget.addEventListener("blur", () => { forget.textContent = FORGET; });
  const tools = make("div", { className: "inventory-tools" }, asText,
    make("p", {}, "Your answers are kept in this browser alone. ", download, upload, forget, chooser), said);

  questions.forEach((question, index) => {
    const asked = question.item.querySelector(".inventory-question");
    const legend = make("legend", { className: "inventory-question" }, ...asked.childNodes);
    question.skip = button("Leave it open", "inventory-quiet inventory-skip", () => {
      choose(index, OPEN);
      question.radios[0].focus({ preventScroll: true });
    });
    question.radios = question.options.map((option) => {
      const radio = make("input", { type: "radio", name: question.item.id, value: option.dataset.letter });
      radio.addEventListener("change", () => choose(index, radio.value));
      option.append(make("label", {}, radio, option.firstElementChild, make("span", { className: "inventory-note" })));
      return radio;
    });
    asked.replaceWith(make("fieldset", {}, legend, question.item.querySelector(".inventory-options"), question.skip));
  });

  function choose(index, letter) {
    const text = state[state.stage];
    state = { ...state, [state.stage]: text.slice(0, index) + letter + text.slice(index + 1) };
    showAnswering();
    remember();
  }

  /* ---- What is seen at each stage ---- */

  function show() {
    const { stage } = state;
    said.textContent = "";
    forget.textContent = FORGET;
    block.dataset.stage = stage;
    again.hidden = stage !== "between";
    bar.hidden = stage === "between" || stage === "end";
    folded.hidden = true;
    report.replaceChildren();
    showItems(stage === "end");
    if (stage === "before") title.textContent = "The first time: before the course";
    if (stage === "after") title.textContent = "The second time: after the course";
    if (stage === "between") showTopics();
    if (stage === "end") showEnd();
    showAnswering();
    remember();
  }

  /* What changes with every answer. */
  function showAnswering() {
    const { stage, before, after } = state;
    const current = stage === "before" || stage === "between" ? before : after;
    questions.forEach(({ radios, skip }, index) => {
      radios.forEach((radio) => {
        radio.checked = radio.value === current[index];
        radio.disabled = stage === "end";
      });
      skip.hidden = stage === "end" || current[index] === OPEN;
    });
    progress.textContent = `${numbers((index) => current[index] !== OPEN).length} of ${count} answered`;
    warning.textContent = "";
    finish.textContent = "Finish";
    asText.replaceChildren();
    if (stage !== "before") asText.append("As text, for the notebook. Before: ", make("code", { textContent: before }));
    if (stage === "end") asText.append(", after: ", make("code", { textContent: after }));
    tools.hidden = stage === "before" && before === none && !said.textContent;
  }

  /* With the answers, and what was chosen when, or without. */
  function showItems(told) {
    questions.forEach(({ item, options, answer, right }, index) => {
      options.forEach((option) => {
        const { letter } = option.dataset;
        option.classList.toggle("inventory-right", told && letter === right);
        option.classList.toggle("inventory-chosen", told && letter === state.after[index]);
        option.querySelector(".inventory-note").textContent = !told ? "" : [
          letter === state.before[index] && "before", letter === state.after[index] && "after", letter === right && "right",
        ].filter(Boolean).join(", ");
      });
      (told ? item : folded).append(answer);
    });
  }

  /* After the first time: the score, and where to read. No answer is given away. */
  function showTopics() {
    const missed = numbers((index) => state.before[index] !== questions[index].right);
    title.textContent = `Before the course: ${inWords(count - missed.length)}`;
    if (!missed.length) {
      report.append(make("p", {}, "Read for the pictures, and do the exercises. Then come back."));
      return;
    }
    const chapters = new Map(missed.map((index) => [items[index].dataset.chapter, questions[index].chapter]));
    report.append(
      make("p", {}, "Which ones, and why, you will see after the second time. These chapters have most for you:"),
      make("ul", {}, ...[...chapters.values()].map((chapter) => make("li", {}, chapter.cloneNode(true)))),
    );
  }

  /* After the second time: both scores, the gain, and the beliefs behind wrong answers. */
  function showEnd() {
    const [before, after] = [rightOf(state.before), rightOf(state.after)];
    title.textContent = `Before: ${inWords(before)}. After: ${inWords(after)}.`;
    report.append(make("p", { className: "inventory-gain" }, gainInWords(before, after)));
    const beliefs = new Map();
    questions.forEach((question, index) => {
      for (const time of ["before", "after"]) {
        const shown = question.belief(state[time][index]);
        if (!shown) continue;
        const { belief } = shown.dataset;
        const words = shown.querySelector(".inventory-belief").textContent;
        if (!beliefs.has(belief)) beliefs.set(belief, { words, before: [], after: [], chapters: new Map() });
        beliefs.get(belief)[time].push(index);
        beliefs.get(belief).chapters.set(question.item.dataset.chapter, question.chapter);
      }
    });
    if (beliefs.size) report.append(beliefTable([...beliefs.values()]));
    report.append(make("p", {}, "Below, every question has its answer."));
  }

  function beliefTable(beliefs) {
    const listed = (nodes) => nodes.flatMap((node, place) => (place ? [", ", node] : [node]));
    const asked = (indices) => listed(indices.map((index) =>
      make("a", { href: `#${items[index].id}`, textContent: String(index + 1), ariaLabel: `question ${index + 1}` })));
    const cell = (indices) => make("td", {}, ...(indices.length ? asked(indices) : ["\u2013"]));
    const rows = beliefs.map(({ words, before, after, chapters }) => make("tr", { className: after.length ? "" : "inventory-gone" },
      make("th", { scope: "row" }, make("span", { className: "inventory-held" }, words),
        make("span", { className: "inventory-read" }, ...listed([...chapters.values()].map((chapter) => chapter.cloneNode(true))))),
      cell(before), cell(after)));
    const heads = ["The belief behind a wrong answer", "Before", "After"];
    const table = make("table", {},
      make("caption", {}, "Below each belief: the chapter about it. The numbers are those of the questions that showed it."),
      make("thead", {}, make("tr", {}, ...heads.map((words) => make("th", { scope: "col", textContent: words })))),
      make("tbody", {}, ...rows));
    return make("div", { className: "inventory-beliefs" }, table);
  }

  block.prepend(panel);
  folded.before(bar);
  block.append(tools);
  block.classList.add("inventory-live");
  show();
  if (unusable) {
    said.textContent = `${unusable} They were left aside.`;
    tools.hidden = false;
  }
})();
