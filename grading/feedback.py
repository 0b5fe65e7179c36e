"""Markdown in feedback and in formgrader: nothing in it runs in the browser of who opens the page.

nbgrader's templates show Markdown as it comes, and nbconvert's cleaning stops at outputs. nbgrader_config.py puts
`markdown` in place of nbconvert's filter of that name.
"""

import html
import re

import bleach
from nbconvert.filters.markdown_mistune import markdown2html_mistune

_TAGS = {
    *("a", "p", "br", "hr", "div", "span", "pre", "code", "kbd", "em", "strong", "b", "i", "s", "del", "sub", "sup"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "dl", "dt", "dd", "blockquote", "details", "summary"),
    *("table", "thead", "tbody", "tr", "th", "td", "img"),
}
_LINKS = ("http://", "https://", "mailto:", "#")
# Pictures are data: one fetched from elsewhere would tell there who looks, and when.
_ATTRIBUTES = {
    "a": lambda tag, name, value: name == "class" or (name == "href" and value.lower().startswith(_LINKS)),
    "img": lambda tag, name, value: name == "alt" or (name == "src" and value.startswith("data:image/png;base64,")),
    "th": ["align"],
    "td": ["align"],
    **{tag: ["class"] for tag in ("code", "div", "span", "pre")},
    **{f"h{level}": ["id", "class"] for level in range(1, 7)},
}
# MathJax makes links, styles and new commands of these.
_COMMANDS = re.compile(
    r"\\(?=(href|url|require|style|class|css\w*|html\w*|data|unicode|toggle|action|mmlToken|csname"
    r"|def|gdef|edef|xdef|let|global|(re)?newcommand|(re)?newenvironment|DeclareMathOperator|includegraphics)"
    r"(?![A-Za-z]))"
)


def markdown(source):
    """The HTML of Markdown, without what a browser would run or fetch."""
    source = _COMMANDS.sub("", source)
    try:
        rendered = markdown2html_mistune(source)
    except Exception:  # such as a picture that is said to be attached, and is not
        rendered = f"<pre>{html.escape(source)}</pre>"
    return bleach.clean(rendered, tags=_TAGS, attributes=_ATTRIBUTES, protocols={"http", "https", "mailto", "data"})
