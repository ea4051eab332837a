"""How times and durations are said: short for people, ISO 8601 in UTC for programs."""

import re
from datetime import UTC, datetime

from hopline_cli.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AGE = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def duration(seconds: float) -> str:
    """Return a duration with two units at most.

    >>> [duration(s) for s in (0.004, 0.5, 41.23, 125, 8070, 97_200)]
    ['4 ms', '0.5 s', '41.2 s', '2 min 5 s', '2 h 14 min', '1 d 3 h']
    """
    seconds = max(seconds, 0.0)
    if seconds < 0.095:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    for size, unit, part_size, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        whole, rest = divmod(round(seconds), size)
        if whole:
            return f"{whole} {unit} {rest // part_size} {part}"
    return f"{seconds:.1f} s"


def ago(seconds: float) -> str:
    """Return how long ago something was, in one unit.

    >>> [ago(s) for s in (0.4, 59, 61, 7200, 200_000)]
    ['now', '59s ago', '1m ago', '2h ago', '2d ago']
    """
    for unit in ("d", "h", "m", "s"):
        if seconds >= _UNITS[unit]:
            return f"{int(seconds // _UNITS[unit])}{unit} ago"
    return "now"


def unix(time: str) -> float:
    """Return the Unix seconds of a time in ISO 8601.

    >>> unix("2026-11-20T02:00:46Z")
    1795140046.0
    """
    return datetime.fromisoformat(time).timestamp()


def iso(seconds: float) -> str:
    """Return Unix seconds as ISO 8601 in UTC.

    >>> iso(1795140046.25)
    '2026-11-20T02:00:46.250Z'
    """
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def since(text: str, now: float) -> str:
    """Return the ISO time that ``24h``, ``1d12h`` or a time in ISO 8601 stands for.

    Raises:
        UsageError: it is neither an age nor a time.

    >>> since("30m", 1795140046.0)
    '2026-11-20T01:30:46.000Z'
    """
    ages = _AGE.findall(text)
    try:
        if ages and "".join(number + unit for number, unit in ages) == text:
            return iso(now - sum(float(number) * _UNITS[unit] for number, unit in ages))
        moment = datetime.fromisoformat(text)
        return iso((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):  # the second is of times that no calendar has
        raise UsageError(f"{text!r} is neither an age nor a time", hint="write 24h, 30m or 2026-11-20T08:00Z") from None
