"""Connections to Postgres: how they are made, and what keeps every call on them from waiting for ever.

Nothing here relies on state of a session, so that PgBouncer may stand between and give each transaction another one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import asyncpg
from sqlalchemy import NullPool, Pool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hopline_engine.database_url import DatabaseUrl
from hopline_engine.store.errors import CannotConnectError
from hopline_engine.store.postgres.trouble import cause_of, reason_of, refusal

OLDEST_VERSION: Final = 14

CONNECT_SECONDS: Final = 10.0
COMMAND_SECONDS: Final = 30.0
"""After which a server is taken to answer no more, and a command that it takes so long for is given up."""


_BY_KEY: Final = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}
"""For statements that find every row by its key. A plan that is kept was made when the tables were small, and reading
all of a small table is quicker; a minute later it has grown a thousandfold (measured: 15 ms a group instead of one)."""


class Connector:
    """Makes connections to one database."""

    def __init__(
        self, url: DatabaseUrl, *, connect_seconds: float = CONNECT_SECONDS, command_seconds: float = COMMAND_SECONDS
    ) -> None:
        self.url = url
        self._connect_seconds = connect_seconds
        self._command_seconds = command_seconds
        self._takes_settings = True

    async def connect(self, *, by_key: bool = False) -> asyncpg.Connection:
        """Return a new connection, for statements that find their rows *by_key* or for others.

        Raises:
            OSError: it could not be made.
            asyncpg.PostgresError: the server does not want us.
        """
        options: dict[str, Any] = {
            "timeout": self._connect_seconds,
            "command_timeout": self._command_seconds,
            "max_cached_statement_lifetime": 0,
            "max_cacheable_statement_size": 0,
        }
        if not self.url.caches_statements:
            options["statement_cache_size"] = 0
        settings = {"application_name": "hopline"}
        if by_key and self._takes_settings:
            try:
                return await asyncpg.connect(self.url.dsn, server_settings=settings | _BY_KEY, **options)
            except asyncpg.ProtocolViolationError:
                self._takes_settings = False  # PgBouncer lets none through
        return await asyncpg.connect(self.url.dsn, server_settings=settings, **options)

    def engine(self, pool: type[Pool], *, by_key: bool = False, **options: Any) -> AsyncEngine:
        """Return a SQLAlchemy engine whose connections are made by ``connect``."""
        arguments: dict[str, Any] = {"async_creator_fn": partial(self.connect, by_key=by_key)}
        if not self.url.caches_statements:
            # The statement without a name, which lives as long as its transaction does.
            arguments |= {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
        return create_async_engine(
            "postgresql+asyncpg://", connect_args=arguments, poolclass=pool, skip_autocommit_rollback=True, **options
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AsyncEngine]:
        """Check the database, and yield an engine for a while, whose errors are said in our words.

        Raises:
            CannotConnectError: the database cannot be reached, does not let us in, or is none that we can use.
        """
        await self.check()
        engine = self.engine(NullPool)
        try:
            yield engine
        except (OSError, DBAPIError, asyncpg.PostgresError) as error:
            cause = cause_of(error)
            raise self.refused(cause if isinstance(cause, Exception) else error) from error
        finally:
            await engine.dispose()

    async def check(self) -> None:
        """Look whether the database can be a store.

        Raises:
            CannotConnectError: it cannot be reached, does not let us in, or is none that we can use.
        """
        try:
            connection = await self.connect()
        except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise self.refused(error) from None
        try:
            self._judge(connection)
        finally:
            await asyncio.shield(connection.close(timeout=self._connect_seconds))

    def refused(self, error: Exception) -> CannotConnectError:
        """Return an error in our words."""
        reason, hint = refusal(error, self.url.database)
        return CannotConnectError(self.url.shown, self.url.redacted(reason), hint)

    def said(self, error: BaseException) -> str:
        """Return what an error says, without what is secret."""
        return self.url.redacted(reason_of(error))

    def _judge(self, connection: asyncpg.Connection) -> None:
        version = connection.get_server_version()
        if version.major < OLDEST_VERSION:
            reason = f"it is Postgres {version.major}.{version.minor}; Hopline needs {OLDEST_VERSION} or newer"
            raise CannotConnectError(self.url.shown, reason, "upgrade the server")
        encoding = getattr(connection.get_settings(), "server_encoding", "UTF8")
        if encoding != "UTF8":
            reason = f"its encoding is {encoding}, which cannot hold every text"
            hint = f"createdb --encoding=UTF8 --template=template0 {self.url.database or 'NAME'}"
            raise CannotConnectError(self.url.shown, reason, hint)
