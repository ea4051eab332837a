"""Numbers of the queue service's tasks: they grow with time, also between nodes that do not ask each other."""

from typing import Final

from hopline_engine.clock import Clock
from hopline_engine.core.cloud.model import CloudTaskId

_EPOCH: Final = 1_735_689_600.0
"""2025-01-01: 42 bits of milliseconds since then last for 139 years."""
_BITS: Final = 21


class TaskNumbers:
    """Gives out 63-bit numbers: milliseconds, and within each a count from a random start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def next(self) -> CloudTaskId:
        """Return a new number, greater than all that this process gave out before."""
        # The upper half is left free, so that a count from a random start does not run into the next millisecond.
        start = int(self._clock.random() * (1 << (_BITS - 1)))
        self._last = max(self._last + 1, self._millisecond() << _BITS | start)
        return CloudTaskId(self._last)

    def newest(self) -> int:
        """Return a number that no task that is there by now exceeds."""
        return max(self._last, (self._millisecond() + 1 << _BITS) - 1)

    def _millisecond(self) -> int:
        return int((self._clock.now() - _EPOCH) * 1000)
