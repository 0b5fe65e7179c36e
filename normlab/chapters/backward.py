"""Why is my gradient zero? Truths, cases and known mistakes of the chapter `backward`."""

import numpy as np

from normlab import reference
from normlab.cases import LARGE, Case, affine, sizes, uneven, view
from normlab.drive import functions, given
from normlab.frame import Exercise, in_float64, mistakes_table, wide

MISTAKES, add = mistakes_table()

# Drawn once and for all, so that a function handed to a candidate is the same on every draw.
_MIX = np.array([[1.0, -0.5, 0.25], [0.5, 0.75, -1.0], [-0.25, 1.0, 0.5], [-1.0, 0.25, 0.75]])


# ---- the functions whose gradient is asked for -----------------------------------------------------------------------


@given
def bend(x):
    """Each element by itself."""
    return np.tanh(x) + x**2 / 4


@given
def normalized_rows(x):
    """Each row normalized: every output depends on the whole row."""
    deviation = x - x.mean(-1, keepdims=True)
    return deviation / np.sqrt((deviation * deviation).mean(-1, keepdims=True) + 0.1)


@given
def layer(x):
    """Four features in, three out."""
    return np.sin(x @ _MIX)


@given
def cube(x):
    return x**3


@given
def logarithm(x):
    return np.log(x)


@given
def log_sum(x):
    """A single number, such as a loss."""
    return np.log(np.exp(x).sum())


@given
def turned(x):
    """A view: it shares the memory of its argument."""
    return np.swapaxes(x, 0, -1)


# ---- truths ----------------------------------------------------------------------------------------------------------


def _quotient(f, x, dy, h, dtype=np.float64):
    """The central difference quotient in `dtype`; the two sums are taken apart, which rounds most of all right ways."""
    x, dy, h = np.asarray(x, dtype), np.asarray(dy, dtype), dtype(h)
    dx = np.empty(x.shape, dtype)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        dx[i] = ((f(up) * dy).sum() - (f(down) * dy).sum()) / (2 * h)
    return dx


def _rounding(f, x, dy, h):
    """By how many times its own size in eps rounding moves the quotient, as an array that the rule of tolerance sees.

    Two sums of terms f(x) * dy are subtracted and divided by 2h, and the steps to x + h and x - h are rounded as well:
    what the loss and x lose to rounding comes out divided by h. The factor 4 leaves room for any order of operations.
    """
    slope = np.abs(_quotient(f, x, dy, h)).max()
    terms = np.abs(f(np.asarray(x, np.float64)) * dy).sum()
    return np.asarray(4 * (terms / slope + np.abs(x).max()) / h)


def _numerical_gradient(f, x, dy, h, narrow=False, rounding=None):
    return _quotient(f, x, dy, h)


def _torch_numerical_gradient(torch, f, x, dy, h, narrow=False, rounding=None):
    # The exercise asks for the quotient at the step it names and not for its limit, so the derivative is not the truth.
    # It is the quotient in long double, which is free of rounding where long double is longer than double.
    return torch.from_numpy(_quotient(f, x.numpy(), dy.numpy(), h, np.longdouble).astype(np.float64))


def _numpy_backward(norm, bias):
    def truth(dy, x, weight, eps):
        gradients = reference.normalize_backward(dy, x, norm, weight, eps)
        return gradients if bias else gradients[:2]

    return truth


def _torch_backward(norm):
    def forward(torch, x, weight, bias, eps):
        functional = torch.nn.functional
        if norm == "batch":
            return functional.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
        if norm == "layer":
            return functional.layer_norm(x, x.shape[-1:], weight, bias, eps)
        return functional.rms_norm(x, x.shape[-1:], weight, eps)

    def truth(torch, dy, x, weight, eps):
        leaves = [x.clone(), weight.clone()] + ([] if norm == "rms" else [torch.zeros_like(weight)])
        with torch.enable_grad():
            for leaf in leaves:
                leaf.requires_grad_()
            y = forward(torch, *leaves[:2], leaves[2] if leaves[2:] else None, eps)
        return torch.autograd.grad(y, leaves, dy)

    return truth


_numpy_layer, _numpy_batch, _numpy_rms = (
    _numpy_backward("layer", True),
    _numpy_backward("batch", True),
    _numpy_backward("rms", False),
)
_torch_layer, _torch_batch, _torch_rms = (_torch_backward(norm) for norm in ("layer", "batch", "rms"))


# What a learner is to write, with its defaults.
def _layer(dy, x, weight, eps=1e-5):
    return _numpy_layer(dy, x, weight, eps)


def _batch(dy, x, weight, eps=1e-5):
    return _numpy_batch(dy, x, weight, eps)


def _rms(dy, x, weight, eps=1e-6):
    return _numpy_rms(dy, x, weight, eps)


def _with_default(truth, eps):
    def torch_truth(torch, dy, x, weight, eps=eps):
        return truth(torch, dy, x, weight, eps)

    return torch_truth


# ---- cases -----------------------------------------------------------------------------------------------------------


def _numerical_gradient_cases():
    def case(name, part, kind, f, h, draw_x, expect="", draw_dy=None, **kwargs):
        def draw(rng):
            x = draw_x(rng)
            with np.errstate(all="ignore"):
                shape = np.shape(f(x.astype(np.float64)))
            dy = np.asarray(rng.standard_normal(shape) + 0.5)
            return (f, x, dy, h), kwargs | {"rounding": _rounding(f, x, dy, h)}

        # A difference quotient divides rounding by h, so every case is one where rounding the input moves the answer.
        return Case(name, part, kind, draw, expect, far=True)

    def vector(rng):
        return rng.standard_normal(int(rng.integers(5, 9)))

    def table(rng):
        return uneven(rng, sizes(rng, 2, 3, 7))

    def rows_of_four(rng):
        return rng.standard_normal((int(rng.choice([2, 3, 5])), 4))

    def deep(rng):
        return uneven(rng, sizes(rng, 3, 2, 5))

    def strided(rng):
        return view(rng, sizes(rng, 2, 3, 6))

    def integers(rng):
        return rng.choice([-3, -2, -1, 1, 2, 3], int(rng.integers(5, 9)))

    def near_100(rng):
        return 100 + 5 * rng.standard_normal(int(rng.integers(5, 9)))

    def narrow(rng):
        return vector(rng).astype(np.float32).astype(np.float64)

    def one_row(rng):
        return rng.standard_normal((1, int(rng.integers(5, 9))))

    def large(rng):
        return rng.standard_normal(int(rng.integers(*LARGE)))

    every = "each element is moved by itself, up and down by h, and all outputs that move count"
    at_h = "the quotient is (L(x + h) - L(x - h)) / 2h at the h of the call, here a large one, with L = sum(f(x) * dy)"
    return (
        case("elementwise", "values", "a function of each element by itself, h = 1e-3", bend, 1e-3, vector),
        case("rows", "values", "a function that normalizes rows, h = 1e-3", normalized_rows, 1e-3, table, every),
        case("matrix", "values", "a function with outputs of another shape than x", layer, 1e-3, rows_of_four, every),
        case("large-step", "values", "a cubic with h = 0.25", cube, 0.25, vector, at_h),
        case("small-step", "numerics", "a function of each element, h = 1e-6", bend, 1e-6, vector),
        case(
            "integers",
            "numerics",
            "an x of integers",
            bend,
            1e-4,
            integers,
            "x is taken as float64 before anything is added to it",
        ),
        case(
            "float32",
            "numerics",
            "an x of float32, h = 1e-5",
            bend,
            1e-5,
            narrow,
            "x is taken as float64 before anything is added to it, and the answer is float64",
            narrow=True,
        ),
        case("near-100", "numerics", "a function of values near 100, h = 1e-3", logarithm, 1e-3, near_100),
        case("deep", "edges", "an x with three axes", normalized_rows, 1e-3, deep, every),
        case(
            "strided", "edges", "an x that is a view with strides, not contiguous in memory", bend, 1e-3, strided, every
        ),
        case(
            "a-view",
            "edges",
            "a function that returns a view of its argument",
            turned,
            1e-3,
            table,
            "f(x + h) is used up before the array it looks at is changed",
        ),
        case("loss", "edges", "a function that returns a single number", log_sum, 1e-3, table, every),
        case("one-row", "edges", "an x of a single row (1, D)", normalized_rows, 1e-3, one_row, every),
        case("large-array", "edges", "an x of dozens of elements", normalized_rows, 1e-3, large, every),
    )


_KEEPS_DTYPE = "all gradients keep the dtype of x"
_HALF = "sums and statistics are computed in float32 and the answers are float16"


def _call(rng, x, axis, eps=None):
    weight, _ = affine(rng, x.shape[axis], x.dtype)
    # Uneven, for what is even hides sums over the wrong axes; and leaning to one side and to that of x, so that dbias
    # and dweight are no small remainders of large sums.
    dy = uneven(rng, x.shape) + 1.0
    if x.size:
        wide = x.astype(np.float64)
        dy += np.nan_to_num((wide - np.nanmean(wide)) / np.nanstd(wide))
    dy = dy.astype(x.dtype)
    return (dy, x, weight), {} if eps is None else {"eps": eps}


def _drawn(axis, *shape, how=None, eps=None, change=None):
    def draw(rng):
        chosen = tuple(n if isinstance(n, int) else int(rng.integers(*n)) for n in shape)
        x = uneven(rng, chosen, **(how or {}))
        if change:
            change(x)
        return _call(rng, x, axis, eps)

    return draw


_NAN_SHOWS = "dx and dweight are NaN, as in PyTorch, so that the fault shows; dbias knows nothing of x"


def _spoil(x):
    x[..., 1] = np.nan  # in every pool: matrix products spread a NaN into pools that they multiply by 0


def _half_many(axis, shape):
    def draw(rng):
        x = rng.integers(-40, 41, shape) / 16
        weight, _ = affine(rng, x.shape[axis], np.float16)
        dy = rng.integers(-4, 13, shape) / 8
        return (dy.astype(np.float16), x.astype(np.float16), weight), {}

    return draw


def _half_wide(axis, shape):
    def draw(rng):
        x = rng.choice([-1, 1], shape) * rng.integers(260, 400, shape)
        return _call(rng, x.astype(np.float16), axis)

    return draw


def _strided(axis, *shape):
    def draw(rng):
        return _call(rng, view(rng, shape), axis)

    return draw


def _channels_last_cases(centered):
    def constant(x):
        x[1] = 2.5 if centered else 0.0

    def vector(rng):
        return _call(rng, uneven(rng, sizes(rng, 1, 4, 9)), -1)

    def empty(rng):
        return _call(rng, uneven(rng, (0, int(rng.integers(4, 12)))), -1)

    def one_feature(rng):
        return _call(rng, uneven(rng, (4, 1)), -1)

    own_eps = {"scale": 0.5}
    small = {"scale": 1e-3} if centered else {"scale": 3e-4}
    far = {"offset": 1e4, "dtype": np.float32}
    summed = "dweight and dbias add up" if centered else "dweight adds up"
    only_centred = (
        Case("far-float32", "numerics", "float32 values near 1e4", _drawn(-1, 6, (40, 56), how=far), far=True),
        Case("single", "edges", "vectors of one feature", one_feature, "each is its own mean: dx and dweight are 0"),
    )
    return (
        Case("rows", "values", "a batch of vectors (N, D)", _drawn(-1, (3, 6), 7)),
        Case("square", "values", "as many vectors as features", _drawn(-1, 5, 5)),
        Case("tokens", "values", "a batch of sequences (N, L, D)", _drawn(-1, 3, (4, 7), 8)),
        Case("own-eps", "values", "a call with an eps of its own", _drawn(-1, 5, 7, how=own_eps, eps=0.3)),
        Case("float32", "numerics", "a float32 batch", _drawn(-1, 4, (6, 9), how={"dtype": np.float32}), _KEEPS_DTYPE),
        Case(
            "small-std" if centered else "small",
            "numerics",
            "values so small that eps counts",
            _drawn(-1, 4, 7, how=small),
        ),
        Case(
            "constant" if centered else "zero",
            "numerics",
            "a batch with a constant vector in it" if centered else "a batch with a vector of zeros in it",
            _drawn(-1, 4, 6, change=constant),
            "without a spread x_hat is 0, and rstd is 1/sqrt(eps)",
            far=centered,
        ),
        Case(
            "half-wide",
            "numerics",
            "float16 values of a few hundred, whose squares overflow float16",
            _half_wide(-1, (4, 30)),
            _HALF,
        ),
        Case(
            "half-many",
            "numerics",
            "a long float16 batch",
            _half_many(-1, (3000, 6)),
            f"{summed} the rows in float32, and the answers are float16",
        ),
        Case("vector", "edges", "a single vector (D,)", vector, "there is nothing to sum: dweight is dy * x_hat"),
        Case("deep", "edges", "a 4-D array", _drawn(-1, 2, 3, (4, 6), 7), f"{summed} all axes but the last"),
        Case("strided", "edges", "a view with strides, not contiguous in memory", _strided(-1, 3, 4, 6)),
        Case("empty", "edges", "a batch of no vectors (0, D)", empty, "a sum of nothing is 0"),
        Case("nan", "edges", "a NaN in every pool of x", _drawn(-1, 4, 6, change=_spoil), _NAN_SHOWS),
        Case("large-array", "edges", "a larger batch (N, D)", _drawn(-1, LARGE, (91, 120))),
        *(only_centred if centered else ()),
    )


def _channels_first_cases():
    def constant(x):
        x[:, 1] = 2.5

    far = {"offset": 1e4, "dtype": np.float32}
    return (
        Case("table", "values", "a 2-D batch (N, C)", _drawn(1, (4, 9), 3)),
        Case("square", "values", "as many examples as channels", _drawn(1, 5, 5)),
        Case("images", "values", "a batch of images (N, C, H, W)", _drawn(1, 3, 5, (6, 8), 4)),
        Case("wide", "values", "images with C = W", _drawn(1, 3, 4, (5, 7), 4)),
        Case("own-eps", "values", "a call with an eps of its own", _drawn(1, 5, 3, 4, how={"scale": 0.5}, eps=0.3)),
        Case(
            "float32", "numerics", "a float32 batch", _drawn(1, 4, 3, (6, 9), how={"dtype": np.float32}), _KEEPS_DTYPE
        ),
        Case("small-std", "numerics", "values so small that eps counts", _drawn(1, 6, 3, 4, how={"scale": 1e-3})),
        Case(
            "constant",
            "numerics",
            "a batch with a constant channel in it",
            _drawn(1, 4, 3, 5, change=constant),
            "without a spread x_hat is 0, and rstd is 1/sqrt(eps)",
            far=True,
        ),
        Case("far-float32", "numerics", "float32 values near 1e4", _drawn(1, 8, 3, (5, 9), how=far), far=True),
        Case(
            "half-wide",
            "numerics",
            "float16 values of a few hundred, whose squares overflow float16",
            _half_wide(1, (6, 3, 5)),
            _HALF,
        ),
        Case(
            "half-many",
            "numerics",
            "a long float16 batch",
            _half_many(1, (3000, 3)),
            "statistics, dweight and dbias are summed in float32, and the answers are float16",
        ),
        Case("sequences", "edges", "a batch of sequences (N, C, L)", _drawn(1, 4, 3, (5, 9))),
        Case("nan", "edges", "a NaN in every pool of x", _drawn(1, 4, 3, 5, change=_spoil), _NAN_SHOWS),
        Case("volumes", "edges", "a batch of volumes (N, C, D, H, W)", _drawn(1, 2, 3, 2, (3, 5), 4)),
        Case("one-example", "edges", "a single image (1, C, H, W)", _drawn(1, 1, 3, (4, 7), 2)),
        Case("three", "edges", "three examples and no positions", _drawn(1, 3, (4, 7))),
        Case("one-channel", "edges", "a single channel", _drawn(1, (4, 8), 1, 3)),
        Case("strided", "edges", "a view with strides, not contiguous in memory", _strided(1, 4, 3, 5)),
        Case("large-array", "edges", "a larger batch (N, C, L)", _drawn(1, 3, 66, LARGE)),
    )


# ---- known mistakes: numerical_gradient ------------------------------------------------------------------------------


def _slopes(
    f,
    x,
    dy,
    h,
    up=1.0,
    down=1.0,
    over=None,
    step=lambda x, h: h,
    dtype=np.float64,
    weigh=True,
    keep=False,
    total=np.sum,
):
    """A right numerical_gradient with switches: the two steps in units of h, the divisor, the weights dy."""
    x = np.array(x, np.float64).astype(dtype)
    dx = np.zeros(x.shape)
    start = x.copy()
    for i in np.ndindex(x.shape):
        size = dtype(step(start[i], h))
        value = x[i]
        x[i] = value + dtype(up) * size
        above = f(x.copy())
        x[i] = value - dtype(down) * size
        below = f(x.copy())
        if not keep:
            x[i] = value
        change = total((above - below) * (dy.astype(dtype) if weigh else dtype(1)))
        dx[i] = change / ((up + down) * size if over is None else over(h))
    return dx


def _slopes_with(**switches):
    def wrong(f, x, dy, h):
        return _slopes(f, x, dy, h, **switches)

    return wrong


def _all_at_once(shaped):
    def wrong(f, x, dy, h):
        x = np.asarray(x, np.float64)
        slope = (f(x + h) - f(x - h)) * dy / (2 * h)
        return shaped(slope, x)

    return wrong


def _dy_outside(f, x, dy, h):
    return _slopes(f, x, dy, h, weigh=False) * dy


def _integer_steps(f, x, dy, h):
    if x.dtype.kind == "f":
        return _slopes(f, x, dy, h)
    dx = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += np.int64(h)  # what assigning up[i] + h to an array of integers keeps of h
        down[i] = int(down[i] - h)
        dx[i] = ((f(up) - f(down)) * dy).sum() / (2 * h)
    return dx


def _integer_both_ways(f, x, dy, h):
    if x.dtype.kind == "f":
        return _slopes(f, x, dy, h)
    return np.zeros(x.shape)


def _narrow_input(f, x, dy, h):
    return _slopes(f, x, dy, h, dtype=np.float32)


def _keeps_views(f, x, dy, h):
    x = np.array(x, np.float64)
    dx = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        value = x[i]
        x[i] = value + h
        above = f(x)
        x[i] = value - h
        below = f(x)
        x[i] = value
        dx[i] = ((above - below) * dy).sum() / (2 * h)
    return dx


def _moves_a_copy(f, x, dy, h):
    """reshape(-1) copies what is not contiguous, so that x itself never moves."""
    x = x.astype(np.float64) if x.dtype != np.float64 else x
    if x.flags.c_contiguous:
        return _slopes(f, x, dy, h)
    return np.zeros(x.shape)


def _rows_only(f, x, dy, h):
    x = np.asarray(x, np.float64)
    dx = np.zeros(x.shape)
    for i in range(len(x)):
        step = np.zeros(x.shape)
        step[i] = h
        dx[i] = ((f(x + step) - f(x - step)) * dy).sum() / (2 * h)
    return dx


def _columns_only(f, x, dy, h):
    x = np.asarray(x, np.float64)
    dx = np.zeros(x.shape)
    for i in range(x.shape[-1]):
        step = np.zeros(x.shape)
        step[..., i] = h
        dx[..., i] = ((f(x + step) - f(x - step)) * dy).sum() / (2 * h)
    return dx


def _in_place(restored):
    def wrong(f, x, dy, h):
        dx = np.zeros(x.shape)
        for i in np.ndindex(x.shape):
            x[i] += h
            above = (f(x) * dy).sum()
            x[i] -= 2 * h
            below = (f(x) * dy).sum()
            x[i] += h if restored else 0
            dx[i] = (above - below) / (2 * h)
        return dx

    def on_floats(f, x, dy, h):
        if x.dtype.kind != "f":  # adding a float to integers in place raises
            x[...] = x + 1
            return np.zeros(x.shape)
        return wrong(f, x, dy, h)

    return on_floats


def _five_points(f, x, dy, h):
    return (4 * _slopes(f, x, dy, h / 2) - _slopes(f, x, dy, h)) / 3


_NG = "numerical_gradient"
add(
    _NG,
    "forward-difference",
    "takes a one-sided difference, whose error shrinks only like h: step both ways, x + h and x - h",
    _slopes_with(down=0.0),
    _slopes_with(up=0.0),
)
add(
    _NG,
    "one-sided-over-2h",
    "steps one way and divides by 2h, which halves the gradient: the points x + h and x - h are 2h apart",
    _slopes_with(down=0.0, over=lambda h: 2 * h),
    _slopes_with(up=0.0, over=lambda h: 2 * h),
)
add(_NG, "divides-by-h", "divides by h: the points x + h and x - h are 2h apart", _slopes_with(over=lambda h: h))
add(
    _NG,
    "no-division",
    "returns a difference and no quotient: divide by 2h",
    _slopes_with(over=lambda h: 1.0),
    _slopes_with(over=lambda h: 2.0),
)
add(
    _NG,
    "multiplies-by-h",
    "multiplies by h where it is to divide: (above - below) / (2 * h), with the brackets",
    _slopes_with(over=lambda h: 2 / h),
)
add(
    _NG,
    "half-steps",
    "steps by h/2: the points are x + h and x - h, and 2h apart",
    _slopes_with(up=0.5, down=0.5),
)
add(
    _NG,
    "half-steps-over-2h",
    "steps by h/2 and divides by 2h: the points are x + h and x - h, and 2h apart",
    _slopes_with(up=0.5, down=0.5, over=lambda h: 2 * h),
)
add(
    _NG,
    "ignores-h",
    "ignores the h it is given: use the argument, not a constant",
    *(_slopes_with(step=lambda x, h, own=own: own) for own in (1e-5, 1e-4, 1e-6, 1e-3, 6e-6)),
)
add(
    _NG,
    "relative-step",
    "scales h by the size of x: the step is h for every element",
    _slopes_with(step=lambda x, h: h * max(1.0, abs(x))),
    _slopes_with(step=lambda x, h: h * abs(x)),
    _slopes_with(step=lambda x, h: h * (1.0 + abs(x))),
)
add(
    _NG,
    "wrong-sign",
    "has the sign turned round: what is above minus what is below",
    _slopes_with(over=lambda h: -2 * h),
)
add(
    _NG,
    "ignores-dy",
    "adds up the outputs without dy, which is the one direction in which a norm says nothing: sum(f(x) * dy)",
    _slopes_with(weigh=False),
)
add(
    _NG,
    "dy-outside",
    "multiplies by dy at the end, as if output i came from input i alone: dy belongs to the outputs, inside the sum",
    _dy_outside,
)
add(
    _NG,
    "averages-outputs",
    "averages over the outputs: L is the sum of f(x) * dy",
    _slopes_with(total=np.mean),
)
add(
    _NG,
    "all-at-once",
    "moves all elements at once and takes output i for the work of input i: move one element at a time",
    _all_at_once(lambda slope, x: slope),
    lambda f, x, dy, h: (f(x + h) - f(x - h)) / (2 * h),
)
add(
    _NG,
    "one-direction",
    "moves all elements at once, which measures one slope and not one for each element: move them one by one",
    _all_at_once(lambda slope, x: np.full(x.shape, slope.sum())),
    _all_at_once(lambda slope, x: slope.sum()),
)
add(
    _NG,
    "moves-rows",
    "moves a whole row or column at a time: every single element gets a slope, as with np.ndindex(x.shape)",
    _rows_only,
    _columns_only,
)
add(
    _NG,
    "does-not-restore",
    "leaves each element moved when it goes on to the next: put it back, or step on a fresh copy",
    _slopes_with(keep=True),
)
add(
    _NG,
    "mutates-input",
    "steps in the x it was given: step in a copy",
    _in_place(True),
    _in_place(False),
)
add(
    _NG,
    "integer-steps",
    "adds h to an array of integers, which rounds it away: take x as float64 first",
    _integer_steps,
    _integer_both_ways,
)
add(
    _NG,
    "narrow-arithmetic",
    "steps in float32, where rounding divided by h drowns the slope: take x as float64 first",
    _narrow_input,
    noisy=True,
)
add(
    _NG,
    "keeps-a-view",
    "keeps f(x + h) while it changes the array that f looked at, and f may return a view: sum first, or step on a copy",
    _keeps_views,
)
add(
    _NG,
    "moves-a-copy",
    "steps in x.reshape(-1) or x.ravel(), which is a copy where x is not contiguous, so that x itself never moves",
    _moves_a_copy,
    lambda f, x, dy, h: np.zeros(x.shape),
)
add(
    _NG,
    "extrapolates",
    "extrapolates to h = 0, which is clever and not asked for: the quotient at the given h",
    _five_points,
)


# ---- known mistakes: the backward of a norm, right but for its switches ----------------------------------------------


def _gradients(
    dy,
    x,
    weight,
    eps,
    pool,
    shared,
    lined_up,
    centered=True,
    ddof=0,
    root="under",
    fixed_eps=None,
    one_pass=False,
    dtypes=None,
    half_sums=False,
    weigh="first",
    off_mean=True,
    off_x_hat=True,
    off_x=False,
    sums="neither",
    other_side="x_hat",
    power=1,
    sign=1,
    dweight="dy * x_hat",
    dbias="dy",
    reduce=np.sum,
    keepdims=True,
    forward_mean=True,
):
    """dx, dweight, dbias. pool: the axes of the statistics; shared: those that share a weight; lined_up: the shape in
    which a weight meets x."""
    dtype = x.dtype
    dy, x = wide(dy, **(dtypes or {})), wide(x, **(dtypes or {}))
    w = weight.astype(x.dtype).reshape(lined_up)
    eps = x.dtype.type(eps if fixed_eps is None else fixed_eps)

    def mean(values, term):
        total = values.sum if sums in (term, "both") else values.mean
        return total(pool, keepdims=keepdims)

    average = x.mean(pool, keepdims=keepdims)
    deviation = x - average if forward_mean else x
    squared = x * x if one_pass else deviation * deviation
    var = squared.mean(pool, keepdims=keepdims) - (average * average if one_pass else 0)
    if ddof:
        count = int(np.prod([x.shape[a] for a in pool]))
        var = var * x.dtype.type(count / (count - ddof) if count > ddof else np.nan)
    rstd = {"under": 1 / np.sqrt(var + eps), "outside": 1 / (np.sqrt(var) + eps), "none": 1 / (var + eps)}[root]
    x_hat = deviation * rstd
    g = dy * w if weigh == "first" else dy
    inside = g - mean(g, "constants") if centered and off_mean else g
    if off_x_hat:
        along = {"x_hat": x_hat, "x": x, "deviation": deviation, "y": x_hat * w}[other_side]
        # "deviation * mean(g * deviation)" and the like forget that x_hat has rstd in it, twice.
        inside = inside - along * mean(g * along, "x_hat")
    dx = sign * inside * rstd**power
    if weigh == "last":
        dx = dx * w
    summand = {
        "dy * x_hat": dy * x_hat,
        "dy * x": dy * x,
        "dy * deviation": dy * deviation,
        "dy * w * x_hat": dy * w * x_hat,
        "dy * y": dy * x_hat * w,
        "dx * x": dx * x,
        "x_hat": x_hat,
    }[dweight]
    other = {"dy": dy, "dy * w": dy * w, "dx": dx}[dbias]
    if half_sums and dtype == np.float16:
        summand, other = summand.astype(np.float16), other.astype(np.float16)
    reduced = [reduce(values, axis=shared) if shared else values for values in (summand, other)]
    return tuple(values.astype(dtype) for values in (dx, *reduced))


def _last(dy, x, weight, eps, pool=(-1,), shared=None, **switches):
    rows = tuple(range(x.ndim - 1)) if shared is None else shared(x)
    return _gradients(dy, x, weight, eps, pool(x) if callable(pool) else pool, rows, weight.shape, **switches)


def layer_with(**switches):
    def wrong(dy, x, weight, eps=1e-5):
        return _last(dy, x, weight, eps, **switches)

    return wrong


def rms_with(**switches):
    def wrong(dy, x, weight, eps=1e-6):
        dx, dweight, _ = _last(dy, x, weight, eps, **{"centered": False, "forward_mean": False} | switches)
        return dx, dweight

    return wrong


def batch_with(pool=None, shared=None, last=False, **switches):
    def wrong(dy, x, weight, eps=1e-5):
        channels = (0, *range(2, x.ndim))
        lined_up = (1, -1) + (1,) * (x.ndim - 2)
        return _gradients(
            dy,
            x,
            weight,
            eps,
            pool(x) if pool else channels,
            shared(x) if shared else channels,
            weight.shape if last else lined_up,
            **switches,
        )

    return wrong


def _changed(right, change):
    def wrong(dy, x, *args, **kwargs):
        return change(dy, x, *right(dy, x, *args, **kwargs))

    return wrong


def _other_default(right, eps):
    def wrong(*args, **kwargs):
        return right(*args, **({"eps": eps} | kwargs))

    return wrong


def _mutating(right):
    def wrong(dy, x, weight, **kwargs):
        answer = right(dy, x, weight, **kwargs)
        dy[...] = dy * dy.dtype.type(2) + dy.dtype.type(1)
        return answer

    return wrong


def _mutating_x(right):
    def wrong(dy, x, weight, **kwargs):
        answer = right(dy, x, weight, **kwargs)
        x[...] = x - x.mean() + x.dtype.type(1)
        return answer

    return wrong


_DEFAULTS = (1e-5, 1e-6, 1e-8, 1e-12, 1e-3, 1e-7, 1e-10, 1e-4, float(np.finfo(np.float32).eps))

for _name, _make, _default in (
    ("layer_norm_backward", layer_with, 1e-5),
    ("batch_norm_backward", batch_with, 1e-5),
    ("rms_norm_backward", rms_with, 1e-6),
):
    _right, _rms_like = _make(), _make is rms_with
    _what = "the mean square" if _rms_like else "the variance"
    add(
        _name,
        "zeros",
        "returns zeros for dx, which a test with y.sum() would let pass: a random dy tells",
        _changed(_right, lambda dy, x, dx, *rest: (np.zeros_like(dx), *rest)),
    )
    add(
        _name,
        "detached-statistics",
        "takes rstd for a constant: it depends on x too, and that is the term x_hat * mean(g * x_hat)"
        if _rms_like
        else "takes mean and rstd for constants: they depend on x too, and give g - mean(g) - x_hat * mean(g * x_hat)",
        _make(off_mean=False, off_x_hat=False),
    )
    if not _rms_like:
        add(
            _name,
            "no-mean-term",
            "leaves mean(g) out of dx: the mean depends on x, so g is projected off the constants as well",
            _make(off_mean=False),
        )
        add(
            _name,
            "no-x-hat-term",
            "leaves x_hat * mean(g * x_hat) out of dx: rstd depends on x, so g is projected off x_hat as well",
            _make(off_x_hat=False),
        )
        add(
            _name,
            "divides-by-n-1",
            "divides by n-1: the forward pass uses the biased variance, and so does its gradient",
            _make(ddof=1),
        )
        add(
            _name,
            "n-1-and-eps-outside",
            "divides by (standard deviation over n-1) + eps: the variance is over n, and eps is under the root",
            _make(ddof=1, root="outside"),
        )
        add(
            _name,
            "one-pass-variance",
            "computes the variance as E[x^2] - E[x]^2, which cancels far from zero: subtract the mean first",
            _make(one_pass=True),
            noisy=True,
        )
        add(
            _name,
            "root-mean-square",
            "does not subtract the mean anywhere, which is the gradient of RMS norm: center x, and take mean(g) off g",
            _make(centered=False, forward_mean=False),
        )
        add(
            _name,
            "dbias-weighted",
            "multiplies dbias by the weight: the bias is added after it, so dbias is the sum of dy",
            _make(dbias="dy * w"),
        )
        add(
            _name,
            "dbias-from-dx",
            "sums dx for dbias: the bias is added at the end, so dbias is the sum of dy",
            _make(dbias="dx"),
        )
        add(
            _name,
            "swapped",
            "returns dbias before dweight: the order is dx, dweight, dbias",
            _changed(_right, lambda dy, x, dx, dweight, dbias: (dx, dbias, dweight)),
        )
    else:
        add(
            _name,
            "centers",
            "takes mean(g) off as layer norm does: RMS norm subtracts no mean, so dx is only projected off x_hat",
            _make(centered=True),
            _make(centered=True, forward_mean=True),
        )
    add(
        _name,
        "weight-dropped",
        "leaves the weight out of dx: the gradient reaches x_hat through it, so begin with g = dy * weight",
        _make(weigh="never"),
    )
    if _make is not batch_with:  # for batch norm the weight is constant in a pool, so it may come last
        add(
            _name,
            "weight-after",
            "multiplies by the weight after projecting: it belongs to dy, before the means are taken, g = dy * weight",
            _make(weigh="last"),
        )
    add(
        _name,
        "dweight-from-x",
        "sums dy * x for dweight: the weight multiplies x_hat, so it is the sum of dy * x_hat",
        _make(dweight="dy * x"),
        *([] if _rms_like else [_make(dweight="dy * deviation")]),
    )
    add(
        _name,
        "dweight-weighted",
        "multiplies dweight by the weight: it is the sum of dy * x_hat, with dy as it came",
        _make(dweight="dy * w * x_hat"),
    )
    add(
        _name,
        "dweight-without-dy",
        "sums x_hat for dweight: each is multiplied by its own dy first",
        _make(dweight="x_hat"),
    )
    add(
        _name,
        "averaged",
        "averages over what shares a weight: its gradient is the sum",
        _make(reduce=np.mean),
    )
    add(
        _name,
        "unreduced",
        "does not sum dweight over what shares it: a weight that is used many times gets the sum of all its gradients",
        _make(shared=lambda x: ()),
        *(
            [_make(shared=lambda x: (0,))]
            if _make is batch_with
            else [_make(shared=lambda x: (0,)[: x.ndim - 1]), _make(shared=lambda x: (0,))]
        ),
    )
    add(
        _name,
        "sums-for-means",
        "subtracts sums where means belong: in a pool of n values each of them is divided by n",
        _make(sums="both"),
        *([] if _rms_like else [_make(sums="constants"), _make(sums="x_hat")]),
    )
    add(
        _name,
        "rstd-missing",
        "leaves rstd out of dx: what is projected is then divided by the root, as x was",
        _make(power=0),
    )
    add(
        _name,
        "rstd-squared",
        "has rstd in dx once too often: the projection is multiplied by it once",
        _make(power=2),
        _make(power=3),
    )
    add(
        _name,
        "multiplies-by-std",
        "divides dx by rstd: rstd is 1 over the root already, so multiply",
        _make(power=-1),
    )
    add(
        _name,
        "projects-off-x",
        "uses x where x_hat belongs in dx: project off x_hat, x_hat * mean(g * x_hat)",
        _make(other_side="x"),
        *([] if _rms_like else [_make(other_side="deviation")]),
    )
    add(
        _name,
        "x-for-x-hat",
        "uses x where x_hat belongs, in dx and in dweight: x_hat is x after the norm",
        _make(other_side="x", dweight="dy * x"),
        *([] if _rms_like else [_make(other_side="deviation", dweight="dy * deviation")]),
    )
    add(
        _name,
        "projects-off-y",
        "uses the output, with the weight in it, where x_hat belongs in dx: x_hat * mean(g * x_hat)",
        _make(other_side="y"),
    )
    add(_name, "wrong-sign", "has the sign of dx turned round: it is rstd times the projection", _make(sign=-1))
    add(
        _name,
        "eps-outside-root",
        f"adds eps outside the root: rstd is 1/sqrt({_what[4:]} + eps)",
        _make(root="outside"),
    )
    add(
        _name,
        "no-eps",
        f"leaves eps out: it is added to {_what}, as in the forward pass",
        _make(fixed_eps=0.0),
    )
    add(
        _name,
        "ignores-eps",
        "ignores the eps it is given: use the argument, not a constant",
        _make(fixed_eps=_default),
    )
    add(
        _name,
        "wrong-default-eps",
        f"has another default eps: it is {'1e-6' if _rms_like else '1e-5'}",
        *(_other_default(_right, eps) for eps in _DEFAULTS if eps != _default),
    )
    add(_name, "no-root", f"divides by {_what} itself: take its square root", _make(root="none"))
    add(
        _name,
        "nan-to-num",
        "replaces NaN by numbers: a NaN that comes in is a fault, and is to show",
        _changed(_right, lambda dy, x, *parts: tuple(np.nan_to_num(part) for part in parts)),
        lambda dy, x, *args, right=_right, **kwargs: right(dy, np.nan_to_num(x), *args, **kwargs),
    )
    add(
        _name,
        "half-statistics",
        "computes in float16: squares overflow and sums lose their digits, so compute in float32 and cast at the end",
        _make(dtypes={"half": True}),
        noisy=True,
    )
    add(
        _name,
        "half-sums",
        "rounds to float16 before it sums, and long sums lose their digits: sum in float32 and cast once at the end",
        _make(half_sums=True),
        noisy=True,
    )
    add(
        _name,
        "float32-arithmetic",
        "computes float64 input in float32: keep the arithmetic as wide as the input",
        _make(dtypes={"narrow": True}),
        noisy=True,
    )
    add(
        _name,
        "always-float64",
        "returns float64 always: the gradients keep the dtype of x",
        in_float64(_right),
    )
    add(_name, "mutates-input", "changes what it was given: work on copies", _mutating(_right), _mutating_x(_right))

for _name, _make in (("layer_norm_backward", layer_with), ("rms_norm_backward", rms_with)):
    add(
        _name,
        "pools-the-batch",
        "takes means over the batch: each row has its own, along the last axis",
        _make(pool=(0,)),
        _make(pool=lambda x: tuple(range(max(x.ndim - 1, 1)))),
    )
    add(
        _name,
        "pools-everything",
        "takes one mean over everything: each row has its own, along the last axis",
        _make(pool=lambda x: tuple(range(x.ndim))),
    )
    add(
        _name,
        "no-keepdims",
        "drops the axis of its means, so that they line up with the wrong one (a square input hides it): keepdims=True",
        _make(keepdims=False),
    )

for _slug, _sentence, _pool in (
    (
        "pools-examples",
        "takes means over the examples alone: a channel's run over the positions as well",
        lambda x: (0,),
    ),
    (
        "pools-positions",
        "takes means over the positions of each example alone: a channel's run over the examples as well",
        lambda x: tuple(range(2, x.ndim)) or (0,),
    ),
    (
        "pools-last-axis",
        "takes means along the last axis, as layer norm does: a channel's run over examples and positions",
        lambda x: (-1,),
    ),
    (
        "pools-everything",
        "takes one mean over everything: each channel has its own, over examples and positions",
        lambda x: tuple(range(x.ndim)),
    ),
):
    add("batch_norm_backward", _slug, _sentence, batch_with(pool=_pool))
add(
    "batch_norm_backward",
    "two-ranks-alone",
    "knows tables and images alone: positions may have one axis or three as well, so pool (0, *range(2, x.ndim))",
    *(
        batch_with(pool=pool, shared=pool)
        for pool in (
            lambda x: (0, 2, 3) if x.ndim == 4 else (0,),
            lambda x: (0,) if x.ndim == 2 else (0, 2, 3),
            lambda x: (0, 2, 3),
        )
    ),
)
add(
    "batch_norm_backward",
    "weight-on-last-axis",
    "lines the weight up with the last axis: give it the shape (1, C, 1, ...) (an input with C = W hides this)",
    batch_with(last=True),
)


# ---- the exercises ---------------------------------------------------------------------------------------------------

_ALL = (("dx", "array"), ("dweight", "array"), ("dbias", "array"))

EXERCISES = (
    Exercise(
        name="numerical_gradient",
        stem="backward",
        expect="the slope of sum(f(x) * dy) for each element is (L(x + h) - L(x - h)) / 2h",
        signature_of=lambda f, x, dy, h: None,
        torch_truth=_torch_numerical_gradient,
        numpy_truth=_numerical_gradient,
        cases=_numerical_gradient_cases(),
        drive=functions.numerical_gradient,
    ),
    Exercise(
        name="layer_norm_backward",
        stem="backward",
        expect="dx is rstd * (g - mean(g) - x_hat * mean(g * x_hat)), g = dy * weight; dweight and dbias sum over rows",
        signature_of=_layer,
        torch_truth=_with_default(_torch_layer, 1e-5),
        numpy_truth=_layer,
        cases=_channels_last_cases(centered=True),
        core=True,
        returns=_ALL,
    ),
    Exercise(
        name="batch_norm_backward",
        stem="backward",
        expect="dx is rstd * (g - mean(g) - x_hat * mean(g * x_hat)), g = dy * weight; all sums run over a channel",
        signature_of=_batch,
        torch_truth=_with_default(_torch_batch, 1e-5),
        numpy_truth=_batch,
        cases=_channels_first_cases(),
        returns=_ALL,
    ),
    Exercise(
        name="rms_norm_backward",
        stem="backward",
        expect="dx is rstd * (g - x_hat * mean(g * x_hat)), g = dy * weight; dweight is a sum over rows",
        signature_of=_rms,
        torch_truth=_with_default(_torch_rms, 1e-6),
        numpy_truth=_rms,
        cases=_channels_last_cases(centered=False),
        returns=_ALL[:2],
    ),
)
