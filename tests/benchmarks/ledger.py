"""What the store says of runs, read beside the engine: nobody is asked, so looking costs the engine nothing."""

import asyncio
import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

LOOK_AGAIN_SECONDS = 0.005
WITHIN_SECONDS = 600.0

_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24


class Mark(NamedTuple):
    """A place in the write-ahead log."""

    generation: int
    """Grows each time that the log, having been copied, is begun again."""
    commits: int


class Ledger:
    """The rows of one SQLite store."""

    def __init__(self, store: Path) -> None:
        self._rows = sqlite3.connect(f"file:{store}?mode=ro", uri=True, isolation_level=None)
        self._log = store.with_name(store.name + "-wal")

    def close(self) -> None:
        """Let go of the store."""
        self._rows.close()

    async def all_ended(self) -> None:
        """Return when no run is alive. Fails when one of them did not succeed, or they take too long."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while self._one("SELECT count(*) FROM run WHERE state = 'running'"):  # noqa: ASYNC110 - in another process
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
        assert not self._one("SELECT count(*) FROM run WHERE state <> 'succeeded'"), "a run did not succeed"

    def seconds(self, runs: list[str]) -> float:
        """Return the time from the first start to the last end of these runs, as the engine stamped them."""
        marks = ",".join("?" * len(runs))
        span = f"SELECT max(ended_at) - min(created_at) FROM run WHERE public_id IN ({marks})"
        return float(self._one(span, *runs))

    def hops(self, run: str) -> list[float]:
        """Return the seconds from the start of each attempt of a chain to that of the next."""
        starts = "SELECT a.started_at FROM attempt a JOIN run r ON r.id = a.run_id WHERE r.public_id = ? ORDER BY 1"
        times = [row[0] for row in self._rows.execute(starts, (run,))]
        return [after - before for before, after in pairwise(times)]

    def result(self, run: str) -> bytes:
        """Return the result of a run, as JSON."""
        return bytes(self._one("SELECT result FROM run WHERE public_id = ?", run))

    def digest(self, workflow: str) -> str:
        """Return the version of a workflow that new runs use."""
        return str(self._one("SELECT digest FROM workflow WHERE name = ?", workflow))

    def mark(self) -> Mark:
        """Return how many transactions are in the log: its frames say which of them end one."""
        log = self._log.read_bytes()
        page, generation = int.from_bytes(log[8:12], "big"), int.from_bytes(log[12:16], "big")
        salt, commits, at = log[16:24], 0, _HEADER_BYTES
        while log[at + 8 : at + 16] == salt and salt:
            commits += log[at + 4 : at + 8] != b"\0\0\0\0"
            at += _FRAME_HEADER_BYTES + page
        return Mark(generation, commits)

    def _one(self, query: str, *parameters: object) -> Any:
        row = self._rows.execute(query, parameters).fetchone()
        return row[0]


def commits_between(before: Mark, after: Mark) -> int | None:
    """Return the transactions between two marks; ``None`` if the log was begun again more than once meanwhile.

    If it was begun again once, that was at the first commit: when there is time, a log that is worth it is copied.
    """
    if after.generation - before.generation > 1:
        return None
    return after.commits - before.commits if before.generation == after.generation else after.commits
