# %% [markdown]
# # Exercises: kernels
#
# Where the time goes: count bytes, then move as few of them as you can. Four exercises: one with paper and pencil, one in
# Numba, two in Triton. The Triton ones run on any Linux machine, with or without a GPU: an interpreter runs your kernel on
# the CPU, and watches what it does to memory. (Triton is made for Linux alone. Elsewhere the last two exercises say so, and
# nothing else needs it.)

# %% setup=true
from types import SimpleNamespace

import numba
import numpy as np
import torch

from normlab.check import check
from normlab.predict import compare

try:
    import triton
    import triton.language as tl
except ImportError:  # not Linux: the last two exercises say so, the others work
    triton, tl = SimpleNamespace(jit=lambda kernel: kernel), SimpleNamespace(constexpr=int)

# %% [markdown] ask="steps"
# ## Predict first: five steps
#
# Softmax of a float32 matrix of 1,000 by 1,000 in NumPy, in five steps: the maximum of each row, the difference, `exp`,
# the sum of each row, the quotient. Each step reads its inputs from memory and writes its result there. The matrix has 4
# megabytes (million bytes). How many megabytes travel in all? Write a number, run the cell, then run the one below it.

# %% prediction="steps"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 32
### END INSTRUCTOR

# %% measure="steps" points=1
x, row = 1000 * 1000, 1000
maximum, difference, exponential, total, quotient = x + row, x + row + x, x + x, x + row, x + row + x
compare(prediction, (maximum + difference + exponential + total + quotient) * 4 / 1e6)

# %% [markdown] told="steps"
# The matrix is read five times and written three times; the numbers that there is one of for each row hardly count. A
# function that does it all in one go has to read it once and write the result once. That is 8 megabytes, a quarter.

# %% [markdown] about="bytes_moved"
# ## bytes_moved
#
# Count the bytes that travel between memory and processor.
#
# `bytes_moved(op, shape, itemsize, fused)`
#
# | | |
# |---|---|
# | `op` | `"softmax"`, `"layer_norm"` or `"rms_norm"`; anything else raises `ValueError` |
# | `shape` | the shape of `x`, a tuple of one axis or more; the last axis is the row, and the others number the rows |
# | `itemsize` | bytes of one number, the same for all of them |
# | `fused` | True: one step does it all. False: the steps below, one after the other |
# | returns | an int, the bytes read and written |
#
# The rule: **a step reads each of its inputs once and writes its result once.** What is broadcast is read once as it is, not
# once for each place that it goes to. `x * x` has one input. A single number, such as `eps`, is not counted.
#
# The unfused steps, with `top`, `total`, `mean`, `var` and `rstd` one number for each row, and `weight` and `bias` one number
# for each place in a row:
#
# | softmax | layer_norm | rms_norm |
# |---|---|---|
# | `top = max(x)` | `mean = mean(x)` | `s = x * x` |
# | `d = x - top` | `d = x - mean` | `ms = mean(s)` |
# | `e = exp(d)` | `s = d * d` | `rstd = 1 / sqrt(ms + eps)` |
# | `total = sum(e)` | `var = mean(s)` | `x_hat = x * rstd` |
# | `y = e / total` | `rstd = 1 / sqrt(var + eps)` | `y = x_hat * weight` |
# | | `x_hat = d * rstd` | |
# | | `z = x_hat * weight` | |
# | | `y = z + bias` | |
#
# The fused step reads `x` (and `weight`, and `bias` where there is one) once, writes `y` once, and keeps the rest to itself.
#
# `bytes_moved("softmax", (2, 3), 4, True)` is 48: six numbers in, six out, four bytes each. Unfused it is 224. The five
# steps move 8, 14, 12, 8 and 14 numbers, which is 56.


# %% solution="bytes_moved"
def bytes_moved(op, shape, itemsize, fused):
    """Bytes read and written by op on an array of that shape."""
    ### BEGIN SOLUTION
    if op not in ("softmax", "layer_norm", "rms_norm"):
        raise ValueError(f"no bytes are known of {op!r}")
    x, column = 1, shape[-1]
    for size in shape:
        x *= size
    row = x // column  # as many numbers as there are rows
    if op == "softmax":
        numbers = 2 * x if fused else 8 * x + 4 * row
    elif op == "layer_norm":
        numbers = 2 * x + 2 * column if fused else 12 * x + 6 * row + 2 * column
    else:
        numbers = 2 * x + column if fused else 7 * x + 4 * row + column
    return numbers * itemsize
    ### END SOLUTION


# %% check="bytes_moved" part="values" points=12
check(bytes_moved, "bytes_moved", part="values")

# %% check="bytes_moved" part="numerics" points=5
check(bytes_moved, "bytes_moved", part="numerics")

# %% check="bytes_moved" part="edges" points=3
check(bytes_moved, "bytes_moved", part="edges")

# %% [markdown] hints="bytes_moved"
# <details><summary>Hint 1</summary>
#
# There are three sizes of things: as large as `x`, a number for each row, and as long as a row. How many numbers is each,
# for the shape `(2, 5, 7)`?
#
# <details><summary>Hint 2</summary>
#
# Write beside each step what it reads and what it writes, in these three sizes. The first step of softmax reads an `x` and
# writes a number for each row.
#
# <details><summary>Hint 3</summary>
#
# Softmax unfused: five reads and three writes of the size of `x`; a number for each row is written twice and read twice.
# The others are counted in the same way. With `math.prod(shape[:-1])` rows the three sizes are all there.
#
# </details></details></details>

# %% [markdown] after="bytes_moved"
# None of these functions does enough arithmetic to keep a processor busy: bytes are their price. *Harder:* PyTorch's layer
# norm keeps mean and rstd of each row for the backward. What does the backward read and write, fused?

# %% [markdown] about="softmax_rows"
# ## softmax_rows
#
# Write the softmax of every row of a matrix into an array that you are given, in compiled loops.
#
# `softmax_rows(x, out)`
#
# | | |
# |---|---|
# | `x` | 2-D array of logits, float32 or float64; maybe a view with strides; it is not changed |
# | `out` | array of the same shape and dtype, to be filled; maybe a view as well |
# | returns | what you like: nobody looks at it |
#
# `x = [[0, log 3]]` fills `out` with `[[0.25, 0.75]]`.
#
# `@numba.njit` compiles the function when it is first called with arrays of a new kind. Inside are plain loops: `for i in
# range(x.shape[0])`, with `np.exp` or `math.exp` of single numbers. Other functions that you call have to be compiled as well.
#
# Three loops over a row will do: for its maximum, for the exponentials and their sum, for the division. **Make no second
# matrix**: `out` has room for the exponentials. The last part of the check measures it, with a matrix of some 100,000
# numbers: besides `x` and `out` you may hold a few rows, and no more than a quarter of `x`.
#
# A logit of `-inf` gets weight 0; some logit of its row is finite. A NaN makes its own row NaN and no other. There may be no
# rows at all, but never rows of length 0.
#
# An index that is out of range raises nothing in compiled code. It reads or writes what happens to lie there.


# %% solution="softmax_rows"
@numba.njit
def softmax_rows(x, out):
    """Fills out with the softmax of each row of x."""
    ### BEGIN SOLUTION
    rows, columns = x.shape
    for i in range(rows):
        top = x[i, 0]
        for j in range(1, columns):
            top = max(top, x[i, j])
        total = 0.0
        for j in range(columns):
            e = np.exp(x[i, j] - top)
            out[i, j] = e
            total += e
        for j in range(columns):
            out[i, j] /= total
    ### END SOLUTION


# %% check="softmax_rows" part="values" points=12
check(softmax_rows, "softmax_rows", part="values")

# %% check="softmax_rows" part="numerics" points=5
check(softmax_rows, "softmax_rows", part="numerics")

# %% check="softmax_rows" part="edges" points=3
check(softmax_rows, "softmax_rows", part="edges")

# %% [markdown] hints="softmax_rows"
# <details><summary>Hint 1</summary>
#
# Take one row first. What must be known before its first exponential, and what before its first division?
#
# <details><summary>Hint 2</summary>
#
# An outer loop over rows, and three inner ones over columns. Maximum and sum begin anew in each row. The second inner loop
# writes exponentials to `out`, the third divides what stands there.
#
# <details><summary>Hint 3</summary>
#
# In row `i`: `top = x[i, 0]`, then `top = max(top, x[i, j])` for the others. `total = 0.0`, then for every `j`: `out[i, j] =
# np.exp(x[i, j] - top)` and `total += out[i, j]`. Last, divide every `out[i, j]` by `total`.
#
# </details></details></details>

# %% [markdown] after="softmax_rows"
# You wrote what looks like the slowest Python there is, and it moves a quarter of the bytes of NumPy's five steps: a row is
# still in the cache when the next loop comes to it. What is left to wait for is `exp`. *Harder:* add `parallel=True` and `numba.prange`. From which size on does it help?

# %% [markdown] ask="idle"
# ## Predict first: idle lanes
#
# A Triton program works on a block of numbers at once, and the length of a block is a power of two. Each of its places is
# called a lane. Rows of 1,024 fit exactly. Now rows of 1,025 come. Which share of the lanes has nothing to do? Write a
# number between 0 and 1.

# %% prediction="idle"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 0.5
### END INSTRUCTOR

# %% measure="idle" points=1
block = 1
while block < 1025:
    block *= 2
compare(prediction, (block - 1025) / block)

# %% [markdown] told="idle"
# Nearly half of them: the block has 2,048 lanes. They cost registers and time, but no bytes, because a mask keeps them
# away from memory. What such a lane holds instead is up to you, and much of what goes wrong in the next two exercises goes
# wrong there.

# %% [markdown] about="softmax_kernel"
# ## softmax_kernel
#
# Write the softmax of one row in Triton: a kernel of which one program runs for each row.
#
# `softmax_kernel(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK)`
#
# | | |
# |---|---|
# | `x_ptr`, `out_ptr` | pointers to the first number of `x` and of `out`: float32, float16 or bfloat16 |
# | `x_stride`, `out_stride` | how many numbers lie from the start of one row to the start of the next; may be more than `n_cols` |
# | `n_cols` | numbers in a row |
# | `BLOCK` | a power of two, `n_cols` or more; known when the kernel is compiled: `tl.constexpr` |
#
# The section *A program, a block, a lane* of the chapter has a whole kernel to begin with. A program asks for its row with
# `tl.program_id(0)`. What you need besides: `tl.arange(0, BLOCK)` counts lanes; `tl.load(pointers,
# mask=..., other=...)` reads where the mask is true and gives `other` elsewhere; `tl.store(pointers, values, mask=...)`; `tl.max`,
# `tl.sum` with `axis=0`; `tl.exp`; `.to(tl.float32)`. Without `other=`, a lane that the mask hides holds *anything*. The
# check puts NaN there.
#
# With `n_cols` 2, `BLOCK` 4 and the row `[0, log 3]`, the four lanes hold `[0, log 3, -inf, -inf]`, then `[1, 3, 0, 0]` over
# 3, with the sum 4/3, and the first two are stored: `[0.25, 0.75]`.
#
# Compute in float32 and round once, at the end. `out` has the dtype of `x`, or is float32 where `x` is not; `tl.store`
# converts to what `out` holds.
#
# **What is graded besides values.** Programs run in any order, so no two may touch the same place of `out`. Nothing outside of
# the row is read or written, what lies between two rows included. And traffic: each number of `x` is read once, and each
# number of `out` is written once (the last part of the check counts).


# %% solution="softmax_kernel"
@triton.jit
def softmax_kernel(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    """Stores the softmax of row tl.program_id(0) of x in that row of out."""
    ### BEGIN SOLUTION
    row = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    mask = lanes < n_cols
    x = tl.load(x_ptr + row * x_stride + lanes, mask=mask, other=-float("inf")).to(tl.float32)
    e = tl.exp(x - tl.max(x, axis=0))
    tl.store(out_ptr + row * out_stride + lanes, e / tl.sum(e, axis=0), mask=mask)
    ### END SOLUTION


# %% [markdown]
# To look at your kernel before you have it checked: without the two `#` at its end, the cell below runs it on three rows and
# says what it did to memory. (A kernel cannot print, but there is `tl.device_print("x", x)`.)


# %%
def look(kernel, x, *more, block):
    """Runs the kernel on every row of x in the watched interpreter; prints faults and traffic; returns out."""
    from normlab.watch import watched

    out = torch.zeros_like(x)
    with watched() as seen:
        kernel[(len(x),)](x, out, *more, BLOCK=block)
    for fault in seen.faults:
        print(fault.sentence)
    for name in ("x_ptr", "out_ptr"):
        print(f"{name}: {seen.loaded(name)} bytes read, {seen.stored(name)} written")
    return out


# x = torch.tensor([[0.0, 1.0, 2.0], [3.0, 3.0, 3.0], [-1.0, 0.0, 5.0]])
# look(softmax_kernel, x, x.stride(0), x.stride(0), 3, block=4)

# %% check="softmax_kernel" part="values" points=12
check(softmax_kernel, "softmax_kernel", part="values")

# %% check="softmax_kernel" part="numerics" points=5
check(softmax_kernel, "softmax_kernel", part="numerics")

# %% check="softmax_kernel" part="edges" points=3
check(softmax_kernel, "softmax_kernel", part="edges")

# %% [markdown] hints="softmax_kernel"
# <details><summary>Hint 1</summary>
#
# A pointer plus a block of integers is a block of pointers. Where does row 3 begin? Which lanes have a number, and what must
# the others hold so that they change neither a maximum nor a sum of exponentials?
#
# <details><summary>Hint 2</summary>
#
# `row = tl.program_id(0)`, `cols = tl.arange(0, BLOCK)`, `mask = cols < n_cols`. The row's pointers are
# `x_ptr + row * x_stride + cols`. Load them once, with the mask and `other=-float("inf")`, cast to float32, and everything
# after that happens in variables.
#
# <details><summary>Hint 3</summary>
#
# `e = tl.exp(x - tl.max(x, axis=0))`; the hidden lanes are now 0. Divide by `tl.sum(e, axis=0)`, and store it at
# `out_ptr + row * out_stride + cols`, with the same mask.
#
# </details></details></details>

# %% [markdown] after="softmax_kernel"
# A row was read once, and everything in between lived in registers. That is all that fusing means. *Harder:* rows that do not
# fit into a block: go through the row in pieces, with the online softmax. How often does that have to read `x`?

# %% [markdown] about="layer_norm_kernel"
# ## layer_norm_kernel
#
# Write the layer norm of one row in Triton, with weight and bias.
#
# `layer_norm_kernel(x_ptr, out_ptr, weight_ptr, bias_ptr, x_stride, out_stride, n_cols, eps, BLOCK)`
#
# | | |
# |---|---|
# | `weight_ptr`, `bias_ptr` | pointers to `n_cols` numbers each, of the dtype of `x`, the same for every row |
# | `eps` | a float, added to the variance |
# | the others | as in `softmax_kernel` |
#
# $$\text{out} = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \cdot \text{weight} + \text{bias}$$
#
# with the mean $\mu$ and the biased variance $\sigma^2$ of the row's `n_cols` numbers. There are `tl.sqrt` and `tl.rsqrt`, which
# is $1/\sqrt{\cdot}$.
#
# With `n_cols` 2, `BLOCK` 4, eps 0, weight 1 and bias 0, the row `[4, 6]` has mean 5 and variance 1, and becomes `[-1, 1]`.
# Divided by `BLOCK` the mean would be 2.5; and with the two idle lanes left in, the variance would be 26 instead of 1.
#
# The same is graded as before: float32 inside, nothing outside of the row, no race, `x` read once and `out` written once.
# Weight and bias may be read once by each program.


# %% solution="layer_norm_kernel"
@triton.jit
def layer_norm_kernel(x_ptr, out_ptr, weight_ptr, bias_ptr, x_stride, out_stride, n_cols, eps, BLOCK: tl.constexpr):
    """Stores the layer norm of row tl.program_id(0) of x, with weight and bias, in that row of out."""
    ### BEGIN SOLUTION
    row = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    mask = lanes < n_cols
    x = tl.load(x_ptr + row * x_stride + lanes, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=0) / n_cols
    centered = tl.where(mask, x - mean, 0.0)
    variance = tl.sum(centered * centered, axis=0) / n_cols
    weight = tl.load(weight_ptr + lanes, mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + lanes, mask=mask, other=0.0).to(tl.float32)
    y = centered * tl.rsqrt(variance + eps) * weight + bias
    tl.store(out_ptr + row * out_stride + lanes, y, mask=mask)
    ### END SOLUTION


# %% check="layer_norm_kernel" part="values" points=12
check(layer_norm_kernel, "layer_norm_kernel", part="values")

# %% check="layer_norm_kernel" part="numerics" points=5
check(layer_norm_kernel, "layer_norm_kernel", part="numerics")

# %% check="layer_norm_kernel" part="edges" points=3
check(layer_norm_kernel, "layer_norm_kernel", part="edges")

# %% [markdown] hints="layer_norm_kernel"
# <details><summary>Hint 1</summary>
#
# What must an idle lane hold so that it does not change a sum? And after the mean has been subtracted, does it still hold
# that?
#
# <details><summary>Hint 2</summary>
#
# Load with `other=0.0`, cast to float32, divide the sum by `n_cols`. After `x - mean` the idle lanes hold `-mean`: put them
# back to 0 with `tl.where(mask, x - mean, 0.0)`, square, sum, divide by `n_cols`.
#
# <details><summary>Hint 3</summary>
#
# Weight and bias: `tl.load(weight_ptr + cols, mask=mask, other=0.0)`, without the row, since they are the same for all. With `d`
# the masked difference and `var` its mean square, the answer is `d * tl.rsqrt(var + eps)`, times weight, plus bias. Store it
# at `out_ptr + row * out_stride + cols`, masked.
#
# </details></details></details>

# %% [markdown] after="layer_norm_kernel"
# Two passes over the numbers cost nothing, as long as they go over registers and not over memory. So there is no reason to
# take the one-pass formula for the variance here. *Harder:* write the RMS norm by leaving things out, and count how many
# numbers fewer it moves.

# %% [markdown] explain="kernels"
# ## In your own words
#
# Three colleagues want a faster softmax on a large matrix, which they compute in five steps, one array after the other. Ana
# replaces `exp` by a polynomial with half as many operations, and nothing changes. Ben lets PyTorch write all intermediate
# results into one array that he made before, and it takes half the time. Cem puts all five steps into one kernel that
# computes each `exp` twice, and is faster still. Then they try the same ideas on the product of two large matrices: Ana's
# fewer operations help there, and Cem's computing things twice costs time. Explain in
# one paragraph what the softmax was waiting for in each of the three attempts, and why the product is different.

# %% [markdown] explanation="kernels" points=4
# A softmax does a few operations on each number, and that is far below what the machine can do in the time that it takes to
# bring the number from memory. So it waits for memory, and Ana saves time that nobody was waiting for. Ben's steps read and
# write as much as before, but a fresh array costs more than that: its pages have to be provided and cleared by the operating
# system when they are first touched, and a warm one has them. Cem moves the matrix once in and once out, instead of five
# times in and three times out, and pays with arithmetic, which was idle anyway. A product of two n by n matrices does about
# 2n operations for each of its numbers that is fetched, so it lies right of the ridge of the roofline: it waits for
# arithmetic. There fewer operations help, and computing things twice costs.
#
# **Rubric**
#
# - 1 point: softmax waits for memory, not for arithmetic, so fewer operations do not help
# - 1 point: fresh memory has a cost of its own (page faults), which a prepared array does not pay
# - 1 point: fusing saves reads and writes of intermediate results, and may pay with operations
# - 1 point: a matrix product has many operations for each byte, so it is limited by arithmetic
