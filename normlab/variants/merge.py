"""Variants of merge_statistics: what stands in the three numbers, and in which order."""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from normlab.exercises import EXERCISES
from normlab.variants.family import Choice, Family, Fault, Switch

MIDDLE = Switch(
    "middle",
    (
        Choice("mean", "the mean", "takes the number for the mean", "the mean of the values stands there"),
        Choice(
            "sum",
            "the sum in place of the mean",
            "takes the sum for a mean",
            "the sum of the values stands in place of the mean",
        ),
    ),
)
SPREAD = Switch(
    "spread",
    (
        Choice("m2", "m2", "takes the spread for m2", "m2 stands there"),
        Choice(
            "variance",
            "the variance over n in place of m2",
            "divides m2 by n",
            "the variance m2/n stands in place of m2",
        ),
        Choice(
            "unbiased",
            "the variance over n-1 in place of m2",
            "divides m2 by n-1",
            "the variance m2/(n-1) stands in place of m2",
        ),
    ),
)
ORDER = Switch(
    "order",
    (
        Choice("n-first", "n in front", "has n in front", "n stands in front"),
        Choice("n-last", "n at the end", "has n at the end", "n stands at the end"),
    ),
)


def _ordered(n, middle, spread, order):
    return (n, middle, spread) if order == "n-first" else (middle, spread, n)


def _opened(part, middle, spread, order):
    """(n, mean, m2) of a part in the form that the switches name."""
    n, a, b = part if order == "n-first" else (part[2], part[0], part[1])
    mean = a / n if middle == "sum" and n else a
    m2 = {"m2": b, "variance": b * n, "unbiased": b * (n - 1) if n else b}[spread]
    return n, mean, m2


def _closed(n, mean, m2, middle, spread, order):
    """The form that the switches name, of (n, mean, m2)."""
    if not n:
        return _ordered(0, 0.0, 0.0, order)
    a = mean * n if middle == "sum" else mean
    b = {"m2": m2, "variance": m2 / n, "unbiased": m2 / (n - 1) if n > 1 else m2 * 0}[spread]
    return _ordered(n, a, b, order)


def _merge(
    a,
    b,
    *,
    middle,
    spread,
    order,
    between=lambda n_a, n_b: n_a * n_b / (n_a + n_b),
    mean_of_means=False,
    swapped=False,
    by_squares=False,
    narrow=False,
    count=lambda n: n,
    crash=False,
    open_with=None,
):
    (n_a, mean_a, m2_a), (n_b, mean_b, m2_b) = (_opened(part, middle, open_with or spread, order) for part in (a, b))
    n = n_a + n_b
    if n == 0:
        if crash:
            raise ZeroDivisionError
        return _ordered(count(0), 0.0, 0.0, order)
    delta = mean_b - mean_a
    if narrow:
        delta, m2_a, m2_b = (float(np.float32(v)) for v in (np.float32(mean_b) - np.float32(mean_a), m2_a, m2_b))
        mean_a = float(np.float32(mean_a))
    if mean_of_means:
        mean = (mean_a + mean_b) / 2
    else:
        mean = mean_a + delta * (n_a if swapped else n_b) / n
    m2 = m2_a + m2_b + delta**2 * between(n_a, n_b)
    if by_squares:
        m2 = m2_a + n_a * mean_a**2 + m2_b + n_b * mean_b**2 - n * mean**2
    closed = _closed(n, mean, m2, middle, spread, order)
    return tuple(count(part) if part is n else part for part in closed)


def _torch_merge(torch, a, b, *, middle, spread, order):
    """From the definitions, in fractions: no rounding but the last."""
    (n_a, mean_a, m2_a), (n_b, mean_b, m2_b) = (
        _opened(tuple(map(Fraction, part)), middle, spread, order) for part in (a, b)
    )
    n = n_a + n_b
    mean = (n_a * mean_a + n_b * mean_b) / n if n else Fraction(0)
    m2 = m2_a + n_a * (mean_a - mean) ** 2 + m2_b + n_b * (mean_b - mean) ** 2
    closed = _closed(n, mean, m2, middle, spread, order)
    place = 0 if order == "n-first" else 2
    return tuple(int(part) if i == place else float(part) for i, part in enumerate(closed))


def _cases(conventions):
    sums = conventions["middle"] == "sum"
    empty = str(_ordered(0, 0.0, 0.0, conventions["order"]))
    for case in EXERCISES["merge_statistics"].cases:

        def draw(rng, case=case):
            parts, kwargs = case.draw(rng)
            if sums and case.name == "far":
                # Counts and means whose products and quotients are exact: what a sum far from zero loses is not to be
                # the candidate's fault.
                parts = tuple(
                    (count, round(mean * 8) / 8, m2) for count, (_, mean, m2) in zip((64, 16), parts, strict=True)
                )
            return tuple(_closed(*part, **conventions) for part in parts), kwargs

        expect = case.expect
        if case.name == "both-empty":
            expect = f"the answer is {empty}"
        elif case.name in ("lopsided", "far"):
            expect = ""
        kind = case.kind.replace("means near", "parts with means near")
        yield replace(case, draw=draw, kind=kind, expect=expect)


_NAMES = {"m2": "m2", "variance": "variance", "unbiased": "variance"}


def _faults(conventions):
    yield Fault(
        "no-between-term",
        "adds up the spreads within the parts and nothing else: the distance between the means adds delta^2 * n_a * n_b / n",
        {"between": lambda n_a, n_b: 0.0},
    )
    yield Fault(
        "between-not-divided",
        "multiplies delta^2 by n_a * n_b and does not divide by n",
        {"between": lambda n_a, n_b: n_a * n_b},
    )
    yield Fault(
        "between-unweighted",
        "adds delta^2 without a factor: it is n_a * n_b / n",
        {"between": lambda n_a, n_b: 1},
    )
    yield Fault(
        "mean-of-means",
        "averages the means as if the parts were of one size: each counts as often as its part has values",
        {"mean_of_means": True},
    )
    yield Fault(
        "weights-swapped",
        "weighs each mean with the other part's count: the mean moves from mean_a by the share n_b / n",
        {"swapped": True},
    )
    yield Fault(
        "both-empty-crashes",
        "breaks off when both parts are empty: their union is empty too",
        {"crash": True},
    )
    yield Fault("float-count", "returns n as a float: it is a count, an int", {"count": float})
    yield Fault(
        "sums-of-squares",
        "goes by way of the sums of squares, which cancel when the means are far from zero: use the distance of the means",
        {"by_squares": True},
        noisy=True,
    )
    yield Fault(
        "float32-arithmetic",
        "computes in float32: keep the digits that Python's floats have",
        {"narrow": True},
        noisy=True,
    )
    if conventions["spread"] != "m2":
        yield Fault(
            "takes-variance-for-m2",
            "takes the variances that come in for m2: multiply each by what it was divided by",
            {"open_with": "m2"},
        )


def _names(conventions):
    return _ordered("n", conventions["middle"], _NAMES[conventions["spread"]], conventions["order"])


def _text(parts):
    conventions = {name: choice.slug for name, choice in parts.items()}
    names = _names(conventions)
    listed = f"({', '.join(names)})"
    over = {"m2": None, "variance": "n", "unbiased": "n - 1"}[conventions["spread"]]
    empty = str(_ordered(0, 0.0, 0.0, conventions["order"]))
    into = ["n", "mean", "m2"]
    lines = []
    for p in ("a", "b"):
        unpacked = ", ".join(f"{name}_{p}" for name in names)
        lines.append(f"{unpacked} = {p}")
        if conventions["middle"] == "sum":
            lines.append(f"mean_{p} = sum_{p} / n_{p} if n_{p} else 0.0")
        if over:
            lines.append(f"m2_{p} = variance_{p} * ({over.replace('n', f'n_{p}')}) if n_{p} else 0.0")
    lines += [
        "n = n_a + n_b",
        f"if n == 0:\n    return {', '.join('0' if name == 'n' else '0.0' for name in names)}",
        "delta = mean_b - mean_a",
        "mean = mean_a + delta * n_b / n",
        "m2 = m2_a + m2_b + delta**2 * n_a * n_b / n",
    ]
    middle = "mean" if conventions["middle"] == "mean" else "sum_a + sum_b"
    last = {"m2": "m2", "variance": "m2 / n", "unbiased": "m2 / (n - 1) if n > 1 else 0.0"}[conventions["spread"]]
    lines.append(f"return {', '.join(_ordered('n', middle, last, conventions['order']))}")
    single = " A single value has the variance 0." if conventions["spread"] == "unbiased" else ""
    spread = {
        "m2": r"M_2 \text{ itself}",
        "variance": r"\frac{M_2}{n}",
        "unbiased": r"\frac{M_2}{n - 1}",
    }[conventions["spread"]]
    return {
        "task": "Compute the statistics of two parts together from the statistics of each.",
        "details": f"A part may be empty, `{empty}`, and it changes nothing then.{single}",
        "table": f"""
| | |
|---|---|
| `a`, `b` | tuples `{listed}` of an int, `n`, and two Python floats |
| returns | the tuple `{listed}` of all values of both parts |
""",
        "formula": r"$$\delta = \mu_b - \mu_a, \qquad M_2 = M_{2,a} + M_{2,b} + \delta^2\, \frac{n_a n_b}{n}, "
        rf"\qquad \text{{and the spread in the tuple is}}\ {spread}$$",
        "docstring": f"{listed} of two parts together; each is given so.",
        "code": "\n".join(lines),
        "hints": (
            f"Can you get `{', '.join(into)}` of a part from the three numbers that you are given, and back?",
            "Open both tuples into n, mean and m2, merge those, and close the result into the same form. What does a part "
            "without values open into?",
            "`delta**2 * n_a * n_b / n` is added to the two m2. At the end "
            + {
                "m2": "m2 stays as it is",
                "variance": "divide by n",
                "unbiased": "divide by n - 1, where n is more than 1",
            }[conventions["spread"]]
            + (", and the sum is `sum_a + sum_b`." if conventions["middle"] == "sum" else "."),
        ),
        "after": "Programs pass these three numbers to one another in all of these forms, and the receiver has to know which. "
        "*Harder:* which form can be merged without a division, and which of them keeps its digits far from zero?",
    }


def _example(conventions):
    a, b = _closed(2, 2.0, 2.0, **conventions), _closed(1, 8.0, 0.0, **conventions)
    return (
        (a, b),
        {},
        "The values are 1 and 3, and 8. Together they are 3 values with the sum 12 and the mean 4; they lie 3, 1 and 4 away "
        "from it, and 9 + 1 + 16 = 26.",
    )


def _kinds(conventions):
    kinds = {"n": "int"}
    return tuple((name, kinds.get(name, "float")) for name in _names(conventions))


MERGE_STATISTICS = Family(
    original=EXERCISES["merge_statistics"],
    switches=(MIDDLE, SPREAD, ORDER),
    right=_merge,
    torch_truth=_torch_merge,
    signature_of=lambda conventions: lambda a, b: None,
    cases=lambda conventions: tuple(_cases(conventions)),
    faults=_faults,
    expect="the answer is the statistics of all values of both parts",
    text=_text,
    example=_example,
    returns=_kinds,
)
