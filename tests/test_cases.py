"""Seeds, secrets, drawing, and the tolerance rule."""

import numpy as np
import pytest

from normlab import cases, exercises

ALL = [(exercise, case) for exercise in exercises.EXERCISES.values() for case in exercise.cases]


def arrays(exercise, case, seed):
    """What distinguishes two draws of a case: its arrays and numbers, as bytes."""
    args, kwargs = exercise.draw(case, seed)
    parts = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, np.random.Generator):
            value = value.bit_generator.state["state"]["state"]
        parts.append((value.shape, value.tobytes()) if isinstance(value, np.ndarray) else repr(value))
    return parts


def test_without_a_secret_the_seed_is_public(monkeypatch):
    monkeypatch.delenv("NORMLAB_SECRET_FILE", raising=False)
    assert cases.secret() == b"public"
    monkeypatch.setenv("NORMLAB_SECRET_FILE", "")
    assert cases.secret() == b"public"


def test_the_secret_is_the_content_of_its_file(monkeypatch, tmp_path):
    (tmp_path / "secret").write_bytes(b"  ferns and moss\n")
    monkeypatch.setenv("NORMLAB_SECRET_FILE", str(tmp_path / "secret"))
    assert cases.secret() == b"ferns and moss"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.write_text(" \n"), "empty file"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
    ],
)
def test_a_secret_that_is_none(monkeypatch, tmp_path, make, words):
    make(tmp_path / "secret")
    monkeypatch.setenv("NORMLAB_SECRET_FILE", str(tmp_path / "secret"))
    with pytest.raises(ValueError, match="NORMLAB_SECRET_FILE") as error:
        cases.secret()
    assert words in str(error.value)
    assert str(tmp_path) not in str(error.value), "where the secret lies is nobody's business"


def test_every_draw_of_a_case_is_the_same_and_its_own():
    for exercise, case in ALL:
        assert arrays(exercise, case, b"public") == arrays(exercise, case, b"public"), (exercise.name, case.name)
        (first, *_), _ = exercise.draw(case, b"public")
        (second, *_), _ = exercise.draw(case, b"public")
        if isinstance(first, np.ndarray):
            assert not np.shares_memory(first, second), (exercise.name, case.name)


# What is the same for every secret: the question's own seed, one chosen for its size, and an empty input.
FIXED = {
    ("old_output", "question"),
    ("old_output", "large-seed"),
    ("rms_norm", "no-tokens"),
    ("layer_norm", "no-tokens"),
    ("welford", "empty"),
    ("merge_statistics", "both-empty"),
    ("online_softmax", "no-chunks"),
}


def test_secrets_change_the_numbers_of_every_case():
    for exercise, case in ALL:
        draws = {repr(arrays(exercise, case, b"secret %d" % i)) for i in range(6)}
        assert len(draws) > 1 or (exercise.name, case.name) in FIXED, (exercise.name, case.name)


def test_exercises_with_the_same_cases_get_other_numbers():
    l1, l2 = exercises.EXERCISES["normalize_l1"], exercises.EXERCISES["normalize_l2"]
    case = l1.cases[0]
    assert arrays(l1, case, b"public") != arrays(l2, case, b"public")


def test_names_parts_and_words():
    for exercise in exercises.EXERCISES.values():
        names = [case.name for case in exercise.cases]
        assert len(set(names)) == len(names), exercise.name
        assert {case.part for case in exercise.cases} == set(cases.PARTS), exercise.name
        for case in exercise.cases:
            assert case.kind, (exercise.name, case.name)
            assert not case.kind.endswith("."), (exercise.name, case.name)


def test_a_view_is_hostile():
    x = cases.view(np.random.default_rng(0), (3, 4, 5))
    assert x.shape == (3, 4, 5)
    assert not x.flags.c_contiguous
    assert min(x.strides) < 0


# ---- the tolerance ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_tolerance_scales_with_the_output(dtype):
    truth = np.array([1.0, -3.0])
    once = cases.tolerance(truth, truth, dtype)
    assert cases.tolerance(truth * 1024, truth * 1024, dtype) == pytest.approx(1024 * once, rel=1e-3)
    assert 4 * np.finfo(dtype).eps * 3 <= once <= 64 * np.finfo(dtype).eps * 3


def test_tolerance_follows_the_error_of_the_plain_formula():
    truth = np.array([1.0, 2.0])
    assert cases.tolerance(truth, truth + 1e-6, np.float64) == pytest.approx(16e-6, rel=1e-6)
    assert cases.tolerance(truth, truth, np.float64, truth - 1e-6) == pytest.approx(16e-6, rel=1e-6)


def test_tolerance_grants_nothing_near_zero_by_an_absolute_number():
    truth = np.array([1e-30, 2e-30])
    assert cases.tolerance(truth, truth, np.float64) < 1e-43
    assert 0 < cases.tolerance(np.zeros(2), np.zeros(2), np.float32) < 1e-44


def test_tolerance_passes_over_what_is_not_finite():
    truth = np.array([1.0, np.inf, -np.inf, np.nan])
    assert np.isfinite(cases.tolerance(truth, truth, np.float32))
    assert np.isfinite(cases.tolerance(truth, np.full(4, np.nan), np.float32))
    assert cases.tolerance(np.zeros((0, 3)), np.zeros((0, 3)), np.float64) < 1e-300


def test_tolerance_of_float16_is_that_of_float32_arithmetic_and_one_rounding():
    truth = np.array([1.0])
    assert cases.tolerance(truth, truth, np.float16) < 5 * np.finfo(np.float16).eps
