"""Snapshots that take time, can fail, and hold the bytes of a disk."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_block_store import Snapshot

from tests.ec2.blocks import GIB, Blocks, of_file
from tests.ec2.refusals import Refused
from tests.ec2.world import ACCOUNT, world

NO_VOLUME = "vol-ffffffff"  # what AWS says for a snapshot that comes from no volume of the account's


class NoVolume:
    """The volume of a snapshot that was uploaded or copied."""

    def __init__(self, size: int, volume_id: str = NO_VOLUME) -> None:
        self.id, self.size, self.encrypted = volume_id, size, False


class StrictSnapshot(Snapshot):  # type: ignore[misc]
    """`status`: "pending" -> "completed" | "error". `blocks` or `image` (path, format) hold its bytes when it has any."""

    __module__ = "moto.ec2.models"

    def __init__(self, backend: Any, size: int, description: str = "", *, volume_id: str = NO_VOLUME, owner: str = ACCOUNT,
                 encrypted: bool = False, kms_key_id: str | None = None) -> None:  # fmt: skip
        super().__init__(
            backend,
            f"snap-0{secrets.token_hex(8)}",
            NoVolume(size, volume_id),
            description,
            encrypted=encrypted,
            kms_key_id=kms_key_id,
            owner_id=owner,
        )
        self.status, self.state_message, self.blocks, self.image = "pending", "", None, None
        self.lasting = False
        self.open = False  # EBS direct: blocks may be put
        self.storage_tier = "standard"
        backend.snapshots[self.id] = self

    @property
    def progress(self) -> str:
        return "100%" if self.status == "completed" else "0%" if self.status == "pending" else ""

    def finish(self) -> None:
        """What was pending is done, or has failed when a fault wants that."""
        if self.status == "pending":
            self.status = "completed"

    def fail(self, message: str = "Given key ID is not accessible") -> None:
        self.status, self.state_message = "error", message

    def end_later(self) -> None:
        """Completed after the delay, or in error when the request in hand is to suffer that."""
        world().later(self.fail if "snapshot-error" in world().effects else self.finish)

    def take(self, instance: Any, device: str) -> None:
        """Become what the instance's disk holds now."""
        if device == instance.root_device_name:
            self.image = instance.disk if instance.guest is None else instance.guest.freeze(world().path("snapshots", f"{self.id}.qcow2"))
        self.end_later()

    def readable_blocks(self) -> Blocks:
        """Its blocks; those of a machine's disk are found when they are first asked for."""
        if self.blocks is None:
            size = self.volume.size * GIB
            self.blocks = of_file(_raw(self), size) if self.image else Blocks(world().path("snapshots", f"{self.id}.raw"), size)
        return self.blocks

    def disk(self) -> tuple[Path, str] | None:
        """(path, format) of what a machine's disk is an overlay on. None without bytes."""
        if self.image is not None:
            return self.image
        self.lasting = self.blocks is not None  # machines stand on it from now on
        return (self.blocks.disk(), "raw") if self.blocks is not None else None

    def discard(self) -> None:
        """Its name goes; children that share its bytes keep them."""
        if self.blocks is not None and not self.lasting:
            self.blocks.remove()


def _raw(snapshot: StrictSnapshot) -> Path:
    """The snapshot's qcow2 as a raw file."""
    from baker.core.process import run

    assert snapshot.image is not None
    path, kind = snapshot.image
    destination = world().path("snapshots", f"{snapshot.id}.raw")
    run(["qemu-img", "convert", "-f", kind, "-O", "raw", str(path), str(destination)], what="the blocks of a snapshot")
    return destination


def find(region: str, snapshot_id: str) -> StrictSnapshot:
    """Refused when there is none."""
    found = ec2_backends[ACCOUNT][region].snapshots.get(snapshot_id)
    if found is None:
        raise Refused("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    return found


def copy_of(source: StrictSnapshot, backend: Any, description: str, *, encrypted: bool, kms_key_id: str | None) -> StrictSnapshot:
    """The same bytes under another id, in the region of `backend`."""
    made = StrictSnapshot(
        backend, source.volume.size, description, encrypted=encrypted or source.encrypted, kms_key_id=kms_key_id or source.kms_key_id
    )
    made.image = source.image
    if source.blocks is not None:
        made.blocks = source.blocks.child(world().path("snapshots", f"{made.id}.raw"), source.blocks.size)
    return made
