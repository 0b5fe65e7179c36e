"""Known mistakes of softmax_kernel and layer_norm_kernel: each a right kernel with a switch thrown, or one of its own.

Importing this needs Triton. kernels.py does so when the first of them is run.
"""

import triton
import triton.language as tl

# What a lane beyond the row counts as.
REST = tl.constexpr(float("-inf"))


@triton.jit
def softmax(
    x_ptr,
    out_ptr,
    x_stride,
    out_stride,
    n_cols,
    BLOCK: tl.constexpr,
    x_rows: tl.constexpr = "x_stride",
    out_rows: tl.constexpr = "out_stride",
    walk: tl.constexpr = "row",
    load: tl.constexpr = "right",
    store: tl.constexpr = "right",
    top: tl.constexpr = "right",
    arithmetic: tl.constexpr = "float32",
    base: tl.constexpr = "e",
    division: tl.constexpr = "right",
    rounds: tl.constexpr = "right",
):
    row = tl.program_id(1 if x_rows == "second axis" else 0)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x_row = x_ptr + row * (n_cols if x_rows == "n_cols" else out_stride if x_rows == "out_stride" else x_stride)
    out_row = out_ptr + row * (n_cols if out_rows == "n_cols" else x_stride if out_rows == "x_stride" else out_stride)
    if out_rows == "none":
        out_row = out_ptr
    if x_rows == "none":
        x_row = x_ptr
    steps = cols
    if walk == "column":
        x_row = x_ptr + row
        steps = cols * x_stride
    if walk == "apart" and BLOCK >= 32:
        steps = cols % 32 * (BLOCK // 32) + cols // 32
        mask = steps < n_cols
    if load == "no mask":
        x = tl.load(x_row + steps)
    elif load == "no other":
        x = tl.load(x_row + steps, mask=mask)
    elif load == "zero":
        x = tl.load(x_row + steps, mask=mask, other=0.0)
    elif load == "one more":
        x = tl.load(x_row + steps, mask=cols <= n_cols, other=REST)
    elif load == "masked afterwards":
        x = tl.where(mask, tl.load(x_row + steps), REST)
    else:
        x = tl.load(x_row + steps, mask=mask, other=REST)
    if arithmetic == "half":
        x = x.to(tl.float16)
    elif arithmetic != "uncast":
        x = x.to(tl.float32)
    if top == "right":
        x = x - tl.max(x, axis=0)
    elif top == "mean":
        x = x - tl.sum(tl.where(mask, x, 0.0), axis=0) / n_cols
    if arithmetic == "half":
        e = tl.exp(x.to(tl.float32)).to(tl.float16)
    else:
        e = tl.exp2(x) if base == "2" else tl.exp(x)
    if arithmetic == "half sum":
        total = tl.sum(e.to(tl.float16), axis=0).to(tl.float32)
    else:
        total = tl.sum(e, axis=0)
    y = e
    if division == "right":
        y = e / total
    elif division == "by n_cols":
        y = e / n_cols
    if rounds == "to x":
        y = y.to(x_ptr.dtype.element_ty)
    if store == "right":
        tl.store(out_row + steps, y, mask=mask)
    elif store == "no mask":
        tl.store(out_row + cols, y)
    else:
        tl.store(out_row + cols, y, mask=cols <= n_cols)


@triton.jit
def softmax_passes(
    x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr, passes: tl.constexpr = 3, back: tl.constexpr = 0
):
    """Right values, and more traffic than needed: x is read `passes` times, and out `back` times."""
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x_row, out_row = x_ptr + row * x_stride + cols, out_ptr + row * out_stride + cols
    x = tl.load(x_row, mask=mask, other=REST).to(tl.float32)
    top = tl.max(x, axis=0)
    if passes > 1:
        x = tl.load(x_row, mask=mask, other=REST).to(tl.float32)
    total = tl.sum(tl.exp(x - top), axis=0)
    if passes > 2:
        x = tl.load(x_row, mask=mask, other=REST).to(tl.float32)
    if back > 0:
        tl.store(out_row, tl.exp(x - top), mask=mask)
        tl.store(out_row, tl.load(out_row, mask=mask, other=0.0) / total, mask=mask)
    else:
        tl.store(out_row, tl.exp(x - top) / total, mask=mask)


@triton.jit
def layer_norm(
    x_ptr,
    out_ptr,
    weight_ptr,
    bias_ptr,
    x_stride,
    out_stride,
    n_cols,
    eps,
    BLOCK: tl.constexpr,
    x_rows: tl.constexpr = "x_stride",
    out_rows: tl.constexpr = "out_stride",
    walk: tl.constexpr = "row",
    load: tl.constexpr = "right",
    store: tl.constexpr = "right",
    arithmetic: tl.constexpr = "float32",
    count: tl.constexpr = "n_cols",
    variance: tl.constexpr = "two passes",
    center: tl.constexpr = "right",
    root: tl.constexpr = "right",
    affine: tl.constexpr = "right",
    rounds: tl.constexpr = "right",
    passes: tl.constexpr = 1,
):
    row = tl.program_id(1 if x_rows == "second axis" else 0)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x_row = x_ptr + row * (n_cols if x_rows == "n_cols" else out_stride if x_rows == "out_stride" else x_stride)
    out_row = out_ptr + row * (n_cols if out_rows == "n_cols" else x_stride if out_rows == "x_stride" else out_stride)
    if out_rows == "none":
        out_row = out_ptr
    if x_rows == "none":
        x_row = x_ptr
    steps = cols
    if walk == "column":
        x_row = x_ptr + row
        steps = cols * x_stride
    if walk == "apart" and BLOCK >= 32:
        steps = cols % 32 * (BLOCK // 32) + cols // 32
        mask = steps < n_cols
    if load == "no mask":
        x = tl.load(x_row + steps)
    elif load == "no other":
        x = tl.load(x_row + steps, mask=mask)
    elif load == "one more":
        x = tl.load(x_row + steps, mask=cols <= n_cols, other=0.0)
    elif load == "masked afterwards":
        x = tl.where(mask, tl.load(x_row + steps), 0.0)
    elif load == "minus infinity":
        x = tl.load(x_row + steps, mask=mask, other=REST)
    else:
        x = tl.load(x_row + steps, mask=mask, other=0.0)
    if arithmetic == "float32":
        x = x.to(tl.float32)
    elif arithmetic == "half":
        x = x.to(tl.float16)
    n = BLOCK if count == "BLOCK" else n_cols
    mean = tl.sum(x, axis=0) / n
    if passes > 1:
        x = tl.load(x_row + steps, mask=mask, other=0.0).to(tl.float32)
    d = x if center == "spread" else x - mean
    if variance == "one pass":
        var = tl.sum(x * x, axis=0) / n - mean * mean
    elif variance == "all lanes":
        var = tl.sum(d * d, axis=0) / n
    elif variance == "mean square":
        d = x
        var = tl.sum(x * x, axis=0) / n
    else:
        c = tl.where(mask, x - mean, 0.0)
        var = tl.sum(c * c, axis=0) / (n - 1 if count == "n - 1" else n)
    if root == "right":
        x_hat = d * tl.rsqrt((var + eps).to(tl.float32))
    elif root == "eps outside":
        x_hat = d / (tl.sqrt(var) + eps)
    elif root == "no eps":
        x_hat = d * tl.rsqrt(var.to(tl.float32))
    elif root == "fixed eps":
        x_hat = d * tl.rsqrt((var + 1e-5).to(tl.float32))
    elif root == "squared eps":
        x_hat = d * tl.rsqrt((var + eps * eps).to(tl.float32))
    else:
        x_hat = d / (var + eps)
    if passes > 2:
        x = tl.load(x_row + steps, mask=mask, other=0.0).to(tl.float32)
        x_hat = (x - mean) * tl.rsqrt(var + eps)
    at = cols
    if walk == "apart":
        at = steps
    if affine == "by row":
        at = cols + row * n_cols
    elif affine == "one number":
        at = cols * 0 + row
    if affine == "no mask":
        weight, bias = tl.load(weight_ptr + at), tl.load(bias_ptr + at)
    else:
        weight, bias = tl.load(weight_ptr + at, mask=mask), tl.load(bias_ptr + at, mask=mask)
    if arithmetic == "float32":
        weight, bias = weight.to(tl.float32), bias.to(tl.float32)
    if affine == "no weight":
        y = x_hat + bias
    elif affine == "no bias":
        y = x_hat * weight
    elif affine == "bias first":
        y = (x_hat + bias) * weight
    elif affine == "none":
        y = x_hat
    elif affine == "one plus weight":
        y = x_hat * (1 + weight) + bias
    else:
        y = x_hat * weight + bias
    if rounds == "to x":
        y = y.to(x_ptr.dtype.element_ty)
    if store == "right":
        tl.store(out_row + steps, y, mask=mask)
    elif store == "no mask":
        tl.store(out_row + cols, y)
    else:
        tl.store(out_row + cols, y, mask=cols <= n_cols)
