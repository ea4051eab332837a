"""Limits of a queue from which several nodes send: never exceeded, shared fairly, and nobody's when a node is gone."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from hopline_engine.clock import now
from hopline_engine.scheduler.shares import Shares
from tests.core.worlds import definition, http_step
from tests.scheduler.several_nodes import Nodes, in_flight
from tests.support.waiting import WITHIN, until

pytestmark = pytest.mark.anyio

Limits = dict[str, Any]


def limited(name: str, concurrent: int | None = None, rate: float | None = None, burst: int | None = None) -> Limits:
    return {
        "name": name,
        "max_concurrent_dispatches": concurrent,
        "max_dispatches_per_second": rate,
        "max_burst_size": burst,
    }


TEN = limited("ten", 10)
ONE = limited("one", 1)
SLOW = limited("slow", rate=50.0, burst=5)


@pytest.mark.parametrize("limits", [TEN, ONE])
async def test_no_more_than_the_limit_is_in_flight_at_all_nodes_together(nodes: Nodes, limits: Limits) -> None:
    first, second = await nodes.joined(2)
    await first.define("call", queue=limits)
    await second.beat()
    nodes.targets.seconds = 0.02
    started = [run for node in (first, second) for run in await node.start("call", 30)]
    assert set(await first.ended(started)) == {"succeeded"}
    assert nodes.targets.most == limits["max_concurrent_dispatches"]
    assert {sent.attempt for sent in nodes.targets.sent} == {1}


async def test_limit_of_a_queue_is_exact_beside_keys(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    keyed = http_step("keyed", "http://x")
    keyed["policy"] |= {"queue": "ten", "key": "one", "key_limit": 2}
    await first.define("call", queue=TEN)
    await first.engine.controls.register([{**definition("keyed", [keyed]), "queues": [TEN]}], ["keyed"])
    await second.beat()
    nodes.targets.seconds = 0.02
    started = [run for node in (first, second) for name in ("keyed", "call") for run in await node.start(name, 20)]
    assert set(await first.ended(started)) == {"succeeded"}
    assert nodes.targets.most == 10
    assert nodes.targets.most_of["keyed"] == 2
    assert {sent.attempt for sent in nodes.targets.sent} == {1}


async def test_node_that_comes_late_gets_its_part_although_another_has_all_slots(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("call", queue=TEN)
    await second.beat()
    nodes.targets.seconds = 0.05
    await first.start("call", 400)
    await until(lambda: nodes.targets.of(first) == 10, "the first node has all slots")
    begun = now()
    await second.start("call", 400)
    await until(lambda: nodes.targets.of(second) == 5, "the second node has half of them")
    assert now() - begun < 10  # two seconds on an idle machine
    assert nodes.targets.of(first) <= 5
    assert nodes.targets.most == 10


async def test_slots_that_one_node_does_not_use_are_the_other_s(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("call", "held", queue=TEN)
    await second.beat()
    used = await first.start("call", 20)
    assert set(await first.ended(used)) == {"succeeded"}
    await second.start("held", 20)
    await until(lambda: nodes.targets.of(second) == 10, "the second node has all slots")


async def test_slots_that_are_given_back_are_not_used_while_the_store_is_told(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await nodes.joined(2)
    await first.define("call", "held", queue=TEN)
    await second.beat()
    assert set(await first.ended(await first.start("call", 20))) == {"succeeded"}
    execute, is_given_back, is_told = first.store.execute, asyncio.Event(), asyncio.Event()

    async def slow(function: Callable[[Any], Any]) -> Any:
        done = await execute(function)
        if isinstance(function, partial) and any(ask.keep == 0 for ask in function.keywords.get("asks", ())):
            is_given_back.set()
            await is_told.wait()
        return done

    monkeypatch.setattr(first.store, "execute", slow)
    await asyncio.wait_for(is_given_back.wait(), WITHIN)
    await first.start("held", 20)
    await second.start("held", 20)
    await until(lambda: nodes.targets.of(second) == 10, "the second node has all slots")
    assert nodes.targets.most == 10
    is_told.set()


async def test_clock_that_is_set_back_keeps_no_node_from_slots(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await nodes.joined(2)
    await first.define("call", queue=ONE)
    await second.beat()
    assert set(await first.ended(await first.start("call", 2))) == {"succeeded"}
    (shares,) = (each for each in first.engine._shared if isinstance(each, Shares))
    await until(lambda: all(part.is_idle for part in shares._parts.values()), "nothing is in use")
    own = first.engine._clock.now
    monkeypatch.setattr(first.engine._clock, "now", lambda: own() - 100.0)
    assert set(await first.ended(await first.start("call", 2))) == {"succeeded"}


async def test_slots_of_a_node_that_was_fenced_are_free(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("held", queue=TEN)
    await second.beat()
    await first.start("held", 10)
    await in_flight(nodes.targets, 10)
    await second.start("held")
    await nodes.silence(first)
    await second.beat()
    await until(lambda: nodes.targets.of(second) == 10, "it has all slots")


async def test_raised_and_lowered_limit_counts_at_all_nodes(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("held", queue=ONE)
    await second.beat()
    for node in (first, second):
        await node.start("held", 4)
    await in_flight(nodes.targets, 1)
    queue = first.engine.controls.queue("one")
    await first.define("more", queue=limited("one", 8))
    await second.beat()
    await in_flight(nodes.targets, 8)
    assert queue.max_concurrent_dispatches == 8


async def test_rate_is_that_of_one_queue_however_many_nodes_send(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await first.define("call", queue=SLOW)
    await second.beat()
    begun = now()
    started = [run for node in (first, second) for run in await node.start("call", 50)]
    assert set(await first.ended(started)) == {"succeeded"}
    times = sorted(sent.at for sent in nodes.targets.sent if sent.step == "call")
    assert times[-1] - begun > (100 - 5) / 50 * 0.99
    assert len(times) == 100


async def test_lone_node_asks_the_store_for_nothing(nodes: Nodes) -> None:
    (only,) = await nodes.joined(1)
    await only.define("call")
    await only.start("call", 20)
    await asyncio.sleep(0)
    shares = next(shared for shared in only.engine._shared if isinstance(shared, Shares))
    assert not shares._parts, "a queue without stored limits is nobody else's business"
