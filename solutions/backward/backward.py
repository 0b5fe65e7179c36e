# %% [markdown]
# # Exercises: why is my gradient zero?
#
# First the instrument, then what it measures: a numerical gradient, and three gradients by hand. In all of them `dy` is the
# gradient of the loss with respect to the output y of a function, an array like y. It need not come from any particular
# loss, and for a test it should be random.
#
# The three backward functions get what the forward pass got, and `dy`. They compute mean and rstd anew, with the biased
# variance and eps under the root; `float16` is computed in `float32`; the answers have the dtype of `x`; and nothing that is
# given is changed. Where a text is silent, PyTorch's gradient decides. It may be compared with, as you like, but not called:
# a check refuses an answer that leaves the work to autograd.

# %% setup=true
import numpy as np

from normlab.check import check
from normlab.predict import compare

# %% [markdown] about="numerical_gradient"
# ## numerical_gradient
#
# Measure, for every element of `x`, how steeply `L = sum(f(x) * dy)` rises when this element alone is moved.
#
# `numerical_gradient(f, x, dy, h)`
#
# | | |
# |---|---|
# | `f` | a function that takes a `float64` array like `x` and returns an array like `dy`; it may return a view of what it got |
# | `x` | array of any shape, of floats or integers |
# | `dy` | `float64` array of the shape of `f(x)`, which need not be that of `x` |
# | `h` | the step, a positive float |
# | returns | a `float64` array of the shape of `x` |
#
# $$\frac{L(x + h\,e_i) - L(x - h\,e_i)}{2h} ,$$
#
# for each element $i$, where $e_i$ is 1 at this element and 0 elsewhere. The quotient itself is asked for, at the `h` of the call, and not its limit.
#
# Take `f(x) = x**2`, `x = [3, 5]`, `dy = [1, 10]` and `h = 1`. The first slope is (16 - 4)/2 = 6, the second
# 10 · (36 - 16)/2 = 100.


# %% solution="numerical_gradient"
def numerical_gradient(f, x, dy, h):
    """Central differences of sum(f(x) * dy), one for each element of x."""
    ### BEGIN SOLUTION
    x = x.astype(np.float64)
    dx = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        dx[i] = ((f(up) - f(down)) * dy).sum() / (2 * h)
    return dx
    ### END SOLUTION


# %% check="numerical_gradient" part="values" points=12
check(numerical_gradient, "numerical_gradient", part="values")

# %% check="numerical_gradient" part="numerics" points=5
check(numerical_gradient, "numerical_gradient", part="numerics")

# %% check="numerical_gradient" part="edges" points=3
check(numerical_gradient, "numerical_gradient", part="edges")

# %% [markdown] hints="numerical_gradient"
# <details><summary>Hint 1</summary>
#
# How often is `f` called for an `x` of six elements?
#
# <details><summary>Hint 2</summary>
#
# Twelve times: two for each element. `for i in np.ndindex(x.shape):` walks through the elements of an array with any number of
# axes, and `x[i]` is then a single element.
#
# <details><summary>Hint 3</summary>
#
# Begin with `x = x.astype(np.float64)`, which is a copy and takes integers along. For each `i`: `up, down = x.copy(), x.copy()`,
# `up[i] += h`, `down[i] -= h`, and `dx[i] = ((f(up) - f(down)) * dy).sum() / (2 * h)`.
#
# </details></details></details>

# %% [markdown] after="numerical_gradient"
# You can now check any gradient of any function, without calculus, and you know what it costs: two calls for each element.
# *Harder:* for large arrays, take one random direction `v` in place of all the $e_i$, and compare with `sum(dx * v)`. Which
# mistakes can that miss?

# %% [markdown] ask="tenfold"
# ## Predict first: a tenfold input
#
# A layer norm gets an input, and a random cotangent `dy` comes back. Then it gets the same input times 10, and the same
# `dy` comes back. By what factor does `dx` change? Write a number, run the cell, then run the one below it. Right or
# wrong, a prediction earns its point: what counts is that you made it before you looked.

# %% prediction="tenfold"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 0.1
### END INSTRUCTOR

# %% measure="tenfold" points=1
import torch

torch.manual_seed(0)
x, dy = torch.randn(2, 4, 16, dtype=torch.float64)


def gradient(x):
    x = x.clone().requires_grad_()
    torch.nn.functional.layer_norm(x, (16,)).backward(dy)
    return x.grad


compare(prediction, (gradient(10 * x).norm() / gradient(x).norm()).item())

# %% [markdown] told="tenfold"
# The output is the same as before, so to move it by as much, an input ten times as large has to be moved ten times as
# far: its slope is a tenth. In the formula this is rstd, which is divided by 10. A norm passes small gradients to large
# inputs and large ones to small inputs. A backward that forgets rstd has everything else right, and still is wrong by
# this factor.

# %% [markdown] about="layer_norm_backward"
# ## layer_norm_backward ★
#
# Carry a gradient back through layer norm over the last axis.
#
# `layer_norm_backward(dy, x, weight, eps=1e-5)`
#
# | | |
# |---|---|
# | `dy` | the gradient that arrives at the output, an array like `x` |
# | `x` | the input of the forward pass, floating-point, of any shape (..., D) |
# | `weight` | array of shape (D,) |
# | `eps` | added to the variance, under the root |
# | returns | the tuple `dx, dweight, dbias`: an array like `x` and two of shape (D,), all in the dtype of `x` |
#
# With $g = dy \cdot$ weight and means along the last axis,
#
# $$dx = \text{rstd}\,\bigl(g - \overline{g} - \hat x\;\overline{g\,\hat x}\bigr).$$
#
# The weight and the bias are shared by all rows: `dweight` is the sum of $dy\,\hat x$ over them, and `dbias` the sum of $dy$.
#
# One row: `x = [-1, 1, -1, 1]`, which is its own $\hat x$ (without eps), with weights of 1 and `dy = [4, 0, 0, 0]`. The mean of
# g is 1; the mean of $g\,\hat x$ is -1. So `dx` is `[4, 0, 0, 0] - 1 + [-1, 1, -1, 1]`, which is `[2, 0, -2, 0]`. Check: it adds
# up to 0, and so does its product with $\hat x$.


# %% solution="layer_norm_backward"
def layer_norm_backward(dy, x, weight, eps=1e-5):
    """dx, dweight and dbias of layer norm over the last axis."""
    ### BEGIN SOLUTION
    wide = np.promote_types(x.dtype, np.float32)
    n = x.shape[-1]
    rows, above = x.reshape(-1, n).astype(wide), dy.reshape(-1, n).astype(wide)
    deviation = rows - rows.mean(1, keepdims=True)
    rstd = 1 / np.sqrt(np.mean(deviation**2, 1, keepdims=True) + eps)
    x_hat = deviation * rstd
    g = above * weight
    along_x_hat = np.einsum("ij,ij->i", g, x_hat)[:, np.newaxis] / n
    dx = rstd * (g - g.mean(1, keepdims=True) - x_hat * along_x_hat)
    dweight, dbias = np.einsum("ij,ij->j", above, x_hat), above.sum(0)
    return dx.reshape(x.shape).astype(x.dtype), dweight.astype(x.dtype), dbias.astype(x.dtype)
    ### END SOLUTION


# %% check="layer_norm_backward" part="values" points=12
check(layer_norm_backward, "layer_norm_backward", part="values")

# %% check="layer_norm_backward" part="numerics" points=5
check(layer_norm_backward, "layer_norm_backward", part="numerics")

# %% check="layer_norm_backward" part="edges" points=3
check(layer_norm_backward, "layer_norm_backward", part="edges")

# %% [markdown] hints="layer_norm_backward"
# <details><summary>Hint 1</summary>
#
# Which three quantities of the forward pass does the formula use, and over which axis is each mean in it taken? And over which
# axes are the two sums?
#
# <details><summary>Hint 2</summary>
#
# Compute `rstd` and `x_hat` as in layer norm, with `keepdims=True`. All means of `dx` run along the last axis, all sums of
# `dweight` and `dbias` along all the others. Two axes are easier than many: `x.reshape(-1, n)`.
#
# <details><summary>Hint 3</summary>
#
# `g = dy * weight`, then
# `dx = rstd * (g - g.mean(-1, keepdims=True) - x_hat * (g * x_hat).mean(-1, keepdims=True))`; and
# `(dy * x_hat).reshape(-1, n).sum(0)`. For `float16`, cast `x` and `dy` to `float32` first.
#
# </details></details></details>

# %% [markdown] after="layer_norm_backward"
# The gradient of a norm is what is left of the incoming one when everything that the norm cannot see has been taken off.
# *Harder:* write it in one pass over each row, from the sums of g and of $g\,\hat x$ alone, as fused kernels do.

# %% [markdown] ask="company"
# ## Predict first: who gets a gradient?
#
# Eight examples go through a batch norm with one channel, in training mode. The loss looks at the output of the first
# example alone. For how many of the eight inputs is the gradient different from 0?

# %% prediction="company"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 8
### END INSTRUCTOR

# %% measure="company" points=1
torch.manual_seed(0)
x = torch.randn(8, 1, dtype=torch.float64, requires_grad=True)
torch.nn.functional.batch_norm(x, None, None, training=True)[0].sum().backward()
compare(prediction, int((x.grad.abs() > 1e-9).sum()))

# %% [markdown] told="company"
# All eight. The other seven helped to make the mean and the variance that the first was normalized with, so moving any
# of them moves its output. In batch norm the examples of a batch are no strangers: the loss of one sends a gradient
# into all. In layer norm it would stay in its own row.

# %% [markdown] about="batch_norm_backward"
# ## batch_norm_backward
#
# Carry a gradient back through batch norm, as in training: the statistics come from the batch.
#
# `batch_norm_backward(dy, x, weight, eps=1e-5)`
#
# | | |
# |---|---|
# | `dy` | the gradient that arrives at the output, an array like `x` |
# | `x` | the input of the forward pass, floating-point, (N, C) or (N, C, positions...) with more than one value per channel |
# | `weight` | array of shape (C,) |
# | `eps` | added to the variance, under the root |
# | returns | the tuple `dx, dweight, dbias`: an array like `x` and two of shape (C,), all in the dtype of `x` |
#
# It is the formula of layer norm, with the means over a channel: all axes but axis 1. The sums of `dweight` and `dbias` run
# over the same elements.
#
# One channel, four examples: `x = [[-1], [1], [-1], [1]]` and `dy = [[4], [0], [0], [0]]`, with the weight `[1]`. As for layer
# norm above, `dx = [[2], [0], [-2], [0]]`. `dweight` is the sum of $dy\,\hat x$, `[-4]`, and `dbias` is `[4]`.


# %% solution="batch_norm_backward"
def batch_norm_backward(dy, x, weight, eps=1e-5):
    """dx, dweight and dbias of training-mode batch norm."""
    ### BEGIN SOLUTION
    wide = np.promote_types(x.dtype, np.float32)
    axes = (0, *range(2, x.ndim))
    n = x.size // x.shape[1]

    def per_channel(values):
        return values.reshape(1, -1, *[1] * (x.ndim - 2))

    deviation = x.astype(wide) - x.mean(axes, dtype=wide, keepdims=True)
    rstd = 1 / np.sqrt(np.mean(deviation**2, axes) + eps)
    x_hat = deviation * per_channel(rstd)
    above = dy.astype(wide)
    dweight, dbias = (above * x_hat).sum(axes), above.sum(axes)
    # The weight is the same all over a pool, so that it may be multiplied last, and the two sums give both means.
    inside = above - per_channel(dbias / n) - x_hat * per_channel(dweight / n)
    dx = per_channel(rstd * weight) * inside
    return dx.astype(x.dtype), dweight.astype(x.dtype), dbias.astype(x.dtype)
    ### END SOLUTION


# %% check="batch_norm_backward" part="values" points=12
check(batch_norm_backward, "batch_norm_backward", part="values")

# %% check="batch_norm_backward" part="numerics" points=5
check(batch_norm_backward, "batch_norm_backward", part="numerics")

# %% check="batch_norm_backward" part="edges" points=3
check(batch_norm_backward, "batch_norm_backward", part="edges")

# %% [markdown] hints="batch_norm_backward"
# <details><summary>Hint 1</summary>
#
# If you had `layer_norm_backward`, which two things in it would change?
#
# <details><summary>Hint 2</summary>
#
# The axes of the means and of the sums: here both are `(0, *range(2, x.ndim))`. And the weight has to line up with axis 1:
# reshape it to (1, C, 1, 1).
#
# <details><summary>Hint 3</summary>
#
# With `shape = (1, -1) + (1,) * (x.ndim - 2)`: `g = dy * weight.reshape(shape)`, and then the same line as for layer norm with
# `axes` for the axis. `(dy * x_hat).sum(axes)` and `dy.sum(axes)` are the other two.
#
# </details></details></details>

# %% [markdown] after="batch_norm_backward"
# In a batch norm the pool and the sharers of a weight are the same set, so `dweight` and `dbias` are the very sums that `dx`
# needs. *Harder:* the batch lies on two devices. Which numbers must they exchange on the way back?

# %% [markdown] about="rms_norm_backward"
# ## rms_norm_backward
#
# Carry a gradient back through RMS norm over the last axis.
#
# `rms_norm_backward(dy, x, weight, eps=1e-6)`
#
# | | |
# |---|---|
# | `dy` | the gradient that arrives at the output, an array like `x` |
# | `x` | the input of the forward pass, floating-point, of any shape (..., D) |
# | `weight` | array of shape (D,) |
# | `eps` | added to the mean square, under the root |
# | returns | the tuple `dx, dweight`: an array like `x` and one of shape (D,), both in the dtype of `x` |
#
# With $g = dy \cdot$ weight, rstd = 1/sqrt(mean(x²) + eps) and $\hat x = x \cdot$ rstd,
#
# $$dx = \text{rstd}\,\bigl(g - \hat x\;\overline{g\,\hat x}\bigr).$$
#
# One row: `x = [1, 1]`, which is its own $\hat x$ (without eps), with weights of 1 and `dy = [4, 0]`. The mean of $g\,\hat x$ is 2:
# `dx` is `[4, 0] - 2 * [1, 1]`, which is `[2, -2]`.


# %% solution="rms_norm_backward"
def rms_norm_backward(dy, x, weight, eps=1e-6):
    """dx and dweight of RMS norm over the last axis."""
    ### BEGIN SOLUTION
    n = x.shape[-1]
    wide = np.promote_types(x.dtype, np.float32)
    rows, above = x.reshape(-1, n).astype(wide), dy.reshape(-1, n).astype(wide)
    rstd = 1 / np.sqrt(np.einsum("ij,ij->i", rows, rows) / n + eps)[:, np.newaxis]
    x_hat = rows * rstd
    g = above * weight
    dx = rstd * (g - x_hat * np.einsum("ij,ij->i", g, x_hat)[:, np.newaxis] / n)
    dweight = np.einsum("ij,ij->j", above, x_hat)
    return dx.reshape(x.shape).astype(x.dtype), dweight.astype(x.dtype)
    ### END SOLUTION


# %% check="rms_norm_backward" part="values" points=12
check(rms_norm_backward, "rms_norm_backward", part="values")

# %% check="rms_norm_backward" part="numerics" points=5
check(rms_norm_backward, "rms_norm_backward", part="numerics")

# %% check="rms_norm_backward" part="edges" points=3
check(rms_norm_backward, "rms_norm_backward", part="edges")

# %% [markdown] hints="rms_norm_backward"
# <details><summary>Hint 1</summary>
#
# RMS norm does not subtract a mean. Which term of layer norm's `dx` came from there?
#
# <details><summary>Hint 2</summary>
#
# `g - mean(g)` becomes `g`. The projection off $\hat x$ stays, with the $\hat x$ of RMS norm. There is no bias, so the tuple has two parts.
#
# <details><summary>Hint 3</summary>
#
# `dx = rstd * (g - x_hat * (g * x_hat).mean(-1, keepdims=True))`, and `(dy * x_hat).reshape(-1, n).sum(0)`.
#
# </details></details></details>

# %% [markdown] after="rms_norm_backward"
# One direction less is lost on the way back: RMS norm sees a shift of its input, and only its length is hidden from it.
# *Harder:* the sum of the outputs is a blind test for layer norm. Find the one that is blind for RMS norm.

# %% [markdown] explain="backward"
# ## In your own words
#
# A colleague shows you her own backward of layer norm, written for a new machine, with three tests that are green. The
# gradient of `y.sum()` is zero to seven digits, as theory says it must be. That of `(y**2).sum()` is near zero too, as
# it must be. And a small network trains with it: the loss falls for 300 steps. "Theory and practice agree," she says.
# Answer in one paragraph. What have the three tests shown? Name one mistake that could hide behind all of them, and say
# why. Then write down, in words, the test that you would run, and how it finds the mistake that you named.

# %% [markdown] explanation="backward" points=4
# The first two tests send back cotangents that layer norm swallows: ones are the direction of the constants, and 2y is,
# but for eps, the direction of x_hat. A right backward returns nearly nothing for them, and so does one that returns
# always zeros, or one that projects correctly and is then off by a factor. Say rstd was forgotten. Both tests are
# green, as any factor times zero is zero, and a network trains with it all the same, because every layer's gradient
# still points about the right way, only with another length. So a falling loss proves little. I would take a random
# `dy`, a random weight, a few rows with spreads of 3, of 1 and of 0.001 (there eps counts), all in float64, and compare
# dx, dweight and dbias with PyTorch's, or with central differences at a step of about 1e-5. In the row with spread 3
# the forgotten rstd makes dx three times too large, and the comparison fails.
#
# **Rubric**
#
# - 1 point: ones and 2y are the two directions that the norm swallows, so these tests see next to nothing
# - 1 point: a falling loss is no proof of a right gradient
# - 1 point: names a mistake that passes all three (rstd missing or squared, weight dropped from dx, ...), with the reason
# - 1 point: a test with random cotangent, random weight and a trusted reference, and how it shows that mistake
