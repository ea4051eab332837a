"""A store in one Postgres database, for any number of nodes."""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from hopline_engine.core.changes import Changes
from hopline_engine.database_url import parse
from hopline_engine.store import nodes, schema
from hopline_engine.store.errors import StoreClosedError
from hopline_engine.store.interface import Owner
from hopline_engine.store.postgres.commit import PostgresCommitter
from hopline_engine.store.postgres.connecting import Connector
from hopline_engine.store.postgres.reading import PostgresReaders
from hopline_engine.store.postgres.writer import PostgresWriter

_T = TypeVar("_T")

_UPGRADE_LOCK: Final = 0x686F706C696E65  # "hopline"
"""Of the transaction that changes the tables, so that of several nodes that start together one does it."""


async def open_store(
    database: str,
    *,
    node: str,
    random: Callable[[], float],
    url: str | None = None,
    alone: bool = False,
    on_trouble: Callable[[Exception | None], None] = lambda _: None,
    connector: Callable[..., Connector] = Connector,
) -> "PostgresStore":
    """Open the store in a database as one node of several, making or upgrading its tables if need be.

    Args:
        database: its URL, ``postgresql://``. libpq's options and variables count; ``statement_cache_size=0`` keeps
            statements from being prepared.
        node: names this process; random for each start.
        random: returns numbers in ``[0, 1)``, for jitter.
        url: where other nodes reach this one.
        alone: end all other nodes and hold all shards.
        on_trouble: called on the loop with the error each time a commit has to be tried again, and with ``None`` when
            it went through.
        connector: makes connections, given the URL.

    Raises:
        DatabaseUrlError: the URL cannot be read.
        CannotConnectError: the database cannot be reached, does not let us in, or is none that we can use.
        UnknownSchemaError: a newer version of Hopline wrote it.
        NotAStoreError: the database is something else's.
    """
    connections = connector(parse(database))
    async with connections.opened() as engine:
        await _upgrade(engine, connections.url.shown)
        async with engine.begin() as connection:
            owner = await connection.run_sync(partial(nodes.join, node_id=node, url=url, alone=alone))
    return PostgresStore(connections, owner, random, on_trouble)


async def upgrade(database: str) -> None:
    """Make or upgrade the tables of a database.

    Raises:
        StoreError: as ``open_store``.
    """
    connections = Connector(parse(database))
    async with connections.opened() as engine:
        await _upgrade(engine, connections.url.shown)


class PostgresStore:
    """See ``Store``; made by ``open_store``."""

    def __init__(
        self,
        connector: Connector,
        owner: Owner,
        random: Callable[[], float],
        on_trouble: Callable[[Exception | None], None],
    ) -> None:
        self._owner = owner
        self._is_closed = False
        writer = PostgresWriter(connector, owner)
        self._committer = PostgresCommitter(writer, say=connector.said, random=random, on_trouble=on_trouble)
        self._readers = PostgresReaders(connector)

    @property
    def owner(self) -> Owner:
        """See ``Store.owner``."""
        return self._owner

    def submit(self, changes: Changes, done: Callable[[BaseException | None], None]) -> None:
        """See ``Committer.submit``."""
        self._committer.submit(changes, done)

    async def execute(self, function: Callable[[Connection], _T]) -> _T:
        """See ``Committer.execute``."""
        return await self._committer.execute(function)

    async def read(self, function: Callable[[Connection], _T]) -> _T:
        """See ``Store.read``."""
        if self._is_closed:
            raise StoreClosedError
        return await self._readers.run(function)

    async def close(self) -> None:
        """See ``Committer.close``."""
        self._is_closed = True
        await self._committer.close()
        await self._readers.close()


async def _upgrade(engine: AsyncEngine, shown: str) -> None:
    async with engine.begin() as connection:
        if await connection.run_sync(schema.is_current, shown):
            return
        await connection.execute(select(func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
        if not await connection.run_sync(schema.is_current, shown):
            await connection.run_sync(schema.upgrade)
