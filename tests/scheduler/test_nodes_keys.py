"""Keys at several nodes: no more of one are worked on than its limit, and none is lost with a node."""

import pytest
from sqlalchemy import select

from hopline_engine.core.model import TaskId
from hopline_engine.core.order import Wish
from hopline_engine.core.shards import SHARDS, shard_of
from hopline_engine.store import key_claims
from hopline_engine.store.interface import Transaction
from hopline_engine.store.tables import key_claim
from tests.core.worlds import definition, http_step
from tests.scheduler.several_nodes import Node, Nodes, in_flight
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio


async def define(node: Node, name: str, limit: int = 1) -> None:
    """Register a workflow of one step, all of whose tasks have one key."""
    made = http_step(name, "http://x")
    keyed = {**made, "policy": {**made["policy"], "key": "one", "key_limit": limit}}
    await node.engine.controls.register([{**definition(name, [keyed]), "queues": []}], [name])


async def claims(node: Node) -> list[int]:
    """Return the tasks that have or want keys."""

    def read(connection: Transaction) -> list[int]:
        return list(connection.execute(select(key_claim.c.task_id)).scalars())

    return await node.store.read(read)


@pytest.mark.parametrize("limit", [1, 3])
async def test_no_more_of_a_key_than_its_limit_are_in_flight_at_all_nodes_together(nodes: Nodes, limit: int) -> None:
    first, second = await nodes.joined(2)
    await define(first, "call", limit)
    await second.beat()
    nodes.targets.seconds = 0.01
    started = [run for node in (first, second) for run in await node.start("call", 15)]
    assert set(await first.ended(started)) == {"succeeded"}
    assert nodes.targets.most == limit
    assert {sent.attempt for sent in nodes.targets.sent} == {1}
    assert {sent.node for sent in nodes.targets.sent} == {first.id, second.id}
    assert await claims(first) == []


async def test_key_of_a_node_that_died_is_free_when_its_runs_are_taken_up(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await define(first, "held")
    await second.beat()
    (lost,) = await first.start("held")
    await in_flight(nodes.targets, 1)
    (other,) = await second.start("held")
    await nodes.silence(first)
    await second.beat()
    await until(lambda: nodes.targets.of(second) == 1, "one of them has the key")
    assert nodes.targets.of(second) == 1
    nodes.targets.open.set()
    assert await second.ended([lost, other]) == ["succeeded", "succeeded"]

    async def none_is_left() -> bool | None:
        return True if await claims(second) == [] else None

    await until_seen(none_is_left, "no claim is left")


async def test_task_that_reached_nobody_goes_again_before_the_others_of_its_key(nodes: Nodes) -> None:
    (node,) = await nodes.joined(1)
    await define(node, "held")
    started = await node.start("held")
    await in_flight(nodes.targets, 1)
    for _ in range(3):
        started += await node.start("held")
    nodes.targets.refusals = 1
    nodes.targets.open.set()
    assert set(await node.ended(started)) == {"succeeded"}
    numbers = [run.id for run in started]
    assert [sent.run for sent in nodes.targets.sent] == [numbers[0], *numbers]
    assert await claims(node) == []


async def test_who_waits_is_told_which_run_at_another_node_holds_the_key(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    await define(first, "held")
    await second.beat()
    (holder,) = await first.start("held")
    await in_flight(nodes.targets, 1)
    (waiting,) = await second.start("held")
    task = second.engine.coordinator.find(waiting.id, "held", -1)
    assert task is not None
    keys = second.engine.admission.keys
    await until(lambda: bool(keys.holders(task)), "the store has told who holds it")
    assert keys.holders(task) == [f"run {holder.public_id} step held"]


async def test_claims_are_granted_in_the_order_in_which_tasks_became_due_and_only_for_shards_that_are_held(
    nodes: Nodes,
) -> None:
    first, second = await nodes.joined(2)
    mine, others = (min(node.held) for node in (first, second))

    def wish(task: int, since: float) -> Wish:
        return Wish(TaskId(task), "default", "one", 1, since, f"task {task}")

    async def settled(node: Node, *wishes: Wish, given_up: tuple[int, ...] = ()) -> set[int]:
        found = await node.store.execute(
            lambda connection: key_claims.settle(
                connection, owner=node.store.owner, wishes=wishes, given_up=[TaskId(task) for task in given_up]
            )
        )
        return set(found.granted)

    late, early, foreign = mine + 10 * SHARDS, others + 5 * SHARDS, others + 20 * SHARDS
    assert shard_of(early) in second.held
    assert await settled(first, wish(foreign, 1.0)) == set(), "its shard is another's"
    assert await settled(second, wish(early, 5.0)) == {early}
    assert await settled(first, wish(late, 3.0)) == set()
    assert await settled(second, wish(foreign, 2.0), given_up=(early,)) == {foreign}
    assert await settled(first, given_up=(foreign,)) == set()
    assert await settled(first, wish(late, 3.0)) == set(), "a claim of another's shard stays"
    assert await settled(second, given_up=(foreign,)) == set()
    assert await settled(first, wish(late, 3.0)) == {late}


async def test_node_is_told_of_what_it_holds_also_when_it_asks_for_another_task_of_the_key(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    mine, others = (min(node.held) for node in (first, second))

    async def settled(node: Node, task: int, since: float) -> set[int]:
        wish = Wish(TaskId(task), "default", "one", 1, since, f"task {task}")
        found = await node.store.execute(
            lambda connection: key_claims.settle(connection, owner=node.store.owner, wishes=[wish])
        )
        return set(found.granted)

    assert await settled(second, others, 1.0) == {others}
    assert await settled(first, mine, 2.0) == set()
    await second.store.execute(
        lambda connection: key_claims.let_go(connection, owner=second.store.owner, tasks=[TaskId(others)])
    )
    assert await settled(second, others + SHARDS, 3.0) == set(), "it is the turn of the other node's task"
    assert await settled(first, mine + SHARDS, 4.0) == {mine}


async def test_claims_are_let_go_of_by_the_node_that_works_on_their_tasks_only(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    mine = min(first.held)

    async def let_go(node: Node, *, tasks: tuple[int, ...] = (), waiting: tuple[int, ...] = ()) -> list[int]:
        await node.store.execute(
            lambda connection: key_claims.let_go(
                connection,
                owner=node.store.owner,
                tasks=[TaskId(task) for task in tasks],
                waiting=[TaskId(task) for task in waiting],
            )
        )
        return sorted(await claims(node))

    held, waits = mine, mine + SHARDS
    wishes = [Wish(TaskId(task), "default", "one", 1, float(task), f"task {task}") for task in (held, waits)]
    await first.store.execute(lambda connection: key_claims.settle(connection, owner=first.store.owner, wishes=wishes))
    assert await let_go(second, tasks=(held, waits)) == [held, waits]
    assert await let_go(first, waiting=(held, waits)) == [held]
    assert await let_go(first, tasks=(held,)) == []
