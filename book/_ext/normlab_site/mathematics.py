"""Formulas, set while the site is built: a page carries them as HTML, beside MathML for whoever has it read out.

A formula that KaTeX cannot set is a warning with its place, and `make book` fails on warnings. Scripts on the page need
no part in this.
"""

import atexit
import functools
import json
import re

from docutils import nodes
from py_mini_racer import MiniRacer
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

from . import katex

STYLE = "katex/katex.min.css"
logger = logging.getLogger(__name__)

# Only text passes between Python and the script: an object of the script's that outlives it would keep Python waiting.
RENDER = """
function render(asked) {
  const { tex, options } = JSON.parse(asked);
  try { return JSON.stringify({ html: katex.renderToString(tex, options) }); }
  catch (error) { return JSON.stringify({ error: error.message }); }
}
0
"""


@functools.cache
def engine():
    """KaTeX in a JavaScript engine, started when the first formula comes."""
    context = MiniRacer()
    atexit.register(context.close)
    context.eval((katex.folder() / "katex.min.js").read_text(encoding="utf-8"))
    context.eval(RENDER)
    return context


@functools.cache
def typeset(tex, display, output="htmlAndMathml"):
    """The HTML of a formula. Errors: ValueError, with KaTeX's sentence."""
    options = {"displayMode": display, "output": output, "throwOnError": True, "strict": "error"}
    answer = json.loads(engine().call("render", json.dumps({"tex": tex, "options": options})))
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["html"]


def markup(translator, node, tex, display):
    """As `typeset`; what cannot be set stands on the page as it was written, and is warned of."""
    # A reader of EPUB draws MathML itself, and would lack the style sheet's fonts.
    output = "mathml" if translator.builder.name.startswith("epub") else "htmlAndMathml"
    try:
        return typeset(tex, display, output)
    except ValueError as error:
        logger.warning("formula cannot be set: %s", error, location=node, type="katex")
        return f'<code class="problematic">{translator.encode(tex)}</code>'


def aligned(tex):
    """The text of a display as Sphinx understands it: a blank line begins another formula, `\\\\` another line."""
    parts = [part.strip() for part in tex.split("\n\n") if part.strip()]
    parts = [rf"\begin{{aligned}}{part}\end{{aligned}}" if lines_of_its_own(part) else part for part in parts]
    if len(parts) == 1:
        return parts[0]
    return r"\begin{gathered}" + r"\\".join(parts) + r"\end{gathered}"


def lines_of_its_own(part):
    r"""Whether `\\` stands outside every environment."""
    depth = 0
    for token in re.findall(r"\\begin\{|\\end\{|\\\\", part):
        depth += {"\\begin{": 1, "\\end{": -1}.get(token, 0)
        if token == "\\\\" and depth == 0:
            return True
    return False


def visit_math(translator, node):
    html = markup(translator, node, node.astext(), display=False)
    translator.body.append(
        translator.starttag(node, "span", "", CLASS="math notranslate nohighlight") + html + "</span>"
    )
    raise nodes.SkipNode


def visit_math_block(translator, node):
    tex = node.astext()
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    # An environment that says by itself how its lines stand (amsmath) is left as it is.
    translator.body.append(markup(translator, node, tex if node["nowrap"] else aligned(tex), display=True))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def choose(app, config):
    config.html_math_renderer = config.epub_math_renderer = "katex"


def carry(app):
    """Style sheet and fonts, where formulas are drawn by them: readers of books draw MathML themselves."""
    if app.builder.name in ("html", "dirhtml"):
        app.config.html_static_path.append(str(katex.folder() / "static"))
        app.add_css_file(STYLE, priority=800)


def setup(app):
    app.add_html_math_renderer("katex", (visit_math, None), (visit_math_block, None))
    app.connect("config-inited", choose, priority=900)
    app.connect("builder-inited", carry)
