"""Writing an image as one file that needs nothing of bake: a disk image in the usual formats, or its file tree as a tar archive.

The file appears under its name when it is whole and on disk. Until then it is `.<name>.part` beside it, locked by the process
that writes it; what a killed export left there is written over by the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from baker.catalog.records import ImageRecord
from baker.core.disk_space import host_error
from baker.core.errors import BusyError, HostError, NotFoundError, UsageError
from baker.core.events import Reporter
from baker.core.home import sync
from baker.core.locks import locked
from baker.core.model import Disk, DiskFormat
from baker.disks import qemuimg
from baker.disks.rootfs import open_root
from baker.publish.tree import write_tar
from baker.store.base import BlobStore

FORMATS = ("qcow2", "raw", "vmdk", "vhdx", "vdi", "tar")
# (format, compression) -> qemu-img's options; zlib in a vmdk is VMware's streamOptimized, as OVF wants it
COMPRESSED: dict[tuple[str, str], dict[str, str]] = {
    ("qcow2", "zlib"): {"compression_type": "zlib"},
    ("qcow2", "zstd"): {"compression_type": "zstd"},
    ("vmdk", "zlib"): {"subformat": "streamOptimized"},
}
PLAIN: dict[str, dict[str, str]] = {"vmdk": {"subformat": "monolithicSparse"}, "vhdx": {"subformat": "dynamic"}}


def export(
    store: BlobStore,
    image: ImageRecord,
    format: str,  # noqa: A002 - Packer's and qemu-img's word
    destination: Path,
    *,
    compress: str = "none",
    report: Reporter,
    overwrite: bool = False,
) -> Path:
    """Write `image` to the file `destination` (in a directory: as NAME-VERSION.FORMAT) and return its path.

    `format`: qcow2, raw, vmdk, vhdx, vdi, or tar for the files of the image's root file system. `compress`: none, zlib (qcow2,
    vmdk) or zstd (qcow2). UsageError for what makes no sense or would overwrite a file, HostError for a full disk,
    UnsupportedFilesystem for a tar of a file system that bake cannot read. Nothing half-made is left when it fails.
    """
    check_choice(format, compress)
    destination = _destination(image, format, destination, overwrite)
    if not image.chain:
        raise NotFoundError(f"{image.name}@{image.version} was baked by {image.builder}: it has no disk here")
    disk = store.materialize(image.chain, image.virtual_size)
    with whole_or_absent(destination) as part:
        if format == "tar":
            _tar(disk, part, report)
        else:
            _convert(disk, part, format, compress, report)
    return destination


def check_choice(format: str, compress: str) -> None:  # noqa: A002
    """UsageError for a format, or a compression of it, that there is not."""
    if format not in FORMATS:
        raise UsageError(f"there is no export format {format!r}", hint=f"one of {', '.join(FORMATS)}")
    if compress != "none" and (format, compress) not in COMPRESSED:
        can = [f"{kind} with {way}" for kind, way in COMPRESSED]
        raise UsageError(f"a {format} file cannot be compressed with {compress}", hint=f"these can: {', '.join(can)}")


def _destination(image: ImageRecord, format: str, destination: Path, overwrite: bool) -> Path:  # noqa: A002
    if str(destination) == "-":
        raise UsageError("an image cannot be exported to standard output", hint="name a file")
    if destination.is_dir():
        destination = destination / f"{image.name}-{image.version}.{format}"
    if not destination.parent.is_dir():
        raise UsageError(f"there is no directory {destination.parent}")
    if destination.exists() and not destination.is_file():
        raise UsageError(f"{destination} is not a regular file")
    if destination.exists() and not overwrite:
        raise UsageError(f"{destination} exists already", hint="--overwrite replaces it")
    return destination


def _convert(disk: Disk, part: Path, format: str, compress: str, report: Reporter) -> None:  # noqa: A002
    def advance(fraction: float) -> None:
        report.progress("export", int(fraction * disk.virtual_size), disk.virtual_size)

    packed = compress != "none"
    options = COMPRESSED[format, compress] if packed else PLAIN.get(format, {})
    qemuimg.convert(disk, part, cast(DiskFormat, format), compress=packed, options=options, advance=advance)


def _tar(disk: Disk, part: Path, report: Reporter) -> None:
    with open_root(disk) as root, part.open("wb") as file:
        if root.needs_recovery:
            raise HostError("the image's file system was not unmounted: its last changes are in its journal only")
        for count in write_tar(root, file):
            if count % 500 == 0:
                report.progress("export", count, 0, "items")


@contextmanager
def whole_or_absent(destination: Path) -> Iterator[Path]:
    """A path to write to, which becomes `destination` when the body ends without an error and is gone when not."""
    part = destination.with_name(f".{destination.name}.part")
    try:
        with _locked(part):
            try:
                yield part
                sync(part)
                part.replace(destination)
                sync(destination.parent)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise host_error(error, destination) from error


@contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Make and lock `part`; BusyError when another process is writing it."""
    with locked(part, wait=False) as file:
        if file is None:
            raise BusyError(f"another process is exporting to {part.parent} under this name", code="export.running")
        file.truncate(0)
        yield
