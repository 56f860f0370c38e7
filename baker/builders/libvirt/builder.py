"""The libvirt builder: machines of the embedded driver, or of any libvirt by its URI."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import libvirt

from baker.builders.base import Launch, Machine
from baker.builders.holdings import Holdings
from baker.builders.libvirt import accelerator
from baker.builders.libvirt.connection import (
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
)  # fmt: skip
from baker.builders.libvirt.console import follow_console
from baker.builders.libvirt.domain import DomainSpec, domain_xml
from baker.builders.libvirt.files import Files, local_files, volume_files
from baker.builders.libvirt.machine import SSH_PORT, LibvirtMachine, Power
from baker.builders.libvirt.reclaim import destroy, end_qemu, reclaim_domain
from baker.builders.libvirt.volumes import VOLUME, delete
from baker.disks import qemuimg
from baker.disks.rootfs import find_kernel
from baker.errors import BuildError
from baker.model import Disk, Forward, MachineFacts
from baker.paths import Home, ensure

DOMAIN = "libvirt:domain"  # the ledger's word
EVENT_SECONDS = 5.0  # for libvirt to tell that a domain which was destroyed has stopped
CAPABILITIES = "libvirt-capabilities"  # in the cache directory


class LibvirtBuilder:
    """Implements baker.builders.base.Builder. `uri` None: libvirt's in-process driver, no daemon."""

    kind = "libvirt"

    def __init__(self, home: Home, uri: str | None = None) -> None:
        self._home = home
        self._uri = None if is_embedded(uri) else uri

    @contextmanager
    def launch(self, request: Launch) -> Iterator[LibvirtMachine]:
        """A started machine. On leaving everything is given back unless `keep` was called; what could not be stays in the
        ledger and is told as a note of the error that matters, or as the error when there is no other."""
        holdings = Holdings(request.ledger)
        machine: LibvirtMachine | None = None
        try:
            machine = self._start(request, holdings)
            yield machine
        except BaseException as error:
            if machine is None or not machine.kept:
                for failure in holdings.release():
                    error.add_note(f"clean-up: {failure}")
            raise
        if not machine.kept:
            failures = holdings.release()
            for failure in failures[1:]:
                failures[0].add_note(f"clean-up: {failure}")
            if failures:
                raise failures[0]

    def capture(self, machine: Machine, destination: Path) -> Disk:
        if not isinstance(machine, LibvirtMachine):
            raise TypeError("this machine is another builder's")
        if machine.running() or not machine.stopped_cleanly:
            raise BuildError("a machine that has not powered off by itself is not captured")
        captured = qemuimg.convert(machine.fetch(), destination, "qcow2", backing=machine.backing)
        _sync(destination)
        return captured

    def reclaim(self, kind: str, details: Mapping[str, Any]) -> bool:
        if kind == VOLUME:
            delete(open_uri(details["uri"]), details["pool"], details["name"])
            return True
        if kind != DOMAIN:
            return False
        reclaim_domain(details["uri"], details.get("root"), details["uuid"])
        return True

    def _start(self, request: Launch, holdings: Holdings) -> LibvirtMachine:
        _check_size(request)
        decision = accelerator.decide(request.shape.accelerator, cache=self._home.cache, kernel=lambda: self._kernel(request))
        connection, runtime = self._open(request, holdings)
        connection.check_machine(request.shape.machine_type, decision.name)
        directory = request.scratch / f"{request.name}.machine"
        holdings.enter("directory", lambda: _remove(directory), path=str(directory))
        ensure(directory)
        shared = connection.shares_files
        files = local_files(request, directory) if shared else volume_files(request, directory, connection, holdings)
        spec = _spec(request, decision.name, files)
        domain, power = _create(connection, spec, holdings)
        keep_capabilities(connection, self._home.cache / CAPABILITIES)
        log = directory / "console.log"
        machine = LibvirtMachine(
            request.name, connection, domain, power,
            backing=request.disk, fetch=files.fetch, console_log=log, facts=_facts(request, connection, decision), runtime=runtime,
        )  # fmt: skip
        if not shared:
            follow_console(connection, domain, log)
        for forward in (Forward(SSH_PORT), *request.forwards):
            machine.add_forward(forward)
        _resume(domain, power, machine)
        return machine

    def _open(self, request: Launch, holdings: Holdings) -> tuple[Connection, Path]:
        """The connection, and a directory with a short path for sockets (the embedded driver's root is that, too)."""
        wanted = self._home.libvirt_root(request.ledger.build_id)
        if self._uri is not None:
            holdings.enter("directory", lambda: remove_root(wanted), path=str(wanted))
            ensure(wanted)
            return open_uri(self._uri), wanted
        root = embedded_root(wanted)
        opened: list[Connection] = []
        holdings.enter("directory", lambda: close_embedded() if opened else None, path=str(root))
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


def _create(connection: Connection, spec: DomainSpec, holdings: Holdings) -> tuple[libvirt.virDomain, Power]:
    """Create the domain, paused, in the ledger before it is and followed from its first moment."""
    power = Power(connection, spec.uuid)
    created: list[libvirt.virDomain] = []

    def give_back() -> None:
        destroy(connection, spec.uuid)
        if connection.embedded:
            end_qemu(spec.uuid)
        if created:
            power.wait_stopped(EVENT_SECONDS)
        power.close()

    root = str(connection.root) if connection.root else None
    holdings.enter(DOMAIN, give_back, uri=connection.uri, root=root, name=spec.name, uuid=spec.uuid)
    try:
        created.append(connection.handle.createXML(domain_xml(spec), libvirt.VIR_DOMAIN_START_PAUSED))
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


def _sync(path: Path) -> None:
    """The bytes and the name of `path` are on the disk when this returns."""
    for each in (path, path.parent):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
