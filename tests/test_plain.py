"""Plain statements: right styles consist of them, and ways out of them do not."""

import textwrap

import pytest

from grading import bridge
from grading.plain import imported, plain
from normlab.exercises import EXERCISES

MODULES = {"np": "numpy", "torch": "torch", "nn": "torch.nn", "numba": "numba", "tl": "triton.language"}
MEASURED = [name for name, exercise in EXERCISES.items() if exercise.drive.__module__ in bridge.MEASURING]


@pytest.mark.parametrize("name", MEASURED)
def test_right_styles_are_plain(name, repo):
    path = repo / "tests" / "styles" / f"{name}.py"
    source = path.read_text()
    kept, why_not = plain(source, {})
    assert not any(why_not.values())
    assert kept == source


def test_there_are_some():
    assert {"BatchNorm", "softmax_rows", "softmax_kernel", "attention"} <= {*MEASURED}


@pytest.mark.parametrize(
    "source",
    [
        "import sys",
        "import numpy, sys",
        "from normlab.drive import kernels",
        "from numpy import lib",
        "from numpy import *",
        "import torch.utils",
        "f = np.lib._utils_impl.sys.modules",
        "f = np.f2py",
        "f = np.load('x', allow_pickle=True)",
        "f = torch.load",
        "f = numba.core",
        "f = numba.carray(8, 8)",
        "np.exp = abs",
        "del np.exp",
        "nn.Module.train = None",
        "np.exp += 1",
        "m = np",
        "m = [np]",
        "def f(m=np):\n    m.exp = 1",
        "def f(np):\n    pass",
        "np = 1",
        "def np():\n    pass",
        "class A:\n    def __getattr__(self, name):\n        pass",
        "class A(metaclass=type):\n    pass",
        "f = (lambda: 0).__globals__",
        "f = ''.__class__.__mro__",
        "def f():\n    yield f.gi_frame.f_back",
        "f = np.zeros(3).ctypes",
        "np.zeros(3).tofile('x')",
        "getattr(f, 'g')",
        "exec('1')",
        "globals()['f'] = 1",
        "f = __builtins__",
        "__name__ = 1\nf = __loader__",
        "%matplotlib inline",
        "!ls",
        "try:\n    import os\nexcept ImportError:\n    pass",
        "def f():\n    import gc",
        "f = [np.lib for i in range(3)]",
        "@np.lib.set_module('x')\ndef f():\n    pass",
        "with open('x') as f:\n    pass",
        "from operator import attrgetter",
        "match f:\n    case object(__globals__=g):\n        h = g",
        "import typing\nf = typing.get_type_hints",
        "from functools import singledispatch",
    ],
)
def test_ways_out_are_left_out(source):
    kept, _ = plain(f"{source}\nx = 1", dict(MODULES))
    last = textwrap.dedent(source).strip().splitlines()[-1]
    assert last not in kept
    assert kept.endswith("x = 1"), "what is plain stays"


@pytest.mark.parametrize(
    "source",
    [
        "f = np.linalg.norm(np.random.default_rng(0).normal(size=3))",
        "x = tl.load(0)",
        "class A(nn.Module):\n    def __init__(self):\n        super().__init__()\n        nn.init.ones_(self._w)",
        "a.b = 1\na.b.c[0] += 2",
        "def f(x, *, axis=-1):\n    return {k: v for k, v in x.items()}",
        "from collections import deque\nimport itertools as it\nf = it.chain",
    ],
)
def test_what_is_plain(source):
    kept, why_not = plain(source, dict(MODULES))
    assert kept == source
    assert not any(why_not.values())


def test_what_was_left_out_is_said():
    _, why_not = plain("import numpy as np\ndef softmax_rows(x, out):\n    import sys\n", {})
    assert why_not == {"np": None, "softmax_rows": "imports sys"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("f = 1\nf = getattr(1, 'real')", {"f": "uses getattr"}),
        ("f = getattr(1, 'real')\nf = 1", {"f": None}),
        ("def g():\n    f = getattr(1, 'real')\nf = 1", {"g": "uses getattr", "f": None}),
        ("f = 1\ng = [getattr(f, 'real') for f in (1, 2)]", {"f": None, "g": "uses getattr"}),
        ("f = 1\nif f:\n    import sys as f", {"f": "imports sys"}),
    ],
)
def test_the_last_definition_counts(source, expected):
    assert plain(source, {})[1] == expected


def test_modules_of_the_instructors_cells():
    assert imported("import numpy as np\nfrom torch import nn\nimport torch.nn.functional as F\nimport sys") == {
        "np": "numpy",
        "nn": "torch.nn",
        "F": "torch.nn.functional",
        "sys": "sys",
    }
