"""What a worker computes: the graded form of one notebook. It reads and writes nothing else, so it can be computed
again, on any machine, as often as needed, with the same result."""

import hashlib
import threading
from functools import cache
from pathlib import Path

import nbformat

from grading import judge
from normlab import cases

ROOT = Path(__file__).resolve().parent.parent

_one_at_a_time = threading.Lock()


class Mismatch(Exception):
    """A worker has another version of the course than who asks it."""


@cache
def fingerprint():
    """Tells versions of the course's code apart."""
    digest = hashlib.sha256()
    for folder in ("normlab", "grading"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def judged(text, secret, version):
    """The graded form of a rebuilt notebook, both as JSON texts. Errors: Mismatch, sandbox.Unsafe."""
    if version != fingerprint():
        raise Mismatch("a worker runs another version of normlab or grading than this one: update it")
    with _one_at_a_time:
        cases.use_secret(secret)
        notebook = judge.grade(nbformat.reads(text, 4), judge.sandboxes())
    return nbformat.writes(notebook, 4)


def ready():
    """Whether a sandbox can be made here. Errors: sandbox.Unsafe."""
    with _one_at_a_time:
        judge.sandboxes().check()
    return fingerprint()
