"""When attempts have to be given up: one timer for all of them.

A timer for each attempt would cost more than most steps; here an attempt costs an entry in a dictionary.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

TOLERANCE_SECONDS = 0.001
"""Timers may fire a little before their time."""


class Limited(Protocol):
    """Something that may take until a time."""

    @property
    def deadline(self) -> float:
        """Unix seconds."""
        ...

    def give_up(self) -> None:
        """Called on the loop once the deadline has passed."""
        ...


class Deadlines:
    """Calls ``give_up`` of everything that is still there at its deadline. Only to be used on *loop*."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self._loop = loop
        self._now = now
        self._watched: dict[Limited, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = math.inf

    def add(self, limited: Limited) -> None:
        """Watch *limited*."""
        self._watched[limited] = None
        if limited.deadline < self._looks_at:
            self._look_at(limited.deadline)

    def remove(self, limited: Limited) -> None:
        """Watch it no longer; it may have been given up."""
        self._watched.pop(limited, None)

    def _look_at(self, time: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = time
        self._timer = self._loop.call_later(max(0.0, time - self._now()), self._look)

    def _look(self) -> None:
        self._timer, self._looks_at = None, math.inf
        passed = self._now() + TOLERANCE_SECONDS
        for limited in [each for each in self._watched if each.deadline <= passed]:
            del self._watched[limited]
            limited.give_up()
        if self._watched:
            self._look_at(min(each.deadline for each in self._watched))
