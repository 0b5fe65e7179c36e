"""Right solutions of every variant in different styles: STYLES[name of the family](**conventions) lists functions."""

import math

import numpy as np


def wide_of(x):
    return x.astype(np.promote_types(x.dtype, np.float32))


def divisor_of(n, divisor):
    return n - 1 if divisor == "divisor-n-1" else n


def divide(deviation, variance, eps, eps_rule):
    """In other words than the solutions': by powers and where."""
    if eps_rule == "eps-under":
        return deviation * (variance + eps) ** -0.5
    if eps_rule == "eps-outside":
        return deviation / (variance**0.5 + eps)
    return deviation / np.where(variance > eps, variance, eps) ** 0.5


def one_slice(values, eps, eps_rule, divisor):
    """x_hat of one slice, number by number, in Python's floats."""
    values = np.asarray(values, float)
    flat = values.ravel().tolist()
    mean = math.fsum(flat) / len(flat)
    variance = math.fsum((v - mean) ** 2 for v in flat) / divisor_of(len(flat), divisor)
    scale = {
        "eps-under": lambda: math.sqrt(variance + eps),
        "eps-outside": lambda: math.sqrt(variance) + eps,
        "eps-floor": lambda: math.nan if math.isnan(variance) else math.sqrt(max(variance, eps)),
    }[eps_rule]()
    return (values - mean) / scale


def whole(x, axes, eps, eps_rule, divisor):
    """x_hat over the axes, by a sum of squares."""
    n = math.prod(x.shape[a] for a in axes)
    d = x - x.sum(axes, keepdims=True) / x.dtype.type(n)
    variance = np.square(d).sum(axes, keepdims=True) / x.dtype.type(divisor_of(n, divisor))
    return divide(d, variance, eps, eps_rule)


def torch_hat(x, axes, eps, eps_rule, divisor):
    import torch

    t = torch.from_numpy(np.ascontiguousarray(x, np.float64))
    t = t - t.mean(axes, keepdim=True)
    variance = t.var(axes, correction=1 if divisor == "divisor-n-1" else 0, keepdim=True)
    if eps_rule == "eps-outside":
        return (t / (variance.sqrt() + eps)).numpy()
    return (t * torch.rsqrt(variance + eps if eps_rule == "eps-under" else variance.clamp_min(eps))).numpy()


def gain(weight, factor):
    return weight.astype(np.float64) + (factor == "factor-one-plus")


def standardize(eps_rule, divisor, pools):
    def axes(x):
        return {"pools-all": tuple(range(x.ndim)), "columns": (0,), "rows": (x.ndim - 1,)}[pools]

    def sums(x, eps=1e-5):
        return whole(wide_of(x), axes(x), eps, eps_rule, divisor).astype(x.dtype)

    def loops(x, eps=1e-5):
        if pools == "pools-all":
            return one_slice(x, eps, eps_rule, divisor).astype(x.dtype)
        return np.apply_along_axis(one_slice, axes(x)[0], x.astype(float), eps, eps_rule, divisor).astype(x.dtype)

    def in_torch(x, eps=1e-5):
        return torch_hat(x, axes(x), eps, eps_rule, divisor).astype(x.dtype)

    return [sums, loops, in_torch]


def softmax(base, default_axis, empty):
    default = -1 if default_axis == "axis-last" else 0
    number = {"base-e": math.e, "base-2": 2.0, "base-10": 10.0}[base]

    def stretched(x, axis=default):
        """The powers of e, of stretched logits."""
        w = wide_of(x)
        top = w.max(axis=axis, keepdims=True)
        if empty != "empty-nan":
            w = np.where(top == -np.inf, 0 if empty == "empty-uniform" else w, w).astype(w.dtype)
            top = np.where(top == -np.inf, 0, top).astype(w.dtype)
        e = np.exp((w - top) * w.dtype.type(math.log(number)))
        s = e.sum(axis=axis, keepdims=True)
        if empty == "empty-zeros":
            s[s == 0] = 1
        return np.divide(e, s).astype(x.dtype)

    def slice_by_slice(x, axis=default):
        def one(row):
            if (row == -np.inf).all() and empty != "empty-nan":
                return np.full(len(row), 0.0 if empty == "empty-zeros" else 1 / len(row))
            powers = np.power(number, row - row.max())
            return powers / powers.sum()

        return np.apply_along_axis(one, axis, x.astype(np.float64)).astype(x.dtype)

    def in_torch(x, axis=default):
        import torch

        t = torch.from_numpy(np.ascontiguousarray(x, np.float64))
        e = torch.pow(number, t - t.amax(axis, keepdim=True))
        p = e / e.sum(axis, keepdim=True)
        dead = (t == -torch.inf).all(axis, keepdim=True)
        if empty != "empty-nan":
            p = torch.where(dead, 0.0 if empty == "empty-zeros" else 1 / t.shape[axis], p)
        return p.numpy().astype(x.dtype)

    return [stretched, slice_by_slice, in_torch]


def batch_norm(eps_rule, divisor, layout, factor):
    def last(x):
        return np.moveaxis(x, 1, -1) if layout == "channels-first" else x

    def back(y):
        return np.moveaxis(y, -1, 1) if layout == "channels-first" else y

    def check_size(x):
        if last(x).size == last(x).shape[-1]:
            raise ValueError("one value per channel")

    def channels_last(x, weight, bias, eps=1e-5):
        check_size(x)
        w = last(x)
        y = whole(wide_of(w), tuple(range(w.ndim - 1)), eps, eps_rule, divisor)
        return back(y * gain(weight, factor) + bias).astype(x.dtype)

    def channel_by_channel(x, weight, bias, eps=1e-5):
        check_size(x)
        y = last(x).astype(np.float64)
        for c in range(y.shape[-1]):
            y[..., c] = one_slice(y[..., c], eps, eps_rule, divisor) * gain(weight, factor)[c] + bias[c]
        return back(y).astype(x.dtype)

    def in_torch(x, weight, bias, eps=1e-5):
        check_size(x)
        w = last(x)
        y = torch_hat(w, tuple(range(w.ndim - 1)), eps, eps_rule, divisor)
        return back(y + y * weight + bias if factor == "factor-one-plus" else y * weight + bias).astype(x.dtype)

    return [channels_last, channel_by_channel, in_torch]


def layer_norm(eps_rule, divisor, axes_rule, factor):
    def table(x, shape):
        """Rows of one slice each."""
        if axes_rule == "leading":
            return x.reshape(math.prod(shape), -1).T
        return x.reshape(-1, math.prod(shape))

    def back(rows, x):
        return (rows.T if axes_rule == "leading" else rows).reshape(x.shape).astype(x.dtype)

    def shift(rows, weight, bias):
        if weight is not None:
            rows = rows * gain(weight, factor).ravel()
        return rows if bias is None else rows + bias.ravel()

    def rows_of_slices(x, normalized_shape, weight=None, bias=None, eps=1e-5):
        rows = whole(wide_of(table(x, normalized_shape)), (1,), eps, eps_rule, divisor)
        return back(shift(rows, weight, bias), x)

    def one_by_one(x, normalized_shape, weight=None, bias=None, eps=1e-5):
        rows = np.array([one_slice(row, eps, eps_rule, divisor) for row in table(x, normalized_shape)])
        return back(shift(rows, weight, bias), x)

    def in_torch(x, normalized_shape, weight=None, bias=None, eps=1e-5):
        return back(shift(torch_hat(table(x, normalized_shape), (1,), eps, eps_rule, divisor), weight, bias), x)

    return [rows_of_slices, one_by_one, in_torch]


def group_norm(eps_rule, divisor, layout, grouping, factor="factor-weight"):
    def groups(x, num_groups):
        """The channels of each group, as index arrays."""
        channels = x.shape[1] if layout == "channels-first" else x.shape[-1]
        if channels % num_groups:
            raise ValueError("uneven groups")
        numbers = np.arange(channels)
        of = numbers % num_groups if grouping == "dealt" else numbers // (channels // num_groups)
        return [np.flatnonzero(of == g) for g in range(num_groups)]

    def shift(y, weight, bias):
        y = y if weight is None else y * gain(weight, factor)
        return y if bias is None else y + bias

    def by_hat(hat):
        def style(x, num_groups, weight=None, bias=None, eps=1e-5):
            w = np.moveaxis(x, 1, -1) if layout == "channels-first" else x
            y = np.empty(w.shape)
            for own in groups(x, num_groups):
                y[..., own] = hat(w[..., own], eps)
            y = shift(y, weight, bias)
            return (np.moveaxis(y, -1, 1) if layout == "channels-first" else y).astype(x.dtype)

        return style

    def each(w, eps):
        return np.array([one_slice(example, eps, eps_rule, divisor) for example in w])

    return [
        by_hat(lambda w, eps: whole(wide_of(w), tuple(range(1, w.ndim)), eps, eps_rule, divisor)),
        by_hat(each),
        by_hat(lambda w, eps: torch_hat(w, tuple(range(1, w.ndim)), eps, eps_rule, divisor)),
    ]


def cross_entropy(unit, reduction, index_rule, classes):
    default = {"ignore-100": -100, "ignore-1": -1}[index_rule]
    per = math.log(2) if unit == "bits" else 1.0

    def finish(losses, target):
        total = math.fsum(losses) / per
        if reduction == "sum":
            return total
        count = len(target) if reduction == "mean-of-all" else len(losses)
        return total / count if count else math.nan

    def row_by_row(logits, target, ignore_index=default):
        table = (logits.T if classes == "classes-first" else logits).astype(float)
        losses = []
        for row, t in zip(table, target, strict=True):
            if t != ignore_index:
                top = row.max()
                losses.append(top + math.log(math.fsum(np.exp(row - top))) - row[t])
        return finish(losses, target)

    def logaddexp(logits, target, ignore_index=default):
        axis = 0 if classes == "classes-first" else 1
        kept = target != ignore_index
        w = wide_of(np.compress(kept, logits, axis=1 - axis))
        right = np.take_along_axis(w, np.expand_dims(target[kept].astype(int), axis), axis).squeeze(axis)
        return finish(np.logaddexp.reduce(w, axis=axis) - right, target)

    def in_base_2(logits, target, ignore_index=default):
        """Logarithms to base 2 from the start."""
        table = wide_of(logits.T if classes == "classes-first" else logits)[target != ignore_index]
        z = table - table.max(1, keepdims=True, initial=-np.inf)
        own = z[np.arange(len(z)), target[target != ignore_index]]
        losses = np.log2(np.exp(z).sum(1)).astype(float) * math.log(2) - own
        return finish(losses, target)

    return [row_by_row, logaddexp, in_base_2]


def layer_norm_backward(eps_rule, divisor, features, factor):
    def rows(a):
        a = np.moveaxis(a, 0, -1) if features == "features-first" else a
        return a.reshape(-1, a.shape[-1])

    def back(dx, x):
        if features == "features-first":
            return np.moveaxis(dx.reshape(*x.shape[1:], x.shape[0]), -1, 0).astype(x.dtype)
        return dx.reshape(x.shape).astype(x.dtype)

    def pieces(x, eps):
        """Deviations, the scale s, and ds/dx = deviation * slope, of each row."""
        n = x.shape[1]
        d = x - x.mean(1, keepdims=True)
        variance = (d * d).sum(1, keepdims=True) / divisor_of(n, divisor)
        m = divisor_of(n, divisor)
        if eps_rule == "eps-under":
            s = np.sqrt(variance + eps)
            return d, s, 1 / (m * s)
        if eps_rule == "eps-outside":
            return d, np.sqrt(variance) + eps, 1 / (m * np.sqrt(variance))
        s = np.sqrt(np.maximum(variance, eps))
        return d, s, (variance > eps) / (m * s)

    def quotient_rule(dy, x, weight, eps=1e-5):
        w, above = rows(x).astype(np.float64), rows(dy).astype(np.float64)
        d, s, slope = pieces(w, eps)
        g = above * gain(weight, factor)
        dd = g / s - d * slope * (g * d).sum(1, keepdims=True) / s**2  # by the deviations, mean held
        dx = dd - dd.mean(1, keepdims=True)
        return back(dx, x), (above * d / s).sum(0).astype(x.dtype), above.sum(0).astype(x.dtype)

    def jacobians(dy, x, weight, eps=1e-5):
        w, above = rows(x).astype(np.float64), rows(dy).astype(np.float64)
        n = w.shape[1]
        d, s, slope = pieces(w, eps)
        dx = np.zeros(w.shape)
        for i in range(len(w)):
            jacobian = (np.eye(n) - 1 / n) / s[i] - np.outer(d[i], d[i]) * slope[i] / s[i] ** 2
            dx[i] = (above[i] * gain(weight, factor)) @ jacobian
        return back(dx, x), np.einsum("ij,ij->j", above, d / s).astype(x.dtype), above.sum(0).astype(x.dtype)

    def step_by_step(dy, x, weight, eps=1e-5):
        """Back through variance, root and deviations, one after the other, row by row."""
        w, above = rows(x).astype(np.float64), rows(dy).astype(np.float64)
        n, m, a = w.shape[1], divisor_of(w.shape[1], divisor), gain(weight, factor)
        dx, dweight, dbias = np.zeros(w.shape), np.zeros(n), np.zeros(n)
        for i, (row, g) in enumerate(zip(w, above, strict=True)):
            d = row - row.mean()
            variance = d @ d / m
            root = math.sqrt(variance + eps if eps_rule == "eps-under" else max(variance, eps))
            below = math.sqrt(variance) + eps if eps_rule == "eps-outside" else root
            dbelow = -(g * a) @ d / below**2
            if eps_rule == "eps-outside":
                dvariance = dbelow / (2 * math.sqrt(variance))
            else:
                dvariance = 0.0 if eps_rule == "eps-floor" and variance <= eps else dbelow / (2 * root)
            dd = g * a / below + dvariance * 2 * d / m
            dx[i] = dd - dd.sum() / n
            dweight += g * d / below
            dbias += g
        return back(dx, x), dweight.astype(x.dtype), dbias.astype(x.dtype)

    return [quotient_rule, jacobians, step_by_step]


def merge_statistics(middle, spread, order):
    def opened(part):
        n, a, b = part if order == "n-first" else (part[2], *part[:2])
        if n == 0:
            return 0, 0.0, 0.0
        return n, a / n if middle == "sum" else a, b * {"m2": 1, "variance": n, "unbiased": n - 1}[spread]

    def closed(n, mean, m2):
        a = mean * n if middle == "sum" else mean
        b = m2 / {"m2": 1, "variance": max(n, 1), "unbiased": max(n - 1, 1)}[spread]
        return (n, a, b) if order == "n-first" else (a, b, n)

    def early_returns(a, b):
        (n_a, mean_a, m2_a), (n_b, mean_b, m2_b) = opened(a), opened(b)
        if not n_a:
            return b
        if not n_b:
            return a
        n = n_a + n_b
        return closed(n, mean_a + (mean_b - mean_a) * (n_b / n), m2_a + m2_b + (mean_b - mean_a) ** 2 * n_a * (n_b / n))

    def from_the_new_mean(a, b):
        parts = opened(a), opened(b)
        n = parts[0][0] + parts[1][0]
        if not n:
            return a
        mean = parts[0][1] + (parts[1][1] - parts[0][1]) * parts[1][0] / n
        return closed(n, mean, sum(m2 + k * (m - mean) ** 2 for k, m, m2 in parts))

    def larger_first(a, b):
        (n_a, mean_a, m2_a), (n_b, mean_b, m2_b) = sorted((opened(a), opened(b)), key=lambda part: -part[0])
        step = (mean_b - mean_a) * n_b / max(n_a + n_b, 1)
        return closed(n_a + n_b, mean_a + step, m2_a + m2_b + n_a * (mean_b - mean_a) * step)

    return [early_returns, from_the_new_mean, larger_first]


STYLES = {
    f.__name__: f
    for f in (
        standardize,
        softmax,
        batch_norm,
        layer_norm,
        group_norm,
        cross_entropy,
        layer_norm_backward,
        merge_statistics,
    )
}
