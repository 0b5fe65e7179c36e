"""normlab.functional as a drop-in for torch.nn.functional: signatures, errors, autograd, operators, compile, out=."""

import inspect
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as T
from torch.autograd import forward_ad
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode

import normlab.functional as F

HALVES = [torch.float16, torch.bfloat16]
DTYPES = [torch.float64, torch.float32, *HALVES]


def dtypes(*which):
    return pytest.mark.parametrize("dtype", which, ids=lambda dtype: str(dtype).removeprefix("torch."))


# ---- Calls: each function in each of its ways ------------------------------------------------------------------------


@dataclass
class Call:
    """run(lib, x, weight, bias) calls a function of `lib` with x of `shape`; `affine` is the shape of weight and bias,
    of which it takes the first `parameters`."""

    shape: tuple
    run: Callable
    affine: tuple = ()
    parameters: int = 0
    has_out: bool = True


def running(x):
    """A running mean and variance for x, the same at every call."""
    n = x.shape[1]
    return torch.linspace(-1, 1, n, dtype=x.dtype), torch.linspace(0.5, 2, n, dtype=x.dtype)


def targets(x, ignored=-100):
    """A class for each example and position of logits x, some of them ignored."""
    ones = torch.ones_like(x.select(1, 0), dtype=torch.int64)
    t = (ones.flatten().cumsum(0).reshape(ones.shape) * 5) % x.shape[1]
    return torch.where(t == 1, ignored, t)


def probabilities(x):
    return torch.linspace(0, 1, x.numel(), dtype=x.dtype).reshape(x.shape)


CALLS = {
    "layer_norm": Call((3, 5, 6), lambda lib, x, w, b, **o: lib.layer_norm(x, (6,), w, b, **o), (6,), 2),
    "layer_norm of two axes": Call(
        (4, 3, 6), lambda lib, x, w, b, **o: lib.layer_norm(x, [3, 6], w, b, 0.1, **o), (3, 6), 2
    ),
    "rms_norm": Call((3, 5, 6), lambda lib, x, w, b, **o: lib.rms_norm(x, (6,), w, **o), (6,), 1),
    "group_norm": Call((4, 6, 3, 5), lambda lib, x, w, b, **o: lib.group_norm(x, 3, w, b, **o), (6,), 2),
    "instance_norm": Call((3, 6, 5), lambda lib, x, w, b, **o: lib.instance_norm(x, None, None, w, b, **o), (6,), 2),
    "instance_norm, running": Call(
        (3, 6, 5), lambda lib, x, w, b, **o: lib.instance_norm(x, *running(x), w, b, **o), (6,), 2
    ),
    "batch_norm": Call((5, 6), lambda lib, x, w, b, **o: lib.batch_norm(x, None, None, w, b, True, **o), (6,), 2),
    "batch_norm of images": Call(
        (4, 6, 3, 5), lambda lib, x, w, b, **o: lib.batch_norm(x, *running(x), w, b, True, 0.3, 1e-3, **o), (6,), 2
    ),
    "batch_norm, running": Call(
        (5, 6, 4), lambda lib, x, w, b, **o: lib.batch_norm(x, *running(x), w, b, **o), (6,), 2
    ),
    "softmax": Call((3, 5, 6), lambda lib, x, w, b, **o: lib.softmax(x, -1, **o)),
    "softmax of columns": Call((3, 5, 6), lambda lib, x, w, b, **o: lib.softmax(x, 1, **o)),
    "log_softmax": Call((3, 5, 6), lambda lib, x, w, b, **o: lib.log_softmax(x, 2, **o)),
    "log_softmax of columns": Call((3, 5, 6), lambda lib, x, w, b, **o: lib.log_softmax(x, 0, **o)),
    "cross_entropy": Call((7, 6), lambda lib, x, w, b: lib.cross_entropy(x, targets(x)), has_out=False),
    "cross_entropy of positions": Call(
        (3, 6, 4),
        lambda lib, x, w, b: lib.cross_entropy(
            x, targets(x), x.new_ones(6).cumsum(0), reduction="none", label_smoothing=0.2
        ),
        has_out=False,
    ),
    "cross_entropy of probabilities": Call(
        (3, 6, 4), lambda lib, x, w, b: lib.cross_entropy(x, probabilities(x), label_smoothing=0.2), has_out=False
    ),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
WITH_OUT = {name: call for name, call in CALLS.items() if call.has_out}
every_call_with_out = pytest.mark.parametrize("call", WITH_OUT.values(), ids=WITH_OUT)


def drawn(call, dtype=torch.float32, affine="weight bias", seed=0, shape=None):
    """[x, weight, bias] for a call, None for what it does not take or `affine` does not name."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape or call.shape, generator=generator, dtype=torch.float64)
    parameters = [torch.randn(call.affine, generator=generator, dtype=torch.float64) + 1.5 for _ in range(2)]
    taken = [name in affine and i < call.parameters for i, name in enumerate(("weight", "bias"))]
    return [x.to(dtype), *(p.to(dtype) if t else None for p, t in zip(parameters, taken, strict=True))]


def leaves(tensors, which=(True, True, True)):
    return [t if t is None else t.detach().clone().requires_grad_(w) for t, w in zip(tensors, which, strict=True)]


def cotangent(y):
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(y.dtype)


def with_gradients(run, tensors):
    """[y, gradient of each of `tensors` that requires one and has one, else None]."""
    y = run(*tensors)
    y.backward(cotangent(y))
    return [y.detach(), *(None if t is None else t.grad for t in tensors)]


def near(ours, theirs, units=32):
    """Equal up to some roundings of the dtype at the scale of `theirs`, or of 1: gradients may cancel."""
    if theirs is None:
        assert ours is None
        return
    assert (type(ours), ours.dtype, ours.shape) == (type(theirs), theirs.dtype, theirs.shape)
    finite = theirs.isfinite()
    scale = max(1.0, float(theirs.detach()[finite].abs().max())) if finite.any() else 1.0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=units * torch.finfo(theirs.dtype).eps * scale, equal_nan=True)


def all_near(ours, theirs, units=32):
    for mine, right in zip(ours, theirs, strict=True):
        near(mine, right, units)


def outcome(function, *args, **kwargs):
    """What a call gives: a tensor, or the type and text of its error."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return type(error), str(error)


def same_outcome(ours, theirs, units=32):
    if isinstance(theirs, tuple):
        assert ours == theirs
    else:
        near(ours, theirs, units)


@dtypes(*DTYPES)
@every_call
def test_values_and_gradients_are_those_of_torch(call, dtype):
    tensors = drawn(call, dtype)
    ours, theirs = (with_gradients(lambda *t, lib=lib: call.run(lib, *t), leaves(tensors)) for lib in (F, T))
    all_near(ours, theirs, units=32 if dtype not in HALVES else 8)


# ---- Signatures and errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", F.__all__)
def test_signatures_are_those_of_torch_and_out(name):
    theirs = list(inspect.signature(getattr(T, name)).parameters.values())
    ours = list(inspect.signature(getattr(F, name)).parameters.values())
    facts = [(p.name, p.kind, p.default) for p in ours]
    expected = [(p.name, p.kind, p.default) for p in theirs]
    if name != "cross_entropy":
        expected.append(("out", inspect.Parameter.KEYWORD_ONLY, None))
    assert facts == expected


x34, x264 = torch.linspace(-1, 1, 12).reshape(3, 4), torch.linspace(-1, 1, 48).reshape(2, 6, 4)
six, eight = torch.ones(6), torch.ones(8)
classes = torch.tensor([0, 1, 2])

WRONG = {
    "an int as normalized_shape": lambda lib: lib.layer_norm(x34, 4),
    "another normalized_shape": lambda lib: lib.layer_norm(x34, (3,)),
    "more axes than there are": lambda lib: lib.layer_norm(x34, (2, 3, 4)),
    "no axis": lambda lib: lib.layer_norm(x34, ()),
    "a layer weight of another shape": lambda lib: lib.layer_norm(x34, (4,), six),
    "a layer bias of another shape": lambda lib: lib.layer_norm(x34, (4,), None, six),
    "a layer weight of another dtype": lambda lib: lib.layer_norm(x34, (4,), torch.ones(4).double()),
    "layer norm of integers": lambda lib: lib.layer_norm(x34.long(), (4,)),
    "rms norm over another shape": lambda lib: lib.rms_norm(x34, (3,)),
    "rms norm of no axis": lambda lib: lib.rms_norm(x34, ()),
    "an rms weight of another shape": lambda lib: lib.rms_norm(x34, (4,), six),
    "groups that do not divide": lambda lib: lib.group_norm(x264, 4),
    "negative groups": lambda lib: lib.group_norm(x264, -1),
    "group norm of a vector": lambda lib: lib.group_norm(six, 1),
    "group norm of one number": lambda lib: lib.group_norm(torch.ones(1, 3, 1), 3),
    "a group weight of another shape": lambda lib: lib.group_norm(x264, 3, eight),
    "a group bias of another shape": lambda lib: lib.group_norm(x264, 3, None, eight),
    "instance norm of one position": lambda lib: lib.instance_norm(x264[..., :1]),
    "instance norm of a matrix": lambda lib: lib.instance_norm(x34),
    "instance norm by absent statistics": lambda lib: lib.instance_norm(x264, use_input_stats=False),
    "an instance weight of another shape": lambda lib: lib.instance_norm(x264, weight=eight),
    "instance statistics of another shape": lambda lib: lib.instance_norm(x264, eight, eight),
    "batch norm of one example": lambda lib: lib.batch_norm(x34[:1], None, None, training=True),
    "batch norm of a vector": lambda lib: lib.batch_norm(six, six, six),
    "batch norm by absent statistics": lambda lib: lib.batch_norm(x264, None, None),
    "batch norm with a mean alone": lambda lib: lib.batch_norm(x264, six, None),
    "batch statistics of another shape": lambda lib: lib.batch_norm(x264, eight, eight),
    "a batch weight of another shape": lambda lib: lib.batch_norm(x264, six, six, eight),
    "batch statistics of another dtype": lambda lib: lib.batch_norm(x264, six.double(), six.double()),
    "a negative eps": lambda lib: lib.batch_norm(x264, six, six, eps=-1.0),
    "training with eps 0": lambda lib: lib.batch_norm(x264, six, six, training=True, eps=0.0),
    "softmax along no axis": lambda lib: lib.softmax(x34, 2),
    "softmax of integers": lambda lib: lib.softmax(x34.long(), 1),
    "softmax to integers": lambda lib: lib.softmax(x34, 1, dtype=torch.int64),
    "log_softmax along no axis": lambda lib: lib.log_softmax(x34, -3),
    "log_softmax of booleans": lambda lib: lib.log_softmax(x34 > 0, 1),
    "a class that is not": lambda lib: lib.cross_entropy(x34, torch.tensor([0, 4, 1])),
    "a negative class": lambda lib: lib.cross_entropy(x34, torch.tensor([0, -1, 1])),
    "a class that is not, at a position": lambda lib: lib.cross_entropy(x264, torch.full((2, 4), 6)),
    "a class that is not, unreduced": lambda lib: lib.cross_entropy(x34, torch.tensor([0, 4, 1]), reduction="none"),
    "too few targets": lambda lib: lib.cross_entropy(x34, torch.tensor([0, 1])),
    "targets with positions, logits without": lambda lib: lib.cross_entropy(x34, torch.zeros(3, 2).long()),
    "int32 targets": lambda lib: lib.cross_entropy(x34, classes.int()),
    "boolean targets": lambda lib: lib.cross_entropy(x34, classes > 0),
    "probabilities of another shape": lambda lib: lib.cross_entropy(x34, torch.ones(3, 3)),
    "probabilities and ignore_index": lambda lib: lib.cross_entropy(x34, x34, ignore_index=1),
    "class weights of another shape": lambda lib: lib.cross_entropy(x34, classes, six),
    "class weights of another dtype": lambda lib: lib.cross_entropy(x34, classes, torch.ones(4).double()),
    "an unknown reduction": lambda lib: lib.cross_entropy(x34, classes, reduction="median"),
    "more than all smoothing": lambda lib: lib.cross_entropy(x34, classes, label_smoothing=1.5),
    "a weight on another device": lambda lib: lib.layer_norm(x34, (4,), torch.ones(4, device="meta")),
    "a bias on another device": lambda lib: lib.group_norm(x264, 3, six, six.to("meta")),
    "statistics on another device": lambda lib: lib.batch_norm(x264, six.to("meta"), six.to("meta")),
    "targets on another device": lambda lib: lib.cross_entropy(x34, classes.to("meta")),
    "class weights on another device": lambda lib: lib.cross_entropy(x34, classes, torch.ones(4, device="meta")),
    "a sparse weight": lambda lib: lib.layer_norm(x34, (4,), torch.ones(4).to_sparse()),
    "an array": lambda lib: lib.layer_norm(x34.numpy(), (4,)),
    "a list": lambda lib: lib.rms_norm([1.0, 2.0], (2,)),
    "a list of groups": lambda lib: lib.group_norm([[1.0, 2.0]], 2),
    "a list of images": lambda lib: lib.instance_norm([[[1.0, 2.0]]]),
    "a list of examples": lambda lib: lib.batch_norm([[1.0, 2.0]], None, None, training=True),
    "a list of numbers": lambda lib: lib.softmax([1.0, 2.0], 0),
    "an array of logits": lambda lib: lib.log_softmax(x34.numpy(), 1),
    "a list of logits": lambda lib: lib.cross_entropy([1.0, 2.0], torch.tensor(1)),
    "a list of targets": lambda lib: lib.cross_entropy(x34, [0, 1, 2]),
    "a list for a weight": lambda lib: lib.layer_norm(x34, (4,), [1.0] * 4),
    "a list for class weights": lambda lib: lib.cross_entropy(x34, classes, [1.0] * 4),
    "logits without classes": lambda lib: lib.cross_entropy(torch.tensor(1.0), torch.tensor(0)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_errors_are_those_of_torch(wrong):
    theirs = outcome(wrong, T)
    assert isinstance(theirs, tuple), "PyTorch takes it: this is no error"
    assert outcome(wrong, F) == theirs


UNUSUAL = {
    "complex": lambda lib: lib.layer_norm(torch.complex(x34, x34), (4,)),
    "complex softmax": lambda lib: lib.softmax(torch.complex(x34, x34), 1),
    "complex batch norm": lambda lib: lib.batch_norm(torch.complex(x34, x34), None, None, training=True),
    "integers to float32": lambda lib: lib.softmax(x34.long(), 1, dtype=torch.float32),
    "half to float64": lambda lib: lib.log_softmax(x34.half(), 0, dtype=torch.float64),
    "float64 to half": lambda lib: lib.softmax(x34.double(), 0, dtype=torch.bfloat16),
    "a number": lambda lib: lib.softmax(torch.tensor(3.0), 0),
    "a number, axis -1": lambda lib: lib.log_softmax(torch.tensor(3.0), -1),
    "sparse": lambda lib: lib.softmax(x34.to_sparse(), 1),
    "a negated view": lambda lib: lib.softmax(torch.complex(x34, x34).conj().imag, 1),
    "a contiguous negated view": lambda lib: lib.layer_norm(torch._neg_view(x34), (4,)),
    "groups of one channel": lambda lib: lib.group_norm(x34, 4),
    "a half layer with float32 weights": lambda lib: lib.layer_norm(x34.bfloat16(), (4,), torch.ones(4), torch.ones(4)),
    "a half batch with float32 weights": lambda lib: lib.batch_norm(
        x264.bfloat16(), six.clone(), six.clone(), six, six, True
    ),
    "a half group with float32 weights": lambda lib: lib.group_norm(x264.half(), 3, six, six),
    "a float32 layer with half weights": lambda lib: lib.layer_norm(x34, (4,), torch.ones(4).half()),
    "a weight alone of another dtype": lambda lib: lib.layer_norm(
        x34.half(), (4,), torch.ones(4), torch.ones(4).half()
    ),
    "one class, no examples": lambda lib: lib.cross_entropy(torch.ones(2, 1), torch.zeros(2).long()),
    "uint8 targets": lambda lib: lib.cross_entropy(x34, classes.byte()),
    "one vector of logits": lambda lib: lib.cross_entropy(x34[0], torch.tensor(2)),
    "one vector of probabilities": lambda lib: lib.cross_entropy(x34[0], x34[1], label_smoothing=0.5),
    "size_average": lambda lib: lib.cross_entropy(x34, classes, size_average=False),
    "reduce": lambda lib: lib.cross_entropy(x34, classes, reduce=False),
    "every target ignored": lambda lib: lib.cross_entropy(x34, classes * 0 - 100),
    "every weight 0": lambda lib: lib.cross_entropy(x34, classes, torch.zeros(4)),
    "an ignored class": lambda lib: lib.cross_entropy(x34, classes, ignore_index=1, reduction="none"),
    "weighted probabilities": lambda lib: lib.cross_entropy(x264, x264.exp(), six * 2, reduction="sum"),
    "half probabilities": lambda lib: lib.cross_entropy(x34.half(), x34.exp().half()),
    "float32 probabilities of half logits": lambda lib: lib.cross_entropy(x34.half(), x34.exp()).half(),
    "negative smoothing": lambda lib: lib.cross_entropy(x34, classes, label_smoothing=-0.1),
}


@pytest.mark.filterwarnings("ignore:.*reduction='(sum|none)' instead:UserWarning")
@pytest.mark.parametrize("unusual", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_calls_answer_as_in_torch(unusual):
    theirs = outcome(unusual, T)
    ours = outcome(unusual, F)
    if isinstance(theirs, torch.Tensor) and theirs.layout != torch.strided:
        assert ours.layout == theirs.layout
        ours, theirs = ours.to_dense(), theirs.to_dense()
    if isinstance(theirs, torch.Tensor) and theirs.is_complex():
        ours, theirs = torch.view_as_real(ours), torch.view_as_real(theirs)
    same_outcome(ours, theirs)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("x", [x34, x264], ids=["2-D", "3-D"])
def test_no_dim_warns_and_chooses_as_in_torch(name, x):
    """The warning points to the line of the caller."""
    found = []
    for lib in (F, T):
        with pytest.warns(UserWarning, match="Implicit dimension choice") as record:
            found.append(getattr(lib, name)(x))
        assert record[0].filename == __file__
    near(*found)


EMPTY = {
    "layer_norm, no example": ((0, 4), lambda lib, x: lib.layer_norm(x, (4,), torch.ones(4), torch.ones(4))),
    "layer_norm, no feature": ((3, 0), lambda lib, x: lib.layer_norm(x, (0,))),
    "layer_norm, no token": ((2, 0, 4), lambda lib, x: lib.layer_norm(x, (0, 4))),
    "rms_norm, no example": ((0, 4), lambda lib, x: lib.rms_norm(x, (4,), torch.ones(4))),
    "rms_norm, no feature": ((3, 0), lambda lib, x: lib.rms_norm(x, (0,))),
    "group_norm, no example": ((0, 6, 4), lambda lib, x: lib.group_norm(x, 3, six, six)),
    "group_norm, no position": ((2, 6, 0), lambda lib, x: lib.group_norm(x, 3)),
    "group_norm, no channel": ((2, 0, 4), lambda lib, x: lib.group_norm(x, 3)),
    "instance_norm, no example": ((0, 6, 4), lambda lib, x: lib.instance_norm(x)),
    "instance_norm, no position": ((2, 6, 0), lambda lib, x: lib.instance_norm(x)),
    "instance_norm, no channel": ((2, 0, 4), lambda lib, x: lib.instance_norm(x)),
    "batch_norm, no example": ((0, 6), lambda lib, x: lib.batch_norm(x, None, None, six, six, True)),
    "batch_norm, no position": ((2, 6, 0), lambda lib, x: lib.batch_norm(x, None, None, training=True)),
    "batch_norm, no example, running": ((0, 6), lambda lib, x: lib.batch_norm(x, six, six)),
    "batch_norm, no channel, running": ((2, 0), lambda lib, x: lib.batch_norm(x, six[:0], six[:0])),
    "softmax, no row": ((0, 4), lambda lib, x: lib.softmax(x, 1)),
    "softmax of nothing": ((3, 0), lambda lib, x: lib.softmax(x, 1)),
    "softmax of a vector of nothing": ((0,), lambda lib, x: lib.softmax(x, 0)),
    "log_softmax of nothing": ((3, 0, 2), lambda lib, x: lib.log_softmax(x, 0)),
    "cross_entropy, mean": ((0, 4), lambda lib, x: lib.cross_entropy(x, classes[:0])),
    "cross_entropy, sum": ((0, 4), lambda lib, x: lib.cross_entropy(x, classes[:0], reduction="sum")),
    "cross_entropy, none": ((0, 4), lambda lib, x: lib.cross_entropy(x, classes[:0], reduction="none")),
    "cross_entropy, no class": ((3, 0), lambda lib, x: lib.cross_entropy(x, classes)),
}


@pytest.mark.parametrize(("shape", "run"), EMPTY.values(), ids=EMPTY)
def test_nothing_in_nothing_out_as_in_torch(shape, run):
    found = []
    for lib in (F, T):
        x = torch.empty(shape, requires_grad=True)

        def forward_and_backward(lib=lib, x=x):
            y = run(lib, x)
            y.sum().backward()
            return y.detach()

        found.append((outcome(forward_and_backward), x.grad))
    (ours, dx), (theirs, right_dx) = found
    same_outcome(ours, theirs)
    near(dx, right_dx)


# ---- PyTorch's own samples -------------------------------------------------------------------------------------------

PLACES = {f"nn.functional.{name}": name for name in F.__all__} | {"softmax": "softmax", "log_softmax": "log_softmax"}
SAMPLED = [op for op in op_db if op.name in PLACES]


def test_pytorch_has_samples_of_every_function():
    assert {PLACES[op.name] for op in SAMPLED} == set(F.__all__)


@dtypes(*DTYPES)
@pytest.mark.parametrize("op", SAMPLED, ids=lambda op: f"{op.name} {op.variant_test_name}")
def test_pytorchs_samples(op, dtype):
    """Outputs, gradients, and what was written to the arguments (running statistics)."""
    name, units = PLACES[op.name], 8 if dtype in HALVES else 4096  # 1 / sqrt(eps) magnifies
    for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
        found = []
        for lib in (F, T):
            own = sample.transform(
                lambda t: t.detach().clone().requires_grad_(t.requires_grad) if torch.is_tensor(t) else t
            )
            tensors = [t for t in (own.input, *own.args, *own.kwargs.values()) if torch.is_tensor(t)]
            y = outcome(getattr(lib, name), own.input, *own.args, **own.kwargs)
            if torch.is_tensor(y) and y.requires_grad:
                y.backward(cotangent(y))
            found.append((y, tensors))
        (ours, our_tensors), (theirs, their_tensors) = found
        same_outcome(ours, theirs, units)
        for mine, right in zip(our_tensors, their_tensors, strict=True):
            if right.dtype.is_floating_point:
                near(mine.detach(), right.detach(), units)
            near(mine.grad, right.grad, units)


@pytest.mark.parametrize("op", [op for op in SAMPLED if op.error_inputs_func], ids=lambda op: op.name)
def test_pytorchs_error_samples(op):
    for sample in op.error_inputs("cpu"):
        call = sample.sample_input
        args, kwargs = (call.input, *call.args), call.kwargs
        theirs = outcome(getattr(T, PLACES[op.name]), *args, **kwargs)
        assert issubclass(theirs[0], sample.error_type)
        assert outcome(getattr(F, PLACES[op.name]), *args, **kwargs) == theirs


# ---- The operators ---------------------------------------------------------------------------------------------------


class Operators(TorchDispatchMode):
    """Calls of normlab's operators: (operator, arguments, keyword arguments). Counters of operations, fake tensors and
    selective checkpointing are modes like this one."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "normlab":
            self.calls.append((function, args, kwargs or {}))
        return function(*args, **(kwargs or {}))


def name_of(operator):
    return operator.name().partition("::")[2]


def detached(t, requires_grad=False):
    if not torch.is_tensor(t):
        return t
    return t.detach().clone(memory_format=torch.preserve_format).requires_grad_(requires_grad and t.requires_grad)


def seen_operators(call, tensors):
    """Every operator that a call needs, with the arguments it got: forward, backward, and out=."""
    with Operators() as seen:
        with_gradients(lambda *t: call.run(F, *t), leaves(tensors))
        if call.has_out:
            call.run(F, *tensors, out=torch.empty(tensors[0].shape, dtype=tensors[0].dtype))
    for operator, args, kwargs in seen.calls:
        yield operator, [detached(t) for t in args], {key: detached(t) for key, t in kwargs.items()}
        name = name_of(operator)
        if name.endswith("_forward"):  # what stands above it, with the gradient, takes the same
            with_gradient = getattr(torch.ops.normlab, name.removesuffix("_forward")).default
            yield with_gradient, [detached(t, requires_grad=True) for t in args], {}


def operator_samples():
    for call in CALLS.values():
        x, *parameters = drawn(call)
        yield from seen_operators(call, [x, *parameters])
        yield from seen_operators(call, [x.transpose(0, -1).contiguous().transpose(0, -1), None, parameters[1]])
        if x.dim() == 4:
            yield from seen_operators(call, [x.to(memory_format=torch.channels_last), parameters[0], None])
    for name in ("layer_norm", "softmax"):
        yield from seen_operators(CALLS[name], drawn(CALLS[name], shape=(0, 5, 6)))
        yield from seen_operators(CALLS[name], drawn(CALLS[name], torch.bfloat16))


@pytest.fixture(scope="module")
def samples():
    """The samples of each operator, by its name."""
    by_name = {}
    for operator, args, kwargs in operator_samples():
        by_name.setdefault(name_of(operator), []).append((operator, args, kwargs))
    return by_name


OPERATORS = sorted(
    name.removeprefix("normlab::") for name in torch._C._dispatch_get_all_op_names() if name.startswith("normlab::")
)


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", OPERATORS)
def test_opcheck(name, step, samples):
    for operator, args, kwargs in samples[name][::step]:
        torch.library.opcheck(operator, args, kwargs)


@every_call
def test_dispatch_modes_see_the_operators(call):
    names = [name_of(operator) for operator, _, _ in seen_operators(call, drawn(call))]
    assert any(name.endswith("_backward") for name in names)
    assert any(name.endswith("_forward") for name in names)


# ---- Autograd --------------------------------------------------------------------------------------------------------


def twice_differentiable(run, tensors):
    """Second derivatives are those of the first, and the first are the same whether or not a second may follow."""
    y = run(*tensors)
    once, again = (torch.autograd.grad(y, tensors, cotangent(y), create_graph=more) for more in (True, False))
    all_near([gradient.detach() for gradient in once], again)
    assert torch.autograd.gradgradcheck(run, tensors, fast_mode=True)


AFFINE = [[""], ["weight", ""], ["weight bias", "weight", "bias", ""]]
EVERY_WAY = {
    f"{name}, {affine or 'neither'}": (call, affine)
    for name, call in CALLS.items()
    for affine in AFFINE[call.parameters]
}


@pytest.mark.parametrize(("call", "affine"), EVERY_WAY.values(), ids=EVERY_WAY)
def test_first_and_second_derivatives(call, affine):
    present = [t for t in leaves(drawn(call, torch.float64, affine)) if t is not None]
    places = [t is not None for t in drawn(call, torch.float64, affine)]

    def run(*tensors):
        given = iter(tensors)
        return call.run(F, *(next(given) if place else None for place in places))

    assert torch.autograd.gradcheck(run, present, fast_mode=True, check_batched_grad=True)
    twice_differentiable(run, present)


LOSSES = [
    dict(zip(("reduction", "label_smoothing", "weight", "ignore_index"), options, strict=True))
    for options in itertools.product(
        ["mean", "sum", "none"], [0.0, 0.3], [None, torch.tensor([0.5, 2.0, 0.0, 1.5])], [-100, 2]
    )
]


@pytest.mark.parametrize(
    "options",
    LOSSES,
    ids=lambda o: f"{o['reduction']} {o['label_smoothing']} {o['weight'] is not None} {o['ignore_index']}",
)
@pytest.mark.parametrize("shape", [(4,), (5, 4), (3, 4, 2), (2, 4, 3, 2)], ids=str)
def test_every_option_of_cross_entropy(shape, options):
    """Values and gradients as in PyTorch, and second derivatives."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = None if options["weight"] is None else options["weight"].double()
    options = options | {"weight": weight}
    target = targets(x, options["ignore_index"]) if x.dim() > 1 else torch.tensor(3)
    for t in (target, probabilities(x)):
        if t.dtype == torch.float64 and options["ignore_index"] >= 0:
            continue
        all_near(
            *(
                with_gradients(lambda x, lib=lib, t=t: lib.cross_entropy(x, t, **options), leaves([x], [True]))
                for lib in (F, T)
            )
        )
        own = x.clone().requires_grad_()
        twice_differentiable(lambda x, t=t: F.cross_entropy(x, t, **options), [own])


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.parameters])
@pytest.mark.parametrize("which", list(itertools.product([True, False], repeat=3)), ids=str)
def test_gradients_for_any_subset_of_the_inputs(name, which):
    call = CALLS[name]
    tensors = drawn(call, torch.float64)
    found = []
    for lib in (F, T):
        own = leaves(tensors, which)
        y = call.run(lib, *own)
        if y.requires_grad:
            y.backward(cotangent(y))
        found.append((y.requires_grad, [y.detach(), *(None if t is None else t.grad for t in own)]))
    (differentiable, ours), (right, theirs) = found
    assert differentiable == right
    all_near(ours, theirs)


@every_call
def test_without_a_graph(call):
    tensors = drawn(call)
    plain = call.run(F, *tensors)
    assert not plain.requires_grad
    with torch.no_grad():
        without = call.run(F, *leaves(tensors))
    with torch.inference_mode():
        inferred = call.run(F, *leaves(tensors))
    graph = call.run(F, *leaves(tensors))
    assert not without.requires_grad
    assert inferred.is_inference()
    assert graph.grad_fn is not None
    for y in (without, inferred, graph.detach()):
        assert torch.equal(y, plain)


@every_call
def test_a_saved_tensor_that_was_changed_is_noticed(call):
    """The gradient is refused, or it is right nonetheless. It is refused wherever PyTorch refuses."""
    tensors = drawn(call)
    for changed in ("x", "y"):
        refused = []
        for lib in (F, T):
            own = leaves(tensors)
            y = call.run(lib, *own)
            loss = (y * cotangent(y)).sum()
            with torch.no_grad():
                (y if changed == "y" else own[0]).mul_(2)
            answer = outcome(loss.backward)
            refused.append(isinstance(answer, tuple) and "modified by an inplace operation" in answer[1])
            if answer is None:
                near(own[0].grad, with_gradients(lambda *t: call.run(T, *t), leaves(tensors))[1])
        ours, theirs = refused
        assert ours or not theirs


@every_call
def test_inputs_are_never_changed(call):
    tensors = leaves(drawn(call))
    tensors[0] = tensors[0].detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
    before = [None if t is None else t.detach().clone() for t in tensors]
    y = call.run(F, *tensors)
    dy = cotangent(y)
    y.backward(dy)
    assert torch.equal(dy, cotangent(y))
    for now, then in zip(tensors, before, strict=True):
        assert now is None or torch.equal(now, then)


@every_call
def test_transforms_of_torch_func(call):
    tensors = [t for t in drawn(call, torch.float64) if t is not None]
    x, rest = tensors[0], tensors[1:] + [None] * (3 - len(tensors))
    batch = torch.stack([x, -x, x / 2])
    tangent = x.sin()

    def vmapped(run):
        return torch.func.vmap(run)(batch)

    def jvp(run):
        return torch.func.jvp(run, (x,), (tangent,))[1]

    def dual(run):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(run(forward_ad.make_dual(x, tangent))).tangent

    def reverse(run):
        return torch.func.jacrev(run)(x)

    def hessian(run):
        return torch.func.hessian(lambda x: run(x).square().sum())(x)

    for transform in (vmapped, jvp, dual, reverse, hessian):
        results = [outcome(transform, lambda x, lib=lib: call.run(lib, x, *rest)) for lib in (F, T)]
        same_outcome(*results)


# ---- torch.compile, autocast, meta tensors, subclasses ---------------------------------------------------------------


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def wider(call):
    """The shape of a call with other examples (and positions), and the same channels."""
    last = call.shape[-1:] == call.affine[-1:] and len(call.shape) != 2
    return (
        (call.shape[0] + 2, *call.shape[1:])
        if last or len(call.shape) < 3
        else (call.shape[0] + 2, *call.shape[1:-1], 7)
    )


def compiled_equals_eager(call, function, shapes):
    for seed, shape in enumerate(shapes):
        tensors = drawn(call, seed=seed, shape=shape)
        eager = with_gradients(lambda *t: call.run(F, *t), leaves(tensors))
        all_near(with_gradients(function, leaves(tensors)), eager)


@pytest.mark.parametrize(
    "call",
    [pytest.param(c, marks=pytest.mark.exhaustive if i % 2 else ()) for i, c in enumerate(CALLS.values())],
    ids=list(CALLS),
)
def test_compiled_with_shapes_that_change(call, fresh_dynamo):
    function = torch.compile(lambda *t: call.run(F, *t), fullgraph=True, backend="aot_eager", dynamic=True)
    compiled_equals_eager(call, function, [call.shape, wider(call)])


@pytest.mark.parametrize("name", ["layer_norm", "batch_norm of images", "softmax", "cross_entropy of positions"])
def test_compiled_for_one_shape(name, fresh_dynamo):
    call = CALLS[name]
    function = torch.compile(lambda *t: call.run(F, *t), fullgraph=True, backend="aot_eager", dynamic=False)
    compiled_equals_eager(call, function, [call.shape])


def test_compiled_training_updates_the_running_statistics(fresh_dynamo):
    found = []
    for run in (F.batch_norm, torch.compile(F.batch_norm, fullgraph=True, backend="aot_eager")):
        mean, variance = torch.zeros(6), torch.ones(6)
        run(x264, mean, variance, six, six, True, 0.5)
        found.append((mean, variance))
    all_near(*found)
    assert found[0][0].any()


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_compiled_by_inductor(system_tool, fresh_dynamo):
    """torch.compile with its own backend, which writes C++, around one of the operators."""
    system_tool("g++")
    call = CALLS["layer_norm"]
    function = torch.compile(lambda *t: call.run(F, *t) * 2, fullgraph=True)
    tensors = drawn(call)
    all_near(with_gradients(function, leaves(tensors)), with_gradients(lambda *t: call.run(F, *t) * 2, leaves(tensors)))


@dtypes(torch.float32, torch.bfloat16)
@every_call
def test_autocast(call, dtype):
    tensors = drawn(call, dtype)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (with_gradients(lambda *t, lib=lib: call.run(lib, *t), leaves(tensors)) for lib in (F, T))
    all_near(ours, theirs, units=8 if dtype == torch.bfloat16 else 32)


@every_call
def test_meta_tensors(call):
    meta = [None if t is None else t.to("meta") for t in drawn(call)]
    with torch.device("meta"):
        ours, theirs = call.run(F, *meta), call.run(T, *meta)
    assert ours.is_meta
    assert (ours.shape, ours.dtype, ours.stride()) == (theirs.shape, theirs.dtype, theirs.stride())


class Named(torch.Tensor):
    """A subclass that adds nothing."""


class Recorder(torch.overrides.TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.append(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


@every_call
def test_subclasses_stay_what_they_are(call):
    tensors = drawn(call)
    tensors[0] = tensors[0].as_subclass(Named)
    near(call.run(F, *tensors), call.run(T, *tensors))


def doubled(t):
    """A tensor that holds two and has no memory of its own."""
    return TwoTensor(t.clone(), t * 2) if t.is_floating_point() else TwoTensor(t.clone(), t.clone())


WITHOUT_MEMORY = {
    "the input": lambda lib: lib.layer_norm(doubled(x34), (4,)),
    "logits": lambda lib: lib.softmax(doubled(x34), 1),
    "a weight": lambda lib: lib.layer_norm(x34, (4,), doubled(x34[0])),
    "a bias": lambda lib: lib.group_norm(x264, 3, six, doubled(six)),
    "statistics": lambda lib: lib.batch_norm(x264, doubled(six), doubled(six)),
    "targets": lambda lib: lib.cross_entropy(x34, doubled(classes)),
    "class weights": lambda lib: lib.cross_entropy(x34, classes, doubled(x34[0].abs())),
    "a gradient": lambda lib: torch.autograd.grad(
        lib.softmax(own := x34.clone().requires_grad_(), 1), own, doubled(x34)
    )[0],
}


@pytest.mark.parametrize("run", WITHOUT_MEMORY.values(), ids=WITHOUT_MEMORY)
def test_tensors_without_memory_of_their_own(run):
    """The address of such a tensor is 0: a kernel would take it for None, or read there."""
    ours, theirs = run(F), run(T)
    assert type(ours) is type(theirs) is TwoTensor
    all_near((ours.a, ours.b), (theirs.a, theirs.b))


@pytest.mark.parametrize("name", F.__all__)
def test_torch_function_sees_the_function(name):
    """Subclasses and modes that override a function by its name meet ours as they meet PyTorch's; torch.fx too."""
    call = CALLS[name]
    x, *rest = drawn(call)
    with Recorder() as recorder:
        call.run(F, x, *rest)
    assert name in recorder.names


@pytest.mark.parametrize(
    "name", [name for name in F.__all__ if name not in ("instance_norm", "batch_norm", "cross_entropy")]
)
def test_symbolic_tracing(name):
    call = CALLS[name]
    x, *rest = drawn(call)

    class Module(torch.nn.Module):
        def forward(self, x):
            return call.run(F, x, *rest)

    traced = torch.fx.symbolic_trace(Module())
    assert torch.equal(traced(x), call.run(F, x, *rest))


# ---- out= ------------------------------------------------------------------------------------------------------------


@dtypes(*DTYPES)
@every_call_with_out
def test_out_gets_the_result(call, dtype):
    tensors = drawn(call, dtype)
    right = call.run(F, *tensors)
    sparse = right.new_zeros([2 * n for n in right.shape])
    sliced = sparse[tuple(slice(1, None, 2) for _ in right.shape)]
    transposed = torch.empty_like(right.transpose(0, -1), memory_format=torch.contiguous_format).transpose(0, -1)
    for out in (torch.full_like(right, 7.0), sliced, transposed):
        assert call.run(F, *tensors, out=out) is out
        assert torch.equal(out, right)
    assert sparse.count_nonzero() <= right.numel()  # nothing was written beside


@every_call_with_out
def test_out_may_be_the_input(call):
    for layout in (torch.clone, lambda x: x.transpose(0, -1).contiguous().transpose(0, -1)):
        tensors = drawn(call)
        right = call.run(F, *tensors)
        x = layout(tensors[0])
        assert call.run(F, x, *tensors[1:], out=x) is x
        near(x, right)


@every_call_with_out
def test_an_out_that_does_not_fit_is_refused(call):
    tensors = drawn(call)
    x = tensors[0]
    for out in (x.new_empty(x.shape[1:]), x.double(), x.new_empty((*x.shape, 1)), x.to("meta")):
        with pytest.raises(RuntimeError, match=r"out must be like the result, \(.*\) of torch.float32 on cpu: it is"):
            call.run(F, *tensors, out=out)


@every_call_with_out
def test_out_is_for_tensors_without_gradient(call):
    tensors = drawn(call)
    y = torch.empty_like(tensors[0])
    for which in itertools.product([False, True], repeat=3):
        own = leaves(tensors, which)
        if any(t is not None and t.requires_grad for t in own):
            with pytest.raises(RuntimeError, match="do not support automatic differentiation"):
                call.run(F, *own, out=y)
    with pytest.raises(RuntimeError, match="do not support automatic differentiation"):
        call.run(F, *tensors, out=y.clone().requires_grad_())
    with torch.no_grad():
        assert torch.equal(call.run(F, *leaves(tensors), out=y), call.run(F, *tensors))


@every_call_with_out
def test_autograd_notices_what_out_overwrote(call):
    tensors = drawn(call)
    a, saved = torch.ones(call.shape, requires_grad=True), torch.ones(call.shape)
    product = a * saved
    call.run(F, *tensors, out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


@pytest.mark.parametrize(
    "run",
    [
        lambda **out: F.batch_norm(torch.empty(0, 6), six, six, **out),
        lambda **out: F.layer_norm(torch.empty(0, 6), (6,), **out),
        lambda **out: F.softmax(torch.empty(0, 6), 1, **out),
        lambda **out: F.group_norm(torch.empty(0, 6), 3, **out),
    ],
    ids=["batch_norm", "layer_norm", "softmax", "group_norm"],
)
def test_out_is_returned_for_nothing_too(run):
    out = torch.empty(0, 6)
    assert run(out=out) is out


# ---- Running statistics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0])
@pytest.mark.parametrize("beside", [torch.float32, "x"], ids=["float32", "of x's dtype"])
@dtypes(*DTYPES)
@pytest.mark.parametrize("shape", [(5, 6), (4, 6, 5), (2, 6, 3, 4)], ids=str)
@pytest.mark.parametrize("norm", ["batch_norm", "instance_norm"])
def test_running_statistics(norm, shape, dtype, beside, momentum):
    """Two steps of training, then evaluation, which leaves them alone."""
    if norm == "instance_norm" and len(shape) < 3:
        shape = (*shape, 7)
    if beside is torch.float32 and dtype == torch.float64:
        beside = "x"
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(2).add(1).to(dtype)
    found = []
    for lib in (F, T):
        mean, variance = (torch.full((6,), start, dtype=dtype if beside == "x" else beside) for start in (0.5, 2.0))
        function = getattr(lib, norm)
        if lib is T and norm == "instance_norm" and mean.dtype != dtype:
            x = x.float()  # PyTorch 2.13 rounds the statistics to x's type before it keeps them
        trained = [function(x * step, mean, variance, None, None, True, momentum) for step in (1, 2)]
        after = mean.clone(), variance.clone()
        evaluated = function(x, mean, variance, None, None, False, momentum)
        assert torch.equal(mean, after[0])
        assert torch.equal(variance, after[1])
        found.append([*(y.to(dtype) for y in trained), mean, variance, evaluated.to(dtype)])
    all_near(*found, units=4 if dtype in HALVES else 32)


@pytest.mark.parametrize("norm", ["batch_norm", "instance_norm"])
def test_running_statistics_stay_as_they_are_when_the_call_fails(norm):
    mean, variance = torch.zeros(6), torch.ones(6)
    with pytest.raises(RuntimeError):
        getattr(F, norm)(x264, mean, variance, eight, None, True)
    with pytest.raises(RuntimeError, match="out must be"):
        getattr(F, norm)(x264, mean, variance, None, None, True, out=torch.empty(3))
    assert not mean.any()
    assert (variance == 1).all()


def test_evaluation_is_differentiable_while_the_statistics_change():
    """By the statistics that were used. PyTorch refuses: it would read them again."""
    x, weight = x264.clone().requires_grad_(), six.clone().requires_grad_()
    mean, variance = six.clone(), six.clone()
    (right,) = torch.autograd.grad(T.batch_norm(x, mean, variance, weight).square().sum(), x)
    y = F.batch_norm(x, mean, variance, weight).square().sum()
    mean.add_(1)
    variance.mul_(4)
    (ours,) = torch.autograd.grad(y, x)
    near(ours, right)


# ---- Memory ----------------------------------------------------------------------------------------------------------


@every_call
def test_large_tensors(call):
    """Above 4 MiB results stand in huge pages."""
    n = 1_300_000 // torch.Size(call.shape[1:]).numel()
    tensors = drawn(call, shape=(n, *call.shape[1:]))
    ours, theirs = (with_gradients(lambda *t, lib=lib: call.run(lib, *t), leaves(tensors)) for lib in (F, T))
    # weight and bias gather sums of 100,000 numbers: PyTorch's own are off by more than some roundings.
    all_near(ours[:2], theirs[:2], units=256)
    all_near(ours[2:], theirs[2:], units=20_000)


def strided_layouts(x):
    yield x.contiguous(memory_format=torch.channels_last)
    yield x.permute(2, 1, 0, 3)
    yield x[::2]


@pytest.mark.parametrize(
    "name", ["group_norm", "batch_norm of images", "layer_norm", "instance_norm", "softmax of columns"]
)
def test_results_stand_in_memory_as_those_of_torch(name):
    """What follows may ask for a view."""
    call = CALLS[name]
    x = torch.randn(4, 6, 5, 6)
    for own in strided_layouts(x):
        found = [call.run(lib, own.detach().requires_grad_(), None, None) for lib in (F, T)]
        assert found[0].stride() == found[1].stride()


def test_no_function_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in CALLS.values():
            with_gradients(lambda *t, call=call: call.run(F, *t), leaves(drawn(call)))
