"""A disk that is full at each page in turn: nothing is half there, nothing acknowledged is missing, and it goes on."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import TaskId, TaskRemoved
from hopline_engine.store import commit as committing
from hopline_engine.store import sqlite
from hopline_engine.store.errors import CannotOpenError
from hopline_engine.store.metadata import METADATA
from hopline_engine.store.schema import HEAD
from tests.store.opened import Told, column, looking_into, note, opened_sqlite, with_definition
from tests.store.rows import attempt_ended, run_ended, started, step_ended
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

RUNS = 30
UNLIMITED = 2**30
LARGE = b'"' + b"x" * 3_000 + b'"'


def _workload() -> Iterator[Changes]:
    """Yield the decisions of some runs: each starts and each ends, and what they hold takes about a page."""
    for run in range(1, RUNS + 1):
        yield started(run, input=LARGE)
        yield Changes(
            steps_ended=[step_ended(run, result=LARGE)],
            attempts_ended=[attempt_ended(run)],
            tasks_removed=[TaskRemoved(TaskId(run))],
            runs_ended=[run_ended(run)],
        )


def _stored(folder: Path) -> int:
    """Return how many decisions of the workload are stored; all of them are whole, and none is missing between."""
    with looking_into(folder) as raw:
        runs = column(raw, "SELECT id FROM run ORDER BY id")
        ended = column(raw, "SELECT id FROM run WHERE state = 'succeeded' ORDER BY id")
        assert runs == list(range(1, len(runs) + 1))
        assert ended == runs[: len(ended)]
        assert len(runs) - len(ended) in {0, 1}, "a run was started before the one before had ended"
        assert column(raw, "SELECT run_id FROM step_run ORDER BY run_id") == ended
        assert column(raw, "SELECT run_id FROM attempt ORDER BY run_id") == ended
        assert column(raw, "SELECT run_id FROM task") == runs[len(ended) :]
        assert column(raw, "PRAGMA integrity_check") == ["ok"]
    return len(runs) + len(ended)


async def test_disk_that_is_full_at_each_page_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committing, "FIRST_RETRY_SECONDS", 0.005)
    monkeypatch.setattr(committing, "LAST_RETRY_SECONDS", 0.005)
    told: Told = []
    troubles: list[Exception | None] = []
    async with opened_sqlite(tmp_path, on_trouble=troubles.append) as store:
        await with_definition(store)
        raw: Any = await store.execute(_driver_connection)
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        working = asyncio.create_task(_one_after_the_other(store.submit, told))
        full = 0
        while not working.done():
            raw.execute(f"PRAGMA max_page_count = {pages}").fetchall()
            seen, settled = len(troubles), len(told)
            await until(partial(_goes_on, working, troubles, seen + 2), f"it is full at {pages} pages, or done")
            full += len(troubles) > seen
            assert settled <= _stored(tmp_path) <= len(told) + 1
            pages += 1
        raw.execute(f"PRAGMA max_page_count = {UNLIMITED}").fetchall()
        await working

    assert told == [(number, None) for number in range(2 * RUNS)]
    assert _stored(tmp_path) == 2 * RUNS
    assert full >= RUNS, "the disk was hardly ever full"
    assert all(isinstance(error, sqlite3.OperationalError) for error in troubles if error)


async def _one_after_the_other(
    submit: Callable[[Changes, Callable[[BaseException | None], None]], None], told: Told
) -> None:
    for number, changes in enumerate(_workload()):
        submit(changes, note(told, number))
        await until(partial(_is_told, told, number), f"decision {number} is told of")


def _is_told(told: Told, number: int) -> bool:
    return len(told) > number


def _goes_on(working: "asyncio.Task[None]", troubles: list[Exception | None], seen: int) -> bool:
    return working.done() or len(troubles) >= seen


def _driver_connection(connection: Connection) -> object:
    return connection.connection.driver_connection


async def test_store_that_does_not_fit_on_the_disk_is_not_there_and_is_made_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite._connect
    pages = 1
    whole: dict[object, set[object]] = {None: set()}

    def connect_to_full_disk(*given: Any) -> sqlite3.Connection:
        raw = connect(*given)
        raw.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        return raw

    with monkeypatch.context() as filling:
        filling.setattr(sqlite, "_connect", connect_to_full_disk)
        while not (tmp_path / "made").exists():
            revision, tables = _schema(tmp_path)
            assert whole.setdefault(revision, tables) == tables, f"half of a revision after {revision} at {pages} pages"
            try:
                async with opened_sqlite(tmp_path):
                    (tmp_path / "made").touch()
            except CannotOpenError as error:
                assert "full" in error.reason
            pages += 1
    assert pages > 10
    async with opened_sqlite(tmp_path) as store:
        await with_definition(store)
    assert _schema(tmp_path) == (HEAD, {*METADATA.tables})


def _schema(folder: Path) -> tuple[object, set[object]]:
    """Return the revision that a file has, if any, and its tables."""
    with looking_into(folder) as raw:
        tables = set(column(raw, "SELECT name FROM sqlite_master WHERE type = 'table'"))
        is_stamped = "alembic_version" in tables
        (revision,) = column(raw, "SELECT version_num FROM alembic_version") or [None] if is_stamped else [None]
    return revision, tables - {"alembic_version"}
