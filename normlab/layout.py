"""How a tensor stands in memory, for the kernels of the CPU and for those of a GPU."""

import math

import torch

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format(x):
    """channels_last, if that is how x stands in memory, else contiguous_format."""
    format = _CHANNELS_LAST.get(x.dim())
    if format is None or x.is_contiguous() or not x.is_contiguous(memory_format=format):
        return torch.contiguous_format
    return format


def around(x, dim):
    """x as (outer, length, inner) with `dim`, which is not negative, in the middle."""
    if x.dim() == 0:
        return 1, 1, 1
    length = x.size(dim)
    inner = 1 if dim == x.dim() - 1 else math.prod(x.shape[dim + 1 :])
    return x.numel() // (length * inner), length, inner
