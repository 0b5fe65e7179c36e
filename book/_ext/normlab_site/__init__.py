"""Sphinx extension of the book: exercises, predictions, the inventory, and pages that ask no other host."""

from . import blocks, inventory, pages


def setup(app):
    blocks.setup(app)
    inventory.setup(app)
    pages.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
