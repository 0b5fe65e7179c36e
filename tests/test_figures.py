"""book/figures.py: pictures in both modes, the same on every run, described, and true to the table of norms."""

import base64
import importlib
import itertools
import re
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from normlab.axes import NORMS

ALT = "A line that rises from zero to one, in one color on an empty ground."
NUMBERS = [["start", 0.0], ["end", 1.0]], ["", "height"]


@pytest.fixture(scope="module")
def figures():
    """The module book/figures.py."""
    matplotlib.use("agg")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "book"))
    yield importlib.import_module("figures")
    sys.path.pop(0)


def line(c):
    fig, ax = plt.subplots()
    ax.plot([0, 1], color=c.blue)
    return fig


def pictures(markup):
    """The SVG texts in the HTML of a figure."""
    return [base64.b64decode(data).decode() for data in re.findall(r"base64,([^\"]+)", markup)]


def test_both_modes_are_drawn_in_their_own_colors(figures):
    markup = figures.markup(line, ALT, numbers=NUMBERS)
    light, dark = pictures(markup)
    assert figures.LIGHT.blue in light
    assert figures.DARK.blue not in light
    assert figures.DARK.blue in dark
    assert markup.index("only-light") < markup.index("only-dark")
    assert markup.count(f'alt="{ALT}"') == 2


def test_outside_the_site_the_light_picture_alone_shows(figures):
    light, dark = re.findall(r"<img[^>]*?style=\"([^\"]*)\"", figures.markup(line, ALT, numbers=NUMBERS))
    assert "display" not in light
    assert "display:none" in dark


def test_a_picture_is_the_same_on_every_run(figures):
    assert figures.markup(line, ALT, numbers=NUMBERS) == figures.markup(line, ALT, numbers=NUMBERS)
    assert "<dc:date>" not in pictures(figures.markup(line, ALT, numbers=NUMBERS))[0]


def test_no_figure_stays_open(figures):
    figures.markup(line, ALT, numbers=NUMBERS)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("alt", ["", "a plot", " " * 60])
def test_a_picture_must_be_described(figures, alt):
    with pytest.raises(ValueError, match="alt text must say what the picture shows"):
        figures.markup(line, alt, numbers=NUMBERS)


def test_text_of_a_figure_is_escaped(figures):
    markup = figures.markup(line, alt=f'"{ALT}"', caption="x < y", numbers=NUMBERS)
    assert f"&quot;{ALT}&quot;" in markup
    assert "<figcaption>x &lt; y</figcaption>" in markup


def test_a_picture_has_its_numbers_in_a_fold_and_its_caption_last(figures):
    markup = figures.markup(line, ALT, "Rising.", numbers=[NUMBERS, (*NUMBERS, "the same")])
    assert re.fullmatch(r"<figure .*<img .*<details .*</details><figcaption>Rising.</figcaption></figure>", markup)
    fold = re.search(r"<details.*</details>", markup)[0]
    assert " open" not in fold
    assert fold.count(figures.table_markup(*NUMBERS)) == 1
    assert figures.table_markup(*NUMBERS, "the same") in fold
    assert figures.table_markup(*NUMBERS) in figures.markup(line, ALT, numbers=NUMBERS)


def test_a_picture_says_where_else_its_numbers_are(figures):
    for word in ("below", "none"):
        markup = figures.markup(line, ALT, numbers=word)
        assert f'data-numbers="{word}"' in markup
        assert "<details" not in markup
    with pytest.raises(ValueError, match="numbers must be tables"):
        figures.markup(line, ALT, numbers="somewhere")
    with pytest.raises(TypeError, match="numbers"):
        figures.show(line, ALT)


def test_a_table_aligns_numbers_and_knows_no_minus_zero(figures):
    markup = figures.table_markup([["sum", -1e-9, "a < b"], ["n", np.int64(-2), True]], ["", "x", "note"])
    assert '<td></td><th scope="col" class="number">x</th><th scope="col">note</th>' in markup
    assert '<tr><th scope="row">sum</th><td class="number">0.0000</td><td>a &lt; b</td></tr>' in markup
    assert '<td class="number">\N{MINUS SIGN}2</td><td>True</td>' in markup
    assert '<td class="number">0.5000</td>' in figures.table_markup([["half", np.float32(0.5)]], ["", "x"])


def test_numbers_of_many_sizes_are_short_and_ends_are_said_once(figures):
    assert [figures.short(v) for v in (0.00001234, -0.5, 0, 150.0)] == ["1.2e−5", "−0.5", "0", "1.5e2"]
    assert figures.short(1.25e12, 3) == "1.25e12"
    assert figures.span([0.25, -1.5, 0]) == "−1.50 to 0.25"
    assert figures.span([-0.001, 0.001]) == "0.00"
    assert figures.span([9.6, 10.4], 0) == "10"


def test_histogram_returns_its_heights(figures):
    _, ax = plt.subplots()
    heights = figures.histogram(ax, [0.1, 0.2, 1.5], [0, 1, 2], figures.LIGHT)
    assert heights.tolist() == [2, 1]
    assert [patch.get_height() for patch in ax.patches] == [2, 1]
    plt.close("all")


# -- The cube --------------------------------------------------------------------------------------------------------

POOLED = {"batch": 3 * 5, "layer": 2 * 4, "instance": 5, "group": 4 * 5, "rms": 2 * 4}


@pytest.mark.parametrize("norm", NORMS)
def test_the_cube_colors_the_pool_of_each_norm(figures, norm):
    n_size, groups, depth, s_size = sizes = (3, 2, 4, 5)
    _, ax = plt.subplots()
    pool = figures.pool_cube(ax, norm, figures.LIGHT, sizes=sizes)
    assert pool.sum() == POOLED[norm]
    # Of each block the faces on the three visible sides of the cube are drawn.
    element = np.indices((n_size, groups * depth, s_size))
    faces = (element == 0).sum(axis=0)
    drawn = [patch.get_gid() for patch in ax.patches]
    assert len(drawn) == faces.sum()
    assert drawn.count("pooled") == faces[pool].sum()
    plt.close("all")


@pytest.mark.parametrize("norm", NORMS)
def test_a_pool_holds_what_shares_its_statistics(figures, norm):
    """Moving an element's value moves the mean of exactly the elements in its pool."""
    x = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
    axes = tuple("NGDS".index(letter) for letter in NORMS[norm].pools)
    moved = x.copy()
    moved[0, 0, 0, 0] += 1
    means = [np.broadcast_to(values.mean(axis=axes, keepdims=True), x.shape) for values in (x, moved)]
    assert np.array_equal(means[0] != means[1], figures.pooled(norm, x.shape))


def test_hatched_is_what_does_not_centre(figures):
    _, ax = plt.subplots()
    for norm in NORMS:
        ax.clear()
        figures.pool_cube(ax, norm, figures.LIGHT)
        hatches = {patch.get_hatch() for patch in ax.patches if patch.get_gid() == "pooled"}
        assert (hatches == {None}) == NORMS[norm].centered
    plt.close("all")


# -- Colors ---------------------------------------------------------------------------------------------------------

HUES = ("blue", "orange", "green", "red", "purple")
# What people without one kind of cone see, in linear RGB (Machado, Oliveira and Fernandes, 2009).
SEEN = {
    "all cones": np.eye(3),
    "no red": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "no green": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "no blue": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


def linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """Contrast ratio of WCAG 2 between two colors."""
    dark, light = sorted(linear(color) @ [0.2126, 0.7152, 0.0722] for color in (a, b))
    return (light + 0.05) / (dark + 0.05)


def oklab(rgb):
    """Linear RGB in a space where distance is what the eye sees."""
    cones = [[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]]
    lab = [[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]]
    return np.array(lab) @ np.cbrt(np.array(cones) @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("name", ["LIGHT", "DARK"])
def test_colors_stand_out_from_the_ground(figures, name):
    theme = getattr(figures, name)
    for hue in HUES:
        assert contrast(getattr(theme, hue), theme.background) >= 3
    for writing in (theme.text, theme.muted):
        assert contrast(writing, theme.background) >= 4.5


@pytest.mark.parametrize("eyes", SEEN)
@pytest.mark.parametrize("name", ["LIGHT", "DARK"])
def test_hues_differ_for_every_reader(figures, name, eyes):
    theme = getattr(figures, name)
    seen = {hue: oklab(np.array(SEEN[eyes]) @ linear(getattr(theme, hue))) for hue in HUES}
    for a, b in itertools.combinations(HUES, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 0.09, f"{a} and {b} look alike"
