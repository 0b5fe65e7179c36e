"""The table of pooled axes."""

import pytest

from normlab.axes import LETTERS, NORMS, ngds_shape, pooled_axes


def test_the_table_says_what_each_norm_pools():
    pools = {name: set(norm.pools) for name, norm in NORMS.items()}
    expected = {"batch": "NS", "layer": "GD", "instance": "S", "group": "DS", "rms": "GD"}
    assert pools == {name: set(letters) for name, letters in expected.items()}
    assert [name for name, norm in NORMS.items() if not norm.centered] == ["rms"]
    assert {name: norm.channels for name, norm in NORMS.items()} == {
        "batch": "first",
        "instance": "first",
        "group": "first",
        "layer": "last",
        "rms": "last",
    }


def test_pooled_axes_are_the_numbers_of_the_letters():
    for name, norm in NORMS.items():
        assert {LETTERS[axis] for axis in pooled_axes(name)} == set(norm.pools)
        assert list(pooled_axes(name)) == sorted(pooled_axes(name))


@pytest.mark.parametrize(
    ("shape", "norm", "how", "expected"),
    [
        ((5, 6), "batch", {}, (5, 1, 6, 1)),
        ((2, 6, 4, 3), "batch", {}, (2, 1, 6, 12)),
        ((2, 6, 4, 3), "group", {"num_groups": 3}, (2, 3, 2, 12)),
        ((2, 6, 2, 2, 2), "instance", {}, (2, 1, 6, 8)),
        ((7,), "layer", {}, (1, 1, 7, 1)),
        ((2, 3, 7), "rms", {"normalized_shape": 7}, (6, 1, 7, 1)),
        ((2, 3, 7), "layer", {"normalized_shape": (3, 7)}, (2, 1, 21, 1)),
        ((0, 6), "layer", {"normalized_shape": [6]}, (0, 1, 6, 1)),
    ],
)
def test_shapes(shape, norm, how, expected):
    assert ngds_shape(shape, norm, **how) == expected


@pytest.mark.parametrize(
    ("shape", "norm", "how", "words"),
    [
        ((6,), "batch", {}, "needs (N, C, positions...)"),
        ((2, 6), "group", {"num_groups": 4}, "4 groups do not divide 6 channels"),
        ((2, 6), "group", {"num_groups": 0}, "0 groups do not divide"),
        ((2, 6), "layer", {"normalized_shape": 5}, "does not fit an array of shape (2, 6)"),
        ((2, 6), "rms", {"normalized_shape": ()}, "does not fit"),
        ((6,), "layer", {"normalized_shape": (2, 6)}, "does not fit"),
        ((), "layer", {}, "does not fit an array of shape ()"),
    ],
)
def test_shapes_that_fit_no_norm(shape, norm, how, words):
    with pytest.raises(ValueError) as error:
        ngds_shape(shape, norm, **how)
    assert words in str(error.value)
