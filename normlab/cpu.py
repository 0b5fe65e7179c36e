"""The kernels for the CPU, in Numba: five norms, softmax, log-softmax and cross entropy, forward and backward.

A kernel is a plain loop over rows, or over channels. `share` (in jit.py) cuts that loop into parts and runs them in
PyTorch's threads. Numbers are stored as float32, float64, float16 or bfloat16 and computed with as float32 (float64 for
float64): `widen` reads one, `narrow` writes one, rounding once. Sums over many blocks are kept in float64.

Two shapes of loop serve everything. In **rows** the elements that are pooled lie side by side: layer, RMS, group and
instance norm, softmax along the last axis. In **columns** they lie one row apart: batch norm of (N, C) or of a
channels-last image, softmax along another axis. Batch norm of (N, C, positions) pools N rows, one from each example.

Functions that end on a colon-less name of an operation (`row_norm`, `softmax`, ...) are called from `functional.py`, with
addresses and sizes; address 0 stands for None. The others are the loops.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from normlab.jit import EXACT_ORDER, array, compiled, maximum, narrow, share, two_to_the, vector, widen

# Elements of a block: its numbers stay in the fastest cache between the sum and the sum of squares.
BLOCK = 4096
# Columns and rows of a tile, likewise.
TILE_COLUMNS, TILE_ROWS = 256, 32
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
    """e**x for x up to about 80 (softmax asks for x <= 0): 0 where the result would be below the normal numbers, NaN
    for NaN. The library's exp is called once a number; this one is vectorized.

    e**x = 2**n * e**r with n the whole number nearest to x / log 2, so that |r| <= log(2) / 2, where few terms of the
    Taylor series do. Adding 1.5 * 2**23 rounds to whole numbers: there the floating-point numbers are 1 apart.
    """
    raise NotImplementedError("exp is for compiled code")


@overload(exp)
def _exp(x):
    return (lambda x: _exp64(x)) if x == types.float64 else (lambda x: _exp32(x))


# ---- Statistics ------------------------------------------------------------------------------------------------------


@compiled()
def zero(x):
    """0 in the type that the elements of x are computed in."""
    return widen(x.dtype.type(0))


@compiled(EXACT_ORDER)
def minus(x, mean):
    """x - mean, in a function of its own: regrouped with the sum it goes into, it would lose what it is there for."""
    return widen(x) - mean


@compiled()
def block_moments(x):
    """Mean of a block and the sum of its squared deviations, both float64, in two passes over the fastest cache.

    Deviations from a mean that was rounded do not sum to 0. What they sum to says how much the rounding took.
    """
    total = zero(x)
    for j in range(x.size):
        total += widen(x[j])
    mean = type(total)(total / x.size)
    rest, squares = zero(x), zero(x)
    for j in range(x.size):
        d = minus(x[j], mean)
        rest += d
        squares += d * d
    return np.float64(mean) + rest / x.size, squares - np.float64(rest) * rest / x.size


@compiled()
def merge(n, mean, squares, block_n, block_mean, block_squares):
    """Count, mean and sum of squared deviations of two sets together, from those of each (Chan, Golub, LeVeque 1983)."""
    together = n + block_n
    apart = block_mean - mean
    mean += apart * (block_n / together)
    squares += block_squares + apart * apart * (n * (block_n / together))
    return together, mean, squares


@compiled()
def moments(x):
    """Mean and sum of squared deviations of a row (float64), read once from memory."""
    n, mean, squares = 0, 0.0, 0.0
    for start in range(0, x.size, BLOCK):
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


# ---- y = (x - mean) * scale + shift ----------------------------------------------------------------------------------


@compiled()
def scale_by_number(x, y, mean, scale, shift):
    for j in range(x.size):
        y[j] = narrow(minus(x[j], mean) * scale + shift, y[j])


@compiled()
def scale_by_vectors(x, y, mean, rstd, weight, bias):
    """A weight and a bias for each element; one of no elements stands for None."""
    if weight.size and bias.size:
        for j in range(x.size):
            y[j] = narrow(minus(x[j], mean) * rstd * weight[j] + bias[j], y[j])
    elif weight.size:
        for j in range(x.size):
            y[j] = narrow(minus(x[j], mean) * rstd * weight[j], y[j])
    elif bias.size:
        for j in range(x.size):
            y[j] = narrow(minus(x[j], mean) * rstd + bias[j], y[j])
    else:
        scale_by_number(x, y, mean, rstd, zero(x))


@compiled()
def pick(numbers, i, otherwise):
    """numbers[i], or `otherwise` where there are none."""
    return numbers[i] if numbers.size else otherwise


# ---- Layer, RMS, group and instance norm: each pool is a row ---------------------------------------------------------
# A row of group norm holds `channels` channels of `positions` elements each; row r belongs to group r % groups. Layer
# and RMS norm have one group of channels at a single position, instance norm as many groups as channels.


@compiled()
def row_norm_rows(first, last, x, y, weight, bias, means, variances, eps, centred, groups, positions):
    one = zero(x) + 1
    channels = x.shape[1] // positions
    for row in range(first, last):
        if centred:
            mean, squares = moments(x[row])
        else:
            mean, squares = 0.0, sum_of_squares(x[row])
        variance = squares / x.shape[1]
        if means.size:
            means[row], variances[row] = mean, variance
        mean, rstd = type(one)(mean), type(one)(1 / math.sqrt(variance + eps))
        channel = (row % groups) * channels
        if positions == 1:
            scale_by_vectors(
                x[row], y[row], mean, rstd, weight[channel : channel + channels], bias[channel : channel + channels]
            )
            continue
        for c in range(channels):
            scale, shift = rstd * pick(weight, channel + c, one), pick(bias, channel + c, one - one)
            here = slice(c * positions, (c + 1) * positions)
            scale_by_number(x[row, here], y[row, here], mean, scale, shift)


@compiled(entry=True)
def row_norm(x, y, weight, bias, means, variances, rows, groups, channels, positions, eps, centred, parts, like):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias over each of `rows` rows; means and variances may be 0."""
    row, wide = (rows, channels * positions), widen(like)
    share(
        row_norm_rows,
        rows,
        parts,
        (
            array(x, row, like),
            array(y, row, like),
            vector(weight, groups * channels, wide),
            vector(bias, groups * channels, wide),
            vector(means, rows, wide),
            vector(variances, rows, wide),
            eps,
            centred,
            groups,
            positions,
        ),
    )


@compiled()
def project_vectors(dy, x, weight, mean, rstd, dweight, dbias):
    """Sums of g and of g * x_hat over a row, with g = dy * weight; adds dy * x_hat and dy to dweight and dbias."""
    sum_g, sum_gx = zero(x), zero(x)
    if dweight.size and weight.size:
        for j in range(x.size):
            d, x_hat = widen(dy[j]), minus(x[j], mean) * rstd
            dweight[j] += d * x_hat
            dbias[j] += d
            sum_g += d * weight[j]
            sum_gx += d * weight[j] * x_hat
    elif weight.size:
        for j in range(x.size):
            g, x_hat = widen(dy[j]) * weight[j], minus(x[j], mean) * rstd
            sum_g += g
            sum_gx += g * x_hat
    elif dweight.size:
        for j in range(x.size):
            d, x_hat = widen(dy[j]), minus(x[j], mean) * rstd
            dweight[j] += d * x_hat
            dbias[j] += d
            sum_g += d
            sum_gx += d * x_hat
    else:
        sum_g, sum_gx = project_number(dy, x, mean, rstd)
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
    if weight.size:
        for j in range(x.size):
            x_hat = minus(x[j], mean) * rstd
            dx[j] = narrow(rstd * (widen(dy[j]) * weight[j] - mean_g - x_hat * mean_gx), dx[j])
    else:
        backward_number(dy, x, dx, zero(x) + 1, mean, rstd, mean_g, mean_gx)


@compiled()
def backward_number(dy, x, dx, weight, mean, rstd, mean_g, mean_gx):
    for j in range(x.size):
        x_hat = minus(x[j], mean) * rstd
        dx[j] = narrow(rstd * (widen(dy[j]) * weight - mean_g - x_hat * mean_gx), dx[j])


@compiled()
def row_norm_backward_parts(
    first_part, last_part, dy, x, dx, weight, means, variances, eps, centred, positions, per_part, groups
):
    """The rows of each part; their dweight and dbias go to per_part[part], (2, channels of all groups), float64."""
    one = zero(x) + 1
    channels = x.shape[1] // positions
    rows, length, n_parts = x.shape[0], x.shape[1], per_part.shape[0]
    for part in range(first_part, last_part):
        totals = per_part[part]
        added = np.full((2, totals.shape[1]), one - one)
        for row in range(rows * part // n_parts, rows * (part + 1) // n_parts):
            mean, rstd = means[row], type(one)(1 / math.sqrt(np.float64(variances[row]) + eps))
            start = (row % groups) * channels
            if positions == 1:
                w = weight[start : start + channels]
                here = slice(start, start + channels) if totals.size else slice(0, 0)
                sum_g, sum_gx = project_vectors(dy[row], x[row], w, mean, rstd, added[0, here], added[1, here])
            else:
                sum_g, sum_gx = one - one, one - one
                for c in range(channels):
                    here = slice(c * positions, (c + 1) * positions)
                    dbias, dweight = project_number(dy[row, here], x[row, here], mean, rstd)
                    sum_g += dbias * pick(weight, start + c, one)
                    sum_gx += dweight * pick(weight, start + c, one)
                    if totals.size:
                        added[0, start + c] += dweight
                        added[1, start + c] += dbias
            mean_g = sum_g / length if centred else one - one
            mean_gx = sum_gx / length
            if dx.size:
                if positions == 1:
                    backward_vectors(dy[row], x[row], dx[row], w, mean, rstd, type(one)(mean_g), type(one)(mean_gx))
                else:
                    for c in range(channels):
                        here = slice(c * positions, (c + 1) * positions)
                        backward_number(
                            dy[row, here],
                            x[row, here],
                            dx[row, here],
                            pick(weight, start + c, one),
                            mean,
                            rstd,
                            type(one)(mean_g),
                            type(one)(mean_gx),
                        )
            if row % FLUSH == FLUSH - 1:
                flush(added, totals)
        flush(added, totals)


@compiled()
def flush(added, totals):
    for i in range(2):
        for j in range(totals.shape[1]):
            totals[i, j] += added[i, j]
            added[i, j] = 0


@compiled()
def add_parts(per_part, dweight, dbias):
    """The sums of all parts, in the order of the parts: the same on every run."""
    for c in range(dweight.size):
        w, b = 0.0, 0.0
        for part in range(per_part.shape[0]):
            w += per_part[part, 0, c]
            b += per_part[part, 1, c]
        dweight[c], dbias[c] = w, b


@compiled(entry=True)
def row_norm_backward(
    dy, x, dx, weight, means, variances, dweight, dbias, rows, groups, channels, positions, eps, centred, parts, like
):
    """dx, and dweight and dbias of the channels of all groups; 0 for what is not wanted (dweight and dbias together)."""
    length, wide = channels * positions, widen(like)
    per_part = np.zeros((parts, 2, groups * channels if dweight else 0))
    share(
        row_norm_backward_parts,
        parts,
        parts,
        (
            array(dy, (rows, length), like),
            array(x, (rows, length), like),
            array(dx, (rows if dx else 0, length), like),
            vector(weight, groups * channels, wide),
            vector(means, rows, wide),
            vector(variances, rows, wide),
            eps,
            centred,
            positions,
            per_part,
            groups,
        ),
    )
    add_parts(per_part, vector(dweight, groups * channels, wide), vector(dbias, groups * channels, wide))


# ---- Batch norm of (N, C, positions): a channel is N rows ------------------------------------------------------------
# A channel is finished before the next one is begun: what was read for its statistics is still in the cache when it is
# normalized. Where there are fewer channels than threads, rows are shared instead, and merged in between.


@compiled()
def merge_rows(first, last, row_means, row_squares, positions, means, variances):
    """Mean and variance of each channel from those of its rows, [N, C]."""
    for c in range(first, last):
        n, mean, squares = 0, 0.0, 0.0
        for i in range(row_means.shape[0]):
            n, mean, squares = merge(n, mean, squares, positions, row_means[i, c], row_squares[i, c])
        means[c], variances[c] = mean, squares / n


@compiled()
def row_statistics(first, last, x, row_means, row_squares):
    """Of the rows first..last of [N * C] rows."""
    channels = x.shape[1]
    for row in range(first, last):
        i, c = row // channels, row % channels
        row_means[i, c], row_squares[i, c] = moments(x[i, c])


@compiled()
def normalize_rows(first, last, x, y, weight, bias, means, variances, eps):
    one, channels = zero(x) + 1, x.shape[1]
    for row in range(first, last):
        i, c = row // channels, row % channels
        scale = type(one)(1 / math.sqrt(variances[c] + eps)) * pick(weight, c, one)
        scale_by_number(x[i, c], y[i, c], type(one)(means[c]), scale, pick(bias, c, one - one))


@compiled()
def batch_norm_channels(first, last, x, y, weight, bias, means, variances, eps):
    one = zero(x) + 1
    for c in range(first, last):
        n, mean, squares = 0, 0.0, 0.0
        for i in range(x.shape[0]):
            row_mean, row_squares = moments(x[i, c])
            n, mean, squares = merge(n, mean, squares, x.shape[2], row_mean, row_squares)
        means[c], variances[c] = mean, squares / n
        scale = type(one)(1 / math.sqrt(squares / n + eps)) * pick(weight, c, one)
        for i in range(x.shape[0]):
            scale_by_number(x[i, c], y[i, c], type(one)(mean), scale, pick(bias, c, one - one))


@compiled(entry=True)
def batch_norm(x, y, weight, bias, means, variances, n, channels, positions, eps, training, parts, like):
    """y like x, (n, channels, positions). In training, means and variances (biased) are written, else they are used."""
    shape, wide = (n, channels, positions), widen(like)
    x, y = array(x, shape, like), array(y, shape, like)
    weight, bias = vector(weight, channels, wide), vector(bias, channels, wide)
    means, variances = vector(means, channels, wide), vector(variances, channels, wide)
    if training and channels >= parts:
        share(batch_norm_channels, channels, parts, (x, y, weight, bias, means, variances, eps))
        return
    if training:
        row_means, row_squares = np.empty((n, channels)), np.empty((n, channels))
        share(row_statistics, n * channels, parts, (x, row_means, row_squares))
        merge_rows(0, channels, row_means, row_squares, positions, means, variances)
    share(normalize_rows, n * channels, parts, (x, y, weight, bias, means, variances, eps))


@compiled()
def row_sums(first, last, dy, x, means, variances, eps, sums):
    """sums[0] and sums[1], [N, C]: of dy and of dy * x_hat over each row."""
    one, channels = zero(x) + 1, x.shape[1]
    for row in range(first, last):
        i, c = row // channels, row % channels
        rstd = type(one)(1 / math.sqrt(variances[c] + eps))
        sums[0, i, c], sums[1, i, c] = project_number(dy[i, c], x[i, c], type(one)(means[c]), rstd)


@compiled()
def backward_rows(first, last, dy, x, dx, weight, means, variances, eps, training, sums):
    """dx of the rows first..last, from the sums over each row of their channels."""
    one, channels = zero(x) + 1, x.shape[1]
    pool = x.shape[0] * x.shape[2]
    for row in range(first, last):
        i, c = row // channels, row % channels
        rstd = type(one)(1 / math.sqrt(variances[c] + eps))
        w, mean_g, mean_gx = pick(weight, c, one), 0.0, 0.0
        if training:
            mean_g, mean_gx = w * sums[0, :, c].sum() / pool, w * sums[1, :, c].sum() / pool
        backward_number(
            dy[i, c], x[i, c], dx[i, c], w, type(one)(means[c]), rstd, type(one)(mean_g), type(one)(mean_gx)
        )


@compiled()
def batch_norm_backward_channels(first, last, dy, x, dx, weight, means, variances, eps, training, sums):
    for c in range(first, last):
        one = zero(x) + 1
        mean, rstd = type(one)(means[c]), type(one)(1 / math.sqrt(variances[c] + eps))
        total_g, total_gx = 0.0, 0.0
        for i in range(x.shape[0]):
            sums[0, i, c], sums[1, i, c] = project_number(dy[i, c], x[i, c], mean, rstd)
            total_g += sums[0, i, c]
            total_gx += sums[1, i, c]
        if dx.size == 0:
            continue
        w, pool = pick(weight, c, one), x.shape[0] * x.shape[2]
        mean_g, mean_gx = zero(x), zero(x)
        if training:
            mean_g, mean_gx = type(one)(w * total_g / pool), type(one)(w * total_gx / pool)
        for i in range(x.shape[0]):
            backward_number(dy[i, c], x[i, c], dx[i, c], w, mean, rstd, mean_g, mean_gx)


@compiled(entry=True)
def batch_norm_backward(
    dy, x, dx, weight, means, variances, dweight, dbias, n, channels, positions, eps, training, parts, like
):
    """dx like x, and dweight and dbias; 0 for what is not wanted (dweight and dbias together)."""
    shape, wide = (n, channels, positions), widen(like)
    wanted = dx != 0
    dy, x, dx = array(dy, shape, like), array(x, shape, like), array(dx, (n if dx else 0, channels, positions), like)
    weight, means, variances = (
        vector(weight, channels, wide),
        vector(means, channels, wide),
        vector(variances, channels, wide),
    )
    sums = np.empty((2, n, channels))
    if channels >= parts:
        share(
            batch_norm_backward_channels,
            channels,
            parts,
            (dy, x, dx, weight, means, variances, eps, training, sums),
        )
    else:
        share(row_sums, n * channels, parts, (dy, x, means, variances, eps, sums))
        if wanted:
            share(backward_rows, n * channels, parts, (dy, x, dx, weight, means, variances, eps, training, sums))
    if dweight:
        dweight, dbias = vector(dweight, channels, wide), vector(dbias, channels, wide)
        for c in range(channels):
            dbias[c], dweight[c] = sums[0, :, c].sum(), sums[1, :, c].sum()


# ---- Batch norm of (rows, C): a channel is a column ------------------------------------------------------------------
# Walking down one column would read a whole cache line for each number. So all columns of a tile advance together.


@compiled()
def tile_moments(x, top, bottom, left, mean, rest, squares):
    """Of each column of the tile that begins at row `top` and column `left`: mean, sum of the deviations from it (not 0:
    it was rounded) and sum of their squares."""
    mean[:], rest[:], squares[:] = 0, 0, 0
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
def normalize_columns(first, last, x, y, means, scale, shift):
    """y = (x - mean) * scale + shift with a mean, a scale and a shift for each column."""
    for r in range(first, last):
        v, out = x[r], y[r]
        for c in range(v.size):
            out[c] = narrow(minus(v[c], means[c]) * scale[c] + shift[c], out[c])


@compiled(entry=True)
def batch_norm_columns(x, y, weight, bias, means, variances, rows, channels, eps, training, parts, like):
    """As batch_norm, for (rows, channels)."""
    shape, wide = (rows, channels), widen(like)
    x, y = array(x, shape, like), array(y, shape, like)
    weight, bias = vector(weight, channels, wide), vector(bias, channels, wide)
    means, variances = vector(means, channels, wide), vector(variances, channels, wide)
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
        scale[c] = type(wide)(1 / math.sqrt(variances[c] + eps)) * pick(weight, c, type(wide)(1))
        shift[c] = pick(bias, c, type(wide)(0))
    share(normalize_columns, rows, parts, (x, y, means, scale, shift))


@compiled()
def column_sums(first_part, last_part, dy, x, means, sums):
    """sums[part], (2, C): of dy and of dy * (x - mean) over the rows of each part."""
    rows, n_parts = x.shape[0], sums.shape[0]
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
                flush(added, sums[part])
        flush(added, sums[part])


@compiled()
def backward_columns(first, last, dy, x, dx, means, scale, mean_g, slope):
    """dx = scale * (dy - mean_g - (x - mean) * slope), each a number a column."""
    for r in range(first, last):
        d, v, out = dy[r], x[r], dx[r]
        for c in range(v.size):
            out[c] = narrow(scale[c] * (widen(d[c]) - mean_g[c] - minus(v[c], means[c]) * slope[c]), out[c])


@compiled(entry=True)
def batch_norm_columns_backward(
    dy, x, dx, weight, means, variances, dweight, dbias, rows, channels, eps, training, parts, like
):
    """As batch_norm_backward, for (rows, channels)."""
    shape, wide = (rows, channels), widen(like)
    wanted = dx != 0
    dy, x, dx = array(dy, shape, like), array(x, shape, like), array(dx, (rows if dx else 0, channels), like)
    weight, means, variances = (
        vector(weight, channels, wide),
        vector(means, channels, wide),
        vector(variances, channels, wide),
    )
    dweights, dbiases = vector(dweight, channels, wide), vector(dbias, channels, wide)
    sums = np.zeros((parts, 2, channels))
    scale, mean_g, slope = np.full(channels, wide), np.full(channels, wide), np.full(channels, wide)
    share(column_sums, parts, parts, (dy, x, means, sums))
    for c in range(channels):
        rstd = 1 / math.sqrt(variances[c] + eps)
        scale[c] = rstd * pick(weight, c, type(wide)(1))
        total_g, total_gx = sums[:, 0, c].sum(), sums[:, 1, c].sum() * rstd
        mean_g[c], slope[c] = (total_g / rows, total_gx / rows * rstd) if training else (0.0, 0.0)
        if dweights.size:
            dweights[c], dbiases[c] = total_gx, total_g
    if wanted:
        share(backward_columns, rows, parts, (dy, x, dx, means, scale, mean_g, slope))


# ---- Softmax and log-softmax -----------------------------------------------------------------------------------------


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
def softmax_row(x, y, e):
    """e: room for a row in the type that is computed in."""
    top, total = largest(x), zero(x)
    for j in range(x.size):
        e[j] = exp(minus(x[j], top))
        total += e[j]
    scale = 1 / total
    for j in range(x.size):
        y[j] = narrow(e[j] * scale, y[j])


@compiled()
def log_softmax_row(x, y):
    top = largest(x)
    log_total = type(top)(math.log(sum_of_exp(x, top)))
    for j in range(x.size):
        y[j] = narrow(minus(x[j], top) - log_total, y[j])


@compiled()
def softmax_rows(first, last, x, y, log):
    e = np.full(0 if log else x.shape[1], zero(x))
    for row in range(first, last):
        if log:
            log_softmax_row(x[row], y[row])
        else:
            softmax_row(x[row], y[row], e)


@compiled(entry=True)
def softmax(x, y, rows, length, log, parts, like):
    """y = softmax (log: log-softmax) of each of `rows` rows of x."""
    share(softmax_rows, rows, parts, (array(x, (rows, length), like), array(y, (rows, length), like), log))


@compiled()
def softmax_backward_rows(first, last, dy, y, dx, log):
    for row in range(first, last):
        d, p, out = dy[row], y[row], dx[row]
        total = zero(y)
        if log:
            for j in range(p.size):
                total += widen(d[j])
            for j in range(p.size):
                out[j] = narrow(widen(d[j]) - exp(widen(p[j])) * total, out[j])
        else:
            for j in range(p.size):
                total += widen(d[j]) * widen(p[j])
            for j in range(p.size):
                out[j] = narrow(widen(p[j]) * (widen(d[j]) - total), out[j])


@compiled(entry=True)
def softmax_backward(dy, y, dx, rows, length, log, parts, like):
    """dx = y * (dy - sum(y * dy)) in each row (log: dy - exp(y) * sum(dy)), y being what the forward gave."""
    shape = (rows, length)
    share(
        softmax_backward_rows, rows, parts, (array(dy, shape, like), array(y, shape, like), array(dx, shape, like), log)
    )


# In columns: x is (outer, length, inner) and the axis in the middle is summed over. A tile is all of that axis and a few
# columns.


@compiled()
def column_normalizers(x, left, right, top, log_total):
    """Maximum, and logarithm of the sum of exponentials below it, of the columns left..right of x, (length, inner)."""
    width = right - left
    top[:width], log_total[:width] = -math.inf, 0
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
    tiles = -(-x.shape[2] // TILE_COLUMNS)
    top, total = np.full(TILE_COLUMNS, zero(x)), np.full(TILE_COLUMNS, zero(x))
    e = np.full((0 if log else x.shape[1], TILE_COLUMNS), zero(x))
    for tile in range(first, last):
        left = tile % tiles * TILE_COLUMNS
        right = min(left + TILE_COLUMNS, x.shape[2])
        width = right - left
        v, out = x[tile // tiles], y[tile // tiles]
        if log:
            column_normalizers(v, left, right, top, total)
            for k in range(v.shape[0]):
                row, row_out = v[k, left:right], out[k, left:right]
                for c in range(row.size):
                    row_out[c] = narrow(minus(row[c], top[c]) - total[c], row_out[c])
            continue
        top[:width], total[:width] = -math.inf, 0
        for k in range(v.shape[0]):
            row = v[k, left:right]
            for c in range(row.size):
                top[c] = maximum(top[c], widen(row[c]))
        for k in range(v.shape[0]):
            row, row_e = v[k, left:right], e[k]
            for c in range(row.size):
                row_e[c] = exp(minus(row[c], top[c]))
                total[c] += row_e[c]
        for c in range(width):
            total[c] = 1 / total[c]
        for k in range(v.shape[0]):
            row_e, row_out = e[k], out[k, left:right]
            for c in range(row_out.size):
                row_out[c] = narrow(row_e[c] * total[c], row_out[c])


@compiled(entry=True)
def softmax_columns(x, y, outer, length, inner, log, parts, like):
    """As softmax, over the middle axis of (outer, length, inner)."""
    shape = (outer, length, inner)
    tiles = outer * -(-inner // TILE_COLUMNS)
    share(softmax_tiles, tiles, min(parts, tiles), (array(x, shape, like), array(y, shape, like), log))


@compiled()
def softmax_backward_tiles(first, last, dy, y, dx, log):
    tiles = -(-y.shape[2] // TILE_COLUMNS)
    total = np.full(TILE_COLUMNS, zero(y))
    for tile in range(first, last):
        left = tile % tiles * TILE_COLUMNS
        right = min(left + TILE_COLUMNS, y.shape[2])
        i = tile // tiles
        total[:] = 0
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
def softmax_backward_columns(dy, y, dx, outer, length, inner, log, parts, like):
    """As softmax_backward, over the middle axis of (outer, length, inner)."""
    shape = (outer, length, inner)
    tiles = outer * -(-inner // TILE_COLUMNS)
    arrays = (array(dy, shape, like), array(y, shape, like), array(dx, shape, like))
    share(softmax_backward_tiles, tiles, min(parts, tiles), (*arrays, log))


# ---- Cross entropy ---------------------------------------------------------------------------------------------------
# x is (outer, classes, inner), a target stands at each (outer, inner). log p = (x - top) - log_total is never written to
# memory: top and log_total are, and the backward computes p from them again.
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
        total += (log_total - minus(x[k, column], top)) * pick(weight, k, zero(x) + 1)
    return np.float64(total)


@compiled()
def losses_of_tiles(first, last, x, targets, weight, ignore, smoothing, tops, log_totals, losses, weights):
    """Loss and weight (float64) of each target. A weight of -inf marks a target that is no class."""
    classes, inner = x.shape[1], x.shape[2]
    tiles = -(-inner // TILE_COLUMNS)
    one = zero(x) + 1
    for tile in range(first, last):
        i, left = tile // tiles, tile % tiles * TILE_COLUMNS
        right = min(left + TILE_COLUMNS, inner)
        if inner > 1:
            column_normalizers(x[i], left, right, tops[i, left:right], log_totals[i, left:right])
        for c in range(left, right):
            target = targets[i, c]
            losses[i, c], weights[i, c] = 0, 0
            if target == ignore:
                continue
            if target < 0 or target >= classes:
                weights[i, c] = -math.inf
                continue
            if inner == 1:
                row = x[i].reshape(classes)
                tops[i, 0] = largest(row)
                log_totals[i, 0] = math.log(sum_of_exp(row, tops[i, 0]))
            weights[i, c] = pick(weight, target, one)
            loss = np.float64(log_totals[i, c] - minus(x[i, target, c], tops[i, c])) * weights[i, c]
            if smoothing > 0:
                rest = weighted_sum_of_losses(x[i], c, tops[i, c], log_totals[i, c], weight)
                loss = (1 - smoothing) * loss + smoothing / classes * rest
            losses[i, c] = loss


@compiled(entry=True)
def cross_entropy(
    x, targets, weight, out, tops, log_totals, divisor, outer, classes, inner, ignore, smoothing, mean, parts, like
):
    """out: the loss of each target, or with `mean` >= 0 one number: their sum (0), or their mean (1) over the weights of
    the targets, which `divisor` gets. Returns the index of a target that is no class, or -1."""
    wide = widen(like)
    x = array(x, (outer, classes, inner), like)
    targets = array(targets, (outer, inner), 0)
    tops, log_totals = array(tops, (outer, inner), wide), array(log_totals, (outer, inner), wide)
    losses, weights = np.empty((outer, inner)), np.empty((outer, inner))
    tiles = outer * -(-inner // TILE_COLUMNS)
    arrays = (x, targets, vector(weight, classes, wide), ignore, smoothing, tops, log_totals, losses, weights)
    share(losses_of_tiles, tiles, min(parts, tiles), arrays)
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
def cross_entropy_backward_tiles(
    first, last, dloss, divisor, x, dx, targets, weight, ignore, smoothing, tops, log_totals, sum_of_weights
):
    """dloss: one number, or one for each target."""
    classes, inner = x.shape[1], x.shape[2]
    tiles = -(-inner // TILE_COLUMNS)
    one = zero(x) + 1
    kept, to_p, evenly = np.full(TILE_COLUMNS, one), np.full(TILE_COLUMNS, one), np.full(TILE_COLUMNS, one)
    for tile in range(first, last):
        i, left = tile // tiles, tile % tiles * TILE_COLUMNS
        right = min(left + TILE_COLUMNS, inner)
        for c in range(right - left):
            target = targets[i, left + c]
            kept[c], to_p[c], evenly[c] = 0, 0, 0
            if target != ignore:
                kept[c] = widen(dloss[0, 0] if dloss.size == 1 else dloss[i, left + c]) / divisor[0]
                evenly[c] = kept[c] * smoothing / classes
                to_p[c] = kept[c] * (1 - smoothing) * pick(weight, target, one) + evenly[c] * sum_of_weights
        if inner == 1:
            backward_classes(
                x[i].reshape(classes), dx[i].reshape(classes), tops[i, 0], log_totals[i, 0], to_p[0], evenly[0], weight
            )
        else:
            for k in range(classes):
                w = pick(weight, k, one)
                row, out = x[i, k, left:right], dx[i, k, left:right]
                top, log_total = tops[i, left:right], log_totals[i, left:right]
                for c in range(row.size):
                    p = exp(minus(row[c], top[c]) - log_total[c])
                    out[c] = narrow(p * to_p[c] - evenly[c] * w, out[c])
        for c in range(right - left):
            target = targets[i, left + c]
            if target == ignore:
                for k in range(classes):  # 0 also where p is NaN
                    dx[i, k, left + c] = narrow(zero(x), dx[i, k, left + c])
                continue
            # Computed again rather than subtracted from what was stored: a half type would round twice.
            p = exp(minus(x[i, target, left + c], tops[i, left + c]) - log_totals[i, left + c])
            w = pick(weight, target, one)
            exact = p * to_p[c] - evenly[c] * w - type(one)(kept[c] * (1 - smoothing)) * w
            dx[i, target, left + c] = narrow(type(one)(exact), dx[i, target, left + c])


@compiled()
def backward_classes(x, dx, top, log_total, to_p, evenly, weight):
    """to_p * p - evenly * weight for a row of classes."""
    if weight.size:
        for k in range(x.size):
            dx[k] = narrow(exp(minus(x[k], top) - log_total) * to_p - evenly * weight[k], dx[k])
    else:
        for k in range(x.size):
            dx[k] = narrow(exp(minus(x[k], top) - log_total) * to_p - evenly, dx[k])


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
    parts,
    like,
):
    """dx, from the gradient of one loss (n_losses == 1) or of the loss of each target."""
    wide, shape = widen(like), (outer, classes, inner)
    weight = vector(weight, classes, wide)
    sum_of_weights = weight.sum() if weight.size else type(wide)(classes)
    tiles = outer * -(-inner // TILE_COLUMNS)
    share(
        cross_entropy_backward_tiles,
        tiles,
        min(parts, tiles),
        (
            array(dloss, (1, 1) if n_losses == 1 else (outer, inner), like),
            vector(divisor, 1, wide),
            array(x, shape, like),
            array(dx, shape, like),
            array(targets, (outer, inner), 0),
            weight,
            ignore,
            smoothing,
            array(tops, (outer, inner), wide),
            array(log_totals, (outer, inner), wide),
            sum_of_weights,
        ),
    )
