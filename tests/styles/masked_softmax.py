"""Right solutions of masked_softmax in different styles."""

import math

import numpy as np


def filled(x, mask, axis=-1):
    w = np.where(mask, x, -np.inf).astype(np.promote_types(x.dtype, np.float32))
    top = w.max(axis=axis, keepdims=True)
    e = np.exp(w - np.where(top == -np.inf, 0, top).astype(w.dtype))
    total = e.sum(axis=axis, keepdims=True)
    return (e / np.where(total == 0, 1, total).astype(w.dtype)).astype(x.dtype)


def ufunc_where(x, mask, axis=-1):
    """Reductions and exponentials that skip what is masked."""
    w = x.astype(np.promote_types(x.dtype, np.float32))
    keep = np.broadcast_to(mask, x.shape)
    top = w.max(axis=axis, keepdims=True, where=keep, initial=-np.inf)
    shifted = np.subtract(w, top, out=np.full(w.shape, -np.inf, w.dtype), where=keep)
    e = np.exp(shifted)
    total = e.sum(axis=axis, keepdims=True)
    return np.divide(e, total, out=np.zeros_like(e), where=total != 0).astype(x.dtype)


def loop(x, mask, axis=-1):
    out = np.zeros(x.shape, x.dtype)
    source, target = np.moveaxis(x, axis, -1), np.moveaxis(out, axis, -1)
    keep = np.moveaxis(np.broadcast_to(mask, x.shape), axis, -1)
    for where in np.ndindex(source.shape[:-1]):
        places = np.flatnonzero(keep[where])
        if not len(places):
            continue
        row = [float(source[where][i]) for i in places]
        top = math.nan if any(map(math.isnan, row)) else max(row)
        weights = [math.exp(v - top) for v in row]
        target[where][places] = np.array(weights) / math.fsum(weights)
    return out


def kept_values_alone(x, mask, axis=-1):
    """The softmax of the kept values, put back where they came from."""
    keep = np.broadcast_to(mask, x.shape)

    def one(row, chosen):
        out = np.zeros(len(row))
        if chosen.any():
            v = row[chosen].astype(np.float64)
            e = np.exp(v - v.max())
            out[chosen] = e / e.sum()
        return out

    rows = np.moveaxis(x, axis, -1)
    chosen = np.moveaxis(keep, axis, -1)
    out = np.array([one(rows[where], chosen[where]) for where in np.ndindex(rows.shape[:-1])])
    return np.moveaxis(out.reshape(rows.shape), -1, axis).astype(x.dtype)


def by_logarithm(x, mask, axis=-1):
    kept = np.where(mask, x.astype(np.float64), -np.inf)
    log_total = np.logaddexp.reduce(kept, axis=axis, keepdims=True)
    return np.exp(kept - np.where(np.isneginf(log_total), 0, log_total)).astype(x.dtype)


def empty_rows_by_any(x, mask, axis=-1):
    keep = np.broadcast_to(mask, x.shape)
    some = keep.any(axis=axis, keepdims=True)
    w = np.where(keep, x, -np.inf).astype(np.promote_types(x.dtype, np.float32))
    w = np.where(some, w, w.dtype.type(0))
    e = np.exp(w - w.max(axis=axis, keepdims=True))
    return np.where(some, e / e.sum(axis=axis, keepdims=True), 0).astype(x.dtype)


def masked_array(x, mask, axis=-1):
    m = np.ma.array(x.astype(np.float64), mask=~np.broadcast_to(mask, x.shape))
    e = np.ma.exp(m - m.max(axis=axis, keepdims=True))
    # A kept NaN is masked by np.ma itself: it is put back.
    y = np.ma.filled(e / e.sum(axis=axis, keepdims=True), 0.0)
    bad = np.isnan(np.where(mask, x, 0)).any(axis=axis, keepdims=True)
    return np.where(bad, np.nan, y).astype(x.dtype)


def in_torch(x, mask, axis=-1):
    import torch

    hidden = torch.from_numpy(~np.broadcast_to(mask, x.shape))
    t = torch.from_numpy(x.astype(np.float64)).masked_fill(hidden, -torch.inf)
    top = t.amax(dim=axis, keepdim=True)
    e = torch.exp(t - top.masked_fill(top == -torch.inf, 0.0))
    total = e.sum(dim=axis, keepdim=True)
    return (e / total.masked_fill(total == 0, 1.0)).numpy().astype(x.dtype)


STYLES = [filled, ufunc_where, loop, kept_values_alone, by_logarithm, empty_rows_by_any, masked_array, in_torch]
