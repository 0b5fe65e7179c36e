"""What stands behind the known mistakes: a few dozen misconceptions and slips, each with how to teach against it.

The checks tell learners which mistake they made; these tell a teacher what to do about it tomorrow. The texts and the
mapping stand in misconceptions.toml.
"""

import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

KINDS = ("belief", "slip", "precision")


@dataclass(frozen=True)
class Misconception:
    """`belief`: what the learner probably thinks; `teach`: what to ask and show; then the chapter and the heading in it
    to read again. `mistakes` names slugs, or "exercise/slug" where a slug is meant in one exercise alone."""

    slug: str
    group: str
    title: str
    kind: str
    belief: str
    teach: str
    chapter: str
    heading: str
    mistakes: tuple


def _read():
    data = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    entries = (Misconception(**{**entry, "mistakes": tuple(entry["mistakes"])}) for entry in data["misconception"])
    return data["groups"], {entry.slug: entry for entry in entries}


# group -> its title, and slug -> Misconception, in the order in which the course meets them.
GROUPS, MISCONCEPTIONS = _read()

_HOMES = {name: entry for entry in MISCONCEPTIONS.values() for name in entry.mistakes}


def of(exercise, slug):
    """The Misconception behind the mistake `slug` of `exercise`.

    >>> of("layer_norm", "divides-by-n-1").slug
    'n-minus-one'

    Errors: KeyError where the mistake is in no entry.
    """
    for name in (f"{exercise}/{slug}", slug):
        if name in _HOMES:
            return _HOMES[name]
    raise KeyError(f"no misconception has the mistake {slug} of {exercise}: name it in misconceptions.toml")


def report(counts):
    """A class report by misconception: {slug of the misconception: how often}, the most frequent first.

    counts {(exercise, slug of the mistake): how often}; zeros are left out, and ties keep the order of the course.

    >>> report({("softmax", "no-maximum"): 3, ("layer_norm", "no-eps"): 1, ("logsumexp", "no-maximum"): 2})
    {'formula-is-code': 5, 'eps-is-decoration': 1}
    """
    total = Counter()
    for (exercise, slug), count in counts.items():
        total[of(exercise, slug).slug] += count
    order = list(MISCONCEPTIONS)
    return {slug: total[slug] for slug in sorted(total, key=lambda s: (-total[s], order.index(s))) if total[slug]}
