"""Attempts that are not over at their deadline: what the worker says of them, and what people are shown."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from hopline import step
from hopline_engine import clock
from hopline_engine.testing.virtual_loop import VirtualLoop
from hopline_engine.worker.deadlines import Deadlines
from tests.support.running_engine import running_engine
from tests.support.waiting import WITHIN, until
from tests.worker.test_app import worker
from tests.worker.users_files import write

pytestmark = pytest.mark.anyio

HANGING = """
    import asyncio
    import time

    from hopline import step, workflow

    @step(timeout="2s")
    def hang() -> None:
        print("before it hangs")
        time.sleep(600)

    @step(timeout="2s")
    async def hang_on_the_loop() -> None:
        print("before it hangs")
        await asyncio.sleep(600)

    @workflow
    def hanging() -> None:
        hang()

    @workflow
    def hanging_on_the_loop() -> None:
        hang_on_the_loop()
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_step_that_hangs_in_a_thread_is_answered_at_the_deadline_with_its_log_and_place() -> None:
    began, let_go = list[bool](), threading.Event()

    @step
    def hang() -> None:
        print("before it hangs")
        began.append(True)
        let_go.wait(30)

    async with worker(hang) as running:
        answer = await running.begun(hang, lambda: began)
        let_go.set()
    error = answer.json()["error"]
    assert (answer.status_code, answer.json()["logs"]) == (504, "before it hangs\n")
    assert (error["type"], error["final"]) == ("TimeoutError", False)
    assert error["message"].startswith("it was in hang, test_deadlines.py:")
    assert "let_go.wait(30)" in error["traceback"]
    assert "hopline_engine" not in error["traceback"]
    assert error["traceback"].endswith(f"TimeoutError: {error['message']}\n")


async def test_step_that_hangs_on_the_loop_is_cancelled_and_its_place_is_told() -> None:
    began, cancelled = list[bool](), list[bool]()

    @step
    async def hang() -> None:
        print("before it hangs")
        began.append(True)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    async with worker(hang) as running:
        answer = await running.begun(hang, lambda: began)
    assert (answer.status_code, answer.json()["logs"], cancelled) == (504, "before it hangs\n", [True])
    assert answer.json()["error"]["message"].startswith("it was in hang, test_deadlines.py:")
    assert "await asyncio.Event().wait()" in answer.json()["error"]["traceback"]


async def test_attempt_without_a_free_thread_is_answered_at_its_deadline_and_never_begun() -> None:
    begun: list[int] = []
    let_go = threading.Event()

    @step
    def held(number: int) -> None:
        begun.append(number)
        let_go.wait(30)

    async with worker(held, concurrency=1) as running:
        first = asyncio.create_task(running.run(held, {"number": 1}))
        await until(lambda: begun, "the first attempt begins")
        answer = await running.run(held, {"number": 2}, deadline=str(clock.now() + 0.1))
        let_go.set()
        await first
        assert (await running.run(held, {"number": 3})).status_code == 200
    assert answer.status_code == 504
    assert answer.json()["error"]["message"] == "the attempt had not begun, since the worker was busy"
    assert begun == [1, 3]


async def test_timeout_of_the_steps_own_is_an_error_like_any_other() -> None:
    @step
    async def impatient() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    async with worker(impatient) as running:
        answer = await running.run(impatient, {})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "TimeoutError")


async def test_worker_drains_without_waiting_for_a_thread_whose_attempt_was_answered() -> None:
    began, let_go = list[bool](), threading.Event()

    @step
    def hang() -> None:
        began.append(True)
        let_go.wait()

    async with worker(hang) as running:
        await running.begun(hang, lambda: began)
        assert await running.app.drain(WITHIN)
        let_go.set()


class Limited:
    """Something with a deadline, that notes that it was given up."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.is_given_up = False

    def give_up(self) -> None:
        self.is_given_up = True


def test_earlier_deadline_that_comes_later_is_kept_and_removed_ones_are_left_alone() -> None:
    loop = VirtualLoop()
    deadlines = Deadlines(loop, loop.time)
    late, early, removed = Limited(10.0), Limited(2.0), Limited(1.0)
    for limited in (late, early, removed):
        deadlines.add(limited)
    deadlines.remove(removed)
    loop.run_to(5.0)
    assert [each.is_given_up for each in (late, early, removed)] == [False, True, False]
    loop.run_to(10.0)
    assert [each.is_given_up for each in (late, early, removed)] == [True, True, False]
    loop.dismantle()


@pytest.mark.parametrize("name", ["hanging", "hanging_on_the_loop"])
async def test_run_shows_the_log_and_the_place_of_a_step_that_timed_out(tmp_path: Path, name: str) -> None:
    async with running_engine(tmp_path, write(tmp_path, "wf.py", HANGING)) as engine:
        run: dict[str, Any] = await engine.client.ended(await engine.client.start(name))
        (attempt,) = await engine.client.attempts(run["id"])
    assert (attempt["state"], attempt["logs"]) == ("timed_out", "before it hangs\n")
    assert attempt["error"]["message"].startswith(f"no result within 2 s; it was in {run['error']['step']}, wf.py:")
    assert "sleep(600)" in attempt["error"]["traceback"]
    assert run["error"]["traceback"] == attempt["error"]["traceback"]
