"""The worker's ties to the process that started it: the report, the pipe that closes with the parent, signals."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from hopline_engine.worker.problems import LoadError


class Report:
    """One line of JSON on a file descriptor, which says how starting went; nothing without a descriptor."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        if fd is not None:
            os.set_inheritable(fd, False)  # a child of a step would hold it open

    def failed(self, errors: Sequence[LoadError]) -> None:
        """Report that starting failed because of *errors*, or tell it on stderr when nobody waits for a report."""
        if errors and self._fd is None:
            say("\n".join(map(str, errors)))
        elif errors:
            self.send({"ok": False, "errors": [error.to_json() for error in errors]})

    def send(self, content: dict[str, Any]) -> None:
        """Report *content*; only the first report is sent."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        # When nobody reads it any more, --exit-with-parent says what to do.
        with contextlib.suppress(BrokenPipeError), os.fdopen(fd, "w", encoding="utf-8") as pipe:
            pipe.write(json.dumps(content) + "\n")


class Stop:
    """Whether the worker was told to stop, and whether it was told twice."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()
        """The same signal came again: what still runs is given up."""
        self._signals: set[int] = set()

    def listen(self, loop: asyncio.AbstractEventLoop, pipe: int | None) -> None:
        """Take SIGTERM and SIGINT, and the end of *pipe*, as orders to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        if pipe is not None:
            loop.add_reader(pipe, self._on_readable, loop, pipe)

    def _on_signal(self, number: int) -> None:
        # Not just any second signal: after Ctrl-C come the terminal's SIGINT and the parent's SIGTERM.
        if number in self._signals:
            self.insisted.set()
        self._signals.add(number)
        self.asked.set()

    def _on_readable(self, loop: asyncio.AbstractEventLoop, pipe: int) -> None:
        if not os.read(pipe, 4096):
            loop.remove_reader(pipe)
            self.asked.set()


def take_stdin() -> int:
    """Return a descriptor of the parent's pipe and give steps an empty stdin, so that none of them reads the pipe."""
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return pipe


def serving(workflows: Sequence[Mapping[str, Any]], server: str) -> str:
    """Return the first line of a worker that was started by hand.

    >>> serving([{"name": "sales"}, {"name": "stock"}], "http://127.0.0.1:8484")
    'serves sales, stock; the engine is at http://127.0.0.1:8484'
    """
    names = [str(workflow["name"]) for workflow in workflows]
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"serves {shown or 'steps'}; the engine is at {server}"


def say(text: str) -> None:
    """Tell the person at the terminal, on stderr."""
    os.write(2, f"worker: {text}\n".encode("utf-8", "replace"))
