"""Triton kernels compiled ahead of time, without a GPU, and what their machine code says.

`recording` writes down launches instead of making them; `build` compiles one for an architecture and reads off the
registers, spills and shared memory, and the widths of its loads and stores; `occupancy` says how much of it fits on a
multiprocessor. What is compiled is what a launch would run: Triton's own binder specializes the arguments, its own
options and its own ptxas (`ptxas-blackwell` from sm_100 on) make the code.

Registers, spills and stack are what `ptxas -v` reports. Shared memory is what Triton asks the driver for, and what
ptxas adds. Widths are counted in what nvdisasm prints, an instruction once, however often it runs. Time is not here.
"""

import contextlib
import functools
import hashlib
import io
import json
import multiprocessing
import os
import re
import struct
import subprocess
import tempfile
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

# What builds said, by content: delete it at will.
STORE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "normlab" / "ahead"
# Launches that share one call of nvdisasm, which takes ten times as long to start as to disassemble a kernel.
TOGETHER = 8

_one_at_a_time = threading.Lock()  # Triton's settings and sys.stdout, which hold for the whole process


# ---- What a multiprocessor (SM) has ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one SM: resident warps and blocks, shared memory of the SM and of one block, in bytes.

    `reserved` bytes of shared memory go to the system with every block, and shared memory is given in units of `unit`.
    """

    warps: int
    blocks: int
    shared: int
    shared_of_block: int
    reserved: int = 1024
    unit: int = 128


# CUDA C++ Programming Guide 13.0, table 27, "Technical Specifications per Compute Capability". All of them have 65536
# registers of an SM and of a block, and 1024 threads of a block. Units: cuda_occupancy.h of the CUDA toolkit.
MULTIPROCESSORS = {
    75: Multiprocessor(32, 16, 64 << 10, 64 << 10, reserved=0, unit=256),
    80: Multiprocessor(64, 32, 164 << 10, 163 << 10),
    86: Multiprocessor(48, 16, 100 << 10, 99 << 10),
    89: Multiprocessor(48, 24, 100 << 10, 99 << 10),
    90: Multiprocessor(64, 32, 228 << 10, 227 << 10),
    100: Multiprocessor(64, 32, 228 << 10, 227 << 10),
    120: Multiprocessor(48, 24, 100 << 10, 99 << 10),
}
REGISTERS, THREADS = 65536, 1024
# Registers are given to a warp in units of 256, from that quarter of the SM's registers where the warp lives.
REGISTER_UNIT, QUARTERS, WARP = 256, 4, 32


def _up(n, unit):
    return -(-n // unit) * unit


# ---- Launches --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """One launch, as the JIT would specialize it.

    `signature` has a type for each argument ("*fp32", "i32", "i64", "constexpr"), `constexprs` the values of those that
    are compiled in (declared so, None, or an int equal to 1), `attributes` {(position,): [["tt.divisibility", 16]]}.
    """

    kernel: str
    function: Any = field(repr=False, compare=False)
    grid: tuple
    arguments: tuple
    signature: dict
    constexprs: dict
    attributes: dict
    options: dict
    num_warps: int
    num_stages: int

    @property
    def divisible(self):
        """Names of the pointers and integers that are known to be multiples of 16."""
        return tuple(self.arguments[path[0]] for path, attributes in self.attributes.items() if attributes)

    def __str__(self):
        values = {self.arguments[path[0]]: value for path, value in self.constexprs.items() if len(path) == 1}
        told = []
        for name in self.arguments:
            kind = f"={_told(values[name])}" if name in values else f": {self.signature[name]}"
            told.append(name + kind + (" % 16" if name in self.divisible else ""))
        told += [f"num_warps={self.num_warps}", f"num_stages={self.num_stages}"]
        usual = {"num_warps": self.num_warps, "num_stages": self.num_stages, "debug": False, "instrumentation_mode": ""}
        told += [f"{name}={value}" for name, value in self.options.items() if (name, value) not in usual.items()]
        return f"{self.function.__module__.rpartition('.')[2]}.{self.kernel}({', '.join(told)})"


def _told(value):
    return getattr(value, "__name__", None) or str(value)


def why_not():
    """None, or the sentence why this process cannot compile kernels."""
    try:
        import triton.language as tl
        from triton import knobs
        from triton.runtime.jit import JITFunction
    except ImportError:
        return "Triton is not installed. It comes with normlab[cuda], on Linux."
    # What was decorated while TRITON_INTERPRET was set stays interpreted, Triton's own tl.sum too.
    if knobs.runtime.interpret or not isinstance(tl.sum, JITFunction):
        return "This process interprets kernels (TRITON_INTERPRET is set). Compile in one that does not."
    for tool in ("ptxas", "ptxas_blackwell", "nvdisasm"):
        try:
            getattr(knobs.nvidia, tool)
        except RuntimeError as error:
            return f"This Triton has no {tool}: {error}."
    return None


def _needs():
    if reason := why_not():
        raise RuntimeError(reason)


def _backend(arch):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend

    return make_backend(GPUTarget("cuda", arch, WARP))


@functools.lru_cache(maxsize=256)
def _binder(function):
    from triton.runtime.jit import create_function_from_signature

    return create_function_from_signature(function.signature, function.params, _backend(ARCHITECTURES[0]))


def _launch(function, args, grid, kwargs):
    """What JITFunction.run does before it compiles, for no device: the steps are its own, the order too."""
    from triton import knobs

    kwargs["debug"] = kwargs.get("debug", function.debug) or knobs.runtime.debug
    kwargs["instrumentation_mode"] = knobs.compilation.instrumentation_mode
    bound, specialization, options = _binder(function)(*args, **kwargs)
    # For the newest: what only some architectures know is refused when it is built.
    parsed, signature, constexprs, attributes = function._pack_args(
        _backend(ARCHITECTURES[-1]), kwargs, bound, specialization, options
    )
    grid = tuple(grid(bound) if callable(grid) else grid)
    return Launch(
        kernel=function.__name__,
        function=function,
        grid=grid + (1,) * (3 - len(grid)),
        arguments=tuple(function.arg_names),
        signature=signature,
        constexprs=constexprs,
        attributes=attributes,
        options=dict(options),
        num_warps=parsed.num_warps,
        num_stages=parsed.num_stages,
    )


@contextlib.contextmanager
def recording():
    """Within it, `kernel[grid](...)` runs nothing: it appends a Launch to the list that this yields.

    Tensors may be of any device, "meta" too. Alignment is that of their address: a meta tensor starts at 0, a tensor of
    the CPU at a multiple of 64, and one of CUDA at a multiple of 512. Errors: RuntimeError, with what `why_not` says.
    """
    _needs()
    from triton.runtime.jit import JITFunction

    launches, run = [], JITFunction.run

    def record(self, *args, grid, warmup, **kwargs):
        launches.append(_launch(self, args, grid, kwargs))

    JITFunction.run = record
    try:
        yield launches
    finally:
        JITFunction.run = run


# ---- Builds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Build:
    """What a launch became on one architecture, `arch` being 75 for sm_75.

    `launch` is str(Launch). registers are of a thread; spill_stores, spill_loads and stack bytes of a thread; shared
    bytes of a block; threads of a block; instructions without NOP. {bits: instructions} are loads and stores (global
    memory), local_loads and local_stores (local memory, where spills live). A load that goes straight from global to
    shared memory is a load.
    """

    kernel: str
    launch: str
    arch: int
    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    shared: int
    threads: int
    instructions: int
    loads: dict
    stores: dict
    local_loads: dict
    local_stores: dict
    atomics: int

    @property
    def warps(self):
        return -(-self.threads // WARP)

    @property
    def registers_of_warp(self):
        return _up(self.registers * WARP, REGISTER_UNIT)

    @property
    def registers_of_block(self):
        """As the hardware counts them when it lets a block start: whole units for each warp, warps in fours."""
        return self.registers_of_warp * _up(self.warps, QUARTERS)

    @property
    def problems(self):
        """Sentences: which limits of the architecture do not hold, and what spills. Empty is good."""
        most = MULTIPROCESSORS[self.arch].shared_of_block
        found = []
        if self.registers_of_block > REGISTERS:
            found.append(f"{self.registers_of_block} registers of a block, and an SM has {REGISTERS}")
        if self.threads > THREADS:
            found.append(f"{self.threads} threads of a block, and {THREADS} is the most")
        if self.shared > most:
            found.append(f"{self.shared} bytes of shared memory, and {most} is the most")
        if self.spill_stores or self.spill_loads:
            found.append(f"spills: {self.spill_stores} bytes stored, {self.spill_loads} bytes loaded by each thread")
        return tuple(f"{self.kernel} on sm_{self.arch}: {problem}" for problem in found)


_OPCODE = re.compile(r"/\*([0-9a-f]+)\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
_WIDTHS = {"256": 256, "128": 128, "64": 64, "U16": 16, "S16": 16, "U8": 8, "S8": 8}
_COUNTED = {
    "LDG": "loads",
    "LDGSTS": "loads",
    "STG": "stores",
    "LDL": "local_loads",
    "STL": "local_stores",
}
_ATOMIC = ("RED", "REDG", "ATOM", "ATOMG")


def opcodes(sass):
    """Pairs of address and opcode with its modifiers, (16, "LDG.E.128"), of what nvdisasm prints."""
    return [(int(address, 16), opcode) for address, opcode in _OPCODE.findall(sass)]


def count(names):
    """The counts of a Build from opcodes: loads, stores, local_loads, local_stores, atomics, instructions.

    A width is a modifier, 32 bits if there is none. (The 128 of LTC128B is the cache's, and stands in another word.)
    """
    counts = {"loads": {}, "stores": {}, "local_loads": {}, "local_stores": {}, "atomics": 0, "instructions": 0}
    for name in names:
        base, *modifiers = name.split(".")
        counts["instructions"] += base != "NOP"
        counts["atomics"] += base in _ATOMIC
        if base in _COUNTED:
            bits = next((_WIDTHS[modifier] for modifier in modifiers if modifier in _WIDTHS), 32)
            widths = counts[_COUNTED[base]]
            widths[bits] = widths.get(bits, 0) + 1
    return counts


def _code(cubin):
    """The instructions of a cubin, an ELF file of 64 bits: its sections .text.* one after the other."""
    (headers,) = struct.unpack_from("<Q", cubin, 0x28)
    size, number, names = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, headers + i * size) for i in range(number)]
    start = sections[names][4]
    return b"".join(
        cubin[offset : offset + length]
        for name, _, _, _, offset, length in sections
        if cubin.startswith(b".text.", start + name)
    )


def _nvdisasm(*arguments):
    from triton import knobs

    done = subprocess.run([knobs.nvidia.nvdisasm.path, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nvdisasm failed: {done.stderr.strip()}")
    return done.stdout


def _source(launch):
    from triton.compiler import ASTSource

    return ASTSource(launch.function, launch.signature, launch.constexprs, launch.attributes)


def _compiled(launch, arch):
    """Triton's compiled kernel and what ptxas said about it. Triton's own cache, where that is lost, is left alone."""
    import triton
    from triton import knobs

    backend, said = _backend(arch), io.StringIO()
    with (
        tempfile.TemporaryDirectory() as cache,
        knobs.cache.scope(),
        knobs.nvidia.scope(),
        contextlib.redirect_stdout(said),
    ):
        knobs.cache.dir, knobs.nvidia.dump_ptxas_log = cache, True
        try:
            options = backend.parse_options(dict(launch.options))
            kernel = triton.compile(_source(launch), target=backend.target, options=options.__dict__)
        except Exception as error:
            raise RuntimeError(f"{launch} does not compile for sm_{arch}: {error}") from error
    return kernel, said.getvalue()


_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:, used \d+ barriers)?(?:, (\d+) bytes smem)?")


def _resources(said):
    """Registers, stack, spill_stores, spill_loads and bytes of shared memory in what `ptxas -v` said."""
    spills, used = _SPILLS.findall(said), _USED.findall(said)
    if not spills or not used:
        raise RuntimeError(f"ptxas said nothing of registers and spills: {said.strip()!r}")
    stack, stores, loads = (sum(map(int, column)) for column in zip(*spills, strict=True))  # a line for each function
    registers, shared = max((int(r), int(s or 0)) for r, s in used)
    return {"registers": registers, "stack": stack, "spill_stores": stores, "spill_loads": loads}, shared


def _builds(launches, arch):
    """A Build for each launch, on one architecture, with one call of nvdisasm."""
    parts, code = [], b""
    for launch in launches:
        kernel, said = _compiled(launch, arch)
        resources, shared = _resources(said)
        start, code = len(code), code + _code(kernel.asm["cubin"])
        resources |= {"shared": shared + kernel.metadata.shared, "threads": kernel.metadata.num_warps * WARP}
        parts.append((launch, resources, range(start, len(code))))
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(code)
        file.flush()
        found = opcodes(_nvdisasm("-ndf", "-b", f"SM{arch}", file.name))
    if 16 * len(found) != len(code):
        raise RuntimeError(f"nvdisasm printed {len(found)} instructions, and sm_{arch} has {len(code) // 16} here")
    return [
        Build(launch.kernel, str(launch), arch, **resources, **count(name for at, name in found if at in addresses))
        for launch, resources, addresses in parts
    ]


# ---- The store -------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _this():
    return Path(__file__).read_bytes()


def _key(launch, arch, kind="build"):
    """Changes with the kernel and its helpers, the specialization, the options, the architecture, Triton, this file."""
    import triton
    from triton._C.libtriton import get_cache_invalidating_env_vars

    options = _backend(arch).parse_options(dict(launch.options))
    what = (kind, arch, launch.kernel, _source(launch).hash(), options, triton.__version__)
    what += (sorted(get_cache_invalidating_env_vars().items()), sorted(launch.signature.items()))
    return hashlib.sha256(_this() + repr(what).encode()).hexdigest()


def _kept(key):
    """What the store has under a key, or None. Whatever goes wrong means: not there."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((STORE / f"{key}.json").read_text())


def _keep(key, value):
    with contextlib.suppress(OSError):
        STORE.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=STORE)
        with os.fdopen(handle, "w") as file:
            json.dump(value, file)
        os.replace(name, STORE / f"{key}.json")  # whole or not at all, when several write


def _kept_build(key):
    with contextlib.suppress(TypeError, AttributeError, KeyError, ValueError):
        told = _kept(key)
        widths = ("loads", "stores", "local_loads", "local_stores")
        return Build(**told | {name: {int(bits): n for bits, n in told[name].items()} for name in widths})


# ---- What others call ------------------------------------------------------------------------------------------------


def build(launch, arch):
    """The Build of a Launch on an architecture. Errors: RuntimeError, with what Triton or ptxas said."""
    return build_all([launch], [arch])[0]


_groups = []  # what forked processes inherit: a kernel cannot be sent to another process, being what a module holds


def _group(i):
    launches, arch = _groups[i]
    return _builds(launches, arch)


def _in_processes(processes):
    """Pairs (i, builds) of the groups, as they become ready."""
    from triton.runtime.cache import triton_key

    triton_key()  # reads all of Triton: once here, and not once in every process
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
        with warnings.catch_warnings():
            # Python 3.12 warns of threads. What a child does here, compiling, needs no thread of its parent.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            futures = {pool.submit(_group, i): i for i in range(len(_groups))}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            lost = [_groups[i] for future, i in futures.items() if future.exception() is not None]
            names = sorted({f"{launch.kernel} on sm_{arch}" for launches, arch in lost for launch in launches})
            raise RuntimeError(f"A process died while it compiled. Not built: {', '.join(names)}") from error
        finally:
            pool.shutdown(cancel_futures=True)


def build_all(launches, architectures=ARCHITECTURES, processes=2, progress=None):
    """Builds of all launches on all architectures, in that order, by `processes` at a time.

    What several launches have in common is built once and returned once: a Build is of all that have its `launch`.
    `progress(done, total)` is called as builds become ready. Errors: RuntimeError, with what Triton or ptxas said.
    """
    _needs()
    if unknown := set(architectures) - set(ARCHITECTURES):
        raise ValueError(f"architectures are among {ARCHITECTURES}, got {sorted(unknown)}")
    wanted = {}
    for launch in launches:
        for arch in architectures:
            wanted.setdefault(_key(launch, arch), (launch, arch))
    ready = {key: kept for key in wanted if (kept := _kept_build(key)) is not None}
    tell = progress or (lambda done, total: None)
    tell(len(ready), len(wanted))

    keys = []
    with _one_at_a_time:
        _groups.clear()
        for arch in architectures:
            missing = [key for key, (_, of) in wanted.items() if of == arch and key not in ready]
            for i in range(0, len(missing), TOGETHER):
                keys.append(missing[i : i + TOGETHER])
                _groups.append(([wanted[key][0] for key in keys[-1]], arch))
        processes = min(processes, len(_groups))
        done = _in_processes(processes) if processes > 1 else ((i, _group(i)) for i in range(len(_groups)))
        for i, builds in done:
            for key, built in zip(keys[i], builds, strict=True):
                ready[key] = built
                _keep(key, asdict(built))
            tell(len(ready), len(wanted))
    return [ready[key] for key in wanted]


def ptx_or_sass(launch, arch, kind="sass"):
    """What a launch became, as text: "ptx", or "sass", which is machine code as nvdisasm prints it."""
    if kind not in ("ptx", "sass"):
        raise ValueError(f'kind is "ptx" or "sass", got {kind!r}')
    _needs()
    key = _key(launch, arch, kind)
    if isinstance(kept := _kept(key), str):
        return kept
    with _one_at_a_time:
        kernel, _ = _compiled(launch, arch)
        text = kernel.asm["ptx"]
        if kind == "sass":
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(kernel.asm["cubin"])
                file.flush()
                text = _nvdisasm("-c", "-ndf", file.name)
    _keep(key, text)
    return text


# ---- Occupancy -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Occupancy:
    """Blocks and warps that are resident on one SM at a time, the share of its warps, and what sets the limit.

    `limits` are among "registers", "shared memory", "warps", "blocks".
    """

    blocks: int
    warps: int
    share: float
    limits: tuple


def occupancy(build):
    """How much of a Build fits on one SM, as cuda_occupancy.h of the CUDA toolkit counts; 0 blocks: it cannot run."""
    sm = MULTIPROCESSORS[build.arch]
    warps_of_quarter = REGISTERS // QUARTERS // build.registers_of_warp
    shared = _up(build.shared + sm.reserved, sm.unit)
    fit = {
        "registers": warps_of_quarter * QUARTERS // build.warps,
        "shared memory": sm.shared // shared if shared else sm.blocks,
        "warps": sm.warps // build.warps if build.threads <= THREADS else 0,
        "blocks": sm.blocks,
    }
    blocks = min(fit.values())
    limits = tuple(name for name, most in fit.items() if most == blocks)
    return Occupancy(blocks, blocks * build.warps, blocks * build.warps / sm.warps, limits)
