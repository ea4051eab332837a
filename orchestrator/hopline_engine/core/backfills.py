"""Which ticks a back-fill makes up for, and how many of them may be started now. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any, Final, NamedTuple

import msgspec

from hopline.timing import timing_of
from hopline_engine.core.ticks import TickState

MOST_TICKS: Final = 10_000
"""Of one back-fill; so many are shown before, and stored."""
_MADE_UP: Final = frozenset({TickState.SKIPPED, TickState.MISSED, TickState.FAILED})
"""Of ticks that were decided on, those that have no run."""


class Pace(msgspec.Struct, frozen=True, omit_defaults=True):
    """How fast the ticks of a back-fill are started."""

    max_parallel: int
    """How many of its runs go on at a time."""
    interval: float = 0.0
    """Least seconds between two starts."""
    is_paused: bool = False
    next_at: float = 0.0
    """No start before this time."""

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        return msgspec.json.encode(self)


class Planned(NamedTuple):
    """A tick in the time of a back-fill."""

    at: float
    state: TickState | None
    """What became of it before; ``None`` if it was never decided on."""

    @property
    def is_wanted(self) -> bool:
        """Whether it has no run and will not have one."""
        return self.state is None or self.state in _MADE_UP


def planned(
    versions: Sequence[tuple[float, Mapping[str, Any]]], first: float, last: float, known: Mapping[float, TickState]
) -> list[Planned]:
    """Return the ticks from *first* to *last*, each by the schedule that was in force at its time.

    Args:
        versions: since when each was in force, oldest first; the oldest counts for all times before it as well.
        first: in Unix seconds.
        last: likewise.
        known: what became of ticks in that time.

    Returns:
        At most one more than ``MOST_TICKS``.
    """
    ticks = islice(_ticks(versions, first, last), MOST_TICKS + 1)
    return [Planned(at, known.get(at)) for at in ticks]


def _ticks(versions: Sequence[tuple[float, Mapping[str, Any]]], first: float, last: float) -> Iterator[float]:
    begins = [float("-inf"), *(since for since, _ in versions[1:]), float("inf")]
    for (since, schedule), (begin, end) in zip(versions, pairwise(begins), strict=True):
        start = max(first, begin)
        if start > last or start >= end:
            continue
        for tick in timing_of(schedule, since).ticks(start - 0.001):
            if tick.at > last or tick.at >= end:
                break
            yield tick.at


def startable(pace: Pace, *, running: int, waiting: int, now: float) -> tuple[int, Pace]:
    """Return how many ticks of a back-fill may be started now, and its pace afterwards."""
    if pace.is_paused or now < pace.next_at:
        return 0, pace
    free = min(waiting, max(0, pace.max_parallel - running))
    if not free or not pace.interval:
        return free, pace
    # What could not be started earlier for want of places is not made up for.
    begin = max(pace.next_at, now - 1.0)
    count = min(free, 1 + int((now - begin) / pace.interval))
    return count, msgspec.structs.replace(pace, next_at=begin + count * pace.interval)
