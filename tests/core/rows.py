"""What a store would hold of runs, and how a step looks to people who look at the rows and at the live run."""

from dataclasses import dataclass, field

from hopline_engine.core.changes import Changes
from hopline_engine.core.live import LiveRun, LiveTask, StoredTask
from hopline_engine.core.model import (
    WHOLE,
    ApprovalAdded,
    ApprovalDecided,
    AttemptEnded,
    RunAdded,
    RunEnded,
    RunId,
    RunMoved,
    StepEnded,
    StepState,
    TaskId,
    TaskState,
    WaitAdded,
)
from hopline_engine.core.plan import Node
from hopline_engine.core.states import FINAL_STEP_STATES


@dataclass
class Numbers:
    """Counts runs and tasks."""

    last: int = 0

    def next_run(self, parent: RunId | None = None) -> RunId:
        self.last += 1
        return RunId(self.last)

    def next_task(self, run: RunId) -> TaskId:
        self.last += 1
        return TaskId(self.last)


Place = tuple[RunId, int, int]


@dataclass
class Rows:
    """What a store would hold, with the rules it would enforce."""

    runs: dict[RunId, RunAdded] = field(default_factory=dict)
    ended: dict[RunId, RunEnded] = field(default_factory=dict)
    steps: dict[RunId, dict[tuple[int, int], StepEnded]] = field(default_factory=dict)
    attempts: dict[Place, list[AttemptEnded]] = field(default_factory=dict)
    tasks: dict[TaskId, StoredTask] = field(default_factory=dict)
    waits: dict[TaskId, WaitAdded] = field(default_factory=dict)
    parked: set[RunId] = field(default_factory=set)
    moved: dict[RunId, RunMoved] = field(default_factory=dict)
    approvals: dict[TaskId, ApprovalAdded] = field(default_factory=dict)
    answers: dict[TaskId, ApprovalDecided] = field(default_factory=dict)

    def apply(self, changes: Changes) -> None:
        for run in changes.runs_added:
            assert run.id not in self.runs, "a run was added twice"
            self.runs[run.id] = run
            self.steps[run.id] = {}
        for ended in changes.steps_ended:
            steps = self._open(ended.run_id)
            assert (ended.node, ended.item) not in steps, f"{ended} ended twice"
            steps[ended.node, ended.item] = ended
        for attempt in changes.attempts_ended:
            self._open(attempt.run_id)
            self.attempts.setdefault((attempt.run_id, attempt.node, attempt.item), []).append(attempt)
        self._apply_to_tasks(changes)
        for change in changes.runs_moved:
            self._open(change.id)
            self.moved[change.id] = change
        for end in changes.runs_ended:
            self._open(end.id)
            self.ended[end.id] = end

    def _apply_to_tasks(self, changes: Changes) -> None:
        for added in changes.tasks_added:
            self._open(added.run_id)
            assert added.id not in self.tasks, "a task was added twice"
            self.tasks[added.id] = StoredTask(*added)
        for moved in changes.tasks_moved:
            self.tasks[moved.id] = self.tasks[moved.id]._replace(**moved._asdict())
        for removed in changes.tasks_removed:
            del self.tasks[removed.id]
        self._apply_waits(changes)

    def _apply_waits(self, changes: Changes) -> None:
        for parked in changes.runs_parked:
            assert parked.run_id not in self.parked, "it is parked already"
            self.parked.add(parked.run_id)
        for woken in changes.runs_woken:
            self.parked.remove(woken.run_id)
        for wait in changes.waits_added:
            self.waits[wait.task_id] = wait
        for over in changes.waits_removed:
            del self.waits[over.task_id]
        for asked in changes.approvals_added:
            self.approvals[asked.task_id] = asked
        for answer in changes.approvals_decided:
            assert answer.task_id in self.approvals
            assert answer.task_id not in self.answers, "it was decided twice"
            self.answers[answer.task_id] = answer

    def _open(self, run: RunId) -> dict[tuple[int, int], StepEnded]:
        assert run not in self.ended, f"run {run} has ended, but changes"
        return self.steps[run]


def items_of(run: LiveRun, node: Node, rows: Rows) -> set[int]:
    """Return the elements of a step that were opened, and the step as a whole."""
    live_map = run.nodes[node.index].map
    ended = {item for index, item in rows.steps[run.id] if index == node.index}
    return {WHOLE, *ended, *(live_map.units if live_map else ())}


def shown_state(run: LiveRun, node: Node, item: int, rows: Rows, now: float) -> StepState:
    """Return the state of a step run as people are shown it."""
    ended = rows.steps[run.id].get((node.index, item))
    if ended is not None:
        return StepState(ended.state)
    live = run.nodes[node.index]
    assert item != WHOLE or live.state not in FINAL_STEP_STATES
    unit = run.unit(node, item)
    if isinstance(unit, LiveTask):
        match unit.state:
            case TaskState.SCHEDULED:
                return StepState.QUEUED if unit.schedule_time <= now else StepState.SCHEDULED
            case TaskState.LEASED:
                return StepState.RUNNING
            case TaskState.ACCEPTED | TaskState.PARKED:
                return StepState.WAITING
    is_map = item == WHOLE and live.map is not None
    return StepState.RUNNING if unit is not None or is_map else StepState.PENDING
