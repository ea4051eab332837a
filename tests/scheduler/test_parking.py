"""Runs that only wait leave memory, and come back when something happens to them; on each kind of store."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hopline import Event, approval, sleep, workflow
from hopline_engine.bootstrap import open_engine
from hopline_engine.clock import DatabaseClock, SystemClock
from hopline_engine.core.names import run_id
from hopline_engine.scheduler.engine import Engine
from hopline_engine.scheduler.parking import LEAD_SECONDS
from hopline_engine.settings import Settings
from hopline_engine.store import parked
from tests.support.client import Client
from tests.support.running_engine import RunningEngine
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio

happened = Event("happened", str)


@workflow
def sleeps(until: str) -> Any:
    return sleep(until)


@workflow
def waits(key: str) -> str:
    return happened.wait(key=key)


@workflow(deadline="1h")
def waits_an_hour(key: str) -> str:
    return happened.wait(key=key)


@workflow
def above(key: str) -> str:
    return waits(key)


@workflow
def asks() -> bool:
    return approval("Go?").approved


At = Callable[[float], None]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> At:
    """Stops the clock of engines at a time."""

    def stop(time: float) -> None:
        monkeypatch.setattr(DatabaseClock, "now", lambda _: time)

    return stop


@asynccontextmanager
async def opened(folder: Path, store: str) -> AsyncIterator[tuple[RunningEngine, Engine]]:
    """Run an engine that parks soon."""
    settings = Settings.load(state_dir=folder / ".hopline", store=store, park_seconds=0.1, audit_seconds=0.5)
    async with open_engine(settings) as installation:
        url = await installation.serve(0)
        engine = installation.app.state.engine._engine
        engine.coordinator.timers.longest_seconds = 0.1  # tests set the clock
        async with Client(url) as client:
            await client.ask("GET", "/health")
            running = RunningEngine(url=url, client=client, worker=None)
            await running.register(sleeps, waits, waits_an_hour, above, asks)
            yield running, engine
        assert engine.reconciler.healed == {}


async def until_parked(engine: Engine, count: int = 1) -> None:
    async def look() -> bool:
        return not engine.coordinator.runs and await engine.store.read(parked.count) == count

    await until_seen(look, "the runs are parked")
    assert len(engine.coordinator.timers) == 0, "a timer would keep a run in memory"


async def test_parked_run_fails_at_its_deadline(tmp_path: Path, store: str, at: At) -> None:
    async with opened(tmp_path, store) as (running, engine):
        run = await running.client.start("waits_an_hour", {"key": "k"})
        await until_parked(engine)
        (listed,) = (await running.client.ask("GET", "/runs"))["runs"]
        deadline = datetime.fromisoformat(listed["created_at"]).timestamp() + 3600
        ended = await ended_at(deadline, engine, running, run, at)
    assert (ended["state"], ended["error"]["type"]) == ("failed", "DeadlineExceeded")


async def test_parked_sleep_ends_in_time(tmp_path: Path, store: str, at: At) -> None:
    async with opened(tmp_path, store) as (running, engine):
        wakes_at = datetime.fromtimestamp(SystemClock().now(), UTC) + timedelta(hours=1)
        run = await running.client.start("sleeps", {"until": wakes_at.isoformat()})
        await until_parked(engine)
        ended = await ended_at(wakes_at.timestamp(), engine, running, run, at)
    assert ended["state"] == "succeeded"


async def ended_at(then: float, engine: Engine, running: RunningEngine, run: str, at: At) -> dict[str, Any]:
    """Return a run that is parked once it has ended; it is to be awake shortly before *then*, and to end then."""
    at(then - LEAD_SECONDS / 2)
    engine.parking.look_again()
    await until(lambda: engine.coordinator.runs or None, "the run is awake")  # looking at the run would wake it
    at(then + 0.01)
    ended = await running.client.ended(run)
    assert abs(datetime.fromisoformat(ended["ended_at"]).timestamp() - then) < 0.02
    return ended


async def test_event_wakes_the_run_and_those_above_it(tmp_path: Path, store: str) -> None:
    async with opened(tmp_path, store) as (running, engine):
        run = await running.client.start("above", {"key": "k"})
        await until_parked(engine, 2)
        await running.client.ask("POST", "/events", json={"name": "happened", "key": "k", "payload": "yes"})
        assert (await running.client.ended(run))["result"] == "yes"
        assert await engine.store.read(parked.count) == 0


async def test_parked_run_can_be_looked_at_decided_and_cancelled(tmp_path: Path, store: str) -> None:
    async with opened(tmp_path, store) as (running, engine):
        run = await running.client.start("asks")
        other = await running.client.start("waits", {"key": "k"})
        await until_parked(engine, 2)
        listed = (await running.client.ask("GET", "/runs"))["runs"]
        assert [(one["state"], one["steps_done"]) for one in listed] == [("running", 0)] * 2
        assert not engine.coordinator.runs, "a list wakes nobody"
        (reason,) = (await running.client.ask("GET", f"/runs/{run}/why"))["reasons"]
        assert reason["reason"] == "waiting_for_approval"
        await until_parked(engine, 2)
        await running.client.ask("POST", f"/approvals/{run}/approval", json={"approved": True, "by": "Ada"})
        assert (await running.client.ended(run))["result"] is True
        assert await running.client.cancel(other)
        assert await engine.store.read(parked.count) == 0


async def test_run_that_was_just_asked_for_is_not_parked_before_it_was_looked_at(tmp_path: Path, store: str) -> None:
    async with opened(tmp_path, store) as (running, engine):
        run = run_id(await running.client.start("waits", {"key": "k"}))
        assert run is not None
        await until_parked(engine)
        for is_there in (True, False):
            engine.parking._park_at = math.inf
            if is_there:
                await engine.parking.wake(run)
            engine.parking._park_at = 0.0
            await engine.parking._look()
            assert (run in engine.coordinator.runs) is is_there


async def test_parked_run_is_there_after_a_restart(tmp_path: Path, store: str) -> None:
    async with opened(tmp_path, store) as (running, engine):
        run = await running.client.start("waits", {"key": "k"})
        await until_parked(engine)
    async with opened(tmp_path, store) as (running, engine):
        assert not engine.coordinator.runs, "it costs a start nothing"
        await running.client.ask("POST", "/events", json={"name": "happened", "key": "k", "payload": "yes"})
        assert (await running.client.ended(run))["result"] == "yes"


async def test_audits_find_nothing_wrong_with_parked_runs(tmp_path: Path, store: str) -> None:
    async with opened(tmp_path, store) as (running, engine):
        await running.client.start("above", {"key": "k"})
        await until_parked(engine, 2)
        findings = [finding for finding in await engine.reconciler.look() if await engine.reconciler.is_so(finding)]
        assert findings == []
        doctor = await running.client.ask("GET", "/doctor")
        assert [check for check in doctor["checks"] if check["state"] == "wrong"] == []
