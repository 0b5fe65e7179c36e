"""Variants of softmax: another base, another default axis, and what becomes of a slice of nothing but -inf."""

import re
from dataclasses import replace

import numpy as np

from normlab.cases import Case, sizes, uneven
from normlab.exercises import EXERCISES
from normlab.frame import wide
from normlab.variants.family import ALWAYS_FLOAT64, MUTATES, Choice, Family, Fault, Switch, narrow_trace

TINY = (1e-6, 1e-8, 1e-12, 1e-10, 1e-9, 1e-7, 1e-5, 1e-3)


def _powers(base, code):
    return {"base": base, "code": code}


BASE = Switch(
    "base",
    (
        Choice("base-e", "base e", "raises e to the logits", "the base is e", _powers("e", "np.exp({})")),
        Choice("base-2", "base 2", "raises 2 to the logits", "the base is 2", _powers("2", "np.exp2({})")),
        Choice("base-10", "base 10", "raises 10 to the logits", "the base is 10", _powers("10", "10 ** ({})")),
    ),
)
AXIS = Switch(
    "default_axis",
    (
        Choice(
            "axis-last",
            "a default axis of -1",
            "takes the last axis by default",
            "the default axis is -1",
            {"axis": "-1"},
        ),
        Choice("axis-0", "a default axis of 0", "takes axis 0 by default", "the default axis is 0", {"axis": "0"}),
    ),
)
EMPTY = Switch(
    "empty",
    (
        Choice(
            "empty-nan",
            "NaN for a slice of nothing but -inf",
            "gives NaN for a slice of nothing but -inf",
            "a slice of nothing but -inf becomes NaN",
        ),
        Choice(
            "empty-zeros",
            "zeros for a slice of nothing but -inf",
            "gives zeros for a slice of nothing but -inf",
            "a slice of nothing but -inf becomes zeros, as attention wants it",
        ),
        Choice(
            "empty-uniform",
            "equal weights for a slice of nothing but -inf",
            "gives equal weights for a slice of nothing but -inf",
            "a slice of n logits that are all -inf gets equal weights, 1/n",
        ),
    ),
)
_NUMBER = {"base-e": np.e, "base-2": 2.0, "base-10": 10.0}


def _power(base, w):
    return np.exp2(w) if base == "base-2" else w.dtype.type(10) ** w if base == "base-10" else np.exp(w)


def _maximum(w, axis):
    return w.max(axis, keepdims=True)


def _softmax(
    x,
    axis=None,
    *,
    base,
    default_axis,
    empty,
    shift=_maximum,
    total=lambda e, axis: e.sum(axis, keepdims=True),
    fixed_axis=None,
    after=None,
    dtypes=None,
):
    axis = (-1 if default_axis == "axis-last" else 0) if axis is None else axis
    axis = axis if fixed_axis is None else fixed_axis
    w = wide(x, **(dtypes or {}))
    dead = (w == -np.inf).all(axis, keepdims=True)
    if empty != "empty-nan":
        w = np.where(dead, w.dtype.type(0), w)
    e = _power(base, w - shift(w, axis))
    y = e / total(e, axis)
    if empty == "empty-zeros":
        y = np.where(dead, y.dtype.type(0), y)
    return (after(y) if after else y).astype(x.dtype)


def _no_keepdims(right_conventions):
    base, first = right_conventions["base"], right_conventions["default_axis"] == "axis-0"

    def wrong(x, axis=0 if first else -1):
        w = wide(x)
        e = _power(base, w - w.max(axis, keepdims=True))
        return (e / e.sum(axis)).astype(x.dtype)

    return wrong


def _torch_softmax(torch, x, axis=None, *, base, default_axis, empty):
    axis = (-1 if default_axis == "axis-last" else 0) if axis is None else axis
    top = x.amax(axis, keepdim=True)
    moved = x - torch.where(top.isinf(), torch.zeros_like(top), top)  # first, so that large logits keep their digits
    p = torch.softmax(moved * float(np.log(_NUMBER[base])), axis)
    if empty == "empty-nan":
        return p
    return p.masked_fill(top == -torch.inf, 0.0 if empty == "empty-zeros" else 1 / x.shape[axis])


def _cases(conventions):
    first = conventions["default_axis"] == "axis-0"
    empty = {
        "empty-nan": "there is no distribution: that slice is NaN",
        "empty-zeros": "that slice becomes zeros",
        "empty-uniform": "each logit of that slice gets the same weight",
    }[conventions["empty"]]
    for case in EXERCISES["softmax"].cases:

        def draw(rng, case=case):
            args, kwargs = case.draw(rng)
            if first and not kwargs:
                args = (np.ascontiguousarray(args[0].T),)
            if case.name == "float16-long" and conventions["base"] == "base-10":
                args = (args[0] / np.float16(2),)  # or the sum would just fit into float16
            return args, kwargs

        kind = case.kind.replace("(last axis)", "(no axis given)")
        if first and "axis=" not in kind:
            kind = re.sub(r"\brow", "column", kind)
        expect = case.expect
        if case.name == "all-minus-inf":
            expect = empty
        yield replace(case, draw=draw, kind=kind, expect=expect)

    def all_masked(rng):
        x = uneven(rng, sizes(rng, 2))
        x[:, 1] = -np.inf
        return (x,), {"axis": 0}

    # With the axis given, so that a wrong default does not hide what becomes of an empty slice.
    yield Case("all-minus-inf-axis", "edges", "a column of nothing but -inf, with axis=0", all_masked, empty)


def _faults(conventions):
    yield Fault(
        "no-maximum",
        "takes no maximum out before the powers, which overflow or vanish: subtract the maximum of each slice first",
        {"shift": lambda w, axis: w.dtype.type(0)},
        ({"shift": lambda w, axis: w.dtype.type(0), "dtypes": {"double": True}},),
    )
    yield Fault(
        "global-maximum",
        "subtracts one maximum for the whole array, so that slices far below it become 0/0: each slice has its own",
        {"shift": lambda w, axis: w.max(initial=-np.inf)},
    )
    yield Fault(
        "mean-not-maximum",
        "subtracts the mean: only subtracting the maximum keeps the powers from overflowing",
        {"shift": lambda w, axis: w.mean(axis, keepdims=True)},
    )
    yield Fault(
        "everything",
        "divides by the sum over the whole array: each slice along the axis adds up to 1",
        {"total": lambda e, axis: e.sum()},
    )
    yield Fault(
        "fixed-axis",
        "ignores axis and always takes the default",
        {"fixed_axis": -1 if conventions["default_axis"] == "axis-last" else 0},
    )
    yield Fault(
        "eps-in-denominator",
        "adds a small number to the sum: with the maximum taken out the sum is at least 1 already",
        {"total": lambda e, axis: e.sum(axis, keepdims=True) + e.dtype.type(TINY[0])},
        tuple({"total": lambda e, axis, t=t: e.sum(axis, keepdims=True) + e.dtype.type(t)} for t in TINY[1:]),
    )
    yield Fault(
        "normalizes-by-maximum",
        "does not divide by the sum of the powers, so that the largest weight comes out as 1",
        {"total": lambda e, axis: e.max(axis, keepdims=True)},
    )
    yield Fault(
        "nan-to-num",
        "replaces NaN by numbers: a NaN that comes in is to show",
        {"after": np.nan_to_num},
    )
    yield Fault(
        "half-arithmetic",
        "computes in float16, where the sum overflows: compute in float32 and cast once at the end",
        {"dtypes": {"half": True}, "total": lambda e, axis: e.sum(axis, keepdims=True, dtype=e.dtype)},
        noisy=True,
    )
    yield Fault(
        "float32-arithmetic",
        "computes float64 input in float32: keep the arithmetic as wide as the input",
        {"dtypes": {"narrow": True}},
        noisy=True,
        trace=narrow_trace,
    )
    if conventions["default_axis"] == "axis-last" and conventions["empty"] == "empty-nan":
        yield Fault(
            "missing-keepdims",
            "drops the axis of its sum, so that NumPy lines it up with the wrong one: keepdims=True",
            wrap=lambda right: _no_keepdims(conventions),
        )
    yield MUTATES
    yield ALWAYS_FLOAT64


def _text(parts):
    base, axis = parts["base"].parts, parts["default_axis"].parts["axis"]
    powers = base["code"].format("wide - top")
    empty = parts["empty"].slug
    code = """
wide = x.astype(np.promote_types(x.dtype, np.float32))
top = wide.max(axis, keepdims=True)
"""
    if empty != "empty-nan":
        code += "empty = top == -np.inf\ntop = np.where(empty, 0, top)  # -inf - -inf would be NaN\n"
    code += f"powers = {powers}\n"
    if empty == "empty-uniform":
        code += "powers = np.where(empty, 1, powers)\n"
    total = "powers.sum(axis, keepdims=True)" + (" + empty" if empty == "empty-zeros" else "")
    code += (
        f"return (powers / ({total})).astype(x.dtype)\n"
        if "+" in total
        else f"return (powers / {total}).astype(x.dtype)\n"
    )
    last = {
        "empty-nan": "A slice of nothing but `-inf` comes out as NaN by itself.",
        "empty-zeros": "For a slice whose maximum is `-inf`, subtract 0 instead: all powers are 0, and a sum of 1 in place of 0 "
        "leaves them so.",
        "empty-uniform": "For a slice whose maximum is `-inf`, subtract 0 instead, and put a 1 for every power.",
    }[empty]
    return {
        "task": "Turn every slice along an axis into positive weights that add up to 1.",
        "details": "A slice with a NaN becomes NaN.",
        "table": f"""
| | |
|---|---|
| `x` | floating-point array of logits |
| `axis` | the axis along which the weights add up to 1; {axis} when none is given |
| returns | an array of the same shape and dtype |
""",
        "formula": rf"$$p_i = \frac{{{base['base']}^{{x_i}}}}{{\sum_j {base['base']}^{{x_j}}}}$$",
        "docstring": f"{base['base']}^x over its sum along axis; an array like x.",
        "code": code,
        "hints": (
            "If you subtract the same number from all logits of a slice, what happens to the weights? Does the base matter for that?",
            f"Take the maximum of each slice out, then `{powers}`. Try your function on an array with two axes and no `axis`: "
            "along which one do the weights add up to 1?",
            f"`powers / powers.sum(axis, keepdims=True)`. {last}",
        ),
        "after": "The base is a temperature: $b^x = e^{x \\ln b}$, so every base gives the softmax of stretched logits. "
        "*Harder:* which of NaN, zeros and equal weights does the attention of your favorite framework give for a row that is "
        "masked whole?",
    }


def _example(conventions):
    number = _NUMBER[conventions["base"]]
    if conventions["base"] == "base-e":
        x, why = np.zeros((2, 3)), "Every power is 1."
        if conventions["default_axis"] == "axis-0":
            return (x,), {}, f"{why} No axis is given, so each column adds up to 1."
    else:
        x = np.array([[0.0, 1.0], [0.0, 1.0]])
        why = f"The powers are 1 and {number:g}."
    if conventions["default_axis"] == "axis-0":
        x = np.ascontiguousarray(x.T)
        why += " No axis is given, so each column adds up to 1."
    return (x,), {}, why


SOFTMAX = Family(
    original=EXERCISES["softmax"],
    switches=(BASE, AXIS, EMPTY),
    right=_softmax,
    torch_truth=_torch_softmax,
    signature_of=lambda conventions: (
        (lambda x, axis=-1: None) if conventions["default_axis"] == "axis-last" else (lambda x, axis=0: None)
    ),
    cases=lambda conventions: tuple(_cases(conventions)),
    faults=_faults,
    expect="the weights of every slice along the axis add up to 1",
    text=_text,
    example=_example,
)
