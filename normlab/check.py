"""check(candidate, "softmax"): one line of joy, or one sentence: what is wrong, and which mistake it looks like.

In a notebook:         check(softmax, "softmax", part="values")
On the command line:   python -m normlab.check softmax my_file.py [more.py ...] [--json]      or --list

The candidate runs on every case of the exercise and is held against PyTorch. A known mistake is named only when the
candidate behaves exactly like it on every case that tells that mistake from a right answer.
"""

import argparse
import builtins
import contextlib
import dataclasses
import importlib.util
import inspect
import io
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import types
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from normlab import cases, exercises
from normlab.exercises import TORCH_NORMS, TORCH_RESCALING, TORCH_SOFTMAXES
from normlab.mistakes import CALLS_THE_ANSWER, MISTAKES, MUTATES_INPUT

CALL_SECONDS = 5.0  # for one call on one small case; a slow right answer in pure Python takes well under one
IMPORT_SECONDS = 20.0  # for importing a file on the command line: it may import large libraries
FILE_SECONDS = 60.0  # for one file on the command line, its import included
FILE_BYTES = 4 << 30  # of address space beyond what the interpreter has already, for one file on the command line
PRINTED_CHARACTERS = 100_000  # during one call
FALSE_ALARM = 1e-9  # of one statistical case on a right sampler; every exercise has fewer than a hundred such


class CheckFailed(AssertionError):
    """The candidate is refused. `str` is the sentence; `mistake` the slug of the known mistake it equals, or None."""

    def __init__(self, sentence, mistake=None):
        super().__init__(sentence)
        self.mistake = mistake

    def _render_traceback_(self):
        # IPython shows this in place of a traceback: the learner reads the sentence and nothing else.
        return [str(self)]


class _Uncheckable(Exception):
    """A file that gives no candidate to check."""


# ---- running a candidate ---------------------------------------------------------------------------------------------


class _Stop(BaseException):
    """Ends a candidate's call; a BaseException, so that `except Exception` in the candidate does not swallow it. A bare
    `except:` does, so the first of a call is kept: what a candidate does after it no longer counts."""

    first = None

    def __init__(self, sentence):
        super().__init__(sentence)
        _Stop.first = _Stop.first or self


@dataclass
class Outcome:
    """What a candidate did on one case: the value it returned (and `kept`, a copy, once it is found right) or the exception it
    raised; `stopped` says why it was refused without an answer, and under which slug; `mutated` that it changed an
    argument; `idle` that a sampler drew nothing from its generator."""

    value: object = None
    kept: np.ndarray | None = None
    error: BaseException | None = None
    stopped: str | None = None
    slug: str | None = None
    mutated: bool = False
    idle: bool = False


class _Sink(io.TextIOBase):
    """Swallows what a candidate prints, up to a limit: text on stderr would cost all points in nbgrader."""

    def __init__(self):
        self.left = PRINTED_CHARACTERS

    def write(self, text):
        self.left -= len(text)
        if self.left < 0:
            raise _Stop(f"prints more than {PRINTED_CHARACTERS:,} characters: remove the print from the loop")
        return len(text)


class _SamplerRng:
    """The generator that a sampling exercise allows: `gumbel` and `random`, of numpy.random.Generator's signatures."""

    def __init__(self, rng):
        self._rng = rng
        self.drawn = False

    def gumbel(self, loc=0.0, scale=1.0, size=None):
        self.drawn = True
        return self._rng.gumbel(loc, scale, size)

    def random(self, size=None, dtype=np.float64, out=None):
        self.drawn = True
        return self._rng.random(size, dtype, out)

    def __getattr__(self, name):
        raise _Stop(f"calls rng.{name}: the randomness is to come from rng.gumbel or rng.random alone")


def _refuse_forbidden_calls(normlab_too):
    """A profile function that stops a call of what the exercise is to write, under whatever name it was imported."""
    forbidden = {*TORCH_NORMS, *TORCH_SOFTMAXES, *TORCH_RESCALING}

    def stop(name):
        raise _Stop(f"calls {name}: this exercise is to write it, with NumPy")

    def torch_name(name):
        bare = name.strip("_")
        for prefix in ("native_", "fused_", "special_"):
            bare = bare.removeprefix(prefix)
        return next((f for f in forbidden if bare == f or bare.startswith(f + "_")), None)

    def profile(frame, event, arg):
        if _Stop.first:  # the verdict stands: whoever swallowed it may go on, lest a stubborn loop never end
            return
        if event == "call":
            module, name = frame.f_globals.get("__name__") or "", frame.f_code.co_name
            if module.startswith("scipy.special"):
                stop(f"scipy.special ({name})")
            if normlab_too and module.startswith("normlab.") and module != __name__:
                stop("normlab")
            if module == "torch._ops" and name == "__call__":
                name = str(frame.f_locals.get("self")).split(".")[1:2]
                name = name[0] if name else ""
            if module.startswith(("torch.nn.functional", "torch._ops")) and torch_name(name):
                stop(f"torch's {name}")
        elif event == "c_call":
            owner, name = getattr(arg, "__self__", None), getattr(arg, "__name__", "")
            from_torch = (getattr(arg, "__module__", None) or type(owner).__module__ or "").startswith("torch")
            if from_torch and torch_name(name):
                stop(f"torch's {name}")

    return profile


@contextlib.contextmanager
def _time_limit(seconds):
    """Raises _Stop in the main thread when time is up, again and again until the candidate gives way. Elsewhere than in
    a main thread with Unix signals there is no limit here: the command line then ends the whole process."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum, frame):
        raise _Stop(f"does not return within {seconds:g} seconds: look for a loop that never ends")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _no_exit(*_):
    raise _Stop("ends the whole process (os._exit): a function returns or raises")


def _no_input(*_):
    raise _Stop("asks for input: a function gets all it needs as arguments")


@contextlib.contextmanager
def _attribute(owner, name, value):
    """owner.name is `value` meanwhile."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def _silent_descriptors():
    """Sends what bypasses sys.stdout and sys.stderr (os.system, libraries in C) to nowhere."""
    kept = []
    with contextlib.suppress(OSError):
        silent = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            kept.append((os.dup(descriptor), descriptor))
            os.dup2(silent, descriptor)
        os.close(silent)
    try:
        yield
    finally:
        for copy, descriptor in kept:
            os.dup2(copy, descriptor)
            os.close(copy)


@contextlib.contextmanager
def _random_states():
    """Puts the global generators back as they were: seeding them is a candidate's right, not the caller's surprise."""
    torch = sys.modules.get("torch")
    states = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()  # noqa: NPY002 - it is theirs
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if torch:
            torch.set_rng_state(states[2])


@contextlib.contextmanager
def _watched(profile):
    """Calls `profile` for the calls of this thread and of those it starts, and for PyTorch's functions as well where C
    code calls them (functools.partial, map), which a profile function does not see."""
    if profile is None:
        yield
        return
    torch, before, before_in_threads = sys.modules.get("torch"), sys.getprofile(), threading.getprofile()

    def from_c(function):
        if isinstance(function, (types.BuiltinFunctionType, types.MethodDescriptorType)):
            profile(None, "c_call", function)

    with _torch_calls(torch, from_c) if torch else contextlib.nullcontext():
        threading.setprofile(profile)
        sys.setprofile(profile)
        try:
            yield
        finally:
            sys.setprofile(before)
            threading.setprofile(before_in_threads)


def _torch_calls(torch, seen):
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen(function)
            return function(*args, **(kwargs or {}))

    return Mode()


@contextlib.contextmanager
def _guard(seconds, profile=None):
    """Runs its body with printing swallowed, warnings ignored, time limited and calls watched. Errors: the first _Stop
    of the body, also when the body swallowed it."""
    sink, _Stop.first = _Sink(), None
    with (
        _attribute(os, "_exit", _no_exit),
        _attribute(builtins, "input", _no_input),
        _silent_descriptors(),
        _random_states(),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
        _time_limit(seconds),
        _watched(profile),
    ):
        warnings.simplefilter("ignore")
        yield
    if _Stop.first:
        raise _Stop.first


def _bytes_of(args, kwargs):
    arrays = (a for a in (*args, *kwargs.values()) if isinstance(a, np.ndarray))
    return [(a.shape, a.dtype, a.tobytes()) for a in arrays]


def _run(candidate, exercise, case, seed, watched=True):
    """The Outcome of the candidate on one case."""
    args, kwargs = exercise.draw(case, seed)
    if exercise.returns == "samples":
        args = (args[0], _SamplerRng(args[1]), *args[2:])
    before = _bytes_of(args, kwargs)
    profile = None
    if watched and not exercise.torch_exercise:
        # A known mistake may run from its own file: that is how the tests and the curious try them.
        profile = _refuse_forbidden_calls(getattr(candidate, "__module__", "") != "normlab.mistakes")
    outcome = Outcome()
    try:
        with _guard(CALL_SECONDS, profile):
            outcome.value = candidate(*args, **kwargs)
            if inspect.iscoroutine(outcome.value):
                outcome.value.close()  # or Python complains on stderr that nobody awaited it
    except _Stop:
        pass
    except SystemExit:
        outcome.stopped = "calls exit: a function returns or raises"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a learner's code raises is an answer about that code
        outcome.error = error.with_traceback(None)  # its frames would keep a learner's gigabytes alive
    if _Stop.first:
        outcome.stopped = str(_Stop.first)
        outcome.slug = CALLS_THE_ANSWER if "is to write it" in outcome.stopped else None
    outcome.mutated = outcome.stopped is None and before != _bytes_of(args, kwargs)
    outcome.idle = exercise.returns == "samples" and not args[1].drawn
    return outcome


# ---- judging one outcome ---------------------------------------------------------------------------------------------


@dataclass
class _Right:
    """The right answer of a case: a float64 array, or `raises`; the tolerance and the dtype the answer must have."""

    value: np.ndarray | None
    raises: type | None
    tolerance: float = 0.0
    dtype: np.dtype | None = None
    shape: tuple = ()


def _right_answer(exercise, case, seed):
    args, kwargs = exercise.draw(case, seed)
    if case.raises:
        return _Right(None, case.raises)
    value = exercises.truth(exercise, args, kwargs)
    if exercise.returns == "samples":
        size = args[2] if isinstance(args[2], tuple) else (args[2],)
        return _Right(value, None, shape=size)
    if exercise.returns == "tensor":
        eps = float(np.finfo(np.float32).eps)
        return _Right(value, None, 20 * eps * float(np.abs(value).max()), np.dtype(np.float32), value.shape)
    args, kwargs = exercise.draw(case, seed)
    dtype = args[0].dtype
    far = ()
    if case.far:
        rounded = exercises.moved_by_one_rounding(exercise, args, kwargs, np.random.default_rng(0))
        far = rounded, max(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in args if isinstance(a, np.ndarray))
    allowed = cases.tolerance(value, exercises.plain(exercise, args, kwargs), dtype, *far)
    return _Right(value, None, allowed, dtype, value.shape)


def _first_line(error):
    """The first line of an error's text, shortened; nothing where the error cannot even say what it is."""
    try:
        return str(error).strip().split("\n")[0][:120]
    except Exception:
        return ""


def _closed(sentence):
    """The sentence with its full stop, unless it ends in a question."""
    return sentence if sentence.endswith("?") else f"{sentence}."


def _named_type(value):
    kind = type(value)
    if kind is np.ndarray:
        return "an array"
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.split('.')[0]}.{kind.__name__}"
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def _axes(count):
    return f"{count} axis" if count == 1 else f"{count} axes"


def _wrong_kind(exercise, right, value):
    """What is wrong with the type, dtype or shape of an answer, or None; and the answer as a float64 array."""
    if value is None:
        return "returns None: is the return statement missing?", None
    if exercise.returns == "float":
        if isinstance(value, (float, np.floating)) or (
            type(value) is np.ndarray and value.shape == () and value.dtype.kind == "f"
        ):
            return None, np.asarray(value, np.float64)
        return f"returns {_named_type(value)} where a float is right", None
    if exercise.returns == "tensor":
        torch = exercises.torch_or_none()
        if type(value) is not torch.Tensor:
            return f"returns {_named_type(value)} where a torch.Tensor is right", None
        dtype, value = str(value.dtype).removeprefix("torch."), value.detach().cpu().double().numpy()
    else:
        scalar = right.shape == () and isinstance(value, np.generic)
        if type(value) is not np.ndarray and not scalar:
            wanted = "a NumPy scalar" if right.shape == () else "a NumPy array"
            return f"returns {_named_type(value)} where {wanted} is right", None
        dtype = str(value.dtype)
    if exercise.returns == "samples":
        if np.dtype(dtype).kind not in "iu":
            return f"returns {dtype} where integers (the indices of the classes) are right", None
    elif dtype != str(right.dtype):
        return f"returns {dtype} where {right.dtype} is right", None
    if value.shape != right.shape:
        if value.ndim != len(right.shape):
            return f"returns an array with {_axes(value.ndim)} where {_axes(len(right.shape))} would be right", None
        return "returns an array of the wrong shape", None
    return None, np.asarray(value) if exercise.returns == "samples" else np.asarray(value, np.float64)


def _wrong_values(truth, allowed, value):
    """What is wrong with the numbers of an answer of the right shape, or None."""
    with np.errstate(invalid="ignore"):
        if (np.isnan(value) & ~np.isnan(truth)).any():
            return "has NaN where there should be numbers: look for 0/0, inf/inf and inf - inf"
        if (np.isnan(truth) & ~np.isnan(value)).any():
            return "has numbers where there should be NaN"
        infinite = np.isinf(value) | np.isinf(truth)
        if (value[infinite] != truth[infinite]).any():
            if (np.isinf(value) & np.isinf(truth)).any():
                return "has an infinity of the wrong sign"
            there, wanted = ("an infinity", "a finite number") if np.isinf(value).any() else ("a finite number", "an infinity")
            return f"has {there} where there should be {wanted}"
        gap = np.abs(value - truth)[~infinite & ~np.isnan(truth)].max(initial=0.0)
    if gap <= allowed:
        return None
    scale = np.abs(truth[np.isfinite(truth)]).max(initial=0.0)
    if gap < 1e-3 * scale:
        return "comes close, but misses by more than rounding: look at eps, constants and the order of operations"
    return "gives other numbers"


def _frequencies(samples, classes):
    return np.bincount(samples.ravel(), minlength=classes) / max(samples.size, 1)


def _wrong_frequencies(p, samples):
    """What is wrong with samples of the categorical p, or None.

    Chernoff's bound: the share q of one class among n draws has probability at most exp(-n kl(q, p)) on either side;
    over all classes together a right sampler is refused with probability at most FALSE_ALARM.
    """
    if samples.size == 0:
        return None
    if samples.min() < 0 or samples.max() >= len(p):
        return "draws an index that is not a class"
    q = _frequencies(samples, len(p))
    if (q[p == 0] > 0).any():
        return "draws a class that has probability 0"
    if not np.isfinite(q).all():
        return "draws no valid sample"
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(q > 0, q * np.log(q / p), 0) + np.where(q < 1, (1 - q) * np.log((1 - q) / (1 - p)), 0)
    kl = np.where((p == 0) | (p == 1), 0, kl)
    if samples.size * kl.max() > np.log(2 * len(p) / FALSE_ALARM):
        return "draws the classes with other frequencies"
    return None


def _fault(exercise, right, outcome, hidden):
    """What the candidate did wrong on this case, as a verb phrase, or None if it is right; and whether that is about
    what the exercise asks for, so that it helps to say what would have been right."""
    if outcome.stopped:
        return outcome.stopped, False
    if isinstance(outcome.error, NotImplementedError):
        return "is not written yet: it raises NotImplementedError", False
    if outcome.error is not None:
        if right.raises and isinstance(outcome.error, right.raises):
            return None, False
        # The text of an error may quote hidden inputs, so it is shown only where the inputs are public.
        text = "" if hidden else _first_line(outcome.error)
        instead = f" instead of {right.raises.__name__}" if right.raises else ""
        return f"raises {type(outcome.error).__name__}{instead}" + (f" ({text})" if text else ""), bool(right.raises)
    if outcome.mutated:
        return "changes its input: work on a copy", False
    if right.raises:
        return f"returns {_named_type(outcome.value)} instead of raising {right.raises.__name__}", True
    wrong, value = _wrong_kind(exercise, right, outcome.value)
    if wrong:
        return wrong, False
    if exercise.returns == "samples":
        if outcome.idle and value.size and len(right.value) > 1:
            return "draws nothing from rng: the randomness is to come from rng.gumbel or rng.random", False
        return _wrong_frequencies(right.value, value), True
    return _wrong_values(right.value, right.tolerance, value), True


# ---- naming the mistake ----------------------------------------------------------------------------------------------


def _alike(exercise, right, mistake, one, other):
    """Whether the candidate's outcome is the same wrong answer as the mistake's."""
    if one.stopped or other.stopped or one.mutated != other.mutated:
        return False
    if one.error is not None or other.error is not None:
        kinds = {type(one.error), type(other.error)}
        return len(kinds) == 1 or kinds == {TypeError, AttributeError}  # how None fails depends on what is done to it
    if right.raises:  # the right answer is an error, so there is no shape to compare with
        return _equal_arrays(one.value, other.value)
    (wrong_a, a), (wrong_b, b) = _wrong_kind(exercise, right, one.value), _wrong_kind(exercise, right, other.value)
    if wrong_a or wrong_b:
        return wrong_a == wrong_b and type(one.value) is type(other.value) and _equal_arrays(one.value, other.value)
    if mistake.trace and not mistake.trace(a):
        return False
    if mistake.noisy:
        one_size, other_size = (_size_of_error(right.value, x) for x in (a, b))
        return one_size < 30 * other_size and other_size < 30 * one_size
    if exercise.returns == "samples":
        classes = len(right.value)
        inside = all(x.size == 0 or (x.min() >= 0 and x.max() < classes) for x in (a, b))
        return inside and np.abs(_frequencies(a, classes) - _frequencies(b, classes)).max() < 0.01
    scale = max(np.abs(b[np.isfinite(b)]).max(initial=0.0), 1e-300)
    stretch = max(1.0, scale / max(np.abs(right.value[np.isfinite(right.value)]).max(initial=0.0), 1e-300))
    ulps = 16 * float(np.finfo(right.dtype or np.float64).eps) * scale
    return _wrong_values(b, max(right.tolerance * stretch, ulps), a) is None


def _size_of_error(truth, value):
    """The largest error against the truth at the truth's scale, at most 1: a NaN counts as 1."""
    scale = np.abs(truth[np.isfinite(truth)]).max(initial=1e-300)
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(np.abs(value - truth) / scale, nan=1.0, posinf=1.0).clip(0, 1).max(initial=0.0))


def _equal_arrays(a, b):
    """Whether two answers of the wrong kind are the same numbers all the same."""
    try:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    except (TypeError, ValueError, RuntimeError):
        return False
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True)


class _Bench:
    """One exercise under one seed: right answers, and what each known mistake does, each computed once when asked."""

    def __init__(self, exercise, seed):
        self.exercise, self.seed = exercise, seed
        self.hidden = seed != b"public"
        self._right, self._mistakes = {}, {}

    def right(self, case):
        if case.name not in self._right:
            self._right[case.name] = _right_answer(self.exercise, case, self.seed)
        return self._right[case.name]

    def prepare(self, mistakes_too):
        """Computes what forked children then share."""
        for case in self.exercise.cases:
            self.right(case)
            for mistake in MISTAKES[self.exercise.name] if mistakes_too else ():
                for number in range(1 + len(mistake.variants)):
                    self.told_apart(mistake, number, case)

    def fault(self, case, outcome):
        return _fault(self.exercise, self.right(case), outcome, self.hidden)

    def told_apart(self, mistake, number, case):
        """What variant `number` of the mistake does on the case if that is wrong there, else None."""
        key = mistake.slug, number, case.name
        if key not in self._mistakes:
            wrong = (mistake.wrong, *mistake.variants)[number]
            outcome = _run(wrong, self.exercise, case, self.seed, watched=False)
            self._mistakes[key] = outcome if self.fault(case, outcome)[0] else None
        return self._mistakes[key]

    def name(self, outcomes, first, fewest=1, noisy_too=True):
        """The known mistake that the candidate's outcomes (case -> Outcome) equal on all cases that tell it apart, among
        those that explain the failure on the case `first` and that `fewest` cases tell apart; of several, the one told
        apart by most. None if there is none."""
        best, most = None, fewest - 1
        for mistake in MISTAKES[self.exercise.name]:
            if mistake.noisy and not noisy_too:
                continue
            for number in range(1 + len(mistake.variants)):
                if not self.told_apart(mistake, number, first):
                    continue
                telling = {case: wrong for case in outcomes if (wrong := self.told_apart(mistake, number, case))}
                if len(telling) > most and all(
                    self.fault(case, outcomes[case])[0]
                    and _alike(self.exercise, self.right(case), mistake, outcomes[case], wrong)
                    for case, wrong in telling.items()
                ):
                    best, most = mistake, len(telling)
        return best


_benches = {}


def _bench(exercise):
    key = exercise.name, cases.secret()
    if key not in _benches:
        _benches[key] = _Bench(exercise, key[1])
    return _benches[key]


def _refusal(bench, candidate, part):
    """None if the candidate is right, else (sentence, slug or None)."""
    exercise = bench.exercise
    parts = cases.PARTS if part is None else (part,)
    tried = sorted((c for c in exercise.cases if c.part in parts), key=lambda c: cases.PARTS.index(c.part))
    outcomes = {}
    for case in tried:
        bench.right(case)  # first, so that importing PyTorch does not count against a candidate that imports it too
        outcome = outcomes[case] = _run(candidate, exercise, case, bench.seed)
        fault, explain = bench.fault(case, outcome)
        if fault:
            break
        if type(outcome.value) is np.ndarray:  # right, so of the right size: a wrong one could be a view of terabytes
            outcome.kept = outcome.value.copy()
    else:
        return _remembers(bench, candidate, outcomes)
    if isinstance(outcome.error, NotImplementedError):
        return _closed(f"{exercise.name} {fault}"), None
    expected = f"on {case.kind}, {case.expect or exercise.expect}; yours"
    if outcome.stopped or outcome.mutated:
        return _closed(
            f"{exercise.name}: on {case.kind}, yours {fault}"
        ), MUTATES_INPUT if outcome.mutated else outcome.slug
    everywhere = _run_on(exercise.cases, outcomes, candidate, bench)
    mistake = bench.name(everywhere, case)
    if mistake is None:  # two faults at once: one of them may still be recognized within the part that failed
        here = {c: o for c, o in everywhere.items() if c.part == case.part}
        mistake = bench.name(here, case, fewest=2, noisy_too=False)
    if mistake:
        return _closed(f"{exercise.name}: {expected} {mistake.sentence}"), mistake.slug
    return _closed(f"{exercise.name}: {expected if explain else f'on {case.kind}, yours'} {fault}"), None


def _remembers(bench, candidate, outcomes):
    """A refusal, as of `_refusal`, if a candidate that was right everywhere keeps something between calls: it changes an
    answer it gave before, or repeats an answer when it is called with other numbers of the same shape."""
    exercise = bench.exercise
    case = next((c for c, o in outcomes.items() if o.kept is not None and o.kept.size and np.ptp(o.kept) > 0), None)
    if case is None:
        return None
    again = _again(exercise, case, bench.seed)
    outcome = _run(candidate, exercise, again, bench.seed)
    fault, _ = bench.fault(again, outcome)
    if np.array_equal(outcome.value, outcomes[case].kept) and (fault or exercise.returns == "samples"):
        fault = "repeats the answer of an earlier call: keep nothing between calls"
    if fault:
        return _closed(f"{exercise.name}: on {again.kind}, yours {fault}"), None
    for earlier, before in outcomes.items():
        if before.kept is not None and not _identical(before.value, before.kept):
            return (
                f"{exercise.name}: on {earlier.kind}, yours changes its answer when it is called again: return a new array each time.",
                None,
            )
    return None


def _identical(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _again(exercise, case, seed):
    """The case once more, with arrays of the same shapes and other numbers."""

    def draw(_):
        args, kwargs = exercise.draw(case, seed)
        if exercise.returns == "samples":
            return (args[0], cases.generator(exercise.name, f"{case.name} again", seed), *args[2:]), kwargs
        # Turned round, which changes what a norm gives, and halved, which changes what a histogram gives.
        return (np.flip(args[0]) / args[0].dtype.type(2), *args[1:]), kwargs

    return dataclasses.replace(
        case, name=f"{case.name} again", kind=f"a second call, with other numbers ({case.kind})", draw=draw
    )


def _run_on(wanted, known, candidate, bench, seconds=10.0):
    """The candidate's outcomes on all wanted cases, those already `known` taken over. Past `seconds`, the rest counts
    as stopped: naming a mistake is a courtesy, and not worth a wait."""
    started, outcomes = time.monotonic(), dict(known)
    for case in wanted:
        if case not in outcomes:
            late = time.monotonic() - started > seconds
            outcomes[case] = Outcome(stopped="late") if late else _run(candidate, bench.exercise, case, bench.seed)
    return outcomes


def _bad_call(candidate, exercise):
    """What keeps the candidate from being called as the exercise says, or None."""
    if not callable(candidate):
        return f"{exercise.name}: check needs the function itself, and was given {_named_type(candidate)}."
    try:
        signature = inspect.signature(candidate)
    except Exception:  # some built-in functions have none: the first call will tell
        return None
    args, kwargs = [], {}
    for parameter in inspect.signature(exercise.signature_of).parameters.values():
        if parameter.default is parameter.empty:
            args.append(None)
        else:
            kwargs[parameter.name] = None
    for call in ((args, {}), (args, kwargs)):
        try:
            signature.bind(*call[0], **call[1])
        except TypeError:
            return f"{exercise.name}: the signature is to be {exercise.signature}; yours takes {signature}."
    return None


def check(candidate, exercise=None, part=None):
    """Hold `candidate`, a function, against PyTorch on the cases of `exercise` (its own __name__ when None).

    part: "values", "numerics" or "edges"; all three, in this order, when None. Prints one line and returns None when
    the candidate is right. Errors: CheckFailed, with one sentence, when it is not or cannot be checked.
    """
    name = exercise if exercise is not None else getattr(candidate, "__name__", None)
    try:
        found = exercises.find(name)
        bench = _bench(found)
    except ValueError as error:
        raise CheckFailed(_closed(str(error))) from None
    if part is not None and part not in cases.PARTS:
        raise CheckFailed(f"there is no part {part!r}: choose among {', '.join(cases.PARTS)}.")
    with np.errstate(all="ignore"):  # whatever the caller has set: wrong answers overflow
        refusal = ((bad := _bad_call(candidate, found)) and (bad, None)) or _refusal(bench, candidate, part)
    if refusal:
        raise CheckFailed(*refusal)
    count = sum(part in (None, case.part) for case in found.cases)
    print(f"{found.name}{f', {part}' if part else ''}: right on {count} of {count} kinds of input.")


# ---- the command line ------------------------------------------------------------------------------------------------


def _load(path, name):
    """The function `name` of the Python file at `path`. Errors: _Uncheckable with a verb phrase."""
    if not path.is_file():
        raise _Uncheckable("is not a file" if path.exists() else "does not exist")
    spec = importlib.util.spec_from_file_location("candidate", path)
    if spec is None:
        raise _Uncheckable("is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.append(str(path.resolve().parent))
    sys.modules["candidate"] = module
    try:
        with _guard(IMPORT_SECONDS):
            spec.loader.exec_module(module)
    except _Stop as stop:
        raise _Uncheckable(f"{stop} (while the file is imported)") from None
    except SystemExit:
        raise _Uncheckable("exits while it is imported") from None
    except SyntaxError as error:
        raise _Uncheckable(f"is not valid Python: {error.msg} in line {error.lineno}") from None
    except BaseException as error:
        if not hasattr(module, name):
            text = _first_line(error)
            raise _Uncheckable(f"does not run: {type(error).__name__}" + (f" ({text})" if text else "")) from None
    if not hasattr(module, name):
        raise _Uncheckable(f"has no function {name}")
    return getattr(module, name)


def _judge(name, path):
    """The verdict on one file: (accepted, checkable, sentence, slug)."""
    try:
        candidate = _load(path, name)
    except _Uncheckable as error:
        return False, False, f"{name}: the file {error}.", None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            check(candidate, name)
    except CheckFailed as failed:
        return False, True, str(failed), failed.mistake
    return True, True, None, None


def _child(pipe, name, path):
    """Runs in a process of its own, in a session of its own, so that everything a file starts ends with it."""
    if hasattr(os, "setsid"):
        os.setsid()
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # Unix only

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + FILE_BYTES, used + FILE_BYTES))
    pipe.send_bytes(json.dumps(_judge(name, path)).encode())


def _judge_apart(name, path):
    """_judge in a process of its own, with limits of time and memory. A forked one has PyTorch and the right answers
    already; JSON comes back, because unpickling what a learner's process sends would run it here."""
    forks = "fork" in multiprocessing.get_all_start_methods() and sys.platform.startswith("linux")
    context = multiprocessing.get_context("fork" if forks else "spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(theirs, name, path), daemon=True)
    child.start()
    theirs.close()
    try:
        if not ours.poll(FILE_SECONDS):
            return False, False, f"{name}: the file does not finish within {FILE_SECONDS:g} seconds.", None
        return tuple(json.loads(ours.recv_bytes()))
    except (EOFError, OSError, ValueError):
        return False, False, f"{name}: the file ends its own process (exit, a crash, or too much memory).", None
    finally:
        with contextlib.suppress(OSError, AttributeError):
            os.killpg(child.pid, signal.SIGKILL)
        child.kill()
        child.join()


def main(argv=None):
    """The command line; returns the exit status: 0 all accepted, 1 some refused, 2 some not checkable."""
    parser = argparse.ArgumentParser(
        prog="python -m normlab.check", description="Check solutions of an exercise against PyTorch."
    )
    parser.add_argument("exercise", nargs="?", help="name of the exercise, such as softmax")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="Python file with a function of that name")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--list", action="store_true", help="name the exercises, one a line")
    options = parser.parse_intermixed_args(argv)  # --json may stand anywhere
    if options.list:
        print("\n".join(exercises.EXERCISES))
        return 0
    if options.exercise is None:
        parser.error("name an exercise and a file, or --list")
    try:
        exercise = exercises.find(options.exercise)
        bench = _bench(exercise)
    except ValueError as error:
        print(_closed(str(error)), file=sys.stderr)
        return 2
    if not options.files:
        parser.error(f"name a file that defines {exercise.signature}")
    torch = exercises.torch_or_none()
    if torch is not None:
        torch.set_num_threads(1)  # a forked child that used the parent's threads would hang
        with np.errstate(all="ignore"):
            bench.prepare(mistakes_too=len(options.files) > 1)
    status = 0
    for path in options.files:
        accepted, checkable, reason, mistake = _judge_apart(exercise.name, path)
        verdict = {
            "exercise": exercise.name,
            "file": str(path),
            "accepted": accepted,
            "reason": reason,
            "mistake": mistake,
        }
        print(json.dumps(verdict) if options.json else f"{path}: {reason or 'accepted'}", flush=True)
        status = max(status, 0 if accepted else 1 if checkable else 2)
    return status


if __name__ == "__main__":
    # Run as a script this file is __main__; the checks must be those of the module that everyone else imports.
    from normlab.check import main as run

    try:
        sys.exit(run())
    except BrokenPipeError:  # whoever read the verdicts has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
