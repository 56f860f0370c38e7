"""The pytest plugin in the subprocess of a verification: reports each test to bake as it runs, and provides the parameters.

Tests have the fixture `host` (of testinfra) and the fixture `bake_vars`: the parameters of the file's bundle, or the `vars` of the
template's verify entry.

It writes lines to the real stdout: MARK, a tab, and a JSON object with `event`: started, finished or collected.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

MARK = "bake-verify"
LONGEST_MESSAGE = 8000  # characters
_STDOUT = os.dup(1)  # pytest redirects fd 1 only after plugins are loaded


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bake-spec", required=True, help="a JSON file: path of a test file -> its vars")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Reporter(), "bake-verify-reporter")


@pytest.fixture(scope="module")
def bake_vars(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    """The parameters of the bundle that this test file belongs to, or the vars of the template's verify entry."""
    spec: dict[str, dict[str, Any]] = json.loads(Path(request.config.getoption("--bake-spec")).read_text())
    return spec.get(str(request.path), {})


class _Reporter:
    """Combines the phases of each test: set-up, call, tear-down."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.outcome = "passed"
        self.message = ""

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self.seconds, self.outcome, self.message = 0.0, "passed", ""
        _tell(event="started", nodeid=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds += report.duration
        if report.failed:
            self.outcome = "failed" if report.when == "call" and self.outcome == "passed" else "error"
            self.message = "\n\n".join(part for part in (self.message, _message(report)) if part)
        elif report.skipped and self.outcome == "passed":
            self.outcome, self.message = "skipped", _message(report)

    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        _tell(event="finished", nodeid=nodeid, outcome=self.outcome, seconds=self.seconds, message=self.message[:LONGEST_MESSAGE])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            _tell(event="collected", nodeid=report.nodeid, message=_message(report)[:LONGEST_MESSAGE])


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    """A line with the error, then the traceback."""
    longrepr = report.longrepr
    if isinstance(longrepr, tuple):
        return longrepr[2].removeprefix("Skipped: ")
    text = report.longreprtext
    crash = getattr(getattr(longrepr, "reprcrash", None), "message", "")
    if crash:
        return f"{crash.splitlines()[0]}\n\n{text}"
    # a collection error: pytest's own text, whose last line is the exception
    last = [line.removeprefix("E").strip() for line in text.splitlines() if line.strip()]
    return f"{last[-1]}\n\n{text}" if last else "failed"


def _tell(**event: Any) -> None:
    os.write(_STDOUT, f"\n{MARK}\t{json.dumps(event)}\n".encode())
