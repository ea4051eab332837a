"""What is durable, as the transactions said it one after the other: the simulation's own memory of the store.

Every committed row passes through here and is checked against what came before it. The numbers are those of the
invariants in the design of correctness.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import WHOLE, RunAdded, RunId, StepEnded, StepState, TaskState
from hopline_engine.core.names import parse_step_name, run_id, step_name
from hopline_engine.core.plan import Node, Plan
from tests.core.rows import Place, Rows
from tests.simulation.closings import left_before

Write = tuple[str, Sequence[tuple[Any, ...]]]


class ViolationError(Exception):
    """Something happened that must not."""


class Lease(NamedTuple):
    """An attempt that may be sent."""

    place: Place
    queue: str
    attempt: int
    leased_at: float
    """By the clock of its node."""


@dataclass
class Ledger:
    """All rows by kind, and what cannot be seen in rows."""

    rows: Rows = field(default_factory=Rows)
    plans: dict[str, Plan] = field(default_factory=dict)
    """By digest."""
    leases: dict[tuple[Place, int], Lease] = field(default_factory=dict)
    commits: int = 0
    digest: Any = field(default_factory=hashlib.blake2b)
    paused: set[str] = field(default_factory=set)
    """Queues whose pause was acknowledged."""
    paused_runs: set[RunId] = field(default_factory=set)
    """Runs that somebody started whose pause was acknowledged, and nobody asked for it to end."""
    asked_events: set[str] = field(default_factory=set)
    """Keys of the events that somebody has emitted, or tried to."""
    all_leases: list[Lease] = field(default_factory=list)
    _new_leases: list[Lease] = field(default_factory=list)
    """Of the transaction that is looked at."""
    deadlines: dict[Place, float] = field(default_factory=dict)
    """When step runs fail whatever they are doing."""
    turns: dict[str, int] = field(default_factory=dict)
    """How many runs of each workflow may be under way at a time, where that is limited."""

    def commit(self, writes: list[Write]) -> None:
        """Take in one transaction."""
        self.commits += 1
        self.digest.update(repr([(kind, list(map(tuple, rows))) for kind, rows in writes]).encode())
        changes = Changes()
        for kind, rows in writes:
            setattr(changes, kind, [*getattr(changes, kind), *rows])
        try:
            self._check(changes)
            self.rows.apply(changes)
            self._check_after(changes)
        except (AssertionError, KeyError) as error:
            raise ViolationError(f"a transaction breaks a rule: {error!r}; it was {writes}") from error

    def run(self, public: str) -> RunAdded | None:
        """Return a run by its public id."""
        number = run_id(public)
        return self.rows.runs.get(number) if number is not None else None

    def plan_of(self, run: RunId) -> Plan:
        """Return the plan of a run."""
        return self.plans[self.rows.runs[run].digest]

    def node(self, run: RunId, index: int) -> Node:
        """Return a step of a run, or one of its undo steps."""
        plan = self.plan_of(run)
        return plan.nodes[index] if index >= 0 else plan.undos[index]

    def ending(self, run: RunId) -> str | None:
        """Return how a run that undoes what it did, or has undone it, is going to end."""
        moved = self.rows.moved.get(run)
        return moved.ending if moved is not None else None

    def earlier(self, run: RunId) -> RunId | None:
        """Return the run that a run goes on from: it is a retry of it, or a fork."""
        row = self.rows.runs[run]
        return row.retry_of if row.retry_of is not None else row.fork_of

    def is_paused(self, run: RunId) -> bool:
        """Return whether a run itself is paused."""
        return run in self.rows.moved and self.rows.moved[run].paused_at is not None

    def place(self, public: str, step: str) -> Place:
        """Return the step run that a request names."""
        number = run_id(public)
        assert number is not None
        node, item = parse_step_name(step)
        return number, self.plan_of(number).by_id[node].index, item

    def name(self, place: Place) -> str:
        """Return what people call a step run."""
        run, node, item = place
        return f"{self.rows.runs[run].public_id}/{step_name(self.node(run, node).id, item)}"

    def root(self, run: RunId) -> RunId:
        """Return the run that somebody started, of which *run* is a part."""
        while (parent := self.rows.runs[run].parent_id) is not None:
            run = parent
        return run

    # --- rules of rows

    def _check(self, changes: Changes) -> None:
        """Check what must be true when rows are added to those that are there (I3, I4, I7, I11)."""
        rows = self.rows
        self._new_leases = []
        for added in changes.tasks_added:
            if added.deadline_time is not None:
                self.deadlines[added.run_id, added.node, added.item] = added.deadline_time
            if added.state == TaskState.LEASED:
                self._note_lease((added.run_id, added.node, added.item), added.queue, added.attempt, added.leased_at)
        added_tasks = {added.id: added for added in changes.tasks_added}
        for moved in changes.tasks_moved:
            before: Any = rows.tasks.get(moved.id) or added_tasks.get(moved.id)
            assert before is not None, "a task moved that is not there"
            place = (before.run_id, before.node, before.item)
            if moved.state == TaskState.LEASED:
                assert place[0] not in rows.ended
                self._note_lease(place, before.queue, moved.attempt, moved.leased_at)
        for step in changes.steps_ended:
            self._check_event(step)
        for attempt in changes.attempts_ended:
            place = (attempt.run_id, attempt.node, attempt.item)
            assert (place, attempt.attempt) in self.leases, (
                f"{place} ended attempt {attempt.attempt}, which never began"
            )

    def _note_lease(self, place: Place, queue: str, attempt: int, leased_at: float | None) -> None:
        assert leased_at is not None
        assert queue not in self.paused, f"{place} is leased although queue {queue} is paused"
        assert not self.has_lost(place), f"{place} is leased, and another arm has won its race"
        lease = Lease(place, queue, attempt, leased_at)
        # An attempt that was taken back, because it reached nobody, is made again under its number.
        if self.leases.get((place, attempt)) == lease:
            return  # a commit of unknown outcome, made once more
        self.leases[place, attempt] = lease
        self._new_leases.append(lease)
        self.all_leases.append(lease)

    def _check_after(self, changes: Changes) -> None:
        """Check what must be true after a commit of what it touched: I1, I5, I7."""
        rows = self.rows
        for attempt in changes.attempts_ended:
            numbers = [row.attempt for row in rows.attempts[attempt.run_id, attempt.node, attempt.item]]
            assert numbers == list(range(1, len(numbers) + 1)), f"attempts of {attempt}: {numbers}"
        for step in changes.steps_ended:
            if step.state == StepState.SUCCEEDED:
                self._check_upstreams(step.run_id, step.node, step.item)
        if self.paused_runs:
            held = [lease for lease in self._new_leases if self.root(lease.place[0]) in self.paused_runs]
            assert not held, f"{held} are leased although their runs are paused"
        self._check_turns(changes)
        for end in changes.runs_ended:
            steps = rows.steps[end.id]
            open_nodes = [node.id for node in self.plan_of(end.id).nodes if (node.index, WHOLE) not in steps]
            assert not open_nodes, f"run {end.id} ended, and {open_nodes} did not"
        ended = {end.id for end in changes.runs_ended}
        if ended:
            left = [task for task in rows.tasks.values() if task.run_id in ended]
            assert not left, f"tasks of ended runs are left: {left}"

    def _check_upstreams(self, run: RunId, node: int, item: int) -> None:
        missing = self.missing_upstreams((run, node, item))
        is_retry, turn = self.earlier(run) is not None, self.plan_of(run).turn
        if is_retry and self.node(run, node).arms:
            return  # that steps are skipped is told anew of those that a kept choice was made between
        if turn is not None and is_retry and missing == [turn.id]:
            return  # what a retry keeps succeeded in another run's turn
        assert not missing, f"{self.name((run, node, item))} succeeded before {missing}"

    def _check_event(self, step: StepEnded) -> None:
        """Check that the event which ends a wait was emitted."""
        waits = [wait for wait in self.rows.waits.values() if wait.run_id == step.run_id]
        for wait in waits:
            if self.rows.tasks[wait.task_id].node == step.node and step.state == StepState.SUCCEEDED:
                assert wait.key in self.asked_events, f"{step} has an event that nobody emitted"

    def missing_upstreams(self, place: Place) -> list[str]:
        """Return what a step run needs that has not succeeded (I6)."""
        run, index, item = place
        node = self.node(run, index)
        if node.arms:
            return self._undecided(run, node)
        if node.closes is not None:
            return left_before(self, run, node)
        if node.undoes is not None:  # exactly what it undoes; the record of all elements of a map comes after them
            needs = [] if node.over is not None and item == WHOLE else [(node.undoes, item)]
        else:
            needs = [(upstream, WHOLE) for upstream in node.upstream]
        if node.stream_from is not None and item != WHOLE:
            needs.append((node.stream_from, item))
        nodes = self.plan_of(run).nodes
        return [step_name(nodes[needed].id, each) for needed, each in needs if not self._is_there(run, needed, each)]

    def _is_there(self, run: RunId, index: int, item: int) -> bool:
        """Return whether there is what a step run gives to those that need it."""
        end = self.rows.steps[run].get((index, item))
        is_enough = item != WHOLE and self.plan_of(run).nodes[index].settled  # whatever became of it
        return end is not None and (is_enough or end.state == StepState.SUCCEEDED)

    def _undecided(self, run: RunId, node: Node) -> list[str]:
        """Return what has to end before it is decided which arm a choice takes: of a race, one arm."""
        plan, steps = self.plan_of(run), self.rows.steps[run]
        ends = {index: steps[index, WHOLE].state for index in node.upstream if (index, WHOLE) in steps}
        well = {StepState.SUCCEEDED, StepState.SKIPPED}
        if node.kind == "first" and any({ends.get(index) for index in arm.needs} <= well for arm in node.arms):
            return []
        return [plan.nodes[index].id for index in node.upstream if index not in ends]

    def has_lost(self, place: Place) -> bool:
        """Return whether what a step is inside of is decided already."""
        if place[0] not in self.rows.runs:
            return False
        plan, steps = self.plan_of(place[0]), self.rows.steps[place[0]]
        within = self.node(place[0], place[1]).within if place[1] >= 0 else None
        while within is not None:
            if (within, WHOLE) in steps:
                return True
            within = plan.nodes[within].within
        return False

    def under_way(self, workflow: str) -> list[RunId]:
        """Return the runs of a workflow with limited runs that have their turn, and have not ended."""
        return [run.id for run in self.open_runs() if run.workflow == workflow and self._has_turn(run.id)]

    def _has_turn(self, run: RunId) -> bool:
        turn = self.plan_of(run).turn
        end = self.rows.steps[run].get((turn.index, WHOLE)) if turn is not None else None
        return end is not None and end.state == StepState.SUCCEEDED

    def _check_turns(self, changes: Changes) -> None:
        for workflow in {self.rows.runs[step.run_id].workflow for step in changes.steps_ended} & self.turns.keys():
            runs = self.under_way(workflow)
            assert len(runs) <= self.turns[workflow], f"{runs} of {workflow} are under way at the same time"

    def open_runs(self) -> list[RunAdded]:
        """Return the runs that have not ended."""
        return [run for number, run in self.rows.runs.items() if number not in self.rows.ended]
