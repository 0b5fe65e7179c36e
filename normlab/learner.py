"""A learner's own file, imported with the care of guard.py: `load(path)`."""

import importlib.util
import sys
from pathlib import Path

from normlab.guard import Stop, guard
from normlab.verdict import first_line

IMPORT_SECONDS = 20.0  # it may import large libraries


class Unloadable(Exception):
    """Says why a file is of no use, as a verb phrase."""


def load(path):
    """(module, problem) of the Python file at `path`. If it raised halfway, `problem` says what, as a verb phrase, and
    the module has what came before; else it is None. Errors: Unloadable."""
    path = Path(path)
    if not path.is_file():
        raise Unloadable("is not a file" if path.exists() else "does not exist")
    spec = importlib.util.spec_from_file_location("candidate", path)
    if spec is None:
        raise Unloadable("is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.append(str(path.resolve().parent))
    sys.modules["candidate"] = module
    try:
        with guard(IMPORT_SECONDS):
            spec.loader.exec_module(module)
    except Stop as stop:
        raise Unloadable(f"{stop} (while the file is imported)") from None
    except SystemExit:
        raise Unloadable("exits while it is imported") from None
    except SyntaxError as error:
        raise Unloadable(f"is not valid Python: {error.msg} in line {error.lineno}") from None
    except BaseException as error:
        text = first_line(error)
        return module, f"does not run: {type(error).__name__}" + (f" ({text})" if text else "")
    return module, None
