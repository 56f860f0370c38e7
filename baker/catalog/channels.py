"""Channels: named pointers to images, with their history."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from baker.catalog import tables
from baker.catalog.journal import append, subject_of
from baker.catalog.records import Channel, ChannelEvent
from baker.catalog.repository import Repository
from baker.core.errors import BusyError, NotFoundError

COLUMNS = ("name", "channel", "image", "protected", "protected_by", "who", "changed")
EVENT_COLUMNS = ("name", "channel", "action", "before", "after", "who", "at", "why")
Action = Literal["set", "unset", "protect", "unprotect"]


class Channels(Repository):
    """The channels of one catalog. `who` is user@host, `at` an ISO 8601 time."""

    def get(self, name: str, channel: str) -> Channel | None:
        """The channel `channel` of `name`, or None when there is none."""
        with self.reading() as session:
            row = session.get(tables.Channel, (name, channel))
            return channel_record(row) if row else None

    def all(self, name: str | None = None) -> list[Channel]:
        """All channels, or those of one name, sorted by name and channel."""
        query = select(tables.Channel).order_by(tables.Channel.name, tables.Channel.channel)
        if name is not None:
            query = query.where(tables.Channel.name == name)
        with self.reading() as session:
            return [channel_record(row) for row in session.scalars(query)]

    def of(self, image_id: str) -> list[Channel]:
        """The channels that point to an image."""
        query = select(tables.Channel).where(tables.Channel.image == image_id).order_by(tables.Channel.channel)
        with self.reading() as session:
            return [channel_record(row) for row in session.scalars(query)]

    def events(self, name: str, channel: str) -> list[ChannelEvent]:
        """The changes of a channel, newest first, also of a channel that was unset."""
        query = (
            select(tables.ChannelEvent)
            .where(tables.ChannelEvent.name == name, tables.ChannelEvent.channel == channel)
            .order_by(tables.ChannelEvent.serial.desc())
        )
        with self.reading() as session:
            return [event_record(row) for row in session.scalars(query)]

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


def event_record(row: tables.ChannelEvent) -> ChannelEvent:
    return ChannelEvent(**{column: getattr(row, column) for column in EVENT_COLUMNS})


def channel_record(row: tables.Channel) -> Channel:
    return Channel(**{column: getattr(row, column) for column in COLUMNS})
