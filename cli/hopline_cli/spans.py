"""Durations, rates and times as people type them, and as APIs write them."""

import math
import re
from datetime import UTC, datetime

from hopline_cli.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_RATE = re.compile(r"(\d+(?:\.\d+)?)/([smh])", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def span(text: str) -> str:
    """Return a duration as the API writes it; a bare number is in seconds.

    >>> span("1h30m"), span("0.5s"), span("20")
    ('5400s', '0.5s', '20s')

    Raises:
        UsageError: it is none.
    """
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
    if not math.isfinite(seconds):
        raise UsageError(f"{text!r} is not a duration", hint="write 90s, 1.5s, 10m or 2h")
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def per_second(rate: str) -> float:
    """Return how often in a second a rate is.

    >>> per_second("50/s"), per_second("30/m")
    (50.0, 0.5)

    Raises:
        UsageError: it is none.
    """
    match = _RATE.fullmatch(rate)
    if match is None or float(match[1]) == 0:
        raise UsageError(f"{rate!r} is not a rate", hint="write 10/s, 30/m or 5/h")
    return float(match[1]) / _UNITS[match[2]]


def moment(text: str) -> str:
    """Return a time as the API writes it.

    >>> moment("2026-11-20T08:00")
    '2026-11-20T08:00:00.000000Z'

    Raises:
        UsageError: it is none.
    """
    try:
        time = datetime.fromisoformat(text)
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (ValueError, OverflowError):  # the second is of the first and the last day that there are
        raise UsageError(f"{text!r} is not a time", hint="write 2026-11-20T08:00:00Z") from None
