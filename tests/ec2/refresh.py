"""Instance refreshes: https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-overview.html, in seconds instead of minutes.

A refresh moves on at each request that comes: it launches as many new instances as MinHealthyPercentage and MaxHealthyPercentage let it,
sees
them run, terminates as many old ones, and waits at checkpoints. Waits (InstanceWarmup, CheckpointDelay, BakeTime) are cut to the
emulator's delay, for a test does not wait for minutes.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.ec2 import groups
from tests.ec2.launching import template_version
from tests.ec2.refusals import Refused
from tests.ec2.world import world

ACTIVE = ("Pending", "InProgress", "Cancelling", "RollbackInProgress", "Baking")
PREFERENCES = frozenset(
    {
        "MinHealthyPercentage", "MaxHealthyPercentage", "InstanceWarmup", "CheckpointPercentages", "CheckpointDelay", "SkipMatching",
        "AutoRollback",
        "ScaleInProtectedInstances", "StandbyInstances", "AlarmSpecification", "BakeTime",
    }
)  # fmt: skip


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass
class Refresh:
    """One refresh of a group. `target` and `before` are templates with numbered versions."""

    group: Any
    preferences: dict[str, Any]
    desired: dict[str, Any]
    target: dict[str, Any]
    before: dict[str, Any]
    will_fail: bool = False
    id: str = field(default_factory=lambda: f"{secrets.token_hex(4)}-{secrets.token_hex(2)}-{secrets.token_hex(6)}")
    status: str = "Pending"
    reason: str = ""
    started: datetime = field(default_factory=now)
    ended: datetime | None = None
    total: int = 0
    replaced: int = 0
    passed: set[int] = field(default_factory=set)
    doomed: list[Any] = field(default_factory=list)  # old ones that go once the new ones run
    rollback: str = ""

    @property
    def active(self) -> bool:
        return self.status in ACTIVE

    @property
    def percentage(self) -> int:
        return 100 if self.total == 0 else 100 * self.replaced // self.total

    def old(self) -> list[Any]:
        """Members that are still to be replaced."""
        skip = self.preferences.get("SkipMatching") and not self.rollback
        fresh = (
            [member for member in self.group.instance_states if member.refreshed == self.id + self.rollback]
            if self.group.instance_states
            else []
        )
        return [
            member for member in self.group.active_instances() if member not in fresh and not (skip and _same(member.template, self.target))
        ]

    def begin(self) -> None:
        for member in self.group.instance_states:
            member.refreshed = getattr(member, "refreshed", "")
        if self.status == "Pending":
            self.total, self.status = len(self.old()), "InProgress"
        world().later(self.step)

    def step(self) -> None:
        """One move; comes again until the refresh ends."""
        if not self.active:
            return
        if self.status == "Cancelling":
            self._end("Cancelled", "Cancelled on request")
            return
        coming = [member for member in self.group.instance_states if member.lifecycle_state == "Pending"]
        if not coming and self.doomed:
            self._terminate(self.doomed)
            self.doomed = []
        left = self.old()
        self.replaced = max(self.replaced, self.total - len(left))
        if self._broken():
            return
        if not left and not coming:
            self._finish()
            return
        if not coming and not self._at_checkpoint():
            self._replace(left)
        world().later(self.step)

    def _broken(self) -> bool:
        """Whether it has failed: an instance that does not come, or because a fault wants it so."""
        lost = [
            member for member in self.group.instance_states if member.refreshed and member.instance.state in ("shutting-down", "terminated")
        ]
        unwanted = [member for member in lost if not member.replaced_by_refresh]
        if not (unwanted or (self.will_fail and self.replaced > 0 and not self.rollback)):
            return False
        self.will_fail = False
        why = f"{len(unwanted)} instances failed to launch or did not pass their health checks" if unwanted else "an alarm went off"
        for member in unwanted:
            self.group.instance_states.remove(member)
        if self.preferences.get("AutoRollback") and not self.rollback:
            self.reason = f"{why}; rolling back"
            self.roll_back()
        else:
            self._end("RollbackFailed" if self.rollback else "Failed", why)
        return True

    def roll_back(self) -> None:
        self.rollback, self.status, self.target = "-back", "RollbackInProgress", self.before
        self.total, self.replaced = len([member for member in self.group.active_instances() if not _same(member.template, self.before)]), 0
        for member in self.group.instance_states:
            if _same(member.template, self.before):
                member.refreshed = self.id + self.rollback
        self._set_template(self.before)
        world().later(self.step)

    def _at_checkpoint(self) -> bool:
        """Each checkpoint holds the refresh for the delay once."""
        if self.rollback:
            return False
        for point in self.preferences.get("CheckpointPercentages", []):
            if self.percentage >= point and point not in self.passed and point < 100:
                self.passed.add(point)
                self.reason = f"waiting at checkpoint {point}%"
                return True
        return False

    def _replace(self, left: list[Any]) -> None:
        capacity = len(self.group.active_instances())
        lowest = math.ceil(capacity * self.preferences.get("MinHealthyPercentage", 90) / 100)
        highest = self.preferences.get("MaxHealthyPercentage")
        first = capacity * highest // 100 - capacity if highest else 0
        batch = min(len(left), max(1, first or capacity - lowest))
        if not highest:
            self._terminate(left[:batch])
        self.reason = "Waiting for instances to warm up"
        try:
            made = groups.add_instances(self.group, batch, {}, self.target)
        except Exception as error:
            self.reason = str(error)
            self.will_fail, self.replaced = True, max(1, self.replaced)
            return
        for member in made:
            member.refreshed = self.id + self.rollback
        if highest:
            self.doomed = left[:batch]

    def _terminate(self, members: list[Any]) -> None:
        for member in members:
            member.replaced_by_refresh = True
            if member in self.group.instance_states:
                self.group.instance_states.remove(member)
            member.instance.terminate()

    def _finish(self) -> None:
        self.replaced = self.total
        if self.rollback:
            self._end("RollbackSuccessful", self.reason)
            return
        if self.preferences.get("BakeTime") and self.status != "Baking":
            self.status, self.reason = "Baking", "Waiting for the bake time"
            world().later(self.step)
            return
        if self.desired:
            self._set_template(self.target)
        self._end("Successful", "")

    def _set_template(self, template: dict[str, Any]) -> None:
        found, version = template_version(
            self.group.region, {"LaunchTemplateId": template["LaunchTemplateId"], "Version": template["Version"]}
        )
        self.group.ec2_launch_template = found
        self.group.launch_template_version = self.group.provided_launch_template_version = str(version.number)

    def _end(self, status: str, reason: str) -> None:
        self.status, self.reason, self.ended = status, reason, now()

    def said(self) -> dict[str, Any]:
        """As DescribeInstanceRefreshes has it."""
        found: dict[str, Any] = {
            "InstanceRefreshId": self.id, "AutoScalingGroupName": self.group.name, "Status": self.status, "StatusReason": self.reason,
            "StartTime": self.started, "PercentageComplete": self.percentage, "InstancesToUpdate": self.total - self.replaced,
            "Preferences": self.preferences, "EndTime": self.ended,
        }  # fmt: skip
        if self.desired:
            found["DesiredConfiguration"] = self.desired
        if self.rollback:
            found["RollbackDetails"] = {
                "RollbackReason": self.reason, "RollbackStartTime": self.started, "PercentageCompleteOnRollback": self.percentage,
                "InstancesToUpdateOnRollback": self.total - self.replaced,
            }  # fmt: skip
        return {name: value for name, value in found.items() if value not in (None, "")}


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["LaunchTemplateId"], str(one["Version"])) == (other["LaunchTemplateId"], str(other["Version"]))


def start(group: Any, preferences: dict[str, Any], desired: dict[str, Any], strategy: str) -> Refresh:
    """Refused as StartInstanceRefresh refuses."""
    refreshes = group.__dict__.setdefault("refreshes", [])
    if any(refresh.active for refresh in refreshes):
        raise Refused(
            "InstanceRefreshInProgress", "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh."
        )
    if strategy != "Rolling":
        raise Refused("EmulatorDoesNot", f"refresh by {strategy}")
    if unknown := set(preferences) - PREFERENCES:
        raise Refused("EmulatorDoesNotRead", f"Preferences.{min(unknown)}")
    low, high = preferences.get("MinHealthyPercentage", 90), preferences.get("MaxHealthyPercentage")
    if not 0 <= low <= 100 or (high is not None and not (100 <= high <= 200 and high - low <= 100)):
        raise Refused("ValidationError", f"MinHealthyPercentage {low} and MaxHealthyPercentage {high}")
    before, target = groups.template_of(group), groups.template_of(group)
    if desired:
        named = desired.get("LaunchTemplate") or {}
        try:
            template, version = template_version(group.region, dict(named))
        except Exception as error:
            raise groups.fully_formed(error) from error
        target = {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name, "Version": str(version.number)}
    if preferences.get("AutoRollback"):
        _can_roll_back(group, desired)
    made = Refresh(group, preferences, desired, target, before, "refresh-failed" in world().effects)
    refreshes.append(made)
    world().later(made.begin)
    return made


def _can_roll_back(group: Any, desired: dict[str, Any]) -> None:
    """Only to a template whose version has a number and whose image is an id."""
    if not desired:
        raise Refused("ValidationError", "AutoRollback needs a desired configuration")
    given = [str(group.launch_template_version), str((desired.get("LaunchTemplate") or {}).get("Version", "$Default"))]
    if any(version.startswith("$") for version in given):
        raise Refused("ValidationError", "AutoRollback does not go with $Latest or $Default: the group must name a numbered version")
    for named in (groups.template_of(group), desired["LaunchTemplate"]):
        picked = {name: named[name] for name in ("LaunchTemplateId", "LaunchTemplateName", "Version") if name in named}
        if "LaunchTemplateId" in picked:
            picked.pop("LaunchTemplateName", None)
        if str(template_version(group.region, picked)[1].data.get("ImageId", "")).startswith("resolve:"):
            raise Refused("ValidationError", "AutoRollback does not go with an image that is a parameter")
