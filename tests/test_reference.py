"""reference.py against PyTorch in float64, forward and backward with a random cotangent."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from normlab import cases, exercises, reference
from normlab.axes import NORMS

OF_EXERCISE = {f"{norm}_norm": norm for norm in NORMS}


def torch_norm(norm, x, weight, bias, eps, num_groups, normalized_shape):
    if norm == "batch":
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
    if norm == "layer":
        return F.layer_norm(x, normalized_shape, weight, bias, eps)
    if norm == "instance":
        return F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    if norm == "group":
        if weight is None and bias is not None:  # PyTorch 2.13 fails in the backward of a bias without a weight
            weight = torch.ones_like(bias, requires_grad=False)
        return F.group_norm(x, num_groups, weight, bias, eps)
    return F.rms_norm(x, normalized_shape, weight, eps)


def close(ours, theirs, far=0.0, terms=0.0):
    """Equal up to float64's rounding; `far` is the offset of the input, `terms` the size of what a gradient sums, which
    may cancel."""
    theirs = theirs.detach().numpy()
    scale = np.abs(theirs[np.isfinite(theirs)]).max(initial=terms)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-13 * (1 + far) * scale, equal_nan=True)


def both_directions(norm, x, weight, bias, eps, rng, num_groups=1, normalized_shape=None, far=0.0):
    """Holds normalize and normalize_backward against PyTorch."""
    leaves = [
        None if a is None else torch.tensor(np.ascontiguousarray(a), requires_grad=True) for a in (x, weight, bias)
    ]
    how = {"num_groups": num_groups, "normalized_shape": normalized_shape}
    y = reference.normalize(x, norm, weight, bias, eps, **how)
    theirs = torch_norm(norm, *leaves, eps, **how)
    assert y.dtype == np.float64
    assert y.shape == x.shape
    close(y, theirs, far)

    dy = rng.normal(size=x.shape)
    theirs.backward(torch.tensor(dy))
    terms = np.abs(dy).max() * (1 if weight is None else np.abs(weight).max())
    gradients = reference.normalize_backward(dy, x, norm, weight, eps, **how)
    for ours, leaf in zip(gradients, leaves, strict=True):
        if leaf is not None:
            assert ours.shape == (leaf.shape if ours.ndim == leaf.ndim else (leaf.numel(),))
            close(ours.reshape(leaf.shape), leaf.grad, far, terms)


@pytest.mark.parametrize("affine", ["both", "weight", "bias", "neither"])
@pytest.mark.parametrize("norm", NORMS)
def test_norms_on_random_shapes(norm, affine):
    rng = np.random.default_rng([*norm.encode(), *affine.encode()])
    for offset in (0.0, 0.0, 0.0, 1e4, -1e7):
        first = NORMS[norm].channels == "first"
        shape = [int(n) for n in rng.integers(2, 7, int(rng.integers(3, 6)))]
        num_groups, inner = 1, None
        if first:
            channels = shape[1]
            if norm == "group":
                num_groups = int(rng.integers(1, 4))
                channels = shape[1] = num_groups * int(rng.integers(1, 4))
        else:
            inner = tuple(shape[-int(rng.integers(1, 3)) :])
            channels = inner
        x = cases.uneven(rng, shape) + offset
        weight, bias = cases.affine(rng, channels)
        weight = weight if affine in ("both", "weight") else None
        bias = bias if affine in ("both", "bias") and norm != "rms" else None
        eps = float(rng.choice([1e-5, 1e-3, 0.3]))
        both_directions(norm, x, weight, bias, eps, rng, num_groups, inner, far=abs(offset))


@pytest.mark.parametrize("name", OF_EXERCISE)
def test_norms_on_every_case_of_their_exercise(name):
    exercise, norm = exercises.EXERCISES[name], OF_EXERCISE[name]
    for case in exercise.cases:
        if case.raises:
            continue
        args, kwargs = exercise.draw(case, b"public")
        rng = np.random.default_rng(1)
        x = args[0].astype(np.float64)
        if not x.size:
            continue
        rest = (
            {"num_groups": args[1]}
            if norm == "group"
            else {"normalized_shape": args[1]}
            if norm in ("layer", "rms")
            else {}
        )
        affine = args[1:3] if norm == "batch" else (kwargs.get("weight"), kwargs.get("bias"))
        weight, bias = (None if a is None else a.astype(np.float64) for a in affine)
        eps = kwargs.get("eps", 1e-5)
        far = np.abs(x).max() if case.far else 0.0
        both_directions(norm, x, weight, bias, eps, rng, far=far, **rest)


def softmax_inputs():
    rng = np.random.default_rng(5)
    for case in (*exercises.EXERCISES["softmax"].cases, *exercises.EXERCISES["logsumexp"].cases):
        args, kwargs = exercises.EXERCISES["softmax"].draw(case, b"public")
        yield args[0].astype(np.float64), kwargs.get("axis", -1)
    for _ in range(30):
        shape = rng.integers(1, 7, int(rng.integers(1, 5)))
        x = rng.normal(size=shape) * rng.choice([1, 30]) + rng.choice([0, 1e4, -1e4])
        yield x, int(rng.integers(-x.ndim, x.ndim))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmaxes_forward_and_backward(name):
    rng = np.random.default_rng(6)
    for x, axis in softmax_inputs():
        with np.errstate(invalid="ignore", divide="ignore"):
            y = getattr(reference, name)(x, axis)
        leaf = torch.tensor(x, requires_grad=True)
        theirs = getattr(torch, name)(leaf, dim=axis)
        close(y, theirs)
        if not np.isfinite(x).all():
            continue  # the gradient there is NaN, or a matter of taste
        dy = rng.normal(size=x.shape)
        theirs.backward(torch.tensor(dy))
        close(getattr(reference, f"{name}_backward")(dy, y, axis), leaf.grad, terms=np.abs(dy).max(initial=0))


def test_logsumexp():
    for x, axis in softmax_inputs():
        with np.errstate(divide="ignore"):
            ours = reference.logsumexp(x, axis)
        theirs = torch.logsumexp(torch.tensor(x), dim=axis)
        assert ours.shape == theirs.shape
        close(ours, theirs)
    assert reference.logsumexp(np.array([np.inf, -np.inf])) == np.inf
    with np.errstate(divide="ignore"):
        assert reference.logsumexp(np.array([-np.inf, -np.inf])) == -np.inf


@pytest.mark.parametrize("ignore_index", [-100, 1, -1])
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e4])
def test_cross_entropy(ignore_index, offset):
    rng = np.random.default_rng([abs(ignore_index), int(abs(offset))])
    for n, classes in ((1, 2), (5, 3), (7, 11)):
        logits = rng.normal(size=(n, classes)) * 4 + offset
        target = rng.integers(0, classes, n)
        target[rng.random(n) < 0.4] = ignore_index
        target[0] = 0
        leaf = torch.tensor(logits, requires_grad=True)
        theirs = F.cross_entropy(leaf, torch.tensor(target), ignore_index=ignore_index)
        theirs.backward()
        close(reference.cross_entropy(logits, target, ignore_index), theirs)
        close(reference.cross_entropy_backward(logits, target, ignore_index), leaf.grad)


def test_cross_entropy_with_every_row_ignored():
    logits, target = np.ones((3, 4)), np.full(3, -100)
    assert torch.isnan(F.cross_entropy(torch.tensor(logits), torch.tensor(target)))
    assert np.isnan(reference.cross_entropy(logits, target))
    assert not reference.cross_entropy_backward(logits, target).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_of_the_input_is_kept(dtype):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(3, 4)).astype(dtype), rng.normal(size=4).astype(dtype)
    target = np.array([0, 3, -100])
    for norm in NORMS:
        if norm != "instance":
            assert reference.normalize(x, norm, weight, weight).dtype == dtype
            assert {g.dtype for g in reference.normalize_backward(x, x, norm, weight)} == {np.dtype(dtype)}
    for function in (reference.softmax, reference.log_softmax, reference.logsumexp):
        assert function(x).dtype == dtype
    assert reference.cross_entropy(x, target).dtype == dtype
    assert reference.cross_entropy(x, np.full(3, -100)).dtype == dtype
    assert reference.cross_entropy_backward(x, target).dtype == dtype


def test_it_stays_short_enough_to_be_read():
    assert len(Path(reference.__file__).read_text().splitlines()) <= 200
