"""Right solutions of layer_norm_backward in different styles."""

import math

import numpy as np


def wide(*arrays):
    return (a.astype(np.promote_types(a.dtype, np.float32)) for a in arrays)


def projection(dy, x, weight, eps=1e-5):
    dy_, x_, w = wide(dy, x, weight)
    deviation = x_ - x_.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt((deviation**2).mean(-1, keepdims=True) + eps)
    x_hat = deviation * rstd
    g = dy_ * w
    dx = rstd * (g - g.mean(-1, keepdims=True) - x_hat * (g * x_hat).mean(-1, keepdims=True))
    rows = tuple(range(x.ndim - 1))
    return tuple(a.astype(x.dtype) for a in (dx, (dy_ * x_hat).sum(rows), dy_.sum(rows)))


def times_n(dy, x, weight, eps=1e-5):
    """The form of many tutorials, over n."""
    d = x.shape[-1]
    dy_, x_ = dy.reshape(-1, d).astype(np.float64), x.reshape(-1, d).astype(np.float64)
    std = np.sqrt(x_.var(axis=1, keepdims=True) + eps)
    x_hat = (x_ - x_.mean(axis=1, keepdims=True)) / std
    dx_hat = dy_ * weight.astype(np.float64)
    dx = (d * dx_hat - dx_hat.sum(1, keepdims=True) - x_hat * (dx_hat * x_hat).sum(1, keepdims=True)) / (d * std)
    return dx.reshape(x.shape).astype(x.dtype), (dy_ * x_hat).sum(0).astype(x.dtype), dy_.sum(0).astype(x.dtype)


def step_by_step(dy, x, weight, eps=1e-5):
    """Back through the graph: dvar, then dmean, then dx."""
    dy_, x_, w = (a.astype(np.float64) for a in (dy, x, weight))
    n = x.shape[-1]
    mean = x_.mean(-1, keepdims=True)
    var = ((x_ - mean) ** 2).mean(-1, keepdims=True)
    rstd = (var + eps) ** -0.5
    dx_hat = dy_ * w
    dvar = (dx_hat * (x_ - mean) * -0.5 * (var + eps) ** -1.5).sum(-1, keepdims=True)
    dmean = (-dx_hat * rstd).sum(-1, keepdims=True) + dvar * (-2 * (x_ - mean)).mean(-1, keepdims=True)
    dx = dx_hat * rstd + dvar * 2 * (x_ - mean) / n + dmean / n
    flat, flat_hat = dy_.reshape(-1, n), ((x_ - mean) * rstd).reshape(-1, n)
    return dx.astype(x.dtype), np.einsum("ij,ij->j", flat, flat_hat).astype(x.dtype), flat.sum(0).astype(x.dtype)


def jacobian(dy, x, weight, eps=1e-5):
    """The whole Jacobian of each row, as a matrix."""
    n = x.shape[-1]
    dx, dweight, dbias = np.zeros(x.shape), np.zeros(n), np.zeros(n)
    for i in np.ndindex(x.shape[:-1]):
        row, above = x[i].astype(float), dy[i].astype(float)
        deviation = row - row.mean()
        rstd = 1 / math.sqrt(np.dot(deviation, deviation) / n + eps)
        x_hat = deviation * rstd
        matrix = rstd * (np.eye(n) - np.ones((n, n)) / n - np.outer(x_hat, x_hat) / n)
        dx[i] = matrix @ (above * weight)
        dweight += above * x_hat
        dbias += above
    return dx.astype(x.dtype), dweight.astype(x.dtype), dbias.astype(x.dtype)


def plain_loops(dy, x, weight, eps=1e-5):
    n = x.shape[-1]
    w = [float(v) for v in weight]
    dx, dweight, dbias = [], [0.0] * n, [0.0] * n
    for row, above in zip(x.reshape(-1, n).tolist(), dy.reshape(-1, n).tolist(), strict=True):
        mean = math.fsum(row) / n
        rstd = 1 / math.sqrt(math.fsum((v - mean) ** 2 for v in row) / n + eps)
        x_hat = [(v - mean) * rstd for v in row]
        g = [a * b for a, b in zip(above, w, strict=True)]
        along_one = math.fsum(g) / n
        along_x = math.fsum(a * b for a, b in zip(g, x_hat, strict=True)) / n
        dx += [rstd * (a - along_one - b * along_x) for a, b in zip(g, x_hat, strict=True)]
        for j in range(n):
            dweight[j] += above[j] * x_hat[j]
            dbias[j] += above[j]
    return np.array(dx, x.dtype).reshape(x.shape), np.array(dweight, x.dtype), np.array(dbias, x.dtype)


def centred_twice(dy, x, weight, eps=1e-5):
    """Centre g, take the x_hat part out, and let einsum do the sums."""
    dy_, x_, w = wide(dy, x, weight)
    deviation = x_ - x_.mean(-1, keepdims=True)
    variance = np.einsum("...d,...d->...", deviation, deviation) / x.shape[-1]
    rstd = (1 / np.sqrt(variance + eps))[..., np.newaxis]
    g = dy_ * w
    g -= g.mean(-1, keepdims=True)
    slope = np.einsum("...d,...d->...", g, deviation)[..., np.newaxis] / x.shape[-1] * rstd**2
    dx = (g - deviation * slope) * rstd
    rows, above = (a.reshape(-1, x.shape[-1]) for a in (deviation * rstd, dy_))
    dweight, dbias = np.einsum("nd,nd->d", above, rows), np.einsum("nd->d", above)
    return dx.astype(x.dtype), dweight.astype(x.dtype), dbias.astype(x.dtype)


def columns(dy, x, weight, eps=1e-5):
    """Features first, so that statistics need no keepdims."""
    n = x.shape[-1]
    above = dy.reshape(-1, n).T.astype(np.float64)
    cols = x.reshape(-1, n).T.astype(np.float64)
    rstd = 1 / np.sqrt(cols.var(0) + eps)
    x_hat = (cols - cols.mean(0)) * rstd
    g = above * weight.astype(np.float64)[:, None]
    dx = (g - g.mean(0) - x_hat * (g * x_hat).mean(0)) * rstd
    return [a.astype(x.dtype) for a in (dx.T.reshape(x.shape), (above * x_hat).sum(1), above.sum(1))]


def matrix_products(dy, x, weight, eps=1e-5):
    n = x.shape[-1]
    rows, above = x.reshape(-1, n).astype(float), dy.reshape(-1, n).astype(float)
    center = np.eye(n) - 1 / n
    deviation = rows @ center
    rstd = np.diag(1 / np.sqrt((deviation**2).mean(1) + eps))
    x_hat = rstd @ deviation
    g = above @ np.diag(weight.astype(float)) @ center
    dx = rstd @ (g - np.diag((g * x_hat).sum(1) / n) @ x_hat)
    ones = np.ones(len(rows))
    return dx.reshape(x.shape).astype(x.dtype), (ones @ (above * x_hat)).astype(x.dtype), (ones @ above).astype(x.dtype)


STYLES = [projection, times_n, step_by_step, jacobian, plain_loops, centred_twice, columns, matrix_products]
