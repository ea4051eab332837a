"""Each invariant that a database can keep by itself is kept by it, whatever statement tries to break it."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import insert, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import UpdateBase

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import TaskId
from hopline_engine.store.interface import Store
from hopline_engine.store.tables import attempt, queue, queue_share, run, shard, step_run, task
from tests.store.opened import commit
from tests.store.rows import (
    attempt_ended,
    run_added,
    run_ended,
    started,
    step_ended,
    task_added,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def history(store: Store) -> Store:
    """Return a store with run 1, which runs and has a task, and run 2, which has ended."""
    await commit(store, started(1, idempotency_key="k"), Changes(runs_added=[run_added(2)]))
    await commit(store, Changes(steps_ended=[step_ended(2)], attempts_ended=[attempt_ended(2)]))
    await commit(store, Changes(runs_ended=[run_ended(2)]))
    return store


def row(of: Any, **others: Any) -> Mapping[str, Any]:
    return {**of._asdict(), **others}


QUEUE = {"name": "q", "state": "running", "tokens": 0.0, "tokens_at": 0.0}

SHARE = {"queue": "q", "node": "n_test", "slots": 1, "wanted": 1}

BROKEN: dict[str, UpdateBase] = {
    "a run that has ended runs again": update(run).where(run.c.id == 2).values(state="running", ended_at=None),
    "a run ends in another way": update(run).where(run.c.id == 2).values(state="failed"),
    "the result of a run changes": update(run).where(run.c.id == 2).values(result=b"2"),
    "a run ends without a time": update(run).where(run.c.id == 1).values(state="failed"),
    "a run that runs has an end": update(run).where(run.c.id == 1).values(ended_at=1.0),
    "a run is in a state that there is not": update(run).where(run.c.id == 1).values(state="paused", ended_at=1.0),
    "two runs have one key": insert(run).values(row(run_added(3), idempotency_key="k")),
    "two runs have one name": insert(run).values(row(run_added(3), public_id=run_added(1).public_id)),
    "the end of a step changes": update(step_run).where(step_run.c.run_id == 2).values(state="failed"),
    "a step ends twice": insert(step_run).values(row(step_ended(2))),
    "a step ends in a state that is not final": insert(step_run).values(row(step_ended(1), state="running")),
    "an attempt that is over changes": update(attempt).where(attempt.c.run_id == 2).values(state="lost"),
    "two attempts have one number": insert(attempt).values(row(attempt_ended(2))),
    "an attempt comes before the first": insert(attempt).values(row(attempt_ended(1, attempt=0))),
    "an open step has two tasks": insert(task).values(row(task_added(1, id=TaskId(9)))),
    "a task is in a state that there is not": update(task).where(task.c.run_id == 1).values(state=4),
    "a shard is held by a node that there is not": update(shard).where(shard.c.id == 0).values(node="n_none"),
    "a node that there is not has a share": insert(queue_share).values(
        queue="default", node="n_none", slots=1, wanted=1
    ),
    "a queue lets through nothing for ever": insert(queue).values(**QUEUE, max_concurrent_dispatches=0),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_database_itself_refuses_that(history: Store, name: str) -> None:
    with pytest.raises(DBAPIError):
        await history.execute(lambda connection: connection.execute(BROKEN[name]))


async def test_what_is_refused_would_pass_if_it_were_right(history: Store) -> None:
    right = [
        insert(run).values(row(run_added(3), idempotency_key="other")),
        insert(step_run).values(row(step_ended(1))),
        insert(attempt).values(row(attempt_ended(1))),
        insert(task).values(row(task_added(1, 1, id=TaskId(9)))),
        update(task).where(task.c.run_id == 1).values(state=2),
        update(run).where(run.c.id == 1).values(state="failed", ended_at=1.0),
        update(shard).where(shard.c.id == 0).values(node="n_test"),
        insert(queue).values(**QUEUE, max_concurrent_dispatches=1),
        insert(queue_share).values(SHARE),
    ]

    def write(connection: Any) -> None:
        for statement in right:
            connection.execute(statement)

    await history.execute(write)
