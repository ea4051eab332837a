"""The vocabulary of the engine: states, identities and the rows that decisions produce.

A row is a ``NamedTuple`` whose fields are the bind parameters, in order, of exactly one hot statement of the
store, so that a decision can be handed to the database as it is. Times are Unix seconds, durations are seconds,
values of users (inputs, results) are UTF-8 JSON bytes that were checked once at the edge.
"""

from enum import IntEnum, StrEnum
from typing import Final, Literal, NamedTuple, NewType

RunId = NewType("RunId", int)
TaskId = NewType("TaskId", int)
Digest = NewType("Digest", str)
"""Hex SHA-256 of a definition's canonical JSON: the version of a workflow."""

WHOLE: Literal[-1] = -1
"""The ``item`` of a step that is not one element of a map, and of a map's own record."""


class RunState(StrEnum):
    """State of a run; the last three are final."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


Phase = Literal["paused", "undoing", "cancelling"]
"""What a run that has not ended does when it does not go on: it is held, or it undoes what it did before it ends as
failed or as cancelled."""


class StepState(StrEnum):
    """State of a step run (or of one element of a mapped step); the last five are final."""

    PENDING = "pending"
    """An upstream step is not done."""
    QUEUED = "queued"
    """Its task is due and waits for the queue's limits or for a worker."""
    SCHEDULED = "scheduled"
    """Its task waits for a time: the next retry."""
    RUNNING = "running"
    """An attempt was sent and is not answered."""
    WAITING = "waiting"
    """Nothing is done for it: it waits for a callback, a time, an event or a person."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    """The engine or the worker died while the attempt was running: it may or may not have had effects."""
    CANCELLED = "cancelled"


class TaskState(IntEnum):
    """State of the queued task of an open step; a finished task has no row."""

    SCHEDULED = 0
    """Not sent; due at ``schedule_time``."""
    LEASED = 1
    """May have been sent under ``attempt`` by the engine that holds ``epoch``."""
    ACCEPTED = 2
    """Answered 202; waits for its callback until ``deadline_time``."""
    PARKED = 3
    """Never sent: its step waits for something else than an answer, at the latest until ``schedule_time``."""


UNDER_WAY: Final = frozenset({TaskState.LEASED, TaskState.ACCEPTED})
"""States of a task whose last attempt is not over."""


class DefinitionAdded(NamedTuple):
    """A version of a workflow that a run is about to use, unless it is there already."""

    digest: Digest
    name: str
    created_at: float
    body: bytes
    """Canonical JSON."""


class RunAdded(NamedTuple):
    """A run begins."""

    id: RunId
    public_id: str
    workflow: str
    digest: Digest
    state: str
    input: bytes
    idempotency_key: str | None
    parent_id: RunId | None
    parent_node: int | None
    parent_item: int | None
    retry_of: RunId | None
    created_at: float
    fork_of: RunId | None = None
    priority: int = 0


class RunMoved(NamedTuple):
    """A run that has not ended is paused, goes on, or begins to undo what it did."""

    paused_at: float | None
    ending: str | None
    """The final state that it will have when its undo steps are done."""
    id: RunId


class RunEnded(NamedTuple):
    """A run reaches a final state."""

    state: str
    result: bytes | None
    error: bytes | None
    """JSON of ``Failure``: the step that decided it and why."""
    ended_at: float
    id: RunId


class StepEnded(NamedTuple):
    """A step run, or one element of a map, reaches a final state. Written once."""

    run_id: RunId
    node: int
    """Position of the step in the plan of the run."""
    item: int
    """Position in the map, or ``WHOLE``."""
    state: str
    result: bytes | None
    """``None`` for a map's own record: its result is the list of its items' results."""
    error: bytes | None
    attempts: int
    started_at: float | None
    ended_at: float


class AttemptEnded(NamedTuple):
    """One attempt is over. Written once."""

    run_id: RunId
    node: int
    item: int
    attempt: int
    state: str
    status: int | None
    """HTTP status of the answer, if there was one."""
    error: bytes | None
    logs: str | None
    """What the step printed and logged, oldest first, capped."""
    started_at: float
    ended_at: float


class TaskAdded(NamedTuple):
    """An open step gets its task."""

    id: TaskId
    run_id: RunId
    node: int
    item: int
    queue: str
    state: int
    attempt: int
    """Number of the last attempt that was started; 0 before the first."""
    lost: int
    """How many attempts in all ended as lost."""
    blamed: int
    """How many of these the step may be to blame for: its worker died, and not its engine."""
    schedule_time: float
    deadline_time: float | None
    """When the step fails whatever it is doing; ``None`` for never."""
    first_attempt_at: float | None
    """Of a step that is never sent: since when it waits."""
    leased_at: float | None
    epoch: int


class TaskMoved(NamedTuple):
    """A task changes: it is leased, rescheduled or accepted."""

    state: int
    attempt: int
    lost: int
    blamed: int
    schedule_time: float
    deadline_time: float | None
    first_attempt_at: float | None
    leased_at: float | None
    epoch: int
    id: TaskId


class TaskRemoved(NamedTuple):
    """The step of a task reached a final state."""

    id: TaskId


class KeyReleased(NamedTuple):
    """A task that has a key is not worked on any more, whether or not it was."""

    task_id: TaskId


class RunParked(NamedTuple):
    """A run that only waits leaves the memory of its node."""

    run_id: RunId
    wake_at: float | None
    """When something of it, or of the runs below it, happens by itself; ``None`` for those below."""


class RunWoken(NamedTuple):
    """A parked run is in memory again."""

    run_id: RunId


class WaitAdded(NamedTuple):
    """A parked task can be found by the event that it waits for."""

    task_id: TaskId
    run_id: RunId
    name: str
    key: str


class WaitRemoved(NamedTuple):
    """A parked task waits for its event no longer."""

    task_id: TaskId


class ApprovalAdded(NamedTuple):
    """A person is asked to decide. Kept as long as its run."""

    task_id: TaskId
    run_id: RunId
    node: int
    item: int
    prompt: str
    recipients: bytes
    """JSON list of whom it is for."""
    asked_at: float
    expires_at: float | None


class ApprovalDecided(NamedTuple):
    """A person has decided. Written once."""

    approved: bool
    person: str
    form: bytes
    """JSON of what was filled in."""
    decided_at: float
    task_id: TaskId


class EventAdded(NamedTuple):
    """Something happened. Of each name and key the first one is kept."""

    name: str
    key: str
    emitted_at: float
    payload: bytes
