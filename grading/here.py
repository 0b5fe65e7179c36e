"""The course that nbgrader's settings in the current folder describe: what our commands share with nbgrader's own."""

import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.apps.baseapp import NbGrader
from nbgrader.auth import Authenticator
from nbgrader.exchange import ExchangeFactory
from sqlalchemy.exc import SAWarning


class Unready(Exception):
    """Why a command cannot do what it was asked, in plain words."""


def course(*arguments):
    """nbgrader's application for the current folder, with its coursedir, exchange and config; --db=... is heeded."""
    # About the order in which nbgrader adds a submission to its session: nothing that who runs a command could change.
    warnings.filterwarnings("ignore", category=SAWarning, module=r"nbgrader\.")
    app = NbGrader(log_level="WARN")
    app.initialize(list(arguments))
    app.authenticator, app.exchange = Authenticator(parent=app), ExchangeFactory(parent=app)
    return app


@contextmanager
def gradebook(app, assignment):
    """The open Gradebook, and in it the assignment's entry. Errors: Unready where one of the two is missing."""
    url = app.coursedir.db_url
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise Unready(f"there is no gradebook {url.removeprefix('sqlite:///')}: is this your course folder?")
    with Gradebook(url, app.coursedir.course_id) as book:
        known = [entry.name for entry in book.assignments]
        if assignment not in known:
            raise Unready(f"the gradebook has no assignment {assignment}; it has {', '.join(known) or 'none'}")
        yield book, book.find_assignment(assignment)


def main(run, *arguments):
    """The exit status of run(*arguments): 0 or what it returns, 1 with a sentence on stderr if it cannot."""
    try:
        return run(*arguments) or 0
    except (Unready, OSError) as error:
        print(error, file=sys.stderr)
        return 1
