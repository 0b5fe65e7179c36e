"""Both notebook trees: they follow their sources byte for byte, every solution passes, every stub is refused."""

import json
import os
import re
import shutil
import subprocess
import sys

import nbclient
import nbformat
import pytest
from jupyter_client import KernelManager

from normlab.cases import PARTS, SAMPLES
from normlab.exercises import EXERCISES
from tools import make_notebooks

STEMS = sorted(path.stem for path in (make_notebooks.ROOT / "solutions").glob("*/*.py"))
UNGRADED = {"inventory"}
POINTS = {"values": 12, "numerics": 5, "edges": 3}


def read(repo, tree, stem):
    return nbformat.read(repo / tree / stem / f"{stem}.ipynb", as_version=4)


def graded(notebook):
    """{grade_id: cell} of the cells that nbgrader knows."""
    return {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}


def copy_sources(repo, folder, *stems):
    """A checkout with the sources of some chapters alone."""
    shutil.copy(repo / "nbgrader_config.py", folder)
    for stem in stems:
        (folder / "solutions" / stem).mkdir(parents=True)
        shutil.copy(repo / "solutions" / stem / f"{stem}.py", folder / "solutions" / stem)
    return folder


# -- The trees follow their sources ----------------------------------------------------------------------------------


def test_trees_follow_their_sources_under_any_hash_seed(repo, capsys):
    """Under one that is told, and under the one of this process."""
    command = [sys.executable, "-B", "tools/make_notebooks.py", "--check"]
    # Without PATH: no command of others may be needed, in CI or in a hook.
    env = {**os.environ, "PYTHONHASHSEED": "1", "PATH": ""}
    done = subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert make_notebooks.main(["--check"], repo) == 0
    assert capsys.readouterr().err == ""


def test_check_names_what_differs_and_changes_nothing(repo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(make_notebooks, "EXERCISES", {n: e for n, e in EXERCISES.items() if e.stem == "puzzle"})
    root = copy_sources(repo, tmp_path, "puzzle")
    assert make_notebooks.main([], root) == 0
    assert make_notebooks.main(["--check"], root) == 0
    written = root / "exercises" / "puzzle" / "puzzle.ipynb"
    assert written.read_bytes() == (repo / "exercises" / "puzzle" / "puzzle.ipynb").read_bytes()

    changed = written.read_bytes() + b"\n"
    written.write_bytes(changed)
    (root / "solutions" / "puzzle" / "puzzle.ipynb").unlink()
    for folder in ("solutions", "exercises"):
        (root / folder / "gone").mkdir()
        (root / folder / "gone" / "gone.ipynb").write_text("{}")
    capsys.readouterr()
    assert make_notebooks.main(["--check"], root) == 1
    told = capsys.readouterr().err
    for sentence in (
        "solutions/puzzle/puzzle.ipynb is missing",
        "exercises/puzzle/puzzle.ipynb is different",
        "exercises/gone/gone.ipynb is stray",
        "solutions/gone/gone.ipynb is stray",
    ):
        assert sentence in told
    assert written.read_bytes() == changed
    assert not (root / "solutions" / "puzzle" / "puzzle.ipynb").exists()

    assert make_notebooks.main([], root) == 0
    assert make_notebooks.main(["--check"], root) == 0
    assert not (root / "exercises" / "gone").exists()


def test_a_file_that_somebody_put_into_exercises_is_named_and_kept(repo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(make_notebooks, "EXERCISES", {n: e for n, e in EXERCISES.items() if e.stem == "puzzle"})
    root = copy_sources(repo, tmp_path, "puzzle")
    mine = root / "exercises" / "puzzle" / "mine.ipynb"
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    assert make_notebooks.main([], root) == 1
    assert "exercises/puzzle/mine.ipynb" in capsys.readouterr().err
    assert mine.exists()


def test_a_chapter_without_text_is_named(repo, tmp_path, capsys):
    assert make_notebooks.main(["--check"], copy_sources(repo, tmp_path, "puzzle")) == 1
    told = capsys.readouterr().err
    assert "The exercise softmax has no text" in told
    assert "standardize has no text" not in told


# {what is wrong: (text of the source, what stands there instead, a piece of the sentence)}
EDGES = 'part="edges" points=3\ncheck(old'
CALL = 'check(old_output, "old_output", part="edges")'
NEEDS = "needs one line '### BEGIN SOLUTION'"
FAULTS = {
    "a duplicate grade_id": (
        'solution="old_output"',
        'solution="standardize"',
        "two cells have the grade_id standardize",
    ),
    "an unknown exercise": ('about="old_output"', 'about="new_output"', "about='new_output' names no exercise"),
    "another chapter's": ('about="old_output"', 'about="softmax"', "is an exercise of the chapter softmax"),
    "an unknown part": (EDGES, EDGES.replace("edges", "hedges"), "the part 'hedges'"),
    "no part": (EDGES, EDGES.replace('part="edges" ', ""), "the part None"),
    "no points": (EDGES, EDGES.replace(" points=3", ""), "the check of old_output, edges, needs points"),
    "points in words": (EDGES, EDGES.replace("3", '"3"'), "needs points"),
    "another call": (CALL, CALL.replace('"old_output"', '"standardize"'), f"is to be the one line {CALL}"),
    "no BEGIN": ("    ### BEGIN SOLUTION\n    import torch", "    import torch", NEEDS),
    "no END": ("* weight\n    ### END SOLUTION", "* weight", NEEDS),
    "another function": ("def old_output(", "def new_output(", "does not define old_output"),
    "no solution": ('# %% solution="old_output"', "# %%", "old_output has no cell old_output"),
    "no hints": ('[markdown] hints="old_output"', "[markdown]", "old_output has no cell hints-old_output"),
    "no setup": ("# %% setup=true", "# %%", "no cell is marked setup=true"),
    "code for text": ('[markdown] about="old_output"', 'about="old_output"', "the cell about-old_output is to be text"),
    "a hole in a prediction": (
        "prediction = 1\n### END INSTRUCTOR",
        "prediction = 1",
        "the prediction of scale is to be the four lines",
    ),
    "no comparison": ("compare(prediction, (norm", "print(prediction, (norm", "end with compare(prediction, ...)"),
    "a prediction without its question": ('ask="scale"', 'ask="size"', "the prediction of scale has no cell ask-scale"),
    "a prediction for no points": ('measure="scale" points=1', 'measure="scale"', "measure-scale needs points"),
    "a rubric that does not add up": ("- 1 point: says it", "- 2 points: says it", "that add up to its points, 4"),
    "another chapter's explanation": ('explain="puzzle"', 'explain="softmax"', "the name of the chapter, puzzle"),
    "no question to explain": ('[markdown] explain="puzzle"', "[markdown]", "has no cell explain-puzzle"),
    "two marks": ('hints="old_output"', 'hints="old_output" after="old_output"', "is marked both hints and after"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_source_is_named_and_nothing_is_written(repo, tmp_path, capsys, fault):
    before, after, sentence = FAULTS[fault]
    root = copy_sources(repo, tmp_path, "puzzle")
    source = root / "solutions" / "puzzle" / "puzzle.py"
    text = source.read_text()
    assert text.count(before) == 1
    source.write_text(text.replace(before, after))
    assert make_notebooks.main([], root) == 1
    told = capsys.readouterr().err
    assert "solutions/puzzle/puzzle.py: " in told
    assert sentence in told
    assert [path.name for path in root.rglob("*.ipynb")] == []


# -- What they hold --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", ["solutions", "exercises"])
def test_files_are_plain(repo, tree):
    for stem in STEMS:
        content = (repo / tree / stem / f"{stem}.ipynb").read_bytes()
        assert content.endswith(b"}\n")
        assert b"\r" not in content
        notebook = json.loads(content)
        assert notebook["metadata"] == make_notebooks.KERNEL
        nbformat.validate(notebook)
        for cell in notebook["cells"]:
            assert set(cell["metadata"]) <= {"nbgrader", "deletable", "editable"}
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None


@pytest.mark.parametrize("tree", ["solutions", "exercises"])
def test_grade_cells(repo, tree):
    for stem in STEMS:
        cells = graded(read(repo, tree, stem))
        asked = [identity.removeprefix("ask-") for identity in cells if identity.startswith("ask-")]
        wanted = {"setup"}
        if stem not in UNGRADED:
            assert asked
            wanted |= {f"explain-{stem}", f"explanation-{stem}"}
        wanted |= {f"{kind}-{name}" for kind in ("ask", "measure", "told") for name in asked}
        for name in (e.name for e in EXERCISES.values() if e.stem == stem):
            checks = {f"check-{name}-{part}": part for part in PARTS}
            wanted |= {name, f"about-{name}", f"hints-{name}", f"after-{name}", *checks}
            assert cells[name].metadata.nbgrader.solution
            assert not cells[name].metadata.nbgrader.locked
            for identity, part in checks.items():
                assert cells[identity].metadata.nbgrader.grade
                assert cells[identity].metadata.nbgrader.points == POINTS[part]
        assert set(cells) == wanted
        for identity, cell in cells.items():
            assert cell.id == identity
            own = identity in EXERCISES or identity.startswith("explanation-")
            assert cell.metadata.nbgrader.solution == own
            assert cell.metadata.nbgrader.locked != own
            assert cell.metadata.nbgrader.grade == identity.startswith(("check-", "measure-", "explanation-"))


def test_the_text_says_how_many_samples_the_check_draws(repo):
    text = (repo / "solutions" / "softmax" / "softmax.py").read_text(encoding="utf-8")
    assert f"The check draws {SAMPLES:,} samples" in text


def test_what_is_for_later_is_folded(repo):
    for stem in STEMS:
        for identity, cell in graded(read(repo, "exercises", stem)).items():
            if identity.startswith(("after-", "told-")):
                done = "passed" if identity.startswith("after-") else "predicted"
                assert cell.source.startswith(f"<details><summary>After you have {done}</summary>\n\n"), identity
                assert cell.source.endswith("\n\n</details>"), identity


def test_three_hints_open_one_after_another(repo):
    for stem in STEMS:
        for identity, cell in graded(read(repo, "exercises", stem)).items():
            if identity.startswith("hints-"):
                tags = re.findall(r"<(/?details)>|<summary>(.*?)</summary>", cell.source)
                nested = [
                    "details",
                    "Hint 1",
                    "details",
                    "Hint 2",
                    "details",
                    "Hint 3",
                    "/details",
                    "/details",
                    "/details",
                ]
                assert [tag or summary for tag, summary in tags] == nested, identity
                # Markdown begins again only after an empty line.
                assert cell.source.count("</summary>\n\n") == 3, identity


def test_release_publishes_no_answer(repo):
    assert sorted(p.name for p in (repo / "exercises").rglob("*") if p.is_file()) == [f"{s}.ipynb" for s in STEMS]
    for stem in STEMS:
        solved, released = graded(read(repo, "solutions", stem)), read(repo, "exercises", stem)
        assert not [cell.id for cell in released.cells if "SOLUTION" in cell.source or "INSTRUCTOR" in cell.source]
        for cell in released.cells:
            if cell.id.startswith("prediction-"):
                assert cell.source == "prediction = None  # yours"
            if cell.id.startswith("explanation-"):
                assert cell.source == "*Your paragraph here: a double click opens this cell.*"
        stubs = graded(released)
        lines = {kind: set() for kind in ("code", "markdown")}
        for cell in released.cells:
            lines[cell.cell_type] |= {line.strip() for line in cell.source.splitlines()}
        for name in (e.name for e in EXERCISES.values() if e.stem == stem):
            # A class has a hole in each method.
            pieces = re.split(r"( *)### (?:BEGIN|END) SOLUTION\n?", solved[name].source)
            kept, solution = pieces[::4], "".join(pieces[2::4])
            stubbed = kept[0]
            for indent, after in zip(pieces[1::4], kept[1:], strict=True):
                stubbed += f"{indent}# your code here\n{indent}raise NotImplementedError\n{after}"
            assert stubs[name].source == stubbed.rstrip("\n")
            body = [line.strip() for line in solution.splitlines() if line.strip()]
            assert lines["code"].isdisjoint(body), name
            # A text may show a line of a snippet that the exercise is about, but never how the answer ends.
            assert body[-1] not in lines["markdown"], name


# -- What they do ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernel():
    """One kernel for all notebooks: to start it and to import PyTorch takes longer than what most of them do."""
    manager = KernelManager()
    manager.start_kernel()
    yield manager
    manager.shutdown_kernel(now=True)


def executed(notebook, manager, folder, **options):
    """The notebook after it ran in `folder`, with no name left of the notebook before it."""
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    for command in ("%reset -sf", f"%cd -q {folder}"):
        assert client.execute_interactive(command, timeout=60)["content"]["status"] == "ok"
    client.stop_channels()
    # One print may arrive in pieces.
    options |= {"timeout": 120, "coalesce_streams": True}
    runner = nbclient.NotebookClient(notebook, km=manager, **options)
    try:
        return runner.execute()
    finally:
        runner.kc.stop_channels()


def execute(repo, tree, stem, folder, kernel, **options):
    """{grade_id: cell} of a notebook that ran, with all others in folders beside it: the capstone collects them."""
    for source in (repo / tree).glob("*/*.ipynb"):
        (folder / source.stem).mkdir()
        shutil.copy(source, folder / source.stem)
    return graded(executed(read(repo, tree, stem), kernel, folder / stem, **options))


def test_a_notebook_knows_no_name_of_the_one_before(kernel, tmp_path):
    """Else a notebook that forgot an import would pass here, and fail for everybody who opens it alone."""

    def outputs(source):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        (cell,) = executed(notebook, kernel, tmp_path, allow_errors=True).cells
        return cell.outputs

    assert outputs("import numpy as np\nhere = 1") == []
    for name in ("np", "here"):
        assert [output.ename for output in outputs(name)] == ["NameError"]
    (shown,) = outputs("import os\nprint(os.getcwd())")
    assert shown.text == f"{tmp_path}\n"


# The capstone's notebook has every exercise checked, as the book's page and tests/test_capstone.py do. Of the others,
# one half here and the stubs of the other half; `make prove` runs all of both, and with them the chapter on training,
# whose notebook trains for a while in either tree.
ORDINARY = [stem for stem in STEMS if stem not in ("capstone", "training")]


def only(stems):
    return [stem if stem in stems else pytest.param(stem, marks=pytest.mark.exhaustive) for stem in STEMS]


@pytest.mark.slow
@pytest.mark.parametrize("stem", only(ORDINARY[::2]))
def test_every_solution_passes(repo, tmp_path, kernel, stem):
    for identity, cell in execute(repo, "solutions", stem, tmp_path, kernel).items():
        if identity.startswith(("check-", "measure-")):
            (output,) = cell.outputs
            # Anything on stderr costs all points in nbgrader, and so would an error; a value could count as points.
            assert (output.output_type, output.name) == ("stream", "stdout"), identity
            assert output.text.count("\n") == 1
            assert ("right on" if identity.startswith("check-") else "Your prediction matches") in output.text


@pytest.mark.slow
@pytest.mark.parametrize("stem", only(ORDINARY[1::2]))
def test_every_stub_fails_with_a_sentence(repo, tmp_path, kernel, stem):
    cells = execute(repo, "exercises", stem, tmp_path, kernel, allow_errors=True)
    for name in (e.name for e in EXERCISES.values() if e.stem == stem):
        for part in PARTS:
            (output,) = cells[f"check-{name}-{part}"].outputs
            assert (output.output_type, output.ename) == ("error", "CheckFailed")
            assert output.evalue.startswith(f"{name} is not written yet")
            assert " ".join(output.traceback).split() == output.evalue.split()
    for identity, cell in cells.items():
        if identity.startswith("measure-"):
            (output,) = cell.outputs
            assert (output.ename, output.evalue.split(":")[0]) == ("CheckFailed", "Say first what you expect")
    assert not cells["setup"].outputs
