"""two_pass_variance, welford and merge_statistics: truths, cases and known mistakes of the chapter `variance`."""

from fractions import Fraction

import numpy as np

from normlab.cases import Case
from normlab.drive import streams
from normlab.frame import Exercise, mistakes_table, wide, with_switches
from normlab.guard import MUTATES_INPUT

STATISTICS = (("n", "int"), ("mean", "float"), ("m2", "float"))


# ---- how a stream is handed over ----------------------------------------------------------------------------------


# ---- truths ------------------------------------------------------------------------------------------------------


def _torch_variance(torch, x):
    return torch.var(x, correction=0)


def _variance(x):
    return ((x - x.mean()) ** 2).mean()


def _torch_welford(torch, values):
    if not len(values):
        return 0, 0.0, 0.0
    return len(values), values.mean(), torch.var(values, correction=0) * len(values)


def _welford(values):
    n, mean, m2 = 0, 0.0, 0.0
    for x in values.tolist():
        n += 1
        delta = x - mean
        mean += delta / n
        m2 += delta * (x - mean)
    return n, mean, m2


def _exact_merge(torch, a, b):
    """From the definitions, in fractions: no rounding but the last."""
    (n_a, mean_a, m2_a), (n_b, mean_b, m2_b) = (tuple(map(Fraction, part)) for part in (a, b))
    n = n_a + n_b
    if n == 0:
        return 0, 0.0, 0.0
    mean = (n_a * mean_a + n_b * mean_b) / n
    m2 = m2_a + n_a * (mean_a - mean) ** 2 + m2_b + n_b * (mean_b - mean) ** 2
    return int(n), float(mean), float(m2)


def _merge(a, b):
    (n_a, mean_a, m2_a), (n_b, mean_b, m2_b) = a, b
    n = n_a + n_b
    if n == 0:
        return 0, 0.0, 0.0
    delta = mean_b - mean_a
    return n, mean_a + delta * n_b / n, m2_a + m2_b + delta**2 * n_a * n_b / n


# ---- cases -------------------------------------------------------------------------------------------------------

_FAR = "the mean is subtracted before anything is squared, so that nothing cancels"


def _numbers(low, high=None, offset=0.0, scale=1.0, dtype=np.float64):
    """Draws between `low` and `high` normal numbers around about `offset`."""

    def draw(rng):
        n = low if high is None else int(rng.integers(low, high))
        x = rng.standard_normal(n) * scale * rng.uniform(0.8, 1.6) + offset + scale * rng.normal()
        return (x.astype(dtype),), {}

    return draw


def _negative(rng):
    return (-rng.uniform(1, 9, int(rng.integers(6, 12))),), {}


def _constant(dtype):
    def draw(rng):
        # Whole numbers, so that their sum is exact in any order.
        return (np.full(int(rng.integers(200, 300)), rng.integers(1200, 1300), dtype),), {}

    return draw


def _two_pass_cases():
    def half_wide(rng):
        n = int(rng.integers(30, 50))
        return ((rng.choice([-1, 1], n) * rng.integers(260, 400, n)).astype(np.float16),), {}

    def half_far(rng):
        return ((1000 + rng.integers(-3, 4, int(rng.integers(20, 40))) / 2).astype(np.float16),), {}

    def strided(rng):
        return (rng.normal(size=int(rng.integers(20, 40)))[::-2] * 2 + 3,), {}

    def long(rng):
        # 5 to 10 above a multiple of 64: the grids of the growing sum, of 16, 32 and 64, all round downwards for long.
        x = rng.standard_normal(int(rng.integers(65_000, 66_000))) * rng.uniform(0.8, 1.4) + rng.uniform(9989, 9994)
        return (x.astype(np.float32),), {}

    half = "the arithmetic is done in float32 or wider"
    return (
        Case("short", "values", "a short array", _numbers(5, 9, offset=2.0)),
        Case("longer", "values", "an array of a few dozen values", _numbers(30, 60, offset=-1.0, scale=3.0)),
        Case("negative", "values", "an array of negative values", _negative),
        Case("tiny", "values", "an array of values of about 1e-6", _numbers(9, 15, scale=1e-6)),
        Case("float32", "numerics", "a float32 array", _numbers(20, 40, offset=1.0, dtype=np.float32)),
        Case(
            "far-float32",
            "numerics",
            "a thousand float32 values near 1e4",
            _numbers(900, 1100, 1e4, dtype=np.float32),
            _FAR,
            far=True,
        ),
        Case("far-float64", "numerics", "a thousand float64 values near 1e8", _numbers(900, 1100, 1e8), _FAR, far=True),
        Case(
            "long-float32",
            "numerics",
            "some 65,000 float32 values near 1e4",
            long,
            "the mean has to be right to well under one standard deviation",
            far=True,
        ),
        Case(
            "half-wide", "numerics", "float16 values of a few hundred, whose squares overflow float16", half_wide, half
        ),
        Case("half-far", "numerics", "float16 values near 1000", half_far, half, far=True),
        Case("one", "edges", "a single value", _numbers(1, offset=5.0), "one value has variance 0"),
        Case("two", "edges", "two values", _numbers(2), "the variance is a quarter of their squared distance"),
        Case(
            "constant",
            "edges",
            "a few hundred float32 values, all of them the same",
            _constant(np.float32),
            "equal values have variance 0",
            far=True,
        ),
        Case("strided", "edges", "a view with strides, not contiguous in memory", strided),
    )


def _welford_cases():
    def rising(rng):
        n = int(rng.integers(40, 60))
        return (np.linspace(-3, 9, n) + rng.normal(size=n),), {}

    def empty(rng):
        return (np.zeros(0),), {}

    return (
        Case("short", "values", "a short stream", _numbers(5, 9, offset=2.0)),
        Case("longer", "values", "a stream of a few dozen values", _numbers(30, 60, offset=-1.0, scale=3.0)),
        Case("rising", "values", "a stream whose values rise", rising),
        Case("negative", "values", "a stream of negative values", _negative),
        Case("far", "numerics", "a thousand values near 1e6", _numbers(900, 1100, 1e6), "no digits are lost", far=True),
        Case(
            "farther",
            "numerics",
            "a thousand values near 1e8",
            _numbers(900, 1100, 1e8),
            "m2 keeps the digits that the values have",
            far=True,
        ),
        Case("tiny", "numerics", "values of about 1e-6", _numbers(20, 40, scale=1e-6)),
        Case("long", "numerics", "a stream of some 20,000 values near 1e4", _numbers(19_000, 21_000, 1e4), far=True),
        Case("empty", "edges", "an empty stream", empty, "the answer is (0, 0.0, 0.0)"),
        Case("one", "edges", "a stream of one value", _numbers(1, offset=5.0), "the mean is that value, and m2 is 0"),
        Case("two", "edges", "a stream of two values", _numbers(2, offset=5.0)),
        Case(
            "constant",
            "edges",
            "a stream of equal values",
            _constant(np.float64),
            "the mean is that value, and m2 is 0",
            far=True,
        ),
    )


def _part(rng, low=3, high=40, offset=0.0, scale=1.0, n=None):
    """The statistics of a part: (n, mean, m2), Python numbers."""
    n = int(rng.integers(low, high)) if n is None else n
    mean = float(offset + scale * rng.uniform(1, 4) * rng.choice([-1, 1]))
    return n, mean, float((n - 1) * scale**2 * rng.uniform(0.5, 2.0))


def _parts(first=None, second=None):
    def draw(rng):
        return (_part(rng, **(first or {})), _part(rng, **(second or {}))), {}

    return draw


def _merge_cases():
    nothing = 0, 0.0, 0.0

    def equal_counts(rng):
        n = int(rng.integers(5, 20))
        return (_part(rng, n=n), _part(rng, n=n)), {}

    def equal_means(rng):
        n, mean, m2 = _part(rng)
        other = _part(rng)
        return ((n, mean, m2), (other[0], mean, other[2])), {}

    def far(rng):
        a, b = _part(rng, 40, 60, offset=1e8), _part(rng, 10, 30, offset=1e8)
        return (a, (b[0], a[1] + float(rng.uniform(2, 5)), b[2])), {}

    def huge(rng):
        return (
            _part(rng, n=int(rng.integers(2, 9)) * 10**12 + int(rng.integers(1000))),
            _part(rng, n=int(rng.integers(2, 9)) * 10**12 + int(rng.integers(1000))),
        ), {}

    def empty_first(rng):
        return (nothing, _part(rng, offset=5.0)), {}

    def empty_second(rng):
        return (_part(rng, offset=5.0), nothing), {}

    def both_empty(rng):
        return (nothing, nothing), {}

    neutral = "an empty part changes nothing: the answer is the other part"
    return (
        Case("parts", "values", "two parts of different sizes", _parts({"low": 20}, {"high": 12})),
        Case("swapped", "values", "a small part and a larger one", _parts({"high": 12}, {"low": 20})),
        Case("equal-counts", "values", "two parts of the same size", equal_counts),
        Case("apart", "values", "two parts with means far apart", _parts({"offset": -30.0}, {"offset": 30.0})),
        Case("far", "numerics", "means near 1e8 that differ by a few", far, "m2 keeps its digits"),
        Case("huge", "numerics", "parts of trillions of values each", huge, "the counts still weigh the means"),
        Case("tiny", "numerics", "values of about 1e-6", _parts({"scale": 1e-6}, {"scale": 1e-6})),
        Case(
            "lopsided",
            "numerics",
            "a million values and a single one",
            _parts({"n": 1_000_000}, {"n": 1, "offset": 50.0}),
            "the mean moves a millionth of the way to the single value",
        ),
        Case("empty-first", "edges", "a first part that is empty", empty_first, neutral),
        Case("empty-second", "edges", "a second part that is empty", empty_second, neutral),
        Case("both-empty", "edges", "two empty parts", both_empty, "the answer is (0, 0.0, 0.0)"),
        Case("singles", "edges", "two single values", _parts({"n": 1}, {"n": 1})),
        Case("equal-means", "edges", "parts with the same mean", equal_means, "nothing is added between the parts"),
    )


EXERCISES = (
    Exercise(
        name="two_pass_variance",
        stem="variance",
        expect="the answer is the mean of the squared distances from the mean",
        signature_of=_variance,
        torch_truth=_torch_variance,
        numpy_truth=_variance,
        cases=_two_pass_cases(),
        returns="float",
    ),
    Exercise(
        name="welford",
        stem="variance",
        expect="the answer is (n, mean, m2), where m2 is the sum of the squared distances from the mean",
        signature_of=lambda stream: None,
        torch_truth=_torch_welford,
        numpy_truth=_welford,
        cases=_welford_cases(),
        returns=STATISTICS,
        drive=streams.variance,
    ),
    Exercise(
        name="merge_statistics",
        stem="variance",
        expect="the answer is (n, mean, m2) of all values of both parts together",
        signature_of=_merge,
        torch_truth=_exact_merge,
        numpy_truth=_merge,
        cases=_merge_cases(),
        core=True,
        returns=STATISTICS,
    ),
)


# ---- known mistakes ----------------------------------------------------------------------------------------------

MISTAKES, add = mistakes_table()


def _spread(x, dtype=None, about=np.mean, power=lambda d: d * d, ddof=0, finish=lambda v: v, total=np.sum):
    w = wide(x) if dtype is None else x.astype(dtype)
    d = w - about(w)
    n = len(w) - ddof
    return float(finish(total(power(d)) / n)) if n else float("nan")


def _one_pass(x, finish=lambda v: v, dtype=None, mean=np.mean):
    w = wide(x) if dtype is None else x.astype(dtype)
    return float(finish(mean(w * w) - mean(w) ** 2))


def _running_mean(w):
    """The mean by a sum that is kept in w's own dtype and grows value by value."""
    return np.add.accumulate(w, dtype=w.dtype)[-1] / w.dtype.type(len(w))


def _running_two_pass(x):
    w = wide(x)
    return float(_running_mean((w - _running_mean(w)) ** 2))


def _half(x):
    d = x - np.mean(x, dtype=x.dtype)
    return float(np.mean(d * d, dtype=x.dtype))


def _narrow(x):
    return float(_variance(x.astype(np.float32)))


def _centring_in_place(x):
    x -= x.mean()
    return float(np.mean(wide(x) ** 2))


def _needs_two(x):
    if len(x) < 2:
        raise ValueError("variance needs two values")
    return float(_variance(wide(x)))


_v = "two_pass_variance"
add(
    _v,
    "one-pass",
    "computes E[x^2] - E[x]^2, which cancels far from zero and may come out negative: subtract the mean first, then square",
    _one_pass,
    with_switches(_one_pass, finish=abs),
    with_switches(_one_pass, finish=lambda v: max(v, 0)),
    with_switches(_one_pass, mean=_running_mean),
    with_switches(_one_pass, dtype=np.float64),
    noisy=True,
)
add(
    _v,
    "divides-by-n-1",
    "divides by n-1, which estimates the variance of a population: the variance of these values divides by n",
    with_switches(_spread, ddof=1),
    with_switches(_spread, ddof=1, dtype=np.float64),
)
add(
    _v,
    "standard-deviation",
    "returns the standard deviation: the variance is its square",
    with_switches(_spread, finish=np.sqrt),
)
add(
    _v,
    "sum-not-mean",
    "returns the sum of the squared deviations: divide it by n",
    with_switches(_spread, total=lambda d: np.sum(d) * d.dtype.type(len(d))),
)
add(
    _v,
    "not-centered",
    "averages the squares of the values themselves: subtract the mean first",
    with_switches(_spread, about=lambda w: w.dtype.type(0)),
)
add(
    _v,
    "about-the-median",
    "measures the deviations from the median: the variance measures them from the mean",
    with_switches(_spread, about=np.median),
)
add(
    _v,
    "about-the-first",
    "measures the deviations from the first value and stops there: subtract the square of their mean, or use the mean itself",
    with_switches(_spread, about=lambda w: w[0]),
)
add(
    _v,
    "absolute-deviation",
    "averages the absolute deviations: square them",
    with_switches(_spread, power=np.abs),
)
add(
    _v,
    "squares-the-average",
    "squares the average deviation, which is 0: square each deviation, then average",
    with_switches(_spread, power=lambda d: d, finish=lambda v: v * v),
)
add(
    _v,
    "adds-eps",
    "adds a small number: the eps of a norm is added later, where the root is taken",
    *(with_switches(_spread, finish=lambda v, eps=eps: v + eps) for eps in (1e-5, 1e-8, 1e-6, 1e-12, 1e-3)),
)
add(
    _v,
    "running-float32",
    "keeps a running sum in float32, which drops the digits of each new value once it is large: sum in float64, or with np.sum, which adds in pairs",
    _running_two_pass,
    noisy=True,
)
add(
    _v,
    "half-arithmetic",
    "computes in float16, where squares overflow from 256 on: compute in float32 or wider",
    _half,
    noisy=True,
)
add(
    _v,
    "float32-arithmetic",
    "computes float64 values in float32: keep the arithmetic as wide as the input",
    _narrow,
    noisy=True,
)
add(
    _v,
    "refuses-one-value",
    "refuses a single value: it is its own mean, so the variance is 0",
    _needs_two,
)
add(
    _v,
    MUTATES_INPUT,
    "changes its input: work on a copy",
    _centring_in_place,
)


def _streaming(
    stream,
    step=lambda n: n,
    grow=lambda old, new, n: old * new,
    finish=lambda n, m2: m2,
    count=lambda n: n,
    move=lambda mean, delta, n: mean + delta / n,
    start=0,
    cast=float,
    empty=(0, 0.0, 0.0),
):
    """Welford's loop. `old` and `new` are the distances of a value from the mean before and after it."""
    n, mean, m2, seen = start, 0.0, cast(0.0), False
    mean = cast(mean)
    for x in stream:
        x = cast(x)
        n, seen = n + 1, True
        old = x - mean
        mean = move(mean, old, cast(step(n)))
        m2 = m2 + grow(old, x - mean, n)
    if not seen:
        return empty
    return count(n), float(mean), float(finish(n, m2))


def _by_sums(stream):
    n, total, squares = 0, 0.0, 0.0
    for x in stream:
        n, total, squares = n + 1, total + x, squares + x * x
    return (n, total / n, squares - total * total / n) if n else (0, 0.0, 0.0)


def _by_mean_of_squares(stream):
    n, mean, square = 0, 0.0, 0.0
    for x in stream:
        n += 1
        mean += (x - mean) / n
        square += (x * x - square) / n
    return n, mean, n * (square - mean * mean)


def _two_looks(stream):
    n, total, m2 = 0, 0.0, 0.0
    for x in stream:
        n, total = n + 1, total + x
    if n == 0:
        return 0, 0.0, 0.0
    for x in stream:
        m2 += (x - total / n) ** 2
    return n, total / n, m2


def _two_looks_after_counting(stream):
    """The first look only counts, so nothing is left to add up."""
    return sum(1 for _ in stream), 0.0, 0.0


def _two_looks_numpy(stream):
    """A NaN from the second look: np.mean of nothing."""
    x = [*stream]
    mean = float(np.mean(x)) if x else 0.0
    return len(x), mean, float("nan") if x else 0.0


def _by_len(stream):
    n = len(stream)
    values = list(stream)
    mean = sum(values) / n if n else 0.0
    return n, mean, sum((x - mean) ** 2 for x in values)


def _by_index(stream):
    mean = stream[0]
    return _streaming(stream, move=lambda m, delta, n: mean + delta / n)


def _first_by_next(stream):
    """The first value taken outside the loop: nothing is there to take in an empty stream."""
    n, mean, m2 = 1, next(stream), 0.0
    for x in stream:
        n += 1
        delta = x - mean
        mean += delta / n
        m2 += delta * (x - mean)
    return n, mean, m2


def _first_dropped(stream):
    next(stream, None)
    return _streaming(stream)


def _stored(stream):
    values = list(stream)
    mean = sum(values) / len(values)
    return len(values), mean, sum((x - mean) ** 2 for x in values)


def _stored_by_numpy(stream):
    x = np.array(list(stream))
    return len(x), float(x.mean()), float(x.var() * len(x))


def _last_delta_only(stream):
    n, mean, last = 0, 0.0, 0.0
    for x in stream:
        n += 1
        delta = x - mean
        mean += delta / n
        last = delta * (x - mean)
    return n, mean, last


def _never_returned(stream):
    return next(((1, x, 0.0) for x in stream), (0, 0.0, 0.0))


_w = "welford"
add(
    _w,
    "old-delta-twice",
    "multiplies the distance from the old mean with itself: one factor is the distance from the old mean, the other from the new one",
    with_switches(_streaming, grow=lambda old, new, n: old * old),
)
add(
    _w,
    "new-delta-twice",
    "multiplies the distance from the new mean with itself: one factor is the distance from the old mean, the other from the new one",
    with_switches(_streaming, grow=lambda old, new, n: new * new),
)
add(
    _w,
    "returns-variance",
    "returns the variance in place of m2: m2 is the sum of the squared deviations, not divided by n",
    with_switches(_streaming, finish=lambda n, m2: m2 / n),
)
add(
    _w,
    "returns-unbiased-variance",
    "returns m2/(n-1) in place of m2: m2 is the sum of the squared deviations, not divided by anything",
    with_switches(_streaming, finish=lambda n, m2: m2 / (n - 1) if n > 1 else 0.0),
    with_switches(_streaming, finish=lambda n, m2: m2 / (n - 1) if n > 1 else float("nan")),
    with_switches(_streaming, finish=lambda n, m2: m2 / (n - 1)),
)
add(
    _w,
    "returns-standard-deviation",
    "returns the standard deviation in place of m2: m2 is the sum of the squared deviations",
    with_switches(_streaming, finish=lambda n, m2: (m2 / n) ** 0.5),
)
add(
    _w,
    "sums-of-squares",
    "adds up the squares and subtracts n times the squared mean, which cancels far from zero: update m2 with the distances from the means",
    _by_sums,
    _by_mean_of_squares,
    noisy=True,
)
add(
    _w,
    "looks-twice",
    "goes through the stream a second time: each value can be looked at once, so the mean and m2 have to grow together",
    _two_looks,
    _two_looks_after_counting,
    _two_looks_numpy,
)
add(
    _w,
    "asks-for-the-length",
    "asks for the length of the stream, or for a value by its index: a stream has neither, so count the values as they come",
    _by_len,
    _by_index,
)
add(
    _w,
    "empty-crashes",
    "breaks off when there is no first value: an empty stream gives (0, 0.0, 0.0)",
    _first_by_next,
    _stored,
)
add(
    _w,
    "empty-nan",
    "returns NaN for an empty stream: what has no values adds nothing to a merge, so the answer is (0, 0.0, 0.0)",
    with_switches(_streaming, empty=(0, float("nan"), 0.0)),
    with_switches(_streaming, empty=(0, float("nan"), float("nan"))),
    _stored_by_numpy,
)
add(
    _w,
    "empty-none",
    "returns None for an empty stream: the answer is (0, 0.0, 0.0)",
    with_switches(_streaming, empty=None),
)
add(
    _w,
    "counts-too-late",
    "divides by one more than the number of values seen: count the value first, then divide by n",
    with_switches(_streaming, step=lambda n: n + 1),
)
add(
    _w,
    "count-off-by-one",
    "starts to count at 1: before the first value n is 0",
    with_switches(_streaming, start=1),
)
add(
    _w,
    "n-is-the-last-index",
    "returns the index of the last value as n: n is the number of values",
    with_switches(_streaming, count=lambda n: n - 1),
)
add(
    _w,
    "drops-the-first",
    "leaves out the first value: it counts like all others",
    _first_dropped,
)
add(
    _w,
    "moving-average",
    "moves the mean by a fixed share of the distance, which favors the last values: the share is 1/n",
    *(
        with_switches(_streaming, move=lambda mean, delta, n, share=share: mean + delta * share)
        for share in (0.5, 0.1, 0.01, 0.9)
    ),
)
add(
    _w,
    "mean-not-divided",
    "adds the whole distance to the mean, so that it becomes the last value: add the distance over n",
    with_switches(_streaming, move=lambda mean, delta, n: mean + delta),
)
add(
    _w,
    "m2-not-summed",
    "keeps only the last term of m2: add each term to those before",
    _last_delta_only,
)
add(
    _w,
    "float32-arithmetic",
    "computes in float32: keep the digits that Python's floats have",
    with_switches(_streaming, cast=np.float32),
    noisy=True,
)
add(
    _w,
    "float-count",
    "returns n as a float: it is a count, an int",
    with_switches(_streaming, count=float),
)
add(
    _w,
    "returns-too-early",
    "returns inside the loop, after the first value: return when the stream has run out",
    _never_returned,
)


def _merging(
    a,
    b,
    factor=lambda n_a, n_b, n: n_a * n_b / n,
    power=lambda delta: delta * delta,
    mean=lambda a, b, n: a[1] + (b[1] - a[1]) * b[0] / n,
    within=lambda a, b: a[2] + b[2],
    finish=lambda n, m2: m2,
    late=False,
    count=lambda n: n,
):
    n = a[0] + b[0]
    if n == 0:
        return 0, 0.0, 0.0
    middle = mean(a, b, n)
    delta = b[1] - (middle if late else a[1])
    return count(n), middle, finish(n, within(a, b) + power(delta) * factor(a[0], b[0], n))


def _both_empty_crashes(a, b):
    n = a[0] + b[0]
    delta = b[1] - a[1]
    return n, a[1] + delta * b[0] / n, a[2] + b[2] + delta**2 * a[0] * b[0] / n


def _both_empty_nan(a, b):
    return _merging(a, b) if a[0] + b[0] else (0, float("nan"), float("nan"))


def _both_empty_nan_mean(a, b):
    return _merging(a, b) if a[0] + b[0] else (0, float("nan"), 0.0)


def _through_variances(a, b):
    """The variance of each part: 0/0 for an empty one, an error in Python."""
    n, mean, _ = _merging(a, b)
    v_a, v_b = a[2] / a[0], b[2] / b[0]
    return n, mean, a[0] * (v_a + (a[1] - mean) ** 2) + b[0] * (v_b + (b[1] - mean) ** 2)


def _through_variances_numpy(a, b):
    n, mean, m2 = _merging(a, b)
    return (n, mean, m2) if a[0] and b[0] else (n, mean, float("nan"))


def _empty_all_nan(a, b):
    n, mean, m2 = _merging(a, b)
    return (n, mean, m2) if a[0] and b[0] else (n, float("nan"), float("nan"))


def _harmonic(a, b):
    """The between term over (1/n_a + 1/n_b), which divides by zero where a part is empty."""
    n, mean, _ = _merging(a, b)
    return n, mean, a[2] + b[2] + (b[1] - a[1]) ** 2 / (1 / a[0] + 1 / b[0])


def _by_squares(a, b):
    n = a[0] + b[0]
    if n == 0:
        return 0, 0.0, 0.0
    mean = (a[0] * a[1] + b[0] * b[1]) / n
    squares = sum(part[2] + part[0] * part[1] ** 2 for part in (a, b))
    return n, mean, squares - n * mean**2


def _int64_product(a, b):
    with np.errstate(over="ignore"):
        return _merging(a, b, factor=lambda n_a, n_b, n: float(np.int64(n_a) * np.int64(n_b)) / n)


def _int32_counts(a, b):
    def cut(part):
        return int(np.array(part[0]).astype(np.int32)), part[1], part[2]

    try:
        return _merging(cut(a), cut(b))
    except ZeroDivisionError:
        return 0, 0.0, 0.0


def _float32_merge(a, b):
    f = np.float32
    n = a[0] + b[0]
    if n == 0:
        return 0, 0.0, 0.0
    delta = f(b[1]) - f(a[1])
    mean = f(a[1]) + delta * f(b[0] / n)
    return n, float(mean), float(f(a[2]) + f(b[2]) + delta * delta * f(a[0] * (b[0] / n)))


def _wrong_one_when_empty(a, b):
    return a if a[0] == 0 or b[0] == 0 else _merging(a, b)


def _nothing_when_empty(a, b):
    return (0, 0.0, 0.0) if a[0] == 0 or b[0] == 0 else _merging(a, b)


def _empty_still_pulls(a, b):
    """An empty part's mean of 0 averaged in as if it stood for a value."""
    if a[0] and b[0]:
        return _merging(a, b)
    n, _, m2 = _merging(a, b)
    return n, (a[1] + b[1]) / 2, m2


_m = "merge_statistics"
add(
    _m,
    "mean-of-means",
    "averages the two means as if the parts were of one size: each mean counts as often as its part has values",
    with_switches(_merging, mean=lambda a, b, n: (a[1] + b[1]) / 2),
)
add(
    _m,
    "no-between-term",
    "adds the two m2 and nothing else: the distance between the means adds delta^2 * n_a * n_b / n",
    with_switches(_merging, power=lambda delta: 0.0),
)
add(
    _m,
    "mean-of-means-no-between",
    "averages the means and adds the m2, as if all parts had one size and one mean: weigh the means by their counts, and add delta^2 * n_a * n_b / n",
    with_switches(_merging, mean=lambda a, b, n: (a[1] + b[1]) / 2, power=lambda delta: 0.0),
)
add(
    _m,
    "between-not-divided",
    "multiplies delta^2 by n_a * n_b and does not divide by n = n_a + n_b",
    with_switches(_merging, factor=lambda n_a, n_b, n: n_a * n_b),
)
add(
    _m,
    "between-divided-twice",
    "divides the between term by n twice: m2 is a sum, so it is delta^2 * n_a * n_b / n",
    with_switches(_merging, factor=lambda n_a, n_b, n: n_a * n_b / n / n),
)
add(
    _m,
    "between-times-n",
    "multiplies delta^2 by n_a + n_b: the factor is n_a * n_b / n",
    with_switches(_merging, factor=lambda n_a, n_b, n: n),
)
add(
    _m,
    "between-over-n",
    "divides delta^2 by n and leaves out n_a * n_b: the factor is n_a * n_b / n",
    with_switches(_merging, factor=lambda n_a, n_b, n: 1 / n),
)
add(
    _m,
    "between-unweighted",
    "adds delta^2 without a factor: it is n_a * n_b / n",
    with_switches(_merging, factor=lambda n_a, n_b, n: 1),
)
add(
    _m,
    "between-of-equal-sizes",
    "multiplies delta^2 by n / 4, which is right for parts of one size: the factor is n_a * n_b / n",
    with_switches(_merging, factor=lambda n_a, n_b, n: n / 4 if n_a and n_b else 0),
)
add(
    _m,
    "delta-not-squared",
    "does not square the distance between the means",
    with_switches(_merging, power=lambda delta: delta),
    with_switches(_merging, power=abs),
)
add(
    _m,
    "delta-after-update",
    "takes delta after the mean was updated: it is the distance between the means of the two parts",
    with_switches(_merging, late=True),
)
add(
    _m,
    "weights-swapped",
    "weighs each mean with the other part's count: the mean moves from mean_a by the share n_b / n",
    with_switches(_merging, mean=lambda a, b, n: a[1] + (b[1] - a[1]) * a[0] / n),
)
add(
    _m,
    "moves-the-mean-by-delta-over-n",
    "moves the mean by delta / n, as for a single new value: it moves by delta * n_b / n",
    with_switches(_merging, mean=lambda a, b, n: a[1] + (b[1] - a[1]) / n),
)
add(
    _m,
    "averages-m2",
    "averages the m2: they are sums of squares, so they add up",
    with_switches(_merging, within=lambda a, b: (a[0] * a[2] + b[0] * b[2]) / (a[0] + b[0])),
    with_switches(_merging, within=lambda a, b: (a[2] + b[2]) / 2),
)
add(
    _m,
    "takes-m2-for-variance",
    "multiplies the m2 by their counts, as if they were variances: they are sums of squares already",
    with_switches(_merging, within=lambda a, b: a[0] * a[2] + b[0] * b[2]),
)
add(
    _m,
    "returns-variance",
    "returns the variance in place of m2: do not divide by n",
    with_switches(_merging, finish=lambda n, m2: m2 / n),
)
add(
    _m,
    "returns-unbiased-variance",
    "returns m2/(n-1) in place of m2: do not divide",
    with_switches(_merging, finish=lambda n, m2: m2 / (n - 1) if n > 1 else 0.0),
    with_switches(_merging, finish=lambda n, m2: m2 / (n - 1) if n > 1 else float("nan")),
)
add(
    _m,
    "both-empty-crashes",
    "divides by n = 0 when both parts are empty: the union of two empty parts is (0, 0.0, 0.0)",
    _both_empty_crashes,
    _both_empty_nan,
    _both_empty_nan_mean,
)
add(
    _m,
    "empty-divides-by-zero",
    "divides by the count of one part, which may be 0: an empty part changes nothing",
    _through_variances,
    _harmonic,
    _through_variances_numpy,
    _empty_all_nan,
)
add(
    _m,
    "empty-gives-the-empty",
    "returns the empty part when one is empty: return the other",
    _wrong_one_when_empty,
    lambda a, b: _wrong_one_when_empty(b, a),
    _nothing_when_empty,
)
add(
    _m,
    "empty-pulls-the-mean",
    "lets an empty part pull the mean toward its 0.0: what has no values has no weight",
    _empty_still_pulls,
)
add(
    _m,
    "sums-of-squares",
    "goes by way of the sums of squares, which cancel when the means are far from zero: use the distance between the means",
    _by_squares,
    noisy=True,
)
add(
    _m,
    "counts-overflow",
    "multiplies the counts in 64 bits or fewer, where large ones overflow: Python's own ints do not, and floats hardly",
    _int64_product,
    _int32_counts,
)
add(
    _m,
    "float32-arithmetic",
    "computes in float32: keep the digits that Python's floats have",
    _float32_merge,
    noisy=True,
)
add(
    _m,
    "keeps-the-first-count",
    "returns the count of the first part: the union has n_a + n_b values",
    lambda a, b: (a[0], *_merging(a, b)[1:]),
)
add(
    _m,
    "float-count",
    "returns n as a float: it is a count, an int",
    with_switches(_merging, count=float),
)
add(
    _m,
    "adds-the-means",
    "adds the means: the union's mean lies between them",
    with_switches(_merging, mean=lambda a, b, n: a[1] + b[1]),
)
