"""Heartbeats of running steps as the worker passes them on: how often, and what the answers mean."""

import asyncio
import json
import threading
from contextlib import redirect_stderr
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest

from hopline import Context, Step, context, step
from hopline_engine import clock
from hopline_engine.worker import capture
from hopline_engine.worker.beating import Nodes
from hopline_engine.worker.exchange import NoAnswerError
from hopline_engine.worker.execute import Answer, Attempt, Runtime, Served
from tests.support.targets import json as answered
from tests.support.targets import target
from tests.support.waiting import WITHIN, until

pytestmark = pytest.mark.anyio


class Line:
    """The engine as heartbeats reach it; says what the test tells it to."""

    def __init__(self, *answers: datetime | NoAnswerError | None, last: datetime | None) -> None:
        self.told: list[dict[str, Any]] = []
        self.heard = asyncio.Event()
        self._answers = [*answers]
        self._last = last

    async def tell(self, _: Context, report: dict[str, Any]) -> datetime | None:
        self.told.append(report)
        self.heard.set()
        answer = self._answers.pop(0) if self._answers else self._last
        if isinstance(answer, NoAnswerError):
            raise answer
        return answer


def far() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def run(asked: Step[..., Any], line: Line, *, seconds: float = 60.0, **arguments: Any) -> Answer | None:
    runtime = Runtime(asyncio.get_running_loop(), 4, 1000, line=line)
    deadline = clock.now() + seconds
    shown = Context(
        deadline=datetime.fromtimestamp(deadline, UTC), callback_url="http://h/callbacks/r/1/s", callback_token="t"
    )
    attempt = Attempt(Served.of(asked), json.dumps(arguments).encode(), shown, deadline, runtime)
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with redirect_stderr(StringIO()), capture.routed(echo=False):
        return await attempt.run(lambda: never)


@pytest.mark.parametrize("is_async", [False, True])
async def test_heartbeats_keep_a_step_running_past_its_timeout(*, is_async: bool) -> None:
    line = Line(last=far())

    @step
    def sync_step() -> str:
        while not line.told:
            context().heartbeat("half")
        assert not threading.Event().wait(4.5), "past the time that it had at first"
        return str(context().deadline)

    @step
    async def async_step() -> str:
        context().heartbeat("half")
        await line.heard.wait()
        await asyncio.sleep(4.5)
        return str(context().deadline)

    answer = await run(async_step if is_async else sync_step, line, seconds=4.0)
    assert answer is not None
    assert answer.status == 200, answer.body
    assert datetime.fromisoformat(json.loads(answer.body)["result"]) > datetime.now(UTC) + timedelta(minutes=50)
    assert line.told[0] == {"heartbeat": pytest.approx(4.0, abs=3.0), "progress": "half"}


async def test_step_that_beats_all_the_time_is_passed_on_about_once_a_second_and_its_last_word_too() -> None:
    line = Line(last=far())
    began = clock.monotonic()

    @step
    async def busy() -> None:
        for number in range(1000):
            context().heartbeat(f"{number}")
            if number % 10 == 0:
                await asyncio.sleep(0)
        await until(lambda: line.told[-1]["progress"] == "999", "the last word is passed on")

    assert await run(busy, line) is not None
    assert len(line.told) >= 2
    assert len(line.told) <= 1 + (clock.monotonic() - began), "each but the first a second after another"


async def test_heartbeat_without_words_keeps_the_last_ones() -> None:
    line = Line(last=far())

    @step
    async def quiet() -> None:
        context().heartbeat("copied 3")
        await line.heard.wait()
        context().heartbeat()
        await until(lambda: len(line.told) >= 2, "the second heartbeat")

    await run(quiet, line)
    assert [told.get("progress") for told in line.told] == ["copied 3", "copied 3"]


async def test_words_are_cut_to_what_the_engine_takes() -> None:
    line = Line(last=far())

    @step
    async def talks() -> None:
        context().heartbeat("\ud800" + 2000 * "x")
        await line.heard.wait()

    await run(talks, line)
    assert line.told[0]["progress"] == "?" + 999 * "x"


async def test_heartbeat_that_nobody_took_is_told_again() -> None:
    line = Line(NoAnswerError("no server"), last=far())

    @step
    async def once() -> None:
        context().heartbeat()
        await until(lambda: len(line.told) >= 2, "the second heartbeat")

    answer = await run(once, line)
    assert answer is not None
    assert answer.status == 200


async def test_sync_step_that_nobody_waits_for_is_told_by_its_next_heartbeat() -> None:
    line = Line(None, last=None)
    ended: list[BaseException] = []

    @step
    def copies() -> None:
        try:
            while True:
                try:
                    context().heartbeat()
                except Exception as error:  # a loop that goes on after errors
                    raise AssertionError("no Exception") from error
        except asyncio.CancelledError as error:
            ended.append(error)
            raise

    await run(copies, line)
    assert [str(error) for error in ended] == ["nobody waits for attempt 1 of local any more"]


async def test_async_step_that_nobody_waits_for_is_cancelled_by_the_answer_to_its_heartbeat() -> None:
    line = Line(None, last=None)

    @step
    async def waits() -> None:
        context().heartbeat()
        await asyncio.Event().wait()

    assert await run(waits, line) is None


async def test_sync_step_that_ran_into_its_timeout_learns_it_by_its_next_heartbeat() -> None:
    began, told, timed_out = threading.Event(), threading.Event(), threading.Event()

    @step
    def late() -> None:
        began.set()
        assert timed_out.wait(WITHIN)
        try:
            context().heartbeat()
        except asyncio.CancelledError:
            told.set()

    while not began.is_set():  # on a busy machine the time of some is over before they begin; these never do
        answer = await run(late, Line(last=None), seconds=0.1)
        assert answer is not None
        assert answer.status == 504
    timed_out.set()
    assert await asyncio.to_thread(told.wait, WITHIN)


def test_heartbeat_in_a_plain_call_does_nothing() -> None:
    @step
    def plain() -> int:
        context().heartbeat("3 of 7")
        return 3

    assert plain() == 3


def test_progress_that_is_no_text_is_refused_also_in_a_plain_call() -> None:
    with pytest.raises(TypeError, match="say how far it is as a text"):
        context().heartbeat(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_heartbeat_of_a_context_that_is_cancelled_raises_in_whatever_thread() -> None:
    cancelled = Context(cancelled=True)
    with pytest.raises(asyncio.CancelledError):
        cancelled.heartbeat()


async def test_nodes_are_asked_in_turn_until_one_takes_a_heartbeat() -> None:
    granted = "2026-11-21T12:00:00Z"
    shown = Context(callback_url="https://public.example.com/api/v1/callbacks/r_1/2/copy%5B3%5D", callback_token="t")
    async with (
        target(lambda _: answered({"error": {"code": "moving"}}, 503)) as moving,
        target(lambda _: answered({"outcome": "applied", "until": granted})) as node,
    ):
        gone = moving.url.rsplit(":", 1)[0] + ":1"
        nodes = Nodes(lambda: [gone, moving.url.rstrip("/"), node.url.rstrip("/")])
        assert await nodes.tell(shown, {"heartbeat": 5.0}) == datetime.fromisoformat(granted)
        (asked,) = node.asked
        assert asked.path == "/api/v1/callbacks/r_1/2/copy[3]"
        assert (asked.headers["hopline-callback-token"], asked.body) == ("t", b'{"heartbeat":5.0}')
    with pytest.raises(NoAnswerError):
        await Nodes(lambda: [gone]).tell(shown, {"heartbeat": 5.0})


@pytest.mark.parametrize("status", [409, 410])
async def test_answer_that_the_attempt_is_over_means_that_nobody_waits(status: int) -> None:
    shown = Context(callback_url="http://h/api/v1/callbacks/r_1/2/copy", callback_token="t")
    async with target(lambda _: answered({"error": {"code": "run-ended"}}, status)) as node:
        assert await Nodes(lambda: [node.url]).tell(shown, {"heartbeat": 5.0}) is None
