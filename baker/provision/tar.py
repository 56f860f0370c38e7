"""Reproducible tar files of directory trees: entries are sorted and have given owners and modes, so equal content gives equal bytes."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from baker.provision.base import PutTree
from baker.provision.file import plain_mode, walk


def write(path: Path, operation: PutTree, *, group: str, mtime: int | None, top: bool) -> None:
    """Write the tar file (POSIX.1-2001 pax, uncompressed) of `operation` to `path`.

    `mtime` (seconds since the epoch) is the modification time of every entry; None keeps each file's own, in whole seconds. With
    `top`, a directory tree begins with an entry for the destination itself, so that the destination gets the owner and mode of the
    operation. Sockets, devices and pipes are left out. Raises OSError.
    """
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for source, name in _entries(operation, top):
            archive.inodes = {}  # type: ignore[attr-defined]  # forget seen inodes: each hard link becomes a separate file in the guest
            entry = archive.gettarinfo(source, arcname=name)
            if entry is None or not (entry.isreg() or entry.isdir() or entry.issym()):
                continue
            _set_owner(entry, operation.owner, group)
            entry.mode = _mode(entry, source, operation)
            entry.mtime = int(entry.mtime) if mtime is None else mtime
            if entry.isreg():
                with source.open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)


def _entries(operation: PutTree, top: bool) -> Iterator[tuple[Path, str]]:
    """(path on this host, name in the archive) of each entry, parents first."""
    if not operation.source.is_dir():
        yield operation.source, operation.rename or operation.source.name
        return
    if top:
        yield operation.source, "."
    for found in walk(operation.source, operation.exclude):
        yield found, found.relative_to(operation.source).as_posix()


def _set_owner(entry: tarfile.TarInfo, owner: str, group: str) -> None:
    """Set the owner and group, each a name or a number. tar prefers names when it unpacks as root, so a numeric owner gets no name."""
    entry.uid, entry.uname = (int(owner), "") if owner.isdigit() else (0, owner)
    entry.gid, entry.gname = (int(group), "") if group.isdigit() else (0, group)


def _mode(entry: tarfile.TarInfo, source: Path, operation: PutTree) -> int:
    if entry.issym():
        return 0o777
    given = operation.directory_mode if entry.isdir() else operation.mode
    return plain_mode(source) if given is None else given
