"""Variants of standardize, batch_norm, layer_norm and group_norm: where eps goes, what the variance divides by, which
axes are pooled, where the channel is, how a group is made, and what the weight is."""

import math
from dataclasses import replace

import numpy as np

from normlab.cases import Case, affine, uneven
from normlab.exercises import EXERCISES
from normlab.frame import wide
from normlab.variants.family import ALWAYS_FLOAT64, HALF_SQUARES, MUTATES, NARROW, Choice, Family, Fault, Switch

# ---- the switches ----------------------------------------------------------------------------------------------------

EPS = Switch(
    "eps_rule",
    (
        Choice(
            "eps-under",
            "eps under the root",
            "adds eps under the root",
            "eps is added to the variance, under the root",
            {"formula": r"\sqrt{\sigma^2 + \varepsilon}", "code": "np.sqrt(variance + eps)"},
        ),
        Choice(
            "eps-outside",
            "eps added to the root",
            "adds eps to the root, outside of it",
            "eps is added to the standard deviation, outside the root",
            {"formula": r"\sqrt{\sigma^2} + \varepsilon", "code": "(np.sqrt(variance) + eps)"},
        ),
        Choice(
            "eps-floor",
            "eps as a floor of the variance",
            "takes eps for a floor of the variance",
            "the larger of the variance and eps stands under the root, and nothing is added",
            {"formula": r"\sqrt{\max(\sigma^2, \varepsilon)}", "code": "np.sqrt(np.maximum(variance, eps))"},
        ),
    ),
)
DIVISOR = Switch(
    "divisor",
    (
        Choice(
            "divisor-n",
            "the divisor n",
            "divides by n",
            "the variance divides by n",
            {"formula": r"\frac1n", "ddof": "0"},
        ),
        Choice(
            "divisor-n-1",
            "the divisor n-1",
            "divides by n-1",
            "the variance divides by n-1",
            {"formula": r"\frac1{n-1}", "ddof": "1"},
        ),
    ),
)
FACTOR = Switch(
    "factor",
    (
        Choice(
            "factor-weight",
            "the weight as the factor",
            "scales by the weight itself",
            "the factor is the weight itself",
            {"formula": "w", "code": "{}", "test": "weight"},
        ),
        Choice(
            "factor-one-plus",
            "1 + weight as the factor",
            "scales by 1 + weight",
            "the factor is 1 + weight, so that a weight of 0 changes nothing",
            {"formula": "(1 + w)", "code": "(1 + {})"},
        ),
    ),
)
LAYOUT = Switch(
    "layout",
    (
        Choice(
            "channels-first",
            "the channel on axis 1",
            "takes axis 1 for the channel",
            "the channel is axis 1",
            {"shape": "(N, C) or (N, C, positions...): the channel is axis 1"},
        ),
        Choice(
            "channels-last",
            "the channel on the last axis",
            "takes the last axis for the channel",
            "the channel is the last axis",
            {"shape": "(N, C) or (N, positions..., C): the channel is the **last** axis"},
        ),
    ),
)
POOLS = Switch(
    "pools",
    (
        Choice(
            "pools-all", "one mean for all elements", "pools all elements", "all elements share one mean and variance"
        ),
        Choice(
            "columns",
            "a mean for each column",
            "normalizes each column by itself",
            "each slice along axis 0, a column of a table, has a mean and variance of its own",
            {"axis": "0"},
        ),
        Choice(
            "rows",
            "a mean for each row",
            "normalizes each row by itself",
            "each slice along the last axis, a row of a table, has a mean and variance of its own",
            {"axis": "-1"},
        ),
    ),
)
AXES = Switch(
    "axes_rule",
    (
        Choice(
            "trailing",
            "normalized_shape for the last axes",
            "pools the last axes",
            "`normalized_shape` names the last axes",
            {"shape": "whose last axes have the shape `normalized_shape`"},
        ),
        Choice(
            "leading",
            "normalized_shape for the first axes",
            "pools the first axes",
            "`normalized_shape` names the first axes, and weight and bias line up with those",
            {"shape": "whose **first** axes have the shape `normalized_shape`"},
        ),
    ),
)
GROUPING = Switch(
    "grouping",
    (
        Choice(
            "neighbors",
            "groups of neighboring channels",
            "makes groups of neighboring channels",
            "a group is a run of neighboring channels",
        ),
        Choice(
            "dealt",
            "channels dealt out to the groups in turn",
            "deals the channels out to the groups in turn",
            "channel c belongs to group c mod `num_groups`",
        ),
    ),
)

# ---- the right functions, with switches that go wrong ---------------------------------------------------------------


def x_hat(
    x,
    axes,
    eps,
    eps_rule,
    divisor,
    *,
    center="both",
    one_pass=False,
    root=True,
    fixed_eps=None,
    floor_std=False,
    dtypes=None,
):
    """x without its mean over `axes` and divided by its spread, in the dtype for arithmetic."""
    w = wide(x, **(dtypes or {}))
    eps = w.dtype.type(eps if fixed_eps is None else fixed_eps)
    count = w.size if axes is None else math.prod(w.shape[a] for a in np.atleast_1d(axes))
    mean = w.mean(axes, keepdims=True)
    deviation = w if center == "neither" else w - mean
    variance = (w * w).mean(axes, keepdims=True) - mean * mean if one_pass else (deviation**2).mean(axes, keepdims=True)
    if divisor == "divisor-n-1":
        variance = variance * w.dtype.type(count / (count - 1) if count > 1 else np.nan)
    scale = spread(variance, eps, eps_rule, root, floor_std)
    return (w if center == "spread" else deviation) / scale


def spread(variance, eps, eps_rule, root=True, floor_std=False):
    power = np.sqrt if root else (lambda v: v)
    if floor_std:
        return np.maximum(np.sqrt(variance), eps)
    return {
        "eps-under": lambda: power(variance + eps),
        "eps-outside": lambda: power(variance) + eps,
        "eps-floor": lambda: power(np.maximum(variance, eps)),
    }[eps_rule]()


def scaled(y, weight, bias, factor, shift_first=False, crash_on_none=False, drop=()):
    """y times the factor plus the bias; weight and bias have the axes that they need to line up."""
    weight, bias = None if "weight" in drop else weight, None if "bias" in drop else bias
    if weight is not None and factor == "factor-one-plus":
        weight = weight + weight.dtype.type(1)
    if crash_on_none:
        return y * weight + bias
    if shift_first and bias is not None:
        y = y + bias
    if weight is not None:
        y = y * weight
    return y if bias is None or shift_first else y + bias


def _split_faults(switches):
    """The faults of the affine step, and those of the statistics."""
    own = {"shift_first", "crash_on_none", "drop"}
    return {k: v for k, v in switches.items() if k in own}, {k: v for k, v in switches.items() if k not in own}


_POOLED = {"pools-all": None, "columns": 0, "rows": -1}


def _standardize(x, eps=1e-5, *, eps_rule, divisor, pools, keep=True, **faults):
    if not keep:
        w, axis = wide(x), _POOLED[pools]
        variance = w.var(axis, ddof=int(divisor == "divisor-n-1"))
        return ((w - w.mean(axis)) / spread(variance, w.dtype.type(eps), eps_rule)).astype(x.dtype)
    return x_hat(x, _POOLED[pools], eps, eps_rule, divisor, **faults).astype(x.dtype)


def _per_channel(a, channel, ndim):
    shape = [1] * ndim
    shape[channel] = -1
    return None if a is None else a.reshape(shape)


def _batch_norm(
    x,
    weight,
    bias,
    eps=1e-5,
    *,
    eps_rule,
    divisor,
    factor,
    layout,
    pooled=None,
    single_allowed=False,
    last=False,
    **faults,
):
    channel = 1 if layout == "channels-first" else x.ndim - 1
    if x.size == x.shape[channel] and not single_allowed:
        raise ValueError("one value per channel")
    if pooled == "examples":
        axes = 0
    elif pooled == "example":
        axes = tuple(range(1, x.ndim))
    elif pooled == "everything":
        axes = None
    else:
        axes = tuple(a for a in range(x.ndim) if a != channel)
    step, statistics = _split_faults(faults)
    y = x_hat(x, axes, eps, eps_rule, divisor, **statistics)
    if not last:
        weight, bias = (_per_channel(a, channel, x.ndim) for a in (weight, bias))
    return scaled(y, weight, bias, factor, **step).astype(x.dtype)


def _layer_norm(
    x,
    normalized_shape,
    weight=None,
    bias=None,
    eps=1e-5,
    *,
    eps_rule,
    divisor,
    factor,
    axes_rule,
    pooled=None,
    last=False,
    **faults,
):
    count = len(normalized_shape)
    leading = axes_rule == "leading"
    axes = tuple(range(count)) if leading else tuple(range(x.ndim - count, x.ndim))
    if pooled == "one":
        axes = 0 if leading else -1
    elif pooled == "everything":
        axes = None
    step, statistics = _split_faults(faults)
    y = x_hat(x, axes, eps, eps_rule, divisor, **statistics)
    if leading and not last:
        weight, bias = (None if a is None else a.reshape(a.shape + (1,) * (x.ndim - count)) for a in (weight, bias))
    return scaled(y, weight, bias, factor, **step).astype(x.dtype)


def _layer_no_keepdims(x, normalized_shape, weight=None, bias=None, eps=1e-5, *, eps_rule, divisor, factor, axes_rule):
    w, axes = wide(x), tuple(range(-len(normalized_shape), 0))
    variance = w.var(axes, ddof=int(divisor == "divisor-n-1"))
    y = (w - w.mean(axes)) / spread(variance, w.dtype.type(eps), eps_rule)
    return scaled(y, weight, bias, factor).astype(x.dtype)


def _group_norm(
    x,
    num_groups,
    weight=None,
    bias=None,
    eps=1e-5,
    *,
    eps_rule,
    divisor,
    layout,
    grouping,
    pooled=None,
    sizes_for_groups=False,
    **faults,
):
    moved = x if layout == "channels-first" else np.moveaxis(x, -1, 1)
    examples, channels = moved.shape[:2]
    if channels % num_groups:
        raise ValueError("the groups do not divide the channels")
    if sizes_for_groups:
        num_groups = channels // num_groups
    if pooled == "all channels":
        num_groups = 1
    if grouping == "neighbors":
        grouped = moved.reshape(examples, num_groups, channels // num_groups, -1)
    else:
        grouped = moved.reshape(examples, channels // num_groups, num_groups, -1).swapaxes(1, 2)
    axes = {None: (2, 3), "all channels": (2, 3), "batch": (0, 2, 3), "channel": 3, "position": 2}[pooled]
    step, statistics = _split_faults(faults)
    y = x_hat(grouped, axes, eps, eps_rule, divisor, **statistics)
    if grouping == "dealt":
        y = y.swapaxes(1, 2)
    y = y.reshape(moved.shape)
    weight, bias = (_per_channel(a, 1, y.ndim) for a in (weight, bias))
    y = scaled(y, weight, bias, "factor-weight", **step)
    return np.ascontiguousarray(y if layout == "channels-first" else np.moveaxis(y, 1, -1)).astype(x.dtype)


# ---- truths in PyTorch -----------------------------------------------------------------------------------------------


def torch_x_hat(torch, x, dims, eps, eps_rule, divisor):
    mean = x.mean(dims, keepdim=True)
    if mean.numel():  # torch.var would warn of a batch of nothing
        variance = x.var(dims, correction=int(divisor == "divisor-n-1"), keepdim=True)
    else:
        variance = mean
    if eps_rule == "eps-under":
        return (x - mean) * torch.rsqrt(variance + eps)
    if eps_rule == "eps-outside":
        return (x - mean) / (variance.sqrt() + eps)
    return (x - mean) / variance.clamp(min=eps).sqrt()


def _torch_scaled(torch, y, weight, bias, factor):
    if weight is not None:
        y = torch.addcmul(y, y, weight) if factor == "factor-one-plus" else y * weight
    return y if bias is None else y + bias


def _torch_standardize(torch, x, eps=1e-5, *, eps_rule, divisor, pools):
    dims = {"pools-all": tuple(range(x.ndim)), "columns": 0, "rows": -1}[pools]
    return torch_x_hat(torch, x, dims, eps, eps_rule, divisor)


def _torch_batch_norm(torch, x, weight, bias, eps=1e-5, *, eps_rule, divisor, factor, layout):
    moved = x.movedim(-1, 1) if layout == "channels-last" else x
    if moved.numel() == moved.shape[1]:
        raise ValueError("one value per channel")
    rows = moved.movedim(1, -1).reshape(-1, moved.shape[1])
    y = _torch_scaled(torch, torch_x_hat(torch, rows, 0, eps, eps_rule, divisor), weight, bias, factor)
    y = y.reshape(moved.movedim(1, -1).shape)
    return y if layout == "channels-last" else y.movedim(-1, 1)


def _torch_layer_norm(
    torch, x, normalized_shape, weight=None, bias=None, eps=1e-5, *, eps_rule, divisor, factor, axes_rule
):
    count = len(normalized_shape)
    if axes_rule == "leading":
        x = x.movedim(tuple(range(count)), tuple(range(-count, 0)))
    y = torch_x_hat(torch, x.flatten(x.ndim - count), -1, eps, eps_rule, divisor).reshape(x.shape)
    y = _torch_scaled(torch, y, weight, bias, factor)
    return y.movedim(tuple(range(-count, 0)), tuple(range(count))) if axes_rule == "leading" else y


def _torch_group_norm(torch, x, num_groups, weight=None, bias=None, eps=1e-5, *, eps_rule, divisor, layout, grouping):
    moved = x.movedim(-1, 1) if layout == "channels-last" else x
    channels = moved.shape[1]
    if channels % num_groups:
        raise ValueError("the groups do not divide the channels")
    y = torch.empty_like(moved)
    for group in range(num_groups):
        size = channels // num_groups
        own = slice(group, None, num_groups) if grouping == "dealt" else slice(group * size, (group + 1) * size)
        part = moved[:, own]
        y[:, own] = torch_x_hat(torch, part.flatten(1), 1, eps, eps_rule, divisor).reshape(part.shape)
    y = _torch_scaled(torch, y.movedim(1, -1), weight, bias, "factor-weight")
    return y if layout == "channels-last" else y.movedim(-1, 1)


# ---- cases -----------------------------------------------------------------------------------------------------------

# Their words hold under any convention.
_SAID = {
    "far-float32",
    "far-float64",
    "half-wide",
    "half-far",
    "float32",
    "one-row",
    "one-pixel",
    "not-divisible",
    "too-many",
}
_BIAS = "no deviation is left to scale: it comes out as the bias"


def _adapted(name, conventions, change=lambda args, kwargs: (args, kwargs), kinds=None, skip=()):
    """The cases of an exercise of the course, each with its arguments changed; what its words say about conventions
    goes, for then the exercise's own sentence is read, which names those of the variant."""
    for case in EXERCISES[name].cases:
        if case.name in skip or (case.name == "single" and conventions["divisor"] == "divisor-n-1"):
            continue  # one value has no variance over n-1

        def draw(rng, case=case):
            return change(*case.draw(rng))

        expect = case.expect if case.name in _SAID or (case.part == "edges" and case.name == "single") else ""
        if case.name.endswith("-only") or case.name == "no-affine":
            expect = "None means a factor of 1 and a bias of 0, each by itself"
        if case.name == "constant" and name != "standardize":
            expect = _BIAS
        yield replace(case, draw=draw, expect=expect, kind=(kinds or {}).get(case.name, case.kind))


def two_spreads(rng, shape, axis):
    """Slices whose variances lie on both sides of 0.3, whichever n or n-1 they divide by."""
    small = [1] * len(shape)
    small[axis] = shape[axis]
    factors = np.where(rng.permutation(shape[axis]) % 2, 0.02, 1.5)
    return uneven(rng, shape) * factors.reshape(small)


def _both_sides(call):
    return Case(
        "both-sides",
        "values",
        "slices whose variance is below and above an eps of 0.3",
        lambda rng: call(rng, {"eps": 0.3}),
    )


def _standardize_cases(conventions):
    pools = conventions["pools"]

    def both(rng, own):
        if pools == "pools-all":
            return (rng.normal(size=(3, 5)) * 0.1,), own
        axis = 0 if pools == "rows" else 1
        return (two_spreads(rng, (5, 6), axis),), own

    def pair(rng):
        return (uneven(rng, (2, 2)),), {}

    # Where rows or columns are pooled there has to be one, and over n-1 a single number has no variance.
    yield from _adapted("standardize", conventions, skip=("no-axes",))
    yield _both_sides(both)
    yield Case("pair", "edges", "a table of two rows and two columns", pair)


def _batch_norm_cases(conventions):
    last = conventions["layout"] == "channels-last"

    def change(args, kwargs):
        return ((np.ascontiguousarray(np.moveaxis(args[0], 1, -1)) if last else args[0], *args[1:]), kwargs)

    def both(rng, own):
        return change((two_spreads(rng, (5, 6, 3), 1), *affine(rng, 6)), own)

    yield from _adapted("batch_norm", conventions, change, _LAST_KINDS if last else None, _LAYOUTS if last else ())
    yield _both_sides(both)


# Views of memory that moving the channels would undo.
_LAYOUTS = ("channels-last", "strided")
_LAST_KINDS = {
    "image": "a batch of images (N, H, W, C)",
    "square": "images whose height equals their number of channels",
    "sequence": "a batch of sequences (N, L, C)",
    "volume": "a batch of volumes (N, D, H, W, C)",
    "one-example": "a single example with positions (1, L, C)",
    "one-pixel": "one example of one position (1, 1, 1, C)",
    "large-array": "a larger batch (N, L, C)",
}


def _layer_norm_cases(conventions):
    leading = conventions["axes_rule"] == "leading"

    def change(args, kwargs):
        x, shape = args
        count = len(shape)
        if leading:
            x = np.ascontiguousarray(np.moveaxis(x, tuple(range(-count, 0)), tuple(range(count))))
        return (x, shape), kwargs

    def both(rng, own):
        weight, bias = affine(rng, 6)
        return change((two_spreads(rng, (5, 6), 0), (6,)), {"weight": weight, "bias": bias} | own)

    kinds = {
        "rows": "a batch of vectors, features first (D, N)",
        "tokens": "a batch of sequences, features first (D, N, L)",
        "two-inner": "a batch with a normalized_shape of two axes (H, W, N)",
        "deep": "a 4-D array, features first",
        "large-array": "a larger batch, features first (D, N)",
    }
    yield from _adapted("layer_norm", conventions, change, kinds if leading else None, ("strided",) if leading else ())
    yield _both_sides(both)


def _group_norm_cases(conventions):
    last = conventions["layout"] == "channels-last"

    def change(args, kwargs):
        return ((np.ascontiguousarray(np.moveaxis(args[0], 1, -1)) if last else args[0], *args[1:]), kwargs)

    def both(rng, own):
        weight, bias = affine(rng, 6)
        return change((two_spreads(rng, (6, 6, 4), 0), 2), {"weight": weight, "bias": bias} | own)

    kinds = _LAST_KINDS if last else None
    yield from _adapted("group_norm", conventions, change, kinds, (*_LAYOUTS,) if last else ())
    yield _both_sides(both)


def _of(cases):
    return lambda conventions: tuple(cases(conventions))


# ---- faults ----------------------------------------------------------------------------------------------------------


def _statistics_faults(conventions):
    if conventions["eps_rule"] == "eps-floor":
        yield Fault(
            "floors-deviation",
            "bounds the standard deviation below by eps: the bound is for the variance, before the root",
            {"floor_std": True},
        )
    yield Fault(
        "no-eps",
        "leaves eps out: without it a pool without spread becomes 0/0",
        {"fixed_eps": 0.0},
    )
    yield Fault("ignores-eps", "ignores the eps it is given: use the argument, not a constant", {"fixed_eps": 1e-5})
    yield Fault("no-root", "divides by the variance itself: take its square root", {"root": False})
    yield Fault(
        "one-pass-variance",
        "computes the variance as E[x^2] - E[x]^2, which cancels far from zero: subtract the mean first, then square",
        {"one_pass": True},
        noisy=True,
    )
    yield Fault("not-centered", "does not subtract the mean: center first, then scale", {"center": "spread"})
    yield Fault(
        "root-mean-square",
        "divides by the root mean square and does not subtract the mean: center first",
        {"center": "neither"},
    )
    yield HALF_SQUARES
    yield NARROW
    yield MUTATES
    yield ALWAYS_FLOAT64


def _affine_faults(conventions, optional=True):
    factor = {"factor-weight": "weight", "factor-one-plus": "1 + weight"}[conventions.get("factor", "factor-weight")]
    yield Fault(
        "scales-bias",
        f"multiplies the bias by {factor}: scale first, then add the bias",
        {"shift_first": True},
    )
    yield Fault("drops-weight", f"leaves the weight out: multiply by {factor}", {"drop": ("weight",)})
    yield Fault("drops-bias", "leaves the bias out: it is added at the end", {"drop": ("bias",)})
    if optional:
        yield Fault(
            "none-crashes",
            "does not cope with weight=None or bias=None: None means a factor of 1 and a bias of 0",
            {"crash_on_none": True},
        )


_KEEPDIMS = "drops the axis of its statistics, so that NumPy lines them up with the wrong one: keepdims=True"
_LINED_UP = "lines weight and bias up with the last axis: reshape them so that they meet {} (equal sizes hide this)"


def _standardize_faults(conventions):
    yield from _statistics_faults(conventions)
    if conventions["pools"] == "rows":
        yield Fault("missing-keepdims", _KEEPDIMS, {"keep": False})


def _batch_norm_faults(conventions):
    yield from _statistics_faults(conventions)
    yield from _affine_faults(conventions, optional=False)
    yield Fault(
        "pools-examples-only",
        "pools the examples only: a channel's statistics run over examples and positions",
        {"pooled": "examples"},
    )
    yield Fault(
        "pools-example",
        "normalizes each example over its channels and positions: a channel's statistics run over all examples",
        {"pooled": "example"},
    )
    yield Fault(
        "pools-everything", "pools everything: each channel has statistics of its own", {"pooled": "everything"}
    )
    yield Fault(
        "single-value",
        "lets one value per channel through: there is no variance to speak of, so raise ValueError",
        {"single_allowed": True},
    )
    if conventions["layout"] == "channels-first":
        yield Fault("weight-on-last-axis", _LINED_UP.format("axis 1"), {"last": True})


def _layer_norm_faults(conventions):
    yield from _statistics_faults(conventions)
    yield from _affine_faults(conventions)
    yield Fault(
        "pools-everything", "pools the whole array: each example has statistics of its own", {"pooled": "everything"}
    )
    yield Fault("pools-one-axis", "pools a single axis: normalized_shape may name several", {"pooled": "one"})
    if conventions["axes_rule"] == "leading":
        yield Fault("weight-on-last-axis", _LINED_UP.format("the first axes"), {"last": True})
    else:
        yield Fault(
            "missing-keepdims",
            _KEEPDIMS,
            wrap=lambda right: lambda *args, **kwargs: _layer_no_keepdims(*args, **(kwargs | conventions)),
        )


def _group_norm_faults(conventions):
    yield from _statistics_faults(conventions)
    yield from _affine_faults(conventions)
    yield Fault("pools-batch", "pools the examples too: each example has statistics of its own", {"pooled": "batch"})
    yield Fault("ignores-groups", "pools all channels: the statistics run within one group", {"pooled": "all channels"})
    yield Fault(
        "channels-alone",
        "normalizes each channel by itself: a group's channels share their statistics",
        {"pooled": "channel"},
    )
    yield Fault(
        "positions-apart",
        "normalizes each position by itself: the statistics run over a group's channels and all positions",
        {"pooled": "position"},
    )
    yield Fault(
        "groups-are-sizes",
        "takes num_groups for the number of channels in a group: it is the number of groups",
        {"sizes_for_groups": True},
    )


# ---- texts -----------------------------------------------------------------------------------------------------------


def _factor(parts):
    """The choice about the factor; the weight itself in a family that has no such switch."""
    return parts.get("factor", FACTOR.choices[0])


def _formula(parts, affine=True):
    scale = rf" \cdot {_factor(parts).parts['formula']} + b" if affine else ""
    name = "y" if affine else r"\hat x"
    return (
        rf"$${name} = \frac{{x - \mu}}{{{parts['eps_rule'].parts['formula']}}}{scale}, \qquad "
        rf"\sigma^2 = {parts['divisor'].parts['formula']} \sum_i (x_i - \mu)^2$$"
    )


def _affine_code(parts, reshape=""):
    weight = _factor(parts).parts["code"].format(f"weight{reshape}")
    return f"if weight is not None:\n    y = y * {weight}\nif bias is not None:\n    y = y + bias{reshape}\n"


def _after(parts):
    return (
        "A convention is part of a function's meaning: two norms that differ in one agree on most inputs and part on a few. "
        "*Harder:* find an input on which yours and the course's own differ by a factor of two or more, and one on which they "
        "agree to the last digit."
    )


def _last_hint(parts):
    return f"The denominator is `{parts['eps_rule'].parts['code']}`"


def _why(conventions, values, eps, tail=""):
    """The worked example in words."""
    mean = sum(values) / len(values)
    squares = sum((v - mean) ** 2 for v in values)
    n = len(values)
    over = n - 1 if conventions["divisor"] == "divisor-n-1" else n
    variance = squares / over
    scale = float(spread(np.float64(variance), eps, conventions["eps_rule"]))
    word = {
        "eps-under": f"the root of {variance:g} + {eps:g}",
        "eps-outside": f"the root of {variance:g}, plus {eps:g}",
        "eps-floor": f"the root of the larger of {variance:g} and {eps:g}",
    }[conventions["eps_rule"]]
    return (
        f"Take {' and '.join(f'{v:g}' for v in values)}: the mean is {mean:g}, the squared deviations add up to {squares:g}, "
        f"so the variance is {squares:g}/{over} = {variance:g}; the divisor is {word}, which is {scale:.3g}.{tail}"
    )


def _standardize_text(parts):
    axis = parts["pools"].parts.get("axis")
    pooled = f"axis={axis}, keepdims=True" if axis else ""
    variance = ", ".join(piece for piece in (pooled, f"ddof={parts['divisor'].parts['ddof']}") if piece)
    return {
        "task": "Subtract the mean and divide by the standard deviation.",
        "details": "",
        "table": """
| | |
|---|---|
| `x` | floating-point array of any shape |
| `eps` | a small positive number |
| returns | an array of the same shape and dtype |
""",
        "formula": _formula(parts, affine=False),
        "docstring": "x without its mean, divided by its spread.",
        "code": f"""
wide = x.astype(np.promote_types(x.dtype, np.float32))
deviation = wide - wide.mean({pooled})
variance = deviation.var({variance})
return (deviation / {parts["eps_rule"].parts["code"]}).astype(x.dtype)
""",
        "hints": (
            "Which elements share one mean here? Write the mean alone first, and look at its shape.",
            "NumPy's `var` takes the axis, `keepdims` and `ddof`; `ddof=1` divides by n-1.",
            f"`variance = deviation.var({variance})`. {_last_hint(parts)}.",
        ),
        "after": _after(parts),
    }


def _standardize_example(conventions):
    x = {"pools-all": [2.0, 6.0], "columns": [[2.0, 10.0], [6.0, 14.0]], "rows": [[2.0, 6.0], [10.0, 14.0]]}
    return (np.array(x[conventions["pools"]]),), {"eps": 5.0}, _why(conventions, [2.0, 6.0], 5.0)


_TABLE = """
| | |
|---|---|
| `x` | floating-point array {shape} |
{more}| `weight`, `bias` | arrays of shape {weights} |
| `eps` | a small positive number |
| returns | an array like `x` |
"""


def _batch_norm_text(parts):
    last = parts["layout"].slug == "channels-last"
    axes = "tuple(range(x.ndim - 1))" if last else "(0, *range(2, x.ndim))"
    reshape = "" if last else ".reshape((1, -1) + (1,) * (x.ndim - 2))"
    channels = "x.shape[-1]" if last else "x.shape[1]"
    weight = _factor(parts).parts["code"].format(f"weight{reshape}")
    return {
        "task": "Normalize each channel over all examples and all positions, as batch norm does in training.",
        "details": "",
        "table": _TABLE.format(shape=parts["layout"].parts["shape"], more="", weights="(C,)")
        + "| raises | `ValueError` when there is only one value per channel |",
        "formula": _formula(parts),
        "docstring": "Training-mode batch norm over all axes but that of the channel.",
        "code": f"""
if x.size == {channels}:
    raise ValueError(f"more than one value per channel is needed, got an array of shape {{x.shape}}")
axes = {axes}
wide = x.astype(np.promote_types(x.dtype, np.float32))
deviation = wide - wide.mean(axes, keepdims=True)
variance = deviation.var(axes, ddof={parts["divisor"].parts["ddof"]}, keepdims=True)
y = deviation / {parts["eps_rule"].parts["code"]}
return (y * {weight} + bias{reshape}).astype(x.dtype)
""",
        "hints": (
            "Which axis is the channel here, and which axes do you average over so that one number is left for each channel?",
            f"The axes are `{axes}`. Does the weight, of shape (C,), line up with the channel by itself, or has it to be reshaped?",
            f"{_last_hint(parts)}, and the factor is `{weight}`.",
        ),
        "after": _after(parts),
    }


def _batch_norm_example(conventions):
    # A channel holds 2 and 6. Two examples, one channel, one position: the layouts write it alike, so there are two.
    x = np.array([[[2.0], [10.0]], [[6.0], [14.0]]])
    if conventions["layout"] == "channels-last":
        x = np.moveaxis(x, 1, -1)
    values = _why(conventions, [2.0, 6.0], 5.0, _times(conventions, 2.0, 1.0))
    return (x, np.array([2.0, 0.0]), np.array([1.0, 0.0])), {"eps": 5.0}, values


def _times(conventions, weight, bias):
    factor = weight + (conventions.get("factor") == "factor-one-plus")
    return f" With a weight of {weight:g}, the factor is {factor:g}; then {bias:g} is added."


def _layer_norm_text(parts):
    leading = parts["axes_rule"].slug == "leading"
    axes = "tuple(range(len(normalized_shape)))" if leading else "tuple(range(-len(normalized_shape), 0))"
    reshape = ".reshape(normalized_shape + (1,) * (x.ndim - len(normalized_shape)))" if leading else ""
    return {
        "task": "Normalize over the axes that `normalized_shape` stands for.",
        "details": "",
        "table": _TABLE.format(
            shape=parts["axes_rule"].parts["shape"],
            more="| `normalized_shape` | a tuple such as `(D,)` or `(H, W)`: the sizes of the axes that share their statistics |\n",
            weights="`normalized_shape`, each may be `None` by itself, for a factor of 1 and a bias of 0",
        ),
        "formula": _formula(parts),
        "docstring": "Layer norm over the axes that normalized_shape stands for.",
        "code": f"""
axes = {axes}
wide = x.astype(np.promote_types(x.dtype, np.float32))
deviation = wide - wide.mean(axes, keepdims=True)
variance = deviation.var(axes, ddof={parts["divisor"].parts["ddof"]}, keepdims=True)
y = deviation / {parts["eps_rule"].parts["code"]}
{_affine_code(parts, reshape)}return y.astype(x.dtype)
""",
        "hints": (
            "If `normalized_shape` has two entries, which axes of `x` have those sizes here?",
            f"The axes are `{axes}`. "
            + (
                "NumPy lines arrays up from the last axis, so weight and bias need axes of size 1 behind their own."
                if leading
                else "Weight and bias line up with the last axes by themselves."
            ),
            f"{_last_hint(parts)}, and the factor is `{_factor(parts).parts['code'].format('weight')}` where there is a weight.",
        ),
        "after": _after(parts),
    }


def _layer_norm_example(conventions):
    x = np.array([[2.0, 6.0], [10.0, 14.0]])
    if conventions["axes_rule"] == "leading":
        x = x.T
    kwargs = {"weight": np.array([2.0, 2.0]), "bias": np.array([1.0, 1.0]), "eps": 5.0}
    return (x, (2,)), kwargs, _why(conventions, [2.0, 6.0], 5.0, _times(conventions, 2.0, 1.0))


def _group_norm_text(parts):
    last, dealt = parts["layout"].slug == "channels-last", parts["grouping"].slug == "dealt"
    split = "channels // num_groups, num_groups" if dealt else "num_groups, channels // num_groups"
    axes = "(1, 3)" if dealt else "(2, 3)"
    return {
        "task": "Normalize groups of channels of each example.",
        "details": "",
        "table": _TABLE.format(
            shape=parts["layout"].parts["shape"],
            more="| `num_groups` | the number of groups |\n",
            weights="(C,), one number for each *channel*; each may be `None` by itself, for a factor of 1 and a bias of 0",
        )
        + "| raises | `ValueError` when the groups do not divide the channels |",
        "formula": _formula(parts),
        "docstring": "Group norm over each group's channels and positions.",
        "code": f"""
moved = {"np.moveaxis(x, -1, 1)" if last else "x"}
examples, channels = moved.shape[:2]
if channels % num_groups:
    raise ValueError(f"{{num_groups}} groups do not divide {{channels}} channels")
grouped = moved.reshape(examples, {split}, -1)
grouped = grouped.astype(np.promote_types(x.dtype, np.float32))
deviation = grouped - grouped.mean({axes}, keepdims=True)
variance = deviation.var({axes}, ddof={parts["divisor"].parts["ddof"]}, keepdims=True)
y = (deviation / {parts["eps_rule"].parts["code"]}).reshape(examples, channels, -1)
{_affine_code(parts, "[:, np.newaxis]")}y = y.reshape(moved.shape)
return {"np.moveaxis(y, 1, -1)" if last else "y"}.astype(x.dtype)
""",
        "hints": (
            "Which channels make up the first group here? Write down their numbers for six channels in two groups.",
            f"`reshape` to (N, {split}, -1)"
            + (", after moving the channel to axis 1," if last else "")
            + f" puts them where one mean over the axes {axes} finds them.",
            f"{_last_hint(parts)}, and the factor is `{_factor(parts).parts['code'].format('weight')}`, one for each channel.",
        ),
        "after": _after(parts),
    }


def _group_norm_example(conventions):
    x = [2.0, 10.0, 6.0, 14.0] if conventions["grouping"] == "dealt" else [2.0, 6.0, 10.0, 14.0]
    kwargs = {"weight": np.full(4, 2.0), "bias": np.ones(4), "eps": 5.0}
    positions = np.array([[x]]) if conventions["layout"] == "channels-last" else np.array([[[v] for v in x]])
    return (positions, 2), kwargs, _why(conventions, [2.0, 6.0], 5.0, _times(conventions, 2.0, 1.0))


# ---- the families ----------------------------------------------------------------------------------------------------


STANDARDIZE = Family(
    original=EXERCISES["standardize"],
    switches=(EPS, DIVISOR, POOLS),
    right=_standardize,
    torch_truth=_torch_standardize,
    signature_of=lambda conventions: lambda x, eps=1e-5: None,
    cases=_of(_standardize_cases),
    faults=_standardize_faults,
    expect="the mean is taken out and the spread made 1",
    text=_standardize_text,
    example=_standardize_example,
)
BATCH_NORM = Family(
    original=EXERCISES["batch_norm"],
    switches=(EPS, DIVISOR, LAYOUT, FACTOR),
    right=_batch_norm,
    torch_truth=_torch_batch_norm,
    signature_of=lambda conventions: lambda x, weight, bias, eps=1e-5: None,
    cases=_of(_batch_norm_cases),
    faults=_batch_norm_faults,
    expect="each channel is normalized over examples and positions",
    text=_batch_norm_text,
    example=_batch_norm_example,
)
LAYER_NORM = Family(
    original=EXERCISES["layer_norm"],
    switches=(EPS, DIVISOR, AXES, FACTOR),
    right=_layer_norm,
    torch_truth=_torch_layer_norm,
    signature_of=lambda conventions: lambda x, normalized_shape, weight=None, bias=None, eps=1e-5: None,
    cases=_of(_layer_norm_cases),
    faults=_layer_norm_faults,
    expect="each example is normalized over the axes of normalized_shape",
    text=_layer_norm_text,
    example=_layer_norm_example,
)
GROUP_NORM = Family(
    original=EXERCISES["group_norm"],
    switches=(EPS, DIVISOR, LAYOUT, GROUPING),
    right=_group_norm,
    torch_truth=_torch_group_norm,
    signature_of=lambda conventions: lambda x, num_groups, weight=None, bias=None, eps=1e-5: None,
    cases=_of(_group_norm_cases),
    faults=_group_norm_faults,
    expect="each group of channels of an example is normalized over its channels and positions",
    text=_group_norm_text,
    example=_group_norm_example,
)
