# %% [markdown]
# # Does it help, and why?
#
# There is nothing here that a check could call right or wrong: you predict, you train some networks, and you write one
# paragraph.

# %% setup=true
import functools

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from normlab.predict import compare

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
x, y = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
x = (x - x.mean(0)) / (x - x.mean(0)).std()


# An eps that does nothing: it is not part of the question. (Take it out when you are done, and see what it does.)
batchnorm = functools.partial(nn.BatchNorm1d, eps=1e-30)
layernorm = functools.partial(nn.LayerNorm, eps=1e-30)
rmsnorm = functools.partial(nn.RMSNorm, eps=1e-30)


def network(norm=batchnorm, depth=10, width=32, scale=1.0):
    torch.manual_seed(0)
    layers, inputs = [], 64
    for _ in range(depth):
        linear = nn.Linear(inputs, width, bias=False)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        linear.weight.data *= scale
        layers += [linear, norm(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(width, 10))


def train(net, rate, hidden_rate, steps=40):
    hidden = [m.weight for m in net if isinstance(m, nn.Linear) and m.bias is None]
    ids = {id(w) for w in hidden}
    rest = [p for p in net.parameters() if id(p) not in ids]
    optimizer = torch.optim.SGD([{"params": hidden, "lr": hidden_rate}, {"params": rest, "lr": rate}])
    order = torch.Generator().manual_seed(0)
    for _ in range(steps):
        index = torch.randint(len(y), (32,), generator=order)
        optimizer.zero_grad()
        F.cross_entropy(net(x[index]), y[index]).backward()
        optimizer.step()
    with torch.no_grad():
        return net(x[:256])


# %% [markdown] ask="rate"
# ## Predict first
#
# The cell above defines a network with ten hidden layers and a norm in each, here batch norm, and how to train it. Two copies
# are made. In the second, all *hidden* weights start four times as large, and everything else is the same. In training mode
# both begin with the same outputs. The first learns well with the learning rate 0.1. Which learning rate must the hidden
# weights of the second have, so that both go the same way? Write a number.

# %% prediction="rate"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 1.6
### END INSTRUCTOR

# %% measure="rate" points=1
first = train(network(), 0.1, 0.1)
tried = [0.1 * 2.0**k for k in range(-4, 6)]
apart = [float((train(network(scale=4.0), 0.1, rate) - first).abs().max()) for rate in tried]
compare(prediction, tried[apart.index(min(apart))])

# %% [markdown] told="rate"
# A norm divides the scale of the weights before it out again, so the loss does not feel it. Weights four times as large get a
# gradient four times as small, and need a step four times as large: the rate has to be 4 x 4 = 16 times as large. What counts
# is the rate over the square of the length of the weights.

# %%
for rate, distance in zip(tried, apart, strict=True):
    print(f"hidden rate {rate:<8g} largest difference of the logits {distance:.5f}")

# %% [markdown]
# ## Try
#
# 1. Put `layernorm` and `rmsnorm` in place of `batchnorm` (`network(norm=...)`). Does the same rate make the copies agree?
# 2. Put `nn.Identity`, which is no norm. Does any rate?
# 3. Give *all* parameters the larger rate. Why do the copies now part?
# 4. Take the eps of `1e-30` out of the first cell, so that the norms have their own. What does eps do to the argument?

# %%
for name, norm in {"layer norm": layernorm, "RMS norm": rmsnorm, "none": nn.Identity}.items():
    first = train(network(norm), 0.01, 0.01)
    second = train(network(norm, scale=4.0), 0.01, 0.16)
    print(f"{name:10} largest difference {(second - first).abs().max():.5f}")

# %% [markdown] explain="training"
# ## In your own words
#
# A colleague writes: "We added batch norm and kept all settings. The loss falls more slowly. So internal covariate shift is
# not a problem in our network, and batch norm does not help us." Answer in one paragraph. Say what can be concluded and what
# cannot, what you would measure next, and keep apart what is theorem, what was measured, and what is an account.

# %% [markdown] explanation="training" points=4
# One rate decides little. A norm changes the effective rate of the weights before it, the rate over their squared length
# (that is a theorem), so the old rate is a choice that was made for another network. In the chapter's grid batch norm lost at
# a rate of 0.01 and won at 0.316. I would search the rate for both, with several seeds, and state batch size and initial
# scale: at batches of 4 batch norm really did hurt. About covariate shift nothing follows, since no shift was measured, and
# speed is no measure of it: batch norm with noise added shifts inputs more than no norm does, and still trains well. That it
# helps by reducing covariate shift is an account, not a theorem.
#
# **Rubric**
#
# - 1 point: one rate is no comparison; proposes several rates, with several seeds
# - 1 point: names scale invariance, or the effective rate, and says that this is a theorem
# - 1 point: no covariate shift was measured, and speed does not show it; noisy batch norm, or the two definitions of shift
# - 1 point: keeps theorem, measurement and account apart, and states a limit: batch size, initial scale, or the data
