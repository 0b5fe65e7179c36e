"""The Triton kernels without a GPU: what tests the CPU's kernels tests them too, in Triton's interpreter, watched.

Each operator's launches are checked for races, out-of-bounds access and wrong strides, with masked lanes poisoned and
programs in a shuffled order; and every element of a result must have been written.
"""

import ast
import importlib.util
import itertools
import math
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import test_cpu
import test_functional
import torch
import torch.nn.functional as T

import normlab.functional as F
from normlab import cuda, watch
from normlab.axes import NORMS
from normlab.cuda import ahead, plan

ops = pytest.importorskip("normlab.cuda.ops", reason="Triton is not installed: kernels for CUDA are not checked")

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def sampled(name, cases):
    """Each case in one type, in turns; in the others `make prove` runs it."""
    found = []
    for number, case in enumerate(cases):
        for place, dtype in enumerate(DTYPES):
            marks = pytest.mark.exhaustive if number % 3 != place else ()
            found.append(pytest.param(case, DTYPES[dtype], id=f"{case}-{dtype}", marks=marks))
    return pytest.mark.parametrize((name, "dtype"), found)


half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])

WAYS = ("", "_forward", "_backward", "_out")
OPERATORS = {"row_norm": WAYS, "batch_norm": WAYS, "softmax": WAYS, "cross_entropy": WAYS[:3]}


def watched(operator, order=1):
    """The operator, with what its kernels do to memory checked."""

    def checked(*args, **kwargs):
        with watch.watched(order=order) as seen:
            results = operator(*args, **kwargs)
        seen.check()
        for result in [*results] if isinstance(results, tuple) else [results, kwargs.get("out")]:
            # No kernel writes what is empty, zero for want of rows, or copied from a contiguous result; nor the last
            # number that cross entropy saves, what its sum was divided by, where there was no sum.
            if operator is ops.cross_entropy_forward and result.dim() == 1:
                result = result[:-1]
            if result is not None and result.numel() and seen.launches and seen.distinct(result, "store"):
                assert seen.unwritten(result) == 0
        checked.seen = seen
        return results

    return checked


@pytest.fixture
def on_triton(monkeypatch):
    """normlab.functional as on a GPU: its operators are answered by Triton's kernels. A GPU's float64 is PyTorch's."""
    library, takes = torch.library.Library("normlab", "IMPL"), F._takes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that operators are overridden is what is wanted
        for op, ways in OPERATORS.items():
            for way in ways:
                library.impl(op + way, watched(getattr(ops, op + (way or "_forward"))), "CPU", allow_override=True)
    monkeypatch.setattr(F, "_eager", lambda *tensors: False)
    monkeypatch.setattr(F, "_takes", lambda x, *more: getattr(x, "dtype", 0) != torch.float64 and takes(x, *more))
    yield
    library._destroy()


pytestmark = pytest.mark.usefixtures("on_triton")


def test_it_is_triton_that_answers(monkeypatch):
    """What the other tests rest on."""
    monkeypatch.setattr(test_cpu.cpu, "row_norm", None)
    called = []
    monkeypatch.setattr(ops.rows, "norm_rows", watch.interpreted(ops.rows.norm_rows))
    monkeypatch.setattr(plan, "rows", lambda size, rows=plan.rows: called.append(size) or rows(size))
    F.layer_norm(torch.ones(2, 5), (5,))
    assert called == [5]


# ---- The numbers -----------------------------------------------------------------------------------------------------

LARGE = ("offset 1e4, past one block", "many rows", "wide")


@sampled("case", [name for name in test_cpu.HOSTILE if name not in LARGE])
@pytest.mark.parametrize("norm", NORMS)
def test_norms(norm, case, dtype):
    test_cpu.test_norms(norm, case, dtype)


@pytest.mark.parametrize("norm", NORMS)
def test_norms_far_from_zero(norm):
    test_cpu.test_norms(norm, "offset 1e4, past one block", torch.float32)


@half
@pytest.mark.parametrize("norm", NORMS)
def test_wide_norms(norm, dtype):
    test_cpu.test_norms(norm, "wide", dtype)


@every_dtype
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_norms_of_what_is_not_finite(norm, value, dtype):
    test_cpu.test_norms_of_what_is_not_finite(norm, value, dtype)


@sampled("case", [name for name in test_cpu.LOGITS if name != "many rows"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmaxes(axis, case, dtype):
    for name in ("softmax", "log_softmax"):
        test_cpu.test_softmaxes(name, axis, case, dtype)


@every_dtype
@pytest.mark.parametrize("values", [(np.nan,), (np.inf,), (-np.inf,), (np.inf, -np.inf), (-np.inf,) * 6], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmaxes_of_what_is_not_finite(name, axis, values, dtype):
    test_cpu.test_softmaxes_of_what_is_not_finite(name, axis, values, dtype)


@sampled("case", [name for name in test_cpu.LOGITS if name != "many rows"])
def test_cross_entropy(case, dtype):
    test_cpu.test_cross_entropy(case, dtype)


@every_dtype
@pytest.mark.parametrize("values", [(np.nan,), (np.inf,), (-np.inf,), (-np.inf,) * 6], ids=str)
@pytest.mark.parametrize("positions", [False, True])
def test_cross_entropy_of_what_is_not_finite(positions, values, dtype):
    test_cpu.test_cross_entropy_of_what_is_not_finite(positions, values, dtype)


@every_dtype
@pytest.mark.parametrize("positions", [False, True])
def test_the_gradient_where_a_target_is_ignored(positions, dtype):
    test_cpu.test_the_gradient_where_a_target_is_ignored(positions, dtype)


# Half of all combinations, in which any three choices still meet; the others are for `make prove`.
OPTIONS = [
    pytest.param(*combination, marks=() if sum(numbers) % 2 == 0 else pytest.mark.exhaustive)
    for numbers, combination in zip(
        itertools.product(range(4), range(2), range(2), range(2)),
        itertools.product([(5, 4), (3, 4, 2), (2, 5003), (2, 300, 3)], [0.0, 0.3], [False, True], [-100, 2]),
        strict=True,
    )
]


@pytest.mark.parametrize(("shape", "smoothing", "weighted", "ignored"), OPTIONS, ids=str)
def test_every_option_of_cross_entropy(shape, smoothing, weighted, ignored):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)) + 100
    weight = torch.linspace(0, 2, shape[1]) if weighted else None
    target = test_functional.targets(x, ignored)
    for reduction in ("mean", "sum", "none"):
        found = []
        for lib, dtype in ((F, torch.float32), (T, torch.float64)):
            leaf = x.to(dtype, copy=True).requires_grad_()
            own = None if weight is None else weight.to(dtype)
            options = {"ignore_index": ignored, "label_smoothing": smoothing, "reduction": reduction}
            loss = lib.cross_entropy(leaf, target, own, **options)
            (loss * torch.linspace(0.5, 2, loss.numel(), dtype=dtype).reshape(loss.shape)).sum().backward()
            found.append((loss.detach().float(), leaf.grad.float()))
        for ours, theirs in zip(*found, strict=True):
            assert (ours - theirs).abs().max() <= 16 * torch.finfo(torch.float32).eps * theirs.abs().max()


def test_a_target_that_is_no_class_makes_nan_and_reads_nothing():
    """On the CPU that is an IndexError. A GPU would have to be waited for."""
    x = torch.zeros(3, 4, requires_grad=True)
    losses = F.cross_entropy(x, torch.tensor([1, 4, -1]), reduction="none")
    losses.sum().backward()
    assert losses.isnan().tolist() == [False, True, True]
    assert x.grad.isnan().any(1).tolist() == [False, True, True]


# ---- The calls -------------------------------------------------------------------------------------------------------


@every_dtype
@test_functional.every_call
def test_values_and_gradients_are_those_of_torch(call, dtype):
    test_functional.test_values_and_gradients_are_those_of_torch(call, dtype)


@pytest.mark.parametrize("name", [name for name, call in test_functional.CALLS.items() if call.parameters])
@pytest.mark.parametrize("which", [(True, False, False), (False, True, False), (False, False, True)], ids=str)
def test_gradients_for_any_subset_of_the_inputs(name, which):
    call = test_functional.CALLS[name]
    tensors, found = test_functional.drawn(call), []
    for lib in (F, T):
        own = test_functional.leaves(tensors, which)
        y = call.run(lib, *own)
        if y.requires_grad:
            y.backward(test_functional.cotangent(y))
        found.append([y.detach(), *(None if t is None else t.grad for t in own)])
    test_functional.all_near(*found)


@test_functional.every_call
def test_inputs_are_never_changed(call):
    test_functional.test_inputs_are_never_changed(call)


@test_functional.every_call_with_out
def test_out_gets_the_result(call):
    test_functional.test_out_gets_the_result(call, torch.bfloat16)


@test_functional.every_call_with_out
def test_out_may_be_the_input(call):
    test_functional.test_out_may_be_the_input(call)


@pytest.mark.parametrize(
    ("shape", "run"), test_functional.EMPTY.values(), ids=[f"{name}" for name in test_functional.EMPTY]
)
def test_nothing_in_nothing_out(shape, run):
    test_functional.test_nothing_in_nothing_out_as_in_torch(shape, run)


@pytest.mark.parametrize("layout", test_cpu.LAYOUTS)
@pytest.mark.parametrize("norm", NORMS)
def test_norms_in_every_layout(norm, layout):
    test_cpu.test_norms_in_every_layout(norm, layout, torch.float32)


@pytest.mark.parametrize("layout", test_cpu.LAYOUTS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmaxes_in_every_layout(axis, layout):
    test_cpu.test_softmaxes_in_every_layout("softmax", axis, layout)


@pytest.mark.parametrize("dtype", [*DTYPES.values()], ids=DTYPES)
def test_running_statistics_move(dtype):
    mean, var = torch.full((6,), 0.5, dtype=dtype), torch.full((6,), 2.0, dtype=dtype)
    statistics = torch.linspace(-1, 4, 12)
    right = [0.75 * 0.5 + 0.25 * statistics[:6], 0.75 * 2.0 + 0.25 * 1.5 * statistics[6:]]
    watched(ops.move)(mean, var, statistics, 0.25, 1.5)
    torch.testing.assert_close([mean, var], [t.to(dtype) for t in right])


# ---- The lengths, at both sides of every limit of plan.py ------------------------------------------------------------

LIMITS = {n for name, n in vars(plan).items() if name.startswith("ONE_PASS")} | {plan.CHUNK, plan.TILE}
LENGTHS = sorted({1, 2, 31, 33, 1000} | LIMITS | {n + 1 for n in LIMITS})
ROWS = {
    "layer": lambda lib, x, w: lib.layer_norm(x, x.shape[-1:], w, w),
    "rms": lambda lib, x, w: lib.rms_norm(x, x.shape[-1:], w, 1e-5),
    "instance": lambda lib, x, w: lib.instance_norm(x[None]),
    "softmax": lambda lib, x, w: lib.softmax(x, -1),
    "cross_entropy": lambda lib, x, w: lib.cross_entropy(x, torch.tensor([0, x.shape[1] - 1])),
}


def agrees(run, x, w):
    """Values and gradients, of two rows, within 32 roundings of PyTorch's in float64 at their scale."""
    found = []
    for lib, dtype in ((F, torch.float32), (T, torch.float64)):
        leaves = [t.to(dtype, copy=True).requires_grad_() for t in (x, w)]
        y = run(lib, *leaves)
        y.backward(torch.linspace(-1, 2, y.numel(), dtype=dtype).reshape(y.shape))
        found.append([y.detach(), *(t.grad for t in leaves if t.grad is not None)])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() <= 32 * torch.finfo(torch.float32).eps * theirs.abs().max().clamp(min=1)


# One position a channel is what PyTorch refuses. The longest rows of all go through the loop of the shorter ones.
@pytest.mark.parametrize(
    ("op", "length"),
    [
        *((op, n) for op in ROWS for n in LENGTHS if (op, n) != ("instance", 1)),
        *(pytest.param(op, 262_144, marks=() if op == "layer" else pytest.mark.exhaustive) for op in ROWS),
    ],
)
def test_rows_of_every_length(op, length):
    generator = torch.Generator().manual_seed(length)
    agrees(ROWS[op], torch.randn(2, length, generator=generator), torch.rand(length, generator=generator) + 0.5)


@pytest.mark.parametrize("length", [1, 2, 31, 33, 256, 257, 512, 513, 5000])
@pytest.mark.parametrize("inner", [2, 33])
def test_columns_of_every_length(length, inner):
    x = torch.randn(2, length, inner, generator=torch.Generator().manual_seed(length))
    agrees(lambda lib, x, w: lib.log_softmax(x, 1), x, x)


@pytest.mark.parametrize(
    ("channels", "positions"), [(2, 3), (3, 4096), (64, 256), (65, 256), (2, 16385), (1200, 14), (3, 40000)], ids=str
)
def test_groups_of_every_size(channels, positions):
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(2, 2 * channels, positions, generator=generator)
    w = torch.rand(2 * channels, generator=generator) + 0.5
    agrees(lambda lib, x, w: lib.group_norm(x, 2, w, w), x, w)


BATCHES = [(3, 5, 9000), (700, 3), (70, 3, 7, 7), (2, 40, 1, 2)]
FORMATS = [(shape, torch.contiguous_format) for shape in BATCHES]
FORMATS += [(shape, torch.channels_last) for shape in BATCHES if len(shape) == 4]


@pytest.mark.parametrize(("shape", "format"), FORMATS, ids=str)
def test_batch_norm_of_every_size(shape, format):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=format)
    agrees(lambda lib, x, w: lib.batch_norm(x, None, None, w, w, True), x, torch.linspace(0.5, 2, shape[1]))


# ---- Addresses, order, bits ------------------------------------------------------------------------------------------


def test_rows_that_are_more_than_two_billion_elements_apart():
    """Memory that is never touched costs nothing."""
    far = torch.empty(2**31 + 64, dtype=torch.float16).as_strided((2, 48), (2**31, 1))
    far[:] = torch.randn(2, 48)
    for function in (lambda lib, x: lib.layer_norm(x, (48,)), lambda lib, x: lib.softmax(x, 1)):
        near = torch.finfo(torch.float16).eps * 4
        torch.testing.assert_close(function(F, far), function(T, far.contiguous()), atol=near, rtol=0)


def kernels():
    """(module, function) of every kernel and helper in the source."""
    for path in sorted(Path(cuda.__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and any("jit" in ast.unparse(d) for d in node.decorator_list):
                yield pytest.param(node, id=f"{path.stem}.{node.name}")


@pytest.mark.parametrize("kernel", [*kernels()])
def test_what_programs_are_numbered_by_is_widened_before_it_is_multiplied(kernel):
    """A program's number times a size passes 2**31 where a tensor does, unless it counts blocks of a single axis."""
    narrow = []
    for node in ast.walk(kernel):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and "program_id" in ast.unparse(node):
            text = ast.unparse(node)
            if "to(tl.int64)" not in text and not text.endswith("* BLOCK"):
                narrow.append(text)
    assert not narrow


GIANTS = {
    "softmax of few long columns": lambda x: ops.softmax_forward(x(3, 10**8), 0, False),
    "softmax of many short columns": lambda x: ops.softmax_backward(x(10**6, 21, 8), x(10**6, 21, 8), 1, True),
    "cross entropy of many images": lambda x: ops.cross_entropy_forward(
        x(10**6, 21, 8), x(10**6, 8).long(), None, 1, -100, 0.0
    ),
    "cross entropy, backward": lambda x: ops.cross_entropy_backward(
        x(), x(10**6, 21, 8), x(10**6, 8).long(), None, x(16 * 10**6 + 1), -100, 0.0
    ),
    "layer norm of many rows": lambda x: ops.row_norm_backward(
        x(10**8, 8), x(10**8, 8), x(8), x(2 * 10**8), 1, 8, 1, 1e-5, True, True, True
    ),
    "instance norm of many channels": lambda x: ops.row_norm_backward(
        x(2, 10**5, 9), x(2, 10**5, 9), x(10**5), x(4 * 10**5), 10**5, 1, 9, 1e-5, True, True, True
    ),
    "batch norm of many channels": lambda x: ops.batch_norm_backward(
        x(2, 10**5, 9), x(2, 10**5, 9), None, x(2 * 10**5), 1e-5, True, True, True
    ),
    "batch norm of many positions": lambda x: ops.batch_norm_forward(x(2, 3, 2**28), None, None, None, None, 1e-5),
    "batch norm of many examples": lambda x: ops.batch_norm_forward(x(10**8, 8), None, None, None, None, 1e-5),
}


@pytest.mark.parametrize("giant", GIANTS.values(), ids=GIANTS)
def test_grids_are_within_the_limits_of_cuda(giant):
    """2**31 - 1 programs along the first axis, and 65,535 along the others. Nothing runs: tensors have no memory."""
    with ahead.recording() as launches:
        giant(lambda *shape: torch.empty(shape, device="meta"))
    assert launches
    for launch in launches:
        assert launch.grid[0] < 2**31
        assert max(launch.grid[1:]) < 2**16


@pytest.mark.parametrize(
    "op", ["layer", "batch", *(pytest.param(op, marks=pytest.mark.exhaustive) for op in ("group", "cross_entropy"))]
)
def test_the_bits_do_not_depend_on_the_order_of_programs(op):
    """dweight, dbias and the loss are sums of several programs' parts, always added in one order."""
    x, dy = torch.randn(2, 70, 6, 40).unbind()
    w = torch.rand(40)
    found = []
    for order in (None, 1, 2):
        run = partial(watched, order=order)
        if op == "layer":
            y, s = run(ops.row_norm_forward)(x, w, w, 1, 40, 1, 1e-5, True)
            found.append([y, *run(ops.row_norm_backward)(dy, x, w, s, 1, 40, 1, 1e-5, True, True, True)])
        elif op == "group":
            y, s = run(ops.row_norm_forward)(x, w[:6], w[:6], 2, 3, 40, 1e-5, True)
            found.append([y, *run(ops.row_norm_backward)(dy, x, w[:6], s, 2, 3, 40, 1e-5, True, True, True)])
        elif op == "batch":
            y, s = run(ops.batch_norm_forward)(x, w[:6], w[:6], None, None, 1e-5)
            found.append([y, *run(ops.batch_norm_backward)(dy, x, w[:6], s, 1e-5, True, True, True)])
        else:
            target = torch.arange(70 * 40).reshape(70, 40) % 6
            found.append(run(ops.cross_entropy_forward)(x, target, None, 1, -100, 0.1))
    for one, *others in zip(*found, strict=True):
        assert all(torch.equal(one, other) for other in others)


# ---- Traffic ---------------------------------------------------------------------------------------------------------

N, SIZE = 64, 1024


def traffic(operator, *args, reads=(), writes=None):
    """[times each tensor of `reads` was read], times each result was written, in bytes over its own."""
    run = watched(operator)
    results = run(*args)
    results = results if isinstance(results, tuple) else (results,)
    loads = [run.seen.loaded(t) / t.nbytes for t in reads]
    return loads, run.seen.stored(results[0]) / results[0].nbytes, run.seen


def test_forward_reads_each_row_once():
    x, w = torch.randn(N, SIZE), torch.rand(SIZE)
    for args in ((x, w, w, 1, SIZE, 1, 1e-5, True), (x, w, None, 1, SIZE, 1, 1e-5, False)):
        assert traffic(ops.row_norm_forward, *args, reads=[x])[:2] == ([1.0], 1.0)
    assert traffic(ops.row_norm_forward, x, w[:16], w[:16], 4, 4, 64, 1e-5, True, reads=[x])[:2] == ([1.0], 1.0)
    for log in (False, True):
        assert traffic(ops.softmax_forward, x, 1, log, reads=[x])[:2] == ([1.0], 1.0)
        assert traffic(ops.softmax_forward, x, 0, log, reads=[x])[:2] == ([1.0], 1.0)
    (read, targets), _, _ = traffic(
        ops.cross_entropy_forward, x, t := torch.arange(N), None, 1, -100, 0.0, reads=[x, t]
    )
    assert read == 1 + 1 / SIZE  # the logit of the target once more
    assert targets == 1


def test_backward_reads_each_row_once():
    x, dy, w = torch.randn(N, SIZE), torch.randn(N, SIZE), torch.rand(SIZE)
    s = torch.rand(2 * N)
    for centered in (True, False):
        args = (dy, x, w, s, 1, SIZE, 1, 1e-5, centered, True, True)
        assert traffic(ops.row_norm_backward, *args, reads=[x, dy])[:2] == ([1.0, 1.0], 1.0)
    args = (dy, x, w[:16], torch.rand(8 * N), 4, 4, 64, 1e-5, True, True, True)
    assert traffic(ops.row_norm_backward, *args, reads=[x, dy])[:2] == ([1.0, 1.0], 1.0)
    for log in (False, True):
        for axis in (0, 1):
            assert traffic(ops.softmax_backward, dy, x, axis, log, reads=[x, dy])[:2] == ([1.0, 1.0], 1.0)
    args = (torch.ones(()), x, torch.arange(N), None, torch.ones(2 * N + 1), -100, 0.0)
    assert traffic(ops.cross_entropy_backward, *args, reads=[x])[:2] == ([1.0], 1.0)


@pytest.mark.parametrize("x", [torch.randn(64, 32, 32), torch.randn(1024, 64)], ids=["images", "columns"])
def test_batch_norm_reads_x_twice_and_in_whole_sectors(x):
    w, s, dy = torch.rand(x.shape[1]), torch.rand(2 * x.shape[1]), torch.randn(x.shape)
    reads, writes, seen = traffic(ops.batch_norm_forward, x, w, w, None, None, 1e-5, reads=[x])
    assert (reads, writes) == ([2.0], 1.0)
    assert seen.efficiency(x) == 1.0
    reads, writes, seen = traffic(ops.batch_norm_backward, dy, x, w, s, 1e-5, True, True, True, reads=[x, dy])
    assert (reads, writes) == ([2.0, 2.0], 1.0)
    assert seen.efficiency(x) == seen.efficiency(dy) == 1.0


def test_past_the_limits_rows_are_read_twice():
    size = 2 * plan.ONE_PASS
    x, dy, s = torch.randn(1, size), torch.randn(1, size), torch.rand(2)
    assert traffic(ops.row_norm_forward, x, None, None, 1, size, 1, 1e-5, True, reads=[x])[:2] == ([2.0], 1.0)
    args = (dy, x, None, s, 1, size, 1, 1e-5, True, True, False)
    assert traffic(ops.row_norm_backward, *args, reads=[x, dy])[:2] == ([2.0, 2.0], 1.0)
    assert traffic(ops.softmax_forward, x, 1, False, reads=[x])[:2] == ([2.0], 1.0)
    assert traffic(ops.softmax_backward, dy, x, 1, False, reads=[x, dy])[:2] == ([2.0, 2.0], 1.0)


def test_softmax_of_columns_reads_whole_sectors():
    x = torch.randn(2, 21, 64)
    _, _, seen = traffic(ops.softmax_forward, x, 1, False)
    assert seen.efficiency(x) == 1.0


# ---- Where there is no GPU -------------------------------------------------------------------------------------------


def test_a_machine_without_a_gpu_gets_a_sentence():
    if not torch.cuda.is_available():
        assert cuda.why_not() == "PyTorch finds no CUDA GPU here."
    else:
        assert cuda.why_not() is None


def test_without_triton_the_sentence_says_how_to_get_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "triton" else find(name, *more)
    )
    cuda.why_not.cache_clear()
    assert cuda.why_not() == "Triton is not installed: pip install 'normlab[cuda]', on Linux."
    cuda.why_not.cache_clear()


def test_why_kernels_are_not_used_is_said_once(monkeypatch):
    monkeypatch.setattr(cuda, "why_not", lambda: "Because.")
    monkeypatch.setattr(F, "_said", set())
    with pytest.warns(UserWarning, match=r"not used, but PyTorch's own functions. Because\."):
        assert not F._on_gpu(torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not F._on_gpu(torch.float32)


def test_what_a_gpus_kernels_take(monkeypatch):
    """Not float64; and under autocast, which computes most of these in float32, no half types."""
    monkeypatch.setattr(cuda, "why_not", lambda: None)
    takes = {dtype: F._on_gpu(dtype) for dtype in (*DTYPES.values(), torch.float64)}
    assert takes == {torch.float32: True, torch.float16: True, torch.bfloat16: True, torch.float64: False}
    torch.set_autocast_enabled("cuda", True)
    try:
        assert [F._on_gpu(dtype) for dtype in DTYPES.values()] == [True, False, False]
    finally:
        torch.set_autocast_enabled("cuda", False)


def test_triton_is_imported_when_it_is_needed_and_not_before():
    code = "import sys, normlab.functional, normlab.nn, normlab.cuda; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- Where there is one ----------------------------------------------------------------------------------------------


@pytest.mark.gpu
@every_dtype
@test_functional.every_call
def test_on_a_gpu(call, dtype, monkeypatch):
    """Values and gradients on a GPU are those of PyTorch in float64, and no kernel is PyTorch's."""
    if reason := cuda.why_not():
        pytest.skip(f"{reason} Not checked: {test_on_a_gpu.__doc__}")
    monkeypatch.undo()
    found = []
    for lib, kind in ((F, dtype), (T, torch.float64)):
        tensors = [None if t is None else t.to("cuda", dtype).to(kind) for t in test_functional.drawn(call)]
        own = test_functional.leaves(tensors)
        y = call.run(lib, *own)
        y.backward(test_functional.cotangent(y).to(dtype).to(kind))
        found.append([y.detach(), *(None if t is None else t.grad for t in own)])
    test_functional.all_near(*([None if t is None else t.to(dtype).cpu() for t in part] for part in found), units=64)


@pytest.mark.gpu
def test_more_than_two_billion_elements_on_a_gpu():
    """Softmax and batch norm of 2**31 elements and more."""
    if reason := cuda.why_not():
        pytest.skip(f"{reason} Not checked: {test_more_than_two_billion_elements_on_a_gpu.__doc__}")
    x = torch.randn(2**17 + 1, 2**14, device="cuda", dtype=torch.float16)
    assert torch.equal(F.softmax(x, 1)[-1], F.softmax(x[-1:], 1)[0])
    mean = torch.zeros(2**14, device="cuda")
    F.batch_norm(x, mean, mean + 1, training=True, momentum=1.0)
    assert (mean - x.mean(0, dtype=torch.float32)).abs().max() < math.ulp(1.0) * 2**33
