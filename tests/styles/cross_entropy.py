"""Right solutions of cross_entropy in different styles."""

import math

import numpy as np


def pick_the_kept_rows(logits, target, ignore_index=-100):
    kept = target != ignore_index
    x = logits[kept].astype(np.promote_types(logits.dtype, np.float32))
    if len(x) == 0:
        return logits.dtype.type(np.nan)
    x = x - x.max(axis=1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(x)), target[kept]].mean()


def mean_of_nothing(logits, target, ignore_index=-100):
    """NumPy's mean of an empty array is NaN already."""
    x, t = logits[target != ignore_index].astype(np.float64), target[target != ignore_index]
    own = np.take_along_axis(x, t[:, None].astype(np.int64), axis=1)[:, 0]
    return float(np.mean(np.logaddexp.reduce(x, axis=1) - own))


def row_by_row(logits, target, ignore_index=-100):
    losses = []
    for row, t in zip(logits.astype(float), target, strict=True):
        if t == ignore_index:
            continue
        top = row.max()
        losses.append(top + math.log(sum(np.exp(row - top))) - row[t])
    return sum(losses) / len(losses) if losses else float("nan")


def one_hot(logits, target, ignore_index=-100):
    """-sum(y log p), with 0 log 0 = 0."""
    kept = np.flatnonzero(target != ignore_index)
    x = logits[kept].astype(np.float64)
    y = np.eye(logits.shape[1])[target[kept]]
    x = x - x.max(1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    return np.sum(np.where(y > 0, -log_p, 0.0)) / np.float64(len(kept))


def masked_mean(logits, target, ignore_index=-100):
    counts = target != ignore_index
    safe = np.where(counts, target, 0)
    w = logits.astype(np.promote_types(logits.dtype, np.float32))
    top = w.max(axis=1)
    total = top + np.log(np.exp(w - top[:, None]).sum(axis=1))
    losses = np.where(counts, total - w[np.arange(len(w)), safe], 0)
    return (losses.sum() / counts.sum()).astype(logits.dtype)


def differences_to_the_right_class(logits, target, ignore_index=-100):
    """log(1 + sum(exp(x - x_t))) of each row: how far the others lie above the right class."""
    kept = np.flatnonzero(target != ignore_index)
    x = logits.astype(np.float64)
    losses = np.empty(len(kept))
    for i, n in enumerate(kept):
        others = np.delete(x[n], target[n]) - x[n, target[n]]
        losses[i] = np.logaddexp.reduce(np.append(others, 0.0))
    return losses.mean()


def masked_array(logits, target, ignore_index=-100):
    w = np.array(logits, np.float64)
    shifted = w - w.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1))[:, None]
    picked = [log_p[n, k] if k != ignore_index else np.nan for n, k in enumerate(target)]
    losses = np.ma.array(-np.array(picked), mask=target == ignore_index)
    return float(losses.mean()) if losses.count() else np.nan


def in_torch(logits, target, ignore_index=-100):
    import torch

    x = torch.tensor(np.ascontiguousarray(logits, dtype=np.float64))
    t = torch.tensor(np.ascontiguousarray(target, dtype=np.int64))
    x, t = x[t != ignore_index], t[t != ignore_index]
    x = x - x.amax(1, keepdim=True)
    return (x.exp().sum(1).log() - x.gather(1, t[:, None])[:, 0]).mean().item()


STYLES = [
    pick_the_kept_rows,
    mean_of_nothing,
    row_by_row,
    one_hot,
    masked_mean,
    differences_to_the_right_class,
    masked_array,
    in_torch,
]
