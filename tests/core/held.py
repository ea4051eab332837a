"""Which tasks have their keys and which runs their turns, as rows tell: what gives them out plays here.

Whoever has one lets go of it by a row, and by nothing else: one that is not let go of stays held, and then its run can
never end.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hopline_engine.core.decision import Decision
from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import UNDER_WAY, RunId, StepState, TaskId, TaskState
from hopline_engine.core.order import Place, turn_of
from hopline_engine.core.plan import Plan
from hopline_engine.core.waits import runs_at_a_time
from tests.core.rows import Rows


@dataclass
class Held:
    """What is held after the last commit."""

    keys: dict[TaskId, Place] = field(default_factory=dict)
    turns: dict[TaskId, str] = field(default_factory=dict)
    """By the number of the turn, the workflow."""

    def may_go(self, task: LiveTask, beside: Counter[Place] | None = None) -> bool:
        """Return whether a task that waits has its key, or its run's turn, or can have it; *beside* are just given."""
        if task.node.kind == "turn":
            return list(self.turns.values()).count(task.run.plan.name) < runs_at_a_time(task)
        if task.key is None or task.id in self.keys:
            return True
        assert task.node.order is not None
        given = Counter(self.keys.values()) + (beside or Counter())
        return given[place_of(task)] < task.node.order.key_limit

    def apply(self, decision: Decision, plans: Mapping[RunId, Plan]) -> None:
        """Note what a decision that is durable gives out and lets go of."""
        for step in decision.rows.steps_ended:
            plan = plans[step.run_id]
            node = plan.node(step.node)
            if node is not None and node.kind == "turn" and step.state == StepState.SUCCEEDED:
                self.turns[turn_of(step.run_id)] = plan.name
        for released in decision.rows.keys_released:
            self.keys.pop(released.task_id, None)
            self.turns.pop(released.task_id, None)
        for task in (*decision.opened, *decision.moved.values()):
            if task.key is not None and task.state in UNDER_WAY and task.id not in decision.closed:
                self.keys[task.id] = place_of(task)

    def check(self, rows: Rows, live: Mapping[RunId, LiveRun]) -> None:
        """Fail if something is held by what is over, not held by what is under way, or held by too many."""
        tasks = {unit.id: unit for run in live.values() for unit in run.units() if isinstance(unit, LiveTask)}
        for held in self.keys:
            assert held in tasks, f"task {held} is over and has its key"
            task = tasks[held]
            is_back = task.state is TaskState.SCHEDULED and not task.run.is_held
            assert task.state in UNDER_WAY or is_back, f"{task.name} has its key and is {task.state.name}"
        for task in tasks.values():
            assert task.key is None or task.state not in UNDER_WAY or task.id in self.keys, f"{task.name} has no key"
            if task.key is not None and task.node.order is not None:
                assert list(self.keys.values()).count(place_of(task)) <= task.node.order.key_limit
        turns = {turn_of(run.id): run for run in live.values() if run.plan.turn is not None}
        assert self.turns.keys() <= turns.keys(), "a run that has ended has its turn"
        for turn, run in turns.items():
            assert run.plan.turn is not None
            ended = rows.steps[run.id].get((run.plan.turn.index, -1))
            had = ended is not None and ended.state == StepState.SUCCEEDED
            assert (turn in self.turns) == had


def place_of(task: LiveTask) -> Place:
    """Return the queue and the key of a task that has one."""
    assert task.key is not None
    return Place(task.node.queue, task.key)
