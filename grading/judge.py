"""Grades one rebuilt notebook: the instructor's cells run here, unchanged; the learner's run in a sandbox."""

import ast
import atexit
import contextlib
import functools
import io
import logging
from dataclasses import replace

import nbformat
import numpy as np

from grading import bridge
from grading.rebuild import identity
from normlab import exercises
from normlab.check import CheckFailed

log = logging.getLogger(__name__)

PRINTED_CHARACTERS = 20_000


@functools.cache
def sandboxes():
    """This process's warm sandboxes."""
    if (torch := exercises.torch_or_none()) is not None:
        torch.set_num_threads(1)  # as many notebooks are graded as there are cores
    warm = bridge.Sandboxes()
    atexit.register(warm.close)
    return warm


def grade(notebook, sandboxes):
    """Runs a rebuilt notebook's cells in their order, and puts what comes of them into their outputs."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    own = [bool(cell.metadata.get("normlab", {}).get("own")) for cell in code]
    written = {name for cell in code for name in cell.metadata.get("normlab", {}).get("defines", [])}
    trees = [None if is_own else ast.parse(cell.source) for cell, is_own in zip(code, own, strict=True)]
    asked = [exercise for tree in trees if tree for exercise in _checks(tree).values()]
    learner = bridge.Learner(sandboxes, [cell.source for cell in code], own, _main(asked))
    names = {"__name__": "__main__", "__builtins__": __builtins__}
    # For each of the instructor's cells, what it uses of the learner's: {name: the exercise it is checked as, or None}.
    uses = {n: _uses(tree, written) for n, tree in enumerate(trees) if tree}
    try:
        data = learner.show({n: [name for name, e in used.items() if e is None] for n, used in uses.items() if used})
        for number, cell in enumerate(code):
            if own[number]:
                cell.outputs = learner.shown.get(number, [])
                continue
            for name, exercise in uses[number].items():
                value = learner.look(name, number, exercise) if exercise else data.get((number, name), bridge.Missing)
                names.pop(name, None) if value is bridge.Missing else names.update({name: value})
            cell.outputs = _run(cell, trees[number], names)
    finally:
        learner.end()
    for cell in code:
        cell.outputs = [nbformat.from_dict(output) for output in cell.outputs]
    return notebook


def _find(name):
    try:
        return exercises.find(name)
    except ValueError:
        return None


def _main(asked):
    """The policy of a notebook's main process: that of its first exercise in PyTorch, if it has one. Where nothing is
    checked there is nothing to close."""
    if not asked:
        return bridge.Policy("torch")
    policies = [bridge.policy(exercise) for exercise in asked if exercise.torch_exercise]
    # What its cells put out is not measured: all of their statements run.
    return replace(policies[0], plain=False) if policies else bridge.Policy()


def _checks(tree):
    """{name: the exercise as which it is checked} of a cell: check(softmax, "softmax", ...)."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "check" and node.args:
            name = getattr(node.args[0], "id", None)
            second = node.args[1] if len(node.args) > 1 else None
            if name and (exercise := _find(second.value if isinstance(second, ast.Constant) else name)):
                found[name] = exercise
    return found


def _uses(tree, written):
    """{name: the exercise as which it is checked, or None} of the learner's names in one of the instructor's cells."""
    checked = _checks(tree)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return {name: checked.get(name) for name in sorted(used & written)}


def _run(cell, tree, names):
    """The outputs of one of the instructor's cells."""
    printed = io.StringIO()
    outputs = []
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            with np.errstate(all="warn"):
                exec(compile(tree, "<instructor>", "exec"), names)
    except CheckFailed as failed:
        outputs.append(bridge.output_of_error("CheckFailed", str(failed)))
        _remember(cell, failed.mistake)
    except NameError as error:
        outputs.append(bridge.output_of_error("CheckFailed", f"{error}: the cell that defines it did not run."))
    except Exception as error:
        outputs.append(bridge.output_of_error(type(error).__name__, str(error)))
        log.warning("%s: %s: %s", identity(cell), type(error).__name__, error)
    if text := printed.getvalue()[:PRINTED_CHARACTERS]:
        outputs.insert(0, {"output_type": "stream", "name": "stdout", "text": text})
    return outputs


def _remember(cell, mistake):
    """Notes in a check cell's metadata which mistake was named: class reports count them."""
    words = (identity(cell) or "").split("-")
    if len(words) == 3 and words[0] == "check":
        cell.metadata["normlab"] = {"exercise": words[1], "part": words[2], "mistake": mistake}
