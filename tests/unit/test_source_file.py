"""The source `file`: every format that bake reads, and the images that would read the host's files."""

from __future__ import annotations

import hashlib
import lzma
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from baker.core.errors import SourceError
from baker.core.model import DiskFormat
from baker.sources.base import Context
from baker.sources.file import File
from baker.template.model import FileSource
from tests.support.sources import context_in

RAW = b"BOOT" + os.urandom(200_000) + bytes((4 << 20) - 200_004)
DIGEST = f"sha256:{hashlib.sha256(RAW).hexdigest()}"
FORMATS: tuple[DiskFormat, ...] = ("raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    with context_in(tmp_path) as context:
        yield context


def image(tmp_path: Path, name: str, *options: str) -> Path:
    """RAW in another format, made by qemu-img."""
    (tmp_path / "in.raw").write_bytes(RAW)
    path = tmp_path / name
    subprocess.run(["qemu-img", "convert", "-f", "raw", *options, tmp_path / "in.raw", path], check=True)
    return path


def spec(name: str, **fields: Any) -> FileSource:
    return FileSource(path=Path(name), **fields)


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(context: Context, tmp_path: Path, kind: DiskFormat) -> None:
    options = ["-o", "force_size=on"] if kind == "vpc" else []
    original = image(tmp_path, f"disk.{kind}", "-O", kind, *options).read_bytes()
    found = File().fetch(spec(f"disk.{kind}"), context)
    assert found.digest == DIGEST
    assert found.disk.virtual_size == len(RAW)
    assert found.pins["format"] == kind
    assert (tmp_path / f"disk.{kind}").read_bytes() == original, "the user's file stays as it is"
    assert not list(context.scratch.iterdir())


def test_found_again_until_the_file_changes(context: Context, tmp_path: Path) -> None:
    image(tmp_path, "disk.img", "-O", "qcow2")
    source, disk = File(), spec("disk.img")
    assert source.peek(disk, context) is None
    found = source.fetch(disk, context)
    assert source.peek(disk, context) == found
    assert source.peek(spec("disk.img", format="raw"), context) is None, "another format must be looked at again"
    context.store.delete(found.chain[0])
    assert source.peek(disk, context) is None
    found = source.fetch(disk, context)
    (tmp_path / "disk.img").write_bytes(RAW[::-1])
    assert source.peek(disk, context) is None
    assert source.fetch(disk, context).digest == f"sha256:{hashlib.sha256(RAW[::-1]).hexdigest()}"


def test_checksum(context: Context, tmp_path: Path) -> None:
    path = image(tmp_path, "disk.qcow2", "-O", "qcow2")
    right = "sha512:" + hashlib.sha512(path.read_bytes()).hexdigest()
    found = File().fetch(spec("disk.qcow2", checksum=right), context)
    assert File().peek(spec("disk.qcow2", checksum=right), context) == found
    wrong = "sha256:" + "1" * 64
    assert File().peek(spec("disk.qcow2", checksum=wrong), context) is None
    with pytest.raises(SourceError, match=f"{wrong}\n.* sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}") as failure:
        File().fetch(spec("disk.qcow2", checksum=wrong), context)
    assert failure.value.code == "source.checksum"


def test_compressed(context: Context, tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(lzma.compress(image(tmp_path, "disk.qcow2", "-O", "qcow2").read_bytes()))
    assert File().fetch(spec("disk.img", format="qcow2"), context).digest == DIGEST


def backed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"host" * 1000)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", tmp_path / "secret", tmp_path / "bad"], check=True)


def split_data(tmp_path: Path) -> None:
    options = f"data_file={tmp_path / 'secret'},data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, tmp_path / "bad", "1M"], check=True)


def vmdk_listing(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"host" * 1000)
    (tmp_path / "bad").write_text(
        '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 8 FLAT "secret" 0\n'
    )


def vmdk_bare_listing(tmp_path: Path) -> None:
    """QEMU takes this for a VMDK too, and would copy the host's file into the image."""
    (tmp_path / "secret").write_bytes(b"host" * 1000)
    (tmp_path / "bad").write_text('\n# a comment\nversion=1\nRW 8 FLAT "secret" 0\n')


def plain_text(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("all of this is text\n" * 1000)


def vmdk_hidden_listing(tmp_path: Path) -> None:
    """A binary header without a capacity sends qemu to the descriptor, which may name any file."""
    whole = bytearray(image(tmp_path, "bad", "-O", "vmdk").read_bytes())
    whole[12:20] = bytes(8)
    (tmp_path / "bad").write_bytes(whole)


def encrypted(tmp_path: Path) -> None:
    """Bytes 32 to 35 of a qcow2 are its encryption method."""
    whole = bytearray(image(tmp_path, "bad", "-O", "qcow2").read_bytes())
    whole[35] = 1
    (tmp_path / "bad").write_bytes(whole)


def web_page(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("<!DOCTYPE html><title>Not found</title>")


def tar(tmp_path: Path) -> None:
    (tmp_path / "inner").write_text("x")
    subprocess.run(["tar", "-cf", tmp_path / "bad", "-C", tmp_path, "inner"], check=True)


def empty(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"")


def directory(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()


def missing(tmp_path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "code", "fact"),
    [
        (backed, "source.several-files", "secret"),
        (split_data, "source.several-files", "bad"),
        (vmdk_listing, "source.several-files", "bad"),
        (vmdk_bare_listing, "source.several-files", "bad"),
        (vmdk_hidden_listing, "source.several-files", "bad"),
        (plain_text, "source.not-a-disk-image", "bad"),
        (encrypted, "source.encrypted", "bad"),
        (web_page, "source.not-a-disk-image", "web page"),
        (tar, "source.not-a-disk-image", "tar"),
        (empty, "source.empty", "bad"),
        (directory, "source.file-type", "bad"),
        (missing, "source.file-missing", "bad"),
    ],
)
def test_refused(context: Context, tmp_path: Path, make: Any, code: str, fact: str) -> None:
    make(tmp_path)
    with pytest.raises(SourceError, match=fact) as failure:
        File().fetch(spec("bad"), context)
    assert failure.value.code == code
    assert not list(context.store.digests())
    assert File().peek(spec("bad"), context) is None


def test_another_format_than_declared(context: Context, tmp_path: Path) -> None:
    image(tmp_path, "disk.vdi", "-O", "vdi")
    with pytest.raises(SourceError, match=r"disk\.vdi .* vdi .* qcow2") as failure:
        File().fetch(spec("disk.vdi", format="qcow2"), context)
    assert failure.value.code == "source.format-mismatch"


def test_a_damaged_image_is_an_error(context: Context, tmp_path: Path) -> None:
    path = image(tmp_path, "disk.qcow2", "-O", "qcow2")
    path.write_bytes(path.read_bytes()[:70_000])
    with pytest.raises(SourceError, match=r"disk\.qcow2") as failure:
        File().fetch(spec("disk.qcow2"), context)
    assert failure.value.code == "source.damaged"
    assert not list(context.store.digests())
