"""Triton's kernels, run by Triton's interpreter while `watch.py` looks on.

Triton chooses between compiler and interpreter when it is imported (TRITON_INTERPRET=1). Here the choice is made for
one launch: Triton's own interpreter does the work, on a builder that rounds as hardware does and asks before it touches
memory. What is patched in triton.language is put back after each launch: the same process can compile as well.
"""

import ast
import contextlib
import inspect
import sys
import textwrap
import time
import types
import weakref

import numpy as np
import triton.language as tl
from triton.language import core
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter as it
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction, TensorWrapper, mangle_type

from normlab.shadow import Faulty

# What a launch may be told besides the kernel's own arguments.
OPTIONS = {
    "num_warps",
    "num_ctas",
    "num_stages",
    "maxnreg",
    "enable_fp_fusion",
    "debug",
    "launch_cooperative_grid",
    "launch_pdl",
}
# The largest grid that CUDA starts.
LARGEST_GRID = (2**31 - 1, 65535, 65535)

# A NaN with a mark that survives arithmetic and casts: its upper bits are the same in every floating-point type.
POISON = {
    "bf16": np.uint16(0x7FEB),
    "fp16": np.uint16(0x7F58),
    "fp32": np.uint32(0x7FEB0000),
    "fp64": np.uint64(0x7FFD600000000000),
}
# The same for integers: large enough to be no index of anything.
LARGE = {1: 0x7E, 2: 0x7EAD, 4: 0x7EADBEEF, 8: 0x00007EADBEEF0000}


# ---- bfloat16 --------------------------------------------------------------------------------------------------------


def widen(bits):
    """bfloat16, kept as uint16, to float32."""
    return (np.asarray(bits).astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_bfloat16(x, to_zero=False):
    """float32 or float64 to bfloat16 as uint16: to nearest, ties to even; NaN stays NaN and keeps its upper bits."""
    x = np.asarray(x)
    if x.dtype != np.float32:
        exact = x.astype(np.float64)
        x = exact.astype(np.float32)
        # Rounding twice would differ. Cut off first, and let the last bit say that something was cut off.
        bits = x.view(np.uint32) - (np.abs(x) > np.abs(exact)).astype(np.uint32)
        x = np.where(x == exact, x.view(np.uint32), bits | np.uint32(1)).view(np.float32)
        x = np.where(np.isnan(exact), exact.astype(np.float32), x)
    bits = x.view(np.uint32)
    upper = bits >> np.uint32(16)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    rounded = upper if to_zero else (bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
    return np.where(nan, upper | np.uint32(0x40), rounded).astype(np.uint16)


def is_poison(data, dtype):
    """Which numbers are the marked NaN, whatever their sign."""
    mark = POISON.get(dtype.scalar.name)
    if mark is None or data.dtype.itemsize != mark.itemsize:
        return np.zeros(np.shape(data), bool)
    unsigned = np.ascontiguousarray(data).view(mark.dtype)
    return (unsigned & ~(mark.dtype.type(1) << mark.dtype.type(8 * mark.itemsize - 1))) == mark


def marked(shape, dtype):
    """A block of what tl.load gives where the mask hides the element and there is no `other`."""
    np_dtype = it._get_np_dtype(dtype)
    mark = POISON.get(dtype.scalar.name)
    if mark is not None:
        return np.full(shape, mark).view(np_dtype)
    if np_dtype.kind == "b":
        return np.ones(shape, bool)
    return np.full(shape, LARGE[np_dtype.itemsize], np_dtype)


# ---- The builder: what each operation does ---------------------------------------------------------------------------


class Builder(it.InterpreterBuilder):
    """Triton's interpreter with hardware's rounding. `launch` is asked before memory is touched."""

    def __init__(self):
        super().__init__()
        self.launch, self.poison, self.poisoned, self.deadline = None, False, {}, None

    def get_bf16(self, value):
        return it.TensorHandle(round_bfloat16(np.array([value], np.float64)), tl.bfloat16)

    # -- Memory --

    def on_time(self):
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeoutError

    def create_load(self, ptr, cache, eviction, is_volatile):
        return self.read(ptr, None, None)

    def create_masked_load(self, ptrs, mask, other, cache_modifier, eviction_policy, is_volatile):
        return self.read(ptrs, np.broadcast_to(mask.data, ptrs.data.shape), other)

    def read(self, ptrs, mask, other):
        self.on_time()
        element, shape = ptrs.get_element_ty(), ptrs.data.shape
        dtype = it._get_np_dtype(element)
        hidden = mask is not None and not mask.all()
        view, at, ok = self.launch.load(ptrs.data, mask if hidden else None, dtype.itemsize, ptrs.attr.get("argument"))
        if ok is None:
            return it.TensorHandle(view.shadow.read(at, dtype).reshape(shape), element)
        out = marked(shape, element)  # where nothing may be read
        if hidden:
            if other is not None:
                np.copyto(out, other.data, where=~mask)
            elif not self.poison:
                np.copyto(out, dtype.type(0), where=~mask)
            else:
                self.poisoned.setdefault(ptrs.attr.get("argument"), element)
        if view is not None:
            out[ok] = view.shadow.read(at, dtype)
        return it.TensorHandle(out, element)

    def create_store(self, ptr, value, cache, eviction):
        self.write(ptr, value, None)

    def create_masked_store(self, ptrs, value, mask, cache_modifier, eviction_policy):
        self.write(ptrs, value, np.broadcast_to(mask.data, ptrs.data.shape))

    def write(self, ptrs, value, mask):
        self.on_time()
        element = ptrs.get_element_ty()
        dtype = it._get_np_dtype(element)
        # A value wider than the element would overwrite its neighbors.
        values = np.broadcast_to(value.data, ptrs.data.shape).astype(dtype, copy=False)
        name = ptrs.attr.get("argument")
        mask = None if mask is None or mask.all() else mask
        view, at, ok = self.launch.store(ptrs.data, mask, dtype.itemsize, name, values)
        self.look_for_poison(values, element, ok, name)
        if view is not None:
            view.shadow.write(at, values.reshape(-1) if ok is None else values[ok])

    def look_for_poison(self, values, element, ok, name):
        if not self.poisoned or not (is_poison(values, element) & (True if ok is None else ok)).any():
            return
        sources = ", ".join(str(source) for source in self.poisoned if source) or "memory"
        launch = self.launch
        launch.tell(
            "poison",
            launch.views.get(name),
            lambda: (
                f"program {launch.program} stores to {name} what came from lanes of {sources} that its mask hides. A "
                "tl.load with a mask and without other= gives anything there. Say other=, with the value that does "
                "not change the result (0 in a sum, -inf in a maximum)."
            ),
        )

    def create_atomic_rmw(self, op, ptr, value, mask, sem, scope):
        self.on_time()
        element = ptr.get_element_ty()
        if element == tl.bfloat16:
            raise NotImplementedError("Atomics on bfloat16 are not interpreted: add in float32 and cast once.")
        wanted = np.broadcast_to(mask.data, ptr.data.shape)
        values = np.broadcast_to(value.data, ptr.data.shape).astype(it._get_np_dtype(element))
        name = ptr.attr.get("argument")
        _, _, ok = self.launch.atomic(ptr.data, wanted, values.itemsize, name)
        ok = wanted if ok is None else ok
        self.look_for_poison(values, element, ok, name)
        op, sem = self.ir_rmw_op_to_interpreter_rmw_op[op], self.ir_sem_to_interpreter_sem[sem]
        before = it._interpreter.atomic_rmw(op, np.ascontiguousarray(ptr.data), values, np.ascontiguousarray(ok), sem)
        return it.TensorHandle(before, value.dtype.scalar)

    def create_atomic_cas(self, ptr, cmp, value, sem, scope):
        self.on_time()
        element = ptr.get_element_ty()
        dtype, shape = it._get_np_dtype(element), ptr.data.shape
        _, _, ok = self.launch.atomic(ptr.data, None, dtype.itemsize, ptr.attr.get("argument"))
        ok = np.ones(shape, bool) if ok is None else ok
        before = np.broadcast_to(cmp.data, shape).astype(dtype)
        sem = self.ir_sem_to_interpreter_sem[sem]
        for k in np.argwhere(ok):
            k = tuple(k)
            one = [np.array([np.broadcast_to(a, shape)[k]]) for a in (ptr.data, cmp.data, value.data)]
            before[k] = it._interpreter.atomic_cas(*one, sem)[0]
        return it.TensorHandle(before, cmp.dtype.scalar)

    def create_barrier(self):
        self.launch.barrier()

    # -- Which argument a pointer came from --

    def create_addptr(self, ptr, offset):
        return carry(super().create_addptr(ptr, offset), ptr)

    def create_splat(self, ret_ty, arg):
        if ret_ty.scalar == tl.int1:  # what a comparison gave goes by the type of what it compared
            arg = it.TensorHandle(arg.data, tl.int1)
        return carry(super().create_splat(ret_ty, arg), arg)

    def create_broadcast(self, arg, shape):
        return carry(super().create_broadcast(arg, shape), arg)

    def create_expand_dims(self, arg, axis):
        return carry(super().create_expand_dims(arg, axis), arg)

    def create_reshape(self, arg, shape, allow_reorder):
        return carry(it.TensorHandle(arg.data.reshape(shape), arg.dtype.scalar), arg)

    def create_trans(self, arg, perm):
        return carry(super().create_trans(arg, perm), arg)

    def create_unsplat(self, arg):
        return carry(super().create_unsplat(arg), arg)

    def create_bitcast(self, src, dst_type):
        return carry(super().create_bitcast(src, dst_type), src if dst_type.scalar.is_ptr() else None)

    def create_int_to_ptr(self, src, dst_type):
        return self.create_bitcast(src, dst_type)

    def create_select(self, cond, lhs, rhs):
        same = lhs.attr.get("argument") == rhs.attr.get("argument")
        return carry(self.ternary_op(cond, lhs, rhs, np.where), lhs if same else None)

    # -- Numbers --

    def cast_impl(self, src, dst_type):
        source, target = src.dtype.scalar, dst_type.scalar
        if source == tl.bfloat16:
            src, source = it.TensorHandle(widen(src.data), tl.float32), tl.float32
        if target == tl.bfloat16:
            wide = src.data if src.data.dtype == np.float32 else src.data.astype(np.float64)
            return it.TensorHandle(round_bfloat16(wide), tl.bfloat16)
        return it.TensorHandle(src.data.astype(it._get_np_dtype(dst_type)), target)

    def create_fp_to_fp(self, src, dst_type, rounding_mode):
        source, target = src.dtype.scalar, dst_type.scalar
        if source.is_fp8() or target.is_fp8():
            return super().create_fp_to_fp(src, dst_type, rounding_mode)
        if rounding_mode != it._ir.ROUNDING_MODE.RTZ:
            return self.cast_impl(src, dst_type)
        wide = widen(src.data) if source == tl.bfloat16 else src.data
        if target == tl.bfloat16:
            return it.TensorHandle(round_bfloat16(wide.astype(np.float32), to_zero=True), tl.bfloat16)
        near = wide.astype(it._get_np_dtype(dst_type))
        zero = near.dtype.type(0)
        return it.TensorHandle(np.where(np.abs(near) > np.abs(wide), np.nextafter(near, zero), near), target)

    create_fp_ext = create_fp_trunc = cast_impl
    create_si_to_fp = create_ui_to_fp = create_fp_to_si = create_fp_to_ui = cast_impl

    def create_int_cast(self, src, dst_type, is_signed):
        return self.cast_impl(src, dst_type)

    def in_float32(self, op, *handles):
        """`op` on bfloat16 as hardware does it: exactly, then rounded."""
        out = op(*(widen(h.data) if h.dtype.scalar == tl.bfloat16 else h.data for h in handles))
        return out if out.dtype.kind == "b" else round_bfloat16(out)

    def half(self, dtype, op):
        """Remark on arithmetic in half precision. Comparing and choosing is exact."""
        if op not in EXACT and dtype.scalar in HALVES:
            launch = self.launch
            launch.tell(
                "half-arithmetic",
                None,
                lambda: (
                    f"program {launch.program} computes in {NAMES[dtype.scalar]}: every step rounds to "
                    f"{HALVES[dtype.scalar]} significant bits. Load, .to(tl.float32), compute, and cast once at the "
                    "end."
                ),
                dtype.scalar.name,
                remark=True,
            )

    def binary_op(self, lhs, rhs, op):
        self.on_time()
        self.half(lhs.dtype, op)
        if lhs.dtype.scalar == tl.bfloat16:
            return it.TensorHandle(self.in_float32(op, lhs, rhs), tl.bfloat16)
        out = super().binary_op(lhs, rhs, op)
        if op in (np.fmax, np.fmin) and self.poisoned:
            return self.poison_where(out, is_poison(lhs.data, lhs.dtype) | is_poison(rhs.data, rhs.dtype))
        return out

    def unary_op(self, arg, op):
        self.on_time()
        self.half(arg.dtype, op)
        if arg.dtype.scalar == tl.bfloat16:
            return it.TensorHandle(self.in_float32(op, arg), tl.bfloat16)
        out = super().unary_op(arg, op)
        return self.poison_where(out, is_poison(arg.data, arg.dtype)) if self.poisoned else out

    def ternary_op(self, lhs, rhs, other, op):
        if op is not np.where and other.dtype.scalar == tl.bfloat16:
            return it.TensorHandle(self.in_float32(op, lhs, rhs, other), tl.bfloat16)
        return super().ternary_op(lhs, rhs, other, op)

    def poison_where(self, out, where):
        if where.any():
            out.data = np.where(where, marked((1,), out.dtype.scalar), out.data)
        return out

    # tl.maximum and tl.minimum give the other number where one is NaN, unless told to propagate it.
    def create_maxnumf(self, lhs, rhs):
        return self.binary_op(lhs, rhs, np.fmax)

    def create_minnumf(self, lhs, rhs):
        return self.binary_op(lhs, rhs, np.fmin)

    def create_fma(self, x, y, z):
        return self.ternary_op(x, y, z, lambda x, y, z: x * y + z)

    def create_rsqrt(self, arg):
        return self.unary_op(arg, lambda x: 1 / np.sqrt(x))

    def create_dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        a, b = (it.TensorHandle(widen(h.data), tl.float32) if h.dtype.scalar == tl.bfloat16 else h for h in (a, b))
        return super().create_dot(a, b, d, input_precision, max_num_imprecise_acc)


HALVES = {tl.float16: 11, tl.bfloat16: 8}
NAMES = {tl.float16: "float16", tl.bfloat16: "bfloat16"}
EXACT = {
    np.less,
    np.less_equal,
    np.greater,
    np.greater_equal,
    np.equal,
    np.not_equal,
    np.maximum,
    np.minimum,
    np.fmax,
    np.fmin,
    np.floor,
    np.ceil,
}


def carry(handle, source):
    """A pointer made from another one points into the same argument."""
    if source is not None and "argument" in source.attr:
        handle.attr["argument"] = source.attr["argument"]
    return handle


class Reduce(it.ReduceOps):
    """Sums and maxima as hardware takes them: halves are added in halves, maxima skip NaN but not the marked one."""

    def sum(self, input):
        dtype = input.dtype.scalar
        if dtype not in HALVES:
            return super().sum(input)
        builder.half(dtype, np.add)
        data = input.handle.data
        axis = self.axis
        if axis is None:
            data, axis = data.reshape(-1), 0
        data = np.moveaxis(data, axis, 0)
        while len(data) > 1:  # lengths are powers of 2
            data = builder.binary_op(*(it.TensorHandle(part, dtype) for part in np.split(data, 2)), np.add).data
        data = data[0]
        if self.keep_dims:
            data = data.reshape((1,) * input.handle.data.ndim) if self.axis is None else np.expand_dims(data, axis)
        return self.to_tensor(data, dtype)

    def min_max(self, input, val_reduce_op, idx_reduce_op=None):
        over = input[0] if isinstance(input, tuple) else input
        skips_nan = {np.nanmax: np.fmax.reduce, np.nanmin: np.fmin.reduce}
        out = super().min_max(input, skips_nan.get(val_reduce_op, val_reduce_op), idx_reduce_op)
        if builder.poisoned and val_reduce_op in skips_nan:
            hidden = is_poison(over.handle.data, over.dtype).any(axis=self.axis, keepdims=self.keep_dims)
            builder.poison_where(out.handle, np.reshape(hidden, out.handle.data.shape))
        return out

    def apply(self, input):
        builder.launch.reduced()
        return super().apply(input)


def _reduce(input, axis, combine_fn, keep_dims=False, **kwargs):
    return Reduce(core._unwrap_if_constexpr(axis), combine_fn, core._unwrap_if_constexpr(keep_dims)).apply(input)


builder = Builder()
semantic = TritonSemantic(builder)


# ---- Kernels as Python functions -------------------------------------------------------------------------------------


class _Assignments(ast.NodeTransformer):
    """x = value becomes x = to_tensor(value), as the compiler has it."""

    def visit_Assign(self, node):
        call = ast.Call(ast.Name("_to_tensor_", ast.Load()), [node.value], [])
        node.value = ast.copy_location(call, node.value)
        return node

    def visit_FunctionDef(self, node):
        node.decorator_list, node.returns = [], None
        for argument in node.args.posonlyargs + node.args.args + node.args.kwonlyargs:
            argument.annotation = None
        node.args.defaults, node.args.kw_defaults = [], [None] * len(node.args.kwonlyargs)
        return self.generic_visit(node)


_rewritten = weakref.WeakKeyDictionary()


def rewritten(fn):
    """`fn` with its assignments rewritten: the same globals, defaults and closure; nothing is added to its module."""
    if fn not in _rewritten:
        lines, start = inspect.getsourcelines(fn)
        tree = ast.parse(textwrap.dedent("".join(lines)))
        definition = _Assignments().visit(tree.body[0])
        given = [*fn.__code__.co_freevars, "_to_tensor_"]
        outer = ast.FunctionDef(
            name="_outer_",
            args=ast.arguments([], [ast.arg(name) for name in given], None, [], [], None, []),
            body=[definition, ast.Return(ast.Name(definition.name, ast.Load()))],
            decorator_list=[],
        )
        module = ast.Module([outer], [])
        ast.increment_lineno(ast.fix_missing_locations(module), start - 1)
        code = compile(module, fn.__code__.co_filename, "exec").co_consts[0]
        inner = next(c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == definition.name)
        cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))
        # A function that calls itself by name, or nothing but its own name, is a variable of the outer one here.
        cells["_to_tensor_"] = types.CellType(lambda value: semantic.to_tensor(value, False))
        closure = tuple(cells[name] for name in inner.co_freevars)
        new = types.FunctionType(inner, fn.__globals__, fn.__name__, fn.__defaults__, closure)
        new.__kwdefaults__ = fn.__kwdefaults__
        _rewritten[fn] = new
    return _rewritten[fn]


# ---- Patches ---------------------------------------------------------------------------------------------------------


def _library_files():
    import triton.language.math as math
    import triton.language.semantic as semantic_module

    return {module.__file__ for module in (core, math, semantic_module)}


_LIBRARY = _library_files()


def _truth(self):
    """`if`, `and`, `or`, `not` on a value. Triton's own code asks only whether there is one."""
    if sys._getframe(1).f_code.co_filename in _LIBRARY:
        return True
    data = self.handle.data
    if data.size != 1:
        raise TypeError(
            f"A block of {data.size} values has no single truth value: in a kernel use tl.where instead of if, "
            "& | ~ instead of and, or, not, and one comparison at a time."
        )
    return bool(data.reshape(-1)[0])


_MISSING = object()


class _Scope:
    """Sets attributes and puts back what was there: an attribute that was only inherited goes away again."""

    def __init__(self):
        self.before = []

    def set_attr(self, obj, name, value):
        self.before.append((obj, name, vars(obj).get(name, _MISSING)))
        setattr(obj, name, value)

    def restore(self):
        while self.before:
            obj, name, original = self.before.pop()
            delattr(obj, name) if original is _MISSING else setattr(obj, name, original)


def _changes():
    """(object, name, replacement) for everything that kernels call, found once."""
    scope = _Scope()
    functions = {name: function for name, function in vars(tl).items() if core.is_builtin(function)}
    try:
        for package in (tl, core, tl.math, core.tensor, core.tensor_descriptor_base):
            for name in dir(package):
                member = inspect.getattr_static(package, name)
                if core.is_builtin(member):
                    scope.set_attr(package, name, _with_semantic(member))
                elif package is core.tensor and isinstance(member, JITFunction | it.InterpretedFunction):
                    scope.set_attr(package, name, _as_method(member))
                elif package is core.tensor and name in functions and inspect.isfunction(member):
                    # x.exp() forwards to what tl.exp was before it was marked as built in.
                    scope.set_attr(package, name, _with_semantic(functions[name]))
        it._patch_lang_tensor(core.tensor, scope)
        for package in (tl, core):
            it._patch_lang_core(package, scope)
            scope.set_attr(package, "reduce", _reduce)
        scope.set_attr(core.tensor, "__bool__", _truth)
        found = {(id(obj), name): (obj, name, inspect.getattr_static(obj, name)) for obj, name, _ in scope.before}
    finally:
        scope.restore()
    return list(found.values())


def _with_semantic(member):
    def call(*args, **kwargs):
        kwargs.pop("_generator", None)
        kwargs["_semantic"] = semantic
        return member(*args, **kwargs)

    return call


def _as_method(function):
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)


_NP_DTYPES = {}


def _np_dtype(dtype, original=it._get_np_dtype):
    """Asked for at every operation: Triton's own builds a table each time."""
    scalar = dtype.scalar
    name = "pointer" if scalar.is_ptr() else scalar.name
    if name not in _NP_DTYPES:
        _NP_DTYPES[name] = original(scalar)
    return _NP_DTYPES[name]


_patches = None


def _call_helper(self, *args, **kwargs):
    return rewritten(self.fn)(*args, **kwargs)


@contextlib.contextmanager
def language():
    """Inside, triton.language computes with NumPy; afterwards it is as it was."""
    global _patches
    if _patches is None:
        _patches = _changes()
    helpers = [
        (JITFunction, "__call__", _call_helper),
        (it.InterpretedFunction, "__call__", _call_helper),
        (it, "_get_np_dtype", _np_dtype),
    ]
    scope = _Scope()
    try:
        for obj, name, replacement in (*_patches, *helpers):
            scope.set_attr(obj, name, replacement)
        yield
    finally:
        scope.restore()


# ---- Launches --------------------------------------------------------------------------------------------------------


def function_of(kernel):
    """The Python function of a kernel, jitted or plain."""
    if isinstance(kernel, JITFunction | it.InterpretedFunction):
        return kernel.fn
    if inspect.isfunction(kernel):
        return kernel
    raise TypeError(f"A kernel is a function, plain or under @triton.jit, not {type(kernel).__name__}.")


def bind(fn, args, kwargs):
    """(name -> value, names of the constexprs, options)."""
    signature = inspect.signature(fn)
    parameters = signature.parameters
    options = {name: value for name, value in kwargs.items() if name not in parameters}
    if unknown := sorted(set(options) - OPTIONS):
        raise TypeError(f"{fn.__name__} has no argument {', '.join(unknown)}, and Triton has no such option.")
    bound = signature.bind(*args, **{name: value for name, value in kwargs.items() if name in parameters})
    bound.apply_defaults()
    constexprs = {name for name, p in parameters.items() if "constexpr" in str(p.annotation)}
    return bound.arguments, constexprs, options


def tensors_in(name, value):
    if isinstance(value, tuple):
        for k, part in enumerate(value):
            yield from tensors_in(f"{name}[{k}]", part)
    elif hasattr(value, "data_ptr"):
        yield name, value.base if isinstance(value, TensorWrapper) else value


def argument(name, value):
    """What the kernel gets: a pointer that knows its name, a number in the type that the launcher gives it."""
    if isinstance(value, tuple):
        return it._tuple_create(value, [argument(f"{name}[{k}]", part) for k, part in enumerate(value)])
    if hasattr(value, "data_ptr"):
        dtype = tl.str_to_ty(mangle_type(value), None)
        handle = it.TensorHandle(np.array([value.data_ptr()], np.uint64), dtype, {"argument": name})
        return core.tensor(handle, dtype)
    if isinstance(value, bool | int | float | np.generic):
        value = value.item() if isinstance(value, np.generic) else value
        dtype = tl.float32 if isinstance(value, float) else semantic.to_tensor_type(value)
        return core.tensor(it.TensorHandle(np.array([value], it._get_np_dtype(dtype)), dtype), dtype)
    if value is None or isinstance(value, core.constexpr | core.dtype):
        return value
    raise TypeError(f"Argument {name} is {type(value).__name__}: kernels here take tensors, numbers, tuples and None.")


def programs_of(grid, meta, order):
    """(grid of three, all program ids in the order they run)."""
    grid = grid(meta) if callable(grid) else grid
    if not isinstance(grid, tuple | list) or not 1 <= len(grid) <= 3:
        raise TypeError(f"A grid is a tuple of 1 to 3 numbers of programs, or a function that gives one; got {grid!r}.")
    grid = tuple(int(n) for n in grid)
    full = grid + (1,) * (3 - len(grid))
    for n, most in zip(full, LARGEST_GRID, strict=True):
        if not 0 <= n <= most:
            raise ValueError(f"CUDA starts no grid {grid}: at most {LARGEST_GRID} programs along its axes.")
    ids = np.stack(np.unravel_index(np.arange(int(np.prod(full))), full[::-1])[::-1], axis=-1)
    if order is not None:
        ids = np.random.default_rng(order).permutation(ids)
    return len(grid), full, ids


def launch(seen, kernel, grid, args, kwargs, order, poison, deadline):
    """Run every program of a launch, and tell `seen` what it did."""
    fn = function_of(kernel)
    values, constexprs, options = bind(fn, args, kwargs)
    for hook in getattr(kernel, "pre_run_hooks", ()):
        hook(*args, **kwargs)
    pointers = {}
    for name, value in values.items():
        for part, tensor in tensors_in(name, value):
            if tensor.device.type != "cpu":
                raise ValueError(f"Argument {part} is on {tensor.device}: kernels are watched on the CPU.")
            pointers[part] = tensor
    dimensions, full, ids = programs_of(grid, {**values, **options}, order)
    if builder.launch is not None:
        raise RuntimeError("A kernel cannot launch another one.")
    record = seen.begin(fn.__name__, pointers, dimensions, full, ids, options)
    builder.launch, builder.poison, builder.deadline = record, poison, deadline
    builder.set_grid_dim(*full)
    body = rewritten(fn)
    try:
        with language(), np.errstate(all="ignore"):
            given = {n: v if n in constexprs else argument(n, v) for n, v in values.items()}
            given = {n: v.value if isinstance(v, core.constexpr) else v for n, v in given.items()}
            for x, y, z in ids.tolist():
                builder.set_grid_idx(x, y, z)
                builder.poisoned = {}
                record.begin((x, y, z)[:dimensions] if dimensions > 1 else x)
                body(**given)
    except TimeoutError:
        done = record.program
        raise Faulty(f"{fn.__name__}: out of time in program {done}. Does a loop never end?", seen.faults) from None
    finally:
        builder.launch = None
        seen.end(record)


@contextlib.contextmanager
def redirected(run):
    """Inside, kernel[grid](...) calls run(kernel, grid, args, kwargs), whatever Triton would do."""

    def patched(original):
        def launch_here(self, *args, grid, warmup, **kwargs):
            if warmup:
                return original(self, *args, grid=grid, warmup=warmup, **kwargs)
            return run(self, grid, args, kwargs)

        return launch_here

    def refuse(self, *args, **kwargs):
        raise NotImplementedError(
            "@triton.autotune times kernels on a GPU: here, choose BLOCK and num_warps from a table by size."
        )

    before = [(cls, cls.run) for cls in (JITFunction, it.InterpretedFunction, Autotuner)]
    try:
        for cls, original in before[:2]:
            cls.run = patched(original)
        Autotuner.run = refuse
        yield
    finally:
        for cls, original in before:
            cls.run = original
