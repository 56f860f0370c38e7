"""How far an upload in blocks has come, on disk, so that a killed one is gone on with.

    DIRECTORY/upload.json    what is uploaded, where to, and as what
    DIRECTORY/blocks         one record per block that the other side has acknowledged: its number and the SHA-256 of its bytes

The bytes are read and hashed again when an upload goes on: a record that is damaged, or of other bytes, means that the block is sent again.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from baker.core.disk_space import host_error
from baker.core.home import ensure, sync

RECORD = struct.Struct("<Q32s")


@dataclass(frozen=True)
class State:
    """An upload. It is gone on with only where `ticket` is the same: digest of the disk, account, region, key, name."""

    ticket: dict[str, str]
    run: str  # the id in the ledger and in the tags of what was made
    attempt: int = 0
    base: str = ""  # the snapshot that only the difference to is sent; "": everything is sent
    target: str = ""  # the snapshot; "" before it is known
    more: dict[str, str] = field(default_factory=dict)


class UploadCheckpoint:
    """One upload's records. Used by one process at a time; `acknowledge` by its many threads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._handle: int | None = None
        self._lock = threading.Lock()

    def load(self) -> State | None:
        """The state of an upload that did not end; None where there is none that can be read."""
        try:
            found = json.loads((self.directory / "upload.json").read_text())
            return State(**{name: found[name] for name in {f.name for f in fields(State)} & found.keys()})
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def save(self, state: State) -> None:
        """Keep the state, whatever happens to this host from now on."""
        path, part = self.directory / "upload.json", self.directory / "upload.part"
        try:
            ensure(self.directory)
            part.write_text(json.dumps(asdict(state)))
            sync(part)
            part.replace(path)
            sync(self.directory)
        except OSError as error:
            raise host_error(error, path) from error

    def begin(self, state: State) -> None:
        """A new upload: nothing of it is acknowledged."""
        self.close()
        (self.directory / "blocks").unlink(missing_ok=True)
        self.save(state)

    def acknowledged(self) -> dict[int, bytes]:
        """Block number -> SHA-256 of what the other side has."""
        try:
            data = (self.directory / "blocks").read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise host_error(error, self.directory / "blocks") from error
        whole = len(data) - len(data) % RECORD.size
        return dict(RECORD.iter_unpack(data[:whole]))

    def acknowledge(self, index: int, digest: bytes) -> None:
        """The other side has this block. One write: a killed process leaves whole records."""
        path = self.directory / "blocks"
        try:
            with self._lock:
                if self._handle is None:
                    self._handle = _open_whole(path)
            os.write(self._handle, RECORD.pack(index, digest))
        except OSError as error:
            raise host_error(error, path) from error

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def forget(self) -> None:
        """The upload has ended, one way or the other."""
        self.close()
        for name in ("upload.json", "upload.part", "blocks"):
            (self.directory / name).unlink(missing_ok=True)
        if self.directory.is_dir():
            self.directory.rmdir()


def _open_whole(path: Path) -> int:
    """The file of records, open for more of them, without a last one that is cut off."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.ftruncate(handle, os.fstat(handle).st_size // RECORD.size * RECORD.size)
    return handle
