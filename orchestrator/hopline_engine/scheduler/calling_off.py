"""Tells targets that attempts they work on were cancelled, at the URLs that their requests name.

Memory only and a few times only: what a target does not hear of, the fence against late results makes harmless.
"""

import asyncio
import logging
from typing import Final

from hopline_engine.core.live import LiveTask
from hopline_engine.queue.dispatcher import Dispatcher

log = logging.getLogger(__name__)

PAUSES: Final = (0.5, 2.0)
"""Seconds between the times that a target is told, until it has heard."""


class CallingOff:
    """Tells each target beside everything else."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        """Make one that tells them by *dispatcher*."""
        self._dispatcher = dispatcher
        self._telling: set[asyncio.Task[None]] = set()

    def begin(self, task: LiveTask) -> None:
        """Have the target of a cancelled attempt told."""
        telling = asyncio.get_running_loop().create_task(self._tell_again(task))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def stop(self) -> None:
        """Tell nobody more."""
        telling = list(self._telling)
        for one in telling:
            one.cancel()
        await asyncio.gather(*telling, return_exceptions=True)

    async def _tell_again(self, task: LiveTask) -> None:
        wrong = await self._dispatcher.call_off(task)
        for pause in PAUSES:
            if wrong is None:
                return
            await asyncio.sleep(pause)
            wrong = await self._dispatcher.call_off(task)
        if wrong is not None:
            log.warning("the target of %s of %s was not told of its cancel: %s", task.name, task.run.public_id, wrong)
