"""What is tried again, how often in all, and when the deadline of a step ends it, through the whole engine."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from hopline import Queue, Request, Retry, http, workflow
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.targets import Asked, accepted, json, target
from tests.support.waiting import until, until_seen
from tests.worker.users_files import write

pytestmark = pytest.mark.anyio


@http(retry=Retry(5, first="10ms", jitter="none", on=(409, range(500, 503))))
def picky(url: str) -> Request[int]:
    return http.post(url)


@http(retry=Retry(3, first="10ms", jitter="none"))
def tried(url: str) -> Request[int]:
    return http.post(url)


@http(deadline="500ms", queue=Queue("closed"))
def queued(url: str) -> Request[int]:
    return http.post(url)


@http(retry=Retry(9, first="1h", jitter="none"), deadline="500ms")
def resting(url: str) -> Request[int]:
    return http.post(url)


@workflow
def pick(url: str) -> int:
    return picky(url)


@workflow
def try_it(url: str) -> int:
    return tried(url)


@workflow
def stand_in_line(url: str) -> int:
    return queued(url)


@workflow
def stand_in_line_later(url: str) -> int:
    return queued.after(tried(url))(url)


@workflow
def rest(url: str) -> int:
    return resting(url)


ALL = (pick, try_it, stand_in_line, stand_in_line_later, rest)


@pytest.mark.parametrize(("status", "attempts"), [(409, 5), (500, 5), (502, 5), (503, 1), (400, 1), (429, 1)])
async def test_policy_that_names_statuses_and_ranges_tries_these_again_and_no_others(
    tmp_path: Path, status: int, attempts: int
) -> None:
    async with running_engine(tmp_path) as engine, target(lambda _: json(None, status)) as service:
        await engine.register(*ALL)
        run = await engine.client.ended(await engine.client.start("pick", {"url": service.url}))
        assert (run["state"], service.attempts) == ("failed", list(range(1, attempts + 1)))


PYTHON = """
    from hopline import Retry, step, workflow

    again = Retry(3, first="10ms", jitter="none", on=(ConnectionError,))

    @step(retry=again)
    def refused() -> None:
        raise ConnectionRefusedError("a subclass of what is named")

    @step(retry=again)
    def wrong() -> None:
        raise ValueError("not named")

    @workflow
    def connects() -> None:
        refused()

    @workflow
    def mistakes() -> None:
        wrong()
"""


async def test_policy_that_names_an_exception_tries_its_subclasses_again_and_no_others(tmp_path: Path) -> None:
    async with running_engine(tmp_path, write(tmp_path, "wf.py", PYTHON)) as engine:
        for workflow_name, step_name, attempts in (("connects", "refused", 3), ("mistakes", "wrong", 1)):
            run = await engine.client.ended(await engine.client.start(workflow_name))
            assert await engine.client.states(run["id"], step_name) == ["failed"] * attempts


async def test_attempts_that_were_made_before_a_restart_count_after_it(tmp_path: Path) -> None:
    may_fail = asyncio.Event()

    async def fail(asked: Asked) -> Response:
        if asked.attempt == 2:
            await may_fail.wait()
        return json(None, 503)

    async with target(fail) as service:
        async with running_engine(tmp_path) as engine:
            await engine.register(*ALL)
            run = await engine.client.start("try_it", {"url": service.url})
            await until(lambda: service.attempts == [1, 2], "two attempts are made")
            await engine.client.ask("POST", "/queues/default/pause")
            may_fail.set()
            await until_seen(lambda: _have_failed(engine, run, 2), "both have failed")
        async with running_engine(tmp_path) as engine:
            await engine.client.ask("POST", "/queues/default/resume")
            assert (await engine.client.ended(run))["state"] == "failed"
            assert (service.attempts, await engine.client.states(run, "tried")) == ([1, 2, 3], ["failed"] * 3)


async def _have_failed(engine: RunningEngine, run: str, attempts: int) -> bool:
    return await engine.client.states(run, "tried") == ["failed"] * attempts


async def failed_by_its_deadline(engine: RunningEngine, run: str) -> dict[str, Any]:
    ended = await engine.client.ended(run)
    assert (ended["state"], ended["error"]["type"]) == ("failed", "DeadlineExceeded")
    return ended


async def test_step_over_its_deadline_fails_although_its_queue_is_paused(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    await engine.client.ask("POST", "/queues/closed/pause")
    async with target(lambda _: json(1)) as service:
        run = await failed_by_its_deadline(engine, await engine.client.start("stand_in_line", {"url": service.url}))
        assert "before its first attempt" in run["error"]["message"]
        assert service.asked == []


async def test_step_over_its_deadline_fails_although_its_run_is_paused(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(accepted) as service:
        run = await engine.client.start("stand_in_line_later", {"url": service.url})
        await engine.client.step_in(run, "tried", "waiting")
        await engine.client.ask("POST", f"/runs/{run}/pause")
        await service.asked[0].call_back({"result": 1})
        await failed_by_its_deadline(engine, run)
        assert service.attempts == [1]


async def test_retry_that_would_come_after_the_deadline_is_not_waited_for(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(lambda _: json(None, 503)) as service:
        run = await engine.client.ended(await engine.client.start("rest", {"url": service.url}))
        assert (run["state"], service.attempts) == ("failed", [1])


async def test_step_over_its_deadline_fails_while_it_waits_for_a_callback(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(accepted) as service:
        await failed_by_its_deadline(engine, await engine.client.start("rest", {"url": service.url}))
