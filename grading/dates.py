"""Due dates, extensions and what lateness costs: python -m grading.dates due|extend|penalties|show ASSIGNMENT ...

nbgrader keeps dates in UTC. Given "18:00 +0100" it is wrong by nearly an hour, since it takes 0100 for a hundred
seconds; given a zone that it does not know, such as CEST, it takes the time for UTC, in silence. Here a zone has its
full name, as in Europe/Berlin, and the answer says what was understood.
"""

import argparse
import datetime
import sys
import zoneinfo

from nbgrader.api import MissingEntry
from nbgrader.preprocessors import AssignLatePenalties

from grading import here
from grading.export import number
from grading.here import Unready

UTC = datetime.UTC


def zone(name):
    """The time zone of that name. Errors: Unready."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise Unready(f"there is no time zone {name}: give its full name, such as Europe/Berlin or UTC") from None


def moment(text, name=None):
    """The moment, in UTC without a zone as nbgrader keeps it, that a clock in the zone `name` shows as `text`.

    >>> moment("2026-12-01 18:00", "Europe/Berlin"), moment("2026-12-01T18:00+05:30")
    (datetime.datetime(2026, 12, 1, 17, 0), datetime.datetime(2026, 12, 1, 12, 30))

    Errors: Unready where it is no date with a time, or where the clock shows it twice or never.
    """
    try:
        read = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise Unready(f"{text} is no date and time: write it as 2026-12-01 18:00") from None
    if ":" not in text:
        raise Unready(f"at what time on {text}? Write it as {read:%Y-%m-%d} 18:00")
    if read.tzinfo is None:
        if name is None:
            raise Unready(f"{text} where? Give the time zone, such as --zone Europe/Berlin")
        early, late = (read.replace(tzinfo=zone(name), fold=fold).astimezone(UTC) for fold in (0, 1))
        if early != late:
            often = "twice" if early < late else "never"
            raise Unready(f"clocks in {name} show {text} {often} that night: choose another time")
        read = early
    elif name is not None:
        raise Unready(f"{text} has a zone of its own: leave out --zone {name}")
    return read.astimezone(UTC).replace(tzinfo=None)


def spoken(utc, name):
    local = utc.replace(tzinfo=UTC).astimezone(zone(name or "UTC"))
    return f"{local:%a %Y-%m-%d %H:%M} {name or 'UTC'}" + (f" ({utc:%Y-%m-%d %H:%M} UTC)" if name else "")


def recompute(book, assignment, config):
    """Compute the penalties of every graded notebook anew; [(student, old, new)] of those that changed.

    Autograding does so too, but it runs before somebody reads the paragraphs, or moves a date.
    """
    step = AssignLatePenalties(config=config)
    step.init_plugin()
    changed = []
    for submission in book.assignment_submissions(assignment):
        for notebook in submission.notebooks:
            new = None
            if submission.assignment.duedate is not None and submission.total_seconds_late > 0:
                new = step.plugin_inst.late_submission_penalty(
                    submission.student.id, notebook.score, submission.total_seconds_late
                )
                new = None if new is None else min(max(new, 0), notebook.score)
            if (notebook.late_submission_penalty or 0) != (new or 0):
                changed.append((submission.student.id, notebook.late_submission_penalty or 0, new or 0))
            notebook.late_submission_penalty = new
    book.db.commit()
    return changed


def extend(book, assignment, student, hours):
    """Give a student hours after the due date in all; 0 takes the extension back. It may come before any submission.

    Errors: Unready.
    """
    if book.find_assignment(assignment).duedate is None:
        raise Unready(f"{assignment} has no due date: there is nothing to extend")
    try:
        book.find_student(student)
    except MissingEntry:
        raise Unready(
            f"the gradebook has no student {student}; there is one after: nbgrader db student add {student}"
        ) from None
    book.update_or_create_submission(assignment, student)
    book.grant_extension(assignment, student, hours=hours)


def run(options):
    zone(options.zone or "UTC")
    app = here.course(*([f"--db={options.db}"] if options.db else []))
    with here.gradebook(app, options.assignment) as (book, entry):
        if options.what == "due":
            book.update_or_create_assignment(options.assignment, duedate=moment(options.when, options.zone))
        elif options.what == "extend":
            extend(book, options.assignment, options.student, options.hours + 24 * options.days)
        if options.what == "show":
            changed = []
        else:
            changed = recompute(book, options.assignment, app.config)
        due = entry.duedate
        print(f"{options.assignment} is due {spoken(due, options.zone) if due else 'at no time'}")
        for submission in book.assignment_submissions(options.assignment):
            if submission.extension:
                print(f"  {submission.student.id}: {spoken(submission.duedate, options.zone)}")
        for student, old, new in changed:
            print(f"  the penalty of {student} is {number(new)}, and was {number(old)}")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m grading.dates", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True, metavar="due|extend|penalties|show")
    words = {
        "due": "when the assignment is due",
        "extend": "more time for one student",
        "penalties": "compute what lateness costs anew",
        "show": "due date and extensions",
    }
    for what, help in words.items():
        command = commands.add_parser(what, help=help)
        command.add_argument("assignment")
        if what == "due":
            command.add_argument("when", help='such as "2026-12-01 18:00"')
        if what == "extend":
            command.add_argument("student")
            command.add_argument("--days", type=float, default=0, help="in all, not in addition to earlier ones")
            command.add_argument("--hours", type=float, default=0)
        command.add_argument("--zone", help="full name of the time zone, such as Europe/Berlin")
        command.add_argument("--db", metavar="URL", help="the gradebook, if it is not the one of nbgrader's settings")
    return here.main(run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
