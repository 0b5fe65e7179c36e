"""Whatever ends or stops the grader: nothing that is finished changes, the next run does the rest, and a sentence says
what was in the way."""

import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings

import grading_course as tiny
import pytest

from grading import __main__ as runner
from grading import marks

# `make prove` sets 20.
KILLS = int(os.environ.get("NORMLAB_KILLS", "2"))
CLASS = 3 * KILLS + 3
ROOT_USER = os.getuid() == 0


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A course folder with `tiny` released and two notebooks handed in, to copy."""
    folder = tmp_path_factory.mktemp("released")
    tiny.make(folder)
    tiny.hand_in(folder, "ada", tiny.notebook(folder, tiny.RIGHT))
    tiny.hand_in(folder, "emil", tiny.notebook(folder, tiny.OVERFLOWS))
    return folder


@pytest.fixture
def folder(released, tmp_path):
    copy = tmp_path / "course"
    shutil.copytree(released, copy)
    return copy


# -- Killed ----------------------------------------------------------------------------------------------------------


def _finished(folder):
    return {path.stem for path in (folder / ".graded" / tiny.STEM).glob("*.json")}


def _kept(folder, students):
    """All that is recorded and written of these students."""
    rows = [row for row in tiny.rows(folder) if row[0] in students]
    files = {path: when for path, when in tiny.files(folder).items() if students & {path.stem, *path.parts}}
    return rows, files


def _gone(folder, seconds=10):
    """Whether all processes of the course end within that time."""
    deadline = time.monotonic() + seconds
    while tiny.left_running(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
def test_killed_at_any_moment(released, tmp_path):
    """SIGKILL at random moments, from a run's first second to its last submission; each time it is started again."""
    folder, draw = tmp_path / "course", random.Random(KILLS)
    shutil.copytree(released, folder)
    shutil.rmtree(folder / "submitted")
    students = tiny.hand_in_all(folder, CLASS)
    snapshots = []
    for number in range(KILLS):
        before = len(_finished(folder))
        grader = tiny.start(folder, "--workers", "1")
        # Every fourth time while it starts; else when some more are finished; then anywhere within the next one.
        wanted = before + draw.randrange(1, 4) if number % 4 else before
        deadline = time.monotonic() + 120
        while len(_finished(folder)) < wanted and grader.poll() is None:
            assert time.monotonic() < deadline, (folder / "out.txt").read_text()
            time.sleep(0.005)
        time.sleep(draw.random() * (0.3 if number % 4 else 4))
        assert grader.poll() is None, (folder / "out.txt").read_text()
        grader.kill()
        grader.wait()
        assert _gone(folder), "\n".join(tiny.left_running(folder))
        finished = _finished(folder)
        snapshots.append((finished, _kept(folder, finished)))
    assert 0 < len(snapshots[-1][0]) < CLASS
    done = tiny.grade(folder, "--workers", "1")
    assert done.returncode == 0, done.stderr
    for finished, kept in snapshots:
        assert _kept(folder, finished) == kept
    deserved = list(tiny.DESERVE.values())
    assert tiny.scores(tiny.rows(folder)) == {s: deserved[k % 3] for k, s in enumerate(students)}
    assert _finished(folder) == set(students)


class Crash(BaseException):
    pass


def _raise(*_, **__):
    raise Crash


@pytest.fixture
def recorder(folder, monkeypatch):
    """A function: a fresh Recorder in the course's folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NORMLAB_GRADEBOOK_SECONDS", "0.1")
    monkeypatch.setenv("PATH", tiny.environment(folder)["PATH"])
    opened = []

    def fresh():
        from grading.record import Recorder

        opened.append(Recorder(tiny.STEM))
        return opened[-1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield fresh
        for one in opened:
            one.book.close()


@pytest.mark.parametrize("stage", ["written", "scored", "committed", "marked"])
def test_ended_between_two_steps(folder, recorder, monkeypatch, stage):
    """Between any two steps of recording: it is not taken for finished, and is recorded once when it is done again."""
    first = recorder()
    texts = {name: text for name, text, _ in first.taken_in("ada")}
    first.record("ada", texts)  # it is being graded once more
    with monkeypatch.context() as patch:
        if stage == "written":
            patch.setattr(first, "_score", _raise)
        elif stage == "scored":
            patch.setattr(first.book.db, "commit", _raise)
        elif stage == "committed":
            patch.setattr(marks, "write", _raise)
        else:
            patch.setattr(marks.os, "replace", _raise)
        with contextlib.suppress(Crash):
            first.record("ada", texts)
    first.book.db.rollback()
    again = recorder()
    assert not again.finished("ada")
    score = again.record("ada", texts)
    assert recorder().finished("ada")
    assert tiny.scores(tiny.rows(folder)) == {"ada": score[0]}


def test_other_gradebooks_of_the_process(recorder, tmp_path):
    """What a recorder adds to its gradebook, it adds to no other one that is made later, or has been."""
    from nbgrader.api import Gradebook

    for _ in range(2):
        recorder()
    with Gradebook(f"sqlite:///{tmp_path / 'new.db'}", "other") as book:
        assert book.students == []


# -- What is in the way ----------------------------------------------------------------------------------------------


class Never:
    """Stands for the workers where the run ends before they are asked."""

    def __init__(self, *_):
        pass

    def check(self):
        raise AssertionError("workers were asked")

    def close(self):
        pass


@pytest.fixture
def told(folder, monkeypatch, capsys):
    """A function: arguments of python -m grading in the course's folder -> what it said; it must not grade."""
    monkeypatch.chdir(folder)
    for name in ("PATH", "NORMLAB_SECRET_FILE"):
        monkeypatch.setenv(name, tiny.environment(folder)[name])
    monkeypatch.setenv("NORMLAB_GRADEBOOK_SECONDS", "0.1")
    monkeypatch.setattr(runner, "Cluster", Never)

    def run(*arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert runner.main([*arguments, "--patience", "0.5"]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1, said.err
        return said.err

    return run


def test_corrupt_gradebook(folder, told):
    book = folder / "gradebook.db"
    book.write_bytes(b"This is a letter, and no gradebook. " * 500)
    content = book.read_bytes()
    assert told(tiny.STEM).startswith("The gradebook cannot be used: file is not a database. ")
    assert book.read_bytes() == content


def test_damaged_gradebook(folder, told):
    book = folder / "gradebook.db"
    content = bytearray(book.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    book.write_bytes(content)
    assert told(tiny.STEM).startswith("The gradebook cannot be used: ")
    assert book.read_bytes() == content


def test_locked_gradebook(folder, told):
    other = sqlite3.connect(folder / "gradebook.db", isolation_level=None)
    other.execute("begin exclusive")
    said = told(tiny.STEM)
    other.close()
    assert said.startswith("The gradebook cannot be used: database is locked. What is graded is recorded; run this")


def test_gradebook_that_is_no_file(folder, told):
    (folder / "gradebook.db").unlink()
    (folder / "gradebook.db").mkdir()
    assert told(tiny.STEM).startswith("The gradebook cannot be used: unable to open database file. ")


def test_unknown_assignment(told):
    assert told("hardmax") == "The gradebook knows no hardmax: nbgrader generate_assignment hardmax\n"


def test_missing_release(folder, told):
    shutil.rmtree(folder / "exercises" / tiny.STEM)
    assert told(tiny.STEM).endswith("exercises/tiny/tiny.ipynb is missing: nbgrader generate_assignment tiny\n")


def test_nobody_handed_in(folder, told):
    shutil.rmtree(folder / "submitted")
    assert told(tiny.STEM) == "Nobody has handed in tiny: there is no submitted/*/tiny.\n"


def test_secret_that_cannot_be_read(folder, told):
    (folder / "secret").unlink()
    assert told(tiny.STEM) == "NORMLAB_SECRET_FILE cannot be read: No such file or directory\n"
    (folder / "secret").write_text("\n")
    assert told(tiny.STEM) == "NORMLAB_SECRET_FILE names an empty file\n"


def test_another_grader_at_work(folder, told):
    lock = _locked(folder)
    assert told(tiny.STEM) == "Another python -m grading is at work on tiny in this folder.\n"
    lock.close()


def _locked(folder):
    here = os.getcwd()
    os.chdir(folder)
    try:
        return marks.lock(tiny.STEM)
    finally:
        os.chdir(here)


@pytest.mark.slow
def test_no_bubblewrap(folder):
    tools = folder / "bin"
    tools.mkdir()
    for name in ("python", "alembic"):
        (tools / name).symlink_to(os.path.join(os.path.dirname(sys.executable), name))
    done = tiny.grade(folder, "--workers", "1", env={"PATH": str(tools)})
    assert done.returncode == 2
    assert done.stderr == (
        "bubblewrap is not installed, and without it learners' code does not run: apt install bubblewrap\n"
    )
    assert tiny.rows(folder) == []


@pytest.mark.slow
def test_read_only_folder(folder):
    """A folder in which nothing may be written: as root one that is mounted so, else one whose permissions say so."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    command = [sys.executable, "-m", "grading", tiny.STEM, "--workers", "1", "--patience", "1"]
    if ROOT_USER:
        mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mount, str(folder), *command]
    else:
        for path in (folder, folder / "gradebook.db"):
            path.chmod(path.stat().st_mode & ~0o222)
    done = subprocess.run(command, cwd=folder, env=tiny.environment(folder), capture_output=True, text=True)
    folder.chmod(0o755)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "read" in done.stderr.lower(), done.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def _limited(folder):
    """Files may grow to 400 kB, which is more than the gradebook has, and less than one notebook."""
    return tiny.grade(
        folder, "--workers", "1", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    )


@contextlib.contextmanager
def _small_disk(folder):
    """The folder on a file system with room for little more."""
    place = folder.parent / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], check=True)
    try:
        shutil.copytree(folder, place / "course", ignore=shutil.ignore_patterns("jupyter"))
        (place / "course" / "jupyter").mkdir()
        room = shutil.disk_usage(place).free
        (place / "ballast").write_bytes(bytes(max(0, room - 200_000)))
        yield place / "course"
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def _can_mount():
    return ROOT_USER and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", ["disk", pytest.param("limit", marks=pytest.mark.exhaustive)] if _can_mount() else ["limit"]
)
def test_full_disk(folder, way):
    """The first submission is recorded; for the second, a long one, there is no room. Later there is."""
    long = tiny.notebook(folder, tiny.RIGHT + "\n" + "\n".join(f"# {k} {'x' * 200}" for k in range(400)))
    cells = ",".join(f'{{"cell_type": "code", "source": "# {"y" * 90_000}", "metadata": {{}}}}' for _ in range(5))
    tiny.hand_in(folder, "zoe", long.replace('"cells": [', f'"cells": [{cells},', 1))
    with contextlib.ExitStack() as stack:
        course = stack.enter_context(_small_disk(folder)) if way == "disk" else folder
        done = _limited(course) if way == "limit" else tiny.grade(course, "--workers", "1")
        assert done.returncode == 2, done.stdout + done.stderr
        words = "File too large" if way == "limit" else "No space left on device"
        assert done.stderr.startswith(words)
        assert done.stderr.endswith("What is graded is recorded; run this again to go on.\n")
        finished = _finished(course)
        assert finished == {"ada", "emil"}
        kept = _kept(course, finished)
        if way == "disk":
            (course.parent / "ballast").unlink()
        done = tiny.grade(course, "--workers", "1")
        assert done.returncode == 0, done.stderr
        assert _kept(course, finished) == kept
        assert tiny.scores(tiny.rows(course)) == {"ada": 20, "emil": 15, "zoe": 20}


# -- Errors are one submission's, or everybody's ---------------------------------------------------------------------


class FakeFuture:
    def __init__(self, answer):
        self.answer, self.status = answer, "finished"

    def result(self, timeout):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class FakeCluster:
    """Workers whose answers are known: {text: answer or exception}."""

    def __init__(self, answers):
        self.answers, self.client, self.asked = answers, self, []

    def size(self):
        return 1

    def submit(self, function, text, *_, **__):
        self.asked.append(text)
        return FakeFuture(self.answers[text])


class FakeRecorder:
    def __init__(self, errors=()):
        self.errors, self.recorded = dict(errors), []

    def taken_in(self, student):
        return [("tiny", student, [])]

    def record(self, student, texts):
        if student in self.errors:
            raise self.errors[student]
        self.recorded.append(student)
        return 1.0, 1.0


class Silent:
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)

    def step(self, tally):
        pass


def _graded(answers, errors=()):
    recorder, show, cluster = FakeRecorder(errors), Silent(), FakeCluster(answers)
    tally = runner.grade(recorder, cluster, list(answers), show, b"", patience=1)
    return tally, recorder, show, cluster


def test_one_verdict_that_fails_is_one_line():
    tally, recorder, show, _ = _graded({"ada": "{}", "bob": RuntimeError("a bug"), "cy": "{}"})
    assert recorder.recorded == ["ada", "cy"]
    assert show.lines == ["bob: RuntimeError: a bug"]
    assert set(tally.failed) == {"bob"}


def test_who_ends_workers_is_found_out_and_others_are_graded():
    """Those that were with a worker when it died are tried again one at a time."""
    from distributed import KilledWorker

    tally, recorder, show, cluster = _graded({"ada": "{}", "bob": KilledWorker("bob", None, 3), "cy": "{}"})
    assert recorder.recorded == ["ada", "cy"]
    assert cluster.asked == ["ada", "bob", "cy", "bob"]
    assert show.lines == ["bob: each worker that grades it ends: it is left for the next run"]
    assert set(tally.failed) == {"bob"}


def test_one_that_cannot_be_written_is_one_line_and_a_full_disk_ends_all():
    tally, recorder, _, _ = _graded(
        {"ada": "{}", "bob": "{}"}, {"ada": PermissionError(13, "Permission denied", "ada")}
    )
    assert recorder.recorded == ["bob"]
    assert set(tally.failed) == {"ada"}
    with pytest.raises(OSError):
        _graded({"ada": "{}", "bob": "{}"}, {"ada": OSError(28, "No space left on device", "ada")})


def test_a_worker_of_another_version_ends_all():
    from grading.work import Mismatch

    with pytest.raises(Mismatch):
        _graded({"ada": Mismatch("another version"), "bob": "{}"})


class Late:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_that_is_swallowed_still_ends_it(capsys, monkeypatch):
    """In what runs when an object goes, Python prints a KeyboardInterrupt, and goes on."""
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    with runner.Interrupt() as interrupt:
        interrupt.check()
        Late()
        assert capsys.readouterr().err == ""
        with pytest.raises(KeyboardInterrupt):
            runner.grade(FakeRecorder(), FakeCluster({"ada": "{}"}), ["ada"], Silent(), b"", 1, interrupt.check)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_reach_nobody_but_the_grader():
    """What the workers' thread starts has Ctrl-C blocked: the grader alone says what is to end."""
    seen = []

    class Watched(runner.Cluster):
        def connect(self, tell):
            seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            raise runner.Lost("no workers here")

    cluster = Watched(1)
    cluster.starting.join()
    assert signal.SIGINT in seen[0]
    with pytest.raises(runner.Lost):
        cluster.check()
    cluster.close()
