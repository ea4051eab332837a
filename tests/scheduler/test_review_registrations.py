"""What registering definitions and workers leaves behind when it is refused, or done again."""

import hashlib
import json

import pytest

from hopline_engine.core.plan import Route
from hopline_engine.queue.workers import Worker, Workers
from tests.core.worlds import definition, ref, step
from tests.support.running_engine import RunningEngine

pytestmark = pytest.mark.anyio

ROUTE = Route("work", "s")


async def test_definition_of_a_refused_registration_cannot_be_called_by_a_later_one(engine: RunningEngine) -> None:
    child, wrong = definition("child", [step("work")]), definition("wrong", [step("a", {"x": ref("nowhere")})])
    refused = {"definitions": [child, wrong], "current": ["child"]}
    assert (await engine.client.http.post("/definitions", json=refused)).status_code == 422
    text = json.dumps(child, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    parent = {"definitions": [definition("parent", [step("sub", workflow=("child", digest))])], "current": ["parent"]}
    answer = await engine.client.http.post("/definitions", json=parent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid-definition")


async def test_members_of_a_queue_that_are_not_known_are_passed_over(engine: RunningEngine) -> None:
    body = definition("w", [step("work", queue="erp")])
    limits = {"max_dispatches_per_second": 2.0, "max_burst_size": None, "max_concurrent_dispatches": None}
    body["queues"] = [{"name": "erp", **limits, "later": True}]
    await engine.client.ask("POST", "/definitions", json={"definitions": [body], "current": ["w"]})
    assert (await engine.client.ask("GET", "/queues/erp"))["max_dispatches_per_second"] == 2.0


@pytest.mark.parametrize("limit", [{"max_dispatches_per_second": 1e-320}, {"max_burst_size": 10**30}])
async def test_limit_of_a_queue_that_cannot_be_kept_is_refused(engine: RunningEngine, limit: dict[str, float]) -> None:
    body = definition("w", [step("work", queue="erp")])
    none = {"max_dispatches_per_second": None, "max_burst_size": None, "max_concurrent_dispatches": None}
    body["queues"] = [{"name": "erp", **none, **limit}]
    answer = await engine.client.http.post("/definitions", json={"definitions": [body], "current": ["w"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid-definition")


def registered(concurrency: int = 1) -> Worker:
    return Worker(
        id="w_1",
        url="http://127.0.0.1:1",
        token="t",
        concurrency=concurrency,
        routes=frozenset({ROUTE}),
        pid=None,
        host=None,
        seen_at=0.0,
    )


@pytest.mark.parametrize("was_dropped", [False, True])
def test_worker_that_registers_again_gets_no_more_than_its_concurrency(*, was_dropped: bool) -> None:
    workers = Workers()
    workers.add(registered())
    busy = workers.reserve(ROUTE)
    assert busy is not None
    if was_dropped:
        workers.remove("w_1")
    workers.add(registered())
    assert workers.reserve(ROUTE) is None
    busy.load.in_flight -= 1  # answered
    again = workers.reserve(ROUTE)
    assert again is not None
    assert again is not busy
    assert again.in_flight == 1
