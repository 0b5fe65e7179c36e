/* Turns each list of options into a prediction: choose, commit, then read what happens. */
"use strict";

(function () {
  const STORE = "normlab-predict:";

  function remembered(key) {
    try { return window.localStorage.getItem(STORE + key); } catch { return null; }
  }

  function remember(key, choice) {
    try {
      if (choice === null) window.localStorage.removeItem(STORE + key);
      else window.localStorage.setItem(STORE + key, choice);
    } catch { /* Where storage is refused, a prediction lasts as long as the page. */ }
  }

  const { make, status } = window.normlabDom;

  /* The cells that stand right below a prediction are its measurement: they show the answer too. So does text that a page
     has marked as `measured`, where it stands among or right below them. */
  function measurement(block) {
    const cells = [];
    for (let next = block.nextElementSibling; next?.matches(".cell, .measured"); next = next.nextElementSibling) cells.push(next);
    return cells;
  }

  function enhance(block) {
    const { key, right } = block.dataset;
    const cells = measurement(block);
    const wait = make("p", { className: "predict-wait", textContent: "The measurement stands here once you have committed." });
    if (cells.length) block.after(wait);
    const question = block.querySelector(".predict-question");
    const list = block.querySelector(".predict-options");
    const answer = block.querySelector(".predict-answer");
    const items = [...list.children];

    const legend = make("legend", { className: "predict-question" }, ...question.childNodes);
    const commit = make("button", { type: "button", className: "predict-commit", textContent: "Commit" });
    const again = make("button", { type: "button", className: "predict-again", textContent: "Predict again" });
    const result = status("p", "predict-result");

    const radios = items.map((item, index) => {
      const radio = make("input", { type: "radio", name: block.id, value: String(index) });
      const note = make("span", { className: "predict-note" });
      item.append(make("label", {}, radio, item.firstElementChild, note));
      radio.addEventListener("change", () => { commit.disabled = false; });
      return radio;
    });
    const fieldset = make("fieldset", {}, legend, list, result, commit, again);
    question.replaceWith(fieldset);
    block.classList.add("predict-live");

    function show(choice) {
      const committed = choice !== null;
      items.forEach((item, index) => {
        const chosen = committed && String(index) === choice;
        const happens = committed && String(index) === right;
        item.classList.toggle("predict-chosen", chosen);
        item.classList.toggle("predict-right", happens);
        item.querySelector(".predict-note").textContent =
          [chosen && "your prediction", happens && "what happens"].filter(Boolean).join(", ");
        radios[index].checked = chosen;
        radios[index].disabled = committed;
      });
      commit.hidden = committed;
      commit.disabled = true;
      again.hidden = !committed;
      answer.hidden = !committed;
      answer.open = committed;
      wait.hidden = committed;
      cells.forEach((cell) => cell.classList.toggle("predict-covered", !committed));
      result.textContent = !committed ? ""
        : choice === right ? "Your prediction matches what happens."
        : "Your prediction differs from what happens.";
    }

    commit.addEventListener("click", () => {
      const choice = radios.find((radio) => radio.checked).value;
      remember(key, choice);
      show(choice);
      again.focus({ preventScroll: true });
    });
    again.addEventListener("click", () => {
      remember(key, null);
      show(null);
      radios[0].focus({ preventScroll: true });
    });

    const before = remembered(key);
    show(before !== null && radios[before] ? before : null);
  }

  document.querySelectorAll(".predict").forEach(enhance);
})();
