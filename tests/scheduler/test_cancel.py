"""A cancel reaches whatever a run is doing, those who work on it are told, and nothing starts afterwards."""

import asyncio
from pathlib import Path

import pytest
from starlette.responses import Response

from hopline import Queue, Request, Retry, http, step, workflow
from tests.queue.servers import Peer, serving
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.targets import accepted, json, target
from tests.support.waiting import until, until_seen
from tests.worker.users_files import write

pytestmark = pytest.mark.anyio


@http(retry=Retry(9, first="1h", jitter="none"))
def ordered(url: str, number: int = 0) -> Request[int]:
    return http.post(url, json=number, cancel=f"{url}/orders/{number}/cancel")


@http(queue=Queue("narrow", max_concurrent=1))
def queued(url: str) -> Request[int]:
    return http.post(url)


@step
def unserved(number: int) -> int:
    return number


@workflow
def order(url: str) -> int:
    return unserved(ordered(url, 7))


@workflow
def orders(url: str) -> list[int]:
    return ordered.map([url, url, url])


@workflow
def two_queued(url: str) -> list[int]:
    return queued.map([url, url])


@workflow
def nested(url: str) -> int:
    return order(url)


ALL = (order, orders, two_queued, nested)


async def cancelled(engine: RunningEngine, run: str) -> None:
    """Cancel a run and check that it is over at once, and with it all its steps."""
    answer = await engine.client.ask("POST", f"/runs/{run}/cancel")
    assert answer["state"] == "cancelled"
    shown = await engine.client.run(run)
    assert {found["state"] for found in shown["steps"]} <= {"cancelled", "succeeded"}


async def test_cancel_of_a_running_http_step_cuts_it_off_and_calls_its_cancel_url(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    gate = asyncio.Event()

    async def hold() -> Response:
        await gate.wait()
        return json(1)

    async with target(lambda asked: json(None) if asked.path.endswith("/cancel") else hold()) as service:
        run = await engine.client.start("order", {"url": service.url})
        await until(lambda: service.asked, "the request is out")
        await cancelled(engine, run)
        await until(lambda: len(service.asked) == 2, "the target is told")
        gate.set()
        sent, told = service.asked
        assert (told.path, told.body) == ("/orders/7/cancel", b"")
        for name in ("Hopline-Run", "Hopline-Step", "Hopline-Attempt", "Idempotency-Key"):
            assert told.headers[name] == sent.headers[name]


async def test_cancel_of_a_step_that_waits_for_its_callback_calls_its_cancel_url(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(accepted) as service:
        run = await engine.client.start("order", {"url": service.url})
        await engine.client.step_in(run, "ordered", "waiting")
        await cancelled(engine, run)
        await until(lambda: len(service.asked) == 2, "the target is told")
        assert (await service.asked[0].call_back({"result": 3})).status_code == 410
        assert await engine.client.states(run, "ordered") == ["cancelled"]


async def test_target_that_is_busy_is_told_of_the_cancel_again(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(accepted) as service:
        run = await engine.client.start("order", {"url": service.url})
        await engine.client.step_in(run, "ordered", "waiting")
        service.answer = lambda asked: json(None, 503 if len(service.asked) < 3 else 200)
        await cancelled(engine, run)
        await until(lambda: len(service.asked) == 3, "the target is told again")


async def test_cancel_of_a_step_that_sleeps_until_its_retry_tells_nobody(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(lambda _: json(None, 503)) as service:
        run = await engine.client.start("order", {"url": service.url})
        await engine.client.step_in(run, "ordered", "scheduled")
        await cancelled(engine, run)
        assert service.attempts == [1]


async def test_cancel_of_a_map_and_of_a_sub_run_reaches_every_open_step(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(accepted) as service:
        mapped = await engine.client.start("orders", {"url": service.url})
        above = await engine.client.start("nested", {"url": service.url})
        await until(lambda: len(service.asked) == 4, "all requests are out")
        await until_all_wait(engine, mapped)
        (below,) = (await engine.client.ask("GET", "/runs", params={"parent": above}))["runs"]
        await engine.client.step_in(below["id"], "ordered", "waiting")
        await cancelled(engine, mapped)
        await cancelled(engine, above)
        await until(lambda: len(service.asked) == 8, "every target is told")
        assert (await engine.client.run(below["id"]))["state"] == "cancelled"


async def until_all_wait(engine: RunningEngine, run: str) -> None:
    async def look() -> bool:
        reasons = (await engine.client.ask("GET", f"/runs/{run}/why"))["reasons"]
        return {reason["reason"] for reason in reasons} == {"waiting_for_callback"}

    await until_seen(look, "every element waits for its callback")


async def test_cancelled_steps_that_waited_in_a_queue_never_start(engine: RunningEngine) -> None:
    await engine.register(*ALL)

    async def hold(peer: Peer) -> None:
        await peer.request()
        await peer.hold()

    async with serving(hold) as silent:
        run = await engine.client.start("two_queued", {"url": silent.url})
        await until(lambda: silent.requests, "one of two is out")
        await cancelled(engine, run)
        async with target(lambda _: json(1)) as service:
            other = await engine.client.start("two_queued", {"url": service.url})
            assert (await engine.client.ended(other))["result"] == [1, 1]
        assert len(silent.requests) == 1


PYTHON = """
    import asyncio
    import time
    from pathlib import Path

    from hopline import context, step, workflow

    @step
    async def on_the_loop(folder: str) -> None:
        Path(folder, "began").touch()
        try:
            await asyncio.Event().wait()
        finally:
            Path(folder, "told").touch()

    @step
    def in_a_thread(folder: str) -> None:
        Path(folder, "began").touch()
        while not context().cancelled:
            time.sleep(0.01)
        Path(folder, "told").touch()

    @workflow
    def waits(folder: str) -> None:
        on_the_loop(folder)

    @workflow
    def works(folder: str) -> None:
        in_a_thread(folder)
"""


@pytest.mark.parametrize("workflow", ["waits", "works"])
async def test_running_python_step_is_told_of_the_cancel(tmp_path: Path, workflow: str) -> None:
    async with running_engine(tmp_path, write(tmp_path, "wf.py", PYTHON)) as engine:
        run = await engine.client.start(workflow, {"folder": str(tmp_path)})
        await until((tmp_path / "began").exists, "the step runs")
        await cancelled(engine, run)
        await until((tmp_path / "told").exists, "the step is told")
