"""What the API says: the JSON of every noun, as pydantic models.

They are the contract with the command line and other clients, as are those of what is sent (``asked``). In Python a
time is a number of Unix seconds, as everywhere in the engine; in JSON it is ISO 8601 in UTC.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from hopline.definition import Kind
from hopline_engine.core.model import AttemptState, Phase, RunState, StepState


def iso_time(seconds: float) -> str:
    """Return a time as in JSON.

    >>> iso_time(1795226446.5)
    '2026-11-21T02:00:46.500Z'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _unix_seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("not an ISO 8601 time such as 2026-11-21T02:00:46Z") from None
    if time.tzinfo is None:
        raise ValueError("a time needs its zone, as in 2026-11-21T02:00:46Z")
    return time.timestamp()


Time = Annotated[
    float,
    BeforeValidator(_unix_seconds),
    PlainSerializer(iso_time, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""Unix seconds in Python, ISO 8601 in JSON."""


class View(BaseModel):
    """Something the API shows."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Failure(View):
    """Why an attempt, a step or a run failed."""

    step: str | None
    """The step that decided it; null when none did."""
    type: str
    message: str
    traceback: str | None = None
    """The user's own frames first."""


class Parent(View):
    """The step run that a sub-workflow's run is the execution of."""

    run: str
    step: str
    item: int | None


class ScheduledTick(View):
    """The tick that a run was started for."""

    schedule: str
    at: Time
    local: str
    """By the clock of the schedule's zone, with the zone's abbreviation."""
    kind: Literal["tick", "trigger", "backfill"]
    late_seconds: float
    """How long after its time the run was started."""
    reason: str | None
    """Why it was not started just then."""


ShownState = RunState | Phase
"""State of a run as people see it; what is not among the last three of ``RunState`` is not final."""


class RunSummary(View):
    """A run in a list."""

    id: str
    workflow: str
    digest: str
    """Version of the workflow that the run began with and keeps."""
    state: ShownState
    error: Failure | None
    idempotency_key: str | None
    retry_of: str | None
    """The run that this one goes on from."""
    fork_of: str | None = None
    """The run of which this one makes a part again."""
    parent: Parent | None
    created_at: Time
    ended_at: Time | None
    steps_total: int
    """0 when this server cannot run the version."""
    steps_done: int
    priority: int = 0
    """Added to the priorities of its steps."""
    deadline_at: Time | None = None
    """When it fails if it is still at work; null when its workflow sets no deadline."""
    note: str | None = None
    """What keeps the run as a whole from going on; null when its steps say it."""


class Run(RunSummary):
    """A run."""

    input: dict[str, Any]
    result: Any
    """null until the run has succeeded."""
    scheduled: ScheduledTick | None = None
    """Why it was started, if a schedule did it."""


class MapProgress(View):
    """How far the elements of a mapped step, or the laps of a loop, are."""

    total: int | None
    """null while an upstream map may still add elements, and of a loop until it has ended."""
    succeeded: int
    failed: int
    running: int


class Bar(View):
    """One attempt as a stretch of time."""

    attempt: int
    state: AttemptState | Literal["running", "waiting"]
    started_at: Time
    ended_at: Time | None


class SubRun(View):
    """A run that a step, or an element of a mapped one, is executed by."""

    run: str
    item: int | None
    state: RunState


class Step(View):
    """A step of a run."""

    id: str
    kind: Kind
    state: StepState
    attempts: int
    items: MapProgress | None
    """Only of a mapped step and of a loop."""
    started_at: Time | None
    ended_at: Time | None
    upstream: list[str]
    level: int
    """Length of the longest path to it, 0 for a step without upstreams."""
    error: Failure | None
    next_at: Time | None
    """When something happens by itself: the next attempt, or the deadline of a wait."""
    note: str | None
    """One line for people: what it waits for or is doing."""
    bars: list[Bar] = Field(max_length=20)
    reused: bool = False
    """Whether its result is that of the run that this one is a retry or a fork of."""
    runs: list[SubRun] = Field(max_length=20)
    """Of a step that is a workflow: the first runs of it. ``GET /runs?parent=`` has all."""


class RunDetail(Run):
    """A run with its steps in topological order."""

    steps: list[Step]


class Attempt(View):
    """One attempt of a step, or of one element of a mapped step, that is over."""

    step: str
    item: int | None
    attempt: int
    state: AttemptState
    status: int | None
    """HTTP status of the answer, if there was one."""
    error: Failure | None
    logs: str | None
    """What the step printed and logged, oldest first."""
    started_at: Time
    ended_at: Time


ReasonName = Literal[
    "upstream",
    "retry",
    "paused",
    "queue_paused",
    "rate",
    "concurrency",
    "key",
    "no_worker",
    "worker_busy",
    "waiting_for_callback",
    "sleeping",
    "polling",
    "waiting_for_event",
    "waiting_for_approval",
    "waiting_for_turn",
    "running",
    "done",
]


class Reason(View):
    """The one reason why a step run is where it is."""

    step: str
    item: int | None
    reason: ReasonName
    text: str
    """A sentence for people."""


class Approval(View):
    """A question to a person."""

    run: str
    workflow: str
    step: str
    prompt: str
    to: list[str]
    """Whom it is for."""
    state: Literal["open", "approved", "rejected", "closed"]
    """``closed`` when it ended without a decision: its time was over, or its run was cancelled."""
    asked_at: Time
    expires_at: Time | None
    by: str | None
    """Who decided."""
    decided_at: Time | None
    form: Any
    """What the person filled in."""


class ApprovalDetail(Approval):
    """A question to a person, with what is needed to answer it."""

    link: str | None
    """To the page on which it is decided; null when it cannot be any more."""
    form_schema: Any
    """JSON schema of what is to be filled in; null for nothing."""


class ApprovalList(View):
    """Questions to people, the newest first."""

    approvals: list[Approval]


class Event(View):
    """Something that happened."""

    name: str
    key: str
    payload: Any
    emitted_at: Time


class Emitted(Event):
    """An event that is kept, and what it did."""

    created: bool
    """False when there was one of this name and key before, which is the one that is kept."""
    runs: list[str]
    """Ids of the runs that it started."""


class Events(View):
    """Events, the newest first."""

    events: list[Event]


class Why(View):
    """Why the steps of a run are not further."""

    run: str
    state: ShownState
    reasons: list[Reason]


class Queue(View):
    """A queue with its limits and what waits in it."""

    name: str
    state: Literal["running", "paused"]
    max_dispatches_per_second: float | None
    max_burst_size: int | None
    max_concurrent_dispatches: int | None
    ready: int
    """Tasks that are due."""
    waiting_for_key: int
    """Tasks that are due besides, and wait for others with the same key."""
    scheduled: int
    """Tasks that wait for a time."""
    in_flight: int
    """Tasks that were sent and are not answered."""
    oldest_ready_seconds: float | None


class Workflow(View):
    """The newest version of a workflow."""

    name: str
    digest: str
    steps: int
    served: bool
    """Whether every step that needs a worker has one now."""
    parameters: Mapping[str, Any]
    """JSON schema of the input."""


class WorkflowDetail(Workflow):
    """A workflow with its compiled graph."""

    definition: Mapping[str, Any]


class RunPage(View):
    """A page of runs, newest first."""

    runs: list[RunSummary]
    next: str | None
    """What to give as ``after`` for the next page."""


class Attempts(View):
    """Attempts in the order in which they began."""

    attempts: list[Attempt]


class Output(View):
    """What a run returned."""

    result: Any


class Queues(View):
    """All queues, by name."""

    queues: list[Queue]


class Workflows(View):
    """All workflows, by name."""

    workflows: list[Workflow]


class Registered(View):
    """How many definitions the engine holds of those that were sent: all of them."""

    definitions: int
    notes: list[str] = []
    """What is worth telling about the schedules they declare, in sentences."""


class Health(View):
    """A sign of life."""

    status: Literal["ok"] = "ok"
    version: str
    node: str
    """Id of the node that answers."""
    healed: Mapping[str, int]
    """How often this server repaired something that was wrong, by what it was; empty unless there was a fault."""


class Check(View):
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "note", "wrong"]
    text: str
    """A sentence for people."""
    hint: str | None
    """What to do about it."""
    evidence: list[dict[str, Any]]
    """Rows, or parts of rows, that are not as they must be; the first ones of many."""
    is_audit: bool
    """Whether it is something that must always be true of rows and memory, and not how things are."""


class Doctor(View):
    """How an installation is, and all that is wrong with it."""

    version: str
    at: Time
    ok: bool
    """Whether nothing is wrong."""
    checks: list[Check]
    healed: Mapping[str, int]
    """How often the server repaired something by itself since it started, by what it was."""


class CallbackDone(View):
    """What a callback did: it was applied now, or had been applied before."""

    outcome: Literal["applied", "already"]


class HeartbeatDone(View):
    """A heartbeat was taken."""

    outcome: Literal["applied"] = "applied"
    until: Time
    """When the attempt is given up now, if nothing more is heard of it, at the earliest."""


class ErrorBody(View):
    """What went wrong; ``code`` is stable, ``message`` and ``hint`` are for people."""

    code: str
    message: str
    hint: str | None


class ErrorAnswer(View):
    """Every answer with a status of 400 or more."""

    error: ErrorBody
