"""The book's extension: exercises, predictions, explorable pictures, code that runs, pages that ask no other host."""

from . import blocks, epub, explore, finish, inventory, links, mathematics, notebooks, pages, runtime, search, styles


def setup(app):
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
