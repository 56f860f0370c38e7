"""bake's way into the emulated AWS, within a test's own process."""

from __future__ import annotations

import time
from functools import cache, cached_property
from typing import Any

from baker.aws.session import Access, Aws
from baker.clock import Clock
from tests.ec2 import Emulator, keys


class CloudAws(Aws):
    """A session with the emulator's keys, whatever the environment says."""

    def __init__(self, cloud: Emulator, access: Access | None = None) -> None:
        wanted = access or Access()
        super().__init__(Access(region=wanted.region or cloud.region, endpoint_url=cloud.url))

    @cached_property
    def _session(self) -> Any:
        return _session(self.access.region)


@cache
def _session(region: str | None) -> Any:
    """Shared by all tests of a process: botocore reads its large descriptions of services once for each."""
    import boto3

    return boto3.Session(aws_access_key_id=keys.BAKE, aws_secret_access_key="secret", region_name=region)


IMPATIENT = Clock(sleep=lambda seconds: time.sleep(min(seconds, 0.02)))  # real time, short pauses


def snapshot_bytes(cloud: Emulator, snapshot: str, region: str | None = None) -> dict[int, bytes]:
    """What EBS has of a snapshot: block number -> bytes."""
    ebs = cloud.client("ebs", region)
    blocks = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    return {
        block["BlockIndex"]: ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"])[
            "BlockData"
        ].read()
        for block in blocks
    }
