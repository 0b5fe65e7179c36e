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
from pathlib import Path

import nbformat
from nbgrader import api, utils
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.apps import AutogradeApp
from nbgrader.converters import Autograde
from nbgrader.preprocessors import AssignLatePenalties, CheckCellMetadata, OverwriteCells
from sqlalchemy import Index

from grading import autograde, rebuild

MARKS = ".graded"  # folder of the marks, in the course's folder
INDEXES = (
    (api.SubmittedAssignment, api.SubmittedAssignment.student_id),
    (api.SubmittedNotebook, api.SubmittedNotebook.assignment_id),
    (api.Grade, api.Grade.notebook_id),
    (api.Comment, api.Comment.notebook_id),
)


class Unready(Exception):
    """Why nothing can be graded here, in plain words."""


class Recorder(Autograde):
    """nbgrader's autograde for one assignment of the course in the present folder."""

    def __init__(self, assignment, db=None, force=False):
        AutogradeApp.clear_instance()
        app = AutogradeApp.instance()
        app.initialize([f"--assignment={assignment}", *([f"--db={db}"] if db else [])])
        super().__init__(coursedir=app.coursedir, parent=app)
        self.again, self.assignment = force, assignment
        for logger in (app.log, self.log):
            logger.setLevel(logging.ERROR)
        self.penalties = AssignLatePenalties(parent=self)
        self.penalties.init_plugin()
        os.chdir(self.coursedir.root)
        self.book = None
        self.open()

    def open(self):
        """Open the gradebook, and what was released, with the instructor's cells as the gradebook has them."""
        if self.book is not None:
            self.book.close()
        self.book = Gradebook(self.coursedir.db_url, self.coursedir.course_id)
        for table, column in INDEXES:
            # nbgrader looks these up without an index: each submission would take longer than the one before.
            column = column.property.columns[0]
            Index(f"ix_{table.__tablename__}_{column.name}", column).create(self.book.engine, checkfirst=True)
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
        if not within.is_dir():
            return []
        return sorted(path.name for path in within.iterdir() if (path / self.assignment).is_dir())

    def digest(self, student):
        """Tells what a student handed in from what they hand in later."""
        digest, folder = hashlib.sha256(), self.folder(student)
        for path in sorted(folder.iterdir()):
            digest.update(path.name.encode("utf-8", "surrogateescape") + b"\0")
            if path.is_file() and not path.is_symlink():
                with open(path, "rb") as file:
                    while piece := file.read(1 << 20):
                        digest.update(piece)
        return digest.hexdigest()

    def mark(self, student):
        return Path(MARKS, self.assignment, f"{student}.json")

    def finished(self, student):
        """Whether this very submission has been graded and recorded."""
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
        self._write_mark(student, {"submission": submission, "score": score[0], "max_score": score[1]})
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

    def _write_mark(self, student, content):
        path = self.mark(student)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
