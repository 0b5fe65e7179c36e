"""Variants: right solutions pass in any style, the course's own is refused with a sentence, draws follow the secret."""

import collections
import dataclasses
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import jupytext
import numpy as np
import pytest
import variant_styles

from grading import course, demo
from grading import variants as command
from normlab import cases, check, exercises, variants, verdict
from normlab.guard import run

ALL = variants.every_variant()
SECRETS = [b"fern", b"moss", b"lichen"]


def some(number, each=1):
    """`each` variants of every family, others for each number."""
    for family in variants.FAMILIES.values():
        own = list(family.variants.values())
        yield from (own[(7 * number + 5 * k + 3) % len(own)] for k in range(each))


def function(code, name):
    namespace = {"np": np}
    exec(code, namespace)
    return namespace[name]


def solution_of(source, name):
    (cell,) = [c for c in jupytext.reads(source, fmt="py:percent").cells if c.metadata.get("solution") == name]
    return function(cell.source, name)


@cache
def public_answer(name):
    """The course's own solution, as anybody finds it."""
    stem = exercises.EXERCISES[name].stem
    source = Path(course.ROOT, "solutions", stem, f"{stem}.py").read_text(encoding="utf-8")
    return solution_of(source, name)


def outcomes(bench, candidate):
    """What the candidate does on each case, in the order of a check."""
    ordered = sorted(bench.exercise.cases, key=lambda case: cases.PARTS.index(case.part))
    return {case: run(candidate, bench.exercise, case, bench.seed, watched=False) for case in ordered}


def failed(bench, done):
    return [case for case, outcome in done.items() if bench.fault(case, outcome)[0]]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Small arrays: threads only cost time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- what variants there are -----------------------------------------------------------------------------------------


def test_each_differs_from_the_course_in_two_conventions_at_least():
    assert len(variants.FAMILIES) >= 7
    assert len({variant.name for variant in ALL}) == len(ALL)
    for variant in ALL:
        assert len(variant.changed) >= 2
        assert re.fullmatch(r"[a-z_]+_variant:[a-z0-9]+(-[a-z0-9]+)*", variant.name)
        assert {case.part for case in variant.exercise.cases} == set(cases.PARTS)
        names = [case.name for case in variant.exercise.cases]
        assert len(set(names)) == len(names), variant.name


def test_every_name_is_found_and_the_course_keeps_its_exercises():
    for variant in ALL:
        found = exercises.find(variant.name)
        assert (found.name, found.function) == (variant.name, variant.family.function)
    assert not [name for name in exercises.EXERCISES if "variant" in name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("softmax_variant", "comes in variants: give the name that your check cell has, such as softmax_variant:"),
        ("softmax_variant:base-2-axis-1", "did you mean softmax_variant:base-2-axis-0"),
        ("softmax_variant:qqq", "--list-variants"),
        ("sofmax_variant:base-2-axis-0", "there is no exercise"),
        ("rms_norm_variant:eps-floor", "there is no exercise"),
    ],
)
def test_names_that_there_are_not(name, words):
    with pytest.raises(ValueError) as error:
        exercises.find(name)
    assert words in str(error.value)


# ---- right and wrong answers -----------------------------------------------------------------------------------------


EVERY_OTHER = [slice(0, None, 2), pytest.param(slice(1, None, 2), marks=pytest.mark.exhaustive)]


@pytest.mark.parametrize("chosen", EVERY_OTHER, ids=str)
@pytest.mark.parametrize("name", variants.FAMILIES)
def test_truths_agree_the_solution_passes_and_the_public_answer_does_not(name, chosen):
    """Of every variant: PyTorch and NumPy agree on each case; the notebook's solution is right on all of them; the
    course's own solution is wrong, and in nothing different from what is known as the public answer."""
    for variant in [*variants.FAMILIES[name].variants.values()][chosen]:
        exercise = variant.exercise
        known = dataclasses.replace(exercise, mistakes=exercise.mistakes[:1])
        bench = verdict.Bench(known, b"public")
        for case in exercise.cases:
            args, kwargs = exercise.draw(case, b"public")
            if case.raises:
                with pytest.raises(case.raises):
                    exercises.truth(exercise, args, kwargs, use_torch=False)
                continue
            ours = exercises.truth(exercise, args, kwargs, use_torch=False)
            theirs = exercises.truth(exercise, args, kwargs, use_torch=True)
            for one, other in zip(*(t if isinstance(t, tuple) else (t,) for t in (theirs, ours)), strict=True):
                assert one.shape == other.shape, (variant.name, case.name)
                # Not by the rule of cases.py: its tolerance grows with the very difference that is looked for here.
                scale = np.abs(one[np.isfinite(one)]).max(initial=0.0)
                wrong = verdict.wrong_values(one, 1e-7 * scale, other.astype(float))
                assert wrong is None, (variant.name, case.name)
        solution = solution_of(variant.source, variant.family.function)
        assert failed(bench, outcomes(bench, solution)) == [], variant.name
        done = outcomes(bench, public_answer(name))
        wrong = failed(bench, done)
        assert len(wrong) >= 3, variant.name
        assert wrong[0].part == "values", variant.name
        assert bench.name(done, wrong[0]).slug == "public-answer", variant.name


@pytest.mark.parametrize("variant", [*some(0, each=2)], ids=lambda v: v.name)
def test_a_copied_answer_is_told_so_in_one_sentence(variant, monkeypatch):
    monkeypatch.delenv("NORMLAB_SECRET_FILE", raising=False)
    copied = public_answer(variant.family.name)
    with pytest.raises(check.CheckFailed) as refused:
        check.check(copied, variant.name)
    sentence = str(refused.value)
    assert refused.value.mistake == "public-answer"
    assert sentence.startswith(f"{variant.family.function}: on ")
    assert f"yours is the course's own {variant.family.name}, with " in sentence
    for _, before, after in variant.changed:
        assert before.words in sentence
        assert after.words in sentence
    assert sentence.count(". ") == 0


# Each needs a case of its own, without which one of its mistakes is accepted or taken for another.
CLOSE = [
    ("softmax_variant:axis-0-empty-zeros", b"public"),
    ("softmax_variant:base-10-empty-zeros", b"public"),
    ("cross_entropy_variant:ignore-1-classes-first", b"public"),
    ("layer_norm_backward_variant:eps-floor-features-first-factor-one-plus", b"course 17"),
]
NAMED = [
    *((variant.name, seed) for variant, seed in zip(some(1), [*SECRETS, b"public"] * 2, strict=True)),
    *CLOSE,
]


@pytest.mark.parametrize(("name", "seed"), NAMED)
def test_every_mistake_is_named(name, seed):
    """Refused, for its own reason; of the variants a few, since all of them take minutes."""
    exercise = exercises.find(name)
    bench = verdict.Bench(exercise, seed)
    assert len(exercise.mistakes) >= 6
    for mistake in exercise.mistakes:
        done = outcomes(bench, mistake.wrong)
        wrong = failed(bench, done)
        assert wrong, f"{name}: {mistake.slug} is accepted"
        named = bench.name(done, wrong[0])
        assert named is mistake, f"{name}: {mistake.slug} is taken for {named and named.slug}"


@pytest.mark.parametrize("variant", [*some(2)], ids=lambda v: v.name)
def test_three_right_styles_are_accepted(variant):
    for seed in (b"public", SECRETS[0]):
        bench = verdict.Bench(variant.exercise, seed)
        styles = variant_styles.STYLES[variant.family.name](**variant.conventions)
        assert len(set(styles)) >= 3
        for style in styles:
            assert check._refusal(bench, style, None) is None, style.__name__


def test_sentences_complete_yours():
    for variant in ALL:
        mistakes = variant.exercise.mistakes
        slugs = [mistake.slug for mistake in mistakes]
        assert len(set(slugs)) == len(slugs), variant.name
        for sentence in (mistake.sentence for mistake in mistakes):
            assert sentence.split()[0].endswith("s"), sentence
            assert not sentence.endswith((".", " ")), sentence
            assert not re.search(r"[a-z)]\. |\n", sentence), sentence
            assert len(sentence) <= 300, sentence


# ---- the text --------------------------------------------------------------------------------------------------------


def test_the_worked_example_is_what_the_solution_gives():
    lists = {"list": list, "tuple": tuple, "inf": np.inf}
    for variant in ALL:
        name, (call, answer, _) = variant.family.function, variant.example
        assert f"`{call}` gives `{answer}`" in variant.source
        solution = solution_of(variant.source, name)

        def with_arrays(*args, solution=solution, **kwargs):
            args, kwargs = [[np.array(a) * 1.0 if isinstance(a, list) else a for a in args], kwargs]
            if "target" in solution.__code__.co_varnames:
                args[1] = args[1].astype(int)
            return solution(*args, **{k: np.array(v) * 1.0 if isinstance(v, list) else v for k, v in kwargs.items()})

        got = eval(call, {name: with_arrays, **lists})
        wanted = eval(answer, lists)
        for a, b in zip(*((v if isinstance(v, tuple) else (v,)) for v in (got, wanted)), strict=True):
            assert np.allclose(a, b, atol=6e-4), (variant.name, got, wanted)


def test_the_text_says_in_bold_what_changed():
    for variant in ALL:
        about = variant.source[: variant.source.index("solution=")]
        for _, before, after in variant.changed:
            assert f"- **{after.rule}**, where the course has {before.words}" in about
        assert variant.exercise.signature in about


# ---- the draw --------------------------------------------------------------------------------------------------------


def test_the_draw_follows_the_secret_alone():
    first = variants.draw(b"fern")
    assert first == variants.draw(b"fern")
    assert first != variants.draw(b"moss")
    assert [v.family.name for v in first] == list(variants.FAMILIES)
    assert variants.draw(b"fern", ["softmax", "layer_norm"]) == [
        v for v in first if v.family.name in ("softmax", "layer_norm")
    ]
    three = variants.draw(b"fern", count=3)
    assert len(three) == 3
    assert [v for v in first if v in three] == three


@pytest.mark.parametrize(
    ("families", "count", "words"),
    [(["rms_norm"], None, "no variants of 'rms_norm'"), (None, 0, "0 exercises"), (["softmax"], 2, "2 exercises")],
)
def test_what_cannot_be_drawn(families, count, words):
    with pytest.raises(ValueError, match=words):
        variants.draw(b"fern", families, count)


def test_every_variant_is_reached_and_none_is_favored():
    secrets, seen, families = 1500, collections.Counter(), collections.Counter()
    for number in range(secrets):
        seen.update(v.name for v in variants.draw(b"class %d" % number))
        families.update(v.family.name for v in variants.draw(b"class %d" % number, count=3))
    assert set(seen) == {variant.name for variant in ALL}
    for variant in ALL:
        expected = secrets / len(variant.family.variants)
        assert abs(seen[variant.name] - expected) < 5 * expected**0.5, variant.name
    for name in variants.FAMILIES:
        assert abs(families[name] - secrets * 3 / 8) < 5 * (secrets * 3 / 8) ** 0.5, name


# ---- the instructor's notebook ---------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("ferns and moss and lichen\n")
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "course").mkdir()
    return tmp_path / "course"


def test_the_command_writes_the_drawn_notebook_and_nothing_of_the_secret(folder, secret, capsys):
    assert command.main(["--secret", str(secret), "--families", "softmax,layer_norm", "--count", "1", str(folder)]) == 0
    (drawn,) = variants.draw(b"ferns and moss and lichen", ["softmax", "layer_norm"], 1)
    told = capsys.readouterr().out
    assert f"{drawn.family.function}: {drawn.statement}" in told
    written = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert set(written) == {"nbgrader_config.py", "solutions/variants/variants.ipynb"}
    assert drawn.name in written["solutions/variants/variants.ipynb"]
    assert not [text for text in (told, *written.values()) if "lichen" in text]


def test_it_writes_over_a_notebook_only_with_force(folder, secret, capsys):
    arguments = ["--secret", str(secret), str(folder)]
    assert command.main(arguments) == 0
    before = (folder / command.NOTEBOOK).read_bytes()
    assert command.main(["--practice", "--force", str(folder)]) == 0
    practice = (folder / command.NOTEBOOK).read_bytes()
    assert practice != before
    assert command.main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert (folder / command.NOTEBOOK).read_bytes() == practice
    assert command.main([*arguments, "--force"]) == 0
    assert (folder / command.NOTEBOOK).read_bytes() == before


def test_what_the_command_refuses(repo, folder, secret, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NORMLAB_SECRET_FILE", raising=False)
    (tmp_path / "empty").write_text(" \n")
    for arguments, words in (
        ([folder], "drawn from its secret"),
        (["--secret", tmp_path / "none", folder], "cannot be read: No such file"),
        (["--secret", tmp_path / "empty", folder], "is empty"),
        (["--secret", secret, "--practice", folder], "--practice draws from the public seed"),
        (["--secret", secret, repo / "course"], "inside the checkout"),
        (["--secret", secret, tmp_path / "nowhere"], "is no folder"),
        (["--secret", secret, "--count", "9", folder], "9 exercises cannot be drawn from 8 families"),
        (["--secret", secret, folder, "--families", "rms_norm"], "there are no variants of 'rms_norm'"),
    ):
        assert command.main([str(a) for a in arguments]) == 2
        told = capsys.readouterr().err
        assert words in told
        assert told.count("\n") == 1
    assert list(folder.iterdir()) == []
    assert not (repo / "course").exists()


@pytest.mark.exhaustive
def test_through_nbgrader(tmp_path, monkeypatch):
    """One submission: the variant that was solved has all points; where the course's own answer was handed in, the
    feedback says so."""
    folder = tmp_path / "class"
    folder.mkdir()
    course.make(folder, [])
    arguments = ["--secret", str(folder / "secret"), "--families", "softmax,layer_norm", str(folder)]
    assert command.main(arguments) == 0
    drawn = variants.draw((folder / "secret").read_bytes(), ["softmax", "layer_norm"])
    instructor = demo.cells_by_id(json.loads((folder / command.NOTEBOOK).read_text()))
    solved, copied = drawn
    name = copied.family.name
    stem = exercises.EXERCISES[name].stem
    own = json.loads(Path(course.ROOT, "solutions", stem, f"{stem}.ipynb").read_text())
    code = "".join(demo.cells_by_id(own)[name]["source"])
    answers = {
        solved.family.function: "".join(instructor[solved.family.function]["source"]),
        copied.family.function: code.replace(f"def {name}(", f"def {copied.family.function}("),
    }
    with course.workers(folder) as pool:
        assert pool.submit(course.nbgrader, "generate_assignment", "variants").result() == 0
        released = (folder / "exercises" / "variants" / "variants.ipynb").read_text()
        assert "BEGIN SOLUTION" not in released
        answers = {name: demo.Answer(code, frozenset(), None, False) for name, code in answers.items()}
        submission = demo.Submission("ada", "variants", "", answers)
        demo.hand_in(folder, submission)
        assert pool.submit(course.nbgrader, "zip_collect", "variants").result() == 0
        assert pool.submit(course.nbgrader, "autograde", "variants", "--student", "ada").result() == 0
        scores = pool.submit(course.scores, "variants").result()["ada"]
    points = [{part: scores[f"check-{v.family.function}-{part}"] for part in cases.PARTS} for v in drawn]
    assert points[0] == {"values": 12, "numerics": 5, "edges": 3}
    assert points[1]["values"] == 0
    assert sum(points[1].values()) <= 5
    refusals = demo.refusals(folder, submission)
    assert {name for name, _ in refusals} == {copied.family.function}
    assert f"is the course's own {name}, with " in refusals[copied.family.function, "values"]


# ---- the command line of the check -----------------------------------------------------------------------------------


def test_check_on_the_command_line(tmp_path):
    """Solved, copied, and a file that has the function under its old name."""
    variant = variants.FAMILIES["softmax"].variants["base-2-axis-0"]
    (cell,) = [c for c in jupytext.reads(variant.source, fmt="py:percent").cells if "solution" in c.metadata]
    old = Path(course.ROOT, "solutions", "softmax", "softmax.py").read_text(encoding="utf-8")
    (course_cell,) = [c for c in jupytext.reads(old, fmt="py:percent").cells if c.metadata.get("solution") == "softmax"]
    texts = {
        "solved": cell.source,
        "copied": course_cell.source.replace("def softmax(", "def softmax_variant("),
        "old_name": course_cell.source,
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(f"import numpy as np\n\n\n{text}\n")
    line = [sys.executable, "-m", "normlab.check", variant.name, *(str(tmp_path / f"{n}.py") for n in texts), "--json"]
    env = {k: v for k, v in os.environ.items() if k != "NORMLAB_SECRET_FILE"}
    done = subprocess.run(line, cwd=course.ROOT, env=env, capture_output=True, text=True, timeout=120)
    solved, copied, old_name = (json.loads(text) for text in done.stdout.splitlines())
    assert (solved["accepted"], solved["exercise"]) == (True, variant.name)
    assert copied["mistake"] == "public-answer"
    assert old_name["reason"] == "softmax_variant: the file has no function softmax_variant."
    assert done.returncode == 2


def test_list_variants(capsys):
    assert check.main(["--list-variants"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ALL)
    assert "softmax_variant:base-2-axis-0  softmax with base 2 and a default axis of 0" in lines
