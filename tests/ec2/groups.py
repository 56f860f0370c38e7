"""Auto-scaling groups whose instances come from the launch template version that the group names."""

from __future__ import annotations

from typing import Any

from moto.autoscaling.models import ASG_NAME_TAG, FakeAutoScalingGroup, InstanceState

from tests.ec2.launching import complete, launch
from tests.ec2.refusals import Refused


class Member(InstanceState):  # type: ignore[misc]
    """An instance of a group, with the template version that it was launched from and the refresh that brought it."""

    refreshed = ""
    replaced_by_refresh = False

    def __init__(self, instance: Any, group: Any, template: dict[str, Any]) -> None:
        instance.autoscaling_group = group
        self._given, self.template = "InService", template
        super().__init__(instance, protected_from_scale_in=group.new_instances_protected_from_scale_in)

    @property
    def lifecycle_state(self) -> str:
        state = self.instance.state
        return {"pending": "Pending", "running": self._given}.get(state, "Terminating")

    @lifecycle_state.setter
    def lifecycle_state(self, value: str) -> None:
        self._given = value

    @property
    def launch_template(self) -> dict[str, Any] | None:
        return self.template


def active_instances(self: FakeAutoScalingGroup) -> list[Any]:
    """What counts towards the capacity: also those that are coming."""
    return [member for member in self.instance_states if member.lifecycle_state in ("Pending", "InService")]


def template_of(group: FakeAutoScalingGroup) -> dict[str, Any]:
    """The group's template with the version's number."""
    template = group.ec2_launch_template
    version = template.get_version(group.launch_template_version)
    return {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name, "Version": str(version.number)}


def add_instances(group: FakeAutoScalingGroup, count: int, tags: dict[str, str], template: dict[str, Any] | None = None) -> list[Member]:
    """In place of moto's replace_autoscaling_group_instances."""
    if group.ec2_launch_template is None:
        raise Refused("EmulatorDoesNot", "launch from launch configurations")
    named = template or template_of(group)
    subnets = (group.vpc_zone_identifier or "").split(",")
    made = []
    for index in range(count):
        wanted: dict[str, Any] = {"LaunchTemplate": {"LaunchTemplateId": named["LaunchTemplateId"], "Version": named["Version"]}}
        data = complete(group.region, wanted)
        if subnets[0]:
            cards = data.get("NetworkInterfaces")
            subnet = subnets[index % len(subnets)]
            wanted |= {"NetworkInterfaces": [{**cards[0], "SubnetId": subnet}]} if cards else {"SubnetId": subnet}
        reservation = launch(group.region, wanted, 1, {**tags, **group.get_propagated_tags(), ASG_NAME_TAG: group.name})
        made += [Member(instance, group, named) for instance in reservation.instances]
    group.instance_states.extend(made)
    return made


def fully_formed(error: Exception) -> Refused:
    message = getattr(error, "message", str(error))
    return Refused("ValidationError", f"You must use a valid fully-formed launch template. {message}")
