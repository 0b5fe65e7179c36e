"""A made-up class is graded, from release to feedback: python -m grading.demo [FOLDER] [--classroom FOLDER]

Everything happens in a folder outside the checkout, a new one unless FOLDER names one that is empty. nbgrader's own
commands release the assignments and collect the notebooks of the class: what classroom/ has, and a few more whose
answers are drawn from those (made_up.py). `python -m grading` grades them in sandboxes, with cases drawn from a fresh
secret. nbgrader writes the feedback and exports the grades. Then each grade is compared with what the work deserves.
Exit status: 0 if all agree, 1 if not, 2 if nothing could be graded.

With --all, also those take part whose code never ends: they are given up after seconds, which add up to a minute. And
each grade is compared with what `python -m normlab.check` says of the same answer.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import zipfile
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from grading import course
from grading.course import ROOT, Unready

PARTS = ("values", "numerics", "edges")
MORE = 6  # submissions that are made up, besides those of classroom/
ENDLESS = {"rosa"}  # students whose code never ends
CLASSROOM = Path(__file__).resolve().parent / "classroom"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Answer:
    """What somebody wrote into one solution cell. `passes`: the parts that deserve their points. `mistake`: the slug
    that the refusal carries, if one. `broken`: the cell leaves no function behind."""

    code: str
    passes: frozenset
    mistake: str | None
    broken: bool


@dataclass
class Submission:
    """One notebook handed in; exercises that `answers` does not name stay as they were released, and so do predictions
    and the explanation, unless `cells` {cell id: text} has them."""

    student: str
    stem: str
    about: str
    answers: dict = field(default_factory=dict)
    cells: dict = field(default_factory=dict)


def read_class(stem, classroom=CLASSROOM):
    """The Submissions of <stem>.txt in the folder `classroom`."""
    import jupytext

    submissions = []
    for cell in jupytext.reads((classroom / f"{stem}.txt").read_text(encoding="utf-8"), fmt="py:percent").cells:
        marks = cell.metadata
        if "student" in marks:
            submissions.append(Submission(marks["student"], stem, marks["about"]))
            continue
        if (kind := next((kind for kind in ("prediction", "explanation") if kind in marks), None)) is not None:
            submissions[-1].cells[f"{kind}-{marks[kind]}"] = cell.source
            continue
        passes = frozenset(marks.get("passes", " ".join(PARTS)).split())
        answer = Answer(cell.source, passes, marks.get("mistake"), marks.get("broken", False))
        submissions[-1].answers[marks["answer"]] = answer
    return submissions


def read_notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


def cells_by_id(notebook):
    """{grade_id: cell} of the cells that nbgrader knows."""
    cells = ((cell["metadata"].get("nbgrader", {}).get("grade_id"), cell) for cell in notebook["cells"])
    return {identity: cell for identity, cell in cells if identity}


def points(release):
    """{exercise: {part: points}} of a released notebook, in its order."""
    worth = {}
    for identity, cell in cells_by_id(release).items():
        if identity.startswith("check-"):
            _, exercise, part = identity.split("-")
            worth.setdefault(exercise, {})[part] = cell["metadata"]["nbgrader"]["points"]
    return worth


def predictions(release):
    """{name: points} of what a released notebook asks to predict."""
    return {
        identity.removeprefix("measure-"): cell["metadata"]["nbgrader"]["points"]
        for identity, cell in cells_by_id(release).items()
        if identity.startswith("measure-")
    }


def hand_in(folder, submission):
    """Put the archive that a learning platform would give for one submission where `nbgrader zip_collect` looks."""
    stem = submission.stem
    notebook = read_notebook(folder / "exercises" / stem / f"{stem}.ipynb")
    cells = cells_by_id(notebook)
    for exercise, answer in submission.answers.items():
        cells[exercise]["source"] = answer.code
    for cell in notebook["cells"]:
        cell["source"] = submission.cells.get(cell["id"], cell["source"])
    archive = folder / "downloaded" / stem / "archive" / f"{submission.student}.zip"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"{stem}.ipynb", json.dumps(notebook))


def grade(folder, stems, tell):
    """python -m grading for each assignment, all at the same time, the cores divided among them."""
    share = max(1, (os.cpu_count() or 1) // len(stems))
    running = {}
    for stem in stems:
        command = [sys.executable, "-m", "grading", stem, "--workers", str(share)]
        with open(folder / f"{stem}.log", "wb") as log:
            running[stem] = subprocess.Popen(
                command, cwd=folder, env=course.environment(folder), stdout=log, stderr=subprocess.STDOUT
            )
    try:
        for stem, process in running.items():
            status, said = process.wait(), (folder / f"{stem}.log").read_text(encoding="utf-8")
            if status:
                raise Unready(f"python -m grading {stem} failed: {said.strip()[-1000:]}")
            graded = next(line for line in said.splitlines() if line.startswith("Graded: "))
            tell(f"  {stem}: {graded[0].lower()}{graded[1:]}")
    finally:
        for process in running.values():
            if process.poll() is None:
                process.terminate()
                process.wait()


def refusals(folder, submission):
    """{(exercise, part): sentence} of the check cells that failed in an autograded notebook."""
    path = folder / "autograded" / submission.student / submission.stem / f"{submission.stem}.ipynb"
    found = {}
    for identity, cell in cells_by_id(read_notebook(path)).items():
        errors = [output for output in cell.get("outputs", []) if output["output_type"] == "error"]
        if identity.startswith("check-") and errors:
            _, exercise, part = identity.split("-")
            ours = errors[0]["ename"] == "CheckFailed"
            sentence = ANSI.sub("", errors[0]["evalue"])
            found[exercise, part] = sentence if ours else f"{errors[0]['ename']}: {sentence}"
    return found


def as_files(folder, exercise, submissions):
    """{student: path of a file of their own with their answer to `exercise`}."""
    stem = submissions[0].stem
    released = cells_by_id(read_notebook(folder / "exercises" / stem / f"{stem}.ipynb"))
    setup, files = "".join(released["setup"]["source"]), {}
    for submission in submissions:
        answer = submission.answers.get(exercise)
        path = folder / "answers" / submission.student / f"{exercise}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        code = answer.code if answer else "".join(released[exercise]["source"])
        path.write_text(f"{setup}\n\n\n{code}\n", encoding="utf-8")
        files[submission.student] = str(path)
    return files


def check_on_the_command_line(folder, exercise, submissions):
    """{student: verdict of `python -m normlab.check EXERCISE FILE --json`}."""
    files = as_files(folder, exercise, submissions)
    command = [sys.executable, "-m", "normlab.check", exercise, *files.values(), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=course.environment(folder), cwd=folder)
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    if len(verdicts) < len(files):
        raise Unready(f"python -m normlab.check {exercise} ended early: {done.stderr.strip()[-500:]}")
    return dict(zip(files, verdicts, strict=True))


def same(one, other):
    """Whether two refusals say the same. Where the answer calls what is to be written, the command line can tell which
    function of PyTorch that was; in a sandbox these functions are closed."""
    refused = ": this exercise is to write it"
    return one == other or bool(one and other and refused in one and refused in other)


def judge(submission, worth, asked, scores, sentences, verdicts):
    """Sentences about every grade that is not what the answer deserves, or that the command line does not confirm.

    worth {exercise: {part: points}}; asked {prediction: points}; scores {grade_id: score}; sentences {(exercise, part):
    refusal}; verdicts {exercise: verdict}, of those that the command line was asked about.
    """
    for name, full in asked.items():
        deserved, score = full if f"prediction-{name}" in submission.cells else 0, scores.get(f"measure-{name}")
        if score != deserved:
            yield f"{submission.student}, prediction {name}: the grade is {score}, and the answer deserves {deserved}"
    for exercise, parts in worth.items():
        who = f"{submission.student}, {exercise}"
        answer = submission.answers.get(exercise)
        passes = answer.passes if answer else frozenset()
        for part, full in parts.items():
            deserved, score = full if part in passes else 0, scores.get(f"check-{exercise}-{part}")
            if score != deserved:
                yield f"{who}, {part}: the grade is {score}, and the answer deserves {deserved}"
        if (verdict := verdicts.get(exercise)) is None:
            continue
        if verdict["accepted"] != (passes == set(PARTS)):
            yield f"{who}: the command line {'accepts' if verdict['accepted'] else 'refuses'} the answer"
        if verdict["mistake"] != (answer.mistake if answer else None):
            yield f"{who}: the command line takes the mistake for {verdict['mistake']}"
        first = next((sentences[exercise, part] for part in parts if (exercise, part) in sentences), None)
        if not (answer and answer.broken) and not same(first, verdict["reason"]):
            yield f"{who}: the notebook says {first!r}, the command line {verdict['reason']!r}"


def table(submissions, worth, asked, scores, sentences):
    """The lines that show one assignment's grades: a row for each student, the first refusal under it."""
    width = max(len(s.about) for s in submissions)
    total = sum(sum(parts.values()) for parts in worth.values()) + sum(asked.values())
    columns = {name: [f"check-{name}-{part}" for part in parts] for name, parts in worth.items()}
    columns["predicted"] = [f"measure-{name}" for name in asked]
    yield f"{'student':9}{'handed in':{width}}" + "".join(f"{name:>{len(name) + 2}}" for name in columns) + "  total"
    for s in submissions:
        sums = {name: sum(scores[s.student][identity] for identity in column) for name, column in columns.items()}
        row = "".join(f"{score:{len(name) + 2}.0f}" for name, score in sums.items())
        yield f"{s.student:9}{s.about:{width}}{row}{sum(sums.values()):4.0f}/{total}"
        order = ((name, part) for name, parts in worth.items() for part in parts)
        if first := next((sentences[s.student][key] for key in order if key in sentences[s.student]), None):
            yield from textwrap.wrap(first, 110, initial_indent=" " * 9, subsequent_indent=" " * 9)


def run(folder, stems, classroom=CLASSROOM, more=MORE, without=ENDLESS, confirm=False):
    """Grade the class of `stems` in the empty `folder`, telling how far it is. `more`: how many are made up; `without`:
    students who are left out; `confirm`: ask the command line, too. Returns what was wrong, as sentences."""
    from grading import made_up  # it reads this file's classes

    started = time.monotonic()

    def tell(text):
        print(f"{time.monotonic() - started:5.0f} s  {text}", flush=True)

    def commands(*lines):
        """Command lines of nbgrader, at the same time."""
        for line in lines:
            tell("nbgrader " + " ".join(line))
        for line, job in [(line, pool.submit(course.nbgrader, *line)) for line in lines]:
            if job.result():
                raise Unready(f"nbgrader {' '.join(line)} failed; {folder / 'nbgrader.log'} says why.")

    course.make(folder, stems)
    submissions = [s for stem in stems for s in read_class(stem, classroom) if s.student not in without]
    exercises, asked, scores, verdicts = {}, {}, {}, {}
    with course.workers(folder) as pool:
        for stem in stems:  # one after the other: the first makes the gradebook
            commands(("generate_assignment", stem))
        for stem in stems:
            release = read_notebook(folder / "exercises" / stem / f"{stem}.ipynb")
            exercises[stem], asked[stem] = points(release), predictions(release)
        submissions += made_up.submissions(stems[-1], more, classroom=classroom)
        for submission in submissions:
            hand_in(folder, submission)
        commands(*(("zip_collect", stem) for stem in stems))
        tell(f"python -m grading: {len(submissions)} notebooks of {len({s.student for s in submissions})} students")
        grade(folder, stems, tell)
        commands(*(("generate_feedback", stem) for stem in stems))
        commands(("export", "--to", "grades.csv"))
        for stem in stems:
            scores[stem] = pool.submit(course.scores, stem).result()
        checks = {}
        if confirm:
            tell("python -m normlab.check: the same answers on the command line")
            for stem in stems:
                own = [s for s in submissions if s.stem == stem]
                checks |= {pool.submit(check_on_the_command_line, folder, name, own): name for name in exercises[stem]}
        for job in as_completed(checks):
            verdicts[checks[job]] = job.result()
            tell(f"  {checks[job]}: {len(job.result())} answers")
        tell("all is compared")

    wrong = []
    for stem in stems:
        own = [s for s in submissions if s.stem == stem]
        sentences = {s.student: refusals(folder, s) for s in own}
        print(f"\n{stem}\n")
        print("\n".join(table(own, exercises[stem], asked[stem], scores[stem], sentences)))
        for s in own:
            its = {name: verdicts[name][s.student] for name in exercises[stem] if name in verdicts}
            wrong += judge(s, exercises[stem], asked[stem], scores[stem][s.student], sentences[s.student], its)
        paragraphs = sum(f"explanation-{stem}" in s.cells for s in own)
        if paragraphs:
            print(f"Paragraphs that wait for somebody to read and grade them (nbgrader formgrader): {paragraphs}")
    with open(folder / "grades.csv", newline="") as file:
        exported = {(row["student_id"], row["assignment"]): float(row["score"]) for row in csv.DictReader(file)}
    for s in submissions:
        if exported.get((s.student, s.stem)) != sum(scores[s.stem][s.student].values()):
            wrong.append(f"{s.student}, {s.stem}: the export differs from the gradebook")
    return wrong


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m grading.demo", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="an empty folder to work in (default: a new one)")
    parser.add_argument("--classroom", type=Path, default=CLASSROOM, help="what the class hands in (default: ours)")
    parser.add_argument("--more", type=int, default=MORE, help=f"how many are made up besides (default: {MORE})")
    parser.add_argument("--all", action="store_true", help="also those whose code never ends, and the command line")
    options = parser.parse_args(arguments)
    try:
        folder = (options.folder or Path(tempfile.mkdtemp(prefix="normlab-class-"))).resolve()
        if folder.is_relative_to(ROOT):
            raise Unready(f"{folder} is inside the checkout, and nothing is to be left behind there: choose another.")
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Unready(f"{folder} is not empty: choose another.")
        print(f"A made-up class, in {folder}")
        without = set() if options.all else ENDLESS
        wrong = run(folder, ("puzzle", "softmax"), options.classroom.resolve(), options.more, without, options.all)
    except BrokenProcessPool:
        print(f"A process that graded was ended from outside; {folder / 'nbgrader.log'} may say why.", file=sys.stderr)
        return 2
    except (Unready, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\nfeedback   {folder / 'feedback'}/<student>/<assignment>/\ngrades     {folder / 'grades.csv'}")
    print(f"gradebook  {folder / 'gradebook.db'}\n")
    if wrong:
        print("\n".join(["Not as it should be:", *wrong]), file=sys.stderr)
        return 1
    confirmed = ", and python -m normlab.check says the same" if options.all else ""
    print(f"Every grade is what the work deserves{confirmed}.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
