"""Makes the folder of the trial hub, and runs JupyterHub in it."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from grading import course
from grading.course import ROOT, Unready

INSTRUCTOR = "instructor"
# JupyterLab would ask whether to fetch news from elsewhere.
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}
SETTINGS = """\
\"\"\"nbgrader's settings for everybody on the hub.\"\"\"

import os
from pathlib import Path

c = get_config()
c.CourseDirectory.course_id = "normlab"
c.Exchange.root = {exchange!r}
# All servers run as one user of the system: who somebody is, the hub knows.
c.ExchangeCollect.check_owner = False
if os.environ.get("JUPYTERHUB_USER") == {instructor!r}:
    c.CourseDirectory.root = str(Path.home() / "normlab")
else:
    c.CourseDirectory.student_id = os.environ.get("JUPYTERHUB_USER", "*")
"""
# What a learner's JupyterLab does without: a learner has no course to grade.
SERVER_PARTS = ("nbgrader.server_extensions.formgrader", "nbgrader.server_extensions.course_list")
LAB_PARTS = ("create-assignment", "formgrader", "course-list")


def free_ports(count):
    """Ports of this machine that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def make(folder, stems, learners=("ada", "ben")):
    """Put homes, an exchange and the instructor's course into the empty `folder`. Errors: Unready."""
    if find_spec("jupyterhub") is None or find_spec("configurable_http_proxy") is None:
        raise Unready("JupyterHub or its proxy is not installed in this Python: pip install -r requirements.txt")
    if folder.exists() and any(folder.iterdir()):
        raise Unready(f"{folder} is not empty: choose another")
    own = folder / "homes" / INSTRUCTOR / "normlab"
    for place in (own, folder / "exchange", folder / "etc", *(folder / "homes" / name for name in learners)):
        place.mkdir(parents=True)
    (folder / "exchange").chmod(0o777)
    course.make(own, stems)
    settings = SETTINGS.format(exchange=str(folder / "exchange"), instructor=INSTRUCTOR)
    (folder / "etc" / "nbgrader_config.py").write_text(settings, encoding="utf-8")
    off = {f"@jupyter/nbgrader:{name}": True for name in LAB_PARTS}
    for name in (INSTRUCTOR, *learners):
        place = folder / "homes" / name / ".jupyter"
        files = {"lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings": NO_NEWS}
        if name != INSTRUCTOR:
            files["labconfig/page_config.json"] = {"disabledExtensions": off}
            files["jupyter_server_config.json"] = {
                "ServerApp": {"jpserver_extensions": dict.fromkeys(SERVER_PARTS, False)}
            }
        for path, content in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(json.dumps(content), encoding="utf-8")
    told = {
        "instructor": INSTRUCTOR,
        "learners": list(learners),
        "password": secrets.token_urlsafe(12),
        "ports": free_ports(3),
    }
    with open(folder / "hub.json", "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        json.dump(told, file)
    return told


@contextlib.contextmanager
def running(folder, timeout=60):
    """JupyterHub over a folder of `make`: its address. At the end hub, proxy and servers are gone.

    Errors: Unready if it does not answer within `timeout` seconds; hub.log says why.
    """
    told = json.loads((folder / "hub.json").read_text(encoding="utf-8"))
    variables = course.environment(folder / "homes" / INSTRUCTOR / "normlab")
    # Whose home it is decides where Jupyter looks, not who started the hub.
    for name in [name for name in variables if name.startswith(("JUPYTER_", "IPYTHON"))]:
        del variables[name]
    variables["NORMLAB_HUB_FOLDER"] = str(folder)
    settings = Path(__file__).with_name("jupyterhub_config.py")
    with open(folder / "hub.log", "ab") as log:
        hub = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "--config", str(settings)],
            cwd=folder,
            env=variables,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{told['ports'][0]}"
        end = time.monotonic() + timeout
        while not _answers(f"{address}/hub/health"):
            if hub.poll() is not None or time.monotonic() > end:
                raise Unready(f"JupyterHub did not start; {folder / 'hub.log'} says why")
            time.sleep(0.1)
        yield address
    finally:
        # It stops the servers and the proxy. One that is grading does not listen and is killed after 20 seconds, by the
        # hub alone: the servers are in sessions of their own.
        hub.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            hub.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(hub.pid, signal.SIGKILL)
        hub.wait()


def _answers(address):
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def main(arguments):
    """Make the folder if it is new, start the hub, and wait for Ctrl+C."""
    folder = Path(arguments.folder).resolve()
    if folder.is_relative_to(ROOT):
        raise Unready(f"{folder} is inside the checkout, and nothing is to be left behind there: choose another.")
    if not (folder / "hub.json").is_file():
        make(folder, arguments.assignments, arguments.learners)
    told = json.loads((folder / "hub.json").read_text(encoding="utf-8"))
    with running(folder) as address:
        print(f"JupyterHub       {address}")
        print(f"log in as        {', '.join([told['instructor'], *told['learners']])}")
        print(f"password         {told['password']}")
        print("Ctrl+C ends it.", flush=True)
        while True:
            time.sleep(3600)
