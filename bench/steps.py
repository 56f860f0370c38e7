"""The jobs of the benchmark. Both tools get the same step files, byte for byte, so that they run the same work.

A job is a directory of jobs/: its numbered files are its steps, in this order (`.sh` runs in the guest, anything else is copied to
where DESTINATIONS says), and test_NAME.py is the testinfra file for its image. A `Variant` is a job as one measurement needs it: each step
has a salt, a line that changes nothing but the step's bytes, and one step may be broken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

JOBS = Path(__file__).resolve().parent / "jobs"
DESTINATIONS = {"site": "/etc/nginx/conf.d/bench.conf"}
PACKAGES = re.compile(r'^packages="([^"]*)"$', re.MULTILINE)

# Only shell built-ins, so that the cost of a mark is negligible. /proc/uptime is the clock of marks and of the kernel's log.
MARK = 'read -r up idle </proc/uptime; echo "bench-mark {step} {what} $up"\n'
SSH_MARK = 'echo "bench-mark ssh active $(systemctl show -P ActiveEnterTimestampMonotonic ssh.service)"\n'


@dataclass(frozen=True)
class Step:
    """A step for both tools: a file on this host, which is run in the guest or, with a destination, copied there."""

    name: str
    path: Path
    destination: str = ""


@dataclass(frozen=True)
class Job:
    """What a job is made of."""

    name: str
    steps: tuple[Step, ...]
    tests: Path


@dataclass(frozen=True)
class Variant:
    """A job with a salt for each of its steps; `broken` is the number (from 1) of the step that fails."""

    job: Job
    salts: tuple[str, ...]
    broken: int = 0

    def changed(self, number: int, salt: str) -> Variant:
        """The same variant with changed content in step `number` (from 1; -1 is the last)."""
        salts = list(self.salts)
        salts[number - 1 if number > 0 else number] = salt
        return replace(self, salts=tuple(salts))


@dataclass(frozen=True)
class Rendered:
    """A variant as files below `directory`, ready for either tool."""

    job: Job
    directory: Path
    steps: tuple[Step, ...]
    tests: Path


def load(name: str) -> Job:
    """The job of jobs/NAME."""
    directory = JOBS / name
    files = sorted(path for path in directory.iterdir() if path.name[0].isdigit())
    return Job(name, tuple(_step(path) for path in files), directory / f"test_{name}.py")


def variant(job: Job, salt: str) -> Variant:
    """The job with one salt in all of its steps. With a new salt, no cache has any part of it."""
    return Variant(job, (salt,) * len(job.steps))


def render(wanted: Variant, directory: Path, proxy: str) -> Rendered:
    """Write the step files and the tests. `proxy`: the address through which guests download packages, or ''."""
    directory.mkdir(parents=True, exist_ok=True)
    steps = []
    for number, (step, salt) in enumerate(zip(wanted.job.steps, wanted.salts, strict=True), start=1):
        text = step.path.read_text()
        if not step.destination:
            text = _script(step.name, text, salt, proxy, first=number == 1, broken=number == wanted.broken)
        else:
            text = f"# {salt}\n{text}"
        steps.append(Step(step.name, directory / step.path.name, step.destination))
        steps[-1].path.write_text(text)
    tests = directory / wanted.job.tests.name
    tests.write_text(wanted.job.tests.read_text())
    return Rendered(wanted.job, directory, tuple(steps), tests)


def packages(jobs: Mapping[str, Job]) -> tuple[str, ...]:
    """The packages that the scripts of the jobs install, to fill the package cache before anything is measured."""
    texts = [step.path.read_text() for job in jobs.values() for step in job.steps if not step.destination]
    return tuple(sorted({name for text in texts for found in PACKAGES.findall(text) for name in found.split()}))


def prelude(proxy: str) -> str:
    """The first lines of every script."""
    settings = "set -eu\nexport DEBIAN_FRONTEND=noninteractive\n"
    return settings + (f"export http_proxy={proxy}\n" if proxy else "")


def _step(path: Path) -> Step:
    name = path.stem.partition("-")[2]
    return Step(name, path, "" if path.suffix == ".sh" else DESTINATIONS[name])


def _script(name: str, body: str, salt: str, proxy: str, *, first: bool, broken: bool) -> str:
    begin, end = MARK.format(step=name, what="begin"), MARK.format(step=name, what="end")
    failure = "echo 'this step is broken' >&2\nexit 3\n" if broken else ""
    return f"#!/bin/sh\n{prelude(proxy)}: {salt}\n{begin}{SSH_MARK if first else ''}{body}{failure}{end}"
