"""Runs followed as server-sent events: what is sent, at what pace, and that nothing is left behind."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import httpx
import pytest

from hopline_engine.api import events
from hopline_engine.api.events import EventStream
from hopline_engine.api.interface import RunChange
from hopline_engine.api.models import RunDetail
from hopline_engine.core.model import RunState, StepState
from tests.api.conftest import DEADLINE, start, until
from tests.api.small_engine import SmallEngine, plain

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def following(client: httpx.AsyncClient, run: str) -> AsyncIterator[AsyncGenerator[tuple[str, Any], None]]:
    """Follow a run; yield its events as (name, data)."""
    async with asyncio.timeout(DEADLINE), client.stream("GET", f"/api/v1/runs/{run}/events") as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        assert "content-length" not in response.headers
        yield read_events(response)


async def read_events(response: httpx.Response) -> AsyncGenerator[tuple[str, Any], None]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        if line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def test_stream_begins_with_a_snapshot_and_ends_with_the_final_run(
    server: httpx.AsyncClient, engine: SmallEngine
) -> None:
    run = await start(server)
    async with following(server, run) as received:
        name, snapshot = await anext(received)
        assert (name, snapshot) == ("snapshot", (await server.get(f"/api/v1/runs/{run}")).json())
        await engine.move(run, "load", StepState.RUNNING)
        name, step = await anext(received)
        assert (name, step["id"], step["state"]) == ("step", "load", "running")
        name, changed = await anext(received)
        assert (name, changed["state"], "steps" in changed) == ("run", "running", False)
        await engine.end(run, RunState.SUCCEEDED, 12)
        ((name, last),) = [event async for event in received]
        assert (name, last["state"], last["result"]) == ("run", "succeeded", 12)
    await until(lambda: engine.subscribers == 0)


async def test_run_that_has_ended_is_told_at_once(server: httpx.AsyncClient, engine: SmallEngine) -> None:
    run = await start(server)
    await engine.end(run, RunState.FAILED)
    async with following(server, run) as received:
        told = [event async for event in received]
    assert [name for name, _ in told] == ["snapshot", "run"]
    snapshot, last = (data for _, data in told)
    assert {**last, "steps": snapshot["steps"]} == snapshot


async def test_client_that_goes_away_leaves_nothing_behind(server: httpx.AsyncClient, engine: SmallEngine) -> None:
    run = await start(server)
    before = len(asyncio.all_tasks())
    async with following(server, run) as received:
        await anext(received)
        assert engine.subscribers == 1
    await until(lambda: engine.subscribers == 0 and len(asyncio.all_tasks()) <= before)


async def test_many_changes_are_gathered_into_few_batches(server: httpx.AsyncClient, engine: SmallEngine) -> None:
    run = await start(server)
    async with following(server, run) as received:
        await anext(received)
        began = asyncio.get_running_loop().time()
        for _ in range(1000):
            await engine.move(run, "load", StepState.RUNNING)
            await asyncio.sleep(0)
        await engine.move(run, "charge", StepState.SUCCEEDED)
        await engine.end(run, RunState.SUCCEEDED)
        told = [event async for event in received]
        seconds = asyncio.get_running_loop().time() - began
    batches = [data for name, data in told if name == "run"]
    assert len(batches) <= 2 + seconds / events.BATCH_SECONDS
    assert told[-1][1]["state"] == "succeeded"
    assert [data["state"] for name, data in told if name == "step" and data["id"] == "charge"] == ["succeeded"]


class Wire:
    """The server's side of one connection, on which the client takes so many messages."""

    def __init__(self, takes: float = inf) -> None:
        self._takes = takes
        self.sent: list[bytes] = []
        self.is_over = False
        self.gone = asyncio.Event()

    async def send(self, message: Any) -> None:
        if len(self.sent) == self._takes:
            await asyncio.Event().wait()
        self.sent.append(message.get("body", b""))
        self.is_over = message.get("more_body") is False

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}


class Changes:
    """A subscription of which a test decides what it yields and sees whether it was closed."""

    def __init__(self, *items: RunDetail | RunChange) -> None:
        self.items = items
        self.is_closed = False

    async def follow(self) -> AsyncGenerator[RunDetail | RunChange, None]:
        try:
            for item in self.items:
                yield item
            await asyncio.Event().wait()
        finally:
            self.is_closed = True


@pytest.fixture
async def snapshot(client: httpx.AsyncClient, engine: SmallEngine) -> RunDetail:
    return await engine.run_detail(await start(client))


async def test_quiet_stream_is_kept_alive(snapshot: RunDetail) -> None:
    wire, changes = Wire(), Changes(snapshot)
    stream = asyncio.create_task(EventStream(changes.follow(), 0.001)({}, wire.receive, wire.send))
    await until(lambda: wire.sent.count(b": keep-alive\n\n") >= 3)
    wire.gone.set()
    await stream
    assert changes.is_closed
    assert not wire.is_over


async def test_client_that_takes_nothing_is_dropped(snapshot: RunDetail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SEND_SECONDS", 0.01)
    for changes, keep_alive_seconds, taken in ((Changes(snapshot), 15, 1), (Changes(snapshot), 0.001, 2)):
        wire = Wire(takes=taken)
        async with asyncio.timeout(DEADLINE):
            await EventStream(changes.follow(), keep_alive_seconds)({}, wire.receive, wire.send)
        assert len(wire.sent) == taken
        assert changes.is_closed
        assert not wire.is_over


async def test_stream_that_is_cancelled_closes_its_subscription(snapshot: RunDetail) -> None:
    wire, changes = Wire(), Changes(snapshot)
    stream = asyncio.create_task(EventStream(changes.follow())({}, wire.receive, wire.send))
    await until(lambda: len(wire.sent) == 2)
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream
    assert changes.is_closed


async def test_engine_that_stops_ends_the_stream_in_order(snapshot: RunDetail) -> None:
    async def stopping() -> AsyncGenerator[RunDetail | RunChange, None]:
        yield snapshot
        yield RunChange(run=plain(snapshot))

    wire = Wire()
    await EventStream(stopping())({}, wire.receive, wire.send)
    assert wire.is_over
    assert len(wire.sent) == 4
