"""The files in machine/ that turn a bootstrapped root file system into a machine, and where they go.

Sealing relies on the following:

- `bake-identity.service` installs SSH host keys at each start: from the system credential `bake.ssh_host_ed25519_key`, or newly
  generated ones when the machine has none. An image must therefore contain no host keys.
- /etc/machine-id is an empty file, which systemd fills at the first start. /var/lib/dbus/machine-id and random-seed do not exist.
- systemd itself handles the credential `ssh.authorized_keys.root` (tmpfiles.d/provision.conf). It writes /root/.ssh/authorized_keys only
  if that file does not exist, so an image must not contain it either.
- /etc/resolv.conf is a link to systemd-resolved's stub, and /etc/hostname holds the template's host name.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from baker.sources.layout import Names

DIRECTORY = Path(__file__).parent / "machine"
BUILD_SCRIPT = "customize.sh"  # runs once while the root file system is made, and is then removed from it
EARLY_GRUB = "grub-early.cfg"  # embedded in the boot loader images


@dataclass(frozen=True)
class MachineFile:
    """A file of machine/ and its path in the root file system, without the leading slash."""

    source: str
    destination: str
    mode: int = 0o644


FILES = (
    MachineFile("identity.sh", "usr/lib/bake/identity", 0o755),
    MachineFile("identity.service", "etc/systemd/system/bake-identity.service"),
    MachineFile("ssh.conf", "etc/systemd/system/ssh.service.d/10-start-once.conf"),
    MachineFile("grow-root.sh", "usr/lib/bake/grow-root", 0o755),
    MachineFile("grow-root.service", "etc/systemd/system/bake-grow-root.service"),
    MachineFile("ether-network.conf", "etc/systemd/network/80-ether.network"),
    MachineFile("initramfs-hook.sh", "etc/initramfs-tools/hooks/bake", 0o755),
    MachineFile("initramfs.conf", "etc/initramfs-tools/conf.d/bake.conf"),
    MachineFile("grub.cfg", "boot/grub/grub.cfg"),
    MachineFile("fstab.conf", "etc/fstab"),
)

# systemd-resolved: name servers from DHCP; e2fsprogs: fsck of the root file system; fdisk: grow-root; dbus: hostnamectl and similar
# tools; kmod, udev, zstd: the initramfs.
PACKAGES = (
    "systemd-sysv", "udev", "dbus", "kmod", "initramfs-tools", "zstd", "e2fsprogs", "fdisk", "openssh-server", "systemd-resolved",
    "iproute2", "netbase", "ca-certificates",
)  # fmt: skip
KERNEL = "linux-image-cloud-amd64"  # Debian's kernel for virtual machines: it is small and boots fast
KERNEL_PREFIX = "linux-image-"


def packages(extra: tuple[str, ...]) -> tuple[str, ...]:
    """All packages to install: those that every machine needs, a kernel unless `extra` names one, and `extra`."""
    kernel = () if any(name.startswith(KERNEL_PREFIX) for name in extra) else (KERNEL,)
    return tuple(dict.fromkeys((*PACKAGES, *kernel, *extra)))


def text(name: str, names: Names) -> str:
    """The text of the file `name` of machine/, with the identifiers `names` filled in."""
    return names.fill((DIRECTORY / name).read_text())


def digest() -> str:
    """A digest of the lists in this module and the files in machine/. It is part of every bootstrap's key."""
    total = hashlib.sha256(repr((FILES, PACKAGES, KERNEL)).encode())
    for name in sorted({*(file.source for file in FILES), BUILD_SCRIPT, EARLY_GRUB}):
        total.update(f"{name}\0{hashlib.sha256((DIRECTORY / name).read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def write_tar(destination: Path, names: Names, epoch: int) -> None:
    """Write FILES as a tar to unpack over a root file system. Everything in it belongs to root; `epoch` is the modification time."""
    with tarfile.open(destination, "w", format=tarfile.PAX_FORMAT) as tar:
        for file in FILES:
            data = text(file.source, names).encode()
            entry = tarfile.TarInfo(f"./{file.destination}")
            entry.size, entry.mode, entry.mtime = len(data), file.mode, epoch
            tar.addfile(entry, io.BytesIO(data))
