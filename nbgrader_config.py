"""nbgrader's settings for this course: `nbgrader COMMAND` in this folder reads them."""

import os

from sqlalchemy import event
from sqlalchemy.engine import Engine

c = get_config()  # noqa: F821 - nbgrader puts the name here

c.CourseDirectory.course_id = "normlab"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "exercises"
# Everything else that stands beside a notebook is published. The hand-written sources hold the answers; and a file
# that a learner hands in beside the notebook, such as a torch.py, would be imported while the notebook is graded.
c.CourseDirectory.ignore = ["*.py", "*.pyc", "__pycache__", ".ipynb_checkpoints", "feedback"]

c.ClearSolutions.code_stub = {"python": "# your code here\nraise NotImplementedError"}
c.ClearSolutions.text_stub = "*Your paragraph here: a double click opens this cell.*"

# A prediction is `prediction = None` in the release, with nothing that raises. What the instructor's notebook has
# between these two lines is taken out like a hidden test, but the cell is no test: it stays the learner's to change.
c.ClearHiddenTests.begin_test_delimeter = "### BEGIN INSTRUCTOR"
c.ClearHiddenTests.end_test_delimeter = "### END INSTRUCTOR"
c.ClearHiddenTests.enforce_metadata = False

# A check gives a hanging function up by itself after seconds; this is for a cell that hangs before any check.
c.Execute.timeout = 30
# After much printing the messages come late, and a late message would end the grading of the whole submission.
c.Execute.iopub_timeout = 60
c.Execute.shutdown_kernel = "immediate"

# Feedback is opened in an instructor's browser: HTML that a learner's cell puts out is cleaned, and so is Markdown.
c.HTMLExporter.sanitize_html = True
c.HTMLExporter.filters = {"markdown2html": "grading.feedback.markdown"}

# `nbgrader zip_collect STEM` takes downloaded/STEM/archive/<student>.zip with the notebook in it.
c.FileNameCollectorPlugin.named_regexp = r".*/(?P<student_id>[^/]+)/(?P<file_id>[^/]+)\.ipynb$"

# Learners' code runs in a sandbox, and what it is worth is decided outside of it (grading/autograde.py).
c.Autograde.pre_convert_hook = "grading.autograde.intake"
c.Autograde.exporter_class = "grading.autograde.Submitted"
c.Autograde.autograde_preprocessors = [
    "grading.autograde.Judge",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]


# Many may write one gradebook. SQLite alone would give up after five seconds, with "database is locked".
@event.listens_for(Engine, "connect")
def _wait_for_others(connection, _):
    if type(connection).__module__ == "sqlite3":
        seconds = float(os.environ.get("NORMLAB_GRADEBOOK_SECONDS", "300"))
        connection.execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}")
