# %% [markdown]
# # Exercises: which axes?
#
# Five norms. They subtract a mean (four of them do), divide by a spread, scale and shift; what tells them apart is the set
# of elements that share one mean. Write each for itself: seeing the same five lines return is the point.
#
# In all of them the variance is the biased one, eps stands under the root, `float16` is computed in `float32`, the answer has
# the shape and dtype of `x`, and `x` stays as it was. A NaN makes everything in its pool NaN, so that a fault shows. Where a
# text is silent, PyTorch's function of the same name decides.
#
# Write in the cell that says *your code here*, run it, then run the check cells under it.

# %% setup=true
import numpy as np

from normlab.check import check
from normlab.predict import compare

# %% [markdown] ask="parameters"
# ## Predict first
#
# Images have 64 channels and 28 times 28 positions. `nn.GroupNorm(1, 64)` and `nn.LayerNorm((64, 28, 28))` share one
# mean among the very same elements: all of an image. The group norm learns 128 numbers, a weight and a bias for each
# channel. How many does the layer norm learn? Write a number, run the cell, then the one below it.

# %% prediction="parameters"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 100_000
### END INSTRUCTOR

# %% measure="parameters" points=1
import torch

layer = torch.nn.LayerNorm((64, 28, 28))
compare(prediction, sum(parameter.numel() for parameter in layer.parameters()))

# %% [markdown] told="parameters"
# Two for each of the 50,176 elements of an image. PyTorch's layer norm gives a weight of its own to every element of
# `normalized_shape`, so this one knows where in the image a pixel lies, and takes images of that one size alone. Which
# elements share a mean and which share a weight are two separate decisions. Watch both below.

# %% [markdown] about="batch_norm"
# ## batch_norm ★
#
# Normalize each channel over all examples and all positions, as batch norm does in training.
#
# `batch_norm(x, weight, bias, eps=1e-5)`
#
# | | |
# |---|---|
# | `x` | floating-point array (N, C) or (N, C, positions...): the channel is axis 1 |
# | `weight`, `bias` | arrays of shape (C,) |
# | `eps` | added to the variance, under the root |
# | returns | $\hat x \cdot$ weight + bias, an array like `x` |
# | raises | `ValueError` when there is only one value per channel |
#
# The batch `[[1, 10], [3, 30]]` has two channels, with the values 1, 3 and 10, 30. Each becomes -1, 1 (without eps). With weight
# `[2, 1]` and bias `[0, 5]` the answer is `[[-2, 4], [2, 6]]`.
#
# For images, (N, C, H, W), a channel's statistics run over N, H and W: that is N·H·W values for one mean. A single
# example is fine as long as it has more than one position.


# %% solution="batch_norm"
def batch_norm(x, weight, bias, eps=1e-5):
    """Training-mode batch norm over all axes but axis 1."""
    ### BEGIN SOLUTION
    if x.size == x.shape[1]:
        raise ValueError(f"batch_norm needs more than one value per channel, got an array of shape {x.shape}")
    axes = (0, *range(2, x.ndim))
    per_channel = (1, -1) + (1,) * (x.ndim - 2)
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    deviation = wide - wide.mean(axes, keepdims=True)
    x_hat = deviation / np.sqrt(np.mean(deviation**2, axes, keepdims=True) + eps)
    return (x_hat * weight.reshape(per_channel) + bias.reshape(per_channel)).astype(x.dtype)
    ### END SOLUTION


# %% check="batch_norm" part="values" points=12
check(batch_norm, "batch_norm", part="values")

# %% check="batch_norm" part="numerics" points=5
check(batch_norm, "batch_norm", part="numerics")

# %% check="batch_norm" part="edges" points=3
check(batch_norm, "batch_norm", part="edges")

# %% [markdown] hints="batch_norm"
# <details><summary>Hint 1</summary>
#
# For an image batch (N, C, H, W), which axes do you average over so that one number is left for each channel?
#
# <details><summary>Hint 2</summary>
#
# All axes but axis 1: `(0, *range(2, x.ndim))`. The weight has to line up with axis 1, so reshape it to (1, C, 1, 1).
#
# <details><summary>Hint 3</summary>
#
# `shape = (1, -1) + (1,) * (x.ndim - 2)`, then `x_hat * weight.reshape(shape) + bias.reshape(shape)`.
#
# </details></details></details>

# %% [markdown] after="batch_norm"
# Every example's output depends on the whole batch. That is why batch norm needs running statistics at test time, and no
# other norm here does. *Harder:* normalize each half of the batch by itself and compare: that is what two GPUs without
# SyncBatchNorm do.

# %% [markdown] about="layer_norm"
# ## layer_norm ★
#
# Normalize each slice along the trailing axes: each row of a batch of vectors, each token of a batch of sequences.
#
# `layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5)`
#
# | | |
# |---|---|
# | `x` | floating-point array whose last axes have the shape `normalized_shape` |
# | `normalized_shape` | a tuple such as `(D,)` or `(H, W)`: the axes that share their statistics |
# | `weight`, `bias` | arrays of shape `normalized_shape`, each may be `None` by itself |
# | `eps` | added to the variance, under the root |
# | returns | $\hat x \cdot$ weight + bias, an array like `x` |
#
# `[[1, 3], [10, 30]]` with `normalized_shape=(2,)` becomes `[[-1, 1], [-1, 1]]` (without eps): each row has a mean of
# its own. No row knows of any other.


# %% solution="layer_norm"
def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Layer norm over the axes named by normalized_shape."""
    ### BEGIN SOLUTION
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    deviation = wide - wide.mean(axes, keepdims=True)
    y = deviation / np.sqrt(np.mean(deviation**2, axes, keepdims=True) + eps)
    if weight is not None:
        y = y * weight
    if bias is not None:
        y = y + bias
    return y.astype(x.dtype)
    ### END SOLUTION


# %% check="layer_norm" part="values" points=12
check(layer_norm, "layer_norm", part="values")

# %% check="layer_norm" part="numerics" points=5
check(layer_norm, "layer_norm", part="numerics")

# %% check="layer_norm" part="edges" points=3
check(layer_norm, "layer_norm", part="edges")

# %% [markdown] hints="layer_norm"
# <details><summary>Hint 1</summary>
#
# If `normalized_shape` has two entries, how many axes are averaged over, and which?
#
# <details><summary>Hint 2</summary>
#
# The last `len(normalized_shape)` axes: `tuple(range(-len(normalized_shape), 0))`. The weight has just their shape, so it
# lines up with them by itself.
#
# <details><summary>Hint 3</summary>
#
# Compute `y` as in `z_score` with that tuple for an axis; then `if weight is not None: y = y * weight`, and the same for
# the bias, each on its own.
#
# </details></details></details>

# %% [markdown] after="layer_norm"
# Layer norm is the same function in training and at test time, for one example or a thousand. *Harder:* shuffle the examples
# of a batch, then the features of each example. Which of the two changes the output of layer norm, and which that of batch
# norm?

# %% [markdown] about="instance_norm"
# ## instance_norm
#
# Normalize each channel of each example over its own positions.
#
# `instance_norm(x, weight=None, bias=None, eps=1e-5)`
#
# | | |
# |---|---|
# | `x` | floating-point array (N, C, positions...) |
# | `weight`, `bias` | arrays of shape (C,), each may be `None` by itself |
# | `eps` | added to the variance, under the root |
# | returns | $\hat x \cdot$ weight + bias, an array like `x` |
# | raises | `ValueError` when a channel has only one position in all, or `x` no axis of positions |
#
# One example, two channels, two positions, `[[[1, 3], [10, 30]]]`: each channel becomes -1, 1 (without eps). The contrast of
# an image channel is gone, and what is left is its pattern.


# %% solution="instance_norm"
def instance_norm(x, weight=None, bias=None, eps=1e-5):
    """Instance norm over the positions, axes 2 and on."""
    ### BEGIN SOLUTION
    flat = x.reshape(x.shape[0], x.shape[1], -1)
    if flat.shape[2] == 1:
        raise ValueError(f"instance_norm needs more than one position per channel, got an array of shape {x.shape}")
    flat = flat.astype(np.promote_types(x.dtype, np.float32))
    deviation = flat - flat.mean(-1, keepdims=True)
    y = deviation / np.sqrt(np.mean(deviation**2, -1, keepdims=True) + eps)
    if weight is not None:
        y = y * weight[:, np.newaxis]
    if bias is not None:
        y = y + bias[:, np.newaxis]
    return y.reshape(x.shape).astype(x.dtype)
    ### END SOLUTION


# %% check="instance_norm" part="values" points=12
check(instance_norm, "instance_norm", part="values")

# %% check="instance_norm" part="numerics" points=5
check(instance_norm, "instance_norm", part="numerics")

# %% check="instance_norm" part="edges" points=3
check(instance_norm, "instance_norm", part="edges")

# %% [markdown] hints="instance_norm"
# <details><summary>Hint 1</summary>
#
# If an image had a single axis of positions instead of height and width, what would you write?
#
# <details><summary>Hint 2</summary>
#
# So give it one: `x.reshape(N, C, -1)`. At the end, reshape back.
#
# <details><summary>Hint 3</summary>
#
# With the flat shape (N, C, S), the statistics run along the last axis, and the weight needs the shape (C, 1).
#
# </details></details></details>

# %% [markdown] after="instance_norm"
# Instance norm is batch norm with each example as a batch of its own. *Harder:* write it by calling your `batch_norm` once,
# on a reshaped array.

# %% [markdown] about="group_norm"
# ## group_norm ★
#
# Normalize groups of neighboring channels of each example.
#
# `group_norm(x, num_groups, weight=None, bias=None, eps=1e-5)`
#
# | | |
# |---|---|
# | `x` | floating-point array (N, C) or (N, C, positions...) |
# | `num_groups` | the number of groups; channels 0 to C/num_groups - 1 are the first |
# | `weight`, `bias` | arrays of shape (C,), one number for each *channel*; each may be `None` by itself |
# | `eps` | added to the variance, under the root |
# | returns | $\hat x \cdot$ weight + bias, an array like `x` |
# | raises | `ValueError` when the groups do not divide the channels |
#
# Four channels without positions, `[[1, 3, 10, 30]]`, in two groups: 1 and 3 share a mean, and so do 10 and 30. The answer
# is `[[-1, 1, -1, 1]]` (without eps).


# %% solution="group_norm"
def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    """Group norm over each group's channels and positions."""
    ### BEGIN SOLUTION
    examples, channels = x.shape[:2]
    if channels % num_groups:
        raise ValueError(f"group_norm: {num_groups} groups do not divide {channels} channels")
    grouped = x.reshape(examples, num_groups, -1).astype(np.promote_types(x.dtype, np.float32))
    deviation = grouped - grouped.mean(-1, keepdims=True)
    y = deviation / np.sqrt(np.mean(deviation**2, -1, keepdims=True) + eps)
    y = y.reshape(examples, channels, -1)
    if weight is not None:
        y = y * weight[:, np.newaxis]
    if bias is not None:
        y = y + bias[:, np.newaxis]
    return y.reshape(x.shape).astype(x.dtype)
    ### END SOLUTION


# %% check="group_norm" part="values" points=12
check(group_norm, "group_norm", part="values")

# %% check="group_norm" part="numerics" points=5
check(group_norm, "group_norm", part="numerics")

# %% check="group_norm" part="edges" points=3
check(group_norm, "group_norm", part="edges")

# %% [markdown] hints="group_norm"
# <details><summary>Hint 1</summary>
#
# In memory, where do the channels of one group lie, together with all their positions?
#
# <details><summary>Hint 2</summary>
#
# Side by side. `x.reshape(N, num_groups, -1)` puts each group with its positions on one last axis, ready to be normalized.
#
# <details><summary>Hint 3</summary>
#
# Weight and bias belong to channels, so reshape to (N, C, -1) before you apply `weight[:, np.newaxis]`, and to `x.shape` at
# the very end.
#
# </details></details></details>

# %% [markdown] after="group_norm"
# With one group per channel this is instance norm; with a single group it is what the GroupNorm paper calls layer norm, which
# is *not* what a transformer calls so. *Harder:* show with one input that the two layer norms differ.

# %% [markdown] ask="offset"
# ## Predict: far from zero
#
# A token has two features, 1000 and 1001. After layer norm they are -1 and 1: two apart. How far apart are they after
# RMS norm?

# %% prediction="offset"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 0.001
### END INSTRUCTOR

# %% measure="offset" points=1
token = torch.tensor([1000.0, 1001.0], dtype=torch.float64)
low, high = torch.nn.functional.rms_norm(token, (2,))
compare(prediction, (high - low).item())

# %% [markdown] told="offset"
# Both are divided by about 1000, so they end near 1, a thousandth apart. RMS norm keeps the mean. What all features of
# a token have in common stays, and if it is large, the differences between the features drown in it. Where the mean is
# small beside the spread, the two norms are nearly one.

# %% [markdown] about="rms_norm"
# ## rms_norm
#
# Divide each slice along the trailing axes by its root mean square.
#
# `rms_norm(x, normalized_shape, weight=None, eps=None)`
#
# | | |
# |---|---|
# | `x` | floating-point array whose last axes have the shape `normalized_shape` |
# | `normalized_shape` | a tuple: the axes that share one root mean square |
# | `weight` | array of shape `normalized_shape`, or `None` |
# | `eps` | added to the mean square, under the root; `None` means the machine epsilon of `float32`, and that of `float64` for `float64` input |
# | returns | an array like `x` |
#
# $$y = \frac{x}{\sqrt{\frac1n \sum_i x_i^2 + \varepsilon}} \cdot \text{weight}$$
#
# `[3, -4]` has the mean square 12.5, whose root is 3.54: the answer is `[0.849, -1.131]`. No mean is subtracted, so the answer
# need not add up to 0.


# %% solution="rms_norm"
def rms_norm(x, normalized_shape, weight=None, eps=None):
    """x over its root mean square along its last axes."""
    ### BEGIN SOLUTION
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    if eps is None:
        eps = np.finfo(wide.dtype).eps
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    y = wide / np.sqrt(np.mean(wide**2, axes, keepdims=True) + eps)
    return (y if weight is None else y * weight).astype(x.dtype)
    ### END SOLUTION


# %% check="rms_norm" part="values" points=12
check(rms_norm, "rms_norm", part="values")

# %% check="rms_norm" part="numerics" points=5
check(rms_norm, "rms_norm", part="numerics")

# %% check="rms_norm" part="edges" points=3
check(rms_norm, "rms_norm", part="edges")

# %% [markdown] hints="rms_norm"
# <details><summary>Hint 1</summary>
#
# Which line of `layer_norm` do you leave out, and what does that do to the line after it?
#
# <details><summary>Hint 2</summary>
#
# No deviation: the mean of `x**2` itself, over the same axes. The default eps depends on the dtype in which you compute.
#
# <details><summary>Hint 3</summary>
#
# `np.finfo(wide.dtype).eps` is that default, when `wide` is `x` in `float32` or wider; then
# `wide / np.sqrt(np.mean(wide**2, axes, keepdims=True) + eps)`.
#
# </details></details></details>

# %% [markdown] after="rms_norm"
# RMS norm keeps the mean and costs one reduction less; many large language models since 2023, LLaMA among them, use it.
# *Harder:* apply it to an input that is centered already. What have you computed?

# %% [markdown] explain="axes"
# ## In your own words
#
# A network works on images of shape (2, 64, 512, 512): they are so large that only two fit into a batch. It uses batch
# norm, and the result for one image depends on the other. Colleague A says: "Take layer norm, as transformers do."
# Colleague B says: "Take group norm with one group, that is the same thing." Answer both in one paragraph. How many
# elements share a mean under batch norm, under A's and under B's? Do the two mean the same? And suppose that there is a
# reflection in one image: at a single position, all 64 channels are 3 times as large. Which of the three norms hides it
# from the next layer, and why do the others not?

# %% [markdown] explanation="axes" points=4
# Batch norm pools a channel through both images: 2 times 512 times 512 is 524,288 elements for one mean, and because
# the pool holds both images, each output depends on the other image. A transformer's layer norm pools the channels of
# one position: 64 elements, and half a million means. Group norm with one group pools a whole image: 64 times 512 times
# 512, nearly 16.8 million elements, and two means. So A and B do not mean the same, although both get rid of the other
# image. The reflection multiplies one whole pool of A's by 3, and a norm forgets the scale of its pool (but for eps),
# so A's norm hides it. For batch norm and B's it is a small part of a large pool, one position of half a million, or of
# a quarter of a million: the mean and the spread hardly move, and the position stands out as it did before.
#
# **Rubric**
#
# - 1 point: the sizes of the pools, 524,288 and 64 and 16,777,216 (or the right products)
# - 1 point: A and B differ, one pools a position's channels and the other the whole image; neither sees the other image
# - 1 point: the position is a whole pool of A's, and a norm forgets the scale of its pool: A's hides the reflection
# - 1 point: in a large pool the position hardly moves the statistics, so batch norm and B's let it stand out
