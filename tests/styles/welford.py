"""Right solutions of welford in different styles."""

import itertools
import math
from fractions import Fraction
from functools import reduce

import numpy as np


def textbook(stream):
    n, mean, m2 = 0, 0.0, 0.0
    for x in stream:
        n += 1
        delta = x - mean
        mean += delta / n
        m2 += delta * (x - mean)
    return n, mean, m2


def enumerated(stream):
    n, mean, m2 = 0, 0.0, 0.0
    for n, x in enumerate(stream, 1):
        old, mean = mean, mean + (x - mean) / n
        m2 += (x - old) * (x - mean)
    return n, mean, m2


def squared_delta(stream):
    """m2 grows by delta^2 (n - 1) / n: the same thing."""
    n, mean, m2 = 0, 0.0, 0.0
    for x in stream:
        delta = x - mean
        m2 += delta * delta * n / (n + 1)
        n += 1
        mean += delta / n
    return n, mean, m2


def youngs_and_cramer(stream):
    """With a sum in place of the mean (Youngs and Cramer, 1971), of values shifted by the first."""
    first = next(stream, None)
    if first is None:
        return 0, 0.0, 0.0
    n, total, m2 = 1, 0.0, 0.0
    for x in stream:
        x -= first
        n += 1
        total += x
        m2 += (n * x - total) ** 2 / (n * (n - 1))
    return n, first + total / n, m2


def shifted_sums(stream):
    """Sums of x - first: nothing is far from zero."""
    first = next(stream, None)
    if first is None:
        return 0, 0.0, 0.0
    n, total, squares = 1, 0.0, 0.0
    for x in stream:
        n += 1
        total += x - first
        squares += (x - first) ** 2
    return n, first + total / n, squares - total**2 / n


def folded(stream):
    def step(state, x):
        n, mean, m2 = state
        new = mean + (x - mean) / (n + 1)
        return n + 1, new, m2 + (x - mean) * (x - new)

    return reduce(step, stream, (0, 0.0, 0.0))


def with_next(stream):
    n, mean, m2 = 0, 0.0, 0.0
    while True:
        try:
            x = next(stream)
        except StopIteration:
            return n, mean, m2
        n += 1
        d = x - mean
        mean = mean + d / n
        m2 = m2 + d * (x - mean)


def first_taken_out(stream):
    stream = iter(stream)
    try:
        mean = next(stream)
    except StopIteration:
        return 0, 0.0, 0.0
    n, m2 = 1, 0.0
    for x in stream:
        n += 1
        delta = x - mean
        mean += delta / n
        m2 += delta * (x - mean)
    return n, mean, m2


def numpy_scalars(stream):
    n, mean, m2 = 0, np.float64(0), np.float64(0)
    for x in map(np.float64, stream):
        n += 1
        delta = x - mean
        mean = mean + delta / n
        m2 = m2 + delta * (x - mean)
    return n, mean, m2


def block_by_block(stream):
    """Blocks of 64 values, merged one after another."""
    n, mean, m2 = 0, 0.0, 0.0
    while block := list(itertools.islice(stream, 64)):
        k = len(block)
        middle = math.fsum(block) / k
        delta = middle - mean
        m2 += math.fsum((x - middle) ** 2 for x in block) + delta**2 * n * k / (n + k)
        n += k
        mean += delta * k / n
    return n, mean, m2


def fractions(stream):
    """Exact sums, rounded once."""
    n, total, squares = 0, Fraction(0), Fraction(0)
    for x in stream:
        n, total, squares = n + 1, total + Fraction(x), squares + Fraction(x) ** 2
        if n == 2000:  # fractions of many values are slow: the rest goes on in floats
            break
    if n == 0:
        return 0, 0.0, 0.0
    mean, m2 = float(total / n), float(squares - total**2 / n)
    for x in stream:
        n += 1
        delta = x - mean
        mean += delta / n
        m2 += delta * (x - mean)
    return n, mean, m2


def stored(stream):
    """Keeps all values, which is a waste and no mistake."""
    x = np.fromiter(stream, float)
    return (x.size, x.mean(), np.square(x - x.mean()).sum()) if x.size else (0, 0.0, 0.0)


STYLES = [
    textbook,
    enumerated,
    squared_delta,
    youngs_and_cramer,
    shifted_sums,
    folded,
    with_next,
    first_taken_out,
    numpy_scalars,
    block_by_block,
    fractions,
    stored,
]
