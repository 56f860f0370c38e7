"""The target ssm//PATH: an SSM parameter of data type aws:ec2:image, which launch templates name as resolve:ssm:/PATH.

PutParameter returns before Parameter Store has validated the AMI; the new value becomes visible some seconds later if it is valid
(https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-ec2-aliases.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baker.aws import waiter
from baker.aws.errors import AwsError, translated
from baker.core.errors import UsageError
from baker.release.targets.aws import AwsTarget
from baker.release.targets.base import Delivery, ReleaseError, ReleaseProgress

DATA_TYPE = "aws:ec2:image"
TIMEOUT = 120.0  # seconds for Parameter Store to validate the AMI


class Parameter(AwsTarget):
    """One parameter in the account and region that `access` and the environment select. A release creates it if it does not exist."""

    heeds = frozenset({"auto_rollback", "timeout"})

    def look(self) -> Mapping[str, Any]:
        """The parameter's value, None when it does not exist yet. UsageError when it is not a String."""
        found = self._get()
        if found is not None and found.get("Type") != "String":
            raise UsageError(
                f"SSM parameter {self.name} has the type {found.get('Type')}, but the ID of an AMI needs a String",
                hint="name another parameter",
                code="release.parameter-type",
            )
        return {"value": found["Value"] if found else None, "ami": found["Value"] if found else ""}

    def check(self, delivery: Delivery) -> None:
        """Check nothing: Parameter Store itself validates the AMI."""

    def start(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        journal.note(putting=True)
        self._put(delivery.reference)

    def wait(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        self._until(delivery.reference, delivery)

    def restore(self, delivery: Delivery, journal: ReleaseProgress) -> bool:
        former, found = delivery.before["value"], self._get()
        if found is None or found["Value"] == former:
            return False
        if former is None:
            self._delete()
            return True
        self._put(former)
        self._until(former, delivery)
        return True

    def found(self, delivery: Delivery, journal: ReleaseProgress) -> str:
        parameter = self._get()
        return f"the parameter is {parameter['Value']}" if parameter else "the parameter does not exist"

    def _until(self, value: str, delivery: Delivery) -> None:
        """Wait until the parameter has `value`."""

        def look() -> bool | None:
            found = self._get()
            return True if found is not None and found["Value"] == value else None

        timeout = TIMEOUT if delivery.strategy.timeout is None else delivery.strategy.timeout
        try:
            waiter.wait(look, f"SSM parameter {self.name}", timeout=timeout, clock=self.clock)
        except AwsError as error:
            if error.aws_code != "Timeout":
                raise
            raise ReleaseError(
                f"Parameter Store did not accept {value} for {self.name} within {timeout:.0f} s",
                hint="it accepts only AMIs of this region that the account may use",
                code="release.parameter-refused",
            ) from error

    def _put(self, value: str) -> None:
        with translated(f"SSM parameter {self.name} in {self.region}"):
            self.aws.client("ssm", self.region).put_parameter(
                Name=self.name, Value=value, Type="String", DataType=DATA_TYPE, Overwrite=True
            )

    def _delete(self) -> None:
        try:
            with translated(f"SSM parameter {self.name} in {self.region}"):
                self.aws.client("ssm", self.region).delete_parameter(Name=self.name)
        except AwsError as error:
            if not error.missing:  # missing: an earlier request succeeded, but its answer was lost
                raise

    def _get(self) -> Mapping[str, Any] | None:
        try:
            with translated(f"SSM parameter {self.name} in {self.region}"):
                return dict(self.aws.client("ssm", self.region).get_parameter(Name=self.name)["Parameter"])
        except AwsError as error:
            if error.missing:
                return None
            raise
