"""When a failed attempt of a task is tried again, and when its attempts are used up, as Cloud Tasks decides it.

Pure: no clock, no randomness, no I/O.
"""

import email.utils
from datetime import UTC
from typing import Final, NamedTuple

from hopline_engine.core.cloud.errors import Code
from hopline_engine.core.cloud.model import UNLIMITED, AttemptStatus, RetryConfig

LONGEST_RETRY_AFTER: Final = 3600.0
THROTTLING: Final = frozenset({429, 503})
"""Answers with which an HTTP target asks for less."""
THROTTLING_APP_ENGINE: Final = frozenset({503})

_CODES: Final = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.ALREADY_EXISTS,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


class Tried(NamedTuple):
    """What counts when it is decided whether to try again."""

    attempts: int
    """Attempts made, the last included; without those that a dying engine lost."""
    first_at: float
    """When the first was made."""
    now: float


def backoff(config: RetryConfig, failed: int) -> float:
    """Return the seconds to wait after *failed* failed attempts.

    The wait doubles ``max_doublings`` times, then grows by its last step, up to ``max_backoff``.

    >>> config = RetryConfig(min_backoff=10.0, max_backoff=300.0, max_doublings=3)
    >>> [backoff(config, n) for n in range(1, 9)]
    [10.0, 20.0, 40.0, 80.0, 160.0, 240.0, 300.0, 300.0]
    """
    doublings = min(failed - 1, config.max_doublings)
    growth = max(1, failed - config.max_doublings)
    # Compared before multiplying: 2 to the power of a stranger's number does not fit a float.
    if config.min_backoff <= 0.0:
        return 0.0
    if doublings > 1023 or config.min_backoff * 2.0**doublings >= config.max_backoff / growth:
        return config.max_backoff
    return config.min_backoff * 2.0**doublings * growth


def is_used_up(config: RetryConfig, tried: Tried) -> bool:
    """Return whether a task that failed is not tried again.

    A side without limit never decides; with two limits both must be reached.
    """
    has_attempts = config.max_attempts != UNLIMITED
    has_duration = config.max_retry_duration > 0.0
    if not has_attempts and not has_duration:
        return False
    attempts_over = not has_attempts or tried.attempts >= config.max_attempts
    duration_over = not has_duration or tried.now - tried.first_at >= config.max_retry_duration
    return attempts_over and duration_over


def next_delay(config: RetryConfig, failed: int, retry_after: float | None) -> float:
    """Return the seconds until the next attempt; a target's ``Retry-After`` can only make it longer."""
    delay = backoff(config, failed)
    if retry_after is None:
        return delay
    return max(delay, min(retry_after, max(LONGEST_RETRY_AFTER, config.max_backoff)))


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks to wait: seconds, or a date (RFC 9110 §10.2.3).

    >>> parse_retry_after("120", 0.0), parse_retry_after("soon", 0.0)
    (120.0, None)
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = email.utils.parsedate_to_datetime(text)
        # In the oldest of the three forms a date has no zone, and it is one of UTC.
        return max(0.0, (at.replace(tzinfo=UTC) if at.tzinfo is None else at).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def status_of_answer(status: int) -> AttemptStatus:
    """Return how an attempt ended that was answered with an HTTP status.

    >>> status_of_answer(502).message
    'INTERNAL(13): HTTP status code 502'
    """
    if 200 <= status < 300:
        return AttemptStatus(code=Code.OK, message="")
    code = _CODES.get(status, Code.INTERNAL if 500 <= status < 600 else Code.UNKNOWN)
    return AttemptStatus(code=code, message=f"{code.name}({code.value}): HTTP status code {status}")


def status_of_silence(code: Code, reason: str) -> AttemptStatus:
    """Return how an attempt ended that was not answered."""
    return AttemptStatus(code=code, message=f"{code.name}({code.value}): {reason}")
