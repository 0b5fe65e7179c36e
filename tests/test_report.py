"""The class report: the counts of a class whose gradebook and notebooks are made up here, and the page they make."""

import copy
import html.parser
import os
import re
import sys
import warnings
from datetime import date, datetime, timedelta
from pathlib import Path

import nbformat
import pytest

from grading import findings, report, report_page
from normlab.check import CheckFailed, check
from normlab.misconceptions import of
from normlab.mistakes import MISTAKES

pytest.importorskip("nbgrader")
from nbgrader.api import Gradebook

DUE = datetime(2026, 12, 1, 17)
STEM = "softmax"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> `</code><b>` &lt;"
# student: {exercise: what it did}. A slug: the whole exercise fails with it. Exercises not named are not attempted.
RIGHT = "right"
CLASS = {
    "ada": dict.fromkeys(("softmax", "logsumexp", "gumbel_max", "bayes_posterior"), RIGHT),
    "ben": {"softmax": "no-maximum", "logsumexp": "no-maximum", "gumbel_max": RIGHT},
    "chi": {"softmax": "no-maximum", "logsumexp": RIGHT},
    "dot": {"softmax": RIGHT, "logsumexp": "keeps-axis"},
    "eve": {"softmax": HOSTILE},
    "fay": {},
    "<b>gil": {"softmax": "no-exp"},
}
LATE, ABSENT, EXTENDED, WAITING = {"chi"}, "hal", "ivy", {"ada"}


def released(repo):
    return nbformat.read(repo / "exercises" / STEM / f"{STEM}.ipynb", as_version=4)


def by_id(notebook):
    return {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}


def fill(book, release):
    book.add_assignment(STEM, duedate=DUE)
    book.add_notebook(STEM, STEM)
    for name, cell in by_id(release).items():
        marks = cell.metadata.nbgrader
        if marks.grade and marks.points:
            book.add_grade_cell(name, STEM, STEM, max_score=marks.points, cell_type=cell.cell_type)
        book.add_source_cell(name, STEM, STEM, source=cell.source, cell_type=cell.cell_type)
    for student in (*CLASS, ABSENT, EXTENDED):
        book.add_student(student)
    book.add_submission(STEM, EXTENDED)
    book.grant_extension(STEM, EXTENDED, days=1)
    for student, answers in CLASS.items():
        submission = book.add_submission(STEM, student)
        submission.timestamp = DUE + timedelta(hours=1 if student in LATE else -1)
        for grade in submission.notebooks[0].grades:
            kind, exercise = grade.name.split("-")[:2]
            earned = kind == "check" and answers.get(exercise) == RIGHT
            grade.auto_score = grade.cell.max_score if earned else 0
            grade.needs_manual_grade = kind == "explanation" and student in WAITING
    book.db.commit()


def autograded(release, answers, with_metadata):
    notebook = copy.deepcopy(release)
    cells = by_id(notebook)
    for exercise, what in answers.items():
        cells[exercise].source = f"def {exercise}(): ..."
        known = next((m for m in MISTAKES[exercise] if m.slug == what), None)
        for part in ("values", "numerics", "edges"):
            if what == RIGHT:
                continue
            cell = cells[f"check-{exercise}-{part}"]
            sentence = f"{exercise}: on two rows, yours {known.sentence if known else what}."
            cell.outputs = [nbformat.v4.new_output("error", ename="CheckFailed", evalue=sentence, traceback=[])]
            if with_metadata:
                cell.metadata.normlab = {"exercise": exercise, "part": part, "mistake": known and known.slug}
    return notebook


def write_class(folder, release, with_metadata):
    for student, answers in CLASS.items():
        place = folder / student
        place.mkdir(parents=True)
        nbformat.write(autograded(release, answers, with_metadata), place / f"{STEM}.ipynb")


@pytest.fixture(scope="module")
def course(repo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    release = released(repo)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"  # nbgrader calls alembic by its name
    with warnings.catch_warnings(), Gradebook(f"sqlite:///{folder / 'gradebook.db'}", "normlab") as book:
        warnings.simplefilter("ignore")  # nbgrader's own way with SQLAlchemy
        fill(book, release)
    os.environ["PATH"] = before
    for name, with_metadata in (("marked", True), ("plain", False)):
        write_class(folder / name, release, with_metadata)
    return folder


def collected(course, kind):
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}", "normlab") as book:
        return findings.collect(book, STEM, lambda student, name: course / kind / student / f"{name}.ipynb")


@pytest.fixture(scope="module", params=["marked", "plain"])
def found(course, request):
    """With the mistake in the cell's metadata, and with the sentence alone."""
    return collected(course, request.param)


# -- What is counted -------------------------------------------------------------------------------------------------


def test_students_are_counted_and_not_cells(found):
    assert dict(found.mistakes) == {
        ("softmax", "no-maximum"): {"ben", "chi"},
        ("logsumexp", "no-maximum"): {"ben"},
        ("logsumexp", "keeps-axis"): {"dot"},
        ("softmax", "no-exp"): {"<b>gil"},
    }
    overflow = of("softmax", "no-maximum").slug
    assert of("logsumexp", "no-maximum").slug == overflow
    counts = {slug: len(students) for slug, students in found.misconceptions().items()}
    assert counts == {overflow: 2, of("logsumexp", "keeps-axis").slug: 1, of("softmax", "no-exp").slug: 1}
    assert next(iter(counts)) == overflow
    assert found.agenda() == list(counts)


def test_scores_and_who_is_counted(found):
    assert found.scores == {"ada": 80, "ben": 20, "chi": 20, "dot": 20, "eve": 0, "fay": 0, "<b>gil": 0}
    assert (found.enrolled, found.late, found.waiting, found.unread) == (9, LATE, WAITING, set())
    assert found.worth == 86
    assert found.histogram() == [3, 0, 3, 0, 0, 0, 0, 0, 0, 1, 0]


def test_extra_credit_and_a_full_score_are_in_the_last_bin():
    one = findings.Report("x", 20, 3, scores={"a": 20, "b": 23, "c": 19.9})
    assert one.histogram() == [0] * 9 + [1, 2]


def test_parts(found):
    states = found.parts["softmax", "values"]
    assert states == {
        "ada": "passed",
        "ben": "failed",
        "chi": "failed",
        "dot": "passed",
        "eve": "failed",
        "fay": "not attempted",
        "<b>gil": "failed",
    }
    assert list(found.parts["bayes_posterior", "edges"].values()).count("not attempted") == 6
    assert findings.worst(found)[0][0][0] == "softmax"
    assert len(found.parts) == 12


def test_refusals_without_a_name(found):
    ((sentence, students),) = found.unnamed.items()
    assert students == {"eve"}
    assert HOSTILE in sentence


def test_a_bar_below_a_tenth_is_no_lesson():
    one = findings.Report("x", 20, 40, scores=dict.fromkeys(map(str, range(21)), 1.0))
    one.mistakes["softmax", "no-maximum"] = {"1", "2", "3"}
    one.mistakes["logsumexp", "keeps-axis"] = {"4", "5"}
    assert one.agenda() == [of("softmax", "no-maximum").slug]


def test_a_notebook_that_cannot_be_read_is_said(course, tmp_path):
    place = tmp_path / "one.ipynb"
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}", "normlab") as book:
        for content in (None, "{", '{"cells": 3}'):
            if content:
                place.write_text(content)
            one = findings.collect(book, STEM, lambda student, name: place)
            assert one.unread == set(CLASS)
            assert one.scores["ada"] == 80
    assert "No autograded notebook could be read of 7 students" in "\n".join(report.lines(one))


def cell(ename="CheckFailed", evalue="", marks=None, exercise="softmax"):
    output = nbformat.v4.new_output("error", ename=ename, evalue=evalue, traceback=[])
    made = nbformat.v4.new_code_cell(outputs=[output])
    made.metadata.nbgrader = {"grade_id": f"check-{exercise}-values"}
    if marks is not None:
        made.metadata.normlab = marks
    return made


def test_a_real_refusal_is_recognized():
    import numpy as np

    def softmax(x, axis=-1):
        e = np.exp(x.astype(np.promote_types(x.dtype, np.float32)))
        return (e / e.sum(axis, keepdims=True)).astype(x.dtype)

    with pytest.raises(CheckFailed) as refused:
        check(softmax)
    assert refused.value.mistake == "no-maximum"
    assert findings.refusal(cell(evalue=f"\x1b[31m{refused.value}\x1b[0m")) == (
        " ".join(str(refused.value).split()),
        "softmax",
        "no-maximum",
    )


def test_every_sentence_leads_to_its_misconception():
    for exercise, known in MISTAKES.items():
        for mistake in known:
            sentence = f"{exercise}: on two rows, the sum; yours {mistake.sentence}."
            _, _, slug = findings.refusal(cell(evalue=sentence, exercise=exercise))
            twins = {m.slug for m in known if m.sentence == mistake.sentence}
            assert slug in twins, (exercise, mistake.slug)


@pytest.mark.parametrize(
    "marks",
    [
        {"exercise": "softmax", "part": "values", "mistake": "<script>"},
        {"exercise": ["softmax"], "part": "values", "mistake": {"a": 1}},
        {"exercise": None, "part": "values", "mistake": None},
    ],
)
def test_metadata_that_names_nothing_known(marks):
    assert findings.refusal(cell(evalue="softmax: no.", marks=marks))[2] is None


def test_an_error_of_another_kind_names_no_mistake():
    sentence = MISTAKES["softmax"][0].sentence
    said, _, slug = findings.refusal(cell(ename="ValueError", evalue=sentence))
    assert (said, slug) == (f"ValueError: {sentence}", None)


# -- The page --------------------------------------------------------------------------------------------------------


class Reader(html.parser.HTMLParser):
    """Elements, attributes and text of a page; an element that is not closed in order is an error."""

    VOID = ("meta", "line", "rect", "br", "img")

    def __init__(self):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


@pytest.mark.parametrize("names", [False, True])
def test_what_learners_wrote_is_text(found, names):
    reader = read(report_page.page(found, names=names))
    assert not {"script", "img", "b", "link", "iframe"} & {tag for tag, _ in reader.elements}
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
    assert "alert(2)" in "".join(reader.texts)  # it is there, as text


def test_nobody_is_named_unless_asked(course, found):
    text = report_page.page(found)
    words = set(re.findall(r"\w+", " ".join(read(text).texts)))
    assert not words & {"ada", "ben", "chi", "dot", "eve", "fay", "gil", "hal", "ivy"}
    assert "ben, chi" in report_page.page(found, names=True)


def test_the_page_stands_alone_and_says_what_to_teach(found):
    reader = read(report_page.page(found, site="https://example.org/course/", today=date(2026, 12, 2)))
    text = " ".join(" ".join(reader.texts).split())
    entry = of("softmax", "no-maximum")
    for part in (
        entry.belief.split("`")[0],
        entry.teach.split("`")[0],
        entry.heading,
        "2 of 7",
        "7 of 9",
        "2026-12-02",
    ):
        assert part in text
    addresses = {
        value for _, attributes in reader.elements for name, value in attributes.items() if name in ("href", "src")
    }
    assert f"https://example.org/course/book/{entry.chapter}.html" in addresses
    assert all(address.startswith("https://example.org/course/book/") for address in addresses)
    pictures = [attributes for _, attributes in reader.elements if attributes.get("role") == "img"]
    assert len(pictures) == 2
    assert f"{entry.title}: 2" in pictures[0]["aria-label"]
    assert "20-29 %: 3" in pictures[1]["aria-label"]


def test_bars_are_as_long_as_the_counts(found):
    widths = re.findall(r'class="bar" style="width:([\d.]+)%"', report_page.bars(found))
    assert [round(float(width) / 100 * 7, 1) for width in widths] == [2, 1, 1]


def test_a_class_that_handed_nothing_in():
    text = report_page.page(findings.Report("softmax", 20, 5))
    assert "Nobody handed anything in" in " ".join(read(text).texts)


def test_a_class_without_mistakes():
    one = findings.Report("softmax", 20, 1, scores={"a": 20.0})
    assert "named no known mistake" in " ".join(read(report_page.page(one)).texts)
    assert "none that the checks named" in "\n".join(report.lines(one))


# -- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def here(course, monkeypatch, tmp_path):
    (course / "nbgrader_config.py").write_text(
        'c = get_config()\nc.CourseDirectory.course_id = "normlab"\nc.CourseDirectory.autograded_directory = "graded"\n'
    )
    for student in CLASS:
        target = course / "graded" / student / STEM
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True)
            target.symlink_to(course / "marked" / student)
    monkeypatch.chdir(course)
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    return course


def test_the_command(here, capsys):
    assert report.main([STEM, "--html", "report.html"]) == 0
    out = capsys.readouterr().out
    assert "handed in 7 of 9" in out
    entry = of("softmax", "no-maximum")
    assert f"   2  {entry.title} ({entry.kind}; {entry.chapter}, {entry.heading})" in out
    assert "    4    1    2  softmax, values" in out
    assert "ben" not in out
    assert read((here / "report.html").read_text(encoding="utf-8")).elements


def test_the_command_says_what_is_missing(here, capsys, monkeypatch, tmp_path):
    assert report.main(["sofmax"]) == 1
    assert capsys.readouterr().err == "the gradebook has no assignment sofmax; it has softmax\n"
    monkeypatch.chdir(tmp_path)
    assert report.main([STEM]) == 1
    assert "is this your course folder?" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.db"))


# -- The picture of the page that shows how a class is run -----------------------------------------------------------


def made_up():
    """A class of 26 that does not exist."""
    names = [f"student {number}" for number in range(24)]
    one = findings.Report(STEM, 86, 26, late=set(names[:3]), waiting=set(names[:5]))
    one.scores = {name: max(0, 86 - 3 * number + number % 4) for number, name in enumerate(names)}
    for key, share in {
        ("softmax", "no-maximum"): names[8:20],
        ("logsumexp", "no-maximum"): names[12:22],
        ("bayes_posterior", "no-prior"): names[17:24],
        ("gumbel_max", "minus-gumbel"): names[3:5],
        ("logsumexp", "keeps-axis"): names[20:22],
        ("softmax", "no-exp"): names[23:],
    }.items():
        one.mistakes[key] = set(share)
    for exercise, failed in {"softmax": 12, "logsumexp": 10, "gumbel_max": 2, "bayes_posterior": 7}.items():
        for part in ("values", "numerics", "edges"):
            one.parts[exercise, part] = {n: "failed" if k < failed else "passed" for k, n in enumerate(names)}
    return one


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 390])
def test_the_page_fits_its_window(tmp_path, browser, mode, width):
    """Pictures of it go to NORMLAB_SCREENSHOTS; those that are 1000 wide stand in book/images/."""
    path = tmp_path / "report.html"
    path.write_text(report_page.page(made_up(), today=date(2026, 12, 2)), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 1400}, color_scheme=mode)
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    bars = page.locator(".bars .bar")
    assert bars.count() == 5
    widths = [bars.nth(k).bounding_box()["width"] for k in range(5)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > 0
    body, text = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    assert (sum(map(int, re.findall(r"\d+", body))) > sum(map(int, re.findall(r"\d+", text)))) == (mode == "light")
    assert said == []
    if folder := os.environ.get("NORMLAB_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"class_report_{mode}{'' if width == 1000 else f'_{width}'}.png"))
    page.close()
