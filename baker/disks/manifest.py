"""Every file of a disk, with the digest of its content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from baker.core.model import Disk, FileEntry
from baker.disks.ext4.reader import UnsupportedFilesystem
from baker.disks.rootfs import Found, Root, open_root


def file_manifest(disk: Disk, *, scratch: Path | None = None, replay: bool = False) -> Iterator[FileEntry]:
    """Every file of the root file system and of what /etc/fstab mounts, in the order of path components.

    Memory is constant but for one digest per hard-linked file. `size` is 0 but for files and symbolic links: what a directory
    takes up is the file system's business, not the image's. UnsupportedFilesystem when bake cannot read the root file system, or
    it was not unmounted (then what is on the disk is not yet what the guest had) and its journal is not to be read (`replay`).
    """
    with open_root(disk, scratch=scratch, replay=replay) as root:
        if root.needs_recovery:
            raise UnsupportedFilesystem("the file system was not unmounted: its last changes are in its journal only")
        linked: dict[tuple[int, int], str] = {}
        for found in root.walk():
            yield entry_of(found, _sha256(root, found, linked) if found.inode.is_file else "")


def entry_of(found: Found, sha256: str) -> FileEntry:
    """A file as the manifest has it."""
    inode = found.inode
    device = inode.device
    return FileEntry(
        path=found.path,
        mode=inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        size=inode.size if inode.is_file or inode.is_link else 0,
        sha256=sha256,
        target=found.tree.target(inode) if inode.is_link else "",
        mtime=inode.mtime,
        xattrs={name: value.hex() for name, value in found.tree.xattrs(inode).items()},
        device=f"{device[0]}:{device[1]}" if device else "",
    )


def _sha256(root: Root, found: Found, linked: dict[tuple[int, int], str]) -> str:
    if found.inode.links < 2:
        return root.sha256(found)
    key = (id(found.tree), found.inode.number)
    if key not in linked:
        linked[key] = root.sha256(found)
    return linked[key]
