"""A class on one machine, from release to export, through nbgrader's own exchange; then dates, lateness, and the best.

Each student is an identity of its own with a folder and a cache of its own, as on a shared machine.
"""

import contextlib
import csv
import importlib
import io
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from grading_course import without_torch

from grading import best, course, dates, demo, export
from grading.here import Unready
from grading.late import DAY, percent
from normlab.misconceptions import of

pytest.importorskip("nbgrader")
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.utils import parse_utc

ROOT = Path(__file__).resolve().parent.parent
STEM = "puzzle"
ANSWERS = {
    submission.student: submission.answers
    for submission in demo.read_class(STEM)
    if submission.student in ("ada", "emil", "quinn", "rosa")
}
RIGHT = ANSWERS["ada"]["standardize"].code
N_MINUS_1 = ANSWERS["emil"]["standardize"].code
assert ANSWERS["emil"]["standardize"].mistake == "divides-by-n-1"


# -- The day ---------------------------------------------------------------------------------------------------------


def own_command(module, arguments):
    """Exit status and output of one of our commands, in a worker that has imported nbgrader already."""
    with io.StringIO() as printed, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = importlib.import_module(f"grading.{module}").main(arguments)
        return status, printed.getvalue()


def learners_command(home, zone, *arguments):
    """Exit status of an nbgrader command line in another folder, under another zone, in a worker."""
    teacher = os.getcwd()
    os.chdir(home)
    os.environ["TZ"] = zone
    time.tzset()
    try:
        return course.nbgrader(*arguments)
    finally:
        os.chdir(teacher)
        os.environ["TZ"] = "UTC"
        time.tzset()


def enter(folder, variables):
    """As course._enter, in a process whose path was set before."""
    course._enter(folder, variables)
    sys.path[:0] = variables["PYTHONPATH"].split(os.pathsep)


class Day:
    """Folders of a course, an exchange and some students below `folder`, and nbgrader's commands run in them."""

    def __init__(self, folder):
        self.folder, self.course, self.exchange = folder, folder / "course", folder / "exchange"
        self.course.mkdir()
        self.exchange.mkdir()
        self.exchange.chmod(0o777)
        course.make(self.course, [STEM])
        self.shorten(self.course / "solutions" / STEM / f"{STEM}.ipynb")
        with open(self.course / "nbgrader_config.py", "a") as file:
            file.write(
                f"c.Exchange.root = {str(self.exchange)!r}\n"
                "c.ExchangeCollect.check_owner = False\n"  # here all students are one user of the system
                'c.AssignLatePenalties.plugin_class = "grading.late.LatePenalty"\n'
                "c.LatePenalty.grace_minutes = 0\n"
            )
        # A fork would inherit that warnings are errors here; nbgrader warns.
        context = multiprocessing.get_context("spawn")
        variables = course.environment(self.course)
        variables["PYTHONPATH"] += os.pathsep + str(without_torch(self.course))
        self.pool = ProcessPoolExecutor(1, context, enter, (str(self.course), variables))

    def shorten(self, path):
        """Leave out of a notebook what takes PyTorch, which takes seconds to import: nobody here answers it."""
        notebook = json.loads(path.read_text())
        left_out = ("scale", "old_output", "old_output-values", "old_output-numerics", "old_output-edges")
        kept = [cell for cell in notebook["cells"] if not cell["id"].endswith(left_out)]
        path.write_text(json.dumps(notebook | {"cells": kept}))

    def teach(self, *arguments):
        """One command of the instructor; fails the test if it fails."""
        assert self.pool.submit(course.nbgrader, *arguments).result(300) == 0, (
            self.course / "nbgrader.log"
        ).read_text()

    def run(self, module, *arguments, status=0):
        """What one of our own commands prints, run in the course folder."""
        done, printed = self.pool.submit(own_command, module, arguments).result(300)
        assert done == status, printed
        return printed

    def learn(self, student, *commands, zone="UTC"):
        """nbgrader commands of a student, in their folder, with a clock of their zone."""
        home = self.folder / student
        home.mkdir(exist_ok=True)
        (home / "nbgrader_config.py").write_text(
            f"c = get_config()\nc.CourseDirectory.course_id = 'normlab'\nc.CourseDirectory.student_id = {student!r}\n"
            f"c.Exchange.root = {str(self.exchange)!r}\nc.Exchange.cache = {str(home / 'cache')!r}\n"
        )
        for name in commands:
            done = self.pool.submit(learners_command, str(home), zone, name, STEM).result(120)
            assert done == 0, (self.course / "nbgrader.log").read_text()

    def write(self, student, code):
        """Put code into the answer cell of `standardize`; None puts the release back."""
        path = self.folder / student / STEM / f"{STEM}.ipynb"
        notebook = json.loads(path.read_text())
        cells = demo.cells_by_id(notebook)
        cells["standardize"]["source"] = code or "raise NotImplementedError"
        path.write_text(json.dumps(notebook))

    def book(self):
        return Gradebook(f"sqlite:///{self.course / 'gradebook.db'}", "normlab")

    def scores(self):
        with self.book() as book:
            return {s.student.id: export.net(s) for s in book.assignment_submissions(STEM) if export.handed_in(s)}


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """The whole day up to feedback; what it printed is in `said`.

    ada hands in a known mistake in time, then the right answer late. ben the right answer in time, then late nothing.
    chi joins late with an extension. dot hands in a known mistake, late. eve fetches and hands nothing in.
    """
    day = Day(tmp_path_factory.mktemp("day"))
    said = day.said = {}
    with day.pool:
        day.teach("generate_assignment", STEM)
        day.teach("release_assignment", STEM)
        for student, code in (("ada", N_MINUS_1), ("ben", RIGHT)):
            day.learn(student, "fetch_assignment", zone="Asia/Tokyo")
            day.write(student, code)
            day.learn(student, "submit", zone="Asia/Tokyo")
        day.learn("eve", "fetch_assignment")
        (day.course / "students.csv").write_text(
            "id,first_name,last_name,email,lms_user_id\neve,Eve,Ó Briain,eve@example.org,505\n", encoding="utf-8"
        )
        day.teach("db", "student", "import", "students.csv")
        day.due = datetime.now(UTC).replace(tzinfo=None)
        local = day.due + timedelta(hours=9)
        said["due"] = day.run("dates", "due", STEM, local.isoformat(), "--zone", "Asia/Tokyo")
        for student, code in (("ada", RIGHT), ("ben", None)):
            day.write(student, code)
            day.learn(student, "submit", zone="America/New_York")
        day.teach("db", "student", "add", "chi", "--first-name=Chi", "--last-name=Wu", "--email=chi@example.org")
        said["extend"] = day.run("dates", "extend", STEM, "chi", "--days", "2")
        for student, code in (("chi", RIGHT), ("dot", N_MINUS_1)):
            day.learn(student, "fetch_assignment")
            day.write(student, code)
            day.learn(student, "submit")
        day.teach("collect", STEM)
        day.last = {
            student: (day.course / "submitted" / student / STEM / "timestamp.txt").read_text()
            for student in ("ada", "ben", "chi", "dot")
        }
        for student in ("chi", "dot"):
            day.teach("autograde", STEM, "--student", student)
        said["best"] = day.run("best", STEM)
        day.after_best = day.scores()
        with day.book() as book:
            grade = book.find_grade("check-standardize-values", STEM, STEM, "chi")
            grade.extra_credit = 3
            paragraph = book.find_grade("explanation-puzzle", STEM, STEM, "dot")
            paragraph.manual_score, paragraph.needs_manual_grade = 4, False
            book.db.commit()
        said["penalties"] = day.run("dates", "penalties", STEM)
        day.teach("generate_feedback", STEM)
        day.teach("release_feedback", STEM)
        for student in ("ada", "dot"):
            day.learn(student, "fetch_feedback")
        said["report"] = day.run("report", STEM)
        day.teach("export", "--exporter", "grading.export.CanvasExporter")
        yield day


def inbound(day, student):
    """Times of what a student handed in, the earliest first."""
    folders = (day.exchange / "normlab" / "inbound").glob(f"{student}+{STEM}+*")
    return sorted(parse_utc(folder.name.split("+")[2]) for folder in folders)


def feedback(day, student):
    (page,) = (day.folder / student / STEM / "feedback").glob(f"*/{STEM}.html")
    return page.parent.name, re.sub(r"\s+", " ", page.read_text())


@pytest.mark.slow
def test_time_zones_are_right(day):
    """Three clocks, one time: the due date was given in Tokyo, handed in was in Tokyo and New York."""
    with day.book() as book:
        assert abs(book.find_assignment(STEM).duedate - day.due) < timedelta(seconds=1)
        late = {s.student.id: s.total_seconds_late for s in book.assignment_submissions(STEM) if export.handed_in(s)}
    first, second = inbound(day, "ada")
    assert first < day.due < second < day.due + timedelta(minutes=5)
    assert 0 < late["ada"] < 300
    assert 0 < late["dot"] < 300
    assert (late["ben"], late["chi"]) == (0, 0)
    assert f"{day.due + timedelta(hours=9):%H:%M} Asia/Tokyo ({day.due:%Y-%m-%d %H:%M} UTC)" in day.said["due"]


@pytest.mark.slow
def test_nbgrader_collects_the_last(day):
    for student in ("ada", "ben"):
        assert parse_utc(day.last[student]) == inbound(day, student)[-1]


@pytest.mark.slow
def test_the_best_counts(day):
    # ada: nothing in time, 20 less a tenth late. ben: 20 in time, 0 late. chi has an extension.
    assert day.after_best == {"ada": 18, "ben": 20, "chi": 20, "dot": 0}
    assert day.said["best"].splitlines() == [
        "ada: 0, 18; kept 2 of 2",
        "ben: 20, 0; kept 1 of 2",
        "chi: 20, graded before",
        "dot: 0, graded before",
    ]
    with day.book() as book:
        assert [book.find_submission(STEM, "ben").timestamp] == inbound(day, "ben")[:1]
    for kind in ("submitted", "autograded"):
        kept = (day.course / kind / "ben" / STEM / "timestamp.txt").read_text()
        assert [parse_utc(kept)] == inbound(day, "ben")[:1]
    assert not list((day.course / "submitted").glob("*/.*"))


@pytest.mark.slow
def test_points_given_later_are_late_too(day):
    """The paragraph of dot, read after autograding, is as late as the rest."""
    assert "the penalty of dot is 0.4, and was 0" in day.said["penalties"]
    assert day.scores()["dot"] == pytest.approx(3.6)


@pytest.mark.slow
def test_feedback_comes_back_to_its_student(day):
    kept, page = feedback(day, "dot")
    assert [parse_utc(kept)] == inbound(day, "dot")
    assert "divides by n-1" in page
    assert "standardize: on" in page
    kept, page = feedback(day, "ada")
    assert [parse_utc(kept)] == inbound(day, "ada")[1:]
    assert "divides by n-1" not in page
    assert "Late submission penalty (Score: -2.0)" in page


@pytest.mark.slow
def test_export_at_the_end(day):
    with open(day.course / "canvas.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = {row["SIS Login ID"]: row[STEM] for row in rows}
    with day.book() as book:
        worth = book.find_assignment(STEM).max_score
    # chi has three points of extra credit; eve fetched, and handed nothing in.
    assert table == {"": export.number(worth), "ada": "18", "ben": "20", "chi": "23", "dot": "3.6", "eve": ""}
    assert [(row["Student"], row["ID"]) for row in rows if row["SIS Login ID"] == "eve"] == [("Ó Briain, Eve", "505")]


@pytest.mark.slow
def test_the_report_names_what_the_check_named(day):
    """The mistake that autograding wrote beside the verdict."""
    entry = of("standardize", "divides-by-n-1")
    assert f"     1  {entry.title} ({entry.kind}; {entry.chapter}, {entry.heading})" in day.said["report"]
    assert f"{STEM}: handed in 4 of 5" in day.said["report"]
    assert "1    0    3  standardize, values" in day.said["report"]
    assert not re.search(r"\b(ada|ben|chi|dot|eve)\b", day.said["report"])


@pytest.mark.slow
def test_who_joined_late_has_more_time(day):
    assert re.search(r"chi: \w+ \d{4}-\d\d-\d\d \d\d:\d\d UTC", day.said["extend"])
    with day.book() as book:
        submission = book.find_submission(STEM, "chi")
        assert submission.duedate - submission.assignment.duedate == timedelta(days=2)
        assert (submission.student.last_name, submission.student.email) == ("Wu", "chi@example.org")


@pytest.mark.slow
def test_grading_shows_numbers_and_no_names(day):
    """What formgrader shows when somebody reads paragraphs: the submissions are numbered, and not by name."""
    from nbgrader.apps.api import NbGraderAPI
    from nbgrader.coursedir import CourseDirectory

    api = NbGraderAPI(
        CourseDirectory(root=str(day.course), course_id="normlab", db_url=f"sqlite:///{day.course / 'gradebook.db'}")
    )
    submissions = api.get_notebook_submissions(STEM, STEM)
    assert {s["student"]: s["index"] for s in submissions}.keys() == {"ada", "ben", "chi", "dot"}
    assert sorted(s["index"] for s in submissions) == [0, 1, 2, 3]
    by_name = [s["index"] for s in sorted(submissions, key=lambda s: s["student"])]
    by_id = [s["index"] for s in sorted(submissions, key=lambda s: s["id"])]
    assert by_id == [0, 1, 2, 3]  # random identities decide the number
    assert len(by_name) == 4


@pytest.mark.slow
def test_hand_given_points_stay(day):
    out = day.run("best", STEM, "--student", "dot")
    assert "dot: 3.6, graded before" in out
    extra = day.exchange / "normlab" / "inbound" / f"dot+{STEM}+2026-01-01 00:00:00.000000 UTC+x"
    shutil.copytree(next((day.exchange / "normlab" / "inbound").glob(f"dot+{STEM}+*")), extra)
    try:
        assert "dot: points were given by hand, so nothing is changed" in day.run("best", STEM, "--student", "dot")
    finally:
        shutil.rmtree(extra)
    assert day.scores()["dot"] == pytest.approx(3.6)
    command = [sys.executable, "-m", "grading.best", STEM, "--student", "nobody"]
    variables = course.environment(day.course)
    done = subprocess.run(command, cwd=day.course, env=variables, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"nobody handed nothing in for {STEM}\n"


# -- Which attempts count --------------------------------------------------------------------------------------------


def handed_in(folder, name):
    (folder / name).mkdir(parents=True)


def test_attempts_are_in_the_order_of_time(tmp_path):
    times = (
        "2026-12-01 09:00:00.5 UTC",
        "2026-11-30 23:00:00 UTC",
        "2026-12-01 09:00:00 UTC",
        "2026-12-01 09:45:00 CET",
    )
    for number, moment in enumerate(times):
        handed_in(tmp_path, f"ada+softmax+{moment}+r{number}")
    handed_in(tmp_path, "a+da+softmax+2026-12-01 09:00:00 UTC")
    handed_in(tmp_path, "ada+softmax2+2026-12-01 09:00:00 UTC+r")
    handed_in(tmp_path, "ada+softmax+tomorrow+r")
    (tmp_path / "bea+softmax+2026-12-01 09:00:00 UTC+r").symlink_to(tmp_path)
    found, refused = best.attempts(tmp_path, "softmax", check_owner=False)
    assert {student: [a.folder.name[-2:] for a in own] for student, own in found.items()} == {
        "ada": ["r1", "r3", "r2", "r0"],
        "a+da": ["TC"],
    }
    assert refused == ["ada+softmax+tomorrow+r names no time: it does not count"]


def test_nobody_hands_in_for_another(tmp_path):
    name = "somebody-else+softmax+2026-12-01 09:00:00 UTC+r"
    handed_in(tmp_path, name)
    found, refused = best.attempts(tmp_path, "softmax")
    assert found == {}
    assert refused == [f"{name} belongs to {best.owner(tmp_path)}: it does not count"]


class Fake:
    """A grader that knows the points and remembers what it was asked."""

    def __init__(self, *points):
        self.points, self.asked = points, []

    def grade(self, place):
        self.asked.append(place)
        return self.points[place]


@pytest.mark.parametrize(
    ("points", "kept", "asked"),
    [
        ((5, 9, 7), 1, [0, 1, 2, 1]),
        ((5, 7, 9), 2, [0, 1, 2]),
        ((9, 9), 1, [0, 1]),
        ((None, 0), 1, [0, 1]),
        ((0, None), 0, [0, 1, 0]),
        ((None, None), None, [0, 1]),
    ],
)
def test_the_best_is_graded_last(points, kept, asked):
    fake = Fake(*points)
    assert best.keep_best(fake, list(range(len(points)))) == (kept, list(points))
    assert fake.asked == asked


# -- Dates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zone", "utc"),
    [
        ("2026-12-01 18:00", "Europe/Berlin", "2026-12-01 17:00"),
        ("2026-07-01 18:00", "Europe/Berlin", "2026-07-01 16:00"),
        ("2026-12-01T18:00:30", "America/New_York", "2026-12-01 23:00:30"),
        ("2026-12-01 18:00+05:30", None, "2026-12-01 12:30"),
        ("2026-12-01 18:00", "UTC", "2026-12-01 18:00"),
    ],
)
def test_moments(text, zone, utc):
    assert dates.moment(text, zone) == datetime.fromisoformat(utc)


@pytest.mark.parametrize(
    ("text", "zone", "sentence"),
    [
        ("2026-12-01 18:00", None, "where?"),
        ("2026-12-01", "UTC", "at what time"),
        ("1.12.2026 18:00", "UTC", "is no date and time"),
        ("2026-12-01 18:00", "CEST", "there is no time zone CEST"),
        ("2026-12-01 18:00", "../etc/passwd", "there is no time zone"),
        ("2026-12-01 18:00+01:00", "Europe/Berlin", "has a zone of its own"),
        ("2026-10-25 02:30", "Europe/Berlin", "twice that night"),
        ("2026-03-29 02:30", "Europe/Berlin", "never that night"),
    ],
)
def test_moments_that_are_none(text, zone, sentence):
    with pytest.raises(Unready, match=re.escape(sentence)):
        dates.moment(text, zone)


def test_why_dates_go_through_us():
    """nbgrader takes an offset for seconds and an unknown zone for UTC; when that is mended, the page can say less."""
    assert parse_utc("2026-12-01 18:00:00 +0100") == datetime(2026, 12, 1, 17, 58, 20)
    assert parse_utc("2026-07-01 18:00:00 CEST") == datetime(2026, 7, 1, 18)


# -- Lateness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "options", "lost"),
    [
        (0, {}, 0),
        (15 * 60, {}, 0),
        (15 * 60 + 1, {}, 10),
        (1, {"grace_minutes": 0}, 10),
        (DAY, {}, 10),
        (DAY + 1, {}, 20),
        (30 * DAY, {}, 50),
        (30 * DAY, {"most": 100}, 100),
        (7 * DAY, {"closed_after_days": 7}, 50),
        (7 * DAY + 1, {"closed_after_days": 7}, 100),
        (DAY, {"per_day": 0}, 0),
    ],
)
def test_what_lateness_costs(seconds, options, lost):
    settings = {"per_day": 10, "most": 50, "grace_minutes": 15, "closed_after_days": 0, **options}
    assert percent(seconds, **settings) == lost


@pytest.fixture(scope="module")
def booked(tmp_path_factory):
    """A course folder with a gradebook, to copy: nbgrader takes seconds to make one."""
    folder = tmp_path_factory.mktemp("booked")
    (folder / "nbgrader_config.py").write_text(
        'c = get_config()\nc.AssignLatePenalties.plugin_class = "grading.late.LatePenalty"\n'
        "c.LatePenalty.per_day = 20\n"
    )
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        warnings.simplefilter("ignore")  # nbgrader's own way with SQLAlchemy
        with Gradebook(f"sqlite:///{folder / 'gradebook.db'}", "") as book:
            book.add_assignment("softmax", duedate=datetime(2026, 12, 1, 17))
            book.add_notebook("softmax", "softmax")
            book.add_grade_cell("check", "softmax", "softmax", max_score=20, cell_type="code")
            book.add_student("ada")
            book.add_student("ben")
            submission = book.add_submission("softmax", "ada")
            submission.timestamp = datetime(2026, 12, 1, 19)
            book.find_grade("check", "softmax", "softmax", "ada").auto_score = 10
            book.db.commit()
    return folder


@pytest.fixture
def small(booked, tmp_path, monkeypatch):
    """A course folder with a gradebook: one assignment that is due, one submission two hours late, 10 of 20 points."""
    shutil.copytree(booked, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "none"))
    return tmp_path


def net(student="ada"):
    with Gradebook("sqlite:///gradebook.db", "") as book:
        return export.net(book.find_submission("softmax", student))


def test_dates_that_move_take_the_penalty_along(small, capsys):
    assert dates.main(["penalties", "softmax"]) == 0
    assert "the penalty of ada is 2, and was 0" in capsys.readouterr().out
    assert net() == 8
    assert dates.main(["extend", "softmax", "ada", "--hours", "3"]) == 0
    assert "ada: Tue 2026-12-01 20:00 UTC" in capsys.readouterr().out
    assert net() == 10
    assert dates.main(["extend", "softmax", "ada"]) == 0
    assert net() == 8
    assert dates.main(["due", "softmax", "2026-12-01 20:00", "--zone", "Europe/Berlin"]) == 0
    assert "due Tue 2026-12-01 20:00 Europe/Berlin (2026-12-01 19:00 UTC)" in capsys.readouterr().out
    assert net() == 10


def test_an_extension_before_anything_is_handed_in(small):
    assert dates.main(["extend", "softmax", "ben", "--days", "1"]) == 0
    with Gradebook("sqlite:///gradebook.db", "") as book:
        assert not export.handed_in(book.find_submission("softmax", "ben"))
    assert net() == 8


def test_sentences_in_place_of_tracebacks(small, capsys):
    for arguments, sentence in (
        (["extend", "softmax", "zoe"], "no student zoe; there is one after: nbgrader db student add zoe"),
        (["due", "softmax", "2026-12-01 20:00", "--zone", "Berlin"], "no time zone Berlin"),
        (["extend", "softmax", "ada", "--days", "9", "--zone", "Berlin"], "no time zone Berlin"),
        (["due", "sofmax", "2026-12-01 20:00", "--zone", "UTC"], "no assignment sofmax; it has softmax"),
    ):
        assert dates.main(arguments) == 1
        assert sentence in capsys.readouterr().err
    with Gradebook("sqlite:///gradebook.db", "") as book:
        assert book.find_submission("softmax", "ada").extension is None
        book.update_or_create_assignment("softmax", duedate=None)
        with pytest.raises(MissingEntry):
            book.find_student("zoe")
    assert dates.main(["extend", "softmax", "ben", "--days", "1"]) == 1
    assert "nothing to extend" in capsys.readouterr().err
