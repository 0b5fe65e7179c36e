"""The first process of a sandbox: it imports what learners' code needs once, and forks a process for each notebook.

    python -I zygote.py '{"socket": ..., "kind": ..., "closed": ..., "autograd": ..., "uid": ..., "gid": ...}'

Over the socket it is told {"do": "start", ...} with one more socket, for the process to be forked, and {"do": "end"}:
then everything that runs here is killed and everything that was written is deleted. It answers {"ended": true} once
that is done, and says {"died": true} when a notebook's process ends by itself.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.abc
import importlib.util
import json
import os
import re
import resource
import select
import signal
import socket
import sys
import traceback
import types

HERE = "/course"
HOME = "/home/learner"
PRELOAD = (
    "numba",
    "triton",
    "sklearn.datasets",
    "matplotlib",
    "torch.fx.experimental.symbolic_shapes",
    "normlab.mistakes",  # which are there for a proof of the grader alone (parity.py)
)  # that a notebook may ask to be imported before the fork
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
IPC_RMID = 0

libc = ctypes.CDLL(None, use_errno=True)


# ---- a package that is not there -------------------------------------------------------------------------------------


class AbsentUsed(ImportError):
    pass


def _use(self, *_, **__):
    import absent

    absent.used = True
    raise AbsentUsed(f"{self.__name__.partition('.')[0]} is not here: this exercise is written with NumPy")


class Absent(types.ModuleType):
    """A package that is only named: whoever uses it is told that it is not here, and the grader takes a sandbox that
    has it."""

    def __getattr__(self, name):
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        # Libraries ask whether a value is a tensor: without PyTorch none is.
        child = type(name, (), {}) if name == "Tensor" else Absent(f"{self.__name__}.{name}")
        self.__dict__[name] = child
        return child

    def __instancecheck__(self, value):
        return False

    __call__ = __mro_entries__ = __enter__ = __iter__ = __getitem__ = __len__ = __add__ = __mul__ = _use


class AbsentFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in self.names:
            return importlib.util.spec_from_loader(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Absent(spec.name)

    def exec_module(self, module):
        pass


def make_absent(names):
    """Packages of these names can be imported, and not used."""
    sys.modules["absent"] = types.ModuleType("absent")
    sys.modules["absent"].used, sys.modules["absent"].kind = False, Absent
    sys.meta_path.insert(0, AbsentFinder(names))


# ---- what a notebook leaves behind -----------------------------------------------------------------------------------


def clean(writable):
    """Kills every other process here, and deletes what they have written."""
    for _ in range(1000):
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            break
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0)[0]:
                pass
    for folder in writable:
        _empty(folder)
    for kind, remove in (("shm", libc.shmctl), ("msg", libc.msgctl)):
        for number in _ipc(kind):
            remove(number, IPC_RMID, None)
    for number in _ipc("sem"):
        libc.semctl(number, 0, IPC_RMID)


def _empty(folder):
    """Deletes what is in a folder, whatever its permissions, and however deep: folders in folders are moved up."""
    with contextlib.suppress(OSError):  # where it is another's, nobody here can have changed it
        os.chmod(folder, 0o700)
    moved = 0
    while entries := list(os.scandir(folder)):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)
            for child in list(os.scandir(entry.path)):
                if child.is_dir(follow_symlinks=False):
                    os.chmod(child.path, 0o700)
                    moved += 1
                    os.rename(child.path, f"{folder}/{moved}-{os.urandom(8).hex()}")
                else:
                    os.unlink(child.path)
            os.rmdir(entry.path)


def _ipc(kind):
    try:
        with open(f"/proc/sysvipc/{kind}") as file:
            return [int(line.split()[1]) for line in file.readlines()[1:]]
    except OSError:
        return []


# ---- one notebook ----------------------------------------------------------------------------------------------------


def limit(memory, files, seconds):
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, files),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NPROC, 128),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def read_signatures_alone():
    """Numba evaluates the text of a signature: from here on, only text that is one."""
    signatures = sys.modules.get("numba.core.sigutils")
    if signatures is None:
        return
    read = signatures._parse_signature_string

    def parse(text):
        if "__" in text or not re.fullmatch(r"[\w\s,:()\[\]]*", text):
            raise TypeError("this is no signature")
        return read(text)

    signatures._parse_signature_string = parse


def notebook(connection, message, learner, calls):
    """Becomes the process of a notebook; does not return."""
    try:
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        os.setpgid(0, 0)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        limit(message["memory"], message["files"], message["seconds"])
        calls.refuse()
        read_signatures_alone()
        os.chdir(HOME)
        sys.path.insert(0, HOME)
        if message["absent"]:
            make_absent(message["absent"])
        learner.main(connection)
    except BaseException:
        pass
    finally:
        os._exit(1)


def serve(control, learner, calls, writable):
    """Does what it is told, until the socket is closed."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 4)
        if not data:
            return
        message = json.loads(data)
        if message["do"] == "end":
            clean(writable)
            control.sendall(b'{"ended": true}\n')
            continue
        for name in message["preload"]:
            if name in PRELOAD:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        child = os.fork()
        if child == 0:
            connection = socket.socket(fileno=descriptors[0])
            control.close()
            notebook(connection, message, learner, calls)
        for descriptor in descriptors:
            os.close(descriptor)
        watched = os.pidfd_open(child)
        ready, _, _ = select.select([control, watched], [], [])
        if watched in ready:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
            control.sendall(b'{"died": true}\n')
        os.close(watched)


def main():
    told = json.loads(sys.argv[1])
    if os.getpid() != 1:
        sys.exit("This is to be the first process of a sandbox: it ends every other process that it may.")
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(*[told["gid"]] * 3)
        os.setresuid(*[told["uid"]] * 3)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    # A change of users takes back what bubblewrap asked for: to end with the grader, stopped or not.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which the kernel keeps from a first process
    control = socket.socket(fileno=told["socket"])
    sys.path.insert(0, HERE)
    sys.path.insert(0, f"{HERE}/inside")
    sys.dont_write_bytecode = True
    import calls
    import learner
    import numpy  # noqa: F401 - every notebook has it

    if told["kind"] == "torch":
        import torch

        torch.set_num_threads(1)  # a forked process that used the parent's threads would hang
        if told["closed"]:
            import closed_torch

            closed_torch.close(told["closed"], told["autograd"])
    learner.prepared()
    gc.collect()
    gc.freeze()  # else each fork would copy, for its garbage collector, what it could share
    calls.program()  # where they are not known, nothing is to run
    control.sendall(b'{"ready": true}\n')
    serve(control, learner, calls, told["writable"])


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.exit(1)
