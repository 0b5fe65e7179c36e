"""Right solutions of gumbel_max in different styles."""

import bisect
import itertools
import math

import numpy as np


def gumbel(logits, rng, size):
    shape = (size,) if np.isscalar(size) else size
    return (logits + rng.gumbel(size=(*shape, logits.size))).argmax(axis=-1)


def two_logarithms(logits, rng, size):
    shape = (size,) if isinstance(size, int) else tuple(size)
    u = rng.random(size=shape + logits.shape)
    with np.errstate(divide="ignore"):
        return np.argmax(logits - np.log(-np.log(u)), axis=-1)


def inverse_cdf(logits, rng, size):
    p = np.exp(logits - np.max(logits))
    edges = np.cumsum(p / p.sum())
    return np.minimum(np.searchsorted(edges, rng.random(size), side="right"), np.flatnonzero(p)[-1])


def exponential_race(logits, rng, size):
    """The first of independent exponential clocks with rates exp(logit)."""
    rates = np.exp(logits - logits.max())
    shape = (size,) if isinstance(size, int) else size
    waits = -np.log1p(-rng.random((*shape, len(rates))))
    with np.errstate(divide="ignore"):
        return np.argmin(waits / rates, axis=-1).astype(np.int32)


def class_by_class(logits, rng, size):
    shape = (size,) if isinstance(size, int) else tuple(size)
    best, winner = np.full(shape, -np.inf), np.zeros(shape, dtype=int)
    for k, logit in enumerate(logits):
        noisy = logit + rng.gumbel(0.0, 1.0, shape)
        winner[noisy > best] = k
        best = np.maximum(best, noisy)
    return winner


def one_at_a_time(logits, rng, size):
    weights = [math.exp(v - max(logits)) for v in logits]
    edges = list(itertools.accumulate(weights))
    last = max(k for k, weight in enumerate(weights) if weight > 0)
    shape = (size,) if isinstance(size, int) else size
    draws = [bisect.bisect_right(edges, u * edges[-1]) for u in rng.random(math.prod(shape))]
    return np.array([min(k, last) for k in draws], dtype=np.int64).reshape(shape)


STYLES = [gumbel, two_logarithms, inverse_cdf, exponential_race, class_by_class, one_at_a_time]
