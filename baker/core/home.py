"""The directories of bake: XDG directories, or those below one directory when `BAKE_HOME` is set."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from baker.core.errors import HostError

PACKAGE = Path(__file__).resolve().parent.parent  # the directory `baker`, for child processes that import it


@dataclass(frozen=True)
class Home:
    """The directories of one user. Each is created by `ensure` when it is first needed, private to the user."""

    data: Path  # catalog.sqlite, blobs/: must not be lost
    cache: Path  # downloads/, bootstraps/, layers/, probes: may be deleted while no build runs
    state: Path  # ledger/, builds/<build id>/, crashes/: work in progress and crash reports
    runtime: Path  # sockets and libvirt roots: a short path below the directory for temporary files
    config: Path

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Home:
        """The directories that `env` names, else the defaults of the XDG Base Directory Specification."""
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
        """The scratch directory of one build, removed at its end."""
        return self.state / "builds" / build_id

    def libvirt_root(self, build_id: str) -> Path:
        return self.runtime / build_id[:12]


def _runtime(state: Path) -> Path:
    """A short path for sockets, one per user and state directory, the same in every process."""
    import tempfile  # here because it takes longer to load than everything else in this module

    tag = hashlib.sha256(str(state).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir() if len(tempfile.gettempdir()) < 16 else "/tmp") / f"bake-{os.getuid()}-{tag}"


def ensure(directory: Path) -> Path:
    """Create `directory` (mode 0700 if new) and return it. HostError when that fails or it belongs to another user."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = directory.stat()
    except OSError as error:
        hint = "set BAKE_HOME to a directory that you may write to"
        raise HostError(f"cannot create {directory}: {error.strerror}", hint=hint, code="host.not-writable") from error
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise HostError(f"{directory} is not a directory that belongs to you", code="host.foreign-directory")
    return directory


def check_writable(directory: Path) -> None:
    """Raise HostError when no file can be created in `directory`, which is created if missing. Called before a build, not at its end."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=ensure(directory)):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        hint = "make it writable, or set BAKE_HOME to a directory that is"
        raise HostError(f"cannot write to {directory}: {reason}", hint=hint, code="host.not-writable") from error


def sync(path: Path) -> None:
    """Write a file's content, or a directory's entries, to the disk: fsync(2)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
