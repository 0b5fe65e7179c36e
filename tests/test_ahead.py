"""Kernels compiled ahead of time: a recorded launch is what the JIT would compile; registers, spills, widths of loads,
limits and occupancy are read rightly, each against a second source or by hand."""

import contextlib
import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="Not checked: what Triton makes of kernels.", exc_type=ImportError)

import triton.language as tl  # noqa: E402
from triton import knobs  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from normlab.cuda import ahead  # noqa: E402


@triton.jit
def copy(x, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < n, other=0), mask=i < n)


@triton.jit
def softmax(x, y, columns, BLOCK: tl.constexpr):
    j = tl.program_id(0) * columns + tl.arange(0, BLOCK)
    inside = tl.arange(0, BLOCK) < columns
    e = tl.load(x + j, mask=inside, other=-float("inf"))
    e = tl.exp(e - tl.max(e, 0))
    tl.store(y + j, e / tl.sum(e, 0), mask=inside)


@triton.jit
def transpose(x, y, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    i, j = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    tl.store(y + j * ROWS + i, tl.load(x + i * COLUMNS + j))


@triton.jit
def add_up(x, y, BLOCK: tl.constexpr):
    tl.atomic_add(y, tl.sum(tl.load(x + tl.arange(0, BLOCK)), 0))


@triton.jit
def wrong(x, BLOCK: tl.constexpr):
    tl.store(x + tl.arange(0, BLOCK), tl.arange(0, BLOCK + 1))


@triton.jit
def every(x, y, weight, n, m, eps, flag, AXIS: tl.constexpr, EXTRA: tl.constexpr = 3):
    pass


@pytest.fixture(autouse=True, scope="module")
def store(tmp_path_factory):
    """A store of our own, that begins empty: nothing is proven by what an earlier run has kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead, "STORE", tmp_path_factory.mktemp("ahead"))
        patch.delenv("TRITON_INTERPRET", raising=False)  # some other test may have set it since this file was imported
        yield ahead.STORE


@pytest.fixture
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "STORE", tmp_path / "store")
    return ahead.STORE


def launched(kernel, *args, grid=(1,), **kwargs):
    """The Launch of one kernel."""
    with ahead.recording() as launches:
        kernel[grid](*args, **kwargs)
    (launch,) = launches
    return launch


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def copies(**kwargs):
    return launched(copy, meta(4096), meta(4096), 4096, BLOCK=1024, **kwargs)


def softmaxes(block, num_warps):
    return launched(softmax, meta(block), meta(block), block, BLOCK=block, num_warps=num_warps)


# ---- Recording -------------------------------------------------------------------------------------------------------


class Driver:
    """What JITFunction.run asks of a driver before it compiles."""

    def get_current_device(self):
        return "a card that is not there"

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)


def jit_compiles(monkeypatch, kernel, args, kwargs):
    """What the JIT itself hands to its compiler for a launch: the source and the options."""
    asked = []

    def compile(source, target, options):
        asked.append((source, options))  # and None, upon which `run` ends: there is nothing to launch

    with monkeypatch.context() as patch:
        patch.setattr(driver, "_active", Driver())
        device = Driver().get_current_device()
        assert kernel.device_caches[device]  # makes the binder, and sets the kernel's `compile`
        patch.setattr(kernel, "compile", compile)
        try:
            kernel[(1,)](*args, **kwargs)
        finally:
            del kernel.device_caches[device]
    ((source, options),) = asked
    return source, options


CASES = {
    "aligned": lambda: (meta(64), meta(64), meta(64), 64, 48, 1e-5, True, 0),
    "meta, one element in": lambda: (meta(65)[1:], meta(65)[4:], meta(64, 2)[:, 1], 64, 48, 1e-5, True, 0),
    "cpu": lambda: (torch.zeros(64), torch.zeros(65)[1:], torch.zeros(64)[8:], 17, 16, 1.0, False, -1),
    "halves": lambda: (
        meta(64, dtype=torch.float16)[4:],
        meta(64, dtype=torch.bfloat16)[8:],
        meta(64, dtype=torch.int64)[2:],
        -16,
        -1,
        0.5,
        1,
        "row",
    ),
    "small and large": lambda: (meta(0), meta(1), meta(1), 1, 0, 1, 2, None),
    "long": lambda: (meta(64), meta(64), meta(64), 2**31, 2**40 + 1, 2.0**70, 2**31 - 1, tl.float32),
    "none": lambda: (meta(64), None, None, None, 2**63, 0.0, False, 0),
}


@pytest.mark.parametrize("options", [{}, {"num_warps": 16, "num_stages": 2, "EXTRA": 1, "enable_fp_fusion": False}])
@pytest.mark.parametrize("case", CASES)
def test_what_is_recorded_is_what_the_jit_would_compile(case, options, monkeypatch):
    args = CASES[case]()
    launch = launched(every, *args, **options)
    source, compiled = jit_compiles(monkeypatch, every, args, dict(options))
    assert launch.signature == source.signature
    assert launch.constexprs == source.constants
    assert launch.attributes == source.attrs
    assert ahead._source(launch).hash() == source.hash()
    assert ahead._backend(90).parse_options(dict(launch.options)).__dict__ == compiled
    assert (launch.num_warps, launch.num_stages) == (compiled["num_warps"], compiled["num_stages"])


def test_a_launch_written_out_by_hand():
    x, y = torch.zeros(65)[1:], meta(64, dtype=torch.bfloat16)
    launch = launched(every, x, y, None, 1, 2**40, 1e-5, True, "row", grid=lambda values: (values["m"] // 2**38, 2))
    assert launch.kernel == "every"
    assert launch.function is every
    assert launch.grid == (4, 2, 1)
    assert launch.arguments == ("x", "y", "weight", "n", "m", "eps", "flag", "AXIS", "EXTRA")
    none, types = "constexpr", {"x": "*fp32", "y": "*bf16", "m": "i64", "eps": "fp32", "flag": "u1"}
    assert launch.signature == dict.fromkeys(launch.arguments, none) | types
    assert launch.constexprs == {(2,): None, (3,): 1, (7,): "row", (8,): 3}
    assert launch.divisible == ("y", "m")
    assert (launch.num_warps, launch.num_stages) == (4, 3)
    assert str(launch) == (
        "test_ahead.every(x: *fp32, y: *bf16 % 16, weight=None, n=1, m: i64 % 16, eps: fp32, flag: u1, "
        "AXIS=row, EXTRA=3, num_warps=4, num_stages=3)"
    )


def test_recording_runs_nothing_and_puts_everything_back():
    run, x, y = JITFunction.run, torch.ones(64), torch.zeros(64)
    caches, seen = len(copy.device_caches), []
    with contextlib.suppress(ZeroDivisionError), ahead.recording() as outer:
        copy[(1,)](x, y, 64, BLOCK=64)
        with ahead.recording() as inner:
            copy[(2,)](x, y, 64, BLOCK=64)
        copy[(3,)](x, y, 64, BLOCK=64)
        seen = [launch.grid[0] for launch in outer], [launch.grid[0] for launch in inner]
        raise ZeroDivisionError
    assert seen == ([1, 3], [2])
    assert JITFunction.run is run
    assert not y.any()
    assert len(copy.device_caches) == caches


def test_a_launch_that_the_jit_refuses_is_refused():
    with ahead.recording() as launches:
        with pytest.raises(KeyError, match="num_wraps"):
            copy[(1,)](meta(4), meta(4), 4, BLOCK=4, num_wraps=4)
        with pytest.raises(TypeError, match="BLOCK"):
            copy[(1,)](meta(4), meta(4), 4)
        with pytest.raises(AssertionError, match="power of 2"):
            copy[(1,)](meta(4), meta(4), 4, BLOCK=4, num_warps=3)
    assert launches == []


INTERPRETS = """
import sys
sys.modules["triton"] = None
from normlab.cuda import ahead
print(ahead.why_not())
del sys.modules["triton"]
print(ahead.why_not())
try:
    with ahead.recording():
        print("recorded")
except RuntimeError as error:
    print(error)
"""


def test_why_not():
    assert ahead.why_not() is None
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETS],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    missing, interprets, refused = done.stdout.splitlines()
    assert "not installed" in missing
    assert "TRITON_INTERPRET" in interprets
    assert refused == interprets


# ---- Machine code ----------------------------------------------------------------------------------------------------


def local_bytes(counts):
    return sum(bits // 8 * n for bits, n in counts.items())


def test_every_architecture_compiles_and_alignment_is_seen(empty_store):
    aligned, shifted = copies(), launched(copy, meta(4100)[1:4097], meta(4096), 4096, BLOCK=1024)
    told = []
    builds = ahead.build_all([aligned, shifted, copies()], progress=lambda *done: told.append(done))
    assert [build.arch for build in builds] == list(ahead.ARCHITECTURES) * 2, "each once, in order"
    for build in builds[:7]:
        assert (build.loads, build.stores) == ({128: 2}, {128: 2}), build
        assert build.problems == ()
    for build in builds[7:]:
        assert (build.loads, build.stores) == ({32: 8}, {128: 2}), build
    assert told[0] == (0, 14)
    assert told[-1] == (14, 14)
    assert told == sorted(told)


def test_widths():
    def copied(dtype, shift=0, n=1024):
        x = meta(2048, dtype=dtype)
        return launched(copy, x[shift:], x[shift:], n, BLOCK=1024)

    cases = [
        (copied(torch.float64), {128: 4}),
        (copied(torch.bfloat16), {128: 1}),
        (copied(torch.bfloat16, shift=1), {16: 8}),
        (copied(torch.bfloat16, shift=8), {128: 1}),
        (copied(torch.int8, shift=1), {8: 8}),
        (copied(torch.float32, n=1023), {32: 8}),  # the mask may end anywhere
    ]
    builds = {build.launch: build for build in ahead.build_all([launch for launch, _ in cases], [90])}
    assert len(builds) == len(cases) - 1, "eight elements in is as good as none"
    for launch, widths in cases:
        build = builds[str(launch)]
        assert (build.loads, build.stores, build.atomics) == (widths, widths, 0), launch


def test_atomics():
    assert ahead.build(launched(add_up, meta(1024), meta(1), BLOCK=1024), 90).atomics == 1


def test_spills():
    """The step that the kernels keep below, and a kernel that is not given the registers that it needs."""
    starved = launched(softmax, meta(8192), meta(8192), 8192, BLOCK=8192, num_warps=8, maxnreg=24)
    fits, *spill = ahead.build_all([softmaxes(32768, 32), softmaxes(65536, 32), starved], [90])
    assert (fits.spill_stores, fits.spill_loads, fits.stack) == (0, 0, 0)
    assert (fits.local_loads, fits.local_stores) == ({}, {})
    assert fits.loads == {128: 8}
    assert fits.problems == ()
    for build in spill:
        assert build.spill_stores >= 32
        assert build.stack >= 32
        assert local_bytes(build.local_stores) == build.spill_stores, "ptxas and the machine code agree"
        assert local_bytes(build.local_loads) == build.spill_loads, "ptxas and the machine code agree"
        (problem,) = build.problems
        assert problem.startswith("softmax on sm_90: spills:")
        assert f"{build.spill_stores} bytes stored" in problem
    assert [build.registers for build in spill] == [64, 24]
    assert spill[1].launch.endswith("num_warps=8, num_stages=3, maxnreg=24)")


def test_resources_agree_with_cuobjdump(tmp_path):
    launch = softmaxes(65536, 32)
    build, (kernel, _) = ahead.build(launch, 90), ahead._compiled(launch, 90)
    (tmp_path / "cubin").write_bytes(kernel.asm["cubin"])
    done = subprocess.run(
        [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", tmp_path / "cubin"],
        capture_output=True,
        text=True,
        check=True,
    )
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", done.stdout).groups())
    assert (build.registers, build.stack) == (registers, stack)
    assert build.threads == int(re.search(r"\.reqntid (\d+)", kernel.asm["ptx"])[1]) == 1024
    # One float for each of 32 warps.
    assert build.shared == 32 * 4


def test_two_compilations_agree_and_so_do_the_two_ways_of_reading(empty_store, monkeypatch):
    """Alone in this process, and with others in another one; machine code cut out of its file, and the file itself."""
    launches = [softmaxes(1024, 4), copies()]
    together = ahead.build_all(launches, [86, 120])
    monkeypatch.setattr(ahead, "STORE", empty_store / "another")
    for launch, arch, other in [(launches[0], 120, together[1]), (launches[1], 86, together[2])]:
        build = ahead.build(launch, arch)
        assert build == other
        assert (build.kernel, build.launch, build.arch) == (launch.kernel, str(launch), arch)
        counts = ahead.count(opcode for _, opcode in ahead.opcodes(ahead.ptx_or_sass(launch, arch)))
        assert counts == {name: getattr(build, name) for name in counts}


def test_texts():
    ptx = ahead.ptx_or_sass(copies(), 90, "ptx")
    assert ".target sm_90a" in ptx
    assert ptx.count("ld.global.v4.b32") == 2
    assert "LDG.E.128" in ahead.ptx_or_sass(copies(), 90, "sass")
    with pytest.raises(ValueError, match='"ptx" or "sass"'):
        ahead.ptx_or_sass(copies(), 90, "cubin")


def test_opcodes_are_counted():
    sass = """
        .global         kernel
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P2 LDG.E.128 R4, desc[UR24][R2.64] ;
        /*0020*/              @UP1 LDG.E.LTC128B.64 R4, desc[UR24][R2.64] ;
        /*0030*/                   LDG.E.CONSTANT R4, [R2.64+0x128] ;
        /*0040*/               @P0 LDG.E.U16.STRONG.GPU R4, [R2.64] ;
        /*0050*/                   LDGSTS.E.BYPASS.LTC128B.128 [R5], [R2.64] ;
        /*0060*/                   STG.E.ENL2.256 desc[UR4][R2.64], R8, R4 ;
        /*0070*/                   STG.E.U8 desc[UR4][R2.64], R8 ;
        /*0080*/                   STL.64 [R1+0x8], R4 ;
        /*0090*/                   LDL.LU R4, [R1+0x8] ;
        /*00a0*/                   LDS.128 R4, [R1] ;
        /*00b0*/                   REDUX.SUM UR4, R4 ;
        /*00c0*/                   REDG.E.ADD.F32.FTZ.RN.STRONG.GPU desc[UR4][R2.64], R5 ;
        /*00d0*/                   NOP ;
    """
    found = ahead.opcodes(sass)
    assert [address for address, _ in found] == list(range(0, 0xE0, 16))
    assert ahead.count(opcode for _, opcode in found) == {
        "loads": {128: 2, 64: 1, 32: 1, 16: 1},
        "stores": {256: 1, 8: 1},
        "local_loads": {32: 1},
        "local_stores": {64: 1},
        "atomics": 1,
        "instructions": 13,
    }


# ---- Limits ----------------------------------------------------------------------------------------------------------


def test_too_much_shared_memory_is_flagged():
    """A tile of 128 KiB that is turned over: an SM of sm_90 has the room, the others do not."""
    launch = launched(transpose, meta(128, 256), meta(256, 128), ROWS=128, COLUMNS=256, num_warps=16)
    for build in ahead.build_all([launch], [75, 86, 90]):
        assert build.shared == 128 << 10
        flagged = [problem for problem in build.problems if "131072 bytes of shared memory" in problem]
        assert len(flagged) == len(build.problems) == (build.arch != 90)
        assert ahead.occupancy(build).blocks == (build.arch == 90)


SAMPLE = ahead.Build("kernel", "kernel()", 90, 64, 0, 0, 0, 0, 1024, 100, {128: 1}, {128: 1}, {}, {}, 0)


def sample(**changes):
    return dataclasses.replace(SAMPLE, **changes)


def test_limits_by_hand():
    assert sample().problems == ()
    assert sample().registers_of_block == 65536
    # 65 registers of 32 threads are 2080, and 9 units of 256 hold them: 2304 for each of 32 warps.
    assert sample(registers=65).registers_of_block == 73728
    (problem,) = sample(registers=65).problems
    assert problem == "kernel on sm_90: 73728 registers of a block, and an SM has 65536"
    # Five warps count as eight: 255 registers become 256.
    assert sample(registers=255, threads=160).registers_of_block == 256 * 32 * 8
    assert sample(registers=16, threads=2048).problems == (
        "kernel on sm_90: 2048 threads of a block, and 1024 is the most",
    )
    for arch, most in {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}.items():
        assert sample(arch=arch, shared=most << 10).problems == ()
        assert sample(arch=arch, shared=(most << 10) + 1).problems == (
            f"kernel on sm_{arch}: {(most << 10) + 1} bytes of shared memory, and {most << 10} is the most",
        )
    assert sample(spill_loads=4).problems == ("kernel on sm_90: spills: 0 bytes stored, 4 bytes loaded by each thread",)


@pytest.mark.parametrize(
    ("changes", "blocks", "warps", "limits"),
    [
        # 64 registers: 8 warps of each quarter's 16384, so 32 of the SM.
        ({}, 1, 32, ("registers",)),
        ({"registers": 32}, 2, 64, ("registers", "warps")),
        # 128 threads with 40 registers: 1280 a warp, 12 a quarter, 48 an SM.
        ({"registers": 40, "threads": 128}, 12, 48, ("registers",)),
        # The same 48 with three warps a block: what is left in four quarters does not make a warp.
        ({"registers": 40, "threads": 96}, 16, 48, ("registers",)),
        # Three warps with 128 registers: 4096 a warp, 4 a quarter, 16 an SM, five blocks of three.
        ({"registers": 128, "threads": 96}, 5, 15, ("registers",)),
        ({"registers": 16, "threads": 32}, 32, 32, ("blocks",)),
        ({"registers": 16, "threads": 32, "arch": 86}, 16, 16, ("blocks",)),
        ({"registers": 16, "threads": 32, "arch": 89}, 24, 24, ("blocks",)),
        ({"registers": 16, "threads": 256, "arch": 86}, 6, 48, ("warps",)),
        ({"registers": 16, "threads": 256, "arch": 75}, 4, 32, ("warps",)),
        # 100 KiB hold two blocks of 49 KiB with their KiB for the system, 64 KiB two of 32 KiB: there is none for it.
        ({"registers": 16, "threads": 128, "arch": 86, "shared": 49 << 10}, 2, 8, ("shared memory",)),
        ({"registers": 16, "threads": 128, "arch": 86, "shared": (49 << 10) + 1}, 1, 4, ("shared memory",)),
        ({"registers": 16, "threads": 128, "arch": 75, "shared": 32 << 10}, 2, 8, ("shared memory",)),
        ({"registers": 16, "threads": 128, "arch": 75, "shared": 65537}, 0, 0, ("shared memory",)),
        ({"registers": 65}, 0, 0, ("registers",)),
        ({"registers": 16, "threads": 2048}, 0, 0, ("warps",)),
    ],
)
def test_occupancy_by_hand(changes, blocks, warps, limits):
    found = ahead.occupancy(sample(**changes))
    assert (found.blocks, found.warps, found.limits) == (blocks, warps, limits)
    assert found.share == warps / {75: 32, 86: 48, 89: 48, 90: 64}[changes.get("arch", 90)]


# ---- The store, and what goes wrong ----------------------------------------------------------------------------------


def test_what_was_built_is_not_built_again(empty_store, monkeypatch):
    asked = []

    def builds(launches, arch):
        asked.append(arch)
        return [sample(arch=arch, kernel=launch.kernel, local_loads={64: 2, 32: 1}) for launch in launches]

    monkeypatch.setattr(ahead, "_builds", builds)
    built = ahead.build(copies(), 90)
    assert ahead.build(copies(), 90) == built
    assert asked == [90]
    (kept,) = empty_store.iterdir()
    for damage in (kept.read_text()[:50], "{}", "[1]", '"text"', kept.read_text().replace("kernel", "other")):
        kept.write_text(damage)
        assert ahead.build(copies(), 90) == built, "damaged, or of another shape, is not there"
    assert asked == [90] * 6
    monkeypatch.setattr(ahead, "STORE", empty_store / kept.name / "a folder in a file")
    assert ahead.build(copies(), 90) == built, "where nothing can be kept, building goes on"


def module(path, scale):
    """A module with a kernel that calls a helper, written anew."""
    path.write_text(
        f"import triton\nimport triton.language as tl\n\n"
        f"@triton.jit\ndef helper(x):\n    return x * {scale}\n\n"
        f"@triton.jit\ndef kernel(x):\n    tl.store(x, helper(tl.load(x)))\n"
    )
    spec = importlib.util.spec_from_file_location(f"written_{scale}", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_a_key_changes_with_all_that_matters(tmp_path, monkeypatch):
    two, three = (module(tmp_path / f"{n}.py", n) for n in (2, 3))
    launches = {
        "plain": copies(),
        "warps": copies(num_warps=8),
        "alignment": launched(copy, meta(4097)[1:], meta(4096), 4096, BLOCK=1024),
        "divisibility": launched(copy, meta(4096), meta(4096), 4095, BLOCK=1024),
        "block": launched(copy, meta(4096), meta(4096), 4096, BLOCK=2048),
        "dtype": launched(copy, meta(4096, dtype=torch.float16), meta(4096), 4096, BLOCK=1024),
        "helper": launched(two.kernel, meta(1)),
        "another helper": launched(three.kernel, meta(1)),
    }
    keys = {ahead._key(launch, arch, kind) for launch in launches.values() for arch in (80, 90) for kind in ("a", "b")}
    assert len(keys) == 4 * len(launches)
    key = ahead._key(copies(), 90)
    assert ahead._key(copies(), 90) == key
    assert ahead._key(launched(copy, torch.zeros(4096), torch.zeros(8), 8192, BLOCK=1024), 90) == key
    monkeypatch.setattr(triton, "__version__", "0")
    assert ahead._key(copies(), 90) != key


@pytest.mark.parametrize("architectures", [[90], [90, 80]], ids=["here", "in other processes"])
def test_what_does_not_compile_is_named(architectures):
    launch = launched(wrong, meta(64), BLOCK=64)
    with pytest.raises(
        RuntimeError, match=r"(?s)wrong\(x: \*fp32 % 16, BLOCK=64.* does not compile for sm_\d0.*power of 2"
    ):
        ahead.build_all([launch], architectures)


def test_a_process_that_dies_is_reported(empty_store, monkeypatch):
    monkeypatch.setattr(ahead, "_compiled", lambda launch, arch: os._exit(3))
    with pytest.raises(RuntimeError, match=r"died while it compiled.*copy on sm_80, copy on sm_90"):
        ahead.build_all([copies()], [80, 90])


def test_unknown_architectures_are_refused():
    with pytest.raises(ValueError, match=r"got \[70\]"):
        ahead.build_all([copies()], [70])


# In a process that interprets kernels there is nothing to compile: all of the above then runs in one that does not.
if os.environ.get("TRITON_INTERPRET") or not isinstance(copy, JITFunction):
    for name in [name for name in globals() if name.startswith("test_")]:
        del globals()[name]

    def test_in_a_process_that_compiles(repo):
        env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__))]
        done = subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        assert " passed" in done.stdout
