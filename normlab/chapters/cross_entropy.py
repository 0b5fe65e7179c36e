"""The exercises of the chapter on cross entropy: their truths, the inputs that break wrong code, and known mistakes."""

import dataclasses

import numpy as np

from normlab import reference
from normlab.cases import LARGE, Case, along_axis, one_column, sizes, uneven, view, with_nan
from normlab.frame import (
    NOT_MOVED_BACK,
    ROWS_ALONE,
    Exercise,
    in_float64,
    left_at_the_end,
    mistakes_table,
    wide,
    with_switches,
)

IGNORE = -100  # PyTorch's ignore_index
# Small numbers that people add where none belongs.
TINY = (1e-6, 1e-8, 1e-12, 1e-10, 1e-9, 1e-7, 1e-5, 1e-15, 1e-3)


# ---- truths ----------------------------------------------------------------------------------------------------------


def _torch_cross_entropy(torch, logits, target, ignore_index=IGNORE):
    return torch.nn.functional.cross_entropy(logits, target.long(), ignore_index=ignore_index)


def _torch_cross_entropy_backward(torch, logits, target, ignore_index=IGNORE):
    with torch.enable_grad():
        x = logits.detach().clone().requires_grad_()
        _torch_cross_entropy(torch, x, target, ignore_index).backward()
    return x.grad


def _torch_softmax_backward(torch, dy, y, axis=-1):
    return torch.ops.aten._softmax_backward_data(dy, y, axis, dy.dtype)


# ---- drawing ---------------------------------------------------------------------------------------------------------


def _rows(rng, offsets, dtype=np.float64, width=None, scale=2.0):
    """Rows of logits, one for each offset."""
    rows = rng.normal(size=(len(offsets), width or int(rng.integers(5, 9)))) * scale
    return (rows + np.reshape(offsets, (-1, 1))).astype(dtype)


def _large(rng):
    return _rows(rng, rng.uniform(900, 1100, 3))


def _very_negative(rng):
    return _rows(rng, rng.uniform(-1100, -900, 3))


def _rows_apart(rng):
    return _rows(rng, rng.permutation([-2000.0, 0.0, 2000.0]))


def _outlier(rng):
    x = _rows(rng, [0.0, 0.0], width=int(rng.integers(9, 14)))
    x[:, 2] = 5000.0
    return x


def _spread(rng):
    return rng.permuted([[0.0, -60.0, 30.0, -900.0], [40.0, 40.0, -1300.0, 0.0]], axis=1) + rng.normal(size=(2, 4))


def _float32_large(rng):
    return _rows(rng, [95.0, 120.0], np.float32)


def _float16_large(rng):
    return _rows(rng, [14.0, 20.0], np.float16)


def _vocabulary(rng):
    # exp(x - max) averages 0.89 here: the sum passes float16's largest number, 65504.
    return rng.choice([0.0, -0.25], (1, int(rng.integers(77_000, 80_000)))).astype(np.float16)


def _minus_inf(rng):
    x = _rows(rng, [0.0, 1.0, 2.0])
    x[0, 1] = x[2, 0] = x[2, 3] = -np.inf
    return x


# ---- cases -----------------------------------------------------------------------------------------------------------


def _log_softmax_cases():
    def alone(make):
        return lambda rng: ((make(rng),), {})

    def all_minus_inf(rng):
        x = _rows(rng, [0.0, 1.0, 2.0])
        x[1] = -np.inf
        return (x,), {}

    moved = "the answer is that of the same logits moved to 0"
    return (
        *along_axis().values(),
        Case("large", "numerics", "logits near 1000", alone(_large), moved, far=True),
        Case("very-negative", "numerics", "logits near -1000", alone(_very_negative), moved, far=True),
        Case(
            "rows-apart",
            "numerics",
            "rows thousands apart from one another",
            alone(_rows_apart),
            f"{moved}, with a maximum of its own for each slice",
            far=True,
        ),
        Case(
            "outlier",
            "numerics",
            "rows with one logit of 5000",
            alone(_outlier),
            "the other logits get finite logs near -5000, though their probabilities underflow",
            far=True,
        ),
        Case(
            "spread",
            "numerics",
            "logits spread over hundreds",
            alone(_spread),
            "the log is finite where the probability underflows to 0",
            far=True,
        ),
        Case(
            "float32-large",
            "numerics",
            "float32 logits near 100, where exp overflows float32",
            alone(_float32_large),
            moved,
            far=True,
        ),
        Case(
            "float16-large",
            "numerics",
            "float16 logits near 15, where exp overflows float16",
            alone(_float16_large),
            f"{moved}, computed in float32 and returned in float16",
            far=True,
        ),
        Case(
            "float16-long",
            "numerics",
            "float16 slices so long that the sum of exponentials overflows float16",
            alone(_vocabulary),
            "the answer is computed in float32 and returned in float16",
        ),
        Case(
            "minus-inf",
            "numerics",
            "rows with a logit of -inf",
            alone(_minus_inf),
            "its log probability is -inf and the rest is as if it were not there",
        ),
        Case(
            "all-minus-inf",
            "edges",
            "a row of nothing but -inf",
            all_minus_inf,
            "there is no distribution: that row is NaN, as in PyTorch",
        ),
        Case(
            "nan",
            "edges",
            "an array with a NaN in it",
            with_nan,
            "the slice that holds it becomes NaN, so that the fault shows",
        ),
        Case("single", "edges", "slices of a single logit", one_column, "it has all of the probability: the log is 0"),
    )


def _classes(rng, rows, count, last=False):
    """A target for each of `rows` rows, of at least two different classes; the last class among them or not at all."""
    targets = rng.integers(0, count - 1, rows)
    targets[0], targets[1 % rows] = 0, 1
    targets = rng.permutation(targets)
    if last:
        targets[0] = count - 1
    return targets


def _targets_of(rng, logits):
    return _classes(rng, *logits.shape)


def _loss_cases(backward):
    """The cases of cross_entropy, and of its backward: the same inputs for other answers."""

    def with_targets(make):
        def draw(rng):
            logits = make(rng)
            return (logits, _targets_of(rng, logits)), {}

        return draw

    def table(rng):
        return uneven(rng, sizes(rng, 2, 4, 9))

    def square(rng):
        n = int(rng.integers(4, 8))
        return uneven(rng, (n, n))

    def two(rng):
        return uneven(rng, (int(rng.integers(4, 8)), 2))

    def some_ignored(logits_of, ignore_index=IGNORE, given=False):
        def draw(rng):
            logits = logits_of(rng)
            target = _targets_of(rng, logits)
            target[rng.permutation(len(target))[:2]] = ignore_index
            return (logits, target), {"ignore_index": ignore_index} if given else {}

        return draw

    def seven(rng):
        return uneven(rng, (7, int(rng.integers(4, 7))))

    def many_classes(rng):
        return uneven(rng, (6, int(rng.integers(104, 130))))

    def a_class_ignored(rng):
        logits = seven(rng)
        target = rng.permutation([0, 1, 1, 2, 2, 3, 3])
        return (logits, target), {"ignore_index": int(rng.integers(1, 3))}

    def wrong_and_sure(rng):
        # The right class is hundreds below the maximum, in different ways in each row.
        logits = _rows(rng, [0.0, 10.0, -5.0])
        target = _classes(rng, 3, logits.shape[1])
        logits[np.arange(3), target] -= [900.0, 1200.0, 60.0]
        return (logits, target), {}

    def right_and_sure(rng):
        logits = _rows(rng, [0.0, 3.0, 1.0])
        target = _classes(rng, 3, logits.shape[1])
        logits[0, target[0]] += rng.uniform(12, 15)
        return (logits, target), {}

    def float32(rng):
        return uneven(rng, sizes(rng, 2, 4, 9), dtype=np.float32)

    def float16_rows(rng):
        count = int(rng.integers(2600, 3200))
        logits = rng.normal(size=(count, 5))
        target = _classes(rng, count, 5)
        logits[np.arange(count), target] -= 30
        return (logits.astype(np.float16), target), {}

    def right_is_minus_inf(rng):
        logits = _rows(rng, [0.0, 1.0, 2.0])
        target = _classes(rng, 3, logits.shape[1])
        logits[1, target[1]] = -np.inf
        return (logits, target), {}

    def wrong_is_minus_inf(rng):
        logits = _rows(rng, [0.0, 1.0, 2.0])
        target = _classes(rng, 3, logits.shape[1])
        logits[np.arange(3), (target + 1) % logits.shape[1]] = -np.inf
        return (logits, target), {}

    def all_ignored(rng):
        logits = table(rng)
        return (logits, np.full(len(logits), IGNORE)), {}

    def ignored_nan(rng):
        (logits, target), kwargs = some_ignored(seven)(rng)
        first, second = np.flatnonzero(target == IGNORE)
        logits[first] = np.nan
        logits[second, 1] = np.inf
        return (logits, target), kwargs

    def kept_nan(rng):
        (logits, target), kwargs = some_ignored(seven)(rng)
        logits[np.flatnonzero(target != IGNORE)[1], 0] = np.nan
        return (logits, target), kwargs

    def int32(rng):
        logits = table(rng)
        return (logits, _targets_of(rng, logits).astype(np.int32)), {}

    def one_row(rng):
        # The unlikeliest class: a loss that is a small rest of large logits has lost its digits to rounding.
        logits = uneven(rng, (1, int(rng.integers(4, 8))))
        return (logits, logits.argmin(1)), {}

    def last_class(rng):
        logits = table(rng)
        return (logits, _classes(rng, *logits.shape, last=True)), {}

    def large(rng):
        return uneven(rng, sizes(rng, 2, *LARGE))

    def strided(rng):
        logits = view(rng, (5, 6))
        return (logits, np.repeat(_targets_of(rng, logits), 2)[::2]), {}

    moved = "only the differences of a row's logits count"
    if backward:
        expect = {
            "ignored": "rows whose target is ignore_index do not count: their gradient is 0",
            "outlier": f"{moved}; only the maximum is safe to take out",
            "sure": "p - y is bounded: no gradient is beyond 1 over the number of rows",
            "class": "any value can be the one to ignore, a class as well: rows of that target get 0",
            "minus": "a logit of -inf has probability 0",
            "none": "no row counts: every gradient is 0",
            "nan": "its gradient is NaN, so that the fault shows",
        }
    else:
        expect = {
            "ignored": "the mean runs over the rows whose target is not ignore_index",
            "outlier": f"{moved}, and the loss stays finite though a probability underflows to 0",
            "sure": "the loss grows with the distance below the maximum, however far",
            "class": "any value can be the one to ignore, a class as well: the mean runs over the other rows",
            "minus": "a right class of probability 0 costs infinitely much",
            "none": "there is nothing to average: the loss is NaN, as in PyTorch",
            "nan": "the loss is NaN, so that the fault shows",
        }
    listed = [
        Case("few", "values", "a handful of rows and classes", with_targets(table)),
        Case("square", "values", "as many rows as classes", with_targets(square)),
        Case("two", "values", "two classes", with_targets(two)),
        Case("ignored", "values", "a batch with ignored rows", some_ignored(seven), expect["ignored"]),
        Case(
            "own-index",
            "values",
            "a batch with ignore_index=-1",
            some_ignored(seven, -1, given=True),
            expect["ignored"],
        ),
        Case("class-ignored", "values", "a batch whose ignore_index is a class", a_class_ignored, expect["class"]),
        Case(
            "many-classes",
            "values",
            "more than a hundred classes and ignored rows",
            some_ignored(many_classes),
            expect["ignored"],
        ),
        Case("large", "numerics", "logits near 1000", with_targets(_large), moved, far=True),
        Case("very-negative", "numerics", "logits near -1000", with_targets(_very_negative), moved, far=True),
        Case(
            "rows-apart",
            "numerics",
            "rows thousands apart from one another",
            with_targets(_rows_apart),
            f"{moved}, and each row has a maximum of its own",
            far=True,
        ),
        Case(
            "outlier",
            "numerics",
            "rows with one logit of 5000",
            with_targets(_outlier),
            expect["outlier"],
            far=True,
        ),
        Case(
            "wrong-and-sure",
            "numerics",
            "rows whose right class is hundreds below the maximum",
            wrong_and_sure,
            expect["sure"],
            far=True,
        ),
        Case("right-and-sure", "numerics", "a row whose right class is far above the others", right_and_sure),
        Case("float32", "numerics", "float32 logits", with_targets(float32)),
        Case(
            "float32-large",
            "numerics",
            "float32 logits near 100, where exp overflows float32",
            with_targets(_float32_large),
            moved,
            far=True,
        ),
        Case(
            "float16-large",
            "numerics",
            "float16 logits near 15, where exp overflows float16",
            with_targets(_float16_large),
            f"{moved}, and the arithmetic is done in float32",
            far=True,
        ),
        Case(
            "wrong-is-minus-inf",
            "numerics",
            "rows with a wrong class whose logit is -inf",
            wrong_is_minus_inf,
            "it gets probability 0 and the rest is as if it were not there",
        ),
        Case(
            "right-is-minus-inf",
            "numerics",
            "a row whose right class has a logit of -inf",
            right_is_minus_inf,
            expect["minus"],
        ),
        Case("all-ignored", "edges", "a batch in which every row is ignored", all_ignored, expect["none"]),
        Case("int32", "edges", "targets of dtype int32", int32),
        Case("last-class", "edges", "targets that name the last class", last_class),
        Case("one-row", "edges", "a single row", one_row),
        Case("strided", "edges", "logits and targets with strides, not contiguous in memory", strided),
        Case("large-array", "edges", "dozens of rows and classes, and ignored rows", some_ignored(large)),
        Case("kept-nan", "edges", "a NaN in a row that counts", kept_nan, expect["nan"]),
    ]
    if not backward:
        listed += [
            Case(
                "float16-rows",
                "numerics",
                "so many float16 rows that the sum of their losses overflows float16",
                float16_rows,
                "the arithmetic is done in float32",
            ),
            Case(
                "ignored-nan",
                "edges",
                "ignored rows that hold a NaN or an infinity",
                ignored_nan,
                "what stands in an ignored row has no influence on the loss",
            ),
        ]
    return tuple(listed)


def _weights(rng, shape, axis=-1, scale=0.4):
    # No weight is nearly 1: there the answer cancels, in one right order of operations more than in another.
    return reference.softmax(uneven(rng, shape, scale), axis)


def _softmax_backward_cases():
    def both(shape_of, axis=None, dtype=np.float64, offset=0.0):
        def draw(rng):
            shape = shape_of(rng)
            y = _weights(rng, shape, -1 if axis is None else axis)
            dy = uneven(rng, shape, offset=offset)
            return (dy.astype(dtype), y.astype(dtype)), {} if axis is None else {"axis": axis}

        return draw

    def square(rng):
        n = int(rng.integers(4, 8))
        return n, n

    def one_hot(rng):
        shape = sizes(rng, 2, 4, 9)
        y = np.zeros(shape)
        y[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = 1
        return (uneven(rng, shape), y), {}

    def uniform(rng):
        shape = sizes(rng, 2, 4, 9)
        return (uneven(rng, shape), np.full(shape, 1 / shape[1])), {}

    def constant(rng):
        shape = sizes(rng, 2, 4, 9)
        return (np.full(shape, 1.0) * rng.uniform(1, 3, (shape[0], 1)), _weights(rng, shape)), {}

    def masked(rng):
        shape = sizes(rng, 2, 4, 9)
        x = uneven(rng, shape, 0.4)
        x[0, 1] = x[2, 0] = -np.inf
        return (uneven(rng, shape), reference.softmax(x)), {}

    def half(rng):
        shape = (4, int(rng.integers(9, 16)))
        dy = 1000 + rng.integers(-3, 4, shape) / 2
        return (dy.astype(np.float16), _weights(rng, shape, scale=0.3).astype(np.float16)), {}

    def far(offset, dtype):
        return both(lambda rng: (4, int(rng.integers(20, 30))), offset=offset, dtype=dtype)

    def strided(rng):
        shape = sizes(rng, 3)
        y = np.asfortranarray(_weights(rng, shape, 1))
        return (view(rng, shape), y), {"axis": 1}

    def single(rng):
        n = sizes(rng, 1)[0]
        return (uneven(rng, (n, 1)), np.ones((n, 1))), {}

    def spoiled(rng):
        shape = sizes(rng, 2)
        dy = uneven(rng, shape)
        dy[1, 1] = np.nan
        return (dy, _weights(rng, shape)), {}

    near = "a constant added to a slice of dy changes nothing"
    listed = (
        Case("vector", "values", "a vector", both(lambda rng: sizes(rng, 1, 4, 9))),
        Case("two-axes", "values", "2-D arrays (last axis)", both(lambda rng: sizes(rng, 2))),
        Case("square", "values", "square arrays (last axis)", both(square)),
        Case("first-axis", "values", "2-D arrays with axis=0", both(lambda rng: sizes(rng, 2), axis=0)),
        Case("middle", "values", "3-D arrays with axis=1", both(lambda rng: sizes(rng, 3), axis=1)),
        Case("uniform", "values", "equal weights, 1/K each", uniform),
        Case("constant", "values", "slices of dy that are constant", constant, f"{near}: the answer is 0"),
        Case("float32", "numerics", "float32 arrays", both(lambda rng: sizes(rng, 2), dtype=np.float32)),
        Case("far-float32", "numerics", "float32 gradients near 1e4", far(1e4, np.float32), near),
        Case("far-float64", "numerics", "gradients near 1e7", far(1e7, np.float64), near),
        Case(
            "half-far",
            "numerics",
            "float16 gradients near 1000",
            half,
            "the answer is computed in float32 and returned in float16",
        ),
        Case("masked", "numerics", "weights of which some are 0", masked, "a weight of 0 has a gradient of 0"),
        Case("one-hot", "numerics", "weights of exactly 0 and 1", one_hot, "softmax is flat there: the answer is 0"),
        Case("from-the-end", "edges", "4-D arrays with axis=-3", both(lambda rng: sizes(rng, 4, 2, 6), axis=-3)),
        Case("strided", "edges", "views with strides, not contiguous in memory", strided),
        Case("single", "edges", "slices of a single element", single, "its weight is 1 always: the answer is 0"),
        Case("nan", "edges", "a NaN in dy", spoiled, "the slice that holds it becomes NaN, so that the fault shows"),
        Case("large-array", "edges", "arrays with dozens of rows and columns", both(lambda rng: sizes(rng, 2, *LARGE))),
    )
    # The weights add up to 1 only up to their rounding, and what that does to the answer is not the candidate's doing.
    return tuple(dataclasses.replace(case, far=True) for case in listed)


EXERCISES = (
    Exercise(
        name="log_softmax",
        stem="cross_entropy",
        expect="the logits of every slice keep their differences, and the exponentials of the answers add up to 1",
        signature_of=reference.log_softmax,
        torch_truth=lambda torch, x, axis=-1: torch.log_softmax(x, dim=axis),
        numpy_truth=reference.log_softmax,
        cases=_log_softmax_cases(),
        core=True,
    ),
    Exercise(
        name="cross_entropy",
        stem="cross_entropy",
        expect="the loss is the mean of -log p of each row's right class",
        signature_of=reference.cross_entropy,
        torch_truth=_torch_cross_entropy,
        numpy_truth=reference.cross_entropy,
        cases=_loss_cases(backward=False),
        core=True,
        returns="float",
    ),
    Exercise(
        name="cross_entropy_backward",
        stem="cross_entropy",
        expect="the answer is the gradient of the mean loss, which adds up to 0 in every row",
        signature_of=reference.cross_entropy_backward,
        torch_truth=_torch_cross_entropy_backward,
        numpy_truth=reference.cross_entropy_backward,
        cases=_loss_cases(backward=True),
    ),
    Exercise(
        name="softmax_backward",
        stem="cross_entropy",
        expect="the answer is the gradient with respect to the logits, which adds up to 0 along the axis",
        signature_of=reference.softmax_backward,
        torch_truth=_torch_softmax_backward,
        numpy_truth=reference.softmax_backward,
        cases=_softmax_backward_cases(),
    ),
)


# ---- known mistakes --------------------------------------------------------------------------------------------------

MISTAKES, add = mistakes_table()


def _zero(w, axis):
    return w.dtype.type(0)


def _maximum(w, axis):
    return w.max(axis, keepdims=True)


def _sum(e, axis):
    return e.sum(axis, keepdims=True)


def _narrow(answer):
    """Whether a float64 answer went through float32."""
    answer = np.asarray(answer)
    with np.errstate(all="ignore"):
        return np.array_equal(answer, answer.astype(np.float32), equal_nan=True)


DOUBLE = {"double": True}
HALF = {"half": True}
NARROW = {"narrow": True}
BOTH = ({}, DOUBLE)

# Ways to take the largest logit out that do not work: slug -> (what is wrong, what is taken out).
SHIFTS = {
    "no-maximum": (
        "takes no maximum out before exp, which overflows (or leaves log 0): subtract the maximum of each {slice}",
        _zero,
    ),
    "global-maximum": (
        "subtracts one maximum for the whole array, so that {slice}s far below it underflow: each {slice} has its own",
        lambda w, axis: w.max(),
    ),
    "mean-not-maximum": (
        "subtracts the mean: only subtracting the maximum of each {slice} keeps exp from overflowing",
        lambda w, axis: w.mean(axis, keepdims=True),
    ),
}


def _log_softmax(
    x,
    axis=-1,
    shift=_maximum,
    over=lambda axis: axis,
    total=_sum,
    exp=np.exp,
    log=np.log,
    before=None,
    after=None,
    dtypes=None,
):
    w, axis = wide(x, **(dtypes or {})), over(axis)
    if before:
        w = before(w, axis)
    z = w - shift(w, axis)
    y = z - log(total(exp(z), axis))
    return (after(y) if after else y).astype(x.dtype)


def _softmax(w, axis=-1, shift=_maximum, total=_sum):
    e = np.exp(w - shift(w, axis))
    return e / total(e, axis)


def _log_of_softmax(x, axis=-1, safe=lambda p: p, shift=_maximum, dtypes=None):
    return np.log(safe(_softmax(wide(x, **(dtypes or {})), axis, shift))).astype(x.dtype)


def _log_softmax_no_keepdims(x, axis=-1):
    w = wide(x)
    z = w - w.max(axis, keepdims=True)
    return (z - np.log(np.exp(z).sum(axis))).astype(x.dtype)


def _log_softmax_no_keepdims_twice(x, axis=-1):
    w = wide(x)
    z = w - w.max(axis)
    return (z - np.log(np.exp(z).sum(axis))).astype(x.dtype)


def _log_softmax_maximum_left_in(x, axis=-1):
    """x - log(sum(exp(x - max))): the maximum was taken out of one side alone."""
    w = wide(x)
    return (w - np.log(np.exp(w - _maximum(w, axis)).sum(axis, keepdims=True))).astype(x.dtype)


def _log_softmax_along_0(x, axis=0):
    return _log_softmax(x, axis)


def _mutating(right):
    def wrong(x, *args, **kwargs):
        y = right(x, *args, **kwargs)
        x[...] = y
        return y

    return wrong


_name = "log_softmax"
add(
    _name,
    "log-of-softmax",
    "takes the log of softmax, which is -inf where a probability underflows to 0: subtract logsumexp from the logits",
    *(with_switches(_log_of_softmax, dtypes=d) for d in BOTH),
)
add(
    _name,
    "naive-log-of-softmax",
    "takes the log of exp(x) / sum(exp(x)), which over- and underflows: use x - max - log(sum(exp(x - max)))",
    *(with_switches(_log_of_softmax, shift=_zero, dtypes=d) for d in BOTH),
)
add(
    _name,
    "eps-in-log",
    "adds a small number inside the log, which hides small probabilities: subtract logsumexp from the logits",
    *(with_switches(_log_of_softmax, safe=lambda p, t=t: p + p.dtype.type(t), dtypes=d) for t in TINY for d in BOTH),
)
add(
    _name,
    "clips-probabilities",
    "clips the probabilities before the log, so that all small ones look alike: subtract logsumexp from the logits",
    *(
        with_switches(_log_of_softmax, safe=lambda p, t=t: np.maximum(p, p.dtype.type(t)), dtypes=d)
        for t in TINY
        for d in BOTH
    ),
    *(
        with_switches(_log_of_softmax, safe=lambda p, t=t: np.clip(p, p.dtype.type(t), 1 - p.dtype.type(t)), dtypes=d)
        for t in TINY
        for d in BOTH
    ),
)
for _slug, (_sentence, _shift) in SHIFTS.items():
    add(
        _name,
        _slug,
        _sentence.format(slice="slice"),
        *(with_switches(_log_softmax, shift=_shift, dtypes=d) for d in BOTH),
    )
add(
    _name,
    "maximum-left-in",
    "takes the maximum out of the exponentials but not out of x: the answer is (x - max) - log(sum(exp(x - max)))",
    _log_softmax_maximum_left_in,
)
add(
    _name,
    "fixed-axis",
    "ignores axis and always takes the same one",
    with_switches(_log_softmax, over=lambda axis: -1),
    with_switches(_log_softmax, over=lambda axis: 0),
)
add(_name, "default-axis", "has another default axis: it is the last one, -1", _log_softmax_along_0)
add(_name, "not-moved-back", NOT_MOVED_BACK, left_at_the_end(_log_softmax))
add(
    _name,
    "rows-alone",
    ROWS_ALONE,
    with_switches(_log_softmax, total=lambda e, axis: e.sum(axis)[:, None]),
    with_switches(_log_softmax, shift=lambda w, axis: w.max(axis)[:, None], total=lambda e, axis: e.sum(axis)[:, None]),
)
add(
    _name,
    "everything",
    "sums over the whole array: each slice along the axis has a logsumexp of its own",
    with_switches(_log_softmax, total=lambda e, axis: e.sum()),
    with_switches(_log_softmax, over=lambda axis: None, total=lambda e, axis: e.sum()),
)
add(
    _name,
    "no-keepdims",
    "drops the axis of its sum, so that NumPy lines it up with the wrong one (a square input hides it): keepdims=True",
    _log_softmax_no_keepdims,
    _log_softmax_no_keepdims_twice,
)
add(
    _name,
    "no-log",
    "returns the probabilities: their logarithm is asked for",
    *(with_switches(_log_softmax, after=np.exp, dtypes=d) for d in BOTH),
)
add(
    _name,
    "minus-sign",
    "has the sign wrong: logs of probabilities are at most 0",
    with_switches(_log_softmax, after=np.negative),
)
add(
    _name,
    "not-normalized",
    "subtracts the maximum and stops: the log of the sum of exponentials is still to be subtracted",
    with_switches(_log_softmax, log=np.zeros_like),
)
add(
    _name,
    "sum-without-log",
    "subtracts the sum of the exponentials: subtract its logarithm",
    with_switches(_log_softmax, log=lambda s: s),
)
add(
    _name,
    "mean-of-exp",
    "takes the log of the mean of the exponentials: take the log of their sum",
    with_switches(_log_softmax, total=lambda e, axis: e.mean(axis, keepdims=True)),
)
add(
    _name,
    "base-2",
    "takes powers and logarithms to base 2: log and exp here are the natural ones",
    with_switches(_log_softmax, log=np.log2, exp=np.exp2),
    with_switches(_log_softmax, log=np.log2),
    with_switches(_log_softmax, after=lambda y: y / np.log(y.dtype.type(2))),
)
add(
    _name,
    "softmax-twice",
    "applies softmax before: what comes in are the logits, and log_softmax is applied to them once",
    with_switches(_log_softmax, before=_softmax),
)
add(
    _name,
    "log-sigmoid",
    "treats each logit by itself, as a sigmoid does: the logits of a slice share one sum",
    with_switches(_log_softmax, after=None, before=None, shift=_zero, total=lambda e, axis: 1 + e),
    lambda x, axis=-1: (-np.logaddexp(wide(x).dtype.type(0), -wide(x))).astype(x.dtype),
)
add(
    _name,
    "nan-to-num",
    "replaces NaN or infinities by numbers: a fault that comes in, and a probability of 0, are to show",
    with_switches(_log_softmax, after=np.nan_to_num),
    with_switches(_log_softmax, after=lambda y: np.nan_to_num(y, nan=0.0, posinf=np.inf, neginf=-np.inf)),
    with_switches(_log_of_softmax, safe=np.nan_to_num),
)
add(
    _name,
    "half-arithmetic",
    "computes in float16, where the sum of exponentials overflows: compute in float32 and cast once at the end",
    with_switches(_log_softmax, dtypes=HALF, total=lambda e, axis: e.sum(axis, keepdims=True, dtype=e.dtype)),
    noisy=True,
)
add(
    _name,
    "float32-arithmetic",
    "computes float64 input in float32: keep the arithmetic as wide as the input",
    with_switches(_log_softmax, dtypes=NARROW),
    noisy=True,
    trace=_narrow,
)
add(_name, "mutates-input", "changes its input: work on a copy", _mutating(_log_softmax))
add(
    _name,
    "always-float64",
    "returns float64 always: the answer keeps the dtype of the input",
    in_float64(_log_softmax),
)


# ---- cross entropy


def _counted(target, ignore_index):
    return target != ignore_index


def _own_class(log_p, kept, target):
    return log_p[kept, target[kept]]


def _mean(losses, logits):
    return losses.sum() / losses.dtype.type(len(losses))


def _cross_entropy(
    logits,
    target,
    ignore_index=IGNORE,
    counts=_counted,
    log_p=_log_softmax,
    pick=_own_class,
    reduce=_mean,
    none=np.nan,
    dtypes=None,
):
    w = wide(logits, **(dtypes or {}))
    kept = np.flatnonzero(counts(target, ignore_index))
    if not len(kept):
        return float(none)
    return float(reduce(-pick(log_p(w), kept, target), logits))


def _by_default(ignore_index):
    """Whatever the argument says, this value is the one that is ignored."""
    return lambda target, _: target != ignore_index


def _every_row(target, ignore_index):
    return np.ones(len(target), bool)


def _binary(log_p, kept, target):
    """The loss of K yes-no questions with softmax's probabilities: binary cross entropy of the one-hot row."""
    others = np.log1p(-np.exp(log_p[kept]))
    others[np.arange(len(kept)), target[kept]] = 0
    return log_p[kept, target[kept]] + others.sum(1)


def _masked_by_product(logits, target, ignore_index=IGNORE, nan=np.nan):
    kept = target != ignore_index
    losses = -_log_softmax(wide(logits))[np.arange(len(target)), np.where(kept, target, 0)]
    return float((losses * kept).sum() / kept.sum()) if kept.any() else float(nan)


def _unreduced(logits, target, ignore_index=IGNORE, ignored=0.0):
    kept = target != ignore_index
    losses = -_log_softmax(wide(logits))[np.arange(len(target)), np.where(kept, target, 0)]
    return np.where(kept, losses, ignored).astype(logits.dtype)


def _unreduced_kept(logits, target, ignore_index=IGNORE):
    kept = target != ignore_index
    return -_log_softmax(logits)[kept, target[kept]]


def _all_pairs(log_p, kept, target):
    """log_p[:, target]: every row with every row's target."""
    return log_p[kept][:, target[kept]].ravel()


def _changing_targets(logits, target, ignore_index=IGNORE):
    kept = target != ignore_index
    target[...] = np.where(kept, target, 0)
    return _cross_entropy(logits[kept], target[kept])


def _shifts_target(log_p, kept, target):
    return log_p[kept, target[kept] - 1]


_name = "cross_entropy"
add(
    _name,
    "softmax-twice",
    "applies softmax twice: log_softmax is taken of the logits, once",
    with_switches(_cross_entropy, log_p=lambda w: _log_softmax(_softmax(w))),
    with_switches(_cross_entropy, log_p=lambda w: _log_softmax(_softmax(w)), dtypes=DOUBLE),
    with_switches(_cross_entropy, log_p=lambda w: _log_softmax(_log_softmax(w), before=_softmax)),
)
add(
    _name,
    "log-of-softmax",
    "takes the log of softmax, which is -inf where a probability underflows to 0: use x - max - log(sum(exp(x - max)))",
    *(with_switches(_cross_entropy, log_p=_log_of_softmax, dtypes=d) for d in BOTH),
)
add(
    _name,
    "naive-log-of-softmax",
    "takes the log of exp(x) / sum(exp(x)), which over- and underflows: use x - max - log(sum(exp(x - max)))",
    *(with_switches(_cross_entropy, log_p=with_switches(_log_of_softmax, shift=_zero), dtypes=d) for d in BOTH),
)
add(
    _name,
    "eps-in-log",
    "adds a small number inside the log, which caps the loss: use x - max - log(sum(exp(x - max)))",
    *(
        with_switches(
            _cross_entropy, log_p=with_switches(_log_of_softmax, safe=lambda p, t=t: p + p.dtype.type(t)), dtypes=d
        )
        for t in TINY
        for d in BOTH
    ),
)
add(
    _name,
    "clips-probabilities",
    "clips the probabilities before the log, which caps the loss: use x - max - log(sum(exp(x - max)))",
    *(
        with_switches(_cross_entropy, log_p=with_switches(_log_of_softmax, safe=safe), dtypes=d)
        for t in TINY
        for d in BOTH
        for safe in (
            lambda p, t=t: np.maximum(p, p.dtype.type(t)),
            lambda p, t=t: np.clip(p, p.dtype.type(t), 1 - p.dtype.type(t)),
        )
    ),
)
add(
    _name,
    "no-log",
    "leaves the log out, so that the loss ends at -1: it is the mean of -log p of the right class",
    with_switches(_cross_entropy, log_p=_softmax),
    with_switches(_cross_entropy, log_p=_softmax, reduce=lambda losses, logits: 1 + _mean(losses, logits)),
)
add(
    _name,
    "not-normalized",
    "takes the right class's logit itself: take its log_softmax, which subtracts the row's logsumexp",
    with_switches(_cross_entropy, log_p=lambda w: w),
)
for _slug, (_sentence, _shift) in SHIFTS.items():
    add(
        _name,
        _slug,
        _sentence.format(slice="row"),
        *(with_switches(_cross_entropy, log_p=with_switches(_log_softmax, shift=_shift), dtypes=d) for d in BOTH),
    )
add(
    _name,
    "over-rows",
    "lets the rows compete for each class: softmax runs over the classes, axis 1 (as many rows as classes hide it)",
    with_switches(_cross_entropy, log_p=lambda w: _log_softmax(w, axis=0)),
)
add(
    _name,
    "sum",
    "adds the rows' losses up: take their mean",
    with_switches(_cross_entropy, reduce=lambda losses, logits: losses.sum()),
)
add(
    _name,
    "unreduced",
    "returns a loss for each row: take the mean over the rows that count",
    _unreduced,
    _unreduced_kept,
    with_switches(_unreduced, ignored=np.nan),
)
add(
    _name,
    "mean-over-all-rows",
    "divides by the number of all rows: ignored rows do not count in the mean",
    with_switches(_cross_entropy, reduce=lambda losses, logits: losses.sum() / len(logits)),
    with_switches(_cross_entropy, reduce=lambda losses, logits: losses.sum() / len(logits), none=0.0),
)
add(
    _name,
    "mean-over-entries",
    "divides by rows times classes: the mean runs over the rows alone",
    with_switches(_cross_entropy, reduce=lambda losses, logits: _mean(losses, logits) / logits.shape[1]),
    with_switches(_cross_entropy, reduce=lambda losses, logits: losses.sum() / logits.size),
)
add(
    _name,
    "ignores-nothing",
    "uses ignored targets as class indices (-100 counts from the end in NumPy): leave their rows out",
    with_switches(_cross_entropy, counts=_every_row),
)
add(
    _name,
    "fixed-ignore-index",
    "ignores -100 whatever ignore_index says: compare the targets with the argument",
    with_switches(_cross_entropy, counts=_by_default(IGNORE)),
)
add(
    _name,
    "ignores-negatives",
    "leaves out negative targets whatever ignore_index says: compare the targets with the argument",
    with_switches(_cross_entropy, counts=lambda target, _: target >= 0),
)


def _ignored_as_class_0(logits, target, ignore_index=IGNORE):
    return _cross_entropy(logits, np.where(target == ignore_index, 0, target), ignore_index=None, counts=_every_row)


add(
    _name,
    "ignored-as-class-0",
    "counts ignored rows as rows of class 0: they are left out of sum and mean",
    _ignored_as_class_0,
)
add(
    _name,
    "nan-to-num",
    "hides a NaN in a row that counts: the loss becomes NaN there, so that the fault shows",
    with_switches(_cross_entropy, reduce=lambda losses, logits: np.nanmean(losses)),
    with_switches(_cross_entropy, log_p=lambda w: _log_softmax(np.nan_to_num(w, posinf=np.inf, neginf=-np.inf))),
)
add(
    _name,
    "zero-times-nan",
    "multiplies ignored rows by 0, and 0 times NaN or infinity is NaN: select the rows that count instead",
    _masked_by_product,
    with_switches(_masked_by_product, nan=0.0),
)
add(
    _name,
    "all-ignored-zero",
    "gives 0 when every row is ignored: a mean of nothing is NaN, as in PyTorch",
    with_switches(_cross_entropy, none=0.0),
)
add(
    _name,
    "minus-sign",
    "has the sign wrong: the loss is minus the log probability, and never negative",
    with_switches(_cross_entropy, pick=lambda *args: -_own_class(*args)),
)
add(
    _name,
    "log-of-mean",
    "takes the log of the mean probability: take the mean of the logs",
    with_switches(_cross_entropy, reduce=lambda losses, logits: -np.log(np.exp(-losses).mean())),
)
add(
    _name,
    "every-target-for-every-row",
    "pairs every row with every target, as log_p[:, target] does: use log_p[np.arange(N), target]",
    with_switches(_cross_entropy, pick=_all_pairs),
)
add(
    _name,
    "shifted-targets",
    "counts classes from 1: target 0 is the first class",
    with_switches(_cross_entropy, pick=_shifts_target),
)
add(
    _name,
    "likeliest-class",
    "scores the likeliest class of each row: take the log probability of its target",
    with_switches(_cross_entropy, pick=lambda log_p, kept, target: log_p[kept].max(1)),
)
add(
    _name,
    "binary-cross-entropy",
    "adds -log(1 - p) of the wrong classes, which is binary cross entropy: only the right class's term is left",
    with_switches(_cross_entropy, pick=_binary),
    with_switches(_cross_entropy, pick=_binary, dtypes=DOUBLE),
)
add(
    _name,
    "log-sigmoid",
    "gives each class a sigmoid: the probabilities of a row come from one softmax",
    with_switches(_cross_entropy, log_p=lambda w: -np.logaddexp(w.dtype.type(0), -w)),
)
add(
    _name,
    "squared-error",
    "takes the squared error of the probabilities: cross entropy is -log p of the right class",
    lambda logits, target, ignore_index=IGNORE: _squared_error(logits, target, ignore_index, np.mean),
    lambda logits, target, ignore_index=IGNORE: _squared_error(logits, target, ignore_index, lambda d: d.sum(1).mean()),
)
add(
    _name,
    "bits",
    "takes the logarithm to base 2: the loss is in nats, by the natural logarithm",
    with_switches(_cross_entropy, reduce=lambda losses, logits: _mean(losses, logits) / np.log(2)),
)
add(
    _name,
    "perplexity",
    "returns the exponential of the loss, the perplexity: return the loss",
    with_switches(_cross_entropy, reduce=lambda losses, logits: np.exp(_mean(losses, logits))),
)
add(
    _name,
    "half-arithmetic",
    "computes in float16, where the sum of the losses overflows: compute in float32",
    with_switches(_cross_entropy, log_p=with_switches(_log_softmax, dtypes=HALF), dtypes=HALF),
    noisy=True,
)
add(
    _name,
    "float32-arithmetic",
    "computes float64 input in float32: keep the arithmetic as wide as the input",
    with_switches(_cross_entropy, dtypes=NARROW),
    noisy=True,
    trace=_narrow,
)
add(
    _name,
    "mutates-input",
    "changes its input: work on a copy",
    _changing_targets,
)


def _squared_error(logits, target, ignore_index, reduce):
    kept = np.flatnonzero(target != ignore_index)
    if not len(kept):
        return float("nan")
    p = _softmax(wide(logits)[kept])
    p[np.arange(len(kept)), target[kept]] -= 1
    return float(reduce(p * p))


# ---- cross entropy, backward


def _one_hot(w, target):
    y = np.zeros_like(w)
    y[np.arange(len(target)), target] = 1
    return y


def _cross_entropy_backward(
    logits,
    target,
    ignore_index=IGNORE,
    counts=_counted,
    gradient=lambda w, y: _softmax(w) - y,
    one_hot=_one_hot,
    over=lambda kept, logits: kept,
    ignored=None,
    none=0.0,
    after=None,
    dtypes=None,
):
    w = wide(logits, **(dtypes or {}))
    kept = np.flatnonzero(counts(target, ignore_index))
    dlogits = np.zeros_like(w) if ignored is None else ignored(w)
    if len(kept):
        dlogits[kept] = gradient(w[kept], one_hot(w[kept], target[kept]))
        dlogits = dlogits / w.dtype.type(over(len(kept), logits))
    else:
        dlogits = dlogits + w.dtype.type(none)
    return (after(dlogits) if after else dlogits).astype(logits.dtype)


def _indexes_before_it_ignores(zeroed):
    """p[rows, target] -= 1 for every row: an error where there are fewer than a hundred classes."""

    def wrong(logits, target, ignore_index=IGNORE):
        p = _softmax(wide(logits))
        p[np.arange(len(p)), target] -= 1
        if zeroed:
            p[target == ignore_index] = 0
        return (p / p.dtype.type(max((target != ignore_index).sum(), 1))).astype(logits.dtype)

    return wrong


def _subtracts_in_every_row(logits, target, ignore_index=IGNORE):
    """p[:, target] -= 1: numpy subtracts once in every row for each class that is a target."""
    w = wide(logits)
    kept = np.flatnonzero(target != ignore_index)
    p = _softmax(w[kept])
    p[:, target[kept]] -= 1
    dlogits = np.zeros_like(w)
    dlogits[kept] = p / w.dtype.type(max(len(kept), 1))
    return dlogits.astype(logits.dtype)


def _of_probabilities(w, y):
    """The gradient with respect to the probabilities, -y / p, by a way that does not overflow before it must."""
    return -y * np.exp(-_log_softmax(w)) if w.size else w


def _through_softmax(v, p):
    return p * (v - (p * v).sum(1, keepdims=True))


def _twice(w, y):
    p = _softmax(w)
    return _through_softmax(_softmax(p) - y, p)


_name = "cross_entropy_backward"
add(
    _name,
    "minus-sign",
    "has the sign wrong, y - p: the gradient of the loss is p - y, and the step against it is y - p",
    with_switches(_cross_entropy_backward, after=np.negative),
)
add(
    _name,
    "not-divided",
    "does not divide by the number of rows that count: the loss is their mean",
    with_switches(_cross_entropy_backward, over=lambda kept, logits: 1),
)
add(
    _name,
    "divides-by-all-rows",
    "divides by the number of all rows: ignored rows do not count in the mean",
    with_switches(_cross_entropy_backward, over=lambda kept, logits: len(logits)),
)
add(
    _name,
    "divides-by-entries",
    "divides by rows times classes: the mean runs over the rows alone",
    with_switches(_cross_entropy_backward, over=lambda kept, logits: kept * logits.shape[1]),
    with_switches(_cross_entropy_backward, over=lambda kept, logits: logits.size),
)
add(
    _name,
    "ignored-rows-get-p",
    "gives ignored rows a gradient: rows that do not count in the loss get 0",
    with_switches(_cross_entropy_backward, ignored=_softmax),
    with_switches(_cross_entropy_backward, ignored=_softmax, over=lambda kept, logits: len(logits)),
)
add(
    _name,
    "ignores-nothing",
    "uses ignored targets as class indices (-100 counts from the end in NumPy): their rows get 0",
    with_switches(_cross_entropy_backward, counts=_every_row),
    _indexes_before_it_ignores(zeroed=False),
    _indexes_before_it_ignores(zeroed=True),
)
add(
    _name,
    "fixed-ignore-index",
    "ignores -100 whatever ignore_index says: compare the targets with the argument",
    with_switches(_cross_entropy_backward, counts=_by_default(IGNORE)),
)
add(
    _name,
    "ignores-negatives",
    "leaves out negative targets whatever ignore_index says: compare the targets with the argument",
    with_switches(_cross_entropy_backward, counts=lambda target, _: target >= 0),
)
add(
    _name,
    "all-ignored-nan",
    "divides by 0 when every row is ignored: no row counts, so every gradient is 0",
    with_switches(_cross_entropy_backward, none=np.nan),
)
add(
    _name,
    "no-softmax",
    "subtracts the one-hot target from the logits: subtract it from their softmax",
    with_switches(_cross_entropy_backward, gradient=lambda w, y: w - y),
)
add(
    _name,
    "no-target",
    "returns the probabilities: 1 is still to be subtracted at the right class",
    with_switches(_cross_entropy_backward, gradient=lambda w, y: _softmax(w)),
)
add(
    _name,
    "log-probabilities",
    "subtracts the one-hot target from the log probabilities: subtract it from the probabilities",
    with_switches(_cross_entropy_backward, gradient=lambda w, y: _log_softmax(w) - y),
)
add(
    _name,
    "right-class-only",
    "moves the right class alone: the wrong classes get their probability as a gradient",
    with_switches(_cross_entropy_backward, gradient=lambda w, y: (_softmax(w) - y) * y),
)
add(
    _name,
    "every-target-in-every-row",
    "subtracts 1 at every target in every row, as p[:, target] -= 1 does: use p[np.arange(N), target]",
    _subtracts_in_every_row,
)
add(
    _name,
    "of-probabilities",
    "returns the gradient with respect to the probabilities, -y / p: softmax's Jacobian is still to be applied",
    with_switches(_cross_entropy_backward, gradient=_of_probabilities),
    with_switches(_cross_entropy_backward, gradient=_of_probabilities, dtypes=DOUBLE),
    with_switches(_cross_entropy_backward, gradient=lambda w, y: np.where(y > 0, -y / _softmax(w), 0)),
    with_switches(_cross_entropy_backward, gradient=lambda w, y: -y / _softmax(w)),
)
add(
    _name,
    "jacobian-again",
    "multiplies p - y by softmax's Jacobian: p - y is the gradient with respect to the logits already",
    with_switches(_cross_entropy_backward, gradient=lambda w, y: _through_softmax(_softmax(w) - y, _softmax(w))),
)
add(
    _name,
    "jacobian-diagonal",
    "multiplies p - y by p (1 - p), as a squared error on a sigmoid would: cross entropy cancels that factor",
    with_switches(_cross_entropy_backward, gradient=lambda w, y: (_softmax(w) - y) * _softmax(w) * (1 - _softmax(w))),
)
add(
    _name,
    "softmax-twice",
    "differentiates softmax applied twice: the logits go through softmax once",
    with_switches(_cross_entropy_backward, gradient=_twice),
    with_switches(_cross_entropy_backward, gradient=lambda w, y: _softmax(_softmax(w)) - y),
)
for _slug, (_sentence, _shift) in SHIFTS.items():
    _sentence = _sentence.replace(" (or leaves log 0)", " (or leaves 0/0)")
    add(
        _name,
        _slug,
        _sentence.format(slice="row"),
        *(
            with_switches(_cross_entropy_backward, gradient=lambda w, y, s=_shift: _softmax(w, shift=s) - y, dtypes=d)
            for d in BOTH
        ),
    )
add(
    _name,
    "over-rows",
    "lets the rows compete for each class: softmax runs over the classes, axis 1 (as many rows as classes hide it)",
    with_switches(_cross_entropy_backward, gradient=lambda w, y: _softmax(w, axis=0) - y),
)
add(
    _name,
    "sigmoid",
    "gives each class a sigmoid: the probabilities of a row come from one softmax",
    with_switches(_cross_entropy_backward, gradient=lambda w, y: np.exp(-np.logaddexp(w.dtype.type(0), -w)) - y),
)
add(
    _name,
    "shifted-targets",
    "counts classes from 1: target 0 is the first class",
    with_switches(_cross_entropy_backward, one_hot=lambda w, target: _one_hot(w, target - 1)),
)
add(
    _name,
    "float32-arithmetic",
    "computes float64 input in float32: keep the arithmetic as wide as the input",
    with_switches(_cross_entropy_backward, dtypes=NARROW),
    noisy=True,
    trace=_narrow,
)
add(
    _name,
    "nan-to-num",
    "replaces NaN by numbers: a NaN in a row that counts is a fault, and is to show",
    with_switches(_cross_entropy_backward, after=np.nan_to_num),
    with_switches(_cross_entropy_backward, gradient=lambda w, y: np.nan_to_num(_softmax(w)) - y),
)
add(_name, "mutates-input", "changes its input: work on a copy", _mutating(_cross_entropy_backward))
add(
    _name,
    "always-float64",
    "returns float64 always: the answer keeps the dtype of the logits",
    in_float64(_cross_entropy_backward),
)


# ---- softmax, backward


def _dot(dy, y, axis):
    return (y * dy).sum(axis, keepdims=True)


def _softmax_backward(
    dy, y, axis=-1, inner=_dot, over=lambda axis: axis, gradient=lambda dy, y, s: y * (dy - s), dtypes=None
):
    axis, kind = over(axis), dy.dtype
    dy, y = wide(dy, **(dtypes or {})), wide(y, **(dtypes or {}))
    return gradient(dy, y, inner(dy, y, axis)).astype(kind)


def _softmax_backward_no_keepdims(dy, y, axis=-1):
    w, p = wide(dy), wide(y)
    return (p * (w - (p * w).sum(axis))).astype(dy.dtype)


def _y_through_softmax(dy, y, axis=-1):
    return _softmax_backward(dy, _softmax(wide(y), axis), axis).astype(dy.dtype)


def _y_renormalized(dy, y, axis=-1):
    p = wide(y)
    return _softmax_backward(dy, p / p.sum(axis, keepdims=True), axis)


def _softmax_backward_along_0(dy, y, axis=0):
    return _softmax_backward(dy, y, axis)


def _averaged(dy, y, axis=-1):
    return (_softmax_backward(wide(dy), wide(y), axis) / dy.shape[axis]).astype(dy.dtype)


_name = "softmax_backward"
add(
    _name,
    "diagonal-only",
    "keeps only the Jacobian's diagonal, y (1 - y): each weight depends on every logit, not on its own alone",
    with_switches(_softmax_backward, gradient=lambda dy, y, s: dy * y * (1 - y)),
)
add(
    _name,
    "no-inner-product",
    "multiplies by y and stops: the sum of y * dy over the slice is subtracted from dy first",
    with_switches(_softmax_backward, gradient=lambda dy, y, s: y * dy),
)
add(
    _name,
    "plain-mean",
    "subtracts the plain mean of dy: subtract its mean weighted by y, sum(y * dy)",
    with_switches(_softmax_backward, inner=lambda dy, y, axis: dy.mean(axis, keepdims=True)),
)
add(
    _name,
    "sum-of-dy",
    "subtracts the sum of dy: subtract the sum of y * dy",
    with_switches(_softmax_backward, inner=lambda dy, y, axis: dy.sum(axis, keepdims=True)),
)
add(
    _name,
    "mean-of-products",
    "takes the mean of y * dy: take the sum, as the weights y add up to 1 already",
    with_switches(_softmax_backward, inner=lambda dy, y, axis: (y * dy).mean(axis, keepdims=True)),
)
add(
    _name,
    "no-outer-factor",
    "leaves out the factor y in front: dy, its weighted mean subtracted, is multiplied by y",
    with_switches(_softmax_backward, gradient=lambda dy, y, s: dy - s),
)
add(
    _name,
    "inner-product-unweighted",
    "subtracts sum(y * dy) from y * dy: the sum is to be multiplied by y too",
    with_switches(_softmax_backward, gradient=lambda dy, y, s: y * dy - s),
)
add(
    _name,
    "of-log-softmax",
    "gives dy - y * sum(dy), the gradient through log_softmax: that of softmax is asked for",
    with_switches(
        _softmax_backward,
        inner=lambda dy, y, axis: dy.sum(axis, keepdims=True),
        gradient=lambda dy, y, s: dy - y * s,
    ),
    with_switches(
        _softmax_backward,
        inner=lambda dy, y, axis: dy.sum(axis, keepdims=True),
        gradient=lambda dy, y, s: dy - np.exp(y) * s,
    ),
)
add(
    _name,
    "softmax-of-y",
    "applies softmax to y: y is softmax's output already",
    _y_through_softmax,
)
add(
    _name,
    "minus-sign",
    "has the sign wrong: raising a logit raises its own weight",
    with_switches(_softmax_backward, gradient=lambda dy, y, s: y * (s - dy)),
)
add(
    _name,
    "zeros",
    "returns zeros: the gradient is zero only where dy is constant or all of the weight is on one element",
    with_switches(_softmax_backward, gradient=lambda dy, y, s: dy * 0),
)
add(
    _name,
    "p-minus-y",
    "returns y - dy, the gradient of cross entropy with dy for a target: dy is any gradient with respect to y",
    with_switches(_softmax_backward, gradient=lambda dy, y, s: y - dy),
)
add(
    _name,
    "ignores-dy",
    "leaves dy out: the gradient of the loss with respect to y is part of the chain rule",
    with_switches(_softmax_backward, gradient=lambda dy, y, s: y * (1 - y)),
    with_switches(_softmax_backward, gradient=lambda dy, y, s: y * (1 - (y * y).sum(-1, keepdims=True))),
)
add(
    _name,
    "roles-swapped",
    "has dy and y the wrong way round: the first argument is the gradient, the second softmax's output",
    lambda dy, y, axis=-1: _softmax_backward(y, dy, axis).astype(dy.dtype),
)
add(
    _name,
    "averaged",
    "divides by the length of the slice: the chain rule adds up and does not average",
    _averaged,
)
add(
    _name,
    "fixed-axis",
    "ignores axis and always takes the same one",
    with_switches(_softmax_backward, over=lambda axis: -1),
    with_switches(_softmax_backward, over=lambda axis: 0),
)
add(_name, "default-axis", "has another default axis: it is the last one, -1", _softmax_backward_along_0)
add(_name, "not-moved-back", NOT_MOVED_BACK, left_at_the_end(_softmax_backward))
add(
    _name,
    "rows-alone",
    ROWS_ALONE,
    with_switches(_softmax_backward, inner=lambda dy, y, axis: (y * dy).sum(axis)[:, None]),
)
add(
    _name,
    "renormalizes-y",
    "divides y by its sum first: y is softmax's output as it is, rounding and all",
    _y_renormalized,
)
add(
    _name,
    "everything",
    "sums y * dy over the whole array: each slice along the axis has a sum of its own",
    with_switches(_softmax_backward, inner=lambda dy, y, axis: (y * dy).sum()),
)
add(
    _name,
    "no-keepdims",
    "drops the axis of its sum, so that NumPy lines it up with the wrong one (a square input hides it): keepdims=True",
    _softmax_backward_no_keepdims,
)
add(
    _name,
    "half-arithmetic",
    "computes in float16, where dy minus its mean loses its digits: compute in float32 and cast at the end",
    with_switches(_softmax_backward, dtypes=HALF),
    noisy=True,
)
add(
    _name,
    "float32-arithmetic",
    "computes float64 input in float32: keep the arithmetic as wide as the input",
    with_switches(_softmax_backward, dtypes=NARROW),
    noisy=True,
    trace=_narrow,
)
add(
    _name,
    "nan-to-num",
    "replaces NaN by numbers: a NaN in dy is a fault, and is to show",
    with_switches(_softmax_backward, gradient=lambda dy, y, s: np.nan_to_num(y * (dy - s))),
    with_switches(_softmax_backward, inner=lambda dy, y, axis: np.nansum(y * dy, axis, keepdims=True)),
    lambda dy, y, axis=-1: _softmax_backward(np.nan_to_num(dy), y, axis),
)
add(_name, "mutates-input", "changes its input: work on a copy", _mutating(_softmax_backward))
add(
    _name,
    "always-float64",
    "returns float64 always: the answer keeps the dtype of dy",
    in_float64(_softmax_backward),
)
