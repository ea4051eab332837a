"""Processes of the engine that die at points, and workers that notice it soon; all are copies, see ``copies``."""

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.crash.points import Passings, Point, watch
from tests.support import copies
from tests.support.copies import Copy

HEARTBEAT_SECONDS: Final = 0.1
"""Of forked workers: how soon they notice that their engine is a new one."""


class Forked:
    """A process that runs *main* with *given* in a folder; what it prints is in the file *name* ``.log`` there."""

    def __init__(self, name: str, folder: Path, main: Callable[..., object], *given: object) -> None:
        self._log = folder / f"{name}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HOPLINE_")}
        with self._log.open("ab") as log:
            told = log.fileno()
            self._process = Copy(main, *given, folder=folder, environment=clean, out=told, err=told)

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has just died by itself."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        self._process.kill()
        self._process.wait()

    async def ended(self) -> int:
        """Return its exit code once it has ended; minus the number of the signal that killed it."""
        return await self._process.ended()

    def told(self) -> str:
        """Return the end of what it printed."""
        return self._log.read_text(errors="replace")[-4000:]


def serve(environment: Mapping[str, str], port: int, store: str, deadly: str | None, told: Path) -> None:
    """Run ``hopline serve``, and die at the point *deadly*; how often each point was passed is written at the end."""
    os.environ.update(environment)
    passings = Passings(Point.parse(deadly) if deadly else None, told)
    watch(store, passings)
    try:
        copies.hopline("serve", "--port", str(port))
    finally:
        told.with_suffix(".passed").write_text(json.dumps(passings.counts))


def work(environment: Mapping[str, str], server: str, paths: Sequence[str]) -> None:
    """Run a worker that serves *paths*."""
    from hopline_engine.worker import registration

    registration.HEARTBEAT_SECONDS = HEARTBEAT_SECONDS
    os.environ.update(environment)
    copies.worker("--server", server, "--", *paths)
