"""Inputs that break wrong code, the seeds they are drawn from, and the rule that says how close is close enough.

A case fixes what kind of input it is; numbers, and sizes where they may vary, are drawn from a seed. The public seed
serves learners; with NORMLAB_SECRET_FILE set the same cases are drawn from that secret, so that a grader's inputs are
of the same kinds and of other numbers and shapes.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PARTS = ("values", "numerics", "edges")


@dataclass(frozen=True)
class Case:
    """One kind of input. `kind` and `expect` are read aloud: "On {kind}, {expect}". `draw(rng)` gives (args, kwargs),
    the same for the same generator state. `far` marks inputs so far from zero that rounding the input alone moves the
    answer. `raises` is the error that is the right answer, if one is."""

    name: str
    part: str
    kind: str
    draw: Callable
    expect: str = ""
    raises: type | None = None
    far: bool = False


_given = []  # the secret that this process was told, if it was


def use_secret(content):
    """Let `secret()` give these bytes from now on: a process that grades for another machine was told them."""
    _given[:] = [content]


def secret():
    """The bytes that seed every case: the course's secret if NORMLAB_SECRET_FILE names one, else the public seed.

    Errors: ValueError when the variable names a file that cannot be read or is empty.
    """
    if _given:
        return _given[0]
    path = os.environ.get("NORMLAB_SECRET_FILE")
    if not path:
        return b"public"
    try:
        content = Path(path).read_bytes().strip()
    except OSError as error:
        raise ValueError(f"NORMLAB_SECRET_FILE cannot be read: {error.strerror}") from None
    if not content:
        raise ValueError("NORMLAB_SECRET_FILE names an empty file")
    return content


def generator(exercise, case, seed):
    """The random generator of one case of one exercise, under the seed that `secret()` gives."""
    digest = hashlib.sha256(b"\0".join([seed, exercise.encode(), case.encode()])).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def tolerance(truth, plain, dtype, rounded=None, magnitude=0.0):
    """The error allowed against the float64 `truth`, one number for the whole array.

    Sixteen times the error of the plain NumPy formula in the candidate's arithmetic (`plain`, computed in float32 for
    float16 and float32), so that any sensible order of operations passes, and four units in the last place of `dtype`
    at the output's scale, for the last roundings (never less than the smallest number of that dtype). The plain formula
    may hit the truth by luck, so its error counts as two units in the last place of the arithmetic at least.

    For inputs far from zero, `rounded` is the truth for the input moved by one rounding, and `magnitude` the size of
    the input: no algorithm can be asked to be closer than what its input already lost, nor than what it loses when all
    of a slice is rounded alike, as in exp(x - logsumexp(x)).
    """

    def distance(other):
        gap = np.abs(np.asarray(other, np.float64) - truth)
        return gap[np.isfinite(gap)].max(initial=0.0)

    arithmetic = float(np.finfo(np.promote_types(dtype, np.float32)).eps)
    with np.errstate(invalid="ignore"):
        scale = np.abs(truth)[np.isfinite(truth)].max(initial=0.0)
        error = max(distance(plain), 2 * arithmetic * scale, 0.0 if rounded is None else distance(rounded))
    info = np.finfo(dtype)
    return 16 * error + (4 * float(info.eps) + 2 * arithmetic * magnitude) * scale + float(info.smallest_subnormal)


# ---- drawing -------------------------------------------------------------------------------------------------------


LARGE = 65, 90  # sizes past a block of 64, which most other cases are too small for


def sizes(rng, count, low=3, high=8):
    """`count` different sizes in [low, high): axes that cannot be mistaken for one another."""
    return tuple(int(n) for n in rng.choice(np.arange(low, high), count, replace=False))


def uneven(rng, shape, scale=1.0, offset=0.0, dtype=np.float64):
    """Normal numbers with a shift of their own along every axis, so that pooling a wrong axis shows."""
    x = rng.standard_normal(shape)
    for axis, size in enumerate(shape):
        across = [1] * len(shape)
        across[axis] = size
        x = x + rng.normal(size=across) * 1.5
    return (x * scale + offset).astype(dtype)


def view(rng, shape, dtype=np.float64):
    """An array of `shape` that is a strided, reversed, Fortran-ordered view of a larger one."""
    base = uneven(rng, tuple(2 * n for n in reversed(shape)), dtype=dtype)
    return base[tuple(slice(None, None, -2) for _ in shape)].T


def affine(rng, size, dtype=np.float64):
    """A weight (of either sign, never near zero) and a bias of `size` numbers each."""
    weight = rng.uniform(0.5, 2.0, size) * rng.choice([-1.0, 1.0], size)
    return weight.astype(dtype), (rng.normal(size=size) * 2).astype(dtype)


# ---- slices along an axis: softmax, logsumexp, z_score, l1, l2, min_max -------------------------------------------


def along_axis(scale=1.0):
    """The shapes that tell one axis from another; `scale` stretches the values."""

    def two_axes(rng):
        return (uneven(rng, sizes(rng, 2), scale),), {}

    def square(rng):
        n = int(rng.integers(3, 7))
        return (uneven(rng, (n, n), scale),), {}

    def three_axes(rng):
        return (uneven(rng, sizes(rng, 3), scale),), {}

    def first_axis(rng):
        return (uneven(rng, sizes(rng, 2), scale),), {"axis": 0}

    def middle(rng):
        return (uneven(rng, sizes(rng, 3), scale),), {"axis": 1}

    def vector(rng):
        return (uneven(rng, sizes(rng, 1), scale),), {}

    def from_the_end(rng):
        return (uneven(rng, sizes(rng, 4, 2, 6), scale),), {"axis": -3}

    def strided(rng):
        return (view(rng, sizes(rng, 3)) * scale,), {"axis": 1}

    def float32(rng):
        return (uneven(rng, sizes(rng, 2), scale, dtype=np.float32),), {}

    def large(rng):
        return (uneven(rng, sizes(rng, 2, *LARGE), scale),), {}

    return {
        "vector": Case("vector", "values", "a vector", vector),
        "two-axes": Case("two-axes", "values", "a 2-D array (last axis)", two_axes),
        "square": Case("square", "values", "a square array (last axis)", square),
        "three-axes": Case("three-axes", "values", "a 3-D array (last axis)", three_axes),
        "first-axis": Case("first-axis", "values", "a 2-D array with axis=0", first_axis),
        "middle": Case("middle", "values", "a 3-D array with axis=1", middle),
        "float32": Case("float32", "numerics", "a float32 array", float32),
        "from-the-end": Case("from-the-end", "edges", "a 4-D array with axis=-3", from_the_end),
        "strided": Case("strided", "edges", "a view with strides, not contiguous in memory", strided),
        "large": Case("large-array", "edges", "a 2-D array with dozens of rows and columns", large),
    }


def one_column(rng):
    return (uneven(rng, (sizes(rng, 1)[0], 1)),), {}


_KEEPS_DTYPE = "the answer keeps the dtype of the input"


def far_float32(rng):
    return (uneven(rng, (int(rng.integers(5, 9)), int(rng.integers(40, 56))), offset=1e4, dtype=np.float32),), {}


def far_float64(rng):
    return (uneven(rng, (int(rng.integers(5, 9)), int(rng.integers(40, 56))), offset=1e7),), {}


def small_std(rng):
    return (uneven(rng, sizes(rng, 2, 4, 9), scale=1e-3),), {}


def own_eps(eps):
    def draw(rng):
        return (uneven(rng, sizes(rng, 2), scale=0.5),), {"eps": eps}

    return draw


def half_wide(rng):
    n = int(rng.integers(24, 40))
    return ((rng.choice([-1, 1], (3, n)) * rng.integers(260, 400, (3, n))).astype(np.float16),), {}


def half_far(rng):
    return ((1000 + rng.integers(-3, 4, (5, int(rng.integers(9, 16)))) / 2).astype(np.float16),), {}


def constant(value):
    def draw(rng):
        return (np.full(sizes(rng, 2), value),), {}

    return draw


def with_nan(rng):
    x = uneven(rng, sizes(rng, 2))
    x[1, 1] = np.nan
    return (x,), {}


_FAR = "the deviations from the mean are still exact enough to use"
_EPS_RULES = "eps is added to the variance, under the root, so the output's variance is var / (var + eps)"


def moments_cases(slices):
    """Cases of everything that subtracts a mean and divides by a standard deviation; `slices` names what it pools."""
    return {
        "own-eps": Case("own-eps", "values", "an array with an eps of its own", own_eps(0.3), _EPS_RULES),
        "small-std": Case(
            "small-std",
            "numerics",
            "values whose standard deviation is about 1e-3, where eps counts",
            small_std,
            _EPS_RULES,
        ),
        "constant": Case(
            "constant",
            "numerics",
            "a constant array",
            constant(2.5),
            "there is no deviation to scale: the answer is 0",
            far=True,
        ),
        "far-float32": Case("far-float32", "numerics", "float32 values near 1e4", far_float32, _FAR, far=True),
        "far-float64": Case("far-float64", "numerics", "float64 values near 1e7", far_float64, _FAR, far=True),
        "half-wide": Case(
            "half-wide",
            "numerics",
            "float16 values of a few hundred, whose squares overflow float16",
            half_wide,
            "the statistics are computed in float32 and the answer is float16",
        ),
        "half-far": Case(
            "half-far",
            "numerics",
            "float16 values near 1000",
            half_far,
            "the statistics are computed in float32 and the answer is float16",
            far=True,
        ),
        "nan": Case("nan", "edges", "an array with a NaN in it", with_nan, f"{slices} that holds the NaN becomes NaN"),
        "single": Case(
            "single",
            "edges",
            "slices of a single element",
            _single_column,
            "each element is its own mean: the answer is 0",
        ),
    }


def _powers_of_two(rng, shape):
    """Small powers of two: multiplying by them rounds nothing, so that x * s + (b - x * s) is b in every style."""
    return rng.choice([-1.0, 1.0], shape) * 2.0 ** -rng.integers(8, 12, shape)


def _single_number(rng):
    return (_powers_of_two(rng, (1, 1)),), {}


def _single_column(rng):
    return (_powers_of_two(rng, (sizes(rng, 1)[0], 1)),), {}


def standardize_cases():
    def image(rng):
        return (uneven(rng, sizes(rng, 4, 2, 6)),), {}

    def strided(rng):
        return (view(rng, sizes(rng, 3)),), {}

    def no_axes(rng):
        (x,) = _single_number(rng)[0]
        return (x.reshape(()),), {}

    shapes, moments = along_axis(3.0), moments_cases("the whole array")
    own_mean = "it is its own mean: the answer is 0"
    moments["single"] = Case("single", "edges", "a single number", _single_number, own_mean)
    return (
        shapes["vector"],
        shapes["two-axes"],
        Case("image", "values", "a 4-D array", image),
        moments.pop("own-eps"),
        shapes["float32"],
        *moments.values(),
        Case("no-axes", "edges", "an array without axes, of shape ()", no_axes, own_mean),
        Case("strided", "edges", shapes["strided"].kind, strided),
        shapes["large"],
    )


def z_score_cases():
    return (*along_axis(3.0).values(), *moments_cases("a slice").values())


# ---- meanings ------------------------------------------------------------------------------------------------------


def lp_cases():
    def zero_slice(rng):
        x = uneven(rng, sizes(rng, 2))
        x[1] = 0
        return (x,), {}

    def tiny(rng):
        return (uneven(rng, sizes(rng, 2), scale=1e-14),), {}

    def half_zero(rng):
        x = uneven(rng, sizes(rng, 2), dtype=np.float16)
        x[0] = 0
        return (x,), {}

    def half_sums(rng):
        return (rng.integers(200, 400, (3, int(rng.integers(300, 400)))).astype(np.float16),), {}

    def both_sides(rng):
        x = uneven(rng, sizes(rng, 2))
        x[0] *= 0.1 / np.abs(x[0]).sum()
        return (x,), {"eps": 0.5}

    bound = "the norm is bounded below by eps: x / max(norm, eps)"
    return (
        *along_axis(3.0).values(),
        Case("own-eps", "values", "slices with norms below and above the eps of the call", both_sides, bound),
        Case("zero", "numerics", "a slice of zeros", zero_slice, "it stays zero"),
        Case("tiny", "numerics", "values far below eps (about 1e-14)", tiny, bound),
        Case(
            "half-zero",
            "numerics",
            "a float16 slice of zeros, where eps=1e-12 would round to 0",
            half_zero,
            "it stays zero: eps is kept in float32",
        ),
        Case(
            "half-wide",
            "numerics",
            "float16 values of a few hundred, whose squares overflow float16",
            half_wide,
            "the norm is computed in float32 and the answer is float16",
        ),
        Case(
            "half-sums",
            "numerics",
            "long float16 slices, whose sum overflows float16",
            half_sums,
            "the norm is computed in float32 and the answer is float16",
        ),
        Case("single", "edges", "slices of a single element", one_column),
        Case("nan", "edges", "an array with a NaN in it", with_nan, "the slice that holds the NaN becomes NaN"),
    )


def min_max_cases():
    def one_constant(rng):
        x = uneven(rng, sizes(rng, 2))
        x[1] = 2.5
        return (x,), {}

    def half_range(rng):
        x = rng.uniform(-6e4, 6e4, (3, int(rng.integers(6, 12))))
        x[:, 0], x[:, 1] = -6e4, 6e4
        return (x.astype(np.float16),), {}

    def negative(rng):
        return (uneven(rng, sizes(rng, 2), offset=-40.0),), {}

    def tiny_range(rng):
        return (uneven(rng, sizes(rng, 2), scale=1e-13),), {}

    return (
        *along_axis(3.0).values(),
        Case("negative", "values", "negative values", negative, far=True),
        Case("constant", "numerics", "an array with a constant slice", one_constant, "the constant slice becomes 0"),
        Case(
            "far-float32",
            "numerics",
            "float32 values near 1e4",
            far_float32,
            "the range is still 0 to 1 exactly",
            far=True,
        ),
        Case("small", "numerics", "values that differ by about 1e-3", small_std, "the range is still 0 to 1 exactly"),
        Case(
            "tiny-range",
            "numerics",
            "values that differ by about 1e-13",
            tiny_range,
            "they differ, so the slice is not constant, and its range is 0 to 1",
        ),
        Case(
            "half-range",
            "numerics",
            "float16 values from -60000 to 60000, whose range overflows float16",
            half_range,
            "the range is computed in float32 and the answer is float16",
        ),
        Case(
            "single",
            "edges",
            "slices of a single element",
            one_column,
            "a single element is a constant slice: it becomes 0",
        ),
    )


# ---- shape ---------------------------------------------------------------------------------------------------------


def _edges(rng, bins, unequal):
    widths = rng.integers(1, 6, bins) if unequal else np.full(bins, int(rng.integers(1, 4)))
    if unequal and len(set(widths)) == 1:
        widths[0] += 1
    return np.concatenate([[0], np.cumsum(widths)]) / 2.0 - float(rng.integers(1, 4))


def _histogram_inputs(rng, count, unequal=True, dtype=np.float64):
    """Samples of which some lie outside the edges and some on them; every bin holds at least one."""
    edges = _edges(rng, int(rng.integers(4, 8)), unequal)
    inner = (edges[:-1] + edges[1:]) / 2
    low, high = edges[0] - 1.5, edges[-1] + 1.5
    skewed = low + (high - low) * rng.beta(2, 4, count)
    return np.concatenate([skewed, inner, edges]).astype(dtype), edges


_BETWEEN_HALVES = "float16 samples and edges that lie between the numbers of float16"
_EDGE_ITSELF = "each sample is compared with the edge itself, not with the edge rounded to float16"


def _between_halves(rng):
    """Samples from 2048 on, where float16 has the even numbers alone, and odd edges, some of which round down."""
    edges = 2049.0 + 4 * np.concatenate([[0], np.cumsum(rng.integers(1, 4, int(rng.integers(4, 7))))])
    samples = 2048 + 2 * rng.integers(0, int(edges[-1] - 2048) // 2 + 3, int(rng.integers(60, 90)))
    return (np.concatenate([samples, edges - 1, edges + 1]).astype(np.float16), edges), {}


def histogram_cases():
    def equal(rng):
        x, edges = _histogram_inputs(rng, int(rng.integers(60, 90)), unequal=False)
        inside = (x > edges[0]) & (x < edges[-1]) & ~np.isin(x, edges)
        return (x[inside], edges), {}

    def unequal(rng):
        x, edges = _histogram_inputs(rng, int(rng.integers(60, 90)))
        inside = (x > edges[0]) & (x < edges[-1]) & ~np.isin(x, edges)
        return (x[inside], edges), {}

    def outside(rng):
        x, edges = _histogram_inputs(rng, int(rng.integers(60, 90)))
        return (x[~np.isin(x, edges)], edges), {}

    def on_edges(rng):
        _, edges = _histogram_inputs(rng, 1)
        return (rng.permutation(np.repeat(edges, rng.integers(1, 5, len(edges)))), edges), {}

    def empty_bin(rng):
        x, edges = _histogram_inputs(rng, int(rng.integers(60, 90)))
        return (x[(x < edges[1]) | (x > edges[2])], edges), {}

    def float32(rng):
        x, edges = _histogram_inputs(rng, int(rng.integers(60, 90)), dtype=np.float32)
        return (x, edges), {}

    def half_counts(rng):
        edges = np.array([0.0, 1.0, 3.0])
        return (
            rng.permutation(np.repeat([0.5, 2.0], [int(rng.integers(4500, 5000)), 700])).astype(np.float16),
            edges,
        ), {}

    def many_bins(rng):
        edges = _edges(rng, int(rng.integers(*LARGE)), True)
        return (rng.uniform(edges[0] - 1, edges[-1] + 1, 400), edges), {}

    def one_inside(rng):
        x, edges = _histogram_inputs(rng, 20)
        return (np.append(x[(x < edges[0]) | (x > edges[-1])], rng.choice(edges[1:-1]) + 0.125), edges), {}

    def one_bin(rng):
        x, _ = _histogram_inputs(rng, 20)
        return (x, np.array([-0.5, 2.0])), {}

    def none_inside(rng):
        x, edges = _histogram_inputs(rng, 20)
        return (x + 100, edges), {}

    def no_samples(rng):
        return (np.zeros(0), _edges(rng, 4, True)), {}

    def strided(rng):
        x, edges = _histogram_inputs(rng, 80)
        return (x[::-2], edges), {}

    return (
        Case("equal-widths", "values", "samples inside bins of equal width", equal),
        Case("unequal-widths", "values", "samples inside bins of unequal width", unequal),
        Case(
            "outside",
            "values",
            "samples of which some lie outside the edges",
            outside,
            "only the samples inside the edges count",
        ),
        Case(
            "on-edges",
            "values",
            "samples that lie exactly on the edges",
            on_edges,
            "a bin holds its left edge, and the last bin its right edge too",
        ),
        Case("empty-bin", "values", "samples that leave a bin empty", empty_bin, "an empty bin gets 0"),
        Case("float32", "numerics", "float32 samples", float32, _KEEPS_DTYPE),
        Case(
            "half-counts",
            "numerics",
            "thousands of float16 samples in one bin",
            half_counts,
            "counts are exact (float16 cannot count past 2048) and the answer is float16",
        ),
        Case("half-edges", "numerics", _BETWEEN_HALVES, _between_halves, _EDGE_ITSELF),
        Case("one-bin", "edges", "a single bin", one_bin),
        Case("many-bins", "edges", "dozens of bins", many_bins, far=True),
        Case(
            "one-inside",
            "edges",
            "samples of which a single one lies inside the edges",
            one_inside,
            "its bin gets a share of 1, and the others get 0",
        ),
        Case("strided", "edges", "a view with strides, not contiguous in memory", strided),
        Case(
            "none-inside",
            "edges",
            "samples that all lie outside the edges",
            none_inside,
            "there is nothing to divide by: ValueError",
            ValueError,
        ),
        Case(
            "no-samples",
            "edges",
            "no samples at all",
            no_samples,
            "there is nothing to divide by: ValueError",
            ValueError,
        ),
    )


def held_out_cases():
    def inside(x, edges):
        return x[(x >= edges[0]) & (x <= edges[-1])]

    def covered(rng):
        train, edges = _histogram_inputs(rng, int(rng.integers(80, 120)))
        test = inside(train[0] + rng.normal(size=30) * 2, edges)
        return (train, np.concatenate([test, edges[:-1] + 0.125]), edges), {}

    def equal(rng):
        train, edges = _histogram_inputs(rng, int(rng.integers(80, 120)), unequal=False)
        return (train, edges[:-1] + 0.125, edges), {}

    def on_edges(rng):
        train, edges = _histogram_inputs(rng, int(rng.integers(80, 120)))
        return (train, np.concatenate([edges, edges[-1:]]), edges), {}

    def on_inner_edges(rng):
        train, edges = _histogram_inputs(rng, int(rng.integers(80, 120)))
        return (train, rng.permutation(edges[1:-1]), edges), {}

    def in_empty_bin(rng):
        train, edges = _histogram_inputs(rng, int(rng.integers(80, 120)))
        return (train[(train < edges[1]) | (train >= edges[2])], edges[:-1] + 0.125, edges), {}

    def outside(rng):
        train, edges = _histogram_inputs(rng, int(rng.integers(80, 120)))
        return (train, np.append(edges[:-1] + 0.125, edges[-1] + 1), edges), {}

    def below(rng):
        train, edges = _histogram_inputs(rng, int(rng.integers(80, 120)))
        return (train, np.append(edges[:-1] + 0.125, edges[0] - 1), edges), {}

    def far_below(rng):
        edges = np.array([0.0, 1.0, 2.0])
        train = np.concatenate([np.full(int(rng.integers(4000, 5000)), 0.5), [1.5]])
        return (train, np.array([1.5, 1.5, 0.5]), edges), {}

    def float32(rng):
        (train, test, edges), _ = covered(rng)
        return (train.astype(np.float32), test.astype(np.float32), edges), {}

    def half_edges(rng):
        (train, edges), _ = _between_halves(rng)
        return (train, edges[:-1].astype(np.float16) + np.float16(2), edges), {}

    def one_inside(rng):
        train, edges = _histogram_inputs(rng, 20)
        middle = (edges[1] + edges[2]) / 2
        outside = train[(train < edges[0]) | (train > edges[-1])]
        return (np.append(outside, middle), np.array([middle, edges[1] + 0.125]), edges), {}

    def many_bins(rng):
        edges = _edges(rng, int(rng.integers(*LARGE)), True)
        middles = (edges[:-1] + edges[1:]) / 2
        return (np.concatenate([rng.uniform(edges[0] - 1, edges[-1] + 1, 400), middles]), middles, edges), {}

    def none_inside(rng):
        train, edges = _histogram_inputs(rng, 20)
        return (train + 100, edges[:-1], edges), {}

    def one_test(rng):
        train, edges = _histogram_inputs(rng, 40)
        return (train, edges[1:2] + 0.125, edges), {}

    return (
        Case("covered", "values", "test points that all lie in bins with training points", covered),
        Case("equal-widths", "values", "bins of equal width", equal),
        Case(
            "on-edges",
            "values",
            "test points exactly on the edges",
            on_edges,
            "a bin holds its left edge, and the last bin its right edge too",
        ),
        Case(
            "inner-edges",
            "values",
            "test points exactly on the edges between two bins",
            on_inner_edges,
            "a bin holds its left edge",
        ),
        Case(
            "in-empty-bin",
            "values",
            "a test point in a bin without training points",
            in_empty_bin,
            "its density is 0, so the mean log density is -inf",
        ),
        Case(
            "outside",
            "values",
            "a test point above the last edge",
            outside,
            "its density is 0, so the mean log density is -inf",
        ),
        Case(
            "below",
            "values",
            "a test point below the first edge",
            below,
            "its density is 0, so the mean log density is -inf",
        ),
        Case("rare", "numerics", "test points in a bin that one of thousands of training points hit", far_below),
        Case("float32", "numerics", "float32 samples", float32),
        Case("half-edges", "numerics", _BETWEEN_HALVES, half_edges, _EDGE_ITSELF),
        Case("one-test-point", "edges", "a single test point", one_test),
        Case("many-bins", "edges", "dozens of bins", many_bins),
        Case(
            "one-inside",
            "edges",
            "training points of which a single one lies inside the edges",
            one_inside,
            "one point is a histogram too",
        ),
        Case(
            "none-inside",
            "edges",
            "training points that all lie outside the edges",
            none_inside,
            "there is no histogram: ValueError",
            ValueError,
        ),
    )


# ---- softmax -------------------------------------------------------------------------------------------------------


def _logits(rng, offsets, dtype=np.float64, width=None):
    """Rows of logits, one for each offset."""
    rows = rng.normal(size=(len(offsets), width or int(rng.integers(5, 9)))) * 2
    return (rows + np.reshape(offsets, (-1, 1))).astype(dtype)


def _large_cases(expect):
    """Logits where exp overflows or underflows unless the right number is taken out first."""

    def large(rng):
        return (_logits(rng, rng.uniform(900, 1100, 3)),), {}

    def very_negative(rng):
        return (_logits(rng, rng.uniform(-1100, -900, 3)),), {}

    def rows_apart(rng):
        return (_logits(rng, rng.permutation([-2000.0, 0.0, 2000.0])),), {}

    def outlier(rng):
        x = _logits(rng, [0.0, 0.0], width=int(rng.integers(9, 14)))
        x[:, 2] = 5000.0
        return (x,), {}

    def low_outlier(rng):
        x = _logits(rng, [0.0, 0.0], width=int(rng.integers(9, 14)))
        x[:, 1] = -5000.0
        return (x,), {}

    def float32(rng):
        return (_logits(rng, [95.0, 120.0], np.float32),), {}

    def float16(rng):
        return (_logits(rng, [14.0, 20.0], np.float16),), {}

    def half_sums(rng):
        # exp(x - max) averages 0.89 here: the sum passes float16's largest number, 65504.
        return (rng.choice([0.0, -0.25], (1, int(rng.integers(77_000, 80_000)))).astype(np.float16),), {}

    def spread(rng):
        return (np.array([[0.0, -60.0, 30.0, -200.0], [40.0, 40.0, -300.0, 0.0]]) + rng.normal(size=(2, 4)),), {}

    return (
        Case("large", "numerics", "logits near 1000", large, expect, far=True),
        Case("very-negative", "numerics", "logits near -1000", very_negative, expect, far=True),
        Case(
            "rows-apart",
            "numerics",
            "rows thousands apart from one another",
            rows_apart,
            f"{expect}, with a maximum of its own for each slice",
            far=True,
        ),
        Case(
            "outlier",
            "numerics",
            "rows with one logit of 5000",
            outlier,
            f"{expect}; only the maximum is safe to take out",
            far=True,
        ),
        Case("low-outlier", "numerics", "rows with one logit of -5000", low_outlier, expect, far=True),
        Case("spread", "numerics", "logits spread over hundreds", spread, expect, far=True),
        Case(
            "float32-large",
            "numerics",
            "float32 logits near 100, where exp overflows float32",
            float32,
            expect,
            far=True,
        ),
        Case(
            "float16-large",
            "numerics",
            "float16 logits near 15, where exp overflows float16",
            float16,
            f"{expect}, computed in float32 and returned in float16",
            far=True,
        ),
        Case(
            "float16-long",
            "numerics",
            "float16 slices so long that the sum of exponentials overflows float16",
            half_sums,
            f"{expect}, computed in float32 and returned in float16",
        ),
    )


def _masked(rng):
    x = _logits(rng, [0.0, 1.0, 2.0])
    x[0, 1] = x[2, 0] = x[2, 3] = -np.inf
    return (x,), {}


def _all_masked(rng):
    x = _logits(rng, [0.0, 1.0, 2.0])
    x[1] = -np.inf
    return (x,), {}


def _plus_inf(rng):
    x = _logits(rng, [0.0, 1.0, 2.0])
    x[2, 1] = np.inf
    return (x,), {}


def softmax_cases():
    return (
        *along_axis().values(),
        *_large_cases("the answer is that of the same logits moved to 0"),
        Case(
            "minus-inf",
            "numerics",
            "rows with a logit of -inf",
            _masked,
            "it gets probability 0 and the rest is as if it were not there",
        ),
        Case(
            "all-minus-inf",
            "edges",
            "a row of nothing but -inf",
            _all_masked,
            "there is no distribution: that row is NaN, as in PyTorch",
        ),
        Case(
            "nan",
            "edges",
            "an array with a NaN in it",
            with_nan,
            "the slice that holds it becomes NaN, so that the fault shows",
        ),
        Case("single", "edges", "slices of a single logit", one_column, "it gets all of the probability: 1"),
    )


def logsumexp_cases():
    def unit_axis(rng):
        return (uneven(rng, (2, 1, int(rng.integers(3, 7)))),), {"axis": -1}

    return (
        *along_axis().values(),
        *_large_cases("the answer moves with the logits: log(sum(exp(x + c))) = c + log(sum(exp(x)))"),
        Case("minus-inf", "numerics", "rows with a logit of -inf", _masked, "the rest is as if it were not there"),
        Case("all-minus-inf", "edges", "a row of nothing but -inf", _all_masked, "the log of an empty sum is -inf"),
        Case("plus-inf", "edges", "a row with a logit of +inf", _plus_inf, "the answer is +inf"),
        Case(
            "nan",
            "edges",
            "an array with a NaN in it",
            with_nan,
            "the slice that holds it becomes NaN, so that the fault shows",
        ),
        Case("single", "edges", "slices of a single logit", one_column, "the answer is that logit"),
        Case("unit-axis", "edges", "an array with another axis of one element", unit_axis, "axis alone is dropped"),
    )


SAMPLES = 100_000  # of each statistical case; see exercises.py for the false-alarm rate


def gumbel_cases():
    def seed(rng):
        return np.random.default_rng(int(rng.integers(2**32)))

    def upset(rng, logits):
        # The first draw is not the likeliest class, or one draw shared by all samples could look like no noise at all.
        while True:
            start = int(rng.integers(2**32))
            if np.argmax(logits + np.random.default_rng(start).gumbel(size=len(logits))) != np.argmax(logits):
                return np.random.default_rng(start)

    def ladder(rng):
        logits = rng.permutation(np.arange(4.0))
        return (logits, upset(rng, logits), SAMPLES), {}

    def uneven_logits(rng):
        return (np.append(rng.uniform(-1.2, 1.2, int(rng.integers(3, 6))), 1.5), seed(rng), SAMPLES), {}

    def grid(rng):
        return (rng.uniform(-1, 1, 3), seed(rng), (100, 2, SAMPLES // 200)), {}

    def large(rng):
        return (rng.permutation([0.0, 1.0, 2.0, 2.5]) + 1000, seed(rng), SAMPLES), {}

    def very_negative(rng):
        return (rng.permutation([0.0, 1.0, 2.0, 2.5]) - 1000, seed(rng), SAMPLES), {}

    def masked(rng):
        return (rng.permutation([0.0, 1.0, -np.inf, 2.0]), seed(rng), SAMPLES), {}

    def two(rng):
        return (np.array([0.0, float(rng.uniform(1.0, 2.0))]), seed(rng), SAMPLES), {}

    def many(rng):
        return (rng.normal(size=int(rng.integers(*LARGE))), seed(rng), SAMPLES // 20), {}

    def one(rng):
        return (np.array([0.3]), seed(rng), (2, 3)), {}

    def none(rng):
        return (np.array([0.3, 0.1]), seed(rng), 0), {}

    expect = "class k is drawn with probability softmax(logits)[k]"
    return (
        Case("ladder", "values", "logits 0, 1, 2, 3 in some order", ladder, expect),
        Case("uneven", "values", "uneven logits", uneven_logits, expect),
        Case("two", "values", "two classes", two, expect),
        Case("grid", "values", "a size with three axes", grid, f"the answer has that shape, and {expect}"),
        Case("large", "numerics", "logits near 1000", large, f"only differences of logits matter: {expect}"),
        Case(
            "very-negative",
            "numerics",
            "logits near -1000",
            very_negative,
            f"only differences of logits matter: {expect}",
        ),
        Case("minus-inf", "numerics", "a logit of -inf", masked, f"that class is never drawn, and {expect}"),
        Case("many", "edges", "dozens of classes", many, expect),
        Case("one-class", "edges", "a single class", one, "it is always drawn: index 0"),
        Case("size-0", "edges", "size 0", none, "the answer is an empty array of integers"),
    )


def bayes_cases():
    def prior(rng, count):
        p = rng.uniform(0.2, 1.0, count) * np.arange(1, count + 1)
        return np.log(p / p.sum())

    def draw(rows, offset, dtype=np.float64, square=False):
        def inner(rng):
            classes, samples = sizes(rng, 2, 3, 7)
            samples = classes if square else rows or samples
            likelihood = rng.normal(size=(samples, classes)) * 2 + offset * rng.uniform(0.9, 1.1, (samples, 1))
            return (prior(rng, classes).astype(dtype), likelihood.astype(dtype)), {}

        return inner

    def impossible(rng):
        (log_prior, likelihood), _ = draw(None, 0)(rng)
        log_prior[1] = -np.inf
        likelihood[0, 2] = -np.inf
        return (log_prior, likelihood), {}

    def unnormalized(rng):
        (log_prior, likelihood), _ = draw(None, 0)(rng)
        return (log_prior + 3, likelihood), {}

    def far_prior(rng):
        (log_prior, likelihood), _ = draw(None, 0)(rng)
        return (log_prior - 2000, likelihood), {}

    def confident(rng):
        (log_prior, likelihood), _ = draw(None, 0)(rng)
        return (log_prior, likelihood * 400), {}

    def strided(rng):
        return (prior(rng, 4), view(rng, (6, 4))), {}

    def spoiled(rng):
        (log_prior, likelihood), _ = draw(None, 0)(rng)
        likelihood[1, 1] = np.nan
        return (log_prior, likelihood), {}

    def large(rng):
        samples, classes = sizes(rng, 2, *LARGE)
        return (prior(rng, classes), rng.normal(size=(samples, classes)) * 2 - 2), {}

    rows = "each sample's posterior over the classes sums to 1"
    return (
        Case("few", "values", "a handful of samples and classes", draw(None, -2)),
        Case("square", "values", "as many samples as classes", draw(None, -2, square=True)),
        Case("one-sample", "values", "a single sample", draw(1, -2)),
        Case("unnormalized-prior", "values", "a prior known up to a factor", unnormalized, "the factor cancels"),
        Case("tiny", "numerics", "log-likelihoods near -1e4, where every exp is 0", draw(None, -1e4), rows, far=True),
        Case(
            "huge", "numerics", "log-likelihoods near +1e4, where every exp overflows", draw(None, 1e4), rows, far=True
        ),
        Case("confident", "numerics", "log-likelihoods hundreds apart", confident, rows, far=True),
        Case("float32", "numerics", "float32 input", draw(None, -300, np.float32), f"{rows}, in float32", far=True),
        Case(
            "float16",
            "numerics",
            "float16 log-likelihoods near -300",
            draw(None, -300, np.float16),
            f"{rows}; it is computed in float32 and returned in float16",
        ),
        Case(
            "far-prior",
            "numerics",
            "a log-prior near -2000, known up to a constant",
            far_prior,
            "the constant cancels",
            far=True,
        ),
        Case(
            "impossible",
            "edges",
            "a class of prior 0 and a likelihood of 0",
            impossible,
            "what is impossible gets posterior 0",
        ),
        Case("strided", "edges", "a view with strides, not contiguous in memory", strided),
        Case(
            "nan",
            "edges",
            "a log-likelihood of NaN",
            spoiled,
            "the posterior of that sample becomes NaN, so that the fault shows",
        ),
        Case("large-array", "edges", "dozens of samples and of classes", large),
    )


def old_output_cases():
    def seed(value):
        def draw(rng):
            return (int(rng.integers(1, 2**31)) if value is None else value,), {}

        return draw

    return (
        Case("question", "values", "seed 0, the question's", seed(0), "the eight printed numbers come back"),
        Case(
            "other",
            "values",
            "another seed",
            seed(None),
            "the weight is drawn from U(0, 1), then the input from N(0, 1)",
        ),
        Case("float32", "numerics", "a third seed", seed(None), "the answer is float32, as PyTorch printed it"),
        Case(
            "large-seed", "edges", "a seed of more than 32 bits", seed(2**40 + 7), "any seed of torch.manual_seed works"
        ),
    )


# ---- the family ----------------------------------------------------------------------------------------------------


_ZERO_IS_A_WEIGHT = "0 is a weight too: nothing is left of x_hat"
_NAN_SHOWS = "a NaN makes everything in its pool NaN, as in PyTorch, so that the fault shows"


def channels_first(call):
    """Cases of a norm over (N, C, positions...). `call(rng, x, eps)` makes (args, kwargs) of x, drawing the rest."""

    def shaped(*shape, **how):
        def draw(rng):
            chosen = tuple(n if isinstance(n, int) else int(rng.integers(*n)) for n in shape)
            return call(rng, uneven(rng, chosen, **how))

        return draw

    def square(rng):
        return call(rng, uneven(rng, (4, 6, 6, 6)))

    def with_eps(rng):
        return call(rng, uneven(rng, (5, 6, 3), scale=0.5), eps=0.3)

    def constant_channel(rng):
        x = uneven(rng, (5, 6, 4))
        x[:, 0:3] = 2.5
        return call(rng, x)

    def half(rng):
        values = rng.choice([-1, 1], (4, 6, 9)) * rng.integers(260, 400, (4, 6, 9))
        return call(rng, values.astype(np.float16))

    def half_near(rng):
        return call(rng, (1000 + rng.integers(-3, 4, (4, 6, 7)) / 2).astype(np.float16))

    def with_nan(rng):
        x = uneven(rng, (3, 6, 4))
        x[:, :, 3] = np.nan  # in every pool: sums by matrix products spread a NaN into pools that they multiply by 0
        return call(rng, x)

    def strided(rng):
        return call(rng, view(rng, (3, 6, 4, 5)))

    def channels_last(rng):
        return call(rng, np.moveaxis(uneven(rng, (3, 4, 5, 6)), -1, 1))

    def zero_weight(rng):
        args, kwargs = call(rng, uneven(rng, (3, 6, 5)))
        (kwargs["weight"] if "weight" in kwargs else args[1])[:] = 0
        return args, kwargs

    half_rule = "the statistics are computed in float32 and the answer is float16"
    return {
        "image": Case("image", "values", "a batch of images (N, C, H, W)", shaped((3, 6), 6, 4, 5)),
        "square": Case("square", "values", "images whose width equals their number of channels", square),
        "sequence": Case("sequence", "values", "a batch of sequences (N, C, L)", shaped((3, 6), 6, (5, 9))),
        "own-eps": Case("own-eps", "values", "a call with an eps of its own", with_eps, _EPS_RULES),
        "float32": Case("float32", "numerics", "a float32 batch", shaped(3, 6, (4, 8), dtype=np.float32), _KEEPS_DTYPE),
        "small-std": Case(
            "small-std",
            "numerics",
            "values whose standard deviation is about 1e-3, where eps counts",
            shaped(4, 6, 5, scale=1e-3),
            _EPS_RULES,
        ),
        "constant": Case(
            "constant",
            "numerics",
            "channels that are constant",
            constant_channel,
            "a constant pool has nothing to scale: it comes out as the bias",
            far=True,
        ),
        "far-float32": Case(
            "far-float32",
            "numerics",
            "float32 values near 1e4",
            shaped(5, 6, (8, 12), offset=1e4, dtype=np.float32),
            _FAR,
            far=True,
        ),
        "far-float64": Case(
            "far-float64", "numerics", "float64 values near 1e7", shaped(5, 6, (8, 12), offset=1e7), _FAR, far=True
        ),
        "half-wide": Case(
            "half-wide", "numerics", "float16 values of a few hundred, whose squares overflow float16", half, half_rule
        ),
        "half-far": Case("half-far", "numerics", "float16 values near 1000", half_near, half_rule, far=True),
        "volume": Case("volume", "edges", "a batch of volumes (N, C, D, H, W)", shaped((2, 4), 6, 3, 2, 4)),
        "strided": Case("strided", "edges", "a view with strides, not contiguous in memory", strided),
        "channels-last": Case(
            "channels-last", "edges", "images stored channels last, seen as (N, C, H, W)", channels_last
        ),
        "one-example": Case("one-example", "edges", "a single example with positions (1, C, L)", shaped(1, 6, (5, 9))),
        "nan": Case("nan", "edges", "a NaN in every pool", with_nan, _NAN_SHOWS),
        "zero-weight": Case("zero-weight", "edges", "a weight of nothing but zeros", zero_weight, _ZERO_IS_A_WEIGHT),
        "large": Case("large-array", "edges", "a larger batch (N, C, L)", shaped(3, 66, LARGE)),
    }


def batch_norm_cases():
    def call(rng, x, eps=None):
        return (x, *affine(rng, x.shape[1], x.dtype)), {} if eps is None else {"eps": eps}

    def table(rng):
        return call(rng, uneven(rng, sizes(rng, 2, 4, 9)))

    def square_table(rng):
        return call(rng, uneven(rng, (5, 5)))

    def pair(rng):
        return call(rng, uneven(rng, (2, 5)))

    def one_channel(rng):
        return call(rng, uneven(rng, (4, 1, 3)))

    def one_row(rng):
        return call(rng, uneven(rng, (1, sizes(rng, 1)[0])))

    def one_pixel(rng):
        return call(rng, uneven(rng, (1, sizes(rng, 1)[0], 1, 1)))

    return (
        Case("table", "values", "a 2-D batch (N, C)", table),
        Case("square-table", "values", "a 2-D batch with as many examples as channels", square_table),
        *channels_first(call).values(),
        Case("pair", "edges", "a batch of two", pair),
        Case("one-channel", "edges", "a single channel", one_channel),
        Case(
            "one-row",
            "edges",
            "a batch of one (1, C)",
            one_row,
            "one value per channel has no variance: ValueError, as in PyTorch",
            ValueError,
        ),
        Case(
            "one-pixel",
            "edges",
            "one example of one position (1, C, 1, 1)",
            one_pixel,
            "one value per channel has no variance: ValueError, as in PyTorch",
            ValueError,
        ),
    )


def _without_affine(make):
    """The same norm without weight and bias, with weight alone and with bias alone."""

    def plain(rng):
        args, _ = make(rng)
        return args, {}

    def weight_only(rng):
        args, kwargs = make(rng)
        return args, {"weight": kwargs["weight"]}

    def bias_only(rng):
        args, kwargs = make(rng)
        return args, {"bias": kwargs["bias"]}

    return (
        Case(
            "no-affine", "values", "a call without weight and bias", plain, "None means a weight of 1 and a bias of 0"
        ),
        Case("weight-only", "values", "a call with a weight and no bias", weight_only, "None means a bias of 0"),
        Case(
            "bias-only",
            "values",
            "a call with a bias and no weight",
            bias_only,
            "None means a weight of 1; the bias still counts",
        ),
    )


def instance_norm_cases():
    def call(rng, x, eps=None):
        weight, bias = affine(rng, x.shape[1], x.dtype)
        return (x,), {"weight": weight, "bias": bias} | ({} if eps is None else {"eps": eps})

    def make(rng):
        return call(rng, uneven(rng, (3, 4, 5)))

    def one_wide(rng):
        return call(rng, uneven(rng, (*sizes(rng, 3), 1)))

    def two_positions(rng):
        return call(rng, uneven(rng, (*sizes(rng, 2), 2)))

    def as_many_positions(rng):
        n = int(rng.integers(4, 8))
        return call(rng, uneven(rng, (3, n, n)))

    def one_position(rng):
        return call(rng, uneven(rng, (3, 4, 1)))

    def no_positions(rng):
        return call(rng, uneven(rng, (3, 4)))

    error = "one position per channel has no variance: ValueError, as in PyTorch"
    return (
        *channels_first(call).values(),
        *_without_affine(make),
        Case("as-many", "values", "sequences with as many positions as channels", as_many_positions),
        Case("two-positions", "edges", "two positions per channel (N, C, 2)", two_positions),
        Case(
            "one-wide",
            "edges",
            "images one pixel wide (N, C, H, 1)",
            one_wide,
            "each channel of an image has its H positions: mean 0 and variance 1 over them",
        ),
        Case("one-position", "edges", "one position per channel (N, C, 1)", one_position, error, ValueError),
        Case("no-positions", "edges", "no axis of positions (N, C)", no_positions, error, ValueError),
    )


def group_norm_cases():
    def call(rng, x, eps=None):
        weight, bias = affine(rng, x.shape[1], x.dtype)
        return (x, 2), {"weight": weight, "bias": bias} | ({} if eps is None else {"eps": eps})

    def make(rng):
        return call(rng, uneven(rng, (3, 6, 5)))

    def table(rng):
        (x, _), kwargs = call(rng, uneven(rng, (4, 6)))
        return (x, 3), kwargs

    def groups(count, channels=6):
        def draw(rng):
            (x, _), kwargs = call(rng, uneven(rng, (3, channels, 4)))
            return (x, count), kwargs

        return draw

    def uneven_groups(rng):
        (x, _), kwargs = call(rng, uneven(rng, (3, 6, 4)))
        return (x, int(rng.choice([4, 5]))), kwargs

    def too_many(rng):
        # As many positions as make a reshape into so many groups possible: the error has to be a decision.
        (x, _), kwargs = call(rng, uneven(rng, (3, 6, 2 * int(rng.integers(2, 6)))))
        return (x, 12), kwargs

    error = "no equal groups can be made: ValueError"
    return (
        *channels_first(call).values(),
        *_without_affine(make),
        Case("table", "values", "a 2-D batch (N, C)", table),
        Case("three-groups", "values", "six channels in three groups", groups(3)),
        Case("one-group", "edges", "one group", groups(1), "all channels and positions of an example are one pool"),
        Case(
            "group-each",
            "edges",
            "as many groups as channels",
            groups(6),
            "each channel is a pool, as in instance norm",
        ),
        Case("not-divisible", "edges", "channels that the groups do not divide", uneven_groups, error, ValueError),
        Case("too-many", "edges", "more groups than channels", too_many, error, ValueError),
    )


def channels_last(with_bias):
    """Cases of a norm over the trailing axes that normalized_shape names."""

    def call(rng, x, inner=1, eps=None):
        shape = x.shape[-inner:]
        weight, bias = affine(rng, shape, x.dtype)
        kwargs = {"weight": weight} | ({"bias": bias} if with_bias else {})
        return (x, shape), kwargs | ({} if eps is None else {"eps": eps})

    def shaped(*shape, inner=1, **how):
        def draw(rng):
            chosen = tuple(n if isinstance(n, int) else int(rng.integers(*n)) for n in shape)
            return call(rng, uneven(rng, chosen, **how), inner)

        return draw

    def with_eps(rng):
        return call(rng, uneven(rng, (5, 7), scale=0.5), eps=0.3)

    def plain(rng):
        return call(rng, uneven(rng, (4, 7)))[0], {}

    def constant_row(rng):
        x = uneven(rng, (4, 6))
        x[1] = 2.5
        return call(rng, x)

    def zero_row(rng):
        x = uneven(rng, (4, 6))
        x[1] = 0
        return call(rng, x)

    def half(rng):
        values = rng.choice([-1, 1], (4, 30)) * rng.integers(260, 400, (4, 30))
        return call(rng, values.astype(np.float16))

    def half_near(rng):
        return call(rng, (1000 + rng.integers(-3, 4, (5, 12)) / 2).astype(np.float16))

    def strided(rng):
        return call(rng, view(rng, (3, 4, 6)))

    def vector(rng):
        return call(rng, uneven(rng, sizes(rng, 1, 4, 9)))

    def with_nan(rng):
        x = uneven(rng, (4, 6))
        x[:, 2] = np.nan
        return call(rng, x)

    def zero_weight(rng):
        args, kwargs = call(rng, uneven(rng, (4, 6)))
        kwargs["weight"][:] = 0
        return args, kwargs

    half_rule = "the statistics are computed in float32 and the answer is float16"
    return {
        "rows": Case("rows", "values", "a batch of vectors (N, D)", shaped((3, 6), 7)),
        "square": Case("square", "values", "as many vectors as features", shaped(5, 5)),
        "tokens": Case("tokens", "values", "a batch of sequences (N, L, D)", shaped(3, (4, 7), 8)),
        "two-inner": Case(
            "two-inner", "values", "a batch with a normalized_shape of two axes", shaped(3, 4, 5, inner=2)
        ),
        "no-affine": Case(
            "no-affine",
            "values",
            "a call without weight and bias" if with_bias else "a call without a weight",
            plain,
            "None means a weight of 1 and a bias of 0" if with_bias else "None means a weight of 1",
        ),
        "own-eps": Case("own-eps", "values", "a call with an eps of its own", with_eps),
        "float32": Case("float32", "numerics", "a float32 batch", shaped(4, (6, 9), dtype=np.float32), _KEEPS_DTYPE),
        "small-std": Case("small-std", "numerics", "values of about 1e-3, where eps counts", shaped(4, 7, scale=1e-3)),
        "constant": Case("constant", "numerics", "a vector that is constant", constant_row, far=True),
        "zero": Case("zero", "numerics", "a vector of zeros", zero_row, "zeros stay zeros before weight and bias"),
        "far-float32": Case(
            "far-float32",
            "numerics",
            "float32 values near 1e4",
            shaped(6, (40, 56), offset=1e4, dtype=np.float32),
            far=True,
        ),
        "far-float64": Case(
            "far-float64", "numerics", "float64 values near 1e7", shaped(6, (40, 56), offset=1e7), far=True
        ),
        "half-wide": Case(
            "half-wide", "numerics", "float16 values of a few hundred, whose squares overflow float16", half, half_rule
        ),
        "half-far": Case("half-far", "numerics", "float16 values near 1000", half_near, half_rule, far=True),
        "vector": Case("vector", "edges", "a single vector (D,)", vector),
        "deep": Case("deep", "edges", "a 4-D array", shaped(2, 3, (2, 5), 6)),
        "deep-inner": Case(
            "deep-inner", "edges", "a 4-D array with a normalized_shape of two axes", shaped(2, 3, (2, 5), 6, inner=2)
        ),
        "three-inner": Case(
            "three-inner",
            "edges",
            "a 4-D array with a normalized_shape of three axes",
            shaped(3, 2, (3, 6), 4, inner=3),
        ),
        "nan": Case("nan", "edges", "a NaN in every pool", with_nan, _NAN_SHOWS),
        "zero-weight": Case("zero-weight", "edges", "a weight of nothing but zeros", zero_weight, _ZERO_IS_A_WEIGHT),
        "strided": Case("strided", "edges", "a view with strides, not contiguous in memory", strided),
        "large": Case("large-array", "edges", "a larger batch (N, D)", shaped(LARGE, (91, 120))),
    }


def layer_norm_cases():
    def make(rng):
        x = uneven(rng, (4, 6))
        weight, bias = affine(rng, (6,), x.dtype)
        return (x, (6,)), {"weight": weight, "bias": bias}

    def one_feature(rng):
        x = _powers_of_two(rng, (4, 1))
        weight, bias = affine(rng, (1,), x.dtype)
        return (x, (1,)), {"weight": weight, "bias": bias}

    cases = channels_last(with_bias=True)
    del cases["no-affine"], cases["zero"]
    single = Case(
        "single", "edges", "vectors of one feature", one_feature, "each is its own mean: it comes out as the bias"
    )
    return (*cases.values(), *_without_affine(make), single)


def rms_norm_cases():
    def default_eps(dtype, scale):
        def draw(rng):
            return (uneven(rng, (4, 7), scale=scale, dtype=dtype), (7,)), {}

        return draw

    def zero_eps(rng):
        return (uneven(rng, (4, 7), scale=1e-8), (7,)), {"eps": 0.0}

    expect = "eps=None means the machine epsilon of float32 (of float64 for float64 input)"
    half = "eps=None means the machine epsilon of float32, also for float16 input"
    return (
        *channels_last(with_bias=False).values(),
        Case("zero-eps", "edges", "a call with eps=0", zero_eps, "0 is an eps too: only None means the default"),
        Case(
            "default-eps-32",
            "numerics",
            "float32 values of about 1e-4, with the default eps",
            default_eps(np.float32, 1e-4),
            expect,
        ),
        Case(
            "default-eps-64",
            "numerics",
            "float64 values of about 1e-8, with the default eps",
            default_eps(np.float64, 1e-8),
            expect,
        ),
        Case(
            "default-eps-16",
            "numerics",
            "float16 values of about 1e-3, with the default eps",
            default_eps(np.float16, 1e-3),
            half,
        ),
    )
