"""What the end of an attempt means for its task: over, tried again at a time, or dead.

Pure: no clock, no randomness, no I/O.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from hopline_engine.core.cloud.errors import Code
from hopline_engine.core.cloud.model import AttemptStatus, RetryConfig, microseconds
from hopline_engine.core.cloud.retrying import (
    THROTTLING,
    THROTTLING_APP_ENGINE,
    Tried,
    is_used_up,
    next_delay,
    status_of_answer,
    status_of_silence,
)

APP_ERROR = "App Error"
INSTANCE_UNAVAILABLE = "Instance Unavailable"


class Verdict(StrEnum):
    """What becomes of a task after an attempt."""

    SUCCEEDED = "succeeded"
    AGAIN = "again"
    DEAD = "dead"
    SUPERSEDED = "superseded"
    """A later attempt is under way, and decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the exchange with a target ended."""

    dispatch_time: float
    end_time: float
    status: int | None
    """HTTP status, if there was an answer."""
    silence: Code = Code.UNKNOWN
    """Without an answer: ``DEADLINE_EXCEEDED``, or ``UNKNOWN`` if the target could not be reached."""
    reason: str = ""
    """Why there was no answer."""
    retry_after: float | None = None
    is_app_engine: bool = False
    is_forced: bool = False
    """Whether it was sent by RunTask; then the next attempt is counted from its beginning."""
    response_head: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the target did what it should."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def asks_for_less(self) -> bool:
        """Whether the target says that it gets too much."""
        return self.status in (THROTTLING_APP_ENGINE if self.is_app_engine else THROTTLING)

    @property
    def attempt_status(self) -> AttemptStatus:
        """What clients are shown."""
        if self.status is not None:
            return status_of_answer(self.status)
        return status_of_silence(self.silence, self.reason)


class Counters(NamedTuple):
    """What is counted of a task while its attempt is out, that attempt included."""

    dispatched: int
    answered: int
    executed: int
    lost: int
    first_dispatch_time: float
    previous_response: int | None
    retry_reason: str


class Settled(NamedTuple):
    """What a task is after an attempt."""

    verdict: Verdict
    schedule_time: float
    answered: int
    executed: int
    previous_response: int | None
    retry_reason: str


def settle(number: int, ended: Ended, counters: Counters, config: RetryConfig) -> Settled:
    """Return what becomes of a task when attempt *number* ended."""
    answered = counters.answered + (ended.status is not None)
    executed = counters.executed + _is_executed(ended)
    previous, why = _told_next(ended, counters)
    if ended.succeeded:
        verdict, at = Verdict.SUCCEEDED, ended.end_time
    elif number != counters.dispatched:
        verdict, at = Verdict.SUPERSEDED, ended.end_time
    else:
        made = counters.dispatched - counters.lost
        tried = Tried(made, counters.first_dispatch_time, ended.end_time)
        verdict = Verdict.DEAD if is_used_up(config, tried) else Verdict.AGAIN
        begin = ended.dispatch_time if ended.is_forced else ended.end_time
        at = begin + next_delay(config, max(1, made), ended.retry_after if ended.asks_for_less else None)
    return Settled(verdict, microseconds(at), answered, executed, previous, why)


def _is_executed(ended: Ended) -> bool:
    """Return whether the next attempt is told that this one was executed: the two kinds of target count differently."""
    if ended.status is None:
        return False
    return ended.is_app_engine or not 500 <= ended.status < 600


def _told_next(ended: Ended, counters: Counters) -> tuple[int | None, str]:
    if ended.status is not None:
        return ended.status, APP_ERROR if ended.is_app_engine else ""
    if ended.silence is Code.DEADLINE_EXCEEDED:
        return (0, INSTANCE_UNAVAILABLE) if ended.is_app_engine else (504, "")
    return counters.previous_response, counters.retry_reason
