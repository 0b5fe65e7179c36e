"""Every known mistake is refused, for its own reason."""

import re

import pytest

from normlab import check, guard, verdict
from normlab.exercises import EXERCISES
from normlab.guard import MUTATES_INPUT
from normlab.mistakes import MISTAKES


@pytest.fixture(params=["once", pytest.param("anew", marks=pytest.mark.exhaustive)])
def _quick(monkeypatch, request):
    """Watching calls takes half of the time, and no mistake is one of calling what may not be called. And the answer is
    here the very function that it is compared with: `make test` calls it once on each case, `make prove` for both."""
    outcomes = {}

    def run(candidate, exercise, case, seed, watched=False):
        if request.param == "anew" or (candidate, case) not in outcomes:
            outcomes[candidate, case] = guard.run(candidate, exercise, case, seed, watched=False)
        return outcomes[candidate, case]

    monkeypatch.setattr(check, "run", run)
    monkeypatch.setattr(verdict, "run", run)


@pytest.mark.usefixtures("one_thread", "_quick")
@pytest.mark.parametrize("name", EXERCISES)
def test_every_mistake_is_refused_for_its_own_reason(name):
    """Under a course's secret, and watched, the tests of the command line say the same of some, `make prove` of all."""
    refuses(name, [(mistake, mistake.wrong) for mistake in MISTAKES[name]])


@pytest.mark.exhaustive
@pytest.mark.usefixtures("one_thread", "_quick")
@pytest.mark.parametrize("name", [name for name in EXERCISES if any(mistake.variants for mistake in MISTAKES[name])])
def test_so_is_each_other_way_of_writing_it(name):
    refuses(name, [(mistake, variant) for mistake in MISTAKES[name] for variant in mistake.variants])


def refuses(name, answers):
    """Each of [(mistake, function)] is refused, and for that mistake."""
    bench = verdict.Bench(EXERCISES[name], b"public")
    for mistake, wrong in answers:
        refusal = check._refusal(bench, wrong, None)
        assert refusal is not None, f"{name}: {mistake.slug} is accepted"
        sentence, slug = refusal
        assert slug == mistake.slug, f"{name}: {mistake.slug}: {sentence}"
        said = f"{'it' if EXERCISES[name].explain else 'yours'} {mistake.sentence}."
        assert sentence.endswith(said) or slug == MUTATES_INPUT, sentence


@pytest.mark.parametrize("name", EXERCISES)
def test_there_are_enough_and_each_is_told_apart_by_its_slug(name):
    slugs = [mistake.slug for mistake in MISTAKES[name]]
    assert len(slugs) >= (8 if EXERCISES[name].core else 4)
    assert len(set(slugs)) == len(slugs)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) for slug in slugs)


def test_no_mistakes_of_exercises_that_there_are_not():
    assert set(MISTAKES) == set(EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
def test_sentences_complete_yours(name):
    """One sentence that begins with a verb in the third person, and quotes no value of a case."""
    for sentence in (mistake.sentence for mistake in MISTAKES[name]):
        first = sentence.split()[0]
        assert first.endswith("s"), sentence
        assert first == first.lower(), sentence
        assert not sentence.endswith((".", " ")), "check() sets the full stop"
        assert not re.search(r"[a-z)]\. |\n", sentence), "one sentence"
        assert len(sentence) <= 200, sentence
        assert not re.search(r"\d\.\d{3}|\[[-\d]", sentence), "a value?"
