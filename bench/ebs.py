"""Measures how fast a disk is uploaded as an EBS snapshot, compared with reading and hashing the same file.

    .venv/bin/python -m bench.ebs [--runs N] [--size MIB]

A disk of 2 GiB of which 30 % hold data (random, in runs of 4 MiB) is uploaded to the tests' emulator, which runs in a process of its own
and checks each block's checksum; then the same disk with 1 % of its data changed, with the first snapshot as parent. The ratio is the
time of reading and hashing the raw file (all of it, holes too) by that of the upload; another one is to its data alone. A second receiver
does nothing but check checksums, so that the client's own speed is seen. All measurements take turns, after one round that is not counted;
the medians are shown. Always ends with exit code 0.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from baker.aws import ebs
from baker.aws.session import Access, Aws
from baker.core.clock import Clock
from baker.core.events import Null, Reporter
from baker.core.model import Disk
from baker.disks import qemuimg
from baker.disks.raw import open_raw
from tests.ec2 import Emulator
from tests.support.aws import CloudAws

MIB = 1 << 20
RUN, CHANGE = 4 * MIB, MIB
DATA, CHANGED = 0.30, 0.01
GOAL_RATIO, GOAL_PART = 0.5, 0.02
REGION = "eu-central-1"


class Forgetful:
    """An upload's progress that is not stored; a real one appends 40 bytes to a file for each block."""

    def acknowledged(self) -> dict[int, bytes]:
        return {}

    def acknowledge(self, index: int, digest: bytes) -> None:
        pass


@dataclass(frozen=True)
class Took:
    """A measurement in seconds: elapsed time, processor time of this process, and of the receiver."""

    wall: float
    client: float
    server: float = 0.0
    blocks: int = 0
    snapshot: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size", type=int, default=2048, metavar="MIB", help="of the disk (default: 2048)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        raw, disk, changed = make(Path(directory), args.size * MIB)
        with Emulator(Path(directory) / "cloud", delay=0.02) as cloud, sink() as (url, pid):
            show(args.size * MIB, measure(cloud, (url, pid), (raw, disk, changed), args.runs))


def make(directory: Path, size: int) -> tuple[Path, Disk, Disk]:
    """Create the disk as a sparse raw file, as a qcow2, and as an overlay with 1 % of the data changed, not aligned to blocks."""
    chance = random.Random(1)
    raw = directory / "disk.raw"
    runs = chance.sample(range(size // RUN), round(size * DATA) // RUN)
    with raw.open("wb") as file:
        file.truncate(size)
        for run in runs:
            file.seek(run * RUN)
            file.write(secrets.token_bytes(RUN))
    disk = qemuimg.convert(Disk(raw, "raw", size), directory / "disk.qcow2", "qcow2")
    overlay = qemuimg.create_overlay(disk, directory / "changed.qcow2")
    places = [
        run * RUN + chance.randrange(RUN - CHANGE) // 4096 * 4096 for run in chance.sample(runs, round(size * DATA * CHANGED / CHANGE))
    ]
    commands = [part for place in places for part in ("-c", f"write -P {chance.randrange(1, 255)} {place} {CHANGE}")]
    subprocess.run(["qemu-io", "-f", "qcow2", *commands, overlay.path], check=True, capture_output=True)
    return raw, disk, overlay


def measure(cloud: Emulator, receiver: tuple[str, int], disks: tuple[Path, Disk, Disk], runs: int) -> dict[str, list[Took]]:
    """All measurements, `runs` times alternately, after one of each that does not count."""
    raw, disk, changed = disks
    assert cloud._process is not None
    emulator = cloud._process.pid
    url, pid = receiver
    os.environ |= cloud.env
    found: dict[str, list[Took]] = {}
    aws, plain = CloudAws(cloud), Aws(Access(region=REGION, endpoint_url=url))
    for number in range(runs + 1):
        took = {"hash": timed(0, lambda: whole(raw)), "hash data": timed(0, lambda: data_only(disk))}
        took["emulator"] = timed(emulator, lambda: upload(aws, disk))
        first = took["emulator"].snapshot
        took["changed"] = timed(emulator, lambda first=first: upload(aws, changed, disk, first))  # type: ignore[misc]
        took["sink"] = timed(pid, lambda: send(plain, "snap-1", disk))
        for name, one in took.items():
            if number:
                found.setdefault(name, []).append(one)
        cloud.reset()
    return found


def whole(raw: Path) -> Took:
    with raw.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    return Took(0, 0)


def data_only(disk: Disk) -> Took:
    """Read and hash, block by block, the data that an upload reads."""
    with open_raw(disk) as reader:
        blocks = ebs.Blocks(reader)
        for index in blocks.indices():
            data = blocks.changed(index)
            if data is not None:
                hashlib.sha256(data).digest()
    return Took(0, 0)


def upload(aws: Aws, disk: Disk, below: Disk | None = None, parent: str = "") -> Took:
    """From StartSnapshot until the snapshot is complete."""
    snapshot = ebs.start(aws, ebs.Start(REGION, disk.virtual_size, secrets.token_hex(8), parent=parent))
    sent = send(aws, snapshot, disk, below)
    ebs.complete(aws, REGION, snapshot, sent.digests, clock=Clock())
    return Took(0, 0, blocks=sent.sent, snapshot=snapshot)


def send(aws: Aws, snapshot: str, disk: Disk, below: Disk | None = None) -> ebs.Sent:
    with open_raw(disk) as reader:
        if below is None:
            return _send(aws, snapshot, ebs.Blocks(reader))
        with open_raw(below) as other:
            return _send(aws, snapshot, ebs.Blocks(reader, other))


def _send(aws: Aws, snapshot: str, blocks: ebs.Blocks) -> ebs.Sent:
    return ebs.send(aws, REGION, snapshot, blocks, Forgetful(), report=Reporter(Null()), clock=Clock())


def timed(server: int, action: Callable[[], Took | ebs.Sent]) -> Took:
    before, started, there = os.times(), time.perf_counter(), processor(server)
    result = action()
    wall, after = time.perf_counter() - started, os.times()
    client = after.user + after.system - before.user - before.system
    sent = result.blocks if isinstance(result, Took) else result.sent
    return Took(wall, client, processor(server) - there, sent, result.snapshot if isinstance(result, Took) else "")


def processor(pid: int) -> float:
    """Seconds of processor time that another process has used."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def sink() -> Iterator[tuple[str, int]]:
    """The receiver's address and process."""
    argv = [sys.executable, "-m", "bench.sink"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}", process.pid
        process.stdin.close()


def show(size: int, found: dict[str, list[Took]]) -> None:
    wall = {name: statistics.median(one.wall for one in took) for name, took in found.items()}
    blocks = found["emulator"][0].blocks
    data = blocks * ebs.BLOCK
    print(f"a disk of {size // MIB} MiB, {data // MIB} MiB of it data ({blocks} blocks); medians of {len(found['hash'])} runs")
    print(f"{'':<44}{'seconds':>8}{'MiB/s':>8}{'ratio':>8}{'of data':>8}{'client':>8}{'server':>8}")
    lines = (
        ("plain reading + SHA-256 of the raw file", "hash", size),
        ("  of its data only, block by block", "hash data", data),
        ("upload to the emulator, until complete", "emulator", data),
        ("upload to a receiver that checks checksums", "sink", data),
        ("upload of 1 % changes, until complete", "changed", found["changed"][0].blocks * ebs.BLOCK),
    )
    for title, name, size_of in lines:
        client = statistics.median(one.client for one in found[name])
        server = statistics.median(one.server for one in found[name])
        ratios = f"{wall['hash'] / wall[name]:8.2f}{wall['hash data'] / wall[name]:8.2f}"
        print(f"{title:<44}{wall[name]:8.2f}{size_of / MIB / wall[name]:8.0f}{ratios}{client:8.2f}{server:8.2f}")
    part = found["changed"][0].blocks / blocks
    print(f"goal: ratio >= {GOAL_RATIO}: {wall['hash'] / wall['emulator']:.2f}")
    print(f"goal: 1 % changed sends <= {GOAL_PART:.0%} of the blocks: {part:.2%}")


if __name__ == "__main__":
    main()
