"""Reads tar archives that may come from strangers, and lays their files out without ever leaving the directory that was named.

The format is that of POSIX.1-2001 (pax) on top of ustar: IEEE Std 1003.1, "pax - portable archive interchange", sections "ustar
Interchange Format" and "pax Header Block". Only what bake writes is read: regular files, directories, symbolic links, and pax
records of a single member. Everything else is refused by name: hard links, devices, sparse files, global headers.

`tarfile` of the standard library is not used for reading: its `filter=` is missing in Python 3.11.2 (Debian 12), it expands sparse
members, and some releases take quadratic time for a large pax header. Every loop here is linear in the bytes read, and every size is
checked against a budget before anything is written.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from baker.core.errors import HostError

BLOCK = 512
LARGEST_PAX = 64 << 10  # bytes of the pax records of one member
LONGEST_NAME, LONGEST_PART = 4096, 255  # bytes: PATH_MAX and NAME_MAX of Linux
MOST_MEMBERS = 200_000
CHUNK = 1 << 20
_KINDS: Mapping[bytes, Literal["file", "directory", "link"]] = {b"0": "file", b"\0": "file", b"5": "directory", b"2": "link"}
_REFUSED = {
    b"1": "a hard link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"g": "a global header", b"S": "a sparse file",
    b"L": "a GNU long name", b"K": "a GNU long link", b"D": "a GNU directory dump", b"M": "a part of a file", b"V": "a volume label",
}  # fmt: skip


class TarError(HostError):
    """The archive is damaged, cut off, or has what bake does not take from an archive."""

    default_code = "archive.unreadable"


@dataclass(frozen=True)
class TarMember:
    """A member of an archive. `size`: bytes of a file's content, else 0; `mode`: the 12 permission bits; `target`: of a link."""

    name: str
    kind: Literal["file", "directory", "link"]
    size: int
    mode: int
    target: str = ""


class TarReader:
    """Reads an archive once, from its beginning to its end. `budget`: bytes of content at most, over all members."""

    def __init__(self, file: IO[bytes], *, budget: int) -> None:
        self._file = file
        self._budget = budget
        self._left = 0  # bytes of the member's content that have not been read
        self._padding = 0
        self._members = 0

    def __iter__(self) -> Iterator[TarMember]:
        while (member := self.next()) is not None:
            yield member

    def next(self) -> TarMember | None:
        """The next member, or None at the end of the archive. What was not read of the member before is skipped. TarError."""
        self._skip()
        records: dict[str, str] = {}
        while True:
            header = self._exactly(BLOCK, "a header")
            if not any(header):
                self._end()
                return None
            _check_sum(header)
            kind, size = header[156:157], _number(header[124:136], "size")
            if kind == b"x":
                if records:
                    raise TarError("two pax headers before one member", code="archive.unreadable")
                if size > LARGEST_PAX:
                    raise TarError(f"a pax header has {size} bytes; at most {LARGEST_PAX} are read", code="archive.too-large")
                records = _pax(self._exactly(size, "a pax header"))
                self._exactly(-size % BLOCK, "a pax header")
                continue
            return self._member(header, kind, size, records)

    def read(self, size: int = CHUNK) -> bytes:
        """The next bytes of the current member's content, `size` at most; b"" at its end."""
        data = self._exactly(min(size, self._left), "a file")
        self._left -= len(data)
        return data

    def _member(self, header: bytes, kind: bytes, size: int, records: Mapping[str, str]) -> TarMember:
        prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
        name = records.get("path") or (f"{prefix}/" if prefix else "") + _text(header[:100])
        if kind in _REFUSED or kind not in _KINDS or any(key.startswith("GNU.sparse") for key in records):
            what = _REFUSED.get(kind, "a sparse file" if kind in _KINDS else f"a member of type {kind!r}")
            raise TarError(f"{name!r} is {what}, which bake takes from no archive", code="archive.forbidden-member")
        if "size" in records:
            size = _decimal(records["size"])
        found = _KINDS[kind]
        if found != "file" and size:
            raise TarError(f"{name!r} is no file and has {size} bytes", code="archive.unreadable")
        self._members += 1
        if self._members > MOST_MEMBERS:
            raise TarError(f"more than {MOST_MEMBERS} members", code="archive.too-large")
        if size > self._budget:
            raise TarError(f"{name!r} has {size} bytes, and {self._budget} are left of what may be read", code="archive.too-large")
        self._budget -= size
        self._left, self._padding = size, -size % BLOCK
        target = records.get("linkpath") or _text(header[157:257]) if found == "link" else ""
        return TarMember(name.rstrip("/") if found == "directory" else name, found, size, _number(header[100:108], "mode") & 0o7777, target)

    def _skip(self) -> None:
        while self._left:
            self.read()
        self._exactly(self._padding, "a file")
        self._padding = 0

    def _end(self) -> None:
        """Nothing but zeros may follow the end: tar pads an archive to a record of 10,240 bytes."""
        while block := self._file.read(CHUNK):
            if any(block):
                raise TarError("there is something after the end of the archive", code="archive.unreadable")

    def _exactly(self, size: int, what: str) -> bytes:
        found = bytearray()
        while len(found) < size:
            data = self._file.read(min(size - len(found), CHUNK))
            if not data:
                raise TarError(f"the archive ends in the middle of {what}", code="archive.cut-off")
            found += data
        return bytes(found)


def extract(tar: TarReader, directory: Path) -> None:
    """Lay an archive out below `directory`, which must exist and be nobody else's. TarError for what does not belong there.

    Every directory is opened below the one before without following links; a file is only created, never opened; links come last, so
    that nothing is written through them, and lead nowhere outside.
    """
    links: list[TarMember] = []
    modes: dict[tuple[str, ...], int] = {}
    with _opened(directory) as root:
        for member in tar:
            parts = _parts(member.name)
            if member.kind == "link":
                _check_target(member, parts)
                links.append(member)
            elif member.kind == "directory":
                with _below(root, parts):
                    modes[parts] = member.mode | 0o700
            else:
                with _below(root, parts[:-1]) as parent:
                    _write(tar, member, parent, parts[-1])
        for link in links:
            *above, last = _parts(link.name)
            with _below(root, tuple(above)) as parent, _refusing_twice(link.name):
                os.symlink(link.target, last, dir_fd=parent)
        for parts in sorted(modes, reverse=True):
            with _below(root, parts) as found:
                os.fchmod(found, modes[parts])


def _parts(name: str) -> tuple[str, ...]:
    """The components of a member's name. TarError for one that is absolute, leads up, or does not fit a file system."""
    parts = tuple(part for part in name.split("/") if part != ".")
    wrong = not parts or name.startswith("/") or any(part in ("", "..") or len(os.fsencode(part)) > LONGEST_PART for part in parts)
    if wrong or "\0" in name or len(os.fsencode(name)) > LONGEST_NAME:
        raise TarError(f"{name[:200]!r} is no name of a file below a directory", code="archive.forbidden-member")
    return parts


def _check_target(member: TarMember, parts: tuple[str, ...]) -> None:
    depth = len(parts) - 1
    for part in member.target.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            break
    if not member.target or "\0" in member.target or member.target.startswith("/") or depth < 0:
        raise TarError(f"the link {member.name!r} leads outside, to {member.target[:200]!r}", code="archive.forbidden-member")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _below(root: int, parts: tuple[str, ...]) -> Iterator[int]:
    """A directory below `root`, made if it is not there. TarError where something else has its name."""
    current = os.dup(root)
    try:
        for part in parts:
            try:
                os.mkdir(part, 0o700, dir_fd=current)
            except FileExistsError:
                pass
            try:
                following = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):  # what open(2) says of a link with O_NOFOLLOW
                    raise
                raise TarError(
                    f"{'/'.join(parts)!r} goes through something that is no directory", code="archive.forbidden-member"
                ) from error
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def _write(tar: TarReader, member: TarMember, parent: int, name: str) -> None:
    with _refusing_twice(member.name):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
        while data := tar.read():
            file.write(data)
        file.flush()  # a write after fchmod would clear the set-user-ID bit of a user who is not root
        os.fchmod(file.fileno(), stat.S_IMODE(member.mode))


@contextmanager
def _refusing_twice(name: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise TarError(f"{name!r} is in the archive twice", code="archive.forbidden-member") from error


def _check_sum(header: bytes) -> None:
    """The sum of the header's bytes, its own field as spaces."""
    wanted = _number(header[148:156], "checksum")
    if sum(header) - sum(header[148:156]) + 8 * ord(" ") != wanted:
        raise TarError("a header has a wrong checksum", code="archive.unreadable")


def _number(field: bytes, what: str) -> int:
    """Octal digits, ended by spaces and NULs."""
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not all(digit in b"01234567" for digit in digits):
        raise TarError(f"a header has a {what} that is not octal", code="archive.unreadable")
    return int(digits, 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise TarError("a pax header has a size that is no number", code="archive.unreadable")
    return int(text)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes) -> dict[str, str]:
    """The records of a pax header: "%d %s=%s\\n", each with its own length in bytes."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > 0 else b""
        if not digits.isdigit():
            raise TarError("a pax header has a record without a length", code="archive.unreadable")
        end = at + int(digits)
        name, sign, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n" or not sign:
            raise TarError("a pax header has a record with a wrong length", code="archive.unreadable")
        found[name.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at = end
    return found
