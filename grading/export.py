"""Grades for a learning platform: `nbgrader export --exporter grading.export.CanvasExporter`, or MoodleExporter.

A grade is the gradebook's score, extra credit included, less the penalty for lateness, never below 0. Whoever handed
nothing in has no grade, unless `missing = "zero"`. What the platform would take for somebody else's grade, or would
refuse after half of the file, is refused here, before anything is written.
"""

import csv
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path

from nbgrader.api import MissingEntry
from nbgrader.plugins import ExportPlugin
from traitlets import Dict, Enum, Float

# What a spreadsheet takes for the beginning of a formula (OWASP, "CSV Injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class Unexportable(Exception):
    """Why the file would be read wrongly, in plain words."""


@dataclass(frozen=True)
class Row:
    """One student: `scores` {assignment: score}, without those that were not handed in."""

    id: str
    first: str
    last: str
    email: str
    lms: str
    scores: dict


def handed_in(submission):
    """Whether there is work behind a submission of the gradebook; an extension makes one without."""
    if submission.timestamp is not None:
        return True
    grades = (grade for notebook in submission.notebooks for grade in notebook.grades)
    return any(grade.auto_score is not None or grade.manual_score is not None for grade in grades)


def net(submission):
    """Points of a submission: extra credit counts, lateness costs, and nobody falls below 0."""
    return max(0.0, submission.score - submission.late_submission_penalty)


def read(gradebook, assignments=(), students=()):
    """({assignment: its points}, [Row], how many paragraphs' points are still missing); empty means all.

    Errors: Unexportable where a name is not in the gradebook.
    """
    found = {assignment.name: assignment.max_score for assignment in gradebook.assignments}
    people = {student.id: student for student in gradebook.students}
    for asked, known, what in ((assignments, found, "assignment"), (students, people, "student")):
        for name in map(str, asked):
            if name not in known:
                raise Unexportable(f"the gradebook has no {what} {name}; it has {', '.join(sorted(known)) or 'none'}")
    worth = {name: points for name, points in found.items() if not assignments or name in map(str, assignments)}
    if not worth:
        raise Unexportable("the gradebook has no assignment: run nbgrader generate_assignment first")
    rows, waiting = [], 0
    for id, student in sorted(people.items()):
        if students and id not in map(str, students):
            continue
        scores = {}
        for name in worth:
            try:
                submission = gradebook.find_submission(name, id)
            except MissingEntry:
                continue
            if handed_in(submission):
                scores[name] = net(submission)
                waiting += bool(submission.needs_manual_grade)
        texts = (student.first_name, student.last_name, student.email, student.lms_user_id)
        rows.append(Row(id, *(" ".join((text or "").split()) for text in texts), scores))
    return worth, rows, waiting


def number(points):
    """Points as both platforms read and show them: at most two digits behind a point, never a comma.

    >>> number(7.5), number(20.0), number(200 / 3)
    ('7.5', '20', '66.67')
    """
    return f"{points:.2f}".rstrip("0").rstrip(".")


def text(name):
    """A name that a spreadsheet shows and does not run; for columns that nobody is recognized by.

    >>> text("=HYPERLINK(1)"), text("Smith, Jo")
    ("'=HYPERLINK(1)", 'Smith, Jo')
    """
    return f"'{name}" if name.startswith(FORMULA) else name


def identifier(value, what):
    """`value` unchanged, since it must arrive as it is. Errors: Unexportable where a spreadsheet would run it."""
    if value.startswith(FORMULA):
        raise Unexportable(f"the {what} {value!r} begins like a formula, and a spreadsheet would run it: change it")
    return value


def unique(pairs, what):
    """Errors: Unexportable where two students [(id, identifier)] share an identifier. Blank ones are not compared."""
    seen = {}
    for id, value in pairs:
        if value and seen.setdefault(value, id) != id:
            raise Unexportable(
                f"{seen[value]} and {id} have the same {what}, {value}: one would get the other's grades"
            )


def as_canvas_reads(field):
    """Canvas takes a field of digits, points and commas for a number, and its last point or comma for the decimal one.

    >>> as_canvas_reads("1,234.5"), as_canvas_reads("2026.7.31"), as_canvas_reads("ada")
    ('1234.5', '20267.31', 'ada')
    """
    if not re.fullmatch(r"-?[0-9.,]+%?", field):
        return field
    *front, last = re.split("[.,]", field)
    return ".".join(["".join(front), last]) if front else last


# Canvas drops columns whose heading contains one of these: they are totals of its own.
CANVAS_TOTALS = re.compile(r"(Current|Final) (Score|Points|Grade)|Override (Score|Grade|Status)")
CANVAS_OWN = {"Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Integration ID", "Root Account"}


def canvas(worth, rows, *, id_is="login", assignment_ids=None, missing="empty"):
    """The table, [[text]], that Canvas' gradebook imports, as its GradebookImporter reads it:

    - Five columns stand first, in this order: Student, ID, SIS User ID, SIS Login ID, Section.
    - Row two, "Points Possible", has the points of a new assignment.
    - A student is looked up by ID, Canvas' own number, then by SIS user id, then by login, then by name. The name is
      the last resort: one of those three must be there. Names are "Last, First", with the comma in quotes.
    - A column "softmax (123)" goes to assignment 123, "softmax" to the one of that title, else a new one is made.
    - Blank is no grade. Where Canvas has a grade already, blank takes it away; the page that it shows first says so.
    - More points than possible are taken: extra credit.

    Source: instructure/canvas-lms, lib/gradebook_importer.rb; the guide "How do I import grades in the Gradebook?".
    Errors: Unexportable.
    """
    ids = assignment_ids or {}
    headings = [f"{name} ({ids[name]})" if name in ids else name for name in worth]
    for name in ids:
        if not re.fullmatch(r"[0-9]+", str(ids[name])):
            raise Unexportable(f"Canvas numbers its assignments, and {name} has {ids[name]!r}")
    for name in worth:
        if CANVAS_TOTALS.search(name) or name in CANVAS_OWN:
            raise Unexportable(f"Canvas keeps the heading {name!r} to itself: rename the assignment")
    table = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *map(text, headings)]]
    table.append(["    Points Possible", "", "", "", "", *map(number, worth.values())])
    for row in rows:
        name = ", ".join(filter(None, [row.last, row.first])) or row.id
        own = row.id if id_is == "canvas" else row.lms
        sis, login = (row.id if id_is == kind else "" for kind in ("sis", "login"))
        if own and not re.fullmatch(r"[0-9]+", own):
            raise Unexportable(f"{row.id}: Canvas' ID is a number, and {own!r} would be read as another one or as none")
        for value in (sis, login):
            if as_canvas_reads(identifier(value, "student id")) != value:
                raise Unexportable(f"Canvas takes the student id {value} for a number: {as_canvas_reads(value)}")
        if "Points Possible" in name:
            raise Unexportable(f"Canvas takes the row of {name!r} for the points possible: change the name")
        marks = (row.scores.get(assignment) for assignment in worth)
        blank = "0" if missing == "zero" else ""
        table.append([text(name), own, sis, login, "", *(blank if mark is None else number(mark) for mark in marks)])
    unique(((row.id, line[1]) for row, line in zip(rows, table[2:], strict=True)), "Canvas ID")
    return table


MOODLE = {"email": "Email address", "username": "Username", "idnumber": "ID number"}


def moodle(worth, rows, *, match="email", out_of=0, most=100, missing="empty"):
    """The table, [[text]], that Moodle's "Import > CSV file" reads; encoding UTF-8, separator comma.

    - The first column says who: an email address, a username or an ID number, to be chosen under "Map from", "Map to".
      Compare upper and lower case: Moodle does. A row where it is blank would get the grade of the row above, since
      Moodle keeps the student it found last; a student it does not know ends the import. Both are refused here.
    - Names are for the reader: leave them at "Ignore". They have no backslash, which would undo a quote after it.
    - A grade above 100 ends the import, unless the site allows unlimited grades. One above the maximum of its item is
      cut to it. "-" is no grade, and takes away one that was there.

    Source: moodle/moodle, grade/import/csv/classes/load_data.php and lib/csvlib.class.php; the page "Grade import".
    Units: points, or with `out_of` that many for a full score. Errors: Unexportable.
    """
    table = [[MOODLE[match], "First name", "Last name", *map(text, worth)]]
    headings = [heading.strip() for heading in table[0]]
    if len(set(headings)) < len(headings):
        raise Unexportable(f"two columns would have the same heading: {', '.join(headings)}")
    for row in rows:
        who = {"email": row.email, "username": row.id, "idnumber": row.lms}[match]
        what = {"email": "email", "username": "student id", "idnumber": "lms_user_id"}[match]
        if who in ("", "0"):
            raise Unexportable(f"{row.id} has no {what}, and Moodle would give the grade to the student one row above")
        if match == "username" and who != who.lower():
            raise Unexportable(f"Moodle's usernames are lower case, and {who} is not")
        marks = []
        for name, points in worth.items():
            mark = row.scores.get(name)
            if mark is None:
                marks.append("0" if missing == "zero" else "-")
                continue
            if out_of:
                mark = out_of * mark / points if points else 0.0
            if round(mark, 2) > most:
                raise Unexportable(
                    f"{row.id} has {number(mark)} in {name}, and Moodle refuses files with grades above {number(most)}:"
                    " set c.MoodleExporter.out_of = 100, or let the site allow more and set c.MoodleExporter.most"
                )
            marks.append(number(mark))
        names = (text(name.replace("\\", "/")) for name in (row.first, row.last))
        table.append([identifier(who, what), *names, *marks])
    unique(((row.id, line[0]) for row, line in zip(rows, table[1:], strict=True)), MOODLE[match].lower())
    return table


def above(worth, rows):
    """[(student, assignment)] with more than all points, by extra credit."""
    return [(row.id, name) for row in rows for name, score in row.scores.items() if score > worth[name]]


class _Exporter(ExportPlugin):
    missing = Enum(("empty", "zero"), "empty", help="the grade of who handed nothing in: none, or 0").tag(config=True)

    def export(self, gradebook):
        """Write the file, or say why not and exit with status 1."""
        target = Path(self.to or self.default)
        try:
            worth, rows, waiting = read(gradebook, self.assignment, self.student)
            table = self.table(worth, rows)
            file = io.StringIO(newline="")
            csv.writer(file).writerows(table)
            # Written beside and moved: a full disk leaves no half of a file that could be imported.
            beside = target.with_name(f".{target.name}.part")
            beside.write_text(file.getvalue(), encoding="utf-8", newline="")
            os.replace(beside, target)
        except (Unexportable, OSError) as error:
            self.log.error("Nothing was exported: %s", error)
            raise SystemExit(1) from error
        if waiting:
            self.log.warning(
                "Submissions with paragraphs that nobody graded yet: %d. Their points are missing.", waiting
            )
        self.log.info("%d students, %d assignments: %s", len(rows), len(worth), target)


class CanvasExporter(_Exporter):
    """nbgrader's plugin that writes `canvas.csv`, or what --to names."""

    default = "canvas.csv"
    id_is = Enum(
        ("login", "sis", "canvas"), "login", help="what nbgrader's student id is to Canvas; lms_user_id is its ID"
    ).tag(config=True)
    assignment_ids = Dict(help="{assignment: its number in Canvas}, for those that exist there").tag(config=True)

    def table(self, worth, rows):
        ids = {name: number for name, number in self.assignment_ids.items() if name in worth}
        return canvas(worth, rows, id_is=self.id_is, assignment_ids=ids, missing=self.missing)


class MoodleExporter(_Exporter):
    """nbgrader's plugin that writes `moodle.csv`, or what --to names."""

    default = "moodle.csv"
    match = Enum(tuple(MOODLE), "email", help="what Moodle recognizes a student by").tag(config=True)
    out_of = Float(0.0, min=0, help="what a full score becomes; 0: the points as they are").tag(config=True)
    most = Float(100.0, help="the highest grade that the site takes").tag(config=True)

    def table(self, worth, rows):
        if extra := above(worth, rows):
            self.log.warning("More than all points, which Moodle cuts to the item's maximum: %s", extra)
        return moodle(worth, rows, match=self.match, out_of=self.out_of, most=self.most, missing=self.missing)
