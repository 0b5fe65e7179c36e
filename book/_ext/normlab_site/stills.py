"""What the explorable pictures show, computed by NumPy when the book is built: a table of a few states of each.

A reader without JavaScript gets these tables. The tests hold the numbers of the pictures themselves beside the
functions of this file, so each of them is the picture's `compute` once more, in other words: the same random numbers,
the same states.
"""

import json
from dataclasses import dataclass, field

import numpy as np

from normlab.axes import LETTERS, NORMS

# -- The random numbers of explore.js ----------------------------------------------------------------------------------


def random(seed, index):
    """Numbers `index` (an integer array) of the stream `seed`, as explore.js has them: mulberry32."""
    with np.errstate(over="ignore"):
        a = np.uint32(seed) + (np.asarray(index).astype(np.uint32) + np.uint32(1)) * np.uint32(0x6D2B79F5)
        t = (a ^ (a >> np.uint32(15))) * (a | np.uint32(1))
        t ^= t + (t ^ (t >> np.uint32(7))) * (t | np.uint32(61))
    return ((t ^ (t >> np.uint32(14))).astype(np.float64) + 0.5) / 2**32


def normal(seed, index):
    """Standard normal numbers, each made of two uniform ones (Box and Muller)."""
    index = np.asarray(index)
    return np.sqrt(-2 * np.log(random(seed, 2 * index))) * np.cos(2 * np.pi * random(seed, 2 * index + 1))


# -- The states: functions of what the controls say --------------------------------------------------------------------


def batch(data="exponential", n=1024, place=0.0, scale=1.0, weight=1.0, bias=0.0):
    """Data before batch norm and after, in batches of n: two arrays of 8,192 values."""
    index = np.arange(8192)
    drawn = {
        "uniform": lambda: np.sqrt(12) * (random(2022, index) - 0.5),
        "normal": lambda: normal(2022, index),
        "exponential": lambda: -np.log(random(2022, index)),
    }[data]()
    before = place + scale * drawn
    batches = before.reshape(-1, n)
    normalized = (batches - batches.mean(1, keepdims=True)) / batches.std(1, keepdims=True)
    return before, (weight * normalized + bias).ravel()


def moments(values):
    """Sum, mean, biased variance and skewness."""
    d = values - values.mean()
    return values.sum(), values.mean(), (d**2).mean(), (d**3).mean() / (d**2).mean() ** 1.5


CELLS = np.floor(10 * random(5, np.arange(48))).reshape(2, 6, 4)


def pools(norm="batch", groups=3, cell=(0, 1, 2), eps=1e-5):
    """The pool of one cell (n, c, s) of CELLS: its values, their center and spread, and what the cell becomes."""
    n, c, s = cell
    split = CELLS.reshape(2, groups, -1, 4)
    place = dict(zip(LETTERS, (n, *divmod(c, split.shape[2]), s), strict=True))
    where = tuple(slice(None) if letter in NORMS[norm].pools else place[letter] for letter in LETTERS)
    pool = split[where].ravel()
    center = pool.mean() if NORMS[norm].centered else 0.0
    square = ((pool - center) ** 2).mean()
    return pool, center, np.sqrt(square), (CELLS[cell] - center) / np.sqrt(square + eps)


def gumbel(temperature=1.0, noise="gumbel", rounds=10_000):
    """Softmax of 0, 1, 2, 3 at a temperature, and how often each wins with noise of that kind on the logits."""
    logits = np.arange(4) / temperature
    weights = np.exp(logits - logits.max())
    index = np.arange(4 * rounds)
    wide = np.pi / np.sqrt(6)
    drawn = {
        "gumbel": lambda: -np.log(-np.log(random(1, index))),
        "gaussian": lambda: wide * normal(1, index),
        "uniform": lambda: wide * np.sqrt(12) * (random(1, index) - 0.5),
    }[noise]()
    winners = (logits + drawn.reshape(rounds, 4)).argmax(1)
    return weights / weights.sum(), np.bincount(winners, minlength=4)


# The question's numbers, as book/puzzle.md has them.
EIGHT = [-0.1461, -0.0348, 0.4644, -0.0339, 0.6359, -0.0718, -1.1104, 0.2967]


def eps_variance(std, eps=1e-5, where="under"):
    """Variance of eight outputs whose inputs have the standard deviation `std`."""
    x = np.array(EIGHT)
    x = std * (x - x.mean()) / x.std()
    denominator = np.sqrt(x.var() + eps) if where == "under" else x.std() + eps
    return ((x - x.mean()) / denominator).var()


def numbers(offset, n, seed=1):
    """n float32 numbers with standard deviation 1, so far from zero."""
    return (normal(seed, np.arange(n)) + offset).astype(np.float32)


def running_mean(x):
    return np.add.accumulate(x)[-1] / np.float32(len(x))


def one_pass(x, mean=running_mean):
    return mean(x * x) - mean(x) ** 2


def two_passes(x, mean=running_mean):
    return mean((x - mean(x)) ** 2)


def welford(x, mean=None):
    center, m2 = np.float32(0), np.float32(0)
    for n, value in enumerate(x, 1):
        delta = value - center
        center = center + delta / np.float32(n)
        m2 = m2 + delta * (value - center)
    return m2 / np.float32(len(x))


def shifted(x, mean=running_mean):
    return one_pass(x - x[0], mean)


METHODS = {"one pass": one_pass, "two passes": two_passes, "Welford": welford, "shifted, one pass": shifted}


def lost(x, dy, norm="layer"):
    """The backward of a norm over three numbers, without weight and eps: x_hat, dy, g, what is left, dx."""
    deviation = np.array(x) - (np.mean(x) if norm == "layer" else 0)
    rstd = 1 / np.sqrt((deviation**2).mean())
    hat = deviation * rstd
    dy = {"sum": np.ones(3), "squares": 2 * hat}[dy] if isinstance(dy, str) else np.array(dy)
    g = dy - (dy.mean() if norm == "layer" else 0)
    left = g - hat * (g * hat).mean()
    return hat, dy, g, left, left * rstd


# The logits of the picture in book/attention.md.
LOGITS = [0.5, 1.2, -0.3, 0.8, 1, -0.6, 0.4, 1.1, 2.4, 0.2, 1.9, -1, 2, 0.9, -0.5, 1.4, 3.1, 0, 2.2, 1]


def online(order="given", size=4):
    """After each chunk: its maximum, the running maximum, the factor of the old sum, and the normalizer."""
    logits = {"given": LOGITS, "rising": sorted(LOGITS), "falling": sorted(LOGITS, reverse=True)}[order]
    steps, m, total = [], -np.inf, 0.0
    for chunk in np.reshape(logits, (-1, size)):
        before, m = m, max(m, chunk.max())
        total = total * np.exp(before - m) + np.exp(chunk - m).sum()
        steps.append((chunk.max(), m, np.exp(before - m), total))
    return steps


# -- The tables --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Still:
    """A table for the page, and what the page hands to the script (any JSON)."""

    caption: str
    head: tuple
    rows: list
    data: object = field(default=None)

    @property
    def given(self):
        return json.dumps(self.data)


def words(value):
    """A cell as text: floats with four decimals, and as a power of ten where they would read as zero."""
    if not isinstance(value, (float, np.floating)):
        return str(value)
    tiny = 1e-9 < abs(value) < 5e-4 or abs(value) >= 1e6
    text = f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e") if tiny else f"{value:z.4f}"
    return text.replace("-", "\N{MINUS SIGN}")


def batch_still():
    before, _ = batch()
    after = [[f"after, N = {n:,}", *map(float, moments(batch(n=n)[1]))] for n in (2, 8, 64, 1024)]
    return Still(
        caption="8,192 exponential values, before batch norm and after it in batches of N",
        head=("", "sum", "mean", "variance", "skewness"),
        rows=[["before", *map(float, moments(before))], *after],
    )


def pools_still():
    rows = []
    for name in NORMS:
        pool, center, spread, output = pools(name)
        subtracted = float(center) if NORMS[name].centered else "none"
        rows.append([f"{name} norm", len(pool), CELLS.size // len(pool), subtracted, float(spread), float(output)])
    return Still(
        caption=f"The cell of example 1, channel 2, position 3, whose value is {CELLS[0, 1, 2]:.0f}, in a batch of 2 "
        "examples, 6 channels (in 3 groups) and 4 positions",
        head=("", "cells in its pool", "pools", "mean", "spread", "the cell after"),
        rows=rows,
        data={name: {"pools": norm.pools, "centered": norm.centered} for name, norm in NORMS.items()},
    )


def gumbel_still():
    p, with_gumbel = gumbel()
    _, with_gaussian = gumbel(noise="gaussian")
    rows = [[f"option {k}", float(p[k]), float(with_gumbel[k] / 1e4), float(with_gaussian[k] / 1e4)] for k in range(4)]
    return Still(
        caption="Softmax of the scores 0, 1, 2, 3 at temperature 1, and the share of wins in 10,000 rounds",
        head=("", "softmax", "Gumbel noise", "Gaussian noise"),
        rows=rows,
    )


def eps_still():
    rows = [
        [f"{std:g}", *(float(eps_variance(std, where=where)) for where in ("under", "beside"))]
        for std in (1.0, 0.1, 0.01, 0.001, 0.0001)
    ]
    return Still(
        caption="Variance of the output, for eps = 1e\N{MINUS SIGN}5 under the root and beside it",
        head=("std of the input", "under the root", "beside it"),
        rows=rows,
        data=EIGHT,
    )


def offset_still():
    rows = []
    for offset in (0, 100, 10_000, 1_000_000):
        x = numbers(offset, 1024)
        rows.append([f"{offset:,}", *(float(m(x)) for m in METHODS.values()), float(x.astype(float).var())])
    return Still(
        caption="Variance of 1,024 float32 numbers with standard deviation 1, added one after another",
        head=("distance from zero", *METHODS, "exact"),
        rows=rows,
    )


def online_still():
    return Still(
        caption="What is kept after each chunk of four logits",
        head=("after chunk", "its maximum", "running maximum", "factor", "normalizer"),
        rows=[[str(k), *map(float, step)] for k, step in enumerate(online(), 1)],
        data=LOGITS,
    )


def lost_still():
    x = (0.3, 1.9, -0.4)
    losses = {"dy = (1.2, -0.3, 0.8)": (1.2, -0.3, 0.8), "sum(y)": "sum", "sum(y²)": "squares"}
    rows = [
        [f"{title}, {loss}".replace("-", "\N{MINUS SIGN}"), *map(float, lost(x, dy, norm)[-1])]
        for norm, title in (("layer", "layer norm"), ("rms", "RMS norm"))
        for loss, dy in losses.items()
    ]
    return Still(
        caption="Gradients of three losses at x = (0.3, 1.9, \N{MINUS SIGN}0.4), without weight and eps",
        head=("", "first", "second", "third"),
        rows=rows,
    )


STILLS = {
    "batch": batch_still,
    "pools": pools_still,
    "gumbel": gumbel_still,
    "eps": eps_still,
    "offset": offset_still,
    "online": online_still,
    "lost": lost_still,
}
