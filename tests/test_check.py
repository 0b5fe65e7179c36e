"""check(): one line, or one sentence that says what is wrong; and what it leaves behind, which is nothing."""

import array
import asyncio
import builtins
import contextlib
import functools
import inspect
import operator
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F
from scipy.special import log_softmax as logarithms
from scipy.special import logsumexp as total
from scipy.special import softmax as weights
from torch import nn
from torch import softmax as soft
from torch.nn.functional import softmax as functional_soft

import normlab.reference
from normlab import check as check_module
from normlab import exercises, guard, verdict
from normlab.check import CheckFailed, check
from normlab.exercises import truth as the_truth
from normlab.guard import CALLS_THE_ANSWER, MUTATES_INPUT
from normlab.mistakes import MISTAKES
from normlab.reference import softmax as from_the_reference


@pytest.fixture(autouse=True)
def _public_and_quick(monkeypatch):
    monkeypatch.delenv("NORMLAB_SECRET_FILE", raising=False)
    monkeypatch.setattr(guard, "CALL_SECONDS", 1.0)


def softmax(x, axis=-1):
    w = x.astype(np.promote_types(x.dtype, np.float32))
    e = np.exp(w - w.max(axis=axis, keepdims=True))
    return (e / e.sum(axis=axis, keepdims=True)).astype(x.dtype)


def standardize(x, eps=1e-5):
    z = x.astype(np.float64)
    return ((z - z.mean()) / np.sqrt(z.var() + eps)).astype(x.dtype)


def old_output(seed):
    torch.manual_seed(seed)
    weight, x = torch.rand(1), torch.randn(2, 1, 2, 2)
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * weight


def refusal(candidate, exercise="softmax", part=None):
    """The CheckFailed of a candidate that is refused."""
    with pytest.raises(CheckFailed) as caught:
        check(candidate, exercise, part=part)
    assert str(caught.value).count("\n") == 0
    assert str(caught.value).endswith((".", "missing?"))
    assert caught.value.__cause__ is None
    return caught.value


def fault(candidate, exercise="softmax", part=None):
    """What stands after "yours" in the sentence."""
    return re.split(r"[;,] yours ", str(refusal(candidate, exercise, part)), maxsplit=1)[1]


def tensor(x):
    return torch.tensor(np.ascontiguousarray(x, np.float64))


# ---- the verdict -----------------------------------------------------------------------------------------------------


def test_right_prints_one_line_and_returns_none(capfd):
    assert check(softmax, "softmax") is None
    out, err = capfd.readouterr()
    count = len(exercises.EXERCISES["softmax"].cases)
    assert out == f"softmax: right on {count} of {count} kinds of input.\n"
    assert err == ""


@pytest.mark.parametrize("part", ["values", "numerics", "edges"])
def test_a_part_runs_its_own_cases(capfd, part):
    check(softmax, "softmax", part=part)
    count = sum(case.part == part for case in exercises.EXERCISES["softmax"].cases)
    assert capfd.readouterr().out == f"softmax, {part}: right on {count} of {count} kinds of input.\n"


def test_a_part_does_not_ask_for_another():
    def softmax(x, axis=-1):
        if not np.isfinite(x).all() or x.dtype == np.float16 or np.abs(x).max() > 50:
            raise ValueError("not my part")
        return np.exp(x) / np.exp(x).sum(axis, keepdims=True)

    check(softmax, part="values")
    assert "logits near 1000" in str(refusal(softmax, part="numerics"))
    refusal(softmax, part="edges")


def test_the_name_is_taken_from_the_function(capfd):
    check(softmax)
    check(standardize)
    assert capfd.readouterr().out.startswith("softmax: right")


def test_refused_is_an_assertion_whose_traceback_is_the_sentence(capfd):
    error = refusal(lambda x, axis=-1: softmax(2 * x, axis))
    assert isinstance(error, AssertionError)
    assert error._render_traceback_() == [str(error)]
    assert str(error).startswith("softmax: on a vector, every slice")
    assert capfd.readouterr() == ("", "")


def test_ipython_shows_the_sentence_alone():
    shell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell()
    result = shell.run_cell("from normlab.check import check\ncheck(lambda x, axis=-1: None, 'softmax')")
    assert isinstance(result.error_in_exec, CheckFailed)


def test_the_secret_of_the_course_draws_the_inputs(monkeypatch, tmp_path):
    seen = {}

    def spy(key):
        def softmax(x, axis=-1):
            seen.setdefault(key, x.copy())
            return globals()["softmax"](x, axis)

        return softmax

    check(spy("public"))
    (tmp_path / "secret").write_text("heather")
    monkeypatch.setenv("NORMLAB_SECRET_FILE", str(tmp_path / "secret"))
    check(spy("secret"))
    assert not np.array_equal(seen["public"], seen["secret"])
    monkeypatch.setenv("NORMLAB_SECRET_FILE", str(tmp_path / "missing"))
    assert str(refusal(softmax)) == "NORMLAB_SECRET_FILE cannot be read: No such file or directory."


def test_an_error_text_is_shown_only_where_the_inputs_are_public(monkeypatch, tmp_path):
    def softmax(x, axis=-1):
        raise ValueError(f"{x}\nand more")

    assert fault(softmax).startswith("raises ValueError ([")
    (tmp_path / "secret").write_text("heather")
    monkeypatch.setenv("NORMLAB_SECRET_FILE", str(tmp_path / "secret"))
    assert fault(softmax) == "raises ValueError."


def test_no_sentence_quotes_a_value_of_the_inputs():
    for mistake in MISTAKES["standardize"]:
        assert not any(part.isdigit() and len(part) > 2 for part in fault(mistake.wrong, "standardize").split("."))


# ---- samples -------------------------------------------------------------------------------------------------------


SOME = np.array([0.1, 0.2, 0.3, 0.4])


def drawn(rng, count):
    return rng.choice(4, count, p=SOME)


@pytest.mark.parametrize(
    "arranged",
    [
        lambda rng, n: np.repeat(drawn(rng, n // 2), 2),
        lambda rng, n: np.tile(drawn(rng, n // 2), 2),
        lambda rng, n: np.tile(drawn(rng, n // 2), (2, 1)).T,
        lambda rng, n: np.tile(drawn(rng, n // 2), (2, 1)),
        lambda rng, n: np.concatenate([half := drawn(rng, n // 2), half[::-1]]),
        lambda rng, n: np.sort(drawn(rng, n)),
        # Each of two neighbors from the other end of the distribution: they agree too seldom.
        lambda rng, n: np.searchsorted(SOME.cumsum()[:3], np.outer(rng.random(n // 2), [1, -1]) % 1, side="right"),
    ],
)
def test_samples_that_depend_on_one_another_are_found(arranged):
    samples = arranged(np.random.default_rng(5), 20_000)
    assert verdict._wrong_frequencies(SOME, samples) is None
    assert verdict._wrong_pairs(SOME, samples) == "draws samples that depend on one another"


def test_independent_samples_are_refused_no_more_often_than_stated(monkeypatch):
    """At a level at which it can be counted: at most half of it for the frequencies, and for the pairs."""
    rng, level, runs = np.random.default_rng(6), 0.2, 1500
    monkeypatch.setattr(verdict, "FALSE_ALARM", level)
    samples = [drawn(rng, (5, 2, 31)) for _ in range(runs)]
    for wrong in (verdict._wrong_frequencies, verdict._wrong_pairs):
        refused = sum(wrong(SOME, own) is not None for own in samples)
        assert 0 < refused <= level / 2 * runs, wrong


# ---- what cannot be checked ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((softmax, "sofmax"), "there is no exercise 'sofmax': did you mean softmax"),
        ((softmax, "zzz"), "there is no exercise 'zzz': python -m normlab.check --list names them all."),
        ((lambda x: x,), "there is no exercise '<lambda>'"),
        ((functools.partial(softmax),), "there is no exercise 'None'"),
        ((softmax, "softmax", "value"), "there is no part 'value': choose among values, numerics, edges."),
        ((np.ones(3), "softmax"), "check needs the function itself, and was given an array."),
        ((None, "softmax"), "was given a NoneType."),
        ((3, "softmax"), "was given an int."),
        ((lambda: 0, "softmax"), "the signature is to be softmax(x, axis=-1); yours takes ()."),
        ((lambda x: x, "softmax"), "the signature is to be softmax(x, axis=-1); yours takes (x)."),
        ((lambda x, dim=-1: x, "softmax"), "the signature is to be softmax(x, axis=-1); yours takes (x, dim=-1)."),
        ((lambda x, axis, keep: x, "softmax"), "yours takes (x, axis, keep)."),
        ((lambda *, x, axis=-1: x, "softmax"), "yours takes (*, x, axis=-1)."),
        ((np.exp, "softmax"), "the signature is to be softmax(x, axis=-1)"),
    ],
)
def test_one_sentence_for_what_cannot_be_checked(capfd, arguments, sentence):
    with pytest.raises(CheckFailed) as caught:
        check(*arguments)
    assert sentence in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert capfd.readouterr() == ("", "")


def test_a_stub_is_not_written_yet():
    def softmax(x, axis=-1):
        raise NotImplementedError

    assert str(refusal(softmax)) == "softmax is not written yet: it raises NotImplementedError."


def test_signatures_that_serve_are_let_through():
    class Softmax:
        def __call__(self, x, axis=-1):
            return softmax(x, axis)

    class Shy(Softmax):
        @property
        def __signature__(self):
            raise RuntimeError("no signature here")

    for candidate in (
        Softmax(),
        Softmax().__call__,
        Shy(),
        functools.partial(softmax),
        lambda *a, **k: softmax(*a, **k),
    ):
        check(candidate, "softmax")
    check(lambda x, *, axis=-1, temperature=1.0: softmax(x / x.dtype.type(temperature), axis), "softmax")


# ---- answers of the wrong kind ---------------------------------------------------------------------------------------


class Marked(np.ndarray):
    pass


ANSWERS = {
    "returns None: is the return statement missing?": lambda y: None,
    "returns a list where a NumPy array is right.": lambda y: y.tolist(),
    "returns a tuple where a NumPy array is right.": lambda y: (y, y),
    "returns a float where a NumPy array is right.": lambda y: 0.5,
    "returns a numpy.float64 where a NumPy array is right.": lambda y: np.float64(1),
    "returns an array.array where a NumPy array is right.": lambda y: array.array("d", y.ravel()),
    "returns a torch.Tensor where a NumPy array is right.": torch.tensor,
    "returns a torch.Parameter where a NumPy array is right.": lambda y: nn.Parameter(torch.tensor(y)),
    "returns a numpy.matrix where a NumPy array is right.": lambda y: np.atleast_2d(y).view(np.matrix),
    "returns a numpy.MaskedArray where a NumPy array is right.": np.ma.masked_array,
    "returns a test_check.Marked where a NumPy array is right.": lambda y: y.view(Marked),
    "returns object where float64 is right.": lambda y: y.astype(object),
    "returns float32 where float64 is right.": lambda y: y.astype(np.float32),
    "returns int64 where float64 is right.": lambda y: y.astype(np.int64),
    "returns complex128 where float64 is right.": lambda y: y.astype(complex),
    "returns bool where float64 is right.": lambda y: y > 0,
    "returns an array with 2 axes where 1 axis would be right.": lambda y: y[None],
    "returns an array with 0 axes where 1 axis would be right.": lambda y: np.array(0.5),
    "returns an array of the wrong shape.": lambda y: y[:-1],
    "has NaN where there should be numbers": lambda y: y * np.nan,
    "has an infinity where there should be a": lambda y: y + np.inf,
    "gives other numbers.": lambda y: 1 - y,
    "comes close, but misses by more than rounding": lambda y: y + 1e-9,
}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("sentence", ANSWERS)
def test_an_answer_of_the_wrong_kind(sentence):
    def candidate(x, axis=-1):
        return ANSWERS[sentence](softmax(x, axis)) if x.ndim == 1 else softmax(x, axis)

    assert fault(candidate).startswith(sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda y: (yield y), "returns a generator where a NumPy array is right."),
        (lambda y: np.broadcast_to(np.zeros(1), (1 << 40,)), "returns an array of the wrong shape."),
        (lambda y: y.astype(y.dtype.newbyteorder()), "returns >f8 where float64 is right."),
    ],
)
def test_odd_answers(change, sentence):
    assert fault(lambda x, axis=-1: change(softmax(x, axis))) == sentence


def test_a_coroutine_nobody_waits_for(capfd):
    async def candidate(x, axis=-1):
        await asyncio.sleep(0)
        return softmax(x, axis)

    assert fault(candidate) == "returns a coroutine where a NumPy array is right."
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (lambda: np.float64(0.5), None),
        (lambda: 0.5, None),
        (lambda: np.array(0.5), None),
        (lambda: 1, "returns an int where a float is right."),
        (lambda: np.array([0.5]), "returns an array where a float is right."),
        (lambda: torch.tensor(0.5), "returns a torch.Tensor where a float is right."),
        (lambda: "0.5", "returns a str where a float is right."),
        (lambda: None, "returns None: is the return statement missing?"),
        (lambda: float("nan"), "has NaN where there should be numbers"),
    ],
)
def test_a_float_is_asked_for(value, sentence):
    told = fault(lambda train, test, edges: value(), "held_out_log_likelihood")
    assert told.startswith(sentence) if sentence else "returns" not in told


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda y: y.numpy(), "returns an array where a torch.Tensor is right."),
        (nn.Parameter, "returns a torch.Parameter where a torch.Tensor is right."),
        (lambda y: y.double(), "returns float64 where float32 is right."),
        (lambda y: y.flatten(), "returns an array with 1 axis where 4 axes would be right."),
        (lambda y: y.tolist(), "returns a list where a torch.Tensor is right."),
    ],
)
def test_a_tensor_is_asked_for(change, sentence):
    assert fault(lambda seed: change(old_output(seed)), "old_output") == sentence


@pytest.mark.parametrize(
    ("sampler", "sentence"),
    [
        (lambda n, size: np.zeros(size), "returns float64 where integers (the indices of the classes) are right."),
        (lambda n, size: np.full(size, n), "draws an index that is not a class."),
        (lambda n, size: np.full(size, -1), "draws an index that is not a class."),
        (lambda n, size: [0] * 20_000, "returns a list where a NumPy array is right."),
    ],
)
def test_samples_are_asked_for(sampler, sentence):
    assert fault(lambda logits, rng, size: rng.random() and sampler(len(logits), size), "gumbel_max") == sentence
    idle = "draws nothing from rng: the randomness is to come from rng.gumbel or rng.random."
    assert fault(lambda logits, rng, size: np.zeros(size, int), "gumbel_max") == idle


def test_randomness_of_the_candidates_own_is_refused():
    def own(logits, rng, size):
        return rng.choice(len(logits), size, p=softmax(logits))

    assert fault(own, "gumbel_max").startswith("calls rng.choice: the randomness is to come from rng.gumbel")


def test_raising_where_a_value_is_right_and_the_other_way_round():
    def raises(x, axis=-1):
        raise KeyError("missing")

    assert fault(raises) == "raises KeyError ('missing')."

    def lets_through(x, edges):
        n = np.histogram(x, edges)[0]
        return (n / max(n.sum(), 1) * 1.0 + (n.sum() == 0) * 7).astype(x.dtype)

    assert fault(lets_through, "histogram_probabilities") == "returns an array instead of raising ValueError."

    def wrong_error(x, edges):
        n = np.histogram(x, edges)[0]
        if not n.sum():
            raise TypeError("nothing")
        return (n / n.sum()).astype(x.dtype)

    told = fault(wrong_error, "histogram_probabilities")
    assert told == "raises TypeError instead of ValueError (nothing)."


def test_an_error_that_cannot_say_what_it_is():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    def candidate(x, axis=-1):
        raise Mute

    assert fault(candidate) == "raises Mute."


# ---- candidates that misbehave ---------------------------------------------------------------------------------------


def hangs(x, axis=-1):
    while True:
        pass


def hangs_and_swallows(x, axis=-1):
    until = time.process_time() + 1.5
    while time.process_time() < until:
        try:
            sum(range(1000))
        except:  # noqa: E722 - what is tested
            pass
    return softmax(x, axis)


def waits(x, axis=-1):
    time.sleep(3600)


def exits(x, axis=-1):
    sys.exit()


def ends_the_process(x, axis=-1):
    os._exit(7)


def ends_the_process_and_swallows(x, axis=-1):
    try:
        os._exit(7)
    except:  # noqa: E722 - what is tested
        return softmax(x, axis)


def prints_megabytes(x, axis=-1):
    for _ in range(100):
        print("y" * 100_000)
    return softmax(x, axis)


def prints_megabytes_and_swallows(x, axis=-1):
    try:
        print("y" * 10_000_000)
    except:  # noqa: E722 - what is tested
        pass
    return softmax(x, axis)


def asks(x, axis=-1):
    return softmax(x * float(input("temperature? ")), axis)


def recurses(x, axis=-1):
    return recurses(x, axis)


def wants_too_much(x, axis=-1):
    return np.zeros(1 << 50)


@pytest.mark.parametrize(
    ("candidate", "sentence"),
    [
        (hangs, "does not return within 1 seconds: look for a loop that never ends."),
        (hangs_and_swallows, "does not return within 1 seconds: look for a loop that never ends."),
        (waits, "does not return within 1 seconds: look for a loop that never ends."),
        (exits, "calls exit: a function returns or raises."),
        (ends_the_process, "ends the whole process (os._exit): a function returns or raises."),
        (ends_the_process_and_swallows, "ends the whole process (os._exit): a function returns or raises."),
        (prints_megabytes, "prints more than 100,000 characters: remove the print from the loop."),
        (prints_megabytes_and_swallows, "prints more than 100,000 characters: remove the print from the loop."),
        (asks, "asks for input: a function gets all it needs as arguments."),
        (recurses, "raises RecursionError"),
        (wants_too_much, "raises MemoryError"),
    ],
)
def test_candidates_that_misbehave(capfd, candidate, sentence):
    started = time.monotonic()
    assert fault(candidate).startswith(sentence)
    assert time.monotonic() - started < 4
    assert capfd.readouterr() == ("", "")


def test_an_import_by_itself_is_no_call():
    """What runs while scipy.special is imported for the first time is not what the candidate calls."""
    code = """
import sys
from normlab.check import check
def softmax(x, axis=-1):
    import numpy as np, scipy.special
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    e = np.exp(wide - wide.max(axis=axis, keepdims=True))
    return (e / e.sum(axis=axis, keepdims=True)).astype(x.dtype)
check(softmax)
assert "scipy.special" in sys.modules
def softmax(x, axis=-1):
    return scipy.special.softmax(x, axis)
import scipy.special
try:
    check(softmax)
except Exception as error:
    assert "calls scipy.special" in str(error), error
else:
    raise AssertionError("not refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_threads_of_the_host_may_end_the_process():
    """A worker's watchman ends it when its grader is gone, also while a candidate runs."""
    code = """
import os, threading
from normlab.guard import guard
begun, tried = threading.Event(), threading.Event()
def watchman():
    begun.wait()
    os._exit(7)
threading.Thread(target=watchman).start()
with guard(10):
    begun.set()
    tried.wait(5)
os._exit(0)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 7


def test_the_users_own_interrupt_passes_through():
    def candidate(x, axis=-1):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(candidate, "softmax")


def noisy(x, axis=-1):
    warnings.simplefilter("always")
    warnings.warn("a warning", stacklevel=1)
    np.seterr(all="warn")
    np.log(np.zeros(3) - 1)
    print("out")
    print("err", file=sys.stderr)
    print("err", file=sys.__stderr__, flush=True)
    os.write(1, b"descriptor 1")
    os.write(2, b"descriptor 2")
    return softmax(x, axis)


def test_nothing_of_a_noisy_candidate_is_seen(capfd):
    with warnings.catch_warnings(record=True):  # pytest has a hook of its own that collects them
        check(noisy, "softmax", part="values")
    out, err = capfd.readouterr()
    assert out.startswith("softmax, values: right on ")
    assert out.count("\n") == 1
    assert err == ""


def test_a_programme_that_the_candidate_starts_is_not_heard(capfd):
    def candidate(x, axis=-1):
        subprocess.run(["sh", "-c", "echo out; echo err >&2"], check=True)
        return softmax(x, axis)

    check(candidate, "softmax", part="values")
    out, err = capfd.readouterr()
    assert (out.count("\n"), err) == (1, "")


def changes_in_place(x, axis=-1):
    x -= x.max(axis, keepdims=True)
    return softmax(x, axis)


def test_changing_the_input_is_refused():
    error = refusal(changes_in_place)
    assert str(error).endswith("yours changes its input: work on a copy.")
    assert error.mistake == MUTATES_INPUT

    def changes_the_edges(x, edges):
        edges.sort()
        edges[-1] += 1e-9
        n = np.histogram(x, edges)[0]
        return n / n.sum()

    assert refusal(changes_the_edges, "histogram_probabilities").mistake == MUTATES_INPUT


def test_what_a_candidate_keeps_between_calls():
    answers, buffers = {}, {}

    def repeats(x, axis=-1):
        return answers.setdefault(x.shape, softmax(x, axis)) if x.ndim == 1 else softmax(x, axis)

    def reuses(x, axis=-1):
        buffer = buffers.setdefault((x.shape, x.dtype), np.empty_like(x))
        buffer[...] = softmax(x, axis)
        return buffer

    assert fault(repeats) == "repeats the answer of an earlier call: keep nothing between calls."
    assert fault(reuses) == "changes its answer when it is called again: return a new array each time."

    def own_generator(logits, rng, size):
        rng.random()
        own = np.random.default_rng(0)
        return np.argmax(logits + own.gumbel(size=(*np.atleast_1d(size), len(logits))), axis=-1)

    assert fault(own_generator, "gumbel_max") == "repeats the answer of an earlier call: keep nothing between calls."


def test_a_memory_that_is_right_is_allowed():
    check(functools.lru_cache(lambda seed: old_output(seed)), "old_output")


# ---- calls that the exercise is to write -----------------------------------------------------------------------------


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Softmax(dim=-1)

    def forward(self, x):
        return self.inner(x)


def in_a_thread(x, axis):
    answer = []
    worker = threading.Thread(target=lambda: answer.append(soft(tensor(x), axis)))
    worker.start()
    worker.join()
    return answer[0]


FORBIDDEN_SOFTMAX = {
    "torch.softmax": lambda x, axis: torch.softmax(tensor(x), axis),
    "imported from torch": lambda x, axis: soft(tensor(x), dim=axis),
    "functional": lambda x, axis: F.softmax(tensor(x), axis),
    "imported from functional": lambda x, axis: functional_soft(tensor(x), axis),
    "method": lambda x, axis: tensor(x).softmax(axis),
    "unbound method": lambda x, axis: torch.Tensor.softmax(tensor(x), axis),
    "special": lambda x, axis: torch.special.softmax(tensor(x), axis),
    "log_softmax": lambda x, axis: tensor(x).log_softmax(axis).exp(),
    "softmin": lambda x, axis: F.softmin(-tensor(x), axis),
    "logsumexp": lambda x, axis: (tensor(x) - torch.logsumexp(tensor(x), axis, keepdim=True)).exp(),
    "private": lambda x, axis: torch._softmax(tensor(x), axis, False),
    "aten": lambda x, axis: torch.ops.aten._softmax(tensor(x), axis, False),
    "aten overload": lambda x, axis: torch.ops.aten.softmax.int(tensor(x), axis),
    "module": lambda x, axis: nn.Softmax(dim=axis)(tensor(x)),
    "module within a module": lambda x, axis: Layer()(tensor(x)),
    "partial": lambda x, axis: functools.partial(torch.softmax, dim=axis)(tensor(x)),
    "map": lambda x, axis: next(map(torch.softmax, [tensor(x)], [axis])),
    "methodcaller": lambda x, axis: operator.methodcaller("softmax", axis)(tensor(x)),
    "thread": in_a_thread,
    "scipy": lambda x, axis: scipy.special.softmax(x, axis),
    "imported from scipy": lambda x, axis: weights(x, axis=axis),
    "scipy's logsumexp": lambda x, axis: np.exp(x - total(x, axis=axis, keepdims=True)),
    "scipy's log_softmax": lambda x, axis: np.exp(logarithms(x, axis=axis)),
    "the reference": lambda x, axis: normlab.reference.softmax(x, axis),
    "imported from the reference": lambda x, axis: from_the_reference(x, axis),
    "the truth": lambda x, axis: the_truth(exercises.EXERCISES["softmax"], (x,), {"axis": axis}),
    "the truth's function": lambda x, axis: exercises.EXERCISES["softmax"].numpy_truth(x, axis),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("swallows", [False, True], ids=["plain", "swallows"])
@pytest.mark.parametrize("way", FORBIDDEN_SOFTMAX)
def test_calls_of_the_answer_are_refused(way, swallows):
    def candidate(x, axis=-1):
        return np.asarray(FORBIDDEN_SOFTMAX[way](x, axis)).astype(x.dtype)

    def stubborn(x, axis=-1):
        while True:
            try:
                return candidate(x, axis)
            except:  # noqa: E722 - what is tested
                if way == "thread":
                    return softmax(x, axis)

    error = refusal(stubborn if swallows else candidate)
    assert error.mistake == CALLS_THE_ANSWER
    assert str(error).endswith(": this exercise is to write it, with NumPy.")


FORBIDDEN_NORMS = {
    "batch_norm": [
        lambda x, w, b, eps: F.batch_norm(tensor(x), None, None, tensor(w), tensor(b), training=True),
        lambda x, w, b, eps: nn.LazyBatchNorm1d()(tensor(x).float()).detach(),
        lambda x, w, b, eps: torch.batch_norm(tensor(x), None, None, None, None, True, 0.1, eps, False),
    ],
    "layer_norm": [
        lambda x, shape, w, b, eps: F.layer_norm(tensor(x), shape),
        lambda x, shape, w, b, eps: nn.LayerNorm(shape).double()(tensor(x)).detach(),
        lambda x, shape, w, b, eps: torch.native_layer_norm(tensor(x), shape, None, None, eps)[0],
        lambda x, shape, w, b, eps: torch.ops.aten.native_layer_norm(tensor(x), shape, None, None, eps)[0],
    ],
    "instance_norm": [lambda x, w, b, eps: F.instance_norm(tensor(x))],
    "group_norm": [
        lambda x, groups, w, b, eps: F.group_norm(tensor(x), groups),
        lambda x, groups, w, b, eps: torch.group_norm(tensor(x), groups),
    ],
    "rms_norm": [
        lambda x, shape, w, eps: F.rms_norm(tensor(x), shape),
        lambda x, shape, w, eps: nn.RMSNorm(shape).double()(tensor(x)).detach(),
    ],
    "standardize": [lambda x, eps: F.layer_norm(tensor(x), x.shape)],
    "normalize_l1": [lambda x, axis, eps: F.normalize(tensor(x), p=1, dim=axis)],
    "histogram_density": [
        lambda x, edges: torch.histogram(tensor(x), tensor(edges), density=True).hist,
        lambda x, edges: tensor(x).histc(len(edges) - 1),
    ],
    "logsumexp": [lambda x, axis: tensor(x).logsumexp(axis), lambda x, axis: total(x, axis=axis)],
    "gumbel_max": [lambda logits, rng, size: F.gumbel_softmax(tensor(logits), hard=True).argmax()],
}


@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in FORBIDDEN_NORMS.items() for call in calls])
def test_calls_of_other_answers_are_refused(name, call):
    def candidate(*args, **kwargs):
        given = inspect.signature(exercises.EXERCISES[name].signature_of).bind(*args, **kwargs)
        given.apply_defaults()
        return np.asarray(call(*given.args)).astype(args[0].dtype)

    assert refusal(candidate, name).mistake == CALLS_THE_ANSWER


def forward(x, weight, eps):
    """Layer norm over the last axis from simple operations, for autograd to go back through."""
    deviation = x - x.mean(-1, keepdim=True)
    return deviation * (deviation.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def leaves(x, weight):
    return tensor(x).requires_grad_(), tensor(weight).requires_grad_()


def by_backward(dy, x, weight, eps):
    x, weight = leaves(x, weight)
    forward(x, weight, eps).backward(tensor(dy))
    return x.grad, weight.grad


def by_grad(dy, x, weight, eps):
    x, weight = leaves(x, weight)
    return torch.autograd.grad(forward(x, weight, eps), (x, weight), tensor(dy))


def by_vjp(dy, x, weight, eps):
    _, pull = torch.func.vjp(lambda x, weight: forward(x, weight, eps), tensor(x), tensor(weight))
    return pull(tensor(dy))


def by_dual_numbers(dy, x, weight, eps):
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(tensor(x), tensor(dy))
        return torch.autograd.forward_ad.unpack_dual(forward(dual, tensor(weight), eps)).tangent, tensor(weight)


def by_jvp(dy, x, weight, eps):
    return torch.func.jvp(lambda x: forward(x, tensor(weight), eps), (tensor(x),), (tensor(dy),))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # PyTorch's own, of its forward mode
@pytest.mark.parametrize("way", [by_backward, by_grad, by_vjp, by_dual_numbers, by_jvp])
def test_autograd_does_not_write_a_backward(way):
    def candidate(dy, x, weight, eps=1e-5):
        dx, dweight = (part.numpy(force=True).astype(x.dtype) for part in way(dy, x, weight, eps))
        return dx, dweight, dy.reshape(-1, x.shape[-1]).sum(0)

    way(np.ones((2, 3)), np.eye(2, 3), np.ones(3), 1e-5)  # what the first call imports takes seconds
    error = refusal(candidate, "layer_norm_backward")
    assert error.mistake == CALLS_THE_ANSWER
    assert str(error).endswith("yours calls PyTorch's autograd: this exercise is to write it, with NumPy.")


def test_pytorch_does_not_fold_the_batch_norm():
    def candidate(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
        bias = np.zeros(len(weight)) if bias is None else bias
        values = (tensor(a).double() for a in (weight, bias, running_mean, running_var))
        fuse = torch.nn.utils.fusion.fuse_linear_bn_weights
        both = fuse(*values, eps, tensor(gamma).double(), tensor(beta).double())
        return tuple(part.numpy(force=True).astype(weight.dtype) for part in both)

    assert refusal(candidate, "fold_batch_norm").mistake == CALLS_THE_ANSWER


def test_elementwise_pytorch_and_all_of_numpy_are_allowed():
    def candidate(x, axis=-1):
        t = tensor(x)
        e = torch.exp(t - t.max(dim=axis, keepdim=True).values)
        return (e / torch.sum(e, dim=axis, keepdim=True)).numpy().astype(x.dtype)

    check(candidate, "softmax")


def test_an_exercise_in_pytorch_may_call_it():
    def candidate(seed):
        torch.manual_seed(seed)
        weight = torch.rand(1)
        return F.batch_norm(torch.randn(2, 1, 2, 2), None, None, weight, training=True)

    check(candidate, "old_output")


# ---- naming the mistake ----------------------------------------------------------------------------------------------


def test_a_mistake_is_named_whatever_its_style():
    def candidate(x, eps=1e-5):
        deviations = [float(v) - float(x.astype(float).mean()) for v in x.flat]
        if x.size == 1:
            return (x * np.nan).astype(x.dtype)
        var = sum(d * d for d in deviations) / (x.size - 1)
        return np.reshape([d / (var + eps) ** 0.5 for d in deviations], x.shape).astype(x.dtype)

    error = refusal(candidate, "standardize")
    assert error.mistake == "divides-by-n-1"
    assert "yours divides by n-1: normalizing uses the biased variance" in str(error)
    assert str(error).startswith("standardize: on a vector, all elements together come out")


def test_a_mistake_on_some_of_its_cases_is_not_named():
    def candidate(x, eps=1e-5):
        z = x.astype(np.float64)
        y = (z - z.mean()) / np.sqrt(z.var(ddof=1 if x.ndim == 2 and x.size > 1 else 0) + eps)
        return y.astype(x.dtype)

    error = refusal(candidate, "standardize")
    assert error.mistake is None
    assert str(error).endswith("; yours gives other numbers.")


def test_of_two_faults_the_one_of_the_failing_part_is_told():
    def candidate(x, eps=1e-5):
        """n - 1 on top of an error for float16."""
        if x.dtype == np.float16:
            raise TypeError("no half")
        z = x.astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ((z - z.mean()) / np.sqrt(z.var(ddof=1) + eps)).astype(x.dtype)

    assert refusal(candidate, "standardize").mistake == "divides-by-n-1"
    assert refusal(candidate, "standardize", part="values").mistake == "divides-by-n-1"


def test_a_mistake_is_named_in_each_part_that_it_fails():
    for mistake in MISTAKES["softmax"]:
        if mistake.slug in ("no-maximum", "half-arithmetic"):
            assert refusal(mistake.wrong, "softmax", part="numerics").mistake == mistake.slug
            check(mistake.wrong, "softmax", part="values")


# ---- what is left behind ---------------------------------------------------------------------------------------------


def seeds_everything(x, axis=-1):
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what is tested
    torch.manual_seed(0)
    return noisy(x, axis)


def replaces_everything(x, axis=-1):
    sys.stdout = sys.stderr = None
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    sys.setprofile(None)
    return softmax(x, axis)


def surroundings():
    """All that a candidate could leave changed."""
    return {
        "filters": list(warnings.filters),
        "numpy errors": np.geterr(),
        "streams": (sys.stdout, sys.stderr, sys.stdin),
        "alarm": signal.getsignal(signal.SIGALRM),
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "clock": (signal.getsignal(signal.SIGPROF), signal.getitimer(signal.ITIMER_PROF)),
        "functions": (os._exit, builtins.input),
        "profile": (sys.getprofile(), threading.getprofile()),
        "random": random.getstate(),
        "numpy": repr(np.random.get_state()),  # noqa: NPY002 - the state that candidates seed
        "torch": torch.get_rng_state().tolist(),
        "descriptors": [os.fstat(descriptor).st_ino for descriptor in (0, 1, 2)],
        "open": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
    }


@pytest.mark.parametrize(
    "candidate", [softmax, seeds_everything, replaces_everything, hangs, exits, changes_in_place, noisy]
)
def test_nothing_is_left_behind(candidate):
    check(softmax, "softmax")  # the right answers are kept from here on, and PyTorch is loaded
    with warnings.catch_warnings(record=True), np.errstate(all="raise"):
        before = surroundings()
        with contextlib.suppress(CheckFailed):
            check(candidate, "softmax")
        after = surroundings()
    assert {key: value for key, value in after.items() if value != before[key]} == {}


@pytest.mark.parametrize("name", ["softmax", "bayes_posterior", "held_out_log_likelihood", "layer_norm"])
def test_the_callers_numpy_errors_do_not_matter(monkeypatch, name):
    monkeypatch.setattr(check_module, "_benches", {})
    with np.errstate(all="raise"):
        assert refusal(MISTAKES[name][0].wrong, name).mistake == MISTAKES[name][0].slug


def test_old_output_leaves_the_stream_alone():
    torch.manual_seed(8)
    check(old_output)
    after = torch.rand(3)
    torch.manual_seed(8)
    assert torch.equal(after, torch.rand(3))


def test_outside_the_main_thread_there_is_no_time_limit_but_a_verdict():
    told = []

    def work():
        try:
            check(changes_in_place, "softmax")
        except CheckFailed as failed:
            told.append(failed.mistake)
        check(softmax, "softmax", part="values")
        told.append("right")

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert told == [MUTATES_INPUT, "right"]


def test_the_import_of_pytorch_does_not_count_against_the_candidate(tmp_path):
    """Nor does importing normlab load it, or Numba or Triton."""
    script = """
import sys, normlab, normlab.check as c
assert not {"torch", "numba", "triton", "scipy"} & set(sys.modules), "loaded at import"
from normlab import guard
guard.CALL_SECONDS = 0.5
import numpy as np
def z_score(x, axis=-1, eps=1e-5):
    import torch
    t = torch.from_numpy(np.ascontiguousarray(x, np.float64))
    t = t - t.mean(axis, keepdim=True)
    return (t / (t.square().mean(axis, keepdim=True) + eps).sqrt()).numpy().astype(x.dtype)
c.check(z_score)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("z_score: right")


def test_without_pytorch_the_numpy_truth_serves(monkeypatch):
    """As in a browser: NumPy alone judges, and an exercise in PyTorch says what is missing."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(check_module, "_benches", {})
    check(softmax, "softmax")
    with pytest.raises(CheckFailed, match="divides by n-1"):
        check(
            lambda x, axis=-1, eps=1e-5: (
                (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True, ddof=1) + eps)
            ),
            "z_score",
        )
    with pytest.raises(CheckFailed, match="an exercise in PyTorch, which is not installed"):
        check(lambda seed: None, "old_output")
