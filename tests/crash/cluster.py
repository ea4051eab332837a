"""An engine on SQLite, or two nodes on one Postgres, with workers: everything as processes that can be killed."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
import httpx

from tests.crash.books import Row, in_postgres, in_sqlite
from tests.support.client import Client
from tests.support.postgres import PostgresServer, postgres
from tests.support.processes import EngineProcess, Process, WorkerProcess

STORES: Final = ("sqlite", "postgres")
PATIENCE: Final = 3600.0
"""Seconds for which a client asks again: where everything is killed all the time on a busy machine, there may be no
answer for minutes. How long something may take is for those to say who stop killing."""


class StoreBelow:
    """What the nodes of a cluster work on."""

    server: PostgresServer | None = None
    """That can be restarted."""

    async def rows(self) -> dict[str, list[Row]]:
        """Return everything that is stored, by table."""
        raise NotImplementedError

    async def shards_of(self, url: str) -> list[int]:
        """Return the shards that the node at a URL holds."""
        raise NotImplementedError


class _File(StoreBelow):
    def __init__(self, path: Path) -> None:
        self._path = path

    async def rows(self) -> dict[str, list[Row]]:
        return in_sqlite(self._path)

    async def shards_of(self, url: str) -> list[int]:
        return list(range(64))


class _Database(StoreBelow):
    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._url = server.url

    async def rows(self) -> dict[str, list[Row]]:
        return await in_postgres(self._url)

    async def shards_of(self, url: str) -> list[int]:
        connection = await asyncpg.connect(self._url)
        try:
            held = "SELECT shard.id FROM shard JOIN node ON node.id = shard.node WHERE node.url = $1"
            return [row["id"] for row in await connection.fetch(held, url)]
        finally:
            await connection.close()


class _AnyNode(httpx.AsyncBaseTransport):
    """Sends each request to the first node that takes the connection, as a balancer would."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = [httpx.URL(url) for url in urls]
        self._transport = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        refused = httpx.ConnectError("there is no node")
        for url in self._urls:
            request.url = request.url.copy_with(host=url.host, port=url.port)
            try:
                return await self._transport.handle_async_request(request)
            except httpx.ConnectError as error:
                refused = error
        raise refused

    async def aclose(self) -> None:
        await self._transport.aclose()


class Cluster:
    """Nodes, workers, and a client that talks to whatever node is up."""

    def __init__(self, nodes: Sequence[EngineProcess], workers: Sequence[WorkerProcess], store: StoreBelow) -> None:
        self.nodes = nodes
        self.workers = workers
        self.store = store
        self.client = Client(nodes[0].url, _AnyNode([node.url for node in nodes]), PATIENCE)

    @property
    def processes(self) -> list[Process]:
        """All of them, nodes first."""
        return [*self.nodes, *self.workers]

    async def restart_store(self) -> None:
        """Crash the database and start it again."""
        server = self.store.server
        assert server is not None
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def cluster(
    folder: Path, flow: Path, *, store: str, workers: int, durable: bool, environment: Mapping[str, str]
) -> AsyncIterator[Cluster]:
    """Run an engine on SQLite or two nodes on Postgres, and workers, in *folder*; all are killed at the end.

    *durable* is whether Postgres waits for the disk, as SQLite does.
    """
    async with AsyncExitStack() as stack:
        settings = dict(environment)
        server = stack.enter_context(postgres(durable=durable)) if store == "postgres" else None
        if server is not None:
            settings["HOPLINE_STORE"] = server.url
        folders = [folder] if server is None else [folder / "a", folder / "b"]
        for each in folders:
            each.mkdir(exist_ok=True)
        nodes = [EngineProcess(each, settings) for each in folders]
        below: StoreBelow = _Database(server) if server is not None else _File(nodes[0].store)
        hired = [WorkerProcess(folder, nodes[number % len(nodes)].url, [flow], settings) for number in range(workers)]
        made = Cluster(nodes, hired, below)
        for process in made.processes:
            stack.callback(process.kill)
        await stack.enter_async_context(made.client)
        for process in made.processes:
            process.start()
        for process in made.processes:
            await process.ready()
        yield made
