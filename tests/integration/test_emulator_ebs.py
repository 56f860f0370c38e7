"""The emulator's EBS direct APIs: stricter than moto's, with real bytes."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.ec2 import Emulator
from tests.support.until import until

BLOCK = 512 * 1024


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("cloud")) as found:
        yield found


@pytest.fixture
def ebs(cloud: Emulator) -> Any:
    cloud.reset()
    return cloud.as_bake("ebs")


def checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def put(ebs: Any, snapshot: str, index: int, data: bytes, **changes: Any) -> None:
    wanted = {"DataLength": BLOCK, "Checksum": checksum(data), "ChecksumAlgorithm": "SHA256"} | changes
    ebs.put_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockData=data, **wanted)


def complete(cloud: Emulator, ebs: Any, snapshot: str, count: int, **more: Any) -> None:
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=count, **more)
    ec2 = cloud.client("ec2")
    until(
        lambda: ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] != "pending",
        30,
        f"the snapshot {snapshot} is not pending any more",
    )


def test_blocks_come_back(cloud: Emulator, ebs: Any) -> None:
    started = ebs.start_snapshot(VolumeSize=1, Description="of a test", Tags=[{"Key": "bake:build", "Value": "b1"}])
    snapshot = started["SnapshotId"]
    assert (started["BlockSize"], started["Status"]) == (BLOCK, "pending")
    one, two = b"1" * BLOCK, b"2" * BLOCK
    put(ebs, snapshot, 0, one)
    put(ebs, snapshot, 2047, two)
    digests = hashlib.sha256(one).digest() + hashlib.sha256(two).digest()
    complete(cloud, ebs, snapshot, 2, Checksum=checksum(digests), ChecksumAlgorithm="SHA256", ChecksumAggregationMethod="LINEAR")
    listed = ebs.list_snapshot_blocks(SnapshotId=snapshot)
    assert [block["BlockIndex"] for block in listed["Blocks"]] == [0, 2047]
    got = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=2047, BlockToken=listed["Blocks"][1]["BlockToken"])
    assert got["BlockData"].read() == two
    assert got["Checksum"] == checksum(two)
    described = cloud.client("ec2").describe_snapshots(Filters=[{"Name": "tag:bake:build", "Values": ["b1"]}])["Snapshots"]
    assert [(found["SnapshotId"], found["State"], found["VolumeSize"]) for found in described] == [(snapshot, "completed", 1)]
    assert (cloud.directory / "snapshots" / f"{snapshot}.raw").stat().st_blocks * 512 < 4 * BLOCK


def test_a_child_shares_what_it_does_not_write(cloud: Emulator, ebs: Any) -> None:
    first = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    for index in (0, 1, 2):
        put(ebs, first, index, bytes([index + 1]) * BLOCK)
    complete(cloud, ebs, first, 3)
    second = ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=first)["SnapshotId"]
    put(ebs, second, 1, b"x" * BLOCK)
    put(ebs, second, 7, b"y" * BLOCK)
    complete(cloud, ebs, second, 2)
    changed = ebs.list_changed_blocks(FirstSnapshotId=first, SecondSnapshotId=second)["ChangedBlocks"]
    assert [(block["BlockIndex"], "FirstBlockToken" in block) for block in changed] == [(1, True), (7, False)]
    blocks = {block["BlockIndex"]: block["BlockToken"] for block in ebs.list_snapshot_blocks(SnapshotId=second)["Blocks"]}
    assert sorted(blocks) == [0, 1, 2, 7]
    cloud.client("ec2").delete_snapshot(SnapshotId=first)
    assert ebs.get_snapshot_block(SnapshotId=second, BlockIndex=2, BlockToken=blocks[2])["BlockData"].read() == b"\x03" * BLOCK


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"Checksum": checksum(b"other")}, "Checksum is not"),
        ({"DataLength": 512}, "DataLength"),
    ],
)
def test_blocks_that_are_refused(ebs: Any, changes: dict[str, Any], says: str) -> None:
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    with pytest.raises(ClientError, match=says):
        put(ebs, snapshot, 0, b"a" * BLOCK, **changes)
    with pytest.raises(ClientError, match="beyond"):
        put(ebs, snapshot, 2048, b"a" * BLOCK)


def test_completions_that_are_refused(cloud: Emulator, ebs: Any) -> None:
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    put(ebs, snapshot, 0, b"a" * BLOCK)
    with pytest.raises(ClientError, match="ChangedBlocksCount is 2, but 1"):
        ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=2)
    with pytest.raises(ClientError, match="Checksum is not"):
        ebs.complete_snapshot(
            SnapshotId=snapshot,
            ChangedBlocksCount=1,
            Checksum=checksum(b"no"),
            ChecksumAlgorithm="SHA256",
            ChecksumAggregationMethod="LINEAR",
        )
    with pytest.raises(ClientError, match="is pending"):
        ebs.list_snapshot_blocks(SnapshotId=snapshot)
    complete(cloud, ebs, snapshot, 1)
    with pytest.raises(ClientError, match="takes no blocks"):
        put(ebs, snapshot, 1, b"a" * BLOCK)
    with pytest.raises(ClientError, match="does not exist") as error:
        put(ebs, "snap-0123", 1, b"a" * BLOCK)
    assert error.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_a_client_token_starts_one_snapshot(cloud: Emulator, ebs: Any) -> None:
    one = ebs.start_snapshot(VolumeSize=1, ClientToken="t")["SnapshotId"]
    assert ebs.start_snapshot(VolumeSize=1, ClientToken="t")["SnapshotId"] == one
    with pytest.raises(ClientError, match="ConflictException"):
        ebs.start_snapshot(VolumeSize=2, ClientToken="t")
    cloud.faults.add("StartSnapshot", "reset")
    two = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    assert len(cloud.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 2
    assert two != one
    assert cloud.faults.fired == ["ebs:StartSnapshot reset"]


def test_faults(cloud: Emulator, ebs: Any) -> None:
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    cloud.faults.add("PutSnapshotBlock", "RequestLimitExceeded")
    cloud.faults.add("PutSnapshotBlock", "NotFound", skip=2)
    put(ebs, snapshot, 0, b"a" * BLOCK)  # botocore asks again
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        put(ebs, snapshot, 0, b"a" * BLOCK)
    cloud.faults.add("CompleteSnapshot", "snapshot-error")
    complete(cloud, ebs, snapshot, 1)
    assert cloud.client("ec2").describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] == "error"
    assert [call["action"] for call in cloud.calls].count("PutSnapshotBlock") == 3


def test_a_parameter_that_nobody_reads_is_refused(cloud: Emulator) -> None:
    with pytest.raises(ClientError, match="EmulatorDoesNotRead"):
        cloud.as_bake("ec2").describe_vpn_gateways()
    assert cloud.unread == ["ec2:DescribeVpnGateways"]


def test_the_blocks_of_a_disk_file(cloud: Emulator, ebs: Any, tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as file:
        file.write(b"boot")
        file.seek(3 * BLOCK + 17)
        file.write(b"data")
        file.truncate(1 << 30)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, tmp_path / "disk.qcow2"], check=True)
    image = cloud.seed_image(size=1, disk=tmp_path / "disk.qcow2")
    snapshot = cloud.client("ec2").describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    blocks = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    assert [block["BlockIndex"] for block in blocks] == [0, 3]
    got = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=3, BlockToken=blocks[1]["BlockToken"])["BlockData"].read()
    assert got[17:21] == b"data"
