"""Sphinx extension of the book: exercises from their source, predictions, and pages that ask no other host."""

from . import blocks, pages


def setup(app):
    blocks.setup(app)
    pages.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
