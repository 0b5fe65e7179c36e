"""Variants of cross_entropy: in bits, another reduction, another default of ignore_index, classes first."""

from dataclasses import replace

import numpy as np

from normlab.cases import Case, uneven
from normlab.exercises import EXERCISES
from normlab.frame import wide
from normlab.variants.family import MUTATES, Choice, Family, Fault, Switch, narrow_trace

TINY = (1e-6, 1e-8, 1e-12, 1e-10, 1e-9, 1e-7, 1e-5, 1e-15, 1e-3)

UNIT = Switch(
    "unit",
    (
        Choice("nats", "the loss in nats", "gives the loss in nats", "the loss is in nats", {"log": r"\ln", "per": ""}),
        Choice(
            "bits",
            "the loss in bits",
            "gives the loss in bits",
            "the loss is in bits: logarithms have base 2, and the probabilities stay softmax's",
            {"log": r"\log_2", "per": " / np.log(2)"},
        ),
    ),
)
REDUCTION = Switch(
    "reduction",
    (
        Choice(
            "mean-of-kept",
            "the mean over the rows that are kept",
            "takes the mean over the rows that are kept",
            "the losses are averaged over the rows that are kept",
            {"formula": r"\frac1{|\text{kept}|}\sum_{i\ \text{kept}}", "code": "losses.sum() / kept.sum()"},
        ),
        Choice(
            "sum",
            "the sum over the rows that are kept",
            "takes the sum of the losses",
            "the losses are added up and not divided",
            {"formula": r"\sum_{i\ \text{kept}}", "code": "losses.sum()"},
        ),
        Choice(
            "mean-of-all",
            "the sum divided by all N rows",
            "divides by all N rows",
            "the sum over the kept rows is divided by N, the number of all rows",
            {"formula": r"\frac1N\sum_{i\ \text{kept}}", "code": "losses.sum() / len(target)"},
        ),
    ),
)
INDEX = Switch(
    "index_rule",
    (
        Choice(
            "ignore-100",
            "a default ignore_index of -100",
            "has -100 for the default of ignore_index",
            "the default of `ignore_index` is -100",
            {"index": -100},
        ),
        Choice(
            "ignore-1",
            "a default ignore_index of -1",
            "has -1 for the default of ignore_index",
            "the default of `ignore_index` is -1",
            {"index": -1},
        ),
    ),
)
CLASSES = Switch(
    "classes",
    (
        Choice(
            "classes-last", "logits of shape (N, K)", "takes axis 0 for the examples", "logits have the shape (N, K)"
        ),
        Choice(
            "classes-first",
            "logits of shape (K, N)",
            "takes axis 0 for the classes",
            "logits have the shape (K, N): a row for each class",
        ),
    ),
)
_INDEX = {"ignore-100": -100, "ignore-1": -1}


def _log_softmax(w, shift=lambda w: w.max(1, keepdims=True)):
    z = w - shift(w)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def _log_of_softmax(w, tiny=0.0, top=lambda w: w.max(1, keepdims=True)):
    e = np.exp(w - top(w))
    return np.log(e / e.sum(1, keepdims=True) + w.dtype.type(tiny))


def _softmax(w):
    e = np.exp(w - w.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _cross_entropy(
    logits,
    target,
    ignore_index=None,
    *,
    unit,
    reduction,
    index_rule,
    classes,
    log_p=_log_softmax,
    only_default=False,
    keep_all=False,
    sign=-1,
    by_classes=False,
    by_product=False,
    bits_of_p=False,
    none=None,
    dtypes=None,
):
    if ignore_index is None or only_default:
        ignore_index = _INDEX[index_rule]
    w = wide(logits, **(dtypes or {}))
    if classes == "classes-first":
        w = w.T
    kept = np.flatnonzero((target != ignore_index) | keep_all)
    if not len(kept) and reduction == "mean-of-kept":
        return float("nan" if none is None else none)
    if not len(kept) and none is not None:
        return float(none)
    if len(target) != len(w):
        raise IndexError("as many targets as rows are needed")
    if by_product:  # ignored rows times 0, which is NaN where they hold one
        every = log_p(w)[np.arange(len(target)), np.where(target == ignore_index, 0, target)]
        losses = every * (target != ignore_index)
    else:
        losses = log_p(w[kept])[np.arange(len(kept)), target[kept]]
    losses = sign * losses
    if unit == "bits":
        losses = losses / losses.dtype.type(np.log(2))
    total = losses.sum()
    if by_classes:
        return float(total / w.shape[1])
    return float(
        {"mean-of-kept": total / max(len(kept), 1), "sum": total, "mean-of-all": total / len(target)}[reduction]
    )


def _torch_cross_entropy(torch, logits, target, ignore_index=None, *, unit, reduction, index_rule, classes):
    ignore_index = _INDEX[index_rule] if ignore_index is None else ignore_index
    logits = logits.T if classes == "classes-first" else logits
    how = "mean" if reduction == "mean-of-kept" else "sum"
    loss = torch.nn.functional.cross_entropy(logits, target.long(), ignore_index=ignore_index, reduction=how)
    loss = loss / len(target) if reduction == "mean-of-all" else loss
    return loss / float(np.log(2)) if unit == "bits" else loss


_SAID = {"outlier", "large", "very-negative", "rows-apart", "wrong-and-sure", "float32-large", "float16-large"}
_SAID |= {"wrong-is-minus-inf", "right-is-minus-inf", "ignored-nan", "float16-rows"}


def _cases(conventions):
    other = conventions["index_rule"] == "ignore-1"
    first = conventions["classes"] == "classes-first"
    for case in EXERCISES["cross_entropy"].cases:

        def draw(rng, case=case):
            (logits, target), kwargs = case.draw(rng)
            if case.name == "one-row":
                target = logits.argmin(1)  # or the loss may be a small rest of large logits, which is all rounding
            if other and kwargs.get("ignore_index", -100) in (-100, -1):
                # -100 and -1 change places: as the default and as the value that one case gives.
                swapped = np.where(target == -1, -100, np.where(target == -100, -1, target))
                target = swapped.astype(target.dtype)
                kwargs = dict.fromkeys(kwargs, -100)
            if first:
                logits = np.ascontiguousarray(logits.T) if case.name != "strided" else logits.T
            return (logits, target), kwargs

        kind = case.kind.replace("ignore_index=-1", "ignore_index=-100") if other else case.kind
        if first:
            kind = kind.replace("rows and classes", "examples and classes").replace("rows", "examples")
            kind = kind.replace("row", "example").replace("a example", "an example")
        expect = case.expect if case.name in _SAID else ""
        if case.name == "all-ignored":
            expect = {
                "mean-of-kept": "there is nothing to average: the loss is NaN",
                "sum": "the sum of nothing is 0",
                "mean-of-all": "the sum of nothing is 0, and N is not: the loss is 0",
            }[conventions["reduction"]]
        if case.name == "float16-rows" and conventions["reduction"] == "sum":
            expect = "the answer is a float that float16 cannot hold"
        # There the loss is a small rest of large logits on purpose.
        far = case.far or case.name == "right-and-sure"
        yield replace(case, draw=draw, kind=kind, expect=expect, far=far)

    def square_ignored(rng):
        n = int(rng.integers(5, 8))
        target = rng.integers(0, n - 1, n)
        target[rng.permutation(n)[:2]] = _INDEX[conventions["index_rule"]]
        return (uneven(rng, (n, n)), target), {}

    # Here a wrong shape of the logits does not stop the other conventions from showing.
    yield Case("square-ignored", "values", "as many examples as classes, some of them ignored", square_ignored)


def _faults(conventions):
    none = {"mean-of-kept": 0.0}.get(conventions["reduction"], np.nan)
    yield Fault(
        "softmax-twice",
        "applies softmax twice: the log-softmax is taken of the logits, once",
        {"log_p": lambda w: _log_softmax(_softmax(w))},
    )
    yield Fault(
        "log-of-softmax",
        "takes the log of softmax, which is -inf where a probability underflows: use x - max - log(sum(exp(x - max)))",
        {"log_p": _log_of_softmax},
        ({"log_p": _log_of_softmax, "dtypes": {"double": True}},),
    )
    yield Fault(
        "no-maximum",
        "takes no maximum out before exp, which overflows or leaves log 0: subtract the maximum of each example",
        {"log_p": lambda w: _log_softmax(w, lambda w: w.dtype.type(0))},
        ({"log_p": lambda w: _log_softmax(w, lambda w: w.dtype.type(0)), "dtypes": {"double": True}},),
    )
    yield Fault(
        "eps-in-log",
        "adds a small number inside the log, which hides small probabilities: subtract logsumexp from the logits",
        {"log_p": lambda w: _log_of_softmax(w, TINY[0])},
        tuple({"log_p": lambda w, t=t: _log_of_softmax(w, t)} for t in TINY[1:]),
    )
    yield Fault("sign", "has the sign wrong: a loss is minus the log", {"sign": 1})
    yield Fault(
        "ignores-the-argument",
        "ignores the ignore_index it is given: use the argument, not a constant",
        {"only_default": True},
    )
    yield Fault(
        "divides-by-classes",
        "divides by the number of classes: it has no place in the reduction",
        {"by_classes": True},
    )
    yield Fault(
        "masked-by-product",
        "multiplies the losses of ignored examples by 0, and 0 times NaN is NaN: leave them out",
        {"by_product": True},
    )
    yield Fault(
        "all-ignored",
        f"gives {none:g} when everything is ignored: it is {'NaN' if none == 0 else '0'}".replace("nan", "NaN"),
        {"none": none},
    )
    yield Fault(
        "half-arithmetic",
        "computes in float16: compute in float32 or wider",
        {"dtypes": {"half": True}},
        noisy=True,
    )
    yield Fault(
        "float32-arithmetic",
        "computes float64 logits in float32: keep the arithmetic as wide as the input",
        {"dtypes": {"narrow": True}},
        noisy=True,
        trace=narrow_trace,
    )
    yield MUTATES


def _text(parts):
    first = parts["classes"].slug == "classes-first"
    index = parts["index_rule"].parts["index"]
    reduction = parts["reduction"]
    none = "When everything is ignored, the answer is " + ("NaN." if reduction.slug == "mean-of-kept" else "0.")
    empty = 'if not kept.any():\n    return float("nan")\n' if reduction.slug == "mean-of-kept" else ""
    empty = empty or "if not kept.any():\n    return 0.0\n"
    x = "logits.T[kept]" if first else "logits[kept]"
    result = f"{reduction.parts['code']}{parts['unit'].parts['per']}"
    return {
        "task": "Gather the surprise of the right class, minus the log of its probability, over the examples that count.",
        "details": f"{none} What stands at an ignored example has no influence, not even a NaN.",
        "table": f"""
| | |
|---|---|
| `logits` | floating-point array {"(K, N): a row for each class, a column for each example" if first else "(N, K): a row for each example, a column for each class"} |
| `target` | integer array (N,): the right class of each example, or `ignore_index` |
| `ignore_index` | examples with this target do not count; {index} when none is given |
| returns | a float (a Python float, since `float16` may not hold it) |
""",
        "formula": rf"$$L = -{reduction.parts['formula']} {parts['unit'].parts['log']}\, p_{{i,\,t_i}}, \qquad p = \text{{softmax of the logits of each example}}$$",
        "docstring": f"{reduction.words[0].upper()}{reduction.words[1:]}, {parts['unit'].words}.",
        "code": f"""
kept = target != ignore_index
{empty}x = {x}.astype(np.promote_types(logits.dtype, np.float32))
x = x - x.max(axis=1, keepdims=True)
log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
losses = -log_p[np.arange(len(x)), target[kept]]
return float({result})
""",
        "hints": (
            "Which examples count, and what is their sum divided by, if by anything? Write that down before any logarithm.",
            "Keep what counts, of logits and of targets. Take the log-softmax over the classes, from the logits; then pick one "
            "number from each example: that of its right class.",
            f"With `losses` for the kept examples, in nats, the answer is `float({result})`. {none}",
        ),
        "after": "A loss is compared between papers and programs only after its unit, its reduction and what it ignores are known. "
        "*Harder:* a sum grows with the batch. Which learning rate would make training with it the same as with the mean?",
    }


def _example(conventions):
    index = _INDEX[conventions["index_rule"]]
    logits = np.array([[0.0, 0.0], [0.0, 0.0], [7.0, 5.0]])
    each, unit = ("1", "bit") if conventions["unit"] == "bits" else ("ln 2 = 0.693", "nats")
    how = {
        "mean-of-kept": "the mean of the two is taken",
        "sum": "the two are added up",
        "mean-of-all": "the two are added up and divided by 3",
    }[conventions["reduction"]]
    why = f"Of the two examples that count each class has probability one half, which costs {each} {unit}; {how}."
    logits = logits.T if conventions["classes"] == "classes-first" else logits
    return (logits, np.array([0, 1, index])), {}, why


def _signature(conventions):
    if conventions["index_rule"] == "ignore-1":
        return lambda logits, target, ignore_index=-1: None
    return lambda logits, target, ignore_index=-100: None


CROSS_ENTROPY = Family(
    original=EXERCISES["cross_entropy"],
    switches=(UNIT, REDUCTION, INDEX, CLASSES),
    right=_cross_entropy,
    torch_truth=_torch_cross_entropy,
    signature_of=_signature,
    cases=lambda conventions: tuple(_cases(conventions)),
    faults=_faults,
    expect="the loss gathers -log p of each example's right class",
    text=_text,
    example=_example,
    returns=lambda conventions: "float",
)
