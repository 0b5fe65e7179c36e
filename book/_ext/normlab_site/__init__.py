"""The book's extension: exercises, predictions, explorable pictures, code that runs, pages that ask no other host."""

import gc

from . import blocks, epub, explore, finish, inventory, links, mathematics, notebooks, pages, runtime, search, styles


def setup(app):
    # A page is a tree of a hundred thousand objects. By default the collector goes through it again and again as it
    # grows, which takes an eighth of the time.
    gc.set_threshold(100_000, 20, 20)
    blocks.setup(app)
    epub.setup(app)
    explore.setup(app)
    finish.setup(app)
    inventory.setup(app)
    links.setup(app)
    mathematics.setup(app)
    notebooks.setup(app)
    pages.setup(app)
    runtime.setup(app)
    search.setup(app)
    styles.setup(app)
    # Raised when what the extension keeps of the pages changes: then all are read again.
    return {"env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
