"""Runs a candidate on one case, watched: what it prints is swallowed, its time is limited, and calls of what it is to
write itself are refused. What it did comes back as an Outcome; nothing it does escapes as an exception.

This keeps honest code from harming a notebook. It is no sandbox: whoever means harm can get around it.
"""

import builtins
import contextlib
import inspect
import io
import os
import random
import signal
import sys
import threading
import types
import warnings
from dataclasses import dataclass, replace

import numpy as np

from normlab.drive import found, is_given

# What a learner is to write may not be called. Names are those of torch.nn.functional and the torch namespace.
TORCH_NORMS = ("batch_norm", "layer_norm", "instance_norm", "group_norm", "rms_norm", "local_response_norm")
TORCH_SOFTMAXES = (
    "softmax",
    "log_softmax",
    "logsumexp",
    "logcumsumexp",
    "softmin",
    "gumbel_softmax",
    "cross_entropy",
    "nll_loss",
    "scaled_dot_product_attention",
)
TORCH_RESCALING = ("normalize", "histogram", "histc", "histogramdd", "histogram_bin_edges", "bincount")

# The slugs of what a guard sees for itself.
CALLS_THE_ANSWER = "calls-the-answer"
MUTATES_INPUT = "mutates-input"
CALL_SECONDS = 10.0  # for one call on one small case; a slow right answer in pure Python takes well under two
WAITING = 3  # times as long on the clock may a call take that shares its processor, or waits
PRINTED_CHARACTERS = 100_000  # during one call


class Stop(BaseException):
    """Ends a candidate's call; a BaseException, so that `except Exception` in the candidate does not swallow it. A bare
    `except:` does, so the first of a call is kept: what a candidate does after it no longer counts."""

    first = None

    def __init__(self, sentence):
        super().__init__(sentence)
        Stop.first = Stop.first or self


@dataclass
class Outcome:
    """What a candidate did on one case: the value it returned (and `kept`, copies of its arrays, once it is found
    right) or the exception it raised; `stopped` says why it was refused without an answer, and under which slug;
    `mutated` that it changed an argument; `idle` that a sampler drew nothing from its generator."""

    value: object = None
    kept: tuple = ()
    error: BaseException | None = None
    stopped: str | None = None
    slug: str | None = None
    mutated: bool = False
    idle: bool = False


@dataclass
class Rules:
    """What is watched while a candidate runs: names of `forbidden` functions of PyTorch; whether its autograd is
    allowed, and whether normlab's own functions are; what the candidate is to be written with, in words. `watched` off
    lets every call pass. `seconds`: for one call."""

    forbidden: tuple = ()
    autograd: bool = False
    normlab: bool = False
    means: str = ""
    watched: bool = True
    seconds: float = CALL_SECONDS


class Elsewhere:
    """A candidate in another process: outcome(exercise, args, kwargs) is its Outcome there."""


class _Sink(io.TextIOBase):
    """Swallows what a candidate prints, up to a limit: text on stderr would cost all points in nbgrader."""

    def __init__(self):
        self.left = PRINTED_CHARACTERS

    def write(self, text):
        self.left -= len(text)
        if self.left < 0:
            raise Stop(f"prints more than {PRINTED_CHARACTERS:,} characters: remove the print from the loop")
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
        raise Stop(f"calls rng.{name}: the randomness is to come from rng.gumbel or rng.random alone")


def rules(exercise, candidate=None):
    """The Rules under which a candidate of that exercise runs."""
    # A known mistake may run from its own file: that is how the tests and the curious try them.
    own = str(getattr(candidate, "__module__", "")).startswith("normlab.")
    return Rules(
        forbidden=tuple(sorted({*TORCH_NORMS, *TORCH_SOFTMAXES, *TORCH_RESCALING} - {*exercise.may_call})),
        autograd=exercise.torch_exercise,
        normlab=own,
        means="from PyTorch's simpler operations" if exercise.torch_exercise else "with NumPy",
        seconds=CALL_SECONDS + exercise.compile_seconds,
    )


def _refuse_forbidden_calls(rules):
    """A profile function that stops a call of what the exercise is to write, under whatever name it was imported."""

    # What was looked at before: code by its id, since its own hash takes long, and names of functions in C.
    harmless, torch_names = {}, {}

    def stop(name):
        if not Stop.first:  # else the verdict stands: whoever swallowed it may go on, lest a stubborn loop never end
            raise Stop(f"calls {name}: this exercise is to write it, {rules.means}")

    def from_outside(frame):
        """Whether a function of normlab is called by others, and was not handed to them to be called."""
        if is_given(frame.f_code):
            return False
        return not ((frame.f_back and frame.f_back.f_globals.get("__name__")) or "").startswith("normlab.")

    def importing(frame):
        """Whether SciPy is being imported: that by itself is no use of it."""
        while frame:
            if frame.f_code.co_name == "<module>" and (frame.f_globals.get("__name__") or "").startswith("scipy."):
                return True
            frame = frame.f_back
        return False

    def torch_name(name):
        """The forbidden function that a name of PyTorch's stands for, or None."""
        if name not in torch_names:
            bare = name.strip("_")
            for prefix in ("native_", "fused_", "special_"):
                bare = bare.removeprefix(prefix)
            found = (f for f in rules.forbidden if bare == f or bare.startswith(f + "_"))
            torch_names[name] = next(found, None)
        return torch_names[name]

    def called(frame):
        """Looks at a call of Python code; whether it is harmless wherever it is called."""
        module, name = frame.f_globals.get("__name__") or "", frame.f_code.co_name
        if module.startswith("scipy.special"):
            if not importing(frame):
                stop("scipy.special")
            return False
        if module.startswith("normlab.") and not module.startswith((__name__, "normlab.drive")) and not rules.normlab:
            if from_outside(frame):
                stop("normlab")
            return False
        if module == "torch._ops" and name == "__call__":
            operator = str(frame.f_locals.get("self")).split(".")[1:2]
            if operator and torch_name(operator[0]):
                stop(f"torch's {operator[0]}")
            return False
        if module.startswith("torch.nn.utils.fusion"):
            stop(f"torch's {name}")
            return False
        if module.startswith(("torch.nn.functional", "torch._ops")) and torch_name(name):
            stop(f"torch's {name}")
            return False
        # Every way to a gradient leads through one of these two: backward() and grad(), jvp() and make_dual().
        if not rules.autograd and name in ("_engine_run_backward", "make_dual"):
            stop("PyTorch's autograd")
            return False
        return True

    def profile(frame, event, arg):
        # It is called at every call and every return: it has to be quick.
        if event == "call":
            code = frame.f_code
            if id(code) not in harmless and called(frame):
                harmless[id(code)] = code
        elif event == "c_call" and torch_name(getattr(arg, "__name__", "")):
            owner = getattr(arg, "__module__", None) or type(getattr(arg, "__self__", None)).__module__ or ""
            if owner.startswith("torch"):
                stop(f"torch's {arg.__name__}")

    return profile


def too_late(seconds):
    """What a call did that takes longer, as a verb phrase."""
    return f"does not return within {seconds:g} seconds: look for a loop that never ends"


# A context, other_clock(seconds), that raises Stop(too_late(seconds)) in its body: for a place without signals, such as
# a browser. Whoever runs the checks there may set it.
other_clock = None


@contextlib.contextmanager
def _time_limit(seconds):
    """Raises Stop in the main thread when time is up, again and again until the candidate gives way. Time is what the
    processor spends on it, so that a right answer passes on a busy machine too, and WAITING times as much on the clock.
    Elsewhere than in a main thread with Unix signals the limit is that of `other_clock`, if there is one, or none: the
    command line then ends the whole process."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        with other_clock(seconds) if other_clock else contextlib.nullcontext():
            yield
        return

    def ring(signum, frame):
        if running:
            raise Stop(too_late(seconds))

    running = True
    clocks = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, WAITING * seconds))
    before = [signal.signal(number, ring) for _, number, _ in clocks]
    for clock, _, limit in clocks:
        signal.setitimer(clock, limit, 0.2)
    try:
        yield
    finally:
        while running:  # it may ring on this very line
            with contextlib.suppress(Stop):
                running = False
        for (clock, number, _), handler in zip(clocks, before, strict=True):
            signal.setitimer(clock, 0)
            signal.signal(number, handler)


def _exit(before, ends):
    """os._exit for a candidate and the threads it starts. Those that were there `before` may end the process: a worker
    of Dask does when whoever started it is gone."""

    def exit(status):
        if threading.get_ident() in before:
            ends(status)
        raise Stop("ends the whole process (os._exit): a function returns or raises")

    return exit


def _no_input(*_):
    raise Stop("asks for input: a function gets all it needs as arguments")


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
def guard(seconds, profile=None):
    """Runs its body with printing swallowed, warnings ignored, time limited and calls watched. Errors: the first Stop
    of the body, also when the body swallowed it."""
    sink, Stop.first = _Sink(), None
    others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
    with (
        _attribute(os, "_exit", _exit(others, os._exit)),
        _attribute(builtins, "input", _no_input),
        _silent_descriptors(),
        _random_states(),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
        _watched(profile),
        _time_limit(seconds),  # innermost: it must not ring while the others put things back
    ):
        warnings.simplefilter("ignore")
        yield
    if Stop.first:
        raise Stop.first


def _bytes_of(args, kwargs):
    return [(a.shape, a.dtype, a.tobytes()) for a in found((args, kwargs), np.ndarray)]


def run(candidate, exercise, case, seed, watched=True):
    """The Outcome of the candidate on one case."""
    args, kwargs = exercise.draw(case, seed)
    args, kwargs = exercise.hand(*args, **kwargs)
    if isinstance(candidate, Elsewhere):
        return candidate.outcome(exercise, args, kwargs)
    return watch(candidate, exercise.drive, args, kwargs, replace(rules(exercise, candidate), watched=watched))


def watch(candidate, drive, args, kwargs, rules):
    """The Outcome of drive(candidate, *args, **kwargs) under these Rules."""
    samplers = [_SamplerRng(arg) for arg in args if isinstance(arg, np.random.Generator)]
    left = iter(samplers)
    args = tuple(next(left) if isinstance(arg, np.random.Generator) else arg for arg in args)
    before = _bytes_of(args, kwargs)
    outcome = Outcome()
    try:
        with guard(rules.seconds, _refuse_forbidden_calls(rules) if rules.watched else None):
            outcome.value = drive(candidate, *args, **kwargs)
            if inspect.iscoroutine(outcome.value):
                outcome.value.close()  # or Python complains on stderr that nobody awaited it
    except Stop:
        pass
    except SystemExit:
        outcome.stopped = "calls exit: a function returns or raises"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a learner's code raises is an answer about that code
        outcome.error = error.with_traceback(None)  # its frames would keep a learner's gigabytes alive
    if Stop.first:
        outcome.stopped = str(Stop.first)
        outcome.slug = CALLS_THE_ANSWER if "is to write it" in outcome.stopped else None
    outcome.mutated = outcome.stopped is None and before != _bytes_of(args, kwargs)
    outcome.idle = any(not sampler.drawn for sampler in samplers)
    return outcome
