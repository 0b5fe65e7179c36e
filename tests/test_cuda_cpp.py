"""The appendix on CUDA C++: the kernels' numbers on fibers, every rule of CUDA that the fibers watch, the record."""

import functools
import importlib
import re
import sys
from functools import partial

import numpy as np
import pytest
import torch

from normlab import cases, reference

ALL = "constexpr unsigned ALL = 0xffffffff;"
# Two rounds of the loop over a row with every tail; beyond that the tails come again, so those around a warp's edge.
LENGTHS = [*range(1, 291), *(n for n in range(291, 1100) if (n + 1) % 32 < 3), 1100]
READ = "i < length; i += THREADS)\n        top"
WRITE = "i < length; i += THREADS)\n        y["


@pytest.fixture(scope="module")
def runner(repo):
    """The module book/cuda_cpp/runner.py, imported as the page imports it."""
    sys.path.insert(0, str(repo / "book"))
    yield importlib.import_module("cuda_cpp.runner")
    sys.path.pop(0)


@pytest.fixture
def fibers(runner, system_tool):
    """The runner, where it can compile."""
    system_tool("g++")
    if runner.compiler() is None:
        pytest.skip("the fibers need Linux")
    return runner


def softmax(runner, x, seed=0):
    y = np.full_like(x, 1e30)
    runner.run(runner.read("softmax.cu"), x, y, *x.shape, seed=seed)
    return y


def layer_norm(runner, x, weight, bias, seed=0):
    y = np.full_like(x, 1e30)
    runner.run(runner.read("layer_norm.cu"), x, weight, bias, y, *x.shape, 1e-5, seed=seed)
    return y


def close(found, formula, x, is_far=False):
    """Within the tolerance rule of the formula in float64, for finite numbers."""
    far = ()
    if is_far:
        signs = np.random.default_rng(0).choice([-0.5, 0.5], x.shape)
        far = formula(x.astype(np.float64) * (1 + signs * np.finfo(np.float32).eps)), float(np.abs(x).max())
    truth, plain = formula(x.astype(np.float64)), formula(x)
    assert np.abs(found - truth).max() <= cases.tolerance(truth, plain, np.float32, *far)


# ---- Numbers ---------------------------------------------------------------------------------------------------------


def test_softmax_of_every_length(fibers):
    rng = np.random.default_rng(1)
    for length in LENGTHS:
        x = (rng.normal(size=(1 + length % 2, length)) * rng.choice([1, 30]) + rng.choice([0, 1e4])).astype(np.float32)
        close(softmax(fibers, x), reference.softmax, x)


def test_layer_norm_of_every_length(fibers):
    rng = np.random.default_rng(2)
    for length in LENGTHS:
        is_far = length % 3 == 0
        x = (rng.normal(size=(1 + length % 2, length)) + 1e4 * is_far).astype(np.float32)
        weight, bias = (a.astype(np.float32) for a in cases.affine(rng, length))
        if length == 1:  # each number is its own mean
            assert np.array_equal(layer_norm(fibers, x, weight, bias), np.broadcast_to(bias, x.shape))
            continue
        formula = partial(reference.normalize, norm="layer", weight=weight, bias=bias)
        close(layer_norm(fibers, x, weight, bias), formula, x, is_far)


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan])
@pytest.mark.parametrize("many", [1, 130, 300])
def test_what_is_not_finite(fibers, value, many):
    """NaN and zeros stand where PyTorch has them: after one such number in a row, after some, after nothing else."""
    x = np.random.default_rng(3).normal(size=(3, 300)).astype(np.float32)
    x[1, :many] = value
    weight, bias = np.float32(np.full(300, 2)), np.float32(np.ones(300))
    theirs = torch.tensor(x).double().softmax(-1).numpy()
    np.testing.assert_allclose(softmax(fibers, x), theirs, rtol=1e-5, atol=1e-9)
    theirs = torch.nn.functional.layer_norm(*(torch.tensor(a) for a in (x,)), (300,)).double().numpy() * 2 + 1
    np.testing.assert_allclose(layer_norm(fibers, x, weight, bias), theirs, rtol=1e-4, atol=1e-4)


def test_equal_numbers_have_no_variance(fibers):
    """The mean of 300 equal numbers may be rounded; what is left of it is taken out."""
    x = np.full((1, 300), 1e4 / 3, np.float32)
    assert np.abs(layer_norm(fibers, x, np.ones(300, np.float32), np.zeros(300, np.float32))).max() < 1e-6


def test_the_order_of_the_threads_changes_no_bit(fibers):
    x = np.random.default_rng(4).normal(size=(5, 777)).astype(np.float32)
    weight, bias = (a.astype(np.float32) for a in cases.affine(np.random.default_rng(5), 777))
    first = softmax(fibers, x), layer_norm(fibers, x, weight, bias)
    for seed in range(1, 6):
        assert np.array_equal(softmax(fibers, x, seed), first[0])
        assert np.array_equal(layer_norm(fibers, x, weight, bias, seed), first[1])


# ---- What is broken in the two kernels -------------------------------------------------------------------------------

# Name -> file, old text, new text, what the report says of it.
PLANTED = {
    "no barrier in block_max": ("softmax", "__syncthreads();\n    for", "for", r"shared memory \(line 14\)"),
    "no barrier in block_sum": ("softmax", "__syncthreads();\n    float", "float", r"shared memory \(line 28\)"),
    "no second barrier": (
        "layer_norm",
        "__syncthreads();  // of",
        "// of",
        r"writes shared memory \(line 13\) that thread \d+ has read \(line 17\), and no barrier",
    ),
    "a barrier for warp 0": (
        "softmax",
        "__syncthreads();\n    for",
        "if (threadIdx.x < 32) __syncthreads();\n    for",
        r"shared memory \(line 15\)",
    ),
    "threads that leave early": (
        "softmax",
        "    float top",
        "    if (threadIdx.x >= 96) return;\n    float top",
        r"Of the 128 threads of block \d only 96 have reached __syncthreads\(\) \(line 13\); thread 96 has returned\.",
    ),
    "lanes that leave early": (
        "softmax",
        "    float top",
        "    if (threadIdx.x >= 50) return;\n    float top",
        r"Thread \d+ of block \d waits in __shfl_xor_sync \(line 10\) .* names lane 18 too; but thread 50 has returned",
    ),
    "half a mask": ("softmax", ALL, ALL.replace("ffffffff", "0000ffff"), r"mask 0x0000ffff"),
    "no tail where it reads": (
        "softmax",
        READ,
        READ.replace("length", "(length + 127) / 128 * 128"),
        r"reads x\[\d+\] \(line 39\), and x has 600 elements",
    ),
    "no tail where it writes": (
        "softmax",
        WRITE,
        WRITE.replace("length", "(length + 127) / 128 * 128"),
        r"Block \d writes y\[\d+\] \(line 48\) that block \d has written \(line 48\), and blocks run in any order"
        r"|reads x\[\d+\] \(line 48\), and x has 600 elements",
    ),
    "no step": ("softmax", READ, READ.replace("i += THREADS", "i += 0"), "does not come to an end"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_every_broken_kernel_is_reported(fibers, name):
    file, old, new, said = PLANTED[name]
    source = fibers.replace(fibers.read(f"{file}.cu"), old, new)
    x = np.random.default_rng(6).normal(size=(2, 300)).astype(np.float32)
    between, after = ((x[0].copy(), x[1].copy()), (1e-5,)) if file == "layer_norm" else ((), ())
    for seed in range(1 if name == "no step" else 4):
        with pytest.raises(fibers.Broken, match=said) as broken:
            fibers.run(source, x, *between, np.zeros_like(x), *x.shape, *after, seed=seed)
        for number, text in re.findall(r"^ +(\d+): (.+)$", str(broken.value), re.MULTILINE):
            assert source.splitlines()[int(number) - 1].strip() == text


# ---- Every rule, in a few lines of CUDA ------------------------------------------------------------------------------

# Name -> threads of each of two blocks, the lines of a kernel (me: threadIdx.x), and the report; None if there is none.
RULES = {
    "write, then read": (64, "parts[me] = me; y[me] = parts[me ^ 32];", "has written|yet"),
    "write, barrier, read": (64, "parts[me] = 1; __syncthreads(); if (!b) y[me] = parts[me ^ 32];", None),
    "two writers": (64, "parts[me / 2] = 1;", r"writes shared memory .* that thread \d+ has written"),
    "read, then write": (
        64,
        "parts[me] = 1; __syncthreads(); float v = parts[me ^ 32]; parts[me] = v;",
        r"that thread \d+ has (read|written)",
    ),
    "the second of two readers": (
        96,
        "parts[me] = 1; __syncthreads(); float v = parts[0]; if (me == 95 && v) parts[0] = 2;",
        r"that thread \d+ has read",
    ),
    "two readers, of whom one writes": (
        64,
        "parts[me] = 1; __syncthreads(); float v = 0; if (me == 0 || me >= 32) v = parts[0];"
        "__syncwarp(); if (me == 0) parts[0] = v;",
        r"that thread \d+ has (read|written)",
    ),
    "lanes with a barrier of the warp": (
        32,
        "parts[me] = 1; __syncwarp(); float v = parts[me ^ 1]; __syncwarp(); parts[me] = v;",
        None,
    ),
    "lanes with a barrier of half the warp": (
        32,
        "parts[me] = 1; __syncwarp(me < 16 ? 0xffffu : 0xffff0000u); float v = parts[me ^ 16];",
        "has written|yet",
    ),
    "a barrier of the warp is one of the others' too": (
        32,
        "if (me == 0) parts[0] = 1; if (me < 2) __syncwarp(3); if (me > 0 && me < 3) __syncwarp(6);"
        "if (me == 2 && !b) y[0] = parts[0];",
        None,
    ),
    "another warp": (64, "parts[me] = 1; __syncwarp(); float v = parts[me ^ 32];", "has written|yet"),
    "a shuffle is no barrier": (
        32,
        "parts[me] = 1; __shfl_xor_sync(0xffffffff, 1, 1); float v = parts[me ^ 1];",
        "has written",
    ),
    "never written": (32, "float v = parts[40]; if (!b) y[me] = v;", "no thread of the block has written yet"),
    "of the block before": (
        32,
        "if (me < 1 && b == first) parts[0] = 1; __syncthreads(); if (b != first && parts[0]) y[0] = 1;",
        "yet",
    ),
    "past the end of shared memory": (32, "parts[(1 << 14) + me] = 1;", "outside of shared memory"),
    "before the beginning": (32, "y[-1 - int(me)] = 1;", r"writes y\[-\d+\] .*, and y has 64 elements"),
    "a null pointer": (32, "float *p = nullptr; p[me] = 1;", "that belongs to no array"),
    "the stack of another thread": (
        32,
        "float own = me; float *p = &own; if (me) p -= 1 << 14; *p = 1;",
        "that belongs to no array|elements",
    ),
    "one y for two blocks": (32, "if (me == 0) y[0] = b;", r"Block \d writes y\[0\] .* that block \d has written"),
    "a block reads what another wrote": (
        32,
        "if (me == 0) { if (b) y[0] = 1; else y[1] = y[0]; }",
        r"Block \d (reads|writes) y\[0\] .* that block \d has (read|written)",
    ),
    "two blocks add": (32, "if (me == 0) y[0] += 1;", r"Block \d reads y\[0\] .* that block \d has written"),
    "two blocks add atomically": (32, "atomicAdd(&y[0], 1.0f);", None),
    "atomics and others": (32, "if (b == first) atomicAdd(&y[0], 1.0f); else if (me == 0) y[0] = 2;", "y\\[0\\]"),
    "two barriers that are not one": (
        64,
        "if (me < 32)\n__syncthreads();\nelse\n__syncthreads();",
        r"only 32 have reached __syncthreads\(\) \(line \d+\); thread \d+ waits at __syncthreads\(\) \(line \d+\)",
    ),
    "one barrier more for some": (
        64,
        "for (int i = 0; i < 1 + int(me < 32); i++) __syncthreads();",
        "thread 32 has ret",
    ),
    "a barrier against a shuffle": (
        32,
        "if (me < 16) __syncthreads();\nelse __shfl_xor_sync(0xffffffff, 1, 1);",
        r"waits in __shfl_xor_sync \(line \d+\) .*; but thread \d+ waits at __syncthreads\(\)",
    ),
    "a lane that is not asked": (
        32,
        "if (me != 7) __shfl_sync(0xffffffff, 1, 0);",
        "names lane 7 too; but thread 7 has returned",
    ),
    "other masks": (
        32,
        "__shfl_xor_sync(me < 16 ? 0xffffffff : 0xffff0000, 1, 1);",
        r"waits in __shfl_xor_sync \(line \d+\) with mask 0x",
    ),
    "two shuffles that are not one": (
        32,
        "if (me < 16) __shfl_xor_sync(0xffffffff, 1, 1);\nelse __shfl_xor_sync(0xffffffff, 1, 1);",
        r"but thread \d+ waits in __shfl_xor_sync",
    ),
    "a mask without its owner": (32, "__shfl_xor_sync(0x0000ffff, 1, 1);", r"does not name its own lane \d+"),
    "a mask without the source": (
        32,
        "if (me < 16) __shfl_down_sync(0x0000ffff, 1, 1);",
        "value of lane 16, which the mask 0x0000ffff does not name",
    ),
    "half a warp, and a mask that says so": (32, "if (me < 16) __shfl_xor_sync(0x0000ffff, 1, 1);", None),
    "a block that ends within a warp": (
        48,
        "__shfl_xor_sync(0xffffffff, 1, 1);",
        "names lane 16 too; but thread 48 does not exist",
    ),
    "a width that is no power of two": (32, "__shfl_xor_sync(0xffffffff, 1, 1, 12);", "power of two"),
    "waiting for a flag": (64, "while (me > 0 && b < 9) ;", "does not come to an end"),
    "too many threads": (1025, "", "A block has 1 to 1024 threads, and not 1025"),
    "no threads": (0, "", "A block has 1 to 1024 threads, and not 0"),
}


@functools.cache
def rules(runner):
    """One source of all RULES: the number of a rule says which kernel is launched."""
    kernels, launches = "", ""
    for number, (threads, lines, _) in enumerate(RULES.values()):
        kernels += (
            f"__global__ void rule{number}(float *y, int first) {{\n"
            f"__shared__ float parts[96]; unsigned me = threadIdx.x; int b = blockIdx.x; (void)first;\n{lines}\n}}\n"
        )
        launches += f"if (rule == {number}) rule{number}<<<2, {threads}>>>(y, first);\n"
    return kernels + f'extern "C" void rules(float *y, int rule, int first) {{\n{launches}}}\n'


@pytest.mark.parametrize("name", RULES)
def test_rules(fibers, name):
    said = RULES[name][2]
    for seed in range(1 if said and "end" in said else 5):
        for first in (0, 1):  # the block that runs first depends on the seed
            y, reports = np.zeros(64, np.float32), []
            try:
                fibers.run(rules(fibers), y, list(RULES).index(name), first, seed=seed)
            except fibers.Broken as broken:
                reports.append(str(broken))
            if "first" in RULES[name][1] and first and not reports:
                continue
            assert bool(reports) == bool(said), reports
            if said:
                assert re.search(said, reports[0]), reports[0]
    if name == "two blocks add atomically":
        assert y[0] == 64


ORDER = """
__global__ void order(float *y) { y[1 + int(atomicAdd(&y[0], 1.0f))] = blockIdx.x * 64 + threadIdx.x; }
extern "C" void in_order(float *y) { order<<<3, 64>>>(y); }
"""


def test_a_seed_permutes_blocks_and_threads(fibers):
    orders = np.zeros((4, 193), np.float32)
    for seed, y in enumerate(orders):
        fibers.run(ORDER, y, seed=seed)
        assert np.array_equal(np.sort(y[1:]), np.arange(192))
        assert (np.abs(np.diff(y[1:] // 64)) > 0).sum() == 2  # one block after the other
    assert np.array_equal(orders[0, 1:], np.arange(192))
    assert len({tuple(y) for y in orders}) == 4
    assert len({tuple(y[1::64] // 64) for y in orders}) > 1  # which block is first


WORDS = """
__global__ void words(float *y) {
    extern __shared__ float row[];
    unsigned me = threadIdx.x + threadIdx.y * blockDim.x;
    row[me] = me;
    __syncthreads();
    y[me] = row[me ^ 63];
    y[64 + me] = __shfl_sync(0xffffffff, float(me), 5);
    y[128 + me] = __shfl_down_sync(0xffffffff, float(me), 3);
    y[192 + me] = __shfl_up_sync(0xffffffff, float(me), 3);
    y[256 + me] = __shfl_xor_sync(0xffffffff, double(me), 9);
    y[320 + me] = __shfl_down_sync(0xffffffff, float(me), 3, 8);
    y[384 + me] = __shfl_sync(0xffffffff, float(me), 9, 8);
    y[448 + me] = blockDim.x * 100 + gridDim.x * 10 + warpSize;
    y[512 + me] = rsqrtf(4.0f + me) + __expf(0.0f) + max(int(me), 3);
}
extern "C" void all_words(float *y) { words<<<1, dim3(16, 4), 64 * sizeof(float)>>>(y); }
"""


def test_words_of_cuda(fibers):
    """Shuffles with and without a width, dynamic shared memory, a block of two dimensions."""
    y = np.zeros(576, np.float32)
    fibers.run(WORDS, y)
    me, lane = np.arange(64), np.arange(64) % 32
    right = [
        me ^ 63,
        me - lane + 5,
        np.where(lane < 29, me + 3, me),
        np.where(lane >= 3, me - 3, me),
        me ^ 9,
        np.where(lane % 8 < 5, me + 3, me),
        me // 8 * 8 + 1,
        np.full(64, 16 * 100 + 10 + 32),
        1 / np.sqrt(4 + me) + 1 + np.maximum(me, 3),
    ]
    np.testing.assert_allclose(y.reshape(9, 64), right, rtol=1e-6)
    with pytest.raises(fibers.Broken, match="outside of shared memory"):
        fibers.run(fibers.replace(WORDS, "64 * sizeof(float)", "63 * sizeof(float)"), y)


def test_what_gxx_refuses_is_said_with_the_line(fibers):
    with pytest.raises(fibers.NotCompiled, match=r"^line 37: .*flaot"):
        fibers.run(fibers.replace(fibers.read("softmax.cu"), "float top", "flaot top"), *[np.zeros((1, 1))] * 2, 1, 1)


def test_without_the_watcher_values_are_what_happens(fibers):
    """The page shows them: NaN where nothing was written yet, and no report."""
    y = np.zeros(64, np.float32)
    fibers.run(rules(fibers), y, list(RULES).index("write, then read"), 0, watch=False)
    assert np.isnan(y[:32]).all()


def test_a_readers_kernel_is_checked(fibers, tmp_path):
    """Right kernels pass; wrong values, wrong NaN and broken rules are told apart."""
    source = fibers.read("softmax.cu")
    file = tmp_path / "mine.cu"
    for text, said in {
        source: "All rows are right.",
        fibers.replace(source, "top = block_max(top);", "top = 0;"): "On rows far from zero: NaN",
        fibers.replace(source, "apart = 16", "apart = 8", 2): "On rows of 31: the values are wrong.",
        PLANTED["half a mask"][2].join(source.split(ALL)): "On rows of 1: Thread",
        "int x;": 'a .cu file has one function with extern "C", and this has 0',
    }.items():
        file.write_text(text, encoding="utf-8")
        assert fibers.main(["check", str(file)]).startswith(said)


# ---- The record, and the page ----------------------------------------------------------------------------------------


@pytest.fixture
def quiet(runner, monkeypatch):
    """The cells of the page may run here: what they show goes nowhere."""
    import figures
    from IPython import display

    monkeypatch.setattr(figures, "show", lambda *a, **k: None)
    monkeypatch.setattr(figures, "display", lambda *a: None)
    threads = torch.get_num_threads()
    yield display
    torch.set_num_threads(threads)


def test_the_record_is_what_comes_out(fibers, quiet, monkeypatch, tmp_path):
    """Run `python book/cuda_cpp/runner.py record` where this fails."""
    monkeypatch.setattr(fibers, "find", lambda tool: None if tool == "nvcc" else fibers.shutil.which(tool))
    monkeypatch.setenv(fibers.RECORDING, str(tmp_path / "fresh.json"))
    fibers.record()
    fresh, kept = fibers.load_record(tmp_path / "fresh.json"), fibers.load_record()
    assert fresh["runs"].keys() == kept["runs"].keys()
    for key, answer in fresh["runs"].items():
        assert answer["report"] == kept["runs"][key]["report"]
        for ours, theirs in zip(answer["arrays"], kept["runs"][key]["arrays"], strict=True):
            ours, theirs = (np.frombuffer(fibers.base64.b64decode(bits), np.float32) for bits in (ours, theirs))
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_without_compilers_the_page_shows_the_record_and_says_so(runner, quiet, monkeypatch, capsys):
    monkeypatch.setattr(runner, "find", lambda tool: None)
    names = {"__name__": "page"}
    for cell in runner.cells():
        exec(compile(cell, "cuda_cpp.md", "exec"), names)
    said = " ".join(capsys.readouterr().out.split())
    assert "There is no g++ here: what follows is recorded (g++ " in said
    assert "There is no nvcc here: this is recorded, with nvcc " in said
    assert "Of the 128 threads of block 0 only 64 have reached __syncthreads() (line 13)" in said
    with pytest.raises(runner.NotRecorded):
        runner.run(runner.read("lanes.cu"), np.zeros((6, 32), np.uint32), 2)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["softmax", pytest.param("layer_norm", marks=pytest.mark.exhaustive)])
def test_nvcc_compiles_the_files_as_they_are(runner, system_tool, name):
    """The CUDA toolkit: the .cu files compile for every architecture, without warnings and without spills."""
    system_tool("nvcc")
    table = runner.registers(runner.read(f"{name}.cu"))
    assert [row["architecture"] for row in table] == list(runner.ARCHITECTURES)
    assert all(row["spilled"] == 0 and 0 < row["registers"] <= 64 for row in table)
    kept = {tuple(sorted(row.items())) for answer in runner.load_record()["nvcc"].values() for row in answer["table"]}
    if all(a["version"] == runner.nvcc_version() for a in runner.load_record()["nvcc"].values()):
        assert {tuple(sorted(row.items())) for row in table} <= kept
