"""What a step that is never sent waits for, and how long: read from its inputs when it opens."""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from hopline_engine.core.binding import BindingError
from hopline_engine.core.live import LiveRun, RunScope
from hopline_engine.core.plan import Node

NEVER: Final = 253_402_300_800.0
"""The first second of the year 10000: no date that people can be shown lies as far ahead."""


LONGEST_KEY: Final = 500
"""Characters of the key of an event: databases index it."""


def waited_until(run: LiveRun, node: Node, now: float) -> float:
    """Return the time at which the wait of a step that opens is over by itself.

    Raises:
        BindingError: its inputs are not there, or are no such time.
    """
    if node.kind != "sleep":
        return now + node.deadline if node.deadline is not None else NEVER
    inputs = _inputs_of(run, node)
    if "seconds" in inputs:
        return min(now + float(inputs["seconds"]), NEVER)
    return time_of(inputs["until"])


def key_of(run: LiveRun, node: Node) -> str:
    """Return the key of the event that a step waits for.

    Raises:
        BindingError: it is not there, or is no key.
    """
    key = _inputs_of(run, node)["key"]
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
        shown = repr(key) if len(repr(key)) <= 100 else f"{repr(key)[:99]}…"
        raise BindingError(
            f"it waits for {node.step!r} with the key {shown}; a key is a text of 1 to {LONGEST_KEY} characters"
        )
    return key


def _inputs_of(run: LiveRun, node: Node) -> dict[str, Any]:
    return msgspec.json.decode(node.inputs.render(RunScope(run, None)), type=dict[str, Any])


def time_of(text: object) -> float:
    """Return a date, or a time with its zone, as Unix seconds; a date begins at midnight in UTC.

    >>> time_of("1970-01-02"), time_of("1970-01-01T02:00:00+01:00")
    (86400.0, 3600.0)

    Raises:
        BindingError: it is neither.
    """
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        raise BindingError(f"it sleeps until {text!r}, which is no date or time such as 2027-01-31") from None
    if time.tzinfo is None:
        if len(str(text)) > len("2027-01-31"):
            raise BindingError(f"it sleeps until {text!r}, a time without its zone; give one: 2027-01-31T08:00:00Z")
        time = time.replace(tzinfo=UTC)
    return min(time.timestamp(), NEVER - 1.0)
