/* Softmax at a temperature, beside how often each option wins when noise is added to the scores. */
"use strict";

(function () {
  const { picture, random, normal, fixed, short, cell, shape, text, swatch, line, linear, axis } =
    window.normlabExplore;
  const SEED = 1;
  const MOST = 100_000;
  const SCORES = [0, 1, 2, 3];
  const WIDE = Math.PI / Math.sqrt(6); // The standard deviation of Gumbel noise: the others are as wide.
  const NOISE = {
    gumbel: (index) => -Math.log(-Math.log(random(SEED, index))),
    gaussian: (index) => WIDE * normal(SEED, index),
    uniform: (index) => WIDE * Math.sqrt(12) * (random(SEED, index) - 0.5),
  };
  const NAMES = { gumbel: "Gumbel", gaussian: "Gaussian", uniform: "uniform" };
  // Eight steps are base 2, to the last digit.
  const temperature = (step) => Math.LN2 ** (-step / 8);
  const base = (step) => Math.exp(1 / temperature(step));

  function compute({ step, noise, rounds }) {
    const t = temperature(step);
    const logits = SCORES.map((score) => score / t);
    const top = Math.max(...logits);
    const weights = logits.map((logit) => Math.exp(logit - top));
    const total = weights.reduce((a, b) => a + b, 0);
    const wins = SCORES.map(() => 0);
    let last = null;
    for (let round = 0; round < rounds; round += 1) {
      const noisy = logits.map((logit, option) => logit + NOISE[noise](round * SCORES.length + option));
      const winner = noisy.indexOf(Math.max(...noisy));
      wins[winner] += 1;
      last = { noisy, winner };
    }
    const options = logits.map((logit, option) => {
      const p = weights[option] / total;
      return { logit, p, wins: wins[option], share: wins[option] / rounds, error: Math.sqrt((p * (1 - p)) / rounds) };
    });
    return { t, options, last };
  }

  function draw({ options, last }, { rounds }, width) {
    const ends = [74, width - 16];
    const parts = [];
    const row = (option, top) => top + 22 + option * 30;

    // The last round: from each score to the noisy one.
    const logits = options.map(({ logit }) => logit);
    const seen = last ? [...logits, ...last.noisy] : logits;
    const low = Math.min(-3, ...seen);
    const high = Math.max(...logits) + 6;
    const x = linear([low, Math.max(high, ...seen)], ends);
    parts.push(
      shape("circle", { cx: 5, cy: 10, r: 4, class: "explore-hollow" }),
      text(14, 14, "score", "explore-strong", "start"),
      text(ends[1], 14, rounds ? `round ${rounds.toLocaleString("en-US")}` : "no round yet", "explore-muted", "end"),
    );
    if (last)
      parts.push(
        shape("circle", { cx: 69, cy: 10, r: 5, class: "explore-c" }),
        text(79, 14, "with noise", "explore-strong", "start"),
      );
    options.forEach(({ logit }, option) => {
      const y = row(option, 12);
      const wins = last?.winner === option;
      parts.push(text(0, y + 4, `option ${option}`, "", "start"), line(ends[0], y, ends[1], y, "explore-rule"));
      if (last) {
        parts.push(line(x(logit), y, x(last.noisy[option]), y, wins ? "explore-line-b" : "explore-line-c"));
        parts.push(
          shape("circle", {
            cx: x(last.noisy[option]),
            cy: y,
            r: wins ? 7 : 5,
            class: wins ? "explore-b" : "explore-c",
          }),
        );
        if (wins) {
          const right = x(last.noisy[option]) > width - 70;
          parts.push(
            text(x(last.noisy[option]) + (right ? -12 : 12), y - 6, "wins", "explore-strong", right ? "end" : "start"),
          );
        }
      }
      parts.push(shape("circle", { cx: x(logit), cy: y, r: 4, class: "explore-hollow" }));
    });

    // All rounds: how often each has won, beside softmax.
    const top = 160;
    const most = Math.max(...options.flatMap(({ p, share }) => [p, share || 0]));
    const full = most > 0.5 ? 1 : most > 0.25 ? 0.5 : 0.25;
    const share = linear([0, full], ends);
    parts.push(
      swatch(0, top, "explore-c"),
      text(20, top, "softmax", "explore-strong", "start"),
      swatch(96, top, "explore-a"),
      text(116, top, rounds ? `wins in ${rounds.toLocaleString("en-US")}` : "no wins yet", "explore-strong", "start"),
    );
    options.forEach(({ p, share: won, error }, option) => {
      const y = top + 14 + option * 38;
      parts.push(
        text(0, y + 17, `option ${option}`, "", "start"),
        shape("rect", { x: ends[0], y, width: Math.max(1, share(p) - ends[0]), height: 12, class: "explore-c" }),
      );
      if (rounds) {
        parts.push(
          shape("rect", {
            x: ends[0],
            y: y + 13,
            width: Math.max(1, share(won) - ends[0]),
            height: 12,
            class: "explore-a",
          }),
        );
        const [from, to] = [p - 2 * error, p + 2 * error].map((value) => share(Math.max(0, Math.min(full, value))));
        parts.push(line(from, y + 29, to, y + 29, "explore-error"));
      }
    });
    const base = top + 14 + 4 * 38;
    parts.push(
      axis(
        share,
        ends,
        base,
        [0, full / 2, full].map((value) => [value, String(value)]),
        "line: \u00b1 two standard errors",
      ),
    );
    return { height: base + 42, parts };
  }

  function say({ t, options }, { noise, rounds }) {
    const at = [
      `Temperature ${fixed(t)}, which is base ${short(Math.exp(1 / t))}:`,
      `softmax gives option 3 the weight ${fixed(options[3].p, 3)} and option 0 ${fixed(options[0].p, 3)}.`,
    ];
    if (!rounds) return [...at, "Nothing has been drawn yet."].join(" ");
    const off = options.map(({ p, share, error }) => Math.abs(share - p) / error);
    const worst = off.indexOf(Math.max(...off));
    const { p, share } = options[worst];
    return [
      ...at,
      `In ${rounds.toLocaleString("en-US")} round${rounds === 1 ? "" : "s"} with ${NAMES[noise]} noise,`,
      `option ${worst} is furthest from softmax: it has won ${fixed(share, 3)} where softmax says ${fixed(p, 3)},`,
      `${fixed(off[worst], 1)} standard errors away.`,
      off[worst] > 4 ? "This is not chance." : "Chance can do that.",
    ].join(" ");
  }

  const add =
    (more) =>
    ({ rounds }) => ({ rounds: Math.min(MOST, rounds + more) });
  const enough = ({ rounds }) => rounds >= MOST;

  picture("gumbel", {
    name: "Above, the scores of four options with noise added in the last round; below, softmax beside the share of rounds that each option has won",
    start: { step: 0, noise: "gumbel", rounds: 10 },
    controls: [
      {
        name: "step",
        label: "Temperature",
        min: -50,
        max: 50,
        show: (step) => `${fixed(temperature(step))} (base ${short(base(step))})`,
      },
      { name: "noise", label: "Noise", options: Object.entries(NAMES) },
    ],
    buttons: [
      { words: "+1 round", act: add(1), off: enough },
      { words: "+100 rounds", act: add(100), off: enough },
      { words: "+10,000 rounds", act: add(10_000), off: enough },
      { words: "Back to 0 rounds", act: () => ({ rounds: 0 }), off: ({ rounds }) => !rounds },
    ],
    seed: `generator mulberry32, seed ${SEED}`,
    compute,
    draw,
    say,
    table: ({ options }, { rounds }) => ({
      caption: `Softmax and the winners of ${rounds.toLocaleString("en-US")} rounds`,
      head: ["option", "logit", "softmax", "wins", "share", "standard error"],
      rows: options.map(({ logit, p, wins, share, error }, option) => [
        String(option),
        cell(logit),
        cell(p),
        cell(wins, wins.toLocaleString("en-US")),
        cell(share, rounds ? fixed(share, 4) : "none"),
        cell(error, rounds ? fixed(error, 4) : "none"),
      ]),
    }),
  });
})();
