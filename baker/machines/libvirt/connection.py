"""Connections to libvirt: its embedded QEMU driver in this process (the default, without a daemon), or any connection URI.

The embedded driver (`qemu:///embed?root=DIR`) has all its files below DIR and allows one DIR per process, for as long as the process
runs. All embedded machines of one process therefore share the root of the first build. The root is removed when no machine uses it.
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

# With this configuration the driver runs as root without a system-wide set-up: QEMU runs as root, libvirt changes no file's owner, and
# there are no cgroups or namespaces.
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
    """Reports that a domain has stopped, and why, to the listener for its UUID. One callback serves all domains of a connection."""

    def __init__(self, handle: libvirt.virConnect) -> None:
        self._stopped: dict[str, Callable[[int], None]] = {}
        handle.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_event, None)

    def follow(self, uuid: str, stopped: Callable[[int], None]) -> None:
        """Call `stopped` with the reason (VIR_DOMAIN_EVENT_STOPPED_*) in the event thread when the domain stops."""
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
        """Whether the hypervisor can read and write this user's files at their paths."""
        return self.embedded or is_session(self.uri)

    @property
    def remote_host(self) -> str | None:
        """The other host of a URI such as qemu+ssh://host/system."""
        return urlsplit(self.uri).hostname

    @property
    def proxy_command(self) -> str | None:
        """The ProxyCommand, ssh_config(5), with which ssh reaches a port on the loopback of `remote_host`; None for this host."""
        parts = urlsplit(self.uri)
        if not parts.hostname:
            return None
        user = ["-l", parts.username] if parts.username else []
        query = parse_qs(parts.query)
        keyfile = query.get("keyfile", [])
        trusting = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"] if query.get("no_verify") == ["1"] else []
        port = ["-p", str(parts.port)] if parts.port and parts.scheme.endswith("+ssh") else []
        argv = ["ssh", "-o", "BatchMode=yes", *trusting, *user, *port, *(["-i", keyfile[0]] if keyfile else [])]
        host = shlex.quote(parts.hostname).replace("%", "%%")  # after `--`, because it may begin with a dash
        return f"{shlex.join(argv).replace('%', '%%')} -W %h:%p -- {host}"

    @property
    def version(self) -> str:
        return f"QEMU {_dotted(self.handle.getVersion())}"

    def check_machine(self, machine_type: str, accelerator: str) -> None:
        """Raise HostError when this QEMU does not have the machine type. The error of creating such a domain would be less clear."""
        kind = "kvm" if accelerator == "kvm" else "qemu"
        try:
            self.handle.getDomainCapabilities(None, "x86_64", machine_type, kind)
        except libvirt.libvirtError as error:
            raise host_error(
                error,
                f"the hypervisor cannot run machines of the type {machine_type}",
                hint="set machine_type to q35, pc, or a type that `virsh domcapabilities` accepts",
                code="machine.machine-type",
            ) from error

    def log_of(self, name: str) -> Path | None:
        """QEMU's log of an embedded machine, if there is one."""
        return next(self.root.glob(f"log/**/{name}.log"), None) if self.root else None


@dataclass
class _Embedded:
    """The embedded driver of this process. `skeleton`: the directories below its root that libvirt needs."""

    root: Path
    connection: Connection | None = None
    users: int = 0
    skeleton: tuple[Path, ...] = ()


_embedded: _Embedded | None = None


def is_embedded(uri: str | None) -> bool:
    return uri is None or urlsplit(uri).path == "/embed"


def is_session(uri: str) -> bool:
    """Whether the URI is that of this user's own daemon on this host."""
    parts = urlsplit(uri)
    return parts.path == "/session" and not parts.hostname


def open_uri(uri: str) -> Connection:
    """Open a connection URI other than the embedded driver's. HostError, with libvirt's message, when that fails."""
    _prepare()
    try:
        handle = libvirt.open(uri)
        return Connection(uri, handle, Lifecycle(handle))
    except libvirt.libvirtError as error:
        hint = f"check the connection with: virsh -c {shlex.quote(uri)} uri"
        raise host_error(error, f"cannot connect to {uri}", hint=hint, code="machine.libvirt-connect") from error


def embedded_root(root: Path) -> Path:
    """The root that this process will use: `root`, unless it has one already."""
    with _lock:
        return _embedded.root if _embedded else root


def open_embedded(root: Path, cache: Path | None = None) -> Connection:
    """Open the embedded driver, with `embedded_root(root)`, until `close_embedded` is called as often.

    `cache`: a directory with the capabilities of QEMU that an earlier process stored. HostError when the driver does not start.
    """
    global _embedded  # noqa: PLW0603 - libvirt allows one root per process
    with _lock:
        if _embedded is None:
            _embedded = _Embedded(root)
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
                raise host_error(error, "cannot start libvirt's QEMU driver", hint=_hint(error), code="machine.libvirt-driver") from error
            embedded.skeleton = tuple(sorted(path for path in embedded.root.rglob("*") if path.is_dir()))
        for directory in (embedded.root, *embedded.skeleton):
            directory.mkdir(mode=0o700, exist_ok=True, parents=True)
        embedded.users += 1
        return embedded.connection


def close_embedded() -> None:
    """Release the embedded driver. The last user's call removes its files. The driver stays open: libvirt allows no other root."""
    with _lock:
        if _embedded is None:
            return
        _embedded.users -= 1
        if _embedded.users <= 0:
            _embedded.users = 0
            remove_root(_embedded.root)


def remove_root(root: Path) -> None:
    """Remove a directory below the user's runtime directory, and the runtime directory itself when that is empty then."""
    if root.exists():
        shutil.rmtree(root)
    try:
        root.parent.rmdir()
    except OSError:
        pass  # another build of this user has its directory there


def cache_capabilities(connection: Connection, cache: Path) -> None:
    """Store the capabilities of this host's QEMU that libvirt has determined, which takes every process seconds otherwise. libvirt checks
    whether a stored file is still valid for the QEMU binary, the kernel and its own version."""
    if connection.root:
        _copy_new(connection.root / CAPABILITIES, cache)


def _copy_new(source: Path, destination: Path) -> None:
    """Copy the files that `destination` does not have with the same content: libvirt rewrites them after an upgrade or a reboot."""
    for path in source.glob("*.xml"):
        known = destination / path.name
        if not known.exists() or not filecmp.cmp(path, known, shallow=False):
            ensure(destination)
            temporary = destination / f"{path.name}.{os.getpid()}.tmp"
            shutil.copyfile(path, temporary)
            temporary.rename(known)


def host_error(error: libvirt.libvirtError, what: str, hint: str = "", *, code: str = "machine.libvirt-failed") -> HostError:
    """Convert an error of libvirt, whose message may be QEMU's, to a HostError."""
    reason = (error.get_error_message() or str(error)).removeprefix("internal error: ")
    return HostError(f"{what}: {reason}", hint=hint, code=code)


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
            hint = "apt-get install --no-install-recommends libvirt-daemon-system creates it"
            message = f"libvirt's QEMU driver needs the {missing} when it runs as root"
            raise HostError(message, hint=hint, code="host.missing-user-or-group") from None
    ensure(root / "etc")
    (root / "etc/qemu.conf").write_text(ROOT_CONFIGURATION)


def _prepare() -> None:
    """Once per process, start libvirt's event loop in a thread and keep libvirt from printing errors."""
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
    """A version number of libvirt as text: 7002022 is 7.2.22."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
