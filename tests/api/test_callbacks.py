"""Callbacks: every answer that a report can get."""

import httpx
import pytest

from hopline_engine.api.interface import StepFailure, StepResult
from hopline_engine.core.model import RunState
from tests.api.conftest import client_of, refusal, start
from tests.api.small_engine import TOKEN, SmallEngine

pytestmark = pytest.mark.anyio

WITH_TOKEN = {"Hopline-Callback-Token": TOKEN}


def path(run: str, attempt: int | str = 2, step: str = "charge") -> str:
    return f"/api/v1/callbacks/{run}/{attempt}/{step}"


async def test_report_is_applied_once_and_its_repetition_is_known(
    client: httpx.AsyncClient, engine: SmallEngine
) -> None:
    run = await start(client)
    for outcome in ("applied", "already"):
        response = await client.post(path(run), headers=WITH_TOKEN, content=b'{"result": 12 }')
        assert (response.status_code, response.json()) == (200, {"outcome": outcome})
    assert engine.report_of(run, "charge") == StepResult(body=b"12")


async def test_failure_is_reported_with_its_type(client: httpx.AsyncClient, engine: SmallEngine) -> None:
    run = await start(client)
    body = {"error": {"message": "card declined", "type": "CardError"}}
    response = await client.post(path(run), headers=WITH_TOKEN, json=body)
    assert response.json() == {"outcome": "applied"}
    assert engine.report_of(run, "charge") == StepFailure(type="CardError", message="card declined")


async def test_element_of_a_map_is_named_in_brackets(client: httpx.AsyncClient, engine: SmallEngine) -> None:
    run = await start(client)
    response = await client.post(path(run, step="charge%5B3%5D"), headers=WITH_TOKEN, json={"result": 1})
    assert response.status_code == 200
    assert engine.report_of(run, "charge[3]") == StepResult(body=b"1")


async def test_older_attempt_is_409(client: httpx.AsyncClient) -> None:
    run = await start(client)
    response = await client.post(path(run, attempt=1), headers=WITH_TOKEN, json={"result": 1})
    assert refusal(response) == (409, "attempt-superseded")


async def test_ended_run_is_410(client: httpx.AsyncClient, engine: SmallEngine) -> None:
    run = await start(client)
    await engine.end(run, RunState.CANCELLED)
    assert refusal(await client.post(path(run), headers=WITH_TOKEN, json={"result": 1})) == (410, "run-ended")


async def test_unknown_attempt_is_503_and_asks_to_try_again(client: httpx.AsyncClient) -> None:
    response = await client.post(path("r_lost"), headers=WITH_TOKEN, json={"result": 1})
    assert refusal(response) == (503, "attempt-unknown")
    assert response.headers["retry-after"] == "1"


async def test_result_of_another_type_is_422_and_may_be_corrected(client: httpx.AsyncClient) -> None:
    run = await start(client)
    response = await client.post(path(run), headers=WITH_TOKEN, json={"result": []})
    assert refusal(response) == (422, "invalid-result")
    assert response.json()["error"]["message"] == "[]: not an integer"
    assert (await client.post(path(run), headers=WITH_TOKEN, json={"result": 1})).json() == {"outcome": "applied"}


async def test_forged_token_is_401(client: httpx.AsyncClient) -> None:
    run = await start(client)
    response = await client.post(path(run), headers={"Hopline-Callback-Token": "x"}, json={"result": 1})
    assert refusal(response) == (401, "bad-callback-token")


async def test_missing_token_is_401_before_the_body_is_read(client: httpx.AsyncClient) -> None:
    for headers in ({}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer "}):
        response = await client.post(path("r_any"), headers=headers, content=b"not json")
        assert refusal(response) == (401, "bad-callback-token")


async def test_token_may_be_sent_as_bearer(client: httpx.AsyncClient) -> None:
    run = await start(client)
    response = await client.post(path(run), headers={"Authorization": f"Bearer {TOKEN}"}, json={"result": 1})
    assert response.json() == {"outcome": "applied"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", (422, "invalid-request")),
        (b'{"result": 1, "error": {"message": "no"}}', (422, "invalid-request")),
        (b'{"error": "no"}', (422, "invalid-request")),
        (b'{"results": 1}', (422, "invalid-request")),
        (b'{"result": NaN}', (400, "invalid-json")),
        (rb'{"result": "\u0000"}', (400, "invalid-json")),
        (b"", (400, "invalid-json")),
    ],
)
async def test_report_of_another_shape_is_refused(
    client: httpx.AsyncClient, body: bytes, expected: tuple[int, str]
) -> None:
    run = await start(client)
    assert refusal(await client.post(path(run), headers=WITH_TOKEN, content=body)) == expected


async def test_null_is_a_result_and_a_null_error_is_none(client: httpx.AsyncClient, engine: SmallEngine) -> None:
    run = await start(client)
    response = await client.post(path(run), headers=WITH_TOKEN, content=b'{"result": 5, "error": null}')
    assert response.json() == {"outcome": "applied"}
    response = await client.post(path(run), headers=WITH_TOKEN, content=b'{"result": null}')
    assert refusal(response) == (422, "invalid-result")


@pytest.mark.parametrize("attempt", ["0", "-1", "x", "9" * 30, "9" * 5000])
async def test_attempt_that_is_no_number_of_one_is_refused(client: httpx.AsyncClient, attempt: str) -> None:
    response = await client.post(path("r_any", attempt), headers=WITH_TOKEN, json={"result": 1})
    assert refusal(response) == (422, "invalid-request")


async def test_report_may_be_as_large_as_a_result(engine: SmallEngine) -> None:
    async with client_of(engine, result_max_bytes=2_000_000) as client:
        run = await start(client)
        fits = await client.post(path(run), headers=WITH_TOKEN, json={"result": "x" * 1_900_000})
        assert refusal(fits) == (422, "invalid-result")
        too_large = await client.post(path(run), headers=WITH_TOKEN, json={"result": "x" * 2_100_000})
        assert refusal(too_large) == (413, "body-too-large")
