"""Names in an ext2, ext3 or ext4 file system: directories, paths, symbolic links, extended attributes, inline data.

Format: the Linux kernel's Documentation/filesystems/ext4, sections 4.4 "Directory Entries", 4.5 "Extended Attributes" and 4.3.2
"Inline Data". A directory with a hash tree is read as a linear one, since it is compatible with that format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from baker.disks.ext4.reader import EXTENTS_FLAG, FILETYPE, INLINE_FLAG, ROOT_INODE, DamagedFilesystem, Ext4, Inode

XATTR_MAGIC = 0xEA020000
XATTR_ENTRY = struct.Struct("<BBHIII")
PREFIXES = {
    1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security.", 7: "system.",
    8: "system.richacl",
}  # fmt: skip
ACLS = ("system.posix_acl_access", "system.posix_acl_default")
INLINE_ATTRIBUTE = "system.data"  # the attribute that holds the inline data that does not fit i_block
INLINE_SIZE = 60
MAX_LINKS_FOLLOWED = 40  # symbolic links followed in one path, as Linux does
MAX_LINK_BYTES = 65536


class Tree:
    """The files of one file system, by path. Paths are text; bytes that are not UTF-8 become surrogate escapes."""

    def __init__(self, filesystem: Ext4) -> None:
        self.fs = filesystem

    @property
    def root(self) -> Inode:
        return self.fs.inode(ROOT_INODE)

    def data(self, inode: Inode) -> Iterator[bytes]:
        """Yield a file's content in pieces of at most 1 MiB."""
        if inode.flags & INLINE_FLAG:
            yield self._inline(inode)[: inode.size]
        else:
            yield from self.fs.data(inode)

    def target(self, inode: Inode) -> str:
        """The target of a symbolic link."""
        if inode.size > MAX_LINK_BYTES:
            raise DamagedFilesystem(f"the symbolic link in inode {inode.number} is too long")
        short = inode.size < INLINE_SIZE and not inode.flags & (INLINE_FLAG | EXTENTS_FLAG)
        return _text(inode.block[: inode.size] if short else b"".join(self.data(inode)))

    def entries(self, inode: Inode) -> dict[str, int]:
        """The names in a directory with their inode numbers, without "." and ".."."""
        entries: dict[str, int] = {}
        if inode.flags & INLINE_FLAG:
            data = self._inline(inode)
            self._parse(data[4:INLINE_SIZE], entries)
            self._parse(data[INLINE_SIZE:], entries)
            return entries
        data = b"".join(self.fs.data(inode))
        for start in range(0, len(data), self.fs.block_size):
            self._parse(data[start : start + self.fs.block_size], entries)
        return entries

    def _parse(self, block: bytes, entries: dict[str, int]) -> None:
        """Add the entries of one block of a directory to `entries`."""
        position, typed = 0, bool(self.fs.incompat & FILETYPE)
        while position + 8 <= len(block):
            number, length, name_length = struct.unpack_from("<IHH", block, position)
            if typed:
                name_length &= 0xFF
            if length in (0, 65535) and len(block) == 65536:
                length = 65536 - position
            if length < 8 or position + length > len(block):
                raise DamagedFilesystem("a directory has an invalid entry")
            name = block[position + 8 : position + 8 + name_length]
            if number and name not in (b".", b".."):
                entries[_text(name)] = number
            position += length

    # --- extended attributes -------------------------------------------------------------------------------------

    def xattrs(self, inode: Inode) -> dict[str, bytes]:
        """The extended attributes as getxattr(2) returns them, with access control lists in their portable form; sorted by name."""
        attributes = self._attributes(inode)
        attributes.pop(INLINE_ATTRIBUTE, None)
        for name in ACLS:
            if name in attributes:
                attributes[name] = _portable_acl(attributes[name])
        return dict(sorted(attributes.items()))

    def _attributes(self, inode: Inode) -> dict[str, bytes]:
        return {PREFIXES.get(index, f"unknown{index}.") + _text(suffix): value for index, suffix, value in self.stored_xattrs(inode)}

    def stored_xattrs(self, inode: Inode) -> list[tuple[int, bytes, bytes]]:
        """The extended attributes as ext4 stores them: (number of the name's prefix, rest of the name, value)."""
        attributes: list[tuple[int, bytes, bytes]] = []
        if len(inode.extra) >= 8:
            (size,) = struct.unpack_from("<H", inode.extra)
            area = inode.extra[size:]
            if len(area) >= 8 and struct.unpack_from("<I", area)[0] == XATTR_MAGIC:
                self._read_attributes(area[4:], 0, attributes)
        if inode.xattr_block:
            block = self.fs.read_block(inode.xattr_block)
            if struct.unpack_from("<I", block)[0] != XATTR_MAGIC:
                raise DamagedFilesystem(f"the attribute block of inode {inode.number} is invalid")
            self._read_attributes(block, 32, attributes)
        return attributes

    def _read_attributes(self, area: bytes, position: int, attributes: list[tuple[int, bytes, bytes]]) -> None:
        """Add the attributes whose entries begin at `position` of `area`. Offsets of values count from the start of `area`."""
        while position + 4 <= len(area) and area[position : position + 4] != bytes(4):
            length, index, offset, holder, size, _ = XATTR_ENTRY.unpack_from(area, position)
            suffix = area[position + 16 : position + 16 + length]
            elsewhere = b"".join(self.fs.data(self.fs.inode(holder))) if holder else b""
            attributes.append((index, suffix, elsewhere[:size] if holder else area[offset : offset + size]))
            position += (16 + length + 3) & ~3

    def _inline(self, inode: Inode) -> bytes:
        """The content of a file that is stored in its inode."""
        return inode.block + self._attributes(inode).get(INLINE_ATTRIBUTE, b"")

    # --- paths ---------------------------------------------------------------------------------------------------

    def lookup(self, path: str, *, follow: bool = True) -> Inode | None:
        """The inode at an absolute path; None when there is none. Symbolic links are resolved inside this file system.

        Without `follow`, a symbolic link at the end of the path is returned itself.
        """
        pending = [part for part in reversed(path.split("/")) if part]
        trail = [self.root]
        links = 0
        while pending:
            name = pending.pop()
            if name == ".":
                continue
            if name == "..":
                del trail[1 if len(trail) == 1 else -1 :]
                continue
            number = self.entries(trail[-1]).get(name) if trail[-1].is_dir else None
            if number is None:
                return None
            inode = self.fs.inode(number)
            if inode.is_link and (pending or follow):
                links += 1
                if links > MAX_LINKS_FOLLOWED:
                    return None
                target = self.target(inode)
                if target.startswith("/"):
                    del trail[1:]
                pending += [part for part in reversed(target.split("/")) if part]
                continue
            trail.append(inode)
        return trail[-1]

    def read(self, path: str, *, limit: int = 64 << 20) -> bytes | None:
        """The content of the file at `path`, at most `limit` bytes of it; None when there is no regular file."""
        inode = self.lookup(path)
        if inode is None or not inode.is_file:
            return None
        data = bytearray()
        for piece in self.data(inode):
            data += piece
            if len(data) >= limit:
                break
        return bytes(data[:limit])

    def listing(self, path: str) -> dict[str, int]:
        """The entries of the directory at `path`, see `entries`; empty when there is no directory."""
        inode = self.lookup(path)
        return self.entries(inode) if inode is not None and inode.is_dir else {}


def _portable_acl(raw: bytes) -> bytes:
    """Convert an access control list from ext4's short form (version 1) to that of getxattr(2) (version 2, linux/posix_acl_xattr.h)."""
    if len(raw) < 4 or struct.unpack_from("<I", raw)[0] != 1:
        return raw
    parts, position = [struct.pack("<I", 2)], 4
    while position + 4 <= len(raw):
        tag, permissions = struct.unpack_from("<HH", raw, position)
        position += 4
        identity = 0xFFFFFFFF
        if tag in (0x02, 0x08):  # ACL_USER and ACL_GROUP carry an id, the others do not
            (identity,) = struct.unpack_from("<I", raw, position)
            position += 4
        parts.append(struct.pack("<HHI", tag, permissions, identity))
    return b"".join(parts)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
