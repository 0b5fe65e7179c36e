"""Group norm: a pool is a row of channels, and each channel a run of positions with one weight.

x is (N, groups, channels, positions) in that order in memory, and row r, of `channels` times `positions` elements, is
of group r % groups. A tile is (channels, positions). Statistics are as in rows.py.
"""

import triton
import triton.language as tl

from normlab.cuda.rows import statistics_of


@triton.jit
def of_channels(parameter_ptr, row, groups, channels, channel):
    """Weights or biases of channels of a row, in float32; 1 or 0 must do where there are none."""
    mask = channel < channels
    return tl.load(parameter_ptr + (row % groups) * channels + channel, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def norm_groups(
    x_ptr,
    y_ptr,
    weight_ptr,
    bias_ptr,
    statistics_ptr,
    rows,
    channels,
    positions,
    groups,
    eps,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
):
    """y = (x - mean) / sqrt(var + eps) * weight + bias  [eq-normalize], one whole row a program: x is read once."""
    row = tl.program_id(0).to(tl.int64)
    size = channels * positions
    channel = tl.arange(0, CHANNELS)[:, None]
    position = tl.arange(0, POSITIONS)[None, :]
    inside = (channel < channels) & (position < positions)
    place = row * size + channel * positions + position
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x) / size
    x = tl.where(inside, x - mean, 0.0)
    var = tl.sum(x * x) / size
    if statistics_ptr is not None:
        tl.store(statistics_ptr + row, mean)
        tl.store(statistics_ptr + rows + row, var)
    y = x * tl.rsqrt(var + eps)
    if weight_ptr is not None:
        y *= of_channels(weight_ptr, row, groups, channels, channel)
    if bias_ptr is not None:
        y += of_channels(bias_ptr, row, groups, channels, channel)
    tl.store(y_ptr + place, y, mask=inside)


@triton.jit
def norm_groups_wide(
    x_ptr,
    y_ptr,
    weight_ptr,
    bias_ptr,
    statistics_ptr,
    rows,
    channels,
    positions,
    groups,
    eps,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
):
    """norm_groups for rows that no program can hold: x is read twice."""
    row = tl.program_id(0).to(tl.int64)
    size = channels * positions
    mean, var = statistics_of(x_ptr + row * size, size, True, CHANNELS * POSITIONS)
    if statistics_ptr is not None:
        tl.store(statistics_ptr + row, mean)
        tl.store(statistics_ptr + rows + row, var)
    rstd = tl.rsqrt(var + eps)
    for first_channel in range(0, channels, CHANNELS):
        channel = first_channel + tl.arange(0, CHANNELS)[:, None]
        for first_position in range(0, positions, POSITIONS):
            position = first_position + tl.arange(0, POSITIONS)[None, :]
            inside = (channel < channels) & (position < positions)
            place = row * size + channel * positions + position
            y = (tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32) - mean) * rstd
            if weight_ptr is not None:
                y *= of_channels(weight_ptr, row, groups, channels, channel)
            if bias_ptr is not None:
                y += of_channels(bias_ptr, row, groups, channels, channel)
            tl.store(y_ptr + place, y, mask=inside)


@triton.jit
def norm_groups_backward(
    dy_ptr,
    x_ptr,
    dx_ptr,
    weight_ptr,
    statistics_ptr,
    dweight_ptr,
    dbias_ptr,
    rows,
    channels,
    positions,
    groups,
    eps,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
):
    """dx = rstd (g - mean(g) - x_hat mean(g x_hat)) with g = dy weight  [eq-norm-backward]; x and dy are read once.

    dweight_ptr and dbias_ptr are (N, groups * channels): the shares of each example, to be added up.
    """
    row = tl.program_id(0).to(tl.int64)
    size = channels * positions
    channel = tl.arange(0, CHANNELS)[:, None]
    position = tl.arange(0, POSITIONS)[None, :]
    inside = (channel < channels) & (position < positions)
    place = row * size + channel * positions + position
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + place, mask=inside, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.load(statistics_ptr + rows + row) + eps)
    x_hat = tl.where(inside, x - tl.load(statistics_ptr + row), 0.0) * rstd
    # A channel's weight is the same at all of its positions: sums over positions first, weights after.
    dweight = tl.sum(dy * x_hat, axis=1, keep_dims=True)
    dbias = tl.sum(dy, axis=1, keep_dims=True)
    if dx_ptr is not None:
        w = tl.full((1, 1), 1.0, tl.float32)
        if weight_ptr is not None:
            w = of_channels(weight_ptr, row, groups, channels, channel)
        along_x_hat, along_one = tl.sum(w * dweight), tl.sum(w * dbias)
        dx = rstd * (w * dy - along_one / size - x_hat * (along_x_hat / size))
        tl.store(dx_ptr + place, dx, mask=inside)
    if dweight_ptr is not None:
        tl.store(dweight_ptr + row * channels + channel, dweight, mask=channel < channels)
        tl.store(dbias_ptr + row * channels + channel, dbias, mask=channel < channels)


@triton.jit
def norm_groups_backward_wide(
    dy_ptr,
    x_ptr,
    dx_ptr,
    weight_ptr,
    statistics_ptr,
    dweight_ptr,
    dbias_ptr,
    rows,
    channels,
    positions,
    groups,
    eps,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
):
    """norm_groups_backward for rows that no program can hold: x and dy are read twice."""
    row = tl.program_id(0).to(tl.int64)
    size = channels * positions
    mean = tl.load(statistics_ptr + row)
    rstd = tl.rsqrt(tl.load(statistics_ptr + rows + row) + eps)
    along_x_hat, along_one = tl.zeros((CHANNELS, 1), tl.float32), tl.zeros((CHANNELS, 1), tl.float32)
    for first_channel in range(0, channels, CHANNELS):
        channel = first_channel + tl.arange(0, CHANNELS)[:, None]
        dweight = tl.zeros((CHANNELS, POSITIONS), tl.float32)
        dbias = tl.zeros((CHANNELS, POSITIONS), tl.float32)
        for first_position in range(0, positions, POSITIONS):
            position = first_position + tl.arange(0, POSITIONS)[None, :]
            inside = (channel < channels) & (position < positions)
            place = row * size + channel * positions + position
            x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
            dy = tl.load(dy_ptr + place, mask=inside, other=0.0).to(tl.float32)
            dweight += tl.where(inside, dy * (x - mean), 0.0)
            dbias += dy
        of_weight = tl.sum(dweight, axis=1, keep_dims=True) * rstd
        of_bias = tl.sum(dbias, axis=1, keep_dims=True)
        if dweight_ptr is not None:
            tl.store(dweight_ptr + row * channels + channel, of_weight, mask=channel < channels)
            tl.store(dbias_ptr + row * channels + channel, of_bias, mask=channel < channels)
        if weight_ptr is not None:
            w = of_channels(weight_ptr, row, groups, channels, channel)
            of_weight *= w
            of_bias *= w
        along_x_hat += of_weight
        along_one += of_bias
    if dx_ptr is not None:
        p, q = tl.sum(along_x_hat) / size, tl.sum(along_one) / size
        for first_channel in range(0, channels, CHANNELS):
            channel = first_channel + tl.arange(0, CHANNELS)[:, None]
            for first_position in range(0, positions, POSITIONS):
                position = first_position + tl.arange(0, POSITIONS)[None, :]
                inside = (channel < channels) & (position < positions)
                place = row * size + channel * positions + position
                x_hat = (tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32) - mean) * rstd
                g = tl.load(dy_ptr + place, mask=inside, other=0.0).to(tl.float32)
                if weight_ptr is not None:
                    g *= of_channels(weight_ptr, row, groups, channels, channel)
                tl.store(dx_ptr + place, rstd * (g - q - x_hat * p), mask=inside)
