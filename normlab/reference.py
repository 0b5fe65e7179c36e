"""The formulas, forward and backward, in NumPy: five norms, softmax, log-softmax and cross entropy.

Everything is computed in the dtype of its first argument; in float64 it is the truth where PyTorch is not at hand (a
test holds it against PyTorch on every case). Each backward stands under its forward. Labels in brackets name the
equations of the book.
"""

import numpy as np

from normlab.axes import NORMS, ngds_shape, pooled_axes


def _pools(x, norm, weight, num_groups, normalized_shape):
    """x as (N, G, D, S), its pooled axes, and weight broadcast against it (1 where None)."""
    shape = ngds_shape(x.shape, norm, num_groups, normalized_shape)
    weight = x.dtype.type(1) if weight is None else np.reshape(weight, (1, *shape[1:3], 1))
    return x.reshape(shape), pooled_axes(norm), weight


def _x_hat(v, norm, axis, eps):
    """Normalized values and 1/sigma of each pool (keepdims). x_hat = (x - mean) / sqrt(mean((x - mean)^2) + eps)."""
    centered = v - v.mean(axis, keepdims=True) if NORMS[norm].centered else v
    rstd = 1 / np.sqrt((centered * centered).mean(axis, keepdims=True) + v.dtype.type(eps))
    return centered * rstd, rstd


def normalize(x, norm, weight=None, bias=None, eps=1e-5, num_groups=1, normalized_shape=None):
    """y = x_hat * weight + bias  [eq-normalize].

    x: floating array, (N, C, positions...) for batch, instance and group norm, (..., channels) for layer and rms norm.
    norm: a key of NORMS. weight, bias: one number a channel, or None for 1 and 0. eps: added to the variance (or to
    the mean square), in the units of x squared. Returns an array like x.
    Errors: ValueError as ngds_shape.

    >>> normalize(np.array([[1.0, 3.0]]), "layer", eps=0.0)
    array([[-1.,  1.]])
    """
    v, axis, w = _pools(x, norm, weight, num_groups, normalized_shape)
    x_hat, _ = _x_hat(v, norm, axis, eps)
    y = x_hat * w
    if bias is not None:
        y = y + np.reshape(bias, (1, *v.shape[1:3], 1))
    return y.reshape(x.shape)


def normalize_backward(dy, x, norm, weight=None, eps=1e-5, num_groups=1, normalized_shape=None):
    """Gradients of sum(y * dy): (dx like x, dweight, dbias one number a channel, in the shape of `weight`).

    With g = dy * weight, dx = rstd * (g - mean(g) - x_hat * mean(g * x_hat)), means over the pool: g projected off the
    constants and off x_hat (off x_hat alone where the norm is not centered).
    """
    v, axis, w = _pools(x, norm, weight, num_groups, normalized_shape)
    dy = dy.reshape(v.shape)
    x_hat, rstd = _x_hat(v, norm, axis, eps)
    g = dy * w
    g_mean = g.mean(axis, keepdims=True) if NORMS[norm].centered else 0
    dx = rstd * (g - g_mean - x_hat * (g * x_hat).mean(axis, keepdims=True))
    per_channel = v.shape[1] * v.shape[2] if weight is None else np.shape(weight)
    dweight, dbias = (dy * x_hat).sum((0, 3)), dy.sum((0, 3))
    return dx.reshape(x.shape), dweight.reshape(per_channel), dbias.reshape(per_channel)


def softmax(x, axis=-1):
    """p = exp(x - max) / sum(exp(x - max)) along `axis`  [eq-softmax]. An array like x.

    >>> softmax(np.log([1.0, 3.0]))
    array([0.25, 0.75])
    """
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def softmax_backward(dy, y, axis=-1):
    """dx = y * (dy - sum(y * dy)), for y = softmax(x) and the gradient dy of the loss with respect to y."""
    return y * (dy - (y * dy).sum(axis, keepdims=True))


def logsumexp(x, axis=-1):
    """log(sum(exp(x))) along `axis`, which is dropped  [eq-logsumexp].

    The maximum is taken out first, but an infinite one is not: inf - inf has no value.
    """
    top = x.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, x.dtype.type(0))
    return (np.log(np.exp(x - top).sum(axis, keepdims=True)) + top).squeeze(axis)


def log_softmax(x, axis=-1):
    """log p = (x - max) - log(sum(exp(x - max))): the log is taken of a sum that is at least 1. An array like x."""
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def log_softmax_backward(dy, y, axis=-1):
    """dx = dy - softmax(x) * sum(dy), for y = log_softmax(x)."""
    return dy - np.exp(y) * dy.sum(axis, keepdims=True)


def cross_entropy(logits, target, ignore_index=-100):
    """Mean of -log softmax(logits)[target] over the rows whose target is not `ignore_index`; NaN when none is left.

    logits: (N, K); target: (N,) integers in 0..K-1 or ignore_index. Returns a scalar of the logits' dtype.
    """
    kept = np.flatnonzero(target != ignore_index)
    if not len(kept):
        return logits.dtype.type(np.nan)
    return -log_softmax(logits)[kept, target[kept]].mean()


def cross_entropy_backward(logits, target, ignore_index=-100):
    """dlogits = (softmax(logits) - onehot(target)) / kept, zero in ignored rows. An array like logits."""
    kept = np.flatnonzero(target != ignore_index)
    dlogits = np.zeros_like(logits)
    dlogits[kept] = softmax(logits[kept])
    dlogits[kept, target[kept]] -= 1
    return dlogits / max(len(kept), 1)
