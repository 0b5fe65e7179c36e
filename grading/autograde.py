"""What nbgrader's autograde uses of ours; nbgrader_config.py switches it on.

    nbgrader autograde softmax

Before a submission is looked at, `intake` puts aside what is no notebook. `Submitted` reads the notebook, whatever it
is, and builds the one that is graded. `Judge` runs that one: the instructor's cells in this process, the learner's in a
sandbox. Scores, gradebook, formgrader, feedback and export stay nbgrader's own.
"""

import os
import shutil
import stat
import time
from pathlib import Path

import nbformat
from nbconvert.exporters import NotebookExporter
from nbgrader.preprocessors import NbGraderPreprocessor

from grading import judge, rebuild

ASIDE = "aside"  # the folder beside submitted/ where things are put that are not graded
# What nbgrader submit puts beside the notebook: when it was handed in, and what feedback is given back by.
KEPT = ("timestamp.txt", "submission_secret.txt")


# ---- what is handed in beside the notebooks --------------------------------------------------------------------------


def intake(assignment, student, notebooks):
    """Put aside everything in a submission but its notebooks: nbgrader would copy it along, follow links, and publish
    copies with the feedback. A notebook under another name is taken for the missing one, if there is only one.

    nbgrader calls this in the course folder, with the paths of one submission's notebooks.
    """
    folders = {Path(notebook).parent for notebook in notebooks}
    for folder in folders:
        wanted = {path.name for path in Path("exercises", folder.name).glob("*.ipynb")}
        _take_for(folder, wanted)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name in KEPT and stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                continue
            if entry.name not in wanted or entry.is_symlink() or not entry.is_file(follow_symlinks=False):
                _put_aside(Path(entry.path))
        for name in wanted:
            if not (folder / name).exists():
                (folder / name).touch()  # an empty file: the learner is told that it was missing
        notebooks[:] = [n for n in notebooks if Path(n).parent != folder] + [str(folder / n) for n in sorted(wanted)]


def _take_for(folder, wanted):
    missing = [name for name in wanted if not (folder / name).exists()]
    others = [
        path for path in folder.glob("*.ipynb") if path.name not in wanted and path.is_file() and not path.is_symlink()
    ]
    if len(missing) == len(others) == 1:
        shutil.copy(others[0], folder / missing[0])


def _put_aside(path):
    target = Path(ASIDE, time.strftime("%Y%m%d-%H%M%S"), os.path.relpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(path, target)


# ---- reading ---------------------------------------------------------------------------------------------------------


class Submitted(NotebookExporter):
    """Reads a submission for autograde: what comes out is the released notebook with the learner's sources."""

    def from_filename(self, filename, resources=None, **kwargs):
        if not self.parent._sanitizing:  # the second time, autograde reads what it wrote the first time
            return super().from_filename(filename, resources=resources, **kwargs)
        course, marks = self.parent.coursedir, resources["nbgrader"]
        path = Path(
            course.format_path(course.release_directory, ".", marks["assignment"]), f"{marks['notebook']}.ipynb"
        )
        within = course.format_path(course.submitted_directory, "", "")
        return super().from_notebook_node(rebuilt(nbformat.read(path, 4), filename, within), resources, **kwargs)


def rebuilt(release, path, within):
    """The notebook to grade of the file at `path`, below the folder `within`, whatever is in it."""
    path, within = Path(os.path.abspath(path)), Path(os.path.abspath(within))
    try:
        return rebuild.rebuild(release, rebuild.read(path, within))
    except rebuild.Unreadable as why:
        sentence = f"The file {why}: there is nothing in it to grade, and all answers are as they were released."
        return rebuild.rebuild(release, None, [sentence])


# ---- judging ---------------------------------------------------------------------------------------------------------


class Judge(NbGraderPreprocessor):
    """In place of nbgrader's Execute."""

    def preprocess(self, nb, resources):
        return judge.grade(nb, judge.sandboxes()), resources
