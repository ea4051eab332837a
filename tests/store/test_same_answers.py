"""Both stores are given the same commands, and must answer alike and hold the same rows.

Rows are drawn from few numbers, so that they meet: doubles, strangers, steps of ended runs, moves of what is not there.
Values are what the engine lets through, up to the ends of what a column holds and beyond. Texts with NUL characters
are not among them: Postgres holds none, so the edges let none through (``records.storable``, ``strict_json``).
Nor are numbers of tasks that no column holds: the engine counts them itself, and where a later row of the same group
overrides one, Postgres is not even given it (``postgres.grouping``).
"""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, insert, select

from hopline.errors import HoplineError
from hopline_engine.core.changes import Changes, QueueMoved
from hopline_engine.core.model import WHOLE, Digest, RunId, RunState, StepState, TaskRemoved
from hopline_engine.errors import StoreUnavailableError
from hopline_engine.store import definitions, queues, recovery, runs, steps, tasks
from hopline_engine.store.definitions import StoredDefinition
from hopline_engine.store.errors import ChangesRefusedError, ReadTimeoutError
from hopline_engine.store.interface import Store
from hopline_engine.store.metadata import METADATA
from hopline_engine.store.tables import meta
from tests.store.opened import opened_postgres, opened_sqlite, outcomes, with_definition
from tests.store.rows import (
    DEFINITION,
    NOW,
    attempt_ended,
    definition_added,
    run_added,
    run_ended,
    step_ended,
    task_added,
    task_moved,
)
from tests.support.postgres import database

T = TypeVar("T")

TABLES = [METADATA.tables[name] for name in ("definition", "workflow", "run", "step_run", "attempt", "task", "queue")]
EVERYTHING = [select(table).order_by(*table.primary_key) for table in TABLES]
RUNS, NODES, ITEMS, TASKS = st.integers(1, 4), st.integers(0, 1), st.sampled_from([WHOLE, 0, 1]), st.integers(1, 6)
BIG = st.sampled_from([0, 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**70])
"""For columns of 64 bits."""
SMALL = st.sampled_from([0, 1, 2**31 - 1, -(2**31), 2**63, 2**70])
"""For columns of 32 bits; SQLite has none, so numbers between are left to the edges."""
EPOCHS = st.sampled_from([0, 1, 2**53 + 1, 2**63 - 1, -(2**63)])
ATTEMPTS = st.sampled_from([0, 1, 2**31 - 1, -(2**31)])
TIMES = st.sampled_from([0.0, NOW, NOW + 0.1, -1.5, 1e300, 5e-324, float("inf")])
TEXTS = st.one_of(
    st.sampled_from(
        ["", "plain", "caf\u00e9 \U0001f389", "'; --", "%_\\", "\ud800", "a\udfff", "\u2028\x1b[0m", "x" * 300]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
)
KEYS = st.one_of(st.none(), st.sampled_from(["k", "K", "\u00e9", "e\u0301", "\ud800", "x" * 100]))
BYTES = st.one_of(st.none(), st.sampled_from([b"", b"{}", b"\0", b"\xff\xfe", b'"\\u0000"', b"9" * 100]))
NAMES = st.sampled_from(["default", "erp", "none"])

RUN_ADDED = st.builds(
    run_added,
    RUNS,
    state=st.sampled_from([*["running"] * 6, "succeeded", "resting"]),
    idempotency_key=KEYS,
    parent_id=st.one_of(st.none(), BIG),
    parent_node=st.one_of(st.none(), SMALL),
    input=st.sampled_from([b"{}", b"\0", b"\xff"]),
    digest=st.sampled_from([*[DEFINITION.digest] * 8, "no"]),
    created_at=TIMES,
)
STEP_ENDED = st.builds(
    step_ended, RUNS, NODES, ITEMS, state=st.sampled_from(list(StepState)), result=BYTES, error=BYTES, attempts=SMALL
)
ATTEMPT_ENDED = st.builds(
    attempt_ended,
    RUNS,
    NODES,
    ITEMS,
    attempt=st.integers(0, 2),
    status=st.one_of(st.none(), SMALL),
    logs=st.one_of(st.none(), TEXTS),
    ended_at=TIMES,
)
TASK_ADDED = st.builds(
    task_added,
    RUNS,
    NODES,
    ITEMS,
    id=TASKS,
    queue=NAMES,
    state=st.sampled_from([0, 0, 1, 2, 3]),
    epoch=EPOCHS,
    schedule_time=TIMES,
    deadline_time=st.one_of(st.none(), TIMES),
)
TASK_MOVED = st.builds(
    task_moved, TASKS, state=st.sampled_from([0, 1, 1, 2, -1]), attempt=ATTEMPTS, epoch=EPOCHS, schedule_time=TIMES
)
QUEUE_MOVED = st.builds(QueueMoved, st.sampled_from(["running", "paused", "stuck"]), TIMES, TIMES, NAMES)
RUN_ENDED = st.builds(run_ended, RUNS, st.sampled_from(list(RunState)), result=BYTES, error=BYTES, ended_at=TIMES)


def few(rows: st.SearchStrategy[T]) -> st.SearchStrategy[list[T]]:
    """Return none or a few rows, mostly none."""
    return st.one_of(st.just([]), st.just([]), st.lists(rows, max_size=2))


CHANGES = st.builds(
    Changes,
    definitions_added=few(st.builds(definition_added, NAMES, NAMES)),
    runs_added=few(RUN_ADDED),
    steps_ended=few(STEP_ENDED),
    attempts_ended=few(ATTEMPT_ENDED),
    tasks_added=few(TASK_ADDED),
    tasks_moved=few(TASK_MOVED),
    tasks_removed=few(st.builds(TaskRemoved, TASKS)),
    queues_moved=few(QUEUE_MOVED),
    runs_ended=few(RUN_ENDED),
)


def told(error: BaseException | None) -> object:
    """Return what an outcome must be on both stores alike."""
    if isinstance(error, ChangesRefusedError):
        return ChangesRefusedError  # of several faults of one decision either may be found first
    return type(error) if error is None or isinstance(error, HoplineError) else "the database's error"


async def all_rows(store: Store) -> object:
    """Return all rows of all tables."""

    def look(connection: Connection) -> list[list[tuple[object, ...]]]:
        return [[tuple(row) for row in connection.execute(one)] for one in EVERYTHING]

    return await store.read(look)


class BothStores(RuleBasedStateMachine):
    """A SQLite store and a Postgres store."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory()
        self._made = AsyncExitStack()
        self._open = AsyncExitStack()
        self._url = self._run(self._made.enter_async_context(database()))
        self._stores: list[Store] = []

    def _run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(doing)

    async def _enter(self) -> None:
        sqlite = await self._open.enter_async_context(opened_sqlite(Path(self._folder.name)))
        self._stores = [sqlite, await self._open.enter_async_context(opened_postgres(self._url))]

    def _both(self, ask: Callable[[Store], Coroutine[Any, Any, object]]) -> None:
        """Ask both stores, which must answer alike."""
        first, second = [self._run(self._answer(ask, store)) for store in self._stores]
        assert first == second

    async def _answer(self, ask: Callable[[Store], Coroutine[Any, Any, object]], store: Store) -> object:
        try:
            return await ask(store)
        except (ReadTimeoutError, StoreUnavailableError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, both must answer it
            return told(error)

    @initialize()
    def open(self) -> None:
        self._run(self._enter())
        for store in self._stores:
            self._run(with_definition(store))

    @rule(group=st.lists(CHANGES, min_size=1, max_size=4))
    def submit(self, group: list[Changes]) -> None:
        async def ask(store: Store) -> list[object]:
            return [told(error) for error in await outcomes(store, *group)]

        self._both(ask)

    @rule(name=NAMES, burst=st.one_of(st.none(), st.sampled_from([1, 0, 10**9])), rate=st.one_of(st.none(), TIMES))
    def set_limits(self, name: str, burst: int | None, rate: float | None) -> None:
        limits = queues.QueueLimits(name=name, max_burst_size=burst, max_dispatches_per_second=rate)
        self._both(lambda store: store.execute(lambda connection: queues.set_limits(connection, [limits])))

    @rule(name=st.sampled_from(["report", "sales"]), digit=st.sampled_from("ab"), body=st.binary(max_size=5))
    def register(self, name: str, digit: str, body: bytes) -> None:
        version = StoredDefinition(digest=Digest(digit * 64), name=name, body=body)
        self._both(lambda store: store.execute(lambda one: definitions.register(one, [version], [name], NOW)))

    @rule(key=st.sampled_from(["a", "epoch"]), value=TEXTS)
    def write_beside(self, key: str, value: str) -> None:
        def write(connection: Connection) -> None:
            connection.execute(insert(meta).values(key=key, value=value))

        self._both(lambda store: store.execute(write))

    @rule(group=st.lists(CHANGES, min_size=1, max_size=3))
    def call_between_decisions(self, group: list[Changes]) -> None:
        async def ask(store: Store) -> object:
            deciding = asyncio.ensure_future(outcomes(store, *group))
            await asyncio.sleep(0)
            seen = await store.execute(lambda connection: recovery.last_ids(connection))
            return seen, [told(error) for error in await deciding]

        self._both(ask)

    @rule(ref=st.one_of(st.sampled_from(["@last", "@failed", "", "r_"]), TEXTS), run=RUNS)
    def look_for_runs(self, ref: str, run: int) -> None:
        self._both(lambda store: store.read(lambda connection: runs.resolve(connection, ref)))
        self._both(lambda store: store.read(lambda connection: runs.get(connection, RunId(run))))
        self._both(lambda store: store.read(lambda connection: runs.by_idempotency_key(connection, ref)))

    @rule(state=st.sampled_from([None, *RunState]), after=st.one_of(st.none(), RUNS), limit=st.integers(1, 3))
    def list_runs(self, state: RunState | None, after: int | None, limit: int) -> None:
        wanted = runs.RunFilter(state=state)
        start = None if after is None else RunId(after)
        self._both(lambda store: store.read(lambda one: runs.page(one, wanted, limit=limit, after=start)))
        self._both(lambda store: store.read(lambda one: recovery.live_runs(one, after=start, limit=limit)))

    @rule(run=RUNS)
    def look_at_steps(self, run: int) -> None:
        self._both(lambda store: store.read(lambda one: steps.of_run(one, RunId(run))))
        self._both(lambda store: store.read(lambda one: steps.overview(one, RunId(run), single=[0], mapped=[1])))
        self._both(lambda store: store.read(lambda one: steps.attempts(one, RunId(run), limit=9)))
        self._both(lambda store: store.read(lambda one: tasks.of_run(one, RunId(run))))

    @rule()
    def reopen(self) -> None:
        self._run(self._open.aclose())
        self._run(self._enter())
        self._both(lambda store: store.read(recovery.last_ids))

    @invariant()
    def hold_the_same(self) -> None:
        if self._stores:
            self._both(all_rows)

    def teardown(self) -> None:
        self._run(self._open.aclose())
        self._run(self._made.aclose())
        self._loop.close()
        self._folder.cleanup()


BothStores.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestBothStores = pytest.mark.slow(BothStores.TestCase)
