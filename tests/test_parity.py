"""The grader says what `check` says: of exercises a style and a known mistake. `make prove` takes all of all."""

import random

import pytest
from ways import EACH_WAY

from grading import parity


@pytest.fixture(scope="module")
def warm():
    """Sandboxes that have all of normlab."""
    with parity.sandboxes() as sandboxes:
        yield sandboxes


@pytest.mark.parametrize("name", EACH_WAY)
def test_the_notebook_says_what_check_says(name, warm, one_thread):
    known = parity.answers(name)
    right = [answer for answer in known if answer[0].startswith("style")]
    wrong = [answer for answer in known if answer[0] != "solution" and answer not in right]
    draw = random.Random(name)
    chosen = [draw.choice(right), draw.choice(wrong)]
    assert list(parity.disagreements(name, chosen, warm)) == []
    assert all(parity.checked(name, function)["values"] is None for _, function, _ in chosen[:1])


def test_a_disagreement_is_seen(warm, one_thread):
    """Another mistake than the one that is checked here."""
    (_, function, _), (_, _, source), *_ = [answer for answer in parity.answers("softmax") if answer[0] in _TWO]
    assert list(parity.disagreements("softmax", [("swapped", function, source)], warm))


_TWO = ("no-maximum", "fixed-axis")
