"""The schedules, as people and workflow files make, change and remove them; ``scheduling`` fires them.

A schedule that stands in a workflow's file has the name of the workflow. What is changed by hand stays in force when
the file is registered again; what the file says is kept beside it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from hopline.timing import ScheduleError, check, timing_of
from hopline_engine.core.backfills import MOST_TICKS, Pace, Planned, planned
from hopline_engine.core.plan import Plan
from hopline_engine.core.schedules import complete, tick_key, values_of
from hopline_engine.core.ticks import DecidedTick, TickState
from hopline_engine.errors import (
    BackfillOpenError,
    InvalidScheduleError,
    NoShardError,
    ScheduleDeclaredError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    StoreUnavailableError,
    UnavailableError,
    closest,
)
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.scheduler.in_force import change, following, fresh, in_force
from hopline_engine.scheduler.inputs import complete_input
from hopline_engine.scheduler.scheduling import Starter
from hopline_engine.store import runs, schedules
from hopline_engine.store.interface import Store, Transaction
from hopline_engine.store.runs import RunRecord
from hopline_engine.store.schedules import StoredSchedule, StoredTick

_TRIES: Final = 5
"""How often a change is tried when something else changes the same schedule at the same time."""
_LAST_TICKS: Final = 10
_EARLIEST: Final = -62_000_000_000.0
"""In the year 5: no zone has the first of all days at this time."""
_ELSEWHERE_SECONDS: Final = 12.0
"""Longer than another node looks at nothing."""
_LOOK_SECONDS: Final = 0.1


class Shown(NamedTuple):
    """A schedule with what became of its last ticks."""

    schedule: StoredSchedule
    ticks: list[StoredTick]
    """Newest first."""
    backfilled: Mapping[TickState, int]
    """How many ticks of its back-fills are in each state."""


class ScheduleBook:
    """Keeps the schedules of a store."""

    def __init__(
        self, *, store: Store, catalogue: Catalogue, starter: Starter, shortest: float, changed: Callable[[], None]
    ) -> None:
        """Make the book.

        Args:
            store: where schedules are.
            catalogue: knows the workflows.
            starter: starts the runs of ticks that somebody triggers.
            shortest: seconds; ticks closer together are refused.
            changed: called after each change.
        """
        self._store = store
        self._catalogue = catalogue
        self._starter = starter
        self._shortest = shortest
        self._changed = changed

    # --- looking ----------------------------------------------------------------------------------------------------

    async def page(self, limit: int, after: str) -> list[StoredSchedule]:
        """Return up to *limit* schedules by name, from the one after *after*."""
        return await self._store.read(partial(schedules.page, limit=limit, after=after))

    async def get(self, name: str) -> StoredSchedule:
        """Return a schedule.

        Raises:
            ScheduleNotFoundError
        """
        found = await self._store.read(partial(schedules.get, name=name))
        if found is None:
            names = await self._store.read(schedules.names)
            raise self._catalogue.missing(ScheduleNotFoundError(schedule=name, did_you_mean=closest(name, names)))
        return found

    async def show(self, name: str) -> Shown:
        """Return a schedule with its last ticks.

        Raises:
            ScheduleNotFoundError
        """
        found = await self.get(name)
        ticks = await self._store.read(partial(schedules.last_ticks, name=name, limit=_LAST_TICKS))
        return Shown(found, ticks, await self._store.read(partial(schedules.counts, name=name)))

    # --- what files say ---------------------------------------------------------------------------------------------

    def check_declared(self, definitions: Iterable[Mapping[str, Any]], now: float) -> None:
        """Check the schedules that definitions declare.

        Raises:
            InvalidScheduleError: one cannot be used.
        """
        for definition in definitions:
            given = definition.get("schedule")
            if given is not None:
                self._checked(str(definition.get("name")), given, now, may_be_over=True)

    async def declare(self, plans: Iterable[Plan]) -> list[str]:
        """Put in force what the files of workflows say of when they run; return what is worth telling, in sentences."""
        said = {
            plan.name: None if plan.schedule is None else _json(complete(msgspec.to_builtins(plan.schedule)))
            for plan in plans
        }
        for _ in range(_TRIES):
            notes = await self._store.execute(partial(_declare, said=said)) if said else []
            if notes is not None:
                self._changed()
                return notes
        raise StoreUnavailableError(reason="schedules are being changed by others")

    # --- what people say --------------------------------------------------------------------------------------------

    async def create(
        self, name: str, workflow: str, given: Mapping[str, Any], run_input: Mapping[str, Any]
    ) -> StoredSchedule:
        """Add a schedule.

        Raises:
            ScheduleExistsError
            WorkflowNotFoundError
            InvalidScheduleError
            InvalidInputError: its runs could not be started with this input.
        """
        plan = await self._catalogue.find(workflow)
        if name != workflow and name in {each.name for each in self._catalogue.all_current()}:
            raise InvalidScheduleError(
                schedule=name,
                problem="this is the name of another workflow, whose own it would be",
                hint="choose another",
            )

        def add(connection: Transaction) -> StoredSchedule:
            moment = schedules.moment(connection)
            spec = self._checked(name, given, moment)
            self._check_input(plan, run_input, spec, moment)
            added = fresh(name, workflow, spec, moment, declared=None, run_input=_json(run_input))
            if not schedules.add(connection, added):
                raise ScheduleExistsError(schedule=name)
            return added

        added = await self._store.execute(add)
        self._changed()
        return added

    async def update(
        self, name: str, given: Mapping[str, Any] | None, run_input: Mapping[str, Any] | None
    ) -> StoredSchedule:
        """Change what is in force, or the input of its runs; what is ``None`` stays.

        Raises:
            ScheduleNotFoundError
            InvalidScheduleError
            InvalidInputError
        """

        def values(known: StoredSchedule, moment: float) -> dict[str, Any]:
            spec = known.schedule if given is None else self._checked(name, given, moment)
            plan = self._catalogue.current(known.workflow)
            chosen = msgspec.json.decode(known.input) if run_input is None else run_input
            self._check_input(plan, chosen, spec, moment)
            return {**in_force(known, spec, moment), "input": _json(chosen)}

        return await self._edit(name, values)

    async def reset(self, name: str) -> StoredSchedule:
        """Put in force again what the workflow's file says.

        Raises:
            ScheduleNotFoundError
            InvalidScheduleError: it says nothing.
        """

        def values(known: StoredSchedule, moment: float) -> dict[str, Any]:
            if known.declared is None:
                raise InvalidScheduleError(schedule=name, problem=f"the file of {known.workflow} says nothing of it")
            return in_force(known, msgspec.json.decode(known.declared), moment)

        return await self._edit(name, values)

    async def pause(self, name: str) -> StoredSchedule:
        """Let a schedule fire no more until it is resumed; ticks of that time are not made up for.

        Raises:
            ScheduleNotFoundError
        """
        return await self._edit(name, lambda *_: {"is_paused": True, "due_at": None})

    async def resume(self, name: str) -> StoredSchedule:
        """Let a schedule fire again, from now on.

        Raises:
            ScheduleNotFoundError
        """

        def values(known: StoredSchedule, moment: float) -> dict[str, Any]:
            if not known.is_paused:
                return {}
            return {"is_paused": False, **following(known.name, known.schedule, known.anchor_at, moment)}

        return await self._edit(name, values)

    async def delete(self, name: str) -> None:
        """Remove a schedule; its runs stay.

        Raises:
            ScheduleNotFoundError
            ScheduleDeclaredError
        """
        found = await self.get(name)
        if found.declared is not None:
            raise ScheduleDeclaredError(schedule=name)
        await self._store.execute(partial(schedules.remove, name=name))
        self._changed()

    async def trigger(self, name: str) -> RunRecord:
        """Start a run of a schedule now, beside its ticks and whatever else is going on.

        Its node is that of the schedule, which cancels it where runs of the schedule are to be cancelled.

        Raises:
            ScheduleNotFoundError
            InvalidInputError
            UnavailableError: it will be started, and was not within some seconds.
        """
        found = await self.get(name)

        def add(connection: Transaction) -> float:
            at = round(schedules.moment(connection), 3)
            schedules.add_ticks(connection, name, [DecidedTick(at, TickState.DUE, "started by hand")], "trigger")
            return at

        at = await self._store.execute(add)
        plan = await self._catalogue.find(found.workflow)
        values = values_of(plan.parameters, at, timing_of(found.schedule, found.anchor_at).zone)
        given = {**values, **msgspec.json.decode(found.input, type=dict[str, Any])}
        try:
            run = await self._starter.start_tick(found.workflow, given, tick_key(name, at), found.shard)
        except NoShardError:
            return await self._started_elsewhere(name, at)
        outcome = {"state": int(TickState.STARTED), "run_id": run.id, "started_at": run.created_at}
        settled = [{"schedule": name, "at": at, **outcome}]
        await self._store.execute(partial(schedules.settle, outcomes=settled))
        return run

    async def _started_elsewhere(self, name: str, at: float) -> RunRecord:
        """Return the run of a tick when the node has started it that the schedule belongs to."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ELSEWHERE_SECONDS):
                while True:
                    tick = await self._store.read(partial(schedules.tick_at, name=name, at=at))
                    if tick is not None and tick.run_id is not None:
                        run = await self._store.read(partial(runs.get, run_id=tick.run_id))
                        if run is not None:
                            return run
                    await asyncio.sleep(_LOOK_SECONDS)
        raise UnavailableError(
            f"no server has started the run of schedule {name} yet; one will", hint=f"see hopline schedules show {name}"
        )

    # --- back-fills -------------------------------------------------------------------------------------------------

    async def plan_backfill(self, name: str, first: float, last: float) -> list[Planned]:
        """Return the ticks between two times, and what became of each.

        Raises:
            ScheduleNotFoundError
            InvalidScheduleError: there are too many, or the time ends before it begins.
        """
        if last < first:
            raise InvalidScheduleError(
                schedule=name, problem="the time of the back-fill ends before it begins", hint="give an earlier --from"
            )
        await self.get(name)
        ticks = await self._store.read(partial(_planned, name=name, first=first, last=last))
        if len(ticks) > MOST_TICKS:
            raise InvalidScheduleError(
                schedule=name, problem=f"it has over {MOST_TICKS} ticks in this time", hint="take a shorter time"
            )
        return ticks

    async def backfill(self, name: str, first: float, last: float, pace: Pace) -> list[Planned]:
        """Make up for the ticks between two times that have no run; return all of that time as they were.

        Raises:
            ScheduleNotFoundError
            InvalidScheduleError: there are too many.
            BackfillOpenError
        """
        ticks = await self.plan_backfill(name, first, last)
        wanted = [tick.at for tick in ticks if tick.is_wanted]

        def values(known: StoredSchedule, connection: Transaction) -> dict[str, Any]:
            waiting = schedules.counts(connection, name).get(TickState.WAITING, 0)
            if waiting:
                raise BackfillOpenError(schedule=known.name, waiting=waiting)
            schedules.fill(connection, name, wanted)
            return {"backfill": pace.to_json()}

        await self._edit_within(name, values)
        return ticks

    async def pause_backfill(self, name: str, *, paused: bool) -> StoredSchedule:
        """Let a back-fill start nothing more for now, or go on.

        Raises:
            ScheduleNotFoundError
            InvalidScheduleError: there is none.
        """

        def values(known: StoredSchedule, _: float) -> dict[str, Any]:
            pace = msgspec.json.decode(_backfill_of(known), type=Pace)
            return {"backfill": msgspec.structs.replace(pace, is_paused=paused).to_json()}

        return await self._edit(name, values)

    async def cancel_backfill(self, name: str) -> int:
        """Give up the ticks of a back-fill that have no run yet; return how many there were.

        Raises:
            ScheduleNotFoundError
            InvalidScheduleError: there is none.
        """
        _backfill_of(await self.get(name))
        reason = "the back-fill was given up"
        drop = partial(schedules.drop_open, name=name, states=[TickState.WAITING], reason=reason)
        return await self._store.execute(drop)

    # --- parts ------------------------------------------------------------------------------------------------------

    def _checked(self, name: str, given: Mapping[str, Any], now: float, *, may_be_over: bool = False) -> dict[str, Any]:
        try:
            spec = complete(given)
            if not (may_be_over and spec["kind"] == "at"):
                check(spec, now, self._shortest)
        except (ScheduleError, ValueError) as error:
            hint = error.hint if isinstance(error, ScheduleError) else None
            raise InvalidScheduleError(schedule=name, problem=str(error), hint=hint) from None
        return spec

    @staticmethod
    def _check_input(plan: Plan, run_input: Mapping[str, Any], spec: Mapping[str, Any], now: float) -> None:
        """Check that a run could be started: all parameters have a value."""
        values = values_of(plan.parameters, now, timing_of(spec, now).zone)
        complete_input(plan, {**values, **run_input})

    async def _edit(self, name: str, values: Callable[[StoredSchedule, float], dict[str, Any]]) -> StoredSchedule:
        return await self._edit_within(name, lambda known, connection: values(known, schedules.moment(connection)))

    async def _edit_within(
        self, name: str, values: Callable[[StoredSchedule, Transaction], dict[str, Any]]
    ) -> StoredSchedule:
        """Change a schedule by what *values* returns, or not at all if that is nothing."""

        def edit(connection: Transaction) -> bool:
            known = schedules.get(connection, name)
            if known is None:
                return True
            changed = values(known, connection)
            return not changed or change(connection, known, changed)

        for _ in range(_TRIES):
            if await self._store.execute(edit):
                self._changed()
                return await self.get(name)
        raise StoreUnavailableError(reason=f"schedule {name} is being changed by others")


def _declare(connection: Transaction, said: Mapping[str, bytes | None]) -> list[str] | None:
    """Return what is worth telling; ``None`` if others have changed one of the schedules at the same time."""
    notes = []
    moment = schedules.moment(connection)
    for name in sorted(said):
        known = schedules.get(connection, name)
        if not _declare_one(connection, name, known, said[name], moment):
            return None
        if known is not None and _stays(known, said[name]):
            other = "go by the file: hopline schedules reset" if said[name] else "end it: hopline schedules delete"
            notes.append(f"schedule {name}: what was set by hand stays in force; to {other} {name}")
    return notes


def _stays(known: StoredSchedule, said: bytes | None) -> bool:
    """Return whether a schedule stays in force whatever the file says: it was set by hand."""
    return known.is_edited or (known.declared is None and said is not None)


def _declare_one(
    connection: Transaction, name: str, known: StoredSchedule | None, said: bytes | None, moment: float
) -> bool:
    """Do as the file says; return ``False`` if the schedule was not as it is known any more."""
    if said == (known.declared if known is not None else None):
        return True
    if known is not None and _stays(known, said):
        return schedules.change(connection, known, declared=said, is_edited=True)
    if said is None:
        schedules.remove(connection, name)
        return True
    spec = msgspec.json.decode(said, type=dict[str, Any])
    if known is None:
        return schedules.add(connection, fresh(name, name, spec, moment, declared=said, run_input=b"{}"))
    return change(connection, known, {**in_force(known, spec, moment), "declared": said, "is_edited": False})


def _planned(connection: Transaction, name: str, first: float, last: float) -> list[Planned]:
    """Return the ticks between two times; those that the schedule itself will decide on are not made up for."""
    schedule = schedules.get(connection, name)
    to_come = schedules.moment(connection)
    if schedule is not None and not schedule.is_paused and schedule.next_tick is not None:
        to_come = min(to_come, schedule.next_tick - 0.001)
    first, last = max(first, _EARLIEST), min(last, to_come)
    known = schedules.ticks_between(connection, name, first, last)
    return planned(schedules.versions(connection, name), first, last, known)


def _backfill_of(known: StoredSchedule) -> bytes:
    """Return the pace of the back-fill of a schedule, as it is stored."""
    if known.backfill is None:
        raise InvalidScheduleError(
            schedule=known.name, problem="it has no back-fill", hint="begin one with --from --to"
        )
    return known.backfill


def _json(value: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(value)
