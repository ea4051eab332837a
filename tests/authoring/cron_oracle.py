"""When expressions fire, found by looking at every minute: slow, and written apart from what it checks.

The tests take a sample; ``whole_oracle`` does the same for all zones, as fast as that can be.
"""

# ruff: noqa: DTZ001  # wall-clock times

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from hopline import cron

_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_MINUTE = timedelta(minutes=1)


class _Fields(NamedTuple):
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int] | None
    months: frozenset[int]
    weekdays: frozenset[int] | None

    def fit(self, wall: datetime) -> bool:
        if wall.minute not in self.minutes or wall.hour not in self.hours or wall.month not in self.months:
            return False
        chosen = [wall.day in self.days] if self.days is not None else []
        chosen += [wall.isoweekday() % 7 in self.weekdays] if self.weekdays is not None else []
        return any(chosen) if chosen else True


def oracle(expression: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[float]:
    """Return when an expression of numbers, lists, ranges and steps fires from *start* on and before *end*, in UTC."""
    texts = expression.split()
    fields = read(texts)
    is_rhythm = texts[1].startswith("*")
    found = []
    moment = start
    before = _wall(moment - _MINUTE, zone)
    while moment < end:
        wall = _wall(moment, zone)
        gap = wall - before - _MINUTE
        missing = (before + _MINUTE * number for number in range(1, int(gap / _MINUTE) + 1))
        is_shifted_here = not is_rhythm and any(
            fields.fit(time) for time in missing if _is_part_of_day(time, before, wall)
        )
        if is_shifted_here or (fields.fit(wall) and (is_rhythm or not _is_second(moment, zone))):
            found.append(moment.replace(tzinfo=UTC).timestamp())
        before, moment = wall, moment + _MINUTE
    return found


def _is_second(moment: datetime, zone: ZoneInfo) -> bool:
    """Return whether a moment is the second that shows its wall-clock time."""
    return moment.replace(tzinfo=UTC).astimezone(zone).fold == 1


def _is_part_of_day(time: datetime, before: datetime, behind: datetime) -> bool:
    """Return whether the day of a time that does not exist has other times that do."""
    return time.date() in {before.date(), behind.date()}


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None)


def read(texts: list[str]) -> _Fields:
    """Return what the fields of an expression mean."""
    minutes, hours, days, months, weekdays = (
        _values(text, *bounds) for text, bounds in zip(texts, _RANGES, strict=True)
    )
    return _Fields(
        minutes,
        hours,
        None if texts[2] == "*" else days,
        months,
        None if texts[4] == "*" else frozenset(each % 7 for each in weekdays),
    )


def _values(text: str, low: int, high: int) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
        values.update(range(int(first), int(last or (high if step else first)) + 1, int(step or 1)))
    return frozenset(values)


def expressions(count: int, seed: int = 7) -> list[str]:
    """Return expressions of every kind, the same ones each time."""
    chance = random.Random(seed)
    usual = ["0 6 * * *", "30 2 * * *", "0 * * * *", "*/15 * * * *", "0 0 * * *", "0 2,3 * * *", "59 23 31 12 *"]
    return [*usual, *(_any_expression(chance) for _ in range(count - len(usual)))][:count]


def _any_expression(chance: random.Random) -> str:
    hours = ["*", "*/2", "*/3", "2", "3", "1-3", "0", "23", "0-5", "2,14", str(chance.randrange(24))]
    minutes = ["0", "30", "*/15", "*/7", "0,45", str(chance.randrange(60)), "10-20/5"]
    days = ["*", "*", "*", "*", "1", "29", "31", "13", "*/10", "1-7"]
    months = ["*", "*", "*", "3", "10,11", "2"]
    weekdays = ["*", "*", "*", "0", "1-5", "6,7"]
    return " ".join(chance.choice(of) for of in (minutes, hours, days, months, weekdays))


def ours(expression: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[float]:
    """Return the same as ``oracle``, as Hopline computes it."""
    until = end.replace(tzinfo=UTC).timestamp()
    found = []
    try:
        timing = cron.parse(expression, zone)
    except cron.CronError:
        return []
    for tick in timing.ticks(start.replace(tzinfo=UTC).timestamp() - 1e-3):
        if tick.at >= until:
            break
        found.append(tick.at)
    return found


def changes(zone: ZoneInfo, first: date, last: date) -> Iterator[datetime]:
    """Yield days, in UTC, on which clocks change."""
    day = datetime(first.year, first.month, first.day)
    while day.date() < last:
        behind = day + timedelta(days=1)
        if _wall(day, zone) - day != _wall(behind, zone) - behind:
            yield day
        day = behind
