"""What goes wrong looks the same everywhere and tells nothing it should not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from hopline.errors import HoplineError
from hopline_engine import errors
from hopline_engine.api import body
from hopline_engine.api.errors import answer_to
from hopline_engine.store.errors import ChangesRefusedError
from tests.api.conftest import refusal, start
from tests.api.small_engine import SmallEngine

pytestmark = pytest.mark.anyio


def subclasses(kind: type[HoplineError]) -> Iterator[type[HoplineError]]:
    for found in kind.__subclasses__():
        yield found
        yield from subclasses(found)


class BrokenEngine(SmallEngine):
    """An engine with a bug."""

    async def queues(self) -> Any:
        raise RuntimeError("/home/me/secret.db: SELECT * FROM run")


@pytest.fixture
async def engine() -> SmallEngine:
    return BrokenEngine()


async def test_bug_is_answered_with_a_request_id_that_the_log_explains(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        response = await client.get("/api/v1/queues")
    assert refusal(response) == (500, "internal-error")
    assert "secret" not in response.text
    (record,) = caplog.records
    request_id = response.headers["x-request-id"]
    assert request_id in response.json()["error"]["message"]
    assert request_id in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


async def test_unknown_paths_and_methods_have_the_shape_of_errors(client: httpx.AsyncClient) -> None:
    assert refusal(await client.get("/api/v1/nothing")) == (404, "not-found")
    assert refusal(await client.get("/api/v1/runs/")) == (404, "not-found")
    response = await client.delete("/api/v1/runs")
    assert refusal(response) == (405, "method-not-allowed")
    assert response.headers["allow"]


def test_every_error_of_the_engine_that_a_caller_can_cause_has_a_status() -> None:
    for group, status in (
        (errors.NotFoundError, 404),
        (errors.ConflictError, 409),
        (errors.InvalidError, 422),
        (errors.UnavailableError, 503),
    ):
        for kind in (group, *subclasses(group)):
            error = kind.__new__(kind)
            HoplineError.__init__(error, "something", hint=None)
            assert answer_to(error).status_code == status, kind


def test_refused_decision_is_asked_for_again_and_says_nothing_of_the_database() -> None:
    answer = answer_to(ChangesRefusedError("UNIQUE constraint failed: step_run.run_id"))
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert b"step_run" not in bytes(answer.body)


def test_codes_of_errors_are_different() -> None:
    codes = [kind.code for group in (errors.NotFoundError, errors.ConflictError) for kind in subclasses(group)]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b'{"workflow": NaN}', "malformed"),
        (b'{"workflow": "\xff"}', "not UTF-8"),
        (rb'{"workflow": "a\u0000"}', "NUL"),
        (rb'{"workflow": "\udc00 lone"}', "surrogate"),
        (b'{"workflow": "a", "workflow": "b"}', "twice"),
        (b'{"input": ' + b"[" * 65 + b"]" * 65 + b"}", "deeper than 64"),
        (b"[" * 100_000, "deeper than 64"),
        (b'{"input": ' + b"9" * 5000 + b"}", "out of range"),
        (b'{"input": 1e999}', "out of range"),
    ],
)
async def test_json_that_could_not_be_stored_is_400(client: httpx.AsyncClient, text: bytes, problem: str) -> None:
    response = await client.post("/api/v1/runs", content=text)
    assert refusal(response) == (400, "invalid-json")
    assert problem in response.json()["error"]["message"]


async def test_body_over_the_limit_is_413_whether_its_length_was_told_or_not(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 65_536

    for content in (b" " * 1_048_577, chunks(), b" " * 20_000_000):
        response = await client.post("/api/v1/runs", content=content)
        assert refusal(response) == (413, "body-too-large")
        assert response.headers["connection"] == "close"


async def test_client_that_is_still_sending_sees_the_refusal(server: httpx.AsyncClient) -> None:
    response = await server.post("/api/v1/runs", content=b" " * 5_000_000)
    assert refusal(response) == (413, "body-too-large")


async def test_definitions_may_be_larger_than_other_bodies(client: httpx.AsyncClient) -> None:
    definition = {"name": "large", "nodes": [], "parameters": {"title": "x" * 2_000_000}}
    sent = {"definitions": [definition], "current": ["large"]}
    assert (await client.post("/api/v1/definitions", json=sent)).json()["definitions"] == 1


async def test_body_that_does_not_arrive_is_408(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silence() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    monkeypatch.setattr(body, "BODY_SECONDS", 0.01)
    assert refusal(await client.post("/api/v1/runs", content=silence())) == (408, "body-too-slow")


async def test_engine_that_stops_is_503(client: httpx.AsyncClient, engine: SmallEngine) -> None:
    engine.is_running = False
    for path in ("/readyz", "/api/v1/health"):
        response = await client.get(path)
        assert refusal(response) == (503, "engine-stopping")
        assert response.headers["retry-after"] == "1"
    assert (await client.get("/healthz")).status_code == 200


async def test_text_of_users_is_not_interpreted(client: httpx.AsyncClient) -> None:
    name = "\x1b]0;title\x07<script>\n\u202e"
    response = await client.post("/api/v1/runs", json={"workflow": name})
    assert refusal(response) == (404, "workflow-not-found")
    assert response.content.isascii()
    assert b"\x1b" not in response.content
    assert response.headers["content-type"] == "application/json"


async def test_long_names_are_refused(client: httpx.AsyncClient) -> None:
    assert refusal(await client.get(f"/api/v1/runs/{'r' * 65}")) == (422, "invalid-request")
    with pytest.raises(AssertionError, match="404"):
        await start(client)
