"""Evidence blobs: gzip without a time stamp, so that equal evidence is one blob. Text, JSON, or JSON lines."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, BinaryIO

from baker.core.model import FileEntry, Package


def pack_lines(lines: Iterable[str]) -> bytes:
    """Lines of text (without their newlines) as one blob; `lines` may be a generator: only the packed bytes are held."""
    packed = io.BytesIO()
    with _writer(packed) as file:
        for line in lines:
            file.write(line.encode("utf-8", "surrogateescape") + b"\n")
    return packed.getvalue()


def pack_json(value: Any) -> bytes:
    """A JSON value as one blob."""
    return gzip.compress(_compact(value).encode(), mtime=0)


def pack_text(text: str) -> bytes:
    """A log, or JUnit XML, as one blob."""
    return gzip.compress(text.encode("utf-8", "surrogateescape"), mtime=0)


def pack_manifest(entries: Iterable[FileEntry]) -> bytes:
    """A file manifest as one blob of JSON lines, one per file; what is empty is left out."""
    packed = io.BytesIO()
    write_manifest(entries, packed)
    return packed.getvalue()


def write_manifest(entries: Iterable[FileEntry], file: BinaryIO) -> int:
    """Write a file manifest as `pack_manifest` makes it; returns how many entries there were."""
    count = 0
    with _writer(file) as packed:
        for entry in entries:
            slim = {name: value for name, value in asdict(entry).items() if value not in ("", {}) or name == "path"}
            packed.write(_compact(slim).encode() + b"\n")
            count += 1
    return count


def pack_packages(packages: Iterable[Package]) -> bytes:
    """A package list as one blob, sorted."""
    ordered = sorted(packages, key=lambda package: (package.name, package.architecture, package.version))
    return pack_json([asdict(package) for package in ordered])


def read_text(blob: BinaryIO) -> str:
    with gzip.GzipFile(fileobj=blob) as file:
        return file.read().decode("utf-8", "replace")


def read_lines(blob: BinaryIO) -> Iterator[str]:
    """The lines of a text blob, one at a time, without their newlines."""
    with gzip.GzipFile(fileobj=blob) as file:
        for line in file:
            yield line.decode("utf-8", "replace").rstrip("\n")


def read_json(blob: BinaryIO) -> Any:
    with gzip.GzipFile(fileobj=blob) as file:
        return json.load(file)


def read_manifest(blob: BinaryIO) -> Iterator[FileEntry]:
    """The entries of a file manifest, one at a time."""
    with gzip.GzipFile(fileobj=blob) as file:
        for line in file:
            yield FileEntry(**json.loads(line))


def read_packages(blob: BinaryIO) -> tuple[Package, ...]:
    return tuple(Package(**item) for item in read_json(blob))


def _writer(file: BinaryIO) -> gzip.GzipFile:
    return gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0)


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
