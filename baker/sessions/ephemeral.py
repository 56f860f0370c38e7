"""Ephemeral machines from an image or a layer. They are removed with all their changes when they end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from baker.build.boot import ConnectedMachine, launched, restored
from baker.build.services import Services
from baker.catalog.records import BuildRecord, ImageRecord
from baker.core.errors import BootError, HostError, NotFoundError
from baker.core.events import Reporter
from baker.core.ledger import BuildLedger
from baker.core.model import BootOptions, Disk, MachineSpec
from baker.core.workspace import new_id, process_mark, scratch_directory
from baker.layers.store import Layer
from baker.machines.base import ImageName, Launch, Machine, SupportsSnapshot
from baker.machines.identity import make_identity
from baker.machines.media import media_of
from baker.machines.spec import spec_of
from baker.machines.ssh.communicator import Communicator
from baker.sessions.running import write_shell


@dataclass(frozen=True)
class Running:
    """An ephemeral machine with an open connection. `ssh`: the command that logs in to it."""

    title: str  # "web 1.4.0", "web after step 3 (packages)"
    machine: Machine
    communicator: Communicator
    ssh: tuple[str, ...]
    ports: Mapping[int, int]  # guest port -> port on this host's loopback
    id: str = ""  # of the session, for `bake diff shell:ID` and `bake commit ID`


@contextmanager
def boot(services: Services, image: ImageRecord, recorded: Mapping[str, Any], wanted: BootOptions) -> Iterator[Running]:
    """Start a machine from an image. `recorded`: the recorded machine on which the image was built."""
    shape = MachineSpec(**(spec_fields(recorded) | {"disk_size": None, "accelerator": "auto"} | dict(wanted.shape)))
    builder = services.builder(spec_of(image.builder, recorded), wanted.uri)
    media = media_of(image, builder, services.catalog, services.store)
    with session(services) as (ledger, scratch, report):
        identity = make_identity(scratch, image.name, wanted.username or image.ssh_username)
        name = ImageName(image.name, image.version)
        request = Launch("run", media, shape, identity, scratch, ledger, report, wanted.forwards, image=name)
        with _boot_errors_explained(), launched(builder, request, services.connect, timeout=wanted.timeout) as connected:
            running = _running(f"{image.name} {image.version}", connected, wanted, ledger.build_id)
            write_shell(scratch, image, builder, connected.machine, running.ssh)
            yield running


@contextmanager
def restore(services: Services, layer: Layer, build: BuildRecord, wanted: BootOptions) -> Iterator[Running]:
    """Restore the machine of a layer. NotFoundError when the layer is removed meanwhile."""
    record, store = layer.record, services.layers
    builder = services.builder(spec_of(record.builder, build.shape), None)
    if not isinstance(builder, SupportsSnapshot):
        raise HostError(f"the builder {record.builder} cannot restore layers", code="layer.unsupported")
    with session(services) as (ledger, scratch, report), ExitStack() as stack:
        if not stack.enter_context(store.using(layer)):
            raise NotFoundError(f"the layer {layer.id} has just been removed", code="layer.not-found")
        identity = layer.identity(scratch)
        disk = Disk(layer.directory / "disk.qcow2", "qcow2", 0)
        request = Launch("run", disk, MachineSpec(**spec_fields(build.shape)), identity, scratch, ledger, report, wanted.forwards)
        stack.enter_context(_boot_errors_explained())
        connected = stack.enter_context(restored(builder, request, layer, services.connect, timeout=wanted.timeout))
        yield _running(f"{record.template} after step {record.step} ({record.name})", connected, wanted)


@contextmanager
def session(services: Services) -> Iterator[tuple[BuildLedger, Path, Reporter]]:
    """Open a ledger, a scratch directory and a reporter for a machine outside of a build."""
    name = new_id()
    with process_mark(name), services.ledger.open(name) as ledger, scratch_directory(services.home, name, ledger) as scratch:
        yield ledger, scratch, Reporter(services.sink, name)


@contextmanager
def _boot_errors_explained() -> Iterator[None]:
    """Add a hint for interactive use, and the last lines of the console, to a BootError."""
    try:
        yield
    except BootError as error:
        error.hint = "--timeout allows more time; --memory and --cpus make the machine larger"
        error.add_note("\n".join(["last lines of the console:", *(f"  {line}" for line in error.console)]))
        raise


def _running(title: str, connected: ConnectedMachine, wanted: BootOptions, name: str = "") -> Running:
    machine, communicator = connected.machine, connected.communicator
    ports = {forward.guest_port: machine.forwarded(forward.guest_port) for forward in wanted.forwards}
    return Running(title, machine, communicator, ("ssh", "-F", str(communicator.ssh_config), communicator.host), ports, name)


def spec_fields(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of MachineSpec in a record, without fields that this version does not know."""
    return {name: value for name, value in recorded.items() if name in {field.name for field in fields(MachineSpec)}}
