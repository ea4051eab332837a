"""All zones of the tz database, ten years of minutes, 200 expressions: when we fire, and when we should.

``python -m tests.authoring.whole_oracle`` takes about half an hour and fails on a difference; ``--seconds 150`` stops
after that time, with status 2, and goes on there the next time. As ``cron_oracle``, which the tests hold it against,
it looks at every minute and knows nothing of how ticks are computed. Minutes are bits here, so that all of ten years
are judged at once:

- each minute of the calendar is asked which minute, hour, day, month and weekday it is; a bit says whether it fits;
- each minute of a zone is asked how far its clocks are from UTC; the bits are moved by that;
- where clocks go forward, or back, the rules of ``hopline.cron`` are applied, as they are written there.

Zones that show the same time at all of these minutes are looked at once. Which these are is told by the files of the
tz database: the same transitions within the time, and the same rule for what comes after the last one.
"""

import argparse
import hashlib
import json
import re
import struct
import sys
import time
import zoneinfo
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from itertools import groupby, repeat
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from hopline import cron, wall_times
from tests.authoring import cron_oracle

MINUTE: Final = 60
PAD: Final = 2 * 24 * 60
"""Minutes of the calendar before and behind the time looked at: clocks are nowhere further from UTC."""
UNFINISHED: Final = 2
Bits = int
"""A set of minutes: the first is the lowest bit."""


@dataclass(frozen=True)
class Span:
    """The time that is looked at."""

    start: int
    """Unix seconds, as ``end``."""
    end: int

    @classmethod
    def of_years(cls, first: int, count: int) -> "Span":
        start, end = (datetime(year, 1, 1, tzinfo=UTC) for year in (first, first + count))
        return cls(int(start.timestamp()), int(end.timestamp()))

    @property
    def minutes(self) -> int:
        return (self.end - self.start) // MINUTE


# --- which zones are the same -----------------------------------------------------------------------------------------


class Clocks(NamedTuple):
    """All that decides what the clocks of a zone show within a span."""

    first: int | None
    """Seconds from UTC at its start; ``None`` where the rule says that."""
    changes: tuple[tuple[int, int], ...]
    """When they change within it, and to what."""
    rule: str
    """What says more about them after the last change, without the names that it gives."""


def clocks(name: str, span: Span) -> Clocks:
    """Return what a file of the tz database says; see RFC 9636."""
    data = _file(name)
    skipped, _ = _header(data, 0, 4)
    begin, counts = _header(data, skipped, 8)
    times, kinds = counts
    stamps = struct.unpack_from(f">{times}q", data, begin)
    indices = struct.unpack_from(f">{times}B", data, begin + 8 * times)
    offsets = [struct.unpack_from(">i", data, begin + 9 * times + 6 * kind)[0] for kind in range(kinds)]
    known = [(at, offsets[index]) for at, index in zip(stamps, indices, strict=True)]
    footer = data[skipped:].rsplit(b"\n", 2)[1].decode()
    before = [offset for at, offset in known if at <= span.start]
    is_over = not known or known[-1][0] < span.start
    return Clocks(
        None if is_over else before[-1] if before else offsets[0],
        tuple((at, offset) for at, offset in known if span.start < at < span.end),
        re.sub(r"<[^>]+>|[A-Za-z]{3,}", "_", footer),
    )


def _header(data: bytes, begin: int, size: int) -> tuple[int, tuple[int, int]]:
    """Return where the block behind a header ends that has times of some bytes, or begins if it is the second one."""
    assert data[begin : begin + 4] == b"TZif"
    assert data[begin + 4 : begin + 5] >= b"2"
    isut, isstd, leap, times, kinds, letters = struct.unpack_from(">6l", data, begin + 20)
    assert not leap, "leap seconds are in no file that is used"
    behind = begin + 44
    length = times * (size + 1) + kinds * 6 + letters + isstd + isut
    return (behind + length if size == 4 else behind), (times, kinds)


def _file(name: str) -> bytes:
    for folder in zoneinfo.TZPATH:
        if (path := Path(folder, name)).is_file():
            return path.read_bytes()
    return resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


def families(names: Sequence[str], span: Span) -> list[list[str]]:
    """Return zones that are the same within a span together."""
    found = defaultdict(list)
    for name in names:
        found[clocks(name, span)].append(name)
    return sorted(found.values())


# --- when expressions should fire -------------------------------------------------------------------------------------


class Calendar:
    """The wall-clock minutes of a span and a little more, each of which is asked what it is."""

    def __init__(self, span: Span) -> None:
        begin = datetime.fromtimestamp(span.start - PAD * MINUTE, UTC).replace(tzinfo=None)
        walls = [begin + timedelta(minutes=number) for number in range(span.minutes + 2 * PAD)]
        self._asked = (
            bytes(wall.minute for wall in walls),
            bytes(wall.hour for wall in walls),
            bytes(wall.day for wall in walls),
            bytes(wall.month for wall in walls),
            bytes(wall.isoweekday() % 7 for wall in walls),
        )
        self._of = cache(self._fitting)

    def fitting(self, expression: str) -> Bits:
        """Return which minutes an expression names."""
        minutes, hours, days, months, weekdays = expression.split()
        either = [self._of(field, text) for field, text in ((2, days), (4, weekdays)) if text != "*"]
        is_day = either[0] | either[-1] if either else self._of(2, "*")
        return self._of(0, minutes) & self._of(1, hours) & self._of(3, months) & is_day

    def _fitting(self, field: int, text: str) -> Bits:
        named = cron_oracle.read([*["*"] * field, text, *["*"] * (4 - field)])[field]
        values = range(60) if named is None else named
        table = bytes(ord("1") if value in values else ord("0") for value in range(256))
        return int(self._asked[field][::-1].translate(table), 2)


class Shown(NamedTuple):
    """Minutes in a row on which the clocks of a zone are as far from UTC."""

    first: int
    length: int
    offset: int
    """Minutes."""


def shown(zone: ZoneInfo, span: Span) -> list[Shown]:
    """Ask each minute of a span, and the one before, how far from UTC the clocks are then."""
    moments = range(span.start - MINUTE, span.end, MINUTE)
    asked = map(datetime.utcoffset, map(datetime.fromtimestamp, moments, repeat(zone)))
    found = []
    first = -1
    for offset, same in groupby(asked):
        assert offset is not None
        length = sum(1 for _ in same)
        assert offset % timedelta(minutes=1) == timedelta(0)
        found.append(Shown(first, length, offset // timedelta(minutes=1)))
        first += length
    return found


def expected(fitting: Bits, clock: Sequence[Shown], span: Span, *, is_rhythm: bool) -> Bits:
    """Return on which minutes an expression fires."""
    fires = 0
    previous = clock[0].offset
    for first, length, offset in clock:
        here = fitting >> (PAD + first + offset) & ((1 << length) - 1)
        if offset < previous and not is_rhythm:
            again = previous - offset
            here = here >> again << again
        if offset > previous and not is_rhythm and _is_one_missing(fitting, first, previous, offset, span):
            here |= 1
        fires |= here << (first + 1)
        previous = offset
    return fires >> 1


def _is_one_missing(fitting: Bits, first: int, previous: int, offset: int, span: Span) -> bool:
    """Return whether a time is named that clocks go over, on a day that has others."""
    midnight = span.start // MINUTE
    last_day, next_day = ((midnight + first + at) // (24 * 60) for at in (previous - 1, offset))
    return any(
        fitting >> (PAD + first + at) & 1 and (midnight + first + at) // (24 * 60) in {last_day, next_day}
        for at in range(previous, offset)
    )


# --- when they do -----------------------------------------------------------------------------------------------------


def found(expression: str, zone: ZoneInfo, span: Span) -> Bits:
    """Return on which minutes Hopline fires.

    Raises:
        AssertionError: ticks do not rise, or one is not on a full minute.
    """
    cells = bytearray(span.minutes // 8 + 1)
    last = -1
    try:
        timing = cron.parse(expression, zone)
    except cron.CronError:
        return 0
    for tick in timing.ticks(span.start - 1e-3):
        if tick.at >= span.end:
            break
        minute, rest = divmod(tick.at - span.start, MINUTE)
        number = int(minute)
        assert rest == 0, tick
        assert number > last, tick
        cells[number >> 3] |= 1 << (number & 7)
        last = number
    return int.from_bytes(cells, "little")


def compare(name: str, expressions: Sequence[str], calendar: Calendar, span: Span) -> tuple[int, list[str]]:
    """Return how many ticks a zone has, and where they are not as they should be."""
    zone = ZoneInfo(name)
    clock = shown(zone, span)
    ticks, wrong = 0, []
    for expression in expressions:
        is_rhythm = expression.split()[1].startswith("*")
        should = expected(calendar.fitting(expression), clock, span, is_rhythm=is_rhythm)
        does = found(expression, zone, span)
        ticks += should.bit_count()
        if should != does:
            some = [
                f"{datetime.fromtimestamp(span.start + MINUTE * minute, zone):%Y-%m-%d %H:%M %Z}"
                for minute in _minutes(should ^ does, 3)
            ]
            wrong.append(f"{name}: {expression}: {(should ^ does).bit_count()} differ, such as {', '.join(some)}")
    return ticks, wrong


def _minutes(bits: Bits, limit: int) -> Iterator[int]:
    for _ in range(limit):
        if bits:
            lowest = bits & -bits
            yield lowest.bit_length() - 1
            bits ^= lowest


# --- all of it --------------------------------------------------------------------------------------------------------


class Progress:
    """What has been compared, kept in a file; what was compared with other sources does not count."""

    def __init__(self, path: Path, asked: Sequence[Any]) -> None:
        sources = (cron, wall_times, cron_oracle, sys.modules[__name__])
        texts = [Path(str(source.__file__)).read_bytes() for source in sources]
        self._of = hashlib.sha256(repr((asked, texts)).encode()).hexdigest()
        self._path = path
        known = json.loads(path.read_text()) if path.exists() else {}
        self.done: dict[str, Any] = known["done"] if known.get("of") == self._of else {}

    def note(self, name: str, ticks: int, wrong: list[str], seconds: float) -> None:
        self.done[name] = {"ticks": ticks, "wrong": wrong, "seconds": seconds}
        self._path.write_text(json.dumps({"of": self._of, "done": self.done}))


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare all ticks of ten years with those of looking at each minute.")
    parser.add_argument("--from-year", type=int, default=2020)
    parser.add_argument("--years", type=int, default=10)
    parser.add_argument("--zones", nargs="*", default=sorted(available_timezones() - {"localtime", "posixrules"}))
    parser.add_argument("--expressions", type=int, default=200)
    parser.add_argument("--state", type=Path, default=Path(".whole_oracle.json"), help="where what is done is noted")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long, to go on later")
    asked = parser.parse_args()
    begin = time.monotonic()
    span = Span.of_years(asked.from_year, asked.years)
    expressions = cron_oracle.expressions(asked.expressions)
    together = families(asked.zones, span)
    progress = Progress(asked.state, (asked.from_year, asked.years, expressions, together))
    calendar = Calendar(span)
    print(f"{len(asked.zones)} zones show {len(together)} different times within {span.minutes:,} minutes", flush=True)
    for number, names in enumerate(together, 1):
        if names[0] in progress.done:
            continue
        if time.monotonic() - begin > asked.seconds:
            print(f"{len(progress.done)} of {len(together)} are done; the rest next time")
            return UNFINISHED
        since = time.process_time()
        ticks, wrong = compare(names[0], expressions, calendar, span)
        seconds = time.process_time() - since
        progress.note(names[0], ticks, wrong, seconds)
        print(f"{number}/{len(together)} {names[0]} and {len(names) - 1} others: {ticks:,} ticks, {seconds:.0f} s")
        print("".join(f"{line}\n" for line in wrong), end="", flush=True)
    done = progress.done.values()
    differences = sum(len(each["wrong"]) for each in done)
    ticks, seconds = sum(each["ticks"] for each in done), sum(each["seconds"] for each in done)
    print(f"{differences} differences: {len(expressions)} expressions, {ticks:,} ticks, {seconds:.0f} s")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
