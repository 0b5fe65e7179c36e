"""How BatchNorm is used: a module is taken through a script.

A script, such as "train train eval", takes arrays, in order, for its words:

    train X, eval X             switch the mode and call the module
    train+backward X DY         the same, and then the gradients of sum(output * DY); eval+backward likewise
    train+bfloat16 X            the same with X in bfloat16
    eval+no_grad X              the same under torch.no_grad()
    affine W B                  set weight and bias
    load W B MEAN VAR COUNT     load_state_dict, as from PyTorch's
    double                      module.double(), which has to move the statistics as well
    copy, pickle                go on with a copy.deepcopy, or with what comes back from pickle
    state                       look what is registered: parameters, buffers, the keys of state_dict
"""

import copy
import io
import pickle
import types

import numpy as np

from normlab.drive import Misfit
from normlab.guard import Stop

PARAMETERS = ("weight", "bias")
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")

TAKES = {"affine": 2, "load": 5, "double": 0, "copy": 0, "pickle": 0, "state": 0}


def steps(script, arrays):
    """(word, suffix, its arrays) of each step of a script."""
    arrays = list(arrays)
    for step in script.split():
        word, _, suffix = step.partition("+")
        count = TAKES.get(word, 2 if suffix == "backward" else 1)
        yield word, suffix, arrays[:count]
        del arrays[:count]


def _pickled(module):
    """The module after a round trip through pickle. Its classes and functions are kept by reference: whether pickle
    finds them by name depends on the file they stand in, and that is not the module's business."""
    kind, kept = type(module), []

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            named = isinstance(value, (type, types.FunctionType)) and value.__module__ == kind.__module__
            if value is not kind and not (named and "<locals>" not in value.__qualname__):
                return None
            kept.append(value)
            return len(kept) - 1

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, index):
            return kept[index]

    file = io.BytesIO()
    Pickler(file).dump(module)
    file.seek(0)
    return Unpickler(file).load()


def _registered(module, options):
    """Errors: Misfit says what parameters, buffers or state_dict lack, or have beyond PyTorch's."""
    parameters = PARAMETERS if options.get("affine", True) else ()
    buffers = BUFFERS if options.get("track_running_stats", True) else ()
    for name in parameters:
        if name not in dict(module.named_parameters()):
            raise Misfit(f"has no {name} among its parameters(), where optimizers look: make it an nn.Parameter")
    for name in buffers:
        if name not in dict(module.named_buffers()):
            raise Misfit(f"has no {name} among its buffers(): what register_buffer keeps is saved and moved along")
    keys = set(module.state_dict())
    for name in sorted({*parameters, *buffers} - keys):
        raise Misfit(f"leaves {name} out of its state_dict: it is saved with the module")
    for name in sorted(keys - {*parameters, *buffers}):
        raise Misfit(f"has the key {name} in its state_dict, where PyTorch's module has none")


def _moved(module):
    """Errors: Misfit names what stayed behind when the module moved to float64."""
    for name in (*PARAMETERS, *BUFFERS[:2]):
        value = getattr(module, name)
        if value is not None and str(value.dtype) != "torch.float64":
            raise Misfit(f"leaves {name} behind when the module moves to float64: only what is registered moves")


def _refuse_torchs_own(torch, module):
    """Stops a module that is, or holds, what it is to be."""
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._NormBase):
            name = next(kind.__name__ for kind in type(part).__mro__ if kind.__module__.startswith("torch."))
            raise Stop(f"builds on torch's {name}: this exercise is to write it, from nn.Module")


def _kept(module, name):
    """What the module keeps under that name. Errors: Misfit where it has no such attribute."""
    if not hasattr(module, name):
        raise Misfit(f"has no {name}: each name of the text is an attribute, None where nothing is kept")
    value = getattr(module, name)
    if name == "num_batches_tracked" and getattr(getattr(value, "dtype", None), "is_floating_point", False):
        raise Misfit("counts the batches in a floating-point tensor: num_batches_tracked is a tensor of integers")
    return value


def _called(torch, module, x):
    """The module's output for x. Errors: Misfit where it is nothing that a caller could use."""
    y = module(x)
    if not isinstance(y, torch.Tensor):
        raise Misfit("returns no tensor from forward: is the return statement missing?")
    if y.shape != x.shape:
        raise Misfit("returns an output of another shape than its input")
    if x.dtype == torch.bfloat16 and y.dtype != torch.bfloat16:
        raise Misfit(f"returns {str(y.dtype)[6:]} for bfloat16 input: the output has the dtype of the input")
    return y


def _gradients(module, x, y, dy):
    """The gradients of sum(y * dy) for x, weight and bias. Errors: Misfit where one is missing."""
    module.zero_grad()
    y.backward(dy)
    if x.grad is None:
        raise Misfit("lets no gradient through to its input: only what goes into the running statistics is detached")
    gradients = [x.grad.flatten()]
    for name in PARAMETERS:
        parameter = getattr(module, name)
        if parameter is not None:
            if parameter.grad is None:
                raise Misfit(f"gives {name} no gradient: make it an nn.Parameter, and use it in forward")
            gradients.append(parameter.grad.flatten())
    return gradients


def take_through(torch, module, script, arrays, options):
    """Takes a module through a script; returns arrays: all outputs, the statistics after each of them, all
    gradients. What a module has not (None) leaves an empty array."""
    outputs, gradients, kept = [], [], {name: [] for name in BUFFERS}
    for word, suffix, given in steps(script, arrays):
        if word in ("train", "eval"):
            module.train(word == "train")
            wide = given[0].dtype
            # The truth's float64 is not rounded on the way in, which in these cases would change nothing.
            x = given[0].to(torch.bfloat16) if suffix == "bfloat16" and wide == torch.float32 else given[0]
            x = x.detach().requires_grad_() if suffix == "backward" else x
            with torch.set_grad_enabled(suffix != "no_grad"):
                y = _called(torch, module, x)
                gradients += _gradients(module, x, y, given[1]) if suffix == "backward" else []
            y = y.detach().flatten()
            outputs.append(y.to(torch.bfloat16).to(wide) if suffix == "bfloat16" else y)
            for name, rows in kept.items():
                value = _kept(module, name)
                if value is not None:
                    rows.append(torch.as_tensor(value).detach().clone())
        elif word == "affine":
            with torch.no_grad():
                module.weight.copy_(given[0])
                module.bias.copy_(given[1])
        elif word == "load":
            module.load_state_dict(dict(zip((*PARAMETERS, *BUFFERS), given, strict=True)))
        elif word == "double":
            module.double()
            _moved(module)
        elif word == "copy":
            module = copy.deepcopy(module)
        elif word == "pickle":
            module = _pickled(module)
        elif word == "state":
            _registered(module, options)

    def joined(rows, join):
        return join(rows).numpy() if rows else np.zeros(0)

    mean, var, count = (joined(rows, torch.stack) for rows in kept.values())
    return joined(outputs, torch.cat), mean, var, count.astype(np.float64), joined(gradients, torch.cat)


def drive(candidate, script, arrays, num_features, **options):
    """Builds the learner's module and takes it through the script."""
    import torch

    module = candidate(num_features, **options)
    if not isinstance(module, torch.nn.Module):
        raise Misfit("is no nn.Module: it is to be class BatchNorm(nn.Module), with super().__init__() first")
    _refuse_torchs_own(torch, module)
    return take_through(torch, module, script, [torch.from_numpy(array) for array in arrays], options)
