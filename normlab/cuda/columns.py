"""Batch norm: a pool is a channel, over all examples and positions.

x is (N, C, positions) in that order in memory, or with LAST (N, positions, C): the channels side by side, as in
channels_last and in (N, C). Everything is elementwise but the sums, so x is read twice: for the statistics of parts of
each pool, which are then merged (Chan), and for the map. Statistics are float32: C means, then C variances.
"""

import triton
import triton.language as tl


@triton.jit
def seen_by(count, mean, m2, x, inside):
    """(count, mean, m2) of each lane after it has seen one more number (Welford), where it is inside."""
    count += tl.where(inside, 1.0, 0.0)
    delta = x - mean
    mean += tl.where(inside, delta / tl.maximum(count, 1.0), 0.0)
    m2 += tl.where(inside, delta * (x - mean), 0.0)
    return count, mean, m2


@triton.jit
def merge_lanes(count, mean, m2, axis: tl.constexpr):
    """(count, mean, m2) of all lanes along an axis (Chan); where none has seen anything, zeros."""
    n = tl.sum(count, axis=axis, keep_dims=True)
    whole = tl.sum(count * mean, axis=axis, keep_dims=True) / tl.maximum(n, 1.0)
    m2 = tl.sum(m2 + count * (mean - whole) * (mean - whole), axis=axis, keep_dims=True)
    return n, whole, m2


@triton.jit
def pool_statistics(
    x_ptr, parts_ptr, n, channels, positions, LAST: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """(count, mean, m2) of parts of each pool, in parts (3, parts, C).

    LAST: program (c, p) goes over every parts-th tile of ROWS lines of BLOCK channels. Else it goes over every parts-th
    tile of ROWS examples and BLOCK positions of one channel.
    """
    part = tl.program_id(1)
    parts = tl.num_programs(1)
    count = tl.zeros((ROWS, BLOCK), tl.float32)
    mean = tl.zeros((ROWS, BLOCK), tl.float32)
    m2 = tl.zeros((ROWS, BLOCK), tl.float32)
    slot = tl.arange(0, ROWS)[:, None]
    if LAST:
        channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
        lines = n * positions
        for step in range(tl.cdiv(tl.cdiv(lines, ROWS), parts)):
            line = (step * parts + part).to(tl.int64) * ROWS + slot
            inside = (line < lines) & (channel < channels)
            x = tl.load(x_ptr + line * channels + channel, mask=inside, other=0.0).to(tl.float32)
            count, mean, m2 = seen_by(count, mean, m2, x, inside)
        n_seen, mean, m2 = merge_lanes(count, mean, m2, 0)
        mask = channel < channels
    else:
        channel = tl.program_id(0) + tl.zeros((1, 1), tl.int32)
        across = tl.cdiv(positions, BLOCK)
        for step in range(tl.cdiv(tl.cdiv(n, ROWS) * across, parts)):
            tile = step * parts + part
            example = (tile // across) * ROWS + slot
            position = (tile % across) * BLOCK + tl.arange(0, BLOCK)[None, :]
            inside = (example < n) & (position < positions)
            place = (example.to(tl.int64) * channels + channel) * positions + position
            x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
            count, mean, m2 = seen_by(count, mean, m2, x, inside)
        n_seen, mean, m2 = merge_lanes(count, mean, m2, 1)
        n_seen, mean, m2 = merge_lanes(n_seen, mean, m2, 0)
        mask = tl.full((1, 1), 1, tl.int1)
    place = part * channels + channel
    tl.store(parts_ptr + place, n_seen, mask=mask)
    tl.store(parts_ptr + parts * channels + place, mean, mask=mask)
    tl.store(parts_ptr + 2 * parts * channels + place, m2, mask=mask)


@triton.jit
def merge_statistics(parts_ptr, statistics_ptr, parts, channels, n, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """Means and variances of all pools, of `n` numbers each, from those of their parts."""
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    part = tl.arange(0, PARTS)[:, None]
    inside = (part < parts) & (channel < channels)
    place = part * channels + channel
    count = tl.load(parts_ptr + place, mask=inside, other=0.0)
    mean = tl.load(parts_ptr + parts * channels + place, mask=inside, other=0.0)
    m2 = tl.load(parts_ptr + 2 * parts * channels + place, mask=inside, other=0.0)
    _, mean, m2 = merge_lanes(count, mean, m2, 0)
    tl.store(statistics_ptr + channel, mean, mask=channel < channels)
    tl.store(statistics_ptr + channels + channel, m2 / n, mask=channel < channels)


@triton.jit
def move(mean_ptr, var_ptr, statistics_ptr, channels, momentum, unbiased, BLOCK: tl.constexpr):
    """Running statistics, moved toward those of the batch; `unbiased` = n / (n - 1)."""
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    mean = tl.load(statistics_ptr + channel, mask=inside)
    var = tl.load(statistics_ptr + channels + channel, mask=inside) * unbiased
    running_mean = tl.load(mean_ptr + channel, mask=inside).to(tl.float32)
    running_var = tl.load(var_ptr + channel, mask=inside).to(tl.float32)
    tl.store(mean_ptr + channel, running_mean * (1 - momentum) + mean * momentum, mask=inside)
    tl.store(var_ptr + channel, running_var * (1 - momentum) + var * momentum, mask=inside)


@triton.jit
def lines_of(lines, width, channels, LAST: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """(place, mask, channel, channel's mask) of a tile of x seen as (lines, width): a line is a position of an example
    (LAST), or a channel of an example."""
    across = tl.cdiv(width, BLOCK)  # a grid is long in its first axis alone
    line = (tl.program_id(0) // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = (tl.program_id(0) % across) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (line < lines) & (column < width)
    if LAST:
        return line * width + column, inside, column, column < width
    else:
        return line * width + column, inside, line % channels, line < lines


@triton.jit
def normalize(
    x_ptr,
    y_ptr,
    weight_ptr,
    bias_ptr,
    statistics_ptr,
    lines,
    width,
    channels,
    eps,
    LAST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y = (x - mean) / sqrt(var + eps) * weight + bias  [eq-normalize], with statistics that are known."""
    place, inside, channel, mask = lines_of(lines, width, channels, LAST, ROWS, BLOCK)
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    mean = tl.load(statistics_ptr + channel, mask=mask, other=0.0)
    y = (x - mean) * tl.rsqrt(tl.load(statistics_ptr + channels + channel, mask=mask, other=1.0) + eps)
    if weight_ptr is not None:
        y *= tl.load(weight_ptr + channel, mask=mask, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + channel, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + place, y, mask=inside)


@triton.jit
def pool_sums(
    dy_ptr,
    x_ptr,
    statistics_ptr,
    dweight_ptr,
    dbias_ptr,
    n,
    channels,
    positions,
    eps,
    LAST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums of dy x_hat and of dy over parts of each pool, each (parts, C); programs as in pool_statistics."""
    part = tl.program_id(1)
    parts = tl.num_programs(1)
    dweight = tl.zeros((ROWS, BLOCK), tl.float32)
    dbias = tl.zeros((ROWS, BLOCK), tl.float32)
    slot = tl.arange(0, ROWS)[:, None]
    if LAST:
        channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
        mask = channel < channels
        mean = tl.load(statistics_ptr + channel, mask=mask, other=0.0)
        rstd = tl.rsqrt(tl.load(statistics_ptr + channels + channel, mask=mask, other=1.0) + eps)
        lines = n * positions
        for step in range(tl.cdiv(tl.cdiv(lines, ROWS), parts)):
            line = (step * parts + part).to(tl.int64) * ROWS + slot
            inside = (line < lines) & mask
            x = tl.load(x_ptr + line * channels + channel, mask=inside, other=0.0).to(tl.float32)
            dy = tl.load(dy_ptr + line * channels + channel, mask=inside, other=0.0).to(tl.float32)
            dweight += tl.where(inside, dy * (x - mean), 0.0)
            dbias += dy
    else:
        channel = tl.program_id(0) + tl.zeros((1, 1), tl.int32)
        mask = tl.full((1, 1), 1, tl.int1)
        mean = tl.load(statistics_ptr + channel)
        rstd = tl.rsqrt(tl.load(statistics_ptr + channels + channel) + eps)
        across = tl.cdiv(positions, BLOCK)
        for step in range(tl.cdiv(tl.cdiv(n, ROWS) * across, parts)):
            tile = step * parts + part
            example = (tile // across) * ROWS + slot
            position = (tile % across) * BLOCK + tl.arange(0, BLOCK)[None, :]
            inside = (example < n) & (position < positions)
            place = (example.to(tl.int64) * channels + channel) * positions + position
            x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
            dy = tl.load(dy_ptr + place, mask=inside, other=0.0).to(tl.float32)
            dweight += tl.where(inside, dy * (x - mean), 0.0)
            dbias += dy
        dweight = tl.sum(dweight, axis=1, keep_dims=True)
        dbias = tl.sum(dbias, axis=1, keep_dims=True)
    tl.store(dweight_ptr + part * channels + channel, tl.sum(dweight, axis=0, keep_dims=True) * rstd, mask=mask)
    tl.store(dbias_ptr + part * channels + channel, tl.sum(dbias, axis=0, keep_dims=True), mask=mask)


@triton.jit
def normalize_backward(
    dy_ptr,
    x_ptr,
    dx_ptr,
    weight_ptr,
    statistics_ptr,
    dweight_ptr,
    dbias_ptr,
    lines,
    width,
    channels,
    n,
    eps,
    TRAINING: tl.constexpr,
    LAST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dx = weight rstd (dy - mean(dy) - x_hat mean(dy x_hat))  [eq-norm-backward], `n` numbers a pool; of fixed
    statistics (not TRAINING) weight rstd dy."""
    place, inside, channel, mask = lines_of(lines, width, channels, LAST, ROWS, BLOCK)
    dx = tl.load(dy_ptr + place, mask=inside, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.load(statistics_ptr + channels + channel, mask=mask, other=1.0) + eps)
    if TRAINING:
        x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
        x_hat = (x - tl.load(statistics_ptr + channel, mask=mask, other=0.0)) * rstd
        along_x_hat = tl.load(dweight_ptr + channel, mask=mask, other=0.0)
        along_one = tl.load(dbias_ptr + channel, mask=mask, other=0.0)
        dx = dx - along_one / n - x_hat * (along_x_hat / n)
    if weight_ptr is not None:
        rstd *= tl.load(weight_ptr + channel, mask=mask, other=0.0).to(tl.float32)
    tl.store(dx_ptr + place, dx * rstd, mask=inside)
