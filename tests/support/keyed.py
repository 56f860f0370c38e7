"""AWS sessions with the emulator's keys instead of those of the environment, for tests inside of one process."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from baker.aws.session import Access, Aws
from tests.ec2 import Emulator, keys


class KeyedAws(Aws):
    """A session with the emulator `cloud`."""

    def __init__(self, cloud: Emulator, region: str | None = None) -> None:
        super().__init__(Access(region=region or cloud.region, endpoint_url=cloud.url))

    @cached_property
    def _session(self) -> Any:
        import boto3

        return boto3.Session(aws_access_key_id=keys.BAKE, aws_secret_access_key="secret", region_name=self.access.region)
