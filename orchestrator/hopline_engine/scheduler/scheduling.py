"""Fires schedules: decides on the ticks that are due, and starts the runs of those that were decided on.

All that is known is in the store. What is due is read in small parts, so that a hundred thousand schedules cost no more
than a look at an index; each tick becomes a row in the transaction that moves its schedule on, and a run afterwards, of
which the tick's key lets there be one only. A node that dies in between leaves a row, which the next one takes up.
Each schedule belongs to a shard, as runs do, so nodes share the work and do not race for it; if they do, all the same
one wins. When something is due is judged by the clock of the database.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from itertools import groupby
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from hopline.timing import ScheduleError, timing_of
from hopline_engine.clock import Clock
from hopline_engine.core.backfills import Pace, startable
from hopline_engine.core.model import RunId, RunState
from hopline_engine.core.schedules import tick_key, values_of
from hopline_engine.core.ticks import GRACE_SECONDS, TickState
from hopline_engine.errors import InvalidInputError, UnavailableError, UnusableDefinitionError, WorkflowNotFoundError
from hopline_engine.scheduler.deciding import advanced, over
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.scheduler.rounds import rest
from hopline_engine.store import schedules
from hopline_engine.store.errors import OwnershipLostError, StoreClosedError
from hopline_engine.store.interface import Store
from hopline_engine.store.runs import RunRecord
from hopline_engine.store.schedules import Looked, Promoted, Ready, StoredTick, Turn

log = logging.getLogger(__name__)

LONGEST_REST_SECONDS: Final = 5.0
"""How often it is looked for what other nodes have changed."""
SHORTEST_REST_SECONDS: Final = 0.05
"""How long what becomes due is gathered."""
QUEUE_SECONDS: Final = 1.0
"""How often it is looked whether the runs have ended that ticks wait for."""
SCHEDULES_AT_A_TIME: Final = 50
"""How many are decided on in one transaction: other commits wait for it."""
STARTS_AT_A_TIME: Final = 500
POSTPONE_SECONDS: Final = 600.0
"""How long a schedule is left alone that cannot be used, such as one of a zone that this machine does not know."""


_NEVER: Final = (InvalidInputError, ScheduleError)
"""What keeps a run from being started now and later."""


class Rests(NamedTuple):
    """How long at most it is not looked, in seconds."""

    longest: float = LONGEST_REST_SECONDS
    queued: float = QUEUE_SECONDS
    """While ticks wait."""


class Starter(Protocol):
    """Starts runs; see ``Engine``."""

    async def start_tick(self, workflow: str, given: Mapping[str, Any], key: str, shard: int | None) -> RunRecord:
        """Start the one run that has a key, or return it."""
        ...


class Scheduling:
    """Fires the schedules of the shards that this node holds."""

    def __init__(
        self,
        *,
        store: Store,
        catalogue: Catalogue,
        clock: Clock,
        starter: Starter,
        replace: Callable[[RunId], Awaitable[None]],
        held: Callable[[], Collection[int]],
    ) -> None:
        """Make what fires schedules; nothing happens before ``run``.

        Args:
            store: where they are.
            catalogue: knows what parameters workflows have.
            clock: only says how long to rest.
            starter: starts the runs.
            replace: cancels a run of which another one takes the place; see ``Orders``.
            held: returns the shards whose schedules are this node's.
        """
        self._store = store
        self._catalogue = catalogue
        self._clock = clock
        self._starter = starter
        self._replace = replace
        self._held = held
        self.rests = Rests()
        """Others in virtual time, in which nobody else changes anything and looking is all that takes time."""
        self._wake = asyncio.Event()
        self._looked_to = ""
        """Up to which name it was looked, last time, whose turn has come."""

    def wake(self) -> None:
        """Look now: a schedule has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Fire schedules until cancelled, or until the store takes nothing of this node any more."""
        self._wake.clear()
        while True:
            try:
                seconds = await self.look()
            except (OwnershipLostError, StoreClosedError):
                return
            except Exception:
                log.exception("schedules could not be looked at; it is tried again")
                seconds = self.rests.longest
            await rest(max(SHORTEST_REST_SECONDS, seconds), self._wake)

    async def look(self) -> float:
        """Do all that is due now, and return for how many seconds nothing is."""
        held = self._held()
        if not held:
            return self.rests.queued
        turn = await self._turn(held)
        if not (turn.is_come or self._looked_to):
            return self._rest(turn)
        while await self._decide(held):
            await self._start(held)
        waiting = await self._promote(held)
        is_left = await self._start(held)
        seconds = self._rest(await self._turn(held))
        return min(seconds, self.rests.queued) if waiting or is_left else seconds

    def _rest(self, turn: Turn) -> float:
        """Return for how many seconds no schedule is due."""
        return self.rests.longest if turn.due_in is None else min(self.rests.longest, max(0.0, turn.due_in))

    async def _turn(self, held: Collection[int]) -> Turn:
        return await self._store.read(partial(schedules.turn, shards=held))

    # --- deciding ---------------------------------------------------------------------------------------------------

    async def _decide(self, held: Collection[int]) -> bool:
        """Decide on schedules that are due; return whether there may be more."""
        found = await self._store.read(partial(schedules.due, shards=held, limit=SCHEDULES_AT_A_TIME))
        decided, unusable = [], []
        for looked in found:
            try:
                decided.append(advanced(looked))
            except Exception:
                log.exception("schedule %s cannot be used; it is tried again later", looked.schedule.name)
                unusable.append(looked.schedule)
        if decided:
            await self._store.execute(partial(schedules.advance, decided=decided))
        if unusable:  # or it would stand in the way of the others for ever
            await self._store.execute(partial(schedules.postpone, known=unusable, seconds=POSTPONE_SECONDS))
        return len(found) == SCHEDULES_AT_A_TIME

    async def _promote(self, held: Collection[int]) -> bool:
        """Let ticks go whose turn has come; return whether others wait."""
        found = await self._store.read(
            partial(schedules.with_waiting, shards=held, limit=SCHEDULES_AT_A_TIME, after=self._looked_to)
        )
        promoted = [each for each in map(_promoted, found) if each is not None]
        if promoted:
            await self._store.execute(partial(schedules.promote, promoted=promoted))
        is_last_part = len(found) < SCHEDULES_AT_A_TIME
        is_waiting = bool(found or self._looked_to)
        self._looked_to = "" if is_last_part else found[-1].schedule.name
        return is_waiting

    # --- starting ---------------------------------------------------------------------------------------------------

    async def _start(self, held: Collection[int]) -> bool:
        """Start runs for the ticks that were decided on; return whether some are left."""
        while True:
            found = await self._store.read(partial(schedules.ready, shards=held, limit=STARTS_AT_A_TIME))
            if not found:
                return False
            by_schedule = [list(group) for _, group in groupby(found, lambda each: each.schedule.name)]
            outcomes = [one for each in await asyncio.gather(*map(self._start_each, by_schedule)) for one in each]
            if outcomes:
                await self._store.execute(partial(schedules.settle, outcomes=outcomes))
            if len(outcomes) < len(found):
                return True
            if len(found) < STARTS_AT_A_TIME:
                return False

    async def _start_each(self, found: Iterable[Ready]) -> list[dict[str, Any]]:
        """Start runs for ticks of one schedule in their order; return what became of them, as far as it is known."""
        outcomes = []
        for each in found:
            outcome = await self._outcome(each)
            if outcome is None:
                break
            outcomes.append({"schedule": each.schedule.name, "at": each.tick.at, **outcome})
        return outcomes

    async def _outcome(self, ready: Ready) -> dict[str, Any] | None:
        """Start the run of a tick; return ``None`` if that has to be tried again."""
        known, tick = ready
        schedule = known.schedule
        try:
            if schedule["overlap"] == "cancel_running" and tick.kind == "tick":
                await self._cancel_before(known.name)
            plan = self._catalogue.current(known.workflow)
            values = values_of(plan.parameters, tick.at, timing_of(schedule, known.anchor_at).zone)
            given = {**values, **msgspec.json.decode(known.input, type=dict[str, Any])}
            # Those of a back-fill are many: they go to all shards of this node.
            shard = None if tick.kind == "backfill" else known.shard
            run = await self._starter.start_tick(known.workflow, given, tick_key(known.name, tick.at), shard)
        except (UnavailableError, WorkflowNotFoundError, UnusableDefinitionError, *_NEVER) as error:
            # Another node may have registered the workflow just now.
            is_final = not isinstance(error, UnavailableError) and self._is_given_up(tick)
            if not (is_final or isinstance(error, _NEVER)):
                log.info("schedule %s has to wait: %s", known.name, error)
                return None
            log.warning("schedule %s cannot start %s: %s", known.name, known.workflow, error)
            return {"state": int(TickState.FAILED), "reason": str(error)}
        except (OwnershipLostError, StoreClosedError):
            raise
        except Exception:  # or it would stand in the way of the others for ever
            log.exception("schedule %s cannot start %s", known.name, known.workflow)
            failed = {"state": int(TickState.FAILED), "reason": "no run could be started; see the log of the server"}
            return failed if self._is_given_up(tick) else None
        return {"state": int(TickState.STARTED), "run_id": run.id, "started_at": run.created_at}

    def _is_given_up(self, tick: StoredTick) -> bool:
        """Return whether it was tried for long enough to start a run."""
        return self._clock.now() - tick.decided_at > GRACE_SECONDS

    async def _cancel_before(self, name: str) -> None:
        for tick in await self._store.read(partial(schedules.open_ticks, name=name)):
            if tick.state is TickState.STARTED and tick.run_state is RunState.RUNNING and tick.run_id is not None:
                await self._replace(tick.run_id)


def _promoted(looked: Looked) -> Promoted | None:
    """Return the ticks of a schedule whose turn it is, if anything changes."""
    queued, ended = _next_queued(looked), over(looked.ticks)
    filled, pace = _next_of_backfill(looked)
    if not (queued or filled or ended) and pace == looked.schedule.backfill:
        return None
    return Promoted(looked.schedule, [*queued, *filled], ended, pace)


def _next_of_backfill(looked: Looked) -> tuple[list[float], bytes | None]:
    """Return the ticks of a back-fill that are to be started, and its pace then."""
    known = looked.schedule
    own = [tick for tick in looked.ticks if tick.kind == "backfill"]
    running, waiting = (
        sum(tick.is_running for tick in own),
        [tick.at for tick in own if tick.state is TickState.WAITING],
    )
    if known.backfill is None or not waiting:
        return [], known.backfill
    pace = msgspec.json.decode(known.backfill, type=Pace)
    count, after = startable(pace, running=running, waiting=len(waiting), now=looked.now)
    return waiting[:count], after.to_json()


def _next_queued(looked: Looked) -> list[float]:
    """Return the tick whose turn it is now that no run of the schedule is going on."""
    own = [tick for tick in looked.ticks if tick.kind != "backfill"]
    if any(tick.is_running for tick in own):
        return []
    return [tick.at for tick in own if tick.state is TickState.QUEUED][:1]
