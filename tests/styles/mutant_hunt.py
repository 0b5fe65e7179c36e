"""Right solutions of mutant_hunt in different styles."""

import itertools

import numpy as np

RNG_SEED = 11


def _layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    width = int(np.prod(normalized_shape))
    table = x.astype(np.longdouble).reshape(-1, width)
    table = table - table.mean(1, keepdims=True)
    y = (table / np.sqrt((table**2).mean(1, keepdims=True) + eps)).reshape(x.shape)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _loss_of_digits(x):
    return float(np.finfo(x.dtype).eps * (50 + 50 * np.abs(x).max() / max(np.std(x.astype(float)), 1e-9)))


def every_combination(candidate):
    """All shapes with all of weight, bias and eps, in all dtypes."""
    rng = np.random.default_rng(RNG_SEED)
    shapes = [((4, 9), 1), ((5, 5), 1), ((2, 4, 3), 1), ((2, 3, 4), 2)]
    ranges = [(1.0, 0.0, np.float64), (1e-3, 0.0, np.float64), (1.0, 3e4, np.float32), (200.0, 0.0, np.float16)]
    for (shape, inner), (scale, offset, dtype), with_weight, with_bias, eps in itertools.product(
        shapes, ranges, (False, True), (False, True), (None, 0.2)
    ):
        x = (
            (rng.normal(size=shape) + 2 * rng.normal(size=(shape[0],) + (1,) * (len(shape) - 1))) * scale + offset
        ).astype(dtype)
        options = {} if eps is None else {"eps": eps}
        if with_weight:
            options["weight"] = rng.normal(size=shape[-inner:]).astype(dtype)
        if with_bias:
            options["bias"] = rng.normal(size=shape[-inner:]).astype(dtype)
        kept = x.copy()
        try:
            y = candidate(x, shape[-inner:], **options)
            good = (
                y.dtype == dtype
                and y.shape == shape
                and (x == kept).all()
                and np.abs(y - (right := _layer_norm(kept, shape[-inner:], **options))).max()
                <= _loss_of_digits(kept) * np.abs(right).max()
            )
        except Exception:
            good = False
        if not good:
            return False
    return True


def as_assertions(candidate):
    """Assertions, as in a test file; positional arguments."""
    rng = np.random.default_rng(RNG_SEED)

    def compare(x, shape, *rest):
        before = x.copy()
        y = candidate(x, shape, *rest)
        assert type(y) is np.ndarray
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(x, before)
        wanted = _layer_norm(before, shape, *rest).astype(np.float64)
        np.testing.assert_allclose(y, wanted, rtol=0, atol=_loss_of_digits(before) * np.abs(wanted).max())

    x = rng.normal(size=(6, 8)) + np.arange(6)[:, None]
    w, b = rng.uniform(1, 2, 8), rng.normal(size=8)
    try:
        for eps in (1e-5, 1.0):
            compare(x, (8,), w, b, eps)
        compare(x, (8,))
        compare(x, 8)  # a number for a shape of one axis, as torch.nn.LayerNorm takes it
        compare(x / 500, (8,))
        compare(x, (8,), w)
        compare(x, (8,), None, b)
        compare(x[:, :6].copy(), (6,), w[:6], b[:6])
        compare(x.reshape(2, 3, 8), (8,), w, b)
        compare(x.reshape(3, 4, 4), (4, 4), rng.normal(size=(4, 4)), rng.normal(size=(4, 4)))
        compare((x + 2e4).astype(np.float32), (8,), w.astype(np.float32), b.astype(np.float32))
        compare((x * 150).astype(np.float16), (8,), w.astype(np.float16), b.astype(np.float16))
    except Exception:
        return False
    return True


def against_pytorch(candidate):
    """PyTorch's layer norm in float64 is the oracle."""
    import torch

    generator = np.random.default_rng(RNG_SEED)
    for dtype, scale, offset in [("f8", 1, 0), ("f8", 1e-3, 0), ("f4", 1, 0), ("f4", 1, 1e4), ("f2", 120, 0)]:
        for shape, inner in [((3, 7), 1), ((4, 4), 1), ((2, 3, 6), 1), ((5, 2, 3), 2)]:
            x = generator.normal(size=shape) + generator.normal(size=(*shape[:1], *[1] * (len(shape) - 1))) * 2
            x = (x * scale + offset).astype(dtype)
            w, b = generator.uniform(0.5, 2, size=(2, *shape[-inner:])).astype(dtype)
            for weight, bias, eps in [(w, b, 1e-5), (None, None, 1e-5), (w, None, 1e-5), (None, b, 1e-5), (w, b, 0.1)]:
                before = x.copy()
                wide = [None if t is None else torch.tensor(t, dtype=torch.float64) for t in (weight, bias)]
                wanted = torch.nn.functional.layer_norm(
                    torch.tensor(x, dtype=torch.float64), shape[-inner:], *wide, eps
                ).numpy()
                options = {} if eps == 1e-5 else {"eps": eps}
                try:
                    y = candidate(x, shape[-inner:], weight=weight, bias=bias, **options)
                except Exception:
                    return False
                ok = y.dtype == x.dtype and y.shape == x.shape and np.array_equal(before, x)
                if (
                    not ok
                    or np.isnan(y).any()
                    or np.abs(y - wanted).max() > _loss_of_digits(before) * np.abs(wanted).max()
                ):
                    return np.False_
    return np.True_


def by_properties(candidate):
    """No layer norm to compare with: what must hold of a right one."""
    rng = np.random.default_rng(RNG_SEED)

    def properties(x, inner, eps, close):
        shape, axes = x.shape[-inner:], tuple(range(-inner, 0))
        kept, options = x.copy(), {} if eps is None else {"eps": eps}
        plain = candidate(x, shape, **options)
        yield plain.dtype == x.dtype and plain.shape == x.shape and np.array_equal(x, kept)
        y, v = plain.astype(float), kept.astype(float)
        variance = v.var(axes, keepdims=True)
        yield np.abs(y.mean(axes)).max() <= close
        yield np.abs(y.var(axes, keepdims=True) - variance / (variance + (eps or 1e-5))).max() <= close
        # A straight line of positive slope in each pool: the deviations times one number.
        deviation = v - v.mean(axes, keepdims=True)
        slope = (y * deviation).sum(axes, keepdims=True) / (deviation**2).sum(axes, keepdims=True)
        yield (slope > 0).all() and np.abs(y - slope * deviation).max() <= close
        weight, bias = rng.uniform(0.5, 3, size=(2, *shape)).astype(x.dtype)
        for w, b in ((weight, bias), (weight, None), (None, bias)):
            z = candidate(x, shape, weight=w, bias=b, **options).astype(float)
            yield np.abs(z - (y * (1 if w is None else w) + (0 if b is None else b))).max() <= 4 * close

    rows = rng.normal(size=(5, 7)) + np.arange(5)[:, None]
    tries = [
        (rows, 1, None, 1e-9),
        (rows, 1, 0.5, 1e-9),
        (rows / 300, 1, None, 1e-9),
        (rows[:, :5].copy(), 1, None, 1e-9),
        (rng.normal(size=(2, 4, 5)) + np.arange(4)[:, None], 1, None, 1e-9),
        (rng.normal(size=(3, 4, 5)) * np.arange(1, 5)[:, None], 2, None, 1e-9),
        (rows.astype(np.float32), 1, None, 1e-5),
        ((rows + 1e4).astype(np.float32), 1, None, 2e-2),
        ((rows * 400).astype(np.float16), 1, None, 2e-2),
    ]
    try:
        return all(bool(found) for attempt in tries for found in properties(*attempt))
    except Exception:
        return False


STYLES = [every_combination, as_assertions, against_pytorch, by_properties]
