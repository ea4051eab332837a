"""What becomes of HTTP steps whose targets misbehave, through the whole engine and over real sockets."""

import asyncio
import email.utils
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from hopline import Request, Retry, http, workflow
from tests.queue.servers import Handler, Peer, refused_port, serving
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.targets import Asked, accepted, json, target
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

LONG = 60.0
"""Seconds that no wait here comes near, on whatever machine."""

twice = Retry(2, first="50ms", jitter="none")


@http(retry=twice, timeout="5m")
def asked(url: str) -> Request[int]:
    return http.post(url, json="x")


@http(retry=twice, timeout="500ms")
def asked_briefly(url: str) -> Request[int]:
    return http.post(url, json="x")


@http(retry=twice, timeout="5m", deadline="3s")
def asked_until(url: str) -> Request[int]:
    return http.post(url, json="x")


@http(retry=Retry(10, first="50ms"), timeout="10s", deadline="400ms")
def asked_soon(url: str) -> Request[int]:
    return http.post(url, json="x")


@http(retry=twice)
def told(url: str) -> Request[None]:
    return http.post(url, json="x")


@http(retry=twice)
def spelled(url: str) -> Request[str]:
    return http.post(url, json="x")


@workflow
def ask(url: str) -> int:
    return asked(url)


@workflow
def ask_briefly(url: str) -> int:
    return asked_briefly(url)


@workflow
def ask_until(url: str) -> int:
    return asked_until(url)


@workflow
def ask_soon(url: str) -> int:
    return asked_soon(url)


@workflow
def wait_long(url: str) -> int:
    return asked.using(retry=Retry(2, first="1h", jitter="none"))(url)


@workflow
def tell(url: str) -> None:
    return told(url)


@workflow
def spell(url: str) -> str:
    return spelled(url)


@workflow
def ask_after(url: str, next_url: str) -> int:
    return asked.after(asked(url))(next_url)


@pytest.fixture(autouse=True)
async def known(engine: RunningEngine) -> None:
    """Make the workflows of this module known."""
    await engine.register(ask, ask_briefly, ask_until, ask_soon, wait_long, tell, spell, ask_after)


async def outcome(engine: RunningEngine, url: str, name: str = "ask") -> tuple[dict[str, Any], list[str]]:
    """Return the run of a workflow over one URL when it has ended, and how its attempts ended."""
    run = await engine.client.start(name, {"url": url})
    ended = await engine.client.ended(run)
    return ended, [attempt["state"] for attempt in await engine.client.attempts(run)]


# --- targets that do not answer ---------------------------------------------------------------------------------------


async def test_target_that_refuses_connections_is_tried_again_and_named(engine: RunningEngine) -> None:
    port = await refused_port()
    run, states = await outcome(engine, f"http://127.0.0.1:{port}")
    assert states == ["failed", "failed"]
    assert (run["error"]["step"], run["error"]["type"]) == ("asked", "ConnectionRefusedError")
    assert str(port) in run["error"]["message"]


async def test_name_that_does_not_resolve_is_a_connection_error(engine: RunningEngine) -> None:
    run, states = await outcome(engine, "http://nowhere.invalid")
    assert (states, run["state"]) == (["failed", "failed"], "failed")
    assert "nowhere.invalid" in run["error"]["message"]


async def test_target_that_never_answers_costs_no_more_than_the_timeout(engine: RunningEngine) -> None:
    async with serving(_hold) as server:
        run, states = await outcome(engine, server.url, "ask_briefly")
    assert states == ["timed_out", "timed_out"]
    assert run["error"]["type"] == "TimeoutError"
    first, _ = await engine.client.attempts(run["id"])
    assert 0.5 <= _seconds(first) < LONG


async def test_target_that_drips_costs_no_more_than_the_timeout(engine: RunningEngine) -> None:
    async with serving(_drip) as server:
        run, states = await outcome(engine, server.url, "ask_briefly")
    assert states == ["timed_out", "timed_out"]
    first, _ = await engine.client.attempts(run["id"])
    assert 0.5 <= _seconds(first) < LONG


async def _drip(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        await peer.send(b"1")
        await asyncio.sleep(0.02)


async def test_target_that_hangs_up_is_tried_again(engine: RunningEngine) -> None:
    async def hang_up(peer: Peer) -> None:
        await peer.request()

    async with serving(hang_up) as server:
        run, states = await outcome(engine, server.url)
    assert (states, run["error"]["type"]) == (["failed", "failed"], "ConnectionError")


async def _hold(peer: Peer) -> None:
    await peer.request()
    await peer.hold()


async def test_deadline_ends_a_step_whose_attempt_may_take_longer(engine: RunningEngine) -> None:
    async with serving(_hold) as server:
        run, states = await outcome(engine, server.url, "ask_soon")
    assert states == ["timed_out"]
    assert run["error"]["type"] in {"DeadlineExceeded", "TimeoutError"}


# --- targets that answer what cannot be used --------------------------------------------------------------------------


def _sending(data: bytes) -> Handler:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)

    return handle


async def test_target_that_does_not_speak_http_fails_the_step_at_once(engine: RunningEngine) -> None:
    async with serving(_sending(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")) as server:
        run, states = await outcome(engine, server.url)
    assert (states, run["state"]) == (["failed"], "failed")
    assert "HTTP" in run["error"]["message"]


@pytest.mark.parametrize(
    ("megabytes", "kind", "message"),
    [
        (20, "InvalidResult", "more than the 16777216 of result_max_bytes"),
        (40, "AnswerTooLarge", "body is larger than"),
    ],
)
async def test_target_that_answers_too_much_fails_the_step_at_once(
    engine: RunningEngine, megabytes: int, kind: str, message: str
) -> None:
    async with target(lambda _: Response(b"1" * megabytes * 1_000_000, media_type="application/json")) as service:
        run, states = await outcome(engine, service.url)
    assert (states, run["error"]["type"]) == (["failed"], kind)
    assert message in run["error"]["message"]


async def test_target_that_redirects_to_itself_is_called_once(engine: RunningEngine) -> None:
    async with target(lambda asked: Response(status_code=307, headers={"Location": asked.path})) as service:
        run, states = await outcome(engine, service.url)
        assert len(service.asked) == 1
    assert (states, run["error"]["type"]) == (["failed"], "HTTP307")


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        b'{"a": 1',
        b"NaN",
        b"1e999",
        b"[1] x",
        b"\xff",
        b'"1"',
        b"null",
        b"1.5",
        b"9" * 5000,
        b"[" * 5000,
    ],
    ids=["html", "nothing", "half", "nan", "huge", "more", "bytes", "text", "null", "fraction", "digits", "depth"],
)
async def test_result_that_is_not_of_the_type_fails_the_step_at_once(engine: RunningEngine, body: bytes) -> None:
    async with target(lambda _: Response(body, media_type="application/json")) as service:
        run, states = await outcome(engine, service.url)
    assert (states, run["error"]["type"]) == (["failed"], "InvalidResult")
    assert "HTTP 200" in run["error"]["message"]


@pytest.mark.parametrize("body", [rb'"\u0000"', rb'"\ud800"'], ids=["nul", "surrogate"])
async def test_result_that_no_store_can_hold_fails_the_step_and_never_loops(engine: RunningEngine, body: bytes) -> None:
    async with target(lambda _: Response(body, media_type="application/json")) as service:
        run, states = await outcome(engine, service.url, "spell")
    assert (states, run["error"]["type"]) == (["failed"], "InvalidResult")


async def test_status_that_is_no_success_fails_with_what_the_target_said(engine: RunningEngine) -> None:
    async with target(lambda _: json({"error": "no such shop"}, 404)) as service:
        run, states = await outcome(engine, service.url)
    assert (states, run["error"]["type"]) == (["failed"], "HTTP404")
    assert "no such shop" in run["error"]["message"]


async def test_5xx_is_tried_again(engine: RunningEngine) -> None:
    async with target(lambda asked: json(None, 500) if asked.attempt == 1 else json(3)) as service:
        run, states = await outcome(engine, service.url)
        assert [asked.headers["Idempotency-Key"] for asked in service.asked] == [f"{run['id']}/asked"] * 2
    assert (states, run["result"]) == (["failed", "succeeded"], 3)


async def test_retry_after_in_seconds_replaces_the_policy_s_wait(engine: RunningEngine) -> None:
    async with target(lambda asked: json(None, 503, Retry_After="1") if asked.attempt == 1 else json(3)) as service:
        run, states = await outcome(engine, service.url)
    assert states == ["failed", "succeeded"]
    assert 1.0 <= await _seconds_between(engine, run["id"]) < LONG


async def test_retry_after_as_a_date_is_waited_for(engine: RunningEngine) -> None:
    def busy(asked: Asked) -> Response:
        if asked.attempt > 1:
            return json(3)
        return json(None, 429, Retry_After=email.utils.formatdate(time.time() + 2, usegmt=True))

    async with target(busy) as service:
        run, _ = await outcome(engine, service.url)
    assert 0.9 <= await _seconds_between(engine, run["id"]) < LONG  # the date has whole seconds


async def test_retry_after_of_a_year_is_not_believed(tmp_path: Path) -> None:
    async with (
        running_engine(tmp_path / "another", retry_after_cap_seconds=0.2) as engine,
        target(lambda asked: json(None, 503, Retry_After="31536000") if asked.attempt == 1 else json(3)) as service,
    ):
        await engine.register(ask)
        run, _ = await outcome(engine, service.url)
    assert run["result"] == 3


# --- targets that answer 202 ------------------------------------------------------------------------------------------


async def test_202_without_a_callback_fails_at_the_deadline(engine: RunningEngine) -> None:
    async with target(accepted) as service:
        run, states = await outcome(engine, service.url, "ask_until")
        late = await service.asked[0].call_back({"result": 3})
    assert (states, run["error"]["type"]) == (["timed_out"], "DeadlineExceeded")
    assert late.status_code == 410


async def test_202_of_a_step_without_a_deadline_is_waited_for_as_long_as_the_settings_say(tmp_path: Path) -> None:
    async with (
        running_engine(tmp_path / "another", accepted_timeout_seconds=0.5) as engine,
        target(accepted) as service,
    ):
        await engine.register(ask)
        run, states = await outcome(engine, service.url)
    assert (set(states), run["error"]["type"]) == ({"timed_out"}, "TimeoutError")


async def waiting(engine: RunningEngine, url: str, name: str = "ask", step: str = "asked") -> str:
    """Return a run whose step waits for its callback."""
    run = await engine.client.start(name, {"url": url})
    await engine.client.step_in(run, step, "waiting")
    return run


async def test_callback_completes_the_step(engine: RunningEngine) -> None:
    async with target(accepted) as service:
        run = await waiting(engine, service.url)
        answer = await service.asked[0].call_back({"result": 3})
        assert (answer.status_code, answer.json()) == (200, {"outcome": "applied"})
        assert (await engine.client.ended(run))["result"] == 3


async def test_callback_before_the_202_is_told_to_come_back(engine: RunningEngine) -> None:
    early: list[int] = []

    async def call_back_first(asked: Asked) -> Response:
        answer = await asked.call_back({"result": 3})
        early.append(answer.status_code)
        assert answer.headers["Retry-After"] == "1"
        return accepted(asked)

    async with target(call_back_first) as service:
        run = await waiting(engine, service.url)
        assert early == [503]
        assert (await service.asked[0].call_back({"result": 3})).status_code == 200
        assert (await engine.client.ended(run))["result"] == 3


async def test_repeated_callback_is_answered_already(engine: RunningEngine) -> None:
    async with target(accepted) as service:
        run = await waiting(engine, service.url)
        await service.asked[0].call_back({"result": 3})
        await engine.client.ended(run)
        for _ in range(2):
            again = await service.asked[0].call_back({"result": 3})
            assert (again.status_code, again.json()) == (200, {"outcome": "already"})
        other = await service.asked[0].call_back({"result": 4})
        assert other.status_code == 410
        assert (await engine.client.run(run))["result"] == 3


async def test_repeated_callback_of_a_step_without_a_result_is_answered_already(engine: RunningEngine) -> None:
    async with target(accepted) as service:
        run = await waiting(engine, service.url, "tell", "told")
        await service.asked[0].call_back({"result": {"any": "thing"}})
        await engine.client.ended(run)
        again = await service.asked[0].call_back({"result": {"any": "thing"}})
        assert (again.status_code, again.json()) == (200, {"outcome": "already"})


async def test_callbacks_at_the_same_time_are_applied_once(engine: RunningEngine) -> None:
    async with target(accepted) as service:
        run = await waiting(engine, service.url)
        answers = await asyncio.gather(*(service.asked[0].call_back({"result": 3}) for _ in range(8)))
        outcomes = [answer.json().get("outcome") for answer in answers]
        assert outcomes.count("applied") == 1
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert (await engine.client.ended(run))["result"] == 3


async def test_callback_of_an_older_attempt_is_superseded(engine: RunningEngine) -> None:
    def busy_first(asked: Asked) -> Response:
        return json(None, 503) if asked.attempt == 1 else accepted(asked)

    async with target(busy_first) as service:
        run = await waiting(engine, service.url)
        assert (await service.asked[0].call_back({"result": 1})).status_code == 409
        assert (await service.asked[1].call_back({"result": 2})).status_code == 200
        assert (await engine.client.ended(run))["result"] == 2


async def test_callback_that_reports_a_failure_is_tried_again_by_policy(engine: RunningEngine) -> None:
    async with target(lambda asked: accepted(asked) if asked.attempt == 1 else json(2)) as service:
        run = await waiting(engine, service.url)
        report = {"error": {"type": "ConnectionError", "message": "the bank is closed"}}
        assert (await service.asked[0].call_back(report)).json() == {"outcome": "applied"}
        assert (await engine.client.ended(run))["result"] == 2
        first, _ = await engine.client.attempts(run)
        assert (first["state"], first["error"]["message"]) == ("failed", "the bank is closed")


async def test_failure_that_is_reported_again_is_known(engine: RunningEngine) -> None:
    report = {"error": {"type": "CardError", "message": "declined"}}
    async with target(accepted) as service:
        run = await waiting(engine, service.url)
        assert (await service.asked[0].call_back(report)).json() == {"outcome": "applied"}
        assert (await engine.client.ended(run))["error"]["message"] == "declined"
        again = await service.asked[0].call_back(report)
        assert (again.status_code, again.json()) == (200, {"outcome": "already"})


async def test_failure_that_is_reported_again_while_its_retry_waits_is_known(engine: RunningEngine) -> None:
    report = {"error": {"type": "ConnectionError", "message": "the bank is closed"}}
    async with target(accepted) as service:
        run = await engine.client.start("wait_long", {"url": service.url})
        await engine.client.step_in(run, "asked", "waiting")
        assert (await service.asked[0].call_back(report)).json() == {"outcome": "applied"}
        assert (await engine.client.step(run, "asked"))["state"] == "scheduled"
        again = await service.asked[0].call_back(report)
        assert (again.status_code, again.json()) == (200, {"outcome": "already"})
        assert (await service.asked[0].call_back({"result": 1})).status_code == 409


async def test_callback_after_the_step_ended_in_a_run_that_goes_on_is_superseded(engine: RunningEngine) -> None:
    async with target(accepted) as service, serving(_hold) as silent:
        run = await engine.client.start("ask_after", {"url": service.url, "next_url": silent.url})
        await engine.client.step_in(run, "asked", "waiting")
        assert (await service.asked[0].call_back({"result": 3})).status_code == 200
        await until(lambda: silent.requests, "the next step is sent")
        assert (await service.asked[0].call_back({"result": 3})).json() == {"outcome": "already"}
        assert (await service.asked[0].call_back({"result": 4})).status_code == 409


async def test_callback_after_cancel_changes_nothing(engine: RunningEngine) -> None:
    async with target(accepted) as service:
        run = await waiting(engine, service.url)
        await engine.client.ask("POST", f"/runs/{run}/cancel")
        assert (await service.asked[0].call_back({"result": 3})).status_code == 410
        assert (await engine.client.run(run))["state"] == "cancelled"


async def test_callback_with_another_token_is_refused(engine: RunningEngine) -> None:
    async with target(accepted) as service:
        run = await waiting(engine, service.url)
        await waiting(engine, service.url)
        first, second = service.asked
        other = second.headers["Hopline-Callback-Token"].encode()
        for token in (other, b"0" * 64, b"", "é".encode()):
            assert (await first.call_back({"result": 3}, token=token)).status_code == 401
        assert (await engine.client.step(run, "asked"))["state"] == "waiting"


async def test_callback_with_a_result_of_another_type_leaves_the_step_waiting(engine: RunningEngine) -> None:
    async with target(accepted) as service:
        run = await waiting(engine, service.url)
        wrong = await service.asked[0].call_back({"result": "three"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "invalid-result")
        assert wrong.json()["error"]["message"] == "asked: 'three' is not of type 'integer'"
        assert (await engine.client.step(run, "asked"))["state"] == "waiting"
        assert (await service.asked[0].call_back({"result": 3})).status_code == 200


def _seconds(attempt: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(attempt[name]) for name in ("started_at", "ended_at"))
    return (ended - began).total_seconds()


async def _seconds_between(engine: RunningEngine, run: str) -> float:
    """Return how long the first retry of a run waited."""
    first, second = await engine.client.attempts(run)
    return (datetime.fromisoformat(second["started_at"]) - datetime.fromisoformat(first["ended_at"])).total_seconds()
