"""Alembic's way in: migrations run in the transaction that the caller has begun (baker.catalog.database.upgrade)."""

from alembic import context

from baker.catalog.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True)
context.run_migrations()
