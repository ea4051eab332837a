"""Processes of a test that hold a store, to be killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.store import committing
from tests.support.copies import Copy


class Child:
    """A process that runs ``tests.store.committing``."""

    def __init__(self, folder: Path) -> None:
        reading, out = os.pipe()
        self._out = os.fdopen(reading, "rb")
        self._process = Copy(committing.go_on, folder, folder=Path.cwd(), environment=os.environ, out=out, err=2)
        os.close(out)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def line(self) -> str:
        """Return the next line that it prints, or nothing if it has ended."""
        return self._out.readline().decode().strip()

    def kill(self) -> list[str]:
        """End it with SIGKILL, wait until it is gone, and return the whole lines that nobody has read yet."""
        self._process.kill()
        self._process.wait()
        *whole, _ = self._out.read().decode().split("\n")
        self._out.close()
        return whole


@contextmanager
def child(folder: Path) -> Iterator[Child]:
    """Start a process that has the store in *folder* open; it is killed afterwards unless it was before."""
    process = Child(folder)
    try:
        assert process.line() == "open"
        yield process
    finally:
        if process._process.poll() is None:
            process.kill()
