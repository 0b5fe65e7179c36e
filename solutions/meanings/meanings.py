# %% [markdown]
# # Exercises: what "normalize" means
#
# Four functions, one word. Each takes the slices of an array along one axis and fixes one property of them. All four take
# `axis`, and all four are a few lines long; what differs is what they promise.
#
# In all of them the answer has the shape and dtype of `x`, and `x` stays as it was. `float16` is computed in `float32` and
# turned back at the end: sums and squares of a few hundred overflow it. A NaN makes its slice NaN, but for `min_max`, where
# nothing is asked.

# %% setup=true
import numpy as np

from normlab.check import check

# %% [markdown] about="normalize_l1"
# ## normalize_l1
#
# Scale every slice along an axis so that its absolute values add up to 1.
#
# `normalize_l1(x, axis=-1, eps=1e-12)`
#
# | | |
# |---|---|
# | `x` | floating-point array |
# | `axis` | the axis along which a slice runs |
# | `eps` | the smallest number to divide by |
# | returns | an array of the same shape and dtype |
#
# $$y = \frac{x}{\max(\lVert x \rVert_1,\ \varepsilon)}, \qquad \lVert x \rVert_1 = \sum_i |x_i|$$
#
# `[1, -3]` has absolute values 1 and 3, which add up to 4: the answer is `[0.25, -0.75]`. Its absolute values add up
# to 1; its values do not, because one is negative.
#
# This is `torch.nn.functional.normalize(x, p=1)`. A slice of zeros stays zero. In `float16` the eps of 1e-12 would be 0, so
# norm and eps are `float32` for `float16` input, and have the dtype of `x` otherwise.


# %% solution="normalize_l1"
def normalize_l1(x, axis=-1, eps=1e-12):
    """x / max(sum of |x| along axis, eps), an array like x."""
    ### BEGIN SOLUTION
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    norm = np.sum(np.abs(wide), axis=axis, keepdims=True)
    return (wide / np.maximum(norm, eps)).astype(x.dtype)
    ### END SOLUTION


# %% check="normalize_l1" part="values" points=12
check(normalize_l1, "normalize_l1", part="values")

# %% check="normalize_l1" part="numerics" points=5
check(normalize_l1, "normalize_l1", part="numerics")

# %% check="normalize_l1" part="edges" points=3
check(normalize_l1, "normalize_l1", part="edges")

# %% [markdown] hints="normalize_l1"
# <details><summary>Hint 1</summary>
#
# What shape does the sum along an axis have? What shape must it have, so that you can divide `x` by it?
#
# <details><summary>Hint 2</summary>
#
# `keepdims=True` leaves the summed axis in place with length 1. And the bound is a maximum, not a sum: where the norm is
# large enough, eps plays no part at all.
#
# <details><summary>Hint 3</summary>
#
# `wide / np.maximum(np.sum(np.abs(wide), axis=axis, keepdims=True), eps)`, where `wide` is `x` in at least `float32`:
# `x.astype(np.promote_types(x.dtype, np.float32))`.
#
# </details></details></details>

# %% [markdown] after="normalize_l1"
# If nothing is negative, the L1 norm is the sum, and this makes shares that add up to 1. *Harder:* apply it to
# `np.exp(x)`. Which function of this course have you written?

# %% [markdown] about="normalize_l2"
# ## normalize_l2
#
# Scale every slice along an axis to length 1.
#
# `normalize_l2(x, axis=-1, eps=1e-12)`
#
# | | |
# |---|---|
# | `x` | floating-point array |
# | `axis` | the axis along which a slice runs |
# | `eps` | the smallest number to divide by |
# | returns | an array of the same shape and dtype |
#
# $$y = \frac{x}{\max(\lVert x \rVert_2,\ \varepsilon)}, \qquad \lVert x \rVert_2 = \sqrt{\sum_i x_i^2}$$
#
# `[3, -4]` has length 5, so the answer is `[0.6, -0.8]`: the same direction, length 1.
#
# This is `torch.nn.functional.normalize(x)`. Mind `float16` again: 300 squared does not fit.


# %% solution="normalize_l2"
def normalize_l2(x, axis=-1, eps=1e-12):
    """x / max(its length along axis, eps), an array like x."""
    ### BEGIN SOLUTION
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    norm = np.sqrt(np.sum(np.square(wide), axis=axis, keepdims=True))
    return (wide / np.maximum(norm, eps)).astype(x.dtype)
    ### END SOLUTION


# %% check="normalize_l2" part="values" points=12
check(normalize_l2, "normalize_l2", part="values")

# %% check="normalize_l2" part="numerics" points=5
check(normalize_l2, "normalize_l2", part="numerics")

# %% check="normalize_l2" part="edges" points=3
check(normalize_l2, "normalize_l2", part="edges")

# %% [markdown] hints="normalize_l2"
# <details><summary>Hint 1</summary>
#
# You have written this function already, but for one line. Which one?
#
# <details><summary>Hint 2</summary>
#
# The length is the root of the sum of squares. Where does eps stand: under that root, next to it, or somewhere else?
#
# <details><summary>Hint 3</summary>
#
# `norm = np.sqrt(np.sum(np.square(wide), axis=axis, keepdims=True))`, and then divide by `np.maximum(norm, eps)`.
#
# </details></details></details>

# %% [markdown] after="normalize_l2"
# L2 normalization keeps the direction and drops the length; it moves no mean. Divide by the *root mean* square instead
# of the root *sum* of squares, and you have RMS norm, up to a factor of $\sqrt n$. *Harder:* check that claim on a
# vector of your own, and say what happens to the two eps.

# %% [markdown] about="min_max"
# ## min_max
#
# Stretch every slice along an axis so that it runs from 0 to 1.
#
# `min_max(x, axis=-1)`
#
# | | |
# |---|---|
# | `x` | floating-point array |
# | `axis` | the axis along which a slice runs |
# | returns | an array of the same shape and dtype; a constant slice becomes 0 |
#
# $$y = \frac{x - \min x}{\max x - \min x}$$
#
# `[2, 4, 3]` becomes `[0, 1, 0.5]`. The smallest value becomes 0 and the largest 1, *exactly*: a small number added to
# the denominator would spoil that.


# %% solution="min_max"
def min_max(x, axis=-1):
    """(x - min) / (max - min); 0 in a constant slice."""
    ### BEGIN SOLUTION
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    low = wide.min(axis=axis, keepdims=True)
    span = wide.max(axis=axis, keepdims=True) - low
    return ((wide - low) / np.where(span == 0, 1, span)).astype(x.dtype)
    ### END SOLUTION


# %% check="min_max" part="values" points=12
check(min_max, "min_max", part="values")

# %% check="min_max" part="numerics" points=5
check(min_max, "min_max", part="numerics")

# %% check="min_max" part="edges" points=3
check(min_max, "min_max", part="edges")

# %% [markdown] hints="min_max"
# <details><summary>Hint 1</summary>
#
# What is the denominator for a constant slice, and what is the numerator?
#
# <details><summary>Hint 2</summary>
#
# In a constant slice the numerator is 0 already. Any denominator but 0 gives the right answer there.
#
# <details><summary>Hint 3</summary>
#
# `(x - low) / np.where(span == 0, 1, span)`, with `low` and `span` taken along the axis with `keepdims=True`.
#
# </details></details></details>

# %% [markdown] after="min_max"
# Min-max depends on two elements of a slice and on nothing else: one outlier moves all the others. *Harder:* how does
# `min_max(x)` change when you replace `x` by `a * x + b`, for `a` positive, negative and zero?

# %% [markdown] about="z_score"
# ## z_score
#
# Give every slice along an axis mean 0 and variance 1.
#
# `z_score(x, axis=-1, eps=1e-5)`
#
# | | |
# |---|---|
# | `x` | floating-point array |
# | `axis` | the axis along which a slice runs |
# | `eps` | a small positive number, added to the variance under the root |
# | returns | an array of the same shape and dtype |
#
# $$y = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}}, \qquad \text{mean and (biased) variance along the axis}$$
#
# The rows of `[[1, 3], [10, 30]]` become `[-1, 1]` both (without eps): each row has its own mean and its own scale.
#
# With the last axis this is layer norm without weight and bias.


# %% solution="z_score"
def z_score(x, axis=-1, eps=1e-5):
    """x with mean 0 and variance 1 (but for eps) along axis."""
    ### BEGIN SOLUTION
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    deviation = wide - wide.mean(axis=axis, keepdims=True)
    variance = np.mean(deviation**2, axis=axis, keepdims=True)
    return (deviation / np.sqrt(variance + eps)).astype(x.dtype)
    ### END SOLUTION


# %% check="z_score" part="values" points=12
check(z_score, "z_score", part="values")

# %% check="z_score" part="numerics" points=5
check(z_score, "z_score", part="numerics")

# %% check="z_score" part="edges" points=3
check(z_score, "z_score", part="edges")

# %% [markdown] hints="z_score"
# <details><summary>Hint 1</summary>
#
# How does `standardize` know that all elements belong together? What has to change, so that only a slice does?
#
# <details><summary>Hint 2</summary>
#
# Every reduction gets `axis=axis, keepdims=True`. With a square array a missing `keepdims` gives no error, only a wrong
# answer.
#
# <details><summary>Hint 3</summary>
#
# `deviation = wide - wide.mean(axis=axis, keepdims=True)`, then the mean of `deviation**2` along the same axis.
#
# </details></details></details>

# %% [markdown] after="z_score"
# One argument, `axis`, is most of the difference between the norms of this course: pool along the batch and it is batch
# norm, along the features and it is layer norm. *Harder:* write `z_score` so that `axis` may be a tuple.
