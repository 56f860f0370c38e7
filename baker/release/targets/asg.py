"""The target asg/NAME: an EC2 auto-scaling group. A release makes a launch template version with the AMI and refreshes the group to it.

The group is pinned to a version number, never to $Latest or $Default: AWS can roll back only to a number, and an instance that starts
during a release then gets a defined version.
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

TIMEOUT = 6 * 3600.0  # seconds for a whole refresh, in addition to the delays of its strategy
FOLLOWED = ("$Latest", "$Default")


class AutoScalingGroup(AwsTarget):
    """One group in the account and region that `access` and the environment select."""

    heeds = frozenset(
        {
            "min_healthy", "max_healthy", "warm_up", "checkpoints", "checkpoint_delay", "bake_time", "alarms", "skip_matching",
            "auto_rollback", "timeout",
        }
    )  # fmt: skip

    @cached_property
    def refreshes(self) -> Refreshes:
        return Refreshes(self.name, self.aws, self.region, self.clock)

    # -- the present state ----------------------------------------------------------------------------------------------------

    def look(self) -> Mapping[str, Any]:
        """The launch template and the version number that the group now starts instances from, and its desired capacity."""
        group = self._group()
        used = _specification_of(group)
        wanted = str(used.get("Version") or "$Default")
        present = templates.version(self.aws, self.region, {"LaunchTemplateId": used["LaunchTemplateId"]}, wanted)
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
            return f"version {journal.details['version']} of launch template {name} was made, but no instance refresh was started"
        return "nothing was changed"

    # -- roll out -------------------------------------------------------------------------------------------------------------

    def start(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        before = delivery.before
        if before["followed"] and not journal.details.get("version"):  # else the group would start instances from the new version at once
            journal.report.info(f"{self.name} used {before['followed']}: pinning it to version {before['version']}")
            self._pin(before["template"], before["version"])
        number = templates.make_version(self.aws, self.region, self._version(before), delivery, journal)
        if journal.details.get("refresh") or (journal.details.get("starting_refresh") and self._adopt(number, before, journal)):
            return
        journal.note(starting_refresh=True)
        asked = preferences(delivery.strategy, auto_rollback=_by_aws(delivery))
        journal.note(refresh=self.refreshes.start(self._wanted(before["template"], number), asked))

    def wait(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        with journal.report.stage("refresh", f"{self.name} to version {journal.details['version']}"):
            self._follow(str(journal.details["refresh"]), delivery, journal, _timeout(delivery.strategy))
        before, used = delivery.before, _specification_of(self._group())
        former = {str(before["version"]), before["followed"]}
        if used["LaunchTemplateId"] == before["template"] and str(used.get("Version") or "$Default") in former:
            self._pin(before["template"], int(journal.details["version"]))  # else AWS or somebody else has already changed the version

    def _follow(self, identifier: str, delivery: Delivery, journal: ReleaseProgress, timeout: float) -> None:
        try:
            ended = self.refreshes.follow(identifier, journal.report, total=int(delivery.before["desired"]), timeout=timeout)
        except AwsError as error:
            if error.aws_code != "Timeout":
                raise
            if not delivery.strategy.auto_rollback:  # the refresh would otherwise continue after its release has failed
                self.refreshes.stop(identifier, roll_back=False)
            raise ReleaseError(error.message, hint="--timeout allows more time", code="release.timeout") from error
        problem = failure(self.name, ended)
        if problem:
            raise problem

    def _adopt(self, number: int, before: Mapping[str, Any], journal: ReleaseProgress) -> bool:
        """Find and note the refresh that an earlier attempt started. Returns whether there is one."""
        identifier = self.refreshes.to(self._wanted(before["template"], number))
        if identifier:
            journal.note(refresh=identifier)
        return bool(identifier)

    # -- roll back ------------------------------------------------------------------------------------------------------------

    def restore(self, delivery: Delivery, journal: ReleaseProgress) -> bool:
        before, refresh = delivery.before, self._refresh(delivery, journal)
        if refresh is None:
            return False  # no instance was started from the new version
        if refresh["Status"] in RUNNING and self._stopped_by_aws(refresh, delivery, journal):
            return True
        if refresh["Status"] == "RollbackSuccessful":
            return True
        self._pin(before["template"], before["version"])
        wanted = self._wanted(before["template"], before["version"])
        identifier, failed = journal.details.get("restoring"), str(refresh["InstanceRefreshId"])
        if not identifier and journal.details.get("starting_restore"):  # `after`: an older release may have used this version, too
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
        """End a refresh that is still running. Returns whether AWS rolled it back to the former version."""
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
        hint = f"there are {', '.join(sorted(names))}" if names else "there are no auto-scaling groups at all"
        raise NotFoundError(
            f"there is no auto-scaling group {self.name!r} in {self.region} (account {self.account})",
            hint=hint,
            code="release.group-missing",
        )

    def _refresh(self, delivery: Delivery, journal: ReleaseProgress) -> Mapping[str, Any] | None:
        """The refresh of this release, also when the process ended before it noted the ID; None when there is none."""
        identifier, number = journal.details.get("refresh"), journal.details.get("version")
        if not identifier and number and journal.details.get("starting_refresh"):
            identifier = self.refreshes.to(self._wanted(delivery.before["template"], int(number)))
        return self.refreshes.get(str(identifier)) if identifier else None

    def _version(self, before: Mapping[str, Any]) -> templates.Version:
        return templates.version(self.aws, self.region, {"LaunchTemplateId": before["template"]}, str(before["version"]))

    def _wanted(self, template: str, number: int) -> dict[str, Any]:
        """The group's desired configuration with version `number`. The rest of a mixed instances policy is kept."""
        pinned = {"LaunchTemplateId": template, "Version": str(number)}
        policy = self._group().get("MixedInstancesPolicy")
        if not policy:
            return {"LaunchTemplate": pinned}
        return {"MixedInstancesPolicy": {**policy, "LaunchTemplate": {**policy["LaunchTemplate"], "LaunchTemplateSpecification": pinned}}}

    def _pin(self, template: str, number: int) -> None:
        """Make the group start its next instances from version `number`."""
        used = _specification_of(self._group())
        if (used["LaunchTemplateId"], str(used.get("Version"))) == (template, str(number)):
            return
        with translated(f"auto-scaling group {self.name} in {self.region}"):
            self.aws.client("autoscaling", self.region).update_auto_scaling_group(
                AutoScalingGroupName=self.name, **self._wanted(template, number)
            )


def _specification_of(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """The launch template specification of a group. UsageError when a version of a single template cannot give the group a new AMI."""
    name = group["AutoScalingGroupName"]
    if group.get("LaunchConfigurationName"):
        raise UsageError(
            f"auto-scaling group {name} uses launch configuration {group['LaunchConfigurationName']}, which cannot have versions",
            hint="give the group a launch template (in the EC2 console: Launch configurations, Copy to launch template)",
            code="release.launch-configuration",
        )
    overrides = (group.get("MixedInstancesPolicy") or {}).get("LaunchTemplate", {}).get("Overrides", [])
    own = [str(one.get("InstanceType", "an override")) for one in overrides if one.get("LaunchTemplateSpecification")]
    if own:
        raise UsageError(
            f"auto-scaling group {name} has several launch templates ({', '.join(own)} has its own): only one can get the image",
            hint="use one group per architecture, or overrides without LaunchTemplateSpecification",
            code="release.several-templates",
        )
    found = specification(group)
    if not found.get("LaunchTemplateId"):
        raise UsageError(f"auto-scaling group {name} has no launch template", hint="give it one", code="release.no-template")
    return found


def _by_aws(delivery: Delivery) -> bool:
    """Whether AWS rolls back by itself. It cannot roll back to a version that names its AMI by an SSM parameter; bake does it then."""
    return delivery.strategy.auto_rollback and not delivery.before["by_parameter"]


def _timeout(strategy: Strategy) -> float:
    """The seconds after which a refresh has failed."""
    if strategy.timeout is not None:
        return strategy.timeout
    delays = (strategy.checkpoint_delay if strategy.checkpoint_delay is not None else 3600.0) * len(strategy.checkpoints)
    return TIMEOUT + delays + (strategy.bake_time or 0.0)
