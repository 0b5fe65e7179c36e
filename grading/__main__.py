"""Grade all submissions of an assignment, in parallel.

    python -m grading ASSIGNMENT [--workers N] [--dask ADDRESS] [--db URL] [--student ID] [--force]

Run it in the course's folder, where `nbgrader autograde ASSIGNMENT` would run: the gradebook, autograded/ and scores
are the same. Workers compute verdicts, in sandboxes, here or on a Dask cluster; this process alone records them, one
submission at a time. Whatever ends it, the next run goes on with what is not finished, and leaves alone what is.

Workers of a cluster need this checkout and its environment, in any folder, and the scheduler's address; they see
neither the gradebook nor the submissions' folder. What is sent to them has the course's secret in it: use tls:// where
others listen. A gradebook of --db gets its tables and the assignment from
`nbgrader generate_assignment ASSIGNMENT --db URL`.

Exit status: 0 all graded, 1 some could not be graded, 2 nothing could be, or the rest could not be: then one sentence
says why. 130 after Ctrl-C.
"""

import argparse
import contextlib
import errno
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 600.0  # seconds to wait for a cluster or a database that went away
AHEAD = 3  # submissions in the workers' queues, for each worker
GO_ON = "What is graded is recorded; run this again to go on."

# What says that nobody's submission can be written, not that something is wrong with this one.
NOWHERE = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EFBIG", "EMFILE", "ENFILE", "ENOMEM")}


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
    p.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help=f"how long to wait for a cluster or a gradebook that is away (default: {PATIENCE:.0f})",
    )
    return p


# ---- workers ---------------------------------------------------------------------------------------------------------


class Lost(Exception):
    """The workers are gone, and do not come back."""


class Cluster:
    """Dask workers, here or elsewhere. It survives the loss of workers, and of the scheduler if that comes back.

    They start in the background; `check` waits for them.
    """

    def __init__(self, workers, address=None, patience=PATIENCE):
        # Before there are two threads: the first import of distutils changes the list of finders that every import goes
        # through, and whoever imports just then may miss one of them.
        with contextlib.suppress(ImportError):
            import distutils  # noqa: F401
        import distributed  # noqa: F401

        self.workers, self.address, self.patience = workers, address, patience
        self.local = self.client = self.error = None
        self.counted, self.count = 0.0, workers
        self.starting = threading.Thread(target=self._start, daemon=True)
        self.starting.start()

    def _start(self):
        # Ctrl-C in a terminal goes to all processes there: those that this thread starts leave it to this one.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.connect(print)
            self.client.run(_warm)
        except BaseException as error:
            self.error = error

    def connect(self, tell):
        """Errors: Lost."""
        import distributed

        deadline, said = time.monotonic() + self.patience, False
        if self.address is None and self.local is None:
            # Started afresh, not forked: a fork would inherit locks and threads.
            self.local = distributed.LocalCluster(
                n_workers=self.workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",  # Dask serves one in any case: for this machine alone, at a free port
                memory_limit=0,
                silence_logs=50,
            )
        while True:
            self._let_go()
            try:
                wait = min(10.0, max(1.0, self.patience))
                self.client = distributed.Client(self.address or self.local, timeout=wait, set_as_default=False)
                self.client.wait_for_workers(1, timeout=20)
                self.count = self.counted = 0
                return
            except (OSError, TimeoutError) as error:
                if time.monotonic() > deadline or not self.address:
                    where = f" at {self.address}" if self.address else ""
                    raise Lost(f"No Dask workers answer{where}: {_first(error)}. {GO_ON}") from None
                if not said:
                    tell(f"No Dask workers answer at {self.address}: waiting, up to {self.patience:.0f} s")
                said = True
                time.sleep(1)

    def _let_go(self):
        if self.client is not None:
            with contextlib.suppress(Exception):
                self.client.close(timeout=2)
            self.client = None

    def check(self):
        """Errors: Lost; sandbox.Unsafe, if a worker cannot make a sandbox; work.Mismatch, if one has other code."""
        from grading import work

        self.starting.join()
        if self.error is not None:
            raise self.error
        for worker, version in self.client.run(work.ready).items():
            if version != work.fingerprint():
                raise work.Mismatch(f"The worker {worker} runs another version of normlab or grading: update it.")

    def size(self):
        """How many workers there are; looked up now and then."""
        if time.monotonic() - self.counted > 2:
            self.count = len(self.client.scheduler_info(n_workers=-1)["workers"])
            self.counted = time.monotonic()
        return self.count

    def close(self):
        self.starting.join(timeout=30)
        self._let_go()
        if self.local is not None:
            # Workers hold nothing that is still wanted. Their sandboxes end with them.
            for nanny in self.local.workers.values():
                nanny.auto_restart = False
                with contextlib.suppress(ProcessLookupError, TypeError):
                    os.kill(nanny.pid, signal.SIGKILL)
            with contextlib.suppress(Exception):
                self.local.close(timeout=10)


def _warm():
    """In a worker: import what grading takes, while whoever asks for it is still reading the gradebook."""
    from grading import judge

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    judge.sandboxes()


# ---- grading ---------------------------------------------------------------------------------------------------------


class Interrupt:
    """Ctrl-C, while this lasts: KeyboardInterrupt at once, and where Python swallows that, as in a callback of its
    garbage collection, from the next `check`, without the traceback that Python prints there."""

    asked = False

    def __enter__(self):
        self.before = signal.signal(signal.SIGINT, self._ask)
        self.told, sys.unraisablehook = sys.unraisablehook, self._swallowed
        return self

    def __exit__(self, *_):
        sys.unraisablehook = self.told
        signal.signal(signal.SIGINT, self.before)

    def _swallowed(self, what):
        if what.exc_type is not KeyboardInterrupt:
            self.told(what)

    def _ask(self, signum, frame):
        self.asked = True
        raise KeyboardInterrupt

    def check(self):
        if self.asked:
            raise KeyboardInterrupt


def grade(recorder, cluster, students, show, secret, patience=PATIENCE, check=lambda: None):
    """Grade and record these students' submissions; a Tally. `check` is called between two of them."""
    from grading import work

    tally, waiting, running = Tally(), deque(students), {}
    alone = deque()  # those during which workers died, again and again: one at a time, to see whose fault it is
    last = time.monotonic()

    def begin(student):
        try:
            taken = recorder.taken_in(student)
        except Exception as error:
            if is_nowhere(error):
                raise
            fail(student, error)
            return
        if notices := [notice for _, _, found in taken for notice in found]:
            tally.told[student] = " ".join(notice.rpartition("** ")[2] for notice in notices)
        running[student] = {
            name: cluster.client.submit(work.judged, text, secret, work.fingerprint(), pure=False, retries=2)
            for name, text, _ in taken
        }

    def fail(student, error):
        tally.failed[student] = sentence(error)
        show.line(f"{student}: {tally.failed[student]}")
        show.step(tally)

    def again():
        """The scheduler is gone: what was running there is begun anew."""
        waiting.extendleft(reversed(list(running)))
        running.clear()
        show.line("The Dask scheduler went away: what it was busy with is begun anew when it is back.")
        cluster.connect(show.line)

    while waiting or running or alone:
        check()
        try:
            if not waiting and not running:
                begin(alone[0])
            while waiting and len(running) < AHEAD * max(1, cluster.size()):
                begin(waiting[0])
                waiting.popleft()
            student = next_done(running)
            if student is None:
                if running and cluster.size():
                    last = time.monotonic()
                elif running and time.monotonic() - last > patience:
                    raise Lost(f"No Dask worker is left. {GO_ON}")
                if alone and not running:  # it could not be begun
                    alone.popleft()
                continue
            if any(future.status in ("cancelled", "lost") for future in running[student].values()):
                again()
                continue
            texts = {name: future.result(timeout=60) for name, future in running[student].items()}
        except gone():
            again()
            continue
        except Exception as error:
            if type(error).__name__ in ("Unsafe", "Mismatch", "Lost") or not running or is_nowhere(error):
                raise
            del running[student]
            if type(error).__name__ != "KilledWorker":
                fail(student, error)
            elif alone and student == alone[0]:
                alone.popleft()
                fail(student, Lost("each worker that grades it ends: it is left for the next run"))
            else:
                alone.append(student)
            continue
        last = time.monotonic()
        del running[student]
        if alone and student == alone[0]:
            alone.popleft()
        try:
            tally.graded[student] = patiently(patience, show.line, recorder.record, student, texts)
        except Exception as error:
            if is_nowhere(error):
                raise
            fail(student, error)
            continue
        if student in tally.told:
            show.line(f"{student}: {tally.told[student]}")
        show.step(tally)
    return tally


def gone():
    """Exceptions that say that the scheduler went away."""
    from distributed.client import FuturesCancelledError
    from distributed.comm import CommClosedError

    return CommClosedError, FuturesCancelledError, ConnectionError, TimeoutError


def next_done(running):
    """A student all of whose notebooks are done; waits for one, a second at most, then None."""
    deadline = time.monotonic() + 1
    while running and time.monotonic() < deadline:
        for student, futures in running.items():
            if all(future.status != "pending" for future in futures.values()):
                return student
        time.sleep(0.005)
    return None


# ---- what may go wrong with the gradebook and the disk ---------------------------------------------------------------


def is_database(error):
    return type(error).__module__.startswith(("sqlalchemy", "psycopg", "sqlite3"))


def is_nowhere(error):
    """Whether nobody's score could be recorded, so that there is no use in going on."""
    if isinstance(error, OSError):
        return error.errno in NOWHERE
    # Data that the gradebook does not take are one submission's; anything else is the gradebook's.
    return is_database(error) and type(error).__name__ not in ("DataError", "IntegrityError", "StatementError")


def patiently(patience, tell, function, *args):
    """The function's answer. A database that is locked or away is asked again, up to `patience` seconds."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    deadline, pause, said = time.monotonic() + patience, 0.2, False
    while True:
        try:
            return function(*args)
        except (OperationalError, InterfaceError) as error:
            if time.monotonic() > deadline or not passes(error):
                raise
            if not said:
                said = True
                tell(f"The gradebook does not answer ({_first(error.orig)}): waiting, up to {patience:.0f} s")
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
        "is full",
        "no space",
        "disk i/o",
        "unable to open",
        "does not exist",
        "authentication failed",
        "no password",
    )
    return not any(word in text for word in lasting)


def _first(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")


def sentence(error):
    known = ("Unready", "Unsafe", "Mismatch", "Lost", "Ended")
    return _first(error) if type(error).__name__ in known else f"{type(error).__name__}: {_first(error)}"


def why(error):
    """The sentence about what ended the run; None for what nobody expects."""
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{where}. {GO_ON}"
    if is_database(error):
        return f"The gradebook cannot be used: {_first(getattr(error, 'orig', None) or error)}. {GO_ON}"
    if type(error).__name__ in ("Unready", "Unsafe", "Mismatch", "Lost", "ValueError"):
        return str(error)
    return None


# ---- what is shown ---------------------------------------------------------------------------------------------------


class Show:
    """A progress bar with the time left, on a terminal; elsewhere a line now and then."""

    def __init__(self, total):
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
        """A line of its own. It may quote what somebody handed in: nothing in it commands a terminal."""
        text = "".join(c if c.isprintable() else "?" for c in text)
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


def todo_at_first(options):
    """A first look, which takes no gradebook: how many submissions may be waiting."""
    from grading.marks import mark

    found = list(Path("submitted").glob(f"*/{options.assignment}"))
    students = options.student or [path.parent.name for path in found]
    return sum(1 for student in students if options.force or not mark(options.assignment, student).exists())


def main(arguments=None):
    options = parser().parse_args(arguments)
    if options.workers < 1:
        parser().error("--workers takes a number from 1 on")
    warnings.filterwarnings("ignore", module="nbgrader")
    cluster, tally, began = None, Tally(), time.monotonic()
    try:
        from normlab import cases

        secret = cases.secret()
        if expected := todo_at_first(options):
            cluster = Cluster(min(options.workers, expected), options.dask, options.patience)
        from grading.record import Recorder, Unready

        recorder = patiently(options.patience, print, Recorder, options.assignment, options.db)
        with recorder:
            students = options.student or recorder.students()
            if not students:
                raise Unready(
                    f"Nobody has handed in {options.assignment}: there is no submitted/*/{options.assignment}."
                )
            todo = [student for student in students if options.force or not recorder.finished(student)]
            if todo:
                cluster = cluster or Cluster(min(options.workers, len(todo)), options.dask, options.patience)
                print(f"{len(todo)} to grade", flush=True)
                cluster.check()
                with Show(len(todo)) as show, Interrupt() as interrupt:
                    tally = grade(recorder, cluster, todo, show, secret, options.patience, interrupt.check)
            tally.before = len(students) - len(todo)
        print("\n".join(summary(tally, time.monotonic() - began)))
        return 1 if tally.failed else 0
    except Exception as error:
        if (told := why(error)) is None:
            raise
        print(told, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nStopped. {GO_ON}", file=sys.stderr)
        return 130
    finally:
        if cluster is not None:
            cluster.close()


if __name__ == "__main__":
    sys.exit(main())
