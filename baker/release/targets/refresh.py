"""Instance refreshes: started with the configuration that is wanted, followed to their end, taken back.

AWS makes the wanted configuration the group's own once the refresh has succeeded, and with AutoRollback brings the former one back
when it fails, whether or not anybody still looks on
(https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-rollback.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baker.aws import waiter
from baker.aws.errors import AwsError, translated
from baker.aws.session import Aws
from baker.core.clock import Clock
from baker.core.errors import BusyError
from baker.core.events import Reporter
from baker.release.targets.base import ReleaseError, Strategy

RUNNING = ("Pending", "InProgress", "Baking", "Cancelling", "RollbackInProgress")
LABEL = "instances"


def preferences(strategy: Strategy, *, auto_rollback: bool) -> dict[str, Any]:
    """AWS's RefreshPreferences; what was not asked for is left to the group."""
    found: dict[str, Any] = {
        "MinHealthyPercentage": strategy.min_healthy,
        "MaxHealthyPercentage": strategy.max_healthy,
        "InstanceWarmup": _seconds(strategy.warm_up),
        "CheckpointPercentages": list(strategy.checkpoints) or None,
        "CheckpointDelay": _seconds(strategy.checkpoint_delay),
        "BakeTime": _seconds(strategy.bake_time),
        "AlarmSpecification": {"Alarms": list(strategy.alarms)} if strategy.alarms else None,
        "SkipMatching": strategy.skip_matching,
        "AutoRollback": auto_rollback,
    }
    return {name: value for name, value in found.items() if value is not None}


class Refreshes:
    """The instance refreshes of one auto-scaling group."""

    def __init__(self, group: str, aws: Aws, region: str, clock: Clock) -> None:
        self.group, self.aws, self.region, self.clock = group, aws, region, clock

    def all(self) -> list[Mapping[str, Any]]:
        """Those that AWS still knows (six weeks), last started first."""
        with self._asking("the instance refreshes"):
            return list(self._client.describe_instance_refreshes(AutoScalingGroupName=self.group)["InstanceRefreshes"])

    def get(self, identifier: str) -> Mapping[str, Any] | None:
        with self._asking(f"instance refresh {identifier}"):
            answer = self._client.describe_instance_refreshes(AutoScalingGroupName=self.group, InstanceRefreshIds=[identifier])
        return next(iter(answer["InstanceRefreshes"]), None)

    def check_idle(self) -> None:
        """BusyError while the group is being refreshed by anybody."""
        for one in self.all():
            if one["Status"] in RUNNING:
                raise BusyError(
                    f"instance refresh {one['InstanceRefreshId']} of auto-scaling group {self.group} is {one['Status']}",
                    hint=f"wait for it, or: aws autoscaling cancel-instance-refresh --auto-scaling-group-name {self.group}",
                )

    def to(self, wanted: Mapping[str, Any], after: str = "") -> str | None:
        """The refresh that was last started with this very configuration (and after the refresh `after`), if there is one."""
        for one in self.all():
            if one["InstanceRefreshId"] == after:
                return None
            if one.get("DesiredConfiguration") and _same(one["DesiredConfiguration"], wanted):
                return str(one["InstanceRefreshId"])
        return None

    def start(self, wanted: Mapping[str, Any], asked: Mapping[str, Any], after: str = "") -> str:
        """Start one to the configuration `wanted` with the preferences `asked`; its id. BusyError when another one has just begun.

        What AWS finds in progress is our own when the answer to a first request was lost: the same configuration, begun after `after`."""
        try:
            with self._asking("an instance refresh"):
                answer = self._client.start_instance_refresh(
                    AutoScalingGroupName=self.group, Strategy="Rolling", DesiredConfiguration=wanted, Preferences=asked
                )
        except AwsError as error:
            if error.aws_code.startswith("InstanceRefreshInProgress"):
                mine = self.to(wanted, after)
                if mine:
                    return mine
                raise BusyError(f"another instance refresh of auto-scaling group {self.group} has begun meanwhile") from error
            raise
        return str(answer["InstanceRefreshId"])

    def follow(self, identifier: str, report: Reporter, *, total: int, timeout: float) -> Mapping[str, Any]:
        """The refresh once it has ended, however; told as it goes. AwsError with code "Timeout"."""
        said = ""

        def look() -> Mapping[str, Any] | None:
            nonlocal said
            found = self.get(identifier)
            if found is None:
                return None  # not visible yet
            status = f"{found['Status']}: {found['StatusReason']}" if found.get("StatusReason") else str(found["Status"])
            if status != said:
                said = status
                report.info(f"instance refresh {identifier}: {status}")
            left = found.get("InstancesToUpdate")
            report.progress(LABEL, max(total - left, 0) if left is not None and total else 0, total, "items")
            return None if found["Status"] in RUNNING else found

        return waiter.wait(look, f"instance refresh {identifier} of {self.group}", timeout=timeout, clock=self.clock, first=2.0)

    def stop(self, identifier: str, *, roll_back: bool) -> None:
        """Have one that still runs rolled back by AWS, or just stopped. One that has ended, or is being rolled back, is left to it."""
        try:
            with self._asking(f"the end of instance refresh {identifier}"):
                if roll_back:
                    self._client.rollback_instance_refresh(AutoScalingGroupName=self.group)
                else:
                    self._client.cancel_instance_refresh(AutoScalingGroupName=self.group)
        except AwsError as error:
            if not error.aws_code.startswith(("ActiveInstanceRefreshNotFound", "IrreversibleInstanceRefresh")):
                raise

    @property
    def _client(self) -> Any:
        return self.aws.client("autoscaling", self.region)

    def _asking(self, what: str) -> Any:
        return translated(f"{what} of auto-scaling group {self.group} in {self.region}")


def failure(group: str, ended: Mapping[str, Any]) -> ReleaseError | None:
    """What is wrong with a refresh that has ended; None for one that succeeded."""
    status = str(ended["Status"])
    if status == "Successful":
        return None
    reason = ended.get("RollbackDetails", {}).get("RollbackReason") or ended.get("StatusReason") or "AWS says no reason"
    words = {
        "RollbackSuccessful": "failed, and AWS rolled it back",
        "RollbackFailed": "failed, and so did AWS's roll-back",
        "Cancelled": "was cancelled",
    }
    return ReleaseError(
        f"instance refresh {ended['InstanceRefreshId']} of auto-scaling group {group} {words.get(status, 'failed')}: {reason}",
        hint=f"aws autoscaling describe-scaling-activities --auto-scaling-group-name {group}",
        restored=status == "RollbackSuccessful",
    )


def _same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two configurations are of one launch-template version (AWS adds the template's name to what it is given)."""
    return bool(specification(found)) and all(
        str(specification(found).get(key)) == str(value) for key, value in specification(wanted).items()
    )


def specification(configuration: Mapping[str, Any]) -> Mapping[str, Any]:
    """The launch template's specification in a group or in a wanted configuration, in a mixed instances policy or not."""
    mixed = configuration.get("MixedInstancesPolicy")
    found: Mapping[str, Any] = mixed["LaunchTemplate"]["LaunchTemplateSpecification"] if mixed else configuration.get("LaunchTemplate", {})
    return found


def _seconds(value: float | None) -> int | None:
    return None if value is None else round(value)
