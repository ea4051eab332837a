"""Tasks of the queue service as stored: added, found, listed, deleted and expired.

How they are sent is in ``cloud_pushes``, how workers lease them in ``cloud_leases``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, func, literal, select, update

from hopline_engine.core.cloud.errors import entity_missing, task_exists, task_gone
from hopline_engine.core.cloud.model import (
    AppEngineHttpRequest,
    Attempt,
    AttemptStatus,
    CloudTaskId,
    HttpRequest,
    Payload,
    PullMessage,
    Queue,
    RetryConfig,
    Stage,
    Task,
)
from hopline_engine.core.cloud.names import QueueName, TaskName, queue_of_key
from hopline_engine.store.cloud_queues import hold, is_held
from hopline_engine.store.cloud_tables import (
    cloud_attempt,
    cloud_operation,
    cloud_queue,
    cloud_task,
    cloud_tombstone,
    is_in,
    is_open,
)
from hopline_engine.store.dialect import insert_new

SWEPT_AT_ONCE: Final = 1000
"""Rows that one transaction of the housekeeping deletes, so that commits never wait for it for long."""
OPERATION_SECONDS: Final = 86_400.0
LARGEST_ANSWER: Final = 3_500_000
"""Bytes of tasks in one answer: clients over gRPC take no message of more than 4 MiB unless they are told to."""

_NARROW: Final = tuple(column for column in cloud_task.c if column.name != "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What is in the column ``request``; one of the first three is there."""

    http: HttpRequest | None = None
    app_engine: AppEngineHttpRequest | None = None
    pull: PullMessage | None = None
    retry_config: RetryConfig | None = None


_read_kept: Final = msgspec.json.Decoder(_Kept).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTask:
    """A task with what only the engine knows of it."""

    id: CloudTaskId
    key: str
    """What the engine calls its queue."""
    task: Task
    stage: Stage
    execution_count: int
    lost_count: int
    previous_response: int | None
    retry_reason: str
    is_named: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAttempt:
    """An attempt that is over."""

    number: int
    dispatch_time: float
    end_time: float
    status: int | None
    code: int
    message: str
    response_head: str


def add(connection: Connection, number: CloudTaskId, queue: Queue, task: Task, now: float, *, is_named: bool) -> None:
    """Add a task.

    Raises:
        CloudTasksError: its name is taken, or held.
    """
    name = _split(task.name)
    key = name.queue.key
    if is_named and (_is_live(connection, key, name.task) or is_held(connection, key, name.task, now)):
        raise task_exists()
    payload = task.payload
    row = {
        "id": number,
        "queue": key,
        "name": name.task,
        "is_named": is_named,
        "stage": int(Stage.SCHEDULED),
        "schedule_time": task.schedule_time,
        "create_time": task.create_time,
        "expire_time": now + queue.config.task_ttl,
        "dispatch_deadline": task.dispatch_deadline,
        "dispatch_count": 0,
        "response_count": 0,
        "execution_count": 0,
        "lost_count": 0,
        "retry_reason": "",
        "tag": payload.tag if isinstance(payload, PullMessage) else None,
        "request": msgspec.json.encode(_kept(task)),
        "body": payload.payload if isinstance(payload, PullMessage) else payload.body,
    }
    if not insert_new(connection, cloud_task, row):  # another node was first
        raise task_exists()


def get(connection: Connection, name: TaskName, now: float, *, full: bool) -> StoredTask:
    """Return a task that is not over.

    Raises:
        CloudTasksError: it is over, or never was.
    """
    found = connection.execute(selected(full=full).where(*named(name))).one_or_none()
    if found is None:
        raise missing(connection, name, now)
    return stored_task(found)


def missing(connection: Connection, name: TaskName, now: float) -> Exception:
    """Return the error for a task that is not there: it was a short while ago, or never."""
    return task_gone() if is_held(connection, name.queue.key, name.task, now) else entity_missing()


class Page(NamedTuple):
    """A part of a listing."""

    tasks: list[StoredTask]
    is_last: bool


def page(connection: Connection, queue: QueueName, *, after: str | None, limit: int, full: bool) -> Page:
    """Return up to *limit* tasks that are not over, by name, from the one after *after*."""
    conditions = [cloud_task.c.queue == queue.key, is_open()]
    if after is not None:
        conditions.append(cloud_task.c.name > after)
    return _page(connection, conditions, cloud_task.c.name, limit, full=full)


def dead_page(connection: Connection, queue: QueueName, *, after: int | None, limit: int, full: bool) -> Page:
    """Return up to *limit* tasks whose attempts are used up, oldest first, from the one after number *after*."""
    conditions = [cloud_task.c.queue == queue.key, is_in(Stage.DEAD)]
    if after is not None:
        conditions.append(cloud_task.c.id > after)
    return _page(connection, conditions, cloud_task.c.id, limit, full=full)


def _page(
    connection: Connection,
    conditions: Sequence[ColumnElement[bool]],
    order: ColumnElement[Any],
    limit: int,
    *,
    full: bool,
) -> Page:
    size = func.length(cloud_task.c.request) + (func.length(cloud_task.c.body) if full else 0)
    narrow = select(cloud_task.c.id, size.label("size")).where(*conditions)
    found = connection.execute(narrow.order_by(order).limit(limit + 1)).all()
    fitting = sum(end <= LARGEST_ANSWER for end in accumulate(row.size for row in found))
    ids = [row.id for row in found[: min(limit, max(1, fitting))]]
    rows = connection.execute(selected(full=full).where(cloud_task.c.id.in_(ids)).order_by(order))
    return Page([stored_task(row) for row in rows], is_last=len(ids) == len(found))


def remove(connection: Connection, name: TaskName, queue: Queue, now: float) -> CloudTaskId:
    """Delete a task and hold its name; return its number.

    Raises:
        CloudTasksError: it is over, or never was.
    """
    gone = delete(cloud_task).where(*named(name)).returning(cloud_task.c.id, cloud_task.c.is_named)
    found = connection.execute(gone).one_or_none()
    if found is None:
        raise missing(connection, name, now)
    if found.is_named:
        hold(connection, [(name.queue.key, name.task)], now + queue.config.tombstone_ttl)
    return CloudTaskId(found.id)


def remove_dead(connection: Connection, name: TaskName) -> None:
    """Delete a dead task for good.

    Raises:
        CloudTasksError: there is none of this name.
    """
    condition = (cloud_task.c.queue == name.queue.key, cloud_task.c.name == name.task, is_in(Stage.DEAD))
    if connection.execute(delete(cloud_task).where(*condition)).rowcount == 0:
        raise entity_missing()


def revive(connection: Connection, name: TaskName, now: float) -> StoredTask:
    """Let a dead task be attempted again, now and as often as its queue allows.

    Raises:
        CloudTasksError: there is none of this name, or another task has taken it.
    """
    dead = (cloud_task.c.queue == name.queue.key, cloud_task.c.name == name.task, is_in(Stage.DEAD))
    number = connection.execute(select(cloud_task.c.id).where(*dead).order_by(cloud_task.c.id.desc()).limit(1)).scalar()
    if number is None:
        raise entity_missing()
    if _is_live(connection, name.queue.key, name.task):
        raise task_exists()
    connection.execute(
        update(cloud_task)
        .where(cloud_task.c.id == number)
        .values(
            stage=int(Stage.SCHEDULED),
            schedule_time=now,
            # None of the attempts so far counts any more.
            lost_count=cloud_task.c.dispatch_count,
        )
    )
    return get(connection, name, now, full=False)


def purge_some(connection: Connection, queue: Queue, key: str, up_to: int, now: float) -> int:
    """Delete a part of a queue's tasks with numbers up to *up_to*, holding their names; return how many there were."""
    found = connection.execute(
        select(cloud_task.c.id, cloud_task.c.name, cloud_task.c.is_named)
        .where(cloud_task.c.queue == key, cloud_task.c.id <= up_to, is_open())
        .order_by(cloud_task.c.id)  # nodes that purge it at the same time wait for each other
        .limit(SWEPT_AT_ONCE)
        .with_for_update()
    ).all()
    connection.execute(delete(cloud_task).where(cloud_task.c.id.in_([row.id for row in found])))
    hold(connection, [(key, row.name) for row in found if row.is_named], now + queue.config.tombstone_ttl)
    return len(found)


def clear_some(connection: Connection, key: str) -> int:
    """Delete a part of a queue's tasks, dead ones too, and hold no names; return how many there were."""
    conditions = [(cloud_task.c.queue == key) & condition for condition in (is_open(), is_in(Stage.DEAD))]
    return sum(connection.execute(delete_some(cloud_task, cloud_task.c.id, one)).rowcount for one in conditions)


def attempts(connection: Connection, name: TaskName, *, limit: int) -> list[StoredAttempt]:
    """Return the attempts of a task that are over and still kept, oldest first; also when the task is gone."""
    key = name.queue.key
    columns = [cloud_attempt.c[field] for field in StoredAttempt.__dataclass_fields__]
    # Not those of a queue of the same name that was deleted.
    made = select(cloud_queue.c.create_time).where(cloud_queue.c.key == key).scalar_subquery()
    found = connection.execute(
        select(*columns)
        .where(cloud_attempt.c.queue == key, cloud_attempt.c.name == name.task)
        .where(cloud_attempt.c.dispatch_time >= func.coalesce(made, 0.0))
        .order_by(cloud_attempt.c.dispatch_time)
        .limit(limit)
    )
    return [StoredAttempt(**row) for row in found.mappings()]


def sweep_some(connection: Connection, now: float, attempts_since: float) -> int:
    """Delete a part of what is too old: tasks past their time, names held long enough, attempts, operations.

    Returns how many rows were deleted; none when nothing is left to do.
    """
    expired = connection.execute(delete_some(cloud_task, cloud_task.c.id, cloud_task.c.expire_time <= now)).rowcount
    for table, condition in (
        (cloud_tombstone, cloud_tombstone.c.until <= now),
        (cloud_attempt, cloud_attempt.c.end_time < attempts_since),
        (cloud_operation, cloud_operation.c.create_time < now - OPERATION_SECONDS),
    ):
        keys = list(table.primary_key)
        old = connection.execute(select(*keys).where(condition).limit(SWEPT_AT_ONCE)).all()
        for row in old:
            same = [column == value for column, value in zip(keys, row, strict=True)]
            connection.execute(delete(table).where(and_(*same)))
        expired += len(old)
    return expired


def delete_some(table: Any, key: ColumnElement[Any], condition: ColumnElement[bool]) -> Any:
    """Return a statement that deletes up to ``SWEPT_AT_ONCE`` rows."""
    return delete(table).where(key.in_(select(key).where(condition).limit(SWEPT_AT_ONCE)))


def begin_operation(connection: Connection, name: str, now: float) -> bool:
    """Take the name of a batch call; return whether nobody had it: then the call is the caller's to do.

    Another node that is doing the call is waited for.
    """
    return insert_new(connection, cloud_operation, {"name": name, "create_time": now, "body": b""})


def end_operation(connection: Connection, name: str, body: bytes) -> None:
    """Keep the outcome of a batch call, in the transaction that began it."""
    connection.execute(update(cloud_operation).where(cloud_operation.c.name == name).values(body=body))


def operation(connection: Connection, name: str) -> bytes | None:
    """Return the outcome of a batch call, if it is kept."""
    found: bytes | None = connection.execute(
        select(cloud_operation.c.body).where(cloud_operation.c.name == name)
    ).scalar_one_or_none()
    return found


def selected(*, full: bool) -> Select[Any]:
    """Return a query of tasks, with their bodies or without."""
    return select(cloud_task) if full else select(*_NARROW, literal(b"").label("body"))


def named(name: TaskName) -> Sequence[ColumnElement[bool]]:
    """Return the conditions of a task that is not over."""
    return cloud_task.c.queue == name.queue.key, cloud_task.c.name == name.task, is_open()


def stored_task(row: Row[Any]) -> StoredTask:
    """Return the task that a row of ``selected`` is."""
    kept = _read_kept(row.request)
    name = TaskName(queue_of_key(row.queue), row.name)
    return StoredTask(
        id=CloudTaskId(row.id),
        key=row.queue,
        stage=Stage(row.stage),
        execution_count=row.execution_count,
        lost_count=row.lost_count,
        previous_response=row.previous_response,
        retry_reason=row.retry_reason,
        is_named=row.is_named,
        task=Task(
            name=str(name),
            payload=_payload(kept, row.body),
            schedule_time=row.schedule_time,
            create_time=row.create_time,
            dispatch_deadline=row.dispatch_deadline,
            retry_config=kept.retry_config,
            dispatch_count=row.dispatch_count,
            response_count=row.response_count,
            first_attempt=_first(row),
            last_attempt=_last(row),
        ),
    )


def _first(row: Row[Any]) -> Attempt | None:
    return None if row.first_dispatch_time is None else Attempt(dispatch_time=row.first_dispatch_time)


def _last(row: Row[Any]) -> Attempt | None:
    if row.last_dispatch_time is None:
        return None
    status = AttemptStatus(code=row.last_code, message=row.last_message or "") if row.last_code is not None else None
    return Attempt(
        schedule_time=row.last_schedule_time,
        dispatch_time=row.last_dispatch_time,
        response_time=row.last_response_time,
        response_status=status,
    )


def _kept(task: Task) -> _Kept:
    payload = task.without_body().payload
    match payload:
        case HttpRequest():
            return _Kept(http=payload, retry_config=task.retry_config)
        case AppEngineHttpRequest():
            return _Kept(app_engine=payload, retry_config=task.retry_config)
        case PullMessage():
            return _Kept(pull=payload, retry_config=task.retry_config)


def _payload(kept: _Kept, body: bytes) -> Payload:
    if kept.http is not None:
        return replace(kept.http, body=body)
    if kept.app_engine is not None:
        return replace(kept.app_engine, body=body)
    assert kept.pull is not None
    return replace(kept.pull, payload=body)


def _is_live(connection: Connection, key: str, name: str) -> bool:
    condition = (cloud_task.c.queue == key, cloud_task.c.name == name, is_open())
    return connection.execute(select(cloud_task.c.id).where(*condition)).first() is not None


def _split(name: str) -> TaskName:
    queue, _, task = name.rpartition("/tasks/")
    return TaskName(queue_of_key(queue), task)
