"""``loop``: a step, a workflow or a few steps again and again, until a condition holds."""

from collections.abc import Callable
from typing import Any, TypeVar

from hopline import durations, trace
from hopline.errors import LoopLimitError, definition_error

A = TypeVar("A")

MOST_LAPS = 1_000_000


def loop(
    body: Callable[[A], A],
    start: A,
    *,
    until: Callable[[A], bool],
    limit: int | None = None,
    every: str | None = None,
) -> A:
    """Return the result of the first lap of *body* after which *until* holds.

    The first lap is given *start*, each further one the result of the one before. There are at most *limit* laps; if
    *until* does not hold after the last one, the loop fails. ``every`` is how long to rest between laps, during which
    nothing is held.

    *body* is a step, a workflow, or a function that wires steps: ``lambda page: merge(page, load(page.next))``.
    *until* compares the result of a lap, as in ``lambda page: page.next == None``, or is a part of it that is a bool.

    loop(look, Job(id="7"), until=lambda job: job.done, every="30s", limit=100)
    """
    _check(limit, every)
    assert limit is not None
    wiring = trace.current.get()
    if wiring is not None:
        result: A = wiring.loop(body, start, until=until, limit=limit, every=every)
        return result
    for _ in range(limit):
        start = body(start)
        if until(start):
            return start
    raise LoopLimitError(f"after {limit} laps, which is its limit, the loop's condition still does not hold")


def _check(limit: object, every: object) -> None:
    if limit is None:
        raise definition_error(
            "loop() has no limit, so it might never end", "say how many laps there may be at most: limit=100"
        )
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MOST_LAPS:
        raise definition_error(f"loop(): limit is {limit!r}", f"give a whole number from 1 to {MOST_LAPS:,}")
    if every is not None:
        _check_rest(every)


def _check_rest(every: Any) -> None:
    try:
        seconds = durations.parse(every)
    except (TypeError, ValueError):
        seconds = 0.0
    if seconds <= 0:
        raise definition_error(f"loop(): every is {every!r}", f"give a duration such as {durations.EXAMPLES}")
