"""Waiting for a condition, with a deadline: tests never sleep for a time that they hope is long enough."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

WITHIN = 120.0
"""Seconds after which something that should have happened has not; generous, since machines that test are busy."""
LOOK_AGAIN = 0.01
REST = 4
"""As many times as long as a look took nobody looks for what lasts: looks must not keep the machine from getting there.
"""
LONGEST_REST = 0.1


async def until(look: Callable[[], T | None], what: str, within: float = WITHIN) -> T:
    """Return what *look* returns as soon as that is true, looking again and again; fail after *within* seconds.

    *what* says in the failure what did not happen.
    """

    async def looking() -> T | None:
        return look()

    return await until_seen(looking, what, within)


async def until_seen(
    look: Callable[[], Awaitable[T | None]], what: str, within: float = WITHIN, *, lasts: bool = False
) -> T:
    """Do as ``until``, with a *look* that has to be awaited; less often if what it sees *lasts* once it is there."""
    now = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(within):
            began = now()
            while not (seen := await look()):
                rest = min(REST * (now() - began), LONGEST_REST) if lasts else 0.0
                await asyncio.sleep(max(LOOK_AGAIN, rest))
                began = now()
            return seen
    except TimeoutError:
        raise AssertionError(f"not within {within:g} s: {what}") from None


def eventually(look: Callable[[], T | None], what: str, within: float = WITHIN) -> T:
    """Do as ``until``, in a test that has no loop."""
    end = time.monotonic() + within
    while not (seen := look()):
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        time.sleep(LOOK_AGAIN)
    return seen
