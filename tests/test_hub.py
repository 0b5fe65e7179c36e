"""A real JupyterHub, a real browser: two learners and an instructor go through the day of an assignment.

NORMLAB_SCREENSHOTS=FOLDER keeps a picture of every step.
"""

import argparse
import contextlib
import json
import os
import re
import time
from pathlib import Path

import psutil
import pytest

from grading import demo
from grading.course import Unready
from grading.hub import trial

pytest.importorskip("jupyterhub")
STEM = "puzzle"
CLASS = {submission.student: submission for submission in demo.read_class(STEM)}
RIGHT, WRONG = CLASS["ada"], CLASS["emil"].answers["standardize"]
assert WRONG.mistake == "divides-by-n-1"
SENTENCE = "divides by n-1"
# A machine that is busy with other tests is slow; a condition that holds ends the wait at once.
PATIENCE = 120


def wait_for(condition, what):
    """What the condition returns once it is true; an assertion if it never is."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.1)
    return found


class Person:
    """Somebody at a browser of their own, logged in on the hub."""

    def __init__(self, browser, address, name, password):
        self.name, self.address = name, f"{address}/user/{name}"
        self.page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.goto(f"{address}/hub/login")
        self.page.fill("#username_input", name)
        self.page.fill("#password_input", password)
        self.page.click("#login_submit", no_wait_after=True)
        # The server's start is not waited for here: three of them start at the same time.
        self.page.wait_for_url(re.compile(r"/hub/spawn-pending/|/user/"), wait_until="commit")
        self.page.goto("about:blank")
        self.steps = 0

    def arrive(self):
        """Wait until the server answers."""
        answers = f"{self.address}/api"  # its version, for everybody; as long as there is no server the hub refuses
        wait_for(lambda: self.page.request.get(answers, max_redirects=0).ok, f"the server of {self.name} did not start")

    def picture(self, what):
        self.steps += 1
        if folder := os.environ.get("NORMLAB_SCREENSHOTS"):
            self.page.screenshot(animations="disabled", path=Path(folder, f"{self.name}-{self.steps:02}-{what}.png"))


class Learner(Person):
    @property
    def list(self):
        return self.page.locator("#nbgrader-assignment-list")

    def open_list(self):
        self.page.goto(f"{self.address}/lab", wait_until="domcontentloaded")
        self.page.locator(".lm-MenuBar-itemLabel", has_text="Nbgrader").click()
        self.page.locator(".lm-Menu-itemLabel", has_text="Assignment List").click()
        self.list.wait_for()

    def items(self, kind):
        return self.list.locator(f"#{kind}_assignments_list > .list_item", has_text=STEM)

    def fetch(self):
        self.picture("list")
        self.items("released").get_by_role("button", name="Fetch").click()
        self.items("fetched").wait_for()
        self.picture("fetched")

    def open_notebook(self):
        self.items("fetched").locator(".assignment-notebooks-link").click()
        self.items("fetched").locator(".nested_list_item a").click()
        self.page.locator(".jp-NotebookPanel .jp-Cell", has_text="def standardize").first.wait_for()

    def write(self, cells):
        """Type {text that the cell has: code} into the notebook, save it, and see that the file has it."""
        for mark, code in cells.items():
            editor = self.page.locator(".jp-CodeCell .cm-content", has_text=mark).first
            editor.scroll_into_view_if_needed()
            editor.click()
            self.page.keyboard.press("Control+A")
            self.page.keyboard.insert_text(code)
        self.picture("written")
        self.page.keyboard.press("Control+S")
        wait_for(
            lambda: {code.strip() for code in cells.values()} <= self.sources(),
            f"{self.name}'s notebook was not saved with the code",
        )

    def sources(self):
        """What the cells of the saved notebook have."""
        try:
            notebook = json.loads((self.home / STEM / f"{STEM}.ipynb").read_text())
        except ValueError:  # it is being written
            return set()
        return {"".join(cell["source"]).strip() for cell in notebook["cells"]}

    def explain(self, text):
        """Write the paragraph, in a Markdown cell that opens by a double click."""
        cell = self.page.locator(".jp-MarkdownCell", has_text="Your paragraph here")
        cell.scroll_into_view_if_needed()
        cell.locator(".jp-RenderedMarkdown").dblclick()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(text)

    def validate(self):
        """Start nbgrader's validation: it runs the whole notebook."""
        self.page.locator(".lm-TabBar-tabLabel", has_text=re.compile("^Assignments$|Assignment List")).first.click()
        self.items("fetched").get_by_role("button", name="Validate").click()

    def validated(self):
        """What nbgrader's validation says in the end."""
        dialog = self.page.locator(".jp-Dialog", has_text=re.compile("Validation Results|Success|failed", re.I))
        dialog.wait_for()
        self.picture("validated")
        text = dialog.inner_text()
        dialog.locator("button.jp-mod-accept").click()
        dialog.wait_for(state="detached")
        return text

    def submit(self):
        self.items("fetched").get_by_role("button", name="Submit").click()
        self.items("submitted").wait_for()
        self.picture("submitted")

    def read_feedback(self):
        """Fetch the feedback, follow the list's link to it, and return the page's text."""
        self.list.locator("#refresh_assignments_list").click()
        self.items("submitted").get_by_role("button", name="Fetch Feedback").click()
        link = self.list.locator("#submitted_assignments_list a", has_text=re.compile("view feedback", re.I))
        self.picture("feedback-list")
        link.first.wait_for()
        found = list((self.home / STEM / "feedback").glob(f"*/{STEM}.html"))
        assert len(found) == 1
        self.page.goto(f"{self.address}/files/{found[0].relative_to(self.home)}")
        if (sentence := self.page.get_by_text(SENTENCE).first).count():
            sentence.scroll_into_view_if_needed()
        self.picture("feedback")
        return " ".join(self.page.inner_text("body").split())


class Instructor(Person):
    def formgrader(self, path=""):
        self.page.goto(f"{self.address}/formgrader{path}")

    def click(self, row, column, says):
        """Click the symbol in a column of a row; formgrader's answer must be the success that `says`."""
        self.page.locator("tr", has=self.page.locator(f"td.{row}")).locator(f"td.{column} a").click()
        modal = self.page.locator("#success-modal, #error-modal")
        modal.wait_for()
        self.picture(column)
        text = modal.inner_text()
        assert says in text, text
        modal.locator(".modal-footer button").click()
        modal.wait_for(state="detached")

    def assignment(self, column, says):
        self.page.locator("td.name", has_text=STEM).first.wait_for()
        self.click(f'name:has-text("{STEM}")', column, says)


def processes_of(folder):
    """Names of processes that live in a home below the folder: servers and kernels."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("HOME", "").startswith(f"{folder}/") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
    return found


def test_a_hub_takes_no_folder_that_has_something(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(Unready, match="is not empty"):
        trial.make(tmp_path, [STEM])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(Unready, match="inside the checkout"):
        trial.main(argparse.Namespace(folder=trial.ROOT / "hub-of-a-test"))
    assert not (trial.ROOT / "hub-of-a-test").exists()


def test_a_hub_that_does_not_start_is_said(tmp_path):
    """Here because of its settings."""
    told = trial.make(tmp_path / "class", [STEM])
    assert len(set(told["ports"])) == 3
    (tmp_path / "class" / "hub.json").write_text(json.dumps({**told, "learners": 3}))
    with pytest.raises(Unready, match="says why"), trial.running(tmp_path / "class", PATIENCE):
        pass
    assert "TypeError" in (tmp_path / "class" / "hub.log").read_text()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "class"
    told = trial.make(folder, [STEM])
    with trial.running(folder, PATIENCE) as address:
        yield folder, address, told
    assert processes_of(folder) == []


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_day_on_a_hub(hub, browser):
    folder, address, told = hub
    if shown := os.environ.get("NORMLAB_SCREENSHOTS"):
        Path(shown).mkdir(parents=True, exist_ok=True)
    instructor, ada, ben = (
        kind(browser, address, name, told["password"])
        for kind, name in ((Instructor, told["instructor"]), (Learner, "ada"), (Learner, "ben"))
    )
    for one in (instructor, ada, ben):
        one.home = folder / "homes" / one.name
        one.arrive()

    instructor.formgrader()
    instructor.assignment("assign", f"Successfully created the student version of '{STEM}'")
    instructor.assignment("release", f"Successfully released '{STEM}'")

    assert len(processes_of(folder)) >= 3
    for learner in (ada, ben):
        learner.open_list()
        learner.fetch()
        learner.open_notebook()
    ada.explain("The mean is taken away.")
    ada.write({"prediction = None": "prediction = 1", **{f"def {n}(": RIGHT.answers[n].code for n in RIGHT.answers}})
    ada.validate()
    ben.write({"def standardize(": WRONG.code})
    ben.validate()
    assert "passes all the tests" in ada.validated()
    ada.submit()
    assert SENTENCE in ben.validated()
    ben.submit()

    instructor.formgrader()
    instructor.assignment("collect", "Successfully collected submissions")
    instructor.formgrader(f"/manage_submissions/{STEM}")
    for name in ("ada", "ben"):
        instructor.click(f'student-id:has-text("{name}")', "autograde", "Successfully autograded")
    instructor.formgrader(f"/gradebook/{STEM}/{STEM}")
    instructor.page.get_by_text("Submission #2").first.wait_for()
    instructor.picture("anonymous")
    shown = instructor.page.inner_text("body")
    assert not re.search(r"\b(ada|ben)\b", shown), shown
    instructor.formgrader()
    instructor.assignment("generate-feedback", "Successfully generated feedback")
    instructor.assignment("release-feedback", "Successfully released feedback")

    assert SENTENCE in ben.read_feedback()
    assert SENTENCE not in ada.read_feedback()
