"""The frame: environment, Makefile, pins, notebook copies, the skip rule, workflows."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from xml.etree import ElementTree

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools.lab import copy_missing

PYTHONS = ("3.11.2", "3.12.0", "3.13.0")  # the first is Debian 12's


# -- Pins ------------------------------------------------------------------------------------------------------------


def read_pins(repo):
    """requirements.txt as {canonical name: Requirement}."""
    lines = [line.split(" #")[0].strip() for line in (repo / "requirements.txt").read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = {canonicalize_name(requirement.name): requirement for requirement in requirements}
    assert len(pins) == len(requirements), "a package is pinned twice"
    return pins


def read_project(repo):
    return tomllib.loads((repo / "pyproject.toml").read_text())


def pinned_version(requirement):
    (specifier,) = requirement.specifier
    return specifier.version


def applies(requirement, extra=""):
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def test_every_requirement_is_one_exact_public_version(repo):
    for name, requirement in read_pins(repo).items():
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], name
        assert "*" not in pinned_version(requirement), name
        assert Version(pinned_version(requirement)).local is None, f"{name}: a local version is not on PyPI"


def test_pins_lie_in_the_ranges_of_pyproject(repo):
    pins, project = read_pins(repo), read_project(repo)
    wanted = list(project["project"]["dependencies"]) + project["build-system"]["requires"]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    for requirement in map(Requirement, wanted):
        if requirement.name == "normlab":
            continue
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned_version(pin)), f"{requirement} against {pin}"


def test_torch_pin_is_written_once(repo):
    pin = f"torch=={pinned_version(read_pins(repo)['torch'])}"
    homes = ("Makefile", "tools/venv.sh", "pyproject.toml", "README.md", "CONTRIBUTING.md", ".ci/run")
    assert [name for name in homes if pin in (repo / name).read_text()] == []


def test_pins_are_what_is_installed(repo):
    for name, requirement in read_pins(repo).items():
        if applies(requirement):
            installed = Version(importlib.metadata.version(name))
            assert installed.public == pinned_version(requirement), name


def test_pins_support_each_python(repo):
    for name, requirement in read_pins(repo).items():
        if not applies(requirement):
            continue
        needs = importlib.metadata.metadata(name).get("Requires-Python")
        for python in PYTHONS:
            assert needs is None or Requirement(f"x{needs}").specifier.contains(python), f"{name} needs {needs}"


def test_everything_that_pins_ask_for_is_pinned(repo):
    pins = read_pins(repo)
    todo, seen = [(name, "") for name, pin in pins.items() if applies(pin)], set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        assert name in pins, f"{name} is installed unpinned"
        for line in importlib.metadata.requires(name) or ():
            requirement = Requirement(line)
            child = canonicalize_name(requirement.name)
            # Torch's Linux build from PyPI names its CUDA packages in exact versions itself.
            exact = name == "torch" and "==" in str(requirement.specifier)
            if applies(requirement, extra) and not exact:
                todo += [(child, wanted) for wanted in ("", *requirement.extras)]


# -- The Makefile and .venv ------------------------------------------------------------------------------------------

# A Python whose `-m venv` makes a folder with a python that notes what pip was asked for. It fails where told to.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
*'print('*) echo "${FAKE_VERSION:-3.12.1}" ;;
*'sys.exit('*) [ -z "$FAKE_OLD" ] ;;
*ensurepip*) [ -z "$FAKE_NO_VENV" ] ;;
*'-m venv'*)
    mkdir -p .venv/bin
    cat >.venv/bin/python <<'INNER'
#!/bin/sh
case "$*" in
*'print('*) echo 3.12; exit 0 ;;
esac
echo "$*" >>pip.log
case "$*" in
*download.pytorch.org*) [ -z "$FAKE_NO_CPU_INDEX" ] || { echo "no route" >&2; exit 1; } ;;
*requirements.txt*) [ -z "$FAKE_INTERRUPTED" ] || exit 1 ;;
esac
INNER
    cat >.venv/bin/jupyter-book <<'INNER'
#!/bin/sh
mkdir -p _build/.doctrees _build/.jupyter_cache
[ -z "$FAKE_BAD_PAGE" ]
INNER
    chmod +x .venv/bin/python .venv/bin/jupyter-book
    echo "made" >>venv.log ;;
esac
"""


@pytest.fixture
def frame(repo, tmp_path, system_tool):
    """A checkout of the frame alone and a function that makes its .venv with a fake Python -> CompletedProcess."""
    make = system_tool("make")
    checkout = tmp_path / "a checkout"
    for name in ("Makefile", "requirements.txt", "pyproject.toml", "tools/venv.sh"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repo / name, checkout / name)
    python = tmp_path / "python3"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)

    def run(*arguments, where=checkout, **environment):
        # Variables of the make that runs these tests must not reach the make under test.
        outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
        return subprocess.run(
            [make, "-s", ".venv/complete", f"PYTHON={python}", *arguments],
            cwd=where,
            env=outer | environment,
            capture_output=True,
            text=True,
        )

    run.checkout = checkout
    return run


def pip_log(frame):
    return (frame.checkout / "pip.log").read_text().splitlines()


def test_a_missing_python_is_named(frame):
    """make says which packages to install where there is no Python."""
    result = frame("PYTHON=no-such-python")
    assert result.returncode != 0
    assert "no working Python under the name 'no-such-python'" in result.stderr
    assert "apt install python3 python3-venv" in result.stderr


def test_an_old_python_is_named(frame):
    """make says which Python it found and which it needs."""
    result = frame(FAKE_OLD="1", FAKE_VERSION="3.9.18")
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stderr
    assert "3.9.18" in result.stderr
    assert not (frame.checkout / ".venv").exists()


def test_the_missing_venv_package_is_named(frame):
    """make names Debian's package of the venv module for the Python it found."""
    result = frame(FAKE_NO_VENV="1")
    assert result.returncode != 0
    assert "sudo apt install python3.12-venv" in result.stderr
    assert not (frame.checkout / ".venv").exists()


def test_cpu_build_first_then_the_pins_then_normlab(frame, repo):
    """make installs the small PyTorch before anything asks for the large one."""
    result = frame()
    assert result.returncode == 0, result.stderr
    torch, pins, normlab = pip_log(frame)
    assert f"torch=={pinned_version(read_pins(repo)['torch'])} " in torch
    assert "--index-url https://download.pytorch.org/whl/cpu" in torch
    assert "--retries 0 --timeout 15" in torch, "without internet this must not hang"
    assert "-r requirements.txt" in pins
    assert "--no-deps --no-build-isolation -e ." in normlab


def test_an_unreachable_cpu_index_falls_through(frame):
    """make goes on with PyPI's PyTorch, and says so, where the CPU build cannot be had."""
    result = frame(FAKE_NO_CPU_INDEX="1")
    assert result.returncode == 0, result.stderr
    assert "Taking PyPI's build instead" in result.stdout
    assert "-r requirements.txt" in pip_log(frame)[1]


def test_torch_variable(frame):
    """make TORCH=cuda leaves the CPU index alone; a misspelled value is refused."""
    assert frame("TORCH=cuda").returncode == 0
    assert not any("download.pytorch.org" in line for line in pip_log(frame))
    (frame.checkout / ".venv/complete").unlink()
    refused = frame("TORCH=gpu")
    assert refused.returncode != 0
    assert "not 'gpu'" in refused.stderr


def test_the_second_time_does_nothing(frame):
    """make leaves a good .venv alone."""
    frame()
    before = pip_log(frame)
    result = frame()
    assert result.returncode == 0, result.stderr
    assert pip_log(frame) == before


def test_an_interrupted_install_does_not_count(frame):
    """make begins a half-filled .venv anew."""
    result = frame(FAKE_INTERRUPTED="1")
    assert result.returncode != 0
    assert "could not all be installed" in result.stderr
    (frame.checkout / ".venv/half").touch()
    assert frame().returncode == 0
    assert not (frame.checkout / ".venv/half").exists()


def test_changed_pins_are_installed_without_starting_over(frame):
    """make brings .venv up to date when requirements.txt changes."""
    frame()
    later = (frame.checkout / ".venv/complete").stat().st_mtime + 10
    os.utime(frame.checkout / "requirements.txt", (later, later))
    assert frame().returncode == 0
    assert len(pip_log(frame)) == 6
    assert (frame.checkout / "venv.log").read_text() == "made\n"


def test_an_interrupted_update_does_not_count(frame):
    """make begins anew where bringing .venv up to date stopped halfway."""
    frame()
    later = (frame.checkout / ".venv/complete").stat().st_mtime + 10
    os.utime(frame.checkout / "requirements.txt", (later, later))
    assert frame(FAKE_INTERRUPTED="1").returncode != 0
    assert not (frame.checkout / ".venv/complete").exists()


def test_a_moved_checkout_gets_its_own_environment(frame):
    """make does not use a .venv whose scripts point at another folder."""
    frame()
    moved = frame.checkout.rename(frame.checkout.with_name("moved"))
    result = frame(where=moved)
    assert "made for another folder" in result.stdout
    assert (moved / ".venv/complete").read_text().split()[0].endswith("moved")
    assert (moved / "venv.log").read_text() == "made\nmade\n"


@pytest.fixture
def site(frame):
    """The frame with a site that was built once, and a mark in what the build keeps of pages and of results."""
    beside = "normlab/axes.py", "normlab/misconceptions.toml", "book/_ext/page.py", "solutions/puzzle/puzzle.py"
    for name in (*beside, "book/results.json", "_config.yml"):
        (frame.checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (frame.checkout / name).touch()
    assert frame("book").returncode == 0
    frame.pages = frame.checkout / "_build/.doctrees/mark"
    frame.results = frame.checkout / "_build/.jupyter_cache/mark"
    frame.pages.touch()
    frame.results.touch()
    return frame


def test_a_second_build_keeps_what_did_not_change(site):
    """make book neither reads nor executes a page again without need."""
    assert site("book").returncode == 0
    assert site.pages.exists()
    assert site.results.exists()


def test_after_a_failed_build_all_pages_are_read_again(site):
    """make book fails on a bad page, and its next run does not overlook the page because it was read before."""
    assert site("book", FAKE_BAD_PAGE="1").returncode != 0
    assert site("book").returncode == 0
    assert not site.pages.exists()
    assert site.results.exists()


@pytest.mark.parametrize(
    ("name", "executes"),
    [
        ("normlab/axes.py", True),
        ("normlab/misconceptions.toml", True),
        ("book/results.json", True),
        ("requirements.txt", True),
        ("book/_ext/page.py", False),
        ("solutions/puzzle/puzzle.py", False),
        ("_config.yml", False),
    ],
)
def test_what_stands_beside_the_pages_counts(site, name, executes):
    """make book reads all pages again when their surroundings change, and executes them again when their code does."""
    later = time.time() + 10
    os.utime(site.checkout / name, (later, later))
    assert site("book").returncode == 0
    assert not site.pages.exists()
    assert site.results.exists() != executes


def test_help_lists_every_target(repo, system_tool):
    """make alone says what can be made."""
    names = re.findall(r"^([a-z-]+):", (repo / "Makefile").read_text(), flags=re.MULTILINE)
    shown = subprocess.run([system_tool("make"), "-s"], cwd=repo, capture_output=True, text=True, check=True).stdout
    assert names
    assert [name for name in names if f"make {name} " not in shown] == []


# -- The learner's copies --------------------------------------------------------------------------------------------


def test_lab_copies_what_is_missing_and_overwrites_nothing(tmp_path):
    exercises, work = tmp_path / "exercises", tmp_path / "work"
    for stem in ("one", "two", "three"):
        (exercises / stem).mkdir(parents=True)
        (exercises / stem / f"{stem}.ipynb").write_text(f"released {stem}")
    (work / "one").mkdir(parents=True)
    (work / "one/one.ipynb").write_text("mine")
    (work / "two").mkdir()
    (work / "two/two.ipynb").symlink_to(tmp_path / "gone")  # a link that leads nowhere is the learner's, too

    copied, kept = copy_missing(exercises, work)

    assert [path.name for path in copied] == ["three.ipynb"]
    assert [path.name for path in kept] == ["one.ipynb", "two.ipynb"]
    assert (work / "one/one.ipynb").read_text() == "mine"
    assert (work / "three/three.ipynb").read_text() == "released three"
    assert not (tmp_path / "gone").exists()
    assert copy_missing(exercises, work)[0] == []


def test_lab_says_what_it_did(repo, tmp_path):
    (tmp_path / "tools").mkdir()
    shutil.copy(repo / "tools/lab.py", tmp_path / "tools/lab.py")
    command = [sys.executable, "tools/lab.py", "--copy-only"]

    empty = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert empty.returncode != 0
    assert "make notebooks" in empty.stderr

    (tmp_path / "exercises/puzzle").mkdir(parents=True)
    (tmp_path / "exercises/puzzle/puzzle.ipynb").write_text("{}")
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.stdout == "new   work/puzzle/puzzle.ipynb\n"
    assert second.stdout == "kept  work/puzzle/puzzle.ipynb (yours)\n"


# -- Skips -----------------------------------------------------------------------------------------------------------

SKIPPING = {
    "tool": 'def test_it(system_tool):\n    "the sandbox holds."\n    system_tool("no-such-tool")\n',
    "call": 'import pytest\ndef test_it():\n    pytest.skip("because")\n',
    "mark": 'import pytest\n@pytest.mark.skip(reason="because")\ndef test_it():\n    pass\n',
    "module": 'import pytest\npytest.importorskip("no_such_module")\n',
}
ALLOWED = {
    "gpu": 'import pytest\n@pytest.mark.gpu\ndef test_it():\n    pytest.skip("no GPU")\n',
    "xfail": 'import pytest\n@pytest.mark.xfail(reason="known")\ndef test_it():\n    raise ValueError\n',
    "pass": "def test_it():\n    pass\n",
}


@pytest.fixture(scope="module")
def run_pytest(repo, tmp_path_factory):
    """A function: sources by name, environment -> exit status and outcome of each, from one run under conftest.py."""

    def run(sources, **environment):
        folder = tmp_path_factory.mktemp("skips")
        shutil.copy(repo / "tests/conftest.py", folder / "conftest.py")
        (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: needs a GPU\n")
        for kind, source in sources.items():
            (folder / f"test_{kind}.py").write_text(source)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
        environment = {name: value for name, value in os.environ.items() if name != "CI"} | environment
        command += ["--junit-xml", "report.xml"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        told = {kind: [] for kind in sources}
        for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
            kind = (case.get("classname") or case.get("name")).removeprefix("test_")
            told[kind] += (
                [(case[0].tag, case[0].get("message") + (case[0].text or ""))] if len(case) else [("passed", "")]
            )
        assert all(told.values()), done.stdout
        return done.returncode, {kind: one for kind, (one,) in told.items()}

    return run


@pytest.fixture(scope="module")
def in_ci(run_pytest):
    return run_pytest(SKIPPING, CI="true")


@pytest.fixture(scope="module")
def elsewhere(run_pytest):
    return run_pytest(SKIPPING)


@pytest.mark.parametrize("kind", SKIPPING)
def test_ci_fails_on_a_skip_and_names_it(in_ci, kind):
    status, outcomes = in_ci
    assert status != 0
    outcome, message = outcomes[kind]
    assert outcome in ("failure", "error")
    assert f"test_{kind}.py" in message
    assert "CI allows that only to tests marked gpu" in message


def test_ci_lets_the_rest_be(run_pytest):
    status, outcomes = run_pytest(ALLOWED, CI="true")
    assert status == 0
    assert {kind: outcome for kind, (outcome, _) in outcomes.items()} == {
        "gpu": "skipped",
        "xfail": "skipped",
        "pass": "passed",
    }


@pytest.mark.parametrize("kind", SKIPPING)
def test_elsewhere_a_skip_is_visible_and_passes(elsewhere, kind):
    status, outcomes = elsewhere
    assert status == 0
    outcome, message = outcomes[kind]
    assert outcome == "skipped"
    if kind == "tool":
        assert "no-such-tool is not installed. Not checked: the sandbox holds." in message


# -- CI --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ci_run(repo, tmp_path, system_tool):
    """Runs .ci/run where every program but bash is a fake -> (status, calls of make and apt-get, stderr)."""
    bash = system_tool("bash")
    (tmp_path / ".ci").mkdir()
    shutil.copy(repo / ".ci/run", tmp_path / ".ci/run")
    tools = tmp_path / "bin"
    tools.mkdir()

    def fake(name, line):
        (tools / name).write_text(f"#!{bash}\n{line}\n")
        (tools / name).chmod(0o755)

    fake("make", f'echo "make $* CI=$CI" >>"{tmp_path}/log"; exit "$MAKE_STATUS"')
    fake("apt-get", f'echo "apt-get $*" >>"{tmp_path}/log"')
    fake("sudo", 'while [[ $1 == -* ]]; do shift; done; exec "$@"')
    fake("id", "echo 1000")
    fake("fc-list", "echo a font")
    fake("grep", "exit 1")  # this machine is not Ubuntu
    (tools / "dirname").symlink_to(system_tool("dirname"))
    for name in ("git", "g++", "bwrap", "initdb", "python3", "chromium"):
        fake(name, "exit 0")

    def run(absent=(), status=0):
        for name in absent:
            (tools / name).unlink()
        environment = {"PATH": str(tools), "MAKE_STATUS": str(status)}
        result = subprocess.run([bash, ".ci/run"], cwd=tmp_path, env=environment, capture_output=True, text=True)
        log = tmp_path / "log"
        return result.returncode, log.read_text().splitlines() if log.exists() else [], result.stderr

    return run


def test_ci_installs_nothing_that_is_there(ci_run):
    """.ci/run only calls make test on a machine that has everything."""
    status, asked, complaints = ci_run()
    assert status == 0, complaints
    assert asked == ["make test CI=true"]


def test_ci_installs_what_is_missing(ci_run):
    """.ci/run asks apt for the missing packages alone."""
    status, asked, complaints = ci_run(absent=("bwrap", "g++", "chromium"))
    assert status == 0, complaints
    assert asked[0] == "apt-get update -q"
    assert asked[1].split()[-3:] == ["g++", "bubblewrap", "chromium"]
    assert asked[2:] == ["make test CI=true"]


def test_ci_fails_when_the_tests_fail(ci_run):
    """.ci/run hands on make's exit status."""
    assert ci_run(status=2)[0] == 2


def test_workflows(repo):
    texts = {path.name: path.read_text() for path in (repo / ".github/workflows").glob("*.yml")}
    flows = {name: yaml.safe_load(text) for name, text in texts.items()}
    assert sorted(flows) == ["ci.yml", "pages.yml", "prove.yml"]
    for name, flow in flows.items():
        assert flow["permissions"] == {"contents": "read"}, name
        for job in flow["jobs"].values():
            for step in job["steps"]:
                assert "uses" not in step or re.fullmatch(r"[\w/-]+@v\d+", step["uses"]), step
    commands = [step.get("run") for step in flows["ci.yml"]["jobs"]["test"]["steps"]]
    assert ".ci/run" in commands
    # What comes after it are pictures, kept whatever the tests say.
    after = flows["ci.yml"]["jobs"]["test"]["steps"][commands.index(".ci/run") + 1 :]
    assert [step.get("run", step.get("uses")).split("@")[0] for step in after] == [
        ".venv/bin/python tools/screenshots.py screenshots",
        "actions/upload-artifact",
    ]
    assert all("!cancelled()" in step["if"] for step in after)
    pythons = flows["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert pythons == [version.rsplit(".", 1)[0] for version in PYTHONS]
    assert "make book" in [step.get("run") for step in flows["pages.yml"]["jobs"]["build"]["steps"]]


# -- The rest --------------------------------------------------------------------------------------------------------


def test_normlab_is_light():
    heavy = ("torch", "numba", "triton", "matplotlib", "scipy", "IPython")
    modules = ("axes", "reference", "cases", "exercises", "mistakes", "check")
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module("normlab." + name)
print([name for name in {heavy!r} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stdout + result.stderr


def test_the_readme_shows_what_the_check_says(repo, tmp_path):
    text = (repo / "README.md").read_text()
    (tmp_path / "mine.py").write_text(re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1])
    shown = " ".join(line[2:] for line in text.splitlines() if line.startswith("> "))
    (command,) = re.findall(r"^    python (-m normlab\.check \S+ mine\.py)$", text, flags=re.MULTILINE)
    result = subprocess.run([sys.executable, *command.split()], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert result.stdout.strip() == shown


def test_git_ignores_what_is_made_and_nothing_else(repo, tmp_path, system_tool):
    """.gitignore covers what make, learners, instructors and tools leave."""
    git = system_tool("git")
    subprocess.run([git, "init", "-q", tmp_path], check=True)
    shutil.copy(repo / ".gitignore", tmp_path / ".gitignore")
    made = """.venv/complete _build/html/index.html work/puzzle/puzzle.ipynb gradebook.db submitted/ada/one/one.ipynb
        autograded/ada/puzzle/puzzle.ipynb feedback/ada/puzzle/puzzle.html normlab/__pycache__/axes.cpython-311.pyc
        normlab.egg-info/PKG-INFO .pytest_cache/x .ruff_cache/x .coverage htmlcov/index.html
        exercises/puzzle/.ipynb_checkpoints/puzzle.ipynb"""
    source = """book/puzzle.md solutions/puzzle/puzzle.py solutions/puzzle/puzzle.ipynb exercises/puzzle/puzzle.ipynb
        book/images/site.png normlab/check.py tools/lab.py .ci/run grading/feedback/style.css tests/work/x.py"""
    paths = made.split() + source.split()
    command = [git, "-c", "core.excludesFile=", "check-ignore", "--", *paths]
    ignored = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout.split()
    assert ignored == made.split()


def test_pre_commit_downloads_nothing(repo):
    config = yaml.safe_load((repo / ".pre-commit-config.yaml").read_text())
    assert [entry["repo"] for entry in config["repos"]] == ["local"]
    hooks = {hook["id"]: hook for hook in config["repos"][0]["hooks"]}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks.values())
    assert re.match(hooks["notebooks"]["files"], "solutions/puzzle/puzzle.py")
    assert not re.match(hooks["notebooks"]["files"], "normlab/check.py")
