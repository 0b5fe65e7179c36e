"""normlab: normalization and softmax, written to be read and checked against PyTorch.

`import normlab` loads nothing heavy: the core needs NumPy alone, and PyTorch is asked for only where it is the judge.
"""

__version__ = "0.1.0"
