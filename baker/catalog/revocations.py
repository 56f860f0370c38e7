"""Revoked images: those must not be used from some time on, and, when asked, neither must what is made on them, now or later.

The rules are HCP Packer's: at once or at a time in the future; descendants inherit it; undoing it at the image that was revoked
undoes it for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from baker.catalog import tables
from baker.catalog.journal import append, subject_of
from baker.catalog.lookup import below, line_ids
from baker.catalog.records import ImageRecord, Revocation
from baker.catalog.repository import Repository
from baker.core.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class RevokedError(UsageError):
    """The image must not be used any more."""


COLUMNS = ("image", "reason", "who", "at", "effective", "descendants")


class Revocations(Repository):
    """The revocations of one catalog, those that are still to come too. Those that were undone are history."""

    def add(self, revocation: Revocation) -> Revocation:
        """Revoke an image; what is in force for it from now on. Once more replaces the reason; it never takes effect later
        for that, and descendants once in are in."""
        with self.writing() as session:
            row = self._own(session, revocation.image)
            if row is None:
                row = tables.Revocation(undone=None, undone_by="", **{name: getattr(revocation, name) for name in COLUMNS})
                session.add(row)
            else:
                row.reason, row.who, row.at = revocation.reason, revocation.who, revocation.at
                row.effective = min(row.effective, revocation.effective)
                row.descendants = row.descendants or revocation.descendants
            session.flush()
            append(session, "revocation", subject_of("revocation", row.serial), whole_revocation(row))
            return _record(row)

    def undo(self, image_id: str, *, who: str, at: str) -> Revocation:
        """Undo what was done to this very image; what it was. NotFoundError when nothing was, UsageError when it is inherited."""
        with self.writing() as session:
            row = self._own(session, image_id)
            if row is None:
                inherited = self.of(image_id)
                if inherited is None:
                    raise NotFoundError(f"image {image_id} is not revoked")
                raise UsageError(
                    f"image {image_id} is revoked because image {inherited.inherited_from}, which it is made on, is",
                    hint=f"bake revoke {inherited.inherited_from} --undo",
                )
            row.undone, row.undone_by = at, who
            session.flush()
            append(session, "unrevocation", subject_of("revocation", row.serial), whole_revocation(row))
            return _record(row)

    def of(self, image_id: str) -> Revocation | None:
        """What revokes an image, or will: of its own and the inherited ones that which takes effect first. None for most images."""
        with self.reading() as reader:
            line = line_ids(reader, image_id) or [image_id]
            rows = reader.rows_for("SELECT * FROM revocations WHERE undone IS NULL AND {where}", "image", line)
            return _first({row.image: _record(row) for row in rows}, line)

    def all(self) -> Mapping[str, Revocation]:
        """Every image that is or will be revoked -> what `of` says of it."""
        with self.reading() as reader:
            own = {row.image: _record(row) for row in reader.select("revocations", ("undone IS NULL", {}))}
            if not own:
                return {}
            parents = below(reader, [image for image, revocation in own.items() if revocation.descendants])
            parents |= dict.fromkeys(own.keys() - parents.keys())
        found = {image: _first(own, _line(image, parents)) for image in parents}
        return {image: revocation for image, revocation in found.items() if revocation}

    def in_force(self, at: str) -> frozenset[str]:
        """The ids of all images that are revoked at that time."""
        return frozenset(image for image, revocation in self.all().items() if revocation.effective <= at)

    def check(self, image: ImageRecord, what_for: str, *, at: str) -> None:
        """RevokedError when an image is revoked at that time; `what_for` ends the sentence: "as a source", "in a channel"."""
        revocation = self.of(image.id)
        if revocation is not None and revocation.effective <= at:
            through = f", through image {revocation.inherited_from} that it is made on" if revocation.inherited_from else ""
            raise RevokedError(
                f"{image.name}@{image.version} ({image.id}) is revoked and cannot be used {what_for}: {revocation.reason}"
                f"\n    by {revocation.who}, from {revocation.effective} on{through}",
                hint=f"bake images --name {image.name} lists others",
            )

    def _own(self, session: Session, image_id: str) -> tables.Revocation | None:
        return session.scalar(tables.Revocation.where(image=image_id, undone=None))


def _line(image: str, parents: Mapping[str, str | None]) -> list[str]:
    line, above = [], image
    while above:
        line.append(above)
        above = parents.get(above) or ""
    return line


def _first(own: Mapping[str, Revocation], line: list[str]) -> Revocation | None:
    """Of what an image has and inherits (`line`: its id, then those it is made on) that which takes effect first, its own among equals."""
    candidates = [own[line[0]]] if line[0] in own else []
    candidates += [
        replace(own[above], image=line[0], inherited_from=above) for above in line[1:] if above in own and own[above].descendants
    ]
    return min(candidates, key=lambda revocation: revocation.effective, default=None)


def whole_revocation(row: Any) -> Mapping[str, object]:
    """A revocation with its end, for the journal."""
    return {name: getattr(row, name) for name in (*COLUMNS, "undone", "undone_by")}


def _record(row: Any) -> Revocation:
    return Revocation(**{name: getattr(row, name) for name in COLUMNS})
