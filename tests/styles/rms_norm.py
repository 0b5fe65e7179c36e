"""Right solutions of rms_norm in different styles."""

import math

import numpy as np


def default_eps(dtype):
    return float(np.finfo(np.promote_types(dtype, np.float32)).eps)


def mean_square(x, normalized_shape, weight=None, eps=None):
    w = x.astype(np.promote_types(x.dtype, np.float32))
    eps = np.finfo(w.dtype).eps if eps is None else eps
    axes = tuple(range(-len(normalized_shape), 0))
    y = w / np.sqrt(np.mean(w**2, axis=axes, keepdims=True) + w.dtype.type(eps))
    return (y if weight is None else y * weight).astype(x.dtype)


def rsqrt_first(x, normalized_shape, weight=None, eps=None):
    width = math.prod(normalized_shape)
    rows = x.astype(np.float64).reshape(-1, width)
    eps = default_eps(x.dtype) if eps is None else eps
    rstd = 1 / np.sqrt(np.einsum("ij,ij->i", rows, rows) / width + eps)
    gamma = np.ones(width) if weight is None else weight.reshape(width)
    return (rows * np.outer(rstd, gamma)).reshape(x.shape).astype(x.dtype)


def euclidean(x, normalized_shape, weight=None, eps=None):
    """The root mean square as a length: eps is one more coordinate."""
    width = math.prod(normalized_shape)
    rows = x.reshape(-1, width).astype(float)
    more = math.sqrt(width * (default_eps(x.dtype) if eps is None else eps))
    size = np.hypot(np.linalg.norm(rows, axis=1, keepdims=True), more) / math.sqrt(width)
    y = (rows / size).reshape(x.shape)
    return (y if weight is None else np.multiply(y, weight)).astype(x.dtype)


def token_by_token(x, normalized_shape, weight=None, eps=None):
    eps = default_eps(x.dtype) if eps is None else eps
    y = np.array(x, float)
    for where in np.ndindex(x.shape[: -len(normalized_shape)]):
        square = sum(v * v for v in y[where].ravel().tolist()) / y[where].size
        y[where] = y[where] * (square + eps) ** -0.5
    if weight is not None:
        y *= weight
    return y.astype(x.dtype)


def in_torch(x, normalized_shape, weight=None, eps=None):
    import torch

    t = torch.from_numpy(x.astype(np.float64))
    eps = default_eps(x.dtype) if eps is None else eps
    t = t * torch.rsqrt(t.pow(2).mean(tuple(range(-len(normalized_shape), 0)), keepdim=True) + eps)
    return (t if weight is None else t * torch.from_numpy(weight)).numpy().astype(x.dtype)


STYLES = [mean_square, rsqrt_first, euclidean, token_by_token, in_torch]
