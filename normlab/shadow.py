"""What a launch did to memory: a shadow beside each storage that knows which program wrote and read each element.

NumPy alone: `interpret.py` tells, `watch.py` asks. A shadow holds five int32 arrays, an entry for each element of its
storage: the last store, the last load, the lanes that did them, and one more reader. They hold **stamps**, numbers that
grow with every program, barrier and sum over a block: a stamp below the launch's first is history, one below the
program's first belongs to another program. Pages of an array that nobody touches cost no memory.
"""

import ctypes
from dataclasses import dataclass, field

import numpy as np

# Lanes of a warp that go to memory together, and the bytes that memory gives at least.
WARP, SECTOR = 32, 32
# Lanes of a block are numbered below 2**20, Triton's largest block. The number of its shape stands above that.
LANES = 1 << 20
NOWHERE = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class Fault:
    """What is wrong: `kind`, the kernel's `argument` (or None), the `program` (an int, or three), a `sentence`."""

    kind: str
    argument: str | None
    program: int | tuple
    sentence: str
    kernel: str = ""


class Faulty(AssertionError):
    """A kernel did what it must not do. The first fault's sentence; `.faults` has all of them."""

    def __init__(self, sentence, faults=()):
        super().__init__(sentence)
        self.faults = list(faults)


@dataclass
class Traffic:
    """Bytes that a kernel moved through one argument, over all launches.

    `loads` and `stores` are (bytes asked for by different lanes, bytes of the sectors that held them).
    """

    kernel: str
    argument: str
    tensor: object
    loaded: int = 0
    stored: int = 0
    atomic: int = 0
    restored: int = 0
    loads: list = field(default_factory=lambda: [0, 0])
    stores: list = field(default_factory=lambda: [0, 0])


class Shadow:
    """Stamps beside one storage. `unit` is the size of its elements in bytes."""

    ARRAYS = ("writer", "writer_lane", "reader", "reader_lane", "other_reader", "atomic", "other_atomic")

    def __init__(self, storage, address, nbytes, unit):
        self.storage, self.address, self.nbytes, self.unit = storage, address, nbytes, unit
        for name in self.ARRAYS[:5]:
            setattr(self, name, np.zeros(nbytes // unit, np.int32))
        self.atomic = self.other_atomic = None
        self.stored_in = self.atomic_in = 0  # the last launch that did

    def refine(self, unit):
        """Smaller elements, when an argument views the same storage in a narrower dtype."""
        if unit < self.unit:
            for name in self.ARRAYS:
                if (array := getattr(self, name)) is not None:
                    setattr(self, name, np.repeat(array, self.unit // unit))
            self.unit = unit

    def memory(self, dtype):
        """The storage as an array, without a pointer that could lead elsewhere."""
        whole = self.nbytes // dtype.itemsize * dtype.itemsize
        return np.ctypeslib.as_array((ctypes.c_ubyte * whole).from_address(self.address)).view(dtype)

    def read(self, at, dtype):
        """A copy of what lies at positions `at`."""
        raw = self.memory(np.dtype(f"u{self.unit}"))[at]
        return raw.copy().view(dtype) if isinstance(at, slice) else raw.view(dtype)

    def write(self, at, values):
        """Later lanes win where two have the same address."""
        unit = np.dtype(f"u{self.unit}")
        self.memory(unit)[at] = np.ascontiguousarray(values).view(unit)

    def atomics(self):
        if self.atomic is None:
            self.atomic, self.other_atomic = np.zeros((2, self.writer.size), np.int32)
        return self.atomic

    def of(self, tensor, array):
        """The stamps of a tensor's elements, in its shape."""
        itemsize = tensor.element_size()
        start = (tensor.data_ptr() - self.address) // self.unit
        per = itemsize // self.unit
        strides = [stride * per * array.itemsize for stride in tensor.stride()]
        return np.lib.stride_tricks.as_strided(array[start:], tuple(tensor.shape), strides, writeable=False)


class View:
    """A tensor argument: which addresses are its elements."""

    def __init__(self, name, tensor, shadow, traffic):
        self.name, self.shadow, self.traffic = name, shadow, traffic
        self.address, self.itemsize = tensor.data_ptr(), tensor.element_size()
        self.shape, self.strides = tuple(tensor.shape), tuple(tensor.stride())
        self.numel = tensor.numel()
        self.shift = self.itemsize.bit_length() - 1
        self.span = (
            0 if self.numel == 0 else 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        )
        self.members = None
        if self.numel and self.span > self.numel:
            self.members = np.zeros(self.span, bool)
            np.lib.stride_tricks.as_strided(self.members, self.shape, self.strides)[...] = True

    def element(self, index):
        """The element at offset `index`, as a learner would write it."""
        if len(self.shape) > 1 and self.is_row_major():
            return f"{self.name}[{', '.join(map(str, map(int, np.unravel_index(int(index), self.shape))))}]"
        if len(self.shape) > 1 and 0 <= index < self.span:
            rest, at = int(index), [0] * len(self.shape)
            for d in sorted(range(len(self.shape)), key=lambda d: -self.strides[d]):
                if self.strides[d]:
                    at[d] = min(rest // self.strides[d], self.shape[d] - 1)
                    rest -= at[d] * self.strides[d]
            if rest == 0:
                return f"{self.name}[{', '.join(map(str, at))}]"
        return f"element {index} of {self.name}"

    def is_row_major(self):
        expected = np.cumprod([1, *self.shape[:0:-1]])[::-1]
        return all(n == 1 or s == e for n, s, e in zip(self.shape, self.strides, expected, strict=True))


def sectors(addresses, ok, size):
    """Bytes of different elements that runs of 32 lanes ask for, and bytes of the 32-byte sectors that hold them.

    Lanes run along the axis in which addresses are neighbors (Triton lays its threads out so), else along the last.
    """
    if addresses.ndim > 1:
        origin = addresses[(0,) * addresses.ndim]
        axes = [d for d, n in enumerate(addresses.shape) if n > 1]
        near = [d for d in axes if int(addresses[tuple(int(k == d) for k in range(addresses.ndim))] - origin) == size]
        if near:
            addresses, ok = np.moveaxis(addresses, near[-1], -1), ok if ok is None else np.moveaxis(ok, near[-1], -1)
    addresses = addresses.reshape(-1)
    if ok is not None:
        addresses = np.where(ok.reshape(-1), addresses, NOWHERE)
    if addresses.size % WARP:
        addresses = np.pad(addresses, (0, -addresses.size % WARP), constant_values=NOWHERE)
    runs = addresses.reshape(-1, WARP)
    if (runs[:, 1:] < runs[:, :-1]).any():
        runs = np.sort(runs, axis=1)
    # A masked lane stands last in its run, and is counted once there.
    counted = len(runs) - np.count_nonzero(runs[:, -1] == NOWHERE)
    lanes = np.count_nonzero(runs[:, 1:] != runs[:, :-1]) + counted
    held = runs >> np.uint64(5)
    touched = np.count_nonzero(held[:, 1:] != held[:, :-1]) + counted
    return lanes * size, touched * SECTOR


def row_sectors(address, n, size):
    """The same for n neighbors from `address` on, without looking at each."""
    run = WARP * size
    touched = n // WARP * (size + (address % SECTOR != 0))
    if n % WARP:
        start = address + n // WARP * run
        touched += (start + n % WARP * size - 1) // SECTOR - start // SECTOR + 1
    return n * size, touched * SECTOR


class Launch:
    """One launch while it runs: its arguments, the program at work, and the faults it finds."""

    def __init__(self, seen, kernel, arguments, stamp):
        """`arguments`: name -> tensor. `stamp`: larger than all before."""
        self.seen, self.kernel = seen, kernel
        self.first = self.program_first = self.stamp = stamp
        self.views = {name: seen.view(kernel, name, tensor) for name, tensor in arguments.items()}
        self.programs = [(stamp, None)]
        self.shapes, self.lanes, self.told = {}, {}, set()

    def begin(self, program):
        self.stamp += 1
        self.program_first, self.program = self.stamp, program
        self.programs.append((self.stamp, program))
        self.fence = self.stamp

    def barrier(self):
        self.stamp += 1
        self.fence = self.stamp

    def reduced(self):
        """A sum over a block: what was loaded before it was loaded by all threads. For stores it says nothing."""
        self.stamp += 1

    # -- Which program --

    def program_of(self, stamp):
        low, high = 0, len(self.programs)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.programs[middle][0] <= stamp else (low, middle)
        return self.programs[low][1]

    def foreign(self, stamps):
        """Where another program of this launch left its stamp."""
        return (stamps >= self.first) & (stamps < self.program_first)

    def tell(self, kind, view, sentence, *key, remark=False):
        """Note a fault, once in a launch for each argument and reason."""
        name = view.name if view else None
        if (kind, name, *key) in self.told:
            return
        self.told.add((kind, name, *key))
        fault = Fault(kind, name, self.program, f"{self.kernel}: {sentence()}", self.kernel)
        (self.seen.remarks if remark else self.seen.faults).append(fault)

    # -- Which elements --

    def lanes_of(self, shape):
        """A number for each lane of a block: where it stands, and in what shape (axes of length 1 do not count)."""
        shape = tuple(n for n in shape if n > 1)
        if shape not in self.lanes:
            n = int(np.prod(shape))
            self.lanes[shape] = np.arange(n, dtype=np.int32) + len(self.lanes) * LANES
        return self.lanes[shape]

    def find(self, addresses, ok, size, name, verb):
        """(view, positions, lanes, lanes that fall on elements - None: all) of an access with mask `ok` or None."""
        view = self.views.get(name)
        if view is None:
            view = self.guess(addresses, ok)
        flat, mask = addresses.reshape(-1), None if ok is None else ok.reshape(-1)
        lanes = self.lanes_of(addresses.shape)
        if view is None:
            if mask is None or mask.any():
                self.tell("out-of-bounds", None, lambda: self.nowhere(verb), verb)
            return None, None, lanes[:0], np.zeros(addresses.shape, bool)
        view.shadow.refine(size)
        wide = size >> view.shift if size > view.itemsize else 1
        if mask is not None:
            chosen = np.flatnonzero(mask)
            if chosen.size and chosen[-1] - chosen[0] == chosen.size - 1:
                chosen = slice(int(chosen[0]), int(chosen[-1]) + 1)
            flat, lanes = flat[chosen], lanes[chosen]
        if flat.size == 0:
            return view, slice(0, 0), lanes, ok
        offset = (flat - np.uint64(view.address)).view(np.int64)
        aligned = min(size, view.itemsize) - 1
        start, n = int(offset[0]), offset.size
        if wide == 1 and size == view.itemsize and start & aligned == 0:
            last = start + (n - 1) * size
            if int(offset[-1]) == last and (n < 3 or (offset[1:] - offset[:-1] == size).all()):
                start, last = start >> view.shift, last >> view.shift
                if 0 <= start and last < view.span and (view.members is None or view.members[start : last + 1].all()):
                    return view, self.neighbors(view, start, n), lanes, ok
        index = offset >> view.shift
        inside = index.view(np.uint64) < np.uint64(max(0, view.span - wide + 1))
        if aligned:
            inside &= (offset & aligned) == 0
        if view.members is not None:
            inside &= view.members[np.where(inside, index, 0)]
        if not inside.all():
            self.outside(view, index[~inside], verb)
            offset, lanes = offset[inside], lanes[inside]
            wanted = np.zeros(addresses.size, bool)
            wanted[np.arange(addresses.size)[slice(None) if mask is None else chosen][inside]] = True
            ok = wanted.reshape(addresses.shape)
        return view, self.positions(view, offset, size), lanes, ok

    def guess(self, addresses, ok):
        """The argument in whose storage most of the addresses lie, for pointers that were made from integers."""
        flat = addresses.reshape(-1) if ok is None else addresses[ok]
        best, most = None, 0
        for view in self.views.values():
            low, high = np.uint64(view.shadow.address), np.uint64(view.shadow.address + view.shadow.nbytes)
            hits = np.count_nonzero((flat >= low) & (flat < high))
            if hits > most:
                best, most = view, hits
        return best

    @staticmethod
    def neighbors(view, first, n):
        """Positions of n neighbors: a slice, unless the shadow is finer than the view."""
        shadow = view.shadow
        start = (view.address - shadow.address) // shadow.unit
        per = view.itemsize // shadow.unit
        return slice(start + first * per, start + (first + n) * per)

    @staticmethod
    def positions(view, offset, size):
        """Positions in the shadow; several for each lane where the access is wider than they are."""
        shadow = view.shadow
        position = (offset + (view.address - shadow.address)) // shadow.unit
        per = size // shadow.unit
        return position if per == 1 else (position[:, None] + np.arange(per)).reshape(-1)

    # -- Sentences --

    def outside(self, view, index, verb):
        shadow, n = view.shadow, index.size
        first = int(index[0])
        byte = view.address + first * view.itemsize - shadow.address
        within = 0 <= byte < shadow.nbytes
        many = f"{n} of the lanes do so" if n > 1 else "one lane does so"
        shape = " x ".join(map(str, view.shape)) or "1"

        def sentence():
            if within:
                return (
                    f"program {self.program} {verb}s at offset {first} from the start of {view.name}. That is inside "
                    f"its memory, but not an element of it: {view.name} is {shape} with strides {view.strides} "
                    f"({many}). Is a stride wrong, or does the mask compare with the wrong size?"
                )
            where = f"{-first} elements before {view.name}" if first < 0 else f"at offset {first} from its start"
            return (
                f"program {self.program} {verb}s outside of {view.name}, {where}; {view.name} is {shape}, "
                f"{view.numel} elements ({many}). Is a mask missing, or does it compare with the wrong size?"
            )

        self.tell("stride" if within else "out-of-bounds", view, sentence, verb)

    def nowhere(self, verb):
        return (
            f"program {self.program} {verb}s at an address that belongs to no tensor argument of the launch. Is a "
            "pointer added to something that is not an offset, or was an index loaded where nothing was?"
        )

    def race(self, view, at, where, stamps, lanes, mine, theirs):
        """A race with another program, at the first place where `where` holds."""

        def sentence():
            k = int(np.argmax(where))
            other = self.program_of(int(stamps[k]))
            element = self.element(view, at, k)
            if mine == theirs:
                return (
                    f"program {self.program} and program {other} both {mine} {element}: what ends up there depends on "
                    f"which comes last. Let each element belong to one program, or use tl.atomic_add."
                )
            return (
                f"program {self.program} {mine}s {element} and program {other} {theirs}s it, in one launch: programs "
                "run in any order and at once. Write to another tensor, or split the work into two launches."
            )

        self.tell("race", view, sentence, mine, theirs)

    @staticmethod
    def element(view, at, k):
        shadow = view.shadow
        position = at.start + k if isinstance(at, slice) else int(at[k])
        return view.element(
            (position - (view.address - shadow.address) // shadow.unit) // (view.itemsize // shadow.unit)
        )

    # -- What happens --

    def count(self, view, addresses, at, wanted, n, size, into):
        if n == 0:
            return
        if isinstance(at, slice):
            asked, moved = row_sectors(view.shadow.address + at.start * view.shadow.unit, n, size)
        else:
            asked, moved = sectors(addresses, wanted, size)
        into[0] += asked
        into[1] += moved

    def load(self, addresses, ok, size, name):
        """(view, positions, lanes that are there): what may be loaded; no view where there is nothing, None for all."""
        view, at, lanes, wanted = self.find(addresses, ok, size, name, "load")
        if view is None or lanes.size == 0:
            return None, None, wanted
        shadow, traffic = view.shadow, view.traffic
        traffic.loaded += lanes.size * size
        self.count(view, addresses, at, wanted, lanes.size, size, traffic.loads)
        lanes = self.spread(at, lanes)
        if shadow.stored_in == self.first:
            w = shadow.writer[at]
            if (hit := self.foreign(w)).any():
                self.race(view, at, hit, w, lanes, "load", "store")
            own = w >= self.fence
            if addresses.size > 1:  # a scalar is stored by one thread and loaded by all
                own &= shadow.writer_lane[at] != lanes
            if own.any():
                self.own_race(view, at, own)
        if shadow.atomic_in == self.first:
            self.against_atomics(view, at, lanes, "load")
        r = shadow.reader[at]
        if (others := self.foreign(r)).any():
            if isinstance(at, slice):
                np.copyto(shadow.other_reader[at], r, where=others)
            else:
                shadow.other_reader[at[others]] = r[others]
        shadow.reader[at] = self.stamp
        shadow.reader_lane[at] = lanes
        return view, at, wanted

    def store(self, addresses, ok, size, name, values):
        view, at, lanes, wanted = self.find(addresses, ok, size, name, "store")
        if view is None or lanes.size == 0:
            return None, None, wanted
        shadow, traffic = view.shadow, view.traffic
        traffic.stored += lanes.size * size
        self.count(view, addresses, at, wanted, lanes.size, size, traffic.stores)
        n, lanes = lanes.size, self.spread(at, lanes)
        w, r, other = shadow.writer[at], shadow.reader[at], shadow.other_reader[at]
        if (hit := self.foreign(w)).any():
            self.race(view, at, hit, w, lanes, "store", "store")
        traffic.restored += int(np.count_nonzero(w >= self.program_first)) * n // lanes.size
        if (hit := self.foreign(r)).any():
            self.race(view, at, hit, r, lanes, "store", "load")
        if (hit := self.foreign(other)).any():
            self.race(view, at, hit, other, lanes, "store", "load")
        own = (r == self.stamp) & (shadow.reader_lane[at] != lanes)
        if own.any():
            self.own_race(view, at, own)
        if shadow.atomic_in == self.first:
            self.against_atomics(view, at, lanes, "store")
        shadow.writer[at] = self.stamp
        shadow.writer_lane[at] = lanes
        if not isinstance(at, slice) and (twice := shadow.writer_lane[at] != lanes).any():
            self.stored_twice(view, at, twice, lanes, values, wanted)
        shadow.stored_in = self.first
        return view, at, wanted

    def atomic(self, addresses, ok, size, name):
        view, at, lanes, wanted = self.find(addresses, ok, size, name, "atomically update")
        if view is None or lanes.size == 0:
            return None, None, wanted
        shadow, traffic = view.shadow, view.traffic
        traffic.atomic += lanes.size * size
        self.count(view, addresses, at, wanted, lanes.size, size, traffic.loads)
        self.count(view, addresses, at, wanted, lanes.size, size, traffic.stores)
        lanes = self.spread(at, lanes)
        if shadow.stored_in == self.first and (hit := self.foreign(w := shadow.writer[at])).any():
            self.race(view, at, hit, w, lanes, "atomically update", "store")
        for stamps in (shadow.reader[at], shadow.other_reader[at]):
            if (hit := self.foreign(stamps)).any():
                self.race(view, at, hit, stamps, lanes, "atomically update", "load")
        a = shadow.atomics()[at]
        np.copyto(a, shadow.other_atomic[at], where=~self.foreign(a))
        shadow.other_atomic[at] = a
        shadow.atomic[at] = self.stamp
        shadow.atomic_in = self.first
        return view, at, wanted

    def against_atomics(self, view, at, lanes, mine):
        shadow = view.shadow
        for stamps in (shadow.atomic[at], shadow.other_atomic[at]):
            if (hit := self.foreign(stamps)).any():
                self.race(view, at, hit, stamps, lanes, mine, "atomically update")

    @staticmethod
    def spread(at, lanes):
        """A lane for each position, where an access is wider than a position."""
        n = at.stop - at.start if isinstance(at, slice) else at.size
        return lanes if n == lanes.size else np.repeat(lanes, n // lanes.size)

    def own_race(self, view, at, where):
        def sentence():
            element = self.element(view, at, int(np.argmax(where)))
            return (
                f"program {self.program} loads and stores {element} in blocks of different shapes or places, so that "
                "different threads do it, and none waits for the other. Keep the value in a variable, use the same "
                "offsets for both, or put tl.debug_barrier() between them."
            )

        self.tell("race", view, sentence, "own")

    def stored_twice(self, view, at, where, lanes, values, wanted):
        """Lanes of one store that meet at one address: harmless only if they bring the same value."""
        if len(at) != lanes.size or values is None:
            return
        flat = values.reshape(-1) if wanted is None else values[wanted]
        if len(flat) != len(at):
            return
        order = np.argsort(at, kind="stable")
        same = at[order][1:] == at[order][:-1]
        bits = flat.view(f"u{flat.itemsize}")[order]
        differ = same & (bits[1:] != bits[:-1])
        if differ.any():
            k = int(order[1:][int(np.argmax(differ))])
            self.tell(
                "race",
                view,
                lambda: (
                    f"program {self.program} stores different values to {self.element(view, at, k)} in one tl.store: "
                    "several lanes have the same address, and any of them may come last. Is a stride 0, or an index "
                    "not multiplied?"
                ),
                "lanes",
            )
