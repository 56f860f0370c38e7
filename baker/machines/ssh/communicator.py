"""The seam to a running machine: run, put, get. The real one is SSH; the unit tests have a fake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

OnOutput = Callable[[str, Literal["stdout", "stderr"]], None]


@dataclass(frozen=True)
class CommandResult:
    """What a finished command in the guest left: its exit code and the last lines of each stream (all, up to 1 MiB)."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float


class Disconnected(Exception):
    """The connection was lost while a command ran (the guest rebooted, or died)."""


class GuestTimeout(Exception):
    """A command in the guest did not end in time; it has been ended as far as the connection allows."""


class Communicator(Protocol):
    """A way into one machine, as one user who may become root."""

    @property
    def ssh_config(self) -> Path:
        """An OpenSSH client configuration that serves ssh, sftp, ansible and testinfra over the one shared connection."""

    @property
    def host(self) -> str:
        """The machine's alias in `ssh_config`."""

    def run(
        self,
        script: str,
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        shell: str = "/bin/sh",
        timeout: float | None = None,
        on_output: OnOutput | None = None,
        cwd: str | None = None,
    ) -> CommandResult:
        """Run `script` with `shell -e`. Neither the script nor `env` ever stands in an argument list, here or in the guest, and
        what is written of them in the guest is in memory only and removed. Raises Disconnected, GuestTimeout."""

    def put(self, data: bytes, destination: str, *, mode: int = 0o644, owner: str = "root", group: str = "root") -> None:
        """Write `data` to the absolute path `destination`, atomically; missing parent directories are made."""

    def put_tree(self, tar: Path, destination: str) -> None:
        """Unpack an uncompressed tar file (owners and modes as it says) below the directory `destination`, made if missing."""

    def get(self, source: str, destination: Path) -> None:
        """Copy a file of the guest to this host."""

    def disconnect(self) -> None:
        """Let go of the connection (the guest reboots)."""

    def wait(self, timeout: float) -> None:
        """Connect (again) as soon as the machine answers. Raises BootError after `timeout` seconds or when it has stopped."""

    def boot_id(self) -> str:
        """The guest's boot id: another one after a reboot."""
