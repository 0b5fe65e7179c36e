"""Grades one rebuilt notebook: the instructor's cells run here, unchanged; the learner's run in a sandbox."""

import ast
import atexit
import contextlib
import functools
import io
import logging

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
    try:
        for number, cell in enumerate(code):
            if not own[number]:
                cell.outputs = _run(cell, trees[number], names, learner, number, written)
        learner.run(len(code))
        for number, cell in enumerate(code):
            if own[number]:
                cell.outputs = learner.shown.get(number, [])
            cell.outputs = [_output(o) for o in cell.outputs]
    finally:
        learner.end()
    return notebook


def _output(output):
    from nbformat import from_dict

    return from_dict(output)


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
    return next((bridge.policy(exercise) for exercise in asked if exercise.torch_exercise), bridge.Policy())


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


def _used(tree):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _run(cell, tree, names, learner, number, written):
    """The outputs of one of the instructor's cells. What it takes from the learner's cells is looked up over there."""
    printed = io.StringIO()
    outputs = []
    try:
        checked = _checks(tree)
        for name in sorted(_used(tree) & written):
            value = learner.look(name, number, checked.get(name))
            if value is bridge.Missing:
                names.pop(name, None)
            else:
                names[name] = value
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
