"""Right solutions of softmax_rows in different styles."""

import math

import numba
import numpy as np


@numba.njit
def three_loops(x, out):
    rows, columns = x.shape
    for i in range(rows):
        top = x[i, 0]
        for j in range(1, columns):
            top = max(top, x[i, j])
        total = 0.0
        for j in range(columns):
            out[i, j] = math.exp(x[i, j] - top)
            total += out[i, j]
        for j in range(columns):
            out[i, j] /= total


@numba.njit(fastmath={"contract", "reassoc", "nsz", "arcp"})
def online(x, out):
    """Maximum and sum in one look; the exponentials once more."""
    for i in range(x.shape[0]):
        top, total = x[i, 0], 1.0
        for j in range(1, x.shape[1]):
            new = max(top, x[i, j])
            if np.isnan(x[i, j]):
                new = x[i, j]
            total = total * math.exp(top - new) + math.exp(x[i, j] - new)
            top = new
        for j in range(x.shape[1]):
            out[i, j] = math.exp(x[i, j] - top) / total
    return out


@numba.njit
def a_row_at_a_time(x, out):
    """An array expression on a row: what it makes is a row long."""
    for i in range(len(x)):
        out[i] = np.exp(x[i] - x[i].max())
        total = out[i].sum()
        for j in range(x.shape[1]):
            out[i, j] /= total


@numba.njit
def _one(row, to):
    top = -np.inf
    for value in row:
        if value > top or value != value:
            top = value
    total = row.dtype.type(0)
    for j, value in enumerate(row):
        to[j] = np.exp(value - top)
        total += to[j]
    for j in range(len(to)):
        to[j] *= 1 / total


def a_loop_in_python(x, out):
    """The rows in Python, each row compiled."""
    for row, to in zip(x, out, strict=True):
        _one(row, to)


@numba.njit(parallel=True)
def parallel(x, out):
    for i in numba.prange(x.shape[0]):
        _one(x[i], out[i])


@numba.guvectorize(["(float32[:], float32[:])", "(float64[:], float64[:])"], "(n)->(n)")
def guvectorized(row, to):
    _one(row, to)


@numba.njit(boundscheck=True, error_model="numpy")
def scratch_row(x, out):
    """A spare row in float64, made once."""
    row = np.empty(x.shape[1])
    for i in range(x.shape[0]):
        top = x[i, 0]
        for j in range(row.size):
            top = max(top, x[i, j])
        for j in range(row.size):
            row[j] = np.exp(x[i, j] - top)
        total = row.sum()
        for j in range(row.size):
            out[i, j] = row[j] / total


def _made():
    @numba.njit
    def inner(x, out):
        for i in range(x.shape[0]):
            _one(x[i], out[i])

    def outer(x, out):
        return inner(x, out)

    return outer


in_a_closure = _made()


STYLES = [  # those that are compiled at once first: `make test` takes three
    three_loops,
    online,
    a_loop_in_python,
    a_row_at_a_time,
    parallel,
    guvectorized,
    scratch_row,
    in_a_closure,
]
