"""A whole engine inside the test's process: real sockets, a real store, and a worker as a process beside it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hopline.steps import Workflow
from hopline_engine.api.service import Service
from hopline_engine.bootstrap import open_engine
from hopline_engine.settings import Settings
from tests.support.client import Client
from tests.support.processes import WorkerProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEngine:
    """An engine that listens, and who talks to it."""

    url: str
    client: Client
    worker: WorkerProcess | None

    async def register(self, *workflows: Workflow[..., Any]) -> None:
        """Make workflows known, as a worker would; HTTP steps need no worker."""
        compiled = [workflow.compile() for workflow in workflows]
        all_of_them = [one for definition in compiled for one in (*definition.children.values(), definition)]
        body = {
            "definitions": [definition.to_json() for definition in all_of_them],
            "current": [definition.name for definition in compiled],
        }
        await self.client.ask("POST", "/definitions", json=body)


@asynccontextmanager
async def running_engine(
    folder: Path, *paths: Path, finds_nothing: bool = True, **settings: Any
) -> AsyncIterator[RunningEngine]:
    """Run an engine on a store in *folder*, with a worker that serves *paths*; without any, there is no worker.

    In the end nothing must have been healed, and nothing be wrong, unless a test damages something itself.
    """
    chosen = Settings.load(state_dir=folder / ".hopline", **settings)
    async with open_engine(chosen) as installation:
        url = await installation.serve(0, schedules=True)
        worker = WorkerProcess(folder, url, paths, {}) if paths else None
        try:
            async with Client(url) as client:
                await client.ask("GET", "/health")  # a 503 until it takes work
                if worker is not None:
                    worker.start()
                    await worker.ready()
                yield RunningEngine(url=url, client=client, worker=worker)
                if finds_nothing:
                    await _find_nothing(installation.app.state.engine)
        finally:
            if worker is not None:
                worker.kill()


async def _find_nothing(service: Service) -> None:
    """Check that the machinery that heals was not needed, and would find nothing to heal."""
    reconciler = service._engine.reconciler
    assert reconciler.healed == {}, f"healed without a fault: {reconciler.latest}"
    findings = [finding for finding in await reconciler.look() if await reconciler.is_so(finding)]
    assert findings == []
