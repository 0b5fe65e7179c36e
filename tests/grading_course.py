"""A small course for tests of the grader: one assignment, `tiny`, with one exercise, and folders that hand it in.

PyTorch is out of reach there: NumPy's truths give the same verdicts, and nobody waits for its import.
"""

import atexit
import functools
import json
import multiprocessing
import os
import runpy
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from grading import course, demo

ROOT = course.ROOT
STEM = "tiny"
ANSWERS = next(s.answers for s in demo.read_class("softmax") if s.student == "emil")
RIGHT = "".join(
    demo.cells_by_id(demo.read_notebook(ROOT / "solutions" / "softmax" / "softmax.ipynb"))["softmax"]["source"]
)
OVERFLOWS = ANSWERS["softmax"].code
DESERVE = {RIGHT: 20.0, OVERFLOWS: 15.0, "": 0.0}


# nbgrader and Dask take seconds to import. A process of its own imports them once, and each command is forked from it.
_PREPARED = multiprocessing.get_context("forkserver")
_PREPARED.set_forkserver_preload(["nbgrader.apps", "grading.record", "distributed"])


def make(folder):
    """Release `tiny` in an empty folder."""
    shutil.copytree(_made(), folder, dirs_exist_ok=True)


@functools.cache
def _made():
    """A released course, made once in a process of tests."""
    folder = Path(tempfile.mkdtemp(prefix="normlab-tiny-")).resolve()
    atexit.register(shutil.rmtree, folder)
    course.make(folder, ["softmax"])
    notebook = demo.read_notebook(folder / "solutions" / "softmax" / "softmax.ipynb")
    shutil.rmtree(folder / "solutions" / "softmax")
    keep = ("setup", "softmax", "check-softmax")
    cells = [cell for cell in notebook["cells"] if cell["id"].startswith(keep) and cell["id"] != "softmax-1"]
    notebook["cells"] = cells
    (folder / "solutions" / STEM).mkdir()
    (folder / "solutions" / STEM / f"{STEM}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    without_torch(folder)
    done = nbgrader(folder, "generate_assignment", STEM)
    assert done.returncode == 0, done.stderr
    return folder


def without_torch(folder):
    """A folder below this one that, on PYTHONPATH, keeps PyTorch out of reach."""
    (folder / "absent").mkdir()
    (folder / "absent" / "torch.py").write_text("raise ImportError('out of reach')\n", encoding="utf-8")
    return folder / "absent"


def environment(folder, **more):
    found = course.environment(folder)
    return {**found, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder / "absent")]), **more}


def python(folder, *arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def nbgrader(folder, *arguments):
    return _prepared(folder, "nbgrader", arguments)


def grade(folder, *arguments, env=None, **options):
    """python -m grading tiny; with options, which are subprocess's, in a Python that starts anew."""
    if options:
        return python(folder, "-m", "grading", STEM, *arguments, **options)
    return _prepared(folder, "grading", (STEM, *arguments), **(env or {}))


def _prepared(folder, module, arguments, **more):
    """python -m MODULE, forked from a process that has imported what takes long; as subprocess.run tells of it."""
    with tempfile.TemporaryDirectory() as said:
        files = [Path(said, name) for name in ("out", "err")]
        process = _PREPARED.Process(
            target=_become, args=(folder, module, arguments, environment(folder, **more), files)
        )
        process.start()
        process.join(300)
        assert process.exitcode is not None, "it does not end"
        return subprocess.CompletedProcess(arguments, process.exitcode, *(file.read_text() for file in files))


def _become(folder, module, arguments, variables, files):
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:0] = variables["PYTHONPATH"].split(os.pathsep)
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def start(folder, *arguments, command=("-m", "grading", STEM), **more):
    """A grader in the background, in a process group of its own; its output goes to out.txt."""
    with open(folder / "out.txt", "ab") as out:
        return subprocess.Popen(
            [sys.executable, *command, *arguments],
            cwd=folder,
            env=environment(folder, **more),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def notebook(folder, code):
    found = demo.read_notebook(folder / "exercises" / STEM / f"{STEM}.ipynb")
    if code:
        demo.cells_by_id(found)["softmax"]["source"] = code
    return json.dumps(found)


def hand_in(folder, student, content):
    """Hand in a notebook's text, or bytes; its path."""
    target = folder / "submitted" / student / STEM
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{STEM}.ipynb"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def hand_in_all(folder, count):
    """`count` students: right, wrong and empty in turn."""
    for number in range(count):
        hand_in(folder, f"s{number:03}", notebook(folder, list(DESERVE)[number % 3]))
    return [f"s{number:03}" for number in range(count)]


ROWS = """
    select submitted_assignment.student_id, base_cell.name, grade.id, grade.auto_score, grade.needs_manual_grade
    from grade join base_cell on base_cell.id = grade.cell_id
    join submitted_notebook on submitted_notebook.id = grade.notebook_id
    join submitted_assignment on submitted_assignment.id = submitted_notebook.assignment_id
    order by 1, 2
"""


def rows(folder):
    """What an SQLite gradebook says, a tuple for each cell of each student."""
    book = sqlite3.connect(folder / "gradebook.db", timeout=60)
    try:
        return [tuple(row) for row in book.execute(ROWS)]
    finally:
        book.close()


def scores(found):
    """{student: score} of rows; a cell that stands there twice is an error."""
    cells = [row[:2] for row in found]
    assert len(set(cells)) == len(cells), "recorded twice"
    total = {}
    for student, _, _, score, _ in found:
        total[student] = total.get(student, 0.0) + score
    return total


def files(folder):
    """{path: time of its last change} of what was graded and marked."""
    return {
        path: path.stat().st_mtime_ns
        for place in ("autograded", ".graded")
        for path in Path(folder, place).rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def left_running(folder):
    """Command lines of processes that still have this course in their environment, and of their sandboxes."""
    import psutil

    mark, found = str(folder), []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if process.environ().get("NORMLAB_SECRET_FILE", "").startswith(mark):
                found.append(line)
        except psutil.Error:
            continue
    return found
