"""The benchmark on a GPU, without one: its whole path, from the command line to tables and JSON, on Triton's kernels in
the interpreter, with a stand-in for the GPU's clock; and the way it takes time, on a simulated GPU."""

import itertools
import json
import sys
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from normlab import bench, bench_cuda, bench_report, cuda, functional, watch
from normlab.bench import Case
from normlab.cases import tolerance

ops = pytest.importorskip("normlab.cuda.ops", reason="Triton is not installed: kernels for CUDA are not timed")

pytestmark = pytest.mark.usefixtures("one_thread")

WAYS = ("", "_forward", "_backward", "_out")
OPERATORS = {"row_norm": WAYS, "batch_norm": WAYS, "softmax": WAYS, "cross_entropy": WAYS[:3]}
HALVES = ("float16", "bfloat16")
SOFTMAX = Case("softmax", "large", (4, 40))
TINY = (
    Case("batch_norm", "large", (3, 8, 2, 5)),
    Case("batch_norm", "image", (3, 8, 2, 5), layout="channels_last"),
    Case("layer_norm", "large", (4, 40)),
    Case("instance_norm", "large", (2, 3, 5, 7)),
    Case("group_norm", "large", (2, 6, 5)),
    Case("rms_norm", "large", (4, 40)),
    SOFTMAX,
    Case("softmax", "small", (3, 5)),
    Case("log_softmax", "image", (2, 7, 3, 5), dim=1),
    Case("cross_entropy", "wide", (4, 40)),
)
SECONDS = {"normlab": 4e-6, "eager": 6e-6, "compile": 5e-6, "copy": 2e-6}
COPIED, GROUPS = 1 << 16, 2
FACTS = {
    "device": "cuda",
    "card": "Stand-in 9000",
    "capability": "9.0",
    "processors": 2,
    "memory_GB": 24.0,
    "cache_MB": 50.0,
    **dict.fromkeys(bench_cuda.ASKED),
    "driver": "999.1",
    "clock_MHz": 1500.0,
    "clock_max_MHz": 2000.0,
    "cuda": "13.0",
    "triton": "3.7",
    "date": "2026-01-02",
    "variables": {},
}


class StandIn:
    """A GPU of CPU tensors: every contender is called, once because the interpreter is slow, and takes SECONDS."""

    def __init__(self, room=1 << 40):
        self.timed = []
        self.device = bench.Device(
            name="cuda",
            tensors="cpu",
            timer=self.timer,
            places=(0.2, 0.5, 0.8),
            describe=lambda: dict(FACTS),
            room=lambda: room,
            why_not_compile=lambda: None,
        )

    def timer(self, contenders, rounds, small):
        self.timed.append((sorted(contenders), small, torch.is_grad_enabled()))
        names = {id(call): name for name, call in contenders.items()}
        counts = dict.fromkeys(contenders, 0)

        def stopwatch(call):
            name = names[id(call)]
            if counts[name] == 0:
                call()
            counts[name] += 1
            return SECONDS[name] * (1 + counts[name] % 2)  # rounds 4, 5, 6, ...: once, twice, once, ...

        return bench.time_interleaved(contenders, rounds, stopwatch=stopwatch)


@pytest.fixture
def gpu(monkeypatch):
    """A function: tiny cases -> the stand-in that `--device cuda` finds."""

    def make(cases=TINY, **options):
        stand_in = StandIn(**options)
        monkeypatch.setitem(bench.DEVICES, "cuda", lambda: stand_in.device)
        monkeypatch.setitem(bench.SUITES, "cuda", cases)
        monkeypatch.setitem(bench.COPIED, "cuda", COPIED)
        monkeypatch.setattr(bench, "GROUPS", GROUPS)
        return stand_in

    return make


@pytest.fixture
def launched(monkeypatch):
    """normlab.functional as on a GPU, its operators answered by Triton's kernels; gives what was launched."""
    library = torch.library.Library("normlab", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an operator is overridden is what is wanted
        for op, ways in OPERATORS.items():
            for way in ways:
                library.impl(op + way, _answered_by(op + (way or "_forward")), "CPU", allow_override=True)
    monkeypatch.setattr(functional, "_eager", lambda *tensors: False)
    with watch.watched() as seen:
        yield seen.launches
    library._destroy()


def _answered_by(name):
    return lambda *args, **kwargs: getattr(ops, name)(*args, **kwargs)


def _main(capsys, *options):
    """(exit status, the report, what stood on stderr)."""
    status = bench.main(["--device", "cuda", "--rounds", "3", "--json", "-", *options])
    out, err = capsys.readouterr()
    return status, json.loads(out), err


# ---- From the command line to tables and JSON ------------------------------------------------------------------------


def test_every_op_from_the_command_line_to_tables_and_json(gpu, launched, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    stand_in = gpu()
    status, report, err = _main(capsys)
    assert status == 0, err
    assert report["notes"] == []
    assert [(row["op"], row["where"], row["direction"]) for row in report["rows"]] == [
        (case.op, case.where, direction) for case in TINY for direction in bench.directions(case)
    ]
    for op in ("norm_rows", "norm_groups", "pool_statistics", "softmax_rows", "softmax_columns", "cross_entropy"):
        assert {op} <= {launch["kernel"].removesuffix("_backward") for launch in launched}, op

    # What was timed, and what came of it, by hand: 3 rounds of 4, 8 and 4 us are 4 us, and 8 less 2/5 of a step.
    (first, *_), speed = stand_in.timed, 2 * COPIED / 3e-6
    assert first == (["copy"], False, True)
    for row, (names, small, recording) in zip(report["rows"], stand_in.timed[1:], strict=True):
        assert small == (row["size"] == "small")
        assert recording == (row["direction"] == "recording")
        assert set(names) == SECONDS.keys() - ({"copy"} if recording else set())
        assert row["seconds"]["normlab"] == pytest.approx([4e-6, 4e-6, 6.4e-6])
        assert row["ratios"]["eager"] == pytest.approx([1.5, 1.5, 1.5])
        assert row["ratios"]["compile"] == pytest.approx([1.25, 1.25, 1.25])
        if not small:
            assert row["of_copy"] == {"normlab": pytest.approx(row["bytes"] / 4e-6 / speed)}
    assert report["environment"]["copy_GB_per_s"] == pytest.approx(speed / 1e9)
    assert report["environment"].items() >= FACTS.items()
    assert report["environment"]["torch"] == torch.__version__

    assert "Stand-in 9000: compute capability 9.0, 2 processors, 24 GB, cache 50 MB; copy 44 GB/s" in err
    assert "Driver 999.1, CUDA 13.0, Triton 3.7" in err
    assert "While it copied: 1500 of 2000 MHz\n" in err
    assert "float32, Stand-in 9000" in err
    assert "normlab, us" in err
    assert "4.0 4.0–6.4" in err
    assert "1.50 1.50–1.50" in err
    assert "Microseconds a call on small inputs" in err
    count = sum(row["size"] != "small" for row in report["rows"])
    assert f"0 of {count} rows reach 0.90 of a copy" in err
    assert "out=" not in err


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision(dtype, gpu, launched, capsys):
    gpu(TINY[:7])
    status, report, err = _main(capsys, "--dtype", dtype, "--quick")
    assert status == 0, err
    assert {row["dtype"] for row in report["rows"]} == {dtype}
    assert launched


def test_tables_are_made_from_the_record_alone(gpu, launched, capsys):
    from rich.console import Console

    gpu([SOFTMAX])
    _, report, err = _main(capsys, "--no-compile")
    (table,) = bench_report.tables(report["rows"], report["environment"]["card"])
    cells = {column.header: next(iter(column.cells)) for column in table.columns if column.header}
    assert cells == {
        "op": "softmax",
        "shape": "(4, 40)",
        "normlab, us": "4.0 [dim]4.0–6.4[/dim]",
        "torch eager": "1.50 [dim]1.50–1.50[/dim]",
        "of copy": "0.01",
    }
    console = Console(width=180, highlight=False)
    console.print(table)
    lines = [line for line in capsys.readouterr().out.splitlines() if "softmax" in line]
    assert len(lines) == 2
    assert set(lines) <= set(err.splitlines())


def test_quick_runs_one_shape_an_op_without_torch_compile(gpu, launched, monkeypatch, capsys):
    gpu([*TINY[:2], TINY[2], Case("layer_norm", "large", (6, 40))])
    monkeypatch.setattr(torch, "compile", None)
    _, report, err = _main(capsys, "--quick", "--ops", "batch_norm", "layer_norm")
    assert [(row["op"], row["where"]) for row in report["rows"]] == [
        ("batch_norm", "(3, 8, 2, 5)"),
        ("batch_norm", "(3, 8, 2, 5)"),
        ("layer_norm", "(4, 40)"),
        ("layer_norm", "(4, 40)"),
    ]
    assert "torch.compile is left out: --quick." in err
    assert {case.op for case in bench.selected(bench.OPS, None, True, "cuda")} == {"batch_norm", "layer_norm"}


def test_the_goal_counts_all_rows_but_small_ones_and_lists_the_lowest():
    def row(where, share, size="image"):
        row = {"op": "softmax", "direction": "forward", "where": where, "dtype": "float32", "size": size}
        return row | {"wrong": None, "ratios": {}, "of_copy": {"normlab": share}}

    rows = [row("a", 0.89), row("b", 0.9), row("c", 0.2), row("d", 0.1, "small"), {"size": "wide", "wrong": "is"}]
    goal = bench_report.summary(rows, 0.9)["goal"]
    assert list(goal["below"].items()) == [("softmax forward c float32", 0.2), ("softmax forward a float32", 0.89)]
    assert (goal["count"], goal["reached"]) == (3, 1)
    many = {"share": 0.9, "count": 20, "reached": 5, "below": {str(i): i / 100 for i in range(15)}}
    lines = list(bench_report._goal(many))
    assert lines[:2] == ["5 of 20 rows reach 0.90 of a copy", "    0.000  0"]
    assert lines[-1] == "    and 3 more"
    assert len(lines) == 14


# ---- What goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "directions"), [("softmax_forward", ["forward", "backward"]), ("softmax_backward", ["backward"])]
)
def test_a_wrong_kernel_is_reported_and_never_timed(operator, directions, gpu, launched, monkeypatch, capsys):
    right = getattr(ops, operator)
    monkeypatch.setattr(ops, operator, lambda *args: right(*args) * 1.001)
    stand_in = gpu([SOFTMAX])
    status, report, err = _main(capsys, "--no-compile")
    assert status == 1
    wrong = [row for row in report["rows"] if row["wrong"]]
    assert [row["direction"] for row in wrong] == directions
    assert not any("seconds" in row or "ratios" in row for row in wrong)
    assert len(stand_in.timed) == 1 + 2 - len(directions)
    assert f"WRONG: softmax {directions[0]} (4, 40) float32 gives a wrong {'y' if len(directions) > 1 else 'dx'}" in err


def test_a_kernel_that_does_not_write_to_out_is_wrong(gpu, launched, monkeypatch, capsys):
    gpu([SOFTMAX])
    right = functional.softmax
    monkeypatch.setattr(functional, "softmax", lambda *args, out=None: right(*args) if out is None else out)
    status, report, _ = _main(capsys, "--no-compile")
    assert status == 1
    assert [bool(row["wrong"]) for row in report["rows"]] == [True, False]


def test_a_contender_that_raises_becomes_a_note(gpu, launched, monkeypatch, capsys):
    def missing(function, dynamic):
        def call(*args):
            raise RuntimeError("no such lowering\nand a long story")

        return call

    monkeypatch.setattr(torch, "compile", missing)
    gpu([SOFTMAX])
    status, report, err = _main(capsys)
    assert status == 0
    for direction in ("forward", "backward"):
        assert f"torch.compile, softmax (4, 40) {direction}: RuntimeError (no such lowering)." in err
    assert all(sorted(row["seconds"]) == ["copy", "eager", "normlab"] for row in report["rows"])


def test_a_case_that_the_memory_cannot_hold_is_left_out_and_named(gpu, launched, capsys):
    gpu([Case("softmax", "large", (4, 1000)), SOFTMAX], room=100_000)
    status, report, err = _main(capsys, "--no-compile")
    assert status == 0
    assert {row["where"] for row in report["rows"]} == {"(4, 40)"}
    assert "softmax (4, 1000) float32 is left out: it takes 0.0 GB of the GPU's memory, 0.0 GB are free." in err


@pytest.mark.parametrize(
    ("error", "status", "cases", "sentence"),
    [
        (torch.OutOfMemoryError("no"), 0, 1, "softmax (4, 40) float32 is left out: the GPU's memory is too small."),
        (torch.AcceleratorError("illegal"), 1, 0, "what follows was not run: AcceleratorError (illegal)."),
    ],
    ids=["memory", "context"],
)
def test_a_gpu_that_gives_up(error, status, cases, sentence, gpu, launched, monkeypatch, capsys):
    gpu([SOFTMAX, TINY[2]])
    right_answers = bench.right_answers

    def failing(case, *args):
        if case == SOFTMAX:
            raise error
        return right_answers(case, *args)

    monkeypatch.setattr(bench, "right_answers", failing)
    found, report, err = _main(capsys, "--no-compile")
    assert found == status
    assert len(report["rows"]) == 2 * cases
    assert sentence in err


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cuda.why_not.cache_clear()
    yield
    cuda.why_not.cache_clear()


def test_without_a_gpu_one_sentence(no_card, capsys):
    assert bench.main(["--device", "cuda"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err == "Nothing can be timed on a GPU here. PyTorch finds no CUDA GPU here.\n"


@pytest.mark.parametrize(
    ("compiler", "words"),
    [(None, "there is none (gcc or clang)."), ("no-such-compiler", "there is none (no-such-compiler).")],
)
def test_without_a_c_compiler_one_sentence(compiler, words, monkeypatch, capsys):
    monkeypatch.setattr(bench_cuda.cuda, "why_not", lambda: None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    if compiler:
        monkeypatch.setenv("CC", compiler)
    assert bench.main(["--device", "cuda"]) == 2
    assert capsys.readouterr().err.endswith(words + "\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dtype", "float32", "float64"], "float64 on cuda is not timed: the kernels leave it to PyTorch"),
        (["--against", "my_normlab.py"], "--against is for the cpu"),
        (["--shapes", "cache", "--ops", "softmax"], "softmax have no shape that is cache"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main(["--device", "cuda", *arguments])
    assert words in capsys.readouterr().err


# ---- What is run, and held against what ------------------------------------------------------------------------------


def test_the_shapes():
    assert len(set(map(str, bench.SUITE_CUDA))) == len(bench.SUITE_CUDA)
    for case in bench.SUITE_CUDA:
        elements = np.prod(case.shape)
        assert elements == 2048 if case.size == "small" else 64e6 <= 2 * elements < 4 * elements <= 1 << 30, case
        assert case.op != "group_norm" or case.shape[1] % bench.GROUPS == 0
    for op in bench.OPS:
        assert {case.size for case in bench.SUITE_CUDA if case.op == op} >= {"small", "large", "wide"}, op
    longest = {op: max(c.shape[c.dim] for c in bench.SUITE_CUDA if c.op == op and c.dim == -1) for op in bench.OPS}
    assert {longest[op] for op in bench.OPS if op not in ("group_norm", "batch_norm", "instance_norm")} == {262144}
    assert {c.op for c in bench.SUITE_CUDA if c.layout} == {"batch_norm"}
    assert min(c.shape[1] for c in bench.SUITE_CUDA if c.op == "cross_entropy" and c.size == "wide") >= 32000


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
@pytest.mark.parametrize("case", TINY, ids=str)
def test_pytorch_itself_is_right_and_a_little_off_is_wrong(case, dtype, monkeypatch):
    monkeypatch.setattr(bench, "GROUPS", GROUPS)
    t = bench.draw(case, getattr(torch, dtype))
    right = bench.right_answers(case, t, on_gpu=True)
    values = bench.answers(getattr(torch.nn.functional, case.op), case, t)
    assert bench.fault(values, right) is None
    for i, (name, truth, allowed) in enumerate(right):
        assert isinstance(truth, torch.Tensor)
        assert allowed < (1e-3 if dtype == "float32" else 0.5) * truth.abs().max()
        moved = [v.double() for v in values]
        moved[i] = moved[i] + 2.1 * allowed
        assert name in bench.fault(moved, right)
        moved[i] = moved[i] * np.nan
        assert name in bench.fault(moved, right)
        moved[i] = moved[i].unsqueeze(0)
        assert f"{name} of shape (1," in bench.fault(moved, right)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_two_numbers_allow_the_same_error_as_all_of_them(dtype):
    random = np.random.default_rng(0)
    truth = random.standard_normal(1000)
    formula = (truth + 1e-5 * random.standard_normal(1000)).astype(np.float32)
    two = bench.extremes(torch.tensor(truth), torch.tensor(formula))
    assert tolerance(*two, dtype) == tolerance(truth, formula, dtype) > 1e-4


def test_batch_norm_in_half_precision_has_float32_weights_on_a_gpu(gpu, monkeypatch):
    class DrawnError(Exception):
        pass

    def drawing(*args):
        raise DrawnError(draw(*args))

    draw, drawn = bench.draw, []
    monkeypatch.setattr(bench, "draw", drawing)
    for case in (TINY[0], TINY[2]):
        with pytest.raises(DrawnError) as error:
            bench.measure(case, "float16", 1, False, device=gpu().device)
        drawn.append(error.value.args[0])
    assert [(t.x.dtype, t.weight.dtype, t.mean.dtype) for t in drawn] == [
        (torch.float16, torch.float32, torch.float32),
        (torch.float16, torch.float16, torch.float16),
    ]


# ---- How time is taken: on a simulated GPU ---------------------------------------------------------------------------


class Simulated:
    """A computer and its GPU, which works off a queue. It stands in for `torch`; `perf_counter` is the computer's."""

    flush, l2 = 100e-6, 50 << 20

    def __init__(self):
        self.now, self.free, self.flushed, self.work = 0.0, 0.0, 0, []
        self.float32, self.uint8 = None, None
        self.cuda = SimpleNamespace(
            get_device_properties=lambda: SimpleNamespace(
                L2_cache_size=self.l2,
                name="Simulated",
                major=9,
                minor=0,
                multi_processor_count=4,
                total_memory=24 << 30,
                uuid="1-2",
            ),
            Event=lambda enable_timing: SimpleEvent(self),
            synchronize=lambda: self.work.append("synchronize"),
            empty_cache=lambda: self.work.append("empty_cache"),
            mem_get_info=lambda: (7, 8),
        )
        self.version = SimpleNamespace(cuda="13.0")

    def perf_counter(self):
        return self.now

    def run(self, seconds):
        self.free = max(self.free, self.now) + seconds

    def empty(self, count, dtype, device):
        self.flushed = count
        return SimpleNamespace(zero_=lambda: self.work.append("flush") or self.run(self.flush))

    def randn(self, count, device):
        return SimpleNamespace(copy_=lambda x: self.work.append("copy"))

    def empty_like(self, x):
        return x

    def call(self, launching, busy):
        """A contender that Python takes so long to launch, and that keeps the GPU busy so long."""

        def call():
            self.work.append("call")
            self.now += launching
            self.run(busy)

        return call


class SimpleEvent:
    def __init__(self, gpu):
        self.gpu = gpu

    def record(self):
        self.at = max(self.gpu.free, self.gpu.now)

    def synchronize(self):
        self.gpu.now = max(self.gpu.now, self.gpu.free)

    def elapsed_time(self, end):
        return (end.at - self.at) * 1e3


@pytest.fixture
def simulated(monkeypatch):
    gpu = Simulated()
    monkeypatch.setattr(time, "perf_counter", gpu.perf_counter)
    return gpu


@pytest.mark.parametrize("launching", [5e-6, 300e-6, 1e-3])
def test_the_gpus_time_is_measured_and_not_pythons(launching, simulated):
    sample, call = bench_cuda.stopwatch(simulated), simulated.call(launching, 50e-6)
    sample(call)
    simulated.now += 1.0  # the GPU rests in between
    assert sample(call) == pytest.approx(50e-6)


def test_the_cache_is_overwritten_before_each_call(simulated):
    sample, call = bench_cuda.stopwatch(simulated), simulated.call(5e-6, 50e-6)
    simulated.work.clear()
    for _ in range(3):
        sample(call)
    assert simulated.work == ["flush", "call"] * 3
    assert simulated.flushed == 256 << 20
    simulated.l2 = 200 << 20
    bench_cuda.stopwatch(simulated)
    assert simulated.flushed == 400 << 20


def test_contenders_take_turns_under_the_stopwatch_and_are_not_repeated(simulated):
    sample = bench_cuda.stopwatch(simulated)
    contenders = {"a": simulated.call(1e-6, 10e-6), "b": simulated.call(1e-6, 20e-6)}
    clock = simulated.perf_counter
    times, errors = bench.time_interleaved(contenders, 20, clock, stopwatch=sample, warm_up=0.0)
    assert times == {"a": pytest.approx([10e-6] * 20), "b": pytest.approx([20e-6] * 20)}
    assert not errors
    assert simulated.work.count("call") == 2 * (3 + 20)
    simulated.work.clear()
    bench.time_interleaved(contenders, 1, clock, stopwatch=sample, warm_up=10e-3)
    assert 10e-3 / 120e-6 < simulated.work.count("call") < 3 * 10e-3 / 110e-6


def test_one_that_always_fails_is_not_warmed_up_for_ever():
    def bad():
        raise RuntimeError("no")

    ticks = itertools.count()
    times, errors = bench.time_interleaved({"bad": bad}, 5, lambda: float(next(ticks)), warm_up=1e9)
    assert times == {}
    assert str(errors["bad"]) == "no"


def test_kernels_are_timed_by_events_and_small_calls_by_the_clock(simulated, monkeypatch):
    monkeypatch.setattr(bench_cuda, "why_not", lambda: None)
    monkeypatch.setitem(sys.modules, "torch", simulated)
    monkeypatch.setattr(bench, "WARM_UP", 1e-3)
    device = bench.cuda_device()
    assert (device.name, device.tensors, device.places, device.room()) == ("cuda", "cuda", (0.2, 0.5, 0.8), 7)
    simulated.work.clear()
    times, _ = device.timer({"a": simulated.call(5e-6, 50e-6)}, 4, False)
    assert times == {"a": pytest.approx([50e-6] * 4)}
    assert set(simulated.work) == {"flush", "call"}
    simulated.work.clear()
    times, _ = device.timer({"a": simulated.call(5e-6, 50e-6)}, 4, True)
    assert len(times["a"]) == 4
    assert set(simulated.work) == {"synchronize", "call"}


SMI = """#!/bin/sh
echo "$@" >> "$0.asked"
echo '570.86, 1980, 1980, 2619, 2619, [N/A], 700.00, 41'
"""


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """A function: source -> path of an nvidia-smi that is found."""

    def write(source):
        program = tmp_path / "nvidia-smi"
        program.write_text(source)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return program

    return write


def test_the_card_is_described_under_load(smi, simulated, monkeypatch):
    program = smi(SMI)
    monkeypatch.setenv("TRITON_CACHE_DIR", "somewhere")
    found = bench_cuda.describe(simulated)
    assert found.keys() == FACTS.keys()
    assert (
        found.items()
        >= {
            "card": "Simulated",
            "capability": "9.0",
            "driver": "570.86",
            "clock_MHz": 1980.0,
            "power_W": None,
            "power_limit_W": 700.0,
            "temperature_C": 41.0,
        }.items()
    )
    assert found["variables"]["TRITON_CACHE_DIR"] == "somewhere"
    assert "copy" in simulated.work
    asked = program.with_name("nvidia-smi.asked").read_text()
    assert "-i GPU-1-2" in asked
    assert ",".join(bench_cuda.ASKED.values()) in asked


@pytest.mark.parametrize(
    "source", [None, "#!/bin/sh\necho No devices were found\nexit 6\n", "#!/bin/sh\nexec sleep 60\n"]
)
def test_without_an_answer_of_nvidia_smi(source, smi, simulated, monkeypatch, tmp_path):
    monkeypatch.setattr(bench_cuda, "PATIENCE", 0.2)
    monkeypatch.setenv("PATH", str(tmp_path))
    if source:
        smi(source)
    begun = time.monotonic()
    found = bench_cuda.describe(simulated)
    assert time.monotonic() - begun < 30
    assert all(found[name] is None for name in bench_cuda.ASKED)
    lines = list(
        bench_report._card(found | {"copy_GB_per_s": 1.0, "torch": "2", "python": "3", "cpu": "c", "cores": 1})
    )
    assert "Driver unknown" in lines[1]


def test_free_memory_counts_what_pytorch_holds_back(simulated):
    assert bench_cuda.room(simulated) == 7
    assert simulated.work == ["empty_cache"]


@pytest.mark.gpu
def test_on_a_gpu(capsys):
    if reason := bench_cuda.why_not():
        pytest.skip(
            f"no CUDA GPU: not checked: `bench --device cuda --quick` times every op and finds it right. {reason}"
        )
    assert bench.main(["--device", "cuda", "--quick", "--dtype", "float32", "bfloat16", "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {(row["op"], row["dtype"]) for row in report["rows"]} == {
        (op, dtype) for op in bench.OPS for dtype in ("float32", "bfloat16")
    }
    assert report["environment"]["card"] == torch.cuda.get_device_name()
    assert all(0.05 < row["of_copy"]["normlab"] < 1.5 for row in report["rows"])
