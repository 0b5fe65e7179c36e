# %% [markdown]
# # Exercises: does it keep the shape?
#
# Three functions about histograms. The first two turn counts into probabilities and into a density; the third asks what
# the histogram is worth on points that it has not seen. Counts are integers, however the samples are stored: `float16`
# cannot count past 2048.
#
# Write in the cell that says *your code here*, run it, then run the check cells under it.

# %% setup=true
import numpy as np

from normlab.check import check
from normlab.predict import compare

# %% [markdown] about="histogram_probabilities"
# ## histogram_probabilities
#
# Turn samples into the probabilities of bins.
#
# `histogram_probabilities(x, edges)`
#
# | | |
# |---|---|
# | `x` | 1-D floating-point array of samples |
# | `edges` | increasing 1-D array of $B + 1$ bin edges |
# | returns | $B$ probabilities that add up to 1, in the dtype of `x` |
# | raises | `ValueError` when no sample lies inside the edges |
#
# A bin holds its left edge and not its right one; the last bin holds both. Samples outside the edges do not count, neither
# above nor below the fraction bar.
#
# A sample is compared with the edge as it is: an edge that is rounded to the dtype of `x` first may end up on the other side
# of a sample. And a single sample inside the edges is enough.
#
# The samples `[0, 0.5, 1, 2, 7]` and the edges `[0, 1, 2]`: the first bin holds 0 and 0.5, the second holds 1 and
# 2, and 7 is outside. So the answer is `[0.5, 0.5]`.


# %% solution="histogram_probabilities"
def histogram_probabilities(x, edges):
    """Each bin's share of the samples inside the edges."""
    ### BEGIN SOLUTION
    counts = np.array([np.sum((low <= x) & (x < high)) for low, high in zip(edges, edges[1:], strict=False)])
    counts[-1] += np.sum(x == edges[-1])
    if counts.sum() == 0:
        raise ValueError("no sample lies inside the edges")
    return (counts / counts.sum()).astype(x.dtype)
    ### END SOLUTION


# %% check="histogram_probabilities" part="values" points=12
check(histogram_probabilities, "histogram_probabilities", part="values")

# %% check="histogram_probabilities" part="numerics" points=5
check(histogram_probabilities, "histogram_probabilities", part="numerics")

# %% check="histogram_probabilities" part="edges" points=3
check(histogram_probabilities, "histogram_probabilities", part="edges")

# %% [markdown] hints="histogram_probabilities"
# <details><summary>Hint 1</summary>
#
# Count first, divide later. Into which bin does a sample go that lies exactly on an edge?
#
# <details><summary>Hint 2</summary>
#
# `np.histogram(x, edges)` counts by the very rule above, if you like to use it (PyTorch's is refused). Divide by the
# sum of the counts, not by `len(x)`.
#
# <details><summary>Hint 3</summary>
#
# `counts, _ = np.histogram(x, edges)`; if `counts.sum() == 0`, raise; else `(counts / counts.sum()).astype(x.dtype)`.
#
# </details></details></details>

# %% [markdown] after="histogram_probabilities"
# To get probabilities you divide the *counts*: the y axis is scaled, the x axis stays. Batch norm does it the other way
# round. *Harder:* what do the probabilities become when samples and edges go through the same increasing map?

# %% [markdown] ask="height"
# ## Predict first
#
# A thousand numbers lie between 0 and 0.1, spread evenly. We draw their density over ten bins of equal width. How high
# are the bars, on average? Write a number, run the cell, then the one below it.

# %% prediction="height"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 10
### END INSTRUCTOR

# %% measure="height" points=1
evenly = np.random.default_rng(0).uniform(0, 0.1, 1000)
compare(prediction, float(np.histogram(evenly, np.linspace(0, 0.1, 11), density=True)[0].mean()))

# %% [markdown] told="height"
# The area is 1 and the base is 0.1 wide, so the height is 10. A density is no probability and may be as large as it
# likes. It has a unit, too: measure the same numbers in millimeters instead of meters, and the bars are 1,000 times
# lower. Each bin's probability stays 0.1, give or take the luck of the draw.

# %% [markdown] about="histogram_density"
# ## histogram_density ★
#
# Turn samples into a density: heights whose areas add up to 1.
#
# `histogram_density(x, edges)`
#
# | | |
# |---|---|
# | `x` | 1-D floating-point array of samples |
# | `edges` | increasing 1-D array of $B + 1$ bin edges, not always equally far apart |
# | returns | $B$ heights, in the dtype of `x`, with $\sum_b \text{height}_b \cdot \text{width}_b = 1$ |
# | raises | `ValueError` when no sample lies inside the edges |
#
# The bins are those of `histogram_probabilities`: closed on the left, the last one on both sides.
#
# Half of the samples in a bin of width 1 and half in a bin of width 2: the heights are `[0.5, 0.25]`. The wide bar is
# lower, and both have area one half.


# %% solution="histogram_density"
def histogram_density(x, edges):
    """Probability over width for each bin."""
    ### BEGIN SOLUTION
    counts, _ = np.histogram(x, edges)
    if counts.sum() == 0:
        raise ValueError("no sample lies inside the edges")
    return (counts / counts.sum() / np.diff(edges)).astype(x.dtype)
    ### END SOLUTION


# %% check="histogram_density" part="values" points=12
check(histogram_density, "histogram_density", part="values")

# %% check="histogram_density" part="numerics" points=5
check(histogram_density, "histogram_density", part="numerics")

# %% check="histogram_density" part="edges" points=3
check(histogram_density, "histogram_density", part="edges")

# %% [markdown] hints="histogram_density"
# <details><summary>Hint 1</summary>
#
# A bar of a histogram is a rectangle. If its area is the probability and you know its width, what is its height?
#
# <details><summary>Hint 2</summary>
#
# `np.diff(edges)` gives the widths, one for each bin.
#
# <details><summary>Hint 3</summary>
#
# `counts / counts.sum() / np.diff(edges)`, after the same guard as before.
#
# </details></details></details>

# %% [markdown] after="histogram_density"
# A density may be larger than 1, and it has a unit: one over the unit of `x`. Normalize the samples to unit variance and
# every height is multiplied by the old standard deviation. *Harder:* show that on 1,000 samples of your choice.

# %% [markdown] ask="bins"
# ## Predict: more and more bins
#
# A histogram of 200 points is scored on *the same* 200 points: the mean of the log of its density at each. We take 10
# bins, then 100, 1,000 and 10,000. What does the score do?
#
# - **a** it rises and rises
# - **b** it rises, and falls again when most bins are empty
# - **c** it falls, because most bins are empty
#
# Write a letter in quotes: `prediction = "a"`.

# %% prediction="bins"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = "a"
### END INSTRUCTOR

# %% measure="bins" points=1
points = np.random.default_rng(0).standard_normal(200)
scores = []
for bins in (10, 100, 1000, 10_000):
    heights, edges = np.histogram(points, bins, density=True)
    where = np.minimum(np.searchsorted(edges, points, side="right") - 1, bins - 1)
    scores.append(float(np.log(heights[where]).mean()))
rises = np.diff(scores) > 0
compare(prediction, "a" if rises.all() else "b" if rises[0] else "c", options="abc")

# %% [markdown] told="bins"
# The points themselves never sit in an empty bin. A point alone in its bin gets a bar ten times as high from bins ten
# times as narrow; in the end that is every point, and each step adds $\log 10 = 2.3$ to the score. So a score on the
# data that made the histogram prefers the worst of all histograms, one spike for each point. That is why the exercise
# below scores *other* points.

# %% [markdown] about="held_out_log_likelihood"
# ## held_out_log_likelihood
#
# Score new points under the histogram of old ones.
#
# `held_out_log_likelihood(train, test, edges)`
#
# | | |
# |---|---|
# | `train`, `test` | 1-D floating-point arrays of samples |
# | `edges` | increasing 1-D array of bin edges |
# | returns | the mean of the log density of the test points, a float; `-inf` if one of them has density 0 |
# | raises | `ValueError` when no training point lies inside the edges |
#
# The density is that of `histogram_density(train, edges)`, and 0 outside the edges.
#
# Training points `[0.5, 1.5, 1.6, 1.7]` with edges `[0, 1, 2]` have the densities 0.25 and 0.75. The test points `[0.2,
# 1.2]` score `(log 0.25 + log 0.75) / 2 = -0.837`. With a test point at 2.5 the score is `-inf`: the histogram calls that
# point impossible.


# %% solution="held_out_log_likelihood"
def held_out_log_likelihood(train, test, edges):
    """Mean log density of test under train's histogram."""
    ### BEGIN SOLUTION
    counts, _ = np.histogram(train, edges)
    if counts.sum() == 0:
        raise ValueError("no training point lies inside the edges")
    density = counts / counts.sum() / np.diff(edges)
    total = 0.0
    for point in test:
        if point < edges[0] or point > edges[-1]:
            return -np.inf
        bin_of_point = min(np.searchsorted(edges, point, side="right") - 1, len(density) - 1)
        if density[bin_of_point] == 0:
            return -np.inf
        total += np.log(density[bin_of_point])
    return float(total / len(test))
    ### END SOLUTION


# %% check="held_out_log_likelihood" part="values" points=12
check(held_out_log_likelihood, "held_out_log_likelihood", part="values")

# %% check="held_out_log_likelihood" part="numerics" points=5
check(held_out_log_likelihood, "held_out_log_likelihood", part="numerics")

# %% check="held_out_log_likelihood" part="edges" points=3
check(held_out_log_likelihood, "held_out_log_likelihood", part="edges")

# %% [markdown] hints="held_out_log_likelihood"
# <details><summary>Hint 1</summary>
#
# For one test point: how do you find its bin, and what do you do when it has none?
#
# <details><summary>Hint 2</summary>
#
# `np.searchsorted(edges, point, side="right") - 1` is the bin of a point inside the edges. The last edge is the exception,
# as always.
#
# <details><summary>Hint 3</summary>
#
# Put a zero on either side of the densities, `np.pad(density, 1)`: then `np.searchsorted(edges, test, side="right")` is
# the index for every point, inside or outside, but for those on the last edge. `np.log(0)` is `-inf`, as it should be.
#
# </details></details></details>

# %% [markdown] after="held_out_log_likelihood"
# A histogram that gives an unseen point probability 0 loses everything on the first surprise. The remedies are wider
# bins, a smooth kernel, or a parametric family. Softmax is none of them. *Harder:* add one imaginary sample to every bin
# and find the number of bins that scores best.

# %% [markdown] explain="shape"
# ## In your own words
#
# A colleague trains a fully connected network with batches of 8. She draws a histogram of one feature before a
# `BatchNorm1d` and one after it, in training. Before, the feature has a long tail to the right, to 9 standard
# deviations. After, there is no tail. She writes: "batch norm makes activations Gaussian". Another colleague answers:
# "It only shifts and scales, so the shape cannot have changed. Your plotting library chose other bins." Who is right?
# Say in one paragraph what happened, give the number that no output in her plot can pass, and name one measurement that
# decides between them.

# %% [markdown] explanation="shape" points=4
# Neither is. Each batch of 8 is only shifted and scaled, but every batch by its own mean and standard deviation, so the
# pooled outputs did not go through one straight line, and their shape did change: a batch with a far value in it has a
# large standard deviation, and the tail is shrunk most of all. Among 8 standardized values none can pass the root of 7,
# about 2.65 (before weight and bias), so a tail to 9 cannot be there. But that is not Gaussian. To show it, feed
# Gaussian data: their excess kurtosis does not stay 0, it becomes -6/9, about -0.67. To refute the second colleague,
# switch the layer to evaluation, where it is one fixed line: with bin edges that go through the same line the counts
# are those from before, and in training they are not.
#
# **Rubric**
#
# - 1 point: one line for each batch, not one line for all, so the pooled shape can change
# - 1 point: the bound, the root of N - 1 = 7, about 2.65
# - 1 point: not Gaussian either, with a reason (a hard bound, or Gaussian data that do not stay Gaussian)
# - 1 point: a measurement that decides: edges mapped by a fixed line, Gaussian input, or larger batches
