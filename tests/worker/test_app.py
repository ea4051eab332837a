"""The worker's HTTP side, over a real socket: steps run, their answers, and who is refused."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from hopline import Fail, RetryAfter, Step, context, step
from hopline_engine import clock
from hopline_engine.listening import listen
from hopline_engine.worker import app as app_module
from hopline_engine.worker import capture, execute
from hopline_engine.worker.app import WorkerApp
from hopline_engine.worker.execute import Served
from hopline_engine.worker.server import Server
from tests.support.waiting import WITHIN

pytestmark = pytest.mark.anyio

TOKEN = "the worker's token"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Worker:
    """A running worker and a client that speaks to it as the engine does."""

    def __init__(self, app: WorkerApp, client: httpx.AsyncClient) -> None:
        self.app = app
        self.client = client

    async def run(self, asked: Step[..., Any], arguments: dict[str, Any], **headers: str) -> httpx.Response:
        return await self.client.post(f"/steps/{asked.name}", json=arguments, headers=self.headers(asked, **headers))

    async def begun(self, asked: Step[..., Any], has_begun: Callable[[], object]) -> httpx.Response:
        """Return the answer to an attempt that did begin, and was not over at its deadline.

        On a busy machine the deadline of some passes before they begin; these never do.
        """
        while True:
            answer = await self.run(asked, {}, deadline=str(clock.now() + 0.1))
            if has_begun():
                return answer
            assert answer.status_code == 504

    @staticmethod
    def headers(asked: Step[..., Any], **more: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {TOKEN}",
            "Hopline-Signature": asked.signature,
            "Hopline-Run": "r_7h2kq9m3xa",
            "Hopline-Step": asked.name,
            "Hopline-Attempt": "1",
            "Hopline-Deadline": str(clock.now() + 600),
            "Idempotency-Key": f"r_7h2kq9m3xa/{asked.name}",
            **{f"Hopline-{name.title()}": value for name, value in more.items()},
        }


@asynccontextmanager
async def worker(*steps: Step[..., Any], concurrency: int = 8) -> AsyncIterator[Worker]:
    app = WorkerApp(map(Served.of, steps), token=TOKEN, concurrency=concurrency)
    listener = listen("127.0.0.1", 0)
    server = Server(app)
    serving = asyncio.create_task(server.serve([listener]))
    host, port = listener.getsockname()
    try:
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False, timeout=WITHIN) as client:
            with redirect_stderr(StringIO()), capture.routed(echo=False), capture.logged():
                yield Worker(app, client)
    finally:
        server.stop()
        await serving


@step
def double(number: int, times: int = 2) -> int:
    print(f"doubling {number}")
    return number * times


@step
async def double_on_the_loop(number: int) -> int:
    print(f"doubling {number}")
    return number * 2


async def test_sync_and_async_steps_answer_with_result_and_logs() -> None:
    async with worker(double, double_on_the_loop) as running:
        for asked in (double, double_on_the_loop):
            answer = await running.run(asked, {"number": 21})
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/json"
            assert answer.json() == {"result": 42, "logs": "doubling 21\n"}


async def test_step_that_prints_nothing_has_no_logs() -> None:
    @step
    def quiet() -> None:
        return None

    async with worker(quiet) as running:
        assert (await running.run(quiet, {})).json() == {"result": None, "logs": None}


async def test_what_steps_at_the_same_time_print_does_not_mix() -> None:
    barrier = threading.Barrier(4)
    meeting = asyncio.Event()

    @step
    def in_thread(name: str) -> None:
        for _ in range(50):
            print(name)
            barrier.wait(WITHIN)

    @step
    async def on_loop(name: str) -> None:
        for _ in range(50):
            print(name)
            await asyncio.sleep(0)
        if name == "loop-3":
            meeting.set()
        await meeting.wait()

    async with worker(in_thread, on_loop) as running:
        names = [f"thread-{n}" for n in range(4)] + [f"loop-{n}" for n in range(4)]
        answers = await asyncio.gather(
            *(running.run(in_thread if "thread" in name else on_loop, {"name": name}) for name in names)
        )
    assert [answer.json()["logs"] for answer in answers] == [f"{name}\n" * 50 for name in names]


async def test_context_of_the_attempt_is_there_for_sync_and_async_steps() -> None:
    @step
    def sync_context() -> list[str]:
        return [str(context().run_id), context().step, str(context().item), str(context().attempt)]

    @step
    async def async_context() -> list[str]:
        return [str(context().run_id), context().step, str(context().item), str(context().attempt)]

    async with worker(sync_context, async_context) as running:
        for asked in (sync_context, async_context):
            answer = await running.run(asked, {}, step="node_2[7]", attempt="3")
            assert answer.json()["result"] == ["r_7h2kq9m3xa", "node_2", "7", "3"]
    assert context().run_id == "local"


async def test_headers_that_are_missing_are_none_in_the_context() -> None:
    @step
    def absent() -> list[str | None]:
        return [context().callback_url, context().callback_token, context().traceparent]

    async with worker(absent) as running:
        assert (await running.run(absent, {})).json()["result"] == [None, None, None]


async def test_context_variables_of_one_attempt_do_not_reach_the_next() -> None:
    from contextvars import ContextVar

    seen: ContextVar[str] = ContextVar("seen", default="nothing")

    @step
    def leave(name: str) -> str:
        before = seen.get()
        seen.set(name)
        return before

    async with worker(leave, concurrency=1) as running:
        answers = [(await running.run(leave, {"name": name})).json()["result"] for name in ("a", "b")]
    assert answers == ["nothing", "nothing"]


async def test_exception_of_a_step_is_told_with_the_users_frames_first() -> None:
    @step
    def broken(text: str) -> int:
        print("before")
        return int(text)

    async with worker(broken) as running:
        answer = await running.run(broken, {"text": "x"})
    content = answer.json()
    error = content["error"]
    assert answer.status_code == 500
    assert error["types"] == ["ValueError", "Exception", "BaseException"]
    assert error["message"] == "invalid literal for int() with base 10: 'x'"
    assert (error["final"], error["retry_after"]) == (False, None)
    first, place, *_ = error["traceback"].splitlines()
    assert first == "Traceback (most recent call last):"
    assert place.startswith(f'  File "{__file__}"')
    assert str(Path(execute.__file__).parent) not in error["traceback"]
    assert content["logs"] == "before\n"


async def test_fail_and_retry_after_are_told() -> None:
    @step
    def gives_up() -> None:
        raise Fail("no such customer")

    @step
    async def asks_for_time() -> None:
        raise RetryAfter(7.5, "busy")

    async with worker(gives_up, asks_for_time) as running:
        fail = (await running.run(gives_up, {})).json()["error"]
        later = (await running.run(asks_for_time, {})).json()["error"]
    assert (fail["type"], fail["message"], fail["final"]) == ("hopline.errors.Fail", "no such customer", True)
    assert (later["retry_after"], later["final"]) == (7.5, False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", "a\x00b", object()])
async def test_result_that_cannot_be_stored_is_a_final_error(value: object) -> None:
    @step
    def odd() -> Any:
        return value

    async with worker(odd) as running:
        answer = await running.run(odd, {})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "hopline.errors.ResultError"
    assert answer.json()["error"]["final"] is True


async def test_result_of_another_type_is_a_final_error() -> None:
    @step
    def wrong() -> int:
        return "text"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    async with worker(wrong) as running:
        error = (await running.run(wrong, {})).json()["error"]
    assert (error["type"], error["final"]) == ("hopline.errors.ResultError", True)


async def test_result_too_large_is_a_final_error() -> None:
    @step
    def large() -> str:
        return "x" * execute.RESULT_MAX_BYTES

    async with worker(large) as running:
        error = (await running.run(large, {})).json()["error"]
    assert error["final"] is True
    assert "at most 1048576" in error["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"number": "x"}', b"{}", b'{"number": 1, "other": 2}', b"\xff"])
async def test_wrong_arguments_are_a_final_error(body: bytes) -> None:
    async with worker(double) as running:
        answer = await running.client.post("/steps/double", content=body, headers=running.headers(double))
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert (error["type"], error["final"]) == ("hopline.errors.ArgumentError", True)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
async def test_step_that_tries_to_end_the_worker_has_failed(kind: type[BaseException]) -> None:
    @step
    def leave_thread() -> None:
        raise kind

    @step
    async def leave_loop() -> None:
        raise kind

    async with worker(leave_thread, leave_loop, double) as running:
        for asked in (leave_thread, leave_loop):
            answer = await running.run(asked, {})
            assert answer.status_code == 500
            assert answer.json()["error"]["types"][0].endswith(kind.__name__)
        assert (await running.run(double, {"number": 1})).json()["result"] == 2


async def test_async_step_is_cancelled_at_its_deadline() -> None:
    began, cancelled = list[bool](), asyncio.Event()

    @step
    async def endless() -> None:
        began.append(True)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with worker(endless) as running:
        answer = await running.begun(endless, lambda: began)
    assert cancelled.is_set()
    assert answer.json()["error"]["types"][:2] == ["TimeoutError", "OSError"]


async def test_sync_step_runs_on_after_its_deadline_and_keeps_its_thread() -> None:
    began, release = list[bool](), threading.Event()

    @step
    def stubborn() -> bool:
        began.append(True)
        return release.wait(WITHIN)

    async with worker(stubborn, double, concurrency=1) as running:
        assert (await running.begun(stubborn, lambda: began)).status_code == 504
        assert (await running.run(double, {"number": 1}, deadline=str(clock.now() + 0.05))).status_code == 504
        release.set()
        assert (await running.run(double, {"number": 1})).json()["result"] == 2


async def test_results_are_refused_over_what_the_engine_keeps() -> None:
    @step
    def letters(count: int) -> str:
        return "x" * count

    async with worker(letters) as running:
        running.app.limit_results(10)
        assert (await running.run(letters, {"count": 8})).status_code == 200
        error = (await running.run(letters, {"count": 9})).json()["error"]
        running.app.limit_results(2 * execute.RESULT_MAX_BYTES)
        assert (await running.run(letters, {"count": execute.RESULT_MAX_BYTES})).status_code == 200
    assert "11 bytes of JSON; at most 10 are kept" in error["message"]


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "the worker's token"])
async def test_request_without_the_workers_token_is_refused(authorization: str | None) -> None:
    async with worker(double) as running:
        headers = running.headers(double)
        del headers["Authorization"]
        if authorization is not None:
            headers["Authorization"] = authorization
        answer = await running.client.post("/steps/double", json={"number": 1}, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "Unauthorized"


async def test_step_or_signature_that_is_not_served_is_told_apart_from_failures() -> None:
    async with worker(double) as running:
        unknown = await running.run(double_on_the_loop, {"number": 1})
        other = await running.run(double, {"number": 1}, signature="0" * 16)
    for answer in (unknown, other):
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "StepNotServed"


async def test_draining_worker_refuses_new_steps_and_ends_running_ones() -> None:
    started, release = threading.Event(), threading.Event()

    @step
    def slow() -> str:
        started.set()
        release.wait(WITHIN)
        return "done"

    async with worker(slow, double) as running:
        first = asyncio.create_task(running.run(slow, {}))
        await asyncio.to_thread(started.wait, WITHIN)
        draining = asyncio.create_task(running.app.drain(WITHIN))
        await asyncio.sleep(0)
        assert (await running.run(double, {"number": 1})).status_code == 503
        assert (await running.client.get("/healthz")).json() == {"status": "draining", "running": 1}
        release.set()
        assert await draining is True
        assert (await first).json()["result"] == "done"


async def test_drain_ends_with_the_grace() -> None:
    started = asyncio.Event()

    @step
    async def never() -> None:
        started.set()
        await asyncio.Event().wait()

    async with worker(never) as running:
        asking = asyncio.create_task(running.run(never, {}))
        await started.wait()
        assert await running.app.drain(0.05) is False
        asking.cancel()


@pytest.mark.parametrize("name", ["Hopline-Run", "Hopline-Step", "Hopline-Attempt", "Idempotency-Key"])
async def test_request_without_the_headers_of_an_attempt_is_refused(name: str) -> None:
    async with worker(double) as running:
        headers = running.headers(double)
        del headers[name]
        answer = await running.client.post("/steps/double", json={"number": 1}, headers=headers)
    assert answer.status_code == 400
    assert name.lower() in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "value"), [("attempt", "x"), ("deadline", "soon"), ("deadline", "1e300"), ("step", "s[x]")]
)
async def test_headers_that_make_no_sense_are_refused(name: str, value: str) -> None:
    async with worker(double) as running:
        assert (await running.run(double, {"number": 1}, **{name: value})).status_code == 400


async def test_only_post_runs_a_step() -> None:
    async with worker(double) as running:
        answer = await running.client.get("/steps/double", headers=running.headers(double))
    assert answer.status_code == 405


async def test_health_needs_no_token_and_other_paths_are_not_there() -> None:
    async with worker(double) as running:
        assert (await running.client.get("/healthz")).json() == {"status": "ok", "running": 0}
        assert (await running.client.get("/steps")).status_code == 404


async def test_body_in_pieces_is_put_together() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"num', b'ber": ', b"4}"):
            yield piece
            await asyncio.sleep(0)

    async with worker(double) as running:
        answer = await running.client.post("/steps/double", content=pieces(), headers=running.headers(double))
    assert answer.json()["result"] == 8


async def test_body_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "BODY_MAX_BYTES", 1000)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    async with worker(double) as running:
        answer = await running.client.post("/steps/double", content=endless(), headers=running.headers(double))
        whole = await running.client.post("/steps/double", content=b" " * 1001, headers=running.headers(double))
    assert (answer.status_code, whole.status_code) == (413, 413)
    assert answer.json()["error"]["final"] is True


async def test_client_that_goes_away_does_not_stop_the_step() -> None:
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    @step
    def survives() -> None:
        started.set()
        release.wait(WITHIN)
        ended.set()

    async with worker(survives) as running:
        asking = asyncio.create_task(running.run(survives, {}))
        await asyncio.to_thread(started.wait, WITHIN)
        asking.cancel()
        await asyncio.wait({asking})
        release.set()
        assert await asyncio.to_thread(ended.wait, WITHIN)


async def test_answers_are_json_that_any_parser_reads() -> None:
    @step
    def strange() -> dict[str, str]:
        print("ü\x1b[31m")
        return {"käse": "🧀"}

    async with worker(strange) as running:
        answer = await running.run(strange, {})
    assert json.loads(answer.content) == {"result": {"käse": "🧀"}, "logs": "ü\x1b[31m\n"}


# --- batches ----------------------------------------------------------------------------------------------------------


def element(asked: Step[..., Any], number: int, *, seconds: float = 60.0, deadline: str = "inf") -> dict[str, Any]:
    """Return one element of a batch as the engine sends it."""
    headers = {
        "hopline-run": "r_7h2kq9m3xa",
        "hopline-step": f"{asked.name}[{number}]",
        "hopline-attempt": "1",
        "hopline-deadline": deadline,
        "idempotency-key": f"r_7h2kq9m3xa/{asked.name}/{number}",
    }
    return {"headers": headers, "seconds": seconds, "arguments": {"number": number}}


async def batch(of: Worker, asked: Step[..., Any], *elements: dict[str, Any]) -> httpx.Response:
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Hopline-Signature": asked.signature,
        "Hopline-Batch": str(len(elements)),
    }
    return await of.client.post(f"/steps/{asked.name}", json=elements, headers=headers)


@step
def about_itself(number: int) -> list[Any]:
    told = context()
    if number == 2:
        raise Fail("not this one")
    return [number, told.item, told.idempotency_key, told.deadline is not None]


let_go = threading.Event()


@step
def slow_if_odd(number: int) -> int:
    if number % 2:
        let_go.wait(WITHIN)
    return number


async def test_elements_of_a_batch_are_executed_each_in_its_own_context() -> None:
    async with worker(about_itself) as running:
        answer = await batch(running, about_itself, *[element(about_itself, number) for number in (1, 2, 3)])
    first, second, third = answer.json()
    assert (first["status"], first["answer"]["result"]) == (200, [1, 1, "r_7h2kq9m3xa/about_itself/1", True])
    assert (second["status"], second["answer"]["error"]["type"]) == (500, "hopline.errors.Fail")
    assert third["answer"]["result"][:2] == [3, 3]


async def test_element_that_takes_too_long_is_answered_without_the_others_having_to_wait() -> None:
    async with worker(slow_if_odd) as running:
        elements = [element(slow_if_odd, number, seconds=3.0) for number in range(3)]
        answer = await batch(running, slow_if_odd, *elements)
        let_go.set()
    assert [each["status"] for each in answer.json()] == [200, 504, 200]


async def test_element_whose_deadline_has_passed_is_not_begun() -> None:
    async with worker(double) as running:
        late = element(double, 1, deadline=str(clock.now() - 1))
        answer = await batch(running, double, late, element(double, 2))
    first, second = answer.json()
    assert first["status"] == 504
    assert second["answer"]["result"] == 4


async def test_batch_that_is_malformed_is_refused() -> None:
    async with worker(double) as running:
        answers = [await batch(running, double, wrong) for wrong in ({}, {**element(double, 1), "headers": {}})]
    assert [answer.status_code for answer in answers] == [400, 400]
