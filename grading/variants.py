"""A notebook of variants, drawn from the class's secret: python -m grading.variants --secret FILE COURSE_FOLDER

It writes solutions/variants/variants.ipynb, the instructor's notebook, into a course folder outside the checkout, and
nbgrader_config.py beside solutions/ if there is none. `nbgrader generate_assignment variants` in that folder releases
it. The same secret gives the same notebook; nothing of the secret is written anywhere. Exit status: 0, or 2 with a
sentence when nothing was written.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from grading.course import ROOT, Unready
from normlab import variants

NOTEBOOK = Path("solutions", variants.STEM, f"{variants.STEM}.ipynb")


def read_secret(path):
    """The bytes of the class's secret. Errors: Unready."""
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise Unready(f"The secret cannot be read: {error.strerror}.") from None
    if not content:
        raise Unready("The file of the secret is empty: write a long random line into it.")
    return content


def notebook(drawn):
    """The instructor's notebook, as bytes. `drawn`: one variant of each family."""
    from tools import make_notebooks  # it needs jupytext, which not every Python that gets here has

    exercises = {variant.family.function: variant.exercise for variant in drawn}
    return make_notebooks.to_bytes(make_notebooks.expand(variants.source(drawn), variants.STEM, exercises))


def write(folder, content, force=False):
    """Put the notebook into the course folder. Errors: Unready, before anything is written."""
    folder = folder.resolve()
    if folder.is_relative_to(ROOT):
        raise Unready(
            f"{folder} is inside the checkout, where a class's variants do not belong: choose another folder."
        )
    if not folder.is_dir():
        raise Unready(f"{folder} is no folder: name the one in which you run nbgrader, or make it first.")
    target = folder / NOTEBOOK
    if target.exists() and not force:
        raise Unready(f"{target} exists already, and your class may have it: --force writes over it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_suffix(".part")
    half.write_bytes(content)
    half.replace(target)
    if not (folder / "nbgrader_config.py").exists():
        shutil.copy(ROOT / "nbgrader_config.py", folder)
    return target


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m grading.variants", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="COURSE_FOLDER", help="the folder in which you run nbgrader")
    parser.add_argument(
        "--secret",
        type=Path,
        metavar="FILE",
        help="the class's secret (default: the file that NORMLAB_SECRET_FILE names)",
    )
    parser.add_argument("--practice", action="store_true", help="draw from the public seed, the same for everybody")
    parser.add_argument(
        "--families", metavar="NAME,NAME", help=f"exercises to draw from (default: {','.join(variants.FAMILIES)})"
    )
    parser.add_argument("--count", type=int, help="how many exercises to draw (default: one of each family)")
    parser.add_argument("--force", action="store_true", help="write over a notebook that is there already")
    options = parser.parse_intermixed_args(arguments)
    file = options.secret or (
        Path(os.environ["NORMLAB_SECRET_FILE"]) if os.environ.get("NORMLAB_SECRET_FILE") else None
    )
    try:
        if options.practice and options.secret:
            raise Unready("--practice draws from the public seed: leave --secret out, or --practice.")
        if not options.practice and file is None:
            raise Unready(
                "A class's variants are drawn from its secret: --secret FILE (--practice: from the public seed)."
            )
        secret = b"public" if options.practice else read_secret(file)
        try:
            families = options.families and options.families.split(",")
            drawn = variants.draw(secret, families, options.count)
        except ValueError as error:
            raise Unready(f"{error}.") from None
        target = write(options.folder, notebook(drawn), options.force)
    except (Unready, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for variant in drawn:
        print(f"{variant.family.function}: {variant.statement}")
    print(f"\n{target}\nNow, in {options.folder.resolve()}: nbgrader generate_assignment {variants.STEM}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
