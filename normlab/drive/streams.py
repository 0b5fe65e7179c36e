"""How functions of streams are used: what they get can be looked at once, and what they hold meanwhile is measured."""

import contextlib
import sys
import tracemalloc

from normlab.drive import Misfit, Once, tensors_held

MANY = 200  # from so many pieces on, memory is measured


def variance(candidate, values):
    """The candidate gets an iterator: a second loop over it finds nothing, as with any iterator that has run out. (It
    does not raise: itertools.islice, called until nothing is left, looks once more too, and is right.)"""
    return candidate(Once(values.tolist()))


def _within(budget, call):
    """call(), during which NumPy, Python and PyTorch together may hold `budget` bytes. Errors: Misfit."""
    started, torch = not tracemalloc.is_tracing(), sys.modules.get("torch")
    if started:
        tracemalloc.start(1)
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        with tensors_held(torch) if torch else contextlib.nullcontext() as tensors:
            answer = call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        if started:
            tracemalloc.stop()
    if max(peak - before, tensors.peak if tensors else 0) > budget:
        raise Misfit("holds more than that: what is kept must not grow with the length of the stream")
    return answer


def online_softmax(candidate, chunks):
    """A quarter of what all chunks together take is the most that may be held."""

    def call(some):
        return candidate(Once(chunk.copy() for chunk in some))

    if len(chunks) < MANY:
        return call(chunks)
    call(chunks[:2])  # what a first call loads is not held against it
    return _within(sum(chunk.nbytes for chunk in chunks) // 4, lambda: call(chunks))


def attention(candidate, q, key_value_blocks, scale, mask_blocks=None):
    """A quarter of the score matrix is the most that may be held. Blocks are made when they are asked for."""

    def call(count):
        blocks = Once((k.copy(), v.copy()) for k, v in key_value_blocks[:count])
        if mask_blocks is None:
            return candidate(q, blocks, scale)
        return candidate(q, blocks, scale, mask_blocks=Once(mask.copy() for mask in mask_blocks[:count]))

    count = len(key_value_blocks)
    if count < MANY:
        return call(count)
    call(2)
    scores = len(q) * sum(len(k) for k, _ in key_value_blocks)
    return _within(scores * q.itemsize // 4, lambda: call(count))
