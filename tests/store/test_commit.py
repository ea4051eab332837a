"""Committing: what was acknowledged is there, whole and in order, and nothing else is."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, func, insert, select
from sqlalchemy.exc import IntegrityError

from hopline_engine.core.changes import Changes, QueueMoved
from hopline_engine.core.live import StoredTask
from hopline_engine.core.model import RunId, RunState, StepState, TaskId, TaskRemoved
from hopline_engine.store import definitions, nodes, queues, runs, steps, tasks
from hopline_engine.store.commit import LOOP_BYTES
from hopline_engine.store.dialect import SQLITE_NOW
from hopline_engine.store.entries import GROUP_ENTRIES
from hopline_engine.store.errors import ChangesRefusedError, OwnershipLostError, RowsMissingError, StoreClosedError
from hopline_engine.store.interface import Store
from hopline_engine.store.sqlite import SQLiteStore
from hopline_engine.store.tables import attempt, meta, run, step_run, task
from tests.store.opened import (
    FILE,
    Told,
    column,
    commit,
    count,
    looking_into,
    note,
    opened_sqlite,
    outcomes,
    with_definition,
)
from tests.store.rows import (
    NOW,
    attempt_ended,
    definition_added,
    run_added,
    run_ended,
    started,
    step_ended,
    task_added,
    task_moved,
)

pytestmark = pytest.mark.anyio

RUNS = "SELECT id FROM run ORDER BY id"


async def stored_runs(store: Store) -> list[int]:
    """Return the numbers of all runs, in order."""
    return await store.read(lambda connection: list(connection.execute(select(run.c.id).order_by(run.c.id)).scalars()))


def add_meta(key: str) -> Any:
    """Return a function for ``execute`` that writes a row."""

    def write(connection: Connection) -> None:
        connection.execute(insert(meta).values(key=key, value="x"))

    return write


# --- what is acknowledged is there ------------------------------------------------------------------------------------


async def test_definition_is_there_with_the_run_that_brings_it_and_is_kept_by_those_that_bring_it_again(
    store: Store,
) -> None:
    first = definition_added("new", "first")
    again = first._replace(name="again", created_at=NOW + 1)
    await commit(
        store,
        Changes(definitions_added=[first, again], runs_added=[run_added(1, digest="new")]),
        Changes(definitions_added=[again], runs_added=[run_added(2, digest="new")]),
    )
    await commit(store, Changes(definitions_added=[again], runs_added=[run_added(3, digest="new")]))
    assert await stored_runs(store) == [1, 2, 3]
    by_digest = await store.read(lambda connection: definitions.by_digests(connection, [first.digest]))
    assert [(one.name, one.body) for one in by_digest] == [("first", first.body)]


async def test_every_kind_of_row_is_read_back_as_it_was_written(store: Store) -> None:
    await store.execute(lambda connection: queues.set_limits(connection, [queues.QueueLimits(name="erp")]))
    added = run_added(1, input=b'{"folder":"\xc3\xa9"}', idempotency_key="k", retry_of=RunId(7))
    moved = task_moved(2, schedule_time=NOW + 0.125)
    ended = step_ended(1, 0, error=b'{"type":"E"}', state=StepState.FAILED.value, result=None)
    tried = attempt_ended(1, 0, state="failed", status=503, error=b"{}", logs="caf\u00e9 \U0001f389")
    await commit(
        store,
        Changes(runs_added=[added], tasks_added=[task_added(1, 0), task_added(1, 1, 3, id=TaskId(2))]),
        Changes(
            steps_ended=[ended],
            attempts_ended=[tried],
            tasks_moved=[moved],
            tasks_removed=[TaskRemoved(TaskId(1))],
            queues_moved=[QueueMoved("paused", 2.5, NOW, "erp")],
        ),
    )

    found = await store.read(lambda connection: runs.get(connection, RunId(1)))
    assert found is not None
    assert {name: getattr(found, name) for name in added._fields} == added._asdict()
    assert await store.read(lambda connection: steps.of_run(connection, RunId(1))) == [ended]
    assert await store.read(lambda connection: steps.attempts(connection, RunId(1), limit=9)) == [tried]
    (left,) = await store.read(lambda connection: tasks.of_run(connection, RunId(1)))
    assert left == StoredTask._make(task_added(1, 1, 3)._replace(**moved._asdict()))
    (erp,) = await store.read(queues.all_queues)
    assert (erp.state, erp.tokens, erp.tokens_at) == ("paused", 2.5, NOW)


async def test_an_ended_run_keeps_its_input_and_gets_its_result_and_time(store: Store) -> None:
    await commit(store, started(1))
    await commit(store, Changes(runs_ended=[run_ended(1, RunState.FAILED, result=None, error=b'{"step":"a"}')]))

    found = await store.read(lambda connection: runs.get(connection, RunId(1)))

    assert found is not None
    assert (found.state, found.input, found.result, found.error) == (RunState.FAILED, b"{}", None, b'{"step":"a"}')
    assert found.ended_at == NOW + 1.5


async def test_changes_without_rows_are_acknowledged(store: Store) -> None:
    assert await outcomes(store, Changes()) == [None]


@pytest.mark.parametrize("size", [1, LOOP_BYTES + 1], ids=["written on the loop", "written in the thread"])
async def test_whoever_is_told_first_sees_the_whole_group_durable(
    sqlite_store: SQLiteStore, tmp_path: Path, size: int
) -> None:
    seen: list[list[object]] = []

    with looking_into(tmp_path) as raw:
        sqlite_store.submit(started(1, input=b"1" * size), lambda _: seen.append(column(raw, RUNS)))
        await commit(sqlite_store, started(2), started(3))

    assert seen == [[1, 2, 3]]


async def test_who_reads_while_others_write_sees_whole_decisions_only(store: Store) -> None:
    def both(connection: Connection) -> tuple[int, int]:
        counted = [select(func.count()).select_from(table).scalar_subquery() for table in (run, task)]
        row = connection.execute(select(*counted)).one()
        return row[0], row[1]

    writing = [asyncio.ensure_future(commit(store, started(number))) for number in range(1, 4)]
    seen: list[tuple[int, int]] = []
    while not all(write.done() for write in writing) or len(seen) < 20:
        seen.append(await store.read(both))
        if len(writing) < 40:
            writing.append(asyncio.ensure_future(commit(store, started(len(writing) + 1))))

    assert all(runs_seen == tasks_seen for runs_seen, tasks_seen in seen)
    assert await store.read(both) == (len(writing), len(writing))


async def test_more_decisions_than_a_group_takes_are_acknowledged_in_order(store: Store) -> None:
    told: Told = []
    last = GROUP_ENTRIES * 2 + 10
    for number in range(1, last):
        store.submit(started(number), note(told, number))

    await commit(store, started(last))

    assert told == [(number, None) for number in range(1, last)]
    assert await stored_runs(store) == list(range(1, last + 1))


async def test_decisions_submitted_while_a_group_is_being_written_follow_it(store: Store) -> None:
    done = asyncio.Event()
    told: list[int] = []

    def again(number: int, error: BaseException | None) -> None:
        assert error is None
        told.append(number)
        if number == 30:
            done.set()
        else:
            store.submit(started(number + 1), lambda error: again(number + 1, error))

    store.submit(started(1), lambda error: again(1, error))
    await done.wait()

    assert told == await stored_runs(store) == list(range(1, 31))


async def test_a_step_that_ends_in_the_group_that_starts_it_leaves_no_task(store: Store) -> None:
    await commit(
        store,
        started(1),
        Changes(tasks_moved=[task_moved(1)]),
        Changes(steps_ended=[step_ended(1)], attempts_ended=[attempt_ended(1)], tasks_removed=[TaskRemoved(TaskId(1))]),
        Changes(runs_ended=[run_ended(1)]),
    )

    assert await count(store, task) == 0
    assert await count(store, step_run) == 1
    found = await store.read(lambda connection: runs.get(connection, RunId(1)))
    assert found is not None
    assert found.state is RunState.SUCCEEDED


async def test_a_step_may_get_a_new_task_in_the_group_that_removes_its_last(store: Store) -> None:
    await commit(store, started(1))

    await commit(
        store,
        Changes(tasks_removed=[TaskRemoved(TaskId(1))]),
        Changes(tasks_added=[task_added(1, id=TaskId(2))]),
    )

    assert [row.id for row in await store.read(lambda connection: tasks.of_run(connection, RunId(1)))] == [2]


async def test_the_last_move_of_a_task_or_queue_in_a_group_counts(store: Store) -> None:
    await store.execute(lambda connection: queues.set_limits(connection, [queues.QueueLimits(name="erp")]))

    await commit(
        store,
        Changes(
            runs_added=[run_added(1)], tasks_added=[task_added(1)], queues_moved=[QueueMoved("paused", 3, NOW, "erp")]
        ),
        Changes(tasks_moved=[task_moved(1, attempt=1)], queues_moved=[QueueMoved("paused", 2, NOW, "erp")]),
        Changes(tasks_moved=[task_moved(1, attempt=2)], queues_moved=[QueueMoved("running", 1, NOW + 1, "erp")]),
    )

    (left,) = await store.read(lambda connection: tasks.of_run(connection, RunId(1)))
    (erp,) = await store.read(queues.all_queues)
    assert left.attempt == 2
    assert (erp.state, erp.tokens, erp.tokens_at) == ("running", 1.0, NOW + 1)


async def test_one_listener_that_fails_does_not_keep_the_others_from_hearing(store: Store) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def fail(_: BaseException | None) -> None:
        raise ValueError("a listener")

    store.submit(started(1), fail)
    await commit(store, started(2))
    await commit(store, started(3))

    assert await stored_runs(store) == [1, 2, 3]
    assert [str(context["exception"]) for context in told] == ["a listener"]


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED = {
    "a run that is there": Changes(runs_added=[run_added(1)]),
    "a run of a definition that is not there": Changes(runs_added=[run_added(5, digest="no")]),
    "a run with the key of another": Changes(runs_added=[run_added(5, idempotency_key="taken")]),
    "a run in a state that there is not": Changes(runs_added=[run_added(5, state="resting")]),
    "the end of a run that has ended": Changes(runs_ended=[run_ended(2, RunState.CANCELLED)]),
    "the end of a run that is not there": Changes(runs_ended=[run_ended(99)]),
    "a step that has ended": Changes(steps_ended=[step_ended(2, result=b"2")]),
    "a step in a state that is not final": Changes(steps_ended=[step_ended(1, state="running")]),
    "an attempt that is over": Changes(attempts_ended=[attempt_ended(2)]),
    "an attempt before the first": Changes(attempts_ended=[attempt_ended(1, attempt=0)]),
    "a second task of a step": Changes(tasks_added=[task_added(1, id=TaskId(50))]),
    "a move of a task that is not there": Changes(tasks_moved=[task_moved(99)]),
    "the removal of a task that is not there": Changes(tasks_removed=[TaskRemoved(TaskId(99))]),
    "a move of a queue that is not there": Changes(queues_moved=[QueueMoved("running", 1, NOW, "none")]),
    "a number that no column holds": Changes(tasks_added=[task_added(5, id=TaskId(2**70))]),
    "a text that is not Unicode": Changes(attempts_ended=[attempt_ended(1, logs="\ud800")]),
}


@pytest.fixture
async def with_history(store: Store) -> Store:
    """Return a store in which run 1 runs under a key and run 2 has ended."""
    await commit(
        store,
        started(1, idempotency_key="taken"),
        Changes(runs_added=[run_added(2)], steps_ended=[step_ended(2)], attempts_ended=[attempt_ended(2)]),
        Changes(runs_ended=[run_ended(2)]),
    )
    return store


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_written_is_refused_alone(with_history: Store, refused: Changes) -> None:
    store = with_history

    first, error, last = await outcomes(store, started(10), refused, started(11))

    assert (first, last) == (None, None)
    assert isinstance(error, ChangesRefusedError)
    assert await stored_runs(store) == [1, 2, 10, 11]
    assert (await count(store, task), await count(store, step_run), await count(store, attempt)) == (3, 1, 1)


async def test_a_refused_decision_leaves_none_of_its_rows(with_history: Store) -> None:
    store = with_history
    refused = Changes(
        runs_added=[run_added(5), run_added(6)],
        steps_ended=[step_ended(5)],
        attempts_ended=[attempt_ended(5)],
        tasks_added=[task_added(5)],
        tasks_moved=[task_moved(5)],
        tasks_removed=[TaskRemoved(TaskId(1))],
        runs_ended=[run_ended(1), run_ended(2)],
    )

    (error,) = await outcomes(store, refused)

    assert isinstance(error, RowsMissingError)
    assert error.kind == "runs_ended"
    assert await stored_runs(store) == [1, 2]
    assert (await count(store, task), await count(store, step_run), await count(store, attempt)) == (1, 1, 1)
    live = await store.read(lambda connection: runs.get(connection, RunId(1)))
    assert live is not None
    assert live.state is RunState.RUNNING


async def test_of_two_ends_of_one_run_in_a_group_the_first_counts(store: Store) -> None:
    await commit(store, started(1))

    first, second = await outcomes(
        store,
        Changes(runs_ended=[run_ended(1, RunState.CANCELLED)]),
        Changes(runs_ended=[run_ended(1, RunState.SUCCEEDED)]),
    )

    assert first is None
    assert isinstance(second, RowsMissingError)
    found = await store.read(lambda connection: runs.get(connection, RunId(1)))
    assert found is not None
    assert found.state is RunState.CANCELLED


async def test_everybody_of_a_group_with_refusals_is_told_once_and_in_order(with_history: Store) -> None:
    told: Told = []
    for number, changes in enumerate([started(10), *REFUSED.values(), started(11)]):
        with_history.submit(changes, note(told, number))

    await commit(with_history, Changes())

    last = len(REFUSED) + 1
    written = [(number, error is None) for number, error in told]
    assert written == [(number, number in (0, last)) for number in range(last + 1)]


async def test_a_large_group_refuses_alone_too(with_history: Store) -> None:
    large = [started(number, input=b"1" * LOOP_BYTES) for number in (10, 11)]

    told = await outcomes(with_history, large[0], Changes(runs_ended=[run_ended(2)]), large[1])

    assert [type(error) for error in told] == [type(None), RowsMissingError, type(None)]
    assert await stored_runs(with_history) == [1, 2, 10, 11]


# --- calls ------------------------------------------------------------------------------------------------------------


async def test_a_call_sees_what_was_submitted_before_it_and_nothing_after(store: Store) -> None:
    def ids(connection: Connection) -> list[int]:
        return list(connection.execute(select(run.c.id).order_by(run.c.id)).scalars())

    submitted = asyncio.ensure_future(commit(store, started(1), started(2)))
    await asyncio.sleep(0)  # the task has submitted
    called = asyncio.ensure_future(store.execute(ids))
    await asyncio.sleep(0)
    later = asyncio.ensure_future(commit(store, started(3)))

    assert await called == [1, 2]
    await submitted
    await later
    assert await store.execute(ids) == [1, 2, 3]


async def test_what_a_call_wrote_is_durable_when_it_returns(store: Store) -> None:
    await store.execute(add_meta("mine"))

    assert await store.read(lambda connection: connection.execute(select(meta.c.value).filter_by(key="mine")).all())


async def test_a_failed_call_undoes_itself_and_nothing_else(store: Store) -> None:
    def write_and_fail(connection: Connection) -> None:
        add_meta("theirs")(connection)
        raise LookupError("on purpose")

    before = asyncio.ensure_future(commit(store, started(1)))
    other = asyncio.ensure_future(store.execute(add_meta("ours")))
    failing = asyncio.ensure_future(store.execute(write_and_fail))
    after = asyncio.ensure_future(commit(store, started(2)))

    with pytest.raises(LookupError, match="on purpose"):
        await failing
    await asyncio.gather(before, other, after)

    keys = await store.read(lambda connection: set(connection.execute(select(meta.c.key)).scalars()))
    assert keys == {"store_id", "epoch", "ours"}
    assert await stored_runs(store) == [1, 2]


async def test_a_call_that_breaks_a_constraint_undoes_itself_and_nothing_else(store: Store) -> None:
    with pytest.raises(IntegrityError):
        await asyncio.gather(store.execute(add_meta("epoch")), commit(store, started(1)))

    await commit(store, started(2))
    assert await stored_runs(store) == [1, 2]


async def test_nobody_minds_that_who_called_gave_up(store: Store) -> None:
    calling = asyncio.ensure_future(store.execute(add_meta("abandoned")))
    await asyncio.sleep(0)
    calling.cancel()

    await commit(store, started(1))

    assert calling.cancelled()
    assert await stored_runs(store) == [1]


# --- another owner ----------------------------------------------------------------------------------------------------


def take_over(folder: Path) -> None:
    """Make another process the owner, as it would after the lock was lost with the machine that held it."""
    engine = create_engine(f"sqlite:///{folder / FILE}")
    with engine.begin() as connection:
        raw: Any = connection.connection.driver_connection
        raw.create_function(SQLITE_NOW, 0, lambda: NOW)
        nodes.join(connection, node_id="n_other", url=None, alone=True)
    engine.dispose()


async def test_after_another_owner_took_over_nothing_is_written(sqlite_store: SQLiteStore, tmp_path: Path) -> None:
    store = sqlite_store
    await commit(store, started(1))

    take_over(tmp_path)
    told = await outcomes(store, started(2), Changes(runs_ended=[run_ended(1)]), Changes(runs_added=[run_added(1)]))
    large = await outcomes(store, started(3, input=b"1" * LOOP_BYTES), Changes())

    assert [type(error) for error in (*told, *large)] == [OwnershipLostError] * 5
    with pytest.raises(OwnershipLostError):
        await store.execute(add_meta("late"))
    with looking_into(tmp_path) as raw:
        assert column(raw, "SELECT state FROM run") == ["running"]
        assert column(raw, "SELECT key FROM meta ORDER BY key") == ["epoch", "store_id"]


async def test_a_store_that_was_lost_closes_without_writing(sqlite_store: SQLiteStore, tmp_path: Path) -> None:
    told: list[BaseException | None] = []
    take_over(tmp_path)

    sqlite_store.submit(started(1), told.append)
    await sqlite_store.close()

    assert [type(error) for error in told] == [OwnershipLostError]
    with looking_into(tmp_path) as raw:
        assert column(raw, "SELECT id FROM run") == []
        assert column(raw, "SELECT id FROM node") == ["n_other"]


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_closing_commits_what_was_submitted(tmp_path: Path) -> None:
    told: list[BaseException | None] = []
    async with opened_sqlite(tmp_path) as store:
        await with_definition(store)
        for number in range(1, GROUP_ENTRIES + 11):
            store.submit(started(number), told.append)
        call = asyncio.ensure_future(store.execute(add_meta("last")))
        await asyncio.sleep(0)

    assert told == [None] * (GROUP_ENTRIES + 10)
    await call
    with sqlite3.connect(tmp_path / FILE) as raw:
        assert column(raw, "SELECT count(*) FROM run") == [GROUP_ENTRIES + 10]
        assert column(raw, "SELECT count(*) FROM meta WHERE key = 'last'") == [1]
    raw.close()


async def test_a_closed_store_refuses_everything(store: Store) -> None:
    await store.close()

    with pytest.raises(StoreClosedError):
        store.submit(Changes(), lambda _: None)
    with pytest.raises(StoreClosedError):
        await store.execute(add_meta("late"))
    with pytest.raises(StoreClosedError):
        await store.read(queues.all_queues)


async def test_closing_twice_is_closing_once(store: Store) -> None:
    await asyncio.gather(store.close(), store.close())
    await store.close()
