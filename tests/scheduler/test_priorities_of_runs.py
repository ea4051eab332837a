"""``hopline run --priority``: a run that is urgent, or is not, with all its steps and the runs below it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hopline import Queue, Request, http, workflow
from hopline_engine.testing import Engine, Run
from tests.support.running_engine import RunningEngine
from tests.support.targets import json, target

one_lane = Queue("one-lane", max_concurrent=1)


@http(queue=one_lane)
def ask(url: str, name: str) -> Request[int]:
    return http.post(f"{url}/{name}")


@http(queue=one_lane, priority=2)
def ask_first(url: str, name: str) -> Request[int]:
    return http.post(f"{url}/{name}")


@workflow
def plain(url: str, name: str) -> int:
    return ask(url, name)


@workflow
def pressing(url: str, name: str) -> int:
    return ask_first(url, name)


@workflow
def above(url: str, name: str) -> int:
    return plain(url, name)


async def start(engine: RunningEngine, workflow: str, url: str, name: str, priority: int = 0) -> str:
    asked = {"workflow": workflow, "input": {"url": url, "name": name}, "priority": priority}
    run: str = (await engine.client.ask("POST", "/runs", json=asked))["id"]
    return run


@pytest.mark.anyio
async def test_steps_go_by_the_priority_of_their_run_added_to_their_own(engine: RunningEngine) -> None:
    await engine.register(plain, pressing, above)
    async with target(lambda _: json(1)) as service:
        await engine.client.ask("POST", "/queues/one-lane/pause")
        started = [
            await start(engine, workflow, service.url, name, priority)
            for workflow, name, priority in (
                ("plain", "no-hurry", -3),
                ("plain", "as-ever", 0),
                ("pressing", "pressing", 0),
                ("above", "below-an-urgent-one", 3),
                ("pressing", "most-pressing", 5),
            )
        ]
        await engine.client.ask("POST", "/queues/one-lane/resume")
        runs = [await engine.client.ended(run) for run in started]
    assert [run["state"] for run in runs] == ["succeeded"] * 5
    assert [run["priority"] for run in runs] == [-3, 0, 0, 3, 5]
    assert [asked.path for asked in service.asked] == [
        "/most-pressing",
        "/below-an-urgent-one",
        "/pressing",
        "/as-ever",
        "/no-hurry",
    ]
    (below,) = (await engine.client.ask("GET", "/runs", params={"parent": started[3]}))["runs"]
    assert below["priority"] == 3


@pytest.mark.anyio
@pytest.mark.parametrize("priority", [6, -6, 1.5, "2"])
async def test_priority_that_is_none_is_refused(engine: RunningEngine, priority: object) -> None:
    await engine.register(plain)
    given = {"workflow": "plain", "input": {"url": "http://127.0.0.1:9", "name": "x"}, "priority": priority}
    answer = await engine.client.http.post("/runs", json=given)
    assert (answer.status_code, "priority" in answer.json()["error"]["message"]) == (422, True)


# --- over deaths of the engine ----------------------------------------------------------------------------------------

PAY = "https://pay.example.com"


@pytest.fixture
def virtual(tmp_path: Path) -> Iterator[Engine]:
    opened = Engine(tmp_path)
    yield opened
    opened.close()


def begin(engine: Engine, name: str, priority: int) -> Run[Any]:
    started = engine.ask(lambda service: service.start_run("above", {"url": PAY, "name": name}, None, priority))
    return Run(engine, started.run.id, above)


def test_priority_of_a_run_outlasts_a_crash_and_goes_on_in_a_retry(virtual: Engine) -> None:
    virtual.register(above)
    assert virtual.ask(lambda service: service.queue("one-lane")).max_concurrent_dispatches == 1, "it is of a child"
    pay = virtual.server(PAY)
    pay.post("/held").reply(202)
    pay.post("/*").reply(400)
    virtual.ask(lambda service: service.pause_queue("one-lane"))
    first, second = begin(virtual, "later", -1), begin(virtual, "sooner", 4)
    virtual.crash()
    virtual.ask(lambda service: service.resume_queue("one-lane"))
    virtual.settle()
    assert [sent.path for sent in pay.requests] == ["/sooner", "/later"]
    assert (first.state, second.state) == ("failed", "failed")
    again = virtual.ask(lambda service: service.retry_run(second.id, []))
    assert again.priority == 4
