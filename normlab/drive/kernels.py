"""How compiled functions and Triton kernels are used: what they fill, what they touch, how much they move."""

import inspect
import re
import sys
import threading
import traceback
import tracemalloc
import types

import numpy as np

from normlab.drive import Misfit
from normlab.guard import Stop

# ---- softmax_rows ----------------------------------------------------------------------------------------------------

UNTOUCHED = -7.25e5  # no softmax has such a value
MARGIN = 2  # rows around x and out that nobody may touch
LARGE = 100_000  # from so many elements on, memory is measured
NOT_COMPILED = "runs as plain Python: put @numba.njit above it, or above the function that does the work"
OBJECT_MODE = "is compiled in object mode, which is Python's own loop: @numba.njit refuses that and says why"
_SECOND_MATRIX = "makes another array of the size of x: memory beside x and out is what costs time here"
UNFILLED = "leaves out as it was: fill it, for what is returned is not looked at"

stands_in = {}  # known mistakes that stand for a compiled function, and what is said of how they are compiled


def _dispatchers(function, seen):
    """What Numba made of functions, among what `function` is or can call by a name of its own module."""
    if id(function) in seen:
        return
    seen.add(id(function))
    if type(function).__module__.startswith("numba."):
        yield function
        return
    if not isinstance(function, types.FunctionType):
        return
    code = function.__code__
    cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    names = {name for part in (code, *_inside(code)) for name in part.co_names}
    for value in (*cells, *(function.__globals__.get(name) for name in names)):
        yield from _dispatchers(value, seen)


def _filled(cell):
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _inside(code):
    """Code of functions that stand in a function."""
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            yield constant
            yield from _inside(constant)


def _how_compiled(candidate):
    """What is wrong with how the candidate is compiled, or None. To be asked after it has run."""
    if candidate in stands_in:
        return stands_in[candidate]
    made = list(_dispatchers(candidate, set()))
    ran = [one for one in made if getattr(one, "signatures", None) or getattr(one, "types", None)]
    if not ran:
        return NOT_COMPILED
    if not any(getattr(one, "nopython_signatures", True) for one in ran):
        return OBJECT_MODE
    return None


def _why_not_compiled(error):
    """The line of Numba's message that says what it does not know."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Failed in", "During:", "- ", ">>>"))]
    told = [re.sub(r"Function\(<(?:built-in )?function (\w+)(?: at \w+)?>\)", r"\1", line) for line in told]
    where = next((found[1] for line in lines if (found := re.search(r"line (\d+)", line))), None)
    return (told[0] if told else type(error).__name__)[:120].rstrip(".:") + (f" (line {where})" if where else "")


def _traced():
    """Lets tracemalloc see what compiled code allocates."""
    if "numba" in sys.modules:
        from numba.core.runtime import _nrt_python

        _nrt_python.memsys_use_cpython_allocator()


def _unprofiled(call, *args, **kwargs):
    """call(...) without the guard's profile function, which makes compilers and interpreters many times slower."""
    before, in_threads = sys.getprofile(), threading.getprofile()
    sys.setprofile(None)
    threading.setprofile(None)
    try:
        return call(*args, **kwargs)
    finally:
        sys.setprofile(before)
        threading.setprofile(in_threads)


def rows(candidate, x):
    """What stands in `out` after candidate(x, out). Errors: Misfit."""
    return _unprofiled(_filled_by, candidate, x)


def _filled_by(candidate, x):
    rows, columns = x.shape
    spread = 1 if x.flags.c_contiguous else 2
    around = np.full((rows + 2 * MARGIN, columns), np.nan, x.dtype)
    inner, outer = around[MARGIN : MARGIN + rows], np.full((rows + 2 * MARGIN, spread * columns), UNTOUCHED, x.dtype)
    inner[:] = x
    if not x.flags.c_contiguous:
        inner = x
    out = outer[MARGIN : MARGIN + rows, ::spread]
    if x.size >= LARGE:
        candidate(inner[:2].copy(), np.empty_like(out[:2]))  # what compiling takes is not held against it
        _traced()
    before = inner.copy()
    started = x.size >= LARGE and not tracemalloc.is_tracing()
    if started:
        tracemalloc.start(1)
    try:
        if x.size >= LARGE:
            tracemalloc.reset_peak()
            held, _ = tracemalloc.get_traced_memory()
        try:
            candidate(inner, out)
        except Exception as error:
            if type(error).__module__.startswith("numba."):
                raise Misfit(f"does not compile: {_why_not_compiled(error)}") from None
            raise
        peak = tracemalloc.get_traced_memory()[1] - held if x.size >= LARGE else 0
    finally:
        if started:
            tracemalloc.stop()
    if how := _how_compiled(candidate):
        raise Misfit(how)
    if before.tobytes() != inner.tobytes():
        x[...] = inner
    kept = out.copy()
    out[...] = UNTOUCHED
    if (outer != UNTOUCHED).any():
        raise Misfit("writes outside of out: an index runs past the end of a row, or of the rows")
    if kept.size and (kept == UNTOUCHED).all():
        raise Misfit(UNFILLED)
    if (kept == UNTOUCHED).any():
        raise Misfit("leaves part of out as it was: look at where the loops begin and end")
    if peak > x.nbytes // 4:
        raise Misfit(_SECOND_MATRIX)
    return kept


# ---- Triton kernels --------------------------------------------------------------------------------------------------

NO_KERNEL = "is no Triton kernel: put @triton.jit above it"
_SECONDS = 8.0  # for all programs of one launch; the guard's limit is longer, and knows less
# What is said of the faults that watch.py finds, the worst first: (kind, whether of out or of an input) -> sentence.
_FAULTS = {
    ("out-of-bounds", "out"): "writes {one}outside of out: is a mask missing in tl.store, or a row's start wrong?",
    ("out-of-bounds", "input"): "reads {one}outside of {name}: is a mask missing in tl.load, or a row's start wrong?",
    (
        "out-of-bounds",
        "nowhere",
    ): "goes to an address where none of its arguments is: look at what is added to a pointer",
    (
        "stride",
        "out",
    ): "writes between the rows of out: does the mask stop at n_cols, and a row start at row * out_stride?",
    (
        "stride",
        "input",
    ): "reads between the rows of {name}: does the mask stop at n_cols, and a row start at row * x_stride?",
    (
        "race",
        "out",
    ): "lets two programs write, or one write and one read, the same place of out: each row belongs to one program",
    ("race", "input"): "writes to {name}, which another program reads",
    ("race", "nowhere"): "lets two programs write the same place",
    ("poison", "out"): "lets into the answer what a mask hides: say other= in tl.load, or choose with tl.where",
}
_RELOADS = "reads {name} {times} times: load a row once, and compute all you need from what you have"
_STORES = "writes out {times} times: write a row once, when all of it is done"
_READS_BACK = "reads back what it wrote to out: keep the numbers in a variable, not in memory"
_WALKS = "fetches {times} times the bytes that it uses: lanes that are neighbors are to read numbers that are neighbors"
INPUTS = ("x", "out", "weight", "bias")  # the pointers, in their order


class Later:
    """A kernel that is made when it is first launched: to import Triton takes a second."""

    def __init__(self, make, **switches):
        self.make, self.switches = make, switches

    def __call__(self, *args, **switches):
        raise TypeError("a kernel is launched, not called")


def _tensor(array, dtype, gap):
    """The array as a tensor of that dtype, whose rows have `gap` numbers between them that nobody may read: NaN."""
    import torch

    if array.ndim == 1:
        return torch.from_numpy(array.copy()).to(dtype)
    rows, columns = array.shape
    whole = torch.full((rows, columns + gap), float("nan"), dtype=dtype)
    whole[:, :columns] = torch.from_numpy(array.copy()).to(dtype)
    return whole[:, :columns]


def _name_of(fault, names):
    """(which of INPUTS the fault is about or None, the key of its sentence)."""
    place = names.index(fault.argument) if fault.argument in names[: len(INPUTS)] else None
    name = None if place is None else INPUTS[place]
    return name, (fault.kind, "nowhere" if name is None else "out" if name == "out" else "input")


def _worst(faults, names):
    """The sentence about the worst fault, or None."""
    found = {}
    for fault in faults:
        name, key = _name_of(fault, names)
        found.setdefault(key, {"name": name, "one": "a number " if "one lane" in fault.sentence else ""})
    for key, sentence in _FAULTS.items():
        if key in found:
            return sentence.format(**found[key])
    return faults[0].sentence.partition(": ")[2].rstrip(".") if faults else None


def _heavy_traffic(seen, names, tensors):
    """What is wrong with how much was moved, or None. A row of x once, and out once; weight and bias once a row."""
    rows = len(tensors[0])
    for name, argument, tensor in zip(INPUTS, names, tensors, strict=False):
        if name == "out":
            if seen.loaded(argument):
                return _READS_BACK
            if seen.stored(argument) > tensor.nbytes:
                return _STORES.format(times=_times(seen.stored(argument) / tensor.nbytes))
            continue
        once = tensor.nbytes * (rows if tensor.ndim == 1 else 1)
        if seen.loaded(argument) > once:
            return _RELOADS.format(name=name, times=_times(seen.loaded(argument) / once))
    for argument in names[:2]:
        share = seen.efficiency(argument)
        if share is not None and share < 0.5:
            return _WALKS.format(times=_times(1 / share))
    return None


def _times(ratio):
    return str(round(ratio)) if abs(ratio - round(ratio)) < 0.05 else f"{ratio:.1f}"


def _refuse_tritons_own(function, seen=()):
    """Stops a kernel that calls, itself or in a helper, Triton's function for what it is to write."""
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        helper = getattr(value, "fn", None)
        if name == "softmax" and str(getattr(value, "__module__", "triton")).startswith("triton"):
            raise Stop("calls tl.softmax: this exercise is to write it, from Triton's simpler operations")
        if isinstance(helper, types.FunctionType) and helper not in seen:
            _refuse_tritons_own(helper, (*seen, function))


def _kernel_and_names(candidate, count):
    """(kernel, switches, names of its arguments). Errors: Misfit."""
    kernel, switches = candidate, {}
    if isinstance(candidate, Later):
        kernel, switches = candidate.make(), candidate.switches
    function = getattr(kernel, "fn", None)
    if not type(kernel).__module__.startswith("triton.") or function is None:
        raise Misfit(NO_KERNEL)
    _refuse_tritons_own(function)
    names = list(inspect.signature(function).parameters)
    if len(names) < count or names[count - 1] != "BLOCK":
        raise Misfit(f"takes ({', '.join(names)}): its arguments are those of the text, in that order, BLOCK the last")
    return kernel, switches, names


def kernel(candidate, *args, **layout):
    return _unprofiled(_left_by, candidate, *args, **layout)


def _left_by(candidate, x, *vectors, eps=None, block, gaps=(0, 0), kept=None, traffic=False):
    """What the kernel leaves in `out`, one program a row. x is stored as `kept`, out as x is given. Errors: Misfit."""
    import torch

    from normlab import watch

    kernel, switches, names = _kernel_and_names(candidate, 6 if eps is None else 9)
    dtype = getattr(torch, kept or str(x.dtype))
    x_t, *vectors_t = (_tensor(array, dtype, gaps[0]) for array in (x, *vectors))
    out = _tensor(np.full_like(x, UNTOUCHED if x.dtype != np.float16 else 12345), getattr(torch, str(x.dtype)), gaps[1])
    scalars = () if eps is None else (eps,)
    arguments = (x_t, out, *vectors_t, x_t.stride(0), out.stride(0), x.shape[1], *scalars)
    if _calls_others(kernel):
        raise Misfit(FOREIGN)
    with watch.watched(order=1, limit_seconds=_SECONDS) as seen:
        try:
            kernel[(len(x),)](*arguments, BLOCK=block, **switches)
        except watch.Faulty as late:
            if not seen.faults:
                raise Misfit("takes too long: is there a loop that never ends?") from late
        except (AttributeError, TypeError) as error:
            if isinstance(error, TypeError) and _indexes(error):
                raise Misfit(
                    "takes an element with [ ], and pointers and blocks have none: tl.load(x_ptr + ...) reads, "
                    "tl.store(out_ptr + ..., values) writes"
                ) from None
            if "to_tensor" in str(error):
                raise Misfit(FOREIGN) from None
            raise
    if fault := _worst(seen.faults, names):
        raise Misfit(fault)
    if seen.unwritten(out):
        raise Misfit("leaves part of out as it was: one program writes one whole row")
    if traffic and (heavy := _heavy_traffic(seen, names, (x_t, out, *vectors_t))):
        raise Misfit(heavy)
    return out.numpy().copy()


FOREIGN = "calls what is not Triton's: inside a kernel there is tl, and no NumPy or PyTorch"


def _calls_others(kernel):
    """Whether a kernel names NumPy or PyTorch. NumPy's functions would work here: they call x.exp() in the end."""
    function = getattr(kernel, "fn", kernel)
    if not isinstance(function, types.FunctionType):
        return False
    named = [function.__globals__.get(name) for name in function.__code__.co_names]
    modules = [value.__name__.partition(".")[0] for value in named if isinstance(value, types.ModuleType)]
    return not {"numpy", "torch"}.isdisjoint(modules)


def _indexes(error):
    """Whether an error came up where something was indexed."""
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    return "__getitem__" in names or "__setitem__" in names or "does not support item assignment" in str(error)
