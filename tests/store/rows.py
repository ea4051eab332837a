"""Builders of rows: a test says what matters to it, the rest is plausible.

Everything belongs to run ``run``, and a task has the number of its run unless it is told otherwise.
"""

from typing import Any

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import (
    WHOLE,
    AttemptEnded,
    AttemptState,
    DefinitionAdded,
    Digest,
    RunAdded,
    RunEnded,
    RunId,
    RunState,
    StepEnded,
    StepState,
    TaskAdded,
    TaskId,
    TaskMoved,
    TaskState,
)
from hopline_engine.core.names import public_id
from hopline_engine.store.definitions import StoredDefinition

NOW = 1_000_000.0

DEFINITION = StoredDefinition(digest=Digest("d1" * 32), name="report", body=b'{"format":1,"name":"report"}')


def definition_added(digest: str, name: str = "graph") -> DefinitionAdded:
    """Return the row of a version of a workflow."""
    return DefinitionAdded(Digest(digest), name, NOW, b'{"format":1,"name":"graph"}')


def run_added(run: int, **others: Any) -> RunAdded:
    """Return the row of a run that begins ``run`` seconds after ``NOW``."""
    row = RunAdded(
        id=RunId(run),
        public_id=public_id(RunId(run)),
        workflow=DEFINITION.name,
        digest=DEFINITION.digest,
        state=RunState.RUNNING.value,
        input=b"{}",
        idempotency_key=None,
        parent_id=None,
        parent_node=None,
        parent_item=None,
        retry_of=None,
        created_at=NOW + run,
    )
    return row._replace(**others)


def run_ended(run: int, state: RunState = RunState.SUCCEEDED, **others: Any) -> RunEnded:
    """Return the row of a run that ends."""
    row = RunEnded(state=state.value, result=b'"done"', error=None, ended_at=NOW + run + 0.5, id=RunId(run))
    return row._replace(**others)


def step_ended(run: int, node: int = 0, item: int = WHOLE, **others: Any) -> StepEnded:
    """Return the row of a step that succeeds with the result 1."""
    row = StepEnded(
        run_id=RunId(run),
        node=node,
        item=item,
        state=StepState.SUCCEEDED.value,
        result=b"1",
        error=None,
        attempts=1,
        started_at=NOW,
        ended_at=NOW + 1,
    )
    return row._replace(**others)


def attempt_ended(run: int, node: int = 0, item: int = WHOLE, attempt: int = 1, **others: Any) -> AttemptEnded:
    """Return the row of an attempt that succeeds and has printed something."""
    row = AttemptEnded(
        run_id=RunId(run),
        node=node,
        item=item,
        attempt=attempt,
        state=AttemptState.SUCCEEDED.value,
        status=200,
        error=None,
        logs="hello",
        started_at=NOW,
        ended_at=NOW + 1,
    )
    return row._replace(**others)


def task_added(run: int, node: int = 0, item: int = WHOLE, **others: Any) -> TaskAdded:
    """Return the row of a task that is due."""
    row = TaskAdded(
        id=TaskId(run),
        run_id=RunId(run),
        node=node,
        item=item,
        queue="default",
        state=TaskState.SCHEDULED.value,
        attempt=0,
        lost=0,
        blamed=0,
        schedule_time=NOW,
        deadline_time=None,
        first_attempt_at=None,
        leased_at=None,
        epoch=1,
    )
    return row._replace(**others)


def task_moved(task: int, **others: Any) -> TaskMoved:
    """Return the row of a task that is leased for its first attempt."""
    row = TaskMoved(
        state=TaskState.LEASED.value,
        attempt=1,
        lost=0,
        blamed=0,
        schedule_time=NOW,
        deadline_time=NOW + 60,
        first_attempt_at=NOW + 2,
        leased_at=NOW + 2,
        epoch=1,
        id=TaskId(task),
    )
    return row._replace(**others)


def started(run: int, **others: Any) -> Changes:
    """Return the decision that begins a run of one step."""
    return Changes(runs_added=[run_added(run, **others)], tasks_added=[task_added(run)])


def child_of(parent: int) -> dict[str, Any]:
    """Return the fields that make a run that of a sub-workflow."""
    return {"parent_id": RunId(parent), "parent_node": 0, "parent_item": WHOLE}
