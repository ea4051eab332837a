"""Several services on one Postgres: each sends what the others do not, and what one is told counts for all."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from hopline_engine import clock
from tests.queue_api.conftest import PARENT, PushTarget
from tests.support.postgres import database_for_threads, postgres
from tests.support.processes import EngineProcess
from tests.support.queue_service import Client, RunningService, refusal, running_service
from tests.support.waiting import WITHIN, eventually


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Return a database that the tests share; each takes a queue of its own."""
    with database_for_threads() as made:
        yield made


@pytest.fixture(scope="module")
def services(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningService, RunningService]]:
    folder = tmp_path_factory.mktemp("services")
    with running_service(folder / "a", store=store) as first, running_service(folder / "b", store=store) as second:
        yield first, second


@pytest.fixture
def clients(services: tuple[RunningService, RunningService]) -> Iterator[tuple[Client, Client]]:
    """Return a client of each service."""
    first, second = (service.client("grpc") for service in services)
    yield first, second
    first.close()
    second.close()


def made(client: Client, name: str, **fields: Any) -> str:
    client.create_queue(parent=PARENT, queue={"name": name, **fields})
    return name


def task(url: str, **fields: Any) -> dict[str, Any]:
    return {"http_request": {"url": url}, **fields}


def later(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(int((clock.now() + seconds) * 1e9))
    return stamp


def fill(client: Client, queue: str, url: str, count: int, **fields: Any) -> None:
    """Add tasks whose paths are their numbers."""
    for start in range(0, count, 100):
        requests = [
            {"parent": queue, "task": task(f"{url}/{number}", **fields)}
            for number in range(start, min(count, start + 100))
        ]
        client.batch_create_tasks(parent=queue, requests=requests)


def test_what_a_node_made_and_did_not_send_another_sends_though_it_holds_much_for_later(
    tmp_path: Path, store: str, queue_name: str, target: PushTarget
) -> None:
    with running_service(tmp_path / "a", store=store) as first:
        client = first.client("grpc")
        made(client, queue_name)
        fill(client, queue_name, target.url, 600, schedule_time=later(10_000))
        client.close()

        with running_service(tmp_path / "b", store=store, dispatch=False) as second:
            other = second.client("grpc")
            other.create_task(parent=queue_name, task=task(f"{target.url}/now"))
            other.close()

        assert target.wait_for(1)[0].path == "/now"


def test_tasks_made_at_either_node_are_sent_once(
    clients: tuple[Client, Client], queue_name: str, target: PushTarget
) -> None:
    made(clients[0], queue_name)
    clients[0].pause_queue(name=queue_name)
    for client, name in zip(clients, "ab", strict=True):
        fill(client, queue_name, f"{target.url}/{name}", 600)

    clients[1].resume_queue(name=queue_name)

    received = target.wait_for(1200, within=240.0)
    assert len({one.path for one in received}) == len(received) == 1200
    assert {one["X-CloudTasks-TaskRetryCount"] for one in received} == {"0"}


def test_a_name_given_at_one_node_is_refused_at_the_other_also_at_the_same_moment(
    clients: tuple[Client, Client], queue_name: str, target: PushTarget
) -> None:
    made(clients[0], queue_name)
    clients[0].pause_queue(name=queue_name)

    def create(client: Client, name: str) -> str:
        try:
            client.create_task(parent=queue_name, task=task(target.url, name=f"{queue_name}/tasks/{name}"))
        except Exception as error:  # noqa: BLE001 - of whichever client
            return str(error)
        return "made"

    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(create, [*clients] * 20, [f"t{number // 2}" for number in range(40)]))

    assert sorted(told) == ["409 Requested entity already exists"] * 20 + ["made"] * 20
    again = partial(clients[1].create_task, parent=queue_name, task=task(target.url, name=f"{queue_name}/tasks/t0"))
    clients[0].delete_task(name=f"{queue_name}/tasks/t0")
    assert refusal(again)[0] == "ALREADY_EXISTS", "its name is held"


def test_no_more_are_out_than_the_queue_allows_over_all_nodes(
    clients: tuple[Client, Client], queue_name: str, target: PushTarget
) -> None:
    made(clients[0], queue_name, rate_limits={"max_concurrent_dispatches": 4})
    target.hold = threading.Event()
    for client in clients:
        fill(client, queue_name, target.url, 20)

    target.wait_for(4)
    tasks = clients[0].list_tasks(parent=queue_name)
    assert sum(one.dispatch_count for one in tasks) == len(target.received) == 4

    target.hold.set()
    target.wait_for(40)


def test_the_rate_is_that_of_one_queue_over_all_nodes(
    clients: tuple[Client, Client], queue_name: str, target: PushTarget
) -> None:
    made(clients[0], queue_name, rate_limits={"max_dispatches_per_second": 10})
    burst = clients[0].get_queue(name=queue_name).rate_limits.max_burst_size
    clients[0].pause_queue(name=queue_name)
    for client in clients:
        fill(client, queue_name, target.url, 30)
    begun = clock.now()
    clients[0].resume_queue(name=queue_name)

    took = max(received.at for received in target.wait_for(60)) - begun
    # Twice the burst may be told: tokens that were there, and the ones granted while the first were on their way.
    assert took >= (60 - 2 * burst) / 10
    assert took < 2 * 60 / 10, "a token is not lost when both nodes want to send the same task"


def test_a_queue_that_is_paused_at_one_node_sends_nothing_at_the_other(
    clients: tuple[Client, Client], queue_name: str, target: PushTarget
) -> None:
    made(clients[0], queue_name)
    other_queue = made(clients[0], f"{queue_name}-other")
    clients[1].create_task(parent=queue_name, task=task(f"{target.url}/before"))
    target.wait_for(1)

    clients[0].pause_queue(name=queue_name)
    shown = clients[1].create_task(parent=queue_name, task=task(f"{target.url}/paused"))
    clients[1].create_task(parent=other_queue, task=task(f"{target.url}/other"))

    assert [one.path for one in target.wait_for(2)] == ["/before", "/other"]
    assert clients[0].get_task(name=shown.name).dispatch_count == 0
    clients[0].resume_queue(name=queue_name)
    assert target.wait_for(3)[2].path == "/paused"


def test_tasks_that_were_purged_at_one_node_cost_the_other_no_tokens(
    clients: tuple[Client, Client], queue_name: str, target: PushTarget
) -> None:
    made(clients[0], queue_name, rate_limits={"max_dispatches_per_second": 1})
    clients[0].pause_queue(name=queue_name)
    fill(clients[1], queue_name, target.url, 100)

    clients[0].purge_queue(name=queue_name)
    clients[0].resume_queue(name=queue_name)
    clients[1].create_task(parent=queue_name, task=task(f"{target.url}/new"))

    assert [one.path for one in target.wait_for(1)] == ["/new"]


def test_a_queue_that_was_made_anew_at_one_node_has_none_of_its_former_tasks_at_the_other(
    clients: tuple[Client, Client], queue_name: str, target: PushTarget
) -> None:
    made(clients[0], queue_name)
    fill(clients[1], queue_name, f"{target.url}/former", 20, schedule_time=later(6.0))

    clients[0].delete_queue(name=queue_name)
    made(clients[0], queue_name)
    clients[1].create_task(parent=queue_name, task=task(f"{target.url}/new", schedule_time=later(6.5)))

    assert [one.path for one in target.wait_for(1)] == ["/new"]
    assert clients[1].list_tasks(parent=queue_name) == [] or len(target.received) == 1


def test_what_one_node_changes_of_a_queue_counts_for_the_next_task_of_the_other(
    clients: tuple[Client, Client], queue_name: str, target: PushTarget
) -> None:
    made(clients[0], queue_name)
    clients[1].create_task(parent=queue_name, task=task(f"{target.url}/old"))
    target.wait_for(1)

    override = {"uri_override": {"path_override": {"path": "/changed"}}}
    changed = {"name": queue_name, "http_target": override}
    clients[0].update_queue(queue=changed, update_mask=FieldMask(paths=["http_target"]))
    clients[1].create_task(parent=queue_name, task=task(f"{target.url}/old"))

    assert [one.path for one in target.wait_for(2)] == ["/old", "/changed"]


def test_tokens_of_one_node_are_verified_with_the_key_that_any_node_publishes(
    services: tuple[RunningService, RunningService],
) -> None:
    published = [
        httpx.get(f"{service.url}/.well-known/jwks.json", trust_env=False, timeout=WITHIN).json()
        for service in services
    ]

    assert published[0] == published[1]


@contextmanager
def killed(folder: Path, store: str) -> Iterator[EngineProcess]:
    """Run a node as a process of its own, which ends with SIGKILL."""
    folder.mkdir()
    engine = EngineProcess(folder, {"HOPLINE_STORE": store, "HOPLINE_NODE_SILENCE_SECONDS": "4"})
    engine.start()
    try:
        asyncio.run(engine.ready())
        yield engine
    finally:
        engine.kill()


def test_what_a_killed_node_had_sent_or_would_have_sent_another_sends(
    tmp_path: Path, queue_name: str, target: PushTarget
) -> None:
    target.hold = threading.Event()
    with database_for_threads() as store, running_service(tmp_path / "a", store=store, node_silence_seconds=4) as first:
        client = first.client("rest")
        backoff = Duration(nanos=100_000_000)
        made(client, queue_name, retry_config={"min_backoff": backoff, "max_backoff": backoff})
        with killed(tmp_path / "b", store) as engine:
            other = first.client("rest", url=engine.url)
            other.create_task(parent=queue_name, task=task(f"{target.url}/sent"))
            target.wait_for(1)
            other.create_task(parent=queue_name, task=task(f"{target.url}/waiting", schedule_time=later(1.0)))
            other.close()
        target.hold.set()

        received = target.wait_for(3)
        client.close()

    told = sorted((one.path, one["X-CloudTasks-TaskRetryCount"]) for one in received)
    assert told == [("/sent", "0"), ("/sent", "1"), ("/waiting", "0")]


def test_a_node_goes_on_with_what_others_leave_after_the_database_was_away(
    tmp_path: Path, queue_name: str, target: PushTarget, caplog: pytest.LogCaptureFixture
) -> None:
    silence = 30  # so that the second does not take the first for dead because of the database
    with postgres() as server, running_service(tmp_path / "a", store=server.url, node_silence_seconds=silence) as first:
        client = first.client("rest")
        made(client, queue_name)
        server.stop()
        eventually(lambda: "could not be looked what other nodes have made" in caplog.text, "it looked in vain")
        server.start()
        eventually(lambda: is_ready(first), "it goes on")

        sends_nothing = partial(running_service, dispatch=False, node_silence_seconds=silence)
        with sends_nothing(tmp_path / "b", store=server.url) as second:
            other = second.client("rest")
            other.create_task(parent=queue_name, task=task(target.url))
            other.close()

        target.wait_for(1)
        client.close()


def is_ready(service: RunningService) -> bool:
    """Return whether a service can look into its store."""
    return httpx.get(f"{service.url}/v2/{PARENT}/queues", trust_env=False, timeout=WITHIN).is_success
