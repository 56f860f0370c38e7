"""Decompress disk images: xz, gzip, zstd or bzip2, recognized by their first bytes and never by their name."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from baker.core.disk_space import host_error
from baker.core.errors import SourceError
from baker.core.process import need, spawn

CHUNK = 1 << 20
MAGIC = {b"\xfd7zXZ\0": "xz", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}
ARCHIVES = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7z archive", b"<!DO": "a web page", b"<htm": "a web page"}
UNPACK_HINT = "give the disk image itself: unpack an archive first; a web page is often a login or an error page"


def compression(path: Path) -> str | None:
    """The compression of a file ("xz", "gzip", "zstd", "bzip2"), or None. SourceError when it is an archive or a web page."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise host_error(error, path) from error
    for magic, what in ARCHIVES.items():
        if start.startswith(magic):
            raise SourceError(f"{path.name} is {what}, not a disk image", hint=UNPACK_HINT, code="source.not-a-disk-image")
    if start[257:262] == b"ustar":
        raise SourceError(
            f"{path.name} is a tar archive (perhaps an OVA), not a disk image", hint=UNPACK_HINT, code="source.not-a-disk-image"
        )
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)


def unpack(source: Path, destination: Path, kind: str, on_bytes: Callable[[int], None] | None = None) -> None:
    """Decompress `source`, compressed as `kind`, to `destination`, leaving holes for zeros.

    `on_bytes` is called with the number of bytes written so far. Raises SourceError when the data is damaged, HostError when the disk is
    full.
    """
    try:
        with _reader(source, kind) as reader, destination.open("wb") as file:
            _copy_sparsely(reader, file, on_bytes)
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _damaged(source, kind, str(error)) from error
    except OSError as error:
        if error.errno is None:  # bz2 raises such an OSError for damaged data
            raise _damaged(source, kind, str(error)) from error
        raise host_error(error, destination) from error


def _damaged(source: Path, kind: str, reason: str) -> SourceError:
    return SourceError(
        f"{source.name} is damaged or incomplete {kind} data: {reason}", hint="copy or download it again", code="source.damaged"
    )


def _copy_sparsely(reader: IO[bytes], file: IO[bytes], on_bytes: Callable[[int], None] | None) -> None:
    zeros = bytes(CHUNK)
    total = 0
    while chunk := reader.read(CHUNK):
        total += len(chunk)
        if chunk == zeros:
            file.seek(CHUNK, 1)
        else:
            file.write(chunk)
        if on_bytes:
            on_bytes(total)
    file.truncate(total)


@contextmanager
def _reader(source: Path, kind: str) -> Iterator[IO[bytes]]:
    if kind == "zstd":
        with _zstd(source) as reader:
            yield reader
    elif kind == "xz":
        with lzma.open(source) as xz:
            yield cast(IO[bytes], xz)
    elif kind == "gzip":
        with gzip.open(source) as gz:
            yield cast(IO[bytes], gz)
    elif kind == "bzip2":
        with bz2.open(source) as bz:
            yield cast(IO[bytes], bz)
    else:
        raise ValueError(f"unknown compression {kind!r}")


@contextmanager
def _zstd(source: Path) -> Iterator[IO[bytes]]:
    """Read a zstd file through the program zstd: Python has no zstd module before 3.14."""
    with spawn([need("zstd"), "--decompress", "--stdout", "--quiet", source]) as child:
        assert child.stdout is not None and child.stderr is not None
        yield child.stdout
        message = child.stderr.read().decode("utf-8", "replace").strip()
        if child.wait() != 0:
            raise _damaged(source, "zstd", message)
