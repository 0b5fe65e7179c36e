"""PyTorch's truths, recorded for the page: with them a check says what it says with PyTorch, to the letter."""

import inspect
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from normlab import check, exercises, golden, verdict
from normlab.exercises import EXERCISES
from normlab.mistakes import MISTAKES
from tests.test_exercises import styles

NUMPY = [name for name, exercise in EXERCISES.items() if not exercise.torch_exercise and not exercise.compile_seconds]


@cache
def folder_of(base, name):
    path = Path(base) / f"{name}.npz"
    golden.record(EXERCISES[name], path)
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A function: exercise -> its truths, recorded now."""
    base = tmp_path_factory.mktemp("golden")

    def read(name):
        found = golden.Recorded()
        found.add(EXERCISES[name], folder_of(base, name))
        return found

    return read


@pytest.fixture
def without_torch(monkeypatch, recorded):
    """A function: exercise -> a Bench as the page has it."""

    def bench(name):
        truths = recorded(name)
        monkeypatch.setitem(sys.modules, "torch", None)
        monkeypatch.setattr(exercises, "recorded", truths)
        return verdict.Bench(EXERCISES[name], b"public")

    return bench


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NUMPY)
def test_the_page_judges_by_the_very_same_truths(name, without_torch):
    """Values, tolerances and shapes to the bit, on each case and its second call: what is said follows from them."""
    cases = list(golden._asked_for(EXERCISES[name]))
    with_torch = verdict.Bench(EXERCISES[name], b"public")
    rights = [with_torch.right(case) for case in cases]
    bench = without_torch(name)
    for case, right in zip(cases, rights, strict=True):
        for ours, theirs in zip(bench.right(case).pieces, right.pieces, strict=True):
            assert np.array_equal(ours.value, theirs.value, equal_nan=True), case.name
            assert (ours.tolerance, ours.dtype, ours.shape) == (theirs.tolerance, theirs.dtype, theirs.shape), case.name
    assert exercises.recorded.missed == 0


def said(bench, candidate):
    return [check._refusal(bench, candidate, part) for part in ("values", "numerics", "edges")]


def says_the_same(name, candidates, without_torch):
    with_torch = verdict.Bench(EXERCISES[name], b"public")
    expected = [said(with_torch, candidate) for candidate in candidates]
    bench = without_torch(name)
    assert [said(bench, candidate) for candidate in candidates] == expected
    assert exercises.recorded.missed == 0


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NUMPY)
def test_a_mistake_and_a_style_are_told_the_same(name, without_torch):
    says_the_same(name, [MISTAKES[name][0].wrong, styles(name)[0]], without_torch)


def source(candidate):
    """The text of a function; of an object, that of its call."""
    return inspect.getsource(candidate if inspect.isroutine(candidate) else type(candidate).__call__)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NUMPY)
def test_so_is_every_mistake_and_every_style(name, without_torch):
    # A page has no PyTorch for those that are written in it.
    in_numpy = [style for style in styles(name) if "import torch" not in source(style)]
    assert len(in_numpy) >= 3
    says_the_same(name, [*(mistake.wrong for mistake in MISTAKES[name]), *in_numpy], without_torch)


def test_a_truth_that_was_not_recorded_is_computed(recorded, monkeypatch):
    monkeypatch.setattr(exercises, "recorded", recorded("softmax"))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert exercises.truth(EXERCISES["softmax"], (np.log([1.0, 3.0]),), {}) == pytest.approx([0.25, 0.75])
    assert exercises.recorded.missed == 1


def test_with_pytorch_what_was_recorded_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(exercises, "recorded", lambda *_: pytest.fail("asked"))
    assert exercises.truth(EXERCISES["softmax"], (np.log([1.0, 3.0]),), {}) == pytest.approx([0.25, 0.75])


def test_arguments_have_one_name_in_every_process():
    """Names of functions, generators and arrays alike; nothing of where they lie in memory."""
    names = {
        name: [golden.key(e, *e.draw(case, b"public")) for case in e.cases]
        for name in NUMPY
        for e in [EXERCISES[name]]
        if name in ("gumbel_max", "mutant_hunt", "numerical_gradient", "attention", "welford")
    }
    code = (
        "import json, sys; from normlab import golden; from normlab.exercises import EXERCISES\n"
        "print(json.dumps({n: [golden.key(EXERCISES[n], *EXERCISES[n].draw(c, b'public')) for c in EXERCISES[n].cases]"
        " for n in sys.argv[1:]}))"
    )
    told = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == names


def test_the_built_site_has_the_truths_of_today(site, recorded):
    """It records them anew whenever the code changes."""
    built = site / "_static" / "runner" / "golden"
    if not built.is_dir():
        pytest.fail("The site was built without the runner: see NORMLAB_RUNNER and what the build says.", pytrace=False)
    assert sorted(path.stem for path in built.glob("*.npz")) == sorted(NUMPY)
    for name in ("softmax", "batch_norm_backward"):
        found = golden.Recorded()
        found.add(EXERCISES[name], built / f"{name}.npz")
        now = recorded(name)._truths[name]
        assert found._truths[name].keys() == now.keys()
        for key, value in found._truths[name].items():
            assert np.allclose(value, now[key], rtol=1e-13, atol=1e-300, equal_nan=True)
