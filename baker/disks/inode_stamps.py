"""What tells that an inode was changed, read from the inode tables alone: names and content are not looked at.

Whoever writes to a file, or renames, links or removes it, changes its inode: times have nanoseconds, and a new file in an old inode has
another generation (Documentation/filesystems/ext4, section 4.2 "Index Nodes").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from baker.core.model import Disk
from baker.disks.ext4.journal import replayed
from baker.disks.ext4.reader import Ext4, UnsupportedFilesystem
from baker.disks.partitions import filesystem, partitions
from baker.disks.raw import RawReader, open_raw
from baker.disks.rootfs import whole

BLOCK = 4096  # bytes of a table that are compared at once
INDEX_ONLY = 128  # bytes of an inode that has no nanoseconds

Key = tuple[int, int]  # (where the file system begins on the disk, number of the inode)


@dataclass(frozen=True)
class Table:
    """The inodes of one block group that were ever used."""

    first: int
    size: int  # bytes of an inode
    data: bytes

    def __getitem__(self, index: int) -> bytes:
        """The stamp of an inode; of one that was never used that of a free one."""
        raw = self.data[index * self.size : (index + 1) * self.size]
        return stamp(raw) if raw else FREE


Stamps = Mapping[tuple[int, int], Table]  # (begin of the file system, group) -> its table


def stamp(raw: bytes) -> bytes:
    """Mode, owner, size, ctime, mtime, links, generation, attribute block of an inode; what is read (atime) does not count. A free
    inode is like any other free one."""
    if not int.from_bytes(raw[26:28], "little"):  # i_links_count
        return FREE
    return (
        raw[0:8] + raw[12:20] + raw[24:28] + raw[0x64:0x70] + raw[0x76:0x7C]  # the last: i_file_acl_high, uid and gid, high halves
        + (raw[0x84:0x8C] if len(raw) > INDEX_ONLY else b"")  # nanoseconds of ctime and mtime
    )  # fmt: skip


FREE = b""


def generation(stamped: bytes) -> bytes:
    """What two files that had one inode after the other differ in."""
    return stamped[20:24]


def read_stamps(disk: Disk) -> Stamps:
    """The stamps of every ext file system of a disk, which may be that of a machine that stands still. UnsupportedFilesystem."""
    with open_raw(disk) as reader, whole():
        return stamps_of(reader)


def stamps_of(reader: RawReader) -> Stamps:
    found = {}
    for part in partitions(reader):
        if filesystem(reader, part) == "ext4":
            fs = replayed(reader, part.start)
            for group in range(fs.groups):
                first, data = fs.inode_table(group)
                if data:
                    found[part.start, group] = Table(first, fs.inode_size, data)
    if not found:
        raise UnsupportedFilesystem("there is no ext2, ext3 or ext4 file system")
    return found


def differing(before: Stamps, after: Stamps) -> Iterator[tuple[Key, bytes, bytes]]:
    """(inode, stamp before, stamp after) of every inode that was changed, made or freed between the two."""
    for place in before.keys() | after.keys():
        old, new = before.get(place), after.get(place)
        known = new or old
        assert known is not None
        old, new = old or Table(known.first, known.size, b""), new or Table(known.first, known.size, b"")
        step = max(1, BLOCK // known.size)
        for index in range(0, max(len(old.data), len(new.data)) // known.size, step):
            start, stop = index * known.size, (index + step) * known.size
            if old.data[start:stop] == new.data[start:stop]:
                continue
            for each in range(index, index + step):
                if (left := old[each]) != (right := new[each]):
                    yield (place[0], known.first + each), left, right


def find(stamps: Stamps, fs: Ext4, number: int) -> bytes:
    """The stamp of one inode of `fs`."""
    group, index = divmod(number - 1, fs.inodes_per_group)
    table = stamps.get((fs.start, group))
    return table[index] if table else FREE
