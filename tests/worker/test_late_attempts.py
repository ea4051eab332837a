"""Attempts that nobody waits for any more are not begun: another attempt may have completed the step since."""

import asyncio
import threading
from contextlib import suppress

import pytest

from hopline import step
from hopline_engine import clock
from tests.support.waiting import WITHIN, until, until_seen
from tests.worker.test_app import Worker, worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def _is_running(running: Worker, attempts: int) -> bool:
    return bool((await running.client.get("/healthz")).json()["running"] == attempts)


async def test_attempt_whose_engine_goes_away_while_it_waits_for_a_thread_is_not_begun() -> None:
    begun: list[int] = []
    let_go = threading.Event()

    @step
    def held(number: int) -> None:
        begun.append(number)
        let_go.wait(WITHIN)

    async with worker(held, concurrency=1) as running:
        first = asyncio.create_task(running.run(held, {"number": 1}))
        await until(lambda: begun, "the first attempt begins")
        second = asyncio.create_task(running.run(held, {"number": 2}))
        await until_seen(lambda: _is_running(running, 2), "the second attempt waits")
        second.cancel()
        with suppress(asyncio.CancelledError):
            await second
        await until_seen(lambda: _is_running(running, 1), "the worker sees that nobody waits for the second")
        let_go.set()
        await first
        assert (await running.run(held, {"number": 3})).status_code == 200
        assert begun == [1, 3]


async def test_attempt_that_waited_for_a_thread_is_answered() -> None:
    begun: list[int] = []
    let_go = threading.Event()

    @step
    def held(number: int) -> int:
        begun.append(number)
        let_go.wait(WITHIN)
        return number

    async with worker(held, concurrency=1) as running:
        attempts = [asyncio.create_task(running.run(held, {"number": number})) for number in range(3)]
        await until_seen(lambda: _is_running(running, 3), "one attempt runs and two wait")
        let_go.set()
        assert [answer.json()["result"] for answer in await asyncio.gather(*attempts)] == [0, 1, 2]


async def test_attempt_that_comes_after_its_deadline_is_not_begun() -> None:
    begun: list[str] = []

    @step
    def in_thread() -> None:
        begun.append("in a thread")

    @step
    async def on_loop() -> None:
        begun.append("on the loop")

    async with worker(in_thread, on_loop) as running:
        for asked in (in_thread, on_loop):
            answer = await running.run(asked, {}, deadline=str(clock.now() - 1))
            assert answer.json()["error"]["type"] == "TimeoutError"
    assert begun == []
