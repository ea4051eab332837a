"""Results that no store can hold, workers that cannot be called, and where targets call back."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hopline import Request, http, workflow
from hopline_engine.queue.dispatcher import LONGEST_KEPT_URL, _endpoint, _kept_endpoint
from tests.core.worlds import definition, step
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.targets import accepted, target
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio

STEPS = """
from typing import Any
from hopline import step, workflow

@step
def long_number() -> int:
    return 10**4400

@step
def nested() -> Any:
    value: Any = 1
    for _ in range(100):
        value = [value]
    return value

@workflow
def count() -> int:
    return long_number()

@workflow
def nest() -> Any:
    return nested()
"""


@pytest.mark.parametrize("name", ["count", "nest"])
async def test_result_of_a_step_that_could_not_be_read_back_fails_it_once(tmp_path: Path, name: str) -> None:
    file = tmp_path / "steps.py"
    file.write_text(STEPS)
    async with running_engine(tmp_path, file) as engine:
        ended = await engine.client.ended(await engine.client.start(name))
        assert ended["state"] == "failed"
        assert "cannot be stored" in ended["error"]["message"]
        assert len(await engine.client.attempts(ended["id"])) == 1


async def test_worker_whose_address_is_none_costs_no_attempt(engine: RunningEngine) -> None:
    body = {"definitions": [definition("w", [step("work")])], "current": ["w"]}
    await engine.client.ask("POST", "/definitions", json=body)
    worker = {
        "url": "http://127.0.0.1:99999999",
        "token": "t",
        "concurrency": 1,
        "steps": [{"name": "work", "signature": "s"}],
    }
    await engine.client.ask("PUT", "/workers/w_1", json=worker)
    run = await engine.client.start("w")

    async def is_gone() -> bool:
        return not (await engine.client.ask("GET", "/workers"))["workers"]

    await until_seen(is_gone, "the worker is dropped")
    assert await engine.client.attempts(run) == []
    (reason,) = (await engine.client.ask("GET", f"/runs/{run}/why"))["reasons"]
    assert reason["reason"] == "no_worker"


@http
def ask(shop: str, url: str) -> Request[int]:
    return http.post(url, json=shop)


@workflow
def ask_all(url: str) -> list[int]:
    return ask.map(["Kiel", "Bonn"], url=url)


async def test_address_for_the_callback_of_an_element_is_a_valid_url(engine: RunningEngine) -> None:
    await engine.register(ask_all)
    async with target(accepted) as service:
        run = await engine.client.start("ask_all", {"url": service.url})
        await until(lambda: len(service.asked) == 2, "both elements are sent")
        paths = {urlsplit(asked.headers["Hopline-Callback-Url"]).path for asked in service.asked}
        assert paths == {f"/api/v1/callbacks/{run}/1/ask%5B{item}%5D" for item in (0, 1)}
        for asked in service.asked:

            async def is_taken() -> bool:
                return (await asked.call_back({"result": 1})).status_code == 200  # noqa: B023

            await until_seen(is_taken, "the callback is applied")
        assert (await engine.client.ended(run))["result"] == [1, 1]


def test_urls_that_carry_data_are_not_kept() -> None:
    _kept_endpoint.cache_clear()
    _endpoint("GET", "http://service.example/a")
    _endpoint("GET", "http://service.example/" + "a" * LONGEST_KEPT_URL)
    assert _kept_endpoint.cache_info().currsize == 1
