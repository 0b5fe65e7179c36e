"""From whatever was handed in to a notebook that can be graded: only the text of cells is taken."""

import json
import os
import random
import sys
from copy import deepcopy

import nbformat
import pytest
from attacks import harness

from grading import bridge, rebuild

WRONG = "def softmax(x, axis=-1):\n    return x"


@pytest.fixture
def released():
    return harness.release()


@pytest.fixture
def right(released):
    """The notebook with both of its answers right."""
    names = ("softmax", "logsumexp")
    return harness.filled(released, {name: harness.honest("softmax")[name] for name in names})


@pytest.fixture(scope="module")
def sandboxes():
    sandboxes = bridge.Sandboxes()
    yield sandboxes
    sandboxes.close()


def cell_of(notebook, name):
    (cell,) = [cell for cell in notebook.cells if rebuild.identity(cell) == name]
    return cell


def built(released, handed_in):
    return rebuild.rebuild(released, harness.submitted(handed_in))


def shape(notebook):
    return [(rebuild.identity(c), c.cell_type, c.source, dict(c.metadata.get("nbgrader", {}))) for c in notebook.cells]


# ---- notebooks that were tampered with -------------------------------------------------------------------------------


def test_an_honest_notebook_is_as_it_was(released, right):
    assert shape(built(released, right)) == shape(right)


def test_tags_metadata_and_outputs_stay_behind(released, right):
    for cell in right.cells:
        cell.metadata["tags"] = ["raises-exception", "skip-execution", "remove-cell"]
        cell.metadata["trusted"] = True
        cell.metadata["normlab"] = {"own": False, "defines": ["check"]}
        if cell.cell_type == "code":
            cell.outputs = [nbformat.v4.new_output("execute_result", {"text/html": "<script>alert(1)</script>"})]
            cell.execution_count = 7
        cell["attachments"] = {"x.png": {"text/html": "<script>"}}
    right.metadata["kernelspec"] = {"name": "mine", "display_name": "mine", "language": "bash"}
    notebook = built(released, right)
    assert notebook.metadata == {"kernelspec": released.metadata.kernelspec}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"nbgrader", "normlab"}
        assert "attachments" not in cell
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert cell.metadata.normlab["own"] == rebuild.is_written(cell)
    assert cell_of(notebook, "softmax").metadata.normlab["defines"] == ["softmax"]


@pytest.mark.parametrize(
    "change", ["emptied", "deleted", "replaced", "turned to Markdown", "renamed", "reordered", "first"]
)
def test_checks_are_those_of_the_release(released, right, change):
    checks = [cell for cell in right.cells if (rebuild.identity(cell) or "").startswith("check-")]
    for cell in checks:
        if change == "emptied":
            cell.source = ""
        elif change == "replaced":
            cell.source = "20"
        elif change == "turned to Markdown":
            cell.cell_type = "markdown"
        elif change == "renamed":
            cell.metadata.nbgrader["grade_id"] = cell["id"] = "x" + rebuild.identity(cell)
            cell.source = "pass"
        else:
            right.cells.remove(cell)
    if change == "reordered":
        right.cells[:0] = reversed(checks)
    if change == "first":
        right.cells[:0] = [nbformat.v4.new_code_cell("1", id=rebuild.identity(cell)) for cell in checks]
    notebook = built(released, right)
    names = [rebuild.identity(cell) for cell in released.cells]
    assert [name for name in map(rebuild.identity, notebook.cells) if name in names] == names
    for cell in checks:
        name = rebuild.identity(cell).removeprefix("x") if change == "renamed" else rebuild.identity(cell)
        assert cell_of(notebook, name).source == cell_of(released, name).source
        assert cell_of(notebook, name).metadata.normlab["own"] is False


def test_points_and_ids_are_those_of_the_release(released, right):
    for cell in right.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader |= {
                "points": 1000,
                "grade": True,
                "solution": True,
                "locked": False,
                "schema_version": 99,
            }
    for one, other in zip(built(released, right).cells, released.cells, strict=True):
        assert one.metadata.get("nbgrader") == other.metadata.get("nbgrader")


def test_a_duplicated_cell_counts_once_and_runs_as_one_more(released, right):
    again = deepcopy(cell_of(right, "softmax"))
    again.source = WRONG
    right.cells.append(again)
    notebook = built(released, right)
    assert cell_of(notebook, "softmax").source == harness.honest("softmax")["softmax"]
    assert [c.source for c in notebook.cells if (c.get("id") or "").startswith("extra-")] == [WRONG]


def test_a_cell_with_the_id_of_a_check_runs_nowhere(released, right):
    right.cells.insert(1, nbformat.v4.new_code_cell("check = print", id="check-softmax-values"))
    assert "check = print" not in [cell.source for cell in built(released, right).cells]


def test_an_answer_whose_marks_were_lost_is_known_by_its_cell_id(released, right):
    for cell in right.cells:
        cell.metadata = nbformat.from_dict({})
    assert [c.source for c in built(released, right).cells] == [c.source for c in right.cells]


def test_missing_answers_are_said(released, right):
    right.cells = [cell for cell in right.cells if rebuild.identity(cell) != "softmax"]
    notebook = built(released, right)
    assert notebook.cells[0].id == rebuild.NOTICE
    assert "softmax" in notebook.cells[0].source
    assert cell_of(notebook, "softmax").source == cell_of(released, "softmax").source


def test_tampering_is_worth_nothing_and_costs_nothing(released, right, sandboxes):
    cell_of(right, "softmax").source = WRONG
    for cell in right.cells:
        cell.metadata["tags"] = ["raises-exception"]
        if (rebuild.identity(cell) or "").startswith("check-"):
            cell.source = "20"
    right.cells.reverse()
    graded = harness.grade(released, right, sandboxes)
    assert graded.points("softmax") == 0
    assert graded.points("logsumexp") == harness.MOST


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path):
    (tmp_path / "ada" / "softmax").mkdir(parents=True)
    return tmp_path, tmp_path / "ada" / "softmax" / "softmax.ipynb"


def text_of(notebook):
    return nbformat.writes(notebook)


ENCODINGS = {"utf-8": "utf-8", "with a mark": "utf-8-sig", "utf-16": "utf-16", "latin-1": "latin-1"}


@pytest.mark.parametrize("name", ENCODINGS)
def test_encodings(course, released, right, name):
    folder, path = course
    cell_of(right, "softmax").source += "\n# \u00e9t\u00e9"
    path.write_bytes(json.dumps(right, ensure_ascii=False).encode(ENCODINGS[name]))
    notebook = rebuild.rebuild(released, rebuild.read(path, folder))
    assert cell_of(notebook, "softmax").source.endswith("# \u00e9t\u00e9")


UNREADABLE = {
    "empty": (b"", "empty"),
    "cut off": (b'{"cells": [{"cell_type": "code", "sou', "valid JSON"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "valid JSON"),
    "deep": (b'{"cells": ' + b"[" * 1_000_000, "deep"),
    "deep and closed": (b'{"cells":' * 200_000 + b"1" + b"}" * 200_000, "deep"),
    "large": (b" " * (rebuild.FILE_BYTES + 1), "larger than 16 MB"),
    "a number": (b"7", "no cells"),
    "a number of many digits": (b"9" * 100_000, "valid JSON"),
    "a list": (b"[]", "no cells"),
    "cells that are none": (b'{"cells": {"a": 1}}', "no cells"),
    "sheets that are none": (b'{"worksheets": 7}', "no cells"),
    "sheets of nothing": (b'{"worksheets": [1, {"cells": 5}, {"cells": "abc"}]}', "no cells"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_notebook_is_said_to_be_none(course, name):
    folder, path = course
    data, why = UNREADABLE[name]
    path.write_bytes(data)
    with pytest.raises(rebuild.Unreadable, match=why):
        rebuild.read(path, folder)


def test_what_is_no_file_is_not_opened(course):
    folder, path = course
    outside = folder / "outside.ipynb"
    outside.write_text('{"cells": []}')
    with pytest.raises(rebuild.Unreadable, match="missing"):
        rebuild.read(path, folder)
    path.symlink_to(outside)
    with pytest.raises(rebuild.Unreadable, match="link"):
        rebuild.read(path, folder)
    path.unlink()
    os.mkfifo(path)  # to open it would wait for ever
    with pytest.raises(rebuild.Unreadable, match="regular"):
        rebuild.read(path, folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(rebuild.Unreadable):
        rebuild.read(path, folder)


def test_a_folder_that_is_a_link_is_not_followed(course):
    folder, path = course
    (folder / "real").mkdir()
    (folder / "real" / "softmax.ipynb").write_text('{"cells": []}')
    path.parent.rmdir()
    path.parent.symlink_to(folder / "real")
    with pytest.raises(rebuild.Unreadable, match="link"):
        rebuild.read(path, folder)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no device files")
def test_a_device_is_not_read(course):
    folder, path = course
    path.symlink_to("/dev/zero")
    with pytest.raises(rebuild.Unreadable):
        rebuild.read(path, folder)


def test_a_hard_link_is_read_as_any_file(course):
    folder, path = course
    (folder / "other").write_text('{"cells": []}')
    os.link(folder / "other", path)
    assert rebuild.read(path, folder) == []


def junk(rng, depth=0):
    kinds = [None, 0, -1, 1e308, "", "code", "softmax", "\0", "\ud800", [], {}, True]
    if depth > 3 or rng.random() < 0.4:
        return rng.choice(kinds)
    if rng.random() < 0.4:
        return [junk(rng, depth + 1) for _ in range(rng.randrange(4))]
    keys = ["cells", "cell_type", "source", "metadata", "id", "nbgrader", "grade_id", "worksheets", "input", "outputs"]
    return {rng.choice(keys): junk(rng, depth + 1) for _ in range(rng.randrange(5))}


def test_whatever_cells_are_a_notebook_comes_of_it(course, released):
    folder, path = course
    rng, read = random.Random(0), 0
    for _ in range(400):
        cells = [junk(rng) for _ in range(4)]
        cells += [
            {"cell_type": rng.choice(["code", "markdown", "raw", [], 5]), **c} for c in cells if isinstance(c, dict)
        ]
        path.write_text(
            json.dumps(rng.choice([{"cells": cells}, {"worksheets": [{"cells": cells}]}, {"worksheets": cells}]))
        )
        try:
            submitted = rebuild.read(path, folder)
        except rebuild.Unreadable:
            continue
        read += 1
        notebook = rebuild.rebuild(released, submitted)
        nbformat.validate(notebook)
        assert set(map(rebuild.identity, released.cells)) <= set(map(rebuild.identity, notebook.cells))
    assert read > 100


def test_more_cells_and_longer_cells_than_there_are_are_left_out(released):
    cells = [("code", [], "x" * 5)] * 10
    assert len(rebuild.rebuild(released, cells).cells) == len(released.cells) + 10 + 1
    long = rebuild._cell({"cell_type": "code", "source": "#" * (rebuild.CELL_CHARACTERS + 5)})
    assert len(long[2]) == rebuild.CELL_CHARACTERS


def test_text_that_no_file_holds_is_replaced(released):
    _, _, source = rebuild._cell({"cell_type": "code", "source": ["a = '\ud800'\n", 7, "b = '\0'"]})
    source.encode()
    assert "\0" not in source
