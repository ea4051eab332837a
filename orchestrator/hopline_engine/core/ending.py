"""The end of a run, and of what is called off: nothing of it starts afterwards, and no late result changes anything."""

from collections.abc import Iterable

from hopline_engine.core import closing, undoing
from hopline_engine.core.decision import Decision
from hopline_engine.core.failures import failure_json
from hopline_engine.core.live import LiveNode, LiveRun, LiveTask
from hopline_engine.core.model import (
    UNDER_WAY,
    WHOLE,
    AttemptState,
    RunEnded,
    RunState,
    StepState,
    TaskRemoved,
    WaitRemoved,
)
from hopline_engine.core.order import turn_of
from hopline_engine.core.plan import Node
from hopline_engine.core.records import record_attempt, record_node, record_step, record_sub_step
from hopline_engine.core.retry import Failure
from hopline_engine.core.states import FINAL_STEP_STATES


def end_run(run: LiveRun, state: RunState, decision: Decision, result: bytes | None = None) -> None:
    """Write the end of a run."""
    run.state = state
    error = failure_json(run.failure[1], run.failure[0]) if run.failure and state is RunState.FAILED else None
    decision.rows.runs_ended.append(RunEnded(str(state), result, error, decision.now, run.id))
    decision.ended.append(run)
    if run.plan.turn is not None:
        decision.rows.release_key(turn_of(run.id))
    decision.touched.setdefault(run, set())


def stop_run(run: LiveRun, decision: Decision, *, undo: bool) -> None:
    """End a run and those below it as cancelled; with *undo*, those that have something to undo end after that.

    The same goes for those that have a ``finally_``.
    """
    if undo and run.ending is not None:
        return  # it undoes, or closes, already
    if undo and closing.is_closing(run):
        undoing.mark(run, RunState.CANCELLED, decision)
        return
    for node, live in zip(run.plan.nodes, run.nodes, strict=False):
        if live.state in FINAL_STEP_STATES or (undo and node.closes is not None):
            continue
        if not _lasts(run, node, live, decision, undo=undo):
            _cancel_node(run, node, live, decision)
    if undo and run.open_nodes > closing.left(run):
        undoing.mark(run, RunState.CANCELLED, decision)
        return
    if undo and undoing.begin(run, RunState.CANCELLED, decision):
        return
    if undo and closing.go_on(run, RunState.CANCELLED, decision):
        undoing.mark(run, RunState.CANCELLED, decision)
        return
    if run.undoing is not None and run.undoing.current is not None:
        _cancel_node(run, run.plan.undos[run.undoing.current], run.nodes[run.undoing.current], decision)
    end_run(run, run.ending or RunState.CANCELLED, decision)


def fail_run(run: LiveRun, failure: Failure, decision: Decision) -> None:
    """Fail one of the steps that a run waits for, and cancel the others; those that undo what they did are waited for.

    That one tells, also after a restart, why the run failed; a step inside of ``recover`` or ``first`` would not.
    """
    open_nodes = [
        (node, live)
        for node, live in zip(run.plan.nodes, run.nodes, strict=False)
        if live.state not in FINAL_STEP_STATES and node.closes is None
    ]
    over = [(node, live) for node, live in open_nodes if not _lasts(run, node, live, decision, undo=True)]
    outside = [(live.state is StepState.PENDING, node.index) for node, live in over if node.within is None]
    failed = min(outside)[1] if outside else None
    for node, live in over:
        _cancel_node(run, node, live, decision, failure if node.index == failed else None)
    run.failure = run.failure or (run.plan.nodes[open_nodes[0][0].index if failed is None else failed].id, failure)
    if len(over) < len(open_nodes):
        undoing.mark(run, RunState.FAILED, decision)


def _lasts(run: LiveRun, node: Node, live: LiveNode, decision: Decision, *, undo: bool) -> bool:
    """Stop what executes a step; return whether some of it undoes what it did, and has to be waited for.

    What does not is over then, and taken away.
    """
    if live.map is None:
        if isinstance(live.unit, LiveRun):
            stop_run(live.unit, decision, undo=undo)
            return live.unit.state is RunState.RUNNING
        return False
    below = {item: unit for item, unit in live.map.units.items() if isinstance(unit, LiveRun)}
    for unit in below.values():
        stop_run(unit, decision, undo=undo)
    lasting = {item: unit for item, unit in below.items() if unit.state is RunState.RUNNING}
    if not lasting:
        return False
    for item, over in live.map.units.items():
        if item not in lasting:
            _cancel_unit(run, node, item, over, decision)
    live.map.units = dict(lasting)
    decision.touch(run, node)
    return True


def cancel_nodes(run: LiveRun, nodes: Iterable[int], decision: Decision) -> None:
    """End those of some steps of a run that have not ended, with the runs below them. The run goes on."""
    for index in nodes:
        live = run.nodes[index]
        if live.state in FINAL_STEP_STATES:
            continue
        below = [live.unit] if live.map is None else list(live.map.units.values())
        _cancel_node(run, run.plan.nodes[index], live, decision)
        for unit in below:
            if isinstance(unit, LiveRun):
                stop_run(unit, decision, undo=True)
                if unit.state is RunState.RUNNING:
                    unit.parent = None  # nothing waits for it any more


def close_task(task: LiveTask, decision: Decision) -> None:
    """Take a task away: its step run has ended."""
    decision.closed[task.id] = task
    if task.stored:
        decision.rows.tasks_removed.append(TaskRemoved(task.id))
        if task.node.kind == "event":
            decision.rows.waits_removed.append(WaitRemoved(task.id))
        if task.key is not None:
            decision.rows.release_key(task.id)


def _cancel_node(run: LiveRun, node: Node, live: LiveNode, decision: Decision, failure: Failure | None = None) -> None:
    """End a step, with all that executes it, as cancelled; or as failed, where there is a *failure*."""
    state = StepState.CANCELLED if failure is None else StepState.FAILED
    units = {WHOLE: live.unit} if live.unit is not None else dict(live.map.units) if live.map else {}
    for item, unit in units.items():
        _cancel_unit(run, node, item, unit, decision, failure if item == WHOLE else None)
    if WHOLE not in units:
        record_node(run, node, state, decision, failure)
    # No longer to be found: an answer or a callback may come before this decision is durable.
    live.unit = None
    if live.map is not None:
        live.map.units.clear()
    live.state = state
    if node.undoes is None:
        run.note_end(node.index)
    decision.touch(run, node)


def _cancel_unit(
    run: LiveRun,
    node: Node,
    item: int,
    unit: LiveTask | LiveRun,
    decision: Decision,
    failure: Failure | None = None,
) -> None:
    state = StepState.CANCELLED if failure is None else StepState.FAILED
    if isinstance(unit, LiveTask):
        if unit.state in UNDER_WAY:
            record_attempt(unit, AttemptState.CANCELLED, decision)
            if node.request is not None and node.request.cancel is not None:
                decision.called_off = (*decision.called_off, unit)
        if node.kind == "turn":  # the run may go on for a while, to close
            decision.rows.release_key(turn_of(run.id))
        close_task(unit, decision)
        record_step(unit, state, decision, failure=failure and failure._replace(attempts=unit.attempt))
    else:
        record_sub_step(run, node, item, state, decision, failure=failure, started_at=unit.created_at)
