"""Right solutions of layer_norm in different styles."""

import math

import numpy as np


def trailing_axes(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    w = x.astype(np.promote_types(x.dtype, np.float32))
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    y = (w - w.mean(axes, keepdims=True)) / np.sqrt(w.var(axes, keepdims=True) + w.dtype.type(eps))
    y = y if weight is None else y * weight
    y = y if bias is None else y + bias
    return y.astype(x.dtype)


def as_a_table(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    width = math.prod(normalized_shape)
    table = x.astype(np.float64).reshape(-1, width)
    gamma = np.ones(width) if weight is None else weight.ravel()
    beta = np.zeros(width) if bias is None else bias.ravel()
    mean = table.sum(1) / width
    table = table - mean[:, None]
    rstd = (np.einsum("nd,nd->n", table, table) / width + eps) ** -0.5
    return (table * rstd[:, None] * gamma + beta).reshape(x.shape).astype(x.dtype)


def token_by_token(x, normalized_shape, weight=1, bias=0, eps=1e-5):
    weight, bias = 1 if weight is None else weight, 0 if bias is None else bias
    out = np.empty_like(x)
    for where in np.ndindex(x.shape[: x.ndim - len(normalized_shape)]):
        token = x[where].astype(float)
        mean = math.fsum(token.flat) / token.size
        variance = math.fsum((v - mean) ** 2 for v in token.flat) / token.size
        out[where] = (token - mean) / math.sqrt(variance + eps) * weight + bias
    return out


def folded(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """One multiplication and one addition an element: x * (rstd * weight) + (bias - mean * rstd * weight)."""
    w = x.astype(np.result_type(x.dtype, np.float32))
    inner = tuple(-1 - k for k in range(len(normalized_shape)))
    scale = 1 / np.sqrt(np.var(w, axis=inner, keepdims=True) + w.dtype.type(eps))
    shift = -np.mean(w, axis=inner, keepdims=True) * scale
    if weight is not None:
        scale, shift = scale * weight, shift * weight
    if bias is not None:
        shift = shift + bias
    return (w * scale + shift).astype(x.dtype)


def in_torch(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    import torch

    t = torch.from_numpy(x.astype(np.float64))
    inner = list(range(-len(normalized_shape), 0))
    t = t - t.mean(inner, keepdim=True)
    t = t / torch.sqrt(t.square().mean(inner, keepdim=True) + eps)
    if weight is not None:
        t = t.mul(torch.from_numpy(weight))
    if bias is not None:
        t = t.add(torch.from_numpy(bias))
    return t.numpy().astype(x.dtype)


STYLES = [trailing_axes, as_a_table, token_by_token, folded, in_torch]
