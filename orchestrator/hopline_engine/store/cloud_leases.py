"""Leases of pull tasks, as stored.

A lease has no row of its own: leasing a task moves its ``schedule_time`` to the lease's end, and that time is what a
worker shows to acknowledge, renew or cancel. Whatever else moves it makes older leases worthless.
"""

from itertools import accumulate
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, select, update

from hopline_engine.core.cloud.errors import CloudTasksError, Code
from hopline_engine.core.cloud.model import Queue, Stage, microseconds
from hopline_engine.core.cloud.names import QueueName, TaskName
from hopline_engine.core.cloud.retrying import Tried, is_used_up
from hopline_engine.store.cloud_queues import hold
from hopline_engine.store.cloud_tables import cloud_task, is_in
from hopline_engine.store.cloud_tasks import LARGEST_ANSWER, StoredTask, get, missing, named, selected, stored_task


class Asked(NamedTuple):
    """What a worker wants to lease."""

    most: int
    seconds: float
    tag: str | None
    """Only tasks with this tag; ``None`` for any."""
    of_oldest: bool
    """Only tasks with the tag of the oldest one."""
    full: bool


def lease(connection: Connection, name: QueueName, queue: Queue, asked: Asked, now: float) -> list[StoredTask]:
    """Lease tasks that are available, oldest first; those whose attempts are used up become dead instead."""
    key = name.key
    available = (cloud_task.c.queue == key, is_in(Stage.SCHEDULED), cloud_task.c.schedule_time <= now)
    order = (cloud_task.c.schedule_time, cloud_task.c.id)
    condition: list[ColumnElement[bool]] = [*available]
    tag = asked.tag
    if asked.of_oldest:
        oldest = connection.execute(select(cloud_task.c.tag).where(*available).order_by(*order).limit(1)).scalar()
        tag = oldest or ""
    if tag is not None:
        condition.append(cloud_task.c.tag == tag)
    # Without payloads: those that do not go into the answer may be gigabytes.
    narrow = selected(full=False).add_columns(func.length(cloud_task.c.body).label("size")).where(*condition)
    rows = connection.execute(narrow.order_by(*order).limit(asked.most).with_for_update(skip_locked=True)).all()
    tasks = {row.id: stored_task(row) for row in rows}
    spent = [task for task in tasks.values() if _is_spent(task, queue, now)]
    _bury(connection, key, spent, now + queue.config.tombstone_ttl)
    alive = [row for row in rows if row.id not in {task.id for task in spent}]
    ends = accumulate(row.size if asked.full else 0 for row in alive)
    fitting = sum(end <= LARGEST_ANSWER for end in ends)
    return _leased(connection, [tasks[row.id] for row in alive[: max(1, fitting)]], asked, now)


def _leased(connection: Connection, taken: list[StoredTask], asked: Asked, now: float) -> list[StoredTask]:
    end = microseconds(now + asked.seconds)
    if taken:
        connection.execute(
            update(cloud_task)
            .where(cloud_task.c.id == bindparam("task"))
            .values(
                schedule_time=end,
                dispatch_count=cloud_task.c.dispatch_count + 1,
                first_dispatch_time=bindparam("first"),
                last_schedule_time=cloud_task.c.schedule_time,
                last_dispatch_time=now,
            ),
            [{"task": task.id, "first": _first(task, now)} for task in taken],
        )
    ids = [task.id for task in taken]
    again = connection.execute(selected(full=asked.full).where(cloud_task.c.id.in_(ids)))
    by_id = {row.id: stored_task(row) for row in again}
    return [by_id[number] for number in ids]


def acknowledge(connection: Connection, name: TaskName, lease_end: float, queue: Queue, now: float) -> None:
    """Delete a leased task: its work is done.

    Raises:
        CloudTasksError: the lease is over, or is another's.
    """
    task = _under_lease(connection, name, lease_end, now)
    connection.execute(delete(cloud_task).where(cloud_task.c.id == task.id))
    if task.is_named:
        hold(connection, [(task.key, name.task)], now + queue.config.tombstone_ttl)


def move(
    connection: Connection, name: TaskName, lease_end: float, new_end: float, now: float, *, full: bool
) -> StoredTask:
    """Let a lease end at another time: later to renew it, now to cancel it.

    Raises:
        CloudTasksError: the lease is over, or is another's.
    """
    task = _under_lease(connection, name, lease_end, now)
    connection.execute(update(cloud_task).where(cloud_task.c.id == task.id).values(schedule_time=microseconds(new_end)))
    return get(connection, name, now, full=full)


def _under_lease(connection: Connection, name: TaskName, lease_end: float, now: float) -> StoredTask:
    row = connection.execute(selected(full=False).where(*named(name)).with_for_update()).one_or_none()
    if row is None:
        raise missing(connection, name, now)
    if row.schedule_time != microseconds(lease_end) or row.schedule_time <= now or not row.dispatch_count:
        raise CloudTasksError(
            Code.FAILED_PRECONDITION,
            "The task is not leased under this scheduleTime: the lease has expired, or was renewed or cancelled.",
        )
    return stored_task(row)


def _is_spent(task: StoredTask, queue: Queue, now: float) -> bool:
    if task.task.first_attempt is None:
        return False
    made = task.task.dispatch_count - task.lost_count
    tried = Tried(made, task.task.first_attempt.dispatch_time, now)
    return made > 0 and is_used_up(task.task.retry_config or queue.config.retry_config, tried)


def _bury(connection: Connection, key: str, spent: list[StoredTask], held_until: float) -> None:
    if spent:
        ids = [task.id for task in spent]
        connection.execute(update(cloud_task).where(cloud_task.c.id.in_(ids)).values(stage=int(Stage.DEAD)))
        hold(connection, [(key, task.task.name.rpartition("/")[2]) for task in spent if task.is_named], held_until)


def _first(task: StoredTask, now: float) -> float:
    has_begun = task.task.first_attempt is not None and task.task.dispatch_count > task.lost_count
    return task.task.first_attempt.dispatch_time if has_begun and task.task.first_attempt else now
