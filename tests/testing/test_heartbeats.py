"""Heartbeats of running steps on the engine in virtual time."""

import asyncio

import pytest

from hopline import Pending, Retry, context, defer, step, workflow
from hopline.testing import Engine


@step(timeout="1m")
async def copy(minutes: int) -> str:
    for minute in range(minutes):
        context().heartbeat(f"{minute} of {minutes}")
        await asyncio.sleep(60 - 5)
    return f"{minutes} copied"


@step(timeout="1m", retry=Retry(2, first="1s", jitter="none"))
async def stalls() -> str:
    context().heartbeat("begun")
    await asyncio.sleep(50 if context().attempt == 2 else 3600)
    return f"attempt {context().attempt}"


@step(timeout="1m", deadline="5m")
async def goes_on_and_on() -> None:
    while True:
        context().heartbeat()
        await asyncio.sleep(10)


@workflow
def copying(minutes: int) -> str:
    return copy(minutes)


@workflow
def copying_all(minutes: list[int]) -> list[str]:
    return copy.using(batch=2).map(minutes)


@workflow
def stalling() -> str:
    return stalls()


@workflow
def endless() -> None:
    goes_on_and_on()


def test_step_that_sends_heartbeats_runs_far_past_its_timeout(engine: Engine) -> None:
    run = engine.start(copying, 90)
    engine.advance("30m")
    note = run.step("copy").detail.note
    assert note is not None
    assert note.startswith("is running for 30 min, heard of ")
    assert note.endswith(" s ago: 32 of 90")
    engine.advance("60m")
    assert (run.result(), run.step("copy").attempts) == ("90 copied", 1)


def test_step_that_falls_silent_is_given_up_its_timeout_after_the_last_heartbeat_and_tried_again(
    engine: Engine,
) -> None:
    run = engine.start(stalling)
    engine.advance("59s")
    assert run.step("stalls").attempts == 1
    engine.advance("3s")
    assert run.step("stalls").attempts == 2
    engine.advance("1m")
    assert run.result() == "attempt 2"
    (first, _) = run.attempts("stalls")
    assert first.error is not None
    assert first.error.message.startswith("no heartbeat and no result for 60 s")


def test_heartbeats_do_not_move_the_deadline_of_a_step(engine: Engine) -> None:
    run = engine.start(endless)
    engine.advance("5m5s")
    assert run.state == "failed"
    (attempt,) = run.attempts()
    assert attempt.ended_at - attempt.started_at == pytest.approx(300, abs=2)


def test_elements_of_a_batch_send_heartbeats_each_for_itself(engine: Engine) -> None:
    run = engine.start(copying_all, [5, 7, 1])
    engine.advance("20m")
    assert run.result() == ["5 copied", "7 copied", "1 copied"]
    assert {attempt.attempt for attempt in run.attempts("copy")} == {1}


def test_step_whose_run_is_cancelled_is_told_by_its_heartbeat(engine: Engine) -> None:
    told: list[str] = []

    @step
    async def long() -> None:
        try:
            while True:
                context().heartbeat()
                await asyncio.sleep(1)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    @workflow
    def cancelled() -> None:
        long()

    run = engine.start(cancelled)
    engine.advance("1m")
    engine.cancel(run)
    assert (run.state, told) == ("cancelled", ["cancelled"])


def test_heartbeat_before_a_step_defers_says_nothing_of_the_wait_for_its_callback(engine: Engine) -> None:
    @step(deadline="2h")
    async def farmed() -> Pending[int]:
        context().heartbeat("handed over")
        await asyncio.sleep(1)
        return defer()

    @workflow
    def farming() -> int:
        return farmed()

    run = engine.start(farming)
    engine.advance("1m")
    found = run.step("farmed")
    assert (found.state, str(found.detail.note)[-11:]) == ("waiting", "handed over")
    engine.callback(found, 3)
    assert run.result() == 3
