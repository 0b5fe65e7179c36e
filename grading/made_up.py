"""A made-up class of any size: each student's answers are drawn from what the students in classroom/ wrote, from the
course's solution, and from the stubs. What every answer deserves is known."""

import json
import random
from pathlib import Path

from grading import demo
from grading.course import ROOT


def submissions(stem, count, seed=0, release=None, classroom=demo.CLASSROOM):
    """`count` Submissions of one assignment, the same for the same seed; no answer that hangs or ends its process."""
    draw = random.Random(seed)
    solution = demo.cells_by_id(demo.read_notebook(ROOT / "solutions" / stem / f"{stem}.ipynb"))
    asked = demo.points(demo.read_notebook(release or ROOT / "exercises" / stem / f"{stem}.ipynb"))
    pool = {}
    for name in asked:
        right = demo.Answer("".join(solution[name]["source"]), frozenset(demo.PARTS), None, broken=False)
        pool[name] = [right, right, None]
    for submission in demo.read_class(stem, classroom):
        for name, answer in submission.answers.items():
            if name in pool and not answer.broken:
                pool[name].append(answer)
    made = []
    for number in range(count):
        student = f"student{number:04}"
        answers = {}
        for name, known in pool.items():
            if (answer := draw.choice(known)) is not None:
                code = f"{answer.code}\n# written by {student}"
                answers[name] = demo.Answer(code, answer.passes, answer.mistake, answer.broken)
        made.append(demo.Submission(student, stem, "made up", answers))
    return made


def deserved(submission, asked):
    """Points that a submission's answers deserve; `asked`: demo.points of the release."""
    return sum(
        points
        for name, parts in asked.items()
        for part, points in parts.items()
        if name in submission.answers and part in submission.answers[name].passes
    )


def hand_in(folder, submission, release):
    """Put a submission where `nbgrader collect` would; `release`: the released notebook as JSON."""
    notebook = json.loads(release)
    cells = demo.cells_by_id(notebook)
    for name, answer in submission.answers.items():
        cells[name]["source"] = answer.code
    target = Path(folder, "submitted", submission.student, submission.stem)
    target.mkdir(parents=True)
    (target / f"{submission.stem}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
