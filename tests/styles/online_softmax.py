"""Right solutions of online_softmax in different styles."""

import functools
import math

import numpy as np


def chunk_by_chunk(chunks):
    maximum, normalizer = -np.inf, 0.0
    for chunk in chunks:
        wide = chunk.astype(np.promote_types(chunk.dtype, np.float32))
        new = max(maximum, wide.max(initial=-np.inf))
        if new == -np.inf:
            continue
        normalizer = normalizer * np.exp(maximum - new) + np.exp(wide - new).sum()
        maximum = new
    return float(maximum), float(normalizer)


def element_by_element(chunks):
    top, total = -math.inf, 0.0
    for chunk in chunks:
        for value in chunk.tolist():
            if value == -math.inf:
                continue
            if value > top:
                total = total * math.exp(top - value) + 1.0
                top = value
            else:
                total += math.exp(value - top)
    return top, total


def merged_pairs(chunks):
    """(maximum, normalizer) of every chunk, merged two by two: the order of a fold."""

    def state(chunk):
        finite = chunk[chunk > -np.inf].astype(float)
        if not finite.size:
            return -math.inf, 0.0
        return float(finite.max()), float(np.exp(finite - finite.max()).sum())

    def merge(a, b):
        top = max(a[0], b[0])
        if top == -math.inf:
            return top, 0.0
        return top, a[1] * math.exp(a[0] - top) + b[1] * math.exp(b[0] - top)

    return functools.reduce(merge, map(state, chunks), (-math.inf, 0.0))


def through_logsumexp(chunks):
    """The running logsumexp; the normalizer is what it has more than the maximum."""
    top, log_total = -np.inf, -np.inf
    for chunk in chunks:
        wide = chunk.astype(np.float64)
        top = np.max(wide, initial=top)
        log_total = np.logaddexp(log_total, np.logaddexp.reduce(wide, initial=-np.inf))
    return float(top), float(np.exp(log_total - top)) if top > -np.inf else 0.0


def three_cases(chunks):
    maximum = normalizer = None
    for chunk in chunks:
        chunk = np.asarray(chunk, np.float64)
        if chunk.size == 0 or np.isneginf(chunk).all():
            continue
        here = chunk.max()
        if maximum is None:
            maximum, normalizer = here, np.exp(chunk - here).sum()
        elif here > maximum:
            normalizer = normalizer * np.exp(maximum - here) + np.exp(chunk - here).sum()
            maximum = here
        else:
            normalizer += np.exp(chunk - maximum).sum()
    return (-math.inf, 0.0) if maximum is None else (maximum, normalizer)


def with_next(chunks):
    """By next(), and NumPy scalars as the answer."""
    top, total = np.float64(-np.inf), np.float64(0)
    while (chunk := next(chunks, None)) is not None:
        both = np.append(chunk.astype(np.float64), top)
        new = both.max()
        weights = np.append(np.ones(chunk.size), total)
        if new > -np.inf:
            total = weights @ np.exp(both - new)
            top = new
    return top, total


def in_blocks(chunks, size=500):
    """Collects some hundred values before each update: looser with memory, and right."""
    held, count, top, total = [], 0, -np.inf, 0.0

    def update(values):
        nonlocal top, total
        new = max(top, values.max(initial=-np.inf))
        if new > -np.inf:
            total = total * np.exp(top - new) + np.exp(values - new).sum()
            top = new

    for chunk in chunks:
        held.append(chunk.astype(np.float64))
        count += len(chunk)
        if count > size:
            update(np.concatenate(held))
            held, count = [], 0
    if held:
        update(np.concatenate(held))
    return float(top), float(total)


def in_torch(chunks):
    import torch

    top, total = torch.tensor(-torch.inf, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    for chunk in chunks:
        t = torch.cat([torch.from_numpy(chunk.astype(np.float64)), top[None]])
        new = t.max()
        if new == -torch.inf:
            continue
        total = total * torch.exp(top - new) + torch.exp(t[:-1] - new).sum()
        top = new
    return top.item(), total.item()


STYLES = [
    chunk_by_chunk,
    element_by_element,
    merged_pairs,
    through_logsumexp,
    three_cases,
    with_next,
    in_blocks,
    in_torch,
]
