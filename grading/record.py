"""The one who records: nbgrader's own autograde, a submission at a time, with verdicts that workers have computed.

A submission is finished when its mark is written, after everything else. Whatever ends the grader before that, the
next run does the submission again; what is finished it leaves alone.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import nbformat
import sqlalchemy
from nbgrader import api, utils
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.apps import AutogradeApp
from nbgrader.converters import Autograde
from nbgrader.preprocessors import AssignLatePenalties, CheckCellMetadata, OverwriteCells

from grading import autograde, marks, rebuild

INDEXES = (
    ("submitted_assignment", "student_id"),
    ("submitted_notebook", "assignment_id"),
    ("grade", "notebook_id"),
    ("comment", "notebook_id"),
)


class Unready(Exception):
    """Why nothing can be graded here, in plain words."""


def _is_there(folder, name):
    try:
        return (folder / name).is_dir()
    except PermissionError:
        return True


class Recorder(Autograde):
    """nbgrader's autograde for one assignment of the course in the present folder. As a context, it is the only one."""

    def __init__(self, assignment, db=None):
        # nbgrader_config.py lets others wait for minutes; who waits here is told so meanwhile.
        os.environ.setdefault("NORMLAB_GRADEBOOK_SECONDS", "5")
        AutogradeApp.clear_instance()
        app = AutogradeApp.instance()
        app.initialize([f"--assignment={assignment}", *([f"--db={db}"] if db else [])])
        super().__init__(coursedir=app.coursedir, parent=app)
        self.assignment = assignment
        for logger in (app.log, self.log):
            logger.setLevel(logging.ERROR)
        self.penalties = AssignLatePenalties(parent=self)
        self.penalties.init_plugin()
        os.chdir(self.coursedir.root)
        self.book = self.lock = None
        self.open()

    def __enter__(self):
        """Errors: Unready, where another process grades this assignment; OSError, where nothing can be written."""
        self.lock = marks.lock(self.assignment)
        if self.lock is None:
            raise Unready(f"Another python -m grading is at work on {self.assignment} in this folder.")
        graded = Path(self.coursedir.format_path(self.coursedir.autograded_directory, "", ""))
        graded.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=graded) as file:
            file.write(b"There is room.")
        return self

    def __exit__(self, *_):
        self.book.close()
        self.lock.close()

    def open(self):
        """Open the gradebook, and what was released, with the instructor's cells as the gradebook has them."""
        if self.book is not None:
            self.book.close()
        self.book = Gradebook(self.coursedir.db_url, self.coursedir.course_id)
        with self.book.engine.begin() as connection:
            # nbgrader looks these up without an index: each submission would take longer than the one before. They are
            # no part of nbgrader's tables: an Index of SQLAlchemy would become one, for all gradebooks of this process.
            for table, column in INDEXES:
                statement = f"CREATE INDEX IF NOT EXISTS ix_{table}_{column} ON {table} ({column})"
                connection.execute(sqlalchemy.text(statement))
        try:
            found = self.book.find_assignment(self.assignment).notebooks
        except MissingEntry:
            raise Unready(
                f"The gradebook knows no {self.assignment}: nbgrader generate_assignment {self.assignment}"
            ) from None
        self.names = [notebook.name for notebook in found]
        kinds = ("grade_cells", "solution_cells", "task_cells")
        self.cells = {cell.id: cell.name for notebook in found for kind in kinds for cell in getattr(notebook, kind)}
        self.releases = {name: self._release(name) for name in self.names}
        submitted, students = api.SubmittedAssignment, self.book.db.query(api.SubmittedAssignment.student_id)
        known = students.join(api.Assignment, api.Assignment.id == submitted.assignment_id)
        self.recorded = {student for (student,) in known.filter(api.Assignment.name == self.assignment)}

    def _release(self, name):
        folder = self.coursedir.format_path(self.coursedir.release_directory, ".", self.assignment)
        path = Path(folder, f"{name}.ipynb")
        if not path.is_file():
            raise Unready(f"{path} is missing: nbgrader generate_assignment {self.assignment}")
        marks = {"notebook": name, "assignment": self.assignment, "db_url": self.coursedir.db_url}
        notebook = nbformat.read(path, 4)
        for preprocessor in (OverwriteCells, CheckCellMetadata):
            notebook, _ = preprocessor(parent=self).preprocess(notebook, {"nbgrader": marks})
        return notebook

    # -- what there is to do -------------------------------------------------------------------------------------------

    def folder(self, student):
        return Path(self.coursedir.format_path(self.coursedir.submitted_directory, student, self.assignment))

    def students(self):
        """All who handed in, in order."""
        within = Path(self.coursedir.format_path(self.coursedir.submitted_directory, "", ""))
        names = os.listdir(within) if within.is_dir() else []
        # A folder that may not be looked into counts, so that it is heard of; a file beside the folders does not.
        return sorted(name for name in names if not name.startswith(".") and _is_there(within / name, self.assignment))

    def digest(self, student):
        """Tells what a student handed in from what they hand in later. What cannot be read has no bytes."""
        digest, folder = hashlib.sha256(), self.folder(student)
        for path in sorted(folder.iterdir()):
            digest.update(path.name.encode("utf-8", "surrogateescape") + b"\0")
            with contextlib.suppress(PermissionError):
                if path.is_file() and not path.is_symlink():
                    with open(path, "rb") as file:
                        while piece := file.read(1 << 20):
                            digest.update(piece)
        return digest.hexdigest()

    def mark(self, student):
        return marks.mark(self.assignment, student)

    def finished(self, student):
        """Whether this very submission has been graded and recorded, in this gradebook."""
        if student not in self.recorded:
            return False
        try:
            mark = json.loads(self.mark(student).read_text(encoding="utf-8"))
            done = all((self.graded_folder(student) / f"{name}.ipynb").is_file() for name in self.names)
            return done and mark["submission"] == self.digest(student)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def graded_folder(self, student):
        return Path(self.coursedir.format_path(self.coursedir.autograded_directory, student, self.assignment))

    def taken_in(self, student):
        """[(notebook's name, its rebuilt text, sentences about the file)] of a submission."""
        folder = self.folder(student)
        try:
            student.encode()
        except UnicodeEncodeError:
            raise Unready("the folder's name is no text") from None
        if not folder.exists() and not folder.is_symlink():
            raise Unready(f"has handed in no {self.assignment}")
        if folder.is_symlink() or folder.parent.is_symlink():
            raise Unready("the folder is a link, and links are not followed")
        autograde.intake(self.assignment, student, [str(folder / f"{name}.ipynb") for name in self.names])
        found = []
        for name, release in self.releases.items():
            notebook = autograde.rebuilt(release, folder / f"{name}.ipynb", folder.parent.parent)
            notices = [cell.source for cell in notebook.cells if cell.get("id") == rebuild.NOTICE]
            found.append((name, nbformat.writes(notebook, 4), notices))
        return found

    # -- recording -----------------------------------------------------------------------------------------------------

    def record(self, student, texts):
        """Write a submission, whose graded notebooks are the JSON `texts` by name; its score, and the most there is.

        Errors: OSError, sqlalchemy's. Then nothing is marked, and all of it is written again the next time.
        """
        submission = self.digest(student)
        with contextlib.suppress(FileNotFoundError):
            self.mark(student).unlink()
        self._write(student, texts)
        try:
            score = self._score(student, {name: nbformat.reads(text, 4) for name, text in texts.items()})
        except Exception:
            self.book.db.rollback()
            raise
        finally:
            self.book.db.expunge_all()
        self.coursedir.student_id, self.notebooks = (
            student,
            [str(self.graded_folder(student) / f"{n}.ipynb") for n in texts],
        )
        self.run_post_convert_hook()
        marks.write(self.mark(student), {"submission": submission, "score": score[0], "max_score": score[1]})
        return score

    def _write(self, student, texts):
        """autograded/<student>/<assignment>, as nbgrader makes it."""
        target = self.graded_folder(student)
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        source = self.coursedir.format_path(self.coursedir.source_directory, ".", self.assignment)
        for path in utils.find_all_files(source, [*self.coursedir.ignore, "*.ipynb"]):
            beside = target / os.path.relpath(path, source)
            beside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, beside)
        stamp = self.folder(student) / "timestamp.txt"
        if stamp.is_file() and not stamp.is_symlink():
            shutil.copy(stamp, target)
        for name, text in texts.items():
            (target / f"{name}.ipynb").write_text(text + "\n", encoding="utf-8")
        self.set_permissions(self.assignment, student)

    def _score(self, student, notebooks):
        """What nbgrader's SaveAutoGrades and AssignLatePenalties do, in one transaction."""
        book = self.book
        book.update_or_create_student(student)
        stamp = self.coursedir.get_existing_timestamp(str(self.folder(student)))
        submission = book.update_or_create_submission(
            self.assignment, student, **({"timestamp": stamp} if stamp else {})
        )
        for recorded in submission.notebooks:
            cells = {
                cell.metadata.nbgrader.grade_id: cell
                for cell in notebooks[recorded.name].cells
                if cell.metadata.get("nbgrader", {}).get("grade_id")
            }
            for grade in recorded.grades:
                grade.auto_score, _ = utils.determine_grade(cells[self.cells[grade.cell_id]], self.log)
                # A score that somebody gave by hand stays, and is to be looked at again.
                grade.needs_manual_grade = grade.manual_score is not None or grade.auto_score is None
            for comment in recorded.comments:
                cell = cells[self.cells[comment.cell_id]]
                same = cell.metadata.nbgrader.get("checksum") == utils.compute_checksum(cell)
                comment.auto_comment = "No response." if same and not utils.is_task(cell) else None
        book.db.flush()
        late = submission.total_seconds_late
        for recorded in submission.notebooks:
            penalty = (
                self.penalties.plugin_inst.late_submission_penalty(student, recorded.score, late) if late > 0 else None
            )
            recorded.late_submission_penalty = penalty and self.penalties._check_late_penalty(recorded, penalty)
        book.db.commit()
        return submission.score, submission.max_score
