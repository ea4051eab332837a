"""Whether a failed attempt is tried again, and when.

Pure: no clock, no randomness, no I/O.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from hopline.policy import Jitter
from hopline_engine.core.definition import RetrySpec

TRANSIENT_STATUSES = frozenset({408, 429})
NETWORK_ERRORS = frozenset({"ConnectionError", "TimeoutError"})
SECRET_MISSING = "SecretMissing"  # noqa: S105 - what a failure is called


class Failure(NamedTuple):
    """Why an attempt, and then perhaps its step and its run, failed."""

    type: str
    message: str
    types: tuple[str, ...] = ()
    """Names that ``Retry(on=...)`` may match: the class of the error and its bases."""
    status: int | None = None
    """HTTP status of the answer, if there was one that the step's own target gave."""
    traceback: str | None = None
    retry_after: float | None = None
    """Seconds that the target asked to be left alone."""
    final: bool = False
    """Whether trying again can not help, whatever the policy says."""
    attempts: int = 0
    """How many were made, once the step has failed."""


class NamedFailures(NamedTuple):
    """Failures as a definition names them."""

    statuses: tuple[tuple[int, int], ...] = ()
    """Half-open ranges of HTTP statuses."""
    errors: frozenset[str] = frozenset()
    """Names of error classes."""

    @classmethod
    def from_spec(cls, on: list[dict[str, Any]]) -> "NamedFailures":
        """Return what a definition names.

        Raises:
            ValueError: it names failures in a way that is not known.
        """
        statuses: list[tuple[int, int]] = []
        errors: set[str] = set()
        for named in on:
            match named:
                case {"status": int(status)}:
                    statuses.append((status, status + 1))
                case {"range": [int(low), int(high)]}:
                    statuses.append((low, high))
                case {"error": str(error)}:
                    errors.add(error)
                case _:
                    raise ValueError(f"a policy cannot name failures as {named!r}")
        return cls(tuple(statuses), frozenset(errors))

    def has(self, failure: Failure) -> bool:
        """Return whether *failure* is among them."""
        by_status = failure.status is not None and any(low <= failure.status < high for low, high in self.statuses)
        return by_status or not self.errors.isdisjoint(failure.types)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, how far apart and after which failures a step is attempted."""

    attempts: int = 1
    """Attempts in all, the first included; lost attempts are not counted."""
    first: float = 1.0
    """Seconds before the first retry."""
    factor: float = 2.0
    max: float = 3600.0
    """The longest wait in seconds."""
    jitter: Jitter = "full"
    statuses: tuple[tuple[int, int], ...] = ()
    """Half-open ranges of HTTP statuses that are tried again."""
    errors: frozenset[str] = frozenset()
    """Names of error classes that are tried again."""

    @classmethod
    def from_spec(cls, spec: RetrySpec | None) -> "RetryPolicy":
        """Return the policy that a definition describes; ``None`` is a single attempt.

        Raises:
            ValueError: it names failures in a way that is not known.
        """
        if spec is None:
            return cls()
        named = NamedFailures.from_spec(spec.on)
        return cls(
            attempts=spec.attempts,
            first=spec.first,
            factor=spec.factor,
            max=spec.max,
            jitter=spec.jitter,
            statuses=named.statuses,
            errors=named.errors,
        )


def is_retryable(policy: RetryPolicy, kind: str, failure: Failure) -> bool:
    """Return whether *failure* of a step of *kind* is of a sort that the policy tries again.

    A policy that names failures is taken at its word. One that does not tries every error of a Python step, and of
    an HTTP step what may pass by itself: 408, 429, 5xx, no connection, no answer in time. Every policy tries again what
    was not sent because a secret is not set.
    """
    if failure.final:
        return False
    if failure.type == SECRET_MISSING:
        return True
    if policy.statuses or policy.errors:
        return NamedFailures(policy.statuses, policy.errors).has(failure)
    if kind != "http":
        return True
    if failure.status is not None:
        return failure.status in TRANSIENT_STATUSES or 500 <= failure.status < 600
    return not NETWORK_ERRORS.isdisjoint(failure.types)


def backoff(policy: RetryPolicy, retry: int, random: float) -> float:
    """Return the seconds to wait before the *retry*-th retry (the first is 1); *random* is in ``[0, 1)``.

    The wait grows by ``factor`` up to ``max``. Full jitter spreads it over ``[0, wait)``, equal jitter over the
    upper half, so that clients that failed together do not come back together.

    >>> policy = RetryPolicy(first=2.0, factor=2.0, max=10.0, jitter="none")
    >>> [backoff(policy, n, 0.5) for n in range(1, 5)]
    [2.0, 4.0, 8.0, 10.0]
    """
    try:
        wait = min(policy.first * policy.factor ** (retry - 1), policy.max)
    except OverflowError:
        wait = policy.max if policy.first else 0.0
    match policy.jitter:
        case "none":
            return wait
        case "full":
            return wait * random
        case "equal":
            return wait / 2 + wait / 2 * random


def retry_delay(
    policy: RetryPolicy, kind: str, failure: Failure, *, made: int, random: float, retry_after_cap: float
) -> float | None:
    """Return the seconds until the next attempt after *made* counted ones, or ``None`` to give up.

    ``Retry-After`` of the target replaces the policy's own wait, up to the cap.
    """
    if made >= policy.attempts or not is_retryable(policy, kind, failure):
        return None
    if failure.retry_after is not None:
        return min(max(failure.retry_after, 0.0), retry_after_cap)
    return backoff(policy, made, random)


def lost_delay(lost: int, random: float) -> float:
    """Return the seconds to wait after the *lost*-th attempt that the step may be to blame for having been lost.

    None at first, then growing to a minute.

    A step that kills its worker each time must not take one worker after the other without pause.
    """
    return 0.0 if lost <= 1 else min(60.0, 0.5 * 2.0 ** min(lost - 1, 10)) * (0.5 + random / 2)
