"""Kernels for CUDA, in Triton: every operator of functional.py, forward and backward.

    plan      sizes of tiles, numbers of warps: one fixed table
    rows      layer, RMS and instance norm; group norm without positions
    groups    group norm
    columns   batch norm
    softmax   softmax and log-softmax, along any axis
    loss      cross entropy
    ops       the operators, as functional.py calls them
    ahead     compiles kernels for any card, without one, and reads off what they need
    proof     what can be proven without a GPU, as a table

Importing this package loads neither PyTorch nor Triton.
"""

import functools
import importlib.util

OLDEST = (7, 5)  # the compute capability of the oldest card that kernels are compiled for in the tests


@functools.cache
def why_not():
    """None if the kernels can run on a GPU of this machine, else the reason, a sentence."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install 'normlab[cuda]', on Linux."
    import torch

    if torch.version.hip:
        return "The kernels were never tried on AMD's GPUs: PyTorch's own functions answer there."
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA GPU here."
    if torch.cuda.get_device_capability() < OLDEST:
        return f"The GPU is older than compute capability {OLDEST[0]}.{OLDEST[1]}."
    return None
