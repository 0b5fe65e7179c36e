"""The kernels for the CPU, in Numba: five norms, softmax, log-softmax and cross entropy, forward and backward.

A kernel is a plain loop over rows, or over channels. `share` (in jit.py) cuts that loop into parts and runs them in
PyTorch's threads. Numbers are stored as float32, float64, float16 or bfloat16 and computed with as float32 (float64 for
float64): `widen` reads one, `narrow` writes one, rounding once. Sums over many blocks are kept in float64.

Two shapes of loop serve everything. In **rows** the elements that are pooled lie side by side: layer, RMS, group and
instance norm, softmax along the last axis. In **columns** they lie one row apart: batch norm of (N, C) or of a
channels-last image, softmax along another axis. Batch norm of (N, C, positions) pools N rows, one from each example.

Entries (`row_norm`, `batch_norm`, `softmax`, `cross_entropy` and their backwards) are what `functional.py` calls, with
addresses and sizes; address 0 stands for None. They choose a loop and share it. An `if` inside a loop over short rows
costs more than the row: where there is a choice, there are two loops.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from normlab.jit import (
    EXACT_ORDER,
    PAST_CACHE,
    array,
    compiled,
    cut,
    maximum,
    narrow,
    share,
    stream,
    two_to_the,
    vector,
    vector_or,
    widen,
)

# Elements of a block: its numbers stay in the fastest cache between the sum and the sum of squares.
BLOCK = 4096
# Columns and rows of a tile, likewise.
TILE_COLUMNS, TILE_ROWS = 256, 32
# Columns of a tile that has all rows: at most, and at least (a cache line).
WIDEST, NARROWEST = 2048, 16
# Rows whose gradients are added up in float32 before they go to the sum in float64.
FLUSH = 64


# ---- exp -------------------------------------------------------------------------------------------------------------

_TAYLOR32 = tuple(np.float32(1 / math.factorial(k)) for k in range(7, -1, -1))
_TAYLOR64 = tuple(np.float64(1 / math.factorial(k)) for k in range(13, -1, -1))
# log(2) as a number of few digits, so that n times it is exact, and the rest.
_LN2_32 = (np.float32(0.693359375), np.float32(math.log(2) - 0.693359375))
_LN2_64 = (np.float64(0.6931471803691238), np.float64(1.9082149292705877e-10))
_LOWEST32, _LOWEST64 = np.float32(-87.3), np.float64(-708.3)


@compiled(EXACT_ORDER)
def _exp32(x):
    shifted = x * np.float32(1 / math.log(2)) + np.float32(1.5 * 2**23)
    n = shifted - np.float32(1.5 * 2**23)
    r = x - n * _LN2_32[0] - n * _LN2_32[1]
    p = np.float32(0)
    for coefficient in _TAYLOR32:
        p = p * r + coefficient
    return np.float32(0) if x < _LOWEST32 else p * two_to_the(shifted)


@compiled(EXACT_ORDER)
def _exp64(x):
    shifted = x * (1 / math.log(2)) + 1.5 * 2**52
    n = shifted - 1.5 * 2**52
    r = x - n * _LN2_64[0] - n * _LN2_64[1]
    p = 0.0
    for coefficient in _TAYLOR64:
        p = p * r + coefficient
    return 0.0 if x < _LOWEST64 else p * two_to_the(shifted)


def exp(x):
    """e**x for x up to about 80 (softmax asks for x <= 0): 0 below -87.3 (float64: -708.3), where results near the
    smallest normal numbers begin, and NaN for NaN. The library's exp is called once a number; this one is vectorized.

    e**x = 2**n * e**r with n the whole number nearest to x / log 2, so that |r| <= log(2) / 2, where few terms of the
    Taylor series do. Adding 1.5 * 2**23 rounds to whole numbers: there the floating-point numbers are 1 apart.
    """
    raise NotImplementedError("exp is for compiled code")


@overload(exp)
def _exp(x):
    return (lambda x: _exp64(x)) if x == types.float64 else (lambda x: _exp32(x))


# ---- Results larger than the cache -----------------------------------------------------------------------------------
# An ordinary store first reads the line it writes to. Where a result is larger than the cache that is a third of all
# traffic. There a row is computed in a spare one, which stays in the cache, and streamed to its place.


@compiled()
def is_past_cache(y):
    return y.nbytes > PAST_CACHE


@compiled()
def spare_row(y, past_cache):
    return np.empty(y.shape[-1] if past_cache else 0, y.dtype)


# ---- Statistics ------------------------------------------------------------------------------------------------------


@compiled()
def zero(x):
    """0 in the type that the elements of x are computed in."""
    return widen(x.dtype.type(0))


@compiled()
def real(x, value):
    """`value` in that type. A plain 1 beside a float32 would make both float64, and loops half as fast."""
    return type(zero(x))(value)


@compiled(EXACT_ORDER)
def minus(x, mean):
    """x - mean, in a function of its own: regrouped with the sum it goes into, it would lose what it is there for."""
    return widen(x) - mean


@compiled()
def block_moments(x):
    """Mean of a block and the sum of its squared deviations, both float64, in two passes over the fastest cache.

    Deviations from a mean that was rounded do not sum to 0. What they sum to says how much the rounding took.
    """
    once = 1 / np.float64(x.size)
    total = zero(x)
    for j in range(x.size):
        total += widen(x[j])
    mean = type(total)(total * once)
    rest, squares = zero(x), zero(x)
    for j in range(x.size):
        d = minus(x[j], mean)
        rest += d
        squares += d * d
    return mean + rest * once, squares - rest * (rest * once)


@compiled()
def merge(n, mean, squares, block_n, block_mean, block_squares):
    """Count, mean and sum of squared deviations of two sets together, from those of each [chan1983]."""
    together = n + block_n
    apart = block_mean - mean
    mean += apart * (block_n / together)
    squares += block_squares + apart * apart * (n * (block_n / together))
    return together, mean, squares


@compiled()
def moments(x):
    """Mean and sum of squared deviations of a row (float64), read once from memory."""
    first = x[:BLOCK]
    mean, squares = block_moments(first)
    n = first.size
    for start in range(BLOCK, x.size, BLOCK):
        block = x[start : start + BLOCK]
        block_mean, block_squares = block_moments(block)
        n, mean, squares = merge(n, mean, squares, block.size, block_mean, block_squares)
    return mean, squares


@compiled()
def sum_of_squares(x):
    total = 0.0
    for start in range(0, x.size, BLOCK):
        block = x[start : start + BLOCK]
        squares = zero(x)
        for j in range(block.size):
            squares += widen(block[j]) * widen(block[j])
        total += squares
    return total


@compiled()
def totals_of(sums):
    """(2, n, channels) to (2, channels), added in order."""
    totals = np.zeros((2, sums.shape[2]))
    for which in range(2):
        for i in range(sums.shape[1]):
            for c in range(sums.shape[2]):
                totals[which, c] += sums[which, i, c]
    return totals


# ---- y = (x - mean) * scale + shift ----------------------------------------------------------------------------------


@compiled()
def scale_by_number(x, y, mean, scale, shift):
    for j in range(x.size):
        y[j] = narrow(minus(x[j], mean) * scale + shift, y[j])


@compiled()
def scale_by_vectors(x, y, mean, rstd, weight, bias):
    for j in range(x.size):
        y[j] = narrow(minus(x[j], mean) * rstd * weight[j] + bias[j], y[j])


@compiled()
def pick(numbers, i, otherwise):
    """numbers[i], or `otherwise` where there are none."""
    return numbers[i] if numbers.size else otherwise


# ---- Layer, RMS, group and instance norm: each pool is a row ---------------------------------------------------------
# A row holds `channels` channels of `positions` elements each. In layer and RMS norm a channel is one element: weight
# and bias are as long as the row. In group and instance norm row r is group r % groups, which has channels of its own.


@compiled()
def layer_norm_rows(first, last, x, y, weight, bias, means, variances, eps, centered, past_cache):
    one, spare = real(x, 1), spare_row(y, past_cache)
    for row in range(first, last):
        mean, squares = moments(x[row]) if centered else (0.0, sum_of_squares(x[row]))
        variance = squares / x.shape[1]
        if means.size:
            means[row], variances[row] = mean, variance
        rstd = 1 / math.sqrt(variance + eps)
        out = spare if past_cache else y[row]
        scale_by_vectors(x[row], out, type(one)(mean), type(one)(rstd), weight, bias)
        if past_cache:
            stream(out, y[row])


@compiled()
def group_norm_rows(first, last, x, y, weight, bias, means, variances, channels, eps, past_cache):
    """x: (rows, channels * positions); weight and bias: (groups, channels)."""
    one, spare = real(x, 1), spare_row(y, past_cache)
    groups, group, positions = weight.shape[0], first % weight.shape[0], x.shape[1] // channels
    for row in range(first, last):
        out = spare if past_cache else y[row]
        mean, squares = moments(x[row])
        variance = squares / x.shape[1]
        if means.size:
            means[row], variances[row] = mean, variance
        rstd = type(one)(1 / math.sqrt(variance + eps))
        if positions == 1:
            scale_by_vectors(x[row], out, type(one)(mean), rstd, weight[group], bias[group])
        else:
            for c in range(channels):
                here, scale = slice(c * positions, (c + 1) * positions), rstd * weight[group, c]
                scale_by_number(x[row, here], out[here], type(one)(mean), scale, bias[group, c])
        if past_cache:
            stream(out, y[row])
        group = group + 1 if group < groups - 1 else 0


@compiled(entry=True)
def row_norm(x, y, weight, bias, means, variances, rows, groups, channels, positions, eps, centered, threads, like):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias over each of `rows` rows; means and variances may be 0."""
    shape, size, wide = (rows, channels * positions), groups * channels, widen(like)
    x, y = array(x, shape, like), array(y, shape, like)
    weight, bias = vector_or(weight, size, real(x, 1)), vector_or(bias, size, zero(x))
    means, variances = vector(means, rows, wide), vector(variances, rows, wide)
    parts = cut(x.size, rows, threads)
    if groups == 1 and positions == 1:
        share(layer_norm_rows, rows, parts, (x, y, weight, bias, means, variances, eps, centered, is_past_cache(y)))
    else:
        arrays = (x, y, weight.reshape((groups, channels)), bias.reshape((groups, channels)), means, variances)
        share(group_norm_rows, rows, parts, (*arrays, channels, eps, is_past_cache(y)))


@compiled()
def project_vectors(dy, x, weight, mean, rstd, dweight, dbias):
    """Sums of g and of g * x_hat over a row, with g = dy * weight; adds dy * x_hat and dy to dweight and dbias."""
    sum_g, sum_gx = zero(x), zero(x)
    for j in range(x.size):
        d, x_hat = widen(dy[j]), minus(x[j], mean) * rstd
        dweight[j] += d * x_hat
        dbias[j] += d
        sum_g += d * weight[j]
        sum_gx += d * weight[j] * x_hat
    return sum_g, sum_gx


@compiled()
def project_number(dy, x, mean, rstd):
    """Sums of dy and of dy * x_hat."""
    sum_g, sum_gx = zero(x), zero(x)
    for j in range(x.size):
        sum_g += widen(dy[j])
        sum_gx += widen(dy[j]) * (minus(x[j], mean) * rstd)
    return sum_g, sum_gx


@compiled()
def backward_vectors(dy, x, dx, weight, mean, rstd, mean_g, mean_gx):
    """dx = rstd * (g - mean_g - x_hat * mean_gx): g projected off the constants and off x_hat."""
    for j in range(x.size):
        x_hat = minus(x[j], mean) * rstd
        dx[j] = narrow(rstd * (widen(dy[j]) * weight[j] - mean_g - x_hat * mean_gx), dx[j])


@compiled()
def backward_number(dy, x, dx, weight, mean, rstd, mean_g, mean_gx):
    for j in range(x.size):
        x_hat = minus(x[j], mean) * rstd
        dx[j] = narrow(rstd * (widen(dy[j]) * weight - mean_g - x_hat * mean_gx), dx[j])


@compiled()
def layer_norm_backward_parts(
    first_part, last_part, dy, x, dx, weight, means, variances, eps, centered, per_part, past_cache
):
    """The rows of each part. Its dweight and dbias go to per_part[:, part], (2, length), float64."""
    one, once = real(x, 1), real(x, 1) / real(x, x.shape[1])
    rows, n_parts, spare = x.shape[0], per_part.shape[1], spare_row(dx, past_cache)
    for part in range(first_part, last_part):
        added = np.full((2, x.shape[1]), zero(x))
        dweight, dbias = added[0], added[1]
        for row in range(rows * part // n_parts, rows * (part + 1) // n_parts):
            mean, rstd = means[row], type(one)(1 / math.sqrt(variances[row] + eps))
            sum_g, sum_gx = project_vectors(dy[row], x[row], weight, mean, rstd, dweight, dbias)
            if not centered:
                sum_g = zero(x)
            if dx.size:
                out = spare if past_cache else dx[row]
                backward_vectors(dy[row], x[row], out, weight, mean, rstd, sum_g * once, sum_gx * once)
                if past_cache:
                    stream(out, dx[row])
            if row % FLUSH == FLUSH - 1:
                flush(added, per_part[:, part])
        flush(added, per_part[:, part])


@compiled()
def flush(added, totals):
    for i in range(2):
        for j in range(totals.shape[1]):
            totals[i, j] += added[i, j]
            added[i, j] = 0


@compiled()
def group_norm_backward_rows(first, last, dy, x, dx, weight, means, variances, eps, sums, past_cache):
    """sums, (2, rows, channels) in float64, gets the sums of dy and of dy * x_hat over each channel of each row."""
    one, groups, group = real(x, 1), weight.shape[0], first % weight.shape[0]
    channels, positions = x.shape[1:]
    once = 1 / np.float64(channels * positions)
    spare = np.empty((channels if past_cache else 0, positions), dx.dtype)
    for row in range(first, last):
        mean, rstd = means[row], type(one)(1 / math.sqrt(variances[row] + eps))
        w, sum_g, sum_gx = weight[group], 0.0, 0.0
        group = group + 1 if group < groups - 1 else 0
        for c in range(channels):
            sum_d, sum_dx = project_number(dy[row, c], x[row, c], mean, rstd)
            sums[0, row, c], sums[1, row, c] = sum_d, sum_dx
            sum_g += np.float64(sum_d) * w[c]
            sum_gx += np.float64(sum_dx) * w[c]
        if dx.size == 0:
            continue
        mean_g, mean_gx = type(one)(sum_g * once), type(one)(sum_gx * once)
        out = spare if past_cache else dx[row]
        for c in range(channels):
            backward_number(dy[row, c], x[row, c], out[c], w[c], mean, rstd, mean_g, mean_gx)
        if past_cache:
            stream(out.reshape(out.size), dx[row].reshape(out.size))


@compiled(entry=True)
def row_norm_backward(
    dy, x, dx, weight, means, variances, dweight, dbias, rows, groups, channels, positions, eps, centered, threads, like
):
    """dx, and dweight and dbias of the channels of all groups; 0 for what is not wanted (dweight and dbias together).

    Each part adds up by itself, and the parts are added in order: the same result on every run.
    """
    shape, size, wide = (rows, channels, positions), groups * channels, widen(like)
    dy, x, dx = array(dy, shape, like), array(x, shape, like), array(dx, (rows if dx else 0, *shape[1:]), like)
    weight, dweight, dbias = vector_or(weight, size, real(x, 1)), vector(dweight, size, wide), vector(dbias, size, wide)
    means, variances = vector(means, rows, wide), vector(variances, rows, wide)
    parts, past_cache = cut(x.size, rows, threads), is_past_cache(dx)
    if groups == 1 and positions == 1:
        flat, per_part = (rows, channels), np.zeros((2, parts, size))
        arrays = (dy.reshape(flat), x.reshape(flat), dx.reshape((len(dx), channels)), weight, means, variances)
        share(layer_norm_backward_parts, parts, parts, (*arrays, eps, centered, per_part, past_cache))
        totals = totals_of(per_part)
        for c in range(dweight.size):
            dweight[c], dbias[c] = totals[0, c], totals[1, c]
        return
    sums = np.empty((2, rows, channels))
    arrays = (dy, x, dx, weight.reshape((groups, channels)), means, variances)
    share(group_norm_backward_rows, rows, parts, (*arrays, eps, sums, past_cache))
    totals = totals_of(sums.reshape((2, rows // groups, size)))
    for c in range(dweight.size):
        dbias[c], dweight[c] = totals[0, c], totals[1, c]


# ---- Batch norm of (N, C, positions): a channel is N rows ------------------------------------------------------------
# A channel is finished before the next one is begun: what was read for its statistics is still in the cache when it is
# normalized. Where its rows are short (FAR_APART: jumping from one to the next costs more than reading it), or where
# there are fewer channels than threads, rows are taken as they come instead, twice, and merged in between.

FAR_APART = 256


@compiled()
def merge_rows(row_means, row_squares, positions, means, variances):
    """Mean and variance of each channel from those of its rows, (n, channels), all of which count alike."""
    n, channels = row_means.shape
    mean, squares = np.zeros(channels), np.zeros(channels)
    for i in range(n):
        for c in range(channels):
            mean[c] += row_means[i, c] / n
    for i in range(n):
        for c in range(channels):
            apart = row_means[i, c] - mean[c]
            squares[c] += row_squares[i, c] + positions * (apart * apart)
    for c in range(channels):
        means[c], variances[c] = mean[c], squares[c] / (n * positions)


@compiled()
def row_statistics(first, last, x, row_means, row_squares):
    """Of the rows first..last of [N * C] rows."""
    channels = x.shape[1]
    for row in range(first, last):
        i, c = row // channels, row % channels
        row_means[i, c], row_squares[i, c] = moments(x[i, c])


@compiled()
def normalize_rows(first, last, x, y, weight, bias, means, variances, eps, past_cache):
    one, channels, spare = real(x, 1), x.shape[1], spare_row(y, past_cache)
    for row in range(first, last):
        i, c = row // channels, row % channels
        scale = type(one)(1 / math.sqrt(variances[c] + eps)) * weight[c]
        out = spare if past_cache else y[i, c]
        scale_by_number(x[i, c], out, type(one)(means[c]), scale, bias[c])
        if past_cache:
            stream(out, y[i, c])


@compiled()
def batch_norm_channels(first, last, x, y, weight, bias, means, variances, eps, past_cache):
    one, spare = real(x, 1), spare_row(y, past_cache)
    for c in range(first, last):
        n, mean, squares = 0, 0.0, 0.0
        for i in range(x.shape[0]):
            row_mean, row_squares = moments(x[i, c])
            n, mean, squares = merge(n, mean, squares, x.shape[2], row_mean, row_squares)
        means[c], variances[c] = mean, squares / n
        scale = type(one)(1 / math.sqrt(squares / n + eps)) * weight[c]
        for i in range(x.shape[0]):
            out = spare if past_cache else y[i, c]
            scale_by_number(x[i, c], out, type(one)(mean), scale, bias[c])
            if past_cache:
                stream(out, y[i, c])


@compiled(entry=True)
def batch_norm(x, y, weight, bias, means, variances, n, channels, positions, eps, training, threads, like):
    """y like x, (n, channels, positions). In training, means and variances (biased) are written, else they are used."""
    shape, wide = (n, channels, positions), widen(like)
    x, y = array(x, shape, like), array(y, shape, like)
    weight, bias = vector_or(weight, channels, real(x, 1)), vector_or(bias, channels, zero(x))
    means, variances = vector(means, channels, wide), vector(variances, channels, wide)
    parts = cut(x.size, n * channels, threads)
    if training and channels >= parts and positions >= FAR_APART:
        share(batch_norm_channels, channels, parts, (x, y, weight, bias, means, variances, eps, is_past_cache(y)))
        return
    if training:
        row_means, row_squares = np.empty((n, channels)), np.empty((n, channels))
        share(row_statistics, n * channels, parts, (x, row_means, row_squares))
        merge_rows(row_means, row_squares, positions, means, variances)
    share(normalize_rows, n * channels, parts, (x, y, weight, bias, means, variances, eps, is_past_cache(y)))


@compiled(entry=True)
def move(running_means, running_variances, means, variances, channels, momentum, unbiased, like):
    """Running statistics a step toward those of a batch; `unbiased` is n / (n - 1)."""
    running_means, running_variances = vector(running_means, channels, like), vector(running_variances, channels, like)
    means, variances = vector(means, channels, like), vector(variances, channels, like)
    for c in range(channels):
        running_means[c] = running_means[c] * (1 - momentum) + means[c] * momentum
        running_variances[c] = running_variances[c] * (1 - momentum) + variances[c] * (momentum * unbiased)


@compiled()
def row_sums(first, last, dy, x, means, variances, eps, sums):
    """sums[0] and sums[1], [N, C]: of dy and of dy * x_hat over each row."""
    one, channels = real(x, 1), x.shape[1]
    for row in range(first, last):
        i, c = row // channels, row % channels
        rstd = type(one)(1 / math.sqrt(variances[c] + eps))
        sums[0, i, c], sums[1, i, c] = project_number(dy[i, c], x[i, c], type(one)(means[c]), rstd)


@compiled()
def backward_rows(first, last, dy, x, dx, scale, means, rstds, mean_g, mean_gx, past_cache):
    """dx of the rows first..last; the others are numbers of a channel each."""
    channels, spare = x.shape[1], spare_row(dx, past_cache)
    for row in range(first, last):
        i, c = row // channels, row % channels
        out = spare if past_cache else dx[i, c]
        backward_number(dy[i, c], x[i, c], out, scale[c], means[c], rstds[c], mean_g[c], mean_gx[c])
        if past_cache:
            stream(out, dx[i, c])


@compiled()
def batch_norm_backward_channels(first, last, dy, x, dx, weight, means, variances, eps, training, sums, past_cache):
    one, spare = real(x, 1), spare_row(dx, past_cache)
    for c in range(first, last):
        mean, rstd = type(one)(means[c]), type(one)(1 / math.sqrt(variances[c] + eps))
        total_g, total_gx = 0.0, 0.0
        for i in range(x.shape[0]):
            sums[0, i, c], sums[1, i, c] = project_number(dy[i, c], x[i, c], mean, rstd)
            total_g += sums[0, i, c]
            total_gx += sums[1, i, c]
        if dx.size == 0:
            continue
        w, pool = weight[c], x.shape[0] * x.shape[2]
        mean_g, mean_gx = zero(x), zero(x)
        if training:
            mean_g, mean_gx = type(one)(w * total_g / pool), type(one)(w * total_gx / pool)
        for i in range(x.shape[0]):
            out = spare if past_cache else dx[i, c]
            backward_number(dy[i, c], x[i, c], out, w, mean, rstd, mean_g, mean_gx)
            if past_cache:
                stream(out, dx[i, c])


@compiled(entry=True)
def batch_norm_backward(
    dy, x, dx, weight, dweight, dbias, means, variances, n, channels, positions, eps, training, threads, like
):
    """dx like x, and dweight and dbias; 0 for what is not wanted (dweight and dbias together)."""
    shape, wide = (n, channels, positions), widen(like)
    wanted = dx != 0
    dy, x, dx = array(dy, shape, like), array(x, shape, like), array(dx, (n if dx else 0, channels, positions), like)
    weight, means, variances = (
        vector_or(weight, channels, real(x, 1)),
        vector(means, channels, wide),
        vector(variances, channels, wide),
    )
    sums = np.empty((2, n, channels))
    parts = cut(x.size, n * channels, threads)
    by_channels = channels >= parts and positions >= FAR_APART
    if by_channels:
        arrays = (dy, x, dx, weight, means, variances, eps, training, sums)
        share(batch_norm_backward_channels, channels, parts, (*arrays, is_past_cache(dx)))
    else:
        share(row_sums, n * channels, parts, (dy, x, means, variances, eps, sums))
    totals = totals_of(sums)
    if dweight:
        dweight, dbias = vector(dweight, channels, wide), vector(dbias, channels, wide)
        for c in range(channels):
            dbias[c], dweight[c] = totals[0, c], totals[1, c]
    if wanted and not by_channels:
        rstds, mean_g, mean_gx = np.full(channels, wide), np.full(channels, zero(x)), np.full(channels, zero(x))
        for c in range(channels):
            rstds[c] = 1 / math.sqrt(variances[c] + eps)
            if training:
                mean_g[c] = weight[c] * totals[0, c] / (n * positions)
                mean_gx[c] = weight[c] * totals[1, c] / (n * positions)
        arrays = (dy, x, dx, weight, means, rstds, mean_g, mean_gx)
        share(backward_rows, n * channels, parts, (*arrays, is_past_cache(dx)))


# ---- Batch norm of (rows, C): a channel is a column ------------------------------------------------------------------
# Walking down one column would read a whole cache line for each number. So all columns of a tile advance together.


@compiled()
def tile_moments(x, top, bottom, left, mean, rest, squares):
    """Of each column of the tile that begins at row `top` and column `left`: mean, sum of the deviations from it (not
    0: it was rounded) and sum of their squares."""
    for c in range(mean.size):
        mean[c], rest[c], squares[c] = 0, 0, 0
    for r in range(top, bottom):
        row = x[r, left : left + mean.size]
        for c in range(row.size):
            mean[c] += widen(row[c])
    for c in range(mean.size):
        mean[c] /= bottom - top
    for r in range(top, bottom):
        row = x[r, left : left + mean.size]
        for c in range(row.size):
            d = minus(row[c], mean[c])
            rest[c] += d
            squares[c] += d * d


@compiled()
def column_statistics(first_part, last_part, x, part_means, part_squares):
    """Mean and sum of squared deviations of the rows of each part, [part, C]."""
    rows, n_parts = x.shape[0], part_means.shape[0]
    scratch = np.full((3, TILE_COLUMNS), zero(x))
    for part in range(first_part, last_part):
        first, last = rows * part // n_parts, rows * (part + 1) // n_parts
        for left in range(0, x.shape[1], TILE_COLUMNS):
            right = min(left + TILE_COLUMNS, x.shape[1])
            width = right - left
            mean, rest, squares = scratch[0, :width], scratch[1, :width], scratch[2, :width]
            means, total = part_means[part, left:right], part_squares[part, left:right]
            for top in range(first, last, TILE_ROWS):
                bottom = min(top + TILE_ROWS, last)
                tile_moments(x, top, bottom, left, mean, rest, squares)
                n, k = float(top - first), float(bottom - top)
                share_of_tile = k / (n + k)
                for c in range(width):
                    block_mean = np.float64(mean[c]) + rest[c] / k
                    apart = block_mean - means[c]
                    means[c] += apart * share_of_tile
                    total[c] += squares[c] - np.float64(rest[c]) * rest[c] / k + apart * apart * (n * share_of_tile)


@compiled()
def normalize_columns(first, last, x, y, means, scale, shift, past_cache):
    """y = (x - mean) * scale + shift with a mean, a scale and a shift for each column."""
    spare = spare_row(y, past_cache)
    for r in range(first, last):
        v, out = x[r], spare if past_cache else y[r]
        for c in range(v.size):
            out[c] = narrow(minus(v[c], means[c]) * scale[c] + shift[c], out[c])
        if past_cache:
            stream(out, y[r])


@compiled(entry=True)
def batch_norm_columns(x, y, weight, bias, means, variances, rows, channels, eps, training, threads, like):
    """As batch_norm, for (rows, channels)."""
    shape, wide = (rows, channels), widen(like)
    x, y = array(x, shape, like), array(y, shape, like)
    weight, bias = vector_or(weight, channels, real(x, 1)), vector_or(bias, channels, zero(x))
    means, variances = vector(means, channels, wide), vector(variances, channels, wide)
    parts = cut(x.size, rows, threads)
    if training:
        part_means, part_squares = np.zeros((parts, channels)), np.zeros((parts, channels))
        share(column_statistics, parts, parts, (x, part_means, part_squares))
        for c in range(channels):
            n, mean, squares = 0, 0.0, 0.0
            for part in range(parts):
                k = rows * (part + 1) // parts - rows * part // parts
                if k:
                    n, mean, squares = merge(n, mean, squares, k, part_means[part, c], part_squares[part, c])
            means[c], variances[c] = mean, squares / n
    scale, shift = np.full(channels, wide), np.full(channels, wide)
    for c in range(channels):
        scale[c] = type(wide)(1 / math.sqrt(variances[c] + eps)) * weight[c]
        shift[c] = bias[c]
    share(normalize_columns, rows, parts, (x, y, means, scale, shift, is_past_cache(y)))


@compiled()
def column_sums(first_part, last_part, dy, x, means, sums):
    """sums[:, part], (2, C): of dy and of dy * (x - mean) over the rows of each part."""
    rows, n_parts = x.shape[0], sums.shape[1]
    added = np.full((2, x.shape[1]), zero(x))
    sum_d, sum_dx = added[0], added[1]
    for part in range(first_part, last_part):
        first, last = rows * part // n_parts, rows * (part + 1) // n_parts
        for r in range(first, last):
            d, v = dy[r], x[r]
            for c in range(v.size):
                sum_d[c] += widen(d[c])
                sum_dx[c] += widen(d[c]) * minus(v[c], means[c])
            if (r - first) % FLUSH == FLUSH - 1:
                flush(added, sums[:, part])
        flush(added, sums[:, part])


@compiled()
def backward_columns(first, last, dy, x, dx, means, scale, mean_g, slope, past_cache):
    """dx = scale * (dy - mean_g - (x - mean) * slope), each a number a column."""
    spare = spare_row(dx, past_cache)
    for r in range(first, last):
        d, v, out = dy[r], x[r], spare if past_cache else dx[r]
        for c in range(v.size):
            out[c] = narrow(scale[c] * (widen(d[c]) - mean_g[c] - minus(v[c], means[c]) * slope[c]), out[c])
        if past_cache:
            stream(out, dx[r])


@compiled(entry=True)
def batch_norm_columns_backward(
    dy, x, dx, weight, dweight, dbias, means, variances, rows, channels, eps, training, threads, like
):
    """As batch_norm_backward, for (rows, channels)."""
    shape, wide = (rows, channels), widen(like)
    wanted = dx != 0
    dy, x, dx = array(dy, shape, like), array(x, shape, like), array(dx, (rows if dx else 0, channels), like)
    weight, means, variances = (
        vector_or(weight, channels, real(x, 1)),
        vector(means, channels, wide),
        vector(variances, channels, wide),
    )
    dweights, dbiases = vector(dweight, channels, wide), vector(dbias, channels, wide)
    parts = cut(x.size, rows, threads)
    sums = np.zeros((2, parts, channels))
    scale, mean_g, slope = np.full(channels, wide), np.full(channels, wide), np.full(channels, wide)
    share(column_sums, parts, parts, (dy, x, means, sums))
    totals = totals_of(sums)
    for c in range(channels):
        rstd = 1 / math.sqrt(variances[c] + eps)
        scale[c] = rstd * weight[c]
        total_g, total_gx = totals[0, c], totals[1, c] * rstd
        mean_g[c], slope[c] = (total_g / rows, total_gx / rows * rstd) if training else (0.0, 0.0)
        if dweights.size:
            dweights[c], dbiases[c] = total_gx, total_g
    if wanted:
        share(backward_columns, rows, parts, (dy, x, dx, means, scale, mean_g, slope, is_past_cache(dx)))


# ---- Softmax and log-softmax -----------------------------------------------------------------------------------------


@compiled(EXACT_ORDER)
def log_p(x, top, log_total):
    """Logarithm of softmax, from the maximum and the logarithm of the sum of exponentials below it. In this order: near
    1e4 the sum of the two would lose what the difference from the maximum has."""
    return (widen(x) - top) - log_total


@compiled(EXACT_ORDER)
def minus_log_p(x, top, log_total):
    return log_total - (widen(x) - top)


@compiled()
def largest(x):
    top = type(zero(x))(-math.inf)
    for j in range(x.size):
        top = maximum(top, widen(x[j]))
    return top


@compiled()
def sum_of_exp(x, top):
    total = zero(x)
    for j in range(x.size):
        total += exp(minus(x[j], top))
    return total


@compiled()
def softmax_rows(first, last, x, y, past_cache):
    e, spare = np.full(x.shape[1], zero(x)), spare_row(y, past_cache)
    for row in range(first, last):
        v, out = x[row], spare if past_cache else y[row]
        top, total = largest(v), zero(x)
        for j in range(v.size):
            e[j] = exp(minus(v[j], top))
            total += e[j]
        scale = real(x, 1) / total
        for j in range(v.size):
            out[j] = narrow(e[j] * scale, out[j])
        if past_cache:
            stream(out, y[row])


@compiled()
def log_softmax_rows(first, last, x, y, past_cache):
    spare = spare_row(y, past_cache)
    for row in range(first, last):
        v, out = x[row], spare if past_cache else y[row]
        top = largest(v)
        log_total = real(x, math.log(sum_of_exp(v, top)))
        for j in range(v.size):
            out[j] = narrow(log_p(v[j], top, log_total), out[j])
        if past_cache:
            stream(out, y[row])


@compiled(entry=True)
def softmax(x, y, rows, length, log, threads, like):
    """y = softmax (log: log-softmax) of each of `rows` rows of x."""
    x, y = array(x, (rows, length), like), array(y, (rows, length), like)
    parts = cut(x.size, rows, threads)
    if log:
        share(log_softmax_rows, rows, parts, (x, y, is_past_cache(y)))
    else:
        share(softmax_rows, rows, parts, (x, y, is_past_cache(y)))


@compiled()
def softmax_backward_rows(first, last, dy, y, dx, past_cache):
    spare = spare_row(dx, past_cache)
    for row in range(first, last):
        d, p, out = dy[row], y[row], spare if past_cache else dx[row]
        total = zero(y)
        for j in range(p.size):
            total += widen(d[j]) * widen(p[j])
        for j in range(p.size):
            out[j] = narrow(widen(p[j]) * (widen(d[j]) - total), out[j])
        if past_cache:
            stream(out, dx[row])


@compiled()
def log_softmax_backward_rows(first, last, dy, y, dx, past_cache):
    spare = spare_row(dx, past_cache)
    for row in range(first, last):
        d, log_y, out = dy[row], y[row], spare if past_cache else dx[row]
        total = zero(y)
        for j in range(d.size):
            total += widen(d[j])
        for j in range(d.size):
            out[j] = narrow(widen(d[j]) - exp(widen(log_y[j])) * total, out[j])
        if past_cache:
            stream(out, dx[row])


@compiled(entry=True)
def softmax_backward(dy, y, dx, rows, length, log, threads, like):
    """dx = y * (dy - sum(y * dy)) in each row (log: dy - exp(y) * sum(dy)), y being what the forward gave."""
    shape = (rows, length)
    dy, y, dx = array(dy, shape, like), array(y, shape, like), array(dx, shape, like)
    parts = cut(y.size, rows, threads)
    if log:
        share(log_softmax_backward_rows, rows, parts, (dy, y, dx, is_past_cache(dx)))
    else:
        share(softmax_backward_rows, rows, parts, (dy, y, dx, is_past_cache(dx)))


# In columns: x is (outer, length, inner), and the axis in the middle is summed over. A tile is all of that axis and a
# few columns.


@compiled()
def tile_width(length):
    return min(WIDEST, max(NARROWEST, 4 * BLOCK // max(length, 1) // NARROWEST * NARROWEST))


@compiled()
def column_normalizers(x, left, right, top, log_total):
    """Maximum, and logarithm of the sum of exponentials below it, of the columns left..right of x, (length, inner)."""
    width = right - left
    for c in range(width):
        top[c], log_total[c] = -math.inf, 0
    for k in range(x.shape[0]):
        row = x[k, left:right]
        for c in range(row.size):
            top[c] = maximum(top[c], widen(row[c]))
    for k in range(x.shape[0]):
        row = x[k, left:right]
        for c in range(row.size):
            log_total[c] += exp(minus(row[c], top[c]))
    for c in range(width):
        log_total[c] = math.log(log_total[c])


@compiled()
def softmax_tiles(first, last, x, y, log):
    width = tile_width(x.shape[1])
    tiles = -(-x.shape[2] // width)
    top, total = np.full(width, zero(x)), np.full(width, zero(x))
    e = np.full((0 if log else x.shape[1], width), zero(x))
    for tile in range(first, last):
        left = tile % tiles * width
        right = min(left + width, x.shape[2])
        columns = right - left
        v, out = x[tile // tiles], y[tile // tiles]
        if log:
            column_normalizers(v, left, right, top, total)
            for k in range(v.shape[0]):
                row, row_out = v[k, left:right], out[k, left:right]
                for c in range(row.size):
                    row_out[c] = narrow(log_p(row[c], top[c], total[c]), row_out[c])
            continue
        for c in range(columns):
            top[c], total[c] = -math.inf, 0
        for k in range(v.shape[0]):
            row = v[k, left:right]
            for c in range(row.size):
                top[c] = maximum(top[c], widen(row[c]))
        for k in range(v.shape[0]):
            row, row_e = v[k, left:right], e[k]
            for c in range(row.size):
                row_e[c] = exp(minus(row[c], top[c]))
                total[c] += row_e[c]
        for c in range(columns):
            total[c] = real(x, 1) / total[c]
        for k in range(v.shape[0]):
            row_e, row_out = e[k], out[k, left:right]
            for c in range(row_out.size):
                row_out[c] = narrow(row_e[c] * total[c], row_out[c])


@compiled(entry=True)
def softmax_columns(x, y, outer, length, inner, log, threads, like):
    """As softmax, over the middle axis of (outer, length, inner)."""
    shape = (outer, length, inner)
    tiles = outer * -(-inner // tile_width(length))
    share(
        softmax_tiles,
        tiles,
        cut(outer * length * inner, tiles, threads),
        (array(x, shape, like), array(y, shape, like), log),
    )


@compiled()
def softmax_backward_tiles(first, last, dy, y, dx, log):
    width = tile_width(y.shape[1])
    tiles = -(-y.shape[2] // width)
    total = np.full(width, zero(y))
    for tile in range(first, last):
        left = tile % tiles * width
        right = min(left + width, y.shape[2])
        i = tile // tiles
        for c in range(width):
            total[c] = 0
        for k in range(y.shape[1]):
            d, p = dy[i, k, left:right], y[i, k, left:right]
            if log:
                for c in range(p.size):
                    total[c] += widen(d[c])
            else:
                for c in range(p.size):
                    total[c] += widen(d[c]) * widen(p[c])
        for k in range(y.shape[1]):
            d, p, out = dy[i, k, left:right], y[i, k, left:right], dx[i, k, left:right]
            if log:
                for c in range(p.size):
                    out[c] = narrow(widen(d[c]) - exp(widen(p[c])) * total[c], out[c])
            else:
                for c in range(p.size):
                    out[c] = narrow(widen(p[c]) * (widen(d[c]) - total[c]), out[c])


@compiled(entry=True)
def softmax_backward_columns(dy, y, dx, outer, length, inner, log, threads, like):
    """As softmax_backward, over the middle axis of (outer, length, inner)."""
    shape = (outer, length, inner)
    tiles = outer * -(-inner // tile_width(length))
    arrays = (array(dy, shape, like), array(y, shape, like), array(dx, shape, like))
    share(softmax_backward_tiles, tiles, cut(outer * length * inner, tiles, threads), (*arrays, log))


# ---- Cross entropy ---------------------------------------------------------------------------------------------------
# x is (outer, classes, inner), and a target stands at each (outer, inner). log p = (x - top) - log_total is not written
# to memory: top and log_total are, and the backward computes p from them again.
#
# With smoothing s, weights w and K classes, the loss of one target t is
#     (1 - s) * w[t] * -log p[t]  +  s / K * sum over c of w[c] * -log p[c].
# Its gradient with respect to x[c] is
#     ((1 - s) * w[t] + s / K * sum of w) * p[c]  -  (1 - s) * w[t] where c is t  -  s / K * w[c].


@compiled()
def weighted_sum_of_losses(x, column, top, log_total, weight):
    """Sum over the classes of w * -log p."""
    total = zero(x)
    for k in range(x.shape[0]):
        total += minus_log_p(x[k, column], top, log_total) * pick(weight, k, real(x, 1))
    return np.float64(total)


@compiled()
def losses_of_tiles(first, last, x, targets, weight, ignore, smoothing, tops, log_totals, losses, weights):
    """Loss and weight (float64) of each target. A weight of -inf marks a target that is no class."""
    classes, inner = x.shape[1], x.shape[2]
    width = tile_width(classes)
    tiles = -(-inner // width)
    one, rows = real(x, 1), x.reshape((x.shape[0] * inner, classes))
    for tile in range(first, last):
        i, left = tile // tiles, tile % tiles * width
        right = min(left + width, inner)
        if inner > 1:
            column_normalizers(x[i], left, right, tops[i, left:right], log_totals[i, left:right])
        for c in range(left, right):
            target = targets[i, c]
            losses[i, c], weights[i, c] = 0, 0
            if inner == 1:
                tops[i, 0] = largest(rows[i])
            if target == ignore:
                tops[i, c] -= tops[i, c]  # the gradient of such a row: 0, or NaN if NaN or infinity stands in it
                continue
            if target < 0 or target >= classes:
                weights[i, c] = -math.inf
                continue
            if inner == 1:
                log_totals[i, 0] = math.log(sum_of_exp(rows[i], tops[i, 0]))
            weights[i, c] = pick(weight, target, one)
            loss = np.float64(minus_log_p(x[i, target, c], tops[i, c], log_totals[i, c])) * weights[i, c]
            if smoothing > 0:
                rest = weighted_sum_of_losses(x[i], c, tops[i, c], log_totals[i, c], weight)
                loss = (1 - smoothing) * loss + smoothing / classes * rest
            losses[i, c] = loss


@compiled(entry=True)
def cross_entropy(
    x, targets, weight, out, tops, log_totals, divisor, outer, classes, inner, ignore, smoothing, mean, threads, like
):
    """out: the loss of each target (mean = -1), their sum (0), or their mean (1): the sum divided by that of the
    weights, which `divisor` gets. Returns the index of a target that is no class, or -1."""
    wide = widen(like)
    x = array(x, (outer, classes, inner), like)
    targets = array(targets, (outer, inner), 0)
    tops, log_totals = array(tops, (outer, inner), wide), array(log_totals, (outer, inner), wide)
    losses, weights = np.empty((outer, inner)), np.empty((outer, inner))
    tiles = outer * -(-inner // tile_width(classes))
    arrays = (x, targets, vector(weight, classes, wide), ignore, smoothing, tops, log_totals, losses, weights)
    share(losses_of_tiles, tiles, cut(x.size, tiles, threads), arrays)
    total, total_weight = 0.0, 0.0
    for i in range(outer):
        for c in range(inner):
            if weights[i, c] == -math.inf:
                return i * inner + c
            total += losses[i, c]
            total_weight += weights[i, c]
    array(divisor, (1,), wide)[0] = total_weight if mean == 1 else 1.0
    if mean < 0:
        each = array(out, (outer, inner), like)
        for i in range(outer):
            for c in range(inner):
                each[i, c] = narrow(type(wide)(losses[i, c]), like)
    else:
        array(out, (1,), like)[0] = narrow(type(wide)(total / total_weight if mean == 1 else total), like)
    return -1


@compiled()
def loss_slopes(x, dloss, divisor, weight, target, ignore, smoothing, classes, sum_of_weights):
    """What a row of dx is made of: dx = p * to_p - evenly * w, and at the target less to_target * w too."""
    if target == ignore:
        return zero(x), zero(x), zero(x)
    kept = widen(dloss) / divisor[0]
    evenly = real(x, kept * smoothing / classes)
    to_target = real(x, kept * (1 - smoothing))
    return to_target * pick(weight, target, real(x, 1)) + evenly * sum_of_weights, evenly, to_target


@compiled()
def cross_entropy_backward_rows(
    first,
    last,
    dlosses,
    divisor,
    x,
    dx,
    targets,
    weight,
    ignore,
    smoothing,
    tops,
    log_totals,
    sum_of_weights,
    past_cache,
):
    """inner is 1: x and dx are (outer, classes). dlosses: one number, or one for each target."""
    classes, spare = x.shape[1], spare_row(dx, past_cache)
    for i in range(first, last):
        v, out, target = x[i], spare if past_cache else dx[i], targets[i, 0]
        top, log_total = tops[i, 0], log_totals[i, 0]
        dloss = dlosses[0, 0] if dlosses.size == 1 else dlosses[i, 0]
        to_p, evenly, to_target = loss_slopes(
            x, dloss, divisor, weight, target, ignore, smoothing, classes, sum_of_weights
        )
        for k in range(classes):
            out[k] = narrow(exp(log_p(v[k], top, log_total)) * to_p - evenly, out[k])
        if weight.size and smoothing > 0:
            for k in range(classes):
                out[k] = narrow(exp(log_p(v[k], top, log_total)) * to_p - evenly * weight[k], out[k])
        if target == ignore:
            for k in range(classes):
                out[k] = narrow(top, out[k])
        else:
            # Computed again rather than subtracted from what is stored: a half type would round twice.
            w = pick(weight, target, real(x, 1))
            exact = exp(log_p(v[target], top, log_total)) * to_p - evenly * w - to_target * w
            out[target] = narrow(exact, out[target])
        if past_cache:
            stream(out, dx[i])


@compiled()
def cross_entropy_backward_tiles(
    first, last, dlosses, divisor, x, dx, targets, weight, ignore, smoothing, tops, log_totals, sum_of_weights
):
    """The classes lie `inner` apart."""
    classes, inner = x.shape[1], x.shape[2]
    width = tile_width(classes)
    tiles = -(-inner // width)
    one, room = real(x, 1), np.full((3, width), zero(x))
    to_p, evenly, to_target = room[0], room[1], room[2]
    for tile in range(first, last):
        i, left = tile // tiles, tile % tiles * width
        right = min(left + width, inner)
        top, log_total = tops[i, left:right], log_totals[i, left:right]
        for c in range(right - left):
            dloss = dlosses[0, 0] if dlosses.size == 1 else dlosses[i, left + c]
            to_p[c], evenly[c], to_target[c] = loss_slopes(
                x, dloss, divisor, weight, targets[i, left + c], ignore, smoothing, classes, sum_of_weights
            )
        for k in range(classes):
            w = pick(weight, k, one)
            row, out = x[i, k, left:right], dx[i, k, left:right]
            for c in range(row.size):
                out[c] = narrow(exp(log_p(row[c], top[c], log_total[c])) * to_p[c] - evenly[c] * w, out[c])
        for c in range(right - left):
            target = targets[i, left + c]
            if target == ignore:
                for k in range(classes):
                    dx[i, k, left + c] = narrow(top[c], dx[i, k, left + c])
                continue
            w = pick(weight, target, one)
            p = exp(log_p(x[i, target, left + c], top[c], log_total[c]))
            dx[i, target, left + c] = narrow(p * to_p[c] - evenly[c] * w - to_target[c] * w, dx[i, target, left + c])


@compiled(entry=True)
def cross_entropy_backward(
    dloss,
    x,
    dx,
    targets,
    weight,
    tops,
    log_totals,
    divisor,
    n_losses,
    outer,
    classes,
    inner,
    ignore,
    smoothing,
    threads,
    like,
):
    """dx, from the gradient of one loss (n_losses == 1) or of the loss of each target."""
    wide, shape = widen(like), (outer, classes, inner)
    x, dx = array(x, shape, like), array(dx, shape, like)
    weight = vector(weight, classes, wide)
    losses = array(dloss, (1, 1) if n_losses == 1 else (outer, inner), like), vector(divisor, 1, wide)
    others = (
        array(targets, (outer, inner), 0),
        weight,
        ignore,
        smoothing,
        array(tops, (outer, inner), wide),
        array(log_totals, (outer, inner), wide),
        weight.sum() if weight.size else real(x, classes),
    )
    if inner == 1:
        arrays = (*losses, x.reshape((outer, classes)), dx.reshape((outer, classes)), *others, is_past_cache(dx))
        share(cross_entropy_backward_rows, outer, cut(x.size, outer, threads), arrays)
    else:
        tiles = outer * -(-inner // tile_width(classes))
        share(cross_entropy_backward_tiles, tiles, cut(x.size, tiles, threads), (*losses, x, dx, *others))
