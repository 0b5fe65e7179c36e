"""Right solutions of two_pass_variance in different styles."""

import math
import statistics
from fractions import Fraction

import numpy as np


def means_of_numpy(x):
    w = x.astype(np.promote_types(x.dtype, np.float32))
    return float(np.mean((w - np.mean(w)) ** 2))


def in_float64(x):
    d = x.astype(np.float64) - x.mean(dtype=np.float64)
    return np.dot(d, d) / len(d)


def value_by_value(x):
    total = 0.0
    for value in x.tolist():
        total += value
    mean = total / len(x)
    squares = 0.0
    for value in x.tolist():
        squares += (value - mean) ** 2
    return squares / len(x)


def built_in_sums(x):
    values = [float(v) for v in x]
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / len(values)


def fsums(x):
    values = x.tolist()
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) * (v - mean) for v in values) / len(values)


def numpy_var(x):
    return x.var(dtype=np.promote_types(x.dtype, np.float32))


def corrected(x):
    """The second pass takes out what rounding left of the mean."""
    w = x.astype(np.promote_types(x.dtype, np.float32))
    d = w - w.mean()
    return float((np.sum(d * d) - np.sum(d) ** 2 / w.dtype.type(len(d))) / w.dtype.type(len(d)))


def shifted(x):
    """One pass over data that a first one brought near zero."""
    d = x.astype(np.float64)
    d = d - d[0]
    return float(np.mean(d * d) - np.mean(d) ** 2)


def einsum(x):
    d = x.astype(np.float64)
    d = d - np.einsum("i->", d) / d.size
    return float(np.einsum("i,i->", d, d) / d.size)


def welford_in_float64(x):
    mean = m2 = 0.0
    for n, value in enumerate(x.astype(float).tolist(), 1):
        delta = value - mean
        mean += delta / n
        m2 += delta * (value - mean)
    return m2 / len(x)


def pairs(x):
    """Half the mean squared distance of all pairs, by sorting nothing and summing blocks."""
    w = x.astype(np.float64)
    mean = np.add.reduce([block.sum() for block in np.array_split(w, 16)]) / len(w)
    return float(sum(np.square(block - mean).sum() for block in np.array_split(w, 16)) / len(w))


def standard_library(x):
    return float(statistics.pvariance([Fraction(v) for v in x.tolist()])) if len(x) < 100 else numpy_var(x)


def in_torch(x):
    import torch

    t = torch.from_numpy(np.array(x, dtype=np.float64))
    return (t - t.mean()).square().mean().item()


STYLES = [
    means_of_numpy,
    in_float64,
    value_by_value,
    built_in_sums,
    fsums,
    numpy_var,
    corrected,
    shifted,
    einsum,
    welford_in_float64,
    pairs,
    standard_library,
    in_torch,
]
