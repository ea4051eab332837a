"""The wall-clock times that a cron expression names, without zones: croniter reads the fields, we count through them.

croniter's own counter takes up to half a second for one time of ``0 0 31 2 MON-FRI``, of which one part never comes,
and takes ``13`` and ``MON#1`` for days that are both. All days have the same times, and which days a month has is found
out once, whatever the zone and the schedule.
"""

# ruff: noqa: DTZ001  # wall-clock times

from calendar import monthrange
from collections.abc import Iterator, Sequence
from datetime import MAXYEAR, datetime
from functools import lru_cache
from typing import Final, NamedTuple

_LONGEST_PAUSE_MONTHS: Final = 9 * 12
"""29 February is eight years after the last one where a century is no leap year."""
_LAST: Final = "l"


class TimesOfDay(NamedTuple):
    """The times of every day that an expression names; each in rising order."""

    hours: Sequence[int]
    minutes: Sequence[int]
    seconds: Sequence[int]

    def on(self, midnight: datetime, after: datetime) -> Iterator[datetime]:
        """Yield those of one day that are later than another time."""
        year, month, day = midnight.year, midnight.month, midnight.day
        first = after.hour if after >= midnight else 0  # only the first of the days has any to leave out
        for hour in self.hours:
            if hour < first:
                continue
            for minute in self.minutes:
                for second in self.seconds:
                    wall = datetime(year, month, day, hour, minute, second)
                    if wall > after:
                        yield wall


class _DayFields(NamedTuple):
    days: frozenset[int | str] | None
    """Numbers and ``l``, the last one; ``None`` for all."""
    months: frozenset[int]
    weekdays: frozenset[tuple[int, int | str]] | None
    """Which of them in its month, 0 for each and ``l`` for the last; Sunday is 0. ``None`` for all."""

    def fit(self, day: int, length: int, weekday: int) -> bool:
        """Return whether a day of a month of some length is named: by either field, if both say something."""
        if self.days is None and self.weekdays is None:
            return True
        if self.days is not None and (day in self.days or (day == length and _LAST in self.days)):
            return True
        kinds = {(weekday, 0), (weekday, (day + 6) // 7)} | ({(weekday, _LAST)} if day + 7 > length else set())
        return self.weekdays is not None and not self.weekdays.isdisjoint(kinds)


def wall_times(expression: str, after: datetime) -> Iterator[datetime]:
    """Yield the wall-clock times that an expression names after another one, in their order; it may end."""
    times = times_of_day(expression)
    for midnight in days(expression, after):
        yield from times.on(midnight, after)


@lru_cache(maxsize=1024)
def times_of_day(expression: str) -> TimesOfDay:
    """Return the times of each day that an expression in capitals names; what croniter raises is raised."""
    (minutes, hours, *others), _ = _read(expression)
    seconds = others[-1] if len(others) > 3 else [0]
    return TimesOfDay(_numbers(hours, 0, 23), _numbers(minutes, 0, 59), _numbers(seconds, 0, 59))


def days(expression: str, start: datetime) -> Iterator[datetime]:
    """Yield the midnights of the days that an expression names, from that of *start* on; it may end."""
    fields = " ".join(expression.split(" ")[-3:])
    month = 12 * start.year + start.month - 1
    last = month + _LONGEST_PAUSE_MONTHS
    first = start.date()
    while month <= min(last, 12 * MAXYEAR + 11):
        found = _days_of_month(fields, *divmod(month, 12))
        for midnight in found:
            if midnight.date() >= first:
                yield midnight
        month += 1
        if found:
            last = month + _LONGEST_PAUSE_MONTHS


@lru_cache(maxsize=4096)
def _days_of_month(fields: str, year: int, month: int) -> Sequence[datetime]:
    """Return the midnights of the days of a month, which is 0 for January, that the last three fields name."""
    named = _day_fields(fields)
    if month + 1 not in named.months:
        return ()
    monday, length = monthrange(year, month + 1)
    return tuple(
        datetime(year, month + 1, day) for day in range(1, length + 1) if named.fit(day, length, (monday + day) % 7)
    )


@lru_cache(maxsize=1024)
def _day_fields(fields: str) -> _DayFields:
    (_, _, days, months, weekdays), counted = _read(f"0 0 {fields}")
    if counted:
        pairs = {(each, number) for weekday, numbers in counted.items() for each in _all(weekday) for number in numbers}
    else:
        pairs = {(int(weekday), 0) for weekday in weekdays if weekday != "*"}
    return _DayFields(
        None if "*" in days else frozenset(days),
        frozenset(_numbers(months, 1, 12)),
        None if "*" in weekdays and not counted else frozenset(pairs),
    )


def _all(weekday: int | str) -> Sequence[int]:
    return range(7) if weekday == "*" else [int(weekday)]


def _read(expression: str) -> tuple[list[list[int | str]], dict[int | str, set[int | str]]]:
    """Return what the fields mean, the second last, and which of its kind in a month a weekday has to be."""
    from croniter import croniter  # 7 MB, which an engine without cron schedules does without

    return croniter.expand(expression, second_at_beginning=True)  # type: ignore[no-any-return]


def _numbers(field: Sequence[int | str], first: int, last: int) -> Sequence[int]:
    return range(first, last + 1) if "*" in field else sorted({int(each) for each in field})
