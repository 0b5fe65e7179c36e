"""Variants of exercises: the same function with other conventions, so that the public answer is not the right one.

A variant is named by its conventions: softmax_variant:base-2-axis-0. The check takes that name; which variants a class
gets is drawn from its secret (`draw`), when the instructor's notebook is made: python -m grading.variants.
"""

from normlab.cases import generator
from normlab.variants import backward, loss, merge, norms, softmax
from normlab.variants.family import STEM  # noqa: F401 - part of what others use

FAMILIES = {
    family.name: family
    for family in (
        norms.STANDARDIZE,
        softmax.SOFTMAX,
        norms.BATCH_NORM,
        norms.LAYER_NORM,
        norms.GROUP_NORM,
        loss.CROSS_ENTROPY,
        backward.LAYER_NORM_BACKWARD,
        merge.MERGE_STATISTICS,
    )
}


def every_variant():
    """All variants, family by family."""
    return [variant for family in FAMILIES.values() for variant in family.variants.values()]


def find(name):
    """The exercise of a variant, by a name such as softmax_variant:base-2-axis-0; None if `name` names no family.

    Errors: ValueError that says what the name lacks, or which variants come near."""
    function, _, slug = str(name).partition(":")
    family = next((f for f in FAMILIES.values() if f.function == function), None)
    if family is None:
        return None
    if slug in family.variants:
        return family.variants[slug].exercise
    if not slug:
        some = next(iter(family.variants.values())).name
        raise ValueError(f"{function} comes in variants: give the name that your check cell has, such as {some}")
    import difflib  # only on the way to an error

    near = difflib.get_close_matches(slug, family.variants, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(f'{function}:{s}' for s in near)}?" if near else "--list-variants names them all"
    raise ValueError(f"there is no variant {slug!r} of {family.name}: {hint}")


def draw(secret, families=None, count=None):
    """The variants that a class with this secret gets: one of each of `count` families (all when None) out of
    `families` (names; all when None), in the order of FAMILIES.

    Which variant of a family it is depends on the secret alone, not on the other families. Errors: ValueError.
    """
    names = list(FAMILIES) if families is None else list(dict.fromkeys(families))
    for name in names:
        if name not in FAMILIES:
            raise ValueError(f"there are no variants of {name!r}: choose among {', '.join(FAMILIES)}")
    count = len(names) if count is None else count
    if not 1 <= count <= len(names):
        raise ValueError(f"{count} exercises cannot be drawn from {len(names)} families")
    ranks = {name: generator("variants", f"family {name}", secret).random() for name in names}
    taken = sorted(names, key=ranks.get)[:count]
    drawn = []
    for name in (name for name in FAMILIES if name in taken):
        slugs = list(FAMILIES[name].variants)
        drawn.append(FAMILIES[name].variants[slugs[generator("variants", name, secret).integers(len(slugs))]])
    return drawn


INTRODUCTION = """# %% [markdown]
# # Exercises: your class's variants
#
# You know these functions. Here each has a few conventions of its own, drawn for your class: what changed stands in bold.
# An answer that is right in the course is refused here, and the check says so. Real code is like that: frameworks and
# papers differ in exactly such things, and whoever ports a model has to find out in which.
#
# As everywhere, `float16` is computed in `float32` and turned back at the end, and the input stays as it was. Where a text
# is silent, the course's exercise of the same name decides.

# %% setup=true
import numpy as np

from normlab.check import check
"""


def source(drawn):
    """The text of the instructor's notebook of the variants `drawn`, in the percent format."""
    return "\n".join([INTRODUCTION, *(variant.source for variant in drawn)])
