"""What this machine can do at best, measured in the same minutes: a figure means little without it."""

import asyncio
import sqlite3
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from hopline_engine.queue.transport import Endpoint, Transport
from tests.benchmarks.plant import transport

IN_FLIGHT = 64
_BODY = b'{"value":0}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Figures that nothing built from these parts can beat."""

    exchange_ms: float
    """One HTTP exchange between two processes, alone; the median."""
    exchanges_per_second: float
    """The same with ``IN_FLIGHT`` at a time."""
    commit_ms: float
    """One row committed to SQLite with ``synchronous=FULL``; the median."""

    @property
    def hop_ms(self) -> float:
        """One exchange and one commit after the other."""
        return self.exchange_ms + self.commit_ms


async def measure(folder: Path, handler: str, times: int) -> Floor:
    """Measure each *times* times, on the disk of *folder* and against the handler at that address."""
    endpoint = Endpoint.of("POST", httpx.URL(handler))
    client = transport()
    alone = await _exchanges(client, endpoint, times)
    began = time.perf_counter()
    await asyncio.gather(*[_exchanges(client, endpoint, times // 8) for _ in range(IN_FLIGHT)])
    spent = time.perf_counter() - began
    await client.aclose()
    return Floor(
        exchange_ms=statistics.median(alone) * 1e3,
        exchanges_per_second=times // 8 * IN_FLIGHT / spent,
        commit_ms=statistics.median(_commits(folder / "floor.db", times // 4)) * 1e3,
    )


async def _exchanges(client: Transport, endpoint: Endpoint, times: int) -> list[float]:
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        await client.send_raw(endpoint, [(b"content-type", b"application/json")], _BODY)
        spent.append(time.perf_counter() - began)
    return spent


def _commits(path: Path, times: int) -> list[float]:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, value BLOB)")
    spent = []
    for number in range(times):
        began = time.perf_counter()
        database.execute("INSERT INTO row VALUES (?, ?)", (number, _BODY))
        spent.append(time.perf_counter() - began)
    database.close()
    return spent
