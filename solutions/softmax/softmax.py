# %% [markdown]
# # Exercises: softmax
#
# Softmax turns any row of numbers into weights that add up to 1. Four exercises: the function itself, the number in its
# denominator, a way to draw from it without computing it, and the place where it comes from on its own.
#
# As everywhere, `float16` is computed in `float32` and turned back at the end, and the input stays as it was.
# Write in the cell that says *your code here*, run it, then run the check cells under it.

# %% setup=true
import numpy as np

from normlab.check import check
from normlab.predict import compare

# %% [markdown] ask="crowd"
# ## Predict first
#
# A model chooses among 1,000 words. One has the logit 5, and the other 999 have the logit 0. What weight does softmax
# give to the one? ($e^5$ is about 148.) Write a number between 0 and 1, run the cell, then the one below it.

# %% prediction="crowd"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 0.13
### END INSTRUCTOR

# %% measure="crowd" points=1
logits = np.zeros(1000)
logits[0] = 5.0
compare(prediction, float(np.exp(5.0) / np.exp(logits).sum()))

# %% [markdown] told="crowd"
# It has 148 times the weight of each other word, and still only 148 of 1,147 in all. Against a single rival the same
# logit would get 0.993. A logit says nothing by itself: what counts is its difference to the others, and how many
# others there are. A thousand equal rivals together weigh as much as one with a logit that is larger by $\log 1000 =
# 6.9$.

# %% [markdown] about="softmax"
# ## softmax ★
#
# Turn every slice along an axis into positive weights that add up to 1.
#
# `softmax(x, axis=-1)`
#
# | | |
# |---|---|
# | `x` | floating-point array of logits |
# | `axis` | the axis along which the weights add up to 1 |
# | returns | an array of the same shape and dtype |
#
# $$p_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$
#
# `[0, log 3]` has the exponentials 1 and 3, which add up to 4: the answer is `[0.25, 0.75]`. So has `[1000, 1000 + log
# 3]`, because only differences count; but $e^{1000}$ is more than a float can hold. Your function has to cope with it.
#
# A logit of `-inf` gets weight 0. A slice of nothing but `-inf` has no distribution, and a slice with a NaN has none
# either: both become NaN, as in PyTorch.


# %% solution="softmax"
def softmax(x, axis=-1):
    """exp(x) over its sum along axis; an array like x."""
    ### BEGIN SOLUTION
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    exponentials = np.exp(wide - np.max(wide, axis=axis, keepdims=True))
    return (exponentials / np.sum(exponentials, axis=axis, keepdims=True)).astype(x.dtype)
    ### END SOLUTION


# %% check="softmax" part="values" points=12
check(softmax, "softmax", part="values")

# %% check="softmax" part="numerics" points=5
check(softmax, "softmax", part="numerics")

# %% check="softmax" part="edges" points=3
check(softmax, "softmax", part="edges")

# %% [markdown] hints="softmax"
# <details><summary>Hint 1</summary>
#
# If you subtract the same number from all logits of a slice, what happens to the weights? Which number would you take, so
# that no exponential is too large and not all are too small?
#
# <details><summary>Hint 2</summary>
#
# With the maximum of the slice taken out, the largest exponential is 1, so the sum is at least 1. Each slice has its own
# maximum.
#
# <details><summary>Hint 3</summary>
#
# `exponentials = np.exp(x - np.max(x, axis=axis, keepdims=True))`, then divide by their sum along the same axis, again
# with `keepdims=True`. For `float16`, work in `float32` and cast at the end.
#
# </details></details></details>

# %% [markdown] after="softmax"
# Softmax knows only differences of logits, so you may shift each slice wherever the arithmetic is safe. *Harder:* write it
# without knowing the maximum beforehand, looking at each element once. (Attention on long sequences needs that.)

# %% [markdown] about="logsumexp"
# ## logsumexp
#
# Compute the log of the softmax's denominator.
#
# `logsumexp(x, axis=-1)`
#
# | | |
# |---|---|
# | `x` | floating-point array |
# | `axis` | the axis that is summed over, and dropped |
# | returns | an array of the same dtype with one axis less (a NumPy scalar for a vector) |
#
# $$\operatorname{logsumexp}(x) = \log \sum_i e^{x_i}$$
#
# `[0, 0]` gives $\log 2 = 0.693$, and `[1000, 1000]` gives $1000.693$. A slice of nothing but `-inf` is an empty sum, whose
# log is `-inf`; a slice with a `+inf` gives `+inf`. A NaN makes its slice NaN.


# %% solution="logsumexp"
def logsumexp(x, axis=-1):
    """log of the sum of exp(x) along axis, which is dropped."""
    ### BEGIN SOLUTION
    return np.logaddexp.reduce(x.astype(np.promote_types(x.dtype, np.float32)), axis=axis).astype(x.dtype)
    ### END SOLUTION


# %% check="logsumexp" part="values" points=12
check(logsumexp, "logsumexp", part="values")

# %% check="logsumexp" part="numerics" points=5
check(logsumexp, "logsumexp", part="numerics")

# %% check="logsumexp" part="edges" points=3
check(logsumexp, "logsumexp", part="edges")

# %% [markdown] hints="logsumexp"
# <details><summary>Hint 1</summary>
#
# What is $\log \sum_i e^{x_i - c}$, written with the answer you want and with $c$?
#
# <details><summary>Hint 2</summary>
#
# Take the maximum out before the exponentials and add it again after the log. When is that maximum itself a problem?
#
# <details><summary>Hint 3</summary>
#
# `top = np.max(x, axis=axis, keepdims=True)`, then `top = np.where(np.isfinite(top), top, 0)`, because `inf - inf` is NaN.
# Then `np.log(np.sum(np.exp(x - top), axis=axis)) + np.squeeze(top, axis)`.
#
# </details></details></details>

# %% [markdown] after="logsumexp"
# `logsumexp` is a smooth maximum: never below the largest element, and above it by at most $\log n$. The log of a softmax
# is `x - logsumexp(x)`, and its derivative is the softmax. *Harder:* check the derivative with a finite difference.

# %% [markdown] about="gumbel_max"
# ## gumbel_max
#
# Draw classes with the probabilities of a softmax, from uniform or Gumbel random numbers alone.
#
# `gumbel_max(logits, rng, size)`
#
# | | |
# |---|---|
# | `logits` | 1-D floating-point array of $K$ logits |
# | `rng` | a random generator, of which you may call `rng.gumbel` or `rng.random` and nothing else |
# | `size` | an int or a tuple: the shape of the answer |
# | returns | an integer array of that shape; class $k$ is drawn with probability $\operatorname{softmax}(\text{logits})_k$ |
#
# The Gumbel trick: add to each logit a number $g = -\log(-\log u)$, with $u$ uniform on (0, 1), and take the index of the
# largest. For logits `[0, 0]` both classes win half of the time, and with logits `[0, log 3]` the second wins three times
# in four.
#
# The check draws 100,000 samples of each kind and compares frequencies. It also looks whether samples depend on one another:
# two of them agree as often as chance has it, and a draw that is used twice agrees with itself. A right sampler is refused
# with a probability of less than one in a hundred million.


# %% solution="gumbel_max"
def gumbel_max(logits, rng, size):
    """Class indices of shape size, drawn from softmax(logits)."""
    ### BEGIN SOLUTION
    shape = (size,) if np.isscalar(size) else tuple(size)
    noise = rng.gumbel(size=shape + logits.shape)
    return np.argmax(logits + noise, axis=-1)
    ### END SOLUTION


# %% check="gumbel_max" part="values" points=12
check(gumbel_max, "gumbel_max", part="values")

# %% check="gumbel_max" part="numerics" points=5
check(gumbel_max, "gumbel_max", part="numerics")

# %% check="gumbel_max" part="edges" points=3
check(gumbel_max, "gumbel_max", part="edges")

# %% [markdown] hints="gumbel_max"
# <details><summary>Hint 1</summary>
#
# How many random numbers does a single sample need? And a thousand samples?
#
# <details><summary>Hint 2</summary>
#
# Every sample needs noise of its own for every class: an array of the shape of the answer, with one axis of length $K$
# more.
#
# <details><summary>Hint 3</summary>
#
# `np.argmax(logits + rng.gumbel(size=(*shape, len(logits))), axis=-1)`, where `shape` is `size` as a tuple.
#
# </details></details></details>

# %% [markdown] after="gumbel_max"
# Softmax is what comes out when each option has a score plus Gumbel noise and the best one is chosen; with Gaussian noise
# something else comes out. *Harder:* draw two *different* classes at once by taking the two largest. What have you drawn?

# %% [markdown] ask="test"
# ## Predict: a positive test
#
# One person in a thousand has a disease. A test is positive for 99 percent of those who have it, and for 1 percent of
# those who do not. Yours is positive. How probable is it that you have the disease?

# %% prediction="test"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 0.09
### END INSTRUCTOR

# %% measure="test" points=1
log_joint = np.log([0.001, 0.999]) + np.log([0.99, 0.01])
weights = np.exp(log_joint)
compare(prediction, float(weights[0] / weights.sum()))

# %% [markdown] told="test"
# About one in eleven. Of 100,000 people, 99 are ill and test positive, and 999 are healthy and test positive. As
# logits: the test speaks for the disease with $\log 99 = 4.6$, the prior speaks against it with $\log 999 = 6.9$, and
# the sum is
# -2.3. A softmax without the prior would have said 0.99.

# %% [markdown] about="bayes_posterior"
# ## bayes_posterior
#
# Compute the posterior over classes from log prior and log-likelihoods.
#
# `bayes_posterior(log_prior, log_likelihood)`
#
# | | |
# |---|---|
# | `log_prior` | array of shape (K,): the log of the prior of each class, up to a constant |
# | `log_likelihood` | array of shape (N, K): the log-likelihood of each sample under each class |
# | returns | array of shape (N, K) of the dtype of the inputs: each row adds up to 1 |
#
# $$P(k \mid x) = \frac{P(k)\, p(x \mid k)}{\sum_j P(j)\, p(x \mid j)}$$
#
# Two classes with priors 1/4 and 3/4 and a sample that is three times as likely under the first: the products are 3/4 and
# 3/4, so the posterior is `[0.5, 0.5]`.
#
# Log-likelihoods of -10,000 are nothing unusual (a sample with a thousand features has such), and exp of that is 0. What
# is impossible, a class of prior 0 or a likelihood of 0, has the log `-inf` and gets posterior 0. A NaN makes the posterior
# of its sample NaN.


# %% solution="bayes_posterior"
def bayes_posterior(log_prior, log_likelihood):
    """Posterior, shape (N, K): each row adds up to 1."""
    ### BEGIN SOLUTION
    wide = np.promote_types(log_likelihood.dtype, np.float32)
    log_joint = log_prior[np.newaxis, :].astype(wide) + log_likelihood
    joint = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    return (joint / joint.sum(axis=1, keepdims=True)).astype(log_likelihood.dtype)
    ### END SOLUTION


# %% check="bayes_posterior" part="values" points=12
check(bayes_posterior, "bayes_posterior", part="values")

# %% check="bayes_posterior" part="numerics" points=5
check(bayes_posterior, "bayes_posterior", part="numerics")

# %% check="bayes_posterior" part="edges" points=3
check(bayes_posterior, "bayes_posterior", part="edges")

# %% [markdown] hints="bayes_posterior"
# <details><summary>Hint 1</summary>
#
# What does a product become under the log? And what does dividing by the sum over the classes remind you of?
#
# <details><summary>Hint 2</summary>
#
# The log of the joint is `log_prior + log_likelihood`, with the prior along the last axis. The posterior is its softmax,
# over the classes.
#
# <details><summary>Hint 3</summary>
#
# `log_joint = log_prior + log_likelihood`, subtract the maximum of each row, take exp, divide by the sum of each row.
#
# </details></details></details>

# %% [markdown] after="bayes_posterior"
# Softmax of log-joints is Bayes' rule, whatever the class-conditional densities are: nothing here assumed a Gaussian.
# *Harder:* for which class-conditional densities are the log-joints linear in $x$?

# %% [markdown] explain="softmax"
# ## In your own words
#
# A network tells cats, dogs and birds apart. Somebody shows it a photo of a pizza, and its softmax says 0.98 cat. The
# manager asks: "So the network thinks that, compared with the Gaussian it learned from our photos, this picture is 98
# percent likely to be a cat. Then we can throw out pictures that are not animals by their low softmax, can't we?"
# Answer in one paragraph. What is the 0.98 a share of? What would have to be true of the three logits? And why can the
# softmax not say that the picture fits none of the three?

# %% [markdown] explanation="softmax" points=4
# The 0.98 is a share among three options, and the three shares add up to 1 whatever the picture is. It answers: if it
# must be one of these three, which? For 0.98 the logit of cat has to be only about 4.6 above the other two, if those
# are equal, because $e^{4.6}$ is about 99, and 99 of 101 is 0.98. Say the logits were log-likelihoods, -10,000 for cat
# and -10,004.6 for dog and bird: the picture would be all but impossible under every class, and that -10,000, common to
# all three, cancels in the division. So the softmax cannot show it, and a threshold on it will pass this pizza. (In
# practice a low softmax does catch some strange pictures; nothing guarantees it.) There is no Gaussian in it either:
# logits may come from anywhere. To notice a pizza one needs something else, such as a model of how likely pictures are,
# or a fourth class with examples.
#
# **Rubric**
#
# - 1 point: a distribution over three options, which adds up to 1 for every input
# - 1 point: only differences of logits count, with a number: cat ahead by 4 or 5 is enough
# - 1 point: what is common to all three, such as being unlikely altogether, cancels, so a high softmax proves no fit
# - 1 point: no Gaussian is assumed, and what would be needed instead (a density of inputs, a class for the rest)
