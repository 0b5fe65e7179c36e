"""Each detector of the watched interpreter finds a planted bug and is silent on right kernels in several styles; it
rounds as hardware does; it counts traffic right; it puts back what it patched."""

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from normlab import watch

if reason := watch.why_not():
    pytest.skip(f"{reason} Not checked: the watched interpreter.", allow_module_level=True)

import triton
import triton.language as tl

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))


def drawn(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def snapshot():
    packages = (tl, tl.core, tl.math, tl.tensor, triton.runtime.jit.JITFunction, triton.runtime.interpreter)
    return [dict(vars(package)) for package in packages]


BEFORE = snapshot()


# ---- Right kernels, in several styles -------------------------------------------------------------------------------


@triton.jit
def fused(x_ptr, y_ptr, stride, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + cols, mask=cols < n, other=-float("inf")).to(tl.float32)
    e = tl.exp(x - tl.max(x, axis=0))
    tl.store(y_ptr + row * stride + cols, e / tl.sum(e, axis=0), mask=cols < n)


@triton.jit
def three_pass(x_ptr, y_ptr, stride, n, BLOCK: tl.constexpr):
    x_ptr += tl.program_id(0) * stride
    y_ptr += tl.program_id(0) * stride
    largest = -float("inf")
    for start in range(0, n, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + cols, mask=cols < n, other=-float("inf"), eviction_policy="evict_last").to(tl.float32)
        largest = tl.maximum(largest, tl.max(x, axis=0))
    total = 0.0
    for start in range(0, n, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + cols, mask=cols < n, other=-float("inf"), cache_modifier=".ca").to(tl.float32)
        total += tl.sum(tl.exp(x - largest), axis=0)
    for start in tl.range(0, n, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + cols, mask=cols < n).to(tl.float32)  # hidden lanes are never stored
        tl.store(y_ptr + cols, tl.exp(x - largest) / total, mask=cols < n)


@triton.jit
def largest_of_row(x):
    return tl.max(x, axis=1)[:, None]


@triton.jit
def tiles(x_ptr, y_ptr, stride, n, rows, BLOCK: tl.constexpr, ROWS: tl.constexpr = 4):
    """2-D tiles, persistent programs, a helper, where instead of other."""
    wide: tl.constexpr = BLOCK
    for tile in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        at = tile * ROWS + tl.arange(0, ROWS)
        cols = tl.max_contiguous(tl.multiple_of(tl.arange(0, wide), wide), wide)
        offsets = at[:, None].to(tl.int64) * stride + cols[None, :]
        mask = (at[:, None] < rows) & (cols[None, :] < n)
        x = tl.where(mask, tl.load(x_ptr + offsets, mask=mask).to(tl.float32), -float("inf"))
        x = tl.where(at[:, None] < rows, x, 0.0)
        e = tl.exp(x - largest_of_row(x))
        y = e / e.sum(axis=1, keep_dims=True)
        tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def in_place(x_ptr, y_ptr, stride, n, BLOCK: tl.constexpr):
    """y is made from x, then normalized where it stands: the same offsets in the same shape."""
    row, cols = tl.program_id(0), tl.arange(0, BLOCK)
    at, mask = row * stride + cols, cols < n
    x = tl.load(x_ptr + at, mask, -float("inf")).to(tl.float32)
    tl.store(y_ptr + at, x - tl.max(x, 0), mask)
    e = tl.exp(tl.load(y_ptr + at, mask, -float("inf")).to(tl.float32))
    tl.store(y_ptr + at, e / tl.sum(e, 0), mask)


@triton.jit
def by_integers(x_ptr, y_ptr, stride, n, BLOCK: tl.constexpr):
    """Pointers computed as integers, a barrier between two arrangements of the threads."""
    row, cols = tl.program_id(0), tl.arange(0, BLOCK)
    size = x_ptr.dtype.element_ty.primitive_bitwidth // 8
    x_ptr = (x_ptr.to(tl.int64) + row.to(tl.int64) * stride * size).to(x_ptr.dtype)
    y_ptr += row * stride
    x = tl.load(x_ptr + cols, mask=cols < n, other=-float("inf")).to(tl.float32)
    tl.store(y_ptr + cols, x - tl.max(x, 0), mask=cols < n)
    tl.debug_barrier()
    half: tl.constexpr = BLOCK // 2
    square = tl.arange(0, 2)[:, None] * half + tl.arange(0, half)[None, :]
    e = tl.exp(tl.load(y_ptr + square, mask=square < n, other=-float("inf")).to(tl.float32))
    e = e / tl.sum(tl.sum(e, axis=1), axis=0)
    tl.debug_barrier()
    tl.store(y_ptr + square, e, mask=square < n)


def plain(x_ptr, y_ptr, stride, n, BLOCK: tl.constexpr):
    """Without @triton.jit."""
    row, cols = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + cols, mask=cols < n, other=-float("inf"))
    tl.store(y_ptr + row * stride + cols, tl.softmax(x.to(tl.float32)), mask=cols < n)


def rows_grid(x):
    return (x.shape[0],)


SOFTMAX = {
    "fused": lambda x, y: fused[rows_grid(x)](x, y, x.stride(0), x.shape[1], BLOCK=128, num_warps=4),
    "three passes": lambda x, y: three_pass[rows_grid(x)](x, y, x.stride(0), x.shape[1], BLOCK=32),
    "tiles": lambda x, y: tiles[lambda meta: (meta["ROWS"] // 2,)](
        x, y, x.stride(0), x.shape[1], rows=len(x), BLOCK=128, num_warps=8, num_stages=2
    ),
    "in place": lambda x, y: in_place[rows_grid(x)](x, y, x.stride(0), x.shape[1], 128),
    "by integers": lambda x, y: by_integers[rows_grid(x)](x, y, x.stride(0), x.shape[1], 128),
    "plain": lambda x, y: watch.interpreted(plain)[rows_grid(x)](x, y, x.stride(0), x.shape[1], 128),
}


@every_dtype
@pytest.mark.parametrize("style", SOFTMAX)
def test_right_kernels_have_no_fault(style, dtype):
    x, y = drawn(11, 100, dtype=dtype), torch.zeros(11, 100, dtype=dtype)
    with watch.watched() as seen:
        SOFTMAX[style](x, y)
    seen.check()
    assert seen.faults == seen.remarks == []
    assert seen.unwritten(y) == 0
    assert seen.unwritten(x) == x.numel()
    room = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    if style in ("in place", "by integers"):
        room *= 8  # x - max, up to 8, is rounded when it is stored on the way
    torch.testing.assert_close(y.double(), x.double().softmax(-1), rtol=room, atol=1e-7)


@every_dtype
def test_right_kernels_on_a_view_touch_nothing_else(dtype):
    whole = torch.full((6, 48), 7.0, dtype=dtype)
    x, y = drawn(6, 48, dtype=dtype)[:, :40], whole[:, :40]
    with watch.watched() as seen:
        fused[(6,)](x, y, 48, 40, BLOCK=64)
    seen.check()
    assert (whole[:, 40:] == 7).all()
    assert seen.loaded(x) == x.numel() * x.element_size()


@triton.jit
def sums(x_ptr, total_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(tl.float32)
    tl.atomic_add(total_ptr, tl.sum(x))
    tl.atomic_add(total_ptr + 1 + at % 2, x, mask=at < n)


def test_atomics_are_no_race_among_themselves():
    x, total = drawn(100), torch.zeros(3)
    with watch.watched() as seen:
        sums[(4,)](x, total, 100, BLOCK=32)
    seen.check()
    torch.testing.assert_close(total, torch.stack([x.sum(), x[::2].sum(), x[1::2].sum()]))
    assert seen.loaded(total) == seen.stored("total_ptr") == 4 * (4 + 100)


# ---- Planted bugs ---------------------------------------------------------------------------------------------------


@triton.jit
def no_mask(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at), mask=at < n)


@triton.jit
def no_mask_for_the_store(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n, other=0.0))


@triton.jit
def before_the_start(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    left = tl.load(x_ptr + at - 1, mask=at < n, other=0.0)
    tl.store(y_ptr + at, left, mask=at < n)


@triton.jit
def no_other_in_a_sum(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * BLOCK + at, mask=tl.program_id(0) * BLOCK + at < n)
    tl.store(y_ptr + tl.program_id(0), tl.sum(tl.exp(x.to(tl.float32))))


@triton.jit
def no_other_in_a_maximum(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(y_ptr + tl.program_id(0), tl.max(x))


@triton.jit
def gather_without_other(x_ptr, index_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    index = tl.load(index_ptr + at, mask=at < n)
    tl.store(y_ptr + at, tl.load(x_ptr + index), mask=at < n)


@triton.jit
def row_sums(x_ptr, y_ptr, stride, n, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * stride + cols, mask=cols < n, other=0.0)
    tl.store(y_ptr + tl.program_id(0), tl.sum(x.to(tl.float32)))


@triton.jit
def overlap(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * (BLOCK - 1) + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n, other=0.0), mask=at < n)


@triton.jit
def shift_in_place(x_ptr, n, BLOCK: tl.constexpr):
    """Reads across the border to the next program's elements."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    right = tl.load(x_ptr + at + 1, mask=at + 1 < n, other=0.0)
    tl.debug_barrier()
    tl.store(x_ptr + at, right, mask=at < n)


@triton.jit
def two_steps_in_one_launch(x_ptr, sums_ptr, y_ptr, n, BLOCK: tl.constexpr):
    """Each program reads the sums of all."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(sums_ptr + tl.program_id(0), tl.sum(tl.load(x_ptr + at, mask=at < n, other=0.0)))
    tl.debug_barrier()
    total = tl.sum(tl.load(sums_ptr + tl.arange(0, 4)))
    tl.store(y_ptr + at, total, mask=at < n)


@triton.jit
def atomics_and_loads(x_ptr, total_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(total_ptr, tl.sum(tl.load(x_ptr + at, mask=at < n, other=0.0)))
    tl.store(y_ptr + tl.program_id(0), tl.load(total_ptr))


@triton.jit
def another_arrangement(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    """A transpose through memory, without a barrier."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n, other=0.0), mask=at < n)
    back = tl.program_id(0) * BLOCK + BLOCK - 1 - tl.arange(0, BLOCK)
    y = tl.load(y_ptr + back, mask=back < n, other=0.0)
    tl.debug_barrier()
    tl.store(y_ptr + at, y, mask=at < n)


@triton.jit
def scalar_through_memory(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.sum(tl.load(x_ptr + at, mask=at < n, other=0.0))
    tl.store(y_ptr + tl.program_id(0), total)
    tl.store(y_ptr + 4 + tl.program_id(0), tl.load(y_ptr + tl.program_id(0)))


@triton.jit
def shift_within_a_program(x_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(x_ptr + at, tl.load(x_ptr + at + 1, mask=at + 1 < n, other=0.0), mask=at < n)


@triton.jit
def all_lanes_to_one_element(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at * 0 + tl.program_id(0), tl.load(x_ptr + at, mask=at < n, other=0.0), mask=at < n)


@triton.jit
def someone_elses_memory(x_ptr, y_ptr, address, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load((address + at * 4).to(tl.pointer_type(tl.float32)), mask=at < n, other=0.0)
    tl.store(y_ptr + at, x, mask=at < n)


@dataclass
class Bug:
    """A launch, and what is said about it: kind, argument, words of the sentence."""

    launch: object
    kind: str
    argument: str | None
    words: str


def of(kernel, x=100, y=100, n=100, grid=4, BLOCK=32, x_dtype=torch.float32):
    return lambda: kernel[(grid,)](drawn(x).to(x_dtype), torch.zeros(y), n, BLOCK=BLOCK)


def strided(stride):
    """Rows of a view 40 wide of a tensor 48 wide, 5 of 6 rows."""
    return lambda: row_sums[(5,)](drawn(6, 48)[:5, :40], torch.zeros(5), stride, 40, BLOCK=64)


def into_the_neighbor():
    both = torch.zeros(200)
    no_mask[(4,)](both[:100], both[100:], 100, BLOCK=32)


BUGS = {
    "missing mask": Bug(of(no_mask), "out-of-bounds", "x_ptr", "program 3 loads outside of x_ptr, at offset 100"),
    "missing mask of a store": Bug(
        of(no_mask_for_the_store), "out-of-bounds", "y_ptr", "program 3 stores outside of y_ptr, at offset 100"
    ),
    "offset -1": Bug(of(before_the_start), "out-of-bounds", "x_ptr", "1 elements before x_ptr"),
    "missing mask, and another argument follows": Bug(into_the_neighbor, "stride", "x_ptr", "100"),
    "missing other in a sum": Bug(of(no_other_in_a_sum, y=4), "poison", "y_ptr", "x_ptr that its mask hides"),
    "missing other in a maximum": Bug(of(no_other_in_a_maximum, y=4), "poison", "y_ptr", "-inf in a maximum"),
    "missing other of an index": Bug(
        lambda: gather_without_other[(4,)](drawn(100), torch.arange(100), torch.zeros(100), 100, BLOCK=32),
        "out-of-bounds",
        "x_ptr",
        "program 3 loads outside of x_ptr",
    ),
    "wrong stride inside the memory": Bug(strided(40), "stride", "x_ptr", "5 x 40 with strides (48, 1)"),
    "wrong stride past the memory": Bug(strided(96), "out-of-bounds", "x_ptr", "x_ptr is 5 x 40, 200 elements"),
    "two programs store": Bug(of(overlap), "race", "y_ptr", "of y_ptr: what ends up there"),
    "one loads what another stores": Bug(
        lambda: shift_in_place[(4,)](drawn(100), 100, BLOCK=32), "race", "x_ptr", "in one launch"
    ),
    "a sum over programs in one launch": Bug(
        lambda: two_steps_in_one_launch[(4,)](drawn(100), torch.zeros(4), torch.zeros(100), 100, BLOCK=32),
        "race",
        "sums_ptr",
        "in one launch",
    ),
    "an atomic sum read in the same launch": Bug(
        lambda: atomics_and_loads[(4,)](drawn(100), torch.zeros(1), torch.zeros(4), 100, BLOCK=32),
        "race",
        "total_ptr",
        "atomically",
    ),
    "other threads of the program": Bug(of(another_arrangement), "race", "y_ptr", "tl.debug_barrier()"),
    "a scalar that only one thread stored": Bug(of(scalar_through_memory, y=8), "race", "y_ptr", "tl.debug_barrier()"),
    "a shift in place": Bug(
        lambda: shift_within_a_program[(1,)](drawn(100), 100, BLOCK=128), "race", "x_ptr", "none waits for the other"
    ),
    "lanes that meet": Bug(of(all_lanes_to_one_element, y=4), "race", "y_ptr", "several lanes have the same address"),
    "an address of no argument": Bug(
        lambda: someone_elses_memory[(4,)](torch.zeros(1), torch.zeros(100), OTHER.data_ptr(), 100, BLOCK=32),
        "out-of-bounds",
        None,
        "no tensor argument",
    ),
}
OTHER = torch.zeros(100)


@pytest.mark.parametrize("order", [0, 1, None])
@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs_are_found(name, order):
    bug = BUGS[name]
    with watch.watched(order=order) as seen:
        bug.launch()
    assert {(fault.kind, fault.argument) for fault in seen.faults} == {(bug.kind, bug.argument)}
    with pytest.raises(watch.Faulty) as caught:
        seen.check()
    assert bug.words in str(caught.value)
    assert caught.value.faults == seen.faults


@triton.jit
def two_programs(x_ptr, y_ptr, first: tl.constexpr, second: tl.constexpr, BLOCK: tl.constexpr):
    """Program 0 does `first` to y, program 1 does `second`, always with the same offsets."""
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    if tl.program_id(0) == 0:
        do(first, y_ptr + at, x)
    else:
        do(second, y_ptr + at, x)


@triton.jit
def do(what: tl.constexpr, pointers, x):
    if "atomic" in what:
        tl.atomic_add(pointers, x)
    if "load" in what:
        x = tl.load(pointers)
    if "store" in what:
        tl.store(pointers, x)


HARMLESS = [("load", "load"), ("atomic", "atomic"), ("nothing", "atomic load store"), ("load store", "nothing")]
RACES = [
    ("load", "store"),
    ("store", "load"),
    ("store", "store"),
    ("load", "load store"),
    ("atomic", "load"),
    ("load", "atomic"),
    ("atomic", "store"),
    ("store", "atomic"),
    ("atomic", "atomic load"),
]


@pytest.mark.parametrize("pair", HARMLESS + RACES, ids=" then ".join)
def test_what_two_programs_may_do_to_one_element(pair):
    with watch.watched(order=None) as seen:
        two_programs[(2,)](drawn(32), torch.zeros(32), *pair, BLOCK=32)
    assert {(fault.kind, fault.program) for fault in seen.faults} == ({("race", 1)} if pair in RACES else set())


def test_launches_do_not_race_with_each_other():
    x, y = drawn(32), torch.zeros(32)
    with watch.watched() as seen:
        for pair in RACES:
            two_programs[(1,)](x, y, *pair, BLOCK=32)
            two_programs[(1,)](x, y, *reversed(pair), BLOCK=32)
    assert seen.faults == []


def test_an_access_out_of_bounds_is_not_performed():
    whole = torch.full((128,), 7.0)
    with watch.watched() as seen:
        no_mask_for_the_store[(4,)](drawn(100), whole[:100], 100, BLOCK=32)
    assert len(seen.faults) == 1
    assert (whole[100:] == 7).all()
    assert (whole[:100] == drawn(100)).all()

    y = torch.zeros(4)
    with watch.watched() as seen:
        row_sums[(4,)](drawn(4, 10), y, 10, 16, BLOCK=16)
    assert [fault.program for fault in seen.faults] == [3]
    assert y.isnan().tolist() == [False, False, False, True]


def test_without_poison_hidden_lanes_are_zero():
    x, y = drawn(100), torch.zeros(4)
    with watch.watched(poison=False) as seen:
        no_other_in_a_sum[(4,)](x, y, 100, BLOCK=32)
    assert seen.faults == []
    torch.testing.assert_close(y, torch.cat([x, torch.zeros(28)]).exp().reshape(4, 32).sum(1))


def test_launched_alone_a_kernel_raises_its_first_fault():
    with pytest.raises(watch.Faulty, match="loads outside of x_ptr"):
        watch.interpreted(no_mask)[(4,)](drawn(100), torch.zeros(100), 100, BLOCK=32)


# ---- Numbers --------------------------------------------------------------------------------------------------------


@triton.jit
def cast(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n, other=0.0).to(y_ptr.dtype.element_ty), mask=at < n)


def hostile(n=1 << 14):
    """Numbers with all exponents, and those next to where rounding turns."""
    bits = np.random.default_rng(0).integers(0, 2**32, n, dtype=np.uint32)
    bits[::4] = bits[::4] & 0xFFFF0000 | 0x8000
    bits[1::4] = bits[1::4] & 0xFFFF0000 | 0x7FFF
    bits[:6] = np.array([0x7F7FFFFF, 0x7F800001, 0xFF800000, 0x7FFFFFFF, 1, 0x80007FFF])
    return torch.from_numpy(bits.view(np.float32))


@pytest.mark.parametrize("source", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int32])
@every_dtype
def test_casts_round_to_nearest_even(source, dtype):
    x = hostile().view(torch.int32) if source == torch.int32 else hostile().to(source)
    y = torch.zeros(x.shape, dtype=dtype)
    with watch.watched() as seen:
        cast[(4,)](x, y, len(x), BLOCK=4096)
    seen.check()
    assert torch.equal(y.isnan(), x.isnan())
    if source == torch.int32:
        expected = x.double().to(dtype)
    else:
        expected = x.to(dtype)
    assert torch.equal(y.nan_to_num(1, 2, 3), expected.nan_to_num(1, 2, 3))


def test_float64_is_rounded_once():
    """1 + 2**-8 + 2**-40 lies above the middle of two bfloat16; rounded to float32 first, it lies on it."""
    x, y = torch.tensor([1 + 2**-8 + 2**-40, 1 + 2**-8, 1 + 3 * 2**-8 - 2**-40], dtype=torch.float64), torch.zeros(3)
    y = y.bfloat16()
    with watch.watched():
        cast[(1,)](x, y, 3, BLOCK=4)
    assert y.tolist() == [1 + 2**-7, 1.0, 1 + 2**-7]


@triton.jit
def half_arithmetic(x_ptr, y_ptr, total_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    y = x * x + x
    y = tl.where(y < x, y - x, y / (x * x))
    tl.store(y_ptr + at, y, mask=at < n)
    tl.store(total_ptr, tl.sum(x))
    tl.store(total_ptr + 1, tl.max(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_arithmetic_in_halves_rounds_each_step_and_is_remarked(dtype):
    x, y, total = drawn(128, dtype=dtype), torch.zeros(128, dtype=dtype), torch.zeros(2, dtype=dtype)
    with watch.watched() as seen:
        half_arithmetic[(1,)](x, y, total, 128, BLOCK=128)
    seen.check()
    assert [remark.kind for remark in seen.remarks] == ["half-arithmetic"]
    assert str(dtype).removeprefix("torch.") in seen.remarks[0].sentence
    expected = x * x + x
    assert torch.equal(y, torch.where(expected < x, expected - x, expected / (x * x)))
    tree = x
    while len(tree) > 1:
        tree = tree[: len(tree) // 2] + tree[len(tree) // 2 :]
    assert torch.equal(total, torch.stack([tree[0], x.max()]))


@triton.jit
def maxima(x_ptr, y_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    tl.store(y_ptr, tl.max(x))
    tl.store(y_ptr + 1 + tl.arange(0, BLOCK), tl.maximum(x, 0.5))


def test_maxima_skip_nan_as_hardware_does():
    x, y = torch.tensor([0.0, float("nan"), 2.0, 0.25]), torch.zeros(5)
    with watch.watched() as seen:
        maxima[(1,)](x, y, BLOCK=4)
    seen.check()
    assert y.tolist() == [2.0, 0.5, 0.5, 2.0, 0.5]


# ---- The order of programs ------------------------------------------------------------------------------------------


@triton.jit
def who(y_ptr, count_ptr):
    """Which program came when."""
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    number = x + tl.num_programs(0) * (y + tl.num_programs(1) * z)
    tl.store(y_ptr + number, tl.atomic_add(count_ptr, 1))


def came(order):
    y, count = torch.full((24,), -1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    with watch.watched(order=order) as seen:
        who[(4, 3, 2)](y, count)
        who[(4, 3, 2)](torch.empty_like(y), count)
    seen.check()
    first, second = seen.launches
    assert first["order"] != second["order"] or order is None
    by_record = [y[i + 4 * (j + 3 * k)].item() for i, j, k in first["order"]]
    assert by_record == list(range(24))
    return y.tolist()


def test_programs_run_in_another_order_and_all_of_them():
    assert came(None) == list(range(24))
    one, two = came(0), came(1)
    assert sorted(one) == sorted(two) == list(range(24))
    assert came(None) != one != two
    assert came(0) == one


# ---- Traffic --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("style", "times"), [("fused", 1), ("three passes", 3), ("tiles", 1)])
@every_dtype
def test_traffic_of_softmax(style, times, dtype):
    x, y = drawn(16, 96, dtype=dtype), torch.zeros(16, 96, dtype=dtype)
    with watch.watched() as seen:
        SOFTMAX[style](x, y)
    assert seen.loaded(x) == seen.loaded("x_ptr") == times * x.nbytes
    assert seen.stored(y) == seen.stored("y_ptr") == y.nbytes
    assert seen.stored(x) == seen.loaded(y) == 0
    assert seen.distinct(x, "load") == x.nbytes
    assert seen.distinct(y, "store") == y.nbytes
    assert seen.efficiency(x) == seen.efficiency("y_ptr", "store") == 1.0
    assert [row["loaded"] + row["stored"] for row in seen.table()] == [times * x.nbytes, y.nbytes]


@triton.jit
def column_sums(x_ptr, y_ptr, rows, stride, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) + at * stride, mask=at < rows, other=0.0)
    tl.store(y_ptr + tl.program_id(0), tl.sum(x.to(tl.float32)))


@triton.jit
def copy_tile(x_ptr, y_ptr, x_rows, x_cols, y_rows, y_cols, ROWS: tl.constexpr, COLS: tl.constexpr):
    rows, cols = tl.arange(0, ROWS)[:, None], tl.arange(0, COLS)[None, :]
    tl.store(y_ptr + rows * y_rows + cols * y_cols, tl.load(x_ptr + rows * x_rows + cols * x_cols))


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.float64, 0.25), (torch.float32, 0.125), (torch.float16, 0.0625)]
)
def test_a_column_walk_wastes_sectors(dtype, expected):
    x, y = drawn(50, 64, dtype=dtype), torch.zeros(64)
    with watch.watched() as seen:
        column_sums[(64,)](x, y, 50, 64, BLOCK=64)
    seen.check()
    assert seen.efficiency(x) == expected
    assert seen.loaded(x) == x.nbytes


def test_sectors_of_tiles_and_of_crooked_rows():
    x, y = drawn(64, 64), torch.zeros(64, 64)
    with watch.watched() as seen:
        copy_tile[(1,)](x, y, 64, 1, 64, 1, ROWS=64, COLS=8)  # 8 float32 are a sector
    assert seen.efficiency(x) == seen.efficiency(y) == 1.0
    with watch.watched() as seen:
        copy_tile[(1,)](x, y, 64, 1, 64, 1, ROWS=64, COLS=4)  # half a sector
    assert seen.efficiency(x) == seen.efficiency(y) == 0.5
    with watch.watched() as seen:
        copy_tile[(1,)](x, y, 1, 64, 64, 1, ROWS=64, COLS=64)  # x transposed: threads run along its rows
    assert seen.efficiency(x) == seen.efficiency(y) == 1.0
    with watch.watched() as seen:
        copy_tile[(1,)](x[:, 1:], y, 64, 1, 64, 1, ROWS=1, COLS=32)  # from the second element on: 5 sectors, not 4
    assert seen.efficiency(x) == 128 / 160
    assert seen.efficiency(y) == 1.0
    seen.check()


def test_traffic_by_tensor_counts_its_views_and_no_others():
    whole, y = drawn(8, 64), torch.zeros(4, 64)
    with watch.watched() as seen:
        fused[(4,)](whole[:4], y, 64, 64, BLOCK=64)
        fused[(2,)](whole[4:6], y[:2], 64, 64, BLOCK=64)
    assert seen.loaded(whole[:4]) == 4 * 64 * 4
    assert seen.loaded(whole) == seen.loaded("x_ptr", kernel="fused") == 6 * 64 * 4
    assert seen.loaded(whole[6:]) == 0
    assert seen.distinct(whole, "load") == 6 * 64 * 4
    assert seen.unwritten(y) == 0
    with pytest.raises(KeyError, match="the names are: x_ptr, y_ptr"):
        seen.loaded("x")


def test_stores_that_were_in_vain_and_elements_never_stored():
    x, y = drawn(11, 100), torch.zeros(12, 100)
    with watch.watched() as seen:
        in_place[(11,)](x, y, 100, 100, BLOCK=128)
    assert seen.restored(y) == 1100
    assert seen.unwritten(y) == 100


# ---- Time, refusals, and order in the house -------------------------------------------------------------------------


@triton.jit
def endless(x_ptr):
    n = tl.load(x_ptr)
    while n >= 0:
        n = n * 1


def test_a_kernel_that_never_ends_is_stopped():
    with watch.watched(limit_seconds=0.2) as seen, pytest.raises(watch.Faulty, match="out of time in program 0"):
        endless[(1,)](torch.zeros(1))
    assert seen.faults == []


@triton.jit
def asks_a_block(x_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    if x > 0:
        tl.store(x_ptr + tl.arange(0, BLOCK), x)


@triton.autotune(configs=[triton.Config({"BLOCK": 32})], key=[])
@triton.jit
def tuned(x_ptr, BLOCK: tl.constexpr):
    tl.store(x_ptr + tl.arange(0, BLOCK), 0.0)


REFUSED = {
    "a block as condition": (lambda x: asks_a_block[(1,)](x, 4), TypeError, "no single truth value"),
    "autotune": (lambda x: tuned[(1,)](x), NotImplementedError, "autotune"),
    "an option that is none": (lambda x: endless[(1,)](x, num_warp=4), TypeError, "num_warp"),
    "another device": (lambda x: endless[(1,)](x.to("meta")), ValueError, "x_ptr is on meta"),
    "a grid too high": (lambda x: who[(1, 70000)](x, x), ValueError, "starts no grid"),
    "a grid that is a number": (lambda x: endless[3](x), TypeError, "A grid is a tuple"),
    "an argument that is a list": (lambda x: endless[(1,)]([1]), TypeError, "Argument x_ptr is list"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_run_is_refused_with_a_sentence(what):
    launch, error, words = REFUSED[what]
    with pytest.raises(error, match=words), watch.watched():
        launch(torch.zeros(4))
    assert snapshot() == BEFORE


def test_what_was_patched_is_put_back():
    with watch.watched():
        SOFTMAX["tiles"](drawn(11, 100), torch.zeros(11, 100))
        assert vars(tl) == BEFORE[0]
    assert snapshot() == BEFORE
    assert "interpreter_semantic" not in globals()  # Triton's own rewriting would have put it here


@triton.jit
def by_methods(x_ptr, y_ptr, stride, n, BLOCK: tl.constexpr):
    place = tl.program_id(0) * stride + tl.arange(0, BLOCK)
    mask = tl.arange(0, BLOCK) < n
    x = tl.load(x_ptr + place, mask=mask, other=-float("inf"))
    e = (x - x.max(axis=0)).exp()
    tl.store(y_ptr + place, (e / e.sum(axis=0)).log().exp().abs(), mask=mask)


def test_functions_of_triton_are_methods_too():
    x, y = drawn(3, 5), torch.zeros(3, 5)
    with watch.watched() as seen:
        by_methods[(3,)](x, y, 5, 5, BLOCK=8)
    seen.check()
    torch.testing.assert_close(y, x.softmax(1))


@triton.jit
def one_mask_for_all(x_ptr, y_ptr, rows, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = row * BLOCK + tl.arange(0, BLOCK)
    inside = (row < rows) & (tl.arange(0, BLOCK) < BLOCK - 1)
    tl.store(y_ptr + place, tl.load(x_ptr + place, mask=inside, other=-1.0), mask=row < rows)


def test_a_comparison_of_scalars_may_be_part_of_a_mask():
    x, y = drawn(3, 8), torch.zeros(3, 8)
    with watch.watched() as seen:
        one_mask_for_all[(3,)](x, y, 2, BLOCK=8)
    seen.check()
    x[:, -1], x[2] = -1, 0
    assert torch.equal(y, x)


def test_watching_does_not_nest():
    with watch.watched(), pytest.raises(RuntimeError, match="does not nest"), watch.watched():
        pass
    with watch.watched():
        pass


def in_a_process(code, **environment):
    return subprocess.run(
        [sys.executable, *code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_import_loads_neither_torch_nor_triton():
    code = "import sys, normlab.watch; print({'torch', 'triton'} & set(sys.modules))"
    assert in_a_process(["-c", code]).stdout == "set()\n"


@pytest.mark.exhaustive
def test_it_works_the_same_where_triton_was_told_to_interpret():
    code = ["-m", "pytest", "-q", __file__, "-k", "tiles and float32 or test_an_access"]
    ran = in_a_process(code, TRITON_INTERPRET="1")
    assert ran.returncode == 0, ran.stdout
    assert "3 passed" in ran.stdout


def test_the_same_process_compiles_what_it_has_watched():
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    watch.interpreted(fused)[(2,)](drawn(2, 100), torch.zeros(2, 100), 100, 100, BLOCK=128)
    types = {"x_ptr": "*fp32", "y_ptr": "*fp32", "stride": "i32", "n": "i32", "BLOCK": "constexpr"}
    source = ASTSource(fused, types, {"BLOCK": 128})
    assert ".entry fused" in triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]
