"""Right solutions of group_norm in different styles."""

import numpy as np


def check_groups(x, num_groups):
    if x.shape[1] % num_groups != 0:
        raise ValueError(f"{num_groups} groups do not divide {x.shape[1]} channels")


def grouped_axes(x, num_groups, weight=None, bias=None, eps=1e-5):
    check_groups(x, num_groups)
    wide = np.promote_types(x.dtype, np.float32)
    v = x.reshape(len(x), num_groups, -1).astype(wide)
    v = (v - v.mean(2, keepdims=True)) / np.sqrt(v.var(2, keepdims=True) + wide.type(eps))
    y = v.reshape(*x.shape[:2], -1)
    y = y if weight is None else y * weight.reshape(-1, 1)
    y = y if bias is None else y + bias.reshape(-1, 1)
    return y.reshape(x.shape).astype(x.dtype)


def split_and_join(x, num_groups, weight=None, bias=None, eps=1e-5):
    check_groups(x, num_groups)
    parts = []
    for part in np.split(x.astype(np.float64), num_groups, axis=1):
        axes = tuple(range(1, part.ndim))
        part = part - part.mean(axes, keepdims=True)
        parts.append(part / np.sqrt(np.square(part).mean(axes, keepdims=True) + eps))
    y = np.moveaxis(np.concatenate(parts, axis=1), 1, -1)
    if weight is not None:
        y = y * weight
    if bias is not None:
        y = y + bias
    return np.moveaxis(y, -1, 1).astype(x.dtype)


def pooling_matrix(x, num_groups, weight=None, bias=None, eps=1e-5):
    """Averages over neighboring channels are a block diagonal matrix; those over positions are plain means."""
    check_groups(x, num_groups)
    channels = x.shape[1]
    block = channels // num_groups
    average = np.kron(np.eye(num_groups), np.full((block, block), 1 / block))
    v = x.astype(np.float64).reshape(len(x), channels, -1)
    d = v - np.matmul(average, v.mean(2)[..., None])
    rstd = (average @ (d * d).mean(2)[..., None] + eps) ** -0.5
    gamma = np.ones(channels) if weight is None else weight
    beta = np.zeros(channels) if bias is None else bias
    return (d * rstd * gamma[:, None] + beta[:, None]).reshape(x.shape).astype(x.dtype)


def folded(x, num_groups, weight=None, bias=None, eps=1e-5):
    check_groups(x, num_groups)
    w = x.astype(np.result_type(x.dtype, np.float32))
    block = x.shape[1] // num_groups
    pools = w.reshape(len(x) * num_groups, -1)
    rstd = np.reciprocal(np.sqrt(pools.var(1) + w.dtype.type(eps)))
    scale = np.repeat(rstd.reshape(len(x), num_groups), block, axis=1)
    shift = -np.repeat(pools.mean(1).reshape(len(x), num_groups), block, axis=1) * scale
    if weight is not None:
        scale, shift = scale * weight, shift * weight
    if bias is not None:
        shift = shift + bias
    along = (...,) + (None,) * (x.ndim - 2)
    return (w * scale[along] + shift[along]).astype(x.dtype)


def loops(x, num_groups, weight=None, bias=None, eps=1e-5):
    check_groups(x, num_groups)
    y, block = np.array(x, dtype=np.float64), x.shape[1] // num_groups
    for n in range(x.shape[0]):
        for first in range(0, x.shape[1], block):
            group = y[n, first : first + block]
            group -= group.mean()
            group /= np.sqrt(np.vdot(group, group) / group.size + eps)
    for c in range(x.shape[1]):
        y[:, c] *= 1 if weight is None else weight[c]
        y[:, c] += 0 if bias is None else bias[c]
    return y.astype(x.dtype)


STYLES = [grouped_axes, split_and_join, pooling_matrix, folded, loops]
