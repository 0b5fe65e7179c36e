# %% [markdown]
# # Exercises: why does eval differ from train?
#
# Batch norm has two lives. In training it normalizes by the batch at hand and remembers a little of it; in eval mode it
# normalizes by what it remembers. First you write the layer with its memory, in PyTorch. Then you make it disappear: in eval mode it is
# one straight line a channel, and the layer before it can swallow that.

# %% setup=true
import numpy as np
import torch
from torch import nn

from normlab.check import check
from normlab.predict import compare

# %% [markdown] ask="fresh"
# ## Predict first: a layer that has seen nothing
#
# A new `nn.BatchNorm1d(1)`, with the weight and bias it starts with, is put into eval mode at once. It gets many
# numbers with mean 10 and standard deviation 5. What is the standard deviation of what comes out? Write a number, run
# the cell, then run the one below it. Right or wrong, a prediction earns its point: what counts is that you made it
# before you looked.

# %% prediction="fresh"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 5
### END INSTRUCTOR

# %% measure="fresh" points=1
torch.manual_seed(0)
x = 10 + 5 * torch.randn(100_000, 1)
compare(prediction, nn.BatchNorm1d(1).eval()(x).std().item())

# %% [markdown] told="fresh"
# In eval mode the layer does not look at what it gets. It uses what it has kept, and a new layer has kept a mean of 0
# and a variance of 1: it subtracts 0 and divides by 1, and the numbers come out as they went in. So batch norm in eval
# mode is as good as its memory. The layer that you write next has to bring this start with it.

# %% [markdown] about="BatchNorm"
# ## BatchNorm ★
#
# Write batch norm as a PyTorch module that can take the place of `nn.BatchNorm1d`, `2d` and `3d`.
#
# `BatchNorm(num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True)`
#
# | it has | |
# |---|---|
# | `weight`, `bias` | parameters, (C,), starting at 1 and 0; `None` with `affine=False` |
# | `running_mean`, `running_var` | buffers, (C,), starting at 0 and 1; `None` without tracking |
# | `num_batches_tracked` | buffer, an integer tensor starting at 0; `None` without tracking |
#
# "Without tracking" is `track_running_stats=False`.
#
# | it does | |
# |---|---|
# | in training | normalizes by the batch's mean and *biased* variance (over n), then counts the batch and updates: running = (1 - momentum) · running + momentum · batch, with the variance over *n - 1* in `running_var` |
# | in eval mode | normalizes by the running statistics and changes nothing. Without tracking it uses the batch here too |
# | `momentum=None` | the new batch gets the weight 1 / `num_batches_tracked`: the plain average over all batches so far |
# | input | 2 to 5 axes, the channel is axis 1; n counts examples and positions. Any other number of axes is a `ValueError`. The input stays as it was |
# | one value per channel | is a `ValueError` wherever the batch's own statistics are used |
# | dtypes | `float16` and `bfloat16` are computed in `float32`, and the output has the dtype of the input |
# | gradients | flow through the batch's mean and variance. What is kept holds on to no graph. Under `torch.no_grad()` the module does the same |
# | `state_dict` | has the five names above and no others, so that it can be exchanged with PyTorch's |
#
# One channel, the batch `[[1], [3]]`, a new module in training. The mean is 2, the biased variance 1, so the output is `[[-1], [1]]` (without
# eps). `running_mean` becomes 0.9 · 0 + 0.1 · 2 = 0.2. The variance over n - 1 is 2, so `running_var` becomes 0.9 · 1 + 0.1 · 2 = 1.1.
#
# PyTorch's `mean`, `var`, `sqrt` and so on are allowed, and its norms are not, neither as functions nor as modules to build on. The check takes
# your module through scripts like "train, train, copy.deepcopy, eval" and compares every step with PyTorch's.


# %% solution="BatchNorm"
class BatchNorm(nn.Module):
    """Batch norm over all axes but axis 1, with running statistics."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        super().__init__()
        ### BEGIN SOLUTION
        self.eps, self.momentum, self.track_running_stats = eps, momentum, track_running_stats
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        tracks = track_running_stats
        self.register_buffer("running_mean", torch.zeros(num_features) if tracks else None)
        self.register_buffer("running_var", torch.ones(num_features) if tracks else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if tracks else None)
        ### END SOLUTION

    def forward(self, x):
        """x: (N, C) or (N, C, positions...). Returns a tensor like x."""
        ### BEGIN SOLUTION
        if not 2 <= x.ndim <= 5:
            raise ValueError(f"BatchNorm takes 2 to 5 axes, got an input of shape {tuple(x.shape)}")
        axes, per_channel = (0, *range(2, x.ndim)), (1, -1) + (1,) * (x.ndim - 2)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.training or not self.track_running_stats:
            n = x.numel() // x.shape[1]
            if n == 1:
                raise ValueError(f"BatchNorm needs more than one value per channel, got shape {tuple(x.shape)}")
            mean, var = wide.mean(axes), wide.var(axes, correction=0)
            if self.track_running_stats:
                self._remember(mean.detach(), var.detach() * n / (n - 1))
        else:
            mean, var = self.running_mean, self.running_var
        y = (wide - mean.reshape(per_channel)) / torch.sqrt(var.reshape(per_channel) + self.eps)
        if self.weight is not None:
            y = y * self.weight.reshape(per_channel) + self.bias.reshape(per_channel)
        return y.to(x.dtype)

    def _remember(self, mean, var):
        self.num_batches_tracked += 1
        new = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean += new * (mean - self.running_mean)
        self.running_var += new * (var - self.running_var)
        ### END SOLUTION


# %% check="BatchNorm" part="values" points=12
check(BatchNorm, "BatchNorm", part="values")

# %% check="BatchNorm" part="numerics" points=5
check(BatchNorm, "BatchNorm", part="numerics")

# %% check="BatchNorm" part="edges" points=3
check(BatchNorm, "BatchNorm", part="edges")

# %% [markdown] hints="BatchNorm"
# <details><summary>Hint 1</summary>
#
# Five things live longer than one call. Which of them does an optimizer change, and which are only kept, saved and moved
# along? How does an `nn.Module` tell the two kinds apart?
#
# <details><summary>Hint 2</summary>
#
# `nn.Parameter` for weight and bias, `self.register_buffer(name, tensor_or_None)` for the other three. In `forward`, choose a mean and a
# variance first: the batch's if `self.training` (or if nothing is tracked), else the kept ones. From there on both lives are the same
# line. What goes into the buffers goes there detached.
#
# <details><summary>Hint 3</summary>
#
# `var = wide.var(axes, correction=0)` normalizes; `var.detach() * n / (n - 1)` is kept, with `n = x.numel() // x.shape[1]`. Count first:
# `self.num_batches_tracked += 1`. Then `new = self.momentum`, or one over the count if that is `None`, and
# `self.running_var = (1 - new) * self.running_var + new * kept`.
#
# </details></details></details>

# %% [markdown] after="BatchNorm"
# A layer whose output depends on how often it was called, and in which mode: no other layer of this course has a memory. Every surprise
# of batch norm at test time is one of your lines. *Harder:* write a subclass that stays frozen: `model.train()` on the whole network must
# not wake it up.

# %% [markdown] ask="dead"
# ## Predict first: a dead channel
#
# A linear layer is followed by a batch norm with weights of 1, eps 1e-5 and the usual bias. In all of training one of
# its channels put out the same number for every example, so that its running variance has gone down to 0. The norm is
# now folded into the layer. By what factor is the row of this channel multiplied?

# %% prediction="dead"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 316
### END INSTRUCTOR

# %% measure="dead" points=1
norm = nn.BatchNorm1d(1).eval()
norm.running_var.zero_()
with torch.no_grad():
    step = norm(torch.tensor([[0.0], [1.0]]))  # the slope of the line that eval mode draws
compare(prediction, (step[1] - step[0]).item())

# %% [markdown] told="dead"
# With a variance of 0 only eps is left under the root, and one over the root of 1e-5 is about 316. While the channel
# stays dead nobody sees it: the mean takes the constant out. But the first input that wakes it is blown up 316 times,
# and whoever stores folded weights in few bits finds one row that is hundreds of times as large as the others. It is
# eps that decides here, so the folded layer needs the eps of the norm that it replaces.

# %% [markdown] about="fold_batch_norm"
# ## fold_batch_norm
#
# Merge a linear layer and the batch norm in eval mode that follows it into one linear layer.
#
# `fold_batch_norm(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5)`
#
# | | |
# |---|---|
# | `weight` | floating-point array (out, in): the layer computes $W x + b$ |
# | `bias` | array (out,), or `None` for a layer without a bias, which is common before batch norm |
# | `running_mean`, `running_var` | arrays (out,): what the norm has kept |
# | `gamma`, `beta` | arrays (out,): the norm's weight and bias |
# | `eps` | added to the variance, under the root |
# | returns | a tuple (weight, bias) of the shapes (out, in) and (out,), in the dtype of `weight`. There is always a bias |
#
# `float16` is computed in `float32`, and the arguments stay as they were. A NaN in the statistics shows: the row and the bias
# of that output become NaN.
#
# One input, one output: weight `[[3]]`, bias `[1]`, running mean 2, running variance 4, gamma 6, beta 5, eps 0. The scale is 6 / 2 = 3, so
# the new weight is `[[9]]` and the new bias (1 - 2) · 3 + 5 = 2. Try $x = 1$: the old way gives 4, then (4 - 2) / 2 · 6 + 5 = 11, and the new
# layer gives 9 + 2.


# %% solution="fold_batch_norm"
def fold_batch_norm(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    """(weight, bias) of the one linear layer that does what linear layer and eval batch norm do."""
    ### BEGIN SOLUTION
    wide = np.promote_types(weight.dtype, np.float32)
    scale = gamma.astype(wide) / np.sqrt(running_var.astype(wide) + eps)
    centered = -running_mean.astype(wide) if bias is None else bias.astype(wide) - running_mean
    return (weight * scale[:, np.newaxis]).astype(weight.dtype), (centered * scale + beta).astype(weight.dtype)
    ### END SOLUTION


# %% check="fold_batch_norm" part="values" points=12
check(fold_batch_norm, "fold_batch_norm", part="values")

# %% check="fold_batch_norm" part="numerics" points=5
check(fold_batch_norm, "fold_batch_norm", part="numerics")

# %% check="fold_batch_norm" part="edges" points=3
check(fold_batch_norm, "fold_batch_norm", part="edges")

# %% [markdown] hints="fold_batch_norm"
# <details><summary>Hint 1</summary>
#
# Write out what one output neuron computes, through both layers. What stands before $x$, and what stands alone?
#
# <details><summary>Hint 2</summary>
#
# With `scale = gamma / sqrt(running_var + eps)`, the neuron gives $(w \cdot x + b - \text{mean}) \cdot \text{scale} + \beta$. So $w$ and
# $b - \text{mean}$ are both multiplied by the scale.
#
# <details><summary>Hint 3</summary>
#
# A neuron is a *row* of the weight: `weight * scale[:, np.newaxis]`, and `(bias - running_mean) * scale + beta`, with a bias of 0 where it is
# `None`.
#
# </details></details></details>

# %% [markdown] after="fold_batch_norm"
# At test time batch norm costs nothing: it is gone. *Harder:* do the same for a convolution's weight, (out, in, height, width). Then try the
# other order, batch norm first and a linear layer after it.

# %% [markdown] explain="running"
# ## In your own words
#
# A colleague has trained a network of linear layers, each followed by batch norm, on ten classes. He tries it on 500
# shuffled test examples in one batch: 94 percent right. In use, examples come one at a time, and the program stops:
# "Expected more than 1 value per channel when training". So he sends 16 copies of the one example. No error now, but
# the answer is the same class every time, whatever the example. He adds `torch.no_grad()`, and nothing changes. Then he
# saves the network. Answer him in one paragraph. What did the layer do with the 16 copies? What about the 94 percent,
# and `no_grad`? What is he to do, and is the file that he saved still good?

# %% [markdown] explanation="running" points=4
# Your network was never switched to eval mode: the error message says "when training". In training mode each layer
# takes mean and variance from the batch that it gets. In a batch of 16 copies every channel is constant, so the mean is
# the example itself, the deviations are all 0, and what is left after the first norm is its bias. That is the same for
# every example, so the network gives one and the same answer. The 94 percent were measured in training mode as well:
# each example was judged by a mean and a variance that 499 others helped to make, in a well-mixed batch, so this is not
# the number of the network in use. `no_grad` stops gradients, and the running statistics are not moved by gradients:
# each call in training mode has moved them, and the copies pulled the running variances of the first norm to 0. So the
# file is spoiled. Take the one from before these calls (or forward some training batches to rebuild the statistics),
# call `model.eval()`, and measure again, one example at a time.
#
# **Rubric**
#
# - 1 point: training mode: the batch's own statistics, which for copies leave nothing but the bias
# - 1 point: the 94 percent depend on the company of a large, mixed batch and are not what eval mode gives
# - 1 point: no_grad does not stop the running statistics, so the copies have changed what was saved
# - 1 point: says what to do: eval mode, and the older file or rebuilt statistics
