"""Attempts whose answer nobody waits for any more: the run was cancelled, or the engine is gone.

One timer looks for attempts that take long enough to be worth it, and only those are watched: a watch for each attempt
would cost more than most steps.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

LOOK_SECONDS: Final = 0.25
"""An attempt is watched after once to twice this time; who leaves earlier is noticed then."""


class Leavable(Protocol):
    """Something that somebody waits for."""

    def leave(self) -> None:
        """Called on the loop once nobody does any more."""
        ...


class Leaving:
    """Calls ``leave`` of everything whose asker goes away before it is removed. Only to be used on *loop*."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._new: dict[Leavable, Callable[[], Awaitable[object]]] = {}
        self._seen: dict[Leavable, Callable[[], Awaitable[object]]] = {}
        self._watches: dict[Leavable, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, attempt: Leavable, gone: Callable[[], Awaitable[object]]) -> None:
        """Look after *attempt*; *gone* returns when nobody waits for it any more."""
        self._new[attempt] = gone
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def remove(self, attempt: Leavable) -> None:
        """Look after it no longer."""
        if self._new.pop(attempt, None) is None and self._seen.pop(attempt, None) is None:
            watch = self._watches.pop(attempt, None)
            if watch is not None:
                watch.cancel()

    def _look(self) -> None:
        for attempt, gone in self._seen.items():
            self._watches[attempt] = self._loop.create_task(self._watch(attempt, gone))
        self._seen, self._new = self._new, {}
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look) if self._seen else None

    async def _watch(self, attempt: Leavable, gone: Callable[[], Awaitable[object]]) -> None:
        await gone()
        if self._watches.pop(attempt, None) is not None:
            attempt.leave()
