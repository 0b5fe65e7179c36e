"""bytes_moved, softmax_rows, softmax_kernel and layer_norm_kernel: truths, cases and known mistakes of the chapter `kernels`."""

import math
import os
from importlib.util import find_spec

import numpy as np

from normlab import reference
from normlab.cases import Case, affine, sizes, uneven, view
from normlab.drive import kernels as drive
from normlab.drive.kernels import NO_KERNEL, NOT_COMPILED, OBJECT_MODE, UNFILLED, Later, stands_in
from normlab.frame import Exercise, mistakes_table, with_switches
from normlab.guard import MUTATES_INPUT

_INF = float("inf")

MISTAKES, add = mistakes_table()


# ---- bytes_moved: steps, as (what is read, what is written) ----------------------------------------------------------
# x: all elements; row: a number for each row; column: a number for each place in a row, as a weight is.

_EXP_STEPS = (("x", "row"), ("x row", "x"), ("x", "x"), ("x", "row"), ("x row", "x"))
_SCALED = (("x row", "x"), ("x column", "x"))  # by rstd, then by the weight
_STEPS = {
    "softmax": _EXP_STEPS,
    "layer_norm": (
        ("x", "row"),
        ("x row", "x"),
        ("x", "x"),
        ("x", "row"),
        ("row", "row"),
        *_SCALED,
        ("x column", "x"),
    ),
    "rms_norm": (("x", "x"), ("x", "row"), ("row", "row"), *_SCALED),
}
_ONE_STEP = {
    "softmax": (("x", "x"),),
    "layer_norm": (("x column column", "x"),),
    "rms_norm": (("x column", "x"),),
}


def _counts(steps, shape, rows=lambda shape: math.prod(shape[:-1]), columns=lambda shape: shape[-1], reads_only=False):
    """Numbers that steps read and write."""
    size = {"x": math.prod(shape), "row": rows(shape), "column": columns(shape)}
    return sum(size[word] for step in steps for word in " ".join(step[: 1 if reads_only else 2]).split())


def _bytes_moved(op, shape, itemsize, fused, change=lambda steps: steps, each=1, unfused=_STEPS, one=_ONE_STEP, **how):
    if op not in _STEPS:
        raise ValueError(f"there is no op {op!r}")
    return _counts(change(one[op] if fused else unfused[op]), shape, **how) * itemsize * each


def _bytes_cases():
    def of(op, fused, count=2, itemsizes=(4,), low=3, high=9):
        def draw(rng):
            return (op, sizes(rng, count, low, high), int(rng.choice(itemsizes)), fused), {}

        return draw

    def huge(rng):
        shape = (int(rng.integers(200_000, 300_000)), int(rng.integers(30_000, 40_000)))
        return ("layer_norm", shape, 4, bool(rng.integers(2))), {}

    def unknown(rng):
        return ("batch_norm", sizes(rng, 2), 4, bool(rng.integers(2))), {}

    def vector(op, fused):
        return of(op, fused, 1)

    def one_column(rng):
        return ("softmax", (int(rng.integers(5, 20)), 1), 4, False), {}

    def empty(rng):
        return ("softmax", (0, int(rng.integers(3, 9))), 4, bool(rng.integers(2))), {}

    rank = "each row is one place of all axes but the last"
    listed = [
        Case(f"{op.replace('_', '-')}-{word}", "values", f"{op.replace('_', ' ')}, {word}", of(op, word == "fused"))
        for op in _STEPS
        for word in ("fused", "unfused")
    ]
    half = "every number has the size that is given"
    return (
        *listed,
        Case("half", "numerics", "numbers of two bytes", of("rms_norm", False, itemsizes=(2,)), half),
        Case("double", "numerics", "numbers of eight bytes", of("layer_norm", True, itemsizes=(8,)), half),
        Case("huge", "numerics", "billions of numbers", huge, "Python's integers count as far as you like"),
        Case("three-axes", "edges", "a shape of three axes", of("layer_norm", False, 3), rank),
        Case("three-axes-softmax", "edges", "a shape of three axes", of("softmax", False, 3), rank),
        Case("vector", "edges", "a shape of one axis, softmax", vector("softmax", False), "it is a single row"),
        Case("vector-norm", "edges", "a shape of one axis, a norm", vector("layer_norm", False), "it is a single row"),
        Case("one-column", "edges", "rows of one number", one_column),
        Case("empty", "edges", "no rows at all", empty, "softmax of nothing moves nothing"),
        Case("unknown", "edges", "an op that is none of the three", unknown, "ValueError is raised", ValueError),
    )


def _without(kind):
    """Steps that do not count what is of that kind."""
    return lambda steps: tuple(tuple(" ".join(w for w in side.split() if w != kind) for side in step) for step in steps)


def _squares_twice(steps):
    """x * x read as two inputs."""
    return tuple(("x x", "x") if step == ("x", "x") else step for step in steps)


def _add_bytes_mistakes():
    def add_one(slug, sentence, **switches):
        add("bytes_moved", slug, sentence, with_switches(_bytes_moved, **switches))

    add(
        "bytes_moved",
        "counts-elements",
        "counts numbers: bytes are numbers times itemsize",
        lambda op, shape, itemsize, fused: _bytes_moved(op, shape, 1, fused),
    )
    add(
        "bytes_moved",
        "always-four-bytes",
        "takes every number for four bytes: multiply by itemsize",
        lambda op, shape, itemsize, fused: _bytes_moved(op, shape, 4, fused),
    )
    add_one("counts-bits", "counts bits: itemsize is in bytes already", each=8)
    add_one("reads-only", "counts what is read alone: what a step writes has to travel as well", reads_only=True)
    add(
        "bytes_moved",
        "always-fused",
        "gives the fused form's bytes for the unfused one: there every step reads its inputs and writes its result",
        lambda op, shape, itemsize, fused: _bytes_moved(op, shape, itemsize, True),
    )
    add(
        "bytes_moved",
        "always-unfused",
        "gives the unfused form's bytes for the fused one: that reads each input once and writes the result once",
        lambda op, shape, itemsize, fused: _bytes_moved(op, shape, itemsize, False),
    )
    add_one(
        "no-statistics",
        "leaves out the numbers that there is one of for each row: they are written by one step and read by another",
        change=_without("row"),
    )
    add_one("no-weights", "leaves out weight and bias: they are inputs, and are read", change=_without("column"))
    add_one(
        "statistics-in-full",
        "counts a number for each row as if it had the size of x: it is small, and broadcast without being copied",
        rows=math.prod,
    )
    add_one(
        "weights-in-full",
        "counts weight and bias as if they had the size of x: each is one row long, and is counted once",
        columns=math.prod,
    )
    add_one(
        "rows-are-the-last-axis",
        "takes the length of a row for the number of rows: the row is the last axis",
        rows=lambda shape: shape[-1],
        columns=lambda shape: math.prod(shape[:-1]),
    )
    add_one(
        "rows-are-the-first-axis",
        "takes the first axis for the rows: they are all axes but the last, multiplied",
        rows=lambda shape: shape[0],
    )
    add_one("square-reads-twice", "reads x twice to square it: x * x has one input", change=_squares_twice)
    add_one(
        "floats",
        "returns a fraction of a byte, or a float: bytes are counted in whole numbers",
        each=1.0,
    )
    softmax_for_all = dict.fromkeys(_STEPS, _EXP_STEPS)
    add_one(
        "softmax-for-all",
        "counts the steps of softmax for every op: each has steps of its own",
        unfused=softmax_for_all,
    )
    as_layer_norm = _STEPS | {"rms_norm": _STEPS["layer_norm"]}
    add_one(
        "rms-as-layer-norm",
        "counts the steps of layer norm for RMS norm: nothing is subtracted there, and nothing added",
        unfused=as_layer_norm,
        one=_ONE_STEP | {"rms_norm": _ONE_STEP["layer_norm"]},
    )


_add_bytes_mistakes()


# ---- softmax_rows: how it is used ------------------------------------------------------------------------------------


def _softmax_rows_cases():
    def some(dtype=np.float64, scale=1.0, offset=0.0):
        def draw(rng):
            return (uneven(rng, sizes(rng, 2), scale, offset, dtype),), {}

        return draw

    def square(rng):
        n = int(rng.integers(3, 7))
        return (uneven(rng, (n, n)),), {}

    def many(rng):
        return (uneven(rng, (int(rng.integers(150, 200)), int(rng.integers(4, 9)))),), {}

    def wide(rng):
        return (uneven(rng, (2, int(rng.integers(700, 900))), dtype=np.float32),), {}

    def rows_apart(rng):
        x = uneven(rng, sizes(rng, 2, 4, 8))
        return (x + rng.permutation(len(x))[:, None] * 1000.0,), {}

    def minus_inf(rng):
        x = uneven(rng, sizes(rng, 2, 4, 8))
        x[0, 1] = x[1, 0] = x[2, -1] = -_INF
        return (x,), {}

    def one_column(rng):
        return (uneven(rng, (int(rng.integers(4, 9)), 1)),), {}

    def one_row(rng):
        return (uneven(rng, (1, int(rng.integers(4, 9)))),), {}

    def empty(rng):
        return (np.zeros((0, int(rng.integers(3, 9)))),), {}

    def strided(rng):
        return (view(rng, sizes(rng, 2)),), {}

    def with_nan(rng):
        x = uneven(rng, sizes(rng, 2, 4, 8))
        x[1, 1] = np.nan
        return (x,), {}

    def large(rng):
        return (uneven(rng, (int(rng.integers(400, 500)), int(rng.integers(300, 400))), dtype=np.float32),), {}

    far = "the answer is that of the same logits moved to 0"
    return (
        Case("rows", "values", "a matrix", some()),
        Case("square", "values", "a square matrix", square),
        Case("float32", "values", "a float32 matrix", some(np.float32)),
        Case("many", "values", "a matrix of many short rows", many),
        Case("wide", "values", "a float32 matrix of long rows", wide),
        Case("large-logits", "numerics", "logits near 1000", some(offset=1000.0), far, far=True),
        Case("very-negative", "numerics", "logits near -2000", some(offset=-2000.0), far, far=True),
        Case("float32-large", "numerics", "float32 logits near 200", some(np.float32, offset=200.0), far, far=True),
        Case("rows-apart", "numerics", "rows 1000 apart", rows_apart, far, far=True),
        Case("minus-inf", "numerics", "a logit of -inf here and there", minus_inf, "its weight is 0"),
        Case("one-column", "edges", "rows of one logit", one_column, "each weight is 1"),
        Case("one-row", "edges", "a single row", one_row),
        Case("empty", "edges", "no rows at all", empty, "there is nothing to do"),
        Case("strided", "edges", "views with strides, not contiguous in memory", strided),
        Case("nan", "edges", "a NaN in one row", with_nan, "that row becomes NaN, so that the fault shows"),
        Case("traffic", "edges", "a large matrix", large, "nothing of its size is made besides x and out"),
    )


def _stands_for(how=None):
    """Marks a known mistake, written in NumPy, that stands for a compiled function."""

    def mark(function):
        stands_in[function] = how
        return function

    return mark


def _rows_wrong(change, how=None):
    """A mistake that fills out with change(x)."""

    @_stands_for(how)
    def wrong(x, out):
        out[...] = change(x)

    return wrong


def _exp_rows(x, top=lambda x: x.max(1, keepdims=True), total=lambda e: e.sum(1, keepdims=True)):
    e = np.exp(x - top(x)) if x.size else x
    return e / total(e)


def _from_zero(x):
    return x.max(1, keepdims=True, initial=0)


def _without_first(e):
    return e[:, 1:].sum(1, keepdims=True)


def _running_total(e):
    return np.cumsum(e.sum(1, keepdims=True), axis=0)


def _running_maximum(x):
    return np.maximum.accumulate(x.max(1, keepdims=True), axis=0)


def _add_rows_mistakes():
    def add_one(slug, sentence, change, *others):
        add("softmax_rows", slug, sentence, _rows_wrong(change), *map(_rows_wrong, others))

    def unfilled(x, out):
        return reference.softmax(x)

    def plain(x, out):
        out[...] = reference.softmax(x)

    add("softmax_rows", "not-compiled", NOT_COMPILED, plain)
    add("softmax_rows", "object-mode", OBJECT_MODE, _rows_wrong(reference.softmax, OBJECT_MODE))
    add("softmax_rows", "returns-instead", UNFILLED, _stands_for()(unfilled))

    @_stands_for()
    def second_matrix(x, out):
        out[...] = reference.softmax(x)

    add(
        "softmax_rows",
        "second-matrix",
        "makes another array of the size of x: out has room for the exponentials, and x need not be copied",
        second_matrix,
    )

    @_stands_for()
    def in_place(x, out):
        for row in x:
            row -= row.max()
            np.exp(row, out=row)
            row /= row.sum()
        for row, to in zip(x, out, strict=True):
            to[...] = row

    add("softmax_rows", MUTATES_INPUT, "changes x", in_place)
    add_one(
        "no-maximum",
        "lets exponentials overflow: subtract the maximum of each row before taking exponentials",
        lambda x: _exp_rows(x, top=lambda x: 0 * x[:, :1]),
        lambda x: _exp_rows(x, top=lambda x: x.dtype.type(0)),
    )
    add_one(
        "maximum-starts-at-zero",
        "starts the maximum at 0: a row of very negative logits then has none of its own; start at -inf or at x[i, 0]",
        lambda x: _exp_rows(x, top=_from_zero),
    )
    add_one(
        "global-maximum",
        "subtracts the maximum of the whole matrix: each row needs its own",
        lambda x: _exp_rows(x, top=lambda x: x.max()),
    )
    add_one(
        "running-maximum",
        "keeps the maximum from row to row: start anew for each row",
        lambda x: _exp_rows(x, top=_running_maximum),
    )
    add_one(
        "running-total",
        "keeps the sum from row to row: start at 0 for each row",
        lambda x: _exp_rows(x, total=_running_total),
    )
    add_one(
        "skips-the-first",
        "begins the sum at the second logit: the first one counts as well",
        lambda x: _exp_rows(x, total=_without_first),
    )
    add_one(
        "no-total",
        "writes the exponentials: divide each row by its sum",
        lambda x: _exp_rows(x, total=lambda e: e.dtype.type(1)),
    )
    add_one("sums-over-everything", "divides by the sum of the whole matrix", lambda x: _exp_rows(x, total=np.sum))
    add_one("columns", "makes the columns add up to 1: it is the rows that do", lambda x: reference.softmax(x, 0))


_add_rows_mistakes()


# ---- Triton kernels: how they are used -------------------------------------------------------------------------------


def _later(name, **switches):
    def make():
        from normlab.chapters import wrong_kernels

        return getattr(wrong_kernels, name)

    return Later(make, **switches)


# ---- Triton kernels: cases -------------------------------------------------------------------------------------------


def _block(columns):
    """The smallest power of two that holds a row."""
    return 1 << max(0, int(columns - 1).bit_length())


def _matrix(rng, rows, columns, scale=1.0, offset=0.0, dtype=np.float32):
    return uneven(rng, (rows, columns), scale, offset, dtype)


def _as_bfloat16(array):
    """float32 numbers that bfloat16 has."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _as_float16(array):
    return array.astype(np.float16).astype(np.float32)


def _odd(rng, low, high):
    """A number of columns that no power of two is."""
    columns = int(rng.integers(low, high))
    return columns + (columns == _block(columns))


_STORAGE = {"bfloat16": _as_bfloat16, "float16": _as_float16}


def _kernel_cases(finish, numerics, narrow):
    """The cases of both kernels. finish(rng, x, **layout) gives (args, kwargs). `narrow`: what is said of half types."""

    def case(name, part, kind, draw, expect="", far=False):
        def whole(rng):
            x, layout = draw(rng)
            return finish(rng, x, **{"block": _block(x.shape[1]), **layout})

        return Case(name, part, kind, whole, expect, far=far)

    def odd(rng):
        return _matrix(rng, 3, _odd(rng, 5, 14)), {}

    def full(rng):
        return _matrix(rng, 2, int(rng.choice([8, 16, 32]))), {}

    def roomy(rng):
        columns = _odd(rng, 5, 14)
        return _matrix(rng, 2, columns), {"block": 4 * _block(columns)}

    def gap_in_x(rng):
        return _matrix(rng, 3, _odd(rng, 5, 14)), {"gaps": (int(rng.integers(3, 9)), 0)}

    def gap_in_out(rng):
        return _matrix(rng, 3, _odd(rng, 5, 14)), {"gaps": (0, int(rng.integers(3, 9)))}

    def half(rng):
        return _matrix(rng, 2, _odd(rng, 40, 60), dtype=np.float16), {}

    def stored(kind):
        def draw(rng):
            return _STORAGE[kind](_matrix(rng, 2, _odd(rng, 140, 250), scale=0.5)), {"kept": kind}

        return draw

    def one_column(rng):
        return _matrix(rng, 2, 1), {"block": int(rng.choice([1, 2]))}

    def traffic(rng):
        return _matrix(rng, 2, _odd(rng, 200, 250)), {"traffic": True}

    between = "a row starts one stride after the one before it, and what lies between is not touched"
    return (
        case("rows", "values", "rows shorter than BLOCK", odd),
        case("full", "values", "rows as long as BLOCK", full),
        case("roomy", "values", "a BLOCK far longer than a row", roomy),
        case("gap-in-x", "values", "an x whose rows lie apart", gap_in_x, between),
        case("gap-in-out", "values", "an out whose rows lie apart", gap_in_out, between),
        *(case(name, "numerics", kind, draw, expect, far=True) for name, kind, draw, expect in numerics),
        case("float16", "numerics", "float16 rows", half, narrow),
        case("from-float16", "numerics", "float16 rows and a float32 out", stored("float16"), narrow),
        case("from-bfloat16", "numerics", "bfloat16 rows and a float32 out", stored("bfloat16"), narrow),
        case("one-column", "edges", "rows of one number", one_column),
        case("traffic", "edges", "rows as they are", traffic, "each row is read once and written once"),
    )


_IN_FLOAT32 = "everything is computed in float32, and rounded once, when it is stored"


def _softmax_kernel_cases():
    def large(rng):
        return _matrix(rng, 2, _odd(rng, 5, 14), offset=300.0), {}

    def very_negative(rng):
        return _matrix(rng, 2, _odd(rng, 5, 14), offset=-300.0), {}

    def minus_inf(rng):
        x = _matrix(rng, 3, _odd(rng, 5, 14))
        x[0, 1] = x[1, 0] = x[2, -1] = -_INF
        return (x,), {"block": _block(x.shape[1])}

    far = "the answer is that of the same logits moved to 0"
    numerics = (
        ("large", "logits near 300", large, far),
        ("very-negative", "logits near -300", very_negative, far),
    )
    hidden = Case("minus-inf", "edges", "a logit of -inf here and there", minus_inf, "its weight is 0")
    return (*_kernel_cases(lambda rng, x, **layout: ((x,), layout), numerics, _IN_FLOAT32), hidden)


def _layer_norm_kernel_cases():
    def finish(rng, x, **layout):
        weight, bias = (_STORAGE.get(layout.get("kept"), np.asarray)(v) for v in affine(rng, x.shape[1], x.dtype))
        eps = float(rng.choice([1e-5, 1e-3]))
        return (x, weight, bias), {"eps": eps, **layout}

    def offset(rng):
        return _matrix(rng, 2, _odd(rng, 140, 250), offset=1e4), {}

    def tiny(rng):
        return _matrix(rng, 2, _odd(rng, 20, 30), scale=1e-3), {}

    def half_large(rng):
        x = rng.choice([-1, 1], (2, _odd(rng, 40, 60))) * rng.integers(260, 400, (2, 1))
        return (x + rng.integers(-9, 10, x.shape)).astype(np.float16), {}

    def constant(rng):
        x = np.zeros((2, _odd(rng, 5, 14)), np.float32) + rng.integers(1, 9, (2, 1)).astype(np.float32)
        return finish(rng, x, block=_block(x.shape[1]))

    numerics = (
        ("offset", "rows near 1e4", offset, "the mean is subtracted before anything is squared"),
        ("tiny", "rows of numbers of about 1e-3", tiny, "eps is added to the variance, under the root"),
        ("float16-large", "float16 rows whose squares overflow float16", half_large, _IN_FLOAT32),
    )
    flat = Case(
        "constant", "edges", "rows of one number, repeated", constant, "x - mean is 0, so the bias remains", far=True
    )
    return (*_kernel_cases(finish, numerics, _IN_FLOAT32), flat)


# ---- Triton kernels: known mistakes ----------------------------------------------------------------------------------


def _add_kernel_mistakes():
    def plain(*_):
        pass

    def for_both(slug, sentence, *switches):
        for name in ("softmax", "layer_norm"):
            of(name, slug, sentence, *switches)

    def of(name, slug, sentence, *switches, kernel=None):
        add(f"{name}_kernel", slug, sentence, *(_later(kernel or name, **s) for s in switches))

    for name in ("softmax_kernel", "layer_norm_kernel"):
        add(name, "not-a-kernel", NO_KERNEL, plain)
    for_both(
        "no-mask",
        "loads without a mask: lanes from n_cols on read what lies behind the row; say mask=cols < n_cols",
        {"load": "no mask"},
        {"load": "masked afterwards"},
    )
    for_both(
        "no-other",
        "loads with a mask and no other=: what the hidden lanes then hold is anything, and goes into the sums",
        {"load": "no other"},
    )
    for_both(
        "mask-off-by-one",
        "masks with cols <= n_cols: the row's numbers are 0 to n_cols - 1, so it is cols < n_cols",
        {"load": "one more"},
        {"load": "one more", "store": "one more"},
    )
    for_both(
        "stores-unmasked",
        "stores without a mask: lanes from n_cols on write to what lies behind the row, which is another's",
        {"store": "no mask"},
        {"store": "one more"},
    )
    for_both(
        "stride-is-n-cols",
        "takes n_cols for the distance from row to row: that is x_stride in x, and out_stride in out",
        {"x_rows": "n_cols"},
        {"out_rows": "n_cols"},
    )
    for_both(
        "strides-swapped",
        "takes one tensor's stride for both, or each for the other's: x has x_stride, and out has out_stride",
        {"x_rows": "out_stride"},
        {"out_rows": "x_stride"},
    )
    for_both(
        "race",
        "writes every row to the first row of out, where programs overwrite each other: start at row * out_stride",
        {"out_rows": "none"},
        {"x_rows": "second axis"},
    )
    for_both(
        "one-row-for-all",
        "reads the first row in every program: start at row * x_stride, with row from tl.program_id(0)",
        {"x_rows": "none"},
    )
    for_both(
        "column-walk",
        "walks down a column: a row is x_ptr + row * x_stride + cols",
        {"walk": "column"},
    )
    for_both(
        "rounds-to-x",
        "rounds the answer to x's dtype before it is stored: out may be wider, and tl.store converts by itself",
        {"rounds": "to x"},
    )
    three = "reads x three times: load the row once, and compute all you need from what you have loaded"
    two = "reads x twice: load the row once, and compute all you need from what you have loaded"
    of("softmax", "three-passes", three, {"passes": 3}, kernel="softmax_passes")
    of("softmax", "two-passes", two, {"passes": 2}, kernel="softmax_passes")
    of(
        "softmax",
        "through-memory",
        "keeps its exponentials in out and reads them back: they fit into a variable",
        {"passes": 1, "back": 1},
        kernel="softmax_passes",
    )
    of("layer_norm", "three-passes", three, {"passes": 3})
    of("layer_norm", "two-passes", two, {"passes": 2})
    for_both(
        "lanes-apart",
        "gives neighboring lanes numbers that lie apart: a warp's 32 lanes then fetch 32 pieces of memory instead of few",
        {"walk": "apart"},
    )
    of(
        "layer_norm",
        "half-arithmetic",
        "computes in the half type that x has: say .to(tl.float32) right after loading",
        {"arithmetic": "uncast"},
        {"arithmetic": "half"},
    )
    of(
        "softmax",
        "half-sums",
        "adds up in float16: the sum is taken in float32",
        {"arithmetic": "half sum"},
        {"arithmetic": "half"},
    )
    of(
        "softmax",
        "other-is-zero",
        "gives the hidden lanes 0, and exp(0 - maximum) of each goes into the sum: their other= is -inf",
        {"load": "zero"},
    )
    of(
        "softmax",
        "no-maximum",
        "lets exponentials overflow, or divides 0 by 0: subtract the row's maximum before tl.exp",
        {"top": "none"},
    )
    of(
        "softmax",
        "mean-not-maximum",
        "subtracts the mean: only the maximum keeps tl.exp from overflowing",
        {"top": "mean"},
    )
    of("softmax", "base-2", "takes powers of 2: that is tl.exp2, and softmax has tl.exp", {"base": "2"})
    of("softmax", "no-total", "stores the exponentials: divide them by their sum", {"division": "none"})
    of("softmax", "divides-by-n", "divides by n_cols: it is the sum of the exponentials", {"division": "by n_cols"})
    of(
        "layer_norm",
        "all-lanes",
        "counts the hidden lanes into the variance, each with 0 - mean: set them to 0 after subtracting the mean",
        {"variance": "all lanes"},
    )
    of(
        "layer_norm",
        "other-is-minus-inf",
        "gives the hidden lanes -inf, as softmax does: in a sum their other= is 0",
        {"load": "minus infinity"},
    )
    of("layer_norm", "divides-by-block", "divides by BLOCK: a row has n_cols numbers", {"count": "BLOCK"})
    of("layer_norm", "divides-by-n-1", "divides by n - 1: layer norm has the biased variance", {"count": "n - 1"})
    of(
        "layer_norm",
        "one-pass",
        "takes E[x^2] - E[x]^2 for the variance, which cancels: subtract the mean first, it costs no second load",
        {"variance": "one pass"},
    )
    of(
        "layer_norm",
        "not-centered",
        "normalizes without subtracting the mean",
        {"variance": "mean square"},
        {"center": "spread"},
    )
    of("layer_norm", "eps-outside-root", "adds eps to the root: it belongs under it", {"root": "eps outside"})
    of("layer_norm", "no-eps", "leaves eps out: a constant row then divides 0 by 0", {"root": "no eps"})
    of("layer_norm", "ignores-eps", "uses an eps of its own: it is an argument", {"root": "fixed eps"})
    of("layer_norm", "eps-squared", "squares eps: it is added to the variance as it is", {"root": "squared eps"})
    of("layer_norm", "no-root", "divides by the variance: rstd is tl.rsqrt(var + eps)", {"root": "none"})
    of(
        "layer_norm",
        "affine-by-row",
        "looks for weight and bias at the row's place: both are one row long, the same for every row",
        {"affine": "by row"},
        {"affine": "one number"},
    )
    of(
        "layer_norm",
        "affine-unmasked",
        "loads weight or bias without a mask: they end after n_cols numbers as well",
        {"affine": "no mask"},
    )
    of("layer_norm", "drops-weight", "leaves the weight out", {"affine": "no weight"})
    of("layer_norm", "drops-bias", "leaves the bias out", {"affine": "no bias"})
    of("layer_norm", "drops-affine", "leaves weight and bias out", {"affine": "none"})
    of(
        "layer_norm",
        "scales-bias",
        "adds the bias before it multiplies: the weight comes first",
        {"affine": "bias first"},
    )
    of(
        "layer_norm",
        "one-plus-weight",
        "multiplies by 1 + weight: it is the weight alone",
        {"affine": "one plus weight"},
    )


_add_kernel_mistakes()


# ---- the table -------------------------------------------------------------------------------------------------------


def _why_no_numba():
    if find_spec("numba") is None:
        return "this exercise is compiled by Numba, which is not installed here (pip install numba)"
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return "Numba compiles nothing while NUMBA_DISABLE_JIT is set"
    return None


def _why_no_triton():
    if find_spec("triton") is None:
        return (
            "this exercise is written in Triton, which is not installed here; it is made for Linux alone, and no other "
            "exercise needs it"
        )
    return None


EXERCISES = (
    Exercise(
        name="bytes_moved",
        stem="kernels",
        expect="each step reads each of its inputs once and writes its result once",
        signature_of=lambda op, shape, itemsize, fused: None,
        torch_truth=lambda torch, *args: _bytes_moved(*args),
        numpy_truth=_bytes_moved,
        cases=_bytes_cases(),
        returns="int",
    ),
    Exercise(
        name="softmax_rows",
        stem="kernels",
        expect="every row becomes exp(x) over its own sum of exp(x)",
        signature_of=lambda x, out: None,
        torch_truth=lambda torch, x: torch.softmax(x, dim=1),
        numpy_truth=lambda x: reference.softmax(x),
        cases=_softmax_rows_cases(),
        drive=drive.rows,
        why_not=_why_no_numba,
        compile_seconds=30.0,
    ),
    Exercise(
        name="softmax_kernel",
        stem="kernels",
        expect="every row becomes exp(x) over its own sum of exp(x)",
        signature_of=lambda x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: None,
        torch_truth=lambda torch, x, **layout: torch.softmax(x, dim=1),
        numpy_truth=lambda x, **layout: reference.softmax(x),
        cases=_softmax_kernel_cases(),
        torch_exercise=True,
        drive=drive.kernel,
        why_not=_why_no_triton,
    ),
    Exercise(
        name="layer_norm_kernel",
        stem="kernels",
        expect="every row gets mean 0 and biased variance 1, then weight and bias",
        signature_of=lambda x_ptr, out_ptr, weight_ptr, bias_ptr, x_stride, out_stride, n_cols, eps, BLOCK: None,
        torch_truth=lambda torch, x, weight, bias, eps, **layout: torch.nn.functional.layer_norm(
            x, x.shape[1:], weight, bias, eps
        ),
        numpy_truth=lambda x, weight, bias, eps, **layout: reference.normalize(x, "layer", weight, bias, eps),
        cases=_layer_norm_kernel_cases(),
        torch_exercise=True,
        drive=drive.kernel,
        why_not=_why_no_triton,
    ),
)
