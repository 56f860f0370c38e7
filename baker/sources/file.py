"""The source `file`: a disk image file on this host, imported into the store again only when the file changes.

cache/files/<key>.json   {"digest", "blob", "virtual_size", "format", "compression", "path", "checksums": {"sha256": ...}}

The key is a digest of the path, size, times, inode and device number of the file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baker.core.disk_space import host_error
from baker.core.errors import SourceError
from baker.core.home import ensure
from baker.core.model import Disk, SourceImage
from baker.sources import disk_image, import_disk
from baker.sources.base import Context
from baker.sources.cache_index import Index
from baker.template.model import FileSource


class File:
    """Import local disk images."""

    def peek(self, spec: FileSource, context: Context) -> SourceImage | None:
        """The earlier import of the file in its present state, if any. Looks at the file's metadata only and does not read the file."""
        path = _path(spec, context)
        try:
            entry = _index(context).read(_key(path, path.stat()))
        except OSError:
            return None
        disk = import_disk.disk_of(entry, context.store)
        if entry is None or disk is None or not disk_image.has_format(entry, spec.format):
            return None
        algorithm, _, wanted = (spec.checksum or "").lower().partition(":")
        if spec.checksum and entry.get("checksums", {}).get(algorithm) != wanted:
            return None
        return _source(path, entry, disk)

    def fetch(self, spec: FileSource, context: Context) -> SourceImage:
        """Import the file. SourceError when it is missing, changes during the import, or differs from what the template declares."""
        path = _path(spec, context)
        before = _stat(path)
        checksums = {}
        if spec.checksum:
            context.report.info(f"checking {path}")
            disk_image.verify(path, spec.checksum, str(path))
            algorithm, _, hexadecimal = spec.checksum.lower().partition(":")
            checksums[algorithm] = hexadecimal
        context.report.info(f"importing {path}")
        work = ensure(context.scratch / f"file-{_key(path, before)[:12]}")
        entry: dict[str, Any] = {**disk_image.to_store(path, spec.format, context, work), "path": str(path), "checksums": checksums}
        shutil.rmtree(work)
        if _key(path, _stat(path)) != _key(path, before):
            raise SourceError(
                f"{path} changed while it was being imported",
                hint="stop the machine or program that writes to it, then build again",
                code="source.file-changed",
            )
        _index(context).write(_key(path, before), entry)
        disk = import_disk.disk_of(entry, context.store)
        assert disk is not None
        return _source(path, entry, disk)


def _path(spec: FileSource, context: Context) -> Path:
    return (context.base_dir / spec.path.expanduser()).absolute()


def _stat(path: Path) -> os.stat_result:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise SourceError(
            f"the disk image {path} does not exist",
            hint="`path:` is relative to the template's directory",
            code="source.file-missing",
        ) from None
    except OSError as error:
        raise host_error(error, path) from error
    if not path.is_file():
        raise SourceError(
            f"{path} is not a file",
            hint="bake reads disk images from files, not from devices or directories",
            code="source.file-type",
        )
    return found


def _key(path: Path, found: os.stat_result) -> str:
    text = f"{path}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}\0{found.st_ino}\0{found.st_dev}"
    return hashlib.sha256(text.encode()).hexdigest()


def _source(path: Path, entry: Mapping[str, Any], disk: Disk) -> SourceImage:
    pins = {"path": str(path), "format": str(entry["format"])}
    return SourceImage("file", f"{path.name} (file)", str(entry["digest"]), disk, pins=pins, chain=(str(entry["blob"]),))


def _index(context: Context) -> Index:
    return Index(context.home.cache / "files")
