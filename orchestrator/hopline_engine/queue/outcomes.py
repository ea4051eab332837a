"""What becomes of an attempt, as the dispatcher tells it; what that means for the run is ``core.advance``'s."""

from dataclasses import dataclass

from hopline_engine.core.retry import Failure


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The step has a result."""

    result: bytes
    status: int
    logs: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The target will call back."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed."""

    failure: Failure
    timed_out: bool = False
    logs: str | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker died, or was cut off, while it had the step."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unserved:
    """The worker did not take the step: it is gone, is stopping, or does not serve it."""

    reason: str
    may_be_asked: bool = False
    """Whether the worker is there all the same, and only had enough with other elements of the batch."""


@dataclass(frozen=True, slots=True)
class Unsendable:
    """The request could not be made: a value or a secret is missing."""

    failure: Failure


Outcome = Succeeded | Accepted | Failed | Lost | Unserved | Unsendable
