"""What is checked of keys and turns: no more have one than may, and nobody waits for one that is free."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import UNDER_WAY
from hopline_engine.core.order import Place

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

Waits = dict[tuple[str, int], str]
"""What waits for nothing, by what a later look must find again."""


def check_keys(world: "World", live: Iterable[LiveRun]) -> None:
    """Check that no more tasks of a key are worked on than it allows."""
    under_way: Counter[tuple[str, str, int]] = Counter()
    for unit in (unit for run in live for unit in run.units()):
        if isinstance(unit, LiveTask) and unit.key is not None and unit.state in UNDER_WAY:
            assert unit.node.order is not None
            under_way[unit.node.queue, unit.key, unit.node.order.key_limit] += 1
    if over := {key: count for key, count in under_way.items() if count > key[2]}:
        world.violated(f"more tasks of a key are worked on than it allows: {over}")


def check_holders(world: "World", node: "Node") -> None:
    """Check that no task holds a key while it waits for its time."""
    assert node.engine is not None
    admission, now = node.engine.admission, node.clock.now()
    for key in admission.keys._keys.values():
        for task in key.holders.values():
            assert isinstance(task, LiveTask)
            is_idle = task.state not in UNDER_WAY and not admission.is_waiting(task)
            if is_idle and task.schedule_time > now:
                world.violated(f"{node.name}: task {task.id} holds the key {task.key}, and waits for its time")


def check_stored_keys(world: "World") -> None:
    """Check the same of the rows at each commit, where nothing is worked on that its node has forgotten."""
    if world.is_shared or world.faults_drawn.commit_unknown or not world.kinds.keys:
        return
    under_way: Counter[tuple[str, str, int]] = Counter()
    for task in world.ledger.rows.tasks.values():
        run = world.ledger.rows.runs[task.run_id]
        node = world.ledger.node(task.run_id, task.node)
        key = world.kinds.keys.get((run.workflow, node.id))
        if key is not None and node.order is not None and task.state in UNDER_WAY:
            under_way[node.queue, key, node.order.key_limit] += 1
    if over := {key: count for key, count in under_way.items() if count > key[2]}:
        world.violated(f"more tasks of a key are stored as worked on than it allows: {over}")


def without_turn(world: "World") -> Waits:
    """Return the runs that wait for their turn although there is one, if nothing is on its way."""
    found: Waits = {}
    ledger = world.ledger
    names = ",".join(node.name for node in world.nodes.values())
    for workflow, limit in ledger.turns.items():
        if len(ledger.under_way(workflow)) >= limit:
            continue
        for task in ledger.rows.tasks.values():
            run = ledger.rows.runs[task.run_id]
            if run.workflow == workflow and ledger.node(run.id, task.node).kind == "turn":
                found[names, task.id] = f"run {run.public_id} waits for its turn"
    return found


def without_key(world: "World", node: "Node") -> Waits:
    """Return the tasks of a node that wait for keys that nobody has."""
    assert node.engine is not None
    keys = node.engine.admission.keys
    held = _held_by_all(world) if world.is_shared else {place: len(key.holders) for place, key in keys._keys.items()}
    found: Waits = {}
    for task in keys._waiting.values():
        assert task.key is not None
        assert task.node.order is not None
        if held.get(Place(task.node.queue, task.key), 0) < task.node.order.key_limit:
            found[node.name, task.id] = f"task {task.id} waits for the key {task.key}"
    return found


def _held_by_all(world: "World") -> dict[Place, int]:
    query = "SELECT queue, key, count(*) FROM key_claim WHERE is_held GROUP BY queue, key"
    return {Place(queue, key): count for queue, key, count in world.audit.execute(query).fetchall()}
