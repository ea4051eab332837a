"""Tasks that have used up their attempts: gone for clients, kept for people, who look at them, run or delete them."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.queue_api.conftest import PARENT, PushTarget
from tests.support.queue_service import Client, RunningService, refusal
from tests.support.waiting import WITHIN

Eventually = Callable[[Callable[[], Any], str], Any]

QUICK = {"min_backoff": Duration(nanos=20_000_000), "max_backoff": Duration(nanos=20_000_000)}


@pytest.fixture
def http(service: RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, trust_env=False, timeout=WITHIN) as made:
        yield made


@pytest.fixture
def queue(rest: Client, queue_name: str) -> str:
    """Return a queue that gives up after two attempts."""
    rest.create_queue(parent=PARENT, queue={"name": queue_name, "retry_config": {"max_attempts": 2, **QUICK}})
    return queue_name


def dead(http: httpx.Client, queue: str, version: str = "v2") -> list[Any]:
    answer = http.get(f"/{version}/{queue}/deadTasks")
    answer.raise_for_status()
    return list(answer.json().get("deadTasks", []))


def die(http: httpx.Client, rest: Client, queue: str, target: PushTarget, eventually: Eventually, name: str) -> None:
    """Let a task use up its attempts."""
    target.statuses += [500, 502]
    task = {"name": f"{queue}/tasks/{name}", "http_request": {"url": f"{target.url}/{name}", "body": b"x"}}
    rest.create_task(parent=queue, task=task)
    eventually(lambda: f"{queue}/tasks/{name}" in [one["name"] for one in dead(http, queue)], "it is dead")


def test_a_dead_task_tells_what_became_of_it_and_clients_do_not_see_it(
    http: httpx.Client, rest: Client, queue: str, target: PushTarget, eventually: Eventually
) -> None:
    die(http, rest, queue, target, eventually, "one")

    (shown,) = dead(http, queue)
    assert (shown["dispatchCount"], shown["responseCount"]) == (2, 2)
    assert shown["lastAttempt"]["responseStatus"] == {"code": 13, "message": "INTERNAL(13): HTTP status code 502"}
    kept = http.get(f"/v2/{queue}/tasks/one/attempts").json()["attempts"]
    assert [(one["number"], one["httpStatus"]) for one in kept] == [(1, 500), (2, 502)]
    assert all("content-length: 0" in one["responseHead"].lower() for one in kept)
    name = f"{queue}/tasks/one"
    for call in (rest.get_task, rest.run_task, rest.delete_task):
        assert refusal(call, name=name)[0] == "NOT_FOUND"
    assert rest.list_tasks(parent=queue) == []


def test_a_task_that_is_run_again_has_all_its_attempts_again(
    http: httpx.Client, rest: Client, queue: str, target: PushTarget, eventually: Eventually
) -> None:
    die(http, rest, queue, target, eventually, "one")
    target.statuses = [500, 200]

    http.post(f"/v2/{queue}/deadTasks/one:run").raise_for_status()

    received = target.wait_for(4)
    assert [one["X-CloudTasks-TaskRetryCount"] for one in received] == ["0", "1", "2", "3"]
    assert [one.body for one in received] == [b"x"] * 4
    eventually(lambda: not rest.list_tasks(parent=queue), "it is gone")
    assert dead(http, queue) == []
    assert http.post(f"/v2/{queue}/deadTasks/one:run").status_code == 404


def test_a_purge_leaves_dead_tasks_and_the_end_of_their_queue_does_not(
    http: httpx.Client, rest: Client, queue: str, target: PushTarget, eventually: Eventually
) -> None:
    die(http, rest, queue, target, eventually, "one")

    rest.purge_queue(name=queue)
    assert len(dead(http, queue)) == 1
    rest.delete_queue(name=queue)
    assert http.get(f"/v2/{queue}/deadTasks").status_code == 404
    rest.create_queue(parent=PARENT, queue={"name": queue})

    assert dead(http, queue) == []
    assert http.get(f"/v2/{queue}/tasks/one/attempts").json().get("attempts", []) == []


def test_dead_tasks_come_in_pages(
    http: httpx.Client, rest: Client, queue: str, target: PushTarget, eventually: Eventually
) -> None:
    for name in ("one", "two", "three"):
        die(http, rest, queue, target, eventually, name)

    first = http.get(f"/v2/{queue}/deadTasks", params={"pageSize": 2}).json()
    second = http.get(f"/v2/{queue}/deadTasks", params={"pageSize": 2, "pageToken": first["nextPageToken"]}).json()

    names = [one["name"].rpartition("/")[2] for page in (first, second) for one in page["deadTasks"]]
    assert names == ["one", "two", "three"]
    assert "nextPageToken" not in second


def test_a_pull_task_that_was_leased_too_often_is_dead_and_can_be_leased_again_once_it_is_run(
    service: RunningService, http: httpx.Client, queue_name: str
) -> None:
    client = service.client("rest", "v2beta2")
    pull_queue = {"name": queue_name, "pull_target": {}, "retry_config": {"max_attempts": 1}}
    client.create_queue(parent=PARENT, queue=pull_queue)
    task = {"name": f"{queue_name}/tasks/one", "pull_message": {"payload": b"x"}}
    client.create_task(parent=queue_name, task=task)
    for _ in range(2):
        client.lease_tasks(parent=queue_name, lease_duration=Duration(seconds=0))
    assert [one["name"] for one in dead(http, queue_name, "v2beta2")] == [f"{queue_name}/tasks/one"]

    http.post(f"/v2beta2/{queue_name}/deadTasks/one:run").raise_for_status()

    (leased,) = client.lease_tasks(parent=queue_name, lease_duration=Duration(seconds=60), response_view=2).tasks
    assert leased.pull_message.payload == b"x"
    client.acknowledge_task(name=leased.name, schedule_time=leased.schedule_time)
    assert dead(http, queue_name, "v2beta2") == []
    client.close()
