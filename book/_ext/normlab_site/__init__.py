"""The book's extension: exercises, predictions, explorable pictures, the inventory, pages that ask no other host."""

from . import blocks, explore, inventory, pages


def setup(app):
    blocks.setup(app)
    explore.setup(app)
    inventory.setup(app)
    pages.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
