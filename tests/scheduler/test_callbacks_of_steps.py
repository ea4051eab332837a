"""Steps whose results come by callback: HTTP steps, and Python steps that defer."""

import json as plain_json
import re
from datetime import datetime
from pathlib import Path

import pytest

from hopline import Request, http, workflow
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.targets import json, target
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio

FARM = """
import json
from pathlib import Path

from hopline import Pending, context, defer, step, workflow


@step(deadline="1h")
def render(url: str, order: str) -> Pending[int]:
    here = context()
    Path(order).write_text(json.dumps([here.callback_url, here.callback_token]))
    return defer()


@step
def show(frames: int) -> str:
    return f"{frames} frames"


@workflow
def film(url: str, order: str) -> str:
    return show(render(url, order))
"""


@http(callback=True, deadline="1h")
def charged(url: str) -> Request[int]:
    return http.post(url, json="x")


@http(callback=True)
def charged_soon(url: str) -> Request[int]:
    return http.post(url, json="x")


@workflow
def charge(url: str) -> int:
    return charged(url)


@workflow
def charge_soon(url: str) -> int:
    return charged_soon(url)


async def test_any_answer_of_success_is_no_result_where_a_callback_is_expected(engine: RunningEngine) -> None:
    async with target(lambda _: json({"status": "queued"}, 200)) as gateway:
        await engine.register(charge)
        run = await engine.client.start("charge", {"url": gateway.url})
        await engine.client.step_in(run, "charged", "waiting")
        (asked,) = gateway.asked
        assert (await asked.call_back({"result": 12})).json() == {"outcome": "applied"}
        assert (await engine.client.ended(run))["result"] == 12


async def test_heartbeat_lets_a_step_be_waited_for_longer(engine: RunningEngine) -> None:
    async with target(lambda _: json(None, 202)) as gateway:
        await engine.register(charge)
        run = await engine.client.start("charge", {"url": gateway.url})
        before = await engine.client.step_in(run, "charged", "waiting")
        (asked,) = gateway.asked
        assert (await asked.call_back({"heartbeat": 1.0})).json()["outcome"] == "applied"
        assert (await engine.client.step(run, "charged"))["next_at"] == before["next_at"], "it is never shortened"
        taken = (await asked.call_back({"heartbeat": 86_400, "progress": "3 of 7"})).json()
        after = await engine.client.step(run, "charged")
        assert (taken["outcome"], taken["until"][:16]) == ("applied", after["next_at"][:16])
        assert after["note"].endswith(" ago: 3 of 7")
        longer = datetime.fromisoformat(after["next_at"]) - datetime.fromisoformat(before["next_at"])
        assert 86_000 - 3600 < longer.total_seconds() <= 86_400 - 3600 + 60
        assert (await asked.call_back({"heartbeat": 5}, token=b"x")).status_code == 401
        assert (await asked.call_back({"result": 1})).json() == {"outcome": "applied"}
        assert (await asked.call_back({"heartbeat": 5})).status_code == 410


async def test_step_that_was_extended_ends_by_its_new_time(tmp_path: Path) -> None:
    async with (
        target(lambda _: json(None, 202)) as gateway,
        running_engine(tmp_path, accepted_timeout_seconds=1.0) as engine,
    ):
        await engine.register(charge_soon)
        run = await engine.client.start("charge_soon", {"url": gateway.url})
        await engine.client.step_in(run, "charged_soon", "waiting")
        assert (await gateway.asked[0].call_back({"heartbeat": 2.5})).status_code == 200
        ended = await engine.client.ended(run)
        assert ended["error"]["type"] == "TimeoutError"
        (attempt,) = await engine.client.attempts(run)
        lasted = datetime.fromisoformat(attempt["ended_at"]) - datetime.fromisoformat(attempt["started_at"])
        assert lasted.total_seconds() >= 2.5


async def test_python_step_that_defers_has_its_result_by_callback(tmp_path: Path) -> None:
    (farm := tmp_path / "farm.py").write_text(FARM)
    order = tmp_path / "order.json"
    async with running_engine(tmp_path, farm) as engine:
        run = await engine.client.start("film", {"url": "a.mov", "order": str(order)})
        await engine.client.step_in(run, "render", "waiting")
        url, token = plain_json.loads(await until(lambda: order.read_text() if order.exists() else None, "the order"))
        headers = {"Hopline-Callback-Token": token}
        wrong = await engine.client.http.post(url, json={"result": "many"}, headers=headers)
        assert wrong.status_code == 422, "it is checked against the declared type"
        assert wrong.json()["error"]["message"] == "render: 'many' is not of type 'integer'"
        assert (await engine.client.http.post(url, json={"result": 24}, headers=headers)).status_code == 200
        assert (await engine.client.ended(run))["result"] == "24 frames"


WATCHED = """
from pathlib import Path

from hopline import sensor, workflow


@sensor(every="200ms", timeout="1m")
def arrived(path: str) -> str | None:
    Path(path + ".looks").open("a").write("x")
    return Path(path).read_text() if Path(path).exists() else None


@sensor(every="100ms", timeout="300ms")
def arrived_soon(path: str) -> str | None:
    return None


@workflow
def watch(path: str) -> str:
    return arrived(path)


@workflow
def watch_briefly(path: str) -> str:
    return arrived_soon(path)
"""


async def test_sensor_looks_until_it_finds(tmp_path: Path) -> None:
    (file := tmp_path / "watched.py").write_text(WATCHED)
    parcel, looks = tmp_path / "parcel", tmp_path / "parcel.looks"
    async with running_engine(tmp_path, file) as engine:
        run = await engine.client.start("watch", {"path": str(parcel)})
        await until(lambda: looks.exists() and len(looks.read_text()) >= 3, "it looks again and again")
        begun = await engine.client.step_in(run, "arrived", "scheduled")

        async def polls() -> bool:
            (reason,) = (await engine.client.ask("GET", f"/runs/{run}/why"))["reasons"]
            return bool(reason["reason"] == "polling")

        await until_seen(polls, "it says that it looks again")
        waits = await engine.client.step_in(run, "arrived", "scheduled")
        assert re.match(r"has found nothing for [\d.]+ s and looks every 0.2 s, next at ", waits["note"])
        assert waits["started_at"] == begun["started_at"], "it began with its first look"
        parcel.write_text("lamp")
        ended = await engine.client.ended(run)
        assert (ended["result"], ended["steps"][0]["attempts"]) == ("lamp", 1)
        briefly = await engine.client.ended(await engine.client.start("watch_briefly", {"path": str(parcel)}))
        assert briefly["error"]["message"] == "it found nothing within 0.3 s"
