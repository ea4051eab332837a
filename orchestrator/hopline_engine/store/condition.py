"""How a store is as a whole: its place, its size, its schema; and looking into it without being a node."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from hopline_engine.clock import Clock
from hopline_engine.database_url import parse
from hopline_engine.settings import Settings
from hopline_engine.store import schema
from hopline_engine.store.dialect import now
from hopline_engine.store.errors import CannotOpenError
from hopline_engine.store.interface import Reads
from hopline_engine.store.lock import holder_of
from hopline_engine.store.opening import need_drivers
from hopline_engine.store.reading import Readers

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What is known of a store before its rows are looked at."""

    kind: str
    """``sqlite`` or ``postgres``."""
    place: str
    """Path of the file, or URL of the database without its password."""
    revision: str | None
    """Of its schema; ``None`` when it has none yet."""
    size_bytes: int
    log_bytes: int | None
    """Of the write-ahead log beside the file."""
    free_bytes: int | None
    """On the disk, where it is this machine's."""
    held_by: int | None
    """The process of this machine that has the file open, if one does."""
    now: float
    """By the clock of the database."""


def condition(connection: Connection, settings: Settings) -> Condition:
    """Return how the store that the settings name is.

    Raises:
        NotAStoreError: it is something else's.
        UnknownSchemaError: a newer version of Hopline wrote it.
    """
    moment = connection.execute(select(now())).scalar_one()
    revision = schema.known_revision(connection, settings.store_shown)
    if settings.is_on_postgres:
        size = connection.execute(select(func.pg_database_size(func.current_database()))).scalar_one()
        return Condition(
            kind="postgres",
            place=settings.store_shown,
            revision=revision,
            size_bytes=size,
            log_bytes=None,
            free_bytes=None,
            held_by=None,
            now=moment,
        )
    path = settings.store_path.expanduser().resolve()
    return Condition(
        kind="sqlite",
        place=str(path),
        revision=revision,
        size_bytes=_size(path),
        log_bytes=_size(path.with_name(path.name + "-wal")),
        free_bytes=shutil.disk_usage(path.parent).free,
        held_by=_living(holder_of(path)),
        now=moment,
    )


@asynccontextmanager
async def looked_into(settings: Settings, clock: Clock) -> AsyncIterator[Reads]:
    """Open the store that the settings name for looking only, whoever else has it open.

    Raises:
        StoreError: it cannot be reached, or is damaged.
    """
    if settings.is_on_postgres:
        need_drivers()
        from hopline_engine.store.postgres.connecting import Connector
        from hopline_engine.store.postgres.reading import PostgresReaders

        connector = Connector(parse(settings.store))
        await connector.check()
        database = PostgresReaders(connector)
        try:
            yield _Looking(database.run)
        finally:
            await database.close()
        return
    path = settings.store_path.expanduser().resolve()
    file = Readers(path, clock.now)
    try:
        yield _Looking(file.run)
    except DBAPIError as error:
        raise CannotOpenError(path, str(error.orig)) from error
    finally:
        await asyncio.to_thread(file.close)


def _living(pid: int | None) -> int | None:
    if pid is None:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # it is there, and somebody else's
        return pid
    return pid


class _Run(Protocol):
    async def __call__(self, function: Callable[[Connection], _T], /) -> _T: ...


class _Looking:
    def __init__(self, run: _Run) -> None:
        self._run = run

    async def read(self, function: Callable[[Connection], _T]) -> _T:
        return await self._run(function)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
