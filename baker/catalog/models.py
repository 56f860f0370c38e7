"""The tables of the catalog: SQLAlchemy models of portable types (SQLite and PostgreSQL).

Values that queries compare are columns; values that are only shown (shape, host, tools, ...) are JSON. A change here needs a
migration in migrations/versions, and schema.sql written anew (see migrations/env.py); tests compare the three.

Nothing but writing and checking the catalog imports this module, through `tables`: SQLAlchemy takes long to load.
"""

from __future__ import annotations

from typing import Any, Self

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Text,
    UniqueConstraint,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

DIGEST = 71  # characters of "sha256:" and 64 hex digits
IDENTIFIER = 12
TIME = 20  # "2026-11-22T20:45:51Z"


class Base(DeclarativeBase):
    """All tables. Constraints have names, so that migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )

    @classmethod
    def where(cls, *conditions: Any, **values: Any) -> Select[Self]:
        """The query for the rows that meet these conditions, with these values in columns."""
        return select(cls).where(*conditions).filter_by(**values)


class Build(Base):
    """One `BuildRecord`. `serial` is the order of registration: times have a second's resolution only."""

    __tablename__ = "builds"

    serial: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(IDENTIFIER), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    started: Mapped[str] = mapped_column(String(TIME))
    finished: Mapped[str] = mapped_column(String(TIME))
    template_name: Mapped[str] = mapped_column(String(255), index=True)
    template_version: Mapped[str] = mapped_column(String(255))
    template_path: Mapped[str] = mapped_column(Text)
    template_text: Mapped[str] = mapped_column(Text)
    template_digest: Mapped[str] = mapped_column(String(DIGEST))
    git_commit: Mapped[str] = mapped_column(String(64))
    git_dirty: Mapped[bool] = mapped_column(Boolean)
    variables: Mapped[dict[str, Any]] = mapped_column(JSON)
    source: Mapped[dict[str, Any]] = mapped_column(JSON)
    shape: Mapped[dict[str, Any]] = mapped_column(JSON)
    machine: Mapped[dict[str, Any]] = mapped_column(JSON)
    host: Mapped[dict[str, Any]] = mapped_column(JSON)
    tools: Mapped[dict[str, Any]] = mapped_column(JSON)
    who: Mapped[str] = mapped_column(String(255))
    ci: Mapped[dict[str, Any]] = mapped_column(JSON)
    timings: Mapped[dict[str, Any]] = mapped_column(JSON)
    inputs: Mapped[dict[str, Any]] = mapped_column(JSON)
    verify: Mapped[str] = mapped_column(String(16))
    verify_key: Mapped[str] = mapped_column(String(64), server_default="")
    error: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(String(64), index=True)
    reproduction: Mapped[dict[str, Any]] = mapped_column(JSON, server_default="{}")

    steps: Mapped[list[Step]] = relationship(order_by="Step.position", cascade="all, delete-orphan", lazy="selectin")
    tests: Mapped[list[Test]] = relationship(order_by="Test.position", cascade="all, delete-orphan", lazy="selectin")
    evidence: Mapped[list[Evidence]] = relationship(order_by="Evidence.position", cascade="all, delete-orphan", lazy="selectin")


class Step(Base):
    """One `StepRecord`."""

    __tablename__ = "steps"

    build: Mapped[str] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(64), index=True)
    origin: Mapped[str] = mapped_column(Text)
    bundle: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    seconds: Mapped[float] = mapped_column(Float)
    exit_code: Mapped[int | None] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer)
    ran: Mapped[float] = mapped_column(Float, server_default="0")
    inputs: Mapped[dict[str, Any]] = mapped_column(JSON, server_default="{}")


class Test(Base):
    """One `TestOutcome` of a build's verification."""

    __test__ = False  # not a pytest class
    __tablename__ = "tests"

    build: Mapped[str] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(String(16))
    seconds: Mapped[float] = mapped_column(Float)
    message: Mapped[str] = mapped_column(Text)


class Evidence(Base):
    """One blob of a build's evidence."""

    __tablename__ = "evidence"

    build: Mapped[str] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    position: Mapped[int] = mapped_column(Integer)
    digest: Mapped[str] = mapped_column(String(DIGEST), index=True)


class Image(Base):
    """One `ImageRecord`. A removed image keeps its row: builds, children and history refer to it."""

    __tablename__ = "images"
    __table_args__ = (Index("ix_images_name_version", "name", "version"),)

    serial: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(IDENTIFIER), unique=True)
    name: Mapped[str] = mapped_column(String(255))
    version: Mapped[str] = mapped_column(String(255))
    digest: Mapped[str] = mapped_column(String(DIGEST), index=True)
    fingerprint: Mapped[str] = mapped_column(String(64), index=True)
    parent: Mapped[str | None] = mapped_column(ForeignKey("images.id"), index=True)
    created: Mapped[str] = mapped_column(String(TIME))
    size: Mapped[int] = mapped_column(BigInteger)
    virtual_size: Mapped[int] = mapped_column(BigInteger)
    verified: Mapped[bool] = mapped_column(Boolean)
    build: Mapped[str] = mapped_column(ForeignKey("builds.id"), index=True)
    builder: Mapped[str] = mapped_column(String(64))
    firmware: Mapped[str] = mapped_column(String(16))
    ssh_username: Mapped[str] = mapped_column(String(64))
    description: Mapped[str] = mapped_column(Text)
    labels: Mapped[dict[str, Any]] = mapped_column(JSON)
    matrix: Mapped[dict[str, Any]] = mapped_column(JSON)
    removed: Mapped[str | None] = mapped_column(String(TIME))
    origin: Mapped[str] = mapped_column(String(16), server_default="built")

    blobs: Mapped[list[ImageBlob]] = relationship(order_by="ImageBlob.position", cascade="all, delete-orphan", lazy="selectin")


class ImageBlob(Base):
    """One disk of an image's chain; position 0 is the image's own delta."""

    __tablename__ = "image_blobs"

    image: Mapped[str] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(DIGEST), index=True)


class Publication(Base):
    """One `Publication`."""

    __tablename__ = "publications"
    __table_args__ = (UniqueConstraint("kind", "region", "reference", name="uq_publications_kind"),)

    serial: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    image: Mapped[str] = mapped_column(ForeignKey("images.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    region: Mapped[str] = mapped_column(String(64))
    reference: Mapped[str] = mapped_column(String(255))
    account: Mapped[str] = mapped_column(String(32))
    snapshots: Mapped[list[str]] = mapped_column(JSON)
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[str] = mapped_column(String(TIME))
    removed: Mapped[str | None] = mapped_column(String(TIME))


class Channel(Base):
    """One `Channel`. An unset one has no row; its history stays."""

    __tablename__ = "channels"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    channel: Mapped[str] = mapped_column(String(64), primary_key=True)
    image: Mapped[str] = mapped_column(ForeignKey("images.id"), index=True)
    protected: Mapped[bool] = mapped_column(Boolean)
    protected_by: Mapped[str] = mapped_column(String(255))
    who: Mapped[str] = mapped_column(String(255))
    changed: Mapped[str] = mapped_column(String(TIME))


class ChannelEvent(Base):
    """One `ChannelEvent`."""

    __tablename__ = "channel_events"
    __table_args__ = (Index("ix_channel_events_name_channel", "name", "channel"),)

    serial: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(255))
    channel: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(16))
    before: Mapped[str | None] = mapped_column(ForeignKey("images.id"))
    after: Mapped[str | None] = mapped_column(ForeignKey("images.id"))
    who: Mapped[str] = mapped_column(String(255))
    at: Mapped[str] = mapped_column(String(TIME))
    why: Mapped[str] = mapped_column(Text)


class Revocation(Base):
    """One `Revocation`, its own and not inherited. One that was undone keeps its row."""

    __tablename__ = "revocations"

    serial: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    image: Mapped[str] = mapped_column(ForeignKey("images.id"), index=True)
    reason: Mapped[str] = mapped_column(Text)
    who: Mapped[str] = mapped_column(String(255))
    at: Mapped[str] = mapped_column(String(TIME))
    effective: Mapped[str] = mapped_column(String(TIME))
    descendants: Mapped[bool] = mapped_column(Boolean)
    undone: Mapped[str | None] = mapped_column(String(TIME))
    undone_by: Mapped[str] = mapped_column(String(255))


class Release(Base):
    """One `Release`."""

    __tablename__ = "releases"
    __table_args__ = (UniqueConstraint("name", "number", name="uq_releases_name"),)

    serial: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(255))
    number: Mapped[int] = mapped_column(Integer)
    image: Mapped[str] = mapped_column(ForeignKey("images.id"), index=True)
    channel: Mapped[str] = mapped_column(String(64))
    target: Mapped[str] = mapped_column(String(255), index=True)
    region: Mapped[str] = mapped_column(String(64))
    account: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16))
    rollback_of: Mapped[int | None] = mapped_column(Integer)
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    who: Mapped[str] = mapped_column(String(255))
    started: Mapped[str] = mapped_column(String(TIME))
    finished: Mapped[str | None] = mapped_column(String(TIME))
    why: Mapped[str] = mapped_column(Text)
    error: Mapped[str] = mapped_column(Text)


class Journal(Base):
    """One `JournalEntry`: a record's digest, chained to the entry before it."""

    __tablename__ = "journal"

    serial: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(16))
    subject: Mapped[str] = mapped_column(String(255), index=True)
    digest: Mapped[str] = mapped_column(String(DIGEST))
    previous: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    at: Mapped[str] = mapped_column(String(TIME))


class Attestation(Base):
    """One `Attestation`."""

    __tablename__ = "attestations"

    serial: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    image: Mapped[str] = mapped_column(ForeignKey("images.id"), index=True)
    predicate: Mapped[str] = mapped_column(String(255))
    digest: Mapped[str] = mapped_column(String(DIGEST), index=True)
    keyid: Mapped[str] = mapped_column(String(64))
    who: Mapped[str] = mapped_column(String(255))
    at: Mapped[str] = mapped_column(String(TIME))


class Rebuild(Base):
    """One `Rebuild`."""

    __tablename__ = "rebuilds"

    serial: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    image: Mapped[str] = mapped_column(ForeignKey("images.id"), index=True)
    level: Mapped[int] = mapped_column(Integer)
    disk: Mapped[str] = mapped_column(String(DIGEST))
    report: Mapped[str] = mapped_column(String(DIGEST), index=True)
    host: Mapped[dict[str, Any]] = mapped_column(JSON)
    who: Mapped[str] = mapped_column(String(255))
    at: Mapped[str] = mapped_column(String(TIME))
