"""An engine whose database goes away, answers no more, or is cut off in the middle: it says so, and loses nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from starlette.responses import Response

from hopline import Request, Retry, http, workflow
from hopline_engine.store.postgres import store as postgres_store
from hopline_engine.store.postgres.connecting import Connector
from tests.support.postgres import database
from tests.support.proxy import Proxy, proxy_to, through
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.targets import Asked, Target, json, target
from tests.support.waiting import WITHIN, until, until_seen

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

ITEMS = 40
IMPATIENT = partial(Connector, connect_seconds=4.0, command_seconds=4.0)
"""Deadlines for calls on the database: shorter than in production, and longer than a busy machine takes for a query."""


@http(retry=Retry(50, first="20ms", max="200ms"))
def told(x: int, target: str) -> Request[int]:
    """Call the target, which is busy at the first attempt of every third element."""
    return http.post(f"{target}/{x}", json=x)


@http(retry=Retry(50, first="20ms", max="200ms"))
def doubled(x: int, target: str) -> Request[int]:
    """Call it again with what it answered."""
    return http.post(f"{target}/again/{x}", json=x)


@workflow
def many(target: str, xs: list[int]) -> list[int]:
    """Two maps in a pipeline."""
    return doubled.map(told.map(xs, target), target)


async def answer(asked: Asked) -> Response:
    """Answer after a moment, so that there is always something in flight."""
    await asyncio.sleep(0.02)
    number = int(asked.path.rpartition("/")[2])
    if asked.attempt == 1 and number % 3 == 0:
        return json(None, 503)
    return json(2 * number if "again" in asked.path else number)


class Scene(NamedTuple):
    """An engine at work, and the way to its database."""

    engine: RunningEngine
    service: Target
    way: Proxy
    run: str

    async def readiness(self, status: int) -> None:
        """Return when the engine says that it is, or is not, ready; it has to be alive all the time."""

        url = self.engine.url
        async with httpx.AsyncClient(base_url=url, timeout=WITHIN, trust_env=False, verify=False) as client:

            async def look() -> bool:
                assert (await client.get("/healthz")).status_code == 200
                return (await client.get("/readyz")).status_code == status

            await until_seen(look, f"/readyz answers {status}")

    async def at_work(self, more: int = 5) -> None:
        """Return when the target was called some more."""
        seen = len(self.service.asked)
        await until(lambda: len(self.service.asked) >= seen + more, "the target is called")

    async def right_in_the_end(self) -> None:
        """Check that the run ends as it should, and that each attempt was made once and is recorded."""
        ended = await self.engine.client.ended(self.run)
        assert (ended["state"], ended["result"]) == ("succeeded", [2 * x for x in range(ITEMS)])
        asked = Counter((one.path, one.attempt) for one in self.service.asked)
        assert [each for each, times in asked.items() if times > 1] == [], "an attempt was made twice"
        attempts = await self.engine.client.attempts(self.run)
        assert len(attempts) >= len(asked), "an attempt was made that is not recorded"
        succeeded = Counter((one["step"], one["item"]) for one in attempts if one["state"] == "succeeded")
        assert set(succeeded.values()) == {1}, "a step succeeded twice"


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(postgres_store, "open_store", partial(postgres_store.open_store, connector=IMPATIENT))
    async with (
        database() as url,
        target(answer) as service,
        proxy_to(url) as way,
        running_engine(tmp_path, store=through(way, url)) as engine,
    ):
        await engine.register(many)
        run = await engine.client.start("many", {"target": service.url, "xs": list(range(ITEMS))}, key="one")
        yield Scene(engine, service, way, run)


async def gone(scene: Scene) -> None:
    """The server is away for a while, and connections to it are refused."""
    await scene.way.refuse()
    await scene.readiness(503)
    await scene.way.listen()


async def silent(scene: Scene) -> None:
    """The server takes what it is sent and answers nothing; what it would have answered is lost."""
    scene.way.hold_answers()
    await scene.readiness(503)
    scene.way.cut()


async def late(scene: Scene) -> None:
    """As ``silent``, but in the end the answers come after all."""
    scene.way.hold_answers()
    await scene.readiness(503)
    scene.way.pass_answers()


Fault = Callable[[Scene], Awaitable[None]]


@pytest.mark.parametrize("fault", [gone, silent, late])
async def test_trouble_with_the_database_is_noticed_by_its_deadline_told_and_outlived(
    scene: Scene, fault: Fault
) -> None:
    await scene.at_work()
    await fault(scene)
    await scene.readiness(200)
    await scene.right_in_the_end()


async def test_connections_that_are_cut_again_and_again_lose_nothing(scene: Scene) -> None:
    ending, cuts = asyncio.create_task(_ended(scene)), 0
    while not ending.done():
        working = asyncio.create_task(scene.at_work(4))
        await asyncio.wait({ending, working}, return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        scene.way.cut()
        cuts += 1
    await scene.right_in_the_end()
    assert cuts >= 4


@pytest.mark.parametrize("request_of", [b"UPDATE node", b"COMMIT", b"INSERT"], ids=["guard", "commit", "rows"])
async def test_answers_that_are_cut_off_are_looked_up_instead_of_being_done_again(
    scene: Scene, request_of: bytes
) -> None:
    ending = asyncio.create_task(_ended(scene))
    for _ in range(3):
        cutting = asyncio.create_task(scene.way.cut_after(request_of))
        await asyncio.wait({cutting, ending}, return_when=asyncio.FIRST_COMPLETED)
        cutting.cancel()
    await ending
    await scene.right_in_the_end()


async def _ended(scene: Scene) -> None:
    await scene.engine.client.ended(scene.run)
