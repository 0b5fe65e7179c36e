# %% [markdown]
# # Exercises: attention
#
# Softmax where some of the logits must not count, softmax of logits that come in pieces, and both together: attention
# that never holds all of its scores. Three exercises.
#
# As everywhere, `float16` is computed in `float32` and turned back at the end, and the input stays as it was.

# %% setup=true
import numpy as np

from normlab.check import check
from normlab.predict import compare

# %% [markdown] ask="leak"
# ## Predict first: minus five is a lot
#
# A row of scores has one key that counts and 1,000 that are masked. All scores were 0, and from the masked ones
# somebody has subtracted 5 to put them out of play. Then comes softmax. What share of the weight do the masked keys
# get, all together? Write a number between 0 and 1, run the cell, then run the one below it. Right or wrong, a
# prediction earns its point: what counts is that you made it before you looked.

# %% prediction="leak"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 0.87
### END INSTRUCTOR

# %% measure="leak" points=1
weights = np.exp(np.append(0.0, np.full(1000, -5.0)))
weights /= weights.sum()
compare(prediction, weights[1:].sum())

# %% [markdown] told="leak"
# One masked key gets less than a hundredth of what the kept one gets. But there are a thousand of them, and together
# they get most of the weight. A large negative number is a matter of how many it has to hold down, and of how large the
# kept scores are. 0 times a thousand is 0: that is what the infinity is for.

# %% [markdown] about="masked_softmax"
# ## masked_softmax
#
# Compute the softmax of the logits that a mask keeps; the others get weight 0.
#
# `masked_softmax(x, mask, axis=-1)`
#
# | | |
# |---|---|
# | `x` | floating-point array of logits |
# | `mask` | boolean array, broadcast to the shape of `x`; **True means keep** |
# | `axis` | the axis along which the weights add up to 1 |
# | returns | an array of the shape and dtype of `x` |
#
# True means keep in PyTorch's `scaled_dot_product_attention` as well. In `MultiheadAttention` it is the other way round:
# there True means ignore.
#
# `[0, log 3, 9]` with the mask `[True, True, False]` gives `[0.25, 0.75, 0]`, whatever stands in place of the 9: what is
# masked may hold any number, `inf` or NaN, and must not matter.
#
# A slice in which nothing is kept has no weights to give. Its answer is zeros, not NaN. A NaN at a *kept* place is another
# matter: it makes its slice NaN, so that the fault shows. A kept logit of `-inf` gets weight 0; some kept logit of
# its slice is then finite.


# %% solution="masked_softmax"
def masked_softmax(x, mask, axis=-1):
    """Softmax over the places where mask is True, 0 elsewhere; an array like x."""
    ### BEGIN SOLUTION
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    kept = np.where(mask, wide, wide.dtype.type(-np.inf))
    maximum = np.max(kept, axis=axis, keepdims=True)
    maximum = np.where(maximum == -np.inf, wide.dtype.type(0), maximum)
    exponentials = np.exp(kept - maximum)
    total = np.sum(exponentials, axis=axis, keepdims=True)
    return (exponentials / np.where(total == 0, wide.dtype.type(1), total)).astype(x.dtype)
    ### END SOLUTION


# %% check="masked_softmax" part="values" points=12
check(masked_softmax, "masked_softmax", part="values")

# %% check="masked_softmax" part="numerics" points=5
check(masked_softmax, "masked_softmax", part="numerics")

# %% check="masked_softmax" part="edges" points=3
check(masked_softmax, "masked_softmax", part="edges")

# %% [markdown] hints="masked_softmax"
# <details><summary>Hint 1</summary>
#
# Which logit gets a weight of exactly 0, whatever the others are? And if every logit of a slice is that one: what is its
# maximum, and what do you get when you subtract it?
#
# <details><summary>Hint 2</summary>
#
# *Choose* between the logit and `-inf` with `np.where`. Adding `-inf` is not enough where the masked place holds NaN or
# `inf`. Two places then make NaN in an empty slice: the subtraction of the maximum, and the division by the sum.
#
# <details><summary>Hint 3</summary>
#
# `kept = np.where(mask, x, -np.inf)`, then `top = np.max(kept, axis=axis, keepdims=True)` and `top = np.where(top ==
# -np.inf, 0, top)`. After the exponentials and their sum: divide by `np.where(total == 0, 1, total)`. Keep an eye on the
# dtype.
#
# </details></details></details>

# %% [markdown] after="masked_softmax"
# Empty slices are a choice, not a theorem: zeros say "nothing was attended to", and add up to 0. *Harder:* write the
# backward. What must the gradient be at a masked place, and does your formula give it when that place holds NaN?

# %% [markdown] ask="late-maximum"
# ## Predict first: a late maximum
#
# Logits come in two chunks. The first holds a thousand zeros: its maximum is 0 and its normalizer, the sum of the
# exponentials measured from the maximum, is 1,000. The second chunk holds the one logit 10. What is the normalizer
# after both?

# %% prediction="late-maximum"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 1.05
### END INSTRUCTOR

# %% measure="late-maximum" points=1
logits = np.append(np.zeros(1000), 10.0)
compare(prediction, np.exp(logits - logits.max()).sum())

# %% [markdown] told="late-maximum"
# It falls from 1,000 to about 1.05. The maximum is now 10, every old term is measured from there, and a thousand of
# them are worth less than a twentieth together. A normalizer is no count that only grows: it is a sum *measured from a
# place*, and says nothing without the maximum that it goes with. That is why the two travel as a pair.

# %% [markdown] about="online_softmax"
# ## online_softmax ★
#
# Compute maximum and normalizer of logits that come in chunks, each of which you see once.
#
# `online_softmax(chunks)`
#
# | | |
# |---|---|
# | `chunks` | an iterator of 1-D floating-point arrays of any length; it can be gone through once, and has no `len` |
# | returns | the tuple (maximum, normalizer), two floats |
#
# The maximum $m$ is that of all logits in all chunks, and the normalizer is the softmax's denominator, measured from it:
#
# $$\ell = \sum_i e^{x_i - m}$$
#
# The chunks `[0, 0]` and `[log 2]`: after the first, $m = 0$ and $\ell = 2$. The second raises the maximum to $\log 2$. From
# there the two old terms are worth $e^{0 - \log 2} = 1/2$ each, and the new one 1: the answer is `(0.693, 2.0)`.
#
# Logits are finite or `-inf`, and `-inf` adds nothing. A chunk may be empty, or hold nothing but `-inf`; it changes nothing.
# Where nothing has been added up, be it that there are no chunks at all, the answer is `(-inf, 0.0)`. Add up `float16` in
# `float32` or wider.
#
# What you keep must not grow with the number of chunks. The check gives you hundreds of them, and measures the memory.


# %% solution="online_softmax"
def online_softmax(chunks):
    """(maximum, normalizer) of all chunks together, as floats, from one look at each."""
    ### BEGIN SOLUTION
    maximum, normalizer = -np.inf, 0.0
    for chunk in chunks:
        wide = chunk.astype(np.promote_types(chunk.dtype, np.float32))
        new = max(maximum, float(np.max(wide, initial=-np.inf)))
        if new == -np.inf:
            continue
        normalizer = normalizer * np.exp(maximum - new) + np.sum(np.exp(wide - new))
        maximum = new
    return float(maximum), float(normalizer)
    ### END SOLUTION


# %% check="online_softmax" part="values" points=12
check(online_softmax, "online_softmax", part="values")

# %% check="online_softmax" part="numerics" points=5
check(online_softmax, "online_softmax", part="numerics")

# %% check="online_softmax" part="edges" points=3
check(online_softmax, "online_softmax", part="edges")

# %% [markdown] hints="online_softmax"
# <details><summary>Hint 1</summary>
#
# You have added up $e^{x_i - m}$ for all logits so far. Now a larger maximum comes. Every term should have been measured from
# that one: by which factor are they all too large?
#
# <details><summary>Hint 2</summary>
#
# The factor is `np.exp(old - new)`, the same for all of them, so it can be taken to the sum. The terms of the new chunk are
# measured from the new maximum at once. Which maximum do you start with, and what is `-inf - (-inf)`?
#
# <details><summary>Hint 3</summary>
#
# Start with `-np.inf` and `0.0`. For each chunk: `new = max(old, np.max(chunk, initial=-np.inf))`; if that is still `-np.inf`,
# go on to the next; else `normalizer = normalizer * np.exp(old - new) + np.sum(np.exp(chunk - new))`.
#
# </details></details></details>

# %% [markdown] after="online_softmax"
# Two numbers stand for any number of logits, and two such pairs can be merged in any order, as (n, mean, m2) can. *Harder:*
# write that merge for two pairs, and show that it does not matter which chunks are merged first.

# %% [markdown] about="attention"
# ## attention
#
# Average values by the softmax of scores, with keys and values that come in blocks, each of which you see once.
#
# `attention(q, key_value_blocks, scale, mask_blocks=None)`
#
# | | |
# |---|---|
# | `q` | array of shape (M, D): M queries |
# | `key_value_blocks` | an iterator of pairs `(k, v)`, of shapes (B, D) and (B, E); B may differ from block to block |
# | `scale` | a float that the scores are multiplied by |
# | `mask_blocks` | None, or an iterator of boolean arrays (M, B), one a block; **True means keep** |
# | returns | array of shape (M, E) and of the dtype of `q` |
#
# $$\text{out}_i = \sum_j \operatorname{softmax}_j(\text{scale} \; q_i \cdot k_j)\; v_j$$
#
# where $j$ runs over the keys of all blocks. One query `[[1.]]`, scale 1, and two blocks of one key each: `[[0.]]` with
# value `[[4.]]`, and `[[log 3]]` with value `[[8.]]`. The weights are 1/4 and 3/4: the answer is `[[7.]]`.
#
# There is at least one block, and no block is empty. A query may see nothing of a block; if it sees nothing at all, its
# answer is zeros.
#
# What you keep must not grow with the number of blocks. The check gives you hundreds of small ones, and measures memory: the
# limit is a quarter of what the score matrix alone would take. Joining all blocks is far beyond it.


# %% solution="attention"
def attention(q, key_value_blocks, scale, mask_blocks=None):
    """The values averaged by softmax(scale * q k^T), shape (M, E), from one look at each block."""
    ### BEGIN SOLUTION
    wide = q.astype(np.promote_types(q.dtype, np.float32))
    zero, one = wide.dtype.type(0), wide.dtype.type(1)
    maximum = np.full((len(q), 1), -np.inf, wide.dtype)
    normalizer, output = np.zeros_like(maximum), zero
    for k, v in key_value_blocks:
        scores = wide @ k.T.astype(wide.dtype) * wide.dtype.type(scale)
        if mask_blocks is not None:
            scores = np.where(next(mask_blocks), scores, wide.dtype.type(-np.inf))
        new = np.maximum(maximum, np.max(scores, axis=1, keepdims=True))
        shift = np.where(new == -np.inf, zero, new)
        factor, exponentials = np.exp(maximum - shift), np.exp(scores - shift)
        normalizer = normalizer * factor + np.sum(exponentials, axis=1, keepdims=True)
        output = output * factor + exponentials @ v.astype(wide.dtype)
        maximum = new
    return (output / np.where(normalizer == 0, one, normalizer)).astype(q.dtype)
    ### END SOLUTION


# %% check="attention" part="values" points=12
check(attention, "attention", part="values")

# %% check="attention" part="numerics" points=5
check(attention, "attention", part="numerics")

# %% check="attention" part="edges" points=3
check(attention, "attention", part="edges")

# %% [markdown] hints="attention"
# <details><summary>Hint 1</summary>
#
# If the softmax is not divided yet, what you add up for a query is $\sum_j e^{s_j - m}\, v_j$. What happens to that sum
# when the maximum $m$ grows?
#
# <details><summary>Hint 2</summary>
#
# Keep three things for each query: a maximum, a normalizer, and a weighted sum of values. A new maximum multiplies the last
# two by the same factor. Divide once, at the end.
#
# <details><summary>Hint 3</summary>
#
# With `maximum` of shape (M, 1): `scores = q @ k.T * scale`, masked with `np.where(next(mask_blocks), scores, -np.inf)`; `new
# = np.maximum(maximum, scores.max(axis=1, keepdims=True))`; `shift = np.where(new == -np.inf, 0, new)`; `factor =
# np.exp(maximum - shift)`; `p = np.exp(scores - shift)`. Then `output = output * factor + p @ v`, and the normalizer
# likewise.
#
# </details></details></details>

# %% [markdown] after="attention"
# This is the loop inside FlashAttention: exact softmax attention, in memory that does not grow with the number of keys.
# *Harder:* go over the queries in blocks as well, and skip the blocks that a causal mask hides from all of them.

# %% [markdown] explain="attention"
# ## In your own words
#
# A service answers questions from documents. Each user may read some of them; the scores of all others are set to -1e9,
# softmax makes weights, and the answer is made from the weighted average of all documents. A new user, who may read
# nothing yet, asks something, and gets an answer with another customer's figures in it. Three colleagues have a remedy
# each: (a) set the scores to -inf; (b) set them to -inf, and replace NaN by 0 in the output; (c) refuse such users, and
# leave the code alone. The model is also trained with this code. Answer in one paragraph: where did the figures come
# from, what is each remedy worth, and what do you write instead?

# %% [markdown] explanation="attention" points=4
# For the new user all scores are -1e9. Softmax knows differences only, and there are none: with the maximum taken out
# every score is 0, so all documents get the same weight, and the answer is made from the average of everything that is
# forbidden. (a) makes NaN of this row, from -inf minus -inf. Nothing leaks, but in training the NaN of one row reaches
# the loss, and from there nearly every weight within two steps. (b) looks right in the forward pass; in the backward
# pass softmax multiplies by the NaN weights, so the gradients are NaN all the same, and a NaN that comes from a real
# fault is hidden as well. (c) helps until the next way to an empty row is found, padding, say, or a document that was
# deleted. I would give softmax harmless scores in rows where nothing is kept, set the weights of such rows to 0
# afterwards, mask with -inf elsewhere, and keep a test with an empty row, for the output and for the gradient.
#
# **Rubric**
#
# - 1 point: equal scores give equal weights, however negative, so the forbidden documents are averaged
# - 1 point: -inf alone gives NaN in an empty row, which spreads in training
# - 1 point: replacing NaN afterwards cleans the forward only (the gradient stays NaN), or hides real faults
# - 1 point: harmless input first and zeros after, with a test of an empty row
