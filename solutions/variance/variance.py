# %% [markdown]
# # Exercises: variance
#
# Three ways to a variance that keeps its digits: in two passes over an array, in one look at a stream, and from the
# statistics of two parts, without their values.
#
# Two names are used throughout. The *mean* is the sum of the values over their number $n$. And $M_2$, in code `m2`, is
# the sum of the squared distances from the mean, so that the variance is $M_2 / n$.

# %% setup=true
import numpy as np

from normlab.check import check
from normlab.predict import compare

# %% [markdown] ask="counter"
# ## Predict first: a counter
#
# A sum starts at 0, in `float32`, and 1 is added to it twenty million times. Where does it stand in the end? Write a
# number, run the cell, then run the one below it. Right or wrong, a prediction earns its point: what counts is that you
# made it before you looked.

# %% prediction="counter"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 16_777_216
### END INSTRUCTOR

# %% measure="counter" points=1
total = np.add.accumulate(np.ones(20_000_000, np.float32))[-1]  # one after another
compare(prediction, float(total))

# %% [markdown] told="counter"
# It stops at 16,777,216, which is two to the power of 24. From there on the distance to the next `float32` is 2, and
# half of a step is rounded away: adding 1 changes nothing, however often it is done. Here all the numbers are whole and
# harmless. It is the sum that has grown too large for what is added to it, and the same happens to the sum of your
# squares.

# %% [markdown] about="two_pass_variance"
# ## two_pass_variance
#
# Compute the variance of an array: the mean of the squared distances from the mean.
#
# `two_pass_variance(x)`
#
# | | |
# |---|---|
# | `x` | one-dimensional floating-point array of at least one value |
# | returns | a float |
#
# $$\begin{aligned}
# \mu &= \frac{1}{n} \sum_i x_i , \\
# \sigma^2 &= \frac{1}{n} \sum_i (x_i - \mu)^2
# \end{aligned}$$
#
# `[1, 2, 6]` has the mean 3 and the distances -2, -1 and 3. Their squares add up to 14, so the answer is $14/3 = 4.667$.
# (PyTorch's `torch.var(x)` divides by $n - 1$ and says 7; `torch.var(x, correction=0)` is what is asked for here.)
#
# The values may be far from zero, and there may be many of them: 65,000 values near 10,000 in `float32`, say. Think of
# the sum as well as of the squares. `float16` is computed in `float32` or wider. The input stays as it was.


# %% solution="two_pass_variance"
def two_pass_variance(x):
    """Mean squared distance of x from its mean; a float."""
    ### BEGIN SOLUTION
    wide = x.astype(np.float64)
    distance = wide - wide.mean()
    return float((distance * distance).mean())
    ### END SOLUTION


# %% check="two_pass_variance" part="values" points=12
check(two_pass_variance, "two_pass_variance", part="values")

# %% check="two_pass_variance" part="numerics" points=5
check(two_pass_variance, "two_pass_variance", part="numerics")

# %% check="two_pass_variance" part="edges" points=3
check(two_pass_variance, "two_pass_variance", part="edges")

# %% [markdown] hints="two_pass_variance"
# <details><summary>Hint 1</summary>
#
# If all values are near 10,000, which numbers do you want to square: the values, or something smaller?
#
# <details><summary>Hint 2</summary>
#
# One pass for the mean, one for the squared distances from it. In which dtype does your sum grow? A loop over a `float32`
# array adds up in `float32`, also when it starts from `0.0` (since NumPy 2).
#
# <details><summary>Hint 3</summary>
#
# `distance = x.astype(np.float64) - x.mean(dtype=np.float64)`, then the mean of `distance * distance`, as a `float`.
#
# </details></details></details>

# %% [markdown] after="two_pass_variance"
# Subtract first, then square: what is small to begin with has no digits to lose. *Harder:* stay in `float32` with a
# running sum, and repair the result: subtract the square of the mean distance. Which order of values breaks it now?

# %% [markdown] about="welford"
# ## welford
#
# Compute count, mean and $M_2$ of a stream, with one look at each value.
#
# `welford(stream)`
#
# | | |
# |---|---|
# | `stream` | an iterator over Python floats; it has no length, and what it gave is gone |
# | returns | the tuple `(n, mean, m2)`: an int and two floats |
#
# For each value $x$, with $n$ the number of values up to and including this one:
#
# $$\begin{aligned}
# \delta &= x - \mu , \\
# \mu &\leftarrow \mu + \delta / n , \\
# M_2 &\leftarrow M_2 + \delta\,(x - \mu) ,
# \end{aligned}$$
#
# where the last $\mu$ is the new one. The stream 1, 2, 6: after 1 it is `(1, 1.0, 0.0)`. After 2, $\delta = 1$, the mean
# is 1.5 and $M_2 = 1 \cdot 0.5 = 0.5$. After 6, $\delta = 4.5$, the mean is 3 and $M_2 = 0.5 + 4.5 \cdot 3 = 14$. The
# answer is `(3, 3.0, 14.0)`.
#
# An empty stream gives `(0, 0.0, 0.0)`. (That $M_2$ is 0 is the empty sum; that the mean is 0.0 is a convention, chosen
# because nothing that has weight 0 should be able to spoil a sum with a NaN.)
#
# A loop such as `for x in stream:` works once. Storing all values would work too, and miss the point.


# %% solution="welford"
def welford(stream):
    """(n, mean, m2) of an iterator, each value seen once."""
    ### BEGIN SOLUTION
    n, mean, m2 = 0, 0.0, 0.0
    for x in stream:
        n += 1
        delta = x - mean
        mean += delta / n
        m2 += delta * (x - mean)
    return n, mean, m2
    ### END SOLUTION


# %% check="welford" part="values" points=12
check(welford, "welford", part="values")

# %% check="welford" part="numerics" points=5
check(welford, "welford", part="numerics")

# %% check="welford" part="edges" points=3
check(welford, "welford", part="edges")

# %% [markdown] hints="welford"
# <details><summary>Hint 1</summary>
#
# You know the mean of the first four values. The fifth arrives. Which share of its distance from the mean does the mean
# move?
#
# <details><summary>Hint 2</summary>
#
# Keep three numbers. Count first, then take the distance from the old mean, then move the mean. Now the value has a
# second distance, the one from the new mean. $M_2$ grows by the product of the two.
#
# <details><summary>Hint 3</summary>
#
# Start with `n, mean, m2 = 0, 0.0, 0.0`. In the loop: `n += 1`, `delta = x - mean`, `mean += delta / n`, `m2 += delta * (x -
# mean)`.
#
# </details></details></details>

# %% [markdown] after="welford"
# Three numbers are all that a variance has to remember, and they never hold anything as large as the sum of squares.
# *Harder:* forget a value again: write the step that takes the oldest value out, for a window that slides.

# %% [markdown] ask="straggler"
# ## Predict first: a straggler
#
# One device has a thousand values with mean 0 and variance 1. Another has a single value, and it is 100. What is the
# variance (over n) of all 1,001 values?

# %% prediction="straggler"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 11
### END INSTRUCTOR

# %% measure="straggler" points=1
values = np.random.default_rng(0).standard_normal(1000)
values = (values - values.mean()) / values.std()
compare(prediction, np.append(values, 100).var())

# %% [markdown] told="straggler"
# About 11, where both parts alone have 1 and 0. The single value has no spread of its own, and all that it adds is
# distance: 100 squared, spread over 1,001 values, is nearly 10. An average of the two variances, by counts or not,
# cannot be larger than 1. What is missing there is the third term of the formula below.

# %% [markdown] about="merge_statistics"
# ## merge_statistics ★
#
# Compute the statistics of two parts together from the statistics of each.
#
# `merge_statistics(a, b)`
#
# | | |
# |---|---|
# | `a`, `b` | tuples `(n, mean, m2)`: an int and two Python floats |
# | returns | the tuple `(n, mean, m2)` of all values of both parts |
#
# $$\begin{aligned}
# n &= n_a + n_b , \\
# \delta &= \mu_b - \mu_a , \\
# \mu &= \mu_a + \delta\, \frac{n_b}{n}, \\
# M_2 &= M_{2,a} + M_{2,b} + \delta^2\, \frac{n_a n_b}{n} .
# \end{aligned}$$
#
# The values 1 and 3 are `(2, 2.0, 2.0)`, and the single value 8 is `(1, 8.0, 0.0)`. Together: $n = 3$, $\delta = 6$, the
# mean is $2 + 6 \cdot 1/3 = 4$, and $M_2 = 2 + 0 + 36 \cdot 2/3 = 26$. Check it: 1, 3 and 8 are 3, 1 and 4 away from 4, and
# $9 + 1 + 16 = 26$.
#
# A part may be empty, `(0, 0.0, 0.0)`, and it changes nothing then. Two empty parts make an empty one. Counts may be as
# large as trillions, and means far from zero.


# %% solution="merge_statistics"
def merge_statistics(a, b):
    """(n, mean, m2) of two parts together; each is given so."""
    ### BEGIN SOLUTION
    (n_a, mean_a, m2_a), (n_b, mean_b, m2_b) = a, b
    n = n_a + n_b
    if n == 0:
        return 0, 0.0, 0.0
    delta = mean_b - mean_a
    return n, mean_a + delta * n_b / n, m2_a + m2_b + delta**2 * n_a * n_b / n
    ### END SOLUTION


# %% check="merge_statistics" part="values" points=12
check(merge_statistics, "merge_statistics", part="values")

# %% check="merge_statistics" part="numerics" points=5
check(merge_statistics, "merge_statistics", part="numerics")

# %% check="merge_statistics" part="edges" points=3
check(merge_statistics, "merge_statistics", part="edges")

# %% [markdown] hints="merge_statistics"
# <details><summary>Hint 1</summary>
#
# Two parts of two values each: 0 and 0, and 10 and 10. Neither has any spread. Has the union?
#
# <details><summary>Hint 2</summary>
#
# The mean lies between the two means, nearer to that of the larger part. $M_2$ has three terms: the spread within each part,
# and the distance between their means. When is there nothing to divide by?
#
# <details><summary>Hint 3</summary>
#
# `n = n_a + n_b`, and if that is 0, return `(0, 0.0, 0.0)`. Otherwise, with `delta = mean_b - mean_a`, the mean is
# `mean_a + delta * n_b / n`, and `m2_a + m2_b + delta**2 * n_a * n_b / n` is the new `m2`.
#
# </details></details></details>

# %% [markdown] after="merge_statistics"
# Statistics of parts add up to those of the whole, in any order and any grouping, as long as the counts come along.
# *Harder:* merge three-part statistics `(n, mean, m2, m3)`, where `m3` is the sum of the cubed distances.

# %% [markdown] explain="variance"
# ## In your own words
#
# A day of log lines has a column of times, in seconds since 1970: they lie near 1.7 billion, and their true standard
# deviation is 25,000. The column is stored in `float32`. Before it goes into a network it is standardized, with E[x²] -
# E[x]², and NaN comes out. Four colleagues have a remedy each: (a) set negative variances to 0; (b) use Welford's
# method, in `float32`; (c) turn the stored column into `float64` and take two passes; (d) subtract the time of the
# first line when the file is read, and only then turn it into `float32`. Answer in one paragraph: where does the NaN
# come from, and what is each remedy worth? (Near 1.7 billion the `float32` numbers are 128 apart.)

# %% [markdown] explanation="variance" points=4
# The squares lie near 3e18, where `float32` numbers are more than 1e11 apart. The variance that is to be what remains
# is 6e8, hundreds of times smaller than one such step: none of its digits can survive, the difference is rounding, here
# a negative one, and the root of it is NaN. (a) takes the NaN away and not the fault: where it clips, the deviations
# are divided by the root of eps and come out millions of times too large. (b) squares only distances, which is right,
# and gives nearly 25,000, but its mean is a `float32` near 1.7 billion and moves in steps of 128, so once delta / n is
# less than half a step it stands still, a good way from the truth. (c) computes the variance of what is stored, as
# exactly as one could wish, and since 128 is little beside 25,000 that is good enough for standardizing; but two lines
# within the same 128 seconds have become the same number, and no algorithm brings that back. (d) is the best: the
# distances from the first line are small numbers, which `float32` holds to a hundredth of a second, and a shift does
# not change a variance.
#
# **Rubric**
#
# - 1 point: cancellation: squares so large that their spacing exceeds the variance itself
# - 1 point: clipping removes the NaN and leaves a wrong scale
# - 1 point: tells arithmetic from storage: (b) and (c) compute better, and what was rounded when it was stored stays lost
# - 1 point: (d) keeps the digits, because it subtracts before it rounds, and a shift leaves the variance as it is
