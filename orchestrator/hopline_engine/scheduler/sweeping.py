"""Removes large values that no row refers to: their runs are gone, or their writer died before one did."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from hopline_engine.blobs.blobs import Blobs
from hopline_engine.blobs.place import Place
from hopline_engine.scheduler.rounds import go_round
from hopline_engine.store.interface import Store
from hopline_engine.store.references import referred_to

log = logging.getLogger(__name__)

SECONDS: Final = 3600.0


class Sweeper:
    """Keeps the place of large values free of what nobody needs."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs

    async def run(self) -> None:
        """Sweep again and again."""
        await go_round(
            self.sweep,
            wake=asyncio.Event(),
            rest_seconds=lambda: SECONDS,
            again_seconds=SECONDS,
            trouble="large values that nobody needs could not be removed",
        )

    async def sweep(self) -> int:
        """Remove what nothing refers to and is older than the grace; return how many values that were."""
        before = self._blobs.oldest_day()
        old: list[str] | None = await self._blobs.ask(lambda place: list(place.names(before)))
        if not old:
            return 0
        # Run in order with what was decided before: a row that is being copied now still refers to the value, or the
        # copy does.
        needed = await self._store.execute(referred_to)
        unneeded = [name for name in old if name not in needed]
        await self._blobs.ask(lambda place: _remove(place, unneeded))
        if unneeded:
            log.info("removed %d large values that nothing referred to", len(unneeded))
        return len(unneeded)


def _remove(place: Place, names: Iterable[str]) -> None:
    for name in names:
        place.remove(name)
