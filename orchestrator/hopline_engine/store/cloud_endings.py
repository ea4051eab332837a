"""How attempts of the queue service ended, as stored: many at a time, as a transaction costs more than an attempt."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from hopline_engine.core.cloud.attempts import Counters, Ended, Settled, Verdict, settle
from hopline_engine.core.cloud.model import CloudTaskId, Queue, RetryConfig, Stage
from hopline_engine.store import cloud_queues
from hopline_engine.store.cloud_pushes import Sending
from hopline_engine.store.cloud_queues import hold
from hopline_engine.store.cloud_tables import cloud_attempt, cloud_task, is_open

# Statements are built once: building one takes as long as executing it.
_COUNTERS: Final = (
    select(
        cloud_task.c.id,
        cloud_task.c.dispatch_count,
        cloud_task.c.response_count,
        cloud_task.c.execution_count,
        cloud_task.c.lost_count,
        cloud_task.c.first_dispatch_time,
        cloud_task.c.previous_response,
        cloud_task.c.retry_reason,
    )
    .where(cloud_task.c.id.in_(bindparam("ids", expanding=True)))
    .where(is_open())
    .order_by(cloud_task.c.id)
    .with_for_update()
)
_KEEP: Final = insert(cloud_attempt)
_DELETE: Final = delete(cloud_task).where(cloud_task.c.id.in_(bindparam("ids", expanding=True)))
_CHANGE: Final = update(cloud_task).where(cloud_task.c.id == bindparam("task"))


class Ending(NamedTuple):
    """An attempt, and how it ended."""

    sending: Sending
    ended: Ended

    @property
    def task(self) -> CloudTaskId:
        """The task whose attempt it was."""
        return self.sending.stored.id


def end(connection: Connection, endings: Sequence[Ending], *, keeps_attempts: bool) -> list[Settled | None]:
    """Note how attempts of different tasks ended, and return what becomes of each task.

    ``None`` stands for a task that is not there any more.
    """
    ids = [ending.task for ending in endings]
    rows = {row.id: row for row in connection.execute(_COUNTERS, {"ids": ids})}
    if keeps_attempts:
        connection.execute(_KEEP, [_kept(*ending) for ending in endings])
    queues = _queues(connection, endings)
    settled = [_settled(ending, rows.get(ending.task), queues) for ending in endings]
    pairs = [(ending, after) for ending, after in zip(endings, settled, strict=True) if after is not None]
    over = [ending.task for ending, after in pairs if after.verdict is Verdict.SUCCEEDED]
    if over:
        connection.execute(_DELETE, {"ids": over})
    # Rows of one shape each: those of attempts that count, and those of attempts that a later one has replaced.
    changes: defaultdict[bool, list[dict[str, Any]]] = defaultdict(list)
    for ending, after in pairs:
        if after.verdict is not Verdict.SUCCEEDED:
            changes[after.verdict is Verdict.SUPERSEDED].append({"task": ending.task, **_after(after, ending.ended)})
    for rows_of_a_shape in changes.values():
        connection.execute(_CHANGE, rows_of_a_shape)
    _hold_names(connection, pairs)
    return settled


def _queues(connection: Connection, endings: Iterable[Ending]) -> dict[str, Queue | None]:
    """Return the queues that by now say how tasks are tried again."""
    asked = {
        ending.sending.stored.key
        for ending in endings
        if not ending.ended.succeeded and ending.sending.stored.task.retry_config is None
    }
    return {key: cloud_queues.find(connection, key) for key in sorted(asked)}


def _settled(ending: Ending, row: Any, queues: dict[str, Queue | None]) -> Settled | None:
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
    return settle(ending.sending.number, ending.ended, counters, _retrying(ending.sending, queues))


def _retrying(sending: Sending, queues: dict[str, Queue | None]) -> RetryConfig:
    """Return how the task is retried: what it says itself, or its queue says by now."""
    own = sending.stored.task.retry_config
    return own or (queues.get(sending.stored.key) or sending.queue).config.retry_config


def _hold_names(connection: Connection, pairs: Iterable[tuple[Ending, Settled]]) -> None:
    for ending, after in pairs:
        stored, ended, ttl = ending.sending.stored, ending.ended, ending.sending.queue.config.tombstone_ttl
        if stored.is_named and after.verdict in (Verdict.SUCCEEDED, Verdict.DEAD):
            hold(connection, [(stored.key, stored.task.name.rpartition("/")[2])], ended.end_time + ttl)


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


def _kept(sending: Sending, ended: Ended) -> dict[str, Any]:
    status = ended.attempt_status
    return {
        "task_id": sending.stored.id,
        "number": sending.number,
        "queue": sending.stored.key,
        "name": sending.stored.task.name.rpartition("/")[2],
        "dispatch_time": sending.dispatch_time,
        "end_time": ended.end_time,
        "status": ended.status,
        "code": status.code,
        "message": status.message,
        "response_head": ended.response_head,
    }
