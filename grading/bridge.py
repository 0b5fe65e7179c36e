"""A learner's side of one notebook, as the grader sees it: cells that run elsewhere, functions that are called there.

Nothing of this process is at stake: what comes back is plain data, and whatever goes wrong over there is an answer.
"""

import ast
import builtins
import contextlib
import functools
import inspect
import re
import textwrap
import time
from dataclasses import dataclass

import numpy as np

from grading import plain
from grading.rebuild import names_stored
from grading.sandbox import Sandbox, TooMuch
from normlab import guard
from normlab.drive import Misfit, found, wire

CELL_SECONDS = 30.0
GRACE_SECONDS = 3.0  # beyond what the guard over there allows a call
NOTEBOOK_SECONDS = 300.0  # for all that is asked of one notebook's processes
RESTARTS = 25  # of one notebook's processes
ASKS = 200_000  # of functions of ours, in one call
ASKED_BYTES = 4 << 20  # of the arrays that one of them gets
PRELOADED = ("numba", "triton", "sklearn", "matplotlib")  # what a fork is worth having imported, if a cell names it

# PyTorch imports this for the first backward(), and it imports SymPy: seconds of every notebook, under the guard.
GRADIENTS = "torch.fx.experimental.symbolic_shapes"

DEAD = "ends its own process (exit, a crash, or too much memory)"
FULL = "takes more memory than there is"
FOREIGN = "answers what no function returns"
PLAIN = "where more is looked at than numbers, there are NumPy, PyTorch, Numba, Triton and mathematics"


# ---- what a process may have -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """What a process has: PyTorch or not; which of its functions are closed; whether it differentiates; and whether it
    has plain statements alone (plain.py), because more is looked at there than numbers."""

    kind: str = "numpy"
    closed: tuple | None = None
    autograd: bool = True
    plain: bool = False


# How functions are used whose memory, compiler or class is looked at.
MEASURING = ("normlab.drive.kernels", "normlab.drive.running", "normlab.drive.streams")


def policy(exercise, with_torch=False):
    """The Policy of an exercise. An exercise in NumPy is judged without PyTorch, unless the code asks for it; then it
    has what PyTorch is made of, and none of what the exercise is about."""
    plain = exercise.drive.__module__ in MEASURING
    if not (exercise.torch_exercise or with_torch):
        return Policy(plain=plain)
    return Policy("torch", guard.rules(exercise).forbidden, exercise.torch_exercise, plain)


class Sandboxes:
    """A warm Sandbox for each Policy that was asked for. One notebook at a time uses them."""

    def __init__(self):
        self.warm = {}

    def of(self, policy):
        if policy not in self.warm:
            self.warm[policy] = Sandbox(policy.kind, policy.closed, policy.autograd)
        return self.warm[policy]

    def check(self):
        """Errors: Unsafe where no sandbox can be made."""
        self.of(Policy()).start().close()

    def close(self):
        for sandbox in self.warm.values():
            sandbox.close()
        self.warm.clear()


# ---- what comes back -------------------------------------------------------------------------------------------------


def _error(described):
    """An exception like the one over there: its name, its text, and the built-in types that it is an instance of."""
    text = str(described.get("text", ""))[:2000]
    if described.get("misfit") is True:
        return Misfit(text[:300])
    names = described.get("bases")
    kinds = (
        [getattr(builtins, name, None) for name in names if isinstance(name, str)] if isinstance(names, list) else []
    )
    kinds = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)]
    base = kinds[0] if kinds else Exception
    name = str(described.get("name", "Exception"))[:100]
    if base.__name__ == name:
        with contextlib.suppress(TypeError, ValueError, SyntaxError, RecursionError, MemoryError):
            # A KeyError's text is what was looked for, as Python writes it.
            return base(ast.literal_eval(text) if base is KeyError else text)
    return type(name if name.isidentifier() else "Exception", (base,), {"__str__": lambda self: text})()


def _sentence(value):
    return str(value)[:300] if isinstance(value, str) and value else None


def _outcome(answer):
    slug = answer.get("slug")
    described = answer.get("error")
    return guard.Outcome(
        value=answer.get("value"),
        error=_error(described) if isinstance(described, dict) else None,
        stopped=_sentence(answer.get("stopped")) or (FOREIGN if answer.get("lost") else None),
        slug=slug if slug == guard.CALLS_THE_ANSWER else None,
        mutated=answer.get("mutated") is True,
        idle=answer.get("idle") is True,
    )


# ---- a notebook's processes ------------------------------------------------------------------------------------------


class Ended(Exception):
    """A process is of no use any more; says why, as a verb phrase."""


class Process:
    """One process of a notebook, under one Policy."""

    def __init__(self, sandbox, policy, preload):
        absent = ("torch", "triton", "sklearn") if policy.kind == "numpy" else ("sklearn",) if policy.closed else ()
        if policy.kind == "torch" and policy.autograd:
            preload = [*preload, GRADIENTS]
        self.policy, self.ran = policy, 0
        self.absent = self.wants_torch = False  # whether the last message, and any cell, used a package that is absent
        self.channel = sandbox.start(preload=preload, absent=absent)

    def ask(self, message, seconds):
        """The answer to a message. Meanwhile, functions of ours are called for it. Errors: Ended."""
        functions, deadline, asks = [], time.monotonic() + seconds, 0
        try:
            self.channel.send(message, functions, deadline)
            while True:
                answer = self.channel.receive(deadline=deadline)
                if not isinstance(answer, dict):
                    raise wire.Malformed("an answer is no dictionary")
                if "ask" not in answer:
                    self.absent = answer.get("absent") is True
                    return answer
                asks += 1
                if asks > ASKS:
                    raise wire.Late
                self.channel.send(_called(functions, answer), deadline=deadline)
        except OverflowError:
            raise Ended("is asked for more than fits") from None
        except wire.Late:
            raise Ended(f"does not return within {seconds - GRACE_SECONDS:g} seconds") from None
        except wire.Malformed:
            raise Ended(FOREIGN) from None
        except TooMuch:
            raise Ended(FULL) from None
        except wire.Gone:
            raise Ended(DEAD) from None

    def end(self):
        self.channel.close()


def _called(functions, answer):
    """What one of our functions returns to the learner's code that calls it."""
    number, args, kwargs = answer.get("ask"), answer.get("args"), answer.get("kwargs")
    if type(number) is not int or not 0 <= number < len(functions):
        return {"reply": None, "error": ["TypeError", "there is no such function"]}
    if not isinstance(args, tuple) or not isinstance(kwargs, dict) or not all(isinstance(k, str) for k in kwargs):
        return {"reply": None, "error": ["TypeError", "a function is called with positions and names"]}
    given = {**dict(enumerate(args)), **kwargs}
    if sum(value.nbytes for value in found((args, kwargs), np.ndarray)) > ASKED_BYTES:
        return {"reply": None, "error": ["ValueError", "that is more than this function is to be asked"]}
    before = {name: value.copy() for name, value in given.items() if isinstance(value, np.ndarray)}
    try:
        with np.errstate(all="ignore"):
            reply = functions[number](*args, **kwargs)
        # A function that changes what it is given, as some that are to be found out do, has changed it over there too.
        changed = {name: given[name] for name, old in before.items() if old.tobytes() != given[name].tobytes()}
        return {"reply": reply, "changed": changed}
    except Exception as error:  # what their arguments make of it is theirs to handle
        kind = next(k for k in (TypeError, ValueError, Exception) if isinstance(error, k)).__name__
        return {"reply": None, "error": [kind, str(error)[:300]]}


class Learner:
    """The cells of one notebook, run in processes of their own: one for what the cells put out, and one for each
    Policy under which functions are called. So no cell can put out what a function was called with.

    `cells`: sources in their order; `own`: which of them the learner wrote. An instructor's cell runs there as well if
    a cell of the learner's uses what it defines.
    """

    def __init__(self, sandboxes, cells, own, main):
        self.sandboxes, self.cells, self.own, self.main = sandboxes, cells, own, main
        self.processes, self.skipped, self.restarts = {}, set(), 0
        self.with_torch = set()  # exercises in NumPy whose code asked for PyTorch
        self.used = 0.0
        self.shown = {}  # what the learner's cells put out, by their numbers
        self.preload = [name for name in PRELOADED if any(name in cell for cell in cells)]
        self.why_not = []  # of each cell {name: why the statement that defines it is not plain, or None}
        self.needed = [own[i] or _needed(cells, own, i) for i in range(len(cells))]

    @functools.cached_property
    def plain(self):
        """The cells with their plain statements alone."""
        modules, kept = {}, []
        for source, own in zip(self.cells, self.own, strict=True):
            self.why_not.append({})
            if own:
                source, self.why_not[-1] = plain.plain(source, modules)
            else:
                modules |= plain.imported(source)
            kept.append(source)
        return kept

    # -- processes -----------------------------------------------------------------------------------------------------

    def process(self, policy, upto, shows=False):
        """The process of a policy, with the cells before number `upto` run. Errors: Ended."""
        while True:
            if policy not in self.processes:
                self.restarts += 1
                if self.restarts > RESTARTS:
                    raise Ended("ended its process too often")
                try:
                    self.processes[policy] = Process(self.sandboxes.of(policy), policy, self.preload)
                except wire.Gone:
                    self.sandboxes.of(policy).close()
                    continue
            process = self.processes[policy]
            while process.ran < upto:
                number = process.ran
                process.ran += 1
                if not self.needed[number] or (policy, number) in self.skipped:
                    continue  # as before, when it ended the process
                try:
                    source = (self.plain if policy.plain else self.cells)[number]
                    answer = self.ask(policy, process, {"do": "cell", "source": source}, CELL_SECONDS)
                except Ended as ended:
                    self.skipped.add((policy, number))
                    if shows:
                        self.shown[number] = [output_of_error("Stopped", f"This cell {ended}.")]
                    break
                if self.own[number]:
                    process.wants_torch |= process.absent
                if shows and number not in self.shown:
                    self.shown[number] = _outputs(answer)
            else:
                return process

    def ask(self, policy, process, message, seconds):
        left = NOTEBOOK_SECONDS - self.used
        if left <= 0:
            raise Ended("is not reached: all cells together take too long")
        began = time.monotonic()
        try:
            return process.ask(message, min(seconds, left) + GRACE_SECONDS)
        except Ended:
            process.end()
            self.processes.pop(policy, None)
            raise
        finally:
            self.used += time.monotonic() - began

    def end(self):
        for process in self.processes.values():
            process.end()
        self.processes.clear()

    # -- what the grader asks ------------------------------------------------------------------------------------------

    def show(self, names):
        """Runs all cells for what they put out; {(number, name): value} of the data that the `names` {number: [name]}
        stand for before the cell of that number."""
        found, count = {}, len(self.cells)
        try:
            for number in sorted(names):
                process = self.process(self.main, number, shows=True)
                for name in names[number]:
                    answer = self.ask(self.main, process, {"do": "look", "name": name}, CELL_SECONDS)
                    if "value" in answer:
                        found[number, name] = answer["value"]
                    elif "callable" in answer:
                        found[number, name] = _named(answer.get("type"))
            self.process(self.main, count, shows=True)
        except Ended as ended:
            for number in range(count):
                if self.own[number]:
                    self.shown.setdefault(number, [output_of_error("Stopped", f"This cell {ended}.")])
        finally:
            self.end()
        return found

    def look(self, name, upto, exercise):
        """What a name stands for after the cells before number `upto`: data, a Remote, or Missing."""
        wanted = self._policy(exercise)
        try:
            process = self.process(wanted, upto)
            answer = self.ask(wanted, process, {"do": "look", "name": name}, CELL_SECONDS)
        except Ended as ended:
            return Remote(self, name, None, upto, str(ended))
        if answer.get("missing") and wanted.kind == "numpy" and process.wants_torch:
            self.with_torch.add(exercise.name)
            return self.look(name, upto, exercise)
        if wanted.plain and (why := self._left_out(name, upto)):
            return Remote(self, name, None, upto, f"{why}: {PLAIN}")
        if answer.get("missing"):
            return Missing
        if answer.get("callable"):
            return Remote(self, name, answer.get("signature"), upto)
        return answer.get("value")

    def _left_out(self, name, upto):
        """Why the statement before cell number `upto` that defines a name last is not plain; None if it is."""
        for why_not in reversed(self.why_not[:upto]):
            if name in why_not:
                return why_not[name]
        return None

    def _policy(self, exercise):
        return policy(exercise, exercise.name in self.with_torch)

    def outcome(self, name, exercise, args, kwargs, upto):
        """guard.Outcome of calling a name as the exercise does."""
        rules = guard.rules(exercise)
        message = {
            "do": "call",
            "name": name,
            "drive": f"{exercise.drive.__module__}:{exercise.drive.__name__}",
            "args": args,
            "kwargs": kwargs,
            "rules": {
                "forbidden": list(rules.forbidden),
                "autograd": rules.autograd,
                "means": rules.means,
                "seconds": rules.seconds,
            },
        }
        wanted = self._policy(exercise)
        try:
            process = self.process(wanted, upto)
            answer = self.ask(wanted, process, message, guard.WAITING * rules.seconds)
        except Ended as ended:
            return guard.Outcome(stopped=str(ended))
        if wanted.kind == "numpy" and process.absent:
            self.with_torch.add(exercise.name)
            return self.outcome(name, exercise, args, kwargs, upto)
        return _outcome(answer)


def _named(kind):
    """Stands for a value of which only the type's module and name are known."""
    module, name = kind if isinstance(kind, list) and len(kind) == 2 else ("builtins", "object")
    return type(str(name)[:100].replace("\0", ""), (wire.Other,), {"__module__": str(module)[:100]})()


Missing = object()  # what a name stands for that nothing was given


class Remote(guard.Elsewhere):
    """Stands for a learner's function in the instructor's cells."""

    def __init__(self, learner, name, signature, upto, ended=None):
        self.learner, self.name, self.upto, self.ended = learner, name, upto, ended
        self.__name__ = self.__qualname__ = name
        if (signature := _signature(signature)) is not None:
            self.__signature__ = signature

    def outcome(self, exercise, args, kwargs):
        if self.ended:
            return guard.Outcome(stopped=self.ended)
        return self.learner.outcome(self.name, exercise, args, kwargs, self.upto)

    def __call__(self, *args, **kwargs):
        raise TypeError("a function of the learner's is checked, not called")


class _Default:
    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


def _signature(parts):
    if not isinstance(parts, list):
        return None
    try:
        return inspect.Signature(
            [
                inspect.Parameter(
                    str(name),
                    inspect._ParameterKind(kind),
                    default=_Default(str(d)[:80]) if d else inspect.Parameter.empty,
                )
                for name, kind, d in parts[:50]
            ]
        )
    except (ValueError, TypeError):
        return None


# ---- cells -----------------------------------------------------------------------------------------------------------


def _needed(cells, own, number):
    """Whether a cell of the learner's may use what this cell of the instructor's defines."""
    names = names_stored(cells[number])
    return any(own[i] and any(name in cells[i] for name in names) for i in range(number + 1, len(cells)))


_PICTURE = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/\n]*={0,2}")  # a PNG in base64, and nothing that ends an attribute


def output_of_error(name, text):
    # The page with the feedback does not wrap lines.
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, 100) or [""]]
    return {"output_type": "error", "ename": name, "evalue": text, "traceback": lines or [text]}


def _outputs(answer):
    """What a cell put out, as nbformat has it; only what we know."""
    kept = []
    outputs = answer.get("outputs")
    for output in outputs[:50] if isinstance(outputs, list) else []:
        if not isinstance(output, dict):
            continue
        if output.get("output_type") == "stream" and output.get("name") in ("stdout", "stderr"):
            text = str(output.get("text", ""))[:50_000]
            kept.append({"output_type": "stream", "name": output["name"], "text": text})
        elif output.get("output_type") in ("display_data", "execute_result") and isinstance(output.get("data"), dict):
            data = {}
            if isinstance(output["data"].get("text/plain"), str):
                data["text/plain"] = output["data"]["text/plain"][:50_000]
            if isinstance(picture := output["data"].get("image/png"), str) and _PICTURE.fullmatch(picture.strip()):
                data["image/png"] = picture.strip()
            if data:
                kept.append({"output_type": "display_data", "data": data, "metadata": {}})
    error = answer.get("error")
    if isinstance(error, dict):
        line = f" (line {error['line']})" if isinstance(error.get("line"), int) else ""
        text = str(error.get("text", ""))[:2000]
        name = str(error.get("name", "Error"))[:100]
        kept.append(output_of_error(name, f"{text}{line}") | {"traceback": [f"{name}: {text}{line}"]})
    return kept
