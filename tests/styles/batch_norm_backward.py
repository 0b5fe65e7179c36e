"""Right solutions of batch_norm_backward in different styles."""

import math

import numpy as np


def axes_and_shape(dy, x, weight, eps=1e-5):
    wide = np.promote_types(x.dtype, np.float32)
    axes = (0, *range(2, x.ndim))
    shape = (1, x.shape[1]) + (1,) * (x.ndim - 2)
    dy_, x_ = dy.astype(wide), x.astype(wide)
    deviation = x_ - x_.mean(axes, keepdims=True)
    rstd = 1 / np.sqrt((deviation * deviation).mean(axes, keepdims=True) + eps)
    x_hat = deviation * rstd
    g = dy_ * weight.reshape(shape)
    dx = rstd * (g - g.mean(axes, keepdims=True) - x_hat * (g * x_hat).mean(axes, keepdims=True))
    return tuple(a.astype(x.dtype) for a in (dx, (dy_ * x_hat).sum(axes), dy_.sum(axes)))


def weight_at_the_end(dy, x, weight, eps=1e-5):
    """The weight is constant in a channel, so it may be multiplied last, and dweight and dbias give both means."""
    axes = (0, *range(2, x.ndim))
    shape = (1, -1) + (1,) * (x.ndim - 2)
    n = x.size // x.shape[1]
    dy_, x_ = dy.astype(np.float64), x.astype(np.float64)
    rstd = 1 / np.sqrt(x_.var(axis=axes) + eps)
    x_hat = (x_ - x_.mean(axes, keepdims=True)) * rstd.reshape(shape)
    dbias = dy_.sum(axes)
    dweight = (dy_ * x_hat).sum(axes)
    inside = n * dy_ - dbias.reshape(shape) - x_hat * dweight.reshape(shape)
    dx = (weight * rstd / n).reshape(shape) * inside
    return dx.astype(x.dtype), dweight.astype(x.dtype), dbias.astype(x.dtype)


def channels_to_the_end(dy, x, weight, eps=1e-5):
    channels = x.shape[1]
    last = np.moveaxis(x, 1, -1)
    table = last.reshape(-1, channels).astype(np.float64)
    above = np.moveaxis(dy, 1, -1).reshape(-1, channels).astype(np.float64)
    std = np.sqrt(table.var(0) + eps)
    x_hat = (table - table.mean(0)) / std
    dx_hat = above * weight.astype(np.float64)
    dx = (dx_hat - dx_hat.mean(0) - x_hat * (dx_hat * x_hat).mean(0)) / std
    dx = np.moveaxis(dx.reshape(last.shape), -1, 1)
    return dx.astype(x.dtype), (above * x_hat).sum(0).astype(x.dtype), above.sum(0).astype(x.dtype)


def channel_by_channel(dy, x, weight, eps=1e-5):
    dx = np.zeros(x.shape, x.dtype)
    dweight, dbias = np.zeros_like(weight), np.zeros_like(weight)
    for c in range(x.shape[1]):
        values, above = x[:, c].astype(float), dy[:, c].astype(float)
        deviation = values - values.mean()
        rstd = 1 / math.sqrt((deviation**2).mean() + eps)
        x_hat = deviation * rstd
        g = above * float(weight[c])
        dx[:, c] = rstd * (g - g.mean() - x_hat * (g * x_hat).mean())
        dweight[c], dbias[c] = (above * x_hat).sum(), above.sum()
    return dx, dweight, dbias


def rows_of_channels(dy, x, weight, eps=1e-5):
    wide = np.promote_types(x.dtype, np.float32)
    rows = np.swapaxes(x, 0, 1).reshape(x.shape[1], -1).astype(wide)
    above = np.swapaxes(dy, 0, 1).reshape(x.shape[1], -1).astype(wide)
    rows = rows - rows.mean(1, keepdims=True)
    n = rows.shape[1]
    rstd = 1 / np.sqrt(np.einsum("cn,cn->c", rows, rows) / n + wide.type(eps))
    dbias = above.sum(1)
    dweight = np.einsum("cn,cn->c", above, rows) * rstd
    dx = (above - (dbias / n)[:, None] - rows * (dweight * rstd / n)[:, None]) * (weight * rstd)[:, None]
    swapped = (x.shape[1], x.shape[0], *x.shape[2:])
    dx = np.swapaxes(dx.reshape(swapped), 0, 1)
    return dx.astype(x.dtype), dweight.astype(x.dtype), dbias.astype(x.dtype)


def step_by_step(dy, x, weight, eps=1e-5):
    axes = (0, *range(2, x.ndim))
    spread = (slice(None),) + (None,) * (x.ndim - 2)
    n = x.size // x.shape[1]
    dy_, x_ = dy.astype(np.float64), x.astype(np.float64)
    deviation = x_ - x_.mean(axes)[spread]
    var = (deviation**2).mean(axes)
    rstd = (var + eps) ** -0.5
    dx_hat = dy_ * weight.astype(np.float64)[spread]
    dvar = (dx_hat * deviation).sum(axes) * -0.5 * rstd**3
    dmean = -dx_hat.sum(axes) * rstd
    dx = dx_hat * rstd[spread] + dvar[spread] * 2 * deviation / n + dmean[spread] / n
    dweight = (dy_ * deviation).sum(axes) * rstd
    return dx.astype(x.dtype), dweight.astype(x.dtype), dy_.sum(axes).astype(x.dtype)


def letters(dy, x, weight, eps=1e-5):
    """einsum over (N, C, S)."""
    shape = (x.shape[0], x.shape[1], -1)
    x_, dy_ = x.reshape(shape).astype(np.float64), dy.reshape(shape).astype(np.float64)
    n = x_.shape[0] * x_.shape[2]
    x_ = x_ - np.einsum("ncs->c", x_)[:, None] / n
    rstd = 1 / np.sqrt(np.einsum("ncs,ncs->c", x_, x_) / n + eps)
    x_hat = np.einsum("ncs,c->ncs", x_, rstd)
    g = np.einsum("ncs,c->ncs", dy_, weight.astype(np.float64))
    along = np.einsum("ncs,ncs->c", g, x_hat) / n
    inside = g - np.einsum("ncs->c", g)[:, None] / n - x_hat * along[:, None]
    dx = np.einsum("ncs,c->ncs", inside, rstd).reshape(x.shape)
    dweight, dbias = np.einsum("ncs,ncs->c", dy_, x_hat), np.einsum("ncs->c", dy_)
    return dx.astype(x.dtype), dweight.astype(x.dtype), dbias.astype(x.dtype)


def jacobians(dy, x, weight, eps=1e-5):
    """The whole Jacobian of each channel, as a matrix."""
    order = (1, 0, *range(2, x.ndim))
    rows = np.transpose(x, order).reshape(x.shape[1], -1).astype(float)
    above = np.transpose(dy, order).reshape(x.shape[1], -1).astype(float)
    n = rows.shape[1]
    dx, dweight = np.empty_like(rows), []
    for c, (row, cotangent) in enumerate(zip(rows, above, strict=True)):
        row = row - row.mean()
        rstd = (row @ row / n + eps) ** -0.5
        row = row * rstd
        dx[c] = rstd * float(weight[c]) * (np.eye(n) - 1 / n - np.outer(row, row) / n) @ cotangent
        dweight.append(cotangent @ row)
    dx = dx.reshape([x.shape[i] for i in order]).transpose(order)
    return dx.astype(x.dtype), np.array(dweight, x.dtype), above.sum(1).astype(x.dtype)


STYLES = [
    axes_and_shape,
    weight_at_the_end,
    channels_to_the_end,
    channel_by_channel,
    rows_of_channels,
    step_by_step,
    letters,
    jacobians,
]
