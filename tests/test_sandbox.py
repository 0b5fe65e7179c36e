"""The sandbox itself: who runs in it, what it may, what becomes of it, and what is said where there is none."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import time
import types

import pytest

from grading import sandbox
from grading.inside import calls
from normlab.drive import wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes are made of Linux's namespaces")

SECONDS = 60


@pytest.fixture(scope="module")
def warm():
    one = sandbox.Sandbox()
    yield one
    one.close()


def run(one, source, **more):
    """What a cell prints in a fresh process of the sandbox."""
    connection = one.start(**more)
    try:
        return ask(connection, source)
    finally:
        connection.close()


def ask(connection, source):
    deadline = time.monotonic() + SECONDS
    connection.send({"do": "cell", "source": source}, deadline=deadline)
    answer = connection.receive(deadline=deadline)
    assert answer["error"] is None, answer
    return "".join(output.get("text", "") for output in answer["outputs"])


# ---- who -------------------------------------------------------------------------------------------------------------


def test_it_is_never_root(warm):
    ids = json.loads(run(warm, "import os, json; print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups()]))"))
    assert 0 not in ids[0]
    assert 0 not in ids[1]
    assert 0 not in ids[2]
    held = run(
        warm, "print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapPrm', 'CapAmb'))])"
    )
    assert set(held) <= set("[]', 0\n")


def test_outside_it_is_the_unprivileged_user(warm):
    connection = warm.start()
    uid, _ = sandbox.unprivileged()
    try:
        ask(connection, "pass")
        children = sandbox.psutil.Process(warm.process.pid).children(recursive=True)
        assert len(children) == 2  # the zygote, and the notebook's
        for child in children:
            assert set(child.uids()) == {uid}
            assert uid != 0
    finally:
        connection.close()


def test_as_root_it_takes_an_unprivileged_user_or_stops(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.delenv(sandbox.USER, raising=False)
    assert sandbox.unprivileged() == (pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    monkeypatch.setenv(sandbox.USER, "root")
    with pytest.raises(sandbox.Unsafe, match="never runs as root"):
        sandbox.unprivileged()
    monkeypatch.setenv(sandbox.USER, "no such user")
    with pytest.raises(sandbox.Unsafe, match="there is no user"):
        sandbox.Sandbox().start()


def test_as_an_ordinary_user(tmp_path):
    """Who grades as themselves is themselves in the sandbox, with no more rights than nobody's."""
    source = (
        "import json, sys; sys.path[:0] = json.loads(sys.argv[1])\n"
        "import os\nfrom grading import sandbox\n"
        "one = sandbox.Sandbox(); connection = one.start()\n"
        "connection.send({'do': 'cell', 'source': 'import os; print(os.getuid(), os.path.exists(\"/etc/passwd\"))'})\n"
        "print(os.getuid(), connection.receive()['outputs'][0]['text'].strip()); one.close()\n"
    )
    who = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
    command = [sys.executable, "-c", source, json.dumps([str(sandbox.ROOT)])]
    uid = sandbox.unprivileged()[0]
    if who and not readable_to_others(os.path.realpath(sys.executable)):  # in a folder that is root's alone
        with pytest.raises(PermissionError):
            subprocess.run(command, cwd="/", **who)
        return
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env={"PATH": os.environ["PATH"]}, **who)
    assert done.stdout.split() == [str(uid), str(uid), "False"], done.stderr


def readable_to_others(path):
    parts = [path]
    while parts[-1] != "/":
        parts.append(os.path.dirname(parts[-1]))
    return all(os.stat(part).st_mode & 0o001 for part in parts)


# ---- where there is none ---------------------------------------------------------------------------------------------


def test_without_bubblewrap_nothing_runs(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(sandbox.Unsafe, match="apt install bubblewrap"):
        sandbox.Sandbox().start()


def test_where_namespaces_are_forbidden_nothing_runs(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(fake))
    with pytest.raises(sandbox.Unsafe, match="No sandbox can be made here") as told:
        sandbox.Sandbox().start()
    assert "No permissions to create" in str(told.value)
    assert "sysctl" in str(told.value)


def test_the_zygote_runs_nowhere_else():
    told = json.dumps({"socket": 0, "kind": "numpy", "closed": None, "autograd": True, "uid": 1, "gid": 1})
    done = subprocess.run([sys.executable, sandbox.INSIDE / "zygote.py", told], capture_output=True, text=True)
    assert done.returncode == 1
    assert "first process of a sandbox" in done.stderr


# ---- system calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_is_a_program_that_ends(machine):
    code = calls.program(machine)
    lines = [sandbox.wire.struct.unpack("=HBBI", code[i : i + 8]) for i in range(0, len(code), 8)]
    assert 100 < len(lines) < 4096
    for at, (operation, yes, no, _) in enumerate(lines):
        if operation & 7 == 5:  # a jump: neither way leads behind the end
            assert at + 1 + max(yes, no) < len(lines)
    assert lines[-1][0] == 6


def evaluate(machine, number, *arguments, arch=None):
    """What the kernel would say: the action of struct seccomp_data."""
    _, own = calls._MACHINES[machine]
    data = {
        0: number,
        4: own if arch is None else arch,
        **{16 + 8 * i: a & 0xFFFFFFFF for i, a in enumerate(arguments)},
    }
    code, at, register = calls.program(machine), 0, 0
    while True:
        operation, yes, no, value = sandbox.wire.struct.unpack("=HBBI", code[8 * at : 8 * at + 8])
        at += 1
        if operation == calls._LOAD:
            register = data.get(value, 0)
        elif operation == calls._RETURN:
            return value
        else:
            true = {calls._EQUAL: register == value, calls._AT_LEAST: register >= value, calls._SET: register & value}
            at += yes if true[operation] else no


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_the_filter_allows(machine):
    column = calls._MACHINES[machine][0]
    for numbers in calls._REFUSED.values():
        if numbers[column] is not None:
            assert evaluate(machine, numbers[column]) & 0xFFFF0000 == calls._ERROR
    clone, socket_, limit = calls._CLONE[column], calls._SOCKET[column], calls._PRLIMIT[column]
    assert evaluate(machine, clone, 0x11) == calls._ALLOW
    assert evaluate(machine, clone, 0x3D0F00) == calls._ALLOW  # a thread
    assert evaluate(machine, clone, 0x10000011) != calls._ALLOW  # a user namespace
    assert evaluate(machine, limit, 0, 7, 1) == calls._ALLOW
    assert evaluate(machine, limit, 1, 7, 1) != calls._ALLOW
    assert [evaluate(machine, socket_, family) == calls._ALLOW for family in (1, 2, 10, 16, 17, 38, 40)] == [
        1,
        1,
        1,
        0,
        0,
        0,
        0,
    ]
    assert evaluate(machine, 1 if machine == "x86_64" else 64) == calls._ALLOW  # write
    assert evaluate(machine, 1, arch=0x40000003) == calls._KILL  # those of a 32-bit machine
    if machine == "x86_64":
        assert evaluate(machine, 1 | calls._X32) != calls._ALLOW


def test_a_machine_whose_calls_are_not_known_has_no_sandbox():
    with pytest.raises(calls.Unknown, match="riscv64"):
        calls.program("riscv64")


# ---- what becomes of it ----------------------------------------------------------------------------------------------


def test_a_process_is_fresh_each_time(warm):
    run(warm, "import builtins, sys; builtins.left = sys.left = 1; open('/dev/shm/left', 'w').write('x')")
    told = run(
        warm, "import builtins, os, sys; print(hasattr(builtins, 'left'), hasattr(sys, 'left'), os.listdir('/dev/shm'))"
    )
    assert told.split() == ["False", "False", "[]"]


def test_one_that_was_killed_is_made_again(warm):
    run(warm, "pass")
    warm.process.kill()
    warm.process.wait()
    assert run(warm, "print('here')") == "here\n"


def test_a_zygote_that_was_killed_is_noticed_at_once(warm):
    connection = warm.start()
    (zygote,) = [p for p in sandbox.psutil.Process(warm.process.pid).children() if p.ppid() == warm.process.pid]
    began = time.monotonic()
    zygote.kill()
    with pytest.raises(wire.Gone):
        connection.receive(deadline=began + SECONDS)
    assert time.monotonic() - began < 5
    connection.close()
    assert run(warm, "print('here')") == "here\n"


def test_a_process_that_ends_is_noticed_at_once_though_another_holds_the_socket(warm):
    connection = warm.start()
    began = time.monotonic()
    source = "import os, time\nif os.fork() == 0: time.sleep(100)\nos.kill(os.getpid(), 9)"
    connection.send({"do": "cell", "source": source}, deadline=began + SECONDS)
    with pytest.raises(wire.Gone):
        connection.receive(deadline=began + SECONDS)
    assert time.monotonic() - began < 5
    connection.close()


def test_memory_is_counted_of_all_processes_and_kinds(warm):
    connection = warm.start()
    try:
        ask(connection, "pass")
        before = warm.held()
        source = (
            "import mmap, os, time\nmine = bytearray(os.urandom(1 << 20) * 30)\n"
            "shared = mmap.mmap(-1, 30 << 20); shared[:] = bytes(mine)\n"
            "reader, writer = os.pipe()\n"
            "if os.fork() == 0:\n    other = bytes(mine[::-1]); os.write(writer, b'x'); time.sleep(100)\n"
            "os.read(reader, 1)"
        )
        ask(connection, source)
        assert warm.held() - before > 85 << 20
    finally:
        connection.close()
    assert warm.held() < before


TALKS = """
import os, socket, struct
handle = next(int(f) for f in os.listdir("/proc/self/fd")
              if os.path.exists(f"/proc/self/fd/{f}") and os.readlink(f"/proc/self/fd/{f}").startswith("socket"))
talk = socket.socket(fileno=os.dup(handle))
while True: talk.sendall(struct.pack("!QQ", 4, 0) + b"null")
"""


@pytest.mark.parametrize("source", [TALKS, "while True: pass"], ids=["talks without end", "does not listen"])
def test_memory_is_looked_at_whatever_a_process_does(source, warm, monkeypatch):
    connection, deadline = warm.start(), time.monotonic() + SECONDS
    try:
        connection.send({"do": "cell", "source": source}, deadline=deadline)
        monkeypatch.setattr(sandbox, "HELD", 1)
        with pytest.raises(sandbox.TooMuch):
            use(connection, deadline, talks=source is TALKS)
    finally:
        connection.close()


def use(connection, deadline, talks):
    """Takes frames, or sends more than a socket holds, for ever."""
    while True:
        connection.receive(deadline=deadline) if talks else connection.send("x" * (1 << 20), deadline=deadline)


def test_only_what_a_learners_code_needs_of_normlab_is_there(warm):
    told = run(warm, "import os, normlab; print(sorted(os.listdir(os.path.dirname(normlab.__file__))))")
    assert "'guard.py'" in told
    for answers in ("reference", "mistakes", "chapters", "cpu", "functional", "cases", "verdict", "exercises"):
        assert answers not in told


def test_a_package_that_is_not_there_can_be_named_and_not_used(warm):
    source = (
        "import torch\nfrom torch import nn\ntry: torch.ones(2)\nexcept ImportError as e: print(type(e).__name__, e)"
    )
    assert run(warm, source, absent=["torch"]).startswith("AbsentUsed torch is not here")


def test_its_command_line_says_what_it_is(monkeypatch):
    line = sandbox.command("numpy", None, True, 9, 1000, 1000, drop_inside=False)
    for word in (
        "--unshare-net",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-user",
        "--clearenv",
        "--die-with-parent",
    ):
        assert word in line
    assert "--bind" not in line  # nothing of the machine can be written
    told = types.SimpleNamespace(**json.loads(line[-1]))
    assert (told.uid, told.gid, told.kind) == (1000, 1000, "numpy")
