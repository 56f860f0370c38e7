"""Inode tables of ext file systems, read and compared to find the inodes that changed between two moments.

Writing to a file, renaming, linking or removing it changes its inode: its times have nanoseconds, and a new file that reuses an
inode has another generation (Documentation/filesystems/ext4, section 4.2 "Index Nodes"). Names and content are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from baker.core.model import Disk
from baker.disks.ext4.journal import open_replayed
from baker.disks.ext4.reader import Ext4, UnsupportedFilesystem
from baker.disks.partitions import filesystem, partitions
from baker.disks.raw import RawReader, open_raw
from baker.disks.rootfs import damage_as_error

COMPARED_BYTES = 4096  # of two tables, compared at once before single inodes are
OLD_INODE_SIZE = 128  # bytes of an inode without nanoseconds
FREE_INODE = b""  # the fingerprint of every inode that is not in use

Key = tuple[int, int]  # (offset of the file system on the disk in bytes, inode number)


@dataclass(frozen=True)
class InodeTable:
    """The inodes of one block group, without those at its end that were never used."""

    first: int  # inode number of the first one
    inode_size: int  # in bytes
    data: bytes

    def __getitem__(self, index: int) -> bytes:
        """The fingerprint of an inode; FREE_INODE after the end of the table."""
        raw = self.data[index * self.inode_size : (index + 1) * self.inode_size]
        return inode_fingerprint(raw) if raw else FREE_INODE


InodeTables = Mapping[tuple[int, int], InodeTable]  # (offset of the file system in bytes, block group) -> its table


def inode_fingerprint(raw: bytes) -> bytes:
    """Mode, owner, size, ctime, mtime, link count, generation and attribute block of an inode; FREE_INODE without links.

    The access time is left out, since reading a file changes it.
    """
    if not int.from_bytes(raw[26:28], "little"):  # i_links_count
        return FREE_INODE
    return (
        raw[0:8] + raw[12:20] + raw[24:28] + raw[0x64:0x70] + raw[0x76:0x7C]  # the last: i_file_acl_high, uid and gid, high halves
        + (raw[0x84:0x8C] if len(raw) > OLD_INODE_SIZE else b"")  # nanoseconds of ctime and mtime
    )  # fmt: skip


def generation(fingerprint: bytes) -> bytes:
    """The inode's generation (4 bytes), in which two files that used the same inode one after the other differ."""
    return fingerprint[20:24]


def read_inode_tables(disk: Disk) -> InodeTables:
    """Read the inode tables of every ext file system of a disk, journals included.

    The disk may be in use by a paused machine. UnsupportedFilesystem when there is no ext file system, or one cannot be read.
    """
    with open_raw(disk) as reader, damage_as_error():
        return _inode_tables(reader)


def _inode_tables(reader: RawReader) -> InodeTables:
    tables = {}
    for part in partitions(reader):
        if filesystem(reader, part) == "ext4":
            fs = open_replayed(reader, part.start)
            for group in range(fs.groups):
                first, data = fs.inode_table(group)
                if data:
                    tables[part.start, group] = InodeTable(first, fs.inode_size, data)
    if not tables:
        raise UnsupportedFilesystem("there is no ext2, ext3 or ext4 file system")
    return tables


def changed_inodes(before: InodeTables, after: InodeTables) -> Iterator[tuple[Key, bytes, bytes]]:
    """Yield (inode, fingerprint before, fingerprint after) of every inode that was changed, allocated or freed between the two."""
    for place in before.keys() | after.keys():
        old, new = before.get(place), after.get(place)
        either = new or old
        assert either is not None
        empty = InodeTable(either.first, either.inode_size, b"")
        old, new = old or empty, new or empty
        step = max(1, COMPARED_BYTES // either.inode_size)
        for index in range(0, max(len(old.data), len(new.data)) // either.inode_size, step):
            start, stop = index * either.inode_size, (index + step) * either.inode_size
            if old.data[start:stop] == new.data[start:stop]:
                continue
            for each in range(index, index + step):
                if (left := old[each]) != (right := new[each]):
                    yield (place[0], either.first + each), left, right


def fingerprint_of(tables: InodeTables, fs: Ext4, number: int) -> bytes:
    """The fingerprint of inode `number` of `fs`; FREE_INODE when `tables` do not have it."""
    group, index = divmod(number - 1, fs.inodes_per_group)
    table = tables.get((fs.start, group))
    return table[index] if table else FREE_INODE
