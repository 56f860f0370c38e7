"""Revoking images, and moving channels off them."""

from __future__ import annotations

from dataclasses import dataclass

from baker.catalog.catalog import Catalog
from baker.catalog.records import Channel, ImageRecord, Release, Revocation
from baker.core.host_facts import now, who
from baker.release.channels import former


@dataclass(frozen=True)
class Revoked:
    """What a revocation met: `channels` still point to the image (or to a descendant that inherits), `releases` run it now."""

    image: ImageRecord
    revocation: Revocation
    descendants: tuple[ImageRecord, ...]
    channels: tuple[Channel, ...]
    moved: tuple[tuple[Channel, ImageRecord], ...]  # channels that were given back their former image
    releases: tuple[Release, ...]


def revoke(
    catalog: Catalog, image: ImageRecord, reason: str, *, effective: str = "", descendants: bool = False, rollback_channels: bool = False
) -> Revoked:
    """Revoke an image from `effective` (an ISO 8601 time, "" for now) on. `rollback_channels`: those that point to what is revoked now
    get the image back that they had before."""
    at = now()
    made = catalog.revocations.add(Revocation(image.id, reason, who(), at, effective or at, descendants))
    hit = {one for one, revocation in catalog.revocations.all().items() if image.id in (one, revocation.inherited_from)}
    moved = []
    if rollback_channels and made.effective <= at:
        for channel in (channel for channel in catalog.channels.all() if channel.image in hit):
            back = former(catalog, channel)
            if back is not None:
                why = f"{image.name}@{image.version} was revoked: {reason}"
                set_to = catalog.channels.set(channel.name, channel.channel, back.id, who=who(), at=at, why=why, force=True)
                moved.append((set_to, back))
    return Revoked(
        image,
        made,
        tuple(catalog.image(one) for one in sorted(hit - {image.id})),
        tuple(channel for channel in catalog.channels.all() if channel.image in hit),
        tuple(moved),
        tuple(release for release in current(catalog) if release.image in hit),
    )


def current(catalog: Catalog) -> list[Release]:
    """What every target runs by the record: the last release of it that succeeded."""
    found: dict[tuple[str, str, str], Release] = {}
    for release in catalog.releases.all():
        if release.status == "succeeded":
            found.setdefault((release.target, release.region, release.account), release)
    return list(found.values())
