"""The explorable pictures: their numbers beside NumPy's and PyTorch's; what hands, eyes, ears and paper get of them.

All pictures are opened once, on one page. Their numbers are read from the tables below them, whose <data> elements hold
all digits.
"""

import ast
import gzip
import importlib
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup

from tools import screenshots

REPO = Path(__file__).resolve().parent.parent
PAGES = {
    "batch": "shape",
    "pools": "axes",
    "gumbel": "softmax",
    "eps": "puzzle",
    "offset": "variance",
    "online": "attention",
    "lost": "backward",
}
ALSO = pytest.mark.exhaustive  # what only `make prove` runs
BUDGET = 60 * 1024  # gzipped, for all scripts that a page loads for its pictures


@pytest.fixture(scope="module")
def stills():
    """The module that computes the tables of the page."""
    sys.path.insert(0, str(REPO / "book" / "_ext"))
    yield importlib.import_module("normlab_site.stills")
    sys.path.pop(0)


def figure(page, name):
    """The HTML of the picture `name` on its page."""
    return re.search(rf'<figure[^>]* data-explore="{name}".*?</figure>', page, re.DOTALL)[0]


# -- The pages as files ----------------------------------------------------------------------------------------------


def test_every_picture_has_its_page(stills):
    assert set(PAGES) == set(stills.STILLS)


def test_scripts_and_style_are_loaded_where_a_picture_stands_and_nowhere_else(site):
    found = []
    for path in site.rglob("*.html"):
        text = path.read_text()
        names = re.findall(r'<figure[^>]* data-explore="(\w+)"', text)
        tags = re.findall(r"<script[^>]* src=[^>]*/explore[^>]*>", text)
        loaded = [re.search(r"/(explore[\w-]*\.js)", tag)[1] for tag in tags]
        assert loaded == (["explore.js", *(f"explore-{name}.js" for name in names)] if names else []), path
        assert ("explore.css" in text) == bool(names), path
        assert all("defer" in tag for tag in tags)
        weight = sum(len(gzip.compress((site / "_static" / name).read_bytes())) for name in loaded)
        assert weight < BUDGET
        assert [PAGES[name] for name in names] == [path.stem] * len(names)
        found += names
    assert sorted(found) == sorted(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_the_table_of_the_page_is_what_numpy_computes(site, stills, name):
    soup = BeautifulSoup(figure((site / "book" / f"{PAGES[name]}.html").read_text(), name), "html.parser")
    rows = [
        [cell.get_text() for cell in row.find_all(["th", "td"])]
        for row in soup.select(f"#explore-{name} .explore-still tr")
    ]
    still = stills.STILLS[name]()
    assert rows == [list(still.head), *([stills.words(value) for value in row] for row in still.rows)]
    assert all(len(row) == len(still.head) for row in rows)


def test_data_that_stand_in_a_chapter_too_are_the_same(stills):
    puzzle = (REPO / "book" / "puzzle.md").read_text()
    assert ast.literal_eval(re.search(r"printed = np.array\((\[.*?\])\)", puzzle)[1]) == stills.EIGHT
    attention = (REPO / "book" / "attention.md").read_text()
    chunks = ast.literal_eval(re.search(r"^chunks = np.array\((\[\[.*?\]\])\)", attention, re.MULTILINE)[1])
    assert np.ravel(chunks).tolist() == stills.LOGITS


# -- The pictures in a browser ---------------------------------------------------------------------------------------


PRESS = """([id, buttons]) => buttons.forEach((words) => {
    [...document.querySelectorAll(`#${id} button`)].find((button) => button.textContent === words).click();
})"""
SET = """([id, controls]) => Object.entries(controls).forEach(([control, value]) => {
    if (typeof value === "string") {
        document.querySelector(`input[name=${id}-${control}][value="${value}"]`).click();
    } else {
        const slider = document.querySelector(`input#${id}-${control}`);
        slider.value = value;
        if (Number(slider.value) !== value) throw new Error(`${control} does not go to ${value}`);
        slider.dispatchEvent(new Event("input", { bubbles: true }));
    }
})"""


class Picture:
    """One picture on its page, and a reader's hands."""

    def __init__(self, tab, name):
        self.tab, self.name = tab, name
        self.figure = tab.locator(f"#explore-{name}")
        self.says = self.figure.locator(".explore-says")
        self.svg = self.figure.locator("svg")

    def again(self):
        self.press("Start again")

    def press(self, *buttons):
        """Press buttons, one after another, as quickly as a script can."""
        self.tab.evaluate(PRESS, [f"explore-{self.name}", buttons])

    def set(self, **controls):
        """Move sliders and choose radio buttons, by the names of the picture's state."""
        self.tab.evaluate(SET, [f"explore-{self.name}", controls])

    def numbers(self):
        """The table below the picture: {row: [number, ...]}."""
        return self.tab.evaluate(
            """id => Object.fromEntries([...document.querySelectorAll(`#${id} .explore-live tbody tr`)].map((row) =>
                [row.querySelector("th").textContent, [...row.querySelectorAll("data")].map((cell) => cell.value)]))""",
            f"explore-{self.name}",
        )

    def row(self, head):
        return [float(value.replace("Infinity", "inf").replace("NaN", "nan")) for value in self.numbers()[head]]

    def sentence(self):
        """The sentence of the present state: it follows when the hands rest."""
        late = self.figure.locator(".explore-says[data-late]")
        late.wait_for(state="detached", timeout=3000)
        return self.says.inner_text()


def together(site):
    """The HTML of a page of all pictures, each as its chapter has it, with room to scroll: quicker than chapters."""
    pages = {name: (site / "book" / f"{page}.html").read_text() for name, page in PAGES.items()}
    figures = [figure(page, name) for name, page in pages.items()]
    scripts = [re.search(rf"<script[^>]*/explore-{name}\.js.*?</script>", page)[0] for name, page in pages.items()]
    head, article, rest = pages["pools"].partition('<article class="bd-article">')
    head = head.replace(scripts[1], "".join(scripts))
    # The list of sections leads nowhere, as the sections are gone.
    foot = re.sub(r'href="#[^"]*"', 'href="#"', rest[rest.index("</article>") :])
    return (
        f"{head}{article}<section><h1>Pictures</h1>{''.join(figures)}<div style='height: 100vh'></div></section>{foot}"
    )


COMMIT = """() => document.querySelectorAll(".predict").forEach((block) => {
    block.querySelector("input").click();
    block.querySelector(".predict-commit").click();
})"""


@pytest.fixture(scope="module")
def opened(site, server, launch):
    """A function: width, height -> a tab of this size with all pictures, and what it has asked and complained of.

    One for each size: Chromium without a screen may cease to draw where a page is made wide and narrow many times.
    """
    if not (path := screenshots.chromium()):
        pytest.skip("Chromium is not installed. Not checked: the explorable pictures")
    tabs = {}

    def open_tab(width, height):
        if (width, height) in tabs:
            return tabs[width, height]
        context = launch(path).new_context(color_scheme="light", viewport={"width": width, "height": height})
        tab = tabs[width, height] = context.new_page()
        tab.asked, tab.complaints = [], []
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.on("console", lambda message: tab.complaints.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.route(f"{server}/book/all.html", lambda route: route.fulfill(body=together(site), content_type="text/html"))
        tab.goto(f"{server}/book/all.html")
        return tab

    yield open_tab
    for tab in tabs.values():
        tab.context.close()


@pytest.fixture
def tab(opened):
    return opened(1280, 900)


@pytest.fixture
def picture(opened):
    """A function: name -> its Picture, in the state in which the page shows it first."""

    def show(name, width=1280, height=900):
        shown = Picture(opened(width, height), name)
        shown.again()
        return shown

    return show


def test_random_numbers_are_those_of_numpy(picture, stills):
    index = [0, 1, 2, 1000, 65_535, 400_000]
    tab = picture("batch").tab
    for seed in (1, 5, 2022):
        for kind in ("random", "normal"):
            theirs = tab.evaluate(
                "([kind, seed, index]) => index.map((i) => normlabExplore[kind](seed, i))", [kind, seed, index]
            )
            np.testing.assert_allclose(theirs, getattr(stills, kind)(seed, np.array(index)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("data", "size", "place", "scale", "weight", "bias"),
    [
        ("exponential", 10, 0, 1, 1, 0),
        pytest.param("exponential", 3, 2, 0.5, 1, 0, marks=ALSO),
        pytest.param("exponential", 1, -3, 2, 1, 0, marks=ALSO),
        ("normal", 2, 1, 2, 0.5, 3),
        ("uniform", 13, -1, 0.25, -2, -1),
    ],
)
def test_batch_agrees_with_numpy(picture, stills, data, size, place, scale, weight, bias):
    shown = picture("batch")
    shown.set(data=data, size=size, place=place, scale=scale, weight=weight, bias=bias)
    beyond = []
    for head, values in zip(("before", "after"), stills.batch(data, 2**size, place, scale, weight, bias), strict=True):
        np.testing.assert_allclose(shown.row(head), stills.moments(values), rtol=1e-9, atol=1e-7)
        beyond.append(np.count_nonzero((values < -6.125) | (values >= 6.125)))
    caption = shown.figure.locator(".explore-live caption").text_content()
    assert f"Beyond the picture lie {beyond[0]} and {beyond[1]} of them." in caption


def test_only_the_batch_size_changes_the_shape(picture):
    shown = picture("batch")
    first = shown.row("after")[3]
    shown.set(place=3, scale=2, weight=2, bias=-3)
    assert shown.row("after")[3] == pytest.approx(first, abs=1e-9)
    shown.set(weight=-2)
    assert shown.row("after")[3] == pytest.approx(-first, abs=1e-9)
    shown.set(size=2)
    assert abs(shown.row("after")[3]) < 0.5
    said = shown.sentence()
    assert "the negative weight has turned it round" in said
    (low, high) = (-3 - 2 * math.sqrt(3), -3 + 2 * math.sqrt(3))
    assert f"None lies beyond {low:.2f} and {high:.2f}: a batch of 4".replace("-", "\N{MINUS SIGN}") in said


def torchs(x, norm, groups):
    """The normalized cells, by PyTorch."""
    last = x.movedim(1, 2)
    return {
        "batch": lambda: F.batch_norm(x, None, None, training=True),
        "layer": lambda: F.layer_norm(last, (6,)).movedim(2, 1),
        "instance": lambda: F.instance_norm(x),
        "group": lambda: F.group_norm(x, groups),
        "rms": lambda: F.rms_norm(last, (6,), eps=1e-5).movedim(2, 1),
    }[norm]()


@pytest.mark.parametrize(
    ("norm", "groups", "cell"),
    [
        ("batch", 3, (0, 1, 2)),
        ("layer", 3, (1, 5, 0)),
        ("instance", 3, (0, 3, 3)),
        pytest.param("group", 1, (1, 2, 1), marks=ALSO),
        ("group", 2, (0, 4, 2)),
        pytest.param("group", 6, (1, 0, 3), marks=ALSO),
        ("rms", 3, (0, 2, 2)),
    ],
)
def test_pools_agree_with_numpy_and_pytorch(picture, stills, norm, groups, cell):
    shown = picture("pools")
    shown.set(norm="group")
    shown.set(groups=str(groups))
    shown.set(norm=norm)
    # One cell is chosen by a click, the others by the controls.
    if norm == "layer":
        shown.figure.locator(".explore-cell").nth(int(np.ravel_multi_index(cell, (2, 6, 4)))).click()
    else:
        shown.set(example=cell[0] + 1, channel=cell[1] + 1, position=cell[2] + 1)
    pool, center, spread, after = stills.pools(norm, groups, cell)
    (size,), (pools,), (mean,) = (shown.row(head) for head in ("cells in the pool", "pools", "mean that is subtracted"))
    assert (size, pools, mean) == (len(pool), 48 / len(pool), pytest.approx(center, abs=1e-12))
    (spread_shown,) = shown.row("root of the mean square" if norm == "rms" else "standard deviation")
    assert spread_shown == pytest.approx(spread)
    assert shown.row("the cell, after") == [pytest.approx(after)]
    assert float(torchs(torch.tensor(stills.CELLS), norm, groups)[cell]) == pytest.approx(after, rel=1e-12)
    assert shown.figure.locator(".explore-shares").count() == len(pool)
    assert f"pools {len(pool)} of the 48 cells" in shown.sentence()


@pytest.mark.parametrize(
    ("step", "noise", "presses", "rounds"),
    [
        (0, "gumbel", ["+10,000 rounds"], 10_010),
        (8, "gaussian", ["+100 rounds", "+1 round"], 111),
        (-20, "uniform", ["+10,000 rounds", "+1 round"], 10_011),
        pytest.param(-50, "gumbel", ["Back to 0 rounds", "+1 round"], 1, marks=ALSO),
    ],
)
def test_gumbel_agrees_with_numpy(picture, stills, step, noise, presses, rounds):
    shown = picture("gumbel")
    shown.set(step=step, noise=noise)
    shown.press(*presses)
    temperature = math.log(2) ** (-step / 8)
    p, wins = stills.gumbel(temperature, noise, rounds)
    error = np.sqrt(p * (1 - p) / rounds)
    for option in range(4):
        want = [option / temperature, p[option], wins[option], wins[option] / rounds, error[option]]
        np.testing.assert_allclose(shown.row(str(option)), want, rtol=1e-12)
    assert f"Temperature {temperature:.2f}" in shown.sentence()


def test_gumbel_noise_is_softmax_and_gaussian_noise_is_not(picture):
    shown = picture("gumbel")
    shown.press(*["+10,000 rounds"] * 3)
    assert "Chance can do that" in shown.sentence()
    shown.set(noise="gaussian")
    assert "This is not chance" in shown.sentence()


@pytest.mark.parametrize(
    ("step", "exponent", "where"),
    [
        (20, -5, "under"),
        (30, -5, "beside"),
        pytest.param(60, -12, "under", marks=ALSO),
        pytest.param(0, -2, "beside", marks=ALSO),
    ],
)
def test_eps_agrees_with_numpy(picture, stills, step, exponent, where):
    shown = picture("eps")
    shown.set(step=step, exponent=exponent, where=where)
    std = 10 ** (-step / 10)
    want = stills.eps_variance(std, 10.0**exponent, where)
    assert shown.row("variance of the eight outputs, measured") == [pytest.approx(want, rel=1e-9)]
    assert shown.row("variance of the output, by the formula") == [pytest.approx(want, rel=1e-9)]
    if where == "under":
        assert want == pytest.approx(std**2 / (std**2 + 10.0**exponent), rel=1e-9)


def exact(x):
    """The variance of stored numbers: sums that are exact before the last rounding."""
    values = x.astype(float)
    d = values - math.fsum(values) / len(values)
    return (math.fsum(d * d) - math.fsum(d) ** 2 / len(values)) / len(values)


OFFSETS = [0, *(m * 10**k for k in range(9) for m in (1, 3))][:18]


@pytest.mark.parametrize("sums", ["running", "pairwise"])
@pytest.mark.parametrize(
    ("place", "size", "seed"),
    [pytest.param(0, 4, 1, marks=ALSO), (9, 10, 2), (9, 16, 1), pytest.param(17, 9, 20, marks=ALSO)],
)
def test_offset_is_numpys_float32_to_the_last_bit(picture, stills, place, size, seed, sums):
    shown = picture("offset")
    shown.set(place=place, size=size, seed=seed, sum=sums)
    x = stills.numbers(OFFSETS[place], 2**size, seed)
    mean = stills.running_mean if sums == "running" else np.mean
    for name, method in stills.METHODS.items():
        answer = method(x, mean)
        assert answer.dtype == np.float32
        assert shown.row(name)[0] == float(answer), name
    assert shown.row("exact")[0] == pytest.approx(exact(x), rel=1e-9)


def test_far_from_zero_one_pass_is_negative_and_says_so(picture):
    shown = picture("offset")
    shown.set(place=13)
    assert shown.row("one pass")[0] < 0
    assert "and negative" in shown.sentence()


@pytest.mark.parametrize(
    ("order", "size"),
    [
        ("given", 4),
        ("rising", 2),
        *(pytest.param(*more, marks=ALSO) for more in (("falling", 5), ("given", 20), ("rising", 1))),
    ],
)
def test_online_agrees_with_numpy(picture, stills, order, size):
    shown = picture("online")
    shown.set(size=str(size), order=order)
    steps = stills.online(order, size)
    following = shown.figure.get_by_role("button", name="Read the next chunk")
    for _ in range(len(steps) - 1):
        assert following.get_attribute("aria-disabled") == "false"
        shown.press("Read the next chunk")
    # At the end nothing happens any more.
    shown.press("Read the next chunk")
    assert following.get_attribute("aria-disabled") == "true"
    for number, want in enumerate(steps, 1):
        np.testing.assert_allclose(shown.row(str(number)), want, rtol=1e-12)
    logits = np.array(stills.LOGITS)
    assert shown.row(str(len(steps)))[3] == pytest.approx(np.exp(logits - logits.max()).sum(), rel=1e-12)
    assert "those of all at once" in shown.sentence()
    shown.press("One back")
    assert shown.row(str(len(steps))) == []


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize(
    ("x", "dy"), [((0.3, 1.9, -0.4), (1.2, -0.3, 0.8)), ((-2, 0.5, 1), "sum"), ((0.1, -1.5, 2), "squares")]
)
def test_lost_agrees_with_numpy_and_pytorch(picture, stills, norm, x, dy):
    shown = picture("lost")
    own = {} if isinstance(dy, str) else dict(zip(("dy1", "dy2", "dy3"), dy, strict=True))
    shown.set(
        norm=norm, loss=dy if isinstance(dy, str) else "own", **dict(zip(("x1", "x2", "x3"), x, strict=True)), **own
    )
    heads = ["x\u0302", "dy", "dy \N{MINUS SIGN} mean(dy)" if norm == "layer" else "dy, not centered", "what is left"]
    want = stills.lost(x, dy, norm)
    hat = want[0]
    for head, v in zip([*heads, "times rstd: dx"], want, strict=True):
        np.testing.assert_allclose(shown.row(head), [*v, v.sum(), v @ hat], rtol=1e-9, atol=1e-12)
    t = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (F.layer_norm(t, (3,), eps=0) if norm == "layer" else F.rms_norm(t, (3,), eps=0)).backward(torch.tensor(want[1]))
    np.testing.assert_allclose(want[-1], t.grad.numpy(), rtol=1e-9, atol=1e-12)
    nothing = dy == "squares" or (dy == "sum" and norm == "layer")
    assert ("the gradient is zero" in shown.sentence()) == nothing


def test_three_equal_numbers_have_no_gradient_and_no_error(picture):
    shown = picture("lost")
    shown.set(x1=1, x2=1, x3=1)
    assert "no spread" in shown.sentence()
    assert "nothing to divide by" in shown.svg.text_content()


# -- Hands, eyes, ears, paper ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_keys_alone_reach_and_move_everything(picture, name):
    shown = picture(name)
    tab = shown.tab
    drawn, said, listed = shown.svg.inner_html(), shown.sentence(), shown.numbers()
    tab.evaluate("id => { const f = document.getElementById(id); f.tabIndex = -1; f.focus(); }", f"explore-{name}")
    reached, radios = [], set()
    for _ in range(20):
        tab.keyboard.press("Tab")
        at = tab.evaluate(
            """id => { const e = document.activeElement; return e.closest(".explore")?.id === id && {
                kind: e.type ?? e.tagName.toLowerCase(), name: e.name || e.id || e.textContent,
                outline: getComputedStyle(e).outlineStyle, words: e.labels?.[0]?.textContent ?? e.textContent }; }""",
            f"explore-{name}",
        )
        if not at:
            break
        reached.append(at["kind"])
        assert at["outline"] != "none", f"{at['name']}: nobody sees where the focus is"
        assert at["words"].strip(), f"{at['name']} has no label"
        if at["kind"] in ("range", "radio"):
            before = shown.svg.inner_html(), shown.numbers()
            radios.add(at["name"])
            tab.keyboard.press("ArrowRight")
            now = shown.svg.inner_html(), shown.numbers()
            if now == before:
                tab.keyboard.press("ArrowLeft")  # It may have stood at its end.
                now = shown.svg.inner_html(), shown.numbers()
            assert now != before, f"{at['name']} moves nothing"
        if at["kind"] == "summary":
            unfolded = shown.figure.locator(".explore-live table").is_visible()
            tab.keyboard.press("Enter")
            assert shown.figure.locator(".explore-live table").is_visible() != unfolded
            tab.keyboard.press("Enter")
    assert reached[-1] == "summary"
    assert "button" in reached
    live = shown.figure.locator(".explore-live")
    assert reached.count("range") == live.locator("input[type=range]:not(:disabled)").count()
    assert reached.count("radio") == live.locator("fieldset:not(:disabled)").count()
    assert (drawn, listed) != (shown.svg.inner_html(), shown.numbers())
    assert shown.sentence() != said


@pytest.mark.parametrize("name", PAGES)
def test_a_screen_reader_gets_name_values_and_one_sentence_at_a_time(picture, name):
    shown = picture(name)
    assert shown.svg.get_attribute("role") == "img"
    assert len(shown.svg.get_attribute("aria-label")) > 40
    assert shown.svg.get_attribute("aria-describedby") == shown.says.get_attribute("id")
    assert shown.says.get_attribute("role") == "status"
    # The first slider with room to move.
    places = shown.figure.locator("input[type=range]").evaluate_all("all => all.map((e) => (e.max - e.min) / e.step)")
    number = next(number for number, room in enumerate(places) if room >= 3)
    slider = shown.figure.locator("input[type=range]").nth(number)
    said = shown.sentence()
    changes = shown.tab.evaluate(
        """async ([id, number]) => {
            let count = 0;
            const says = document.querySelector(`#${id} .explore-says`);
            new MutationObserver(() => { count += 1; }).observe(says, { childList: true });
            const slider = document.querySelectorAll(`#${id} input[type=range]`)[number];
            const first = Number(slider.value);
            for (let i = 1; i <= 12; i += 1) {
                slider.value = first + (i % 2 ? 1 : 2) * slider.step * (first < slider.max - 1 ? 1 : -1);
                slider.dispatchEvent(new Event("input"));
                await new Promise((resolve) => setTimeout(resolve, 20));
            }
            const during = count;
            await new Promise((resolve) => setTimeout(resolve, 500));
            return [during, count];
        }""",
        [f"explore-{name}", number],
    )
    assert changes == [0, 1]
    assert shown.sentence() != said
    label = slider.evaluate("e => e.closest('.explore-control').querySelector('.explore-value').textContent")
    assert slider.get_attribute("aria-valuetext") == label


CONTRASTS = """id => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const light = (color) => {
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    const figure = document.getElementById(id);
    const ground = getComputedStyle(figure).backgroundColor;
    const text = [...figure.querySelectorAll(".explore-live :is(p, label, legend, summary, .explore-says)")]
        .filter((e) => !e.closest(":disabled")).map((e) => ratio(getComputedStyle(e).color, ground));
    const cell = (e) => e.parentNode.matches(".explore-cell");
    const below = (e) => (cell(e) ? getComputedStyle(e.previousElementSibling).fill : ground);
    const words = [...figure.querySelectorAll("svg text")].map((e) => ratio(getComputedStyle(e).fill, below(e)));
    const drawn = "svg :is(.explore-a, .explore-b, .explore-c, .explore-mark, .explore-shares rect)";
    const marks = [...figure.querySelectorAll(drawn)].map((e) => ratio(getComputedStyle(e).fill, ground));
    return [Math.min(...text), Math.min(...words), Math.min(...marks), ground];
}"""


@pytest.mark.parametrize("name", PAGES)
def test_light_and_dark_can_both_be_read(picture, name):
    shown = picture(name)
    grounds = []
    for mode in ("light", "dark"):
        shown.tab.evaluate("mode => { document.documentElement.dataset.theme = mode; }", mode)
        text, words, marks, ground = shown.tab.evaluate(CONTRASTS, f"explore-{name}")
        grounds.append(ground)
        assert text >= 4.5
        assert words >= 4.5
        assert marks >= 3
    shown.tab.evaluate("() => { document.documentElement.dataset.theme = 'light'; }")
    assert len(set(grounds)) == 2


def test_axe_finds_nothing(tab):
    # In the dark nothing but colors is different.
    for mode, rules, at_least in (("light", {}, 20), ("dark", {"runOnly": ["color-contrast"]}, 1)):
        tab.evaluate("mode => { document.documentElement.dataset.theme = mode; }", mode)
        found = Axe().run(tab, "figure.explore", {"preload": False, **rules})
        assert len(found.response["passes"]) >= at_least
        assert [(rule["id"], node["html"]) for rule in found.response["violations"] for node in rule["nodes"]] == []
    tab.evaluate("() => { document.documentElement.dataset.theme = 'light'; }")


INSIDE = """id => {
    const box = document.querySelector(`#${id} .explore-stage`).getBoundingClientRect();
    return [...document.querySelectorAll(`#${id} svg :is(text, rect, circle)`)].filter((e) => {
        const r = e.getBoundingClientRect();
        return r.left < box.left - 2 || r.right > box.right + 8 || r.top < box.top - 2 || r.bottom > box.bottom + 2;
    }).map((e) => e.outerHTML);
}"""
# Words may touch, they may not lie on each other.
OVERLAPS = """id => {
    const all = [...document.querySelectorAll(`#${id} svg text`)];
    const texts = all.map((e) => [e.textContent, e.getBoundingClientRect()]);
    const found = [];
    texts.forEach(([a, p], i) => texts.slice(i + 1).forEach(([b, q]) => {
        const across = p.left < q.right - 1 && q.left < p.right - 1;
        if (across && p.top < q.bottom - 4 && q.top < p.bottom - 4) found.push([a, b]);
    }));
    return found;
}"""

# Controls, last to first, that the focus does not bring into view, or not together with the picture.
IN_SIGHT = """id => [...document.querySelectorAll(`#${id} .explore-live :is(input, button, summary)`)].reverse()
    .filter((e) => !e.matches(":disabled")).filter((e) => {
        e.focus();
        const r = e.getBoundingClientRect();
        const top = document.elementFromPoint(r.left + r.width / 2, r.top + r.height / 2);
        const svg = document.querySelector(`#${id} svg`).getBoundingClientRect();
        return top !== e || svg.top < 50 || svg.bottom > innerHeight;
    }).map((e) => e.outerHTML)"""
TO_ENDS = """([id, end]) => document.querySelectorAll(`#${id} input[type=range]`).forEach((slider) => {
    slider.value = slider[end];
    slider.dispatchEvent(new Event("input", { bubbles: true }));
})"""


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_of_320_pixels_shows_all_of_it(picture, name):
    shown = picture(name, 320, 700)
    tab = shown.tab
    assert tab.evaluate("document.documentElement.scrollWidth") == 320
    assert tab.evaluate(INSIDE, f"explore-{name}") == []
    assert tab.evaluate(OVERLAPS, f"explore-{name}") == []
    targets = shown.figure.locator("input[type=range], .explore-choice label, .explore-button")
    heights = targets.evaluate_all("all => all.map((e) => e.getBoundingClientRect().height)")
    assert heights
    assert min(heights) >= 44
    cells = shown.figure.locator(".explore-cell rect")
    sides = cells.evaluate_all("all => all.map((e) => e.getBoundingClientRect()).flatMap((r) => [r.width, r.height])")
    assert len(sides) == (96 if name == "pools" else 0)
    assert min(sides, default=24) >= 24
    assert tab.evaluate(IN_SIGHT, f"explore-{name}") == []
    # At their ends, too, the sliders leave everything in its place.
    for end in ("min", "max"):
        tab.evaluate(TO_ENDS, [f"explore-{name}", end])
        assert tab.evaluate(INSIDE, f"explore-{name}") == []
        assert tab.evaluate(OVERLAPS, f"explore-{name}") == []
        assert tab.evaluate("document.documentElement.scrollWidth") == 320


@pytest.mark.parametrize("name", PAGES)
def test_paper_gets_the_state_that_the_reader_has_left(picture, name):
    shown = picture(name)
    said = shown.sentence()
    shown.figure.locator("input[type=range]").first.press("ArrowRight")
    now = shown.sentence()
    assert now != said
    shown.tab.emulate_media(media="print")
    assert shown.svg.is_visible()
    assert shown.says.inner_text() == now
    assert shown.figure.locator(".explore-live table").is_visible()
    assert not shown.figure.locator(".explore-still").is_visible()
    assert not shown.figure.locator("button, input").locator("visible=true").count()
    values = shown.figure.locator(".explore-value").all_inner_texts()
    assert values
    assert all(values)
    # The whole table: nobody can scroll on paper.
    wide, seen = shown.figure.locator(".explore-live .numbers").evaluate("e => [e.scrollWidth, e.clientWidth]")
    assert wide <= seen
    shown.tab.emulate_media(media="screen")


@pytest.mark.parametrize("name", ["eps", *(pytest.param(name, marks=ALSO) for name in PAGES if name != "eps")])
def test_without_javascript_there_is_a_table(browser, server, name):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f"{server}/book/{PAGES[name]}.html")
    figure = tab.locator(f"#explore-{name}")
    assert figure.locator(".explore-still table").is_visible()
    assert figure.locator("figcaption").is_visible()
    assert "with JavaScript" in figure.locator(".explore-still > p").inner_text()
    assert figure.locator("input, button, .explore-live").count() == 0
    context.close()


@pytest.mark.parametrize("name", ["batch", pytest.param("gumbel", marks=ALSO)])
def test_a_picture_that_would_give_the_answer_away_waits_for_the_prediction(browser, server, name):
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(f"{server}/book/{PAGES[name]}.html")
    shown = Picture(tab, name)
    assert not shown.figure.is_visible()
    tab.evaluate(COMMIT)
    assert shown.figure.is_visible()
    shown.svg.locator("text").nth(5).wait_for()
    context.close()


def test_nothing_moves_by_itself(site):
    """No animation and no timer but the sentence's: what moves, a hand has moved."""
    for path in (site / "_static").glob("explore*"):
        text = path.read_text()
        assert not re.search(r"requestAnimationFrame|setInterval|\banimate\b|transition:|animation:", text), path.name
        assert text.count("setTimeout") == (path.name == "explore.js")


def test_no_complaint_and_no_foreign_request(tab, server):
    """After all of the above."""
    assert len(tab.asked) > len(PAGES)
    assert [url for url in tab.asked if not url.startswith((server, "data:"))] == []
    assert tab.complaints == []


# -- The directive by itself -----------------------------------------------------------------------------------------

WRONG = {
    "unknown": ("```{explore} nothing\n:title: A\n\nTry.\n```\n", "there is no picture nothing; there are batch, "),
    "untitled": ("```{explore} eps\nTry.\n```\n", "it needs a :title:"),
    "silent": ("```{explore} eps\n:title: A\n```\n", "a text that says what to try"),
    "twice": ("```{explore} eps\n:title: A\n\nTry.\n```\n" * 2, "the page has the picture eps twice"),
}


def test_a_wrong_directive_is_an_error_that_names_it(tmp_path):
    ext = str(REPO / "book" / "_ext")
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path[:0] = [{ext!r}, {str(REPO)!r}]\nextensions = ['myst_nb', 'normlab_site']\n"
        "nb_execution_mode = 'off'\nroot_doc = 'index'\n"
    )
    shutil.copy(REPO / "nbgrader_config.py", tmp_path)
    for name, (text, _) in WRONG.items():
        (tmp_path / f"{name}.md").write_text(f"# Page\n\n{text}")
    (tmp_path / "index.md").write_text("# Title\n\n```{toctree}\n" + "\n".join(WRONG) + "\n```\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-b", "html", tmp_path, tmp_path / "html"]
    told = subprocess.run(command, capture_output=True, text=True).stderr.splitlines()
    for name, (_, words) in WRONG.items():
        mine = [line for line in told if f"/{name}.md:" in line]
        assert any("ERROR" in line and words in line for line in mine), told
