"""Tasks, through the clients that people use: made, seen, listed, deleted, run, refused."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hopline_engine import clock
from hopline_engine.core.cloud.size import LARGEST_TASK
from tests.queue_api.conftest import PARENT
from tests.support.queue_service import Client, RunningService, refusal

LATER = 86_400


@pytest.fixture
def queue(client: Client, queue_name: str) -> str:
    """Return a queue that sends nothing."""
    client.create_queue(parent=PARENT, queue={"name": queue_name})
    client.pause_queue(name=queue_name)
    return queue_name


def http(**fields: Any) -> dict[str, Any]:
    return {"http_request": {"url": "http://localhost/x", **fields}}


def test_an_http_task_is_kept_as_the_original_keeps_it(client: Client, queue: str) -> None:
    before = int(clock.now())

    made = client.create_task(
        parent=queue,
        task=http(headers={"X-own": "1", "user-agent": "mine", "Host": "h", "X-AppEngine-A": "b"}, body=b"\xff\x00"),
        response_view=2,
    )

    assert made.name.startswith(f"{queue}/tasks/")
    assert made.http_request.http_method.name == "POST"
    assert dict(made.http_request.headers) == {"X-own": "1", "User-Agent": "Google-Cloud-Tasks"}
    assert made.http_request.body == b"\xff\x00"
    assert made.dispatch_deadline.total_seconds() == 600.0
    assert made.view.name == "FULL"
    assert made.create_time.timestamp() >= before
    assert made.create_time.timestamp() == int(made.create_time.timestamp()), "in whole seconds"
    assert (made.dispatch_count, made.response_count) == (0, 0)


def test_the_basic_view_leaves_out_the_body_and_nothing_else(client: Client, queue: str) -> None:
    made = client.create_task(parent=queue, task=http(body=b"payload", headers={"A": "b"}))

    for shown in (made, client.get_task(name=made.name), *client.list_tasks(parent=queue)):
        assert shown.http_request.body == b""
        assert shown.http_request.headers["A"] == "b"
        assert shown.view.name == "BASIC"
    assert client.get_task(name=made.name, response_view=2).http_request.body == b"payload"
    assert client.list_tasks(parent=queue, response_view=2)[0].http_request.body == b"payload"


def test_an_app_engine_task_is_kept_as_the_original_keeps_it(client: Client, queue: str) -> None:
    request = {"app_engine_routing": {"service": "mail"}, "body": b"abc", "headers": {"User-Agent": "me"}}

    made = client.create_task(parent=queue, task={"app_engine_http_request": request}, response_view=2)

    kept = made.app_engine_http_request
    assert kept.relative_uri == "/"
    assert kept.app_engine_routing.host == "mail.p.appspot.com"
    assert dict(kept.headers) == {
        "User-Agent": "me AppEngine-Google; (+http://code.google.com/appengine)",
        "Content-Type": "application/octet-stream",
        "Content-Length": "3",
    }


def test_times_are_exact_to_the_microsecond(client: Client, queue: str) -> None:
    at = Timestamp(seconds=int(clock.now()) + LATER, nanos=123_456_789)

    made = client.create_task(parent=queue, task={**http(), "schedule_time": at})

    assert made.schedule_time.timestamp_pb() == Timestamp(seconds=at.seconds, nanos=123_456_000)


def test_a_task_may_have_retrying_of_its_own(client: Client, queue: str) -> None:
    if client.is_dated:
        pytest.skip("this client knows no retrying of tasks")
    made = client.create_task(parent=queue, task={**http(), "retry_config": {"max_attempts": 3}})

    assert client.get_task(name=made.name).retry_config.max_attempts == 3


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (http(url=""), "HttpRequest.url is required."),
        (http(url="ftp://x"), "HttpTarget.url must start with 'http://' or 'https://'."),
        (http(url="http://x/" + "a" * 2080), "HttpRequest.url must be at most 2083 characters."),
        (http(http_method=2, body=b"x"), "HttpRequest.body is not allowed with method GET."),
        (http(headers={"A": "x" * 90_000}), "HttpRequest.headers must be less than 80KB."),
        (http(headers={"A b": "x"}), "HttpRequest.headers has a key that is not the name of a header."),
        (http(headers={"A": "x\r\nB: y"}), "HttpRequest.headers has a value that contains a line end or NUL."),
        (
            {**http(), "dispatch_deadline": Duration(seconds=14)},
            "Task.dispatchDeadline must be between [15s, 30m].",
        ),
        (
            {**http(), "dispatch_deadline": Duration(seconds=1801)},
            "Task.dispatchDeadline must be between [15s, 30m].",
        ),
        (
            {"app_engine_http_request": {}, "dispatch_deadline": Duration(seconds=86416)},
            "Task.dispatchDeadline must be between [15s, 24h15s].",
        ),
        (
            {"app_engine_http_request": {"relative_uri": "x"}},
            "AppEngineHttpRequest.relativeUri must begin with '/'.",
        ),
        ({"app_engine_http_request": {"http_method": 6}}, "AppEngineHttpRequest.httpMethod PATCH is not allowed."),
        ({}, "Task must have exactly one of httpRequest, appEngineHttpRequest and pullMessage."),
        (http(body=b"x" * 1_048_600), "Task size too large"),
    ],
)
def test_a_task_cannot_be_impossible(client: Client, queue: str, task: dict[str, Any], message: str) -> None:
    assert refusal(client.create_task, parent=queue, task=task) == ("INVALID_ARGUMENT", message)
    assert client.list_tasks(parent=queue) == [], "nothing is half stored"


def test_a_task_cannot_be_scheduled_more_than_thirty_days_ahead(client: Client, queue: str) -> None:
    at = Timestamp(seconds=int(clock.now()) + 31 * 86_400)

    code, message = refusal(client.create_task, parent=queue, task={**http(), "schedule_time": at})

    assert code == "INVALID_ARGUMENT"
    assert message.startswith("The Task.scheduleTime, 20")
    assert message.endswith("is too far in the future. Schedule time must be no more than 720h in the future.")


def test_a_url_with_a_bad_percent_escape_is_taken(client: Client, queue: str) -> None:
    assert client.create_task(parent=queue, task=http(url="http://localhost/%zz")).http_request.url.endswith("%zz")


def test_a_name_can_be_used_once_also_after_the_task_is_gone(client: Client, queue: str) -> None:
    name = f"{queue}/tasks/order-17_b"
    taken = ("ALREADY_EXISTS", "Requested entity already exists")
    client.create_task(parent=queue, task={**http(), "name": name})

    assert refusal(client.create_task, parent=queue, task={**http(), "name": name}) == taken
    client.delete_task(name=name)
    assert refusal(client.create_task, parent=queue, task={**http(), "name": name}) == taken
    assert refusal(client.get_task, name=name) == (
        "NOT_FOUND",
        (
            "The task no longer exists, though a task with this name existed recently. "
            "The task either successfully completed or was deleted."
        ),
    )


def test_a_name_must_be_of_the_queue_and_of_legal_characters(client: Client, queue: str) -> None:
    other = f"{queue}x/tasks/a"
    assert refusal(client.create_task, parent=queue, task={**http(), "name": other}) == (
        "INVALID_ARGUMENT",
        f"The queue name from request ('{queue}') must be the same as the queue name in the named task ('{queue}x').",
    )
    assert refusal(client.create_task, parent=queue, task={**http(), "name": f"{queue}/tasks/a.b"}) == (
        "INVALID_ARGUMENT",
        (
            'Task ID "a.b" can contain only letters ([A-Za-z]), numbers ([0-9]), hyphens (-), or underscores (_). '
            "Task ID must between 1 and 500 characters."
        ),
    )


def test_a_task_that_never_was_is_missed(client: Client, queue: str) -> None:
    for call in (client.get_task, client.delete_task, client.run_task):
        assert refusal(call, name=f"{queue}/tasks/none") == ("NOT_FOUND", "Requested entity was not found.")


def test_tasks_are_listed_page_by_page(client: Client, queue: str) -> None:
    made = {client.create_task(parent=queue, task=http()).name for _ in range(5)}

    assert {task.name for task in client.list_tasks(parent=queue, page_size=2)} == made
    assert refusal(client.list_tasks, parent=queue, page_token="bad")[0] == "INVALID_ARGUMENT"


def test_many_tasks_are_made_and_deleted_at_once_each_by_itself(
    service: RunningService, client: Client, queue: str
) -> None:
    if client.is_dated:
        pytest.skip("this client has no batches")
    good = {"parent": queue, "task": {**http(body=b"b"), "name": f"{queue}/tasks/good"}, "response_view": 2}
    bad = {"parent": queue, "task": http(url="")}

    operation = client.batch_create_tasks(parent=queue, requests=[good, bad])
    operation = getattr(operation, "operation", operation)

    assert operation.done
    assert [task.name for task in client.list_tasks(parent=queue)] == [f"{queue}/tasks/good"]
    names = [f"{queue}/tasks/good", f"{queue}/tasks/none"]
    deleted = client.batch_delete_tasks(parent=queue, names=names)
    assert getattr(deleted, "operation", deleted).done
    assert client.list_tasks(parent=queue) == []


def test_a_batch_that_is_said_twice_is_done_once(rest: Client, queue_name: str) -> None:
    rest.create_queue(parent=PARENT, queue={"name": queue_name})
    rest.pause_queue(name=queue_name)
    requests = [{"parent": queue_name, "task": http()}]

    first = rest.batch_create_tasks(parent=queue_name, requests=requests, request_id="a")
    second = rest.batch_create_tasks(parent=queue_name, requests=requests, request_id="a")

    assert first.operation.name == second.operation.name
    assert len(rest.list_tasks(parent=queue_name)) == 1
    assert [task.name for task in first.result().tasks] == [task.name for task in rest.list_tasks(parent=queue_name)]


@pytest.mark.parametrize("over", [0, 1])
def test_the_largest_task_has_the_size_that_the_original_was_measured_at(
    service: RunningService, queue_name: str, over: int
) -> None:
    client = service.client("grpc")
    client.create_queue(parent=PARENT, queue={"name": queue_name})
    client.pause_queue(name=queue_name)
    name = f"{queue_name}/tasks/big"
    at = Timestamp(seconds=int(clock.now()) + LATER, nanos=5000)

    def asked(size: int) -> dict[str, Any]:
        return {**http(headers={"Accept": "*/*"}, body=b"x" * size), "name": name, "schedule_time": at}

    types = client.types
    stored = types.Task(asked(1_048_000))
    stored.http_request.http_method = 1
    stored.http_request.headers["User-Agent"] = "Google-Cloud-Tasks"
    stored.create_time = Timestamp(seconds=int(clock.now()))
    stored.dispatch_deadline = Duration(seconds=600)
    room = LARGEST_TASK - types.Task.pb(stored).ByteSize()
    task = asked(1_048_000 + room + over)

    if over:
        assert refusal(client.create_task, parent=queue_name, task=task)[1] == "Task size too large"
    else:
        assert client.create_task(parent=queue_name, task=task).name == name
    client.close()
