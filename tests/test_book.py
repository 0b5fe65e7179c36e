"""The chapters as text: their rhythm, their code, what they promise. The built pages are test_site.py's business."""

import re
from html import unescape

import pytest
import yaml

from normlab.exercises import EXERCISES

CELL = re.compile(r"```\{code-cell\} python\n(.*?)```", re.DOTALL)
COLUMN = 76  # characters of code that a page shows without scrolling


@pytest.fixture(scope="session")
def chapters(repo):
    """Stem -> text of every chapter of the table of contents; index, inventory and appendix left out."""
    toc = yaml.safe_load((repo / "_toc.yml").read_text(encoding="utf-8"))
    parts = [part for part in toc["parts"] if part["caption"] not in ("Before and after", "Appendix")]
    files = [c["file"] for part in parts for c in part["chapters"]]
    return {file.split("/")[-1]: (repo / f"{file}.md").read_text(encoding="utf-8") for file in files}


def page(repo, stem):
    built = repo / "_build" / "html" / "book" / f"{stem}.html"
    assert built.is_file(), "the site is not built: run make book"
    return unescape(re.sub(r"<[^>]+>", "", built.read_text(encoding="utf-8")))


def test_every_chapter_has_the_rhythm(chapters):
    for stem, text in chapters.items():
        assert "\n*Assumes " in text, f"{stem} does not say what it assumes"
        assert "```{predict}" in text, f"{stem} asks for no prediction"
        assert "\n## What you can now say\n" in text, f"{stem} does not end with what can now be said"
        if "```{exercise}" in text:
            assert "\n## What can go wrong\n" in text, f"{stem} does not say what can go wrong"
            figures = text.count("figures.show(")
            assert 2 <= figures <= 6, f"{stem} has {figures} figures"


def test_every_exercise_stands_in_its_chapter(chapters):
    shown = {stem: re.findall(r"```\{exercise\} (\w+)", text) for stem, text in chapters.items()}
    for exercise in EXERCISES.values():
        assert exercise.name in shown[exercise.stem], f"{exercise.name} is missing in {exercise.stem}"


def test_visible_code_fits_the_column(chapters):
    for stem, text in chapters.items():
        for cell in CELL.findall(text):
            if ":tags:" in cell:
                continue
            wide = [line for line in cell.splitlines() if len(line) > COLUMN]
            assert not wide, f"{stem} shows code that has to be scrolled: {wide[0]}"


def test_labels_in_docstrings_are_equations_of_the_book(repo, chapters):
    labels = set(re.findall(r"^:label: (\S+)$", "\n".join(chapters.values()), re.MULTILINE))
    for module in ("reference", "functional", "nn"):
        text = (repo / "normlab" / f"{module}.py").read_text(encoding="utf-8")
        cited = set(re.findall(r"\[(eq-[\w-]+)\]", text))
        assert cited, f"{module}.py cites no equation"
        assert cited <= labels, f"no chapter has {', '.join(sorted(cited - labels))}"


def test_the_eight_numbers_are_reproduced(repo):
    """To every printed digit: the page itself stops if they are not, and says how many are."""
    text = page(repo, "puzzle")
    assert "All eight numbers of the question" in text
    for number in ("0.1461", "0.0348", "0.4644", "0.0339", "0.6359", "0.0718", "1.1104", "0.2967"):
        assert number in text


def test_every_claim_has_its_verdict(chapters, repo):
    claims = re.findall(r"::::\{admonition\} .+\n:class: verdict\n\{bdg-\w+\}`.+`", chapters["verdict"])
    assert len(claims) == 4 + 7  # the asker's statements and questions, the answer's claims
    assert len(re.findall(r"\{admonition\} [1-7]\. ", chapters["verdict"])) == 7
    for block in re.findall(r"::::\{admonition\} .+?\n::::\n", chapters["verdict"], re.DOTALL):
        assert "{glue:text}" in block, f"a verdict without its measurement: {block[:80]}"


def test_no_sentence_became_a_list(chapters):
    """A line that happens to begin with a number and a full stop is a list item to Markdown."""
    for stem, text in chapters.items():
        for before, line in zip(text.splitlines(), text.splitlines()[1:], strict=False):
            assert not (re.match(r"\d+\. ", line) and before.strip()), f"{stem}: {line}"
