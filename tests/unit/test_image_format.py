"""Which format an image has, and which other files it would read: decided from its bytes alone."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from baker.disks.image_format import Detected, detect

SIZE = "1M"


def created(path: Path, form: str, *options: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", form, *options, str(path), SIZE], check=True)
    return path


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("qcow2", ()), ("qcow2", ("-o", "compat=0.10")), ("vmdk", ()), ("vmdk", ("-o", "subformat=streamOptimized")), ("vhdx", ()),
        ("vdi", ()), ("vpc", ()), ("vpc", ("-o", "subformat=fixed,force_size=on")), ("raw", ()),
    ],
)  # fmt: skip
def test_what_qemu_makes_is_recognised_and_stands_alone(form: str, options: tuple[str, ...], tmp_path: Path) -> None:
    assert detect(created(tmp_path / "disk", form, *options)) == Detected(form)


def test_images_that_qemu_makes_of_several_files_do_not_stand_alone(tmp_path: Path) -> None:
    base = created(tmp_path / "base", "qcow2")
    above = created(tmp_path / "above", "qcow2", "-b", str(base), "-F", "qcow2")
    assert detect(above) == Detected("qcow2", str(base))
    data = created(tmp_path / "data", "qcow2", "-o", f"data_file={tmp_path / 'data.raw'}")
    assert detect(data).other_file
    flat = created(tmp_path / "flat.vmdk", "vmdk", "-o", "subformat=monolithicFlat")
    assert detect(flat) == Detected("text", "the files that it lists")
    below = created(tmp_path / "below.vmdk", "vmdk")
    child = created(tmp_path / "child.vmdk", "vmdk", "-b", str(below), "-F", "vmdk")
    assert detect(child) == Detected("vmdk", str(below))


EXTENT = b'RW 2048 FLAT "/etc/passwd" 0\n'


@pytest.mark.parametrize(
    "start",
    [
        b"version=1\n",
        b"\n\nversion=1\n",
        b"# a comment\nversion=1\n",
        b"# Disk DescriptorFile\nversion=1\n",
        b"  # disk descriptorfile\n",
        b"",
    ],
    ids=["bare", "blank lines", "comment", "descriptor", "spaces", "extent alone"],
)
def test_a_text_that_lists_files_of_this_host_is_no_disk(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    path.write_bytes(start + EXTENT)
    assert detect(path) == Detected("text", "the files that it lists")
    padded = tmp_path / "padded.vmdk"
    padded.write_bytes(start + EXTENT + b" " * (1 << 20))
    assert detect(padded).format == "text"


def test_a_header_without_a_capacity_lists_files(tmp_path: Path) -> None:
    whole = bytearray(created(tmp_path / "disk", "vmdk").read_bytes())
    struct.pack_into("<Q", whole, 12, 0)
    (tmp_path / "disk").write_bytes(whole)
    assert detect(tmp_path / "disk").other_file


def test_a_descriptor_inside_with_a_flat_extent_lists_files(tmp_path: Path) -> None:
    path = created(tmp_path / "disk", "vmdk")
    text = path.read_bytes()
    begin = text.index(b"RW ")
    end = text.index(b"\n", begin)
    path.write_bytes(text[:begin] + EXTENT.rstrip().ljust(end - begin) + text[end:])
    assert detect(path).other_file


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"", "empty"), (b"<!DOCTYPE html>\n<title>404</title>\n", "text"), ("é".encode() * 600, "text"), (b"QED\0" + bytes(600), "qed"),
        (b"LUKS\xba\xbe" + bytes(600), "luks"), (b"COWD" + bytes(600), "vmdk of ESX 3"), (bytes(4096), "raw"),
        (b"\xeb\x63\x90" + bytes(509) + b"text" * 200, "raw"), (b"QFI\xfb", "qcow2"), (b"KDMV", "vmdk"), (b"conectix", "vpc"),
    ],
)  # fmt: skip
def test_other_beginnings(data: bytes, form: str, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(data)
    assert detect(tmp_path / "disk").format == form


def test_a_difference_disk_needs_its_parent(tmp_path: Path) -> None:
    whole = bytearray(created(tmp_path / "disk", "vpc").read_bytes())
    struct.pack_into(">I", whole, 60, 4)
    (tmp_path / "disk").write_bytes(whole)
    assert detect(tmp_path / "disk") == Detected("vpc", "a parent")


def test_a_name_in_an_image_cannot_move_the_cursor(tmp_path: Path) -> None:
    created(tmp_path / "base", "qcow2")
    path = created(tmp_path / "disk", "qcow2", "-b", str(tmp_path / "base"), "-F", "qcow2")
    whole = path.read_bytes().replace(str(tmp_path / "base").encode(), b"\x1b[2Jx".ljust(len(str(tmp_path / "base")), b"y"))
    path.write_bytes(whole)
    assert "\x1b" not in detect(path).other_file
