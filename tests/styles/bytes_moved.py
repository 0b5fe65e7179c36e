"""Right solutions of bytes_moved in different styles."""

import math
from collections import namedtuple

import numpy as np


def totals(op, shape, itemsize, fused):
    n, columns = math.prod(shape), shape[-1]
    rows = n // columns
    if op == "softmax":
        numbers = 2 * n if fused else 8 * n + 4 * rows
    elif op == "layer_norm":
        numbers = 2 * n + 2 * columns if fused else 12 * n + 6 * rows + 2 * columns
    elif op == "rms_norm":
        numbers = 2 * n + columns if fused else 7 * n + 4 * rows + columns
    else:
        raise ValueError(op)
    return numbers * itemsize


def step_by_step(op, shape, itemsize, fused):
    """The unfused form run on names, each step added up."""
    *leading, columns = shape
    rows = int(np.prod(leading, dtype=np.int64))
    x, weight = rows * columns, columns
    moved = []

    def step(*reads, writes):
        moved.append(sum(reads) + writes)
        return writes

    def softmax():
        top = step(x, writes=rows)
        d = step(x, top, writes=x)
        e = step(d, writes=x)
        total = step(e, writes=rows)
        step(e, total, writes=x)

    def rms_norm():
        squares = step(x, writes=x)
        mean = step(squares, writes=rows)
        rstd = step(mean, writes=rows)
        x_hat = step(x, rstd, writes=x)
        step(x_hat, weight, writes=x)

    def layer_norm():
        mean = step(x, writes=rows)
        d = step(x, mean, writes=x)
        squares = step(d, writes=x)
        var = step(squares, writes=rows)
        rstd = step(var, writes=rows)
        x_hat = step(d, rstd, writes=x)
        scaled = step(x_hat, weight, writes=x)
        step(scaled, weight, writes=x)

    unfused = {"softmax": softmax, "rms_norm": rms_norm, "layer_norm": layer_norm}
    if op not in unfused:
        raise ValueError(f"unknown op {op}")
    if fused:
        inputs = {"softmax": 0, "rms_norm": 1, "layer_norm": 2}[op]
        step(x, *[weight] * inputs, writes=x)
    else:
        unfused[op]()
    return itemsize * sum(moved)


Table = namedtuple("Table", "elements rows columns")
NUMBERS = {
    ("softmax", True): Table(2, 0, 0),
    ("softmax", False): Table(8, 4, 0),
    ("layer_norm", True): Table(2, 0, 2),
    ("layer_norm", False): Table(12, 6, 2),
    ("rms_norm", True): Table(2, 0, 1),
    ("rms_norm", False): Table(7, 4, 1),
}


def from_a_table(op, shape, itemsize, fused):
    if (op, fused) not in NUMBERS:
        raise ValueError("softmax, layer_norm or rms_norm")
    rows = 1
    for size in shape[:-1]:
        rows *= size
    sizes = rows * shape[-1], rows, shape[-1]
    return sum(count * size for count, size in zip(NUMBERS[op, fused], sizes, strict=True)) * itemsize


def numpy_integers(op, shape, itemsize, fused):
    """In int64, which is wide enough."""
    if op not in ("softmax", "layer_norm", "rms_norm"):
        raise ValueError
    shape = np.array(shape, np.int64)
    rows = shape[:-1].prod()
    sizes = np.array([rows * shape[-1], rows, shape[-1]])
    return np.int64(itemsize) * np.dot(NUMBERS[op, fused], sizes)


STYLES = [totals, step_by_step, from_a_table, numpy_integers]
