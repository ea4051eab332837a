"""What schedules cost: ``python tests/benchmarks/schedules.py [--postgres] [--schedules N] [--due N] [--spread S]``.

One engine whose targets answer at once. First nothing is due, and the CPU time of that is told. Then some schedules
become due, spread over a minute or as many seconds as are said, and it is told how late their runs were started.
"""

import argparse
import asyncio
import sys
import time
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import func, insert, select, update

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script finds only what lies beside it

from hopline_engine import clock
from hopline_engine.core.schedules import shard_of_schedule
from hopline_engine.store.interface import Transaction
from hopline_engine.store.tables import schedule, tick
from tests.scheduler.several_nodes import Node, several_nodes
from tests.support.waiting import until_seen

IDLE_SECONDS = 30.0
SPREAD_SECONDS = 60.0
_AT_A_TIME = 5000
_POLICIES = b'"overlap":"skip","catchup":"latest","jitter":0.0'
_CRON = b'{"kind":"cron","expression":"0 6 1 1 *","tz":"Europe/Berlin","gap":null,"fold":null,%s}' % _POLICIES


async def measure(kind: str, schedules: int, due: int, spread: float) -> None:
    with TemporaryDirectory() as folder:
        async with several_nodes(kind, Path(folder)) as nodes:
            node = await nodes.join()
            await node.beat()
            await node.define("call")
            await _fill(node, schedules)
            firing = asyncio.create_task(node.engine.scheduling.run())
            await asyncio.sleep(2.0)
            before = time.process_time()
            await asyncio.sleep(IDLE_SECONDS)
            used = (time.process_time() - before) / IDLE_SECONDS
            print(f"{kind}: {schedules:,} schedules, none due: {100 * used:.2f} % of a core")
            await _make_due(node, due, spread)
            await _all_started(node, due)
            await _tell(node, kind, due, spread)
            firing.cancel()
            await asyncio.gather(firing, return_exceptions=True)


async def _fill(node: Node, count: int) -> None:
    now = clock.now()
    numbers = iter(range(count))
    while part := list(islice(numbers, _AT_A_TIME)):
        rows = [_row(f"s{number:06}", now) for number in part]
        await node.store.execute(partial(_insert, rows=rows))


def _row(name: str, now: float) -> dict[str, object]:
    return {
        "name": name,
        "shard": shard_of_schedule(name),
        "workflow": "call",
        "is_edited": False,
        "is_paused": False,
        "revision": 1,
        "created_at": now,
        "anchor_at": now,
        "next_tick": now + 1_000_000,
        "due_at": now + 1_000_000,
        "spec": _CRON,
        "input": b"{}",
    }


def _insert(connection: Transaction, rows: list[dict[str, object]]) -> None:
    connection.execute(insert(schedule), rows)


async def _make_due(node: Node, count: int, spread: float) -> None:
    """Let schedules be due from the next second on, spread evenly, each with one tick."""
    now = clock.now()

    def change(connection: Transaction) -> None:
        names = connection.execute(select(schedule.c.name).order_by(schedule.c.name).limit(count)).scalars().all()
        for number, name in enumerate(names):
            at = now + 1 + number * spread / count
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)).encode()
            spec = b'{"kind":"at","times":["%s"],"tz":"UTC",%s}' % (moment, _POLICIES)
            changed = {"next_tick": float(int(at)), "due_at": at, "spec": spec}
            connection.execute(update(schedule).where(schedule.c.name == name).values(**changed))

    await node.store.execute(change)


async def _all_started(node: Node, count: int) -> None:
    query = select(func.count()).select_from(tick).where(tick.c.run_id.is_not(None))

    async def are_started() -> bool:
        return await node.store.read(lambda connection: connection.execute(query).scalar_one() >= count)

    await until_seen(are_started, "all are started", 10 * SPREAD_SECONDS)


async def _tell(node: Node, kind: str, due: int, spread: float) -> None:
    query = select(tick.c.started_at - tick.c.at)
    late = sorted(await node.store.read(lambda connection: connection.execute(query).scalars().all()))
    print(
        f"{kind}: {due:,} due within {spread:.0f} s: late by {late[len(late) // 2]:.2f} s at the median, "
        f"{late[-max(1, len(late) // 100)]:.2f} s at p99, {late[-1]:.2f} s at most; up to 1 s of it is the rounding"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--due", type=int, default=10_000)
    parser.add_argument("--spread", type=float, default=SPREAD_SECONDS)
    asked = parser.parse_args()
    asyncio.run(measure("postgres" if asked.postgres else "sqlite", asked.schedules, asked.due, asked.spread))


if __name__ == "__main__":
    main()
