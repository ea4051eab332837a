"""Batch calls: what became of each part, and that what is said several times is done once, whoever says it."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.queue_api.conftest import PARENT
from tests.support.postgres import database_for_threads
from tests.support.queue_service import PYTHON, Client, RunningService, refusal, running_service
from tests.support.waiting import WITHIN

CALLS = 8
TASK = {"httpRequest": {"url": "http://localhost/x"}}


def post_together(urls: Sequence[str], path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Post the same to all of some servers at the same moment, and return what they answer."""
    start = threading.Barrier(len(urls))

    def post(url: str) -> dict[str, Any]:
        with httpx.Client(base_url=url, trust_env=False, verify=False, timeout=WITHIN) as http:
            http.get("/healthz")
            start.wait(WITHIN)
            answer = http.post(path, json=body)
            assert answer.is_success, answer.text
            return dict(answer.json())

    with ThreadPoolExecutor(len(urls)) as pool:
        return list(pool.map(post, urls))


@pytest.fixture
def queue(rest: Client, queue_name: str) -> str:
    """Return a queue that sends nothing."""
    rest.create_queue(parent=PARENT, queue={"name": queue_name})
    rest.pause_queue(name=queue_name)
    return queue_name


def test_calls_with_one_request_id_that_come_together_are_one(
    service: RunningService, rest: Client, queue: str
) -> None:
    body = {"requests": [{"parent": queue, "task": TASK}] * 3, "requestId": "once"}

    operations = post_together([service.url] * CALLS, f"/v2/{queue}/tasks:batchCreate", body)

    assert all(operation == operations[0] for operation in operations)
    made = {task["name"] for task in operations[0]["response"]["tasks"]}
    assert {task.name for task in rest.list_tasks(parent=queue)} == made
    assert len(made) == 3


def test_tasks_that_are_deleted_twice_with_one_request_id_are_deleted_once(
    service: RunningService, rest: Client, queue: str
) -> None:
    names = [rest.create_task(parent=queue, task={"http_request": {"url": "http://x"}}).name for _ in range(3)]
    body = {"names": names, "requestId": "once"}

    operations = post_together([service.url] * CALLS, f"/v2/{queue}/tasks:batchDelete", body)

    assert {operation["metadata"]["state"] for operation in operations} == {"SUCCEEDED"}
    assert rest.list_tasks(parent=queue) == []


def test_one_request_id_of_two_methods_is_two_operations(rest: Client, queue: str) -> None:
    task = {"http_request": {"url": "http://x"}, "name": f"{queue}/tasks/t"}
    made = rest.batch_create_tasks(parent=queue, requests=[{"parent": queue, "task": task}], request_id="same")
    deleted = rest.batch_delete_tasks(parent=queue, names=[f"{queue}/tasks/t"], request_id="same")

    assert made.operation.name != deleted.operation.name
    assert rest.list_tasks(parent=queue) == []


def test_calls_to_several_servers_with_one_request_id_are_one(tmp_path: Path, queue_name: str) -> None:
    with (
        database_for_threads() as store,
        running_service(tmp_path / "one", store=store) as one,
        running_service(tmp_path / "two", store=store) as two,
        httpx.Client(base_url=one.url, trust_env=False, verify=False, timeout=WITHIN) as http,
    ):
        assert http.post(f"/v2/{PARENT}/queues", json={"name": queue_name}).is_success
        assert http.post(f"/v2/{queue_name}:pause").is_success
        body = {"requests": [{"parent": queue_name, "task": TASK}], "requestId": "once"}

        operations = post_together([one.url, two.url] * 4, f"/v2/{queue_name}/tasks:batchCreate", body)

        assert len({operation["name"] for operation in operations}) == 1
        assert len(http.get(f"/v2/{queue_name}/tasks").json()["tasks"]) == 1


@pytest.mark.parametrize("version", ["v2", "v2beta3"])
@pytest.mark.parametrize("transport", PYTHON)
def test_an_operation_can_be_asked_for_again(service: RunningService, transport: str, version: str, queue: str) -> None:
    client = service.client(transport, version)
    requests = [{"parent": queue, "task": {"http_request": {"url": url}}} for url in ("http://x", "")]

    made = client.batch_create_tasks(parent=queue, requests=requests)
    operation = made.operation
    found = client.get_operation(name=operation.name)

    assert found == operation
    assert found.done
    metadata = client.types.BatchCreateTasksMetadata.deserialize(found.metadata.value)
    assert metadata.state.name == "PARTIALLY_SUCCEEDED"
    assert {at: status.code for at, status in metadata.failed_requests.items()} == {1: 3}
    answer = client.types.BatchCreateTasksResponse.deserialize(found.response.value)
    assert [task.http_request.url for task in answer.tasks] == ["http://x"]
    assert refusal(client.get_operation, name=f"{operation.name}x")[0] == "NOT_FOUND"
    client.close()


@pytest.mark.parametrize("version", ["v2", "v2beta3", "v2beta2"])
@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_location_can_be_asked_for(service: RunningService, transport: str, version: str, queue: str) -> None:
    client = service.client(transport, version)

    found = client.get_location(name=PARENT)

    assert (found.name, found.location_id) == (PARENT, "us-central1")
    client.close()
