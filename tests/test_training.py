"""A small transformer and a small CNN, trained with torch.nn's layers and with ours: the same loss curves.

`python tests/test_training.py` times a training step of both at a larger size.
"""

import math
import time
from statistics import median, quantiles

import numpy as np
import pytest
import torch

from normlab import cases, nn

pytestmark = pytest.mark.usefixtures("one_thread")

# ---- Two models. `layers` is torch.nn or normlab.nn; what normlab has no layer for is torch.nn's in both. ------------


class Block(torch.nn.Module):
    """One encoder block, written by hand: attention and a hidden layer, each behind a norm and beside a shortcut."""

    def __init__(self, layers, width, heads):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_hidden = layers.LayerNorm(width), layers.LayerNorm(width)
        self.softmax = layers.Softmax(-1)
        self.query_key_value, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.hidden = torch.nn.Sequential(
            torch.nn.Linear(width, 4 * width), torch.nn.GELU(), torch.nn.Linear(4 * width, width)
        )

    def forward(self, x):
        n, length, width = x.shape
        split = self.query_key_value(self.norm_attention(x)).reshape(n, length, 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        p = self.softmax(query @ key.mT / math.sqrt(query.shape[-1]))
        x = x + self.out((p @ value).transpose(1, 2).reshape(n, length, width))
        return x + self.hidden(self.norm_hidden(x))


class Transformer(torch.nn.Module):
    def __init__(self, layers, symbols, length, width, heads):
        super().__init__()
        self.symbol = torch.nn.Embedding(symbols, width)
        self.position = torch.nn.Parameter(torch.randn(length, width))
        self.blocks = torch.nn.Sequential(*(Block(layers, width, heads) for _ in range(2)))
        self.norm, self.out = layers.RMSNorm(width), torch.nn.Linear(width, symbols)
        self.loss = layers.CrossEntropyLoss()

    def forward(self, symbols, target):
        logits = self.out(self.norm(self.blocks(self.symbol(symbols) + self.position)))
        return self.loss(logits.transpose(1, 2), target)


class Cnn(torch.nn.Module):
    def __init__(self, layers, width, classes):
        super().__init__()
        # No bias before a norm: its gradient would be 0 but for rounding, and AdamW makes steps of one size from that.
        # GELU, not ReLU: at a kink the least rounding decides which way a gradient goes.
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(3, width, 3, padding=1, bias=False),
            layers.InstanceNorm2d(width, affine=True, track_running_stats=True),
            torch.nn.GELU(),
            torch.nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False),
            layers.GroupNorm(4, width),
            torch.nn.GELU(),
            torch.nn.Conv2d(width, width, 3, padding=1, bias=False),
            layers.BatchNorm2d(width),
            torch.nn.GELU(),
        )
        self.out = torch.nn.Linear(width, classes)
        self.loss = layers.CrossEntropyLoss(label_smoothing=0.1)

    def forward(self, images, target):
        return self.loss(self.out(self.features(images).mean((2, 3))), target)


def transformer(layers, symbols=12, length=8, width=32, heads=4):
    """A model of `layers`; called with symbols and targets, both (N, length), it returns the loss."""
    return Transformer(layers, symbols, length, width, heads)


def cnn(layers, width=16, classes=4):
    """A model of `layers`; called with images (N, 3, H, W) and classes (N,) it returns the loss."""
    return Cnn(layers, width, classes)


# ---- Data with something to learn ------------------------------------------------------------------------------------


def sentences(n=32, symbols=12, length=8):
    """The target at each place is the symbol one place before, in another alphabet."""
    text = torch.randint(0, symbols, (n, length))
    return text, (text.roll(1, 1) * 5 + 3) % symbols


def stripes(n=32, classes=4, size=12):
    """Stripes in noise; the class is their direction."""
    target = torch.randint(0, classes, (n,))
    angle = (target * math.pi / classes)[:, None, None]
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    wave = torch.sin(1.5 * (row * angle.sin() + column * angle.cos()) + torch.rand(n, 1, 1) * 6)
    return wave[:, None] + 0.3 * torch.randn(n, 3, size, size), target


MODELS = {"transformer": (transformer, sentences), "cnn": (cnn, stripes)}


# ---- Loss curves -----------------------------------------------------------------------------------------------------

STEPS = 30


def curve(make, draw, layers, dtype):
    """The loss of each training step, and last the loss in eval: float64 array."""
    torch.manual_seed(0)
    model = make(layers).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for step in range(STEPS + 1):
        model.train(step < STEPS)
        x, target = draw()
        optimizer.zero_grad()
        loss = model(x.to(dtype) if x.is_floating_point() else x, target)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    return np.array(losses)


@pytest.mark.parametrize("name", MODELS)
def test_same_loss_curve(name):
    """Ours in float32 is about as near to PyTorch's float64 curve as PyTorch's own float32 curve.

    How far that one strays says what rounding does to this model in so many steps; the tolerance rule takes 16 times
    that, and four last places. In float64 no wider curve is at hand: the same distance counts, at float64's scale.
    """
    truth, plain = (curve(*MODELS[name], torch.nn, dtype) for dtype in (torch.float64, torch.float32))
    assert truth[-5:].mean() < 0.5 * truth[0]
    allowed = cases.tolerance(truth, plain, np.float32)
    np.testing.assert_allclose(curve(*MODELS[name], nn, torch.float32), truth, rtol=0, atol=allowed)
    allowed *= np.finfo(np.float64).eps / np.finfo(np.float32).eps
    np.testing.assert_allclose(curve(*MODELS[name], nn, torch.float64), truth, rtol=0, atol=allowed)


# ---- Time of a step --------------------------------------------------------------------------------------------------


def trainer(model):
    optimizer = torch.optim.AdamW(model.parameters())

    def step(batch):
        optimizer.zero_grad()
        model(*batch).backward()
        optimizer.step()

    return step


def ratios(make, batch, steps=20):
    """Time of a step with torch.nn's layers over that with ours, for `steps` pairs taken in turns."""
    steppers = [trainer(make(layers)) for layers in (torch.nn, nn)]
    found = []
    for i in range(steps + 3):
        seconds = [0.0, 0.0]
        for which in ((0, 1), (1, 0))[i % 2]:
            start = time.perf_counter()
            steppers[which](batch)
            seconds[which] = time.perf_counter() - start
        found.append(seconds[0] / seconds[1])
    return found[3:]  # the first ones compile and warm up


def main():
    sizes = {"symbols": 1000, "length": 128}
    timed = {
        "transformer": (lambda layers: transformer(layers, **sizes, width=256), sentences(16, **sizes)),
        "cnn": (lambda layers: cnn(layers, width=32), stripes(32, size=64)),
    }
    for name, (make, batch) in timed.items():
        found = ratios(make, batch)
        low, _, high = quantiles(found, n=4)
        print(f"{name}: torch / ours = {median(found):.2f} (half of the pairs in {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
