"""The base class of the targets on AWS."""

from __future__ import annotations

from baker.aws.session import Access, Aws
from baker.core.clock import Clock


class AwsTarget:
    """A named target in the account and region that `access` and the environment select."""

    takes = "ami"

    def __init__(self, name: str, access: Access, clock: Clock, aws: Aws | None = None) -> None:
        self.name = name
        self.aws = aws or Aws(access)
        self.clock = clock

    @property
    def region(self) -> str:
        return self.aws.region

    @property
    def account(self) -> str:
        return self.aws.account
