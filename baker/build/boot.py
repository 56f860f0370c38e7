"""Launches or restores a machine and connects to it: for builds, ephemeral machines and commits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from baker.build.artifacts import ArtifactCollector
from baker.build.job import Job
from baker.build.services import Connect
from baker.core.errors import BootError
from baker.core.home import ensure
from baker.core.model import OPEN, MachineSpec, Media, NetworkPolicy
from baker.layers.resume import resume
from baker.layers.store import Layer
from baker.machines.base import Builder, Launch, Machine, SupportsSnapshot
from baker.machines.identity import make_identity
from baker.machines.ssh.communicator import Communicator, Disconnected, GuestTimeout

DEFAULT_USERNAME = "root"
# Runs in the guest, because a small guest may not react to the power button.
POWER_OFF = "systemctl poweroff --no-block 2>/dev/null || poweroff 2>/dev/null || shutdown -P now"


@dataclass(frozen=True)
class ConnectedMachine:
    """A machine with an open connection. `connection` closes the connection while the machine keeps running."""

    machine: Machine
    communicator: Communicator
    connection: ExitStack


@contextmanager
def launched(
    builder: Builder, request: Launch, connect: Connect, *, timeout: float, artifacts: ArtifactCollector | None = None
) -> Iterator[ConnectedMachine]:
    """Launch a machine and connect to it; on exit close the connection and end the machine. `artifacts` gets its console log in any case.

    BootError when the machine does not answer within `timeout` seconds, after the last lines of its console are reported.
    """
    report = request.report
    with ExitStack() as stack:
        with report.stage("launch", request.name):
            machine = stack.enter_context(builder.launch(request))
        _keep_console(stack, machine, artifacts)
        with report.stage("boot", request.name):
            try:
                connected = _connect(stack, machine, request, connect, timeout)
            except BootError as error:
                for line in error.console:
                    report.output(line, stream="console")
                raise
        yield connected


@contextmanager
def restored(
    builder: SupportsSnapshot,
    request: Launch,
    layer: Layer,
    connect: Connect,
    *,
    timeout: float,
    set_clock: bool = True,
    artifacts: ArtifactCollector | None = None,
) -> Iterator[ConnectedMachine]:
    """Restore the machine of a layer and connect to it, as `launched` does. `set_clock`: set its clock to the real time."""
    with ExitStack() as stack:
        with request.report.stage("restore", layer.record.name):
            machine = stack.enter_context(builder.restore(request, layer.directory))
            _keep_console(stack, machine, artifacts)
            connected = _connect(stack, machine, request, connect, timeout)
            resume(connected.communicator, time.time() if set_clock else None)
        yield connected


def build_request(
    job: Job,
    name: str,
    media: Media,
    machine_spec: MachineSpec,
    source_username: str | None,
    *,
    hostname: str = "",
    overlay: Path | None = None,
    clock: int | None = None,
    network_policy: NetworkPolicy = OPEN,
) -> Launch:
    """The request for a machine of a build, with a new identity. `hostname`: the template's name if left out. `clock`: the time that the
    machine starts with, in seconds since 1970. `network_policy`: what it may reach."""
    directory = ensure(job.scratch / name)
    username = job.template.communicator.ssh_username or source_username or DEFAULT_USERNAME
    identity = make_identity(directory, hostname or job.template.name, username)
    return Launch(
        name,
        media,
        machine_spec,
        identity,
        directory,
        job.ledger,
        job.report,
        overlay=overlay,
        image=job.image,
        clock=clock,
        network_policy=network_policy,
    )


def power_off(communicator: Communicator, timeout: float) -> None:
    """Request the guest's power-off. The connection may be lost by it."""
    try:
        communicator.run(POWER_OFF, timeout=timeout)
    except (Disconnected, GuestTimeout):
        pass


def _keep_console(stack: ExitStack, machine: Machine, artifacts: ArtifactCollector | None) -> None:
    if artifacts is not None:
        stack.callback(artifacts.keep_console, machine.name, machine.console_log)


def _connect(stack: ExitStack, machine: Machine, request: Launch, connect: Connect, timeout: float) -> ConnectedMachine:
    connection = stack.enter_context(ExitStack())
    opening = connect(machine.endpoint, request.identity, machine, request.scratch, report=request.report, timeout=timeout)
    return ConnectedMachine(machine, connection.enter_context(opening), connection)
