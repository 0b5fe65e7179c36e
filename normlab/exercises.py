"""The exercises: for each its signature, its truth twice (PyTorch and NumPy), its cases, and what may not be called.

The truth is PyTorch's answer in float64 wherever PyTorch is installed; the NumPy one serves where it is not, and a test
holds the two together on every case. The exercises of the first chapters stand here, with their cases in cases.py and
their known mistakes in mistakes.py; each later chapter has a file for all three in chapters/. Texts live in solutions/.
"""

import numpy as np

from normlab import cases, reference
from normlab.chapters import CHAPTERS
from normlab.drive import walk
from normlab.frame import Exercise
from normlab.guard import TORCH_NORMS

# ---- truths in PyTorch -----------------------------------------------------------------------------------------------


def _torch_standardize(torch, x, eps=1e-5):
    return torch.nn.functional.layer_norm(x.reshape(-1), (x.numel(),), eps=eps).reshape(x.shape)


def _torch_z_score(torch, x, axis=-1, eps=1e-5):
    moved = x.movedim(axis, -1)
    return torch.nn.functional.layer_norm(moved, moved.shape[-1:], eps=eps).movedim(-1, axis)


def _torch_old_output(torch, seed):
    # Before version 1.2 the affine weight was drawn from U(0, 1), from the same stream, before the input.
    torch.manual_seed(seed)
    weight = torch.rand(1)
    x = torch.randn(2, 1, 2, 2)
    return torch.nn.functional.batch_norm(x.double(), None, None, training=True) * weight.double()


def _torch_min_max(torch, x, axis=-1):
    if not x.numel():
        return x
    low, high = torch.aminmax(x, dim=axis, keepdim=True)
    return torch.where(high == low, torch.zeros_like(x), (x - low) / (high - low))


def _torch_histogram(torch, x, edges, density):
    hist = torch.histogram(x.contiguous(), edges, density=density).hist
    if not torch.histogram(x.contiguous(), edges).hist.sum():
        raise ValueError("no sample lies inside the edges")
    return hist if density else hist / hist.sum()


def _torch_held_out(torch, train, test, edges):
    density = torch.nn.functional.pad(_torch_histogram(torch, train, edges, True), (1, 1))  # 0 below and above
    bins = torch.bucketize(test, edges, right=True)
    bins[test == edges[-1]] = len(edges) - 1
    return density[bins].log().mean()


def _torch_bayes(torch, log_prior, log_likelihood):
    return torch.softmax(log_prior + log_likelihood, dim=1)


def _torch_rms_norm(torch, x, normalized_shape, weight=None, eps=None):
    return torch.nn.functional.rms_norm(x, normalized_shape, weight, eps)


def _torch_batch_norm(torch, x, weight, bias, eps=1e-5):
    return torch.nn.functional.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


def _torch_instance_norm(torch, x, weight=None, bias=None, eps=1e-5):
    if x.ndim < 3:
        raise ValueError("no positions")
    return torch.nn.functional.instance_norm(x, weight=weight, bias=bias, eps=eps)


def _torch_group_norm(torch, x, num_groups, weight=None, bias=None, eps=1e-5):
    if x.shape[1] % num_groups:
        raise ValueError("the groups do not divide the channels")
    return torch.nn.functional.group_norm(x, num_groups, weight, bias, eps)


# ---- truths in NumPy: the formula where PyTorch is absent, and the yardstick of the tolerance ----------------------


def _standardize(x, eps=1e-5):
    return reference.normalize(x.reshape(-1), "layer", eps=eps).reshape(x.shape)


def _z_score(x, axis=-1, eps=1e-5):
    return np.moveaxis(reference.normalize(np.moveaxis(x, axis, -1), "layer", eps=eps), -1, axis)


def _normalize_lp(order):
    def numpy_truth(x, axis=-1, eps=1e-12):
        norm = np.abs(x).sum(axis, keepdims=True) if order == 1 else np.sqrt((x * x).sum(axis, keepdims=True))
        return x / np.maximum(norm, x.dtype.type(eps))

    def torch_truth(torch, x, axis=-1, eps=1e-12):
        return torch.nn.functional.normalize(x, p=order, dim=axis, eps=eps)

    return numpy_truth, torch_truth


def _min_max(x, axis=-1):
    low, high = x.min(axis, keepdims=True), x.max(axis, keepdims=True)
    return (x - low) / np.where(high > low, high - low, x.dtype.type(1))


def _counts(x, edges):
    """Samples in each bin: left edge in, right edge out, but for the last bin, which is closed."""
    inside = x[(x >= edges[0]) & (x <= edges[-1])]
    if not len(inside):
        raise ValueError("no sample lies inside the edges")
    bins = np.minimum(np.searchsorted(edges, inside, side="right") - 1, len(edges) - 2)
    return np.bincount(bins, minlength=len(edges) - 1)


def _histogram_probabilities(x, edges):
    counts = _counts(x, edges)
    return (counts / counts.sum()).astype(x.dtype)


def _histogram_density(x, edges):
    counts = _counts(x, edges)
    return (counts / counts.sum() / np.diff(edges)).astype(x.dtype)


def _held_out(train, test, edges):
    density = np.pad(_histogram_density(train, edges), 1)
    bins = np.where(test == edges[-1], len(edges) - 1, np.searchsorted(edges, test, side="right"))
    return np.log(density[bins]).mean()


def _bayes(log_prior, log_likelihood):
    return reference.softmax(log_prior + log_likelihood, axis=1)


def _batch_norm(x, weight, bias, eps=1e-5):
    if x.size == x.shape[1]:
        raise ValueError("one value per channel")
    return reference.normalize(x, "batch", weight, bias, eps)


def _layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    return reference.normalize(x, "layer", weight, bias, eps, normalized_shape=normalized_shape)


def _instance_norm(x, weight=None, bias=None, eps=1e-5):
    if x.size == x.shape[0] * x.shape[1]:
        raise ValueError("one position per channel")
    return reference.normalize(x, "instance", weight, bias, eps)


def _group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    return reference.normalize(x, "group", weight, bias, eps, num_groups=num_groups)


def _rms_norm(x, normalized_shape, weight=None, eps=None):
    return reference.normalize(x, "rms", weight, None, eps, normalized_shape=normalized_shape)


def _norm(name, stem, expect, numpy_truth, torch_truth, its_cases, core=False):
    return Exercise(name, stem, expect, numpy_truth, torch_truth, numpy_truth, its_cases, core)


def _entries():
    l1, torch_l1 = _normalize_lp(1)
    l2, torch_l2 = _normalize_lp(2)
    zero_one = "every slice along the axis comes out with mean 0 and biased variance 1"
    yield _norm(
        "standardize",
        "puzzle",
        "all elements together come out with mean 0 and biased variance 1",
        _standardize,
        _torch_standardize,
        cases.standardize_cases(),
        core=True,
    )
    yield Exercise(
        "old_output",
        "puzzle",
        "the weight comes from U(0, 1), then the input from N(0, 1), of one stream",
        lambda seed: None,
        _torch_old_output,
        None,
        cases.old_output_cases(),
        returns="tensor",
        torch_exercise=True,
        may_call=TORCH_NORMS,
    )
    yield _norm(
        "normalize_l1",
        "meanings",
        "the absolute values of every slice along the axis add up to 1",
        l1,
        torch_l1,
        cases.lp_cases(),
    )
    yield _norm(
        "normalize_l2",
        "meanings",
        "the squares of every slice along the axis add up to 1",
        l2,
        torch_l2,
        cases.lp_cases(),
    )
    yield _norm(
        "min_max",
        "meanings",
        "every slice along the axis runs from exactly 0 to exactly 1",
        _min_max,
        _torch_min_max,
        cases.min_max_cases(),
    )
    yield _norm("z_score", "meanings", zero_one, _z_score, _torch_z_score, cases.z_score_cases())
    yield _norm(
        "histogram_probabilities",
        "shape",
        "each bin gets its share of the samples inside the edges, and the shares add up to 1",
        _histogram_probabilities,
        lambda torch, x, edges: _torch_histogram(torch, x, edges, False),
        cases.histogram_cases(),
    )
    yield _norm(
        "histogram_density",
        "shape",
        "share over width: the areas of the bars add up to 1",
        _histogram_density,
        lambda torch, x, edges: _torch_histogram(torch, x, edges, True),
        cases.histogram_cases(),
        core=True,
    )
    yield Exercise(
        "held_out_log_likelihood",
        "shape",
        "the answer is the mean log density of the test points under the training histogram",
        _held_out,
        _torch_held_out,
        _held_out,
        cases.held_out_cases(),
        returns="float",
    )
    yield _norm(
        "softmax",
        "softmax",
        "every slice along the axis becomes exp(x) over its own sum of exp(x), and adds up to 1",
        reference.softmax,
        lambda torch, x, axis=-1: torch.softmax(x, dim=axis),
        cases.softmax_cases(),
        core=True,
    )
    yield _norm(
        "logsumexp",
        "softmax",
        "the answer is the log of the sum of exponentials of each slice, the axis dropped",
        reference.logsumexp,
        lambda torch, x, axis=-1: torch.logsumexp(x, dim=axis),
        cases.logsumexp_cases(),
    )
    yield Exercise(
        "gumbel_max",
        "softmax",
        "class k is drawn with probability softmax(logits)[k]",
        lambda logits, rng, size: None,
        lambda torch, logits, rng, size: torch.softmax(logits, dim=0),
        lambda logits, rng, size: reference.softmax(logits),
        cases.gumbel_cases(),
        returns="samples",
    )
    yield _norm(
        "bayes_posterior",
        "softmax",
        "posterior = prior times likelihood, divided by its sum over the classes",
        _bayes,
        _torch_bayes,
        cases.bayes_cases(),
    )
    yield _norm(
        "batch_norm",
        "axes",
        "each channel gets mean 0 and biased variance 1 over examples and positions, then its weight and bias",
        _batch_norm,
        _torch_batch_norm,
        cases.batch_norm_cases(),
        core=True,
    )
    yield _norm(
        "layer_norm",
        "axes",
        "each example gets mean 0 and biased variance 1 over the axes of normalized_shape, then weight and bias",
        _layer_norm,
        lambda torch, x, shape, weight=None, bias=None, eps=1e-5: torch.nn.functional.layer_norm(
            x, shape, weight, bias, eps
        ),
        cases.layer_norm_cases(),
        core=True,
    )
    yield _norm(
        "instance_norm",
        "axes",
        "each channel of each example gets mean 0 and biased variance 1, then its weight and bias",
        _instance_norm,
        _torch_instance_norm,
        cases.instance_norm_cases(),
    )
    yield _norm(
        "group_norm",
        "axes",
        "each group of neighboring channels gets mean 0 and biased variance 1, then each channel its weight and bias",
        _group_norm,
        _torch_group_norm,
        cases.group_norm_cases(),
        core=True,
    )
    yield _norm(
        "rms_norm",
        "axes",
        "each example is divided by sqrt(mean(x^2) + eps) over the axes of normalized_shape, then weighted",
        _rms_norm,
        _torch_rms_norm,
        cases.rms_norm_cases(),
    )


EXERCISES = {exercise.name: exercise for exercise in _entries()}
for _chapter in CHAPTERS:
    EXERCISES |= {exercise.name: exercise for exercise in _chapter.EXERCISES}


def find(name):
    """The exercise of that name, or the variant (softmax_variant:base-2-axis-0). Errors: ValueError that names the
    nearest ones."""
    if name in EXERCISES:
        return EXERCISES[name]
    if "_variant" in str(name):
        from normlab import variants  # they are made of the exercises of this file

        if variant := variants.find(name):
            return variant
    import difflib  # only on the way to an error

    near = difflib.get_close_matches(str(name), EXERCISES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "python -m normlab.check --list names them all"
    raise ValueError(f"there is no exercise {str(name)!r}: {hint}")


def _map_floats(args, kwargs, change):
    """args and kwargs with `change` applied to every floating-point array in them."""

    def one(array):
        return change(array) if array.dtype.kind == "f" else array

    return walk(args, one, np.ndarray), walk(kwargs, one, np.ndarray)


def _resolve(exercise, args, kwargs):
    # rms_norm's default eps depends on the dtype that the caller's array has, so it is settled before any casting.
    if exercise.name == "rms_norm" and kwargs.get("eps") is None:
        kwargs = kwargs | {"eps": float(np.finfo(np.float64 if args[0].dtype == np.float64 else np.float32).eps)}
    return args, kwargs


def wide_dtype(dtype):
    """The dtype that arithmetic on `dtype` is done in: float32, or float64 for float64."""
    return np.promote_types(dtype, np.float32)


def _as_arrays(answer):
    return tuple(np.asarray(part) for part in answer) if isinstance(answer, tuple) else np.asarray(answer)


# Where PyTorch is not installed: recorded(exercise, args, kwargs) gives what it answered elsewhere, or None (golden.py).
recorded = None


def truth(exercise, args, kwargs, use_torch=None):
    """The right answer as a float64 array (a tuple of arrays where the exercise returns one), by PyTorch; where that is
    not installed, as it was recorded, else by NumPy (as when use_torch is False).

    A right answer that is an error is raised.
    """
    if use_torch is None:
        use_torch = torch_or_none() is not None
        if not use_torch and recorded is not None and (known := recorded(exercise, args, kwargs)) is not None:
            return known
    args, kwargs = _resolve(exercise, args, kwargs)
    if not use_torch:
        if exercise.numpy_truth is None:
            raise RuntimeError(f"{exercise.name} is an exercise in PyTorch: it needs torch installed")
        args, kwargs = _map_floats(args, kwargs, lambda a: a.astype(np.float64))
        with np.errstate(all="ignore"):
            return _as_arrays(exercise.numpy_truth(*args, **kwargs))
    torch = torch_or_none()

    def tensor(array):
        wide = np.float64 if array.dtype.kind == "f" else array.dtype
        return torch.from_numpy(np.array(array, wide, order="C"))

    args, kwargs = walk(args, tensor, np.ndarray), walk(kwargs, tensor, np.ndarray)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        answer = exercise.torch_truth(torch, *args, **kwargs)
    return _as_arrays(walk(answer, lambda t: t.detach().numpy(), torch.Tensor))


def plain(exercise, args, kwargs):
    """The plain NumPy formula in the dtype the arithmetic should have; None where there is no such formula."""
    if exercise.numpy_truth is None:
        return None
    args, kwargs = _resolve(exercise, args, kwargs)
    args, kwargs = _map_floats(args, kwargs, lambda a: a.astype(wide_dtype(a.dtype)))
    with np.errstate(all="ignore"):
        return _as_arrays(exercise.numpy_truth(*args, **kwargs))


def moved_by_one_rounding(exercise, args, kwargs, rng):
    """The float64 truth for arrays of which every element is moved by up to half a unit in its last place."""

    def moved(x):
        half_ulp = np.finfo(wide_dtype(x.dtype)).eps / 2
        return x.astype(np.float64) * (1 + half_ulp * rng.uniform(-1, 1, x.shape))

    args, kwargs = _resolve(exercise, args, kwargs)
    return truth(exercise, *_map_floats(args, kwargs, moved), use_torch=False)


def torch_or_none():
    """The torch module, or None where it is not installed. Imported on first need: it takes seconds."""
    try:
        import torch
    except ImportError:
        return None
    return torch
