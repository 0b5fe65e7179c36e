"""A course folder outside the checkout, and nbgrader's own commands run in it.

nbgrader takes seconds to import, so a few worker processes import it once and run one command line after another.
"""

import contextlib
import multiprocessing
import os
import secrets
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = {
    "nbgrader": "nbgrader releases, collects and grades the notebooks",
    "ipykernel": "it is the Jupyter kernel that runs the notebooks",
    "jupytext": "it reads what the class handed in",
    "torch": "the checks hold answers against PyTorch",
}


class Unready(Exception):
    """Why nothing can be graded here, in plain words."""


def environment(folder):
    """The environment variables under which nbgrader, the kernels and the checks run for the course in `folder`."""
    own = folder / "jupyter"
    return {
        **os.environ,
        # nbgrader calls alembic by its name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "NORMLAB_SECRET_FILE": str(folder / "secret"),
        # Neither the settings nor the kernels of whoever runs this: a grade is not to depend on them.
        **{f"JUPYTER_{what}_DIR": str(own / what.lower()) for what in ("CONFIG", "DATA", "RUNTIME")},
        "IPYTHONDIR": str(own / "ipython"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        # As many notebooks run as there are cores: each takes one.
        "OMP_NUM_THREADS": "1",
        # Else the first kernel would leave its compiled files in the checkout.
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def make(folder, stems):
    """Put nbgrader's settings, the instructor's notebooks of `stems` and a fresh secret into the empty `folder`.

    Errors: Unready, before anything is written, if a package or a notebook is missing.
    """
    for name, reason in NEEDED.items():
        if find_spec(name) is None:
            raise Unready(f"{name} is not installed in this Python, and {reason}: pip install -r requirements.txt")
    if shutil.which("alembic", path=environment(folder)["PATH"]) is None:
        raise Unready("The command alembic is missing, and nbgrader calls it: pip install -r requirements.txt")
    sources = [ROOT / "solutions" / stem / f"{stem}.ipynb" for stem in stems]
    for source in sources:
        if not source.is_file():
            raise Unready(f"{source.relative_to(ROOT)} is missing: make notebooks")
    (folder / "jupyter").mkdir()  # IPython looks for the parent of its folder
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    for source in sources:
        target = folder / "solutions" / source.stem
        target.mkdir(parents=True)
        shutil.copy(source, target)
    with open(folder / "secret", "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(secrets.token_hex(32))


@contextlib.contextmanager
def workers(folder):
    """A pool of processes that stand in the course folder, one for each core; what they print goes to nbgrader.log."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads and sockets of notebooks
    count = max(2, min(os.cpu_count() or 1, 8))
    with ProcessPoolExecutor(count, context, _enter, (str(folder), environment(folder))) as pool:
        yield pool


def _enter(folder, variables):
    os.environ.update(variables)
    os.chdir(folder)
    log = os.open("nbgrader.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)


def nbgrader(*arguments):
    """Run one command line of nbgrader in a worker; its exit status."""
    from nbgrader.apps import NbGraderApp  # takes seconds, and only workers need it

    NbGraderApp.clear_instance()
    try:
        NbGraderApp.launch_instance(list(arguments))
    except SystemExit as stop:
        return stop.code or 0
    return 0


def scores(stem):
    """{student: {grade_id: score}} of one assignment from the gradebook, in a worker."""
    from nbgrader.api import Gradebook

    found = {}
    with Gradebook(f"sqlite:///{Path.cwd() / 'gradebook.db'}", "normlab") as book:
        for submission in book.assignment_submissions(stem):
            grades = [grade for notebook in submission.notebooks for grade in notebook.grades]
            found[submission.student.id] = {grade.name: grade.score for grade in grades}
    return found
