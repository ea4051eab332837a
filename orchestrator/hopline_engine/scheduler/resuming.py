"""Takes up stored runs: all of them when an engine opens, and later those of which memory turned out to be wrong."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from functools import partial
from typing import Final

from hopline_engine.core.live import LiveRun, Parent, Past
from hopline_engine.core.model import RunId
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.store import recovery
from hopline_engine.store.errors import ChangesRefusedError
from hopline_engine.store.interface import Store
from hopline_engine.store.recovery import StoredRun

log = logging.getLogger(__name__)
RUNS_AT_A_TIME: Final = 500
REST_SECONDS: Final = 1.0
"""How long forgotten runs rest, so that what is refused each time costs little."""


class Resumer:
    """Rebuilds live runs from rows."""

    def __init__(self, store: Store, catalogue: Catalogue, coordinator: Coordinator) -> None:
        self._store = store
        self._catalogue = catalogue
        self._coordinator = coordinator
        self._forgotten: set[RunId] = set()
        self._reading: asyncio.Task[None] | None = None
        coordinator.on_forgotten = self.forget

    async def take_up_all(self) -> None:
        """Take up every run that has not ended; what an earlier engine had sent is lost."""
        taken = await self._take_up(None, "the engine stopped while it was running", blame=False)
        if taken:
            log.info("took up %d runs", taken)

    def forget(self, root: RunId) -> None:
        """Have a run, with those below it, taken up again soon: memory holds nothing of them any more."""
        self._forgotten.add(root)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read_again())

    async def settled(self) -> None:
        """Return when all that was decided before is durable or refused, and memory holds what the store does."""
        await self._store.execute(lambda _: None)
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def stop(self) -> None:
        """Leave what is forgotten to the next engine."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _read_again(self) -> None:
        while self._forgotten:
            await asyncio.sleep(REST_SECONDS)
            # Decisions that were on their way when the runs were forgotten are written or refused after this.
            await self._store.execute(lambda _: None)
            roots, self._forgotten = self._forgotten, set()
            for root in sorted(roots):
                await self._take_up(root, "the engine could not store what became of it", blame=True)

    async def _take_up(self, root: RunId | None, reason: str, *, blame: bool) -> int:
        """Rebuild live runs, parents before their sub-runs, since numbers grow; return how many there are."""
        taken: dict[RunId, tuple[LiveRun, Past]] = {}
        last = RunId(0)
        pages = partial(recovery.live_runs, limit=RUNS_AT_A_TIME, root=root)
        while page := await self._store.read(partial(pages, after=last)):
            await self._catalogue.load({stored.run.digest for stored in page})
            for stored in page:
                taken[stored.run.id] = self._rebuilt(stored, taken)
            last = page[-1].run.id
        with contextlib.suppress(ChangesRefusedError):  # then they are forgotten, and taken up one by one
            await self._coordinator.resume(taken.values(), reason, blame=blame)
        return len(taken)

    def _rebuilt(self, stored: StoredRun, taken: Mapping[RunId, tuple[LiveRun, Past]]) -> tuple[LiveRun, Past]:
        row = stored.run
        run = LiveRun.fresh(row.id, self._catalogue.plan(row.digest), row.input, row.created_at, None)
        if row.parent_id is not None and row.parent_node is not None and row.parent_item is not None:
            above, its_past = taken[row.parent_id]
            run.parent = Parent(above, above.plan.nodes[row.parent_node], row.parent_item)
            its_past.runs[row.parent_node, row.parent_item] = run
        return run, Past(stored.steps, {(task.node, task.item): task for task in stored.tasks})
