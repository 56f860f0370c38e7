"""A libvirt domain as a Machine: port forwards, console and power."""

from __future__ import annotations

import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from baker.core.errors import BuildError, HostError
from baker.core.model import OPEN, Disk, EgressEndpoint, Endpoint, Forward, MachineFacts, NetworkPolicy
from baker.machines.libvirt.connection import Connection, host_error
from baker.machines.libvirt.domain import snapshot_xml
from baker.machines.libvirt.egress import endpoints_in
from baker.machines.libvirt.library import libvirt, libvirt_qemu
from baker.machines.libvirt.network import HOST_ADDRESS, NETDEV, address

LOOPBACK = "127.0.0.1"
SSH_PORT = 22
PRIVATE_PORTS = range(49152, 65536)  # RFC 6335, 6: the dynamic ports
PORT_TRIES = 50
POWER_BUTTON_SECONDS = 10.0  # a guest that is still booting may miss the first press
# Control sequences and strings of ECMA-48 (colours, cursor movements), and other control characters.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f]")
CONSOLE_TAIL_BYTES = 64 * 1024


class Power:
    """Whether a domain has stopped, and why, by its events. Created before the domain."""

    def __init__(self, connection: Connection, uuid: str) -> None:
        self._connection, self._uuid = connection, uuid
        self._changed = threading.Condition()
        self._detail: int | None = None  # why it stopped: VIR_DOMAIN_EVENT_STOPPED_*
        connection.lifecycle.follow(uuid, self._on_stopped)

    def close(self) -> None:
        self._connection.lifecycle.forget(self._uuid)

    def _on_stopped(self, detail: int) -> None:
        with self._changed:
            self._detail = detail
            self._changed.notify_all()

    @property
    def stopped(self) -> bool:
        return self._detail is not None

    @property
    def clean(self) -> bool:
        """Whether the domain stopped because its guest powered off."""
        return bool(self._detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN)

    def wait_stopped(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.stopped, timeout)


class LibvirtMachine:
    """Implements baker.machines.base.Machine."""

    def __init__(
        self,
        name: str,
        connection: Connection,
        domain: libvirt.virDomain,
        power: Power,
        *,
        backing: Disk,
        fetch: Callable[[], Disk],
        console_log: Path,
        facts: MachineFacts,
        runtime: Path,
        made_by: Mapping[str, str],
        network_policy: NetworkPolicy = OPEN,
    ) -> None:
        self._name, self._connection, self._domain, self._power = name, connection, domain, power
        self._backing, self._fetch, self._console_log, self._facts, self._runtime = backing, fetch, console_log, facts, runtime
        self._ports: dict[int, int] = {}
        self._network_policy = network_policy
        self.made_by = made_by  # versions that must be the same on a host that restores its snapshots
        self.kept = False
        self.layered = False  # whether there are overlays between its own and `backing`
        self.restored = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(LOOPBACK, self._ports[SSH_PORT], self._connection.proxy_command)

    @property
    def console_log(self) -> Path:
        return self._console_log

    @property
    def serial(self) -> Path | None:
        """The pty of the serial console on this host; None when the machine runs on another host."""
        if self._connection.remote_host:
            return None
        try:
            source = ElementTree.fromstring(self._domain.XMLDesc()).find("devices/serial/source")  # noqa: S314 - libvirt's own
        except libvirt.libvirtError as error:
            raise host_error(error, "cannot find the serial console") from error
        return Path(source.attrib["path"]) if source is not None and "path" in source.attrib else None

    def host_address(self, port: int) -> str | None:
        return None if self._connection.remote_host else address(self._network_policy, port)

    def egress(self) -> Sequence[EgressEndpoint]:
        dump = self._network_policy.dump
        return endpoints_in(dump, frozenset({(HOST_ADDRESS, self._network_policy.port)})) if dump is not None else ()

    @property
    def facts(self) -> MachineFacts:
        return self._facts

    @property
    def runtime(self) -> Path:
        return self._runtime

    @property
    def backing(self) -> Disk:
        """The disk that it was launched from."""
        return self._backing

    def fetch(self) -> Disk:
        """The machine's own disk, an overlay, as a file on this host."""
        return self._fetch()

    def reset(self) -> None:
        try:
            self._domain.reset()
        except libvirt.libvirtError as error:
            raise host_error(error, "cannot reset the machine") from error

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the machine's processors. QEMU then writes all cached data of its disk to the files: do_vm_stop() in QEMU's
        system/cpus.c."""
        try:
            self._domain.suspend()
        except libvirt.libvirtError as error:
            raise host_error(error, "cannot pause the machine") from error
        try:
            yield
        finally:
            try:
                self._domain.resume()
            except libvirt.libvirtError as error:
                raise host_error(error, "cannot resume the machine") from error

    def save(self, memory: Path, following: Disk) -> None:
        """Write the memory to a file, and continue on `following`, an overlay on the current disk. The guest is paused meanwhile."""
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
        try:
            self._domain.snapshotCreateXML(snapshot_xml(memory, following.path), flags)
        except libvirt.libvirtError as error:
            raise host_error(error, "cannot take a snapshot of the machine", code="machine.snapshot-failed") from error
        self.layered = True
        self._fetch = lambda: following

    def describe(self) -> str:
        """The domain XML with which a snapshot is restored."""
        try:
            return str(self._domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE))
        except libvirt.libvirtError as error:
            raise host_error(error, "cannot read the machine's description") from error

    @property
    def stopped_cleanly(self) -> bool:
        return self._power.clean

    def running(self) -> bool:
        return not self._power.stopped

    def console_tail(self, lines: int = 20) -> tuple[str, ...]:
        """The last lines of the guest's console. If the machine stopped without the guest powering off, also the end of QEMU's log."""
        found = _tail(self._console_log, lines)
        if self._power.stopped and not self._power.clean:
            log = self._connection.log_of(self._domain.name())
            found += tuple(f"qemu: {line}" for line in _tail(log, 3)) if log else ()
        return found[-lines:]

    def forwarded(self, guest_port: int) -> int:
        if self._connection.remote_host:
            raise HostError(
                f"a forward of the guest's port {guest_port} would be on {self._connection.remote_host} and not on this host",
                hint="forward it with ssh -L and the machine's ssh_config",
                code="machine.no-forwards",
            )
        if guest_port not in self._ports:
            self.add_forward(Forward(guest_port))
        return self._ports[guest_port]

    def add_forward(self, forward: Forward) -> None:
        """Forward a port of the loopback of the hypervisor's host to the guest. HostError when the requested host port is in use."""
        requested = forward.host_port
        for _ in range(1 if requested else PORT_TRIES):
            port = requested or self._port()
            if self._forward(port, forward.guest_port):
                self._ports[forward.guest_port] = port
                return
        if requested:
            hint = "use another host port, or leave it out for any free port"
            raise HostError(f"port {requested} of {LOOPBACK} is in use", hint=hint, code="host.port-in-use")
        raise HostError(f"no free port on {LOOPBACK} for the guest's port {forward.guest_port}", code="host.no-free-port")

    def _port(self) -> int:
        """A port that is probably free; QEMU may still be unable to bind it."""
        return secrets.choice(PRIVATE_PORTS) if self._connection.remote_host else _free_port()

    def _forward(self, port: int, guest_port: int) -> bool:
        """Whether QEMU could bind the port and forward it. False when another process uses the port."""
        command = f"hostfwd_add {NETDEV} tcp:{LOOPBACK}:{port}-:{guest_port}"
        try:
            answer = libvirt_qemu.qemuMonitorCommand(self._domain, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
        except libvirt.libvirtError as error:
            raise host_error(error, "cannot forward a port to the guest") from error
        return not answer.strip()

    def keep(self) -> None:
        self.kept = True

    def shutdown(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._power.stopped and time.monotonic() < deadline:
            self._press_power_button()
            self._power.wait_stopped(max(0.0, min(POWER_BUTTON_SECONDS, deadline - time.monotonic())))
        if not self._power.stopped:
            message = f"timed out after {timeout:g} s waiting for the guest to power off\n{self._console_lines()}".rstrip()
            raise BuildError(message, hint="raise shutdown_timeout", code="machine.shutdown-timeout")
        if not self._power.clean:
            message = f"the machine stopped before its guest had powered off\n{self._console_lines()}".rstrip()
            raise BuildError(message, code="machine.died")

    def _press_power_button(self) -> None:
        try:
            self._domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
                raise host_error(error, "cannot ask the guest to power off") from error

    def _console_lines(self) -> str:
        return "\n".join(f"  console: {line}" for line in self.console_tail(10))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _tail(path: Path, lines: int) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - CONSOLE_TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ()
    cleaned = (ESCAPES.sub("", line).rstrip() for line in text.splitlines())
    return tuple(line for line in cleaned if line)[-lines:]
