"""The exercises: their two truths agree, their right solutions are accepted in any style."""

import importlib.util
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from normlab import check, exercises, guard, verdict
from normlab.exercises import EXERCISES

HERE = Path(__file__).resolve().parent
SEEDS = [b"public", b"course 17"]

CHAPTERS = {
    "puzzle": ["standardize*", "old_output"],
    "meanings": ["normalize_l1", "normalize_l2", "min_max", "z_score"],
    "shape": ["histogram_probabilities", "histogram_density*", "held_out_log_likelihood"],
    "softmax": ["softmax*", "logsumexp", "gumbel_max", "bayes_posterior"],
    "axes": ["batch_norm*", "layer_norm*", "instance_norm", "group_norm*", "rms_norm"],
    "running": ["BatchNorm*", "fold_batch_norm"],
    "cross_entropy": ["log_softmax*", "cross_entropy*", "cross_entropy_backward", "softmax_backward"],
    "backward": ["numerical_gradient", "layer_norm_backward*", "batch_norm_backward", "rms_norm_backward"],
    "hunt": ["mutant_hunt"],
    "variance": ["two_pass_variance", "welford", "merge_statistics*"],
    "attention": ["masked_softmax", "online_softmax*", "attention"],
    "kernels": ["bytes_moved", "softmax_rows", "softmax_kernel", "layer_norm_kernel"],
}


@cache
def styles(name):
    """The right solutions of tests/styles/<name>.py."""
    spec = importlib.util.spec_from_file_location(f"styles_of_{name}", HERE / "styles" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.STYLES


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Small arrays: threads only cost time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_exercises_and_their_chapters():
    listed = {}
    for exercise in EXERCISES.values():
        listed.setdefault(exercise.stem, []).append(exercise.name + "*" * exercise.core)
    assert listed == CHAPTERS


@pytest.mark.parametrize(
    ("name", "signature"),
    {
        "standardize": "standardize(x, eps=1e-05)",
        "old_output": "old_output(seed)",
        "normalize_l1": "normalize_l1(x, axis=-1, eps=1e-12)",
        "normalize_l2": "normalize_l2(x, axis=-1, eps=1e-12)",
        "min_max": "min_max(x, axis=-1)",
        "z_score": "z_score(x, axis=-1, eps=1e-05)",
        "histogram_probabilities": "histogram_probabilities(x, edges)",
        "histogram_density": "histogram_density(x, edges)",
        "held_out_log_likelihood": "held_out_log_likelihood(train, test, edges)",
        "softmax": "softmax(x, axis=-1)",
        "logsumexp": "logsumexp(x, axis=-1)",
        "gumbel_max": "gumbel_max(logits, rng, size)",
        "bayes_posterior": "bayes_posterior(log_prior, log_likelihood)",
        "batch_norm": "batch_norm(x, weight, bias, eps=1e-05)",
        "layer_norm": "layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-05)",
        "instance_norm": "instance_norm(x, weight=None, bias=None, eps=1e-05)",
        "group_norm": "group_norm(x, num_groups, weight=None, bias=None, eps=1e-05)",
        "rms_norm": "rms_norm(x, normalized_shape, weight=None, eps=None)",
        "BatchNorm": "BatchNorm(num_features, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)",
        "fold_batch_norm": "fold_batch_norm(weight, bias, running_mean, running_var, gamma, beta, eps=1e-05)",
        "log_softmax": "log_softmax(x, axis=-1)",
        "cross_entropy": "cross_entropy(logits, target, ignore_index=-100)",
        "cross_entropy_backward": "cross_entropy_backward(logits, target, ignore_index=-100)",
        "softmax_backward": "softmax_backward(dy, y, axis=-1)",
        "numerical_gradient": "numerical_gradient(f, x, dy, h)",
        "layer_norm_backward": "layer_norm_backward(dy, x, weight, eps=1e-05)",
        "batch_norm_backward": "batch_norm_backward(dy, x, weight, eps=1e-05)",
        "rms_norm_backward": "rms_norm_backward(dy, x, weight, eps=1e-06)",
        "mutant_hunt": "mutant_hunt(candidate)",
        "two_pass_variance": "two_pass_variance(x)",
        "welford": "welford(stream)",
        "merge_statistics": "merge_statistics(a, b)",
        "masked_softmax": "masked_softmax(x, mask, axis=-1)",
        "online_softmax": "online_softmax(chunks)",
        "attention": "attention(q, key_value_blocks, scale, mask_blocks=None)",
        "bytes_moved": "bytes_moved(op, shape, itemsize, fused)",
        "softmax_rows": "softmax_rows(x, out)",
        "softmax_kernel": "softmax_kernel(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK)",
        "layer_norm_kernel": "layer_norm_kernel"
        "(x_ptr, out_ptr, weight_ptr, bias_ptr, x_stride, out_stride, n_cols, eps, BLOCK)",
    }.items(),
)
def test_signatures(name, signature):
    assert EXERCISES[name].signature == signature


@pytest.mark.parametrize("name", EXERCISES)
def test_pytorch_and_numpy_agree_on_every_case(name):
    """The truth where PyTorch is installed, and the one in the browser."""
    exercise = EXERCISES[name]
    if exercise.numpy_truth is None:
        with pytest.raises(RuntimeError, match="needs torch"):
            exercises.truth(exercise, (0,), {}, use_torch=False)
        return
    for seed in (*SEEDS, b"course 3", b"course 4", b"course 40"):
        for case in exercise.cases:
            args, kwargs = exercise.draw(case, seed)
            if case.raises:
                for use_torch in (True, False):
                    with pytest.raises(case.raises):
                        exercises.truth(exercise, args, kwargs, use_torch)
                continue
            theirs, ours = (exercises.truth(exercise, args, kwargs, use_torch) for use_torch in (True, False))
            theirs, ours = (truth if isinstance(truth, tuple) else (truth,) for truth in (theirs, ours))
            # Not the tolerance of the check: in float64 that is made of the difference between these two.
            allowed = 1e-7 * max(np.abs(a[np.isfinite(a)]).max(initial=1e-6) for a in theirs)
            for (piece, _), a, b in zip(exercise.pieces, theirs, ours, strict=True):
                assert b.shape == a.shape, (case.name, piece)
                assert verdict.wrong_values(a, allowed, b.astype(np.float64)) is None, (case.name, piece, seed)


def test_the_truth_without_pytorch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert exercises.torch_or_none() is None
    assert exercises.truth(EXERCISES["softmax"], (np.log([1.0, 3.0]),), {}) == pytest.approx([0.25, 0.75])


def test_a_low_precision_that_overflows_does_not_spoil_the_truth():
    args, kwargs = (np.array([[30000, 30000, 10000]], np.float16),), {"axis": -1}
    assert exercises.truth(EXERCISES["normalize_l1"], args, kwargs) == pytest.approx(np.array([[3, 3, 1]]) / 7)


@pytest.mark.parametrize("some", [slice(3), pytest.param(slice(3, None), marks=pytest.mark.exhaustive)], ids=str)
@pytest.mark.parametrize("name", EXERCISES)
def test_at_least_three_right_styles_are_accepted(name, some):
    """Loops, einsum, folded affine, float64 inside, ...: tolerances and cases must be fair to all of them."""
    assert len(set(styles(name))) >= 3
    bench = verdict.Bench(EXERCISES[name], SEEDS[0])
    for style in styles(name)[some]:
        refusal = check._refusal(bench, style, None)
        assert refusal is None, (style, refusal)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", EXERCISES)
def test_styles_are_accepted_under_another_seed(name, monkeypatch):
    """Which draws other numbers. Calls are not watched: those of a loop take longer than the loop."""
    monkeypatch.setattr(check, "run", partial(guard.run, watched=False))
    bench = verdict.Bench(EXERCISES[name], SEEDS[1])
    for style in styles(name):
        refusal = check._refusal(bench, style, None)
        assert refusal is None, (style, refusal)


def test_there_are_styles_of_every_exercise_and_of_nothing_else():
    assert {path.stem for path in (HERE / "styles").glob("*.py")} == set(EXERCISES)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sofmax", "did you mean softmax"),
        ("layernorm", "did you mean layer_norm"),
        ("qqq", "--list"),
        ("", "--list"),
        (None, "--list"),
        (3, "--list"),
    ],
)
def test_an_unknown_exercise(name, hint):
    with pytest.raises(ValueError, match="there is no exercise") as error:
        exercises.find(name)
    assert hint in str(error.value)
