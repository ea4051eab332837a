"""What a node does again and again beside its runs: it rests, does what there is to do, and begins anew.

Says once when such a loop goes on, when it tries again, and when it ends. What there is to do, how long to rest and
what wakes it belong to whoever goes round.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from hopline_engine.store.errors import OwnershipLostError, StoreClosedError

log = logging.getLogger(__name__)


async def rest(seconds: float | None, wake: asyncio.Event) -> None:
    """Return when *wake* is set, which is forgotten then, or after so many seconds; ``None`` for no such time.

    Not by ``asyncio.wait_for``: that of Python 3.11 forgets that it was cancelled when what it waits for is there.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()
    wake.clear()


async def go_round(
    work: Callable[[], Awaitable[object]],
    *,
    wake: asyncio.Event,
    rest_seconds: Callable[[], float | None],
    again_seconds: float,
    trouble: str,
) -> None:
    """Rest and work in turn, until cancelled, or until the store takes nothing of this node any more.

    Args:
        work: one round. What sets *wake* meanwhile makes the next one follow at once.
        wake: set by whoever has something to do.
        rest_seconds: returns how long to rest unless woken, asked before each rest; ``None`` for ever.
        again_seconds: how long after a round that failed the next one begins.
        trouble: what the log says of a round that failed.
    """
    while True:
        await rest(rest_seconds(), wake)
        try:
            await work()
        except (OwnershipLostError, StoreClosedError):
            return  # whoever beats tells of it
        except Exception:
            log.exception("%s; it is tried again", trouble)
            await asyncio.sleep(again_seconds)
            wake.set()
