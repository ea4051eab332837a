"""A worker of several nodes: it finds all of them from one, shares its slots among them, and outlives any."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from hopline import step, workflow
from hopline_engine.api.app import create_app
from hopline_engine.api.fleet_models import NodeAddress
from hopline_engine.clock import SystemClock
from hopline_engine.settings import Settings
from hopline_engine.worker import registration as registration_module
from hopline_engine.worker.client import Announcement, Terms
from hopline_engine.worker.registration import Registration
from tests.api.small_engine import SmallEngine
from tests.support.asgi import listening
from tests.support.waiting import WITHIN, until

pytestmark = pytest.mark.anyio

SLOTS = 9


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration_module, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(registration_module, "LONGEST_WAIT_SECONDS", 0.1)


@step
def one() -> int:
    return 1


@workflow
def ones() -> int:
    return one()


class Cluster:
    """Nodes that know of each other, on real sockets; each may die and others may join."""

    def __init__(self) -> None:
        self.engines: dict[str, SmallEngine] = {}
        self.urls: dict[str, str] = {}
        self._lives: dict[str, AsyncExitStack] = {}

    async def join(self, name: str, **settings: Any) -> str:
        """Add a node and return its URL."""
        self.engines[name] = SmallEngine(name)
        life = self._lives[name] = AsyncExitStack()
        app = create_app(self.engines[name], Settings(**settings))
        self.urls[name] = await life.enter_async_context(listening(app))
        self.introduce()
        return self.urls[name]

    async def die(self, name: str, *, noticed: bool = True) -> None:
        """End a node; the others drop it from their lists when they have *noticed*."""
        await self._lives.pop(name).aclose()
        if noticed:
            self.forget(name)

    def forget(self, name: str) -> None:
        """Let the other nodes take one for dead."""
        del self.engines[name], self.urls[name]
        self.introduce()

    def introduce(self) -> None:
        """Let every node list all."""
        for engine in self.engines.values():
            engine.peers = [NodeAddress(id=name, url=url) for name, url in self.urls.items()]

    async def shares(self) -> dict[str, int]:
        """Return how many steps each node may send the worker at a time; nodes that do not know it are left out."""
        workers = {name: await engine.workers() for name, engine in self.engines.items()}
        return {name: found[0].concurrency for name, found in workers.items() if found}

    async def close(self) -> None:
        for life in self._lives.values():
            await life.aclose()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await made.close()


@asynccontextmanager
async def registered(server: str) -> AsyncIterator[tuple[Registration, list[Terms]]]:
    """Keep a worker registered; yield when it first is, with what it was told since."""
    told: list[Terms] = []
    description = {
        "url": "http://127.0.0.1:9", "token": "t", "concurrency": SLOTS,
        "steps": [{"name": "one", "signature": one.signature}],
    }  # fmt: skip
    announcement = Announcement.of("w_1", [ones.compile()], ["ones"], description)
    registration = Registration(server, None, announcement, SystemClock(), told.append)
    keeping = asyncio.create_task(registration.keep())
    try:
        await until(lambda: told, "the worker is registered")
        yield registration, told
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


async def shared_by(cluster: Cluster, *names: str) -> None:
    """Return when these nodes, and no others, know the worker, each with its part of the slots."""
    wanted = dict.fromkeys(names, math.ceil(SLOTS / len(names)))
    async with asyncio.timeout(WITHIN):
        while await cluster.shares() != wanted:  # noqa: ASYNC110 - what is looked at signals nothing
            await asyncio.sleep(0.01)


async def test_worker_finds_all_nodes_from_one_and_divides_its_slots(cluster: Cluster) -> None:
    first = await cluster.join("n_1")
    await cluster.join("n_2")
    async with registered(first) as (_, told):
        assert set(await cluster.shares()) == {"n_1", "n_2"}  # as soon as it says that it is registered
        await shared_by(cluster, "n_1", "n_2")
        for engine in cluster.engines.values():
            assert [found.name for found in await engine.workflows()] == ["ones"]
    assert {terms.node for terms in told} == {"n_1", "n_2"}


async def test_lone_server_gets_all_slots_at_the_address_that_was_given(cluster: Cluster) -> None:
    url = await cluster.join("n_1")
    cluster.engines["n_1"].peers = [NodeAddress(id="n_1", url="http://nowhere.invalid")]  # as other machines see it
    async with registered(url + "/"):
        await shared_by(cluster, "n_1")


async def test_node_that_joins_is_found_and_gets_its_share_but_no_newest_versions(cluster: Cluster) -> None:
    async with registered(await cluster.join("n_1")):
        await shared_by(cluster, "n_1")
        await cluster.join("n_2")
        await shared_by(cluster, "n_1", "n_2")
        assert await cluster.engines["n_2"].workflows() == []


async def test_worker_goes_on_without_the_server_it_was_given(cluster: Cluster) -> None:
    first = await cluster.join("n_1")
    await cluster.join("n_2")
    async with registered(first):
        await shared_by(cluster, "n_1", "n_2")
        await cluster.die("n_1")
        await shared_by(cluster, "n_2")
        await cluster.join("n_3")
        await shared_by(cluster, "n_2", "n_3")


async def test_node_that_is_gone_is_dropped_and_its_share_goes_to_the_others(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    first = await cluster.join("n_1")
    second = await cluster.join("n_2")
    async with registered(first) as (registration, _):
        await shared_by(cluster, "n_1", "n_2")
        await cluster.die("n_2", noticed=False)
        await until(lambda: f"waiting for the server at {second}" in capfd.readouterr().err, "the worker misses it")
        assert registration.addresses == [first, second]
        cluster.forget("n_2")
        await until(lambda: registration.addresses == [first], "the worker drops the node")
        await shared_by(cluster, "n_1")


async def test_other_server_at_the_address_of_a_node_is_told_nothing(cluster: Cluster) -> None:
    first = await cluster.join("n_1")
    stranger = SmallEngine("n_stranger")
    async with listening(create_app(stranger, Settings())) as url:
        cluster.engines["n_1"].peers.append(NodeAddress(id="n_2", url=url))
        async with registered(first) as (registration, _):
            await until(lambda: registration.addresses == [first, url], "the worker looks there")
            await shared_by(cluster, "n_1")
            assert (await stranger.workers(), await stranger.workflows()) == ([], [])


async def test_farewell_goes_to_every_node(cluster: Cluster) -> None:
    first = await cluster.join("n_1")
    await cluster.join("n_2")
    async with registered(first) as (registration, _):
        await shared_by(cluster, "n_1", "n_2")
    await registration.unregister()
    assert await cluster.shares() == {}


async def test_worker_is_told_how_large_results_may_be(cluster: Cluster) -> None:
    async with registered(await cluster.join("n_1", result_max_bytes=4711)) as (_, told):
        assert told[0].result_max_bytes == 4711
