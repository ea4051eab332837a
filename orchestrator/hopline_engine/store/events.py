"""Events that happened, and the parked tasks that wait for them."""

from collections.abc import Collection
from typing import Final, NamedTuple

from sqlalchemy import Connection, and_, delete, select, tuple_

from hopline_engine.core.model import EventAdded, RunId, TaskId
from hopline_engine.core.shards import SHARDS
from hopline_engine.store.tables import event, task, wait

_COLUMNS: Final = [event.c[name] for name in EventAdded._fields]


class Match(NamedTuple):
    """A parked task whose event is there."""

    task_id: TaskId
    run_id: RunId
    node: int
    item: int
    emitted_at: float
    payload: bytes


def get(connection: Connection, name: str, key: str) -> EventAdded | None:
    """Return the event of a name and key, if there was one."""
    row = connection.execute(select(*_COLUMNS).where(event.c.name == name, event.c.key == key)).one_or_none()
    return None if row is None else EventAdded._make(row)


def is_awaited(connection: Connection, name: str) -> bool:
    """Return whether a parked task waits for an event of this name."""
    return connection.execute(select(wait.c.task_id).where(wait.c.name == name).limit(1)).first() is not None


def waiting(connection: Connection, runs: Collection[RunId]) -> frozenset[TaskId]:
    """Return the tasks of some runs that wait for events."""
    return frozenset(connection.scalars(select(wait.c.task_id).where(wait.c.run_id.in_(runs))))


def newest(connection: Connection, *, name: str | None, limit: int) -> list[EventAdded]:
    """Return up to *limit* events, the newest first."""
    query = select(*_COLUMNS).order_by(event.c.emitted_at.desc(), event.c.name, event.c.key).limit(limit)
    return [
        EventAdded._make(row)
        for row in connection.execute(query if name is None else query.where(event.c.name == name))
    ]


def matches(
    connection: Connection,
    *,
    shards: Collection[int],
    limit: int,
    after: TaskId,
    since: float | None = None,
    tasks: Collection[TaskId] | None = None,
    of: tuple[str, str] | None = None,
) -> list[Match]:
    """Return up to *limit* parked tasks whose event is there, by number, from the one after *after*.

    Args:
        connection: to read from.
        shards: only of their runs.
        limit: the most that are returned.
        after: only tasks with a higher number.
        since: only those whose event was emitted at this time or later, in Unix seconds.
        tasks: only these tasks.
        of: only of the event with this name and key.
    """
    query = (
        select(task.c.id, task.c.run_id, task.c.node, task.c.item, event.c.emitted_at, event.c.payload)
        .select_from(event)
        .join(wait, and_(wait.c.name == event.c.name, wait.c.key == event.c.key))
        .join(task, task.c.id == wait.c.task_id)
        .where(task.c.id > after)
        .order_by(task.c.id)
        .limit(limit)
    )
    if len(shards) < SHARDS:
        query = query.where((wait.c.run_id % SHARDS).in_(shards))
    if since is not None:
        query = query.where(event.c.emitted_at >= since)
    if tasks is not None:
        query = query.where(wait.c.task_id.in_(tasks))
    if of is not None:
        query = query.where(event.c.name == of[0], event.c.key == of[1])
    return [Match._make(row) for row in connection.execute(query)]


def forget(connection: Connection, *, before: float, limit: int) -> int:
    """Delete up to *limit* events that were emitted before a time, and return how many there were."""
    old = select(event.c.name, event.c.key).where(event.c.emitted_at < before).order_by(event.c.emitted_at).limit(limit)
    found = [tuple(row) for row in connection.execute(old)]
    if found:
        connection.execute(delete(event).where(tuple_(event.c.name, event.c.key).in_(found)))
    return len(found)
