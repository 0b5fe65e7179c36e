/* The backward of layer norm and of RMS norm for three numbers: a cotangent, and what is left of it, in space. */
"use strict";

(function () {
  const { picture, fixed, cell, shape, text, swatch, line } = window.normlabExplore;
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const plus = (a, b, factor = 1) => a.map((value, i) => value + factor * b[i]);
  const times = (a, factor) => a.map((value) => value * factor);
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const unit = (a) => times(a, 1 / Math.sqrt(dot(a, a)));
  const mean = (a) => (a[0] + a[1] + a[2]) / 3;
  const CONSTANTS = unit([1, 1, 1]);
  const [EAST, NORTH] = [unit([1, -1, 0]), unit([1, 1, -2])];

  function compute({ norm, loss, x1, x2, x3, dy1, dy2, dy3 }) {
    const x = [x1, x2, x3];
    const deviation = norm === "layer" ? x.map((value) => value - mean(x)) : x;
    const square = dot(deviation, deviation) / 3;
    if (square < 1e-12) return null; // Nothing to divide by.
    const rstd = 1 / Math.sqrt(square);
    const hat = times(deviation, rstd);
    const dy = { own: [dy1, dy2, dy3], sum: [1, 1, 1], squares: times(hat, 2) }[loss];
    const g = norm === "layer" ? dy.map((value) => value - mean(dy)) : dy;
    const left = plus(g, hat, -dot(g, hat) / 3);
    return { norm, x, rstd, hat, dy, g, left, dx: times(left, rstd) };
  }

  function draw(found, { turn }, width) {
    const high = width < 480 ? 230 : 280;
    const height = high + 20 + (width < 480 ? 3 : 1) * 18;
    if (!found) return { height, parts: [text(width / 2, height / 2, "no spread: nothing to divide by")] };
    const { norm, hat, dy, g, left } = found;
    const [angle, tilt] = [(turn * Math.PI) / 180, Math.PI / 6];
    const side = plus(times(EAST, Math.cos(angle)), NORTH, Math.sin(angle));
    const depth = plus(times(EAST, -Math.sin(angle)), NORTH, Math.cos(angle));
    const up = plus(times(CONSTANTS, Math.cos(tilt)), depth, Math.sin(tilt));
    // As large as what is drawn allows at every turn: turning must not change its size.
    const along = (v) => Math.abs(dot(v, CONSTANTS));
    const across = (v) => Math.sqrt(Math.max(0, dot(v, v) - along(v) ** 2));
    const arrows = [dy, g, left, hat];
    const wide = Math.max(2.4, ...arrows.map(across));
    const tall = Math.max(
      norm === "layer" ? 2 : 2.4,
      ...arrows.map((v) => along(v) * Math.cos(tilt) + across(v) * Math.sin(tilt)),
    );
    const scale = Math.min((width / 2 - 4) / wide, (high / 2 - 16) / tall);
    const middle = [width / 2, high / 2 + 20];
    const paper = (v) => [middle[0] + scale * dot(v, side), middle[1] - scale * dot(v, up)];
    const path = (points, kind) =>
      shape("path", {
        d: points
          .map(
            (v, i) =>
              `${i ? "L" : "M"}${paper(v)
                .map((c) => c.toFixed(1))
                .join(" ")}`,
          )
          .join(""),
        class: kind,
      });
    const zero = [0, 0, 0];

    // The plane that stands on `axis`, as a disc.
    function disc(axis, radius, kind) {
      const first = unit(Math.abs(axis[0]) < 0.9 ? cross(axis, [1, 0, 0]) : cross(axis, [0, 1, 0]));
      const second = cross(axis, first);
      const points = Array.from({ length: 73 }, (_, i) => (i * Math.PI) / 36).map((t) =>
        plus(times(first, radius * Math.cos(t)), second, radius * Math.sin(t)),
      );
      return path(points, kind);
    }

    function arrow(v, kind) {
      const [from, to] = [paper(zero), paper(v)];
      const [a, b] = [to[0] - from[0], to[1] - from[1]];
      const long = Math.hypot(a, b);
      if (long < 2) return [shape("circle", { cx: from[0], cy: from[1], r: 5, class: `explore-${kind}` })];
      const [ua, ub, h] = [a / long, b / long, Math.min(11, long)];
      return [
        line(...from, to[0] - ua * h * 0.8, to[1] - ub * h * 0.8, `explore-line-${kind}`),
        shape("path", {
          class: `explore-${kind}`,
          d: `M${to[0]} ${to[1]}L${to[0] - ua * h - ub * 5} ${to[1] - ub * h + ua * 5}L${to[0] - ua * h + ub * 5} ${to[1] - ub * h - ua * 5}Z`,
        }),
      ];
    }

    const legend = [
      "dashed: lost",
      norm === "layer" ? "pale line: all that can be left" : "disc: all that can be left",
      norm === "layer" ? "circle: where x\u0302 can be" : "sphere: where x\u0302 can be",
    ];
    const rows = width < 480 ? legend : [legend.join("; ")];
    const pole = paper(times(CONSTANTS, 2.1));
    const root = Math.sqrt(3);
    const tangent = unit(cross(CONSTANTS, hat));
    const back =
      norm === "layer"
        ? [
            disc(CONSTANTS, 2.3, "explore-band"),
            disc(CONSTANTS, root, "explore-circle"),
            path([times(CONSTANTS, -2), times(CONSTANTS, 2.1)], "explore-limit"),
            path([times(tangent, -2.3), times(tangent, 2.3)], "explore-open"),
          ]
        : [
            disc(unit(hat), 2.3, "explore-band"),
            shape("circle", { cx: middle[0], cy: middle[1], r: root * scale, class: "explore-circle" }),
          ];
    return {
      height,
      parts: [
        swatch(0, 14, "explore-b"),
        text(20, 14, "x\u0302", "", "start"),
        swatch(46, 14, "explore-c"),
        text(66, 14, "dy", "", "start"),
        swatch(94, 14, "explore-a"),
        text(114, 14, "what is left of dy", "", "start"),
        ...back,
        ...(norm === "layer" ? [text(pole[0] + 8, pole[1] + 10, "(1, 1, 1)", "explore-muted", "start")] : []),
        ...rows.map((words, row) => text(width / 2, high + 34 + 18 * row, words, "explore-muted")),
        path([times(unit(hat), -2.3), hat], "explore-limit"),
        ...arrow(hat, "b"),
        path([dy, g, left], "explore-fall"),
        ...arrow(dy, "c"),
        ...arrow(left, "a"),
      ],
    };
  }

  function say(found, { norm, loss }) {
    if (!found)
      return norm === "layer"
        ? "All three numbers are equal. They have no spread, and without eps there is nothing to divide by."
        : "All three numbers are 0, and without eps there is nothing to divide by.";
    const { dy, left, dx } = found;
    const whole = Math.sqrt(dot(dy, dy));
    const share = whole ? Math.sqrt(dot(left, left)) / whole : 0;
    const what = { own: "your dy", sum: "the dy of sum(y), all ones,", squares: "the dy of sum(y\u00b2), 2 x\u0302," }[
      loss
    ];
    const name = norm === "layer" ? "Layer norm" : "RMS norm";
    const lost =
      norm === "layer"
        ? "the part along the constants and the part along x\u0302 are lost"
        : "the part along x\u0302 is lost";
    const ways = norm === "layer" ? "on a line" : "in a plane";
    if (share < 1e-9)
      return `${name}: ${what} lies in what is lost${loss === "own" ? "" : ", whatever the input"}. Nothing is left: the gradient is zero.`;
    return (
      `${name}: of ${what} ${lost}. What is left lies ${ways} and is ${fixed(100 * share, 0)} percent as long. ` +
      `Times rstd it is the gradient, ${dx.map((v) => fixed(v)).join(", ")}.`
    );
  }

  const number = (name, label, off) => ({ name, label, min: -2, max: 2, step: 0.1, show: (v) => fixed(v, 1), off });
  const given = ({ loss }) => loss !== "own";

  picture("lost", {
    name: "Three arrows in space: the normalized input, the cotangent, and what the backward leaves of it",
    start: { norm: "layer", loss: "own", x1: 0.3, x2: 1.9, x3: -0.4, dy1: 1.2, dy2: -0.3, dy3: 0.8, turn: 280 },
    controls: [
      {
        name: "norm",
        label: "Norm",
        options: [
          ["layer", "layer"],
          ["rms", "RMS"],
        ],
      },
      {
        name: "loss",
        label: "Loss, which decides dy",
        options: [
          ["own", "your own dy"],
          ["sum", "sum(y)"],
          ["squares", "sum(y\u00b2)"],
        ],
      },
      number("x1", "x, first"),
      number("dy1", "dy, first", given),
      number("x2", "x, second"),
      number("dy2", "dy, second", given),
      number("x3", "x, third"),
      number("dy3", "dy, third", given),
      { name: "turn", label: "Turn the picture", min: 0, max: 350, step: 10, show: (v) => `${v}\u00b0` },
    ],
    compute,
    draw,
    say,
    table: (found) => ({
      caption:
        "Without weight and eps. The last two columns: the sum of the three, and the sum of the three times x\u0302.",
      head: ["", "first", "second", "third", "sum", "with x\u0302"],
      rows: !found
        ? [["no spread", "", "", "", "", ""]]
        : [
            ["x\u0302", found.hat],
            ["dy", found.dy],
            [found.norm === "layer" ? "dy \u2212 mean(dy)" : "dy, not centered", found.g],
            ["what is left", found.left],
            ["times rstd: dx", found.dx],
          ].map(([name, v]) => [name, ...[...v, 3 * mean(v), dot(v, found.hat)].map((value) => cell(value))]),
    }),
  });
})();
