"""The course as one EPUB (`make epub`): no scripts, formulas in MathML, nothing folded."""

from pathlib import Path

from . import links


def configure(app, config):
    config.version = config.version or links.version(Path(app.srcdir)) or "0"
    config.epub_title = config.project
    config.epub_basename = "sum-to-zero-sum-to-one"
    config.epub_language = "en"
    config.epub_show_urls = "no"
    config.epub_tocdepth = 2
    config.epub_identifier = "urn:normlab:sum-to-zero-sum-to-one"
    config.epub_scheme = "URI"
    config.epub_exclude_files = ["search.html", "genindex.html", "404.html", "index.html"]
    config.epub_css_files = ["site.css"]


def setup(app):
    app.connect("config-inited", configure, priority=100)
