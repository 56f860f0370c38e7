"""Everything in the account that costs, blocks a name, or was made by somebody: for a difference between before and after.

    {"eu-central-1": {"images": {"ami-...": {"name": ..., "state": ..., "tags": {...}}}, "snapshots": {...}, ...}, "global": {...}}

What AWS itself puts into an account (default networks, AWS's keys) is left out; so are terminated instances, and what belongs to others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.ec2.spot_actions import requests as spot_requests
from tests.ec2.world import ACCOUNT

Found = dict[str, dict[str, Any]]


def inventory() -> dict[str, dict[str, Found]]:
    from moto.autoscaling.models import autoscaling_backends
    from moto.ec2.models import ec2_backends
    from moto.ssm.models import ssm_backends

    found: dict[str, dict[str, Found]] = {}
    for region, backend in ec2_backends[ACCOUNT].items():
        found[region] = _ec2(backend)
    for region, backend in autoscaling_backends[ACCOUNT].items():
        found.setdefault(region, {})["groups"] = {
            name: {"desired": group.desired_capacity, "template": group.launch_template}
            for name, group in backend.autoscaling_groups.items()
        }
    for region, backend in ssm_backends[ACCOUNT].items():
        own = {name: versions for name, versions in dict(backend._parameters).items() if versions and not name.startswith("/aws/")}
        found.setdefault(region, {})["parameters"] = {
            name: {"value": versions[-1].value, "version": len(versions)} for name, versions in own.items()
        }
    return {region: {kind: things for kind, things in kinds.items() if things} for region, kinds in found.items() if any(kinds.values())}


def _ec2(backend: Any) -> dict[str, Found]:
    return {
        "images": {image.id: _told(image, name=image.name, state=image.state) for image in _own(backend.amis)},
        "snapshots": {
            snapshot.id: _told(snapshot, state=snapshot.status, size=snapshot.volume.size) for snapshot in _own(backend.snapshots)
        },
        "instances": {
            one.id: _told(one, state=one.state, image=one.image_id, type=one.instance_type)
            for one in backend.all_instances()
            if one.state != "terminated"
        },
        "volumes": {one.id: _told(one, state=one.status, size=one.size) for one in backend.volumes.values()},
        "interfaces": {one.id: _told(one, state=one.status) for one in backend.enis.values()},
        "key-pairs": {name: {"tags": {tag["key"]: tag["value"] for tag in key.get_tags()}} for name, key in backend.key_pairs.items()},
        "security-groups": {one.id: _told(one, name=one.name) for one in _groups(backend) if one.name != "default"},
        "launch-templates": {
            one.id: _told(one, name=one.name, versions=[version.number for version in one.versions], default=one.default_version_number)
            for one in backend.launch_templates.values()
        },
        "spot-requests": {
            name: _told(one, state=one.state) for name, one in spot_requests(backend).items() if one.state not in ("closed", "cancelled")
        },
        "addresses": {one.allocation_id: {} for one in getattr(backend, "addresses", [])},
    }


def _own(things: dict[str, Any]) -> Iterator[Any]:
    return (one for one in things.values() if one.owner_id == ACCOUNT)


def _groups(backend: Any) -> Iterator[Any]:
    return (group for groups in backend.groups.values() for group in groups.values())


def _told(one: Any, **facts: Any) -> dict[str, Any]:
    return facts | {"tags": {tag["key"]: tag["value"] for tag in one.get_tags()}}
