# %% [markdown]
# # Exercises: what "normalize" means
#
# Four functions, one word. Each takes the slices of an array along one axis and fixes one property of them. All four take
# `axis`, and all four are a few lines long; what differs is what they promise.
#
# In all of them the answer has the shape and dtype of `x`, and `x` stays as it was. `float16` is computed in `float32` and
# turned back at the end: sums and squares of a few hundred overflow it. A NaN makes its slice NaN, all of it, as in PyTorch:
# `np.maximum` keeps a NaN, `np.fmax` and a comparison lose it. (Of `min_max` nothing is asked there.)
#
# Write in the cell that says *your code here*, run it, then run the check cells under it: you are right, or you read in
# one sentence what is wrong.

# %% setup=true
import numpy as np

from normlab.check import check
from normlab.predict import compare

# %% [markdown] ask="winner"
# ## Predict first
#
# Four parties have 10, 20, 30 and 40 votes. Divided by their sum, which is L1, these are the shares 0.1, 0.2, 0.3 and
# 0.4. What share does softmax give to the party with 40? Write a number between 0 and 1, run the cell, then the one
# below it.

# %% prediction="winner"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 1
### END INSTRUCTOR

# %% measure="winner" points=1
votes = np.array([10.0, 20.0, 30.0, 40.0])
compare(prediction, float(np.exp(40.0) / np.exp(votes).sum()))

# %% [markdown] told="winner"
# Nearly everything. L1 looks at ratios: 40 is a third more than 30. Softmax looks at differences: 40 is ten more than
# 30, so it gets $e^{10}$ times the weight, which is about 22,000 times. Count the same votes in thousands, 0.01 to
# 0.04, and softmax makes the four nearly equal, while the L1 shares stay what they are. Both add up to 1; only one is
# an election result.

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
# $$\begin{gathered}
# y = \frac{x}{\max(\lVert x \rVert_1,\ \varepsilon)}, \\
# \lVert x \rVert_1 = \sum_i |x_i|
# \end{gathered}$$
#
# `[1, -3]` has absolute values 1 and 3, which add up to 4: the answer is `[0.25, -0.75]`. Its absolute values add up
# to 1; its values do not, because one is negative.
#
# This is `torch.nn.functional.normalize(x, p=1, dim=axis)`. A slice of zeros stays zero. In `float16` the eps of 1e-12
# would be 0, so norm and eps are `float32` for `float16` input, and have the dtype of `x` otherwise.


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
# $$\begin{gathered}
# y = \frac{x}{\max(\lVert x \rVert_2,\ \varepsilon)}, \\
# \lVert x \rVert_2 = \sqrt{\sum_i x_i^2}
# \end{gathered}$$
#
# `[3, -4]` has length 5, so the answer is `[0.6, -0.8]`: the same direction, length 1.
#
# This is `torch.nn.functional.normalize(x, dim=axis)`. (Without `dim` PyTorch takes axis 1, which is the last axis of a
# table and the *tokens'* axis of a batch of sequences.) Eps bounds the length itself, not its square. Mind `float16`
# again: 300 squared does not fit.


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

# %% [markdown] ask="salaries"
# ## Predict: one slip of the keyboard
#
# A column holds 1,000 salaries between 20,000 and 80,000. One of them was typed with three zeros too many and stands
# there as 40,000,000. Min-max brings the column to the range from 0 to 1. What is the largest value among the *other*
# 999?

# %% prediction="salaries"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 0.0015
### END INSTRUCTOR

# %% measure="salaries" points=1
salaries = np.linspace(20_000, 80_000, 1000)
salaries[500] = 40_000_000
scaled = (salaries - salaries.min()) / (salaries.max() - salaries.min())
compare(prediction, float(np.sort(scaled)[-2]))

# %% [markdown] told="salaries"
# 60,000 of 39,980,000: all the honest salaries share the lowest 0.15 percent of the range, and a model that reads the
# column sees 999 zeros and a one. Two elements decide what min-max does to all, and an outlier is always one of the
# two. Who has such data clips them first, or takes quantiles in place of the extremes.

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
# the denominator would spoil that. In `float16` the *range* can overflow where no value does: from -60,000 to 60,000 is
# 120,000, and the largest `float16` is 65,504.


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
# $$y = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}}$$
#
# Mean and (biased) variance are those of the slice.
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

# %% [markdown] explain="meanings"
# ## In your own words
#
# You inherit three arrays of shape (1000, 5): a thousand customers, five columns such as age and income. All three
# files are called `normalized.npy`, and nobody remembers how they were made. In the first, the squares of every row add
# up to 1. In the second, every column has mean 0 and standard deviation 1. In the third, all numbers are positive and
# every row adds up to 1. In one paragraph: what was probably done to each, and along which axis? In which of them can
# you still tell a customer from one with twice as much of everything? And what about the third can the array not tell
# you?

# %% [markdown] explanation="meanings" points=4
# The first is L2 along the rows (axis -1): every customer became a direction. The second is a z-score along the columns
# (axis 0): all customers went through the same shift and scale, column by column. The third has rows of positive
# numbers with sum 1, and two functions make such rows: L1, if the data were positive, and softmax. That is what the
# array cannot tell me. L2 and L1 along a row forget its scale, so there a customer and the double one have equal rows.
# In the second file they differ, because mean and spread belong to the column and not to the customer. If the third is
# a softmax they differ as well: doubling the logits doubles their differences and makes the row more decided.
#
# **Rubric**
#
# - 1 point: the first is L2 along the rows and the second the z-score along the columns, with the axes named
# - 1 point: the third may be L1 of positive data or softmax, and rows of sum 1 do not decide which
# - 1 point: L1 and L2 along a row forget its scale, so the double customer is lost there
# - 1 point: in the second (statistics of the column) and under softmax the double customer is another one, with a reason
