"""Python for the page: what the exercises' editors fetch when somebody first presses Run or Check.

Python and NumPy, compiled for the browser, are looked for in several places; runner.toml names them and the sha256 of
each file. They are kept in the user's cache folder, and verified each time. Where none is to be had, or with
NORMLAB_RUNNER=off, the site is built without, and its exercises say so.

Beside them stand normlab's own files, as many as a check needs, in one archive; PyTorch's truths, a file for each
exercise (2 MB for all, so they are recorded by the build, which has PyTorch, and not committed); and the solutions.
"""

import base64
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from sphinx.util import logging

from normlab.exercises import EXERCISES

from . import katex

EXT = Path(__file__).parent.parent
PINS = tomllib.loads((EXT / "runner.toml").read_text(encoding="utf-8"))
SECONDS = 20.0  # that a host may be silent
LARGEST = 64 << 20

logger = logging.getLogger(__name__)


class Nowhere(Exception):
    """Why a source has no file for us, as a clause."""


# ---- what is fetched, verified and kept ------------------------------------------------------------------------------


def cache():
    """The folder where files are kept between builds, and between checkouts."""
    return katex.user_cache() / f"pyodide-{PINS['pyodide']}"


def is_right(name, content):
    return hashlib.sha256(content).hexdigest() == PINS["sha256"][name]


def from_cache(folder):
    """{name: bytes} of all files. Errors: Nowhere."""
    try:
        return {name: (folder / name).read_bytes() for name in PINS["sha256"]}
    except OSError:
        raise Nowhere("holds nothing yet") from None


def from_release(address):
    """As from_cache, from the web. Errors: Nowhere."""
    found = {}
    for name in PINS["sha256"]:
        try:
            with urllib.request.urlopen(address + name, timeout=SECONDS) as answer:
                found[name] = answer.read(LARGEST)
        except (OSError, ValueError) as error:  # of urllib and of sockets
            raise Nowhere(f"does not answer ({getattr(error, 'reason', error)})") from None
    return found


def from_wheel(requirement):
    """As from_cache, out of a wheel that pip downloads. Errors: Nowhere."""
    try:
        with katex.wheel(requirement, seconds=600) as files:
            return {name: files.read(PINS["wheel_folder"] + name) for name in PINS["sha256"]}
    except (OSError, subprocess.SubprocessError, KeyError, zipfile.BadZipFile):
        raise Nowhere("cannot be had from a package index") from None


def sources():
    """(name, function that gives the files) of each place to look."""
    return (
        (str(cache()), lambda: from_cache(cache())),
        (PINS["release"], lambda: from_release(PINS["release"])),
        (PINS["wheel"], lambda: from_wheel(PINS["wheel"])),
    )


def switched_off():
    return os.environ.get("NORMLAB_RUNNER", "").lower() == "off"


def runtime():
    """({name: bytes} of the first source all of whose files are right, or None; what the others lacked, in words)."""
    if switched_off():
        return None, ["NORMLAB_RUNNER is off"]
    lacks = []
    for place, files_of in sources():
        try:
            files = files_of()
        except Nowhere as why:
            lacks.append(f"{place} {why}")
            continue
        wrong = [name for name, content in files.items() if not is_right(name, content)]
        if wrong:
            lacks.append(f"{place} has another {' and another '.join(wrong)} than runner.toml names")
            continue
        if place != str(cache()):
            keep(files)
        return files, lacks
    return None, lacks


def keep(files):
    """Put the files into the cache, each at once, so that a build beside this one finds no half file."""
    try:
        cache().mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with tempfile.NamedTemporaryFile(dir=cache(), delete=False) as file:
                file.write(content)
            os.replace(file.name, cache() / name)
    except OSError as error:
        logger.info("The runner's files are not kept: %s", error)


def lock():
    """What Pyodide reads to find NumPy: its own lock names hundreds of packages, which no exercise may use."""
    name = next(name for name in PINS["sha256"] if name.startswith("numpy-"))
    numpy = {
        "name": "numpy",
        "version": PINS["numpy"],
        "file_name": name,
        "install_dir": "site",
        "sha256": PINS["sha256"][name],
        "package_type": "package",
        "imports": ["numpy"],
        "depends": [],
        "unvendored_tests": True,
    }
    about = {key: PINS[key] for key in ("python", "platform")}
    info = {"abi_version": PINS["abi"], "arch": "wasm32", "version": PINS["pyodide"], **about}
    return json.dumps({"info": info, "packages": {"numpy": numpy}}).encode()


# ---- what is made from our own files ---------------------------------------------------------------------------------


CLOSURE = """
import sys
sys.modules.update(torch=None, numba=None, triton=None)
import normlab.golden, normlab.predict
print(*(module.__file__ for name, module in sorted(sys.modules.items()) if name.split(".")[0] == "normlab"), sep="\\n")
"""


def normlab_archive():
    """The bytes of a zip archive: the files of normlab that a check imports, and what runs it in the page."""
    told = subprocess.run([sys.executable, "-c", CLOSURE], capture_output=True, text=True, check=True).stdout
    package = Path(importlib.util.find_spec("normlab").origin).parent
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in map(Path, told.split("\n")[:-1]):
                add(archive, path, f"normlab/{path.relative_to(package).as_posix()}")
            add(archive, EXT / "runner" / "session.py", "session.py")
        file.seek(0)
        return file.read()


def add(archive, path, name):
    """Without the time of the file: the same files make the same archive."""
    archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)


def golden(root, names):
    """Folder of PyTorch's truths for these exercises, recorded anew when the code has changed."""
    digest = hashlib.sha256()
    for path in sorted((Path(importlib.util.find_spec("normlab").origin).parent).rglob("*.py")):
        digest.update(path.read_bytes())
    for package in ("numpy", "torch"):
        digest.update(version(package).encode())
    folder = root / "_build" / ".golden" / digest.hexdigest()[:16]
    for old in folder.parent.glob("*"):
        if old != folder:
            shutil.rmtree(old)
    missing = [name for name in names if not (folder / f"{name}.npz").is_file()]
    if missing:
        subprocess.run([sys.executable, "-m", "normlab.golden", folder, *missing], check=True)
    return folder


def hidden(text):
    """A solution as it stands in the site: not to be read in passing. Whoever decodes it may; it is no secret."""
    return base64.b64encode(text.encode()[::-1])


# ---- which exercises run in a page -----------------------------------------------------------------------------------


def needs(exercise):
    """What an exercise needs that no browser has, or None where NumPy is enough."""
    if exercise.torch_exercise:
        return "Triton" if exercise.stem == "kernels" else "PyTorch"
    return "Numba" if exercise.compile_seconds else None


def attributes(name, stem, parts):
    """The attributes by which the page's script knows an exercise; none where normlab has no such exercise."""
    if name not in EXERCISES:
        return {}
    known = {"data-exercise": name, "data-chapter": stem, "data-parts": " ".join(f"{p}:{n}" for p, n in parts)}
    lacking = needs(EXERCISES[name])
    return known | ({"data-needs": lacking} if lacking else {})


def note(env, exercise, stem):
    """Remember that the page being read has this exercise."""
    if exercise.name in EXERCISES and needs(EXERCISES[exercise.name]) is None:
        pages = noted(env).setdefault(env.docname, {})
        pages[exercise.name] = {"chapter": stem, "solution": exercise.solution}


def noted(env):
    """{page: {exercise: {chapter, solution}}} of the exercises that run in a page."""
    if not hasattr(env, "normlab_exercises"):
        env.normlab_exercises = {}
    return env.normlab_exercises


def forget(app, env, docname):
    noted(env).pop(docname, None)


def merge(app, env, docnames, other):
    noted(env).update({page: found for page, found in noted(other).items() if page in docnames})


# ---- writing the site ------------------------------------------------------------------------------------------------

_beside = ThreadPoolExecutor(1)


def has_runner(app):
    """Whether this build writes pages in which code can run."""
    return app.builder.format == "html" and app.builder.name != "epub"


def record_early(app, env, docnames):
    """Begin to record the truths while pages are executed: at the end, one core would have nothing else to do."""
    stems = {Path(name).name for name in docnames}
    names = [name for name, exercise in EXERCISES.items() if exercise.stem in stems and needs(exercise) is None]
    if names and has_runner(app) and not switched_off():
        _beside.submit(golden, Path(app.srcdir), names)


def install(app, exception):
    """Write _static/runner: Python, normlab, truths, solutions, and course.js, which tells each page what there is."""
    if exception or not has_runner(app):
        return
    place = Path(app.outdir) / "_static" / "runner"
    exercises = {name: found for page in noted(app.env).values() for name, found in page.items()}
    place.mkdir(parents=True, exist_ok=True)
    for old in place.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    chapters = {}
    for name, found in exercises.items():
        chapters.setdefault(found["chapter"], []).append(name)
    files, lacks = runtime() if exercises else (None, [])
    course = {"chapters": chapters, "runner": write(place, files, exercises, app) if files else None}
    if lacks and not files:
        logger.info("The site is built without the runner: %s.", "; ".join(lacks))
    (place / "course.js").write_text(f"window.normlabCourse = {json.dumps(course)};\n", encoding="utf-8")


def write(place, files, exercises, app):
    """Write everything that is fetched on demand; returns {"version", "python", "bytes"}, for course.js."""
    # Pyodide asks for some by plain names. In a folder named by the version, no cache has those of another one.
    python = f"pyodide-{PINS['pyodide']}"
    (place / python).mkdir()
    for name, content in {**files, "pyodide-lock.json": lock()}.items():
        (place / python / name).write_bytes(content)
    archive = normlab_archive()
    (place / "course").mkdir()
    (place / "course" / "normlab.zip").write_bytes(archive)
    truths = _beside.submit(golden, Path(app.srcdir), exercises).result()  # after what was begun early
    (place / "golden").mkdir()
    (place / "solutions").mkdir()
    stamp = hashlib.sha256(archive)
    for name, found in sorted(exercises.items()):
        shutil.copy2(truths / f"{name}.npz", place / "golden")
        stamp.update((truths / f"{name}.npz").read_bytes() + found["solution"].encode())
        (place / "solutions" / f"{name}.txt").write_bytes(hidden(found["solution"]))
    total = sum(len(content) for name, content in files.items() if not name.endswith(".js")) + len(archive)
    return {"version": stamp.hexdigest()[:12], "python": python, "bytes": total}


def setup(app):
    app.add_css_file("run.css", priority=901)
    for script in ("runner/course.js", "work.js", "editor.js", "run.js"):
        app.add_js_file(script, defer="defer")
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-before-read-docs", record_early, priority=400)  # before the pages are executed
    app.connect("build-finished", install)
