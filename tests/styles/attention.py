"""Right solutions of attention in different styles."""

import itertools
import math

import numpy as np


def plain_update(q, key_value_blocks, scale, mask_blocks=None):
    w = q.astype(np.promote_types(q.dtype, np.float32))
    top = np.full((len(w), 1), -np.inf, w.dtype)
    total, out = np.zeros_like(top), 0
    for k, v in key_value_blocks:
        scores = w @ k.astype(w.dtype).T * w.dtype.type(scale)
        if mask_blocks is not None:
            scores = np.where(next(mask_blocks), scores, w.dtype.type(-np.inf))
        new = np.maximum(top, scores.max(axis=1, keepdims=True))
        safe = np.where(new == -np.inf, w.dtype.type(0), new)
        p, factor = np.exp(scores - safe), np.exp(top - safe)
        total = total * factor + p.sum(axis=1, keepdims=True)
        out = out * factor + p @ v
        top = new
    return np.divide(out, total, out=np.zeros_like(out), where=total > 0).astype(q.dtype)


def query_by_query(q, key_value_blocks, scale, mask_blocks=None):
    """All in Python floats, with a state for each query."""
    rows, states = q.tolist(), None
    masks = mask_blocks or itertools.repeat(None)
    for (k, v), mask in zip(key_value_blocks, masks, strict=False):
        keys, values = k.tolist(), v.tolist()
        if states is None:
            states = [[-math.inf, 0.0, [0.0] * len(values[0])] for _ in rows]
        for i, (row, state) in enumerate(zip(rows, states, strict=True)):
            for j, (key, value) in enumerate(zip(keys, values, strict=True)):
                if mask is not None and not mask[i, j]:
                    continue
                score = scale * sum(map(float.__mul__, row, key))
                if score > state[0]:
                    factor = math.exp(state[0] - score)
                    state[0], state[1] = score, state[1] * factor + 1.0
                    state[2] = [a * factor + b for a, b in zip(state[2], value, strict=True)]
                else:
                    weight = math.exp(score - state[0])
                    state[1] += weight
                    state[2] = [a + weight * b for a, b in zip(state[2], value, strict=True)]
    return np.array([[a / s[1] for a in s[2]] if s[1] else s[2] for s in states]).astype(q.dtype)


def running_average(q, key_value_blocks, scale, mask_blocks=None):
    """The output is an average at every moment, and logsumexps weigh the old one against the block's."""
    w = q.astype(np.float64)
    log_total, out = np.full(len(w), -np.inf), None
    for k, v in key_value_blocks:
        scores = np.einsum("md,bd->mb", w, k.astype(np.float64)) * scale
        if mask_blocks is not None:
            scores[~next(mask_blocks)] = -np.inf
        here = np.logaddexp.reduce(scores, axis=1)
        new = np.logaddexp(log_total, here)
        base = np.where(np.isneginf(new), 0, new)
        fresh = np.einsum("mb,be->me", np.exp(scores - base[:, None]), v.astype(np.float64))
        out = fresh if out is None else out * np.exp(log_total - base)[:, None] + fresh
        log_total = new
    return out.astype(q.dtype)


def ones_beside_the_values(q, key_value_blocks, scale, mask_blocks=None):
    """A column of ones makes the normalizer one more output."""
    w = q.astype(np.float64) * scale
    top, sums = np.full(len(w), -np.inf), None
    for block in key_value_blocks:
        k, v = (part.astype(np.float64) for part in block)
        scores = (k @ w.T).T
        keep = np.ones(scores.shape, bool) if mask_blocks is None else next(mask_blocks)
        scores = np.where(keep, scores, -np.inf)
        new = np.maximum(top, scores.max(1))
        safe = np.where(new > -np.inf, new, 0.0)[:, None]
        fresh = np.exp(scores - safe) @ np.hstack([v, np.ones((len(v), 1))])
        sums = fresh if sums is None else sums * np.exp(top[:, None] - safe) + fresh
        top = new
    return (sums[:, :-1] / np.maximum(sums[:, -1:], np.finfo(float).tiny)).astype(q.dtype)


def merge_of_states(q, key_value_blocks, scale, mask_blocks=None):
    """The state of a block, and the merge of two states."""

    def state(k, v, mask):
        scores = w @ k.T.astype(w.dtype) * w.dtype.type(scale)
        scores = scores if mask is None else np.where(mask, scores, w.dtype.type(-np.inf))
        top = scores.max(1)
        p = np.exp(scores - np.where(np.isfinite(top), top, w.dtype.type(0))[:, None])
        return top, p.sum(1), p @ v.astype(w.dtype)

    def merge(a, b):
        top = np.maximum(a[0], b[0])
        safe = np.where(np.isfinite(top), top, w.dtype.type(0))
        fa, fb = np.exp(a[0] - safe), np.exp(b[0] - safe)
        return top, a[1] * fa + b[1] * fb, a[2] * fa[:, None] + b[2] * fb[:, None]

    w = q.astype(np.promote_types(q.dtype, np.float32))
    whole = None
    for k, v in key_value_blocks:
        part = state(k, v, None if mask_blocks is None else next(mask_blocks))
        whole = part if whole is None else merge(whole, part)
    _, total, out = whole
    return (out / np.where(total > 0, total, w.dtype.type(1))[:, None]).astype(q.dtype)


def only_where_it_grew(q, key_value_blocks, scale, mask_blocks=None):
    """Rescales in place, those queries alone whose maximum grew."""
    w = q.astype(np.float64)
    top, total, out = np.full(len(w), -np.inf), np.zeros(len(w)), None
    for k, v in key_value_blocks:
        scores = w @ k.T.astype(np.float64) * scale
        if mask_blocks is not None:
            np.putmask(scores, ~next(mask_blocks), -np.inf)
        if out is None:
            out = np.zeros((len(w), v.shape[1]))
        here = scores.max(1)
        grew = here > top
        factor = np.exp(top[grew] - here[grew])
        total[grew] *= factor
        out[grew] *= factor[:, None]
        top[grew] = here[grew]
        some = top > -np.inf
        p = np.exp(scores[some] - top[some, None])
        total[some] += p.sum(1)
        out[some] += p @ v
    total[total == 0] = 1
    return (out / total[:, None]).astype(q.dtype)


def several_blocks_at_once(q, key_value_blocks, scale, mask_blocks=None):
    """Joins up to eight blocks before each update: looser with memory, and right."""
    blocks = iter(key_value_blocks)
    masks = None if mask_blocks is None else iter(mask_blocks)

    def joined():
        while some := list(itertools.islice(blocks, 8)):
            yield tuple(np.concatenate(parts) for parts in zip(*some, strict=True))

    def joined_masks():
        while some := list(itertools.islice(masks, 8)):
            yield np.concatenate(some, axis=1)

    return plain_update(q, joined(), scale, None if masks is None else joined_masks())


def in_torch(q, key_value_blocks, scale, mask_blocks=None):
    import torch

    w = torch.from_numpy(np.ascontiguousarray(q, np.float64))
    top, total, out = torch.full((len(w),), -torch.inf, dtype=w.dtype), torch.zeros(len(w), dtype=w.dtype), None
    for k, v in key_value_blocks:
        k, v = (torch.from_numpy(np.ascontiguousarray(part, np.float64)) for part in (k, v))
        scores = w @ k.T * scale
        if mask_blocks is not None:
            scores = scores.masked_fill(~torch.from_numpy(np.ascontiguousarray(next(mask_blocks))), -torch.inf)
        new = torch.maximum(top, scores.amax(1))
        safe = new.masked_fill(new == -torch.inf, 0.0)
        p, factor = torch.exp(scores - safe[:, None]), torch.exp(top - safe)
        total = total * factor + p.sum(1)
        out = p @ v if out is None else out * factor[:, None] + p @ v
        top = new
    return (out / total.masked_fill(total == 0, 1.0)[:, None]).numpy().astype(q.dtype)


STYLES = [
    plain_update,
    query_by_query,
    running_average,
    ones_beside_the_values,
    merge_of_states,
    only_where_it_grew,
    several_blocks_at_once,
    in_torch,
]
