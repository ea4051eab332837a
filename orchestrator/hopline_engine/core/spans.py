"""Durations as people write them."""

_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def span(seconds: float) -> str:
    """Return a duration as it would be written in a workflow; one under two minutes in seconds.

    >>> span(14 * 86_400), span(3600), span(7140), span(150), span(60.5), span(0.3)
    ('14d', '1h', '1h59m', '2m30s', '60.5 s', '0.3 s')
    """
    if seconds < 120 or seconds != int(seconds):
        return f"{seconds:g} s"
    left = int(seconds)
    parts = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
