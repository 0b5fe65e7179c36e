"""PyTorch's truths, written down for a place where PyTorch is not: the page of the site, in which NumPy runs alone.

    python -m normlab.golden FOLDER EXERCISE...      writes FOLDER/<exercise>.npz for each

A truth is found again by the numbers it belongs to, so it serves only where a case draws the very same ones. These are
the public cases; of a course's secret nothing is recorded.
"""

import contextlib
import dataclasses
import hashlib
import inspect
import sys
from pathlib import Path

import numpy as np

from normlab import exercises
from normlab.check import _again

SEED = b"public"


def key(exercise, args, kwargs):
    """A name for these arguments of that exercise: the same wherever they are the same to the bit."""
    return hashlib.sha256(_described([exercise.name, args, kwargs])).hexdigest()[:32]


def _described(value):
    """Bytes that tell one argument from another."""
    if isinstance(value, (list, tuple)):
        return b"(" + b",".join(map(_described, value)) + b")"
    if isinstance(value, dict):
        return _described(sorted(value.items()))
    if isinstance(value, np.ndarray):
        # A NaN has many ways to be written.
        plain = np.where(np.isnan(value), value.dtype.type(np.nan), value) if value.dtype.kind == "f" else value
        return f"{value.dtype}{value.shape}".encode() + plain.tobytes()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state).encode()
    if callable(value):
        # Functions of one name may differ in what they close over.
        inside = inspect.getclosurevars(value).nonlocals if inspect.isfunction(value) else {}
        return f"{getattr(value, '__qualname__', type(value).__qualname__)}".encode() + _described(inside)
    if dataclasses.is_dataclass(value):
        return _described(list(vars(value).items()))
    return repr(value).encode()


def _asked_for(exercise):
    """The cases whose truth a check may ask for: those of the exercise, and their second calls with other numbers."""
    for case in exercise.cases:
        if not case.raises:
            yield case
            again = _again(exercise, case, SEED)
            # Turned round, some arguments make no sense: a check takes none of these.
            with contextlib.suppress(ValueError, AttributeError):
                exercises.truth(exercise, *exercise.draw(again, SEED), use_torch=True)
                yield again


def record(exercise, path):
    """Write PyTorch's truths of all cases of the exercise to `path`."""
    found = {}
    for case in _asked_for(exercise):
        args, kwargs = exercise.draw(case, SEED)
        name = key(exercise, args, kwargs)
        truth = exercises.truth(exercise, args, kwargs, use_torch=True)
        parts = {f"{name}/{i}": part for i, part in enumerate(truth if isinstance(truth, tuple) else (truth,))}
        for place, part in parts.items():
            if place in found and not np.array_equal(found[place], part, equal_nan=True):
                raise ValueError(f"{exercise.name}, {case.name}: two truths for the same numbers")
        found |= parts
    np.savez_compressed(path, **found)


class Recorded:
    """Answers of `exercises.truth` from files that `record` wrote; `missed` counts those that were not there."""

    def __init__(self):
        self._truths, self.missed = {}, 0

    def add(self, exercise, path):
        with np.load(path) as file:
            self._truths[exercise.name] = {name: file[name] for name in file.files}

    def __call__(self, exercise, args, kwargs):
        """The truth for these arguments, or None."""
        truths = self._truths.get(exercise.name, {})
        name = key(exercise, args, kwargs)
        parts = []
        while (place := f"{name}/{len(parts)}") in truths:
            parts.append(truths[place])
        if not parts:
            self.missed += 1
            return None
        return tuple(parts) if isinstance(exercise.returns, tuple) else parts[0]


def main(arguments):
    if len(arguments) < 2:
        sys.exit("usage: python -m normlab.golden FOLDER EXERCISE...")
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    exercises.torch_or_none().set_num_threads(1)
    for name in arguments[1:]:
        record(exercises.find(name), folder / f"{name}.npz")


if __name__ == "__main__":
    main(sys.argv[1:])
