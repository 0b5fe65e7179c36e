"""Known mistakes: wrong implementations that run, each with the sentence that explains it.

A sentence completes "yours ..."; what stands after its colon says what is right. Most mistakes are a right
implementation with one switch thrown, so the family's helpers below take switches. A test proves that every mistake is
refused, for its own reason, and that no two of an exercise can be confused.
"""

import math

import numpy as np

from normlab.axes import LETTERS, ngds_shape
from normlab.chapters import CHAPTERS
from normlab.frame import (
    NOT_MOVED_BACK,
    ROWS_ALONE,
    in_float64,
    left_at_the_end,
    mistakes_table,
    wide,
    with_switches,
)
from normlab.guard import MUTATES_INPUT

# Small numbers that people add where none belongs.
TINY = (1e-6, 1e-8, 1e-12, 1e-10, 1e-9, 1e-7, 1e-5, 1e-3)

MISTAKES, _add = mistakes_table()


# ---- the norms: one right implementation with switches ---------------------------------------------------------------


def _x_hat(
    x, axis, eps, ddof=0, root="under", one_pass=False, center="both", fixed_eps=None, skip_nan=False, dtypes=None
):
    x = wide(x, **(dtypes or {}))
    eps = x.dtype.type(eps if fixed_eps is None else fixed_eps)
    average = np.nanmean if skip_nan else np.mean
    count = np.prod([x.shape[a] for a in np.atleast_1d(axis)]) if axis is not None else x.size
    mean = average(x, axis=axis, keepdims=True)
    if center != "both":  # "spread": the standard deviation without subtracting the mean; "neither": the mean square
        var = average((x - mean) ** 2 if center == "spread" else x * x, axis=axis, keepdims=True)
        mean = x.dtype.type(0)
    elif one_pass:
        var = average(x * x, axis=axis, keepdims=True) - mean * mean
    else:
        var = average((x - mean) ** 2, axis=axis, keepdims=True)
    if ddof:
        var = var * x.dtype.type(count / (count - ddof)) if count > ddof else var * x.dtype.type(np.nan)
    scale = {
        "under": np.sqrt(var + eps),
        "outside": np.sqrt(var) + eps,
        "none": var + eps,
        "no scale": var.dtype.type(1),
    }[root]
    return (x - mean) / scale


def _affine(y, weight, bias, order="weight first", crash_on_none=False, bias_needs_weight=False, bias_crashes=False):
    if crash_on_none or (weight is not None and order == "weight first"):
        y = y * weight
    if bias_crashes and weight is not None and bias is None:
        raise TypeError("the bias is None")
    if bias is not None and not (bias_needs_weight and weight is None):
        y = y + bias
    if weight is not None and order == "bias first":
        y = y * weight
    return y


AFFINE = ("order", "crash_on_none", "bias_needs_weight", "bias_crashes")


def _split(switches):
    """The switches of the affine step, and those of the statistics."""
    return {k: v for k, v in switches.items() if k in AFFINE}, {k: v for k, v in switches.items() if k not in AFFINE}


def _channels_first(x, pools, weight, bias, eps, num_groups=1, **switches):
    """A norm over (N, C, positions...) that pools the letters in `pools`, right but for its switches."""
    v = x.reshape(ngds_shape(x.shape, "group", num_groups))
    affine, statistics = _split(switches)
    y = _x_hat(v, tuple(LETTERS.index(p) for p in pools), eps, **statistics)
    per_channel = [None if a is None else a.reshape(1, *v.shape[1:3], 1) for a in (weight, bias)]
    return _affine(y, *per_channel, **affine).astype(x.dtype).reshape(x.shape)


def _channels_last(x, axis, weight, bias, eps, **switches):
    affine, statistics = _split(switches)
    return _affine(_x_hat(x, axis, eps, **statistics), weight, bias, **affine).astype(x.dtype)


def _inner_axes(normalized_shape):
    return tuple(range(-len(normalized_shape), 0))


def _standardize(x, eps=1e-5, axis=None, **switches):
    return _x_hat(x, axis, eps, **switches).astype(x.dtype)


def _z_score(x, axis=-1, eps=1e-5, over=lambda axis: axis, **switches):
    return _x_hat(x, over(axis), eps, **switches).astype(x.dtype)


def _batch_norm(x, weight, bias, eps=1e-5, pools="NS", single_allowed=False, **switches):
    if x.size == x.shape[1] and not single_allowed:
        raise ValueError("one value per channel")
    return _channels_first(x, pools, weight, bias, eps, **switches)


def _instance_norm(x, weight=None, bias=None, eps=1e-5, pools="S", single_allowed=False, **switches):
    if x.size == x.shape[0] * x.shape[1] and not single_allowed:
        raise ValueError("one position per channel")
    return _channels_first(x, pools, weight, bias, eps, **switches)


def _group_norm(x, num_groups, weight=None, bias=None, eps=1e-5, pools="DS", groups=lambda n, c: n, **switches):
    if x.shape[1] % num_groups:
        raise ValueError("the groups do not divide the channels")
    return _channels_first(x, pools, weight, bias, eps, groups(num_groups, x.shape[1]), **switches)


def _layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5, over=_inner_axes, **switches):
    axis = over(normalized_shape) if callable(over) else over
    return _channels_last(x, axis, weight, bias, eps, **switches)


def _rms_norm(
    x, normalized_shape, weight=None, eps=None, over=_inner_axes, default_eps=None, center="neither", **switches
):
    if eps is None:
        eps = np.finfo(wide(x).dtype).eps if default_eps is None else default_eps(x)
    axis = over(normalized_shape) if callable(over) else over
    return _channels_last(x, axis, weight, None, eps, center=center, **switches)


def _default_eps(right, default):
    def wrong(*args, **kwargs):
        return right(*args, **({"eps": default} | kwargs))

    return wrong


def _ignoring_eps(right):
    def wrong(*args, eps=None, **kwargs):
        return right(*args, **kwargs)

    return wrong


def _without_nan(right):
    def wrong(*args, **kwargs):
        return np.nan_to_num(right(*args, **kwargs))

    return wrong


FAMILY = {
    "standardize": _standardize,
    "z_score": _z_score,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
    "rms_norm": _rms_norm,
}

_KEEPDIMS = "drops the axis of its statistics, so that NumPy lines them up with the wrong one (a square input hides it): keepdims=True"

for _name, _right in FAMILY.items():
    _what = "the mean square" if _name == "rms_norm" else "the variance"
    _add(
        _name,
        "eps-outside-root",
        f"adds eps outside the root: it belongs to {_what}, sqrt(... + eps)",
        with_switches(_right, root="outside"),
    )
    _add(
        _name,
        "no-eps",
        f"leaves eps out: it is always added to {_what}, or a pool without spread becomes 0/0",
        with_switches(_right, fixed_eps=0.0),
    )
    if _name == "rms_norm":
        _add(
            _name, "ignores-eps", "ignores the eps it is given: use the argument, not a constant", _ignoring_eps(_right)
        )
    else:
        _add(
            _name,
            "ignores-eps",
            "ignores the eps it is given: use the argument, not a constant",
            with_switches(_right, fixed_eps=1e-5),
        )
        _add(
            _name,
            "wrong-default-eps",
            "has another default eps: it is 1e-5",
            *(_default_eps(_right, e) for e in (1e-6, 1e-8, 1e-12, 1e-3, 1e-7, 1e-10, 1e-4)),
        )
    _add(_name, "no-root", f"divides by {_what} itself: take its square root", with_switches(_right, root="none"))
    _add(
        _name,
        "half-statistics",
        "computes in float16: squares overflow and means lose their digits, so compute in float32 and cast once at the end",
        with_switches(_right, dtypes={"half": True}),
        noisy=True,
    )
    _add(
        _name,
        "float32-arithmetic",
        "computes float64 input in float32: keep the arithmetic as wide as the input",
        with_switches(_right, dtypes={"narrow": True}),
        noisy=True,
    )
    if _name != "rms_norm":
        _part = "the forward pass uses" if _name in ("batch_norm", "instance_norm") else "normalizing uses"
        _add(
            _name,
            "divides-by-n-1",
            f"divides by n-1: {_part} the biased variance, the mean of the squared deviations",
            with_switches(_right, ddof=1),
        )
        _add(
            _name,
            "one-pass-variance",
            "computes the variance as E[x^2] - E[x]^2, which cancels far from zero: subtract the mean first, then square",
            with_switches(_right, one_pass=True),
            noisy=True,
        )
        _add(
            _name,
            "not-centered",
            "does not subtract the mean: center first, then scale",
            with_switches(_right, center="spread"),
        )
        _add(
            _name,
            "not-scaled",
            "subtracts the mean and leaves the spread as it is: divide by the root of the variance",
            with_switches(_right, root="no scale"),
        )
        _add(
            _name,
            "root-mean-square",
            "divides by the root mean square and does not subtract the mean, which is RMS norm: center first",
            with_switches(_right, center="neither"),
        )
        _add(
            _name,
            "n-1-and-eps-outside",
            "divides by (standard deviation over n-1) + eps: the variance is over n, and eps is added to it under the root",
            with_switches(_right, ddof=1, root="outside"),
        )


def _mutating(right):
    def wrong(x, *args, **kwargs):
        y = right(x, *args, **kwargs)
        x[...] = y if y.shape == x.shape else 0
        return y

    return wrong


def _affine_on_last_axis(right):
    """Weight and bias multiplied as they come: NumPy lines them up with the last axis."""

    def wrong(x, *args, weight=None, bias=None, **kwargs):
        if len(args) >= 2:
            weight, bias, args = args[0], args[1], (None, None, *args[2:])
        y = right(x, *args, **kwargs)
        return _affine(wide(y), weight, bias).astype(x.dtype)

    return wrong


_LAST = "lines weight and bias up with the last axis: give them the shape (1, C, 1, ...) of the channels (an input with C = W hides this)"
for _name in ("batch_norm", "instance_norm"):
    _add(_name, "weight-on-last-axis", _LAST, _affine_on_last_axis(FAMILY[_name]))


def _group_affine_on_last_axis(x, num_groups, weight=None, bias=None, eps=1e-5):
    y = _group_norm(x, num_groups, eps=eps)
    return _affine(wide(y), weight, bias).astype(x.dtype)


_add("group_norm", "weight-on-last-axis", _LAST, _group_affine_on_last_axis)

for _name in ("batch_norm", "layer_norm", "instance_norm", "group_norm"):
    _right = FAMILY[_name]
    _add(
        _name,
        "scales-bias",
        "multiplies the bias by the weight: scale first, then add the bias",
        with_switches(_right, order="bias first"),
    )
    if _name != "batch_norm":
        _add(
            _name,
            "none-crashes",
            "does not cope with weight=None or bias=None: None means a weight of 1 and a bias of 0",
            with_switches(_right, crash_on_none=True),
        )
        _add(
            _name,
            "bias-needs-weight",
            "takes weight and bias for a pair: each of them may be None by itself",
            with_switches(_right, bias_needs_weight=True),
            with_switches(_right, bias_needs_weight=True, bias_crashes=True),
        )


def _weighting_first(name):
    """Weight (and nothing else) applied to the input, before the statistics are taken."""

    def wrong(x, *args, **kwargs):
        args = list(args)
        if name == "batch_norm":
            weight, args[0] = args[0], None
        else:
            weight = kwargs.pop("weight", None)
        if weight is not None:
            x = wide(x) * (weight if name in ("layer_norm", "rms_norm") else weight.reshape(1, -1, *[1] * (x.ndim - 2)))
        return FAMILY[name](x, *args, **kwargs)

    def cast(x, *args, **kwargs):
        return wrong(x, *args, **kwargs).astype(x.dtype)

    return cast


def _changed_affine(name, change):
    """The norm `name` with its weight and bias as `change(weight, bias)` gives them."""

    def wrong(x, *args, **kwargs):
        if name == "batch_norm":
            return FAMILY[name](x, *change(*args[:2]), *args[2:], **kwargs)
        weight, bias = change(kwargs.get("weight"), kwargs.get("bias"))
        return FAMILY[name](x, *args, **(kwargs | {"weight": weight} | ({} if name == "rms_norm" else {"bias": bias})))

    return wrong


def _truth_value(name):
    def wrong(x, *args, **kwargs):
        if kwargs.get("weight"):  # the mistake: an array has no truth value, unless it is of one element
            pass
        return FAMILY[name](x, *args, **kwargs)

    return wrong


for _name in ("batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm"):
    _add(
        _name,
        "drops-weight",
        "leaves the weight out: x_hat is multiplied by it",
        _changed_affine(_name, lambda weight, bias: (None, bias)),
    )
    if _name != "rms_norm":
        _add(
            _name,
            "drops-bias",
            "leaves the bias out: y = x_hat * weight + bias",
            _changed_affine(_name, lambda weight, bias: (weight, None)),
        )
        _add(
            _name,
            "drops-affine",
            "leaves weight and bias out: y = x_hat * weight + bias",
            _changed_affine(_name, lambda weight, bias: (None, None)),
        )
        _add(
            _name,
            "swaps-affine",
            "has weight and bias the wrong way round: y = x_hat * weight + bias",
            _changed_affine(_name, lambda weight, bias: (bias, weight)),
        )
    _add(
        _name,
        "weight-before-normalizing",
        "multiplies by the weight before normalizing, which takes most of it out again: normalize first, then scale",
        _weighting_first(_name),
    )
    if _name != "batch_norm":
        _add(
            _name,
            "truth-value",
            "asks for the truth value of the weight (`if weight:`), which an array does not have: `if weight is not None:`",
            _truth_value(_name),
        )
    _add(
        _name,
        "zero-weight-is-none",
        "takes a weight of nothing but zeros for no weight: only None means none, and 0 times x_hat is 0",
        _changed_affine(_name, lambda weight, bias: (weight if weight is not None and weight.any() else None, bias)),
    )
_add(
    "rms_norm",
    "none-crashes",
    "does not cope with weight=None: None means a weight of 1",
    with_switches(_rms_norm, crash_on_none=True),
)


# ---- standardize and z_score -----------------------------------------------------------------------------------------

_add(
    "standardize",
    "per-column",
    "normalizes each column by itself: the statistics run over all elements",
    with_switches(_standardize, axis=0),
)
_add(
    "standardize",
    "per-row",
    "normalizes each row by itself: the statistics run over all elements",
    with_switches(_standardize, axis=-1),
)
_add(
    "standardize",
    "skips-nan",
    "skips the NaN: one that slips in is to show, not to hide",
    with_switches(_standardize, skip_nan=True),
)


def _first_axis_counted(x, eps=1e-5):
    return _standardize(x, eps) if x.shape[0] else x


def _length_asked_for(x, eps=1e-5):
    return _standardize(x, eps) if len(x) else x


_add(
    "standardize",
    "needs-an-axis",
    "asks for the length of a first axis, which an array of shape () does not have: x.size counts all elements",
    _first_axis_counted,
    _length_asked_for,
)


def _sums_to_one(x, eps=1e-5):
    x = wide(x)
    return (x / x.sum()).astype(x.dtype)


def _min_max_scaled(x, eps=1e-5):
    w = wide(x)
    return ((w - w.min()) / (w.max() - w.min())).astype(x.dtype)


def _unit_length(x, eps=1e-5):
    w = wide(x)
    w = w - w.mean()
    return (w / np.sqrt((w * w).sum() + w.dtype.type(eps))).astype(x.dtype)


_add(
    "standardize",
    "sums-to-one",
    "divides by the sum, which makes the values add up to 1: standardizing makes them add up to 0",
    _sums_to_one,
)
_add("standardize", "min-max", "scales to the range 0 to 1: standardizing sets mean and variance", _min_max_scaled)
_add(
    "standardize",
    "sum-of-squares",
    "divides by the root of the sum of squares: the variance is their mean",
    _unit_length,
)

_add(
    "z_score",
    "everything",
    "pools the whole array: the statistics run along the axis only",
    with_switches(_z_score, over=lambda axis: None),
)
_add(
    "z_score", "fixed-axis", "ignores axis and always takes the last one", with_switches(_z_score, over=lambda axis: -1)
)
_add("z_score", "axis-0", "ignores axis and always takes the first one", with_switches(_z_score, over=lambda axis: 0))


def _z_score_no_keepdims(x, axis=-1, eps=1e-5):
    w = wide(x)
    return ((w - w.mean(axis)) / np.sqrt(w.var(axis) + w.dtype.type(eps))).astype(x.dtype)


def _z_score_rows(x, axis=-1, eps=1e-5):
    w = wide(x)
    return ((w - w.mean(axis)[:, None]) / np.sqrt(w.var(axis)[:, None] + w.dtype.type(eps))).astype(x.dtype)


_add("z_score", "missing-keepdims", _KEEPDIMS, _z_score_no_keepdims)
_add("z_score", "rows-alone", ROWS_ALONE, _z_score_rows)
_add("z_score", "not-moved-back", NOT_MOVED_BACK, left_at_the_end(_z_score))
for _name in ("standardize", "z_score"):
    _add(
        _name,
        "nan-to-num",
        "replaces NaN by numbers: a NaN that comes in is a fault, and is to show",
        _without_nan(FAMILY[_name]),
        lambda x, *args, right=FAMILY[_name], **kwargs: right(np.nan_to_num(x), *args, **kwargs),
    )

# ---- batch norm ------------------------------------------------------------------------------------------------------


def _batch_positions_or_examples(x, weight, bias, eps=1e-5):
    return _batch_norm(x, weight, bias, eps, pools="N" if x.ndim == 2 else "S")


def _batch_no_keepdims(x, weight, bias, eps=1e-5):
    if x.size == x.shape[1]:
        raise ValueError("one value per channel")
    axis, w, shape = (0, *range(2, x.ndim)), wide(x), (1, -1) + (1,) * (x.ndim - 2)
    y = (w - w.mean(axis)) / np.sqrt(w.var(axis) + w.dtype.type(eps))
    return _affine(y, weight.reshape(shape), bias.reshape(shape)).astype(x.dtype)


def _batch_last_is_channel(x, weight, bias, eps=1e-5):
    if x.size == x.shape[1]:
        raise ValueError("one value per channel")
    return _affine(_x_hat(x, tuple(range(x.ndim - 1)), eps), weight, bias).astype(x.dtype)


def _batch_reshaped(x, weight, bias, eps=1e-5):
    """Reshaped to (-1, C) without moving the channel axis to the end first."""
    if x.size == x.shape[1]:
        raise ValueError("one value per channel")
    rows = x.reshape(-1, x.shape[1])
    return _affine(_x_hat(rows, 0, eps), weight, bias).astype(x.dtype).reshape(x.shape)


def _batch_not_moved_back(x, weight, bias, eps=1e-5):
    if x.size == x.shape[1]:
        raise ValueError("one value per channel")
    rows = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
    return _affine(_x_hat(rows, 0, eps), weight, bias).astype(x.dtype).reshape(x.shape)


def _batch_tables_or_error(x, weight, bias, eps=1e-5):
    _, _ = x.shape  # the mistake: more axes than two do not unpack
    return _batch_only_tables(x, weight, bias, eps)


_add("batch_norm", "missing-keepdims", _KEEPDIMS, _batch_no_keepdims)
_add("batch_norm", "last-axis-is-channel", "takes the last axis for the channel: it is axis 1", _batch_last_is_channel)
_add(
    "batch_norm",
    "reshape-mixes-channels",
    "reshapes to (-1, C) although the channel is not the last axis, which mixes channels: move axis 1 to the end first",
    _batch_reshaped,
)
_add(
    "batch_norm",
    "not-moved-back",
    "does not move the channel axis back after moving it to the end: reshape does not undo moveaxis",
    _batch_not_moved_back,
)
_add(
    "batch_norm",
    "across-channels",
    "normalizes along axis 1, across the channels: a channel's statistics run over all other axes",
    with_switches(_batch_norm, pools="GD"),
)
_add(
    "batch_norm",
    "pools-examples-only",
    "pools the examples only: a channel's statistics run over examples and positions",
    with_switches(_batch_norm, pools="N"),
)
_add(
    "batch_norm",
    "pools-positions-only",
    "pools the positions only, which is instance norm: batch norm's statistics run over the examples too",
    with_switches(_batch_norm, pools="S"),
    _batch_positions_or_examples,
)


def _batch_over(axes, averaged=False):
    """Batch norm over the axes that `axes` gives for a number of axes."""

    def wrong(x, weight, bias, eps=1e-5):
        if x.size == x.shape[1]:
            raise ValueError("one value per channel")
        w, shape, over = wide(x), (1, -1) + (1,) * (x.ndim - 2), axes(x.ndim)
        mean, var = w.mean(over, keepdims=True), w.var(over, keepdims=True)
        if averaged and x.ndim > 2:
            var = w.var(tuple(range(2, x.ndim)), keepdims=True).mean(0, keepdims=True)
        y = (w - mean) / np.sqrt(var + w.dtype.type(eps))
        return _affine(y, weight.reshape(shape), bias.reshape(shape)).astype(x.dtype)

    return wrong


_add(
    "batch_norm",
    "two-ranks-alone",
    "knows tables and images alone: positions may have one axis or three as well, so pool (0, *range(2, x.ndim))",
    _batch_over(lambda ndim: (0, 2, 3) if ndim == 4 else 0),
    _batch_over(lambda ndim: 0 if ndim == 2 else (0, 2, 3)),
    _batch_over(lambda ndim: (0, 2, 3)),
    _batch_over(lambda ndim: {2: 0, 4: (0, 2, 3)}[ndim]),
)
_add(
    "batch_norm",
    "averages-variances",
    "averages the variances of the examples: a channel has one variance, around one mean, over examples and positions",
    _batch_over(lambda ndim: (0, *range(2, ndim)), averaged=True),
)
_add(
    "batch_norm",
    "pools-everything",
    "pools everything: each channel has statistics of its own",
    with_switches(_batch_norm, pools="NGDS"),
)
_add(
    "batch_norm",
    "pools-channels",
    "normalizes each example over its channels and positions, which is layer norm: batch norm keeps channels apart and pools examples",
    with_switches(_batch_norm, pools="GDS"),
)
_add(
    "batch_norm",
    "single-value",
    "lets one value per channel through: its variance is 0, so the output says nothing about the input, and PyTorch raises ValueError",
    with_switches(_batch_norm, single_allowed=True),
)


def _batch_last_axis(x, weight, bias, eps=1e-5):
    if x.size == x.shape[1]:
        raise ValueError("one value per channel")
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return _affine(_x_hat(x, -1, eps), weight.reshape(shape), bias.reshape(shape)).astype(x.dtype)


def _batch_only_tables(x, weight, bias, eps=1e-5):
    if x.size == x.shape[1]:
        raise ValueError("one value per channel")
    return _affine(_x_hat(x, 0, eps), weight, bias).astype(x.dtype)


def _batch_absolute_weight(x, weight, bias, eps=1e-5):
    return _batch_norm(x, np.abs(weight), bias, eps)


_add(
    "batch_norm",
    "last-axis",
    "normalizes along the last axis: a channel is axis 1, and its statistics run over all the others",
    _batch_last_axis,
)
_add(
    "batch_norm",
    "only-tables",
    "treats every input as (N, C): with positions, the statistics run over examples and positions, and the weight lines up with axis 1",
    _batch_only_tables,
    _batch_tables_or_error,
)
_add(
    "batch_norm",
    "absolute-weight",
    "loses the sign of the weight: a negative weight mirrors the channel",
    _batch_absolute_weight,
)

# ---- layer norm ------------------------------------------------------------------------------------------------------


def _layer_all_but_last(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    axis = tuple(range(x.ndim - len(normalized_shape)))
    return _channels_last(x, axis, weight, bias, eps) if axis else _layer_norm(x, normalized_shape, weight, bias, eps)


_add(
    "layer_norm",
    "axis-0",
    "normalizes over the batch (axis 0), which is batch norm: the statistics run over the axes of normalized_shape",
    with_switches(_layer_norm, over=0),
    with_switches(_layer_norm, over=lambda shape: tuple(range(len(shape)))),
    _layer_all_but_last,
)
_add(
    "layer_norm",
    "everything",
    "pools the whole array: each example has statistics of its own",
    with_switches(_layer_norm, over=None),
)
_add(
    "layer_norm",
    "only-last-axis",
    "normalizes over the last axis only: normalized_shape may name several",
    with_switches(_layer_norm, over=-1),
)


def _layer_all_but_first(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    axis = tuple(range(1, x.ndim)) or (0,)
    return _channels_last(x, axis, weight, bias, eps)


def _layer_no_keepdims(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    axis, w = _inner_axes(normalized_shape), wide(x)
    y = (w - w.mean(axis)) / np.sqrt(w.var(axis) + w.dtype.type(eps))
    return _affine(y, weight, bias).astype(x.dtype)


_add(
    "layer_norm",
    "all-but-batch",
    "pools every axis but the first: only the axes of normalized_shape are pooled, so each token has statistics of its own",
    _layer_all_but_first,
)
_add("layer_norm", "missing-keepdims", _KEEPDIMS, _layer_no_keepdims)

for _name in ("batch_norm", "layer_norm", "instance_norm", "group_norm", "rms_norm"):
    _add(
        _name,
        "nan-to-num",
        "replaces NaN by numbers: a NaN that comes in is a fault, and is to show",
        _without_nan(FAMILY[_name]),
    )


def _one_plus(right):
    def wrong(*args, **kwargs):
        place = {"batch_norm": 1}.get(right.__name__.strip("_"), None)
        if place is not None:
            args = (*args[:place], 1 + args[place], *args[place + 1 :])
        elif kwargs.get("weight") is not None:
            kwargs |= {"weight": 1 + kwargs["weight"]}
        return right(*args, **kwargs)

    return wrong


for _name in ("batch_norm", "layer_norm", "instance_norm", "group_norm"):
    _add(
        _name,
        "one-plus-weight",
        "scales by 1 + weight, as some models store their weights: here it is the weight itself",
        _one_plus(FAMILY[_name]),
    )

# ---- instance and group norm -----------------------------------------------------------------------------------------

_add(
    "instance_norm",
    "pools-batch",
    "pools the examples too, which is batch norm: each example has statistics of its own",
    with_switches(_instance_norm, pools="NS"),
)
_add(
    "instance_norm",
    "pools-channels",
    "pools the channels too: each channel has statistics of its own",
    with_switches(_instance_norm, pools="GDS"),
)
_add(
    "instance_norm",
    "single-value",
    "lets one position per channel through: its variance is 0, so the output says nothing about the input, and PyTorch raises ValueError",
    with_switches(_instance_norm, single_allowed=True),
)


def _instance_counts_last_axis(x, weight=None, bias=None, eps=1e-5):
    if x.ndim < 3 or x.shape[-1] == 1:
        raise ValueError("one position per channel")
    return _instance_norm(x, weight, bias, eps)


_add(
    "instance_norm",
    "counts-last-axis",
    "raises as soon as the last axis has one element: positions are counted over all axes after the channels together",
    _instance_counts_last_axis,
)


def _instance_last_axis(x, weight=None, bias=None, eps=1e-5):
    if x.size == x.shape[0] * x.shape[1]:
        raise ValueError("one position per channel")
    shape = (1, -1) + (1,) * (x.ndim - 2)
    weight, bias = (None if a is None else a.reshape(shape) for a in (weight, bias))
    return _affine(_x_hat(x, -1, eps), weight, bias).astype(x.dtype)


def _instance_no_keepdims(x, weight=None, bias=None, eps=1e-5):
    if x.size == x.shape[0] * x.shape[1]:
        raise ValueError("one position per channel")
    axis, w, shape = tuple(range(2, x.ndim)), wide(x), (1, -1) + (1,) * (x.ndim - 2)
    y = (w - w.mean(axis)) / np.sqrt(w.var(axis) + w.dtype.type(eps))
    weight, bias = (None if a is None else a.reshape(shape) for a in (weight, bias))
    return _affine(y, weight, bias).astype(x.dtype)


def _instance_images(axes):
    def wrong(x, weight=None, bias=None, eps=1e-5):
        if x.size == x.shape[0] * x.shape[1]:
            raise ValueError("one position per channel")
        shape = (1, -1) + (1,) * (x.ndim - 2)
        weight, bias = (None if a is None else a.reshape(shape) for a in (weight, bias))
        return _affine(_x_hat(x, axes(x.ndim), eps), weight, bias).astype(x.dtype)

    return wrong


_add("instance_norm", "missing-keepdims", _KEEPDIMS, _instance_no_keepdims)
_add(
    "instance_norm",
    "images-alone",
    "knows images alone: positions may have one axis or three as well, so pool tuple(range(2, x.ndim))",
    _instance_images(lambda ndim: (2, 3)),
    _instance_images(lambda ndim: (2, 3) if ndim == 4 else 2),
    _instance_images(lambda ndim: (2, 3) if ndim >= 4 else 2),
)
_add(
    "instance_norm",
    "last-axis",
    "normalizes along the last axis only: the statistics run over all positions, height and width together",
    _instance_last_axis,
)

_add(
    "group_norm",
    "pools-batch",
    "pools the examples too: each example has statistics of its own",
    with_switches(_group_norm, pools="NDS"),
)
_add(
    "group_norm",
    "ignores-groups",
    "pools all channels: the statistics run within one group",
    with_switches(_group_norm, pools="GDS"),
)
_add(
    "group_norm",
    "channels-alone",
    "normalizes each channel by itself, which is instance norm: a group's channels share their statistics",
    with_switches(_group_norm, pools="S"),
)
_add(
    "group_norm",
    "positions-apart",
    "normalizes each position by itself: the statistics run over a group's channels and all positions",
    with_switches(_group_norm, pools="D"),
)
_add(
    "group_norm",
    "groups-are-sizes",
    "takes num_groups for the number of channels in a group: it is the number of groups",
    with_switches(_group_norm, groups=lambda n, c: c // n),
)


def _group_interleaved(x, num_groups, weight=None, bias=None, eps=1e-5):
    channels = x.shape[1]
    if channels % num_groups:
        raise ValueError("the groups do not divide the channels")
    order = np.arange(channels).reshape(-1, num_groups).T.ravel()  # channels g, g + G, g + 2G, ... together
    y = np.empty_like(x)
    y[:, order] = _group_norm(x[:, order], num_groups, eps=eps)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    weight, bias = (None if a is None else a.reshape(shape) for a in (weight, bias))
    return _affine(wide(y), weight, bias).astype(x.dtype)


def _group_affine_per_group(x, num_groups, weight=None, bias=None, eps=1e-5):
    if x.shape[1] % num_groups:
        raise ValueError("the groups do not divide the channels")
    of = np.arange(x.shape[1]) // (x.shape[1] // num_groups)
    weight, bias = (None if a is None else a[of] for a in (weight, bias))
    return _group_norm(x, num_groups, weight, bias, eps)


def _group_leftovers(x, num_groups, weight=None, bias=None, eps=1e-5):
    if x.shape[1] % num_groups == 0:
        return _group_norm(x, num_groups, weight, bias, eps)
    parts = [p for p in np.array_split(x, num_groups, axis=1) if p.shape[1]]
    y = np.concatenate([_group_norm(p, 1, eps=eps) for p in parts], axis=1)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    weight, bias = (None if a is None else a.reshape(shape) for a in (weight, bias))
    return _affine(wide(y), weight, bias).astype(x.dtype)


_add(
    "group_norm",
    "interleaved",
    "deals the channels out to the groups in turn: a group is a run of neighboring channels",
    _group_interleaved,
)
_add(
    "group_norm",
    "affine-per-group",
    "gives one weight and bias to each group: they are one a channel",
    _group_affine_per_group,
)


def _group_images(x, num_groups, weight=None, bias=None, eps=1e-5):
    _, _, _, _ = x.shape  # the mistake: only four axes unpack
    return _group_norm(x, num_groups, weight, bias, eps)


_add(
    "group_norm",
    "images-alone",
    "unpacks x.shape into four sizes: there may be no positions, or one axis of them, or three",
    _group_images,
)
_add(
    "group_norm",
    "uneven-groups",
    "makes groups of uneven size when the channels do not divide: raise ValueError",
    _group_leftovers,
)

# ---- rms norm --------------------------------------------------------------------------------------------------------


def _rms_eps_or(x, normalized_shape, weight=None, eps=None):
    return _rms_norm(x, normalized_shape, weight, eps or None)


def _rms_one_plus(x, normalized_shape, weight=None, eps=None):
    return _rms_norm(x, normalized_shape, None if weight is None else 1 + weight, eps)


_add(
    "rms_norm",
    "centered",
    "subtracts the mean, which is layer norm: RMS norm does not center",
    with_switches(_rms_norm, center="both"),
)
_add(
    "rms_norm",
    "divides-by-std",
    "divides by the standard deviation: RMS norm takes the mean of the squares themselves, not of the deviations",
    with_switches(_rms_norm, center="spread"),
)
_add(
    "rms_norm",
    "wrong-default-eps",
    "uses another default eps: None means the machine epsilon (of float32, or of float64 for float64 input)",
    with_switches(_rms_norm, default_eps=lambda x: 1e-5),
)
_add(
    "rms_norm",
    "default-eps-1e-6",
    "uses 1e-6 as the default eps: None means the machine epsilon (of float32, or of float64 for float64 input)",
    with_switches(_rms_norm, default_eps=lambda x: 1e-6),
)
_add(
    "rms_norm",
    "eps-of-half",
    "takes the machine epsilon of float16: for float16 input the default eps is that of float32, in which it is computed",
    with_switches(_rms_norm, default_eps=lambda x: np.finfo(x.dtype).eps),
)
_add(
    "rms_norm",
    "eps-of-float64",
    "takes float64's machine epsilon always: for float16 and float32 input the default eps is that of float32",
    with_switches(_rms_norm, default_eps=lambda x: np.finfo(np.float64).eps),
)
_add(
    "rms_norm",
    "eps-or-default",
    "takes eps=0 for no eps given (`eps or ...`): only None means the default",
    _rms_eps_or,
)
_add(
    "rms_norm",
    "one-plus-weight",
    "scales by 1 + weight, as some models store their weights: here it is the weight itself",
    _rms_one_plus,
)
_add(
    "rms_norm",
    "eps-of-float32",
    "takes float32's machine epsilon always: for float64 input the default eps is that of float64",
    with_switches(_rms_norm, default_eps=lambda x: np.finfo(np.float32).eps),
)
_add(
    "rms_norm",
    "axis-0",
    "normalizes over the batch (axis 0): the mean square runs over the axes of normalized_shape",
    with_switches(_rms_norm, over=0),
    with_switches(_rms_norm, over=lambda shape: tuple(range(len(shape)))),
)
_add(
    "rms_norm",
    "everything",
    "pools the whole array: each example has a root mean square of its own",
    with_switches(_rms_norm, over=None),
)
_add(
    "rms_norm",
    "only-last-axis",
    "normalizes over the last axis only: normalized_shape may name several",
    with_switches(_rms_norm, over=-1),
)


def _rms_default(x, eps):
    return wide(x).dtype.type(np.finfo(wide(x).dtype).eps if eps is None else eps)


def _rms_l2(x, normalized_shape, weight=None, eps=None):
    w = wide(x)
    return _affine(
        w / np.sqrt((w * w).sum(_inner_axes(normalized_shape), keepdims=True) + _rms_default(x, eps)), weight, None
    ).astype(x.dtype)


def _rms_mean_abs(x, normalized_shape, weight=None, eps=None):
    w = wide(x)
    return _affine(
        w / (np.abs(w).mean(_inner_axes(normalized_shape), keepdims=True) + _rms_default(x, eps)), weight, None
    ).astype(x.dtype)


def _rms_no_keepdims(x, normalized_shape, weight=None, eps=None):
    w = wide(x)
    return _affine(
        w / np.sqrt((w * w).mean(_inner_axes(normalized_shape)) + _rms_default(x, eps)), weight, None
    ).astype(x.dtype)


_add("rms_norm", "l2-norm", "divides by the root of the sum of squares (the L2 norm): RMS takes their mean", _rms_l2)
_add(
    "rms_norm", "mean-absolute", "divides by the mean absolute value: RMS is the root of the mean square", _rms_mean_abs
)
_add("rms_norm", "missing-keepdims", _KEEPDIMS, _rms_no_keepdims)

# ---- l1, l2, min-max -------------------------------------------------------------------------------------------------


def _lp(order):
    def right(x, axis=-1, eps=1e-12, norm=None, over=lambda a: a, bound=None, dtypes=None, fixed_eps=None, keep=True):
        w = wide(x, **(dtypes or {}))
        eps = w.dtype.type(eps if fixed_eps is None else fixed_eps)
        if norm is None:
            size = (
                np.abs(w).sum(over(axis), keepdims=keep)
                if order == 1
                else np.sqrt((w * w).sum(over(axis), keepdims=keep))
            )
        else:
            size = norm(w, over(axis))
        return (w / (np.maximum(size, eps) if bound is None else bound(size, eps))).astype(x.dtype)

    return right


def _half_eps(right):
    """Computed in float32, but eps rounded to float16 first: 1e-12 becomes 0."""

    def wrong(x, axis=-1, eps=1e-12):
        return right(x, axis, float(x.dtype.type(eps)))

    return wrong


for _name, _order in (("normalize_l1", 1), ("normalize_l2", 2)):
    _right = _lp(_order)
    _add(
        _name,
        "adds-eps",
        "adds eps to the norm: the norm is bounded below by it, max(norm, eps)",
        with_switches(_right, bound=lambda size, eps: size + eps),
    )
    _add(
        _name,
        "no-eps",
        "leaves eps out: a slice of zeros becomes 0/0",
        with_switches(_right, bound=lambda size, eps: size),
    )
    _add(
        _name,
        "ignores-eps",
        "ignores the eps it is given: use the argument, not a constant",
        with_switches(_right, fixed_eps=1e-12),
    )
    _add(
        _name,
        "everything",
        "takes the norm of the whole array: each slice along the axis has its own",
        with_switches(_right, over=lambda a: None),
    )
    _add(
        _name,
        "fixed-axis",
        "ignores axis and always takes the same one",
        with_switches(_right, over=lambda a: -1),
        with_switches(_right, over=lambda a: 0),
    )
    _add(_name, "missing-keepdims", _KEEPDIMS, with_switches(_right, keep=False))
    _add(_name, "not-moved-back", NOT_MOVED_BACK, left_at_the_end(_right))
    _add(
        _name,
        "rows-alone",
        ROWS_ALONE,
        with_switches(_right, keep=False, bound=lambda size, eps: np.maximum(size, eps)[:, None]),
    )
    _add(
        _name,
        "half-norm",
        "computes in float16, where sums and squares overflow and eps is 0: compute in float32 and cast once at the end",
        with_switches(_right, dtypes={"half": True}),
        noisy=True,
    )
    _add(_name, "half-eps", "rounds eps to float16, where 1e-12 is 0: keep it in float32", _half_eps(_right))
    _add(
        _name,
        "maximum-norm",
        "divides by the largest absolute value, which is another norm",
        with_switches(_right, norm=lambda w, a: np.abs(w).max(a, keepdims=True)),
    )
    _add(
        _name,
        "nan-to-num",
        "replaces NaN by numbers: a NaN that comes in is a fault, and is to show",
        _without_nan(_right),
        lambda x, axis=-1, eps=1e-12, right=_right: right(np.nan_to_num(x), axis, eps),
    )
    _add(
        _name,
        "drops-nan",
        "loses a NaN where it bounds the norm, as np.fmax does, and a comparison, which is False: np.maximum keeps it",
        with_switches(_right, bound=np.fmax),
    )
_add(
    "normalize_l1",
    "signed-sum",
    "divides by the sum of the values: the L1 norm sums their absolute values",
    with_switches(
        _lp(1),
        norm=lambda w, a: w.sum(a, keepdims=True),
        bound=lambda size, eps: np.where(np.abs(size) > eps, size, eps),
    ),
    with_switches(_lp(1), norm=lambda w, a: w.sum(a, keepdims=True), bound=lambda size, eps: size),
    with_switches(_lp(1), norm=lambda w, a: w.sum(a, keepdims=True)),
)
_add(
    "normalize_l2",
    "eps-bounds-the-square",
    "bounds the sum of squares by eps: eps bounds the length itself, max(norm, eps)",
    with_switches(
        _lp(2), norm=lambda w, a: (w * w).sum(a, keepdims=True), bound=lambda size, eps: np.sqrt(np.maximum(size, eps))
    ),
)
_add("normalize_l1", "l2-norm", "divides by the root of the sum of squares: that is the L2 norm", _lp(2))
_add(
    "normalize_l1",
    "mean-absolute",
    "divides by the mean absolute value: the L1 norm is the sum",
    with_switches(_lp(1), norm=lambda w, a: np.abs(w).mean(a, keepdims=True)),
)
_add("normalize_l2", "l1-norm", "divides by the sum of absolute values: that is the L1 norm", _lp(1))
_add(
    "normalize_l2",
    "no-root",
    "divides by the sum of squares itself: take its square root",
    with_switches(_lp(2), norm=lambda w, a: (w * w).sum(a, keepdims=True)),
)
_add(
    "normalize_l2",
    "root-mean-square",
    "divides by the root of the mean square: the L2 norm takes the sum",
    with_switches(_lp(2), norm=lambda w, a: np.sqrt((w * w).mean(a, keepdims=True))),
)
_add(
    "normalize_l2",
    "eps-under-root",
    "adds eps under the root: the norm is bounded below by it, max(norm, eps)",
    with_switches(_lp(2), norm=lambda w, a: (w * w).sum(a, keepdims=True), bound=lambda size, eps: np.sqrt(size + eps)),
)


def _min_max(x, axis=-1, over=lambda a: a, keep=True, dtypes=None, change=None):
    w, axis = wide(x, **(dtypes or {})), over(axis)
    low, high = w.min(axis, keepdims=keep), w.max(axis, keepdims=keep)
    if change:
        return change(w, low, high).astype(x.dtype)
    return ((w - low) / np.where(high > low, high - low, w.dtype.type(1))).astype(x.dtype)


def _small_range(bound):
    def change(w, low, high):
        span = high - low
        return np.where(span > w.dtype.type(bound), (w - low) / np.where(span == 0, 1, span), w * 0)

    return change


_add(
    "min_max",
    "everything",
    "takes the range of the whole array: each slice along the axis has its own",
    with_switches(_min_max, over=lambda a: None),
)
_add(
    "min_max",
    "fixed-axis",
    "ignores axis and always takes the same one",
    with_switches(_min_max, over=lambda a: -1),
    with_switches(_min_max, over=lambda a: 0),
)
_add(
    "min_max",
    "constant-nan",
    "divides 0 by 0 in a constant slice: it becomes 0",
    with_switches(_min_max, change=lambda w, low, high: (w - low) / (high - low)),
)
_add(
    "min_max",
    "constant-one",
    "leaves a constant slice at 1: it becomes 0",
    with_switches(
        _min_max, change=lambda w, low, high: np.where(high > low, (w - low) / np.where(high > low, high - low, 1), 1)
    ),
)
_add(
    "min_max",
    "constant-kept",
    "leaves a constant slice as it is: it becomes 0",
    with_switches(
        _min_max, change=lambda w, low, high: np.where(high > low, (w - low) / np.where(high > low, high - low, 1), w)
    ),
)
_add(
    "min_max",
    "close-is-constant",
    "takes a slice whose values are close together for constant: only equal values are",
    *(with_switches(_min_max, change=_small_range(c)) for c in (1e-6, 1e-8, 1e-5, 1e-10, 1e-12)),
)
_add(
    "min_max",
    "eps-in-denominator",
    "adds a small number to the range, so that the largest value misses 1: treat the constant slice on its own instead",
    *(
        with_switches(_min_max, change=lambda w, low, high, tiny=tiny: (w - low) / (high - low + w.dtype.type(tiny)))
        for tiny in TINY
    ),
)
_add(
    "min_max",
    "divides-by-maximum",
    "divides by the maximum without subtracting the minimum: the smallest value is to become 0",
    with_switches(_min_max, change=lambda w, low, high: w / high),
    with_switches(_min_max, change=lambda w, low, high: (w - low) / np.where(high > low, high, 1)),
)
_add(
    "min_max",
    "range-floor",
    "bounds the range below: only a range of 0 makes a slice constant",
    *(
        with_switches(_min_max, change=lambda w, low, high, t=t: (w - low) / np.maximum(high - low, w.dtype.type(t)))
        for t in TINY
    ),
)
_add(
    "min_max",
    "no-shift",
    "divides by the range without subtracting the minimum: the smallest value is to become 0",
    with_switches(_min_max, change=lambda w, low, high: w / np.where(high > low, high - low, 1)),
)
_add(
    "min_max",
    "minus-one-to-one",
    "scales to the range -1 to 1: the smallest value is to become 0",
    with_switches(
        _min_max,
        change=lambda w, low, high: np.where(high > low, 2 * (w - low) / np.where(high > low, high - low, 1) - 1, 0),
    ),
)
_add(
    "min_max",
    "reversed",
    "subtracts from the maximum, which turns the order round: subtract the minimum",
    with_switches(_min_max, change=lambda w, low, high: (high - w) / np.where(high > low, high - low, 1)),
)
_add("min_max", "missing-keepdims", _KEEPDIMS, with_switches(_min_max, keep=False))
_add("min_max", "not-moved-back", NOT_MOVED_BACK, left_at_the_end(_min_max))
_add(
    "min_max",
    "rows-alone",
    ROWS_ALONE,
    with_switches(
        _min_max,
        keep=False,
        change=lambda w, low, high: (w - low[:, None]) / np.where(high > low, high - low, w.dtype.type(1))[:, None],
    ),
)
_add(
    "min_max",
    "half-range",
    "computes the range in float16, where it overflows: compute in float32 and cast once at the end",
    with_switches(_min_max, dtypes={"half": True}),
    noisy=True,
)

# ---- histograms ------------------------------------------------------------------------------------------------------


def _counts(x, edges, last_closed=True, side="right", clip=False, drop_ends=False):
    bins = np.searchsorted(edges, x, side=side) - 1
    if last_closed and side == "right":
        bins = np.where(x == edges[-1], len(edges) - 2, bins)
    if side == "left":
        bins = np.where(x == edges[0], 0, bins)
    if clip:
        bins = np.clip(bins, 0, len(edges) - 2)
    bins = bins[(bins >= 0) & (bins < len(edges) - 1)]
    if not len(bins):
        raise ValueError("no sample lies inside the edges")
    return np.bincount(bins, minlength=len(edges) - 1).astype(float)


def _some(counts):
    if not counts.sum():
        raise ValueError("no sample lies inside the edges")
    return counts.astype(float)


def _counts_left_open(x, edges):
    return _some(np.array([np.sum((low < x) & (x <= high)) for low, high in zip(edges, edges[1:], strict=False)]))


def _counts_both(x, edges):
    return _some(np.array([np.sum((low <= x) & (x <= high)) for low, high in zip(edges, edges[1:], strict=False)]))


def _counts_equal(x, edges):
    return _counts(x, np.linspace(edges[0], edges[-1], len(edges)))


def _counts_own_range(x, edges):
    return _some(np.histogram(x, len(edges) - 1)[0])


def _histogram(density, finish=None, counts=_counts, dtype=None):
    """The histogram as probabilities or density, with one step exchanged."""

    def wrong(x, edges):
        n = counts(x, edges)
        y = finish(n, np.diff(edges), x) if finish else n / n.sum() / (np.diff(edges) if density else 1)
        return y.astype(dtype or x.dtype)

    return wrong


def _half_count(x, edges):
    """Counts kept in float16: they stop at 2048, where adding 1 rounds back."""
    counts = _counts(x, edges)
    return np.minimum(counts, 2048) if x.dtype == np.float16 else counts


def _allowing_none(density):
    right = _histogram(density)

    def wrong(x, edges):
        try:
            return right(x, edges)
        except ValueError:
            return np.full(len(edges) - 1, np.nan, x.dtype)

    return wrong


def _zeros_for_none(density):
    right = _histogram(density)

    def wrong(x, edges):
        try:
            return right(x, edges)
        except ValueError:
            return np.zeros(len(edges) - 1, x.dtype)

    return wrong


def _refusing_one(density):
    def wrong(x, edges):
        if _counts(x, edges).sum() < 2:
            raise ValueError("no sample lies inside the edges")
        return _histogram(density)(x, edges)

    return wrong


for _name, _density in (("histogram_probabilities", False), ("histogram_density", True)):
    _width = (lambda w: w) if _density else (lambda w: 1)
    _add(
        _name,
        "counts",
        "returns the counts: divide them by the number of samples inside the edges",
        _histogram(_density, lambda n, w, x: n),
    )
    _add(
        _name,
        "divides-by-all",
        "divides by all samples, those outside the edges too: only the samples inside count",
        _histogram(_density, lambda n, w, x, width=_width: n / len(x) / width(w)),
    )
    _add(
        _name,
        "last-bin-open",
        "loses the samples on the last edge: the last bin is closed on both sides",
        _histogram(_density, counts=lambda x, e: _counts(x, e, last_closed=False)),
    )
    _add(
        _name,
        "left-open",
        "puts a sample on an inner edge into the bin to its left: a bin holds its left edge",
        _histogram(_density, counts=lambda x, e: _counts(x, e, side="left")),
        _histogram(_density, counts=_counts_left_open),
    )
    _add(
        _name,
        "both-closed",
        "counts a sample on an inner edge in both bins: a bin holds its left edge and not its right one",
        _histogram(_density, counts=_counts_both),
    )
    _add(
        _name,
        "equal-bins",
        "makes bins of equal width between the first and the last edge: use the edges as they are",
        _histogram(_density, counts=_counts_equal),
    )
    _add(
        _name,
        "own-range",
        "makes bins of its own between the smallest and the largest sample: use the edges as they are",
        _histogram(_density, counts=_counts_own_range),
        lambda x, edges, density=_density: np.histogram(x, len(edges) - 1, density=density)[0].astype(x.dtype),
    )
    _add(
        _name,
        "clips-outside",
        "counts the samples outside the edges in the first and last bins: leave them out",
        _histogram(_density, counts=lambda x, e: _counts(x, e, clip=True)),
    )
    _add(
        _name, "none-gives-nan", "divides by zero when no sample is inside: raise ValueError", _allowing_none(_density)
    )
    _add(
        _name,
        "none-gives-zeros",
        "returns zeros when no sample is inside, which is no distribution: raise ValueError",
        _zeros_for_none(_density),
    )
    _add(
        _name,
        "refuses-one-sample",
        "raises ValueError when a single sample lies inside: only with none at all there is nothing to divide by",
        _refusing_one(_density),
    )
    _add(
        _name,
        "rounds-edges",
        "rounds the edges to the dtype of the samples, which moves samples to other bins: compare with the edges as they are",
        _histogram(_density, counts=lambda x, e: _counts(x, e.astype(x.dtype))),
        lambda x, edges, right=_histogram(_density): right(x, edges.astype(x.dtype)),
    )
    _add(
        _name,
        "half-counts",
        "counts in float16, which cannot count past 2048: count in integers and cast once at the end",
        _histogram(_density, counts=_half_count),
    )
    _add(
        _name,
        "divides-by-maximum",
        "divides by the largest count: divide by the number of samples inside the edges",
        _histogram(_density, lambda n, w, x, width=_width: n / n.max() / width(w)),
    )
    _add(
        _name,
        "softmax-of-counts",
        "takes the softmax of the counts: a share is count over total, with no exponential",
        _histogram(_density, lambda n, w, x: np.exp(n - n.max()) / np.exp(n - n.max()).sum()),
    )
_add(
    "histogram_probabilities",
    "divides-by-width",
    "divides by the bin widths too: that is the density, and its values do not add up to 1",
    _histogram(True),
)
_add(
    "histogram_density",
    "no-width",
    "leaves the bin widths out: those are probabilities; a density is probability over width",
    _histogram(False),
)
_add(
    "histogram_density",
    "mean-width",
    "divides every bin by the same average width: each bin has its own",
    _histogram(True, lambda n, w, x: n / n.sum() / w.mean()),
)
_add(
    "histogram_density",
    "first-width",
    "divides every bin by the width of the first: each bin has its own",
    _histogram(True, lambda n, w, x: n / n.sum() / w[0]),
)
_add(
    "histogram_density",
    "times-width",
    "multiplies by the bin widths: divide, so that height times width is the probability",
    _histogram(True, lambda n, w, x: n / n.sum() * w),
)
_add(
    "histogram_density",
    "heights-sum-to-one",
    "makes the heights add up to 1: it is the areas, height times width, that do",
    _histogram(True, lambda n, w, x: n / w / (n / w).sum()),
)
_add(
    "histogram_density",
    "total-range",
    "divides by the whole range: each bin is divided by its own width",
    _histogram(True, lambda n, w, x: n / n.sum() / w.sum()),
)


def _held_out(
    train,
    test,
    edges,
    train_counts=_counts,
    score=lambda d: np.log(d).mean(),
    width=True,
    last_closed=True,
    which=lambda test, edges: test,
    side="right",
):
    n = train_counts(train, edges)
    density = np.pad(n / n.sum() / (np.diff(edges) if width else 1), 1)
    test = which(test, edges)
    bins = np.searchsorted(edges, test, side=side)
    if last_closed and side == "right":
        bins = np.where(test == edges[-1], len(edges) - 1, bins)
    if last_closed and side == "left":
        bins = np.where(test == edges[0], 1, bins)
    return float(score(density[bins]))


def _finite_mean(density):
    logs = np.log(density)
    return logs[np.isfinite(logs)].mean()


def _inside_only(test, edges):
    return test[(test >= edges[0]) & (test <= edges[-1])]


def _held_out_none(train, test, edges):
    try:
        return _held_out(train, test, edges)
    except ValueError:
        return -np.inf


def _held_out_one(train, test, edges):
    if len(_inside_only(train, edges)) < 2:
        raise ValueError("no histogram")
    return _held_out(train, test, edges)


_held = "held_out_log_likelihood"
_add(
    _held,
    "probability-not-density",
    "takes the log of probabilities: a likelihood is a density, probability over bin width",
    with_switches(_held_out, width=False),
)
_add(
    _held,
    "adds-epsilon",
    "adds a small number inside the log, which hides the -inf: a point of density 0 makes the likelihood -inf",
    with_switches(_held_out, score=lambda d: np.log(d + 1e-12).mean()),
)
_add(
    _held,
    "skips-empty",
    "leaves out the test points of density 0: each of them makes the mean -inf",
    with_switches(_held_out, score=_finite_mean),
)
_add(
    _held,
    "ignores-outside",
    "leaves out the test points outside the edges: their density is 0, so the mean is -inf",
    with_switches(_held_out, which=_inside_only),
)
_add(
    _held,
    "clips-outside",
    "puts test points outside the edges into the end bins: their density is 0, so the mean is -inf",
    with_switches(_held_out, which=lambda test, edges: np.clip(test, edges[0], edges[-1])),
)
_add(
    _held,
    "sum-not-mean",
    "sums the log densities: take their mean",
    with_switches(_held_out, score=lambda d: np.log(d).sum()),
)
_add(
    _held,
    "log-of-mean",
    "takes the log of the mean density: take the mean of the logs",
    with_switches(_held_out, score=lambda d: np.log(d.mean())),
)
_add(
    _held,
    "negative",
    "returns the negative log-likelihood: it is a gain here, not a loss",
    with_switches(_held_out, score=lambda d: -np.log(d).mean()),
)
_add(
    _held,
    "log2",
    "takes the logarithm to base 2: log here is the natural one",
    with_switches(_held_out, score=lambda d: np.log2(d).mean()),
)
_add(
    _held,
    "swapped",
    "has training and test points the wrong way round: the histogram is the training points'",
    lambda train, test, edges: _held_out(test, train, edges),
)
_add(
    _held,
    "divides-by-all",
    "divides by all training points, those outside the edges too: only the points inside count",
    lambda train, test, edges: (
        _held_out(train, test, edges) + float(np.log(len(_inside_only(train, edges)) / len(train)))
    ),
)
_add(
    _held,
    "own-histogram",
    "scores the test points under their own histogram: the histogram is the training points'",
    lambda train, test, edges: _held_out(test if len(_inside_only(train, edges)) else train, test, edges),
)
_add(
    _held,
    "last-bin-open",
    "gives a test point on the last edge density 0: the last bin is closed on both sides",
    with_switches(_held_out, last_closed=False),
)
_add(
    _held,
    "left-open",
    "puts a point on an inner edge into the bin to its left: a bin holds its left edge, and the last bin its right edge too",
    with_switches(_held_out, side="left"),
    with_switches(_held_out, side="left", last_closed=False),
    with_switches(_held_out, side="left", train_counts=lambda x, e: _counts(x, e, side="left")),
    with_switches(_held_out, side="left", last_closed=False, train_counts=_counts_left_open),
)
_add(
    _held,
    "rounds-edges",
    "rounds the edges to the dtype of the points, which moves points to other bins: compare with the edges as they are",
    lambda train, test, edges: _held_out(train, test, edges.astype(train.dtype)),
    with_switches(_held_out, train_counts=lambda x, e: _counts(x, e.astype(x.dtype))),
)
_add(
    _held,
    "refuses-one-point",
    "raises ValueError when a single training point lies inside: it is a histogram too, only without any there is none",
    _held_out_one,
)
_add(
    _held,
    "none-inside",
    "returns -inf when no training point is inside the edges: there is no histogram then, so raise ValueError",
    _held_out_none,
)

# ---- softmax and its kin ---------------------------------------------------------------------------------------------


def _softmax(
    x,
    axis=-1,
    shift=lambda w, a: w.max(a, keepdims=True),
    exp=np.exp,
    total=lambda e, a: e.sum(a, keepdims=True),
    over=lambda a: a,
    before=None,
    after=None,
    dtypes=None,
):
    w, axis = wide(x, **(dtypes or {})), over(axis)
    if before:
        w = before(w, axis)
    e = exp(w - shift(w, axis))
    y = e / total(e, axis)
    return (after(y) if after else y).astype(x.dtype)


def _standardized(w, axis, tiny=0.0):
    return (w - w.mean(axis, keepdims=True)) / np.sqrt(w.var(axis, keepdims=True) + w.dtype.type(tiny))


def _softmax_along_0(x, axis=0):
    return _softmax(x, axis)


def _softmax_no_keepdims(x, axis=-1):
    w = wide(x)
    e = np.exp(w - w.max(axis))
    return (e / e.sum(axis)).astype(x.dtype)


def _sigmoid(w):
    return np.exp(np.minimum(w, 0)) / (1 + np.exp(-np.abs(w)))


def _softmax_by_math(x, axis=-1):
    """The textbook loop; math.exp raises OverflowError where np.exp gives inf."""

    def one(row):
        e = [math.exp(float(v)) for v in row]
        total = sum(e)
        return [v / total for v in e]

    if not x.size:
        return x.copy()
    return np.apply_along_axis(one, axis, x.astype(np.float64)).astype(x.dtype)


_ZERO = lambda w, a: w.dtype.type(0)  # noqa: E731 - a name for "takes nothing out"
_add(
    "softmax",
    "no-maximum",
    "takes no maximum out before exp, which overflows (or leaves 0/0): subtract the maximum of each slice",
    with_switches(_softmax, shift=_ZERO),
    with_switches(_softmax, shift=_ZERO, dtypes={"double": True}),
    _softmax_by_math,
)
_add(
    "softmax",
    "global-maximum",
    "subtracts one maximum for the whole array, so that slices far below it become 0/0: each slice has its own",
    *(with_switches(_softmax, shift=lambda w, a: w.max(initial=-np.inf), dtypes=d) for d in ({}, {"double": True})),
)
_add(
    "softmax",
    "mean-not-maximum",
    "subtracts the mean: only subtracting the maximum keeps exp from overflowing",
    *(with_switches(_softmax, shift=lambda w, a: w.mean(a, keepdims=True), dtypes=d) for d in ({}, {"double": True})),
)
_add(
    "softmax",
    "minimum-not-maximum",
    "subtracts the minimum, which makes exp larger: subtract the maximum",
    *(with_switches(_softmax, shift=lambda w, a: w.min(a, keepdims=True), dtypes=d) for d in ({}, {"double": True})),
)
_add(
    "softmax",
    "fixed-axis",
    "ignores axis and always takes the same one",
    with_switches(_softmax, over=lambda a: -1),
    with_switches(_softmax, over=lambda a: 1),
)
_add(
    "softmax",
    "axis-0",
    "ignores axis and always takes the first one",
    with_switches(_softmax, over=lambda a: 0, shift=lambda w, a: w.max(a, keepdims=True, initial=-np.inf)),
)
_add(
    "softmax",
    "sums-over-everything",
    "divides by the sum over the whole array: each slice along the axis adds up to 1 by itself",
    with_switches(_softmax, total=lambda e, a: e.sum()),
    with_switches(_softmax, total=lambda e, a: e.sum(), shift=lambda w, a: w.max(initial=-np.inf)),
)
_add(
    "softmax", "missing-keepdims", _KEEPDIMS, with_switches(_softmax, total=lambda e, a: e.sum(a)), _softmax_no_keepdims
)
_add(
    "softmax",
    "other-base",
    "uses powers of another base than e: that is softmax at another temperature",
    with_switches(_softmax, exp=np.exp2),
    with_switches(_softmax, exp=lambda w: w.dtype.type(10) ** w),
)
_add(
    "softmax",
    "log-softmax",
    "returns the log of the weights: take the exponential",
    with_switches(_softmax, after=np.log),
)
_add("softmax", "not-moved-back", NOT_MOVED_BACK, left_at_the_end(_softmax))
_add(
    "softmax",
    "rows-alone",
    ROWS_ALONE,
    with_switches(_softmax, shift=lambda w, a: w.max(a)[:, None], total=lambda e, a: e.sum(a)[:, None]),
    with_switches(_softmax, total=lambda e, a: e.sum(a)[:, None]),
)
_add("softmax", "wrong-default-axis", "has another default axis: it is the last one, -1", _softmax_along_0)
_add(
    "softmax",
    "no-exp",
    "divides by the sum without exp: negative values would get negative weights",
    with_switches(_softmax, shift=_ZERO, exp=lambda w: w),
)
_add(
    "softmax",
    "sigmoid",
    "applies the sigmoid to each value: softmax makes the values of a slice compete for a total of 1",
    with_switches(_softmax, shift=_ZERO, exp=_sigmoid, total=lambda e, a: e.dtype.type(1)),
    with_switches(_softmax, shift=_ZERO, exp=_sigmoid),
)
_add(
    "softmax",
    "eps-in-denominator",
    "adds a small number to the denominator: with the maximum taken out it is at least 1 already, so the sum misses 1 for nothing",
    *(
        with_switches(_softmax, total=lambda e, a, tiny=tiny: e.sum(a, keepdims=True) + e.dtype.type(tiny))
        for tiny in TINY
    ),
)
_add(
    "softmax",
    "z-scores-first",
    "standardizes before exp: that fixes the temperature and loses the scale of the logits",
    with_switches(_softmax, before=_standardized),
    *(
        with_switches(_softmax, before=lambda w, a, tiny=tiny: _standardized(w, a, tiny))
        for tiny in (1e-5, 1e-8, 1e-12)
    ),
)
_add(
    "softmax",
    "gaussian-density",
    "weighs with exp(-x^2/2), the Gaussian density: softmax uses exp(x), so the largest logit wins",
    with_switches(_softmax, shift=_ZERO, exp=lambda w: np.exp(-w * w / 2)),
)
_add(
    "softmax",
    "nan-to-num",
    "replaces NaN by numbers: a NaN that comes in, or a slice that has no distribution, is to show",
    with_switches(_softmax, after=np.nan_to_num),
)
_add(
    "softmax",
    "clips-logits",
    "clips the logits instead of shifting them: what lies beyond the bounds is lost, so subtract the maximum instead",
    *(
        with_switches(_softmax, shift=_ZERO, before=lambda w, a, c=c: np.clip(w, -c, c), dtypes={"double": True})
        for c in (80, 50, 500, 700, 100, 709, 30, 20, 10, 88)
    ),
)
_add(
    "softmax",
    "normalizes-by-maximum",
    "does not divide by the sum of the exponentials, so that the largest weight comes out as 1",
    with_switches(_softmax, total=lambda e, a: e.max(a, keepdims=True)),
)
_add(
    "softmax",
    "minus-sign",
    "uses exp(-x), so that the smallest logit wins",
    with_switches(_softmax, before=lambda w, a: -w),
)
_add(
    "softmax",
    "half-arithmetic",
    "computes in float16, where the sum of exponentials overflows: compute in float32 and cast once at the end",
    with_switches(_softmax, dtypes={"half": True}, total=lambda e, a: e.sum(a, keepdims=True, dtype=e.dtype)),
    noisy=True,
)
_add(
    "softmax",
    "float32-arithmetic",
    "computes float64 input in float32: keep the arithmetic as wide as the input",
    with_switches(_softmax, dtypes={"narrow": True}),
    noisy=True,
    trace=lambda answer: np.array_equal(answer, answer.astype(np.float32), equal_nan=True),
)


def _logsumexp(
    x,
    axis=-1,
    shift=None,
    put_back=True,
    over=lambda a: a,
    total=lambda e, a: e.sum(a, keepdims=True),
    log=np.log,
    exp=np.exp,
    keep=False,
    dtypes=None,
):
    w, axis = wide(x, **(dtypes or {})), over(axis)
    top = w.max(axis, keepdims=True) if shift is None else shift(w, axis)
    if shift is None:
        top = np.where(np.isfinite(top), top, w.dtype.type(0))
    y = log(total(exp(w - top), axis)) + (top if put_back else w.dtype.type(0))
    return (y if keep else y.squeeze(axis)).astype(x.dtype)


_add(
    "logsumexp",
    "no-maximum",
    "takes no maximum out before exp, which overflows (or leaves log 0): subtract the maximum of each slice and add it again after the log",
    with_switches(_logsumexp, shift=_ZERO),
    with_switches(_logsumexp, shift=_ZERO, dtypes={"double": True}),
)
_add(
    "logsumexp",
    "global-maximum",
    "subtracts one maximum for the whole array, so that slices far below it become log 0: each slice has its own",
    with_switches(_logsumexp, shift=lambda w, a: w.max(initial=-np.inf)),
)
_add(
    "logsumexp",
    "mean-not-maximum",
    "subtracts the mean: only subtracting the maximum keeps exp from overflowing",
    with_switches(_logsumexp, shift=lambda w, a: w.mean(a, keepdims=True)),
)
_add(
    "logsumexp",
    "maximum-not-added",
    "does not add the maximum again after the log",
    with_switches(_logsumexp, put_back=False),
)
_add(
    "logsumexp",
    "squeezes-all",
    "squeezes every axis of one element away: axis alone is dropped, squeeze(axis)",
    lambda x, axis=-1: np.squeeze(_logsumexp(x, axis, keep=True)),
)
_add(
    "logsumexp",
    "nan-to-num",
    "replaces NaN or infinities by numbers: a fault that comes in, and an empty sum, are to show",
    lambda x, axis=-1: np.nan_to_num(_logsumexp(x, axis)),
    lambda x, axis=-1: np.nan_to_num(_logsumexp(x, axis), posinf=np.inf, neginf=-np.inf),
)
_add("logsumexp", "keeps-axis", "keeps the axis: it is dropped from the answer", with_switches(_logsumexp, keep=True))
_add(
    "logsumexp",
    "fixed-axis",
    "ignores axis and always takes the last one",
    with_switches(_logsumexp, over=lambda a: -1),
)
_add(
    "logsumexp",
    "mean-of-exp",
    "takes the log of the mean of the exponentials: take the log of their sum",
    with_switches(_logsumexp, total=lambda e, a: e.mean(a, keepdims=True)),
)
_add(
    "logsumexp",
    "infinity-nan",
    "subtracts an infinite maximum, and inf - inf is NaN: a slice of -inf gives -inf, and one with +inf gives +inf",
    with_switches(_logsumexp, shift=lambda w, a: w.max(a, keepdims=True)),
)
_add(
    "logsumexp",
    "base-2",
    "takes logarithm and powers to base 2: log and exp here are the natural ones",
    with_switches(_logsumexp, exp=np.exp2, log=np.log2),
)
_add(
    "logsumexp",
    "eps-in-log",
    "adds a small number inside the log: with the maximum taken out the sum is at least 1 already",
    *(
        with_switches(_logsumexp, total=lambda e, a, tiny=tiny: e.sum(a, keepdims=True) + e.dtype.type(tiny))
        for tiny in TINY
    ),
)
_add(
    "logsumexp",
    "maximum-only",
    "returns the maximum: that is what logsumexp approaches when one logit stands out",
    with_switches(_logsumexp, log=lambda s: s * 0),
)
_add(
    "logsumexp",
    "half-arithmetic",
    "computes in float16, where the sum of exponentials overflows: compute in float32 and cast once at the end",
    with_switches(_logsumexp, dtypes={"half": True}, total=lambda e, a: e.sum(a, keepdims=True, dtype=e.dtype)),
    noisy=True,
)


def _shape_of(size):
    return (size,) if isinstance(size, (int, np.integer)) else tuple(size)


def _noisy_argmax(
    logits,
    rng,
    size,
    noise=lambda rng, shape: rng.gumbel(size=shape),
    scores=lambda logits: logits,
    sign=1,
    pick=np.argmax,
    shared=False,
    same=False,
):
    shape = _shape_of(size)
    drawn = (*shape, 1) if same else (1,) * len(shape) + (len(logits),) if shared else (*shape, len(logits))
    noisy = scores(logits) + sign * noise(rng, drawn)
    noisy = np.broadcast_to(noisy, (*shape, len(logits)))
    return pick(noisy, axis=-1)


def _gaussian(rng, shape):
    """Normal noise of the Gumbel distribution's variance, pi^2 / 6, by Box and Muller's formula from rng.random."""
    return np.pi / np.sqrt(6) * np.sqrt(-2 * np.log1p(-rng.random(shape))) * np.cos(2 * np.pi * rng.random(shape))


def _laplace(rng, shape):
    u = rng.random(shape) - 0.5
    return -np.sign(u) * np.log1p(-2 * np.abs(u))


def _naive_softmax(logits):
    e = np.exp(logits)
    return e / e.sum()


def _inverse_cdf_overflowing(logits, rng, size):
    return np.searchsorted(np.cumsum(_naive_softmax(logits))[:-1], rng.random(_shape_of(size)), side="right")


def _flattened(logits, rng, size):
    return _noisy_argmax(logits, rng, size).ravel()


def _as_float(logits, rng, size):
    return _noisy_argmax(logits, rng, size).astype(float)


_add(
    "gumbel_max",
    "gaussian-noise",
    "adds Gaussian noise: that is the probit model; only Gumbel noise gives softmax",
    with_switches(_noisy_argmax, noise=_gaussian),
)
_add(
    "gumbel_max",
    "laplace-noise",
    "adds Laplace noise: only Gumbel noise, -log(-log(u)), gives softmax",
    with_switches(_noisy_argmax, noise=_laplace),
)
_add(
    "gumbel_max",
    "uniform-noise",
    "adds uniform noise: only Gumbel noise, -log(-log(u)), gives softmax",
    with_switches(_noisy_argmax, noise=lambda rng, shape: rng.random(shape)),
)
_add(
    "gumbel_max",
    "exponential-noise",
    "adds exponential noise, -log(u): Gumbel noise takes the logarithm twice, -log(-log(u))",
    with_switches(_noisy_argmax, noise=lambda rng, shape: -np.log1p(-rng.random(shape))),
)
_add(
    "gumbel_max",
    "minus-gumbel",
    "subtracts the noise (or has a sign of -log(-log(u)) wrong): Gumbel noise is skewed, so its sign matters",
    with_switches(_noisy_argmax, sign=-1),
)
_add(
    "gumbel_max",
    "inner-minus-missing",
    "takes the log of a negative number, which is NaN, and argmax answers with the first NaN: -log(-log(u)), both minus signs",
    with_switches(_noisy_argmax, noise=lambda rng, shape: -np.log(np.log(rng.random(shape)))),
)
_add(
    "gumbel_max",
    "no-noise",
    "draws the same class every time: each class of each sample needs noise of its own",
    with_switches(_noisy_argmax, sign=0),
    lambda logits, rng, size: np.full(size, np.argmax(logits)),
)
_add(
    "gumbel_max",
    "shared-noise",
    "uses the same noise for every sample, so that all are equal: each sample needs noise of its own",
    with_switches(_noisy_argmax, shared=True),
)
_add(
    "gumbel_max",
    "noise-of-probabilities",
    "adds the noise to probabilities: it belongs to the logits",
    with_switches(
        _noisy_argmax, scores=lambda logits: np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    ),
)
_add(
    "gumbel_max",
    "argmin",
    "takes the smallest: the largest noisy logit wins",
    with_switches(_noisy_argmax, pick=np.argmin),
)


def _repeated(arrange):
    """Half as many samples as asked for, each of them used twice."""

    def wrong(logits, rng, size):
        shape = _shape_of(size)
        count = math.prod(shape)
        return arrange(_noisy_argmax(logits, rng, (count + 1) // 2))[:count].reshape(shape)

    return wrong


_add(
    "gumbel_max",
    "dependent-samples",
    "gives samples that depend on one another: each needs noise of its own, used for no other sample",
    _repeated(lambda drawn: np.repeat(drawn, 2)),
    _repeated(lambda drawn: np.tile(drawn, 2)),
    _repeated(lambda drawn: np.concatenate([drawn, drawn[::-1]])),
    lambda logits, rng, size: np.sort(_noisy_argmax(logits, rng, size), axis=None).reshape(_shape_of(size)),
)
_add("gumbel_max", "flat", "returns the samples flat: they have the shape `size`", _flattened)
_add("gumbel_max", "floats", "returns floats: the indices of the classes are integers", _as_float)
_add(
    "gumbel_max",
    "overflowing-softmax",
    "computes probabilities with a softmax that overflows for large logits: with Gumbel noise no exp is needed",
    _inverse_cdf_overflowing,
)


def _bayes(
    log_prior,
    log_likelihood,
    joint=lambda p, l: p + l,
    dtypes=None,
    shift=lambda j: j.max(1, keepdims=True),
    total=lambda e: e.sum(1, keepdims=True),
    after=None,
):
    j = joint(wide(log_prior, **(dtypes or {})), wide(log_likelihood, **(dtypes or {})))
    e = np.exp(j - shift(j))
    y = e / total(e)
    return (after(y) if after else y).astype(log_likelihood.dtype)


_bayes_name = "bayes_posterior"
_add(
    _bayes_name,
    "no-prior",
    "leaves the prior out: posterior is prior times likelihood, normalized",
    with_switches(_bayes, joint=lambda p, l: l),
)
_add(
    _bayes_name,
    "no-likelihood",
    "returns the prior for every sample: multiply it with the likelihood",
    with_switches(_bayes, joint=lambda p, l: p + l * 0),
)
_add(
    _bayes_name,
    "no-maximum",
    "takes exp of the log-joint as it is, which under- or overflows: subtract each sample's maximum first",
    *(with_switches(_bayes, shift=lambda j: j.dtype.type(0), dtypes=d) for d in ({}, {"double": True})),
)
_add(
    _bayes_name,
    "global-maximum",
    "subtracts one maximum for all samples, so that samples far below it become 0/0: each sample has its own",
    with_switches(_bayes, shift=lambda j: j.max(initial=-np.inf)),
)
_add(
    _bayes_name,
    "over-samples",
    "normalizes over the samples: each sample's posterior sums to 1 over the classes",
    with_switches(
        _bayes, shift=lambda j: j.max(0, keepdims=True, initial=-np.inf), total=lambda e: e.sum(0, keepdims=True)
    ),
)
_add(
    _bayes_name,
    "everything",
    "divides by the sum over all samples and classes: each sample's posterior sums to 1 over the classes",
    with_switches(_bayes, total=lambda e: e.sum()),
    with_switches(_bayes, total=lambda e: e.sum(), shift=lambda j: j.max(initial=-np.inf)),
)
_add(
    _bayes_name,
    "clips",
    "clips the logs instead of shifting them: what lies beyond the bounds is lost, so subtract each sample's maximum instead",
    *(
        with_switches(
            _bayes,
            shift=lambda j: j.dtype.type(0),
            joint=lambda p, l, c=c: np.clip(p + l, -c, c),
            dtypes={"double": True},
        )
        for c in (700, 500, 100, 50)
    ),
)
_add(
    _bayes_name,
    "adds-the-prior",
    "adds the prior itself to the log-likelihood: logs are added, so add log_prior as it is",
    with_switches(_bayes, joint=lambda p, l: np.exp(p) + l),
)
_add(
    _bayes_name,
    "prior-across-samples",
    "lines the prior up with the samples: it belongs to the classes, the last axis (as many samples as classes hide it)",
    with_switches(_bayes, joint=lambda p, l: p[:, None] + l),
)
_add(
    _bayes_name,
    "unnormalized",
    "does not divide by the evidence: each sample's posterior sums to 1",
    with_switches(_bayes, shift=lambda j: j.dtype.type(0), total=lambda e: e.dtype.type(1)),
)
_add(
    _bayes_name,
    "log-posterior",
    "returns the log of the posterior: take exp at the end",
    with_switches(_bayes, after=np.log),
)
_add(
    _bayes_name,
    "softmax-twice",
    "applies softmax twice: the posterior adds up to 1 after the first",
    with_switches(_bayes, after=lambda y: _softmax(y, 1)),
)
_add(
    _bayes_name,
    "one-hot",
    "decides for the likeliest class: the posterior keeps the doubt",
    with_switches(_bayes, after=lambda y: (y == y.max(1, keepdims=True)) * 1.0),
)
_add(
    _bayes_name,
    "nan-to-num",
    "replaces NaN by numbers: a NaN that comes in is a fault, and is to show",
    with_switches(_bayes, after=np.nan_to_num),
    with_switches(_bayes, joint=lambda p, l: np.nan_to_num(p + l, posinf=np.inf, neginf=-np.inf)),
)
_add(
    _bayes_name,
    "subtracts-the-prior",
    "divides by the prior: multiply with it (add its log)",
    with_switches(_bayes, joint=lambda p, l: l - p),
)

_add(
    _bayes_name,
    "half-arithmetic",
    "adds the logs in float16, where a number near -300 has no digits after the point: compute in float32 and cast once at the end",
    with_switches(_bayes, dtypes={"half": True}),
    noisy=True,
)

# ---- the question's output (PyTorch) ---------------------------------------------------------------------------------


def _old_output(draw):
    """The batch norm of the question's input, with weight and input as `draw(torch, seed)` gives them."""

    def wrong(seed):
        import torch  # an exercise in PyTorch

        weight, x = draw(torch, seed)
        mean, var = x.mean(), x.var(correction=0)
        return (x - mean) / torch.sqrt(var + 1e-5) * weight

    return wrong


def _draw(torch, seed, weight=lambda torch: torch.rand(1), first="weight", again=False):
    torch.manual_seed(seed)
    if first == "weight":
        w = weight(torch)
        if again:
            torch.manual_seed(seed)
        return w, torch.randn(2, 1, 2, 2)
    x = torch.randn(2, 1, 2, 2)
    return weight(torch), x


_old = "old_output"
_add(
    _old,
    "today",
    "gives today's output, with a weight of 1: before version 1.2 the weight was drawn from U(0, 1)",
    _old_output(lambda torch, seed: _draw(torch, seed, weight=lambda t: 1.0)),
)
_add(
    _old,
    "input-first",
    "draws the input before the weight: the layer was made first, so its weight came first out of the stream",
    _old_output(lambda torch, seed: _draw(torch, seed, first="input")),
)
_add(
    _old,
    "normal-weight",
    "draws the weight from N(0, 1): it came from U(0, 1), torch.rand",
    _old_output(lambda torch, seed: _draw(torch, seed, weight=lambda t: t.randn(1))),
)
_add(
    _old,
    "seeds-twice",
    "seeds again before drawing the input: one seed, one stream, the weight and then the input",
    _old_output(lambda torch, seed: _draw(torch, seed, again=True)),
)
_add(
    _old,
    "ignores-seed",
    "ignores the seed it is given and always takes 0",
    _old_output(lambda torch, seed: _draw(torch, 0)),
)


def _old_unscaled(torch, seed):
    return _draw(torch, seed, weight=lambda t: (t.rand(1), 1.0)[1])


def _old_unbiased(seed):
    import torch  # an exercise in PyTorch

    weight, x = _draw(torch, seed)
    return (x - x.mean()) / torch.sqrt(x.var() + 1e-5) * weight


def _old_input(seed):
    import torch  # an exercise in PyTorch

    weight, x = _draw(torch, seed)
    return x * weight


_add(_old, "weight-not-applied", "draws the weight but does not multiply by it", _old_output(_old_unscaled))
_add(
    _old,
    "divides-by-n-1",
    "divides by n-1 (torch's std and var do by default): batch norm uses the biased variance, correction=0",
    _old_unbiased,
)
_add(_old, "not-normalized", "does not normalize: batch norm comes before the weight", _old_input)

# Wrong for every array: another dtype, and a changed input (which check() sees directly; these stand for it in the tests).
for _name, _right in {
    **FAMILY,
    "normalize_l1": _lp(1),
    "normalize_l2": _lp(2),
    "min_max": _min_max,
    "histogram_probabilities": _histogram(False),
    "histogram_density": _histogram(True),
    "softmax": _softmax,
    "logsumexp": _logsumexp,
}.items():
    _add(_name, MUTATES_INPUT, "changes its input: work on a copy", _mutating(_right))
    _add(_name, "always-float64", "returns float64 always: the answer keeps the dtype of the input", in_float64(_right))

for _chapter in CHAPTERS:
    MISTAKES |= _chapter.MISTAKES
