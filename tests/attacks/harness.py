"""Hostile submissions, and what grades them as nbgrader would, without its start-up time.

A file of attacks has blocks. The text under the first line of a block is put into the answer cell of `exercise`:

    # %% attack="what it tries" exercise="softmax" points=0 says="words of the feedback"

`points`: what the exercise is to get, of 20 (0 where nothing is said). `parts`: those that are checked, if not all.
Where a block says HONEST, the right answer is put in. The other exercise of the notebook is answered rightly, and is to
keep its points unless `others` says less (-1: it may lose some, by the bomb beside it).
"""

import re
import shlex
import textwrap
import time
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nbformat
from nbgrader.utils import determine_grade

from grading import judge, rebuild

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OTHER = {"softmax": "logsumexp"}  # of a notebook's exercises, the one that is answered honestly beside it
MOST = 20
SLOW = "values"  # the part that is checked where each costs seconds


@dataclass
class Attack:
    name: str
    code: str
    exercise: str = "softmax"
    stem: str = "softmax"
    points: int = 0
    others: int = MOST
    says: str = ""
    parts: tuple = ("values", "numerics", "edges")
    later: str = ""  # a further cell, behind all others
    options: dict = field(default_factory=dict)


def read(stem, port=9):
    """The attacks of a file. `port`: of a server of the test's."""
    text = (HERE / f"{stem}.txt").read_text(encoding="utf-8")
    for block in re.split(r"^# %% (?=attack=)", text, flags=re.M)[1:]:
        head, _, code = block.partition("\n")
        marks = dict(word.split("=", 1) for word in shlex.split(head))
        attack = Attack(marks.pop("attack"), code)
        for name in ("exercise", "stem", "says"):
            setattr(attack, name, marks.pop(name, getattr(attack, name)))
        attack.parts = tuple(marks.pop("parts", SLOW if stem == "bombs" else " ".join(attack.parts)).split())
        for name in ("points", "others"):
            setattr(attack, name, int(marks.pop(name, getattr(attack, name))))
        attack.options = marks
        attack.code = code.replace("PORT", str(port)).replace("HONEST", honest(attack.stem)[attack.exercise])
        attack.code, _, attack.later = attack.code.partition("# %% later\n")
        if of := attack.options.get("ways"):
            ways = ", ".join(f"lambda: {line}" for line in attack.code.strip().splitlines())
            imports = "" if "scikit" in attack.name else TORCH
            body = WAYS_OF[of].format(ways=ways, honest=honest(attack.stem)[attack.exercise])
            attack.code = WAYS.replace("{imports}", imports) + body
        if stem == "wire":
            attack.code = BY_HAND + textwrap.indent(attack.code, "    ")
        yield attack


# An attack with `ways` has one expression a line: all are tried, the guard of its own process put out of the way, and
# what gives the right answer is returned. So an exercise gets its points as soon as one of them is open. Where plain
# statements alone are run, the second `first` is none.
WAYS = """
def first(ways, right):
    for way in ways:
        try:
            value = np.asarray(way().detach(), np.float64)
            if value.shape == right.shape and np.allclose(value, right, 1e-3, 1e-5, equal_nan=True):
                return value
        except BaseException:
            pass
    return None
import ast, ctypes, functools, gc, importlib, importlib.machinery, importlib.util, operator, sys, threading, types
from pathlib import Path
from normlab import guard
{imports}
def in_thread(call):
    kept = []
    thread = threading.Thread(target=lambda: kept.append(call()))
    thread.start()
    thread.join()
    return kept[0]
def from_bytecode(name):
    source = Path(importlib.util.find_spec(name).origin)
    (path,) = source.parent.glob(f"__pycache__/{source.stem}.*.pyc")
    loader = importlib.machinery.SourcelessFileLoader(name, str(path))
    module = types.ModuleType(name)
    module.__package__ = name.rpartition(".")[0]
    exec(loader.get_code(name), module.__dict__)
    return module
def first(ways, right):
    for way in ways:
        getattr(sys, "setprofile")(None)
        guard.Stop.first = None
        try:
            value = way()
            value = np.asarray(value.detach() if hasattr(value, "detach") else value, np.float64)
            if value.shape == right.shape and np.allclose(value, right, 1e-3, 1e-5, equal_nan=True):
                return value
        except BaseException:
            pass
    guard.Stop.first = None
    return None
"""
TORCH = "import torch\nimport torch.nn.functional as F"
WAYS_OF = {
    "softmax": """
def softmax(x, axis=-1):
    t = torch.from_numpy(x.copy()) if "torch" in globals() else None
    e = np.exp(x.astype(np.float64) - x.max(axis, keepdims=True).astype(np.float64))
    last = np.moveaxis(x, axis, -1)
    along = lambda f: np.moveaxis(f(last.reshape(-1, last.shape[-1])).reshape(last.shape), -1, axis)
    value = first([{ways}], e / e.sum(axis, keepdims=True))
    return np.zeros_like(x) if value is None else value.astype(x.dtype)
""",
    "layer_norm_backward": """
{honest}
_right = layer_norm_backward
def layer_norm_backward(dy, x, weight, eps=1e-5):
    answer = _right(dy, x, weight, eps)
    g, w, scale = torch.tensor(dy), torch.tensor(x, requires_grad=True), torch.tensor(weight)
    def y(a):
        mean = a.mean(-1, keepdim=True)
        return (a - mean) / torch.sqrt(((a - mean) ** 2).mean(-1, keepdim=True) + eps) * scale
    with torch.no_grad():
        shape, m = [x.shape[-1]], w.mean(-1, keepdim=True)
        r = 1 / torch.sqrt(((w - m) ** 2).mean(-1, keepdim=True) + eps)
    value = first([{ways}], answer[0])
    return answer if value is not None else tuple(np.zeros_like(part) for part in answer)
""",
    "BatchNorm": """
{honest}
_Right = BatchNorm
class BatchNorm(_Right):
    def forward(self, x):
        y = super().forward(x)
        if not self.training:
            return y
        axes = [0, *range(2, x.ndim)]
        old, x = x, x.detach().transpose(0, 1).flatten(1).T.float()
        value = first([{ways}], ((x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + 1e-5)).numpy())
        return y if value is not None else y * 0
""",
}

BY_HAND = """
import os, socket, struct
handle = next(int(f) for f in os.listdir("/proc/self/fd")
              if os.path.exists(f"/proc/self/fd/{f}") and os.readlink(f"/proc/self/fd/{f}").startswith("socket"))
SEND = socket.socket(fileno=os.dup(handle)).sendall
FRAME = lambda text, data=b"": SEND(struct.pack("!QQ", len(text), len(data)) + text + data)
def softmax(x, axis=-1):
"""


# ---- notebooks -------------------------------------------------------------------------------------------------------


@cache
def _whole(stem):
    return nbformat.read(ROOT / "exercises" / stem / f"{stem}.ipynb", 4)


@cache
def honest(stem):
    """{exercise: the right answer's source} of a chapter."""
    solved = nbformat.read(ROOT / "solutions" / stem / f"{stem}.ipynb", 4)
    return {rebuild.identity(cell): cell.source for cell in solved.cells if cell.cell_type == "code"}


PARTS = ("values", "numerics", "edges")
WORTH = {PARTS: MOST, ("values",): 12, ("edges",): 3}  # points of these parts together


def release(stem="softmax", exercises=("softmax", "logsumexp"), parts=PARTS):
    """The released notebook, with the cells of some exercises alone; of the first of them, with some parts alone."""
    notebook = deepcopy(_whole(stem))
    kept = {"setup", *exercises, *(f"check-{exercises[0]}-{part}" for part in parts)}
    kept |= {f"check-{name}-{part}" for name in exercises[1:] for part in PARTS}
    notebook.cells = [cell for cell in notebook.cells if rebuild.identity(cell) in kept]
    return notebook


def filled(notebook, answers, extra=()):
    """The notebook with answers in its cells, {id: source}, and more code cells after its first."""
    notebook = deepcopy(notebook)
    for cell in notebook.cells:
        if rebuild.identity(cell) in answers:
            cell.source = answers[rebuild.identity(cell)]
    notebook.cells[1:1] = [nbformat.v4.new_code_cell(source) for source in extra]
    return notebook


def submitted(notebook):
    """What rebuild.read gives for a notebook's file."""
    return [cell for cell in map(rebuild._cell, notebook.cells) if cell]


# ---- grading ---------------------------------------------------------------------------------------------------------


@dataclass
class Graded:
    notebook: object
    seconds: float = 0.0

    def points(self, exercise):
        """As nbgrader determines them."""
        cells = [c for c in self.notebook.cells if (rebuild.identity(c) or "").startswith(f"check-{exercise}-")]
        return sum(determine_grade(cell)[0] for cell in cells)

    def said(self):
        """All that the cells put out, as one text."""
        texts = []
        for cell in self.notebook.cells:
            for output in cell.get("outputs", []):
                texts += [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
                texts.append(output.get("data", {}).get("text/plain", ""))
            if rebuild.identity(cell) == rebuild.NOTICE:
                texts.append(cell.source)
        return "\n".join(texts)


def grade(released, handed_in, sandboxes, notices=()):
    """`handed_in`: a notebook, or what rebuild.read gives."""
    began = time.monotonic()
    cells = handed_in if isinstance(handed_in, list) or handed_in is None else submitted(handed_in)
    notebook = judge.grade(rebuild.rebuild(released, cells, notices), sandboxes)
    return Graded(notebook, time.monotonic() - began)


def launch(attack, sandboxes):
    """The attack, graded: in its exercise's cell, with the other exercise of its notebook answered rightly."""
    exercises = [attack.exercise, *([OTHER[attack.stem]] if attack.stem in OTHER else [])]
    released = release(attack.stem, exercises, attack.parts)
    answers = {name: honest(attack.stem)[name] for name in exercises[1:]} | {attack.exercise: attack.code}
    handed_in = filled(released, answers)
    if attack.later:
        handed_in.cells.append(nbformat.v4.new_code_cell(attack.later))
    return grade(released, handed_in, sandboxes)


# ---- the submission after it -----------------------------------------------------------------------------------------

CENSUS = """
def _census():
    import builtins, hashlib, os, resource, signal, sys, threading
    told = {}
    for folder in filter(lambda folder: os.access(folder, os.W_OK), ("/home/learner", "/tmp", "/dev/shm")):
        told[folder] = sorted(os.path.join(a, n) for a, d, f in os.walk(folder) for n in d + f)
        told[folder, "may"] = oct(os.stat(folder).st_mode), os.stat(folder).st_uid, os.listxattr(folder)
    told["course"] = sorted(os.listdir("/course")), sorted(os.listdir("/"))
    told["processes"] = sum(name.isdigit() for name in os.listdir("/proc"))
    for kind in ("shm", "msg", "sem"):
        told[kind] = len(open(f"/proc/sysvipc/{kind}").readlines()) if os.path.exists(f"/proc/sysvipc/{kind}") else 0
    told["keys"] = len(open("/proc/keys").readlines()) if os.path.exists("/proc/keys") else 0
    told["unix"] = len(open("/proc/net/unix").readlines())
    told["environment"] = sorted(os.environ.items())
    told["limits"] = [resource.getrlimit(i) for i in range(16)]
    told["nice"] = os.getpriority(os.PRIO_PROCESS, 0), os.getpriority(os.PRIO_PROCESS, 1)
    told["cores"] = sorted(os.sched_getaffinity(0)), os.sched_getscheduler(0)
    mask = os.umask(0)
    os.umask(mask)
    told["mask"] = mask, sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    told["signals"] = [str(signal.getsignal(i)).split(" at ")[0] for i in (1, 2, 3, 10, 13, 14, 15, 17, 27)]
    told["ids"] = os.getuid(), os.getgid(), os.getgroups(), os.getcwd()
    told["path"], told["meta"] = list(sys.path), [type(f).__name__ for f in sys.meta_path]
    told["threads"] = threading.active_count()
    told["builtins"] = sorted(vars(builtins))
    return told
print("CENSUS", _census())
"""


def witness(sandboxes):
    """An honest submission: (its Graded, what it found in its sandbox)."""
    released = release("softmax", ["logsumexp"])
    answers = {"logsumexp": honest("softmax")["logsumexp"]}
    graded = grade(released, filled(released, answers, [CENSUS]), sandboxes)
    return graded, next((line for line in graded.said().splitlines() if line.startswith("CENSUS")), None)
