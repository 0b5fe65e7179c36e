"""How functions that get functions are used."""

import numpy as np


def numerical_gradient(candidate, f, x, dy, h, narrow=False, rounding=None):
    # The float32 input is made here: as an argument of the case it would ask for a float32 answer.
    return candidate(f, x.astype(np.float32) if narrow else x, dy, h)


def hunt(hunter, suspects):
    return [hunter(suspect) for suspect in suspects]
