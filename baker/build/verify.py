"""Verifies an image: runs testinfra against a machine that was booted from it.

One pytest process runs all test files over the machine's shared SSH connection. It has its own configuration: the user's pytest.ini,
environment and installed plugins have no effect, but a conftest.py beside the tests has. Each outcome is reported as an event as
soon as it is known.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os.path import commonpath
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from baker.core import process
from baker.core.events import Reporter, TestFinished
from baker.core.home import PACKAGE, ensure
from baker.core.model import TestOutcome, TestReport
from baker.machines.ssh.config import login_user
from baker.template.model import TestinfraVerify

MARK = "bake-verify"  # the same as in verify_plugin, which only the subprocess imports
BOOT_SECONDS = 120.0  # timeout for the services to start; then the tests run in any case
CONNECT_SECONDS = 60
SHARED_DEPTH = 2  # parts of a path; a project's tests are below / and its subdirectories
INI = "[pytest]\naddopts =\npython_files = *.py\n"
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def verify(
    checks: Sequence[TestinfraVerify],
    ssh_config: Path,
    host: str,
    *,
    scratch: Path,
    report: Reporter,
    timeout: float | None = None,
    user: str | None = None,
    mask: Callable[[str], str] = str,
) -> TestReport:
    """Run the test files of `checks` against `host` of `ssh_config`. The report has one outcome per test.

    A file that cannot be imported or has no test gives the outcome "error", and so does a test that is not finished after `timeout` seconds
    for all tests (default: the sum of the checks' timeouts). `user` logs in (default: from `ssh_config`); tests run as root.
    """
    started = time.monotonic()
    directory = ensure(scratch)
    user = user or login_user(ssh_config, host)
    wait_for_services(ssh_config, host, report)
    outcomes: list[TestOutcome] = []
    for number, batch in enumerate(_batches(checks)):
        session = _Session(batch, host, report, mask)
        seconds = timeout if timeout is not None else sum(chosen.check.timeout for chosen in batch)
        session.run(ssh_config, ensure(directory / str(number)), sudo=user != "root", timeout=seconds)
        outcomes += session.outcomes
    seconds = time.monotonic() - started
    return TestReport(tuple(outcomes), seconds, junit(outcomes, seconds))


def wait_for_services(ssh_config: Path, host: str, report: Reporter) -> None:
    """Wait until the machine has started all of its services, because SSH answers earlier. Does not wait for a guest without systemd."""
    ssh: list[str | Path] = [process.need("ssh", package="openssh-client"), "-F", ssh_config, host]
    try:
        process.run([*ssh, "systemctl is-system-running --wait"], check=False, timeout=BOOT_SECONDS)
    except process.CommandTimeout:
        waiting = process.run([*ssh, "systemctl list-jobs --no-legend --plain"], check=False, timeout=CONNECT_SECONDS).stdout
        names = ", ".join(line.split()[1] for line in waiting.splitlines()[:5] if len(line.split()) > 1)
        report.warn(f"timed out after {BOOT_SECONDS:g} s waiting for services to start ({names}); the tests begin now")


def junit(outcomes: Iterable[TestOutcome], seconds: float) -> str:
    """The outcomes as JUnit XML (the dialect that Jenkins and GitLab read)."""
    outcomes = list(outcomes)
    count = {kind: sum(o.outcome == kind for o in outcomes) for kind in ("failed", "error", "skipped")}
    suite = ElementTree.Element(
        "testsuite",
        name="bake verify",
        tests=str(len(outcomes)),
        failures=str(count["failed"]),
        errors=str(count["error"]),
        skipped=str(count["skipped"]),
        time=f"{seconds:.3f}",
    )
    for outcome in outcomes:
        file, _, name = outcome.name.partition("::")
        case = ElementTree.SubElement(suite, "testcase", classname=file, name=name or file, time=f"{outcome.seconds:.3f}")
        if outcome.outcome != "passed":
            tag = {"failed": "failure", "error": "error", "skipped": "skipped"}[outcome.outcome]
            text = NOT_XML.sub("\ufffd", outcome.message)
            ElementTree.SubElement(case, tag, message=text.split("\n", 1)[0]).text = text
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


@dataclass(frozen=True)
class _Chosen:
    """Test files of one check, in directories that belong together."""

    check: TestinfraVerify
    files: tuple[Path, ...]


def _batches(checks: Sequence[TestinfraVerify]) -> list[list[_Chosen]]:
    """Distribute the files to as few pytest runs as possible.

    A file that runs twice, with different vars, needs two runs. So do files of unrelated directories: pytest uses every conftest.py below
    the common directory of a run, and it must belong to these tests.
    """
    batches: list[list[_Chosen]] = []
    for check in checks:
        for chosen in _related(check):
            for batch in batches:
                files = [path for each in batch for path in each.files]
                if not set(files) & set(chosen.files) and _common([*files, *chosen.files]):
                    batch.append(chosen)
                    break
            else:
                batches.append([chosen])
    return batches


def _related(check: TestinfraVerify) -> Iterator[_Chosen]:
    """The files of a check, grouped by related directories."""
    groups: list[list[Path]] = []
    for path in _files(check):
        group = next((group for group in groups if _common([*group, path])), None)
        if group is None:
            groups.append([path])
        else:
            group.append(path)
    return (_Chosen(check, tuple(group)) for group in groups)


def _common(files: Sequence[Path]) -> Path | None:
    """The common directory of the files; None if it is too general: `/`, `/usr`, the parent of home directories."""
    directories = {path.parent for path in files}
    common = Path(commonpath(directories))
    shared = len(common.parts) <= SHARED_DEPTH or Path.home().is_relative_to(common)
    return None if shared and len(directories) > 1 else common


def _files(check: TestinfraVerify) -> list[Path]:
    """The test files; for a directory, those that pytest collects. A directory without test files is returned itself, to report it."""
    found = []
    for path in check.testinfra:
        whole = (check.base_dir / path).resolve()
        inside = sorted({*whole.rglob("test_*.py"), *whole.rglob("*_test.py")}) if whole.is_dir() else []
        found += inside or [whole]
    return found


@dataclass
class _Session:
    """One pytest process and its outcomes."""

    chosen: Sequence[_Chosen]
    host: str
    report: Reporter
    mask: Callable[[str], str]
    outcomes: list[TestOutcome] = field(default_factory=list)
    seen: set[Path] = field(default_factory=set)  # files with a test or an error
    current: str = ""  # node id of the running test
    other: list[str] = field(default_factory=list)  # lines that pytest itself printed

    @property
    def root(self) -> Path:
        """The directory to which pytest's node ids are relative, and below which it looks for conftest.py."""
        return Path(commonpath([path.parent for chosen in self.chosen for path in chosen.files]))

    def run(self, ssh_config: Path, directory: Path, *, sudo: bool, timeout: float) -> None:
        files = [path for chosen in self.chosen for path in chosen.files]
        present = [path for path in files if path.is_file()]
        for path in files:
            if not path.is_file():
                self._finish(path, "", "error", 0.0, f"{path} has no test files" if path.is_dir() else f"there is no {path}")
        if not present:
            return
        try:
            result = process.run(
                self._argv(ssh_config, directory, present, sudo),
                check=False,
                env=_environment(),
                cwd=self.root,
                timeout=timeout,
                on_line=self._hear,
                what="the verification",
            )
        except process.CommandTimeout:
            hanging, name = self._place(self.current)
            self._finish(hanging or present[-1], name, "error", timeout, f"timed out after {timeout:g} s, the timeout of the verification")
            return
        self._conclude(present, result.returncode)

    def _conclude(self, files: Sequence[Path], returncode: int) -> None:
        """Add errors that belong to no test: pytest failed, or a file has no test."""
        reported = any(outcome.outcome in ("failed", "error") for outcome in self.outcomes)
        if returncode not in (0, 5) and not reported:
            tail = "\n".join(self.other[-20:])
            self._finish(files[-1], "", "error", 0.0, f"pytest failed with exit code {returncode}\n\n{tail}")
        elif returncode in (0, 1, 5):
            for path in files:
                if path not in self.seen:
                    self._finish(path, "", "error", 0.0, f"{path.name} has no test: name its functions test_...")

    def _argv(self, ssh_config: Path, directory: Path, files: Sequence[Path], sudo: bool) -> list[str | Path]:
        (directory / "pytest.ini").write_text(INI)
        spec = directory / "vars.json"
        spec.touch(mode=0o600)
        spec.write_text(json.dumps({str(path): dict(each.check.vars) for each in self.chosen for path in each.files}))
        return [
            sys.executable, "-m", "pytest", "-q", "--no-header", "--color=no", "--tb=short", "-p", "testinfra.plugin",
            "-p", "baker.build.verify_plugin", "-p", "no:cacheprovider", "-c", directory / "pytest.ini", f"--rootdir={self.root}",
            f"--confcutdir={self.root}", "--import-mode=importlib", "--continue-on-collection-errors", f"--bake-spec={spec}",
            f"--hosts=ssh://{self.host}?timeout={CONNECT_SECONDS}&controlpersist=0", f"--ssh-config={ssh_config}",
            *(["--sudo"] if sudo else []), *files,
        ]  # fmt: skip

    # -- what pytest reports --

    def _hear(self, line: str) -> None:
        mark, _, text = line.partition("\t")
        if mark != MARK:
            if line.strip():
                self.other = [*self.other[-200:], line]  # masked as a whole when it is reported
                self.report.debug(self.mask(line))
            return
        event: dict[str, Any] = json.loads(text)
        path, name = self._place(event["nodeid"])
        match event["event"]:
            case "started":
                self.current = event["nodeid"]
            case "finished":
                self._finish(path, name, event["outcome"], event["seconds"], event["message"])
            case "collected":
                self._finish(path, name, "error", 0.0, event["message"])

    def _place(self, nodeid: str) -> tuple[Path | None, str]:
        """The file of a pytest node id, and the test's name without testinfra's host."""
        file, _, name = nodeid.partition("::")
        name = name.replace(f"[ssh://{self.host}]", "").replace(f"[ssh://{self.host}-", "[").replace(f"-ssh://{self.host}]", "]")
        return (self.root / file if file else None), name

    def _finish(
        self, path: Path | None, name: str, outcome: Literal["passed", "failed", "skipped", "error"], seconds: float, message: str
    ) -> None:
        title = self._title(path) if path else ""
        full = self.mask("::".join(part for part in (title, name) if part))
        found = TestOutcome(full, outcome, round(seconds, 3), self.mask(message))
        self.outcomes.append(found)
        if path:
            self.seen.add(path)
        self.report.sink.emit(
            TestFinished(build=self.report.build, name=found.name, outcome=outcome, seconds=found.seconds, message=found.message)
        )

    def _title(self, path: Path) -> str:
        """The name of a test file in reports: as in the template, or BUNDLE/FILE."""
        for chosen in self.chosen:
            if path in chosen.files:
                if chosen.check.bundle:
                    return f"{chosen.check.bundle}/{path.name}"
                base = chosen.check.base_dir.resolve()
                return str(path.relative_to(base)) if path.is_relative_to(base) else path.name
        return path.name


def _environment() -> dict[str, str]:
    """The environment of pytest: no plugins but ours and testinfra, no .pyc files beside the user's tests, and bake importable."""
    return {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(PACKAGE.parent),
    }
