"""Old runs and ticks that are deleted, in slices, on both stores; and what has to stay."""

from functools import partial
from typing import Any

import pytest
from sqlalchemy import Table, func, select

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import RunState
from hopline_engine.core.schedules import tick_key
from hopline_engine.core.ticks import DecidedTick, TickState
from hopline_engine.store import retention, schedules
from hopline_engine.store.interface import Store
from hopline_engine.store.retention import Pruned
from hopline_engine.store.tables import attempt, run, step_run, tick
from tests.store.opened import commit
from tests.store.rows import NOW, attempt_ended, run_added, run_ended, step_ended

pytestmark = pytest.mark.anyio

LATER = NOW + 1000


async def ended(store: Store, number: int, *, steps: int = 1, **others: Any) -> None:
    """Store a run that has ended, half a second after it began."""
    await commit(store, Changes(runs_added=[run_added(number, **others)]))
    await commit(
        store,
        Changes(
            steps_ended=[step_ended(number, node) for node in range(steps)],
            attempts_ended=[attempt_ended(number, node) for node in range(steps)],
            runs_ended=[run_ended(number)],
        ),
    )


async def prune(store: Store, before: float = LATER) -> list[Pruned]:
    """Delete all that is old; return what each transaction deleted."""
    slices = []
    for _ in range(100):
        families = (await store.read(partial(retention.old_runs, before=before))).families
        if not families:
            break
        slices.append(await store.execute(partial(retention.remove_runs, families=families)))
    slices.append(await store.execute(partial(retention.remove_ticks, before=before)))
    return slices


async def left(store: Store, table: Table = run) -> list[int]:
    column = table.c.id if table is run else table.c.run_id
    return await store.read(lambda connection: list(connection.execute(select(column).order_by(column)).scalars()))


async def test_run_that_ended_long_ago_goes_with_all_that_belongs_to_it(store: Store) -> None:
    await ended(store, 1, steps=3)
    await ended(store, 2)
    assert await prune(store, NOW + 2) == [Pruned(runs=1, steps=3, attempts=3), Pruned()]
    for table in (run, step_run, attempt):
        assert set(await left(store, table)) == {2}


async def test_run_that_goes_on_stays_however_old_and_keeps_no_other_from_being_found(store: Store) -> None:
    await commit(store, Changes(runs_added=[run_added(number) for number in range(1, 121)]))
    await ended(store, 121)
    place: retention.Place | None = retention.BEGIN
    found = []
    while place is not None:
        families, place = await store.read(partial(retention.old_runs, before=LATER, after=place))
        found += families
    assert found == [[121]]


async def test_family_goes_as_a_whole_and_only_when_all_of_it_has_ended(store: Store) -> None:
    await ended(store, 1)
    await ended(store, 2, parent_id=1, parent_node=0)
    await ended(store, 3, parent_id=2, parent_node=0)
    await commit(store, Changes(runs_added=[run_added(4, parent_id=3, parent_node=0)]))
    await prune(store)
    assert await left(store) == [1, 2, 3, 4]
    await commit(store, Changes(runs_ended=[run_ended(4, RunState.CANCELLED)]))
    assert (await prune(store))[0].runs == 4
    assert await left(store) == []


async def test_run_that_a_live_one_goes_on_from_stays_until_that_has_ended(store: Store) -> None:
    await ended(store, 1)
    await commit(store, Changes(runs_added=[run_added(2, retry_of=1)]))
    await prune(store)
    assert await left(store) == [1, 2]
    await commit(store, Changes(runs_ended=[run_ended(2)]))
    await prune(store)
    assert await left(store) == []


async def test_only_runs_of_the_given_shards_are_found(store: Store) -> None:
    for number in (1, 2, 65):
        await ended(store, number)
    found = await store.read(partial(retention.old_runs, before=LATER, shards=[1]))
    assert found.families == [[1], [65]]


async def test_what_is_much_is_deleted_in_slices_with_the_run_itself_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_A_TIME", 10)
    await ended(store, 1, steps=12)
    await ended(store, 2, parent_id=1, parent_node=0)
    await ended(store, 3)
    slices = await prune(store)
    assert all(each.runs + each.steps + each.attempts <= 10 for each in slices)
    assert sum(slices, start=Pruned()) == Pruned(runs=3, steps=14, attempts=14, is_all=False)
    assert [each.is_all for each in slices[-2:]] == [True, True]
    assert await left(store, step_run) == await left(store, attempt) == await left(store) == []


async def test_tick_goes_with_its_run_and_not_before(store: Store) -> None:
    await with_ticks(store, {100.0: TickState.STARTED, 200.0: TickState.DONE})
    await ended(store, 1, idempotency_key=tick_key("s", 100.0))
    await ended(store, 500, idempotency_key=tick_key("s", 200.0))
    assert (await prune(store, NOW + 400))[0] == Pruned(runs=1, steps=1, attempts=1, ticks=1)
    assert await ticks(store) == {200.0: TickState.DONE}


async def test_run_whose_tick_may_ask_for_it_again_stays(store: Store) -> None:
    await with_ticks(store, {100.0: TickState.DUE})
    await ended(store, 1, idempotency_key=tick_key("s", 100.0))
    await prune(store)
    assert await left(store) == [1]
    assert await ticks(store) == {100.0: TickState.DUE}


async def test_passed_over_ticks_go_and_those_that_wait_or_have_runs_stay(store: Store) -> None:
    states = dict(enumerate(TickState))
    await with_ticks(store, {100.0 + number: state for number, state in states.items()})
    decided = await store.read(lambda connection: connection.execute(select(func.max(tick.c.decided_at))).scalar_one())
    assert await store.read(partial(retention.old_ticks, before=decided - 10)) == 0
    assert await store.read(partial(retention.old_ticks, before=decided + 10)) == 3
    assert await store.execute(partial(retention.remove_ticks, before=decided + 10)) == Pruned(ticks=3)
    assert set((await ticks(store)).values()) == set(TickState) - {
        TickState.SKIPPED,
        TickState.MISSED,
        TickState.FAILED,
    }


async def test_rehearsal_counts_what_would_be_deleted_and_deletes_nothing(store: Store) -> None:
    await ended(store, 1, steps=2)
    await ended(store, 2, parent_id=1, parent_node=0)
    families = (await store.read(partial(retention.old_runs, before=LATER))).families
    assert await store.read(partial(retention.count, families=families)) == Pruned(runs=2, steps=3, attempts=3)
    assert await left(store) == [1, 2]


async def test_looking_for_what_is_old_uses_indices_only(sqlite_store: Store) -> None:
    def plans(connection: Any) -> list[str]:
        seen: list[str] = []

        def explain(_c: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if statement.startswith("SELECT"):
                seen.extend(row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

        from sqlalchemy import event

        event.listen(connection, "before_cursor_execute", explain)
        retention.old_runs(connection, before=LATER, after=retention.Place(1.0, 1))
        retention.old_ticks(connection, before=LATER)
        event.remove(connection, "before_cursor_execute", explain)
        return seen

    assert [plan.split(" (")[0] for plan in await sqlite_store.read(plans)] == [
        "SEARCH run USING INDEX run_listed",
        "SEARCH tick USING INDEX tick_passed",
    ]


async def with_ticks(store: Store, states: dict[float, TickState]) -> None:
    decided = [DecidedTick(at, state, None) for at, state in states.items()]
    await store.execute(partial(schedules.add_ticks, name="s", ticks=decided, kind="tick"))


async def ticks(store: Store) -> dict[float, TickState]:
    return await store.read(partial(schedules.ticks_between, name="s", first=0.0, last=LATER))
