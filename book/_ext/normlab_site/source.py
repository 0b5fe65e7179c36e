"""Reads the exercises of one chapter from its hand-written solutions file (percent format)."""

import functools
import re
from dataclasses import dataclass

import jupytext
from traitlets.config.loader import ConfigFileNotFound, PyFileConfigLoader

SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION.*?^[ \t]*### END SOLUTION", re.DOTALL | re.MULTILINE)
MARKER = re.compile(r"^[ \t]*### (?:BEGIN|END) SOLUTION[ \t]*\n?", re.MULTILINE)
RUBRIC = "**Rubric**"
HEADING = re.compile(r"\A#+[ \t]+(.+?)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    """One exercise; texts are Markdown, `parts` are (name, points) pairs. A page shows all but the `solution`."""

    name: str
    title: str
    about: str
    stub: str
    solution: str
    parts: tuple
    hints: str
    after: str


def code_stub(root):
    """The lines that stand in a learner's notebook where the solution was, as nbgrader_config.py in `root` has them.

    Raises ValueError where it has none.
    """
    try:
        config = PyFileConfigLoader("nbgrader_config.py", path=str(root)).load_config()
        return config["ClearSolutions"]["code_stub"]["python"]
    except (ConfigFileNotFound, KeyError, TypeError) as error:
        raise ValueError('nbgrader_config.py does not set c.ClearSolutions.code_stub = {"python": ...}') from error


def without_solution(code, stub):
    """Replace every marked solution in `code` by the lines of `stub`, indented as the solution was."""
    return SOLUTION.sub(lambda match: "\n".join(match[1] + line for line in stub.splitlines()), code)


@functools.lru_cache(1)  # a page asks once for each of its exercises
def _cells(text):
    return jupytext.reads(text, fmt="py:percent").cells


@dataclass(frozen=True)
class Explanation:
    """What a notebook asks to be explained in a paragraph, a model answer, and the rubric: Markdown."""

    question: str
    answer: str
    rubric: str
    points: int


def read_explanation(path):
    """The Explanation in the file `path`. Raises ValueError where it has none."""
    cells = _cells(path.read_text(encoding="utf-8"))
    asked = next((cell.source for cell in cells if "explain" in cell.metadata), None)
    told = next((cell for cell in cells if "explanation" in cell.metadata), None)
    if asked is None or told is None or RUBRIC not in told.source:
        raise ValueError(f"{path}: no explanation is asked for, or it has no line {RUBRIC}")
    answer, rubric = told.source.split(RUBRIC)
    return Explanation(HEADING.sub("", asked, count=1).strip(), answer.strip(), rubric.strip(), told.metadata["points"])


def read_exercises(path, stub):
    """Return {name: Exercise} for the exercises in the file `path`.

    Raises ValueError where an exercise lacks its text, its checks, its hints or its last word.
    """
    cells = _cells(path.read_text(encoding="utf-8"))
    text = {
        role: {cell.metadata[role]: cell.source for cell in cells if role in cell.metadata}
        for role in ("about", "solution", "hints", "after")
    }
    parts = {}
    for cell in cells:
        if "check" in cell.metadata:
            parts.setdefault(cell.metadata["check"], []).append((cell.metadata["part"], cell.metadata["points"]))

    exercises = {}
    for name, solution in text["solution"].items():
        missing = [role for role in ("about", "hints", "after") if name not in text[role]]
        if name not in parts:
            missing.append("check")
        if missing:
            raise ValueError(f"{path}: exercise {name} has no {' and no '.join(missing)} cell")
        heading = HEADING.search(text["about"][name])
        if heading is None:
            raise ValueError(f"{path}: the about cell of {name} does not begin with a heading")
        exercises[name] = Exercise(
            name=name,
            title=heading[1],
            about=text["about"][name][heading.end() :].strip(),
            stub=without_solution(solution, stub),
            solution=MARKER.sub("", solution),
            parts=tuple(parts[name]),
            hints=text["hints"][name],
            after=text["after"][name],
        )
    return exercises
