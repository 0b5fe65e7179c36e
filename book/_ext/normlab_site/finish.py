"""What becomes of a page once its template is filled: only what it uses, from the site alone.

A Content-Security-Policy forbids everything else. Scripts wait until the page is drawn, and pictures, which notebooks
write into the text, become files that load when they come near.
"""

import base64
import hashlib
import re
from pathlib import Path

from bs4 import BeautifulSoup

from .stills import STILLS

# WebAssembly runs the code that readers write. Styles stand in the page too: pictures and formulas bring their own.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
    )
)
CHARSET = '<meta charset="utf-8" />'
EXTENSIONS = {"svg+xml": "svg", "png": "png", "jpeg": "jpg"}

# Scripts and style sheets that do something only where this stands on the page. The theme puts them on every page.
NEEDED_BY = {
    "clipboard.min.js": 'class="highlight"',
    "copybutton.js": 'class="highlight"',
    "copybutton.css": 'class="highlight"',
    "design-tabs.js": "sd-tab-set",
    "sphinx-design.min.css": 'class="sd-',
    "katex.min.css": 'class="katex',
    "predict.js": 'class="predict"',
    "explore.js": "data-explore=",
    "explore.css": "data-explore=",
    **{f"explore-{name}.js": f'data-explore="{name}"' for name in STILLS},
    "inventory.js": 'class="inventory"',
    "pictures.js": 'loading="lazy"',
    "editor.js": 'data-exercise="',
    "run.js": 'data-exercise="',
    "run.css": 'data-exercise="',
    "searchtools.js": 'id="search-results"',
    "language_data.js": 'id="search-results"',
    "searchindex.js": 'id="search-results"',
}
# Scripts of the theme that no page needs: what draws icons that a font draws already, and what opens menus and tells
# titles in bubbles, where the pages have neither.
NEVER = ("fontawesome.js", "bootstrap.js")

SCRIPT = re.compile(r"[ \t]*<script\b([^>]*)>(.*?)</script>\n?", re.DOTALL)
LINK = re.compile(r"[ \t]*<link\b([^>]*)/?>\n?")
ADDRESS = re.compile(r'(?:src|href)="([^"?#]*/)?([^"/?#]+)')
# The theme's inline scripts: its mode, which early.js chooses without a flash of the other; options that nothing on
# these pages asks for; and the cursor, which stands in the search field without a script.
INLINE = ("dataset.mode = localStorage", "DOCUMENTATION_OPTIONS.", "Set focus on search field")
# The theme's first sheet only asks for the second, which would come later by one way to the server and back.
ASKS, ASKED = "_static/styles/theme.css", "_static/basic.css"
SEARCH_FIELD = '<input type="search"'
PICTURE = re.compile(r'<img\b([^>]*?)\ssrc="data:image/(svg\+xml|png|jpeg);base64,([^"]+)"([^>]*)>')
SIZE = re.compile(r'<svg\b[^>]*?\swidth="([\d.]+)pt"[^>]*?\sheight="([\d.]+)pt"|'
                  r'<svg\b[^>]*?\sheight="([\d.]+)pt"[^>]*?\swidth="([\d.]+)pt"')  # fmt: skip
WIDTH = re.compile(r"[;\"]width:(\d+)px")


def finish(page, template, write):
    """The HTML `page` as it is published; `write(name, content)` keeps a picture and returns its address."""
    page = PICTURE.sub(lambda found: picture(found, write), page)
    page = SCRIPT.sub(lambda found: script(found, page), page)
    page = LINK.sub(lambda found: "" if not needed(found[1], page) or 'rel="preload"' in found[1] else found[0], page)
    page = page.replace(ASKS, ASKED)
    # The theme's title for paper, of a page that has none.
    page = page.replace("<h1></h1>", "")
    if template == "search.html":
        page = page.replace(SEARCH_FIELD, f"{SEARCH_FIELD} autofocus")
    return page.replace(CHARSET, f'{CHARSET}\n    <meta http-equiv="Content-Security-Policy" content="{POLICY}" />', 1)


def needed(attributes, page):
    """Whether the page has what the script or style sheet with these attributes is for."""
    address = ADDRESS.search(attributes)
    name = address[2] if address else ""
    return name not in NEVER and NEEDED_BY.get(name, "") in page


def script(found, page):
    """A script that the page needs, run after the page is drawn; early.js alone comes before."""
    attributes, text = found[1], found[2]
    if not needed(attributes, page) or any(words in attributes + text for words in INLINE):
        return ""
    if "src=" in attributes and "early.js" not in attributes and not re.search(r"\b(defer|async)\b", attributes):
        return f"    <script defer{attributes}></script>\n"
    return found[0]


def picture(found, write):
    """<img> whose picture is a file, with the place that it will need on the page."""
    before, kind, data, after = found.groups()
    content = base64.b64decode(data)
    address = write(f"{hashlib.sha256(content).hexdigest()[:20]}.{EXTENSIONS[kind]}", content)
    attributes = f"{before}{after}".rstrip("/ ")
    size = SIZE.search(content[:4000].decode("utf-8", "replace")) if kind == "svg+xml" else None
    if size and " width=" not in attributes:
        width, height = (float(size[1] or size[4]) * 4 / 3, float(size[2] or size[3]) * 4 / 3)
        if stated := WIDTH.search(attributes):
            width, height = float(stated[1]), height * float(stated[1]) / width
        attributes += f' width="{width:.0f}" height="{height:.0f}"'
    return f'<img{attributes} loading="lazy" decoding="async" src="{address}">'


def book_page(page, write):
    """The HTML `page` as a page of an EPUB: XHTML, without scripts, each picture once."""
    page = PICTURE.sub(lambda found: picture(found, write), page)
    soup = BeautifulSoup(page, "html.parser")
    for useless in soup.select("script, noscript, img.only-dark, a.headerlink"):
        useless.decompose()
    for element in soup.find_all(True):
        for attribute in [name for name in element.attrs if name in ("loading", "decoding", "target")]:
            del element[attribute]
    for fold in soup.find_all("details"):
        # Not every reader of books can open them.
        fold["open"] = "open"
    return soup.decode(formatter="minimal")


def wrap_templates(app):
    """Have every page pass through `finish`, whoever wrote it: a chapter, the index, the search."""
    if app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_images"
    render = app.builder.templates.render

    def rendered(template, context):
        page = render(template, context)
        if not template.endswith(".html"):
            return page

        def write(name, content):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            return context["pathto"](f"_images/{name}", 1)

        return book_page(page, write) if app.builder.name == "epub" else finish(page, template, write)

    app.builder.templates.render = rendered


def setup(app):
    app.add_css_file("frame.css", priority=910)
    app.connect("builder-inited", wrap_templates)
