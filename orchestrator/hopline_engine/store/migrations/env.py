"""Run by alembic: applies migrations on the connection that ``schema.upgrade`` put into the configuration."""

from alembic import context

from hopline_engine.store.metadata import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite can alter little: alembic then copies the table instead.
    render_as_batch=True,
    # The connection begins explicitly, so DDL and the version row are one transaction on SQLite too.
    transactional_ddl=True,
    transaction_per_migration=True,
)
context.run_migrations()
