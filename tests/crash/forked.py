"""Processes of the engine and workers as copies of one that has imported everything: up in tenths of a second.

They run what ``hopline serve`` and ``python -m hopline_engine.worker`` run, and die with whoever started them.
"""

import asyncio
import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

from tests.crash.points import Passings, Point, watch

WARM: Final = (
    "hopline_cli.main",
    "hopline_cli.commands.serve",
    "hopline_engine.bootstrap",
    "hopline_engine.worker.serve",
    "alembic.command",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.loops.uvloop",
    "tests.crash.forked",
    "tests.crash.flow",
)
"""What the process that is copied has imported."""

_PARENT_DEATH_SIGNAL: Final = 1
HEARTBEAT_SECONDS: Final = 0.1
"""Of forked workers: how soon they notice that their engine is a new one."""

_context = multiprocessing.get_context("forkserver")


class Forked:
    """A process that runs *main* with *given* in a folder; what it prints is in the file *name* ``.log`` there."""

    def __init__(self, name: str, folder: Path, main: Callable[..., object], *given: object) -> None:
        _warm_up()
        self._log = folder / f"{name}.log"
        self._process: ForkServerProcess = _context.Process(
            target=_live, args=(folder, self._log, main, *given), name=name, daemon=True
        )
        self._process.start()

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has just died by itself."""
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        self._process.kill()
        self._process.join()

    async def ended(self) -> int:
        """Return its exit code once it has ended; minus the number of the signal that killed it."""
        loop = asyncio.get_running_loop()
        ending = asyncio.Event()
        loop.add_reader(self._process.sentinel, ending.set)
        try:
            await ending.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def told(self) -> str:
        """Return the end of what it printed."""
        return self._log.read_text(errors="replace")[-4000:]


def serve(environment: Mapping[str, str], port: int, store: str, deadly: str | None, told: Path) -> None:
    """Run ``hopline serve``, and die at the point *deadly*; how often each point was passed is written at the end."""
    from hopline_cli.main import main

    os.environ.update(environment)
    passings = Passings(Point.parse(deadly) if deadly else None, told)
    watch(store, passings)
    try:
        main(["serve", "--port", str(port)])
    finally:
        told.with_suffix(".passed").write_text(json.dumps(passings.counts))


def work(environment: Mapping[str, str], server: str, paths: Sequence[str]) -> None:
    """Run a worker that serves *paths*."""
    from hopline_engine.worker import options, registration
    from hopline_engine.worker.serve import serve as serve_steps

    registration.HEARTBEAT_SECONDS = HEARTBEAT_SECONDS
    os.environ.update(environment)
    sys.exit(serve_steps(options.parse(["--server", server, "--", *paths])))


def _warm_up() -> None:
    """Start the process that is copied, unless it runs; it has to find the modules that this one finds."""
    if forkserver._forkserver._forkserver_pid is not None:  # type: ignore[attr-defined]
        return
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        _context.set_forkserver_preload(list(WARM))
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _live(folder: Path, log: Path, main: Callable[..., object], *given: Any) -> None:
    # The process that is copied ends when ours does; its copies must not go on alone.
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    for name in [name for name in os.environ if name.startswith("HOPLINE_")]:
        del os.environ[name]
    os.chdir(folder)
    main(*given)
