"""The end of runs by their rows alone, where there is no plan of them: this engine cannot read their definition.

Steps that never opened get no row, for without a plan nobody knows them.
"""

from collections.abc import Collection, Iterable

from hopline_engine.core.changes import Changes
from hopline_engine.core.failures import failure_json
from hopline_engine.core.live import StoredTask
from hopline_engine.core.model import (
    UNDER_WAY,
    AttemptEnded,
    AttemptState,
    RunAdded,
    RunEnded,
    RunId,
    RunState,
    StepEnded,
    StepState,
    TaskId,
    TaskRemoved,
    WaitRemoved,
)
from hopline_engine.core.names import public_id
from hopline_engine.core.order import turn_of
from hopline_engine.core.retry import Failure


def cancel(
    family: Iterable[tuple[RunAdded, Iterable[StoredTask]]], root: RunId, now: float, waiting: Collection[TaskId]
) -> Changes:
    """Return what ends a run and all runs below it as cancelled; the step that it executes fails.

    Tasks that are *waiting* for events are found by these until they are gone.
    """
    changes = Changes()
    for run, tasks in family:
        for task in tasks:
            _cancel_task(task, now, changes)
            if task.id in waiting:
                changes.waits_removed.append(WaitRemoved(task.id))
        if run.parent_id is not None and run.parent_node is not None and run.parent_item is not None:
            place = (run.parent_id, run.parent_node, run.parent_item)
            if run.id == root:
                why = f"its run {public_id(root)} was cancelled"
                state, error = StepState.FAILED, failure_json(Failure("Cancelled", why))
            else:
                state, error = StepState.CANCELLED, None
            changes.steps_ended.append(StepEnded(*place, str(state), None, error, 1, run.created_at, now))
        changes.release_key(turn_of(run.id))
        changes.runs_ended.append(RunEnded(RunState.CANCELLED.value, None, None, now, run.id))
    return changes


def _cancel_task(task: StoredTask, now: float, changes: Changes) -> None:
    place = (task.run_id, task.node, task.item)
    state = StepState.CANCELLED.value
    if task.state in UNDER_WAY:
        began = task.leased_at if task.leased_at is not None else now
        ended = AttemptState.CANCELLED.value
        changes.attempts_ended.append(AttemptEnded(*place, task.attempt, ended, None, None, None, began, now))
    changes.steps_ended.append(StepEnded(*place, state, None, None, task.attempt, task.first_attempt_at, now))
    changes.tasks_removed.append(TaskRemoved(task.id))
    changes.release_key(task.id)
