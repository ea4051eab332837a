"""What is measured: an engine and a worker as processes of their own, with the settings they are shipped with.

The driver must not be what limits: it sends over the product's own transport and learns of the end from the store.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx
import msgspec

from hopline_engine.queue.connection import Limits
from hopline_engine.queue.egress import Guard
from hopline_engine.queue.transport import Endpoint, Transport
from tests.benchmarks.ledger import DatabaseRows, FileRows, Ledger
from tests.support.processes import EngineProcess, WorkerProcess

HERE = Path(__file__).parent
_JSON = [(b"content-type", b"application/json")]


class Driver:
    """Starts runs."""

    def __init__(self, url: str) -> None:
        self._transport = transport()
        self._runs = Endpoint.of("POST", httpx.URL(f"{url}/api/v1/runs"))

    async def start(self, workflow: str, **given: object) -> str:
        """Start a run and return its id."""
        asked = msgspec.json.encode({"workflow": workflow, "input": given})
        answer = await self._transport.send_raw(self._runs, _JSON, asked)
        assert answer.status == 201, answer.body
        return str(msgspec.json.decode(answer.body)["id"])

    async def close(self) -> None:
        """Close its connections."""
        await self._transport.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """An engine and a worker that serves one file of workflows, and who watches them."""

    engine: int
    """Its process id, as the worker's."""
    worker: int
    driver: Driver
    ledger: Ledger

    async def run(self, workflow: str, **given: object) -> str:
        """Run a workflow to its end and return the id of the run."""
        run = await self.driver.start(workflow, **given)
        await self.ledger.all_ended()
        return run


@asynccontextmanager
async def running_plant(
    folder: Path, workflows: str = "workloads.py", settings: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Plant]:
    """Start engine and worker in *folder*, on the store that is there or on a new one, and run everything once."""
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    engine = EngineProcess(folder, settings, fresh=True)
    worker = WorkerProcess(folder, engine.url, [HERE / workflows], {}, fresh=True)
    driver = Driver(engine.url)
    try:
        engine.start()
        await engine.ready()
        worker.start()
        await worker.ready()
        database = settings.get("HOPLINE_STORE")
        ledger = Ledger(FileRows(engine.store) if database is None else DatabaseRows(database))
        plant = Plant(engine=engine.pid, worker=worker.pid, driver=driver, ledger=ledger)
        await plant.run("chain_10")
        await plant.run("fan", width=200)
        yield plant
        ledger.close()
        await driver.close()
        await worker.stop()
        await engine.stop()
    finally:
        worker.kill()
        engine.kill()


def running_handler() -> AbstractContextManager[str]:
    """Run the local HTTP handler; yield its address."""
    return serving("handler.py")


@contextmanager
def serving(script: str, *arguments: str) -> Iterator[str]:
    """Run a script of this folder that prints its address as its first line; yield the address."""
    command = [sys.executable, str(HERE / script), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def transport() -> Transport:
    """Return the product's own transport."""
    return Transport(Guard("open", ()), Limits())
