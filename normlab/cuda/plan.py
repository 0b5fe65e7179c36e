"""How a kernel is laid out over a GPU: the sizes of tiles and the numbers of warps, from one fixed table.

There is no autotuning: a fixed table gives the same bits on every run, can be compiled ahead of time as it is, and
works in Triton's interpreter. The limits were found by compiling for every architecture of `ahead.ARCHITECTURES`: the
largest tile that does not spill registers to memory.
"""

# The most elements of a row that one program holds at once, by what else it has to hold.
ONE_PASS = 32768  # forward: the row
ONE_PASS_AFFINE = 16384  # forward: besides, weights and biases
ONE_PASS_BACKWARD = 16384  # backward: the row, and the gradient that comes in
ONE_PASS_COLUMNS = 16384  # forward along another axis: a tile of columns
ONE_PASS_COLUMNS_BACKWARD = 8192
ONE_PASS_WEIGHTS = 8192  # backward: besides, its shares of dweight and dbias

RESIDENT = 8192  # elements that a processor's blocks hold together, where each keeps several numbers for an element
TILE = 2048  # elements of a program that takes several short rows at once
CHUNK = 4096  # elements of a step of a program that goes over a long row piece by piece
MOST_PARTS = 256  # of a pool of batch norm: one program merges them
LANES = 32  # columns side by side: a warp reads 32 neighbors at once


def power_of_two(n):
    """The smallest power of two that is at least n.

    >>> power_of_two(1), power_of_two(48), power_of_two(64)
    (1, 64, 64)
    """
    return 1 << max(n - 1, 0).bit_length()


def warps(elements, each=16):
    """Warps of 32 threads for a tile: `each` elements a thread, more where a block has no more threads.

    >>> warps(512), warps(4096), warps(65536), warps(8192, each=32)
    (1, 8, 32, 8)
    """
    return min(max(power_of_two(elements) // (32 * each), 1), 32)


def rows(size):
    """(rows a program, columns a program) for rows of `size` elements, held whole.

    >>> rows(5), rows(1000), rows(30000)
    ((256, 8), (2, 1024), (1, 32768))
    """
    block = power_of_two(size)
    return max(TILE // block, 1), block


def columns(length, limit):
    """(rows, columns) of a tile of at most `limit` elements, to pool `length` that stand one above the other.

    >>> columns(10, 16384), columns(100_000, 16384)
    ((16, 128), (512, 32))
    """
    block = min(power_of_two(length), limit // LANES)
    return block, max(TILE // block, LANES)


def split(blocks, others, device, elements=TILE):
    """In how many parts to split `blocks` pieces of work, so that with `others` beside each the device is full.

    A part is a block that holds `elements`. More parts than run at once would only be more to add up in the end.
    """
    resident = max(RESIDENT // elements, 1) * processors(device)
    return max(min(blocks, -(-resident // others)), 1)


def processors(device):
    """Streaming multiprocessors of a device. The interpreter, which runs on the CPU, has two, so that sums of several
    parts are tried there too."""
    if device.type != "cuda":
        return 2
    import torch

    return torch.cuda.get_device_properties(device).multi_processor_count
