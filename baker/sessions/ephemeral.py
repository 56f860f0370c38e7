"""Machines that somebody uses for a while and that leave nothing: from an image, or from a layer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from baker.build.services import Services
from baker.catalog.records import BuildRecord, ImageRecord
from baker.core.errors import BootError, HostError, NotFoundError
from baker.core.events import Reporter
from baker.core.ledger import BuildLedger
from baker.core.model import BootOptions, Disk, Identity, MachineSpec
from baker.core.workspace import new_id, process_mark, scratch_directory
from baker.layers.resume import wake
from baker.layers.store import Layer
from baker.machines.base import ImageName, Launch, Machine, SupportsSnapshot
from baker.machines.identity import make_identity
from baker.machines.media import media_of
from baker.machines.spec import spec_of
from baker.machines.ssh.communicator import Communicator
from baker.sessions.running import note


@dataclass(frozen=True)
class Running:
    """A throw-away machine, up and answering. `ssh` is the command that enters it."""

    title: str  # "web 1.4.0", "web after step 3 (packages)"
    machine: Machine
    communicator: Communicator
    ssh: tuple[str, ...]
    ports: Mapping[int, int]  # guest port -> port on this host's loopback
    id: str = ""  # of the session: what `bake diff shell:ID` and `bake commit ID` call it


@contextmanager
def boot(services: Services, image: ImageRecord, recorded: Mapping[str, Any], wanted: BootOptions) -> Iterator[Running]:
    """A machine from an image. `recorded` is what the record says of the machine that it was built on."""
    shape = MachineSpec(**(known(recorded) | {"disk_size": None, "accelerator": "auto"} | dict(wanted.shape)))
    builder = services.builder(spec_of(image.builder, recorded), wanted.uri)
    media = media_of(image, builder, services.catalog, services.store)
    with session(services) as (ledger, scratch, report):
        identity = make_identity(scratch, image.name, wanted.username or image.ssh_username)
        called = ImageName(image.name, image.version)
        request = Launch("run", media, shape, identity, scratch, ledger, report, wanted.forwards, image=called)
        with builder.launch(request) as machine:
            with _connected(services, machine, identity, request, wanted) as communicator:
                running = _running(f"{image.name} {image.version}", machine, communicator, wanted, ledger.build_id)
                note(scratch, image, builder, machine, running.ssh)
                yield running


@contextmanager
def restore(services: Services, layer: Layer, build: BuildRecord, wanted: BootOptions) -> Iterator[Running]:
    """A machine as it was when a layer was kept."""
    record, store = layer.record, services.layers
    builder = services.builder(spec_of(record.builder, build.shape), None)
    if not isinstance(builder, SupportsSnapshot):
        raise HostError(f"the builder {record.builder} cannot restore layers")
    with session(services) as (ledger, scratch, report), ExitStack() as stack:
        if not stack.enter_context(store.using(layer)):
            raise NotFoundError(f"the layer {layer.id} has just been removed")
        identity = layer.identity(scratch)
        disk = Disk(layer.directory / "disk.qcow2", "qcow2", 0)
        request = Launch("run", disk, MachineSpec(**known(build.shape)), identity, scratch, ledger, report, wanted.forwards)
        machine = stack.enter_context(builder.restore(request, layer.directory))
        communicator = stack.enter_context(_connected(services, machine, identity, request, wanted))
        wake(communicator, time.time())
        yield _running(f"{record.template} after step {record.step} ({record.name})", machine, communicator, wanted)


@contextmanager
def session(services: Services) -> Iterator[tuple[BuildLedger, Path, Reporter]]:
    """What a machine that no build is about needs: a ledger, a scratch directory, somebody who listens."""
    name = new_id()
    with process_mark(name), services.ledger.open(name) as ledger, scratch_directory(services.home, name, ledger) as scratch:
        yield ledger, scratch, Reporter(services.sink, name)


@contextmanager
def _connected(services: Services, machine: Machine, identity: Identity, request: Launch, wanted: BootOptions) -> Iterator[Communicator]:
    connection = services.connect(machine.endpoint, identity, machine, request.scratch, report=request.report, timeout=wanted.timeout)
    with ExitStack() as stack:
        with request.report.stage("boot"):
            try:
                communicator = stack.enter_context(connection)
            except BootError as error:
                error.hint = "--timeout gives it longer; --memory and --cpus make it larger"
                error.add_note("\n".join(["last lines of its console:", *(f"  {line}" for line in error.console)]))
                raise
        yield communicator


def _running(title: str, machine: Machine, communicator: Communicator, wanted: BootOptions, name: str = "") -> Running:
    ports = {forward.guest_port: machine.forwarded(forward.guest_port) for forward in wanted.forwards}
    return Running(title, machine, communicator, ("ssh", "-F", str(communicator.ssh_config), communicator.host), ports, name)


def known(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of a shape, without what this version does not know."""
    return {name: value for name, value in recorded.items() if name in {field.name for field in fields(MachineSpec)}}
