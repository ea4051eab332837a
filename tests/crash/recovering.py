"""How long it takes until work moves again after a node was killed, or the database crashed."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from hopline_engine.core.shards import shard_of
from tests.crash.books import Books


class Blow(NamedTuple):
    """Something that stopped the work of some shards."""

    kind: str
    """``node``, or ``store`` from the moment that it takes connections again."""
    at: float
    shards: frozenset[int]


@dataclass(slots=True)
class Recoveries:
    """Seconds from each blow to the first attempt of what it had stopped, by kind of blow."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"work of a killed {kind} moved again after {median(found):.2f} s (median), {max(found):.2f} s (worst of "
            f"{len(found)})"
            for kind, found in self.seconds.items()
        ]
        return "\n".join(lines)


def recoveries(books: Books, blows: Sequence[Blow]) -> Recoveries:
    """Return how long each blow stopped the work: until a run that it had stopped began an attempt.

    Of a killed node that is a run of its shards with an attempt that was lost; of the database any run.
    """
    starts: dict[int, list[float]] = {}
    lost: dict[int, float] = {}
    for step, attempts in books.attempts.items():
        for one in attempts:
            at = one["started_at"]
            starts.setdefault(step.run, []).append(at)
            if one["state"] == "lost":
                lost[step.run] = min(at, lost.get(step.run, at))
    found = Recoveries()
    for times in starts.values():
        times.sort()
    for blow in blows:
        stopped = starts if blow.kind == "store" else [run for run, at in lost.items() if at <= blow.at]
        moved = [
            starts[run][bisect_right(starts[run], blow.at)] - blow.at
            for run in stopped
            if shard_of(run) in blow.shards and blow.at < starts[run][-1] and _is_alive(books, run, blow.at)
        ]
        if moved:
            found.seconds.setdefault(blow.kind, []).append(min(moved))
    return found


def _is_alive(books: Books, run: int, at: float) -> bool:
    row = books.runs[run]
    return row["created_at"] < at and (row["ended_at"] is None or row["ended_at"] > at)
