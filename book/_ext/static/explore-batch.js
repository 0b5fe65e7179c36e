/* A histogram before and after batch norm: what the data's place and scale, the weight, the bias and the batch size do. */
"use strict";

(function () {
  const { picture, random, normal, fixed, cell, shape, text, line, linear, axis } = window.normlabExplore;
  const COUNT = 8192;
  const SEED = 2022;
  // Variance 1 each. The exponential's mean is 1, that of the others 0.
  const DRAW = {
    uniform: (index) => Math.sqrt(12) * (random(SEED, index) - 0.5),
    normal: (index) => normal(SEED, index),
    exponential: (index) => -Math.log(random(SEED, index)),
  };
  // Bars are a quarter wide, and their middles are multiples of a quarter: no output of a batch of two is on an edge.
  const [END, BAR] = [6.125, 0.25];
  const drawn = {};

  function draws(kind) {
    drawn[kind] ??= Float64Array.from({ length: COUNT }, (_, index) => DRAW[kind](index));
    return drawn[kind];
  }

  function measure(values) {
    const sum = values.reduce((a, b) => a + b, 0);
    const mean = sum / values.length;
    let second = 0;
    let third = 0;
    for (const value of values) {
      const d = value - mean;
      second += d * d;
      third += d * d * d;
    }
    const variance = second / values.length;
    const bars = new Array(Math.round((2 * END) / BAR)).fill(0);
    let outside = 0;
    for (const value of values) {
      const bar = Math.floor((value + END) / BAR);
      if (bar >= 0 && bar < bars.length) bars[bar] += 1;
      else outside += 1;
    }
    const skewness = variance > 1e-20 ? third / values.length / variance ** 1.5 : NaN;
    return { sum, mean, variance, skewness, bars, outside };
  }

  function compute({ data, place, scale, size, weight, bias }) {
    const n = 2 ** size;
    const before = draws(data).map((value) => place + scale * value);
    const after = new Float64Array(COUNT);
    for (let start = 0; start < COUNT; start += n) {
      let mean = 0;
      let variance = 0;
      for (let i = start; i < start + n; i += 1) mean += before[i] / n;
      for (let i = start; i < start + n; i += 1) variance += (before[i] - mean) ** 2 / n;
      for (let i = start; i < start + n; i += 1) after[i] = (weight * (before[i] - mean)) / Math.sqrt(variance) + bias;
    }
    return { n, before: measure(before), after: measure(after) };
  }

  function draw({ n, before, after }, { weight, bias }, width) {
    const ends = [14, width - 14];
    const x = linear([-END, END], ends);
    const marks = [-6, -3, 0, 3, 6].map((value) => [value, fixed(value, 0)]);
    const [room, high] = [148, 92];
    const limit = Math.abs(weight) * Math.sqrt(n - 1);
    const limits = [bias - limit, bias + limit].filter((value) => weight && Math.abs(value) < END);

    function panel(row, found, name, kind) {
      const base = row * room + high + 32;
      const tallest = Math.max(...found.bars);
      const std = Math.sqrt(found.variance);
      const [left, right] = [found.mean - std, found.mean + std].map((value) =>
        x(Math.max(-END, Math.min(END, value))),
      );
      const parts = [
        text(ends[0], row * room + 16, name, "explore-strong", "start"),
        shape("rect", { x: left, y: base - high, width: right - left, height: high, class: "explore-band" }),
        ...found.bars.map((count, bar) =>
          shape("rect", {
            x: x(-END + bar * BAR) + 0.5,
            width: Math.max(0.5, x(BAR) - x(0) - 1),
            class: kind,
            y: base - (count / tallest) * high,
            height: (count / tallest) * high,
          }),
        ),
        axis(x, ends, base, marks, row ? "triangle: mean; band: \u00b1 one std" : ""),
      ];
      if (Math.abs(found.mean) < END) {
        const at = x(found.mean);
        parts.push(shape("path", { d: `M${at} ${base - high}l6 -10h-12z`, class: "explore-mark" }));
      }
      return { parts, base };
    }

    const top = panel(0, before, "before", "explore-c");
    const bottom = panel(1, after, "after batch norm", "explore-a");
    return {
      height: 2 * room + 20,
      parts: [
        ...top.parts,
        ...bottom.parts,
        ...(limits.length ? [text(ends[1], room + 16, "dashed: limit", "explore-muted", "end")] : []),
        ...limits.map((value) => line(x(value), bottom.base - high, x(value), bottom.base, "explore-limit")),
      ],
    };
  }

  function say({ n, before, after }, { data, weight, bias, size }) {
    const input =
      `${COUNT.toLocaleString("en-US")} ${data} values of mean ${fixed(before.mean)}, variance ` +
      `${fixed(before.variance)} and skewness ${fixed(before.skewness)}, in batches of ${n.toLocaleString("en-US")}.`;
    if (!weight) return `${input} With weight 0 every output is the bias, ${fixed(bias, 1)}.`;
    const limit = Math.abs(weight) * Math.sqrt(n - 1);
    const limits =
      n > 2 && n <= 32
        ? ` None lies beyond ${fixed(bias - limit)} and ${fixed(bias + limit)}: a batch of ${n} is too small for that.`
        : "";
    const moments =
      `The output has mean ${fixed(after.mean)} and variance ${fixed(after.variance)}, which bias and ` +
      "weight decide, whatever the data\u2019s place and scale.";
    if (size === 1)
      return `${input} ${moments} Of every pair one is lifted and one lowered, all by the same: two spikes, skewness 0.`;
    const left = after.skewness / before.skewness;
    const kept =
      data !== "exponential"
        ? `Its skewness is ${fixed(after.skewness)}.`
        : `Its skewness is ${fixed(after.skewness)}: ${fixed(Math.abs(left) * 100, 0)} percent of the lean is left` +
          `${left < 0 ? ", and the negative weight has turned it round" : ""}.`;
    return `${input} ${moments} ${kept}${limits}`;
  }

  picture("batch", {
    name: "Two histograms on one axis: the data, and what batch norm makes of them",
    start: { data: "exponential", place: 0, scale: 1, size: 10, weight: 1, bias: 0 },
    controls: [
      { name: "data", label: "Data", options: ["uniform", "normal", "exponential"].map((kind) => [kind, kind]) },
      {
        name: "size",
        label: "Values per batch, N",
        min: 1,
        max: 13,
        show: (size) => (2 ** size).toLocaleString("en-US"),
      },
      { name: "place", label: "Shift of the data", min: -3, max: 3, step: 0.5, show: (v) => fixed(v, 1) },
      { name: "scale", label: "Scale of the data", min: 0.25, max: 2, step: 0.25, show: (v) => fixed(v) },
      { name: "weight", label: "Weight γ of the layer", min: -2, max: 2, step: 0.25, show: (v) => fixed(v) },
      { name: "bias", label: "Bias β of the layer", min: -3, max: 3, step: 0.5, show: (v) => fixed(v, 1) },
    ],
    seed: `generator mulberry32, seed ${SEED}`,
    open: true, // The text asks for the four numbers.
    compute,
    draw,
    say,
    table: ({ before, after }) => ({
      caption:
        `${COUNT.toLocaleString("en-US")} values before and after. ` +
        `Beyond the picture lie ${before.outside} and ${after.outside} of them.`,
      head: ["", "sum", "mean", "variance", "skewness"],
      rows: [
        ["before", before],
        ["after", after],
      ].map(([name, found]) => [
        name,
        cell(found.sum, fixed(found.sum, 2)),
        cell(found.mean),
        cell(found.variance),
        cell(found.skewness),
      ]),
    }),
  });
})();
