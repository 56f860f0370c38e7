"""Reading a journal, compared with e2fsck, which replays the same journal."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from baker.core.model import Disk
from baker.disks.ext4.journal import open_replayed
from baker.disks.ext4.reader import UnsupportedFilesystem
from baker.disks.raw import open_raw
from baker.disks.rootfs import open_root

MAGIC = b"\xc0\x3b\x39\x98"  # a block that begins so is written otherwise ("escaped")
KINDS = [
    (["-b", "4096"], "-c -v 3"),
    (["-b", "1024"], "-c -v 3"),
    (["-b", "1024"], "-c -v 2"),
    (["-b", "4096", "-O", "^64bit"], "-c -v 2"),
    (["-b", "4096", "-O", "^metadata_csum"], ""),
    (["-b", "1024", "-O", "^metadata_csum,^64bit"], ""),
]


def sh(*argv: str | Path, input: str | None = None) -> str:  # noqa: A002 - subprocess's own word
    return subprocess.run([*map(str, argv)], check=True, capture_output=True, text=True, input=input).stdout


def journalled(tmp_path: Path, options: list[str], opened: str) -> tuple[Path, int]:
    """A file system whose journal holds two transactions: blocks written twice, a block written and revoked, escaped blocks."""
    size = int(options[1])
    fs = tmp_path / "fs"
    sh("mke2fs", "-q", "-F", "-t", "ext4", "-J", "size=4", *options, fs, "32M")
    noise = random.Random(size)
    three = [noise.randbytes(size), MAGIC + noise.randbytes(size - 4), noise.randbytes(size)]
    (tmp_path / "three").write_bytes(b"".join(three))
    (tmp_path / "one").write_bytes(noise.randbytes(size))
    first = 20000 if size == 1024 else 6000
    commands = [
        f"jo {opened}",
        f"jw -b {first},{first + 1},{first + 2} {tmp_path}/three",
        f"jw -b {first} {tmp_path}/one -r {first + 2}",
        f"jw -r {first + 2}",
        f"jw -b {first + 7} {tmp_path}/one",
        "jc",
    ]
    sh("debugfs", "-w", "-f", "-", fs, input="\n".join(commands))
    return fs, first * size


@pytest.mark.parametrize(("options", "opened"), KINDS)
def test_the_disk_is_seen_as_after_a_replay(tmp_path: Path, options: list[str], opened: str) -> None:
    fs, place = journalled(tmp_path, options, opened)
    after = tmp_path / "after"
    shutil.copy(fs, after)
    subprocess.run(["e2fsck", "-fy", "-E", "journal_only", after], check=False, capture_output=True)
    length = 10 * int(options[1])
    wanted = after.read_bytes()[place : place + length]
    with open_raw(Disk(fs, "raw", fs.stat().st_size)) as reader:
        seen = open_replayed(reader, 0)
        assert reader.pread(place, length) == bytes(length)
        assert seen.read(place, length) == wanted
        assert seen.read(place + 100, length - 300) == wanted[100:-200]  # pieces that begin and end inside a block
        assert not seen.needs_recovery
    assert any(wanted)


def test_a_transaction_that_was_not_written_whole_is_none(tmp_path: Path) -> None:
    fs, place = journalled(tmp_path, ["-b", "4096"], "-c -v 3")
    data = bytearray(fs.read_bytes())
    lost = data.index((tmp_path / "one").read_bytes())  # in the journal: the second transaction's data
    data[lost + 9] ^= 1
    fs.write_bytes(data)
    with open_raw(Disk(fs, "raw", fs.stat().st_size)) as reader:
        seen = open_replayed(reader, 0)
        assert seen.read(place, 3 * 4096) == (tmp_path / "three").read_bytes()
        assert seen.read(place + 7 * 4096, 4096) == bytes(4096)


def test_damage_and_what_nobody_knows_is_refused(tmp_path: Path) -> None:
    fs, _ = journalled(tmp_path, ["-b", "4096"], "-c -v 3")
    whole = fs.read_bytes()
    head = next(place for place in range(0, len(whole), 4096) if whole[place : place + 8] == MAGIC + b"\0\0\0\x04")
    for at, value, code, fact in (
        (head, b"xxxx", "disk.damaged-filesystem", "superblock"),
        (head + 0x28, b"\0\0\x10\0", "disk.unsupported-filesystem", "0x1000"),
        (head + 0x10, b"\x7f", "disk.damaged-filesystem", "journal"),
    ):
        fs.write_bytes(whole[:at] + value + whole[at + len(value) :])
        with pytest.raises(UnsupportedFilesystem, match=fact) as caught, open_root(Disk(fs, "raw", len(whole)), replay=True):
            pass
        assert caught.value.code == code
