# %% [markdown]
# # Exercises: cross entropy
#
# The loss of nearly every classifier, and its gradient: log-softmax, cross entropy, and the two backward passes that go
# with them.
#
# In all of them `float16` is computed in `float32`, arrays come back in the dtype of the first argument, and the inputs
# stay as they were. Where a text is silent, PyTorch's function of the same name decides. The gradients are yours to derive: a
# check refuses an answer that leaves them to autograd.

# %% setup=true
import numpy as np

from normlab.check import check
from normlab.predict import compare

# %% [markdown] about="log_softmax"
# ## log_softmax ★
#
# Compute the logarithm of softmax without computing softmax.
#
# `log_softmax(x, axis=-1)`
#
# | | |
# |---|---|
# | `x` | floating-point array of logits |
# | `axis` | the axis along which the probabilities add up to 1 |
# | returns | an array of the same shape and dtype |
#
# $$\log p_i = x_i - \operatorname{logsumexp}(x)$$
#
# `[0, 0]` becomes `[-0.693, -0.693]`, the log of one half twice. `[0, 1000]` becomes `[-1000, 0]`: the first probability is
# too small for any float, and its logarithm is a modest number. A logit of `-inf` has the log probability `-inf`, and a row
# of nothing but `-inf`, or with a NaN in it, is NaN.


# %% solution="log_softmax"
def log_softmax(x, axis=-1):
    """log of softmax along axis, finite where softmax underflows."""
    ### BEGIN SOLUTION
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    shifted = wide - wide.max(axis, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))).astype(x.dtype)
    ### END SOLUTION


# %% check="log_softmax" part="values" points=12
check(log_softmax, "log_softmax", part="values")

# %% check="log_softmax" part="numerics" points=5
check(log_softmax, "log_softmax", part="numerics")

# %% check="log_softmax" part="edges" points=3
check(log_softmax, "log_softmax", part="edges")

# %% [markdown] hints="log_softmax"
# <details><summary>Hint 1</summary>
#
# What is the logarithm of a quotient, and what is the logarithm of $e^{x_i}$?
#
# <details><summary>Hint 2</summary>
#
# It is the logit minus the log of the sum of exponentials. Take the maximum out of the slice first, once for both: then the
# sum is at least 1, and its log is safe.
#
# <details><summary>Hint 3</summary>
#
# `shifted = x - x.max(axis, keepdims=True)`, then `shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))`, in `float32`
# or wider and cast at the end.
#
# </details></details></details>

# %% [markdown] after="log_softmax"
# The log of a probability has a far larger range than the probability itself, so it is computed first and never by way of it.
# *Harder:* apply your function to its own output. What happens, and why?

# %% [markdown] ask="one-mistake"
# ## Predict first: one confident mistake
#
# A classifier gives the right class the probability 0.99, in 99 rows out of 100. In the last row it is sure and wrong:
# the right class gets one in a million there. What share of the loss of these 100 rows comes from that one row? Write a
# number between 0 and 1, run the cell, then run the one below it. Right or wrong, a prediction earns its point: what
# counts is that you made it before you looked.

# %% prediction="one-mistake"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 0.93
### END INSTRUCTOR

# %% measure="one-mistake" points=1
p = np.append(np.full(99, 0.99), 1e-6)
surprise = -np.log(p)
compare(prediction, surprise[-1] / surprise.sum())

# %% [markdown] told="one-mistake"
# The 99 good rows cost a hundredth of a nat each, about one nat together, and the wrong one costs nearly 14. A mean of
# logarithms is ruled by the few rows that are most wrong. That is what makes it ask for honest probabilities, and it is
# also why one wrong label, or one infinity, can fill a whole batch's loss.

# %% [markdown] about="cross_entropy"
# ## cross_entropy ★
#
# Average the surprise of the right class, $-\log p$, over the rows that count.
#
# `cross_entropy(logits, target, ignore_index=-100)`
#
# | | |
# |---|---|
# | `logits` | floating-point array (N, K): a row for each example, a column for each class |
# | `target` | integer array (N,): the right class of each row, 0 to K-1, or `ignore_index` |
# | `ignore_index` | rows with this target do not count, neither in the sum nor in the number it is divided by |
# | returns | a float (a Python float or a NumPy scalar), in nats |
#
# For logits `[[0, 0], [0, 0]]` each class has probability one half, and the loss is $\log 2 = 0.693$ whatever the targets.
# For `[[0, log 3]]` the probabilities are 1/4 and 3/4: the loss is 1.386 for target 0 and 0.288 for target 1. When every row
# is ignored there is nothing to average, and the answer is NaN. What stands in an ignored row has no influence, not even a
# NaN.


# %% solution="cross_entropy"
def cross_entropy(logits, target, ignore_index=-100):
    """Mean of -log softmax(logits) at the targets, over the rows whose target is not ignore_index."""
    ### BEGIN SOLUTION
    counts = target != ignore_index
    if not counts.any():
        return float("nan")
    x = logits[counts].astype(np.promote_types(logits.dtype, np.float32))
    x = x - x.max(axis=1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(x)), target[counts]].mean()
    ### END SOLUTION


# %% check="cross_entropy" part="values" points=12
check(cross_entropy, "cross_entropy", part="values")

# %% check="cross_entropy" part="numerics" points=5
check(cross_entropy, "cross_entropy", part="numerics")

# %% check="cross_entropy" part="edges" points=3
check(cross_entropy, "cross_entropy", part="edges")

# %% [markdown] hints="cross_entropy"
# <details><summary>Hint 1</summary>
#
# Which rows count? If you keep only those, of logits and of targets, what is left to write is a loss without `ignore_index`.
#
# <details><summary>Hint 2</summary>
#
# Take the log-softmax of each row, from the logits and along the classes. Then pick one number from each row: that of the
# right class.
#
# <details><summary>Hint 3</summary>
#
# With `kept = target != ignore_index`, it is `-log_p[np.arange(kept.sum()), target[kept]].mean()`, where `log_p` is made of
# `logits[kept]`. Return NaN if `kept.sum()` is 0.
#
# </details></details></details>

# %% [markdown] after="cross_entropy"
# The loss is a length: the nats that a code built from your model's probabilities spends on the right answer. *Harder:* add a
# `label_smoothing` argument that agrees with PyTorch's. What is its lowest value for ten classes and 0.1?

# %% [markdown] ask="padding"
# ## Predict first: the company of padding
#
# The same row of logits, with the same target, stands in two batches of eight rows. In the first batch all eight rows
# count. In the second six of the others are padding, and their targets are `ignore_index`. By what factor is the
# gradient of this row's logits larger in the second batch?

# %% prediction="padding"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 4
### END INSTRUCTOR

# %% measure="padding" points=1
import torch

logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
full = torch.tensor([3, 1, 4, 1, 0, 2, 2, 0])
padded = torch.where(torch.arange(8) < 2, full, -100)
(a,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, full), logits)
(b,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, padded), logits)
compare(prediction, (b[0].norm() / a[0].norm()).item())

# %% [markdown] told="padding"
# The loss is a mean over the rows that count. Two of them are left of eight, so each counts for a half in place of an
# eighth. How hard a row pulls depends on how many others count beside it: a token in a short sentence that stands in a
# batch of its own weighs more than the same token in a full batch. In your code it is one number, the one that you
# divide by.

# %% [markdown] about="cross_entropy_backward"
# ## cross_entropy_backward
#
# Compute the gradient of `cross_entropy` with respect to the logits.
#
# `cross_entropy_backward(logits, target, ignore_index=-100)`
#
# | | |
# |---|---|
# | `logits`, `target`, `ignore_index` | as in `cross_entropy` |
# | returns | an array like `logits` |
#
# One row `[0, 0]` with target 0: the probabilities are 0.5 and 0.5, and the gradient is `[-0.5, 0.5]`. The right logit is to
# go up, the other one down, by as much. With two such rows each gets half of it, because the loss is a mean. A row that is
# ignored gets 0, and when all are ignored everything is 0. A row that counts and holds a NaN gets NaN.


# %% solution="cross_entropy_backward"
def cross_entropy_backward(logits, target, ignore_index=-100):
    """Gradient of cross_entropy(logits, target, ignore_index) with respect to logits."""
    ### BEGIN SOLUTION
    kept = np.flatnonzero(target != ignore_index)
    x = logits.astype(np.promote_types(logits.dtype, np.float32))
    e = np.exp(x[kept] - x[kept].max(axis=1, keepdims=True))
    gradient = e / e.sum(axis=1, keepdims=True)
    gradient[np.arange(len(kept)), target[kept]] -= 1
    dlogits = np.zeros_like(x)
    dlogits[kept] = gradient / max(len(kept), 1)
    return dlogits.astype(logits.dtype)
    ### END SOLUTION


# %% check="cross_entropy_backward" part="values" points=12
check(cross_entropy_backward, "cross_entropy_backward", part="values")

# %% check="cross_entropy_backward" part="numerics" points=5
check(cross_entropy_backward, "cross_entropy_backward", part="numerics")

# %% check="cross_entropy_backward" part="edges" points=3
check(cross_entropy_backward, "cross_entropy_backward", part="edges")

# %% [markdown] hints="cross_entropy_backward"
# <details><summary>Hint 1</summary>
#
# The loss of one row is $\operatorname{logsumexp}(x) - x_t$. What is the derivative of each of the two terms by $x_i$?
#
# <details><summary>Hint 2</summary>
#
# Softmax, and 1 at the right class: $p - y$. Then think of what the mean does to it, and of the rows that do not count.
#
# <details><summary>Hint 3</summary>
#
# Start from the softmax of all rows, then `p[kept, target[kept]] -= 1` with `kept = np.flatnonzero(target != ignore_index)`;
# set the other rows to 0 and divide by `max(len(kept), 1)`.
#
# </details></details></details>

# %% [markdown] after="cross_entropy_backward"
# Every row of the gradient adds up to 0 and no entry is beyond 1/N: a single example, however wrong, cannot pull harder than
# that. *Harder:* what does the gradient become when the target is a row of probabilities?

# %% [markdown] about="softmax_backward"
# ## softmax_backward
#
# Carry a gradient back through softmax.
#
# `softmax_backward(dy, y, axis=-1)`
#
# | | |
# |---|---|
# | `dy` | the gradient of the loss with respect to softmax's output |
# | `y` | softmax's output itself, an array of the same shape and dtype |
# | `axis` | the axis along which `y` adds up to 1 |
# | returns | the gradient of the loss with respect to softmax's input, an array like `dy` |
#
# With `y = [0.5, 0.5]` and `dy = [1, 0]` the answer is `[0.25, -0.25]`. With `dy = [1, 1]`, or any other constant, it is
# `[0, 0]`: the outputs add up to 1 always, so a loss that only looks at their sum has nothing to gain. Take `y` as it is given:
# where `float16` has rounded it, so be it. A NaN in `dy` makes its slice NaN, so that it shows.


# %% solution="softmax_backward"
def softmax_backward(dy, y, axis=-1):
    """Gradient with respect to x, for y = softmax(x) and the gradient dy with respect to y."""
    ### BEGIN SOLUTION
    wide = np.promote_types(dy.dtype, np.float32)
    g, p = dy.astype(wide), y.astype(wide)
    return (p * (g - (p * g).sum(axis, keepdims=True))).astype(dy.dtype)
    ### END SOLUTION


# %% check="softmax_backward" part="values" points=12
check(softmax_backward, "softmax_backward", part="values")

# %% check="softmax_backward" part="numerics" points=5
check(softmax_backward, "softmax_backward", part="numerics")

# %% check="softmax_backward" part="edges" points=3
check(softmax_backward, "softmax_backward", part="edges")

# %% [markdown] hints="softmax_backward"
# <details><summary>Hint 1</summary>
#
# If one logit rises a little, which outputs change, and what does their sum do?
#
# <details><summary>Hint 2</summary>
#
# $\partial y_j / \partial x_i = y_j([i = j] - y_i)$. Multiply by $dy_j$ and add up over $j$: one sum stays the same for all $i$.
#
# <details><summary>Hint 3</summary>
#
# `y * (dy - np.sum(y * dy, axis=axis, keepdims=True))`, in `float32` or wider and cast at the end.
#
# </details></details></details>

# %% [markdown] after="softmax_backward"
# Subtract the weighted mean, multiply by the weights: a projection and a scale, and the K × K matrix is never made.
# *Harder:* put $dy = -y_{\text{target}}/y$ into your function. You have derived `cross_entropy_backward`.

# %% [markdown] explain="cross_entropy"
# ## In your own words
#
# Two teams train classifiers on the same data, with 200 classes. Team A has 85 percent right, and its training loss has
# stood at 4.31 for days. Team B has 84 percent right, and a training loss of 0.6. Team A says: "Our loss is seven times
# theirs, so there is much left to gain. We need a larger network." Answer in one paragraph. What do you suspect, and
# which number do you compute to test it? Why are so many answers right all the same? Would a larger network help, and
# what will happen when the fault is mended?

# %% [markdown] explanation="cross_entropy" points=4
# I suspect a softmax at the end of team A's network, before a loss that applies its own. Then no loss can be below
# log(e + K - 1) - 1. For 200 classes that is log(201.72) - 1 = 4.307, just what they see: by this loss they are at the
# end, and there is nothing left to gain. The answers are right because softmax keeps the order: the largest logit has
# the largest probability, and the second softmax does not change which is largest. A larger network cannot get below
# the floor, since it depends on the number of classes alone. Without the extra softmax the two losses can be compared
# at all. And training gets faster: at the start, where softmax twice divides the gradient by K, about 200 here, and
# wherever the network is sure and wrong.
#
# **Rubric**
#
# - 1 point: suspects softmax applied twice (probabilities given to a loss that takes logits)
# - 1 point: computes the floor for 200 classes, log(e + 199) - 1, about 4.307, and compares
# - 1 point: accuracy does not suffer, because softmax keeps the order of the logits
# - 1 point: a larger network cannot help; taking the layer away makes the gradients larger and the loss comparable
