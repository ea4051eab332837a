"""Starts with one idempotency key: one run, however many ask at the same time and wherever."""

import asyncio

import pytest
from sqlalchemy import func, select

from hopline_engine.store.interface import Transaction
from hopline_engine.store.tables import run
from tests.scheduler.several_nodes import Nodes

pytestmark = pytest.mark.anyio


def count_runs(connection: Transaction) -> int:
    return connection.execute(select(func.count()).select_from(run)).scalar_one()


@pytest.mark.parametrize("count", [1, 2])
async def test_thousand_starts_at_once_with_one_key_make_one_run_and_all_are_told_of_it(
    nodes: Nodes, count: int
) -> None:
    joined = await nodes.joined(count)
    await joined[0].define("call")
    for node in joined:
        await node.beat()
    starts = (joined[number % count].engine.start_run("call", {}, "order-7") for number in range(1000))
    started = await asyncio.gather(*starts)
    assert len({each.run.public_id for each in started}) == 1
    assert sum(each.created for each in started) == 1
    assert await joined[0].store.read(count_runs) == 1
    assert await joined[0].ended([started[0].run]) == ["succeeded"]
    assert len(nodes.targets.sent) == 1
