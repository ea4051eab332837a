"""When the machine cannot write: everything is kept, nobody is told too early, and it goes on by itself.

The disk is made full by forbidding the file to grow, on the connection that writes.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import AttemptState, RunState, TaskState
from hopline_engine.errors import StoreUnavailableError
from hopline_engine.store.commit import LOOP_BYTES
from hopline_engine.store.errors import ChangesRefusedError, RowsMissingError
from hopline_engine.store.sqlite import SQLiteStore
from hopline_engine.store.tables import meta
from tests.store.opened import Told, column, commit, looking_into, note, opened_sqlite, outcomes, with_definition
from tests.store.rows import attempt_ended, run_ended, started, task_moved
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

RUNS = "SELECT id FROM run ORDER BY id"
SIZES = pytest.mark.parametrize(
    "size", [LOOP_BYTES // 2, LOOP_BYTES + 1], ids=["written on the loop", "written in the thread"]
)


class Disk:
    """A disk that can be made full for one store, and what the store told of it."""

    def __init__(self) -> None:
        self.told: list[Exception | None] = []
        self._raw: sqlite3.Connection | None = None

    async def hold(self, store: SQLiteStore) -> None:
        """Get hold of the connection that writes."""

        def writing(connection: Connection) -> Any:
            return connection.connection.driver_connection

        self._raw = await store.execute(writing)

    def fill(self) -> None:
        """Let the file grow no more."""
        self._limit(1)  # taken for the number of pages that there are

    def empty(self) -> None:
        """Let it grow again."""
        self._limit(2**30)

    def _limit(self, pages: int) -> None:
        assert self._raw is not None
        self._raw.execute(f"PRAGMA max_page_count = {pages}").fetchall()

    async def troubles(self, times: int) -> None:
        """Return once the store has told so often that it cannot write."""
        await until(lambda: len([told for told in self.told if told]) >= times, f"trouble {times} is told")


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def store(tmp_path: Path, disk: Disk) -> AsyncIterator[SQLiteStore]:
    """Return a store on *disk* with run 1."""
    async with opened_sqlite(tmp_path, on_trouble=disk.told.append) as store:
        await with_definition(store)
        await commit(store, started(1))
        await disk.hold(store)
        yield store


class Unsure:
    """A connection whose next commit fails, and is on the disk all the same."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw
        self._fails = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:
        done = self._raw.execute(sql, *given)
        if sql == "COMMIT" and self._fails:
            self._fails = False
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        return done


async def test_what_was_written_although_its_commit_failed_is_not_moved_back(
    store: SQLiteStore, tmp_path: Path
) -> None:
    writer = store._files.writer
    writer.raw = Unsure(writer.raw)  # type: ignore[assignment]
    accepted = Changes(tasks_moved=[task_moved(1, state=TaskState.ACCEPTED)])
    ended = attempt_ended(1, state=AttemptState.FAILED)
    failed = Changes(attempts_ended=[ended], tasks_moved=[task_moved(1, state=TaskState.SCHEDULED, leased_at=None)])

    told = await outcomes(store, accepted, failed)

    assert [type(error) for error in told] == [ChangesRefusedError] * 2
    with looking_into(tmp_path) as connection:
        assert column(connection, "SELECT state FROM task") == [TaskState.SCHEDULED]


@SIZES
async def test_on_a_full_disk_nothing_is_acknowledged_and_afterwards_all_is_written_in_order(
    store: SQLiteStore, disk: Disk, tmp_path: Path, size: int
) -> None:
    told: Told = []
    disk.fill()

    for number in (2, 3):
        store.submit(started(number, input=b"1" * size), note(told, number))
    await disk.troubles(2)
    for number in (4, 5):
        store.submit(started(number), note(told, number))
    await disk.troubles(3)

    assert told == []
    assert all(isinstance(error, sqlite3.OperationalError) for error in disk.told)
    with looking_into(tmp_path) as raw:
        assert column(raw, RUNS) == [1]

    disk.empty()
    await until(lambda: len(told) == 4, "all are told")

    assert told == [(2, None), (3, None), (4, None), (5, None)]
    assert disk.told[-1] is None
    assert disk.told.count(None) == 1
    with looking_into(tmp_path) as raw:
        assert column(raw, RUNS) == [1, 2, 3, 4, 5]


async def test_a_full_disk_is_nobody_s_fault_and_a_refusal_still_is(store: SQLiteStore, disk: Disk) -> None:
    disk.fill()
    submitted = asyncio.ensure_future(
        outcomes(
            store,
            started(2, input=b"1" * LOOP_BYTES),
            Changes(runs_ended=[run_ended(77)]),
            Changes(runs_ended=[run_ended(1, RunState.CANCELLED)]),
        )
    )
    await disk.troubles(2)
    disk.empty()

    assert [type(error) for error in await submitted] == [type(None), RowsMissingError, type(None)]


async def test_a_call_is_run_again_until_the_disk_takes_it(store: SQLiteStore, disk: Disk, tmp_path: Path) -> None:
    calls: list[int] = []

    def write(connection: Connection) -> str:
        calls.append(1)
        connection.execute(insert(meta).values(key="large", value="1" * LOOP_BYTES))
        return "written"

    disk.fill()
    called = asyncio.ensure_future(store.execute(write))
    await disk.troubles(2)
    disk.empty()

    assert await called == "written"
    assert len(calls) >= 3
    with looking_into(tmp_path) as raw:
        assert column(raw, "SELECT count(*) FROM meta WHERE key = 'large'") == [1]


async def test_reading_works_while_nothing_can_be_written(store: SQLiteStore, disk: Disk) -> None:
    disk.fill()
    submitted = asyncio.ensure_future(commit(store, started(2, input=b"1" * LOOP_BYTES)))
    await disk.troubles(1)

    assert await store.read(lambda connection: connection.exec_driver_sql(RUNS).scalars().all()) == [1]

    disk.empty()
    await submitted


async def test_another_process_that_holds_the_file_is_waited_for(
    store: SQLiteStore, disk: Disk, tmp_path: Path
) -> None:
    with looking_into(tmp_path) as raw:
        raw.execute("BEGIN IMMEDIATE")
        submitted = asyncio.ensure_future(commit(store, started(2)))
        await disk.troubles(2)
        assert not submitted.done()
        raw.execute("ROLLBACK")
        await submitted

        assert column(raw, RUNS) == [1, 2]


@SIZES
async def test_closing_on_a_full_disk_gives_up_and_says_so(
    store: SQLiteStore, disk: Disk, tmp_path: Path, size: int
) -> None:
    disk.fill()
    submitted = asyncio.ensure_future(outcomes(store, started(2, input=b"1" * size)))
    await disk.troubles(1)
    later = asyncio.ensure_future(outcomes(store, started(3, input=b"1" * size)))
    await asyncio.sleep(0)

    await store.close()

    assert [type(error) for error in (await submitted) + (await later)] == [StoreUnavailableError] * 2
    with looking_into(tmp_path) as raw:
        assert column(raw, RUNS) == [1]


async def test_closing_tries_once_more_before_it_gives_up(store: SQLiteStore, disk: Disk, tmp_path: Path) -> None:
    disk.fill()
    submitted = asyncio.ensure_future(commit(store, started(2, input=b"1" * LOOP_BYTES)))
    await disk.troubles(3)  # the next try is some tenths of a second away

    disk.empty()
    await store.close()

    await submitted
    with looking_into(tmp_path) as raw:
        assert column(raw, RUNS) == [1, 2]


async def test_after_a_decision_was_given_up_none_that_follows_it_is_written(
    store: SQLiteStore, disk: Disk, tmp_path: Path
) -> None:
    disk.fill()
    submitted = asyncio.ensure_future(outcomes(store, started(2, input=b"1" * LOOP_BYTES)))
    await disk.troubles(1)
    # Needs no room, so it would go through, and say that a run has ended whose last step is not there.
    later = asyncio.ensure_future(outcomes(store, Changes(runs_ended=[run_ended(1)])))
    await asyncio.sleep(0)

    await store.close()

    assert [type(error) for error in (await submitted) + (await later)] == [StoreUnavailableError] * 2
    with looking_into(tmp_path) as raw:
        assert column(raw, "SELECT state FROM run") == ["running"]
