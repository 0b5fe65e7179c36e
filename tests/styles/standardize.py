"""Right solutions of standardize in different styles."""

import math

import numpy as np


def two_passes(x, eps=1e-5):
    wide = np.promote_types(x.dtype, np.float32)
    deviation = x - x.mean(dtype=wide)
    return (deviation / np.sqrt(np.mean(deviation**2) + wide.type(eps))).astype(x.dtype)


def wide_inside(x, eps=1e-5):
    z = np.array(x, dtype=np.float64)
    z -= z.mean()
    z *= (z.var() + eps) ** -0.5
    return z.astype(x.dtype)


def folded(x, eps=1e-5):
    w = x.astype(np.promote_types(x.dtype, np.float32))
    scale = 1 / np.sqrt(w.var() + w.dtype.type(eps))
    shift = -w.mean() * scale
    return (w * scale + shift).astype(x.dtype)


def welford(x, eps=1e-5):
    mean = m2 = 0.0
    for n, value in enumerate(map(float, x.flat), 1):
        delta = value - mean
        mean += delta / n
        m2 += delta * (value - mean)
    rstd = 1 / math.sqrt(m2 / x.size + eps)
    return np.reshape([(float(v) - mean) * rstd for v in x.flat], x.shape).astype(x.dtype)


def dot_product(x, *, eps=1e-5):
    flat = np.ravel(x).astype(np.result_type(x, np.float32))
    flat = flat - flat.sum() / flat.size
    variance = np.einsum("i,i->", flat, flat) / flat.size
    return (flat / np.sqrt(variance + flat.dtype.type(eps))).reshape(x.shape).astype(x.dtype)


def in_torch(x, eps=1e-5):
    import torch

    t = torch.tensor(np.array(x, np.float64, order="C"))
    t = (t - t.mean()) * torch.rsqrt(t.var(correction=0) + eps)
    return t.numpy().astype(x.dtype)


class Standardizer:
    def __init__(self, ddof):
        self.ddof = ddof

    def __call__(self, x, eps=1e-5):
        z = x.astype(float)
        return np.divide(z - np.average(z), np.hypot(np.std(z, ddof=self.ddof), np.sqrt(eps))).astype(x.dtype)


STYLES = [two_passes, wide_inside, folded, welford, dot_product, in_torch, Standardizer(ddof=0)]
