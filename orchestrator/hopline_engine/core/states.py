"""Which state may follow which, as data; the diagrams in the documentation are generated from these tables."""

from collections.abc import Mapping
from typing import Final

from hopline_engine.core.model import RunState, StepState, TaskState

RUN: Final[Mapping[RunState, frozenset[RunState]]] = {
    RunState.RUNNING: frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}),
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}

_STOPPED: Final = frozenset({StepState.FAILED, StepState.CANCELLED})

STEP: Final[Mapping[StepState, frozenset[StepState]]] = {
    StepState.PENDING: frozenset(
        {
            StepState.QUEUED,
            StepState.SCHEDULED,  # a lap that rests before it begins
            StepState.RUNNING,
            StepState.WAITING,  # for a time, an event or a person
            StepState.SUCCEEDED,  # a map over nothing, or decided by the engine itself
            StepState.FAILED,  # its inputs cannot be bound
            StepState.SKIPPED,
            StepState.UPSTREAM_FAILED,
            StepState.CANCELLED,
        }
    ),
    StepState.QUEUED: frozenset({StepState.RUNNING}) | _STOPPED,
    StepState.RUNNING: frozenset(
        {
            StepState.QUEUED,
            StepState.SCHEDULED,
            StepState.WAITING,
            StepState.SUCCEEDED,
            StepState.UPSTREAM_FAILED,  # a map whose upstream map failed while some elements ran
        }
    )
    | _STOPPED,
    StepState.SCHEDULED: frozenset({StepState.QUEUED, StepState.RUNNING}) | _STOPPED,
    StepState.WAITING: frozenset(
        {
            StepState.SCHEDULED,
            StepState.QUEUED,
            StepState.RUNNING,  # a lap that is a run of its own, after the rest before it
            StepState.SUCCEEDED,
        }
    )
    | _STOPPED,
    StepState.SUCCEEDED: frozenset(),
    StepState.FAILED: frozenset(),
    StepState.SKIPPED: frozenset(),
    StepState.UPSTREAM_FAILED: frozenset(),
    StepState.CANCELLED: frozenset(),
}

TASK: Final[Mapping[TaskState, frozenset[TaskState]]] = {
    TaskState.SCHEDULED: frozenset({TaskState.LEASED}),
    TaskState.LEASED: frozenset({TaskState.SCHEDULED, TaskState.ACCEPTED}),
    TaskState.ACCEPTED: frozenset({TaskState.SCHEDULED}),
    TaskState.PARKED: frozenset(),
}
"""A task is removed from any of its states when its step ends."""

FINAL_RUN_STATES: Final = frozenset(state for state, following in RUN.items() if not following)
FINAL_STEP_STATES: Final = frozenset(state for state, following in STEP.items() if not following)
