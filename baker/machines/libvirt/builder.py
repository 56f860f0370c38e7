"""The libvirt builder: machines of libvirt's embedded driver, or of any libvirt connection URI."""

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
    cache_capabilities,
    close_embedded,
    embedded_root,
    host_error,
    is_embedded,
    libvirt_version,
    open_embedded,
    open_uri,
    remove_root,
)
from baker.machines.libvirt.console import follow_console
from baker.machines.libvirt.domain import DomainSpec, RestoredFiles, domain_xml, uuid_of, with_files
from baker.machines.libvirt.files import Files, local_files, overlay_on, volume_files
from baker.machines.libvirt.library import libvirt
from baker.machines.libvirt.machine import SSH_PORT, LibvirtMachine, Power
from baker.machines.libvirt.paused_disk import paused_writer
from baker.machines.libvirt.reclaim import destroy, end_qemu, reclaim_domain
from baker.machines.libvirt.volumes import VOLUME, delete
from baker.template.libvirt import LibvirtSpec

DOMAIN = "libvirt:domain"  # a kind in the ledger
EVENT_SECONDS = 5.0  # timeout of libvirt's event after a domain was destroyed
CAPABILITIES = "libvirt-capabilities"  # in the cache directory


class LibvirtBuilder:
    """Implements baker.machines.base.Builder, SupportsSnapshot and SupportsPause. `uri` None: libvirt's embedded driver, without a
    daemon."""

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
            message = "the machine is not captured, because its guest has not powered off"
            raise BuildError(message, hint="see the console log", code="machine.not-powered-off")
        disk = machine.fetch()
        if machine.layered:
            qemuimg.merge_chain(disk.path, machine.backing)
        captured = qemuimg.convert(disk, destination, "qcow2", backing=machine.backing)
        sync(destination)
        sync(destination.parent)
        return captured

    def can_pause(self) -> bool:
        """Only machines of the embedded driver, whose files are on this host."""
        return self._uri is None

    @contextmanager
    def paused_disk(self, machine: Machine) -> Iterator[Disk]:
        if not isinstance(machine, LibvirtMachine):
            raise TypeError("this machine is another builder's")
        with machine.paused():
            yield machine.fetch()

    def paused_writer(self, disk: Path) -> AbstractContextManager[None]:
        return paused_writer(disk)

    # -- snapshots ----------------------------------------------------------------------------------------------------------

    def can_snapshot(self) -> bool:
        """Only machines of the embedded driver: other connections have their files elsewhere, and allow a name and UUID only once."""
        return self._uri is None

    def take_snapshot(self, machine: Machine, directory: Path, following: Path, reference: str) -> None:
        if not isinstance(machine, LibvirtMachine):
            raise TypeError("this machine is another builder's")
        now = machine.fetch()
        overlay = qemuimg.create_overlay(now, following, reference=reference)
        found = snapshot_files.SnapshotRecord(machine.made_by, machine.describe())
        machine.save(directory / snapshot_files.MEMORY, overlay)
        snapshot_files.write(directory, found, machine.console_log.parent)

    def finish_snapshot(self, directory: Path) -> None:
        snapshot_files.compress(directory)

    @contextmanager
    def restore(self, request: Launch, directory: Path) -> Iterator[LibvirtMachine]:
        with launched(request.ledger, lambda resources: self._restore(request, directory, resources)) as machine:
            yield machine

    def _restore(self, request: Launch, snapshot: Path, resources: Resources) -> LibvirtMachine:
        found = snapshot_files.read(snapshot)
        decision = accelerator.decide(request.machine_spec.accelerator, cache=self._home.cache, kernel=lambda: self._kernel(request))
        connection, runtime = self._open(request, resources)
        made_by = snapshot_files.made_by(connection, decision.name)
        cache_capabilities(connection, self._home.cache / CAPABILITIES)
        snapshot_files.check(found, made_by)
        directory = self._directory(request, resources)
        disk = overlay_on(qemuimg.as_disk(snapshot / snapshot_files.DISK, "qcow2"), request, directory)
        snapshot_files.copy_to(snapshot, directory)
        memory, log = directory / snapshot_files.MEMORY, directory / "console.log"
        snapshot_files.decompress_memory(snapshot, memory)
        nvram = directory / snapshot_files.NVRAM if (directory / snapshot_files.NVRAM).exists() else None
        files = RestoredFiles(
            disk.path, directory / snapshot_files.SEED, log, write_credentials(request.identity, directory), nvram, request.network_policy
        )
        description = with_files(found.description, files)
        domain, power = _restored(connection, description, memory, resources)
        memory.unlink()
        machine = LibvirtMachine(
            request.name, connection, domain, power,
            backing=request.disk, fetch=lambda: disk, console_log=log, facts=_facts(request, connection, decision), runtime=runtime,
            made_by=made_by, network_policy=request.network_policy,
        )  # fmt: skip
        machine.layered = machine.restored = True
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
        decision = accelerator.decide(request.machine_spec.accelerator, cache=self._home.cache, kernel=lambda: self._kernel(request))
        connection, runtime = self._open(request, resources)
        connection.check_machine(request.machine_spec.machine_type, decision.name)
        directory = self._directory(request, resources)
        shared = connection.shares_files
        files = local_files(request, directory) if shared else volume_files(request, directory, connection, resources)
        spec = _spec(request, decision.name, files)
        domain, power = _create(connection, spec, resources)
        cache_capabilities(connection, self._home.cache / CAPABILITIES)
        log = directory / "console.log"
        machine = LibvirtMachine(
            request.name, connection, domain, power,
            backing=request.disk, fetch=files.fetch, console_log=log, facts=_facts(request, connection, decision), runtime=runtime,
            made_by=snapshot_files.made_by(connection, decision.name), network_policy=request.network_policy,
        )  # fmt: skip
        if not shared:
            follow_console(connection, domain, log)
        for forward in (Forward(SSH_PORT), *request.forwards):
            machine.add_forward(forward)
        _resume(domain, power, machine)
        return machine

    def _directory(self, request: Launch, resources: Resources) -> Path:
        """Create the directory for the machine's own files."""
        directory = request.scratch / f"{request.name}.machine"
        resources.enter("directory", lambda: _remove(directory), path=str(directory))
        return ensure(directory)

    def _open(self, request: Launch, resources: Resources) -> tuple[Connection, Path]:
        """Open the connection. Returns it and a directory with a short path for sockets, which is also the embedded driver's root."""
        if self._uri is not None and request.network_policy.network != "open":
            message = f"machines of {self._uri} cannot have a network that is {request.network_policy.network}"
            raise HostError(
                message, hint="leave out the connection URI: machines of the embedded driver can", code="machine.network-policy"
            )
        directory = self._home.libvirt_root(request.ledger.build_id)
        if self._uri is not None:
            resources.enter("directory", lambda: remove_root(directory), path=str(directory))
            ensure(directory)
            return open_uri(self._uri), directory
        root = embedded_root(directory)
        opened: list[Connection] = []
        resources.enter("directory", lambda: close_embedded() if opened else None, path=str(root))
        ensure(root.parent)
        opened.append(open_embedded(root, self._home.cache / CAPABILITIES))
        return opened[0], root

    def _kernel(self, request: Launch) -> Path | None:
        """The kernel for the probe of KVM: that of the disk, which is then cached, else the host's or an earlier cached one."""
        found = find_kernel(request.disk, scratch=request.scratch)
        return accelerator.cache_kernel(found, self._home.cache) if found else accelerator.any_kernel(self._home.cache)


def _spec(request: Launch, kind: Literal["kvm", "tcg"], files: Files) -> DomainSpec:
    return DomainSpec(
        name=f"bake-{request.ledger.build_id}-{request.name}",
        uuid=str(uuid.uuid4()),
        machine_spec=request.machine_spec,
        accelerator=kind,
        disk=files.disk,
        console_log=files.console_log,
        credentials=files.credentials,
        seed=files.seed,
        loader=files.loader,
        nvram=files.nvram,
        clock=request.clock,
        network_policy=request.network_policy,
    )


def _facts(request: Launch, connection: Connection, decision: accelerator.Decision) -> MachineFacts:
    return MachineFacts(
        hypervisor=connection.version,
        accelerator=decision.name,
        accelerator_reason=decision.reason,
        machine_type=request.machine_spec.machine_type,
        connection=connection.uri,
        tools={"libvirt": libvirt_version()},
    )


def _create(connection: Connection, spec: DomainSpec, resources: Resources) -> tuple[libvirt.virDomain, Power]:
    """Create the domain, paused. It is in the ledger, and its events are followed, before it exists."""

    def create() -> libvirt.virDomain:
        return connection.handle.createXML(domain_xml(spec), libvirt.VIR_DOMAIN_START_PAUSED)

    return _domain(connection, spec.uuid, spec.name, create, resources)


def _restored(connection: Connection, description: str, memory: Path, resources: Resources) -> tuple[libvirt.virDomain, Power]:
    """Restore a saved domain, running. It is in the ledger, and its events are followed, before it exists."""
    uuid = uuid_of(description)

    def create() -> libvirt.virDomain:
        connection.handle.restoreFlags(str(memory), description, libvirt.VIR_DOMAIN_SAVE_RUNNING)
        return connection.handle.lookupByUUIDString(uuid)

    return _domain(connection, uuid, "restored", create, resources)


def _domain(
    connection: Connection, uuid: str, name: str, create: Callable[[], libvirt.virDomain], resources: Resources
) -> tuple[libvirt.virDomain, Power]:
    """Create a domain with `create`, after its removal was entered in `resources`."""
    power = Power(connection, uuid)
    created: list[libvirt.virDomain] = []
    root = str(connection.root) if connection.root else None

    def remove() -> None:
        destroy(connection, uuid)
        if root:
            end_qemu(uuid, root)
        if created:
            power.wait_stopped(EVENT_SECONDS)
        power.close()

    resources.enter(DOMAIN, remove, uri=connection.uri, root=root, name=name, uuid=uuid)
    try:
        created.append(create())
    except libvirt.libvirtError as error:
        raise host_error(error, "cannot start the machine", code="machine.start-failed") from error
    return created[0], power


def _resume(domain: libvirt.virDomain, power: Power, machine: LibvirtMachine) -> None:
    try:
        domain.resume()
    except libvirt.libvirtError as error:
        console = "\n".join(machine.console_tail())
        raise host_error(error, "cannot start the machine", hint=console, code="machine.start-failed") from error


def _check_size(request: Launch) -> None:
    requested, least = request.machine_spec.disk_size, request.disk.virtual_size
    if requested is not None and requested < least:
        raise BuildError(
            f"disk_size is {requested} bytes, but the source's disk has {least}",
            hint="a disk can grow but not shrink: leave disk_size out, or make it larger",
            code="disk.too-small",
        )


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
