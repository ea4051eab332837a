"""Takes up stored runs: all of them when an engine opens, and later those of which memory turned out to be wrong."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from hopline.errors import HoplineError
from hopline_engine.core import unplanned
from hopline_engine.core.families import families
from hopline_engine.core.live import LiveRun, Parent, Past
from hopline_engine.core.model import RunId, RunState, TaskState
from hopline_engine.core.names import public_id
from hopline_engine.core.order import turn_of
from hopline_engine.core.reusing import Again
from hopline_engine.errors import UnavailableError
from hopline_engine.scheduler import repairing
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.store import events, key_claims, parked, recovery
from hopline_engine.store.errors import ChangesRefusedError, ReadTimeoutError
from hopline_engine.store.interface import Store
from hopline_engine.store.recovery import StoredRun

log = logging.getLogger(__name__)
RUNS_AT_A_TIME: Final = 500
REST_SECONDS: Final = 1.0
"""How long forgotten runs rest, so that what is refused each time costs little."""

_NOT_OUT: Final = (TaskState.SCHEDULED.value, TaskState.LEASED.value)
"""Of tasks of runs that are read: what was leased is lost."""


class Resumer:
    """Rebuilds live runs from rows."""

    def __init__(self, store: Store, catalogue: Catalogue, coordinator: Coordinator) -> None:
        self._store = store
        self._catalogue = catalogue
        self._coordinator = coordinator
        self._forgotten: set[RunId] = set()
        self.left_out: set[RunId] = set()
        """Runs that were read and cannot be taken up: their definition is unusable, what is stored of them contradicts
        itself, or the run above is left out."""
        self.reads = 0
        """How many reads of runs are under way; memory lacks runs until they are done."""
        self._reading: asyncio.Task[None] | None = None
        self.is_ours: Callable[[RunId], bool] = _is_ours
        """Whether this node works on a run now; another one takes up those on which it does not."""
        coordinator.listeners.forgotten = self.forget

    async def take_up(self, shards: Collection[int]) -> None:
        """Take up every run of these shards that has not ended and is not parked; what was sent of it is lost."""
        pages = partial(recovery.live_runs, limit=RUNS_AT_A_TIME, shards=shards, only_awake=True)
        taken = await self._take_up(pages, "the engine stopped while it was running", blame=False)
        if taken:
            log.info("took up %d runs", taken)

    async def wake(self, roots: Collection[RunId]) -> None:
        """Take up parked runs, with those below them."""
        pages = partial(recovery.live_runs, limit=RUNS_AT_A_TIME, roots=roots)
        await self._take_up(pages, "the engine stopped while it was running", blame=False)

    def forget(self, root: RunId) -> None:
        """Have a run, with those below it, taken up again soon: memory holds nothing of them any more."""
        if not self.is_ours(root):
            return
        self._forgotten.add(root)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read_again())

    @property
    def is_reading(self) -> bool:
        """Whether runs are being taken up, or are about to be."""
        return self.reads > 0 or bool(self._forgotten)

    async def end_orphan(self, orphan: RunId) -> None:
        """Cancel a stored run, with those below it, that goes on although the run above it has ended."""
        pages = partial(recovery.live_runs, limit=RUNS_AT_A_TIME, roots=[orphan])
        taken = await self._read(pages, orphan=orphan)
        # In one turn: nothing of it is sent in between.
        resumed = self._coordinator.resume(taken.values(), "the run above it had ended", blame=False)
        if orphan in taken:
            await self._coordinator.cancel(taken[orphan][0])
        await resumed

    async def cancel_left_out(self, root: RunId) -> None:
        """End a run that is left out, with those below it, by its rows: memory has nothing of them."""
        family = await self._stored_family(root)
        waiting = await self._store.read(partial(events.waiting, runs=[each.run.id for each in family]))
        stored = [(each.run, each.tasks) for each in family]
        changes = unplanned.cancel(stored, root, self._coordinator.now(), waiting)
        await self._coordinator.committing.submit(changes)
        self._coordinator.listeners.turns(())
        self.left_out.difference_update(each.run.id for each in family)

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
            for root in sorted(filter(self.is_ours, roots)):
                await self._take_up_again(root)

    async def _take_up_again(self, root: RunId) -> None:
        """Take up one forgotten run, with those below it; if the store does not answer, after another rest."""
        pages = partial(recovery.live_runs, limit=RUNS_AT_A_TIME, roots=[root])
        try:
            await self._take_up(pages, "the engine could not store what became of it", blame=True)
        except (UnavailableError, ReadTimeoutError) as error:
            log.warning("run %s could not be read again, which is tried until it can: %s", public_id(root), error)
            self._forgotten.add(root)

    async def _take_up(self, pages: "partial[list[StoredRun]]", reason: str, *, blame: bool) -> int:
        """Read runs and let them go on; return how many there are."""
        self.reads += 1
        try:
            taken = await self._read(pages)
            ours = [pair for run, pair in taken.items() if self.is_ours(run)]
            woken = await self._store.read(partial(parked.among, runs=[run.id for run, _ in ours]))
            try:
                resumed = self._coordinator.resume(ours, reason, blame=blame, woken=woken)
            except HoplineError:
                raise
            except Exception:  # noqa: BLE001 - one of them contradicts itself; nothing was done yet
                await self._take_up_but_one([run for run, _ in ours], reason, blame=blame)
            else:
                with contextlib.suppress(ChangesRefusedError):  # then they are forgotten, and taken up one by one
                    await resumed
        finally:
            self.reads -= 1
        return len(ours)

    async def _take_up_but_one(self, runs: Collection[LiveRun], reason: str, *, blame: bool) -> None:
        """Take up runs, each with those below it by itself, and leave out the one with which it is not possible."""
        roots = sorted(root.id for root in families(runs))
        if len(roots) != 1:
            for root in roots:
                pages = partial(recovery.live_runs, limit=RUNS_AT_A_TIME, roots=[root])
                await self._take_up(pages, reason, blame=blame)
            return
        log.exception("run %s cannot be taken up; it is left out, and can be cancelled", public_id(roots[0]))
        family = await self._stored_family(roots[0])
        self.left_out.update(stored.run.id for stored in family)
        await self._let_others_go(family)

    async def _stored_family(self, root: RunId) -> list[StoredRun]:
        family: list[StoredRun] = []
        last = RunId(0)
        pages = partial(recovery.live_runs, limit=RUNS_AT_A_TIME, roots=[root])
        while page := await self._store.read(partial(pages, after=last)):
            family += page
            last = page[-1].run.id
        return family

    async def _read(
        self, pages: "partial[list[StoredRun]]", *, orphan: RunId | None = None
    ) -> dict[RunId, tuple[LiveRun, Past]]:
        """Rebuild live runs, parents before their sub-runs, since numbers grow; *orphan* is taken to have no parent."""
        taken: dict[RunId, tuple[LiveRun, Past]] = {}
        last = RunId(0)
        while page := await self._store.read(partial(pages, after=last)):
            await self._catalogue.load({stored.run.digest for stored in page})
            left_out: list[StoredRun] = []
            for read in page:
                # A cancelled run that still closes is on its own if the one above it has ended.
                is_left = read.ending is not None and read.run.parent_id not in taken
                is_orphan = read.run.id == orphan or is_left
                alone = read.run._replace(parent_id=None, parent_node=None, parent_item=None)
                stored = replace(read, run=alone) if is_orphan else read
                if self._can_be_taken_up(stored, taken):
                    run, past = self._rebuilt(stored, taken)
                    if stored.run.retry_of is not None:
                        run.earlier = await repairing.below(self._store, run.plan, stored.run.retry_of, Again())
                    taken[stored.run.id] = run, past
                else:
                    left_out.append(stored)
            if left_out:
                await self._let_others_go(left_out)
            last = page[-1].run.id
        return taken

    async def _let_others_go(self, left_out: Collection[StoredRun]) -> None:
        """Keep runs that cannot be taken up from turns and keys that they would make no use of."""
        unsent = [task.id for run in left_out for task in run.tasks if task.state in _NOT_OUT]
        unbegun = [turn_of(run.run.id) for run in left_out if not run.steps]
        waiting = [turn_of(run.run.id) for run in left_out]
        let_go = partial(key_claims.let_go, owner=self._store.owner, tasks=[*unsent, *unbegun], waiting=waiting)
        await self._store.execute(let_go)

    def _can_be_taken_up(self, stored: StoredRun, taken: Mapping[RunId, tuple[LiveRun, Past]]) -> bool:
        """Return whether a run can go on; note those that have to wait."""
        row = stored.run
        can = self._catalogue.has_plan(row.digest) and (row.parent_id is None or row.parent_id in taken)
        if can:
            self.left_out.discard(row.id)
        elif row.id not in self.left_out:
            log.warning("run %s cannot be taken up; hopline doctor says why", row.public_id)
            self.left_out.add(row.id)
        return can

    def _rebuilt(self, stored: StoredRun, taken: Mapping[RunId, tuple[LiveRun, Past]]) -> tuple[LiveRun, Past]:
        row = stored.run
        run = LiveRun.fresh(row.id, self._catalogue.plan(row.digest), row.input, row.created_at, None, row.priority)
        run.paused_at, run.is_held = stored.paused_at, stored.paused_at is not None
        if stored.ending is not None:
            run.begin_ending(RunState(stored.ending))
        if row.parent_id is not None and row.parent_node is not None and row.parent_item is not None:
            above, its_past = taken[row.parent_id]
            run.parent = Parent(above, above.plan.nodes[row.parent_node], row.parent_item)
            run.is_held = run.is_held or above.is_held
            its_past.runs[row.parent_node, row.parent_item] = run
        return run, Past(stored.steps, {(task.node, task.item): task for task in stored.tasks})


def _is_ours(_: RunId) -> bool:
    return True
