"""Nodes and shards as stored, on each database."""

from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, delete, event, func, select, update

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import RunId
from hopline_engine.core.shards import SHARDS, shard_of
from hopline_engine.store import nodes, recovery
from hopline_engine.store.dialect import now
from hopline_engine.store.errors import OwnershipLostError
from hopline_engine.store.interface import Owner, Store
from hopline_engine.store.tables import node, shard
from tests.store.opened import commit
from tests.store.rows import run_added, run_ended

pytestmark = pytest.mark.anyio

SILENCE = 10.0


async def joined(store: Store, name: str) -> Owner:
    return await store.execute(partial(nodes.join, node_id=name, url=f"http://{name}", alone=False))


async def beat(store: Store, owner: Owner) -> nodes.Heard:
    return await store.execute(partial(nodes.beat, owner=owner, silence=SILENCE))


async def silence(store: Store, owner: Owner, seconds: float) -> None:
    earlier = update(node).where(node.c.id == owner.node).values(heartbeat_at=now() - seconds)
    await store.execute(lambda connection: connection.execute(earlier))


def shards_of(heard: nodes.Heard) -> dict[str, int]:
    return {each.id: len(each.shards) for each in heard.nodes}


async def test_node_that_opens_a_store_alone_holds_all_shards(store: Store) -> None:
    heard = await beat(store, store.owner)
    assert shards_of(heard) == {store.owner.node: SHARDS}
    assert store.owner.alone


async def test_node_that_joins_gets_an_epoch_of_its_own_and_no_shard(store: Store) -> None:
    second, third = await joined(store, "n_2"), await joined(store, "n_3")
    assert store.owner.epoch < second.epoch < third.epoch
    assert {second.store_id, third.store_id} == {store.owner.store_id}
    heard = await beat(store, second)
    assert shards_of(heard) == {store.owner.node: SHARDS, "n_2": 0, "n_3": 0}
    assert [each.url for each in heard.nodes] == ["http://n_2", "http://n_3", None]


async def test_shards_that_are_given_up_are_claimed_up_to_a_fair_share(store: Store) -> None:
    second = await joined(store, "n_2")
    await store.execute(partial(nodes.give_up, owner=store.owner, shards=range(40)))
    heard = await beat(store, second)
    assert shards_of(heard) == {store.owner.node: SHARDS - 40, "n_2": SHARDS // 2}


async def test_node_that_only_looks_at_the_store_has_no_part_in_the_shards(store: Store) -> None:
    await store.execute(partial(nodes.join, node_id="looker", url=None, alone=False))
    await store.execute(partial(nodes.give_up, owner=store.owner, shards=range(40)))
    heard = await beat(store, store.owner)
    assert shards_of(heard) == {store.owner.node: SHARDS, "looker": 0}
    assert [each.takes_part for each in heard.nodes if each.id == "looker"] == [False]


async def test_node_gives_up_only_what_is_its_own(store: Store) -> None:
    second = await joined(store, "n_2")
    await store.execute(partial(nodes.give_up, owner=second, shards=range(SHARDS)))
    assert shards_of(await beat(store, second)) == {store.owner.node: SHARDS, "n_2": 0}


async def test_node_is_fenced_by_none_that_was_silent_itself(store: Store) -> None:
    second = await joined(store, "n_2")
    await silence(store, store.owner, SILENCE + 1)
    await silence(store, second, SILENCE / 2 + 1)
    assert (await beat(store, second)).fenced == []
    assert (await beat(store, store.owner)).fenced == [], "and it is alive"
    assert (await beat(store, second)).fenced == []


async def test_node_without_a_row_cannot_beat(store: Store) -> None:
    second = await joined(store, "n_2")
    await store.execute(partial(nodes.leave, owner=second))
    with pytest.raises(OwnershipLostError):
        await beat(store, second)


async def test_fenced_node_commits_nothing_more_and_its_shards_are_free(store: Store) -> None:
    second = await joined(store, "n_2")
    await silence(store, store.owner, SILENCE + 1)
    heard = await beat(store, second)
    assert heard.fenced == [store.owner.node]
    assert shards_of(heard) == {"n_2": SHARDS}
    with pytest.raises(OwnershipLostError):
        await store.execute(lambda connection: connection.execute(select(1)).scalar())


async def test_row_of_a_node_that_is_deleted_by_hand_frees_its_shards(store: Store) -> None:
    second = await joined(store, "n_2")
    await store.execute(lambda connection: connection.execute(update(shard).values(node=second.node)))
    await store.execute(lambda connection: connection.execute(delete(node).where(node.c.id == second.node)))
    free = select(func.count()).select_from(shard).where(shard.c.node.is_(None))
    assert await store.read(lambda connection: connection.execute(free).scalar()) == SHARDS


async def test_live_runs_of_some_shards_are_found_by_the_index_of_live_runs(store: Store) -> None:
    count = 3000
    live = [RunId(number) for number in range(1, count, 100)]
    await commit(store, Changes(runs_added=[run_added(number) for number in range(1, count)]))
    ended = [run_ended(number) for number in range(1, count) if number not in live]
    await commit(store, Changes(runs_ended=ended))
    wanted = range(0, SHARDS, 2)
    await store.execute(lambda connection: connection.exec_driver_sql("ANALYZE"))

    found = await store.read(partial(recovery.live_runs, limit=1000, shards=wanted))
    assert [stored.run.id for stored in found] == [run for run in live if shard_of(run) in wanted]

    assert "run_live" in await store.read(partial(_plan, shards=wanted))


def _plan(connection: Connection, *, shards: range) -> str:
    """Return how the database finds live runs."""
    asked: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        asked.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    recovery.live_runs(connection, limit=1000, shards=shards)
    event.remove(connection, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    statement, parameters = next(each for each in asked if "FROM run" in each[0])
    return "\n".join(map(str, connection.exec_driver_sql(f"{explain} {statement}", parameters)))


async def test_clock_of_the_database_goes_on(store: Store) -> None:
    def look(connection: Connection) -> float:
        return connection.execute(select(now())).scalar_one()

    first, second = await store.read(look), await store.execute(look)
    assert isinstance(first, float)
    assert second >= first
