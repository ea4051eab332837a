"""Engines that delete what is old, of their own shards, while schedules fire; and what they leave alone."""

from functools import partial

import pytest

from hopline_engine.clock import SystemClock
from hopline_engine.core.model import RunState
from hopline_engine.core.ticks import TickState
from hopline_engine.scheduler.pruning import Pruner
from hopline_engine.store import runs, schedules
from tests.scheduler.several_nodes import LONG, Node, Nodes

pytestmark = pytest.mark.anyio

DAY = 86_400
HOURLY = {"kind": "every", "seconds": 3600, "aligned": False, "overlap": "allow", "catchup": "all"}


class _Ahead(SystemClock):
    """A clock that is ahead by some seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self) -> float:
        return super().now() + self._seconds


def pruner(node: Node, *, days_later: float = 0.0) -> Pruner:
    """Return what deletes runs that ended a day ago, so many days later."""
    clock = _Ahead(days_later * DAY)
    return Pruner(store=node.store, clock=clock, held=lambda: node.held, retention_seconds=DAY)


async def test_each_node_deletes_old_runs_of_its_own_shards(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    for node in (first, second):
        await node.define("call")
    started = await first.start("call", 6) + await second.start("call", 3)
    assert set(await first.ended(started)) == {RunState.SUCCEEDED}
    assert (await pruner(first).prune()).runs == 0
    assert (await pruner(first, days_later=2).prune()).runs == 6
    assert (await pruner(second, days_later=2).prune()).runs == 3
    for run in started:
        assert await first.store.read(partial(runs.get, run_id=run.id)) is None


async def test_tick_whose_run_was_deleted_does_not_fire_again(nodes: Nodes) -> None:
    (node,) = await nodes.joined(1)
    await node.define("call")
    await node.engine.schedules.create("s", "call", HOURLY, {})
    columns = ", ".join(f"{each} = {each} - {5 * 3600}" for each in ("anchor_at", "next_tick", "due_at"))
    await nodes.write(f"UPDATE schedule SET {columns}")
    await node.engine.scheduling.look()
    ticks = await node.store.read(partial(schedules.last_ticks, name="s", limit=100))
    assert len(ticks) == 5
    records = [
        await node.store.read(partial(runs.get, run_id=tick.run_id)) for tick in ticks if tick.run_id is not None
    ]
    await node.ended([record for record in records if record is not None])
    pruned = await pruner(node, days_later=2).prune()
    assert (pruned.runs, pruned.ticks) == (5, 5)
    await node.engine.scheduling.look()
    assert await node.store.read(partial(schedules.last_ticks, name="s", limit=100)) == []
    assert (await node.engine.schedules.get("s")).next_tick == max(tick.at for tick in ticks) + 3600


async def test_ticks_that_were_passed_over_are_deleted_too(nodes: Nodes) -> None:
    (node,) = await nodes.joined(1)
    await node.define("call")
    await node.engine.schedules.create("s", "call", {**HOURLY, "catchup": "none"}, {})
    columns = ", ".join(f"{each} = {each} - {5.5 * 3600}" for each in ("anchor_at", "next_tick", "due_at"))
    await nodes.write(f"UPDATE schedule SET {columns}")
    await node.engine.scheduling.look()
    ticks = await node.store.read(partial(schedules.last_ticks, name="s", limit=100))
    assert {tick.state for tick in ticks} == {TickState.MISSED}
    assert (await pruner(node).prune()).ticks == 0
    assert (await pruner(node, days_later=2).prune()).ticks == len(ticks)


async def test_run_that_goes_on_is_not_deleted(nodes: Nodes) -> None:
    (node,) = await nodes.joined(1)
    await node.define("held")
    (run,) = await node.start("held")
    assert (await pruner(node, days_later=LONG).prune()).runs == 0
    nodes.targets.open.set()
    assert await node.ended([run]) == [RunState.SUCCEEDED]


async def test_engine_that_keeps_runs_for_ever_never_looks(nodes: Nodes) -> None:
    (node,) = await nodes.joined(1)
    keeper = Pruner(store=node.store, clock=SystemClock(), held=lambda: node.held, retention_seconds=float("inf"))
    await keeper.run()
