"""PyTorch without the functions that an exercise asks for, however they are reached.

Python's wrappers get a body that refuses, so copies of them refuse as well. Below them, in PyTorch's dispatcher, the
operators themselves get kernels that refuse: aliases, torch.ops, methods, modules and scripts all end there. Nothing
here can be put back by who runs after it; a process that is to have more is another process.
"""

import ctypes
import gc
import re
import types

# Operators are named in all of PyTorch's ways: native_layer_norm, _softmax, softmax.int, special_logsumexp.
_KEYS = (
    "CPU",
    "AutogradCPU",
    "SparseCPU",
    "SparseCsrCPU",
    "MkldnnCPU",
    "NestedTensorCPU",
    "QuantizedCPU",
    "Meta",
)
_SPACES = ("aten", "quantized", "onednn", "static_runtime")


# What makes TorchScript of a text, a graph or a file, and what finds its operators by name.
_SCRIPTS = re.compile(
    r"_jit_script_\w*compile\w*|_create_function_from_\w+|parse_ir|_?import_ir_module\w*|_load_(jit|mobile|for_lite)\w*"
    r"|_jit_get_(operation|schemas_for_operator)|_get_operation_overload|_jit_differentiate|_jit_resolve_packet"
)
_DEFINES = ("_define", "_create_method", "_create_method_from_graph", "_create_method_from_trace")


def _pattern(names):
    return re.compile(rf"(^|_)({'|'.join(map(re.escape, names))})(_|\d|\.|$)")


def _refuse(*args, **kwargs):
    # It also stands in for the bodies of PyTorch's functions, which do not see this module's names.
    from normlab.guard import Stop

    raise Stop("calls PyTorch's own function: this exercise is to write it")


def functions(pattern):
    """PyTorch's functions in Python with such a name."""
    for thing in gc.get_objects():
        if type(thing) is types.FunctionType and str(thing.__module__).startswith("torch"):
            if pattern.search(thing.__name__) or pattern.search(thing.__code__.co_name):
                yield thing


def close(names, autograd):
    """Closes the functions of these names, and with autograd=False every way to a gradient."""
    import torch

    torch.set_num_threads(1)
    closed = [*names, *([] if autograd else ["make_dual", "_backward"])]
    pattern = _pattern(closed)
    body = _refuse.__code__
    for function in list(functions(pattern)):
        free = function.__code__.co_freevars
        function.__code__ = body.replace(co_freevars=free)
    _close_operators(torch, pattern)
    if not autograd:
        _close_autograd(torch)


def _close_operators(torch, pattern):
    found = {}
    for name in torch._C._dispatch_get_all_op_names():
        space, _, operator = name.partition("::")
        if space in _SPACES and pattern.search(operator):
            found.setdefault(space, []).append(operator)
    for space, operators in found.items():
        library = torch._C._dispatch_library("IMPL", space, "", __file__, 1)
        for operator in operators:
            for key in _KEYS:
                library.impl(operator, key, _refuse)
        _hide(library)


def _hide(handle):
    """Keeps an object for ever, where nobody finds it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))


def _put(kind, name, value):
    """Puts an attribute into a type that is not written in Python, if it has one of that name."""
    for referent in gc.get_referents(kind.__dict__):
        if isinstance(referent, dict) and name in referent:
            referent[name] = value
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))


def _close_autograd(torch):
    for kind in type(torch.autograd.Variable._execution_engine).__mro__[:-1]:
        _put(kind, "run_backward", _refuse)
    # TorchScript has operators of its own for gradients, which no kernel can be put in front of.
    for name in [name for name in vars(torch._C) if _SCRIPTS.fullmatch(name)]:
        delattr(torch._C, name)
    for kind, names in ((torch._C.CompilationUnit, ("__init__", "define")), (torch._C.ScriptModule, _DEFINES)):
        for name in names:
            if hasattr(kind, name):
                setattr(kind, name, _refuse)
    # A node of the graph can be called by hand.
    for name in ("grad_fn", "_grad_fn"):
        _put(torch._C.TensorBase, name, property(lambda tensor: None))
