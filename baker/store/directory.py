"""A blob store in a directory on this host.

    ROOT/sha256/ab/<64 hex digits>   one read-only file per blob; "ab" are its first two digits
    ROOT/tmp/<name>.data, .lock      a blob that is being added; its writer holds the lock while it lives

A blob is written to tmp, synced, and renamed, so it is complete or absent even if the process is killed. The relative paths between
blobs never change, so a qcow2 blob names its parent relative to itself (`backing_path`), and the whole store can be moved.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from baker.core.disk_space import host_error
from baker.core.errors import NotFoundError, UsageError
from baker.core.home import ensure, sync
from baker.core.locks import locked
from baker.core.model import Disk
from baker.disks import qemuimg
from baker.store.base import DIGEST, backing_path

READ_ONLY = 0o444
CHUNK = 1 << 20


class DirectoryStore:
    """A `BlobStore` in the directory `root`, which is created by the first addition."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    # --- reading -------------------------------------------------------------------------------------------------

    def has(self, digest: str) -> bool:
        return self._place(digest).is_file()

    def path(self, digest: str) -> Path:
        """The path of the blob's file."""
        path = self._place(digest)
        if not path.is_file():
            raise NotFoundError(f"the store at {self.root} has no blob {digest}", code="store.no-such-blob")
        return path

    def open(self, digest: str) -> BinaryIO:
        path = self.path(digest)
        try:
            return path.open("rb")
        except OSError as error:
            raise host_error(error, path) from error

    def size(self, digest: str) -> int:
        return self.path(digest).stat().st_size

    def allocated(self, digest: str) -> int:
        return self.path(digest).stat().st_blocks * 512

    def materialize(self, chain: Sequence[str], virtual_size: int | None = None) -> Disk:
        """The files of the blobs, which refer to each other."""
        top, *_ = [self.path(digest) for digest in chain]
        return qemuimg.as_disk(top, "qcow2") if virtual_size is None else Disk(top, "qcow2", virtual_size)

    def digests(self) -> Iterator[str]:
        for path in sorted(self.root.glob("sha256/??/*")):
            digest = f"sha256:{path.name}"
            if DIGEST.fullmatch(digest):
                yield digest

    def verify(self, digest: str) -> bool:
        return _digest(self.path(digest)) == digest

    # --- adding --------------------------------------------------------------------------------------------------

    def add_bytes(self, data: bytes) -> str:
        with self._incoming(len(data)) as path:
            path.write_bytes(data)
            return self._keep(path, "sha256:" + hashlib.sha256(data).hexdigest())

    def add_file(self, path: Path) -> str:
        """Rename the file; if it is on another file system, copy and remove it."""
        with self._incoming(_size(path)) as temporary:
            _move(path, temporary)
            return self._keep(temporary, _digest(temporary))

    def add_disk(self, disk: Disk, parent: str | None) -> str:
        if parent:
            self.path(parent)
        _check(disk, parent)
        with self._incoming(_size(disk.path)) as temporary:
            if disk.format == "qcow2":
                _move(disk.path, temporary)
            else:
                qemuimg.convert(disk, temporary, "qcow2")
                disk.path.unlink()
            if parent:
                temporary.chmod(0o600)
                qemuimg.rebase(temporary, backing_path(parent))
            return self._keep(temporary, _digest(temporary))

    def delete(self, digest: str) -> None:
        try:
            self._place(digest).unlink(missing_ok=True)
        except OSError as error:
            raise host_error(error, self.root) from error

    def _place(self, digest: str) -> Path:
        """The path at which a blob is or would be. NotFoundError for a malformed digest."""
        if not DIGEST.fullmatch(digest):
            raise NotFoundError(f"{digest!r} is not a digest", hint='a digest is "sha256:" and 64 hex digits', code="store.not-a-digest")
        name = digest.removeprefix("sha256:")
        return self.root / "sha256" / name[:2] / name

    def _keep(self, temporary: Path, digest: str) -> str:
        """Rename a finished temporary file to its digest."""
        place = self._place(digest)
        ensure(place.parent)
        temporary.chmod(READ_ONLY)
        if place.exists():
            return digest  # the temporary file is removed with its lock
        sync(temporary)
        temporary.rename(place)
        sync(place.parent)
        sync(place.parent.parent)
        return digest

    @contextmanager
    def _incoming(self, needed: int) -> Iterator[Path]:
        """A temporary path for a new blob, locked until the end and then removed. `needed`: bytes, for the error about a full disk."""
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

    def clean(self) -> int:
        """Remove files of dead writers from tmp. Live writers hold the locks of their files."""
        gone: list[Path] = []
        for data in sorted((self.root / "tmp").glob("*.data")):
            if not data.with_suffix(".lock").exists():  # a live writer has the lock file as long as the data exists
                _remove(data, gone)
        for lock_path in sorted((self.root / "tmp").glob("*.lock")):
            try:
                with locked(lock_path, wait=False) as lock:
                    if lock is not None:
                        _remove(lock_path.with_suffix(".data"), gone)
                        lock_path.unlink(missing_ok=True)
            except OSError as error:
                raise host_error(error, self.root) from error
        return len(gone)


def _check(disk: Disk, parent: str | None) -> None:
    """Raise UsageError unless the disk is a delta if a parent is given, and complete if none is."""
    found, name = qemuimg.info(disk.path, disk.format), disk.path.name
    if found.data_file or found.encrypted:
        raise UsageError(f"{name} is encrypted or has its data in another file: bake cannot store it", code="store.unsupported-disk")
    if not parent and found.backing:
        raise UsageError(
            f"{name} has the backing file {found.backing}, so it is not complete",
            hint="qemu-img convert -O qcow2 makes a complete copy",
            code="store.disk-incomplete",
        )
    if parent and (disk.format != "qcow2" or not found.backing):
        raise UsageError(f"{name} has no backing file, so it cannot be a delta on {parent}", code="store.not-a-delta")


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
    """Rename a file; if the destination is on another file system, copy it with its holes and remove it."""
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
