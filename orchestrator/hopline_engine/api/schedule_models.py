"""What the API says and understands of schedules, as pydantic models."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from hopline_engine.api.asked import Asked
from hopline_engine.api.models import Time, View

TickStateName = Literal["waiting", "queued", "due", "started", "done", "skipped", "missed", "failed"]


class ScheduleRequest(Asked):
    """Make a schedule."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")
    workflow: str = Field(min_length=1, max_length=500)
    schedule: dict[str, Any]
    """As in a definition: ``kind`` is ``cron``, ``every`` or ``at``."""
    input: dict[str, Any] = Field(default_factory=dict)
    """Values of parameters that have no default and do not stand for the time."""


class ScheduleChange(Asked):
    """Change a schedule; what is left out stays."""

    schedule: dict[str, Any] | None = None
    input: dict[str, Any] | None = None


class BackfillRequest(Asked):
    """Make up for ticks of a time."""

    first: Time
    last: Time
    dry_run: bool = False
    """Only tell which ticks there are."""
    max_parallel: int = Field(default=1, ge=1, le=10_000)
    """How many of its runs go on at a time."""
    rate: float | None = Field(default=None, gt=0, le=10_000)
    """How many may be started in a second; null is as many as there are places."""


class NextTick(View):
    """A tick that is to come."""

    at: Time
    local: str
    """By the clock of the schedule's zone, with the zone's abbreviation."""
    note: str | None
    """What a change of the clocks does to it."""


class Tick(View):
    """A tick that was decided on."""

    at: Time
    local: str
    state: TickStateName
    kind: Literal["tick", "trigger", "backfill"]
    reason: str | None
    run: str | None
    late_seconds: float | None
    """How long after its time its run was started."""


class Backfill(View):
    """How far the back-fills of a schedule are."""

    max_parallel: int
    rate: float | None
    paused: bool
    waiting: int
    """Ticks whose turn has not come."""
    started: int


class Schedule(View):
    """When a workflow runs by itself."""

    name: str
    workflow: str
    state: Literal["active", "paused", "ended"]
    """``ended`` has no further tick."""
    schedule: Mapping[str, Any]
    """What is in force."""
    text: str
    """The same in a few words."""
    edited: bool
    """Whether it was set by hand and is not what the workflow's file says."""
    declared: Mapping[str, Any] | None
    """What the workflow's file says, if it says anything."""
    input: Mapping[str, Any]
    next: NextTick | None
    created_at: Time


class ScheduleDetail(Schedule):
    """A schedule with what became of its last ticks, newest first."""

    ticks: list[Tick]
    backfill: Backfill | None


class SchedulePage(View):
    """Schedules by name."""

    schedules: list[Schedule]
    next: str | None
    """What to give as ``after`` for the next page."""


class NextTicks(View):
    """Ticks that are to come, and changes of the clocks that skip some."""

    schedule: str
    tz: str
    ticks: list[NextTick]
    skipped: list[str]
    """Times within the same time that do not exist and are passed over, a sentence each."""


class PlannedTick(View):
    """A tick in the time of a back-fill."""

    at: Time
    local: str
    wanted: bool
    """Whether it has no run yet, so that the back-fill starts one."""


class PlannedBackfill(View):
    """The ticks of a back-fill, and whether it was begun."""

    schedule: str
    begun: bool
    ticks: list[PlannedTick]
