"""Verify, inspect and import disk image files that were made elsewhere.

Such a file is untrusted input. The headers of some formats can name other files (the backing and data files of qcow2, the extents of
VMDK). An image that names any is refused: it could make this host copy any file that the user can read into a machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from baker.core.disk_space import host_error
from baker.core.errors import SourceError
from baker.core.model import Disk, DiskFormat
from baker.core.process import run
from baker.disks import qemuimg
from baker.disks.image_format import detect
from baker.sources import import_disk, unpack
from baker.sources.base import Context

FORMATS: tuple[str, ...] = get_args(DiskFormat)
CONVERT_HINT = "qemu-img convert -O qcow2 OLD NEW makes a plain disk image in a single file"


def verify(path: Path, checksum: str, what: str) -> None:
    """Raise SourceError, with both digests, unless the file at `path` has `checksum` ("sha256:..." or "sha512:...").

    `what` names the file in the message.
    """
    wanted = checksum.lower()
    algorithm = wanted.partition(":")[0]
    found = import_disk.file_digest(path, algorithm)
    if found != wanted:
        raise SourceError(
            f"{what} does not have the checksum in the template\n    expected {wanted}\n    found    {found}",
            hint=f"take the {algorithm} sum from the publisher (often a file SHA256SUMS beside the image), not from this file",
            code="source.checksum",
        )


def to_store(path: Path, declared: str | None, context: Context, scratch: Path) -> dict[str, Any]:
    """Import the disk image at `path`, compressed or not, into the store; the file stays.

    Returns the index entry of `import_disk.to_store` with "format" and "compression" ("" for none).
    """
    kind = unpack.compression(path)
    plain = path
    if kind:
        plain = scratch / "unpacked"
        unpack.unpack(path, plain, kind, lambda done: context.report.progress(f"unpacking {path.name}", done, 0))
    try:
        disk = inspect(plain, declared, name=path.name)
        return {**import_disk.to_store(disk, context, scratch), "format": disk.format, "compression": kind or ""}
    finally:
        if kind:
            plain.unlink(missing_ok=True)


def inspect(path: Path, declared: str | None, *, name: str = "") -> Disk:
    """The disk image at `path`, after checks that make it safe to read.

    SourceError when its format is unknown or differs from `declared`, or when the image is empty, encrypted, damaged, or refers to other
    files. `name` names the image in messages.
    """
    name = name or path.name
    try:
        detected = detect(path)
    except OSError as error:
        raise host_error(error, path) from error
    if detected.other_file:
        raise SourceError(f"{name} needs another file: {detected.other_file}", hint=CONVERT_HINT, code="source.several-files")
    if detected.format == "empty":
        raise SourceError(f"{name} is empty", code="source.empty")
    if detected.format == "text":
        raise SourceError(f"{name} is a text file", hint="give a disk image", code="source.not-a-disk-image")
    if detected.format not in FORMATS:
        raise SourceError(
            f"{name} is a {detected.format} image, which bake cannot read",
            hint=f"bake reads {', '.join(FORMATS)}",
            code="source.format-unsupported",
        )
    if declared and declared != detected.format:
        raise SourceError(
            f"{name} is a {detected.format} image, not a {declared} image",
            hint="correct `format:` in the template, or leave it out",
            code="source.format-mismatch",
        )
    found = qemuimg.info(path, detected.format)
    if found.encrypted:
        raise SourceError(f"{name} is encrypted", hint=CONVERT_HINT, code="source.encrypted")
    if found.backing or found.data_file:
        raise SourceError(f"{name} needs another file: {found.backing or found.data_file}", hint=CONVERT_HINT, code="source.several-files")
    if found.virtual_size == 0:
        raise SourceError(f"{name} is empty", code="source.empty")
    _check(path, found.format, name)
    return Disk(path, cast(DiskFormat, found.format), found.virtual_size)


def _check(path: Path, image_format: str, name: str) -> None:
    """Raise SourceError when the image's own tables are damaged or point beyond the end of the file, as after an aborted download.

    Exit codes of `qemu-img check` (qemu-img(1)): 0 no errors, 1 check failed, 2 corruption, 3 leaked clusters only, 63 the format
    does not support checks.
    """
    result = run([qemuimg.tool(), "check", "-q", "-f", image_format, path.absolute()], check=False)
    if result.returncode not in (0, 3, 63):
        output = "\n".join((result.stdout + result.stderr).strip().splitlines()[:3])
        raise SourceError(
            f"{name} is damaged: {output}",
            hint="stop a machine that runs on it; else copy or download it again",
            code="source.damaged",
        )


def has_format(entry: Mapping[str, Any], declared: str | None) -> bool:
    """Whether the image of an index entry had the `declared` format; True when none is declared."""
    return declared is None or entry.get("format") == declared
