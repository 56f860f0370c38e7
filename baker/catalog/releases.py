"""Releases, numbered per image name. A release is `running` from before its target is changed until its end is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from baker.catalog import tables
from baker.catalog.journal import append, subject_of
from baker.catalog.records import Release, Status
from baker.catalog.repository import Condition, IntegrityError, Repository, equal
from baker.core.errors import BusyError, NotFoundError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

COLUMNS = (
    "name", "number", "image", "channel", "target", "region", "account", "status", "rollback_of", "details", "who", "started", "finished",
    "why", "error",
)  # fmt: skip


class Releases(Repository):
    """The releases of one catalog."""

    def begin(self, release: Release) -> Release:
        """Put a release on record as running, with the next number of its name (`release.number` is ignored).

        BusyError while another release to the same target is running.
        """
        try:
            with self.writing() as session:
                table = tables.Release
                running = table.where(status="running", target=release.target, region=release.region, account=release.account)
                other = session.scalar(running.order_by(table.serial.desc()).limit(1))
                if other is not None:
                    raise still_running(release_record(other))
                last = session.scalar(table.where(name=release.name).order_by(table.number.desc()).limit(1))
                row = tables.Release(**{name: getattr(release, name) for name in COLUMNS})
                row.number, row.details = (last.number if last else 0) + 1, dict(release.details)
                session.add(row)
                return _entered(session, row)
        except IntegrityError as error:
            raise BusyError(
                f"another process has just begun a release of {release.name}",
                hint=f"wait for it; bake releases {release.name} shows it",
                code="release.running",
            ) from error

    def note(self, release: Release, details: Mapping[str, Any]) -> Release:
        """Add notes to a running release. They are on disk when this returns."""
        with self.writing() as session:
            row = self._row(session, release.name, release.number)
            row.details = {**row.details, **details}
            return _entered(session, row)

    def finish(self, release: Release, status: Status, *, at: str, error: str = "") -> Release:
        """Record the end of a release."""
        with self.writing() as session:
            row = self._row(session, release.name, release.number)
            row.status, row.finished, row.error = status, at, error
            return _entered(session, row)

    def get(self, name: str, number: int) -> Release:
        """Release `v<number>` of a name. NotFoundError when there is none."""
        found = self._records(equal(name=name, number=number))
        if not found:
            raise _no_release(name, number)
        return found[0]

    def all(self, name: str | None = None) -> list[Release]:
        """All releases, or those of one name, the last begun first."""
        return self._records(equal(name=name))

    def running(self, name: str | None = None) -> list[Release]:
        """The running releases, the last begun first."""
        return self._records(equal(status="running", name=name or None))

    def _records(self, condition: Condition) -> list[Release]:
        with self.reading() as reader:
            return [release_record(row) for row in reader.select("releases", condition, "serial DESC")]

    def _row(self, session: Session, name: str, number: int) -> tables.Release:
        row = session.scalar(tables.Release.where(name=name, number=number))
        if row is None:
            raise _no_release(name, number)
        return row


def still_running(release: Release) -> BusyError:
    """The error for a target with a running release."""
    return BusyError(
        f"release {release.title} of {release.name} to {release.target} is running since {release.started}, started by {release.who}",
        hint=f"wait for it (bake releases {release.name}); if its process has ended: bake release {release.name} --resume",
        code="release.running",
    )


def _no_release(name: str, number: int) -> NotFoundError:
    return NotFoundError(f"{name} has no release v{number}", hint=f"bake releases {name} lists them", code="release.not-found")


def _entered(session: Session, row: tables.Release) -> Release:
    """Enter the present state of a release in the journal, and return it."""
    session.flush()
    release = release_record(row)
    append(session, "release", subject_of("release", release.name, release.number), release)
    return release


def release_record(row: Any) -> Release:
    return Release(**{name: getattr(row, name) for name in COLUMNS})
