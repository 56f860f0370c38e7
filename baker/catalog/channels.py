"""Channels: named pointers to images, with their history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from baker.catalog import tables
from baker.catalog.journal import append, subject_of
from baker.catalog.records import Channel, ChannelEvent
from baker.catalog.repository import Condition, Repository, equal
from baker.core.errors import BusyError, NotFoundError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

COLUMNS = ("name", "channel", "image", "protected", "protected_by", "who", "changed")
EVENT_COLUMNS = ("name", "channel", "action", "before", "after", "who", "at", "why")
Action = Literal["set", "unset", "protect", "unprotect"]


class Channels(Repository):
    """The channels of one catalog. `who` is user@host, `at` an ISO 8601 time."""

    def get(self, name: str, channel: str) -> Channel | None:
        """The channel `channel` of `name`, or None when there is none."""
        return next(iter(self._records(equal(name=name, channel=channel))), None)

    def all(self, name: str | None = None) -> list[Channel]:
        """All channels, or those of one name, sorted by name and channel."""
        return self._records(equal(name=name))

    def of(self, image_id: str) -> list[Channel]:
        """The channels that point to an image."""
        return sorted(self._records(equal(image=image_id)), key=lambda found: found.channel)

    def events(self, name: str, channel: str) -> list[ChannelEvent]:
        """The changes of a channel, newest first, also of a channel that was unset."""
        with self.reading() as reader:
            rows = reader.select("channel_events", equal(name=name, channel=channel), "serial DESC")
        return [event_record(row) for row in rows]

    def set(self, name: str, channel: str, image_id: str, *, who: str, at: str, why: str = "", force: bool = False) -> Channel:
        """Point a channel to an image; make the channel if it is new. BusyError to change a protected one, unless `force`."""
        with self.writing() as session:
            row = session.get(tables.Channel, (name, channel))
            if row is not None and row.image == image_id:
                return channel_record(row)
            before = row.image if row else None
            if row is None:
                row = tables.Channel(name=name, channel=channel, image=image_id, protected=False, protected_by="")
                session.add(row)
            else:
                _guard(row, force)
            row.image, row.who, row.changed = image_id, who, at
            _note(session, row, "set", before=before, after=image_id, why=why)
            return channel_record(row)

    def unset(self, name: str, channel: str, *, who: str, at: str, why: str = "", force: bool = False) -> Channel:
        """Remove a channel, and return its last state. NotFoundError when there is none, BusyError for a protected one unless `force`."""
        with self.writing() as session:
            row = self._row(session, name, channel)
            _guard(row, force)
            removed = channel_record(row)
            row.who, row.changed = who, at
            session.delete(row)
            _note(session, row, "unset", before=removed.image, after=None, why=why)
            return removed

    def protect(self, name: str, channel: str, on: bool, *, who: str, at: str, why: str = "") -> Channel:
        """Protect a channel against changes without `force`, or (`on` False) remove the protection. NotFoundError when there is none."""
        with self.writing() as session:
            row = self._row(session, name, channel)
            if row.protected != on:
                row.protected, row.protected_by = on, who if on else ""
                row.who, row.changed = who, at
                _note(session, row, "protect" if on else "unprotect", before=row.image, after=row.image, why=why)
            return channel_record(row)

    def _records(self, condition: Condition) -> list[Channel]:
        with self.reading() as reader:
            return [channel_record(row) for row in reader.select("channels", condition, "name, channel")]

    def _row(self, session: Session, name: str, channel: str) -> tables.Channel:
        row = session.get(tables.Channel, (name, channel))
        if row is None:
            raise NotFoundError(
                f"{name} has no channel {channel!r}",
                hint=f"`bake channel {name} {channel} --set IMAGE` makes it",
                code="channel.not-found",
            )
        return row


def _guard(row: tables.Channel, force: bool) -> None:
    """Raise BusyError for a protected channel, unless `force`."""
    if row.protected and not force:
        raise BusyError(
            f"channel {row.channel} of {row.name} is protected by {row.protected_by}",
            hint="ask them; --force changes it anyway and keeps the protection",
            code="channel.protected",
        )


def _note(session: Session, row: tables.Channel, action: Action, *, before: str | None, after: str | None, why: str) -> None:
    """Record the change of a channel as an event, and enter both in the journal."""
    event = tables.ChannelEvent(
        name=row.name, channel=row.channel, action=action, before=before, after=after, who=row.who, at=row.changed, why=why
    )
    session.add(event)
    session.flush()
    append(session, "channel event", subject_of("channel-event", event.serial), event_record(event))
    append(session, "channel", subject_of("channel", row.name, row.channel), channel_record(row) if after else None)


def event_record(row: Any) -> ChannelEvent:
    return ChannelEvent(**{column: getattr(row, column) for column in EVENT_COLUMNS})


def channel_record(row: Any) -> Channel:
    return Channel(**{column: getattr(row, column) for column in COLUMNS})
