"""A small cloud image like those of distributions, made from Debian's packages: with cloud-init and a login user, without parts of bake.

For tests of the sources `url` and `file` and of the NoCloud seed: nothing in it is set up to read systemd credentials, root may not log
in by cloud-init's default, and only cloud-init configures it for its machine.
"""

from __future__ import annotations

import io
import shlex
import tarfile
import time
from pathlib import Path

from baker.core.model import Disk
from baker.core.process import need, run
from baker.core.user_namespace import in_private_mounts, is_root
from baker.disks import qemuimg
from baker.sources import bootstrap, import_disk, layout, machine_files

USERNAME = "debian"  # cloud-init's default user on Debian
PACKAGES = (
    "systemd-sysv", "linux-image-cloud-amd64", "initramfs-tools", "zstd", "e2fsprogs", "openssh-server", "systemd-resolved", "dbus", "sudo",
    "iproute2", "cloud-init", "cloud-guest-utils", "fdisk",
)  # fmt: skip
CUSTOMIZE = """
chroot "$1" systemctl enable systemd-networkd systemd-resolved ssh
ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/apt/apt.conf.d/00bake-host"
: > "$1/etc/machine-id"
echo localhost > "$1/etc/hostname"
for unit in e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer; do chroot "$1" systemctl disable $unit || true; done
"""


def make_cloud_image(destination: Path, scratch: Path, suite: str = "trixie") -> str:
    """Write a qcow2 cloud image to `destination`; returns its checksum ("sha256:..."). Takes about two minutes and needs a mirror."""
    scratch.mkdir(parents=True, exist_ok=True)
    tar, raw, names = scratch / "cloud.tar", scratch / "cloud.raw", layout.Names.of(f"cloud {suite}")
    files, settings = scratch / "files.tar", scratch / "settings.tar"
    _write_files(files, names)
    bootstrap.write_host_settings(settings)
    run(
        in_private_mounts([
            need("mmdebstrap"), "--mode=root" if is_root() else "--mode=unshare", "--variant=minbase", "--format=tar",
            f"--include={','.join(PACKAGES)}",
            f"--setup-hook=tar-in {shlex.quote(str(settings))} /",
            f"--customize-hook=tar-in {shlex.quote(str(files))} /",
            f"--customize-hook={CUSTOMIZE}",
            suite, str(tar),
        ]),
        env={"TMPDIR": str(scratch) if is_root() else "/var/tmp"},
        what="making a cloud image",
    )  # fmt: skip
    early = machine_files.text(machine_files.EARLY_GRUB, names)
    made = layout.make_disk(tar, raw, names=names, early_config=early, scratch=scratch, epoch=int(time.time()))
    qemuimg.convert(Disk(raw, "raw", made.size), destination, "qcow2", compress=True, options={"compression_type": "zstd"})
    for path in (tar, raw, files, settings):
        path.unlink()
    return import_disk.file_digest(destination)


def _write_files(destination: Path, names: layout.Names) -> None:
    """Write the configuration for booting and for the root file system. cloud-init configures the network."""
    with tarfile.open(destination, "w") as tar:
        for name, path in (("grub.cfg", "./boot/grub/grub.cfg"), ("fstab.conf", "./etc/fstab")):
            data = machine_files.text(name, names).encode()
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
