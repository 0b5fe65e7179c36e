/* The variance of float32 numbers far from zero, by several algorithms, in true float32, beside the exact value. */
"use strict";

(function () {
  const { picture, normal, fixed, short, cell, shape, text, linear, axis } = window.normlabExplore;
  const round = Math.fround; // To the nearest float32: after each operation, this is float32 arithmetic.
  const OFFSETS = [0, ...Array.from({ length: 17 }, (_, i) => (i % 2 ? 3 : 1) * 10 ** Math.floor(i / 2))];
  const LONGEST = 2 ** 16;
  const noises = {};

  function noise(seed) {
    noises[seed] ??= Float64Array.from({ length: LONGEST }, (_, index) => normal(seed, index));
    return noises[seed];
  }

  /* One value after another. */
  function running(values) {
    let sum = values[0];
    for (let i = 1; i < values.length; i += 1) sum = round(sum + values[i]);
    return sum;
  }

  /* In halves down to blocks of at most 128, and those in eight sums side by side: the order of NumPy's sum. All lengths
     are powers of two, from 16 on. */
  function pairwise(values, from = 0, length = values.length) {
    if (length <= 128) {
      const r = Array.from({ length: 8 }, (_, i) => values[from + i]);
      for (let i = 8; i < length; i += 8) for (let j = 0; j < 8; j += 1) r[j] = round(r[j] + values[from + i + j]);
      return round(round(round(r[0] + r[1]) + round(r[2] + r[3])) + round(round(r[4] + r[5]) + round(r[6] + r[7])));
    }
    const half = length / 2;
    return round(pairwise(values, from, half) + pairwise(values, from + half, length - half));
  }

  const METHODS = {
    "one pass": (x, mean) => {
      const center = mean(x);
      return round(mean(x.map((value) => value * value)) - round(center * center));
    },
    "two passes": (x, mean) => {
      const center = mean(x);
      return mean(x.map((value) => round(value - center)).map((d) => d * d));
    },
    Welford: (x) => {
      let mean = 0;
      let m2 = 0;
      for (let i = 0; i < x.length; i += 1) {
        const delta = round(x[i] - mean);
        mean = round(mean + round(delta / (i + 1)));
        m2 = round(m2 + round(delta * round(x[i] - mean)));
      }
      return round(m2 / x.length);
    },
    "shifted, one pass": (x, mean) =>
      METHODS["one pass"](
        x.map((value) => value - x[0]),
        mean,
      ),
  };

  /* In float64. Distances from the first value are exact there, and small. */
  function exact(x) {
    const mean = x.reduce((a, b) => a + (b - x[0]), 0) / x.length;
    let square = 0;
    let rest = 0;
    for (const value of x) {
      const d = value - x[0] - mean;
      square += d * d;
      rest += d;
    }
    return (square - (rest * rest) / x.length) / x.length;
  }

  /* The distance from one float32 to the next, at `value`. */
  const spacing = (value) => 2 ** (Math.max(-126, Math.floor(Math.log2(value))) - 23);

  function compute({ place, size, seed, sum }) {
    const [offset, n] = [OFFSETS[place], 2 ** size];
    // A Float32Array rounds what is stored in it, and so do its map()s.
    const x = Float32Array.from(noise(seed).subarray(0, n), (value) => value + offset);
    const mean = (values) => round((sum === "running" ? running : pairwise)(values) / n);
    const truth = exact(x);
    const digitsOf = (answer) =>
      answer === truth ? 7 : Math.min(7, Math.max(0, -Math.log10(Math.max(Math.abs(answer - truth) / truth, 1e-16))));
    const answers = Object.entries(METHODS).map(([name, method]) => {
      const answer = method(x, mean);
      return { name, answer, digits: digitsOf(answer) };
    });
    return { offset, n, truth, answers };
  }

  function draw({ truth, answers }, state, width) {
    const ends = [4, width - 16];
    const x = linear([0, 7], ends);
    const parts = [
      text(ends[0], 14, "right digits", "explore-strong", "start"),
      text(ends[1], 14, `exact: ${short(truth, 7)}`, "explore-strong", "end"),
    ];
    answers.forEach(({ name, answer, digits }, row) => {
      const y = 36 + row * 48;
      parts.push(
        text(ends[0], y, name, "", "start"),
        text(ends[1], y, short(answer, 7), "", "end"),
        shape("rect", { x: ends[0], y: y + 6, width: ends[1] - ends[0], height: 16, class: "explore-empty" }),
        shape("rect", {
          x: ends[0],
          y: y + 6,
          width: Math.max(0, x(digits) - ends[0]),
          height: 16,
          class: digits < 1 ? "explore-b" : "explore-a",
        }),
      );
    });
    const base = 36 + answers.length * 48 - 14;
    parts.push(
      axis(
        x,
        ends,
        base,
        [0, 2, 4, 6].map((value) => [value, String(value)]),
        "digits",
      ),
    );
    return { height: base + 42, parts };
  }

  function say({ offset, n, truth, answers }, { sum }) {
    const [one, two, welford] = answers;
    const many = (value) => value.toLocaleString("en-US");
    const count = ({ digits }) =>
      digits < 1 ? "no right digit" : digits < 2 ? "1 right digit" : `${Math.floor(digits)} right digits`;
    const told = [
      `${many(n)} numbers ${offset ? `near ${many(offset)}` : "around 0"} with`,
      truth ? `variance ${fixed(truth, 4)},` : "no variance, as all of them are stored as the same number,",
      sum === "running" ? "added one after another." : "added pairwise.",
      `One pass gives ${short(one.answer, 4)}, ${count(one)}${one.answer < 0 ? ", and negative" : ""};`,
      `two passes ${short(two.answer, 4)}, ${count(two)};`,
      `Welford ${short(welford.answer, 4)}, ${count(welford)}.`,
    ];
    if (offset >= 10) {
      told.push(`Near ${many(offset)} float32 numbers are ${short(spacing(offset))} apart,`);
      told.push(`and near its square ${short(spacing(offset ** 2))}.`);
    }
    return told.join(" ");
  }

  picture("offset", {
    name: "Right digits of the variance by four algorithms, a bar each",
    start: { place: 7, size: 10, seed: 1, sum: "running" },
    controls: [
      {
        name: "place",
        label: "Distance from zero",
        min: 0,
        max: OFFSETS.length - 1,
        show: (i) => OFFSETS[i].toLocaleString("en-US"),
      },
      { name: "size", label: "How many numbers", min: 4, max: 16, show: (size) => (2 ** size).toLocaleString("en-US") },
      { name: "seed", label: "Draw", min: 1, max: 20, show: String },
      {
        name: "sum",
        label: "Sums",
        options: [
          ["running", "running"],
          ["pairwise", "pairwise, as np.mean"],
        ],
      },
    ],
    seed: "generator mulberry32, and the number of the draw is the seed",
    compute,
    draw,
    say,
    table: ({ truth, answers }) => ({
      caption: "The answers in float32, and the exact variance of the stored numbers",
      head: ["", "variance", "right digits"],
      rows: [
        ...answers.map(({ name, answer, digits }) => [
          name,
          cell(answer, short(answer, 8)),
          cell(digits, fixed(digits, 1)),
        ]),
        ["exact", cell(truth, short(truth, 8)), cell(7, "all")],
      ],
    }),
  });
})();
