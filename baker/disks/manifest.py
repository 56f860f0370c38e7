"""The file manifest of a disk: every file with its metadata and the digest of its content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from baker.core.model import Disk, FileEntry
from baker.disks.ext4.reader import NotUnmounted
from baker.disks.rootfs import Root, RootFile, open_root


def file_manifest(disk: Disk, *, scratch: Path | None = None, replay: bool = False) -> Iterator[FileEntry]:
    """Yield every file of the root file system and of what /etc/fstab mounts, in the order of path components.

    Memory is constant except for one digest per hard-linked file. UnsupportedFilesystem when bake cannot read the root file
    system. NotUnmounted when a file system was not unmounted, unless `replay` asks to read the changes in its journal.
    """
    with open_root(disk, scratch=scratch, replay=replay) as root:
        if root.needs_recovery:
            raise NotUnmounted()
        digests: dict[tuple[int, int], str] = {}
        for file in root.walk():
            yield manifest_entry(file, _sha256(root, file, digests) if file.inode.is_file else "")


def manifest_entry(file: RootFile, sha256: str) -> FileEntry:
    """The manifest's entry for a file.

    `size` is 0 except for regular files and symbolic links: the size of a directory depends on the file system, not on the image.
    """
    inode = file.inode
    device = inode.device
    return FileEntry(
        path=file.path,
        mode=inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        size=inode.size if inode.is_file or inode.is_link else 0,
        sha256=sha256,
        target=file.tree.target(inode) if inode.is_link else "",
        mtime=inode.mtime,
        xattrs={name: value.hex() for name, value in file.tree.xattrs(inode).items()},
        device=f"{device[0]}:{device[1]}" if device else "",
    )


def _sha256(root: Root, file: RootFile, digests: dict[tuple[int, int], str]) -> str:
    """The digest of a regular file. `digests` remembers those of files with several names."""
    if file.inode.links < 2:
        return root.sha256(file)
    key = (id(file.tree), file.inode.number)
    if key not in digests:
        digests[key] = root.sha256(file)
    return digests[key]
