"""Variants of layer_norm_backward: the backward of a layer norm with other conventions."""

from dataclasses import replace

import numpy as np

from normlab.cases import Case, affine, uneven
from normlab.exercises import EXERCISES
from normlab.frame import wide
from normlab.variants.family import HALF_SQUARES, MUTATES, NARROW, Choice, Family, Fault, Switch
from normlab.variants.norms import DIVISOR, EPS, FACTOR, spread, torch_x_hat, two_spreads

FEATURES = Switch(
    "features",
    (
        Choice(
            "features-last",
            "the features on the last axis",
            "takes the last axis for the features",
            "the features are the last axis",
            {"shape": "(..., D)", "axis": "-1"},
        ),
        Choice(
            "features-first",
            "the features on axis 0",
            "takes axis 0 for the features",
            "the features are axis 0",
            {"shape": "(D, ...)", "axis": "0"},
        ),
    ),
)


def _backward(
    dy,
    x,
    weight,
    eps=1e-5,
    *,
    eps_rule,
    divisor,
    factor,
    features,
    no_mean=False,
    no_spread=False,
    zeros=False,
    drop_weight=False,
    of_x=False,
    averaged=False,
    sign=1,
    fixed_eps=None,
    no_scale=False,
    shift_too=False,
    last=False,
    dtypes=None,
):
    axis = 0 if features == "features-first" else -1
    w, above = wide(x, **(dtypes or {})), wide(dy, **(dtypes or {}))
    real = w.dtype.type
    eps = real(eps if fixed_eps is None else fixed_eps)
    n = w.shape[axis]
    m = n - (divisor == "divisor-n-1")
    weight = wide(weight, **(dtypes or {}))
    if axis == 0 and not last:
        weight = weight.reshape(-1, *[1] * (x.ndim - 1))
    deviation = w - w.mean(axis, keepdims=True)
    variance = (deviation**2).sum(axis, keepdims=True) / real(m if m else np.nan)
    scale = spread(variance, eps, eps_rule)
    # d scale / d variance
    slope = (
        real(0.5)
        / {
            "eps-under": lambda: scale,
            "eps-outside": lambda: np.sqrt(variance),
            "eps-floor": lambda: np.where(variance > eps, scale, real(np.inf)),
        }[eps_rule]()
    )
    gain = weight + real(1) if factor == "factor-one-plus" else weight
    g = above * (real(1) if drop_weight else gain)
    x_hat = deviation / scale
    through_mean = real(0) if no_mean else g.mean(axis, keepdims=True)
    pull = real(0) if no_spread else (g * deviation).sum(axis, keepdims=True) * slope * real(2) / (real(m) * scale)
    dx = (g - through_mean - deviation * pull) / (real(1) if no_scale else scale)
    if zeros:
        dx = np.zeros_like(w)
    others = tuple(range(1, x.ndim)) if axis == 0 else tuple(range(x.ndim - 1))
    total = np.mean if averaged else np.sum
    dweight = total(above * (w if of_x else x_hat), others)
    dbias = total(above * (gain if shift_too else real(1)), others)
    return tuple(
        np.asarray(part * real(sign) if i == 0 else part).astype(x.dtype) for i, part in enumerate((dx, dweight, dbias))
    )


def _torch_backward(torch, dy, x, weight, eps=1e-5, *, eps_rule, divisor, factor, features):
    if features == "features-first":
        dy, x = dy.movedim(0, -1), x.movedim(0, -1)
    leaves = [x.clone(), weight.clone(), torch.zeros_like(weight)]
    with torch.enable_grad():
        for leaf in leaves:
            leaf.requires_grad_()
        gain = 1 + leaves[1] if factor == "factor-one-plus" else leaves[1]
        y = torch_x_hat(torch, leaves[0], -1, eps, eps_rule, divisor) * gain + leaves[2]
    dx, dweight, dbias = torch.autograd.grad(y, leaves, dy)
    return (dx.movedim(-1, 0) if features == "features-first" else dx).contiguous(), dweight, dbias


_SAID = {"float32", "half-wide", "half-many"}
_FIRST = {
    "rows": "a batch of vectors, features first (D, N)",
    "tokens": "a batch of sequences, features first (D, N, L)",
    "deep": "a 4-D array, features first",
    "empty": "a batch of no vectors (D, 0)",
}


def _cases(conventions):
    first = conventions["features"] == "features-first"
    skip = set()
    if conventions["divisor"] == "divisor-n-1":
        skip |= {"single"}  # one value has no variance over n-1
    if conventions["eps_rule"] == "eps-outside":
        skip |= {"single", "constant"}  # the standard deviation has no derivative at 0
    if first:
        skip |= {"strided"}
    for case in EXERCISES["layer_norm_backward"].cases:
        if case.name in skip:
            continue

        def draw(rng, case=case):
            (dy, x, weight), kwargs = case.draw(rng)
            if first:
                dy, x = (np.ascontiguousarray(np.moveaxis(a, -1, 0)) for a in (dy, x))
            return (dy, x, weight), kwargs

        expect = case.expect if case.name in _SAID else ""
        yield replace(case, draw=draw, kind=_FIRST.get(case.name, case.kind) if first else case.kind, expect=expect)

    def both(rng):
        x = two_spreads(rng, (5, 6), 0)
        dy = uneven(rng, (5, 6)) + 1
        weight, _ = affine(rng, 6)
        return ((dy.T.copy(), x.T.copy()) if first else (dy, x)) + (weight,), {"eps": 0.3}

    yield Case("both-sides", "values", "slices whose variance is below and above an eps of 0.3", both)


def _faults(conventions):
    gain = {"factor-weight": "weight", "factor-one-plus": "1 + weight"}[conventions["factor"]]
    yield Fault("zeros", "returns zeros for dx: a gradient flows through layer norm", {"zeros": True})
    yield Fault(
        "statistics-detached",
        "takes mean and standard deviation for constants: both depend on x, and a gradient flows through them",
        {"no_mean": True, "no_spread": True},
    )
    yield Fault("no-mean-term", "leaves out the gradient through the mean: subtract the mean of g", {"no_mean": True})
    yield Fault(
        "no-spread-term",
        "leaves out the gradient through the standard deviation: a multiple of x - mean is subtracted",
        {"no_spread": True},
    )
    yield Fault("drops-weight", f"leaves the weight out of dx: g is dy times {gain}", {"drop_weight": True})
    yield Fault("dweight-of-x", "takes dweight from x itself: it is the sum of dy times x_hat", {"of_x": True})
    yield Fault(
        "averaged",
        "averages dweight and dbias over the rows: the gradient of shared weights is a sum",
        {"averaged": True},
    )
    yield Fault("sign", "has the sign of dx wrong", {"sign": -1})
    yield Fault("not-divided", "does not divide dx by the standard deviation", {"no_scale": True})
    yield Fault("dbias-scaled", f"multiplies dbias by {gain}: the bias is added after scaling", {"shift_too": True})
    yield Fault(
        "no-eps", "leaves eps out: it belongs to the standard deviation as in the forward pass", {"fixed_eps": 0.0}
    )
    yield Fault("ignores-eps", "ignores the eps it is given: use the argument, not a constant", {"fixed_eps": 1e-5})
    if conventions["features"] == "features-first":
        yield Fault(
            "weight-on-last-axis",
            "lines the weight up with the last axis: reshape it so that it meets axis 0 (equal sizes hide this)",
            {"last": True},
        )
    yield replace(HALF_SQUARES, slug="half-arithmetic")
    yield NARROW
    yield MUTATES


# Half of the spread's derivative by the variance, as code and formula.
_SLOPE = {
    "eps-under": ("0.5 / scale", r"\frac{1}{2s}"),
    "eps-outside": ("0.5 / np.sqrt(variance)", r"\frac{1}{2\sigma}"),
    "eps-floor": (
        "np.where(variance > eps, 0.5 / scale, 0)",
        r"\frac{1}{2s}\ \text{where}\ \sigma^2 > \varepsilon,\ \text{else}\ 0",
    ),
}


def _text(parts):
    first = parts["features"].slug == "features-first"
    m = "n - 1" if parts["divisor"].slug == "divisor-n-1" else "n"
    slope, slope_formula = _SLOPE[parts["eps_rule"].slug]
    gain = parts["factor"].parts["code"].format("weight")
    moved = "np.moveaxis({}, 0, -1)" if first else "{}"
    back = "np.moveaxis(dx, -1, 0)" if first else "dx"
    details = "No check has a slice whose variance is 0." if parts["eps_rule"].slug == "eps-outside" else ""
    return {
        "task": "Carry a gradient back through a layer norm whose forward pass has conventions of its own.",
        "details": details,
        "table": f"""
| | |
|---|---|
| `dy` | the gradient that arrives at the output, an array like `x` |
| `x` | the input of the forward pass, floating-point, of any shape {parts["features"].parts["shape"]} |
| `weight` | array of shape (D,) |
| `eps` | a small positive number |
| returns | the tuple `dx, dweight, dbias`: an array like `x` and two of shape (D,), all in the dtype of `x` |
""",
        "formula": rf"The forward pass is $y = \hat x \cdot {parts['factor'].parts['formula']} + b$ with $\hat x = (x - \mu)/s$, "
        rf"$s = {parts['eps_rule'].parts['formula']}$ and $\sigma^2 = {parts['divisor'].parts['formula']}\sum_i (x_i - \mu)^2$.",
        "docstring": "dx, dweight and dbias of the layer norm described above.",
        "code": f"""
wide = np.promote_types(x.dtype, np.float32)
above, w = {moved.format("dy")}.astype(wide), {moved.format("x")}.astype(wide)
n = w.shape[-1]
deviation = w - w.mean(-1, keepdims=True)
variance = (deviation**2).sum(-1, keepdims=True) / ({m})
scale = {parts["eps_rule"].parts["code"]}
slope = {slope}  # of scale, by the variance
g = above * {gain}
through_scale = (g * deviation).sum(-1, keepdims=True) / scale * slope * 2 / ({m})
dx = (g - g.mean(-1, keepdims=True) - deviation * through_scale) / scale
rows = tuple(range(w.ndim - 1))
dweight, dbias = (above * deviation / scale).sum(rows), above.sum(rows)
return {back}.astype(x.dtype), dweight.astype(x.dtype), dbias.astype(x.dtype)
""",
        "hints": (
            "Write the forward pass in four lines: mean, variance, s, y. Which of them depend on x?",
            rf"$dx = \frac{{1}}{{s}}\bigl(g - \bar g\bigr) - (x - \mu)\,c$ with $g = dy \cdot {parts['factor'].parts['formula']}$: "
            r"the last term goes through $s$. What is the derivative of $s$ by the variance, and that of the variance by $x_i$?",
            rf"With $s' = {slope_formula}$, it is $c = \frac{{\sum_i g_i (x_i - \mu)}}{{s^2}} \cdot s' \cdot \frac{{2}}{{{m}}}$, a number "
            "for each slice. `dweight` and `dbias` are sums over all axes but that of the features.",
        ),
        "after": "A norm that does not notice when $x - \\mu$ is stretched passes no gradient along it. With an eps that holds "
        "nearly. *Harder:* for which of the three places of eps (under the root, added to the root, a floor) does it hold "
        "exactly, and for which inputs?",
    }


def _example(conventions):
    x, dy = np.array([[-1.0, 1.0, -1.0, 1.0]]), np.array([[4.0, 0.0, 0.0, 0.0]])
    weight = np.zeros(4) if conventions["factor"] == "factor-one-plus" else np.ones(4)
    n1 = conventions["divisor"] == "divisor-n-1"
    if conventions["features"] == "features-first":
        x, dy = x.T, dy.T
    kwargs = {"eps": 0.5 if conventions["eps_rule"] == "eps-floor" else 1.0}
    variance = 4 / 3 if n1 else 1.0
    scale = float(spread(np.float64(variance), kwargs["eps"], conventions["eps_rule"]))
    why = (
        f"The variance is {'4/3' if n1 else '1'}, s is {scale:.3g}, g is dy, and its mean is 1. Check: `dx` adds up to 0, as the "
        "mean was taken out."
    )
    return (dy, x, weight), kwargs, why


LAYER_NORM_BACKWARD = Family(
    original=EXERCISES["layer_norm_backward"],
    switches=(EPS, DIVISOR, FEATURES, FACTOR),
    right=_backward,
    torch_truth=_torch_backward,
    signature_of=lambda conventions: lambda dy, x, weight, eps=1e-5: None,
    cases=lambda conventions: tuple(_cases(conventions)),
    faults=_faults,
    expect="the answer is the gradient of sum(y * dy)",
    text=_text,
    example=_example,
    returns=lambda conventions: (("dx", "array"), ("dweight", "array"), ("dbias", "array")),
)
