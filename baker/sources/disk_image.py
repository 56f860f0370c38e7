"""A disk image file made elsewhere: what it is, whether it is what was promised, and into the store with it.

An image from outside is data of a stranger. Formats whose header can name further files (qcow2's backing and data files, VMDK's
extents) are taken only when they name none: otherwise an image could make this host read any file of the user's into a machine.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from baker.core.disk_space import host_error
from baker.core.errors import SourceError
from baker.core.model import Disk, DiskFormat
from baker.core.process import run
from baker.disks import qemuimg
from baker.sources import import_disk, unpack
from baker.sources.base import Context

FORMATS: tuple[str, ...] = get_args(DiskFormat)
VMDK_MAGIC = b"KDMV"
ALONE = "qemu-img convert -O qcow2 OLD NEW makes one file that stands alone"


def verify(path: Path, checksum: str, what: str) -> None:
    """SourceError, naming both digests, unless the file at `path` has `checksum` ("sha256:..." or "sha512:...")."""
    wanted = checksum.lower()
    algorithm = wanted.partition(":")[0]
    found = import_disk.file_digest(path, algorithm)
    if found != wanted:
        raise SourceError(
            f"{what} is not what the template says\n    wanted {wanted}\n    found  {found}",
            hint=f"take the {algorithm} sum from the publisher (often a file SHA256SUMS beside the image), not from this file",
        )


def take(path: Path, declared: str | None, context: Context, scratch: Path) -> dict[str, Any]:
    """Keep the disk image at `path` (compressed or not; the file stays) in the store. Returns an index entry, with "format" besides."""
    kind = unpack.compression(path)
    plain = path
    if kind:
        plain = scratch / "unpacked"
        unpack.unpack(path, plain, kind, lambda done: context.report.progress(f"unpacking {path.name}", done, 0))
    try:
        disk = inspect(plain, declared, name=path.name)
        return {**import_disk.take(disk, context, scratch), "format": disk.format, "compression": kind or ""}
    finally:
        if kind:
            plain.unlink(missing_ok=True)


def inspect(path: Path, declared: str | None, *, name: str = "") -> Disk:
    """The disk image at `path`, safe to read. SourceError when it is of another format than `declared`, of none that bake knows,
    empty, encrypted, or not alone."""
    name = name or path.name
    _refuse_scattered_vmdk(path, name)
    found = qemuimg.info(path)
    if found.format not in FORMATS:
        raise SourceError(f"{name} is a {found.format} image, which bake does not read", hint=f"it reads {', '.join(FORMATS)}")
    if declared and declared != found.format:
        raise SourceError(f"{name} is a {found.format} image and not {declared}", hint="correct `format:` in the template, or leave it out")
    if found.encrypted:
        raise SourceError(f"{name} is encrypted", hint=ALONE)
    if found.backing or found.data_file:
        raise SourceError(f"{name} is not alone: it needs {found.backing or found.data_file}", hint=ALONE)
    if found.virtual_size == 0:
        raise SourceError(f"{name} is empty")
    _check(path, found.format, name)
    return Disk(path, cast(DiskFormat, found.format), found.virtual_size)


def _refuse_scattered_vmdk(path: Path, name: str) -> None:
    """A VMDK is alone when it has a binary header ("KDMV") with a capacity of its own, at byte 12; a capacity of 0, or a text file,
    lists other files (VMware's Virtual Disk Format 1.1)."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise host_error(error, path) from error
    text = start.lstrip().lower().startswith(b"# disk descriptorfile")
    listing = start.startswith(VMDK_MAGIC) and (len(start) < 20 or struct.unpack_from("<Q", start, 12)[0] == 0)
    if text or listing:
        raise SourceError(f"{name} is a VMDK in several files", hint=ALONE)


def _check(path: Path, image_format: str, name: str) -> None:
    """SourceError when the image's own tables are damaged or lead beyond the file's end: a download that was cut off.
    qemu-img check(1): 0 is good, 3 is good with space lost, 63 is a format that cannot be checked, 2 is damage, 1 could not be done."""
    result = run([qemuimg.tool(), "check", "-q", "-f", image_format, path.absolute()], check=False)
    if result.returncode not in (0, 3, 63):
        said = "\n".join((result.stdout + result.stderr).strip().splitlines()[:3])
        raise SourceError(f"{name} is damaged: {said}", hint="was it copied or downloaded to its end? is a machine running on it?")


def known(entry: Mapping[str, Any], declared: str | None) -> bool:
    """Whether an index entry tells of a disk of the `declared` format."""
    return declared is None or entry.get("format") == declared
