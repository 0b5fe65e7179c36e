"""The instructor's plans: what is counted, and what a plan is told when it is wrong."""

import importlib
import sys
from pathlib import Path

import pytest

from normlab.exercises import EXERCISES


@pytest.fixture(scope="module")
def plans():
    """book/plans.py, imported as the guide imports it."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "book"))
    yield importlib.import_module("plans")
    sys.path.pop(0)


@pytest.fixture
def course(plans):
    """Two chapters of which everything is known."""
    make = plans.Chapter
    return {
        "puzzle": make("puzzle", "I", "Why?", 1000, 2, 3, 15, ("standardize", "old_output")),
        "axes": make("axes", "II", "Which?", 5000, 2, 2, None, ("batch_norm", "layer_norm", "group_norm")),
    }


@pytest.fixture
def good(plans):
    return [
        plans.Session(1, "puzzle", in_class="standardize"),
        plans.Session(2, "axes", in_class="batch_norm", at_home="layer_norm group_norm"),
    ]


@pytest.fixture
def minutes(plans):
    return plans.Minutes(vote=5, live=8, look_back=10, core=50, extra=25)


def of(plans, plan, course, minutes, **limits):
    return list(plans.complaints(plan, course, minutes, **{"class_limit": 90, "week_limit": 300, **limits}))


@pytest.fixture
def only_these(monkeypatch, plans):
    """The exercises of the two chapters alone."""
    few = {n: e for n, e in EXERCISES.items() if e.stem in ("puzzle", "axes")}
    monkeypatch.setattr(plans, "EXERCISES", few)


def test_words_are_those_of_the_prose(plans):
    text = "---\nkernel: x\n---\n\n# One two\n\n```{code-cell} python\nnot = these\n```\n\nthree four\n"
    assert plans.words_of(text) == 5  # with the # of the heading


def test_reading_takes_what_the_page_promises_or_its_words(course):
    assert (course["puzzle"].prose, course["puzzle"].reading) == (5, 15)
    assert (course["axes"].prose, course["axes"].reading) == (25, 25)


def test_minutes_add_up(plans, course, minutes, good):
    assert plans.time_in_class(good, 1, course, minutes) == 10 + 3 * 5 + 8 + 50
    assert plans.time_at_home(good[1], course, minutes) == 25 + 2 * 50
    assert plans.weeks(good, course, minutes, 90) == {1: 90 + 15, 2: 90 + 125}
    assert [plans.hours(m) for m in (45, 120, 125)] == ["45 min", "2 h", "2 h 05"]


@pytest.mark.usefixtures("only_these")
def test_a_right_plan_has_no_complaints(plans, course, minutes, good):
    assert of(plans, good, course, minutes) == []


@pytest.mark.usefixtures("only_these")
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s, good: good[:1], "chapter axes is in the plan 0 times"),
        (lambda s, good: [*good, s(2, "puzzle")], "chapter puzzle is in the plan 2 times"),
        (lambda s, good: [good[0], s(2, "axes", in_class="batch_norm", at_home="layer_norm")], "group_norm is in the"),
        (lambda s, good: [good[0], s(2, "axes", "batch_norm", "layer_norm group_norm standardize")], "standardize is"),
        (
            lambda s, good: [s(1, "puzzle", "standardize", "batch_norm"), s(2, "axes", "", "layer_norm group_norm")],
            "before",
        ),
        (lambda s, good: good[::-1], "does not keep the order"),
        (lambda s, good: [s(1, "puzzle", "standardize old_output"), good[1]], "session 1 takes 108 minutes of 90"),
        (
            lambda s, good: [good[0], s(1, "axes", "batch_norm", "layer_norm group_norm rms_norm")],
            "week 1 takes 345 minutes of 300",
        ),
    ],
)
def test_a_wrong_plan_is_told_what_is_wrong(plans, course, minutes, good, change, complaint):
    assert any(complaint in said for said in of(plans, change(plans.Session, good), course, minutes))


@pytest.mark.usefixtures("only_these")
def test_what_is_not_there_yet_is_left_out(plans, course, minutes, good):
    planned = [*good, plans.Session(3, "training capstone", at_home="my_normlab")]
    assert plans.present(planned, course, plans.EXERCISES) == good
    later = {**course, "kernels": course["axes"]}
    assert "chapter kernels is in the plan 0 times" in of(plans, good, later, minutes)
    assert of(plans, good, later, minutes, elective=("kernels",)) == []


def test_the_course_is_the_one_of_the_table_of_contents(plans):
    chapters = plans.chapters()
    assert next(iter(chapters)) == "puzzle"
    assert "references" not in chapters
    assert {name for c in chapters.values() for name in c.exercises} == {
        name for name, e in EXERCISES.items() if e.stem in chapters
    }
    assert all(c.words > 500 and c.predictions >= 1 for c in chapters.values())


def test_points_come_from_the_notebooks(plans):
    assert plans.shares() == {"values": 60, "numerics": 25, "edges": 15}
    assert set(plans.points()) == {"check", "measure", "explanation"}
    assert plans.points()["check"] == sum(points for kind, _, points in plans.graded_cells() if kind == "check") > 0


def test_cards_leave_out_what_is_empty_and_escape_names(plans):
    text = plans.cards([("a < b", [("x", "<em>1</em>"), ("y", "")])])
    assert "a &lt; b" in text
    assert "<dt>x</dt><dd><em>1</em></dd>" in text
    assert "<dt>y</dt>" not in text


def test_each_misconception_is_on_a_card_with_its_mistakes(plans):
    text = plans.misconception_cards(plans.chapters())
    for slug, entry in plans.MISCONCEPTIONS.items():
        assert text.count(f'id="misconception-{slug}"') == 1, slug
        assert f"{entry.chapter}.html#" in text
    assert sum(sum(its.values()) for its in plans.mistakes_by_misconception().values()) == sum(
        map(len, plans.MISTAKES.values())
    )


def test_the_guide_is_read_again_when_another_page_is(repo, monkeypatch):
    """It counts what stands in other pages, so neither Sphinx nor the notebook cache may keep an old one."""
    monkeypatch.syspath_prepend(repo / "book" / "_ext")
    pages = importlib.import_module("normlab_site.pages")

    class Environment:
        found_docs = frozenset({"book/instructors", "book/puzzle"})

    assert pages.reread(None, Environment, set(), {"book/puzzle"}, set()) == ["book/instructors"]
    assert pages.reread(None, Environment, set(), set(), set()) == []
    for page in pages.COUNTING:
        assert "  execution_mode: force" in (repo / f"{page}.md").read_text(encoding="utf-8")
