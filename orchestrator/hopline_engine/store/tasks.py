"""Tasks of open steps, as stored."""

from sqlalchemy import Connection, select

from hopline_engine.core.live import StoredTask
from hopline_engine.core.model import RunId
from hopline_engine.store.tables import task

COLUMNS = [task.c[name] for name in StoredTask._fields]


def of_run(connection: Connection, run_id: RunId) -> list[StoredTask]:
    """Return the tasks of a run, by step and element."""
    rows = connection.execute(select(*COLUMNS).where(task.c.run_id == run_id).order_by(task.c.node, task.c.item))
    return [StoredTask._make(row) for row in rows]
