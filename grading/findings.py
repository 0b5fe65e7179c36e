"""What an assignment says about its class: scores, parts that fail, and the misconceptions behind named mistakes.

It is read from the gradebook and from the autograded notebooks; `report.py` prints it, `report_page.py` draws it.
"""

import re
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import nbformat

from grading.export import handed_in, net, number
from normlab.misconceptions import MISCONCEPTIONS, of
from normlab.mistakes import MISTAKES

PASSED, FAILED, UNTOUCHED = "passed", "failed", "not attempted"
# A bar below this share of the class is a conversation, not a lesson.
LESSON = 0.1
# The last bin is for full scores and beyond, by extra credit.
BINS = [*range(0, 100, 10), 100]
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Report:
    """`scores` {student: points}; `parts` {(exercise, part): {student: PASSED, FAILED or UNTOUCHED}}; `mistakes`
    {(exercise, slug): students}; `unnamed` {sentence: students} of refusals that no known mistake explains."""

    assignment: str
    worth: float
    enrolled: int
    scores: dict = field(default_factory=dict)
    late: set = field(default_factory=set)
    waiting: set = field(default_factory=set)
    unread: set = field(default_factory=set)
    parts: dict = field(default_factory=dict)
    mistakes: dict = field(default_factory=lambda: defaultdict(set))
    unnamed: dict = field(default_factory=lambda: defaultdict(set))

    def misconceptions(self):
        """{slug of the misconception: students who showed it}, the most frequent first. A student counts once."""
        behind = defaultdict(set)
        for (exercise, slug), students in self.mistakes.items():
            behind[of(exercise, slug).slug] |= students
        order = list(MISCONCEPTIONS)
        return {slug: behind[slug] for slug in sorted(behind, key=lambda s: (-len(behind[s]), order.index(s)))}

    def agenda(self):
        """The misconceptions that deserve time in class: a tenth of those who handed in shows them."""
        return [slug for slug, students in self.misconceptions().items() if len(students) >= LESSON * len(self.scores)]

    def histogram(self):
        """[how many scores], one number a bin of BINS, in percent of all points."""
        counts = Counter()
        for score in self.scores.values():
            percent = 100 * score / self.worth if self.worth else 0
            counts[max(edge for edge in BINS if edge <= percent)] += 1
        return [counts[edge] for edge in BINS]


def refusal(cell):
    """(sentence, exercise or None, slug or None) of a check cell that failed, else None.

    Which mistake it was stands in the cell's metadata, or is recognized by its sentence.
    """
    error = next((output for output in cell.get("outputs", ()) if output.output_type == "error"), None)
    if error is None:
        return None
    sentence = " ".join(ANSI.sub("", str(error.get("evalue", ""))).split())
    exercise = cell.metadata.nbgrader.grade_id.split("-")[1]
    marks = cell.metadata.get("normlab")
    if isinstance(marks, dict) and "mistake" in marks:
        exercise, slug = marks.get("exercise"), marks["mistake"]
    elif error.get("ename") == "CheckFailed":
        fits = (m for m in MISTAKES.get(exercise, ()) if " ".join(m.sentence.split()) in sentence)
        slug = max(fits, key=lambda mistake: len(mistake.sentence), default=None)
        slug = slug and slug.slug
    else:
        sentence, slug = f"{error.get('ename')}: {sentence}", None
    try:
        of(exercise, slug)
    except (KeyError, TypeError):
        slug = None
    return sentence, exercise, slug


def collect(book, assignment, notebooks):
    """The Report of one assignment of an open Gradebook. notebooks(student, name) -> Path of an autograded notebook."""
    entry = book.find_assignment(assignment)
    found = Report(assignment, entry.max_score, len(book.students))
    stubs = {(n.name, c.name): (c.source or "").strip() for n in entry.notebooks for c in n.source_cells}
    checks = [(n.name, c.name) for n in entry.notebooks for c in n.grade_cells if c.name.startswith("check-")]
    for _, name in checks:
        found.parts[tuple(name.split("-")[1:3])] = {}
    for submission in book.assignment_submissions(assignment):
        student = submission.student.id
        if not handed_in(submission):
            continue
        found.scores[student] = net(submission)
        if submission.total_seconds_late > 0:
            found.late.add(student)
        if submission.needs_manual_grade:
            found.waiting.add(student)
        grades = {(n.name, g.name): g for n in submission.notebooks for g in n.grades}
        for notebook in entry.notebooks:
            try:
                read = nbformat.read(notebooks(student, notebook.name), as_version=4)
            except Exception:  # one notebook of many, broken in whatever way: the rest is still worth a report
                found.unread.add(student)
                continue
            cells = {c.metadata.nbgrader.grade_id: c for c in read.cells if "nbgrader" in c.metadata}
            for name in (name for owner, name in checks if owner == notebook.name):
                exercise, part = name.split("-")[1:3]
                answer = cells.get(exercise)
                source = None if answer is None else answer.source.strip()
                grade = grades.get((notebook.name, name))
                if grade is not None and grade.score >= grade.max_score:
                    state = PASSED
                elif source is None or source == stubs.get((notebook.name, exercise)):
                    state = UNTOUCHED
                else:
                    state = FAILED
                found.parts[exercise, part][student] = state
                refused = refusal(cells[name]) if state == FAILED and name in cells else None
                if refused:
                    sentence, where, slug = refused
                    if slug:
                        found.mistakes[where, slug].add(student)
                    else:
                        found.unnamed[sentence].add(student)
    return found


def worst(found):
    """The parts, those that fail most first."""
    return sorted(found.parts.items(), key=lambda item: -sum(state == FAILED for state in item[1].values()))


def people(count):
    return f"{count} student" if count == 1 else f"{count} students"


def summary(found):
    """[(what, value)] of the numbers on top."""
    scores = sorted(found.scores.values())
    yield "handed in", f"{len(scores)} of {found.enrolled}"
    if scores:
        yield "median", f"{number(statistics.median(scores))} of {number(found.worth)}"
        yield "lowest, highest", f"{number(scores[0])}, {number(scores[-1])}"
    yield "late", str(len(found.late))
    if found.waiting:
        yield "paragraphs to grade", str(len(found.waiting))


def labels():
    return [f"{low}-{low + 9} %" for low in BINS[:-1]] + ["100 %"]
