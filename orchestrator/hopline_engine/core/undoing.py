"""How a run undoes what it did, before it ends as failed or as cancelled.

The undo steps of the steps that have results run one after the other, those of the last step to end first; those of
the elements of one map run at the same time. One that fails stops nothing. All of it follows from the order in which
steps ended and from what their undo steps have come to, so a run that is taken up again from rows goes on with it.
"""

from collections import deque

from hopline_engine.core.decision import Decision
from hopline_engine.core.live import LiveMap, LiveNode, LiveRun
from hopline_engine.core.model import RunMoved, RunState, StepState
from hopline_engine.core.plan import Node
from hopline_engine.core.records import record_node
from hopline_engine.core.states import FINAL_STEP_STATES


def begin(run: LiveRun, ending: RunState, decision: Decision) -> bool:
    """Begin to undo a run of which every step has ended; return whether there is something to undo."""
    undoing = run.undoing
    if undoing is None or not any(_is_undoable(run, index) for index in undoing.ended):
        return False
    mark(run, ending, decision)
    return go_on(run, decision)


def mark(run: LiveRun, ending: RunState, decision: Decision) -> None:
    """Note, durably, how a run will end that cannot end yet."""
    run.begin_ending(ending)
    decision.rows.runs_moved = (*decision.rows.runs_moved, RunMoved(run.paused_at, ending.value, run.id))
    decision.touched.setdefault(run, set())


def go_on(run: LiveRun, decision: Decision) -> bool:
    """Note the next undo step as ready, unless one is open; return whether any is left."""
    undoing = run.undoing
    if undoing is None:
        return False
    if undoing.current is not None:
        return True
    node = _begun(run, decision) or _next(run)
    if node is None:
        return False
    undoing.current = node.index
    decision.todo.append((run, node))
    return True


def _begun(run: LiveRun, decision: Decision) -> Node | None:
    """Return the undo step that was open when the engine stopped."""
    past = decision.past.get(run.id)
    return next((run.plan.undos[index] for index, _ in past.tasks if index < 0), None) if past else None


def _next(run: LiveRun) -> Node | None:
    assert run.undoing is not None
    while run.undoing.ended:
        index = run.undoing.ended.pop()
        if _is_undoable(run, index) and run.nodes[~index].state not in FINAL_STEP_STATES:
            return run.plan.undos[~index]
    return None


def node_ended(run: LiveRun, node: Node, state: StepState, decision: Decision) -> None:
    """Note that an undo step has ended, well or not."""
    assert run.undoing is not None
    live = run.nodes[node.index]
    if node.over is not None:
        assert isinstance(live.map, LiveMap)
        state = StepState.FAILED if live.map.failed else StepState.SUCCEEDED
        record_node(run, node, state, decision)
    live.state = state
    run.undoing.current = None
    decision.touch(run, node)


def map_of(run: LiveRun, node: Node) -> LiveMap:
    """Return the map of the elements that an undo step undoes."""
    assert node.undoes is not None
    undone = run.nodes[node.undoes].map
    assert isinstance(undone, LiveMap)
    items = [item for item in range(len(undone.results)) if undone.result_of(item) is not None]
    return LiveMap(len(items), None, [None] * len(undone.results), settled=True, ready=deque(items))


def _is_undoable(run: LiveRun, index: int) -> bool:
    node = run.plan.undos.get(~index)
    if node is None:
        return False
    undone: LiveNode = run.nodes[index]
    if node.over is None:
        return undone.state is StepState.SUCCEEDED
    live_map = undone.map
    return isinstance(live_map, LiveMap) and any(
        live_map.result_of(item) is not None for item in range(len(live_map.results))
    )
