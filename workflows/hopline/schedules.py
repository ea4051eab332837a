"""When a workflow runs by itself: Cron, Every, At, as values; and ``scheduled``, what a run is told of its time.

These are what is written in a workflow file. When they fire is computed in ``timing``, which needs croniter.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final, Literal, cast, get_args

from hopline import durations
from hopline.errors import definition_error

Overlap = Literal["skip", "queue_one", "queue_all", "cancel_running", "allow"]
"""What becomes of a tick while a run of the schedule is going on."""
Catchup = Literal["none", "latest", "all"]
"""Which ticks are made up for that were missed while no engine ran."""
Gap = Literal["shift", "skip"]
Fold = Literal["once", "twice"]

SCHEDULED: Final = "x-hopline-scheduled"
"""Keyword in the schema of a parameter that a schedule gives its value: ``date`` or ``time``."""


@dataclass(frozen=True, slots=True)
class Cron:
    """By a cron expression, in the wall-clock time of a zone: ``Cron("0 6 * * *", tz="Europe/Berlin")``.

    ``gap`` and ``fold`` say what happens on days on which the clocks change. Left out, times of the day (``0 6 * * *``)
    fire exactly once on each day, and rhythms (``*/15 * * * *``) keep their distance.
    """

    expression: str
    tz: str = "UTC"
    _: KW_ONLY
    overlap: Overlap = "skip"
    catchup: Catchup = "latest"
    jitter: str = "0s"
    gap: Gap | None = None
    fold: Fold | None = None

    def __post_init__(self) -> None:
        _text("Cron(expression)", self.expression, '"0 6 * * *"')
        _text("Cron(tz=)", self.tz, '"Europe/Berlin"')
        _one_of("Cron(gap=)", self.gap, (*get_args(Gap), None))
        _one_of("Cron(fold=)", self.fold, (*get_args(Fold), None))
        _policies("Cron", self)

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as it stands in a definition."""
        own = {"kind": "cron", "expression": self.expression, "tz": self.tz, "gap": self.gap, "fold": self.fold}
        return {**own, **_shared(self)}


@dataclass(frozen=True, slots=True)
class Every:
    """At equal distances: ``Every("15m")`` at 0, 15, 30 and 45 past each hour.

    Aligned, ticks are whole multiples of the interval since 1970 in UTC, whenever the schedule was made; with
    ``aligned=False`` they count from the moment at which it was.
    """

    interval: str
    _: KW_ONLY
    aligned: bool = True
    overlap: Overlap = "skip"
    catchup: Catchup = "latest"
    jitter: str = "0s"

    def __post_init__(self) -> None:
        if _seconds("Every(interval)", self.interval) == 0:
            raise definition_error("Every: the interval is zero", f"write {durations.EXAMPLES}")
        _one_of("Every(aligned=)", self.aligned, (True, False))
        _policies("Every", self)

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as it stands in a definition; durations are seconds."""
        seconds = durations.parse(self.interval)
        return {"kind": "every", "seconds": seconds, "aligned": self.aligned, **_shared(self)}


@dataclass(frozen=True, slots=True, init=False)
class At:
    """At given times, each once: ``At("2026-12-24T18:00", tz="Europe/Berlin")``."""

    times: tuple[str, ...]
    tz: str
    overlap: Overlap
    catchup: Catchup
    jitter: str

    def __init__(
        self,
        *times: str,
        tz: str = "UTC",
        overlap: Overlap = "skip",
        catchup: Catchup = "latest",
        jitter: str = "0s",
    ) -> None:
        for name, value in (("times", times), ("tz", tz), ("overlap", overlap), ("catchup", catchup)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "jitter", jitter)
        if not times:
            raise definition_error("At() names no time", 'write At("2026-12-24T18:00", tz="Europe/Berlin")')
        for each in times:
            _local_time(each)
        _text("At(tz=)", tz, '"Europe/Berlin"')
        _policies("At", self)

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as it stands in a definition."""
        return {"kind": "at", "times": sorted(map(_local_time, self.times)), "tz": self.tz, **_shared(self)}


Schedule = Cron | Every | At


class ScheduledValue:
    """Stands as the default of a parameter for what the schedule of a run says."""

    __slots__ = ("name",)

    def __init__(self, name: Literal["date", "time"]) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"scheduled.{self.name}"


class _Scheduled:
    """What a run may know of the tick it was started for, as defaults of a workflow's parameters."""

    date: dt.date = cast("dt.date", ScheduledValue("date"))
    """The day of the tick in the schedule's zone."""
    time: dt.datetime = cast("dt.datetime", ScheduledValue("time"))
    """The moment of the tick, with the offset of the schedule's zone."""


scheduled: Final = _Scheduled()
"""``def report(day: date = scheduled.date)``: filled by the schedule; who starts a run by hand passes a value."""


def _shared(schedule: Schedule) -> dict[str, Any]:
    jitter = durations.parse(schedule.jitter)
    return {"overlap": schedule.overlap, "catchup": schedule.catchup, "jitter": jitter}


def _policies(what: str, schedule: Schedule) -> None:
    _one_of(f"{what}(overlap=)", schedule.overlap, get_args(Overlap))
    _one_of(f"{what}(catchup=)", schedule.catchup, get_args(Catchup))
    _seconds(f"{what}(jitter=)", schedule.jitter)


def _one_of(what: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise definition_error(f"{what} is {value!r}", f"give one of {', '.join(map(repr, choices))}")


def _text(what: str, value: object, example: str) -> None:
    if not isinstance(value, str):
        raise definition_error(f"{what} is {value!r}, not a text", f"write {example}")


def _seconds(what: str, value: object) -> float:
    _text(what, value, durations.EXAMPLES)
    try:
        return durations.parse(cast("str", value))
    except ValueError as error:
        raise definition_error(f"{what}: {str(error).partition(';')[0]}", f"write {durations.EXAMPLES}") from None


def _local_time(text: object) -> str:
    """Return a wall-clock time in its one spelling."""
    hint = 'write a wall-clock time as "2026-12-24T18:00", and its zone as tz="Europe/Berlin"'
    _text("At(time)", text, '"2026-12-24T18:00"')
    try:
        moment = dt.datetime.fromisoformat(cast("str", text))
    except ValueError:
        raise definition_error(f"At: {text!r} is not a time", hint) from None
    if moment.tzinfo is not None:
        raise definition_error(f"At: {text!r} has an offset of its own", hint)
    return moment.replace(microsecond=0).isoformat()
