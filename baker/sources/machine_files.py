"""What is put into a bootstrapped root file system to make it a machine: the files in machine/, where they go, and why.

A later seal may rely on this:

- `bake-identity.service` gives the machine SSH host keys at each start, from the system credential `bake.ssh_host_ed25519_key`
  or anew where none are there; so an image is to have no host keys at all.
- /etc/machine-id is an empty file: systemd fills it at the first start. /var/lib/dbus/machine-id and random-seed do not exist.
- `ssh.authorized_keys.root` is systemd's own (tmpfiles.d/provision.conf): it is written to /root/.ssh/authorized_keys only while that
  file does not exist, so an image is not to have it either.
- /etc/resolv.conf is a link to systemd-resolved's stub, /etc/hostname holds the template's host name.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from baker.sources.layout import Names

DIRECTORY = Path(__file__).parent / "machine"
BUILD_SCRIPT = "customize.sh"  # runs once while the root is made, and is not in it
EARLY_GRUB = "grub-early.cfg"  # goes into the boot loader itself


@dataclass(frozen=True)
class MachineFile:
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

# systemd-resolved: name servers from DHCP; e2fsprogs: fsck of the root; fdisk: grow-root; dbus: hostnamectl and the like; kmod, udev,
# zstd: the initramfs.
PACKAGES = (
    "systemd-sysv", "udev", "dbus", "kmod", "initramfs-tools", "zstd", "e2fsprogs", "fdisk", "openssh-server", "systemd-resolved",
    "iproute2", "netbase", "ca-certificates",
)  # fmt: skip
KERNEL = "linux-image-cloud-amd64"  # the kernel for virtual machines: small, starts fast
KERNEL_PREFIX = "linux-image-"


def packages(extra: tuple[str, ...]) -> tuple[str, ...]:
    """All packages to install: those that make a machine, `extra`, and a kernel unless `extra` names one."""
    kernel = () if any(name.startswith(KERNEL_PREFIX) for name in extra) else (KERNEL,)
    return tuple(dict.fromkeys((*PACKAGES, *kernel, *extra)))


def text(name: str, names: Names) -> str:
    """The text of a file of machine/ for the disk that has `names`."""
    return names.fill((DIRECTORY / name).read_text())


def digest() -> str:
    """A digest of all that is in this module and in machine/: part of every bootstrap's key."""
    total = hashlib.sha256(repr((FILES, PACKAGES, KERNEL)).encode())
    for name in sorted({*(file.source for file in FILES), BUILD_SCRIPT, EARLY_GRUB}):
        total.update(f"{name}\0{hashlib.sha256((DIRECTORY / name).read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def write_tar(destination: Path, names: Names, epoch: int) -> None:
    """Write FILES as a tar to be unpacked over a root file system, owned by root."""
    with tarfile.open(destination, "w", format=tarfile.PAX_FORMAT) as tar:
        for file in FILES:
            data = text(file.source, names).encode()
            entry = tarfile.TarInfo(f"./{file.destination}")
            entry.size, entry.mode, entry.mtime = len(data), file.mode, epoch
            tar.addfile(entry, io.BytesIO(data))
