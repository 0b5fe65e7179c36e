/* The cells of a small batch: choose a norm and a cell, and see which cells share its mean. */
"use strict";

(function () {
  const { picture, random, fixed, cell, shape, text } = window.normlabExplore;
  const [N, C, S] = [2, 6, 4];
  const SEED = 5;
  const EPS = 1e-5;
  const LETTERS = "NGDS";
  const value = (n, c, s) => Math.floor(10 * random(SEED, (n * C + c) * S + s));

  function compute({ norm, groups, example, channel, position }, norms) {
    const depth = C / Number(groups);
    const letters = (n, c, s) => [n, Math.floor(c / depth), c % depth, s];
    const own = letters(example - 1, channel - 1, position - 1);
    const cells = [];
    for (let n = 0; n < N; n += 1) {
      for (let c = 0; c < C; c += 1) {
        for (let s = 0; s < S; s += 1) {
          const at = letters(n, c, s);
          const shares = at.every((index, axis) => index === own[axis] || norms[norm].pools.includes(LETTERS[axis]));
          cells.push({ n, c, s, value: value(n, c, s), shares });
        }
      }
    }
    const pool = cells.filter((one) => one.shares).map((one) => one.value);
    const mean = norms[norm].centered ? pool.reduce((a, b) => a + b, 0) / pool.length : 0;
    const square = pool.reduce((a, b) => a + (b - mean) ** 2, 0) / pool.length;
    const own_value = value(example - 1, channel - 1, position - 1);
    return {
      cells,
      pool,
      mean,
      own: own_value,
      centered: norms[norm].centered,
      spread: Math.sqrt(square),
      output: (own_value - mean) / Math.sqrt(square + EPS),
      pools: cells.length / pool.length,
    };
  }

  function draw({ cells }, { norm, groups, example, channel, position }, width, change) {
    const [left, top, gap] = [34, 44, 8];
    const side = Math.min(44, (width - left - gap - 4) / (N * S));
    const high = 34;
    const depth = C / Number(groups);
    const apart = norm === "group" ? 8 : 0; // Groups are seen only where they count.
    const x = (n, s) => left + n * (S * side + gap) + s * side;
    const y = (c) => top + c * high + apart * Math.floor(c / depth);
    const parts = [];
    for (let n = 0; n < N; n += 1) {
      parts.push(text(x(n, 0) + (S * side) / 2, 16, `example ${n + 1}`, "explore-strong"));
      for (let s = 0; s < S; s += 1) parts.push(text(x(n, s) + side / 2, 34, String(s + 1), "explore-muted"));
    }
    for (let c = 0; c < C; c += 1)
      parts.push(text(left - 8, y(c) + high / 2 + 4, `c ${c + 1}`, "explore-muted", "end"));
    for (const { n, c, s, value: number, shares } of cells) {
      const own = n === example - 1 && c === channel - 1 && s === position - 1;
      const group = shape(
        "g",
        { class: `explore-cell${shares ? " explore-shares" : ""}${own ? " explore-own" : ""}` },
        shape("rect", { x: x(n, s) + 1, y: y(c) + 1, width: side - 1.5, height: high - 2, rx: 3 }),
        text(x(n, s) + side / 2, y(c) + high / 2 + 4.5, String(number)),
      );
      group.addEventListener("click", () => change({ example: n + 1, channel: c + 1, position: s + 1 }));
      parts.push(group);
    }
    return { height: y(C - 1) + high + 6, parts };
  }

  function whom({ norm, groups, example, channel, position }) {
    const depth = C / Number(groups);
    const first = Math.floor((channel - 1) / depth) * depth + 1;
    const neighbors =
      depth === 1 ? `channel ${channel}` : depth === C ? "all channels" : `channels ${first} to ${first + depth - 1}`;
    return {
      batch: `channel ${channel}, at all positions of both examples`,
      layer: `position ${position} of example ${example}, in all channels`,
      rms: `position ${position} of example ${example}, in all channels`,
      instance: `channel ${channel} of example ${example}, at all positions`,
      group: `${neighbors} of example ${example}, at all positions`,
    }[norm];
  }

  function say(found, state) {
    const statistics = found.centered
      ? `Their mean is ${fixed(found.mean)} and their standard deviation ${fixed(found.spread)}`
      : `The root of their mean square is ${fixed(found.spread)}, and no mean is subtracted`;
    const relative =
      state.norm !== "group"
        ? ""
        : state.groups === "1"
          ? " One group is all of an example. This is not the layer norm of a transformer."
          : state.groups === String(C)
            ? " As many groups as channels: this is instance norm."
            : "";
    const name = { batch: "Batch", layer: "Layer", instance: "Instance", group: "Group", rms: "RMS" }[state.norm];
    return (
      `${name} norm pools ${found.pool.length} of the ${found.cells.length} cells with this one: ${whom(state)}. ${statistics}; ` +
      `this cell\u2019s ${found.own} becomes ${fixed(found.output)}. There are ${found.pools} such pools.${relative}`
    );
  }

  picture("pools", {
    name: "Two examples of six channels and four positions, a cell each, with the pool of the chosen cell in color",
    start: { norm: "batch", groups: "3", example: 1, channel: 2, position: 3 },
    controls: [
      {
        name: "norm",
        label: "Norm",
        options: [
          ["batch", "batch"],
          ["layer", "layer"],
          ["instance", "instance"],
          ["group", "group"],
          ["rms", "RMS"],
        ],
      },
      {
        name: "groups",
        label: "Groups, for group norm",
        options: ["1", "2", "3", "6"].map((g) => [g, g]),
        off: ({ norm }) => norm !== "group",
      },
      { name: "example", label: "Example", min: 1, max: N, show: String },
      { name: "channel", label: "Channel", min: 1, max: C, show: String },
      { name: "position", label: "Position", min: 1, max: S, show: String },
    ],
    seed: `generator mulberry32, seed ${SEED}`,
    compute,
    draw,
    say,
    table: (found) => ({
      caption: `The pool of the chosen cell: ${found.pool.join(", ")}`,
      head: ["", "value"],
      rows: [
        ["cells in the pool", cell(found.pool.length, String(found.pool.length))],
        ["pools", cell(found.pools, String(found.pools))],
        ["mean that is subtracted", cell(found.mean)],
        [found.centered ? "standard deviation" : "root of the mean square", cell(found.spread)],
        ["the cell, before", cell(found.own, String(found.own))],
        ["the cell, after", cell(found.output)],
      ],
    }),
  });
})();
