"""What compiled kernels stand on: Numba with a disk cache that survives damage, arrays at addresses, half precision,
and loops shared among PyTorch's own threads. `cpu.py` has the kernels.

Kernels get addresses (`tensor.data_ptr()`) and sizes as plain integers, and `like`, a NumPy scalar whose type says how
elements are stored. That costs half a microsecond a call; to wrap tensors in NumPy arrays costs more for each of them.
"""

import contextlib
import ctypes
import hashlib
import os
import pickle
import uuid
from pathlib import Path

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.core.errors import NumbaError
from numba.core.serialize import dumps
from numba.extending import intrinsic, overload

# Sums may be regrouped and multiplications fused into additions: without that no sum is vectorized. Flags that would
# let the compiler assume "no NaN" or "no infinity" stay off: kernels must be right on those too.
FAST = {"contract", "reassoc", "nsz"}
EXACT_ORDER = {"contract"}

# The type of this scalar tells a kernel how the elements of its arrays are stored. Numba knows neither half type: the
# bits of a float16 travel as int16 and those of a bfloat16 as uint16.
LIKE = {"float32": np.float32(0), "float64": np.float64(0), "float16": np.int16(0), "bfloat16": np.uint16(0)}


# ---- Compiling, and keeping what was compiled ------------------------------------------------------------------------


# Numba notices when the file of a kernel changes. This file is compiled into every kernel.
_OWN_SOURCE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


class CacheFiles:
    """One file for each compiled signature of one function: a SHA-256 of the rest, then the pickled code.

    Numba's own files are kept by number in a common index, without a checksum: a damaged one raises or crashes, and two
    processes that compile different signatures at once may read each other's code.
    """

    def __init__(self, folder, base, stamp):
        self.folder, self.base, self.stamp = Path(folder), base, (numba.__version__, stamp, _OWN_SOURCE)

    def path(self, key):
        return self.folder / f"{self.base}.{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"

    def load(self, key):
        """What was saved under `key`, or None when there is nothing, or nothing whole and fresh."""
        content = self.path(key).read_bytes()
        checksum, payload = content[:32], content[32:]
        if hashlib.sha256(payload).digest() != checksum:
            return None
        stamp, saved_key, data = pickle.loads(payload)
        return data if (stamp, saved_key) == (self.stamp, repr(key)) else None

    def save(self, key, data):
        payload = dumps((self.stamp, repr(key), data))
        path = self.path(key)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(hashlib.sha256(payload).digest() + payload)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def flush(self):
        for path in self.folder.glob(f"{self.base}.*.nbc"):
            path.unlink()


class Cache(FunctionCache):
    """Numba's function cache over CacheFiles, in which whatever goes wrong means "not cached"."""

    def __init__(self, function):
        super().__init__(function)
        self._cache_file = CacheFiles(self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp())

    def load_overload(self, sig, target_context):
        with contextlib.suppress(Exception):  # unpickling damaged data may raise anything
            return super().load_overload(sig, target_context)

    def save_overload(self, sig, data):
        with contextlib.suppress(OSError):  # read-only folder, full disk
            super().save_overload(sig, data)


def compiled(fastmath=FAST, entry=False):
    """A decorator: Numba compiles the function at its first call with given types. An `entry` is called from Python: it
    releases the interpreter's lock while it runs, and its machine code is kept on disk. Everything else is compiled
    into the entry that uses it, so that there is one version of it, the same in the next process."""

    def decorate(function):
        dispatcher = numba.njit(fastmath=fastmath, error_model="numpy", nogil=entry, forceinline=not entry)(function)
        if entry:
            # No writable folder at all (RuntimeError in Numba): every process compiles for itself.
            with contextlib.suppress(RuntimeError, OSError, NumbaError):
                dispatcher._cache = Cache(function)
        return dispatcher

    return decorate


# ---- Threads ---------------------------------------------------------------------------------------------------------

_forked = False


def _after_fork():
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_no_openmp = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)


def _openmp():
    """Make the OpenMP runtime that is in this process already, PyTorch's, known to compiled code; say whether there is
    one. Using the same threads as PyTorch means that two sets of them never compete for the cores."""
    runtime = ctypes.CDLL(None) if os.name == "posix" else None
    names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
    if all(hasattr(runtime, name) for name in names):
        for name in names:
            binding.add_symbol(name, ctypes.cast(getattr(runtime, name), ctypes.c_void_p).value)
        return True
    # Compiled code names these functions even where it never calls them.
    for name in names:
        binding.add_symbol(name, ctypes.cast(_no_openmp, ctypes.c_void_p).value)
    return False


with contextlib.suppress(ImportError):
    import torch  # noqa: F401 - brings its OpenMP runtime into the process

# Whether loops can be shared at all. Without PyTorch there may be no runtime.
OPENMP = _openmp()


def parallel():
    """Whether loops may be shared: not in a forked child, where the parent's OpenMP threads do not exist."""
    return OPENMP and not _forked


# Below this many elements for each thread, waking it costs more than it saves (PyTorch's grain size is the same).
GRAIN = 32768


@numba.njit
def cut(elements, rows, threads):
    """Into how many parts a loop over `rows` rows, `elements` elements in all, is cut for `threads` threads.

    >>> cut(64 * 1024, 64, 4), cut(4096, 64, 4), cut(1_000_000, 2, 4)
    (2, 1, 2)
    """
    return max(1, min(threads, rows, elements // GRAIN))


_byte_pointer, _i32, _i64 = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)


@intrinsic
def share(typing, body, rows, count, arguments):
    """share(body, rows, count, arguments): cut range(rows) into `count` parts and run body(first, last, *arguments) on
    each, in as many threads. How the rows are cut depends on `count` alone, so results do not depend on timing.

    In C this would be `#pragma omp parallel for`. Here a small function is made that takes its arguments from memory
    and runs its share of the parts, and its address is handed to OpenMP.
    """
    call = (types.int64, types.int64, *arguments.types)
    body.get_call_type(typing, call, {})

    def generate(context, builder, signature, values):
        compiled_body = body.dispatcher.overloads[call]
        context.active_code_library.add_linking_library(compiled_body.library)
        module, description = builder.module, compiled_body.fndesc
        callee = context.declare_function(module, description)
        frame = cgutils.make_anonymous_struct(builder, values[1:])

        run_type = ir.FunctionType(ir.VoidType(), [_byte_pointer])
        run = ir.Function(module, run_type, module.get_unique_name("run_parts"))
        run.linkage = "internal"
        inner = ir.IRBuilder(run.append_basic_block())
        unpacked = inner.load(inner.bitcast(run.args[0], frame.type.as_pointer()))
        n_rows, n_parts, packed = (inner.extract_value(unpacked, i) for i in range(3))

        def ask(name):
            function = cgutils.get_or_insert_function(module, ir.FunctionType(_i32, []), name)
            return inner.sext(inner.call(function, []), _i64)

        in_team = inner.icmp_signed(">", n_parts, _i64(1))
        thread, threads = cgutils.alloca_once_value(inner, _i64(0)), cgutils.alloca_once_value(inner, _i64(1))
        with inner.if_then(in_team):
            inner.store(ask("omp_get_thread_num"), thread)
            inner.store(ask("omp_get_num_threads"), threads)  # may be fewer than asked for
        with cgutils.for_range_slice(inner, inner.load(thread), n_parts, inner.load(threads)) as (part, _):
            first = inner.sdiv(inner.mul(n_rows, part), n_parts)
            last = inner.sdiv(inner.mul(n_rows, inner.add(part, _i64(1))), n_parts)
            passed = [first, last, *cgutils.unpack_tuple(inner, packed)]
            context.call_conv.call_function(inner, callee, description.restype, description.argtypes, passed)
        inner.fence("seq_cst")  # what stream() wrote is seen by whoever comes after this loop
        inner.ret_void()

        data = builder.bitcast(cgutils.alloca_once_value(builder, frame), _byte_pointer)
        team_type = ir.FunctionType(ir.VoidType(), [run.type, _byte_pointer, _i32, _i32])
        team = cgutils.get_or_insert_function(module, team_type, "GOMP_parallel")
        with builder.if_else(builder.icmp_signed(">", values[2], _i64(1))) as (many, one):
            with many:
                builder.call(team, [run, data, builder.trunc(values[2], _i32), _i32(0)])
            with one:
                builder.call(run, [data])
        return context.get_dummy_value()

    return types.void(body, types.int64, types.int64, arguments), generate


# ---- Memory and numbers ----------------------------------------------------------------------------------------------


@intrinsic
def pointer(typing, address, like):
    """The integer `address` as a pointer to elements of the type of `like`."""

    def generate(context, builder, signature, values):
        return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), generate


@compiled()
def array(address, shape, like):
    """The array of `shape` that stands at `address`, in C order."""
    return numba.carray(pointer(address, like), shape)


@compiled()
def vector(address, size, like):
    """The `size` numbers at `address`; none of them when the address is 0, which stands for None."""
    return numba.carray(pointer(address, like), size if address != 0 else 0)


@compiled()
def vector_or(address, size, value):
    """The `size` numbers at `address`, or as many times `value` when the address is 0. A loop over numbers that are
    always there is faster for short rows than one that is chosen row by row."""
    return numba.carray(pointer(address, value), size) if address != 0 else np.full(size, value)


@intrinsic
def _store_past_cache(typing, source, target):
    """64 bytes from one address to another, a multiple of 64, around the cache."""

    def generate(context, builder, signature, values):
        line = ir.VectorType(ir.IntType(32), 16).as_pointer()
        content = builder.load(builder.inttoptr(values[0], line), align=1)
        store = builder.store(content, builder.inttoptr(values[1], line), align=64)
        store.set_metadata("nontemporal", builder.module.add_metadata([_i32(1)]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@compiled()
def stream(source, target):
    """Copy a row to memory that is not in the cache, nor wanted there: an ordinary store would first read the line."""
    begin, width = target.ctypes.data, target.itemsize
    lead = min(target.size, -begin % 64 // width)
    lines = (target.size - lead) * width // 64
    done = lead + lines * 64 // width
    for j in range(lead):
        target[j] = source[j]
    first, there = source.ctypes.data + lead * width, begin + lead * width
    for i in range(lines):
        _store_past_cache(first + 64 * i, there + 64 * i)
    for j in range(done, target.size):
        target[j] = source[j]


def _cache_size():
    """Bytes of the largest cache, or 32 MiB where the system does not say."""
    try:
        sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
        return max(int(size.read_text().removesuffix("K\n")) << 10 for size in sizes)
    except (OSError, ValueError):
        return 32 << 20


# A result larger than this leaves the cache before anybody reads it.
PAST_CACHE = _cache_size()


def _bits(width):
    return ir.IntType(width)


@intrinsic
def _half_to_float(typing, bits):
    def generate(context, builder, signature, values):
        return builder.fpext(builder.bitcast(values[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.int16), generate


@intrinsic
def _float_to_half(typing, value):
    def generate(context, builder, signature, values):
        return builder.bitcast(builder.fptrunc(values[0], ir.HalfType()), _bits(16))

    return types.int16(types.float32), generate


@intrinsic
def _bfloat_to_float(typing, bits):
    def generate(context, builder, signature, values):
        wide = builder.zext(values[0], _i32)
        return builder.bitcast(builder.shl(wide, _i32(16)), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _float_to_bfloat(typing, value):
    """The upper 16 bits, rounded to nearest, ties to even. A NaN could round to infinity: it becomes the quiet NaN."""

    def generate(context, builder, signature, values):
        bits = builder.bitcast(values[0], _i32)
        odd = builder.and_(builder.lshr(bits, _i32(16)), _i32(1))
        rounded = builder.lshr(builder.add(bits, builder.add(odd, _i32(0x7FFF))), _i32(16))
        is_nan = builder.fcmp_unordered("uno", values[0], values[0])
        return builder.trunc(builder.select(is_nan, _i32(0x7FC0), rounded), _bits(16))

    return types.uint16(types.float32), generate


def widen(stored):
    """The number that is `stored`, in the type that is computed in: float32, or float64 for float64."""
    raise NotImplementedError("widen is for compiled code")


@overload(widen, inline="always")
def _widen(stored):
    if stored == types.int16:
        return lambda stored: _half_to_float(stored)
    if stored == types.uint16:
        return lambda stored: _bfloat_to_float(stored)
    return lambda stored: stored


def narrow(value, like):
    """`value` as it is stored beside `like`: rounded once, to nearest even."""
    raise NotImplementedError("narrow is for compiled code")


@overload(narrow, inline="always")
def _narrow(value, like):
    if like == types.int16:
        return lambda value, like: _float_to_half(value)
    if like == types.uint16:
        return lambda value, like: _float_to_bfloat(value)
    return lambda value, like: value


@intrinsic
def maximum(typing, a, b):
    """The larger of two numbers, NaN if one is NaN. LLVM vectorizes a loop of these; of `max(a, b)` it does not."""

    def generate(context, builder, signature, values):
        kind = values[0].type
        name = "llvm.maximum.f64" if a == types.float64 else "llvm.maximum.f32"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind, kind]), name)
        return builder.call(function, values)

    return a(a, a), generate


@intrinsic
def two_to_the(typing, shifted):
    """2**n for a `shifted` number n + 1.5 * 2**23 (float32) or n + 1.5 * 2**52 (float64), n a whole number.

    A number that large has no places left for fractions: its lowest bits are n itself. Moved up to where a
    floating-point number keeps its exponent, with the exponent of 1 added, they are 2**n.
    """
    width, mantissa, one = (64, 52, 0x3FF << 52) if shifted == types.float64 else (32, 23, 0x7F << 23)

    def generate(context, builder, signature, values):
        bits = builder.bitcast(values[0], _bits(width))
        moved = builder.add(builder.shl(bits, _bits(width)(mantissa)), _bits(width)(one))
        return builder.bitcast(moved, values[0].type)

    return shifted(shifted), generate
