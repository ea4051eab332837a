"""A Postgres database looked at from outside."""

from sqlalchemy import Connection, func, select

from hopline_engine.database_url import parse
from hopline_engine.store import schema
from hopline_engine.store.postgres.connecting import Connector
from hopline_engine.store.schema import Seen


async def look(url: str) -> Seen:
    """Return what is in a database.

    Raises:
        StoreError: it cannot be reached, is something else, or was written by a newer version.
    """
    connector = Connector(parse(url))

    def seen(connection: Connection) -> Seen:
        size = connection.execute(select(func.pg_database_size(func.current_database()))).scalar_one()
        version = connection.execute(select(func.current_setting("server_version"))).scalar_one()
        return Seen(f"PostgreSQL {version}", schema.known_revision(connection, connector.url.shown), size)

    async with connector.opened() as engine, engine.connect() as connection:
        return await connection.run_sync(seen)
