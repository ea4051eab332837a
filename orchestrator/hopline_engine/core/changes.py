"""The rows of one decision: what must become durable together, or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hopline_engine.core.model import (
    ApprovalAdded,
    ApprovalDecided,
    AttemptEnded,
    DefinitionAdded,
    EventAdded,
    KeyReleased,
    RunAdded,
    RunEnded,
    RunMoved,
    RunParked,
    RunWoken,
    StepEnded,
    TaskAdded,
    TaskId,
    TaskMoved,
    TaskRemoved,
    WaitAdded,
    WaitRemoved,
)


class QueueMoved(NamedTuple):
    """A queue is paused or resumed, or its token bucket moved on. The last one of a queue in a commit counts."""

    state: str
    """``running`` or ``paused``."""
    tokens: float
    tokens_at: float
    """When ``tokens`` was right, in Unix seconds."""
    name: str


@dataclass(slots=True)
class Changes:
    """Rows to be written, by kind, in the order in which a commit writes them.

    The order lets a commit take many decisions at once: rows are added before anything may move, remove or end them.
    """

    definitions_added: list[DefinitionAdded] = field(default_factory=list)
    runs_added: list[RunAdded] = field(default_factory=list)
    steps_ended: list[StepEnded] = field(default_factory=list)
    attempts_ended: list[AttemptEnded] = field(default_factory=list)
    tasks_added: list[TaskAdded] = field(default_factory=list)
    tasks_moved: list[TaskMoved] = field(default_factory=list)
    tasks_removed: list[TaskRemoved] = field(default_factory=list)
    runs_parked: list[RunParked] = field(default_factory=list)
    runs_woken: list[RunWoken] = field(default_factory=list)
    waits_added: list[WaitAdded] = field(default_factory=list)
    waits_removed: list[WaitRemoved] = field(default_factory=list)
    approvals_added: list[ApprovalAdded] = field(default_factory=list)
    approvals_decided: list[ApprovalDecided] = field(default_factory=list)
    events_added: list[EventAdded] = field(default_factory=list)
    queues_moved: list[QueueMoved] = field(default_factory=list)
    keys_released: Sequence[KeyReleased] = ()
    runs_moved: Sequence[RunMoved] = ()
    runs_ended: list[RunEnded] = field(default_factory=list)

    def release_key(self, task: TaskId) -> None:
        """Add that a task with a key is not worked on any more."""
        self.keys_released = (*self.keys_released, KeyReleased(task))

    @property
    def are_of_parking(self) -> bool:
        """Whether runs leave memory or come back to it."""
        return bool(self.runs_parked or self.runs_woken)
