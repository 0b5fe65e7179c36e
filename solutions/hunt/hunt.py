# %% [markdown]
# # Exercise: who checks the checker?
#
# This time you write the test, and code of others is graded by it. Some of that code is right and some is wrong; you do not
# get to see it. A test can fail in two ways: it may let wrong code through, and it may refuse right code that rounds
# otherwise. Both count.

# %% setup=true
import numpy as np

from normlab.check import check
from normlab.predict import compare

# %% [markdown] ask="allclose"
# ## Predict first: what does allclose see?
#
# A right layer norm would give, for an `x` of shape (1, 8) in `float32`, eight numbers of the same shape and dtype.
# Three candidates differ from it. The first gives them as `float64`. The second gives them in the shape (8,). The third
# gives each of them 0.0009 percent too large. How many of the three does `np.allclose(candidate(x), right)` accept,
# with its default tolerances? Write a number, run the cell, then run the one below it. Right or wrong, a prediction
# earns its point: what counts is that you made it before you looked.

# %% prediction="allclose"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 3
### END INSTRUCTOR

# %% measure="allclose" points=1
right = np.array([[-1.5, -1, -0.5, 0, 0, 0.5, 1, 1.5]], np.float32)
answers = right.astype(np.float64), right[0], right * np.float64(1.000009)
compare(prediction, sum(np.allclose(answer, right) for answer in answers))

# %% [markdown] told="allclose"
# All three. `allclose` compares numbers: it converts dtypes, lets NumPy stretch shapes until they fit, and allows a
# hundred-thousandth of the value. Whoever wants the shape and the dtype right has to ask for them, in a line of their
# own. And a tolerance that comes with a function was chosen by somebody who did not know your arithmetic.

# %% [markdown] about="mutant_hunt"
# ## mutant_hunt
#
# Decide whether a function is a right layer norm.
#
# `mutant_hunt(candidate)`
#
# | | |
# |---|---|
# | `candidate` | a function, to be called as `candidate(x, normalized_shape, weight=None, bias=None, eps=1e-5)`; `normalized_shape` is a tuple, as in `candidate(x, (8,))` |
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
# `np.abs(y - wanted).max()` with units of `np.finfo(x.dtype).eps`: a few, where the spread is about 1, and some thousand where
# a slice has a single number or hardly any spread, since a right one then divides rounding by the root of eps.
#
# </details></details></details>

# %% [markdown] after="mutant_hunt"
# A test is worth what it kills. The next time a test of yours passes, break the code once and see it fail. *Harder:* hunt with as few
# calls of the candidate as you can. Which of your inputs kills what no other does?

# %% [markdown] explain="hunt"
# ## In your own words
#
# A team has written its own softmax, `softmax(x, axis=-1)`. Its test draws 10,000 matrices of 32 by 32 standard normal
# numbers in `float64`, and compares with PyTorch's softmax over the last axis, with a tolerance of 1e-6. "Ten million
# numbers," they say, "and every one was right." Answer in one paragraph. Is that much? Name two different mistakes that
# their softmax could have all the same, and for each an input that shows it. How would you find out whether your new
# test is any good, in both directions?

# %% [markdown] explanation="hunt" points=4
# Ten million numbers of one kind are about as good as one matrix: what one of them does not show, none of them shows. A
# softmax that never subtracts the maximum passes, because no draw comes near 700; a row like [1000, 0] shows it. One
# that ignores `axis` and always takes the last passes as well; a table with `axis=0` shows it. So does one that
# computes in the dtype of its input: float16 logits in a row of 70,000 equal ones overflow the sum. To see whether a
# new test is any good I break a right softmax on purpose, in these ways and others, one at a time, and see it turn red
# each time. In the other direction I give it several right versions, which differ in the order of their operations, and
# it has to pass all of them. The tolerance must follow the dtype: 1e-6 lets wrong float64 code through, and it would
# refuse right float16 code, which has about three digits.
#
# **Rubric**
#
# - 1 point: numbers of the same kind show the same mistakes; it is the kind of input that counts
# - 1 point: two different mistakes that pass this test, each with an input that shows it
# - 1 point: breaks right code on purpose and sees the test fail
# - 1 point: right code that rounds otherwise has to pass, with a tolerance that fits the dtype
