"""`python -m grading`: scores as nbgrader's own command gives them, whatever is handed in, and what is shown."""

import json
import os
import re
import shutil
import sys
import time

import grading_course as tiny
import pexpect
import pytest

from grading import __main__ as runner
from grading import made_up, rebuild, speed

# What is handed in -> (score, words of the sentence about it). A file that is read is graded by what is in it.
HONEST = {"right": (tiny.RIGHT, 20.0), "overflows": (tiny.OVERFLOWS, 15.0), "stub": ("", 0.0)}
TOO_MANY = rebuild.FILE_BYTES + 1  # bytes


def _cells(folder, change):
    """The right notebook with its cells changed."""
    found = json.loads(tiny.notebook(folder, tiny.RIGHT))
    found["cells"] = change(found["cells"])
    return json.dumps(found)


def broken(folder):
    """Hands in what is no ordinary notebook: {student: (score, words of the sentence, or None where there is none)}."""
    plain = tiny.notebook(folder, tiny.RIGHT)
    place = folder / "submitted"
    deep = 100_000
    contents = {
        "malformed": (plain[: len(plain) // 2], 0, "is not valid JSON"),
        "nothing": ("", 0, "is missing, empty, or no regular file"),
        "number": ("42", 0, "has no cells"),
        "deep": ("[" * deep + "]" * deep, 0, "is nested too deeply"),
        "utf16": (plain.encode("utf-16"), 20, None),
        "latin": (plain.replace("exp(x) over", "exp(x) \u00fcber").encode("latin-1"), 20, None),
        "bytes": (bytes(range(256)) * 40, 0, "is not valid JSON"),
        "missing-cells": (_cells(folder, lambda cells: cells[:1]), 0, "were not found in it"),
        "twice": (_cells(folder, lambda cells: cells + cells), 20, None),
        "backwards": (_cells(folder, lambda cells: cells[::-1]), 20, None),
        "no-checks": (_cells(folder, lambda cells: [c for c in cells if "check" not in c["id"]]), 20, None),
        "old-format": (json.dumps({"nbformat": 2, "worksheets": [{"cells": [None, 7]}]}), 0, "were not found in it"),
        "odd-format": (json.dumps({"worksheets": [{"cells": 5}, 6]}), 0, "has no cells"),
    }
    for student, (content, _, _) in contents.items():
        tiny.hand_in(folder, student, content)
    expected = {student: rest for student, (_, *rest) in contents.items()}
    with open(tiny.hand_in(folder, "huge", ""), "r+b") as file:
        file.truncate(TOO_MANY)
    expected["huge"] = 0, "is larger than"
    link = tiny.hand_in(folder, "linked", "")
    link.unlink()
    link.symlink_to(place / "right" / tiny.STEM / f"{tiny.STEM}.ipynb")
    expected["linked"] = 0, "is missing, empty, or no regular file"
    tiny.hand_in(folder, "renamed", plain).rename(place / "renamed" / tiny.STEM / "tiny (1).ipynb")
    expected["renamed"] = 20, None
    tiny.hand_in(folder, "empty-folder", "").unlink()
    expected["empty-folder"] = 0, "is missing, empty, or no regular file"
    path = tiny.hand_in(folder, "folder", "")
    path.unlink()
    (path / "within").mkdir(parents=True)
    expected["folder"] = 0, "is missing, empty, or no regular file"
    tiny.hand_in(folder, "closed", plain).chmod(0)
    # Root reads everything; elsewhere the file cannot be opened.
    expected["closed"] = (20, None) if os.getuid() == 0 else (0, "opened")
    return expected


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A course folder with `tiny` released, to copy."""
    folder = tmp_path_factory.mktemp("released")
    tiny.make(folder)
    return folder


@pytest.fixture(scope="module")
def graded(released, tmp_path_factory):
    """A class with honest and with broken submissions, graded: folder, what was expected, what was printed."""
    folder = tmp_path_factory.mktemp("graded") / "course"
    shutil.copytree(released, folder)
    for student, (code, _) in HONEST.items():
        tiny.hand_in(folder, student, tiny.notebook(folder, code))
    expected = broken(folder)
    return folder, expected, tiny.grade(folder, "--workers", "2")


@pytest.mark.slow
def test_every_submission_gets_what_it_deserves(graded):
    folder, expected, done = graded
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    scores = tiny.scores(tiny.rows(folder))
    wanted = {student: score for student, (_, score) in HONEST.items()}
    assert scores == wanted | {student: score for student, (score, _) in expected.items()}


@pytest.mark.slow
def test_a_file_that_is_odd_gets_a_line_and_a_notice(graded):
    folder, expected, done = graded
    for student, (_, words) in expected.items():
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"{student}: ")]
        if words is None:
            assert not lines
            continue
        assert len(lines) == 1, student
        assert words in lines[0]
        text = (folder / "autograded" / student / tiny.STEM / f"{tiny.STEM}.ipynb").read_text()
        assert "About the file that was handed in" in text
    assert f"Graded: {len(HONEST) + len(expected)}" in done.stdout
    odd = sum(words is not None for _, words in expected.values())
    assert f"Files that had to be repaired, or could not be read: {odd}" in done.stdout


@pytest.mark.slow
def test_nbgraders_own_command_gives_the_same(graded, tmp_path):
    """Plain `nbgrader autograde` records the same scores, cell by cell, and its notebooks have the same outputs."""
    folder, _, _ = graded
    own, sample = tmp_path / "own", ["overflows", "malformed", "twice", "renamed", "linked"]
    shutil.copytree(folder, own, symlinks=True)
    for student in os.listdir(own / "submitted"):
        if student not in sample:
            shutil.rmtree(own / "submitted" / student)
    before = [row for row in tiny.rows(own) if row[0] in sample]
    notebooks = {s: own / "autograded" / s / tiny.STEM / f"{tiny.STEM}.ipynb" for s in sample}
    outputs = {s: [cell.get("outputs") for cell in json.loads(p.read_text())["cells"]] for s, p in notebooks.items()}
    (own / "gradebook.db").unlink()
    shutil.rmtree(own / "autograded")
    assert tiny.nbgrader(own, "generate_assignment", tiny.STEM, "--force").returncode == 0
    done = tiny.nbgrader(own, "autograde", tiny.STEM)
    assert done.returncode == 0, done.stderr
    after = tiny.rows(own)
    assert [(s, cell, score) for s, cell, _, score, _ in after] == [(s, c, score) for s, c, _, score, _ in before]
    for student, path in notebooks.items():
        assert [cell.get("outputs") for cell in json.loads(path.read_text())["cells"]] == outputs[student]


@pytest.mark.slow
def test_what_is_graded_is_left_alone_until_it_changes(graded):
    folder, expected, _ = graded
    rows, files = tiny.rows(folder), tiny.files(folder)
    done = tiny.grade(folder)
    assert done.stdout.splitlines() == [
        "Graded: 0",
        f"Graded before, and left as they are: {len(HONEST) + len(expected)} (--force grades them again)",
    ]
    assert (tiny.rows(folder), tiny.files(folder)) == (rows, files)
    tiny.hand_in(folder, "stub", tiny.notebook(folder, tiny.RIGHT))
    done = tiny.grade(folder, "--workers", "1")
    assert "Graded: 1 in" in done.stdout
    changed = {path.relative_to(folder).parts[1] for path, when in tiny.files(folder).items() if files[path] != when}
    assert changed == {"stub", tiny.STEM}  # its notebook, and its mark
    assert tiny.scores(tiny.rows(folder))["stub"] == 20
    assert [row for row in tiny.rows(folder) if row[0] != "stub"] == [row for row in rows if row[0] != "stub"]


@pytest.mark.slow
def test_progress_on_a_terminal_and_control_c(released, tmp_path):
    """A bar with the time left; Ctrl-C ends all within seconds and says how to go on; the next run does."""
    folder = tmp_path / "course"
    shutil.copytree(released, folder)
    students = tiny.hand_in_all(folder, 10)  # more than are graded before the keys arrive
    child = pexpect.spawn(
        sys.executable,
        ["-m", "grading", tiny.STEM, "--workers", "2"],
        cwd=str(folder),
        env={**tiny.environment(folder), "TERM": "xterm"},
        dimensions=(30, 100),
        encoding="utf-8",
        timeout=120,
    )
    child.expect("10 to grade")
    child.expect(r"Grading.* [1-9]\d*/10.*0:\d\d:\d\d.*left:")
    child.sendintr()
    sent = time.monotonic()
    child.expect(pexpect.EOF)
    child.close()
    assert time.monotonic() - sent < 20
    assert (child.exitstatus, child.signalstatus) == (130, None)
    assert "Stopped. What is graded is recorded; run this again to go on." in child.before
    assert "Traceback" not in child.before
    assert not tiny.left_running(folder)
    done = tiny.files(folder)
    marks = [path for path in done if ".graded" in path.parts]
    assert 0 < len(marks) < len(students)
    assert tiny.grade(folder, "--workers", "2").returncode == 0
    assert {path: when for path, when in tiny.files(folder).items() if path in marks} == {p: done[p] for p in marks}
    assert tiny.scores(tiny.rows(folder)) == {s: list(tiny.DESERVE.values())[k % 3] for k, s in enumerate(students)}


# -- Lines -----------------------------------------------------------------------------------------------------------


def test_a_line_commands_no_terminal(capsys):
    with runner.Show(1) as show:
        show.line("mallory: \x1b[2J\x1b]0;mine\x07 and [bold]more[/bold]")
    assert capsys.readouterr().out == "mallory: ?[2J?]0;mine? and [bold]more[/bold]\n"


def test_summary():
    tally = runner.Tally({"a": (3.0, 20.0), "b": (20.0, 20.0), "c": (10.0, 20.0)}, {"d": "why"}, {"a": "odd"}, 4)
    assert list(runner.summary(tally, 6.0)) == [
        "Graded: 3 in 6 s, 30 a minute",
        "Scores: 3 to 20, in the middle 10, of 20",
        "Graded before, and left as they are: 4 (--force grades them again)",
        "Files that had to be repaired, or could not be read: 1",
        "Not graded: 1 (d)",
    ]


# -- Speed -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.exhaustive
def test_it_is_faster_than_stock(tmp_path, monkeypatch):
    """In one run, on the same submissions, warm: `make prove` shows ten times, this machine may be busy. None of them
    uses PyTorch, which a kernel of stock's would import for each: without it stock is at its best."""
    monkeypatch.setenv("PYTHONPATH", str(tiny.without_torch(tmp_path)))
    found = speed.measure(tmp_path, 6, 4)
    assert (found["wrong"], found["differ"]) == ([], [])
    stock = sum(found["stock_between"]) / len(found["stock_between"])
    ours = sum(found["ours_between"]) / len(found["ours_between"])
    assert stock > 4 * ours, (stock, ours)
    assert speed.flatness(found["recording"]) < 3


def test_flatness_sees_a_slope():
    assert speed.flatness([0.1] * 100) == pytest.approx(1)
    assert speed.flatness([0.1 + 0.001 * k for k in range(100)]) > speed.FLAT
    assert re.search("^2.0 times as fast", "\n".join(speed.table(_found())), re.M)


def _found():
    common = {"stock_between": [6.0], "ours_between": [3.0] * 10, "recording": [0.1] * 10, "wrong": [], "differ": []}
    return {"count": 10, "sample": 2, "stock_seconds": 12.0, "ours_seconds": 30.0, **common}


def test_a_made_up_class_is_the_same_again_and_has_all_kinds():
    first, again = made_up.submissions("softmax", 30), made_up.submissions("softmax", 30)
    assert first == again
    asked = {name: dict.fromkeys(("values", "numerics", "edges"), 1) for name in first[0].answers | first[1].answers}
    points = [made_up.deserved(submission, asked) for submission in first]
    assert len(set(points)) > 4
    assert len({answer.mistake for s in first for answer in s.answers.values()}) > 5
