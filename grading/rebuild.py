"""From a submitted file to a notebook that can be graded: the released notebook with the learner's sources in it.

Of what was handed in, only the text of cells is taken: the answers, and further code cells where they stand. Tags,
metadata, outputs, changed or missing checks stay behind. Whatever the file is, there is a notebook to grade, and a
sentence on top of it where the learner should know what happened.
"""

import ast
import json
import os
import stat
from copy import deepcopy
from pathlib import Path

import nbformat

FILE_BYTES = 16 << 20
CELLS = 500
CELL_CHARACTERS = 100_000
NOTICE = "notice"  # the id of the cell with the sentences


class Unreadable(Exception):
    """Why a file cannot be taken for a notebook, as a verb phrase about it."""


# ---- reading ---------------------------------------------------------------------------------------------------------


def _open(path, within):
    """The file's bytes. No part of the path below `within` may be a link. Errors: Unreadable, FileNotFoundError."""
    flags, parts = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, Path(path).relative_to(within).parts
    folder = os.open(within, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            try:
                deeper = os.open(part, flags | os.O_DIRECTORY, dir_fd=folder)
            except NotADirectoryError:
                raise Unreadable("is reached by a link, and links are not followed") from None
            os.close(folder)
            folder = deeper
        try:
            file = os.open(parts[-1], flags | os.O_NONBLOCK, dir_fd=folder)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise Unreadable("is a link, or cannot be opened") from None
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise Unreadable("is no regular file")
    with open(file, "rb") as opened:
        data = opened.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        raise Unreadable(f"is larger than {FILE_BYTES >> 20} MB")
    return data


def _text(data):
    for encoding in ("utf-8-sig", "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def read(path, within):
    """[(type, identity or None, source)] of the cells of a submitted file. Errors: Unreadable."""
    try:
        data = _open(path, within)
    except FileNotFoundError:
        raise Unreadable("is missing") from None
    except PermissionError:
        raise Unreadable("cannot be opened: its permissions forbid it") from None
    if not data.strip():
        raise Unreadable("is missing, empty, or no regular file")
    try:
        notebook = json.loads(_text(data))
    except RecursionError:
        raise Unreadable("is nested too deeply") from None
    except ValueError:
        raise Unreadable("is not valid JSON, as a notebook is") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if cells is None and isinstance(notebook, dict):  # version 3 had cells in worksheets
        sheets = notebook.get("worksheets")
        sheets = sheets if isinstance(sheets, list) else []
        found = [sheet.get("cells") for sheet in sheets if isinstance(sheet, dict)]
        cells = [cell for cells in found if isinstance(cells, list) for cell in cells] or None
    if not isinstance(cells, list):
        raise Unreadable("has no cells")
    return [cell for cell in map(_cell, cells[:CELLS]) if cell]


def _cell(cell):
    if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
        return None
    source = cell.get("source", cell.get("input", ""))
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    if not isinstance(source, str):
        return None
    metadata = cell.get("metadata") if isinstance(cell.get("metadata"), dict) else {}
    marks = metadata.get("nbgrader") if isinstance(metadata.get("nbgrader"), dict) else {}
    names = [name for name in (marks.get("grade_id"), cell.get("id")) if isinstance(name, str)]
    # Text that no file could hold would end the grading later.
    source = source[:CELL_CHARACTERS].encode("utf-8", "replace").decode().replace("\0", "")
    return cell["cell_type"], names, source


def names_stored(source):
    """Names that a cell gives a value; none where it is no plain Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
    return found


# ---- building --------------------------------------------------------------------------------------------------------


def identity(cell):
    """What a released cell is called: its grade_id, or its id."""
    return cell.metadata.get("nbgrader", {}).get("grade_id") or cell.get("id")


def is_locked(cell):
    return bool(cell.metadata.get("nbgrader", {}).get("locked"))


def is_written(cell):
    """Whether a released cell is the learner's to write: an answer or a prediction, or an example to change."""
    marks = cell.metadata.get("nbgrader", {})
    return bool(marks.get("solution")) or (cell.cell_type == "code" and not marks)


def rebuild(release, submitted, notices=()):
    """The notebook to grade. `release`: the released notebook; `submitted`: what read() gives, or None.

    The metadata of a code cell says whether it is the learner's `own`, and which names the released cell `defines`:
    only these reach the instructor's cells.
    """
    notebook = nbformat.from_dict(deepcopy(release))
    notebook.metadata = nbformat.from_dict({"kernelspec": release["metadata"].get("kernelspec", {})})
    known = {identity(cell): cell for cell in notebook.cells if identity(cell)}
    sources = {cell.source: name for name, cell in known.items()}
    defined = {
        name: sorted(names_stored(c.source)) for name, c in known.items() if is_written(c) and c.cell_type == "code"
    }
    matched, extras, place, notices = set(), {}, None, list(notices)
    for kind, names, source in submitted or []:
        name = next((n for n in names if n in known and n not in matched), None)
        if name is None and not any(n in known for n in names):
            name = sources.get(source) if sources.get(source) not in matched else None
        if name is None or known[name].cell_type != kind:
            again = next((n for n in names if n in known), None)
            if kind == "code" and source.strip() and not (again and is_locked(known[again])):
                extras.setdefault(place, []).append(source)
            continue
        matched.add(name)
        place = name
        if is_written(known[name]):
            known[name].source = source
    missing = [name for name, cell in known.items() if is_written(cell) and name not in matched]
    if submitted is not None and missing:
        notices.append(f"These cells were not found in it, and are as they were released: {', '.join(missing)}.")
    cells, count = [], 0
    for anchor, cell in [(None, None), *((identity(cell), cell) for cell in notebook.cells)]:
        if cell is not None:
            cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "nbgrader"})
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
                cell.metadata["normlab"] = {"own": is_written(cell), "defines": defined.get(anchor, [])}
            cells.append(cell)
        for source in extras.get(anchor, []):
            count += 1
            extra = nbformat.v4.new_code_cell(source, id=f"extra-{count}")
            extra.metadata["normlab"] = {"own": True, "defines": []}
            cells.append(extra)
    if notices:
        text = "**About the file that was handed in.** " + " ".join(notices)
        cells.insert(0, nbformat.v4.new_markdown_cell(text, id=NOTICE))
    notebook.cells = cells
    return notebook
