"""QEMU without libvirt, to test that a disk boots by itself."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.until import until

OVMF_CODE, OVMF_VARS = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
BOOT_SECONDS = 420


@dataclass(frozen=True)
class Guest:
    """A running machine. `ssh` trusts `known_hosts` only, and nobody on first use unless that is empty."""

    process: subprocess.Popen[bytes]
    console: Path
    port: int
    key: Path
    known_hosts: Path

    def wait_for_console(self, words: str) -> None:
        """Until the guest wrote `words` to its serial console."""
        self._wait(lambda: words in self.console.read_text(errors="replace"), words)

    def wait_for_ssh(self) -> None:
        """Until a login works. A try may take long: a slow sshd counts those that hang up early as attackers."""
        self._wait(lambda: self.ssh("true", check=False).returncode == 0, "SSH")

    def ssh(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the guest as root."""
        options = {
            "UserKnownHostsFile": self.known_hosts, "StrictHostKeyChecking": "yes" if self.known_hosts.exists() else "accept-new",
            "ConnectTimeout": 60, "BatchMode": "yes", "IdentitiesOnly": "yes", "LogLevel": "ERROR",
        }  # fmt: skip
        flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        argv = ["ssh", "-F", "none", *flags, "-i", str(self.key), "-p", str(self.port), "root@127.0.0.1", command]
        return subprocess.run(argv, capture_output=True, text=True, check=check, timeout=300)

    def _wait(self, reached: Callable[[], bool], what: str) -> None:
        def tail() -> str:
            return self.console.read_text(errors="replace")[-2000:]

        def reached_while_it_runs() -> bool:
            if reached():
                return True
            assert self.process.poll() is None, f"QEMU ended before {what}\n{tail()}"
            return False

        until(reached_while_it_runs, BOOT_SECONDS, lambda: f"{what}\n{tail()}", pause=1)


@contextmanager
def booted(disk: Path, scratch: Path, *, firmware: str, size: str, credentials: dict[str, Path], known_hosts: Path) -> Iterator[Guest]:
    """Boot an overlay of `size` on the qcow2 `disk`; `credentials` are systemd's, by name, each from a file."""
    overlay, console = scratch / "overlay.qcow2", scratch / "console.log"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disk, overlay, size], check=True)
    console.touch()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [
        "qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-smp", "2", "-m", "768", "-display", "none", "-nodefaults",
        "-drive", f"file={overlay},if=virtio,format=qcow2,cache=unsafe",
        "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22", "-device", "virtio-net-pci,netdev=net",
        "-device", "virtio-rng-pci", "-serial", f"file:{console}",
    ]  # fmt: skip
    for name, path in credentials.items():
        argv += ["-fw_cfg", f"name=opt/io.systemd.credentials/{name},file={path}"]
    if firmware == "uefi":
        variables = scratch / "vars.fd"
        variables.write_bytes(OVMF_VARS.read_bytes())
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF_CODE}", "-drive", f"if=pflash,format=raw,file={variables}"]
    process = subprocess.Popen(argv)
    try:
        yield Guest(process, console, port, scratch / "client", known_hosts)
    finally:
        process.kill()
        process.wait()
        overlay.unlink()
