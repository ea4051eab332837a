"""Units of a Postgres store's writing, each one transaction: how it becomes durable once, whatever happens meanwhile.

Each unit has a number that the node counts, and is written only if the node's row still has a lower one. So a unit
whose commit broke off, and of which nobody knows whether it was written, can be looked up, or sent again: written
twice it would change nothing, and what an earlier try may still do on the server is then void.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import asyncpg
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncConnection

from hopline_engine.core.changes import Changes
from hopline_engine.store.entries import Call, Decided, Outcome, refused
from hopline_engine.store.errors import OwnershipLostError, RowsMissingError
from hopline_engine.store.interface import Owner
from hopline_engine.store.postgres.connecting import Connector
from hopline_engine.store.postgres.grouping import gathered, merged, rounds
from hopline_engine.store.postgres.statements import (
    Guard,
    group_statement,
    guard_statement,
    kind_statement,
    look_statement,
)
from hopline_engine.store.postgres.trouble import is_trouble
from hopline_engine.store.statements import ROW_TYPES

_COUNTED: Final = frozenset(row.kind for row in ROW_TYPES if row.counted)
_WRITTEN: Final = Outcome()


class Unit:
    """Decisions, or one call, that are written in one transaction."""

    def __init__(self, entries: Sequence[Decided] | Sequence[Call]) -> None:
        self.entries = entries
        self.number: int | None = None
        """Given when it is written for the first time."""
        self.outcomes: Sequence[Outcome] = ()
        """What becomes of the entries if the commit that was last sent is durable."""


class _Link(NamedTuple):
    """One connection, in two views."""

    connection: AsyncConnection
    raw: asyncpg.Connection


class PostgresWriter:
    """Writes units through one connection of its own, which is made again when it breaks."""

    def __init__(self, connector: Connector, owner: Owner) -> None:
        self._caches_statements = connector.url.caches_statements
        self._owner = owner
        # Transactions are begun and ended here; SQLAlchemy must not do it as well.
        self._engine = connector.engine(NullPool, by_key=True, isolation_level="AUTOCOMMIT")
        self._link: _Link | None = None
        self._number = 0

    async def run(self, unit: Unit) -> Sequence[Outcome]:
        """Write and commit *unit* and return what became of each entry.

        A decision that cannot be written is left out and gets its error; the others are not affected. It may be
        called again with the same unit after it raised.

        Raises:
            OwnershipLostError: this is no node any more; nothing was written.
            Exception: trouble of the server, or on the way to it; whether it was written is found out next time.
        """
        try:
            return await self._run(unit)
        except OwnershipLostError:
            raise
        except BaseException:
            await self._drop()
            raise

    async def close(self) -> None:
        """Close the connection."""
        await self._drop()
        await self._engine.dispose()

    async def _run(self, unit: Unit) -> Sequence[Outcome]:
        link = await self._connected()
        if unit.number is None:
            self._number += 1
            unit.number = self._number
        elif await self._is_written(link.raw, unit):
            return unit.outcomes
        first = unit.entries[0]
        if isinstance(first, Call):
            return await self._call(link, unit, first)
        batch = [entry.changes for entry in unit.entries if isinstance(entry, Decided)]
        return await self._write(link.raw, unit, batch)

    async def _connected(self) -> "_Link":
        if self._link is not None and self._link.raw.is_closed():
            await self._drop()
        if self._link is None:
            connection = await self._engine.connect()
            raw = (await connection.get_raw_connection()).driver_connection
            assert isinstance(raw, asyncpg.Connection)
            self._link = _Link(connection, raw)
        return self._link

    async def _drop(self) -> None:
        """Give the connection up without waiting for the server."""
        link, self._link = self._link, None
        if link is not None:
            link.raw.terminate()
            with contextlib.suppress(Exception):
                await link.connection.invalidate()
            with contextlib.suppress(Exception):
                await link.connection.close()

    # --- decisions ------------------------------------------------------------------------------------------------

    async def _write(self, raw: asyncpg.Connection, unit: Unit, batch: Sequence[Changes]) -> Sequence[Outcome]:
        try:
            return await self._together(raw, unit, batch)
        except OwnershipLostError:
            raise
        except Exception as error:
            if is_trouble(error):
                raise
        return await self._transaction(raw, unit, lambda: self._one_by_one(raw, batch))

    async def _together(self, raw: asyncpg.Connection, unit: Unit, batch: Sequence[Changes]) -> Sequence[Outcome]:
        given = gathered(batch)
        rows = merged(given) if self._caches_statements else None
        if rows is None:
            return await self._transaction(raw, unit, lambda: self._in_turn(raw, batch))
        written = [_WRITTEN] * len(batch)
        # An earlier try that left some out may be committed only now, while this one waits for the node's row.
        unit.outcomes = unit.outcomes or written
        statement = group_statement(tuple(rows))
        found = await raw.fetchval(statement.sql, *statement.arguments(self._guard(unit), rows))
        return written if found else await self._former(raw, unit)

    async def _in_turn(self, raw: asyncpg.Connection, batch: Sequence[Changes]) -> Sequence[Outcome]:
        await _apply(raw, batch)
        return [_WRITTEN] * len(batch)

    async def _one_by_one(self, raw: asyncpg.Connection, batch: Sequence[Changes]) -> Sequence[Outcome]:
        return [await self._alone(raw, changes) for changes in batch]

    async def _alone(self, raw: asyncpg.Connection, changes: Changes) -> Outcome:
        """Write one decision so that its failing undoes what it did and nothing else."""
        await raw.execute("SAVEPOINT alone")
        try:
            await _apply(raw, [changes])
        except Exception as error:
            if is_trouble(error):
                raise
            await raw.execute("ROLLBACK TO alone")
            return refused(error)
        await raw.execute("RELEASE alone")
        return _WRITTEN

    # --- calls ----------------------------------------------------------------------------------------------------

    async def _call(self, link: "_Link", unit: Unit, call: Call) -> Sequence[Outcome]:
        async def body() -> Sequence[Outcome]:
            return [Outcome(await link.connection.run_sync(call.function))]

        try:
            return await self._transaction(link.raw, unit, body)
        except OwnershipLostError:
            raise
        except Exception as error:
            if is_trouble(error):
                raise
            return [Outcome(error=error)]
        finally:
            # SQLAlchemy believes that it began one; the server is told nothing.
            with contextlib.suppress(Exception):
                await link.connection.rollback()

    # --- one transaction of several statements --------------------------------------------------------------------

    async def _transaction(
        self, raw: asyncpg.Connection, unit: Unit, body: Callable[[], Awaitable[Sequence[Outcome]]]
    ) -> Sequence[Outcome]:
        await raw.execute("BEGIN")
        try:
            guard = guard_statement()
            if await raw.fetchval(guard.sql, *guard.arguments(self._guard(unit), {})) is None:
                await raw.execute("ROLLBACK")
                return await self._former(raw, unit)
            outcomes = await body()
        except BaseException as error:
            # In trouble the connection is dropped, and the transaction with it.
            if raw.is_in_transaction() and not is_trouble(error):
                await raw.execute("ROLLBACK")
            raise
        unit.outcomes = outcomes
        if await raw.execute("COMMIT") != "COMMIT":
            # The server takes COMMIT for ROLLBACK when a statement has failed, even if its error was caught.
            raise RuntimeError("the transaction was rolled back, since one of its statements had failed")
        return outcomes

    def _guard(self, unit: Unit) -> Guard:
        assert unit.number is not None
        return Guard(unit.number, self._owner.node, self._owner.epoch)

    async def _former(self, raw: asyncpg.Connection, unit: Unit) -> Sequence[Outcome]:
        """Return what became of a unit that the guard did not let through: an earlier try has written it."""
        assert await self._is_written(raw, unit), "the guard found no node, and yet there is one"
        return unit.outcomes

    async def _is_written(self, raw: asyncpg.Connection, unit: Unit) -> bool:
        """Return whether a unit is durable.

        Raises:
            OwnershipLostError: this is no node any more.
        """
        guard = self._guard(unit)
        look = look_statement()
        committed = await raw.fetchval(look.sql, *look.arguments(guard, {}))
        if committed is None:
            raise OwnershipLostError(self._owner.node, self._owner.epoch)
        return bool(committed >= guard.number)


async def _apply(raw: asyncpg.Connection, batch: Sequence[Changes]) -> None:
    """Write decisions as SQLite does, a statement for each kind of rows."""
    for kind, rows in gathered(batch).items():
        for part in rounds(kind, rows):
            statement = kind_statement(kind)
            status = await raw.execute(statement.sql, *statement.arguments(None, {kind: part}))
            found = int(status.rpartition(" ")[2])
            if kind in _COUNTED and found != len(part):
                raise RowsMissingError(kind, len(part), found)
