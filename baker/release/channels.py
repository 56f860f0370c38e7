"""Change channels: which names and which images are allowed."""

from __future__ import annotations

from baker.catalog.catalog import Catalog
from baker.catalog.records import Channel, ImageRecord
from baker.catalog.reference import is_channel
from baker.core.errors import UsageError
from baker.core.host_facts import now, who


def assign(catalog: Catalog, name: str, channel: str, image: ImageRecord, *, why: str = "", force: bool = False) -> Channel:
    """Point `name`@`channel` to an image of that name that is not revoked.

    Raises UsageError for an invalid name or another image name, RevokedError for a revoked image, BusyError for a protected channel
    without `force`.
    """
    check_name(channel)
    if image.name != name:
        raise UsageError(
            f"{image.name}@{image.version} is not an image named {name}",
            hint=f"a channel of {name} can point only to images named {name}",
            code="channel.other-image",
        )
    catalog.check_usable(image, "in a channel")
    return catalog.channels.set(name, channel, image.id, who=who(), at=now(), why=why, force=force)


def check_name(channel: str) -> None:
    """Raise UsageError for a name that is invalid or could be a version."""
    if not is_channel(channel):
        raise UsageError(
            f"{channel!r} is not a valid name for a channel",
            hint="use lower-case letters, digits, . _ and -, a letter first, and nothing that is a version; example: prod",
            code="channel.name",
        )


def former(catalog: Catalog, channel: Channel) -> ImageRecord | None:
    """The last image of a channel before its present one that is neither removed nor revoked now, or None."""
    revoked = catalog.revocations.in_force(now())
    for event in catalog.channels.events(channel.name, channel.channel):
        if event.before and event.before != channel.image and event.before not in revoked:
            image = catalog.image(event.before)
            if not image.removed:
                return image
    return None
