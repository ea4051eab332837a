"""Runs that only wait leave memory, and come back when something happens to them.

A run with those below it is let go when everything that is open in it waits for later, and has for a while. Its rows
say so, and when the first thing happens to it by itself. Of those times memory has the earliest one alone, so a run
that waits costs nothing here, however long it takes. Whoever wants to do something to a run wakes it first.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Final

from hopline_engine.clock import Clock
from hopline_engine.core.families import family_of
from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import RunId, RunState, TaskState
from hopline_engine.core.waits import NEVER
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.resuming import Resumer
from hopline_engine.scheduler.rounds import go_round
from hopline_engine.store import parked, runs
from hopline_engine.store.errors import ChangesRefusedError
from hopline_engine.store.interface import Store

LEAD_SECONDS: Final = 2.0
"""How long before its time a run is woken, so that what happens to it happens in time."""

WOKEN_AT_A_TIME: Final = 200
PARKED_AT_A_TIME: Final = 200
AGAIN_SECONDS: Final = 1.0
LONGEST_REST: Final = 60.0
"""The wall clock may be set while the loop's clock runs on."""


class Parking:
    """Parks and wakes the runs of a node."""

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
        """Make the parking of an engine; nothing is parked before ``run``.

        Args:
            store: that the engine has open.
            coordinator: of the runs.
            resumer: takes up runs from rows.
            clock: of the engine.
            held: returns the shards that this node works on.
            seconds: how long a run only waits before it is parked, and how often that is looked for.
        """
        self._store = store
        self._coordinator = coordinator
        self._resumer = resumer
        self._clock = clock
        self._held = held
        self._seconds = seconds
        self._next: float | None = None
        """When the first parked run has to be awake; ``None`` for never."""
        self._is_known = False
        """Whether ``_next`` is so."""
        self._park_at = 0.0
        """When it is looked next for runs that only wait."""
        self._asked_for: set[RunId] = set()
        """Runs that somebody wanted to have in memory since it was looked last for those that only wait."""
        self._wake = asyncio.Event()
        self._waking = asyncio.Lock()

    async def run(self) -> None:
        """Park and wake, for ever."""
        self._park_at = self._clock.now() + self._seconds
        self._wake.set()  # what is due is found out at once
        await go_round(
            self._look,
            wake=self._wake,
            rest_seconds=self._seconds_to_next,
            again_seconds=AGAIN_SECONDS,
            trouble="runs could not be parked or woken",
        )

    def look_again(self) -> None:
        """Find out anew which parked run is the first: this node works on other ones now."""
        self._is_known = False
        self._wake.set()

    async def wake(self, run: RunId) -> None:
        """Have a run in memory, if this node works on it, and keep it there for a while."""
        self._asked_for.add(run)
        if run in self._coordinator.runs or not self._resumer.is_ours(run):
            return
        if await self._store.read(partial(runs.state, run_id=run)) is not RunState.RUNNING:
            return
        async with self._waking:
            # In order with what was decided: it may just be on its way out of memory.
            root = await self._store.execute(partial(parked.root_of, run_id=run))
            if root is not None and root not in self._coordinator.runs:
                await self._resumer.wake([root])

    async def _look(self) -> None:
        if not self._is_known:
            await self._learn()
        await self._wake_due()
        if self._clock.now() >= self._park_at:
            await self._park_idle()
            self._park_at = self._clock.now() + self._seconds

    def _seconds_to_next(self) -> float:
        until = self._park_at if self._next is None else min(self._park_at, self._next - LEAD_SECONDS)
        return min(max(0.0, until - self._clock.now()), LONGEST_REST)

    # --- waking -----------------------------------------------------------------------------------------------------

    async def _learn(self) -> None:
        self._is_known = True
        self._next = await self._store.read(partial(parked.next_wake, shards=self._held()))

    async def _wake_due(self) -> None:
        now = self._clock.now()
        if not self._is_due(now):
            return
        look = partial(parked.due, at=now + LEAD_SECONDS, shards=self._held(), limit=WOKEN_AT_A_TIME)
        while due := await self._store.read(look):
            async with self._waking:
                asleep = [root for root in due if root not in self._coordinator.runs]
                await self._resumer.wake(asleep)
            if not any(root in self._coordinator.runs for root in asleep):
                break  # they cannot be taken up now, or are just ending
        await self._learn()
        if self._is_due(now):  # not to be tried again at once
            self._next = now + LEAD_SECONDS + LONGEST_REST

    def _is_due(self, now: float) -> bool:
        return self._next is not None and self._next <= now + LEAD_SECONDS

    # --- parking ----------------------------------------------------------------------------------------------------

    async def _park_idle(self) -> None:
        """Let go of the runs that only wait."""
        families: list[tuple[list[LiveRun], float]] = []
        spared, self._asked_for = self._asked_for, set()
        for count, run in enumerate(list(self._coordinator.runs.values()), start=1):
            if run.parent is None:
                family = family_of(run)
                wake_at = self._idle_until(family)
                if wake_at is not None and not any(one.id in spared or one.id in self._asked_for for one in family):
                    families.append((family, wake_at))
            if count % PARKED_AT_A_TIME == 0:
                await self._park(families)
                families = []
                await asyncio.sleep(0)
        await self._park(families)
        self._coordinator.let_go_of_timers()

    async def _park(self, families: list[tuple[list[LiveRun], float]]) -> None:
        # What was idle in this turn of the loop is so still: nothing was awaited since.
        if not families:
            return
        roots = [family[0].id for family, _ in families]
        try:
            await self._coordinator.park(families)
        except ChangesRefusedError:
            for root in roots:
                self._resumer.forget(root)
            return
        first = min(wake_at for _, wake_at in families)
        self._next = first if self._next is None else min(self._next, first)

    def _idle_until(self, family: list[LiveRun]) -> float | None:
        """Return when the first thing happens to runs that only wait; ``None`` if they do not, or not for long."""
        now = self._clock.now()
        wake_at = NEVER
        for run in family:
            if run.state is not RunState.RUNNING or run.is_held or run.ending is not None or run.open_nodes == 0:
                return None
            wake_at = min(wake_at, run.deadline_time or NEVER)
            for unit in run.units():
                if isinstance(unit, LiveTask):
                    until = self._waits_until(unit, now)
                    if until is None:
                        return None
                    wake_at = min(wake_at, until)
        is_short = wake_at <= now + max(self._seconds, LEAD_SECONDS)
        return None if is_short or next(_tasks(family), None) is None else wake_at

    def _waits_until(self, task: LiveTask, now: float) -> float | None:
        """Return when something happens by itself to a task that has waited for a while; ``None`` if it has not."""
        since, until = task.first_attempt_at, task.schedule_time
        match task.state:
            case TaskState.PARKED if task.node.kind != "turn":
                pass
            case TaskState.ACCEPTED if task.key is None:  # what holds a key is known to who gives keys out
                since, until = task.leased_at, task.deadline_time or NEVER
            case TaskState.SCHEDULED if task.schedule_time > now:
                since, until = None, min(task.schedule_time, task.deadline_time or NEVER)
            case _:
                return None
        is_new = since is not None and since > now - self._seconds
        return None if is_new or not task.stored else until


def _tasks(family: list[LiveRun]) -> Iterator[LiveTask]:
    for run in family:
        for unit in run.units():
            if isinstance(unit, LiveTask):
                yield unit
