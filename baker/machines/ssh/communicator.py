"""The interface to a running machine: run a script, copy files. The implementation uses SSH; the unit tests have a fake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

OnOutput = Callable[[str, Literal["stdout", "stderr"]], None]


@dataclass(frozen=True)
class CommandResult:
    """The result of a command in the guest. `stdout` and `stderr` hold the end of each stream, about 1 MiB at most."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float


class Disconnected(Exception):
    """The connection was lost while a command ran (the guest rebooted, or died)."""


class GuestTimeout(Exception):
    """A command in the guest timed out. It has been ended, unless the connection no longer works."""


class Communicator(Protocol):
    """Access to one machine, as a user who may become root."""

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
        """Run `script` with `shell -e` as `user`; `timeout` in seconds.

        Neither the script nor `env` appears in an argument list, on this host or in the guest. The script is in a file in the guest's
        memory (tmpfs) while it runs. Raises Disconnected, GuestTimeout, and BuildError when the script cannot be started.
        """

    def put(self, data: bytes, destination: str, *, mode: int = 0o644, owner: str = "root", group: str = "root") -> None:
        """Write `data` to the absolute path `destination`, atomically. Missing parent directories are created."""

    def put_tree(self, tar: Path, destination: str) -> None:
        """Unpack an uncompressed tar file below the directory `destination`, with its owners and modes. Creates the directory."""

    def get(self, source: str, destination: Path) -> None:
        """Copy a file from the guest to this host, atomically."""

    def disconnect(self) -> None:
        """Close the connection, if it is open; for example before the guest reboots."""

    def wait(self, timeout: float) -> None:
        """Connect again as soon as the machine answers. Raises BootError after `timeout` seconds, or when the machine stops."""

    def boot_id(self) -> str:
        """The guest's boot id, which changes with every boot."""
