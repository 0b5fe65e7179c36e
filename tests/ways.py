"""One exercise of each way of calling: a function, a sampler, a function of functions, a tuple of results, a class, a
check of checks, kernels. What is tested of these by way of a sample, `make prove` tests of all."""

import pytest

from normlab.exercises import EXERCISES

WAYS = (
    "softmax",
    "gumbel_max",
    "numerical_gradient",
    "layer_norm_backward",
    "BatchNorm",
    "mutant_hunt",
    "softmax_kernel",
)

EACH_WAY = [name if name in WAYS else pytest.param(name, marks=pytest.mark.exhaustive) for name in EXERCISES]
