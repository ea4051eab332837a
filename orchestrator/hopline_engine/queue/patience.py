"""How long exchanges that are under way are waited for: as long as was said at first, and longer after heartbeats."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from hopline_engine.core.model import TaskId


class _Wait(NamedTuple):
    limit: asyncio.Timeout
    besides: float
    """Seconds that others may take which are in the same exchange."""


class Patience:
    """The limits of the exchanges that are under way, by task."""

    def __init__(self) -> None:
        self._waits: dict[TaskId, _Wait] = {}

    def begin(self, task: TaskId, seconds: float) -> asyncio.Timeout:
        """Return the limit of an exchange for a task."""
        limit = asyncio.timeout(seconds)
        self._waits[task] = _Wait(limit, 0.0)
        return limit

    def begin_shared(self, tasks: Iterable[TaskId], seconds: float) -> asyncio.Timeout:
        """Return the limit of one exchange for several tasks, of which each may take a part of the time."""
        limit = asyncio.timeout(seconds)
        self._waits.update(dict.fromkeys(tasks, _Wait(limit, seconds)))
        return limit

    def end(self, task: TaskId) -> None:
        """Forget a task: its exchange is over."""
        self._waits.pop(task, None)

    def extend(self, task: TaskId, seconds: float) -> None:
        """Wait at least so many seconds more for a task, if an exchange for it is under way; never less than before."""
        wait = self._waits.get(task)
        if wait is None or wait.limit.expired():
            return
        at = asyncio.get_running_loop().time() + seconds + wait.besides
        before = wait.limit.when()
        if before is not None and at > before:
            wait.limit.reschedule(at)
