"""How databases carry out what the queue service asks: its plans, where they matter for what it costs or does."""

from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from hopline_engine.core.cloud.model import CloudTaskId, HttpRequest, Task
from hopline_engine.core.cloud.names import QueueName
from hopline_engine.core.cloud.queues import queue_from
from hopline_engine.store import cloud_pushes, cloud_queues, cloud_tasks
from hopline_engine.store.postgres.store import PostgresStore
from hopline_engine.store.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio

MAIL = QueueName("p", "l", "mail")


async def test_no_statement_goes_through_all_tasks(sqlite_store: SQLiteStore) -> None:
    def plans(connection: Connection) -> list[str]:
        seen: list[str] = []

        def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
            explained = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            seen.extend(row[3] for row in explained if " cloud_task" in row[3])

        event.listen(connection, "before_cursor_execute", explain)
        cloud_queues.create(connection, MAIL, queue_from(str(MAIL), {}), 1.0)
        cloud_queues.stats(connection, MAIL.key, 2.0)
        cloud_pushes.take_back(connection, None, 2.0)
        cloud_pushes.take_back(connection, "node", 2.0)
        cloud_tasks.clear_some(connection, MAIL.key)
        cloud_tasks.sweep_some(connection, 2.0, 1.0)
        cloud_queues.remove(connection, MAIL, leaves=None, held_until=None)
        event.remove(connection, "before_cursor_execute", explain)
        return seen

    found = await sqlite_store.execute(plans)
    assert found
    assert [plan for plan in found if "INDEX" not in plan and "PRIMARY KEY" not in plan] == []


async def test_others_that_are_sent_in_place_of_tasks_that_went_are_as_many(postgres_store: PostgresStore) -> None:
    queue = queue_from(str(MAIL), {})

    def begun(connection: Connection) -> int:
        cloud_queues.create(connection, MAIL, queue, 1.0)
        for number in range(1, 7):
            request = HttpRequest(url="http://target.example/")
            task = Task(name=f"{MAIL}/tasks/{number}", payload=request, schedule_time=1.0, create_time=1.0)
            cloud_tasks.add(connection, CloudTaskId(number), queue, task, 1.0, is_named=False)
        for kind in ("hashjoin", "mergejoin", "hashagg", "sort", "material", "bitmapscan", "indexscan"):
            connection.execute(text(f"SET LOCAL enable_{kind} = off"))  # what is left looks at each row for itself
        gone = CloudTaskId(99)
        return len(cloud_pushes.begin(connection, {MAIL.key: [gone]}, "node", 2.0))

    assert await postgres_store.execute(begun) == 1
