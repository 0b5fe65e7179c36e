"""The exercises, chapter by chapter: in each file the truths, cases and known mistakes of one chapter."""

from normlab.chapters import attention, backward, cross_entropy, hunt, kernels, running, variance

CHAPTERS = (running, cross_entropy, backward, hunt, variance, attention, kernels)
