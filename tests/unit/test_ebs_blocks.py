"""Which blocks of a disk are looked at, told from maps; checksums and sizes as AWS defines them."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from baker.aws import ebs
from baker.aws.rate_limit import LONGEST_GAP, RateLimiter
from baker.aws.upload_checkpoint import RECORD, State, UploadCheckpoint
from baker.core.model import Disk
from baker.disks import qemuimg
from baker.disks.blocks import candidates, differences
from baker.disks.raw import open_raw
from tests.support.disks import create_qcow2
from tests.support.fakes import FakeClock

MIB = 1 << 20
BLOCK = ebs.BLOCK


def write(disk: Disk, *commands: str) -> Disk:
    argv = ["qemu-io", "-f", disk.format, *(part for command in commands for part in ("-c", command)), str(disk.path)]
    subprocess.run(argv, check=True, capture_output=True)
    return disk


@pytest.fixture
def base(tmp_path: Path) -> Disk:
    """16 MiB, of which the blocks 0-3 and 20 hold something."""
    return write(create_qcow2(tmp_path / "base", 16 * MIB), "write -P 1 0 2M", "write -P 2 10M 512k")


@pytest.fixture
def delta(tmp_path: Path, base: Disk) -> Disk:
    """On it: block 1 is other bytes, block 2 is zeros, block 3 the same bytes anew, block 10 new bytes."""
    found = qemuimg.create_overlay(base, tmp_path / "delta")
    return write(found, "write -P 3 512k 512k", "write -z 1M 512k", "write -P 1 1536k 512k", "write -P 4 5M 64k")


@contextmanager
def blocks(disk: Disk, below: Disk | None = None) -> Iterator[ebs.Blocks]:
    with open_raw(disk) as reader:
        if below is None:
            yield ebs.Blocks(reader)
        else:
            with open_raw(below) as other:
                yield ebs.Blocks(reader, other)


def changed(found: ebs.Blocks) -> dict[int, int]:
    """Number -> first byte of each block that has to be sent."""
    return {index: data[0] for index in found.indices() if (data := found.changed(index)) is not None}


def test_holes_are_not_even_read(base: Disk) -> None:
    with blocks(base) as found:
        assert found.indices() == [0, 1, 2, 3, 20]


def test_zeros_are_skipped_without_a_parent(delta: Disk) -> None:
    with blocks(delta) as found:
        assert changed(found) == {0: 1, 1: 3, 3: 1, 10: 4, 20: 2}


def test_with_a_parent_only_what_differs_is_sent_and_zeros_too(base: Disk, delta: Disk) -> None:
    with blocks(delta, base) as found:
        assert found.indices() == [1, 2, 3, 10]  # what the delta holds: no byte of the rest is read
        assert changed(found) == {1: 3, 2: 0, 10: 4}


def test_what_the_parent_has_and_the_disk_never_had_is_sent_as_zeros(base: Disk, tmp_path: Path) -> None:
    other = write(create_qcow2(tmp_path / "other", 16 * MIB), "write -P 1 0 512k")
    with blocks(other, base) as found:
        assert changed(found) == {1: 0, 2: 0, 3: 0, 20: 0}


def test_a_disk_that_has_grown(base: Disk, tmp_path: Path) -> None:
    grown = qemuimg.create_overlay(base, tmp_path / "grown", size=32 * MIB)
    with blocks(write(grown, "write -P 5 20M 1M"), base) as found:
        assert changed(found) == {40: 5, 41: 5}


def test_the_same_disk_has_nothing_to_send(base: Disk) -> None:
    with blocks(base, base) as found:
        assert found.indices() == []


def test_compressed_disks_are_compared_by_their_bytes(base: Disk, tmp_path: Path) -> None:
    packed = qemuimg.convert(base, tmp_path / "packed", "qcow2", compress=True)
    with blocks(packed, base) as found:
        assert changed(found) == {}
    overlay = write(qemuimg.create_overlay(packed, tmp_path / "overlay"), "write -P 9 0 64k")
    with blocks(overlay, packed) as found:
        assert found.indices() == [0]


def test_a_disk_that_does_not_fill_its_last_block(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x" * (BLOCK + 512))
    with blocks(Disk(path, "raw", BLOCK + 512)) as found:
        assert found.indices() == [0, 1]
        assert found.changed(1) == b"x" * 512 + bytes(BLOCK - 512)


def test_differences_are_ranges(base: Disk, delta: Disk) -> None:
    with open_raw(delta) as one, open_raw(base) as other:
        ranges = list(differences(one.extents, other.extents))
        assert sum(end - start for start, end in ranges) == 3 * BLOCK + 65536
        assert list(candidates(one.extents, 16 * MIB, other.extents)) == [0]


def test_the_linear_checksum() -> None:
    """Known vector: SHA-256 over the raw digests of "a" and "b", in the order of the blocks' numbers."""
    digests = {7: hashlib.sha256(b"b").digest(), 2: hashlib.sha256(b"a").digest()}
    assert ebs.linear_checksum(digests) == "5aAf7hTg7VxIcU8iGA8lrYNltT+XefedxKPX6Tlj+Uo="
    assert ebs.linear_checksum({}) == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


@pytest.mark.parametrize(("size", "gib"), [(1, 1), (1 << 30, 1), ((1 << 30) + 1, 2), (8 << 30, 8)])
def test_volumes_are_whole_gibibytes(size: int, gib: int) -> None:
    assert ebs.gib(size) == gib


# --- the journal ---------------------------------------------------------------------------------------------------------


def test_the_journal_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    journal = UploadCheckpoint(tmp_path / "journal")
    assert journal.load() is None
    journal.begin(State({"digest": "one"}, "run", target="snap-1"))
    journal.acknowledge(3, b"3" * 32)
    journal.acknowledge(1 << 33, b"4" * 32)
    again = UploadCheckpoint(journal.directory)
    assert again.load() == State({"digest": "one"}, "run", target="snap-1")
    assert again.acknowledged() == {3: b"3" * 32, 1 << 33: b"4" * 32}
    again.begin(State({"digest": "two"}, "run"))
    assert again.acknowledged() == {}
    again.forget()
    assert not journal.directory.exists()


def test_half_a_record_is_forgotten(tmp_path: Path) -> None:
    journal = UploadCheckpoint(tmp_path)
    journal.begin(State({}, "run"))
    journal.acknowledge(1, b"1" * 32)
    journal.close()
    with (tmp_path / "blocks").open("ab") as file:
        file.write(b"half")
    again = UploadCheckpoint(tmp_path)
    assert list(again.acknowledged()) == [1]
    again.acknowledge(2, b"2" * 32)
    assert list(again.acknowledged()) == [1, 2]
    assert (tmp_path / "blocks").stat().st_size == 2 * RECORD.size


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ticket": 1', "null"])
def test_a_journal_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "upload.json").write_text(text)
    assert UploadCheckpoint(tmp_path).load() is None


# --- the rate limit ------------------------------------------------------------------------------------------------------


def gap(limiter: RateLimiter, clock: FakeClock) -> float:
    """Seconds between two requests now."""
    clock.sleep(10)
    before = clock.now()
    limiter.wait()
    limiter.wait()
    return clock.now() - before


def test_nobody_waits_until_aws_complains() -> None:
    clock = FakeClock()
    assert gap(RateLimiter(clock), clock) == 0  # type: ignore[arg-type]


def test_complaints_make_it_slower_and_success_faster() -> None:
    clock = FakeClock()
    limiter = RateLimiter(clock)  # type: ignore[arg-type]
    for _ in range(30):
        limiter.throttled()  # all threads at once: counted once
    first = gap(limiter, clock)
    limiter.throttled()
    assert gap(limiter, clock) == pytest.approx(2 * first)
    for _ in range(20):
        clock.sleep(1)
        limiter.throttled()
    assert gap(limiter, clock) == pytest.approx(LONGEST_GAP)
    for _ in range(2000):
        limiter.succeeded()
    assert gap(limiter, clock) == 0
