"""Where bake keeps things: XDG directories, or one directory when `BAKE_HOME` is set."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from baker.core.errors import HostError

# A UNIX socket path holds 108 bytes on Linux (unix(7)); libvirt adds about 60 below its root.
LONGEST_RUNTIME_ROOT = 40

PACKAGE = Path(__file__).resolve().parent.parent  # the directory `baker`, for child processes that import it


@dataclass(frozen=True)
class Home:
    """The directories of one user. None exists before it is needed: `ensure` makes one, private to the user."""

    data: Path  # catalog.sqlite, blobs/: what must not be lost
    cache: Path  # downloads/, bootstraps/, probes: may be deleted at any time
    state: Path  # ledger/, builds/<build id>/: work in progress and logs of failed builds
    runtime: Path  # sockets and libvirt roots: a short path, gone after a reboot
    config: Path

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Home:
        """The directories that `env` names; the XDG Base Directory Specification's defaults where it does not."""
        home = Path(env.get("HOME") or "~").expanduser()
        if env.get("BAKE_HOME"):
            base = Path(env["BAKE_HOME"]).expanduser().absolute()
            data, cache, state, config = (base / part for part in ("data", "cache", "state", "config"))
        else:
            data = Path(env.get("XDG_DATA_HOME") or home / ".local/share") / "bake"
            cache = Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "bake"
            state = Path(env.get("XDG_STATE_HOME") or home / ".local/state") / "bake"
            config = Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "bake"
        return cls(data=data, cache=cache, state=state, runtime=_runtime(state), config=config)

    @property
    def catalog(self) -> Path:
        return self.data / "catalog.sqlite"

    @property
    def blobs(self) -> Path:
        return self.data / "blobs"

    @property
    def layers(self) -> Path:
        return self.cache / "layers"

    @property
    def ledger(self) -> Path:
        return self.state / "ledger"

    def work(self, build_id: str) -> Path:
        """The scratch directory of one build, deleted at its end."""
        return self.state / "builds" / build_id

    def libvirt_root(self, build_id: str) -> Path:
        return self.runtime / build_id[:12]


def _runtime(state: Path) -> Path:
    """A short directory for sockets, one per user and state directory, the same in every process."""
    import tempfile  # it takes longer to load than all the rest here

    tag = hashlib.sha256(str(state).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir() if len(tempfile.gettempdir()) < 16 else "/tmp") / f"bake-{os.getuid()}-{tag}"


def ensure(directory: Path) -> Path:
    """Make `directory` (mode 0700 where new) and return it; HostError when that cannot be or it belongs to another user."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = directory.stat()
    except OSError as error:
        hint = "set BAKE_HOME to a directory that you may write to"
        raise HostError(f"cannot make {directory}: {error.strerror}", hint=hint, code="host.not-writable") from error
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise HostError(f"{directory} is not a directory that belongs to you", code="host.foreign-directory")
    return directory


def check_writable(directory: Path) -> None:
    """HostError when no file can be made in `directory` (made if missing): better said before a build than at its end."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=ensure(directory)):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        hint = "make it writable, or set BAKE_HOME to a directory that is"
        raise HostError(f"cannot write to {directory}: {reason}", hint=hint, code="host.not-writable") from error


def sync(path: Path) -> None:
    """A file's bytes, or a directory's names, are on the disk when this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
