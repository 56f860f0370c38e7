"""The partitions of a disk (GPT, by the UEFI Specification 2.10, section 5, or MBR) and the file systems in them, by signature."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from baker.disks.raw import RawReader

GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
UNUSED = bytes(16)
EXTENDED = frozenset({0x05, 0x0F, 0x85})
PROTECTIVE_MBR = 0xEE
MAX_LOGICAL = 128
MAX_TABLE_BYTES = 1 << 20

# (offset in bytes, magic, name) of each format, from its own documentation
SIGNATURES = (
    (0, b"XFSB", "xfs"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (512, b"LABELONE", "LVM"),
    (4086, b"SWAPSPACE2", "swap"),
    (82, b"FAT32   ", "vfat"),
    (54, b"FAT1", "vfat"),
    (3, b"NTFS    ", "ntfs"),
    (0, b"hsqs", "squashfs"),
    (32769, b"CD001", "iso9660"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (1080, b"\x53\xef", "ext4"),
)


@dataclass(frozen=True)
class Partition:
    """A partition, or the whole disk (`number` 0) when it has no partition table. `start` and `size` are in bytes."""

    number: int
    start: int
    size: int
    type: str = ""  # GPT: GUID; MBR: "0x83"
    uuid: str = ""  # PARTUUID
    name: str = ""  # PARTLABEL


def partitions(reader: RawReader) -> tuple[Partition, ...]:
    """The partitions of a disk: of a GPT or its backup, otherwise of an MBR, otherwise the whole disk as one."""
    for sector in (512, 4096):
        for place in (sector, reader.size - sector):  # the second is GPT's backup
            parts = tuple(_gpt(reader, sector, place))
            if parts:
                return parts
    parts = tuple(_mbr(reader))
    return parts or (Partition(0, 0, reader.size),)


def filesystem(reader: RawReader, partition: Partition) -> str:
    """The name of the file system in a partition ("ext4" also for ext2 and ext3); "" when its signature is unknown."""
    for offset, magic, name in SIGNATURES:
        if reader.pread(partition.start + offset, len(magic)) == magic:
            return name
    return ""


def _gpt(reader: RawReader, sector: int, place: int) -> Iterator[Partition]:
    header = reader.pread(place, GPT_HEADER.size) if place > 0 else b""
    if len(header) < GPT_HEADER.size or not header.startswith(b"EFI PART"):
        return
    fields = GPT_HEADER.unpack(header)
    table, count, size = fields[10], fields[11], fields[12]
    if size < GPT_ENTRY.size or count * size > MAX_TABLE_BYTES:
        return
    entries = reader.pread(table * sector, count * size)
    for index in range(len(entries) // size):
        kind, identity, first, last, _, name = GPT_ENTRY.unpack_from(entries, index * size)
        if kind != UNUSED:
            label = name.decode("utf-16-le", "replace").split("\0", 1)[0]
            yield Partition(index + 1, first * sector, (last - first + 1) * sector, _guid(kind), _guid(identity), label)


def _guid(raw: bytes) -> str:
    return str(uuid.UUID(bytes_le=raw))


def _mbr(reader: RawReader, sector: int = 512) -> Iterator[Partition]:
    boot = reader.pread(0, 512)
    if len(boot) < 512 or boot[510:512] != b"\x55\xaa":
        return
    (signature,) = struct.unpack_from("<I", boot, 440)
    number = 4
    for index, (kind, start, size) in enumerate(_mbr_entries(boot), start=1):
        if kind in (0, PROTECTIVE_MBR) or size == 0 or (start + size) * sector > reader.size:
            continue
        if kind not in EXTENDED:
            yield Partition(index, start * sector, size * sector, f"{kind:#04x}", f"{signature:08x}-{index:02x}")
            continue
        for logical_kind, first, length in _logical(reader, start, sector):
            number += 1
            yield Partition(number, first * sector, length * sector, f"{logical_kind:#04x}", f"{signature:08x}-{number:02x}")


def _logical(reader: RawReader, extended: int, sector: int) -> Iterator[tuple[int, int, int]]:
    """Yield (type, first sector, sectors) of the logical partitions in an extended one, which form a linked list of tables."""
    here = extended
    for _ in range(MAX_LOGICAL):
        table = reader.pread(here * sector, 512)
        if len(table) < 512 or table[510:512] != b"\x55\xaa":
            return
        (kind, start, size), (next_kind, next_start, _), *_ = _mbr_entries(table)
        if kind and size:
            yield kind, here + start, size
        if next_kind not in EXTENDED:
            return
        here = extended + next_start


def _mbr_entries(boot: bytes) -> list[tuple[int, int, int]]:
    """(type, first sector, sectors) of the four entries of a partition table."""
    entries = (struct.unpack_from("<B3xB3xII", boot, 446 + index * 16) for index in range(4))
    return [(kind, start, size) for _, kind, start, size in entries]
