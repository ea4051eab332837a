"""The vocabulary of the queue service: queues and tasks with their parts, named as in Cloud Tasks v2.

Times are Unix seconds exact to the microsecond, durations are seconds. How each API version calls and nests the same
things is known to ``hopline_engine.queue_api`` alone.
"""

from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Final, NewType

CloudTaskId = NewType("CloudTaskId", int)
"""Number of a task in the store; people and clients know it by its name."""

UNLIMITED: Final = -1
"""``max_attempts`` that never run out, and the concurrency of pull queues."""

DAY: Final = 86_400.0


def microseconds(time: float) -> float:
    """Return a time as Cloud Tasks keeps it: two times are equal if they are the same microsecond.

    >>> microseconds(1700000000.1234567)
    1700000000.123457
    """
    return round(time, 6)


class QueueState(StrEnum):
    """State of a queue."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DISABLED = "DISABLED"


class QueueType(StrEnum):
    """Whether tasks are sent to targets or leased by workers."""

    PUSH = "PUSH"
    PULL = "PULL"


class HttpMethod(StrEnum):
    """Method of a request."""

    POST = "POST"
    GET = "GET"
    HEAD = "HEAD"
    PUT = "PUT"
    DELETE = "DELETE"
    PATCH = "PATCH"
    OPTIONS = "OPTIONS"


class Stage(IntEnum):
    """What becomes of a task next."""

    SCHEDULED = 0
    """It is attempted, or may be leased, at ``schedule_time``."""
    DISPATCHED = 1
    """An attempt may have been sent, and is not answered."""
    DEAD = 2
    """Its attempts are used up; it is kept for people to look at, run again or delete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """How fast tasks of a queue are dispatched."""

    max_dispatches_per_second: float = 500.0
    max_burst_size: int = 100
    max_concurrent_dispatches: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """How often, how far apart and for how long a task is attempted."""

    max_attempts: int = 100
    max_retry_duration: float = 0.0
    """Seconds since the first attempt; 0 is without limit."""
    min_backoff: float = 0.1
    max_backoff: float = 3600.0
    max_doublings: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcToken:
    """An identity token that requests carry."""

    service_account_email: str = ""
    audience: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthToken:
    """An access token that requests carry."""

    service_account_email: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppEngineRouting:
    """Which service, version and instance of an App Engine app."""

    service: str = ""
    version: str = ""
    instance: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """A request to any URL."""

    url: str
    http_method: HttpMethod = HttpMethod.POST
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    oauth_token: OAuthToken | None = None
    oidc_token: OidcToken | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppEngineHttpRequest:
    """A request to an App Engine app."""

    http_method: HttpMethod = HttpMethod.POST
    app_engine_routing: AppEngineRouting | None = None
    relative_uri: str = "/"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullMessage:
    """What a worker leases."""

    payload: bytes = b""
    tag: str = ""


Payload = HttpRequest | AppEngineHttpRequest | PullMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class UriOverride:
    """Parts of a URL that a queue decides for its tasks; ``None`` leaves a part alone, empty clears it."""

    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    """0 clears the port."""
    path: str | None = None
    query: str | None = None
    always: bool = True
    """Otherwise only parts are filled in that the task's URL lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTarget:
    """What a queue decides for the requests of its tasks, at the time when they are sent."""

    uri_override: UriOverride | None = None
    http_method: HttpMethod | None = None
    header_overrides: tuple[tuple[str, str], ...] = ()
    oauth_token: OAuthToken | None = None
    oidc_token: OidcToken | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """What of a queue people decide, but for its rate limits, which the engine shares with the queues of steps."""

    type: QueueType = QueueType.PUSH
    retry_config: RetryConfig = RetryConfig()
    app_engine_routing_override: AppEngineRouting | None = None
    http_target: HttpTarget | None = None
    sampling_ratio: float = 0.0
    task_ttl: float = 31 * DAY
    tombstone_ttl: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue."""

    name: str
    rate_limits: RateLimits = RateLimits()
    config: QueueConfig = QueueConfig()
    state: QueueState = QueueState.RUNNING
    purge_time: float | None = None

    @property
    def is_pull(self) -> bool:
        """Whether its tasks are leased and not sent."""
        return self.config.type is QueueType.PULL


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """How a queue is doing."""

    tasks_count: int
    oldest_estimated_arrival_time: float | None
    executed_last_minute_count: int
    concurrent_dispatches_count: int
    effective_execution_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStatus:
    """How an attempt ended: a canonical code and what to tell people."""

    code: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of a task."""

    schedule_time: float | None = None
    dispatch_time: float
    response_time: float | None = None
    response_status: AttemptStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task."""

    name: str
    payload: Payload
    schedule_time: float
    create_time: float
    dispatch_deadline: float | None = None
    retry_config: RetryConfig | None = None
    dispatch_count: int = 0
    response_count: int = 0
    first_attempt: Attempt | None = None
    last_attempt: Attempt | None = None

    def without_body(self) -> "Task":
        """Return it as the BASIC view shows it: without the body, with everything else."""
        match self.payload:
            case HttpRequest() | AppEngineHttpRequest():
                return replace(self, payload=replace(self.payload, body=b""))
            case PullMessage():
                return replace(self, payload=replace(self.payload, payload=b""))
