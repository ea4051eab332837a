"""The write-ahead log is copied back in time, so that it does not grow without bound."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import TaskId
from hopline_engine.store import sqlite
from hopline_engine.store.interface import Store
from hopline_engine.store.sqlite import SQLiteStore
from hopline_engine.store.tables import run
from hopline_engine.store.wal import IDLE_BYTES, WriteAheadLog
from tests.store.opened import FILE, commit, count, looking_into, opened_sqlite, with_definition
from tests.store.rows import started, task_moved
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

MIB = 2**20


def log_bytes(folder: Path) -> int:
    """Return how long the log's file is."""
    return (folder / f"{FILE}-wal").stat().st_size


def file_bytes(folder: Path) -> int:
    """Return how long the database is without its log."""
    return (folder / FILE).stat().st_size


def reaches(folder: Path, size: int) -> bool:
    """Return whether the database without its log has so many bytes."""
    return file_bytes(folder) >= size


async def write(store: Store, run: int, size: int) -> None:
    """Commit a run with an input of so many bytes."""
    await commit(store, started(run, input=b"1" * size))


async def test_a_log_that_has_become_long_is_copied_when_nobody_writes(
    sqlite_store: SQLiteStore, tmp_path: Path
) -> None:
    for number in range(1, 5):
        await write(sqlite_store, number, IDLE_BYTES)
        await until(partial(reaches, tmp_path, number * IDLE_BYTES), f"copy {number} is made")

    assert log_bytes(tmp_path) < 2 * IDLE_BYTES
    assert await count(sqlite_store, run) == 4


async def test_a_short_log_is_left_alone(sqlite_store: SQLiteStore, tmp_path: Path) -> None:
    before = file_bytes(tmp_path)

    for number in range(1, 11):
        await write(sqlite_store, number, 1000)

    assert file_bytes(tmp_path) == before


async def test_a_log_is_copied_although_somebody_always_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = partial(WriteAheadLog, idle_bytes=MIB * 1000, forced_bytes=MIB)
    monkeypatch.setattr(sqlite, "WriteAheadLog", limited)
    size = MIB // 8
    longest = 0

    async with opened_sqlite(tmp_path) as store:
        await with_definition(store)
        done = asyncio.Event()

        def again(number: int, error: BaseException | None) -> None:
            nonlocal longest
            assert error is None
            longest = max(longest, log_bytes(tmp_path))
            if number > 100:
                done.set()
            else:
                store.submit(started(number + 2, input=b"1" * size), partial(again, number + 2))

        for first in (1, 2):  # one of them is always waiting
            store.submit(started(first, input=b"1" * size), partial(again, first))
        await done.wait()

        assert longest < 2 * MIB
        assert await count(store, run) >= 100


async def test_a_reader_that_holds_the_log_back_delays_its_copy_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WriteAheadLog", partial(WriteAheadLog, idle_bytes=MIB, forced_bytes=4 * MIB))
    async with opened_sqlite(tmp_path) as store:
        await with_definition(store)
        with looking_into(tmp_path) as raw:
            raw.execute("BEGIN")
            assert raw.execute("SELECT count(*) FROM run").fetchall() == [(0,)]
            for number in range(1, 11):
                await write(store, number, MIB)
            assert raw.execute("SELECT count(*) FROM run").fetchall() == [(0,)]
            raw.execute("COMMIT")
        held_back = log_bytes(tmp_path)
        assert held_back > 10 * MIB

        for number in range(11, 21):
            await write(store, number, MIB)

        await until(lambda: file_bytes(tmp_path) > 20 * MIB, "all is copied")
        assert log_bytes(tmp_path) <= held_back + 5 * MIB


async def test_a_log_of_rows_that_change_again_and_again_is_copied_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WriteAheadLog", partial(WriteAheadLog, idle_bytes=MIB * 1000, forced_bytes=MIB))
    async with opened_sqlite(tmp_path) as store:
        await with_definition(store)
        await commit(store, started(1))
        for number in range(600):  # at least a page each: over twice the limit
            await commit(store, Changes(tasks_moved=[task_moved(TaskId(1), attempt=number + 1)]))

        assert log_bytes(tmp_path) < 1.5 * MIB


def test_a_log_that_was_copied_is_long_again_only_after_as_much_was_written(tmp_path: Path) -> None:
    with looking_into(tmp_path) as raw:
        raw.execute("PRAGMA journal_mode = WAL").fetchall()
        raw.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        raw.execute("CREATE TABLE note (body)")
        log = WriteAheadLog(raw, tmp_path / FILE, idle_bytes=MIB // 2, forced_bytes=MIB)

        def seen() -> tuple[bool, bool]:
            return log.is_worth_copying(), log.must_be_copied()

        def add(size: int) -> None:
            raw.execute("INSERT INTO note VALUES (zeroblob(?))", [size])

        assert seen() == (False, False)
        for _ in range(3):  # the first time in a new file, then over what was there before
            add(MIB * 3 // 4)
            assert seen() == (True, False)
            add(MIB * 3 // 4)
            assert seen() == (True, True)
            log.copy()
            assert seen() == (False, False)
            add(1000)
            assert seen() == (False, False)
        log.close()
