"""What the API understands: the bodies and queries that clients send, as pydantic models."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from hopline_engine.api.fleet_models import ServedFile, ServedStep
from hopline_engine.api.models import Time
from hopline_engine.core.model import Phase, RunState
from hopline_engine.core.order import LEVELS
from hopline_engine.core.schedules import KEY_PREFIX

LARGEST_NUMBER: Final = 2**31 - 1
"""The largest number of an attempt that databases can be asked for."""


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("no text here has a NUL character")
    return text


Text = Annotated[str, Field(max_length=500), AfterValidator(_without_nul)]
"""What is looked for in the store. JSON with NUL characters is refused as a whole; addresses may have some."""


class Asked(BaseModel):
    """Something a client sends; what is not understood is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class RunRequest(Asked):
    """Start a run."""

    workflow: str = Field(min_length=1, max_length=500)
    input: dict[str, Any] = Field(default_factory=dict)
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=500)
    """A second request with the same key starts nothing and answers with the run of the first."""
    priority: int = Field(default=0, ge=-LEVELS, le=LEVELS)
    """Added to the priorities of its steps, and of those of the runs below it."""

    @field_validator("idempotency_key")
    @classmethod
    def _is_not_of_a_tick(cls, key: str | None) -> str | None:
        if key is not None and key.startswith(KEY_PREFIX):
            raise ValueError(f"keys that begin with {KEY_PREFIX} are those of schedules")
        return key


class RetryRequest(Asked):
    """Run what is left of a run."""

    items: list[str] = Field(default_factory=list, max_length=10_000)
    """Elements of mapped steps, as in ``totals[3]``, that are run again although they succeeded, with all that depends
    on them."""


class ForkRequest(Asked):
    """Run a part of a run again."""

    step: str = Field(min_length=1, max_length=600)
    """It and all that depends on it is run; the results of other steps are kept."""
    input: dict[str, Any] = Field(default_factory=dict)
    """Arguments that are other than in the first run."""


class RunQuery(Asked):
    """Which runs to list."""

    model_config = ConfigDict(strict=False)

    state: RunState | Phase | None = None
    workflow: str | None = None
    since: Time | None = None
    """Only runs created at this time or later."""
    parent: str | None = Field(default=None, min_length=1, max_length=64)
    """Only the runs that steps of this one started; without it, only runs that somebody started."""
    retried: bool | None = None
    """Only runs that another one is a retry of, or only those that none is."""
    limit: int = Field(default=50, ge=1, le=500)
    after: str | None = None
    """Only runs older than this one: ``next`` of the page before."""


class ApprovalQuery(Asked):
    """Which questions to people to list."""

    model_config = ConfigDict(strict=False)

    state: Literal["open", "all"] = "open"
    limit: int = Field(default=50, ge=1, le=500)


class ApprovalAnswer(Asked):
    """Decide for a person, or as one."""

    approved: bool
    by: str = Field(min_length=1, max_length=200)
    """Who decides; kept with the decision."""
    form: Any = None


class EventRequest(Asked):
    """Say that something happened."""

    name: str = Field(min_length=1, max_length=200)
    key: str = Field(min_length=1, max_length=500)
    """Of each name and key the first event is kept."""
    payload: Any = None


class EventQuery(Asked):
    """Which events to list."""

    model_config = ConfigDict(strict=False)

    name: Text | None = None
    limit: int = Field(default=50, ge=1, le=500)


class DefinitionsRequest(Asked):
    """Store definitions."""

    definitions: list[dict[str, Any]]
    current: list[str]
    """Names of the workflows of which these are the newest versions; the others are only called by them."""
    schedules: bool = True
    """Whether the schedules that these declare are to be put in force; without it, schedules stay as they are."""


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
    files: list[ServedFile] = Field(default_factory=list, max_length=10_000)
    reloads: bool = False


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
    """The result of a step that answered 202, or its failure, or that it takes longer: exactly one of them."""

    result: Any = None
    error: ReportedFailure | None = None
    heartbeat: float | None = Field(default=None, gt=0, le=31_622_400)
    """Seconds from now on for which the step is to be waited for at least."""
    progress: str | None = Field(default=None, max_length=1000)
    """With a heartbeat: how far the work is, for people."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        given = ("result" in self.model_fields_set, self.error is not None, self.heartbeat is not None)
        if sum(given) != 1:
            raise ValueError('give either "result" or "error", or "heartbeat"')
        if self.progress is not None and self.heartbeat is None:
            raise ValueError('"progress" comes with a "heartbeat"')
        return self
