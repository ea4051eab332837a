"""What targets receive, and what their answers do: real requests to a real server."""

import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from hopline_engine import clock
from tests.queue_api.conftest import PARENT, PushTarget
from tests.support.queue_service import Client, RunningService, refusal, running_service

Eventually = Callable[[Callable[[], Any], str], Any]

QUICK = {"min_backoff": Duration(nanos=20_000_000), "max_backoff": Duration(nanos=20_000_000)}


def made(client: Client, name: str, **fields: Any) -> str:
    client.create_queue(parent=PARENT, queue={"name": name, **fields})
    return name


def push(client: Client, queue: str, url: str, **fields: Any) -> Any:
    return client.create_task(parent=queue, task={"http_request": {"url": url, **fields}})


def is_gone(client: Client, name: str) -> bool:
    return name not in [task.name for task in client.list_tasks(parent=name.partition("/tasks/")[0])]


def test_a_task_is_sent_once_and_is_gone_after_success(
    client: Client, queue_name: str, target: PushTarget, eventually: Eventually
) -> None:
    made(client, queue_name)

    task = push(client, queue_name, f"{target.url}/work?a=1", body=b"hello", headers={"Content-Type": "text/plain"})

    (received,) = target.wait_for(1)
    assert (received.method, received.path, received.body) == ("POST", "/work?a=1", b"hello")
    assert received["User-Agent"] == "Google-Cloud-Tasks"
    assert received["Content-Type"] == "text/plain"
    assert received["X-CloudTasks-QueueName"] == queue_name.rpartition("/")[2]
    assert received["X-CloudTasks-TaskName"] == task.name.rpartition("/")[2]
    assert received["X-CloudTasks-TaskRetryCount"] == "0"
    assert received["X-CloudTasks-TaskExecutionCount"] == "0"
    assert received["X-CloudTasks-TaskETA"] == f"{task.schedule_time.timestamp():.6f}"
    assert received["X-CloudTasks-TaskPreviousResponse"] is None
    eventually(lambda: is_gone(client, task.name), "the task is gone")
    assert len(target.received) == 1


def test_retries_tell_what_was_recorded_of_the_original(rest: Client, queue_name: str, target: PushTarget) -> None:
    made(rest, queue_name, retry_config=QUICK)
    target.statuses = [503, 404, 429, 500, 302]

    push(rest, queue_name, target.url)

    told = [
        tuple(received[f"X-CloudTasks-Task{name}"] for name in ("RetryCount", "PreviousResponse", "ExecutionCount"))
        for received in target.wait_for(6)
    ]
    assert told == [
        ("0", None, "0"),
        ("1", "503", "0"),
        ("2", "404", "1"),
        ("3", "429", "2"),
        ("4", "500", "2"),
        ("5", "302", "3"),
    ]
    assert [received["X-CloudTasks-TaskRetryReason"] for received in target.received] == [None, *[""] * 5]


def test_a_task_whose_token_cannot_be_made_is_tried_again_until_it_can(
    tmp_path: Path, queue_name: str, target: PushTarget, eventually: Eventually
) -> None:
    in_the_way = tmp_path / ".hopline" / "oidc.pem"
    in_the_way.mkdir(parents=True)
    with running_service(tmp_path) as service:
        client = service.client("rest")
        made(client, queue_name, retry_config={**QUICK, "max_attempts": -1})
        task = push(client, queue_name, target.url, oidc_token={"service_account_email": "robot@example.com"})

        def failed() -> str:
            found = [one for one in client.list_tasks(parent=queue_name) if one.name == task.name]
            return found[0].last_attempt.response_status.message if found else ""

        assert "the request cannot be made" in eventually(failed, "an attempt has failed")

        in_the_way.rmdir()
        assert target.wait_for(1)[0]["Authorization"]
        client.close()


def test_app_engine_counts_every_answer_and_says_why(tmp_path: Path, queue_name: str, target: PushTarget) -> None:
    with running_service(tmp_path, app_engine_urls=(target.url,)) as service:
        client = service.client("rest")
        made(client, queue_name, retry_config=QUICK)
        target.statuses = [503, 404, 429]

        request = {"relative_uri": "/work", "body": b"x"}
        client.create_task(parent=queue_name, task={"app_engine_http_request": request})

        received = target.wait_for(4)
        assert [one["X-AppEngine-TaskExecutionCount"] for one in received] == ["0", "1", "2", "3"]
        assert [one["X-AppEngine-TaskRetryReason"] for one in received] == [None, *["App Error"] * 3]
        assert received[0]["User-Agent"] == "AppEngine-Google; (+http://code.google.com/appengine)"
        assert received[0]["Content-Type"] == "application/octet-stream"
        assert (received[0].path, received[0].body) == ("/work", b"x")
        client.close()


def test_delays_follow_the_formula(rest: Client, queue_name: str, target: PushTarget) -> None:
    retry = {"min_backoff": Duration(nanos=100_000_000), "max_backoff": Duration(seconds=60), "max_doublings": 1}
    made(rest, queue_name, retry_config=retry)
    target.statuses = [500] * 4

    push(rest, queue_name, target.url)

    times = [received.at for received in target.wait_for(5)]
    delays = [later - earlier for earlier, later in pairwise(times)]
    for delay, expected in zip(delays, [0.1, 0.2, 0.4, 0.6], strict=True):
        assert expected <= delay < expected + 60.0, delays


def test_a_task_waits_for_its_time(rest: Client, queue_name: str, target: PushTarget) -> None:
    made(rest, queue_name)
    at = Timestamp()
    at.FromNanoseconds(int((clock.now() + 1.0) * 1e9))

    rest.create_task(parent=queue_name, task={"http_request": {"url": target.url}, "schedule_time": at})

    (received,) = target.wait_for(1)
    assert received.at >= at.ToNanoseconds() / 1e9 - 0.001


def test_retry_after_makes_the_wait_longer(
    rest: Client, queue_name: str, target: PushTarget, eventually: Eventually
) -> None:
    made(rest, queue_name, retry_config=QUICK)
    target.statuses, target.answer_headers = [503], {"Retry-After": "120"}

    task = push(rest, queue_name, target.url)

    target.wait_for(1)
    waiting = eventually(lambda: rest.get_task(name=task.name).last_attempt.response_status.code, "it was answered")
    assert waiting == 14
    shown = rest.get_task(name=task.name)
    assert shown.last_attempt.response_status.message == "UNAVAILABLE(14): HTTP status code 503"
    assert shown.schedule_time.timestamp() - shown.last_attempt.response_time.timestamp() == pytest.approx(120, abs=1)
    assert (shown.dispatch_count, shown.response_count) == (1, 1)
    assert shown.first_attempt.dispatch_time == shown.last_attempt.dispatch_time


def test_a_target_that_cannot_be_reached_is_tried_again(rest: Client, queue_name: str, eventually: Eventually) -> None:
    made(rest, queue_name, retry_config={"min_backoff": Duration(seconds=60), "max_backoff": Duration(seconds=60)})

    task = push(rest, queue_name, "http://127.0.0.1:9/%zz")

    eventually(lambda: rest.get_task(name=task.name).dispatch_count, "it was tried")
    eventually(lambda: rest.get_task(name=task.name).last_attempt.response_status.code == 2, "it failed")
    assert rest.get_task(name=task.name).response_count == 0


def test_a_paused_queue_sends_nothing_until_it_is_resumed(rest: Client, queue_name: str, target: PushTarget) -> None:
    made(rest, queue_name)
    rest.pause_queue(name=queue_name)
    first = push(rest, queue_name, f"{target.url}/first")
    assert rest.get_task(name=first.name).dispatch_count == 0

    rest.resume_queue(name=queue_name)

    assert target.wait_for(1)[0].path == "/first"


def test_run_task_sends_at_once_whatever_queue_and_time_say(
    client: Client, queue_name: str, target: PushTarget, eventually: Eventually
) -> None:
    made(client, queue_name)
    client.pause_queue(name=queue_name)
    at = Timestamp(seconds=int(clock.now()) + 1000)
    task = client.create_task(parent=queue_name, task={"http_request": {"url": target.url}, "schedule_time": at})

    shown = client.run_task(name=task.name)

    assert shown.dispatch_count == 1
    target.wait_for(1)
    eventually(lambda: is_gone(client, task.name), "it is gone")


def test_a_task_that_was_run_and_failed_is_tried_again_after_the_queue_s_delay(
    rest: Client, queue_name: str, target: PushTarget
) -> None:
    made(rest, queue_name, retry_config={"min_backoff": Duration(nanos=300_000_000)})
    target.statuses = [500]
    at = Timestamp(seconds=int(clock.now()) + 1000)
    task = rest.create_task(parent=queue_name, task={"http_request": {"url": target.url}, "schedule_time": at})

    begun = clock.now()
    rest.run_task(name=task.name)

    second = target.wait_for(2)[1]
    assert second.at - begun >= 0.3, "the delay counts from when it was to be run"


def test_no_more_requests_are_out_than_the_queue_allows(
    rest: Client, queue_name: str, target: PushTarget, eventually: Eventually
) -> None:
    made(rest, queue_name, rate_limits={"max_concurrent_dispatches": 2})
    target.hold = threading.Event()
    for _ in range(5):
        push(rest, queue_name, target.url)

    target.wait_for(2)
    stats = [task.dispatch_count for task in rest.list_tasks(parent=queue_name)]
    assert sorted(stats) == [0, 0, 0, 1, 1]
    assert len(target.received) == 2

    target.hold.set()
    target.wait_for(5)


def test_no_more_requests_are_sent_in_a_second_than_the_queue_allows(
    rest: Client, queue_name: str, target: PushTarget
) -> None:
    made(rest, queue_name, rate_limits={"max_dispatches_per_second": 20})
    begun = clock.now()
    for _ in range(30):
        push(rest, queue_name, target.url)

    last = target.wait_for(30)[-1].at
    assert last - begun >= 20 / 20 - 0.1, "ten at once, then twenty a second"


def test_a_queue_s_target_overrides_where_tasks_go_that_wait_already(
    rest: Client, queue_name: str, target: PushTarget
) -> None:
    made(rest, queue_name)
    rest.pause_queue(name=queue_name)
    push(rest, queue_name, "https://example.invalid:1/old?x=1", headers={"A": "1", "b": "2"}, body=b"data")
    port = int(target.url.rpartition(":")[2])
    override = {
        "scheme": 1,
        "host": "127.0.0.1",
        "port": port,
        "path_override": {"path": "/new"},
        "query_override": {"query_params": "y=2"},
    }
    http_target = {
        "uri_override": override,
        "http_method": 4,
        "header_overrides": [
            {"header": {"key": key, "value": "3"}}
            for key in ("B", "User-Agent", "Host", "Content-Length", "X-Google-A")
        ],
    }

    rest.update_queue(
        queue={"name": queue_name, "http_target": http_target}, update_mask=FieldMask(paths=["http_target"])
    )
    assert rest.get_queue(name=queue_name).http_target.uri_override.port == port
    rest.resume_queue(name=queue_name)

    (received,) = target.wait_for(1)
    assert (received.method, received.path, received.body) == ("PUT", "/new?y=2", b"data")
    assert (received["A"], received["B"], received["b"]) == ("1", "3", None)
    assert (received["User-Agent"], received["content-length"]) == ("Google-Cloud-Tasks", "4")
    assert "3" not in (received["host"], received["Host"], received["X-Google-A"])


def test_a_task_that_used_up_its_attempts_is_gone_and_its_name_is_held(
    client: Client, queue_name: str, target: PushTarget, eventually: Eventually
) -> None:
    made(client, queue_name, retry_config={"max_attempts": 2, **QUICK})
    target.statuses = [500, 500]
    name = f"{queue_name}/tasks/doomed"

    client.create_task(parent=queue_name, task={"name": name, "http_request": {"url": target.url}})

    target.wait_for(2)
    eventually(lambda: is_gone(client, name), "it is given up")
    assert refusal(client.get_task, name=name)[1].startswith("The task no longer exists, though")
    task = {"name": name, "http_request": {"url": target.url}}
    assert refusal(client.create_task, parent=queue_name, task=task)[0] == "ALREADY_EXISTS"


def test_a_task_s_own_retrying_counts_instead_of_the_queue_s(
    rest: Client, queue_name: str, target: PushTarget, eventually: Eventually
) -> None:
    made(rest, queue_name)
    target.statuses = [500] * 3
    task = {"http_request": {"url": target.url}, "retry_config": {"max_attempts": 1}}

    name = rest.create_task(parent=queue_name, task=task).name

    eventually(lambda: is_gone(rest, name), "it is given up after one attempt")
    assert len(target.received) == 1


def test_what_a_dead_process_had_sent_is_sent_again(tmp_path: Path, queue_name: str, target: PushTarget) -> None:
    target.hold = threading.Event()
    with running_service(tmp_path, drain_seconds=0) as service:
        client = service.client("rest")
        made(client, queue_name)
        push(client, queue_name, target.url)
        target.wait_for(1)
        client.close()
    target.hold.set()

    with running_service(tmp_path):
        again = target.wait_for(2)[1]

    assert again["X-CloudTasks-TaskRetryCount"] == "1"


def test_many_tasks_are_all_sent_once(service: RunningService, queue_name: str, target: PushTarget) -> None:
    client = service.client("grpc")
    made(client, queue_name)
    requests = [
        {"parent": queue_name, "task": {"http_request": {"url": f"{target.url}/{number}"}}} for number in range(100)
    ]
    client.pause_queue(name=queue_name)
    for _ in range(15):
        client.batch_create_tasks(parent=queue_name, requests=requests)

    client.resume_queue(name=queue_name)

    received = target.wait_for(1500, within=240.0)
    names = {one["X-CloudTasks-TaskName"] for one in received}
    assert (len(received), len(names)) == (1500, 1500)
    client.close()


@pytest.mark.parametrize("purged", [True, False])
def test_thousands_of_tasks_for_later_do_not_keep_one_back_that_is_due(
    service: RunningService, queue_name: str, target: PushTarget, *, purged: bool
) -> None:
    client = service.client("grpc")
    made(client, queue_name)
    later = Timestamp(seconds=int(clock.now()) + 10_000)
    task = {"http_request": {"url": target.url}, "schedule_time": later}
    for _ in range(21):
        client.batch_create_tasks(parent=queue_name, requests=[{"parent": queue_name, "task": task}] * 100)
    if purged:
        client.purge_queue(name=queue_name)

    push(client, queue_name, f"{target.url}/now")

    assert target.wait_for(1)[0].path == "/now"
    client.close()


@pytest.mark.parametrize("status", [200, 500])
def test_what_is_behind_the_head_of_an_answer_does_not_matter(
    rest: Client, queue_name: str, target: PushTarget, eventually: Eventually, status: int
) -> None:
    made(rest, queue_name, retry_config=QUICK)
    target.answer_body = b"x" * 3_000_000
    target.answer_headers = {"Content-Encoding": "none that is known"}
    target.statuses = [status]

    task = push(rest, queue_name, target.url)

    eventually(lambda: is_gone(rest, task.name), "the task is gone")
    assert len(target.received) == (1 if status == 200 else 2)
    if status == 500:
        assert target.received[1]["X-CloudTasks-TaskPreviousResponse"] == "500"


def test_a_target_that_asks_for_less_gets_less(
    service: RunningService, queue_name: str, target: PushTarget, eventually: Eventually
) -> None:
    client = service.client("rest", "v2beta3")
    made(client, queue_name, retry_config=QUICK)
    mask = FieldMask(paths=["stats"])

    def rate() -> float:
        return float(client.get_queue(name=queue_name, read_mask=mask).stats.effective_execution_rate)

    assert rate() == 500.0
    target.statuses = [429]

    push(client, queue_name, target.url)

    eventually(lambda: rate() < 260.0, "the queue is slowed down")
    target.wait_for(2)
    client.close()


def test_headers_that_the_service_says_cannot_be_overridden(rest: Client, queue_name: str, target: PushTarget) -> None:
    overrides = [("User-Agent", "mine"), ("X-CloudTasks-TaskName", "x"), ("X-Google-A", "x"), ("X-Own", "1")]
    headers = [{"header": {"key": key, "value": value}} for key, value in overrides]
    made(rest, queue_name, http_target={"header_overrides": headers})

    task = push(rest, queue_name, target.url, headers={"X-Cloudtasks-Taskname": "y", "x-own": "2"})

    (received,) = target.wait_for(1)
    told = {name: value for name, value in received.headers if not name.startswith("X-CloudTasks-Task")}
    assert received["X-CloudTasks-TaskName"] == task.name.rpartition("/")[2]
    assert (told["User-Agent"], told["X-Own"]) == ("Google-Cloud-Tasks", "1")
    assert "X-Google-A" not in told
    assert "x-own" not in told


@pytest.mark.parametrize(("key", "value"), [("", "x"), ("A b", "x"), ("A", "x\r\nB: y"), ("A", "x" * 100_000)])
def test_overrides_that_are_no_headers_are_refused(rest: Client, queue_name: str, key: str, value: str) -> None:
    queue = {"name": queue_name, "http_target": {"header_overrides": [{"header": {"key": key, "value": value}}]}}

    assert refusal(rest.create_queue, parent=PARENT, queue=queue)[0] == "INVALID_ARGUMENT"
