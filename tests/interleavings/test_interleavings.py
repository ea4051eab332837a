"""The engine's transactions on Postgres, two at a time, statement by statement; ``explore.py`` does it in full."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import asyncpg
import pytest

from hopline_engine.store.metadata import METADATA
from hopline_engine.store.postgres.store import open_store
from hopline_engine.store.schema import HEAD
from tests.interleavings.explore import explore, explorer, report
from tests.interleavings.kinds import GROUPS
from tests.interleavings.orders import Extent, Order, Side
from tests.interleavings.pairs import ALL_KINDS, FENCING, TABLES_IN_COMMON, Pair, planted_pairs, sample
from tests.interleavings.turns import Referee
from tests.interleavings.world import ALIVE, SILENT, GatedConnector
from tests.support.postgres import empty_database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SAMPLE = list(sample())
MOST = 10
"""Orders of a pair: of two thirds of the pairs there are not more that may end differently."""


@pytest.mark.parametrize("other", [ALIVE[1], SILENT])
def test_any_two_transactions_end_as_if_one_came_after_the_other(other: str) -> None:
    found = asyncio.run(explore([pair for pair in SAMPLE if pair.members[1] == other], Extent(most=MOST)))
    assert [anomaly for each in found for anomaly in each.anomalies] == []
    assert sum(each.tally.orders for each in found) > 1000, report(found)


def test_every_kind_of_transaction_is_in_the_sample() -> None:
    assert {kind.name for kind in ALL_KINDS} == FENCING.union(*TABLES_IN_COMMON)


@pytest.mark.parametrize("pair", list(planted_pairs()), ids=str)
def test_transaction_that_is_not_guarded_is_found_out(pair: Pair) -> None:
    (found,) = asyncio.run(explore([pair], Extent(most=MOST)))
    assert found.anomalies


@pytest.mark.parametrize("group", list(GROUPS))
def test_group_that_is_sent_again_while_the_first_try_is_under_way_is_written_once(group: str) -> None:
    async def send_twice() -> None:
        async with explorer() as exploring:
            found = await exploring.send_twice(group)
        assert found.anomalies == []
        assert found.tally.orders >= 2

    asyncio.run(send_twice())


def test_tables_are_made_once_by_nodes_that_find_an_empty_database_at_the_same_time() -> None:
    asyncio.run(_open_together())


async def _open_together() -> None:
    async with empty_database() as url:
        observer = await asyncpg.connect(url)
        referee = Referee(observer)
        orders = 0

        async def carry_out(beginning: Sequence[Side]) -> Order:
            nonlocal orders
            orders += 1
            await observer.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            epochs: list[int] = []

            async def join(side: Side) -> None:
                connector: Any = lambda parsed: GatedConnector(url, referee.gates[side])  # noqa: E731
                store = await open_store(url, node=f"n{side}", random=lambda: 0.5, connector=connector)
                epochs.append(store.owner.epoch)
                await store.close()

            order = await referee.carry_out([partial(join, 0), partial(join, 1)], beginning)
            assert sorted(epochs) == [1, 2]
            assert await observer.fetchval("SELECT version_num FROM alembic_version") == HEAD
            assert await observer.fetchval("SELECT count(*) FROM shard") == 64
            tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
            assert await observer.fetchval(tables) == len(METADATA.tables) + 1
            return order

        try:
            first = await carry_out([])
            switches = [number for number, choice in enumerate(first.choices) if len(choice.could) == 2]
            for number in switches[:: max(1, len(switches) // 40)]:
                await carry_out([*(choice.chosen for choice in first.choices[:number]), 1])
        finally:
            await observer.close()
        assert orders > 20
