"""Connections to libvirt: the in-process QEMU driver (the default: no daemon), or any libvirt URI.

libvirt's embedded driver (`qemu:///embed?root=DIR`) keeps everything below DIR and allows one DIR per process, for as long as the
process lives. All embedded machines of one process therefore share the first build's root; it is emptied when nobody uses it.
"""

from __future__ import annotations

import filecmp
import grp
import os
import pwd
import shlex
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from baker.core.errors import HostError
from baker.core.home import ensure
from baker.machines.libvirt.library import libvirt

EMBEDDED = "qemu:///embed"

# What makes the driver run as root without a system-wide set-up: QEMU as root, nobody's ownership changed, no cgroups or namespaces.
ROOT_CONFIGURATION = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = []
cgroup_controllers = []
"""

CAPABILITIES = "cache/qemu/capabilities"  # below an embedded root

_lock = threading.Lock()
_loop: threading.Thread | None = None


class Lifecycle:
    """Tells who asked for it that a domain has stopped, and why. libvirt takes one such callback per connection."""

    def __init__(self, handle: libvirt.virConnect) -> None:
        self._stopped: dict[str, Callable[[int], None]] = {}
        handle.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_event, None)

    def follow(self, uuid: str, stopped: Callable[[int], None]) -> None:
        """Call `stopped` with the reason (VIR_DOMAIN_EVENT_STOPPED_*), in the event thread."""
        self._stopped[uuid] = stopped

    def forget(self, uuid: str) -> None:
        self._stopped.pop(uuid, None)

    def _on_event(self, _connection: libvirt.virConnect, domain: libvirt.virDomain, event: int, detail: int, _opaque: object) -> None:
        listener = self._stopped.get(domain.UUIDString())
        if listener and event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            listener(detail)


@dataclass
class Connection:
    """An open connection. `root` is the embedded driver's directory, None for any other URI."""

    uri: str
    handle: libvirt.virConnect
    lifecycle: Lifecycle
    root: Path | None = None

    @property
    def embedded(self) -> bool:
        return self.root is not None

    @property
    def shares_files(self) -> bool:
        """Whether the hypervisor reads and writes files of this user by their paths."""
        return self.embedded or is_session(self.uri)

    @property
    def remote_host(self) -> str | None:
        """The other host of a URI such as qemu+ssh://host/system."""
        return urlsplit(self.uri).hostname

    @property
    def proxy_command(self) -> str | None:
        """How ssh gets to a port on the loopback of that host (ssh_config(5), ProxyCommand)."""
        parts = urlsplit(self.uri)
        if not parts.hostname:
            return None
        user = ["-l", parts.username] if parts.username else []
        query = parse_qs(parts.query)
        keyfile = query.get("keyfile", [])
        trusting = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"] if query.get("no_verify") == ["1"] else []
        port = ["-p", str(parts.port)] if parts.port and parts.scheme.endswith("+ssh") else []
        argv = ["ssh", "-o", "BatchMode=yes", *trusting, *user, *port, *(["-i", keyfile[0]] if keyfile else [])]
        host = shlex.quote(parts.hostname).replace("%", "%%")  # after `--`: it may begin with a dash
        return f"{shlex.join(argv).replace('%', '%%')} -W %h:%p -- {host}"

    @property
    def version(self) -> str:
        return f"QEMU {_dotted(self.handle.getVersion())}"

    def check_machine(self, machine_type: str, accelerator: str) -> None:
        """HostError when this QEMU has no such machine: domain creation would fail with stranger words."""
        kind = "kvm" if accelerator == "kvm" else "qemu"
        try:
            self.handle.getDomainCapabilities(None, "x86_64", machine_type, kind)
        except libvirt.libvirtError as error:
            raise host_error(
                error, "the machine cannot be started", hint="machine_type is q35, pc, or what the hypervisor lists"
            ) from error

    def log_of(self, name: str) -> Path | None:
        """QEMU's own log of an embedded machine."""
        return next(self.root.glob(f"log/**/{name}.log"), None) if self.root else None


@dataclass
class _Embedded:
    """The one embedded driver of this process."""

    root: Path
    connection: Connection | None = None
    users: int = 0
    skeleton: tuple[Path, ...] = ()


_embedded: _Embedded | None = None


def is_embedded(uri: str | None) -> bool:
    return uri is None or urlsplit(uri).path == "/embed"


def is_session(uri: str) -> bool:
    """A connection to this user's own daemon on this host."""
    parts = urlsplit(uri)
    return parts.path == "/session" and not parts.hostname


def open_uri(uri: str) -> Connection:
    """Open any URI but the embedded one. HostError in libvirt's own words when that fails."""
    _prepare()
    try:
        handle = libvirt.open(uri)
        return Connection(uri, handle, Lifecycle(handle))
    except libvirt.libvirtError as error:
        raise host_error(error, f"cannot connect to {uri}", hint="virsh -c URI uri shows the same") from error


def embedded_root(wanted: Path) -> Path:
    """The root that this process will use: `wanted`, unless it has one already."""
    with _lock:
        return _embedded.root if _embedded else wanted


def open_embedded(wanted: Path, cache: Path | None = None) -> Connection:
    """The embedded driver, in use until `close_embedded`. `cache` has what an earlier process learned of QEMU."""
    global _embedded  # noqa: PLW0603 - libvirt's own limit: one root per process
    with _lock:
        if _embedded is None:
            _embedded = _Embedded(wanted)
        embedded = _embedded
        if embedded.connection is None:
            _prepare()
            try:
                _configure(embedded.root)
                _copy_new(cache, embedded.root / CAPABILITIES) if cache else None
                handle = libvirt.open(f"{EMBEDDED}?root={embedded.root}")
                embedded.connection = Connection(EMBEDDED, handle, Lifecycle(handle), embedded.root)
            except HostError:
                remove_root(embedded.root)
                raise
            except libvirt.libvirtError as error:
                remove_root(embedded.root)
                raise host_error(error, "cannot start libvirt's QEMU driver", hint=_hint(error)) from error
            embedded.skeleton = tuple(sorted(path for path in embedded.root.rglob("*") if path.is_dir()))
        for directory in (embedded.root, *embedded.skeleton):
            directory.mkdir(mode=0o700, exist_ok=True, parents=True)
        embedded.users += 1
        return embedded.connection


def close_embedded() -> None:
    """One user less; the last one takes the files along. The driver itself stays: it cannot be opened again with another root."""
    with _lock:
        if _embedded is None:
            return
        _embedded.users -= 1
        if _embedded.users <= 0:
            _embedded.users = 0
            remove_root(_embedded.root)


def remove_root(root: Path) -> None:
    """Remove a directory below the user's runtime directory, and that one, too, when it was the last."""
    if root.exists():
        shutil.rmtree(root)
    try:
        root.parent.rmdir()
    except OSError:
        pass  # another build of this user has its directory there


def keep_capabilities(connection: Connection, cache: Path) -> None:
    """Remember what libvirt found out about this host's QEMU: asking again costs every process seconds. libvirt checks for itself
    whether a file still fits the binary, the kernel and itself."""
    if connection.root:
        _copy_new(connection.root / CAPABILITIES, cache)


def _copy_new(source: Path, destination: Path) -> None:
    """Copy what `destination` does not have, or has otherwise: after an upgrade or a restart of the host libvirt writes it anew."""
    for path in source.glob("*.xml"):
        known = destination / path.name
        if not known.exists() or not filecmp.cmp(path, known, shallow=False):
            ensure(destination)
            temporary = destination / f"{path.name}.{os.getpid()}.tmp"
            shutil.copyfile(path, temporary)
            temporary.rename(known)


def host_error(error: libvirt.libvirtError, what: str, hint: str = "") -> HostError:
    """A libvirt error (which has QEMU's own words) as one of ours."""
    words = (error.get_error_message() or str(error)).removeprefix("internal error: ")
    return HostError(f"{what}: {words}", hint=hint)


def libvirt_version() -> str:
    return _dotted(libvirt.getVersion())


def _configure(root: Path) -> None:
    ensure(root)
    if os.getuid() != 0:
        return
    for missing, look_up in (("user libvirt-qemu", lambda: pwd.getpwnam("libvirt-qemu")), ("group kvm", lambda: grp.getgrnam("kvm"))):
        try:
            look_up()
        except KeyError:
            hint = "apt-get install --no-install-recommends libvirt-daemon-system makes it"
            raise HostError(f"libvirt's QEMU driver wants the {missing} to exist when it runs as root", hint=hint) from None
    ensure(root / "etc")
    (root / "etc/qemu.conf").write_text(ROOT_CONFIGURATION)


def _prepare() -> None:
    """Once per process: the event loop in a thread, and nothing printed by libvirt."""
    global _loop  # noqa: PLW0603 - libvirt has one event loop per process
    if _loop is not None:
        return
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    _loop = threading.Thread(target=_run_events, daemon=True, name="libvirt-events")
    _loop.start()


def _run_events() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            return


def _hint(error: libvirt.libvirtError) -> str:
    if error.get_error_code() in (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN):
        return "apt-get install --no-install-recommends libvirt-daemon-driver-qemu qemu-system-x86"
    return ""


def _dotted(version: int) -> str:
    """libvirt writes 7.2.22 as 7002022."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
