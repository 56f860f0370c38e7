"""What is put over moto's classes: own backends and models, and own answers for the actions that moto takes too lightly or lacks."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def install() -> None:
    """Once per process."""
    from moto.autoscaling.responses import AutoScalingResponse
    from moto.ec2.responses import EC2Response
    from moto.kms.responses import KmsResponse
    from moto.ssm.responses import SimpleSystemManagerResponse
    from moto.sts.responses import TokenResponse

    from tests.ec2 import (
        group_actions,
        image_actions,
        image_attributes,
        instance_actions,
        key_actions,
        parameter_actions,
        quota_actions,
        refresh_actions,
        role_actions,
        snapshot_actions,
        spot_actions,
        template_actions,
    )

    _models()
    for module in (image_actions, image_attributes, snapshot_actions, instance_actions, template_actions, spot_actions):
        _answer(EC2Response, module)
    for module in (group_actions, refresh_actions):
        _answer(AutoScalingResponse, module)
    _answer(SimpleSystemManagerResponse, parameter_actions)
    _answer(KmsResponse, key_actions)
    _answer(TokenResponse, role_actions)
    quota_actions.install()


def _models() -> None:
    from moto.autoscaling.models import FakeAutoScalingGroup
    from moto.ec2.models import instances as moto_instances
    from moto.ec2.models.launch_templates import LaunchTemplate

    from tests.ec2 import groups, template_actions
    from tests.ec2.instances import StrictInstance

    moto_instances.Instance = StrictInstance
    LaunchTemplate.get_version = template_actions.version_of
    LaunchTemplate.create_version = template_actions.new_version
    FakeAutoScalingGroup.active_instances = groups.active_instances
    FakeAutoScalingGroup.replace_autoscaling_group_instances = groups.add_instances


def _answer(response: Any, module: ModuleType) -> None:
    """The public functions of a module that take `self` alone are actions; moto's own is kept as moto_NAME."""
    for name, function in list(vars(module).items()):
        code = getattr(function, "__code__", None)
        if (
            code
            and function.__module__ == module.__name__
            and not name.startswith("_")
            and code.co_varnames[: code.co_argcount] == ("self",)
        ):
            if hasattr(response, name):
                setattr(response, f"moto_{name}", getattr(response, name))
            setattr(response, name, function)


def end() -> None:
    """Nothing stays behind."""
    from tests.ec2.world import world

    if world().settings.machines:
        from tests.ec2 import machines

        machines.end_all()
