"""Every solution, right style and known mistake through nbgrader and through the command line: python -m grading.parity

The two must give the same verdict, the same sentence and the same mistake. Takes some minutes, so it is part of
`make prove`, not of `make test`. Exit status: 0 if all agree, 1 if not.
"""

import runpy
import sys
import tempfile
import time
from concurrent.futures import as_completed
from pathlib import Path

from grading import course, demo
from normlab.exercises import EXERCISES
from normlab.mistakes import MISTAKES

STEMS = tuple(dict.fromkeys(exercise.stem for exercise in EXERCISES.values()))
STYLES = course.ROOT / "tests" / "styles"


def mistake(name, number):
    return f'from normlab.mistakes import MISTAKES\n{name} = MISTAKES["{name}"][{number}].wrong'


def style(name, number):
    return f'import runpy\n{name} = runpy.run_path({str(STYLES / f"{name}.py")!r})["STYLES"][{number}]'


def answers(stem, solution):
    """(label, code, slug of the mistake or None) of each exercise of a stem: {exercise: [...]}."""
    found = {}
    for name in (exercise.name for exercise in EXERCISES.values() if exercise.stem == stem):
        styles = runpy.run_path(str(STYLES / f"{name}.py"))["STYLES"]
        found[name] = [
            ("solution", "".join(solution[name]["source"]), None),
            *((f"style {k}", style(name, k), None) for k in range(len(styles))),
            *((known.slug, mistake(name, k), known.slug) for k, known in enumerate(MISTAKES[name])),
        ]
    return found


def run(folder):
    """Prints what disagrees; returns how many answers agree and how many do not."""
    course.make(folder, STEMS)
    todo, submissions = {}, []
    for stem in STEMS:
        path = course.ROOT / "solutions" / stem / f"{stem}.ipynb"
        todo[stem] = answers(stem, demo.cells_by_id(demo.read_notebook(path)))
        for k in range(max(map(len, todo[stem].values()))):
            codes = {
                name: demo.Answer(code=of[k][1], passes=frozenset(), mistake=of[k][2], broken=False)
                for name, of in todo[stem].items()
                if k < len(of)
            }
            submissions.append(demo.Submission(f"student{k:02}", stem, "", codes))
    agree = differ = 0
    with course.workers(folder) as pool:
        for stem in STEMS:
            pool.submit(course.nbgrader, "generate_assignment", stem).result()
        for submission in submissions:
            demo.hand_in(folder, submission)
        for stem in STEMS:
            pool.submit(course.nbgrader, "zip_collect", stem).result()
        jobs = [pool.submit(course.nbgrader, "autograde", s.stem, "--student", s.student) for s in submissions]
        for done, _ in enumerate(as_completed(jobs), 1):
            print(f"\rautograded {done} of {len(jobs)}", end="", flush=True)
        print()
        for stem in STEMS:
            own = [s for s in submissions if s.stem == stem]
            scores = pool.submit(course.scores, stem).result()
            for name, of in todo[stem].items():
                handed_in = [s for s in own if name in s.answers]
                verdicts = demo.check_on_the_command_line(folder, name, handed_in)
                for submission, (label, _, slug) in zip(handed_in, of, strict=True):
                    verdict = verdicts[submission.student]
                    total = sum(scores[submission.student][f"check-{name}-{part}"] for part in demo.PARTS)
                    refused = demo.refusals(folder, submission)
                    first = next((refused[name, part] for part in demo.PARTS if (name, part) in refused), None)
                    right = slug is None
                    same = verdict["accepted"] == right == (total == 20) and verdict["mistake"] == slug
                    if same and first == verdict["reason"]:
                        agree += 1
                    else:
                        differ += 1
                        print(f"{name}, {label}: {total} points, {first!r}; the command line: {verdict}")
    return agree, differ


def main():
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="normlab-parity-") as folder:
        agree, differ = run(Path(folder).resolve())
    print(f"{agree} answers agree, {differ} do not; {time.monotonic() - started:.0f} seconds.")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
