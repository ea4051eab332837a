"""Deletes ended runs and passed-over ticks when they are old, in small slices, those of the shards of this node."""

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial
from itertools import chain, repeat
from typing import Final

from hopline_engine.clock import Clock
from hopline_engine.scheduler.rounds import go_round
from hopline_engine.store import retention
from hopline_engine.store.interface import Store
from hopline_engine.store.retention import BEGIN, Place, Pruned

log = logging.getLogger(__name__)

FIRST_SECONDS: Final = 60.0
"""How long after its start a node looks for the first time: there is other work then."""
REST_SECONDS: Final = 3600.0
"""From one pass to the next: what is kept for weeks may be kept for an hour more."""
PAUSE_SECONDS: Final = 0.2
"""Between two slices that delete something."""


class Pruner:
    """Keeps the store from growing for ever."""

    def __init__(
        self, *, store: Store, clock: Clock, held: Callable[[], Collection[int]], retention_seconds: float
    ) -> None:
        """Make a pruner; nothing happens before ``run``.

        Args:
            store: that the engine has open.
            clock: of the engine.
            held: returns the shards that this node works on.
            retention_seconds: how long ended runs are kept; infinity for ever.
        """
        self._store = store
        self._clock = clock
        self._held = held
        self._retention = retention_seconds

    async def run(self) -> None:
        """Look again and again, for ever."""
        if self._retention == float("inf"):
            return
        rests = chain((FIRST_SECONDS,), repeat(REST_SECONDS))
        await go_round(
            self._look,
            wake=asyncio.Event(),
            rest_seconds=lambda: min(next(rests), self._retention),
            again_seconds=REST_SECONDS,
            trouble="old runs could not be deleted",
        )

    async def _look(self) -> None:
        pruned = await self.prune(PAUSE_SECONDS)
        if pruned.runs or pruned.ticks:
            log.info("deleted %d runs that ended long ago, and %d ticks", pruned.runs, pruned.ticks)

    async def prune(self, pause: float = 0.0) -> Pruned:
        """Delete all that is old enough, and return how much that was.

        Args:
            pause: seconds to wait after each slice that deletes something.
        """
        before = self._clock.now() - self._retention
        pruned = Pruned()
        place: Place | None = BEGIN
        while place is not None:
            look = partial(retention.old_runs, before=before, after=place, shards=frozenset(self._held()))
            families, following = await self._store.read(look)
            part = Pruned()
            if families:
                part = await self._store.execute(partial(retention.remove_runs, families=families))
                pruned += part._replace(is_all=True)
                await asyncio.sleep(pause)
            if part.is_all:
                place = following
        return pruned + await self._prune_ticks(before, pause)

    async def _prune_ticks(self, before: float, pause: float) -> Pruned:
        """Delete ticks that have no run; the node that holds the first shard does it for all."""
        pruned = Pruned()
        if 0 not in self._held() or not await self._store.read(partial(retention.old_ticks, before=before)):
            return pruned
        part = Pruned(is_all=False)
        while not part.is_all:
            part = await self._store.execute(partial(retention.remove_ticks, before=before))
            pruned += part._replace(is_all=True)
            await asyncio.sleep(pause)
        return pruned
