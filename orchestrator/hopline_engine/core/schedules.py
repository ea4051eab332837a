"""What a schedule says, as JSON, and what it says of one tick: its jitter, its name, the values a run is given.

When ticks are is ``hopline.timing``'s; what becomes of those that are due is ``core.ticks``'.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from hopline.schedules import SCHEDULED, Catchup, Fold, Gap, Overlap
from hopline_engine.core.shards import SHARDS

KEY_PREFIX: Final = "@schedule/"
"""Idempotency keys of runs that schedules start begin like this, and no others do."""

_CENTURY = 100 * 366 * 86_400
_Zone = Annotated[str, Meta(min_length=1, max_length=64)]
_LocalTime = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\Z")]
_Jitter = Annotated[float, Meta(ge=0, le=_CENTURY)]


class _Policies(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    overlap: Overlap = "skip"
    catchup: Catchup = "latest"
    jitter: _Jitter = 0.0
    """Seconds."""


class CronSpec(_Policies, frozen=True, kw_only=True, tag_field="kind", tag="cron"):
    """By a cron expression."""

    expression: str
    """Of a length that ``hopline.cron`` checks, and says what it is."""
    tz: _Zone = "UTC"
    gap: Gap | None = None
    fold: Fold | None = None


class EverySpec(_Policies, frozen=True, kw_only=True, tag_field="kind", tag="every"):
    """At equal distances."""

    seconds: Annotated[float, Meta(gt=0, le=_CENTURY)]
    aligned: bool = True


class AtSpec(_Policies, frozen=True, kw_only=True, tag_field="kind", tag="at"):
    """At given wall-clock times."""

    times: Annotated[list[_LocalTime], Meta(min_length=1, max_length=1000)]
    tz: _Zone = "UTC"


ScheduleSpec = CronSpec | EverySpec | AtSpec
Json = Mapping[str, Any]
Value = Literal["date", "time"]


def complete(given: object) -> dict[str, Any]:
    """Return the JSON of a schedule with everything in it that was left out.

    Raises:
        ValueError: it is malformed; the message says where.
    """
    spec: ScheduleSpec = msgspec.convert(given, ScheduleSpec)
    complete: dict[str, Any] = msgspec.to_builtins(spec)
    return complete


def jitter_of(schedule: str, at: float, jitter: float) -> float:
    """Return how many seconds after its time a tick fires: the same on every node, spread over ticks and schedules."""
    if jitter == 0:
        return 0.0
    digest = hashlib.sha256(f"{schedule}@{at:.3f}".encode()).digest()
    return round(int.from_bytes(digest[:8]) / 2**64 * jitter, 3)


def tick_key(schedule: str, at: float) -> str:
    """Return the idempotency key of the one run that a tick has.

    >>> tick_key("daily_sales", 1795240800.0)
    '@schedule/daily_sales/2026-11-21T06:00:00Z'
    """
    precision = "seconds" if at == int(at) else "milliseconds"
    return f"{KEY_PREFIX}{schedule}/{datetime.fromtimestamp(at, UTC).isoformat(timespec=precision)[: -len('+00:00')]}Z"


def tick_of_key(key: str) -> tuple[str, float] | None:
    """Return the schedule and the tick whose key this is, if it is one's.

    >>> tick_of_key("@schedule/daily_sales/2026-11-21T06:00:00Z")
    ('daily_sales', 1795240800.0)
    """
    if not key.startswith(KEY_PREFIX):
        return None
    schedule, _, moment = key.removeprefix(KEY_PREFIX).rpartition("/")
    return schedule, datetime.fromisoformat(moment).timestamp()


def values_of(parameters: Json, at: float, zone: tzinfo) -> dict[str, str]:
    """Return what a tick says for those parameters of a workflow that are filled by its schedule, as JSON."""
    moment = datetime.fromtimestamp(at, zone)
    properties: Mapping[str, Json] = parameters.get("properties", {})
    values = {name: properties[name].get(SCHEDULED) for name in properties}
    said = {"date": moment.date().isoformat(), "time": moment.isoformat()}
    return {name: said[value] for name, value in values.items() if value in said}


def shard_of_schedule(name: str) -> int:
    """Return the shard of a schedule, whose node fires it."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % SHARDS
