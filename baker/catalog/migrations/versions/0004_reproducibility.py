"""Add reproducibility and trust: how a build was pinned, the journal (a hash chain over all records), attestations and rebuilds."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("builds") as builds:
        builds.add_column(sa.Column("reproduction", sa.JSON(), server_default="{}", nullable=False))
    with op.batch_alter_table("images") as images:
        images.add_column(sa.Column("origin", sa.String(length=16), server_default="built", nullable=False))
    _journal()
    _attestations()
    _rebuilds()


def downgrade() -> None:
    for table in ("rebuilds", "attestations", "journal"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION journal_append_only()")
    with op.batch_alter_table("images") as images:
        images.drop_column("origin")
    with op.batch_alter_table("builds") as builds:
        builds.drop_column("reproduction")


def _journal() -> None:
    op.create_table(
        "journal",
        sa.Column("serial", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("at", sa.String(length=20), nullable=False),
        sa.PrimaryKeyConstraint("serial", name="pk_journal"),
        sa.UniqueConstraint("hash", name="uq_journal_hash"),
    )
    op.create_index("ix_journal_subject", "journal", ["subject"])
    _append_only(op.get_bind().dialect.name)


def _append_only(dialect: str) -> None:
    """Make the database refuse to change or delete entries. This prevents mistakes; tampering is revealed by the hashes."""
    says = "the journal is append-only"
    if dialect == "sqlite":
        for what in ("UPDATE", "DELETE"):
            op.execute(f"CREATE TRIGGER journal_no_{what.lower()} BEFORE {what} ON journal BEGIN SELECT RAISE(ABORT, '{says}'); END")
    elif dialect == "postgresql":
        op.execute(
            f"CREATE FUNCTION journal_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{says}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER journal_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON journal"
            " FOR EACH STATEMENT EXECUTE FUNCTION journal_append_only()"
        )


def _attestations() -> None:
    op.create_table(
        "attestations",
        sa.Column("serial", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("image", sa.String(length=12), nullable=False),
        sa.Column("predicate", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("keyid", sa.String(length=64), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("at", sa.String(length=20), nullable=False),
        sa.ForeignKeyConstraint(["image"], ["images.id"], name="fk_attestations_image_images"),
        sa.PrimaryKeyConstraint("serial", name="pk_attestations"),
    )
    op.create_index("ix_attestations_image", "attestations", ["image"])
    op.create_index("ix_attestations_digest", "attestations", ["digest"])


def _rebuilds() -> None:
    op.create_table(
        "rebuilds",
        sa.Column("serial", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("image", sa.String(length=12), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("disk", sa.String(length=71), nullable=False),
        sa.Column("report", sa.String(length=71), nullable=False),
        sa.Column("host", sa.JSON(), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("at", sa.String(length=20), nullable=False),
        sa.ForeignKeyConstraint(["image"], ["images.id"], name="fk_rebuilds_image_images"),
        sa.PrimaryKeyConstraint("serial", name="pk_rebuilds"),
    )
    op.create_index("ix_rebuilds_image", "rebuilds", ["image"])
    op.create_index("ix_rebuilds_report", "rebuilds", ["report"])
