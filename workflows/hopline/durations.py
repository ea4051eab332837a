"""Durations as text with units: ``"90s"``, ``"2m30s"``, ``"1h"``, ``"1d"``, ``"500ms"``."""

import re

LONGEST = 3660.0 * 86400
"""Ten years, in seconds; longer is a slip of the keyboard."""

EXAMPLES = '"500ms", "90s", "2m30s", "1h" or "1d"'

# Each unit at most once, in falling order, so that a duration has few spellings and a typo is seen.
_PATTERN = re.compile(
    r"(?:(?P<d>\d+(?:\.\d+)?)d)?(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m(?!s))?"
    r"(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+(?:\.\d+)?)ms)?",
    re.ASCII,
)
_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def parse(text: str) -> float:
    """Return the seconds that *text* says.

    Raises ValueError for anything but numbers with units in falling order, and for more than ten years.

    >>> parse("2m30s"), parse("1.5h"), parse("500ms")
    (150.0, 5400.0, 0.5)
    """
    match = _PATTERN.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{text!r} is not a duration; write {EXAMPLES}")
    # Summed in milliseconds: exact for whole numbers of every unit.
    total = sum(float(number) * _MILLISECONDS[unit] for unit, number in match.groupdict().items() if number)
    if total / 1000 > LONGEST:
        raise ValueError(f"{text!r} is longer than ten years")
    return total / 1000
