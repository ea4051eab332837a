"""An hourly schedule on one of several engines, which a test makes due; and how it is looked at."""

from functools import partial
from typing import Any

from hopline_engine.core.model import RunState
from hopline_engine.core.ticks import TickState
from hopline_engine.scheduler.schedule_book import ScheduleBook
from hopline_engine.store import schedules
from hopline_engine.store.schedules import StoredTick
from tests.scheduler.several_nodes import Node, Nodes
from tests.support.waiting import until_seen

HOUR = 3600


def book(node: Node) -> ScheduleBook:
    return node.engine.schedules


def hourly(**others: Any) -> dict[str, Any]:
    """Return an hourly schedule that counts from its making: whatever the time is, no tick comes during the test."""
    return {"kind": "every", "seconds": HOUR, "aligned": False, **others}


async def look(node: Node) -> None:
    await node.engine.scheduling.look()


async def ticks(node: Node, name: str) -> list[StoredTick]:
    """Return the ticks of a schedule, oldest first."""
    return (await node.store.read(partial(schedules.last_ticks, name=name, limit=1000)))[::-1]


async def states(node: Node, name: str = "s") -> list[TickState]:
    return [tick.state for tick in await ticks(node, name)]


async def make_due(nodes: Nodes, periods: float = 1) -> None:
    """Let so many ticks of the hourly schedules be due, the last of them just now."""
    columns = ("anchor_at", "next_tick", "due_at")
    await nodes.write(f"UPDATE schedule SET {', '.join(f'{each} = {each} - {periods * HOUR}' for each in columns)}")


async def with_hourly(nodes: Nodes, node: Node, workflow: str = "call", missed: float = 1, **policies: Any) -> None:
    await book(node).create("s", workflow, hourly(**policies), {})
    await make_due(nodes, missed)


async def runs_of(node: Node) -> list[dict[str, Any]]:
    from sqlalchemy import select

    from hopline_engine.store.tables import run

    query = select(run.c.id, run.c.idempotency_key, run.c.state, run.c.input, run.c.created_at)
    return await node.store.read(lambda connection: [dict(row) for row in connection.execute(query).mappings()])


async def ended(node: Node, tick: StoredTick) -> None:
    from hopline_engine.store import runs

    async def has_ended() -> bool:
        assert tick.run_id is not None
        return await node.store.read(partial(runs.state, run_id=tick.run_id)) is not RunState.RUNNING

    await until_seen(has_ended, "the run ends")


async def spoil(nodes: Nodes, name: str) -> None:
    """Let a schedule be in a zone that this machine does not know."""
    spec = '{"kind":"cron","expression":"0 6 * * *","tz":"Mars/Olympus","gap":null,"fold":null,"jitter":0}'
    value = f"CAST('{spec}' AS BLOB)" if nodes.is_sqlite else f"convert_to('{spec}', 'UTF8')"
    await nodes.write(f"UPDATE schedule SET spec = {value} WHERE name = '{name}'")
