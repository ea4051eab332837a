"""What the store says of runs, read beside the engine: nobody is asked, so looking costs the engine nothing."""

import asyncio
import re
import sqlite3
from collections.abc import Awaitable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import asyncpg

LOOK_AGAIN_SECONDS = 0.005
WITHIN_SECONDS = 600.0

_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24

_WAITING = "SELECT count(*) FROM task WHERE state = 2 OR state = 0 AND first_attempt_at IS NOT NULL"


class Mark(NamedTuple):
    """How far the engine has come with its commits."""

    generation: int
    """Of a write-ahead log: grows each time that it, having been copied, is begun again."""
    commits: int


class Rows(Protocol):
    """A store that is looked at."""

    def fetch(self, query: str, *parameters: object) -> Sequence[Sequence[Any]]:
        """Return what a query finds; its parameters are written as question marks."""
        ...

    def mark(self) -> Mark:
        """Return how many transactions the engine has committed."""
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


class FileRows:
    """The rows of a SQLite store."""

    def __init__(self, store: Path) -> None:
        self._raw = sqlite3.connect(f"file:{store}?mode=ro", uri=True, isolation_level=None)
        self._log = store.with_name(store.name + "-wal")

    def fetch(self, query: str, *parameters: Any) -> Sequence[Sequence[Any]]:
        """See ``Rows``."""
        return self._raw.execute(query, parameters).fetchall()

    def mark(self) -> Mark:
        """Return how many transactions are in the log: its frames say which of them end one."""
        log = self._log.read_bytes()
        page, generation = int.from_bytes(log[8:12], "big"), int.from_bytes(log[12:16], "big")
        salt, commits, at = log[16:24], 0, _HEADER_BYTES
        while log[at + 8 : at + 16] == salt and salt:
            commits += log[at + 4 : at + 8] != b"\0\0\0\0"
            at += _FRAME_HEADER_BYTES + page
        return Mark(generation, commits)

    def close(self) -> None:
        """See ``Rows``."""
        self._raw.close()


class DatabaseRows:
    """The rows of a Postgres store, looked at on a loop of its own, for those who ask do not await."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._thread = ThreadPoolExecutor(1)
        self._raw: asyncpg.Connection = self._run(asyncpg.connect(url))

    def fetch(self, query: str, *parameters: object) -> Sequence[Sequence[Any]]:
        """See ``Rows``."""
        numbers = count(1)
        numbered = re.sub(r"\?", lambda _: f"${next(numbers)}", query)
        found: Sequence[Sequence[Any]] = self._run(self._raw.fetch(numbered, *parameters))
        return found

    def mark(self) -> Mark:
        """Return how many groups the only node has committed."""
        return Mark(0, self.fetch("SELECT committed FROM node")[0][0])

    def close(self) -> None:
        """See ``Rows``."""
        self._run(self._raw.close())
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    def _run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self._thread.submit(self._runner.run, _awaited(doing)).result()


async def _awaited(doing: Awaitable[Any]) -> Any:
    return await doing


class Ledger:
    """What a store says of the runs of a benchmark."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def close(self) -> None:
        """Let go of the store."""
        self._rows.close()

    async def all_ended(self) -> None:
        """Return when no run is alive. Fails when one of them did not succeed, or they take too long."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while self._one("SELECT count(*) FROM run WHERE state = 'running'"):  # noqa: ASYNC110 - in another process
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
        assert not self._one("SELECT count(*) FROM run WHERE state <> 'succeeded'"), "a run did not succeed"

    async def ended(self, runs: list[str]) -> None:
        """Return when these runs have ended. Fails when one of them did not succeed, or they take too long."""
        marks = ",".join("?" * len(runs))
        of_these = f"SELECT count(*) FROM run WHERE public_id IN ({marks}) AND state"
        async with asyncio.timeout(WITHIN_SECONDS):
            while self._one(f"{of_these} = 'running'", *runs):  # noqa: ASYNC110 - in another process
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
        assert not self._one(f"{of_these} <> 'succeeded'", *runs), "a run did not succeed"

    async def waiting(self, tasks: int) -> None:
        """Return when so many tasks wait for their next attempt or for their callback."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while self._one(_WAITING) < tasks:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(LOOK_AGAIN_SECONDS * 50)

    def seconds(self, runs: list[str]) -> float:
        """Return the time from the first start to the last end of these runs, as the engine stamped them."""
        marks = ",".join("?" * len(runs))
        span = f"SELECT max(ended_at) - min(created_at) FROM run WHERE public_id IN ({marks})"
        return float(self._one(span, *runs))

    def first_element(self, run: str) -> float:
        """Return the seconds from when the map of a run was opened to when the first of its elements had ended.

        When one was sent is stamped with the time of the decision that opens the map, and says nothing of how long that
        took and its commit.
        """
        span = (
            "SELECT min(a.ended_at) - min(m.started_at) FROM run r"
            " JOIN attempt a ON a.run_id = r.id AND a.item >= 0"
            " JOIN step_run m ON m.run_id = r.id AND m.node = a.node AND m.item = -1 WHERE r.public_id = ?"
        )
        return float(self._one(span, run))

    def hops(self, run: str) -> list[float]:
        """Return the seconds from the start of each attempt of a chain to that of the next."""
        starts = "SELECT a.started_at FROM attempt a JOIN run r ON r.id = a.run_id WHERE r.public_id = ? ORDER BY 1"
        times = [row[0] for row in self._rows.fetch(starts, run)]
        return [after - before for before, after in pairwise(times)]

    def result(self, run: str) -> bytes:
        """Return the result of a run, as JSON."""
        return bytes(self._one("SELECT result FROM run WHERE public_id = ?", run))

    def digest(self, workflow: str) -> str:
        """Return the version of a workflow that new runs use."""
        return str(self._one("SELECT digest FROM workflow WHERE name = ?", workflow))

    def mark(self) -> Mark:
        """Return how many transactions the engine has committed."""
        return self._rows.mark()

    def _one(self, query: str, *parameters: object) -> Any:
        return self._rows.fetch(query, *parameters)[0][0]


def commits_between(before: Mark, after: Mark) -> int | None:
    """Return the transactions between two marks; ``None`` if the log was begun again more than once meanwhile.

    If it was begun again once, that was at the first commit: when there is time, a log that is worth it is copied.
    """
    if after.generation - before.generation > 1:
        return None
    return after.commits - before.commits if before.generation == after.generation else after.commits
