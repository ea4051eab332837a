"""Several nodes on one store: how shards are shared, handed over and taken over, and what a fenced node can do."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import pytest

from hopline_engine.core.model import RunId
from hopline_engine.core.shards import SHARDS, shard_of
from hopline_engine.errors import NoShardError, RunMovingError, WorkflowNotFoundError
from hopline_engine.scheduler.ids import TimeOrderedIds
from hopline_engine.store.errors import OwnershipLostError
from hopline_engine.store.nodes import give_up
from tests.scheduler.several_nodes import Nodes, in_flight
from tests.support.waiting import WITHIN, until, until_seen

pytestmark = pytest.mark.anyio

SUCCEEDED = ["succeeded"]


# --- sharing ----------------------------------------------------------------------------------------------------------


async def test_first_node_holds_all_shards_and_the_second_gets_half_of_them(nodes: Nodes) -> None:
    first = await nodes.join()
    await first.beat()
    assert first.held == set(range(SHARDS))
    second = await nodes.join()
    await second.beat()
    assert second.held == set(), "nothing is nobody's yet"
    await first.beat()
    await second.beat()
    assert len(first.held) == len(second.held) == SHARDS // 2
    assert first.held.isdisjoint(second.held)


async def test_node_without_a_shard_is_not_ready_and_starts_nothing(nodes: Nodes) -> None:
    first = await nodes.join()
    await first.beat()
    await first.define("call")
    second = await nodes.join()
    await second.beat()
    with pytest.raises(NoShardError):
        second.engine.check_ready()
    with pytest.raises(NoShardError):
        await second.start("call")


async def test_runs_are_started_in_shards_of_the_node_and_spread_over_all_of_them(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("call")
    await second.beat()
    for node in (first, second):
        started = await node.start("call", SHARDS // 2)
        assert {shard_of(run.id) for run in started} == node.held
        assert set(await node.ended(started)) == {"succeeded"}


async def test_node_knows_where_the_runs_of_others_are_worked_on(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("call")
    (run,) = await first.start("call")
    await second.beat()
    assert first.engine.url_of(run.id) is None
    assert second.engine.url_of(run.id) == "http://n_1"
    assert second.engine.nodes() == [("n_1", "http://n_1"), ("n_2", "http://n_2")]


# --- handing over -----------------------------------------------------------------------------------------------------


async def test_shards_in_which_nothing_is_in_flight_go_first_and_those_that_drain_follow(nodes: Nodes) -> None:
    first = await nodes.join()
    await first.beat()
    second = await nodes.join()
    await first.define("held")
    started = await first.start("held", SHARDS)
    await in_flight(nodes.targets, SHARDS)
    await second.beat()
    giving = asyncio.create_task(first.beat())
    await until(lambda: first.engine.coordinator.committing.held_back, "shards are drained")
    assert len(first.held) == SHARDS, "each has an answer to wait for"
    nodes.targets.open.set()
    await giving
    await second.beat()
    assert len(first.held) == len(second.held) == SHARDS // 2
    assert set(await first.ended(started)) == {"succeeded"}
    assert [await first.attempts(run) for run in started] == [SUCCEEDED] * SHARDS
    assert not nodes.targets.twice
    assert {shard_of(run.id) for run in await first.start("held", SHARDS)} == first.held


async def test_step_that_becomes_due_while_its_shard_drains_is_sent_by_the_next_node(nodes: Nodes) -> None:
    first = await nodes.join()
    await first.beat()
    second = await nodes.join()
    await first.define("held", then="after")
    started = await first.start("held", SHARDS)
    await in_flight(nodes.targets, SHARDS)
    await second.beat()
    giving = asyncio.create_task(first.beat())
    await until(lambda: first.engine.coordinator.committing.held_back, "shards are drained")
    nodes.targets.open.set()
    await giving
    await second.beat()
    assert set(await first.ended(started)) == {"succeeded"}
    senders = {sent.node: set[int]() for sent in nodes.targets.sent}
    for sent in nodes.targets.sent:
        if sent.step == "after":
            senders[sent.node].add(shard_of(sent.run))
    assert senders == {"n_1": first.held, "n_2": second.held}


async def test_shard_that_does_not_drain_stays_where_it_is(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hopline_engine.scheduler.membership.DRAIN_SECONDS", 0.01)
    first = await nodes.join()
    await first.beat()
    second = await nodes.join()
    await first.define("held", "call")
    held = await first.start("held", SHARDS)
    await in_flight(nodes.targets, SHARDS)
    await second.beat()
    await first.beat()
    assert len(first.held) == SHARDS
    others = await first.start("call", SHARDS)
    assert set(await first.ended(others)) == {"succeeded"}, "they are sent as before"
    nodes.targets.open.set()
    assert set(await first.ended(held)) == {"succeeded"}


async def test_what_waits_in_a_shard_goes_on_at_the_node_that_gets_it(nodes: Nodes) -> None:
    first = await nodes.join()
    await first.beat()
    second = await nodes.join()
    await first.define("call")
    await first.engine.controls.pause_queue("default", paused=True)
    started = await first.start("call", SHARDS)
    for node in (second, first, second):
        await node.beat()
    assert len(second.held) == SHARDS // 2
    moved = [run for run in started if shard_of(run.id) in second.held]
    assert {run.id for run in moved} == second.engine.coordinator.runs.keys()
    assert first.engine.coordinator.runs.keys().isdisjoint(run.id for run in moved)
    assert {shard_of(run.id) for run in await first.start("call", SHARDS)} == first.held
    await second.engine.controls.pause_queue("default", paused=False)
    assert set(await first.ended(moved)) == {"succeeded"}
    await first.beat()
    assert set(await first.ended(started)) == {"succeeded"}
    assert [await first.attempts(run) for run in started] == [SUCCEEDED] * SHARDS


async def test_shards_on_their_way_out_are_not_taken_up_again(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await nodes.join()
    await first.beat()
    second = await nodes.join()
    await second.beat()
    execute, is_giving, may_give = first.store.execute, asyncio.Event(), asyncio.Event()

    async def slow(function: Callable[[Any], Any]) -> Any:
        if isinstance(function, partial) and function.func is give_up:
            is_giving.set()
            await may_give.wait()
        return await execute(function)

    monkeypatch.setattr(first.store, "execute", slow)
    giving = asyncio.create_task(first.beat())
    await asyncio.wait_for(is_giving.wait(), WITHIN)
    await first.engine.membership.beat()  # the store still says that all is its own
    may_give.set()
    await giving
    ours = {shard for shard in range(SHARDS) if first.engine.membership.is_ours(RunId(shard))}
    assert ours == first.held
    await second.beat()
    await first.beat()
    assert len(first.held) == len(second.held) == SHARDS // 2
    assert first.held.isdisjoint(second.held)


async def test_who_watches_a_run_that_goes_to_another_node_is_let_go(nodes: Nodes) -> None:
    first = await nodes.join()
    await first.beat()
    await first.define("held")
    await first.engine.controls.pause_queue("default", paused=True)
    started = await first.start("held", SHARDS)
    second = await nodes.join()
    with ExitStack() as stack:
        watches = {run.id: stack.enter_context(first.engine.watchers.watch(run.id)) for run in started}
        for node in (second, first, second):
            await node.beat()
        for run in started:
            if shard_of(run.id) in second.held:
                assert await asyncio.wait_for(watches[run.id].changes(), WITHIN) is None


async def test_node_that_leaves_hands_over_without_one_lost_attempt(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("held")
    started = await first.start("held", 40)
    await in_flight(nodes.targets, 40)
    leaving = asyncio.create_task(first.engine.close())
    await until(lambda: not first.engine.coordinator.sending.is_on, "it sends nothing more")
    nodes.targets.open.set()
    await leaving
    await second.beat()
    assert second.held == set(range(SHARDS))
    assert set(await second.ended(started)) == {"succeeded"}
    assert [await second.attempts(run) for run in started] == [SUCCEEDED] * 40


async def test_request_about_a_run_on_its_way_is_refused_for_a_moment(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("call")
    (run,) = await first.start("call")
    await nodes.write("UPDATE shard SET node = NULL WHERE node = 'n_1'")
    second.engine.membership.takes_shards = False
    await second.beat()
    with pytest.raises(RunMovingError):
        second.engine.url_of(run.id)
    with pytest.raises(RunMovingError):
        await second.engine.orders.cancel(RunId(run.id))


# --- taking over ------------------------------------------------------------------------------------------------------


async def test_work_of_a_node_that_fell_silent_is_taken_over(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("held", "call")
    started = await first.start("held", 10)
    await in_flight(nodes.targets, 10)
    await nodes.silence(first)
    nodes.targets.open.set()  # answers that come now are for nobody

    async def taken() -> bool:
        await second.beat()  # passes over a node whose row is locked, by a commit that is just being made
        return second.held == set(range(SHARDS))

    await until_seen(taken, "the other node holds all shards")
    assert set(await second.ended(started)) == {"succeeded"}


async def test_node_that_was_fenced_changes_nothing_and_drops_everything(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("held", "call")
    await second.beat()
    started = await first.start("held", 10)
    await in_flight(nodes.targets, 10)
    await nodes.silence(first)
    second.engine.coordinator.sending.is_on = False
    await second.beat()
    with pytest.raises(OwnershipLostError):
        await first.start("call")
    await until(lambda: nodes.targets.in_flight == 0, "its requests are cut off")
    assert first.engine.membership.lost.done()
    assert first.held == set()
    assert first.engine.coordinator.runs == {}
    assert isinstance(first.engine.trouble, OwnershipLostError)
    assert [await second.attempts(run) for run in started] == [["lost"]] * 10, "as the other node says"
    nodes.targets.open.set()
    second.engine.dispatch("http://n_2")
    assert set(await second.ended(started)) == {"succeeded"}
    assert [await second.attempts(run) for run in started] == [["lost", "succeeded"]] * 10


async def test_node_learns_by_its_next_beat_that_it_was_fenced(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await nodes.silence(first)
    await second.beat()
    await first.beat()
    assert isinstance(first.engine.membership.lost.result(), OwnershipLostError)


async def test_node_knows_by_its_next_beat_that_it_is_not_alone_any_more(nodes: Nodes) -> None:
    first = await nodes.join()
    await first.beat()
    assert not first.engine.membership.has_company()
    second = await nodes.join()
    await first.beat()
    assert first.engine.membership.has_company()
    await second.engine.membership.leave()
    await first.beat()
    assert first.engine.membership.has_company(), "what the other did last is still looked for"


async def test_node_that_was_silent_itself_fences_nobody_at_first(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await nodes.silence(first)
    await nodes.silence(second)  # as when the database was away from both
    await second.beat()
    await first.beat()
    await second.beat()
    assert len(first.held) == len(second.held) == SHARDS // 2
    assert not first.engine.membership.lost.done()


async def test_numbers_go_on_above_those_of_the_node_before(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("held")
    await second.beat()
    ids = cast("TimeOrderedIds", first.engine.coordinator.ids)
    an_hour_ahead = ids.next_run() + 3_600_000 * 4 * SHARDS
    ids.take(first.held, last_run=an_hour_ahead, last_task=an_hour_ahead)
    ahead = await first.start("held", SHARDS)
    assert min(run.id for run in ahead) > an_hour_ahead
    await nodes.silence(first)
    await second.beat()
    later = await second.start("held", SHARDS)
    last = {shard_of(run.id): run.id for run in sorted(ahead, key=lambda run: run.id)}
    assert all(run.id > last[shard_of(run.id)] for run in later if shard_of(run.id) in last)


# --- what all nodes know ----------------------------------------------------------------------------------------------


async def test_workflow_registered_at_one_node_runs_at_another_after_its_next_beat(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("call")
    await second.beat()
    assert await second.ended(await second.start("call")) == ["succeeded"]


async def test_workflow_registered_at_one_node_is_known_to_another_when_it_is_asked_for(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    limits = {"name": "ten", "max_concurrent_dispatches": 10, "max_dispatches_per_second": None, "max_burst_size": None}
    await first.define("call", queue=limits)
    started = await second.start("call")
    queue = second.engine.controls.queue("ten")
    assert (queue.max_concurrent_dispatches, queue.is_shared) == (10, True)
    await second.beat()
    assert await second.ended(started) == ["succeeded"]
    with pytest.raises(WorkflowNotFoundError):
        await second.start("nothing")


async def test_looking_for_a_workflow_changes_nothing_of_those_that_are_known(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("call")
    await second.beat()
    before = second.engine.catalogue.current("call")
    await first.define("call", then="held")
    await first.define("new")
    await second.engine.catalogue.find("new")
    assert second.engine.catalogue.current("call") is before


async def test_queue_paused_at_one_node_is_paused_at_the_others(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("call")
    await first.engine.controls.pause_queue("default", paused=True)
    await second.beat()
    assert second.engine.controls.queue("default").is_paused
    started = await second.start("call")
    await first.engine.controls.pause_queue("default", paused=False)
    await second.beat()
    assert await second.ended(started) == ["succeeded"]


async def test_one_key_at_two_nodes_at_once_is_one_run(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("call")
    await second.beat()
    for number in range(10):
        starts = await asyncio.gather(*(node.engine.start_run("call", {}, f"key {number}") for node in (first, second)))
        assert len({start.run.id for start in starts}) == 1
        assert [start.created for start in starts].count(True) == 1


async def test_clock_of_an_engine_follows_the_database(nodes: Nodes) -> None:
    first = await nodes.join()
    told = first.engine._clock
    told.hear(told.own() + 500, before=told.own(), after=told.own())
    assert told.now() > told.own() + 400
    await first.beat()
    assert told.now() < told.own() + 400
