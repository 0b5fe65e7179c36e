"""A learner's process: runs cells and calls what they define, as it is told over a socket.

It holds nothing worth reading: cells, inputs, and how functions are called. What it answers is taken for plain data.
"""

import contextlib
import functools
import gc
import importlib
import inspect
import io
import signal
import sys
import types

import numpy as np

from normlab import guard
from normlab.drive import Misfit, given, wire

PRINTED_CHARACTERS = 20_000  # of one cell, kept
PICTURE_CHARACTERS = 1_000_000  # of one picture, in base64
OUTPUTS = 20  # of one cell, kept
TEXT_CHARACTERS = 2_000  # of one error or one value shown
TEXT_SECONDS = 1.0

# The alarms of the guard must not ring while half a frame has been read.
_ALARM = {signal.SIGALRM, signal.SIGPROF}


def short(text, length=300):
    text = text if isinstance(text, str) else "?"
    return text if len(text) <= length else text[:length] + " ..."


class _Printed(io.TextIOBase):
    """Keeps what a cell prints, up to a limit."""

    def __init__(self):
        self.text, self.left = [], PRINTED_CHARACTERS

    def write(self, text):
        if self.left > 0:
            kept = str(text)[: self.left]
            self.left -= len(kept)
            self.text.append(kept if self.left > 0 else kept + " ... (the rest is left out)\n")
        return len(text)

    def isatty(self):
        return False


def _shown(data):
    """What of a display's data is kept: text and pictures, and nothing that a browser would run."""
    kept = {}
    if isinstance(data, dict):
        if isinstance(text := data.get("text/plain"), str):
            kept["text/plain"] = short(text, TEXT_CHARACTERS)
        picture = data.get("image/png")
        if isinstance(picture, str) and len(picture) <= PICTURE_CHARACTERS:
            kept["image/png"] = picture
    return kept


@functools.cache
def prepared():
    """The shell in which cells run. Who forks asks for it before: it takes longer to start than to run most cells."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    settings = Config({"HistoryManager": {"enabled": False}})  # a file, and a thread, that nobody needs
    shell = InteractiveShell.instance(config=settings, colors="NoColor", autoawait=True)
    shell.run_cell("pass", store_history=False)
    return shell


class Learner:
    """Answers the messages of one notebook's grading."""

    def __init__(self, connection):
        self.channel = wire.Channel(connection)
        self.shell = None

    def serve(self):
        while True:
            message = self.receive()
            if "reply" in message:  # of a function whose caller was stopped meanwhile
                continue
            forget_absent()
            handler = {"cell": self.cell, "look": self.look, "call": self.call}[message.pop("do")]
            answer = handler(**message)
            answer["absent"] = used_absent()
            self.send(answer, stand_in={"lost": True})

    def send(self, value, stand_in, functions=None):
        signal.pthread_sigmask(signal.SIG_BLOCK, _ALARM)
        try:
            try:
                self.channel.send(value, functions)
            except OverflowError:
                self.channel.send(stand_in)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALARM)

    def receive(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, _ALARM)
        try:
            return self.channel.receive(self.function)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALARM)

    # -- cells ---------------------------------------------------------------------------------------------------------

    def cell(self, source):
        """Runs a cell; {"outputs": [...], "error": None or {"ename", "evalue", "line"}}."""
        shell = self.shell = self.shell or prepared()
        outputs, printed = [], {"stdout": _Printed(), "stderr": _Printed()}

        def publish(data, metadata=None, **_):
            if len(outputs) < OUTPUTS and (kept := _shown(data)):
                outputs.append({"output_type": "display_data", "data": kept, "metadata": {}})

        def show(value):
            if value is None or len(outputs) >= OUTPUTS:
                return
            with contextlib.suppress(Exception):
                data, _ = shell.display_formatter.format(value)
                if kept := _shown(data):
                    outputs.append({"output_type": "execute_result", "data": kept, "metadata": {}})
            shell.user_ns["_"] = value

        shell._showtraceback = lambda *_: None
        shell.display_pub.publish = publish
        before = sys.displayhook
        with contextlib.redirect_stdout(printed["stdout"]), contextlib.redirect_stderr(printed["stderr"]):
            try:
                shell.display_trap.hook = show
                done = shell.run_cell(source, store_history=False)
            finally:
                sys.displayhook = before
        for name, sink in printed.items():
            if sink.text:
                outputs.insert(0, {"output_type": "stream", "name": name, "text": "".join(sink.text)})
        error = done.error_before_exec or done.error_in_exec
        if error is None:
            return {"outputs": outputs, "error": None}
        return {"outputs": outputs, "error": _described(error)}

    # -- names ---------------------------------------------------------------------------------------------------------

    def look(self, name):
        """What a name stands for: {"missing": True}, {"value": plain data}, or {"callable": ..., "signature": ...}."""
        names = self.shell.user_ns if self.shell else {}
        if name not in names:
            return {"missing": True}
        value = names[name]
        if not callable(value):
            return {"value": value}
        answer = {"callable": True, "type": _type(value), "signature": None}
        with contextlib.suppress(Exception, guard.Stop), guard._time_limit(TEXT_SECONDS):
            answer["signature"] = [
                [p.name, int(p.kind), p.default is not p.empty and short(repr(p.default), 80)]
                for p in inspect.signature(value).parameters.values()
            ]
        return answer

    def call(self, name, drive, args, kwargs, rules):
        """Calls what a name stands for the way an exercise does; what guard.watch saw of it."""
        package, _, function = drive.partition(":")
        if package.split(".")[:2] != ["normlab", "drive"]:
            return {"stopped": "is called in an unknown way"}
        module = importlib.import_module(package)
        rules = guard.Rules(**rules)
        candidate = self.shell.user_ns.get(name) if self.shell else None
        hide_absent()
        gc.collect(0)
        outcome = guard.watch(candidate, getattr(module, function), args, kwargs, rules)
        return {
            "value": outcome.value,
            "error": None if outcome.error is None else _described(outcome.error),
            "stopped": outcome.stopped and short(outcome.stopped),
            "slug": outcome.slug,
            "mutated": bool(outcome.mutated),
            "idle": bool(outcome.idle),
        }

    def function(self, number):
        """Stands here for a function of the grader's."""

        def ask(*args, **kwargs):
            self.send({"ask": number, "args": args, "kwargs": kwargs}, stand_in={"ask": None, "args": (), "kwargs": {}})
            while True:
                answer = self.receive()
                if "reply" in answer:
                    break
            if answer.get("error"):
                raise getattr(
                    types.SimpleNamespace(TypeError=TypeError, ValueError=ValueError), answer["error"][0], RuntimeError
                )(answer["error"][1])
            for name, changed in answer.get("changed", {}).items():  # as if it had been called here
                given = args[name] if isinstance(name, int) else kwargs[name]
                np.copyto(given, changed, casting="unsafe")
            return answer["reply"]

        return given(ask)


def used_absent():
    """Whether code used a package that is not here (zygote.make_absent)."""
    absent = sys.modules.get("absent")
    return bool(absent and absent.used)


def forget_absent():
    if "absent" in sys.modules:
        sys.modules["absent"].used = False


def hide_absent():
    """Takes packages that are only named out of what is imported. The guard looks there for PyTorch, and its own look
    would count as a use: an answer in NumPy would be judged once more, beside PyTorch, for an import that it never
    uses. Code that does use one has it at hand, or imports it again."""
    kind = getattr(sys.modules.get("absent"), "kind", None)
    for name in [name for name, module in list(sys.modules.items()) if type(module) is kind]:
        del sys.modules[name]


def _type(value):
    kind = type(value)
    return [short(str(kind.__module__), 100), short(str(kind.__name__), 100)]


def _described(error):
    """An error as plain data: its name, those of the built-in types it derives from, its first line, whether it is a
    Misfit, and whether it is a Stop."""
    kind = type(error)
    builtin = [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"]
    text = ""
    # Its text is made by code of the learner's, which need not come to an end.
    with contextlib.suppress(Exception, guard.Stop), guard._time_limit(TEXT_SECONDS):
        text = short(str(error).strip().split("\n")[0], TEXT_CHARACTERS)
    line = None
    if isinstance(error, SyntaxError):
        line = error.lineno
        with contextlib.suppress(Exception):
            text = short(str(error.msg))
    return {
        "name": short(str(kind.__name__), 100),
        "module": short(str(kind.__module__), 100),
        "bases": builtin,
        "text": text,
        "line": line if isinstance(line, int) else None,
        "misfit": isinstance(error, Misfit),
    }


def main(connection):
    Learner(connection).serve()
