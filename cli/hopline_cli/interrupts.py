"""Ctrl-C while something is going on: the first asks to stop, the second does not ask."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hopline_cli.errors import ExitCode

T = TypeVar("T")


class Interrupts:
    """Whether the user, or the system, asked this process to stop."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once: list[Callable[[], None]] = []
        """Called before a second request ends the process: things that would outlive it."""

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as requests to stop while the block runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if not self.asked.is_set():
            self.asked.set()
            return
        for end in self.at_once:
            end()
        sys.stdout.flush()
        os._exit(ExitCode.INTERRUPTED)

    async def unless_asked(self, work: Awaitable[T]) -> T:
        """Return the outcome of *work*, which is cancelled when a stop is asked for.

        Raises:
            Interrupted: a stop was asked for first.
        """
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self.asked.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Interrupted
        finally:
            asked.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


class Interrupted(Exception):  # noqa: N818 - control flow, not an error
    """The user asked to stop."""
