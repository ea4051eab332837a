"""Pull queues: leased, fenced, renewed, acknowledged."""

from typing import Any

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hopline_engine import clock
from tests.queue_api.conftest import PARENT
from tests.support.queue_service import Client, RunningService, refusal
from tests.support.waiting import WITHIN

MINUTE = Duration(seconds=60)


@pytest.fixture
def queue(pulling: Client, queue_name: str) -> str:
    pulling.create_queue(parent=PARENT, queue={"name": queue_name, "pull_target": {}})
    return queue_name


def put(client: Client, queue: str, payload: bytes, tag: str = "", **fields: Any) -> Any:
    return client.create_task(parent=queue, task={"pull_message": {"payload": payload, "tag": tag}, **fields})


def lease(client: Client, queue: str, **fields: Any) -> list[Any]:
    return list(client.lease_tasks(parent=queue, **{"lease_duration": MINUTE, "response_view": 2, **fields}).tasks)


def test_a_pull_queue_shows_what_a_pull_queue_has(pulling: Client, queue: str) -> None:
    shown = pulling.get_queue(name=queue)

    assert shown._pb.HasField("pull_target")
    assert shown.rate_limits.max_concurrent_tasks == -1
    assert shown.retry_config.max_attempts == 100
    assert not shown.retry_config._pb.HasField("min_backoff")


def test_leased_tasks_come_oldest_first_and_only_once(pulling: Client, queue: str) -> None:
    for payload in (b"one", b"two", b"three"):
        put(pulling, queue, payload)

    first = lease(pulling, queue, max_tasks=2)
    second = lease(pulling, queue, max_tasks=2)

    assert [task.pull_message.payload for task in [*first, *second]] == [b"one", b"two", b"three"]
    assert lease(pulling, queue) == []
    assert first[0].status.attempt_dispatch_count == 1
    assert first[0].schedule_time.timestamp() == pytest.approx(clock.now() + 60, abs=20)


def test_a_basic_view_of_a_lease_has_no_payload(pulling: Client, queue: str) -> None:
    put(pulling, queue, b"one", "t")

    (task,) = lease(pulling, queue, response_view=1)

    assert (task.pull_message.payload, task.pull_message.tag) == (b"", "t")


def test_an_acknowledged_task_is_gone(pulling: Client, queue: str) -> None:
    put(pulling, queue, b"one")
    (task,) = lease(pulling, queue)

    pulling.acknowledge_task(name=task.name, schedule_time=task.schedule_time)

    assert pulling.list_tasks(parent=queue) == []


def test_only_the_present_lease_counts(pulling: Client, queue: str) -> None:
    put(pulling, queue, b"one")
    (old,) = lease(pulling, queue)
    renewed = pulling.renew_lease(name=old.name, schedule_time=old.schedule_time, lease_duration=Duration(seconds=90))

    for call, fields in (
        (pulling.acknowledge_task, {}),
        (pulling.renew_lease, {"lease_duration": MINUTE}),
        (pulling.cancel_lease, {}),
    ):
        assert refusal(call, name=old.name, schedule_time=old.schedule_time, **fields)[0] == "FAILED_PRECONDITION"
    assert renewed.schedule_time > old.schedule_time
    pulling.acknowledge_task(name=old.name, schedule_time=renewed.schedule_time)


def test_a_cancelled_lease_lets_others_lease_the_task(pulling: Client, queue: str) -> None:
    put(pulling, queue, b"one")
    (task,) = lease(pulling, queue)

    pulling.cancel_lease(name=task.name, schedule_time=task.schedule_time)

    (again,) = lease(pulling, queue)
    assert (again.name, again.status.attempt_dispatch_count) == (task.name, 2)


def test_a_lease_of_no_time_is_over_at_once(pulling: Client, queue: str) -> None:
    put(pulling, queue, b"one")
    (task,) = lease(pulling, queue, lease_duration=Duration(seconds=0))

    code, _ = refusal(pulling.acknowledge_task, name=task.name, schedule_time=task.schedule_time)

    assert code == "FAILED_PRECONDITION"
    assert len(lease(pulling, queue)) == 1


def test_tasks_are_leased_by_tag(pulling: Client, queue: str) -> None:
    for payload, tag in ((b"1", "a"), (b"2", "b"), (b"3", "a"), (b"4", "b c")):
        put(pulling, queue, payload, tag)

    def payloads(filter_text: str) -> list[bytes]:
        return [task.pull_message.payload for task in lease(pulling, queue, filter=filter_text)]

    assert payloads('tag="b c"') == [b"4"]
    assert payloads("tag_function=oldest_tag()") == [b"1", b"3"]
    assert payloads("tag=b") == [b"2"]
    code, _ = refusal(pulling.lease_tasks, parent=queue, lease_duration=MINUTE, filter="state=x")
    assert code == "INVALID_ARGUMENT"


def test_a_task_is_not_leased_before_its_time(pulling: Client, queue: str) -> None:
    put(pulling, queue, b"one", schedule_time=Timestamp(seconds=int(clock.now()) + 1000))

    assert lease(pulling, queue) == []


def test_a_paused_pull_queue_leases_nothing(pulling: Client, queue: str) -> None:
    pulling.pause_queue(name=queue)

    assert refusal(pulling.lease_tasks, parent=queue, lease_duration=MINUTE)[0] == "FAILED_PRECONDITION"


@pytest.mark.parametrize("seconds", [-1, 7 * 86_400 + 1])
def test_a_lease_has_a_longest_and_a_shortest_time(pulling: Client, queue: str, seconds: int) -> None:
    code, _ = refusal(pulling.lease_tasks, parent=queue, lease_duration=Duration(seconds=seconds))

    assert code == "INVALID_ARGUMENT"


def test_leases_are_limited_to_ten_calls_a_second(pulling: Client, queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    second = clock.now()
    for now in (second, second + 1):
        monkeypatch.setattr(clock.DatabaseClock, "now", lambda _, now=now: now)
        for _ in range(10):
            pulling.lease_tasks(parent=queue, lease_duration=MINUTE)
        assert refusal(pulling.lease_tasks, parent=queue, lease_duration=MINUTE)[0] == "RESOURCE_EXHAUSTED"


def test_a_task_that_was_leased_too_often_is_not_leased_again(pulling: Client, queue_name: str) -> None:
    queue = {"name": queue_name, "pull_target": {}, "retry_config": {"max_attempts": 1}}
    pulling.create_queue(parent=PARENT, queue=queue)
    put(pulling, queue_name, b"one")

    assert len(lease(pulling, queue_name, lease_duration=Duration(seconds=0))) == 1
    assert lease(pulling, queue_name) == []
    assert pulling.list_tasks(parent=queue_name) == []


def test_pull_tasks_are_not_for_push_queues_nor_the_other_way_round(pulling: Client, queue: str) -> None:
    push_queue = f"{queue}-push"
    pulling.create_queue(parent=PARENT, queue={"name": push_queue})

    code, _ = refusal(pulling.create_task, parent=push_queue, task={"pull_message": {}})
    assert code == "INVALID_ARGUMENT"
    code, _ = refusal(pulling.create_task, parent=queue, task={"http_request": {"url": "http://x"}})
    assert code == "INVALID_ARGUMENT"
    task = put(pulling, queue, b"x")
    assert refusal(pulling.run_task, name=task.name)[0] == "INVALID_ARGUMENT"
    assert refusal(pulling.lease_tasks, parent=push_queue, lease_duration=MINUTE)[0] == "INVALID_ARGUMENT"


def test_the_other_beta_shows_pull_queues_and_cannot_fill_them(
    service: RunningService, pulling: Client, queue: str
) -> None:
    put(pulling, queue, b"x", "t")
    client = service.client("rest", "v2beta3")

    assert client.get_queue(name=queue).type_.name == "PULL"
    assert client.list_tasks(parent=queue)[0].pull_message.tag == "t"
    assert refusal(client.create_task, parent=queue, task={"pull_message": {}})[0] == "INVALID_ARGUMENT"
    client.close()


def test_a_task_s_own_retrying_counts_instead_of_the_queue_s(
    service: RunningService, pulling: Client, queue: str
) -> None:
    task = {"pullMessage": {"payload": "eA=="}, "retryConfig": {"maxAttempts": 1}}
    url = f"{service.url}/v2beta2/{queue}/tasks"
    httpx.post(url, json={"task": task}, trust_env=False, timeout=WITHIN).raise_for_status()

    assert len(lease(pulling, queue, lease_duration=Duration(seconds=0))) == 1
    assert lease(pulling, queue) == []
    assert pulling.list_tasks(parent=queue) == []


def test_a_lease_brings_no_more_than_a_client_takes_in_one_message(pulling: Client, queue: str) -> None:
    for number in range(6):
        put(pulling, queue, b"%d" % number * 900_000)

    first, second = lease(pulling, queue), lease(pulling, queue)

    assert [task.pull_message.payload[:1] for task in [*first, *second]] == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert (len(first), len(second)) == (3, 3)


def test_a_listing_with_payloads_has_pages_that_a_client_takes(pulling: Client, queue: str) -> None:
    names = [put(pulling, queue, b"x" * 900_000).name for _ in range(6)]

    found = pulling.list_tasks(parent=queue, response_view=2)

    assert [task.name for task in found] == sorted(names)
    assert {len(task.pull_message.payload) for task in found} == {900_000}
