"""The one-time spot requests behind spot instances that RunInstances started."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.utils import generic_filter

from tests.ec2.paging import page
from tests.ec2.refusals import Refused

STATUS = {
    "active": "fulfilled", "open": "pending-evaluation", "disabled": "instance-stopped-by-user", "closed": "instance-terminated-by-user",
    "cancelled": "request-canceled-and-instance-running",
}  # fmt: skip


class SpotRequest(TaggedEC2Resource):  # type: ignore[misc]
    """`state`: "active" while its instance runs, "closed" after that ("open" for a persistent one, which would start another; "disabled"
    while its instance is stopped), "cancelled" when somebody cancelled it meanwhile."""

    __module__ = "moto.ec2.models"

    def __init__(self, backend: Any, instance: Any, tags: dict[str, str]) -> None:
        self.ec2_backend, self.instance, self.cancelled = backend, instance, False
        self.id = f"sir-{secrets.token_hex(4)}"
        self.create_time = datetime.now(UTC).replace(tzinfo=None)
        backend.__dict__.setdefault("strict_spots", {})[self.id] = self
        self.add_tags(tags)

    @property
    def state(self) -> str:
        if self.cancelled:
            return "cancelled"
        persistent = self.instance.spot_persistent
        if self.instance.state in ("shutting-down", "terminated"):
            return "open" if persistent else "closed"
        return "disabled" if persistent and self.instance.state in ("stopping", "stopped") else "active"

    def get_filter_value(self, filter_name: str, method_name: str | None = None) -> Any:
        plain = {"spot-instance-request-id": self.id, "instance-id": self.instance.id, "state": self.state}
        return plain[filter_name] if filter_name in plain else super().get_filter_value(filter_name, method_name)

    def said(self) -> dict[str, Any]:
        return {
            "SpotInstanceRequestId": self.id, "InstanceId": self.instance.id, "State": self.state, "Status": {"Code": STATUS[self.state]},
            "Type": "persistent" if self.instance.spot_persistent else "one-time", "CreateTime": self.create_time, "Tags": self.get_tags(),
        }  # fmt: skip


def requests(backend: Any) -> dict[str, SpotRequest]:
    found: dict[str, SpotRequest] = backend.__dict__.setdefault("strict_spots", {})
    return found


def _named(self: Any) -> list[SpotRequest]:
    known = requests(self.ec2_backend)
    ids = self._get_param("SpotInstanceRequestIds") or []
    for name in ids:
        if name not in known:
            raise Refused("InvalidSpotInstanceRequestID.NotFound", f"The spot instance request ID '{name}' does not exist")
    return [known[name] for name in ids] if ids else list(known.values())


def describe_spot_instance_requests(self: Any) -> ActionResult:
    found, token = page(generic_filter(self._filters_from_querystring(), _named(self)), self)
    return ActionResult({"SpotInstanceRequests": [one.said() for one in found], "NextToken": token})


def cancel_spot_instance_requests(self: Any) -> ActionResult:
    """The instances live on, as with EC2."""
    self.error_on_dryrun()
    found = _named(self)
    for one in found:
        one.cancelled = one.cancelled or one.state != "closed"
    return ActionResult({"CancelledSpotInstanceRequests": [{"SpotInstanceRequestId": one.id, "State": one.state} for one in found]})
