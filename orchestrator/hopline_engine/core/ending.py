"""The end of a run, and of what is called off: nothing of it starts afterwards, and no late result changes anything."""

from collections.abc import Iterable

from hopline_engine.core.decision import Decision
from hopline_engine.core.live import LiveNode, LiveRun, LiveTask, failure_json
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
from hopline_engine.core.plan import Node
from hopline_engine.core.records import record_attempt, record_node, record_step, record_sub_step
from hopline_engine.core.states import FINAL_STEP_STATES


def end_run(run: LiveRun, state: RunState, decision: Decision, result: bytes | None = None) -> None:
    """Write the end of a run."""
    run.state = state
    error = failure_json(run.failure[1], run.failure[0]) if run.failure and state is RunState.FAILED else None
    decision.rows.runs_ended.append(RunEnded(state.value, result, error, decision.now, run.id))
    decision.ended.append(run)
    decision.touched.setdefault(run, set())


def stop_run(run: LiveRun, decision: Decision) -> None:
    """End a run and those below it as cancelled."""
    pending = [run]
    while pending:
        stopped = pending.pop()
        pending += [unit for unit in stopped.units() if isinstance(unit, LiveRun)]
        for node, live in zip(stopped.plan.nodes, stopped.nodes, strict=True):
            if live.state not in FINAL_STEP_STATES:
                _cancel_node(stopped, node, live, decision)
        end_run(stopped, RunState.CANCELLED, decision)


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
                stop_run(unit, decision)


def close_task(task: LiveTask, decision: Decision) -> None:
    """Take a task away: its step run has ended."""
    decision.closed[task.id] = task
    if task.stored:
        decision.rows.tasks_removed.append(TaskRemoved(task.id))
        if task.node.kind == "event":
            decision.rows.waits_removed.append(WaitRemoved(task.id))


def _cancel_node(run: LiveRun, node: Node, live: LiveNode, decision: Decision) -> None:
    units = {WHOLE: live.unit} if live.unit is not None else dict(live.map.units) if live.map else {}
    for item, unit in units.items():
        if isinstance(unit, LiveTask):
            if unit.state in UNDER_WAY:
                record_attempt(unit, AttemptState.CANCELLED, decision)
                if node.request is not None and node.request.cancel is not None:
                    decision.called_off.append(unit)
            close_task(unit, decision)
            record_step(unit, StepState.CANCELLED, decision)
        else:
            record_sub_step(run, node, item, StepState.CANCELLED, decision, started_at=unit.created_at)
    if WHOLE not in units:
        record_node(run, node, StepState.CANCELLED, decision)
    # No longer to be found: an answer or a callback may come before this decision is durable.
    live.unit = None
    if live.map is not None:
        live.map.units.clear()
    live.state = StepState.CANCELLED
    run.open_nodes -= 1
    decision.touch(run, node)
