"""The pages of the built site, as tests name them: paths without their ending."""

from pathlib import Path

import yaml

TOC = yaml.safe_load((Path(__file__).resolve().parent.parent / "_toc.yml").read_text())
CHAPTERS = [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
PAGES = [TOC["root"], *CHAPTERS]
ALL = [*PAGES, "search", "genindex", "404"]


def until(tab, true, patience=50):
    """Wait for `true()`. The pages' policy lets nobody evaluate text, so Playwright's own way to wait is closed."""
    while not true() and patience:
        tab.wait_for_timeout(100)
        patience -= 1
    assert true()
