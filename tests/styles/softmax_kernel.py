"""Right solutions of softmax_kernel in different styles."""

import triton
import triton.language as tl


@triton.jit
def plain(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x = tl.load(x_ptr + row * x_stride + cols, mask=mask, other=-float("inf")).to(tl.float32)
    e = tl.exp(x - tl.max(x, axis=0))
    tl.store(out_ptr + row * out_stride + cols, e / tl.sum(e, axis=0), mask=mask)


@triton.jit
def chosen_afterwards(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    """No other=: hidden lanes are chosen away. Powers of 2, the stride in 64 bits, the type of out said aloud."""
    row = tl.program_id(axis=0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    hidden = cols >= n_cols
    x = tl.load(x_ptr + row * x_stride + cols, mask=~hidden).cast(tl.float32)
    x = tl.where(hidden, float("-inf"), x) * 1.4426950408889634
    e = tl.exp2(x - tl.max(x))
    y = e * (1.0 / tl.sum(e))
    tl.store(out_ptr + row * out_stride + cols, y.to(out_ptr.dtype.element_ty), mask=cols < n_cols)


@triton.jit
def logarithm(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    """exp of the log-softmax; a very negative number for other=, and zeros put where nothing is."""
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x = tl.load(x_ptr + row * x_stride + cols, mask=mask, other=-1e30).to(tl.float32)
    shifted = x - tl.max(x, axis=0)
    e = tl.where(mask, tl.exp(shifted), 0.0)
    tl.store(out_ptr + row * out_stride + cols, tl.exp(shifted - tl.log(tl.sum(e, axis=0))), mask=mask)


@triton.jit
def two_dimensional(x, out, sx, so, n, BLOCK: tl.constexpr):
    """Other names; a block of one row by BLOCK columns."""
    row = tl.program_id(0) + tl.arange(0, 1)[:, None]
    cols = tl.arange(0, BLOCK)[None, :]
    inside = cols < n
    v = tl.load(x + row * sx + cols, mask=inside, other=float("-inf")).to(tl.float32)
    v -= tl.max(v, axis=1, keep_dims=True)
    v = tl.exp(v)
    v /= tl.sum(v, axis=1, keep_dims=True)
    tl.store(out + row * so + cols, v, mask=inside)


@triton.jit
def _shifted(x):
    return x - tl.max(x, 0)


@triton.jit
def with_a_helper(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    """A jitted helper; x is not cast by hand, since tl.max gives float32; pointers are moved on."""
    x_ptr += tl.program_id(0) * x_stride
    out_ptr += tl.program_id(0) * out_stride
    cols = tl.arange(0, BLOCK)
    e = tl.exp(_shifted(tl.load(x_ptr + cols, cols < n_cols, -float("inf"))))
    tl.store(out_ptr + cols, tl.fdiv(e, tl.sum(e, 0)), cols < n_cols)


@triton.jit
def by_methods(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row, cols = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * x_stride + cols, mask=cols < n_cols, other=-float("inf")).to(tl.float32)
    e = (x - x.max(axis=0)).exp()
    tl.store(out_ptr + row * out_stride + cols, e / e.sum(axis=0), mask=cols < n_cols)


STYLES = [plain, chosen_afterwards, logarithm, two_dimensional, with_a_helper, by_methods]
