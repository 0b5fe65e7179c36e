/* Explorable pictures: what they share. Each picture is a file of its own, explore-<name>.js, and a call

     normlabExplore.picture("name", { start, controls, compute, draw, say, table, open })

   `start` is the first state, an object of numbers and strings; `controls` change it; `compute(state, given)` makes the
   numbers of a state, and nothing else does; `draw`, `say` and `table` show them as SVG, as a sentence and as a table, which is folded
   unless `open`.
   `given` is data that the page hands over. Until a picture stands, the table below its place is seen instead. */
"use strict";

(function () {
  const SVG = "http://www.w3.org/2000/svg";
  const REST = 300; // Milliseconds without a change before the sentence follows: a reader hears one, not thirty.

  const { make } = window.normlabDom;

  function shape(tag, attributes, ...children) {
    const element = document.createElementNS(SVG, tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    element.append(...children);
    return element;
  }

  /* ---- Random numbers: the same on every machine ---- */

  /* Number `index` of the stream `seed`, between 0 and 1 and never either. The generator is mulberry32 (Tommy Ettinger,
     2017): a counter and a hash, so that any number can be had without those before it. */
  function random(seed, index) {
    const a = (seed + Math.imul(index + 1, 0x6d2b79f5)) | 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  }

  /* Two uniform numbers make a standard normal one (Box and Muller). */
  function normal(seed, index) {
    return Math.sqrt(-2 * Math.log(random(seed, 2 * index))) * Math.cos(2 * Math.PI * random(seed, 2 * index + 1));
  }

  /* ---- Numbers as text ---- */

  const minus = (text) => text.replace("-", "\u2212");

  /* With so many decimals; what rounds to zero is zero, not minus zero. */
  function fixed(value, digits = 2) {
    if (!Number.isFinite(value)) return Number.isNaN(value) ? "none" : minus(`${value < 0 ? "-" : ""}\u221e`);
    const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    return minus((Number(value.toFixed(digits)) || 0).toLocaleString("en-US", options));
  }

  /* With so many digits that count and no zeros at the end, as a power of ten where it is tiny or huge. */
  function short(value, digits = 3) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (!Number.isFinite(value)) return fixed(value);
    if (size >= 1e7 || size < 9e-7)
      return minus(
        value
          .toExponential(digits - 1)
          .replace(/\.?0+e/, "e")
          .replace("e+", "e"),
      );
    const long = fixed(value, Math.max(0, digits - 1 - Math.floor(Math.log10(size))));
    return long.includes(".") ? long.replace(/\.?0+$/, "") : long;
  }

  const cell = (value, text) => ({ value, text: text ?? fixed(value, 4) });

  /* ---- Drawing ---- */

  const linear =
    ([low, high], [from, to]) =>
    (value) =>
      from + ((value - low) / (high - low)) * (to - from);
  const text = (x, y, words, kind = "", anchor = "middle") =>
    shape("text", { x, y, class: `explore-text ${kind}`, "text-anchor": anchor }, words);
  const swatch = (x, y, kind) => shape("rect", { x, y: y - 10, width: 14, height: 10, class: kind });
  const line = (x1, y1, x2, y2, kind) => shape("line", { x1, y1, x2, y2, class: kind });

  /* A horizontal axis at height `y`: a line, `marks` as [value, words] and the name of what is measured. */
  function axis(scale, [from, to], y, marks, name) {
    return shape(
      "g",
      {},
      line(from, y, to, y, "explore-axis"),
      ...marks.flatMap(([value, words]) => [
        line(scale(value), y, scale(value), y + 4, "explore-axis"),
        text(scale(value), y + 17, words),
      ]),
      text((from + to) / 2, y + 34, name, "explore-muted"),
    );
  }

  /* ---- Controls: native inputs, their value in the label ---- */

  function slider(spec, id, change) {
    const value = make("span", { className: "explore-value" });
    value.setAttribute("aria-hidden", "true"); // The input says it itself.
    const input = make("input", { type: "range", id, min: spec.min, step: spec.step ?? 1, autocomplete: "off" });
    input.addEventListener("input", () => change({ [spec.name]: Number(input.value) }));
    return {
      node: make(
        "div",
        { className: "explore-control" },
        make("label", { htmlFor: id }, make("span", {}, spec.label), " ", value),
        input,
      ),
      show(state) {
        input.max = typeof spec.max === "function" ? spec.max(state) : spec.max;
        input.value = state[spec.name];
        value.textContent = spec.show(state[spec.name], state);
        input.setAttribute("aria-valuetext", value.textContent);
        input.disabled = spec.off?.(state) ?? false;
      },
    };
  }

  function choice(spec, id, change) {
    const options = spec.options.map(([value, words]) => {
      const input = make("input", { type: "radio", name: id, value, autocomplete: "off" });
      input.addEventListener("change", () => change({ [spec.name]: value }));
      return { value, input, node: make("label", {}, input, make("span", {}, words)) };
    });
    const group = make(
      "fieldset",
      { className: "explore-control explore-choice" },
      make("legend", {}, spec.label),
      make("div", {}, ...options.map((option) => option.node)),
    );
    return {
      node: group,
      show(state) {
        options.forEach(({ value, input }) => {
          input.checked = state[spec.name] === value;
        });
        group.disabled = spec.off?.(state) ?? false;
      },
    };
  }

  /* A button that can do nothing keeps the focus: it is said to be disabled, and does nothing. */
  function button(words, press, off, current) {
    const made = make("button", { type: "button", textContent: words, className: "explore-button" });
    made.addEventListener("click", () => {
      if (!off?.(current())) press(current());
    });
    made.showState = (state) => made.setAttribute("aria-disabled", String(off?.(state) ?? false));
    return made;
  }

  /* ---- A picture in its place ---- */

  function mount(figure, picture) {
    const given = JSON.parse(figure.dataset.given ?? "null");
    let state = { ...picture.start };
    let numbers;
    let width = 0;
    let waiting;

    function change(part) {
      state = picture.settle ? picture.settle({ ...state, ...part }) : { ...state, ...part };
      update();
      says.dataset.late = "true"; // It still tells of the state before.
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        says.textContent = picture.say(numbers, state);
        delete says.dataset.late;
      }, REST);
    }

    const id = figure.id;
    const controls = picture.controls.map((spec) =>
      (spec.options ? choice : slider)(spec, `${id}-${spec.name}`, change),
    );
    const press = (action) => (now) => change(action(now));
    const buttons = [
      ...(picture.buttons ?? []).map(({ words, act, off }) => button(words, press(act), off, () => state)),
      button(
        "Start again",
        press(() => picture.start),
        null,
        () => state,
      ),
    ];
    const svg = shape("svg", { role: "img", "aria-label": picture.name, "aria-describedby": `${id}-says` });
    const says = make("p", { className: "explore-says", id: `${id}-says` });
    says.setAttribute("role", "status");
    const stage = make("div", { className: "explore-stage" }, svg);
    const numbersBox = make("div", { className: "numbers" });
    const live = make(
      "div",
      { className: "explore-live" },
      make("div", { className: "explore-controls" }, ...controls.map(({ node }) => node)),
      make("div", { className: "explore-buttons" }, ...buttons),
      stage,
      says,
      make("details", { open: picture.open ?? false }, make("summary", { textContent: "The numbers as a table" }), numbersBox, ...seeded(picture)),
    );

    function redraw() {
      if (!width) return; // Hidden, as behind a prediction: it is drawn when it is seen.
      const drawing = picture.draw(numbers, state, width, change);
      svg.setAttribute("viewBox", `0 0 ${width} ${drawing.height}`);
      svg.replaceChildren(...drawing.parts);
    }

    function update() {
      numbers = picture.compute(state, given);
      controls.forEach((control) => control.show(state));
      buttons.forEach((made) => made.showState(state));
      redraw();
      numbersBox.replaceChildren(tableOf(picture.table(numbers, state)));
    }

    update();
    says.textContent = picture.say(numbers, state);
    figure.querySelector(".explore-still").before(live);
    figure.classList.add("explore-lives");
    new ResizeObserver(() => {
      const now = Math.round(stage.clientWidth);
      if (now !== width) {
        width = now;
        redraw();
      }
    }).observe(stage);
  }

  const seeded = ({ seed }) =>
    seed === undefined
      ? []
      : [
          make("p", {
            className: "explore-seed",
            textContent: `The random numbers are the same for everybody: ${seed}.`,
          }),
        ];

  function tableOf({ caption, head, rows }) {
    const of = (content) =>
      typeof content === "string"
        ? [content]
        : [make("data", { value: String(content.value), textContent: content.text })];
    const kind = (content) => (typeof content === "string" ? "" : "number");
    const heads = head.map((words, column) =>
      words ? make("th", { scope: "col", className: kind(rows[0][column]), textContent: words }) : make("td", {}),
    );
    return make(
      "table",
      {},
      make("caption", { textContent: caption }),
      make("thead", {}, make("tr", {}, ...heads)),
      make(
        "tbody",
        {},
        ...rows.map(([first, ...rest]) =>
          make(
            "tr",
            {},
            make("th", { scope: "row", textContent: first }),
            ...rest.map((content) => make("td", { className: kind(content) }, ...of(content))),
          ),
        ),
      ),
    );
  }

  function picture(name, definition) {
    document.querySelectorAll(`.explore[data-explore="${name}"]`).forEach((figure) => mount(figure, definition));
  }

  window.normlabExplore = { picture, random, normal, fixed, short, cell, shape, text, swatch, line, linear, axis };
})();
