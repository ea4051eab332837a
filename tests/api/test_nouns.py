"""Workflows, workers, queues, health, and the document that describes all of it."""

import inspect
from collections.abc import Iterator

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from hopline_engine.api.app import ROUTERS, SHORTCUTS
from tests.api.conftest import refusal
from tests.api.small_engine import DEFINITION

pytestmark = pytest.mark.anyio

REGISTRATION = {
    "url": "http://127.0.0.1:43121",
    "token": "w0rker",
    "concurrency": 64,
    "steps": [{"name": "totals", "signature": "0123456789abcdef"}],
    "pid": 1,
    "host": "box",
}


async def test_registered_workflow_is_listed_and_shown(client: httpx.AsyncClient) -> None:
    sent = {"definitions": [{**DEFINITION, "name": "report"}], "current": ["report"]}
    assert (await client.post("/api/v1/definitions", json=sent)).status_code == 200
    listed = (await client.get("/api/v1/workflows")).json()["workflows"]
    assert [workflow["name"] for workflow in listed] == ["report", "sales"]
    assert all(workflow.keys() == {"name", "digest", "steps", "served", "parameters"} for workflow in listed)
    shown = (await client.get("/api/v1/workflows/report")).json()
    assert shown == {**listed[0], "definition": {**DEFINITION, "name": "report"}}


async def test_invalid_definition_is_422(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/v1/definitions", json={"definitions": [{"name": "x"}], "current": []})
    assert refusal(response) == (422, "invalid-definition")


async def test_unknown_names_are_404(client: httpx.AsyncClient) -> None:
    assert refusal(await client.get("/api/v1/workflows/nothing")) == (404, "workflow-not-found")
    assert refusal(await client.get("/api/v1/queues/nothing")) == (404, "queue-not-found")
    assert refusal(await client.post("/api/v1/queues/nothing/pause")) == (404, "queue-not-found")


async def test_worker_comes_stays_and_leaves(client: httpx.AsyncClient) -> None:
    assert refusal(await client.post("/api/v1/workers/w_1/heartbeat")) == (404, "worker-not-found")
    registered = await client.put("/api/v1/workers/w_1", json=REGISTRATION)
    assert registered.status_code == 200
    terms = {"node": "n_1", "nodes": [], "result_max_bytes": 16_777_216}
    assert (await client.post("/api/v1/workers/w_1/heartbeat")).json() == terms
    (listed,) = (await client.get("/api/v1/workers")).json()["workers"]
    assert registered.json() == listed | terms
    for _ in range(2):
        assert (await client.delete("/api/v1/workers/w_1")).status_code == 204
    assert (await client.get("/api/v1/workers")).json() == {"workers": []}


async def test_token_of_a_worker_is_never_shown(client: httpx.AsyncClient) -> None:
    response = await client.put("/api/v1/workers/w_1", json=REGISTRATION)
    shown = {"id", "url", "pid", "host", "concurrency", "in_flight", "steps", "files", "reloads", "seen_at"}
    assert response.json().keys() == shown | {"node", "nodes", "result_max_bytes"}
    assert "w0rker" not in response.text + (await client.get("/api/v1/workers")).text


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "file:///etc/passwd"},
        {"url": "http://user@box:1"},
        {"url": "http://box:1/"},
        {"url": "http://box:1?x"},
        {"token": "two\r\nlines"},
        {"token": ""},
        {"concurrency": 0},
        {"concurrency": "64"},
        {"steps": [{"name": "totals"}]},
    ],
)
async def test_worker_that_cannot_be_called_is_422(client: httpx.AsyncClient, wrong: dict[str, object]) -> None:
    response = await client.put("/api/v1/workers/w_1", json={**REGISTRATION, **wrong})
    assert refusal(response) == (422, "invalid-request")
    assert (await client.get("/api/v1/workers")).json() == {"workers": []}


async def test_worker_behind_a_path_can_register(client: httpx.AsyncClient) -> None:
    response = await client.put("/api/v1/workers/w_1", json={**REGISTRATION, "url": "https://[::1]:1/workers/one"})
    assert response.status_code == 200


async def test_queue_is_paused_and_resumed(client: httpx.AsyncClient) -> None:
    for action, state in (("pause", "paused"), ("pause", "paused"), ("resume", "running")):
        response = await client.post(f"/api/v1/queues/mail/{action}")
        assert (response.status_code, response.json()["state"]) == (200, state)
    queues = (await client.get("/api/v1/queues")).json()["queues"]
    assert [queue["name"] for queue in queues] == ["default", "mail"]


async def test_limits_that_are_left_out_stay_and_null_removes_one(client: httpx.AsyncClient) -> None:
    await client.patch("/api/v1/queues/mail", json={"max_dispatches_per_second": 2.5, "max_burst_size": 5})
    await client.patch("/api/v1/queues/mail", json={"max_burst_size": None})
    shown = (await client.get("/api/v1/queues/mail")).json()
    assert shown == {
        "name": "mail",
        "state": "running",
        "max_dispatches_per_second": 2.5,
        "max_burst_size": None,
        "max_concurrent_dispatches": 1000,
        "ready": 0,
        "waiting_for_key": 0,
        "scheduled": 0,
        "in_flight": 0,
        "oldest_ready_seconds": None,
    }


@pytest.mark.parametrize(
    "limits", [{"max_dispatches_per_second": 0}, {"max_burst_size": 1.5}, {"max_concurrent_dispatches": -1}, {"x": 1}]
)
async def test_limit_that_cannot_be_is_422(client: httpx.AsyncClient, limits: dict[str, object]) -> None:
    assert refusal(await client.patch("/api/v1/queues/mail", json=limits)) == (422, "invalid-request")


async def test_doctor_says_what_is_wrong_with_evidence_and_what_to_do(client: httpx.AsyncClient) -> None:
    answered = (await client.get("/api/v1/doctor")).json()
    store, stuck = answered["checks"]
    assert (answered["ok"], answered["healed"]) == (False, {"stuck-run": 2})
    assert store == {
        "name": "store", "state": "ok", "text": "sqlite at sales.db", "hint": None, "evidence": [], "is_audit": False
    }  # fmt: skip
    assert (stuck["state"], stuck["hint"], stuck["evidence"]) == ("wrong", "serve", [{"id": 7}])


async def test_health_counts_what_was_repaired(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v1/health")).json()["healed"] == {"stuck-run": 2}


async def test_health_says_the_version_and_signs_of_life_do_not(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v1/health")).json().keys() == {"status", "version", "node", "healed"}
    for path in ("/healthz", "/readyz"):
        assert (await client.get(path)).json() == {"status": "ok"}


async def test_document_describes_every_body_and_answer(client: httpx.AsyncClient) -> None:
    document = (await client.get("/api/v1/openapi.json")).json()
    schemas = document["components"]["schemas"]
    references = set[str]()
    collect_references(document, references)
    assert references <= {f"#/components/schemas/{name}" for name in schemas}
    assert {"RunRequest", "WorkerRegistration", "CallbackReport", "ErrorAnswer", "RunDetail"} <= schemas.keys()
    body = document["paths"]["/api/v1/runs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/RunRequest"}


def collect_references(part: object, found: set[str]) -> None:
    if isinstance(part, dict):
        found.update(value for key, value in part.items() if key == "$ref")
        for value in part.values():
            collect_references(value, found)
    if isinstance(part, list):
        for value in part:
            collect_references(value, found)


async def test_every_shortcut_leads_to_the_function_of_its_route() -> None:
    routes = {
        (method, prefix + route.path): route.endpoint
        for prefix, router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert SHORTCUTS.items() <= routes.items()


async def test_no_pages_that_load_scripts_from_elsewhere_are_served(client: httpx.AsyncClient) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert (await client.get(path)).status_code == 404


def test_no_route_needs_a_thread() -> None:
    routes = [route for _, router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    calls = [call for route in routes for call in calls_of(route.dependant)]
    assert len(calls) > len(routes) > 20
    assert all(inspect.iscoroutinefunction(call) for call in calls)


def calls_of(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for needed in dependant.dependencies:
        yield from calls_of(needed)
