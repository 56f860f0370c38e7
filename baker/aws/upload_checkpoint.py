"""The progress of an upload, on disk, so that it can be resumed after a kill.

    DIRECTORY/upload.json    the State of the upload
    DIRECTORY/blocks         one record per block that AWS has acknowledged: its number and the SHA-256 of its bytes

A resumed upload reads and hashes all blocks again. A block is sent again if its record is missing or damaged, or if its bytes have changed.
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
    """An upload. It is resumed only for an equal `ticket`, which has the digest of the disk, account, region, name, boot mode and key."""

    ticket: dict[str, str]
    run: str  # the ID in the ledger and in the tags of the resources
    attempt: int = 0
    base: str = ""  # the snapshot whose difference to the disk is sent; "": all blocks are sent
    target: str = ""  # the new snapshot; "" before it is known
    more: dict[str, str] = field(default_factory=dict)


class UploadCheckpoint:
    """The state and the records of one upload. One process uses it at a time; its threads may call `acknowledge` concurrently."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._handle: int | None = None
        self._lock = threading.Lock()

    def load(self) -> State | None:
        """The state of an unfinished upload, or None when there is no readable one."""
        try:
            found = json.loads((self.directory / "upload.json").read_text())
            return State(**{name: found[name] for name in {f.name for f in fields(State)} & found.keys()})
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def save(self, state: State) -> None:
        """Write the state durably: it survives a crash of the host."""
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
        """Begin a new upload, without any acknowledged block."""
        self.close()
        (self.directory / "blocks").unlink(missing_ok=True)
        self.save(state)

    def acknowledged(self) -> dict[int, bytes]:
        """Block number -> SHA-256 of the bytes that AWS has."""
        try:
            data = (self.directory / "blocks").read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise host_error(error, self.directory / "blocks") from error
        whole = len(data) - len(data) % RECORD.size
        return dict(RECORD.iter_unpack(data[:whole]))

    def acknowledge(self, index: int, digest: bytes) -> None:
        """Record that AWS has this block. Each record is a single write, so a killed process leaves complete records."""
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
        """Remove all files: the upload has ended or was given up."""
        self.close()
        for name in ("upload.json", "upload.part", "blocks"):
            (self.directory / name).unlink(missing_ok=True)
        if self.directory.is_dir():
            self.directory.rmdir()


def _open_whole(path: Path) -> int:
    """Open the file of records for appending, without an incomplete last record."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.ftruncate(handle, os.fstat(handle).st_size // RECORD.size * RECORD.size)
    return handle
