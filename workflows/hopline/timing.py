"""When a schedule fires, from its JSON: ticks of cron expressions, intervals and single times. Pure.

Imported by the compiler and the engine only: croniter and the database of time zones cost more than ``import hopline``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from hopline import cron
from hopline.cron import FURTHEST_YEARS, CronError, CronTiming, NeverFiresError, Tick

_YEAR: Final = 366 * 86_400
_FURTHEST: Final = FURTHEST_YEARS * _YEAR
_WARNED_AHEAD: Final = _YEAR
_WARNINGS: Final = 4
_LONGEST_ZONE: Final = 64


class ScheduleError(ValueError):
    """A schedule cannot be used; the message says why, ``hint`` what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Timing(Protocol):
    """When something fires."""

    @property
    def zone(self) -> tzinfo:
        """The zone in which its ticks are told."""
        ...

    @property
    def period(self) -> float:
        """The least seconds between two ticks."""
        ...

    def ticks(self, after: float) -> Iterator[Tick]:
        """Yield the ticks after a time in Unix seconds, in their order, each moment once; it may end."""
        ...

    def changes(self, after: float, until: float) -> Iterator[Tick]:
        """Yield what changes of the clocks do to ticks between two times, those that are skipped too."""
        ...


@dataclass(frozen=True, slots=True)
class EveryTiming:
    """At equal distances from an anchor."""

    seconds: float
    anchor: float
    """Unix seconds; ticks are whole multiples of ``seconds`` from here."""

    @property
    def zone(self) -> tzinfo:
        """See ``Timing.zone``."""
        return UTC

    @property
    def period(self) -> float:
        """See ``Timing.period``."""
        return self.seconds

    def ticks(self, after: float) -> Iterator[Tick]:
        """See ``Timing.ticks``."""
        number = max(1 if self.anchor else 0, int((after - self.anchor) // self.seconds))
        while True:
            at = round(self.anchor + number * self.seconds, 3)
            if at > after:
                yield Tick(at, datetime.fromtimestamp(at, UTC).replace(tzinfo=None))
            number += 1

    def changes(self, after: float, until: float) -> Iterator[Tick]:  # noqa: ARG002 - UTC has none
        """See ``Timing.changes``."""
        return iter(())


@dataclass(frozen=True, slots=True)
class AtTiming:
    """At given wall-clock times of a zone; one that does not exist is shifted, one that exists twice fires once."""

    times: tuple[datetime, ...]
    zone: tzinfo

    @property
    def period(self) -> float:
        """See ``Timing.period``."""
        moments = [tick.at for tick in self.ticks(float("-inf"))]
        return min((behind - before for before, behind in pairwise(moments)), default=float(_FURTHEST))

    def ticks(self, after: float) -> Iterator[Tick]:
        """See ``Timing.ticks``."""
        last = after
        for tick in sorted(cron.moment(wall, self.zone) for wall in self.times):
            if tick.at > last:
                last = tick.at
                yield tick

    def changes(self, after: float, until: float) -> Iterator[Tick]:
        """See ``Timing.changes``."""
        return (tick for tick in self.ticks(after) if tick.at < until and tick.change is not None)


def timing_of(schedule: Mapping[str, Any], start: float) -> Timing:
    """Return when a schedule fires that was made at *start*, from its JSON.

    Raises:
        ScheduleError: its expression or its zone cannot be used, or its jitter is not below its period.
    """
    timing = _timing(schedule, start)
    try:
        period = timing.period
    except OverflowError:  # the first moments of the calendar are before it in UTC
        raise ScheduleError("one of its times is not in the calendar of UTC", "change its times") from None
    if schedule["jitter"] >= period:
        raise ScheduleError(
            f"jitter of {schedule['jitter']:g} s is too long: here it has to be below {period:g} s",
            "give a shorter jitter",
        )
    return timing


def _timing(schedule: Mapping[str, Any], start: float) -> Timing:
    match schedule["kind"]:
        case "every":
            return EveryTiming(schedule["seconds"], 0.0 if schedule["aligned"] else round(start, 3))
        case "at":
            return AtTiming(tuple(map(datetime.fromisoformat, schedule["times"])), zone_of(schedule["tz"]))
        case _:
            return _cron(schedule["expression"], schedule["tz"], schedule["gap"], schedule["fold"])


@lru_cache(maxsize=4096)
def _cron(expression: str, tz: str, gap: cron.Gap | None, fold: cron.Fold | None) -> CronTiming:
    try:
        return cron.parse(expression, zone_of(tz), gap, fold)
    except NeverFiresError as error:
        raise ScheduleError(str(error), "name days that come") from None
    except CronError as error:
        raise ScheduleError(
            str(error), 'write five fields, as in "0 6 * * *": minute, hour, day, month, weekday'
        ) from None


def zone_of(name: str) -> tzinfo:
    """Return a time zone.

    Raises:
        ScheduleError: there is none of that name, or no database of zones.
    """
    try:
        if len(name) > _LONGEST_ZONE:
            raise ValueError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    try:
        ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        raise ScheduleError(
            f"the time zone {name[:_LONGEST_ZONE]!r} cannot be looked up: this machine has no database of time zones",
            "pip install tzdata",
        ) from None
    meant = _zone_meant(name[:_LONGEST_ZONE])
    raise ScheduleError(
        f"there is no time zone {name[:_LONGEST_ZONE]!r}",
        f'did you mean "{meant}"?' if meant else 'write a name of the tz database, as "Europe/Berlin" or "UTC"',
    )


def _zone_meant(name: str) -> str | None:
    """Return the zone that was probably meant: one that is written alike, or that ends in the name of this city."""
    from difflib import get_close_matches

    known = {zone.lower(): zone for zone in sorted(available_timezones())}
    lower = name.lower().replace(" ", "_")
    city = next((zone for zone in known.values() if zone.lower().endswith(f"/{lower}")), None)
    return known.get(lower) or city or next((known[each] for each in get_close_matches(lower, known, n=1)), None)


def check(schedule: Mapping[str, Any], now: float, shortest: float) -> None:
    """Check what can be checked of a new schedule only against the time and the settings.

    Raises:
        ScheduleError: it has no tick within some years, or ticks closer together than *shortest* seconds.
    """
    timing = timing_of(schedule, now)
    first = next(timing.ticks(now), None)
    if first is None or first.at > now + _FURTHEST:
        raise ScheduleError(f"it has no tick within {FURTHEST_YEARS} years", "change its times")
    if timing.period < shortest:
        raise ScheduleError(
            f"its ticks are {timing.period:g} s apart, and {shortest:g} s is the shortest that is allowed",
            "make it rarer, or set HOPLINE_SCHEDULE_PERIOD_SECONDS",
        )


def warnings(schedule: Mapping[str, Any], now: float) -> list[str]:
    """Return what changes of the clocks within a year do to a schedule, a sentence each; for a rhythm, nothing."""
    timing = timing_of(schedule, now)
    if isinstance(timing, CronTiming) and timing.is_rhythm:
        return []
    return [said(tick) for tick in islice(timing.changes(now, now + _WARNED_AHEAD), _WARNINGS)]


def said(tick: Tick) -> str:
    """Return what a change of the clocks does to a tick, as a sentence."""
    wall = tick.wall.isoformat(sep=" ", timespec="minutes")
    match tick.change:
        case cron.Change.SKIPPED:
            return f"{wall} does not exist, as the clocks go forward; the tick is skipped"
        case cron.Change.SHIFTED:
            return f"{wall} does not exist, as the clocks go forward; the tick comes when they have"
        case cron.Change.FIRST:
            return f"{wall} comes twice, as the clocks go back; the first of the two counts"
        case cron.Change.AGAIN:
            return f"{wall} comes twice, as the clocks go back; this is the second"
        case None:
            return ""
