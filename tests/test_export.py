"""The files for Canvas and Moodle, read back by the rules of those two, from a gradebook that nbgrader made."""

import csv
import doctest
import io
import os
import re
import subprocess
import sys
import warnings
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from grading import dates, export, late
from grading.export import Row, Unexportable

pytest.importorskip("nbgrader")
from nbgrader.api import Gradebook

DUE = datetime(2026, 12, 1, 17)
# id: first, last, email, lms_user_id
PEOPLE = {
    "ada": ("Ada", "Smith, Jones", "ada@example.org", "501"),
    "ben": ("Ben", 'O"Brien \\', "Ben@example.org", "502"),
    "chi": ("千", "李", "chi@example.org", "503"),
    "dot": ("=cmd|' /C calc'!A0", "+1", "dot@example.org", "504"),
    "eve": ("Eve", "\nNew\nLine;", "eve@example.org", "505"),
    "fay": (None, None, "fay@example.org", "506"),
}


def fill(book):
    """softmax: 20 points in two cells; puzzle: 60. ada all and 3 of extra credit, ben late by 2, chi 7.25 of 20, dot an
    extension and nothing handed in, eve 0 points, fay nothing."""
    for name, worth in (("softmax", (12, 8)), ("puzzle", (60,))):
        book.add_assignment(name, duedate=DUE)
        book.add_notebook(name, name)
        for number, points in enumerate(worth):
            book.add_grade_cell(f"check-{number}", name, name, max_score=points, cell_type="code")
            book.add_source_cell(f"check-{number}", name, name, cell_type="code", source="")
    for id, (first, last, email, lms) in PEOPLE.items():
        book.add_student(id, first_name=first, last_name=last, email=email, lms_user_id=lms)
    for id, scores in {"ada": (12, 8), "ben": (12, 8), "chi": (7.25, 0), "eve": (0, 0)}.items():
        submission = book.add_submission("softmax", id)
        if id != "chi":  # zip_collect knows no time
            submission.timestamp = DUE + timedelta(hours=1 if id == "ben" else -1)
        (notebook,) = submission.notebooks
        for number, score in enumerate(scores):
            grade = book.find_grade(f"check-{number}", "softmax", "softmax", id)
            grade.auto_score, grade.needs_manual_grade = score, False
            grade.extra_credit = 3 if (id, number) == ("ada", 0) else None
        notebook.late_submission_penalty = 2 if id == "ben" else None
    book.add_submission("softmax", "dot")
    book.grant_extension("softmax", "dot", days=2)
    book.db.commit()


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    (folder / "nbgrader_config.py").write_text('c = get_config()\nc.CourseDirectory.course_id = "normlab"\n')
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"  # nbgrader calls alembic by its name
    with warnings.catch_warnings(), Gradebook(f"sqlite:///{folder / 'gradebook.db'}", "normlab") as book:
        warnings.simplefilter("ignore")  # nbgrader's own way with SQLAlchemy
        fill(book)
    os.environ["PATH"] = before
    return folder


@pytest.fixture
def content(course):
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}", "normlab") as book:
        return export.read(book)


def write(table):
    file = io.StringIO(newline="")
    csv.writer(file).writerows(table)
    return file.getvalue()


def canvas_imports(text, students, assignments):
    """What Canvas would enter: {(student number, assignment or new title): grade}, and the points of new assignments.

    students [(number, sis, login, name, sortable name)]; assignments {number: title}. By the rules of its importer.
    """
    # It guesses the separator by the first three lines, each parsed by itself.
    first = text.splitlines()[:3]
    counts = {mark: {len(next(csv.reader([line], delimiter=mark))) for line in first} for mark in ";,"}
    counts = {mark: found.pop() if len(found) == 1 else 0 for mark, found in counts.items()}
    delimiter = ";" if counts[";"] > counts[","] else ","
    kept = [line for line in csv.reader(io.StringIO(text), delimiter=delimiter) if re.search("[^;, ]", "".join(line))]
    header, *lines = ([export.as_canvas_reads(field) for field in line] for line in kept)
    wanted = ("Student", "ID", r"SIS\s+User\s+ID", r"SIS\s+Login\s+ID", "Section")
    assert all(re.search(pattern, heading) for pattern, heading in zip(wanted, header[:5], strict=True))
    columns = {}
    for position, heading in enumerate(header[5:], 5):
        if re.search("Current Score|Final Score|Current Grade|Final Grade|Current Points|Final Points", heading):
            continue
        match = re.fullmatch(r"(.*)\s\((\d+)\)", heading)
        known = int(match[2]) if match and int(match[2]) in assignments else None
        known = known or next((number for number, title in assignments.items() if title == heading), None)
        columns[position] = known or (match[1] if match else heading)
    entered, points = {}, {}
    for line in lines:
        if "Points Possible" in line[0]:
            points = {columns[position]: line[position] for position in columns}
            continue
        digits = int(re.match(r"\d*", line[1])[0] or 0)
        who = next((s for s in students if s[0] == digits), None)
        who = who or next((s for s in students if line[2] and s[1] == line[2]), None)
        who = who or next((s for s in students if line[3] and s[2] == line[3]), None)
        who = who or next((s for s in students if line[0] in s[3:]), None)
        for position, title in columns.items():
            entered[who[0] if who else f"new: {line[0]}", title] = line[position].strip()
    return entered, points


def moodle_imports(text, users, identified_by, most=100):
    """{(user, heading): grade or None}, or ("refused", why): Moodle's reader and importer. users {user: identifier}."""
    lines = list(
        csv.reader(io.StringIO(text.removeprefix("\ufeff").replace("\r\n", "\n"), newline=""), escapechar="\\")
    )
    header, *lines = [[field.strip() for field in line] for line in lines]
    if any(len(line) != len(header) for line in lines):
        return "refused", "weird columns"
    key, names = header.index(identified_by), {"First name", "Last name"}
    entered, user = {}, None
    for line in lines:
        if line[key] not in ("", "0"):
            user = next((name for name, identity in users.items() if identity == line[key]), None)
            if user is None:
                return "refused", f"no user {line[key]}"
        for heading, value in zip(header, line, strict=True):
            if heading == identified_by or heading in names:
                continue
            if value in ("", "-"):
                entered[user, heading] = None
            elif not re.fullmatch(r"-?\d+(\.\d+)?", value):
                return "refused", f"bad grade {value}"
            elif float(value) > most:
                return "refused", f"{value} is too big"
            else:
                entered[user, heading] = float(value)
    return entered


# -- From the gradebook to the platform ------------------------------------------------------------------------------

CANVAS_CLASS = [(500 + n, f"sis-{id}", id, f"{id} of Canvas", f"Canvas, {id}") for n, id in enumerate(PEOPLE, 1)]


def test_the_gradebook_is_read_as_it_is(content):
    worth, rows, waiting = content
    assert worth == {"softmax": 20, "puzzle": 60}
    assert {row.id: row.scores for row in rows} == {
        "ada": {"softmax": 23},
        "ben": {"softmax": 18},
        "chi": {"softmax": 7.25},
        "dot": {},
        "eve": {"softmax": 0},
        "fay": {},
    }
    assert waiting == 0
    assert {row.id: row.last for row in rows if row.id in ("eve", "fay")} == {"eve": "New Line;", "fay": ""}


@pytest.mark.parametrize("id_is", ["login", "sis", "canvas"])
@pytest.mark.parametrize("with_number", [True, False])
def test_canvas_enters_every_grade_for_its_student(content, id_is, with_number):
    worth, rows, _ = content
    named = [Row(**{**vars(row), "lms": row.lms if with_number else ""}) for row in rows]
    people = CANVAS_CLASS
    if id_is == "canvas":
        numbers = {row.id: str(900 + n) for n, row in enumerate(rows)}
        named = [Row(**{**vars(row), "id": numbers[row.id]}) for row in named]
        people = [(int(numbers[login]), sis, login, *rest) for _, sis, login, *rest in people]
    if id_is == "sis":
        people = [(number, login, "another login", *rest) for number, _, login, *rest in people]
    table = export.canvas(worth, named, id_is=id_is, assignment_ids={"softmax": 77})
    entered, points = canvas_imports(write(table), people, {77: "Another title"})
    by_login = dict(zip(PEOPLE, (number for number, *_ in people), strict=True))
    expected = {"ada": "23", "ben": "18", "chi": "7.25", "dot": "", "eve": "0", "fay": ""}
    assert entered == {
        **{(by_login[id], 77): grade for id, grade in expected.items()},
        **{(by_login[id], "puzzle"): "" for id in expected},
    }
    assert points == {77: "20", "puzzle": "60"}


def test_canvas_finds_an_assignment_by_its_title(content):
    worth, rows, _ = content
    entered, _ = canvas_imports(write(export.canvas(worth, rows)), CANVAS_CLASS, {9: "softmax"})
    assert entered[501, 9] == "23"
    assert (501, "puzzle") in entered


@pytest.mark.parametrize("match", ["email", "username", "idnumber"])
def test_moodle_enters_every_grade_for_its_student(content, match):
    worth, rows, _ = content
    users = {row.id: {"email": row.email, "username": row.id, "idnumber": row.lms}[match] for row in rows}
    entered = moodle_imports(write(export.moodle(worth, rows, match=match)), users, export.MOODLE[match])
    expected = {"ada": 23, "ben": 18, "chi": 7.25, "dot": None, "eve": 0, "fay": None}
    assert entered == {
        **{(id, "softmax"): grade for id, grade in expected.items()},
        **{(id, "puzzle"): None for id in expected},
    }


def test_moodle_takes_percent(content):
    _, rows, _ = content
    users = {row.id: row.email for row in rows}
    table = export.moodle({"softmax": 20}, rows[1:], out_of=100)
    entered = moodle_imports(write(table), users, "Email address")
    assert (entered["ben", "softmax"], entered["chi", "softmax"]) == (90, 36.25)


def test_zero_for_who_handed_nothing_in(content):
    worth, rows, _ = content
    assert [line[5:] for line in export.canvas(worth, rows, missing="zero")[2:]].count(["0", "0"]) == 3
    assert [line[3:] for line in export.moodle(worth, rows, missing="zero")[1:]].count(["0", "0"]) == 3


@pytest.mark.parametrize("make", [export.canvas, export.moodle])
def test_nothing_that_a_spreadsheet_would_run(content, make):
    worth, rows, _ = content
    for line in csv.reader(io.StringIO(write(make(worth, rows)), newline="")):
        assert not any(field.lstrip().startswith(("=", "+", "@")) for field in line)
        assert not any(field.startswith("-") and field != "-" for field in line)


# -- What would be read wrongly is refused ---------------------------------------------------------------------------

ONE = Row("ada", "Ada", "Smith", "ada@example.org", "501", {"softmax": 3.0})


def changed(**fields):
    return Row(**{**vars(ONE), **fields})


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (changed(lms="12ab"), "Canvas' ID is a number, and '12ab'"),
        (changed(id="2026.7.31"), "takes the student id 2026.7.31 for a number: 20267.31"),
        (changed(id="=cmd"), "begins like a formula"),
        (changed(first="Points Possible"), "for the points possible"),
    ],
)
def test_canvas_refuses(row, sentence):
    with pytest.raises(Unexportable, match=re.escape(sentence)):
        export.canvas({"softmax": 20}, [row])


@pytest.mark.parametrize("name", ["Final Score", "Current Points of May", "Section"])
def test_canvas_keeps_headings(name):
    with pytest.raises(Unexportable, match="rename the assignment"):
        export.canvas({name: 20}, [ONE])


def test_canvas_numbers_its_assignments():
    with pytest.raises(Unexportable, match="Canvas numbers its assignments"):
        export.canvas({"softmax": 20}, [ONE], assignment_ids={"softmax": "12)"})


@pytest.mark.parametrize(
    ("row", "options", "sentence"),
    [
        (changed(email=""), {}, "ada has no email, and Moodle would give the grade to the student one row above"),
        (changed(lms="0"), {"match": "idnumber"}, "no lms_user_id"),
        (changed(id="Ada"), {"match": "username"}, "lower case"),
        (changed(email="@ada"), {}, "begins like a formula"),
        (changed(scores={"softmax": 100.5}), {}, "ada has 100.5 in softmax"),
    ],
)
def test_moodle_refuses(row, options, sentence):
    with pytest.raises(Unexportable, match=re.escape(sentence)):
        export.moodle({"softmax": 200}, [row], **options)


def test_moodle_would_give_a_grade_to_the_student_above():
    """Why a blank identifier is refused: the importer keeps the student of the row before."""
    table = [["Email address", "softmax"], ["ada@example.org", "3"], ["", "20"]]
    assert moodle_imports(write(table), {"ada": "ada@example.org"}, "Email address") == {("ada", "softmax"): 20}


@pytest.mark.parametrize(("make", "field"), [(export.canvas, "lms"), (export.moodle, "email")])
def test_two_students_with_one_identifier(make, field):
    twin = changed(**{"id": "bea", field: getattr(ONE, field)})
    with pytest.raises(Unexportable, match="ada and bea have the same"):
        make({"softmax": 20}, [ONE, twin])


@pytest.mark.parametrize("module", [export, dates, late])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# -- As nbgrader's command -------------------------------------------------------------------------------------------


def nbgrader(folder, *arguments):
    program = Path(sys.executable).with_name("nbgrader")
    variables = {
        **os.environ,
        "PYTHONPATH": str(Path(export.__file__).parents[1]),
        "JUPYTER_CONFIG_DIR": str(folder / "none"),
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "nbgrader", *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_command_writes_the_file(course):
    plugin = "grading.export.CanvasExporter"
    options = ["--assignment", "['softmax']", "--CanvasExporter.missing=zero", "--to", "here.csv"]
    done = nbgrader(course, "export", "--exporter", plugin, *options)
    assert done.returncode == 0, done.stderr
    entered, points = canvas_imports((course / "here.csv").read_text(encoding="utf-8"), CANVAS_CLASS, {9: "softmax"})
    assert points == {9: "20"}
    assert {entered[number, 9] for number, *_ in CANVAS_CLASS} == {"23", "18", "7.25", "0"}
    assert "6 students, 1 assignments: here.csv" in done.stderr
    assert not list(course.glob(".*part"))


@pytest.mark.slow
def test_the_command_says_why_not(course):
    done = nbgrader(course, "export", "--exporter", "grading.export.MoodleExporter", "--assignment", "['sofmax']")
    assert done.returncode == 1
    assert "Nothing was exported: the gradebook has no assignment sofmax; it has puzzle, softmax" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (course / "moodle.csv").exists()
