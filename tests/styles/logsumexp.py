"""Right solutions of logsumexp in different styles."""

import math

import numpy as np


def logaddexp(x, axis=-1):
    return np.logaddexp.reduce(x, axis=axis, dtype=np.promote_types(x.dtype, np.float32)).astype(x.dtype)


def finite_maximum(x, axis=-1):
    w = x.astype(np.float64)
    top = np.nan_to_num(w.max(axis=axis), nan=0.0, posinf=0.0, neginf=0.0)
    return (np.log(np.exp(w - np.expand_dims(top, axis)).sum(axis=axis)) + top).astype(x.dtype)


def log1p_of_the_rest(x, axis=-1):
    """The maximum plus log1p of what the others add: no digit of a small rest is lost."""
    rows = np.sort(np.moveaxis(x, axis, -1).astype(np.float64), axis=-1)
    top, rest = rows[..., -1], rows[..., :-1]
    with np.errstate(invalid="ignore"):
        safe = np.where(np.isinf(top), 0, top)
        more = np.log1p(np.exp(rest - safe[..., np.newaxis]).sum(-1))
    return np.where(np.isinf(top), top, top + more).astype(x.dtype)[()]


def one_pass(x, axis=-1):
    """Running maximum and running sum, rescaled when the maximum grows."""
    rows = np.moveaxis(x, axis, -1)
    out = np.empty(rows.shape[:-1])
    for where in np.ndindex(out.shape):
        top, total = -math.inf, 0.0
        for value in rows[where].tolist():
            if math.isnan(value) or value == math.inf:
                top, total = value, 1.0
                break
            if value > top:
                total, top = total * math.exp(top - value) + 1.0, value
            elif value > -math.inf:
                total += math.exp(value - top)
        out[where] = top + math.log(total) if total else -math.inf
    return out.astype(x.dtype)[()]


STYLES = [logaddexp, finite_maximum, log1p_of_the_rest, one_pass]
