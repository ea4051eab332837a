"""Sending tasks of the queue service, as stored: what is due, attempts before they are sent and after they ended."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, case, delete, insert, literal, select, update

from hopline_engine.core.cloud.attempts import Counters, Ended, Settled, Verdict, settle
from hopline_engine.core.cloud.model import CloudTaskId, Queue, QueueState, RetryConfig, Stage
from hopline_engine.core.cloud.names import TaskName
from hopline_engine.store import cloud_queues
from hopline_engine.store.cloud_queues import hold
from hopline_engine.store.cloud_tasks import StoredTask, get, selected, stored_task
from hopline_engine.store.tables import cloud_attempt, cloud_queue, cloud_task, node

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


def due(connection: Connection, key: str, *, limit: int) -> list[Due]:
    """Return the tasks of a queue that are to be sent first."""
    found = connection.execute(
        select(cloud_task.c.id, cloud_task.c.schedule_time)
        .where(cloud_task.c.queue == key, _is_in(Stage.SCHEDULED))
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
        .where(_is_in(Stage.SCHEDULED), cloud_task.c.schedule_time <= since)
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
    taken: list[CloudTaskId] = []
    for key in sorted(running):
        taken += _taken(connection, key, wanted[key], now)
    return _begun(connection, taken, running, node_id, now)


def _taken(connection: Connection, key: str, ids: Collection[CloudTaskId], now: float) -> list[CloudTaskId]:
    """Lock tasks of a queue that may be sent: as many as asked for if there are, and those *ids* first."""
    is_due = (_is_in(Stage.SCHEDULED), cloud_task.c.schedule_time <= now)
    asked = select(cloud_task.c.id).where(cloud_task.c.id.in_(ids), *is_due).with_for_update(skip_locked=True)
    found = list(connection.execute(asked).scalars())
    if len(found) < len(ids):
        others = (
            select(cloud_task.c.id)
            .where(cloud_task.c.queue == key, cloud_task.c.id.not_in(found), *is_due)
            .order_by(cloud_task.c.schedule_time, cloud_task.c.id)
            .limit(len(ids) - len(found))
            .with_for_update(skip_locked=True)
        )
        found += connection.execute(others).scalars()
    return found


def force(connection: Connection, name: TaskName, node_id: str, now: float) -> Sending:
    """Note that an attempt of a task is sent now, whatever its time, its queue and its other attempts.

    Raises:
        CloudTasksError: it is over, or never was.
    """
    task = get(connection, name, now, full=False)
    queue = cloud_queues.get(connection, name.queue)
    (sending,) = _begun(connection, [task.id], {name.queue.key: queue}, node_id, now)
    return replace(sending, is_forced=True)


def _begun(
    connection: Connection, ids: Sequence[CloudTaskId], queues: Mapping[str, Queue], node_id: str, now: float
) -> list[Sending]:
    if not ids:
        return []
    connection.execute(
        update(cloud_task)
        .where(cloud_task.c.id.in_(ids))
        .values(
            stage=int(Stage.DISPATCHED),
            node=node_id,
            dispatch_count=cloud_task.c.dispatch_count + 1,
            first_dispatch_time=_first_or(now),
            last_schedule_time=cloud_task.c.schedule_time,
            last_dispatch_time=now,
            last_response_time=None,
            last_code=None,
            last_message=None,
        )
    )
    tasks = [stored_task(row) for row in connection.execute(selected(full=True).where(cloud_task.c.id.in_(ids)))]
    return [Sending(stored=task, queue=queues[task.key], dispatch_time=now) for task in tasks]


def _first_or(now: float) -> ColumnElement[float]:
    # A task that was revived begins anew: then as many attempts are lost as were made.
    from_start = cloud_task.c.dispatch_count == cloud_task.c.lost_count
    return case((from_start, literal(now)), else_=cloud_task.c.first_dispatch_time)


def end(connection: Connection, sending: Sending, ended: Ended, *, keeps_attempt: bool) -> Settled | None:
    """Note how an attempt ended, and return what becomes of its task; ``None`` if that is not there any more."""
    stored = sending.stored
    row = connection.execute(
        select(cloud_task).where(cloud_task.c.id == stored.id, cloud_task.c.stage < int(Stage.DEAD))
    ).one_or_none()
    if keeps_attempt:
        _keep_attempt(connection, sending, ended)
    if row is None:
        return None
    counters = Counters(
        dispatched=row.dispatch_count,
        answered=row.response_count,
        executed=row.execution_count,
        lost=row.lost_count,
        first_dispatch_time=row.first_dispatch_time,
        previous_response=row.previous_response,
        retry_reason=row.retry_reason,
    )
    settled = settle(sending.number, ended, counters, _retrying(connection, sending))
    if settled.verdict is Verdict.SUCCEEDED:
        connection.execute(delete(cloud_task).where(cloud_task.c.id == stored.id))
    else:
        connection.execute(update(cloud_task).where(cloud_task.c.id == stored.id).values(_after(settled, ended)))
    if stored.is_named and settled.verdict in (Verdict.SUCCEEDED, Verdict.DEAD):
        hold(connection, [(stored.key, row.name)], ended.end_time + sending.queue.config.tombstone_ttl)
    return settled


def _retrying(connection: Connection, sending: Sending) -> RetryConfig:
    """Return how the task is retried: what it says itself, or its queue says by now."""
    own = sending.stored.task.retry_config
    if own is not None:
        return own
    queue = cloud_queues.find(connection, sending.stored.key) or sending.queue
    return queue.config.retry_config


def _after(settled: Settled, ended: Ended) -> dict[str, Any]:
    counted = {
        "response_count": settled.answered,
        "execution_count": settled.executed,
        "previous_response": settled.previous_response,
        "retry_reason": settled.retry_reason,
    }
    if settled.verdict is Verdict.SUPERSEDED:
        return counted
    status = ended.attempt_status
    return {
        **counted,
        "stage": int(Stage.DEAD if settled.verdict is Verdict.DEAD else Stage.SCHEDULED),
        "schedule_time": settled.schedule_time,
        "node": None,
        "last_response_time": ended.end_time if ended.status is not None else None,
        "last_code": status.code,
        "last_message": status.message,
    }


def _keep_attempt(connection: Connection, sending: Sending, ended: Ended) -> None:
    status = ended.attempt_status
    connection.execute(
        insert(cloud_attempt).values(
            task_id=sending.stored.id,
            number=sending.number,
            queue=sending.stored.key,
            name=sending.stored.task.name.rpartition("/")[2],
            dispatch_time=sending.dispatch_time,
            end_time=ended.end_time,
            status=ended.status,
            code=status.code,
            message=status.message,
            response_head=ended.response_head,
        )
    )


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
    # By number, since several nodes do it at the same time when one is gone.
    lost = select(cloud_task.c.id).where(_is_in(Stage.DISPATCHED), gone).order_by(cloud_task.c.id)
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


def _is_in(stage: Stage) -> ColumnElement[bool]:
    # Written into the statement: SQLite takes a partial index only if it sees the value.
    return cloud_task.c.stage == literal(int(stage), literal_execute=True)
