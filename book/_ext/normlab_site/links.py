"""What people expect around a page: the page as a notebook, its source, where to report, its version; and what other
sites ask for: a map of the site, a card for those who share a link, a page for addresses that lead nowhere.

Two settings of _config.yml say where things are, `html: baseurl` (the site) and `repository: url`. Where one is empty,
what would need it is absent.
"""

import os
import subprocess
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

from . import notebooks, stills

CARD = "_static/card.png"
CARD_ALT = "The eight outputs of batch norm on a number line, and the point where they balance, at 0."
WORDS = "Normalization and softmax: predict, measure, write it yourself"
BINDER = "https://mybinder.org/v2/gh"


def version(root):
    """The version of the course: the package's; None where a book stands without it."""
    path = root / "pyproject.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))["project"]["version"] if path.is_file() else None


def day(root):
    """The day of the text: of the last commit, or what SOURCE_DATE_EPOCH says (reproducible-builds.org)."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    if not seconds:
        command = ["git", "log", "-1", "--format=%ct"]
        try:
            seconds = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None
    return datetime.fromtimestamp(int(seconds), UTC).date() if seconds else None


def repository(app):
    """(address, branch) of the repository; the address is empty where none is set."""
    options = app.config.html_theme_options
    return options.get("repository_url", "").rstrip("/"), options.get("repository_branch") or "main"


def page_links(app, pagename, pathto):
    """(words, address, kind) of what stands below a page; kind is "download" or "away"."""
    links = []
    if pagename in notebooks.offered(app):
        links.append(
            ("This page as a notebook", pathto(f"{notebooks.FOLDER}/{Path(pagename).name}.ipynb", 1), "download")
        )
    links.append(("All notebooks", pathto(f"{notebooks.FOLDER}/{notebooks.ARCHIVE}", 1), "download"))
    address, branch = repository(app)
    if not address:
        return links
    host, path = urlsplit(address).netloc, urlsplit(address).path.strip("/")
    source = Path(app.env.doc2path(pagename)).relative_to(app.srcdir).as_posix()
    exercise = f"exercises/{Path(pagename).name}/{Path(pagename).name}.ipynb"
    if host == "github.com" and (Path(app.srcdir) / exercise).is_file():
        links.append(("Exercises on Binder", f"{BINDER}/{path}/{branch}?labpath={quote(exercise, safe='')}", "away"))
    links.append(("Edit this page", f"{address}/edit/{branch}/{source}", "away"))
    title = quote(f"{source}: ")
    links.append(("Report a mistake", f"{address}/issues/new?title={title}", "away"))
    return links


def add_context(app, pagename, templatename, context, doctree):
    """Give the templates page-links.html and version.html what they show."""
    root = Path(app.srcdir)
    context["course_version"], context["course_day"] = version(root), day(root)
    context["page_links"] = page_links(app, pagename, context["pathto"]) if pagename in app.env.found_docs else []


def draw_card(app):
    """The picture of a shared link: the eight numbers and where they balance."""
    from matplotlib.figure import Figure

    printed = stills.EIGHT
    path = Path(app.outdir) / CARD
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="#14181e")
    axes = figure.add_axes((0.06, 0.08, 0.88, 0.5))
    axes.axhline(0, color="#3b434e", linewidth=3)
    axes.axvline(0, color="#fba850", linewidth=4, ymax=0.72)
    axes.vlines(printed, 0, 0.35, color="#91bef3", linewidth=3)
    axes.plot(printed, [0] * 8, "o", color="#91bef3", markersize=24, markeredgecolor="#14181e")
    axes.text(0.02, -0.75, f"their sum: {abs(round(sum(printed), 3)):.0f}", color="#fba850", fontsize=26)
    axes.set(ylim=(-0.9, 1.1), xlim=(-1.25, 0.85))
    axes.axis("off")
    figure.text(0.06, 0.83, app.config.project, color="#e3e7ec", fontsize=46, weight="bold")
    figure.text(0.06, 0.7, WORDS, color="#a3adba", fontsize=24)
    figure.savefig(path, metadata={"Software": None})


def draw(app, exception):
    if not exception and app.config.html_baseurl and app.builder.name in ("html", "dirhtml"):
        draw_card(app)


def configure(app, config):
    """Address of the site, for the three extensions that write it down."""
    base = config.html_baseurl
    config.notfound_urls_prefix = urlsplit(base).path.rstrip("/") + "/" if base else "/"
    config.notfound_context = {
        "title": "No such page",
        "body": "<h1>No such page</h1><p>This address leads nowhere. The list of pages and the search may know what "
        "you were looking for.</p>",
    }
    if base:
        config.ogp_site_url = base
        config.ogp_image = CARD
        config.ogp_image_alt = CARD_ALT
        config.ogp_social_cards = {"enable": False}
        config.ogp_site_name = config.project
        config.sitemap_url_scheme = "{link}"
        config.sitemap_locales = [None]
        config.sitemap_excludes = ["search.html", "genindex.html", "404.html"]


def setup(app):
    app.setup_extension("notfound.extension")
    if app.config.html_baseurl:
        app.setup_extension("sphinx_sitemap")
        app.setup_extension("sphinxext.opengraph")
    app.connect("config-inited", configure, priority=100)
    app.connect("html-page-context", add_context)
    app.connect("build-finished", draw)
