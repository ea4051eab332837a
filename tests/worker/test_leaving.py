"""Attempts that nobody waits for any more: the step is told, and the worker goes on."""

import asyncio
import threading

import pytest

from hopline import context, step
from tests.support.waiting import WITHIN, until
from tests.worker.test_app import double, worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_async_step_that_nobody_waits_for_is_cancelled() -> None:
    began, seen = asyncio.Event(), list[bool]()

    @step
    async def hang() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(context().cancelled)

    async with worker(hang, double) as running:
        asking = asyncio.create_task(running.run(hang, {}))
        await began.wait()
        asking.cancel()
        await until(lambda: seen, "the step is cancelled")
        assert (await running.run(double, {"number": 4})).json()["result"] == 8
    assert seen == [True]


async def test_async_step_that_catches_its_cancellation_ends_as_it_likes() -> None:
    began, ended = asyncio.Event(), list[str]()

    @step
    async def stubborn() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append("cleaned up")
        return "done"

    async with worker(stubborn) as running:
        asking = asyncio.create_task(running.run(stubborn, {}))
        await began.wait()
        asking.cancel()
        await until(lambda: ended, "the step cleans up")
        assert await running.app.drain(WITHIN)


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_sync_step_that_nobody_waits_for_sees_it_in_its_context(concurrency: int) -> None:
    began, told = threading.Event(), list[bool]()

    @step
    def work() -> None:
        began.set()
        paused = threading.Event()
        while not context().cancelled:
            paused.wait(0.01)
        told.append(True)

    async with worker(work, concurrency=concurrency) as running:
        asking = asyncio.create_task(running.run(work, {}))
        await asyncio.to_thread(began.wait)
        asking.cancel()
        await until(lambda: told, "the step is told")
        assert await running.app.drain(WITHIN)


async def test_step_whose_answer_is_waited_for_is_left_alone_however_long_it_takes() -> None:
    @step
    async def slow() -> bool:
        await asyncio.sleep(0.8)  # three looks of the worker
        return context().cancelled

    async with worker(slow) as running:
        assert (await running.run(slow, {})).json()["result"] is False
