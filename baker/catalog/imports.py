"""Import records that another catalog made: all of them or none, each with an entry in the journal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from baker.catalog import tables
from baker.catalog.attestations import COLUMNS as ATTESTATION_COLUMNS
from baker.catalog.bundle import Bundle
from baker.catalog.journal import IMPORTED, append, digest_of, subject_of
from baker.catalog.mapping import build_record, build_row, image_record, image_row
from baker.catalog.proofs import REBUILD_COLUMNS
from baker.catalog.records import Attestation, BuildRecord, ImageRecord, Rebuild, Revocation
from baker.catalog.repository import WriteTransaction
from baker.catalog.revocations import COLUMNS as REVOCATION_COLUMNS
from baker.catalog.revocations import whole_revocation
from baker.core.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@dataclass(frozen=True)
class ImportCounts:
    """The records that were new: the images as they are on record now, and the number of each other kind."""

    images: tuple[ImageRecord, ...] = ()
    builds: int = 0
    attestations: int = 0
    rebuilds: int = 0
    revocations: int = 0

    @property
    def nothing(self) -> bool:
        return self == ImportCounts()


class Imports:
    """Import records into one catalog. `session` and `writing` open one transaction each."""

    def __init__(self, session: WriteTransaction, writing: WriteTransaction) -> None:
        self._session, self._writing = session, writing

    def check(self, bundle: Bundle, *, beside: bool = False) -> None:
        """Raise UsageError when a record here has the same ID but a different content.

        Unless `beside`, also raise it when an image here has the same name and version but another disk: references by name would then
        resolve to the imported image.
        """
        with self._session() as session:
            for conflict in _conflicts(session, bundle, beside):
                raise conflict

    def take(self, bundle: Bundle, *, beside: bool = False) -> ImportCounts:
        """Register the records that are new here, in one transaction. An image that was removed here is restored.

        Raises UsageError as `check` does.
        """
        with self._writing() as session:
            for conflict in _conflicts(session, bundle, beside):
                raise conflict
            builds = sum(_take_build(session, build) for build in reversed(bundle.builds))
            images = tuple(image for each in reversed(bundle.images) for image in _take_image(session, each))
            return ImportCounts(
                images,
                builds,
                sum(_take_attestation(session, each) for each in bundle.attestations),
                sum(_take_rebuild(session, each) for each in bundle.rebuilds),
                sum(_take_revocation(session, each) for each in bundle.revocations),
            )


def _conflicts(session: Session, bundle: Bundle, beside: bool) -> Iterator[UsageError]:
    for build in bundle.builds:
        known = session.scalar(tables.Build.where(id=build.id))
        if known and digest_of(build_record(known)) != digest_of(build):
            yield _record_conflict("build", build.id)
    for image in bundle.images:
        row = session.scalar(tables.Image.where(id=image.id))
        if row and digest_of(replace(image_record(row), removed=None)) != digest_of(replace(image, removed=None)):
            yield _record_conflict("image", image.id)
        if row is None and not beside and image.removed is None:
            yield from _other_disk(session, image)


def _record_conflict(kind: str, record_id: str) -> UsageError:
    return UsageError(
        f"{kind} {record_id} is already on record here with a different content",
        hint="bake import --home DIR imports the archive into another home",
        code="import.record-conflict",
    )


def _other_disk(session: Session, image: ImageRecord) -> Iterator[UsageError]:
    other = tables.Image
    query = other.where(other.digest != image.digest, name=image.name, version=image.version, removed=None)
    found = session.scalar(query.order_by(other.serial.desc()).limit(1))
    if found:
        title = f"{image.name}@{image.version}"
        yield UsageError(
            f"{title} is image {found.id} here, with another disk ({found.digest}) than image {image.id} of the archive ({image.digest})",
            hint=f"--force imports it too, and {title} then means the imported image; --home DIR imports it into another home",
            code="import.name-conflict",
        )


def _take_build(session: Session, build: BuildRecord) -> bool:
    if session.scalar(tables.Build.where(id=build.id)):
        return False
    session.add(build_row(build))
    session.flush()
    append(session, IMPORTED, subject_of("build", build.id), build)
    return True


def _take_image(session: Session, image: ImageRecord) -> Iterator[ImageRecord]:
    """Register or restore an image, and yield it as it is on record now; yield nothing when it was on record already."""
    row = session.scalar(tables.Image.where(id=image.id))
    if row is None:
        row = image_row(image)
        session.add(row)
    elif row.removed is None or image.removed is not None:
        return
    else:
        row.removed = None
    session.flush()
    append(session, IMPORTED, subject_of("image", row.id), image_record(row))
    yield image_record(row)


def _take_attestation(session: Session, each: Attestation) -> bool:
    table = tables.Attestation
    if session.scalar(table.where(image=each.image, digest=each.digest).limit(1)) is not None:
        return False
    row = table(**{name: getattr(each, name) for name in ATTESTATION_COLUMNS})
    session.add(row)
    session.flush()
    append(session, IMPORTED, subject_of("attestation", row.serial), each)
    return True


def _take_rebuild(session: Session, each: Rebuild) -> bool:
    table = tables.Rebuild
    if session.scalar(table.where(image=each.image, report=each.report, at=each.at).limit(1)) is not None:
        return False
    row = table(**{name: getattr(each, name) for name in REBUILD_COLUMNS})
    session.add(row)
    session.flush()
    append(session, IMPORTED, subject_of("rebuild", row.serial), each)
    return True


def _take_revocation(session: Session, each: Revocation) -> bool:
    """Register a revocation unless the image is revoked here already, or this revocation was undone here."""
    table = tables.Revocation
    if session.scalar(table.where((table.undone.is_(None)) | (table.at == each.at), image=each.image).limit(1)):
        return False
    row = table(undone=None, undone_by="", **{name: getattr(each, name) for name in REVOCATION_COLUMNS})
    session.add(row)
    session.flush()
    append(session, IMPORTED, subject_of("revocation", row.serial), whole_revocation(row))
    return True
