"""Processes of a test that hold a store, to be killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

REPOSITORY: Final = Path(__file__).parents[2]


class Child:
    """A process that runs ``tests.store.committing``."""

    def __init__(self, folder: Path) -> None:
        paths = [REPOSITORY, *[REPOSITORY / root for root in ("workflows", "orchestrator", "cli")]]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.committing", str(folder)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def _out(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

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
        if process._process.returncode is None:
            process.kill()
