"""Taking in records that another catalog made: all of them, or none, each with its entry in the journal."""

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
    """What was new: `images` as they are on record now; how many of the others."""

    images: tuple[ImageRecord, ...] = ()
    builds: int = 0
    attestations: int = 0
    rebuilds: int = 0
    revocations: int = 0

    @property
    def nothing(self) -> bool:
        return self == ImportCounts()


class Imports:
    """The way in for records of other catalogs. `session` and `writing` open one transaction each."""

    def __init__(self, session: WriteTransaction, writing: WriteTransaction) -> None:
        self._session, self._writing = session, writing

    def check(self, bundle: Bundle, *, beside: bool = False) -> None:
        """UsageError when a record here has the same id and says other things; unless `beside`, also when another disk has the name and
        version of one of its images here, for names mean the last image that came."""
        with self._session() as session:
            for conflict in _conflicts(session, bundle, beside):
                raise conflict

    def take(self, bundle: Bundle, *, beside: bool = False) -> ImportCounts:
        """Register what is not here yet, in one transaction; an image that was removed here is there again. UsageError as `check`."""
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
            yield UsageError(
                f"build {build.id} is on record here and says other things", hint="bake import --home DIR takes it in elsewhere"
            )
    for image in bundle.images:
        row = session.scalar(tables.Image.where(id=image.id))
        if row and digest_of(replace(image_record(row), removed=None)) != digest_of(replace(image, removed=None)):
            yield UsageError(
                f"image {image.id} is on record here and says other things", hint="bake import --home DIR takes it in elsewhere"
            )
        if row is None and not beside and image.removed is None:
            yield from _other_disk(session, image)


def _other_disk(session: Session, image: ImageRecord) -> Iterator[UsageError]:
    other = tables.Image
    query = other.where(other.digest != image.digest, name=image.name, version=image.version, removed=None)
    found = session.scalar(query.order_by(other.serial.desc()).limit(1))
    if found:
        title = f"{image.name}@{image.version}"
        yield UsageError(
            f"{title} is image {found.id} here, with another disk ({found.digest}) than image {image.id} of the archive ({image.digest})",
            hint=f"--force takes it in beside that one, and {title} means the new one then; --home DIR keeps them apart",
        )


def _take_build(session: Session, build: BuildRecord) -> bool:
    if session.scalar(tables.Build.where(id=build.id)):
        return False
    session.add(build_row(build))
    session.flush()
    append(session, IMPORTED, subject_of("build", build.id), build)
    return True


def _take_image(session: Session, image: ImageRecord) -> Iterator[ImageRecord]:
    """The image as it is on record now, if that is new."""
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
    """What is revoked here already stays as it is; what was undone here after the archive was made stays undone."""
    table = tables.Revocation
    if session.scalar(table.where((table.undone.is_(None)) | (table.at == each.at), image=each.image).limit(1)):
        return False
    row = table(undone=None, undone_by="", **{name: getattr(each, name) for name in REVOCATION_COLUMNS})
    session.add(row)
    session.flush()
    append(session, IMPORTED, subject_of("revocation", row.serial), whole_revocation(row))
    return True
