"""nn.py against torch.nn, step by step; PyTorch's own samples and checks for these layers, pointed at ours; convert."""

import copy
import inspect
import io
import pickle
from collections import OrderedDict
from itertools import product

import numpy as np
import pytest
import torch
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db
from torch.testing._internal.common_utils import noncontiguous_like
from torch.utils._python_dispatch import TorchDispatchMode

from normlab import cases, nn

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = [name for name in nn.__all__ if name != "convert"]
BATCH_NORMS = [name for name in NAMES if name.startswith("BatchNorm")]
NORMS = [name for name in NAMES if "Norm" in name]


# ---- What is compared, and how closely -------------------------------------------------------------------------------


OTHER = {torch.float64: torch.float32, torch.float32: torch.float64}


def in_dtype(values, dtype):
    """Copies of `values`, those that are floating-point tensors in `dtype`."""
    floating = [isinstance(value, torch.Tensor) and value.is_floating_point() for value in values]
    return [
        v.detach().to(dtype).requires_grad_(v.requires_grad) if f else v for v, f in zip(values, floating, strict=True)
    ]


def outcome(layer, inputs, seed=0):
    """All that one call of `layer`, and the backward if it has a gradient, leave behind: name -> tensor."""
    inputs = [value.detach().clone().requires_grad_(value.requires_grad) for value in inputs]
    layer.zero_grad()
    y = layer(*inputs)
    if y.requires_grad:
        cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        # Few enough places for every type, so that all get the same numbers.
        y.backward(cotangent.mul(8).round().div(8).to(y.dtype))
    left = {"output": y.detach()}
    left |= {f"gradient of input {i}": value.grad for i, value in enumerate(inputs) if value.requires_grad}
    left |= {f"gradient of {name}": value.grad for name, value in layer.named_parameters()}
    left |= {name: value.detach().clone() for name, value in layer.state_dict().items()}
    return left


def close(ours, theirs, other, step=""):
    """Ours is of PyTorch's types and shapes, and as near to the truth as the tolerance rule asks.

    other: what PyTorch's layer left in float64, which is the truth; or, if that is what `theirs` is, in float32: then
    its error, at the scale of float64, says what can be asked of float64.
    """
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if value is None:
            assert ours[name] is None, name
            continue
        assert ours[name].dtype == value.dtype, name
        assert ours[name].shape == value.shape, name
        if not value.is_floating_point():
            assert torch.equal(ours[name], value), f"{step} {name}: {ours[name]}, PyTorch's {value}"
            continue
        got, plain, truth = (tensor[name].double().numpy() for tensor in (ours, theirs, other))
        if value.dtype == torch.float64:
            plain, truth = plain + (truth - plain) * (np.finfo(np.float64).eps / np.finfo(np.float32).eps), plain
        allowed = cases.tolerance(truth, plain, np.float64 if value.dtype == torch.float64 else np.float32)
        if value.dtype in (torch.float16, torch.bfloat16):
            allowed += 2 * torch.finfo(value.dtype).eps * np.abs(truth).max(initial=0.0)
        np.testing.assert_allclose(got, truth, rtol=0, atol=allowed, err_msg=f"{step} {name}")


def shuffled(layer):
    """`layer`, with parameters that are not 1 and 0, but may be told apart."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape) + 0.5)
    return layer


def twin(theirs, *args, **kwargs):
    """Our layer of the same kind, made with the same arguments, that has PyTorch's state."""
    ours = getattr(nn, type(theirs).__name__)(*args, **kwargs)
    for dtype in {value.dtype for value in theirs.state_dict().values() if value.is_floating_point()}:
        ours.to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours.train(theirs.training)


# ---- Each layer, each shape, each flag, through some steps -----------------------------------------------------------


def settings():
    """(name, arguments, shape of the input): each class with each of its flags, in each number of dimensions."""
    shapes = {"1d": [(5, 4), (5, 4, 3)], "2d": [(3, 4, 5, 2)], "3d": [(2, 4, 3, 2, 3)]}
    flags = [
        {"affine": affine, "track_running_stats": track, "momentum": momentum}
        for affine, track, momentum in product((True, False), (True, False), (0.3, None))
        if track or momentum is not None
    ]
    for name in BATCH_NORMS:
        for shape, kwargs in product(shapes[name[-2:]], [{}, *flags, {"bias": False}, {"eps": 0.1}, {"momentum": 0.0}]):
            yield name, {"num_features": 4, **kwargs}, shape
    shapes = {"1d": [(5, 4, 3), (4, 5)], "2d": [(3, 4, 5, 2), (4, 5, 2)], "3d": [(2, 4, 3, 2, 3), (4, 3, 2, 3)]}
    for name in NAMES:
        if name.startswith("InstanceNorm"):
            for shape, kwargs in product(shapes[name[-2:]], [{}, *flags, {"affine": True, "bias": False}]):
                yield name, {"num_features": 4, **kwargs}, shape
    shapes = [((5, 7), 7), ((2, 3, 7), 7), ((2, 3, 7), (3, 7)), ((2, 3, 4, 5), [4, 5]), ((2, 3, 2, 2, 5), (2, 5))]
    for shape, normalized in shapes:
        for kwargs in ({}, {"elementwise_affine": False}, {"bias": False}, {"eps": 0.1}):
            yield "LayerNorm", {"normalized_shape": normalized, **kwargs}, shape
        for kwargs in ({}, {"elementwise_affine": False}, {"eps": 0.1}):
            yield "RMSNorm", {"normalized_shape": normalized, **kwargs}, shape
    for shape in ((4, 6), (2, 6, 5), (2, 6, 3, 4), (2, 6, 2, 3, 2)):
        for groups, kwargs in product((1, 3, 6), ({}, {"affine": False}, {"bias": False}, {"eps": 0.1})):
            if len(shape) > 2 or groups < 6:
                yield "GroupNorm", {"num_groups": groups, "num_channels": 6, **kwargs}, shape
    for shape in ((7,), (5, 7), (2, 3, 7), (2, 3, 4, 5), (2, 3, 2, 2, 5)):
        for name, dim in product(("Softmax", "LogSoftmax"), range(-1, len(shape))):
            yield name, {"dim": dim}, shape
    for shape in ((5,), (6, 5), (3, 5, 4), (2, 5, 3, 2)):
        for kwargs in (
            {},
            {"reduction": "sum"},
            {"reduction": "none"},
            {"label_smoothing": 0.2, "ignore_index": 1},
            {"weight": torch.tensor([0.5, 1.0, 2.0, 0.25, 3.0])},
        ):
            yield "CrossEntropyLoss", kwargs, shape


def described(setting):
    name, kwargs, shape = setting
    given = [f"{key}={value if not isinstance(value, torch.Tensor) else '...'}" for key, value in kwargs.items()]
    return f"{name}({', '.join(given)}) on {shape}"


SETTINGS = list(settings())
every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=described)


def layers(setting, dtype=torch.float32):
    """Our layer, PyTorch's, and PyTorch's in float64 (in float32 if dtype is float64), in the same state."""
    name, kwargs, _ = setting
    theirs = shuffled(getattr(torch.nn, name)(**kwargs)).to(dtype)
    return twin(theirs, **kwargs), theirs, copy.deepcopy(theirs).to(OTHER.get(dtype, torch.float64))


def inputs_of(setting, dtype):
    name, _, shape = setting
    x = (torch.randn(shape) * 2 + 3).to(dtype).requires_grad_()
    if name != "CrossEntropyLoss":
        return [x]
    return [x, torch.randint(0, 5, shape[:1] + shape[2:] if len(shape) > 1 else ())]


@every_setting
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_step_by_step_as_pytorch(setting, dtype):
    """Training with and without a gradient, then with the statistics frozen: outputs, gradients, statistics, counts."""
    torch.manual_seed(0)
    ours, theirs, other = layers(setting, dtype)
    for step, (training, differentiable) in enumerate(
        [(True, True)] * 3 + [(True, False), (False, True), (False, False)]
    ):
        inputs = inputs_of(setting, dtype)
        with torch.set_grad_enabled(differentiable):
            left = [outcome(layer.train(training), inputs, step) for layer in (ours, theirs)]
            close(*left, outcome(other.train(training), in_dtype(inputs, OTHER[dtype]), step), f"step {step}:")
        with torch.no_grad():
            for parameters in zip(ours.parameters(), theirs.parameters(), other.parameters(), strict=True):
                if differentiable:
                    new = parameters[1] - 0.1 * parameters[1].grad
                    for parameter in parameters:
                        parameter.copy_(new)


HALF_SETTINGS = [
    ("BatchNorm1d", {"num_features": 4}, (5, 4)),
    ("BatchNorm2d", {"num_features": 4, "momentum": None}, (3, 4, 5, 2)),
    ("BatchNorm3d", {"num_features": 4}, (2, 4, 3, 2, 3)),
    ("InstanceNorm1d", {"num_features": 4, "affine": True}, (5, 4, 3)),
    ("InstanceNorm2d", {"num_features": 4, "affine": True, "track_running_stats": True}, (3, 4, 5, 2)),
    ("InstanceNorm3d", {"num_features": 4}, (4, 3, 2, 3)),
    ("LayerNorm", {"normalized_shape": 7}, (2, 3, 7)),
    ("RMSNorm", {"normalized_shape": 7}, (2, 3, 7)),
    ("GroupNorm", {"num_groups": 3, "num_channels": 6}, (2, 6, 5)),
    ("Softmax", {"dim": 1}, (5, 7)),
    ("LogSoftmax", {"dim": 1}, (5, 7)),
    ("CrossEntropyLoss", {}, (6, 5)),
]


@pytest.mark.parametrize("setting", HALF_SETTINGS, ids=described)
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("all_half", [False, True], ids=["float32-parameters", "half-parameters"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")  # PyTorch's RMSNorm says so
def test_half_precision(setting, half, all_half, training):
    """Half inputs, beside float32 parameters or parameters as short: types as PyTorch's, values one rounding away."""
    torch.manual_seed(0)
    ours, theirs, exact = layers(setting, half if all_half else torch.float32)
    inputs = inputs_of(setting, half)
    ours, theirs, exact = (layer.train(training) for layer in (ours, theirs, exact))
    truth = outcome(exact, in_dtype(inputs, torch.float64))
    close(outcome(ours, inputs), outcome(theirs, inputs), truth)


# ---- What is PyTorch's own must stay so ------------------------------------------------------------------------------


class OperatorsSeen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.namespaces = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.namespaces.add(operator.namespace)
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("setting", HALF_SETTINGS, ids=described)
@pytest.mark.parametrize("differentiable", [True, False], ids=["with-gradient", "without"])
def test_our_kernels_run(setting, differentiable):
    """PyTorch's layer would pass all other tests too."""
    ours, theirs, _ = layers(setting)
    for layer, expected in ((ours, True), (theirs, False)):
        with torch.set_grad_enabled(differentiable), OperatorsSeen() as seen:
            layer(*inputs_of(setting, torch.float32))
        assert ("normlab" in seen.namespaces) == expected


@pytest.mark.parametrize("name", NAMES)
def test_class_is_a_torch_class(name):
    ours, theirs = getattr(nn, name), getattr(torch.nn, name)
    assert ours.__bases__ == (theirs,)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert list(inspect.signature(ours.forward).parameters) == list(inspect.signature(theirs.forward).parameters)


@every_setting
def test_repr(setting):
    ours, theirs, _ = layers(setting)
    assert repr(torch.nn.Sequential(ours)) == repr(torch.nn.Sequential(theirs))


@every_setting
def test_state_dict_both_ways(setting):
    """Through a file, into a layer that has seen other data."""
    torch.manual_seed(0)
    ours, theirs, _ = layers(setting)
    inputs = inputs_of(setting, torch.float32)
    for source, target in ((theirs, ours), (ours, theirs)):
        shuffled(target)(*inputs)
        source(*inputs)
        file = io.BytesIO()
        torch.save(source.state_dict(), file)
        file.seek(0)
        target.load_state_dict(torch.load(file, weights_only=True), strict=True)
        assert source.state_dict().keys() == target.state_dict().keys()
        for name, value in source.state_dict().items():
            assert torch.equal(value, target.state_dict()[name]), name


@pytest.mark.parametrize("name", BATCH_NORMS)
def test_old_state_dict(name):
    """Before PyTorch 0.4.1 there was no num_batches_tracked: the layer keeps the one it has."""
    layers = getattr(nn, name)(4), getattr(torch.nn, name)(4)
    shape = (3, 4, 2, 2, 2)[: 2 + int(name[-2]) - (name[-2] == "1")]
    for layer in layers:
        layer(torch.randn(shape))
        old = OrderedDict((key, value) for key, value in layer.state_dict().items() if key != "num_batches_tracked")
        layer.load_state_dict(old, strict=True)
    assert layers[0].num_batches_tracked == layers[1].num_batches_tracked == 1


def test_statistics_of_an_untracked_instance_norm_are_refused():
    old = OrderedDict(running_mean=torch.zeros(4), running_var=torch.ones(4))
    messages = [
        complaint(lambda m=m: m.load_state_dict(old.copy())) for m in (nn.InstanceNorm1d(4), torch.nn.InstanceNorm1d(4))
    ]
    assert messages[0] == messages[1]
    assert "Unexpected running stats buffer" in messages[0][1]


@pytest.mark.parametrize("setting", HALF_SETTINGS, ids=described)
@pytest.mark.parametrize("copied", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy], ids=["pickle", "deepcopy"])
def test_copies(setting, copied):
    torch.manual_seed(0)
    ours = layers(setting)[0]
    again = copied(ours)
    assert type(again) is type(ours)
    assert not {id(p) for p in again.parameters()} & {id(p) for p in ours.parameters()}
    left, right = (outcome(layer, inputs) for inputs in [inputs_of(setting, torch.float32)] for layer in (ours, again))
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("setting", [s for s in HALF_SETTINGS if "Norm" in s[0]], ids=described)
def test_device_and_dtype(setting):
    """On the meta device a layer has shapes and no numbers; a type may be asked for, or be the default."""
    name, kwargs, shape = setting
    kwargs = {**kwargs, "momentum": 0.1} if "momentum" in kwargs else kwargs
    for given in ({"device": "meta", "dtype": torch.float64}, {"device": "meta"}, {"dtype": torch.bfloat16}):
        left, right = (getattr(module, name)(**kwargs, **given) for module in (nn, torch.nn))
        for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True):
            assert (a.dtype, a.device, a.shape) == (b.dtype, b.device, b.shape)
        x = torch.empty(shape, device=given.get("device", "cpu"), dtype=given.get("dtype", torch.float32))
        y, expected = left(x), right(x)
        assert (y.dtype, y.device, y.shape) == (expected.dtype, expected.device, expected.shape)


@pytest.mark.parametrize("name", NORMS)
def test_reset_parameters(name):
    setting = next(s for s in HALF_SETTINGS if s[0] == name)
    kwargs = {**setting[1], "affine": True, "track_running_stats": True} if "num_features" in setting[1] else setting[1]
    ours, theirs, _ = layers((name, kwargs, setting[2]))
    ours(*inputs_of(setting, torch.float32))
    ours.reset_parameters()
    theirs.reset_parameters()
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("format", "shape"), [(torch.channels_last, (2, 6, 5, 4)), (torch.channels_last_3d, (2, 6, 3, 5, 4))]
)
@pytest.mark.parametrize("name", ["BatchNorm", "InstanceNorm", "GroupNorm"])
def test_memory_format(name, format, shape):
    """Channels last in memory: same numbers, and an output that stands in memory as PyTorch's does."""
    torch.manual_seed(0)
    name, kwargs = (name, {"num_groups": 3}) if name == "GroupNorm" else (f"{name}{len(shape) - 2}d", {})
    kwargs |= {"affine": True, "num_channels" if name == "GroupNorm" else "num_features": 6}
    ours, theirs, exact = layers((name, kwargs, shape))
    x = torch.randn(shape).contiguous(memory_format=format).requires_grad_()
    left = [outcome(ours, [x]), outcome(theirs, [x])]
    assert left[0]["output"].stride() == left[1]["output"].stride()
    close(*left, outcome(exact, [x.detach().double().requires_grad_()]))


# ---- Wrong inputs ----------------------------------------------------------------------------------------------------


def complaint(call):
    """What `call` raises: type and text."""
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    return None


def integers(*shape):
    return torch.arange(int(np.prod(shape))).reshape(shape)


WRONG = {
    "BatchNorm1d: four dimensions": ("BatchNorm1d", {"num_features": 4}, [torch.randn(2, 4, 3, 3)]),
    "BatchNorm2d: three dimensions": ("BatchNorm2d", {"num_features": 4}, [torch.randn(2, 4, 3)]),
    "BatchNorm3d: four dimensions": ("BatchNorm3d", {"num_features": 4}, [torch.randn(2, 4, 3, 3)]),
    "BatchNorm1d: one value a channel": ("BatchNorm1d", {"num_features": 4}, [torch.randn(1, 4)]),
    "BatchNorm2d: other channels": ("BatchNorm2d", {"num_features": 4}, [torch.randn(2, 5, 3, 3)]),
    "BatchNorm1d: double, parameters float": ("BatchNorm1d", {"num_features": 4}, [torch.randn(2, 4).double()]),
    "BatchNorm1d: integers": ("BatchNorm1d", {"num_features": 4}, [integers(2, 4)]),
    "InstanceNorm1d: four dimensions": ("InstanceNorm1d", {"num_features": 4}, [torch.randn(2, 4, 3, 3)]),
    "InstanceNorm2d: one position": ("InstanceNorm2d", {"num_features": 4}, [torch.randn(2, 4, 1, 1)]),
    "InstanceNorm3d: other channels": (
        "InstanceNorm3d",
        {"num_features": 4, "affine": True},
        [torch.randn(2, 5, 3, 3, 3)],
    ),
    "InstanceNorm3d: other channels, a warning": ("InstanceNorm3d", {"num_features": 4}, [torch.randn(2, 5, 3, 3, 3)]),
    "LayerNorm: other length": ("LayerNorm", {"normalized_shape": 7}, [torch.randn(2, 6)]),
    "LayerNorm: too few dimensions": ("LayerNorm", {"normalized_shape": (2, 7)}, [torch.randn(7)]),
    "LayerNorm: double, parameters float": ("LayerNorm", {"normalized_shape": 7}, [torch.randn(2, 7).double()]),
    "LayerNorm: empty shape": ("LayerNorm", {"normalized_shape": ()}, [torch.randn(7)]),
    "RMSNorm: other length": ("RMSNorm", {"normalized_shape": 7}, [torch.randn(2, 6)]),
    "RMSNorm: integers": ("RMSNorm", {"normalized_shape": 7}, [integers(2, 7)]),
    "GroupNorm: other channels": ("GroupNorm", {"num_groups": 3, "num_channels": 6}, [torch.randn(2, 9, 5)]),
    "GroupNorm: one dimension": ("GroupNorm", {"num_groups": 3, "num_channels": 6}, [torch.randn(6)]),
    "GroupNorm: groups do not divide": ("GroupNorm", {"num_groups": 4, "num_channels": 6}, [torch.randn(2, 6, 5)]),
    "Softmax: no such axis": ("Softmax", {"dim": 2}, [torch.randn(2, 6)]),
    "Softmax: integers": ("Softmax", {"dim": 1}, [integers(2, 6)]),
    "Softmax: no axis given, a warning": ("Softmax", {}, [torch.randn(2, 6)]),
    "LogSoftmax: no such axis": ("LogSoftmax", {"dim": -3}, [torch.randn(2, 6)]),
    "LogSoftmax: no axis given, a warning": ("LogSoftmax", {}, [torch.randn(2, 6)]),
    "CrossEntropyLoss: no such class": ("CrossEntropyLoss", {}, [torch.randn(2, 6), torch.tensor([1, 6])]),
    "CrossEntropyLoss: other batch": ("CrossEntropyLoss", {}, [torch.randn(2, 6), torch.tensor([1, 2, 3])]),
    "CrossEntropyLoss: other weight": (
        "CrossEntropyLoss",
        {"weight": torch.ones(5)},
        [torch.randn(2, 6), torch.tensor([1, 2])],
    ),
    "CrossEntropyLoss: no such reduction": (
        "CrossEntropyLoss",
        {"reduction": "min"},
        [torch.randn(2, 6), torch.tensor([1, 2])],
    ),
    "CrossEntropyLoss: smoothing above 1": (
        "CrossEntropyLoss",
        {"label_smoothing": 2.0},
        [torch.randn(2, 6), torch.tensor([1, 2])],
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_refused_in_the_same_words(wrong):
    name, kwargs, inputs = WRONG[wrong]
    ours, theirs = (complaint(lambda m=m: getattr(m, name)(**kwargs)(*inputs)) for m in (nn, torch.nn))
    assert theirs is not None
    assert ours == theirs


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_warning_about_the_axis_names_the_same_place(name):
    places = []
    for module in (nn, torch.nn):
        with pytest.warns(UserWarning, match="Implicit dimension choice") as caught:
            getattr(module, name)()(torch.randn(2, 3))
        places += [(warning.filename, warning.lineno) for warning in caught]
    assert len(places) == 2
    assert places[0] == places[1]


# ---- PyTorch's module tests, with our classes in the place of torch.nn's ---------------------------------------------


INFOS = {
    info.module_cls.__name__: info for info in module_db if info.module_cls in {getattr(torch.nn, n) for n in NAMES}
}


def samples(name, dtype, training):
    torch.manual_seed(SEED)
    info = INFOS[name]
    return list(info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training))


# No sample of cross entropy ignores all its targets under this seed: the loss would be NaN, which has no derivative.
SEED = 2


def _all_samples():
    for name in NAMES:
        for training in (True, False) if INFOS[name].train_and_eval_differ else (True,):
            for i, sample in enumerate(samples(name, torch.float64, training)):
                mode = "train" if training else "eval"
                yield pytest.param(name, training, i, id=f"{name}-{sample.desc or 'plain'}-{mode}-{i}")


every_sample = pytest.mark.parametrize(("name", "training", "index"), list(_all_samples()))


def of_sample(name, training, index, dtype=torch.float64):
    """Our layer, PyTorch's, the latter in the other type, the inputs, and PyTorch's reference function or None."""
    sample = samples(name, dtype, training)[index]
    given = sample.constructor_input
    theirs = shuffled(getattr(torch.nn, name)(*given.args, **given.kwargs)).to(dtype).train(training)
    assert not sample.forward_input.kwargs
    inputs = in_dtype(sample.forward_input.args, dtype)
    ours, other = twin(theirs, *given.args, **given.kwargs), copy.deepcopy(theirs).to(OTHER[dtype])
    return ours, theirs, other, inputs, sample.reference_fn


@every_sample
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_pytorchs_samples(name, training, index, dtype):
    ours, theirs, other, inputs, reference = of_sample(name, training, index, dtype)
    if reference is not None:
        y, expected = copy.deepcopy(ours)(*inputs), reference(copy.deepcopy(theirs), *inputs)
        # float32's tolerance for both: some references compute in float32 whatever they are given.
        torch.testing.assert_close(y, expected, rtol=1.3e-6, atol=1e-5, check_dtype=False)
    close(outcome(ours, inputs), outcome(theirs, inputs), outcome(other, in_dtype(inputs, OTHER[dtype])))


@every_sample
def test_pytorchs_samples_not_contiguous(name, training, index):
    ours, theirs, other, inputs, _ = of_sample(name, training, index)
    views = [noncontiguous_like(value) for value in inputs]
    close(outcome(ours, views), outcome(theirs, inputs), outcome(other, in_dtype(inputs, torch.float32)))


@every_sample
def test_pytorchs_samples_gradcheck(name, training, index):
    """Derivatives of the first and second order against differences, of inputs and parameters together."""
    layer, _, _, inputs, _ = of_sample(name, training, index)
    parameters = [value for value in layer.parameters() if value.requires_grad]
    leaves = [*(value for value in inputs if value.requires_grad), *parameters]

    def call(*_):
        return layer(*inputs)  # gradcheck moves the leaves in place

    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


def _wrong_samples():
    for name, info in INFOS.items():
        if info.module_error_inputs_func:
            given = {"device": "cpu", "dtype": torch.float32, "requires_grad": False, "training": True}
            for i, wrong in enumerate(info.module_error_inputs_func(info, **given)):
                yield pytest.param(name, wrong, id=f"{name}-{i}")


@pytest.mark.parametrize(("name", "wrong"), list(_wrong_samples()))
def test_pytorchs_wrong_samples(name, wrong):
    make, given = wrong.module_error_input.constructor_input, wrong.module_error_input.forward_input
    if wrong.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
        with pytest.raises(wrong.error_type, match=wrong.error_regex):
            getattr(nn, name)(*make.args, **make.kwargs)
        return
    layer = getattr(nn, name)(*make.args, **make.kwargs)
    with pytest.raises(wrong.error_type, match=wrong.error_regex):
        layer(*given.args, **given.kwargs)


# ---- convert ---------------------------------------------------------------------------------------------------------


class Mine(torch.nn.LayerNorm):
    """A user's own subclass, which may do anything."""


def mixture():
    return torch.nn.Sequential(
        OrderedDict(
            first=torch.nn.Linear(6, 6),
            norm=torch.nn.LayerNorm(6),
            inner=torch.nn.Sequential(torch.nn.BatchNorm1d(6), torch.nn.RMSNorm(6), torch.nn.Softmax(1)),
            last=torch.nn.GroupNorm(2, 6),
        )
    )


def test_convert_says_what_it_swapped():
    model = mixture()
    text = repr(model)
    swapped = nn.convert(model)
    expected = {
        "norm": "LayerNorm",
        "inner.0": "BatchNorm1d",
        "inner.1": "RMSNorm",
        "inner.2": "Softmax",
        "last": "GroupNorm",
    }
    assert list(swapped.items()) == list(expected.items())
    assert all(type(model.get_submodule(name)) is getattr(nn, kind) for name, kind in expected.items())
    assert repr(model) == text
    assert nn.convert(model) == {}
    assert nn.convert(model, back=True) == expected
    assert all(type(model.get_submodule(name)) is getattr(torch.nn, kind) for name, kind in expected.items())


@pytest.mark.parametrize("setting", HALF_SETTINGS, ids=described)
def test_convert_the_model_itself(setting):
    """Each class has its counterpart; what a layer holds stays the same objects, and it computes the same."""
    torch.manual_seed(0)
    _, theirs, exact = layers(setting)
    layer = copy.deepcopy(theirs).eval()
    layer.extra = held = object()
    before = {**layer._parameters, **layer._buffers}
    assert nn.convert(layer) == {"": setting[0]}
    assert type(layer) is getattr(nn, setting[0])
    assert layer.extra is held
    assert not layer.training
    assert {key: id(value) for key, value in before.items()} == {
        key: id(value) for key, value in {**layer._parameters, **layer._buffers}.items()
    }
    inputs = inputs_of(setting, torch.float32)
    close(
        outcome(layer, inputs), outcome(theirs.eval(), inputs), outcome(exact.eval(), in_dtype(inputs, torch.float64))
    )


def test_convert_keeps_hooks_and_optimizer():
    torch.manual_seed(0)
    models = mixture(), mixture()
    models[1].load_state_dict(models[0].state_dict())
    seen = []
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in models]
    for model in models:
        model.norm.register_forward_pre_hook(lambda layer, args: seen.append(("before", type(layer))))
        model.norm.register_forward_hook(lambda layer, args, y: seen.append(("after", type(layer))))
        model.norm.register_full_backward_hook(lambda layer, dx, dy: seen.append(("backward", type(layer))))
    nn.convert(models[0])
    for _ in range(3):
        x, g = torch.randn(8, 6), torch.randn(8, 6)
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            (model(x) * g).sum().backward()
            optimizer.step()
    whens = [when for when, _ in seen]
    assert whens == ["before", "after", "backward"] * 6
    assert {kind for _, kind in seen} == {nn.LayerNorm, torch.nn.LayerNorm}
    assert torch.any(models[0].norm.weight != 1)
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_convert_leaves_others_alone():
    lazy = torch.nn.LazyBatchNorm1d()
    parametrized = torch.nn.LayerNorm(6)
    torch.nn.utils.parametrize.register_parametrization(parametrized, "weight", torch.nn.Tanh())
    others = [Mine(6), torch.nn.SyncBatchNorm(6), torch.nn.Softmax2d(), lazy, parametrized, torch.nn.NLLLoss()]
    kinds = [type(layer) for layer in others]
    model = torch.nn.ModuleList(others)
    assert nn.convert(model) == {}
    assert [type(layer) for layer in others] == kinds
    # A lazy layer is an ordinary one once it has seen its input.
    lazy(torch.randn(5, 6))
    assert nn.convert(model) == {"3": "BatchNorm1d"}


def test_convert_a_shared_layer_once():
    norm = torch.nn.LayerNorm(6)
    model = torch.nn.Sequential(norm, torch.nn.Linear(6, 6), norm)
    assert nn.convert(model) == {"0": "LayerNorm"}
    assert model[0] is model[2] is norm
    assert type(norm) is nn.LayerNorm


@pytest.mark.parametrize("wrong", [torch.nn.LayerNorm, [torch.nn.LayerNorm(3)], None])
def test_convert_needs_a_module(wrong):
    with pytest.raises(TypeError, match=r"convert needs a torch\.nn\.Module, not (type|list|NoneType)"):
        nn.convert(wrong)


def test_convert_after_compiling():
    """What was compiled for PyTorch's layers is not used for ours."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(str(graph.graph))
        return graph

    model, x = torch.nn.Sequential(torch.nn.LayerNorm(6)), torch.randn(4, 6)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    expected = compiled(x)
    assert nn.convert(compiled) == {"_orig_mod.0": "LayerNorm"}
    torch.testing.assert_close(compiled(x), expected)
    assert ["normlab" in graph for graph in graphs] == [False, True]


# ---- In models -------------------------------------------------------------------------------------------------------


class Attends(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(8)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.scale = torch.nn.RMSNorm(8)

    def forward(self, x):
        y = self.norm(x)
        return self.scale(x + self.attention(y, y, y, need_weights=False)[0])


def encoder(norm_first, batch_first):
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, norm_first=norm_first, batch_first=batch_first)
    return torch.nn.TransformerEncoder(
        layer, 2, torch.nn.LayerNorm(8), enable_nested_tensor=not norm_first and batch_first
    )


MODELS = {
    "encoder": lambda: encoder(False, True),
    "encoder, norm first": lambda: encoder(True, True),
    "encoder, sequence first": lambda: encoder(False, False),
    "attention": Attends,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_converted_attention(make, training):
    """In eval, without a gradient, PyTorch's encoder layer reads the weights of its norms and never calls them."""
    torch.manual_seed(0)
    theirs = shuffled(make()).train(training)
    ours, exact = copy.deepcopy(theirs), copy.deepcopy(theirs).double()
    assert nn.convert(ours)
    x = torch.randn(3, 5, 8, requires_grad=True)
    close(outcome(ours, [x]), outcome(theirs, [x]), outcome(exact, in_dtype([x], torch.float64)))
    with torch.inference_mode():
        left = [{"output": model(x)} for model in (ours, theirs)]
        close(*left, {"output": exact(x.double())})


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
def test_converted_encoder_with_padding():
    """In eval, PyTorch packs the rows that are not padding into a nested tensor."""
    torch.manual_seed(0)
    theirs = shuffled(encoder(False, True)).eval()
    ours = copy.deepcopy(theirs)
    nn.convert(ours)
    x, padding = torch.randn(3, 5, 8), torch.arange(5) >= torch.tensor([[5], [3], [4]])
    with torch.inference_mode():
        y, expected = (model(x, src_key_padding_mask=padding) for model in (ours, theirs))
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("name", BATCH_NORMS)
def test_frozen_statistics(name):
    """A batch norm in eval inside a model that trains: its parameters learn, its statistics stay."""
    model = torch.nn.Sequential(torch.nn.Identity(), getattr(nn, name)(4))
    shape = (3, 4, 2, 2, 2)[: 2 + int(name[-2]) - (name[-2] == "1")]
    model.train()(torch.randn(shape))
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(torch.randn(shape)).square().sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model[1].num_batches_tracked == 1
    assert torch.any(model[1].weight.grad != 0)


@pytest.mark.parametrize("name", BATCH_NORMS)
def test_tracking_switched_off(name):
    """track_running_stats=False on a layer that has statistics: training leaves them alone, eval still uses them."""
    torch.manual_seed(0)
    setting = next(s for s in HALF_SETTINGS if s[0] == name)
    ours, theirs, exact = layers(setting)
    for training, tracking in ((True, True), (True, False), (False, False)):
        inputs = inputs_of(setting, torch.float32)
        for layer in (ours, theirs, exact):
            layer.train(training).track_running_stats = tracking
        close(outcome(ours, inputs), outcome(theirs, inputs), outcome(exact, in_dtype(inputs, torch.float64)))
    assert ours.num_batches_tracked == 1


@pytest.mark.parametrize("momentum", [None, 0.3])
def test_statistics_without_a_count(momentum):
    """Without num_batches_tracked there is no average over all batches: with momentum=None the statistics stay."""
    torch.manual_seed(0)
    setting = ("BatchNorm1d", {"num_features": 4, "momentum": momentum}, (5, 4))
    trio, inputs = layers(setting), inputs_of(setting, torch.float32)
    for layer in trio:
        layer.num_batches_tracked = None
    close(*(outcome(layer, inputs) for layer in trio[:2]), outcome(trio[2], in_dtype(inputs, torch.float64)))
    assert torch.all(trio[0].running_mean == 0) == (momentum is None)


class Everything(torch.nn.Module):
    """Each of the twelve classes, once."""

    def __init__(self, layers):
        super().__init__()
        self.volume = torch.nn.Sequential(layers.BatchNorm3d(4), layers.InstanceNorm3d(4, affine=True))
        self.image = torch.nn.Sequential(layers.BatchNorm2d(4), layers.InstanceNorm2d(4), layers.GroupNorm(2, 4))
        self.signal = torch.nn.Sequential(layers.BatchNorm1d(4), layers.InstanceNorm1d(4, track_running_stats=True))
        self.tokens = torch.nn.Sequential(layers.LayerNorm(12), layers.RMSNorm(12), layers.Softmax(-1))
        self.logarithm = layers.LogSoftmax(1)
        self.loss = layers.CrossEntropyLoss(label_smoothing=0.1)

    def forward(self, x, target):
        x = self.image(self.volume(x).flatten(3))
        x = self.signal(x.flatten(2))
        x = x + self.tokens(x)
        return self.loss(self.logarithm(x).sum(2), target) + x.square().mean()


@pytest.mark.parametrize("training", [True, pytest.param(False, marks=pytest.mark.exhaustive)], ids=["train", "eval"])
def test_compiled_whole(training):
    """torch.compile makes one graph of a model with all layers, and gives the same; also for another batch size."""
    torch.compiler.reset()
    torch.manual_seed(0)
    eager = shuffled(Everything(nn)).train(training)
    theirs = Everything(torch.nn).train(training)
    theirs.load_state_dict(eager.state_dict())
    exact, graphs = copy.deepcopy(theirs).double(), []

    def backend(graph, inputs):
        graphs.append(graph.code)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    compiled = torch.compile(copy.deepcopy(eager), backend=backend, fullgraph=True)
    for examples in (3, 5):
        inputs = [torch.randn(examples, 4, 2, 3, 2, requires_grad=True), torch.randint(0, 4, (examples,))]
        truth, right = outcome(exact, in_dtype(inputs, torch.float64)), outcome(theirs, inputs)
        left = {name.replace("_orig_mod.", ""): value for name, value in outcome(compiled, inputs).items()}
        close(left, right, truth)
        close(outcome(eager, inputs), right, truth)
    # In eval an instance norm that tracks statistics does what a batch norm does.
    tracking = 0 if training else 1
    expected = {"batch_norm": 3 + tracking, "row_norm": 6 - tracking, "softmax": 2, "cross_entropy": 1}
    assert len(graphs) == 2
    for graph in graphs:
        assert {name: graph.count(f"torch.ops.normlab.{name}.default") for name in expected} == expected
        assert "torch.nn.functional" not in graph
