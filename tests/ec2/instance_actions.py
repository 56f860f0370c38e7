"""The actions of EC2 on instances, key pairs' and security groups' ends."""

from __future__ import annotations

import base64
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow

from tests.ec2.launching import launch
from tests.ec2.refusals import Refused
from tests.ec2.world import world

CONSOLE = "Linux version 6.12\r\ncloud-init: no machine runs behind this instance\r\n"


def run_instances(self: Any) -> ActionResult:
    wanted = dict(self.params)
    least, most = int(wanted["MinCount"]), int(wanted["MaxCount"])
    if not 1 <= least <= most:
        raise Refused("InvalidParameterValue", f"MinCount {least}, MaxCount {most}")
    self.error_on_dryrun()
    return ActionResult(launch(self.region, wanted, most))


def stop_instances(self: Any) -> ActionResult:
    self.error_on_dryrun()
    found = self.ec2_backend.get_multi_instances_by_id(self._get_param("InstanceIds") or [])
    _unprotected(found, "disable_api_stop", "Stop")
    changed = [(instance, instance.stop(bool(self._get_param("Force")))) for instance in found]
    return ActionResult({"StoppingInstances": [_changed(instance, before) for instance, before in changed]})


def start_instances(self: Any) -> ActionResult:
    self.error_on_dryrun()
    found = self.ec2_backend.get_multi_instances_by_id(self._get_param("InstanceIds") or [])
    changed = [(instance, instance.start()) for instance in found]
    return ActionResult({"StartingInstances": [_changed(instance, before) for instance, before in changed]})


def terminate_instances(self: Any) -> ActionResult:
    self.error_on_dryrun()
    ids = self._get_param("InstanceIds") or []
    found = self.ec2_backend.get_multi_instances_by_id(ids)
    _unprotected(found, "disable_api_termination", "Termination")
    changed = [(instance, instance.terminate()) for instance in found]
    from moto.autoscaling.models import autoscaling_backends

    autoscaling_backends[self.current_account][self.region].notify_terminate_instances(ids)
    return ActionResult({"TerminatingInstances": [_changed(instance, before) for instance, before in changed]})


def _unprotected(found: list[Any], attribute: str, what: str) -> None:
    for instance in found:
        if str(getattr(instance, attribute)).lower() == "true":
            raise Refused("OperationNotPermitted", f"The instance '{instance.id}' may not be ended: disableApi{what} is set")


def _changed(instance: Any, before: Any) -> dict[str, Any]:
    state = {"Code": instance.state_code, "Name": instance.state}
    return {"InstanceId": instance.id, "CurrentState": state, "PreviousState": {"Code": before.code, "Name": before.name}}


def get_console_output(self: Any) -> ActionResult:
    instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    text = instance.guest.console() if instance.guest is not None else CONSOLE.encode()
    said = Base64EncodedString(base64.b64encode(text[-64 * 1024 :]).decode())
    return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": said})


def delete_security_group(self: Any) -> ActionResult:
    name = self._get_param("GroupId") or self._get_param("GroupName")
    group = self.ec2_backend.get_security_group_by_name_or_id(name)
    if group is None:
        raise Refused("InvalidGroup.NotFound", f"The security group '{name}' does not exist")
    if group.name == "default":
        raise Refused("CannotDelete", f'the specified group: "{group.id}" name: "default" cannot be deleted by a user')
    users = [nic.id for nic in self.ec2_backend.enis.values() if group.id in [one.id for one in nic.group_set]]
    if users:
        raise Refused("DependencyViolation", f"resource {group.id} has a dependent object: {users[0]}")
    self.error_on_dryrun()
    self.ec2_backend.groups[group.vpc_id].pop(group.id)
    return ActionResult({"Return": True, "GroupId": group.id})


def delete_key_pair(self: Any) -> ActionResult:
    """By name or by id; that there is none is no error."""
    name, known = self._get_param("KeyName"), self._get_param("KeyPairId")
    self.error_on_dryrun()
    for key in [key for key in self.ec2_backend.key_pairs.values() if known == key.id or (name and name == key.key_name)]:
        self.ec2_backend.key_pairs.pop(key.key_name)
    return ActionResult({"Return": True, "KeyPairId": known})


def modify_instance_attribute(self: Any) -> ActionResult:
    """What is needed to change how an instance ends."""
    instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    self.error_on_dryrun()
    for name, attribute in (("DisableApiTermination", "disable_api_termination"), ("DisableApiStop", "disable_api_stop"),
                            ("InstanceInitiatedShutdownBehavior", "instance_initiated_shutdown_behavior"), ("EnaSupport",
                            "ena_support")):  # fmt: skip
        if self._get_param(name) is not None:
            setattr(instance, attribute, self._get_param(name)["Value"])
    return EmptyResult()


def authorize_security_group_ingress(self: Any) -> ActionResult:
    """moto's; and machines that run listen at the new ports."""
    from moto.ec2.responses import EC2Response

    said: ActionResult = EC2Response.moto_authorize_security_group_ingress(self)
    if world().settings.machines:
        from tests.ec2 import machines

        machines.rules_changed(self.ec2_backend)
    return said


def create_tags(self: Any) -> ActionResult:
    """On what there is only. Refused for the rest, in the code of its kind."""
    tags = {tag["Key"]: tag.get("Value", "") for tag in self._get_param("Tags") or []}
    if any(key.startswith("aws:") for key in tags):
        raise Refused("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
    ids = self._get_param("Resources") or []
    for name in ids:
        _exists(self.ec2_backend, name)
    self.error_on_dryrun()
    self.ec2_backend.create_tags(ids, tags)
    return EmptyResult()


def _exists(backend: Any, name: str) -> None:
    prefix = name.split("-", maxsplit=1)[0]
    known = {
        "i": ("InvalidInstanceID", backend.get_instance_by_id), "ami": ("InvalidAMIID", backend.amis.get),
        "snap": ("InvalidSnapshot", backend.snapshots.get), "vol": ("InvalidVolume", backend.volumes.get),
        "sg": ("InvalidGroup", backend.get_security_group_from_id), "eni": ("InvalidNetworkInterfaceID", backend.enis.get),
        "lt": ("InvalidLaunchTemplateId", backend.launch_templates.get),
        "key": ("InvalidKeyPair", {key.id: key for key in backend.key_pairs.values()}.get),
    }  # fmt: skip
    if prefix not in known:
        raise Refused("EmulatorDoesNot", f"tag {name}")
    kind, find = known[prefix]
    if find(name) is None:
        raise Refused(f"{kind}.NotFound", f"The ID '{name}' does not exist")
