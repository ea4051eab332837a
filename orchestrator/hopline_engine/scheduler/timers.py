"""One timer for all tasks that wait for a time, and for runs that have a deadline.

Memory only: each entry stands for a time in a row, and is made again from the row after a restart. Entries are not
taken out when a task moves on; what fires is checked against the task by whoever asked for it. Those of tasks
that are no more are swept out from time to time: a deadline may be days ahead, and a task keeps its whole run.
"""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Final

from hopline_engine.clock import Clock
from hopline_engine.core.live import LiveRun, LiveTask

Timed = LiveTask | LiveRun
LEAST_SWEPT: Final = 1000
"""Entries below which it is not worth looking for those that are of no use any more."""


class Timers:
    """Calls back for each task, or run, when its time has come."""

    def __init__(self, clock: Clock, fire: Callable[[list[Timed]], None]) -> None:
        """Make timers that hand what is due to *fire*, on the loop."""
        self._clock = clock
        self._fire = fire
        self.longest_seconds = 60.0
        """How long it rests at most: the wall clock may be set while the loop's clock runs on."""
        self._heap: list[tuple[float, int, Timed]] = []
        self._order = count()
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = float("inf")
        self._sweep_at = LEAST_SWEPT
        self._is_stopped = False

    def __len__(self) -> int:
        """Return how many entries are held."""
        return len(self._heap)

    def add(self, at: float, timed: Timed) -> None:
        """Have a task or a run fired at a time in Unix seconds."""
        if self._is_stopped:  # an answer that comes while everything ends; the next engine takes the row up
            return
        if len(self._heap) >= self._sweep_at:
            self.sweep()
        heapq.heappush(self._heap, (at, next(self._order), timed))
        if at < self._armed_for:
            self._arm(at)

    def stop(self) -> None:
        """Fire nothing more, whatever is added."""
        self._is_stopped = True
        if self._handle is not None:
            self._handle.cancel()
        self._heap.clear()

    def sweep(self) -> None:
        """Let go of what is no more: each entry keeps a whole run."""
        self._heap = [entry for entry in self._heap if entry[2].is_open]
        heapq.heapify(self._heap)
        self._sweep_at = max(LEAST_SWEPT, 2 * len(self._heap))

    def _arm(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed_for = at
        delay = min(max(0.0, at - self._clock.now()), self.longest_seconds)
        self._handle = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        now = self._clock.now()
        due: list[Timed] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        self._armed_for = float("inf")
        self._handle = None
        if self._heap:
            self._arm(self._heap[0][0])
        if due:
            self._fire(due)
