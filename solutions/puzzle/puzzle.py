# %% [markdown]
# # Exercises: the puzzle
#
# Somebody prints eight numbers that batch norm made, adds them up, and gets 0. Here you write the operation that made
# them, and then the numbers themselves, to the last printed digit.
#
# Write in the cell that says *your code here*, run it, then run the check cells under it. A check says one of two
# things: that you are right, or in one sentence what is wrong.

# %% setup=true
import numpy as np

from normlab.check import check
from normlab.predict import compare

# %% [markdown] ask="scale"
# ## Predict first
#
# Batch norm gets eight random numbers, as in the question, and then the same eight a thousand times as large. By what
# factor does the standard deviation of its output grow? Write a number, run the cell, then run the one below it. Right
# or wrong, a prediction earns its point: what counts is that you made it before you looked.

# %% prediction="scale"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 1
### END INSTRUCTOR

# %% measure="scale" points=1
from torch import manual_seed, nn, randn

manual_seed(0)
batch = randn(2, 1, 2, 2)
norm = nn.BatchNorm2d(1)
compare(prediction, (norm(1000 * batch).std() / norm(batch).std()).item())

# %% [markdown] told="scale"
# Whatever scale the input has, the output has the same: its deviations are divided by their own standard deviation. So
# batch norm forgets the scale of its input, as it forgets the mean. The eps under the root leaves a trace of it, in the
# sixth decimal here.

# %% [markdown] about="standardize"
# ## standardize ★
#
# Give an array mean 0 and variance 1, all its elements together.
#
# `standardize(x, eps=1e-5)`
#
# | | |
# |---|---|
# | `x` | floating-point array of any shape, `()` among them |
# | `eps` | a small positive number, added to the variance under the root |
# | returns | an array of the same shape and dtype; `x` itself stays as it was |
#
# $$\begin{gathered}
# \hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}}, \\
# \mu = \frac1n \sum_i x_i, \\
# \sigma^2 = \frac1n \sum_i (x_i - \mu)^2
# \end{gathered}$$
#
# Take `[1, 3]` and no eps. The mean is 2, the deviations are -1 and 1, their squares are 1 and 1, so the variance is 1
# and the answer is `[-1, 1]`. It adds up to 0, as it must: the mean was taken out.
#
# Some things the check looks at. The variance divides by $n$, not $n - 1$. A constant array has nothing to scale and
# comes out as zeros. Values near ten million keep their digits, if you subtract the mean before you square. A `float16`
# array is computed in `float32` and turned back at the end, because the square of 300 does not fit into `float16`. And
# a NaN that slips in shows: everything becomes NaN. Two names that help: in NumPy `x.var()` and `x.std()` divide by
# $n$, in PyTorch they divide by $n - 1$.


# %% solution="standardize"
def standardize(x, eps=1e-5):
    """x with mean 0 and variance 1 (but for eps)."""
    ### BEGIN SOLUTION
    wide = x.astype(np.float32) if x.dtype == np.float16 else x
    deviation = wide - wide.mean()
    y = deviation / np.sqrt(np.mean(deviation**2) + eps)
    return y.astype(x.dtype)
    ### END SOLUTION


# %% check="standardize" part="values" points=12
check(standardize, "standardize", part="values")

# %% check="standardize" part="numerics" points=5
check(standardize, "standardize", part="numerics")

# %% check="standardize" part="edges" points=3
check(standardize, "standardize", part="edges")

# %% [markdown] hints="standardize"
# <details><summary>Hint 1</summary>
#
# Which two numbers do you need to know about the whole array before you can write the first element of the answer?
#
# <details><summary>Hint 2</summary>
#
# Compute the deviations from the mean once, as an array of their own. The variance is the mean of their squares, and the
# answer is the deviations again, divided by something.
#
# <details><summary>Hint 3</summary>
#
# `deviation / np.sqrt(np.mean(deviation**2) + eps)` is the heart of it. What is left is the dtype: `x.astype(np.float32)`
# before, `.astype(x.dtype)` after.
#
# </details></details></details>

# %% [markdown] after="standardize"
# You have written the heart of batch norm, layer norm, instance norm and group norm: they differ only in which elements
# count as "all". Whatever you put in, the output adds up to 0, so its sum can tell you nothing about the input.
#
# *Harder:* write it in one pass over the data, without computing the mean first, and let it pass the numerics. (The
# chapter on the variance does that, so you may leave it until then.)

# %% [markdown] about="old_output"
# ## old_output
#
# Reproduce what PyTorch before version 1.2 printed for the question's snippet, for any seed.
#
# `old_output(seed)`
#
# | | |
# |---|---|
# | `seed` | an integer for `torch.manual_seed` |
# | returns | a `float32` tensor of shape (2, 1, 2, 2) |
#
# The snippet was this:
#
# ```python
# torch.manual_seed(seed)
# m = nn.BatchNorm2d(1)
# output = m(torch.randn(2, 1, 2, 2))
# ```
#
# Today `nn.BatchNorm2d(1)` starts with a weight of 1. Before version 1.2 it drew its one weight from the uniform
# distribution on (0, 1), out of the same stream of random numbers, when the layer was made. For seed 0 that weight is
# 0.4963, and the first of the eight numbers is -0.1461.
#
# This exercise is in PyTorch, and all of PyTorch is allowed: the point is the story, not the formula.


# %% solution="old_output"
def old_output(seed):
    """What PyTorch < 1.2 printed: a float32 tensor (2, 1, 2, 2)."""
    ### BEGIN SOLUTION
    import torch

    torch.manual_seed(seed)
    weight = torch.rand(1)  # the layer was made first, so its weight came first out of the stream
    x = torch.randn(2, 1, 2, 2)
    return torch.nn.functional.batch_norm(x, None, None, training=True) * weight
    ### END SOLUTION


# %% check="old_output" part="values" points=12
check(old_output, "old_output", part="values")

# %% check="old_output" part="numerics" points=5
check(old_output, "old_output", part="numerics")

# %% check="old_output" part="edges" points=3
check(old_output, "old_output", part="edges")

# %% [markdown] hints="old_output"
# <details><summary>Hint 1</summary>
#
# In which order does the snippet use up random numbers? Which line of it drew the first one, in those days?
#
# <details><summary>Hint 2</summary>
#
# Seed once. Draw the weight with `torch.rand(1)`, then the input with `torch.randn(2, 1, 2, 2)`: one stream, in this
# order.
#
# <details><summary>Hint 3</summary>
#
# Normalize with `torch.nn.functional.batch_norm(x, None, None, training=True)` and multiply by the weight.
#
# </details></details></details>

# %% [markdown] after="old_output"
# Two programs with the same seed can see different numbers, when one of them draws a weight that the other does not
# draw. A seed fixes the stream; what you take out of it, and in which order, is up to the code.
#
# *Harder:* the question also tried `affine=False`. Show that in the old version this changed the *input* too.

# %% [markdown] explain="puzzle"
# ## In your own words
#
# A friend writes: "PyTorch's batch norm has a bug. It says normalization, I add the outputs up, and I get 0, not 1."
# Answer in one paragraph, with the eight numbers at hand. Why 0, and would another weight or bias change that? And what
# is it, in this picture, that does add up to 1?

# %% [markdown] explanation="puzzle" points=4
# Nothing is broken. Batch norm subtracts the mean of the eight numbers, and deviations from a mean always add up to 0:
# here the negative ones and the positive ones cancel to the last printed digit. Then it divides all of them by one
# number and multiplies them by one weight, and 0 times anything is 0; only the bias, which is 0 at first, moves the sum,
# to eight times its value. The outputs are values, not weights, so nobody asked them to add up to 1. What adds up to 1
# are the weights of those values: each of the eight counts for 1/8, before batch norm and after.
#
# **Rubric**
#
# - 1 point: the sum is 0 because the mean was subtracted
# - 1 point: scaling (the standard deviation, the weight) keeps the sum 0, and the bias alone moves it
# - 1 point: outputs are values; what has total mass 1 are the shares of the values, 1/8 each
# - 1 point: says it with the numbers of the example, not in general words alone
