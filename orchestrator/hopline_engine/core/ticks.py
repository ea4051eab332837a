"""What becomes of the ticks of a schedule that are due: which start a run, which wait, which are passed over, and why.

Pure: what is known of the schedule and the time go in, the ticks with their states and the next tick come out. The
next tick follows from the tick before and never from the time, so that no tick is skipped or comes twice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice, takewhile
from typing import Any, Final, NamedTuple

from hopline.timing import Timing
from hopline_engine.core.schedules import jitter_of

GRACE_SECONDS: Final = 60.0
"""A tick that cannot be looked at within this time of its own was missed: for so long a node may be away."""
MOST_CAUGHT_UP: Final = 100
"""Of the ticks that were missed, only so many of the last ones are made up for, or noted."""
MOST_QUEUED: Final = 1000
"""Ticks of one schedule that may wait for the runs before them."""
_MADE_UP_FOR: Final = "made up for: no engine ran at its time"
_WAITED: Final = "waited for the run before it"


class TickState(IntEnum):
    """What became of a tick; the first four are not final."""

    WAITING = 0
    """Part of a back-fill; its turn has not come."""
    QUEUED = 1
    """Waits for the run before it to end."""
    DUE = 2
    """A run is to be started for it now."""
    STARTED = 3
    DONE = 4
    """Its run has ended."""
    SKIPPED = 5
    """Passed over, since another run was going on."""
    MISSED = 6
    """No engine ran at its time, and it is not made up for."""
    FAILED = 7
    """No run could be started for it."""


class DecidedTick(NamedTuple):
    """A tick, and what becomes of it."""

    at: float
    state: TickState
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of a schedule when its ticks are decided on."""

    name: str
    schedule: Mapping[str, Any]
    timing: Timing
    next_tick: float
    """The first tick that was not decided on."""
    now: float
    """By the clock of the database."""
    running: int
    """Ticks that have a run which has not ended, or are about to get one."""
    queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of the ticks that are due, and when to look again."""

    ticks: list[DecidedTick]
    next_tick: float | None
    due_at: float | None
    """``next_tick`` with its jitter; ``None`` when there is no further tick."""


def decide(standing: Standing) -> Verdict:
    """Return what becomes of the ticks of a schedule that are due."""
    due = _due(standing)
    if not due:
        return Verdict(ticks=[], next_tick=standing.next_tick, due_at=_due_at(standing, standing.next_tick))
    last = due[-1]
    following = next(standing.timing.ticks(last), None)
    return Verdict(
        ticks=_decided(standing, due),
        next_tick=following.at if following is not None else None,
        due_at=_due_at(standing, following.at) if following is not None else None,
    )


def first_tick(
    name: str, schedule: Mapping[str, Any], timing: Timing, after: float
) -> tuple[float | None, float | None]:
    """Return the next tick after a time, and when it is due; nothing when there is none."""
    tick = next(timing.ticks(after), None)
    return (None, None) if tick is None else (tick.at, tick.at + jitter_of(name, tick.at, schedule["jitter"]))


def _due_at(standing: Standing, at: float) -> float:
    return at + jitter_of(standing.name, at, standing.schedule["jitter"])


def _due(standing: Standing) -> list[float]:
    """Return the last ticks that are due, at most ``MOST_CAUGHT_UP`` and those within the grace.

    However long the outage and short the period, few ticks are looked at.
    """
    seconds = max(GRACE_SECONDS, standing.timing.period * MOST_CAUGHT_UP)
    while True:
        begin = standing.now - seconds
        if begin <= standing.next_tick:
            return list(_until_now(standing, standing.next_tick))[-_most(standing) :]
        found = list(islice(_until_now(standing, begin), 10 * _most(standing)))
        if len(found) >= MOST_CAUGHT_UP:
            return found[-_most(standing) :]
        seconds *= 4


def _most(standing: Standing) -> int:
    return max(MOST_CAUGHT_UP, int(GRACE_SECONDS / standing.timing.period) + 1)


def _until_now(standing: Standing, begin: float) -> Iterator[float]:
    """Yield the ticks from a time on that are due."""
    ticks = (tick.at for tick in standing.timing.ticks(begin - 0.001))
    return takewhile(lambda at: _due_at(standing, at) <= standing.now, ticks)


def _decided(standing: Standing, due: list[float]) -> list[DecidedTick]:
    missed = [at for at in due if standing.now - _due_at(standing, at) > GRACE_SECONDS]
    on_time = due[len(missed) :]
    if not missed:
        return list(_by_overlap(standing, on_time))
    match standing.schedule["catchup"]:
        case "all":
            return list(_one_by_one(standing, missed, on_time))
        case "latest" if not on_time:
            passed, caught_up = missed[:-1], missed[-1:]
            return [*map(_missed, passed), *_by_overlap(standing, caught_up, _MADE_UP_FOR)]
        case _:
            return [*map(_missed, missed), *_by_overlap(standing, on_time)]


def _missed(at: float) -> DecidedTick:
    return DecidedTick(at, TickState.MISSED, "no engine ran at its time")


def _one_by_one(standing: Standing, missed: list[float], on_time: list[float]) -> Iterator[DecidedTick]:
    """Yield ticks of which all that were missed are made up for: at once where runs may overlap, else one by one.

    Those on time come after them.
    """
    at_once = standing.schedule["overlap"] == "allow"
    is_free = at_once or not standing.running + standing.queued
    for at in missed:
        yield DecidedTick(at, TickState.DUE if is_free else TickState.QUEUED, _MADE_UP_FOR)
        is_free = at_once
    for at in on_time:
        state, reason = (TickState.DUE, _delay(standing, at)) if at_once else (TickState.QUEUED, _WAITED)
        yield DecidedTick(at, state, reason)


def _by_overlap(standing: Standing, due: list[float], reason: str | None = None) -> Iterator[DecidedTick]:
    running, queued = standing.running, standing.queued
    for at in due:
        state = _state(standing.schedule["overlap"], running, queued)
        running += state is TickState.DUE
        queued += state is TickState.QUEUED
        if state is TickState.SKIPPED:
            yield DecidedTick(at, state, "the run before it was still going on")
        elif state is TickState.QUEUED:
            yield DecidedTick(at, state, _WAITED)
        else:
            yield DecidedTick(at, state, reason or _delay(standing, at))


def _delay(standing: Standing, at: float) -> str | None:
    delay = _due_at(standing, at) - at
    return f"jitter of {delay:.0f} s" if delay >= 1 else None


def _state(overlap: str, running: int, queued: int) -> TickState:
    """Return what becomes of a tick that comes on time while so many runs are going on or waiting."""
    if overlap in {"allow", "cancel_running"} or not running + queued:
        return TickState.DUE
    if (overlap == "queue_one" and not queued) or (overlap == "queue_all" and queued < MOST_QUEUED):
        return TickState.QUEUED
    return TickState.SKIPPED
