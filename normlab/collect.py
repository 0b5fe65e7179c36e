"""Your functions from your notebooks, in one module:

    python -m normlab.collect work -o my_normlab.py

What is taken. Of each exercise its definition: that of the cell nbgrader knows by the exercise's name, or, where that
is still a stub or there is no such cell, the last cell of any notebook that defines it. With it goes what it uses:
functions, classes, constants and imports that stand at the top level of code cells of the same notebook, and what those
use in turn; of several of one name the last, as in a notebook that was run from top to bottom. Nothing else: no checks,
no prints, no experiments, and nothing of normlab, which the checks would refuse. A comment that stands right above a
definition goes with it.

What is kept out, and named: stubs that still raise NotImplementedError, cells that are not valid Python, and what needs
a helper of which another notebook has another version. The file that is written is yours to edit.
"""

import argparse
import ast
import json
import re
import symtable
import sys
from dataclasses import dataclass, field
from pathlib import Path

from normlab.exercises import EXERCISES
from normlab.verdict import closed

MARKS = re.compile(r"\s*(### (BEGIN|END) SOLUTION|# your code here)\s*")
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
IMPORTS = ast.Import | ast.ImportFrom


class Broken(ValueError):
    """Why a notebook cannot be read, as a verb phrase."""


@dataclass
class Piece:
    """One statement at the top level of a cell: what it binds, and the global names it uses. `graded` is the exercise
    whose cell it stands in."""

    text: str
    binds: tuple
    uses: frozenset
    tree: ast.stmt
    graded: str | None = None


@dataclass
class Notebook:
    path: Path
    pieces: list
    problems: list = field(default_factory=list)

    def last(self, name):
        """The last piece that binds the name, or None."""
        return next((piece for piece in reversed(self.pieces) if name in piece.binds), None)


# ---- reading ---------------------------------------------------------------------------------------------------------


def cells(path):
    """(source, the exercise it is the graded answer of or None) of each code cell. Errors: Broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for cell in content["cells"]:
            if cell["cell_type"] == "code":
                known = cell.get("metadata", {}).get("nbgrader", {})
                yield "".join(cell["source"]), known.get("grade_id") if known.get("solution") else None
    except OSError as error:
        raise Broken(f"cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Broken("is not a notebook: it holds no list of cells in JSON") from None


def read(path):
    """The Notebook at `path`. Errors: Broken."""
    notebook = Notebook(path, [])
    for number, (source, graded) in enumerate(cells(path), start=1):
        try:
            notebook.pieces += pieces(source, graded)
        except (SyntaxError, ValueError) as error:  # ValueError: a null byte
            reason = f"{error.msg} in its line {error.lineno}" if isinstance(error, SyntaxError) else str(error)
            of = f" ({graded})" if graded else ""
            notebook.problems.append(f"code cell {number}{of} is not valid Python and is kept out: {reason}")
    return notebook


def without_magics(source):
    """The cell without lines that are for IPython (%time, !pip), and nothing of a cell that is (%%bash)."""
    if source.lstrip().startswith("%%"):
        return ""
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.split("\n"))


def pieces(source, graded):
    """The pieces of one cell. Errors: SyntaxError."""
    try:
        trees = ast.parse(source).body
    except SyntaxError:
        source = without_magics(source)
        trees = ast.parse(source).body
    lines = source.split("\n")
    for tree in trees:
        first = min([tree.lineno, *(d.lineno for d in getattr(tree, "decorator_list", ()))])
        alone = not any(t is not tree and t.lineno <= tree.end_lineno and t.end_lineno >= first for t in trees)
        while first > 1 and lines[first - 2].startswith("#") and not isinstance(tree, IMPORTS):
            first -= 1
        text = "\n".join(lines[first - 1 : tree.end_lineno]) if alone else ast.get_source_segment(source, tree)
        text = "\n".join(line for line in text.split("\n") if not MARKS.fullmatch(line))
        names = binds(tree)
        if isinstance(tree, IMPORTS):
            yield from (Piece(ast.unparse(one), (name,), frozenset(), one) for name, one in imports(tree))
        elif names:
            yield Piece(text, names, uses(tree), tree, graded)


def binds(tree):
    """The names a statement at the top level binds, if it is of a kind that is kept."""
    if isinstance(tree, DEFINITIONS):
        return (tree.name,)
    if isinstance(tree, (ast.Assign, ast.AnnAssign)):
        targets = tree.targets if isinstance(tree, ast.Assign) else [tree.target]
        inside = [node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        return tuple(node.id for node in inside if isinstance(node.ctx, ast.Store))
    if isinstance(tree, (ast.Try, ast.If)):  # try: import numba
        return tuple(name for part in tree.body for name in (binds(part) or (n for n, _ in imports(part))))
    return ()


def imports(tree):
    """(name, a statement that imports it alone) for each name of an import; nothing of normlab, and no `*`."""
    if not isinstance(tree, IMPORTS):
        return
    for alias in tree.names:
        module = alias.name if isinstance(tree, ast.Import) else tree.module or ""
        if module.split(".")[0] != "normlab" and alias.name != "*":
            one = ast.Import([alias]) if isinstance(tree, ast.Import) else ast.ImportFrom(module, [alias], tree.level)
            yield alias.asname or alias.name.split(".")[0], one


def path_of(one):
    """What an import's name stands for: the same for `import torch.nn as nn` and `from torch import nn`."""
    (alias,) = one.names
    if isinstance(one, ast.Import):
        return alias.name if alias.asname else alias.name.split(".")[0]
    return f"{'.' * one.level}{one.module}.{alias.name}"


def uses(tree):
    """The names that a statement looks up at the top level, in itself or in any function inside it."""
    found, todo = set(), [symtable.symtable(ast.unparse(tree), "cell", "exec")]
    while todo:
        table = todo.pop()
        todo += table.get_children()
        top = table.get_type() == "module"
        found |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
    return frozenset(found)


def is_stub(tree):
    """Whether a function, or any method of a class, still raises NotImplementedError and nothing returns before it."""
    if isinstance(tree, ast.ClassDef):
        return any(is_stub(part) for part in tree.body if isinstance(part, DEFINITIONS))
    for part in getattr(tree, "body", ()) if isinstance(tree, DEFINITIONS) else ():
        if isinstance(part, ast.Return):
            return False
        if isinstance(part, ast.Raise) and part.exc is not None:
            raised = part.exc.func if isinstance(part.exc, ast.Call) else part.exc
            return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    return False


# ---- collecting ------------------------------------------------------------------------------------------------------


def answer_to(name, notebooks):
    """(notebook, piece) of the answer to an exercise, or (None, whether there is a stub). Two graded cells of one name
    are a copy of a notebook and its original: the one whose file name is last in the alphabet counts."""
    defining = [(notebook, piece) for notebook in notebooks for piece in notebook.pieces if name in piece.binds]
    written = [(n, p) for n, p in defining if not is_stub(p.tree) and not isinstance(p.tree, IMPORTS)]
    graded = [(n, p) for n, p in written if p.graded == name]
    if graded or written:
        return (graded or written)[-1]
    return None, bool(defining)


def needed(notebook, answer, owners):
    """{name: piece} of all that an answer needs, itself included. `owners`: {exercise: (its answer, its notebook)}."""
    wanted, todo = {}, [(name, answer) for name in answer.binds]
    while todo:
        name, piece = todo.pop()
        if name not in wanted:
            wanted[name] = piece
            todo += [(use, found) for use in sorted(piece.uses) if (found := looked_up(use, notebook, owners))]
    return wanted


def looked_up(name, notebook, owners):
    """The piece that a name of a notebook means, or None if it is not bound there."""
    piece, (owner, home) = notebook.last(name), owners.get(name, (None, None))
    return owner if piece and owner and (home is notebook or is_stub(piece.tree)) else piece


def same(one, other):
    """Whether two pieces say the same, however they are laid out."""
    if isinstance(one.tree, IMPORTS) and isinstance(other.tree, IMPORTS):
        return path_of(one.tree) == path_of(other.tree)
    return ast.dump(one.tree) == ast.dump(other.tree)


@dataclass
class Collection:
    """What was found: `taken` is {exercise: its notebook}, in the order of the chapters, `code` the module's text."""

    code: str
    taken: dict
    stubs: list
    absent: list
    problems: list


def collect(folder):
    """The Collection of all notebooks under a folder. Errors: ValueError with one sentence."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}")
    paths = sorted(
        p for p in folder.rglob("*.ipynb") if not any(part[0] == "." for part in p.relative_to(folder).parts)
    )
    notebooks, problems = [], []
    for path in paths:
        try:
            notebook = read(path)
        except Broken as error:
            problems.append(f"{path} {error}")
            continue
        notebooks.append(notebook)
        problems += [f"{path}: {problem}" for problem in notebook.problems]
    if not notebooks:
        raise ValueError("; ".join(problems) or f"{folder} holds no notebooks")
    return assembled(notebooks, problems)


def assembled(notebooks, problems):
    """The Collection of notebooks that were read."""
    found = {name: answer_to(name, notebooks) for name in EXERCISES}
    # The answers come first: a helper that has an exercise's name and another text gives way to it.
    owners = {name: (piece, notebook) for name, (notebook, piece) in found.items() if notebook}
    kept, taken = {}, {}
    for name, (notebook, piece) in found.items():
        if notebook is None:
            continue
        wanted = needed(notebook, piece, owners)
        rivals = {n: owners[n][1] for n, p in wanted.items() if n in owners and not same(owners[n][0], p)}
        if rivals:
            for rival, elsewhere in rivals.items():
                problems.append(
                    f"{name} is kept out: it uses a {rival} of {notebook.path} that differs from the one of "
                    f"{elsewhere.path}: give it a name of its own"
                )
            continue
        owners |= {n: (p, notebook) for n, p in wanted.items() if n not in owners}
        kept.setdefault(notebook.path, {}).update((id(owners[n][0]), owners[n][0]) for n in wanted)
        taken[name] = notebook.path
    return Collection(
        code=written(notebooks, kept, taken),
        taken=taken,
        stubs=[name for name, (notebook, stub) in found.items() if notebook is None and stub],
        absent=[name for name, (notebook, stub) in found.items() if notebook is None and not stub],
        problems=problems,
    )


def written(notebooks, kept, taken):
    """The module's text: where it comes from, imports, then each notebook's pieces in their order there."""
    by_path = {notebook.path: notebook for notebook in notebooks}
    sources = {path: [n for n in taken if taken[n] == path] for path in dict.fromkeys(taken.values())}
    head = ["# Collected by `python -m normlab.collect`. From:"]
    head += [f"#   {path.as_posix()}: {', '.join(names)}" for path, names in sources.items()]
    all_kept = {key: piece for pieces_of in kept.values() for key, piece in pieces_of.items()}
    first, body, done = [], [], set()
    for path in sources:
        texts = []
        for piece in by_path[path].pieces:
            if id(piece) in all_kept and id(piece) not in done:
                done.add(id(piece))
                if isinstance(piece.tree, IMPORTS):
                    first.append(piece.text)
                else:
                    texts.append((isinstance(piece.tree, DEFINITIONS), piece.text))
        body.append(f"\n\n# ---- {path.stem} {'-' * max(3, 74 - len(path.stem))}")
        for definition, text in texts:
            body.append(f"\n\n{text}" if definition else text)
    future = [text for text in dict.fromkeys(first) if text.startswith("from __future__")]
    rest = sorted(set(first) - set(future), key=lambda text: (text.split()[1], text))
    return "\n".join([*head, "", *future, *rest, *body]) + "\n"


# ---- the command line ------------------------------------------------------------------------------------------------


def main(argv=None):
    """The command line; returns the exit status: 0, 1 if something was kept out that is no stub, 2 if nothing was
    written."""
    parser = argparse.ArgumentParser(prog="python -m normlab.collect", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="where your notebooks are, such as work")
    parser.add_argument("-o", "--output", type=Path, default=Path("my_normlab.py"), metavar="FILE")
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it is there")
    options = parser.parse_args(argv)
    try:
        found = collect(options.folder)
        if found.taken:
            with options.output.open("w" if options.force else "x", encoding="utf-8") as file:
                file.write(found.code)
    except FileExistsError:
        reason = f"{options.output} is there already and may hold work of yours: --force overwrites it"
        print(closed(reason), file=sys.stderr)
        return 2
    except OSError as error:
        print(closed(f"{options.output} cannot be written: {error.strerror}"), file=sys.stderr)
        return 2
    except ValueError as error:
        print(closed(str(error)), file=sys.stderr)
        return 2
    for problem in found.problems:
        print(closed(problem), file=sys.stderr)
    for names, why in ((found.stubs, "not written yet"), (found.absent, "not in these notebooks")):
        if names:
            print(f"{why}: {', '.join(names)}")
    if not found.taken:
        print(f"{options.folder} has no exercise that is written: nothing was collected.", file=sys.stderr)
        return 2
    print(f"{options.output}: {len(found.taken)} of {len(EXERCISES)} exercises.")
    return int(bool(found.problems))


if __name__ == "__main__":
    sys.exit(main())
