"""Revoke images, and move channels off them."""

from __future__ import annotations

from dataclasses import dataclass

from baker.catalog.catalog import Catalog
from baker.catalog.records import Channel, ImageRecord, Release, Revocation
from baker.core.host_facts import now, who
from baker.release.channels import former


@dataclass(frozen=True)
class Revoked:
    """The result of a revocation. "Revoked images" are the image and the descendants that inherit the revocation."""

    image: ImageRecord
    revocation: Revocation
    descendants: tuple[ImageRecord, ...]  # those that inherit the revocation
    channels: tuple[Channel, ...]  # that still point to a revoked image
    moved: tuple[tuple[Channel, ImageRecord], ...]  # channels that were set back, with the former image that they now point to
    releases: tuple[Release, ...]  # the present releases of targets that run a revoked image


def revoke(
    catalog: Catalog, image: ImageRecord, reason: str, *, effective: str = "", descendants: bool = False, rollback_channels: bool = False
) -> Revoked:
    """Revoke an image from `effective` on (an ISO 8601 time, "" for now).

    With `rollback_channels`, a channel that points to an image that is revoked now is set back to its former image, if it has one.
    """
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
    """The present release of every target: its last release on record that succeeded."""
    found: dict[tuple[str, str, str], Release] = {}
    for release in catalog.releases.all():
        if release.status == "succeeded":
            found.setdefault((release.target, release.region, release.account), release)
    return list(found.values())
