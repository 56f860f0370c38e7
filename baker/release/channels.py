"""Channels as people change them: which names and which images they may have."""

from __future__ import annotations

from baker.catalog.catalog import Catalog
from baker.catalog.records import Channel, ImageRecord
from baker.catalog.reference import is_channel
from baker.core.errors import UsageError
from baker.core.host_facts import now, who


def assign(catalog: Catalog, name: str, channel: str, image: ImageRecord, *, why: str = "", force: bool = False) -> Channel:
    """Point `name`@`channel` to an image of that name that is not revoked. BusyError for a protected channel without `force`."""
    check_name(channel)
    if image.name != name:
        raise UsageError(f"{image.name}@{image.version} is no image of {name}", hint=f"a channel of {name} has images of {name} only")
    catalog.check_usable(image, "in a channel")
    return catalog.channels.set(name, channel, image.id, who=who(), at=now(), why=why, force=force)


def check_name(channel: str) -> None:
    """UsageError for what cannot be told from a version."""
    if not is_channel(channel):
        raise UsageError(
            f"{channel!r} cannot be a channel", hint="small letters, digits, . _ -, a letter first, and nothing that is a version: prod"
        )


def former(catalog: Catalog, channel: Channel) -> ImageRecord | None:
    """The image that a channel had last before its present one, and that is neither removed nor revoked now."""
    revoked = catalog.revocations.in_force(now())
    for event in catalog.channels.events(channel.name, channel.channel):
        if event.before and event.before != channel.image and event.before not in revoked:
            image = catalog.image(event.before)
            if not image.removed:
                return image
    return None
