"""Right solutions of log_softmax in different styles."""

import math

import numpy as np


def shifted(x, axis=-1):
    w = x.astype(np.promote_types(x.dtype, np.float32))
    w = w - w.max(axis=axis, keepdims=True)
    return (w - np.log(np.exp(w).sum(axis=axis, keepdims=True))).astype(x.dtype)


def minus_logaddexp(x, axis=-1):
    w = x.astype(np.float64)
    return (w - np.logaddexp.reduce(w, axis=axis, keepdims=True)).astype(x.dtype)


def minus_logsumexp(x, axis=-1):
    """x - logsumexp(x), the maximum added again in between."""
    w = x.astype(np.result_type(x, np.float32))
    top = np.max(w, axis=axis, keepdims=True)
    return (w - (top + np.log(np.sum(np.exp(w - top), axis=axis, keepdims=True)))).astype(x.dtype)


def moved_to_the_end(x, axis=-1):
    rows = np.moveaxis(x, axis, -1).astype(np.float64)
    shape, rows = rows.shape, rows.reshape(-1, rows.shape[-1])
    top = rows.max(1)
    y = rows - top[:, None]
    y -= np.log(np.einsum("ij->i", np.exp(y)))[:, None]
    return np.moveaxis(y.reshape(shape), -1, axis).astype(x.dtype)


def slice_by_slice(x, axis=-1):
    def one(row):
        top = max(row)
        if math.isnan(top) or any(math.isnan(v) for v in row) or math.isinf(top):
            return np.full(len(row), np.nan)
        total = math.log(math.fsum(math.exp(v - top) for v in row))
        return np.array([(v - top) - total for v in row])

    return np.apply_along_axis(one, axis, x.astype(np.float64)).astype(x.dtype)


def surprise_of_the_sum(x, axis=-1):
    """Minus log1p of what the other logits weigh beside the largest."""
    w = np.array(x, dtype=np.promote_types(x.dtype, np.float32), copy=True)
    w -= w.max(axis, keepdims=True)
    e = np.exp(w)
    np.put_along_axis(e, np.expand_dims(e.argmax(axis), axis), 0, axis)
    answer = w - np.log1p(e.sum(axis, keepdims=True))
    return np.where(np.isnan(w).any(axis, keepdims=True), np.nan, answer).astype(x.dtype)


def one_logit_after_the_other(x, axis=-1):
    """The log of the sum, built up by logaddexp."""
    logits = np.moveaxis(x, axis, 0).astype(np.float64)
    total = np.full(logits.shape[1:], -np.inf)
    for logit in logits:
        total = np.logaddexp(total, logit)
    return np.moveaxis(logits - total, 0, axis).astype(x.dtype)


def in_torch(x, axis=-1):
    import torch

    t = torch.tensor(np.ascontiguousarray(x, dtype=np.float64))
    t = t - t.amax(axis, keepdim=True)
    return (t - t.exp().sum(axis, keepdim=True).log()).numpy().astype(x.dtype)


STYLES = [
    shifted,
    minus_logaddexp,
    minus_logsumexp,
    moved_to_the_end,
    slice_by_slice,
    surprise_of_the_sum,
    one_logit_after_the_other,
    in_torch,
]
