"""Add to steps when they ran and the inputs of their keys, which explain layers; add to builds the key of their tests."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("steps") as steps:
        steps.add_column(sa.Column("ran", sa.Float(), server_default="0", nullable=False))
        steps.add_column(sa.Column("inputs", sa.JSON(), server_default="{}", nullable=False))
    with op.batch_alter_table("builds") as builds:
        builds.add_column(sa.Column("verify_key", sa.String(length=64), server_default="", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("builds") as builds:
        builds.drop_column("verify_key")
    with op.batch_alter_table("steps") as steps:
        steps.drop_column("inputs")
        steps.drop_column("ran")
