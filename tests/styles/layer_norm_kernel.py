"""Right solutions of layer_norm_kernel in different styles."""

import triton
import triton.language as tl


@triton.jit
def plain(x_ptr, out_ptr, weight_ptr, bias_ptr, x_stride, out_stride, n_cols, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x = tl.load(x_ptr + row * x_stride + cols, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=0) / n_cols
    d = tl.where(mask, x - mean, 0.0)
    var = tl.sum(d * d, axis=0) / n_cols
    weight = tl.load(weight_ptr + cols, mask=mask).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=mask).to(tl.float32)
    y = d * tl.rsqrt(var + eps) * weight + bias
    tl.store(out_ptr + row * out_stride + cols, y, mask=mask)


@triton.jit
def mean_corrected(x_ptr, out_ptr, weight_ptr, bias_ptr, x_stride, out_stride, n_cols, eps, BLOCK: tl.constexpr):
    """The mean of what is left after the mean was taken out is taken out as well."""
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x = tl.load(x_ptr + row * x_stride + cols, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x) / n_cols
    rest = tl.sum(tl.where(mask, x - mean, 0)) / n_cols
    d = (x - mean) - rest
    var = tl.sum(tl.where(mask, d * d, 0)) / n_cols
    rstd = 1 / tl.sqrt(var + eps)
    weight, bias = tl.load(weight_ptr + cols, mask, other=1), tl.load(bias_ptr + cols, mask, other=0)
    y = tl.fma(d * rstd, weight.to(tl.float32), bias.to(tl.float32))
    tl.store(out_ptr + row * out_stride + cols, y.to(out_ptr.dtype.element_ty), mask)


@triton.jit
def scale_and_shift(x_ptr, out_ptr, weight_ptr, bias_ptr, x_stride, out_stride, n_cols, eps, BLOCK: tl.constexpr):
    """Hidden lanes hold the mean; the row as d * scale + bias."""
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    row = tl.program_id(0).to(tl.int64)
    x = tl.load(x_ptr + row * x_stride + cols, mask=mask, other=0).to(tl.float32)
    mean = tl.sum(x, 0) / n_cols
    x = tl.where(mask, x, mean)
    d = x - mean
    scale = tl.load(weight_ptr + cols, mask=mask, other=0) * tl.rsqrt(tl.sum(d * d, 0) / n_cols + eps)
    tl.store(out_ptr + row * out_stride + cols, d * scale + tl.load(bias_ptr + cols, mask=mask, other=0), mask=mask)


@triton.jit
def _mean(x, n):
    return tl.sum(x, axis=1, keep_dims=True) / n


@triton.jit
def two_dimensional(x, out, w, b, sx, so, n, eps, BLOCK: tl.constexpr):
    """Other names, a helper, a block of one row by BLOCK columns, the mask as a factor."""
    row = tl.program_id(0) + tl.arange(0, 1)[:, None]
    cols = tl.arange(0, BLOCK)[None, :]
    inside = cols < n
    v = tl.load(x + row * sx + cols, mask=inside, other=0.0).to(tl.float32)
    v = (v - _mean(v, n)) * inside.to(tl.float32)
    v /= tl.sqrt(_mean(v * v, n) + eps)
    v *= tl.load(w + cols, mask=inside, other=0.0).to(tl.float32)
    v += tl.load(b + cols, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * so + cols, v, mask=inside)


STYLES = [plain, mean_corrected, scale_and_shift, two_dimensional]
