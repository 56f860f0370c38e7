"""Add publications, channels, revocations and releases."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _publications()
    _channels()
    _channel_events()
    _revocations()
    _releases()


def downgrade() -> None:
    for table in ("releases", "revocations", "channel_events", "channels", "publications"):
        op.drop_table(table)


def _publications() -> None:
    op.create_table(
        "publications",
        sa.Column("serial", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("image", sa.String(length=12), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("reference", sa.String(length=255), nullable=False),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column("snapshots", sa.JSON(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created", sa.String(length=20), nullable=False),
        sa.Column("removed", sa.String(length=20), nullable=True),
        sa.ForeignKeyConstraint(["image"], ["images.id"], name="fk_publications_image_images"),
        sa.PrimaryKeyConstraint("serial", name="pk_publications"),
        sa.UniqueConstraint("kind", "region", "reference", name="uq_publications_kind"),
    )
    op.create_index("ix_publications_image", "publications", ["image"])


def _channels() -> None:
    op.create_table(
        "channels",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("image", sa.String(length=12), nullable=False),
        sa.Column("protected", sa.Boolean(), nullable=False),
        sa.Column("protected_by", sa.String(length=255), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("changed", sa.String(length=20), nullable=False),
        sa.ForeignKeyConstraint(["image"], ["images.id"], name="fk_channels_image_images"),
        sa.PrimaryKeyConstraint("name", "channel", name="pk_channels"),
    )
    op.create_index("ix_channels_image", "channels", ["image"])


def _channel_events() -> None:
    op.create_table(
        "channel_events",
        sa.Column("serial", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("before", sa.String(length=12), nullable=True),
        sa.Column("after", sa.String(length=12), nullable=True),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("at", sa.String(length=20), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["before"], ["images.id"], name="fk_channel_events_before_images"),
        sa.ForeignKeyConstraint(["after"], ["images.id"], name="fk_channel_events_after_images"),
        sa.PrimaryKeyConstraint("serial", name="pk_channel_events"),
    )
    op.create_index("ix_channel_events_name_channel", "channel_events", ["name", "channel"])


def _revocations() -> None:
    op.create_table(
        "revocations",
        sa.Column("serial", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("image", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("at", sa.String(length=20), nullable=False),
        sa.Column("effective", sa.String(length=20), nullable=False),
        sa.Column("descendants", sa.Boolean(), nullable=False),
        sa.Column("undone", sa.String(length=20), nullable=True),
        sa.Column("undone_by", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["image"], ["images.id"], name="fk_revocations_image_images"),
        sa.PrimaryKeyConstraint("serial", name="pk_revocations"),
    )
    op.create_index("ix_revocations_image", "revocations", ["image"])


def _releases() -> None:
    op.create_table(
        "releases",
        sa.Column("serial", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("image", sa.String(length=12), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=255), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("rollback_of", sa.Integer(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("started", sa.String(length=20), nullable=False),
        sa.Column("finished", sa.String(length=20), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["image"], ["images.id"], name="fk_releases_image_images"),
        sa.PrimaryKeyConstraint("serial", name="pk_releases"),
        sa.UniqueConstraint("name", "number", name="uq_releases_name"),
    )
    op.create_index("ix_releases_image", "releases", ["image"])
    op.create_index("ix_releases_target", "releases", ["target"])
