"""AWS sessions for the emulator, inside of a test's process."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from typing import Any

from baker.aws.session import Access, Aws
from baker.core.clock import Clock
from tests.ec2 import Emulator, keys

IMPATIENT = Clock(sleep=lambda seconds: time.sleep(min(seconds, 0.02)))  # real time, short pauses


class CloudAws(Aws):
    """A session with the emulator's keys, independent of the environment."""

    def __init__(self, cloud: Emulator, access: Access | None = None) -> None:
        wanted = replace(access or Access(), endpoint_url=cloud.url)
        wanted = wanted if wanted.region else replace(wanted, region=cloud.region)
        super().__init__(wanted, IMPATIENT, _session(wanted.region))


@cache
def _session(region: str | None) -> Any:
    """Shared by all tests of a process: botocore reads its large descriptions of services once for each."""
    import boto3

    return boto3.Session(aws_access_key_id=keys.BAKE, aws_secret_access_key="secret", region_name=region)


def snapshot_bytes(cloud: Emulator, snapshot: str, region: str | None = None) -> dict[int, bytes]:
    """The content of a snapshot: block number -> bytes."""
    ebs = cloud.client("ebs", region)
    blocks = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    return {
        block["BlockIndex"]: ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"])[
            "BlockData"
        ].read()
        for block in blocks
    }
