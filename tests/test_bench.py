"""The benchmark: its arithmetic by hand, what it says of planted faults, and what it writes. No test looks at a speed,
only at whether what was made slow is called slow."""

import gc
import json
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from normlab import bench, bench_report, functional
from normlab.bench import Case, measure, time_interleaved
from normlab.learner import load

pytestmark = pytest.mark.usefixtures("one_thread")

SOFTMAX = Case("softmax", "cache", (8, 16))
TINY = [
    Case("batch_norm", "image", (4, 64, 3, 5)),
    Case("batch_norm", "image", (4, 64, 3, 5), layout="channels_last"),
    Case("batch_norm", "cache", (16, 8)),
    Case("layer_norm", "cache", (6, 40)),
    Case("instance_norm", "image", (4, 6, 5, 7)),
    Case("group_norm", "image", (4, 64, 3, 5)),
    Case("rms_norm", "cache", (6, 40)),
    SOFTMAX,
    Case("softmax", "image", (3, 7, 4, 5), dim=1),
    Case("log_softmax", "image", (3, 7, 4, 5), dim=1),
    Case("cross_entropy", "cache", (8, 16)),
    Case("cross_entropy", "image", (3, 7, 4, 5), dim=1),
]


class Clock:
    """Seconds that pass only when a contender says so."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def contender(self, name, seconds):
        def call():
            self.log.append(name)
            self.now += seconds

        return call


def test_every_op_has_four_shapes_in_each_direction_and_a_small_one():
    for op in bench.OPS:
        cases = [case for case in bench.SUITE if case.op == op]
        timed = [direction for case in cases for direction in bench.directions(case)]
        assert timed.count("backward") >= 4, op
        assert {case.size for case in cases} >= {"small", "cache", "wide", "large"}, op
        for case in cases:
            elements = np.prod(case.shape)
            assert elements == 2048 if case.size == "small" else elements >= 65536, case
        assert max(np.prod(case.shape) for case in cases) >= 16 << 20, op
    assert {op for case in bench.SUITE if case.size == "image" for op in [case.op]} >= {"batch_norm", "cross_entropy"}
    assert len(set(map(str, bench.SUITE))) == len(bench.SUITE)


def test_the_order_rotates():
    clock = Clock()
    time_interleaved({name: clock.contender(name, 0.1) for name in "abc"}, 6, clock)
    rounds = ["".join(clock.log[i : i + 3]) for i in range(9, len(clock.log), 3)]
    assert len(rounds) == 6
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert {order[-1] for order in rounds} == {order[0] for order in rounds} == {"a", "b", "c"}
    assert any("ab" in order for order in rounds)
    assert any("ba" in order for order in rounds)


def test_seconds_are_those_of_one_call_and_short_calls_are_repeated():
    clock = Clock()
    contenders = {"short": clock.contender("short", 16e-6), "long": clock.contender("long", 8e-3)}
    times, errors = time_interleaved(contenders, 5, clock)
    assert times == {"short": pytest.approx([16e-6] * 5), "long": pytest.approx([8e-3] * 5)}
    assert not errors
    assert clock.log.count("short") == 3 + 5 * (1 + 13)  # 13 calls of 16 us are the first to last 200 us
    assert clock.log.count("long") == 3 + 5  # too long to be worth an untimed call before each sample


def test_long_cases_get_fewer_rounds():
    clock = Clock()
    times, _ = time_interleaved({"a": clock.contender("a", 1.0)}, 100, clock)
    assert len(times["a"]) == bench.FEWEST_ROUNDS


@pytest.mark.parametrize("failing_call", [1, 9])
@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_one_that_raises_is_dropped_and_the_others_go_on(failing_call, error):
    clock, seen = Clock(), []

    def bad():
        seen.append(clock.contender("bad", 0.01)())
        if len(seen) == failing_call:
            raise error("no")

    times, errors = time_interleaved({"good": clock.contender("good", 0.01), "bad": bad}, 20, clock)
    assert list(times) == ["good"]
    assert len(times["good"]) == 20
    assert isinstance(errors["bad"], error)


def test_no_garbage_is_collected_while_timing():
    assert gc.isenabled()
    collecting = []
    time_interleaved({"a": lambda: collecting.append(gc.isenabled())}, 1)
    assert not any(collecting)
    assert gc.isenabled()


def test_what_is_waited_for_counts():
    clock = Clock()
    pending = []

    def wait():
        clock.now += sum(pending)
        pending.clear()

    times, _ = time_interleaved({"a": lambda: pending.append(0.5)}, 5, clock, wait)
    assert times["a"] == [0.5] * 5


def test_numbers_of_a_row():
    times = {
        "normlab": [1.0, 2.0, 4.0],
        "eager": [2.0, 2.0, 12.0],
        "copy": [1.0, 1.0, 1.0],
        "normlab out": [2.0, 2.0, 2.0],
        "yours": [4.0, 4.0, 4.0],
    }
    row = bench.numbers(times, compulsory_bytes=300, copied_bytes=100)
    assert row["rounds"] == 3
    assert row["seconds"]["normlab"] == [1.5, 2.0, 3.0]
    assert row["ratios"] == {"eager": [1.5, 2.0, 2.5], "yours": [0.5, 0.5, 1.75]}  # of 2, 1, 3 and of 1/2, 1/2, 3
    assert row["above_us"] == {"eager": [-4.5e6, -1e6, -0.5e6]}  # of -1, 0, -8 seconds
    assert row["of_copy"] == {"normlab": 0.75, "normlab out": 0.75}  # 300 bytes in 2 s, beside 200 in 1 s


@pytest.mark.parametrize(
    ("case", "forward", "backward"),
    [
        (Case("softmax", "cache", (8, 16)), 2 * 512, 3 * 512),
        (Case("layer_norm", "cache", (8, 16)), 2 * 512 + 2 * 64, 3 * 512 + 3 * 64),
        (Case("rms_norm", "cache", (8, 16)), 2 * 512 + 64, 3 * 512 + 2 * 64),
        (Case("batch_norm", "cache", (8, 16)), 2 * 512 + 2 * 64, 3 * 512 + 3 * 64),
        (Case("cross_entropy", "cache", (8, 16)), 512 + 64 + 4, 2 * 512 + 64 + 4),
    ],
    ids=str,
)
def test_compulsory_bytes(case, forward, backward):
    t = bench.draw(case, torch.float32)
    assert bench.compulsory(t, "forward") == forward
    assert bench.compulsory(t, "backward") == backward


def _row(where, size, ratio, share):
    return {
        "op": "softmax",
        "direction": "forward",
        "where": where,
        "dtype": "float32",
        "size": size,
        "wrong": None,
        "ratios": {"eager": [ratio, ratio, ratio]},
        "of_copy": {"normlab out": share},
    }


def test_the_summary_lists_what_is_slower_and_leaves_small_calls_out():
    rows = [_row("a", "cache", 4.0, 0.1), _row("b", "large", 0.5, 0.9), _row("c", "large", 4.0, 0.7)]
    found = bench_report.summary([*rows, _row("d", "small", 0.001, 0.01), {"size": "large", "wrong": "is wrong"}])
    assert found["ratios"]["eager"] == {
        "geometric_mean": pytest.approx(2.0),
        "count": 3,
        "below_1": {"softmax forward b float32": [0.5, 0.5, 0.5]},
    }
    assert found["of_copy"] == {"normlab out": {"lowest": 0.7, "of": "softmax forward c float32", "highest": 0.9}}


@pytest.mark.parametrize("dtype", bench.DTYPES)
@pytest.mark.parametrize("case", TINY, ids=str)
def test_pytorch_itself_is_right_and_a_little_off_is_wrong(case, dtype):
    t = bench.draw(case, getattr(torch, dtype))
    right = bench.right_answers(case, t)
    values = bench.answers(getattr(torch.nn.functional, case.op), case, t)
    assert bench.fault(values, right) is None
    assert [name for name, *_ in right] == ["y", "dx", "dweight", "dbias"][: len(values)]
    for i, (name, truth, allowed) in enumerate(right):
        assert allowed < (1e-3 if dtype in ("float32", "float64") else 0.5) * np.abs(truth).max()
        moved = [v.double() for v in values]
        moved[i] = moved[i] + 2.1 * allowed
        assert name in bench.fault(moved, right)
        moved[i] = moved[i] * np.nan
        assert name in bench.fault(moved, right)


def test_a_wrong_shape_or_number_of_answers_is_wrong():
    right = [("y", np.zeros((2, 3)), 1.0)]
    assert "shape (3, 2)" in bench.fault([np.zeros((3, 2))], right)
    assert "2 arrays instead of 1" in bench.fault([np.zeros((2, 3))] * 2, right)


@pytest.mark.parametrize("case", TINY, ids=str)
def test_all_contenders_are_timed(case, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    rows, notes = measure(case, "float32", 2, compile=True)
    assert notes == []
    assert [row["direction"] for row in rows] == ["forward", "backward"]
    forward, backward = ({name.replace(" out", "_out") for name in row["seconds"]} for row in rows)
    assert backward == {"normlab", "eager", "compile", "copy"}
    outs = {"normlab_out", "compile_out"} if case.op != "cross_entropy" else set()
    outs |= {"eager_out"} if case.op in ("softmax", "log_softmax", "batch_norm") else set()
    assert forward == backward | outs
    assert all(row["rounds"] == 2 and row["wrong"] is None for row in rows)


def test_every_out_holds_the_answer():
    for case in TINY:
        t = bench.draw(case, torch.float32)
        functions = {"normlab": getattr(functional, case.op), "eager": getattr(torch.nn.functional, case.op)}
        contenders = bench.forward_contenders(case, t, functions)
        (_, truth, allowed), *_ = bench.right_answers(case, t)
        outs = {name: call for name, call in contenders.items() if name.endswith("out")}
        for name, call in outs.items():
            out = call.keywords["out"]
            assert out.data_ptr() == outs["normlab out"].keywords["out"].data_ptr()
            out.fill_(0)
            call()
            assert np.abs(out.double().numpy() - truth).max() <= allowed, (case, name)


def test_running_statistics_are_nobody_elses():
    t = bench.draw(TINY[0], torch.float32)
    contenders = bench.calls(TINY[0], t, dict.fromkeys("abc", torch.nn.functional.batch_norm))
    means = [call.args[1] for call in contenders.values()]
    contenders["a"]()
    assert len({mean.data_ptr() for mean in means}) == 3
    assert not t.mean.any()


def test_small_inputs_are_timed_with_and_without_a_graph():
    rows, _ = measure(Case("softmax", "small", (32, 64)), "float32", 5, compile=False)
    assert [row["direction"] for row in rows] == ["forward", "recording"]
    assert all("eager" in row["above_us"] for row in rows)


def test_recording_records_and_forward_does_not(monkeypatch):
    recorded = []

    def spy(contenders, rounds):
        recorded.append((torch.is_grad_enabled(), contenders["normlab"]().requires_grad))
        return {"normlab": [1.0]}, {}

    monkeypatch.setattr(bench, "time_interleaved", spy)
    measure(Case("softmax", "small", (32, 64)), "float32", 1, compile=False)
    assert recorded == [(False, False), (True, True)]


def test_torch_compile_that_fails_is_said_and_the_rest_is_timed(monkeypatch):
    def failing(function, dynamic):
        def call(*args):
            raise RuntimeError("no such lowering\nand a long story")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    rows, notes = measure(SOFTMAX, "float32", 2, compile=True)
    assert "torch.compile, softmax (8, 16) forward: RuntimeError (no such lowering)." in notes
    assert "torch.compile, softmax (8, 16) backward: RuntimeError (no such lowering)." in notes
    assert all("eager" in row["ratios"] and "compile" not in row["ratios"] for row in rows)


def test_without_a_compiler_torch_compile_is_left_out(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    assert bench.no_compiler() == "there is no C++ compiler (no-such-compiler)"
    monkeypatch.setenv("CXX", f"{sys.executable} -x")
    assert bench.no_compiler() is None


# ---- Planted faults --------------------------------------------------------------------------------------------------


def _bench(capsys, *options):
    """(exit status, the report, what stood on stderr) of a short run of softmax."""
    arguments = ("--quick", "--ops", "softmax", "--shapes", "cache", "--rounds", "5", "--json", "-", *map(str, options))
    status = bench.main(arguments)
    out, err = capsys.readouterr()
    return status, json.loads(out), err


def test_a_slow_kernel_is_reported_slow(monkeypatch, capsys):
    real = functional.softmax

    def slow(*args, **kwargs):
        time.sleep(0.02)
        return real(*args, **kwargs)

    monkeypatch.setattr(functional, "softmax", slow)
    status, report, err = _bench(capsys)
    assert status == 0
    assert "softmax forward (128, 512) float32" in report["summary"]["ratios"]["eager"]["below_1"]
    assert "softmax forward (128, 512) float32" in err
    assert report["rows"][0]["ratios"]["eager"][1] < 0.5


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        return y.clone()

    @staticmethod
    def backward(ctx, dy):
        return dy * 1.001


def _wrong_y(real):
    return lambda *args, **kwargs: real(*args, **kwargs) * 1.001


def _wrong_out(real):
    return lambda *args, out=None: real(*args) if out is None else out


def _wrong_gradient(real):
    return lambda *args, **kwargs: _WrongGradient.apply(real(*args, **kwargs))


def _raising(real):
    def call(*args, **kwargs):
        raise ValueError("not today")

    return call


@pytest.mark.parametrize(
    ("plant", "directions", "words"),
    [
        (_wrong_y, ["forward", "backward"], "wrong y"),
        (_wrong_out, ["forward"], "wrong y"),
        (_wrong_gradient, ["backward"], "wrong dx"),
        (_raising, ["forward", "backward"], "ValueError (not today)"),
    ],
)
def test_a_wrong_kernel_is_reported_and_not_timed(plant, directions, words, monkeypatch, capsys):
    monkeypatch.setattr(functional, "softmax", plant(functional.softmax))
    status, report, err = _bench(capsys)
    assert status == 1
    wrong = [row for row in report["rows"] if row["wrong"]]
    assert [row["direction"] for row in wrong] == directions
    assert not any("seconds" in row or "ratios" in row for row in wrong)
    assert words in wrong[0]["wrong"]
    assert f"WRONG: softmax {directions[0]} (128, 512) float32" in err


def test_a_kernel_that_fails_later_is_wrong_too(monkeypatch, capsys):
    real, seen = functional.softmax, []

    def tired(*args, **kwargs):
        seen.append(1)
        if len(seen) > 4:
            raise ValueError("enough")
        return real(*args, **kwargs)

    monkeypatch.setattr(functional, "softmax", tired)
    status, report, _ = _bench(capsys)
    assert status == 1
    assert report["rows"][0]["wrong"] == "raises ValueError (enough) when it is timed"


# ---- A learner's file ------------------------------------------------------------------------------------------------

RIGHT = """
import numpy as np
from normlab import reference
from normlab.reference import softmax, log_softmax, cross_entropy
from normlab.reference import softmax_backward, log_softmax_backward, cross_entropy_backward

def batch_norm(x, weight, bias, eps=1e-5):
    return reference.normalize(x, "batch", weight, bias, eps)

def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    return reference.normalize(x, "layer", weight, bias, eps, normalized_shape=normalized_shape)

def instance_norm(x, weight=None, bias=None, eps=1e-5):
    return reference.normalize(x, "instance", weight, bias, eps, num_groups=x.shape[1])

def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    print("I print")
    return reference.normalize(x, "group", weight, bias, eps, num_groups=num_groups)

def rms_norm(x, normalized_shape, weight=None, eps=None):
    return reference.normalize(x, "rms", weight, None, eps, normalized_shape=normalized_shape)

def batch_norm_backward(dy, x, weight, eps=1e-5):
    return reference.normalize_backward(dy, x, "batch", weight, eps)

def layer_norm_backward(dy, x, weight, eps=1e-5):
    return reference.normalize_backward(dy, x, "layer", weight, eps)

def instance_norm_backward(dy, x, weight, eps=1e-5):
    return reference.normalize_backward(dy, x, "instance", weight, eps, num_groups=x.shape[1])

def group_norm_backward(dy, x, num_groups, weight, eps=1e-5):
    return reference.normalize_backward(dy, x, "group", weight, eps, num_groups=num_groups)

def rms_norm_backward(dy, x, weight, eps=1e-6):
    return reference.normalize_backward(dy, x, "rms", weight, eps)[:2]
"""


@pytest.fixture
def my_file(tmp_path, monkeypatch):
    """A function: source -> path of a learner's file."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "learner", raising=False)

    def write(source):
        path = tmp_path / "my_normlab.py"
        path.write_text(source)
        return path

    return write


def test_right_functions_of_a_learner_are_timed_for_every_op_and_direction(my_file, capsys):
    module, _ = load(my_file(RIGHT))
    for case in TINY:
        rows, notes = measure(case, "float32", 2, compile=False, module=module)
        assert notes == []
        for row in rows:
            reached = case.op != "cross_entropy" or len(case.shape) == 2
            assert ("yours" in row["ratios"]) == reached, row["where"]
    assert "I print" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("def softmax(x, axis=-1):\n    return x", "your softmax, (8, 16), gives a wrong y: off by"),
        ("def softmax(x, axis=-1):\n    return x[0]", "your softmax, (8, 16), gives y of shape (16,)"),
        ("def softmax(x, axis=-1):\n    return 1 / 0", "your softmax, (8, 16), raises ZeroDivisionError (division"),
        ("def softmax(x, axis=-1):\n    exit()", "your softmax, (8, 16), raises SystemExit"),
        ("def softmax(x):\n    return x", "your softmax, (8, 16), raises TypeError"),
        ("softmax = 3", "your softmax, (8, 16), raises TypeError"),
        ("def softmax(x, axis=-1):\n    return None", "your softmax, (8, 16), "),
        ("def softmax(x, axis=-1):\n    x += 1\n    return x", "your softmax, (8, 16), changes its arguments."),
        ("def softmax_backward(dy, y, axis=-1):\n    return dy", "your softmax_backward, (8, 16), gives a wrong dx"),
        ("def softmax_backward(dy, y, axis=-1):\n    return dy, y", "(8, 16), returns 2 arrays instead of 1."),
        ("def log_softmax(x, axis=-1):\n    return x", None),
    ],
)
def test_what_is_said_of_a_learners_function(source, sentence, my_file):
    rows, notes = measure(SOFTMAX, "float32", 2, compile=False, module=load(my_file(source))[0])
    assert not any("yours" in row["seconds"] for row in rows)
    assert all(row["ratios"]["eager"] for row in rows)
    assert len(notes) == (sentence is not None)
    assert sentence is None or sentence in notes[0]


def test_a_learners_function_that_raises_while_it_is_timed(my_file):
    source = RIGHT + "\nright, n = softmax, []\ndef softmax(x, axis):\n    n.append(1)\n    assert len(n) < 5\n"
    rows, notes = measure(
        SOFTMAX, "float32", 2, compile=False, module=load(my_file(source + "    return right(x, axis)\n"))[0]
    )
    assert "yours" not in rows[0]["ratios"]
    assert "yours" in rows[1]["ratios"]
    assert notes == ["eager / yours, softmax (8, 16) forward: AssertionError."]


def test_a_learners_function_that_is_too_slow(my_file, monkeypatch):
    monkeypatch.setattr(bench, "SLOW", 0.2)
    slow = "import time\n" + RIGHT + "\nright = softmax\ndef softmax(x, axis):\n    end = time.process_time() + 0.4\n"
    slow += "    while time.process_time() < end:\n        pass\n"
    module, _ = load(my_file(slow + "    return right(x, axis)\n"))
    rows, notes = measure(SOFTMAX, "float32", 2, compile=False, module=module)
    assert "yours" not in rows[0]["ratios"]
    assert "too slow" in notes[0]


def test_bfloat16_leaves_a_learners_functions_out(my_file):
    rows, notes = measure(SOFTMAX, "bfloat16", 2, compile=False, module=load(my_file(RIGHT))[0])
    assert notes == []
    assert not any("yours" in row["ratios"] for row in rows)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def softmax(:", "is not valid Python: "),
        ("raise ValueError('oh')", "ValueError (oh)"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "exits while it is imported"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_sentence(source, words, my_file, tmp_path, capsys):
    path = tmp_path / "nothing.py" if source is None else my_file(source)
    assert bench.main(["--against", str(path)]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert words in err
    assert str(path) in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_python(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert bench.main(["--against", str(tmp_path / "notes.txt")]) == 2
    assert "must end in .py" in capsys.readouterr().err


# ---- The command line ------------------------------------------------------------------------------------------------


def test_the_command_line_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "normlab.bench", "--quick", "--no-compile", "--ops", "softmax"]
    picture = tmp_path / "bench.svg"
    command += ["--shapes", "small", "--threads", "1", "--json", "-", "--picture", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["environment"]["threads"] == 1
    assert report["environment"]["copy_GB_per_s"] > 0.1
    assert report["environment"]["torch"] == torch.__version__
    assert [(row["op"], row["size"], row["direction"]) for row in report["rows"]] == [
        ("softmax", "small", "forward"),
        ("softmax", "small", "recording"),
    ]
    assert all(len(q) == 3 and q[0] <= q[1] <= q[2] for row in report["rows"] for q in row["seconds"].values())
    assert "Microseconds" in done.stderr
    assert "torch.compile is left out: --quick." in done.stderr
    assert "━━" in done.stderr
    assert "<svg" in picture.read_text()


def test_table_json_and_picture(tmp_path, capsys):
    numbers, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    options = ["--quick", "--ops", "softmax", "layer_norm", "--rounds", "2", "--dtype", "float32", "float16"]
    assert bench.main([*options, "--json", str(numbers), "--picture", str(picture)]) == 0
    out, _ = capsys.readouterr()
    report = json.loads(numbers.read_text())
    assert {(row["op"], row["dtype"]) for row in report["rows"]} == {
        (op, dtype) for op in ("softmax", "layer_norm") for dtype in ("float32", "float16")
    }
    for row in report["rows"]:
        assert row["where"] in out
        if row["size"] != "small":
            assert f"{row['ratios']['eager'][1]:.2f}" in out
    mean = report["summary"]["ratios"]["eager"]["geometric_mean"]
    assert f"torch eager: {mean:.2f}, geometric mean of 8" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ops", "dropout"], "dropout"),
        (["--shapes", "huge"], "huge"),
        (["--dtype", "int8"], "int8"),
        (["--ops", "rms_norm", "--shapes", "image"], "rms_norm have no shape that is image"),
        (["--rounds", "0"], "0 is not at least 1"),
        (["--threads", "many"], "invalid"),
        (["--picture", "bench.gif"], "must end in .png or .svg"),
        (["--json", "no/such/folder/bench.json"], "the folder of no/such/folder/bench.json does not exist"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main(arguments)
    assert words in capsys.readouterr().err


def test_importing_it_and_bad_arguments_load_nothing_heavy():
    code = "import sys, normlab.bench\nassert not {'torch', 'numba', 'rich', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
