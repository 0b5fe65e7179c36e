"""Which submissions are finished: a mark for each, written after everything else and only then."""

import fcntl
import json
import os
from pathlib import Path

MARKS = ".graded"  # folder of the marks, in the course's folder


def mark(assignment, student):
    return Path(MARKS, assignment, f"{student}.json")


def write(path, content):
    """Write a mark, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def lock(assignment):
    """An open file that no other process can lock until it is closed; None where another has it."""
    path = mark(assignment, "").parent / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
