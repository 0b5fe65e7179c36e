"""Cross entropy of logits x (outer, classes, inner) and targets (outer, inner), class indices; never a probability is
written. Logits (N, classes) have inner = 1. Where it is more (COLUMNS), neighbors in memory belong to different
targets, and a program takes ROWS of them side by side.

Maximum and normalizer of each target are kept for the backward, which needs no sum then: it looks at each logit once.
"""

import triton
import triton.language as tl

from normlab.cuda.softmax import finite, grown, merged


@triton.jit
def targets_of(program, targets, inner, COLUMNS: tl.constexpr, ROWS: tl.constexpr):
    """(outer index, position, whether there is such a target) of a program's ROWS targets."""
    if COLUMNS:
        tiles = tl.cdiv(inner, ROWS)
        position = (program % tiles) * ROWS + tl.arange(0, ROWS)[:, None]
        return (program // tiles).to(tl.int64) + tl.zeros((ROWS, 1), tl.int64), position, position < inner
    else:
        row = program.to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
        return row, tl.zeros((ROWS, 1), tl.int32), row < targets


@triton.jit
def cross_entropy(
    x_ptr,
    target_ptr,
    weight_ptr,
    loss_ptr,
    share_ptr,
    top_ptr,
    normalizer_ptr,
    x_stride,
    targets,
    classes,
    inner,
    ignore_index,
    smoothing,
    SMOOTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """loss = (1 - s) w_t (lse - x_t) + s / K sum w_k (lse - x_k)  [eq-cross-entropy], ROWS targets a program; share =
    w_t, what the mean divides by. Both 0 where the target is ignored, loss NaN where it is no class. x is read once.
    """
    outer, position, there = targets_of(tl.program_id(0), targets, inner, COLUMNS, ROWS)
    index = outer * inner + position
    x_ptr += outer * x_stride + position
    top = tl.full((ROWS, BLOCK), float("-inf"), tl.float32)
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    # For smoothing each lane keeps the sum of its weights, and that of w (maximum - x).
    weights = tl.zeros((ROWS, BLOCK), tl.float32)
    below = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, classes, BLOCK):
        k = start + tl.arange(0, BLOCK)[None, :]
        inside = there & (k < classes)
        x = tl.load(x_ptr + k.to(tl.int64) * inner, mask=inside, other=float("-inf")).to(tl.float32)
        before = top
        top, total = grown(top, total, x)
        if SMOOTH:
            w = 1.0
            if weight_ptr is not None:
                w = tl.load(weight_ptr + k, mask=k < classes, other=0.0).to(tl.float32)
            below += weights * (finite(top) - finite(before)) + tl.where(inside, w * (finite(top) - x), 0.0)
            weights += tl.where(inside, w, 0.0)
    highest, normalizer = merged(top, total, 1)
    tl.store(top_ptr + index, highest, mask=there)
    tl.store(normalizer_ptr + index, normalizer, mask=there)
    log = tl.log(normalizer)  # lse = highest + log; but far from zero lse - x would be rounded twice

    target = tl.load(target_ptr + index, mask=there, other=0)
    kept = there & (target != ignore_index)
    a_class = kept & (target >= 0) & (target < classes)
    x_target = tl.load(x_ptr + target * inner, mask=a_class, other=float("nan")).to(tl.float32)
    share = tl.full((ROWS, 1), 1.0, tl.float32)
    if weight_ptr is not None:
        share = tl.load(weight_ptr + target, mask=a_class, other=0.0).to(tl.float32)
    loss = share * (highest - x_target + log)
    if SMOOTH:
        below += weights * (finite(highest) - finite(top))
        evenly = tl.sum(below, axis=1, keep_dims=True) + tl.sum(weights, axis=1, keep_dims=True) * log
        loss = (1 - smoothing) * loss + smoothing / classes * evenly
    tl.store(loss_ptr + index, tl.where(kept, loss, 0.0), mask=there)
    tl.store(share_ptr + index, tl.where(kept, share, 0.0), mask=there)


@triton.jit
def cross_entropy_backward(
    dloss_ptr,
    x_ptr,
    target_ptr,
    weight_ptr,
    dx_ptr,
    top_ptr,
    normalizer_ptr,
    total_ptr,
    all_weights_ptr,
    x_stride,
    dloss_stride,
    targets,
    classes,
    inner,
    ignore_index,
    smoothing,
    SMOOTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dx = dloss / total ((1 - s) w_t (p - onehot) + s / K (p sum(w) - w))  [eq-cross-entropy-backward].

    dloss_stride is 0 where there is one dloss for all targets; all_weights_ptr has sum(w), for smoothing.
    """
    outer, position, there = targets_of(tl.program_id(0), targets, inner, COLUMNS, ROWS)
    index = outer * inner + position
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = there & (k < classes)
    x = tl.load(x_ptr + outer * x_stride + k.to(tl.int64) * inner + position, mask=inside, other=0.0).to(tl.float32)
    top = tl.load(top_ptr + index, mask=there, other=0.0)
    p = tl.exp(x - top) / tl.load(normalizer_ptr + index, mask=there, other=1.0)
    target = tl.load(target_ptr + index, mask=there, other=0)
    kept = there & (target != ignore_index)
    a_class = kept & (target >= 0) & (target < classes)
    dloss = tl.load(dloss_ptr + index * dloss_stride, mask=there, other=0.0).to(tl.float32) / tl.load(total_ptr)
    share = tl.full((ROWS, 1), 1.0, tl.float32)
    if weight_ptr is not None:
        share = tl.load(weight_ptr + target, mask=a_class, other=0.0).to(tl.float32)
    dx = share * (p - tl.where(k == target, 1.0, 0.0))
    if SMOOTH:
        w = 1.0
        if weight_ptr is not None:
            w = tl.load(weight_ptr + k, mask=k < classes, other=0.0).to(tl.float32)
        dx = (1 - smoothing) * dx + smoothing / classes * (p * tl.load(all_weights_ptr) - w)
    # An ignored target gives 0 times something, which is NaN where PyTorch's is; one that is no class gives NaN.
    scale = tl.where(kept, tl.where(a_class, dloss, float("nan")), 0.0)
    tl.store(dx_ptr + (outer * classes + k) * inner + position, dx * scale, mask=inside)


@triton.jit
def sum_blocks(losses_ptr, shares_ptr, sums_ptr, n, BLOCK: tl.constexpr):
    """Sums of `n` losses and of their shares, BLOCK by BLOCK: sums (2, programs)."""
    block = tl.program_id(0).to(tl.int64)
    place = block * BLOCK + tl.arange(0, BLOCK)
    tl.store(sums_ptr + block, tl.sum(tl.load(losses_ptr + place, mask=place < n, other=0.0)))
    tl.store(sums_ptr + tl.num_programs(0) + block, tl.sum(tl.load(shares_ptr + place, mask=place < n, other=0.0)))


@triton.jit
def reduce(sums_ptr, loss_ptr, total_ptr, blocks, MEAN: tl.constexpr, BLOCK: tl.constexpr):
    """The loss of all targets, and what their sum was divided by."""
    loss, share = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, blocks, BLOCK):
        place = start + tl.arange(0, BLOCK)
        loss += tl.load(sums_ptr + place, mask=place < blocks, other=0.0)
        share += tl.load(sums_ptr + blocks + place, mask=place < blocks, other=0.0)
    total = tl.sum(share) if MEAN else 1.0
    tl.store(loss_ptr, tl.sum(loss) / total)
    tl.store(total_ptr, total)
