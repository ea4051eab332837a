"""Queues as stored: limits, state, token bucket. The bucket and the state also move in ``Changes``."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, select, update

from hopline_engine.store.dialect import insert_missing
from hopline_engine.store.tables import queue


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Limits of a queue, named as in Cloud Tasks; ``None`` is no limit."""

    name: str
    max_dispatches_per_second: float | None = None
    max_burst_size: int | None = None
    max_concurrent_dispatches: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredQueue(QueueLimits):
    """A queue as it is."""

    state: str = "running"
    tokens: float = 0.0
    tokens_at: float = 0.0

    @property
    def limits(self) -> QueueLimits:
        """Its limits alone."""
        return QueueLimits(**{name: getattr(self, name) for name in QueueLimits.__dataclass_fields__})


def set_limits(connection: Connection, limits: Iterable[QueueLimits]) -> None:
    """Set the limits of queues, adding those that are new; state and tokens of the others stay."""
    for each in sorted(limits, key=lambda each: each.name):  # the order in which queues are locked
        insert_missing(connection, queue, [asdict(StoredQueue(name=each.name))])
        values = asdict(each)
        connection.execute(update(queue).where(queue.c.name == values.pop("name")).values(**values))


def pause(connection: Connection, *, limits: QueueLimits, paused: bool, is_stored: bool) -> None:
    """Pause or resume a queue; one that may not be stored yet is stored with these *limits*."""
    if not is_stored:
        insert_missing(connection, queue, [asdict(StoredQueue(**asdict(limits)))])
    state = "paused" if paused else "running"
    connection.execute(update(queue).where(queue.c.name == limits.name).values(state=state))


def all_queues(connection: Connection) -> list[StoredQueue]:
    """Return all queues by name."""
    return [StoredQueue(**row) for row in connection.execute(select(queue).order_by(queue.c.name)).mappings()]
