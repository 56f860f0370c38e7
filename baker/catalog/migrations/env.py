"""The environment script of Alembic: migrations run in the caller's transaction (baker.catalog.database.upgrade)."""

from alembic import context

from baker.catalog.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True)
context.run_migrations()
