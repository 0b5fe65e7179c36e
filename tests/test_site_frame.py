"""The frame of the built site: formulas, weight, policy, downloads, search, paper, and what other sites ask for."""

import base64
import importlib
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import nbclient
import nbformat
import pypdf
import pytest
import yaml
from bs4 import BeautifulSoup
from fontTools.ttLib import TTFont
from pages import ALL, PAGES, until

from tools import weigh

REPO = Path(__file__).resolve().parent.parent
MODULES = ("finish", "katex", "links", "mathematics", "notebooks", "search", "styles")


@pytest.fixture(scope="session")
def ext():
    """The modules of the site extension, by name."""
    sys.path.insert(0, str(REPO / "book" / "_ext"))
    yield {name: importlib.import_module(f"normlab_site.{name}") for name in MODULES}
    sys.path.pop(0)


def small_book(folder, pages, settings="", builder="html"):
    """Build a book of {name: text} without a theme of its own; returns what Sphinx complains of."""
    (folder / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(REPO / 'book' / '_ext')!r})\n"
        "project = 'A book'\nextensions = ['myst_nb', 'sphinx_book_theme', 'normlab_site']\n"
        "html_theme = 'sphinx_book_theme'\n"
        "nb_execution_mode = 'off'\nroot_doc = 'index'\nmyst_enable_extensions = ['dollarmath', 'amsmath']\n"
        "html_theme_options = {'article_footer_items': ['page-links.html'], 'footer_content_items': ['version.html']}\n"
        f"{settings}\n"
    )
    index = "# Title\n\n```{toctree}\n" + "\n".join(pages) + "\n```\n"
    for name, text in {**pages, "index": index}.items():
        (folder / f"{name}.md").write_text(text)
    places = (folder / "doctrees", folder, folder / builder)
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-b", builder, "-d", *places]
    return subprocess.run(command, capture_output=True, text=True).stderr


def built(folder, name):
    return BeautifulSoup((folder / "html" / f"{name}.html").read_text(), "html.parser")


# -- Formulas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_formula_is_set_and_can_be_read_out(soup, page):
    for formula in soup(page).select(".math"):
        assert formula.select_one(".katex-html[aria-hidden=true]"), f"not set: {formula.get_text()[:80]}"
        assert formula.select_one("math annotation").get_text().strip()
    assert not soup(page).select(".katex-error, .problematic")


def test_labeled_equations_have_numbers_and_are_referred_to(soup):
    numbers, references = 0, 0
    for page in PAGES:
        for display in soup(page).select("div.math[id^=equation-]"):
            numbers += 1
            assert re.fullmatch(r"\(\d+\)", display.select_one(".eqno").find(string=True))
        for link in soup(page).select("a[href*='#equation-']:not(.headerlink)"):
            references += 1
            assert re.fullmatch(r"\(\d+\)", link.get_text())
    assert numbers > 10
    assert references > 10


FORMULAS = """
# Page

Inline $\\gamma_1$, and {eq}`sum`.

$$ a \\\\ b $$

$$ \\sum_i x_i = 0 $$ (sum)

\\begin{align} a &= b \\\\ c &= d \\end{align}

<details><summary>plain</summary>

$y$

</details>
"""


def test_formulas_of_every_kind_are_set(tmp_path):
    assert small_book(tmp_path, {"page": FORMULAS}) == ""
    page = built(tmp_path, "page")
    assert len(page.select(".math .katex")) == 5
    assert page.select_one("#equation-sum .eqno").find(string=True) == "(1)"
    assert page.select_one("p a[href='#equation-sum']").get_text() == "(1)"
    assert page.select_one("link[href*='katex.min.css']")
    sheets = [sheet["href"] for sheet in built(tmp_path, "index").select("link[rel=stylesheet]")]
    assert not [sheet for sheet in sheets if "katex" in sheet], "a page without formulas loads what sets them"
    fonts = list((tmp_path / "html" / "_static" / "katex" / "fonts").iterdir())
    assert {font.suffix for font in fonts} == {".woff2"}
    named = re.findall(r"url\(([^)]*)\)", (tmp_path / "html" / "_static" / "katex" / "katex.min.css").read_text())
    assert sorted(named) == sorted(f"fonts/{font.name}" for font in fonts)


@pytest.mark.parametrize("tex", [r"\frack{1}{2}", r"\frac{1", r"a^b^c"])
def test_a_formula_that_cannot_be_set_is_an_error(ext, tex):
    with pytest.raises(ValueError, match="KaTeX parse error"):
        ext["mathematics"].typeset(tex, False)


def test_a_formula_that_cannot_be_set_is_warned_of_with_its_place(tmp_path):
    told = small_book(tmp_path, {"page": "# Page\n\nText.\n\nWrong: $\\frack{1}$.\n"})
    assert re.search(r"page\.md:5: WARNING: formula cannot be set: .*Undefined control sequence: .frack", told)


def test_katex_that_is_not_katex_is_refused(ext, monkeypatch, tmp_path):
    katex = ext["katex"]
    monkeypatch.setattr(katex, "home", lambda: tmp_path)
    changed = {"katex.min.js": b"something else", "katex.min.css": b"", "LICENSE": b""}
    monkeypatch.setattr(katex, "from_wheel", lambda: changed)

    def unreachable():
        raise OSError("no such host")

    monkeypatch.setattr(katex, "from_archive", unreachable)
    with pytest.raises(katex.NotFetched, match=r"PyPI: the files are not those.* npm: no such host"):
        katex.folder()
    assert list(tmp_path.iterdir()) == []

    good = {"katex.min.js": b"script", "katex.min.css": b'a url(f.woff2) format("woff2"),url(f.ttf) format("truetype")'}
    monkeypatch.setattr(katex, "DIGEST", katex.digest(good))
    monkeypatch.setattr(katex, "from_archive", lambda: good)
    assert (katex.folder() / "katex.min.js").read_bytes() == b"script"
    assert b"ttf" not in (katex.folder() / "static" / "katex" / "katex.min.css").read_bytes()


# -- What a page carries, asks for and may do ------------------------------------------------------------------------

LIMIT = 360  # KB, gzipped, before pictures


@pytest.mark.parametrize("page", ALL)
def test_a_page_has_a_policy_and_no_script_in_its_text(site, soup, page):
    head = soup(page).head
    metas = [meta for meta in head.find_all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert len(metas) == 1
    policy = dict(part.split(maxsplit=1) for part in metas[0]["content"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert "http" not in metas[0]["content"]
    before = [tag.name for tag in metas[0].find_previous_siblings() if tag.name in ("script", "link", "style")]
    assert before == [], "what stands before the policy is not bound by it"
    for tag in soup(page).find_all(True):
        assert not [name for name in tag.attrs if name.startswith("on")], f"an inline handler: {str(tag)[:200]}"
        assert not str(tag.get("href", "")).lower().startswith("javascript:")
    assert [tag for tag in soup(page).find_all("script") if not tag.get("src")] == []


@pytest.fixture(scope="module")
def gzipped(site):
    with weigh.served(site) as address:
        yield address


# test_site opens all of them from files, and listens to what they ask for; what they weigh differs little.
REST = pytest.mark.exhaustive
WEIGHED = [page if place % 9 == 0 else pytest.param(page, marks=REST) for place, page in enumerate(ALL)]


@pytest.mark.parametrize("page", WEIGHED)
def test_a_page_is_light_and_asks_no_other_host(browser, site, gzipped, page):
    """As test_site opens it from a file, here from a server that compresses."""
    sizes, asked = weigh.transferred(browser, f"{gzipped}/{page}.html", site / f"{page}.html")
    places = [urlsplit(address) for address in asked]
    assert {place.netloc for place in places if place.scheme not in ("data", "blob")} == {urlsplit(gzipped).netloc}
    assert sizes["HTML"] > 1
    assert weigh.weight(sizes) <= LIMIT, sizes


SKIPPED = """[...document.querySelectorAll(".bd-article > section > section")]
    .filter((section) => getComputedStyle(section).contentVisibility !== "visible").length"""
# Whether a page leaves its sections for later, asked when its text is there and before its last script runs.
LATER = f"""
document.addEventListener("DOMContentLoaded", () => {{ window.later = {SKIPPED}; }});
window.moved = 0;
new PerformanceObserver((list) => list.getEntries().forEach((entry) => {{ window.moved += entry.value; }}))
  .observe({{ type: "layout-shift", buffered: true }});
"""
# Where the first section's heading stands: laid out, and left for later.
BOTH = """() => {
  const section = document.querySelector(".bd-article > section > section");
  const top = () => section.querySelector("h2").getBoundingClientRect().top;
  const laidOut = top();
  section.classList.remove("laid-out");
  document.documentElement.classList.add("opening");
  const later = top();
  document.documentElement.classList.remove("opening");
  return [laidOut, later];
}"""


def test_the_top_of_a_page_does_not_wait_for_the_rest(browser, site):
    """Opened at its top, a page lays out its sections afterwards and nothing moves; opened elsewhere, all at once."""
    tab = browser.new_page(viewport=weigh.PHONE)
    tab.add_init_script(LATER)
    page = (site / "book" / "softmax.html").as_uri()
    tab.goto(page)
    sections = tab.locator(".bd-article > section > section")
    assert tab.evaluate("window.later") == sections.count() > 3
    until(tab, lambda: tab.evaluate(SKIPPED) == 0)
    assert tab.evaluate("window.moved") < 0.01
    laid_out, later = tab.evaluate(BOTH)
    assert laid_out == later, "a heading moves when its section is laid out"
    last = sections.last.get_attribute("id")

    tab.evaluate("window.scrollTo(0, 5000)")
    there = tab.evaluate("window.scrollY")
    tab.reload()
    assert tab.evaluate("window.later") == 0
    until(tab, lambda: abs(tab.evaluate("window.scrollY") - there) < 3)

    tab.goto("about:blank")
    tab.goto(f"{page}#{last}")
    assert tab.evaluate("window.later") == 0
    until(tab, lambda: 0 < sections.last.bounding_box()["y"] < weigh.PHONE["height"] / 2)
    tab.close()


def test_a_violation_would_be_seen(browser, tmp_path, ext):
    """Where a page breaks the policy the console says so, and test_site listens to it on every page."""
    page = f"<html><head>{ext['finish'].CHARSET}</head><body><script>window.ran = true;</script></body></html>"
    (tmp_path / "page.html").write_text(ext["finish"].finish(page, "page.html", None))
    tab = browser.new_page()
    told = []
    tab.on("console", lambda message: told.append(message.type))
    tab.goto((tmp_path / "page.html").as_uri())
    assert tab.evaluate("window.ran") is None
    assert told == ["error"]
    tab.close()


def test_pictures_in_the_text_become_files(ext):
    kept = {}

    def write(name, content):
        kept[name] = content
        return f"../_images/{name}"

    page = (
        '<img class="only-dark" style="width:300px;max-width:100%" alt="words" src="data:image/svg+xml;base64,'
        'PHN2ZyB3aWR0aD0iMzAwcHQiIGhlaWdodD0iMTUwcHQiPjwvc3ZnPg==">'
    )
    image = BeautifulSoup(ext["finish"].finish(page, "page.html", write), "html.parser").img
    assert list(kept.values()) == [b'<svg width="300pt" height="150pt"></svg>']
    assert image["src"] == f"../_images/{next(iter(kept))}"
    assert (image["width"], image["height"], image["loading"], image["alt"]) == ("300", "150", "lazy", "words")


def test_rules_that_nothing_asks_for_are_dropped(ext):
    sheet = """
    /* words */
    .used, .unused { color: red }
    .unused > .used { color: blue }
    p:not(.unused) { color: green }
    @media print { .unused { color: red } .used { a: b } }
    @media screen { .unused { color: red } }
    @font-face { font-family: f }
    .sd-col\\:1 { c: d }
    """
    known = {"used", "sd-col:1"}
    rules = ext["styles"].tinycss2.parse_stylesheet(sheet, skip_comments=True, skip_whitespace=True)
    thin = re.sub(r"\s+", "", ext["styles"].thin(rules, known))
    assert thin == (
        ".used{color:red}p:not(.unused){color:green}@mediaprint{.used{a:b}}@font-face{font-family:f}.sd-col\\:1{c:d}"
    )


def test_no_sheet_of_a_page_waits_for_another_or_asks_every_element_for_those_before_it(site, soup):
    for page in ALL:
        for link in soup(page).select('link[rel="stylesheet"]'):
            sheet = site / "_static" / urlsplit(link["href"]).path.split("_static/")[1]
            text = sheet.read_text(encoding="utf-8")
            assert not re.search(r"@import|~ ?\*", text), (page, sheet)


def test_every_icon_of_a_page_is_in_the_font_that_is_left(site, soup):
    sheet = (site / "_static" / "styles" / "pydata-sphinx-theme.css").read_text()
    fonts = [TTFont(path) for path in (site / "_static" / "vendor" / "fontawesome" / "webfonts").glob("*.woff2")]
    drawn = set().union(*(font.getBestCmap() or {} for font in fonts))
    seen = 0
    for page in ALL:
        for icon in soup(page).select("[class*='fa-']"):
            for name in icon["class"]:
                if rule := re.search(rf'\.{re.escape(name)}(?![\w-])[^{{}}]*\{{content:\s*"(.)"', sheet):
                    seen += 1
                    assert ord(rule[1]) in drawn, f"{page}: no icon {name}"
    assert seen > 100
    assert sum(path.stat().st_size for path in (site / "_static" / "vendor").rglob("*.woff2")) < 40_000


# -- Notebooks -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(site):
    with zipfile.ZipFile(next((site / "notebooks").glob("*.zip"))) as opened:
        yield opened


def test_a_chapter_links_to_its_notebook_and_to_all(site, soup):
    with_notebook = 0
    for page in PAGES:
        links = {link.get_text(): link for link in soup(page).select(".page-links a")}
        assert (site / page).parent.joinpath(links["All notebooks"]["href"]).is_file()
        if link := links.get("This page as a notebook"):
            with_notebook += 1
            assert (site / page).parent.joinpath(link["href"]).resolve().name == f"{Path(page).name}.ipynb"
            assert link.has_attr("download")
    assert with_notebook >= 18


def test_a_notebook_says_in_plain_words_what_the_page_says(site):
    for path in sorted((site / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        assert not re.search(r"\{[a-z:]+\}`|^:::|^`{3,}\{|^\([\w-]+\)=$|\(\*\)$", outside, re.MULTILINE), path.name
        assert "myst_nb" not in path.read_text()
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert any(cell.outputs for cell in code), f"{path.name} has no results"
    puzzle = nbformat.read(site / "notebooks" / "puzzle.ipynb", as_version=4)
    assert any("**Predict.**" in cell.source and "<details>" in cell.source for cell in puzzle.cells)


def test_the_archive_has_all_notebooks_and_no_solution(site, archive):
    names = {name.split("/", 1)[1] for name in archive.namelist()}
    assert {f"book/{path.name}" for path in (site / "notebooks").glob("*.ipynb")} <= names
    assert {path.relative_to(REPO).as_posix() for path in (REPO / "exercises").glob("*/*.ipynb")} <= names
    assert "book/figures.py" in names
    assert "START-HERE.txt" in names
    assert not [name for name in names if "solution" in name]
    for name in archive.namelist():
        if name.endswith(".ipynb"):
            assert b"BEGIN SOLUTION" not in archive.read(name), name


def test_a_chapter_out_of_the_archive_runs(archive, tmp_path):
    archive.extractall(tmp_path)
    (root,) = tmp_path.iterdir()
    notebook = nbformat.read(root / "book" / "index.ipynb", as_version=4)
    before = [output.get("text") for cell in notebook.cells for output in cell.get("outputs", [])]
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": root / "book"}}).execute()
    after = [output.get("text") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert before == after
    assert any(before), "the page shows no text that its code wrote"


# -- What people expect ----------------------------------------------------------------------------------------------


def test_version_and_day_stand_below_every_page(soup, ext, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert ext["links"].day(REPO).isoformat() == "1970-01-02"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    for page in ALL:
        words = soup(page).select_one(".course-version").get_text(" ", strip=True)
        assert f"Version {ext['links'].version(REPO)}" in words
        assert re.search(r"[A-Z][a-z]+ \d{1,2}, \d{4}$", words)


def test_pages_follow_each_other(soup):
    for page, after in zip(PAGES, PAGES[1:], strict=False):
        assert soup(page).select_one("a.right-next")["href"] == f"{Path(after).name}.html"
        assert soup(after).select_one("a.left-prev")["href"] == f"{Path(page).name}.html"


FOUND = {"rsqrt": "kernels", "γ": "axes", "gamma": "axes", "softmax": "softmax", "Bessel": "running"}


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_the_search_finds_names_of_code_and_letters_of_formulas(browser, site, server, scheme):
    home = site.as_uri() if scheme == "file" else server
    tab = browser.new_page()
    results = {}
    for words in FOUND:
        tab.goto(f"{home}/search.html?q={words}")
        tab.wait_for_selector("#search-results ul.search li a")
        tab.locator("#search-results .search-summary", has_text=re.compile("found|matching")).wait_for()
        links = tab.locator("#search-results ul.search li a")
        results[words] = {Path(urlsplit(link.get_attribute("href")).path).stem for link in links.all()}
    tab.close()
    assert {words for words, page in FOUND.items() if page not in results[words]} == set(), results
    assert results["γ"] == results["gamma"]


def test_without_an_address_nothing_claims_one(site, soup):
    config = yaml.safe_load((REPO / "_config.yml").read_text())
    if config["html"]["baseurl"] or config["repository"]["url"]:
        pytest.fail("_config.yml names an address: this test is about a site without one")
    assert not (site / "sitemap.xml").exists()
    for page in PAGES:
        assert not soup(page).select("meta[property^='og:'], link[rel=canonical]")
        words = {link.get_text() for link in soup(page).select(".page-links a")}
        assert words <= {"This page as a notebook", "All notebooks"}


ADDRESSES = """
html_baseurl = 'https://course.example/sum/'
html_theme_options |= {'repository_url': 'https://github.com/someone/normlab', 'repository_branch': 'main'}
"""


@pytest.fixture(scope="module")
def addressed(tmp_path_factory):
    """A small book that knows its addresses."""
    folder = tmp_path_factory.mktemp("addressed")
    exercise = folder / "exercises" / "page" / "page.ipynb"
    exercise.parent.mkdir(parents=True)
    exercise.write_text("{}")
    settings = f"{ADDRESSES}exclude_patterns = ['exercises']\n"
    assert small_book(folder, {"page": "# Page\n\nSome words about it.\n"}, settings) == ""
    return folder


def test_with_the_address_of_the_site_there_are_a_map_and_a_card(addressed):
    tree = ElementTree.parse(addressed / "html" / "sitemap.xml")
    places = {element.text for element in tree.iter() if element.tag.endswith("loc")}
    assert places == {"https://course.example/sum/index.html", "https://course.example/sum/page.html"}
    card = {meta["property"]: meta["content"] for meta in built(addressed, "page").select("meta[property^='og:']")}
    assert card["og:url"] == "https://course.example/sum/page.html"
    assert card["og:title"] == "Page"
    assert "Some words" in card["og:description"]
    assert card["og:image"] == "https://course.example/sum/_static/card.png"
    assert (addressed / "html" / "_static" / "card.png").stat().st_size > 10_000


def test_with_the_address_of_the_repository_there_are_links_to_it(addressed):
    links = {link.get_text(): link["href"] for link in built(addressed, "page").select(".page-links a")}
    assert links["Edit this page"] == "https://github.com/someone/normlab/edit/main/page.md"
    assert links["Report a mistake"] == "https://github.com/someone/normlab/issues/new?title=page.md%3A%20"
    assert links["Exercises on Binder"] == (
        "https://mybinder.org/v2/gh/someone/normlab/main?labpath=exercises%2Fpage%2Fpage.ipynb"
    )


def test_the_page_for_wrong_addresses_works_at_any_depth(addressed, soup):
    for page, start in ((built(addressed, "404"), "/sum/"), (soup("404"), "/")):
        assert "No such page" in page.select_one("article h1").get_text()
        addresses = [tag.get("href") or tag.get("src") for tag in page.select("link[href], script[src], nav a[href]")]
        assert [address for address in addresses if not address.startswith((start, "#", "http"))] == []


def test_a_chapter_prints(browser, site):
    tab = browser.new_page(color_scheme="dark")
    tab.goto((site / "book" / "puzzle.html").as_uri())
    for picture in tab.locator("figure.picture img").all():
        until(tab, lambda picture=picture: picture.evaluate("picture => picture.complete && picture.naturalWidth > 0"))
    paper = pypdf.PdfReader(io.BytesIO(tab.pdf(prefer_css_page_size=True)))
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate("document.documentElement.dataset.theme") == "light"
    tab.close()
    text = re.sub(r"\s+", " ", " ".join(page.extract_text() for page in paper.pages))
    page = BeautifulSoup((site / "book" / "puzzle.html").read_text(), "html.parser")
    for heading in page.select("article h1, article h2"):
        assert heading.find(string=True).strip() in text
    answer = page.select_one(".predict-text p").find(string=True).strip()[:30]
    assert answer in text, "what a prediction folds is not on paper"
    assert "Commit" not in text
    assert "def draw" not in text, "the folded source of a drawing is on paper"
    assert "Search" not in text
    assert paper.pages[0].mediabox.width == pytest.approx(595, abs=2)


def test_an_epub_is_made_of_sound_pages(tmp_path):
    drawing = base64.b64encode(b'<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt"/>').decode()
    picture = f"data:image/svg+xml;base64,{drawing}"
    text = f'# Page\n\nA formula, $x^2$.\n\n<img class="only-light" alt="a" src="{picture}">\n'
    text += "\n<details><summary>Fold</summary>\n\ninside<br>\n\n</details>\n"
    assert small_book(tmp_path, {"page": text}, "copyright = 'us'\nauthor = 'us'\n", builder="epub") == ""
    with zipfile.ZipFile(next((tmp_path / "epub").glob("*.epub"))) as book:
        pages = {name: book.read(name).decode() for name in book.namelist() if name.endswith(".xhtml")}
    for page in pages.values():
        ElementTree.fromstring(page.split("<!DOCTYPE html>")[-1])
    (page,) = (content for name, content in pages.items() if name.endswith("page.xhtml"))
    assert "<annotation" in page
    assert "katex-html" not in page
    assert "data:" not in page
    assert 'open="open"' in page
    assert "<script" not in page
