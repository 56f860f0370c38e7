"""A builder without machines: its disks are real qcow2 files, and its guest is a list of scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baker.core.errors import HostError, LayerError
from baker.core.events import Reporter
from baker.core.model import Disk, EgressEndpoint, Endpoint, Identity, MachineFacts
from baker.disks import qemuimg
from baker.machines.base import Launch
from baker.machines.ssh.communicator import CommandResult
from tests.support.fakes import Call, FakeClock, FakeCommunicator, ended

FACTS = MachineFacts("a fake", "none", "there is nothing to run", "q35", "fake:///")


@dataclass
class FakeMachine:
    """Implements baker.machines.base.Machine. `done`: the scripts that its guest remembers."""

    name: str
    disk: Disk
    scratch: Path
    done: list[str] = field(default_factory=list)
    on: bool = True
    facts: MachineFacts = FACTS
    no_way: str = ""  # why it does not reach this host

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", 22)

    @property
    def console_log(self) -> Path:
        return self.scratch / "console.log"

    @property
    def runtime(self) -> Path:
        return self.scratch

    def host_address(self, port: int) -> str | None:
        if self.no_way:
            raise HostError(self.no_way)
        return None

    def egress(self) -> Sequence[EgressEndpoint]:
        return ()

    @property
    def restored(self) -> bool:
        return bool(self.done)

    def running(self) -> bool:
        return self.on

    def reset(self) -> None:
        self.done.clear()

    def console_tail(self, lines: int = 20) -> tuple[str, ...]:
        return ()

    def forwarded(self, guest_port: int) -> int:
        return guest_port

    def keep(self) -> None:
        pass

    def shutdown(self, timeout: float) -> None:
        self.on = False


@dataclass
class FakeBuilder:
    """Implements Builder, SupportsSnapshot and SupportsPause. `events`: its actions; `broken`: names of layers that cannot be restored."""

    clock: FakeClock
    keep_seconds: float = 1.0
    boot_seconds: float = 40.0
    can_keep: bool = True
    events: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    fail_to_keep: bool = False
    fail_to_pack: bool = False
    can_still: bool = True
    stood_still: int = 0
    base: Disk | None = None
    no_way: str = ""
    kind: str = "libvirt"

    @contextmanager
    def launch(self, request: Launch) -> Iterator[FakeMachine]:
        self.events.append(f"launch {request.name}")
        self.clock.sleep(self.boot_seconds)
        self.base = request.disk
        (request.scratch / "console.log").write_text(f"{request.name} login:\n")
        yield FakeMachine(request.name, self._overlay(request.disk, request), request.scratch, no_way=self.no_way)

    def capture(self, machine: Any, destination: Path, products: Any) -> Disk:
        assert not machine.on and self.base is not None
        qemuimg.merge_chain(machine.disk.path, self.base)
        return qemuimg.convert(machine.disk, destination, "qcow2", backing=self.base)

    def reclaim(self, kind: str, details: Mapping[str, Any]) -> bool:
        return False

    def can_snapshot(self) -> bool:
        return self.can_keep

    def take_snapshot(self, machine: Any, directory: Path, following: Path, reference: str) -> None:
        if self.fail_to_keep:
            raise HostError("no room for the memory")
        self.events.append(f"keep {len(machine.done)}")
        self.clock.sleep(self.keep_seconds)
        (directory / "memory").write_text(json.dumps(machine.done))
        machine.disk = qemuimg.create_overlay(machine.disk, following, reference=reference)

    def finish_snapshot(self, directory: Path) -> None:
        if self.fail_to_pack:
            raise HostError("no space left")
        (directory / "memory").rename(directory / "memory.zst")

    @contextmanager
    def restore(self, request: Launch, directory: Path) -> Iterator[FakeMachine]:
        if directory.name in self.broken:
            raise LayerError("it was kept with another QEMU")
        done = json.loads((directory / "memory.zst").read_text())
        self.events.append(f"restore {len(done)}")
        self.base = request.disk
        disk = qemuimg.as_disk(directory / "disk.qcow2", "qcow2")
        yield FakeMachine(request.name, self._overlay(disk, request), request.scratch, list(done))

    def can_pause(self) -> bool:
        return self.can_still

    @contextmanager
    def paused_disk(self, machine: Any) -> Iterator[Disk]:
        self.stood_still += 1
        yield machine.disk

    @contextmanager
    def paused_writer(self, disk: Path) -> Iterator[None]:
        yield

    def _overlay(self, disk: Disk, request: Launch) -> Disk:
        return qemuimg.create_overlay(disk, request.overlay or request.scratch / f"{request.name}.qcow2")


@dataclass
class FakeGuests:
    """Implements baker.build.services.Connect: the machine remembers each step's script. `takes` and `fails` determine the result."""

    clock: FakeClock
    takes: dict[str, float] = field(default_factory=dict)  # a part of a script -> seconds
    fails: set[str] = field(default_factory=set)  # parts of scripts
    before: Callable[[str], None] = lambda script: None

    @contextmanager
    def __call__(
        self, endpoint: Endpoint, identity: Identity, machine: Any, scratch: Path, *, report: Reporter, timeout: float
    ) -> Iterator[FakeCommunicator]:
        communicator = FakeCommunicator(scratch / "ssh_config")
        communicator.answers = {"findmnt": ended(stdout="ext4\n"), "step-": lambda call: self._step(call, machine)}
        yield communicator

    def _step(self, call: Call, machine: FakeMachine) -> CommandResult:
        self.before(call.script)
        self.clock.sleep(next((seconds for part, seconds in self.takes.items() if part in call.script), 0.0))
        if any(part in call.script for part in self.fails):
            return ended(9, stderr="it fails")
        machine.done.append(call.script)
        return ended()
