"""Queues of the queue service as stored: found, listed, made, changed and deleted.

A queue is two rows: limits, state and tokens are in ``queue``, where the queues of steps have theirs too; the rest is
in ``cloud_queue``.
"""

from dataclasses import asdict
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, bindparam, case, delete, exists, func, select, update

from hopline_engine.core.cloud.errors import CloudTasksError, Code, entity_missing, queue_missing
from hopline_engine.core.cloud.model import UNLIMITED, Queue, QueueConfig, QueueState, QueueStats, RateLimits, Stage
from hopline_engine.core.cloud.names import LocationName, QueueName, queue_of_key
from hopline_engine.core.cloud.policies import etag_of, policy_changed
from hopline_engine.store.cloud_tables import cloud_attempt, cloud_queue, cloud_task, cloud_tombstone, is_in, is_open
from hopline_engine.store.dialect import insert_new, insert_or_update
from hopline_engine.store.queues import QueueLimits, StoredQueue, set_limits
from hopline_engine.store.tables import queue

_read_config: Final = msgspec.json.Decoder(QueueConfig).decode
_SHOWN: Final = (
    cloud_queue,
    queue.c.state,
    queue.c.max_dispatches_per_second,
    queue.c.max_burst_size,
    queue.c.max_concurrent_dispatches,
)


_SELECT: Final = select(*_SHOWN).join_from(cloud_queue, queue, queue.c.name == cloud_queue.c.key)
_FOUND: Final = _SELECT.where(cloud_queue.c.key == bindparam("key"))
_KEPT: Final = _FOUND.with_for_update(read=True, key_share=True, of=cloud_queue)
# Both rows: of one that is not locked, a statement that had to wait shows what was there before.
_LOCKED: Final = _FOUND.with_for_update(key_share=True, of=(cloud_queue, queue))


class Listed(NamedTuple):
    """A queue in a listing."""

    key: str
    queue: Queue


class Edition(NamedTuple):
    """Tells a queue from one of the same name that was deleted, and from itself before it was purged."""

    create_time: float
    purge_time: float | None


def find(connection: Connection, key: str, *, kept: bool = False) -> Queue | None:
    """Return a queue, if it is there; *kept*, it is not deleted before this transaction ends."""
    row = connection.execute(_KEPT if kept else _FOUND, {"key": key}).one_or_none()
    return _queue(row) if row else None


def find_to_change(connection: Connection, key: str) -> Queue | None:
    """Return a queue that nobody else changes or deletes before this transaction ends, if it is there."""
    row = connection.execute(_LOCKED, {"key": key}).one_or_none()
    return _queue(row) if row else None


def get(connection: Connection, name: QueueName) -> Queue:
    """Return a queue.

    Raises:
        CloudTasksError: it is not there.
    """
    found = find(connection, name.key)
    if found is None:
        raise queue_missing()
    return found


def page(connection: Connection, parent: LocationName, *, after: str | None, limit: int) -> list[Listed]:
    """Return up to *limit* queues of a location by name, from the one after the key *after*."""
    query = _SELECT.where(cloud_queue.c.parent == str(parent))
    if after is not None:
        query = query.where(cloud_queue.c.key > after)
    return [Listed(row.key, _queue(row)) for row in connection.execute(query.order_by(cloud_queue.c.key).limit(limit))]


def editions(connection: Connection) -> dict[str, Edition]:
    """Return the queues whose tasks are sent, by what the engine calls them."""
    columns = (cloud_queue.c.key, cloud_queue.c.create_time, cloud_queue.c.purge_time)
    found = connection.execute(select(*columns).where(cloud_queue.c.is_pull.is_(False)))
    return {key: Edition(*times) for key, *times in found}


def locations(connection: Connection, project: str) -> list[str]:
    """Return the locations of a project in which there are queues."""
    start = f"projects/{project}/locations/"
    found = connection.scalars(
        select(cloud_queue.c.parent).where(cloud_queue.c.parent.startswith(start, autoescape=True)).distinct()
    )
    return sorted(parent.removeprefix(start) for parent in found)


def create(connection: Connection, name: QueueName, made: Queue, now: float) -> None:
    """Add a queue.

    Raises:
        CloudTasksError: it exists, or one of its name was deleted too recently.
    """
    # Kept: what is looked up next would be out of date if somebody were just deleting it.
    if find(connection, name.key, kept=True) is not None or not make(connection, name, made, now):
        raise CloudTasksError(Code.ALREADY_EXISTS, "Queue already exists")


def make(connection: Connection, name: QueueName, made: Queue, now: float) -> bool:
    """Add a queue that was not there a moment ago; return false if somebody else was first.

    Raises:
        CloudTasksError: one of its name was deleted too recently.
    """
    if is_held(connection, name.key, "", now):
        raise CloudTasksError(
            Code.FAILED_PRECONDITION,
            "The queue cannot be created because a queue with this name existed too recently.",
        )
    is_shared = connection.execute(select(exists().where(queue.c.name == name.key))).scalar_one()
    row = {
        "key": name.key,
        "parent": str(name.parent),
        "is_pull": made.is_pull,
        "is_shared": bool(is_shared),
        "purge_time": None,
        "create_time": now,
        "config": msgspec.json.encode(made.config),
        "policy": None,
    }
    if not insert_new(connection, cloud_queue, row):
        return False
    set_limits(connection, [limits_of(name.key, made.rate_limits)])
    return True


def change(connection: Connection, name: QueueName, changed: Queue) -> None:
    """Set what people decide of a queue that ``find_to_change`` returned."""
    connection.execute(
        update(cloud_queue).where(cloud_queue.c.key == name.key).values(config=msgspec.json.encode(changed.config))
    )
    set_limits(connection, [limits_of(name.key, changed.rate_limits)])


def outlasting(connection: Connection, name: QueueName, described: QueueLimits | None) -> StoredQueue | None:
    """Return what is left for workflows of a queue that is to be deleted; ``None`` if they know nothing of it.

    Args:
        connection: of the store.
        name: of the queue.
        described: the limits that workflows describe it with. Without them a queue that workflows had before keeps
            its present ones.

    Raises:
        CloudTasksError: it is not there.
    """
    is_shared = connection.execute(select(cloud_queue.c.is_shared).where(cloud_queue.c.key == name.key)).scalar()
    if is_shared is None:
        raise entity_missing()
    if described is None and not is_shared:
        return None
    stored = connection.execute(select(queue).where(queue.c.name == name.key)).mappings().one()
    return StoredQueue(**{**stored, **(asdict(described) if described else {})})


def remove(connection: Connection, name: QueueName, *, leaves: QueueLimits | None, held_until: float | None) -> None:
    """Delete a queue with its tasks; what it *leaves* are the limits of workflows. Hold its name if asked to.

    Raises:
        CloudTasksError: it is not there.
    """
    key = name.key
    if connection.execute(delete(cloud_queue).where(cloud_queue.c.key == key)).rowcount == 0:
        raise entity_missing()
    for condition in (is_open(), is_in(Stage.DEAD)):
        connection.execute(delete(cloud_task).where(cloud_task.c.queue == key, condition))
    connection.execute(delete(cloud_tombstone).where(cloud_tombstone.c.queue == key))
    if leaves is None:
        connection.execute(delete(queue).where(queue.c.name == key))
    else:
        set_limits(connection, [leaves])
    if held_until is not None:
        hold(connection, [(key, "")], held_until)


def set_purge_time(connection: Connection, name: QueueName, now: float) -> None:
    """Note when a queue was purged."""
    connection.execute(update(cloud_queue).where(cloud_queue.c.key == name.key).values(purge_time=now))


def policy(connection: Connection, name: QueueName) -> bytes | None:
    """Return the IAM policy of a queue that is there, if one was set."""
    found: bytes | None = connection.execute(
        select(cloud_queue.c.policy).where(cloud_queue.c.key == name.key)
    ).scalar_one_or_none()
    return found


def set_policy(connection: Connection, name: QueueName, given: bytes, etag: bytes | None) -> None:
    """Set the IAM policy of a queue; with an *etag*, only if that is the mark of the one that it replaces.

    Raises:
        CloudTasksError: the queue is not there, or somebody else replaced its policy.
    """
    get(connection, name)
    old = policy(connection, name)
    same = (cloud_queue.c.key == name.key, cloud_queue.c.policy.is_not_distinct_from(old))
    is_expected = etag is None or etag == etag_of(old)
    if not is_expected or not connection.execute(update(cloud_queue).where(*same).values(policy=given)).rowcount:
        raise policy_changed()


def is_held(connection: Connection, key: str, name: str, now: float) -> bool:
    """Return whether a name may not be used: of a task, or with an empty *name* of a queue."""
    held = connection.execute(
        select(cloud_tombstone.c.until).where(cloud_tombstone.c.queue == key, cloud_tombstone.c.name == name)
    ).scalar()
    return held is not None and held > now


def hold(connection: Connection, names: list[tuple[str, str]], until: float) -> None:
    """Keep names of tasks or queues from being used until a time."""
    insert_or_update(connection, cloud_tombstone, [{"queue": key, "name": name, "until": until} for key, name in names])


def stats(connection: Connection, key: str, now: float) -> QueueStats:
    """Return how a queue is doing; the rate at which it may go is that of its limits."""
    live = (cloud_task.c.queue == key, is_open())
    is_out = case((is_in(Stage.DISPATCHED), 1))
    count, oldest, out = connection.execute(
        select(func.count(), func.min(cloud_task.c.schedule_time), func.count(is_out)).where(*live)
    ).one()
    done = connection.execute(
        select(func.count())
        .select_from(cloud_attempt)
        .where(cloud_attempt.c.end_time > now - 60.0, cloud_attempt.c.queue == key)
    ).scalar_one()
    rate = connection.execute(select(queue.c.max_dispatches_per_second).where(queue.c.name == key)).scalar()
    return QueueStats(
        tasks_count=count,
        oldest_estimated_arrival_time=oldest,
        executed_last_minute_count=done,
        concurrent_dispatches_count=out,
        effective_execution_rate=rate or 0.0,
    )


def limits_of(key: str, limits: RateLimits) -> QueueLimits:
    """Return limits as the engine has them; a pull queue has none."""
    if limits.max_concurrent_dispatches == UNLIMITED:
        return QueueLimits(name=key)
    return QueueLimits(
        name=key,
        max_dispatches_per_second=limits.max_dispatches_per_second,
        max_burst_size=limits.max_burst_size,
        max_concurrent_dispatches=limits.max_concurrent_dispatches,
    )


def _queue(row: Row[Any]) -> Queue:
    # What steps declare may leave limits out; to clients these are what they can be at most.
    limits = RateLimits(max_concurrent_dispatches=UNLIMITED)
    if not row.is_pull:
        limits = RateLimits(
            max_dispatches_per_second=row.max_dispatches_per_second or RateLimits().max_dispatches_per_second,
            max_burst_size=row.max_burst_size or RateLimits().max_burst_size,
            max_concurrent_dispatches=row.max_concurrent_dispatches or RateLimits().max_concurrent_dispatches,
        )
    return Queue(
        name=str(queue_of_key(row.key)),
        rate_limits=limits,
        config=_read_config(row.config),
        state=QueueState.PAUSED if row.state == "paused" else QueueState.RUNNING,
        purge_time=row.purge_time,
    )
