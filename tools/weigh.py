"""What a page weighs and how soon it shows, beside the same text in a default Jupyter Book.

    python tools/weigh.py [PAGE ...]            # softmax, axes and attention, if none is named
    python tools/weigh.py --all                 # weights alone, of every page of this site

Both sites come gzipped from a server on this machine; Chromium's own log says what was transferred. Pictures count
apart: the default writes them into the text, this site loads them when they come near. The default page also asks
another host for MathJax, which is not counted here, so it weighs more than the table says. First contentful paint and
layout shift are measured on a slow phone (a fourth of this machine's speed, 1.6 Mbit/s, 150 ms), in turns: read the
ratios.
"""

import argparse
import gzip
import http.server
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import yaml
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import screenshots

REPO = Path(__file__).resolve().parent.parent
SITE = REPO / "_build" / "html"
PAGES = ("softmax", "axes", "attention")
KINDS = {"Document": "HTML", "Stylesheet": "CSS", "Script": "JS", "Font": "fonts", "Image": "pictures"}
TEXT = (".html", ".css", ".js", ".svg", ".json", ".xml", ".txt")
DATA = re.compile(rb'"data:image/[^"]+"')
PHONE = {"width": 390, "height": 844}
SLOW = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 750e3 / 8}
SLOWER = 4
RUNS = 5
WATCH = """
window.shift = 0; window.paint = null;
new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
  if (!entry.hadRecentInput) window.shift += entry.value;
})).observe({ type: "layout-shift", buffered: true });
new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
  if (entry.name === "first-contentful-paint") window.paint = entry.startTime;
})).observe({ type: "paint", buffered: true });
"""
# The stock theme, its scripts and its mathematics, with the course's own directives: the text needs them.
DIRECTIVES = ("blocks", "elements", "explore", "inventory", "katex", "runtime", "source", "stills")
STOCK = """
from . import blocks, explore, inventory

def setup(app):
    blocks.setup(app)
    explore.setup(app)
    inventory.setup(app)
"""


class Gzipped(http.server.SimpleHTTPRequestHandler):
    """Serves a folder as a web server does that compresses text."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        body = path.read_bytes()
        zipped = path.suffix in TEXT and "gzip" in self.headers.get("Accept-Encoding", "")
        body = gzip.compress(body, 6) if zipped else body
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        if zipped:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(folder):
    """Address of a server over `folder`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Gzipped, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            thread.join()


def build_stock(folder):
    """The same text with Jupyter Book's defaults; executed pages come from this site's cache. Returns its HTML."""
    ours = yaml.safe_load((REPO / "_config.yml").read_text(encoding="utf-8"))
    config = {key: ours[key] for key in ("title", "author", "only_build_toc_files", "exclude_patterns", "parse")}
    cache = next((REPO / "_build" / ".jupyter_cache").iterdir())
    config["bibtex_bibfiles"] = ours["bibtex_bibfiles"]
    config["execute"] = {**ours["execute"], "cache": str(cache)}
    config["sphinx"] = {
        "local_extensions": {"stock": str(folder)},
        "config": {"myst_heading_anchors": 3, "bibtex_reference_style": "author_year"},
    }
    package = folder / "stock"
    package.mkdir()
    (package / "__init__.py").write_text(STOCK)
    for name in DIRECTIVES:
        shutil.copy(REPO / "book" / "_ext" / "normlab_site" / f"{name}.py", package)
    shutil.copy(REPO / "book" / "_ext" / "runner.toml", folder)
    (folder / "_config.yml").write_text(yaml.safe_dump(config))
    command = [
        *(sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", REPO),
        *("--config", folder / "_config.yml", "--toc", REPO / "_toc.yml", "--path-output", folder, "--quiet"),
    ]
    ran = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    html = folder / "_build" / "html"
    if not (html / "book" / "index.html").is_file():
        sys.exit(f"the default book could not be built: {(ran.stdout + ran.stderr)[-2000:]}")
    return html


def transferred(browser, address, path):
    """(KB by kind, addresses) that a first visit to a page transfers and asks for; `path` is its file."""
    context = browser.new_context(viewport=PHONE)
    tab = context.new_page()
    log = context.new_cdp_session(tab)
    log.send("Network.enable")
    kinds, sizes, asked = {}, dict.fromkeys(KINDS.values(), 0.0), []
    log.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["url"]))
    log.on("Network.responseReceived", lambda event: kinds.update({event["requestId"]: event["type"]}))

    def finished(event):
        kind = KINDS.get(kinds.get(event["requestId"]))
        if kind:
            sizes[kind] += event["encodedDataLength"] / 1000

    log.on("Network.loadingFinished", finished)
    tab.goto(address, wait_until="load")
    tab.evaluate("document.fonts.ready")
    tab.wait_for_timeout(300)
    context.close()
    # Pictures in the text are pictures.
    whole = path.read_bytes()
    drawn = (len(gzip.compress(whole, 6)) - len(gzip.compress(DATA.sub(b'""', whole), 6))) / 1000
    sizes["HTML"] -= drawn
    sizes["pictures"] += drawn
    return sizes, asked


def shows(browser, address):
    """(first contentful paint in ms, layout shift) of a first visit on a slow phone."""
    context = browser.new_context(viewport=PHONE)
    tab = context.new_page()
    phone = context.new_cdp_session(tab)
    phone.send("Network.enable")
    phone.send("Network.emulateNetworkConditions", SLOW)
    phone.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    # What comes from another host is not to be waited for here.
    context.route(lambda url: not url.startswith("http://127.0.0.1"), lambda route: route.abort())
    tab.add_init_script(WATCH)
    tab.goto(address, wait_until="load", timeout=120_000)
    tab.wait_for_timeout(1500)
    paint, shift = tab.evaluate("[window.paint, window.shift]")
    context.close()
    return paint, shift


def weight(sizes):
    """What comes before the pictures."""
    return sum(size for kind, size in sizes.items() if kind != "pictures")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "pages", nargs="*", metavar="PAGE", help="chapters by name; softmax, axes and attention if none"
    )
    parser.add_argument("--all", action="store_true", help="weights alone, of every page of this site")
    asked = parser.parse_args()
    if not SITE.is_dir() or screenshots.chromium() is None:
        sys.exit("weights need a built site (`make book`) and Chromium")
    pages = sorted(path.stem for path in SITE.glob("book/*.html")) if asked.all else asked.pages or PAGES

    head = f"{'KB gzipped':24}" + "".join(f"{kind:>9}" for kind in KINDS.values()) + f"{'before pictures':>18}"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        sites = {"this site": SITE} if asked.all else {"this site": SITE, "default": build_stock(Path(folder))}
        browser = playwright.chromium.launch(executable_path=screenshots.chromium(), args=screenshots.FLAGS)
        print(head)
        ratios = []
        for page in pages:
            totals = {}
            for name, html in sites.items():
                with served(html) as address:
                    sizes, _ = transferred(browser, f"{address}/book/{page}.html", html / "book" / f"{page}.html")
                totals[name] = weight(sizes)
                row = "".join(f"{sizes[kind]:9.0f}" for kind in KINDS.values())
                print(f"{page + ', ' + name:24}{row}{totals[name]:18.0f}")
            if not asked.all:
                ratios.append((page, totals["default"] / totals["this site"]))
        if not asked.all:
            print(f"\n{'on a slow phone':24}{'paint, ms':>12}{'shift':>9}{'default: weight':>18}{'paint':>8}")
            for page, heavier in ratios:
                seen = {name: [] for name in sites}
                for _ in range(RUNS):
                    for name, html in sites.items():
                        with served(html) as address:
                            seen[name].append(shows(browser, f"{address}/book/{page}.html"))
                paint = {name: statistics.median(run[0] for run in runs) for name, runs in seen.items()}
                shift = {name: statistics.median(run[1] for run in runs) for name, runs in seen.items()}
                slower = f"{heavier:16.1f} ×{paint['default'] / paint['this site']:6.1f} ×"
                for name in sites:
                    end = slower if name == "default" else ""
                    print(f"{page + ', ' + name:24}{paint[name]:12.0f}{shift[name]:9.3f}{end}")
        browser.close()


if __name__ == "__main__":
    main()
