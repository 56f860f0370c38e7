"""Uploads of disks to the emulated EBS: whole, as a difference, after a kill, through throttling, lost answers and failures."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest

from baker.aws import ebs
from baker.aws.blocks import BlockWriter
from baker.aws.errors import AwsError
from baker.aws.resources import reclaim, track
from baker.aws.session import Access, Aws
from baker.aws.upload import Base, Request, Uploaded, Uploader
from baker.aws.upload_checkpoint import UploadCheckpoint
from baker.core.clock import Clock
from baker.core.events import Memory, Progress, Reporter
from baker.core.ledger import Ledger
from baker.core.model import Disk
from baker.disks import qemuimg
from baker.disks.raw import open_raw
from tests.ec2 import Emulator
from tests.support.aws import IMPATIENT, CloudAws, snapshot_bytes
from tests.support.disks import create_qcow2

MIB = 1 << 20
REGION = "eu-central-1"
TICKET = {"digest": "sha256:1"}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("cloud"), delay=0.02) as found:
        yield found


@pytest.fixture
def cloud(emulator: Emulator) -> Emulator:
    emulator.reset()
    return emulator


def write(disk: Disk, *commands: str) -> Disk:
    argv = ["qemu-io", "-f", disk.format, *(part for command in commands for part in ("-c", command)), str(disk.path)]
    subprocess.run(argv, check=True, capture_output=True)
    return disk


@pytest.fixture
def base(tmp_path: Path) -> Disk:
    return write(create_qcow2(tmp_path / "base", 16 * MIB), "write -P 1 0 8M", "write -P 2 12M 64k")


@pytest.fixture
def delta(tmp_path: Path, base: Disk) -> Disk:
    return write(qemuimg.create_overlay(base, tmp_path / "delta"), "write -P 3 512k 512k", "write -z 1M 512k", "write -P 4 15M 1k")


@dataclass
class Desk:
    """Where an upload is done from."""

    cloud: Emulator
    root: Path
    memory: Memory

    @property
    def journal(self) -> UploadCheckpoint:
        return UploadCheckpoint(self.root / "journal")

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.root / "ledger")

    @contextmanager
    def uploader(self, run: str = "run1", *, threads: int = 4) -> Iterator[Uploader]:
        aws = CloudAws(self.cloud)
        with self.ledger.open(run) as ledger:
            yield Uploader(aws, self.journal, track(ledger, aws), Reporter(self.memory), IMPATIENT, threads)

    def upload(self, request: Request, **options: Any) -> Uploaded:
        with self.uploader(**options) as uploader:
            return uploader.upload(request)

    def puts(self) -> int:
        return [call["action"] for call in self.cloud.calls].count("PutSnapshotBlock")


@pytest.fixture
def desk(cloud: Emulator, tmp_path: Path) -> Desk:
    return Desk(cloud, tmp_path / "desk", Memory())


def asked(disk: Disk, **changes: Any) -> Request:
    return replace(Request(REGION, disk, TICKET, "web-1.0.0", "a web server", {"team": "shop"}), **changes)


def disk_blocks(disk: Disk) -> dict[int, bytes]:
    """What a snapshot of the disk has to hold: the blocks that are not zeros."""
    with open_raw(disk) as reader:
        found = {index: reader.pread(index * ebs.BLOCK, ebs.BLOCK) for index in range(-(-reader.size // ebs.BLOCK))}
    return {index: data for index, data in found.items() if any(data)}


def holds(cloud: Emulator, snapshot: str, disk: Disk) -> bool:
    found = snapshot_bytes(cloud, snapshot)
    return {index: data for index, data in found.items() if any(data)} == disk_blocks(disk)


def test_a_whole_disk(desk: Desk, cloud: Emulator, base: Disk) -> None:
    uploaded = desk.upload(asked(base))
    assert holds(cloud, uploaded.snapshot, base)
    assert (uploaded.looked_at, uploaded.changed, uploaded.sent, uploaded.base) == (17, 17, 17, "")
    (snapshot,) = cloud.client("ec2").describe_snapshots(SnapshotIds=[uploaded.snapshot])["Snapshots"]
    assert (snapshot["State"], snapshot["VolumeSize"], snapshot["Description"], snapshot["Encrypted"]) == (
        "completed",
        1,
        "a web server",
        False,
    )
    assert {tag["Key"]: tag["Value"] for tag in snapshot["Tags"]} == {"team": "shop", "bake:build": "run1"}
    progress = [event for event in desk.memory.events if isinstance(event, Progress)]
    assert (progress[-1].done, progress[-1].total, progress[-1].unit) == (17 * ebs.BLOCK, 17 * ebs.BLOCK, "bytes")
    assert cloud.unread == []


def test_an_empty_disk(desk: Desk, cloud: Emulator, tmp_path: Path) -> None:
    uploaded = desk.upload(asked(create_qcow2(tmp_path / "empty", MIB)))
    assert snapshot_bytes(cloud, uploaded.snapshot) == {}


def test_only_the_difference_to_a_base_is_sent(desk: Desk, cloud: Emulator, base: Disk, delta: Disk) -> None:
    first = desk.upload(asked(base))
    desk.journal.forget()
    cloud.clear_calls()
    second = desk.upload(asked(delta, bases=(Base(first.snapshot, "image", base),)), run="run2")
    assert (second.base, second.changed, second.sent, desk.puts()) == (first.snapshot, 3, 3, 3)
    assert holds(cloud, second.snapshot, delta)


def test_the_base_that_shares_most_is_taken(desk: Desk, cloud: Emulator, base: Disk, delta: Disk, tmp_path: Path) -> None:
    bases = []
    for number, disk in enumerate((create_qcow2(tmp_path / "other", 16 * MIB), base, delta)):
        bases.append(Base(desk.upload(asked(disk), run=f"run{number}").snapshot, str(number), disk))
        desk.journal.forget()
    last = write(qemuimg.create_overlay(delta, tmp_path / "last"), "write -P 7 2M 512k")
    uploaded = desk.upload(asked(last, bases=tuple(bases)))
    assert (uploaded.base, uploaded.sent) == (bases[2].snapshot, 1)
    assert holds(cloud, uploaded.snapshot, last)


def test_a_base_that_is_gone_or_too_large_is_no_base(desk: Desk, cloud: Emulator, base: Disk, tmp_path: Path) -> None:
    large = write(create_qcow2(tmp_path / "large", 2 << 30), "write -P 1 0 8M", "write -P 2 12M 64k")
    too_large = Base(desk.upload(asked(large)).snapshot, "large", large)
    desk.journal.forget()
    uploaded = desk.upload(asked(base, bases=(Base("snap-0123456789abcdef0", "gone", base), too_large)), run="run2")
    assert uploaded.base == ""
    assert holds(cloud, uploaded.snapshot, base)


def test_a_base_that_aws_refuses_means_that_everything_is_sent(desk: Desk, cloud: Emulator, base: Disk, delta: Disk) -> None:
    first = desk.upload(asked(base))
    desk.journal.forget()
    cloud.faults.add("StartSnapshot", "NotFound")
    uploaded = desk.upload(asked(delta, bases=(Base(first.snapshot, "image", base),)), run="run2")
    assert uploaded.base == ""
    assert holds(cloud, uploaded.snapshot, delta)
    assert any("uploading all blocks" in str(event) for event in desk.memory.events)
    assert len(cloud.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 2


def test_encryption(desk: Desk, cloud: Emulator, base: Disk) -> None:
    key = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    uploaded = desk.upload(asked(base, kms_key=key))
    (snapshot,) = cloud.client("ec2").describe_snapshots(SnapshotIds=[uploaded.snapshot])["Snapshots"]
    assert (snapshot["Encrypted"], snapshot["KmsKeyId"]) == (True, key)


# --- what goes wrong -----------------------------------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
from dataclasses import replace
from pathlib import Path
from baker.core.clock import Clock
from baker.aws.resources import track
from baker.aws.upload import Request, Uploader
from baker.core.events import Null, Reporter
from baker.aws.session import Access, Aws
from baker.core.ledger import Ledger
from baker.core.model import Disk
from baker.aws.upload_checkpoint import UploadCheckpoint

wanted = json.loads(sys.argv[1])


class Deadly(UploadCheckpoint):
    count = 0

    def acknowledge(self, index, digest):
        super().acknowledge(index, digest)
        Deadly.count += 1
        if Deadly.count == wanted["after"]:
            os.kill(os.getpid(), signal.SIGKILL)

    def save(self, state):
        if state.target and not wanted["after"]:
            os.kill(os.getpid(), signal.SIGKILL)
        super().save(state)


aws = Aws(Access(region="eu-central-1"))
with Ledger(Path(wanted["ledger"])).open("run1") as ledger:
    uploader = Uploader(aws, Deadly(Path(wanted["journal"])), track(ledger, aws), Reporter(Null()), Clock(), 3)
    disk = Disk(Path(wanted["disk"]), "qcow2", wanted["size"])
    uploader.upload(Request("eu-central-1", disk, {"digest": "sha256:1"}, "web-1.0.0", "a web server", {"team": "shop"}))
"""


def kill(desk: Desk, disk: Disk, after: int) -> None:
    """Begin an upload in a process that SIGKILL ends after so many blocks; 0: before it knows its snapshot's id."""
    wanted: dict[str, Any] = {"ledger": str(desk.ledger.root), "journal": str(desk.journal.directory), "disk": str(disk.path)}
    wanted |= {"size": disk.virtual_size, "after": after}
    ended = subprocess.run([sys.executable, "-c", KILLED, json.dumps(wanted)], env={**os.environ, **desk.cloud.env}, check=False)
    assert ended.returncode == -signal.SIGKILL


def test_a_killed_upload_is_gone_on_with(desk: Desk, cloud: Emulator, base: Disk) -> None:
    kill(desk, base, after=9)
    before = desk.journal.load()
    assert before is not None
    there = len(desk.journal.acknowledged())
    assert there >= 9
    cloud.clear_calls()
    uploaded = desk.upload(asked(base))
    assert uploaded.snapshot == before.target
    assert (uploaded.changed, uploaded.sent, desk.puts()) == (17, 17 - there, 17 - there)
    assert holds(cloud, uploaded.snapshot, base)
    assert len(cloud.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 1


def test_what_was_killed_before_it_knew_its_snapshot_leaves_none_behind(desk: Desk, cloud: Emulator, base: Disk) -> None:
    kill(desk, base, after=0)
    uploaded = desk.upload(asked(base))
    assert [one["SnapshotId"] for one in cloud.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]] == [uploaded.snapshot]
    assert holds(cloud, uploaded.snapshot, base)


@pytest.mark.parametrize("after", [0, 5])
def test_what_was_killed_is_in_the_ledger(desk: Desk, cloud: Emulator, base: Disk, after: int) -> None:
    kill(desk, base, after)
    with desk.ledger.dead("run1") as build:
        assert build is not None
        assert {entry.kind for entry in build.entries} == {"ami:snapshot"}
        for entry in build.entries:
            assert reclaim(entry.kind, entry.details, CloudAws(cloud))
    assert cloud.inventory() == {}


def test_another_disk_is_not_gone_on_with(desk: Desk, cloud: Emulator, base: Disk, delta: Disk) -> None:
    kill(desk, base, after=5)
    before = desk.journal.load()
    uploaded = desk.upload(asked(delta, ticket={"digest": "sha256:2"}))
    assert before is not None
    assert uploaded.snapshot != before.target
    assert holds(cloud, uploaded.snapshot, delta)


def test_a_record_that_is_not_true_is_not_believed(desk: Desk, cloud: Emulator, base: Disk) -> None:
    kill(desk, base, after=5)
    journal = desk.journal
    journal.acknowledge(16, hashlib.sha256(b"other").digest())
    journal.acknowledge(24, hashlib.sha256(b"other").digest())
    journal.close()
    assert holds(cloud, desk.upload(asked(base)).snapshot, base)


def test_a_snapshot_that_was_sealed_already_is_taken(desk: Desk, cloud: Emulator, base: Disk) -> None:
    first = desk.upload(asked(base))
    cloud.clear_calls()
    again = desk.upload(asked(base))
    assert again.snapshot == first.snapshot
    assert desk.puts() == 0


PASSING = [
    *((action, kind) for action in ("StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot") for kind in ("reset", "InternalError")),
    *((action, "RequestLimitExceeded") for action in ("StartSnapshot", "CompleteSnapshot", "DescribeSnapshots")),
    *((action, "NotFound") for action in ("PutSnapshotBlock", "DescribeSnapshots")),
]


@pytest.mark.parametrize(("action", "kind"), PASSING)
def test_what_passes_is_survived(desk: Desk, cloud: Emulator, base: Disk, action: str, kind: str) -> None:
    cloud.faults.add(action, kind, times=2)
    uploaded = desk.upload(asked(base))
    assert holds(cloud, uploaded.snapshot, base)
    assert len(cloud.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 1
    assert cloud.faults.fired


def test_throttling_slows_all_threads(desk: Desk, cloud: Emulator, base: Disk) -> None:
    cloud.faults.add("PutSnapshotBlock", "RequestLimitExceeded", times=6, skip=2)
    assert holds(cloud, desk.upload(asked(base)).snapshot, base)
    assert len(cloud.faults.fired) == 6


@pytest.mark.parametrize("action", ["StartSnapshot", "CompleteSnapshot"])
def test_a_snapshot_that_ends_as_an_error(desk: Desk, cloud: Emulator, base: Disk, action: str) -> None:
    cloud.faults.add(action, "snapshot-error")
    with desk.uploader() as uploader:
        with pytest.raises(AwsError, match=r"snap-\w+"):
            uploader.upload(asked(base))
        uploader.resources.release(region=REGION)
    assert cloud.inventory() == {}
    assert desk.ledger.dead_builds() == ()


def test_one_refused_block_stops_all(desk: Desk, cloud: Emulator, base: Disk) -> None:
    cloud.faults.add("PutSnapshotBlock", "InvalidParameterValue", skip=3)
    with pytest.raises(AwsError, match="block "):
        desk.upload(asked(base))
    assert desk.puts() < 4 + 4


def test_what_cannot_be_given_back_stays_in_the_ledger_and_is_told(desk: Desk, cloud: Emulator, base: Disk) -> None:
    cloud.faults.add("DeleteSnapshot", "AccessDenied")
    because = RuntimeError("why")
    with desk.uploader() as uploader:
        uploaded = uploader.upload(asked(base))
        uploader.resources.release_after(because, region=REGION)
    (note,) = because.__notes__
    assert uploaded.snapshot in note
    assert "bake sweep" in note
    assert desk.ledger.dead_builds() == ("run1",)


def test_what_is_not_visible_yet_is_given_back(desk: Desk, cloud: Emulator, base: Disk) -> None:
    with desk.uploader() as uploader:
        uploader.upload(asked(base))
        cloud.faults.add("DescribeSnapshots", "NotFound", times=2)
        uploader.resources.release(region=REGION)
    assert len(cloud.faults.fired) == 2
    assert (cloud.inventory(), desk.ledger.dead_builds()) == ({}, ())


def test_what_another_run_has_taken_over_is_left_alone(desk: Desk, cloud: Emulator, base: Disk) -> None:
    with desk.uploader() as uploader:
        snapshot = uploader.upload(asked(base)).snapshot
        cloud.client("ec2").create_tags(Resources=[snapshot], Tags=[{"Key": "bake:build", "Value": "other"}])
        uploader.resources.release(region=REGION)
    assert list(cloud.inventory()[REGION]["snapshots"]) == [snapshot]


def test_each_block_is_hashed_once(desk: Desk, base: Disk) -> None:
    """What is signed is the block's own checksum."""
    digest = hashlib.sha256(b"1" * ebs.BLOCK).digest()
    writer = BlockWriter(CloudAws(desk.cloud), REGION, "snap-1", IMPATIENT)
    request = writer._request(3, b"1" * ebs.BLOCK, "checksum", digest.hex())
    assert request.headers["X-Amz-Content-SHA256"] == digest.hex()
    assert "x-amz-content-sha256" in str(request.headers["Authorization"])


class _Receiver(BaseHTTPRequestHandler):
    """Takes blocks as AWS does."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("x-amz-Checksum", self.headers["x-amz-Checksum"])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_line_that_is_down_for_a_moment_is_waited_for() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver, bind_and_activate=False)
    server.server_bind()  # and nobody listens: connections are refused

    def up(seconds: float) -> None:
        server.server_activate()
        threading.Thread(target=server.serve_forever, daemon=True).start()

    session = boto3.Session(aws_access_key_id="key", aws_secret_access_key="secret", region_name=REGION)
    aws = Aws(Access(REGION, endpoint_url=f"http://127.0.0.1:{server.server_port}"), session=session)
    data = b"1" * ebs.BLOCK
    BlockWriter(aws, REGION, "snap-1", Clock(sleep=up)).put(3, data, hashlib.sha256(data).digest())
    assert aws.calls["ebs:PutSnapshotBlock"] == 2
    server.shutdown()
    server.server_close()


def test_requests_are_counted(desk: Desk, base: Disk) -> None:
    with desk.uploader() as uploader:
        uploader.upload(asked(base))
        assert uploader.aws.calls["ebs:PutSnapshotBlock"] == 17
