"""The packages in an RPM database that is an SQLite file (rpmdb.sqlite, the form of RPM 4.16 and newer), read without RPM.

The table Packages has a row per package whose `blob` is the package's header as
https://rpm-software-management.github.io/rpm/manual/format_header.html describes it, without the magic number of a file: the number of
index entries and the size of the data as 32 bits big-endian, the entries (tag, type, offset, count), the data. The tags' numbers are those
of https://rpm-software-management.github.io/rpm/manual/tags.html.

The older forms, Berkeley DB (`Packages`) and ndb (`Packages.db`), are recognized by their names and not read.
"""

from __future__ import annotations

import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from baker.core.model import Package
from baker.disks.packages.unreadable import UnreadableDatabase

SQLITE = "rpmdb.sqlite"
OTHER_FORMS = {"Packages": "Berkeley DB", "Packages.db": "ndb"}
NAME, VERSION, RELEASE, EPOCH, LICENCE, ARCHITECTURE, SOURCE = 1000, 1001, 1002, 1003, 1014, 1022, 1044
INT32, STRING, I18N = 4, 6, 9
LARGEST = 256 << 20  # bytes of one header's data, as RPM allows


def packages(database: bytes, log: bytes = b"") -> Iterator[Package]:
    """The installed packages; the signing keys that RPM keeps as packages (gpg-pubkey) are left out. `log`: the bytes of the database's
    -wal file. UnreadableDatabase."""
    with tempfile.TemporaryDirectory(prefix="bake-rpmdb-") as directory:
        path = Path(directory) / SQLITE
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
            raise UnreadableDatabase(str(error)) from error
        finally:
            connection.close()


def package(header: bytes) -> Package:
    """The package that a header describes. Its version is `EPOCH:VERSION-RELEASE`, with epoch 0 where there is none: RPM's own
    %{EPOCHNUM}, and the form of the lists that guests make. UnreadableDatabase."""
    try:
        count, size = struct.unpack_from(">II", header)
        start = 8 + 16 * count
        if size > LARGEST or start + size > len(header):
            raise UnreadableDatabase("a header is cut off")
        data = header[start : start + size]
        entries = [struct.unpack_from(">IIII", header, 8 + 16 * number) for number in range(count)]
        values = {tag: _value(data, kind, offset) for tag, kind, offset, _ in entries if kind in (INT32, STRING, I18N)}
    except (struct.error, ValueError, TypeError) as error:  # TypeError: the column holds no bytes
        raise UnreadableDatabase(f"a header is damaged: {error}") from error
    text = {tag: value for tag, value in values.items() if isinstance(value, str)}
    if NAME not in text:
        raise UnreadableDatabase("a header has no name")
    version = f"{values.get(EPOCH, 0)}:{text.get(VERSION, '')}-{text.get(RELEASE, '')}"
    return Package(text[NAME], version, text.get(ARCHITECTURE, ""), "rpm", text.get(SOURCE, ""), text.get(LICENCE, ""))


def _value(data: bytes, kind: int, offset: int) -> str | int:
    """The first value of an entry."""
    if kind == INT32:
        return int(struct.unpack_from(">I", data, offset)[0])
    return data[offset : data.index(0, offset)].decode("utf-8", "replace")
