"""Right solutions of rms_norm_backward in different styles."""

import math

import numpy as np


def projection(dy, x, weight, eps=1e-6):
    wide = np.promote_types(x.dtype, np.float32)
    dy_, x_ = dy.astype(wide), x.astype(wide)
    rstd = 1 / np.sqrt((x_ * x_).mean(-1, keepdims=True) + eps)
    x_hat = x_ * rstd
    g = dy_ * weight
    dx = rstd * (g - x_hat * (g * x_hat).mean(-1, keepdims=True))
    return dx.astype(x.dtype), (dy_ * x_hat).sum(tuple(range(x.ndim - 1))).astype(x.dtype)


def cubed(dy, x, weight, eps=1e-6):
    """The quotient rule as it comes: g r - x r^3 mean(g x)."""
    dy_, x_, w = (a.astype(np.float64) for a in (dy, x, weight))
    r = (np.square(x_).mean(-1, keepdims=True) + eps) ** -0.5
    g = dy_ * w
    dx = g * r - x_ * r**3 * (g * x_).mean(-1, keepdims=True)
    n = x.shape[-1]
    return dx.astype(x.dtype), (dy_ * x_ * r).reshape(-1, n).sum(0).astype(x.dtype)


def jacobian(dy, x, weight, eps=1e-6):
    n = x.shape[-1]
    dx, dweight = np.zeros(x.shape), np.zeros(n)
    for i in np.ndindex(x.shape[:-1]):
        row, above = x[i].astype(float), dy[i].astype(float)
        rstd = 1 / math.sqrt(row @ row / n + eps)
        x_hat = row * rstd
        dx[i] = rstd * (np.eye(n) - np.outer(x_hat, x_hat) / n) @ (above * weight)
        dweight += above * x_hat
    return dx.astype(x.dtype), dweight.astype(x.dtype)


def plain_loops(dy, x, weight, eps=1e-6):
    n = x.shape[-1]
    w = [float(v) for v in weight]
    dx, dweight = [], [0.0] * n
    for row, above in zip(x.reshape(-1, n).tolist(), dy.reshape(-1, n).tolist(), strict=True):
        rstd = 1 / math.sqrt(math.fsum(v * v for v in row) / n + eps)
        along = math.fsum(a * b * v for a, b, v in zip(above, w, row, strict=True)) * rstd / n
        dx += [rstd * (a * b - v * rstd * along) for a, b, v in zip(above, w, row, strict=True)]
        dweight = [total + a * v * rstd for total, a, v in zip(dweight, above, row, strict=True)]
    return np.array(dx, x.dtype).reshape(x.shape), np.array(dweight, x.dtype)


def letters(dy, x, weight, eps=1e-6):
    wide = np.promote_types(x.dtype, np.float32)
    x_, dy_ = x.astype(wide), dy.astype(wide)
    n = x.shape[-1]
    rstd = 1 / np.sqrt(np.einsum("...d,...d->...", x_, x_) / n + wide.type(eps))
    x_hat = np.einsum("...d,...->...d", x_, rstd)
    g = np.einsum("...d,d->...d", dy_, weight.astype(wide))
    along = np.einsum("...d,...d->...", g, x_hat) / n
    dx = np.einsum("...d,...->...d", g - x_hat * along[..., None], rstd)
    dweight = np.einsum("nd,nd->d", dy_.reshape(-1, n), x_hat.reshape(-1, n))
    return dx.astype(x.dtype), dweight.astype(x.dtype)


def over_n(dy, x, weight, eps=1e-6):
    n = x.shape[-1]
    rows, above = x.reshape(-1, n).astype(np.float64), dy.reshape(-1, n).astype(np.float64)
    rms = np.sqrt((rows**2).mean(1, keepdims=True) + eps)
    x_hat = rows / rms
    dx_hat = above * weight.astype(np.float64)
    dx = (n * dx_hat - x_hat * (dx_hat * x_hat).sum(1, keepdims=True)) / (n * rms)
    return dx.reshape(x.shape).astype(x.dtype), (above * x_hat).sum(axis=0).astype(x.dtype)


def columns(dy, x, weight, eps=1e-6):
    n = x.shape[-1]
    cols, above = x.reshape(-1, n).T.astype(np.float64), dy.reshape(-1, n).T.astype(np.float64)
    rstd = 1 / np.sqrt((cols**2).mean(0) + eps)
    x_hat = cols * rstd
    g = above * weight.astype(np.float64)[:, None]
    dx = (g - x_hat * (g * x_hat).mean(0)) * rstd
    return dx.T.reshape(x.shape).astype(x.dtype), (above * x_hat).sum(1).astype(x.dtype)


def step_by_step(dy, x, weight, eps=1e-6):
    """Back through the graph: first drstd, then the mean square, then x."""
    dy_, x_, w = (a.astype(np.float64) for a in (dy, x, weight))
    square = (x_**2).mean(-1, keepdims=True)
    rstd = (square + eps) ** -0.5
    dx_hat = dy_ * w
    drstd = (dx_hat * x_).sum(-1, keepdims=True)
    dsquare = drstd * -0.5 * (square + eps) ** -1.5
    dx = dx_hat * rstd + dsquare * 2 * x_ / x.shape[-1]
    summed = dy_ * (x_ * rstd)
    while summed.ndim > 1:
        summed = summed.sum(0)
    return dx.astype(x.dtype), summed.astype(x.dtype)


STYLES = [projection, cubed, jacobian, plain_loops, letters, over_n, columns, step_by_step]
