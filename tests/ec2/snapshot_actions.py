"""The actions of EC2 on snapshots."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.utils import generic_filter

from tests.ec2 import snapshots
from tests.ec2.image_actions import users
from tests.ec2.images import default_key, kms_key, tags_for
from tests.ec2.paging import page
from tests.ec2.refusals import Refused
from tests.ec2.snapshots import StrictSnapshot
from tests.ec2.world import ACCOUNT


def describe_snapshots(self: Any) -> ActionResult:
    ids, owners = self._get_param("SnapshotIds") or [], self._get_param("OwnerIds") or []
    found = [snapshots.find(self.region, name) for name in ids] if ids else list(self.ec2_backend.snapshots.values())
    if owners:
        wanted = {ACCOUNT if owner == "self" else owner for owner in owners}
        found = [snapshot for snapshot in found if snapshot.owner_id in wanted]
    found, token = page(generic_filter(self._filters_from_querystring(), found), self)
    return ActionResult({"Snapshots": found, "NextToken": token})


def delete_snapshot(self: Any) -> ActionResult:
    snapshot = snapshots.find(self.region, self._get_param("SnapshotId"))
    if used := users(self.ec2_backend, snapshot.id):
        raise Refused("InvalidSnapshot.InUse", f"The snapshot {snapshot.id} is currently in use by {used[0]}")
    if snapshot.owner_id != ACCOUNT:
        raise Refused("AuthFailure", f"Not authorized for {snapshot.id}", 403)
    self.error_on_dryrun()
    self.ec2_backend.snapshots.pop(snapshot.id).discard()
    return EmptyResult()


def create_snapshot(self: Any) -> ActionResult:
    """Of a volume that is attached to an instance, or of one that is not and so has no bytes here."""
    tags = tags_for(self._get_param("TagSpecifications"), ("snapshot",))
    volume = self.ec2_backend.get_volume(self._get_param("VolumeId"))
    self.error_on_dryrun()
    made = StrictSnapshot(
        self.ec2_backend, volume.size, self._get_param("Description", ""), volume_id=volume.id, encrypted=volume.encrypted,
        kms_key_id=volume.kms_key_id,
    )  # fmt: skip
    made.add_tags(tags["snapshot"])
    if volume.attachment:
        made.take(volume.attachment.instance, volume.attachment.device)
    else:
        made.end_later()
    return ActionResult(made)


def copy_snapshot(self: Any) -> ActionResult:
    source = snapshots.find(self._get_param("SourceRegion"), self._get_param("SourceSnapshotId"))
    tags, key = tags_for(self._get_param("TagSpecifications"), ("snapshot",)), self._get_param("KmsKeyId")
    if source.status != "completed":
        raise Refused("IncorrectState", f"The snapshot {source.id} is {source.status}")
    if key and not self._get_param("Encrypted"):
        raise Refused("InvalidParameterDependency", "KmsKeyId needs Encrypted")
    self.error_on_dryrun()
    encrypted = bool(self._get_param("Encrypted")) or source.encrypted
    arn = (kms_key(self.region, key) if key else default_key(self.region)) if encrypted else None
    made = snapshots.copy_of(source, self.ec2_backend, self._get_param("Description", ""), encrypted=encrypted, kms_key_id=arn)
    made.add_tags(tags["snapshot"])
    if encrypted and arn is None:
        made.fail()
    made.end_later()
    return ActionResult({"SnapshotId": made.id, "Tags": made.tag_set})
