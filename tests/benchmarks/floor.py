"""What this machine can do at best, measured in the same minutes: a figure means little without it."""

import asyncio
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import httpx
import msgspec

from hopline_engine.queue.transport import Endpoint
from tests.benchmarks.ledger import LOOK_AGAIN_SECONDS
from tests.benchmarks.plant import serving, transport
from tests.benchmarks.starts import at_once, at_pace

IN_FLIGHT = 64
_BODY = b'{"value":0}'
_JSON = [(b"content-type", b"application/json")]
_MODEL = "model_engine.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Figures of the machine, and of an engine that does nothing but what it must (``model_engine``)."""

    exchange_ms: float
    """One HTTP exchange between two processes, alone; the median."""
    exchanges_per_second: float
    """The same with ``IN_FLIGHT`` at a time."""
    commit_ms: float
    """One row committed to SQLite with ``synchronous=FULL``; the median."""
    hop_ms: float
    """From here on of the model: W1, W2, W3, W4, and the median of the paced W5."""
    fan_per_second: float
    many_per_second: float
    start_ms: float
    paced_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is done for each figure."""

    exchanges: int = 2000
    chain: int = 100
    width: int = 1000
    runs: int = 200
    starts: int = 20
    paced: int = 50


FULL_LOAD = Load()
SMALL_LOAD = Load(exchanges=200, chain=10, width=20, runs=5, starts=3, paced=5)


class _Ended(msgspec.Struct):
    """What the model says of the runs that ended."""

    seconds: float
    hops: list[float]
    results: dict[str, float]


class Gauge:
    """Measures the floor, again and again."""

    def __init__(self, folder: Path, handler: str, model: str, load: Load) -> None:
        self._folder = folder
        self._load = load
        self._client = transport()
        self._handler = Endpoint.of("POST", httpx.URL(handler))
        self._start = Endpoint.of("POST", httpx.URL(model))
        self._ended = Endpoint.of("GET", httpx.URL(model))
        self.found: list[Floor] = []
        """All that it measured."""

    async def measure(self) -> Floor:
        """Return what the machine can do now."""
        load = self._load
        alone = await self._exchanges(load.exchanges)
        each, began = load.exchanges // 8, time.perf_counter()
        await asyncio.gather(*[self._exchanges(each) for _ in range(IN_FLIGHT)])
        spent = time.perf_counter() - began
        commits = await asyncio.to_thread(_commits, self._folder / "floor.db", load.exchanges // 4)
        floor = Floor(
            exchange_ms=statistics.median(alone) * 1e3,
            exchanges_per_second=each * IN_FLIGHT / spent,
            commit_ms=statistics.median(commits) * 1e3,
            hop_ms=(await self._model([1] * load.chain)).hops[0] * 1e3,
            fan_per_second=(load.width + 2) / (await self._model([1, load.width, 1])).seconds,
            many_per_second=load.runs * 10 / (await self._model([1] * 10, load.runs)).seconds,
            start_ms=await self._model_start() * 1e3,
            paced_ms=await self._model_paced() * 1e3,
        )
        self.found.append(floor)
        return floor

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def _exchanges(self, times: int) -> list[float]:
        spent = []
        for _ in range(times):
            began = time.perf_counter()
            await self._client.send_raw(self._handler, _JSON, _BODY)
            spent.append(time.perf_counter() - began)
        return spent

    async def _model(self, widths: list[int], runs: int = 1) -> _Ended:
        await at_once(lambda: self._begin(widths), runs)
        return await self._all_ended()

    async def _model_start(self) -> float:
        waits = []
        for _ in range(self._load.starts):
            asked = time.time()
            run = await self._begin([1])
            waits.append((await self._all_ended()).results[run] - asked)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)  # the machine is as idle as where the end of a run is looked for
        return statistics.median(waits)

    async def _model_paced(self) -> float:
        began = await at_pace(lambda: self._begin([1]), self._load.paced)
        came = (await self._all_ended()).results
        return statistics.median(came[run] - asked for asked, run in began)

    async def _begin(self, widths: list[int]) -> str:
        answer = await self._client.send_raw(self._start, _JSON, msgspec.json.encode(widths))
        return str(msgspec.json.decode(answer.body)["id"])

    async def _all_ended(self) -> _Ended:
        answer = await self._client.send_raw(self._ended, _JSON, b"{}")
        return msgspec.json.decode(answer.body, type=_Ended)


@asynccontextmanager
async def running_gauge(folder: Path, handler: str, load: Load) -> AsyncIterator[Gauge]:
    """Run the model; yield what measures it, and the disk of *folder*, and exchanges with the handler."""
    with serving(_MODEL, "handler") as steps, serving(_MODEL, "engine", steps, str(folder / "model.db")) as model:
        gauge = Gauge(folder, handler, model, load)
        await gauge.measure()  # once for nothing: connections are made, and code is run for the first time
        gauge.found.clear()
        yield gauge
        await gauge.close()


def median(floors: list[Floor]) -> Floor:
    """Return the median of each figure."""
    names = [each.name for each in fields(Floor)]
    return Floor(**{name: statistics.median(getattr(floor, name) for floor in floors) for name in names})


def _commits(path: Path, times: int) -> list[float]:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS row (id INTEGER PRIMARY KEY, value BLOB)")
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        database.execute("INSERT INTO row (value) VALUES (?)", (_BODY,))
        spent.append(time.perf_counter() - began)
    database.close()
    return spent
