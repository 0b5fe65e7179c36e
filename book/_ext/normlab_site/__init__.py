"""Sphinx extension of the book: exercises, predictions, the inventory, and pages that ask no other host."""

from . import blocks, finish, inventory, mathematics, pages, styles


def setup(app):
    blocks.setup(app)
    finish.setup(app)
    inventory.setup(app)
    mathematics.setup(app)
    pages.setup(app)
    styles.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
