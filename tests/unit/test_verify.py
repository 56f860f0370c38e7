"""Verification with real pytest and testinfra; the machine is a table of answers, reached through an `ssh` of the test's own.

A pytest process takes a second to start, so the tests share the report of one run where they can.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import pytest

from baker.build.verify import verify
from baker.core.events import Memory, Reporter, TestFinished
from baker.core.model import TestReport
from baker.template.model import TestinfraVerify

SSH = """#!/bin/sh
# Answers for a machine and runs nothing. The command is the last argument, after options and the host's name.
[ "$1" = -G ] && { echo "user root"; exit; }
for command; do :; done
case "$command" in
"echo hello") echo hello ;;
"systemctl is-system-running --wait") echo running ;;
*) echo "no answer to: $command" >&2; exit 127 ;;
esac
"""
MANY = """
import pytest

@pytest.fixture
def broken():
    raise ValueError("no such thing")

@pytest.fixture
def untidy():
    yield
    raise ValueError("left a mess")

def test_good(host): assert host.check_output("echo hello") == "hello"
def test_bad(host): assert host.check_output("echo hello") == "goodbye", "it was rude"
def test_skipped(): pytest.skip("not today")
def test_broken(broken): pass
def test_untidy(untidy): pass
def test_shared(shared): assert shared == 1
def test_not_xml(): assert "\\x1b[1m" == "<"
@pytest.mark.parametrize("port", [80, 443])
def test_port(host, port): assert port == 80
"""
FILES = {
    "pytest.ini": "[pytest]\naddopts = --no-such-option\n",
    "tests/conftest.py": "import pytest\n@pytest.fixture\ndef shared(): return 1\n",
    "tests/test_web.py": MANY,
    "nginx/test_port.py": "def test_port(bake_vars): assert bake_vars['port'] == 80\n",
    "other/test_port.py": "def test_port(bake_vars): assert bake_vars['port'] == 443\n",
    "dir/test_a.py": "def test_a(): pass\n",
    "dir/deep/b_test.py": "def test_a(): pass\n",
    "dir/helper.py": "def test_a(): pass\n",
    "test_import.py": "import nothing_of_that_name\n",
    "test_empty.py": "x = 1\n",
    "empty/readme": "",
    "test_secret.py": "def test_secret(bake_vars): assert bake_vars['token'] == 'other'\n",
}


class Check:
    """Test files, and verification with them; `events` has what was reported."""

    def __init__(self, directory: Path, files: dict[str, str]) -> None:
        self.base, self.scratch, self.events = directory / "base", directory / "scratch", Memory()
        for name, text in files.items():
            path = self.base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def __call__(self, *checks: TestinfraVerify, **options: Any) -> TestReport:
        return verify(checks, Path("/dev/null"), "guest", scratch=self.scratch, report=Reporter(self.events), **options)

    def of(self, *names: str, **more: Any) -> TestinfraVerify:
        return TestinfraVerify(testinfra=tuple(map(Path, names)), base_dir=self.base, **more)


@pytest.fixture(scope="module", autouse=True)
def _ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    tools = tmp_path_factory.mktemp("bin")
    (tools / "ssh").write_text(SSH)
    (tools / "ssh").chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{tools}:{before}"
    yield
    os.environ["PATH"] = before


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Check, TestReport]:
    """One run over FILES."""
    check = Check(tmp_path_factory.mktemp("many"), FILES)
    report = check(
        check.of("tests/test_web.py", "test_import.py", "test_empty.py", "test_gone.py", "dir", "empty"),
        check.of("nginx/test_port.py", vars={"port": 80}, bundle="nginx"),
        check.of("other/test_port.py", vars={"port": 443}),
        check.of("test_secret.py", vars={"token": "tops3cret"}),
        mask=lambda text: text.replace("tops3cret", "***"),
    )
    return check, report


@pytest.fixture
def found(many: tuple[Check, TestReport]) -> dict[str, Any]:
    return {outcome.name: outcome for outcome in many[1].outcomes}


@pytest.mark.parametrize(
    ("name", "outcome", "message"),
    [
        ("tests/test_web.py::test_good", "passed", ""),
        ("tests/test_web.py::test_bad", "failed", "AssertionError: it was rude"),
        ("tests/test_web.py::test_skipped", "skipped", "not today"),
        ("tests/test_web.py::test_broken", "error", "ValueError: no such thing"),
        ("tests/test_web.py::test_untidy", "error", "ValueError: left a mess"),
        ("tests/test_web.py::test_port[80]", "passed", ""),
        ("tests/test_web.py::test_port[443]", "failed", "assert 443 == 80"),
        ("test_import.py", "error", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("test_empty.py", "error", "test_empty.py has no test: name its functions test_..."),
        ("dir/test_a.py::test_a", "passed", ""),
        ("dir/deep/b_test.py::test_a", "passed", ""),
    ],
)
def test_an_outcome(found: dict[str, Any], name: str, outcome: str, message: str) -> None:
    assert found[name].outcome == outcome
    assert found[name].message.split("\n")[0] == message


def test_nothing_but_tests_is_run(found: dict[str, Any]) -> None:
    assert not any("helper" in name for name in found)


def test_files_that_are_not_there(found: dict[str, Any]) -> None:
    assert found["test_gone.py"].outcome == "error" and found["test_gone.py"].message.startswith("there is no ")
    assert found["empty"].outcome == "error" and found["empty"].message.endswith("has no test files")


def test_files_of_one_name_get_their_own_vars(found: dict[str, Any]) -> None:
    assert found["nginx/test_port.py::test_port"].outcome == "passed"
    assert found["other/test_port.py::test_port"].outcome == "passed"


def test_a_failure_shows_the_line(found: dict[str, Any]) -> None:
    assert "test_web.py:14" in found["tests/test_web.py::test_bad"].message


def test_the_users_settings_do_not_interfere_but_a_conftest_beside_the_tests_counts(
    many: tuple[Check, TestReport], found: dict[str, Any]
) -> None:
    assert found["tests/test_web.py::test_shared"].outcome == "passed"
    assert not list(many[0].base.rglob("__pycache__")) and not list(many[0].base.rglob(".pytest_cache"))


def test_each_outcome_is_an_event(many: tuple[Check, TestReport]) -> None:
    check, report = many
    events = [event for event in check.events.events if isinstance(event, TestFinished)]
    assert [(event.name, event.outcome) for event in events] == [(outcome.name, outcome.outcome) for outcome in report.outcomes]
    assert not report.passed


def test_secrets_are_masked_everywhere(many: tuple[Check, TestReport], found: dict[str, Any]) -> None:
    check, report = many
    assert found["test_secret.py::test_secret"].outcome == "failed"
    assert "tops3cret" not in report.junit + repr(report.outcomes) + repr(check.events.events)


def test_junit_is_what_ci_servers_read(many: tuple[Check, TestReport]) -> None:
    report = many[1]
    suite = ElementTree.fromstring(report.junit).find("testsuite")
    assert suite is not None
    kinds = [outcome.outcome for outcome in report.outcomes]
    assert [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] == [
        str(number) for number in (len(kinds), kinds.count("failed"), kinds.count("error"), kinds.count("skipped"))
    ]
    cases = {(case.get("classname"), case.get("name")): [child.tag for child in case] for case in suite}
    assert cases["tests/test_web.py", "test_good"] == []
    assert cases["tests/test_web.py", "test_bad"] == cases["tests/test_web.py", "test_not_xml"] == ["failure"]
    assert cases["tests/test_web.py", "test_broken"] == ["error"]


def test_one_file_twice_with_other_vars_as_an_ordinary_user(tmp_path: Path) -> None:
    check = Check(tmp_path, {"test_x.py": "def test_x(host, bake_vars): assert host.backend.sudo and bake_vars['port'] == 80\n"})
    report = check(check.of("test_x.py", vars={"port": 80}), check.of("test_x.py", vars={"port": 443}), user="debian")
    assert [outcome.outcome for outcome in report.outcomes] == ["passed", "failed"]


def test_a_test_that_hangs_is_named(tmp_path: Path) -> None:
    check = Check(tmp_path, {"test_a.py": "import time\ndef test_quick(): pass\ndef test_slow(): time.sleep(600)\n"})
    report = check(check.of("test_a.py"), timeout=5)
    assert [(outcome.name, outcome.outcome) for outcome in report.outcomes][-1] == ("test_a.py::test_slow", "error")
    assert "timed out after 5 s" in report.outcomes[-1].message


def test_a_test_that_takes_pytest_down(tmp_path: Path) -> None:
    check = Check(tmp_path, {"test_a.py": "import os\ndef test_quick(): pass\ndef test_end(): os._exit(3)\n"})
    report = check(check.of("test_a.py"))
    assert [outcome.outcome for outcome in report.outcomes] == ["passed", "error"]
    assert report.outcomes[-1].message.splitlines()[0].endswith("exit code 3")


def test_files_of_unrelated_directories_share_no_run_and_so_no_conftest(tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        other = Path(elsewhere).resolve() / "test_b.py"
        other.write_text("def test_root(pytestconfig): assert len(pytestconfig.rootpath.parts) > 2\n")
        check = Check(tmp_path, {"test_a.py": other.read_text()})
        assert tmp_path.parts[1] != other.parts[1]
        report = check(check.of("test_a.py", str(other)))
    assert [(outcome.name, outcome.outcome) for outcome in report.outcomes] == [
        ("test_a.py::test_root", "passed"), ("test_b.py::test_root", "passed"),
    ]  # fmt: skip
