"""Photograph every page of the built site, light and dark, wide and narrow.

    python tools/screenshots.py FOLDER [PAGE ...]

Writes FOLDER/<page>-<mode>-<width>.png for every page of _build/html, or for the named ones (`puzzle`).
"""

import shutil
import sys
from itertools import product
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SITE = Path(__file__).resolve().parent.parent / "_build" / "html"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Formulas change their width when their fonts arrive. Pictures load when they come near: here all are wanted.
SETTLED = """async () => {
  // early.js has the rest of the page laid out after its top.
  while (document.documentElement.classList.contains("opening")) await new Promise(requestAnimationFrame);
  const pictures = [...document.images].filter((picture) => picture.checkVisibility());
  pictures.forEach((picture) => { picture.loading = "eager"; });
  await Promise.all(pictures.map((picture) => picture.decode()));
  await document.fonts.ready;
}"""
MODES = ("light", "dark")
WIDTHS = (1280, 390)


def chromium():
    """Path of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def chapters():
    """The built pages that a reader reads, without index and search pages."""
    return sorted(SITE.glob("book/*.html"))


def photograph(folder, names=()):
    """Write the pictures into `folder` and return their paths; `names` selects pages by stem, all when empty."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = [page for page in chapters() if not names or page.stem in names]
    written = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for mode, width in product(MODES, WIDTHS):
            context = browser.new_context(color_scheme=mode, viewport={"width": width, "height": 900})
            for page in pages:
                tab = context.new_page()
                tab.goto(page.as_uri())
                tab.evaluate(SETTLED)
                written.append(folder / f"{page.stem}-{mode}-{width}.png")
                tab.screenshot(path=written[-1], full_page=True)
                tab.close()
            context.close()
        browser.close()
    return written


def main():
    if len(sys.argv) < 2 or not chapters():
        sys.exit("usage: python tools/screenshots.py FOLDER [PAGE ...], after `make book`")
    if chromium() is None:
        sys.exit(f"screenshots need Chromium: none of {', '.join(CHROMIUM)} is installed")
    written = photograph(Path(sys.argv[1]), sys.argv[2:])
    print(f"{len(written)} pictures in {sys.argv[1]}")


if __name__ == "__main__":
    main()
