"""Machines of kind `fake`: a directory with a disk that nobody boots. Nothing that a machine is given runs anywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from bake_builder_fake.config import FakeConfig
from baker.core.home import Home
from baker.core.model import Disk, EgressEndpoint, Endpoint, MachineFacts
from baker.core.resources import Resources, launched
from baker.disks import qemuimg
from baker.machines.base import Launch, Machine

DIRECTORY = "fake:directory"  # the ledger's word for what a machine is made of
MEMORY = "memory"


class FakeMachine:
    """Implements baker.machines.base.Machine. `done` is what its guest remembers."""

    restored = False
    kept = False

    def __init__(self, request: Launch, config: FakeConfig, directory: Path, disk: Disk, done: Sequence[str] = ()) -> None:
        self.name, self.endpoint = request.name, Endpoint("127.0.0.1", 22)
        self.runtime, self.console_log = directory, directory / "console.log"
        self.facts = MachineFacts("a fake", "none", "there is nothing to run", config.flavor, f"fake://{config.zone}/")
        self.backing, self.disk, self.done = request.disk, disk, list(done)
        self.restored = bool(done)
        self._on = True

    def host_address(self, port: int) -> str | None:
        return None

    def egress(self) -> Sequence[EgressEndpoint]:
        return ()

    def running(self) -> bool:
        return self._on

    def reset(self) -> None:
        self.done.clear()

    def console_tail(self, lines: int = 20) -> tuple[str, ...]:
        return ()

    def forwarded(self, guest_port: int) -> int:
        return guest_port

    def keep(self) -> None:
        self.kept = True

    def shutdown(self, timeout: float) -> None:
        self._on = False


class FakeBuilder:
    """Implements Builder and SupportsSnapshot of baker.machines.base."""

    kind = "fake"
    Config = FakeConfig

    def __init__(self, home: Home, config: FakeConfig | None = None) -> None:
        self._home, self._config = home, config

    @classmethod
    def configured(cls, home: Home, config: FakeConfig) -> Self:
        return cls(home, config)

    @contextmanager
    def launch(self, request: Launch) -> Iterator[FakeMachine]:
        with launched(request.ledger, lambda resources: self._start(request, request.disk, (), resources)) as machine:
            yield machine

    def _start(self, request: Launch, below: Disk, done: Sequence[str], resources: Resources) -> FakeMachine:
        assert self._config is not None, "without a configuration a builder only cleans up"
        directory = request.scratch / f"{request.name}.fake"
        resources.enter(DIRECTORY, lambda: shutil.rmtree(directory, ignore_errors=True), path=str(directory))
        directory.mkdir()
        disk = qemuimg.create_overlay(below, request.overlay or directory / "disk.qcow2")
        return FakeMachine(request, self._config, directory, disk, done)

    def capture(self, machine: Machine, destination: Path, products: Resources) -> Disk:
        assert isinstance(machine, FakeMachine)
        qemuimg.merge_chain(machine.disk.path, machine.backing)
        return qemuimg.convert(machine.disk, destination, "qcow2", backing=machine.backing)

    def reclaim(self, kind: str, details: Mapping[str, Any]) -> bool:
        if kind == DIRECTORY:
            shutil.rmtree(details["path"], ignore_errors=True)
        return kind == DIRECTORY

    def can_snapshot(self) -> bool:
        return True

    def take_snapshot(self, machine: Machine, directory: Path, following: Path, reference: str) -> None:
        assert isinstance(machine, FakeMachine)
        (directory / MEMORY).write_text(json.dumps(machine.done))
        machine.disk = qemuimg.create_overlay(machine.disk, following, reference=reference)

    def finish_snapshot(self, directory: Path) -> None:
        """There is nothing to pack."""

    @contextmanager
    def restore(self, request: Launch, directory: Path) -> Iterator[FakeMachine]:
        done = json.loads((directory / MEMORY).read_text())
        below = qemuimg.as_disk(directory / "disk.qcow2", "qcow2")
        with launched(request.ledger, lambda resources: self._start(request, below, done, resources)) as machine:
            yield machine
