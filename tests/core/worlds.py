"""Definitions, and a small world to run them in: rows as a store keeps them, and no other memory across a crash.

The world plays coordinator, clock, workers and store. It can die after any commit, or before it with the decision
undone, and then goes on from its rows alone. After every commit it checks what ``invariants`` promises, and it keeps
every change of state that people would see, as data for the tests of the transition tables.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from hopline_engine.core import advance, records, waiting
from hopline_engine.core.binding import BindingError
from hopline_engine.core.decision import Decision, Limits
from hopline_engine.core.live import LiveRun, LiveTask, Parent, Past, RunScope, Traced, item_of
from hopline_engine.core.model import (
    WHOLE,
    AttemptState,
    Digest,
    RunId,
    RunState,
    StepEnded,
    StepState,
    TaskState,
)
from hopline_engine.core.names import parse_step_name
from hopline_engine.core.order import Place
from hopline_engine.core.plan import Plan
from hopline_engine.core.planning import build_plan
from hopline_engine.core.references import Reference, filled
from hopline_engine.core.retry import Failure
from hopline_engine.core.reusing import Again, Earlier, kept_of
from tests.core import invariants
from tests.core.held import Held, place_of
from tests.core.rows import Numbers, Rows, items_of, shown_state
from tests.core.rows import Place as StepPlace

ANY: dict[str, Any] = {}

# --- definitions ----------------------------------------------------------------------------------------------------


def ref(source: str, *path: str | int) -> dict[str, Any]:
    return {"$ref": source, "path": list(path)}


def retry(attempts: int, first: float = 1.0, factor: float = 2.0, longest: float = 60.0) -> dict[str, Any]:
    return {"attempts": attempts, "first": first, "factor": factor, "max": longest, "jitter": "none", "on": []}


def step(
    name: str,
    inputs: dict[str, Any] | None = None,
    *,
    over: str | None = None,
    after: list[str] | None = None,
    attempts: int = 1,
    first: float = 1.0,
    deadline: float | None = None,
    max_parallel: int | None = None,
    workflow: tuple[str, str] | None = None,
    queue: str = "default",
) -> dict[str, Any]:
    """Return the node of a Python step, or of a sub-workflow (name and digest)."""
    return {
        "id": name,
        "kind": "workflow" if workflow else "python",
        "step": name,
        "signature": "" if workflow else "s",
        "inputs": inputs or {},
        "request": None,
        "workflow": {"name": workflow[0], "digest": workflow[1]} if workflow else None,
        "over": over,
        "after": after or [],
        "result": ANY,
        "policy": {
            "retry": retry(attempts, first),
            "timeout": None,
            "deadline": deadline,
            "queue": queue,
            "max_parallel": max_parallel,
        },
    }


def op(operator: str, *args: Any) -> dict[str, Any]:
    """Return a condition."""
    return {"$op": operator, "args": list(args)}


def guard(condition: Any, expected: bool = True) -> dict[str, Any]:
    return {"if": condition, "is": expected}


def choice(kind: str, name: str, arms: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return the node of a branch, recover or first."""
    return step(name) | {"kind": kind, "signature": "", "arms": arms} | more


def branch(name: str, *arms: tuple[list[dict[str, Any]], Any], **more: Any) -> dict[str, Any]:
    """Return a branch; each arm is its guards and its value."""
    return choice("branch", name, [{"guards": guards, "value": value} for guards, value in arms], **more)


def guarded(node: dict[str, Any], *guards: dict[str, Any]) -> dict[str, Any]:
    """Return a step that runs only where all guards pass."""
    return node | {"guards": list(guards)}


def turn_step(limit: int, name: str = "turn") -> dict[str, Any]:
    """Return the node in which a run waits for its turn."""
    return step(name, {"limit": limit}) | {"kind": "turn", "step": "turn", "signature": ""}


def sleep_step(name: str, seconds: float, **options: Any) -> dict[str, Any]:
    """Return the node of a sleep."""
    return step(name, {"seconds": seconds}, **options) | {"kind": "sleep", "step": "sleep", "signature": ""}


def event_step(name: str, key: Any, *, deadline: float | None = None, **options: Any) -> dict[str, Any]:
    """Return the node of a wait for the event ``happened``."""
    node = step(name, {"key": key}, deadline=deadline, **options)
    return node | {"kind": "event", "step": "happened", "signature": ""}


def loop_step(
    name: str = "l",
    start: Any = 0,
    *,
    until: int = 3,
    limit: int = 10,
    every: float | None = None,
    over: str = "x",
    **more: Any,
) -> dict[str, Any]:
    """Return a loop that ends when the result of a lap is at least *until*."""
    node = step(name, {over: start}, **more)
    condition = {"$op": ">=", "args": [ref("$item"), until]}
    repeated = {"kind": node["kind"], "over": over, "until": condition, "limit": limit, "every": every}
    return {**node, "kind": "loop", "loop": repeated}


def closing(closes: str, name: str = "", **inputs: Any) -> dict[str, Any]:
    """Return a step with which runs close."""
    return step(name or closes, inputs) | {"closes": closes}


def http_step(name: str, url: Any, **request: Any) -> dict[str, Any]:
    """Return the node of an HTTP step."""
    node = step(name)
    node |= {"kind": "http", "signature": "", "request": {"method": "GET", "url": url, **request}}
    return node


def definition(name: str, nodes: list[dict[str, Any]], result: Any = None) -> dict[str, Any]:
    return {
        "format": 1,
        "name": name,
        "parameters": {"type": "object"},
        "nodes": sorted(nodes, key=lambda node: str(node["id"])),
        "result": result,
        "result_schema": ANY,
        "queues": [],
    }


def plan(
    nodes: list[dict[str, Any]], result: Any = None, children: dict[str, Plan] | None = None, name: str = "w"
) -> Plan:
    return build_plan(definition(name, nodes, result), Digest(name), children or {})


# --- the world ------------------------------------------------------------------------------------------------------


class Accept:
    """An answer of 202: the result comes by callback."""


ACCEPT = Accept()
Outcome = bytes | Failure | Accept | Traced
Execute = Callable[[LiveTask, dict[str, Any]], Outcome]


def echo(task: LiveTask, arguments: dict[str, Any]) -> Outcome:
    """Return a result that shows the step and what it was given."""
    return msgspec.json.encode({"step": task.node.id, **arguments})


@dataclass(frozen=True)
class Sent:
    """One request that left the engine."""

    run: RunId
    step: str
    attempt: int


@dataclass(frozen=True)
class Faults:
    """How often a turn goes wrong, as shares of one."""

    crash: float = 0.0
    """The engine dies after a commit."""
    undo: float = 0.0
    """The engine dies before a commit, and the decision with it."""
    lose: float = 0.0
    """A worker dies with a step."""
    unlease: float = 0.0
    """A worker does not take a step."""
    reject: float = 0.0
    """A request cannot be made."""
    expire: float = 0.0
    """The deadline of a waiting step comes before anything else."""
    beat: float = 0.0
    """Of the answers to what was accepted, those that only say that it goes on."""


@dataclass
class World:
    """Runs plans; every event is one method, every event one commit."""

    plans: dict[str, Plan]
    execute: Execute = echo
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    rows: Rows = field(default_factory=Rows)
    ids: Numbers = field(default_factory=Numbers)
    now: float = 1000.0
    epoch: int = 1
    live: dict[RunId, LiveRun] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    losses: int = 0
    seen: dict[StepPlace, StepState] = field(default_factory=dict)
    """The state of each step run as people saw it last."""
    transitions: set[tuple[StepState, StepState]] = field(default_factory=set)
    dies_at_commit: bool = False
    """Whether the next decision is undone by a crash."""
    haste: float = 0.0
    """Share of the tasks that are leased by the decision which makes them due, as the coordinator does."""
    spills: float = 0.0
    """Share of the results of steps that are kept elsewhere, and referred to."""
    held: Held = field(default_factory=Held)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.elsewhere: dict[str, bytes] = {}
        self.limits = replace(self.limits, contents=self._content)

    # --- events

    @contextmanager
    def event(self) -> Iterator[Decision]:
        """Decide on one event and commit it."""
        decision = Decision(self.now, self.random.random, self.ids, self.limits)
        yield decision
        self._lease_at_once(decision)
        if self.dies_at_commit:
            self.dies_at_commit = False
            self.crash()
        else:
            self._commit(decision)

    def start(
        self, name: str = "w", input_: bytes = b"{}", *, past: Past | None = None, earlier: Earlier | None = None
    ) -> LiveRun:
        """Start a run as ``Coordinator.start`` does."""
        run = LiveRun.fresh(self.ids.next_run(), self.plans[name], input_, self.now, None)
        if earlier is not None:
            past, run.earlier = Past(list(earlier.kept)), earlier.below
        with self.event() as decision:
            records.record_run(run, decision, retry_of=earlier.run if earlier else None)
            if past is not None:
                past.steps = [row._replace(run_id=run.id) for row in past.steps]
                self.seen |= {(run.id, row.node, row.item): StepState(row.state) for row in past.steps}
                decision.rows.steps_ended += past.steps
            advance.begin(run, decision, past)
        return run

    def lease(self, task: LiveTask) -> None:
        self.sleep_until(task.schedule_time)
        with self.event() as decision:
            advance.lease(task, decision, self.epoch)

    def answer(self, task: LiveTask) -> None:
        """Let a sent or accepted step have its outcome."""
        self._check_upstreams(task)
        if task.state is TaskState.LEASED:
            self.sent.append(Sent(task.run.id, task.name, task.attempt))
        scope = RunScope(task.run, item_of(task.run, task.node, task.item))
        try:
            arguments = msgspec.json.decode(scope.whole(task.node.inputs.render(scope)))
        except BindingError as error:
            self.reject(task, Failure("BindingError", str(error), ("BindingError",), final=True))
            return
        outcome = self.execute(task, arguments)
        if isinstance(outcome, bytes) and self.random.random() < self.spills:
            outcome = self._spilled(outcome)
        with self.event() as decision:
            match outcome:
                case Accept():
                    advance.accept(task, decision)
                case Failure():
                    advance.fail(task, outcome, decision)
                case Traced():
                    advance.pin(task, outcome, decision)
                case _:
                    advance.succeed(task, outcome, decision)

    def run_step(self, name: str, run: LiveRun | None = None) -> None:
        """Send a step and let it have its outcome."""
        self.lease(self.task(name, run))
        self.answer(self.task(name, run))

    def lose(self, task: LiveTask) -> None:
        self.losses += 1
        with self.event() as decision:
            advance.lose(task, decision, "the worker died")

    def unlease(self, task: LiveTask) -> None:
        with self.event() as decision:
            advance.unlease(task, decision)

    def fail(self, task: LiveTask, failure: Failure, state: AttemptState = AttemptState.FAILED) -> None:
        with self.event() as decision:
            advance.fail(task, failure, decision, state=state)

    def expire(self, task: LiveTask) -> None:
        assert task.deadline_time is not None
        self.sleep_until(task.deadline_time)
        with self.event() as decision:
            advance.expire(task, decision)

    def wake(self, task: LiveTask) -> None:
        """Let the time come at which a wait is over by itself."""
        self.sleep_until(task.schedule_time)
        with self.event() as decision:
            waiting.fire(task, decision)

    def happen(self, task: LiveTask, says: bytes = b"null") -> None:
        """Let what a parked task waits for happen."""
        with self.event() as decision:
            waiting.fulfil(task, says, decision)

    def beat(self, task: LiveTask, seconds: float = 3600.0) -> None:
        """Let the target of an accepted task say that it goes on."""
        with self.event() as decision:
            advance.extend(task, self.now + seconds, decision)

    def reject(self, task: LiveTask, failure: Failure) -> None:
        with self.event() as decision:
            advance.reject(task, failure, decision)

    def expire_run(self, run: LiveRun) -> None:
        """Let the time come at which a run is over its deadline."""
        assert run.deadline_time is not None
        self.sleep_until(run.deadline_time)
        with self.event() as decision:
            advance.expire_run(run, decision)

    def cancel(self, run: LiveRun) -> None:
        with self.event() as decision:
            advance.cancel(run, decision)

    def pause(self, run: LiveRun) -> None:
        with self.event() as decision:
            _release_keys(advance.pause(run, decision), decision)

    def resume(self, run: LiveRun) -> None:
        with self.event() as decision:
            advance.resume(run, decision)

    def earlier(self, run: RunId, again: Again | None = None) -> Earlier:
        """Return what a run that has ended has got, as ``scheduler.repairing`` reads it."""
        rows = [row for row in self.rows.runs.values() if row.parent_id == run]
        below = {
            (row.parent_node, row.parent_item): self.earlier(row.id)
            for row in rows
            if self.rows.ended[row.id].state != RunState.SUCCEEDED
            if row.parent_node is not None and row.parent_item is not None
        }
        plan = self.plans[self.rows.runs[run].workflow]
        again = (again or Again()) | Again.of_undone(plan, self.rows.steps[run].values())
        kept = kept_of(plan, self.rows.steps[run].values(), again)
        row = self.rows.runs[run]
        below = {place: it for place, it in below.items() if not again.has(*place)}
        return Earlier(run, row.digest, row.input, kept, below)

    def crash(self) -> None:
        """Forget everything but the rows, and take the runs up again from them as ``Coordinator.resume`` does."""
        self.epoch += 1
        self.live = {}
        runs, pasts = self._stored_runs()
        with self.event() as decision:
            for run_id, run in runs.items():
                advance.begin(run, decision, pasts[run_id])
            opened = [task.name for task in decision.opened]
            assert opened == [], f"nothing may be opened anew after a crash, but was: {opened}"
            leased = [unit for run in runs.values() for unit in run.units() if _is_leased(unit)]
            self.losses += len(leased)
            _release_keys(self._scheduled(runs.values()), decision)
            for task in leased:
                assert isinstance(task, LiveTask)
                advance.lose(task, decision, "the engine stopped", blame=False)

    # --- time and turns

    def sleep_until(self, time: float) -> None:
        if time > self.now:
            self.now = time
            self._observe(None)

    def turn(self, faults: Faults | None = None) -> bool:
        """Do one thing that can be done; return whether there was one."""
        tasks = self.sendable()
        if not tasks:
            return False
        faults = faults or Faults()
        self.dies_at_commit = self.random.random() < faults.undo
        if self.random.random() < faults.crash:
            self.dies_at_commit = False
            self.crash()
            return True
        self._turn_of(self.random.choice(tasks), faults)
        return True

    def _turn_of(self, task: LiveTask, faults: Faults) -> None:
        chance = self.random.random
        if task.state is TaskState.LEASED:
            if chance() < faults.lose:
                self.lose(task)
            elif chance() < faults.unlease:
                self.unlease(task)
            elif chance() < faults.reject:
                self.reject(task, Failure("BindingError", "a secret is not set", ("BindingError",), final=True))
            else:
                self.answer(task)
        elif task.deadline_time is not None and chance() < faults.expire:
            self.expire(task)
        elif task.state is TaskState.SCHEDULED:
            self.lease(task)
        elif task.state is TaskState.PARKED and task.node.kind in {"event", "turn"}:
            self.happen(task)
        elif task.state is TaskState.PARKED:
            self.wake(task)
        elif chance() < faults.beat:
            self.beat(task)
        else:
            self.answer(task)

    def finish(self, faults: Faults | None = None) -> None:
        """Take turns until every run has ended."""
        while self.turn(faults):
            pass
        assert not self.live, "runs are open but nothing can happen to them"

    # --- looking

    def sendable(self) -> list[LiveTask]:
        """Return the open tasks to which something can happen: of paused runs those that are out."""
        return [task for task in self.tasks() if self._can_move(task)]

    def tasks(self) -> list[LiveTask]:
        """Return the open tasks of all runs."""
        return [unit for run in self.live.values() for unit in run.units() if isinstance(unit, LiveTask)]

    def task(self, name: str, run: LiveRun | None = None) -> LiveTask:
        """Return the open task of a step run; without a run, of the only one that has it."""
        found = [task for task in self.tasks() if task.name == name and (run is None or task.run.id == run.id)]
        assert len(found) == 1, f"{len(found)} open tasks are called {name}; open are {self.open_steps()}"
        return found[0]

    def open_steps(self) -> list[str]:
        """Return the names of the step runs that have a task."""
        return sorted(task.name for task in self.tasks())

    def sub_run(self, name: str) -> LiveRun:
        """Return the open sub-run that executes a step run."""
        node, item = parse_step_name(name)
        found = [
            run
            for run in self.live.values()
            if run.parent is not None and (run.parent.node.id, run.parent.item) == (node, item)
        ]
        assert len(found) == 1, f"{len(found)} open sub-runs execute {name}"
        return found[0]

    def state(self, run: LiveRun) -> RunState:
        ended = self.rows.ended.get(run.id)
        return RunState(ended.state) if ended else RunState.RUNNING

    def result(self, run: LiveRun) -> Any:
        ended = self.rows.ended[run.id]
        return msgspec.json.decode(filled(ended.result, self._content)) if ended.result is not None else None

    def error(self, run: LiveRun) -> dict[str, Any]:
        """Return why a run failed."""
        ended = self.rows.ended[run.id]
        return msgspec.json.decode(ended.error or b"{}", type=dict[str, Any])

    def step_state(self, run: LiveRun, name: str) -> StepState:
        """Return the state of a step run as people see it."""
        node, item = parse_step_name(name)
        return self.seen[run.id, run.plan.by_id[node].index, item]

    def step_row(self, run: LiveRun, name: str) -> StepEnded | None:
        """Return the stored end of a step run."""
        node, item = parse_step_name(name)
        return self.rows.steps[run.id].get((run.plan.by_id[node].index, item))

    def attempts(self, run: LiveRun, name: str) -> list[str]:
        """Return how the attempts of a step run ended."""
        node, item = parse_step_name(name)
        return [row.state for row in self.rows.attempts.get((run.id, run.plan.by_id[node].index, item), [])]

    # --- inside

    def _can_move(self, task: LiveTask) -> bool:
        if task.state is TaskState.SCHEDULED:
            return not task.run.is_held and self.held.may_go(task)
        return task.node.kind != "turn" or self.held.may_go(task)

    def _spilled(self, value: bytes) -> bytes:
        location = f"20260101/{hashlib.sha256(value).hexdigest()}"
        self.elsewhere[location] = value
        return Reference(location, len(value)).raw()

    def _content(self, reference: Reference) -> bytes:
        return self.elsewhere[reference.location]

    @staticmethod
    def _scheduled(runs: Iterable[LiveRun]) -> list[LiveTask]:
        units = [unit for run in runs for unit in run.units()]
        return [unit for unit in units if isinstance(unit, LiveTask) and unit.state is TaskState.SCHEDULED]

    def _lease_at_once(self, decision: Decision) -> None:
        given: Counter[Place] = Counter()
        for task in (*decision.opened, *decision.rescheduled):
            can_be_sent = task.state is TaskState.SCHEDULED and task.id not in decision.closed
            is_due = can_be_sent and task.schedule_time <= self.now and not task.run.is_held
            if is_due and self.held.may_go(task, given) and self.random.random() < self.haste:
                advance.lease(task, decision, self.epoch)
                given.update([place_of(task)] if task.key is not None else [])

    def _commit(self, decision: Decision) -> None:
        for run in decision.began:
            self.live[run.id] = run
            if run.id in decision.past:  # it goes on from an earlier run, whose results it keeps
                kept = decision.past[run.id].steps
                self.seen |= {(run.id, row.node, row.item): StepState(row.state) for row in kept}
        for run in decision.ended:
            self.live.pop(run.id, None)
        self.rows.apply(decision.seal())
        self.held.apply(decision, {run: self.plans[row.workflow] for run, row in self.rows.runs.items()})
        self._observe(decision)
        invariants.check(self.rows, self.live, self.plans)
        self.held.check(self.rows, self.live)

    def _stored_runs(self) -> tuple[dict[RunId, LiveRun], dict[RunId, Past]]:
        runs: dict[RunId, LiveRun] = {}
        pasts: dict[RunId, Past] = {}
        for row in sorted(self.rows.runs.values(), key=lambda row: row.id):
            if row.id in self.rows.ended:
                continue
            parent = None
            if row.parent_id in runs:  # a cancelled run that still closes is on its own if the one above has ended
                assert row.parent_id is not None
                assert row.parent_node is not None
                assert row.parent_item is not None
                above = runs[row.parent_id]
                parent = Parent(above, above.plan.nodes[row.parent_node], row.parent_item)
                run = LiveRun.fresh(row.id, self.plans[row.workflow], row.input, row.created_at, parent)
                pasts[row.parent_id].runs[parent.node.index, parent.item] = run
            else:
                run = LiveRun.fresh(row.id, self.plans[row.workflow], row.input, row.created_at, None)
            moved = self.rows.moved.get(row.id)
            if moved is not None:
                run.paused_at = moved.paused_at
                if moved.ending:
                    run.begin_ending(RunState(moved.ending))
            run.is_held = run.paused_at is not None or (parent is not None and parent.run.is_held)
            if row.retry_of is not None:
                run.earlier = self.earlier(row.retry_of).below
            runs[row.id] = run
            steps = list(self.rows.steps[row.id].values())
            self.random.shuffle(steps)
            pasts[row.id] = Past(steps)
        for task in self.rows.tasks.values():
            pasts[task.run_id].tasks[task.node, task.item] = task
        return runs, pasts

    def _observe(self, decision: Decision | None) -> None:
        """Note every change of state; a decision must have told its watchers of the changes it made."""
        assert decision is None or all(run in decision.touched for run in decision.ended)
        runs = [*self.live.values(), *(decision.ended if decision else ())]
        for run in runs:
            for node in run.plan.nodes:
                for item in items_of(run, node, self.rows):
                    before = self.seen.get((run.id, node.index, item), StepState.PENDING)
                    after = shown_state(run, node, item, self.rows, self.now)
                    self.seen[run.id, node.index, item] = after
                    if before is not after:
                        self.transitions.add((before, after))
                        is_told = decision is None or node.index in decision.touched.get(run, ())
                        assert is_told, f"{node.id}[{item}] went from {before} to {after} and nobody was told"

    def _check_upstreams(self, task: LiveTask) -> None:
        """I6: what a step needs is durable before the step is sent."""
        steps = self.rows.steps[task.run.id]
        assert (task.node.index, task.item) not in steps, f"{task.name} has ended, but is sent"
        needs: list[tuple[int, int]] = [(upstream, WHOLE) for upstream in task.node.upstream]
        if task.node.stream_from is not None:
            needs.append((task.node.stream_from, task.item))
        nodes = task.run.plan.nodes
        if task.node.undoes is not None:  # what it undoes has a result; the step as a whole may have failed
            needs = [(task.node.undoes, task.item)]
        missing = [
            need
            for need in needs
            if need not in steps or (steps[need].state != StepState.SUCCEEDED and not nodes[need[0]].settled)
        ]
        assert not missing, f"{task.name} is sent, but {missing} have not succeeded"


def _release_keys(tasks: Iterable[LiveTask], decision: Decision) -> None:
    """Let go of the keys of tasks that are not out, as the coordinator does."""
    for task in tasks:
        if task.key is not None:
            decision.rows.release_key(task.id)


def _is_leased(unit: LiveTask | LiveRun) -> bool:
    return isinstance(unit, LiveTask) and unit.state is TaskState.LEASED
