"""masked_softmax, online_softmax and attention: truths, cases and known mistakes of the chapter `attention`."""

import itertools

import numpy as np

from normlab.cases import LARGE, Case, along_axis, sizes, uneven, view
from normlab.drive import streams
from normlab.frame import Exercise, mistakes_table, with_switches
from normlab.guard import MUTATES_INPUT

_INF = float("inf")


# ---- how streams are handed over, and what is held meanwhile ---------------------------------------------------------


# ---- truths ----------------------------------------------------------------------------------------------------------


def _torch_masked_softmax(torch, x, mask, axis=-1):
    mask = mask.expand(x.shape)
    p = torch.softmax(torch.where(mask, x, -_INF), dim=axis)
    return torch.where(mask.any(dim=axis, keepdim=True), p, 0.0)


def _masked_softmax(x, mask, axis=-1):
    kept = np.where(mask, x, x.dtype.type(-_INF))
    top = kept.max(axis, keepdims=True)
    e = np.exp(kept - np.where(np.isneginf(top), x.dtype.type(0), top))
    total = e.sum(axis, keepdims=True)
    return e / np.where(total == 0, x.dtype.type(1), total)


def _torch_online(torch, chunks):
    if not sum(chunk.numel() for chunk in chunks):
        return -_INF, 0.0
    x = torch.cat(chunks)
    top = x.max()
    return top, torch.exp(x - top).sum() if top > -_INF else 0.0


def _online(chunks):
    if not sum(chunk.size for chunk in chunks):
        return -_INF, 0.0
    x = np.concatenate(chunks)
    top = x.max()
    return float(top), float(np.exp(x - top).sum()) if top > -_INF else 0.0


def _torch_attention(torch, q, key_value_blocks, scale, mask_blocks=None):
    k, v = (torch.cat(parts) for parts in zip(*key_value_blocks, strict=True))
    mask = None if mask_blocks is None else torch.cat(mask_blocks, dim=1)
    attended = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], mask, scale=scale)[0]
    # Before version 2.5 a query without a key came out as NaN.
    return attended if mask is None else torch.where(mask.any(dim=1, keepdim=True), attended, 0.0)


def _attention(q, key_value_blocks, scale, mask_blocks=None):
    k, v = (np.concatenate(parts) for parts in zip(*key_value_blocks, strict=True))
    scores = q @ k.T * q.dtype.type(scale)
    mask = np.ones(scores.shape, bool) if mask_blocks is None else np.concatenate(mask_blocks, axis=1)
    return _masked_softmax(scores, mask) @ v


# ---- cases of masked_softmax -----------------------------------------------------------------------------------------


def _mask(rng, shape, axis=-1):
    """Both True and False, with a True in every slice along `axis`, never one thing everywhere."""
    mask = rng.random(shape) < 0.6
    some = np.moveaxis(mask, axis, -1)
    for where in np.ndindex(some.shape[:-1]):
        keep, drop = rng.choice(some.shape[-1], 2, replace=False)
        some[where][keep], some[where][drop] = True, False
    return mask


def _masked(case):
    """The case with a mask of the shape of x."""

    def draw(rng):
        (x,), options = case.draw(rng)
        return (x, _mask(rng, x.shape, options.get("axis", -1))), options

    return Case(case.name, case.part, case.kind.replace("(last axis)", "with a mask (last axis)"), draw)


_ZEROS = "a slice with nothing kept has no weights to give: zeros"
_IGNORED = "what stands at a masked place does not matter"


def _masked_softmax_cases():
    shapes = {name: _masked(case) for name, case in along_axis().items()}

    def all_kept(rng):
        x = uneven(rng, sizes(rng, 2))
        return (x, np.ones(x.shape, bool)), {}

    def causal(rng):
        n = int(rng.integers(4, 8))
        return (uneven(rng, (n, n)), np.tri(n, dtype=bool)), {}

    def padding(rng):
        batch, queries, keys = sizes(rng, 3)
        return (uneven(rng, (batch, queries, keys)), _mask(rng, (batch, 1, keys))), {}

    def row(rng):
        x = uneven(rng, sizes(rng, 2))
        return (x, _mask(rng, x.shape[1:])), {}

    def large(scale, dtype=np.float64):
        def draw(rng):
            x = uneven(rng, sizes(rng, 2), dtype=dtype)
            return (x + dtype(scale), _mask(rng, x.shape)), {}

        return draw

    def rows_apart(rng):
        x = uneven(rng, sizes(rng, 2))
        return (x + np.arange(len(x))[:, None] * 1000.0, _mask(rng, x.shape)), {}

    def hidden_peak(rng):
        x = uneven(rng, sizes(rng, 2))
        mask = _mask(rng, x.shape)
        return (np.where(mask, x, x + 1e4), mask), {}

    def far_below(rng):
        x = uneven(rng, sizes(rng, 2)) - 2000.0
        mask = _mask(rng, x.shape)
        return (np.where(mask, x, x + 2000), mask), {}

    def half(rng):
        x = rng.uniform(11.5, 15, (4, int(rng.integers(30, 50)))).astype(np.float16)
        return (x, _mask(rng, x.shape)), {}

    def half_long(rng):
        x = rng.uniform(-0.5, 0, (1, int(rng.integers(70_000, 80_000)))).astype(np.float16)
        return (x, rng.random(x.shape) < 0.98), {}

    def half_empty(rng):
        x = uneven(rng, sizes(rng, 2, 4, 8), dtype=np.float16)
        mask = _mask(rng, x.shape)
        mask[int(rng.integers(len(x)))] = False
        return (x, mask), {}

    def minus_inf(rng):
        x = uneven(rng, sizes(rng, 2, 4, 8))
        mask = _mask(rng, x.shape)
        mask[0, :2], mask[1, :3] = True, True
        x[0, 1] = x[1, 2] = -_INF
        return (x, mask), {}

    def empty_row(rng):
        x = uneven(rng, sizes(rng, 2, 4, 8))
        mask = _mask(rng, x.shape)
        mask[int(rng.integers(len(x)))] = False
        return (x, mask), {}

    def empty_column(rng):
        x = uneven(rng, sizes(rng, 2, 4, 8))
        mask = _mask(rng, x.shape, 0)
        mask[:, int(rng.integers(x.shape[1]))] = False
        return (x, mask), {"axis": 0}

    def nothing_kept(rng):
        x = uneven(rng, sizes(rng, 2))
        return (x, np.zeros(x.shape, bool)), {}

    def garbage(rng):
        x = uneven(rng, sizes(rng, 2, 4, 8))
        mask = _mask(rng, x.shape)
        mask[2] = False
        x[~mask] = rng.choice([np.nan, _INF, -_INF], int((~mask).sum()))
        x[2, :3] = np.nan, _INF, -_INF
        return (x, mask), {}

    def with_nan(rng):
        x = uneven(rng, sizes(rng, 2, 4, 8))
        mask = _mask(rng, x.shape)
        mask[1] = True
        x[1, 1] = np.nan
        return (x, mask), {}

    far = "the answer is that of the same logits moved to 0"
    return (
        *shapes.values(),
        Case("all-kept", "values", "a mask of nothing but True", all_kept, "the answer is the softmax"),
        Case("causal", "values", "a causal mask (a lower triangle)", causal, "each row attends to what came before"),
        Case("row-mask", "values", "a mask of one axis for an array of two", row, "the mask is broadcast to x"),
        Case("padding", "values", "a mask (N, 1, L) for x (N, M, L)", padding, "the mask is broadcast to x"),
        Case("large", "numerics", "logits near 1000, with a mask", large(1000), far, far=True),
        Case("very-negative", "numerics", "logits near -2000, and larger ones masked", far_below, far, far=True),
        Case("rows-apart", "numerics", "rows 1000 apart, with a mask", rows_apart, far, far=True),
        Case("hidden-peak", "numerics", "masked logits far above the kept ones", hidden_peak, _IGNORED, far=True),
        Case("minus-inf", "numerics", "a kept logit of -inf", minus_inf, "it gets weight 0, as a masked one does"),
        Case(
            "float16-large",
            "numerics",
            "float16 logits so large that exp overflows float16",
            half,
            "the answer is computed in float32 and returned in float16",
            far=True,
        ),
        Case(
            "float16-long",
            "numerics",
            "a float16 row so long that the sum of exponentials overflows float16",
            half_long,
            "the sum is taken in float32 and the answer is float16",
        ),
        Case("float16-empty", "numerics", "a float16 row with nothing kept", half_empty, _ZEROS),
        Case("empty-row", "edges", "a row with nothing kept", empty_row, _ZEROS),
        Case("empty-column", "edges", "a column with nothing kept, with axis=0", empty_column, _ZEROS),
        Case("nothing-kept", "edges", "a mask of nothing but False", nothing_kept, _ZEROS),
        Case("garbage", "edges", "NaN and inf at masked places", garbage, _IGNORED),
        Case("nan", "edges", "a NaN at a kept place", with_nan, "its row becomes NaN, so that the fault shows"),
    )


# ---- cases of online_softmax -----------------------------------------------------------------------------------------


def _chunks(rng, lengths, scale=1.0, offset=0.0, dtype=np.float64):
    return [(rng.standard_normal(n) * scale + offset).astype(dtype) for n in lengths]


def _lengths(rng, count=None, low=2, high=9):
    return rng.integers(low, high, int(rng.integers(4, 8)) if count is None else count)


def _apart(rng):
    """Chunks whose maxima are neither sorted nor close, each alone in what its numbers are."""
    return rng.permutation(np.array([0.0, 2.0, -1.5, 3.5, 1.0]))


def _online_cases():
    def some(rng):
        return ([chunk + shift for chunk, shift in zip(_chunks(rng, _lengths(rng, 5)), _apart(rng), strict=True)],), {}

    def one(rng):
        return (_chunks(rng, _lengths(rng, 1, 4, 9)),), {}

    def rising(rng):
        return ([chunk + 2 * i for i, chunk in enumerate(_chunks(rng, _lengths(rng)))],), {}

    def falling(rng):
        return ([chunk - 2 * i for i, chunk in enumerate(_chunks(rng, _lengths(rng)))],), {}

    def negative(rng):
        return ([chunk - 15 for chunk in _chunks(rng, _lengths(rng))],), {}

    def singles(rng):
        return (_chunks(rng, [1] * int(rng.integers(5, 9)), 2.0),), {}

    def float32(rng):
        return (_chunks(rng, _lengths(rng), 2.0, dtype=np.float32),), {}

    def large(offset, dtype=np.float64):
        def draw(rng):
            return (_chunks(rng, _lengths(rng), 2.0, offset, dtype),), {}

        return draw

    def climbing(rng):
        parts = _chunks(rng, _lengths(rng, 4))
        shifts = rng.permutation(np.array([-900.0, 0.0, 800.0, 1000.0]))
        return ([part + shift for part, shift in zip(parts, shifts, strict=True)],), {}

    def half(rng):
        parts = rng.uniform(-0.5, 0, (4, int(rng.integers(30_000, 40_000))))
        return ([part.astype(np.float16) for part in parts],), {}

    def minus_inf(rng):
        parts = _chunks(rng, _lengths(rng, 4, 3, 9))
        for part in parts[1:3]:
            part[rng.integers(len(part))] = -_INF
        return (parts,), {}

    def many(rng):
        # Spread so far that few of them count: in which order the rest is added up does not show.
        return (_chunks(rng, [100] * int(rng.integers(700, 900)), 300.0),), {}

    def hidden(*positions):
        """All -inf in these positions of five chunks."""

        def draw(rng):
            parts = _chunks(rng, _lengths(rng, 5))
            for i in positions:
                parts[i][:] = -_INF
            return (parts,), {}

        return draw

    def only_minus_inf(rng):
        return ([np.full(n, -_INF) for n in _lengths(rng)],), {}

    def empty_chunks(rng):
        parts = _chunks(rng, _lengths(rng, 5))
        parts[2] = parts[2][:0]
        return (parts,), {}

    def empty_first(rng):
        parts = _chunks(rng, _lengths(rng, 4))
        return ([parts[0][:0], *parts[1:]],), {}

    def nothing(rng):
        return ([],), {}

    def only_empty(rng):
        return ([np.zeros(0)] * int(rng.integers(1, 6)),), {}

    far = "the normalizer is that of the same logits moved to 0"
    unseen = "nothing has been added up: (-inf, 0.0)"
    skipped = "a chunk of nothing but -inf changes nothing"
    return (
        Case("some", "values", "chunks of several sizes", some),
        Case("one", "values", "a single chunk", one),
        Case("rising", "values", "chunks that rise", rising),
        Case("falling", "values", "chunks that fall", falling),
        Case("negative", "values", "negative logits", negative),
        Case("singles", "values", "chunks of one logit each", singles),
        Case("float32", "numerics", "float32 chunks", float32),
        Case("large", "numerics", "logits near 1000", large(1000.0), far, far=True),
        Case("very-negative", "numerics", "logits near -1000", large(-1000.0), far, far=True),
        Case("climbing", "numerics", "chunks hundreds apart", climbing, "nothing overflows on the way", far=True),
        Case("float32-large", "numerics", "float32 logits near 100", large(100.0, np.float32), far, far=True),
        Case(
            "float16-long",
            "numerics",
            "float16 chunks so long that the normalizer overflows float16",
            half,
            "float16 is added up in float32 or wider",
        ),
        Case("minus-inf", "numerics", "chunks with a logit of -inf", minus_inf, "it adds nothing"),
        Case(
            "many",
            "numerics",
            "hundreds of chunks",
            many,
            "no more is held than a quarter of what all chunks together take",
            far=True,
        ),
        Case("minus-inf-later", "edges", "a third chunk of nothing but -inf", hidden(2), skipped),
        Case("minus-inf-first", "edges", "a first chunk of nothing but -inf", hidden(0), skipped),
        Case("minus-inf-two", "edges", "two first chunks of nothing but -inf", hidden(0, 1), skipped),
        Case("only-minus-inf", "edges", "nothing but -inf", only_minus_inf, unseen),
        Case("empty-chunk", "edges", "an empty chunk among others", empty_chunks, "an empty chunk changes nothing"),
        Case("empty-first", "edges", "a first chunk that is empty", empty_first, "an empty chunk changes nothing"),
        Case("only-empty", "edges", "nothing but empty chunks", only_empty, unseen),
        Case("no-chunks", "edges", "no chunks at all", nothing, unseen),
    )


# ---- cases of attention ----------------------------------------------------------------------------------------------


def _problem(rng, dtype=np.float64, q_scale=1.0, k_scale=1.0, lengths=None):
    """q, key-value blocks of uneven sizes, scale; all sizes different, the scale unlike 1/sqrt(D)."""
    m, d, e = sizes(rng, 3, 3, 9)
    lengths = _lengths(rng, int(rng.integers(3, 6)), 2, 7) if lengths is None else lengths
    q = (rng.standard_normal((m, d)) * q_scale).astype(dtype)
    blocks = [
        ((rng.standard_normal((n, d)) * k_scale).astype(dtype), uneven(rng, (n, e), dtype=dtype)) for n in lengths
    ]
    return q, blocks, float(rng.uniform(0.55, 0.85))


def _block_masks(rng, q, blocks):
    """One mask a block; every query keeps some key of the first block, and loses some key of each."""
    return [_mask(rng, (len(q), len(k))) for k, _ in blocks]


def _attention_cases():
    def several(**options):
        return lambda rng: (_problem(rng, **options), {})

    def one_block(rng):
        return _problem(rng, lengths=[int(rng.integers(4, 8))]), {}

    def square(rng):
        n = int(rng.integers(4, 7))
        q = rng.standard_normal((n, n))
        blocks = [(rng.standard_normal((n, n)), uneven(rng, (n, n))) for _ in range(3)]
        return (q, blocks, float(rng.uniform(0.55, 0.85))), {}

    def one_query(rng):
        q, blocks, scale = _problem(rng)
        return (q[:1], blocks, scale), {}

    def singles(rng):
        return _problem(rng, lengths=[1] * int(rng.integers(4, 8))), {}

    def large(rng):
        m, d, e, b, last = sizes(rng, 5, *LARGE)
        q = rng.standard_normal((m, d)) / 3
        blocks = [(rng.standard_normal((n, d)) / 3, uneven(rng, (n, e))) for n in (b, last)]
        return (q, blocks, float(rng.uniform(0.55, 0.85))), {"mask_blocks": _block_masks(rng, q, blocks)}

    def masked(dtype=np.float64):
        def draw(rng):
            q, blocks, scale = _problem(rng, dtype)
            return (q, blocks, scale), {"mask_blocks": _block_masks(rng, q, blocks)}

        return draw

    def causal(rng):
        q, blocks, scale = _problem(rng, lengths=[2, 3, 2, 4])
        q = rng.standard_normal((11, q.shape[1]))
        allowed = np.tri(11, dtype=bool)
        edges = np.cumsum([0, 2, 3, 2, 4])
        return (q, blocks, scale), {"mask_blocks": [allowed[:, a:b] for a, b in itertools.pairwise(edges)]}

    def shifted(by, dtype=np.float64):
        """Scores of all keys moved by about `by`, with some spread over queries and keys."""

        def draw(rng):
            q, blocks, scale = _problem(rng, dtype)
            q[:, 0] = 1
            for k, _ in blocks:
                k[:, 0] += dtype(by)
            return (q, blocks, scale), {}

        return draw

    def queries_apart(rng):
        q, blocks, scale = _problem(rng)
        q[:, 0] = np.arange(len(q)) - len(q) // 2
        for k, _ in blocks:
            k[:, 0] = 1500.0
        return (q, blocks, scale), {}

    def half(rng):
        # Scores of a few dozen: exp of them overflows float16, and a quarter of a unit in a score shows in the weights.
        q, blocks, scale = _problem(rng, np.float16, q_scale=4.0, k_scale=3.0)
        return (q, blocks, scale), {"mask_blocks": _block_masks(rng, q, blocks)}

    def half_products(rng):
        def large(*shape):
            return (rng.choice([-1, 1], shape) * rng.integers(250, 350, shape)).astype(np.float16)

        blocks = [(large(n, 64), uneven(rng, (n, 3), dtype=np.float16)) for n in _lengths(rng, 3, 2, 6)]
        return (large(4, 64), blocks, float(rng.uniform(0.5e-5, 1.5e-5))), {}

    def many(rng):
        m, d, e, b = 32, 8, 6, 8
        q = rng.standard_normal((m, d))
        blocks = [
            (rng.standard_normal((b, d)), rng.standard_normal((b, e))) for _ in range(int(rng.integers(240, 280)))
        ]
        return (q, blocks, float(rng.uniform(0.55, 0.85))), {}

    def no_key(dtype=np.float64):
        def draw(rng):
            q, blocks, scale = _problem(rng, dtype)
            masks = _block_masks(rng, q, blocks)
            for row in rng.choice(len(q), 2, replace=False):
                for mask in masks:
                    mask[row] = False
            return (q, blocks, scale), {"mask_blocks": masks}

        return draw

    def masked_block(*positions):
        def draw(rng):
            q, blocks, scale = _problem(rng, lengths=_lengths(rng, 4, 2, 7))
            masks = _block_masks(rng, q, blocks)
            for i in positions:
                masks[i][:-1] = False
            return (q, blocks, scale), {"mask_blocks": masks}

        return draw

    def strided(rng):
        q, blocks, scale = _problem(rng)
        return (
            view(rng, q.shape),
            [(view(rng, k.shape), np.asfortranarray(v)) for k, v in blocks],
            scale,
        ), {}

    far = "only differences of scores count: nothing overflows"
    zeros = "a query without a key has nothing to average: zeros"
    later = "a block in which a query keeps nothing changes nothing for that query"
    return (
        Case("several", "values", "several blocks of different sizes", several()),
        Case("one-block", "values", "a single block", one_block),
        Case("square", "values", "blocks in which M, B, D and E are all equal", square),
        Case("one-query", "values", "a single query", one_query),
        Case("masked", "values", "blocks with masks", masked()),
        Case("causal", "values", "a causal mask in blocks", causal),
        Case("float32", "numerics", "float32 arrays with masks", masked(np.float32)),
        Case("large", "numerics", "scores near 1500", shifted(2000.0), far, far=True),
        Case("very-negative", "numerics", "scores near -1500", shifted(-2000.0), far, far=True),
        Case(
            "queries-apart",
            "numerics",
            "queries whose scores are 1000 apart",
            queries_apart,
            "each query has a maximum of its own",
            far=True,
        ),
        Case("float32-large", "numerics", "float32 scores near 150", shifted(200.0, np.float32), far, far=True),
        Case(
            "float16",
            "numerics",
            "float16 arrays with large scores and masks",
            half,
            "the answer is computed in float32 and returned in float16",
            far=True,
        ),
        Case(
            "many",
            "numerics",
            "hundreds of small blocks",
            many,
            "no more is held than a quarter of what the score matrix takes",
        ),
        Case(
            "float16-products",
            "numerics",
            "float16 queries and keys whose products overflow float16",
            half_products,
            "the products are taken in float32, before scale makes them small again",
        ),
        Case("no-key", "edges", "queries that may attend to no key", no_key(), zeros),
        Case("no-key-float16", "edges", "float16 queries that may attend to no key", no_key(np.float16), zeros),
        Case("masked-first", "edges", "a first block that most queries may not see", masked_block(0), later),
        Case("masked-later", "edges", "later blocks that most queries may not see", masked_block(1, 3), later),
        Case("singles", "edges", "blocks of a single key", singles),
        Case("strided", "edges", "views with strides, not contiguous in memory", strided),
        Case("large-array", "edges", "dozens of queries, keys and features, with masks", large),
    )


EXERCISES = (
    Exercise(
        name="masked_softmax",
        stem="attention",
        expect="the kept logits of every slice share a weight of 1 by softmax, and the masked ones get 0",
        signature_of=_masked_softmax,
        torch_truth=_torch_masked_softmax,
        numpy_truth=_masked_softmax,
        cases=_masked_softmax_cases(),
    ),
    Exercise(
        name="online_softmax",
        stem="attention",
        expect="the answer is (maximum, normalizer) of all chunks together",
        signature_of=_online,
        torch_truth=_torch_online,
        numpy_truth=_online,
        cases=_online_cases(),
        core=True,
        returns=(("maximum", "float"), ("normalizer", "float")),
        drive=streams.online_softmax,
    ),
    Exercise(
        name="attention",
        stem="attention",
        expect="each query gets the average of all values, weighted by the softmax of scale * (query . key)",
        signature_of=_attention,
        torch_truth=_torch_attention,
        numpy_truth=_attention,
        cases=_attention_cases(),
        drive=streams.attention,
    ),
)


# ---- known mistakes --------------------------------------------------------------------------------------------------

MISTAKES, add = mistakes_table()


def _wide(x, dtype=None):
    return x.astype(np.promote_types(x.dtype, np.float32) if dtype is None else dtype)


def _keep(x, mask, fill):
    return np.where(mask, x, x.dtype.type(fill))


def _softmax_of_kept(
    x,
    mask,
    axis=-1,
    fill=-_INF,
    invert=False,
    shift=lambda kept, x, a: kept.max(a, keepdims=True),
    guard=True,
    total=lambda e, a: e.sum(a, keepdims=True),
    empty=0.0,
    clear=False,
    dtype=None,
    over=lambda a: a,
    after=None,
):
    w, axis = _wide(x, dtype), over(axis)
    mask = np.broadcast_to(~mask if invert else mask, x.shape)
    with np.errstate(over="ignore"):
        kept = _keep(w, mask, fill)
    top = shift(kept, w, axis)
    e = np.exp(kept - (np.where(np.isneginf(top), w.dtype.type(0), top) if guard else top))
    if clear:
        e = _keep(e, mask, 0)
    sums = total(e, axis)
    if guard:
        p = np.where(sums == 0, w.dtype.type(empty), e / sums)
        if empty:
            p = p / np.where(sums == 0, w.dtype.type(x.shape[axis]), w.dtype.type(1))
    else:
        p = e / sums
    return (after(p, mask) if after else p).astype(x.dtype)


def _times_mask(x, mask, axis=-1, renormalize=False):
    """The softmax of everything, multiplied by the mask."""
    w = _wide(x)
    e = np.exp(w - w.max(axis, keepdims=True))
    p = e / e.sum(axis, keepdims=True) * mask
    if renormalize:
        total = p.sum(axis, keepdims=True)
        p = p / np.where(total == 0, w.dtype.type(1), total)
    return p.astype(x.dtype)


def _adds_the_mask(x, mask, axis=-1):
    w = _wide(x) + mask
    e = np.exp(w - w.max(axis, keepdims=True))
    return (e / e.sum(axis, keepdims=True)).astype(x.dtype)


def _adds_minus_inf(x, mask, axis=-1):
    """x + 0 or -inf, as a mask that is added: NaN and +inf stay."""
    w = _wide(x)
    return _softmax_of_kept(w + np.where(mask, 0, -_INF).astype(w.dtype), np.array(True), axis).astype(x.dtype)


def _needs_full_mask(x, mask, axis=-1):
    kept = _wide(x)
    kept[~mask] = -_INF  # an IndexError where the mask is to be broadcast
    return _softmax_of_kept(kept, np.ones(x.shape, bool), axis).astype(x.dtype)


_masked_name = "masked_softmax"
add(
    _masked_name,
    "mask-inverted",
    "keeps what is masked and masks what is kept: here True means keep",
    with_switches(_softmax_of_kept, invert=True),
    with_switches(_softmax_of_kept, invert=True, guard=False),
    with_switches(_softmax_of_kept, invert=True, guard=False, fill=-1e9),
)
add(
    _masked_name,
    "mask-ignored",
    "does not use the mask: masked places get weight 0",
    lambda x, mask, axis=-1: _softmax_of_kept(x, np.ones_like(mask), axis),
)
add(
    _masked_name,
    "nan-rows",
    "leaves NaN where nothing is kept, from -inf - (-inf) or 0/0: such a slice gets zeros",
    with_switches(_softmax_of_kept, guard=False),
    with_switches(
        _softmax_of_kept,
        guard=False,
        clear=True,
        shift=lambda kept, x, a: np.nan_to_num(kept.max(a, keepdims=True), neginf=0),
    ),
)
add(
    _masked_name,
    "uniform-rows",
    "gives equal weights where nothing is kept, so that masked places leak: such a slice gets zeros",
    with_switches(_softmax_of_kept, empty=1.0),
    with_switches(_softmax_of_kept, guard=False, fill=-1e9, dtype=np.float64),
    with_switches(_softmax_of_kept, guard=False, fill=-1e9),
    with_switches(_softmax_of_kept, guard=False, fill=-1e30),
    with_switches(_softmax_of_kept, guard=False, fill=np.finfo(np.float32).min),
)
add(
    _masked_name,
    "not-negative-enough",
    "fills masked places with a number that kept logits can lie below: only -inf is below all of them",
    *(
        with_switches(_softmax_of_kept, guard=False, fill=fill, dtype=d)
        for fill in (-1e3, -100.0, -50.0)
        for d in (None, np.float64)
    ),
    *(with_switches(_softmax_of_kept, guard=False, fill=fill, clear=True) for fill in (-1e3, -100.0)),
)
add(
    _masked_name,
    "half-fill",
    "computes in float16, where -1e9 is -inf and sums of exponentials overflow: "
    "compute in float32 and cast once at the end",
    with_switches(_softmax_of_kept, guard=False, fill=-1e9, dtype=np.float16),
    noisy=True,
)
add(
    _masked_name,
    "fills-with-zero",
    "sets masked logits to 0, and exp(0) is 1: -inf is what gets weight 0",
    with_switches(_softmax_of_kept, fill=0.0, guard=False),
    lambda x, mask, axis=-1: _softmax_of_kept(x * mask, np.array(True), axis, guard=False),
)
add(
    _masked_name,
    "masks-after-softmax",
    "masks after the softmax, so that what is left adds up to less than 1: mask the logits before",
    _times_mask,
    lambda x, mask, axis=-1: np.where(mask, _times_mask(x, np.array(True), axis), x.dtype.type(0)),
)
add(
    _masked_name,
    "renormalizes-after-softmax",
    "computes the softmax with the masked logits in it, which can push the kept ones to 0: "
    "take the maximum of the kept ones",
    with_switches(_times_mask, renormalize=True),
    with_switches(_softmax_of_kept, shift=lambda kept, x, a: x.max(a, keepdims=True), clear=True),
    with_switches(_softmax_of_kept, shift=lambda kept, x, a: x.max(a, keepdims=True), guard=False),
)
add(
    _masked_name,
    "adds-the-mask",
    "adds True and False to the logits, which count as 1 and 0: what is added is 0 and -inf",
    _adds_the_mask,
)
add(
    _masked_name,
    "garbage-leaks",
    "adds -inf to what is masked, and NaN stays NaN, and inf - inf becomes it: choose with np.where",
    _adds_minus_inf,
)
add(
    _masked_name,
    "mask-not-broadcast",
    "indexes with the mask, which fails where its shape is not that of x: broadcast it first",
    _needs_full_mask,
)
add(
    _masked_name,
    "no-maximum",
    "takes no maximum out before exp, which overflows (or leaves 0/0): subtract the maximum of each slice",
    *(with_switches(_softmax_of_kept, shift=lambda kept, x, a: x.dtype.type(0), dtype=d) for d in (None, np.float64)),
    *(
        with_switches(_softmax_of_kept, shift=lambda kept, x, a: x.dtype.type(0), dtype=d, guard=False)
        for d in (None, np.float64)
    ),
)
add(
    _masked_name,
    "global-maximum",
    "subtracts one maximum for the whole array, so that slices far below it vanish: each slice has its own",
    with_switches(_softmax_of_kept, shift=lambda kept, x, a: kept.max()),
    with_switches(_softmax_of_kept, shift=lambda kept, x, a: kept.max(), guard=False),
)
add(
    _masked_name,
    "sums-over-everything",
    "divides by the sum over the whole array: each slice along the axis adds up to 1 by itself",
    with_switches(_softmax_of_kept, total=lambda e, a: e.sum()),
)
add(
    _masked_name,
    "fixed-axis",
    "ignores axis and always takes the last one",
    with_switches(_softmax_of_kept, over=lambda a: -1),
)
add(
    _masked_name,
    "axis-0",
    "ignores axis and always takes the first one",
    with_switches(_softmax_of_kept, over=lambda a: 0),
)
add(
    _masked_name,
    "nan-to-num",
    "replaces NaN by 0: a NaN at a kept place is to show, so treat the empty slices alone",
    lambda x, mask, axis=-1: np.nan_to_num(_softmax_of_kept(x, mask, axis, guard=False)),
)
add(
    _masked_name,
    MUTATES_INPUT,
    "changes its input: work on a copy",
    lambda x, mask, axis=-1: (np.copyto(x, 0.5, where=~mask), x.fill(0.5), _softmax_of_kept(x, mask, axis))[2],
)
add(
    _masked_name,
    "always-float64",
    "returns float64 always: the answer keeps the dtype of the input",
    lambda x, mask, axis=-1: _softmax_of_kept(x, mask, axis).astype(np.float64),
)


def _merge_chunks(
    chunks,
    start=(-_INF, 0.0),
    factor=lambda old, new: np.exp(old - new) if old > -_INF else 0.0,
    new_top=lambda old, own: max(old, own),
    shift=lambda new, own: new,
    guard=True,
    reduce=np.sum,
    dtype=None,
    finish=lambda top, total, count: (top, total),
    biggest=lambda w: w.max(initial=-_INF),
    at_first=None,
):
    top, total = start
    count = 0
    for chunk in chunks:
        w = _wide(chunk, np.float64 if dtype is None else dtype)
        own = float(biggest(w))
        new = new_top(top, own)
        if guard and new == -_INF:
            continue
        by = 1.0 if at_first is not None and not count else factor(top, new)
        total = total * by + float(reduce(np.exp(w - w.dtype.type(shift(new, own)))))
        top = new
        count += w.size
    top, total = finish(top, total, count)
    return float(top), float(total)


def _plain_factor(old, new):
    return float(np.exp(np.float64(old) - np.float64(new)))


def _keeps_all_chunks(chunks):
    everything = np.concatenate([np.zeros(0), *chunks])
    top = everything.max(initial=-_INF)
    return float(top), float(np.exp(everything - top).sum()) if top > -_INF else 0.0


def _two_looks(chunks):
    top = -_INF
    for chunk in chunks:
        top = max(top, float(chunk.max(initial=-_INF)))
    total = 0.0
    for chunk in chunks:  # none is left
        total += float(np.exp(chunk - top).sum())
    return top, total


def _two_looks_total_first(chunks):
    logs = [float(np.exp(c.astype(float)).sum()) for c in chunks]
    return max((float(c.max(initial=-_INF)) for c in chunks), default=-_INF), sum(logs)


def _by_first_chunk(chunks):
    first = next(chunks)
    rest = itertools.chain([first], chunks)
    return _merge_chunks(rest)


def _chunk_by_chunk_logs(chunks):
    top, total = -_INF, 0.0
    for chunk in chunks:
        own, part = _merge_chunks([chunk])
        top, total = max(top, own), total + (own + np.log(part) if part else 0.0)
    return top, float(total)


def _own_normalizers(chunks):
    top, total = -_INF, 0.0
    for chunk in chunks:
        own, part = _merge_chunks([chunk])
        top, total = max(top, own), total + part
    return top, total


_name = "online_softmax"
add(
    _name,
    "no-rescale",
    "adds to the old normalizer as it is: when the maximum grows, multiply it by exp(old maximum - new maximum)",
    with_switches(_merge_chunks, factor=lambda old, new: 1.0),
)
add(
    _name,
    "rescale-inverted",
    "rescales by exp(new maximum - old maximum): the old terms shrink when the maximum grows, so it is old minus new",
    with_switches(_merge_chunks, factor=lambda old, new: float(np.exp(np.float64(new - old))) if old > -_INF else 1.0),
    with_switches(_merge_chunks, factor=lambda old, new: float(np.exp(np.float64(new - old))) if old > -_INF else 0.0),
)
add(
    _name,
    "rescale-without-exp",
    "multiplies by the difference of the maxima: the factor is its exponential, exp(old maximum - new maximum)",
    with_switches(_merge_chunks, factor=lambda old, new: old - new if old > -_INF else 0.0),
)
add(
    _name,
    "chunk-not-rescaled",
    "measures each chunk from its own maximum and adds that as it is: below the running maximum its sum has to shrink",
    with_switches(_merge_chunks, shift=lambda new, own: own if own > -_INF else 0.0),
)
add(
    _name,
    "sums-of-chunks",
    "adds up the normalizers of the chunks, each taken from its own maximum: bring them to one maximum first",
    _own_normalizers,
)
add(
    _name,
    "sums-of-logs",
    "adds up the chunks' logsumexps: the log of a sum is not the sum of the logs",
    _chunk_by_chunk_logs,
)
add(
    _name,
    "last-maximum",
    "returns the maximum of the last chunk: keep the largest that was seen so far",
    with_switches(_merge_chunks, new_top=lambda old, own: own),
    with_switches(_merge_chunks, new_top=lambda old, own: own if own > -_INF else old),
)
add(
    _name,
    "only-the-last-chunk",
    "forgets the chunks before the last: the old normalizer is rescaled and kept",
    with_switches(_merge_chunks, factor=lambda old, new: 0.0),
)
add(
    _name,
    "nan-from-minus-inf",
    "subtracts -inf from -inf, which is NaN, while all that it has seen is -inf: leave such a chunk out",
    with_switches(_merge_chunks, guard=False, factor=_plain_factor),
    with_switches(_merge_chunks, guard=False),
)
add(
    _name,
    "nan-from-minus-inf-chunk",
    "takes a chunk of nothing but -inf from its own maximum, and -inf - (-inf) is NaN: leave such a chunk out",
    lambda chunks: _pairs_without_guard(chunks),
)
add(
    _name,
    "starts-at-zero",
    "starts with a maximum of 0, which negative logits never reach: start with -inf",
    with_switches(_merge_chunks, start=(0.0, 0.0)),
)
add(
    _name,
    "large-negative-start",
    "starts with a large negative number, which stays when there is nothing larger: start with -inf",
    *(
        with_switches(_merge_chunks, start=(start, 0.0))
        for start in (-1e9, -1e30, -1e10, -1e308, float(np.finfo(np.float64).min), -1e6)
    ),
    *(with_switches(_merge_chunks, start=(float(np.finfo(d).min), 0.0)) for d in (np.float32, np.float16)),
)
add(
    _name,
    "starts-with-one",
    "starts with a normalizer of 1: nothing has been added up yet, so it is 0",
    with_switches(_merge_chunks, start=(-_INF, 1.0), at_first=1.0),
)
add(
    _name,
    "no-maximum",
    "adds up exp(x) with no maximum taken out, which overflows: the normalizer is the sum of exp(x - maximum)",
    with_switches(_merge_chunks, factor=lambda old, new: 1.0, shift=lambda new, own: 0.0),
)
add(
    _name,
    "maximum-at-the-end",
    "adds up exp(x) and divides by exp(maximum) at the end, after it overflowed or vanished: "
    "take the maximum out before exp",
    with_switches(
        _merge_chunks,
        factor=lambda old, new: 1.0,
        shift=lambda new, own: 0.0,
        finish=lambda top, total, count: (top, float(total * np.exp(-np.float64(top))) if top > -_INF else 0.0),
    ),
    with_switches(
        _merge_chunks,
        factor=lambda old, new: 1.0,
        shift=lambda new, own: 0.0,
        finish=lambda top, total, count: (top, float(total / np.exp(np.float64(top))) if top > -_INF else 0.0),
    ),
)
add(
    _name,
    "logsumexp",
    "returns the logsumexp, maximum + log(normalizer): the normalizer itself is asked for",
    with_switches(
        _merge_chunks,
        finish=lambda top, total, count: (top, top + np.log(total) if total else -_INF),
    ),
)
add(
    _name,
    "log-normalizer",
    "returns the log of the normalizer: the normalizer itself is asked for",
    with_switches(_merge_chunks, finish=lambda top, total, count: (top, np.log(np.float64(total)))),
)
add(
    _name,
    "swapped",
    "returns (normalizer, maximum): the maximum comes first",
    with_switches(_merge_chunks, finish=lambda top, total, count: (total, top)),
)
add(
    _name,
    "mean",
    "averages instead of adding up: the normalizer is a sum",
    with_switches(_merge_chunks, finish=lambda top, total, count: (top, total / count if count else 0.0)),
    with_switches(_merge_chunks, reduce=np.mean, biggest=lambda w: w.max(initial=-_INF)),
)
add(
    _name,
    "absolute-maximum",
    "takes the largest absolute value: a large negative logit needs no care, so it is the plain maximum",
    with_switches(_merge_chunks, biggest=lambda w: np.abs(w).max(initial=-_INF)),
)
add(
    _name,
    "looks-twice",
    "goes through the chunks a second time, when none is left: update maximum and normalizer in the same loop",
    _two_looks,
    _two_looks_total_first,
)
add(
    _name,
    "keeps-everything",
    "keeps what it has seen, so that it holds more with every chunk: "
    "two numbers are enough, a maximum and a normalizer",
    _keeps_all_chunks,
)
add(
    _name,
    "empty-chunk-crashes",
    "takes the maximum of an empty chunk, which is an error: leave such a chunk out",
    with_switches(_merge_chunks, biggest=lambda w: w.max()),
)
add(
    _name,
    "needs-a-first-chunk",
    "takes a first chunk for granted: with none at all the answer is (-inf, 0.0)",
    _by_first_chunk,
)
add(
    _name,
    "half-arithmetic",
    "adds up in float16, which overflows at 65,504: add up in float32 or wider",
    lambda chunks: _half_merge(chunks),
    noisy=True,
)


def _pairs_without_guard(chunks):
    """Each chunk's own (maximum, sum) first, then the merge; -inf is looked at in the running part alone."""
    top, total = -_INF, 0.0
    for chunk in chunks:
        w = _wide(chunk, np.float64)
        if not w.size:
            continue
        own = w.max()
        part = np.exp(w - own).sum()
        new = max(top, own)
        total = (total * np.exp(top - new) if top > -_INF else 0.0) + part * np.exp(own - new)
        top = new
    return float(top), float(total)


def _half_merge(chunks):
    top, total = -_INF, 0.0
    for chunk in chunks:
        own = float(chunk.max(initial=-_INF))
        new = max(top, own)
        if new == -_INF:
            continue
        part = np.exp(chunk - chunk.dtype.type(new)).sum(dtype=chunk.dtype)
        total = float(chunk.dtype.type(total * np.exp(top - new)) + part)
        top = new
    return top, total


def _attend(
    q,
    key_value_blocks,
    scale,
    mask_blocks=None,
    score=lambda q, k, scale: q @ k.T * q.dtype.type(scale),
    fill=-_INF,
    use=lambda mask: mask,
    clear=False,
    new_top=np.maximum,
    start=-_INF,
    guard=True,
    rescale_total=lambda f: f,
    rescale_out=lambda f: f,
    dtype=None,
    divide=True,
    empty=0.0,
    late_mask=False,
):
    w = _wide(q, dtype)
    top, total, out = np.full(len(q), start, w.dtype), np.zeros(len(q), w.dtype), None
    masks = itertools.repeat(np.array(True)) if mask_blocks is None else mask_blocks
    for (k, v), mask in zip(key_value_blocks, masks, strict=False):
        k, v = k.astype(w.dtype), v.astype(w.dtype)
        mask = use(mask)
        scores = score(w, k, scale)
        if not late_mask:
            scores = _keep(scores, mask, fill)
        new = new_top(top, scores.max(1))
        safe = np.where(np.isneginf(new), w.dtype.type(0), new) if guard else new
        factor = np.exp(top - safe)
        p = np.exp(scores - safe[:, None])
        if clear:
            p = _keep(p, mask, 0)
        total = total * rescale_total(factor) + p.sum(1)
        if late_mask:
            p = _keep(p, mask, 0)
        out = (0 if out is None else out * rescale_out(factor)[:, None]) + p @ v
        top = new
    if divide:
        out = out / (np.where(total == 0, w.dtype.type(1), total) if empty == 0.0 else total)[:, None]
    return out.astype(q.dtype)


def _everything(q, key_value_blocks, scale, mask_blocks=None):
    """All blocks concatenated, all scores at once."""
    masks = None if mask_blocks is None else list(mask_blocks)
    k, v = (np.concatenate(parts) for parts in zip(*key_value_blocks, strict=True))
    w, kv = _wide(q), [(k, v)]
    return _attend(w, kv, scale, None if masks is None else [np.concatenate(masks, 1)]).astype(q.dtype)


def _keeps_scores(q, key_value_blocks, scale, mask_blocks=None):
    """Scores and values of every block in a list, and the softmax when all are there."""
    return _everything(q, list(key_value_blocks), scale, mask_blocks)


def _keeps_partial_results(q, key_value_blocks, scale, mask_blocks=None):
    masks = itertools.repeat(None) if mask_blocks is None else mask_blocks
    outs, logs = [], []
    for block, mask in zip(key_value_blocks, masks, strict=False):
        out = _attend(_wide(q), [block], scale, None if mask is None else [mask])
        scores = _wide(q) @ _wide(block[0]).T * _wide(q).dtype.type(scale)
        kept = scores if mask is None else _keep(scores, mask, -_INF)
        outs.append(out)
        logs.append(np.logaddexp.reduce(kept, axis=1))
    weights = _masked_softmax(np.array(logs), ~np.isneginf(logs), 0)
    return (np.array(outs) * weights[:, :, None]).sum(0).astype(q.dtype)


def _block_by_block(combine):
    def wrong(q, key_value_blocks, scale, mask_blocks=None):
        masks = itertools.repeat(None) if mask_blocks is None else mask_blocks
        out, count = 0, 0
        for block, mask in zip(key_value_blocks, masks, strict=False):
            part = _attend(_wide(q), [block], scale, None if mask is None else [mask])
            out, count = combine(out, part), count + 1
        return (out / count if combine is _average else out).astype(q.dtype)

    return wrong


def _average(out, part):
    return out + part


def _over_queries(q, key_value_blocks, scale, mask_blocks=None):
    w, out = _wide(q), 0
    masks = itertools.repeat(np.array(True)) if mask_blocks is None else mask_blocks
    for (k, v), mask in zip(key_value_blocks, masks, strict=False):
        scores = w @ _wide(k).T * w.dtype.type(scale)
        out = out + _masked_softmax(scores, np.broadcast_to(mask, scores.shape), axis=0) @ v
    return out.astype(q.dtype)


_name = "attention"
add(
    _name,
    "no-rescale",
    "does not rescale what it has: "
    "when a query's maximum grows, multiply its normalizer and its output by exp(old - new)",
    with_switches(_attend, rescale_total=np.ones_like, rescale_out=np.ones_like),
)
add(
    _name,
    "rescales-only-normalizer",
    "rescales the normalizer but not the output: both are sums of exp(score - maximum), so both need the factor",
    with_switches(_attend, rescale_out=np.ones_like),
)
add(
    _name,
    "rescales-only-output",
    "rescales the output but not the normalizer: both are sums of exp(score - maximum), so both need the factor",
    with_switches(_attend, rescale_total=np.ones_like),
)
add(
    _name,
    "rescale-inverted",
    "rescales by exp(new maximum - old maximum): what is old shrinks when the maximum grows, so it is old minus new",
    *(
        with_switches(_attend, rescale_total=invert, rescale_out=invert)
        for invert in (lambda f: 1 / np.where(f == 0, f.dtype.type(1), f), lambda f: np.where(f == 0, f, 1 / f))
    ),
)
add(
    _name,
    "adds-block-averages",
    "normalizes each block by itself and adds up: all blocks share one normalizer, so divide once at the end",
    _block_by_block(lambda out, part: out + part),
)
add(
    _name,
    "averages-blocks",
    "normalizes each block by itself and averages: a block with larger scores weighs more, so divide once at the end",
    _block_by_block(_average),
)
add(
    _name,
    "only-the-last-block",
    "returns the attention over the last block alone: what came before is rescaled and kept",
    _block_by_block(lambda out, part: part),
)
add(
    _name,
    "last-maximum",
    "measures from the maximum of the last block instead of the largest so far, and overflows or becomes NaN",
    with_switches(_attend, new_top=lambda old, own: own),
    with_switches(_attend, new_top=lambda old, own: own, guard=False, empty=1.0),
)
add(
    _name,
    "not-divided",
    "does not divide by the normalizer: the weights of each query add up to 1",
    with_switches(_attend, divide=False),
)
add(
    _name,
    "no-maximum",
    "takes no maximum out before exp, which overflows (or leaves 0/0): subtract each query's running maximum",
    *(
        with_switches(_attend, new_top=lambda old, own: np.zeros_like(own), start=0.0, dtype=d)
        for d in (None, np.float64)
    ),
    *(
        with_switches(_attend, new_top=lambda old, own: np.zeros_like(own), start=0.0, dtype=d, empty=1.0)
        for d in (None, np.float64)
    ),
)
add(
    _name,
    "one-maximum",
    "uses one maximum for all queries, and those far below it vanish: each query has its own",
    with_switches(_attend, new_top=lambda old, own: np.maximum(old, own.max())),
    with_switches(_attend, new_top=lambda old, own: np.maximum(old, own.max()), empty=1.0),
)
add(
    _name,
    "maximum-starts-at-zero",
    "starts with a maximum of 0, far above scores that are very negative: start with -inf",
    with_switches(_attend, start=0.0),
    with_switches(_attend, start=0.0, empty=1.0),
)
add(
    _name,
    "over-queries",
    "makes the queries compete for each key: the weights of each query add up to 1 over the keys",
    _over_queries,
)
add(
    _name,
    "scale-forgotten",
    "leaves the scale out: the scores are multiplied by it",
    with_switches(_attend, score=lambda q, k, scale: q @ k.T),
)
add(
    _name,
    "scale-twice",
    "applies the scale twice: once to the scores is enough",
    with_switches(_attend, score=lambda q, k, scale: q @ k.T * q.dtype.type(scale * scale)),
)
add(
    _name,
    "divides-by-scale",
    "divides by the scale: the scores are multiplied by it",
    with_switches(_attend, score=lambda q, k, scale: q @ k.T / q.dtype.type(scale)),
)
add(
    _name,
    "scale-root",
    "takes the root of the scale: the root of the size is in it already, where there is one",
    with_switches(_attend, score=lambda q, k, scale: q @ k.T * q.dtype.type(scale**0.5)),
    with_switches(_attend, score=lambda q, k, scale: q @ k.T / q.dtype.type(scale**0.5)),
)
add(
    _name,
    "own-scale",
    "uses 1/sqrt(D), whatever the scale: that is a usual choice of the caller's, so take what is given",
    with_switches(_attend, score=lambda q, k, scale: q @ k.T / q.dtype.type(q.shape[1] ** 0.5)),
    with_switches(_attend, score=lambda q, k, scale: q @ k.T * q.dtype.type(scale / q.shape[1] ** 0.5)),
)
add(
    _name,
    "mask-inverted",
    "keeps what is masked and masks what is kept: here True means keep",
    with_switches(_attend, use=lambda mask: ~mask if mask.ndim else mask),
    with_switches(_attend, use=lambda mask: ~mask if mask.ndim else mask, guard=False, empty=1.0),
)
add(
    _name,
    "mask-ignored",
    "does not use mask_blocks: a masked key gets weight 0",
    with_switches(_attend, use=lambda mask: np.array(True)),
)
add(
    _name,
    "fills-with-zero",
    "sets masked scores to 0, and exp(0) is 1: -inf is what gets weight 0",
    with_switches(_attend, fill=0.0),
)
add(
    _name,
    "masks-after-softmax",
    "masks the weights but leaves the masked keys in the normalizer: mask the scores before exp",
    with_switches(_attend, late_mask=True),
)
add(
    _name,
    "uniform-rows",
    "averages the values it must not see where a query may attend to no key: fill with -inf, and give zeros there",
    *(with_switches(_attend, fill=fill, dtype=d) for fill in (-1e9, -1e30, -1e4) for d in (None, np.float64)),
)
add(
    _name,
    "nan-from-masked-block",
    "subtracts -inf from -inf, which is NaN, while a query has seen no key: put 0 in place of a maximum of -inf",
    with_switches(_attend, guard=False, empty=1.0),
    with_switches(_attend, guard=False),
)
add(
    _name,
    "nan-rows",
    "divides 0 by 0 where a query may attend to no key: such a query gets zeros",
    with_switches(_attend, empty=1.0),
)
add(
    _name,
    "keeps-everything",
    "keeps what it has seen (scores, blocks or a result a block): "
    "a maximum, a normalizer and a weighted sum for each query are enough",
    _everything,
    _keeps_scores,
    _keeps_partial_results,
)
add(
    _name,
    "half-arithmetic",
    "computes in float16, where scores lose their digits: compute in float32 and cast once at the end",
    with_switches(_attend, dtype=np.float16),
    noisy=True,
)
add(
    _name,
    MUTATES_INPUT,
    "changes its input: work on a copy",
    lambda q, blocks, scale, mask_blocks=None: (q.fill(0.5), _attend(q, blocks, scale, mask_blocks))[1],
)
add(
    _name,
    "always-float64",
    "returns float64 always: the answer keeps the dtype of the input",
    lambda q, blocks, scale, mask_blocks=None: _attend(q, blocks, scale, mask_blocks).astype(np.float64),
)
