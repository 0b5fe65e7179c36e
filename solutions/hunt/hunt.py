# %% [markdown]
# # Exercise: who checks the checker?
#
# This time you write the test, and code of others is graded by it. Some of that code is right and some is wrong; you do not
# get to see it. A test can fail in two ways: it may let wrong code through, and it may refuse right code that rounds
# otherwise. Both count.

# %% setup=true
import numpy as np

from normlab.check import check

# %% [markdown] about="mutant_hunt"
# ## mutant_hunt
#
# Decide whether a function is a right layer norm.
#
# `mutant_hunt(candidate)`
#
# | | |
# |---|---|
# | `candidate` | a function, to be called as `candidate(x, normalized_shape, weight=None, bias=None, eps=1e-5)` |
# | returns | `True` if it is a right layer norm, `False` if it is wrong |
#
# Right means what the exercise `layer_norm` asks: each slice along the axes of `normalized_shape` gets mean 0 and biased
# variance 1, with eps under the root, then `weight` and `bias`, each of which may be `None`; the answer has the shape and dtype
# of `x`; `float16` is computed in `float32`; `x` stays as it was. Right functions differ from one another by rounding. A wrong
# one may also raise an error, which is your test's to catch.
#
# `lambda x, normalized_shape, weight=None, bias=None, eps=1e-5: x - x.mean()` is to be refused: on `[[1., 3.], [10., 30.]]` it
# gives -10, -8, -1, 19, and right is -1, 1, -1, 1.
#
# You may compare with a layer norm of your own, with PyTorch's, or with properties that a right one has.


# %% solution="mutant_hunt"
def mutant_hunt(candidate):
    """Whether the candidate is a right layer norm."""

    ### BEGIN SOLUTION
    def right(x, normalized_shape, weight=None, bias=None, eps=1e-5):
        axes = tuple(range(-len(normalized_shape), 0))
        x = x.astype(np.float64)
        y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    rng = np.random.default_rng(0)
    calls = []
    for shape, trailing in [((5, 7), 1), ((6, 6), 1), ((2, 3, 5), 1), ((3, 4, 5), 2)]:
        x = rng.normal(size=shape) + 3 * rng.normal(size=(*shape[:-1], 1))
        weight, bias = rng.normal(size=(2, *shape[-trailing:]))
        calls.append((x, x.shape[-trailing:], {"weight": weight, "bias": bias}))
    x, _, affine = calls[0]
    calls.append((x, (7,), {}))
    calls.append((x, (7,), {"weight": affine["weight"]}))
    calls.append((x, (7,), {"bias": affine["bias"]}))
    calls.append((x, (7,), affine | {"eps": 0.5}))
    calls.append((x * 1e-3, (7,), affine))
    for far in (x.astype(np.float32), (x + 1e4).astype(np.float32), (400 * x).astype(np.float16)):
        calls.append((far, (7,), {name: value.astype(far.dtype) for name, value in affine.items()}))

    for x, normalized_shape, options in calls:
        before = x.copy()
        try:
            y = candidate(x, normalized_shape, **options)
        except Exception:
            return False
        if not np.array_equal(x, before) or y.shape != x.shape or y.dtype != x.dtype:
            return False
        wanted = right(before, normalized_shape, **options)
        # A few units in the last place of the result, and what rounding an input far from zero takes.
        allowed = np.finfo(x.dtype).eps * 20 * (1 + np.abs(before).max() / before.std())
        if not np.abs(y - wanted).max() <= allowed * np.abs(wanted).max():
            return False
    return True
    ### END SOLUTION


# %% check="mutant_hunt" part="values" points=12
check(mutant_hunt, "mutant_hunt", part="values")

# %% check="mutant_hunt" part="numerics" points=5
check(mutant_hunt, "mutant_hunt", part="numerics")

# %% check="mutant_hunt" part="edges" points=3
check(mutant_hunt, "mutant_hunt", part="edges")

# %% [markdown] hints="mutant_hunt"
# <details><summary>Hint 1</summary>
#
# Think of one wrong layer norm, say one that divides by n - 1. On which input does it differ from a right one? Is there an input
# on which it does not?
#
# <details><summary>Hint 2</summary>
#
# Collect inputs: different sizes, a square, a sequence (N, L, D), two axes in `normalized_shape`, weight or bias alone, another eps,
# a small spread, `float32` near 1e4, `float16` of a few hundred. On each, compare with an answer that you trust.
#
# <details><summary>Hint 3</summary>
#
# `y = candidate(x, normalized_shape, **options)` inside `try`, then compare `y.dtype`, `y.shape`, `x` with its copy, and
# `np.abs(y - wanted).max()` with some units of `np.finfo(x.dtype).eps`.
#
# </details></details></details>

# %% [markdown] after="mutant_hunt"
# A test is worth what it kills. The next time a test of yours passes, break the code once and see it fail. *Harder:* hunt with as few
# calls of the candidate as you can. Which of your inputs kills what no other does?
