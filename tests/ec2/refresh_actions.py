"""The actions of auto scaling on instance refreshes, which moto lacks."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult

from tests.ec2 import refresh
from tests.ec2.paging import page
from tests.ec2.refusals import Refused


def _group(self: Any) -> Any:
    name = self._get_param("AutoScalingGroupName")
    found = self.autoscaling_backend.autoscaling_groups.get(name)
    if found is None:
        raise Refused("ValidationError", f"AutoScalingGroup name not found - {name}")
    return found


def start_instance_refresh(self: Any) -> ActionResult:
    made = refresh.start(
        _group(self), dict(self._get_param("Preferences") or {}), dict(self._get_param("DesiredConfiguration") or {}),
        self._get_param("Strategy") or "Rolling",
    )  # fmt: skip
    return ActionResult({"InstanceRefreshId": made.id})


def describe_instance_refreshes(self: Any) -> ActionResult:
    wanted = self._get_param("InstanceRefreshIds") or []
    found = [one.said() for one in reversed(getattr(_group(self), "refreshes", [])) if not wanted or one.id in wanted]
    self.params.setdefault("MaxResults", self._get_param("MaxRecords") or 50)
    shown, token = page(found, self)
    return ActionResult({"InstanceRefreshes": shown, "NextToken": token})


def cancel_instance_refresh(self: Any) -> ActionResult:
    found = _running(self)
    found.status, found.reason = "Cancelling", "Cancellation requested"
    return ActionResult({"InstanceRefreshId": found.id})


def rollback_instance_refresh(self: Any) -> ActionResult:
    found = _running(self)
    if not found.desired:
        raise Refused("IrreversibleInstanceRefresh", "There is no desired configuration to roll back from")
    if found.rollback:
        raise Refused("IrreversibleInstanceRefresh", "It is being rolled back")
    found.reason = "Rollback requested"
    found.roll_back()
    return ActionResult({"InstanceRefreshId": found.id})


def _running(self: Any) -> Any:
    for one in getattr(_group(self), "refreshes", []):
        if one.active:
            return one
    raise Refused(
        "ActiveInstanceRefreshNotFound", f"No in progress or pending Instance Refresh found for {self._get_param('AutoScalingGroupName')}"
    )
