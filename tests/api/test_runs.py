"""Runs over HTTP."""

import httpx
import pytest

from hopline_engine.core.model import RunState, StepState
from tests.api.conftest import refusal, start
from tests.api.small_engine import SmallEngine

pytestmark = pytest.mark.anyio

RUN_KEYS = {
    "id",
    "workflow",
    "scheduled",
    "priority",
    "deadline_at",
    "digest",
    "state",
    "input",
    "result",
    "error",
    "idempotency_key",
    "fork_of",
    "retry_of",
    "parent",
    "created_at",
    "ended_at",
    "steps_total",
    "steps_done",
    "note",
}
STEP_KEYS = {
    "id",
    "reused",
    "kind",
    "state",
    "attempts",
    "items",
    "started_at",
    "ended_at",
    "upstream",
    "level",
    "error",
    "next_at",
    "note",
    "bars",
    "runs",
}


async def test_started_run_is_answered_with_201_and_its_record(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/v1/runs", json={"workflow": "sales", "input": {"shop": "Kiel"}})
    assert response.status_code == 201
    run = response.json()
    assert run.keys() == RUN_KEYS
    assert (run["state"], run["input"], run["result"]) == ("running", {"shop": "Kiel"}, None)
    assert (run["created_at"], run["ended_at"]) == ("2026-11-21T02:00:46.500Z", None)


async def test_same_idempotency_key_is_answered_with_200_and_the_first_run(client: httpx.AsyncClient) -> None:
    body = {"workflow": "sales", "input": {"shop": "Kiel"}, "idempotency_key": "2026-11-21"}
    first = await client.post("/api/v1/runs", json=body)
    second = await client.post("/api/v1/runs", json=body)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()


async def test_unknown_workflow_is_404_and_says_what_was_meant(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/v1/runs", json={"workflow": "seles", "input": {}})
    assert refusal(response) == (404, "workflow-not-found")
    assert response.json()["error"]["hint"] == 'did you mean "sales"?'


async def test_wrong_input_is_422_and_names_every_parameter(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/v1/runs", json={"workflow": "sales", "input": {"shopp": 1}})
    assert refusal(response) == (422, "invalid-input")
    assert response.json()["error"]["message"] == "input of sales: shop is missing; shopp is unknown"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "workflow: Field required"),
        ({"workflow": 7}, "workflow: Input should be a valid string"),
        ({"workflow": "sales", "inputs": {}}, "inputs: Extra inputs are not permitted"),
        ({"workflow": "sales", "input": [1]}, "input: Input should be a valid dictionary"),
        ({"workflow": "sales", "idempotency_key": ""}, "idempotency_key: String should have at least 1 character"),
        ([], "Input should be a valid dictionary or instance of RunRequest"),
    ],
)
async def test_request_of_another_shape_is_422_and_names_the_field(
    client: httpx.AsyncClient, body: object, problem: str
) -> None:
    response = await client.post("/api/v1/runs", json=body)
    assert refusal(response) == (422, "invalid-request")
    assert response.json()["error"]["message"] == problem


async def test_run_is_shown_with_its_steps_under_every_form_of_its_name(client: httpx.AsyncClient) -> None:
    run = await start(client)
    for ref in (run, run[:3], run.removeprefix("r_"), "@last"):
        shown = (await client.get(f"/api/v1/runs/{ref}")).json()
        assert shown["id"] == run
        assert shown.keys() == RUN_KEYS | {"steps"}
        assert [step.keys() for step in shown["steps"]] == [STEP_KEYS, STEP_KEYS]


async def test_unknown_and_ambiguous_names_are_refused_everywhere(client: httpx.AsyncClient) -> None:
    await start(client)
    await start(client)
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/logs"),
        ("GET", "/output"),
        ("GET", "/why"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ):
        unknown = await client.request(method, f"/api/v1/runs/r_zzz{path}")
        assert refusal(unknown) == (404, "run-not-found")
        ambiguous = await client.request(method, f"/api/v1/runs/r_{path}")
        assert refusal(ambiguous) == (409, "run-ambiguous")


async def test_list_is_newest_first_and_leaves_inputs_and_results_out(client: httpx.AsyncClient) -> None:
    runs = [await start(client) for _ in range(3)]
    page = (await client.get("/api/v1/runs")).json()
    assert [run["id"] for run in page["runs"]] == runs[::-1]
    assert all(run.keys() == RUN_KEYS - {"input", "result", "scheduled"} for run in page["runs"])
    assert page["next"] is None


async def test_pages_together_are_the_whole_list(client: httpx.AsyncClient) -> None:
    runs = [await start(client) for _ in range(5)]
    seen: list[str] = []
    query: dict[str, str] = {"limit": "2"}
    while True:
        page = (await client.get("/api/v1/runs", params=query)).json()
        seen += [run["id"] for run in page["runs"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert seen == runs[::-1]


async def test_list_is_filtered_by_state_workflow_and_time(client: httpx.AsyncClient, engine: SmallEngine) -> None:
    failed, _ = await start(client), await start(client)
    await engine.end(failed, RunState.FAILED)
    for query, count in (
        ({"state": "failed"}, 1),
        ({"workflow": "sales"}, 2),
        ({"workflow": "other"}, 0),
        ({"since": "2026-11-21T03:00:46+01:00"}, 2),
        ({"since": "2026-11-21T02:00:47Z"}, 0),
    ):
        page = (await client.get("/api/v1/runs", params=query)).json()
        assert len(page["runs"]) == count, query


@pytest.mark.parametrize(
    "query", ["state=faild", "limit=0", "limit=501", f"limit={'9' * 5000}", "since=noon", "since=2026-11-21", "stat=x"]
)
async def test_query_that_is_not_understood_is_422(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"/api/v1/runs?{query}")
    assert refusal(response) == (422, "invalid-request")
    assert query.partition("=")[0] in response.json()["error"]["message"]


async def test_output_is_the_stored_result(client: httpx.AsyncClient, engine: SmallEngine) -> None:
    run = await start(client)
    assert refusal(await client.get(f"/api/v1/runs/{run}/output")) == (409, "run-not-finished")
    await engine.end(run, RunState.SUCCEEDED, {"total": 12.5, "shops": ["Kiel", "Lübeck"]})
    response = await client.get(f"/api/v1/runs/{run}/output")
    assert response.json() == {"result": {"total": 12.5, "shops": ["Kiel", "Lübeck"]}}
    assert response.headers["content-type"] == "application/json"


async def test_failed_run_has_no_output_but_an_error(client: httpx.AsyncClient, engine: SmallEngine) -> None:
    run = await start(client)
    await engine.end(run, RunState.FAILED)
    assert refusal(await client.get(f"/api/v1/runs/{run}/output")) == (409, "run-not-succeeded")
    error = (await client.get("/api/v1/runs/@failed")).json()["error"]
    assert error == {"step": "charge", "type": "ValueError", "message": "no money", "traceback": None}


async def test_logs_are_the_attempts_of_one_step_or_all(client: httpx.AsyncClient, engine: SmallEngine) -> None:
    run = await start(client)
    await engine.move(run, "load", StepState.SUCCEEDED)
    (attempt,) = (await client.get(f"/api/v1/runs/{run}/logs")).json()["attempts"]
    assert attempt == {
        "step": "load",
        "item": None,
        "attempt": 1,
        "state": "succeeded",
        "status": 200,
        "error": None,
        "logs": "hello\n",
        "started_at": "2026-11-21T02:00:46.500Z",
        "ended_at": "2026-11-21T02:00:47.500Z",
    }
    of_other = await client.get(f"/api/v1/runs/{run}/logs", params={"step": "charge", "attempt": 1})
    assert of_other.json() == {"attempts": []}


async def test_unknown_step_is_404_and_says_what_was_meant(client: httpx.AsyncClient) -> None:
    run = await start(client)
    for path in ("logs", "why"):
        response = await client.get(f"/api/v1/runs/{run}/{path}", params={"step": "chrage"})
        assert refusal(response) == (404, "step-not-found")
        assert response.json()["error"]["hint"] == 'did you mean "charge"?'


async def test_why_gives_one_reason_a_step(client: httpx.AsyncClient) -> None:
    run = await start(client)
    response = await client.get(f"/api/v1/runs/{run}/why", params={"step": "charge"})
    reason = {"step": "charge", "item": None, "reason": "no_worker", "text": "no worker serves charge"}
    assert response.json() == {"run": run, "state": "running", "reasons": [reason]}


async def test_second_cancel_is_refused(client: httpx.AsyncClient) -> None:
    run = await start(client)
    first = await client.post(f"/api/v1/runs/{run}/cancel")
    assert (first.status_code, first.json()["state"]) == (200, "cancelled")
    assert refusal(await client.post(f"/api/v1/runs/{run}/cancel")) == (409, "run-ended")


async def test_retry_makes_a_new_run_that_names_the_old_one(client: httpx.AsyncClient, engine: SmallEngine) -> None:
    run = await start(client)
    assert refusal(await client.post(f"/api/v1/runs/{run}/retry")) == (409, "run-not-finished")
    await engine.end(run, RunState.FAILED)
    response = await client.post(f"/api/v1/runs/{run}/retry")
    assert response.status_code == 201
    assert response.json()["retry_of"] == run
    await engine.end(response.json()["id"], RunState.SUCCEEDED)
    assert refusal(await client.post(f"/api/v1/runs/{response.json()['id']}/retry")) == (409, "run-not-retryable")
