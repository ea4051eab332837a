"""What one event costs in rows and in statements: the same, however much else there is."""

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from hopline_engine.clock import SystemClock
from hopline_engine.core.changes import Changes
from hopline_engine.core.decision import Limits
from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import RunState
from hopline_engine.core.plan import Plan
from hopline_engine.queue.admission import Admission, Queue
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.outcomes import Accepted, Outcome, Succeeded
from hopline_engine.queue.workers import Worker, Workers
from hopline_engine.scheduler.committing import Commits
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.ids import TimeOrderedIds
from hopline_engine.settings import Settings
from hopline_engine.store.sqlite import SQLiteStore, open_store
from tests.benchmarks.history import fill
from tests.core.worlds import plan, ref, step
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

SLOTS = 64
STEP_OF_A_CHAIN = {"steps_ended": 1, "attempts_ended": 1, "tasks_added": 1, "tasks_removed": 1}
"""The next task comes with the end of the one before, leased already: nothing is moved afterwards."""


class Counting:
    """Commits at once, or in a store if there is one, and keeps what each decision changed."""

    def __init__(self, store: Commits | None = None) -> None:
        self.changes: list[Changes] = []
        self._store = store

    def submit(self, changes: Changes, done: Callable[[BaseException | None], None]) -> None:
        self.changes.append(changes)
        if self._store is not None:
            self._store.submit(changes, done)
        else:
            asyncio.get_running_loop().call_soon(done, None)


class Answering:
    """A dispatcher whose targets answer at once; those of ``park`` with 202."""

    async def execute(self, task: LiveTask, worker: Worker | None) -> Outcome:
        return Accepted() if task.node.id == "park" else Succeeded(b"1", 200)


def chain(length: int) -> Plan:
    names = [f"s{number}" for number in range(length)]
    before = [ref("$input"), *map(ref, names)]
    return plan([step(name, {"x": value}) for name, value in zip(names, before, strict=False)])


def wide(items: int) -> Plan:
    return plan([step("each", {"x": list(range(items))}, over="x")])


def opened(plans: list[Plan], commits: Commits, epoch: int = 1) -> Coordinator:
    """Return a coordinator of an engine with one worker that serves every step."""
    clock, workers = SystemClock(), Workers()
    routes = frozenset[Any]().union(*[one.routes for one in plans])
    workers.add(
        Worker(
            id="w",
            url="http://w",
            token="t",
            concurrency=SLOTS,
            routes=routes,
            pid=None,
            host=None,
            seen_at=0.0,
        )
    )
    coordinator = Coordinator(
        commits=commits,
        admission=Admission(workers, Queue("default")),
        dispatcher=cast("Dispatcher", Answering()),
        clock=clock,
        ids=TimeOrderedIds(clock, last_run=0, last_task=0),
        limits=Limits(),
        epoch=epoch,
        on_change=lambda _run, _nodes: None,
    )
    coordinator.sending.is_on = True
    return coordinator


async def run_to_end(coordinator: Coordinator, of: Plan) -> None:
    run = LiveRun.fresh(coordinator.ids.next_run(), of, b"1", time.time(), None)
    await coordinator.start(run)
    await until(lambda: run.state is not RunState.RUNNING and run.id not in coordinator.runs, "the run has ended")
    assert run.state is RunState.SUCCEEDED


def rows(changes: Changes) -> dict[str, int]:
    """Return how many rows of each kind a decision writes."""
    counted = {kind: len(getattr(changes, kind)) for kind in Changes.__dataclass_fields__}
    return {kind: count for kind, count in counted.items() if count}


@pytest.mark.parametrize("length", [10, 200, 2000])
async def test_step_of_a_chain_is_four_rows_in_one_commit_however_long_the_run(length: int) -> None:
    commits, of = Counting(), chain(length)
    await run_to_end(opened([of], commits), of)
    first, *middle, last = map(rows, commits.changes)
    assert first == {"runs_added": 1, "tasks_added": 1}
    assert middle == [STEP_OF_A_CHAIN] * (length - 1)
    assert last == {"steps_ended": 1, "attempts_ended": 1, "tasks_removed": 1, "runs_ended": 1}


@pytest.mark.parametrize("alive", [1, 50, 500])
async def test_step_costs_the_same_however_many_runs_are_alive(alive: int) -> None:
    commits, parked, of = Counting(), plan([step("park")]), chain(10)
    coordinator = opened([parked, of], commits)
    for _ in range(alive):
        await coordinator.start(LiveRun.fresh(coordinator.ids.next_run(), parked, b"{}", time.time(), None))
    await until(lambda: not coordinator.admission.queues["default"].in_flight, "all of them wait for a callback")
    commits.changes.clear()
    await run_to_end(coordinator, of)
    assert len(coordinator.runs) == alive
    assert [rows(changes) for changes in commits.changes[1:-1]] == [STEP_OF_A_CHAIN] * 9


@pytest.mark.parametrize("items", [10, 1000, 5000])
async def test_element_of_a_map_costs_the_same_however_many_there_are(items: int) -> None:
    commits, of = Counting(), wide(items)
    await run_to_end(opened([of], commits), of)
    started, *ends = map(rows, commits.changes)
    assert started["tasks_added"] == min(items, Limits().map_window)
    assert len(ends) == items
    for end in ends[:-1]:
        assert end.pop("tasks_added", 1) == end.pop("tasks_moved", 1) == 1, "at most one is opened, and one leased"
        assert end == {"steps_ended": 1, "attempts_ended": 1, "tasks_removed": 1}
    assert ends[-1]["steps_ended"] == 2, "the last element, and the map"


async def test_element_of_a_map_is_written_no_more_than_five_times() -> None:
    commits, of = Counting(), wide(5000)
    await run_to_end(opened([of], commits), of)
    total = sum(map(Counter, map(rows, commits.changes)), Counter[str]())
    assert total["tasks_moved"] == 5000 - SLOTS, "those that found a slot were added leased"
    assert sum(total.values()) == 4 * 5000 + (5000 - SLOTS) + 3, "and the map's end, and the run's begin and end"


@pytest.mark.parametrize("finished", [0, 5000])
async def test_step_is_as_many_statements_however_many_steps_have_finished(tmp_path: Path, finished: int) -> None:
    of = chain(20)
    store = await open_store(tmp_path / "hopline.db", node="n", clock=time.time)
    await define(store, of)
    await store.close()
    await fill(Settings(state_dir=tmp_path), of.digest, present=0, wanted=finished)
    store = await open_store(tmp_path / "hopline.db", node="n", clock=time.time)
    try:
        with counted_statements(store) as statements:
            await run_to_end(opened([of], Counting(store), store.owner.epoch), of)
    finally:
        await store.close()
    steps, commits = 20, 20 + 1
    assert statements == {
        "BEGIN IMMEDIATE": commits,
        "SELECT 1": commits,  # whether the store is still ours
        "COMMIT": commits,
        "INSERT INTO step_run": steps,
        "INSERT INTO attempt": steps,
        "INSERT INTO task": steps,
        "DELETE FROM task": steps,
        "INSERT INTO run": 1,
        "UPDATE run": 2,  # SQLite tells of a statement with a trigger twice
    }


async def define(store: SQLiteStore, of: Plan) -> None:
    """Store the definition that rows of runs refer to."""
    row = (of.digest, of.name, time.time(), msgspec.json.encode({}))
    insert = "INSERT INTO definition (digest, name, created_at, body) VALUES (?, ?, ?, ?)"
    await store.execute(lambda connection: connection.exec_driver_sql(insert, row))


@contextmanager
def counted_statements(store: SQLiteStore) -> Iterator[Counter[str]]:
    """Count what SQLite executes on the writing connection, by its first words."""
    counted: Counter[str] = Counter()
    raw: sqlite3.Connection = store._files.writer.raw
    raw.set_trace_callback(lambda statement: counted.update([" ".join(statement.split()[: _words(statement)])]))
    yield counted
    raw.set_trace_callback(None)


def _words(statement: str) -> int:
    return 3 if statement.startswith(("INSERT", "DELETE")) else 2
