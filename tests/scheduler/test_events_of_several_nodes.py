"""Events on several servers: whoever takes one in, each wait ends once, and each key starts one run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from hopline import Event, workflow
from tests.support.postgres import database
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.waiting import until_seen

pytestmark = pytest.mark.anyio

happened = Event("happened", str)
KEYS = [f"k{number}" for number in range(12)]


@workflow
def waits(key: str) -> str:
    return happened.wait(key=key)


@workflow(on=happened)
def begun(said: str) -> str:
    return said


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[RunningEngine]]:
    """Return two engines on one database, each with half of the runs, which leave memory soon."""
    async with database() as store, AsyncExitStack() as stack:
        settings: dict[str, Any] = {"store": store, "node_silence_seconds": 2.0, "park_seconds": 0.3}
        made = [await stack.enter_async_context(running_engine(tmp_path / name, **settings)) for name in ("a", "b")]

        async def are_equal() -> bool:
            found = (await made[0].client.ask("GET", "/nodes"))["nodes"]
            return [node["shards"] for node in found] == [32, 32]

        await until_seen(are_equal, "both hold half of the shards")
        await made[0].register(waits, begun)
        yield made


async def emit(node: RunningEngine, key: str) -> dict[str, Any]:
    event = {"name": "happened", "key": key, "payload": f"said {key}"}
    return await node.client.ask("POST", "/events", json=event)


async def knows(node: RunningEngine) -> bool:
    names = {found["name"] for found in (await node.client.ask("GET", "/workflows"))["workflows"]}
    return {"waits", "begun"} <= names


async def test_each_wait_ends_and_each_key_starts_one_run_whichever_node_is_told(nodes: list[RunningEngine]) -> None:
    for node in nodes:

        async def look(node: RunningEngine = node) -> bool:
            return await knows(node)

        await until_seen(look, "it knows the workflows")
    runs = {key: await nodes[place % 2].client.start("waits", {"key": key}) for place, key in enumerate(KEYS)}
    emitted = await asyncio.gather(*(emit(node, key) for key in KEYS for node in nodes))
    assert sum(each["created"] for each in emitted) == len(KEYS)
    started = [run for each in emitted for run in each["runs"]]
    assert len(started) == len(set(started)) == len(KEYS)
    for place, (key, run) in enumerate(runs.items()):
        ended = await nodes[(place + 1) % 2].client.ended(run)
        assert ended["result"] == f"said {key}"
    for run in started:
        assert (await nodes[0].client.ended(run))["state"] == "succeeded"
