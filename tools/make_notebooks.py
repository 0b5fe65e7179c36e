"""Write both notebook trees from solutions/<stem>/<stem>.py, which are written by hand in the percent format.

solutions/<stem>/<stem>.ipynb is the instructor's notebook, with nbgrader's cell metadata; exercises/<stem>/<stem>.ipynb
is what a learner gets, made from it by nbgrader's own generator. The same sources give the same bytes on every run.

    python tools/make_notebooks.py            writes what differs; removes notebooks whose source is gone
    python tools/make_notebooks.py --check    changes nothing; exits with 1 and names what differs

Markers of a cell: setup=true; with the name of an exercise about="NAME", solution="NAME", check="NAME" part="PART"
points=N, hints="NAME", after="NAME"; with a name of its own, for a prediction, ask="NAME", prediction="NAME",
measure="NAME" points=N, told="NAME"; and with the name of the chapter, for the paragraph that is graded by hand,
explain="STEM", explanation="STEM" points=N. A cell without a marker is the learner's to change.
"""

import argparse
import logging
import re
import shutil
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # as a script this file sees tools/ alone

from normlab.cases import PARTS  # noqa: E402
from normlab.exercises import EXERCISES  # noqa: E402

OF_EXERCISES = ("about", "solution", "check", "hints", "after")
OF_PREDICTIONS = ("ask", "prediction", "measure", "told")
OF_EXPLANATIONS = ("explain", "explanation")
MARKERS = ("setup", *OF_EXERCISES, *OF_PREDICTIONS, *OF_EXPLANATIONS)
CODE = ("setup", "solution", "check", "prediction", "measure")
GRADED = ("check", "measure", "explanation")
FOLDED = {"after": "After you have passed", "told": "After you have predicted"}
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
# A prediction needs no hole that raises: what stands between these lines is taken out, and None is left.
PREDICTED = "prediction = None  # yours\n### BEGIN INSTRUCTOR\nprediction = {}\n### END INSTRUCTOR"
PREDICTION = re.compile(re.escape(PREDICTED).replace(r"\{\}", ".+"))
POINT = re.compile(r"^- (\d+) points?: ", re.MULTILINE)
KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class SourceError(ValueError):
    """What is wrong with the sources, one sentence a line."""


def grade_id(metadata):
    """The name nbgrader knows a cell by, from its marker; None for a cell without one."""
    marker = next((m for m in MARKERS if m in metadata), None)
    if marker in (None, "setup"):
        return marker
    name = metadata[marker]
    if marker == "solution":
        return name
    return f"check-{name}-{metadata.get('part')}" if marker == "check" else f"{marker}-{name}"


def expand(source, stem, exercises=None):
    """The instructor's notebook of one source text. `exercises` {name in the markers: Exercise}, the course's own when
    None. Errors: SourceError with everything that is wrong."""
    exercises = EXERCISES if exercises is None else exercises
    cells, ids, wrong = [], set(), []
    plain = 0
    for cell in jupytext.reads(source, fmt="py:percent").cells:
        code, metadata = cell.cell_type == "code", cell.metadata
        identity = grade_id(metadata)
        if identity is None:
            plain += 1
            identity = f"{stem}-{plain}"
            nbgrader = None
        else:
            wrong += faults(cell, stem, exercises)
            own = "solution" in metadata or "explanation" in metadata
            graded = any(marker in metadata for marker in GRADED)
            nbgrader = {"grade": graded, "grade_id": identity, "locked": not own}
            nbgrader |= {"schema_version": 3, "solution": own, "task": False}
            if graded:
                nbgrader["points"] = metadata.get("points")
            if "prediction" in metadata:
                nbgrader = None  # the learner's to change, and nothing in it to be cleared as a solution
        if identity in ids:
            wrong.append(f"two cells have the grade_id {identity}")
        ids.add(identity)
        make = new_code_cell if code else new_markdown_cell
        summary = next((FOLDED[marker] for marker in FOLDED if marker in metadata), None)
        source = folded(summary, cell.source) if summary else cell.source
        cells.append(make(source, id=identity, metadata={"nbgrader": nbgrader} if nbgrader else {}))
    wrong += missing(ids, stem, exercises)
    if wrong:
        raise SourceError("\n".join(f"solutions/{stem}/{stem}.py: {sentence}." for sentence in wrong))
    return new_notebook(cells=cells, metadata=KERNEL)


def folded(summary, text):
    """Markdown that JupyterLab shows when it is clicked on."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def faults(cell, stem, exercises):
    """What is wrong with one marked cell."""
    metadata, code = cell.metadata, cell.cell_type == "code"
    markers = [m for m in MARKERS if m in metadata]
    if len(markers) > 1:
        yield f"a cell is marked both {' and '.join(markers)}"
        return
    (marker,) = markers
    if code != (marker in CODE):
        yield f"the cell {grade_id(metadata)} is to be {'text' if code else 'code'}"
    if marker == "setup":
        return
    name, points = metadata[marker], metadata.get("points")
    if marker in GRADED and (type(points) not in (int, float) or points <= 0):
        what = f"check of {name}, {metadata.get('part')}," if marker == "check" else f"cell {grade_id(metadata)}"
        yield f"the {what} needs points: points=12"
    if marker in OF_EXERCISES:
        yield from faults_of_exercise(cell, marker, name, stem, exercises)
    if marker in OF_EXPLANATIONS and name != stem:
        yield f"{marker}={name!r} is to have the name of the chapter, {stem}"
    if marker == "prediction" and not PREDICTION.fullmatch(cell.source):
        yield f"the prediction of {name} is to be the four lines {PREDICTED.format('...')!r}"
    if marker == "measure" and not cell.source.splitlines()[-1].startswith("compare(prediction, "):
        yield f"the measurement of {name} is to end with compare(prediction, ...)"
    if marker == "explanation" and sum(map(int, POINT.findall(cell.source))) != points:
        yield f"the rubric of {name} needs lines '- 1 point: ...' that add up to its points, {points}"


def faults_of_exercise(cell, marker, name, stem, exercises):
    """What is wrong with a cell that belongs to an exercise."""
    if name not in exercises:
        yield f"{marker}={name!r} names no exercise of normlab/exercises.py"
    elif exercises[name].stem != stem:
        yield f"{marker}={name!r} is an exercise of the chapter {exercises[name].stem}"
    if marker == "solution":
        lines = [line.strip() for line in cell.source.splitlines()]
        marks = [line for line in lines if line in (BEGIN, END)]
        if not marks or marks != [BEGIN, END] * (len(marks) // 2):
            yield f"the solution of {name} needs one line {BEGIN!r} and after it one line {END!r}"
        if not any(line.startswith((f"def {name}(", f"class {name}(")) for line in cell.source.splitlines()):
            yield f"the solution of {name} does not define {name}"
    if marker == "check":
        part = cell.metadata.get("part")
        if part not in PARTS:
            yield f"a check of {name} has the part {part!r}, which is none of {', '.join(PARTS)}"
        full = exercises[name].name if name in exercises else name  # a variant's has its conventions in it
        call = f'check({name}, "{full}", part="{part}")'
        if cell.source != call:
            yield f"the check of {name}, {part}, is to be the one line {call}"


def missing(ids, stem, exercises):
    """The cells that the exercises, predictions and the explanation of a chapter lack. Exercises without any cell are
    `untold`'s."""
    if "setup" not in ids:
        yield "no cell is marked setup=true"
    groups = {
        name: [f"about-{name}", name, *(f"check-{name}-{part}" for part in PARTS), f"hints-{name}", f"after-{name}"]
        for name in (name for name, e in exercises.items() if e.stem == stem)
    }
    groups[f"the explanation of {stem}"] = [f"{marker}-{stem}" for marker in OF_EXPLANATIONS]
    starts = tuple(f"{marker}-" for marker in OF_PREDICTIONS)
    for name in sorted({identity.split("-", 1)[1] for identity in ids if identity.startswith(starts)}):
        groups[f"the prediction of {name}"] = [start + name for start in starts]
    for what, wanted in groups.items():
        if not ids.isdisjoint(wanted):
            yield from (f"{what} has no cell {identity}" for identity in wanted if identity not in ids)


def untold(sources):
    """A sentence for each exercise without a solution cell. `sources`: {stem: the instructor's notebook}."""
    told = {cell.id for notebook in sources.values() for cell in notebook.cells}
    for e in EXERCISES.values():
        if e.name not in told:
            yield f"The exercise {e.name} has no text: solutions/{e.stem}/{e.stem}.py is to have it."


def read_sources(root):
    """{stem: the instructor's notebook} of all sources under root/solutions. Errors: SourceError."""
    notebooks, wrong = {}, []
    for path in sorted((root / "solutions").glob("*/*.py")):
        stem = path.stem
        if path.parent.name != stem:
            wrong.append(f"{path.relative_to(root).as_posix()}: a source is named like its folder.")
            continue
        try:
            notebooks[stem] = expand(path.read_text(encoding="utf-8"), stem)
        except SourceError as error:
            wrong.append(str(error))
    if wrong:
        raise SourceError("\n".join(wrong))
    return notebooks


def to_bytes(notebook):
    nbformat.validate(notebook)
    return (nbformat.writes(notebook, version=4) + "\n").encode()


def release(root, notebooks):
    """{path: bytes} of the tree exercises/, made by nbgrader. `notebooks`: {stem: the instructor's notebook}."""
    # It takes seconds to import nbgrader, and a fault in the sources is to be told at once.
    from nbgrader.apps import NbGraderApp
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import PyFileConfigLoader

    config = PyFileConfigLoader("nbgrader_config.py", path=str(root)).load_config()
    config.GenerateAssignment.no_database, config.SaveCells.enabled = True, False
    with tempfile.TemporaryDirectory(prefix="normlab-") as folder:
        course = Path(folder).resolve()
        for stem, notebook in notebooks.items():
            shutil.copytree(root / "solutions" / stem, course / "solutions" / stem)
            (course / "solutions" / stem / f"{stem}.ipynb").write_bytes(to_bytes(notebook))
        app = NbGraderApp(log_level=logging.ERROR, config=config)
        directory = CourseDirectory(parent=app, root=str(course), assignment_id="*")
        GenerateAssignment(coursedir=directory, parent=app).start()
        made = sorted(path for path in (course / "exercises").rglob("*") if path.is_file())
        tree = {path.relative_to(course): path.read_bytes() for path in made}
    for path in tree:
        if path.suffix == ".ipynb":
            tree[path] = to_bytes(nbformat.reads(tree[path].decode(), as_version=4))
    return tree


def differences(root, expected):
    """Paths under root that are not as expected, each with a word: missing, different or stray."""
    found = [root / "exercises", *(root / "solutions").glob("*/*.ipynb")]
    found += (root / "exercises").rglob("*")
    present = {p.relative_to(root) for p in found if p.is_file() and ".ipynb_checkpoints" not in p.parts}
    for path, content in expected.items():
        if path not in present:
            yield path, "missing"
        elif (root / path).read_bytes() != content:
            yield path, "different"
    yield from ((path, "stray") for path in sorted(present - set(expected)))


def write(root, path, content):
    """Make one difference good. A stray file is removed only if it has the name of a generated one."""
    target = root / path
    if content is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return f"wrote    {path.as_posix()}"
    if path.suffix != ".ipynb" or path.stem != path.parent.name:
        return None
    target.unlink()
    if not any(target.parent.iterdir()):
        target.parent.rmdir()
    return f"removed  {path.as_posix()}"


def main(arguments=None, root=ROOT):
    """Exit status: 0 all is well, 1 something is wrong (--check: or differs)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 and name what differs")
    options = parser.parse_args(arguments)
    try:
        notebooks = read_sources(root)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    expected = {Path("solutions", stem, f"{stem}.ipynb"): to_bytes(nb) for stem, nb in notebooks.items()}
    expected |= release(root, notebooks) if notebooks else {}
    wrong = list(untold(notebooks))
    for path, word in differences(root, expected):
        if options.check:
            wrong.append(f"{path.as_posix()} is {word}: run make notebooks.")
        elif told := write(root, path, expected.get(path)):
            print(told)
        else:
            wrong.append(f"{path.as_posix()} is not generated and does not belong there: remove it.")
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    print(f"{len(notebooks)} chapters, {len(EXERCISES)} exercises: both trees follow their sources.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
