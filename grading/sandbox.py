"""Where learners' code runs: a bubblewrap sandbox without network, files, processes or environment of this machine.

A Sandbox holds one zygote (inside/zygote.py), which has imported what notebooks need and forks a process for each. It
never runs with root's user id: as root it drops to an unprivileged user. Where no sandbox can be made, nothing runs.
"""

import contextlib
import json
import os
import pwd
import select
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import psutil

from normlab.drive import wire

ROOT = Path(__file__).resolve().parent.parent
INSIDE = Path(__file__).resolve().parent / "inside"
COURSE = "/course"

# All of normlab that runs beside a learner's code. None of it knows an answer.
VIEW = ("__init__.py", "drive", "guard.py", "watch.py", "interpret.py", "shadow.py")

MEMORY = 4 << 30  # bytes of address space that one process may have
HELD = 2 << 30  # bytes of memory that all processes of a notebook may hold together
FILES = 64 << 20  # bytes of one file, and of each writable folder
CPU_SECONDS = 600
START_SECONDS = 120.0
END_SECONDS = 20.0
LOOK_SECONDS = 0.1  # between two looks at how much memory is held

USER = "NORMLAB_SANDBOX_USER"


class Unsafe(Exception):
    """Why no learner's code may run here, in plain words."""


# ---- how a sandbox is started ----------------------------------------------------------------------------------------


def unprivileged():
    """(uid, gid) that sandboxes run with. Errors: Unsafe where there is none but root's."""
    if os.getuid() != 0:
        return os.getuid(), os.getgid()
    name = os.environ.get(USER, "nobody")
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise Unsafe(
            f"Learners' code never runs as root, and there is no user {name} to run it as: set {USER} to an "
            "unprivileged one, or grade as one."
        ) from None
    if user.pw_uid == 0 or user.pw_gid == 0:
        raise Unsafe(f"Learners' code never runs as root, and {USER} names root: name an unprivileged user.")
    return user.pw_uid, user.pw_gid


def _system():
    """Mounts of the system's programs and libraries, and of Python's, read-only."""
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            yield from ("--symlink", os.readlink(path), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    yield from ("--ro-bind", "/usr", "/usr")
    for path in ("/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts"):
        yield from ("--ro-bind-try", path, path)
    for prefix in dict.fromkeys((sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix)):
        if not Path(prefix).is_relative_to("/usr"):
            yield from _folders(Path(prefix).parent)
            yield from ("--ro-bind", prefix, prefix)


def _folders(path):
    """Makes a folder and those above it, for everybody to pass: by itself bubblewrap would keep them to their owner."""
    for folder in [*reversed(path.parents), path][1:]:
        yield from ("--perms", "0755", "--dir", str(folder))


def writable():
    """Folders that a learner's code may write to. Where Python itself lies below /tmp, that is none of them: what is
    mounted over it would hide it."""
    prefixes = [Path(prefix) for prefix in (sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix)]
    below = any(prefix.is_relative_to("/tmp") for prefix in prefixes)
    return ["/dev/shm", "/home/learner", *([] if below else ["/tmp"])]


def _packages():
    return [Path(p) for p in dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))]


def _hidden(kind, closed):
    """What of the installed packages no learner's code is to find: what computes the answers."""
    names = ["normlab", "nbgrader", *(["torch", "functorch", "torchgen"] if kind == "numpy" else [])]
    if kind == "numpy" or closed:
        names.append("sklearn")
    for folder in _packages():
        for name in names:
            if (folder / name).is_dir():
                yield from ("--tmpfs", str(folder / name), "--remount-ro", str(folder / name))
        for name in CLOSED_FILES:
            path = folder / name
            for file in (path, *(path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")):
                if file.is_file():
                    yield from ("--ro-bind", str(INSIDE / "closed_file.py"), str(file))


# Written in Python, so that somebody could copy them. What imports them finds functions of these names, which refuse.
CLOSED_FILES = ("scipy/special/_logsumexp.py",)


def command(kind, closed, autograd, descriptor, uid, gid, drop_inside):
    """The command line of a sandbox whose zygote listens to the socket `descriptor`."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise Unsafe("bubblewrap is not installed, and without it learners' code does not run: apt install bubblewrap")
    line = [bwrap, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if not drop_inside:
        line += ["--unshare-user", "--uid", str(uid), "--gid", str(gid)]
    line += ["--die-with-parent", "--new-session", "--as-pid-1", "--hostname", "learner", "--cap-drop", "ALL"]
    if drop_inside:
        line += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    line += [*_system(), *_hidden(kind, closed)]
    line += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"]
    line += [*_folders(Path(COURSE, "normlab")), *_folders(Path("/home"))]
    for name in VIEW:
        line += ["--ro-bind", str(ROOT / "normlab" / name), f"{COURSE}/normlab/{name}"]
    for stub in sorted((INSIDE / "normlab").glob("*.py")):
        line += ["--ro-bind", str(stub), f"{COURSE}/normlab/{stub.name}"]
    line += ["--ro-bind", str(INSIDE), f"{COURSE}/inside"]
    for folder in writable():
        line += ["--perms", "1777", "--size", str(FILES), "--tmpfs", folder]
    line += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/home/learner", "--clearenv"]
    for name, value in _environment(kind).items():
        line += ["--setenv", name, value]
    told = {"socket": descriptor, "kind": kind, "closed": closed, "autograd": autograd, "uid": uid, "gid": gid}
    told["writable"] = writable()
    return [*line, "--", sys.executable, "-I", f"{COURSE}/inside/zygote.py", json.dumps(told)]


def _environment(kind):
    return ({} if "/tmp" in writable() else {"TMPDIR": "/home/learner"}) | {
        "PATH": "/usr/bin:/bin",
        "HOME": "/home/learner",
        "LANG": "C.UTF-8",
        "USER": "learner",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "MPLBACKEND": "agg",
        "IPYTHONDIR": "/home/learner/.ipython",
        "TRITON_CACHE_DIR": "/home/learner/.triton",
    }


def below(number):
    """Numbers of the processes that a process has started, and they in turn. The kernel keeps lists of them; where it
    does not, all processes of the machine are looked at, which takes ten times as long."""
    if not os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children"):
        with contextlib.suppress(psutil.Error):
            yield from (process.pid for process in psutil.Process(number).children(recursive=True))
        return
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{number}/task"):
            for child in Path(f"/proc/{number}/task/{task}/children").read_text().split():
                yield int(child)
                yield from below(int(child))


# ---- a sandbox -------------------------------------------------------------------------------------------------------


class Sandbox:
    """One zygote, of the kind "numpy" or "torch"; of PyTorch's functions, those `closed` refuse. `start` a notebook's
    process, take it through the notebook, `end` it; then the next."""

    def __init__(self, kind="numpy", closed=None, autograd=True):
        self.what, self.process = (kind, closed, autograd), None

    def _launch(self):
        uid, gid = unprivileged()
        ways = [False, True] if os.getuid() == 0 else [False]
        errors = []
        for drop_inside in ways:
            with contextlib.ExitStack() as stack:
                ours, theirs = map(stack.enter_context, socket.socketpair())
                log = stack.enter_context(tempfile.TemporaryFile())
                os.set_inheritable(theirs.fileno(), True)
                line = command(*self.what, theirs.fileno(), uid, gid, drop_inside)
                who = {} if drop_inside or os.getuid() else {"user": uid, "group": gid, "extra_groups": []}
                try:
                    self.process = subprocess.Popen(
                        line,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=[theirs.fileno()],
                        cwd="/",
                        start_new_session=True,  # Ctrl-C in a grader's terminal is not to count as a learner's exit
                        **who,
                    )
                except OSError as error:
                    errors.append(str(error))
                    continue
                theirs.close()
                self.control, self.inbox = ours, b""
                try:
                    self._told("ready", time.monotonic() + START_SECONDS)
                except (wire.Gone, wire.Late):
                    self.close()
                    log.seek(0)
                    errors.append(log.read(4000).decode("utf-8", "replace").strip())
                else:
                    self.control = ours.dup()
                    return
        raise Unsafe(
            "No sandbox can be made here, and without one learners' code does not run. bubblewrap says: "
            + (" / ".join(filter(None, errors)) or "nothing")
            + ". (Containers and some systems forbid user namespaces. To allow them: sysctl "
            "kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0, or a container "
            "with --security-opt seccomp=unconfined.)"
        )

    def _told(self, word, deadline):
        """Waits until the zygote says a word."""
        while True:
            line, found, rest = self.inbox.partition(b"\n")
            if found:
                self.inbox = rest
                if word in json.loads(line):
                    return
                continue
            ready, _, _ = select.select([self.control], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise wire.Late
            try:
                data = self.control.recv(4096)
            except OSError:
                data = b""
            if not data:
                raise wire.Gone
            self.inbox += data

    def start(self, preload=(), absent=()):
        """A Connection to a fresh process."""
        if self.process is not None and self.process.poll() is not None:
            self.close()
        if self.process is None:
            self._launch()
        ours, theirs = socket.socketpair()
        message = {
            "do": "start",
            "preload": list(preload),
            "absent": list(absent),
            "memory": MEMORY,
            "files": FILES,
            "seconds": CPU_SECONDS,
        }
        try:
            socket.send_fds(self.control, [json.dumps(message).encode()], [theirs.fileno()])
        except OSError:
            raise wire.Gone from None
        finally:
            theirs.close()
        return Connection(self, ours)

    def end(self):
        """Kills what runs in the sandbox and deletes what it wrote; a sandbox that does not manage is ended itself."""
        if self.process is None:
            return
        try:
            self.control.sendall(json.dumps({"do": "end"}).encode())
            self._told("ended", time.monotonic() + END_SECONDS)
        except (OSError, wire.Gone, wire.Late):
            self.close()

    def close(self):
        """Ends the sandbox with all that is in it."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.kill()  # its first process: the kernel kills all others of the namespace
            self.process.wait()
            self.control.close()
            self.process = None

    def held(self):
        """Bytes of memory that the sandbox's processes have to themselves, or share among themselves."""
        total = 0
        for number in below(self.process.pid):
            with contextlib.suppress(OSError, ValueError):
                for line in Path(f"/proc/{number}/status").read_text().splitlines():
                    if line.startswith(("RssAnon:", "RssShmem:")):
                        total += 1024 * int(line.split()[1])
        return total


class Connection(wire.Channel):
    """A Channel to a notebook's process that notices at once when the process dies or holds too much memory, whether
    it is silent, talks without end, or does not listen."""

    def __init__(self, sandbox, connection):
        super().__init__(connection)
        self.sandbox, self.looked = sandbox, 0.0

    def _wait(self, deadline, to_send=False):
        """Errors: TimeoutError, OSError, TooMuch."""
        reading = [self.sandbox.control] if to_send else [self.connection, self.sandbox.control]
        writing = [self.connection] if to_send else []
        while True:
            now = time.monotonic()
            left = None if deadline is None else deadline - now
            if left is not None and left <= 0:
                raise TimeoutError
            if now - self.looked > LOOK_SECONDS:
                if self.sandbox.held() > HELD:
                    raise TooMuch
                self.looked = time.monotonic()
            wait = LOOK_SECONDS if left is None else min(left, LOOK_SECONDS)
            ready, free, _ = select.select(reading, writing, [], wait)
            if self.connection in ready or free:
                break
            if ready:
                raise OSError
        self.connection.settimeout(None if deadline is None else max(0.01, deadline - time.monotonic()))

    def send(self, value, functions=None, deadline=None):
        frame = memoryview(wire.packed(value, functions))
        try:
            while frame:
                self._wait(deadline, to_send=True)
                frame = frame[self.connection.send(frame) :]
        except TimeoutError:
            raise wire.Late from None
        except OSError:
            raise wire.Gone from None

    def close(self):
        self.connection.close()
        self.sandbox.end()


class TooMuch(Exception):
    """The processes of a notebook hold more memory than they may."""
