"""Opening a store in a test, giving it changes, and looking into it past the engine."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

from sqlalchemy import Table, func, select

from hopline_engine.core.changes import Changes
from hopline_engine.store import definitions
from hopline_engine.store.interface import Committer, Store
from hopline_engine.store.postgres.store import PostgresStore
from hopline_engine.store.postgres.store import open_store as open_postgres
from hopline_engine.store.sqlite import SQLiteStore, open_store
from tests.store import rows

FILE = "hopline.db"


@asynccontextmanager
async def opened_sqlite(
    folder: Path, *, node: str = "n_test", on_trouble: Callable[[Exception | None], None] = lambda _: None
) -> AsyncIterator[SQLiteStore]:
    """Open the store in *folder*, and close it afterwards."""
    store = await open_store(folder / FILE, node=node, clock=lambda: rows.NOW, on_trouble=on_trouble)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def opened_postgres(
    url: str, *, node: str = "n_test", on_trouble: Callable[[Exception | None], None] = lambda _: None
) -> AsyncIterator[PostgresStore]:
    """Open the store in a database as its only node, and close it afterwards."""
    store = await open_postgres(url, node=node, random=lambda: 0.0, alone=True, on_trouble=on_trouble)
    try:
        yield store
    finally:
        await store.close()


async def with_definition(store: Committer) -> None:
    """Register ``rows.DEFINITION``, which all runs of ``rows`` are of."""
    await store.execute(
        lambda connection: definitions.register(connection, [rows.DEFINITION], [rows.DEFINITION.name], rows.NOW)
    )


Told = list[tuple[int, BaseException | None]]


def note(told: Told, number: int) -> Callable[[BaseException | None], None]:
    """Return a listener that adds to *told* what became of the changes with this number."""
    return lambda error: told.append((number, error))


async def outcomes(store: Committer, *submitted: Changes) -> list[BaseException | None]:
    """Submit changes in one turn of the loop and return what became of each, once all are told."""
    loop = asyncio.get_running_loop()
    told: list[asyncio.Future[BaseException | None]] = [loop.create_future() for _ in submitted]
    for changes, future in zip(submitted, told, strict=True):
        store.submit(changes, future.set_result)
    return await asyncio.gather(*told)


async def commit(store: Committer, *submitted: Changes) -> None:
    """Submit changes in one turn of the loop and return when they are durable."""
    for error in await outcomes(store, *submitted):
        if error is not None:
            raise error


async def count(store: Store, table: Table) -> int:
    """Return how many rows a table has, as the engine reads it."""
    return await store.read(lambda connection: connection.execute(select(func.count()).select_from(table)).scalar_one())


@contextmanager
def looking_into(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the file of a store beside the engine, as another process would."""
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as raw:
        yield raw


def column(raw: sqlite3.Connection, query: str, parameters: Sequence[object] = ()) -> list[object]:
    """Return the first column of what a query finds."""
    return [found for (found, *_) in raw.execute(query, parameters)]
