"""Hunt: a learner's test of layer norms, held against layer norms that are known to be right or wrong."""

import inspect
import math

import numpy as np

from normlab.cases import Case
from normlab.drive import functions, given
from normlab.frame import Exercise, mistakes_table

MISTAKES, add = mistakes_table()


# ---- right layer norms, in styles that differ in their last digits ---------------------------------------------------


def _axes(x, normalized_shape):
    return tuple(range(x.ndim - len(normalized_shape), x.ndim))


def _affine(y, weight, bias):
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _plain(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    wide, axes = x.astype(np.promote_types(x.dtype, np.float32)), _axes(x, normalized_shape)
    deviation = wide - wide.mean(axes, keepdims=True)
    variance = (deviation**2).mean(axes, keepdims=True)
    return _affine(deviation / np.sqrt(variance + eps), weight, bias).astype(x.dtype)


def _in_float64(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    wide, axes = x.astype(np.float64), _axes(x, normalized_shape)
    y = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + eps)
    return _affine(y, weight, bias).astype(x.dtype)


def _with_einsum(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    table = x.astype(np.promote_types(x.dtype, np.float32)).reshape(-1, math.prod(normalized_shape))
    table = table - table.mean(1, keepdims=True)
    rstd = (np.einsum("nd,nd->n", table, table) / table.dtype.type(table.shape[1]) + table.dtype.type(eps)) ** -0.5
    return _affine((table * rstd[:, None]).reshape(x.shape), weight, bias).astype(x.dtype)


def _row_by_row(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    y = np.empty(x.shape)
    for where in np.ndindex(x.shape[: x.ndim - len(normalized_shape)]):
        row = x[where].astype(float)
        mean = math.fsum(row.flat) / row.size
        variance = math.fsum((v - mean) ** 2 for v in row.flat) / row.size
        y[where] = (row - mean) / math.sqrt(variance + eps)
    return _affine(y, weight, bias).astype(x.dtype)


def _folded(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """x * scale + shift: what is left of close numbers is subtracted last."""
    wide, axes = x.astype(np.promote_types(x.dtype, np.float32)), _axes(x, normalized_shape)
    scale = 1 / np.sqrt(wide.var(axes, keepdims=True) + wide.dtype.type(eps))
    shift = -wide.mean(axes, keepdims=True) * scale
    if weight is not None:
        scale, shift = scale * weight, shift * weight
    return (wide * scale + (shift if bias is None else shift + bias)).astype(x.dtype)


def _mean_corrected(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """The mean of the deviations, which rounding left, is taken off as well."""
    wide, axes = x.astype(np.promote_types(x.dtype, np.float32)), _axes(x, normalized_shape)
    deviation = wide - wide.mean(axes, keepdims=True)
    deviation = deviation - deviation.mean(axes, keepdims=True)
    spread = np.hypot(deviation.std(axes, keepdims=True), math.sqrt(eps))
    return _affine(deviation / spread, weight, bias).astype(x.dtype)


RIGHT = {
    "plain": _plain,
    "float64": _in_float64,
    "einsum": _with_einsum,
    "rows": _row_by_row,
    "folded": _folded,
    "corrected": _mean_corrected,
}


# ---- suspects --------------------------------------------------------------------------------------------------------
# A suspect is a pair: ("right", a name of RIGHT), or the slug of a known mistake of layer_norm and which variant of it.


def _function(suspect):
    from normlab.mistakes import MISTAKES as known  # which imports this file

    kind, which = suspect
    if kind == "right":
        return RIGHT[which]
    mistake = next(m for m in known["layer_norm"] if m.slug == kind)
    return (mistake.wrong, *mistake.variants)[which]


_SIGNATURE = inspect.signature(_plain)


def layer_norm_of(suspect):
    """The suspect as a function that does not tell what it is, called with keywords wherever a layer norm has them."""
    function = _function(suspect)

    @given
    def layer_norm(*args, **kwargs):
        given_arguments = _SIGNATURE.bind(*args, **kwargs).arguments
        x, shape = given_arguments.pop("x"), given_arguments.pop("normalized_shape")
        # A hunter may write 8 for (8,), as torch.nn.LayerNorm does: no suspect is to be told from another by that.
        return function(x, (shape,) if isinstance(shape, int) else shape, **given_arguments)

    return layer_norm


def _as_functions(suspects):
    return ([layer_norm_of(suspect) for suspect in suspects],), {}


def _property(slug):
    """What a mistake does, in the words of its sentence."""
    from normlab.mistakes import MISTAKES as known

    return next(m.sentence for m in known["layer_norm"] if m.slug == slug).split(": ")[0]


def _explain(args, truth, value):
    (suspects,) = args
    refused = [name for (_, name), right, answer in zip(suspects, truth, value, strict=True) if right and not answer]
    escaped = [slug for (slug, _), right, answer in zip(suspects, truth, value, strict=True) if answer and not right]
    if refused:
        return f"refuses {len(refused)} of {int(truth.sum())} that are right: they differ by rounding alone"
    slug = escaped[0]
    return f"lets {len(escaped)} of {int((1 - truth).sum())} escape, among them one that {_property(slug)}"


def _are_right(suspects):
    return np.array([float(kind == "right") for kind, _ in suspects])


GROUPS = {
    "pools": ("axis-0", "everything", "only-last-axis", "all-but-batch", "missing-keepdims"),
    "spread": ("no-root", "divides-by-n-1", "not-centered", "not-scaled", "root-mean-square"),
    "affine": (
        "scales-bias",
        "drops-weight",
        "drops-bias",
        "drops-affine",
        "swaps-affine",
        "weight-before-normalizing",
    ),
    "eps": ("eps-outside-root", "no-eps", "ignores-eps", "wrong-default-eps", "n-1-and-eps-outside"),
    "digits": ("one-pass-variance", "half-statistics", "float32-arithmetic"),
    "None": ("none-crashes", "bias-needs-weight", "truth-value"),
    "manners": ("mutates-input", "always-float64"),
}


def _suspects(slugs):
    """A case's arguments: the mistakes with these slugs, each in one of its variants, in some order."""

    def draw(rng):
        from normlab.mistakes import MISTAKES as known

        variants = {m.slug: 1 + len(m.variants) for m in known["layer_norm"]}
        return ([(str(slug), int(rng.integers(variants[slug]))) for slug in rng.permutation(slugs)],), {}

    return draw


def _right_ones(rng):
    return ([("right", str(name)) for name in rng.permutation(list(RIGHT))],), {}


_REFUSE = "each of them is refused"

CASES = (
    Case("right", "values", "six layer norms that are right", _right_ones, "each of them is accepted"),
    Case("pools", "values", "layer norms that pool the wrong elements", _suspects(GROUPS["pools"]), _REFUSE),
    Case("spread", "values", "layer norms with a wrong mean or spread", _suspects(GROUPS["spread"]), _REFUSE),
    Case("affine", "values", "layer norms with a wrong weight or bias", _suspects(GROUPS["affine"]), _REFUSE),
    Case("eps", "numerics", "layer norms with a wrong eps", _suspects(GROUPS["eps"]), _REFUSE),
    Case("digits", "numerics", "layer norms that lose digits", _suspects(GROUPS["digits"]), _REFUSE),
    Case("None", "edges", "layer norms that do not cope with None", _suspects(GROUPS["None"]), _REFUSE),
    Case("manners", "edges", "layer norms with bad manners", _suspects(GROUPS["manners"]), _REFUSE),
)


# ---- a right hunter with switches ------------------------------------------------------------------------------------


def _inputs():
    """(kind, x, normalized_shape, weight, bias, keywords) to try a candidate on."""
    rng = np.random.default_rng(7)
    shapes = {"rows": ((5, 7), 1), "square": ((6, 6), 1), "tokens": ((2, 3, 5), 1), "two axes": ((3, 4, 5), 2)}
    for name, (shape, trailing) in shapes.items():
        x = rng.normal(size=shape) * 2 + rng.normal(size=(*shape[:-1], 1)) * 3
        weight, bias = rng.uniform(0.5, 2, (2, *shape[-trailing:]))
        yield name, x, shape[-trailing:], weight, bias, {"eps": 1e-5}
    x, w, b = rng.normal(size=(4, 6)), rng.uniform(0.5, 2, 6), rng.normal(size=6)
    yield "None", x, (6,), None, None, {}
    yield "None", x, (6,), w, None, {}
    yield "None", x, (6,), None, b, {}
    yield "eps", x * 1e-3, (6,), w, b, {}
    yield "eps", x, (6,), w, b, {"eps": 0.3}
    yield "constant", np.full((2, 6), 4.0), (6,), w, b, {}
    yield "far", (x + 1e4).astype(np.float32), (6,), w.astype(np.float32), b.astype(np.float32), {}
    yield "far", x + 1e7, (6,), w, b, {}
    yield "half", (x * 300).astype(np.float16), (6,), w.astype(np.float16), b.astype(np.float16), {}
    yield "float32", x.astype(np.float32), (6,), w.astype(np.float32), b.astype(np.float32), {}


# Largest error over the largest right number, for an input near zero.
_TOLERANCE = {np.float64: 1e-10, np.float32: 1e-5, np.float16: 4e-3}


def _hunt(candidate, without=(), looks_at="values", catches=True, manners=True, dtypes=True, loose=1.0):
    """True for a right layer norm. The switches take its parts away."""
    for name, x, shape, weight, bias, options in _inputs():
        if name in without:
            continue
        if "affine" in without:
            weight = bias = None
        before = x.copy()
        try:
            with np.errstate(all="ignore"):
                y = candidate(x, shape, weight, bias, **options)
        except Exception:
            if catches:
                return False
            raise
        right = _in_float64(before.astype(np.float64), shape, weight, bias, **options)
        if manners and not np.array_equal(x, before):
            return False
        if dtypes and y.dtype != x.dtype:
            return False
        if looks_at == "bits":
            if not np.array_equal(y, right.astype(x.dtype)):
                return False
        else:
            far = np.abs(before).max() / before.std() if name == "far" else 1
            allowed = _TOLERANCE[x.dtype.type] * far * loose
            if np.shape(y) != x.shape or not np.abs(y - right).max() <= allowed * np.abs(right).max():
                return False
    return True


def _without(**switches):
    def hunter(candidate):
        return _hunt(candidate, **switches)

    return hunter


def _always(answer):
    return lambda candidate: answer


def _mean_and_spread(candidate):
    rows = np.random.default_rng(0).normal(size=(8, 32)) * 3 + 5
    y = candidate(rows, (32,))
    return bool(np.allclose(y.mean(-1), 0, atol=1e-6) and np.allclose(y.std(-1), 1, atol=1e-3))


def _one_square(candidate):
    x = np.random.default_rng(0).normal(size=(4, 4))
    return bool(np.allclose(candidate(x, (4,)), _in_float64(x, (4,)), atol=1e-6))


def _sums(candidate):
    x = np.random.default_rng(0).normal(size=(5, 7))
    return bool(abs(candidate(x, (7,)).sum()) < 1e-6)


EXERCISES = (
    Exercise(
        name="mutant_hunt",
        stem="hunt",
        expect="a right layer norm is accepted and a wrong one refused",
        signature_of=lambda candidate: None,
        torch_truth=lambda torch, suspects: _are_right(suspects),
        numpy_truth=_are_right,
        cases=CASES,
        returns="verdicts",
        drive=functions.hunt,
        hand=_as_functions,
        explain=_explain,
        may_call=("layer_norm",),
    ),
)

add(
    "mutant_hunt",
    "accepts-everything",
    "accepts whatever it is given: compare with answers that you know",
    _always(True),
)
add("mutant_hunt", "refuses-everything", "refuses whatever it is given: a right one has to pass", _always(False))
add(
    "mutant_hunt",
    "exact-equality",
    "asks for equality to the last bit, and right code differs there: allow for rounding",
    _without(looks_at="bits"),
)
add(
    "mutant_hunt",
    "only-moments",
    "looks at mean and spread alone, which many a wrong layer norm has right as well: compare the numbers themselves",
    _mean_and_spread,
)
add(
    "mutant_hunt",
    "only-the-sum",
    "adds up the output, and whatever is centered adds up to 0: compare the numbers themselves",
    _sums,
)
add(
    "mutant_hunt",
    "one-square-input",
    "tries one square input, where rows and columns cannot be told apart: take sizes that are all different",
    _one_square,
)
add(
    "mutant_hunt",
    "only-tables",
    "tries tables of rows alone: a layer norm also meets sequences (N, L, D), and a normalized_shape of two axes",
    _without(without=("tokens", "two axes")),
)
add(
    "mutant_hunt",
    "no-affine",
    "leaves weight and bias out: give both, with values unlike 1 and 0",
    _without(without=("affine",)),
)
add(
    "mutant_hunt",
    "lets-errors-through",
    "lets the candidate's own error through: a candidate that raises is wrong, so catch it and return False",
    _without(catches=False),
)
add(
    "mutant_hunt",
    "no-far-input",
    "tries no numbers far from zero, where a one-pass variance loses all its digits: add 1e4 to a float32 input",
    _without(without=("far",)),
)
add(
    "mutant_hunt",
    "no-small-spread",
    "tries no input whose spread is as small as the root of eps, and no eps but the default: that is where eps counts",
    _without(without=("eps", "constant")),
)
add(
    "mutant_hunt",
    "no-none",
    "gives weight and bias every time: each of them may be None by itself",
    _without(without=("None",)),
)
add(
    "mutant_hunt",
    "no-half-input",
    "tries no float16, in which a square overflows from 256 on",
    _without(without=("half",)),
)
add(
    "mutant_hunt",
    "no-look-at-the-input",
    "does not look whether its input is still what it was: keep a copy and compare",
    _without(manners=False),
)
add(
    "mutant_hunt",
    "no-look-at-the-dtype",
    "does not look at the dtype of the answer: it is that of the input",
    _without(dtypes=False),
)
add(
    "mutant_hunt",
    "too-loose",
    "allows errors that no rounding makes, and small mistakes pass: allow some thousand times the eps of the dtype",
    _without(loose=1e4),
)
