"""The tables of the queue service: its queues, tasks and attempts, and what it keeps of those that are gone.

Of tasks, each stage has an index of its own and there is none of all: a query says of which ones it speaks.
"""

from typing import Final

from sqlalchemy import CheckConstraint, ColumnElement, Index, literal
from sqlmodel import Field

from hopline_engine.core.cloud.model import Stage
from hopline_engine.store.columns import (
    KEY_TEXT,
    Row,
    big_key,
    int_key,
    partial_index,
    text_column,
    time_column,
)


class CloudQueueRow(Row, table=True):
    """A queue that was made through the queue service; its limits, state and tokens are in the row of ``queue``."""

    __tablename__ = "cloud_queue"
    __table_args__ = (Index("cloud_queue_listed", "parent", "key"),)

    key: str = Field(sa_type=KEY_TEXT, primary_key=True)
    """What the engine calls it: the ``name`` of its row in ``queue``."""
    parent: str = Field(sa_type=KEY_TEXT)
    """Project and location."""
    is_pull: bool
    is_shared: bool
    """Whether steps had a queue of this name before: then that one stays when this one is deleted."""
    purge_time: float | None = time_column()
    create_time: float = time_column()
    config: bytes
    """JSON of ``core.cloud.model.QueueConfig``."""
    policy: bytes | None
    """JSON of its IAM policy."""


class CloudTaskRow(Row, table=True):
    """A task that was made through the queue service, until it succeeds, is deleted or expires."""

    __tablename__ = "cloud_task"
    __table_args__ = (
        CheckConstraint(f"stage BETWEEN {min(Stage):d} AND {max(Stage):d}", name="stage"),
        partial_index("cloud_task_name", "queue", "name", where="stage < 2", unique=True),
        partial_index("cloud_task_due", "queue", "schedule_time", "id", where="stage = 0"),
        partial_index("cloud_task_dispatched", "node", where="stage = 1"),
        partial_index("cloud_task_dead", "queue", "id", where="stage = 2"),
        Index("cloud_task_expires", "expire_time"),
    )

    id: int = big_key()
    queue: str = Field(sa_type=KEY_TEXT)
    name: str = Field(sa_type=KEY_TEXT)
    """The last part of its name."""
    is_named: bool
    """Whether its creator chose the name: then the name is held for a while after its end."""
    stage: int
    schedule_time: float = time_column()
    create_time: float = time_column()
    expire_time: float = time_column()
    dispatch_deadline: float | None = time_column()
    dispatch_count: int
    response_count: int
    execution_count: int
    """Answers that the next attempt is told of: all but 5xx for HTTP targets, all for App Engine."""
    lost_count: int
    """Attempts that a dying engine did not see the end of; they do not count against ``max_attempts``."""
    first_dispatch_time: float | None = time_column()
    last_schedule_time: float | None = time_column()
    last_dispatch_time: float | None = time_column()
    last_response_time: float | None = time_column()
    last_code: int | None
    last_message: str | None = text_column()
    previous_response: int | None
    retry_reason: str = text_column()
    node: str | None = text_column()
    """The process that has the present attempt."""
    tag: str | None = text_column()
    request: bytes
    """JSON of what is sent, without the body."""
    body: bytes


class CloudAttemptRow(Row, table=True):
    """An attempt of a task that is over; kept for a while, also when the task is not."""

    __tablename__ = "cloud_attempt"
    __table_args__ = (
        Index("cloud_attempt_listed", "queue", "name", "dispatch_time"),
        Index("cloud_attempt_ended", "end_time"),
    )

    task_id: int = big_key()
    number: int = int_key()
    queue: str = Field(sa_type=KEY_TEXT)
    name: str = Field(sa_type=KEY_TEXT)
    dispatch_time: float = time_column()
    end_time: float = time_column()
    status: int | None
    """HTTP status, if it was answered."""
    code: int
    message: str = text_column()
    response_head: str = text_column()
    """The head of the response and the beginning of its body."""


class CloudTombstoneRow(Row, table=True):
    """A name that may not be used again yet: of a task, or with an empty ``name`` of a queue."""

    __tablename__ = "cloud_tombstone"
    __table_args__ = (Index("cloud_tombstone_until", "until"),)

    queue: str = Field(sa_type=KEY_TEXT, primary_key=True)
    name: str = Field(sa_type=KEY_TEXT, primary_key=True)
    until: float = time_column()


class CloudOperationRow(Row, table=True):
    """The outcome of a batch call, which its caller may ask for again."""

    __tablename__ = "cloud_operation"
    __table_args__ = (Index("cloud_operation_made", "create_time"),)

    name: str = Field(sa_type=KEY_TEXT, primary_key=True)
    create_time: float = time_column()
    body: bytes
    """JSON of the operation, as the REST API shows it."""


_TABLES: Final = Row.metadata.tables
cloud_queue: Final = _TABLES["cloud_queue"]
cloud_task: Final = _TABLES["cloud_task"]
cloud_attempt: Final = _TABLES["cloud_attempt"]
cloud_tombstone: Final = _TABLES["cloud_tombstone"]
cloud_operation: Final = _TABLES["cloud_operation"]


def is_open() -> ColumnElement[bool]:
    """Return what is true of tasks that are not over."""
    # Written into the statement: SQLite takes a partial index only if it sees the value.
    return cloud_task.c.stage < literal(int(Stage.DEAD), literal_execute=True)


def is_in(stage: Stage) -> ColumnElement[bool]:
    """Return what is true of tasks in a stage."""
    return cloud_task.c.stage == literal(int(stage), literal_execute=True)
