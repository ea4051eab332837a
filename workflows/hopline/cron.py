"""When a cron expression fires: croniter reads its fields, our rules make moments of the times they name.

What a wall-clock time means on a day on which clocks change is decided here:

- A time that does not exist because the clocks went forward (*gap*) is either **shifted** to the first moment that
  does, or **skipped**. Where a whole day is missing, its times are always skipped.
- A time that exists twice because the clocks went back (*fold*) fires **once**, the first time, or **twice**.

Unless a schedule says otherwise, an expression whose hour field begins with ``*`` describes a rhythm: it skips and
fires twice, so that the real time between its ticks stays the same. Any other names times of the day: it shifts and
fires once, so that "daily at 02:30" is once on every day. These are also the rules of Debian's cron, which takes an
expression for a rhythm if its minute field begins with ``*`` as well.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from heapq import heappop, heappush
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from hopline.wall_times import days, times_of_day, wall_times

LONGEST_EXPRESSION: Final = 256
FURTHEST_YEARS: Final = 5
"""An expression without a tick within so many years is refused as a mistake, such as 30 February."""

Gap = Literal["shift", "skip"]
"""What becomes of a tick whose wall-clock time does not exist."""
Fold = Literal["once", "twice"]
"""How often a tick fires whose wall-clock time exists twice."""

_FIELDS: Final = ("minute", "hour", "day of the month", "month", "day of the week")
_ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ALLOWED: Final = re.compile(r"[0-9*,/\-#LA-Z ]+", re.ASCII)
_WORD: Final = re.compile(r"[A-Z]+", re.ASCII)
_LONG_NUMBER: Final = re.compile(r"[0-9]{3}", re.ASCII)
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_WORDS: Final = frozenset({*_MONTHS, *_WEEKDAYS, "L"})
_PROBED_FROM: Final = datetime(2024, 1, 1)  # noqa: DTZ001  # a wall-clock time, and of a leap year


class CronError(ValueError):
    """An expression cannot be used; the message says why."""


class NeverFiresError(CronError):
    """An expression means something that does not come, or not soon."""


class Change(StrEnum):
    """What a change of the clocks does to a tick."""

    SHIFTED = "shifted"
    """Its wall-clock time does not exist; it fires when the clocks have gone forward."""
    SKIPPED = "skipped"
    """Its wall-clock time does not exist; it does not fire."""
    FIRST = "first"
    """Its wall-clock time exists twice; this is the first."""
    AGAIN = "again"
    """Its wall-clock time exists twice; this is the second."""


class Tick(NamedTuple):
    """One moment at which a schedule fires."""

    at: float
    """Unix seconds."""
    wall: datetime
    """The wall-clock time that the schedule names, without zone."""
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class CronTiming:
    """A checked expression in a zone; made by ``parse``."""

    expression: str
    """Five fields, or six with the second in front; upper case, single spaces."""
    zone: tzinfo
    gap: Gap
    fold: Fold

    @property
    def is_rhythm(self) -> bool:
        """Whether it describes a rhythm, and not times of the day."""
        return _is_rhythm(self.expression)

    @property
    def period(self) -> float:
        """The least seconds between two ticks, by the clock on the wall; of all days, whichever are named."""
        return _period(self.expression)

    def ticks(self, after: float) -> Iterator[Tick]:
        """Yield the ticks after a time in Unix seconds, in their order, each moment once; it may end."""
        last = after
        for tick in self._in_order(after):
            if tick.at > last:
                last = tick.at
                yield tick

    def changes(self, after: float, until: float) -> Iterator[Tick]:
        """Yield what changes of the clocks do to ticks between two times, those that are skipped too."""
        for moment, before, behind in _clock_changes(self.zone, after, until):
            first, last = sorted((moment + before, moment + behind))
            for wall in wall_times(self.expression, first - timedelta(seconds=1)):
                if wall >= last:
                    break
                moments = _moments(self, wall)
                yield moments[0] if moments else Tick(_unix(moment), wall, Change.SKIPPED)

    def _in_order(self, after: float) -> Iterator[Tick]:
        """Yield ticks by time, some of them perhaps not after *after*."""
        again: list[Tick] = []
        for tick, second in self._resolved(_first_wall(self.zone, after)):
            while again and again[0].at <= tick.at:
                yield heappop(again)
            yield tick
            if second is not None:
                heappush(again, second)
        while again:
            yield heappop(again)

    def _resolved(self, start: datetime) -> Iterator[tuple[Tick, Tick | None]]:
        """Yield when the wall-clock times after *start* fire, and when they fire again."""
        times = times_of_day(self.expression)
        for midnight in days(self.expression, start):
            offset = _offset_of_day(midnight, self.zone)
            for wall in times.on(midnight, start):
                if offset is not None:
                    yield Tick(_unix(wall) - offset, wall), None
                elif moments := _moments(self, wall):
                    yield moments[0], moments[1] if len(moments) > 1 else None


def parse(text: str, zone: tzinfo, gap: Gap | None = None, fold: Fold | None = None) -> CronTiming:
    """Return when an expression fires in *zone*.

    Args:
        text: five fields (minute, hour, day of the month, month, day of the week), six with the second in front, or a
            word such as ``@daily``. If both days are restricted, a day that fits either of them counts.
        zone: whose wall-clock time the fields mean.
        gap: instead of what follows from the hour field.
        fold: likewise.

    Raises:
        CronError: it is malformed, too long, or never fires.
    """
    expression = _normalised(text)
    _check(expression)
    is_rhythm = _is_rhythm(expression)
    return CronTiming(
        expression, zone, gap or ("skip" if is_rhythm else "shift"), fold or ("twice" if is_rhythm else "once")
    )


@lru_cache(maxsize=4096)
def _period(expression: str) -> float:
    times = times_of_day(expression)
    minutes = [60 * hour + minute for hour in times.hours for minute in times.minutes]
    between = 60 * min(after - before for before, after in pairwise([*minutes, minutes[0] + 24 * 60]))
    within = [after - before for before, after in pairwise(times.seconds)]
    return float(min([*within, between - (times.seconds[-1] - times.seconds[0])]))


def _is_rhythm(expression: str) -> bool:
    return expression.split(" ")[-4].startswith("*")


# --- from wall-clock time to moments ----------------------------------------------------------------------------------


def _first_wall(zone: tzinfo, after: float) -> datetime:
    """Return the wall-clock time after which to look: earlier by what will come again where clocks are going back."""
    local = datetime.fromtimestamp(after, zone)
    repeated = _offset(local.replace(fold=0), zone) - _offset(local.replace(fold=1), zone)
    # Where they go back soon, the times that are about to be repeated have second moments after *after*.
    lookback = max(repeated, timedelta(0))
    return local.replace(tzinfo=None, microsecond=0, fold=0) - lookback


def moment(wall: datetime, zone: tzinfo) -> Tick:
    """Return when a wall-clock time is: the first time where it is twice, the next moment where it is never."""
    first, second = _offset(wall.replace(fold=0), zone), _offset(wall.replace(fold=1), zone)
    if first >= second:
        return Tick(_unix(wall - first), wall, Change.FIRST if first > second else None)
    return Tick(_unix(_change_between(wall - second, wall - first, zone)), wall, Change.SHIFTED)


def _moments(cron: CronTiming, wall: datetime) -> list[Tick]:
    """Return when a wall-clock time fires: never, once or twice."""
    first, second = _offset(wall.replace(fold=0), cron.zone), _offset(wall.replace(fold=1), cron.zone)
    tick = moment(wall, cron.zone)
    if first >= second:
        is_twice = first > second and cron.fold == "twice"
        return [tick, Tick(_unix(wall - second), wall, Change.AGAIN)] if is_twice else [tick]
    change = datetime.fromtimestamp(tick.at, UTC).replace(tzinfo=None)
    midnight = datetime.combine(wall.date(), time())
    is_day_missing = change + first <= midnight and midnight + timedelta(days=1) <= change + second
    return [] if cron.gap == "skip" or is_day_missing else [tick]


def _offset_of_day(midnight: datetime, zone: tzinfo) -> float | None:
    """Return the seconds that a zone is ahead of UTC on a whole day; ``None`` if clocks change on it.

    No zone changes its clocks twice within a day and back, so the two ends of it tell.
    """
    begin, end = _offset(midnight, zone), _offset((midnight + timedelta(days=1)).replace(fold=1), zone)
    return begin.total_seconds() if begin == end else None


def _clock_changes(zone: tzinfo, after: float, until: float) -> Iterator[tuple[datetime, timedelta, timedelta]]:
    """Yield when the offset of a zone changes, in UTC, and what it is before and behind that."""
    start = datetime.fromtimestamp(after, UTC).replace(tzinfo=None, microsecond=0)
    end = datetime.fromtimestamp(until, UTC).replace(tzinfo=None)
    while start < end:
        noon = start + timedelta(days=1)
        before, behind = _offset_at(start, zone), _offset_at(noon, zone)
        if before != behind:
            yield _change_between(start, noon, zone), before, behind
        start = noon


def _change_between(early: datetime, late: datetime, zone: tzinfo) -> datetime:
    """Return the first second, in UTC, that has the later one's offset."""
    offset = _offset_at(late, zone)
    while late - early > timedelta(seconds=1):
        middle = (early + (late - early) // 2).replace(microsecond=0)
        if _offset_at(middle, zone) == offset:
            late = middle
        else:
            early = middle
    return late


def _offset(wall: datetime, zone: tzinfo) -> timedelta:
    return wall.replace(tzinfo=zone).utcoffset() or timedelta(0)


def _offset_at(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.replace(tzinfo=UTC).astimezone(zone).utcoffset() or timedelta(0)


def _unix(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()


# --- what expressions are taken ---------------------------------------------------------------------------------------


def _normalised(text: str) -> str:
    if len(text) > LONGEST_EXPRESSION:
        raise CronError(f"the expression has {len(text)} characters, more than {LONGEST_EXPRESSION}")
    given = " ".join(text.split())
    expression = _ALIASES.get(given.lower(), given).upper()
    if not _ALLOWED.fullmatch(expression):
        raise CronError(f"{text!r} is not a cron expression: fields are made of digits, names and * , - / # L")
    unknown = next((word for word in _WORD.findall(expression) if word not in _WORDS), None)
    if unknown:
        raise CronError(f"{text!r}: {unknown} is not a month, a day of the week or L")
    fields = expression.count(" ") + 1
    if fields not in {len(_FIELDS), len(_FIELDS) + 1}:
        raise CronError(f"{text!r} has {fields} fields; give {', '.join(_FIELDS)}, or these with the second in front")
    if _LONG_NUMBER.search(expression):
        raise CronError(f"{text!r} has a number of more than two digits")
    return expression


def _check(expression: str) -> None:
    """Check that an expression means something, and something that comes.

    Raises:
        CronError: it does not.
    """
    from croniter import CroniterError

    try:
        first = next(wall_times(expression, _PROBED_FROM), None)
    except (CroniterError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CronError(f"{expression!r} is not a cron expression: {error}") from None
    if first is None or first.year - _PROBED_FROM.year >= FURTHEST_YEARS:
        raise NeverFiresError(f"{expression!r} has no tick within {FURTHEST_YEARS} years")
