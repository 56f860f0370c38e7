"""Evidence blobs: text, JSON, or JSON lines, packed by gzip without a time stamp, so that equal evidence is one blob."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, BinaryIO

from baker.core.model import FileEntry, Package, PackageList

EMPTY_LIST = "the record does not say whether there were no packages or their list could not be read"


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


def write_manifest(entries: Iterable[FileEntry], file: BinaryIO) -> int:
    """Write a file manifest as a blob of JSON lines, one per file, without empty fields; returns the number of entries."""
    count = 0
    with _writer(file) as packed:
        for entry in entries:
            slim = {name: value for name, value in asdict(entry).items() if value not in ("", {}) or name == "path"}
            packed.write(_compact(slim).encode() + b"\n")
            count += 1
    return count


def pack_packages(found: PackageList) -> bytes:
    """A package list as one blob of JSON, sorted: a list of packages, or, when the list is empty or not complete, an object
    `{"packages": [...], "unread": [...]}`. An empty list alone is what records held before for both."""
    ordered = sorted(found.packages, key=lambda package: (package.name, package.architecture, package.version))
    packages = [package_to_json(package) for package in ordered]
    return pack_json(packages if packages and found.complete else {"packages": packages, "unread": list(found.unread)})


def package_to_json(package: Package) -> dict[str, str]:
    """What records hold of a package, and what `--json` shows."""
    return {"name": package.name, "version": package.version, "architecture": package.architecture, "kind": package.kind}


def read_text(blob: BinaryIO) -> str:
    """The whole text of a blob of `pack_text`."""
    with gzip.GzipFile(fileobj=blob) as file:
        return file.read().decode("utf-8", "replace")


def read_lines(blob: BinaryIO) -> Iterator[str]:
    """The lines of a text blob, one at a time, without their newlines."""
    with gzip.GzipFile(fileobj=blob) as file:
        for line in file:
            yield line.decode("utf-8", "replace").rstrip("\n")


def read_json(blob: BinaryIO) -> Any:
    """The value in a blob of `pack_json`."""
    with gzip.GzipFile(fileobj=blob) as file:
        return json.load(file)


def read_manifest(blob: BinaryIO) -> Iterator[FileEntry]:
    """The entries of a file manifest, one at a time."""
    with gzip.GzipFile(fileobj=blob) as file:
        for line in file:
            yield FileEntry(**json.loads(line))


def read_packages(blob: BinaryIO) -> PackageList:
    """The package list in a blob of `pack_packages`, or of a record that was made before lists said whether they are complete."""
    value = read_json(blob)
    if isinstance(value, list):
        value = {"packages": value, "unread": [] if value else [EMPTY_LIST]}
    return PackageList(tuple(Package(**item) for item in value["packages"]), tuple(value["unread"]))


def _writer(file: BinaryIO) -> gzip.GzipFile:
    return gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0)


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
