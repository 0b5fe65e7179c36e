"""What all tests share: the rule about skips, the checkout, and tools of the system."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


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
