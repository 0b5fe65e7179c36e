"""python -m normlab.check --all my_normlab.py: every exercise of one file, as a table or as JSON.

Each exercise is checked in a process of its own, some at a time. What hangs, or ends its process, costs its own row.
"""

import contextlib
import json
import os
import sys
import textwrap

from normlab import apart
from normlab.exercises import EXERCISES, torch_or_none
from normlab.learner import Unloadable, load
from normlab.verdict import closed

WORDS = {"accepted": "accepted", "refused": "refused", "missing": "not written", "unchecked": "not checked"}
STYLES = {"accepted": "green", "refused": "red", "missing": "dim", "unchecked": "yellow"}
WIDEST = 100  # columns: longer lines are hard to read


# ---- verdicts --------------------------------------------------------------------------------------------------------


def _look(path):
    """What the file at `path` has: (why it cannot be used or None, what it raised or None, names of exercises in it).
    It imports the file: it is for a process of its own."""
    try:
        module, problem = load(path)
    except Unloadable as error:
        return str(error), None, []
    return None, problem, [name for name in EXERCISES if hasattr(module, name)]


def look(path):
    """_look, in a process of its own."""
    try:
        return apart.answer(apart.start(_look, path))
    except Unloadable as error:
        return str(error), None, []


def _state(name, accepted, checkable, sentence, mistake):
    if accepted or not checkable:
        return "accepted" if accepted else "unchecked", sentence, mistake
    return "missing" if sentence.startswith(f"{name} is not written yet") else "refused", sentence, mistake


def _without_a_process(name, found):
    """The verdict on what is not there to be run, or None."""
    unusable, problem, names = found
    if unusable:
        return "unchecked", f"{name}: the file {closed(unusable)}", None
    if name not in names:
        if problem:
            return "unchecked", f"{name}: the file {closed(problem)}", None
        return "missing", f"{name} is not written yet: the file does not define it.", None
    if EXERCISES[name].torch_exercise and torch_or_none() is None:
        return "unchecked", f"{name}: this is an exercise in PyTorch, which is not installed here.", None
    if why_not := EXERCISES[name].why_not():
        return "unchecked", closed(f"{name}: {why_not}"), None
    return None


def verdicts(path, found, judge, prepare, workers=None):
    """Yields (name, (state, sentence or None, slug or None)) of every exercise, as they come.

    found: what `look` said. judge(name, path): (accepted, checkable, sentence, slug), in a process of its own.
    prepare(exercise): what is to be done before that process is made. workers: how many at a time, by default one a
    core.
    """
    waiting, running = list(EXERCISES), {}
    workers = workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count()))
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                name = waiting.pop(0)
                if known := _without_a_process(name, found):
                    yield name, known
                else:
                    prepare(EXERCISES[name])
                    running[name] = apart.start(judge, name, path)
            done = apart.ready(running.values()) if running else []
            for name in [name for name, task in running.items() if any(task is other for other in done)]:
                try:
                    verdict = apart.answer(running.pop(name))
                except Unloadable as error:
                    verdict = False, False, f"{name}: the file {error}.", None
                yield name, _state(name, *verdict)
    finally:
        for task in running.values():
            apart.end(task)


def total(states):
    """What all verdicts come to, in one line. `states`: {exercise: state}."""
    core = [name for name in states if EXERCISES[name].core]
    passed = [name for name in states if states[name] == "accepted"]
    line = f"passed {len(passed)} of {len(states)}, of the core {len({*core} & {*passed})} of {len(core)}"
    counts = {word: [*states.values()].count(state) for state, word in WORDS.items() if state != "accepted"}
    return "; ".join([line, *(f"{count} {word}" for word, count in counts.items() if count)])


def status(states):
    """The exit status: 2 if any could not be checked, else 1 if any is refused or not written, else 0."""
    return max({"accepted": 0, "refused": 1, "missing": 1, "unchecked": 2}[state] for state in states.values())


# ---- beside torch ----------------------------------------------------------------------------------------------------


def _beside_torch(path, states, step):
    """{exercise: what bench_yours.beside_torch said, or {"why_not": ...}}, one after the other: this is timed."""
    from normlab import bench_yours

    results = {}
    for name in bench_yours.TIMED:
        if states[name] != "accepted":
            results[name] = {"why_not": f"not timed: {WORDS[states[name]]}"}
        elif torch_or_none() is None:
            results[name] = {"why_not": "not timed: PyTorch is not installed here"}
        else:
            try:
                results[name] = apart.answer(apart.start(bench_yours.beside_torch, name, path))
            except Unloadable as error:
                results[name] = {"why_not": f"not timed: the file {error}"}
        step(name)
    return results


def _bench_rows(results):
    from normlab.bench_yours import in_words

    for name, result in results.items():
        if "sizes" in result:
            yield name, *(in_words(size["ratio"][1]) for size in result["sizes"])
        else:
            yield name, result["why_not"], ""


# ---- for people ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(count):
    """A function to call with the name of what is done: it moves a bar on stderr if that is a terminal."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield lambda name: None
        return
    # rich can be told to take any stream for a terminal (FORCE_COLOR), as notebooks do: a bar is for eyes alone.
    seen = sys.stderr.isatty()
    # Nothing refreshes it by itself: that would be a thread, and processes are forked meanwhile.
    with Progress(console=Console(stderr=True), auto_refresh=False, transient=True, disable=not seen) as progress:
        bar = progress.add_task("checking", total=count)
        yield lambda name: progress.update(bar, advance=1, description=f"{name:24}", refresh=True)


def _rows(judged):
    """(name with a star if it is core, state, what there is to say) of each verdict."""
    before = None
    for name, (state, sentence, mistake) in judged.items():
        said = (sentence or "").removeprefix(f"{name}: ").removeprefix(f"{name} is not written yet: ")
        same, before = said and said == before, said
        said = "(the same)" if same else f"{said} ({mistake})" if mistake else said
        yield f"{name}{' *' if EXERCISES[name].core else ''}", state, said


def _print_table(header, rows, styles=None):
    """The rows under the header, the last column wrapped. `styles`: {word of a cell: rich's style of it}."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return _print_plain(header, rows)
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, width=None, show_edge=False)
    for number, heading in enumerate(header):
        # fold: a word that is longer than the column is broken, never cut off
        table.add_column(heading, no_wrap=number < len(header) - 1, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=(styles or {}).get(cell, "")) for cell in row))
    with console.capture() as captured:
        console.print(table, width=min(console.width, WIDEST))
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _print_plain(header, rows, width=80):
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(header[:-1], *(row[:-1] for row in rows), strict=True)]
    for row in (header, *rows):
        start = "".join(f"{cell:{size}}  " for cell, size in zip(row[:-1], widths, strict=True))
        gap = " " * len(start)
        print("\n".join(textwrap.wrap(row[-1], width, initial_indent=start, subsequent_indent=gap)) or start.rstrip())


# ---- the command line ------------------------------------------------------------------------------------------------


def main(path, judge, prepare, as_json=False, bench=False):
    """Checks every exercise of the file at `path` and prints what was found; returns the exit status."""
    found = look(path)
    if found[0] and not as_json:
        print(f"{path}: the file {closed(found[0])} Nothing could be checked.")
        return 2
    with _progress(len(EXERCISES)) as step:
        judged = {}
        for name, verdict in verdicts(path, found, judge, prepare):
            judged[name] = verdict
            step(name)
    judged = {name: judged[name] for name in EXERCISES}
    states = {name: state for name, (state, _, _) in judged.items()}
    timed = {}
    if bench:
        from normlab.bench_yours import SIZES, TIMED

        with _progress(len(TIMED)) as step:
            timed = _beside_torch(path, states, step)
    if as_json:
        for name, (state, sentence, mistake) in judged.items():
            line = {"exercise": name, "file": str(path), "accepted": state == "accepted", "reason": sentence}
            line |= {"mistake": mistake, "state": state} | ({"bench": timed[name]} if name in timed else {})
            print(json.dumps(line), flush=True)
        return status(states)
    rows = ((name, WORDS[state], said) for name, state, said in _rows(judged))
    _print_table(("exercise", "verdict", ""), rows, {WORDS[state]: style for state, style in STYLES.items()})
    if bench:
        print("\nYour time beside PyTorch's, float32, one thread, medians of paired runs:\n")
        _print_table(("exercise", *(f"{size:,} elements" for size in SIZES.values())), _bench_rows(timed))
    print(f"\n{path}: {total(states)}. (* core)")
    sys.stdout.flush()
    return status(states)
