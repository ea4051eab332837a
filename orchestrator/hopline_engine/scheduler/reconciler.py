"""Looks for what must not be, in memory and in the store, and puts it right where that is safe.

In an engine without faults it finds nothing: each repair is a mistake of ours that became harmless, is counted, and
leaves its evidence in the log. A pass goes over all live runs of this node in small slices. Only what two passes in a
row find, and a read in order with the commits confirms, is touched; and only by those who change runs anyway.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Final, NamedTuple

from hopline.errors import HoplineError
from hopline_engine.clock import Clock
from hopline_engine.core.model import RunId, TaskId, TaskState
from hopline_engine.core.shards import shard_of
from hopline_engine.scheduler import comparing
from hopline_engine.scheduler.comparing import OF_MEMORY, Comparison
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.resuming import Resumer
from hopline_engine.store import audit, key_audits, recovery, tasks
from hopline_engine.store.audit import Finding
from hopline_engine.store.interface import Store

log = logging.getLogger(__name__)

ROWS_AT_A_TIME: Final = 500
PAUSE_SECONDS: Final = 0.2
"""After so many rows: however much there is, looking at it takes little of the processor from the work itself."""

SECOND_LOOK_SECONDS: Final = 5.0
"""How soon what was found is looked at again."""

KEPT: Final = 100
"""How many repairs are remembered for people."""


class Healed(NamedTuple):
    """A repair."""

    at: float
    finding: Finding


class Reconciler:
    """Keeps memory and rows of one engine as they must be."""

    def __init__(
        self,
        *,
        store: Store,
        coordinator: Coordinator,
        resumer: Resumer,
        clock: Clock,
        held: Callable[[], Collection[int]],
        seconds: float,
    ) -> None:
        """Make a reconciler; nothing happens before ``run``.

        Args:
            store: that the engine has open.
            coordinator: of the runs.
            resumer: takes up runs from rows.
            clock: of the engine.
            held: returns the shards that this node works on.
            seconds: from one pass to the next.
        """
        self.healed: Counter[str] = Counter()
        """How often something was repaired, by the name of the audit that found it. Empty unless there was a fault."""
        self.latest: deque[Healed] = deque(maxlen=KEPT)
        self._store = store
        self._coordinator = coordinator
        self._resumer = resumer
        self._clock = clock
        self._held = held
        self._seconds = seconds
        self._told: set[tuple[str, int | str]] = set()
        """What cannot be repaired, and was logged."""

    async def run(self) -> None:
        """Look again and again, for ever."""
        suspects: dict[tuple[str, int | str], Finding] = {}
        while True:
            await asyncio.sleep(min(SECOND_LOOK_SECONDS, self._seconds) if suspects else self._seconds)
            try:
                found = {(finding.audit.name, finding.key): finding for finding in await self.look(PAUSE_SECONDS)}
                for key, finding in found.items():
                    if key in suspects:
                        await self.heal(finding)
                suspects = found
            except HoplineError as error:  # the store is away, or not ours; whoever commits says so
                log.warning("memory and store could not be compared: %s", error)
            except Exception:
                log.exception("memory and store could not be compared")

    async def look(self, pause: float = 0.0) -> list[Finding]:
        """Go over everything once and return what seems to be wrong; a commit under way can look like it.

        Args:
            pause: seconds to wait after each slice, where there is more than one.
        """
        comparison = self._comparison()
        held = frozenset(self._held())
        runs_after = partial(audit.live_runs, limit=ROWS_AT_A_TIME, shards=held, only_awake=True)
        tasks_after = partial(audit.tasks, limit=ROWS_AT_A_TIME, shards=held, only_awake=True)
        after = 0
        while (runs := await self._store.read(partial(runs_after, after=after))).keys:
            comparison.see_runs(runs.keys)
            comparison.findings += runs.findings
            after = runs.keys[-1]
            await self._rest(len(runs.keys), pause)
        after = 0
        while (part := await self._store.read(partial(tasks_after, after=after))).rows:
            comparison.see_tasks(part.rows)
            comparison.findings += part.findings
            after = part.rows[-1].id
            await self._rest(len(part.rows), pause)
        after = 0
        claims_after = partial(key_audits.claims, limit=ROWS_AT_A_TIME, shards=held)
        while (claims := await self._store.read(partial(claims_after, after=after))).keys:
            comparison.findings += claims.findings
            after = claims.keys[-1]
            await self._rest(len(claims.keys), pause)
        await comparison.see_memory(held, pause)
        return [finding for finding in comparison.findings if not self._is_left_out(finding)]

    async def _rest(self, seen: int, pause: float) -> None:
        """Let the work itself go on, if there was a whole slice and so perhaps many."""
        if seen >= ROWS_AT_A_TIME:
            await asyncio.sleep(pause)

    async def is_so(self, finding: Finding) -> bool:
        """Return whether a finding of ``look`` is no commit under way, and still this node's business."""
        if finding.audit is not comparing.LEAKED_PLACE and shard_of(_run_of(finding)) not in self._held():
            return False
        if finding.audit in OF_MEMORY:
            return await self._comparison().is_so(finding)
        before = int(finding.key) - 1
        if finding.audit in audit.OF_LIVE_RUNS:
            again = (await self._store.execute(partial(audit.live_runs, after=before, limit=1))).findings
        elif finding.audit in key_audits.OF_CLAIMS:
            again = (await self._store.execute(partial(key_audits.claims, after=before, limit=1))).findings
        else:
            again = (await self._store.execute(partial(audit.tasks, after=before, limit=1))).findings
        is_there = any((each.audit, each.key) == (finding.audit, finding.key) for each in again)
        return is_there and not self._resumer.is_reading and not self._is_left_out(finding)

    def _is_left_out(self, finding: Finding) -> bool:
        """Return whether something was found of a run that waits for an engine that can run it."""
        return _run_of(finding) in self._resumer.left_out and finding.audit is not audit.ORPHAN_SUB_RUN

    async def heal(self, finding: Finding) -> None:
        """Repair what was found, if it is so and can be repaired."""
        if not await self.is_so(finding):
            return
        name, key = finding.audit.name, finding.key
        if not await self._repair(finding):
            if (name, key) not in self._told:
                self._told.add((name, key))
                log.error("%s, which cannot be repaired: %s", finding.audit.means, dict(finding.evidence))
            return
        self.healed[name] += 1
        self.latest.append(Healed(self._clock.now(), finding))
        log.error("repaired (%s): %s: %s", name, finding.audit.means, dict(finding.evidence))

    async def _repair(self, finding: Finding) -> bool:
        """Put one thing right; return whether there is a way to."""
        run = _run_of(finding)
        match finding.audit:
            case audit.ORPHAN_TASK | audit.TASK_OF_ENDED_STEP:
                self._forget([run])
                await self._store.execute(partial(tasks.remove_closed, task_id=TaskId(int(finding.key))))
            case audit.LEASE_OF_NOBODY | audit.STUCK_RUN | comparing.RUN_NOT_IN_MEMORY:
                family = await self._store.read(partial(recovery.family, run_id=run))
                self._forget(family)
                self._resumer.forget(family[0])
            case audit.ORPHAN_SUB_RUN:
                self._forget([run])
                await self._store.execute(lambda _: None)  # what was decided about it is durable or refused by now
                await self._resumer.end_orphan(run)
            case key_audits.KEY_OF_NOBODY | key_audits.FREE_KEY:
                await self._store.execute(partial(key_audits.release, task_id=int(finding.key)))
                self._coordinator.listeners.turns(())
                self._coordinator.look_again()
            case comparing.RUN_NOT_IN_STORE | comparing.TASK_DIFFERS:
                self._forget([run])
            case comparing.STALLED_TASK:
                self._move(finding, run)
            case comparing.LEAKED_PLACE:
                self._coordinator.admission.release(TaskId(int(finding.key)))
                self._coordinator.look_again()
            case _:
                return False
        return True

    def _forget(self, runs: Iterable[RunId]) -> None:
        """Have what memory holds of runs read again from rows."""
        known = self._coordinator.runs
        self._coordinator.committing.forget([known[run] for run in runs if run in known])

    def _move(self, finding: Finding, run: RunId) -> None:
        task = self._comparison().task(finding)
        if task is None or task.state is TaskState.LEASED:
            self._forget([run])
        else:
            self._coordinator.wake([task])

    def _comparison(self) -> Comparison:
        return Comparison(self._store, self._coordinator, self._resumer, self._clock)


def _run_of(finding: Finding) -> RunId:
    """Return the run that something was found about, itself or one of its tasks."""
    return RunId(int(finding.evidence.get("run_id", finding.key)))
