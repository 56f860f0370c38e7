"""One real ephemeral machine for many tests, booted from a shipped image."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from baker.api import Baker
from baker.build.execute import StepResult, execute
from baker.core.events import Memory, Output, Reporter
from baker.core.home import Home
from baker.machines.ssh.communicator import Communicator
from baker.provision import registry
from baker.sessions.ephemeral import Running
from baker.template.model import Step


@contextmanager
def copied(home: Path, directory: Path) -> Iterator[Path]:
    """A copy of `home` below `directory`, its blobs hard-linked: other tests use the original."""
    copy = directory / "home"
    shutil.copytree(home, copy, copy_function=_link_blobs, symlinks=True)
    try:
        yield copy
    finally:
        runtime = Home.from_environment({"BAKE_HOME": str(copy), "HOME": "/"}).runtime
        shutil.rmtree(runtime, ignore_errors=True)
        shutil.rmtree(copy, ignore_errors=True)


@contextmanager
def booted(home: Path, image: str, directory: Path) -> Iterator[Running]:
    """A machine from `image`, in a copy of `home` below `directory`."""
    with copied(home, directory) as copy:
        with Baker(Home.from_environment({"BAKE_HOME": str(copy), "HOME": "/"})) as baker, baker.boot(image) as running:
            yield running


def _link_blobs(source: str, destination: str) -> None:
    if "/blobs/" in source or ("/layers/" in source and "/locks/" not in source):
        os.link(source, destination)
    else:
        shutil.copy2(source, destination)


class Guest:
    """Steps on a real machine, one call each."""

    def __init__(self, communicator: Communicator, base: Path, scratch: Path) -> None:
        self.communicator, self.base, self.scratch = communicator, base, scratch
        self.events = Memory()

    def step(self, kind: str, config: Any, **options: Any) -> StepResult:
        """Execute one step; raises StepError. `output` has its output."""
        self.events = Memory()
        model = registry.get(kind).Config.model_validate(config)
        step = Step(name="step", kind=kind, config=model, base_dir=self.base, origin="t.yaml:1:1", **options)
        return execute(step, self.communicator, Reporter(self.events), scratch=self.scratch)

    @property
    def output(self) -> list[str]:
        return [event.line for event in self.events.events if isinstance(event, Output)]

    def ask(self, script: str) -> str:
        """The output of a script in the guest."""
        result = self.communicator.run(script)
        assert result.exit_code == 0, result.stderr
        return result.stdout.strip()
