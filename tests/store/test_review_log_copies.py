"""A log that cannot be copied into the database keeps nobody from committing."""

import asyncio
from pathlib import Path

import pytest

from hopline_engine.core.changes import Changes
from hopline_engine.store.tables import run
from hopline_engine.store.wal import WriteAheadLog
from tests.store import rows
from tests.store.opened import commit, count, opened_sqlite, with_definition
from tests.support.waiting import WITHIN

pytestmark = pytest.mark.anyio


async def test_commits_go_on_while_the_log_cannot_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: WriteAheadLog) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(WriteAheadLog, "must_be_copied", lambda _: True)
    monkeypatch.setattr(WriteAheadLog, "copy", fail)
    async with opened_sqlite(tmp_path) as store:
        async with asyncio.timeout(WITHIN):
            await with_definition(store)
            await commit(store, Changes(runs_added=[rows.run_added(1)]))
        assert await count(store, run) == 1
