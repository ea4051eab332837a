"""A Postgres database looked at, and changed, from outside."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, func, select

from hopline_engine.database_url import parse
from hopline_engine.store import schema
from hopline_engine.store.postgres.connecting import Connector
from hopline_engine.store.schema import Seen

_T = TypeVar("_T")


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


async def change(url: str, function: Callable[[Connection], _T]) -> _T:
    """Have a function change a database in transactions that it ends itself.

    Raises:
        StoreError: it cannot be reached.
    """
    async with Connector(parse(url)).opened() as engine, engine.connect() as connection:
        return await connection.run_sync(function)
