"""The grader's two sides of one notebook: what runs where, what comes back, and what is made of processes that end."""

import time

import nbformat
import pytest

from grading import bridge, judge, rebuild
from grading.bridge import Learner, Policy
from normlab import exercises
from normlab.check import CheckFailed, check

SETUP = "import numpy as np\nfrom normlab.check import check"
SOFTMAX = """def softmax(x, axis=-1):
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    e = np.exp(wide - wide.max(axis, keepdims=True))
    return (e / e.sum(axis, keepdims=True)).astype(x.dtype)
"""


@pytest.fixture(scope="module")
def warm():
    """Sandboxes for all tests of this file."""
    sandboxes = bridge.Sandboxes()
    yield sandboxes
    sandboxes.close()


@pytest.fixture
def learner(warm):
    """A function: a learner's cells -> the Learner, after the usual first cell."""
    made = []

    def make(*cells, main=None, own=True):
        made.append(Learner(warm, [SETUP, *cells], [False, *[own] * len(cells)], main or Policy()))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture(scope="module")
def released(repo):
    """A function: name of an assignment -> its released notebook."""
    return lambda stem: nbformat.read(repo / "exercises" / stem / f"{stem}.ipynb", 4)


@pytest.fixture
def graded(warm, released):
    """A function: name of an assignment, {name of a cell: source} -> {name of a cell: its outputs} once graded."""

    def grade(stem, answers, *extra):
        cells = [(cell.cell_type, [rebuild.identity(cell)], cell.source) for cell in released(stem).cells]
        cells = [(kind, names, answers.get(names[0], source)) for kind, names, source in cells]
        after = [("code", [], source) for source in extra]
        notebook = judge.grade(rebuild.rebuild(released(stem), cells + after), warm)
        return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}

    return grade


def remote(learner, name="softmax", exercise="softmax"):
    return learner.look(name, len(learner.cells), exercises.find(exercise))


def refusal(candidate, exercise="softmax", **options):
    with pytest.raises(CheckFailed) as caught:
        check(candidate, exercise, **options)
    return str(caught.value), caught.value.mistake


def errors(outputs):
    return [output.evalue for output in outputs if output.output_type == "error"]


# ---- functions -------------------------------------------------------------------------------------------------------


def test_a_function_over_there_is_checked_as_one_here(learner, capsys):
    check(remote(learner(SOFTMAX)), "softmax")
    assert "right on 23 of 23" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "mistake"),
    [
        (SOFTMAX.replace("wide - wide.max(axis, keepdims=True)", "wide"), "no-maximum"),
        (SOFTMAX.replace(", keepdims=True", ""), None),
        (SOFTMAX.replace("axis, ", "-1, "), None),
        ("def softmax(x, axis=-1):\n    x -= x.max(axis, keepdims=True)\n    return np.exp(x)", "mutates-input"),
        ("def softmax(x, axis=-1):\n    return [1.0]", None),
        ("def softmax(x, axis=-1):\n    return np.matrix([[1.0]])", None),
        ("def softmax(x, axis=-1):\n    raise KeyError('no')", None),
        ("def softmax(x, axis=-1):\n    raise NotImplementedError", None),
        ("class Odd(ValueError):\n    pass\ndef softmax(x, axis=-1):\n    raise Odd('no')", None),
        ("def softmax(x, axis=-1):\n    return np.broadcast_to(x[..., :1], (10**6, 10**6))", None),
        ("def softmax(x, axis=-1):\n    return np.array([None])", None),
        ("def softmax(x):\n    return x", None),
        ("def softmax(x, axis=-1):\n    import scipy.special\n    return scipy.special.softmax(x, axis)", None),
        ("softmax = 5", None),
    ],
)
def test_the_sentence_is_the_same_as_here(source, mistake, learner):
    here = {}
    exec(f"{SETUP}\n{source}", here)
    there = refusal(remote(learner(source)))
    assert there == refusal(here["softmax"])
    if mistake:
        assert there[1] == mistake


def test_strides_arrive_and_streams_and_generators(learner):
    right = "def welford(stream):\n    n, mean, m2 = 0, 0.0, 0.0\n    for x in stream:\n        n += 1\n"
    right += "        d = x - mean\n        mean += d / n\n        m2 += d * (x - mean)\n    return n, mean, m2"
    check(remote(learner(right), "welford", "welford"), "welford")
    right = "def gumbel_max(logits, rng, size):\n    size = size if isinstance(size, tuple) else (size,)\n"
    right += "    return (logits + rng.gumbel(size=(*size, len(logits)))).argmax(-1)"
    check(remote(learner(right), "gumbel_max", "gumbel_max"), "gumbel_max", part="values")
    seen = "def softmax(x, axis=-1):\n    raise ValueError(str(x.strides != np.ascontiguousarray(x).strides))"
    exercise = exercises.find("softmax")
    case = next(c for c in exercise.cases if "not contiguous" in c.kind)
    args, kwargs = exercise.draw(case, b"public")
    outcome = remote(learner(seen)).outcome(exercise, args, kwargs)
    assert str(outcome.error) == "True"


def test_functions_of_ours_can_be_called_from_there(learner):
    right = "def numerical_gradient(f, x, dy, h):\n    dx = np.empty(x.shape)\n    for i in np.ndindex(x.shape):\n"
    right += "        p, m = x.astype(float), x.astype(float)\n        p[i] += h\n        m[i] -= h\n"
    right += "        dx[i] = ((f(p) - f(m)) * dy).sum() / (p[i] - m[i])\n    return dx"
    check(remote(learner(right), "numerical_gradient", "numerical_gradient"), "numerical_gradient", part="values")
    looks = "def mutant_hunt(layer_norm):\n    x = np.ones((2, 3))\n    x[0, 0] = 7\n    kept = x.copy()\n"
    looks += "    layer_norm(x, (3,))\n    return bool((x == kept).all())"
    sentence, _ = refusal(remote(learner(looks), "mutant_hunt", "mutant_hunt"), "mutant_hunt", part="edges")
    assert "changes its input" not in sentence, "the function that changes its input was not found out"


def test_a_module_is_taken_through_its_steps_over_there(learner):
    cells = "from torch import nn\nclass BatchNorm(nn.Module):\n    def __init__(self, channels):\n        pass"
    sentence, _ = refusal(remote(learner(cells), "BatchNorm", "BatchNorm"), "BatchNorm")
    assert sentence.startswith("BatchNorm: the signature is to be")
    own = "from torch import nn\nclass BatchNorm(nn.BatchNorm1d):\n    pass"
    sentence, mistake = refusal(remote(learner(own), "BatchNorm", "BatchNorm"), "BatchNorm")
    assert mistake == "calls-the-answer", sentence


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def test_numpy_is_judged_without_pytorch_unless_the_code_asks_for_it(learner, warm):
    one = learner(
        "import sys\n"
        + SOFTMAX.replace("    wide", "    assert 'libtorch_cpu.so' not in open('/proc/self/maps').read()\n    wide", 1)
    )
    check(remote(one), "softmax")
    assert not one.with_torch
    asks = "def softmax(x, axis=-1):\n    import torch\n    t = torch.from_numpy(x.astype(float))\n"
    asks += "    e = (t - t.amax(axis, keepdim=True)).exp()\n"
    asks += "    return (e / e.sum(axis, keepdim=True)).numpy().astype(x.dtype)"
    other = learner(asks)
    check(remote(other), "softmax")
    assert other.with_torch == {"softmax"}


@pytest.mark.parametrize(
    "call",
    [
        "torch.softmax(t, axis)",
        "getattr(torch, 'soft' + 'max')(t, axis)",
        "torch.ops.aten._softmax(t, axis, False)",
        "sys.setprofile(None) or torch.nn.functional.softmax(t, axis)",
        "sys.setprofile(None) or torch._refs.softmax(t, axis)",
        "(t - torch.logsumexp(t, axis, keepdim=True)).exp()",
    ],
)
def test_pytorchs_own_answer_is_closed(call, learner):
    source = "def softmax(x, axis=-1):\n    import sys, torch\n    t = torch.from_numpy(x.astype(float))\n"
    source += f"    return ({call}).numpy()"
    sentence, mistake = refusal(remote(learner(source)))
    assert "is to write it" in sentence
    assert mistake == "calls-the-answer"


# ---- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("import os; os.kill(os.getpid(), 9)", "ends its own process"),
        ("import ctypes; ctypes.string_at(0)", "ends its own process"),
        ("import os; os._exit(0)", "ends the whole process"),
        ("raise SystemExit", "calls exit"),
    ],
)
def test_a_process_that_ends_costs_its_own_exercise(body, sentence, learner):
    kills = f"def logsumexp(x, axis=-1):\n    {body}"
    one = learner(SOFTMAX, kills)
    began = time.monotonic()
    assert sentence in refusal(remote(one, "logsumexp", "logsumexp"), "logsumexp", part="values")[0]
    assert time.monotonic() - began < 8
    check(remote(one), "softmax")


def test_a_cell_that_ends_the_process_is_left_out(learner):
    one = learner(SOFTMAX, "import os\nos._exit(0)", "print('still here')")
    one.show({})
    assert [o["evalue"] for o in one.shown[2]] == [
        "This cell ends its own process (exit, a crash, or too much memory)."
    ]
    assert one.shown[3] == [{"output_type": "stream", "name": "stdout", "text": "still here\n"}]
    check(remote(one), "softmax")


def test_a_cell_that_hangs_is_ended(learner, monkeypatch):
    monkeypatch.setattr(bridge, "CELL_SECONDS", 0.5)
    monkeypatch.setattr(bridge, "GRACE_SECONDS", 0.5)
    one = learner("while True:\n    pass", SOFTMAX)
    one.show({})
    assert [o["evalue"] for o in one.shown[1]] == ["This cell does not return within 0.5 seconds."]
    assert one.shown[2] == []


def test_all_together_have_a_time(learner, monkeypatch):
    monkeypatch.setattr(bridge, "NOTEBOOK_SECONDS", 1.0)
    one = learner(*["import time\ntime.sleep(0.4)"] * 6)
    one.show({})
    assert any("all cells together take too long" in o["evalue"] for outputs in one.shown.values() for o in outputs)


# ---- whole notebooks -------------------------------------------------------------------------------------------------


def test_what_a_function_was_called_with_is_put_out_nowhere(graded):
    steals = "kept = []\n" + SOFTMAX.replace(
        "    wide", "    kept.append(float(x.ravel()[0]) if x.size else 0)\n    wide", 1
    )
    outputs = graded("softmax", {"softmax": steals}, "print('kept', kept)", "import os\nprint(os.listdir('/dev/shm'))")
    assert errors(outputs["check-softmax-values"]) == []
    assert outputs["extra-1"][0].text == "kept []\n"
    assert outputs["extra-2"][0].text == "[]\n"


def test_only_names_that_the_stub_defines_reach_the_instructors_cells(graded):
    forged = "def check(*args, **kwargs):\n    pass\nnp = None\nprint('mine')"
    outputs = graded("softmax", {"prediction-crowd": f"prediction = 0.13\n{forged}"})
    assert outputs["prediction-crowd"][0].text == "mine\n"
    assert errors(outputs["measure-crowd"]) == []
    assert errors(outputs["check-softmax-values"]) == ["softmax is not written yet: it raises NotImplementedError."]


@pytest.mark.parametrize(
    ("prediction", "said"),
    [
        ("0.13", None),
        ("None", "Say first what you expect"),
        ("type('Number', (float,), {'__eq__': lambda *_: True, '__sub__': lambda *_: 0.0})(99)", None),
        ("lambda: 1", "A number is asked for"),
        ("[0.13]", "A number is asked for, and yours is a list."),
    ],
)
def test_a_prediction_is_data(prediction, said, graded):
    outputs = graded("softmax", {"prediction-crowd": f"prediction = {prediction}"})
    found = errors(outputs["measure-crowd"])
    assert found[0].startswith(said) if said else not found
    if "Number" in prediction:
        assert "differs from what happens" in outputs["measure-crowd"][0].text


def test_what_a_cell_puts_out(graded):
    outputs = graded(
        "softmax",
        {},
        "print('text')\nimport sys\nprint('more', file=sys.stderr)\n1 + 1",
        "from IPython.display import HTML, display\ndisplay(HTML('<script>1</script>'))",
        "%timeit -n 1 -r 1 1 + 1",
        "def broken(:\n    pass",
        "print('x' * 100_000)",
    )
    assert {o.get("name", o.output_type): o.get("text") for o in outputs["extra-1"]} == {
        "stdout": "text\n",
        "stderr": "more\n",
        "display_data": None,
    }
    assert outputs["extra-1"][-1].data == {"text/plain": "2"}
    assert "script" not in str(outputs["extra-2"])
    assert "per loop" in outputs["extra-3"][0].text
    assert outputs["extra-4"][0].ename == "SyntaxError"
    assert len(outputs["extra-5"][0].text) < 21_000


# ---- exercises that ask for more than numbers ------------------------------------------------------------------------

ROWS = """@numba.njit
def softmax_rows(x, out):
    for i in range(x.shape[0]):
        m = -np.inf
        for j in range(x.shape[1]):
            m = x[i, j] if np.isnan(x[i, j]) else max(m, x[i, j])
        t = 0.0
        for j in range(x.shape[1]):
            out[i, j] = np.exp(x[i, j] - m)
            t += out[i, j]
        for j in range(x.shape[1]):
            out[i, j] /= t
"""


def test_what_looks_at_a_function_cannot_be_changed_by_it(learner):
    """The right numbers, from a function that is not compiled, by whoever says that it is."""
    lie = "import normlab.drive.kernels as k\nimport numba\n"
    lie += "k.rows = lambda candidate, x: np.exp(x - x.max(1, keepdims=True, initial=-9)) if x.size else x"
    sentence, _ = refusal(
        remote(learner(lie, "def softmax_rows(x, out):\n    pass"), "softmax_rows", "softmax_rows"), "softmax_rows"
    )
    assert "runs as plain Python" in sentence
    inside = "def softmax_rows(x, out):\n    import sys\n    sys.modules['normlab.drive.kernels'].rows = None"
    sentence, _ = refusal(remote(learner(inside), "softmax_rows", "softmax_rows"), "softmax_rows")
    assert "imports sys" in sentence


def test_a_signature_is_read_and_not_run(learner):
    signed = ROWS.replace("@numba.njit", "@numba.njit(['void(f8[:,:], f8[:,:])', 'void(f4[:,:], f4[:,:])'])", 1)
    check(remote(learner("import numba\n" + signed), "softmax_rows", "softmax_rows"), "softmax_rows", part="values")


def test_text_that_is_no_signature_is_not_run(learner):
    text = "__import__('normlab.drive.kernels').drive.kernels.__dict__.update(NO_KERNEL='x') or void(float64)"
    one = learner(
        f"import numba\ntry:\n    numba.njit({text!r})(lambda x, y: x)\nexcept TypeError as no:\n    said = str(no)"
    )
    one.show({})
    process = one.process(bridge.policy(exercises.find("softmax_rows")), 2)
    assert process.ask({"do": "look", "name": "said"}, 10)["value"] == "this is no signature"


def test_the_last_definition_is_judged(learner):
    """A right one does not stand in for one that is left out, and one that is left out does not hide a right one."""
    right, other = f"import numba\n{ROWS}", "softmax_rows = getattr(np, 'exp')"
    sentence, _ = refusal(remote(learner(right, other), "softmax_rows", "softmax_rows"), "softmax_rows")
    assert "uses getattr" in sentence
    local = "def draw():\n    softmax_rows = getattr(np, 'exp')"
    for cells in ((other, right), (right, local)):
        check(remote(learner(*cells), "softmax_rows", "softmax_rows"), "softmax_rows", part="values")


def test_what_is_not_plain_costs_nothing_beside_a_right_answer(learner):
    cell = "import numba\nimport matplotlib.pyplot as plt\n%timeit -n 1 -r 1 1\nprint(open('/dev/null').read())\n"
    check(remote(learner(cell + ROWS), "softmax_rows", "softmax_rows"), "softmax_rows", part="values")
