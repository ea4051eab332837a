"""The rows of runs that begin, and of attempts and steps that end.

States stand in rows as plain values: for a member of an enum, SQLite's driver looks for an adapter each time.
"""

from hopline_engine.core.decision import Decision
from hopline_engine.core.failures import failure_json
from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import (
    WHOLE,
    AttemptEnded,
    AttemptState,
    RunAdded,
    RunId,
    RunState,
    StepEnded,
    StepState,
)
from hopline_engine.core.plan import Node
from hopline_engine.core.retry import Failure


def record_run(
    run: LiveRun,
    decision: Decision,
    *,
    idempotency_key: str | None = None,
    retry_of: RunId | None = None,
    fork_of: RunId | None = None,
) -> None:
    """Write the row of a run that begins."""
    parent = run.parent
    decision.rows.runs_added.append(
        RunAdded(
            run.id,
            run.public_id,
            run.plan.name,
            run.plan.digest,
            RunState.RUNNING.value,
            run.input.raw,
            idempotency_key,
            parent.run.id if parent else None,
            parent.node.index if parent else None,
            parent.item if parent else None,
            retry_of,
            run.created_at,
            fork_of,
            run.priority,
        )
    )


def record_attempt(
    task: LiveTask,
    state: AttemptState,
    decision: Decision,
    *,
    status: int | None = None,
    failure: Failure | None = None,
    logs: str | None = None,
) -> None:
    """Write the end of the current attempt of a task."""
    decision.rows.attempts_ended.append(
        AttemptEnded(
            task.run.id,
            task.node.index,
            task.item,
            task.attempt,
            str(state),
            status,
            failure_json(failure) if failure else None,
            None if logs is None else storable(logs),
            task.leased_at if task.leased_at is not None else decision.now,
            decision.now,
        )
    )


def record_step(
    task: LiveTask,
    state: StepState,
    decision: Decision,
    *,
    result: bytes | None = None,
    failure: Failure | None = None,
) -> None:
    """Write the end of a step run that had a task."""
    error = failure_json(failure, is_final=True) if failure else None
    decision.rows.steps_ended.append(
        StepEnded(
            task.run.id,
            task.node.index,
            task.item,
            str(state),
            result,
            error,
            task.attempt,
            task.first_attempt_at,
            decision.now,
        )
    )


def record_sub_step(
    run: LiveRun,
    node: Node,
    item: int,
    state: StepState,
    decision: Decision,
    *,
    result: bytes | None = None,
    failure: Failure | None = None,
    started_at: float | None = None,
) -> None:
    """Write the end of a step run that was a run of a sub-workflow."""
    error = failure_json(failure, is_final=True) if failure else None
    decision.rows.steps_ended.append(
        StepEnded(run.id, node.index, item, str(state), result, error, 1, started_at, decision.now)
    )


def record_node(
    run: LiveRun,
    node: Node,
    state: StepState,
    decision: Decision,
    failure: Failure | None = None,
    *,
    step: str | None = None,
    result: bytes | None = None,
) -> None:
    """Write the end of a step that has no task of its own: a map's record, one that never opened, or was decided here.

    *step* is the one that failed, where it is another.
    """
    error = failure_json(failure, step, is_final=True) if failure else None
    started = run.nodes[node.index].opened_at
    decision.rows.steps_ended.append(
        StepEnded(run.id, node.index, WHOLE, str(state), result, error, 0, started, decision.now)
    )


def storable(text: str) -> str:
    r"""Return *text* as every database can hold it: Postgres has no NUL characters, and a worker may send some.

    >>> storable("a\x00b")
    'a�b'
    """
    return text.replace("\0", "\ufffd")
