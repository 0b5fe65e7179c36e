/* Online softmax, chunk by chunk: what is read, what is kept, and how the old sum is corrected. */
"use strict";

(function () {
  const { picture, fixed, cell, shape, text, swatch, line, linear } = window.normlabExplore;
  const COUNT = 20;
  const ORDER = {
    given: (logits) => logits,
    rising: (logits) => [...logits].sort((a, b) => a - b),
    falling: (logits) => [...logits].sort((a, b) => b - a),
  };
  const chunks = ({ size }) => COUNT / Number(size);

  function compute({ order, size, read }, given) {
    const logits = ORDER[order](given);
    const long = Number(size);
    const steps = [];
    let [m, sum] = [-Infinity, 0];
    for (let k = 0; k < COUNT / long; k += 1) {
      const chunk = logits.slice(k * long, (k + 1) * long);
      const top = Math.max(...chunk);
      const next = Math.max(m, top);
      const factor = Math.exp(m - next); // 0 for the first chunk: nothing was there to correct.
      const added = chunk.reduce((a, logit) => a + Math.exp(logit - next), 0);
      const old = sum * factor;
      steps.push({ top, before: m, sumBefore: sum, m: next, factor, old, added, sum: old + added });
      [m, sum] = [next, old + added];
    }
    return { logits, long, steps, done: steps.slice(0, read), count: read * long };
  }

  function draw({ logits, long, steps, done, count }, { read }, width) {
    const ends = [34, width - 8];
    const x = linear([-0.5, COUNT - 0.5], ends);
    const y = linear([-1.2, 3.4], [172, 38]);
    const parts = [
      text(0, 14, "logits", "explore-strong", "start"),
      text(ends[1], 14, "line: running maximum", "explore-muted", "end"),
      ...[-1, 0, 1, 2, 3].flatMap((value) => [
        line(ends[0], y(value), ends[1], y(value), "explore-rule"),
        text(ends[0] - 6, y(value) + 4, fixed(value, 0), "", "end"),
      ]),
    ];
    if (read) {
      const from = x((read - 1) * long - 0.5);
      parts.push(
        shape("rect", { x: from, y: 26, width: x(read * long - 0.5) - from, height: 318 - 26, class: "explore-band" }),
      );
    }
    logits.forEach((logit, i) => {
      const now = i < count && i >= count - long;
      parts.push(
        shape("circle", {
          cx: x(i),
          cy: y(logit),
          r: now ? 5.5 : 4,
          class: i >= count ? "explore-hollow" : now ? "explore-b" : "explore-c",
        }),
      );
    });
    const base = 318;
    const tallest = Math.max(...steps.map(({ sum }) => sum), 1);
    const bar = linear([0, tallest], [base, 222]);
    parts.push(
      text(0, 202, "normalizer", "explore-strong", "start"),
      swatch(88, 202, "explore-a"),
      text(106, 202, "old, corrected", "", "start"),
      swatch(200, 202, "explore-b"),
      text(218, 202, "new", "", "start"),
    );
    done.forEach(({ m, factor, old, sum }, k) => {
      const [left, right] = [x(k * long - 0.5), x((k + 1) * long - 0.5)];
      const room = right - left;
      parts.push(line(left + 1, y(m), right - 1, y(m), "explore-line-a"));
      const body = { x: left + room * 0.15, width: room * 0.7 };
      parts.push(
        shape("rect", { ...body, y: bar(old), height: base - bar(old), class: "explore-a" }),
        shape("rect", { ...body, y: bar(sum), height: bar(old) - bar(sum), class: "explore-b" }),
      );
      if (k && room >= 40) parts.push(text((left + right) / 2, bar(sum) - 5, `\u00d7${fixed(factor)}`));
    });
    parts.push(line(ends[0], base, ends[1], base, "explore-axis"));
    const every = long < 4 ? 2 : 1;
    steps.forEach((_, k) => {
      if (k % every === 0) parts.push(text(x((k + 0.5) * long - 0.5), base + 17, String(k + 1)));
    });
    parts.push(text((ends[0] + ends[1]) / 2, base + 34, "chunk", "explore-muted"));
    return { height: base + 42, parts };
  }

  function say({ done, count, steps }, { read }) {
    const all = `all ${COUNT} logits`;
    if (!read) {
      return [
        `Nothing has been read: maximum ${fixed(-Infinity)}, normalizer 0.`,
        `Softmax in three passes would now read ${all} for their maximum, before the first exponential.`,
      ].join(" ");
    }
    const { top, before, sumBefore, m, factor, added, sum } = done[read - 1];
    const told = [`Chunk ${read}: its largest logit, ${fixed(top, 1)},`];
    if (read === 1) told.push("is the first maximum.");
    else if (m > before) {
      told.push(`is above the maximum so far, ${fixed(before, 1)}.`);
      told.push(
        `So the old sum, ${fixed(sumBefore, 3)}, is multiplied by ${fixed(factor)}, and ${fixed(added, 3)} is added.`,
      );
    } else {
      told.push(`is not above the maximum so far, ${fixed(m, 1)}. The old sum stays, and ${fixed(added, 3)} is added.`);
    }
    told.push(`The normalizer is now ${fixed(sum, 3)}.`);
    told.push(
      read === steps.length
        ? `${all[0].toUpperCase()}${all.slice(1)} have been read, once each: maximum and normalizer are those of all at once.`
        : `${count} of ${COUNT} logits have been read, once each; two numbers are kept of them.`,
    );
    return told.join(" ");
  }

  const last = (state) => state.read >= chunks(state);

  picture("online", {
    name: "Twenty logits in chunks with the running maximum over them; below, a bar for the normalizer after each chunk that has been read",
    start: { order: "given", size: "4", read: 1 },
    // With other chunks the reading begins again.
    settle: (state) => ({ ...state, read: Math.min(state.read, chunks(state)) }),
    controls: [
      { name: "read", label: "Chunks read", min: 0, max: chunks, show: (read, state) => `${read} of ${chunks(state)}` },
      {
        name: "size",
        label: "Logits in a chunk",
        options: ["1", "2", "4", "5", "10", "20"].map((size) => [size, size]),
      },
      {
        name: "order",
        label: "Order of the logits",
        options: [
          ["given", "as above"],
          ["rising", "rising"],
          ["falling", "falling"],
        ],
      },
    ],
    buttons: [
      { words: "Read the next chunk", act: ({ read }) => ({ read: read + 1 }), off: last },
      { words: "One back", act: ({ read }) => ({ read: read - 1 }), off: ({ read }) => !read },
    ],
    compute,
    draw,
    say,
    table: ({ done, steps }) => ({
      caption: "What is kept after each chunk that has been read",
      head: ["after chunk", "its maximum", "running maximum", "factor", "normalizer"],
      rows: steps.map(({ top, m, factor, sum }, k) => [
        String(k + 1),
        ...(k < done.length ? [cell(top), cell(m), cell(factor), cell(sum)] : ["not read", "", "", ""]),
      ]),
    }),
  });
})();
