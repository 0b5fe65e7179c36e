"""The kernels' numbers: every norm, softmax and cross entropy, forward and backward, in every dtype, on hostile inputs
and memory layouts, against the formulas in float64; exp and half precision; the same bits on every run."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as T
from hypothesis import given, settings
from hypothesis import strategies as st

import normlab.functional as F
from normlab import cases, cpu, jit, reference
from normlab.axes import NORMS

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))

OPS = {
    "batch": lambda lib, x, weight, bias: lib.batch_norm(x, None, None, weight, bias, training=True),
    "layer": lambda lib, x, weight, bias: lib.layer_norm(x, x.shape[-1:], weight, bias),
    "instance": lambda lib, x, weight, bias: lib.instance_norm(x, weight=weight, bias=bias),
    "group": lambda lib, x, weight, bias: lib.group_norm(x, groups(x), weight, bias),
    "rms": lambda lib, x, weight, bias: lib.rms_norm(x, x.shape[-1:], weight, 1e-5),
    "softmax": lambda lib, x, weight, bias: lib.softmax(x, -1),
    "log_softmax": lambda lib, x, weight, bias: lib.log_softmax(x, -1),
    "softmax of columns": lambda lib, x, weight, bias: lib.softmax(x, 0),
    "log_softmax of columns": lambda lib, x, weight, bias: lib.log_softmax(x, 0),
    "cross_entropy": lambda lib, x, weight, bias: lib.cross_entropy(x, targets(x), label_smoothing=0.1),
}


def groups(x):
    return 3 if x.shape[1] % 3 == 0 else 1


def targets(x):
    """A class for each example and position of logits x, every fifth ignored."""
    shape = (x.shape[0], *x.shape[2:])
    t = torch.arange(shape.numel() if isinstance(shape, torch.Size) else int(np.prod(shape))) * 7 % x.shape[1]
    t[4::5] = -100
    return t.reshape(shape)


def channels(op, x):
    last = op not in NORMS or NORMS[op].channels == "last"
    return x.shape[-1] if last else x.shape[1]


def seeded(*names):
    return cases.generator("kernels", " ".join(map(str, names)), b"tests")


def tensor(values, dtype):
    return torch.tensor(np.ascontiguousarray(values)).to(dtype)


def numbers(t, dtype=np.float64):
    """What is stored in t, widened (exactly) or rounded to `dtype`."""
    return t.detach().double().numpy().astype(dtype)


def precisions(x):
    """The precision of the truth about x, and that of the plain formula, which is what the kernels compute in."""
    return (np.longdouble, np.float64) if x.dtype == torch.float64 else (np.float64, np.float32)


def allowed(truth, plain, dtype, rounded=None, magnitude=0.0):
    if dtype != torch.bfloat16:
        return cases.tolerance(truth, plain, np.dtype(str(dtype).removeprefix("torch.")), rounded, magnitude)
    # NumPy has no bfloat16. Its arithmetic here is float32's, and so is its range: what differs is the last roundings.
    info, scale = torch.finfo(dtype), np.abs(truth)[np.isfinite(truth)].max(initial=0.0)
    return cases.tolerance(truth, plain, np.float32, rounded, magnitude) + 4 * info.eps * scale + info.tiny * info.eps


def close(ours, truth, plain, *far):
    """NaN and infinities where the truth has them, and the rest within the tolerance rule."""
    found, finite = numbers(ours), np.isfinite(truth)
    assert found.shape == truth.shape
    np.testing.assert_array_equal(found[~finite], truth[~finite])
    np.testing.assert_allclose(found[finite], truth[finite], rtol=0, atol=allowed(truth, plain, ours.dtype, *far))


def both_directions(lib, op, x, weight, bias, dy):
    """[y, dx, dweight, dbias] of one of OPS; None where there is none."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in (x, weight, bias)]
    y = OPS[op](lib, *leaves)
    y.backward(dy)
    return [y.detach(), *(None if leaf is None else leaf.grad for leaf in leaves)]


def norm_inputs(norm, values, dtype, rng):
    """x, weight, bias and a cotangent, stored in dtype."""
    x = tensor(values, dtype)
    weight, bias = (tensor(a, dtype) for a in cases.affine(rng, channels(norm, x)))
    return x, weight, None if norm == "rms" else bias, tensor(rng.normal(size=x.shape), dtype)


def formulas(norm, x, weight, bias, dy, dtype, moved=0):
    """[y, dx, dweight, dbias] by the reference, computed in `dtype`, with x moved by the fraction `moved`."""
    x, weight, dy = (numbers(t, dtype) for t in (x, weight, dy))
    x = x * (1 + np.asarray(moved, dtype))
    bias = None if bias is None else numbers(bias, dtype)
    how = {"num_groups": groups(x)} if norm == "group" else {}
    y = reference.normalize(x, norm, weight, bias, **how)
    return [y, *reference.normalize_backward(dy, x, norm, weight, **how)]


def norm_is_close(norm, x, weight, bias, dy, is_far=False):
    inputs = x, weight, bias, dy
    ours = both_directions(F, norm, *inputs)
    exact, arithmetic = precisions(x)
    truth, plain, far = formulas(norm, *inputs, exact), formulas(norm, *inputs, arithmetic), [()] * 4
    if is_far:
        signs = np.random.default_rng(0).choice([-0.5, 0.5], x.shape)
        rounded = formulas(norm, *inputs, exact, moved=signs * np.finfo(arithmetic).eps)
        far = [(one, float(x.abs().max())) for one in rounded]
    for found, right, yardstick, more in zip(ours, truth, plain, far, strict=True):
        if found is not None:
            assert found.dtype == x.dtype
            close(found, right, yardstick, *more)


# ---- The five norms --------------------------------------------------------------------------------------------------


@dataclass
class Hostile:
    """`first` and `last`: the shape for norms whose channels stand first and last; values(rng, shape) fills it."""

    first: tuple
    last: tuple
    values: Callable = cases.uneven


def constant(value):
    return lambda rng, shape: np.full(shape, value)


def far(rng, shape):
    return cases.uneven(rng, shape, offset=1e4)


def tiny(rng, shape):
    return cases.uneven(rng, shape, scale=1e-3)


def hundreds(rng, shape):
    """Numbers whose squares overflow float16."""
    return rng.choice([-1.0, 1.0], shape) * rng.integers(260, 400, shape)


HOSTILE = {
    "normal": Hostile((3, 6, 5, 7), (4, 5, 24)),
    "offset 1e4": Hostile((3, 6, 5, 7), (4, 5, 24), far),
    "offset 1e4, past one block": Hostile((3, 6, 5003), (3, 5003), far),
    "scale 1e-3": Hostile((3, 6, 5, 7), (4, 5, 24), tiny),
    "constant": Hostile((3, 6, 5, 7), (4, 5, 24), constant(2.5)),
    "constant 1e4/3": Hostile((3, 6, 5, 7), (4, 5, 24), constant(1e4 / 3)),
    "zero": Hostile((3, 6, 5, 7), (4, 5, 24), constant(0.0)),
    "around 300": Hostile((3, 6, 5, 7), (4, 5, 24), hundreds),
    "one example": Hostile((1, 6, 5, 7), (24,)),
    "two numbers a pool": Hostile((1, 3, 2), (5, 2)),
    "prime sizes": Hostile((7, 13, 11, 3), (17, 19, 101)),
    "many rows": Hostile((997, 6, 3, 2), (3001, 24)),
    "wide": Hostile((2, 6, 5003), (3, 50257)),
    "one channel": Hostile((5, 1, 4801), (4801,)),
}


@every_dtype
@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("norm", NORMS)
def test_norms(norm, case, dtype):
    hostile, rng = HOSTILE[case], seeded(norm, case)
    shape = hostile.first if NORMS[norm].channels == "first" else hostile.last
    # A mean of float64 is itself rounded; that of a narrower type comes from wider sums, and a constant comes out as 0.
    is_far = hostile.values is far or (dtype == torch.float64 and case == "constant 1e4/3")
    norm_is_close(norm, *norm_inputs(norm, hostile.values(rng, shape), dtype, rng), is_far)


@every_dtype
@pytest.mark.parametrize(("norm", "shape"), [("layer", (5, 1)), ("group", (4, 3)), ("group", (4, 3, 1))])
def test_a_number_alone_in_its_pool_comes_out_as_the_bias(norm, shape, dtype):
    rng = seeded(norm, shape)
    x, weight, bias, dy = norm_inputs(norm, cases.uneven(rng, shape), dtype, rng)
    y, dx, dweight, dbias = both_directions(F, norm, x, weight, bias, dy)
    assert torch.equal(y, bias.reshape(1, -1, *[1] * (x.dim() - 2)).expand(x.shape))
    assert not dweight.any()
    # g less its mean, which is g: what is left is one rounding of g, magnified by 1 / sqrt(eps).
    g = (dy.abs().max() * weight.abs().max()).double()
    assert dx.abs().max() <= 2 * np.finfo(precisions(x)[1]).eps * g / 1e-5**0.5
    per_channel = numbers(dy).reshape(x.shape[0], x.shape[1]).sum(0)
    close(dbias, per_channel, per_channel)


@every_dtype
def test_rms_norm_of_one_number(dtype):
    rng = seeded("rms of one")
    norm_is_close("rms", *norm_inputs("rms", cases.uneven(rng, (5, 1)), dtype, rng))


@every_dtype
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("norm", NORMS)
def test_norms_of_what_is_not_finite(norm, value, dtype):
    rng = seeded(norm, value)
    shape = (3, 6, 5, 7) if NORMS[norm].channels == "first" else (4, 5, 24)
    x, *rest = norm_inputs(norm, cases.uneven(rng, shape), dtype, rng)
    x[1, 2, 3] = value
    ours = both_directions(F, norm, x, *rest)
    theirs = both_directions(T, norm, *(None if t is None else t.float() for t in (x, *rest)))
    for found, right in zip(ours, theirs, strict=True):
        if found is not None:
            np.testing.assert_array_equal(found.isnan(), right.isnan())
            np.testing.assert_array_equal(found.isinf(), right.isinf())


@pytest.mark.parametrize("norm", NORMS)
def test_norms_of_huge_numbers_stay_finite(norm):
    """The square of 1e30 is no float32, so the variance is infinite and y is the bias."""
    rng = seeded(norm, "huge")
    shape = (3, 6, 5, 7) if NORMS[norm].channels == "first" else (4, 5, 24)
    x, weight, bias, _ = norm_inputs(norm, cases.uneven(rng, shape, scale=1e30), torch.float32, rng)
    assert OPS[norm](F, x, weight, bias).isfinite().all()


@pytest.mark.parametrize("shape", [(2, 6, 5003), (2500, 6)], ids=["rows", "columns"])
def test_statistics_far_from_zero(shape):
    """The mean is rounded hardly more than once, and the variance loses nothing to the distance from zero."""
    rng = seeded("statistics", shape)
    x = tensor(rng.normal(size=shape) + 1e4, torch.float32)
    mean, variance = torch.zeros(6), torch.zeros(6)
    F.batch_norm(x, mean, variance, training=True, momentum=1.0)
    truth = numbers(x.transpose(0, 1).reshape(6, -1))
    assert np.abs(numbers(mean) - truth.mean(1)).max() <= 0.75 * np.spacing(np.float32(1e4))
    np.testing.assert_allclose(numbers(variance), truth.var(1, ddof=1), rtol=2e-6)


# ---- Memory layouts --------------------------------------------------------------------------------------------------


def sliced(x):
    """Every second element of a larger tensor, NaN in between."""
    every_second = tuple(slice(None, None, 2) for _ in x.shape)
    base = x.new_full([2 * n for n in x.shape], np.nan)
    base[every_second] = x
    return base[every_second]


LAYOUTS = {
    "contiguous": lambda x: x,
    "not aligned": lambda x: x.new_empty(x.numel() + 1)[1:].view(x.shape).copy_(x),
    "transposed": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "sliced": sliced,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "channels last 3d": lambda x: x[:, :, None].contiguous(memory_format=torch.channels_last_3d),
}


@every_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("norm", NORMS)
def test_norms_in_every_layout(norm, layout, dtype):
    rng = seeded(norm, layout)
    x, weight, bias, dy = norm_inputs(norm, cases.uneven(rng, (3, 6, 5, 7)), dtype, rng)
    x = LAYOUTS[layout](x)
    for layout_of_dy in (LAYOUTS["contiguous"], LAYOUTS["transposed"], LAYOUTS[layout]):
        norm_is_close(norm, x, weight, bias, layout_of_dy(dy).reshape(x.shape))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmaxes_in_every_layout(name, axis, layout):
    rng = seeded(name, axis, layout)
    x, dy = (LAYOUTS[layout](tensor(cases.uneven(rng, (3, 6, 5, 7)), torch.float32)) for _ in range(2))
    softmax_is_close(name, x, axis, dy)


# ---- Softmax, log-softmax, cross entropy -----------------------------------------------------------------------------


def softmax_is_close(name, x, axis, dy):
    x = x.detach().requires_grad_()
    y = getattr(F, name)(x, axis)
    y.backward(dy)
    right = []
    for precision in precisions(x):
        forward = getattr(reference, name)(numbers(x, precision), axis)
        right.append((forward, getattr(reference, f"{name}_backward")(numbers(dy, precision), forward, axis)))
    for found, truth, plain in zip((y, x.grad), *right, strict=True):
        assert found.dtype == x.dtype
        close(found, truth, plain)


def masked(rng, shape):
    """Half of the numbers is -inf, as attention masks have it, but no whole slice along any axis."""
    x = cases.uneven(rng, shape)
    index = np.indices(shape).sum(0)
    x[index % 2 == 1] = -np.inf
    return x


LOGITS = {
    "normal": ((4, 5, 24), cases.uneven),
    "offset 1e4": ((4, 5, 24), far),
    "scale 1e-3": ((4, 5, 24), tiny),
    "spread over hundreds": ((4, 5, 24), hundreds),
    "constant": ((4, 5, 24), constant(1e4 / 3)),
    "masked": ((4, 5, 24), masked),
    "one number": ((1, 1, 1), cases.uneven),
    "prime sizes": ((7, 13, 101), cases.uneven),
    "many rows": ((1501, 2, 3), cases.uneven),
    "wide": ((2, 3, 5003), cases.uneven),
    "as many as words": ((2, 1, 50257), cases.uneven),
}


@every_dtype
@pytest.mark.parametrize("case", LOGITS)
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmaxes(name, axis, case, dtype):
    (shape, values), rng = LOGITS[case], seeded(name, axis, case)
    softmax_is_close(name, tensor(values(rng, shape), dtype), axis, tensor(rng.normal(size=shape), dtype))


@every_dtype
@pytest.mark.parametrize(
    "values", [(np.nan,), (np.inf,), (-np.inf,), (np.inf, -np.inf), (np.inf, np.inf), (-np.inf,) * 6]
)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmaxes_of_what_is_not_finite(name, axis, values, dtype):
    """The slice with these values in it; six of them are all of it."""
    x = torch.linspace(-2, 2, 36).reshape(6, 6)
    x.select(1 - axis, 3)[: len(values)] = torch.tensor(values)
    dy = torch.linspace(1, -0.5, 36).reshape(6, 6)
    ours = both_directions(F, name if axis else f"{name} of columns", x.to(dtype), None, None, dy.to(dtype))
    theirs = both_directions(T, name if axis else f"{name} of columns", x, None, None, dy)
    for found, right in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(found.float(), right, rtol=0.02, atol=0.02, equal_nan=True)


@every_dtype
@pytest.mark.parametrize("case", LOGITS)
def test_cross_entropy(case, dtype):
    """Both ways that classes may stand: side by side, and before the positions."""
    (shape, values), rng = LOGITS[case], seeded("cross_entropy", case)
    values = values(rng, shape)
    side_by_side = tensor(values, dtype).reshape(-1, shape[-1])
    for x, rows in ((side_by_side, lambda a: a), (tensor(values, dtype), by_class)):
        x = x.requires_grad_()
        classes = x.shape[1]
        t = targets(x)
        t.view(-1)[0] = 0
        factor = float(rng.uniform(1, 2))
        loss = F.cross_entropy(x, t)
        (loss * factor).backward()
        truth, plain = [], []
        for precision, right in zip(precisions(x), (truth, plain), strict=True):
            logits, index = rows(numbers(x, precision)), t.reshape(-1).numpy()
            right.append(reference.cross_entropy(logits, index))
            right.append(reference.cross_entropy_backward(logits, index) * precision(factor))
        assert loss.dtype == x.grad.dtype == dtype
        close(loss, np.asarray(truth[0]), plain[0])
        close(tensor(rows(numbers(x.grad)), dtype).reshape(-1, classes), truth[1], plain[1])


def by_class(a):
    """(N, K, positions) as (N * positions, K)."""
    return np.moveaxis(a, 1, -1).reshape(-1, a.shape[1])


@every_dtype
@pytest.mark.parametrize("values", [(np.nan,), (np.inf,), (-np.inf,), (-np.inf,) * 6])
@pytest.mark.parametrize("positions", [False, True])
def test_cross_entropy_of_what_is_not_finite(positions, values, dtype):
    x = torch.linspace(-2, 2, 36).reshape(6, 6)
    x[3, : len(values)] = torch.tensor(values)
    target = torch.tensor([0, 1, 2, 0, 4, -100])
    if positions:
        x, target = x.T[None], target[None]
    found = []
    for lib, kind in ((F, dtype), (T, torch.float32)):
        for reduction in ("none", "mean"):
            leaf = x.to(kind, copy=True).requires_grad_()
            loss = lib.cross_entropy(leaf, target, reduction=reduction)
            loss.sum().backward()
            found += [loss.detach().float(), leaf.grad.float()]
    for ours, theirs in zip(found[:4], found[4:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02, equal_nan=True)


@every_dtype
@pytest.mark.parametrize("positions", [False, True])
def test_the_gradient_where_a_target_is_ignored(positions, dtype):
    """0, and as in PyTorch NaN where NaN or infinity stand, or nothing but -infinity."""
    x = torch.linspace(-2, 2, 36).reshape(6, 6).to(dtype)
    x = torch.cat((x, x[:2]))
    x[2], x[3, 1], x[4, 5], x[6, 2] = -np.inf, np.nan, np.inf, -np.inf
    target = torch.tensor([0, 1, -100, -100, -100, 5, -100, -100])
    if positions:
        x, target = x.T[None], target[None]
    x.requires_grad_()
    F.cross_entropy(x, target, label_smoothing=0.1).backward()
    gradient = x.grad[0].T if positions else x.grad
    assert gradient[2:5].isnan().all()
    assert not gradient[6:].any()
    assert gradient[[0, 1, 5]].all()
    (theirs,) = torch.autograd.grad(torch.nn.functional.cross_entropy(x, target, label_smoothing=0.1), x)
    assert torch.equal(theirs.isnan(), x.grad.isnan())


# ---- Threads ---------------------------------------------------------------------------------------------------------

# Every loop of cpu.py, over enough numbers for five threads.
LOOPS = {
    "rows": ("layer", (700, 257), None),
    "rows of channels": ("group", (5, 6, 75, 75), None),
    "channels": ("batch", (4, 13, 61, 61), None),
    "fewer channels than threads": ("batch", (9, 2, 101, 101), None),
    "columns": ("batch", (2503, 67), None),
    "columns of an image": ("batch", (3, 13, 67, 67), torch.channels_last),
    "softmax": ("softmax", (700, 257), None),
    "log_softmax": ("log_softmax", (700, 257), None),
    "softmax of columns": ("softmax of columns", (3, 60000), None),
    "log_softmax of columns": ("log_softmax of columns", (3, 60000), None),
    "cross_entropy": ("cross_entropy", (1285, 257), None),  # targets come round after 1285, or 65
    "cross_entropy of positions": ("cross_entropy", (5, 13, 52, 52), None),
    "more threads than rows": ("layer", (2, 100_003), None),
    "more threads than tiles": ("softmax of columns", (1000, 200), None),
}
every_loop = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture
def set_threads():
    """torch.set_num_threads, undone afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def loop_inputs(loop, dtype=torch.float32):
    op, shape, memory_format = LOOPS[loop]
    rng = seeded(loop)
    x, weight, bias, dy = norm_inputs(op, cases.uneven(rng, shape), dtype, rng)
    if memory_format:
        x = x.contiguous(memory_format=memory_format)
    return op, x, weight, bias, dy if op != "cross_entropy" else torch.tensor(1.5, dtype=dtype)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@every_loop
def test_any_number_of_threads(loop, threads, set_threads):
    op, *inputs = loop_inputs(loop)
    set_threads(threads)
    ours = both_directions(F, op, *inputs)
    truth = both_directions(T, op, *(None if t is None else t.double() for t in inputs))
    plain = both_directions(T, op, *inputs)
    for found, right, yardstick in zip(ours, truth, plain, strict=True):
        if right is not None:
            close(found, numbers(right), numbers(yardstick))


PAST_CACHE = [(loop, torch.float32) for loop in LOOPS] + [(loop, torch.bfloat16) for loop in ("rows", "softmax")]


@pytest.mark.parametrize(("loop", "dtype"), PAST_CACHE, ids=str)
def test_results_larger_than_the_cache(loop, dtype):
    """They are stored on a way of their own. The same examples again and again have the same statistics."""
    op, x, weight, bias, dy = loop_inputs(loop, dtype)
    axis = 1 if op.endswith("of columns") else 0
    times = jit.PAST_CACHE // x.nbytes + 1

    def repeated(t):
        return torch.cat([t] * times, axis)

    few = both_directions(F, op, x, weight, bias, dy)
    many = both_directions(F, op, repeated(x), weight, bias, repeated(dy) if dy.dim() else dy * times)
    pools_them_all = op in ("batch", "cross_entropy")
    for once, often in zip(few[:2], many[:2], strict=True):
        again = repeated(once) if once.dim() else once  # a loss is one number
        assert again.stride() == often.stride()
        if pools_them_all:
            assert (again - often).abs().max() <= 16 * torch.finfo(dtype).eps * once.abs().max()
        else:
            assert torch.equal(again, often)


def same_bits(first, second):
    return all(a is b is None or torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_loop
def test_the_same_bits_from_eight_python_threads_at_once(loop, set_threads):
    op, *inputs = loop_inputs(loop)
    set_threads(3)
    first = both_directions(F, op, *inputs)
    together = threading.Barrier(8)

    def call():
        torch.set_num_threads(3)  # the number belongs to the Python thread
        together.wait()
        return [both_directions(F, op, *inputs) for _ in range(2)]

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call) for _ in range(8)]
    assert all(same_bits(first, again) for done in calls for again in done.result())


def printed(script, repo, **environment):
    """What a fresh process prints that runs the script."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=repo,
        env=os.environ | environment,
    )
    return done.stdout


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_as_many_threads_as_torch_was_told(repo):
    """A process that was told one thread starts no other; told three, it starts two."""
    script = """
import os, torch
import normlab.functional as F
x = torch.randn(700, 257)
for threads in (1, 3):
    torch.set_num_threads(threads)
    F.layer_norm(x, (257,))
    print(len(os.listdir("/proc/self/task")))
"""
    alone, three = map(int, printed(script, repo).split())
    assert three == alone + 2


# ---- exp, and half precision -----------------------------------------------------------------------------------------


@jit.compiled()
def exp_of_each(x, y):
    for j in range(x.size):
        y[j] = cpu.exp(x[j])


@jit.compiled()
def widen_each(bits, y):
    for j in range(bits.size):
        y[j] = jit.widen(bits[j])


@jit.compiled()
def narrow_each(x, bits):
    for j in range(x.size):
        bits[j] = jit.narrow(x[j], bits[j])


# The result of exp is 0 below these: there it would be subnormal, or nearly so.
FLUSHED = {np.float32: -87.3, np.float64: -708.3}


@pytest.mark.parametrize(("dtype", "lowest", "bound"), [(np.float32, -104, 1.0), (np.float64, -746, 1.0)])
def test_exp_is_right_to_one_unit_in_the_last_place(dtype, lowest, bound):
    rng = np.random.default_rng(0)
    dense = np.linspace(lowest, 80, 2_000_001)
    near_zero = -(2.0 ** rng.uniform(-40, 6, 500_000))
    halves = (np.arange(lowest, 80) + 0.5) * np.log(2)  # where the whole number n is a tie
    x = np.concatenate([dense, near_zero, halves, [0.0, -0.0]]).astype(dtype)
    y = np.empty_like(x)
    exp_of_each(x, y)
    truth = np.exp(x.astype(np.longdouble))
    normal = x >= FLUSHED[dtype]
    error = np.abs(y - truth)[normal] / np.spacing(truth[normal].astype(dtype))
    assert error.max() <= bound
    assert (np.abs(y - truth)[~normal] <= np.exp(FLUSHED[dtype])).all()
    assert (y[x == 0] == 1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_of_what_is_not_finite(dtype):
    x = np.array([-np.inf, np.nan, -np.finfo(dtype).max, -1e4], dtype)
    y = np.empty_like(x)
    exp_of_each(x, y)
    np.testing.assert_array_equal(y, [0, np.nan, 0, 0])


HALVES = [(torch.float16, np.int16), (torch.bfloat16, np.uint16)]


@pytest.mark.parametrize(("dtype", "stored"), HALVES)
def test_every_half_widens_as_in_torch(dtype, stored):
    bits = np.arange(2**16, dtype=np.uint16)
    ours = np.empty(bits.size, np.float32)
    widen_each(bits.view(stored), ours)
    theirs = torch.tensor(bits.view(np.int16)).view(dtype).float().numpy()
    nan = np.isnan(theirs)
    np.testing.assert_array_equal(np.isnan(ours), nan)
    np.testing.assert_array_equal(ours.view(np.int32)[~nan], theirs.view(np.int32)[~nan])


@pytest.mark.parametrize(("dtype", "stored"), HALVES)
def test_floats_narrow_as_in_torch(dtype, stored):
    every_half = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype).float().numpy()
    next_half = np.sort(every_half[np.isfinite(every_half)])
    ties = (next_half[1:].astype(np.float64) + next_half[:-1]) / 2
    edges = [np.nan, -np.nan, np.inf, -np.inf, 65504, 65519.99, 65520, 65536, 3.3895314e38, 3.4e38, 1e-45, -1e-45, -0.0]
    rng = np.random.default_rng(0)
    any_bits = rng.integers(0, 2**32, 1_000_000, dtype=np.uint32).view(np.float32)
    x = np.concatenate([every_half, ties.astype(np.float32), np.array(edges, np.float32), any_bits])
    with np.errstate(invalid="ignore"):
        x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf))])
    ours = np.empty(x.size, stored)
    narrow_each(x, ours)
    theirs = torch.tensor(x).to(dtype)
    nan = np.isnan(x)
    assert torch.tensor(ours.view(np.int16)).view(dtype)[nan].isnan().all()
    np.testing.assert_array_equal(ours.view(np.int16)[~nan], theirs.view(torch.int16).numpy()[~nan])


# ---- Any shape, any strides ------------------------------------------------------------------------------------------

settings.register_profile("kernels", derandomize=True, deadline=None, max_examples=40)


def strided(draw, shape):
    """A tensor of `shape` in float64: a permuted view, sliced with steps, of a larger one; some axes are expanded."""
    order = draw(st.permutations(range(len(shape))))
    steps = draw(st.lists(st.integers(1, 3), min_size=len(shape), max_size=len(shape)))
    expanded = draw(st.lists(st.integers(0, 5), min_size=len(shape), max_size=len(shape)))  # 0: this axis is
    sizes = [1 if e == 0 else n * step for n, step, e in zip(shape, steps, expanded, strict=True)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    base = torch.randn([sizes[axis] for axis in order], generator=generator, dtype=torch.float64)
    whole = base.permute([order.index(axis) for axis in range(len(shape))])
    return whole[tuple(slice(None, None, step) for step in steps)].expand(shape)


@st.composite
def calls(draw, op):
    """x, weight, bias and a cotangent for one of OPS; each may have any strides."""
    dims = draw(st.integers(3 if op == "instance" else 2 if op in ("batch", "group", "cross_entropy") else 1, 4))
    shape = draw(st.lists(st.integers(1, 7), min_size=dims, max_size=dims))
    if op in ("batch", "instance", "group"):
        shape[-1 if dims > 2 else 0] += 1  # two numbers a pool at least
    x = strided(draw, shape)
    weight, bias = (strided(draw, [channels(op, x)]) if draw(st.booleans()) else None for _ in range(2))
    if op == "group" and weight is None:
        bias = None  # PyTorch 2.13 fails in the backward of a bias without a weight
    return x, weight, bias, strided(draw, shape) if op != "cross_entropy" else torch.tensor(1.5, dtype=torch.float64)


@pytest.mark.parametrize("op", OPS)
def test_any_shape_and_strides(op):
    @settings(settings.get_profile("kernels"))
    @given(calls(op))
    def holds(inputs):
        # PyTorch 2.13 gives a wrong dx of batch norm where x and dy differ in strides: it gets them contiguous.
        contiguous = [None if t is None else t.clone(memory_format=torch.contiguous_format) for t in inputs]
        ours, theirs = both_directions(F, op, *inputs), both_directions(T, op, *contiguous)
        for found, right in zip(ours, theirs, strict=True):
            assert (found is None) == (right is None)
            if right is not None:
                scale = max(1.0, float(right.abs().max()))
                torch.testing.assert_close(found, right, rtol=0, atol=1e-10 * scale, equal_nan=True)

    holds()
