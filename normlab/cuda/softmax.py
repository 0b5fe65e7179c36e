"""Softmax and its logarithm, forward and backward, along rows (the last axis) and along columns (another axis).

For columns x is (outer, length, inner): neighbors in memory belong to different pools, and a program takes INNER of
them side by side, so that a warp still reads what lies together. With inner = 1 the same kernels serve the rows that no
program can hold.

A long pool is looked at in pieces. Maximum and normalizer are then kept lane by lane and merged in the end: online
softmax. A lane that has seen nothing but -inf has the maximum -inf, and -inf - (-inf) would be NaN: 0 stands in for it,
so that exp(-inf - 0) = 0. A whole pool of -inf is NaN all the same, as in PyTorch.
"""

import triton
import triton.language as tl


@triton.jit
def finite(top):
    """A maximum, or 0 for that of nothing but -inf."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def grown(top, total, x):
    """(maximum, normalizer) of each lane after it has seen one more number."""
    new = tl.maximum(top, x)
    return new, total * tl.exp(top - finite(new)) + tl.exp(x - finite(new))


@triton.jit
def merged(top, total, axis: tl.constexpr):
    """(maximum, normalizer) of all lanes along an axis."""
    new = tl.max(top, axis=axis, keep_dims=True)
    return new, tl.sum(total * tl.exp(top - finite(new)), axis=axis, keep_dims=True)


@triton.jit
def of_whole(x, axis: tl.constexpr, LOG: tl.constexpr):
    """Softmax of a tile that holds whole pools, with -inf where it reaches beyond them."""
    x -= tl.max(x, axis=axis, keep_dims=True)
    e = tl.exp(x)
    total = tl.sum(e, axis=axis, keep_dims=True)
    return x - tl.log(total) if LOG else e / total


@triton.jit
def along(dy, y, LOG: tl.constexpr):
    """What the backward sums over each pool."""
    return dy if LOG else dy * y


@triton.jit
def gradient(dy, y, total, LOG: tl.constexpr):
    """dx, given that sum."""
    return dy - tl.exp(y) * total if LOG else y * (dy - total)


@triton.jit
def columns_of(tile, INNER: tl.constexpr):
    """Where the columns of a tile stand. Only with a plain 0 does Triton see that a single column is aligned."""
    if INNER == 1:
        return tl.zeros((1, 1), tl.int32)
    else:
        return tile * INNER + tl.arange(0, INNER)[None, :]


@triton.jit
def softmax_rows(x_ptr, y_ptr, x_stride, rows, size, LOG: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """y = exp(x - max) / sum exp(x - max)  [eq-softmax], ROWS whole rows a program: x is read once."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < size)
    x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=float("-inf")).to(tl.float32)
    tl.store(y_ptr + row * size + column, of_whole(x, 1, LOG), mask=inside)


@triton.jit
def softmax_columns(
    x_ptr,
    y_ptr,
    x_stride,
    length,
    inner,
    LOG: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):
    """The same along the middle axis of (outer, length, inner), of which x has stride x_stride on the outer one.

    x is read once if BLOCK covers `length` (WHOLE), else twice.
    """
    tiles = tl.cdiv(inner, INNER)  # a grid is long in its first axis alone, so both numbers share that one
    column = columns_of(tl.program_id(0) % tiles, INNER)
    outer = (tl.program_id(0) // tiles).to(tl.int64)
    x_ptr += outer * x_stride + column
    y_ptr += outer * length * inner + column
    if WHOLE:
        line = tl.arange(0, BLOCK)[:, None]
        inside = (line < length) & (column < inner)
        x = tl.load(x_ptr + line.to(tl.int64) * inner, mask=inside, other=float("-inf")).to(tl.float32)
        tl.store(y_ptr + line.to(tl.int64) * inner, of_whole(x, 0, LOG), mask=inside)
    else:
        top = tl.full((BLOCK, INNER), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK, INNER), tl.float32)
        for start in range(0, length, BLOCK):
            line = start + tl.arange(0, BLOCK)[:, None]
            inside = (line < length) & (column < inner)
            x = tl.load(x_ptr + line.to(tl.int64) * inner, mask=inside, other=float("-inf")).to(tl.float32)
            top, total = grown(top, total, x)
        highest, normalizer = merged(top, total, 0)
        for start in range(0, length, BLOCK):
            line = start + tl.arange(0, BLOCK)[:, None]
            inside = (line < length) & (column < inner)
            x = tl.load(x_ptr + line.to(tl.int64) * inner, mask=inside, other=0.0).to(tl.float32) - highest
            y = x - tl.log(normalizer) if LOG else tl.exp(x) / normalizer
            tl.store(y_ptr + line.to(tl.int64) * inner, y, mask=inside)


@triton.jit
def softmax_rows_backward(
    dy_ptr, y_ptr, dx_ptr, dy_stride, rows, size, LOG: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """dx = y (dy - sum(y dy))  [eq-softmax-backward], or dy - exp(y) sum(dy); y and dy are read once."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < size)
    y = tl.load(y_ptr + row * size + column, mask=inside, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + row * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
    total = tl.sum(along(dy, y, LOG), axis=1, keep_dims=True)
    tl.store(dx_ptr + row * size + column, gradient(dy, y, total, LOG), mask=inside)


@triton.jit
def softmax_columns_backward(
    dy_ptr,
    y_ptr,
    dx_ptr,
    dy_stride,
    length,
    inner,
    LOG: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):
    """The same along the middle axis; y and dy are read once if BLOCK covers `length` (WHOLE), else twice."""
    tiles = tl.cdiv(inner, INNER)  # a grid is long in its first axis alone, so both numbers share that one
    column = columns_of(tl.program_id(0) % tiles, INNER)
    outer = (tl.program_id(0) // tiles).to(tl.int64)
    dy_ptr += outer * dy_stride + column
    y_ptr += outer * length * inner + column
    dx_ptr += outer * length * inner + column
    if WHOLE:
        line = tl.arange(0, BLOCK)[:, None]
        inside = (line < length) & (column < inner)
        place = line.to(tl.int64) * inner
        y = tl.load(y_ptr + place, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + place, mask=inside, other=0.0).to(tl.float32)
        total = tl.sum(along(dy, y, LOG), axis=0, keep_dims=True)
        tl.store(dx_ptr + place, gradient(dy, y, total, LOG), mask=inside)
    else:
        lanes = tl.zeros((BLOCK, INNER), tl.float32)
        for start in range(0, length, BLOCK):
            line = start + tl.arange(0, BLOCK)[:, None]
            inside = (line < length) & (column < inner)
            place = line.to(tl.int64) * inner
            y = tl.load(y_ptr + place, mask=inside, other=0.0).to(tl.float32)
            dy = tl.load(dy_ptr + place, mask=inside, other=0.0).to(tl.float32)
            lanes += along(dy, y, LOG)
        total = tl.sum(lanes, axis=0, keep_dims=True)
        for start in range(0, length, BLOCK):
            line = start + tl.arange(0, BLOCK)[:, None]
            inside = (line < length) & (column < inner)
            place = line.to(tl.int64) * inner
            y = tl.load(y_ptr + place, mask=inside, other=0.0).to(tl.float32)
            dy = tl.load(dy_ptr + place, mask=inside, other=0.0).to(tl.float32)
            tl.store(dx_ptr + place, gradient(dy, y, total, LOG), mask=inside)
