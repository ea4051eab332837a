"""Sending tasks of the queue service, as stored: what is due, and attempts before they are sent.

How attempts ended is in ``cloud_endings``.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, case, literal_column, select, update

from hopline_engine.core.cloud.model import CloudTaskId, Queue, QueueState, Stage
from hopline_engine.core.cloud.names import TaskName
from hopline_engine.store import cloud_queues
from hopline_engine.store.cloud_tables import cloud_queue, cloud_task, is_in, is_open
from hopline_engine.store.cloud_tasks import StoredTask, get, missing, stored_task
from hopline_engine.store.tables import node

TAKEN_BACK_AT_ONCE: Final = 1000


class Due(NamedTuple):
    """A task that waits to be sent."""

    id: CloudTaskId
    schedule_time: float


class Overdue(NamedTuple):
    """A task of any queue that should have been sent."""

    queue: str
    id: CloudTaskId
    schedule_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """An attempt that is durable and may be sent."""

    stored: StoredTask
    queue: Queue
    dispatch_time: float
    is_forced: bool = False

    @property
    def number(self) -> int:
        """Which attempt of its task it is."""
        return self.stored.task.dispatch_count


# Statements are built once: building one takes as long as executing it.
_IS_DUE: Final = (is_in(Stage.SCHEDULED), cloud_task.c.schedule_time <= bindparam("begun_at"))
_ASKED: Final = (
    select(cloud_task.c.id)
    .where(cloud_task.c.id.in_(bindparam("ids", expanding=True)), *_IS_DUE)
    .with_for_update(skip_locked=True)
)
_OTHERS: Final = (
    select(cloud_task.c.id)
    .where(cloud_task.c.queue == bindparam("key"), *_IS_DUE)
    .order_by(cloud_task.c.schedule_time, cloud_task.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
    .cte("others")
)
"""Looked for once. Postgres may execute a subquery for each row, and then it would find others than before."""
_BEGIN: Final = (
    update(cloud_task)
    .values(
        stage=int(Stage.DISPATCHED),
        node=bindparam("by_node"),
        dispatch_count=cloud_task.c.dispatch_count + 1,
        # A task that was revived begins anew: then as many attempts are lost as were made.
        first_dispatch_time=case(
            (cloud_task.c.dispatch_count == cloud_task.c.lost_count, bindparam("begun_at")),
            else_=cloud_task.c.first_dispatch_time,
        ),
        last_schedule_time=cloud_task.c.schedule_time,
        last_dispatch_time=bindparam("begun_at"),
        last_response_time=None,
        last_code=None,
        last_message=None,
    )
    .returning(*cloud_task.c)
)
_BEGIN_ASKED: Final = _BEGIN.where(cloud_task.c.id.in_(_ASKED.scalar_subquery()))
_BEGIN_OTHERS: Final = _BEGIN.where(cloud_task.c.id.in_(select(_OTHERS.c.id)))
_BEGIN_IT: Final = _BEGIN.where(cloud_task.c.id == bindparam("task"), is_open())


def due(connection: Connection, key: str, *, limit: int) -> list[Due]:
    """Return the tasks of a queue that are to be sent first."""
    found = connection.execute(
        select(cloud_task.c.id, cloud_task.c.schedule_time)
        .where(cloud_task.c.queue == key, is_in(Stage.SCHEDULED))
        .order_by(cloud_task.c.schedule_time, cloud_task.c.id)
        .limit(limit)
    )
    return [Due(*row) for row in found]


def overdue(connection: Connection, *, since: float, without: Collection[str], limit: int) -> list[Overdue]:
    """Return tasks that should have been sent by the time *since*, of all queues but those named *without*."""
    found = connection.execute(
        select(cloud_task.c.queue, cloud_task.c.id, cloud_task.c.schedule_time)
        .join_from(cloud_queue, cloud_task, cloud_task.c.queue == cloud_queue.c.key)
        .where(cloud_queue.c.is_pull.is_(False), cloud_queue.c.key.not_in(without))
        .where(is_in(Stage.SCHEDULED), cloud_task.c.schedule_time <= since)
        .limit(limit)
    )
    return [Overdue(*row) for row in found]


def begin(
    connection: Connection, wanted: Mapping[str, Collection[CloudTaskId]], node_id: str, now: float
) -> list[Sending]:
    """Note that an attempt of each task that is *wanted* of a queue is sent, and return what may be sent.

    In place of those that may not be sent any more, as another node was first or they were deleted, come others of the
    same queue that are due. There may be none; and nothing is sent of a queue that was paused at another node.
    """
    queues = {key: cloud_queues.find(connection, key) for key in wanted}
    running = {key: queue for key, queue in queues.items() if queue and queue.state is QueueState.RUNNING}
    begun: list[Sending] = []
    for key, queue in sorted(running.items()):
        asked = wanted[key]
        times = {"begun_at": now, "by_node": node_id}
        found = [stored_task(row) for row in connection.execute(_BEGIN_ASKED, {"ids": list(asked), **times})]
        if len(found) < len(asked):
            others = connection.execute(_BEGIN_OTHERS, {"key": key, "most": len(asked) - len(found), **times})
            found += map(stored_task, others)
        begun += [Sending(stored=task, queue=queue, dispatch_time=now) for task in found]
    return begun


def force(connection: Connection, name: TaskName, node_id: str, now: float) -> Sending:
    """Note that an attempt of a task is sent now, whatever its time, its queue and its other attempts.

    Raises:
        CloudTasksError: it is over, or never was.
    """
    task = get(connection, name, now, full=False)
    row = connection.execute(_BEGIN_IT, {"task": task.id, "begun_at": now, "by_node": node_id}).one_or_none()
    if row is None:  # it was deleted, or done, while this waited for it
        raise missing(connection, name, now)
    queue = cloud_queues.get(connection, name.queue)  # there as long as this task of it is
    return Sending(stored=stored_task(row), queue=queue, dispatch_time=now, is_forced=True)


def nodes(connection: Connection) -> frozenset[str]:
    """Return the processes that are there."""
    return frozenset(connection.scalars(select(node.c.id)))


def take_back(connection: Connection, node_id: str | None, now: float) -> int:
    """Let attempts be made again that were out when their process died; return how many there were.

    Args:
        connection: of the store.
        node_id: the process that lets go of its own; ``None`` for those of all that are not there any more.
        now: when they are sent again.
    """
    gone = cloud_task.c.node == node_id if node_id is not None else cloud_task.c.node.not_in(select(node.c.id))
    # By number, since several nodes do it at the same time when one is gone; and not by the column itself, along which
    # SQLite would look through all the tasks that wait, for the few that are out.
    lost = select(cloud_task.c.id).where(is_in(Stage.DISPATCHED), gone).order_by(cloud_task.c.id + literal_column("0"))
    ids = connection.scalars(lost.limit(TAKEN_BACK_AT_ONCE).with_for_update()).all()
    return give_back(connection, ids, now)


def give_back(connection: Connection, ids: Iterable[int], now: float) -> int:
    """Let tasks be sent again whose attempts are out and will not be heard of; return how many there were."""
    given = [{"task": number} for number in ids]
    if given:
        connection.execute(
            update(cloud_task)
            .where(cloud_task.c.id == bindparam("task"), cloud_task.c.stage == int(Stage.DISPATCHED))
            .values(stage=int(Stage.SCHEDULED), schedule_time=now, node=None, lost_count=cloud_task.c.lost_count + 1),
            given,
        )
    return len(given)
