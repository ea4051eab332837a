"""Audits find what is wrong in rows, with the evidence, and nothing where nothing is."""

from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy.sql.dml import UpdateBase

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import RunId, RunState, StepState, TaskId, TaskState
from hopline_engine.core.order import RUNS, turn_of
from hopline_engine.store import audit, key_audits, queues, recovery, tasks
from hopline_engine.store.audit import Finding
from hopline_engine.store.interface import Store
from hopline_engine.store.queues import QueueLimits
from hopline_engine.store.tables import attempt, key_claim, node, queue_share, run, shard, task
from tests.store.opened import commit
from tests.store.rows import (
    NOW,
    attempt_ended,
    child_of,
    run_added,
    run_ended,
    started,
    step_ended,
    task_added,
    task_moved,
)

pytestmark = pytest.mark.anyio

Found = set[tuple[str, int | str]]


@pytest.fixture
async def busy(store: Store) -> Store:
    """Return a store in which everything is as it must be.

    Run 1 has a task that is leased for its second attempt, and 2 one that was never sent; 3 executes a step of 4 and
    has a task; 5 has ended.
    """
    epoch = store.owner.epoch
    await commit(
        store,
        started(1),
        started(2),
        Changes(runs_added=[run_added(4), run_added(6, **child_of(4))], tasks_added=[task_added(6)]),
        Changes(runs_added=[run_added(5)]),
    )
    await commit(
        store,
        Changes(attempts_ended=[attempt_ended(1, state="failed")], tasks_moved=[task_moved(1, attempt=2, epoch=epoch)]),
        Changes(steps_ended=[step_ended(5)], attempts_ended=[attempt_ended(5), attempt_ended(5, attempt=2)]),
        Changes(runs_ended=[run_ended(5)]),
    )
    return store


async def looked(store: Store, size: int = 1) -> list[Finding]:
    """Return what a small definition of *size* steps and all audits of rows find, in slices of two."""
    found: list[Finding] = []
    after = 0
    while (part := await store.read(partial(audit.tasks, after=after, limit=2))).rows:
        found += part.findings
        after = part.rows[-1].id
    after = 0
    while (runs := await store.read(partial(audit.live_runs, after=after, limit=2))).keys:
        found += runs.findings
        after = runs.keys[-1]
    after = 0
    while (claims := await store.read(partial(key_audits.claims, after=after, limit=2))).keys:
        found += claims.findings
        after = claims.keys[-1]
    before: int | None = None
    while (part_ := await store.read(partial(audit.history, before=before, limit=2))).keys:
        found += part_.findings
        found += filter(None, (audit.against_steps(end, size) for end in part_.ends))
        before = part_.keys[-1]
    return found


async def names(store: Store) -> Found:
    return {(finding.audit.name, finding.key) for finding in await looked(store)}


async def damage(store: Store, *statements: UpdateBase) -> None:
    def write(connection: Any) -> None:
        for statement in statements:
            connection.execute(statement)

    await store.execute(write)


async def test_nothing_is_found_where_everything_is_right(busy: Store) -> None:
    assert await looked(busy) == []


def claim(task_id: int, since: float, *, is_held: bool, queue: str = "q", limit: int = 1) -> UpdateBase:
    """Let a task have, or wait for, the key ``k`` of a queue."""
    words = f"task {task_id}"
    row = {"task_id": task_id, "queue": queue, "key": "k", "key_limit": limit, "since": since, "is_held": is_held}
    return insert(key_claim).values(**row, words=words)


DAMAGE: dict[str, tuple[list[UpdateBase], Found]] = {
    "the only task of a run is gone": ([delete(task).where(task.c.id == 2)], {("stuck-run", 2)}),
    "a task has no run": (
        [insert(task).values(task_added(77)._asdict())],
        {("orphan-task", 77)},
    ),
    "a task belongs to a run that has ended": (
        [insert(task).values(task_added(5, 3)._asdict())],
        {("orphan-task", 5)},
    ),
    "the run above a sub-run has ended": (
        [update(run).where(run.c.id == 4).values(state="cancelled", ended_at=NOW)],
        {("orphan-sub-run", 6), ("run-against-steps", 4)},
    ),
    "a lease is of an epoch that no node has": (
        [update(task).where(task.c.id == 1).values(epoch=99)],
        {("lease-of-nobody", 1)},
    ),
    "a wait for a callback has no end": (
        [update(task).where(task.c.id == 1).values(state=TaskState.ACCEPTED.value, deadline_time=None)],
        {("endless-wait", 1)},
    ),
    "an attempt of an open step is missing": (
        [delete(attempt).where(attempt.c.run_id == 1)],
        {("attempt-numbers", 1)},
    ),
    "an attempt of an ended step is missing": (
        [delete(attempt).where(attempt.c.run_id == 5, attempt.c.attempt == 1)],
        {("attempt-numbers", 5)},
    ),
    "a key is held by a task that is not there": (
        [claim(77, 1.0, is_held=True), claim(1, 2.0, is_held=False)],
        {("key-of-nobody", 77)},
    ),
    "a turn is held by a run that has ended": (
        [
            claim(turn_of(RunId(5)), 1.0, is_held=True, queue=RUNS),
            claim(turn_of(RunId(6)), 2.0, is_held=True, queue=RUNS),
        ],
        {("key-of-nobody", turn_of(RunId(5)))},
    ),
    "a key is free and nobody has it": (
        [
            claim(1, 1.0, is_held=True, limit=2),
            claim(6, 2.0, is_held=False, limit=2),
            claim(2, 3.0, is_held=False, limit=2),
        ],
        {("free-key", 6)},
    ),
}


async def test_keys_and_turns_that_are_held_and_waited_for_are_as_they_must_be(busy: Store) -> None:
    turns = [turn_of(RunId(run)) for run in (1, 2)]
    await damage(
        busy,
        claim(1, 1.0, is_held=True),
        claim(2, 2.0, is_held=False),
        claim(turns[0], 1.0, is_held=True, queue=RUNS),
        claim(turns[1], 2.0, is_held=False, queue=RUNS),
    )
    assert await looked(busy) == []
    of_others = await busy.read(partial(key_audits.claims, after=0, limit=9, shards=[2]))
    assert of_others.keys == [2, turns[1]]


@pytest.mark.parametrize("name", DAMAGE)
async def test_damage_is_found_with_its_place(busy: Store, name: str) -> None:
    statements, expected = DAMAGE[name]
    await damage(busy, *statements)
    assert await names(busy) == expected


async def test_task_of_a_step_that_has_ended_is_found(busy: Store) -> None:
    await commit(busy, Changes(steps_ended=[step_ended(2)]))
    (found,) = await looked(busy)
    assert (found.audit.name, found.key) == ("task-of-ended-step", 2)
    assert found.evidence["step_state"] == "succeeded"


async def test_run_that_succeeded_with_a_failed_step_is_found(store: Store) -> None:
    bad = step_ended(1, state=StepState.FAILED.value, result=None)
    await commit(store, Changes(runs_added=[run_added(1)]), Changes(steps_ended=[bad]))
    await commit(store, Changes(runs_ended=[run_ended(1, RunState.SUCCEEDED)]))
    (found,) = await looked(store)
    assert found.audit is audit.RUN_AGAINST_STEPS
    assert found.evidence["not_succeeded"] == 1


async def test_run_that_ended_before_all_its_steps_is_found(busy: Store) -> None:
    (found,) = await looked(busy, size=2)
    assert (found.audit, found.key, found.evidence["steps_ended"]) == (audit.RUN_AGAINST_STEPS, 5, 1)


async def test_audit_looks_only_at_the_shards_it_is_asked_for(busy: Store) -> None:
    await damage(busy, update(task).where(task.c.id == 1).values(epoch=99))
    of_one = await busy.read(partial(audit.tasks, after=0, limit=9, shards=[1]))
    of_others = await busy.read(partial(audit.tasks, after=0, limit=9, shards=[2, 6]))
    assert ([row.id for row in of_one.rows], len(of_one.findings)) == ([1], 1)
    assert ([row.id for row in of_others.rows], of_others.findings) == ([2, 6], [])
    runs = await busy.read(partial(audit.live_runs, after=0, limit=9, shards=[4, 6]))
    assert runs.keys == [4, 6]


async def test_rows_that_are_right_hold_up_no_slice_behind_them(store: Store) -> None:
    """As a rescue that looks at the first rows only, and finds none that it may rescue, for ever."""
    await commit(store, *[started(number) for number in range(1, 200)])
    await damage(store, update(task).where(task.c.id == 199).values(state=1, attempt=1, epoch=99))
    assert await names(store) == {("lease-of-nobody", 199)}


async def test_only_a_task_that_nothing_needs_is_removed(busy: Store) -> None:
    async def removed(number: int) -> bool:
        return await busy.execute(partial(tasks.remove_closed, task_id=TaskId(number)))

    assert not await removed(2)
    await damage(busy, insert(task).values(task_added(5, 3)._asdict()))
    assert await removed(5)
    await commit(busy, Changes(steps_ended=[step_ended(2)]))
    assert await removed(2)
    assert not await removed(99)


async def test_family_of_a_run_is_found_from_any_of_its_members(busy: Store) -> None:
    for member in (4, 6):
        assert await busy.read(partial(recovery.family, run_id=RunId(member))) == [4, 6]
    assert await busy.read(partial(recovery.family, run_id=RunId(99))) == [99]


async def test_live_runs_come_with_the_sub_runs_that_are_live(busy: Store) -> None:
    found = await busy.read(partial(recovery.live_families, after=RunId(0), limit=9))
    below = {stored.run.id: [child.id for child in children] for stored, children in found}
    assert below == {1: [], 2: [], 4: [6], 6: []}


async def test_silent_nodes_free_shards_and_overdrawn_queues_are_found(store: Store) -> None:
    silence = partial(audit.node_rows, silence=10.0)
    assert await store.read(silence) == []
    await store.execute(
        partial(
            queues.set_limits,
            limits=[
                QueueLimits(name="q", max_dispatches_per_second=None, max_burst_size=None, max_concurrent_dispatches=2)
            ],
        )
    )
    me = store.owner.node
    await damage(
        store,
        insert(node).values(id="n_old", epoch=99, started_at=1.0, heartbeat_at=1.0),
        update(shard).where(shard.c.id == 3).values(node=None),
        insert(queue_share).values(queue="q", node=me, slots=2, wanted=2),
        insert(queue_share).values(queue="q", node="n_old", slots=1, wanted=1),
    )
    found = {(each.audit.name, each.key) for each in await store.read(silence)}
    assert found == {("silent-node", "n_old"), ("shard-of-nobody", 3), ("queue-over-limit", "q")}
