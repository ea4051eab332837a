"""Queries: runs found and listed, steps and attempts, queues, definitions, and what an engine takes over."""

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from hopline_engine.core.changes import Changes, QueueMoved
from hopline_engine.core.live import StoredTask
from hopline_engine.core.model import WHOLE, Digest, RunId, RunState, TaskId
from hopline_engine.errors import AmbiguousRunError
from hopline_engine.store import definitions, queues, recovery, runs, steps, tasks
from hopline_engine.store.definitions import StoredDefinition
from hopline_engine.store.interface import Store
from hopline_engine.store.queues import QueueLimits
from hopline_engine.store.runs import RunFilter
from tests.store.opened import commit
from tests.store.rows import (
    DEFINITION,
    NOW,
    attempt_ended,
    child_of,
    run_added,
    run_ended,
    started,
    step_ended,
    task_added,
)

pytestmark = pytest.mark.anyio


# --- runs by name -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def named(store: Store) -> Store:
    """Return a store of runs: 1 and 3 failed, 4 runs, 5 is a failed run of a sub-workflow."""
    names = {1: "r_7h2kq9m3xa", 2: "r_7h2kb00000", 3: "r_8zzzzzzzzz", 4: "r_short", 5: "r_shorter"}
    await commit(
        store,
        Changes(
            runs_added=[
                run_added(number, public_id=name, **child_of(4) if number == 5 else {})
                for number, name in names.items()
            ]
        ),
        Changes(runs_ended=[run_ended(number, RunState.FAILED) for number in (1, 3, 5)]),
        Changes(runs_ended=[run_ended(2)]),
    )
    return store


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("r_7h2kq9m3xa", 1),
        ("7h2kq9m3xa", 1),
        ("r_7h2kq", 1),
        ("7h2kb", 2),
        ("8", 3),
        ("r_short", 4),  # a full id is not ambiguous, whatever begins with it
        ("r_shorte", 5),
        ("@last", 4),
        ("@failed", 3),
        ("nothing", None),
        ("r_7h2kq9m3xab", None),
        ("", None),
        ("r_", None),
        ("@first", None),
        ("R_8ZZZ", None),
        ("%", None),
        ("r_7h2kq9m3xa\0", None),
        ("_", None),
    ],
)
async def test_a_run_is_found_by_what_people_call_it(named: Store, ref: str, expected: int | None) -> None:
    assert await named.read(lambda connection: runs.resolve(connection, ref)) == expected


async def test_a_start_that_several_runs_have_names_them(named: Store) -> None:
    with pytest.raises(AmbiguousRunError) as refused:
        await named.read(lambda connection: runs.resolve(connection, "7h2k"))

    assert refused.value.ref == "7h2k"
    assert refused.value.candidates == ("r_7h2kb00000", "r_7h2kq9m3xa")


@pytest.mark.parametrize("ref", ["@last", "@failed"])
async def test_in_a_store_without_runs_there_is_no_last(store: Store, ref: str) -> None:
    assert await store.read(lambda connection: runs.resolve(connection, ref)) is None


async def test_last_is_the_run_that_was_created_last_and_not_the_highest_number(store: Store) -> None:
    await commit(store, started(1, created_at=NOW + 50), started(2, created_at=NOW + 10))

    assert await store.read(lambda connection: runs.resolve(connection, "@last")) == 1


async def test_a_run_tells_the_public_ids_of_its_parent_and_origin(named: Store) -> None:
    await commit(named, started(6, retry_of=RunId(3)))

    child = await named.read(lambda connection: runs.get(connection, RunId(5)))
    retry = await named.read(lambda connection: runs.get(connection, RunId(6)))

    assert child is not None
    assert (child.parent_id, child.parent_public_id, child.parent_node, child.parent_item) == (4, "r_short", 0, WHOLE)
    assert retry is not None
    assert (retry.retry_of, retry.retry_of_public_id) == (3, "r_8zzzzzzzzz")
    assert await named.read(lambda connection: runs.get(connection, RunId(99))) is None


async def test_a_run_is_found_by_the_key_it_was_started_with(store: Store) -> None:
    await commit(store, started(1, idempotency_key="monday"), started(2), started(3, idempotency_key="Monday"))

    found = await store.read(lambda connection: runs.by_idempotency_key(connection, "monday"))

    assert found is not None
    assert (found.id, found.input) == (1, b"{}")
    assert await store.read(lambda connection: runs.by_idempotency_key(connection, "tuesday")) is None


# --- pages ------------------------------------------------------------------------------------------------------------


async def listed(store: Store, limit: int = 99, after: int | None = None, **wanted: Any) -> list[int]:
    """Return the numbers of the runs on one page."""
    start = None if after is None else RunId(after)
    page = await store.read(
        lambda connection: runs.page(connection, RunFilter(**wanted), limit=limit, after=start),
    )
    return [found.id for found in page.runs]


async def test_runs_are_listed_newest_first_without_those_of_sub_workflows(store: Store) -> None:
    await commit(store, started(1), started(2), started(3, **child_of(1)), started(4, created_at=NOW))

    assert await listed(store) == [2, 1, 4]


async def test_filters_narrow_a_listing_and_may_be_combined(store: Store) -> None:
    await commit(
        store,
        started(1, workflow="sales"),
        started(2),
        started(3, workflow="sales"),
        started(4, workflow="sales"),
        started(5, **child_of(2)),
        Changes(runs_ended=[run_ended(1, RunState.FAILED), run_ended(2, RunState.FAILED)]),
        Changes(runs_ended=[run_ended(3, RunState.CANCELLED), run_ended(5, RunState.FAILED)]),
    )

    assert await listed(store, state=RunState.FAILED) == [2, 1]
    assert await listed(store, state=RunState.RUNNING) == [4]
    assert await listed(store, state=RunState.SUCCEEDED) == []
    assert await listed(store, workflow="sales") == [4, 3, 1]
    assert await listed(store, since=NOW + 3) == [4, 3]
    assert await listed(store, parent=RunId(2)) == [5]
    assert await listed(store, workflow="sales", state=RunState.FAILED, since=NOW) == [1]
    assert await listed(store, workflow="sales", state=RunState.FAILED, since=NOW + 2) == []
    assert await listed(store, workflow="sales\0") == []


async def test_pages_follow_each_other_without_gap_or_repetition_while_runs_are_added(store: Store) -> None:
    await commit(store, *[started(number, created_at=NOW + number // 3) for number in range(1, 8)])
    seen: list[int] = []
    after: RunId | None = None

    for added in range(100, 110):
        page = await store.read(partial(runs.page, wanted=RunFilter(), limit=2, after=after))
        assert len(page.runs) <= 2
        seen += [found.id for found in page.runs]
        await commit(store, started(added))
        if page.next is None:
            break
        after = page.next

    assert seen == [7, 6, 5, 4, 3, 2, 1]


async def test_a_page_that_ends_the_listing_has_no_next(store: Store) -> None:
    await commit(store, started(1), started(2))

    def page(limit: int) -> Any:
        return lambda connection: runs.page(connection, RunFilter(), limit=limit)

    assert (await store.read(page(1))).next == 2
    assert (await store.read(page(2))).next is None
    assert (await store.read(page(3))).next is None


async def test_after_a_run_that_is_not_there_nothing_follows(store: Store) -> None:
    await commit(store, started(1))

    assert await listed(store, after=77) == []


async def test_filters_hold_on_later_pages_too(store: Store) -> None:
    await commit(store, *[started(number, workflow="ab"[number % 2]) for number in range(1, 9)])

    assert await listed(store, workflow="a", limit=2) == [8, 6]
    assert await listed(store, workflow="a", limit=2, after=6) == [4, 2]


# --- steps, attempts, tasks -------------------------------------------------------------------------------------------

STEP = step_ended(1, 0, attempts=2)
MAP = step_ended(1, 1, state="failed", result=None, error=b'{"type":"E"}')
ELEMENTS = [
    step_ended(1, 1, 0),
    step_ended(1, 1, 1, state="failed", result=None, error=b"{}"),
    step_ended(1, 1, 2),
]
ATTEMPTS = [
    attempt_ended(1, 0, attempt=1, state="timed_out", status=None, error=b"{}"),
    attempt_ended(1, 0, attempt=2),
    attempt_ended(1, 1, 0),
    attempt_ended(1, 1, 1, state="failed", status=500, error=b"{}"),
    attempt_ended(1, 1, 2),
]


@pytest.fixture
async def history(store: Store) -> AsyncIterator[Store]:
    """Return a store with a run of three steps: one done, a map that failed, one that has not begun; and another."""
    await commit(
        store,
        Changes(runs_added=[run_added(1), run_added(2)]),
        Changes(steps_ended=[*reversed(ELEMENTS), MAP], attempts_ended=ATTEMPTS[::-1]),
        Changes(steps_ended=[STEP, step_ended(2, 0), step_ended(2, 2)], attempts_ended=[attempt_ended(2, 2)]),
    )
    yield store


async def test_an_overview_has_the_steps_the_counts_of_elements_and_the_attempts_of_single_steps(
    history: Store,
) -> None:
    found = await history.read(lambda connection: steps.overview(connection, RunId(1), single=[0, 2], mapped=[1]))

    assert found.ended == {0: STEP._replace(result=None), 1: MAP}
    assert found.items == {1: {"succeeded": 2, "failed": 1}}
    assert found.attempts == {0: [row._replace(error=None, logs=None) for row in ATTEMPTS[:2]]}


async def test_an_overview_leaves_out_the_elements_of_maps_that_run(history: Store) -> None:
    await commit(history, Changes(steps_ended=[step_ended(2, 1, 0)]))

    found = await history.read(lambda connection: steps.overview(connection, RunId(2), single=[0, 2], mapped=[1]))

    assert set(found.ended) == {0, 2}
    assert found.items == {}


async def test_all_that_ended_of_a_run_comes_by_step_and_element_with_results(history: Store) -> None:
    found = await history.read(lambda connection: steps.of_run(connection, RunId(1)))

    assert found == [STEP, MAP, *ELEMENTS]


async def test_one_step_or_element_is_found_with_its_result(history: Store) -> None:
    async def get(run: int, node: int, item: int) -> object:
        return await history.read(lambda connection: steps.get(connection, RunId(run), node, item))

    assert await get(1, 0, WHOLE) == STEP
    assert await get(1, 1, 2) == ELEMENTS[2]
    assert await get(1, 2, WHOLE) is None
    assert await get(1, 0, 0) is None


async def test_elements_of_a_map_come_in_parts_without_results(history: Store) -> None:
    async def part(after: int, limit: int) -> list[tuple[int, bytes | None]]:
        found = await history.read(lambda connection: steps.items(connection, RunId(1), 1, after=after, limit=limit))
        return [(row.item, row.result) for row in found]

    assert await part(WHOLE, 2) == [(0, None), (1, None)]
    assert await part(1, 2) == [(2, None)]
    assert await part(2, 2) == []


async def test_elements_are_counted_by_how_they_ended_without_the_map_s_own_record(history: Store) -> None:
    found = await history.read(lambda connection: steps.item_counts(connection, RunId(1), [0, 1, 2]))

    assert found == [(1, "failed", 1), (1, "succeeded", 2)]


async def test_steps_of_a_run_that_has_more_than_a_statement_can_name_are_found(store: Store) -> None:
    ended = [step_ended(1, node) for node in (39_999, 0, 20_000)]
    element = step_ended(1, 39_998, 0)
    attempt = attempt_ended(1, 39_999)
    await commit(store, Changes(steps_ended=[*ended, element], attempts_ended=[attempt]))

    found = await store.read(partial(steps.overview, run_id=RunId(1), single=range(40_000), mapped=range(40_000)))
    listed = await store.read(partial(steps.without_results, run_id=RunId(1), nodes=range(40_000)))

    assert list(found.ended) == [row.node for row in listed] == [0, 20_000, 39_999]
    assert list(found.attempts) == [39_999]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ATTEMPTS),
        ({"node": 0}, ATTEMPTS[:2]),
        ({"node": 1, "item": 1}, ATTEMPTS[3:4]),
        ({"item": WHOLE}, ATTEMPTS[:2]),
        ({"node": 0, "number": 2}, ATTEMPTS[1:2]),
        ({"number": 3}, []),
        ({"node": 2}, []),
    ],
)
async def test_attempts_come_by_step_element_and_number(history: Store, wanted: Any, expected: Any) -> None:
    found = await history.read(lambda connection: steps.attempts(connection, RunId(1), limit=99, **wanted))

    assert found == expected


async def test_no_more_attempts_come_than_were_asked_for(history: Store) -> None:
    assert await history.read(lambda connection: steps.attempts(connection, RunId(1), limit=3)) == ATTEMPTS[:3]


async def test_tasks_of_a_run_come_by_step_and_element(store: Store) -> None:
    added = [
        task_added(1, 1, 0, id=TaskId(3)),
        task_added(1, 0, id=TaskId(4), deadline_time=NOW + 9, first_attempt_at=NOW),
        task_added(1, 1, 1, id=TaskId(2)),
    ]
    await commit(store, Changes(tasks_added=[*added, task_added(2, id=TaskId(9))]))

    found = await store.read(lambda connection: tasks.of_run(connection, RunId(1)))

    assert found == [StoredTask._make(added[index]) for index in (1, 0, 2)]
    assert StoredTask._fields == added[0]._fields


# --- queues -----------------------------------------------------------------------------------------------------------


async def test_new_limits_leave_state_and_tokens_of_a_queue_alone(store: Store) -> None:
    first = QueueLimits(name="erp", max_dispatches_per_second=10.0, max_burst_size=5, max_concurrent_dispatches=20)
    await store.execute(lambda connection: queues.set_limits(connection, [first, QueueLimits(name="a")]))
    await commit(store, Changes(queues_moved=[QueueMoved("paused", 3.5, NOW, "erp")]))

    changed = QueueLimits(name="erp", max_dispatches_per_second=None, max_burst_size=7)
    await store.execute(lambda connection: queues.set_limits(connection, [changed]))

    other, erp = await store.read(queues.all_queues)
    assert (other.name, other.state, other.tokens, other.max_burst_size) == ("a", "running", 0.0, None)
    assert (erp.name, erp.state, erp.tokens, erp.tokens_at) == ("erp", "paused", 3.5, NOW)
    limits = (erp.max_dispatches_per_second, erp.max_burst_size, erp.max_concurrent_dispatches)
    assert limits == (None, 7, None)


@pytest.mark.parametrize(
    "wrong", [{"max_dispatches_per_second": 0}, {"max_burst_size": 0}, {"max_concurrent_dispatches": -1}]
)
async def test_limits_that_let_nothing_through_are_refused_and_change_nothing(store: Store, wrong: Any) -> None:
    with pytest.raises(IntegrityError):
        await store.execute(lambda connection: queues.set_limits(connection, [QueueLimits(name="erp", **wrong)]))

    assert await store.read(queues.all_queues) == []


# --- definitions ------------------------------------------------------------------------------------------------------


def version(name: str, digit: str) -> StoredDefinition:
    return StoredDefinition(digest=Digest(digit * 64), name=name, body=f'{{"name":"{name}{digit}"}}'.encode())


async def register(store: Store, given: list[StoredDefinition], current: list[str]) -> None:
    await store.execute(lambda connection: definitions.register(connection, given, current, NOW))


async def test_versions_are_kept_and_new_runs_use_the_last_that_was_made_current(store: Store) -> None:
    old, new = version("sales", "1"), version("sales", "2")

    await register(store, [old], ["sales"])
    await register(store, [new], ["sales"])

    assert await store.read(definitions.current) == [DEFINITION, new]
    both = await store.read(lambda connection: definitions.by_digests(connection, [old.digest, new.digest]))
    assert sorted(both, key=lambda each: each.digest) == [old, new]

    await register(store, [old], ["sales"])

    assert await store.read(definitions.current) == [DEFINITION, old]


async def test_a_version_that_is_only_a_part_of_others_is_stored_and_not_current(store: Store) -> None:
    part, whole = version("shop", "3"), version("sales", "4")

    await register(store, [part, whole], ["sales"])

    assert await store.read(definitions.current) == [DEFINITION, whole]
    assert await store.read(lambda connection: definitions.by_digests(connection, [part.digest])) == [part]


async def test_registering_again_changes_nothing(store: Store) -> None:
    await register(store, [version("sales", "1")], ["sales"])
    await register(store, [replace(version("sales", "1"), body=b"else")], ["sales"])

    assert await store.read(definitions.current) == [DEFINITION, version("sales", "1")]


async def test_digests_that_are_not_stored_are_left_out(store: Store) -> None:
    digests = [DEFINITION.digest, Digest("f" * 64)]

    assert await store.read(lambda connection: definitions.by_digests(connection, digests)) == [DEFINITION]
    assert await store.read(lambda connection: definitions.by_digests(connection, [])) == []


# --- taking over ------------------------------------------------------------------------------------------------------


async def test_live_runs_come_in_parts_with_their_steps_and_tasks(store: Store) -> None:
    await commit(
        store,
        *[started(number) for number in (1, 2, 3, 4)],
        started(5, **child_of(1)),
        Changes(steps_ended=[step_ended(3, 1), step_ended(3, 2, 0), step_ended(4)]),
        Changes(runs_ended=[run_ended(2), run_ended(4)]),
    )

    async def part(after: int | None) -> list[recovery.StoredRun]:
        start = None if after is None else RunId(after)
        return await store.read(lambda connection: recovery.live_runs(connection, after=start, limit=2))

    first = await part(None)
    second = await part(3)

    assert [found.run for found in first] == [run_added(1), run_added(3)]
    assert [found.run.id for found in second] == [5]
    assert await part(5) == []
    assert [sorted(found.steps) for found in first] == [[], [step_ended(3, 1), step_ended(3, 2, 0)]]
    assert [[task.id for task in found.tasks] for found in (*first, *second)] == [[1], [3], [5]]


async def test_live_runs_below_a_root_are_those_of_its_sub_workflows_at_any_depth(store: Store) -> None:
    await commit(
        store,
        started(1),
        started(2),
        started(3, **child_of(2)),
        started(4, **child_of(3)),
        started(5, **child_of(1)),
        started(6, **child_of(2)),
        Changes(runs_ended=[run_ended(6)]),
    )

    found = await store.read(lambda connection: recovery.live_runs(connection, limit=99, roots=[RunId(2)]))

    assert [each.run.id for each in found] == [2, 3, 4]


async def test_the_last_ids_are_the_highest_that_are_there(store: Store) -> None:
    assert await store.read(recovery.last_ids) == (0, 0)

    await commit(store, started(7), Changes(tasks_added=[task_added(7, 1, id=TaskId(40))]))

    assert await store.read(recovery.last_ids) == (7, 40)
