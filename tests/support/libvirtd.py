"""A libvirtd for a test, in a mount namespace with empty file systems at all of its compiled-in paths."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from baker.core import process
from baker.machines.identity import make_identity
from tests.support.until import until

# /dev has no kvm: where it is there and the QEMU user may not open it, libvirt asks QEMU for its capabilities again and again.
START = r"""
set -e
for d in /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /etc/libvirt /var/lock; do
  mkdir -p "$d"; mount -t tmpfs -o mode=755 none "$d"
done
mount --bind "$1/sock" /run/libvirt
mkdir -p /var/lib/libvirt/qemu /etc/libvirt/qemu /etc/libvirt/storage
chown libvirt-qemu:kvm /var/lib/libvirt/qemu
mkdir "$1/dev"; mount -t tmpfs -o mode=755 none "$1/dev"
for n in null zero full random urandom tty; do touch "$1/dev/$n"; mount --bind "/dev/$n" "$1/dev/$n"; done
mkdir "$1/dev/pts" "$1/dev/shm"; mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 none "$1/dev/pts"; ln -s pts/ptmx "$1/dev/ptmx"
mount --move "$1/dev" /dev
printf 'auth_unix_rw = "none"\nauth_unix_ro = "none"\nlog_outputs = "3:file:%s/log"\n' "$1" >"$1/conf"
printf 'stdio_handler = "file"\nsecurity_driver = "none"\ncgroup_controllers = []\nnamespaces = []\n' >/etc/libvirt/qemu.conf
exec libvirtd -f "$1/conf" -p "$1/pid"
"""


@contextmanager
def system_libvirtd(directory: Path) -> Iterator[str]:
    """The URI of a privileged libvirtd with the storage pool "default"; QEMU runs as another user, as it does on every host."""
    for name in ("sock", "pool"):
        (directory / name).mkdir()
    for path in (directory, *directory.parents[:-1]):
        if path.stat().st_mode & 0o001 == 0:
            path.chmod(path.stat().st_mode | 0o011)  # QEMU's user must get to its volumes
    uri = f"qemu+unix:///system?socket={directory}/sock/libvirt-sock"
    argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", START, "sh", str(directory)]
    with (directory / "out").open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out, start_new_session=True) as child:
        try:
            until(lambda: _virsh(uri, "uri").returncode == 0, 60, lambda: f"libvirtd answers: {_virsh(uri, 'uri').stderr}", pause=0.1)
            _virsh(uri, "pool-create-as", "default", "dir", "--target", str(directory / "pool")).check_returncode()
            yield uri
        finally:
            os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)


@contextmanager
def ssh_into(libvirtd: Path, directory: Path) -> Iterator[str]:
    """The URI of the same libvirtd through an sshd that runs where it runs: another host, as far as libvirt and bake can tell."""
    identity = make_identity(directory / "ssh", "host", "root")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True)
    (directory / "authorized_keys").write_text(identity.client_public + "\n")
    (directory / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {identity.host_key}\nAuthorizedKeysFile {directory}/authorized_keys\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
    )
    pid = (libvirtd / "pid").read_text().strip()
    argv = ["nsenter", "-m", "-t", pid, process.need("sshd"), "-D", "-e", "-f", str(directory / "sshd_config")]
    with (directory / "sshd.log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True) as child:
        try:
            uri = f"qemu+ssh://root@127.0.0.1:{port}/system?keyfile={identity.client_key}&no_verify=1"
            until(lambda: _virsh(uri, "uri").returncode == 0, 30, lambda: f"libvirtd answers: {_virsh(uri, 'uri').stderr}", pause=0.1)
            yield uri
        finally:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(20)


def _virsh(uri: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["virsh", "-q", "-c", uri, *args], capture_output=True, text=True, check=False, timeout=60)
