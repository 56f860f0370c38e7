"""What format a disk image file has, and whether it names other files: read from its own bytes, before QEMU opens it.

`qemu-img` guesses a format, and opens the files that an image names while it describes it. An image may come from a stranger, so its
header is read here first, and QEMU is always told the format. Sources: QEMU's docs/interop/qcow2.txt; VMware's "Virtual Disk Format
5.0"; Microsoft's "Virtual Hard Disk Image Format Specification" and [MS-VHDX]; QEMU's block/vdi.c and the magic numbers in block/*.c.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SECTOR = 512
LONGEST_DESCRIPTOR = 64 << 10  # bytes of the text in a VMDK
_QCOW2 = b"QFI\xfb"
_EXTERNAL_DATA_FILE = 1 << 2  # an incompatible feature of qcow2
_VDI = struct.pack("<I", 0xBEDA107F)  # at byte 64
_OTHERS = (  # formats that QEMU would recognise and bake does not read: magic bytes at the beginning, name
    (b"QED\0", "qed"), (b"LUKS\xba\xbe", "luks"), (b"WithoutFreeSpace", "parallels"), (b"WithouFreSpacExt", "parallels"),
    (b"Bochs Virtual HD Image", "bochs"), (b"#!/bin/sh\n#V2.0 Format", "cloop"), (b"COWD", "vmdk of ESX 3"),
)  # fmt: skip


@dataclass(frozen=True)
class Detected:
    """`format`: QEMU's name of it, "text" for a text file, "empty", or another name. `other_file`: a file that the image needs or names
    besides itself, in words that may be shown; "" for an image that stands alone."""

    format: str
    other_file: str = ""


def detect(path: Path) -> Detected:
    """Look at the header of a disk image. OSError when the file cannot be read."""
    with path.open("rb") as file:
        start = file.read(2 * SECTOR)
        size = file.seek(0, 2)
        if start.startswith(_QCOW2):
            return Detected("qcow2", _of_qcow2(file, start))
        if start.startswith(b"KDMV"):
            return Detected("vmdk", _of_vmdk(file, start))
        if start.startswith(b"vhdxfile"):
            return Detected("vhdx")  # QEMU opens none that has a parent
        if start[64:68] == _VDI:
            return Detected("vdi")
        if start.startswith(b"conectix"):
            return Detected("vpc", _of_vhd(start))
        for magic, name in _OTHERS:
            if start.startswith(magic):
                return Detected(name)
        if not start:
            return Detected("empty")
        if _is_text(start):
            return Detected("text", "the files that it lists" if _lists_extents(file) else "")
        file.seek(max(0, size - SECTOR))
        end = file.read(SECTOR)
        return Detected("vpc", _of_vhd(end)) if end.startswith(b"conectix") else Detected("raw")


def _of_qcow2(file: BinaryIO, start: bytes) -> str:
    header = start.ljust(104, b"\0")
    version, place, length = struct.unpack_from(">IQI", header, 4)
    (features,) = struct.unpack_from(">Q", header, 72)
    if version >= 3 and features & _EXTERNAL_DATA_FILE:
        return "a file with its data"
    if not place:
        return ""
    file.seek(min(place, 1 << 62))
    return _shown(file.read(min(length, 1023))) or "a backing file"


def _of_vmdk(file: BinaryIO, start: bytes) -> str:
    """A sparse extent names others when its capacity is 0, for then QEMU takes the extents from its descriptor, and when its descriptor
    has a parent. Its own name stands there as its one extent, which QEMU does not open."""
    header = start.ljust(SECTOR, b"\0")
    capacity, _, sector, sectors = struct.unpack_from("<QQQQ", header, 12)
    if capacity == 0:
        return "the files that it lists"
    if not sector or not sectors:
        return ""
    file.seek(min(sector * SECTOR, 1 << 62))
    text = file.read(min(sectors * SECTOR, LONGEST_DESCRIPTOR)).partition(b"\0")[0].decode("latin-1")
    parent = re.search(r'^\s*parentFileNameHint\s*=\s*"?([^"\n]*)', text, re.IGNORECASE | re.MULTILINE)
    if parent:
        return _shown(parent[1].encode("latin-1")) or "a parent"
    extents = re.findall(r"^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\w+)", text, re.IGNORECASE | re.MULTILINE)
    return "" if len(extents) <= 1 and all(kind.upper() == "SPARSE" for kind in extents) else "the files that it lists"


def _of_vhd(footer: bytes) -> str:
    """A VHD of type 4 holds the difference from a parent."""
    (kind,) = struct.unpack_from(">I", footer.ljust(SECTOR, b"\0"), 60)
    return "a parent" if kind == 4 else ""


def _is_text(start: bytes) -> bool:
    """Whether a file begins like text. No disk does: a boot sector has code or zeros."""
    return all(byte in b"\t\n\r\f" or 0x20 <= byte < 0x7F or byte >= 0x80 for byte in start) and _decodes(start)


def _decodes(start: bytes) -> bool:
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4  # a character that the read has cut
    return True


def _lists_extents(file: BinaryIO) -> bool:
    file.seek(0)
    text = file.read(LONGEST_DESCRIPTOR).decode("latin-1")
    return bool(re.search(r"^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+\w+", text, re.IGNORECASE | re.MULTILINE))


def _shown(name: bytes) -> str:
    """A name from an image as it may be shown: one line, nothing that moves a terminal's cursor."""
    return "".join(character if character.isprintable() else "?" for character in name.decode("utf-8", "replace"))[:200]
