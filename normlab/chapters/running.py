"""Why does eval differ from train? BatchNorm, a module with a memory, and fold_batch_norm.

BatchNorm is judged step by step against torch.nn.BatchNorm1d, 2d and 3d, by scripts (drive/running.py has their words).
"""

import functools
import types

import numpy as np

from normlab import reference
from normlab.cases import LARGE, Case, affine, sizes, uneven, view
from normlab.drive.running import BUFFERS, TAKES, drive, steps, take_through
from normlab.frame import Exercise, mistakes_table

MISTAKES, add = mistakes_table()


# ---- BatchNorm: how it is used ---------------------------------------------------------------------------------------


RETURNS = tuple(
    zip(("output", *BUFFERS, "gradients"), ("array", "numbers", "numbers", "numbers", "numbers"), strict=True)
)


# ---- BatchNorm: the truth, twice -------------------------------------------------------------------------------------


def _inputs(script, arrays):
    return [given[0] for word, _, given in steps(script, arrays) if word in ("train", "eval")]


def _torch_truth(torch, script, arrays, num_features, **options):
    axes = _inputs(script, arrays)[0].ndim
    kind = getattr(torch.nn, f"BatchNorm{min(max(axes, 3), 5) - 2}d")
    module = kind(num_features, **options).double()
    return take_through(torch, module, script, arrays, options)


class _Plain:
    """Batch norm with running statistics in NumPy, in one dtype."""

    def __init__(self, dtype, channels, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        self.eps, self.momentum, self.affine, self.tracks = eps, momentum, affine, track_running_stats
        self.weight, self.bias = np.ones(channels, dtype), np.zeros(channels, dtype)
        self.running = [np.zeros(channels, dtype), np.ones(channels, dtype), 0.0]

    def __call__(self, x, dy, training):
        """The output, and its gradients where there is a dy."""
        if not 2 <= x.ndim <= 5:
            raise ValueError("2 to 5 axes")
        axes, n = (0, *range(2, x.ndim)), x.size // x.shape[1]
        per_channel = (1, -1, *(1,) * (x.ndim - 2))
        gradients = []
        if training or not self.tracks:
            if n == 1:
                raise ValueError("one value per channel")
            y = reference.normalize(x, "batch", self.weight, self.bias, self.eps)
            if dy is not None:
                gradients = reference.normalize_backward(dy, x, "batch", self.weight, self.eps)
            if self.tracks:
                mean, var, count = self.running
                m = x.dtype.type(1 / (count + 1) if self.momentum is None else self.momentum)
                kept = x.var(axes) * x.dtype.type(n / (n - 1))
                self.running = [(1 - m) * mean + m * x.mean(axes), (1 - m) * var + m * kept, count + 1]
        else:
            mean, var, weight, bias = (a.reshape(per_channel) for a in (*self.running[:2], self.weight, self.bias))
            rstd = 1 / np.sqrt(var + x.dtype.type(self.eps))
            x_hat = (x - mean) * rstd
            y = x_hat * weight + bias
            if dy is not None:
                gradients = dy * weight * rstd, (dy * x_hat).sum(axes), dy.sum(axes)
        return y, [g.ravel() for g in (gradients if self.affine else gradients[:1])]


def _to_bfloat16(x):
    """x rounded to bfloat16: the upper half of a float32, to nearest even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    bits = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(x.dtype)


def _numpy_truth(script, arrays, num_features, **options):
    module = _Plain(_inputs(script, arrays)[0].dtype, num_features, **options)
    outputs, gradients, kept = [], [], ([], [], [])
    for word, suffix, given in steps(script, arrays):
        if word in ("train", "eval"):
            y, more = module(given[0], given[1] if suffix == "backward" else None, word == "train")
            outputs.append((_to_bfloat16(y) if suffix == "bfloat16" else y).ravel())
            gradients += more
            for rows, value in zip(kept, module.running if module.tracks else (), strict=False):
                rows.append(value)
        elif word == "affine":
            module.weight, module.bias = given
        elif word == "load":
            module.weight, module.bias = given[:2]
            module.running = [*given[2:4], float(given[4])]
    join = np.concatenate
    return join(outputs), *(np.array(rows) for rows in kept), join(gradients) if gradients else np.zeros(0)


# ---- BatchNorm: cases ------------------------------------------------------------------------------------------------


def _batches(rng, *shapes, scale=1.0, offset=0.0, dtype=np.float32):
    """Batches of the same channels (axis 1): each channel has a place and a width of its own."""
    channels = shapes[0][1]
    place, width = rng.normal(size=channels) * 2, rng.uniform(0.5, 3.0, channels)
    for shape in shapes:
        across = (1, -1, *(1,) * (len(shape) - 2))
        x = uneven(rng, shape) * width.reshape(across) + place.reshape(across)
        yield (x * scale + offset).astype(dtype)


def _case(name, part, kind, expect, script, *shapes, raises=None, far=False, options=None, **how):
    """A case of a script that calls the module with batches of `shapes`; "C" stands for the number of channels, and a
    pair for a range to draw from. The options are the module's; `how` is how _batches draws."""

    def draw(rng):
        c = int(rng.integers(3, 6))

        def size(n):
            return c if n == "C" else int(rng.integers(*n)) if isinstance(n, tuple) else n

        batches = _batches(rng, *(tuple(map(size, shape)) for shape in shapes), **how)
        dtype, arrays = how.get("dtype", np.float32), []
        for step in script.split():
            if step == "affine":
                arrays += affine(rng, c, dtype)
            elif step == "load":
                mean, var = rng.normal(size=c) * 2, rng.uniform(0.5, 3.0, c)
                arrays += [*affine(rng, c, dtype), mean.astype(dtype), var.astype(dtype)]
                arrays += [np.array(int(rng.integers(3, 30)))]
            elif step not in TAKES:
                arrays.append(next(batches))
                if step.endswith("+backward"):
                    arrays.append(uneven(rng, arrays[-1].shape, dtype=dtype))
        return (script, arrays, c), dict(options or {})

    return Case(name, part, kind, draw, expect, raises, far)


def _half_wide(rng):
    c = int(rng.integers(3, 6))
    batches = [rng.choice([-1, 1], (n, c)) * rng.integers(260, 400, (n, c)) for n in (8, 6)]
    return ("train eval", [x.astype(np.float16) for x in batches], c), {}


def _half_far(rng):
    c = int(rng.integers(3, 6))
    batches = [1000 + rng.integers(-3, 4, (n, c, 5)) / 2 for n in (4, 3)]
    return ("train eval", [x.astype(np.float16) for x in batches], c), {"momentum": 1.0}


def _brain(rng):
    """Channels of the form place ± width, so that the output has few enough bits to be exact in bfloat16."""
    c, half = int(rng.integers(3, 6)), int(rng.integers(2, 5))
    signs = np.stack([rng.permutation(np.repeat([-1.0, 1.0], half)) for _ in range(c)], axis=1)
    x = rng.integers(-4, 5, c) + rng.choice([0.5, 1.0, 2.0], c) * signs
    weight, bias = rng.choice([-2.0, -1.0, 0.5, 1.0, 2.0], c), rng.integers(1, 4, c) * 4.0
    return ("affine train+bfloat16", [a.astype(np.float32) for a in (weight, bias, x)], c), {}


def _constant(rng):
    c = int(rng.integers(3, 6))
    x, z = _batches(rng, (6, c), (4, c))
    x[:, 0] = 2.5
    return ("train eval", [x, z], c), {}


def _large(rng):
    c = int(rng.integers(*LARGE))
    return ("affine train eval", [*affine(rng, c, np.float32), *_batches(rng, (91, c), (97, c))], c), {}


def _channels_last(rng):
    c = int(rng.integers(3, 6))
    x = np.moveaxis(uneven(rng, (4, 3, 5, c), dtype=np.float32), -1, 1)
    return ("train eval", [x, np.moveaxis(uneven(rng, (2, 3, 5, c), dtype=np.float32), -1, 1)], c), {}


def _vector(rng):
    c = int(rng.integers(3, 6))
    return ("train", [uneven(rng, (c,), dtype=np.float32)], c), {}


def _module_cases():
    update = "running = (1 - momentum) * running + momentum * batch, the batch's variance being the one over n-1"
    pools = "statistics run over examples and positions, and n counts them all"
    eps = "eps is added to the variance under the root, and to nothing that is kept"
    half = "statistics are computed and kept in float32, and the output has the dtype of the input"
    graph = "gradients flow through the batch's mean and variance, and what is kept holds on to no graph"
    one_value = "one value per channel has no variance: ValueError, as in PyTorch"
    axes = "the input has 2 to 5 axes, and anything else is a ValueError, as in PyTorch"
    table = [((5 + 2 * i, 7 + 2 * i), "C") for i in range(5)]
    volume = (3, "C", 2, 4, 3)
    bare = {"affine": False, "track_running_stats": False}
    return (
        _case(
            "one-batch",
            "values",
            "one batch (N, C) in training",
            "the batch's own statistics normalize it (variance over n), and a tenth of them is kept (variance over n-1)",
            "train",
            *table,
        ),
        _case(
            "new-eval",
            "values",
            "a new module in eval mode",
            "it has kept nothing yet but a mean of 0 and a variance of 1, and normalizes by those",
            "eval",
            *table,
        ),
        _case(
            "three-batches",
            "values",
            "three training batches and one in eval mode",
            update,
            "train train train eval",
            *table,
        ),
        _case(
            "back-and-forth",
            "values",
            "a module that goes from train to eval and back",
            "eval uses the running statistics and leaves them alone",
            "eval train eval eval train",
            *table,
        ),
        _case(
            "own-momentum",
            "values",
            "a module with a momentum of its own",
            update,
            "train train eval",
            *table,
            options={"momentum": 0.3},
        ),
        _case(
            "no-momentum",
            "edges",
            "a module with momentum=0.0",
            "0 is a momentum too, and nothing moves; only None means the plain average",
            "train train eval",
            *table,
            options={"momentum": 0.0},
        ),
        _case(
            "cumulative",
            "values",
            "a module with momentum=None",
            "what is kept is the plain average over all batches so far",
            "train train train train eval",
            *table,
            options={"momentum": None},
        ),
        _case(
            "pairs",
            "values",
            "batches of two",
            "the output uses the biased variance, and running_var gets the one over n-1",
            "train train eval",
            (2, "C"),
            (2, "C"),
            (3, "C"),
        ),
        _case(
            "images",
            "values",
            "batches of images (N, C, H, W)",
            pools,
            "affine train train eval",
            ((2, 4), "C", 6, 7),
            ((4, 6), "C", 7, 6),
            (3, "C", 6, 7),
        ),
        _case(
            "square",
            "values",
            "images whose width equals their number of channels",
            "weight, bias and what is kept belong to axis 1",
            "affine train eval",
            (3, "C", "C", "C"),
            (2, "C", "C", "C"),
        ),
        _case(
            "own-eps",
            "values",
            "a module with an eps of its own",
            eps,
            "train eval",
            *table,
            options={"eps": 0.3},
            scale=0.3,
        ),
        _case("gradients", "values", "gradients in training", graph, "affine train+backward", *table),
        _case(
            "eval-gradients",
            "values",
            "gradients in eval mode, as in a frozen layer",
            "what is kept is constant there, and weight and bias still learn",
            "affine eval+backward",
            *table,
        ),
        _case(
            "second-backward",
            "numerics",
            "training and eval steps with a backward each",
            graph,
            "train+backward eval+backward train+backward eval+backward",
            *table,
        ),
        _case(
            "float64",
            "numerics",
            "a module moved to float64",
            "parameters and running statistics move along",
            "double affine train+backward eval+backward",
            *table,
            dtype=np.float64,
        ),
        _case("image-gradients", "numerics", "gradients of images", graph, "affine train+backward", (3, "C", 6, 7)),
        Case(
            "half-wide", "numerics", "float16 values of a few hundred, whose squares overflow float16", _half_wide, half
        ),
        Case("half-far", "numerics", "float16 values near 1000", _half_far, half, far=True),
        Case("bfloat16", "numerics", "a bfloat16 batch", _brain, half),
        _case(
            "far",
            "numerics",
            "float32 values near 1e4",
            "the deviations from the mean are still exact enough to use",
            "train eval",
            *table,
            options={"momentum": 1.0},
            offset=1e4,
            far=True,
        ),
        _case(
            "small-std",
            "numerics",
            "values whose standard deviation is about 1e-3, where eps counts",
            eps,
            "train",
            *table,
            scale=1e-3,
        ),
        Case(
            "constant",
            "numerics",
            "a channel that is constant",
            _constant,
            "it comes out as the bias, and a variance of 0 is kept",
        ),
        _case(
            "state",
            "edges",
            "a look at what is registered",
            "parameters, buffers and state_dict are named as in torch.nn.BatchNorm1d",
            "state train state",
            *table,
        ),
        _case(
            "load",
            "edges",
            "a state_dict saved by PyTorch's module",
            "it loads, and training goes on from there",
            "load eval train eval state",
            *table,
        ),
        _case(
            "load-cumulative",
            "edges",
            "a loaded state_dict and momentum=None",
            "the average goes on from the number of batches that was saved",
            "load train train",
            *table,
            options={"momentum": None},
        ),
        _case(
            "copy",
            "edges",
            "a copy.deepcopy amid training",
            "the copy goes on where the module was",
            "train copy train+backward copy eval",
            *table,
        ),
        _case(
            "pickle",
            "edges",
            "a round trip through pickle amid training",
            "what comes back goes on where the module was",
            "train pickle train+backward pickle eval state",
            *table,
        ),
        _case(
            "no-affine",
            "edges",
            "a module with affine=False",
            "weight and bias are None, and nothing is scaled or shifted",
            "state train+backward eval",
            *table,
            options={"affine": False},
        ),
        _case(
            "no-tracking",
            "edges",
            "a module with track_running_stats=False",
            "the buffers are None, and nothing is kept",
            "state train train",
            *table,
            options={"track_running_stats": False},
        ),
        _case(
            "no-tracking-eval",
            "edges",
            "a module with track_running_stats=False in eval mode",
            "there too each batch is normalized by its own statistics",
            "eval eval",
            *table,
            options={"track_running_stats": False},
        ),
        _case(
            "neither",
            "edges",
            "a module with affine=False and track_running_stats=False",
            "nothing is registered, and each batch has its own statistics",
            "state train eval",
            *table,
            options=bare,
        ),
        _case(
            "sequences",
            "edges",
            "batches of sequences (N, C, L)",
            pools,
            "affine train train eval",
            (4, "C", 7),
            (2, "C", 6),
            (3, "C", 7),
        ),
        _case("volumes", "edges", "batches of volumes (N, C, D, H, W)", pools, "affine train eval", volume, volume),
        Case("channels-last", "edges", "images stored channels last, seen as (N, C, H, W)", _channels_last, pools),
        Case("large-array", "edges", "larger batches (N, C)", _large, pools),
        _case(
            "no-grad",
            "edges",
            "training and eval steps under torch.no_grad()",
            "the module does the same whether gradients are asked for or not",
            "train+no_grad eval+no_grad train+no_grad eval+no_grad",
            *table,
        ),
        _case(
            "one-example",
            "edges",
            "a single example (1, C) in eval mode",
            "what is kept needs no batch",
            "train eval",
            (7, "C"),
            (1, "C"),
        ),
        _case(
            "one-image",
            "edges",
            "a single image in training",
            "one example with several positions is enough",
            "train eval",
            (1, "C", 6, 7),
            (1, "C", 1, 1),
        ),
        _case(
            "one-value", "edges", "a batch of one (1, C) in training", one_value, "train", (1, "C"), raises=ValueError
        ),
        _case(
            "one-pixel",
            "edges",
            "one example of one position (1, C, 1, 1) in training",
            one_value,
            "train",
            (1, "C", 1, 1),
            raises=ValueError,
        ),
        Case("one-axis", "edges", "a vector (C,), without a batch", _vector, axes, ValueError),
        _case("six-axes", "edges", "an array with six axes", axes, "train", (2, "C", 2, 2, 2, 2), raises=ValueError),
    )


# ---- BatchNorm: known mistakes ---------------------------------------------------------------------------------------

# The switches of a right BatchNorm, all as they should be.
RIGHT = {
    # what is registered
    "affine_as": "parameter",  # "tensor", "leaf", "buffer"; "always" ignores affine=False
    "buffers_as": "buffer",  # "attribute"; "always" ignores track_running_stats=False; "missing" where there are none
    "count_as": "buffer",  # "int", "missing"
    "first_var": 1.0,
    "first_count": 0,
    # the update
    "kept_ddof": 1,
    "kept_as": lambda var, eps: var,
    "factor": lambda momentum, none: momentum,
    "none_means": None,  # "crash"
    "updates_untracked": False,
    "counts": True,
    "detaches_kept": True,
    "in_place": False,
    "adds_up": False,
    # the forward pass
    "wide": True,
    "uses": "batch",  # of training: "running before" its update, "running after"
    "eval_uses": "running",  # "batch"
    "eval_updates": False,  # "before using" what is kept, "after using" it
    "untracked_eval": "batch",  # "running" (None then)
    "ddof": 0,
    "one_pass": False,
    "axes": lambda x: (0, *range(2, x.ndim)),
    "count": lambda x: x.numel() // x.shape[1] if x.ndim > 1 else 1,
    "detached": (),
    "root": lambda var, eps: (var + eps).sqrt(),
    "eps": None,
    "centers": True,
    "affine": lambda y, weight, bias: y * weight + bias,
    "shape": lambda x: (1, -1, *(1,) * (x.ndim - 2)),
    "affine_crashes": False,
    "checks_axes": True,
    "checks_count": "own",  # "training", False
    "mutates": False,  # "quietly" while gradients are off
    "casts_back": True,
}


SWITCHES = []


@functools.cache
def _switched():
    """BatchNorm with switches. The class is made on first need: PyTorch may be missing, and takes seconds."""
    import torch
    from torch import nn

    class Switched(nn.Module):
        def __init__(self, switches, num_features, eps, momentum, affine, tracks):
            super().__init__()
            self.number = switches  # a module that holds functions of this file could not be pickled
            s = SWITCHES[switches]
            self.eps, self.momentum = eps if s.eps is None else s.eps, momentum
            self.tracks = tracks or s.buffers_as == "always"
            for name, value in (("weight", torch.ones(num_features)), ("bias", torch.zeros(num_features))):
                if s.affine_as == "buffer" and affine:
                    self.register_buffer(name, value)
                elif s.affine_as in ("tensor", "leaf") or not (affine or s.affine_as == "always"):
                    setattr(self, name, value.requires_grad_(s.affine_as == "leaf") if affine else None)
                else:
                    setattr(self, name, nn.Parameter(value))
            values = torch.zeros(num_features), torch.full((num_features,), s.first_var), torch.tensor(s.first_count)
            for name, value in zip(BUFFERS, values, strict=True):
                how = s.count_as if name == BUFFERS[-1] and s.buffers_as != "attribute" else s.buffers_as
                if how == "int":
                    setattr(self, name, 0 if self.tracks else None)
                elif how == "attribute":
                    setattr(self, name, value if self.tracks else None)
                elif how != "missing" or (name != BUFFERS[-1] and self.tracks):
                    self.register_buffer(name, value if self.tracks else None)

        def _update(self, mean, var, n):
            s, m = SWITCHES[self.number], self.momentum
            if s.counts and s.count_as != "missing":
                self.num_batches_tracked = self.num_batches_tracked + 1
            if m is None and s.none_means is None:
                m = 1 / float(self.num_batches_tracked)
            elif m is None and s.none_means != "crash":
                m = s.none_means
            m = s.factor(m, self.momentum is None)
            kept = s.kept_as(self._over(var, n, s.kept_ddof), self.eps)
            if s.detaches_kept:
                mean, kept = mean.detach(), kept.detach()
            if s.in_place:
                self.running_mean.mul_(1 - m).add_(m * mean)
                self.running_var.mul_(1 - m).add_(m * kept)
            else:
                stays = 1 if s.adds_up else 1 - m
                self.running_mean = stays * self.running_mean + m * mean
                self.running_var = stays * self.running_var + m * kept

        def forward(self, x):
            s = SWITCHES[self.number]
            if s.checks_axes and not 2 <= x.ndim <= 5:
                raise ValueError("2 to 5 axes")
            if s.mutates and not (s.mutates == "quietly" and torch.is_grad_enabled()):
                x.data.sub_(1)
            wide = x.to(torch.promote_types(x.dtype, torch.float32)) if s.wide else x
            axes, n, shape = s.axes(x), s.count(x), s.shape(x)
            own = self.training or s.eval_uses == "batch" or (not self.tracks and s.untracked_eval == "batch")
            if n == 1 and (own if s.checks_count == "own" else self.training and s.checks_count):
                raise ValueError("one value per channel")
            running = (self.running_mean, self.running_var) if self.tracks or not own else None
            if own or s.eval_updates:
                mean = wide.mean(axes)
                if s.one_pass:
                    var = (wide * wide).mean(axes) - mean * mean
                else:
                    var = ((wide - wide.mean(axes, keepdim=True)) ** 2).mean(axes)
                if (self.tracks or s.updates_untracked) and (self.training or s.eval_updates):
                    self._update(mean, var, n)
            if not own or (s.uses != "batch" and self.tracks):
                fresh = s.uses == "running after" if own else s.eval_updates == "before using"
                mean, var = (self.running_mean, self.running_var) if fresh else running
            else:
                var = self._over(var, n, s.ddof)
            mean = mean.detach() if "mean" in s.detached else mean
            var = var.detach() if "var" in s.detached else var
            y = (wide - mean.reshape(self._axis_1(x))) if s.centers else wide
            y = y / s.root(var.reshape(self._axis_1(x)), self.eps)
            if self.weight is not None or s.affine_crashes:
                y = s.affine(y, self.weight.reshape(shape), self.bias.reshape(shape))
            return y.to(x.dtype) if s.casts_back else y

        @staticmethod
        def _over(var, n, ddof):
            """A biased variance as one over n - ddof."""
            return var if ddof == 0 else var * (n / (n - ddof) if n > ddof else float("nan"))

        @staticmethod
        def _axis_1(x):
            return (1, -1, *(1,) * (x.ndim - 2))

    return Switched


def _wrong(default_eps=1e-5, default_momentum=0.1, **switches):
    """A BatchNorm that is right but for its switches."""

    number = len(SWITCHES)
    SWITCHES.append(types.SimpleNamespace(**RIGHT | switches))

    def wrong(num_features, eps=default_eps, momentum=default_momentum, affine=True, track_running_stats=True):
        return _switched()(number, num_features, eps, momentum, affine, track_running_stats)

    return wrong


def _of(value):
    return lambda momentum, none: value


def _none_alone(change):
    return lambda momentum, none: change(momentum) if none else momentum


add(
    "BatchNorm",
    "biased-running-var",
    "keeps the biased variance in running_var: the forward pass divides by n, and what is kept is over n-1",
    _wrong(kept_ddof=0),
)
add(
    "BatchNorm",
    "unbiased-forward",
    "normalizes with the variance over n-1: the forward pass divides by n, and only running_var takes that one",
    _wrong(ddof=1),
)
add(
    "BatchNorm",
    "swaps-variances",
    "swaps the two variances: the biased one normalizes, and the one over n-1 goes into running_var",
    _wrong(ddof=1, kept_ddof=0),
)
add(
    "BatchNorm",
    "momentum-inverted",
    "gives momentum to the old value, as Keras does: in PyTorch momentum is the weight of the new batch",
    _wrong(factor=lambda m, none: 1 - m),
    _wrong(factor=lambda m, none: m if none else 1 - m),
)
add(
    "BatchNorm",
    "momentum-ignored",
    "has a fixed momentum: use the argument, not a constant",
    *(_wrong(factor=lambda m, none, c=c: m if none else c) for c in (0.1, 0.9, 0.01)),
)
add(
    "BatchNorm",
    "wrong-default-momentum",
    "has another default momentum: in PyTorch it is 0.1",
    *(_wrong(default_momentum=m) for m in (0.9, 0.99, 0.01, 0.05)),
)
add(
    "BatchNorm",
    "momentum-none-ignored",
    "does not average when momentum is None: the new batch then has the weight 1 / num_batches_tracked",
    *(_wrong(none_means=m) for m in (0.1, 0.0, 1.0, 0.9, 0.01, "crash")),
)
add(
    "BatchNorm",
    "average-off-by-one",
    "is off by one in the cumulative average: count the batch first, then give it the weight 1 / count",
    _wrong(factor=_none_alone(lambda m: 1 / (1 / m + 1))),
)
add(
    "BatchNorm",
    "adds-without-forgetting",
    "adds each batch to what is kept and takes nothing away: the old value is weighted by 1 - momentum",
    _wrong(adds_up=True),
)
add(
    "BatchNorm",
    "eval-uses-batch",
    "normalizes by the batch in eval mode: there the running statistics are used, whatever the batch",
    _wrong(eval_uses="batch"),
    _wrong(eval_uses="batch", checks_count="training"),
    _wrong(eval_uses="batch", checks_count=False),
)
add(
    "BatchNorm",
    "no-eval-mode",
    "does the same in eval mode as in training: look at self.training, which train() and eval() set",
    _wrong(eval_uses="batch", eval_updates=True),
    _wrong(eval_uses="batch", eval_updates=True, checks_count=False),
)
add(
    "BatchNorm",
    "eval-updates",
    "updates what is kept in eval mode too: only training looks at the batch",
    _wrong(eval_updates="before using"),
    _wrong(eval_updates="after using"),
    _wrong(eval_updates="after using", checks_count=False),
    _wrong(eval_updates="before using", checks_count=False),
)
add(
    "BatchNorm",
    "train-uses-running",
    "normalizes by the running statistics in training: there the batch's own are used, and the running ones only kept",
    _wrong(uses="running after"),
    _wrong(uses="running before"),
    _wrong(uses="running after", detaches_kept=False),
)
add(
    "BatchNorm",
    "buffers-not-registered",
    "keeps the running statistics as plain attributes: register_buffer saves and moves them with the module",
    _wrong(buffers_as="attribute"),
    _wrong(buffers_as="attribute", in_place=True),
)
add(
    "BatchNorm",
    "weight-not-parameter",
    "has weight and bias that are no parameters: nn.Parameter is what optimizers find and state_dict saves",
    _wrong(affine_as="tensor"),
    _wrong(affine_as="leaf"),
    _wrong(affine_as="buffer"),
)
add(
    "BatchNorm",
    "no-count",
    "has no num_batches_tracked: it is a buffer that counts the training batches",
    _wrong(count_as="missing", none_means="crash"),
    _wrong(count_as="missing", none_means=0.1),
)
add(
    "BatchNorm",
    "count-not-registered",
    "counts the batches in a plain number: num_batches_tracked is a buffer of integers, and is saved with the rest",
    _wrong(count_as="int"),
)
add(
    "BatchNorm",
    "never-counts",
    "does not count: num_batches_tracked grows by 1 with each batch in training",
    _wrong(counts=False),
    _wrong(counts=False, none_means=0.1),
)
add(
    "BatchNorm",
    "no-tracking-in-eval",
    "looks for running statistics where there are none: with track_running_stats=False eval mode uses the batch too",
    _wrong(untracked_eval="running"),
)
add(
    "BatchNorm",
    "no-tracking-crashes",
    "updates running statistics that are None: with track_running_stats=False there is nothing to keep",
    _wrong(updates_untracked=True),
)
add(
    "BatchNorm",
    "tracks-always",
    "keeps running statistics with track_running_stats=False: the three buffers are None then",
    _wrong(buffers_as="always"),
)
add(
    "BatchNorm",
    "keeps-graph",
    "keeps the graph of old batches in the running statistics: update them under torch.no_grad(), or from detached values",
    _wrong(detaches_kept=False),
)
add(
    "BatchNorm",
    "statistics-detached",
    "detaches the batch's statistics in the forward pass: they depend on the input, and gradients flow through them",
    _wrong(detached=("mean", "var")),
    _wrong(detached=("var",)),
    _wrong(detached=("mean",)),
)
add(
    "BatchNorm",
    "no-affine-crashes",
    "does not cope with affine=False: weight and bias are None then, and the output is x_hat itself",
    _wrong(affine_crashes=True),
)
add(
    "BatchNorm",
    "affine-always",
    "makes a weight and a bias with affine=False: both are None then",
    _wrong(affine_as="always"),
)
add(
    "BatchNorm",
    "half-statistics",
    "computes in float16: squares overflow and means lose their digits, so compute in float32 and cast once at the end",
    _wrong(wide=False),
    noisy=True,
)
add(
    "BatchNorm",
    "stays-float32",
    "leaves the output in float32: it gets the dtype of the input at the end",
    _wrong(casts_back=False),
)
add(
    "BatchNorm",
    "eps-outside-root",
    "adds eps outside the root: it belongs to the variance, sqrt(var + eps)",
    _wrong(root=lambda var, eps: var.sqrt() + eps),
)
add(
    "BatchNorm",
    "no-eps",
    "leaves eps out: it is always added to the variance, or a channel without spread becomes 0/0",
    _wrong(eps=0.0),
)
add("BatchNorm", "ignores-eps", "ignores the eps it is given: use the argument, not a constant", _wrong(eps=1e-5))
add(
    "BatchNorm",
    "wrong-default-eps",
    "has another default eps: it is 1e-5",
    *(_wrong(default_eps=e) for e in (1e-3, 1e-6, 1e-8, 1e-12, 1e-4)),
)
add(
    "BatchNorm",
    "no-root",
    "divides by the variance itself: take its square root",
    _wrong(root=lambda var, eps: var + eps),
)
add(
    "BatchNorm",
    "keeps-eps",
    "keeps the variance with eps in it: eps is added when the root is taken, each time anew",
    _wrong(kept_as=lambda var, eps: var + eps),
)
add(
    "BatchNorm",
    "keeps-deviation",
    "keeps the standard deviation in running_var: what is averaged is the variance",
    _wrong(kept_as=lambda var, eps: var.sqrt()),
    _wrong(kept_as=lambda var, eps: (var + eps).sqrt()),
)
add(
    "BatchNorm",
    "starts-at-0",
    "starts with a running_var of 0: a new module has mean 0 and variance 1, and changes nothing in eval mode",
    _wrong(first_var=0.0),
)
add(
    "BatchNorm",
    "counts-examples-alone",
    "takes the number of examples for n: a channel's values are the examples times the positions",
    _wrong(count=lambda x: x.shape[0]),
)
add(
    "BatchNorm",
    "two-ranks-alone",
    "knows tables and images alone: positions may have one axis or three as well, so pool (0, *range(2, x.ndim))",
    _wrong(axes=lambda x: (0, 2, 3) if x.ndim == 4 else (0,)),
)
add(
    "BatchNorm",
    "one-pass-variance",
    "computes the variance as E[x^2] - E[x]^2, which cancels far from zero: subtract the mean first, then square",
    _wrong(one_pass=True),
    noisy=True,
)
add("BatchNorm", "not-centered", "does not subtract the mean: center first, then scale", _wrong(centers=False))
add(
    "BatchNorm",
    "weight-on-last-axis",
    "lines weight and bias up with the last axis: give them the shape (1, C, 1, ...) of the channels (C = W hides this)",
    _wrong(shape=lambda x: (-1,)),
)
add(
    "BatchNorm",
    "scales-bias",
    "multiplies the bias by the weight: scale first, then add the bias",
    _wrong(affine=lambda y, weight, bias: (y + bias) * weight),
)
add(
    "BatchNorm",
    "accepts-one-value",
    "normalizes a single value per channel to the bias: in training that is a ValueError, as in PyTorch",
    _wrong(checks_count=False),
    _wrong(checks_count=False, kept_as=lambda var, eps: var.nan_to_num(0.0)),
)
add(
    "BatchNorm",
    "any-number-of-axes",
    "does not look at the number of axes: 2 to 5 are allowed, and anything else is a ValueError",
    _wrong(checks_axes=False),
)
add(
    "BatchNorm",
    "mutates-input",
    "changes its input: work on a copy",
    _wrong(mutates=True),
    _wrong(mutates="quietly"),
)


# ---- fold_batch_norm -------------------------------------------------------------------------------------------------


def _fold(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    scale = gamma / np.sqrt(running_var + weight.dtype.type(eps))
    shift = -running_mean if bias is None else bias - running_mean
    return weight * scale[:, np.newaxis], shift * scale + beta


def _torch_fold(torch, weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    from torch.nn.utils.fusion import fuse_linear_bn_weights

    return fuse_linear_bn_weights(weight, bias, running_mean, running_var, eps, gamma, beta)


def _fold_cases():
    def layer(rng, out, inside, dtype=np.float64, small=1.0, offset=0.0, bias=True):
        weight = uneven(rng, (out, inside))
        gamma, beta = affine(rng, out)
        mean, var = rng.normal(size=out) * 2 + offset, rng.uniform(0.3, 3.0, out) * small
        vectors = rng.normal(size=out) * 2, mean, var, gamma, beta
        weight, b, *rest = (a.astype(dtype) for a in (weight, *vectors))
        return [weight, b if bias else None, *rest]

    def shaped(out=(3, 6), inside=(6, 9), eps=None, **how):
        def draw(rng):
            o, i = (n if isinstance(n, int) else int(rng.integers(*n)) for n in (out, inside))
            return tuple(layer(rng, o, i, **how)), {} if eps is None else {"eps": eps}

        return draw

    def square(rng):
        n = int(rng.integers(3, 7))
        return tuple(layer(rng, n, n)), {}

    def dead(rng):
        args = layer(rng, *sizes(rng, 2))
        args[3][1] = 0
        return tuple(args), {}

    def cancelling(rng):
        """beta takes back nearly all of (bias - mean) * scale, where both are near 1000."""
        weight, bias, mean, var, gamma, beta = layer(rng, *sizes(rng, 2), offset=1000.0)
        gamma, mean = np.sqrt(var) * rng.choice([-1, 1], gamma.shape), mean.astype(np.float16)
        beta = beta - (bias - mean) * gamma / np.sqrt(var)
        return tuple(a.astype(np.float16) for a in (weight, bias, mean, var, gamma, beta)), {}

    def with_nan(rng):
        # In the variance alone: a product with a diagonal matrix spreads a NaN of the others over all outputs.
        args = layer(rng, *sizes(rng, 2))
        args[3][1] = np.nan
        return tuple(args), {}

    def strided(rng):
        args = layer(rng, 4, 6)
        args[0] = view(rng, (4, 6))
        args[1:] = [np.repeat(a, 2)[::2] for a in args[1:]]
        return tuple(args), {}

    eps = "eps is added to the running variance, under the root"
    half = "the arithmetic is done in float32, and the answer is float16"
    none = "None means a bias of 0, and the folded layer has one all the same"
    return (
        Case("wide", "values", "a layer with more inputs than outputs", shaped()),
        Case("narrow", "values", "a layer with more outputs than inputs", shaped((6, 9), (3, 6))),
        Case("square", "values", "a square weight", square, "each output, a row of the weight, has a scale of its own"),
        Case("no-bias", "values", "a layer without a bias (None)", shaped(bias=False), none),
        Case("own-eps", "values", "a call with an eps of its own", shaped(eps=0.3), eps),
        Case(
            "float32",
            "numerics",
            "a float32 layer",
            shaped(dtype=np.float32),
            "the answer keeps the dtype of the weight",
        ),
        Case("small-var", "numerics", "running variances of about 1e-6, where eps counts", shaped(small=1e-6), eps),
        Case("dead", "numerics", "an output that was constant in training (running variance 0)", dead, eps),
        Case("far", "numerics", "float32 running means near 1e4", shaped(dtype=np.float32, offset=1e4), far=True),
        Case("half", "numerics", "a float16 layer", shaped(dtype=np.float16, small=1e-3), half),
        Case(
            "half-far",
            "numerics",
            "a float16 layer with running means near 1000",
            cancelling,
            half,
            far=True,
        ),
        Case("one-output", "edges", "a layer with one output", shaped(out=1)),
        Case("one-input", "edges", "a layer with one input", shaped(inside=1)),
        Case(
            "no-bias-32", "edges", "a float32 layer without a bias (None)", shaped(bias=False, dtype=np.float32), none
        ),
        Case("strided", "edges", "views with strides, not contiguous in memory", strided),
        Case(
            "nan",
            "edges",
            "a running variance with a NaN in it",
            with_nan,
            "that output's row and bias become NaN, so that the fault shows",
        ),
        Case("large-array", "edges", "a layer with dozens of inputs and outputs", shaped(LARGE, (91, 120))),
    )


def _fold_wrong(
    root=lambda var, eps: 1 / np.sqrt(var + eps),
    rows=lambda scale: scale[:, np.newaxis],
    bias_of=lambda bias, mean, scale, beta: (bias - mean) * scale + beta,
    weight_scale=lambda scale, gamma: scale,
    gammas=lambda gamma: gamma,
    none="zeros",
    wide=True,
    narrow=False,
    fixed_eps=None,
    default_eps=1e-5,
    swapped=False,
    widens=False,
    after=None,
):
    """A right fold but for its switches."""

    def wrong(weight, bias, running_mean, running_var, gamma, beta, eps=default_eps):
        dtype = weight.dtype
        if bias is None and none == "zeros":
            bias = np.zeros_like(running_mean)
        if swapped:
            gamma, beta = beta, gamma
        arithmetic = (
            np.float64 if widens else np.float32 if narrow else np.promote_types(dtype, np.float32) if wide else dtype
        )
        w, b, mean, var, gamma, beta = (
            a if a is None else a.astype(arithmetic) for a in (weight, bias, running_mean, running_var, gamma, beta)
        )
        scale = gammas(gamma) * root(var, np.dtype(arithmetic).type(eps if fixed_eps is None else fixed_eps))
        folded = w * rows(weight_scale(scale, gamma))
        shift = None if b is None and none == "stays none" else bias_of(b, mean, scale, beta)
        if after:
            folded, shift = after(folded), after(shift)
        if widens:
            return folded, shift
        return folded.astype(dtype), shift if shift is None else shift.astype(dtype)

    return wrong


def _fold_in_place(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    folded = _fold(weight, bias, running_mean, running_var, gamma, beta, eps)
    weight[...] = folded[0]
    return folded


for _slug, _sentence, *_wrongs in (
    (
        "scales-columns",
        "scales the columns: an output is a row of the weight, so the scale has the shape (out, 1) (a square weight hides it)",
        _fold_wrong(rows=lambda scale: scale),
    ),
    (
        "drops-old-bias",
        "loses the layer's own bias: it goes through the norm too, (bias - mean) * scale + beta",
        _fold_wrong(bias_of=lambda bias, mean, scale, beta: beta - mean * scale),
    ),
    (
        "bias-not-scaled",
        "adds the layer's bias as it is: it is scaled like all that comes out of the layer, (bias - mean) * scale + beta",
        _fold_wrong(bias_of=lambda bias, mean, scale, beta: bias - mean * scale + beta),
    ),
    (
        "mean-not-scaled",
        "subtracts the running mean as it is: it is subtracted before the scaling, (bias - mean) * scale + beta",
        _fold_wrong(bias_of=lambda bias, mean, scale, beta: bias * scale - mean + beta),
    ),
    (
        "shift-not-scaled",
        "leaves bias - mean unscaled: the norm scales what it has centered, (bias - mean) * scale + beta",
        _fold_wrong(bias_of=lambda bias, mean, scale, beta: bias - mean + beta),
    ),
    (
        "drops-mean",
        "leaves the running mean out of the bias: (bias - mean) * scale + beta",
        _fold_wrong(bias_of=lambda bias, mean, scale, beta: bias * scale + beta),
    ),
    (
        "adds-mean",
        "adds the running mean: the norm subtracts it, (bias - mean) * scale + beta",
        _fold_wrong(bias_of=lambda bias, mean, scale, beta: (bias + mean) * scale + beta),
    ),
    (
        "scales-beta",
        "scales beta: it is added last, (bias - mean) * scale + beta",
        _fold_wrong(bias_of=lambda bias, mean, scale, beta: (bias - mean + beta) * scale),
    ),
    (
        "drops-beta",
        "leaves beta out: (bias - mean) * scale + beta",
        _fold_wrong(bias_of=lambda bias, mean, scale, beta: (bias - mean) * scale),
    ),
    (
        "keeps-old-bias",
        "folds the weight and leaves the bias as it was: the shift of the norm goes into it, (bias - mean) * scale + beta",
        _fold_wrong(bias_of=lambda bias, mean, scale, beta: bias),
    ),
    (
        "drops-gamma",
        "leaves gamma out: the scale is gamma / sqrt(running_var + eps)",
        _fold_wrong(gammas=np.ones_like),
    ),
    (
        "gamma-alone",
        "scales the weight by gamma alone: the scale is gamma / sqrt(running_var + eps), for the weight as for the bias",
        _fold_wrong(weight_scale=lambda scale, gamma: gamma),
    ),
    (
        "swaps-affine",
        "has gamma and beta the wrong way round: gamma scales, beta is added last",
        _fold_wrong(swapped=True),
    ),
    (
        "no-root",
        "divides by the variance itself: take its square root",
        _fold_wrong(root=lambda var, eps: 1 / (var + eps)),
    ),
    (
        "multiplies",
        "multiplies by the root of the variance: the norm divides by it",
        _fold_wrong(root=lambda var, eps: np.sqrt(var + eps)),
    ),
    (
        "variance-for-deviation",
        "takes running_var for a standard deviation: its square root is to be taken",
        _fold_wrong(root=lambda var, eps: 1 / np.sqrt(var * var + eps)),
    ),
    (
        "eps-outside-root",
        "adds eps outside the root: it belongs to the variance, sqrt(running_var + eps)",
        _fold_wrong(root=lambda var, eps: 1 / (np.sqrt(var) + eps)),
    ),
    ("no-eps", "leaves eps out: eval mode adds it too, sqrt(running_var + eps)", _fold_wrong(fixed_eps=0.0)),
    ("ignores-eps", "ignores the eps it is given: use the argument, not a constant", _fold_wrong(fixed_eps=1e-5)),
    (
        "wrong-default-eps",
        "has another default eps: it is 1e-5",
        *(_fold_wrong(default_eps=e) for e in (1e-3, 1e-6, 1e-8, 1e-12, 1e-4)),
    ),
    (
        "none-crashes",
        "does not cope with bias=None: a layer without a bias has a bias of 0",
        _fold_wrong(none="crashes"),
    ),
    (
        "none-stays",
        "gives back None where the layer had no bias: the shift of the norm has to go somewhere",
        _fold_wrong(none="stays none"),
    ),
    (
        "always-float64",
        "returns float64 always: the answer keeps the dtype of the weight",
        _fold_wrong(widens=True),
    ),
    (
        "nan-to-num",
        "replaces NaN by numbers: statistics that hold one are a fault, and it is to show",
        _fold_wrong(after=np.nan_to_num),
        _fold_wrong(root=lambda var, eps: np.nan_to_num(1 / np.sqrt(var + eps))),
    ),
    ("mutates-input", "changes its input: work on a copy", _fold_in_place),
):
    add("fold_batch_norm", _slug, _sentence, *_wrongs)
add(
    "fold_batch_norm",
    "half-arithmetic",
    "computes in float16: differences and roots lose their digits, so compute in float32 and cast once at the end",
    _fold_wrong(wide=False),
    noisy=True,
)
add(
    "fold_batch_norm",
    "float32-arithmetic",
    "computes float64 input in float32: keep the arithmetic as wide as the input",
    _fold_wrong(narrow=True),
    noisy=True,
)


# ---- the exercises ---------------------------------------------------------------------------------------------------


def _signature(num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
    """What BatchNorm is constructed with."""


EXERCISES = (
    Exercise(
        "BatchNorm",
        "running",
        "the module does, step by step, what torch.nn.BatchNorm1d does",
        _signature,
        _torch_truth,
        _numpy_truth,
        _module_cases(),
        core=True,
        returns=RETURNS,
        torch_exercise=True,
        drive=drive,
    ),
    Exercise(
        "fold_batch_norm",
        "running",
        "one layer with the scaled rows weight * scale and the bias (bias - mean) * scale + beta does what the two did",
        _fold,
        _torch_fold,
        _fold,
        _fold_cases(),
        returns=(("weight", "array"), ("bias", "array")),
    ),
)
