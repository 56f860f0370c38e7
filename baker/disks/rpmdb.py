"""The packages in an RPM database (rpmdb.sqlite, of RPM 4.16 and newer), read without RPM.

The table Packages has a header per package (https://rpm-software-management.github.io/rpm/manual/format_header.html, without the magic
of a file): the number of index entries and the size of the data as 32 bits big-endian, the entries (tag, type, offset, count), the data.
"""

from __future__ import annotations

import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAME, VERSION, RELEASE, EPOCH, LICENCE, ARCHITECTURE, SOURCE = 1000, 1001, 1002, 1003, 1014, 1022, 1044
INT32, STRING, I18N = 4, 6, 9
LARGEST = 256 << 20  # bytes of one header's data, as RPM allows


class DamagedError(Exception):
    """What was read is no RPM database."""


@dataclass(frozen=True)
class Rpm:
    """One installed package."""

    name: str
    version: str
    release: str
    architecture: str = ""
    epoch: int = 0
    licence: str = ""
    source: str = ""  # "nginx-1.26.2-1.fc41.src.rpm"


def packages(database: bytes, log: bytes = b"") -> Iterator[Rpm]:
    """The installed packages; keys that the database holds as packages (gpg-pubkey) are left out. `log`: its -wal file. DamagedError."""
    with tempfile.TemporaryDirectory(prefix="bake-rpmdb-") as directory:
        path = Path(directory) / "rpmdb.sqlite"
        path.write_bytes(database)
        if log:
            path.with_name(path.name + "-wal").write_bytes(log)
        connection = sqlite3.connect(path)
        try:
            for (blob,) in connection.execute("SELECT blob FROM Packages ORDER BY hnum"):
                found = package(blob)
                if found.name != "gpg-pubkey":
                    yield found
        except sqlite3.DatabaseError as error:
            raise DamagedError(str(error)) from error
        finally:
            connection.close()


def package(header: bytes) -> Rpm:
    """The package that a header describes. DamagedError."""
    try:
        count, size = struct.unpack_from(">II", header)
        start = 8 + 16 * count
        if size > LARGEST or start + size > len(header):
            raise DamagedError("a header is cut off")
        data = header[start : start + size]
        entries = [struct.unpack_from(">IIII", header, 8 + 16 * number) for number in range(count)]
        values = {tag: _value(data, kind, offset) for tag, kind, offset, _ in entries if kind in (INT32, STRING, I18N)}
    except (struct.error, ValueError) as error:
        raise DamagedError(f"a header is damaged: {error}") from error
    text = {tag: value for tag, value in values.items() if isinstance(value, str)}
    epoch = values.get(EPOCH, 0)
    if NAME not in text:
        raise DamagedError("a header has no name")
    return Rpm(
        text[NAME], text.get(VERSION, ""), text.get(RELEASE, ""), text.get(ARCHITECTURE, ""), epoch if isinstance(epoch, int) else 0,
        text.get(LICENCE, ""), text.get(SOURCE, ""),
    )  # fmt: skip


def _value(data: bytes, kind: int, offset: int) -> str | int:
    """The first value of an entry."""
    if kind == INT32:
        return int(struct.unpack_from(">I", data, offset)[0])
    return data[offset : data.index(0, offset)].decode("utf-8", "replace")
