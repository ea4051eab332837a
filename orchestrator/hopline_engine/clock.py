"""The only place that reads the clock and makes randomness; everything else is given them.

The engine takes a ``Clock`` and passes times and random numbers on as arguments, so that the same decisions can be
replayed in a test or a simulation under a clock of its own.
"""

import random
import secrets
import time
from typing import Protocol


class Clock(Protocol):
    """A source of time and randomness."""

    def now(self) -> float:
        """Return the time in Unix seconds."""
        ...

    def random(self) -> float:
        """Return a number in ``[0, 1)``, for jitter."""
        ...


class SystemClock:
    """The clock and randomness of the machine."""

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return time.time()  # noqa: TID251

    def random(self) -> float:
        """Return a number in ``[0, 1)``."""
        return random.random()  # noqa: S311, TID251


def now() -> float:
    """Return the machine's time in Unix seconds."""
    return time.time()  # noqa: TID251


def monotonic() -> float:
    """Return seconds that never go backwards, for measuring durations."""
    return time.monotonic()


def token(size: int = 16) -> str:
    """Return *size* random bytes as hexadecimal text, fit for secrets and for names of processes."""
    return secrets.token_hex(size)
