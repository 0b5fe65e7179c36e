"""Right solutions of cross_entropy_backward in different styles."""

import numpy as np


def kept_rows(logits, target, ignore_index=-100):
    kept = np.flatnonzero(target != ignore_index)
    w = logits.astype(np.promote_types(logits.dtype, np.float32))
    e = np.exp(w - w.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    p[kept, target[kept]] -= 1
    p[target == ignore_index] = 0
    return (p / max(len(kept), 1)).astype(logits.dtype)


def one_hot(logits, target, ignore_index=-100):
    counts = target != ignore_index
    x = logits.astype(np.float64)
    y = np.eye(logits.shape[1])[np.where(counts, target, 0)]
    e = np.exp(x - x.max(axis=1)[:, None])
    p = e / e.sum(axis=1)[:, None]
    return ((p - y) * counts[:, None] / max(counts.sum(), 1)).astype(logits.dtype)


def row_by_row(logits, target, ignore_index=-100):
    dlogits = np.zeros(logits.shape, logits.dtype)
    kept = [n for n, t in enumerate(target) if t != ignore_index]
    for n in kept:
        row = logits[n].astype(float)
        p = np.exp(row - np.logaddexp.reduce(row))
        p[target[n]] -= 1
        dlogits[n] = p / len(kept)
    return dlogits


def divide_first(logits, target, ignore_index=-100):
    """Each row that counts has weight 1/n; the others 0."""
    counts = (target != ignore_index).astype(np.float64)
    weight = counts / counts.sum() if counts.any() else counts
    x = logits.astype(np.float64)
    p = np.exp(x - x.max(1, keepdims=True))
    dlogits = p * (weight / p.sum(1))[:, None]
    np.subtract.at(dlogits, (np.arange(len(x)), np.where(counts > 0, target, 0)), weight)
    return dlogits.astype(logits.dtype)


def comparison(logits, target, ignore_index=-100):
    """The one-hot target as a comparison of class numbers."""
    w = logits.astype(np.result_type(logits, np.float32))
    top = w.max(1, keepdims=True)
    p = np.exp(w - top - np.log(np.exp(w - top).sum(1, keepdims=True)))
    y = np.arange(w.shape[1]) == target[:, np.newaxis]
    kept = target != ignore_index
    count = kept.sum()
    if count == 0:
        return np.zeros_like(logits, order="C")
    return np.where(kept[:, None], (p - y) / w.dtype.type(count), 0).astype(logits.dtype)


def chain_rule(logits, target, ignore_index=-100):
    """Back through the mean and through log_softmax: dlogits = g - p * sum(g)."""
    x = logits.astype(np.float64)
    p = np.exp(x - np.logaddexp.reduce(x, axis=1, keepdims=True))
    kept = np.flatnonzero(target != ignore_index)
    g = np.zeros_like(x)
    if len(kept):
        g[kept, target[kept]] = -1 / len(kept)
    return (g - p * g.sum(1, keepdims=True)).astype(logits.dtype)


def minus_the_others(logits, target, ignore_index=-100):
    """At the right class, minus the sum of the other probabilities: no 1 is subtracted, so nothing cancels."""
    x = logits.astype(np.float64)
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    kept = [int(n) for n in np.flatnonzero(target != ignore_index)]
    answer = np.zeros_like(p)
    for n in kept:
        t = int(target[n])
        answer[n] = p[n]
        answer[n, t] = -(p[n, :t].sum() + p[n, t + 1 :].sum())
    return (answer / (len(kept) or 1)).astype(logits.dtype)


STYLES = [kept_rows, one_hot, row_by_row, divide_first, comparison, chain_rule, minus_the_others]
