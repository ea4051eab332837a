"""Tasks of open steps, as stored."""

from sqlalchemy import Connection, and_, delete, exists, or_, select

from hopline_engine.core.live import StoredTask
from hopline_engine.core.model import RunId, RunState, TaskId
from hopline_engine.store.tables import run, step_run, task

COLUMNS = [task.c[name] for name in StoredTask._fields]


def of_run(connection: Connection, run_id: RunId) -> list[StoredTask]:
    """Return the tasks of a run, by step and element."""
    rows = connection.execute(select(*COLUMNS).where(task.c.run_id == run_id).order_by(task.c.node, task.c.item))
    return [StoredTask._make(row) for row in rows]


def remove_closed(connection: Connection, task_id: TaskId) -> bool:
    """Remove a task that nothing needs: its run is not running, or its step has ended. Return whether it was such."""
    is_running = and_(run.c.id == task.c.run_id, run.c.state == RunState.RUNNING.value)
    has_ended = and_(step_run.c.run_id == task.c.run_id, step_run.c.node == task.c.node, step_run.c.item == task.c.item)
    is_closed = or_(~exists().where(is_running), exists().where(has_ended))
    return connection.execute(delete(task).where(task.c.id == task_id, is_closed)).rowcount > 0
