"""How a run moves: one event in, the changes it makes out.

Deterministic and without I/O: the time, new ids and random numbers are in the ``Decision`` that collects the
outcome, so the same run, event and decision always give the same rows. The live state is updated along the way; if
the rows cannot be committed, the owner drops it and rebuilds it from the store.

Work per event is proportional to the out-degree of the step it is about, except where a run ends early: then every
step that can no longer run is closed, each of them once.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from hopline_engine.core.binding import BindingError, Value, decode_items
from hopline_engine.core.changes import Changes
from hopline_engine.core.live import (
    LiveMap,
    LiveNode,
    LiveRun,
    LiveTask,
    Parent,
    Past,
    RunScope,
    StoredTask,
    failure_from_json,
    failure_json,
    item_of,
)
from hopline_engine.core.model import (
    WHOLE,
    AttemptEnded,
    AttemptState,
    RunAdded,
    RunEnded,
    RunId,
    RunState,
    StepEnded,
    StepState,
    TaskAdded,
    TaskId,
    TaskMoved,
    TaskRemoved,
    TaskState,
)
from hopline_engine.core.plan import Node
from hopline_engine.core.retry import Failure, lost_delay, retry_delay
from hopline_engine.core.states import FINAL_STEP_STATES, TASK


class Ids(Protocol):
    """Gives out numbers that grow and are never given twice."""

    def next_run(self) -> RunId:
        """Return a new run number."""
        ...

    def next_task(self) -> TaskId:
        """Return a new task number."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The engine's own bounds on steps."""

    accepted_timeout: float = 86_400.0
    retry_after_cap: float = 3600.0
    lost_limit: int = 10
    map_window: int = 1000


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
    rows: Changes = field(default_factory=Changes)
    opened: list[LiveTask] = field(default_factory=list)
    """New tasks, to be queued."""
    moved: dict[TaskId, LiveTask] = field(default_factory=dict)
    """Stored tasks that changed."""
    rescheduled: list[LiveTask] = field(default_factory=list)
    """Tasks that wait again: for their time, or for the queue."""
    accepted: list[LiveTask] = field(default_factory=list)
    closed: dict[TaskId, LiveTask] = field(default_factory=dict)
    """Tasks that are no more."""
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
        return rows


# --- events ---------------------------------------------------------------------------------------------------------


def begin(run: LiveRun, decision: Decision, past: Past | None = None) -> None:
    """Open every step that can run: at the start of a run, or again from what is stored of it.

    Begun again, steps that ended stay ended, stored tasks and sub-runs are taken up as they are, and only what has
    neither is opened anew; after a clean stop that is nothing.
    """
    if past:
        decision.past[run.id] = past
        _apply_past(run, past)
    decision.began.append(run)
    for node, live in zip(run.plan.nodes, run.nodes, strict=True):
        if live.state is StepState.PENDING and live.waits == 0:
            decision.todo.append((run, node))
    _settle(decision)
    _end_if_done(run, decision)
    decision.past.pop(run.id, None)


def add_run(
    run: LiveRun, decision: Decision, *, idempotency_key: str | None = None, retry_of: RunId | None = None
) -> None:
    """Write the row of a run that begins."""
    parent = run.parent
    decision.rows.runs_added.append(
        RunAdded(
            run.id,
            run.public_id,
            run.plan.name,
            run.plan.digest,
            RunState.RUNNING,
            run.input.raw,
            idempotency_key,
            parent.run.id if parent else None,
            parent.node.index if parent else None,
            parent.item if parent else None,
            retry_of,
            run.created_at,
        )
    )


def lease(task: LiveTask, decision: Decision, epoch: int) -> None:
    """Start the next attempt: after the commit, the task may be sent."""
    _move(task, TaskState.LEASED, decision)
    task.attempt += 1
    task.leased_at = decision.now
    task.epoch = epoch
    if task.first_attempt_at is None:
        task.first_attempt_at = decision.now


def unlease(task: LiveTask, decision: Decision) -> None:
    """Take back an attempt that certainly did not reach anyone: it is not counted and leaves no record."""
    _move(task, TaskState.SCHEDULED, decision)
    task.attempt -= 1
    task.leased_at = None
    task.schedule_time = decision.now
    if task.attempt == 0:
        task.first_attempt_at = None
    decision.rescheduled.append(task)


def succeed(
    task: LiveTask, result: bytes, decision: Decision, status: int | None = 200, logs: str | None = None
) -> None:
    """Record the result of a step run and open what follows."""
    _record_attempt(task, AttemptState.SUCCEEDED, decision, status=status, logs=logs)
    _close_task(task, decision)
    _record_step(task, StepState.SUCCEEDED, decision, result=result)
    _unit_succeeded(task.run, task.node, task.item, result, decision)
    _settle(decision)


def accept(task: LiveTask, decision: Decision) -> None:
    """Wait for the callback that a 202 promised; the wait always has an end."""
    _move(task, TaskState.ACCEPTED, decision)
    if task.deadline_time is None:
        task.deadline_time = decision.now + decision.limits.accepted_timeout
    decision.accepted.append(task)


def fail(
    task: LiveTask,
    failure: Failure,
    decision: Decision,
    *,
    state: AttemptState = AttemptState.FAILED,
    logs: str | None = None,
) -> None:
    """Record a failed attempt; try again later, or fail the step run."""
    _record_attempt(task, state, decision, status=failure.status, failure=failure, logs=logs)
    delay = retry_delay(
        task.node.retry,
        task.node.kind,
        failure,
        made=task.made,
        random=decision.random(),
        retry_after_cap=decision.limits.retry_after_cap,
    )
    at = decision.now + delay if delay is not None else None
    if at is None or (task.deadline_time is not None and at >= task.deadline_time):
        _fail_task(task, failure, decision)
    else:
        _reschedule(task, failure, at, decision)


def lose(task: LiveTask, decision: Decision, reason: str) -> None:
    """Record an attempt that died with its engine or worker; it is tried again, but not for ever."""
    failure = Failure("AttemptLost", reason, ("AttemptLost",))
    _record_attempt(task, AttemptState.LOST, decision, failure=failure)
    task.lost += 1
    if task.lost >= decision.limits.lost_limit:
        message = f"lost {task.lost} times; the step may be killing its worker (last: {reason})"
        _fail_task(task, failure._replace(message=message), decision)
    elif task.deadline_time is not None and decision.now >= task.deadline_time:
        _fail_task(task, _deadline_failure(task), decision)
    else:
        _reschedule(task, failure, decision.now + lost_delay(task.lost, decision.random()), decision)


def expire(task: LiveTask, decision: Decision) -> None:
    """Fail a step run whose deadline has come while it waited."""
    failure = _deadline_failure(task)
    if task.state is TaskState.ACCEPTED:
        _record_attempt(task, AttemptState.TIMED_OUT, decision, failure=failure)
    _fail_task(task, failure, decision)


def reject(task: LiveTask, failure: Failure, decision: Decision) -> None:
    """Fail a leased step run whose request cannot be made: nothing was sent."""
    _record_attempt(task, AttemptState.FAILED, decision, failure=failure)
    _fail_task(task, failure, decision)


def cancel(run: LiveRun, decision: Decision) -> None:
    """End a run and its sub-runs now: nothing starts afterwards and no late result changes anything."""
    pending = [run]
    while pending:
        stopped = pending.pop()
        pending += [unit for unit in stopped.units() if isinstance(unit, LiveRun)]
        for node, live in zip(stopped.plan.nodes, stopped.nodes, strict=True):
            if live.state not in FINAL_STEP_STATES:
                _cancel_node(stopped, node, live, decision)
        _end_run(stopped, RunState.CANCELLED, decision)
    parent = run.parent
    if parent is not None and parent.run.state is RunState.RUNNING:
        failure = Failure("Cancelled", f"its run {run.public_id} was cancelled", ("Cancelled",), final=True)
        _sub_run_failed(run, failure, decision)
        _settle(decision)


# --- opening --------------------------------------------------------------------------------------------------------


def _settle(decision: Decision) -> None:
    while decision.todo or decision.empty:
        while decision.empty:
            _end_if_done(decision.empty.popleft(), decision)
        if decision.todo:
            run, node = decision.todo.popleft()
            if run.state is RunState.RUNNING and run.nodes[node.index].state is StepState.PENDING:
                _open(run, node, decision)


def _open(run: LiveRun, node: Node, decision: Decision) -> None:
    live = run.nodes[node.index]
    live.opened_at = decision.now
    if node.over is None:
        _open_unit(run, node, WHOLE, decision)
        if live.state is StepState.PENDING:
            live.state = StepState.RUNNING
    else:
        _open_map(run, node, live, decision)


def _open_map(run: LiveRun, node: Node, live: LiveNode, decision: Decision) -> None:
    try:
        live.map = _new_map(run, node)
    except BindingError as error:
        _node_failed(run, node, _binding_failure(error), decision)
        return
    live.state = StepState.RUNNING
    decision.touch(run, node)
    _resume_map(run, node, live.map, decision)
    if node.stream_from is not None:
        upstream = run.nodes[node.stream_from].map
        assert upstream is not None
        live.map.blocked = run.nodes[node.stream_from].state in FINAL_STEP_STATES - {StepState.SUCCEEDED}
        done = (item for item, result in enumerate(upstream.results) if result is not None)
        live.map.ready.extend(item for item in done if not live.map.is_taken(item))
    for stream in node.streams:
        _signal(run, run.plan.nodes[stream], decision)
    _fill_map(run, node, live.map, decision)


def _new_map(run: LiveRun, node: Node) -> LiveMap:
    if node.stream_from is not None:
        upstream = run.nodes[node.stream_from].map
        assert upstream is not None
        return LiveMap(upstream.size, None, [None] * upstream.size)
    assert node.items is not None
    items = decode_items(node.items.render(RunScope(run, None)))
    return LiveMap(len(items), items, [None] * len(items))


def _resume_map(run: LiveRun, node: Node, live_map: LiveMap, decision: Decision) -> None:
    """Take up what is stored of the elements of a map."""
    past = decision.past.get(run.id)
    if past is None:
        return
    for row in past.steps:
        if row.node == node.index and row.item != WHOLE:
            if row.state == StepState.SUCCEEDED:
                live_map.results[row.item] = row.result
                live_map.done += 1
            else:
                live_map.failed += 1
                live_map.failure = live_map.failure or failure_from_json(row.error)
    for of_node, item in [*past.tasks, *past.runs]:
        if of_node == node.index and item != WHOLE:
            _open_unit(run, node, item, decision)


def _fill_map(run: LiveRun, node: Node, live_map: LiveMap, decision: Decision) -> None:
    """Open elements up to the window; end the map when nothing is open and nothing can be opened."""
    window = min(node.max_parallel or decision.limits.map_window, decision.limits.map_window)
    while live_map.failure is None and not live_map.blocked and len(live_map.units) < window:
        item = live_map.take_ready()
        if item is None:
            break
        _open_unit(run, node, item, decision)
    if live_map.units or run.nodes[node.index].state in FINAL_STEP_STATES:
        return
    if live_map.done == live_map.size:
        _node_succeeded(run, node, decision)
    elif live_map.failure is not None:
        _node_failed(run, node, live_map.failure, decision)
    elif live_map.blocked:
        _close_node(run, node, StepState.UPSTREAM_FAILED, decision)


def _open_unit(run: LiveRun, node: Node, item: int, decision: Decision) -> None:
    """Open one step run: its task or sub-run, taken up from the past if it is there."""
    decision.touch(run, node)
    past = decision.past.get(run.id)
    known = past.tasks.get((node.index, item)) if past else None
    sub_run = past.runs.get((node.index, item)) if past else None
    if known is not None:
        _attach(run, node, item, _restored(run, node, known))
    elif sub_run is not None:
        _attach(run, node, item, sub_run)
    elif node.child is not None:
        _start_sub_run(run, node, item, decision)
    else:
        deadline = decision.now + node.deadline if node.deadline is not None else None
        task = LiveTask(decision.ids.next_task(), run, node, item, deadline, schedule_time=decision.now)
        _attach(run, node, item, task)
        decision.opened.append(task)


def _attach(run: LiveRun, node: Node, item: int, unit: LiveTask | LiveRun) -> None:
    live = run.nodes[node.index]
    if item == WHOLE:
        live.unit = unit
    else:
        assert live.map is not None
        live.map.units[item] = unit


def _start_sub_run(run: LiveRun, node: Node, item: int, decision: Decision) -> None:
    assert node.child is not None
    try:
        arguments = node.inputs.render(RunScope(run, item_of(run, node, item)))
    except BindingError as error:
        _record_sub_step(run, node, item, StepState.FAILED, decision, failure=_binding_failure(error))
        _unit_failed(run, node, item, _binding_failure(error), decision)
        return
    sub_run = LiveRun.fresh(decision.ids.next_run(), node.child, arguments, decision.now, Parent(run, node, item))
    _attach(run, node, item, sub_run)
    add_run(sub_run, decision)
    decision.began.append(sub_run)
    if not sub_run.nodes:
        decision.empty.append(sub_run)
    decision.todo.extend((sub_run, first) for first in node.child.nodes if first.waits == 0)


def _signal(run: LiveRun, node: Node, decision: Decision) -> None:
    """Tell a step that one of the things it waits for is there."""
    live = run.nodes[node.index]
    live.waits -= 1
    if live.waits == 0 and live.state is StepState.PENDING:
        decision.todo.append((run, node))


# --- closing --------------------------------------------------------------------------------------------------------


def _unit_succeeded(run: LiveRun, node: Node, item: int, result: bytes, decision: Decision) -> None:
    decision.touch(run, node)
    live = run.nodes[node.index]
    if item == WHOLE:
        live.unit = None
        live.value = Value(result)
        _node_succeeded(run, node, decision)
        return
    live_map = live.map
    assert live_map is not None
    del live_map.units[item]
    live_map.results[item] = result
    live_map.done += 1
    for stream in node.streams:
        following = run.nodes[stream].map
        if following is not None and run.nodes[stream].state is StepState.RUNNING:
            following.ready.append(item)
            _fill_map(run, run.plan.nodes[stream], following, decision)
    _fill_map(run, node, live_map, decision)


def _unit_failed(run: LiveRun, node: Node, item: int, failure: Failure, decision: Decision) -> None:
    decision.touch(run, node)
    live = run.nodes[node.index]
    if item == WHOLE:
        live.unit = None
        _close_node(run, node, StepState.FAILED, decision, failure, record=False)
        return
    live_map = live.map
    assert live_map is not None
    live_map.units.pop(item, None)
    live_map.failed += 1
    if live_map.failure is None:
        live_map.failure = failure
    _fill_map(run, node, live_map, decision)


def _node_succeeded(run: LiveRun, node: Node, decision: Decision) -> None:
    live = run.nodes[node.index]
    live.state = StepState.SUCCEEDED
    run.open_nodes -= 1
    decision.touch(run, node)
    if node.over is not None:
        _record_node(run, node, StepState.SUCCEEDED, decision)
    for following in node.downstream:
        _signal(run, run.plan.nodes[following], decision)
    _end_if_done(run, decision)


def _node_failed(run: LiveRun, node: Node, failure: Failure, decision: Decision) -> None:
    _close_node(run, node, StepState.FAILED, decision, failure)


def _close_node(
    run: LiveRun,
    node: Node,
    state: StepState,
    decision: Decision,
    failure: Failure | None = None,
    *,
    record: bool = True,
) -> None:
    """End a step without success, and with it everything that needs it."""
    if failure is not None and run.failure is None:
        run.failure = (node.id, failure)
    closing: list[tuple[Node, StepState, Failure | None, bool]] = [(node, state, failure, record)]
    while closing:
        closed, its_state, why, has_record = closing.pop()
        live = run.nodes[closed.index]
        if live.state in FINAL_STEP_STATES:
            continue
        live.state = its_state
        run.open_nodes -= 1
        decision.touch(run, closed)
        if has_record:
            _record_node(run, closed, its_state, decision, why)
        for index in (*closed.downstream, *closed.streams):
            following, its_live = run.plan.nodes[index], run.nodes[index]
            if its_live.map is None:
                closing.append((following, StepState.UPSTREAM_FAILED, None, True))
            elif its_live.state is StepState.RUNNING:
                its_live.map.blocked = True
                if not its_live.map.units:
                    closing.append((following, StepState.UPSTREAM_FAILED, None, True))
    _end_if_done(run, decision)


def _cancel_node(run: LiveRun, node: Node, live: LiveNode, decision: Decision) -> None:
    units = {WHOLE: live.unit} if live.unit is not None else dict(live.map.units) if live.map else {}
    for item, unit in units.items():
        if isinstance(unit, LiveTask):
            if unit.state is not TaskState.SCHEDULED:
                _record_attempt(unit, AttemptState.CANCELLED, decision)
            _close_task(unit, decision)
            _record_step(unit, StepState.CANCELLED, decision)
        else:
            _record_sub_step(run, node, item, StepState.CANCELLED, decision, started_at=unit.created_at)
    if WHOLE not in units:
        _record_node(run, node, StepState.CANCELLED, decision)
    # No longer to be found: an answer or a callback may come before this decision is durable.
    live.unit = None
    if live.map is not None:
        live.map.units.clear()
    live.state = StepState.CANCELLED
    run.open_nodes -= 1
    decision.touch(run, node)


def _end_if_done(run: LiveRun, decision: Decision) -> None:
    if run.open_nodes or run.state is not RunState.RUNNING:
        return
    if run.failure is not None or any(live.state is not StepState.SUCCEEDED for live in run.nodes):
        _end_run(run, RunState.FAILED, decision)
        if run.parent is not None:
            _sub_run_failed(run, _sub_run_failure(run), decision)
        return
    try:
        result = run.plan.result.render(RunScope(run, None))
    except BindingError as error:
        run.failure = ("result", _binding_failure(error))
        _end_run(run, RunState.FAILED, decision)
        if run.parent is not None:
            _sub_run_failed(run, _sub_run_failure(run), decision)
        return
    _end_run(run, RunState.SUCCEEDED, decision, result)
    if run.parent is not None:
        parent, node, item = run.parent
        _record_sub_step(parent, node, item, StepState.SUCCEEDED, decision, result=result, started_at=run.created_at)
        _unit_succeeded(parent, node, item, result, decision)


def _sub_run_failure(run: LiveRun) -> Failure:
    assert run.failure is not None
    step, failure = run.failure
    return failure._replace(message=f"step {step} of run {run.public_id}: {failure.message}")


def _sub_run_failed(run: LiveRun, failure: Failure, decision: Decision) -> None:
    assert run.parent is not None
    parent, node, item = run.parent
    _record_sub_step(parent, node, item, StepState.FAILED, decision, failure=failure, started_at=run.created_at)
    _unit_failed(parent, node, item, failure, decision)


def _end_run(run: LiveRun, state: RunState, decision: Decision, result: bytes | None = None) -> None:
    run.state = state
    error = failure_json(run.failure[1], run.failure[0]) if run.failure and state is RunState.FAILED else None
    decision.rows.runs_ended.append(RunEnded(state, result, error, decision.now, run.id))
    decision.ended.append(run)
    decision.touched.setdefault(run, set())


# --- tasks ----------------------------------------------------------------------------------------------------------


def _move(task: LiveTask, state: TaskState, decision: Decision) -> None:
    assert state in TASK[task.state], f"task {task.id}: {task.state} cannot become {state}"
    task.state = state
    decision.moved[task.id] = task
    decision.touch(task.run, task.node)


def _reschedule(task: LiveTask, failure: Failure, at: float, decision: Decision) -> None:
    if task.state is TaskState.ACCEPTED and task.node.deadline is None:
        task.deadline_time = None  # it was the end of the wait for a callback, not of the step
        task.has_alarm = False
    _move(task, TaskState.SCHEDULED, decision)
    task.schedule_time = at
    task.leased_at = None
    task.last_failure = failure
    decision.rescheduled.append(task)


def _fail_task(task: LiveTask, failure: Failure, decision: Decision) -> None:
    _close_task(task, decision)
    _record_step(task, StepState.FAILED, decision, failure=failure)
    _unit_failed(task.run, task.node, task.item, failure, decision)
    _settle(decision)


def _close_task(task: LiveTask, decision: Decision) -> None:
    decision.closed[task.id] = task
    if task.stored:
        decision.rows.tasks_removed.append(TaskRemoved(task.id))


def _restored(run: LiveRun, node: Node, row: StoredTask) -> LiveTask:
    return LiveTask(
        id=row.id,
        run=run,
        node=node,
        item=row.item,
        deadline_time=row.deadline_time,
        state=TaskState(row.state),
        attempt=row.attempt,
        lost=row.lost,
        schedule_time=row.schedule_time,
        first_attempt_at=row.first_attempt_at,
        leased_at=row.leased_at,
        epoch=row.epoch,
        stored=True,
    )


def _deadline_failure(task: LiveTask) -> Failure:
    after = f" after {task.attempt} attempts" if task.attempt else " before its first attempt"
    last = (
        f"; the last one failed with {task.last_failure.type}: {task.last_failure.message}" if task.last_failure else ""
    )
    return Failure(
        "DeadlineExceeded", f"its deadline passed{after}{last}", ("DeadlineExceeded", "TimeoutError"), final=True
    )


def _binding_failure(error: BindingError) -> Failure:
    return Failure("BindingError", str(error), ("BindingError",), final=True)


# --- rows -----------------------------------------------------------------------------------------------------------


def _record_attempt(
    task: LiveTask,
    state: AttemptState,
    decision: Decision,
    *,
    status: int | None = None,
    failure: Failure | None = None,
    logs: str | None = None,
) -> None:
    decision.rows.attempts_ended.append(
        AttemptEnded(
            task.run.id,
            task.node.index,
            task.item,
            task.attempt,
            state,
            status,
            failure_json(failure) if failure else None,
            logs,
            task.leased_at if task.leased_at is not None else decision.now,
            decision.now,
        )
    )


def _record_step(
    task: LiveTask,
    state: StepState,
    decision: Decision,
    *,
    result: bytes | None = None,
    failure: Failure | None = None,
) -> None:
    error = failure_json(failure) if failure else None
    decision.rows.steps_ended.append(
        StepEnded(
            task.run.id,
            task.node.index,
            task.item,
            state,
            result,
            error,
            task.attempt,
            task.first_attempt_at,
            decision.now,
        )
    )


def _record_sub_step(
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
    error = failure_json(failure) if failure else None
    decision.rows.steps_ended.append(
        StepEnded(run.id, node.index, item, state, result, error, 1, started_at, decision.now)
    )


def _record_node(
    run: LiveRun, node: Node, state: StepState, decision: Decision, failure: Failure | None = None
) -> None:
    """Write the end of a step that has no task of its own: a map's record, or a step that never opened."""
    error = failure_json(failure) if failure else None
    started = run.nodes[node.index].opened_at
    decision.rows.steps_ended.append(StepEnded(run.id, node.index, WHOLE, state, None, error, 0, started, decision.now))


def _added(task: LiveTask) -> TaskAdded:
    return TaskAdded(
        task.id,
        task.run.id,
        task.node.index,
        task.item,
        task.node.queue,
        task.state,
        task.attempt,
        task.lost,
        task.schedule_time,
        task.deadline_time,
        task.first_attempt_at,
        task.leased_at,
        task.epoch,
    )


def _moved(task: LiveTask) -> TaskMoved:
    return TaskMoved(
        task.state,
        task.attempt,
        task.lost,
        task.schedule_time,
        task.deadline_time,
        task.first_attempt_at,
        task.leased_at,
        task.epoch,
        task.id,
    )


# --- the past -------------------------------------------------------------------------------------------------------


def _apply_past(run: LiveRun, past: Past) -> None:
    """Put the ended steps of a run into its live state."""
    past.steps.sort(key=lambda row: row.ended_at)  # the first failure is the one that is told
    for row in past.steps:
        if row.item == WHOLE:
            live = run.nodes[row.node]
            live.state = StepState(row.state)
            live.opened_at = row.started_at
            live.value = Value(row.result) if row.result is not None else None
            run.open_nodes -= 1
            if live.state is StepState.FAILED and run.failure is None:
                run.failure = (run.plan.nodes[row.node].id, failure_from_json(row.error))
    _restore_maps(run, past)
    for node, live in zip(run.plan.nodes, run.nodes, strict=True):
        done = sum(run.nodes[upstream].state is StepState.SUCCEEDED for upstream in node.upstream)
        streaming = node.stream_from is not None and run.nodes[node.stream_from].map is not None
        live.waits = node.waits - done - streaming


def _restore_maps(run: LiveRun, past: Past) -> None:
    """Give maps that ended the results of their elements: for the steps after them, and the maps that follow them."""
    elements: dict[int, list[StepEnded]] = {}
    for row in past.steps:
        if row.item != WHOLE:
            elements.setdefault(row.node, []).append(row)
    for node, live in zip(run.plan.nodes, run.nodes, strict=True):
        rows = elements.get(node.index, [])
        if live.state is StepState.SUCCEEDED and node.over is not None:
            live.map = LiveMap(len(rows), None, [None] * len(rows), done=len(rows))
        elif live.state in FINAL_STEP_STATES and rows:  # a map that follows it may still have open elements
            size = _size_of_pipeline(run, node)
            live.map = LiveMap(size, None, [None] * size)
        else:
            continue
        for row in rows:
            live.map.results[row.item] = row.result


def _size_of_pipeline(run: LiveRun, node: Node) -> int:
    """Return how many elements a map has that was opened; maps that follow each other have equally many."""
    while node.stream_from is not None:
        node = run.plan.nodes[node.stream_from]
    assert node.items is not None
    return len(decode_items(node.items.render(RunScope(run, None))))
