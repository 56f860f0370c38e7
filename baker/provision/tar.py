"""Directory trees as tar files that are the same bytes for the same content: sorted, with given owners and modes."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from baker.provision.base import PutTree
from baker.provision.file import plain_mode, walk


def write(path: Path, operation: PutTree, *, group: str, mtime: int | None, top: bool) -> None:
    """Write the tar file (POSIX.1-2001 pax, uncompressed) of `operation` to `path`.

    `mtime` (seconds since the epoch) is for every entry; None: as on this host. `top`: with an entry for the destination itself, so
    that it gets the owner and mode given. Sockets, devices and pipes are left out. Raises OSError.
    """
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for source, name in _entries(operation, top):
            archive.inodes = {}  # type: ignore[attr-defined]  # a hard link here is a file of its own in the guest
            entry = archive.gettarinfo(source, arcname=name)
            if entry is None or not (entry.isreg() or entry.isdir() or entry.issym()):
                continue
            _own(entry, operation.owner, group)
            entry.mode = _mode(entry, source, operation)
            entry.mtime = int(entry.mtime) if mtime is None else mtime
            if entry.isreg():
                with source.open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)


def _entries(operation: PutTree, top: bool) -> Iterator[tuple[Path, str]]:
    if not operation.source.is_dir():
        yield operation.source, operation.rename or operation.source.name
        return
    if top:
        yield operation.source, "."
    for found in walk(operation.source, operation.exclude):
        yield found, found.relative_to(operation.source).as_posix()


def _own(entry: tarfile.TarInfo, owner: str, group: str) -> None:
    """Names win over numbers when tar unpacks as root; a numeric owner therefore has no name."""
    entry.uid, entry.uname = (int(owner), "") if owner.isdigit() else (0, owner)
    entry.gid, entry.gname = (int(group), "") if group.isdigit() else (0, group)


def _mode(entry: tarfile.TarInfo, source: Path, operation: PutTree) -> int:
    if entry.issym():
        return 0o777
    given = operation.directory_mode if entry.isdir() else operation.mode
    return plain_mode(source) if given is None else given
