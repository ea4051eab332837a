"""Reading: one state of the store, beside those who write, and never for ever."""

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from hopline_engine.store.interface import Store
from hopline_engine.store.reading import READERS, Readers
from hopline_engine.store.sqlite import SQLiteStore
from hopline_engine.store.tables import run
from tests.store.opened import FILE, commit
from tests.store.rows import started

pytestmark = pytest.mark.anyio

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def count_runs(connection: Connection) -> int:
    """Return how many runs there are."""
    return connection.execute(select(func.count()).select_from(run)).scalar_one()


async def test_a_reader_sees_one_state_while_others_commit(store: Store) -> None:
    has_looked = asyncio.Event()
    may_stop = threading.Event()
    loop = asyncio.get_running_loop()

    def look_again_and_again(connection: Connection) -> set[int]:
        seen = {count_runs(connection)}
        loop.call_soon_threadsafe(has_looked.set)
        while not may_stop.is_set():
            seen.add(count_runs(connection))
        return seen | {count_runs(connection)}

    await commit(store, started(1))
    reading = asyncio.ensure_future(store.read(look_again_and_again))
    await has_looked.wait()
    await commit(store, started(2), started(3))
    may_stop.set()

    assert await reading == {1}
    assert await store.read(count_runs) == 3


async def test_more_readers_than_threads_are_all_served(store: Store) -> None:
    await commit(store, started(1))

    assert await asyncio.gather(*[store.read(count_runs) for _ in range(READERS * 5)]) == [1] * READERS * 5


async def test_what_a_reader_raises_is_raised_and_the_next_one_is_served(store: Store) -> None:
    def fail(connection: Connection) -> None:
        count_runs(connection)
        raise LookupError("on purpose")

    for _ in range(READERS + 1):
        with pytest.raises(LookupError, match="on purpose"):
            await store.read(fail)

    assert await store.read(count_runs) == 0


async def test_a_query_that_takes_too_long_is_stopped_and_the_next_one_is_served(
    sqlite_store: SQLiteStore, tmp_path: Path
) -> None:
    readers = Readers(tmp_path / FILE, lambda: 0.0, seconds=1.0)
    try:
        endless = [readers.run(lambda one: one.exec_driver_sql(ENDLESS).scalar()) for _ in range(READERS)]
        told = await asyncio.gather(*endless, return_exceptions=True)
        assert [str(error) for error in told] == ["a query of the store took more than 1 s"] * READERS

        assert await readers.run(count_runs) == 0
    finally:
        readers.close()


async def test_closing_waits_for_those_who_read(store: Store) -> None:
    begun = asyncio.Event()
    may_end = threading.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: Connection) -> int:
        loop.call_soon_threadsafe(begun.set)
        while not may_end.is_set():
            count_runs(connection)
        return count_runs(connection)

    reading = asyncio.ensure_future(store.read(slow))
    await begun.wait()
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    assert not closing.done()
    may_end.set()

    await closing
    assert await reading == 0
