"""The built site: what `make book` left in _build/html, as a file, over http and in a browser."""

import functools
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from pages import CHAPTERS, PAGES, until

from tools import screenshots

REPO = Path(__file__).resolve().parent.parent
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def extension():
    """The modules of the site extension, by name."""
    sys.path.insert(0, str(REPO / "book" / "_ext"))
    yield {name: importlib.import_module(f"normlab_site.{name}") for name in ("blocks", "pages", "source")}
    sys.path.pop(0)


@pytest.fixture(scope="session")
def exercises(extension):
    """A function: chapter -> {name: Exercise}, empty where the chapter has none."""

    def read(chapter):
        stem = Path(chapter).name
        path = REPO / "solutions" / stem / f"{stem}.py"
        source = extension["source"]
        return source.read_exercises(path, source.code_stub(REPO)) if path.is_file() else {}

    return read


# -- The pages as files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_the_toc_is_there_under_its_title(site, soup, page):
    assert (site / f"{page}.html").is_file()
    assert len(soup(page).select("article h1")) == 1
    assert soup(page).title.get_text().endswith("Sum to Zero, Sum to One")


def test_the_site_opens_on_the_landing_page(site):
    assert f"url={PAGES[0]}.html" in (site / "index.html").read_text().replace('"', "")


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_is_described(soup, page):
    for image in soup(page).find_all("img"):
        alt = image.get("alt", "")
        assert len(alt) >= 40, f"picture without a description: {str(image)[:200]}"
        assert not re.search(r"\.(svg|png|jpe?g|gif|webp)\b|_build|_images", alt), f"a path, no description: {alt}"


@pytest.mark.parametrize("page", PAGES)
def test_every_drawn_picture_has_both_modes(soup, page):
    for figure in soup(page).select("figure.picture"):
        assert [image["class"] for image in figure.find_all("img")] == [["only-light"], ["only-dark"]]


# Pictures that are drawn from no numbers: cubes whose blocks are colored; a map of names that are joined by lines.
WITHOUT_NUMBERS = {"book/axes": 1, "book/capstone": 1}


@pytest.mark.parametrize("page", PAGES)
def test_every_drawn_picture_has_its_numbers_in_a_table(soup, page):
    figures = soup(page).select("figure.picture")
    assert len(figures) == (REPO / f"{page}.md").read_text().count("figures.show(")
    said = [figure.get("data-numbers") for figure in figures]
    assert said.count("none") == WITHOUT_NUMBERS.get(page, 0)
    for figure, word in zip(figures, said, strict=True):
        tables = figure.select("details.twin table")
        assert bool(tables) == (word is None)
        if word == "below":
            # The next thing of any kind.
            after = figure.find_next(["table", "p", "pre", "figure", "h2", "h3"])
            assert after.name == "table", f"no table below: {figure.img['alt'][:60]}"
        for table in tables:
            rows = [row.find_all(["th", "td"]) for row in table.find_all("tr")]
            words = [[cell.get_text().strip() for cell in row] for row in rows]
            assert len(words) - 1 <= 12, f"{len(words) - 1} rows: {words[0]}"
            assert {len(row) for row in words} <= set(range(2, 8)), f"columns: {words[0]}"
            assert all(words[0][1:]), f"a column without a name: {words[0]}"
            assert all(row[0].name == "th" for row in rows[1:])
            for row in words[1:]:
                assert all(row), f"an empty cell: {row}"
                assert not {"nan", "none"} & {cell.lower() for cell in row}, f"no number: {row}"


@pytest.mark.parametrize("page", [*PAGES, "search", "genindex"])
def test_no_page_names_another_host(soup, page):
    """Links that a reader follows may; what the browser loads by itself may not."""
    for tag in soup(page).find_all(["script", "link", "img", "iframe", "source", "video", "audio", "object", "embed"]):
        for attribute in ("src", "href", "srcset", "data"):
            assert not re.match(r"\s*(https?:)?//", tag.get(attribute, "")), f"asks another host: {str(tag)[:200]}"


def test_no_style_names_another_host(site):
    for sheet in site.rglob("*.css"):
        foreign = re.findall(r"(?:url\(|@import)\s*[\"']?\s*(?:https?:)?//[^)\"']*", sheet.read_text())
        assert not foreign, f"{sheet.name}: {foreign}"


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_left_unresolved(soup, page):
    article = soup(page).article
    assert not article.select(".problematic, .system-message, .error")
    text = "".join(words for words in article.find_all(string=True) if not words.find_parent(["pre", "code"]))
    assert "??" not in text
    assert not re.search(r"\{[a-z:]+\}`|:::|```", text), "a role or directive stands on the page as it was written"


@pytest.mark.parametrize("page", PAGES)
def test_no_placeholder_of_the_toolchain(soup, page):
    text = soup(page).get_text()
    for words in ("Jupyter Book community", "My Jupyter Book", "Project name not set", "Powered by"):
        assert words not in text
    assert not soup(page).select("a[href*='github.com/executablebooks'], .dropdown-launch-buttons")


def test_targets_of_links_exist(site, soup):
    @functools.cache
    def names(path):
        page = path.resolve().relative_to(site.resolve()).with_suffix("").as_posix()
        return {place["id"] for place in soup(page).select("[id]")}

    for page in PAGES:
        for link in soup(page).select("a[href]"):
            address = urlsplit(link["href"])
            if address.scheme or (link["href"].startswith("#") and not address.fragment):
                continue
            target = (site / page).parent / address.path if address.path else site / f"{page}.html"
            assert target.is_file(), f"{page}: {link['href']} leads nowhere"
            if address.fragment and target.suffix == ".html":
                assert address.fragment in names(target), f"{page}: no place {link['href']}"


# -- Exercises -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_shows_its_exercises_and_no_others(soup, exercises, chapter):
    shown = [block["id"].removeprefix("exercise-") for block in soup(chapter).select("section.exercise")]
    assert sorted(shown) == sorted(exercises(chapter))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_an_exercise_shows_stub_checks_and_hints(soup, exercises, chapter):
    for name, exercise in exercises(chapter).items():
        block = soup(chapter).find(id=f"exercise-{name}")
        code = [pre.get_text().strip() for pre in block.find_all("pre")]
        assert exercise.stub.strip() in code
        assert any(f"python -m normlab.check {name} " in text for text in code)
        assert len(block.select("details details")) >= 1, f"the hints of {name} open all at once"
        assert [fold.summary is not None for fold in block.find_all("details")].count(False) == 0


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_solution_is_on_the_page(site, soup, exercises, extension, chapter):
    assert "BEGIN SOLUTION" not in (site / f"{chapter}.html").read_text()
    stem = Path(chapter).name
    for name, exercise in exercises(chapter).items():
        block = BeautifulSoup(str(soup(chapter).find(id=f"exercise-{name}")), "html.parser")
        for fold in block.find_all("details"):
            fold.decompose()
        shown = block.get_text()
        hidden = solution_lines((REPO / "solutions" / stem / f"{stem}.py").read_text(), name)
        assert hidden, f"{name} has no marked solution"
        assert not [line for line in hidden if line in shown and line not in exercise.about], name


def solution_lines(text, name):
    """The telling lines of the solution of `name` in a solutions file."""
    cell = re.split(r"^# %%", text.split(f'solution="{name}"')[1], flags=re.MULTILINE)[0]
    region = cell.split("### BEGIN SOLUTION")[1].split("### END SOLUTION")[0]
    return [line.strip() for line in region.splitlines() if len(line.strip()) > 15 and not line.strip().startswith("#")]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_page_and_the_notebook_have_the_same_stub(exercises, chapter):
    stem = Path(chapter).name
    if not exercises(chapter):
        return
    cells = nbformat.read(REPO / "exercises" / stem / f"{stem}.ipynb", as_version=4).cells
    stubs = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell.source.strip() for cell in cells}
    for name, exercise in exercises(chapter).items():
        assert exercise.stub.strip() == stubs[name]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_notebook_can_be_downloaded(soup, exercises, chapter):
    for name in exercises(chapter):
        links = soup(chapter).find(id=f"exercise-{name}").select("a[download]")
        assert [Path(link["href"]).name for link in links] == [f"{Path(chapter).name}.ipynb"]


# -- Predictions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_prediction_has_options_one_right_and_an_answer(soup, exercises, chapter):
    blocks = soup(chapter).select(".predict")
    assert blocks or not exercises(chapter), "the chapter asks for no prediction"
    for block in blocks:
        options = block.select(".predict-options > li")
        assert len(options) >= 2
        assert int(block["data-right"]) < len(options)
        assert block.select_one("details.predict-answer:not([open]) > summary")
        assert block.select_one(".predict-text").find_parent("details") is block.select_one("details.predict-answer")
        assert not block.select("input, button"), "without JavaScript they would do nothing"
        assert len(block.select_one(".predict-text").get_text(strip=True)) > 1
        assert "(*)" not in block.get_text()


def measured(prediction):
    """Whether a cell stands right below it."""
    after = prediction.find_next_sibling()
    return after is not None and "cell" in after.get("class", ())


@pytest.fixture
def prediction(browser, site, soup, server):
    """A tab on the smallest page whose first prediction covers a measurement; its options and the right one."""
    pages = [chapter for chapter in CHAPTERS if (first := soup(chapter).select_one(".predict")) and measured(first)]
    page = min(pages, key=lambda page: (site / f"{page}.html").stat().st_size)
    block = soup(page).select_one(".predict")
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(f"{server}/{page}.html")
    yield tab, len(block.select(".predict-options > li")), int(block["data-right"])
    context.close()


def test_nothing_of_the_answer_shows_before_the_commitment(prediction):
    tab, _, _ = prediction
    assert not tab.locator(".predict-answer").first.is_visible()
    assert tab.locator(".predict .predict-commit").first.is_disabled()
    assert tab.locator(".predict .predict-result").first.inner_text() == ""


@pytest.mark.parametrize("matches", [True, False])
def test_committing_opens_the_answer_and_is_remembered(prediction, matches):
    tab, options, right = prediction
    choice = right if matches else (right + 1) % options
    block = tab.locator(".predict").first
    block.locator("input[type=radio]").nth(choice).check()
    block.get_by_role("button", name="Commit").click()
    for opened in (1, 2):
        if opened == 2:
            tab.reload()
        assert block.locator(".predict-text").is_visible()
        assert ("matches" in block.get_by_role("status").inner_text()) == matches
        notes = [note.inner_text() for note in block.locator(".predict-note").all()]
        assert "what happens" in notes[right]
        assert "your prediction" in notes[choice]
        assert block.locator("input[type=radio]").nth(choice).is_checked()
    block.get_by_role("button", name="Predict again").click()
    assert not block.locator(".predict-answer").is_visible()
    tab.reload()
    assert not block.locator(".predict-answer").is_visible()


def test_the_measurement_below_a_prediction_waits_for_the_commitment(prediction):
    tab, _, _ = prediction
    block, measured = tab.locator(".predict").first, tab.locator(".predict-covered").first
    assert tab.locator(".predict-covered").count() > 0
    assert not measured.is_visible()
    tab.emulate_media(media="print")
    assert measured.is_visible()
    tab.emulate_media(media="screen")
    covered = tab.locator(".predict-covered").count()
    block.locator("input[type=radio]").first.check()
    block.get_by_role("button", name="Commit").click()
    assert tab.locator(".predict-covered").count() < covered
    assert not tab.locator(".predict-wait").first.is_visible()


def test_text_that_is_marked_as_measured_waits_too(browser, site):
    page = browser.new_page()
    page.goto((site / "book" / "training.html").as_uri())
    text = page.locator(".measured").first
    assert not text.is_visible()
    for block in page.locator(".predict").all():
        block.locator("input[type=radio]").first.check()
        block.get_by_role("button", name="Commit").click()
    assert text.is_visible()
    page.close()


def test_a_prediction_works_by_keyboard(prediction):
    tab, options, _ = prediction
    block = tab.locator(".predict").first
    block.locator("input[type=radio]").first.focus()
    tab.keyboard.press("Space")
    for _ in range(options - 1):
        tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Tab")
    focused = "document.activeElement"
    assert tab.evaluate(f"{focused}.className") == "predict-commit"
    assert tab.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
    tab.keyboard.press("Enter")
    assert block.locator(".predict-text").is_visible()
    assert block.locator("input[type=radio]").nth(options - 1).is_checked()
    assert tab.evaluate(f"{focused}.className") == "predict-again"


def test_without_javascript_a_prediction_is_a_list_and_a_folded_answer(browser, soup, site):
    """One page for all: that each prediction is written so, is seen in the files above."""
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto((site / f"{next(page for page in CHAPTERS if soup(page).select('.predict'))}.html").as_uri())
    for block in tab.locator(".predict").all():
        assert block.locator(".predict-options > li").first.is_visible()
        assert block.locator("input, button").count() == 0
        assert not block.locator(".predict-text").is_visible()
        block.locator("summary").first.click()
        assert block.locator(".predict-text").is_visible()
    context.close()


def test_on_paper_the_answer_is_there_and_the_buttons_are_not(prediction):
    tab, _, _ = prediction
    tab.emulate_media(media="print")
    block = tab.locator(".predict").first
    assert block.locator(".predict-text").is_visible()
    assert not block.locator("button").first.is_visible()


# -- In a browser ----------------------------------------------------------------------------------------------------


TOO_WIDE = """
[...document.querySelectorAll('article :is(pre, table, img, p, .predict, .exercise)')]
.filter((box) => !box.closest('.numbers, .pst-scrollable-table-container, .output, pre, .margin'))
.map((box) => [box.className, box.getBoundingClientRect()])
.filter(([, place]) => place.width && (place.left < 0 || place.right > window.innerWidth)).map(([name]) => name)
"""
# What sticks out of the page; what scrolls inside itself does not.
OUTSIDE = """() => {
  const limit = document.documentElement.clientWidth;
  const scrolls = (box) => box !== document.body && getComputedStyle(box).overflowX !== "visible";
  const held = (box) => box !== document.body && (scrolls(box) || held(box.parentElement));
  return [...document.querySelectorAll("article *, .prev-next-area *, .page-links *, footer *, .bd-header-article *")]
    .filter((box) => box.checkVisibility() && !box.closest(".katex"))
    .filter((box) => box.getBoundingClientRect().right > limit + 1 && !held(box.parentElement))
    .map((box) => box.outerHTML.slice(0, 200));
}"""
UNFOLD = "document.querySelectorAll('details').forEach((fold) => { fold.hidden = false; fold.open = true; })"
COMMIT = """for (const block of document.querySelectorAll('.predict')) {
  block.querySelector('input[type=radio]').click();
  block.querySelector('.predict-commit').click();
}"""
# A window of 1280 pixels at 200 % is one of 640, at 400 % one of 320 (WCAG 2.2, 1.4.10).
ENLARGED = (640, 320)
# WCAG 2.2, 1.4.12: nothing is lost where a reader spaces the text so.
SPACED = "* { line-height: 1.5 !important; letter-spacing: 0.12em !important; word-spacing: 0.16em !important; }"


def fits(tab):
    """The page does not scroll sideways, and no box that scrolls inside itself is cut off by the edge of the screen."""
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert tab.evaluate(TOO_WIDE) == []


# Opened as a file, every page: there the browser is stricter. From a server and dark at first, one for all.
OPENED = [*(("file", "light", page) for page in PAGES), ("http", "dark", PAGES[1])]
SHOWN = (
    "mode => [...document.querySelectorAll(`figure.picture .only-${mode}`)].filter((p) => p.checkVisibility()).length"
)


@pytest.mark.parametrize(("scheme", "mode", "page"), OPENED)
def test_a_page_in_a_browser(browser, site, server, scheme, mode, page):
    """On a phone, where what fits fits everywhere. Opened once for all: to open it takes longest."""
    home = site.as_uri() if scheme == "file" else server
    context = browser.new_context(viewport=PHONE, color_scheme=mode)
    tab = context.new_page()
    asked, complaints = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    tab.goto(f"{home}/{page}.html")
    tab.evaluate(screenshots.SETTLED)

    formulas = tab.locator("article .math").count()
    assert tab.locator("article .math .katex-html").count() == formulas, "a formula was not set"

    # With everything unfolded; and once more below with what predictions cover.
    tab.evaluate(UNFOLD)
    fits(tab)

    # The tests above commit as a reader does.
    tab.evaluate(COMMIT)
    assert tab.locator(".predict-wait:visible").count() == 0
    fits(tab)

    other = "dark" if mode == "light" else "light"
    pictures = tab.locator("figure.picture").count()
    assert [tab.evaluate(SHOWN, name) for name in (mode, other)] == [pictures, 0]
    tab.emulate_media(color_scheme=other)
    until(tab, lambda: tab.evaluate(SHOWN, mode) == 0)
    assert tab.evaluate(SHOWN, other) == pictures

    context.close()
    assert [url for url in asked if not url.startswith((home, "data:"))] == []
    assert complaints == []


# Of the pages one in three; `make prove` enlarges the others.
MAGNIFIED = [pytest.param(page, marks=[pytest.mark.exhaustive] * (i % 3 != 1)) for i, page in enumerate(PAGES)]


@pytest.mark.parametrize("page", MAGNIFIED)
def test_a_page_enlarged(browser, site, page):
    """With everything unfolded and committed."""
    context = browser.new_context(viewport={"width": ENLARGED[0], "height": 450})
    tab = context.new_page()
    tab.goto((site / f"{page}.html").as_uri())
    tab.evaluate(screenshots.SETTLED)
    tab.evaluate(UNFOLD)
    tab.evaluate(COMMIT)
    for width in ENLARGED:
        tab.set_viewport_size({"width": width, "height": 450})
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert tab.evaluate(OUTSIDE) == []
    tab.add_style_tag(content=SPACED)
    assert tab.evaluate(OUTSIDE) == []
    context.close()


def test_screenshots_are_written_for_every_mode_and_width(chromium, site, tmp_path):
    subprocess.run([sys.executable, "tools/screenshots.py", tmp_path, "references"], cwd=REPO, check=True)
    written = sorted(tmp_path.iterdir())
    assert [path.name for path in written] == [
        "references-dark-1280.png",
        "references-dark-390.png",
        "references-light-1280.png",
        "references-light-390.png",
    ]
    assert all(path.stat().st_size > 10_000 for path in written)


# -- The directives and the extension by themselves ------------------------------------------------------------------

SOLUTIONS = """
# %% [markdown] about="double"
# ## double
# Twice $x$.
# %% solution="double"
def double(x):
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION
# %% check="double" part="values" points=2
check(double, "double", part="values")
# %% [markdown] hints="double"
# <details><summary>Hint 1: $x + x$</summary>
# One.
# <details><summary>Hint 2</summary>
# Two.
# </details></details>
# %% [markdown] after="double"
# Now you can **double**.
# %% [markdown] explain="good"
# ## In your own words
# Why $2x$?
# %% [markdown] explanation="good" points=1
# Because *two*.
#
# **Rubric**
#
# - 1 point: names **two**
"""
PREDICTION = "```{predict} Is it so?\n- yes\n- no (*)\n---\nNo: $1 \\ne 2$.\n```\n"
EXERCISE = "```{exercise} double\n```\n"
EXPLANATION = "```{explanation} good\n```\n"


def project(folder, pages, solutions=()):
    """Write a small book of {name: text}, each page with a solutions file of its own."""
    (folder / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(REPO / 'book' / '_ext')!r})\n"
        "extensions = ['myst_nb', 'normlab_site']\nnb_execution_mode = 'off'\nroot_doc = 'index'\n"
        "myst_enable_extensions = ['dollarmath']\n"
    )
    shutil.copy(REPO / "nbgrader_config.py", folder)
    index = "# Title\n\n```{toctree}\n" + "\n".join(pages) + "\n```\n"
    for name, text in {**pages, "index": index}.items():
        (folder / f"{name}.md").write_text(f"# Page\n\n{text}")
        source = folder / "solutions" / name / f"{name}.py"
        source.parent.mkdir(parents=True)
        source.write_text(dict(solutions).get(name, SOLUTIONS))


def build(folder):
    """Build the small book; returns what Sphinx complains of."""
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-b", "html", folder, folder / "html"]
    return subprocess.run(command, capture_output=True, text=True).stderr


def built(folder, name):
    return BeautifulSoup((folder / "html" / f"{name}.html").read_text(), "html.parser")


def test_directives_parse_what_they_hold_and_see_changes(tmp_path):
    project(tmp_path, {"good": PREDICTION + EXERCISE + EXPLANATION + "{ref}`exercise-double`\n"})
    assert build(tmp_path) == ""
    page = built(tmp_path, "good")
    assert page.select_one(".predict-answer .math")
    assert page.select_one("#exercise-double h2").get_text(" ", strip=True) == "Exercise double"
    assert page.select_one("a[href='#exercise-double'] .std-ref").get_text() == "double"
    assert page.select_one(".exercise details summary .math")
    assert page.select_one(".exercise details details").get_text(" ", strip=True) == "Hint 2 Two."
    assert page.select_one(".exercise-after strong").get_text() == "double"
    assert "2 * x" not in page.get_text()
    assert [p.get_text(" ", strip=True) for p in page.select(".explanation > p")] == ["Page", "Why 2 x 2x 2 x ?"]
    folds = [fold.get_text(" ", strip=True) for fold in page.select(".explanation > details")]
    assert folds == ["A model answer Because two .", "Rubric, 1 points 1 point: names two"]

    (tmp_path / "solutions" / "good" / "good.py").write_text(SOLUTIONS.replace("Twice", "Two times"))
    assert build(tmp_path) == ""
    assert "Two times" in built(tmp_path, "good").get_text()


WRONG = {
    "unknown": ("```{exercise} dubble\n```\n", "exercise dubble: solutions/unknown/unknown.py has no such exercise"),
    "repeated": (EXERCISE + EXERCISE, "exercise double stands already on the page repeated"),
    "unmarked": (PREDICTION.replace(" (*)", ""), "one of them marked (*)"),
    "marked": (PREDICTION.replace("yes", "yes (*)"), "one of them marked (*)"),
    "undivided": (PREDICTION.replace("---\n", ""), "no line `---`"),
    "unanswered": (PREDICTION.replace("No: $1 \\ne 2$.\n", ""), "no answer"),
    "unlisted": (PREDICTION.replace("- yes", "yes"), "expected a list of options"),
    "asked": (PREDICTION + PREDICTION, "asks twice: Is it so?"),
    "unexplained": (EXPLANATION.replace("good", "unexplained"), "no explanation is asked for"),
    "elsewhere": (EXPLANATION.replace("good", "nowhere"), "there is no solutions/nowhere/nowhere.py"),
    **{role: (EXERCISE, f"exercise double has no {role} cell") for role in ("about", "check", "hints", "after")},
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory):
    """What Sphinx says of a book in which everything is wrong."""
    folder = tmp_path_factory.mktemp("wrong")
    sources = {role: SOLUTIONS.replace(f'{role}="double"', 'other="double"') for role in WRONG}
    sources["unexplained"] = SOLUTIONS.replace('explanation="good"', 'other="good"')
    project(folder, {name: text for name, (text, _) in WRONG.items()}, sources)
    return build(folder).splitlines()


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_directive_is_an_error_that_names_it(complaints, name):
    mine = [line for line in complaints if f"/{name}.md:" in line]
    assert any("ERROR" in line and WRONG[name][1] in line for line in mine), mine


def test_executed_pages_are_not_kept_when_the_code_changes(extension, tmp_path):
    cache = extension["pages"].execution_cache
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "figures.py").write_text("one = 1\n")
    first = cache(tmp_path)
    first.mkdir(parents=True)
    assert cache(tmp_path) == first
    assert first.exists()
    (tmp_path / "book" / "figures.py").write_text("one = 2\n")
    assert cache(tmp_path) != first
    assert not first.exists()


# One of two pages that wait for each other: executed one after another, both fail.
WAITS = """
from pathlib import Path
from time import monotonic, sleep

Path("{mine}.met").touch()
end = monotonic() + 30
while not Path("{other}.met").exists():
    assert monotonic() < end, "no company"
    sleep(0.05)
"""


def test_pages_are_executed_together_and_a_failing_cell_fails_the_build(tmp_path):
    """Two pages that wait for each other and one that raises, built with the book's own settings."""
    for name in ("_config.yml", "nbgrader_config.py"):
        shutil.copy(REPO / name, tmp_path)
    shutil.copytree(REPO / "book" / "_ext", tmp_path / "book" / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPO / "book" / "images", tmp_path / "book" / "images")
    shutil.copy(REPO / "book" / "references.bib", tmp_path / "book")
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/one\n- file: book/other\n"
    )
    head = (REPO / "book" / "index.md").read_text(encoding="utf-8").split("\n# ")[0]
    cells = {
        "index": "1 / 0",
        "one": WAITS.format(mine="one", other="other"),
        "other": WAITS.format(mine="other", other="one"),
    }
    for page, cell in cells.items():
        (tmp_path / "book" / f"{page}.md").write_text(f"{head}\n# A page\n\n```{{code-cell}} python\n{cell}\n```\n")
    command = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        "build",
        ".",
        "--quiet",
        "-W",
        "-n",
        "--keep-going",
    ]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    told = built.stdout + built.stderr
    assert built.returncode != 0
    assert "ZeroDivisionError" in told
    assert "no company" not in told
    assert [page for page in cells if f"{page}.md: WARNING: Executing notebook failed" in told] == ["index"]
