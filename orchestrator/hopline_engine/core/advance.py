"""How a run moves: one event in, the changes it makes out.

Deterministic and without I/O: the time, new ids and random numbers are in the ``Decision`` that collects the
outcome, so the same run, event and decision always give the same rows. The live state is updated along the way; if
the rows cannot be committed, the owner drops it and rebuilds it from the store.

Work per event is proportional to the out-degree of the step it is about, except where a run ends early: then every
step that can no longer run is closed, each of them once.
"""

from hopline_engine.core import closing
from hopline_engine.core.choices import is_won
from hopline_engine.core.decision import Decision
from hopline_engine.core.ending import cancel_nodes, close_task, fail_run, stop_run
from hopline_engine.core.families import above
from hopline_engine.core.flow import (
    begin_sub_run,
    end_if_done,
    settle,
    sub_run_failed,
    unit_failed,
    unit_succeeded,
)
from hopline_engine.core.live import LiveRun, LiveTask, Past, Traced
from hopline_engine.core.model import AttemptState, RunMoved, RunState, StepState, TaskState
from hopline_engine.core.outcome import why_cancelled
from hopline_engine.core.past import apply_past
from hopline_engine.core.records import record_attempt, record_step
from hopline_engine.core.retry import Failure, lost_delay, retry_delay
from hopline_engine.core.spans import span
from hopline_engine.core.states import TASK


def begin(run: LiveRun, decision: Decision, past: Past | None = None) -> None:
    """Open every step that can run: at the start of a run, or again from what is stored of it.

    Begun again, steps that ended stay ended, stored tasks and sub-runs are taken up as they are, and only what has
    neither is opened anew; after a clean stop that is nothing.
    """
    run.contents = decision.limits.contents
    if past:
        decision.past[run.id] = past
        apply_past(run, past)
    decision.began.append(run)
    for node, live in zip(run.plan.nodes, run.nodes, strict=False):
        if live.state is StepState.PENDING and (live.waits == 0 or (node.arms and is_won(run, node))):
            decision.todo.append((run, node))
    settle(decision)
    end_if_done(run, decision)
    settle(decision)
    decision.past.pop(run.id, None)


def lease(task: LiveTask, decision: Decision, epoch: int) -> None:
    """Start the next attempt: after the commit, the task may be sent."""
    _move(task, TaskState.LEASED, decision)
    task.attempt += 1
    task.leased_at = decision.now
    task.epoch = epoch
    if task.first_attempt_at is None:
        task.first_attempt_at = decision.now


def unlease(task: LiveTask, decision: Decision) -> None:
    """Take back an attempt that certainly did not reach anyone: it is not counted and leaves no record.

    The task keeps its key, and so its place before the others of it, unless its run is paused.
    """
    _move(task, TaskState.SCHEDULED, decision)
    task.attempt -= 1
    task.leased_at = None
    task.schedule_time = decision.now
    if task.attempt == 0 and task.node.every is None:  # a sensor has begun with its first look
        task.first_attempt_at = None
    if task.key is not None and task.run.is_held:
        decision.rows.release_key(task.id)
    decision.rescheduled.append(task)


def succeed(
    task: LiveTask, result: bytes, decision: Decision, status: int | None = 200, logs: str | None = None
) -> None:
    """Record the result of a step run and open what follows."""
    record_attempt(task, AttemptState.SUCCEEDED, decision, status=status, logs=logs)
    close_task(task, decision)
    record_step(task, StepState.SUCCEEDED, decision, result=result)
    unit_succeeded(task.run, task.node, task.item, result, decision)
    settle(decision)


def look_again(task: LiveTask, decision: Decision) -> None:
    """Note that a step found nothing yet: it looks again after a rest.

    Such a look is no attempt that counts, and leaves no record: a sensor may look for weeks.
    """
    assert task.node.every is not None
    unlease(task, decision)
    if task.key is not None:
        decision.rows.release_key(task.id)
    task.schedule_time = decision.now + task.node.every
    task.last_failure = None


def pin(task: LiveTask, graph: Traced, decision: Decision, status: int | None = 200, logs: str | None = None) -> None:
    """Begin the run of a graph that a worker has traced: all in one decision, so that it is never traced again."""
    depth = sum(1 for _ in above(task.run))
    if depth >= decision.limits.nesting:
        message = f"{depth} runs are nested in each other; a dynamic workflow that calls itself has to come to an end"
        fail(task, Failure("NestedTooDeep", message, ("NestedTooDeep",), final=True), decision, logs=logs)
        return
    record_attempt(task, AttemptState.SUCCEEDED, decision, status=status, logs=logs)
    close_task(task, decision)
    decision.rows.definitions_added += graph.definitions
    begin_sub_run(task.run, task.node, task.item, graph.plan, graph.input, decision)
    settle(decision)


def accept(task: LiveTask, decision: Decision) -> None:
    """Wait for the callback that a 202 promised; the wait always has an end."""
    _move(task, TaskState.ACCEPTED, decision)
    if task.deadline_time is None:
        task.deadline_time = decision.now + decision.limits.accepted_timeout
    decision.accepted.append(task)


def extend(task: LiveTask, until: float, decision: Decision) -> None:
    """Wait for the callback of an accepted task until a time, if that is later than it would be waited."""
    assert task.state is TaskState.ACCEPTED
    assert task.deadline_time is not None
    if until > task.deadline_time:
        task.deadline_time = until
        task.has_alarm = False
        decision.moved[task.id] = task
        decision.accepted.append(task)
        decision.touch(task.run, task.node)


def fail(
    task: LiveTask,
    failure: Failure,
    decision: Decision,
    *,
    state: AttemptState = AttemptState.FAILED,
    logs: str | None = None,
) -> None:
    """Record a failed attempt; try again later, or fail the step run."""
    record_attempt(task, state, decision, status=failure.status, failure=failure, logs=logs)
    _forget_end_of_wait(task)
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


def lose(task: LiveTask, decision: Decision, reason: str, *, blame: bool = True) -> None:
    """Record an attempt that died with its engine or worker; it is tried again.

    Not for ever where the step may be to blame: one that kills its worker each time fails at the limit. It cannot
    kill the engine, so restarts are counted neither now nor later, however many there are.
    """
    failure = Failure("AttemptLost", reason, ("AttemptLost",))
    record_attempt(task, AttemptState.LOST, decision, failure=failure)
    task.lost += 1
    task.blamed += blame
    if blame and task.blamed >= decision.limits.lost_limit:
        message = f"lost {task.blamed} times; the step may be killing its worker (last: {reason})"
        _fail_task(task, failure._replace(message=message), decision)
    elif task.deadline_time is not None and decision.now >= task.deadline_time:
        _fail_task(task, _deadline_failure(task), decision)
    else:
        delay = lost_delay(task.blamed, decision.random()) if blame else 0.0
        _reschedule(task, failure, decision.now + delay, decision)


def expire(task: LiveTask, decision: Decision) -> None:
    """Fail a step run whose deadline has come while it waited; or its attempt, if only the wait for a callback is over.

    A callback that does not come is a failure like others: the retry policy says what follows.
    """
    if task.state is TaskState.ACCEPTED and task.node.deadline is None:
        seconds = decision.now - (task.leased_at if task.leased_at is not None else decision.now)
        message = f"no callback came within {seconds:.0f} s of an attempt that was answered 202"
        fail(task, Failure("TimeoutError", message, ("TimeoutError",)), decision, state=AttemptState.TIMED_OUT)
        return
    failure = _deadline_failure(task)
    if task.state is TaskState.ACCEPTED:
        record_attempt(task, AttemptState.TIMED_OUT, decision, failure=failure)
    _fail_task(task, failure, decision)


def reject(task: LiveTask, failure: Failure, decision: Decision) -> None:
    """Fail a leased step run whose request cannot be made: nothing was sent."""
    record_attempt(task, AttemptState.FAILED, decision, failure=failure)
    _fail_task(task, failure, decision)


def pause(run: LiveRun, decision: Decision) -> list[LiveTask]:
    """Let nothing of a run and of those below it be sent any more; return the tasks that are not out."""
    run.paused_at = decision.now
    return _hold(run, decision)


def resume(run: LiveRun, decision: Decision) -> None:
    """Let what a paused run holds back be sent again, unless a run above it is paused too."""
    run.paused_at = None
    decision.rescheduled += [task for task in _hold(run, decision) if task.schedule_time <= decision.now]


def _hold(run: LiveRun, decision: Decision) -> list[LiveTask]:
    """Make the change of a pause durable and known below; return the tasks that are not out and changed by it."""
    change = RunMoved(run.paused_at, run.ending.value if run.ending else None, run.id)
    decision.rows.runs_moved = (*decision.rows.runs_moved, change)
    changed: list[LiveTask] = []
    pending = [run]
    while pending:
        held = pending.pop()
        above = held.parent.run if held.parent is not None else None
        was_held, held.is_held = held.is_held, held.paused_at is not None or (above is not None and above.is_held)
        decision.touched.setdefault(held, set())
        if held.is_held == was_held:
            continue
        for unit in held.units():
            if isinstance(unit, LiveRun):
                pending.append(unit)
            elif unit.state is TaskState.SCHEDULED:
                changed.append(unit)
    return changed


def cancel(run: LiveRun, decision: Decision) -> None:
    """End a run and its sub-runs now: nothing of it goes on and no late result changes anything.

    What it undoes comes first, and its ``finally_``, before it ends. Cancelled again while it undoes, it ends at once;
    while it closes, it ends as it would have.
    """
    if closing.is_open(run):
        cancel_nodes(run, (node.index for node in run.plan.closing), decision)
        end_if_done(run, decision)
    else:
        stop_run(run, decision, undo=run.ending is None)
        parent = run.parent
        if run.state is not RunState.RUNNING and parent is not None and parent.run.state is RunState.RUNNING:
            sub_run_failed(run, why_cancelled(run), decision)
    settle(decision)


def expire_run(run: LiveRun, decision: Decision) -> None:
    """Fail a run that is over its deadline, and cancel what is open in it.

    What it undoes, ``on_failure`` and ``finally_`` come after that, before it ends, and have all the time they need; so
    one that has got as far already ends as it would have.
    """
    if not run.is_open or closing.is_ending(run):
        return
    assert run.plan.deadline is not None
    message = f"run {run.public_id} was over its deadline of {span(run.plan.deadline)}"
    fail_run(run, Failure("DeadlineExceeded", message, ("DeadlineExceeded", "TimeoutError"), final=True), decision)
    end_if_done(run, decision)
    settle(decision)


def _move(task: LiveTask, state: TaskState, decision: Decision) -> None:
    assert state in TASK[task.state], f"task {task.id}: {task.state} cannot become {state}"
    task.state = state
    decision.moved[task.id] = task
    decision.touch(task.run, task.node)


def _reschedule(task: LiveTask, failure: Failure, at: float, decision: Decision) -> None:
    _move(task, TaskState.SCHEDULED, decision)
    task.schedule_time = at
    task.leased_at = None
    task.last_failure = failure
    if task.key is not None:
        decision.rows.release_key(task.id)
    decision.rescheduled.append(task)


def _forget_end_of_wait(task: LiveTask) -> None:
    """Give a task that waited for a callback its step's deadline back: none, where only the wait had an end."""
    if task.state is TaskState.ACCEPTED and task.node.deadline is None:
        task.deadline_time = None
        task.has_alarm = False


def _fail_task(task: LiveTask, failure: Failure, decision: Decision) -> None:
    close_task(task, decision)
    failure = failure._replace(attempts=task.attempt)
    record_step(task, StepState.FAILED, decision, failure=failure)
    unit_failed(task.run, task.node, task.item, failure, decision)
    settle(decision)


def _deadline_failure(task: LiveTask) -> Failure:
    if task.node.every is not None and task.last_failure is None:
        assert task.node.deadline is not None
        message = f"it found nothing within {span(task.node.deadline)}"
        return Failure("TimeoutError", message, ("TimeoutError", "DeadlineExceeded"), final=True)
    attempts = "1 attempt" if task.attempt == 1 else f"{task.attempt} attempts"
    after = f" after {attempts}" if task.attempt else " before its first attempt"
    last = (
        f"; the last one failed with {task.last_failure.type}: {task.last_failure.message}" if task.last_failure else ""
    )
    return Failure(
        "DeadlineExceeded", f"its deadline passed{after}{last}", ("DeadlineExceeded", "TimeoutError"), final=True
    )
