"""The target asg/NAME: an EC2 auto-scaling group. A new numbered launch-template version with the AMI, then an instance refresh to it.

The group is pinned to a number, never to $Latest or $Default: a number is what AWS can roll back to, and what a machine that scales
out in the middle of something else gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from baker.aws.errors import AwsError, translated
from baker.core.errors import NotFoundError, UsageError
from baker.release.targets import templates
from baker.release.targets.aws import AwsTarget
from baker.release.targets.base import Delivery, ReleaseError, ReleaseProgress, Strategy
from baker.release.targets.refresh import RUNNING, Refreshes, failure, preferences, specification

TIMEOUT = 6 * 3600.0  # of the whole refresh, without the delays that were asked for
FOLLOWED = ("$Latest", "$Default")


class AutoScalingGroup(AwsTarget):
    """One group of the account and region that the credentials and `access` name."""

    heeds = frozenset(
        {
            "min_healthy", "max_healthy", "warm_up", "checkpoints", "checkpoint_delay", "bake_time", "alarms", "skip_matching",
            "auto_rollback", "timeout",
        }
    )  # fmt: skip

    @cached_property
    def refreshes(self) -> Refreshes:
        return Refreshes(self.name, self.aws, self.region, self.clock)

    # -- what is there --------------------------------------------------------------------------------------------------------

    def look(self) -> Mapping[str, Any]:
        """The launch template and the number of the version that the group starts instances from now, and how many it wants."""
        group = self._group()
        said = _specification_of(group)
        wanted = str(said.get("Version") or "$Default")
        present = templates.version(self.aws, self.region, {"LaunchTemplateId": said["LaunchTemplateId"]}, wanted)
        self.refreshes.check_idle()
        return {
            "template": present.template,
            "template_name": present.name,
            "version": present.number,
            "followed": wanted if wanted in FOLLOWED else "",
            "ami": present.ami,
            "by_parameter": present.by_parameter,
            "desired": int(group.get("DesiredCapacity", 0)),
        }

    def check(self, delivery: Delivery) -> None:
        templates.check_image(self.aws, self.region, delivery, self._version(delivery.before))

    def found(self, delivery: Delivery, journal: ReleaseProgress) -> str:
        refresh = self._refresh(delivery, journal)
        if refresh is not None:
            done = f", {refresh['PercentageComplete']} %" if "PercentageComplete" in refresh else ""
            return f"instance refresh {refresh['InstanceRefreshId']} is {refresh['Status']}{done}"
        if journal.details.get("version"):
            name = delivery.before["template_name"]
            return f"version {journal.details['version']} of launch template {name} was made, no instance refresh was started"
        return "nothing was changed"

    # -- bringing in ----------------------------------------------------------------------------------------------------------

    def start(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        before = delivery.before
        if before["followed"] and not journal.details.get("version"):  # or it would follow to the new version at once
            journal.report.info(f"{self.name} followed {before['followed']}: pinned to version {before['version']}")
            self._pin(before["template"], before["version"])
        number = templates.make_version(self.aws, self.region, self._version(before), delivery, journal)
        if journal.details.get("refresh") or (journal.details.get("starting_refresh") and self._adopt(number, before, journal)):
            return
        journal.note(starting_refresh=True)
        asked = preferences(delivery.strategy, auto_rollback=_by_aws(delivery))
        journal.note(refresh=self.refreshes.start(self._wanted(before["template"], number), asked))

    def wait(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        with journal.report.stage("refresh", f"{self.name} to version {journal.details['version']}"):
            self._follow(str(journal.details["refresh"]), delivery, journal, _patience(delivery.strategy))
        before, said = delivery.before, _specification_of(self._group())
        former = {str(before["version"]), before["followed"]}
        if said["LaunchTemplateId"] == before["template"] and str(said.get("Version") or "$Default") in former:
            self._pin(before["template"], int(journal.details["version"]))  # else AWS has done so, or somebody has gone further since

    def _follow(self, identifier: str, delivery: Delivery, journal: ReleaseProgress, timeout: float) -> None:
        try:
            ended = self.refreshes.follow(identifier, journal.report, total=int(delivery.before["desired"]), timeout=timeout)
        except AwsError as error:
            if error.aws_code != "Timeout":
                raise
            if not delivery.strategy.auto_rollback:  # nobody else ends it, and it would go on under a release that has failed
                self.refreshes.stop(identifier, roll_back=False)
            raise ReleaseError(error.message, hint="--timeout gives it more time") from error
        problem = failure(self.name, ended)
        if problem:
            raise problem

    def _adopt(self, number: int, before: Mapping[str, Any], journal: ReleaseProgress) -> bool:
        """Whether an attempt before this one did start the refresh, which is noted then."""
        identifier = self.refreshes.to(self._wanted(before["template"], number))
        if identifier:
            journal.note(refresh=identifier)
        return bool(identifier)

    # -- bringing back --------------------------------------------------------------------------------------------------------

    def restore(self, delivery: Delivery, journal: ReleaseProgress) -> bool:
        before, refresh = delivery.before, self._refresh(delivery, journal)
        if refresh is None:
            return False  # no machine has met the new version
        if refresh["Status"] in RUNNING and self._stopped_by_aws(refresh, delivery, journal):
            return True
        if refresh["Status"] == "RollbackSuccessful":
            return True
        self._pin(before["template"], before["version"])
        wanted = self._wanted(before["template"], before["version"])
        identifier, failed = journal.details.get("restoring"), str(refresh["InstanceRefreshId"])
        if not identifier and journal.details.get("starting_restore"):  # a former release may have been to this version, too
            identifier = self.refreshes.to(wanted, after=failed)
        if not identifier:
            journal.note(starting_restore=True)
            strategy = delivery.strategy
            plain = Strategy(min_healthy=strategy.min_healthy, max_healthy=strategy.max_healthy, warm_up=strategy.warm_up)
            identifier = self.refreshes.start(wanted, preferences(plain, auto_rollback=False) | {"SkipMatching": True}, failed)
            journal.note(restoring=identifier)
        self._follow(str(identifier), delivery, journal, TIMEOUT)
        return True

    def _stopped_by_aws(self, refresh: Mapping[str, Any], delivery: Delivery, journal: ReleaseProgress) -> bool:
        """End a refresh that still runs; True when AWS brought the former version back by that."""
        identifier = str(refresh["InstanceRefreshId"])
        if refresh["Status"] not in ("Cancelling", "RollbackInProgress"):
            self.refreshes.stop(identifier, roll_back=_by_aws(delivery))
        total = int(delivery.before["desired"])
        ended = self.refreshes.follow(identifier, journal.report, total=total, timeout=TIMEOUT)
        return bool(ended["Status"] == "RollbackSuccessful")

    # -- the group itself -----------------------------------------------------------------------------------------------------

    def _group(self) -> Mapping[str, Any]:
        client = self.aws.client("autoscaling", self.region)
        with translated(f"auto-scaling group {self.name} in {self.region}"):
            found = client.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])["AutoScalingGroups"]
            if found:
                return dict(found[0])
            names = [one["AutoScalingGroupName"] for one in client.describe_auto_scaling_groups(MaxRecords=20)["AutoScalingGroups"]]
        there = f"there are {', '.join(sorted(names))}" if names else "there is none at all"
        raise NotFoundError(f"there is no auto-scaling group {self.name!r} in {self.region} (account {self.account})", hint=there)

    def _refresh(self, delivery: Delivery, journal: ReleaseProgress) -> Mapping[str, Any] | None:
        """The refresh of this release, noted or not."""
        identifier, number = journal.details.get("refresh"), journal.details.get("version")
        if not identifier and number and journal.details.get("starting_refresh"):
            identifier = self.refreshes.to(self._wanted(delivery.before["template"], int(number)))
        return self.refreshes.get(str(identifier)) if identifier else None

    def _version(self, before: Mapping[str, Any]) -> templates.Version:
        return templates.version(self.aws, self.region, {"LaunchTemplateId": before["template"]}, str(before["version"]))

    def _wanted(self, template: str, number: int) -> dict[str, Any]:
        """The group's configuration with that version, everything else of a mixed instances policy kept."""
        pinned = {"LaunchTemplateId": template, "Version": str(number)}
        policy = self._group().get("MixedInstancesPolicy")
        if not policy:
            return {"LaunchTemplate": pinned}
        return {"MixedInstancesPolicy": {**policy, "LaunchTemplate": {**policy["LaunchTemplate"], "LaunchTemplateSpecification": pinned}}}

    def _pin(self, template: str, number: int) -> None:
        """Have the group start its next instances from that version."""
        said = _specification_of(self._group())
        if (said["LaunchTemplateId"], str(said.get("Version"))) == (template, str(number)):
            return
        with translated(f"auto-scaling group {self.name} in {self.region}"):
            self.aws.client("autoscaling", self.region).update_auto_scaling_group(
                AutoScalingGroupName=self.name, **self._wanted(template, number)
            )


def _specification_of(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """Which launch template a group uses. UsageError for a group that can be given no new AMI by a version of one template."""
    name = group["AutoScalingGroupName"]
    if group.get("LaunchConfigurationName"):
        raise UsageError(
            f"auto-scaling group {name} uses launch configuration {group['LaunchConfigurationName']}, which cannot have versions",
            hint="give the group a launch template (in the EC2 console: Launch configurations, Copy to launch template)",
        )
    overrides = (group.get("MixedInstancesPolicy") or {}).get("LaunchTemplate", {}).get("Overrides", [])
    own = [str(one.get("InstanceType", "an override")) for one in overrides if one.get("LaunchTemplateSpecification")]
    if own:
        raise UsageError(
            f"in auto-scaling group {name} {', '.join(own)} has a launch template of its own: which one gets the image?",
            hint="one group per architecture, or overrides without LaunchTemplateSpecification",
        )
    found = specification(group)
    if not found.get("LaunchTemplateId"):
        raise UsageError(f"auto-scaling group {name} has no launch template", hint="give it one")
    return found


def _by_aws(delivery: Delivery) -> bool:
    """Whether AWS rolls back by itself: it cannot to a version whose AMI is named by an SSM parameter; bake does that then."""
    return delivery.strategy.auto_rollback and not delivery.before["by_parameter"]


def _patience(strategy: Strategy) -> float:
    """Seconds until a refresh is taken for stuck."""
    if strategy.timeout is not None:
        return strategy.timeout
    delays = (strategy.checkpoint_delay if strategy.checkpoint_delay is not None else 3600.0) * len(strategy.checkpoints)
    return TIMEOUT + delays + (strategy.bake_time or 0.0)
