"""The same submissions graded by stock nbgrader and by `python -m grading`: python -m grading.speed [N] [--stock M]

A made-up class of N hands in. Of it, M are graded by `nbgrader autograde` as it is: its own Execute, no sandbox, one
process. Half of them before and half after all N are graded by ours, so that a machine that slows down slows both. All
in one run, start-up included. Scores must agree with each other and with what the answers deserve. Then what the next
submission costs, from the first to the last: in all, and to record alone.

Exit status: 0 if the scores agree, ours is at least ten times as fast and the cost of the next stays flat; else 1.
"""

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from grading import course, demo, made_up, marks

STEM = "softmax"
STOCK = "\n\nc.pop('Autograde', None)  # as it is\n"
TIMES = 10  # as fast as stock
FLAT = 1.3  # how much more the last submissions may cost than the first
POINTS = """
    select submitted_assignment.student_id, sum(grade.auto_score)
    from grade join base_cell on base_cell.id = grade.cell_id
    join submitted_notebook on submitted_notebook.id = grade.notebook_id
    join submitted_assignment on submitted_assignment.id = submitted_notebook.assignment_id
    where base_cell.name like 'check-%' group by 1
"""


def release(folder):
    """A course folder whose assignment is released, to copy; {exercise: {part: points}} of it."""
    folder.mkdir()
    course.make(folder, [STEM])
    ran(folder, "-m", "nbgrader", "generate_assignment", STEM)
    return demo.points(demo.read_notebook(folder / "exercises" / STEM / f"{STEM}.ipynb"))


def prepare(folder, released, submissions):
    """A copy of the released course in `folder`, with these submissions handed in."""
    shutil.copytree(released, folder)
    text = (folder / "exercises" / STEM / f"{STEM}.ipynb").read_text(encoding="utf-8")
    for submission in submissions:
        made_up.hand_in(folder, submission, text)


def ran(folder, *arguments):
    """Seconds that a command of this Python took in the course folder."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=course.environment(folder), capture_output=True, text=True
    )
    if done.returncode:
        raise course.Unready(f"{' '.join(arguments)} failed: {(done.stdout + done.stderr).strip()[-1000:]}")
    return time.monotonic() - began


def stock(folder, released, submissions):
    """(seconds, seconds from one submission to the next, {student: score}) by nbgrader as it is."""
    prepare(folder, released, submissions)
    with open(folder / "nbgrader_config.py", "a") as file:
        file.write(STOCK)
    seconds = ran(folder, "-m", "nbgrader", "autograde", STEM)
    written = [
        os.stat(folder / "autograded" / s.student / STEM / f"{STEM}.ipynb").st_mtime_ns / 1e9 for s in submissions
    ]
    return seconds, steps(written), totals(folder)


def ours(folder, released, submissions):
    """(seconds, seconds from one submission to the next, {student: score}) by python -m grading."""
    prepare(folder, released, submissions)
    seconds = ran(folder, "-m", "grading", STEM)
    written = [os.stat(folder / marks.mark(STEM, s.student)).st_mtime_ns / 1e9 for s in submissions]
    return seconds, steps(written), totals(folder)


def steps(moments):
    moments = sorted(moments)
    return [after - before for before, after in zip(moments, moments[1:], strict=False)]


def totals(folder):
    """{student: points that check cells gave}. Read without nbgrader, which takes seconds to import."""
    with contextlib.closing(sqlite3.connect(folder / "gradebook.db")) as book:
        return dict(book.execute(POINTS))


# What recording costs by itself: the same verdict for one student after another, in a process of its own.
RECORD = """
import json, os, sys, time, warnings
warnings.simplefilter("ignore")
from grading.record import Recorder
recorder, count = Recorder("softmax"), int(sys.argv[1])
known, = recorder.students()[:1]
texts = {name: text for name, text, _ in recorder.taken_in(known)}
times = []
for number in range(count):
    student = f"next{number:04}"
    os.makedirs(recorder.folder(student))
    began = time.perf_counter()
    recorder.record(student, texts)
    times.append(time.perf_counter() - began)
print(json.dumps(times))
"""


def recording(folder, released, count):
    """Seconds that each of `count` further submissions takes to be recorded."""
    prepare(folder, released, made_up.submissions(STEM, 1))
    done = subprocess.run(
        [sys.executable, "-c", RECORD, str(count)],
        cwd=folder,
        env=course.environment(folder),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise course.Unready(f"Nothing can be recorded: {done.stderr.strip()[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder, count, sample):
    """All of it, in an empty folder, as a dictionary."""
    submissions = made_up.submissions(STEM, count)
    chosen = submissions[:: max(1, count // sample)][:sample]
    half = max(1, len(chosen) // 2)
    released = folder / "released"
    asked = release(released)
    first = stock(folder / "stock1", released, chosen[:half])
    seconds, between, scores = ours(folder / "ours", released, submissions)
    second = stock(folder / "stock2", released, chosen[half:]) if chosen[half:] else (0.0, [], {})
    by_stock = first[2] | second[2]
    deserved = {s.student: made_up.deserved(s, asked) for s in submissions}
    return {
        "count": count,
        "sample": len(chosen),
        "stock_seconds": first[0] + second[0],
        "ours_seconds": seconds,
        "stock_between": first[1] + second[1],
        "ours_between": between,
        "recording": recording(folder / "recording", released, count),
        "wrong": sorted(student for student, points in deserved.items() if scores.get(student) != points),
        "differ": sorted(student for student, points in by_stock.items() if scores.get(student) != points),
    }


def windows(values, number=10):
    """The mean of each of `number` equal parts."""
    size = max(1, len(values) // number)
    return [statistics.fmean(values[start : start + size]) for start in range(0, size * number, size) if values[start:]]


def flatness(values):
    """What the last half costs, as a multiple of what the first half costs; medians of windows, against outliers."""
    means = windows(values)
    return statistics.median(means[len(means) // 2 :]) / statistics.median(means[: len(means) // 2])


def table(found):
    stock_rate = 60 * found["sample"] / found["stock_seconds"]
    our_rate = 60 * found["count"] / found["ours_seconds"]
    yield f"{'':28}{'submissions':>12}{'seconds':>10}{'a minute':>10}"
    yield f"{'nbgrader autograde':28}{found['sample']:12}{found['stock_seconds']:10.1f}{stock_rate:10.1f}"
    yield f"{'python -m grading':28}{found['count']:12}{found['ours_seconds']:10.1f}{our_rate:10.1f}"
    yield f"{our_rate / stock_rate:.1f} times as fast, start-up included, with {os.cpu_count()} cores"
    yield "\nMilliseconds that the next submission takes, from the first tenth of the class to the last"
    for name, values in (("in all", found["ours_between"]), ("to record it", found["recording"])):
        yield f"{name:14}" + "".join(f"{1000 * mean:7.0f}" for mean in windows(values)) + f"   x {flatness(values):.2f}"


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m grading.speed", description=__doc__.splitlines()[0])
    parser.add_argument("count", nargs="?", type=int, default=300, metavar="N", help="size of the class (300)")
    parser.add_argument("--stock", type=int, default=30, metavar="M", help="how many of it stock grades (30)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="normlab-speed-") as folder:
        try:
            found = measure(Path(folder).resolve(), options.count, options.stock)
        except course.Unready as error:
            print(error, file=sys.stderr)
            return 1
    print("\n".join(table(found)))
    faster = (found["sample"] / found["stock_seconds"]) and (
        found["count"] / found["ours_seconds"] / (found["sample"] / found["stock_seconds"])
    )
    wrong = []
    if found["wrong"] or found["differ"]:
        wrong.append(f"Scores differ: {', '.join(found['wrong'] + found['differ'])}")
    if faster < TIMES:
        wrong.append(f"It is not {TIMES} times as fast.")
    for name in ("ours_between", "recording"):
        if flatness(found[name]) > FLAT:
            wrong.append(f"The next submission costs more and more: {name}")
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
