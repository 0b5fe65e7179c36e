"""What passes between a grader and a learner's process: plain data in bounded frames. Nothing is unpickled.

A frame is the length of a JSON text, the length of what follows it, the text, and the bytes of all arrays in a row. In
the text null, true, false, numbers, strings and lists stand for themselves; everything else is an object with one key:

    {"tuple": [...]}  {"dict": [[key, value], ...]}  {"complex": [re, im]}
    {"array": [dtype, shape, strides, offset, size, writable]}   the bytes of the memory that it is a view of
    {"scalar": [dtype, size]}  {"tensor": [dtype, shape, size]}
    {"vast": [dtype, shape]}      an array of more bytes than a frame may have, or of Python objects
    {"generator": state}          a numpy.random.Generator
    {"function": number}          one of the sender's, to be called with `ask`
    {"other": [module, name]}     anything else: its type alone

Both ends share this file. What comes from a learner may be anything at all: whatever is not as above is Malformed.
"""

import json
import math
import struct
import time

import numpy as np

TEXT_BYTES = 2 << 20
ARRAY_BYTES = 128 << 20  # of all arrays of a frame
DEPTH = 40  # lists in lists
AXES = 32
VALUES = 500_000  # in a frame
TYPES = 1000  # of values that are not passed on, in a frame
KEYS = 1000  # of a dictionary: numbers can be chosen so that all of them collide
KINDS = "biufc"  # booleans, integers, floats, complex numbers

_HEAD = struct.Struct("!QQ")


class Gone(Exception):
    """The other end has closed: its process has ended."""


class Late(Exception):
    """The other end has not answered in time."""


class Malformed(Exception):
    """The other end has sent what no frame is."""


# ---- values ----------------------------------------------------------------------------------------------------------


class _Packing:
    def __init__(self, functions):
        self.blobs, self.size, self.functions = [], 0, functions

    def add(self, data):
        self.size += len(data)
        if self.size > ARRAY_BYTES:
            raise OverflowError("too many bytes for one frame")
        self.blobs.append(data)
        return len(data)

    def pack(self, value, depth=0):
        if depth > DEPTH:
            raise OverflowError("nested too deeply for a frame")
        if value is None or type(value) is bool:
            return value
        if isinstance(value, np.generic):
            if value.dtype.kind not in KINDS:
                return _other(value)
            return {"scalar": [value.dtype.str, self.add(value.tobytes())]}
        if isinstance(value, str):
            return str.__str__(value).encode("utf-8", "replace").decode()
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, list):
            return [self.pack(v, depth + 1) for v in value]
        if isinstance(value, tuple):
            return {"tuple": [self.pack(v, depth + 1) for v in value]}
        if isinstance(value, dict):
            return {"dict": [[self.pack(k, depth + 1), self.pack(v, depth + 1)] for k, v in value.items()]}
        if type(value) is np.ndarray:
            return self._array(value)
        if type(value).__module__ == "torch" and type(value).__name__ == "Tensor":
            return self._tensor(value)
        if isinstance(value, np.random.Generator):
            return {"generator": value.bit_generator.state}
        if callable(value) and self.functions is not None:
            self.functions.append(value)
            return {"function": len(self.functions) - 1}
        return _other(value)

    def _array(self, array):
        if array.dtype.kind not in KINDS or array.nbytes > ARRAY_BYTES:
            return {"vast": [array.dtype.str if array.dtype.kind in KINDS else "|O", list(array.shape)]}
        # The memory from the first to the last byte that the array reaches: what is a view arrives as one.
        reach = [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)]
        low, high = sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach) + array.itemsize
        strides, offset = array.strides, -low
        if array.size == 0 or high - low > 4 * array.nbytes + 4096:
            array = np.ascontiguousarray(array).reshape(array.shape)
            strides, offset, low, high = array.strides, 0, 0, array.nbytes
        memory = np.zeros(high - low, np.uint8)
        if array.size:
            np.ndarray(array.shape, array.dtype, memory, offset, strides)[...] = array
        size = self.add(memory.tobytes())
        return {"array": [array.dtype.str, list(array.shape), list(strides), offset, size, bool(array.flags.writeable)]}

    def _tensor(self, tensor):
        tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
        dtype, shape = str(tensor.dtype).removeprefix("torch."), list(tensor.shape)
        if str(tensor.layout) != "torch.strided" or dtype not in DTYPES:
            return _other(tensor)
        if tensor.numel() * tensor.element_size() > ARRAY_BYTES:
            return {"vast": ["<f4", shape]}
        flat = tensor.contiguous().flatten()
        data = flat.view(_torch().uint8).numpy().tobytes() if flat.numel() else b""
        return {"tensor": [dtype, shape, self.add(data)]}


def _torch():
    import torch  # only where a tensor is passed, and then somebody has imported it already

    return torch


def _other(value):
    kind = type(value)
    return {"other": [str(kind.__module__)[:100], str(kind.__name__)[:100]]}


class _Unpacking:
    def __init__(self, data, function):
        self.data, self.at, self.function = data, 0, function
        self.values = self.types = 0

    def take(self, size):
        if type(size) is not int or size < 0 or self.at + size > len(self.data):
            raise Malformed("an array is longer than its bytes")
        self.at += size
        return self.data[self.at - size : self.at]

    def unpack(self, tree, depth=0):
        if depth > DEPTH:
            raise Malformed("values are nested too deeply")
        self.values += 1
        if self.values > VALUES:
            raise Malformed("there are too many values")
        if isinstance(tree, list):
            return [self.unpack(v, depth + 1) for v in tree]
        if not isinstance(tree, dict):
            return tree
        if len(tree) != 1:
            raise Malformed("an object has more or less than one key")
        ((tag, content),) = tree.items()
        read = getattr(self, f"_{tag}", None) if tag in TAGS else None
        if read is None:
            raise Malformed("an object has an unknown key")
        return read(content, depth)

    def _tuple(self, content, depth):
        return tuple(self.unpack(_list(content), depth))

    def _dict(self, content, depth):
        if len(_list(content)) > KEYS:
            raise Malformed("a dictionary has too many keys")
        pairs = [self.unpack(_list(pair, 2), depth + 1) for pair in content]
        return {key if isinstance(key, (str, int, float, bool, tuple)) else str(key): value for key, value in pairs}

    def _complex(self, content, depth):
        return complex(*(float(part) for part in _list(content, 2)))

    def _array(self, content, depth):
        dtype, shape, strides, offset, size, writable = _list(content, 6)
        dtype, shape, strides = _dtype(dtype), _shape(shape), tuple(_ints(strides))
        memory = np.frombuffer(bytearray(_truths(self.take(size), dtype.kind == "b")), np.uint8)
        array = np.ndarray(shape, dtype, memory.data if size else None, offset, strides) if size else None
        if array is None:
            if math.prod(shape):
                raise Malformed("an array has no bytes")
            array = np.zeros(shape, dtype)
        array.flags.writeable = bool(writable)
        return array

    def _scalar(self, content, depth):
        dtype, size = _list(content, 2)
        dtype = _dtype(dtype)
        return np.frombuffer(_truths(self.take(size), dtype.kind == "b"), dtype, count=1)[0]

    def _tensor(self, content, depth):
        name, shape, size = _list(content, 3)
        torch = _torch()
        if name not in DTYPES:
            raise Malformed("a tensor has no such dtype")
        dtype = getattr(torch, name)
        shape, data = _shape(shape), bytearray(_truths(self.take(size), name == "bool"))
        return (torch.frombuffer(data, dtype=dtype) if size else torch.zeros(0, dtype=dtype)).reshape(shape)

    def _vast(self, content, depth):
        dtype, shape = _list(content, 2)
        one = np.empty((), object) if dtype == "|O" else np.zeros((), _dtype(dtype))
        return np.broadcast_to(one, _shape(shape))

    def _generator(self, content, depth):
        kinds = {kind.__name__: kind for kind in (np.random.PCG64, np.random.PCG64DXSM, np.random.Philox)}
        bits = kinds[content["bit_generator"]](0)
        bits.state = content
        return np.random.Generator(bits)

    def _function(self, content, depth):
        if self.function is None or type(content) is not int:
            raise Malformed("a function is where none may be")
        return self.function(content)

    def _other(self, content, depth):
        self.types += 1
        if self.types > TYPES:
            raise Malformed("there are too many types")
        module, name = (str(part)[:100] for part in _list(content, 2))
        return type(name.replace("\0", "") or "object", (Other,), {"__module__": module})()


# Of tensors. There are others in PyTorch; with some of them, bytes of a stranger's end the process that reads them.
DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
DTYPES += ("complex64", "complex128")

TAGS = ("tuple", "dict", "complex", "array", "scalar", "tensor", "vast", "generator", "function", "other")


class Other:
    """Stands for a value that is not passed on; a subclass has the name and the module of its type."""


def _truths(data, are):
    """The bytes; Malformed if they `are` booleans and neither 0 nor 1, of which libraries make what they like."""
    if are and data.translate(None, b"\0\1"):
        raise Malformed("a boolean is neither true nor false")
    return data


def _list(content, length=None):
    if not isinstance(content, list) or length not in (None, len(content)):
        raise Malformed("a value has other parts than it should")
    return content


def _ints(content):
    if not all(type(number) is int and abs(number) < 1 << 62 for number in _list(content)):
        raise Malformed("a size is not a number")
    return content


def _shape(content):
    if len(_ints(content)) > AXES or any(number < 0 for number in content):
        raise Malformed("no array has such a shape")
    return tuple(content)


def _dtype(name):
    if not isinstance(name, str) or len(name) > 8:
        raise Malformed("no array has such a dtype")
    dtype = np.dtype(name)
    if dtype.kind not in KINDS:
        raise Malformed("no array has such a dtype")
    return dtype


def packed(value, functions=None):
    """The frame of a value, as bytes. Functions in it go to the end of the list `functions`, and their numbers with the
    frame; without such a list they are passed as others are. Errors: OverflowError where it is too much for a frame."""
    packing = _Packing(functions)
    try:
        text = json.dumps(packing.pack(value)).encode()
    except (RecursionError, ValueError) as error:
        raise OverflowError(str(error)) from None
    if len(text) > TEXT_BYTES:
        raise OverflowError("too much for one frame")
    return b"".join([_HEAD.pack(len(text), packing.size), text, *packing.blobs])


def unpacked(text, data, function=None):
    """The value of a frame's text and bytes. `function`: what is made of a function's number. Errors: Malformed."""
    try:
        return _Unpacking(data, function).unpack(json.loads(text))
    except Malformed:
        raise
    except Exception as error:  # libraries raise of all kinds, and none of them is to reach the grader
        raise Malformed(f"{type(error).__name__} while a value is read") from None


# ---- frames on a socket ----------------------------------------------------------------------------------------------


class Channel:
    """Sends and receives values over a connected stream socket. A deadline is a time of time.monotonic(), or None."""

    def __init__(self, connection):
        self.connection = connection

    def send(self, value, functions=None, deadline=None):
        """Errors: Gone, Late, OverflowError."""
        frame = packed(value, functions)
        try:
            self._wait(deadline)
            self.connection.sendall(frame)
        except TimeoutError:
            raise Late from None
        except OSError:
            raise Gone from None

    def receive(self, function=None, deadline=None):
        """Errors: Gone, Late, Malformed."""
        text_size, data_size = _HEAD.unpack(self._read(_HEAD.size, deadline))
        if text_size > TEXT_BYTES or data_size > ARRAY_BYTES:
            raise Malformed("a frame is too long")
        return unpacked(self._read(text_size, deadline), self._read(data_size, deadline), function)

    def _read(self, size, deadline):
        data = bytearray()
        while len(data) < size:
            try:
                self._wait(deadline)
                piece = self.connection.recv(min(size - len(data), 1 << 20))
            except TimeoutError:
                raise Late from None
            except OSError:
                raise Gone from None
            if not piece:
                raise Gone
            data += piece
        return bytes(data)

    def _wait(self, deadline):
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
