"""What stands behind the mistakes: each has one home, and what the guide tells a teacher is there to be read."""

import re
from collections import Counter

import pytest
import yaml

from normlab.misconceptions import GROUPS, KINDS, MISCONCEPTIONS, of, report
from normlab.mistakes import MISTAKES

KNOWN = [(exercise, mistake.slug) for exercise, mistakes in MISTAKES.items() for mistake in mistakes]
NAMES = [name for entry in MISCONCEPTIONS.values() for name in entry.mistakes]
ENTRIES = list(MISCONCEPTIONS.values())


def test_every_known_mistake_has_a_home():
    homeless = [f"{e}/{s}" for e, s in KNOWN if f"{e}/{s}" not in NAMES and s not in NAMES]
    assert not homeless, f"name them in misconceptions.toml: {homeless}"
    assert sum(report(dict.fromkeys(KNOWN, 1)).values()) == len(KNOWN)


def test_no_mistake_has_two():
    assert [name for name, count in Counter(NAMES).items() if count > 1] == []


def test_no_name_is_left_over():
    """Each name is the one by which at least one known mistake finds its home."""
    used = {f"{e}/{s}" if f"{e}/{s}" in NAMES else s for e, s in KNOWN}
    assert sorted(set(NAMES) - used) == []


def test_a_name_for_one_exercise_says_something_else_than_the_slug():
    for name in NAMES:
        exercise, _, slug = name.rpartition("/")
        if exercise and slug in NAMES:
            general = next(entry for entry in ENTRIES if slug in entry.mistakes)
            assert of(exercise, slug) is not general, f"{name} is in the same entry as {slug}"


@pytest.mark.parametrize(
    ("exercise", "slug", "home"),
    [
        # One slug, two things.
        ("layer_norm", "axis-0", "batch-or-features"),
        ("softmax", "axis-0", "argument-not-used"),
        ("normalize_l1", "adds-eps", "eps-anywhere"),
        ("two_pass_variance", "adds-eps", "small-number-cures"),
        ("held_out_log_likelihood", "swapped", "who-is-counted"),
        ("online_softmax", "swapped", "turned-round"),
        ("standardize", "root-mean-square", "centering"),
        ("normalize_l2", "root-mean-square", "one-word-one-operation"),
        ("layer_norm_backward", "root-mean-square", "projection"),
        ("cross_entropy", "unreduced", "sum-or-mean"),
        ("layer_norm_backward", "unreduced", "weight-in-the-backward"),
        ("batch_norm", "only-tables", "pools-too-little"),
        ("mutant_hunt", "only-tables", "friendly-inputs"),
    ],
)
def test_the_sentence_decides_and_not_the_slug(exercise, slug, home):
    assert of(exercise, slug).slug == home


def test_an_unknown_mistake_is_named():
    with pytest.raises(KeyError, match="no-such-mistake of softmax"):
        of("softmax", "no-such-mistake")


def test_a_report_adds_up_and_begins_with_the_most_frequent():
    counts = {
        ("layer_norm", "no-eps"): 2,
        ("softmax", "no-maximum"): 3,
        ("logsumexp", "no-maximum"): 1,
        ("batch_norm", "divides-by-n-1"): 2,
        ("softmax", "sigmoid"): 0,
    }
    assert list(report(counts).items()) == [("formula-is-code", 4), ("n-minus-one", 2), ("eps-is-decoration", 2)]
    assert report({}) == {}


def test_groups_and_kinds():
    assert {entry.kind for entry in ENTRIES} == set(KINDS)
    # In the order of the table of groups, each group in one piece.
    assert list(dict.fromkeys(entry.group for entry in ENTRIES)) == list(GROUPS)
    groups = [list(GROUPS).index(entry.group) for entry in ENTRIES]
    assert groups == sorted(groups)


def test_the_chapter_to_read_again_has_that_heading(repo):
    toc = yaml.safe_load((repo / "_toc.yml").read_text(encoding="utf-8"))
    files = {c["file"].split("/")[-1] for part in toc["parts"] for c in part["chapters"]}
    for entry in ENTRIES:
        assert entry.chapter in files, f"{entry.slug}: no chapter {entry.chapter}"
        text = (repo / "book" / f"{entry.chapter}.md").read_text(encoding="utf-8")
        headings = re.findall(r"^##+ (.+)$", text, re.MULTILINE)
        assert entry.heading in headings, f"{entry.slug}: {entry.chapter} has no heading {entry.heading}"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.slug)
def test_texts_have_a_sane_length(entry):
    def sentences(text):
        return len(re.findall(r"[.!?](?=\s|$)", text))

    assert 8 <= len(entry.title) <= 70
    assert 50 <= len(entry.belief) <= 260
    assert 1 <= sentences(entry.belief) <= 4
    assert 120 <= len(entry.teach) <= 460
    assert 2 <= sentences(entry.teach) <= 7
    assert entry.belief.endswith(".")
    assert entry.teach[-1] in ".?"
    assert not re.search(r"\b(simply|obviously|just|easy|easily)\b", entry.belief + entry.teach)


def test_titles_are_told_apart():
    assert len({entry.title for entry in ENTRIES}) == len(ENTRIES)
    assert all(slug == entry.slug and re.fullmatch(r"[a-z][a-z-]+", slug) for slug, entry in MISCONCEPTIONS.items())
