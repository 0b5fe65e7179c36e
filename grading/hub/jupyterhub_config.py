"""JupyterHub's settings for the trial hub; `trial.py` names the folder and the ports in the environment."""

import json
import os
import sys
from pathlib import Path

c = get_config()  # noqa: F821 - JupyterHub puts the name here

folder = Path(os.environ["NORMLAB_HUB_FOLDER"])
told = json.loads((folder / "hub.json").read_text(encoding="utf-8"))
address = "http://127.0.0.1:{}"

c.JupyterHub.bind_url = address.format(told["ports"][0])
c.JupyterHub.hub_bind_url = address.format(told["ports"][1])
c.JupyterHub.db_url = f"sqlite:///{folder / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(folder / "cookie_secret")
c.JupyterHub.cleanup_servers = True

# The proxy in Python: no Node.js is needed. Formgrader answers when a notebook is graded, and by itself the proxy would
# give up after 20 seconds; milliseconds.
c.ConfigurableHTTPProxy.command = [
    str(Path(sys.executable).with_name("configurable-http-proxy")),
    "--timeout=600000",
    "--proxy-timeout=600000",
]
c.ConfigurableHTTPProxy.api_url = address.format(told["ports"][2])
c.ConfigurableHTTPProxy.pid_file = str(folder / "proxy.pid")

c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = told["password"]
c.Authenticator.allowed_users = {told["instructor"], *told["learners"]}

c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = str(folder / "homes" / "{username}")
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
c.Spawner.env_keep = ["PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ"]
c.Spawner.environment = {
    # Here lies the nbgrader_config.py that all of them read.
    "JUPYTER_CONFIG_PATH": str(folder / "etc"),
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "NORMLAB_SECRET_FILE": lambda spawner: (
        str(folder / "homes" / told["instructor"] / "normlab" / "secret")
        if spawner.user.name == told["instructor"]
        else ""
    ),
}
