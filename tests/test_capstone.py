"""A learner's whole module: collected from notebooks, every exercise of it checked, and timed beside torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from normlab import bench_yours, check_all, collect
from normlab import check as check_module
from normlab.exercises import EXERCISES

REPO = Path(__file__).resolve().parent.parent
KEYS = ["exercise", "file", "accepted", "reason", "mistake", "state"]
CORE = [name for name, exercise in EXERCISES.items() if exercise.core]

# Limits of a run that is to be over soon.
QUICK = """
import sys
from normlab import apart, check, guard, learner
guard.CALL_SECONDS, learner.IMPORT_SECONDS, apart.FILE_SECONDS, apart.FILE_BYTES = 1.0, 1.5, 12.0, 1 << 30
sys.exit(check.main(sys.argv[1:]))
"""

# What is put below a right module, and what becomes of the exercise.
PLANTED = {
    "softmax": (
        "def softmax(x, axis=-1):\n    e = np.exp(x)\n    return e / e.sum(axis, keepdims=True)\n",
        ("refused", "no-maximum", "subtract the maximum of each slice"),
    ),
    "min_max": ("del min_max\n", ("missing", None, "min_max is not written yet: the file does not define it.")),
    "z_score": (
        "def z_score(x, axis=-1, eps=1e-5):\n    raise NotImplementedError\n",
        ("missing", None, "z_score is not written yet: it raises NotImplementedError."),
    ),
    "welford": ("def welford(stream):\n    while True: pass\n", ("refused", None, "does not return within 1 seconds")),
    "layer_norm": (
        "def layer_norm(*args, **kwargs):\n    import ctypes\n    ctypes.string_at(0)\n",
        ("unchecked", None, "ends its own process"),
    ),
    "rms_norm": (
        "def rms_norm(*args, **kwargs):\n    import signal\n    signal.pthread_sigmask(signal.SIG_BLOCK, {14, 27})\n"
        "    while True: pass\n",
        ("unchecked", None, "does not finish within 12 seconds"),
    ),
    "logsumexp": ("logsumexp = 3\n", ("refused", None, "check needs the function itself")),
}
UNUSABLE = {
    "hangs.py": ("while True: pass\n", "does not return within 1.5 seconds"),
    "exits.py": ("import sys; sys.exit(0)\n", "exits while it is imported."),
    "kills.py": ("import os; os.kill(os.getpid(), 9)\n", "ends its own process"),
    "syntax.py": ("def softmax(x:\n", "is not valid Python: "),
}


def run(*arguments, program=("-m", "normlab.check"), **environment):
    """(exit status, stdout, stderr) of a command line."""
    plain = {"PYTHONPATH": str(REPO), "NORMLAB_SECRET_FILE": "", "COLUMNS": "80", "NO_COLOR": "1", "FORCE_COLOR": ""}
    environment = os.environ | plain | environment
    command = [sys.executable, *program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout, done.stderr


def in_process(capsys, *arguments, program=check_module.main):
    """The same within this process: for what starts nothing heavy."""
    status = program([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A module collected from the solutions."""
    path = tmp_path_factory.mktemp("right") / "my_normlab.py"
    assert collect.main([str(REPO / "solutions"), "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def planted(right, tmp_path_factory):
    """The same, as JSON, for a module in which some answers are bad in as many ways; and the path of that module."""
    path = tmp_path_factory.mktemp("planted") / "mine.py"
    path.write_text(right.read_text() + "".join(f"\n\n{source}" for source, _ in PLANTED.values()))
    return *run("--all", path, "--json", program=("-c", QUICK)), path


# ---- --all -----------------------------------------------------------------------------------------------------------


def test_a_right_module_is_accepted_whole(soup):
    """The chapter checks the collected solutions when it is built, and shows what was printed."""
    (out,) = (
        text
        for text in (pre.get_text() for pre in soup("book/capstone").select("article .output pre"))
        if text.startswith("exercise") and "refused" not in text
    )
    lines = out.strip().splitlines()
    found = [line.split() for line in lines[2:-2]]
    assert found == [[name, *["*"] * exercise.core, "accepted"] for name, exercise in EXERCISES.items()]
    count = len(EXERCISES)
    assert lines[-1] == f"my_normlab.py: passed {count} of {count}, of the core {len(CORE)} of {len(CORE)}. (* core)"
    assert not any(line != line.rstrip() for line in lines)


def test_each_bad_answer_costs_its_own_row(planted):
    status, out, err, path = planted
    assert (status, err) == (2, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["exercise"] for row in rows] == list(EXERCISES)
    for row in rows:
        assert list(row) == KEYS
        assert row["file"] == str(path)
        assert row["accepted"] == (row["state"] == "accepted") == (row["reason"] is None)
        if row["exercise"] not in PLANTED:
            assert row["accepted"], row
            continue
        state, mistake, words = PLANTED[row["exercise"]][1]
        assert (row["state"], row["mistake"]) == (state, mistake), row
        assert words in row["reason"]


def rows_of(planted):
    """What the planted module's table is printed from."""
    rows = [json.loads(line) for line in planted[1].splitlines()]
    return {row["exercise"]: (row["state"], row["reason"], row["mistake"]) for row in rows}


@pytest.mark.parametrize("rich", [True, False])
def test_the_table_fits_80_columns_and_cuts_nothing_off(planted, monkeypatch, capsys, rich):
    judged = rows_of(planted)
    monkeypatch.setenv("COLUMNS", "80")
    if not rich:
        monkeypatch.setitem(sys.modules, "rich", None)
        monkeypatch.setitem(sys.modules, "rich.console", None)
    rows = [(name, check_all.WORDS[state], said) for name, state, said in check_all._rows(judged)]
    check_all._print_table(("exercise", "verdict", ""), rows)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert ("─" in out) == rich
    column = min(len(line) - len(line.lstrip()) for line in out.splitlines() if line.startswith(" " * 30))
    words = " ".join(line[column:].strip() for line in out.splitlines()).split()
    for name, (_, sentence, mistake) in judged.items():
        said = (sentence or "").removeprefix(f"{name}: ").removeprefix(f"{name} is not written yet: ")
        assert " ".join(words).count(said) >= 1, said
        assert mistake is None or f"({mistake})" in words


def test_the_total_counts_what_is_there(planted):
    judged = rows_of(planted)
    states = {name: state for name, (state, _, _) in judged.items()}
    good, core = len(EXERCISES) - len(PLANTED), len(CORE) - sum(name in CORE for name in PLANTED)
    assert check_all.total(states) == (
        f"passed {good} of {len(EXERCISES)}, of the core {core} of {len(CORE)}; 3 refused; 2 not written; 2 not checked"
    )


def test_statuses():
    for states, status in ((["accepted"] * 2, 0), (["accepted", "missing"], 1), (["refused", "unchecked"], 2)):
        assert check_all.status(dict(enumerate(states))) == status


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_file_that_cannot_be_imported_is_one_sentence(name, tmp_path, monkeypatch, capsys):
    source, words = UNUSABLE[name]
    (tmp_path / name).write_text(source)
    monkeypatch.setattr("normlab.learner.IMPORT_SECONDS", 1.5)
    monkeypatch.delenv("NORMLAB_SECRET_FILE", raising=False)
    status, out, err = in_process(capsys, "--all", tmp_path / name)
    assert (status, err, out.count("\n")) == (2, "", 1)
    assert words in out
    assert out.endswith("Nothing could be checked.\n")
    status, out, _ = in_process(capsys, "--all", "--json", tmp_path / name)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 2
    assert [(row["exercise"], row["state"]) for row in rows] == [(name, "unchecked") for name in EXERCISES]


def test_what_stands_above_an_error_is_still_checked(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NORMLAB_SECRET_FILE", raising=False)
    (tmp_path / "half.py").write_text("def mutant_hunt(candidate):\n    raise NotImplementedError\n1 / 0\n")
    status, out, _ = in_process(capsys, "--all", "--json", tmp_path / "half.py")
    rows = {row["exercise"]: row for row in map(json.loads, out.splitlines())}
    assert status == 2
    assert rows["mutant_hunt"]["state"] == "missing"
    assert rows["softmax"]["reason"] == "softmax: the file does not run: ZeroDivisionError (division by zero)."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--all",), "--all takes one file"),
        (("--all", "a.py", "b.py"), "--all takes one file"),
        (("softmax", "a.py", "--bench"), "--bench goes with --all"),
    ],
)
def test_wrong_arguments(capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        check_module.main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_a_bar_on_a_terminal_and_none_elsewhere(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes anything for a terminal then
    with check_all._progress(2) as step:
        step("softmax")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with check_all._progress(2) as step:
        step("softmax")
    captured = capsys.readouterr()
    assert "softmax" in captured.err
    assert captured.out == ""


# ---- --bench ---------------------------------------------------------------------------------------------------------


def test_what_is_timed_are_exercises_and_every_size_has_one_number_of_elements():
    assert (
        {"softmax", "layer_norm", "layer_norm_backward", "cross_entropy", "two_pass_variance"}
        <= {*bench_yours.TIMED}
        <= {*EXERCISES}
    )
    for name in bench_yours.TIMED:
        counts = []
        for shape in bench_yours.shapes(name):
            size = 1
            for length in shape:
                size *= length
            counts.append(size)
        assert counts == [*bench_yours.SIZES.values()], name


def test_only_what_was_accepted_is_timed(planted, capsys):
    """On the planted module: every kind of answer that is timed, once; and of the others none is started."""
    path = planted[-1]
    states = {name: state for name, (state, _, _) in rows_of(planted).items()}
    wanted = {"cross_entropy", "batch_norm_backward", "two_pass_variance", "softmax", "layer_norm", "rms_norm"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_yours, "TIMED", {n: v for n, v in bench_yours.TIMED.items() if n in wanted})
        patch.setattr(bench_yours, "ROUNDS", 2)
        results = check_all._beside_torch(path, states, lambda name: None)
    assert {*results} == wanted
    for name in ("cross_entropy", "batch_norm_backward", "two_pass_variance"):
        sizes = results[name]["sizes"]
        assert [tuple(size["shape"]) for size in sizes] == list(bench_yours.shapes(name))
        for size in sizes:
            assert {*size["seconds"]} == {"torch", "yours"}
            assert all(seconds > 0 for seconds in size["seconds"].values())
            assert size["ratio"][0] <= size["ratio"][1] <= size["ratio"][2]
    assert results["softmax"] == {"why_not": "not timed: refused"}
    assert results["layer_norm"] == {"why_not": "not timed: not checked"}
    check_all._print_table(("exercise", "small", "large"), check_all._bench_rows(results))
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[2:]}
    assert "not timed: refused" in lines["softmax"]
    assert lines["cross_entropy"].count("er") + lines["cross_entropy"].count("as fast") >= 2


def test_a_slow_function_is_called_slow(tmp_path, right):
    """0.05 s of sleep beside a softmax of microseconds."""
    slow = "\n\nimport time\n_right = softmax\n"
    slow += "def softmax(x, axis=-1):\n    time.sleep(0.05)\n    return _right(x, axis)\n"
    (tmp_path / "slow.py").write_text(right.read_text() + slow)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_yours, "TIMED", {"softmax": bench_yours.TIMED["softmax"]})
        patch.setattr(bench_yours, "ROUNDS", 2)
        results = check_all._beside_torch(tmp_path / "slow.py", {"softmax": "accepted"}, lambda name: None)
    small, _ = results["softmax"]["sizes"]
    assert small["seconds"]["yours"] >= 0.05
    assert small["ratio"][1] > 10
    assert next(iter(check_all._bench_rows(results)))[1].endswith("x slower")


# ---- collecting ------------------------------------------------------------------------------------------------------


def notebook(path, *sources, graded=None):
    """Writes a notebook with these code cells; `graded`: {number of the cell: exercise}."""
    cells = [{"cell_type": "markdown", "metadata": {}, "source": "def softmax(x): text"}]
    for number, source in enumerate(sources):
        known = {"nbgrader": {"grade_id": graded[number], "solution": True}} if number in (graded or {}) else {}
        lines = source.splitlines(keepends=True)
        cells.append({"cell_type": "code", "metadata": known, "source": lines, "outputs": []})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "nbformat": 4, "metadata": {}}))


def test_the_header_names_every_notebook(right):
    text = right.read_text()
    for stem in {exercise.stem for exercise in EXERCISES.values()}:
        names = ", ".join(name for name, exercise in EXERCISES.items() if exercise.stem == stem)
        assert f"solutions/{stem}/{stem}.ipynb: {names}\n" in text
    assert "check(" not in text
    assert "normlab.check" not in text
    assert "### " not in text


def test_only_what_an_answer_needs_is_taken(tmp_path):
    notebook(
        tmp_path / "work" / "softmax.ipynb",
        "import numpy as np\nimport scipy\nfrom normlab.check import check",
        "%matplotlib inline\nSMALL, LARGE = 0.0, 1.0\nprint('experiment')\nx = np.zeros(3)",
        "def unused():\n    return scipy",
        "# why it is so\n@staticmethod\ndef helper(x):\n    return wide(x) + LARGE  # a note\n\n\nhelper(1)",
        "def wide(x):\n    return 1",
        "def softmax(x, axis=-1):\n    ### BEGIN SOLUTION\n    return helper(x) * np.pi\n    ### END SOLUTION",
        "check(softmax, 'softmax')",
        "def wide(x):\n    return x; print('semicolon')",
        graded={5: "softmax"},
    )
    found = collect.collect(tmp_path / "work")
    assert (list(found.taken), found.problems, found.stubs) == (["softmax"], [], [])
    code = found.code
    for wanted in (
        "import numpy as np\n",
        "SMALL, LARGE = 0.0, 1.0",
        "# why it is so\n@staticmethod\ndef helper(x):\n    return wide(x) + LARGE  # a note",
        "def wide(x):\n    return x; print('semicolon')",
        "def softmax(x, axis=-1):\n    return helper(x) * np.pi",
    ):
        assert wanted in code
    for unwanted in ("scipy", "check(", "experiment", "zeros", "unused", "helper(1)", "return 1", "###"):
        assert unwanted not in code
    compile(code, "my_normlab.py", "exec")


def test_the_graded_cell_counts_unless_it_is_a_stub(tmp_path):
    stub = "def softmax(x, axis=-1):\n    '''Text.'''\n    # your code here\n    raise NotImplementedError"
    mine = "def softmax(x, axis=-1):\n    return 'mine'\n    raise NotImplementedError"
    trial = "def softmax(x, axis=-1):\n    return 'trial'"
    notebook(tmp_path / "a" / "softmax.ipynb", mine, trial, graded={0: "softmax"})
    notebook(tmp_path / "b" / "softmax.ipynb", stub, trial, graded={0: "softmax"})
    notebook(tmp_path / "c" / "softmax.ipynb", stub, graded={0: "softmax"})
    assert "'mine'" in collect.collect(tmp_path / "a").code
    assert "'trial'" not in collect.collect(tmp_path / "a").code
    assert "'trial'" in collect.collect(tmp_path / "b").code
    assert collect.collect(tmp_path / "c").stubs == ["softmax"]
    module = "class BatchNorm:\n    def __init__(self):\n        raise NotImplementedError()"
    notebook(tmp_path / "d" / "running.ipynb", module, graded={0: "BatchNorm"})
    assert collect.collect(tmp_path / "d").stubs == ["BatchNorm"]


def test_helpers_of_one_name_in_two_notebooks(tmp_path):
    one, other = "def wide(x):\n    return x", "def wide(x):\n    return 2 * x"
    answers = {
        "softmax": "def softmax(x, axis=-1):\n    return wide(x)",
        "z_score": "def z_score(x):\n    return wide(x)",
    }
    for name, answer in answers.items():
        notebook(tmp_path / "same" / f"{name}.ipynb", "import torch.nn as nn", f"{one}  # {name}", answer)
        notebook(tmp_path / "other" / f"{name}.ipynb", one if name == "softmax" else other, answer)
    found = collect.collect(tmp_path / "same")
    assert (list(found.taken), found.problems) == (["z_score", "softmax"], [])
    assert found.code.count("def wide(") == 1
    found = collect.collect(tmp_path / "other")
    assert list(found.taken) == ["z_score"]
    (problem,) = found.problems
    assert problem.startswith("softmax is kept out: it uses a wide of ")
    assert found.code.count("def wide(") == 1


def test_a_helper_with_the_name_of_an_exercise(tmp_path):
    """attention uses a softmax of its own notebook: another than the answer is named, the same is the answer."""
    answer = "def softmax(x, axis=-1):\n    return x"
    notebook(tmp_path / "work" / "softmax.ipynb", answer, graded={0: "softmax"})
    uses = "def attention(q, blocks, scale):\n    return softmax(q)"
    notebook(tmp_path / "work" / "attention.ipynb", answer, uses, graded={1: "attention"})
    found = collect.collect(tmp_path / "work")
    assert (list(found.taken), found.problems) == (["softmax", "attention"], [])
    assert found.code.count("def softmax(") == 1
    notebook(tmp_path / "work" / "attention.ipynb", "def softmax(x):\n    return -x", uses, graded={1: "attention"})
    found = collect.collect(tmp_path / "work")
    assert list(found.taken) == ["softmax"]
    assert "attention is kept out: it uses a softmax of" in found.problems[0]


def test_broken_cells_and_notebooks_are_named_and_the_rest_is_taken(tmp_path, capsys):
    work, output = tmp_path / "work", tmp_path / "my_normlab.py"
    notebook(work / "good.ipynb", "def softmax(x, axis=-1:\n    pass", "def z_score(x):\n    return x")
    (work / "bad.ipynb").write_text("{")
    (work / ".ipynb_checkpoints").mkdir()
    (work / ".ipynb_checkpoints" / "good-checkpoint.ipynb").write_text("{")
    status, out, err = in_process(capsys, work, "-o", output, program=collect.main)
    assert status == 1
    assert "bad.ipynb is not a notebook" in err
    assert "good.ipynb: code cell 1 is not valid Python and is kept out: " in err
    assert err.count("\n") == 2
    assert f"{output}: 1 of {len(EXERCISES)} exercises." in out
    assert "def z_score" in output.read_text()


def test_nothing_is_overwritten_unless_told(tmp_path, capsys):
    output = tmp_path / "my_normlab.py"
    output.write_text("mine")
    notebook(tmp_path / "work" / "a.ipynb", "def z_score(x):\n    return x")
    status, out, err = in_process(capsys, tmp_path / "work", "-o", output, program=collect.main)
    assert (status, out, output.read_text()) == (2, "", "mine")
    assert "is there already" in err
    assert in_process(capsys, tmp_path / "work", "-o", output, "--force", program=collect.main)[0] == 0
    assert "def z_score" in output.read_text()


def test_folders_without_anything(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, words in (("none", "does not exist."), ("empty", "holds no notebooks."), ("file", "is not a folder.")):
        status, out, err = in_process(capsys, tmp_path / name, "-o", tmp_path / "o.py", program=collect.main)
        assert (status, out) == (2, "")
        assert err.endswith(f"{words}\n")
    status, _, err = in_process(capsys, REPO / "exercises", "-o", tmp_path / "o.py", program=collect.main)
    assert status == 2, "a release has stubs alone"
    assert "nothing was collected" in err
    assert not (tmp_path / "o.py").exists()
