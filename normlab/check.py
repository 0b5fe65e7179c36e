"""check(candidate, "softmax"): one line of joy, or one sentence: what is wrong, and which mistake it looks like.

In a notebook:         check(softmax, "softmax", part="values")
On the command line:   python -m normlab.check softmax my_file.py [more.py ...] [--json]      or --list
                       python -m normlab.check --all my_normlab.py [--json] [--bench]     every exercise

The candidate runs on every case of the exercise and is held against PyTorch. A known mistake is named only when the
candidate behaves exactly like it on every case that tells that mistake from a right answer.
"""

import argparse
import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from normlab import apart, cases, check_all, exercises
from normlab.drive import found, walk
from normlab.guard import MUTATES_INPUT, Outcome, run
from normlab.learner import Unloadable, load
from normlab.verdict import Bench, closed, named_type


class CheckFailed(AssertionError):
    """The candidate is refused. `str` is the sentence; `mistake` the slug of the known mistake it equals, or None."""

    def __init__(self, sentence, mistake=None):
        super().__init__(sentence)
        self.mistake = mistake

    def _render_traceback_(self):
        # IPython shows this in place of a traceback: the learner reads the sentence and nothing else.
        return [str(self)]


_benches = {}


def _bench(exercise):
    key = exercise.name, cases.secret()
    if key not in _benches:
        _benches[key] = Bench(exercise, key[1])
    return _benches[key]


def _refusal(bench, candidate, part):
    """None if the candidate is right, else (sentence, slug or None)."""
    exercise = bench.exercise
    parts = cases.PARTS if part is None else (part,)
    tried = sorted((c for c in exercise.cases if c.part in parts), key=lambda c: cases.PARTS.index(c.part))
    outcomes = {}
    for case in tried:
        bench.right(case)  # first, so that importing PyTorch does not count against a candidate that imports it too
        outcome = outcomes[case] = run(candidate, exercise, case, bench.seed)
        fault, explain = bench.fault(case, outcome)
        if fault:
            break
        # It is right, so of the right size: a wrong one could be a view of terabytes.
        outcome.kept = tuple(array.copy() for array in found(outcome.value, np.ndarray))
    else:
        return _remembers(bench, candidate, outcomes)
    if isinstance(outcome.error, NotImplementedError):
        return closed(f"{exercise.function} {fault}"), None
    expected = f"on {case.kind}, {case.expect or exercise.expect}; yours"
    if outcome.stopped or outcome.mutated:
        return closed(
            f"{exercise.function}: on {case.kind}, yours {fault}"
        ), MUTATES_INPUT if outcome.mutated else outcome.slug
    everywhere = _run_on(exercise.cases, outcomes, candidate, bench)
    mistake = bench.name(everywhere, case)
    if mistake is None:  # two faults at once: one of them may still be recognized within the part that failed
        here = {c: o for c, o in everywhere.items() if c.part == case.part}
        mistake = bench.name(here, case, fewest=2, noisy_too=False, against=everywhere)
    if mistake:
        what = f"{fault}; it {mistake.sentence}" if exercise.explain else mistake.sentence
        return closed(f"{exercise.function}: {expected} {what}"), mistake.slug
    return closed(f"{exercise.function}: {expected if explain else f'on {case.kind}, yours'} {fault}"), None


def _remembers(bench, candidate, outcomes):
    """A refusal, as of `_refusal`, if a candidate that was right everywhere keeps something between calls: it changes
    an answer it gave before, or repeats an answer when it is called with other numbers of the same shape."""
    exercise = bench.exercise
    case = next((c for c, o in outcomes.items() if any(k.size and np.ptp(k) > 0 for k in o.kept)), None)
    if case is None:
        return None
    again = _again(exercise, case, bench.seed)
    outcome = run(candidate, exercise, again, bench.seed)
    fault, _ = bench.fault(again, outcome)
    same = _identical(found(outcome.value, np.ndarray), outcomes[case].kept)
    if same and (fault or exercise.returns == "samples"):
        fault = "repeats the answer of an earlier call: keep nothing between calls"
    if fault:
        return closed(f"{exercise.function}: on {again.kind}, yours {fault}"), None
    for earlier, before in outcomes.items():
        if not _identical(found(before.value, np.ndarray), before.kept):
            fault = "changes its answer when it is called again: return a new array each time"
            return closed(f"{exercise.function}: on {earlier.kind}, yours {fault}"), None
    return None


def _identical(ones, others):
    """Whether two rows of arrays are the same to the bit."""
    return len(ones) == len(others) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(ones, others, strict=True)
    )


def _again(exercise, case, seed):
    """The case once more, with arrays of the same shapes and other numbers."""

    def changed(array):
        # Turned round, which changes what a norm gives, and halved, which changes what a histogram gives.
        return np.flip(array) / array.dtype.type(2) if array.dtype.kind == "f" else array

    def draw(_):
        args, kwargs = exercise.draw(case, seed)
        if exercise.returns == "samples":
            return (args[0], cases.generator(exercise.name, f"{case.name} again", seed), *args[2:]), kwargs
        for i, arg in enumerate(args):
            if any(array.dtype.kind == "f" for array in found(arg, np.ndarray)):
                return (*args[:i], walk(arg, changed, np.ndarray), *args[i + 1 :]), kwargs
        return args, kwargs

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
            outcomes[case] = Outcome(stopped="late") if late else run(candidate, bench.exercise, case, bench.seed)
    return outcomes


def _bad_call(candidate, exercise):
    """What keeps the candidate from being called as the exercise says, or None."""
    if not callable(candidate):
        return f"{exercise.function}: check needs the function itself, and was given {named_type(candidate)}."
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
            return f"{exercise.function}: the signature is to be {exercise.signature}; yours takes {signature}."
    return None


def check(candidate, exercise=None, part=None):
    """Hold `candidate`, a function, against PyTorch on the cases of `exercise` (its own __name__ when None).

    part: "values", "numerics" or "edges"; all three, in this order, when None. Prints one line and returns None when
    the candidate is right. Errors: CheckFailed, with one sentence, when it is not or cannot be checked.
    """
    name = exercise if exercise is not None else getattr(candidate, "__name__", None)
    try:
        wanted = exercises.find(name)
        bench = _bench(wanted)
    except ValueError as error:
        raise CheckFailed(closed(str(error))) from None
    if wanted.torch_exercise and exercises.torch_or_none() is None:
        raise CheckFailed(f"{wanted.function}: this is an exercise in PyTorch, which is not installed here.")
    if why_not := wanted.why_not():
        raise CheckFailed(closed(f"{wanted.function}: {why_not}"))
    if part is not None and part not in cases.PARTS:
        raise CheckFailed(f"there is no part {part!r}: choose among {', '.join(cases.PARTS)}.")
    with np.errstate(all="ignore"):  # whatever the caller has set: wrong answers overflow
        refusal = ((bad := _bad_call(candidate, wanted)) and (bad, None)) or _refusal(bench, candidate, part)
    if refusal:
        raise CheckFailed(*refusal)
    count = sum(part in (None, case.part) for case in wanted.cases)
    print(f"{wanted.function}{f', {part}' if part else ''}: right on {count} of {count} kinds of input.")


# ---- the command line ------------------------------------------------------------------------------------------------


def _function(path, name):
    """The function `name` of the Python file at `path`. Errors: Unloadable."""
    module, problem = load(path)
    if not hasattr(module, name):
        raise Unloadable(problem or f"has no function {name}")
    return getattr(module, name)


def _judge(name, path):
    """The verdict on one file: (accepted, checkable, sentence, slug)."""
    function = exercises.find(name).function
    try:
        candidate = _function(path, function)
    except Unloadable as error:
        return False, False, f"{function}: the file {error}.", None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            check(candidate, name)
    except CheckFailed as failed:
        return False, True, str(failed), failed.mistake
    return True, True, None, None


def _judge_apart(name, path):
    """_judge in a process of its own, with limits of time and memory."""
    try:
        return tuple(apart.answer(apart.start(_judge, name, path)))
    except Unloadable as error:
        return False, False, f"{name}: the file {error}.", None


def _torch_for_children():
    """The torch module, fit for processes that are forked, or None."""
    torch = exercises.torch_or_none()
    if torch is not None:
        torch.set_num_threads(1)  # a forked child that used the parent's threads would hang
    return torch


def _prepare(bench, mistakes_too):
    """Computes here what the processes to come then share."""
    if _torch_for_children() is not None:
        with np.errstate(all="ignore"):
            bench.prepare(mistakes_too)


def _import_for_children(path):
    """Imports compilers that the file at `path` names: it takes each process a second, unless it is forked from one
    that has them."""
    text = path.read_text(encoding="utf-8", errors="ignore") if path.is_file() else ""
    for name in ("numba", "triton"):
        if f"import {name}" in text:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def _main_all(path, options):
    """--all: every exercise of one file; returns the exit status."""
    try:
        cases.secret()
    except ValueError as error:
        print(closed(str(error)), file=sys.stderr)
        return 2
    _torch_for_children()  # before any is made: to import it takes seconds, and the file may
    _import_for_children(path)
    return check_all.main(
        path, _judge, lambda exercise: _prepare(_bench(exercise), mistakes_too=False), options.json, options.bench
    )


def main(argv=None):
    """The command line; returns the exit status: 0 all accepted, 1 some refused, 2 some not checkable. With --all what
    is not written counts as refused."""
    parser = argparse.ArgumentParser(
        prog="python -m normlab.check", description="Check solutions of an exercise against PyTorch."
    )
    parser.add_argument("exercise", nargs="?", help="name of the exercise, such as softmax")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="Python file with a function of that name")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--list", action="store_true", help="name the exercises, one a line")
    parser.add_argument("--all", action="store_true", help="check every exercise of one FILE, and print a table")
    parser.add_argument("--bench", action="store_true", help="with --all: time what is accepted beside PyTorch")
    parser.add_argument("--list-variants", action="store_true", help="name the variants of exercises, each with a word")
    options = parser.parse_intermixed_args(argv)  # --json may stand anywhere
    if options.list:
        print("\n".join(exercises.EXERCISES))
        return 0
    if options.bench and not options.all:
        parser.error("--bench goes with --all")
    if options.all:
        if options.exercise is None or options.files:
            parser.error("--all takes one file and nothing else")
        return _main_all(Path(options.exercise), options)
    if options.list_variants:
        from normlab import variants  # few ask for them

        print("\n".join(f"{variant.name}  {variant.statement}" for variant in variants.every_variant()))
        return 0
    if options.exercise is None:
        parser.error("name an exercise and a file, or --list")
    try:
        exercise = exercises.find(options.exercise)
        bench = _bench(exercise)
    except ValueError as error:
        print(closed(str(error)), file=sys.stderr)
        return 2
    if not options.files:
        parser.error(f"name a file that defines {exercise.signature}")
    _prepare(bench, mistakes_too=len(options.files) > 1)
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
    from normlab.check import main as run_main

    try:
        sys.exit(run_main())
    except BrokenPipeError:  # whoever read the verdicts has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
