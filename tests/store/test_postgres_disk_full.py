"""A disk below Postgres that is really full: a small file system that holds a database and a ballast."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from base64 import b85encode
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import TaskId, TaskRemoved
from hopline_engine.errors import StoreUnavailableError
from hopline_engine.store.postgres.store import open_store
from tests.store.opened import Told, note, with_definition
from tests.store.rows import attempt_ended, run_ended, started, step_ended
from tests.support.postgres import at_database, postgres, run_sql
from tests.support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

DISK: Final = "24m"
BALLAST_BYTES: Final = 8 * 2**20
RUN_BYTES: Final = 200_000
RUNS: Final = 80
"""More than fit on the disk with its ballast, and fewer than without."""


@pytest.fixture
def disk() -> Iterator[Path]:
    """Return a folder that is a small file system of its own, which Postgres may write to."""
    folder = Path(tempfile.mkdtemp(prefix="hopline-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=777", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip("this machine does not let us mount a file system, so no disk can be made full")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


async def test_full_disk_leaves_nothing_half_done_and_what_waits_is_written_when_there_is_room(disk: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(BALLAST_BYTES))
    (disk / "space").mkdir()
    if os.geteuid() == 0:
        shutil.chown(disk / "space", "nobody")
    with postgres() as server:
        await run_sql(
            server.url,
            f"CREATE TABLESPACE narrow LOCATION '{disk / 'space'}'",
            "CREATE DATABASE tight TABLESPACE narrow",
        )
        await _work_until_it_is_full_and_on(at_database(server.url, "tight"), ballast)


async def _work_until_it_is_full_and_on(url: str, ballast: Path) -> None:
    told: Told = []
    troubles: list[Exception | None] = []
    store = await open_store(url, node="n_test", random=lambda: 0.0, alone=True, on_trouble=troubles.append)
    try:
        await with_definition(store)
        working = asyncio.create_task(_one_after_the_other(store.submit, told))
        await until(
            lambda: len([trouble for trouble in troubles if trouble]) >= 3 or working.done(), "the disk is full"
        )
        assert not working.done(), "all of it fitted on the disk"
        acknowledged = len(told)
        assert await _stored(url) == acknowledged
        assert isinstance(troubles[-1], StoreUnavailableError)
        assert "No space left on device" in str(troubles[-1])

        ballast.unlink()  # noqa: ASYNC240 - in memory
        await working
    finally:
        await store.close()
    assert told == [(number, None) for number in range(2 * RUNS)]
    assert troubles.count(None) == 1
    assert await _stored(url) == 2 * RUNS


def _workload() -> Iterator[Changes]:
    for run in range(1, RUNS + 1):
        # Random, since what compresses would not fill a disk.
        large = b'"' + b85encode(os.urandom(RUN_BYTES * 4 // 5)) + b'"'
        yield started(run, input=large)
        yield Changes(
            steps_ended=[step_ended(run)],
            attempts_ended=[attempt_ended(run)],
            tasks_removed=[TaskRemoved(TaskId(run))],
            runs_ended=[run_ended(run)],
        )


async def _one_after_the_other(
    submit: Callable[[Changes, Callable[[BaseException | None], None]], None], told: Told
) -> None:
    for number, changes in enumerate(_workload()):
        submit(changes, note(told, number))
        await until(partial(_is_told, told, number), f"decision {number} is told of")


def _is_told(told: Told, number: int) -> bool:
    return len(told) > number


async def _stored(url: str) -> int:
    """Return how many decisions of the workload are stored; all of them are whole, and none is missing between."""
    connection = await asyncpg.connect(url)
    try:
        ids = partial(_column, connection)
        runs = await ids("SELECT id FROM run ORDER BY id")
        ended = await ids("SELECT id FROM run WHERE state = 'succeeded' ORDER BY id")
        assert runs == list(range(1, len(runs) + 1))
        assert ended == runs[: len(ended)]
        assert await ids("SELECT run_id FROM step_run ORDER BY run_id") == ended
        assert await ids("SELECT run_id FROM attempt ORDER BY run_id") == ended
        assert await ids("SELECT run_id FROM task ORDER BY run_id") == runs[len(ended) :]
    finally:
        await connection.close()
    return len(runs) + len(ended)


async def _column(connection: asyncpg.Connection, query: str) -> list[Any]:
    return [row[0] for row in await connection.fetch(query)]
