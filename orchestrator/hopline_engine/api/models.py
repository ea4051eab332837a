"""What the API says and understands: the JSON of every noun, as pydantic models.

They are the contract with the command line and other clients. In Python a time is a number of Unix seconds, as
everywhere in the engine; in JSON it is ISO 8601 in UTC.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator

from hopline_engine.core.model import AttemptState, RunState, StepState


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


class RunSummary(View):
    """A run in a list."""

    id: str
    workflow: str
    digest: str
    """Version of the workflow that the run began with and keeps."""
    state: RunState
    error: Failure | None
    idempotency_key: str | None
    retry_of: str | None
    parent: Parent | None
    created_at: Time
    ended_at: Time | None
    steps_total: int
    steps_done: int


class Run(RunSummary):
    """A run."""

    input: dict[str, Any]
    result: Any
    """null until the run has succeeded."""


class MapProgress(View):
    """How far the elements of a mapped step are."""

    total: int | None
    """null while an upstream map may still add elements."""
    succeeded: int
    failed: int
    running: int


class Bar(View):
    """One attempt as a stretch of time."""

    attempt: int
    state: AttemptState | Literal["running", "waiting"]
    started_at: Time
    ended_at: Time | None


class Step(View):
    """A step of a run."""

    id: str
    kind: Literal["python", "http", "workflow"]
    state: StepState
    attempts: int
    items: MapProgress | None
    """Only of a mapped step."""
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


class Reason(View):
    """The one reason why a step run is where it is."""

    step: str
    item: int | None
    reason: Literal[
        "upstream",
        "retry",
        "queue_paused",
        "rate",
        "concurrency",
        "no_worker",
        "worker_busy",
        "waiting_for_callback",
        "running",
        "done",
    ]
    text: str
    """A sentence for people."""


class Why(View):
    """Why the steps of a run are not further."""

    run: str
    state: RunState
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


class ServedStep(View):
    """A step that a worker serves, in the version that the signature names."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=500)
    signature: str = Field(min_length=1, max_length=64)


class Worker(View):
    """A worker that the engine may call."""

    id: str
    url: str
    pid: int | None
    host: str | None
    concurrency: int
    in_flight: int
    steps: list[ServedStep]
    seen_at: Time


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


class Workers(View):
    """All workers that are there now."""

    workers: list[Worker]


class Registered(View):
    """How many definitions the engine holds of those that were sent: all of them."""

    definitions: int


class Health(View):
    """A sign of life."""

    status: Literal["ok"] = "ok"
    version: str


class CallbackDone(View):
    """What a callback did: it was applied now, or had been applied before."""

    outcome: Literal["applied", "already"]


class ErrorBody(View):
    """What went wrong; ``code`` is stable, ``message`` and ``hint`` are for people."""

    code: str
    message: str
    hint: str | None


class ErrorAnswer(View):
    """Every answer with a status of 400 or more."""

    error: ErrorBody


class Asked(BaseModel):
    """Something a client sends; what is not understood is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class RunRequest(Asked):
    """Start a run."""

    workflow: str = Field(min_length=1, max_length=500)
    input: dict[str, Any] = Field(default_factory=dict)
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=500)
    """A second request with the same key starts nothing and answers with the run of the first."""


class RunQuery(Asked):
    """Which runs to list."""

    model_config = ConfigDict(strict=False)

    state: RunState | None = None
    workflow: str | None = None
    since: Time | None = None
    """Only runs created at this time or later."""
    limit: int = Field(default=50, ge=1, le=500)
    after: str | None = None
    """Only runs older than this one: ``next`` of the page before."""


class DefinitionsRequest(Asked):
    """Store definitions."""

    definitions: list[dict[str, Any]]
    current: list[str]
    """Names of the workflows of which these are the newest versions; the others are only called by them."""


class WorkerRegistration(Asked):
    """Announce a worker."""

    url: str = Field(pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*[^/?#\s])?$", max_length=2000)
    """Base URL, without a slash at its end."""
    token: str = Field(pattern="^[!-~]{1,500}$", repr=False)
    """What the engine has to show when it calls."""
    concurrency: int = Field(ge=1, le=100_000)
    steps: list[ServedStep]
    pid: int | None = None
    host: str | None = Field(default=None, max_length=500)


class QueueLimits(Asked):
    """New limits of a queue; what is left out stays, null means without limit."""

    max_dispatches_per_second: float | None = Field(default=None, gt=0, le=1_000_000)
    max_burst_size: int | None = Field(default=None, ge=1, le=1_000_000)
    max_concurrent_dispatches: int | None = Field(default=None, ge=1, le=1_000_000)


class ReportedFailure(Asked):
    """Why the work behind a callback failed."""

    message: str
    type: str = "CallbackError"
    """Name that a retry policy may match."""


class CallbackReport(Asked):
    """The result of a step that answered 202, or its failure: exactly one of the two."""

    result: Any = None
    error: ReportedFailure | None = None

    @model_validator(mode="after")
    def _is_one_of_the_two(self) -> Self:
        if ("result" in self.model_fields_set) == (self.error is not None):
            raise ValueError('give either "result" or "error"')
        return self
