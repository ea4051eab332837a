"""The tables of the engine, and the only description of them: migrations, hot statements and queries follow from here.

Times are Unix seconds. What users wrote (inputs, results, errors) is kept as the UTF-8 JSON bytes that were checked at
the edge, and stands last in its row, so that reading the columns before it never touches the pages it spills to.
Ids are given out by the engine, never by the database.

History is stored in the order in which it happens, not by run (no ``WITHOUT ROWID``): the steps of many runs that move
at once then go to the same few pages, which halves what a commit writes to the log.
"""

from typing import Final

from sqlalchemy import CheckConstraint, Double, ForeignKey, Index, Text, text
from sqlmodel import Field

from hopline_engine.core.model import AttemptState, RunState, StepState, TaskState
from hopline_engine.core.states import FINAL_STEP_STATES
from hopline_engine.core.ticks import TickState
from hopline_engine.store.columns import (
    KEY_TEXT,
    Row,
    big,
    big_key,
    int_key,
    partial_index,
    referring_index,
    state_is,
    text_column,
    time_column,
)


class DefinitionRow(Row, table=True):
    """A version of a workflow, kept as long as a run refers to it. Never changed."""

    __tablename__ = "definition"

    digest: str = text_column(primary_key=True)
    name: str = text_column()
    created_at: float = time_column()
    body: bytes
    """Canonical JSON."""


class Workflow(Row, table=True):
    """The version of a workflow that new runs use."""

    __tablename__ = "workflow"

    name: str = text_column(primary_key=True)
    digest: str = Field(sa_type=Text, sa_column_args=[ForeignKey("definition.digest")])
    updated_at: float = time_column()


class RunRow(Row, table=True):
    """A run, of a workflow or of a sub-workflow. Once its state is final, nothing in it changes (trigger)."""

    __tablename__ = "run"
    __table_args__ = (
        state_is(*[state.value for state in RunState]),
        CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="ended"),
        partial_index("run_key", "idempotency_key", where="idempotency_key IS NOT NULL", unique=True),
        partial_index("run_children", "parent_id", where="parent_id IS NOT NULL"),
        partial_index("run_live", "id", where="state = 'running'"),
        partial_index("run_retries", "retry_of", where="retry_of IS NOT NULL"),
        # What people list and page through: only runs that were started by somebody, newest first.
        partial_index("run_listed", "created_at", "id", where="parent_id IS NULL"),
        partial_index("run_listed_by_workflow", "workflow", "created_at", "id", where="parent_id IS NULL"),
        partial_index("run_failed", "created_at", "id", where="parent_id IS NULL AND state = 'failed'"),
        referring_index("run_input_referring", "id", value="input"),
        referring_index("run_result_referring", "id", value="result"),
    )

    id: int = big_key()
    public_id: str = Field(sa_type=KEY_TEXT, unique=True)
    workflow: str = text_column()
    digest: str = Field(sa_type=Text, sa_column_args=[ForeignKey("definition.digest")])
    state: str = text_column()
    idempotency_key: str | None = text_column()
    parent_id: int | None = big()
    parent_node: int | None
    parent_item: int | None
    retry_of: int | None = big()
    created_at: float = time_column()
    ended_at: float | None = time_column()
    input: bytes
    result: bytes | None
    error: bytes | None
    fork_of: int | None = big()
    paused_at: float | None = time_column()
    ending: str | None = text_column()
    """The final state that it will have when its undo steps are done."""
    priority: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})


class StepRunRow(Row, table=True):
    """How a step, or one element of a map, ended. Written once, at that moment; never changed (trigger)."""

    __tablename__ = "step_run"
    __table_args__ = (
        state_is(*[state.value for state in StepState if state in FINAL_STEP_STATES]),
        referring_index("step_run_referring", "run_id", value="result"),
    )

    run_id: int = big_key()
    node: int = int_key()
    item: int = int_key()
    state: str = text_column()
    attempts: int
    started_at: float | None = time_column()
    ended_at: float = time_column()
    error: bytes | None
    result: bytes | None


class AttemptRow(Row, table=True):
    """One attempt that is over. Never changed (trigger)."""

    __tablename__ = "attempt"
    __table_args__ = (
        state_is(*[state.value for state in AttemptState]),
        CheckConstraint("attempt >= 1", name="attempt"),
    )

    run_id: int = big_key()
    node: int = int_key()
    item: int = int_key()
    attempt: int = int_key()
    state: str = text_column()
    status: int | None
    started_at: float = time_column()
    ended_at: float = time_column()
    error: bytes | None
    logs: str | None = text_column()


class TaskRow(Row, table=True):
    """The queued task of an open step: narrow, and gone as soon as its step ends."""

    __tablename__ = "task"
    __table_args__ = (
        CheckConstraint(f"state BETWEEN {min(TaskState):d} AND {max(TaskState):d}", name="state"),
        Index("task_step", "run_id", "node", "item", unique=True),
        partial_index("task_due", "queue", "schedule_time", where="state = 0"),
    )

    id: int = big_key()
    run_id: int = big()
    node: int
    item: int
    queue: str = text_column()
    state: int
    attempt: int
    lost: int
    schedule_time: float = time_column()
    deadline_time: float | None = time_column()
    first_attempt_at: float | None = time_column()
    leased_at: float | None = time_column()
    epoch: int = big()
    blamed: int = Field(sa_column_kwargs={"server_default": text("0")})


class KeyClaimRow(Row, table=True):
    """A task with a key that some node wants to send, or has sent, where several nodes send tasks of a queue.

    Those that are held are worked on, or about to be sent; the others wait for their turn.
    """

    __tablename__ = "key_claim"
    __table_args__ = (Index("key_claim_key", "queue", "key"),)

    task_id: int = big_key()
    queue: str = Field(sa_type=KEY_TEXT)
    key: str = Field(sa_type=KEY_TEXT)
    key_limit: int
    """How many of the key may be held for this one to be held too, itself among them."""
    since: float = time_column()
    """When it became due: the order in which claims are granted."""
    is_held: bool
    words: str = text_column()
    """What people call it."""


class ParkedRunRow(Row, table=True):
    """A run that has not ended and only waits: no node has it in memory until something happens to it."""

    __tablename__ = "parked_run"
    __table_args__ = (Index("parked_run_wake", "wake_at"),)

    run_id: int = big_key()
    wake_at: float | None = time_column()


class WaitRow(Row, table=True):
    """What a parked task waits for, so that it is found by that; gone with the task."""

    __tablename__ = "wait"
    __table_args__ = (Index("wait_for", "name", "key"),)

    task_id: int = big_key()
    run_id: int = big()
    name: str = text_column()
    key: str = text_column()


class ApprovalRow(Row, table=True):
    """A person was asked to decide, and what was decided. A decision is never changed."""

    __tablename__ = "approval"
    __table_args__ = (Index("approval_step", "run_id", "node", "item"), Index("approval_asked", "asked_at"))

    task_id: int = big_key()
    run_id: int = big()
    node: int
    item: int
    prompt: str = text_column()
    asked_at: float = time_column()
    expires_at: float | None = time_column()
    approved: bool | None
    person: str | None = text_column()
    decided_at: float | None = time_column()
    recipients: bytes
    form: bytes | None


class EventRow(Row, table=True):
    """Something that happened; the first of its name and key, kept for a while. Never changed."""

    __tablename__ = "event"
    __table_args__ = (Index("event_emitted", "emitted_at"),)

    name: str = text_column(primary_key=True)
    key: str = text_column(primary_key=True)
    emitted_at: float = time_column()
    payload: bytes


class SecretRow(Row, table=True):
    """A secret: its name, and its value encrypted with a key that is not in the database."""

    __tablename__ = "secret"

    name: str = text_column(primary_key=True)
    created_at: float = time_column()
    updated_at: float = time_column()
    sealed: bytes


class QueueRow(Row, table=True):
    """A queue: its limits, named as in Cloud Tasks, and its token bucket. A limit of null is no limit."""

    __tablename__ = "queue"
    __table_args__ = (
        state_is("running", "paused"),
        CheckConstraint("max_dispatches_per_second > 0", name="rate"),
        CheckConstraint("max_burst_size >= 1", name="burst"),
        CheckConstraint("max_concurrent_dispatches >= 1", name="concurrency"),
    )

    name: str = text_column(primary_key=True)
    state: str = text_column()
    max_dispatches_per_second: float | None = Field(sa_type=Double)
    max_burst_size: int | None
    max_concurrent_dispatches: int | None
    tokens: float = Field(sa_type=Double)
    tokens_at: float = time_column()


class NodeRow(Row, table=True):
    """A process of the engine that works on runs. Without its row, nothing that it commits counts."""

    __tablename__ = "node"

    id: str = text_column(primary_key=True)
    """Random for each start of a process, so that a restarted one is never taken for its predecessor."""
    epoch: int = big()
    url: str | None = text_column()
    started_at: float = time_column()
    heartbeat_at: float = time_column()
    committed: int = big(sa_column_kwargs={"server_default": text("0")})
    """Number of its last group of commits that is durable, where it counts them."""


class ShardRow(Row, table=True):
    """A fixed part of all runs, and the node that works on them. Nobody's when its node has gone."""

    __tablename__ = "shard"

    id: int = int_key()
    node: str | None = Field(sa_type=Text, sa_column_args=[ForeignKey("node.id", ondelete="SET NULL")])


class QueueShareRow(Row, table=True):
    """What a node may use of the limits of a queue that several nodes share; gone with the node."""

    __tablename__ = "queue_share"
    __table_args__ = (CheckConstraint("slots >= 0", name="slots"),)

    queue: str = Field(sa_type=Text, sa_column_args=[ForeignKey("queue.name", ondelete="CASCADE")], primary_key=True)
    node: str = Field(sa_type=Text, sa_column_args=[ForeignKey("node.id", ondelete="CASCADE")], primary_key=True)
    slots: int
    """Of ``max_concurrent_dispatches``: what it has in flight is never more."""
    wanted: int
    """How many it has in flight or due."""


class ScheduleRow(Row, table=True):
    """When a workflow runs by itself."""

    __tablename__ = "schedule"
    __table_args__ = (partial_index("schedule_due", "due_at", where="due_at IS NOT NULL"),)

    name: str = Field(sa_type=KEY_TEXT, primary_key=True)
    shard: int
    workflow: str = text_column()
    is_edited: bool
    is_paused: bool
    revision: int
    created_at: float = time_column()
    anchor_at: float = time_column()
    next_tick: float | None = time_column()
    due_at: float | None = time_column()
    """When the engine is to look at it next; null when it is paused, or has no further tick."""
    spec: bytes
    """JSON of what is in force; see ``core.schedules``."""
    declared: bytes | None
    """The same of what the workflow's file says."""
    input: bytes
    backfill: bytes | None
    """JSON of how fast the ticks of a back-fill are started, while there are any."""


class ScheduleVersionRow(Row, table=True):
    """What was in force from a time on; never changed."""

    __tablename__ = "schedule_version"

    schedule: str = Field(sa_type=KEY_TEXT, primary_key=True)
    since: float = Field(sa_type=Double, primary_key=True)
    spec: bytes


class TickRow(Row, table=True):
    """A tick of a schedule, and what became of it. Its key is what makes it happen once."""

    __tablename__ = "tick"
    __table_args__ = (
        CheckConstraint(f"state BETWEEN {min(TickState):d} AND {max(TickState):d}", name="state"),
        partial_index("tick_open", "state", "schedule", "at", where="state < 4"),
        partial_index("tick_passed", "decided_at", where="state > 4"),
    )

    schedule: str = Field(sa_type=KEY_TEXT, primary_key=True)
    at: float = Field(sa_type=Double, primary_key=True)
    state: int
    kind: str = text_column()
    decided_at: float = time_column()
    started_at: float | None = time_column()
    run_id: int | None = big()
    reason: str | None = text_column()


class Meta(Row, table=True):
    """Facts about the store itself: ``store_id`` and the counter ``epoch``."""

    __tablename__ = "meta"

    key: str = text_column(primary_key=True)
    value: str = text_column()


_TABLES: Final = Row.metadata.tables
definition: Final = _TABLES["definition"]
workflow: Final = _TABLES["workflow"]
run: Final = _TABLES["run"]
step_run: Final = _TABLES["step_run"]
attempt: Final = _TABLES["attempt"]
task: Final = _TABLES["task"]
parked_run: Final = _TABLES["parked_run"]
key_claim: Final = _TABLES["key_claim"]
wait: Final = _TABLES["wait"]
approval: Final = _TABLES["approval"]
event: Final = _TABLES["event"]
secret: Final = _TABLES["secret"]
queue: Final = _TABLES["queue"]
node: Final = _TABLES["node"]
shard: Final = _TABLES["shard"]
queue_share: Final = _TABLES["queue_share"]
schedule: Final = _TABLES["schedule"]
schedule_version: Final = _TABLES["schedule_version"]
tick: Final = _TABLES["tick"]
meta: Final = _TABLES["meta"]
