"""A store of before there were shards: numbers of a family may lie in several of them, and its runs go on."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, event

from hopline_engine.api.service import Service
from hopline_engine.bootstrap import open_engine
from hopline_engine.core.model import RunId, RunState
from hopline_engine.core.names import public_id
from hopline_engine.core.shards import shard_of
from hopline_engine.scheduler.definitions import canonical
from hopline_engine.settings import Settings
from tests.core.worlds import definition, http_step, ref, step
from tests.support.targets import json, target
from tests.support.waiting import until_seen

pytestmark = pytest.mark.anyio

ABOVE, BELOW, TASK = 1001, 1007, 1013
"""Three shards for one family."""


def make_old(path: Path) -> None:
    """Make a store with the first schema."""
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    config = Config()
    config.set_main_option("script_location", "hopline_engine.store:migrations")
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()


def fill(path: Path, url: str) -> None:
    """Add a run whose sub-run has a task that waits."""
    called = canonical(definition("w", [http_step("call", url)], ref("call")))
    calling = canonical(definition("above", [step("sub", workflow=("w", called.digest))], ref("sub")))
    now = time.time()
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        for each in (called, calling):
            raw.execute("INSERT INTO definition VALUES (?, ?, ?, ?)", (each.digest, each.name, now, each.body))
            raw.execute("INSERT INTO workflow VALUES (?, ?, ?)", (each.name, each.digest, now))
        insert = (
            "INSERT INTO run (id, public_id, workflow, digest, state, parent_id, parent_node, parent_item, created_at, "
            "input) VALUES (?, ?, ?, ?, 'running', ?, ?, ?, ?, ?)"
        )
        runs = [(ABOVE, calling, None, None, None), (BELOW, called, ABOVE, 0, -1)]
        for number, of, parent, node, item in runs:
            public = public_id(RunId(number))
            raw.execute(insert, (number, public, of.name, of.digest, parent, node, item, now, b"{}"))
        raw.execute(
            "INSERT INTO task (id, run_id, node, item, queue, state, attempt, lost, schedule_time, epoch) "
            "VALUES (?, ?, 0, -1, 'default', 0, 0, 0, ?, 1)",
            (TASK, BELOW, now),
        )


async def test_runs_of_an_old_store_go_on(tmp_path: Path) -> None:
    assert len({shard_of(number) for number in (ABOVE, BELOW, TASK)}) == 3
    make_old(tmp_path / "hopline.db")
    async with target(lambda _: json(1)) as called:
        fill(tmp_path / "hopline.db", called.url)
        async with open_engine(Settings(state_dir=tmp_path)) as installation:
            await installation.serve(0)
            service: Service = installation.app.state.engine

            async def succeeded() -> bool:
                detail = await service.run_detail(public_id(RunId(ABOVE)))
                return detail.state is RunState.SUCCEEDED and detail.result == 1

            await until_seen(succeeded, "the run ends")
            started = await service.start_run("w", {}, None)
            assert started.created
