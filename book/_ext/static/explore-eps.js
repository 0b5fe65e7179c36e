/* eps against the spread of the input: where normalizing stops. */
"use strict";

(function () {
  const { picture, fixed, short, cell, shape, text, line, linear, axis } = window.normlabExplore;
  const DECADES = 6;
  const std = (step) => 10 ** (-step / 10);
  const power = (exponent) =>
    `10${[...String(exponent)].map((digit) => ({ "-": "\u207b" })[digit] ?? "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[digit]).join("")}`;
  const DENOMINATOR = {
    under: (s, eps) => Math.sqrt(s * s + eps),
    beside: (s, eps) => s + eps,
  };
  const variance = (s, eps, where) => (s / DENOMINATOR[where](s, eps)) ** 2;
  const measured = (values) => {
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    return { mean, variance: values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length };
  };

  function compute({ step, exponent, where }, eight) {
    const [s, eps] = [std(step), 10 ** exponent];
    // The eight numbers with mean 0 and variance 1, and then with the standard deviation that was chosen.
    const own = measured(eight);
    const input = eight.map((value) => (s * (value - own.mean)) / Math.sqrt(own.variance));
    const of = measured(input);
    const output = input.map((value) => (value - of.mean) / DENOMINATOR[where](Math.sqrt(of.variance), eps));
    return {
      s,
      eps,
      where,
      output,
      formula: variance(s, eps, where),
      measured: measured(output).variance,
      knee: where === "under" ? Math.sqrt(eps) : eps,
    };
  }

  function draw({ s, eps, where, output, formula, knee }, state, width) {
    const ends = [34, width - 16];
    const x = linear([-DECADES, 0], ends);
    const [top, base] = [34, 186];
    const y = linear([0, 1], [base, top]);
    const curve = (place) =>
      Array.from({ length: 121 }, (_, i) => -DECADES + i / 20)
        .map((log, i) => `${i ? "L" : "M"}${x(log).toFixed(1)} ${y(variance(10 ** log, eps, place)).toFixed(1)}`)
        .join("");
    const marks = [-6, -4, -2, 0].map((log) => [log, power(log)]);
    const parts = [
      text(0, 14, "variance of the output", "explore-strong", "start"),
      ...[0, 0.5, 1].flatMap((value) => [
        line(ends[0], y(value), ends[1], y(value), "explore-rule"),
        text(ends[0] - 6, y(value) + 4, String(value), "", "end"),
      ]),
      axis(x, ends, base, marks, "standard deviation of the input"),
    ];
    for (const place of ["under", "beside"]) {
      parts.push(
        shape("path", {
          d: curve(place),
          class: `explore-curve-${place === "under" ? "a" : "b"}${place === where ? " explore-chosen" : ""}`,
        }),
      );
    }
    if (knee >= 10 ** -DECADES && knee <= 1) {
      parts.push(line(x(Math.log10(knee)), top, x(Math.log10(knee)), base, "explore-limit"));
      const right = x(Math.log10(knee)) > width - 110;
      parts.push(
        text(
          x(Math.log10(knee)) + (right ? -5 : 5),
          top - 6,
          where === "under" ? "root of eps" : "eps",
          "explore-muted",
          right ? "end" : "start",
        ),
      );
    }
    // Named where there is room: the left curve on its left, the other on its right.
    const [under, beside] = [Math.sqrt(eps), eps * 6.464].map((s) => x(Math.log10(s)));
    if (under >= ends[0]) parts.push(text(under + 6, y(0.25) + 4, "under", "explore-halo", "start"));
    if (beside >= ends[0] + 50) parts.push(text(beside - 8, y(0.75) + 4, "beside", "explore-halo", "end"));
    parts.push(shape("circle", { cx: x(Math.log10(s)), cy: y(formula), r: 6, class: "explore-mark" }));

    const strip = base + 74;
    const value = linear([-2.6, 2.6], ends);
    parts.push(
      text(0, strip - 18, "eight outputs", "explore-strong", "start"),
      ...output.map((v) =>
        shape("circle", {
          cx: value(v),
          cy: strip,
          r: 6,
          class: where === "under" ? "explore-a explore-dot" : "explore-b explore-dot",
        }),
      ),
      axis(
        value,
        ends,
        strip + 10,
        [-2, -1, 0, 1, 2].map((v) => [v, fixed(v, 0)]),
        "value",
      ),
    );
    return { height: strip + 52, parts };
  }

  function say({ s, eps, where, formula, knee }, { exponent }) {
    const place = where === "under" ? "under the root" : "beside the root";
    const what =
      formula > 0.99
        ? "The layer normalizes as promised."
        : formula > 0.01
          ? "The layer normalizes in part."
          : "The layer does not normalize any more: it makes everything nearly 0.";
    const knees = where === "under" ? "the root of eps" : "which is eps itself";
    return [
      `Input with standard deviation ${short(s)}, eps ${power(exponent)} ${place}:`,
      `the output\u2019s variance is ${short(formula)} and its standard deviation ${short(Math.sqrt(formula))}.`,
      what,
      `The knee lies at ${short(knee)}, ${knees}.`,
    ].join(" ");
  }

  picture("eps", {
    name: "Variance of the output against the standard deviation of the input, falling from 1 to 0; below, eight outputs on a number line",
    start: { step: 20, exponent: -5, where: "under" },
    controls: [
      {
        name: "step",
        label: "Standard deviation of the input",
        min: 0,
        max: 10 * DECADES,
        show: (step) => short(std(step)),
      },
      { name: "exponent", label: "eps", min: -12, max: -2, show: power },
      {
        name: "where",
        label: "Place of eps",
        options: [
          ["under", "under the root: √(σ² + ε)"],
          ["beside", "beside it: σ + ε"],
        ],
      },
    ],
    compute,
    draw,
    say,
    table: ({ s, eps, formula, measured: found, knee }) => ({
      caption: "The numbers of this state",
      head: ["", "value"],
      rows: [
        ["standard deviation of the input", cell(s, short(s))],
        ["eps", cell(eps, short(eps))],
        ["knee", cell(knee, short(knee))],
        ["variance of the output, by the formula", cell(formula, short(formula, 6))],
        ["variance of the eight outputs, measured", cell(found, short(found, 6))],
        ["standard deviation of the output", cell(Math.sqrt(formula), short(Math.sqrt(formula), 6))],
      ],
    }),
  });
})();
