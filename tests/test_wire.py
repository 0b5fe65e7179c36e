"""What passes between a grader and a learner's process: what is sent arrives, and whatever a stranger sends is a value
or Malformed."""

import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from normlab.drive import wire


def sent(value, functions=None, function=None):
    frame = wire.packed(value, functions)
    size, data = struct.unpack("!QQ", frame[:16])
    return wire.unpacked(frame[16 : 16 + size], frame[16 + size : 16 + size + data], function)


def read(tree, data=b""):
    return wire.unpacked(json.dumps(tree).encode(), data)


# ---- what is sent arrives --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -7, 10**30, 1.5, float("inf"), -0.0, 2 + 3j, "text", "\N{SNOWMAN}", ""),
        *([], [1, [2, [3]]], (), (1, (2,)), {}, {"a": [1], 3: (4,)}, [None, {"tuple": [1]}]),
    ],
)
def test_plain_values_arrive(value):
    got = sent(value)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u2", "?", "c8", ">f4"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_arrays_arrive(dtype, shape):
    array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2).astype(dtype)
    got = sent(array)
    assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_views_arrive_as_views_and_what_may_not_be_written_may_not_there():
    whole = np.arange(24.0).reshape(4, 6)
    for view in (whole[::-1], whole[:, ::2], whole.T, whole[1:3, 1:3], np.broadcast_to(np.float32(2), (3, 3))):
        got = sent(view)
        assert got.strides == view.strides
        np.testing.assert_array_equal(got, view)
        assert got.flags.writeable == view.flags.writeable


@pytest.mark.parametrize("name", wire.DTYPES)
def test_tensors_arrive(name):
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, name))
    got = sent(tensor)
    assert got.dtype == tensor.dtype
    assert torch.equal(got, tensor)


def test_lazy_and_unusual_tensors_arrive_as_what_they_are():
    lazy = torch.tensor([1 + 2j, 3 - 1j]).conj()
    assert torch.equal(sent(lazy), lazy.resolve_conj())
    assert isinstance(sent(torch.eye(2).to_sparse()), wire.Other)
    assert isinstance(sent(torch.zeros(2, dtype=torch.uint16)), wire.Other)


def test_numbers_with_a_dtype_keep_it():
    for number in (np.float32(1.5), np.int8(-3), np.bool_(True), np.complex64(1j), np.float16(2)):
        got = sent(number)
        assert type(got) is type(number)
        assert got == number


def test_generators_go_on_where_they_were():
    rng = np.random.default_rng(3)
    rng.random(5)
    assert sent(rng).random() == rng.random()


def test_functions_are_numbered_and_called_by_number():
    kept = []
    got = sent({"f": len, "g": abs}, kept, lambda number: ("function", number))
    assert kept == [len, abs]
    assert got == {"f": ("function", 0), "g": ("function", 1)}


def test_what_is_not_passed_is_named():
    class Strange(dict.__base__):
        pass

    got = sent([Strange(), np.array([None]), np.ma.zeros(2), len])
    assert isinstance(got[0], wire.Other)
    assert type(got[0]).__name__ == "Strange"
    assert got[1].dtype == object
    assert type(got[2]).__name__ == "MaskedArray"
    assert isinstance(got[3], wire.Other)


def test_subclasses_of_plain_types_come_as_plain():
    class Text(str):
        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    class Number(int):
        def __int__(self):
            return 7

    assert type(sent(Text("a"))) is str
    assert type(sent(Number(7))) is int


def test_a_terabyte_that_is_none_is_named_by_its_shape():
    got = sent(np.broadcast_to(np.float32(1), (1 << 20, 1 << 20)))
    assert got.shape == (1 << 20, 1 << 20)
    assert got.strides == (0, 0)


@pytest.mark.parametrize(
    "value",
    [
        [0] * (wire.TEXT_BYTES // 2),
        [np.zeros(wire.ARRAY_BYTES - 10, np.int8), np.zeros(11, np.int8)],
        "x" * (wire.TEXT_BYTES + 1),
        10**5000,
    ],
    ids=["long", "large", "text", "number"],
)
def test_too_much_is_refused_by_the_sender(value):
    with pytest.raises(OverflowError):
        wire.packed(value)


def test_depth_is_refused_by_the_sender():
    deep = []
    deep.append(deep)
    with pytest.raises(OverflowError, match="deep"):
        wire.packed(deep)


# ---- what a stranger sends -------------------------------------------------------------------------------------------

MALFORMED = {
    "no JSON": (b"{", b""),
    "no text": (b"\xff\xfe", b""),
    "nothing": (b"", b""),
    "depth of JSON": (b"[" * 100_000, b""),
    "depth of values": (b"[" * 60 + b"]" * 60, b""),
    "a number of many digits": (b"9" * 10_000, b""),
    "two keys": (b'{"tuple": [], "dict": []}', b""),
    "no key": (b"{}", b""),
    "a method's name": (b'{"take": 1}', b""),
    "a dunder": (b'{"_init__": 1}', b""),
    "a pair of three": (b'{"dict": [[1, 2, 3]]}', b""),
    "a key that is a list": (b'{"dict": [[{"tuple": [[1]]}, 2]]}', b""),
    "keys without end": (json.dumps({"dict": [[i, 0] for i in range(wire.KEYS + 1)]}).encode(), b""),
    "types without end": (json.dumps([{"other": ["a", "b"]}] * (wire.TYPES + 1)).encode(), b""),
    "values without end": (b"[" + b"0," * wire.VALUES + b"0]", b""),
    "fewer bytes than said": (b'{"array": ["<f8", [2], [8], 0, 16, true]}', b"12345678"),
    "reach behind the end": (b'{"array": ["<f8", [9], [8], 0, 8, true]}', b"12345678"),
    "reach before the beginning": (b'{"array": ["<f8", [2], [-8], 0, 8, true]}', b"12345678"),
    "a negative offset": (b'{"array": ["<f8", [1], [8], -8, 8, true]}', b"12345678"),
    "a broken offset": (b'{"array": ["<f8", [1], [8], 0.5, 8, true]}', b"12345678"),
    "a negative length": (b'{"array": ["<f8", [-1], [8], 0, 8, true]}', b"12345678"),
    "a negative size": (b'{"array": ["<f8", [1], [8], 0, -8, true]}', b"12345678"),
    "33 axes": (json.dumps({"vast": ["<f4", [1] * 33]}).encode(), b""),
    "objects": (b'{"array": ["|O", [1], [8], 0, 8, true]}', b"12345678"),
    "structures": (b'{"array": ["f4,f4", [1], [8], 0, 8, true]}', b"12345678"),
    "texts": (b'{"array": ["<U2", [1], [8], 0, 8, true]}', b"12345678"),
    "no boolean": (b'{"array": ["|b1", [1], [1], 0, 1, true]}', b"\x02"),
    "no boolean, alone": (b'{"scalar": ["|b1", 1]}', b"\xff"),
    "no boolean, in a tensor": (b'{"tensor": ["bool", [1], 1]}', b"\x80"),
    "a quantized tensor": (b'{"tensor": ["quint8", [4], 4]}', b"1234"),
    "a tensor of bits": (b'{"tensor": ["bits8", [4], 4]}', b"1234"),
    "a tensor of no dtype": (b'{"tensor": ["nn", [4], 4]}', b"1234"),
    "a tensor of another shape": (b'{"tensor": ["float32", [1099511627776, 0], 4]}', b"1234"),
    "half a number": (b'{"tensor": ["float32", [1], 3]}', b"123"),
    "a function": (b'{"function": 0}', b""),
    "a generator of no kind": (b'{"generator": {"dict": [["bit_generator", "os"]]}}', b""),
    "a generator of no state": (b'{"generator": {"bit_generator": "PCG64", "state": [1]}}', b""),
    "a type without a module": (b'{"other": ["a"]}', b""),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name):
    with pytest.raises(wire.Malformed):
        wire.unpacked(*MALFORMED[name])


def test_names_of_types_are_only_names():
    value = read({"other": ["os", "\0" + "x" * 500]})
    assert isinstance(value, wire.Other)
    assert len(type(value).__name__) <= 100


def tree(rng, depth=0):
    """Something like a frame's text."""
    atoms = [
        None,
        True,
        0,
        -1,
        2**62,
        10**40,
        0.5,
        float("nan"),
        "",
        "<f4",
        "|O",
        "|b1",
        "<c16",
        "float32",
        "bool",
        "x",
    ]
    chance = rng.random()
    if depth > 4 or chance < 0.3:
        return rng.choice(atoms)
    if chance < 0.5:
        return [tree(rng, depth + 1) for _ in range(rng.randrange(5))]
    if chance < 0.6:
        return {rng.choice(["tuple", "q", "state"]): tree(rng, depth + 1) for _ in range(rng.randrange(3))}
    tag = rng.choice(wire.TAGS)
    sizes, steps = [0, 1, 2, 3, 2**40, 2**62 - 1, -1], [0, 1, 4, 8, -4, 2**40, 2**62 - 1]
    if tag == "array":
        shape = [rng.choice(sizes) for _ in range(rng.randrange(4))]
        strides = [rng.choice(steps) for _ in shape]
        dtype = rng.choice(["<f4", "<f8", "|b1", ">i2", "<c16", "|u1"])
        return {tag: [dtype, shape, strides, rng.choice([0, 1, 4, -4, 2**40]), rng.choice([0, 1, 4, 16, 64]), True]}
    if tag == "vast":
        return {tag: [rng.choice(["|O", "<f4"]), [rng.choice([0, 1, 2**31, 2**40]) for _ in range(rng.randrange(4))]]}
    if tag == "tensor":
        return {tag: [rng.choice([*wire.DTYPES, "quint8"]), [rng.choice([0, 1, 4, 2**40])], rng.choice([0, 4, 8])]}
    return {tag: tree(rng, depth + 1)}


def test_whatever_comes_is_a_value_or_malformed():
    rng, values, malformed = random.Random(0), 0, 0
    for _ in range(20_000):
        text = json.dumps(tree(rng)).encode()
        try:
            value = wire.unpacked(text, bytes(256))
        except wire.Malformed:
            malformed += 1
            continue
        values += 1
        for array in (v for v in (value if isinstance(value, list) else [value]) if isinstance(v, np.ndarray)):
            assert array.size == 0 or array.base is not None  # a few bytes, whatever the shape says
    assert values > 3000
    assert malformed > 3000


def test_bytes_that_were_changed_on_the_way():
    frame = bytearray(wire.packed([np.arange(5.0), {"a": (1, "b")}, torch.ones(3)])[16:])
    size = len(json.dumps(json.loads(frame[: frame.rindex(b"]") + 1])))
    rng = random.Random(1)
    for _ in range(3000):
        changed = bytearray(frame)
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(size)] = rng.randrange(256)
        try:
            wire.unpacked(bytes(changed[:size]), bytes(changed[size:]))
        except wire.Malformed:
            pass


# ---- without the limits ----------------------------------------------------------------------------------------------


def seconds(tree_):
    text, began = json.dumps(tree_).encode(), time.process_time()
    try:
        wire.unpacked(text, b"")
    except wire.Malformed:
        pass
    return time.process_time() - began


def test_without_a_limit_keys_that_collide_cost_minutes(monkeypatch):
    colliding = {"dict": [[i * (2**61 - 1), 0] for i in range(6000)]}
    with pytest.raises(wire.Malformed, match="keys"):
        read(colliding)
    monkeypatch.setattr(wire, "KEYS", 1 << 30)
    others = {"dict": [[i * (2**61 - 2), 0] for i in range(6000)]}
    # It grows with the square of their number, and a frame has room for 70,000.
    assert min(seconds(colliding) for _ in range(2)) > 5 * min(seconds(others) for _ in range(3))


def test_other_dtypes_of_tensors_end_who_reads_them():
    source = (
        "import json, torch, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from normlab.drive import wire\n"
        "wire.DTYPES = [n for n in dir(torch) if isinstance(getattr(torch, n), torch.dtype)]\n"
        "for name in wire.DTYPES:\n"
        "    for shape in ([4], [2], [1], [0], []):\n"
        "        for size in (0, 4, 8):\n"
        "            try: value = wire.unpacked(json.dumps({'tensor': [name, shape, size]}).encode(), bytes(64))\n"
        "            except wire.Malformed: continue\n"
        "            try: value == value, value.double(), str(value)\n"
        "            except Exception: pass\n"
    )
    kept = subprocess.run([sys.executable, "-c", source.replace("wire.DTYPES = [", "_ = [")], capture_output=True)
    assert kept.returncode == 0, kept.stderr
    assert subprocess.run([sys.executable, "-c", source], capture_output=True).returncode < 0


# ---- a channel -------------------------------------------------------------------------------------------------------


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield wire.Channel(ours), theirs


def test_a_channel_carries_values_both_ways(ends):
    channel, other = ends
    other = wire.Channel(other)
    big = np.random.default_rng(0).random(1 << 20)  # more than a socket holds
    thread = threading.Thread(target=channel.send, args=([big, "x"],))
    thread.start()
    got = other.receive(deadline=time.monotonic() + 20)
    thread.join()
    np.testing.assert_array_equal(got[0], big)
    other.send({"a": 1})
    assert channel.receive() == {"a": 1}


def test_silence_is_late_and_an_end_is_gone(ends):
    channel, other = ends
    with pytest.raises(wire.Late):
        channel.receive(deadline=time.monotonic() + 0.05)
    other.sendall(struct.pack("!QQ", 10, 0) + b"12345")
    with pytest.raises(wire.Late):
        channel.receive(deadline=time.monotonic() + 0.05)
    other.close()
    with pytest.raises(wire.Gone):
        channel.receive(deadline=time.monotonic() + 5)


def test_who_does_not_listen_is_late(ends):
    channel, _ = ends
    with pytest.raises(wire.Late):
        channel.send(np.zeros(1 << 22), deadline=time.monotonic() + 0.2)


@pytest.mark.parametrize("head", [(wire.TEXT_BYTES + 1, 0), (0, wire.ARRAY_BYTES + 1), (2**63, 2**63)])
def test_a_frame_that_says_it_is_long_is_not_waited_for(ends, head):
    channel, other = ends
    other.sendall(struct.pack("!QQ", *head))
    with pytest.raises(wire.Malformed):
        channel.receive(deadline=time.monotonic() + 5)
