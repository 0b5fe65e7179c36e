"""The exercises, chapter by chapter: in each file the truths, cases and known mistakes of one chapter."""

CHAPTERS = ()
