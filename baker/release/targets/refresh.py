"""Instance refreshes: start one with a desired configuration, follow it to its end, cancel it or roll it back.

When the refresh succeeds, AWS makes the desired configuration the group's own. When it fails, AWS restores the former one if AutoRollback
is set. Neither depends on bake still running
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
    """AWS's RefreshPreferences. Values that the strategy does not give are left to the group."""
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
        """The refreshes that AWS still knows (those of the last six weeks), the last started first."""
        with self._asking("the instance refreshes"):
            return list(self._client.describe_instance_refreshes(AutoScalingGroupName=self.group)["InstanceRefreshes"])

    def get(self, identifier: str) -> Mapping[str, Any] | None:
        """One refresh, or None when AWS does not show it."""
        with self._asking(f"instance refresh {identifier}"):
            answer = self._client.describe_instance_refreshes(AutoScalingGroupName=self.group, InstanceRefreshIds=[identifier])
        return next(iter(answer["InstanceRefreshes"]), None)

    def check_idle(self) -> None:
        """Raise BusyError while any instance refresh of the group is running."""
        for one in self.all():
            if one["Status"] in RUNNING:
                raise BusyError(
                    f"instance refresh {one['InstanceRefreshId']} of auto-scaling group {self.group} is {one['Status']}",
                    hint=f"wait for it, or: aws autoscaling cancel-instance-refresh --auto-scaling-group-name {self.group}",
                    code="release.refresh-running",
                )

    def to(self, wanted: Mapping[str, Any], after: str = "") -> str | None:
        """The last refresh that was started with the configuration `wanted`, after the refresh `after`; None when there is none."""
        for one in self.all():
            if one["InstanceRefreshId"] == after:
                return None
            if one.get("DesiredConfiguration") and _same(one["DesiredConfiguration"], wanted):
                return str(one["InstanceRefreshId"])
        return None

    def start(self, wanted: Mapping[str, Any], asked: Mapping[str, Any], after: str = "") -> str:
        """Start a refresh to the configuration `wanted` with the preferences `asked`, and return its ID. BusyError when another one runs.

        When the answer to a first request was lost, AWS reports our own refresh as being in progress. It is recognized by its
        configuration and by its start after the refresh `after`.
        """
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
                raise BusyError(
                    f"another instance refresh of auto-scaling group {self.group} is in progress",
                    hint=f"wait for it, or: aws autoscaling cancel-instance-refresh --auto-scaling-group-name {self.group}",
                    code="release.refresh-running",
                ) from error
            raise
        return str(answer["InstanceRefreshId"])

    def follow(self, identifier: str, report: Reporter, *, total: int, timeout: float) -> Mapping[str, Any]:
        """Report the progress of a refresh until it ends, with success or not, and return it. AwsError ("Timeout") after `timeout`
        seconds."""
        reported = ""

        def look() -> Mapping[str, Any] | None:
            nonlocal reported
            found = self.get(identifier)
            if found is None:
                return None  # not visible yet
            status = f"{found['Status']}: {found['StatusReason']}" if found.get("StatusReason") else str(found["Status"])
            if status != reported:
                reported = status
                report.info(f"instance refresh {identifier}: {status}")
            left = found.get("InstancesToUpdate")
            report.progress(LABEL, max(total - left, 0) if left is not None and total else 0, total, "items")
            return None if found["Status"] in RUNNING else found

        return waiter.wait(look, f"instance refresh {identifier} of {self.group}", timeout=timeout, clock=self.clock, first=2.0)

    def stop(self, identifier: str, *, roll_back: bool) -> None:
        """Ask AWS to roll back or cancel a running refresh. Does nothing when it has ended or is being rolled back already."""
        try:
            with self._asking(f"the {'roll-back' if roll_back else 'cancellation'} of instance refresh {identifier}"):
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
    """The error for a refresh that has ended, or None if it succeeded."""
    status = str(ended["Status"])
    if status == "Successful":
        return None
    reason = ended.get("RollbackDetails", {}).get("RollbackReason") or ended.get("StatusReason") or "AWS gives no reason"
    words = {
        "RollbackSuccessful": "failed, and AWS rolled it back",
        "RollbackFailed": "failed, and AWS's rollback failed too",
        "Cancelled": "was cancelled",
    }
    return ReleaseError(
        f"instance refresh {ended['InstanceRefreshId']} of auto-scaling group {group} {words.get(status, 'failed')}: {reason}",
        hint=f"aws autoscaling describe-scaling-activities --auto-scaling-group-name {group}",
        restored=status == "RollbackSuccessful",
        code="release.refresh-failed",
    )


def _same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two configurations use the same launch template version. `found` may have more keys: AWS adds the template's name."""
    return bool(specification(found)) and all(
        str(specification(found).get(key)) == str(value) for key, value in specification(wanted).items()
    )


def specification(configuration: Mapping[str, Any]) -> Mapping[str, Any]:
    """The launch template specification of a group or a desired configuration, with or without a mixed instances policy."""
    mixed = configuration.get("MixedInstancesPolicy")
    found: Mapping[str, Any] = mixed["LaunchTemplate"]["LaunchTemplateSpecification"] if mixed else configuration.get("LaunchTemplate", {})
    return found


def _seconds(value: float | None) -> int | None:
    return None if value is None else round(value)
