"""Code that runs in the page: typed, run, checked, stopped and kept, in a real browser.

The runtime is started few times, because that takes seconds: one page tells the whole story of an exercise, another one
what is stopped.
"""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from grading import rebuild
from normlab import collect
from normlab.check import CheckFailed, check
from normlab.exercises import EXERCISES

REPO = Path(__file__).resolve().parent.parent
PHONE = {"width": 390, "height": 844}
PAGE = "book/softmax.html"
AXE_PARTS = [[".exercise"], [".run-tools"], [".bd-links"]]
BOOT = 120_000  # milliseconds that a start may take on a busy machine

WRONG = """def softmax(x, axis=-1):
    e = np.exp(x)
    return e / e.sum()
"""
RIGHT = """def softmax(x, axis=-1):
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    e = np.exp(wide - wide.max(axis, keepdims=True))
    return (e / e.sum(axis, keepdims=True)).astype(x.dtype)
"""


@pytest.fixture(scope="module")
def runtime():
    """The module of the site extension that builds the runner."""
    sys.path.insert(0, str(REPO / "book" / "_ext"))
    from normlab_site import runtime

    yield runtime
    sys.path.pop(0)


def in_python(code, part):
    """What a check cell of a notebook says of this code."""
    names = {"np": np}
    exec(code, names)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            check(names["softmax"], "softmax", part=part)
    except CheckFailed as failed:
        return str(failed)
    return said.getvalue().strip()


class Desk:
    """A tab on the page, and the hands of a reader."""

    def __init__(self, context, address):
        self.tab, self.asked, self.complaints = context.new_page(), [], []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on(
            "console",
            lambda message: (
                self.complaints.append((message.text, message.location["url"])) if message.type == "error" else None
            ),
        )
        self.tab.set_default_timeout(BOOT)
        self.address = address
        self.tab.goto(f"{address}/{PAGE}")

    def exercise(self, name="softmax"):
        return self.tab.locator(f"#exercise-{name}")

    def editor(self, name="softmax"):
        return self.exercise(name).get_by_role("textbox", name=f"Your code for {name}")

    def press(self, words, name="softmax"):
        self.exercise(name).get_by_role("button", name=words, exact=True).click()

    def done(self, name="softmax"):
        """Wait until nothing runs."""
        self.exercise(name).locator(".run-run:enabled").wait_for()

    def check(self, code, name="softmax"):
        self.editor(name).fill(code)
        self.press("Check", name)
        self.done(name)
        return self.exercise(name).locator(".run-sentence").all_inner_texts()

    def run(self, code, name="softmax"):
        self.editor(name).fill(code)
        self.press("Run", name)
        self.done(name)
        return self.exercise(name).locator(".run-output").inner_text()

    def says(self, selector, name="softmax"):
        return self.exercise(name).locator(selector).inner_text()

    def focused(self):
        return self.tab.evaluate("document.activeElement.textContent")

    def axe(self):
        """Which of its rules axe-core sees broken in what the exercises' scripts make, in either mode."""
        broken = set()
        for mode in ("light", "dark"):
            self.tab.evaluate(f"document.documentElement.dataset.theme = '{mode}'")
            # By itself it fetches style sheets once more, from where it guesses them.
            found = Axe().run(self.tab, AXE_PARTS, {"preload": False}).response["violations"]
            broken |= {(mode, rule["id"], node["html"]) for rule in found for node in rule["nodes"]}
        return broken

    def progress(self):
        link = self.tab.locator("nav.bd-links li.current > a")
        return link.locator(".work-count").text_content(), link.locator(".visually-hidden").text_content()


def fetched(desk):
    """Files of the runner that were asked for, but for the list of exercises."""
    return [url for url in desk.asked if "/runner/" in url and "course.js" not in url]


def test_the_story_of_an_exercise(browser, server, tmp_path):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    desk = Desk(context, server)
    tab = desk.tab
    tab.wait_for_load_state("networkidle")
    assert fetched(desk) == []
    assert desk.progress() == ("0/4", ", 0 of 4 exercises solved")
    assert "np.sum(exponentials" not in tab.locator("html").text_content()

    # The solution is for those who have tried: the stub is no try, and neither is looking.
    desk.press("Show solution")
    assert desk.says(".run-note").startswith("Try first")
    desk.press("Hint")
    first, second, _ = (fold for fold in desk.exercise().locator("details:not(.exercise-after, .run-elsewhere)").all())
    assert first.get_attribute("open") is not None
    assert second.get_attribute("open") is None
    desk.press("Hint")
    assert second.get_attribute("open") is not None
    assert fetched(desk) == []

    # Wrong, in the words of the notebook.
    said = desk.check(WRONG)
    assert said == [in_python(WRONG, part) for part in ("values", "numerics", "edges")]
    assert "yours divides by the sum over the whole array" in said[0]
    assert desk.says(".run-points").startswith("Not yet: 0 of 20 points")
    assert desk.exercise().locator(".run-verdict.run-refused").is_visible()
    assert desk.exercise().locator(".run-verdict").get_attribute("aria-live") == "polite"
    assert desk.progress()[0] == "0/4"
    needed = ("pyodide.asm.wasm", "python_stdlib.zip", "numpy-2.0.2", "normlab.zip", "golden/softmax.npz")
    assert all(any(name in url for url in fetched(desk)) for name in needed)
    assert not any("solutions" in url for url in fetched(desk))

    assert desk.axe() == set()

    # Now that it was tried.
    desk.press("Show solution")
    solution = desk.exercise().locator(".run-solution pre")
    solution.wait_for()
    assert "exponentials / np.sum(exponentials, axis=axis, keepdims=True)" in solution.inner_text()
    assert "###" not in solution.inner_text()
    desk.press("Hide solution")
    assert not solution.is_visible()

    # Run: what is printed, the last value, an error with its line, a flood that is cut.
    assert desk.run("print('one')\nnp.arange(3) * 2") == "one\narray([0, 2, 4])\n"
    told = desk.run("a = 1\nb = a / 0")
    assert "line 2" in told
    assert told.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "session" not in told
    assert 20_000 < len(desk.run("for i in range(10**5):\n    print(i)")) < 20_200

    # Mended.
    said = desk.check(RIGHT)
    assert said == [in_python(RIGHT, part) for part in ("values", "numerics", "edges")]
    assert desk.says(".run-points").startswith("Right: 20 of 20 points")
    assert desk.says(".run-badge") == "Solved"
    assert desk.progress() == ("1/4", ", 1 of 4 exercises solved")

    assert desk.axe() == set()

    # It is there again after a reload, and nothing is fetched for that.
    desk.asked.clear()
    tab.reload(wait_until="networkidle")
    assert fetched(desk) == []
    assert desk.editor().input_value() == RIGHT
    assert desk.says(".run-points").startswith("Right: 20 of 20 points")
    assert desk.progress()[0] == "1/4"
    desk.editor().press("End")
    desk.editor().type(" ")
    assert desk.exercise().locator(".run-stale .run-since").is_visible()
    desk.editor().press("Backspace")

    # As a notebook, which grading takes as one that was written in JupyterLab.
    with tab.expect_download() as waiting:
        tab.get_by_role("button", name="Save as a notebook").click()
    assert waiting.value.suggested_filename == "softmax.ipynb"
    path = tmp_path / "softmax.ipynb"
    waiting.value.save_as(path)
    released = nbformat.read(REPO / "exercises" / "softmax" / "softmax.ipynb", as_version=4)
    saved = nbformat.read(path, as_version=4)
    nbformat.validate(saved)
    answer = next(cell for cell in released.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == "softmax")
    answer.source = RIGHT
    assert saved == released
    graded = rebuild.rebuild(released, rebuild.read(path, tmp_path))
    assert RIGHT in [cell.source for cell in graded.cells]
    assert rebuild.NOTICE not in [cell.get("id") for cell in graded.cells]
    module = collect.read(path)
    assert module.problems == []

    # Forgotten, and taken from the notebook again; a prediction and a paragraph in it come back as well.
    for cell in saved.cells:
        if cell.id in ("prediction-crowd", "explain-softmax"):
            cell.source = "prediction = 0.2" if cell.cell_type == "code" else "It is a share among three."
        if cell.id == "explanation-softmax":
            cell.source = "It is a share among three."
    nbformat.write(saved, path)
    tab.get_by_role("button", name="Forget everything").click()
    assert desk.progress()[0] == "1/4"
    tab.get_by_role("button", name="Forget the work on all pages, really").click()
    assert desk.progress()[0] == "0/4"
    assert "NotImplementedError" in desk.editor().input_value()
    assert not desk.exercise().locator(".run-badge").is_visible()
    tab.locator("input[type=file]").set_input_files(path)
    tab.get_by_text("Loaded 4 answers").wait_for()
    assert desk.editor().input_value().strip() == RIGHT.strip()
    with tab.expect_download() as waiting:
        tab.get_by_role("button", name="Save as a notebook").click()
    again = tmp_path / "again.ipynb"
    waiting.value.save_as(again)
    written = {cell.id: cell.source for cell in nbformat.read(again, as_version=4).cells}
    assert written["prediction-crowd"] == "prediction = 0.2"
    assert written["explanation-softmax"] == "It is a share among three."

    # Other work would be replaced only after a question.
    desk.editor().fill(WRONG)
    tab.locator("input[type=file]").set_input_files(path)
    tab.get_by_text("It would replace your code here for softmax.").wait_for()
    assert desk.editor().input_value() == WRONG
    tab.get_by_role("button", name="Replace them").click()
    assert desk.editor().input_value().strip() == RIGHT.strip()
    (tmp_path / "no.ipynb").write_text("{}")
    tab.locator("input[type=file]").set_input_files(tmp_path / "no.ipynb")
    tab.get_by_text("This file is no notebook with exercises of this page.").wait_for()

    # Reset asks first.
    desk.press("Reset")
    assert desk.editor().input_value().strip() == RIGHT.strip()
    desk.press("Reset: lose this code")
    assert "NotImplementedError" in desk.editor().input_value()
    assert [url for url in desk.asked if not url.startswith((server, "data:", "blob:"))] == []
    assert desk.complaints == []
    context.close()


def test_what_never_ends_is_stopped_and_the_page_stays_alive(browser, server):
    """On a phone, and from a server that does not know what WebAssembly is."""
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    context.route("**/*.wasm*", lambda route: route.fulfill(response=route.fetch(), content_type="text/plain"))
    desk = Desk(context, server)
    tab = desk.tab

    # Stop, while it runs; meanwhile the page answers, and the next run has a Python again.
    desk.editor().fill("print('before')\nwhile True:\n    pass")
    desk.press("Run")
    tab.get_by_text("before", exact=True).wait_for()
    assert tab.evaluate("new Promise((done) => requestAnimationFrame(() => done(1 + 1)))") == 2
    assert desk.exercise("logsumexp").locator(".run-run").is_disabled()
    desk.press("Stop")
    assert desk.says(".run-note") == "Stopped."
    assert desk.run("1 + 1") == "2\n"

    # A loop that never ends, in the function: the sentence of the notebook, after fewer seconds than there.
    hasty = "from normlab import guard\nguard.CALL_SECONDS = 1\n"
    case = next(case for case in EXERCISES["softmax"].cases if case.part == "values")
    late = f"softmax: on {case.kind}, yours does not return within 1 seconds: look for a loop that never ends."
    said = desk.check(f"{hasty}def softmax(x, axis=-1):\n    while x.size:\n        pass\n    return x\n")
    assert said[0] == late
    assert all("does not return within 1 seconds" in sentence for sentence in said)

    # A call of C that never comes back cannot be interrupted: its worker is ended, and the next one answers.
    said = desk.check(f"{hasty}def softmax(x, axis=-1):\n    return sum(iter(int, 1))\n")
    assert said == [late, *["not checked: the part before did not end."] * 2]
    assert desk.complaints == []
    assert sum(".wasm" in address for address in desk.asked) == 1, "what is compiled is kept"
    context.close()


@pytest.mark.exhaustive
def test_what_fills_the_memory_gets_pythons_own_error_and_the_next_run_a_fresh_one(browser, server):
    context = browser.new_context()
    desk = Desk(context, server)
    hog = "kept = []\nwhile True:\n    kept.append(np.ones(10**7))\n    print(len(kept))"
    printed, error = desk.run(hog).split("Traceback")
    assert 5 < len(printed.split()) < 13, "a page may have 1 GB, and an array has 80 MB"
    assert "MemoryError" in error
    assert desk.run("'alive'") == "'alive'\n"
    assert desk.complaints == []
    assert sum(".wasm" in address for address in desk.asked) == 1, "what is compiled is kept"
    context.close()


def test_the_editor_is_a_field_that_the_keyboard_can_leave(browser, server):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    desk = Desk(context, server)
    field, keyboard = desk.editor(), desk.tab.keyboard
    field.fill("")
    field.focus()
    keyboard.type("def f(x):\nif x:\nreturn 1")
    assert field.input_value() == "def f(x):\n    if x:\n        return 1"
    keyboard.press("Enter")
    keyboard.press("Backspace")
    keyboard.type("return 2")
    assert field.input_value().endswith("        return 1\n    return 2")
    keyboard.press("Control+]")
    assert field.input_value().endswith("\n        return 2")
    keyboard.press("Control+[")
    assert field.input_value().endswith("\n    return 2")
    shown = desk.exercise().locator(".editor pre")
    assert shown.text_content() == field.input_value() + "\n"
    assert shown.locator(".k").all_text_contents() == ["def", "if", "return", "return"]
    boxes = [desk.exercise().locator(f".editor {tag}").bounding_box() for tag in ("pre", "textarea")]
    assert boxes[0] == boxes[1]
    # Tab indents for who writes, one line or several, and leaves the field after Escape.
    before = field.input_value()
    keyboard.press("Enter")
    keyboard.press("Tab")
    assert field.input_value() == f"{before}\n        "
    keyboard.press("Shift+Tab")
    assert field.input_value() == f"{before}\n    "
    keyboard.press("Control+a")
    keyboard.press("Tab")
    assert field.input_value().startswith("    def f(x):\n        if x:\n")
    keyboard.press("Shift+Tab")
    assert field.input_value().rstrip() == before
    before = field.input_value()
    keyboard.press("Escape")
    keyboard.press("Tab")
    assert desk.focused() == "Run"
    assert desk.tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    # For who only passes it is a field like any other.
    keyboard.press("Shift+Tab")
    assert desk.tab.evaluate("document.activeElement.tagName") == "TEXTAREA"
    described = desk.tab.evaluate(
        "document.getElementById(document.activeElement.getAttribute('aria-describedby')).textContent"
    )
    assert "Escape, then Tab, leaves the editor" in described
    keyboard.press("Tab")
    assert desk.focused() == "Run"
    assert field.input_value() == before
    context.close()


def test_an_exercise_that_needs_more_than_numpy_says_so(browser, server):
    tab = browser.new_page()
    for page, name, word in (
        ("running", "BatchNorm", "PyTorch"),
        ("kernels", "softmax_rows", "Numba"),
        ("kernels", "softmax_kernel", "Triton"),
    ):
        tab.goto(f"{server}/book/{page}.html")
        block = tab.locator(f"#exercise-{name}")
        assert block.locator(".editor").count() == 0
        assert f"needs {word}" in block.locator(".run-instead").text_content()
        assert "notebook" in block.locator(".run-instead").text_content()
        assert block.locator("pre").first.is_visible()
    assert tab.locator("#exercise-bytes_moved .editor").count() == 1
    tab.close()


def test_without_javascript_from_a_file_and_without_the_runtime(browser, site, server):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f"{server}/{PAGE}")
    stub = tab.locator("#exercise-softmax > .highlight-python pre")
    assert stub.is_visible()
    assert tab.locator(".run, .run-instead, .work-count, article button:visible").count() == 0
    context.close()

    context = browser.new_context()
    tab = context.new_page()
    tab.goto((site / PAGE).as_uri())
    assert "python -m http.server" in tab.locator("#exercise-softmax .run-instead").text_content()
    assert tab.locator("#exercise-softmax > .highlight-python pre").is_visible()
    assert tab.locator(".editor, .work-count").count() == 0

    none = 'window.normlabCourse = {"chapters": {"softmax": ["softmax"]}, "runner": null};'
    tab.route("**/course.js*", lambda route: route.fulfill(body=none, content_type="text/javascript"))
    tab.goto(f"{server}/{PAGE}")
    assert "built without Python" in tab.locator("#exercise-softmax .run-instead").text_content()
    assert tab.locator("#exercise-softmax > .highlight-python pre").is_visible()
    assert tab.locator(".editor, .work-count").count() == 0
    context.close()


def test_what_cannot_be_fetched_is_said_and_tried_again(browser, server):
    context = browser.new_context()
    desk = Desk(context, server)
    context.route("**/pyodide.asm.wasm*", lambda route: route.abort())
    context.route("**/worker.js*", lambda route: route.fulfill(status=404))
    desk.press("Run")
    desk.done()
    assert desk.says(".run-note").startswith("Python could not be loaded")
    context.unroute("**/worker.js*")
    desk.press("Run")
    desk.tab.get_by_text("Python could not be loaded (pyodide.asm.wasm").wait_for()
    desk.done()
    context.close()


# -- The built files -------------------------------------------------------------------------------------------------


def test_every_numpy_exercise_of_the_course_has_an_editor(site):
    course = json.loads((site / "_static" / "runner" / "course.js").read_text().split("=", 1)[1].strip().rstrip(";"))
    chapters = {}
    for exercise in EXERCISES.values():
        if not exercise.torch_exercise and not exercise.compile_seconds:
            chapters.setdefault(exercise.stem, []).append(exercise.name)
    assert course["chapters"] == chapters
    assert course["runner"] is not None, "The site was built without the runner: see what the build says."
    for stem, names in chapters.items():
        blocks = re.findall(r"<[^>]* data-exercise=[^>]*>", (site / "book" / f"{stem}.html").read_text())
        shown = [re.search(r'data-exercise="(\w+)"', block)[1] for block in blocks if "data-needs" not in block]
        assert shown == names


def test_the_solutions_are_not_to_be_read_in_passing(site, runtime):
    kept = site / "_static" / "runner" / "solutions"
    assert len(list(kept.iterdir())) == 34
    for path in kept.iterdir():
        assert "return" not in path.read_text()
        assert "def " not in path.read_text()


def test_the_archive_has_the_files_that_a_check_imports_and_no_others(runtime):
    import zipfile

    archive = zipfile.ZipFile(io.BytesIO(runtime.normlab_archive()))
    names = set(archive.namelist())
    assert {"session.py", "normlab/check.py", "normlab/golden.py", "normlab/chapters/attention.py"} <= names
    assert not any(re.search(r"cpu|cuda|bench|nn\.py|functional|jit|inventory|watch|shadow", name) for name in names)
    assert runtime.normlab_archive() == runtime.normlab_archive()


# -- Where the runtime comes from ------------------------------------------------------------------------------------


@pytest.fixture
def places(runtime, monkeypatch, tmp_path):
    """Small files in place of the real ones, an empty cache, and a list of (name, files or error) as the sources."""
    import hashlib

    files = {"one.js": b"one", "two.wasm": b"two"}
    monkeypatch.setitem(runtime.PINS, "sha256", {n: hashlib.sha256(c).hexdigest() for n, c in files.items()})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NORMLAB_RUNNER", raising=False)
    monkeypatch.setattr(runtime, "from_release", lambda address: (_ for _ in ()).throw(runtime.Nowhere("is away")))
    monkeypatch.setattr(runtime, "from_wheel", lambda requirement: dict(files))
    return files


def test_sources_are_tried_in_order_and_what_was_found_is_kept(runtime, places, monkeypatch):
    found, lacks = runtime.runtime()
    assert found == places
    assert [why.split(" ", 1)[1] for why in lacks] == ["holds nothing yet", "is away"]
    monkeypatch.setattr(runtime, "from_wheel", lambda requirement: pytest.fail("asked again"))
    assert runtime.runtime() == (places, [])


def test_a_file_with_another_sum_is_not_taken(runtime, places, monkeypatch):
    runtime.runtime()
    (runtime.cache() / "two.wasm").write_bytes(b"tampered")
    assert runtime.runtime()[0] == places, "the cache was wrong, and the next source right"
    (runtime.cache() / "two.wasm").write_bytes(b"tampered")
    monkeypatch.setattr(runtime, "from_wheel", lambda requirement: places | {"one.js": b"other"})
    found, lacks = runtime.runtime()
    assert found is None
    assert "has another two.wasm than runner.toml names" in lacks[0]
    assert "has another one.js than runner.toml names" in lacks[2]


def test_a_host_that_does_not_answer_is_no_error(runtime):
    with pytest.raises(runtime.Nowhere, match="does not answer"):
        runtime.from_release("http://127.0.0.1:9/")


def test_a_build_without_the_runtime_says_so(tmp_path, monkeypatch):
    from tests.test_site import SOLUTIONS, project

    project(tmp_path, {"good": "```{exercise} softmax\n```\n"}, {"good": SOLUTIONS.replace("double", "softmax")})
    monkeypatch.setenv("NORMLAB_RUNNER", "off")
    command = [sys.executable, "-m", "sphinx", "-n", "-b", "html", tmp_path, tmp_path / "html"]
    built = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "built without the runner: NORMLAB_RUNNER is off." in built.stdout
    runner = tmp_path / "html" / "_static" / "runner"
    course = (runner / "course.js").read_text()
    assert course == 'window.normlabCourse = {"chapters": {"good": ["softmax"]}, "runner": null};\n'
    assert sorted(path.name for path in runner.iterdir()) == ["course.js", "worker.js"]
    shutil.rmtree(tmp_path / "html")
