"""The best of several submissions counts: python -m grading.best ASSIGNMENT [--student ID]

Instead of `nbgrader collect --update` and `nbgrader autograde`, which take the last. Every submission in the exchange
is graded, in the order of time, by nbgrader's own autograde; the one with the most points after lateness stays in the
gradebook, in submitted/ and in autograded/, so that feedback is about it. Of equals the later one stays. It may be
stopped at any time: run again, it starts from the exchange. Grade paragraphs by hand after it, not before.
"""

import argparse
import os
import pwd
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from nbgrader.api import MissingEntry
from nbgrader.apps.api import NbGraderAPI
from nbgrader.exchange.default import ExchangeCollect
from nbgrader.utils import parse_utc

from grading import here
from grading.export import net, number
from grading.here import Unready


@dataclass(frozen=True)
class Attempt:
    """A folder in the exchange that somebody handed in; `time` is UTC."""

    student: str
    time: object
    folder: Path


def owner(path):
    try:
        return pwd.getpwuid(path.stat().st_uid).pw_name
    except KeyError:
        return "somebody unknown"


def attempts(inbound, assignment, check_owner=True):
    """({student: [Attempt], the earliest first}, sentences about folders that do not count).

    A folder is named student+assignment+time+random. It counts if it belongs to that student: on a shared machine
    anybody can make one in another's name.
    """
    found, refused = {}, []
    name = re.compile(rf"(?P<student>.+)\+{re.escape(assignment)}\+(?P<time>[^+]+)(\+[^+]*)?")
    for folder in sorted(inbound.iterdir()):
        match = name.fullmatch(folder.name)
        if not match or folder.is_symlink() or not folder.is_dir():
            continue
        try:
            time = parse_utc(match["time"])
        except ValueError:
            refused.append(f"{folder.name} names no time: it does not count")
            continue
        if check_owner and owner(folder) != match["student"]:
            refused.append(f"{folder.name} belongs to {owner(folder)}: it does not count")
            continue
        found.setdefault(match["student"], []).append(Attempt(match["student"], time, folder))
    return {student: sorted(own, key=lambda a: (a.time, a.folder.name)) for student, own in found.items()}, refused


class Grader:
    """nbgrader's collect and autograde for one attempt at a time."""

    def __init__(self, app, assignment):
        self.app, self.assignment = app, assignment
        self.collector = ExchangeCollect(coursedir=app.coursedir, authenticator=app.authenticator, parent=app)
        self.api = NbGraderAPI(app.coursedir, app.authenticator, app.exchange, parent=app)

    def submitted(self, student):
        coursedir = self.app.coursedir
        return Path(coursedir.format_path(coursedir.submitted_directory, student, self.assignment))

    def graded(self, attempt):
        """Whether this attempt is the one in the gradebook."""
        place = self.submitted(attempt.student)
        coursedir = self.app.coursedir
        notebooks = Path(coursedir.format_path(coursedir.autograded_directory, attempt.student, self.assignment))
        if not place.is_dir() or not notebooks.is_dir():
            return False
        entry = self.entry(attempt.student)
        return entry is not None and entry[1] == attempt.time == coursedir.get_existing_timestamp(place)

    def entry(self, student):
        """(points, time, whether somebody graded by hand) of the gradebook's submission, or None."""
        with here.gradebook(self.app, self.assignment) as (book, _):
            try:
                submission = book.find_submission(self.assignment, student)
            except MissingEntry:
                return None
            grades = [grade for notebook in submission.notebooks for grade in notebook.grades]
            by_hand = any(grade.manual_score is not None or grade.extra_credit for grade in grades)
            return net(submission), submission.timestamp, by_hand

    def grade(self, attempt):
        """Points of the attempt, which is then the one that nbgrader knows; None if nbgrader could not grade it."""
        place = self.submitted(attempt.student)
        beside = place.with_name(f".{place.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.parent.mkdir(parents=True, exist_ok=True)
        self.collector.do_copy(str(attempt.folder), str(beside))
        shutil.rmtree(place, ignore_errors=True)
        os.replace(beside, place)
        result = self.api.autograde(self.assignment, attempt.student, force=True)
        return self.entry(attempt.student)[0] if result["success"] else None


def keep_best(grader, own):
    """Grade all attempts of one student; (the best Attempt, [points or None])."""
    points = [grader.grade(attempt) for attempt in own]
    if all(score is None for score in points):
        return None, points
    place = max(range(len(own)), key=lambda k: (-1 if points[k] is None else points[k], k))
    if place != len(own) - 1:
        grader.grade(own[place])
    return own[place], points


def run(options):
    app = here.course()
    with here.gradebook(app, options.assignment):
        grader = Grader(app, options.assignment)
    inbound = Path(grader.collector.root, app.coursedir.course_id, "inbound")
    if not inbound.is_dir():
        raise Unready(f"there is no {inbound}: set c.Exchange.root, and release the assignment")
    found, refused = attempts(inbound, options.assignment, grader.collector.check_owner)
    failed = bool(refused)
    for sentence in refused:
        print(sentence, file=sys.stderr)
    if options.student and options.student not in found:
        raise Unready(f"{options.student} handed nothing in for {options.assignment}")
    for student, own in sorted(found.items()):
        if options.student and student != options.student:
            continue
        entry = grader.entry(student)
        if entry and entry[2] and not (len(own) == 1 and grader.graded(own[0])):
            print(f"{student}: points were given by hand, so nothing is changed", flush=True)
            failed = failed or not any(attempt.time == entry[1] for attempt in own)
            continue
        if len(own) == 1 and grader.graded(own[0]):
            print(f"{student}: {number(entry[0])}, graded before", flush=True)
            continue
        best, points = keep_best(grader, own)
        shown = ", ".join("not graded" if score is None else number(score) for score in points)
        if best is None:
            failed = True
            print(
                f"{student}: {shown}: nbgrader autograde {options.assignment} --student {student} says why", flush=True
            )
            continue
        print(
            f"{student}: {shown}" + (f"; kept {own.index(best) + 1} of {len(own)}" if len(own) > 1 else ""), flush=True
        )
    return int(failed)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m grading.best", description=__doc__.splitlines()[0])
    parser.add_argument("assignment")
    parser.add_argument("--student", metavar="ID", help="this one alone")
    return here.main(run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
