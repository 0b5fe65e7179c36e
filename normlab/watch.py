"""Triton's interpreter, watched: what a kernel does to memory, proven on the CPU, and told in sentences.

    with watch.watched() as seen:
        softmax_kernel[(rows,)](x, y, ..., BLOCK=1024)   # CPU tensors; no GPU, no environment variable
    seen.check()                                          # raises Faulty with the first fault's sentence
    seen.loaded(x) / x.nbytes                             # how often x was read
    seen.efficiency(x)                                    # bytes wanted / bytes of the 32-byte sectors touched

Importing this file imports neither triton nor torch.
"""

import contextlib
import importlib.util
import sys
import time

import numpy as np

from normlab.shadow import Fault, Faulty, Launch, Shadow, Traffic, View

__all__ = ["Fault", "Faulty", "Seen", "interpreted", "watched", "why_not"]


def why_not():
    """None, or a sentence: why no kernels can be interpreted here."""
    if sys.platform != "linux":
        return "Triton is made for Linux alone; kernels are interpreted there."
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install triton."
    try:
        import normlab.interpret  # noqa: F401
    except (ImportError, AttributeError) as error:
        return f"This version of Triton has another interpreter than the one that is known here: {error}."
    return None


def _interpret():
    if reason := why_not():
        raise RuntimeError(reason)
    from normlab import interpret

    return interpret


class Seen:
    """What all launches inside `watched` did.

    faults: what is wrong. remarks: what is allowed, and worth a look ("half-arithmetic"). launches: kernel, grid,
    options and order of each. Where a method takes `which`, that is a tensor (all arguments that are views into its
    elements count) or the name of a kernel's argument.
    """

    def __init__(self):
        self.faults, self.remarks, self.launches = [], [], []
        self._shadows, self._traffic, self._stamp = {}, {}, 1

    def check(self):
        """Raise Faulty with the first fault's sentence, if there is a fault."""
        if self.faults:
            raise Faulty(self.faults[0].sentence, self.faults)

    # -- Called by interpret.py --

    def view(self, kernel, name, tensor):
        storage = tensor.untyped_storage()
        key, unit = storage.data_ptr(), tensor.element_size()
        if key not in self._shadows or self._shadows[key].nbytes != storage.nbytes():
            self._shadows[key] = Shadow(storage, key, storage.nbytes(), unit)
        shadow = self._shadows[key]
        shadow.refine(unit)
        where = (kernel, name, tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)
        traffic = self._traffic.setdefault(where, Traffic(kernel, name, tensor))
        return View(name, tensor, shadow, traffic)

    def begin(self, kernel, pointers, dimensions, grid, ids, options):
        self._stamp += 1
        launch = Launch(self, kernel, pointers, self._stamp)
        order = [tuple(i[:dimensions]) if dimensions > 1 else i[0] for i in ids.tolist()]
        self.launches.append({"kernel": kernel, "grid": grid[:dimensions], "options": options, "order": order})
        return launch

    def end(self, launch):
        self._stamp = launch.stamp

    # -- Traffic --

    def _of(self, which, kernel=None):
        """Records of an argument's name, or of the views into a tensor's elements."""
        records = [t for t in self._traffic.values() if kernel in (None, t.kernel)]
        if isinstance(which, str):
            found = [t for t in records if t.argument == which]
            if not found:
                names = ", ".join(sorted({t.argument for t in records})) or "none"
                raise KeyError(f"No kernel got a tensor as argument {which!r}; the names are: {names}.")
            return found
        low, high = _extent(which)
        return [t for t in records if low <= _extent(t.tensor)[0] and _extent(t.tensor)[1] <= high]

    def loaded(self, which, kernel=None):
        """Bytes loaded, atomics included: lanes that are not masked, times the size of an element."""
        return sum(t.loaded + t.atomic for t in self._of(which, kernel))

    def stored(self, which, kernel=None):
        """Bytes stored, atomics included."""
        return sum(t.stored + t.atomic for t in self._of(which, kernel))

    def efficiency(self, which, way=None, kernel=None):
        """Bytes wanted / bytes of the sectors that held them, of loads, stores (`way`) or both; None if there are none.

        Each run of 32 lanes touches some sectors of 32 bytes. Wanted are the different elements of the run. A row in
        float32 has 1.0, a column 0.125. A lone scalar touches a sector as well.
        """
        if way not in (None, "load", "store"):
            raise ValueError(f"way is 'load', 'store' or None, not {way!r}.")
        pairs = [p for t in self._of(which, kernel) for p in (t.loads, t.stores)[way == "store" : 2 - (way == "load")]]
        moved = sum(p[1] for p in pairs)
        return float(sum(p[0] for p in pairs) / moved) if moved else None

    def restored(self, which, kernel=None):
        """How many stores met an element that the same program had stored before."""
        return sum(t.restored for t in self._of(which, kernel))

    def unwritten(self, tensor):
        """How many elements of the tensor no launch has stored, or updated by an atomic."""
        return tensor.numel() - int(np.count_nonzero(self._touched(tensor, ("writer", "atomic"))))

    def distinct(self, tensor, way):
        """Bytes of the tensor's elements that were loaded (way "load") or stored ("store"), each counted once."""
        names = {"load": ("reader", "atomic"), "store": ("writer", "atomic")}[way]
        return int(np.count_nonzero(self._touched(tensor, names))) * tensor.element_size()

    def _touched(self, tensor, names):
        touched = np.zeros(tuple(tensor.shape), bool)
        shadow = self._shadows.get(tensor.untyped_storage().data_ptr())
        if shadow is not None and tensor.numel():
            for name in names:
                if (array := getattr(shadow, name)) is not None:
                    touched |= shadow.of(tensor, array) != 0
        return touched

    def table(self):
        """A row for each kernel and argument: dictionaries of what `loaded`, `stored` and `efficiency` say."""
        rows = {}
        for t in self._traffic.values():
            rows.setdefault((t.kernel, t.argument), []).append(t)
        return [
            {
                "kernel": kernel,
                "argument": argument,
                "loaded": sum(t.loaded + t.atomic for t in found),
                "stored": sum(t.stored + t.atomic for t in found),
                "load efficiency": self.efficiency(argument, "load", kernel),
                "store efficiency": self.efficiency(argument, "store", kernel),
            }
            for (kernel, argument), found in rows.items()
        ]


def _extent(tensor):
    """First byte and the one behind the last."""
    start, size = tensor.data_ptr(), tensor.element_size()
    if tensor.numel() == 0:
        return start, start
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * size


_active = None


@contextlib.contextmanager
def watched(order=0, poison=True, limit_seconds=None):
    """Every launch kernel[grid](...) on CPU tensors inside is interpreted and watched. Gives a Seen.

    order: seeds the order in which programs run, another one for each launch; None is the natural one.
    poison: lanes that a mask hides load a marked NaN (integers: a large number) where tl.load has no other=.
    limit_seconds: for all launches together; past it Faulty is raised from the launch.
    """
    global _active
    interpret = _interpret()
    if _active is not None:
        raise RuntimeError("Launches are being watched already: watched() does not nest.")
    seen = Seen()
    deadline = None if limit_seconds is None else time.monotonic() + limit_seconds

    def run(kernel, grid, args, kwargs):
        seed = None if order is None else [order, len(seen.launches)]
        return interpret.launch(seen, kernel, grid, args, kwargs, seed, poison, deadline)

    _active = run
    try:
        with interpret.redirected(run):
            yield seen
    finally:
        _active = None


class _Interpreted:
    def __init__(self, kernel):
        self.kernel = kernel
        self.__name__ = kernel.__name__

    def __getitem__(self, grid):
        def launch(*args, **kwargs):
            if _active is not None:
                return _active(self.kernel, grid, args, kwargs)
            with watched() as seen:
                self[grid](*args, **kwargs)
            seen.check()

        return launch


def interpreted(kernel):
    """Something to launch as kernel[grid](...) that always runs in the interpreter, from a function, plain or jitted.

    Inside `watched` it is watched there; outside, each launch is watched by itself and its first fault is raised.
    """
    _interpret().function_of(kernel)
    return kernel if isinstance(kernel, _Interpreted) else _Interpreted(kernel)
