"""Blobs in a directory of this host, by content.

    ROOT/sha256/ab/<64 hex digits>   one read-only file per blob; "ab" are its first two digits
    ROOT/tmp/<name>.data, .lock      a blob on its way in; the lock is held by the live process that writes it

A blob is written to tmp, synced, and renamed to its name: whole or absent, whatever kills the process. The paths that disk
blobs have to each other never change, so a qcow2 blob names its parent relative to itself ("../cd/<64 hex digits>") and the
whole store can be moved.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from baker.core.disk_space import host_error
from baker.core.errors import NotFoundError, UsageError
from baker.core.home import ensure, sync
from baker.core.locks import locked
from baker.core.model import Disk
from baker.disks import qemuimg

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
READ_ONLY = 0o444
CHUNK = 1 << 20


class DirectoryStore:
    """A `BlobStore` in the directory `root`, which is made at the first addition."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    # --- reading -------------------------------------------------------------------------------------------------

    def has(self, digest: str) -> bool:
        return self.place(digest).is_file()

    def path(self, digest: str) -> Path:
        """The blob's own file. NotFoundError when absent."""
        path = self.place(digest)
        if not path.is_file():
            raise NotFoundError(f"the store at {self.root} has no blob {digest}")
        return path

    def open(self, digest: str) -> BinaryIO:
        path = self.path(digest)
        try:
            return path.open("rb")
        except OSError as error:
            raise host_error(error, path) from error

    def size(self, digest: str) -> int:
        return self.path(digest).stat().st_size

    def digests(self) -> Iterator[str]:
        for path in sorted(self.root.glob("sha256/??/*")):
            digest = f"sha256:{path.name}"
            if DIGEST.fullmatch(digest):
                yield digest

    def verify(self, digest: str) -> bool:
        return _digest(self.path(digest)) == digest

    def disk(self, digest: str) -> Disk:
        """A disk blob, which qemu can back an overlay with as it is. Every disk in the store is a qcow2."""
        return qemuimg.as_disk(self.path(digest), "qcow2")

    # --- adding --------------------------------------------------------------------------------------------------

    def add_bytes(self, data: bytes) -> str:
        with self._incoming(len(data)) as path:
            path.write_bytes(data)
            return self._keep(path, "sha256:" + hashlib.sha256(data).hexdigest())

    def add_file(self, path: Path) -> str:
        """Take the file at `path` into the store (renamed on the same file system, else copied and removed). Returns its digest."""
        with self._incoming(_size(path)) as temporary:
            _move(path, temporary)
            return self._keep(temporary, _digest(temporary))

    def add_disk(self, disk: Disk, parent: str | None) -> str:
        """Take `disk` into the store and return its digest; its file is gone from where it was.

        With `parent` (the digest of a disk in the store) it is a qcow2 that is backed by a disk of the parent's content: the
        reference to that is rewritten to the parent's blob. Without, it stands alone: a qcow2 is taken as it is, any other
        format is converted. UsageError when a disk that is said to stand alone does not.
        """
        backing = self.place(parent) if parent else None
        if backing is not None:
            self.path(parent or "")
        self._check(disk, backing)
        with self._incoming(_size(disk.path)) as temporary:
            if disk.format == "qcow2":
                _move(disk.path, temporary)
            else:
                qemuimg.convert(disk, temporary, "qcow2")
                disk.path.unlink()
            if backing is not None:
                temporary.chmod(0o600)
                qemuimg.rebase(temporary, os.path.relpath(backing, backing.parent.parent / "xx"))
            return self._keep(temporary, _digest(temporary))

    def _check(self, disk: Disk, backing: Path | None) -> None:
        found = qemuimg.info(disk.path, disk.format)
        if found.data_file or found.encrypted:
            raise UsageError(f"{disk.path.name} is encrypted or keeps its data in another file: bake cannot keep it")
        if backing is None and found.backing:
            raise UsageError(f"{disk.path.name} is backed by {found.backing}", hint="qemu-img convert -O qcow2 makes one that stands alone")
        if backing is not None and (disk.format != "qcow2" or not found.backing):
            raise UsageError(f"{disk.path.name} is not backed by any disk, so it cannot be a delta on {backing.name}")

    def delete(self, digest: str) -> None:
        try:
            self.place(digest).unlink(missing_ok=True)
        except OSError as error:
            raise host_error(error, self.root) from error

    def place(self, digest: str) -> Path:
        """Where a blob is, or would be."""
        if not DIGEST.fullmatch(digest):
            raise NotFoundError(f"{digest!r} is not a digest", hint='a digest is "sha256:" and 64 hex digits')
        name = digest.removeprefix("sha256:")
        return self.root / "sha256" / name[:2] / name

    def _keep(self, temporary: Path, digest: str) -> str:
        """Give a finished temporary file its name, for good."""
        place = self.place(digest)
        ensure(place.parent)
        temporary.chmod(READ_ONLY)
        if place.exists():
            return digest  # the temporary file goes with its lock
        sync(temporary)
        temporary.rename(place)
        sync(place.parent)
        sync(place.parent.parent)
        return digest

    @contextmanager
    def _incoming(self, needed: int) -> Iterator[Path]:
        """A path for a blob on its way in, under a lock that dies with this process; gone at the end. `needed` bytes, for the error."""
        directory = ensure(self.root / "tmp")
        name = secrets.token_hex(8)
        data, lock_path = directory / f"{name}.data", directory / f"{name}.lock"
        try:
            with locked(lock_path):
                try:
                    yield data
                finally:
                    data.unlink(missing_ok=True)
                    lock_path.unlink(missing_ok=True)
        except OSError as error:
            raise host_error(error, self.root, needed=needed) from error

    # --- cleaning ------------------------------------------------------------------------------------------------

    def clean(self) -> list[Path]:
        """Remove what dead writers left in tmp; returns the files removed. Safe at any time: live writers hold their locks."""
        gone: list[Path] = []
        for data in sorted((self.root / "tmp").glob("*.data")):
            if not data.with_suffix(".lock").exists():  # taken before the data came, removed after it went: its writer is dead
                _remove(data, gone)
        for lock_path in sorted((self.root / "tmp").glob("*.lock")):
            try:
                with locked(lock_path, wait=False) as lock:
                    if lock is not None:
                        _remove(lock_path.with_suffix(".data"), gone)
                        lock_path.unlink(missing_ok=True)
            except OSError as error:
                raise host_error(error, self.root) from error
        return gone


def _remove(path: Path, gone: list[Path]) -> None:
    try:
        path.unlink()
        gone.append(path)
    except FileNotFoundError:
        pass


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise host_error(error, path) from error


def _move(source: Path, destination: Path) -> None:
    """Rename, or copy with holes kept and remove where that is not possible."""
    try:
        source.rename(destination)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with source.open("rb") as original, destination.open("wb") as copy:
            _copy_sparse(original, copy)
        source.unlink()


def _copy_sparse(original: BinaryIO, copy: BinaryIO) -> None:
    end, position = os.fstat(original.fileno()).st_size, 0
    while position < end:
        try:
            position = os.lseek(original.fileno(), position, os.SEEK_DATA)
        except OSError:
            break  # ENXIO: only a hole is left
        hole = os.lseek(original.fileno(), position, os.SEEK_HOLE)
        original.seek(position)
        copy.seek(position)
        while position < hole:
            block = original.read(min(CHUNK, hole - position))
            if not block:
                break
            copy.write(block)
            position += len(block)
    copy.truncate(end)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
