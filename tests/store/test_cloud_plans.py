"""The queue service's housekeeping looks at the tasks that it is about, however many others wait."""

from typing import Any

import pytest
from sqlalchemy import Connection, event

from hopline_engine.core.cloud.names import QueueName
from hopline_engine.core.cloud.queues import queue_from
from hopline_engine.store import cloud_pushes, cloud_queues, cloud_tasks
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
