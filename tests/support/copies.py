"""Processes that are copies of one that has imported everything: up in tenths of a second.

A copy begins as a new process would, in a folder, with variables and output of its own; only what it would import is
there already. It ends with whoever started it.
"""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import connection, forkserver, reduction
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

_PARENT_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG
_context = multiprocessing.get_context("forkserver")
_one_at_a_time = threading.Lock()
"""How a copy ended can be read once only, and whoever starts one looks at all of them."""


class Copy:
    """A process that calls *main* with *given*, which it has to find by name; may be asked what ``Popen`` may be."""

    def __init__(
        self,
        main: Callable[..., object],
        *given: object,
        folder: Path,
        environment: Mapping[str, str],
        out: int,
        err: int,
    ) -> None:
        """Start it in *folder* with nothing but *environment*; what it prints goes to the files *out* and *err*."""
        _warm_up()
        streams = (_Handed(out), _Handed(err))
        self._process: ForkServerProcess = _context.Process(
            target=_live, args=(folder, dict(environment), streams, main, *given), daemon=True
        )
        with _one_at_a_time:
            self._process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Return its exit code, if it has ended; minus the number of the signal that killed it."""
        with _one_at_a_time:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended."""
        connection.wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    async def ended(self) -> int:
        """Do as ``wait``, and let others go on meanwhile."""
        loop = asyncio.get_running_loop()
        ending = asyncio.Event()
        loop.add_reader(self._process.sentinel, ending.set)
        try:
            await ending.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        return self.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def hopline(*arguments: str) -> None:
    """Run the command line."""
    from hopline_cli.main import main

    main(arguments)


def worker(*arguments: str) -> None:
    """Run ``python -m hopline_engine.worker``."""
    from hopline_engine.worker import options
    from hopline_engine.worker.serve import serve

    sys.exit(serve(options.parse(arguments)))


def end_with_parent() -> None:
    """Have this process killed when the one that started it ends, whatever ends that; where the system can."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


class _Handed:
    """A file that is open here, and will be in the copy under a number of its own."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _taken, (reduction.DupFd(self._number),)


def _taken(handed: Any) -> int:
    return int(handed.detach())


def _warm_up() -> None:
    """Start the process that is copied, unless it runs; it has to find the modules that this one finds."""
    if forkserver._forkserver._forkserver_pid is not None:  # type: ignore[attr-defined]
        return
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        _context.set_forkserver_preload(["__main__", "tests.support.warm"])
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _live(
    folder: Path, environment: Mapping[str, str], streams: tuple[int, int], main: Callable[..., object], *given: Any
) -> None:
    # The process that is copied ends when nobody has this pipe any more, and its copies must not go on alone.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    end_with_parent()
    for stream, file in enumerate((os.open(os.devnull, os.O_RDONLY), *streams)):
        os.dup2(file, stream)
        os.close(file)
    sys.stdout = os.fdopen(1, "w")  # as in a new process: what was made for a file is of no use for a pipe
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    main(*given)
