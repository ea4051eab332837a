"""Numbers of runs and tasks: they grow with time, are given out without asking the store, and never twice."""

from hopline_engine.clock import Clock
from hopline_engine.core.model import RunId, TaskId

EPOCH = 1_735_689_600.0
"""2025-01-01, so that numbers stay short."""
_PER_MILLISECOND = 256


class TimeOrderedIds:
    """Gives out 48-bit numbers: milliseconds and a count within each.

    A clock that went back, or more than 256 numbers in a millisecond, only lets the numbers run ahead of the clock.
    """

    def __init__(self, clock: Clock, *, last_run: int, last_task: int) -> None:
        """Go on after the last numbers that the store knows."""
        self._clock = clock
        self._last_run = last_run
        self._last_task = last_task

    def next_run(self) -> RunId:
        """Return a new run number."""
        self._last_run = max(self._last_run + 1, self._floor())
        return RunId(self._last_run)

    def next_task(self) -> TaskId:
        """Return a new task number."""
        self._last_task = max(self._last_task + 1, self._floor())
        return TaskId(self._last_task)

    def _floor(self) -> int:
        return int((self._clock.now() - EPOCH) * 1000) * _PER_MILLISECOND
