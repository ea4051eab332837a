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


class DatabaseClock:
    """A clock that follows the one of the database, in which nodes say to each other when things are due."""

    def __init__(self, clock: Clock) -> None:
        """Follow nothing yet: say what *clock* says."""
        self._clock = clock
        self._offset = 0.0

    def now(self) -> float:
        """Return the time of the database in Unix seconds, as far as it is known."""
        return self._clock.now() + self._offset

    def random(self) -> float:
        """Return a number in ``[0, 1)``."""
        return self._clock.random()

    def own(self) -> float:
        """Return the time of this machine, which is to be taken before and after the database is asked for its."""
        return self._clock.now()

    def hear(self, told: float, *, before: float, after: float) -> None:
        """Follow what the database told, at some moment between two of this machine's.

        The offset is not touched while it may be right, so that an answer that took long makes nothing worse.
        """
        self._offset = min(max(self._offset, told - after), told - before)


def now() -> float:
    """Return the machine's time in Unix seconds."""
    return time.time()  # noqa: TID251


def monotonic() -> float:
    """Return seconds that never go backwards, for measuring durations."""
    return time.monotonic()


def token(size: int = 16) -> str:
    """Return *size* random bytes as hexadecimal text, fit for secrets and for names of processes."""
    return secrets.token_hex(size)
