"""Right solutions of merge_statistics in different styles."""

from fractions import Fraction

import numpy as np


def chan(a, b):
    (n_a, mean_a, m2_a), (n_b, mean_b, m2_b) = a, b
    n = n_a + n_b
    if n == 0:
        return 0, 0.0, 0.0
    delta = mean_b - mean_a
    return n, mean_a + delta * n_b / n, m2_a + m2_b + delta**2 * n_a * n_b / n


def early_returns(a, b):
    if b[0] == 0:
        return a
    if a[0] == 0:
        return b
    n = a[0] + b[0]
    delta = b[1] - a[1]
    return n, a[1] + delta * (b[0] / n), a[2] + b[2] + delta * delta * (a[0] * (b[0] / n))


def weighted_mean(a, b):
    """The mean as a weighted sum, which costs a digit or so far from zero."""
    n = a[0] + b[0]
    if not n:
        return a
    mean = (a[0] * a[1] + b[0] * b[1]) / n
    return n, mean, a[2] + b[2] + (a[1] - b[1]) ** 2 * a[0] * b[0] / n


def distances_from_the_new_mean(a, b):
    n = a[0] + b[0]
    if n == 0:
        return 0, 0.0, 0.0
    mean = a[1] + (b[1] - a[1]) * b[0] / n
    return n, mean, sum(m2 + k * (m - mean) ** 2 for k, m, m2 in (a, b))


def larger_first(a, b):
    if a[0] < b[0]:
        a, b = b, a
    n = max(a[0] + b[0], 1)
    delta = b[1] - a[1]
    step = delta * b[0] / n
    return a[0] + b[0], a[1] + step, a[2] + b[2] + a[0] * delta * step


def shares(a, b):
    n = a[0] + b[0]
    if n == 0:
        return 0, 0.0, 0.0
    p, q = a[0] / n, b[0] / n
    return n, p * a[1] + q * b[1], a[2] + b[2] + n * p * q * (b[1] - a[1]) ** 2


def harmonic(a, b):
    if 0 in (a[0], b[0]):
        return max(a, b, key=lambda part: part[0])
    between = (b[1] - a[1]) ** 2 / (1 / a[0] + 1 / b[0])
    n = a[0] + b[0]
    return n, a[1] * (a[0] / n) + b[1] * (b[0] / n), a[2] + b[2] + between


def through_variances(a, b):
    """Law of total variance, with a guard for empty parts."""
    if not a[0]:
        return b
    if not b[0]:
        return a
    n = a[0] + b[0]
    w_a, w_b = a[0] / n, b[0] / n
    mean = a[1] + w_b * (b[1] - a[1])
    within = w_a * a[2] / a[0] + w_b * b[2] / b[0]
    between = w_a * (a[1] - mean) ** 2 + w_b * (b[1] - mean) ** 2
    return n, mean, n * (within + between)


def arrays(a, b):
    n, mean, m2 = (np.array(column, dtype=np.float64) for column in zip(a, b, strict=True))
    if n.sum() == 0:
        return 0, 0.0, 0.0
    middle = mean[0] + np.dot(n, mean - mean[0]) / n.sum()
    return a[0] + b[0], middle, m2.sum() + np.dot(n, (mean - middle) ** 2)


def numpy_scalars(a, b):
    n = np.int64(a[0] + b[0])
    if n == 0:
        return n, np.float64(0), np.float64(0)
    delta = np.subtract(b[1], a[1])
    return n, a[1] + delta * b[0] / n, np.add(a[2], b[2]) + delta * delta * (a[0] / n) * b[0]


def fractions(a, b):
    n = a[0] + b[0]
    if n == 0:
        return 0, 0.0, 0.0
    parts = [tuple(map(Fraction, part)) for part in (a, b)]
    squares = sum(m2 + k * mean**2 for k, mean, m2 in parts)
    mean = sum(k * mean for k, mean, _ in parts) / n
    return n, float(mean), float(squares - n * mean**2)


STYLES = [
    chan,
    early_returns,
    weighted_mean,
    distances_from_the_new_mean,
    larger_first,
    shares,
    harmonic,
    through_variances,
    arrays,
    numpy_scalars,
    fractions,
]
