"""The libvirt builder: machines of the embedded driver, or of any libvirt by its URI."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from baker.core.errors import BuildError, HostError
from baker.core.home import Home, ensure, sync
from baker.core.model import Disk, Forward, MachineFacts
from baker.core.resources import Resources, launched
from baker.disks import qemuimg
from baker.disks.rootfs import find_kernel
from baker.machines.base import Launch, Machine
from baker.machines.identity import write_credentials
from baker.machines.libvirt import accelerator, snapshot_files
from baker.machines.libvirt.connection import (  # fmt: skip
    Connection,
    close_embedded,
    embedded_root,
    host_error,
    is_embedded,
    keep_capabilities,
    libvirt_version,
    open_embedded,
    open_uri,
    remove_root,
)
from baker.machines.libvirt.console import follow_console
from baker.machines.libvirt.domain import DomainSpec, Places, domain_xml, moved, uuid_of
from baker.machines.libvirt.files import Files, local_files, overlay_on, volume_files
from baker.machines.libvirt.library import libvirt
from baker.machines.libvirt.machine import SSH_PORT, LibvirtMachine, Power
from baker.machines.libvirt.paused_disk import frozen
from baker.machines.libvirt.reclaim import destroy, end_qemu, reclaim_domain
from baker.machines.libvirt.volumes import VOLUME, delete
from baker.template.libvirt import LibvirtSpec

DOMAIN = "libvirt:domain"  # the ledger's word
EVENT_SECONDS = 5.0  # for libvirt to tell that a domain which was destroyed has stopped
CAPABILITIES = "libvirt-capabilities"  # in the cache directory


class LibvirtBuilder:
    """Implements baker.machines.base.Builder. `uri` None: libvirt's in-process driver, no daemon."""

    kind = "libvirt"

    def __init__(self, home: Home, uri: str | None = None) -> None:
        self._home = home
        self._uri = None if is_embedded(uri) else uri

    @classmethod
    def configured(cls, home: Home, config: LibvirtSpec) -> Self:
        return cls(home, config.uri)

    @contextmanager
    def launch(self, request: Launch) -> Iterator[LibvirtMachine]:
        with launched(request.ledger, lambda resources: self._start(request, resources)) as machine:
            yield machine

    def capture(self, machine: Machine, destination: Path, products: Resources) -> Disk:
        if not isinstance(machine, LibvirtMachine):
            raise TypeError("this machine is another builder's")
        if machine.running() or not machine.stopped_cleanly:
            raise BuildError("a machine that has not powered off by itself is not captured")
        disk = machine.fetch()
        if machine.layered:
            qemuimg.merge_chain(disk.path, machine.backing)
        captured = qemuimg.convert(disk, destination, "qcow2", backing=machine.backing)
        sync(destination)
        sync(destination.parent)
        return captured

    def can_pause(self) -> bool:
        """Where its files are this host's."""
        return self._uri is None

    @contextmanager
    def paused_disk(self, machine: Machine) -> Iterator[Disk]:
        if not isinstance(machine, LibvirtMachine):
            raise TypeError("this machine is another builder's")
        with machine.paused():
            yield machine.fetch()

    def frozen(self, disk: Path) -> AbstractContextManager[None]:
        return frozen(disk)

    # -- machines that are kept ---------------------------------------------------------------------------------------------

    def keeps(self) -> bool:
        """Only the embedded driver's: others have their files elsewhere, and one name and UUID can be there only once."""
        return self._uri is None

    def keep(self, machine: Machine, directory: Path, following: Path, reference: str) -> None:
        if not isinstance(machine, LibvirtMachine):
            raise TypeError("this machine is another builder's")
        now = machine.fetch()
        overlay = qemuimg.create_overlay(now, following, reference=reference)
        found = snapshot_files.Kept(machine.made_by, machine.describe())
        machine.save(directory / snapshot_files.MEMORY, overlay)
        snapshot_files.write(directory, found, machine.console_log.parent)

    def pack(self, directory: Path) -> None:
        snapshot_files.pack(directory)

    @contextmanager
    def restore(self, request: Launch, directory: Path) -> Iterator[LibvirtMachine]:
        with launched(request.ledger, lambda resources: self._take_up(request, directory, resources)) as machine:
            yield machine

    def _take_up(self, request: Launch, place: Path, resources: Resources) -> LibvirtMachine:
        found = snapshot_files.read(place)
        decision = accelerator.decide(request.shape.accelerator, cache=self._home.cache, kernel=lambda: self._kernel(request))
        connection, runtime = self._open(request, resources)
        made_by = snapshot_files.made_by(connection, decision.name)
        keep_capabilities(connection, self._home.cache / CAPABILITIES)
        snapshot_files.check(found, made_by)
        directory = self._directory(request, resources)
        disk = overlay_on(qemuimg.as_disk(place / snapshot_files.DISK, "qcow2"), request, directory)
        snapshot_files.bring(place, directory)
        memory, log = directory / snapshot_files.MEMORY, directory / "console.log"
        snapshot_files.unpack(place, memory)
        nvram = directory / snapshot_files.NVRAM if (directory / snapshot_files.NVRAM).exists() else None
        places = Places(
            disk.path, directory / snapshot_files.SEED, log, write_credentials(request.identity, directory), nvram, request.gate
        )
        description = moved(found.description, places)
        domain, power = _restored(connection, description, memory, resources)
        memory.unlink()
        machine = LibvirtMachine(
            request.name, connection, domain, power,
            backing=request.disk, fetch=lambda: disk, console_log=log, facts=_facts(request, connection, decision), runtime=runtime,
            made_by=made_by, gate=request.gate,
        )  # fmt: skip
        machine.layered = machine.awake = True
        for forward in (Forward(SSH_PORT), *request.forwards):
            machine.add_forward(forward)
        return machine

    def reclaim(self, kind: str, details: Mapping[str, Any]) -> bool:
        if kind == VOLUME:
            delete(open_uri(details["uri"]), details["pool"], details["name"])
            return True
        if kind != DOMAIN:
            return False
        reclaim_domain(details["uri"], details.get("root"), details["uuid"])
        return True

    def _start(self, request: Launch, resources: Resources) -> LibvirtMachine:
        _check_size(request)
        decision = accelerator.decide(request.shape.accelerator, cache=self._home.cache, kernel=lambda: self._kernel(request))
        connection, runtime = self._open(request, resources)
        connection.check_machine(request.shape.machine_type, decision.name)
        directory = self._directory(request, resources)
        shared = connection.shares_files
        files = local_files(request, directory) if shared else volume_files(request, directory, connection, resources)
        spec = _spec(request, decision.name, files)
        domain, power = _create(connection, spec, resources)
        keep_capabilities(connection, self._home.cache / CAPABILITIES)
        log = directory / "console.log"
        machine = LibvirtMachine(
            request.name, connection, domain, power,
            backing=request.disk, fetch=files.fetch, console_log=log, facts=_facts(request, connection, decision), runtime=runtime,
            made_by=snapshot_files.made_by(connection, decision.name), gate=request.gate,
        )  # fmt: skip
        if not shared:
            follow_console(connection, domain, log)
        for forward in (Forward(SSH_PORT), *request.forwards):
            machine.add_forward(forward)
        _resume(domain, power, machine)
        return machine

    def _directory(self, request: Launch, resources: Resources) -> Path:
        """The place of the machine's own files."""
        directory = request.scratch / f"{request.name}.machine"
        resources.enter("directory", lambda: _remove(directory), path=str(directory))
        return ensure(directory)

    def _open(self, request: Launch, resources: Resources) -> tuple[Connection, Path]:
        """The connection, and a directory with a short path for sockets (the embedded driver's root is that, too)."""
        if self._uri is not None and request.gate.network != "open":
            hint = "leave out the connection: bake's own machines can"
            raise HostError(f"machines of {self._uri} cannot have a network that is {request.gate.network}", hint=hint)
        wanted = self._home.libvirt_root(request.ledger.build_id)
        if self._uri is not None:
            resources.enter("directory", lambda: remove_root(wanted), path=str(wanted))
            ensure(wanted)
            return open_uri(self._uri), wanted
        root = embedded_root(wanted)
        opened: list[Connection] = []
        resources.enter("directory", lambda: close_embedded() if opened else None, path=str(root))
        ensure(root.parent)
        opened.append(open_embedded(root, self._home.cache / CAPABILITIES))
        return opened[0], root

    def _kernel(self, request: Launch) -> Path | None:
        """A kernel to try KVM with: that of the disk about to boot, kept for whoever asks without a disk; else the host's."""
        found = find_kernel(request.disk, scratch=request.scratch)
        return accelerator.keep_kernel(found, self._home.cache) if found else accelerator.any_kernel(self._home.cache)


def _spec(request: Launch, kind: Literal["kvm", "tcg"], files: Files) -> DomainSpec:
    return DomainSpec(
        name=f"bake-{request.ledger.build_id}-{request.name}",
        uuid=str(uuid.uuid4()),
        shape=request.shape,
        accelerator=kind,
        disk=files.disk,
        console_log=files.console_log,
        credentials=files.credentials,
        seed=files.seed,
        loader=files.loader,
        nvram=files.nvram,
        clock=request.clock,
        gate=request.gate,
    )


def _facts(request: Launch, connection: Connection, decision: accelerator.Decision) -> MachineFacts:
    return MachineFacts(
        hypervisor=connection.version,
        accelerator=decision.name,
        accelerator_reason=decision.reason,
        machine_type=request.shape.machine_type,
        connection=connection.uri,
        tools={"libvirt": libvirt_version()},
    )


def _create(connection: Connection, spec: DomainSpec, resources: Resources) -> tuple[libvirt.virDomain, Power]:
    """Create the domain, paused, in the ledger before it is and followed from its first moment."""

    def create() -> libvirt.virDomain:
        return connection.handle.createXML(domain_xml(spec), libvirt.VIR_DOMAIN_START_PAUSED)

    return _domain(connection, spec.uuid, spec.name, create, resources)


def _restored(connection: Connection, description: str, memory: Path, resources: Resources) -> tuple[libvirt.virDomain, Power]:
    """Take up a saved domain, running; in the ledger before it is."""
    uuid = uuid_of(description)

    def create() -> libvirt.virDomain:
        connection.handle.restoreFlags(str(memory), description, libvirt.VIR_DOMAIN_SAVE_RUNNING)
        return connection.handle.lookupByUUIDString(uuid)

    return _domain(connection, uuid, "restored", create, resources)


def _domain(
    connection: Connection, uuid: str, name: str, create: Callable[[], libvirt.virDomain], resources: Resources
) -> tuple[libvirt.virDomain, Power]:
    """The domain that `create` makes, with all that has to be done when it is given back."""
    power = Power(connection, uuid)
    created: list[libvirt.virDomain] = []
    root = str(connection.root) if connection.root else None

    def give_back() -> None:
        destroy(connection, uuid)
        if root:
            end_qemu(uuid, root)
        if created:
            power.wait_stopped(EVENT_SECONDS)
        power.close()

    resources.enter(DOMAIN, give_back, uri=connection.uri, root=root, name=name, uuid=uuid)
    try:
        created.append(create())
    except libvirt.libvirtError as error:
        raise host_error(error, "the machine cannot be started") from error
    return created[0], power


def _resume(domain: libvirt.virDomain, power: Power, machine: LibvirtMachine) -> None:
    try:
        domain.resume()
    except libvirt.libvirtError as error:
        words = "\n".join(machine.console_tail())
        raise host_error(error, "the machine cannot be started", hint=words) from error


def _check_size(request: Launch) -> None:
    wanted, least = request.shape.disk_size, request.disk.virtual_size
    if wanted is not None and wanted < least:
        raise BuildError(
            f"disk_size is {wanted} bytes, but the source's disk has {least}",
            hint="a disk can grow but not shrink: leave disk_size out, or make it larger",
        )


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
