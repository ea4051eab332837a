"""Ten thousand ticks on five engines whose clocks are wrong and which are killed: each has one run, none is lost."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from hopline_engine.core.schedules import tick_key
from hopline_engine.core.ticks import TickState
from hopline_engine.store import runs, schedules
from hopline_engine.store.schedules import StoredTick
from tests.scheduler.several_nodes import Node, Nodes, several_nodes
from tests.support.waiting import until_seen

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]

SCHEDULES = 200
TICKS = 50
"""Of each schedule; they are due at once, as after an outage of two days."""
NODES = 5
KILLS = 12
HOUR = 3600
SKEWS = (0.0, 20.0, -20.0, 3600.0, -3600.0)


class Cluster:
    """Engines that fire schedules until they are killed."""

    def __init__(self, nodes: Nodes, chance: random.Random) -> None:
        self.alive: dict[Node, asyncio.Task[None]] = {}
        self._nodes = nodes
        self._chance = chance

    async def join(self) -> Node:
        node = await self._nodes.join(self._chance.choice(SKEWS))
        self.alive[node] = asyncio.create_task(_fire(node))
        return node

    async def kill(self) -> None:
        """End one at any moment, without a word to the others, who take over; a new one comes."""
        victim = self._chance.choice(list(self.alive))
        self.alive.pop(victim).cancel()
        victim.engine.coordinator.sending.is_on = False
        await self._nodes.silence(victim)
        await self.join()
        await self.beat()

    async def beat(self) -> None:
        for _ in range(2):
            for node in self.alive:
                await node.beat()

    async def end(self) -> None:
        for task in self.alive.values():
            task.cancel()
        await asyncio.gather(*self.alive.values(), return_exceptions=True)


async def _fire(node: Node) -> None:
    while True:
        with suppress(Exception):
            await node.engine.scheduling.look()
        await asyncio.sleep(0.01)


async def all_ticks(node: Node, names: list[str]) -> list[StoredTick]:
    found = [node.store.read(partial(schedules.last_ticks, name=name, limit=10 * TICKS)) for name in names]
    return [tick for ticks in await asyncio.gather(*found) for tick in ticks]


async def test_each_tick_has_one_run_whoever_dies_and_whatever_clocks_say(tmp_path: Path) -> None:
    async with several_nodes("postgres", tmp_path) as nodes:
        chance = random.Random(1)
        maker = await nodes.join()
        await maker.beat()
        await maker.define("call")
        names = [f"s{number}" for number in range(SCHEDULES)]
        policies = {"overlap": "allow", "catchup": "all"}
        for name in names:
            spec = {"kind": "every", "seconds": HOUR, "aligned": False, **policies}
            await maker.engine.schedules.create(name, "call", spec, {})
        made = {name: (await maker.engine.schedules.get(name)).created_at for name in names}
        columns = ", ".join(f"{each} = {each} - {TICKS * HOUR}" for each in ("anchor_at", "next_tick", "due_at"))
        await nodes.write(f"UPDATE schedule SET {columns}")

        cluster = Cluster(nodes, chance)
        firing = asyncio.create_task(_fire(maker))  # it has its part of the shards, and is never killed
        for _ in range(NODES - 1):
            await cluster.join()
        await maker.beat()
        await cluster.beat()
        for number in range(1, KILLS + 1):
            await until_seen(_has_started(maker, number * SCHEDULES * TICKS // (KILLS + 2)), "ticks are started", 120)
            await cluster.kill()
        await until_seen(_has_started(maker, SCHEDULES * TICKS), "all ticks are started", 240)
        firing.cancel()
        await cluster.end()

        ticks = await all_ticks(maker, names)
        for name in names:
            found = sorted(tick.at for tick in ticks if tick.schedule == name)
            expected = [made[name] - number * HOUR for number in reversed(range(TICKS))]
            assert found == pytest.approx(expected, abs=0.01, rel=0), "none was missed, none is there twice"
        assert Counter(tick.state for tick in ticks).keys() <= {TickState.STARTED, TickState.DONE}
        assert len({tick.run_id for tick in ticks}) == len(ticks), "no two ticks share a run"
        count, keyed = await _counted(maker)
        assert (count, keyed) == (len(ticks), len(ticks)), "no tick has two runs"
        some = chance.sample(ticks, 50)
        for tick in some:
            key = tick_key(tick.schedule, tick.at)
            run = await maker.store.read(partial(runs.by_idempotency_key, key=key))
            assert run is not None
            assert run.id == tick.run_id


def _has_started(node: Node, count: int) -> Callable[[], Awaitable[bool]]:
    from sqlalchemy import func, select

    from hopline_engine.store.tables import tick

    query = select(func.count()).select_from(tick).where(tick.c.run_id.is_not(None))

    async def look() -> bool:
        await asyncio.sleep(0.05)
        return await node.store.read(lambda connection: connection.execute(query).scalar_one() >= count)

    return look


async def _counted(node: Node) -> tuple[int, int]:
    """Return how many runs there are, and how many keys these have."""
    from sqlalchemy import func, select

    from hopline_engine.store.tables import run

    query = select(func.count(), func.count(run.c.idempotency_key.distinct())).select_from(run)
    count, keyed = await node.store.read(lambda connection: connection.execute(query).one())
    return count, keyed
