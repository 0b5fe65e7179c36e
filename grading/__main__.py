"""Grade all submissions of an assignment, in parallel.

    python -m grading ASSIGNMENT [--workers N] [--dask ADDRESS] [--db URL] [--student ID] [--force]

Run it in the course's folder, where `nbgrader autograde ASSIGNMENT` would run: the gradebook, autograded/ and scores
are the same. Workers compute verdicts, in sandboxes, here or on a Dask cluster; this process alone records them, one
submission at a time. Whatever ends it, the next run goes on with what is not finished, and leaves alone what is.

Exit status: 0 all graded, 1 some could not be graded, 2 none.
"""

import argparse
import contextlib
import os
import sys
import time
import warnings
from collections import deque
from dataclasses import dataclass, field

PATIENCE = 600.0  # seconds to wait for a cluster or a database that went away
AHEAD = 3  # notebooks in a worker's queue, for each worker


@dataclass
class Tally:
    """What has become of the submissions."""

    graded: dict = field(default_factory=dict)  # student -> (score, of how many)
    failed: dict = field(default_factory=dict)  # student -> why
    told: dict = field(default_factory=dict)  # student -> what is odd about the file
    before: int = 0  # finished by an earlier run


def parser():
    p = argparse.ArgumentParser(prog="python -m grading", description=__doc__.splitlines()[0])
    p.add_argument("assignment", help="name of the assignment, such as softmax")
    p.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: cores)")
    p.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler, as tcp://host:8786, instead of processes here")
    p.add_argument("--db", metavar="URL", help="the gradebook, as postgresql+psycopg://user@host/name")
    p.add_argument("--student", action="append", metavar="ID", help="this student alone (may be repeated)")
    p.add_argument("--force", action="store_true", help="grade again what is graded")
    return p


# ---- workers ---------------------------------------------------------------------------------------------------------


class Cluster:
    """Dask workers, here or elsewhere. It survives the loss of workers, and of the scheduler if that comes back."""

    def __init__(self, workers, address=None):
        self.workers, self.address, self.local, self.client = workers, address, None, None
        self.connect()

    def connect(self):
        import distributed

        deadline, address = time.monotonic() + PATIENCE, self.address
        if address is None and self.local is None:
            # Started afresh, not forked: a fork would inherit locks and threads.
            self.local = distributed.LocalCluster(
                n_workers=self.workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                memory_limit=0,
                silence_logs=50,
            )
        while True:
            try:
                self.client = distributed.Client(address or self.local, timeout=10, set_as_default=False)
                self.client.wait_for_workers(1, timeout=60)
                return
            except (OSError, TimeoutError) as error:
                with contextlib.suppress(Exception):
                    self.client.close(timeout=2)
                if time.monotonic() > deadline or not address:
                    raise Lost(f"No Dask cluster answers at {address}: {error}") from None
                time.sleep(1)

    def check(self):
        """Errors: sandbox.Unsafe, if a worker cannot make a sandbox; work.Mismatch, if one has other code."""
        from grading import work

        for worker, version in self.client.run(work.ready).items():
            if version != work.fingerprint():
                raise work.Mismatch(f"The worker {worker} runs another version of normlab or grading: update it.")

    def size(self):
        return max(1, len(self.client.scheduler_info()["workers"]))

    def close(self):
        with contextlib.suppress(Exception):
            self.client.close(timeout=5)
        if self.local is not None:
            with contextlib.suppress(Exception):
                self.local.close(timeout=10)


class Lost(Exception):
    """The workers are gone, and do not come back."""


# ---- grading ---------------------------------------------------------------------------------------------------------


def grade(recorder, cluster, students, show, secret):
    """Grade and record these students' submissions; a Tally."""
    import distributed
    from distributed.comm import CommClosedError

    from grading import work

    tally, waiting, running = Tally(), deque(students), {}
    gone = (CommClosedError, distributed.client.FuturesCancelledError, OSError, TimeoutError)

    def begin(student):
        try:
            taken = recorder.taken_in(student)
        except Exception as error:
            fail(student, error)
            return
        if notices := [notice for _, _, found in taken for notice in found]:
            tally.told[student] = " ".join(notices)
        futures = [
            cluster.client.submit(work.judged, text, secret, work.fingerprint(), pure=False, retries=2)
            for _, text, _ in taken
        ]
        running[student] = dict(zip((name for name, _, _ in taken), futures, strict=True))

    def fail(student, error):
        tally.failed[student] = sentence(error)
        show.line(f"{student}: {tally.failed[student]}")
        show.step(tally)

    def again():
        """The scheduler is gone: what was running there is begun anew."""
        waiting.extendleft(reversed(list(running)))
        running.clear()
        cluster.connect()

    while waiting or running:
        try:
            while waiting and len(running) < AHEAD * cluster.size():
                begin(waiting.popleft())
            if not running:
                continue
            student = next_done(running)
            futures = running.pop(student)
            statuses = {future.status for future in futures.values()}
            if statuses & {"cancelled", "lost"}:
                running[student] = futures
                again()
                continue
            try:
                texts = {name: future.result(timeout=60) for name, future in futures.items()}
            except gone:
                running[student] = futures
                again()
                continue
        except gone:
            again()
            continue
        except Exception as error:
            fail(student, error)
            if type(error).__name__ in ("Unsafe", "Mismatch"):
                raise
            continue
        try:
            tally.graded[student] = patiently(recorder.record, student, texts)
        except OSError:
            raise
        except Exception as error:
            if is_database(error):
                raise
            fail(student, error)
            continue
        if student in tally.told:
            show.line(f"{student}: {plain(tally.told[student])}")
        show.step(tally)
    return tally


def next_done(running):
    """A student all of whose notebooks are done; waits for one."""
    while True:
        for student, futures in running.items():
            if all(future.status != "pending" for future in futures.values()):
                return student
        time.sleep(0.005)


def is_database(error):
    return type(error).__module__.startswith(("sqlalchemy", "psycopg", "sqlite3"))


def patiently(function, *args):
    """The function's answer. A database that is locked or away is asked again, up to PATIENCE."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    deadline, pause = time.monotonic() + PATIENCE, 0.2
    while True:
        try:
            return function(*args)
        except (OperationalError, InterfaceError) as error:
            if time.monotonic() > deadline or not passes(error):
                raise
            time.sleep(pause)
            pause = min(2 * pause, 5.0)


def passes(error):
    """Whether a database's error may be gone the next time."""
    text = str(error).lower()
    lasting = (
        "malformed",
        "not a database",
        "readonly",
        "read-only",
        "no such table",
        "disk is full",
        "unable to open",
    )
    return not any(word in text for word in lasting)


def plain(text):
    return text.replace("**", "")


def sentence(error):
    text = (str(error).strip().splitlines() or [""])[0][:300]
    return (
        text if type(error).__name__ in ("Unready", "Unsafe", "Mismatch", "Lost") else f"{type(error).__name__}: {text}"
    )


# ---- what is shown ---------------------------------------------------------------------------------------------------


class Show:
    """A progress bar with the time left, on a terminal; elsewhere a line now and then."""

    def __init__(self, total, before):
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.total, self.done, self.began, self.last = total, 0, time.monotonic(), 0.0
        self.bar = Progress(
            TextColumn("Grading"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            disable=not sys.stdout.isatty(),
        )
        self.task = self.bar.add_task("", total=total)

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def line(self, text):
        self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, tally):
        self.done = len(tally.graded) + len(tally.failed)
        self.bar.update(self.task, completed=self.done)
        now = time.monotonic()
        if self.bar.disable and (now - self.last > 10 or self.done == self.total):
            self.last = now
            left = (now - self.began) / max(1, self.done) * (self.total - self.done)
            print(f"{self.done} of {self.total} graded, about {left:.0f} s left", flush=True)


def summary(tally, seconds):
    scores = [score for score, _ in tally.graded.values()]
    yield f"Graded: {len(tally.graded)}" + (
        f" in {seconds:.0f} s, {len(scores) / seconds * 60:.0f} a minute" if scores else ""
    )
    if scores:
        most = next(iter(tally.graded.values()))[1]
        ordered = sorted(scores)
        yield f"Scores: {ordered[0]:g} to {ordered[-1]:g}, in the middle {ordered[len(ordered) // 2]:g}, of {most:g}"
    if tally.before:
        yield f"Graded before, and left as they are: {tally.before} (--force grades them again)"
    if tally.told:
        yield f"Files that had to be repaired, or could not be read: {len(tally.told)}"
    if tally.failed:
        yield f"Not graded: {len(tally.failed)} ({', '.join(list(tally.failed)[:10])})"


def main(arguments=None):
    options = parser().parse_args(arguments)
    if options.workers < 1:
        parser().error("--workers takes a number from 1 on")
    warnings.filterwarnings("ignore", module="nbgrader")
    from grading.record import Recorder, Unready
    from grading.sandbox import Unsafe
    from grading.work import Mismatch
    from normlab import cases

    cluster = None
    try:
        secret = cases.secret()
        recorder = patiently(Recorder, options.assignment, options.db)
        students = options.student or recorder.students()
        if not students:
            raise Unready(f"Nobody has handed in {options.assignment}: there is no submitted/*/{options.assignment}.")
        todo = [student for student in students if options.force or not recorder.finished(student)]
        tally, began = Tally(), time.monotonic()
        if todo:
            cluster = Cluster(min(options.workers, len(todo)), options.dask)
            cluster.check()
            with Show(len(todo), len(students) - len(todo)) as show:
                tally = grade(recorder, cluster, todo, show, secret)
        tally.before = len(students) - len(todo)
        print("\n".join(summary(tally, time.monotonic() - began)))
        return 1 if tally.failed else 0
    except (Unready, Unsafe, Mismatch, Lost, ValueError) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(
            f"{error.strerror or error}: {error.filename or ''} What is graded is recorded; run this again to go on.",
            file=sys.stderr,
        )
    except Exception as error:
        if not is_database(error):
            raise
        text = str(getattr(error, "orig", error)).splitlines()[0]
        print(
            f"The gradebook cannot be used: {text}. What is graded is recorded; run this again to go on.",
            file=sys.stderr,
        )
    finally:
        if cluster is not None:
            cluster.close()
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
