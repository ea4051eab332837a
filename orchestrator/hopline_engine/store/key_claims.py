"""Keys of which few tasks are worked on at a time, by whatever node: granted in the order in which tasks became due.

A claim that is held is a row like a lease: it goes in the commit in which the attempt of its task ends, or in which
another node takes the task up. Keys are granted under a lock of their own, so what is held is never more than the
holders allow. A node that has lost the shard of a task changes no claim of it any more. Locks: the shards of the tasks,
those of the keys by name, claims last and only such as nobody else has locked.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from zlib import crc32

from sqlalchemy import Connection, Row, delete, select, tuple_, update

from hopline_engine.core.model import TaskId
from hopline_engine.core.order import Place, Wish
from hopline_engine.core.shards import shard_of
from hopline_engine.store.dialect import insert_missing
from hopline_engine.store.interface import Owner
from hopline_engine.store.tables import key_claim, meta, shard

LOCKS: Final = 64
"""As many keys can be granted at the same time, at most."""


class Settled(NamedTuple):
    """What became of wishes."""

    granted: set[TaskId]
    """All tasks of the node that hold the keys that were asked for, also those that it did not ask for just now."""
    held: Mapping[Place, Sequence[str]]
    """What people call those that hold the keys that were asked for."""


def settle(
    connection: Connection, *, owner: Owner, wishes: Sequence[Wish], given_up: Collection[TaskId] = ()
) -> Settled:
    """Grant what a node wishes as far as those that came first allow it; let go of what it has *given_up*."""
    held = _held_shards(connection, owner, [*given_up, *(wish.task for wish in wishes)])
    gone = [task for task in given_up if shard_of(task) in held]
    if gone:
        connection.execute(delete(key_claim).where(key_claim.c.task_id.in_(gone)))
    ours = [wish for wish in wishes if shard_of(wish.task) in held]
    if not ours:
        return Settled(set(), {})
    places = sorted({Place(wish.queue, wish.key) for wish in ours})
    _lock(connection, places)
    insert_missing(connection, key_claim, [_claim(wish) for wish in ours])
    claims = _claims(connection, places)
    granted = _grant(connection, [task for rows in claims.values() for task in _next(rows)])
    holding = {place: [row for row in rows if row.is_held or row.task_id in granted] for place, rows in claims.items()}
    holders = {TaskId(row.task_id) for rows in holding.values() for row in rows}
    return Settled(
        _ours(connection, owner, holders),
        {place: [row.words for row in rows] for place, rows in holding.items()},
    )


def let_go(
    connection: Connection, *, owner: Owner, tasks: Collection[TaskId], waiting: Collection[TaskId] = ()
) -> None:
    """Remove the claims of *tasks* that a node works on, and those of *waiting* that are not held."""
    held = _held_shards(connection, owner, [*tasks, *waiting])
    gone = [task for task in tasks if shard_of(task) in held]
    passed = [task for task in waiting if shard_of(task) in held]
    of_passed = key_claim.c.task_id.in_(passed) & ~key_claim.c.is_held
    connection.execute(delete(key_claim).where(key_claim.c.task_id.in_(gone) | of_passed))


def _ours(connection: Connection, owner: Owner, tasks: Collection[TaskId]) -> set[TaskId]:
    """Return those of tasks that a node works on; what it does to them is fenced, so this is not kept from changing."""
    shards = select(shard.c.id).where(shard.c.node == owner.node, shard.c.id.in_({shard_of(task) for task in tasks}))
    held = set(connection.execute(shards).scalars())
    return {task for task in tasks if shard_of(task) in held}


def _held_shards(connection: Connection, owner: Owner, tasks: Iterable[TaskId]) -> set[int]:
    """Return those of the tasks' shards that a node holds, and keep them from changing hands meanwhile."""
    wanted = sorted({shard_of(task) for task in tasks})
    mine = select(shard.c.id).where(shard.c.node == owner.node, shard.c.id.in_(wanted)).order_by(shard.c.id)
    return set(connection.execute(mine.with_for_update(read=True)).scalars())


def _lock(connection: Connection, places: Iterable[Place]) -> None:
    names = sorted({f"key_lock_{crc32(f'{place.queue} {place.key}'.encode()) % LOCKS:02}" for place in places})
    insert_missing(connection, meta, [{"key": name, "value": ""} for name in names])
    connection.execute(select(meta.c.key).where(meta.c.key.in_(names)).order_by(meta.c.key).with_for_update()).all()


def _claim(wish: Wish) -> dict[str, Any]:
    return {
        "task_id": wish.task,
        "queue": wish.queue,
        "key": wish.key,
        "key_limit": wish.key_limit,
        "since": wish.since,
        "is_held": False,
        "words": wish.words,
    }


def _claims(connection: Connection, places: Sequence[Place]) -> dict[Place, list[Row[Any]]]:
    """Return the claims of keys, those that are held first, the others in the order in which they are granted."""
    found: dict[Place, list[Row[Any]]] = defaultdict(list)
    query = select(key_claim).where(tuple_(key_claim.c.queue, key_claim.c.key).in_(places))
    for row in connection.execute(query.order_by(key_claim.c.is_held.desc(), key_claim.c.since, key_claim.c.task_id)):
        found[Place(row.queue, row.key)].append(row)
    return found


def _next(rows: Sequence[Row[Any]]) -> list[TaskId]:
    """Return the tasks that are to hold a key besides those that do."""
    held = sum(row.is_held for row in rows)
    granted: list[TaskId] = []
    for row in rows[held:]:
        if held + len(granted) >= row.key_limit:
            break
        granted.append(TaskId(row.task_id))
    return granted


def _grant(connection: Connection, tasks: Sequence[TaskId]) -> set[TaskId]:
    """Grant claims but for those that another commit is just removing; return the others."""
    if not tasks:
        return set()
    free = select(key_claim.c.task_id).where(key_claim.c.task_id.in_(tasks)).with_for_update(skip_locked=True)
    granted = {TaskId(task) for task in connection.execute(free).scalars()}
    connection.execute(update(key_claim).where(key_claim.c.task_id.in_(granted)).values(is_held=True))
    return granted
