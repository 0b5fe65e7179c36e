"""A learner's functions timed beside torch's, for `python -m normlab.check --all my_normlab.py --bench`.

Those of bench.py's ops, forward and backward, and a few more that PyTorch has a function of its own for. Each is timed
on two sizes, in float32, with bench.py's paired rounds; PyTorch has one thread, as NumPy has but for matrix products.
Every shape of a size has the same number of elements, so that times of one column can be compared with one another.
"""

import contextlib
import os
from functools import partial
from operator import truediv

from normlab import bench
from normlab.bench import Case
from normlab.exercises import EXERCISES
from normlab.learner import load
from normlab.verdict import closed, first_line

SMALL, LARGE = 2048, 24 * 64 * 16 * 16  # elements
SIZES = {"small": SMALL, "cache": LARGE}  # the names that bench.py has for such sizes
SHAPES = {
    "batch_norm": ((32, 64), (24, 64, 16, 16)),
    "instance_norm": ((1, 32, 64), (24, 64, 16, 16)),
    "group_norm": ((32, 64), (24, 64, 16, 16)),
    "two_pass_variance": ((SMALL,), (LARGE,)),
}
ROWS = ((32, 64), (512, 768))  # of all others
ALSO = ("logsumexp", "normalize_l1", "normalize_l2", "two_pass_variance")  # the exercise's truth is one call of torch
ROUNDS = 11


def _timed():
    """{exercise: (op, direction)} of those that are timed, in the order of the chapters."""
    for name in EXERCISES:
        op = name.removesuffix("_backward")
        if op in bench.OPS:
            yield name, (op, "forward" if op == name else "backward")
        elif name in ALSO:
            yield name, (name, "forward")


TIMED = dict(_timed())


def shapes(name):
    """The shapes an exercise is timed on, a small one and one that fills a core's cache."""
    return SHAPES.get(TIMED[name][0], ROWS)


def beside_torch(name, path):
    """{"sizes": [seconds of a call of both and their ratio, for each shape]}, or {"why_not": a sentence}. It runs the
    learner's file: it is for a process of its own."""
    import torch

    torch.set_num_threads(1)
    module, _ = load(path)
    op, direction = TIMED[name]
    found = []
    for size, shape in zip(SIZES, shapes(name), strict=True):
        make = _also if name in ALSO else _of_bench
        contenders, why_not = make(module, Case(op, size, shape), direction)
        if why_not:
            return {"why_not": why_not}
        with torch.no_grad(), open(os.devnull, "w") as silent, contextlib.redirect_stdout(silent):
            times, errors = bench.time_interleaved(contenders, ROUNDS)
        for who, error in errors.items():
            text = first_line(error)
            return {"why_not": closed(f"{who} raises {type(error).__name__}{f' ({text})' if text else ''}")}
        medians = {who: bench.quartiles(values)[1] for who, values in times.items()}
        ratio = bench.paired(truediv, times["yours"], times["torch"])
        found.append({"shape": shape, "seconds": medians, "ratio": ratio})
    return {"sizes": found}


def _of_bench(module, case, direction):
    """({"torch": call, "yours": call}, None), or (None, why not)."""
    import torch

    t = bench.draw(case, torch.float32)
    yours, why_not = bench.learner(module, case, direction, t, bench.right_answers(case, t))
    if yours is None:
        return None, why_not
    make = bench.calls if direction == "forward" else bench.backward_contenders
    made = make(case, t, {"torch": getattr(torch.nn.functional, case.op)})
    return {"torch": made["torch"], "yours": yours}, None


def _also(module, case, direction):
    """The same for those that bench.py does not have. They were accepted, so they are not held against torch again."""
    import torch

    x = torch.randn(case.shape, generator=torch.Generator().manual_seed(0)) * 2 + 0.5
    call = partial(EXERCISES[case.op].torch_truth, torch, x)
    return {"torch": call, "yours": partial(getattr(module, case.op), x.numpy().copy())}, None


def in_words(ratio):
    """How your time compares with torch's.

    >>> [in_words(r) for r in (123.4, 1.25, 1.01, 0.5)]
    ['123x slower', '1.2x slower', 'as fast', '2.0x faster']
    """
    if 0.95 < ratio < 1.05:
        return "as fast"
    times, word = (ratio, "slower") if ratio > 1 else (1 / ratio, "faster")
    return f"{times:.0f}x {word}" if times >= 10 else f"{times:.1f}x {word}"
