"""How fast are normlab's functions? Beside torch eager and torch.compile, in one process, with a limit to compare with.

    python -m normlab.bench                            everything: some minutes
    python -m normlab.bench --quick                    one shape an op, without torch.compile: seconds
    python -m normlab.bench --against my_normlab.py    beside the functions of your own file
    python -m normlab.bench --device cuda              the kernels in Triton, on a GPU

Nothing is timed before its result was compared with PyTorch's in float64. A wrong one is reported, and the exit status
is 1.

What is timed. *Forward*: one call without autograd. *Backward*: `torch.autograd.grad` through one recorded call and
nothing else. Forward comes twice where it can: with its result in fresh memory, and written to a tensor that is there
already: `out=`, and for torch.compile a compiled `out.copy_(...)`, which writes in place. PyTorch's
`native_layer_norm.out` and `native_group_norm.out` make a fresh tensor and copy it: they would flatter us, and are not
shown. Past the cache fresh memory costs more than any kernel. In the environment THP_MEM_ALLOC_ENABLE=1, or
MALLOC_MMAP_MAX_=0 with MALLOC_TRIM_THRESHOLD_=4000000000, makes it cheaper for everybody; the report says so then.

How. All take the same tensors and threads. In each round every one is timed once, in an order that changes from round
to round, so that what disturbs the machine disturbs all. Short calls are repeated until a sample lasts MIN_SAMPLE. What
is shown is made of paired samples, those of one round: the median, and between which quartiles it lies.

    ratio     time of the other / time of normlab: above 1, normlab is faster
    of copy   (compulsory bytes / time) / (bytes / time of a copy of x into warm memory). Compulsory is each input read
              once and each output written once; 1 is the speed of memory, or of the cache that holds x

At (32, 64) nothing counts but the call itself: those are shown apart, in microseconds, with and without a graph.

On a GPU (SUITE_CUDA: every x is far larger than the cache) a sample is one call between two events, after the cache was
overwritten, as in triton.testing.do_bench; shown are the median and the 20th and 80th percentiles. "of copy" is set
against one speed for all: that of a copy of 1 GB on that card. The goal is GOAL of it. Batch norm reads x twice unless
a channel stays on chip: 2/3 forward and 3/5 backward are its share then. The truth is PyTorch's in float64 on the GPU
too, and what error is allowed follows from that of PyTorch's own float32. A fresh tensor costs nothing there, so that
`out=` is checked, not timed. Small calls are timed by the clock of the computer, as on the CPU.

--against: functions are found by name and take and return NumPy arrays, as the course's exercises do: softmax(x, axis),
log_softmax(x, axis), layer_norm(x, normalized_shape, weight, bias), rms_norm(x, normalized_shape, weight, eps),
batch_norm and instance_norm(x, weight, bias), group_norm(x, num_groups, weight, bias), cross_entropy(logits, target);
softmax_backward and log_softmax_backward(dy, y, axis), cross_entropy_backward(logits, target); and layer_, batch_,
instance_ and rms_norm_backward(dy, x, weight), group_norm_backward(dy, x, num_groups, weight), which return
(dx, dweight, dbias), for rms_norm (dx, dweight).
"""

import argparse
import contextlib
import gc
import importlib.util
import json
import math
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from normlab import bench_cuda, bench_report, reference
from normlab.axes import NORMS
from normlab.cases import tolerance
from normlab.guard import CALL_SECONDS, Stop, guard
from normlab.learner import Unloadable, load
from normlab.verdict import closed, first_line

OPS = (*(f"{norm}_norm" for norm in NORMS), "softmax", "log_softmax", "cross_entropy")
SIZES = ("small", "cache", "image", "wide", "large")
DTYPES = ("float32", "float64", "bfloat16", "float16")
GROUPS, RMS_EPS = 32, 1e-6

MIN_SAMPLE = 200e-6  # seconds
FEWEST_ROUNDS, ROUNDS_SECONDS = 5, 2.5  # past so many seconds a case gets no more rounds, once it has the fewest
CHEAP = 5e-3  # seconds: a call that is shorter is made once, untimed, before each sample, to fill caches
SLOW = 2.0  # seconds: a learner's function that takes longer is not timed again and again

COPIED = {"cpu": 64 << 20, "cuda": 1 << 30}  # bytes of the copy that tells the speed of memory
WARM_UP = 25e-3  # seconds that a GPU runs each contender before it is timed
NEEDED = 64  # bytes of a GPU's memory that a check takes for an element of x: five float64 and what they are made of
GOAL = 0.9  # of the speed of a copy, on a GPU


@dataclass(frozen=True)
class Case:
    """One op on one shape: `dim` is softmax's axis; `layout` is "channels_last" or nothing."""

    op: str
    size: str
    shape: tuple
    dim: int = -1
    layout: str = ""

    def __str__(self):
        return f"{self.op} {self.where}"

    @property
    def where(self):
        """The shape, and what is special about it."""
        return f"{self.shape}{' dim=1' if self.dim == 1 else ''}{' NHWC' if self.layout else ''}"


# Shapes that users have. "cache": x and y fit a core's own cache or the shared one; "large": x alone has 64 MB.
SUITE = (
    Case("batch_norm", "small", (32, 64)),
    Case("batch_norm", "cache", (256, 256)),
    Case("batch_norm", "cache", (4096, 256)),
    Case("batch_norm", "image", (32, 64, 56, 56)),
    Case("batch_norm", "image", (32, 256, 14, 14)),
    Case("batch_norm", "image", (32, 512, 7, 7)),
    Case("batch_norm", "image", (32, 64, 56, 56), layout="channels_last"),
    Case("batch_norm", "image", (32, 256, 14, 14), layout="channels_last"),
    Case("batch_norm", "wide", (4, 64, 50257)),
    Case("batch_norm", "large", (64, 64, 64, 64)),
    Case("layer_norm", "small", (32, 64)),
    Case("layer_norm", "cache", (128, 512)),
    Case("layer_norm", "cache", (512, 768)),
    Case("layer_norm", "cache", (8 * 512, 768)),
    Case("layer_norm", "image", (16, 56, 56, 96)),
    Case("layer_norm", "wide", (256, 50257)),
    Case("layer_norm", "large", (2048, 8192)),
    Case("instance_norm", "small", (1, 32, 64)),
    Case("instance_norm", "cache", (8, 32, 16, 16)),
    Case("instance_norm", "image", (4, 64, 128, 128)),
    Case("instance_norm", "image", (1, 32, 32, 64, 64)),
    Case("instance_norm", "wide", (8, 32, 50257)),
    Case("instance_norm", "large", (16, 64, 128, 128)),
    Case("group_norm", "small", (32, 64)),
    Case("group_norm", "cache", (16, 64, 8, 8)),
    Case("group_norm", "image", (2, 320, 64, 64)),
    Case("group_norm", "image", (32, 256, 14, 14)),
    Case("group_norm", "wide", (4, 64, 50257)),
    Case("group_norm", "large", (64, 64, 64, 64)),
    Case("rms_norm", "small", (32, 64)),
    Case("rms_norm", "cache", (128, 512)),
    Case("rms_norm", "cache", (512, 768)),
    Case("rms_norm", "wide", (256, 50257)),
    Case("rms_norm", "large", (2048, 4096)),
    Case("rms_norm", "large", (2048, 8192)),
    Case("softmax", "small", (32, 64)),
    Case("softmax", "cache", (128, 512)),
    Case("softmax", "cache", (8, 12, 128, 128)),
    Case("softmax", "image", (4, 21, 128, 128), dim=1),
    Case("softmax", "wide", (256, 50257)),
    Case("softmax", "large", (2048, 4096)),
    Case("softmax", "large", (4, 16, 512, 512)),
    Case("log_softmax", "small", (32, 64)),
    Case("log_softmax", "cache", (128, 512)),
    Case("log_softmax", "cache", (256, 1000)),
    Case("log_softmax", "image", (4, 21, 128, 128), dim=1),
    Case("log_softmax", "wide", (256, 50257)),
    Case("log_softmax", "large", (4096, 4096)),
    Case("cross_entropy", "small", (32, 64)),
    Case("cross_entropy", "cache", (128, 512)),
    Case("cross_entropy", "cache", (256, 1000)),
    Case("cross_entropy", "image", (4, 21, 128, 128), dim=1),
    Case("cross_entropy", "wide", (256, 50257)),
    Case("cross_entropy", "large", (4096, 4096)),
)

# The same for GPUs: of language models and of vision, every x between 64 MB and 1 GB in float32 and in half precision.
SUITE_CUDA = (
    Case("batch_norm", "small", (32, 64)),
    Case("batch_norm", "large", (128, 64, 112, 112)),
    Case("batch_norm", "large", (131072, 512)),
    Case("batch_norm", "image", (256, 256, 56, 56)),
    Case("batch_norm", "image", (512, 2048, 7, 7)),
    Case("batch_norm", "image", (256, 256, 56, 56), layout="channels_last"),
    Case("batch_norm", "image", (256, 512, 28, 28), layout="channels_last"),
    Case("batch_norm", "image", (512, 2048, 7, 7), layout="channels_last"),
    Case("batch_norm", "wide", (4, 64, 262144)),
    Case("layer_norm", "small", (32, 64)),
    Case("layer_norm", "large", (16384, 4096)),
    Case("layer_norm", "large", (8192, 8192)),
    Case("layer_norm", "large", (64 * 1024, 768)),
    Case("layer_norm", "image", (256, 56, 56, 96)),
    Case("layer_norm", "wide", (2048, 32768)),
    Case("layer_norm", "wide", (256, 262144)),
    Case("instance_norm", "small", (1, 32, 64)),
    Case("instance_norm", "large", (16, 64, 256, 256)),
    Case("instance_norm", "image", (128, 256, 64, 64)),
    Case("instance_norm", "image", (2, 32, 64, 128, 128)),
    Case("instance_norm", "wide", (8, 32, 262144)),
    Case("group_norm", "small", (32, 64)),
    Case("group_norm", "large", (32, 320, 64, 64)),
    Case("group_norm", "image", (4, 128, 512, 512)),
    Case("group_norm", "image", (256, 256, 56, 56)),
    Case("group_norm", "wide", (4, 64, 262144)),
    Case("rms_norm", "small", (32, 64)),
    Case("rms_norm", "large", (16384, 4096)),
    Case("rms_norm", "large", (8192, 8192)),
    Case("rms_norm", "large", (4, 8192, 32, 128)),
    Case("rms_norm", "wide", (2048, 32768)),
    Case("rms_norm", "wide", (256, 262144)),
    Case("softmax", "small", (32, 64)),
    Case("softmax", "large", (2, 16, 2048, 2048)),
    Case("softmax", "large", (16384, 8192)),
    Case("softmax", "image", (16, 21, 512, 512), dim=1),
    Case("softmax", "wide", (4096, 32768)),
    Case("softmax", "wide", (1024, 131072)),
    Case("softmax", "wide", (256, 262144)),
    Case("log_softmax", "small", (32, 64)),
    Case("log_softmax", "large", (16384, 8192)),
    Case("log_softmax", "large", (65536, 1000)),
    Case("log_softmax", "image", (16, 21, 512, 512), dim=1),
    Case("log_softmax", "wide", (1024, 128256)),
    Case("log_softmax", "wide", (256, 262144)),
    Case("cross_entropy", "small", (32, 64)),
    Case("cross_entropy", "large", (8192, 32000)),
    Case("cross_entropy", "large", (65536, 1000)),
    Case("cross_entropy", "image", (16, 21, 512, 512), dim=1),
    Case("cross_entropy", "wide", (4096, 50257)),
    Case("cross_entropy", "wide", (2048, 128256)),
    Case("cross_entropy", "wide", (1024, 262144)),
)
SUITES = {"cpu": SUITE, "cuda": SUITE_CUDA}
QUICK = {"cpu": SIZES[:2], "cuda": ("large",)}  # sizes
ROUNDS = {"cpu": (20, 7), "cuda": (100, 30)}  # usually, and for --quick

# Contender: what its time is divided by, for the ratio that is shown. "yours" is set beside torch eager.
RATIOS = {
    "eager": ("eager", "normlab"),
    "compile": ("compile", "normlab"),
    "eager out": ("eager out", "normlab out"),
    "compile out": ("compile out", "normlab out"),
    "yours": ("eager", "yours"),
}


# ---- Timing and arithmetic: nothing here knows what it times ---------------------------------------------------------


def turn(names, number):
    """The order of round `number`: rotated, and every second time backwards, so that nobody always follows the same.

    >>> turn("abc", 0), turn("abc", 1), turn("abc", 2)
    (['a', 'b', 'c'], ['a', 'c', 'b'], ['c', 'a', 'b'])
    """
    names = list(names)
    start = number % max(len(names), 1)
    rotated = names[start:] + names[:start]
    return rotated[::-1] if number % 2 else rotated


def time_interleaved(contenders, rounds, clock=time.perf_counter, sync=lambda: None, stopwatch=None, warm_up=0.0):
    """Time `contenders`, {name: function without arguments}: {name: seconds a call, one number a round}, {name: error}.

    `clock` gives seconds; `sync` waits until what was started is done. `stopwatch`, where something knows better than a
    clock, calls a contender once and returns its seconds. Each runs `warm_up` seconds before, and three times at least.
    One that raises is dropped, and its error kept.
    """
    times, errors, repeats, single = {name: [] for name in contenders}, {}, {}, {}

    def sample(name, count):
        try:
            if stopwatch is not None:
                return stopwatch(contenders[name])
            sync()
            start = clock()
            for _ in range(count):
                contenders[name]()
            sync()
            return (clock() - start) / count
        except (Exception, SystemExit) as error:  # a learner's function may do either
            errors[name] = error.with_traceback(None)
            del times[name]

    collecting = gc.isenabled()
    gc.disable()
    try:
        for name in contenders:
            tries, warm = [], clock() + warm_up
            while name in times and (len(tries) < 3 or clock() < warm):
                tries.append(sample(name, 1))
            if name in times:
                single[name] = min(tries)
                repeats[name] = math.ceil(MIN_SAMPLE / max(single[name], 1e-7))
        begun = clock()
        for number in range(rounds):
            if number >= FEWEST_ROUNDS and clock() - begun > ROUNDS_SECONDS:
                break
            for name in turn(times, number):
                if single[name] < CHEAP and stopwatch is None:
                    sample(name, 1)
                if name in times and (seconds := sample(name, repeats[name])) is not None:
                    times[name].append(seconds)
    finally:
        if collecting:
            gc.enable()
    return times, errors


QUARTILES = (0.25, 0.5, 0.75)


def quartiles(values, places=QUARTILES):
    """[lower quartile, median, upper quartile], or other quantiles.

    >>> quartiles([1, 2, 3, 4, 10])
    [2.0, 3.0, 4.0]
    """
    return [float(q) for q in np.quantile(values, places)]


def paired(operation, others, ours, places=QUARTILES):
    """Quartiles of operation(other, our), round by round.

    >>> paired(lambda other, our: other / our, [2.0, 4.0, 9.0], [1.0, 1.0, 3.0])
    [2.5, 3.0, 3.5]
    """
    return quartiles([operation(other, our) for other, our in zip(others, ours, strict=True)], places)


def of_copy(compulsory_bytes, seconds, copied_bytes, copy_seconds):
    """Bandwidth over that of a copy, which reads and writes its bytes.

    >>> of_copy(300, 3.0, 100, 1.0)
    0.5
    """
    return (compulsory_bytes / seconds) / (2 * copied_bytes / copy_seconds)


# ---- Where all of it happens -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Device:
    """What differs between a CPU and a GPU.

    tensors: where PyTorch makes them. timer: ({name: call}, rounds, whether it is the call alone that counts) -> what
    `time_interleaved` returns. places: the quantiles that are shown. describe: the facts of a report. room: bytes that
    are free, or None where nobody asks. why_not_compile: why torch.compile cannot be used, or None.
    """

    name: str
    tensors: str
    timer: Callable
    places: tuple
    describe: Callable
    room: Callable
    why_not_compile: Callable


def cpu_device():
    """This computer's processor."""
    return Device(
        name="cpu",
        tensors="cpu",
        timer=lambda contenders, rounds, small: time_interleaved(contenders, rounds),
        places=QUARTILES,
        describe=describe_cpu,
        room=lambda: None,
        why_not_compile=no_compiler,
    )


def cuda_device():
    """This computer's GPU. Errors: RuntimeError with a sentence, where there is none that Triton compiles for."""
    if reason := bench_cuda.why_not():
        raise RuntimeError(reason)
    import torch

    kernels = partial(time_interleaved, stopwatch=bench_cuda.stopwatch(torch), warm_up=WARM_UP)
    launches = partial(time_interleaved, sync=torch.cuda.synchronize, warm_up=WARM_UP)
    return Device(
        name="cuda",
        tensors="cuda",
        timer=lambda contenders, rounds, small: (launches if small else kernels)(contenders, rounds),
        places=(0.2, 0.5, 0.8),
        describe=partial(bench_cuda.describe, torch),
        room=partial(bench_cuda.room, torch),
        why_not_compile=lambda: None,
    )


DEVICES = {"cpu": cpu_device, "cuda": cuda_device}


# ---- A case: its tensors, its right answers --------------------------------------------------------------------------


def draw(case, dtype, device="cpu", parameters=None):
    """The case's tensors, the same on every call: x; weight, bias, mean, var of norms; target; dy, which is like y.

    parameters: the dtype of weight, bias, mean and var, if not that of x.
    """
    import torch

    random = torch.Generator(device).manual_seed(0)
    format = getattr(torch, case.layout or "contiguous_format")
    normal = partial(torch.randn, generator=random, device=device)
    t = SimpleNamespace(weight=None, bias=None, target=None)
    t.x = (normal(case.shape) * 2 + 0.5).to(dtype).contiguous(memory_format=format)
    if case.op.endswith("_norm"):
        channels = case.shape[-1] if NORMS[case.op[:-5]].channels == "last" else case.shape[1]
        own = {"dtype": parameters or dtype, "device": device}
        t.weight, t.bias = normal(channels).to(**own), normal(channels).to(**own)
        t.bias = None if case.op == "rms_norm" else t.bias
        t.mean, t.var = torch.zeros(channels, **own), torch.ones(channels, **own)
    if case.op == "cross_entropy":
        t.target = torch.randint(case.shape[1], (case.shape[0], *case.shape[2:]), generator=random, device=device)
        t.dy = torch.ones((), dtype=dtype, device=device)
    else:
        t.dy = normal(case.shape).to(dtype).contiguous(memory_format=format)
    return t


def arguments(case, t):
    """The positional arguments of torch.nn.functional's function and of normlab's. Running statistics are everyone's
    own: autograd minds if others change them."""
    if case.op == "batch_norm":
        return t.x, t.mean.clone(), t.var.clone(), t.weight, t.bias, True
    if case.op == "instance_norm":
        return t.x, None, None, t.weight, t.bias
    if case.op == "group_norm":
        return t.x, GROUPS, t.weight, t.bias
    if case.op == "layer_norm":
        return t.x, case.shape[-1:], t.weight, t.bias
    if case.op == "rms_norm":
        return t.x, case.shape[-1:], t.weight, RMS_EPS
    return (t.x, t.target) if case.op == "cross_entropy" else (t.x, case.dim)


def converted(t, change):
    """The same, with every floating tensor changed."""
    return SimpleNamespace(**{n: change(v) if v is not None and n != "target" else v for n, v in vars(t).items()})


def compulsory(t, direction):
    """Bytes that must move: each input once, each output once. Running statistics are not counted.

    Backward reads x (softmax: y), dy, weight and target, and writes dx, dweight and dbias.
    """
    moved = [t.x, t.weight, t.bias, t.target, t.dy]  # dy stands for y, or is itself
    if direction == "backward":
        moved += [t.x, t.weight]
    return sum(tensor.nbytes for tensor in moved if tensor is not None)


def leaves(t):
    """What the gradient is taken of."""
    return [v for v in (t.x, t.weight, t.bias) if v is not None]


def wanting_gradients(t):
    """The same tensors, x, weight and bias of which require their gradient."""
    t = converted(t, lambda v: v.detach())
    for leaf in leaves(t):
        leaf.requires_grad_()
    return t


def answers(function, case, t):
    """(y, dx, dweight, dbias), as far as the op has them, of a function with torch's arguments."""
    import torch

    t = wanting_gradients(t)
    y = function(*arguments(case, t))
    return y.detach(), *torch.autograd.grad(y, leaves(t), t.dy)


def plain(case, t):
    """The same by the formulas of reference.py, in the dtype of t's NumPy arrays."""
    if case.op.endswith("_norm"):
        norm, groups = case.op[:-5], {"group_norm": GROUPS, "instance_norm": t.x.shape[1]}.get(case.op, 1)
        options = {"eps": RMS_EPS if norm == "rms" else 1e-5, "num_groups": groups}
        y = reference.normalize(t.x, norm, t.weight, t.bias, **options)
        gradients = reference.normalize_backward(t.dy, t.x, norm, t.weight, **options)
        return y, *gradients[: 2 if t.bias is None else 3]
    if case.op == "cross_entropy":
        moved = np.moveaxis(t.x, 1, -1)
        rows = moved.reshape(-1, moved.shape[-1])
        dx = reference.cross_entropy_backward(rows, t.target.ravel()).reshape(moved.shape)
        return reference.cross_entropy(rows, t.target.ravel()), t.dy * np.moveaxis(dx, -1, 1)
    y = getattr(reference, case.op)(t.x, case.dim)
    return y, getattr(reference, f"{case.op}_backward")(t.dy, y, case.dim)


def right_answers(case, t, on_gpu=False):
    """[(name, float64 truth by PyTorch, error allowed)] for y, dx, ... of t, by the rule of cases.py.

    On a GPU the truths stay there, as tensors, and the plain formula's place has PyTorch's own float32.
    """
    import torch

    dtype, function = t.x.dtype, getattr(torch.nn.functional, case.op)
    truths = answers(function, case, converted(t, lambda v: v.double()))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    if on_gpu:
        formulas = answers(function, case, converted(t, lambda v: v.to(wide)))
    else:
        arrays = converted(t, lambda v: v.to(wide).numpy())
        if arrays.target is not None:
            arrays.target = arrays.target.numpy()
        truths, formulas = [truth.numpy() for truth in truths], plain(case, arrays)
    right = []
    for name, truth, formula in zip(("y", "dx", "dweight", "dbias"), truths, formulas, strict=False):
        seen, formula = extremes(truth, formula) if on_gpu else (truth, formula)
        if dtype == torch.bfloat16:  # NumPy has no such dtype: float32's rule, and bfloat16's last rounding
            allowed = tolerance(seen, formula, np.float32) + 4 * torch.finfo(dtype).eps * float(np.abs(seen).max())
        else:
            allowed = tolerance(seen, formula, str(dtype).removeprefix("torch."))
        right.append((name, truth, allowed))
    return right


def extremes(truth, formula):
    """Two numbers each of two tensors, from which `tolerance` computes the same as from all: it asks for the largest
    truth and the largest error alone, and so the tensors need not leave the GPU.

    >>> import torch
    >>> extremes(torch.tensor([1.0, -4.0]), torch.tensor([1.5, -4.25]))
    (array([4., 0.]), array([4. , 0.5]))
    """
    largest, error = float(truth.abs().max()), float((formula.double() - truth).abs().max())
    return np.array([largest, 0.0]), np.array([largest, error])


def fault(values, right):
    """What is wrong with `values`, arrays or tensors, or None: the first that is not what `right` says."""
    if len(values) != len(right):
        return f"returns {len(values)} arrays instead of {len(right)}"
    for value, (name, truth, allowed) in zip(values, right, strict=True):
        value = value.detach().double() if hasattr(value, "detach") else value
        value = np.asarray(value, np.float64) if isinstance(truth, np.ndarray) else value
        if value.shape != truth.shape:
            return f"gives {name} of shape {tuple(value.shape)} instead of {tuple(truth.shape)}"
        error = float(abs(value - truth).max())
        if not error <= allowed:
            return f"gives a wrong {name}: off by {error:.2g} where {allowed:.2g} is allowed"


# ---- The contenders --------------------------------------------------------------------------------------------------


def no_compiler():
    """Why torch.compile cannot be used here, or None."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = shlex.split(os.environ.get("CXX", "")) or [usual]
    return None if shutil.which(compiler[0]) else f"there is no C++ compiler ({compiler[0]})"


def compiled(function):
    """torch.compile for fixed shapes. Each gets a lambda of its own, so that none shares another's graphs."""
    import torch
    from torch._functorch import config

    config.donated_buffer = False  # a backward that overwrites what was saved cannot be timed twice
    return torch.compile(lambda *args: function(*args), dynamic=False)


def torch_out(case, t, out):
    """torch eager's call that writes into `out` without making a tensor first, or None where it has none."""
    import torch

    if case.op in ("softmax", "log_softmax"):
        return partial(getattr(torch, case.op), t.x, case.dim, out=out)
    if case.op == "batch_norm":
        stats = {"save_mean": torch.empty_like(t.mean), "save_invstd": torch.empty_like(t.var)}
        args = (t.x, t.weight, t.bias, t.mean, t.var, True, 0.1, 1e-5)
        return partial(torch.ops.aten.native_batch_norm.out, *args, out=out, **stats)
    return None


def calls(case, t, functions):
    """{name: the function called on the case's arguments}."""
    return {name: partial(function, *arguments(case, t)) for name, function in functions.items()}


def forward_contenders(case, t, functions, outs=True):
    """The calls, those that write to a tensor (all to the same one), and a copy."""
    import torch

    out, contenders = torch.empty_like(t.x), calls(case, t, functions)
    contenders["copy"] = partial(out.copy_, t.x)
    if outs and case.op != "cross_entropy":
        contenders["normlab out"] = partial(functions["normlab"], *arguments(case, t), out=out)
        if (call := torch_out(case, t, out)) is not None:
            contenders["eager out"] = call
        if "compile" in functions:
            writing = compiled(lambda out, *args: out.copy_(functions["eager"](*args)))
            contenders["compile out"] = partial(writing, out, *arguments(case, t))
    return contenders


def recording_contenders(case, t, functions, outs=True):
    """The calls, each of which records a graph."""
    return calls(case, wanting_gradients(t), functions)


def backward_contenders(case, t, functions, outs=True):
    """Gradients through calls that were recorded before, and a copy."""
    import torch

    contenders = {"copy": partial(torch.empty_like(t.x).copy_, t.x)}
    t = wanting_gradients(t)
    for name, function in functions.items():
        try:
            y = function(*arguments(case, t))
            contenders[name] = partial(torch.autograd.grad, y, leaves(t), t.dy, retain_graph=True)
        except Exception as error:  # torch.compile may: who times it hears of it
            contenders[name] = partial(_raise, error)
    return contenders


def _raise(error):
    raise error


CONTENDERS = {"forward": forward_contenders, "recording": recording_contenders, "backward": backward_contenders}


def directions(case):
    """What is timed of a case: of small ones the calls, else the kernels."""
    return ("forward", "recording") if case.size == "small" else ("forward", "backward")


# ---- A learner's file ------------------------------------------------------------------------------------------------


def _told(error):
    text = first_line(error)
    return text if isinstance(error, Stop) else f"{type(error).__name__}{f' ({text})' if text else ''}"


def learner_arguments(case, direction, a, y):
    """The arguments of a learner's function, of NumPy arrays; None where its interface does not reach."""
    if case.op == "cross_entropy":
        return (a.x, a.target) if len(case.shape) == 2 else None
    if direction == "forward":
        return {
            "batch_norm": (a.x, a.weight, a.bias),
            "instance_norm": (a.x, a.weight, a.bias),
            "layer_norm": (a.x, case.shape[-1:], a.weight, a.bias),
            "rms_norm": (a.x, case.shape[-1:], a.weight, RMS_EPS),
            "group_norm": (a.x, GROUPS, a.weight, a.bias),
        }.get(case.op, (a.x, case.dim))
    if case.op in ("softmax", "log_softmax"):
        return a.dy, y.astype(a.x.dtype), case.dim
    return (a.dy, a.x, GROUPS, a.weight) if case.op == "group_norm" else (a.dy, a.x, a.weight)


def learner(module, case, direction, t, right):
    """(a call to time or None, a sentence or None): the learner's function, once it is found right. It gets arrays of
    its own, so that it cannot change those of others."""
    import torch

    name = case.op if direction == "forward" else f"{case.op}_backward"
    function = getattr(module, name, None)
    if function is None or direction == "recording" or t.x.dtype == torch.bfloat16:  # which NumPy does not have
        return None, None
    arrays = converted(t, lambda v: v.clone().numpy())
    arrays.target = None if t.target is None else t.target.clone().numpy()
    args = learner_arguments(case, direction, arrays, right[0][1])
    if args is None:
        return None, None
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    expected = right[:1] if direction == "forward" else right[1:]
    try:
        with guard(CALL_SECONDS):  # Numba may compile
            values = function(*args)
        values = values if isinstance(values, (tuple, list)) else (values,)
        if not all(np.array_equal(a, b) for a, b in zip(args, before, strict=True)):
            wrong = "changes its arguments"
        elif not (wrong := fault(values, expected)):
            with guard(SLOW):
                function(*args)
    except Stop:
        wrong = f"is too slow to be timed: a call must return within {CALL_SECONDS:g} s, a second one within {SLOW:g} s"
    except (Exception, SystemExit) as error:
        wrong = f"raises {_told(error)}"
    return (None, closed(f"your {name}, {case.where}, {wrong}")) if wrong else (partial(function, *args), None)


# ---- One case from check to numbers ----------------------------------------------------------------------------------


def wrong_answer(case, direction, t, right):
    """What is wrong with normlab's answers in one direction, or None."""
    import torch

    from normlab import functional

    ours = getattr(functional, case.op)
    try:
        if direction == "backward":
            return fault(answers(ours, case, t)[1:], right[1:])
        if direction == "recording":
            return fault(answers(ours, case, t)[:1], right[:1])
        results = [ours(*arguments(case, t))]
        if case.op != "cross_entropy":
            results.append(ours(*arguments(case, t), out=torch.full_like(t.x, math.nan)))
        return next(filter(None, (fault([y], right[:1]) for y in results)), None)
    except Exception as error:
        return f"raises {_told(error)}"


def lack_of_room(case, dtype, device):
    """A sentence, if a GPU's memory is too small for a case, or None."""
    needed, free = NEEDED * math.prod(case.shape), device.room()
    if free is None or needed <= free:
        return None
    gigabytes = f"it takes {needed / 1e9:.1f} GB of the GPU's memory, {free / 1e9:.1f} GB are free"
    return f"{case} {dtype} is left out: {gigabytes}."


def measure(case, dtype, rounds, compile, module=None, device=None, copy_speed=None):
    """Check and time one case: (rows, one a direction, ready for JSON; sentences about what could not be timed).

    device: the CPU, if none is given. copy_speed: bytes a second, read and written, that "of copy" is a share of; if
    None, those of this case's own copy.
    """
    import torch

    from normlab import functional

    device = device or cpu_device()
    if lack := lack_of_room(case, dtype, device):
        return [], [lack]
    on_gpu, kind = device.name == "cuda", getattr(torch, dtype)
    # On a GPU nobody gives batch norm a weight in half precision, and cuDNN, which is the one to beat, takes none.
    parameters = torch.float32 if on_gpu and case.op == "batch_norm" else None
    t, rows, notes = draw(case, kind, device.tensors, parameters), [], []
    right = right_answers(case, t, on_gpu)
    for direction in directions(case):
        row = {"op": case.op, "direction": direction, "size": case.size, "shape": case.shape, "where": case.where}
        row |= {"dtype": dtype, "bytes": compulsory(t, direction), "wrong": wrong_answer(case, direction, t, right)}
        rows.append(row)
        if row["wrong"]:
            continue
        functions = {"normlab": getattr(functional, case.op), "eager": getattr(torch.nn.functional, case.op)}
        if compile:
            torch._dynamo.reset()
            functions["compile"] = compiled(functions["eager"])
        contenders = CONTENDERS[direction](case, t, functions, outs=not on_gpu)
        call, note = learner(module, case, direction, t, right)
        if call is not None:
            contenders["yours"] = call
        with torch.set_grad_enabled(direction == "recording"), open(os.devnull, "w") as silent:
            with contextlib.redirect_stdout(silent):  # a learner's function may print
                times, errors = device.timer(contenders, rounds, case.size == "small")
        if "normlab" in errors:
            row["wrong"] = f"raises {_told(errors.pop('normlab'))} when it is timed"
            continue
        notes += [note] if note else []
        notes += [
            closed(f"{bench_report.HEADINGS[name]}, {case} {direction}: {_told(error)}")
            for name, error in errors.items()
        ]
        row |= numbers(times, row["bytes"], t.x.nbytes, copy_speed, device.places)
    return rows, notes


def numbers(times, compulsory_bytes, copied_bytes, copy_speed=None, places=QUARTILES):
    """What a row says of `times`: seconds and ratios as quantiles, and the share of a copy's bandwidth, the median."""

    def share(our, copy):
        return of_copy(compulsory_bytes, our, copied_bytes, 2 * copied_bytes / copy_speed if copy_speed else copy)

    def both(operation, pairs):
        found = {name: (a, b) for name, (a, b) in pairs.items() if a in times and b in times}
        return {name: paired(operation, times[a], times[b], places) for name, (a, b) in found.items()}

    return {
        "rounds": len(times["normlab"]),
        "seconds": {name: quartiles(values, places) for name, values in times.items()},
        "ratios": both(lambda other, our: other / our, RATIOS),
        "above_us": both(lambda other, our: (our - other) * 1e6, {n: RATIOS[n] for n in ("eager", "compile")}),
        "of_copy": {n: q[1] for n, q in both(share, {n: (n, "copy") for n in ("normlab", "normlab out")}).items()},
    }


def environment(device):
    """The machine and the versions; the load: how many other processes wanted to run in the last minute; what the
    device says of itself; and the speed of a large copy there, in GB/s read and written."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    found = {
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        **device.describe(),
    }
    free = device.room()
    x = torch.ones(min(COPIED[device.name], free // 4 if free else math.inf) // 4, device=device.tensors)
    if device.name == "cuda":
        x.normal_()  # all ones cost a GPU less power, and are copied faster
    times, _ = device.timer({"copy": partial(torch.empty_like(x).copy_, x)}, 10, False)
    return found | {"copy_GB_per_s": 2 * x.nbytes / quartiles(times["copy"])[1] / 1e9}


def describe_cpu():
    """What compiles for the CPU, and the variables that change how memory is fetched."""
    import numba

    variables = {k: v for k, v in os.environ.items() if k.startswith(("MALLOC_", "THP_", "GLIBC_", "LD_PRELOAD"))}
    return {"numba": numba.__version__, "allocator": variables}


# ---- The command line ------------------------------------------------------------------------------------------------


def _positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _file(text):
    if text != "-" and not Path(text).resolve().parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder of {text} does not exist")
    return text


def _image(text):
    if Path(text).suffix not in (".png", ".svg"):
        raise argparse.ArgumentTypeError(f"{text} must end in .png or .svg")
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("drawing needs matplotlib, which is not installed")
    return _file(text)


def parse(argv):
    """The options. Errors: argparse's, with exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m normlab.bench", description="Time normlab beside torch eager and torch.compile."
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="cpu, or cuda: the kernels in Triton on a GPU")
    parser.add_argument("--ops", nargs="+", choices=OPS, default=OPS, metavar="OP", help=f"of {', '.join(OPS)}")
    parser.add_argument(
        "--shapes", nargs="+", choices=SIZES, metavar="SIZE", help=f"of {', '.join(SIZES)}; default all"
    )
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES[:1], help="default float32")
    parser.add_argument(
        "--rounds", type=_positive, help="most rounds a case; default 20, with --quick 7; cuda: 100, 30"
    )
    parser.add_argument("--threads", type=_positive, help="of all contenders; default PyTorch's own choice")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one small shape and one in cache an op (cuda: one large), no torch.compile",
    )
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--against", type=Path, metavar="FILE.py", help="add the functions of your own file")
    parser.add_argument("--json", type=_file, metavar="FILE", help="write every number; - is standard output")
    parser.add_argument("--picture", type=_image, metavar="FILE", help="draw the ratios, .png or .svg")
    options = parser.parse_args(argv)
    if options.device == "cuda" and "float64" in options.dtype:
        parser.error("float64 on cuda is not timed: the kernels leave it to PyTorch")
    if options.device == "cuda" and options.against:
        parser.error("--against is for the cpu: functions of your own file take NumPy arrays")
    if not selected(options.ops, options.shapes, options.quick, options.device):
        parser.error(f"{' and '.join(options.ops)} have no shape that is {' or '.join(options.shapes)}")
    return options


def selected(ops, sizes, quick, device="cpu"):
    """The cases asked for; for `quick` the first of each op and size, of the sizes in QUICK."""
    sizes = sizes or (QUICK[device] if quick else SIZES)
    cases = [case for case in SUITES[device] if case.op in ops and case.size in sizes]
    return list({(case.op, case.size): case for case in reversed(cases)}.values())[::-1] if quick else cases


def main(argv=None):
    """The command line; returns the exit status: 0, 1 if a result of normlab is wrong, 2 if something is missing."""
    options = parse(argv)
    try:
        import numba
        import torch
        from rich.console import Console
        from rich.progress import Progress

        from normlab import functional  # noqa: F401 - to know now that it is there
    except ImportError as error:
        print(f"The benchmark needs PyTorch, Numba and rich, pip install 'normlab[cpu]': {error}.", file=sys.stderr)
        return 2
    if options.threads:
        torch.set_num_threads(options.threads)
        numba.set_num_threads(min(options.threads, numba.config.NUMBA_NUM_THREADS))  # for a learner's functions
    try:
        module, problem = load(options.against) if options.against else (None, None)
    except Unloadable as error:
        problem = error
    if problem:
        print(closed(f"{options.against} {problem}"), file=sys.stderr)
        return 2
    try:
        device = DEVICES[options.device]()
    except RuntimeError as error:
        print(f"Nothing can be timed on a GPU here. {error}", file=sys.stderr)
        return 2
    why_not = "--quick" if options.quick else "--no-compile" if options.no_compile else device.why_not_compile()
    notes = [f"torch.compile is left out: {why_not}."] if why_not else []
    cases = selected(options.ops, options.shapes, options.quick, options.device)
    tasks = [(dtype, case) for dtype in options.dtype for case in cases]
    rows, rounds, machine = [], options.rounds or ROUNDS[options.device][options.quick], environment(device)
    copy_speed = machine["copy_GB_per_s"] * 1e9 if options.device == "cuda" else None
    errors, broken = Console(stderr=True), None
    # Nothing is drawn while something is timed: auto_refresh would start a thread.
    with Progress(console=errors, auto_refresh=False, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("", total=len(tasks))
        for dtype, case in tasks:
            progress.update(bar, description=f"{case} {dtype}", refresh=True)
            try:
                more, sentences_about = measure(case, dtype, rounds, not why_not, module, device, copy_speed)
            except torch.OutOfMemoryError:
                more, sentences_about = [], [f"{case} {dtype} is left out: the GPU's memory is too small."]
            except torch.AcceleratorError as error:  # after this nothing runs on the GPU until the process ends
                broken = closed(f"{case} {dtype} broke the GPU's context, what follows was not run: {_told(error)}")
                break
            rows, notes = rows + more, notes + sentences_about
            progress.advance(bar)
    goal = GOAL if options.device == "cuda" else None
    summary = bench_report.summary(rows, goal)
    notes += [broken] if broken else []
    report = {"environment": machine, "summary": summary, "notes": notes, "rows": rows}
    console = Console(stderr=options.json == "-", highlight=False)
    if not console.is_terminal:
        console.width = 180
    for dtype in options.dtype:
        for table in bench_report.tables([row for row in rows if row["dtype"] == dtype], machine.get("card")):
            table.caption = f"{dtype}, {machine['card']}" if "card" in machine else dtype
            console.print(table)
    for sentence in bench_report.sentences(report):
        console.print(sentence, markup=False, soft_wrap=True)
    if options.json == "-":
        print(json.dumps(report))
    elif options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    if options.picture:
        bench_report.picture(report, options.picture)
    return int(bool(broken) or any(row["wrong"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
