"""Every term that a chapter defines stands in the glossary, and each entry leads to the section that defines it."""

import re

import pytest
import yaml
from myst_parser.mdit_to_docutils.base import default_slugify as slugify

# Bold words in a chapter are definitions, with two exceptions. What ends like a sentence is one: a heading that runs
# into its paragraph, or the sentence of a chapter. And these are stressed and not defined:
EMPHASIS = {
    ("attention", "ignore"),
    ("attention", "keep"),
    ("backward", "everything that is fixed hides something"),
    ("backward", "one direction is left of three"),
    ("cross_entropy", "twice"),
    ("meanings", "for softmax the scale of the input carries meaning"),
    ("puzzle", "different inputs"),
    ("puzzle", "whatever you put in"),
    ("shape", "new line for each batch"),
    ("variance", "one pass loses about two digits for each power of ten"),
}

CODE = re.compile(r"^(`{3,})\{code-cell\}.*?^\1$", re.DOTALL | re.MULTILINE)
BOLD = re.compile(r"(?<!\*)\*\*(?=\S)([^*]+?)(?<=\S)\*\*(?!\*)")
HEADING = re.compile(r"^(#{1,3}) (.+)$", re.MULTILINE)
ENTRY = re.compile(r"((?:^\S.*\n)+)((?:^ +\S.*\n)+)", re.MULTILINE)
LINK = re.compile(r"\]\((\w+)\.md(?:#([\w-]+))?\)")


def plain(words):
    return " ".join(words.lower().split())


def bold_words(text):
    """(words, slug of the section or "" above the first one) of every bold span outside the code of a chapter."""
    text = CODE.sub(lambda match: "\n" * match[0].count("\n"), text)
    headings = [(match.start(), "" if match[1] == "#" else slugify(match[2])) for match in HEADING.finditer(text)]
    found = []
    for match in BOLD.finditer(text):
        section = [slug for start, slug in headings if start < match.start()][-1]
        words = match[1].replace("\n> ", " ")
        found.append((words if words.rstrip()[-1] in ".?!" else plain(words), section))
    return found


def definitions(chapters):
    """(stem, term) -> slug of its section."""
    return {
        (stem, words): section
        for stem, text in chapters.items()
        for words, section in bold_words(text)
        if words[-1] not in ".?!" and (stem, words) not in EMPHASIS
    }


def entries(glossary):
    """Term -> the links (stem, slug) of its entry."""
    block = re.search(r"^```\{glossary\}\n(?::.*\n)*\n*(.*?)^```$", glossary, re.DOTALL | re.MULTILINE)[1]
    found = {}
    for terms, text in ENTRY.findall(block + "\n"):
        for term in terms.splitlines():
            assert plain(term) not in found, f"{term} stands twice in the glossary"
            found[plain(term)] = set(LINK.findall(text))
    return found


@pytest.fixture(scope="session")
def chapters(repo):
    toc = yaml.safe_load((repo / "_toc.yml").read_text(encoding="utf-8"))
    apart = ("Before and after", "Appendix")
    files = [c["file"] for part in toc["parts"] if part["caption"] not in apart for c in part["chapters"]]
    files.append("book/cuda_cpp")  # of the appendices, the one that defines terms
    return {file.split("/")[-1]: (repo / f"{file}.md").read_text(encoding="utf-8") for file in files}


@pytest.fixture(scope="session")
def glossary(repo):
    return entries((repo / "book" / "glossary.md").read_text(encoding="utf-8"))


def test_every_term_of_a_chapter_stands_in_the_glossary(chapters, glossary):
    missing = [f"{term} ({stem})" for stem, term in definitions(chapters) if term not in glossary]
    assert not missing, f"bold in a chapter and not in the glossary: {', '.join(missing)}"


def test_every_entry_leads_to_the_section_that_defines_it(chapters, glossary):
    for (stem, term), section in definitions(chapters).items():
        links = glossary.get(term, {(stem, section)})  # a missing one is the other test's business
        assert (stem, section) in links, f"{term} is defined in {stem}.md#{section}; its entry does not say so"


def test_every_link_of_the_glossary_has_its_target(chapters, glossary):
    sections = {
        stem: {"", *(slugify(title) for level, title in HEADING.findall(CODE.sub("", text)) if level != "#")}
        for stem, text in chapters.items()
    }
    for term, links in glossary.items():
        assert links, f"the entry {term} leads nowhere"
        for stem, section in links:
            assert stem in sections, f"{term}: there is no chapter {stem}"
            assert section in sections[stem], f"{term}: {stem} has no section #{section}"


def test_no_stressed_words_are_listed_that_no_chapter_has(chapters):
    stressed = {(stem, words) for stem, text in chapters.items() for words, _ in bold_words(text)}
    assert EMPHASIS <= stressed, f"not bold any more: {EMPHASIS - stressed}"


def test_entries_are_in_the_order_of_the_alphabet(repo):
    block = (repo / "book" / "glossary.md").read_text(encoding="utf-8").split("```{glossary}\n")[1]
    first = [terms.splitlines()[0].casefold() for terms, _ in ENTRY.findall(block)]
    assert first == sorted(first)


def test_definitions_are_told_from_headings_and_stress():
    text = (
        "# Title\n\nA **pool** is a set.\n\n## A section\n\n**Small batches.** They are.\nA **density\nof** it.\n\n"
        "```{code-cell} python\n# not a heading\nx = 2**3 + 3**2\n```\n\n**Never.** And a **mass** here."
    )
    assert bold_words(text) == [
        ("pool", ""),
        ("Small batches.", "a-section"),
        ("density of", "a-section"),
        ("Never.", "a-section"),
        ("mass", "a-section"),
    ]
