"""Give a learner the notebooks and open JupyterLab on them.

Copies each notebook of exercises/ that work/ does not have yet. A file that is there is the learner's: it is never
overwritten. Then JupyterLab opens in work/; arguments that are not known here go to it.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def copy_missing(exercises, work):
    """Copy notebooks from the folder `exercises` to `work`; return the relative paths copied and the ones kept."""
    copied, kept = [], []
    for source in sorted(exercises.glob("*/*.ipynb")):
        path = source.relative_to(exercises)
        target = work / path
        target.parent.mkdir(parents=True, exist_ok=True)
        content = source.read_bytes()
        try:
            # "x" fails where anything stands already, also a link, also something that came a moment ago.
            with target.open("xb") as file:
                file.write(content)
        except FileExistsError:
            kept.append(path)
        else:
            copied.append(path)
    return copied, kept


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copy-only", action="store_true", help="copy and stop, without JupyterLab")
    options, for_lab = parser.parse_known_args(arguments)

    work = ROOT / "work"
    copied, kept = copy_missing(ROOT / "exercises", work)
    if not copied and not kept:
        sys.exit("exercises/ holds no notebooks. `make notebooks` writes them.")
    for path in copied:
        print(f"new   work/{path.as_posix()}")
    for path in kept:
        print(f"kept  work/{path.as_posix()} (yours)")
    if options.copy_only:
        return

    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # Containers run as root, and JupyterLab refuses that unless told. It listens on this machine alone.
        for_lab.append("--allow-root")
    sys.stdout.flush()
    os.chdir(work)
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *for_lab])


if __name__ == "__main__":
    main()
