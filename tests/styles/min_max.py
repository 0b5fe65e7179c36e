"""Right solutions of min_max in different styles."""

import numpy as np


def masked_division(x, axis=-1):
    w = x.astype(np.promote_types(x.dtype, np.float32))
    rise = w - w.min(axis=axis, keepdims=True)
    height = np.broadcast_to(np.ptp(w, axis=axis, keepdims=True), w.shape)
    return np.divide(rise, height, out=np.zeros_like(rise), where=height != 0).astype(x.dtype)


def loop(x, axis=-1):
    y = np.moveaxis(np.array(x, dtype=np.float64), axis, -1)
    for where in np.ndindex(*y.shape[:-1]):
        low, high = y[where].min(), y[where].max()
        y[where] = [0.0 if high == low else (v - low) / (high - low) for v in y[where]]
    return np.moveaxis(y, -1, axis).astype(x.dtype)


def folded(x, axis=-1):
    z = x.astype(np.result_type(x.dtype, np.float32))
    low, high = np.amin(z, axis, keepdims=True), np.amax(z, axis, keepdims=True)
    slope = np.where(high == low, 0, 1 / np.where(high == low, 1, high - low)).astype(z.dtype)
    return (z * slope - low * slope).astype(x.dtype)


def in_place(x, axis=-1):
    z = x.astype(np.float64)
    z -= z.min(axis=axis, keepdims=True)
    top = z.max(axis=axis, keepdims=True)
    top[top == 0] = np.inf
    z /= top
    return z.astype(x.dtype)


def interpolated(x, axis=-1):
    if not x.size:
        return x.copy()

    def one(row):
        low, high = row.min(), row.max()
        return np.interp(row, [low, high], [0.0, 1.0]) if high > low else (high - low) * row

    return np.apply_along_axis(one, axis, x.astype(np.float64)).astype(x.dtype)


STYLES = [masked_division, loop, folded, in_place, interpolated]
