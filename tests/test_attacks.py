"""A hundred hostile submissions (attacks/), each graded for what it is worth, in a sandbox that stays warm; and after
each an honest one, which must find nothing of it. Then each defence is switched off, and an attack gets through.

Limits are shorter here than in a class. Files, bytes and seconds are what the attacks count in; kinds are what matters.
"""

import contextlib
import json
import multiprocessing
import os
import re
import resource
import select
import shutil
import socket
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import nbformat
import psutil
import pytest
from attacks import harness
from grading_course import without_torch
from nbgrader.utils import determine_grade

from grading import bridge, rebuild, sandbox
from normlab import cases, exercises, guard

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes are made of Linux's namespaces")

FILES = ("forgery", "reading", "poison", "bombs", "wire", "library", "calling")
SENTENCE = 700  # characters that a refusal may have
LONGEST = 25.0  # seconds, of one attack under the limits below


@pytest.fixture(scope="module")
def limits():
    """Short ones. PyTorch has one thread, lest a process that is forked from this one hang."""
    exercises.torch_or_none().set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "CALL_SECONDS", 0.7)
        patch.setattr(bridge, "CELL_SECONDS", 2.0)
        patch.setattr(bridge, "GRACE_SECONDS", 0.5)
        patch.setattr(sandbox, "MEMORY", 3 << 30)
        patch.setattr(sandbox, "HELD", 400 << 20)
        patch.setattr(cases, "_given", [b"the secret of a class that is attacked"])
        patch.setenv("NORMLAB_SECRET_FILE", "/nowhere/secret")
        yield patch


@pytest.fixture(scope="module")
def server():
    """A port of this machine, and an abstract socket, that nobody in a sandbox is to reach."""
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind("\0normlab-attack")
        unix.listen()
        yield tcp, unix


@pytest.fixture(scope="module")
def attacks(server):
    port = server[0].getsockname()[1]
    return {attack.name: attack for name in FILES for attack in harness.read(name, port)}


# Seconds each, and of a kind that others show; `make prove` runs them.
LONG = (
    "PyTorch's softmax, compiled and wrapped",
    "PyTorch's softmax, below its functions",
    "a giant error",
    "a loop that no signal ends: alarms blocked and ignored",
    "a numerical gradient that asks without end",
    "asks for what no function takes",
    "keys chosen to collide",
    "what it may write is filled, to the last byte and to many names",
)


def seldom(name, words=None):
    return pytest.param(name, id=words or name, marks=[pytest.mark.exhaustive] * (name in LONG))


def every_attack():
    found = [(f"{name}: {attack.name}"[:90], attack.name) for name in FILES for attack in harness.read(name)]
    assert {name for _, name in found}.issuperset(LONG)
    return [seldom(name, words) for words, name in found]


@pytest.fixture(scope="module")
def warm(limits):
    """Sandboxes, and what an honest submission finds in one that nobody has attacked."""
    sandboxes = bridge.Sandboxes()
    try:
        harness.witness(sandboxes)
        times, before = [], None
        for _ in range(3):
            graded, before = harness.witness(sandboxes)
            assert graded.points("logsumexp") == harness.MOST
            times.append(graded.seconds)
        assert "'processes': 2" in before
        yield sandboxes, before, max(times)
    finally:
        sandboxes.close()


def sentences(graded):
    """The refusals of a notebook's checks."""
    for cell in graded.notebook.cells:
        if (rebuild.identity(cell) or "").startswith("check-"):
            errors = [output["evalue"] for output in cell.outputs if output["output_type"] == "error"]
            assert len(errors) <= 1
            yield from errors


def test_there_are_enough():
    assert len(every_attack()) >= 60
    assert len({a.values[0] for a in every_attack()}) == len(every_attack())


@pytest.mark.parametrize("name", every_attack())
def test_attack(name, attacks, warm, server):
    attack, (sandboxes, before, seconds) = attacks[name], warm
    graded = harness.launch(attack, sandboxes)
    assert graded.points(attack.exercise) == attack.points, graded.said()
    if attack.stem in harness.OTHER and attack.others >= 0:
        assert graded.points(harness.OTHER[attack.stem]) == attack.others, graded.said()
    told = list(sentences(graded))
    assert all("\n" not in sentence and len(sentence) < SENTENCE for sentence in told)
    assert bool(told) == (attack.points < harness.WORTH[attack.parts] or attack.others < harness.MOST)
    assert re.search(attack.says, graded.said()), graded.said()
    assert graded.seconds < LONGEST
    assert not select.select(server, [], [], 0)[0]
    after, found = harness.witness(sandboxes)
    assert after.points("logsumexp") == harness.MOST, after.said()
    assert found == before
    assert after.seconds < 3 * seconds + 2.0


def test_nothing_is_left(warm, limits):
    """Beside the warm sandboxes there is no process, and no memory."""
    running = psutil.Process().children(recursive=True)
    zygotes = [p for p in running if p.name().startswith("python") and p.parent().name() == "bwrap"]
    assert len(zygotes) == len([s for s in warm[0].warm.values() if s.process is not None])
    assert {p.name() for p in running} <= {"bwrap", "python", Path(sys.executable).resolve().name, "python3"}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 3 << 20  # KiB


# ---- each defence, switched off --------------------------------------------------------------------------------------
# Two processes: where the check runs in the learner's own, forgeries succeed.


def _one_process(notebook, pipe):
    """Runs a notebook as a kernel does, checks and all, with the tags that nbclient goes by."""
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.clear_instance()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        shell = InteractiveShell.instance()
        for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
            tags = cell.metadata.get("tags", [])
            if "skip-execution" in tags:
                continue
            done = shell.run_cell(cell.source)
            if not done.success and "raises-exception" not in tags:
                text = str(done.error_in_exec or done.error_before_exec)
                cell.outputs = [nbformat.v4.new_output("error", ename="Error", evalue=text)]
    points = sum(
        determine_grade(cell)[0]
        for cell in notebook.cells
        if (rebuild.identity(cell) or "").startswith("check-softmax-")
    )
    pipe.send(points)
    pipe.close()


def points_in_one_process(notebook):
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_one_process, args=(notebook, there))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(30) else 0
    except EOFError:
        return 0
    finally:
        process.kill()
        process.join()


FORGED = (
    "an AST transformer that deletes asserts and checks",
    "an input transformer that empties cells with a check",
    "overridden run_cell",
    "check replaced by a function that is always content",
    "NumPy's comparisons replaced",
    "the verdict's own functions replaced, wherever they are",
)


@pytest.mark.parametrize("name", FORGED)
def test_a_verdict_in_the_learners_process_is_forged(name, attacks, limits):
    released = harness.release(exercises=["softmax"])
    assert points_in_one_process(harness.filled(released, {"softmax": attacks[name].code})) == harness.MOST


def test_one_process_is_no_worse_than_nbgrader_at_honest_work(limits, monkeypatch):
    monkeypatch.setattr(guard, "CALL_SECONDS", 5.0)  # honest work has time
    released = harness.release(exercises=["softmax"])
    for source, points in ((harness.honest("softmax")["softmax"], 20), ("def softmax(x, axis=-1):\n    return x", 0)):
        assert points_in_one_process(harness.filled(released, {"softmax": source})) == points


@pytest.mark.parametrize("tag", ["skip-execution", "raises-exception"])
def test_without_rebuilding_a_tag_is_worth_all_points(tag, warm):
    released = harness.release(exercises=["softmax"])
    handed_in = harness.filled(released, {"softmax": "def softmax(x, axis=-1):\n    return x"})
    for cell in handed_in.cells:
        cell.metadata["tags"] = [tag]
    assert points_in_one_process(handed_in) == harness.MOST
    assert harness.grade(released, handed_in, warm[0]).points("softmax") == 0


# The sandbox.


@pytest.fixture
def without(monkeypatch, limits, tmp_path):
    """A sandbox that lacks something: words of bubblewrap's command line, or lines of what runs inside."""
    made = []

    def make(words=(), lines=(), after=None):
        if words:
            whole = sandbox.command
            monkeypatch.setattr(sandbox, "command", lambda *a: [word for word in whole(*a) if word not in words])
        if lines:
            inside = tmp_path / "inside"
            shutil.copytree(sandbox.INSIDE, inside, ignore=shutil.ignore_patterns("__pycache__"))
            inside.chmod(0o755)
            for file, old, new in lines:
                text = (inside / file).read_text()
                assert old in text
                (inside / file).write_text(text.replace(old, new))
            monkeypatch.setattr(sandbox, "INSIDE", inside)
        made.append(bridge.Sandboxes())
        return made[-1]

    yield make
    for sandboxes in made:
        sandboxes.close()


def seen(graded):
    """What an attack that looks for things has found."""
    (line,) = [line for line in graded.said().splitlines() if line.startswith("SEEN ")]
    return line


def test_without_its_own_network_a_server_is_reached(without, attacks, server):
    graded = harness.launch(attacks["talks to a network"], without(words=["--unshare-net"]))
    assert str(server[0].getsockname()[1]) in seen(graded)
    assert "normlab-attack" in seen(graded)
    for listening in select.select(server, [], [], 0)[0]:
        listening.accept()[0].close()


def test_without_a_cleared_environment_it_is_read(without, attacks):
    graded = harness.launch(
        attacks["reads what the grader's environment and command line hold"], without(["--clearenv"])
    )
    assert "NORMLAB_SECRET_FILE" in seen(graded)


def test_a_zygote_that_is_dumpable_and_unfiltered_is_read(without, attacks):
    lines = [
        ("zygote.py", "libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)", "libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)"),
        ("zygote.py", "calls.refuse()", "pass"),
    ]
    name = "reads the zygote's memory: /proc/1/mem, process_vm_readv, ptrace, pidfd_getfd"
    told = seen(harness.launch(attacks[name], without(lines=lines)))
    assert "/proc/1/mem" in told
    assert "vm_readv" in told
    assert "getfd" in told


NO_FILTER = ("zygote.py", "calls.refuse()", "pass")
# name of the attack, what is switched off, and what the next submission finds of it
LEFT = [
    (
        "start-up files for whoever comes next",
        [("zygote.py", "        _empty(folder)\n", "        pass\n")],
        "sitecustomize.py",
    ),
    (
        "a daemon by double fork and setsid, and threads",
        [("zygote.py", "os.kill(-1, signal.SIGKILL)", "break")],
        "alive-",
    ),
    (
        "System V memory, semaphores and messages, message queues, keys",
        [NO_FILTER, ("zygote.py", "        return [int(line", "        return [] and [int(line")],
        "'shm': 6",
    ),
    ("the zygote's limits, priority and cores", [NO_FILTER], "'nice': \\(19, 19\\)"),
    ("attributes of folders that outlive their contents", [NO_FILTER], "posix_acl_default|user.poison|'may'"),
]


@pytest.mark.parametrize(("name", "lines", "found"), LEFT, ids=[name for name, *_ in LEFT])
def test_without_cleaning_up_the_next_finds_it(name, lines, found, without, attacks):
    sandboxes = without(lines=lines)
    harness.witness(sandboxes)
    _, before = harness.witness(sandboxes)
    harness.launch(attacks[name], sandboxes)
    graded, after = harness.witness(sandboxes)
    if "acl" in found and "'may'): ('0o41777', 0," in before:  # the folders are root's here, and nobody's to mark
        assert after == before
        return
    assert after != before
    assert graded.points("logsumexp") < harness.MOST or after is None or re.search(found, after)


def test_without_the_filter_it_is_root_in_a_namespace_of_its_own(without, attacks):
    graded = harness.launch(attacks["user namespaces, in which it is root, and mounts"], without(lines=[NO_FILTER]))
    assert "unshare" in seen(graded)


def test_without_looking_memory_is_not_noticed(without, attacks, monkeypatch):
    monkeypatch.setattr(sandbox.Sandbox, "held", lambda self: 0)
    graded = harness.launch(attacks["memory that a process shares"], without())
    assert bridge.FULL not in graded.said()


@pytest.mark.slow
def test_without_limits_files_and_processes_grow(without):
    source = (
        "import os, time\n"
        "with open('/tmp/full', 'wb') as file:\n"
        "    try:\n"
        "        while file.tell() < 100 << 20: file.write(bytes(1 << 20))\n"
        "    except OSError: pass\n"
        "print('FILE', os.path.getsize('/tmp/full') >> 20)\n"
        "count = 0\n"
        "try:\n"
        "    while count < 200:\n"
        "        if os.fork() == 0: time.sleep(100)\n"
        "        count += 1\n"
        "except OSError: pass\n"
        "print('PROCESSES', count)\n"
    )

    def grown(sandboxes):
        released = harness.release(exercises=["softmax"])
        said = harness.grade(released, harness.filled(released, {"softmax": source}), sandboxes).said()
        return [int(number) for number in re.search(r"FILE (\d+)\nPROCESSES (\d+)", said).groups()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "HELD", 64 << 30)
        patch.setattr(bridge, "CELL_SECONDS", 20.0)
        file, processes = grown(without())
        assert file <= 64
        assert processes < 128
        patch.setattr(sandbox, "FILES", 150 << 20)
        file, processes = grown(
            without(lines=[("zygote.py", "(resource.RLIMIT_NPROC, 128)", "(resource.RLIMIT_NPROC, 4096)")])
        )
        assert file == 100
        assert processes == 200


# What is closed.


def open_policy(exercise, with_torch=False):
    return bridge.Policy("torch") if exercise.torch_exercise or with_torch else bridge.Policy()


@pytest.fixture(scope="module")
def opened(limits):
    """Sandboxes in which nothing of what exercises are about is closed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "_hidden", lambda *_: [])
        patch.setattr(bridge, "policy", open_policy)
        patch.setattr(guard, "CALL_SECONDS", 5.0)
        sandboxes = bridge.Sandboxes()
        yield sandboxes, patch
        sandboxes.close()


@pytest.mark.parametrize("name", [seldom(attack.name) for attack in harness.read("library")])
def test_what_is_open_is_called(name, attacks, opened):
    graded = harness.launch(attacks[name], opened[0])
    assert graded.points(attacks[name].exercise) == harness.WORTH[attacks[name].parts], graded.said()


RIGHT = {
    "logaddexp": "def softmax(x, axis=-1):\n    wide = x.astype(np.promote_types(x.dtype, np.float32))\n"
    "    return np.exp(wide - np.logaddexp.reduce(wide, axis=axis, keepdims=True)).astype(x.dtype)",
    "a norm": "def softmax(x, axis=-1):\n    wide = x.astype(np.float64)\n"
    "    e = np.exp((wide - wide.max(axis, keepdims=True)) / 1)\n"
    "    return (e / np.linalg.norm(e, 1, axis, keepdims=True)).astype(x.dtype)",
    "einsum": "def softmax(x, axis=-1):\n    w = np.moveaxis(x.astype(np.float64), axis, -1)\n"
    "    e = np.exp(w - w.max(-1, keepdims=True))\n"
    "    return np.moveaxis(e / np.einsum('...i->...', e)[..., None], -1, axis).astype(x.dtype)",
    "torch's exp and sum": "import torch\ndef softmax(x, axis=-1):\n    t = torch.from_numpy(x.copy()).double()\n"
    "    e = (t - t.amax(axis, keepdim=True)).exp()\n"
    "    return (e / e.sum(axis, keepdim=True)).numpy().astype(x.dtype)",
    "a class": "class Softmax:\n    def __call__(self, x, axis=-1):\n        w = x.astype(np.float64)\n"
    "        e = np.exp(w - w.max(axis, keepdims=True))\n"
    "        return (e / e.sum(axis, keepdims=True)).astype(x.dtype)\n"
    "softmax = Softmax()",
}


@pytest.mark.parametrize("name", RIGHT)
def test_unusual_right_answers_keep_their_points(name, warm):
    released = harness.release(exercises=["softmax"])
    graded = harness.grade(released, harness.filled(released, {"softmax": RIGHT[name]}), warm[0])
    assert graded.points("softmax") == harness.MOST, graded.said()


def test_what_gradients_take_is_imported_before_the_fork(warm):
    """Else each notebook in which gradients are taken would import SymPy anew, under the guard."""
    released = harness.release("running", ["BatchNorm"], ["edges"])
    answer = f"{harness.honest('running')['BatchNorm']}\nimport sys\nprint('SYMPY', 'sympy' in sys.modules)"
    graded = harness.grade(released, harness.filled(released, {"BatchNorm": answer}), warm[0])
    assert "SYMPY True" in graded.said()
    assert graded.points("BatchNorm") == harness.WORTH["edges",]


def test_who_only_imports_pytorch_is_judged_once(limits):
    """An import is no use: no sandbox with PyTorch is started for an answer in NumPy, which takes seconds."""
    released, sandboxes = harness.release(exercises=["softmax"]), bridge.Sandboxes()
    answer = f"import torch\nfrom torch import nn\n{harness.honest('softmax')['softmax']}"
    try:
        graded = harness.grade(released, harness.filled(released, {"softmax": answer}), sandboxes)
        assert {policy.kind for policy in sandboxes.warm} == {"numpy"}
    finally:
        sandboxes.close()
    assert graded.points("softmax") == harness.MOST, graded.said()


# ---- through nbgrader itself -----------------------------------------------------------------------------------------


RUN = """
import json, os, sys
from pathlib import Path
from grading import course
folder = Path(sys.argv[1])
course._enter(str(folder), course.environment(folder))
for command in (["generate_assignment", "softmax"], ["autograde", "softmax"], ["generate_feedback", "softmax"]):
    assert course.nbgrader(*command) == 0, command
json.dump(course.scores("softmax"), open("scores.json", "w"))
"""
MARKDOWN = """<script>alert(1)</script> <img src=x onerror=alert(1)>
[x](javascript:alert(1)) [y](JavaScript:alert`1`)
![](http://example.org/who-looks.png) <svg onload=alert(1)> <iframe srcdoc="<script>alert(1)</script>"></iframe>
<a href="&#106;avascript:alert(1)">z</a> <details open ontoggle=alert(1)>
<math><mi xlink:href="javascript:1">m</mi></math>
<style>* {display: none}</style> <form action=http://example.org><button>go</button></form> <base href="//example.org/">
$\\href{javascript:alert(1)}{x}$ `a < b` and $a < b$ [w](data:text/html;base64,PHNjcmlwdD4=)
"""
LOUD = """
from IPython.display import HTML, SVG, Javascript, Markdown, display
script = "<script>alert(1)</script>"
for thing in (HTML(script), SVG("<svg onload='alert(1)'/>"), Javascript("alert(1)"), Markdown(script)):
    display(thing)
display({"image/png": 'iVBORw0KGgo" onerror="alert(1)', "text/html": "<script>alert(1)</script>"}, raw=True)
print("<script>alert(1)</script> \\x1b[31m\\x1b]8;;javascript:alert(1)\\x07link")
raise type("<script>alert(1)</script>", (Exception,), {})("<img src=x onerror=alert(1)>")
"""


@pytest.fixture(scope="module")
def graded_class(tmp_path_factory):
    """A small class of attackers and one honest student, through nbgrader: (folder, scores)."""
    from grading import course

    folder = tmp_path_factory.mktemp("attacked")
    course.make(folder, ["softmax"])
    # Two of the chapter's exercises, and the paragraph. Neither takes PyTorch, which takes seconds to import.
    kept = [f"check-{name}-{part}" for name in ("softmax", "logsumexp") for part in harness.PARTS]
    kept += ["setup", "softmax", "logsumexp", "explanation-softmax"]

    def small(notebook):
        notebook.cells = [cell for cell in notebook.cells if rebuild.identity(cell) in kept]
        return notebook

    solved = folder / "solutions" / "softmax" / "softmax.ipynb"
    nbformat.write(small(nbformat.read(solved, 4)), solved)
    answers = {name: harness.honest("softmax")[name] for name in ("softmax", "logsumexp")}
    whole = small(deepcopy(harness._whole("softmax")))
    wrong = answers | {"softmax": "def softmax(x, axis=-1):\n    return x"}

    def hand_in(student, notebook):
        place = folder / "submitted" / student / "softmax"
        place.mkdir(parents=True)
        (place / "softmax.ipynb").write_text(notebook if isinstance(notebook, str) else json.dumps(notebook))
        return place

    hand_in("ada", harness.filled(whole, answers))
    tagged = harness.filled(whole, wrong)
    for cell in tagged.cells:
        cell.metadata["tags"] = ["raises-exception", "skip-execution"]
    hand_in("tags", tagged)
    place = hand_in("files", harness.filled(whole, wrong))
    for name in (
        "torch.py",
        "numpy.py",
        "sitecustomize.py",
        "ipykernel_launcher.py",
        "usercustomize.py",
        "nbgrader_config.py",
    ):
        (place / name).write_text(f"open({str(folder / 'owned')!r}, 'w').write(__file__)")
    (place / "link.txt").symlink_to("/etc/passwd")
    (place / "ada.ipynb").symlink_to(folder / "submitted" / "ada" / "softmax" / "softmax.ipynb")
    place = hand_in("links", "")
    (place / "softmax.ipynb").unlink()
    (place / "softmax.ipynb").symlink_to(folder / "submitted" / "ada" / "softmax" / "softmax.ipynb")
    book = "import sqlite3, glob\n" + "\n".join(
        f"try: sqlite3.connect({str(path)!r}).execute('update grade set auto_score = 20')\nexcept Exception: pass"
        for path in (folder / "gradebook.db", "gradebook.db", "../../gradebook.db")
    )
    hand_in("book", harness.filled(whole, wrong | {"softmax": f"{book}\n{wrong['softmax']}"}))
    doubled = harness.filled(whole, answers)
    doubled.cells += doubled.cells
    hand_in("double", doubled)
    loud = harness.filled(whole, wrong | {"softmax": wrong["softmax"] + LOUD, "explanation-softmax": MARKDOWN}, [LOUD])
    hand_in("xss", loud)
    hand_in("broken", '{"cells": ' + "[" * 100_000)
    environment = course.environment(folder)
    environment["PYTHONPATH"] += os.pathsep + str(without_torch(folder))
    done = subprocess.run([sys.executable, "-c", RUN, str(folder)], env=environment, cwd=folder, timeout=300)
    assert done.returncode == 0, (folder / "nbgrader.log").read_text()[-3000:]
    return folder, json.loads((folder / "scores.json").read_text())


def of(scores, exercise):
    return sum(score or 0 for name, score in scores.items() if name.startswith(f"check-{exercise}-"))


@pytest.mark.slow
def test_nbgrader_grades_them_all(graded_class):
    _, scores = graded_class
    assert {student: of(scores[student], "softmax") for student in scores} == {
        **dict.fromkeys(("tags", "files", "links", "book", "xss", "broken"), 0),
        **dict.fromkeys(("ada", "double"), 20),
    }
    for student in ("ada", "tags", "files", "book", "double", "xss"):
        assert of(scores[student], "logsumexp") == 20, student


@pytest.mark.slow
def test_nothing_was_done_to_the_course(graded_class):
    folder, _ = graded_class
    assert not (folder / "owned").exists()
    for stage in ("autograded", "feedback"):
        names = {path.name for path in (folder / stage).rglob("*") if path.is_file() or path.is_symlink()}
        assert names == {"softmax.ipynb" if stage == "autograded" else "softmax.html"}
    assert (folder / "submitted" / "ada" / "softmax" / "softmax.ipynb").is_file()


def dangers(html):
    """What of a page a browser would run, or fetch from elsewhere, that the page of an honest student has not."""
    from bs4 import BeautifulSoup

    page = BeautifulSoup(html, "html.parser")
    found = [str(tag.get("src") or tag.string)[:200] for tag in page.find_all("script")]
    for tag in page.find_all(True):
        found += [f"{tag.name} {name}" for name in tag.attrs if name.startswith("on")]
        for name in ("href", "src", "action", "srcdoc", "xlink:href", "data"):
            value = str(tag.get(name, "")).strip().lower()
            if value.startswith(("javascript:", "data:text", "data:image/svg")) or (
                tag.name == "img" and "http" in value
            ):
                found.append(f"{tag.name} {value[:100]}")
    found += [tag.name for tag in page.find_all(["iframe", "object", "embed", "form", "base", "svg", "math"])]
    return [*found, len(page.find_all("style")), *re.findall(r"\\href\{", html)]


@pytest.mark.slow
def test_feedback_runs_nothing_of_a_learners(graded_class):
    folder, _ = graded_class
    pages = {
        student: (folder / "feedback" / student / "softmax" / "softmax.html").read_text() for student in ("ada", "xss")
    }
    assert dangers(pages["xss"]) == dangers(pages["ada"])
    assert "alert(1)" in pages["xss"]  # it can be read
    assert "<code>a &lt; b</code>" in pages["xss"]
    assert "$a &lt; b$" in pages["xss"]


def test_without_cleaning_markdown_runs():
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    from grading.feedback import markdown

    assert len(dangers(markdown2html_mistune(MARKDOWN))) > 8
    assert dangers(markdown(MARKDOWN)) == [0]
    assert markdown("![p](attachment:none.png) <b>x</b>") == "<pre>![p](attachment:none.png) &lt;b&gt;x&lt;/b&gt;</pre>"


@pytest.mark.slow
def test_the_log_says_what_was_put_aside(graded_class):
    folder, _ = graded_class
    aside = {path.name for path in (folder / "aside").rglob("*")}
    assert {"torch.py", "sitecustomize.py", "ipykernel_launcher.py"} <= aside
