"""What people were asked to decide, and what they decided."""

from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, exists, select

from hopline_engine.core.model import RunId, TaskId
from hopline_engine.store.tables import approval, run, task


class StoredApproval(NamedTuple):
    """A question to a person, with the answer if there is one."""

    task_id: TaskId
    run_id: RunId
    public_id: str
    digest: str
    workflow: str
    node: int
    item: int
    prompt: str
    recipients: bytes
    asked_at: float
    expires_at: float | None
    approved: bool | None
    person: str | None
    decided_at: float | None
    form: bytes | None
    is_open: bool
    """Whether it can be decided: nobody has yet, and its step still waits."""


def newest(connection: Connection, *, only_open: bool, limit: int) -> list[StoredApproval]:
    """Return up to *limit* questions, the newest first."""
    query = _all().order_by(approval.c.asked_at.desc(), approval.c.task_id.desc()).limit(limit)
    if only_open:
        query = query.where(_waits())
    return [StoredApproval._make(row) for row in connection.execute(query)]


def of_run(connection: Connection, run_id: RunId) -> list[StoredApproval]:
    """Return the questions of a run, the oldest first."""
    query = _all().where(approval.c.run_id == run_id).order_by(approval.c.task_id)
    return [StoredApproval._make(row) for row in connection.execute(query)]


def _waits() -> Any:
    return exists().where(task.c.id == approval.c.task_id)


def _all() -> Select[*tuple[Any, ...]]:
    own = {name: approval.c[name] for name in StoredApproval._fields if name in approval.c}
    others = {"public_id": run.c.public_id, "digest": run.c.digest, "workflow": run.c.workflow, "is_open": _waits()}
    columns = [(own | others)[name].label(name) for name in StoredApproval._fields]
    return select(*columns).join_from(approval, run, run.c.id == approval.c.run_id)
