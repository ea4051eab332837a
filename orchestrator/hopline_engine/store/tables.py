"""The tables, and the only description of them: migrations, hot statements and queries follow from here.

Times are Unix seconds. What users wrote (inputs, results, errors) is kept as the UTF-8 JSON bytes that were checked at
the edge, and stands last in its row, so that reading the columns before it never touches the pages it spills to.
Ids are given out by the engine, never by the database.

History is stored in the order in which it happens, not by run (no ``WITHOUT ROWID``): the steps of many runs that move
at once then go to the same few pages, which halves what a commit writes to the log.
"""

from typing import Any, ClassVar, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    column,
    or_,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import registry
from sqlalchemy.schema import CreateIndex
from sqlmodel import Field, SQLModel

from hopline_engine.core.cloud.model import Stage
from hopline_engine.core.model import AttemptState, RunState, StepState, TaskState
from hopline_engine.core.states import FINAL_STEP_STATES
from hopline_engine.core.ticks import TickState

_NAMES: Final = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
}

_BIG: Final = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite makes a primary key the row id only if its type is exactly INTEGER, which has 64 bits there."""

_KEY_TEXT: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that is looked up by prefix: compared byte by byte on both databases."""


def _big(**options: Any) -> Any:
    return Field(sa_type=_BIG, **options)


def _big_key() -> Any:
    return _big(primary_key=True, sa_column_kwargs={"autoincrement": False})


def _int_key() -> Any:
    return Field(primary_key=True, sa_column_kwargs={"autoincrement": False})


def _text(**options: Any) -> Any:
    return Field(sa_type=Text, **options)


def _time(**options: Any) -> Any:
    return Field(sa_type=Double, **options)


def _state_is(*states: str) -> CheckConstraint:
    """Allow these states, the most common one first.

    Said with OR: for IN, SQLite fills a temporary table at each check, which made an insert half as dear again.
    """
    return CheckConstraint(or_(*[column("state", Text) == state for state in states]), name="state")


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=text(where))


REFERS: Final = {
    "sqlite": "instr({column}, x'01') > 0",
    "postgresql": "position('\\x01'::bytea in {column}) > 0",
}
"""What holds of a value that refers to another one, by the name of the dialect; in the words of the indexes."""


def _referring(name: str, *columns: str, value: str) -> Index:
    """Index the rows in which a value refers to another one, of which there are few."""
    where = {dialect: text(refers.format(column=value)) for dialect, refers in REFERS.items()}
    return Index(name, *columns, sqlite_where=where["sqlite"], info={"where": where["postgresql"]})


@compiles(CreateIndex, "postgresql")
def _create_index_on_postgres(create: CreateIndex, compiler: Any, **options: Any) -> str:
    """Make what is partial on SQLite partial here; said in the index itself, it would load this dialect everywhere."""
    index = create.element
    here = index.dialect_options["postgresql"]
    if here["where"] is None:
        here["where"] = index.info.get("where", index.dialect_options["sqlite"]["where"])
    return str(compiler.visit_create_index(create, **options))


class Row(SQLModel, registry=registry(metadata=MetaData(naming_convention=_NAMES))):
    """Base of the tables; its metadata is the schema and holds nothing of anybody else's."""

    __tablename__: ClassVar[str]  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel takes a plain name


class DefinitionRow(Row, table=True):
    """A version of a workflow, kept as long as a run refers to it. Never changed."""

    __tablename__ = "definition"

    digest: str = _text(primary_key=True)
    name: str = _text()
    created_at: float = _time()
    body: bytes
    """Canonical JSON."""


class Workflow(Row, table=True):
    """The version of a workflow that new runs use."""

    __tablename__ = "workflow"

    name: str = _text(primary_key=True)
    digest: str = Field(sa_type=Text, sa_column_args=[ForeignKey("definition.digest")])
    updated_at: float = _time()


class RunRow(Row, table=True):
    """A run, of a workflow or of a sub-workflow. Once its state is final, nothing in it changes (trigger)."""

    __tablename__ = "run"
    __table_args__ = (
        _state_is(*[state.value for state in RunState]),
        CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="ended"),
        _partial("run_key", "idempotency_key", where="idempotency_key IS NOT NULL", unique=True),
        _partial("run_children", "parent_id", where="parent_id IS NOT NULL"),
        _partial("run_live", "id", where="state = 'running'"),
        _partial("run_retries", "retry_of", where="retry_of IS NOT NULL"),
        # What people list and page through: only runs that were started by somebody, newest first.
        _partial("run_listed", "created_at", "id", where="parent_id IS NULL"),
        _partial("run_listed_by_workflow", "workflow", "created_at", "id", where="parent_id IS NULL"),
        _partial("run_failed", "created_at", "id", where="parent_id IS NULL AND state = 'failed'"),
        _referring("run_input_referring", "id", value="input"),
        _referring("run_result_referring", "id", value="result"),
    )

    id: int = _big_key()
    public_id: str = Field(sa_type=_KEY_TEXT, unique=True)
    workflow: str = _text()
    digest: str = Field(sa_type=Text, sa_column_args=[ForeignKey("definition.digest")])
    state: str = _text()
    idempotency_key: str | None = _text()
    parent_id: int | None = _big()
    parent_node: int | None
    parent_item: int | None
    retry_of: int | None = _big()
    created_at: float = _time()
    ended_at: float | None = _time()
    input: bytes
    result: bytes | None
    error: bytes | None
    fork_of: int | None = _big()
    paused_at: float | None = _time()
    ending: str | None = _text()
    """The final state that it will have when its undo steps are done."""


class StepRunRow(Row, table=True):
    """How a step, or one element of a map, ended. Written once, at that moment; never changed (trigger)."""

    __tablename__ = "step_run"
    __table_args__ = (
        _state_is(*[state.value for state in StepState if state in FINAL_STEP_STATES]),
        _referring("step_run_referring", "run_id", value="result"),
    )

    run_id: int = _big_key()
    node: int = _int_key()
    item: int = _int_key()
    state: str = _text()
    attempts: int
    started_at: float | None = _time()
    ended_at: float = _time()
    error: bytes | None
    result: bytes | None


class AttemptRow(Row, table=True):
    """One attempt that is over. Never changed (trigger)."""

    __tablename__ = "attempt"
    __table_args__ = (
        _state_is(*[state.value for state in AttemptState]),
        CheckConstraint("attempt >= 1", name="attempt"),
    )

    run_id: int = _big_key()
    node: int = _int_key()
    item: int = _int_key()
    attempt: int = _int_key()
    state: str = _text()
    status: int | None
    started_at: float = _time()
    ended_at: float = _time()
    error: bytes | None
    logs: str | None = _text()


class TaskRow(Row, table=True):
    """The queued task of an open step: narrow, and gone as soon as its step ends."""

    __tablename__ = "task"
    __table_args__ = (
        CheckConstraint(f"state BETWEEN {min(TaskState):d} AND {max(TaskState):d}", name="state"),
        Index("task_step", "run_id", "node", "item", unique=True),
        _partial("task_due", "queue", "schedule_time", where="state = 0"),
    )

    id: int = _big_key()
    run_id: int = _big()
    node: int
    item: int
    queue: str = _text()
    state: int
    attempt: int
    lost: int
    schedule_time: float = _time()
    deadline_time: float | None = _time()
    first_attempt_at: float | None = _time()
    leased_at: float | None = _time()
    epoch: int = _big()
    blamed: int = Field(sa_column_kwargs={"server_default": text("0")})


class KeyClaimRow(Row, table=True):
    """A task with a key that some node wants to send, or has sent, where several nodes send tasks of a queue.

    Those that are held are worked on, or about to be sent; the others wait for their turn.
    """

    __tablename__ = "key_claim"
    __table_args__ = (Index("key_claim_key", "queue", "key"),)

    task_id: int = _big_key()
    queue: str = Field(sa_type=_KEY_TEXT)
    key: str = Field(sa_type=_KEY_TEXT)
    key_limit: int
    """How many of the key may be held for this one to be held too, itself among them."""
    since: float = _time()
    """When it became due: the order in which claims are granted."""
    is_held: bool
    words: str = _text()
    """What people call it."""


class ParkedRunRow(Row, table=True):
    """A run that has not ended and only waits: no node has it in memory until something happens to it."""

    __tablename__ = "parked_run"
    __table_args__ = (Index("parked_run_wake", "wake_at"),)

    run_id: int = _big_key()
    wake_at: float | None = _time()


class WaitRow(Row, table=True):
    """What a parked task waits for, so that it is found by that; gone with the task."""

    __tablename__ = "wait"
    __table_args__ = (Index("wait_for", "name", "key"),)

    task_id: int = _big_key()
    run_id: int = _big()
    name: str = _text()
    key: str = _text()


class ApprovalRow(Row, table=True):
    """A person was asked to decide, and what was decided. A decision is never changed."""

    __tablename__ = "approval"
    __table_args__ = (Index("approval_step", "run_id", "node", "item"), Index("approval_asked", "asked_at"))

    task_id: int = _big_key()
    run_id: int = _big()
    node: int
    item: int
    prompt: str = _text()
    asked_at: float = _time()
    expires_at: float | None = _time()
    approved: bool | None
    person: str | None = _text()
    decided_at: float | None = _time()
    recipients: bytes
    form: bytes | None


class EventRow(Row, table=True):
    """Something that happened; the first of its name and key, kept for a while. Never changed."""

    __tablename__ = "event"
    __table_args__ = (Index("event_emitted", "emitted_at"),)

    name: str = _text(primary_key=True)
    key: str = _text(primary_key=True)
    emitted_at: float = _time()
    payload: bytes


class SecretRow(Row, table=True):
    """A secret: its name, and its value encrypted with a key that is not in the database."""

    __tablename__ = "secret"

    name: str = _text(primary_key=True)
    created_at: float = _time()
    updated_at: float = _time()
    sealed: bytes


class QueueRow(Row, table=True):
    """A queue: its limits, named as in Cloud Tasks, and its token bucket. A limit of null is no limit."""

    __tablename__ = "queue"
    __table_args__ = (
        _state_is("running", "paused"),
        CheckConstraint("max_dispatches_per_second > 0", name="rate"),
        CheckConstraint("max_burst_size >= 1", name="burst"),
        CheckConstraint("max_concurrent_dispatches >= 1", name="concurrency"),
    )

    name: str = _text(primary_key=True)
    state: str = _text()
    max_dispatches_per_second: float | None = Field(sa_type=Double)
    max_burst_size: int | None
    max_concurrent_dispatches: int | None
    tokens: float = Field(sa_type=Double)
    tokens_at: float = _time()


class NodeRow(Row, table=True):
    """A process of the engine that works on runs. Without its row, nothing that it commits counts."""

    __tablename__ = "node"

    id: str = _text(primary_key=True)
    """Random for each start of a process, so that a restarted one is never taken for its predecessor."""
    epoch: int = _big()
    url: str | None = _text()
    started_at: float = _time()
    heartbeat_at: float = _time()
    committed: int = _big(sa_column_kwargs={"server_default": text("0")})
    """Number of its last group of commits that is durable, where it counts them."""


class ShardRow(Row, table=True):
    """A fixed part of all runs, and the node that works on them. Nobody's when its node has gone."""

    __tablename__ = "shard"

    id: int = _int_key()
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
    __table_args__ = (_partial("schedule_due", "due_at", where="due_at IS NOT NULL"),)

    name: str = Field(sa_type=_KEY_TEXT, primary_key=True)
    shard: int
    workflow: str = _text()
    is_edited: bool
    is_paused: bool
    revision: int
    created_at: float = _time()
    anchor_at: float = _time()
    next_tick: float | None = _time()
    due_at: float | None = _time()
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

    schedule: str = Field(sa_type=_KEY_TEXT, primary_key=True)
    since: float = Field(sa_type=Double, primary_key=True)
    spec: bytes


class TickRow(Row, table=True):
    """A tick of a schedule, and what became of it. Its key is what makes it happen once."""

    __tablename__ = "tick"
    __table_args__ = (
        CheckConstraint(f"state BETWEEN {min(TickState):d} AND {max(TickState):d}", name="state"),
        _partial("tick_open", "state", "schedule", "at", where="state < 4"),
        _partial("tick_passed", "decided_at", where="state > 4"),
    )

    schedule: str = Field(sa_type=_KEY_TEXT, primary_key=True)
    at: float = Field(sa_type=Double, primary_key=True)
    state: int
    kind: str = _text()
    decided_at: float = _time()
    started_at: float | None = _time()
    run_id: int | None = _big()
    reason: str | None = _text()


class CloudQueueRow(Row, table=True):
    """A queue that was made through the queue service; its limits, state and tokens are in the row of ``queue``."""

    __tablename__ = "cloud_queue"
    __table_args__ = (Index("cloud_queue_listed", "parent", "key"),)

    key: str = Field(sa_type=_KEY_TEXT, primary_key=True)
    """What the engine calls it: the ``name`` of its row in ``queue``."""
    parent: str = Field(sa_type=_KEY_TEXT)
    """Project and location."""
    is_pull: bool
    is_shared: bool
    """Whether steps had a queue of this name before: then that one stays when this one is deleted."""
    purge_time: float | None = _time()
    create_time: float = _time()
    config: bytes
    """JSON of ``core.cloud.model.QueueConfig``."""
    policy: bytes | None
    """JSON of its IAM policy."""


class CloudTaskRow(Row, table=True):
    """A task that was made through the queue service, until it succeeds, is deleted or expires."""

    __tablename__ = "cloud_task"
    __table_args__ = (
        CheckConstraint(f"stage BETWEEN {min(Stage):d} AND {max(Stage):d}", name="stage"),
        _partial("cloud_task_name", "queue", "name", where="stage < 2", unique=True),
        _partial("cloud_task_due", "queue", "schedule_time", "id", where="stage = 0"),
        _partial("cloud_task_dispatched", "node", where="stage = 1"),
        _partial("cloud_task_dead", "queue", "id", where="stage = 2"),
        Index("cloud_task_expires", "expire_time"),
    )

    id: int = _big_key()
    queue: str = Field(sa_type=_KEY_TEXT)
    name: str = Field(sa_type=_KEY_TEXT)
    """The last part of its name."""
    is_named: bool
    """Whether its creator chose the name: then the name is held for a while after its end."""
    stage: int
    schedule_time: float = _time()
    create_time: float = _time()
    expire_time: float = _time()
    dispatch_deadline: float | None = _time()
    dispatch_count: int
    response_count: int
    execution_count: int
    """Answers that the next attempt is told of: all but 5xx for HTTP targets, all for App Engine."""
    lost_count: int
    """Attempts that a dying engine did not see the end of; they do not count against ``max_attempts``."""
    first_dispatch_time: float | None = _time()
    last_schedule_time: float | None = _time()
    last_dispatch_time: float | None = _time()
    last_response_time: float | None = _time()
    last_code: int | None
    last_message: str | None = _text()
    previous_response: int | None
    retry_reason: str = _text()
    node: str | None = _text()
    """The process that has the present attempt."""
    tag: str | None = _text()
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

    task_id: int = _big_key()
    number: int = _int_key()
    queue: str = Field(sa_type=_KEY_TEXT)
    name: str = Field(sa_type=_KEY_TEXT)
    dispatch_time: float = _time()
    end_time: float = _time()
    status: int | None
    """HTTP status, if it was answered."""
    code: int
    message: str = _text()
    response_head: str = _text()
    """The head of the response and the beginning of its body."""


class CloudTombstoneRow(Row, table=True):
    """A name that may not be used again yet: of a task, or with an empty ``name`` of a queue."""

    __tablename__ = "cloud_tombstone"
    __table_args__ = (Index("cloud_tombstone_until", "until"),)

    queue: str = Field(sa_type=_KEY_TEXT, primary_key=True)
    name: str = Field(sa_type=_KEY_TEXT, primary_key=True)
    until: float = _time()


class CloudOperationRow(Row, table=True):
    """The outcome of a batch call, which its caller may ask for again."""

    __tablename__ = "cloud_operation"
    __table_args__ = (Index("cloud_operation_made", "create_time"),)

    name: str = Field(sa_type=_KEY_TEXT, primary_key=True)
    create_time: float = _time()
    body: bytes
    """JSON of the operation, as the REST API shows it."""


class Meta(Row, table=True):
    """Facts about the store itself: ``store_id`` and the counter ``epoch``."""

    __tablename__ = "meta"

    key: str = _text(primary_key=True)
    value: str = _text()


METADATA: Final = Row.metadata
definition: Final = METADATA.tables["definition"]
workflow: Final = METADATA.tables["workflow"]
run: Final = METADATA.tables["run"]
step_run: Final = METADATA.tables["step_run"]
attempt: Final = METADATA.tables["attempt"]
task: Final = METADATA.tables["task"]
parked_run: Final = METADATA.tables["parked_run"]
key_claim: Final = METADATA.tables["key_claim"]
wait: Final = METADATA.tables["wait"]
approval: Final = METADATA.tables["approval"]
event: Final = METADATA.tables["event"]
secret: Final = METADATA.tables["secret"]
queue: Final = METADATA.tables["queue"]
node: Final = METADATA.tables["node"]
shard: Final = METADATA.tables["shard"]
queue_share: Final = METADATA.tables["queue_share"]
schedule: Final = METADATA.tables["schedule"]
schedule_version: Final = METADATA.tables["schedule_version"]
tick: Final = METADATA.tables["tick"]
meta: Final = METADATA.tables["meta"]
cloud_queue: Final = METADATA.tables["cloud_queue"]
cloud_task: Final = METADATA.tables["cloud_task"]
cloud_attempt: Final = METADATA.tables["cloud_attempt"]
cloud_tombstone: Final = METADATA.tables["cloud_tombstone"]
cloud_operation: Final = METADATA.tables["cloud_operation"]
