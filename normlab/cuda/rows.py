"""Layer, RMS and instance norm, and group norm without positions: each pool is a row, its elements side by side.

Row r is of group r % groups. Its weights are one for each element (WEIGHT = "element": layer, RMS and group norm) or
one for the whole row (WEIGHT = "row": instance norm). Statistics are float32: the means of all rows, then their
variances (of RMS norm: zeros, then mean squares).
"""

import triton
import triton.language as tl


@triton.jit
def weights_of(parameter_ptr, group, column, size, mask, WEIGHT: tl.constexpr):
    """The weights or biases of a tile of rows, in float32: one for each element, or one for each row of the tile."""
    if WEIGHT == "row":
        return tl.load(parameter_ptr + group).to(tl.float32)
    else:
        return tl.load(parameter_ptr + group * size + column, mask=mask).to(tl.float32)


@triton.jit
def norm_rows(
    x_ptr,
    y_ptr,
    weight_ptr,
    bias_ptr,
    statistics_ptr,
    x_stride,
    rows,
    size,
    groups,
    eps,
    CENTERED: tl.constexpr,
    WEIGHT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y = (x - mean) / sqrt(var + eps) * weight + bias  [eq-normalize], ROWS whole rows a program: x is read once."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < size)
    x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    mean = tl.zeros((ROWS, 1), tl.float32)
    if CENTERED:
        mean = tl.sum(x, axis=1, keep_dims=True) / size
        x = tl.where(inside, x - mean, 0.0)
    var = tl.sum(x * x, axis=1, keep_dims=True) / size
    if statistics_ptr is not None:
        tl.store(statistics_ptr + row, mean, mask=row < rows)
        tl.store(statistics_ptr + rows + row, var, mask=row < rows)
    y = x * tl.rsqrt(var + eps)
    if weight_ptr is not None:
        y *= weights_of(weight_ptr, row % groups, column, size, inside, WEIGHT)
    if bias_ptr is not None:
        y += weights_of(bias_ptr, row % groups, column, size, inside, WEIGHT)
    tl.store(y_ptr + row * size + column, y, mask=inside)


@triton.jit
def statistics_of(x_ptr, size, CENTERED: tl.constexpr, BLOCK: tl.constexpr):
    """Mean and variance of `size` elements, looked at once, BLOCK at a time.

    Each lane keeps mean and sum of squared deviations of what it has seen (Welford); in the end they are merged (Chan).
    """
    lane = tl.arange(0, BLOCK)
    mean = tl.zeros((BLOCK,), tl.float32)
    m2 = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        inside = start + lane < size
        x = tl.load(x_ptr + start + lane, mask=inside, other=0.0).to(tl.float32)
        if CENTERED:
            delta = x - mean
            seen = start // BLOCK + 1  # the same for every lane that is still inside
            mean += tl.where(inside, delta / seen, 0.0)
            m2 += tl.where(inside, delta * (x - mean), 0.0)
        else:
            m2 += x * x
    whole = 0.0
    if CENTERED:
        count = ((size - lane + BLOCK - 1) // BLOCK).to(tl.float32)
        whole = tl.sum(count * mean) / size
        m2 += count * (mean - whole) * (mean - whole)
    return whole, tl.sum(m2) / size


@triton.jit
def norm_rows_wide(
    x_ptr,
    y_ptr,
    weight_ptr,
    bias_ptr,
    statistics_ptr,
    x_stride,
    rows,
    size,
    groups,
    eps,
    CENTERED: tl.constexpr,
    WEIGHT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """norm_rows for rows that no program can hold: one row a program, x is read twice."""
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    y_ptr += row * size
    mean, var = statistics_of(x_ptr, size, CENTERED, BLOCK)
    if statistics_ptr is not None:
        tl.store(statistics_ptr + row, mean)
        tl.store(statistics_ptr + rows + row, var)
    rstd = tl.rsqrt(var + eps)
    for start in range(0, size, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < size
        y = (tl.load(x_ptr + column, mask=inside, other=0.0).to(tl.float32) - mean) * rstd
        if weight_ptr is not None:
            y *= weights_of(weight_ptr, row % groups, column, size, inside, WEIGHT)
        if bias_ptr is not None:
            y += weights_of(bias_ptr, row % groups, column, size, inside, WEIGHT)
        tl.store(y_ptr + column, y, mask=inside)


@triton.jit
def norm_rows_backward(
    dy_ptr,
    x_ptr,
    dx_ptr,
    weight_ptr,
    statistics_ptr,
    dweight_ptr,
    dbias_ptr,
    dy_stride,
    x_stride,
    rows,
    size,
    groups,
    eps,
    CENTERED: tl.constexpr,
    WEIGHT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dx = rstd (g - mean(g) - x_hat mean(g x_hat)) with g = dy weight  [eq-norm-backward]; x and dy are read once.

    Program (group, p) takes every P-th tile of ROWS rows of its group, and adds up their shares of dweight and dbias in
    its own line of dweight_ptr and dbias_ptr, (P, groups * weights a group).
    """
    group = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1).to(tl.int64)
    slot = tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    WIDTH: tl.constexpr = 1 if WEIGHT == "row" else BLOCK
    weights = 1 if WEIGHT == "row" else size
    index = tl.arange(0, WIDTH)[None, :]
    line = (part * groups + group) * weights + index
    dweight = tl.zeros((ROWS, WIDTH), tl.float32)
    dbias = tl.zeros((ROWS, WIDTH), tl.float32)
    w = tl.full((1, 1), 1.0, tl.float32)
    if weight_ptr is not None:
        w = tl.load(weight_ptr + group * weights + index, mask=index < weights, other=0.0).to(tl.float32)
    parts = tl.num_programs(1)
    tiles = tl.cdiv(rows // groups, ROWS)
    for step in range(tl.cdiv(tiles, parts)):
        row = ((step * parts + part) * ROWS + slot) * groups + group
        inside = (row < rows) & (column < size)
        x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + row * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
        rstd = tl.rsqrt(tl.load(statistics_ptr + rows + row, mask=row < rows, other=1.0) + eps)
        if CENTERED:
            x = tl.where(inside, x - tl.load(statistics_ptr + row, mask=row < rows, other=0.0), 0.0)
        x_hat = x * rstd
        dw, db = dy * x_hat, dy
        if WEIGHT == "row":
            dw, db = tl.sum(dw, axis=1, keep_dims=True), tl.sum(db, axis=1, keep_dims=True)
        if dx_ptr is not None:
            if WEIGHT == "row":
                along_x_hat, along_one = w * dw, w * db
            else:
                along_x_hat = tl.sum(w * dw, axis=1, keep_dims=True)
                along_one = tl.sum(w * db, axis=1, keep_dims=True)
            dx = w * dy - x_hat * (along_x_hat / size)
            if CENTERED:
                dx -= along_one / size
            tl.store(dx_ptr + row * size + column, dx * rstd, mask=inside)
        if dweight_ptr is not None:
            dweight += dw
            dbias += db
    if dweight_ptr is not None:
        tl.store(dweight_ptr + line, tl.sum(dweight, axis=0, keep_dims=True), mask=index < weights)
        tl.store(dbias_ptr + line, tl.sum(dbias, axis=0, keep_dims=True), mask=index < weights)


@triton.jit
def norm_rows_backward_wide(
    dy_ptr,
    x_ptr,
    dx_ptr,
    weight_ptr,
    statistics_ptr,
    dweight_ptr,
    dbias_ptr,
    dy_stride,
    x_stride,
    rows,
    size,
    groups,
    eps,
    CENTERED: tl.constexpr,
    WEIGHT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """norm_rows_backward for rows that no program can hold: piece by piece, twice, so x and dy are read twice."""
    group = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    weights = 1 if WEIGHT == "row" else size
    line = (part * groups + group) * weights
    parts = tl.num_programs(1)
    dweight, dbias = 0.0, 0.0
    for step in range(tl.cdiv(rows // groups, parts)):
        row = (step * parts + part) * groups + group
        here = row < rows
        rstd = tl.rsqrt(tl.load(statistics_ptr + rows + row, mask=here, other=1.0) + eps)
        mean = 0.0
        if CENTERED:
            mean = tl.load(statistics_ptr + row, mask=here, other=0.0)
        along_x_hat = tl.zeros((BLOCK,), tl.float32)
        along_one = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, size, BLOCK):
            column = start + lane
            inside = here & (column < size)
            x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
            g = tl.load(dy_ptr + row * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
            if weight_ptr is not None and WEIGHT == "element":
                g *= weights_of(weight_ptr, group, column, size, inside, WEIGHT)
            along_x_hat += tl.where(inside, g * (x - mean), 0.0)
            along_one += tl.where(inside, g, 0.0)
        p, q = tl.sum(along_x_hat) * rstd, tl.sum(along_one)
        w = 1.0
        if WEIGHT == "row":
            dweight += p
            dbias += q
            if weight_ptr is not None:
                w = tl.load(weight_ptr + group).to(tl.float32)
        if dx_ptr is not None or WEIGHT == "element":
            for start in range(0, size, BLOCK):
                column = start + lane
                inside = here & (column < size)
                x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
                dy = tl.load(dy_ptr + row * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
                x_hat = (x - mean) * rstd
                if dx_ptr is not None:
                    g = dy
                    if weight_ptr is not None and WEIGHT == "element":
                        g *= weights_of(weight_ptr, group, column, size, inside, WEIGHT)
                    dx = g - x_hat * (p / size)
                    if CENTERED:
                        dx -= q / size
                    tl.store(dx_ptr + row * size + column, dx * w * rstd, mask=inside)
                if dweight_ptr is not None and WEIGHT == "element":
                    before = inside & (step > 0)
                    dw = tl.load(dweight_ptr + line + column, mask=before, other=0.0) + dy * x_hat
                    db = tl.load(dbias_ptr + line + column, mask=before, other=0.0) + dy
                    tl.store(dweight_ptr + line + column, dw, mask=inside)
                    tl.store(dbias_ptr + line + column, db, mask=inside)
    if dweight_ptr is not None and WEIGHT == "row":
        tl.store(dweight_ptr + line, dweight)
        tl.store(dbias_ptr + line, dbias)


@triton.jit
def sum_lines(x_ptr, y_ptr, lines, size, LINES: tl.constexpr, BLOCK: tl.constexpr):
    """y (size,) = the sum of the lines of x (lines, size), always in the same order. Both float32."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((LINES, BLOCK), tl.float32)
    for start in range(0, lines, LINES):
        line = start + tl.arange(0, LINES)[:, None]
        total += tl.load(x_ptr + line.to(tl.int64) * size + column, mask=(line < lines) & (column < size), other=0.0)
    tl.store(y_ptr + column, tl.sum(total, axis=0, keep_dims=True), mask=column < size)
