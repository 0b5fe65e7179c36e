"""The experiment of the chapter `training`: deep networks on small pictures of digits, with and without norms.

    python book/training_experiment.py

trains some 2,700 networks, in a quarter of an hour on two cores, and writes `book/training_results.json`.
The page reads that file, and a test trains a few of the networks again and compares.

Networks that differ in initial scale, learning rate and seed alone are trained side by side: their weights are stacked
along a first axis of R runs, and one batched product does a layer of all of them. No run sees another one.
"""

import argparse
import copy
import functools
import hashlib
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
import sklearn
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

RESULTS = Path(__file__).with_name("training_results.json")

NORMS = ("none", "batch", "layer", "group", "rms")
BATCH_SIZES = (4, 32, 256)
# Standard deviations of the first hidden weights, in units of He's sqrt(2 / inputs). That of nn.Linear's default,
# sqrt(1 / (3 inputs)), is the first.
DEFAULT_SCALE = round(math.sqrt(1 / 6), 3)
SCALES = (DEFAULT_SCALE, 1.0, 3.16)
RATES = tuple(float(f"{10 ** (k / 2):.3g}") for k in range(-6, 3))  # 0.001, 0.00316, ... 10
SEEDS = (0, 1, 2, 3, 4)

WIDTH, CLASSES, GROUPS, EPS = 32, 10, 4, 1e-5
TRAINING, TEST = 1280, 512  # a multiple of every batch size: all runs see every image equally often
PASSES = 10


@dataclass(frozen=True)
class Spec:
    """What the networks of one stack have in common.

    place: "before" and "after" the ReLU of a plain network; "pre" and "post" in a residual one, where a norm stands on
    the branch or behind the sum. Without a norm "before" is plain and "pre" is residual. noise: the `level` of `noise`.
    """

    norm: str
    batch_size: int
    place: str = "before"
    depth: int = 10
    noise: float = 0.0


GRID = tuple(Spec(norm, size) for size in BATCH_SIZES for norm in NORMS)
PLACES = tuple(
    Spec(norm, 32, place, depth=20)
    for norm in ("none", "batch", "layer")
    for place in ("before", "after", "pre", "post")
    if norm != "none" or place in ("before", "pre")
)
NOISY = tuple(Spec("batch", 32, noise=level) for level in (0.1, 0.3, 1.0))
PAIRS = tuple(Spec(norm, 2) for norm in ("none", "batch", "layer"))
# What is trained: a stack, and the initial scales in it. Each with all RATES and SEEDS.
PLAN = tuple((spec, SCALES) for spec in GRID) + tuple((spec, (1.0,)) for spec in (*PLACES, *NOISY, *PAIRS))

# Networks that are looked at while they train: at one rate at which all learn, and at a rate that suits them.
WATCHED = tuple((spec, 0.0316) for spec in (Spec("none", 32), Spec("batch", 32), NOISY[1], Spec("layer", 32)))
WATCHED += ((Spec("batch", 32), 0.316), (NOISY[1], 0.316), (Spec("layer", 32), 0.1))
WATCHED_EVERY, WATCHED_LAYERS = 20, (3, 6, 9)  # steps; hidden layers, counted from 0
STEPS_ALONG = (0.5, 1.0, 2.0, 4.0)  # in units of the learning rate

# The first column is a place in the table "specs".
RUN_COLUMNS = ("spec", "scale", "rate", "seed", "accuracy", "accuracy_batch", "loss")
LAYER_COLUMNS = ("spec", "rate", "seed", "step", "layer", "shift", "gradient_change", "gradient_cosine")
LINE_COLUMNS = ("spec", "rate", "seed", "step", "loss", "loss_range", "gradient_change")


@functools.cache
def digits():
    """Images and labels, (x, y, test_x, test_y): one split for all runs, with equal shares of every class.

    x is float64 of shape (1280, 64), with each pixel's mean taken out and one common standard deviation, both of the
    training images; y is int64 of shape (1280,). Five of the 1797 images are left out.
    """
    x, y = load_digits(return_X_y=True)
    x, test_x, y, test_y = train_test_split(x, y, train_size=TRAINING, test_size=TEST, stratify=y, random_state=0)
    mean = x.mean(0)
    std = (x - mean).std()
    return tuple(torch.from_numpy(a) for a in ((x - mean) / std, y, (test_x - mean) / std, test_y))


class Stack:
    """R = scales x rates x seeds networks with weights (R, in, out); runs of one scale and rate stand together.

    Seed s draws the same standard normal numbers for every scale, rate and norm. The last layer has He's scale halved
    in all of them (variance 1 / inputs), and no norm; hidden layers have no bias of their own but the norm's.
    """

    def __init__(self, spec, scales, rates, seeds):
        self.spec, self.shape = spec, (len(scales), len(rates), len(seeds))
        self.seeds = seeds
        self.runs = math.prod(self.shape)
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]

        def drawn(fan_in, fan_out, std):
            w = torch.stack([torch.randn(fan_in, fan_out, generator=g, dtype=torch.float64) for g in draws])
            return (std.view(-1, 1, 1, 1, 1) * w).expand(*self.shape, fan_in, fan_out).reshape(-1, fan_in, fan_out)

        fans = [64] + [WIDTH] * (spec.depth - 1)
        scale = torch.tensor(scales, dtype=torch.float64)
        self.hidden = [drawn(n, WIDTH, scale * math.sqrt(2 / n)).clone() for n in fans]
        self.last = drawn(WIDTH, CLASSES, torch.full((len(scales),), math.sqrt(1 / WIDTH))).clone()
        self.last_bias = self.last.new_zeros(self.runs, 1, CLASSES)
        self.shift = [w.new_zeros(self.runs, 1, WIDTH) for w in self.hidden]
        self.gain = [w.new_ones(self.runs, 1, WIDTH) for w in self.hidden] if spec.norm != "none" else []
        self.running = [(w.new_zeros(self.runs * WIDTH), w.new_ones(self.runs * WIDTH)) for w in self.hidden]
        self.parameters = [*self.hidden, *self.gain, *self.shift, self.last, self.last_bias]
        for p in self.parameters:
            p.requires_grad_()
        rate = torch.tensor(rates, dtype=torch.float64).view(1, -1, 1)
        self.rate = rate.expand(self.shape).reshape(-1, 1, 1)

    def up_to(self, layer):
        """Places in `parameters` of what stands before hidden layer `layer`, counted from 0."""
        depth = self.spec.depth
        kinds = len(self.parameters[:-2]) // depth
        return [kind * depth + i for kind in range(kinds) for i in range(layer)]

    def normalize(self, z, layer, train, step):
        """The norm of `layer` with its gain and shift, on z of shape (R, N, WIDTH)."""
        runs, n, width = z.shape
        norm = self.spec.norm
        if norm == "batch":
            # torch's layer takes (N, channels): every unit of every run is a channel of its own.
            flat = z.transpose(0, 1).reshape(n, runs * width)
            z = F.batch_norm(flat, *self.running[layer], training=train, eps=EPS).view(n, runs, width).transpose(0, 1)
        elif norm == "layer":
            z = F.layer_norm(z, (width,), eps=EPS)
        elif norm == "group":
            z = F.group_norm(z.reshape(runs * n, width), GROUPS, eps=EPS).view(z.shape)
        elif norm == "rms":
            z = F.rms_norm(z, (width,), eps=EPS)
        if self.spec.noise and train:
            z = z + noise(self.spec.noise, self.seeds, step, layer, n).expand(*self.shape, n, width).reshape(z.shape)
        return torch.addcmul(self.shift[layer], z, self.gain[layer]) if self.gain else z + self.shift[layer]

    def forward(self, x, train=False, step=0, parameters=None, look=None):
        """Logits (R, N, 10) of x (R, N, 64). `look(layer, h)` sees what goes into each hidden layer.

        `parameters` stands in for the stack's own. Running statistics move when `train` is True.
        """
        if parameters is not None:
            other = copy.copy(self)
            depth = self.spec.depth
            other.hidden, rest = parameters[:depth], parameters[depth:-2]
            other.gain, other.shift = (rest[:depth], rest[depth:]) if self.gain else ([], rest)
            other.last, other.last_bias = parameters[-2:]
            other.running = [tuple(s.clone() for s in pair) for pair in self.running]  # a trial leaves no trace
            return other.forward(x, train, step, look=look)
        h, place = x, self.spec.place
        for layer, w in enumerate(self.hidden):
            if look:
                look(layer, h)
            norm = functools.partial(self.normalize, layer=layer, train=train, step=step)
            if place == "after":
                h = norm(torch.bmm(h, w).relu())
            elif place == "before" or layer == 0:
                h = norm(torch.bmm(h, w)).relu()
            elif self.spec.norm == "none":  # the shift is the bias of the branch
                h = h + norm(torch.bmm(h, w)).relu()
            elif place == "pre":
                h = h + torch.bmm(norm(h), w).relu()
            else:
                h = norm(h + torch.bmm(h, w).relu())
        return torch.baddbmm(self.last_bias, h, self.last)

    def gradients(self, x, y, step, parameters=None, look=None):
        """Mean losses (R,) of a batch, and gradients of each with respect to its run's parameters."""
        parameters = parameters or self.parameters
        own = parameters is self.parameters
        logits = self.forward(x, True, step, None if own else parameters, look)
        losses = cross_entropy(logits, y).mean(1)
        return losses.detach(), torch.autograd.grad(losses.sum(), parameters)

    def moved(self, gradients, times=1.0):
        """The parameters after a step of gradient descent with `times` the learning rate, as new tensors."""
        with torch.no_grad():
            pairs = zip(self.parameters, gradients, strict=True)
            return [(p - times * self.rate * g).requires_grad_() for p, g in pairs]

    @torch.no_grad()
    def descend(self, gradients):
        for p, g in zip(self.parameters, gradients, strict=True):
            p -= self.rate * g


def cross_entropy(logits, y):
    """Losses (R, N) of logits (R, N, 10), in nats."""
    return F.cross_entropy(logits.reshape(-1, CLASSES), y.reshape(-1), reduction="none").view(logits.shape[:2])


def noise(level, seeds, step, layer, n):
    """Noise behind a batch norm, (seeds, n, WIDTH): it moves every unit's mean and variance, anew in every step.

    A unit draws a mean from U(-1, 1) and a standard deviation from U(0, 1), then each example its own value; all
    times `level`. It is a function of seed, step and layer, so that a step can be repeated.
    """
    draws = []
    for seed in seeds:
        g = torch.Generator().manual_seed(1_000_000 * (seed + 1) + 100 * step + layer)
        mean = torch.rand(WIDTH, generator=g, dtype=torch.float64) * 2 - 1
        std = torch.rand(WIDTH, generator=g, dtype=torch.float64)
        draws.append(mean + std * torch.randn(n, WIDTH, generator=g, dtype=torch.float64))
    return level * torch.stack(draws)


def batches(stack, passes):
    """Yield (step, x, y) with x (R, N, 64): a seed's order of the images is the same for every network."""
    x, y, _, _ = digits()
    size, step = stack.spec.batch_size, 0
    orders = [torch.Generator().manual_seed(10_000 + seed) for seed in stack.seeds]
    for _ in range(passes):
        order = torch.stack([torch.randperm(len(y), generator=g) for g in orders])
        for index in order.split(size, dim=1):
            yield (
                step,
                x[index].expand(*stack.shape, size, 64).reshape(-1, size, 64),
                y[index].expand(*stack.shape, size).reshape(-1, size),
            )
            step += 1


def train(spec, scales=SCALES, rates=RATES, seeds=SEEDS, passes=PASSES):
    """Train a stack by plain gradient descent and return it."""
    stack = Stack(spec, scales, rates, seeds)
    for step, x, y in batches(stack, passes):
        stack.descend(stack.gradients(x, y, step)[1])
    return stack


@torch.no_grad()
def judge(stack):
    """Arrays of the stack's shape: accuracy and accuracy_batch on the test images, loss on the training images.

    Accuracy and loss are of the network as it would be used (eval mode). accuracy_batch is in training mode, in
    batches of the size that the network was trained with; NaN unless the norm is batch norm. All three are NaN for a
    network whose numbers overflowed.
    """
    x, y, test_x, test_y = digits()

    def everywhere(a):
        return a.expand(stack.runs, *a.shape)

    def right(logits):
        return (logits.argmax(-1) == test_y).double().mean(1)

    logits = stack.forward(everywhere(test_x))
    losses = cross_entropy(stack.forward(everywhere(x)), everywhere(y)).mean(1)
    found = {"accuracy": right(logits), "accuracy_batch": torch.full((stack.runs,), math.nan), "loss": losses}
    finite = losses.isfinite() & logits.isfinite().all(-1).all(-1)
    if stack.spec.norm == "batch":
        kept = [[s.clone() for s in pair] for pair in stack.running]
        parts = [stack.forward(everywhere(part), True) for part in test_x.split(stack.spec.batch_size)]
        found["accuracy_batch"] = right(torch.cat(parts, 1))
        stack.running = kept
    for value in found.values():  # the largest of NaN logits would be an answer of its own
        value[~finite] = math.nan
    return {name: value.view(stack.shape).numpy() for name, value in found.items()}


def number(value, digits):
    """A float with so many digits, None for NaN and infinities: what a line of the results holds."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def rows_of(spec, scales=SCALES, rates=RATES, seeds=SEEDS):
    """Train a stack; one row of RUN_COLUMNS, but the first, for each of its networks."""
    found = judge(train(spec, scales, rates, seeds))
    places = np.ndindex(len(scales), len(rates), len(seeds))
    return [
        [scales[i], rates[j], seeds[k], *(number(float(found[name][i, j, k]), 6) for name in RUN_COLUMNS[-3:])]
        for i, j, k in places
    ]


def together(tensors):
    """Tensors (R, ...) as one matrix (R, numbers)."""
    return torch.cat([t.flatten(1) for t in tensors], 1)


def watch(spec, rate, seeds=SEEDS, passes=PASSES):
    """Train networks and look at them every few steps: rows of LAYER_COLUMNS and of LINE_COLUMNS, less the first.

    For a hidden layer: `shift`, how far one step moves the mean of what comes in, in standard deviations, averaged
    over the units; `gradient_change` and `gradient_cosine`, between the gradient of the layer's weights and what it
    is once the layers before it have made their step, same batch (the change is relative to the gradient). For the
    network: the range of the loss along the step, and the largest relative change of the whole gradient there.
    """
    x_all = digits()[0]
    stack = Stack(spec, (1.0,), (rate,), seeds)
    probe = x_all[:256].expand(stack.runs, -1, -1)
    by_layer, along = [], []
    norm = torch.linalg.vector_norm

    def seen(parameters, step):
        inputs = {}
        with torch.no_grad():
            stack.forward(probe, True, step, parameters, look=lambda layer, h: inputs.update({layer: h}))
        return inputs

    for step, x, y in batches(stack, passes):
        losses, gradients = stack.gradients(x, y, step)
        if step % WATCHED_EVERY == 0:
            after = stack.moved(gradients)
            before_step, after_step = seen(list(stack.parameters), step), seen(after, step + 1)
            for layer in WATCHED_LAYERS:
                std = before_step[layer].std(1)
                alive = std > 1e-6
                moved = (after_step[layer].mean(1) - before_step[layer].mean(1)).abs() / std.clamp(min=1e-6)
                shift = (moved * alive).sum(1) / alive.sum(1)
                mixed, first = list(stack.parameters), set(stack.up_to(layer))
                mixed = [after[i] if i in first else p for i, p in enumerate(mixed)]
                then = stack.gradients(x, y, step, mixed)[1][layer].flatten(1)
                now = gradients[layer].flatten(1)
                change = norm(then - now, dim=1) / norm(now, dim=1)
                cosine = F.cosine_similarity(then, now, dim=1)
                for i, seed in enumerate(seeds):
                    by_layer.append(
                        [rate, seed, step, layer, *(number(v[i].item(), 4) for v in (shift, change, cosine))]
                    )
            values, changes = [losses], []
            now = together(gradients)
            for times in STEPS_ALONG:
                there, then = stack.gradients(x, y, step, stack.moved(gradients, times))
                values.append(there)
                changes.append(norm(together(then) - now, dim=1) / norm(now, dim=1))
            values = torch.stack(values)
            spread, change = values.amax(0) - values.amin(0), torch.stack(changes).amax(0)
            for i, seed in enumerate(seeds):
                along.append([rate, seed, step, *(number(v[i].item(), 4) for v in (losses, spread, change))])
        stack.descend(gradients)
    return by_layer, along


def script_hash():
    """SHA-256 of this file's text; line ends do not count."""
    return hashlib.sha256(Path(__file__).read_text(encoding="utf-8").encode()).hexdigest()


def reproducible():
    """One thread, and no operation whose result may change from run to run."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def write(made, tables, path=RESULTS):
    """Write the results as JSON, one row a line. `tables` is {name: (columns, rows)}."""
    parts = [f'"made": {json.dumps(made, indent=1)}']
    for name, (columns, rows) in tables.items():
        lines = ",\n".join(map(json.dumps, rows))
        parts.append(f'"{name}": {{"columns": {json.dumps(columns)},\n"rows": [\n{lines}\n]}}')
    path.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


def read(path=RESULTS):
    """(made, {name: list of dicts}) of a file that `write` wrote; every row has its spec's fields in it."""
    found = json.loads(path.read_text(encoding="utf-8"))
    made = found.pop("made")
    tables = {name: [dict(zip(t["columns"], r, strict=True)) for r in t["rows"]] for name, t in found.items()}
    specs = tables.pop("specs")
    return made, {name: [specs[row.pop("spec")] | row for row in rows] for name, rows in tables.items()}


def _timed(task, *arguments):
    start = time.process_time()
    return task(*arguments), time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description="Train the networks of the chapter and write the results.")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each (2)")
    jobs = parser.parse_args().jobs
    start, seconds, found = time.perf_counter(), 0.0, {}
    tasks = [(rows_of, spec, scales) for spec, scales in PLAN] + [(watch, spec, rate) for spec, rate in WATCHED]
    tasks.sort(key=lambda task: task[1].batch_size)  # the longest first: small batches make many steps
    with ProcessPoolExecutor(jobs, initializer=reproducible) as pool:
        waiting = {pool.submit(_timed, *task): task for task in tasks}
        for done, future in enumerate(as_completed(waiting), start=1):
            task = waiting[future]
            found[task], took = future.result()
            seconds += took
            words = " ".join(f"{k}={v}" for k, v in asdict(task[1]).items())
            print(f"{done:3} of {len(waiting)}  {time.perf_counter() - start:5.0f} s  {words}", flush=True)
    specs = [spec for spec, _ in PLAN]
    of = {spec: i for i, spec in enumerate(specs)}
    watched = [(of[spec], found[watch, spec, rate]) for spec, rate in WATCHED]
    made = {
        "script": Path(__file__).name,
        "sha256": script_hash(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "date": date.today().isoformat(),
        "core_seconds": round(seconds),
    }
    tables = {
        "specs": (tuple(asdict(specs[0])), [list(asdict(spec).values()) for spec in specs]),
        "runs": (RUN_COLUMNS, [[of[s], *row] for s, scales in PLAN for row in found[rows_of, s, scales]]),
        "layers": (LAYER_COLUMNS, [[i, *row] for i, (by_layer, _) in watched for row in by_layer]),
        "lines": (LINE_COLUMNS, [[i, *row] for i, (_, along) in watched for row in along]),
    }
    write(made, tables)
    print(f"{RESULTS.name}: {len(tables['runs'][1])} networks, {RESULTS.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
