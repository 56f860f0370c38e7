"""Write a file tree as a tar archive in the pax format (POSIX.1-2017, pax), which GNU tar, bsdtar and container tools read.

Owners are numeric. Extended attributes are `SCHILY.xattr.NAME` records, as GNU tar writes them with --xattrs. Sockets are left out because
tar has no entry type for them.
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from baker.disks.ext4.reader import Inode
from baker.disks.rootfs import Root, RootFile

BLOCK = tarfile.BLOCKSIZE
LONGEST_NAME = 100  # bytes: the limits of the fields of a ustar header
LARGEST_ID = 0o7777777
LARGEST_SIZE = 0o77777777777  # also the largest time
TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def write_tar(root: Root, file: BinaryIO) -> Iterator[int]:
    """Write every file of `root` to `file`. Yields the number of files so far after each one."""
    first_names: dict[tuple[int, int], str] = {}
    for count, found in enumerate(root.walk(), start=1):
        kind = TYPES.get(stat.S_IFMT(found.inode.mode))
        if kind is not None:
            _write(found, kind, first_names, file)
        yield count
    file.write(bytes(2 * BLOCK))


def _write(found: RootFile, kind: bytes, first_names: dict[tuple[int, int], str], file: BinaryIO) -> None:
    inode, name = found.inode, _name(found.path, found.inode)
    link = ""
    if inode.is_link:
        link = found.tree.target(inode)
    elif inode.links > 1 and not inode.is_dir:
        link = first_names.setdefault((id(found.tree), inode.number), name)
        kind, link = (tarfile.LNKTYPE, link) if link != name else (kind, "")
    file.write(_header(name, link, kind, inode, found.tree.xattrs(inode) if kind != tarfile.LNKTYPE else {}))
    if kind == tarfile.REGTYPE:
        for piece in found.tree.data(inode):
            file.write(piece)
        file.write(bytes(-inode.size % BLOCK))


def _name(path: str, inode: Inode) -> str:
    return "." + path.rstrip("/") + ("/" if inode.is_dir else "")


def _header(name: str, link: str, kind: bytes, inode: Inode, xattrs: dict[str, bytes]) -> bytes:
    """The ustar header of a file, preceded by a pax header for the values that do not fit into it."""
    size = inode.size if kind == tarfile.REGTYPE else 0
    more = {f"SCHILY.xattr.{key}": value for key, value in xattrs.items()}
    raw_name, raw_link = name.encode("utf-8", "surrogateescape"), link.encode("utf-8", "surrogateescape")
    for key, value in (("path", raw_name), ("linkpath", raw_link)):
        if len(value) > LONGEST_NAME or not value.isascii():
            more[key] = value
    for key, number, largest in (("uid", inode.uid, LARGEST_ID), ("gid", inode.gid, LARGEST_ID), ("size", size, LARGEST_SIZE)):
        if number > largest:
            more[key] = str(number).encode()
    if not 0 <= inode.mtime <= LARGEST_SIZE:
        more["mtime"] = str(inode.mtime).encode()
    info = tarfile.TarInfo(_fitting(raw_name))
    info.type, info.linkname, info.mode, info.size = kind, _fitting(raw_link), inode.mode & 0o7777, size if size <= LARGEST_SIZE else 0
    info.uid, info.gid = (number if number <= LARGEST_ID else 0 for number in (inode.uid, inode.gid))
    info.mtime = inode.mtime if "mtime" not in more else 0
    if inode.device:
        info.devmajor, info.devminor = inode.device
    return (_pax(more) if more else b"") + info.tobuf(tarfile.USTAR_FORMAT)


def _pax(records: dict[str, bytes]) -> bytes:
    """A pax extended header: records "LENGTH KEY=VALUE\\n", where LENGTH includes its own digits."""
    body = b"".join(_record(key.encode("utf-8", "surrogateescape"), value) for key, value in records.items())
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size, info.mode = tarfile.XHDTYPE, len(body), 0o644
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    bare = len(key) + len(value) + 3
    length = bare + len(str(bare))
    length = bare + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _fitting(raw: bytes) -> str:
    """The name for readers without pax support: the last LONGEST_NAME characters, with a question mark for each byte outside ASCII."""
    text = raw.decode("ascii", "replace").replace("\ufffd", "?")
    return text[-LONGEST_NAME:]
