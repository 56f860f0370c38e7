"""Check whether this host can build images: one finding for each requirement, with a command that fixes it."""

from __future__ import annotations

import getpass
import grp
import os
import platform
import pwd
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from baker.core import process
from baker.core.errors import BakeError
from baker.core.home import Home
from baker.core.ledger import Ledger

OLDEST_PYTHON = (3, 11)
DISK_NEEDED, DISK_WANTED = 4 << 30, 15 << 30  # bytes free in the data directory
MEMORY_NEEDED, MEMORY_WANTED = 768 << 20, 1536 << 20  # bytes available: enough for a machine of the default size and for bake
CLOCK_SLACK = 86400.0  # seconds that the clock may be behind the modification time of this file
TOOL_SECONDS = 30.0

# tool -> (package, required, purpose)
TOOLS = {
    "qemu-system-x86_64": ("qemu-system-x86", True, "runs the machines"),
    "qemu-img": ("qemu-utils", True, "reads and writes disk images"),
    "ssh": ("openssh-client", True, "talks to the machines"),
    "ssh-keygen": ("openssh-client", True, "creates the keys of a build"),
    "mmdebstrap": ("mmdebstrap", False, "debootstrap sources"),
    "sfdisk": ("fdisk", False, "debootstrap sources"),
    "mke2fs": ("e2fsprogs", False, "debootstrap sources"),
    "mkfs.vfat": ("dosfstools", False, "debootstrap sources"),
    "mcopy": ("mtools", False, "debootstrap sources"),
    "grub-mkimage": ("grub-common", False, "debootstrap sources"),
    "ansible-playbook": ("ansible-core", False, "steps of kind ansible"),
}
VERSION_FLAGS = {"ssh": "-V", "mke2fs": "-V", "ssh-keygen": "", "mcopy": "--version", "mkfs.vfat": ""}
GRUB_DIRECTORIES = {"i386-pc": "grub-pc-bin", "x86_64-efi": "grub-efi-amd64-bin"}
OVMF = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd")
# Run in a separate process, so that a missing library or one that crashes is a finding and does not end bake.
OPEN_EMBEDDED = """
import sys, libvirt
libvirt.registerErrorHandler(lambda *_: None, None)
libvirt.virEventRegisterDefaultImpl()
connection = libvirt.open("qemu:///embed?root=" + sys.argv[1])
number = connection.getLibVersion()
print(f"libvirt {number // 1000000}.{number // 1000 % 1000}.{number % 1000}")
"""


@dataclass(frozen=True)
class Finding:
    """The result of one check. `found`: the present state. `fix`: commands that repair it, one per line, if `ok` is false."""

    name: str
    ok: bool
    required: bool
    found: str
    fix: str = ""


def which(tool: str) -> str | None:
    """The path of a tool: on PATH, in the directories of system tools, or beside this Python."""
    places = (None, "/usr/sbin:/sbin:/usr/local/sbin", str(Path(sys.executable).parent))
    return next((path for place in places if (path := shutil.which(tool, path=place))), None)


@dataclass(frozen=True)
class Host:
    """The host that the checks examine; tests provide their own."""

    home: Home
    env: Mapping[str, str] = field(default_factory=dict)
    uid: int = field(default_factory=os.geteuid)
    which: Callable[[str], str | None] = which
    run: Callable[..., process.Result] = process.run
    root: Path = Path("/")

    @property
    def sudo(self) -> str:
        return "" if self.uid == 0 else "sudo "

    def install(self, package: str) -> str:
        return f"{self.sudo}apt-get install -y {package}"

    def text(self, path: str) -> str:
        """The text of a small file of the host; "" if it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text()
        except OSError:
            return ""


def check(home: Home, env: Mapping[str, str]) -> list[Finding]:
    """All findings of this host."""
    return findings(Host(home, env))


def findings(host: Host) -> list[Finding]:
    """All findings, in the order in which to repair them. A check that fails with an error is a finding itself."""
    results: list[Finding] = []
    for name, one in CHECKS:
        try:
            results += one(host)
        except (BakeError, OSError) as error:
            results.append(Finding(name, False, False, f"cannot be checked: {error}"))
    return results


def _python(host: Host) -> Iterable[Finding]:
    ok = sys.version_info[:2] >= OLDEST_PYTHON
    yield Finding("python", ok, True, platform.python_version(), "" if ok else host.install("python3.11 python3.11-venv"))


def _architecture(host: Host) -> Iterable[Finding]:
    machine = platform.machine()
    ok = machine in ("x86_64", "amd64", "AMD64")
    yield Finding("processor", ok, True, machine + ("" if ok else ": bake needs an x86-64 host"))


def _tools(host: Host) -> Iterable[Finding]:
    for tool, (package, required, purpose) in TOOLS.items():
        path = host.which(tool)
        if path is None:
            fix = "pip install ansible-core" if tool == "ansible-playbook" else host.install(package)
            yield Finding(tool, False, required, f"not installed ({purpose})", fix)
        else:
            yield Finding(tool, True, required, _version(host, tool, path))


def _version(host: Host, tool: str, path: str) -> str:
    """The first line of a tool's version output, or its path if it prints no version."""
    flag = VERSION_FLAGS.get(tool, "--version")
    if not flag:
        return path
    result = host.run([path, flag], check=False, timeout=TOOL_SECONDS)
    lines = (result.stdout.strip() or result.stderr.strip()).splitlines()
    return lines[0] if lines and result.returncode == 0 else path


def _libvirt(host: Host) -> Iterable[Finding]:
    name, packages = "libvirt driver", "libvirt-daemon-driver-qemu libvirt-dev"
    with tempfile.TemporaryDirectory(prefix="bake-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        result = host.run([sys.executable, "-c", OPEN_EMBEDDED, directory], check=False, timeout=TOOL_SECONDS)
    if result.returncode == 0:
        yield Finding(name, True, True, f"{result.stdout.strip()}, qemu:///embed can be opened")
        return
    reason = result.tail.splitlines()[-1] if result.tail else f"exit code {result.returncode}"
    fix = f"{host.install(packages)}\n{sys.executable} -m pip install libvirt-python" if "No module" in reason else host.install(packages)
    yield Finding(name, False, True, f"qemu:///embed cannot be opened: {reason}", fix)


def _root_accounts(host: Host) -> Iterable[Finding]:
    """Check the user and group that the QEMU driver of libvirt needs when it runs as root."""
    if host.uid != 0:
        return
    missing = [f"group {name}" for name in ("kvm",) if not _known(grp.getgrnam, name)]
    missing += [f"user {name}" for name in ("libvirt-qemu",) if not _known(pwd.getpwnam, name)]
    fix = host.install("--no-install-recommends libvirt-daemon-system") if missing else ""
    found = "no " + " and no ".join(missing) if missing else "user libvirt-qemu and group kvm exist"
    yield Finding("accounts", not missing, True, found, fix)


def _known(look_up: Callable[[str], object], name: str) -> bool:
    try:
        look_up(name)
    except KeyError:
        return False
    return True


def _kvm(host: Host) -> Iterable[Finding]:
    device = host.root / "dev/kvm"
    if not device.exists():
        fix = "enable virtualization in the firmware, or nested virtualization in the machine settings of the cloud"
        yield Finding("/dev/kvm", False, False, "does not exist: machines are emulated (TCG), which is several times slower", fix)
        return
    if not os.access(device, os.R_OK | os.W_OK):
        fix = f"sudo usermod -aG kvm {getpass.getuser()}   # then log in again"
        yield Finding("/dev/kvm", False, False, "no permission to use it: machines are emulated (TCG)", fix)
        return
    from baker.machines.libvirt.accelerator import choose

    chosen = choose(host.home)
    works = chosen.name == "kvm"
    fix = (
        ""
        if works
        else "bake build TEMPLATE --accelerator kvm   # try KVM nevertheless; otherwise machines are emulated (TCG), which is slower"
    )
    yield Finding("/dev/kvm", works, False, chosen.reason if works else f"can be opened, but the probe failed: {chosen.reason}", fix)


def _grub(host: Host) -> Iterable[Finding]:
    for directory, package in GRUB_DIRECTORIES.items():
        ok = (host.root / "usr/lib/grub" / directory).is_dir()
        found = f"/usr/lib/grub/{directory}" if ok else "not installed (needed by debootstrap sources)"
        yield Finding(f"grub {directory}", ok, False, found, "" if ok else host.install(package))


def _ovmf(host: Host) -> Iterable[Finding]:
    firmware = next((path for path in OVMF if (host.root / path.lstrip("/")).exists()), None)
    yield Finding(
        "UEFI firmware",
        firmware is not None,
        False,
        firmware or "not installed (needed by firmware: uefi)",
        "" if firmware else host.install("ovmf"),
    )


def _user_namespaces(host: Host) -> Iterable[Finding]:
    """Check what debootstrap sources need if bake does not run as root."""
    if host.uid == 0:
        return
    from baker.core.user_namespace import check_host

    for path, bad, fix in (
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
    ):
        if host.text(path).strip() == bad:
            yield Finding("user namespaces", False, False, f"{path} is {bad} (needed by debootstrap sources without root)", fix)
            return
    try:
        check_host()
    except BakeError as error:
        yield Finding("user namespaces", False, False, error.message, f"sudo {error.hint}" if error.hint else "")
    else:
        yield Finding("user namespaces", True, False, "allowed, with subordinate ids")


def _existing(path: Path) -> Path:
    """The path itself, or its nearest existing ancestor."""
    return next(place for place in (path, *path.parents) if place.exists())


def _data_directory(host: Host) -> Iterable[Finding]:
    data = host.home.data
    place = _existing(data)
    fix = "export BAKE_HOME=DIRECTORY   # a directory that you may write to"
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        yield Finding("store", False, True, f"cannot write to {place}: {error.strerror}", fix)
    else:
        yield Finding("store", True, True, f"{data}" + ("" if place == data else " (created at first use)"))


def _disk_space(host: Host) -> Iterable[Finding]:
    free = shutil.disk_usage(_existing(host.home.data)).free
    found = f"{_gib(free)} free for {host.home.data}"
    fix = "bake images   # then `bake rm` unneeded images; or export BAKE_HOME=DIRECTORY on a larger disk"
    yield Finding("disk space", free >= DISK_WANTED, free < DISK_NEEDED, found, "" if free >= DISK_WANTED else fix)


def _memory(host: Host) -> Iterable[Finding]:
    lines = dict(line.split(":", 1) for line in host.text("/proc/meminfo").splitlines() if ":" in line)
    if "MemAvailable" not in lines:
        return
    available = int(lines["MemAvailable"].split()[0]) << 10
    fix = "" if available >= MEMORY_WANTED else "set `builder: {memory: 512MiB}` in the template, or stop other programs"
    yield Finding("memory", available >= MEMORY_WANTED, available < MEMORY_NEEDED, f"{_gib(available)} available", fix)


def _catalog(host: Host) -> Iterable[Finding]:
    """Check that the catalog is intact and has a known schema. It is opened read-only, so that the check changes nothing."""
    path = host.home.catalog
    if not path.exists():
        yield Finding("catalog", True, True, "empty: created at first use")
        return
    import sqlite3

    from baker.catalog.sqlite import REVISIONS

    fix = f"mv {path} {path}.damaged   # bake then creates a new catalog; images stay in the store, but are no longer listed"
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=TOOL_SECONDS)
        try:
            state = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            revision = str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
        finally:
            connection.close()
    except (sqlite3.Error, TypeError) as error:
        yield Finding("catalog", False, True, f"{path}: {error}", fix)
        return
    if state != "ok":
        yield Finding("catalog", False, True, f"{path} is damaged: {state}", fix)
    elif revision not in REVISIONS:
        yield Finding(
            "catalog",
            False,
            True,
            f"schema {revision} is newer than this version of bake",
            f"{sys.executable} -m pip install --upgrade bake",
        )
    else:
        yield Finding("catalog", True, True, f"intact, schema {revision}")


def _leftovers(host: Host) -> Iterable[Finding]:
    ledger = Ledger(host.home.ledger)
    dead, every = ledger.dead_builds(kept=False), ledger.dead_builds()
    kept = [build for build in every if build not in dead]
    if dead:
        yield Finding("leftovers", False, False, f"resources of killed builds: {', '.join(dead)}", "bake sweep")
    if kept:
        yield Finding("kept machines", False, False, f"kept for inspection, of builds {', '.join(kept)}", "bake sweep --kept")
    if not every:
        yield Finding("leftovers", True, False, "none")


def _clock(host: Host) -> Iterable[Finding]:
    now, built = time.time(), Path(__file__).stat().st_mtime
    ok = now >= built - CLOCK_SLACK
    found = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)) + ("" if ok else ": earlier than the installation of bake")
    yield Finding(
        "clock", ok, True, found, "" if ok else f"{host.sudo}date --set '...'   # signatures and certificates are checked with it"
    )


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"


CHECKS: tuple[tuple[str, Callable[[Host], Iterable[Finding]]], ...] = (
    ("python", _python),
    ("processor", _architecture),
    ("tools", _tools),
    ("libvirt driver", _libvirt),
    ("accounts", _root_accounts),
    ("/dev/kvm", _kvm),
    ("grub", _grub),
    ("UEFI firmware", _ovmf),
    ("user namespaces", _user_namespaces),
    ("store", _data_directory),
    ("disk space", _disk_space),
    ("memory", _memory),
    ("catalog", _catalog),
    ("leftovers", _leftovers),
    ("clock", _clock),
)
