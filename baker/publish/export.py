"""Export an image as one file that is independent of bake: a disk image in a common format, or its file tree as a tar archive.

The file gets its name when it is complete and on disk. Until then it is `.<name>.part` beside it, locked by the process that writes it.
The next export overwrites such a file that a killed export left.
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
# (format, compression) -> qemu-img's options; a VMDK with zlib is VMware's streamOptimized, which OVF requires
COMPRESSED: dict[tuple[str, str], dict[str, str]] = {
    ("qcow2", "zlib"): {"compression_type": "zlib"},
    ("qcow2", "zstd"): {"compression_type": "zstd"},
    ("vmdk", "zlib"): {"subformat": "streamOptimized"},
}
PLAIN: dict[str, dict[str, str]] = {"vmdk": {"subformat": "monolithicSparse"}, "vhdx": {"subformat": "dynamic"}}


def export(
    store: BlobStore,
    image: ImageRecord,
    format: str,  # noqa: A002 - the term of Packer and qemu-img
    destination: Path,
    *,
    compress: str = "none",
    report: Reporter,
    overwrite: bool = False,
) -> Path:
    """Write `image` to the file `destination` (in a directory: as NAME-VERSION.FORMAT) and return its path.

    `format` is qcow2, raw, vmdk, vhdx, vdi, or tar for the files of the image's root file system. `compress` is none, zlib (qcow2,
    vmdk) or zstd (qcow2). Raises UsageError for an unknown combination or an existing file, NotFoundError when the disk is not on this
    host, HostError for a full disk, UnsupportedFilesystem for a tar of a file system that bake cannot read. No partial file is left
    when it fails.
    """
    check_choice(format, compress)
    destination = _destination(image, format, destination, overwrite)
    if not image.chain:
        raise NotFoundError(
            f"{image.name}@{image.version} was made by the builder {image.builder}: its disk is not on this host",
            hint="export an image that a builder on this host made",
            code="image.no-local-disk",
        )
    disk = store.materialize(image.chain, image.virtual_size)
    with whole_or_absent(destination) as part:
        if format == "tar":
            _tar(disk, part, report)
        else:
            _convert(disk, part, format, compress, report)
    return destination


def check_choice(format: str, compress: str) -> None:  # noqa: A002
    """Raise UsageError for an unknown format or a compression that it does not support."""
    if format not in FORMATS:
        raise UsageError(f"there is no export format {format!r}", hint=f"one of {', '.join(FORMATS)}", code="export.format")
    if compress != "none" and (format, compress) not in COMPRESSED:
        possible = [f"{kind} with {way}" for kind, way in COMPRESSED]
        raise UsageError(
            f"a {format} file cannot be compressed with {compress}", hint=f"possible are {', '.join(possible)}", code="export.compression"
        )


def _destination(image: ImageRecord, format: str, destination: Path, overwrite: bool) -> Path:  # noqa: A002
    if str(destination) == "-":
        raise UsageError("an image cannot be exported to standard output", hint="name a file", code="output.stdout")
    if destination.is_dir():
        destination = destination / f"{image.name}-{image.version}.{format}"
    if not destination.parent.is_dir():
        raise UsageError(f"there is no directory {destination.parent}", hint="make it first", code="output.no-directory")
    if destination.exists() and not destination.is_file():
        raise UsageError(f"{destination} is not a regular file", hint="name another file", code="output.not-a-file")
    if destination.exists() and not overwrite:
        raise UsageError(f"{destination} already exists", hint="--overwrite replaces it", code="output.exists")
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
            raise HostError(
                "the image's file system was not unmounted, so its last changes are only in its journal",
                hint="export it as a disk image, or build the image again",
                code="export.unclean-filesystem",
            )
        for count in write_tar(root, file):
            if count % 500 == 0:
                report.progress("export", count, 0, "items")


@contextmanager
def whole_or_absent(destination: Path) -> Iterator[Path]:
    """Yield a path to write to. It is renamed to `destination` when the body succeeds, and removed when it fails.

    Raises BusyError when another process is writing it, HostError for an error of the file system.
    """
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
            raise BusyError(f"another process is writing {part}", hint="wait for it, or name another file", code="export.running")
        file.truncate(0)
        yield
