"""The book's extension: exercises, predictions, explorable pictures, the inventory, pages that ask no other host."""

from . import blocks, epub, explore, finish, inventory, links, mathematics, notebooks, pages, search, styles


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
    search.setup(app)
    styles.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
