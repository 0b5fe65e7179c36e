"""Drop-in functions: the signatures, defaults, errors and semantics of torch.nn.functional, on normlab's own kernels.

    import normlab.functional as F

    F.layer_norm(x, (768,), weight, bias)

Eight functions are four operators, registered with torch.library as `torch.ops.normlab.*`, so that torch.compile and
whatever else sees operators sees them: `row_norm` (layer, RMS, group and instance norm: each pool is a row),
`batch_norm`, `softmax` (and its logarithm) and `cross_entropy`, which never writes the probabilities. Each comes as

    name            with its gradient
    name_forward    the kernel alone, with what the backward needs
    name_out        the kernel alone, into a tensor that is there already
    name_backward   the gradient's kernel

Beside PyTorch's arguments each function whose result has its input's shape takes `out=`, a tensor to write to: past the
cache a fresh tensor costs more than the kernel. As in PyTorch, `out=` is for tensors that need no gradient.

On the CPU the kernels are those of cpu.py, on a GPU those of cuda/. What they have no answer for goes to PyTorch's
function of the same name, which answers, or says why it cannot: wrong shapes and types, other devices, the transforms
of torch.func (vmap, jvp), and on a GPU float64, and half types under autocast, which computes most of it in float32.
"""

import ctypes
import functools
import math
import mmap
import warnings

import torch
from torch.autograd import Function, forward_ad
from torch.autograd.graph import increment_version
from torch.nn import functional as torch_functional
from torch.overrides import handle_torch_function, has_torch_function_unary, has_torch_function_variadic

from normlab import cpu, cuda, jit
from normlab.layout import around, memory_format

__all__ = [
    "batch_norm",
    "cross_entropy",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "log_softmax",
    "rms_norm",
    "softmax",
]

_HALF = (torch.float16, torch.bfloat16)
_LIKE = {getattr(torch, name): like for name, like in jit.LIKE.items()}
_WIDE = {dtype: torch.float64 if dtype == torch.float64 else torch.float32 for dtype in _LIKE}

_library = torch.library.Library("normlab", "DEF")
_ops = torch.ops.normlab


# ---- What all of them need -------------------------------------------------------------------------------------------


def _takes(x, *parameters):
    """Whether the kernels take x, and `parameters` (or None) with it: of x's type, or all float32 beside a half x."""
    if not isinstance(x, torch.Tensor) or x.layout is not torch.strided:
        return False
    dtype, kind = x.dtype, None
    if dtype not in _LIKE or not (x.is_cpu or x.is_meta or (x.is_cuda and _on_gpu(dtype))):
        return False
    for parameter in parameters:
        if parameter is not None:
            other = getattr(parameter, "dtype", None)
            if other not in _LIKE or (kind is not None and other is not kind) or not _beside(x, parameter):
                return False
            kind = other
    if kind is not None and kind is not dtype and kind is not _WIDE[dtype]:
        return False
    # Transforms of torch.func, and forward-mode differentiation.
    return not _transforms() and forward_ad._current_level < 0


def _on_gpu(dtype):
    """Whether a GPU's kernels take a dtype. Where they cannot run at all, that is said once."""
    why_not = cuda.why_not()
    if why_not and why_not not in _said:
        _said.add(why_not)
        warnings.warn(f"normlab's kernels for CUDA are not used, but PyTorch's own functions. {why_not}", stacklevel=4)
    return why_not is None and dtype is not torch.float64 and not (dtype in _HALF and torch.is_autocast_enabled("cuda"))


_said = set()


def _beside(x, other):
    """Whether a tensor stands where x does. Kernels believe addresses: what PyTorch would check is checked before."""
    return (other.is_cpu if x.is_cpu else other.device == x.device) and other.layout is torch.strided


def _are(shape, *tensors):
    """Whether each of the tensors (or None) has this shape."""
    for tensor in tensors:
        if tensor is not None and tensor.shape != shape:
            return False
    return True


_PLAIN = {torch.Tensor, torch.nn.Parameter}


def _eager(*tensors):
    """Whether nobody watches operators: no compiler, no fake tensors, no modes. Then the kernels are called directly,
    which saves a small input half its time. Everything else, as tensors of other classes, takes the operators' way."""
    if torch.compiler.is_compiling() or _dispatch_modes() or _transforms() or _tracing() is not None:
        return False
    for tensor in tensors:
        if tensor is not None and (type(tensor) not in _PLAIN or tensor.is_neg()):
            return False
    return tensors[0].is_cpu


_dispatch_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._are_functorch_transforms_active
_tracing = torch._C._get_tracing_state


def _direct(ctx, dy):
    """Whether a backward may call its kernel directly, the forward having done so."""
    plain = type(dy) is torch.Tensor and not dy.is_neg() and not dy._is_zerotensor()
    return ctx.eager and plain and not _dispatch_modes()


def _wants_formula(dy):
    """Whether a backward must be written in PyTorch's operations: for second derivatives, and for batched ones."""
    return torch.is_grad_enabled() or _transforms() or torch._C._functorch.is_legacy_batchedtensor(dy)


def _wants_graph(x, weight=None, bias=None):
    return torch.is_grad_enabled() and (
        x.requires_grad or (weight is not None and weight.requires_grad) or (bias is not None and bias.requires_grad)
    )


def _checked_out(out, x, *parameters):
    """`out`, if a result like x can be written to it."""
    if not torch.compiler.is_compiling() and out.is_neg():
        raise RuntimeError("out must not be negated when it is read, as the imaginary part of a conjugate is")
    if out.dtype != x.dtype or out.shape != x.shape or not _beside(x, out):
        raise RuntimeError(
            f"out must be like the result, {tuple(x.shape)} of {x.dtype} on {x.device}: "
            f"it is {tuple(out.shape)} of {out.dtype} on {out.device}"
        )
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (out, x, *parameters)):
        raise RuntimeError(
            "functions with out=... do not support automatic differentiation, but a tensor requires grad"
        )
    return out


def _by_torch(function, out, *args, **kwargs):
    """PyTorch's own answer, or its error."""
    answer = function(*args, **kwargs)
    return answer if out is None else _checked_out(out, answer).copy_(answer)


_libc = ctypes.CDLL(None) if hasattr(mmap, "MADV_HUGEPAGE") else None
_PAGE = 2 << 20
# From this size on glibc fetches memory from the kernel and returns it, page by page, again and again.
_LARGE = 32 << 20


def _empty_like(x, memory_format=torch.contiguous_format):
    """A new tensor like x. A large one asks for huge pages, before the first of its pages is touched: otherwise the
    kernel hands out each 4 KiB by itself, which takes longer than to compute what goes in."""
    y = torch.empty_like(x, memory_format=memory_format)
    if y.nbytes >= _LARGE and _libc is not None:
        first = -(-y.data_ptr() // _PAGE) * _PAGE
        length = (y.data_ptr() + y.nbytes - first) // _PAGE * _PAGE
        if length > 0:
            _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)  # a hint: may fail
    return y


def _wide(parameter, dtype):
    """A weight, bias or statistic as kernels read it: contiguous, in the type that is computed in."""
    if parameter is None or (parameter.dtype is dtype and parameter.is_contiguous()):
        return parameter
    return parameter.to(dtype).contiguous()


def _threads():
    return torch.get_num_threads() if jit.parallel() else 1


def _halves(statistics):
    """Addresses of the means and of the variances, which follow them in one flat tensor."""
    return statistics.data_ptr(), statistics.data_ptr() + statistics.nbytes // 2


def _two_empty(x, size):
    """Room for dweight and dbias; zeros where there is nothing to add up."""
    new = torch.empty if x.numel() else torch.zeros
    return new(size, dtype=_WIDE[x.dtype]), new(size, dtype=_WIDE[x.dtype])


def _address(tensor):
    return 0 if tensor is None else tensor.data_ptr()


def _by_triton(name, *args, **kwargs):
    """An operator's answer on a GPU. Triton is imported when it is first needed."""
    from normlab.cuda import ops

    with torch.cuda.device_of(args[0]):  # Triton launches on the current device, wherever the tensors are
        return getattr(ops, name)(*args, **kwargs)


def _operator(schema, cpu_kernel, fake, autograd=None):
    """Register normlab::<schema>."""
    name = schema.partition("(")[0]
    _library.define(schema)
    _library.impl(name, cpu_kernel, "CPU")
    _library.impl(name, functools.partial(_by_triton, name if autograd is None else f"{name}_forward"), "CUDA")
    torch.library.register_fake(f"normlab::{name}", fake, lib=_library)
    if autograd is not None:
        _library.impl(name, autograd, "Autograd")


# ---- Layer, RMS, group and instance norm: each pool is a row ---------------------------------------------------------
# A row holds `channels` channels of `positions` elements each, and row r is of group r % groups: the (N, G, D, S) of
# axes.py, with the first two together.


def _row_norm_out(x, weight, bias, groups, channels, positions, eps, centered, *, out, statistics=None):
    if x.numel() == 0:
        return
    x, target = x.contiguous(), out if out.is_contiguous() else _empty_like(out)
    rows = x.numel() // (channels * positions)
    wide = _WIDE[x.dtype]
    weight, bias = _wide(weight, wide), _wide(bias, wide)
    means, variances = (0, 0) if statistics is None else _halves(statistics)
    cpu.row_norm(
        x.data_ptr(),
        target.data_ptr(),
        _address(weight),
        _address(bias),
        means,
        variances,
        rows,
        groups,
        channels,
        positions,
        eps,
        centered,
        _threads(),
        _LIKE[x.dtype],
    )
    if target is not out:
        out.copy_(target)


def _row_norm_forward(x, weight, bias, groups, channels, positions, eps, centered):
    rows = x.numel() // max(channels * positions, 1)
    y = _empty_like(x)
    statistics = torch.empty(2 * rows, dtype=_WIDE[x.dtype])
    _row_norm_out(x, weight, bias, groups, channels, positions, eps, centered, out=y, statistics=statistics)
    return y, statistics


def _row_norm_backward(dy, x, weight, statistics, groups, channels, positions, eps, centered, want_x, want_weight):
    wide, size = _WIDE[x.dtype], groups * channels
    dx = _empty_like(x) if want_x else x.new_empty(0)
    dweight, dbias = _two_empty(x, size if want_weight else 0)
    if x.numel():
        dy, x, weight = dy.contiguous(), x.contiguous(), _wide(weight, wide)
        means, variances = _halves(statistics)
        cpu.row_norm_backward(
            dy.data_ptr(),
            x.data_ptr(),
            dx.data_ptr(),
            _address(weight),
            means,
            variances,
            dweight.data_ptr(),
            dbias.data_ptr(),
            statistics.numel() // 2,
            groups,
            channels,
            positions,
            eps,
            centered,
            _threads(),
            _LIKE[x.dtype],
        )
    return dx, dweight, dbias


def _row_norm_fake(x, weight, bias, groups, channels, positions, eps, centered):
    wide = _WIDE[x.dtype]
    rows = x.numel() // max(channels * positions, 1)
    return x.new_empty(x.shape), x.new_empty(2 * rows, dtype=wide)


def _row_norm_backward_fake(dy, x, weight, statistics, groups, channels, positions, eps, centered, want_x, want_weight):
    size, wide = groups * channels if want_weight else 0, _WIDE[x.dtype]
    dx = x.new_empty(x.shape if want_x else 0)
    return dx, x.new_empty(size, dtype=wide), x.new_empty(size, dtype=wide)


def _pools(tensor, groups, channels, positions):
    return tensor.reshape(-1, groups, channels, positions)


def _row_norm_gradient(dy, x, weight, groups, channels, positions, eps, centered):
    """dx, dweight and dbias in PyTorch's operations, which have derivatives of their own."""
    wide, sizes = _WIDE[x.dtype], (groups, channels, positions)
    v, d, pool = _pools(x, *sizes).to(wide), _pools(dy, *sizes).to(wide), (2, 3)
    v = v - v.mean(pool, keepdim=True) if centered else v
    rstd = (v.square().mean(pool, keepdim=True) + eps).rsqrt()
    x_hat = v * rstd
    g = d if weight is None else d * weight.reshape(groups, channels, 1).to(wide)
    g_mean = g.mean(pool, keepdim=True) if centered else 0
    dx = rstd * (g - g_mean - x_hat * (g * x_hat).mean(pool, keepdim=True))
    return dx.reshape(x.shape).to(x.dtype), (d * x_hat).sum((0, 3)), d.sum((0, 3))


def _apply(function):
    """function.apply without its search for tensors of torch.func's transforms, of which none is active."""
    return super(Function, function).apply


class _RowNorm(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, spec, statistics):
        ctx.eager = _eager(x, weight, bias)
        forward = _row_norm_forward if ctx.eager else _ops.row_norm_forward.default
        y, own_statistics = forward(x, weight, bias, *spec)
        ctx.save_for_backward(x, weight, bias, own_statistics)
        ctx.spec = spec
        statistics.append(own_statistics)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, bias, statistics = ctx.saved_tensors
        want_x, want_weight, want_bias = ctx.needs_input_grad[:3]
        if _wants_formula(dy):
            dx, dweight, dbias = _row_norm_gradient(dy, x, weight, *ctx.spec)
        else:
            backward = _row_norm_backward if _direct(ctx, dy) else _ops.row_norm_backward.default
            want = (want_x, want_weight or want_bias)
            dx, dweight, dbias = backward(dy, x, weight, statistics, *ctx.spec, *want)
        return dx if want_x else None, _like(dweight, weight, want_weight), _like(dbias, bias, want_bias), None, None


_apply_row_norm = _apply(_RowNorm)


def _differentiable_row_norm(x, weight, bias, *spec):
    statistics = []
    return _RowNorm.apply(x, weight, bias, spec, statistics), *statistics


def _like(gradient, parameter, wanted):
    """The gradient of a parameter, in its shape and type; None where it is not wanted."""
    if not wanted:
        return None
    if gradient.shape == parameter.shape and gradient.dtype is parameter.dtype:
        return gradient
    return gradient.reshape(parameter.shape).to(parameter.dtype)


_SPEC = "SymInt groups, SymInt channels, SymInt positions, float eps, bool centered"
for _name in ("row_norm", "row_norm_forward"):
    _operator(
        f"{_name}(Tensor x, Tensor? weight, Tensor? bias, {_SPEC}) -> (Tensor, Tensor)",
        _row_norm_forward,
        _row_norm_fake,
        _differentiable_row_norm if _name == "row_norm" else None,
    )
_operator(
    f"row_norm_out(Tensor x, Tensor? weight, Tensor? bias, {_SPEC}, *, Tensor(a!) out) -> ()",
    _row_norm_out,
    lambda *args, out: None,
)
_operator(
    f"row_norm_backward(Tensor dy, Tensor x, Tensor? weight, Tensor statistics, {_SPEC}, "
    "bool want_x, bool want_weight) -> (Tensor, Tensor, Tensor)",
    _row_norm_backward,
    _row_norm_backward_fake,
)


def _row_norm(x, weight, bias, out, *spec):
    if not _eager(x, weight, bias, out):
        if out is None:
            return _ops.row_norm.default(x, weight, bias, *spec)[0]
        _ops.row_norm_out.default(x, weight, bias, *spec, out=_checked_out(out, x, weight, bias))
        return out
    if out is not None:
        increment_version(_checked_out(out, x, weight, bias))
    elif _wants_graph(x, weight, bias):
        return _apply_row_norm(x, weight, bias, spec, [])
    else:
        out = _empty_like(x)
    _row_norm_out(x, weight, bias, *spec, out=out)
    return out


def _trailing(x, normalized_shape):
    """normalized_shape as a tuple, if those are the last axes of x, else None."""
    if not isinstance(normalized_shape, (tuple, list)) or not normalized_shape:
        return None
    shape = tuple(normalized_shape)
    return shape if x.shape[-len(shape) :] == shape else None


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5, *, out=None):
    """torch.nn.functional.layer_norm: pools the last axes, which `normalized_shape` (a tuple) names  [eq-normalize].

    input: (..., *normalized_shape); weight, bias: of normalized_shape, or None for 1 and 0. Returns one like input.
    """
    if has_torch_function_variadic(input, weight, bias):
        return handle_torch_function(
            layer_norm, (input, weight, bias), input, normalized_shape, weight=weight, bias=bias, eps=eps, out=out
        )
    if (
        not _takes(input, weight, bias)
        or (shape := _trailing(input, normalized_shape)) is None
        or not _are(shape, weight, bias)
    ):
        return _by_torch(torch_functional.layer_norm, out, input, normalized_shape, weight, bias, eps)
    return _row_norm(input, weight, bias, out, 1, math.prod(shape), 1, eps, True)


def rms_norm(input, normalized_shape, weight=None, eps=None, *, out=None):
    """torch.nn.functional.rms_norm: as layer_norm, without centring and bias  [eq-normalize].

    eps=None is the machine epsilon of the type that is computed in: float32's for half precision too.
    """
    if has_torch_function_variadic(input, weight):
        return handle_torch_function(
            rms_norm, (input, weight), input, normalized_shape, weight=weight, eps=eps, out=out
        )
    if not _takes(input, weight) or (shape := _trailing(input, normalized_shape)) is None or not _are(shape, weight):
        return _by_torch(torch_functional.rms_norm, out, input, normalized_shape, weight, eps)
    if eps is None:
        eps = torch.finfo(_WIDE[input.dtype]).eps
    return _row_norm(input, weight, None, out, 1, math.prod(shape), 1, eps, False)


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5, *, out=None):
    """torch.nn.functional.group_norm: pools groups of channels with their positions  [eq-normalize].

    input: (N, C, positions...) with num_groups dividing C; weight, bias: (C,) or None. Returns a tensor like input.
    """
    if has_torch_function_variadic(input, weight, bias):
        return handle_torch_function(
            group_norm, (input, weight, bias), input, num_groups, weight=weight, bias=bias, eps=eps, out=out
        )
    if (
        not _takes(input, weight, bias)
        or len(shape := input.shape) < 2
        or num_groups < 1
        or shape[1] % num_groups
        or shape[1] == 0
        or not _are(shape[1:2], weight, bias)
        or math.prod(shape[2:], start=shape[0] * shape[1] // num_groups) == 1
    ):
        return _by_torch(torch_functional.group_norm, out, input, num_groups, weight, bias, eps)
    spec = (num_groups, shape[1] // num_groups, math.prod(shape[2:]), eps, True)
    y, format = _row_norm(input, weight, bias, out, *spec), memory_format(input)
    return y if out is not None or format is torch.contiguous_format else y.contiguous(memory_format=format)


def instance_norm(
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
    *,
    out=None,
):
    """torch.nn.functional.instance_norm: pools the positions of each channel of each example  [eq-normalize].

    input: (N, C, positions...); the others (C,) or None. Running statistics are the averages over the examples.
    """
    own = (running_mean, running_var)
    if has_torch_function_variadic(input, *own, weight, bias):
        return handle_torch_function(
            instance_norm,
            (input, *own, weight, bias),
            input,
            *own,
            weight=weight,
            bias=bias,
            use_input_stats=use_input_stats,
            momentum=momentum,
            eps=eps,
            out=out,
        )
    everything = (input, *own, weight, bias, use_input_stats, momentum, eps)
    if not use_input_stats:
        if running_mean is None or running_var is None:
            return _by_torch(torch_functional.instance_norm, out, *everything)
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps, out=out)
    if (
        not _takes(input, weight, bias)
        or len(shape := input.shape) < 3
        or (positions := math.prod(shape[2:])) < 2
        or input.numel() == 0
        or not _are(shape[1:2], weight, bias, *own)
        or (running_mean is None) != (running_var is None)
    ):
        return _by_torch(torch_functional.instance_norm, out, *everything)
    spec = (shape[1], 1, positions, eps, True)
    if running_mean is None:
        return _row_norm(input, weight, bias, out, *spec)
    if out is not None:
        _checked_out(out, input, weight, bias)
    operator = _differentiable_row_norm if _eager(input, weight, bias) else _ops.row_norm.default
    y, statistics = operator(input, weight, bias, *spec)
    statistics = statistics.reshape(2, *shape[:2]).mean(1).flatten()
    _update(running_mean, running_var, statistics, momentum, positions)
    return y if out is None else out.copy_(y)


# ---- Batch norm ------------------------------------------------------------------------------------------------------


def _batch_norm_kernel(by_rows, by_columns, x, format, tensors, eps, training):
    """Call the kernel for how x stands in memory: its positions side by side, or its channels."""
    n, channels = x.shape[:2]
    positions = x.numel() // (n * channels)
    addresses = [_address(tensor) for tensor in tensors[:-1]] + [*_halves(tensors[-1])]
    if positions > 1 and format is torch.contiguous_format:
        by_rows(*addresses, n, channels, positions, eps, training, _threads(), _LIKE[x.dtype])
    else:
        by_columns(*addresses, n * positions, channels, eps, training, _threads(), _LIKE[x.dtype])


def _batch_norm_out(x, weight, bias, means, variances, eps, *, out):
    """Returns the statistics, means and then variances: of the batch where means is None, else those that are given."""
    training, wide = means is None, _WIDE[x.dtype]
    if training:
        statistics = torch.empty(2 * x.shape[1], dtype=wide)
    else:
        statistics = torch.cat((_wide(means, wide), _wide(variances, wide)))
    if x.numel():
        format = memory_format(x)
        x, weight, bias = x.contiguous(memory_format=format), _wide(weight, wide), _wide(bias, wide)
        target = out if out.stride() == x.stride() else _empty_like(x, format)
        tensors = (x, target, weight, bias, statistics)
        _batch_norm_kernel(cpu.batch_norm, cpu.batch_norm_columns, x, format, tensors, eps, training)
        if target is not out:
            out.copy_(target)
    return statistics


def _batch_norm_forward(x, weight, bias, means, variances, eps):
    y = _empty_like(x, memory_format(x))
    return y, _batch_norm_out(x, weight, bias, means, variances, eps, out=y)


def _batch_norm_backward(dy, x, weight, statistics, eps, training, want_x, want_weight):
    format = memory_format(x)
    dx = _empty_like(x, format) if want_x else x.new_empty(0)
    dweight, dbias = _two_empty(x, x.shape[1] if want_weight else 0)
    if x.numel():
        dy, x = dy.contiguous(memory_format=format), x.contiguous(memory_format=format)
        tensors = (dy, x, dx, _wide(weight, _WIDE[x.dtype]), dweight, dbias, statistics)
        _batch_norm_kernel(cpu.batch_norm_backward, cpu.batch_norm_columns_backward, x, format, tensors, eps, training)
    return dx, dweight, dbias


def _batch_norm_out_fake(x, weight, bias, means, variances, eps, *, out):
    return x.new_empty(2 * x.shape[1], dtype=_WIDE[x.dtype])


def _batch_norm_fake(x, weight, bias, means, variances, eps):
    y = torch.empty_like(x, memory_format=memory_format(x))
    return y, _batch_norm_out_fake(x, weight, bias, means, variances, eps, out=y)


def _batch_norm_backward_fake(dy, x, weight, statistics, eps, training, want_x, want_weight):
    dx = torch.empty_like(x, memory_format=memory_format(x)) if want_x else x.new_empty(0)
    size, wide = x.shape[1] if want_weight else 0, _WIDE[x.dtype]
    return dx, x.new_empty(size, dtype=wide), x.new_empty(size, dtype=wide)


def _batch_norm_gradient(dy, x, weight, statistics, eps, training):
    """dx, dweight and dbias in PyTorch's operations, which have derivatives of their own."""
    wide = _WIDE[x.dtype]
    v, d = x.to(wide).flatten(2) if x.dim() > 2 else x.to(wide)[..., None], None
    d = dy.to(wide).reshape(v.shape)
    pool, channel = (0, 2), (-1, 1)
    if training:
        v = v - v.mean(pool, keepdim=True)
        rstd = (v.square().mean(pool, keepdim=True) + eps).rsqrt()
    else:
        means, variances = statistics.reshape(2, *channel)
        v, rstd = v - means, (variances + eps).rsqrt()
    x_hat = v * rstd
    g = d if weight is None else d * weight.reshape(channel).to(wide)
    dx = rstd * g
    if training:
        dx = dx - rstd * (g.mean(pool, keepdim=True) + x_hat * (g * x_hat).mean(pool, keepdim=True))
    return dx.reshape(x.shape).to(x.dtype), (d * x_hat).sum(pool), d.sum(pool)


class _BatchNorm(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, means, variances, eps, statistics):
        ctx.eager = _eager(x, weight, bias, means, variances)
        forward = _batch_norm_forward if ctx.eager else _ops.batch_norm_forward.default
        y, own_statistics = forward(x, weight, bias, means, variances, eps)
        ctx.save_for_backward(x, weight, bias, own_statistics)
        ctx.spec = eps, means is None
        statistics.append(own_statistics)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, bias, statistics = ctx.saved_tensors
        want_x, want_weight, want_bias = ctx.needs_input_grad[:3]
        if _wants_formula(dy):
            dx, dweight, dbias = _batch_norm_gradient(dy, x, weight, statistics, *ctx.spec)
        else:
            backward = _batch_norm_backward if _direct(ctx, dy) else _ops.batch_norm_backward.default
            dx, dweight, dbias = backward(dy, x, weight, statistics, *ctx.spec, want_x, want_weight or want_bias)
        dweight, dbias = _like(dweight, weight, want_weight), _like(dbias, bias, want_bias)
        return dx if want_x else None, dweight, dbias, None, None, None, None


_apply_batch_norm = _apply(_BatchNorm)


def _differentiable_batch_norm(*args):
    statistics = []
    return _BatchNorm.apply(*args, statistics), *statistics


_SPEC = "Tensor x, Tensor? weight, Tensor? bias, Tensor? means, Tensor? variances, float eps"
for _name in ("batch_norm", "batch_norm_forward"):
    _operator(
        f"{_name}({_SPEC}) -> (Tensor, Tensor)",
        _batch_norm_forward,
        _batch_norm_fake,
        _differentiable_batch_norm if _name == "batch_norm" else None,
    )
_operator(f"batch_norm_out({_SPEC}, *, Tensor(a!) out) -> Tensor", _batch_norm_out, _batch_norm_out_fake)
_operator(
    "batch_norm_backward(Tensor dy, Tensor x, Tensor? weight, Tensor statistics, float eps, bool training, "
    " bool want_x, bool want_weight) -> (Tensor, Tensor, Tensor)",
    _batch_norm_backward,
    _batch_norm_backward_fake,
)


def _update(running_mean, running_var, statistics, momentum, n):
    """Move the running statistics toward those of a batch of n values a channel; the variance in its unbiased form."""
    unbiased, running = n / (n - 1), (running_mean, running_var)
    if _eager(statistics, *running) and running_mean.is_contiguous() and running_var.is_contiguous():
        if running_mean.dtype is running_var.dtype is statistics.dtype:
            addresses = running_mean.data_ptr(), running_var.data_ptr(), *_halves(statistics)
            cpu.move(*addresses, running_mean.numel(), momentum, unbiased, _LIKE[statistics.dtype])
            increment_version(running)
            return
    if statistics.is_cuda and running_mean.is_contiguous() and running_var.is_contiguous():
        _by_triton("move", running_mean, running_var, statistics, momentum, unbiased)
        increment_version(running)
        return
    means, variances = statistics.chunk(2)
    with torch.no_grad():
        running_mean.mul_(1 - momentum).add_(means, alpha=momentum)
        running_var.mul_(1 - momentum).add_(variances, alpha=momentum * unbiased)


def batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    *,
    out=None,
):
    """torch.nn.functional.batch_norm: pools the examples and positions of each channel  [eq-normalize].

    input: (N, C) or (N, C, positions...); the others (C,) or None. In training the batch's statistics are used and the
    running ones move toward them, else the running ones are used. Returns a tensor like input. Gradients are those of
    the statistics that were used, also if the running ones have changed since (PyTorch refuses then).
    """
    own = (running_mean, running_var)
    if has_torch_function_variadic(input, *own, weight, bias):
        return handle_torch_function(
            batch_norm,
            (input, *own, weight, bias),
            input,
            *own,
            weight=weight,
            bias=bias,
            training=training,
            momentum=momentum,
            eps=eps,
            out=out,
        )
    if (
        not _takes(input, weight, bias, *own)
        or len(shape := input.shape) < 2
        or not _are(shape[1:2], weight, bias, *own)
        or (running_mean is None) != (running_var is None)
        or (not training and running_mean is None)
        or input.numel() < 1
        or (training and (input.numel() == shape[1] or eps <= 0))
        or eps < 0
    ):
        return _by_torch(torch_functional.batch_norm, out, input, *own, weight, bias, training, momentum, eps)
    arguments = (input, weight, bias, *((None, None) if training else own), eps)
    eager = _eager(input, weight, bias, *own, out)
    if out is not None:
        y = _checked_out(out, input, weight, bias)
        if eager:
            increment_version(out)
            statistics = _batch_norm_out(*arguments, out=out)
        else:
            statistics = _ops.batch_norm_out.default(*arguments, out=out)
    elif not eager:
        y, statistics = _ops.batch_norm.default(*arguments)
    elif _wants_graph(input, weight, bias):
        box = []
        y, (statistics,) = _apply_batch_norm(*arguments, box), box
    else:
        y, statistics = _batch_norm_forward(*arguments)
    if training and running_mean is not None:
        _update(running_mean, running_var, statistics, momentum, input.numel() // shape[1])
    return y


# ---- Softmax and log-softmax -----------------------------------------------------------------------------------------


def _softmax_out(x, dim, log, *, out):
    if x.numel() == 0:
        return
    x, target = x.contiguous(), out if out.is_contiguous() else _empty_like(out)
    outer, length, inner = around(x, dim)
    if inner == 1:
        cpu.softmax(x.data_ptr(), target.data_ptr(), outer, length, log, _threads(), _LIKE[x.dtype])
    else:
        cpu.softmax_columns(x.data_ptr(), target.data_ptr(), outer, length, inner, log, _threads(), _LIKE[x.dtype])
    if target is not out:
        out.copy_(target)


def _softmax(x, dim, log):
    y = _empty_like(x)
    _softmax_out(x, dim, log, out=y)
    return y


def _softmax_backward(dy, y, dim, log):
    dx = _empty_like(y)
    if y.numel():
        dy, y = dy.contiguous(), y.contiguous()
        outer, length, inner = around(y, dim)
        addresses = dy.data_ptr(), y.data_ptr(), dx.data_ptr()
        if inner == 1:
            cpu.softmax_backward(*addresses, outer, length, log, _threads(), _LIKE[y.dtype])
        else:
            cpu.softmax_backward_columns(*addresses, outer, length, inner, log, _threads(), _LIKE[y.dtype])
    return dx


class _Softmax(Function):
    @staticmethod
    def forward(ctx, x, dim, log):
        ctx.eager = _eager(x)
        y = (_softmax if ctx.eager else _ops.softmax_forward.default)(x, dim, log)
        ctx.save_for_backward(y)
        ctx.dim, ctx.log = dim, log
        return y

    @staticmethod
    def backward(ctx, dy):
        (y,), dim = ctx.saved_tensors, ctx.dim
        if not _wants_formula(dy):
            backward = _softmax_backward if _direct(ctx, dy) else _ops.softmax_backward.default
            return backward(dy, y, dim, ctx.log), None, None
        if ctx.log:
            return dy - y.exp() * dy.sum(dim, keepdim=True), None, None
        return y * (dy - (y * dy).sum(dim, keepdim=True)), None, None


_apply_softmax = _apply(_Softmax)

for _name in ("softmax", "softmax_forward"):
    _operator(
        f"{_name}(Tensor x, int dim, bool log) -> Tensor",
        _softmax,
        lambda x, dim, log: x.new_empty(x.shape),
        (lambda *args: _Softmax.apply(*args)) if _name == "softmax" else None,
    )
_operator("softmax_out(Tensor x, int dim, bool log, *, Tensor(a!) out) -> ()", _softmax_out, lambda *args, out: None)
_operator(
    "softmax_backward(Tensor dy, Tensor y, int dim, bool log) -> Tensor",
    _softmax_backward,
    lambda dy, y, dim, log: y.new_empty(y.shape),
)


def _any_softmax(log, own, torch_function, input, dim, stacklevel, dtype, out):
    if has_torch_function_unary(input):
        return handle_torch_function(own, (input,), input, dim, _stacklevel=stacklevel, dtype=dtype, out=out)
    if not isinstance(input, torch.Tensor):
        return torch_function(input, dim)  # which says what is wrong
    if dim is None:
        dim = torch_functional._get_softmax_dim(own.__name__, input.dim(), stacklevel + 1)
    x = input if dtype is None or dtype == input.dtype else input.to(dtype)
    axes = max(x.dim(), 1)
    if not -axes <= dim < axes or not _takes(x):
        return _by_torch(torch_function, out, input, dim, dtype=dtype)
    dim %= axes
    if not _eager(x, out):
        if out is None:
            return _ops.softmax.default(x, dim, log)
        _ops.softmax_out.default(x, dim, log, out=_checked_out(out, x))
        return out
    if out is not None:
        increment_version(_checked_out(out, x))
    elif _wants_graph(x):
        return _apply_softmax(x, dim, log)
    else:
        out = _empty_like(x)
    _softmax_out(x, dim, log, out=out)
    return out


def softmax(input, dim=None, _stacklevel=3, dtype=None, *, out=None):
    """torch.nn.functional.softmax along `dim`  [eq-softmax]; input is converted to `dtype` first, if one is given."""
    return _any_softmax(False, softmax, torch_functional.softmax, input, dim, _stacklevel, dtype, out)


def log_softmax(input, dim=None, _stacklevel=3, dtype=None, *, out=None):
    """torch.nn.functional.log_softmax: the logarithm of softmax, computed without it."""
    return _any_softmax(True, log_softmax, torch_functional.log_softmax, input, dim, _stacklevel, dtype, out)


# ---- Cross entropy ---------------------------------------------------------------------------------------------------

_REDUCTIONS = {"none": -1, "sum": 0, "mean": 1}


def _cross_entropy_forward(x, target, weight, reduction, ignore_index, label_smoothing):
    """The loss, and what the backward needs: maximum and normalizer of each target, and what the sum was divided by."""
    wide = _WIDE[x.dtype]
    x, target, weight = x.contiguous(), target.contiguous(), _wide(weight, wide)
    outer, classes, inner = around(x, 1)
    n = outer * inner
    loss = torch.empty(target.shape if reduction < 0 else (), dtype=x.dtype)
    saved = torch.empty(2 * n + 1, dtype=wide)
    tops, itemsize = saved.data_ptr(), saved.itemsize
    bad = cpu.cross_entropy(
        x.data_ptr(),
        target.data_ptr(),
        _address(weight),
        loss.data_ptr(),
        tops,
        tops + n * itemsize,
        tops + 2 * n * itemsize,
        outer,
        classes,
        inner,
        ignore_index,
        label_smoothing,
        reduction,
        _threads(),
        _LIKE[x.dtype],
    )
    if bad >= 0:
        raise IndexError(f"Target {target.flatten()[bad].item()} is out of bounds.")
    return loss, saved


def _cross_entropy_backward(dloss, x, target, weight, saved, ignore_index, label_smoothing):
    wide = _WIDE[x.dtype]
    dx = _empty_like(x)
    dloss, x, target, weight = dloss.contiguous(), x.contiguous(), target.contiguous(), _wide(weight, wide)
    outer, classes, inner = around(x, 1)
    n = outer * inner
    tops, itemsize = saved.data_ptr(), saved.itemsize
    cpu.cross_entropy_backward(
        dloss.data_ptr(),
        x.data_ptr(),
        dx.data_ptr(),
        target.data_ptr(),
        _address(weight),
        tops,
        tops + n * itemsize,
        tops + 2 * n * itemsize,
        dloss.numel(),
        outer,
        classes,
        inner,
        ignore_index,
        label_smoothing,
        _threads(),
        _LIKE[x.dtype],
    )
    return dx


def _cross_entropy_fake(x, target, weight, reduction, ignore_index, label_smoothing):
    return x.new_empty(target.shape if reduction < 0 else ()), x.new_empty(2 * target.numel() + 1, dtype=_WIDE[x.dtype])


def _cross_entropy_gradient(dloss, x, target, weight, reduction, ignore_index, label_smoothing):
    """dx in PyTorch's operations, which have derivatives of their own."""
    wide, classes = _WIDE[x.dtype], x.shape[1]
    p, kept = x.to(wide).softmax(1), target != ignore_index
    onehot = torch_functional.one_hot(torch.where(kept, target, 0), classes).movedim(-1, 1).to(wide)
    w = torch.ones(classes, dtype=wide, device=x.device) if weight is None else weight.to(wide)
    w_target, per_class = w[torch.where(kept, target, 0)], w.reshape(1, classes, *[1] * (x.dim() - 2))
    g = dloss.to(wide) / ((w_target * kept).sum() if reduction == 1 else 1)
    evenly = label_smoothing / classes
    each = (1 - label_smoothing) * w_target.unsqueeze(1) * (p - onehot) + evenly * (w.sum() * p - per_class)
    return (each * (g * kept).unsqueeze(1)).to(x.dtype)


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx, x, target, weight, spec, saved):
        ctx.eager = _eager(x, target, weight)
        forward = _cross_entropy_forward if ctx.eager else _ops.cross_entropy_forward.default
        loss, own_saved = forward(x, target, weight, *spec)
        ctx.save_for_backward(x, target, weight, own_saved)
        ctx.spec = spec
        saved.append(own_saved)
        return loss

    @staticmethod
    def backward(ctx, dloss):
        x, target, weight, saved = ctx.saved_tensors
        if _wants_formula(dloss):
            dx = _cross_entropy_gradient(dloss, x, target, weight, *ctx.spec)
        else:
            backward = _cross_entropy_backward if _direct(ctx, dloss) else _ops.cross_entropy_backward.default
            dx = backward(dloss, x, target, weight, saved, *ctx.spec[1:])
        return dx, None, None, None, None


_apply_cross_entropy = _apply(_CrossEntropy)


def _differentiable_cross_entropy(x, target, weight, *spec):
    saved = []
    return _CrossEntropy.apply(x, target, weight, spec, saved), *saved


_SPEC = "int reduction, SymInt ignore_index, float label_smoothing"
for _name in ("cross_entropy", "cross_entropy_forward"):
    _operator(
        f"{_name}(Tensor x, Tensor target, Tensor? weight, {_SPEC}) -> (Tensor, Tensor)",
        _cross_entropy_forward,
        _cross_entropy_fake,
        _differentiable_cross_entropy if _name == "cross_entropy" else None,
    )
_operator(
    "cross_entropy_backward(Tensor dloss, Tensor x, Tensor target, Tensor? weight, Tensor saved, SymInt ignore_index, "
    "float label_smoothing) -> Tensor",
    _cross_entropy_backward,
    lambda dloss, x, *rest: x.new_empty(x.shape),
)


def cross_entropy(
    input,
    target,
    weight=None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
    label_smoothing=0.0,
):
    """torch.nn.functional.cross_entropy.

    input: logits (C,), (N, C) or (N, C, positions...); target: class indices, (), (N,) or (N, positions...), or
    probabilities like input; weight: (C,) or None. Returns the mean, the sum, or with reduction="none" the loss of each
    target. Errors: IndexError for a target that is no class.
    """
    everything = (input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing)
    if has_torch_function_variadic(input, target, weight):
        return handle_torch_function(cross_entropy, (input, target, weight), *everything)
    if not isinstance(input, torch.Tensor) or not isinstance(target, torch.Tensor):
        return torch_functional.cross_entropy(*everything)  # which says what is wrong
    if size_average is not None or reduce is not None:
        reduction = torch.nn._reduction.legacy_get_string(size_average, reduce)
    if input.dtype in _HALF and torch.is_autocast_enabled("cuda" if input.is_cuda else "cpu"):
        input = input.float()  # autocast computes losses in float32
        weight = None if weight is None else weight.float()
        target = target.float() if target.is_floating_point() else target
    axis = 1 if input.dim() > 1 else 0
    if (
        not _takes(input, weight)
        or input.dim() == 0
        or input.numel() == 0
        or reduction not in _REDUCTIONS
        or not 0 <= label_smoothing <= 1
        or (
            weight is not None
            and (weight.shape != input.shape[axis : axis + 1] or weight.requires_grad or weight.dtype != input.dtype)
        )
        or not _beside(input, target)
    ):
        return torch_functional.cross_entropy(*everything)
    indices = target.dtype is torch.int64 or target.dtype is torch.uint8
    if indices and input.dim() == 2 and target.dim() == 1 and target.size(0) == input.size(0):
        return _cross_entropy_of_indices(input, target, weight, reduction, ignore_index, label_smoothing)
    if target.is_floating_point():
        if target.shape != input.shape or ignore_index >= 0:
            return torch_functional.cross_entropy(*everything)
        return _cross_entropy_of_probabilities(input, target, weight, axis, reduction, label_smoothing)
    if not indices or target.shape != input.shape[:axis] + input.shape[axis + 1 :]:
        return torch_functional.cross_entropy(*everything)
    if axis == 1:
        return _cross_entropy_of_indices(input, target, weight, reduction, ignore_index, label_smoothing)
    loss = _cross_entropy_of_indices(
        input.unsqueeze(0), target.unsqueeze(0), weight, reduction, ignore_index, label_smoothing
    )
    return loss.reshape(())


def _cross_entropy_of_indices(x, target, weight, reduction, ignore_index, label_smoothing):
    spec = (_REDUCTIONS[reduction], ignore_index, label_smoothing)
    target = target if target.dtype is torch.int64 else target.long()
    if not _eager(x, target, weight):
        return _ops.cross_entropy.default(x, target, weight, *spec)[0]
    if _wants_graph(x):
        return _apply_cross_entropy(x, target, weight, spec, [])
    return _cross_entropy_forward(x, target, weight, *spec)[0]


def _cross_entropy_of_probabilities(input, target, weight, axis, reduction, label_smoothing):
    """-sum over the classes of weight * target * log p, where a target is a distribution of its own."""
    classes = input.shape[axis]
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        target = target * weight.reshape(classes, *[1] * (input.dim() - axis - 1))
    losses = -(log_softmax(input, axis) * target).sum(axis)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / (input.numel() // classes)
