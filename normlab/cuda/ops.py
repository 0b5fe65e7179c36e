"""The operators of functional.py on Triton kernels: same names, same arguments, same results, for tensors on a GPU.

Importing this needs Triton; `normlab.cuda.why_not()` says whether that will do. What a program holds, and how many
warps it has, comes from plan.py. Half types are computed in float32 and rounded once, at the end; statistics, dweight
and dbias are float32. Sums of several programs are made of parts in a fixed order: no atomics, always the same bits.
"""

import math

import torch
import triton

from normlab.cuda import columns, groups, loss, plan, rows, softmax
from normlab.layout import around, memory_format

FLOAT = torch.float32


def _as_rows(x, size):
    """x as (rows, size) with the elements of a row side by side; a copy only where its strides leave no other way."""
    x = x.reshape(-1, size)
    return x if size == 1 or x.stride(1) == 1 else x.contiguous()


def _stride(x):
    """From row to row."""
    return x.stride(0) if x.shape[0] > 1 else x.shape[1]


def _written_to(out):
    """What a kernel writes to: `out`, or a contiguous tensor that is to be copied to it."""
    return out if out.is_contiguous() else torch.empty_like(out, memory_format=torch.contiguous_format)


def _vector(parameter):
    return None if parameter is None else parameter.contiguous().view(-1)


def _summed(lines):
    """(size,): the sum of the lines of a float32 (lines, size)."""
    count, size = lines.shape
    if count == 1:
        return lines[0]
    total = torch.empty(size, dtype=FLOAT, device=lines.device)
    tile, block = plan.columns(count, plan.TILE)
    rows.sum_lines[(triton.cdiv(size, block),)](
        lines, total, count, size, LINES=tile, BLOCK=block, num_warps=plan.warps(tile * block)
    )
    return total


def _no_gradients(x, size):
    """dweight and dbias of an empty x."""
    return torch.zeros(size, dtype=FLOAT, device=x.device), torch.zeros(size, dtype=FLOAT, device=x.device)


# ---- Layer, RMS, instance and group norm -----------------------------------------------------------------------------


def _one_weight(channels, positions):
    """Whether rows.py serves: then a row has one weight an element, or one in all. Else groups.py does."""
    return channels == 1 or positions == 1


def row_norm_out(x, weight, bias, num_groups, channels, positions, eps, centered, *, out, statistics=None):
    if x.numel() == 0:
        return
    size = channels * positions
    target, weight, bias = _written_to(out), _vector(weight), _vector(bias)
    if _one_weight(channels, positions):
        x, per_element = _as_rows(x, size), positions == 1
        arguments = (x, target, weight, bias, statistics, _stride(x), x.shape[0], size, num_groups, eps)
        options = {"CENTERED": centered, "WEIGHT": "element" if per_element else "row"}
        if size <= (plan.ONE_PASS_AFFINE if per_element and weight is not None else plan.ONE_PASS):
            tile, block = plan.rows(size)
            # Long rows and their weights: with 16 elements a thread the compiler aims at more blocks, and spills.
            warps = plan.warps(tile * block, each=32 if plan.ONE_PASS_AFFINE >= block > plan.CHUNK else 16)
            grid = (triton.cdiv(x.shape[0], tile),)
            rows.norm_rows[grid](*arguments, **options, ROWS=tile, BLOCK=block, num_warps=warps)
        else:
            warps = plan.warps(plan.CHUNK)
            rows.norm_rows_wide[(x.shape[0],)](*arguments, **options, BLOCK=plan.CHUNK, num_warps=warps)
    else:
        x, count = x.contiguous(), x.numel() // size
        arguments = (x, target, weight, bias, statistics, count, channels, positions, num_groups, eps)
        kernel, tile = _group_kernel(
            groups.norm_groups, groups.norm_groups_wide, channels, positions, plan.ONE_PASS_AFFINE
        )
        kernel[(count,)](*arguments, CHANNELS=tile[0], POSITIONS=tile[1], num_warps=plan.warps(math.prod(tile)))
    if target is not out:
        out.copy_(target)


def _group_kernel(whole, wide, channels, positions, limit):
    """The kernel for rows of `channels` times `positions`, and its tile."""
    tile = plan.power_of_two(channels), plan.power_of_two(positions)
    if math.prod(tile) <= limit:
        return whole, tile
    across = min(tile[1], plan.CHUNK)
    return wide, (min(tile[0], plan.CHUNK // across), across)


def row_norm_forward(x, weight, bias, num_groups, channels, positions, eps, centered):
    count = x.numel() // max(channels * positions, 1)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    statistics = torch.empty(2 * count, dtype=FLOAT, device=x.device)
    row_norm_out(x, weight, bias, num_groups, channels, positions, eps, centered, out=y, statistics=statistics)
    return y, statistics


def row_norm_backward(dy, x, weight, statistics, num_groups, channels, positions, eps, centered, want_x, want_weight):
    size, weights = channels * positions, num_groups * channels
    dx = torch.empty_like(x, memory_format=torch.contiguous_format) if want_x else None
    nothing = torch.empty(0, dtype=FLOAT, device=x.device)
    if x.numel() == 0:
        return x.new_empty(0) if dx is None else dx, *_no_gradients(x, weights if want_weight else 0)
    weight, count = _vector(weight), x.numel() // size
    examples = count // num_groups
    if _one_weight(channels, positions):
        dy, x = _as_rows(dy, size), _as_rows(x, size)
        per_element = positions == 1
        tile, block = plan.rows(size)
        held = tile * block if size <= plan.ONE_PASS_BACKWARD else plan.CHUNK
        parts = plan.split(triton.cdiv(examples, tile), num_groups, x.device, held)
        dweight, dbias = _two_lines(parts if want_weight else 0, weights, x.device)
        arguments = (
            dy,
            x,
            dx,
            weight,
            statistics,
            dweight,
            dbias,
            _stride(dy),
            _stride(x),
            count,
            size,
            num_groups,
            eps,
        )
        options = {"CENTERED": centered, "WEIGHT": "element" if per_element else "row"}
        if size <= (plan.ONE_PASS_WEIGHTS if per_element and want_weight else plan.ONE_PASS_BACKWARD):
            each = 8 if tile > 1 else 16
            rows.norm_rows_backward[(num_groups, parts)](*arguments, **options, **_options((tile, block), each))
        else:
            warps = plan.warps(plan.CHUNK)
            rows.norm_rows_backward_wide[(num_groups, parts)](*arguments, **options, BLOCK=plan.CHUNK, num_warps=warps)
    else:
        dy, x = dy.contiguous(), x.contiguous()
        dweight, dbias = _two_lines(examples if want_weight else 0, weights, x.device)
        arguments = (dy, x, dx, weight, statistics, dweight, dbias, count, channels, positions, num_groups, eps)
        kernels = groups.norm_groups_backward, groups.norm_groups_backward_wide
        kernel, tile = _group_kernel(*kernels, channels, positions, plan.ONE_PASS_BACKWARD)
        kernel[(count,)](*arguments, CHANNELS=tile[0], POSITIONS=tile[1], num_warps=plan.warps(math.prod(tile)))
    dx = x.new_empty(0) if dx is None else dx
    return (dx, _summed(dweight), _summed(dbias)) if want_weight else (dx, nothing, nothing)


def _two_lines(parts, size, device):
    """Room for shares of dweight and dbias, (parts, size) each; (None, None) for no parts."""
    if parts == 0:
        return None, None
    return (torch.empty(parts, size, dtype=FLOAT, device=device) for _ in range(2))


# ---- Batch norm ------------------------------------------------------------------------------------------------------


class _Columns:
    """How a batch norm's x stands in memory, and the tiles that follow from it."""

    def __init__(self, x, format):
        self.n, self.channels = x.shape[:2]
        self.positions = x.numel() // (self.n * self.channels)
        self.last = self.positions == 1 or format is not torch.contiguous_format
        if self.last:
            self.lines, self.width = self.n * self.positions, self.channels
        else:
            self.lines, self.width = self.n * self.channels, self.positions
        block = min(plan.power_of_two(self.width), plan.TILE)
        self.map_tile = plan.TILE // block, block

    def pools(self, device):
        """(tile, grid) of the kernels that go over whole pools."""
        if self.last:
            across = min(plan.power_of_two(self.channels), 2 * plan.LANES)
            tile, others = (plan.TILE // across, across), triton.cdiv(self.channels, across)
            blocks = triton.cdiv(self.lines, tile[0])
        else:
            across = min(plan.power_of_two(self.positions), plan.TILE)
            tile, others = (plan.TILE // across, across), self.channels
            blocks = triton.cdiv(self.n, tile[0]) * triton.cdiv(self.positions, across)
        return tile, (others, min(plan.split(blocks, others, device), plan.MOST_PARTS))

    def map_grid(self):
        tile, block = self.map_tile
        return (triton.cdiv(self.lines, tile) * triton.cdiv(self.width, block),)


def _options(tile, each=16):
    return {"ROWS": tile[0], "BLOCK": tile[1], "num_warps": plan.warps(math.prod(tile), each)}


def batch_norm_out(x, weight, bias, means, variances, eps, *, out):
    channels = x.shape[1]
    if means is not None:
        statistics = torch.cat((means.to(FLOAT), variances.to(FLOAT)))
    else:
        statistics = torch.empty(2 * channels, dtype=FLOAT, device=x.device)
    if x.numel() == 0:
        return statistics
    format = memory_format(x)
    x, weight, bias = x.contiguous(memory_format=format), _vector(weight), _vector(bias)
    shape = _Columns(x, format)
    if means is None:
        tile, grid = shape.pools(x.device)
        parts = torch.empty(3, grid[1], channels, dtype=FLOAT, device=x.device)
        columns.pool_statistics[grid](x, parts, shape.n, channels, shape.positions, LAST=shape.last, **_options(tile))
        merged = plan.power_of_two(grid[1]), plan.LANES
        columns.merge_statistics[(triton.cdiv(channels, plan.LANES),)](
            parts,
            statistics,
            grid[1],
            channels,
            x.numel() // channels,
            PARTS=merged[0],
            BLOCK=merged[1],
            num_warps=plan.warps(math.prod(merged)),
        )
    target = out if out.stride() == x.stride() else torch.empty_like(x, memory_format=format)
    sizes = shape.lines, shape.width, channels
    columns.normalize[shape.map_grid()](
        x, target, weight, bias, statistics, *sizes, eps, LAST=shape.last, **_options(shape.map_tile, each=8)
    )
    if target is not out:
        out.copy_(target)
    return statistics


def batch_norm_forward(x, weight, bias, means, variances, eps):
    y = torch.empty_like(x, memory_format=memory_format(x))
    return y, batch_norm_out(x, weight, bias, means, variances, eps, out=y)


def batch_norm_backward(dy, x, weight, statistics, eps, training, want_x, want_weight):
    format, channels = memory_format(x), x.shape[1]
    dx = torch.empty_like(x, memory_format=format) if want_x else x.new_empty(0)
    if x.numel() == 0:
        return dx, *_no_gradients(x, channels if want_weight else 0)
    dy, x, weight = dy.contiguous(memory_format=format), x.contiguous(memory_format=format), _vector(weight)
    shape = _Columns(x, format)
    dweight = dbias = torch.empty(0, dtype=FLOAT, device=x.device)
    if want_weight or (want_x and training):
        tile, grid = shape.pools(x.device)
        dweight, dbias = _two_lines(grid[1], channels, x.device)
        sizes = shape.n, channels, shape.positions
        columns.pool_sums[grid](dy, x, statistics, dweight, dbias, *sizes, eps, LAST=shape.last, **_options(tile))
        dweight, dbias = _summed(dweight), _summed(dbias)
    if want_x:
        columns.normalize_backward[shape.map_grid()](
            dy,
            x,
            dx,
            weight,
            statistics,
            dweight,
            dbias,
            shape.lines,
            shape.width,
            channels,
            x.numel() // channels,
            eps,
            TRAINING=training,
            LAST=shape.last,
            **_options(shape.map_tile, each=8),
        )
    return (dx, dweight, dbias) if want_weight else (dx, dweight[:0], dbias[:0])


def move(running_mean, running_var, statistics, momentum, unbiased):
    """Move running statistics, each contiguous, toward `statistics`, in place."""
    channels = running_mean.numel()
    block = min(plan.power_of_two(channels), 1024)
    columns.move[(triton.cdiv(channels, block),)](
        running_mean, running_var, statistics, channels, momentum, unbiased, BLOCK=block, num_warps=plan.warps(block)
    )


# ---- Softmax and log-softmax -----------------------------------------------------------------------------------------


def _softmax_columns(kernel, tensors, stride, outer, length, inner, log, limit):
    """A kernel of columns on `tensors`; rows that no program can hold have inner = 1."""
    if inner == 1:
        whole, tile = False, (plan.CHUNK, 1)
    else:
        tile = plan.columns(length, limit)
        whole = tile[0] >= length
        tile = tile if whole else (plan.CHUNK // plan.LANES, plan.LANES)
    kernel[(outer * triton.cdiv(inner, tile[1]),)](
        *tensors,
        stride,
        length,
        inner,
        LOG=log,
        WHOLE=whole,
        BLOCK=tile[0],
        INNER=tile[1],
        num_warps=plan.warps(math.prod(tile)),
    )


def softmax_out(x, dim, log, *, out):
    if x.numel() == 0:
        return
    outer, length, inner = around(x, dim)
    target = _written_to(out)
    if inner > 1:
        x = x.contiguous()
        tensors, stride = (x, target), length * inner
        _softmax_columns(softmax.softmax_columns, tensors, stride, outer, length, inner, log, plan.ONE_PASS_COLUMNS)
    else:
        x = _as_rows(x, length)
        if length <= plan.ONE_PASS:
            tile, block = plan.rows(length)
            softmax.softmax_rows[(triton.cdiv(outer, tile),)](
                x, target, _stride(x), outer, length, LOG=log, **_options((tile, block))
            )
        else:
            _softmax_columns(softmax.softmax_columns, (x, target), _stride(x), outer, length, 1, log, 0)
    if target is not out:
        out.copy_(target)


def softmax_forward(x, dim, log):
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    softmax_out(x, dim, log, out=y)
    return y


def softmax_backward(dy, y, dim, log):
    dx = torch.empty_like(y, memory_format=torch.contiguous_format)
    if y.numel() == 0:
        return dx
    outer, length, inner = around(y, dim)
    y, kernel = y.contiguous(), softmax.softmax_columns_backward
    if inner > 1:
        dy = dy.contiguous()
        _softmax_columns(kernel, (dy, y, dx), length * inner, outer, length, inner, log, plan.ONE_PASS_COLUMNS_BACKWARD)
    else:
        dy = _as_rows(dy, length)
        if length <= plan.ONE_PASS_BACKWARD:
            tile, block = plan.rows(length)
            softmax.softmax_rows_backward[(triton.cdiv(outer, tile),)](
                dy, y, dx, _stride(dy), outer, length, LOG=log, **_options((tile, block))
            )
        else:
            _softmax_columns(kernel, (dy, y, dx), _stride(dy), outer, length, 1, log, 0)
    return dx


# ---- Cross entropy ---------------------------------------------------------------------------------------------------


def _logits(x):
    """x (N, C, positions...) with its positions side by side; its stride from example to example; and
    (examples, classes, positions)."""
    outer, classes = x.shape[:2]
    inner = math.prod(x.shape[2:])
    x = _as_rows(x, classes) if inner == 1 else x.contiguous()
    return x, x.stride(0) if outer > 1 else classes * inner, (outer, classes, inner)


def _loss_tile(classes, inner):
    """(targets a program, classes a step)."""
    if inner > 1:
        return plan.columns(classes, plan.CHUNK)[::-1]
    block = min(plan.power_of_two(classes), plan.CHUNK)
    return max(plan.TILE // block, 1), block


def _programs(outer, inner, tile):
    """Programs for all targets, `tile` each."""
    return outer * triton.cdiv(inner, tile) if inner > 1 else triton.cdiv(outer, tile)


def cross_entropy_forward(x, target, weight, reduction, ignore_index, label_smoothing):
    x_shape, dtype, device = x.shape, x.dtype, x.device
    x, stride, (outer, classes, inner) = _logits(x)
    target, weight, n = target.contiguous(), _vector(weight), outer * inner
    wide = torch.empty(2, n, dtype=FLOAT, device=device)
    saved = torch.empty(2 * n + 1, dtype=FLOAT, device=device)
    tile, block = _loss_tile(classes, inner)
    loss.cross_entropy[(_programs(outer, inner, tile),)](
        x,
        target,
        weight,
        wide[0],
        wide[1],
        saved,
        saved[n:],
        stride,
        n,
        classes,
        inner,
        ignore_index,
        label_smoothing,
        SMOOTH=label_smoothing > 0,
        COLUMNS=inner > 1,
        **_options((tile, block)),
    )
    if reduction < 0:
        saved[2 * n :] = 1
        return wide[0].to(dtype).view(x_shape[:1] + x_shape[2:]), saved
    blocks = triton.cdiv(n, plan.CHUNK)
    sums = torch.empty(2, blocks, dtype=FLOAT, device=device)
    answer = torch.empty((), dtype=dtype, device=device)
    loss.sum_blocks[(blocks,)](wide[0], wide[1], sums, n, BLOCK=plan.CHUNK, num_warps=plan.warps(plan.CHUNK))
    loss.reduce[(1,)](
        sums, answer, saved[2 * n :], blocks, MEAN=reduction == 1, BLOCK=plan.TILE, num_warps=plan.warps(plan.TILE)
    )
    return answer, saved


def cross_entropy_backward(dloss, x, target, weight, saved, ignore_index, label_smoothing):
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    x, stride, (outer, classes, inner) = _logits(x)
    n = outer * inner
    target, weight = target.contiguous(), _vector(weight)
    all_weights = None
    if label_smoothing > 0:
        all_weights = torch.full((), float(classes), device=x.device) if weight is None else weight.sum(dtype=FLOAT)
    tile, block = _loss_tile(classes, inner)
    loss.cross_entropy_backward[_programs(outer, inner, tile), triton.cdiv(classes, block)](
        dloss.contiguous(),
        x,
        target,
        weight,
        dx,
        saved,
        saved[n:],
        saved[2 * n :],
        all_weights,
        stride,
        int(dloss.numel() > 1),
        n,
        classes,
        inner,
        ignore_index,
        label_smoothing,
        SMOOTH=label_smoothing > 0,
        COLUMNS=inner > 1,
        **_options((tile, block)),
    )
    return dx
