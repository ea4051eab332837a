"""How work is started: as fast as it goes, or at a steady pace."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

CONNECTIONS = 8
"""Over which runs are started at once: more would measure how the driver shares the machine with the engine."""
PACE_SECONDS = 0.01

_T = TypeVar("_T")


async def at_once(start: Callable[[], Awaitable[_T]], count: int) -> list[_T]:
    """Start so many over a few connections; return the answers."""
    left = iter(range(count))

    async def start_in_turn() -> list[_T]:
        return [await start() for _ in left]

    started = await asyncio.gather(*[start_in_turn() for _ in range(CONNECTIONS)])
    return [answer for answers in started for answer in answers]


async def at_pace(start: Callable[[], Coroutine[Any, Any, _T]], count: int) -> list[tuple[float, _T]]:
    """Start one every ``PACE_SECONDS``, whatever becomes of them; return when each was asked for, and its answer."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    asked: list[float] = []
    starting: list[asyncio.Task[_T]] = []
    for number in range(count):
        await asyncio.sleep(began + number * PACE_SECONDS - loop.time())
        asked.append(time.time())
        starting.append(loop.create_task(start()))
    return list(zip(asked, await asyncio.gather(*starting), strict=True))
