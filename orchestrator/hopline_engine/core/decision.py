"""What one event changes, collected until it can be committed."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hopline_engine.core.changes import Changes
from hopline_engine.core.doubts import Part
from hopline_engine.core.live import (
    LiveRun,
    LiveTask,
    Past,
    nowhere,
)
from hopline_engine.core.model import (
    ApprovalAdded,
    RunId,
    TaskAdded,
    TaskId,
    TaskMoved,
    WaitAdded,
)
from hopline_engine.core.plan import Node, Plan
from hopline_engine.core.references import Contents


class Ids(Protocol):
    """Gives out numbers that are never given twice. Those of one shard grow, so a sub-run's is above its parent's."""

    def next_run(self, parent: RunId | None = None) -> RunId:
        """Return a new run number, in the shard of the run above it if there is one."""
        ...

    def next_task(self, run: RunId) -> TaskId:
        """Return a new task number, in the shard of its run."""
        ...


Misfit = Callable[[Plan, Part, bytes], str | None]
"""Returns why a value is no input of a workflow, or no result of it; ``None`` when it is one."""


def fits(plan: Plan, part: Part, value: bytes) -> None:
    """Take every value for what it has to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The engine's own bounds on steps."""

    accepted_timeout: float = 86_400.0
    retry_after_cap: float = 3600.0
    lost_limit: int = 10
    map_window: int = 1000
    nesting: int = 100
    """Runs of dynamic workflows in each other: they may call themselves."""
    composed_bytes: int = 256 * 2**20
    """Of what is put together from results and stored: the result of a run, the input of a sub-run. SQLite's own limit,
    10**9, must never be met: a run that cannot be ended never ends."""
    misfit: Misfit = fits
    """Says why a value is not of the type that a workflow declares."""
    contents: Contents = nowhere
    """What large values say that are not in rows; decisions look into some, as into the list that a map goes over."""


@dataclass(slots=True)
class Decision:
    """Collects what one event changes.

    ``rows`` is complete only after ``seal``: the rows of tasks are made last, so that a task which is opened and
    leased by the same decision is one row.
    """

    now: float
    random: Callable[[], float]
    ids: Ids
    limits: Limits
    runs_url: str = ""
    """Where people look at runs: before the id of one."""
    rows: Changes = field(default_factory=Changes)
    opened: list[LiveTask] = field(default_factory=list)
    """New tasks, to be queued."""
    moved: dict[TaskId, LiveTask] = field(default_factory=dict)
    """Stored tasks that changed."""
    rescheduled: list[LiveTask] = field(default_factory=list)
    """Tasks that wait again: for their time, or for the queue."""
    accepted: list[LiveTask] = field(default_factory=list)
    waits: list[WaitAdded] = field(default_factory=list)
    """What new tasks wait for that are parked until an event."""
    asked: list[ApprovalAdded] = field(default_factory=list)
    """What people are asked to decide, by new tasks that are parked until they do."""
    in_turn: Sequence[LiveTask] = ()
    """Tasks that are parked until it is their run's turn."""
    awaiting: list[TaskId] = field(default_factory=list)
    """Tasks that are parked until an event, which may have happened."""
    asking: Sequence[LiveTask] = ()
    """Tasks that are parked until a person decides, of which others may want to know: most decisions have none."""
    closed: dict[TaskId, LiveTask] = field(default_factory=dict)
    """Tasks that are no more."""
    called_off: Sequence[LiveTask] = ()
    """Those of them whose targets are to be told that the run was cancelled: most decisions have none."""
    began: list[LiveRun] = field(default_factory=list)
    ended: list[LiveRun] = field(default_factory=list)
    touched: dict[LiveRun, set[int]] = field(default_factory=dict)
    """Steps that changed, by run: what watchers are shown."""
    todo: deque[tuple[LiveRun, Node]] = field(default_factory=deque)
    """Steps whose upstreams are done and which are to be opened. A queue and not recursion: chains are long."""
    empty: deque[LiveRun] = field(default_factory=deque)
    """Sub-runs without a step, which end as soon as they begin."""
    past: dict[RunId, Past] = field(default_factory=dict)

    def touch(self, run: LiveRun, node: Node) -> None:
        """Note that a step changed."""
        self.touched.setdefault(run, set()).add(node.index)

    def seal(self) -> Changes:
        """Add the rows of tasks and return all rows."""
        rows = self.rows
        rows.tasks_moved += [_moved(task) for task in self.moved.values() if task.stored and task.id not in self.closed]
        for task in self.opened:
            if task.id not in self.closed:
                rows.tasks_added.append(_added(task))
                task.stored = True
        if self.waits:
            rows.waits_added += [wait for wait in self.waits if wait.task_id not in self.closed]
        if self.asked:
            rows.approvals_added += [asked for asked in self.asked if asked.task_id not in self.closed]
        return rows


def _added(task: LiveTask) -> TaskAdded:
    # Rows take states by ``int`` and ``str``: ``value`` is a property written in Python, and rows are many.
    return TaskAdded(
        task.id,
        task.run.id,
        task.node.index,
        task.item,
        task.node.queue,
        int(task.state),
        task.attempt,
        task.lost,
        task.blamed,
        task.schedule_time,
        task.deadline_time,
        task.first_attempt_at,
        task.leased_at,
        task.epoch,
    )


def _moved(task: LiveTask) -> TaskMoved:
    return TaskMoved(
        int(task.state),
        task.attempt,
        task.lost,
        task.blamed,
        task.schedule_time,
        task.deadline_time,
        task.first_attempt_at,
        task.leased_at,
        task.epoch,
        task.id,
    )
