"""The actions of auto scaling that moto takes too lightly."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult, EmptyResult

from tests.ec2 import groups
from tests.ec2.launching import complete, launchable
from tests.ec2.paging import page
from tests.ec2.refusals import Refused


def create_auto_scaling_group(self: Any) -> ActionResult:
    name = self._get_param("AutoScalingGroupName")
    if name in self.autoscaling_backend.autoscaling_groups:
        raise Refused("AlreadyExists", f"AutoScalingGroup by this name already exists - {name}")
    _template_exists(self)
    _moto(self, "create_auto_scaling_group")
    return EmptyResult()


def _template_exists(self: Any) -> None:
    """The template, the version and its image."""
    named = self._get_param("LaunchTemplate")
    if named:
        try:
            data = complete(self.region, {"LaunchTemplate": dict(named)})
            launchable(self.region, data.get("ImageId"))
        except Exception as error:
            raise groups.fully_formed(error) from error


def update_auto_scaling_group(self: Any) -> ActionResult:
    name = self._get_param("AutoScalingGroupName")
    group = self.autoscaling_backend.autoscaling_groups.get(name)
    if group is None:
        raise Refused("ValidationError", f"AutoScalingGroup name not found - null: {name}")
    _template_exists(self)
    if any(refresh.active for refresh in getattr(group, "refreshes", [])) and self._get_param("LaunchTemplate"):
        running = next(refresh for refresh in group.refreshes if refresh.active)
        if running.desired:
            raise Refused("ResourceContention", "an instance refresh with a desired configuration is in progress")
    _moto(self, "update_auto_scaling_group")
    return EmptyResult()


def _moto(self: Any, action: str) -> None:
    from moto.autoscaling.responses import AutoScalingResponse

    getattr(AutoScalingResponse, f"moto_{action}")(self)


def delete_auto_scaling_group(self: Any) -> ActionResult:
    name = self._get_param("AutoScalingGroupName")
    group = self.autoscaling_backend.autoscaling_groups.get(name)
    if group is None:
        raise Refused("ValidationError", f"AutoScalingGroup name not found - {name}")
    if group.instance_states and not self._get_param("ForceDelete"):
        raise Refused(
            "ResourceInUse",
            "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the group.",
        )
    del self.autoscaling_backend.autoscaling_groups[name]
    for member in list(group.instance_states):
        member.instance.terminate()
    return EmptyResult()


def describe_auto_scaling_groups(self: Any) -> ActionResult:
    names, filters = self._get_param("AutoScalingGroupNames") or [], self._get_param("Filters") or []
    found = self.autoscaling_backend.describe_auto_scaling_groups(names, filters=filters)
    for group in found:
        group.instance_states = [member for member in group.instance_states if member.instance.state != "terminated"]
    self.params.setdefault("MaxResults", self._get_param("MaxRecords") or 50)
    shown, token = page(found, self)
    return ActionResult({"AutoScalingGroups": shown, "NextToken": token})
