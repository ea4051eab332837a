"""Steps that wait, in a whole engine on each kind of store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hopline import sleep, workflow
from hopline_engine.clock import SystemClock
from tests.support.running_engine import RunningEngine, running_engine

pytestmark = pytest.mark.anyio


@workflow
def naps() -> Any:
    return sleep.after(sleep("10ms"))("10ms")


@workflow
def sleeps(until: str) -> Any:
    return sleep(until)


async def test_sleeps_one_after_the_other_end(engine: RunningEngine) -> None:
    await engine.register(naps)
    run = await engine.client.start("naps")
    ended = await engine.client.ended(run)
    assert [(step["id"], step["state"], step["attempts"]) for step in ended["steps"]] == [
        ("sleep", "succeeded", 0),
        ("sleep_2", "succeeded", 0),
    ]


async def test_long_sleep_says_until_when_and_can_be_cancelled(engine: RunningEngine) -> None:
    await engine.register(sleeps)
    run = await engine.client.start("sleeps", {"until": "2400-01-31"})
    (reason,) = (await engine.client.ask("GET", f"/runs/{run}/why"))["reasons"]
    assert reason["reason"] == "sleeping"
    assert reason["text"].startswith("sleep sleeps until 2400-01-31 00:00 UTC (in ")
    (step,) = (await engine.client.ask("GET", f"/runs/{run}"))["steps"]
    assert (step["kind"], step["state"], step["next_at"]) == ("sleep", "waiting", "2400-01-31T00:00:00.000Z")
    assert await engine.client.cancel(run)


async def test_sleep_survives_a_restart(tmp_path: Path, store: str) -> None:
    wakes_at = datetime.fromtimestamp(SystemClock().now(), UTC) + timedelta(seconds=2)
    async with running_engine(tmp_path, store=store) as engine:
        await engine.register(sleeps)
        run = await engine.client.start("sleeps", {"until": wakes_at.isoformat()})
    async with running_engine(tmp_path, store=store) as engine:
        ended = await engine.client.ended(run)
    assert ended["state"] == "succeeded"
    assert datetime.fromisoformat(ended["ended_at"]) >= wakes_at - timedelta(milliseconds=2)
