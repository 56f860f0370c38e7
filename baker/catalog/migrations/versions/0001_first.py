"""First schema: builds with their steps, tests and evidence; images with their blobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _builds()
    _evidence()
    _images()
    _steps()
    _tests()
    _image_blobs()


def downgrade() -> None:
    for table in ("image_blobs", "tests", "steps", "images", "evidence", "builds"):
        op.drop_table(table)


def _builds() -> None:
    op.create_table(
        "builds",
        sa.Column("serial", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("started", sa.String(length=20), nullable=False),
        sa.Column("finished", sa.String(length=20), nullable=False),
        sa.Column("template_name", sa.String(length=255), nullable=False),
        sa.Column("template_version", sa.String(length=255), nullable=False),
        sa.Column("template_path", sa.Text(), nullable=False),
        sa.Column("template_text", sa.Text(), nullable=False),
        sa.Column("template_digest", sa.String(length=71), nullable=False),
        sa.Column("git_commit", sa.String(length=64), nullable=False),
        sa.Column("git_dirty", sa.Boolean(), nullable=False),
        sa.Column("variables", sa.JSON(), nullable=False),
        sa.Column("source", sa.JSON(), nullable=False),
        sa.Column("shape", sa.JSON(), nullable=False),
        sa.Column("machine", sa.JSON(), nullable=False),
        sa.Column("host", sa.JSON(), nullable=False),
        sa.Column("tools", sa.JSON(), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("ci", sa.JSON(), nullable=False),
        sa.Column("timings", sa.JSON(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("verify", sa.String(length=16), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("serial", name="pk_builds"),
        sa.UniqueConstraint("id", name="uq_builds_id"),
    )
    op.create_index("ix_builds_fingerprint", "builds", ["fingerprint"])
    op.create_index("ix_builds_template_name", "builds", ["template_name"])


def _evidence() -> None:
    op.create_table(
        "evidence",
        sa.Column("build", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name="fk_evidence_build_builds", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build", "name", name="pk_evidence"),
    )
    op.create_index("ix_evidence_digest", "evidence", ["digest"])


def _images() -> None:
    op.create_table(
        "images",
        sa.Column("serial", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("parent", sa.String(length=12), nullable=True),
        sa.Column("created", sa.String(length=20), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("virtual_size", sa.BigInteger(), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("build", sa.String(length=12), nullable=False),
        sa.Column("builder", sa.String(length=64), nullable=False),
        sa.Column("firmware", sa.String(length=16), nullable=False),
        sa.Column("ssh_username", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("matrix", sa.JSON(), nullable=False),
        sa.Column("removed", sa.String(length=20), nullable=True),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name="fk_images_build_builds"),
        sa.ForeignKeyConstraint(["parent"], ["images.id"], name="fk_images_parent_images"),
        sa.PrimaryKeyConstraint("serial", name="pk_images"),
        sa.UniqueConstraint("id", name="uq_images_id"),
    )
    op.create_index("ix_images_build", "images", ["build"])
    op.create_index("ix_images_digest", "images", ["digest"])
    op.create_index("ix_images_fingerprint", "images", ["fingerprint"])
    op.create_index("ix_images_name_version", "images", ["name", "version"])
    op.create_index("ix_images_parent", "images", ["parent"])


def _steps() -> None:
    op.create_table(
        "steps",
        sa.Column("build", sa.String(length=12), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("bundle", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name="fk_steps_build_builds", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build", "position", name="pk_steps"),
    )
    op.create_index("ix_steps_key", "steps", ["key"])


def _tests() -> None:
    op.create_table(
        "tests",
        sa.Column("build", sa.String(length=12), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name="fk_tests_build_builds", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("build", "position", name="pk_tests"),
    )


def _image_blobs() -> None:
    op.create_table(
        "image_blobs",
        sa.Column("image", sa.String(length=12), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.ForeignKeyConstraint(["image"], ["images.id"], name="fk_image_blobs_image_images", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("image", "position", name="pk_image_blobs"),
    )
    op.create_index("ix_image_blobs_digest", "image_blobs", ["digest"])
