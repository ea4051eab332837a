"""Several services on one Postgres: each sends what the others do not, and no task is sent twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from hopline_engine import clock
from tests.queue_api.conftest import PARENT, PushTarget
from tests.support.postgres import database_for_threads
from tests.support.queue_service import Client, running_service


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Return a database that the tests share; each takes a queue of its own."""
    with database_for_threads() as made:
        yield made


def far(url: str) -> dict[str, Any]:
    """Return a task for a far time."""
    return {"http_request": {"url": url}, "schedule_time": Timestamp(seconds=int(clock.now()) + 10_000)}


def fill(client: Client, queue: str, task: dict[str, Any], count: int) -> None:
    for _ in range(count // 100):
        client.batch_create_tasks(parent=queue, requests=[{"parent": queue, "task": task}] * 100)


def test_what_a_node_made_and_did_not_send_another_sends_though_it_holds_much_for_later(
    tmp_path: Path, store: str, queue_name: str, target: PushTarget
) -> None:
    with running_service(tmp_path / "a", store=store) as first:
        client = first.client("grpc")
        client.create_queue(parent=PARENT, queue={"name": queue_name})
        fill(client, queue_name, far(target.url), 600)
        client.close()

        with running_service(tmp_path / "b", store=store, dispatch=False) as second:
            other = second.client("grpc")
            other.create_task(parent=queue_name, task={"http_request": {"url": f"{target.url}/now"}})
            other.close()

        assert target.wait_for(1)[0].path == "/now"
