"""What runs in the page, beside a learner's text: a run of it, and its check by normlab.check.

`tell` is a function that takes one dict: {"print": text} while something is printed, {"case": sentence, "seconds": s}
before each call of a learner's function, where `sentence` is what to say should it never return. What a function here
returns is a dict as well. It needs nothing of a browser, so tests run it anywhere.
"""

import ast
import builtins
import contextlib
import io
import linecache
import sys
import time
import traceback
import types

from normlab import check as checks
from normlab import exercises, golden, guard
from normlab.verdict import closed, first_line

FILE = "<your code>"
# What the first cell of an exercise notebook imports.
SETUP = "import numpy as np\nfrom normlab.check import check\nfrom normlab.predict import compare\n"
RUN_SECONDS = 30.0
CHECK_SECONDS = 300.0  # on a slow phone it takes its time to find which mistake an answer looks like
PRINTED_CHARACTERS = 20_000  # that a page shows of one run

recorded = golden.Recorded()


def start():
    """Make this process a place for checks in a page: no PyTorch, and a clock without signals."""
    sys.modules.update(torch=None, numba=None, triton=None)
    exercises.recorded = recorded
    guard.other_clock = clock


def know(name, path):
    """Take PyTorch's truths of the exercise from `path`."""
    recorded.add(exercises.find(name), path)


# ---- time ------------------------------------------------------------------------------------------------------------

_watched = []  # the learner's code objects
MONITOR = sys.monitoring.DEBUGGER_ID


@contextlib.contextmanager
def clock(seconds, sentence=None):
    """Raises guard.Stop in the learner's code when time is up: it looks at the clock where that code jumps back, as
    every loop does. What never comes back from a call of a library is ended with the worker, by the page."""
    end, jumps = time.monotonic() + seconds, 0

    def look(code, place, target):
        nonlocal jumps
        jumps += 1
        if jumps % 16 == 0 and time.monotonic() > end:
            raise guard.Stop(sentence or guard.too_late(seconds))

    events = sys.monitoring.events.JUMP
    sys.monitoring.use_tool_id(MONITOR, "normlab")
    sys.monitoring.register_callback(MONITOR, events, look)
    for code in _watched:
        sys.monitoring.set_local_events(MONITOR, code, events)
    try:
        yield
    finally:
        for code in _watched:
            sys.monitoring.set_local_events(MONITOR, code, 0)
        sys.monitoring.register_callback(MONITOR, events, None)
        sys.monitoring.free_tool_id(MONITOR)


def _all_code(code):
    """The code object and those of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _all_code(constant)


# ---- running a text --------------------------------------------------------------------------------------------------


class _Printed(io.TextIOBase):
    """Passes on what is printed, up to a limit; what is beyond is dropped, and a line says so."""

    def __init__(self, tell):
        self.tell, self.left = tell, PRINTED_CHARACTERS

    def write(self, text):
        if self.left > 0:
            self.tell({"print": text[: self.left]})
        if 0 <= self.left < len(text):
            self.tell({"print": f"\n… more than {PRINTED_CHARACTERS:,} characters: the rest is not shown.\n"})
        self.left -= len(text)
        return len(text)


def _no_input(*_):
    raise RuntimeError("there is no keyboard to read from: write the value into the code")


def _execute(text, printed, seconds):
    """(namespace, the last value, error or None) of a learner's text, run as a module of its own."""
    module = types.ModuleType("__main__")
    exec(SETUP, module.__dict__)
    linecache.cache[FILE] = len(text), None, text.splitlines(keepends=True), FILE
    value, before = None, builtins.input
    _watched.clear()
    guard.Stop.first = None
    builtins.input = _no_input
    try:
        tree = ast.parse(text, FILE)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        body = compile(tree, FILE, "exec")
        end = compile(ast.Expression(last.value), FILE, "eval") if last else None
        _watched.extend(_all_code(body))
        _watched.extend(_all_code(end) if end else ())
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            clock(seconds, f"It ran for {seconds:g} seconds and was stopped: look for a loop that never ends."),
        ):
            exec(body, module.__dict__)
            if end:
                value = eval(end, module.__dict__)
                if value is not None:
                    printed.write(f"{value!r}\n")
    except BaseException as error:  # whatever a learner's code raises is to be shown
        return module.__dict__, value, guard.Stop.first or error
    finally:
        builtins.input = before
    return module.__dict__, value, guard.Stop.first


def _told(error):
    """An error as Python shows it, without the lines that are ours."""
    if isinstance(error, (guard.Stop, checks.CheckFailed)):
        return str(error)
    if isinstance(error, SystemExit):
        return "exit() ended the run."
    told = traceback.TracebackException.from_exception(error)
    mine = [frame for frame in told.stack if frame.filename == FILE]
    told.stack = traceback.StackSummary.from_list(mine)
    told.__context__ = told.__cause__ = None
    return "".join(told.format()).strip()


def run(text, tell):
    """Run the text: {"error": what was raised, as text, or None}. What it prints, and its last value, is told."""
    _, _, error = _execute(text, _Printed(tell), RUN_SECONDS)
    return {"error": _told(error) if error else None}


# ---- checking a text -------------------------------------------------------------------------------------------------


def check(text, name, parts, tell):
    """Check the function of the exercise `name` in the text, part by part, as the cells of its notebook do:
    {"parts": [{"part", "accepted", "sentence", "mistake"}]}, or {"error": text} where the text itself does not run."""
    exercise = exercises.find(name)
    tell({"case": "The code did not end: look for a loop that never ends.", "seconds": RUN_SECONDS})
    namespace, _, error = _execute(text, _Printed(lambda message: None), RUN_SECONDS)
    if error:
        return {"error": _told(error)}
    if exercise.function not in namespace:
        return {"error": f"There is no function {exercise.function} in this text: the check looks for that name."}

    def announced(candidate, exercise, case, seed, watched=True):
        late = closed(f"{exercise.function}: on {case.kind}, yours {guard.too_late(guard.CALL_SECONDS)}")
        tell({"case": late, "seconds": guard.CALL_SECONDS})
        outcome = guard.run(candidate, exercise, case, seed, watched)
        tell({"case": "The check itself has not ended.", "seconds": CHECK_SECONDS})
        return outcome

    checks.run = announced
    try:
        verdicts = []
        for part in parts:
            tell({"part": part})
            verdicts.append({"part": part, **_verdict(namespace[exercise.function], name, part)})
            tell({"verdict": verdicts[-1]})
        return {"parts": verdicts}
    finally:
        checks.run = guard.run


def _verdict(candidate, name, part):
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            checks.check(candidate, name, part=part)
    except checks.CheckFailed as failed:
        return {"accepted": False, "sentence": str(failed), "mistake": failed.mistake}
    except MemoryError as error:
        return {"accepted": False, "sentence": f"{name}: the memory is used up ({first_line(error)}).", "mistake": None}
    return {"accepted": True, "sentence": said.getvalue().strip(), "mistake": None}
