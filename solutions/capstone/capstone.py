# %% [markdown]
# # Capstone: your own normlab
#
# You have written functions, each in its cell, each checked alone. Here you put them into one file, check the file, build
# something with it, and add one thing of your own.
#
# An afternoon. Nothing here needs all exercises: take those you have. The training task needs four of them: `layer_norm`,
# `layer_norm_backward`, `cross_entropy` and `cross_entropy_backward`.

# %% setup=true
import importlib
import subprocess
import sys

import numpy as np

# %% [markdown]
# ## 1. One file
#
# Collect your functions. `..` is the folder with all your notebooks; save them first.
#
# What is not written yet is left out and named, and so is a cell that Python cannot read. If the program says that two
# notebooks have helpers of one name that differ, rename one of them, save, and collect again. An existing `my_normlab.py` is
# never overwritten unless you add `--force`: it may hold work that stands nowhere else. You may also write the file by hand.


# %%
def run(command):
    words = [sys.executable if word == "python" else word for word in command.split()]
    done = subprocess.run(words, capture_output=True, text=True)
    print(done.stdout + done.stderr)


run("python -m normlab.collect .. -o my_normlab.py")

# %% [markdown]
# ## 2. Every check
#
# Read the table from the top. A function that is wrong spoils those that call it, so mend the first one first. From now on
# `my_normlab.py` is the home of your functions: mend them there, not in the notebooks.

# %%
run("python -m normlab.check --all my_normlab.py")

# %% [markdown] ask="first-loss"
# ## 3. A prediction
#
# Next you will train a network on ten classes of handwritten digits. Say its last weight starts with zeros, and nothing else
# does. What is its loss on the first batch, before any step? Write a number; a tenth off is near enough.

# %% prediction="first-loss"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 2.3
### END INSTRUCTOR

# %% measure="first-loss" points=1
import torch

from normlab.predict import compare

network = torch.nn.Sequential(
    torch.nn.Linear(64, 32), torch.nn.LayerNorm(32), torch.nn.ReLU(), torch.nn.Linear(32, 10, bias=False)
)
torch.nn.init.zeros_(network[3].weight)
loss = torch.nn.functional.cross_entropy(network(torch.randn(64, 64)), torch.randint(10, (64,)))
compare(prediction, loss.item())

# %% [markdown] told="first-loss"
# Zeros make all ten logits 0, whatever stands before them. Softmax makes ten times 1/10 of that, and the loss is log 10 =
# 2.303, for any images and any targets. A network that begins far above it is sure of something before it has seen anything.

# %% [markdown]
# ## 4. Train a network with it
#
# Write `gradients(p, x, target)` for a network of two linear layers with a layer norm and a ReLU between them. Norm, loss and
# their backwards are yours; the linear layers are two lines of `@`. It returns the loss and a dict with the gradient of every
# entry of `p`.
#
# By head: with `W2` all zeros the first loss is the one that you predicted above.
#
# The cell after it holds your gradient of `W1` against central differences of the whole network's loss. Right is below 1e-6.
# Should it be larger, take the parts one by one: the joint is wrong, for your parts have passed.

# %%
my = importlib.import_module("my_normlab")


def gradients(p, x, target):
    """(loss, {name: gradient}) of the network with parameters p: W1 (64, H), weight (H,), bias (H,), W2 (H, 10)."""
    # h = x @ W1, then y = layer norm of h, then a = max(y, 0), then logits = a @ W2, then the loss; and all of it backwards.
    ### BEGIN INSTRUCTOR
    h = x @ p["W1"]
    y = my.layer_norm(h, h.shape[1:], p["weight"], p["bias"])
    a = np.maximum(y, 0)
    logits = a @ p["W2"]
    dlogits = my.cross_entropy_backward(logits, target)
    dy = (dlogits @ p["W2"].T) * (y > 0)
    dh, dweight, dbias = my.layer_norm_backward(dy, h, p["weight"])
    d = {"W1": x.T @ dh, "weight": dweight, "bias": dbias, "W2": a.T @ dlogits}
    return my.cross_entropy(logits, target), d
    ### END INSTRUCTOR
    raise NotImplementedError


# %%
rng = np.random.default_rng(0)
p = {
    "W1": rng.standard_normal((64, 8)) / 8,
    "weight": np.ones(8),
    "bias": np.zeros(8),
    "W2": rng.standard_normal((8, 10)),
}
x, target = rng.random((16, 64)), rng.integers(10, size=16)
loss, d = gradients(p, x, target)
for row, column in ((0, 0), (20, 3), (63, 7)):
    step = np.zeros_like(p["W1"])
    step[row, column] = 1e-6
    up, down = (gradients(p | {"W1": p["W1"] + sign * step}, x, target)[0] for sign in (1, -1))
    slope = (up - down) / 2e-6
    print(f"W1[{row}, {column}]: off by {abs(d['W1'][row, column] - slope) / abs(slope):.0e} of {slope:.2e}")

# %% [markdown]
# Now train: scikit-learn's digits, batches of 64, 400 steps. Then write the same network in PyTorch, start it from the same
# `p`, feed it the same batches, and print the largest difference of the two losses, in `float64`. How large may it be?

# %%
from sklearn.datasets import load_digits

images, labels = load_digits(return_X_y=True)
images = images / 16
# your code here
### BEGIN INSTRUCTOR
twin = {name: torch.tensor(value, requires_grad=True) for name, value in p.items()}
gaps = []
for _ in range(400):
    batch = rng.choice(len(images), 64, replace=False)
    loss, d = gradients(p, images[batch], labels[batch])
    h = torch.tensor(images[batch]) @ twin["W1"]
    y = torch.nn.functional.layer_norm(h, h.shape[1:], twin["weight"], twin["bias"])
    theirs = torch.nn.functional.cross_entropy(y.relu() @ twin["W2"], torch.tensor(labels[batch]))
    slopes = torch.autograd.grad(theirs, list(twin.values()))
    gaps.append(abs(loss - theirs.item()))
    for (name, value), slope in zip(twin.items(), slopes, strict=True):
        p[name] = p[name] - 0.2 * d[name]
        value.data -= 0.2 * slope
print(f"last loss {loss:.3f}, largest difference {max(gaps):.0e}")
### END INSTRUCTOR

# %% [markdown]
# ## 5. One thing of your own
#
# Choose one. They get harder.
#
# 1. **Measure.** Run `python -m normlab.check --all my_normlab.py --bench`. Take the function that is farthest from PyTorch and
#    make it twice as fast, in NumPy. It must still be accepted.
# 2. **Merge.** Three norms of yours are one function and a table of axes. Write that function, and let the three call it. How many
#    lines did the file lose, and did one of the three get slower?
# 3. **Add.** A norm or a softmax that the course does not have: weight standardization, cosine attention, sparsemax, a
#    `group_norm_backward`. Write the function, and before it a check that refuses three wrong versions of it.
# 4. **Replace.** Give the network attention: read each digit as 8 rows of 8 numbers, and let `attention` mix the rows. You
#    will need its backward. Check it as a whole, as above.
# 5. **Half.** Train the network with everything in `float16` but a `float32` copy of the parameters. Find where it first goes
#    wrong, mend it with loss scaling, and show with one number how far it then is from `float32`.

# %%
# your code here

# %% [markdown] explain="capstone"
# ## 6. In your own words
#
# All functions of a file pass every check, and a network made of them learns nothing. Name two different faults that can cause
# this, and for each one measurement that would show it. Say also what that measurement would *not* find. Eight sentences at
# most.

# %% [markdown] explanation="capstone" points=4
# The fault is in what stands between the functions. First: the mean is taken twice, because `cross_entropy_backward` has it
# already, so each gradient is too small by the size of the batch. The gradient of the whole loss by central differences, for a
# few entries of the first weight, shows it: it is off by a factor of 64. Second: softmax stands before cross entropy, which
# wants logits. The gradient check does not find this, as it is the right gradient of the wrong loss. The loss shows it: with
# ten classes it never goes below 1.461. That number in turn does not find the first fault, whose loss goes down, slowly. (Also
# right: a norm over the batch axis, which giving examples one at a time shows; a target shifted by one; a learning rate;
# `float16` gradients that round to 0, which counting zeros shows.)
#
# **Rubric**
#
# - 1 point: two faults that are truly different, and that functions which pass their checks can have: in a joint, not in a part
# - 1 point: for the first, a measurement with a number that right code gives and wrong code does not ("look at the loss" is none)
# - 1 point: the same for the second
# - 1 point: says what at least one of the measurements does not find, and why
