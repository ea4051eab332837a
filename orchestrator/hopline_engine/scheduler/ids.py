"""Numbers of runs and tasks: they grow with time, are given out without asking the store, and never twice.

A number is milliseconds, a count of four within each, and the shard. Two nodes never give out the same one, because
each gives out numbers of shards that it holds; a node that takes a shard over goes on above all that is stored.
"""

from collections.abc import Collection
from itertools import count

from hopline_engine.clock import Clock
from hopline_engine.core.model import RunId, TaskId
from hopline_engine.core.shards import SHARDS, shard_of
from hopline_engine.errors import NoShardError

EPOCH = 1_735_689_600.0
"""2025-01-01, so that numbers stay short."""
_PER_MILLISECOND = 4 * SHARDS


class TimeOrderedIds:
    """Gives out 48-bit numbers that grow within each shard.

    A clock that went back, or more than four numbers of a shard in a millisecond, only let them run ahead of the clock.
    """

    def __init__(self, clock: Clock, *, last_run: int, last_task: int, shards: Collection[int] = range(SHARDS)) -> None:
        """Give new runs numbers of *shards*, going on after the last numbers that the store knows."""
        self._clock = clock
        self._last_run = [last_run] * SHARDS
        self._last_task = [last_task] * SHARDS
        self._shards = sorted(shards)
        self._turns = count()

    def take(self, shards: Collection[int], *, last_run: int, last_task: int) -> None:
        """Give new runs numbers of these shards too, above all that are stored now."""
        for shard in shards:
            self._last_run[shard] = max(last_run, self._last_run[shard])
            self._last_task[shard] = max(last_task, self._last_task[shard])
        self._shards = sorted({*self._shards, *shards})

    def drop(self, shards: Collection[int]) -> None:
        """Give no new run a number of these shards."""
        self._shards = [shard for shard in self._shards if shard not in shards]

    def next_run(self, parent: RunId | None = None) -> RunId:
        """Return a new run number: in the shard of *parent*, or without one, in each shard by turns.

        Raises:
            NoShardError: there is none to take it from.
        """
        if parent is not None:
            return RunId(self._next(self._last_run, shard_of(parent)))
        if not self._shards:
            raise NoShardError
        return RunId(self._next(self._last_run, self._shards[next(self._turns) % len(self._shards)]))

    def next_task(self, run: RunId) -> TaskId:
        """Return a new task number, in the shard of its run."""
        return TaskId(self._next(self._last_task, shard_of(run)))

    def _next(self, last: list[int], shard: int) -> int:
        least = max(last[shard] + 1, int((self._clock.now() - EPOCH) * 1000) * _PER_MILLISECOND)
        number = last[shard] = least + (shard - least) % SHARDS
        return number
