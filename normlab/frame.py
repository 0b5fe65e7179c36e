"""What an exercise is, and a known mistake: the words in which the chapters' tables are written."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from normlab import cases
from normlab.drive import call, walk


@dataclass(frozen=True)
class Exercise:
    """One exercise. `expect` completes "On {kind of input}, ..." where a case has no words of its own; `torch_truth`
    takes the torch module first and float64 tensors after it; `numpy_truth` computes in the dtype of its arrays.

    `returns` is the kind of the answer: "array"; "numbers", an array of any floating dtype; "float"; "int"; "tensor";
    "samples", judged by their frequencies; "verdicts", a list of True and False; or a (name, kind) for each part of a
    tuple. `hand` makes of a case's arguments what is handed over, where that is something else. `drive`, a function of
    normlab.drive, uses the candidate where calling it is not enough: it gets the candidate and what is handed over, and
    what it returns is judged. `explain(args, truth, value)` puts a wrong answer of the right kind into words, as a verb
    phrase. `may_call` names functions of PyTorch that this exercise allows though others refuse them. `why_not()`
    says in a clause why the exercise cannot be done here, or gives None. `compile_seconds` are added to the time of a
    call. `mistakes` are the known mistakes of a variant, whose name has its conventions behind a colon; those of the
    others stand in mistakes.py.
    """

    name: str
    stem: str
    expect: str
    signature_of: Callable
    torch_truth: Callable
    numpy_truth: Callable | None
    cases: tuple
    core: bool = False
    returns: str | tuple = "array"
    torch_exercise: bool = False
    hand: Callable = lambda *args, **kwargs: (args, kwargs)
    drive: Callable = call
    explain: Callable | None = None
    may_call: tuple = ()
    why_not: Callable = lambda: None
    compile_seconds: float = 0.0
    mistakes: tuple | None = None

    @property
    def function(self):
        """The name of the function to write."""
        return self.name.partition(":")[0]

    @cached_property
    def signature(self):
        """The signature to write, as text: `softmax(x, axis=-1)`."""
        return f"{self.function}{inspect.signature(self.signature_of)}"

    @property
    def pieces(self):
        """(name, kind) of each part of the answer; the name is empty where the answer is no tuple."""
        return self.returns if isinstance(self.returns, tuple) else (("", self.returns),)

    def draw(self, case, seed):
        """Fresh arguments of `case` under `seed`: the same arrays on every call, never shared."""
        return case.draw(cases.generator(self.name, case.name, seed))


@dataclass(frozen=True)
class Mistake:
    """`slug` is stable: class reports count by it. `variants` make the same mistake with other constants, or in other
    arithmetic. `noisy`: its wrong answers are rounding noise, which depends on the order of operations, so only where
    and how badly it fails is compared; `trace`, if given, must hold for each answer besides."""

    slug: str
    sentence: str
    wrong: Callable
    variants: tuple = ()
    noisy: bool = False
    trace: Callable | None = None


def mistakes_table():
    """An empty table, exercise -> its mistakes, and the function that adds to it."""
    table = {}

    def add(exercise, slug, sentence, wrong, *variants, noisy=False, trace=None):
        table.setdefault(exercise, []).append(Mistake(slug, sentence, wrong, variants, noisy, trace))

    return table, add


# ---- making mistakes -------------------------------------------------------------------------------------------------
# Most mistakes are a right implementation with one switch thrown.


def with_switches(right, **switches):
    """`right` with switches thrown."""

    def wrong(*args, **kwargs):
        return right(*args, **kwargs, **switches)

    return wrong


def wide(x, half=False, narrow=False, double=False):
    """x in the dtype for arithmetic; `half` leaves float16 as it is, `narrow` computes float64 in float32, and `double`
    everything in float64 (right too, but what overflows overflows elsewhere)."""
    if narrow or double:
        return x.astype(np.float32 if narrow else np.float64)
    return x if half else x.astype(np.promote_types(x.dtype, np.float32))


def left_at_the_end(right):
    """`right` with the axis that it ran along moved to the end and left there."""

    def wrong(*args, axis=-1, **kwargs):
        return np.moveaxis(right(*args, axis=axis, **kwargs), axis, -1)

    return wrong


NOT_MOVED_BACK = "moves the axis to the end and leaves it there: move it back, or use axis and keepdims=True"
ROWS_ALONE = "puts the axis back with [:, None], which fits the rows of a table alone: keepdims=True fits every axis"


def in_float64(right):
    """`right` with its answer as float64 always."""

    def wrong(*args, **kwargs):
        return walk(right(*args, **kwargs), lambda part: part.astype(np.float64), (np.ndarray, np.floating))

    return wrong
