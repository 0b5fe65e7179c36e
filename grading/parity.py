"""Every solution, right style and known mistake through the grader and through `check`: python -m grading.parity

Each is put into its released notebook and graded as a class's notebooks are: the checks in this process, the answer in
a sandbox. The same function is held against `check` in this process alone. Both must say the same, part by part: the
same sentence, the same mistake. Takes many minutes, so it is part of `make prove`. Exit status: 0 if all agree, else 1.

Here, and here alone, sandboxes hold all of normlab: known mistakes are functions of it.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import runpy
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path

import nbformat

from grading import bridge, demo, judge, rebuild, sandbox
from grading.course import ROOT
from normlab import check, exercises
from normlab.cases import PARTS
from normlab.exercises import EXERCISES
from normlab.mistakes import MISTAKES

STYLES = ROOT / "tests" / "styles"

# `check` lets a known mistake call the rest of normlab; over there it has to take that right.
ALLOWED = """import functools

from normlab import guard
from normlab.mistakes import MISTAKES

guard.Rules = functools.partial(guard.Rules, normlab=True)
"""


@contextlib.contextmanager
def sandboxes():
    """Warm sandboxes in which the known mistakes can be imported."""
    before = sandbox.VIEW, bridge.PRELOADED, bridge.MEASURING
    bridge.PRELOADED, bridge.MEASURING = (*bridge.PRELOADED, "normlab.mistakes"), ()
    sandbox.VIEW = tuple(sorted(path.name for path in (ROOT / "normlab").iterdir() if path.name != "__pycache__"))
    warm = bridge.Sandboxes()
    try:
        yield warm
    finally:
        warm.close()
        sandbox.VIEW, bridge.PRELOADED, bridge.MEASURING = before


def answers(name):
    """[(label, function, source)] of all that is known about an exercise: solution, styles, mistakes."""
    exercise, found = EXERCISES[name], []
    solved = _cells(exercise.stem, "solutions")
    source = solved[name].source
    with tempfile.TemporaryDirectory() as folder:  # Triton reads a kernel's text from its file
        file = Path(folder, "solution.py")
        file.write_text(f"{solved['setup'].source}\n\n{source}\n", encoding="utf-8")
        names = runpy.run_path(str(file))
    found.append(("solution", names[exercise.function], source))
    path = STYLES / f"{name}.py"
    text = path.read_text(encoding="utf-8")
    for k, function in enumerate(runpy.run_path(str(path))["STYLES"]):
        found.append((f"style {k}", function, f"{text}\n\n{exercise.function} = STYLES[{k}]"))
    for k, known in enumerate(MISTAKES[name]):
        source = f'{ALLOWED}{exercise.function} = MISTAKES["{name}"][{k}].wrong'
        found.append((known.slug, known.wrong, source))
    return found


@cache
def _cells(stem, tree="exercises"):
    notebook = nbformat.read(ROOT / tree / stem / f"{stem}.ipynb", 4)
    return {rebuild.identity(cell): cell for cell in notebook.cells}


@cache
def _release(name):
    """The released notebook with this exercise alone."""
    exercise = EXERCISES[name]
    released = nbformat.read(ROOT / "exercises" / exercise.stem / f"{exercise.stem}.ipynb", 4)
    wanted = {"setup", name, *(f"check-{name}-{part}" for part in PARTS)}
    released.cells = [cell for cell in released.cells if rebuild.identity(cell) in wanted]
    return released


def graded(name, source, warm):
    """{part: (sentence, mistake), or None where it is right} as a graded notebook has it."""
    release = _release(name)
    handed_in = [(c.cell_type, [rebuild.identity(c)], c.source) for c in release.cells]
    handed_in = [(kind, names, source if names == [name] else old) for kind, names, old in handed_in]
    found = {}
    for cell in judge.grade(rebuild.rebuild(release, handed_in), warm).cells:
        kind, _, part = rebuild.identity(cell).rpartition("-")
        if kind == f"check-{name}":
            errors = [output for output in cell.outputs if output["output_type"] == "error"]
            mistake = cell.metadata["normlab"].get("mistake")
            found[part] = (errors[0]["evalue"], mistake) if errors else None
    return found


def checked(name, function):
    """The same by `check`, here."""
    found = {}
    for part in PARTS:
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                check.check(function, name, part)
                found[part] = None
            except check.CheckFailed as failed:
                found[part] = str(failed), failed.mistake
    return found


def disagreements(name, chosen, warm):
    """Sentences about each of the chosen (label, function, source) for which the two differ."""
    for label, function, source in chosen:
        there, here = graded(name, source, warm), checked(name, function)
        for part in PARTS:
            (one, mistake), (other, named) = there[part] or (None, None), here[part] or (None, None)
            if mistake != named or not demo.same(one, other):
                yield f"{name}, {label}, {part}: the notebook says {there[part]}, check says {here[part]}"


def all_of(name):
    """How many answers of an exercise there are, and all disagreements. In a process of its own."""
    if (torch := exercises.torch_or_none()) is not None:
        torch.set_num_threads(1)
    with sandboxes() as warm:
        known = answers(name)
        return len(known), list(disagreements(name, known, warm))


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m grading.parity", description=__doc__.splitlines()[0])
    parser.add_argument("exercises", nargs="*", metavar="EXERCISE", help="these alone (default: all)")
    names = parser.parse_args(arguments).exercises or list(EXERCISES)
    started, count, differ = time.monotonic(), 0, 0
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        jobs = {pool.submit(all_of, name): name for name in names}
        for number, job in enumerate(as_completed(jobs), 1):
            answered, lines = job.result()
            count, differ = count + answered, differ + len(lines)
            print("\n".join([*lines, f"{number} of {len(names)}: {jobs[job]}, {answered} answers"]), flush=True)
    print(f"{count} answers, {differ} disagreements; {time.monotonic() - started:.0f} seconds.")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
