"""Reading from Postgres: queries on a few connections that cannot write, each in one snapshot."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import asyncpg
from sqlalchemy import AsyncAdaptedQueuePool, Connection, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from hopline_engine.errors import StoreUnavailableError
from hopline_engine.store.errors import ReadTimeoutError
from hopline_engine.store.postgres.connecting import Connector
from hopline_engine.store.postgres.trouble import cause_of, is_trouble

_T = TypeVar("_T")

READERS: Final = 4
"""However many read at a time; the others wait for their turn."""
READ_SECONDS: Final = 30.0
"""A query that takes longer is stopped, so that no caller waits for ever."""


class PostgresReaders:
    """Runs query functions."""

    def __init__(self, connector: Connector, seconds: float = READ_SECONDS) -> None:
        self._connector = connector
        self._seconds = seconds
        self._bound = text(f"SELECT set_config('statement_timeout', '{round(seconds * 1000)}', true)")
        self._engine = connector.engine(
            AsyncAdaptedQueuePool,
            pool_size=READERS,
            max_overflow=0,
            pool_timeout=seconds,
            execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
        )
        self._running: set[asyncio.Task[object]] = set()

    async def run(self, function: Callable[[Connection], _T]) -> _T:
        """Return what *function* returns.

        Raises:
            ReadTimeoutError: it took too long.
            StoreUnavailableError: the server cannot be reached.
        """
        reading = asyncio.ensure_future(self._run(function))
        self._running.add(reading)
        reading.add_done_callback(self._running.discard)
        return await reading

    async def close(self) -> None:
        """Wait for queries that run and close the connections."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._engine.dispose()

    async def _run(self, function: Callable[[Connection], _T]) -> _T:
        try:
            async with asyncio.timeout(self._seconds):
                try:
                    return await self._query(function)
                except Exception as error:
                    if not _is_stale(error):
                        raise
                # The server was restarted since the connection was made. A query may be asked twice.
                return await self._query(function)
        except Exception as error:
            if isinstance(cause_of(error), TimeoutError | PoolTimeoutError | asyncpg.QueryCanceledError):
                raise ReadTimeoutError(self._seconds) from None
            if is_trouble(error):
                raise StoreUnavailableError(reason=self._connector.said(error)) from error
            raise

    async def _query(self, function: Callable[[Connection], _T]) -> _T:
        async with self._engine.connect() as connection:
            await connection.execute(self._bound)
            return await connection.run_sync(function)


def _is_stale(error: Exception) -> bool:
    return getattr(error, "connection_invalidated", False)
