"""The concept inventory: its questions are well made, its facts are computed, its arithmetic and its page hold."""

import json
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from bs4 import BeautifulSoup
from torch import nn

from normlab import inventory
from tools import screenshots

FOUND = inventory.load()
QUESTIONS = FOUND.questions
IDS = [question.id for question in QUESTIONS]
RIGHT = "".join(question.right for question in QUESTIONS)
# Chapters of the course whose pages are not written yet. One that is in _toc.yml has to leave this list.
TO_COME = set()


# -- The questions ---------------------------------------------------------------------------------------------------


def test_there_are_enough_questions_and_none_twice():
    assert 16 <= len(QUESTIONS) <= 20
    assert len(set(IDS)) == len(IDS)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in [*IDS, *FOUND.beliefs])
    texts = [question.text for question in QUESTIONS]
    assert len(set(texts)) == len(texts)


def test_every_belief_is_behind_a_wrong_option_and_none_twice_in_one_question():
    shown = [option.belief for question in QUESTIONS for option in question.options if option.belief]
    assert set(shown) == set(FOUND.beliefs)
    for question in QUESTIONS:
        beliefs = [option.belief for option in question.options]
        assert len(set(beliefs)) == len(beliefs), question.id


# What the course is there to change, by chapter, and a belief that stands for it.
SYLLABUS = {
    "normalized things sum to 1": ("puzzle", "normalized-sums-to-one"),
    "BN output has unit variance": ("puzzle", "output-has-unit-variance"),
    "one word, one thing": ("meanings", "one-word-one-thing"),
    "it Gaussianises": ("shape", "it-gaussianizes"),
    "it keeps the distribution": ("shape", "it-keeps-the-distribution"),
    "softmax assumes Gaussian samples": ("softmax", "softmax-assumes-gaussian-samples"),
    "the family is a zoo": ("axes", "the-family-is-a-zoo"),
    "GN(1) is the transformer's LN": ("axes", "group-norm-1-is-the-transformers"),
    "momentum": ("running", "momentum-is-what-is-kept"),
    "biased/unbiased": ("running", "one-variance-for-both"),
    "frozen BN": ("running", "requires-grad-freezes"),
    "softmax twice": ("cross_entropy", "softmax-twice-is-once"),
    "NLL without log": ("cross_entropy", "nll-takes-the-log"),
    "sum(y) as a gradient check": ("backward", "a-sum-is-a-fair-loss"),
    "green means right": ("hunt", "green-means-right"),
    "E[x^2]-E[x]^2 is fine": ("variance", "formulas-hold-in-floats"),
    "-inf is harmless": ("attention", "minus-inf-is-harmless"),
    "internal covariate shift as settled truth": ("training", "covariate-shift-is-settled"),
    "faster means fewer FLOPs": ("kernels", "time-is-flops"),
}


@pytest.mark.parametrize("words", SYLLABUS)
def test_the_beliefs_of_the_syllabus_are_asked_for(words):
    chapter, belief = SYLLABUS[words]
    asked = [question for question in QUESTIONS if question.chapter == chapter]
    assert belief in [option.belief for question in asked for option in question.options]


def test_right_answers_are_spread_over_the_places():
    places = [RIGHT.count(letter) for letter in "abcd"]
    assert sum(places) == len(QUESTIONS)
    assert max(places) - min(places) <= 1
    assert not re.search(r"(.)\1\1", RIGHT), "three right answers in one place, one after another"


def test_the_right_option_cannot_be_told_by_its_length():
    longest = shortest = 0
    for question in QUESTIONS:
        lengths = [len(option.text) for option in question.options]
        others = [len(option.text) for option in question.options if option.belief]
        right = len(question.option(question.right).text)
        longest += right > max(others)
        shortest += right < min(others)
        assert max(lengths) - min(lengths) <= 25, f"the options of {question.id} differ in length: {lengths}"
    # A quarter of them, if length has nothing to do with it.
    assert longest <= 7
    assert shortest <= 7


def test_no_option_is_about_the_others():
    for question in QUESTIONS:
        for option in question.options:
            assert not re.search(r"of the above|all of these|none of these|both [a-e] and", option.text.lower())


def test_texts_are_one_paragraph():
    """The page shows them in a legend, a label and a table."""
    for text in [
        *FOUND.beliefs.values(),
        *(t for q in QUESTIONS for o in q.options for t in (q.text, o.text, o.because)),
    ]:
        assert text == text.strip()
        assert "\n" not in text
        assert text.count("$") % 2 == 0
        assert text.count("`") % 2 == 0


def test_chapters_and_sections_exist(repo):
    toc = yaml.safe_load((repo / "_toc.yml").read_text(encoding="utf-8"))
    written = {chapter["file"].split("/")[-1] for part in toc["parts"] for chapter in part["chapters"]}
    assert TO_COME.isdisjoint(written), "a chapter has been written: give its questions a section"
    assert {question.chapter for question in QUESTIONS} == set(FOUND.chapters)
    for stem, title in FOUND.chapters.items():
        if stem not in TO_COME:
            assert stem in written
            headings = re.findall(
                r"^#+ (.+)$", (repo / "book" / f"{stem}.md").read_text(encoding="utf-8"), re.MULTILINE
            )
            assert headings[0] == title
            sections = [question.section for question in QUESTIONS if question.chapter == stem]
            assert set(sections) <= set(headings[1:]), stem


def test_a_changed_word_is_another_version(tmp_path):
    text = inventory.FILE.read_text(encoding="utf-8")
    other = tmp_path / "other.toml"
    other.write_text(text.replace('text = "to 8"', 'text = "to eight"'), encoding="utf-8")
    assert inventory.read(other).version != FOUND.version
    other.write_text(text.replace("There is an 8 in it", "An 8 is in it"), encoding="utf-8")
    assert inventory.read(other).version == FOUND.version


# {what is wrong: (text, what stands there instead, the sentence)}
FAULTS = {
    "two right": (
        'belief = "normalized-sums-to-one"\nbecause = "Softmax does',
        'why = "Softmax does',
        "one option with `why`",
    ),
    "no reason": ('why = "The mean of the batch', 'reason = "The mean of the batch', "option b: it has text and why"),
    "no such belief": ("normalized-sums-to-one = ", "normalized-sums-to-ten = ", "no sentence for the belief"),
    "no such chapter": ('chapter = "puzzle"', 'chapter = "riddle"', "there is no chapter riddle"),
    "an id twice": ('id = "momentum"', 'id = "base-two"', "two questions have the id base-two"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_named(tmp_path, fault):
    before, after, sentence = FAULTS[fault]
    text = inventory.FILE.read_text(encoding="utf-8")
    assert before in text
    (tmp_path / "faulty.toml").write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        inventory.read(tmp_path / "faulty.toml")


# -- The facts: for each question the letter that comes out when it is computed ----------------------------------------

generator = partial(torch.Generator().manual_seed)


def fact_sum_of_batch_norm():
    y = F.batch_norm(torch.randn(8, 1, generator=generator(1), dtype=torch.float64), None, None, training=True)
    assert (y**2).sum().item() == pytest.approx(8, rel=1e-4)  # as the explanation of c says
    return {0: "b", 1: "a", 8: "c"}[round(y.sum().item(), 9)]


def fact_spread_of_a_layer():
    spreads = []
    for n in (2, 8, 1000):
        layer = nn.BatchNorm1d(1, dtype=torch.float64)
        x = torch.randn(n, 1, generator=generator(n), dtype=torch.float64)
        x = 3 * x / x.std(correction=0)
        assert layer(x).std(correction=0).item() == pytest.approx(
            1, rel=1e-5
        )  # so neither a nor c; and b is its weight
        nn.init.constant_(layer.weight, 0.5)
        spreads.append(layer(x).std(correction=0).item())
    assert spreads == pytest.approx([0.5] * 3, rel=1e-5)
    return "d"


def fact_five_called_normalizing():
    x = np.array([3.0, -1.0])
    e = np.exp(x)
    outputs = [
        x / abs(x).sum(),
        x / np.sqrt((x**2).sum()),
        (x - x.min()) / np.ptp(x),
        (x - x.mean()) / x.std(),
        e / e.sum(),
    ]
    assert outputs[0].tolist() == [0.75, -0.25]  # as the explanation of b says
    three = np.array([3.0, -1.0, 0.5])  # of two numbers min-max makes 0 and 1
    assert ((three - three.min()) / np.ptp(three)).sum() != pytest.approx(1)
    e = np.exp(three)
    always = [False] * 4 + [bool(np.isclose(e.sum() / e.sum(), 1)) and bool(np.isclose(outputs[4].sum(), 1))]
    assert not any(np.isclose(outputs[k].sum(), 1) for k in (0, 1, 3))
    return {1: "a", 2: "b", 4: "c", 5: "d"}[sum(always)]


def fact_shape_after_standardizing():
    x = np.random.default_rng(0).exponential(size=100_000)
    z = (x - x.mean()) / x.std()

    def skewness(values):
        return float((((values - values.mean()) / values.std()) ** 3).mean())

    edges = np.linspace(0, 8, 30)
    mapped = (edges - x.mean()) / x.std()
    assert (np.histogram(x, edges)[0] == np.histogram(z, mapped)[0]).all()
    assert skewness(z) == pytest.approx(skewness(x))
    assert skewness(z) > 1.8  # neither a bell nor flat, nor less lopsided
    return "c"


def fact_batches_of_two():
    x = torch.from_numpy(np.random.default_rng(0).exponential(size=(1000, 2)))
    x = x[(x[:, 0] - x[:, 1]).abs() > 0.1]
    y = torch.cat([F.batch_norm(pair[:, None], None, None, training=True) for pair in x])
    assert y.abs().sub(1).abs().max().item() < 5e-3
    return "b"


def fact_softmax_of_draws():
    x = torch.randn(1000, generator=generator(0))
    largest = torch.softmax(x, 0).argmax()
    assert largest not in (x.abs().argmin(), x.neg().argmax())
    assert torch.softmax(x, 0).max() > 10 / 1000
    lopsided = torch.tensor([-9.0, 1.0, 0.0])
    assert torch.softmax(lopsided, 0).argmax() == 1  # not the one farthest from 0
    return {int(x.argmax()): "a", int(x.abs().argmin()): "b"}[int(largest)]


def fact_base_two():
    x = np.random.default_rng(0).standard_normal(10)
    powers = 2.0**x / (2.0**x).sum()
    assert powers.sum() == pytest.approx(1)
    assert (powers.argsort() == x.argsort()).all()
    scaled = np.exp(x * np.log(2)) / np.exp(x * np.log(2)).sum()
    assert np.log(2) == pytest.approx(0.69, abs=0.005)
    assert powers == pytest.approx(scaled)
    assert powers.max() < (np.exp(x) / np.exp(x).sum()).max()  # a little more equal
    return "d"


def fact_what_makes_the_norm():
    x = torch.randn(2, 6, 4, 4, generator=generator(0), dtype=torch.float64)

    def norm(x, axes):
        return (x - x.mean(axes, keepdim=True)) / (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()

    assert torch.allclose(norm(x, (0, 2, 3)), F.batch_norm(x, None, None, training=True))
    assert torch.allclose(norm(x, (2, 3)), F.instance_norm(x))
    assert torch.allclose(norm(x, (1, 2, 3)), F.layer_norm(x, (6, 4, 4)))
    assert torch.allclose(norm(x.reshape(2, 3, 2, 4, 4), (2, 3, 4)).reshape(x.shape), F.group_norm(x, 3))
    return "c"


def fact_group_norm_of_one():
    x = torch.randn(2, 6, 4, 4, generator=generator(0), dtype=torch.float64)
    mean, shift = torch.zeros(1, dtype=torch.float64), nn.GroupNorm(1, 6).double()(x)
    pools = {"a": (0, 2, 3), "b": (2, 3), "c": (1, 2, 3), "d": (1,)}
    counts = {"a": 6, "b": 12, "c": 2, "d": 32}
    alike = []
    for letter, axes in pools.items():
        assert x.mean(axes).numel() == counts[letter]
        assert FOUND.questions[8].option(letter).text.startswith(f"{counts[letter]}:")
        rows = (x - x.mean(axes, keepdim=True)) / (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()
        if torch.allclose(rows, shift) and torch.allclose(shift.mean(axes), mean, atol=1e-9):
            alike.append(letter)
    (letter,) = alike
    return letter


def fact_momentum():
    layer = nn.BatchNorm1d(1, momentum=0.1)
    nn.init.constant_(layer.running_mean, 10)
    layer(torch.tensor([[1.0], [3.0]]))
    assert 0.9**10 == pytest.approx(1 / 3, abs=0.02)  # "about a third"
    return {9.2: "b", 2.8: "a"}[round(layer.running_mean.item(), 5)]


def fact_eval_on_the_same_batch():
    x = torch.randn(4, 1, generator=generator(0), dtype=torch.float64)
    layer = nn.BatchNorm1d(1, momentum=1.0, dtype=torch.float64)
    trained, evaluated = layer(x), layer.eval()(x)
    ratio = (evaluated / trained).mean().item()
    assert ratio == pytest.approx(1 - 0.13, abs=0.005)
    return "d" if ratio < 1 else "c"


def fact_frozen_layer():
    layer = nn.BatchNorm1d(1).requires_grad_(False)
    head = nn.Linear(1, 1)
    moved = torch.optim.SGD([*layer.parameters(), *head.parameters()], lr=0.1, momentum=0.9, weight_decay=0.1)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for step in range(3):
        moved.zero_grad()
        head(layer.train()(torch.randn(8, 1, generator=generator(step)) + 5)).square().sum().backward()
        moved.step()
    changed = {name for name, value in layer.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    return "a"


def fact_softmax_before_cross_entropy():
    best = torch.eye(10, dtype=torch.float64)  # the surest probabilities there are
    loss = F.cross_entropy(best, torch.arange(10)).item()
    assert loss == pytest.approx(1.46, abs=0.005)
    assert torch.softmax(best, 1)[0, 0].item() == pytest.approx(0.23, abs=0.005)
    assert not torch.allclose(torch.softmax(best, 1), best)
    return "b"


def fact_nll_of_a_probability():
    loss = F.nll_loss(torch.tensor([[0.9, 0.1]]), torch.tensor([0])).item()
    assert -np.log(0.9) == pytest.approx(0.105, abs=5e-4)
    return {-0.9: "d", 0.1: "a", 0.105: "b"}[round(loss, 3)]


def fact_sum_as_a_loss():
    x = torch.randn(4, 7, generator=generator(0), dtype=torch.float64, requires_grad=True)
    F.layer_norm(x, (7,)).sum().backward()
    assert x.grad.abs().max() < 1e-9
    x.grad = None
    weights = torch.randn(4, 7, generator=generator(1), dtype=torch.float64)
    (F.layer_norm(x, (7,)) * weights).sum().backward()
    assert x.grad.abs().max() > 0.1  # zeros do not pass this one
    return "a"


def fact_testing_the_tests():
    """A test that runs every line and stays green on many random batches, with a mistake in the code all the same."""

    def layer_norm(x):  # n - 1 in place of n
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, ddof=1, keepdims=True) + 1e-5)

    rng = np.random.default_rng(0)
    assert all(abs(layer_norm(rng.standard_normal((4, 7))).mean(-1)).max() < 1e-12 for _ in range(100))
    assert not np.allclose(layer_norm(np.eye(4)).var(-1), 1, atol=1e-3)
    return "c"


def fact_one_pass_variance():
    found = []
    for seed in range(20):
        x = np.random.default_rng(seed).standard_normal(1000).astype(np.float32) + np.float32(1e4)
        found.append(float((x * x).mean() - x.mean() ** 2))
        t = torch.from_numpy(x)
        found.append(float((t * t).mean() - t.mean() ** 2))
    assert np.spacing(np.float32(1e8)) == 8
    assert all(value % 8 == 0 for value in found)  # neither 1 nor 0.9997 nor inf
    assert any(value < 0 for value in found)
    return "d"


def fact_row_of_minus_inf():
    row = torch.softmax(torch.full((5,), -torch.inf), 0)
    assert torch.softmax(torch.tensor([-torch.inf, 1.0]), 0)[0] == 0  # one alone is harmless
    return "a" if row.isnan().all() else "b"


def fact_fused_softmax():
    """The trips to memory, counted: each step reads its input once, and those that make a matrix write one."""
    reads_and_writes = {"maximum": (1, 0), "subtract": (1, 1), "exp": (1, 1), "sum": (1, 0), "divide": (1, 1)}
    assert sum(map(sum, reads_and_writes.values())) == 8
    text = next(q for q in QUESTIONS if q.id == "fused-softmax").option("b").because
    assert "eight times in all, the fused kernel twice" in text
    return "b"


COMPUTED = {
    name: globals()["fact_" + name.replace("-", "_")]
    for name in IDS
    if name != "why-it-helps"  # about what was published: nothing to compute
}


@pytest.mark.parametrize("name", COMPUTED)
def test_the_right_answer_is_what_comes_out(one_thread, name):
    assert COMPUTED[name]() == RIGHT[IDS.index(name)]


# -- Answers and scores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        RIGHT,
        RIGHT.upper(),
        " ".join(RIGHT),
        ", ".join(RIGHT) + "\n",
        list(RIGHT),
        tuple(f" {letter} " for letter in RIGHT),
        dict(zip(IDS, RIGHT, strict=True)),
        dict(enumerate(RIGHT, start=1)),
    ],
)
def test_answers_may_be_written_in_several_ways(given):
    assert inventory.parse(given) == tuple(RIGHT)
    assert inventory.right_of(inventory.parse(given)) == len(QUESTIONS)


@pytest.mark.parametrize("nothing", ["-", "?", "_", ".", "", None])
def test_a_question_may_be_left_open(nothing):
    answers = inventory.parse([nothing, *RIGHT[1:]])
    assert answers[0] == "-"
    assert inventory.right_of(answers) == len(QUESTIONS) - 1
    assert inventory.right_of(inventory.parse({"momentum": "B", 3: None})) == 1


BAD = {
    "nothing": (None, "There are no answers yet: write one letter for each of the 20 questions."),
    "dots": (..., "There are no answers yet"),
    "empty": ("  \n", "There are no answers yet"),
    "short": (RIGHT[1:], "There are 20 questions, and these are 19 answers: give one letter for each, and - for one"),
    "long": (RIGHT + "a", "these are 21 answers"),
    "unknown letter": (RIGHT[:2] + "e" + RIGHT[3:], "Answer 3 is 'e', and question 3 has the options a, b, c, d"),
    "a number": ([1, *RIGHT[1:]], "Answer 1 is 1,"),
    "a word": (["bd", *RIGHT[1:]], "Answer 1 is 'bd',"),
    "a list": ([["b"], *RIGHT[1:]], "Answer 1 is ['b'],"),
    "no such question": ({21: "a"}, "There is no question 21: name it by its number, 1 to 20, or its id."),
    "a count": (7, "a list or a dict, not int"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_answers_get_one_sentence(kind, capsys):
    given, sentence = BAD[kind]
    calls = [inventory.parse, inventory.score]
    if given is not None:  # without answers from before there is no second time
        calls.append(lambda before: inventory.score(RIGHT, before=before))
    for call in calls:
        with pytest.raises(inventory.BadAnswers) as refused:
            call(given)
        assert sentence in str(refused.value)
        assert str(refused.value).startswith("before: ") == (call not in calls[:2])
        assert str(refused.value).count(". ") == 0
        assert str(refused.value).endswith(".")
        assert refused.value._render_traceback_() == [str(refused.value)]
    assert capsys.readouterr().out == ""


def test_gain():
    assert inventory.gain(0, 0) == 0
    assert inventory.gain(0, 1) == 1
    assert inventory.gain(0.25, 0.75) == pytest.approx(2 / 3)
    assert inventory.gain(0.5, 0.25) == -0.5
    assert inventory.gain(1, 1) is None
    assert inventory.gain(1, 0.5) is None
    with pytest.raises(ValueError, match="from 0 to 1"):
        inventory.gain(9, 16)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (9, 16, "Normalized gain: 0.64: 7 more, of the 11 that were missing."),
        (9, 9, "Normalized gain: 0.00: 0 more, of the 11 that were missing."),
        (10, 5, "Normalized gain: -0.50: 5 fewer than before."),
        (20, 18, "Nothing was missing before, so there is no gain to compute."),
    ],
)
def test_gain_in_words(old, new, sentence):
    assert inventory.gain_in_words(old, new, 20) == sentence


def wrong(*numbers):
    """Answers that are right but for the questions of these numbers."""
    answers = list(RIGHT)
    for number in numbers:
        answers[number - 1] = "a" if RIGHT[number - 1] != "a" else "b"
    return "".join(answers)


def test_the_first_score_names_chapters_and_gives_nothing_away():
    text = inventory.as_score(wrong(1, 10, 11))
    assert text.startswith("17 of 20 right (85 %).")
    assert re.findall(r"^- .* \(`(\w+)`\)$", text, re.MULTILINE) == ["puzzle", "running"]
    for question in QUESTIONS:
        assert question.text not in text
        for option in question.options:
            assert option.because not in text
    assert set(FOUND.beliefs.values()).isdisjoint(text.splitlines())
    assert "Read for the pictures" in inventory.as_score(RIGHT)


def test_the_second_score_explains_everything():
    text = inventory.as_score(wrong(2), before=wrong(1, 2, 3))
    assert text.startswith(
        "Before: 17 of 20 right (85 %). After: 19 of 20 right (95 %). Normalized gain: 0.67: 2 more, of the 3"
    )
    for question in QUESTIONS:
        assert question.text in text
        assert question.option(question.right).because in text
    shown = [slug for slug, belief in FOUND.beliefs.items() if f"*{belief}*" in text]
    assert shown == ["normalized-sums-to-one", "dividing-makes-shares", "small-batches-miss-the-variance"]
    assert "**1. right now** (before: a, after: b, right: b)" in text
    assert "**2. not right yet**" in text
    assert "**4. right both times**" in text
    assert "**1. was right before**" in inventory.as_score(wrong(1), before=RIGHT)
    assert 'Chapter `running`, Why does eval differ from train? Section "Two variances".' in text


def test_show_prints_every_question_and_no_answer(capsys):
    inventory.show()
    text = " ".join(capsys.readouterr().out.split())
    for question in QUESTIONS:
        assert " ".join(question.text.split()[:4]) in text
        assert question.option(question.right).because[:40] not in text


def test_in_a_notebook_it_is_markdown(monkeypatch):
    import IPython
    from IPython import display

    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: type("Shell", (), {"kernel": True}))
    monkeypatch.setattr(display, "display", lambda markdown: shown.append(markdown.data))
    inventory.show()
    inventory.score(RIGHT)
    assert shown == [inventory.as_questions(), inventory.as_score(RIGHT)]


def test_the_command_line(monkeypatch, capsys):
    typed = iter(["x", *wrong(1)])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    assert inventory.main([]) == 0
    told = capsys.readouterr().out
    assert "Answer 1 is 'x'" in told
    assert "19 of 20 right" in told
    assert f"Your answers: {wrong(1)}" in told
    typed = iter(RIGHT)
    assert inventory.main(["--before", wrong(1)]) == 0
    assert "Normalized gain: 1.00" in capsys.readouterr().out
    assert inventory.main(["--before", "abc"]) == 1
    assert "these are 3 answers" in capsys.readouterr().err
    monkeypatch.setattr("builtins.input", lambda prompt: (_ for _ in ()).throw(EOFError))
    assert inventory.main([]) == 1
    assert "nothing was scored" in capsys.readouterr().err


def test_it_needs_nothing_but_python():
    code = "import sys; from normlab import inventory; inventory.load(); print({'numpy', 'IPython'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_the_questions_are_packaged(repo):
    import tomllib

    data = tomllib.loads((repo / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    assert any(inventory.FILE.match(pattern) for pattern in data["normlab"])


# -- The page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def soup(site):
    return BeautifulSoup((site / "book" / "inventory.html").read_text(encoding="utf-8"), "html.parser")


def told(node):
    return " ".join(node.get_text(" ").split())


def test_the_page_has_the_questions_and_their_answers_folded(soup):
    items = soup.select(".inventory > .inventory-item")
    assert [item["id"] for item in items] == [f"inventory-{name}" for name in IDS]
    assert "".join(item["data-right"] for item in items) == RIGHT
    (fold,) = soup.select(".inventory > details.inventory-answers:not([open])")
    assert [answer["data-question"] for answer in fold.select(".inventory-answer")] == IDS
    for question, item, answer in zip(QUESTIONS, items, fold.select(".inventory-answer"), strict=True):
        letters = [option["data-letter"] for option in item.select(".inventory-options > li")]
        assert letters == [option.letter for option in question.options]
        beliefs = {li["data-letter"]: li["data-belief"] for li in answer.select(".inventory-others > li")}
        assert beliefs == {option.letter: option.belief for option in question.options if option.belief}
        links = [link["href"] for link in answer.select("a")]
        assert len(links) == (0 if question.chapter in TO_COME else 2)
        assert all(link.startswith(f"{question.chapter}.html") for link in links)
        # The anchors themselves are looked up with all other links of the site, in test_site.py.


def test_the_page_leads_from_the_index_and_to_the_sources(site, soup):
    index = BeautifulSoup((site / "book" / "index.html").read_text(encoding="utf-8"), "html.parser")
    assert index.select("article p a[href='inventory.html']")
    cited = told(soup.article)
    for author in ("Hake, 1998", "Hestenes", "Adams and Wieman, 2011"):
        assert author in cited


@pytest.fixture
def tab(chromium, launch, server):
    """A phone's tab on the page. Whatever it asks for is in tab.asked, what it complains of in tab.complaints."""
    context = launch(chromium).new_context(viewport={"width": 390, "height": 844}, accept_downloads=True)
    page = context.new_page()
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(f"{server}/book/inventory.html", wait_until="domcontentloaded")
    yield page
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith((f"{server}/", "data:", "blob:"))] == []
    context.close()


def fill(tab, answers):
    """Choose in all questions at once, as clicks would."""
    tab.evaluate(
        """(answers) => [...document.querySelectorAll(".inventory-item")].forEach((item, index) =>
            item.querySelector(`input[value="${answers[index]}"]`)?.click())""",
        answers,
    )


def finish(tab):
    tab.locator(".inventory-finish").click()


def take_both(tab, before, after):
    fill(tab, before)
    finish(tab)
    tab.locator(".inventory-again").click()
    fill(tab, after)
    finish(tab)


def test_before_then_after(tab):
    before, after = wrong(1, 4, 10, 11), wrong(10)
    fill(tab, before)
    assert tab.locator(".inventory-progress").inner_text() == "20 of 20 answered"
    loaded = len(tab.asked)
    finish(tab)
    for reloaded in (False, True):
        assert tab.locator(".inventory-title").inner_text() == "Before the course: 16 of 20 right (80 %)"
        chapters = tab.locator(".inventory-report a").all()
        assert [chapter.get_attribute("href") for chapter in chapters] == ["puzzle.html", "shape.html", "running.html"]
        assert before in tab.locator(".inventory-text").inner_text()
        # Nothing of the questions shows, still less of their answers.
        for hidden in (
            ".inventory-item",
            ".inventory-answers",
            ".inventory-answer",
            ".inventory-why",
            ".inventory-note",
        ):
            assert tab.locator(f"{hidden}:visible").count() == 0, hidden
        shown = tab.locator("article").inner_text()
        assert not [option.letter for q in QUESTIONS for option in q.options if option.because[:40] in shown]
        assert not [belief for belief in FOUND.beliefs.values() if belief in shown]
        if not reloaded:
            assert len(tab.asked) == loaded, "to finish asked for something"
            tab.reload()
    tab.locator(".inventory-again").click()
    assert tab.locator(".inventory-item:visible").count() == 20
    assert tab.locator(".inventory-item input:checked").count() == 0
    assert tab.locator(".inventory-answer:visible").count() == 0

    fill(tab, after)
    finish(tab)
    for _ in range(2):
        assert (
            tab.locator(".inventory-title").inner_text()
            == "Before: 16 of 20 right (80 %). After: 19 of 20 right (95 %)."
        )
        assert tab.locator(".inventory-gain").inner_text() == inventory.gain_in_words(16, 19, 20)
        rows = tab.locator(".inventory-beliefs tbody tr").all()
        beliefs = [row.locator(".inventory-held").inner_text() for row in rows]
        slugs = ("normalized-sums-to-one", "it-gaussianizes", "momentum-is-what-is-kept", "one-variance-for-both")
        assert [words.replace("\u2019", "'") for words in beliefs] == [FOUND.beliefs[slug] for slug in slugs]
        cells = [[cell.inner_text() for cell in row.locator("td").all()] for row in rows]
        assert cells == [["1", "\u2013"], ["4", "\u2013"], ["10", "10"], ["11", "\u2013"]]
        assert tab.locator(".inventory-answer:visible").count() == 20
        tenth = tab.locator(".inventory-item").nth(9)
        assert [note.inner_text() for note in tenth.locator(".inventory-note").all()] == [
            "before, after",
            "right",
            "",
            "",
        ]
        assert tenth.locator("input:enabled").count() == 0
        tab.evaluate(screenshots.SETTLED)
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        tab.reload()


def test_open_questions_are_named_before_they_count(tab):
    fill(tab, "-" + RIGHT[1:18] + "--")
    finish(tab)
    warning = tab.locator(".inventory-warning")
    assert warning.inner_text() == "Still open: 1, 19, 20. They count as not right."
    tab.reload()  # what was chosen so far is kept
    assert tab.locator(".inventory-progress").inner_text() == "17 of 20 answered"
    tab.locator(".inventory-skip").nth(1).click()
    assert tab.locator(".inventory-progress").inner_text() == "16 of 20 answered"
    finish(tab)
    tab.get_by_role("button", name="Finish anyway").click()
    assert "16 of 20 right" in tab.locator(".inventory-title").inner_text()


@pytest.mark.parametrize(("before", "after"), [(RIGHT, wrong(5)), (wrong(1, 2), wrong(1, 2, 3))])
def test_the_page_counts_as_python_does(tab, before, after):
    take_both(tab, before, after)
    old, new = (inventory.right_of(inventory.parse(answers)) for answers in (before, after))
    assert tab.locator(".inventory-gain").inner_text().replace("\u2212", "-") == inventory.gain_in_words(old, new, 20)


def test_answers_can_be_saved_forgotten_and_loaded(tab, tmp_path):
    take_both(tab, wrong(1), RIGHT)
    with tab.expect_download() as saved:
        tab.get_by_role("button", name="Save them as a file").click()
    saved.value.save_as(tmp_path / "answers.json")
    kept = json.loads((tmp_path / "answers.json").read_text())
    assert kept == {"version": FOUND.version, "stage": "end", "before": wrong(1), "after": RIGHT}

    tab.get_by_role("button", name="Forget them").click()
    assert tab.locator(".inventory-gain").count() == 1, "one click must not forget"
    tab.get_by_role("button", name="Forget all answers, really").click()
    assert tab.evaluate("localStorage.getItem('normlab-inventory')") is None
    assert tab.locator(".inventory-item input:checked").count() == 0
    assert tab.locator(".inventory-answer:visible").count() == 0

    fill(tab, "b")  # shows the tools again
    said = tab.locator(".inventory-said")
    for faulty, sentence in (
        ({**kept, "version": "00000000"}, "another version"),
        ({**kept, "before": "zz"}, "damaged"),
        ([1], "holds no answers"),
    ):
        (tmp_path / "faulty.json").write_text(json.dumps(faulty))
        tab.locator(".inventory input[type=file]").set_input_files(tmp_path / "faulty.json")
        said.filter(has_text=sentence).wait_for()
    tab.locator(".inventory input[type=file]").set_input_files(tmp_path / "answers.json")
    tab.locator(".inventory-gain").wait_for()
    assert said.inner_text() == "Loaded."
    tab.evaluate("localStorage.setItem('normlab-inventory', JSON.stringify({version: 'old', stage: 'end'}))")
    tab.reload()
    assert "another version" in said.inner_text()
    assert tab.locator(".inventory-title").inner_text().startswith("The first time")


def test_it_works_by_keyboard(tab):
    first = tab.locator(".inventory-item").first
    first.locator("input").first.focus()
    tab.keyboard.press("Space")
    tab.keyboard.press("ArrowDown")
    assert first.locator("input").nth(1).is_checked()
    tab.keyboard.press("Tab")
    assert "inventory-skip" in tab.evaluate("document.activeElement.className")
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert first.locator("fieldset > legend").inner_text().startswith("1. Eight")
    fill(tab, RIGHT)
    tab.locator(".inventory-finish").focus()
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.className") == "inventory-title"


def test_without_javascript_and_on_paper(chromium, launch, site, tab):
    context = launch(chromium).new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "book" / "inventory.html").as_uri())
    assert page.locator(".inventory-item:visible").count() == 20
    assert page.locator(".inventory :is(input, button)").count() == 0
    assert page.locator(".inventory-answer:visible").count() == 0
    page.locator(".inventory-answers summary").click()
    assert page.locator(".inventory-answer:visible").count() == 20
    context.close()

    # With JavaScript, on paper: the questions, no buttons, then the answers on a page of their own.
    tab.emulate_media(media="print")
    assert tab.locator(".inventory-item:visible").count() == 20
    assert tab.locator(".inventory :is(input, button):visible").count() == 0
    assert tab.locator(".inventory-answers").evaluate("fold => getComputedStyle(fold).breakBefore") == "page"
    assert tab.locator(".inventory-answer:visible").count() == 20
