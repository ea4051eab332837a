"""The steps with which a run closes: ``on_failure`` and then ``finally_``, once everything else has ended.

They come after what is undone, and change nothing about how the run ends. Until they are done the run is running; that
it was cancelled is kept in its row, and everything else follows from how its steps ended.
"""

from hopline_engine.core.decision import Decision
from hopline_engine.core.live import LiveRun
from hopline_engine.core.model import WHOLE, RunState, StepState
from hopline_engine.core.plan import Node
from hopline_engine.core.records import record_node
from hopline_engine.core.retry import Failure
from hopline_engine.core.states import FINAL_STEP_STATES


def left(run: LiveRun) -> int:
    """Return how many of the steps with which a run closes have not ended."""
    return sum(run.nodes[node.index].state not in FINAL_STEP_STATES for node in run.plan.closing)


def is_closing(run: LiveRun) -> bool:
    """Return whether a run has closing steps left, and everything else in it has ended."""
    return 0 < run.open_nodes == left(run)


def is_ending(run: LiveRun) -> bool:
    """Return whether nothing is left of a run but what it undoes, and the steps with which it closes."""
    return run.ending is not None or is_closing(run)


def is_open(run: LiveRun) -> bool:
    """Return whether one of the steps with which a run closes is under way."""
    return any(run.nodes[node.index].state is StepState.RUNNING for node in run.plan.closing)


def go_on(run: LiveRun, outcome: RunState, decision: Decision) -> bool:
    """Note the next closing step as ready, unless one is open; return whether there is any left."""
    for node in run.plan.closing:
        live = run.nodes[node.index]
        if live.state in FINAL_STEP_STATES:
            continue
        if node.closes == "finally" or outcome is RunState.FAILED or _has_begun(run, node, decision):
            if live.state is StepState.PENDING:
                decision.todo.append((run, node))
            return True
        live.state = StepState.SKIPPED
        run.note_end(node.index)
        decision.touch(run, node)
        why = "succeeded" if outcome is RunState.SUCCEEDED else "was cancelled"
        record_node(run, node, StepState.SKIPPED, decision, Failure("Skipped", f"the run {why}"))
    return False


def _has_begun(run: LiveRun, node: Node, decision: Decision) -> bool:
    """Return whether a closing step is under way, or was when the engine stopped."""
    past = decision.past.get(run.id)
    was_open = past is not None and (node.index, WHOLE) in past.tasks
    return was_open or run.nodes[node.index].state is not StepState.PENDING
