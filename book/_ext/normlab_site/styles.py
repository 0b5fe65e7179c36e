"""Style sheets and icons of the theme, without what no page uses: two thirds of their weight.

A rule goes when it asks for a class or an id whose name stands in no page and in no script of the site.
"""

import logging
import re
from pathlib import Path

import tinycss2
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

# Sheets of others. Our own hold what scripts and pages of the next version may need.
SHEETS = (
    "basic.css",
    "copybutton.css",
    "mystnb.*.css",
    "pygments.css",
    "sphinx-design.min.css",
    "styles/pydata-sphinx-theme.css",
    "styles/sphinx-book-theme.css",
)
ICON_FONTS = "vendor/fontawesome/webfonts"
# "All that follow their heading": the browser asks it of every word of a formula and walks back through all before it,
# which is half of its work on styles. With the heading first among its parent's children it is "all but the heading".
AFTER_TITLE = re.compile(r"(\.admonition\S*) p\.admonition-title ?~ ?\*")
AFTER_SUMMARY = re.compile(r"(details\S*) ?> ?summary ?~ ?\*")
# What a selector excludes, or offers beside something else, is not what it asks for.
ASIDE = re.compile(r":(?:not|is|where|has)\((?:[^()]|\([^()]*\))*\)")
ASKED = re.compile(r"[.#](-?[A-Za-z_](?:[\w-]|\\.)*)")
NAME = re.compile(r"[A-Za-z_][\w-]*")
TAG = re.compile(r"<[a-zA-Z][^>]*>")
# Its reports on each font are of no use here.
logging.getLogger("fontTools").setLevel(logging.WARNING)
WITH_RULES = ("media", "supports", "layer", "container")
# Icons are characters of Unicode's private area.
GLYPH = re.compile("[\ue000-\uf8ff]")


def names(site):
    """Every word in a tag of a page or in a script of the site."""
    found = set()
    for page in site.rglob("*.html"):
        for tag in TAG.findall(page.read_text(encoding="utf-8")):
            found.update(NAME.findall(tag))
    for script in site.rglob("*.js"):
        if script.name != "searchindex.js":
            found.update(NAME.findall(script.read_text(encoding="utf-8")))
    return found


def quick(selector):
    """A selector that chooses the same on these pages, sooner."""
    # A folded cell is an admonition, too, but its title stands in the summary.
    selector = AFTER_TITLE.sub(r"\1:where(:not(details)) > :not(p.admonition-title)", selector)
    return AFTER_SUMMARY.sub(r"\1 > :not(summary)", selector)


def used(selector, known):
    """Whether the site has all that this one selector asks for."""
    return all(name.replace("\\", "") in known for name in ASKED.findall(ASIDE.sub("", selector)))


def selectors(prelude):
    """The selectors of a rule: its tokens, split at the commas that stand outside of brackets."""
    parts = [[]]
    for token in prelude:
        if token == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return [tinycss2.serialize(part).strip() for part in parts]


def thin(rules, known):
    """The text of the rules that are used, without comments and empty groups."""
    kept = []
    for rule in rules:
        if rule.type == "qualified-rule":
            mine = [quick(selector) for selector in selectors(rule.prelude) if used(selector, known)]
            if mine:
                kept.append(f"{','.join(mine)}{{{tinycss2.serialize(rule.content)}}}")
        elif rule.type == "at-rule" and rule.lower_at_keyword in WITH_RULES and rule.content is not None:
            inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
            if text := thin(inner, known):
                kept.append(f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{text}}}")
        elif rule.type not in ("comment", "whitespace"):
            kept.append(rule.serialize())
    return "\n".join(kept)


def thin_sheets(site):
    """Rewrite the sheets of SHEETS."""
    known = names(site)
    for sheet in (path for pattern in SHEETS for path in (site / "_static").glob(pattern)):
        rules = tinycss2.parse_stylesheet(sheet.read_text(encoding="utf-8"), skip_comments=True, skip_whitespace=True)
        sheet.write_text(f'@charset "utf-8";\n{thin(rules, known)}', encoding="utf-8")


def thin_icons(site):
    """Leave in the theme's icon fonts the icons that its remaining rules draw."""
    sheets = "".join(path.read_text(encoding="utf-8") for path in (site / "_static" / "styles").glob("*.css"))
    glyphs = {ord(icon) for icon in GLYPH.findall(sheets)}
    for font in (site / "_static" / ICON_FONTS).glob("*.woff2"):
        options = Options(flavor="woff2", notdef_outline=True, drop_tables=["GSUB", "FFTM"])
        subsetter = Subsetter(options)
        subsetter.populate(unicodes=glyphs)
        with TTFont(font) as drawn:
            subsetter.subset(drawn)
            drawn.flavor = "woff2"
            drawn.save(font)


def thin_site(app, exception):
    if exception or app.builder.name not in ("html", "dirhtml"):
        return
    site = Path(app.outdir)
    thin_sheets(site)
    thin_icons(site)


def setup(app):
    # Last: what other extensions write at the end is read here.
    app.connect("build-finished", thin_site, priority=900)
