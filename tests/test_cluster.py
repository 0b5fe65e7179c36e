"""`python -m grading` on a Dask cluster, with a gradebook in PostgreSQL: real ones, started here, and killed here."""

import contextlib
import glob
import json
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grading_course as tiny
import pytest

CLASS = 12
NAME = "grades"


# -- A database server -------------------------------------------------------------------------------------------------


class Postgres:
    """A PostgreSQL server of this test's own, that listens to a socket in a folder."""

    def __init__(self, programs):
        self.programs, self.process = programs, None
        self.folder = Path(tempfile.mkdtemp(prefix="normlab-pg-"))
        self.who = {}
        if os.getuid() == 0:  # as root it refuses to run
            user = next(u for u in pwd.getpwall() if u.pw_name in ("postgres", "nobody"))
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.run("initdb", "-U", "grader", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8", "-D", self.data)
        self.start()
        self.run("createdb", "-h", self.folder, "-U", "grader", NAME)

    @property
    def data(self):
        return self.folder / "data"

    @property
    def url(self):
        return f"postgresql+psycopg://grader@/{NAME}?host={self.folder}"

    def run(self, program, *arguments):
        command = [self.programs / program, *arguments]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, **self.who)
        assert done.returncode == 0, done.stderr

    def start(self):
        self.process = subprocess.Popen(
            [self.programs / "postgres", "-D", self.data, "-k", self.folder, "-c", "listen_addresses=", "-F"],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self.who,
        )
        ready = [self.programs / "pg_isready", "-q", "-h", self.folder]
        _wait(lambda: subprocess.run(ready).returncode == 0)

    def stop(self, how=signal.SIGQUIT):  # at once, as after a power cut
        self.process.send_signal(how)
        self.process.wait(60)

    def rows(self):
        import psycopg

        with psycopg.connect(f"host={self.folder} user=grader dbname={NAME}") as connection:
            return connection.execute(tiny.ROWS).fetchall()


def _wait(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def postgres(system_tool):
    """A running PostgreSQL."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    server = Postgres(Path(found[-1] if found else system_tool("initdb")).parent)
    yield server
    if server.process.poll() is None:
        server.stop()
    shutil.rmtree(server.folder)


# -- A cluster -------------------------------------------------------------------------------------------------------


class Cluster:
    """A scheduler and workers, each a process in a folder of its own; none has the course's secret."""

    def __init__(self, folder):
        self.folder, self.processes, self.count = folder, [], 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @property
    def address(self):
        return f"tcp://127.0.0.1:{self.port}"

    def start(self, what, *arguments):
        self.count += 1
        own = self.folder / f"{what}{self.count}"
        own.mkdir()
        environment = tiny.environment(self.folder)
        del environment["NORMLAB_SECRET_FILE"]
        with open(own / "log.txt", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments, "--no-dashboard"],
                cwd=own,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def scheduler(self):
        return self.start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    def worker(self):
        return self.start("worker", self.address, "--nthreads", "1", "--no-nanny")

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    """A cluster that is not started yet."""
    (tmp_path / "cluster").mkdir()
    tiny.without_torch(tmp_path / "cluster")
    found = Cluster(tmp_path / "cluster")
    yield found
    found.end()


@pytest.mark.slow
def test_everything_dies_and_nothing_is_lost(tmp_path, postgres, cluster):
    """A worker is killed, the scheduler is killed and started again, the database goes away and comes back, all while
    a class is graded. No submission is lost or recorded twice, and every score is that of a serial run."""
    folder, serial = tmp_path / "course", tmp_path / "serial"
    serial.mkdir()
    tiny.make(serial)
    students = tiny.hand_in_all(serial, CLASS)
    shutil.copytree(serial, folder)
    (folder / "gradebook.db").unlink()
    made = tiny.nbgrader(folder, "generate_assignment", tiny.STEM, "--force", "--db", postgres.url)
    assert made.returncode == 0, made.stderr

    scheduler = cluster.scheduler()
    first, second = cluster.worker(), cluster.worker()
    grader = tiny.start(folder, "--dask", cluster.address, "--db", postgres.url, "--patience", "120")

    def said():
        return (folder / "out.txt").read_text()

    def graded():
        assert grader.poll() is None, said()
        return len(list((folder / ".graded" / tiny.STEM).glob("*.json")))

    def more(count):
        wanted = graded() + count
        _wait(lambda: graded() >= wanted)

    try:
        more(2)
        first.kill()
        more(2)
        scheduler.kill()
        scheduler.wait()
        time.sleep(0.5)
        cluster.scheduler()
        cluster.worker()
        if second.poll() is None:  # it ends by itself when the scheduler is gone
            second.wait(60)
        cluster.worker()
        more(2)
        postgres.stop()
        time.sleep(1)
        assert graded() < CLASS  # so that something was left to do when it went away
        postgres.start()
        assert grader.wait(120) == 0, said()
    finally:
        if grader.poll() is None:
            grader.kill()
            grader.wait()
    assert "The Dask scheduler went away" in said()
    assert "The gradebook does not answer" in said()
    assert f"Graded: {CLASS} in " in said()
    assert not (folder / "gradebook.db").exists()

    assert tiny.grade(serial, "--workers", "1").returncode == 0
    expected = tiny.rows(serial)
    scores = {(student, cell): score for student, cell, _, score, _ in postgres.rows()}
    assert len(postgres.rows()) == len(expected) == len(scores)
    assert scores == {(student, cell): score for student, cell, _, score, _ in expected}
    deserved = list(tiny.DESERVE.values())
    assert tiny.scores(expected) == {student: deserved[k % 3] for k, student in enumerate(students)}
    for student in students:
        path = Path("autograded", student, tiny.STEM, f"{tiny.STEM}.ipynb")
        ours, theirs = (json.loads((place / path).read_text())["cells"] for place in (folder, serial))
        assert ours == theirs


def test_no_cluster_gets_a_sentence(tmp_path, cluster):
    from grading import __main__ as runner

    found = runner.Cluster(1, cluster.address, patience=0.1)
    with pytest.raises(runner.Lost, match=f"No Dask workers answer at {cluster.address}: "):
        found.check()
    found.close()


# -- Many writers of one SQLite gradebook ----------------------------------------------------------------------------


def _have_open(path):
    """Numbers of the other processes that have a file open."""
    found = set()
    for descriptor in glob.glob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(descriptor) == str(path):
                found.add(int(descriptor.split("/")[2]))
    return found - {os.getpid()}


@pytest.mark.slow
def test_nbgraders_commands_wait_for_a_locked_gradebook(tmp_path):
    """SQLite by itself gives up after five seconds; nbgrader_config.py lets every command wait longer."""
    tiny.make(tmp_path)
    held = sqlite3.connect(tmp_path / "gradebook.db", isolation_level=None, check_same_thread=False)
    held.execute("begin exclusive")
    done = []

    def add(name):
        done.append(tiny.nbgrader(tmp_path, "db", "student", "add", name))

    threads = [threading.Thread(target=add, args=(name,)) for name in ("ada", "bruno")]
    for thread in threads:
        thread.start()
    _wait(lambda: len(_have_open(tmp_path / "gradebook.db")) == 2)
    time.sleep(6)  # longer than SQLite would
    assert not done  # both wait
    held.rollback()
    held.close()
    for thread in threads:
        thread.join()
    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    book = sqlite3.connect(tmp_path / "gradebook.db")
    assert [name for (name,) in book.execute("select id from student order by id")] == ["ada", "bruno"]
    book.close()
