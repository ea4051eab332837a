"""Ticks fired by engines whose clocks are wrong, and which are killed with SIGKILL at any moment and replaced.

``python -m tests.scheduler.schedule_kills`` takes five engines, each a process, on one Postgres, and 10,000 ticks: 200
hourly schedules are moved two days back, so that 50 ticks of each are to be made up for. It says how many ticks were
missed or have not exactly one run, and fails unless there are none. The tests take fewer.
"""

import argparse
import asyncio
import os
import random
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from hopline_engine.core.schedules import tick_key
from tests.scheduler.firing_node import fire
from tests.scheduler.several_nodes import Nodes
from tests.support.copies import Copy
from tests.support.postgres import database, run_sql
from tests.support.waiting import until_seen

HOUR = 3600
SKEWS = (0.0, 20.0, -20.0, 3600.0, -3600.0)
LONGEST_PAUSE_SECONDS = 0.5
"""Between the moment at which so many ticks are started, and the kill."""
SPEC: dict[str, Any] = {"kind": "every", "seconds": HOUR, "aligned": False, "overlap": "allow", "catchup": "all"}


class Size(NamedTuple):
    """How much a trial tries."""

    schedules: int
    ticks: int
    """Of each schedule."""
    nodes: int
    kills: int
    within: float = 170.0
    """Seconds in which so many ticks are to be started that the next engine is killed."""


WHOLE = Size(schedules=200, ticks=50, nodes=5, kills=25)


class Outcome(NamedTuple):
    """What became of all ticks."""

    ticks: int
    kills: int
    missed: int
    doubled: int
    """Runs that are not the one of a tick."""
    seconds: float


class Cluster:
    """Engines, each a process with a wrong clock."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self._url = url
        self._chance = chance
        self._alive: list[Copy] = []

    def join(self, count: int = 1) -> None:
        """Start engines; each takes part as soon as it can."""
        for _ in range(count):
            skew = self._chance.choice(SKEWS)
            node = Copy(fire, self._url, skew, folder=Path.cwd(), environment=os.environ, out=1, err=2)
            self._alive.append(node)

    def kill(self) -> None:
        """End any of them in the middle of whatever it does."""
        victim = self._alive.pop(self._chance.randrange(len(self._alive)))
        victim.kill()
        victim.wait()

    def replace_lost(self) -> None:
        """Start another engine for each that the others took for dead on a busy machine, and that ended."""
        lost = [each for each in self._alive if each.poll() is not None]
        self._alive = [each for each in self._alive if each not in lost]
        self.join(len(lost))

    def end(self) -> None:
        """End all."""
        for each in self._alive:
            each.kill()
            each.wait()


async def trial(size: Size, seed: int) -> Outcome:
    """Have all ticks fired while engines die."""
    chance = random.Random(seed)
    async with database() as url, AsyncExitStack() as stack:
        made = await _made(url, size)
        begun = time.monotonic()
        cluster = Cluster(url, chance)
        stack.callback(cluster.end)
        cluster.join(size.nodes)
        looking = await asyncpg.connect(url)
        stack.push_async_callback(looking.close)
        total = size.schedules * size.ticks
        for number in range(1, size.kills + 1):
            await _started(looking, cluster, number * total // (size.kills + 1), size.within)
            await asyncio.sleep(chance.uniform(0, LONGEST_PAUSE_SECONDS))
            cluster.kill()
            cluster.join()
        await _started(looking, cluster, total, size.within)
        missed, doubled = await _judged(looking, made, size.ticks)
        return Outcome(total, size.kills, missed, doubled, time.monotonic() - begun)


async def _made(url: str, size: Size) -> dict[str, float]:
    """Make schedules that have been due for long; return when each was made."""
    async with AsyncExitStack() as stack:
        maker = await Nodes(url, stack).join()
        await maker.beat()
        await maker.define("call")
        for number in range(size.schedules):
            await maker.engine.schedules.create(f"s{number}", "call", SPEC, {})
        stored = await maker.engine.schedules.page(size.schedules, "")
    columns = ", ".join(f"{each} = {each} - {size.ticks * HOUR}" for each in ("anchor_at", "next_tick", "due_at"))
    await run_sql(url, f"UPDATE schedule SET {columns}")
    return {each.name: each.created_at for each in stored}


async def _started(looking: asyncpg.Connection, cluster: Cluster, count: int, within: float) -> None:
    async def is_so() -> bool:
        cluster.replace_lost()
        found = await looking.fetchval("SELECT count(*) FROM tick WHERE run_id IS NOT NULL")
        return int(found or 0) >= count

    await until_seen(is_so, f"{count} ticks are started", within)


async def _judged(looking: asyncpg.Connection, made: dict[str, float], ticks: int) -> tuple[int, int]:
    """Return how many ticks have no run, and how many runs are not that of a tick, or not its only one."""
    expected = {(name, round(at - number * HOUR)) for name, at in made.items() for number in range(ticks)}
    rows = await looking.fetch("SELECT schedule, at, run_id FROM tick")
    found = {(row["schedule"], round(row["at"])) for row in rows if row["run_id"] is not None}
    runs = {row["id"]: row["idempotency_key"] for row in await looking.fetch("SELECT id, idempotency_key FROM run")}
    own = {row["run_id"] for row in rows if runs.get(row["run_id"]) == tick_key(row["schedule"], row["at"])}
    return len(expected - found), len(found - expected) + len(runs) - len(own)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fire ticks on engines that are killed again and again.")
    parser.add_argument("--seed", type=int, default=1)
    for name in ("schedules", "ticks", "nodes", "kills"):
        parser.add_argument(f"--{name}", type=int, default=getattr(WHOLE, name))
    parser.add_argument("--within", type=float, default=WHOLE.within, help="seconds from one kill to the next at most")
    asked = parser.parse_args()
    size = Size(asked.schedules, asked.ticks, asked.nodes, asked.kills, asked.within)
    outcome = asyncio.run(trial(size, asked.seed))
    print(
        f"seed {asked.seed}: {outcome.ticks} ticks, {outcome.kills} engines killed: {outcome.missed} missed, "
        f"{outcome.doubled} doubled, {outcome.seconds:.0f} s"
    )
    return 1 if outcome.missed or outcome.doubled else 0


if __name__ == "__main__":
    sys.exit(main())
