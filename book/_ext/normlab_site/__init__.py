"""Sphinx extension of the book: exercises, predictions, the inventory, and pages that ask no other host."""

from . import blocks, inventory, pages, runtime


def setup(app):
    blocks.setup(app)
    inventory.setup(app)
    pages.setup(app)
    runtime.setup(app)
    # Raised when what the extension keeps of the pages changes: then all are read again.
    return {"env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
