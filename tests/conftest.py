"""What all tests share: the rule about skips, the checkout, and tools of the system."""

import gc
import http.server
import os
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


# Right answers in many styles, some of them compiled: imported where they are used, not by who looks for doctests.
collect_ignore_glob = ["styles/*"]


# Two processes take one file after another. Where a long one came last, the other process would wait for it.
LONGEST = (
    "test_attacks",
    "test_site_runner",
    "test_site",
    "test_hub",
    "test_runner",
    "test_mistakes",
    "test_site_frame",
    "test_explore",
    "test_accessible",
    "test_notebooks",
    "test_cuda",
    "test_cluster",
    "test_variants",
    "test_faults",
    "test_grading",
    "test_exercises",
    "test_functional",
    "test_jit",
    "test_nn",
)


# Of each test with many parameters in these files, make test runs one in so many; `make prove` runs the others.
THINNED = {"test_attacks": 6, "test_cpu": 8, "test_cuda": 12, "test_functional": 8, "test_golden": 5, "test_nn": 8}
MANY = 8


def _thin(items):
    by_test = {}
    for item in items:
        if item.path.stem in THINNED:
            by_test.setdefault((item.path.stem, item.location[2].split("[")[0]), []).append(item)
    for (stem, _), several in by_test.items():
        if len(several) >= MANY:
            for number, item in enumerate(several):
                if number % THINNED[stem]:
                    item.add_marker(pytest.mark.exhaustive)


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the markers
def pytest_collection_modifyitems(items):
    _thin(items)
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def _ci():
    return os.environ.get("CI", "").lower() in ("1", "true")


def _refuse(report):
    """Turn a skip into a failure. `longrepr` of a skip is (file, line, reason)."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid} was skipped, and CI allows that only to tests marked gpu. {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item):
    report = yield
    expected_failure = hasattr(report, "wasxfail")
    if _ci() and report.skipped and not expected_failure and item.get_closest_marker("gpu") is None:
        _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    if _ci() and report.skipped:
        _refuse(report)
    return report


@pytest.fixture(scope="session")
def repo():
    """Root of the checkout, a Path."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def one_thread():
    """For inputs so small that several threads would only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def system_tool(request):
    """A function: names of a program -> path of the first that is installed, else the test skips and says why."""

    def find(*names):
        for name in names:
            if path := shutil.which(name):
                return path
        doc = request.function.__doc__
        unchecked = doc.strip().splitlines()[0] if doc else request.node.name
        pytest.skip(f"{' or '.join(names)} is not installed. Not checked: {unchecked}")

    return find


@pytest.fixture
def chromium(system_tool):
    """Path of an installed Chromium."""
    return system_tool(*CHROMIUM)


# -- The built site and a browser: what several files of tests open ---------------------------------------------------


@pytest.fixture(scope="session")
def site(repo):
    """Folder of the built site."""
    folder = repo / "_build" / "html"
    if not (folder / "index.html").is_file():
        pytest.fail("There is no built site in _build/html: run `make book` first.", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def soup(site):
    """A function: page -> its parsed HTML; pages are parsed once."""
    from bs4 import BeautifulSoup  # few tests need it

    parsed = {}

    def parse(page):
        if page not in parsed:
            # The collector would go through the growing tree again and again, which takes as long as parsing.
            gc.disable()
            parsed[page] = BeautifulSoup((site / f"{page}.html").read_text(), "html.parser")
            gc.enable()
        return parsed[page]

    return parse


@pytest.fixture(scope="module")
def launch():
    """A function: path of Chromium -> a browser, started once."""
    from playwright.sync_api import sync_playwright  # few tests need these two

    from tools import screenshots

    with sync_playwright() as playwright:
        browsers = {}

        def start(path):
            if path not in browsers:
                browsers[path] = playwright.chromium.launch(executable_path=path, args=screenshots.FLAGS)
            return browsers[path]

        yield start
        for browser in browsers.values():
            browser.close()


@pytest.fixture
def browser(chromium, launch):
    """A running Chromium."""
    return launch(chromium)


@pytest.fixture(scope="module")
def server(site):
    """Address of a web server over the built site."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()
