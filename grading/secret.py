"""Make a course's secret: python -m grading.secret

The hidden cases of every check are drawn from it (normlab/cases.py). Who has not the file cannot know them; the same
file gives the same cases, so regrading gives the same scores. NORMLAB_SECRET_FILE names the file, here and later.
"""

import os
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Refused(Exception):
    """Why no secret is made, in plain words."""


def make(path):
    """Write a fresh secret to a new file that its owner alone can read. Errors: Refused."""
    path = Path(path).expanduser()
    if path.resolve().is_relative_to(ROOT):
        raise Refused(f"{path} is inside the course's repository, which is public: keep the secret elsewhere.")
    try:
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_hex(32) + "\n")
    except FileExistsError:
        raise Refused(
            f"{path} is there already, and another secret would change every hidden case: regrading would no longer "
            "give the same scores. Remove it yourself if that is what you want."
        ) from None
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}.") from None
    return path


def main():
    name = os.environ.get("NORMLAB_SECRET_FILE")
    try:
        if not name:
            raise Refused("Say where: NORMLAB_SECRET_FILE=~/course.secret make course-secret")
        print(f"The course's secret is in {make(name)}. Keep it with the gradebook, and grade with it:")
        print(f"  export NORMLAB_SECRET_FILE={name}")
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
