"""The course's secret: who makes it, where it may be, and what it changes."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest

from grading import secret
from normlab import cases, exercises
from normlab.drive import found


@pytest.fixture
def told(monkeypatch):
    """A function: secret -> the cases of softmax under it, as bytes."""
    monkeypatch.setattr(cases, "_given", [])

    def draw(content):
        cases.use_secret(content)
        exercise = exercises.find("softmax")
        drawn = [exercise.draw(case, cases.secret()) for case in exercise.cases]
        return [array.tobytes() for array in found(drawn, np.ndarray)]

    return draw


def run(name, folder):
    environment = {k: v for k, v in os.environ.items() if k != "NORMLAB_SECRET_FILE"}
    if name is not None:
        environment["NORMLAB_SECRET_FILE"] = str(name)
    command = [sys.executable, "-m", "grading.secret"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def test_it_is_made_once_for_its_owner_alone(tmp_path):
    file = tmp_path / "secret"
    done = run(file, tmp_path)
    assert done.returncode == 0
    assert str(file) in done.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = file.read_text()
    assert len(bytes.fromhex(content)) == 32
    assert content.strip() not in done.stdout
    again = run(file, tmp_path)
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert file.read_text() == content


def test_two_courses_have_two(tmp_path):
    first, second = (secret.make(tmp_path / name).read_text() for name in "ab")
    assert first != second


@pytest.mark.parametrize(
    ("name", "sentence"), [(None, "Say where"), ("nowhere/secret", "cannot be written"), ("{repo}/secret", "is public")]
)
def test_where_it_may_not_be(name, sentence, tmp_path, repo):
    done = run(name and name.format(repo=repo), tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (repo / "secret").exists()


def test_the_repository_does_not_know_the_cases_of_a_course(told):
    public, ours, others = told(b"public"), told(b"ours"), told(b"others")
    assert told(b"ours") == ours
    # Empty arrays, and those that hold the same special values in every course, are no secret.
    changed = [one != other != open_ for one, other, open_ in zip(ours, others, public, strict=True)]
    assert sum(changed) > 0.8 * len(changed)
