"""What chapters may ask of an exercise: answers in several parts, streams, drives, functions handed to a candidate."""

import runpy
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from normlab import check as check_module
from normlab import exercises, reference
from normlab.cases import Case
from normlab.check import CheckFailed, check
from normlab.drive import Once, given, tensors_held
from normlab.frame import Exercise, mistakes_table
from normlab.mistakes import MISTAKES


@pytest.fixture
def offered(monkeypatch):
    """A function that makes an exercise known to the checks for the time of a test."""
    monkeypatch.setattr(check_module, "_benches", {})

    def offer(exercise, mistakes=None):
        monkeypatch.setitem(exercises.EXERCISES, exercise.name, exercise)
        monkeypatch.setitem(MISTAKES, exercise.name, (mistakes or {}).get(exercise.name, []))
        return exercise

    return offer


def sentence(candidate, name):
    with pytest.raises(CheckFailed) as caught:
        check(candidate, name)
    return str(caught.value)


def rows(rng):
    return (rng.normal(size=(3, 4)).astype(np.float32),), {}


def halves(x):
    return x.sum(1), x.mean(), len(x)


PARTS = Exercise(
    name="halves",
    stem="none",
    expect="the answer is sums, mean and number of rows",
    signature_of=lambda x: None,
    torch_truth=lambda torch, x: (x.sum(1), x.mean(), len(x)),
    numpy_truth=halves,
    cases=(
        Case("rows", "values", "some rows", rows),
        Case("none", "edges", "no array", lambda rng: ((None,), {}), "it raises an error", raises=Exception),
    ),
    returns=(("sums", "array"), ("mean", "float"), ("n", "int")),
)


def test_an_answer_in_parts(offered, capsys):
    offered(PARTS)
    check(halves, "halves")
    check(lambda x: [x.sum(1), float(x.mean()), np.int64(len(x))], "halves")
    assert capsys.readouterr().out.splitlines() == ["halves: right on 2 of 2 kinds of input."] * 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x: None, "returns None: is the return statement missing?"),
        (lambda x: x.sum(1), "returns an array where a tuple is right: (sums, mean, n)."),
        (lambda x: halves(x)[:2], "returns 2 values where 3 are right: (sums, mean, n)."),
        (lambda x: (x.sum(0), x.mean(), len(x)), "(sums) returns an array of the wrong shape."),
        (lambda x: (x.sum(1).astype(float), x.mean(), len(x)), "(sums) returns float64 where float32 is right."),
        (lambda x: (x.sum(1), x.max(), len(x)), "(mean) gives other numbers."),
        (lambda x: (x.sum(1), x.mean(), float(len(x))), "(n) returns a float where an int is right."),
        (lambda x: (x.sum(1), x.mean(), len(x) > 1), "(n) returns a bool where an int is right."),
        (lambda x: (x.sum(1), x.mean(), x.shape[1]), "(n) gives other numbers."),
        (lambda x: 0 if x is None else halves(x), "returns an int instead of raising Exception."),
    ],
)
def test_what_is_wrong_with_a_part(offered, wrong, words):
    offered(PARTS)
    assert sentence(wrong, "halves").endswith(f"yours {words}")


def test_a_mistake_in_a_part_is_named(offered):
    table, add = mistakes_table()
    add("halves", "columns", "adds up the columns: add up each row", lambda x: (x.sum(0)[:3], x.mean(), len(x)))
    add("halves", "largest", "takes the largest number: the mean is asked for", lambda x: (x.sum(1), x.max(), len(x)))
    offered(PARTS, table)
    said = sentence(lambda x: (x.sum(1), np.sort(x.ravel())[-1], 3), "halves")
    assert said.endswith("yours takes the largest number: the mean is asked for.")


def test_answers_in_parts_are_not_cached(offered):
    offered(PARTS)
    first = []

    def remembers(x):
        first.append(halves(x))
        return first[0]

    assert "repeats the answer of an earlier call" in sentence(remembers, "halves")
    room = np.zeros(3, np.float32)

    def reuses(x):
        room[:] = x.sum(1)
        return room, x.mean(), len(x)

    assert "changes its answer when it is called again" in sentence(reuses, "halves")


STREAM = Exercise(
    name="total",
    stem="none",
    expect="the answer is the sum",
    signature_of=lambda stream: None,
    torch_truth=lambda torch, values: values.sum(),
    numpy_truth=np.sum,
    cases=(Case("some", "values", "a stream", lambda rng: ((rng.normal(size=5),), {})),),
    returns="float",
    drive=lambda candidate, values: candidate(Once(values)),
)


def test_a_stream_is_looked_at_once(offered):
    offered(STREAM)
    check(lambda stream: sum(stream), "total")
    assert "TypeError (a stream has no len())" in sentence(lambda stream: len(stream), "total")
    assert "TypeError (a stream has no items to index" in sentence(lambda stream: stream[0], "total")

    def two_passes(stream):
        mean = sum(stream) / 5
        return mean * 5 + sum(x - mean for x in stream) + sum(1 for _ in stream)

    check(two_passes, "total")  # what it counts the second and third time is nothing
    assert "gives other numbers" in sentence(lambda stream: sum(stream) + 1 + sum(1 for _ in stream), "total")


def _twice(x):
    return reference.softmax(x) * 2


@given
def doubled(x):
    return _twice(x)


def helper(x):
    return x * 2


HANDED = Exercise(
    name="apply_it",
    stem="none",
    expect="the answer is f(x)",
    signature_of=lambda f, x: None,
    torch_truth=lambda torch, f, x: 2 * torch.softmax(x, -1),
    numpy_truth=lambda f, x: f(x),
    cases=(Case("f", "values", "a function", lambda rng: ((doubled, rng.normal(size=4)), {})),),
)


def test_a_function_that_is_handed_over_may_be_called_and_no_other(offered, monkeypatch):
    offered(HANDED)
    # As if both were of a chapter of ours.
    monkeypatch.setitem(globals(), "__name__", "normlab.chapters.none")
    own = {"__name__": "learner", "doubled": doubled, "_twice": _twice}
    exec("def call(f, x):\n    return f(x)\ndef sneak(f, x):\n    return _twice(x)\n", own)
    check(own["call"], "apply_it")
    assert "calls normlab: this exercise is to write it" in sentence(own["sneak"], "apply_it")


def test_what_may_be_called(offered):
    pytest.importorskip("torch")
    import torch

    def softmax_exercise(**options):
        return Exercise(
            name="weights",
            stem="none",
            expect="it is softmax",
            signature_of=lambda x: None,
            torch_truth=lambda torch, x: torch.softmax(x, -1),
            numpy_truth=reference.softmax,
            cases=(Case("x", "values", "a vector", lambda rng: ((rng.normal(size=4),), {})),),
            **options,
        )

    def by_torch(x):
        return torch.softmax(torch.from_numpy(x), -1).numpy()

    offered(softmax_exercise())
    assert "calls torch's softmax: this exercise is to write it, with NumPy." in sentence(by_torch, "weights")
    check_module._benches.clear()
    offered(softmax_exercise(torch_exercise=True))
    assert "is to write it, from PyTorch's simpler operations." in sentence(by_torch, "weights")
    check_module._benches.clear()
    offered(softmax_exercise(may_call=("softmax",)))
    check(by_torch, "weights")


VERDICTS = Exercise(
    name="is_odd",
    stem="none",
    expect="odd numbers are accepted",
    signature_of=lambda n: None,
    torch_truth=lambda torch, numbers: np.array([n % 2 for n in numbers]),
    numpy_truth=lambda numbers: np.array([n % 2 for n in numbers]),
    cases=(Case("some", "values", "some numbers", lambda rng: (([1, 2, 3],), {})),),
    returns="verdicts",
    drive=lambda candidate, numbers: [candidate(n) for n in numbers],
    explain=lambda args, truth, value: f"is wrong about {args[0][int((truth != value).argmax())]}",
)


def test_verdicts_are_explained(offered):
    table, add = mistakes_table()
    add("is_odd", "all", "accepts all: even numbers are refused", lambda n: True)
    offered(VERDICTS, table)
    check(lambda n: n % 2 == 1, "is_odd")
    assert sentence(lambda n: n > 2, "is_odd").endswith("yours is wrong about 1.")
    assert sentence(lambda n: n % 2, "is_odd").endswith("yours returns an int where True or False is right.")
    assert sentence(lambda n: True, "is_odd").endswith(
        "yours is wrong about 2; it accepts all: even numbers are refused."
    )


def style(exercise, number=0):
    return runpy.run_path(str(Path(__file__).parent / "styles" / f"{exercise}.py"))["STYLES"][number]


def test_a_named_tuple_is_a_tuple():
    parts = namedtuple("Gradients", "dx dweight dbias")
    check(
        lambda dy, x, weight, eps=1e-5: parts(*style("layer_norm_backward")(dy, x, weight, eps)), "layer_norm_backward"
    )


def test_being_right_where_a_mistake_is_wrong_speaks_against_it():
    """It fails where all is -inf, as one does that starts from 0; but on negative logits that one is wrong too."""

    right = style("online_softmax")

    def candidate(chunks):
        maximum, normalizer = right(chunks)
        return (maximum, normalizer) if normalizer else (0.0, 0.0)

    with pytest.raises(CheckFailed) as refusal:
        check(candidate, "online_softmax")
    assert refusal.value.mistake is None


# -- What is held meanwhile ------------------------------------------------------------------------------------------


def scores_in_torch(q, key_value_blocks, scale, mask_blocks=None):
    """attention with the whole score matrix in PyTorch's memory, which tracemalloc does not see."""
    import torch

    keys, values = zip(*((torch.tensor(k), torch.tensor(v)) for k, v in key_value_blocks), strict=True)
    scores = torch.cat([torch.tensor(q) @ k.T for k in keys], 1) * scale
    if mask_blocks is not None:
        scores = scores.where(torch.cat([torch.tensor(mask) for mask in mask_blocks], 1), -torch.inf)
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    return (weights @ torch.cat(values) / weights.sum(1, keepdim=True)).numpy()


def test_memory_of_pytorch_counts_too(one_thread):
    with pytest.raises(CheckFailed, match="no more is held than a quarter of what the score matrix takes; yours"):
        check(scores_in_torch, "attention", part="numerics")


def test_tensors_held():
    import torch

    def in_turn(keep):
        kept = []
        with tensors_held(torch) as held:
            for _ in range(10):
                kept.append(torch.zeros(1000))
                view = kept[-1][:500]  # the same memory, and counted once
                if not keep:
                    kept.clear()
                    del view
        return held.peak

    assert in_turn(keep=True) == 40_000
    assert in_turn(keep=False) == 4_000
