"""Schedules as the API sees them: rows to views, with times told by the clock of each schedule's zone."""

from collections.abc import Mapping
from datetime import datetime, tzinfo
from itertools import islice
from typing import Any, Final, Protocol, cast

import msgspec

from hopline.cron import Change
from hopline.timing import said, timing_of
from hopline_engine.api.models import Run, ScheduledTick
from hopline_engine.api.schedule_models import (
    Backfill,
    BackfillRequest,
    NextTick,
    NextTicks,
    PlannedBackfill,
    PlannedTick,
    Schedule,
    ScheduleChange,
    ScheduleDetail,
    SchedulePage,
    ScheduleRequest,
    Tick,
    TickStateName,
)
from hopline_engine.clock import Clock
from hopline_engine.core.backfills import Pace, Planned
from hopline_engine.core.names import public_id
from hopline_engine.core.ticks import GRACE_SECONDS, TickState
from hopline_engine.scheduler.schedule_book import ScheduleBook, Shown
from hopline_engine.store.runs import RunRecord
from hopline_engine.store.schedules import StoredSchedule, StoredTick

_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))


class ScheduleService(Protocol):
    """What the API needs of schedules."""

    async def page(self, limit: int, after: str | None) -> SchedulePage:
        """Return up to *limit* schedules, by name."""
        ...

    async def show(self, name: str) -> ScheduleDetail:
        """Return a schedule with its last ticks.

        Raises:
            ScheduleNotFoundError
        """
        ...

    async def next(self, name: str, count: int) -> NextTicks:
        """Return the ticks that come next, whether or not it is paused; first those that no server has looked at yet.

        Raises:
            ScheduleNotFoundError
        """
        ...

    async def create(self, asked: ScheduleRequest) -> Schedule:
        """Make a schedule.

        Raises:
            ScheduleExistsError
            WorkflowNotFoundError
            InvalidScheduleError
            InvalidInputError: its runs could not be started with this input.
        """
        ...

    async def update(self, name: str, asked: ScheduleChange) -> Schedule:
        """Change a schedule by hand.

        Raises:
            ScheduleNotFoundError
            InvalidScheduleError
            InvalidInputError
        """
        ...

    async def reset(self, name: str) -> Schedule:
        """Put in force again what the workflow's file says.

        Raises:
            ScheduleNotFoundError
            InvalidScheduleError: it says nothing.
        """
        ...

    async def pause(self, name: str, *, paused: bool) -> Schedule:
        """Let a schedule fire no more, or again.

        Raises:
            ScheduleNotFoundError
        """
        ...

    async def delete(self, name: str) -> Schedule:
        """Remove a schedule and return what it was.

        Raises:
            ScheduleNotFoundError
            ScheduleDeclaredError: the workflow's file would bring it back.
        """
        ...

    async def trigger(self, name: str) -> Run:
        """Start a run now.

        Raises:
            ScheduleNotFoundError
            InvalidInputError
        """
        ...

    async def backfill(self, name: str, asked: BackfillRequest) -> PlannedBackfill:
        """Make up for ticks of a time, or only tell which there are.

        Raises:
            ScheduleNotFoundError
            InvalidScheduleError: there are too many.
            BackfillOpenError
        """
        ...

    async def pause_backfill(self, name: str, *, paused: bool) -> ScheduleDetail:
        """Let a back-fill start nothing more, or go on.

        Raises:
            ScheduleNotFoundError
            InvalidScheduleError: there is none.
        """
        ...

    async def cancel_backfill(self, name: str) -> ScheduleDetail:
        """Give up what a back-fill has not started.

        Raises:
            ScheduleNotFoundError
            InvalidScheduleError: there is none.
        """
        ...


class RunViews(Protocol):
    """Shows runs; see ``Service``."""

    async def run_view(self, stored: RunRecord) -> Run:
        """Return a run."""
        ...


class Schedules:
    """Implements ``ScheduleService``."""

    def __init__(self, book: ScheduleBook, runs: RunViews, clock: Clock) -> None:
        self._book = book
        self._runs = runs
        self._clock = clock

    async def page(self, limit: int, after: str | None) -> SchedulePage:
        """Return up to *limit* schedules."""
        found = await self._book.page(limit + 1, after or "")
        more = len(found) > limit
        views = [_view(stored) for stored in found[:limit]]
        return SchedulePage(schedules=views, next=views[-1].name if more else None)

    async def show(self, name: str) -> ScheduleDetail:
        """Return a schedule with its last ticks."""
        return _detail(await self._book.show(name))

    async def next(self, name: str, count: int) -> NextTicks:
        """Return the ticks that come next."""
        stored = await self._book.get(name)
        timing = timing_of(stored.schedule, stored.anchor_at)
        now = self._clock.now()
        overdue = None if stored.is_paused or stored.due_at is None or stored.due_at > now else stored.next_tick
        ticks = list(islice(timing.ticks(now if overdue is None else overdue - 0.001), count))
        changes = timing.changes(now, ticks[-1].at) if ticks else ()
        return NextTicks(
            schedule=name,
            tz=str(timing.zone),
            ticks=[_next_tick(tick.at, timing.zone, said(tick) or _missed(tick.at, now)) for tick in ticks],
            skipped=[said(change) for change in changes if change.change is Change.SKIPPED],
        )

    async def create(self, asked: ScheduleRequest) -> Schedule:
        """Make a schedule."""
        return _view(await self._book.create(asked.name, asked.workflow, asked.schedule, asked.input))

    async def update(self, name: str, asked: ScheduleChange) -> Schedule:
        """Change a schedule."""
        return _view(await self._book.update(name, asked.schedule, asked.input))

    async def reset(self, name: str) -> Schedule:
        """Put in force again what the workflow's file says."""
        return _view(await self._book.reset(name))

    async def pause(self, name: str, *, paused: bool) -> Schedule:
        """Let a schedule fire no more, or again."""
        return _view(await (self._book.pause(name) if paused else self._book.resume(name)))

    async def delete(self, name: str) -> Schedule:
        """Remove a schedule."""
        view = _view(await self._book.get(name))
        await self._book.delete(name)
        return view

    async def trigger(self, name: str) -> Run:
        """Start a run now."""
        return await self._runs.run_view(await self._book.trigger(name))

    async def backfill(self, name: str, asked: BackfillRequest) -> PlannedBackfill:
        """Make up for ticks of a time."""
        if asked.dry_run:
            ticks = await self._book.plan_backfill(name, asked.first, asked.last)
        else:
            pace = Pace(max_parallel=asked.max_parallel, interval=1 / asked.rate if asked.rate else 0.0)
            ticks = await self._book.backfill(name, asked.first, asked.last, pace)
        stored = await self._book.get(name)
        zone = timing_of(stored.schedule, stored.anchor_at).zone
        begun = not asked.dry_run and any(tick.is_wanted for tick in ticks)
        return PlannedBackfill(schedule=name, begun=begun, ticks=[_planned(tick, zone) for tick in ticks])

    async def pause_backfill(self, name: str, *, paused: bool) -> ScheduleDetail:
        """Let a back-fill start nothing more, or go on."""
        await self._book.pause_backfill(name, paused=paused)
        return await self.show(name)

    async def cancel_backfill(self, name: str) -> ScheduleDetail:
        """Give up what a back-fill has not started."""
        await self._book.cancel_backfill(name)
        return await self.show(name)


def local(at: float, zone: tzinfo) -> str:
    """Return a moment by the clock of a zone, with the zone's abbreviation.

    >>> from zoneinfo import ZoneInfo
    >>> local(1795240800.0, ZoneInfo("Europe/Berlin"))
    'Sat 2026-11-21 07:00:00 CET'
    """
    return datetime.fromtimestamp(at, zone).strftime("%a %Y-%m-%d %H:%M:%S %Z")


def _view(stored: StoredSchedule) -> Schedule:
    return Schedule(**_fields(stored))


def _detail(shown: Shown) -> ScheduleDetail:
    stored = shown.schedule
    zone = timing_of(stored.schedule, stored.anchor_at).zone
    ticks = [_tick(tick, zone) for tick in shown.ticks]
    return ScheduleDetail(**_fields(stored), ticks=ticks, backfill=_backfill(shown))


def _fields(stored: StoredSchedule) -> dict[str, Any]:
    schedule = stored.schedule
    zone = timing_of(schedule, stored.anchor_at).zone
    due = None if stored.next_tick is None or stored.is_paused else _next_tick(stored.next_tick, zone, None)
    return {
        "name": stored.name,
        "workflow": stored.workflow,
        "state": "paused" if stored.is_paused else "ended" if stored.next_tick is None else "active",
        "schedule": schedule,
        "text": in_words(schedule),
        "edited": stored.is_edited,
        "declared": None if stored.declared is None else msgspec.json.decode(stored.declared),
        "input": msgspec.json.decode(stored.input),
        "next": due,
        "created_at": stored.created_at,
    }


def in_words(schedule: Mapping[str, Any]) -> str:
    """Return what a schedule says in a few words.

    >>> in_words({"kind": "every", "seconds": 5400.0})
    'every 1h30m'
    """
    if schedule["kind"] == "cron":
        return f"{schedule['expression']} ({schedule['tz']})"
    if schedule["kind"] == "at":
        first, *others = schedule["times"]
        more = f" and {len(others)} more" if others else ""
        return f"at {first} ({schedule['tz']}){more}"
    rest, parts = schedule["seconds"], ""
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        parts += f"{count:.0f}{unit}" if count else ""
    return f"every {parts}{f'{rest * 1000:.0f}ms' if rest else ''}"


def _missed(at: float, now: float) -> str | None:
    return "its time has passed and no server has looked at it" if now - at > GRACE_SECONDS else None


def _next_tick(at: float, zone: tzinfo, note: str | None) -> NextTick:
    return NextTick(at=at, local=local(at, zone), note=note)


def _planned(tick: Planned, zone: tzinfo) -> PlannedTick:
    return PlannedTick(at=tick.at, local=local(tick.at, zone), wanted=tick.is_wanted)


def _tick(stored: StoredTick, zone: tzinfo) -> Tick:
    state = stored.state
    if state is TickState.STARTED and not stored.is_running:
        state = TickState.DONE
    return Tick(
        at=stored.at,
        local=local(stored.at, zone),
        state=cast("TickStateName", state.name.lower()),
        kind=cast("Any", stored.kind),
        reason=stored.reason,
        run=None if stored.run_id is None else public_id(stored.run_id),
        late_seconds=None if stored.started_at is None else max(0.0, stored.started_at - stored.at),
    )


def scheduled_tick(stored: StoredSchedule, tick: StoredTick, started_at: float) -> ScheduledTick:
    """Return the tick that a run was started for."""
    return ScheduledTick(
        schedule=stored.name,
        at=tick.at,
        local=local(tick.at, timing_of(stored.schedule, stored.anchor_at).zone),
        kind=cast("Any", tick.kind),
        late_seconds=max(0.0, started_at - tick.at),
        reason=tick.reason,
    )


def _backfill(shown: Shown) -> Backfill | None:
    if shown.schedule.backfill is None:
        return None
    pace = msgspec.json.decode(shown.schedule.backfill, type=Pace)
    of = shown.backfilled
    return Backfill(
        max_parallel=pace.max_parallel,
        rate=1 / pace.interval if pace.interval else None,
        paused=pace.is_paused,
        waiting=of.get(TickState.WAITING, 0) + of.get(TickState.DUE, 0),
        started=of.get(TickState.STARTED, 0) + of.get(TickState.DONE, 0),
    )
