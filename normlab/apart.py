"""Work on a learner's file in a process of its own, with limits of time and memory: `start` it, then take its `answer`.

A forked process has PyTorch and the right answers already. What comes back is JSON, because unpickling what a learner's
process sends would run it here.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from normlab.learner import Unloadable

FILE_SECONDS = 60.0  # for one process, the import of the file included
FILE_BYTES = 4 << 30  # of address space beyond what the interpreter has already, for one process


@dataclass
class Task:
    """A process at work: `pipe` is readable once it has answered or ended; `deadline` is of time.monotonic()."""

    process: BaseProcess
    pipe: Connection
    deadline: float


def _child(pipe, work, args):
    """Runs in a session of its own, so that everything a file starts ends with it."""
    if hasattr(os, "setsid"):
        os.setsid()
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # Unix only

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + FILE_BYTES, used + FILE_BYTES))
    pipe.send_bytes(json.dumps(work(*args)).encode())


def start(work, *args):
    """A Task that computes work(*args), which JSON can hold."""
    forks = "fork" in multiprocessing.get_all_start_methods() and sys.platform.startswith("linux")
    context = multiprocessing.get_context("fork" if forks else "spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, work, args), daemon=True)
    process.start()
    theirs.close()
    return Task(process, ours, time.monotonic() + FILE_SECONDS)


def answer(task):
    """What the task computed, waited for until its deadline; then its process is ended. Errors: Unloadable."""
    try:
        if not task.pipe.poll(max(0.0, task.deadline - time.monotonic())):
            raise Unloadable(f"does not finish within {FILE_SECONDS:g} seconds")
        return json.loads(task.pipe.recv_bytes())
    except (EOFError, OSError, ValueError):
        raise Unloadable("ends its own process (exit, a crash, or too much memory)") from None
    finally:
        end(task)


def end(task):
    """Ends the task's process and whatever it has started."""
    with contextlib.suppress(OSError, AttributeError):
        os.killpg(task.process.pid, signal.SIGKILL)
    task.process.kill()
    task.process.join()
    task.pipe.close()


def ready(tasks):
    """Those of the tasks that have answered, have ended or are late; waits until there is one."""
    left = min(task.deadline for task in tasks) - time.monotonic()
    pipes = wait([task.pipe for task in tasks], timeout=max(0.0, left))
    return [task for task in tasks if task.pipe in pipes or task.deadline <= time.monotonic()]
