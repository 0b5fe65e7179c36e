"""python -m normlab.check: verdicts, exit statuses, and files that misbehave."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from ways import WAYS

from normlab import check as check_module
from normlab.exercises import EXERCISES
from normlab.mistakes import MISTAKES

REPO = Path(__file__).resolve().parent.parent
STYLES = REPO / "tests" / "styles"
KEYS = ["exercise", "file", "accepted", "reason", "mistake"]

RIGHT = """
import numpy as np

def softmax(x, axis=-1):
    z = x.astype(np.promote_types(x.dtype, np.float32))
    e = np.exp(z - z.max(axis, keepdims=True))
    return (e / e.sum(axis, keepdims=True)).astype(x.dtype)
"""
WRONG = RIGHT.replace("z - z.max(axis, keepdims=True)", "z")

# The limits of a run that is to be over soon.
QUICK = """
import sys
from normlab import apart, check, guard, learner
guard.CALL_SECONDS, learner.IMPORT_SECONDS, apart.FILE_SECONDS, apart.FILE_BYTES = 0.7, 1.5, 4.0, 1 << 30
sys.exit(check.main(sys.argv[1:]))
"""


def run(*arguments, program=("-m", "normlab.check"), secret=""):
    """(exit status, stdout, stderr) of the command line."""
    environment = os.environ | {"PYTHONPATH": str(REPO), "NORMLAB_SECRET_FILE": str(secret)}
    command = [sys.executable, *program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, input="what is typed")
    return done.returncode, done.stdout, done.stderr


def main(capsys, *arguments):
    """(exit status, stdout, stderr) of the command line within this process."""
    status = check_module.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(autouse=True)
def _public(monkeypatch):
    monkeypatch.delenv("NORMLAB_SECRET_FILE", raising=False)


@pytest.fixture
def write(tmp_path):
    """A function: name, source -> path of the file."""

    def write_one(name, source):
        (tmp_path / name).write_text(textwrap.dedent(source))
        return tmp_path / name

    return write_one


# ---- words and statuses ----------------------------------------------------------------------------------------------


def test_list_names_every_exercise(capsys):
    assert main(capsys, "--list") == (0, "\n".join(EXERCISES) + "\n", "")


def test_statuses_and_lines(capsys, write):
    right, wrong, none = write("right.py", RIGHT), write("wrong.py", WRONG), write("none.py", "x = 1\n")
    assert main(capsys, "softmax", right) == (0, f"{right}: accepted\n", "")

    status, out, err = main(capsys, "softmax", right, wrong)
    assert (status, err) == (1, "")
    first, second = out.splitlines()
    assert first == f"{right}: accepted"
    assert second.startswith(f"{wrong}: softmax: on logits near 1000, ")
    assert "; yours takes no maximum out before exp, which overflows" in second
    assert second.endswith("subtract the maximum of each slice.")

    status, out, err = main(capsys, "softmax", none, wrong, right)
    assert (status, err) == (2, "")
    assert out.splitlines()[0] == f"{none}: softmax: the file has no function softmax."
    assert len(out.splitlines()) == 3


def test_json_lines(capsys, write):
    right, wrong, none = write("right.py", RIGHT), write("wrong.py", WRONG), write("none.py", "x = 1\n")
    status, out, _ = main(capsys, "softmax", "--json", right, wrong, none)
    verdicts = [json.loads(line) for line in out.splitlines()]
    assert status == 2
    assert [list(verdict) for verdict in verdicts] == [KEYS] * 3
    assert verdicts[0] == dict(zip(KEYS, ["softmax", str(right), True, None, None], strict=True))
    assert [verdict["accepted"] for verdict in verdicts] == [True, False, False]
    assert [verdict["mistake"] for verdict in verdicts] == [None, "no-maximum", None]
    assert [verdict["file"] for verdict in verdicts] == [str(right), str(wrong), str(none)]


def test_an_unknown_exercise_names_the_near_ones(capsys, write):
    right = write("right.py", RIGHT)
    status, out, err = main(capsys, "sofmax", right)
    assert (status, out) == (2, "")
    assert err.startswith("there is no exercise 'sofmax': did you mean softmax")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name an exercise and a file, or --list"),
        (("softmax",), "name a file that defines softmax(x, axis=-1)"),
    ],
)
def test_too_few_arguments(capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        main(capsys, *arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_a_secret_that_cannot_be_read(capsys, write, monkeypatch, tmp_path):
    monkeypatch.setenv("NORMLAB_SECRET_FILE", str(tmp_path / "missing"))
    status, out, err = main(capsys, "softmax", write("right.py", RIGHT))
    assert (status, out) == (2, "")
    assert err == "NORMLAB_SECRET_FILE cannot be read: No such file or directory.\n"


# ---- files that misbehave --------------------------------------------------------------------------------------------

AT_IMPORT = "(while the file is imported)."
ENDS = "ends its own process (exit, a crash, or too much memory)."
LOOP = "look for a loop that never ends"
NO_PRINT = "prints more than 100,000 characters: remove the print from the loop"
NO_EXIT = "ends the whole process (os._exit): a function returns or raises"
NO_INPUT = "asks for input: a function gets all it needs as arguments"

UNCHECKABLE = {
    "syntax.py": ("def softmax(x:\n", "is not valid Python: "),
    "raises.py": ("1 / 0\n", "does not run: ZeroDivisionError (division by zero)."),
    "import.py": ("import no_such_library\n", "does not run: ModuleNotFoundError (No module named 'no_such_library')."),
    "hangs.py": ("while True: pass\n", f"does not return within 1.5 seconds: {LOOP} {AT_IMPORT}"),
    "stubborn.py": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGPROF})\nwhile True: pass\n",
        "does not finish within 4 seconds.",
    ),
    "exits.py": ("import sys; sys.exit(0)\n", "exits while it is imported."),
    "os_exit.py": ("import os; os._exit(0)\n", f"{NO_EXIT} {AT_IMPORT}"),
    "os_exit_of_old.py": ("from posix import _exit; _exit(0)\n", ENDS),
    "crashes.py": ("import ctypes; ctypes.string_at(0)\n", ENDS),
    "kills.py": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n", ENDS),
    "memory.py": ("x = bytearray(64 << 30)\n", "does not run: MemoryError."),
    "prints.py": ("print('y' * 10_000_000)\n" + RIGHT, f"{NO_PRINT} {AT_IMPORT}"),
    "mute.py": ("class E(Exception):\n    def __str__(self): raise E\nraise E\n", "does not run: E."),
    "notes.txt": (RIGHT, "is not a Python file: its name must end in .py."),
    "binary.py": ("\0\1\2\n", "is not valid Python: "),
    "asks.py": ("input()\n", f"{NO_INPUT} {AT_IMPORT}"),
    "interrupt.py": ("raise KeyboardInterrupt\n", "does not run: KeyboardInterrupt."),
}

REFUSED = {
    "call_hangs.py": (
        "def softmax(x, axis=-1):\n    while True: pass\n",
        f"yours does not return within 0.7 seconds: {LOOP}.",
    ),
    "call_exits.py": ("def softmax(x, axis=-1): raise SystemExit\n", "yours calls exit: a function returns or raises."),
    "call_os_exit.py": ("import os\ndef softmax(x, axis=-1): os._exit(0)\n", f"yours {NO_EXIT}."),
    "call_prints.py": ("def softmax(x, axis=-1):\n    while True: print('y' * 1000)\n", f"yours {NO_PRINT}."),
    "call_memory.py": (
        "import numpy as np\ndef softmax(x, axis=-1):\n    kept = []\n    while True: kept.append(np.empty(1 << 25))\n",
        "yours raises MemoryError",
    ),
    "call_asks.py": ("def softmax(x, axis=-1): return float(input())\n", f"yours {NO_INPUT}."),
    "signature.py": (
        "def softmax(x): return x\n",
        "softmax: the signature is to be softmax(x, axis=-1); yours takes (x).",
    ),
    "value.py": ("softmax = 3\n", "softmax: check needs the function itself, and was given an int."),
    "stub.py": (
        "def softmax(x, axis=-1): raise NotImplementedError\n",
        "softmax is not written yet: it raises NotImplementedError.",
    ),
    "torch.softmax.py": (
        "from torch.nn.functional import softmax as s\nimport torch\n"
        "def softmax(x, axis=-1): return s(torch.tensor(x), axis).numpy()\n",
        "yours calls torch's softmax: this exercise is to write it, with NumPy.",
    ),
    "wrong.py": (WRONG, "subtract the maximum of each slice."),
}

ENDS_IN_A_CALL = {
    "call_crashes.py": "import ctypes\ndef softmax(x, axis=-1): ctypes.string_at(0)\n",
    "call_leaves.py": "from posix import _exit\ndef softmax(x, axis=-1): _exit(0)\n",
    "call_kills.py": "import os\ndef softmax(x, axis=-1): os.kill(os.getpid(), 9)\n",
}

ACCEPTED = {
    "right.py": RIGHT,
    "raises_below.py": RIGHT + "\nraise RuntimeError('after the function')\n",
    "reads.py": "import os\nassert os.read(0, 1) == b''\n" + RIGHT,
    "helper_beside.py": "from beside import softmax\n",
    "loud.py": "import sys, os, warnings\nwarnings.warn('w')\nprint('out')\nprint('err', file=sys.stderr)\n"
    "os.system('echo x >&2')\n" + RIGHT,
    "with spaces é.py": RIGHT,
    "dataclass.py": "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    "@dataclass\nclass C:\n    a: int\n" + RIGHT,
}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """name -> verdict of all of these files and of some that are none, from one call; with its status, and time."""
    folder = tmp_path_factory.mktemp("files")
    sources = {**ACCEPTED, **ENDS_IN_A_CALL}
    sources |= {name: source for table in (UNCHECKABLE, REFUSED) for name, (source, _) in table.items()}
    for name, source in sources.items():
        (folder / name).write_text(source)
    (folder / "beside.py").write_text(RIGHT)
    (folder / "folder.py").mkdir()
    (folder / "unreadable.py").symlink_to(folder / "nowhere")
    names = [*sources, "folder.py", "missing.py", "unreadable.py", "right.py"]
    started = time.monotonic()
    status, out, err = run("softmax", "--json", *(folder / name for name in names), program=("-c", QUICK))
    lines = [json.loads(line) for line in out.splitlines()]
    assert [verdict["file"] for verdict in lines] == [str(folder / name) for name in names]
    found = dict(zip(names, lines, strict=True))
    return found, status, err, time.monotonic() - started


def test_many_bad_files_in_one_call(verdicts):
    found, status, err, seconds = verdicts
    assert status == 2
    assert err == "", "nothing of ours, and nothing of theirs"
    assert seconds < 60
    for name, verdict in found.items():
        assert list(verdict) == KEYS, name
        assert "Traceback" not in str(verdict["reason"]), name
        assert "\n" not in str(verdict["reason"]), name


@pytest.mark.parametrize("name", UNCHECKABLE)
def test_a_file_that_cannot_be_checked(verdicts, name):
    verdict = verdicts[0][name]
    assert (verdict["accepted"], verdict["mistake"]) == (False, None)
    assert verdict["reason"].startswith(f"softmax: the file {UNCHECKABLE[name][1]}")


@pytest.mark.parametrize("name", ENDS_IN_A_CALL)
def test_a_function_that_ends_the_process(verdicts, name):
    verdict = verdicts[0][name]
    assert not verdict["accepted"]
    assert verdict["reason"] == f"softmax: the file {ENDS}"


@pytest.mark.parametrize(
    ("name", "words"),
    [("folder.py", "is not a file."), ("missing.py", "does not exist."), ("unreadable.py", "does not exist.")],
)
def test_a_file_that_is_none(verdicts, name, words):
    assert verdicts[0][name]["reason"] == f"softmax: the file {words}"


@pytest.mark.parametrize("name", REFUSED)
def test_a_function_that_is_refused(verdicts, name):
    verdict = verdicts[0][name]
    assert not verdict["accepted"]
    assert REFUSED[name][1] in verdict["reason"]


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_function_that_is_accepted(verdicts, name):
    assert verdicts[0][name] | {"file": ""} == dict(zip(KEYS, ["softmax", "", True, None, None], strict=True))


def test_a_process_that_a_file_leaves_behind_is_ended(write, capsys, tmp_path):
    source = f"import subprocess\nsubprocess.Popen(['sh', '-c', 'sleep 1.5; touch {tmp_path}/alive'])\n" + RIGHT
    status, _, _ = main(capsys, "softmax", write("leaves.py", source))
    time.sleep(2)
    assert status == 0
    assert not (tmp_path / "alive").exists()


def test_as_a_programme(write):
    """What the other tests call within one process, as a user calls it."""
    right, wrong = write("right.py", RIGHT), write("wrong.py", WRONG)
    status, out, err = run("softmax", right, wrong, "--json")
    assert (status, err) == (1, "")
    assert [json.loads(line)["mistake"] for line in out.splitlines()] == [None, "no-maximum"]
    status, out, err = run("--list")
    assert (status, out.split(), err) == (0, list(EXERCISES), "")


def test_a_reader_that_has_read_enough(write):
    right = write("right.py", RIGHT)
    command = f"{sys.executable} -m normlab.check softmax {right} {right} {right} | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, cwd=REPO)
    assert (done.stdout, done.stderr) == (f"{right}: accepted\n", "")


# ---- the same verdict as check() -------------------------------------------------------------------------------------

EVERY_EXERCISE = """
import json, sys
from normlab import check
for name, files in json.load(open(sys.argv[1])).items():
    for file in files:  # of several, all mistakes are prepared
        check.main([name, "--json", file])
"""


@pytest.mark.parametrize("names", [WAYS[::2], pytest.param(tuple(EXERCISES), marks=pytest.mark.exhaustive)], ids=len)
def test_styles_and_mistakes_get_the_same_verdict_as_by_check(tmp_path, names):
    """Of each exercise a mistake and a style, with a course's secret: each is a process of its own."""
    (tmp_path / "secret").write_text("bracken")
    jobs, expected = {}, {}
    for name in names:
        sources = {}
        for mistake in MISTAKES[name][:1]:
            chosen = f"next(m.wrong for m in MISTAKES[{name!r}] if m.slug == {mistake.slug!r})"
            sources[f"{name}--{mistake.slug}.py"] = f"from normlab.mistakes import MISTAKES\n{name} = {chosen}\n"
            expected[f"{name}--{mistake.slug}.py"] = (name, False, mistake.slug)
        text = f"""
            from importlib.util import module_from_spec, spec_from_file_location
            spec = spec_from_file_location("styles", {str(STYLES / f"{name}.py")!r})
            styles = module_from_spec(spec)
            spec.loader.exec_module(styles)
            {name} = styles.STYLES[0]
            """
        sources[f"{name}--style.py"] = textwrap.dedent(text)
        expected[f"{name}--style.py"] = (name, True, None)
        for file, source in sources.items():
            (tmp_path / file).write_text(source)
        jobs[name] = [str(tmp_path / file) for file in sources]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    _, out, err = run(tmp_path / "jobs.json", program=("-c", EVERY_EXERCISE), secret=tmp_path / "secret")
    assert err == ""
    verdicts = {Path(v["file"]).name: v for v in map(json.loads, out.splitlines())}
    wrong = {
        file: verdicts.get(file)
        for file, verdict in expected.items()
        if file not in verdicts or tuple(verdicts[file][key] for key in ("exercise", "accepted", "mistake")) != verdict
    }
    assert wrong == {}
    assert len(verdicts) == len(expected)


def test_the_sentences_are_those_of_check(capsys, tmp_path):
    files, sentences = [], []
    for mistake in MISTAKES["min_max"]:
        files.append(tmp_path / f"{mistake.slug}.py")
        chosen = f"next(m.wrong for m in MISTAKES['min_max'] if m.slug == {mistake.slug!r})"
        files[-1].write_text(f"from normlab.mistakes import MISTAKES\nmin_max = {chosen}\n")
        with pytest.raises(check_module.CheckFailed) as caught, np.errstate(all="ignore"):
            check_module.check(mistake.wrong, "min_max")
        sentences.append(str(caught.value))
    _, out, _ = main(capsys, "min_max", "--json", *files)
    assert [json.loads(line)["reason"] for line in out.splitlines()] == sentences
