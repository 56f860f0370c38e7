"""The machine of the benchmark: bake's settings, and matching ones for Packer and for the verification of its images.

See baker/machines/libvirt/domain.py. The differences that remain stand in docs/benchmarks.md (report.py, HOW).
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

CPUS = 2
MEMORY_MIB = 1024
ACCELERATOR = "tcg"
TRANSLATION_CACHE_MIB = 512
CPU = "max,la57=off,smap=off"


@dataclass(frozen=True)
class Identity:
    """The keys of Packer's machines: the login key, and a host key, so that the guest does not generate one."""

    directory: Path

    @property
    def client_key(self) -> Path:
        return self.directory / "client_key"

    @property
    def host_key(self) -> Path:
        return self.directory / "host_key"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    def make(self) -> Identity:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for key in (self.client_key, self.host_key):
            if not key.exists():
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", key], check=True)
        kind, value = self.host_key.with_suffix(".pub").read_text().split()[:2]
        self.known_hosts.write_text(f"bench {kind} {value}\n")
        return self


def qemu_arguments(identity: Identity, port: str, console: Path) -> list[list[str]]:
    """QEMU's command line without the disk. `port` on loopback is forwarded to the guest's SSH."""
    public = identity.client_key.with_suffix(".pub")
    return [
        ["-nodefaults"],
        ["-machine", "type=q35"],
        ["-accel", f"{ACCELERATOR},tb-size={TRANSLATION_CACHE_MIB}"],
        ["-cpu", CPU],
        ["-smp", f"{CPUS},sockets=1,cores={CPUS},threads=1"],
        ["-m", f"{MEMORY_MIB}M"],
        ["-netdev", f"user,id=user.0,hostfwd=tcp:127.0.0.1:{port}-:22"],
        ["-device", "virtio-net-pci,netdev=user.0,romfile="],
        ["-device", "virtio-rng-pci"],
        ["-display", "none"],
        ["-vga", "none"],
        ["-serial", f"file:{console}"],
        ["-fw_cfg", f"name=opt/io.systemd.credentials/ssh.authorized_keys.root,file={public}"],
        ["-fw_cfg", f"name=opt/io.systemd.credentials/bake.ssh_host_ed25519_key,file={identity.host_key}"],
    ]
