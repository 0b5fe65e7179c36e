"""Grading a class: the demonstration runs once, and what it left in its course folder is looked at.

Its class is smaller here: of those who make known mistakes and nothing else, some are enough. `make prove` grades all.
"""

import csv
import html
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from grading import course, demo
from normlab import check
from normlab.check import CheckFailed
from normlab.exercises import EXERCISES
from normlab.mistakes import MISTAKES

# Written down once more, by hand: (standardize, old_output) and (softmax, logsumexp, gumbel_max, bayes_posterior).
PUZZLE = {
    "ada": (20, 20),
    "bruno": (20, 20),
    "dora": (20, 20),
    "emil": (0, 0),
    "ivan": (15, 0),
    "nina": (20, 0),
    "omar": (0, 0),
    "petra": (0, 0),
    "quinn": (0, 20),
    "sven": (0, 0),
    "tara": (0, 20),
}
SOFTMAX = {
    "ada": (20, 20, 20, 20),
    "emil": (15, 0, 0, 0),
}
PREDICTED = {("ada", "puzzle"): 1, ("bruno", "puzzle"): 1}  # right and wrong: it is the saying that counts
CLASS = {"puzzle": PUZZLE, "softmax": SOFTMAX}
HANDED_IN = [(student, stem) for stem, students in CLASS.items() for student in students]
# Other tests, which run meanwhile, write there.
OURS_ALONE = {".git", ".venv", "_build", ".pytest_cache", ".ruff_cache", ".hypothesis", "__pycache__"}


def files_of(checkout):
    for folder, folders, files in os.walk(checkout):
        folders[:] = [name for name in folders if name not in OURS_ALONE]
        yield from (Path(folder, name).relative_to(checkout) for name in files)


@pytest.fixture(scope="module")
def classroom(tmp_path_factory):
    """Folder of what the students above hand in."""
    folder = tmp_path_factory.mktemp("classroom")
    for stem, students in CLASS.items():
        first, *all_of_them = re.split("^(?=# %% student=)", (demo.CLASSROOM / f"{stem}.txt").read_text(), flags=re.M)
        named = {re.match('# %% student="([a-z]+)"', text)[1]: text for text in all_of_them}
        (folder / f"{stem}.txt").write_text(first + "".join(named[student] for student in students))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, classroom):
    """The demonstration: its course folder, what it printed, and the files of the checkout before and after."""
    root, folder = Path(demo.__file__).resolve().parent.parent, tmp_path_factory.mktemp("class")
    before = set(files_of(root))
    command = [sys.executable, "-B", "-m", "grading.demo", str(folder), "--classroom", str(classroom)]
    command += ["--more", "0"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    return folder, done, before, set(files_of(root))


@pytest.fixture
def folder(run):
    return run[0]


def text_of(folder, student, stem):
    """The feedback as a reader sees it, white space made one."""
    page = (folder / "feedback" / student / stem / f"{stem}.html").read_text()
    page = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", page)).split())


# -- The demonstration -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_grade_is_what_the_work_deserves(run):
    _, done, _, _ = run
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "Every grade is what the work deserves" in done.stdout


@pytest.mark.slow
def test_table(run):
    out = run[1].stdout
    for stem, students in CLASS.items():
        part = out[out.index(f"\n{stem}\n") :]
        for student, points in students.items():
            (row,) = re.findall(rf"^{student} .*/\d+$", part, flags=re.M)[:1]
            *scores, predicted, total = row.split()[-len(points) - 2 :]
            assert [int(score) for score in scores] == list(points)
            assert int(predicted) == PREDICTED.get((student, stem), 0)
            asked = demo.predictions(json.loads((run[0] / "exercises" / stem / f"{stem}.ipynb").read_text()))
            assert total == f"{sum(points) + int(predicted)}/{20 * len(points) + len(asked)}"
    assert "grade them (nbgrader formgrader): 1" in out
    assert "divides by n-1" in out
    assert "name 'standardize' is not defined: the cell that defines it did not run" in out
    assert str(run[0] / "feedback") in out


@pytest.mark.slow
def test_it_tells_how_far_it_is(run):
    out = run[1].stdout
    for command in (
        "generate_assignment puzzle",
        "zip_collect puzzle",
        "generate_feedback puzzle",
        "export --to grades.csv",
    ):
        assert f"nbgrader {command}" in out
    assert f"python -m grading: {len(HANDED_IN)} notebooks of {len({s for s, _ in HANDED_IN})} students" in out
    for stem, students in CLASS.items():
        assert f"{stem}: graded: {len(students)} in " in out


@pytest.mark.slow
def test_it_leaves_the_checkout_as_it_was(run):
    _, _, before, after = run
    assert after == before


@pytest.mark.slow
def test_gradebook_and_export_agree(folder):
    query = """
        select student_id, assignment.name, sum(auto_score) from submitted_assignment
        join assignment on assignment.id = submitted_assignment.assignment_id
        join submitted_notebook on submitted_notebook.assignment_id = submitted_assignment.id
        join grade on grade.notebook_id = submitted_notebook.id group by 1, 2
    """
    database = sqlite3.connect(folder / "gradebook.db")
    book = {(student, stem): score for student, stem, score in database.execute(query)}
    database.close()
    predicted = PREDICTED
    assert book == {key: sum(CLASS[key[1]][key[0]]) + predicted.get(key, 0) for key in HANDED_IN}
    with open(folder / "grades.csv", newline="") as file:
        exported = {(row["student_id"], row["assignment"]): float(row["score"]) for row in csv.DictReader(file)}
    assert {key: exported[key] for key in book} == book


@pytest.mark.slow
def test_a_paragraph_waits_for_a_reader(folder):
    query = """
        select student_id, auto_score, manual_score, needs_manual_grade from grade
        join submitted_notebook on submitted_notebook.id = grade.notebook_id
        join submitted_assignment on submitted_assignment.id = submitted_notebook.assignment_id
        join base_cell on base_cell.id = grade.cell_id where base_cell.name = 'explanation-puzzle'
    """
    database = sqlite3.connect(folder / "gradebook.db")
    waiting = {student: rest for student, *rest in database.execute(query)}
    database.close()
    assert waiting.pop("ada") == [None, None, 1]
    assert set(map(tuple, waiting.values())) == {(0, None, 0)}  # untouched: nothing to read, no points


# -- Feedback --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_feedback_tells_the_mistake(folder, classroom):
    told = 0
    for stem in CLASS:
        for submission in demo.read_class(stem, classroom):
            text = text_of(folder, submission.student, stem)
            for name in demo.points(json.loads((folder / "exercises" / stem / f"{stem}.ipynb").read_text())):
                answer = submission.answers.get(name)
                if answer is None:
                    assert f"{name} is not written yet" in text
                elif answer.mistake in {m.slug for m in MISTAKES[name]}:
                    (mistake,) = [m for m in MISTAKES[name] if m.slug == answer.mistake]
                    assert mistake.sentence in text
                    told += 1
                elif answer.passes == set(demo.PARTS):
                    assert f"{name}, edges: right on" in text
    assert told >= 8


@pytest.mark.slow
def test_feedback_never_shows_the_hidden_cases(folder):
    secret = (folder / "secret").read_bytes()
    hidden = {secret.decode()}
    for exercise in EXERCISES.values():
        if exercise.stem in CLASS and not exercise.torch_exercise:
            for case in exercise.cases:
                args, kwargs = exercise.draw(case, secret)
                for array in (a for a in (*args, *kwargs.values()) if isinstance(a, np.ndarray)):
                    hidden |= {f"{x:.5g}" for x in array.ravel()[:50].tolist()}
                    if array.ndim > 1:
                        hidden.add(str(array.shape))
    # Numbers of a few digits stand in texts and styles anyway, and say nothing.
    hidden = {text for text in hidden if len(text) > 5 and not text.startswith("(2, 1,")}
    # Nor does what everybody was handed: the logsumexp of two thousands, 1000.693, begins like many a number.
    handed = "".join((folder / "exercises" / stem / f"{stem}.ipynb").read_text() for stem in CLASS)
    hidden = {text for text in hidden if text not in handed}
    assert len(hidden) > 1000
    for student, stem in HANDED_IN:
        text = text_of(folder, student, stem)
        assert not [number for number in hidden if number in text], student


@pytest.mark.slow
def test_feedback_shows_no_traceback_of_ours(run):
    folder, done, _, _ = run
    for student, stem in HANDED_IN:
        text = text_of(folder, student, stem)
        for ours in ("check.py", "site-packages", "CheckFailed", str(Path(course.__file__).parent.parent)):
            assert ours not in text, student
        if student not in ("petra", "quinn"):  # their own cells failed, and IPython says where
            assert "Traceback" not in text, student
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_loud_code_costs_nothing_and_its_calls_are_silent(folder):
    text = text_of(folder, "dora", "puzzle")
    assert "this one is loud" in text
    assert "standardize was called with" not in text.replace('print("standardize was called with"', "")
    notebook = json.loads((folder / "autograded" / "dora" / "puzzle" / "puzzle.ipynb").read_text())
    cells = demo.cells_by_id(notebook)
    assert {output["name"] for output in cells["standardize"]["outputs"]} == {"stderr"}
    for identity in (f"check-standardize-{part}" for part in demo.PARTS):
        assert {output["name"] for output in cells[identity]["outputs"]} == {"stdout"}


@pytest.mark.slow
def test_it_was_the_secret_that_drew_the_cases(folder, classroom, monkeypatch, capsys):
    """Who knows the public cases by heart passes at home and is refused when graded."""
    tara = [s for s in demo.read_class("puzzle", classroom) if s.student == "tara"]
    path = demo.as_files(folder, "standardize", tara)["tara"]
    for secret, accepted in ((None, True), (str(folder / "secret"), False)):
        monkeypatch.delenv("NORMLAB_SECRET_FILE", raising=False)
        if secret:
            monkeypatch.setenv("NORMLAB_SECRET_FILE", secret)
        check.main(["standardize", str(path), "--json"])
        assert json.loads(capsys.readouterr().out)["accepted"] is accepted


# -- It would notice -------------------------------------------------------------------------------------------------

WORTH = {"standardize": {"values": 12, "numerics": 5, "edges": 3}}
SENTENCE = "standardize: yours divides by n-1."


def judged(
    score=5, sentence=SENTENCE, accepted=False, mistake="divides-by-n-1", reason=SENTENCE, predicted=0, asked=True
):
    answer = demo.Answer("", frozenset({"numerics", "edges"}), "divides-by-n-1", broken=False)
    submission = demo.Submission("zoe", "puzzle", "", {"standardize": answer})
    scores = {"check-standardize-values": 0, "check-standardize-numerics": score, "check-standardize-edges": 3}
    verdicts = {"standardize": {"accepted": accepted, "mistake": mistake, "reason": SENTENCE}} if asked else {}
    scores["measure-scale"] = predicted
    told = {("standardize", "values"): sentence}
    return list(demo.judge(submission, WORTH, {"scale": 1}, scores, told, verdicts))


def test_judge_notices_every_disagreement():
    assert judged() == []
    assert judged(score=0) == ["zoe, standardize, numerics: the grade is 0, and the answer deserves 5"]
    assert judged(score=None) == ["zoe, standardize, numerics: the grade is None, and the answer deserves 5"]
    assert judged(predicted=1) == ["zoe, prediction scale: the grade is 1, and the answer deserves 0"]
    assert judged(accepted=True) == ["zoe, standardize: the command line accepts the answer"]
    assert judged(asked=False, accepted=True) == []
    assert judged(mistake=None) == ["zoe, standardize: the command line takes the mistake for None"]
    assert len(judged(sentence="another")) == 1


@pytest.mark.parametrize(("wrong", "status"), [([], 0), (["zoe, standardize: wrong"], 1)])
def test_exit_status_says_whether_all_agreed(tmp_path, monkeypatch, capsys, wrong, status):
    monkeypatch.setattr(demo, "run", lambda *_: wrong)
    assert demo.main([str(tmp_path)]) == status
    assert capsys.readouterr().err == ("" if not wrong else "Not as it should be:\nzoe, standardize: wrong\n")


# -- Where it cannot run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", course.NEEDED)
def test_a_missing_package_gets_a_sentence(tmp_path, monkeypatch, capsys, package):
    found = course.find_spec
    monkeypatch.setattr(course, "find_spec", lambda name: None if name == package else found(name))
    # The package is missing: nothing may import it before the sentence is said.
    monkeypatch.setitem(sys.modules, package, None)
    assert demo.main([str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{package} is not installed in this Python, and ")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_missing_alembic_gets_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(course.shutil, "which", lambda *_, **__: None)
    assert demo.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("The command alembic is missing")


def test_missing_notebooks_get_a_sentence(repo, tmp_path, monkeypatch, capsys):
    (tmp_path / "checkout").mkdir()
    shutil.copy(repo / "nbgrader_config.py", tmp_path / "checkout")
    monkeypatch.setattr(course, "ROOT", tmp_path / "checkout")
    assert demo.main([str(tmp_path / "class")]) == 2
    assert capsys.readouterr().err == "solutions/puzzle/puzzle.ipynb is missing: make notebooks\n"


def test_a_folder_in_use_or_in_the_checkout_is_refused(repo, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert demo.main([str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert demo.main([str(repo / "class")]) == 2
    assert "is inside the checkout" in capsys.readouterr().err
    assert not (repo / "class").exists()


def test_a_command_that_fails_stops_with_a_sentence(tmp_path):
    course.make(tmp_path, ["puzzle"])
    with course.workers(tmp_path) as pool:
        assert pool.submit(course.nbgrader, "autograde", "no_such_assignment").result() != 0
    assert "No notebooks were matched" in (tmp_path / "nbgrader.log").read_text()


# -- What nbgrader shows of a refusal --------------------------------------------------------------------------------


def test_a_refusal_renders_as_its_sentence_alone():
    lines = CheckFailed("standardize: one sentence.")._render_traceback_()
    assert " ".join("\n".join(lines).split()) == "standardize: one sentence."
