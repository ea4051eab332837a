"""Heartbeats of running steps for real: a worker in a process of its own, and its engine."""

import asyncio
from pathlib import Path

import pytest
from starlette.responses import Response

from hopline import Request, http, workflow
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.targets import json, target
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio

LONG = """
import time
from pathlib import Path

from hopline import context, step, workflow


@step(timeout="5s")
def copy(seconds: float) -> int:
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        context().heartbeat("copied a part")
        time.sleep(0.05)
    return context().attempt


@step(timeout="2s")
def hangs(mark: str) -> None:
    context().heartbeat("begins to hang")
    while not context().cancelled:
        time.sleep(0.05)
    try:
        context().heartbeat()
    except BaseException as error:
        Path(mark).write_text(type(error).__name__)
        raise


@step
def listens(mark: str) -> None:
    try:
        while True:
            context().heartbeat()
            time.sleep(0.05)
    except BaseException as error:
        Path(mark).write_text(type(error).__name__)
        raise


@workflow
def copying(seconds: float) -> int:
    return copy(seconds)


@workflow
def hanging(mark: str) -> None:
    hangs(mark)


@workflow
def listening(mark: str) -> None:
    listens(mark)
"""


async def test_sync_step_that_sends_heartbeats_runs_past_its_timeout_and_says_how_far_it_is(tmp_path: Path) -> None:
    (file := tmp_path / "long.py").write_text(LONG)
    async with running_engine(tmp_path, file) as engine:
        run = await engine.client.start("copying", {"seconds": 6})

        async def heard() -> str | None:
            (reason,) = (await engine.client.ask("GET", f"/runs/{run}/why"))["reasons"]
            return reason["text"] if "heard of" in reason["text"] else None

        text = await until_seen(heard, "the heartbeat is shown")
        assert text.startswith("copy is running for ")
        assert text.endswith(" s ago: copied a part")
        assert (await engine.client.ended(run))["result"] == 1


async def test_cancelled_sync_step_is_told_by_its_next_heartbeat(tmp_path: Path) -> None:
    (file := tmp_path / "long.py").write_text(LONG)
    mark = tmp_path / "told"
    async with running_engine(tmp_path, file) as engine:
        run = await engine.client.start("listening", {"mark": str(mark)})
        await engine.client.step_in(run, "listens", "running")
        await engine.client.cancel(run)
        assert await until(lambda: mark.read_text() if mark.exists() else None, "it is told") == "CancelledError"


async def test_step_that_hangs_after_a_heartbeat_is_given_up_and_told_when_it_wakes(tmp_path: Path) -> None:
    (file := tmp_path / "long.py").write_text(LONG)
    mark = tmp_path / "told"
    async with running_engine(tmp_path, file) as engine:
        ended = await engine.client.ended(await engine.client.start("hanging", {"mark": str(mark)}))
        assert ended["error"]["message"].startswith("no heartbeat and no result for 2 s")
        assert await until(lambda: mark.read_text() if mark.exists() else None, "it is told") == "CancelledError"


@http(timeout="5s")
def held(url: str) -> Request[int]:
    return http.post(url)


@workflow
def holding(url: str) -> int:
    return held(url)


async def test_target_that_holds_its_request_open_may_send_heartbeats_too(engine: RunningEngine) -> None:
    is_heard = asyncio.Event()

    async def slow() -> Response:
        await is_heard.wait()
        await asyncio.sleep(5.2)  # longer than the timeout
        return json(7)

    async with target(lambda _: slow()) as service:
        await engine.register(holding)
        run = await engine.client.start("holding", {"url": service.url})
        await until(lambda: service.asked, "the request is out")
        early = await service.asked[0].call_back({"result": 3})
        assert (early.status_code, early.json()["error"]["message"]) == (503, "the attempt has not been accepted yet")
        assert (await service.asked[0].call_back({"heartbeat": 30, "progress": "x" * 1001})).status_code == 422
        assert (await service.asked[0].call_back({"result": 3, "progress": "half"})).status_code == 422
        assert (await service.asked[0].call_back({"heartbeat": 30, "progress": "half"})).status_code == 200
        is_heard.set()
        assert (await engine.client.ended(run))["result"] == 7
