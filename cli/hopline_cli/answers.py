"""The shapes of the API's JSON answers, as the engine documents them. Times are ISO 8601 UTC."""

from typing import Any, Literal, NotRequired, TypedDict

FINAL_RUN_STATES = frozenset({"succeeded", "failed", "cancelled"})
FINAL_STEP_STATES = FINAL_RUN_STATES | {"skipped", "upstream_failed"}


class Failure(TypedDict, total=False):
    """Why a run, step or attempt failed; ``traceback`` has the user's frames first."""

    step: str
    type: str | None
    message: str
    traceback: str | None


class Parent(TypedDict):
    """The step that a run is the execution of."""

    run: str
    step: str
    item: int | None


class ScheduledTick(TypedDict):
    """The tick that a run was started for."""

    schedule: str
    at: str
    local: str
    kind: str
    late_seconds: float
    reason: str | None


class Run(TypedDict):
    """One execution of a workflow. Lists leave ``input`` and ``result`` out."""

    id: str
    workflow: str
    digest: str
    state: str
    input: dict[str, Any]
    result: Any
    error: Failure | None
    idempotency_key: str | None
    retry_of: str | None
    fork_of: str | None
    parent: Parent | None
    created_at: str
    ended_at: str | None
    steps_total: int
    steps_done: int
    priority: NotRequired[int]
    deadline_at: NotRequired[str | None]
    note: str | None
    scheduled: NotRequired[ScheduledTick | None]


class Bar(TypedDict):
    """One attempt on the time axis."""

    attempt: int
    state: str
    started_at: str
    ended_at: str | None


class Items(TypedDict):
    """How far a mapped step is; ``total`` is unknown until its list is."""

    total: int | None
    succeeded: int
    failed: int
    running: int


class SubRun(TypedDict):
    """A run that a step, or an item of a mapped one, is executed by."""

    run: str
    item: int | None
    state: str


class Step(TypedDict):
    """One step of a run."""

    id: str
    kind: str
    state: str
    attempts: int
    items: Items | None
    started_at: str | None
    ended_at: str | None
    upstream: list[str]
    level: int
    error: Failure | None
    next_at: str | None
    note: str | None
    bars: list[Bar]
    reused: bool
    runs: list[SubRun]


class RunDetail(Run):
    """A run with its steps in topological order."""

    steps: list[Step]


class Attempt(TypedDict):
    """One try at a step, with what it printed."""

    step: str
    item: int | None
    attempt: int
    state: str
    status: int | None
    error: Failure | None
    logs: str | None
    started_at: str
    ended_at: str | None


class Queue(TypedDict):
    """A queue, its limits and how full it is."""

    name: str
    state: Literal["running", "paused"]
    max_dispatches_per_second: float | None
    max_burst_size: int | None
    max_concurrent_dispatches: int | None
    ready: int
    waiting_for_key: int
    scheduled: int
    in_flight: int
    oldest_ready_seconds: float | None


class Node(TypedDict):
    """A server that works on a part of the runs of its store."""

    id: str
    url: str | None
    epoch: int
    shards: int
    started_at: str
    heartbeat_at: str


class Reason(TypedDict):
    """Why one step is not running."""

    step: str
    item: int | None
    reason: str
    text: str


class NextTick(TypedDict):
    """A tick that is to come."""

    at: str
    local: str
    note: str | None


class Tick(TypedDict):
    """A tick that was decided on."""

    at: str
    local: str
    state: str
    kind: str
    reason: str | None
    run: str | None
    late_seconds: float | None


class Backfill(TypedDict):
    """How far the back-fills of a schedule are."""

    max_parallel: int
    rate: float | None
    paused: bool
    waiting: int
    started: int


class Schedule(TypedDict):
    """When a workflow runs by itself."""

    name: str
    workflow: str
    state: str
    schedule: dict[str, Any]
    text: str
    edited: bool
    declared: dict[str, Any] | None
    input: dict[str, Any]
    next: NextTick | None
    created_at: str


class ScheduleDetail(Schedule):
    """A schedule with what became of its last ticks, newest first."""

    ticks: list[Tick]
    backfill: Backfill | None


class NextTicks(TypedDict):
    """Ticks that are to come."""

    schedule: str
    tz: str
    ticks: list[NextTick]
    skipped: list[str]


class PlannedTick(TypedDict):
    """A tick in the time of a back-fill."""

    at: str
    local: str
    wanted: bool


class PlannedBackfill(TypedDict):
    """The ticks of a back-fill, and whether it was begun."""

    schedule: str
    begun: bool
    ticks: list[PlannedTick]


class ServedWorkflow(TypedDict):
    """A registered workflow; ``served`` says whether a worker serves its steps now."""

    name: str
    digest: str
    steps: int
    served: bool
    parameters: dict[str, Any]


class LoadError(TypedDict):
    """Something wrong in a workflow file, as the worker found it."""

    code: str
    message: str
    file: str | None
    line: int | None
    hint: str | None


class Check(TypedDict):
    """One thing that the doctor looked at."""

    name: str
    state: str
    text: str
    hint: str | None
    evidence: list[dict[str, Any]]
    is_audit: bool


class Diagnosis(TypedDict):
    """All that the doctor looked at."""

    version: str
    at: str
    ok: bool
    checks: list[Check]
    healed: dict[str, int]
