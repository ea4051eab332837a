"""How steps of a run open and close, and what follows from it.

A step opens when everything that it waits for is there, as a task, a sub-run or a map of them. When it closes, steps
that waited for it are told; when the last one closes, the run ends, and with it perhaps a step of the run above.
"""

from collections import deque
from typing import Final, assert_never

from hopline_engine.core import choices, closing, undoing
from hopline_engine.core.binding import BindingError, Value, items_of
from hopline_engine.core.choices import Blocked, Chosen, Failed, Skipped
from hopline_engine.core.composing import check_size, check_type, composed
from hopline_engine.core.decision import Decision
from hopline_engine.core.ending import cancel_nodes, end_run
from hopline_engine.core.failures import unbound
from hopline_engine.core.live import (
    LiveLaps,
    LiveMap,
    LiveNode,
    LiveRun,
    LiveTask,
    Parent,
    Past,
    RunScope,
    item_of,
    map_of,
)
from hopline_engine.core.model import WHOLE, RunState, StepEnded, StepState, TaskState
from hopline_engine.core.outcome import outcome, why_cancelled, why_failed
from hopline_engine.core.past import apply_past
from hopline_engine.core.plan import WAITS, Node, Plan
from hopline_engine.core.records import record_node, record_run, record_sub_step
from hopline_engine.core.retry import Failure
from hopline_engine.core.reusing import Earlier
from hopline_engine.core.states import FINAL_STEP_STATES
from hopline_engine.core.waits import parked

LIMIT_REACHED: Final = "hopline.errors.LoopLimitError"


def settle(decision: Decision) -> None:
    """Open every step that is noted as ready, and what becomes ready by that."""
    while decision.todo or decision.empty:
        while decision.empty:
            end_if_done(decision.empty.popleft(), decision)
        if decision.todo:
            run, node = decision.todo.popleft()
            if run.state is RunState.RUNNING and run.nodes[node.index].state is StepState.PENDING:
                _open(run, node, decision)


def _open(run: LiveRun, node: Node, decision: Decision) -> None:
    if node.arms:
        _decide(run, node, decision)
        return
    if node.may_be_skipped and _is_hindered(run, node, decision):
        return
    live = run.nodes[node.index]
    live.opened_at = decision.now
    if node.loop is not None:
        _open_loop(run, node, live, decision)
    elif node.over is None:
        _open_unit(run, node, WHOLE, decision)
        if live.state is StepState.PENDING:
            live.state = StepState.RUNNING
    else:
        _open_map(run, node, live, decision)


def _is_hindered(run: LiveRun, node: Node, decision: Decision) -> bool:
    """Skip a step that is not to run; return whether it was."""
    try:
        found = choices.hindrance(run, node)
    except BindingError as error:
        _node_failed(run, node, unbound(error), decision)
        return True
    if isinstance(found, Skipped):
        _skip(run, node, found.reason, decision)
    assert not isinstance(found, Blocked), "a step without arms waits for success"
    return found is not None


def _decide(run: LiveRun, node: Node, decision: Decision) -> None:
    """Decide a step that has no task: ``branch``, ``recover`` or ``first``."""
    try:
        verdict = choices.decide(run, node, decision.runs_url)
        if isinstance(verdict, Chosen):
            check_size(verdict.value, decision)
    except BindingError as error:
        _node_failed(run, node, unbound(error), decision)
        return
    live = run.nodes[node.index]
    match verdict:
        case Skipped(reason):
            _skip(run, node, reason, decision)
        case Blocked():
            _close_node(run, node, StepState.UPSTREAM_FAILED, decision)
        case Failed(step, failure):
            _close_node(run, node, StepState.FAILED, decision, failure, step=step)
        case Chosen(value, losers):
            live.opened_at = decision.now
            live.value = Value(value)
            record_node(run, node, StepState.SUCCEEDED, decision, result=value)
            cancel_nodes(run, losers, decision)
            _node_succeeded(run, node, decision)
        case _:
            assert_never(verdict)


def _skip(run: LiveRun, node: Node, reason: str, decision: Decision) -> None:
    """End a step that does not run, and look at those that wait for it."""
    run.nodes[node.index].state = StepState.SKIPPED
    run.open_nodes -= 1
    decision.touch(run, node)
    record_node(run, node, StepState.SKIPPED, decision, Failure("Skipped", reason))
    for index in (*node.downstream, *node.streams):
        _signal(run, run.plan.nodes[index], decision)
    end_if_done(run, decision)


def _open_loop(run: LiveRun, node: Node, live: LiveNode, decision: Decision) -> None:
    assert node.items is not None
    try:
        laps = live.map = LiveLaps(node.items.render(RunScope(run, None)))
    except BindingError as error:
        _node_failed(run, node, unbound(error), decision)
        return
    live.state = StepState.RUNNING
    decision.touch(run, node)
    for row in _ended(run, node, decision):
        laps.take_up(row)
    if laps.done:
        _go_round(run, node, laps, decision)
    else:
        _open_unit(run, node, 0, decision)


def _go_round(run: LiveRun, node: Node, laps: LiveLaps, decision: Decision) -> None:
    """End a loop after a lap, or open the next one."""
    assert node.loop is not None
    try:
        is_over = node.loop.until.holds(RunScope(run, laps.given))
    except BindingError as error:
        _node_failed(run, node, unbound(error), decision)
        return
    if is_over:
        run.nodes[node.index].value = Value(laps.given)
        record_node(run, node, StepState.SUCCEEDED, decision, result=laps.given)
        _node_succeeded(run, node, decision)
    elif laps.done >= node.loop.limit:
        message = f"after {laps.done} laps, which is its limit, {node.loop.until.words()} still does not hold"
        _node_failed(run, node, Failure(LIMIT_REACHED, message, (LIMIT_REACHED,), final=True), decision)
    else:
        _open_unit(run, node, laps.done, decision, at=decision.now + node.loop.every)


def _open_map(run: LiveRun, node: Node, live: LiveNode, decision: Decision) -> None:
    try:
        live_map = live.map = _new_map(run, node)
    except BindingError as error:
        _node_failed(run, node, unbound(error), decision)
        return
    live.state = StepState.RUNNING
    decision.touch(run, node)
    _resume_map(run, node, live_map, decision)
    if node.undoes is not None:
        live_map.ready = deque(item for item in live_map.ready if not live_map.is_taken(item))
    if node.stream_from is not None:
        upstream = map_of(run, node.stream_from)
        live_map.blocked = run.nodes[node.stream_from].state in FINAL_STEP_STATES - {StepState.SUCCEEDED}
        done = (item for item, result in enumerate(upstream.results) if result is not None)
        live_map.ready.extend(item for item in done if not live_map.is_taken(item))
    for stream in node.streams:
        _signal(run, run.plan.nodes[stream], decision)
    _fill_map(run, node, live_map, decision)


def _new_map(run: LiveRun, node: Node) -> LiveMap:
    if node.undoes is not None:
        return undoing.map_of(run, node)
    if node.stream_from is not None:
        size = map_of(run, node.stream_from).size
        return LiveMap(size, None, [None] * size, node.settled)
    assert node.items is not None
    items = items_of(node.items, RunScope(run, None))
    return LiveMap(len(items), items, [None] * len(items), node.settled)


def _resume_map(run: LiveRun, node: Node, live_map: LiveMap, decision: Decision) -> None:
    """Take up what is stored of the elements of a map."""
    for row in _ended(run, node, decision):
        live_map.take_up(row)
    past = decision.past.get(run.id)
    if past is None:
        return
    for of_node, item in [*past.tasks, *past.runs]:
        if of_node == node.index and item != WHOLE:
            _open_unit(run, node, item, decision)


def _ended(run: LiveRun, node: Node, decision: Decision) -> list[StepEnded]:
    """Return what is stored of the ends of elements or laps of a step that opens."""
    past = decision.past.get(run.id)
    rows = past.steps if past is not None else run.kept
    return [row for row in rows if row.node == node.index and row.item != WHOLE]


def _fill_map(run: LiveRun, node: Node, live_map: LiveMap, decision: Decision) -> None:
    """Open elements up to the window; end the map when nothing is open and nothing can be opened."""
    if live_map.is_filling:
        return
    window = min(node.max_parallel or decision.limits.map_window, decision.limits.map_window)
    live_map.is_filling = True
    may_open = run.ending is None or node.undoes is not None
    while may_open and live_map.failure is None and not live_map.blocked and len(live_map.units) < window:
        item = live_map.take_ready()
        if item is None:
            break
        _open_unit(run, node, item, decision)
    live_map.is_filling = False
    if live_map.units or run.nodes[node.index].state in FINAL_STEP_STATES:
        return
    if live_map.is_complete:
        _node_succeeded(run, node, decision)
    elif live_map.failure is not None:
        _node_failed(run, node, live_map.failure, decision)
    elif live_map.blocked:
        _close_node(run, node, StepState.UPSTREAM_FAILED, decision)
    elif run.ending is not None:
        _close_node(run, node, StepState.CANCELLED, decision)


def _open_unit(run: LiveRun, node: Node, item: int, decision: Decision, at: float = 0.0) -> None:
    """Open one step run: its task or sub-run, taken up from the past if it is there; not before a time."""
    decision.touch(run, node)
    past = decision.past.get(run.id)
    known = past.tasks.get((node.index, item)) if past else None
    sub_run = past.runs.get((node.index, item)) if past else None
    if known is not None:
        _attach(run, node, item, LiveTask.restored(run, node, known))
    elif sub_run is not None:
        _attach(run, node, item, sub_run)
    elif node.child is not None and at <= decision.now:
        start_sub_run(run, node, item, decision)
    elif node.kind in WAITS:
        _park(run, node, item, decision)
    else:
        at = max(at, decision.now)
        deadline = at + node.deadline if node.deadline is not None else None
        task = LiveTask(decision.ids.next_task(run.id), run, node, item, deadline, schedule_time=at)
        if node.order is not None and not _has_key(task, decision):
            return
        if node.child is not None:
            task.state, task.first_attempt_at = TaskState.PARKED, decision.now
        _attach(run, node, item, task)
        decision.opened.append(task)


def _has_key(task: LiveTask, decision: Decision) -> bool:
    """Find the key of a task that opens; return whether it has what its step says, or fail its step run."""
    try:
        task.find_key()
    except BindingError as error:
        _unit_unbound(task.run, task.node, task.item, error, decision)
        return False
    return True


def _unit_unbound(run: LiveRun, node: Node, item: int, error: BindingError, decision: Decision) -> None:
    """Fail a step run that cannot open, since what it is given cannot be put together."""
    failure = unbound(error)
    record_sub_step(run, node, item, StepState.FAILED, decision, failure=failure)
    unit_failed(run, node, item, failure, decision)


def _park(run: LiveRun, node: Node, item: int, decision: Decision) -> None:
    """Open a step that waits and is never sent."""
    try:
        task = parked(run, node, item, decision)
    except BindingError as error:
        _node_failed(run, node, unbound(error), decision)
        return
    _attach(run, node, item, task)
    decision.opened.append(task)


def _attach(run: LiveRun, node: Node, item: int, unit: LiveTask | LiveRun) -> None:
    live = run.nodes[node.index]
    if item == WHOLE:
        live.unit = unit
    else:
        assert live.map is not None
        live.map.units[item] = unit


def start_sub_run(run: LiveRun, node: Node, item: int, decision: Decision) -> None:
    """Begin the run of a sub-workflow, or fail the step run if its input cannot be bound."""
    assert node.child is not None
    try:
        scope = RunScope(run, item_of(run, node, item))
        arguments = composed(node.inputs, scope, decision)
        if node.id in run.plan.doubts.inputs:
            check_type(node.child, "input", scope.whole(arguments), decision)
    except BindingError as error:
        _unit_unbound(run, node, item, error, decision)
        return
    begin_sub_run(run, node, item, node.child, arguments, decision)


def begin_sub_run(run: LiveRun, node: Node, item: int, plan: Plan, arguments: bytes, decision: Decision) -> None:
    """Begin the run that is the execution of a step run from now on."""
    number, parent = decision.ids.next_run(run.id), Parent(run, node, item)
    sub_run = LiveRun.fresh(number, plan, arguments, decision.now, parent, run.priority)
    sub_run.is_held, sub_run.contents = run.is_held, run.contents
    _attach(run, node, item, sub_run)
    earlier = run.earlier.get((node.index, item)) if run.earlier is not None else None
    if earlier is not None and (earlier.digest, earlier.input) == (plan.digest, arguments):
        _go_on_from(earlier, sub_run, decision)
    else:
        record_run(sub_run, decision)
    decision.touch(run, node)
    decision.began.append(sub_run)
    if sub_run.open_nodes <= len(plan.closing):
        decision.empty.append(sub_run)
    for first, live in zip(plan.nodes, sub_run.nodes, strict=True):
        if live.waits == 0 and live.state is StepState.PENDING:
            decision.todo.append((sub_run, first))


def _go_on_from(earlier: Earlier, run: LiveRun, decision: Decision) -> None:
    """Let a run that begins keep what an earlier one has got."""
    record_run(run, decision, retry_of=earlier.run)
    past = Past([row._replace(run_id=run.id) for row in earlier.kept])
    decision.rows.steps_ended += past.steps
    decision.past[run.id] = past
    run.earlier = earlier.below
    apply_past(run, past)


def _signal(run: LiveRun, node: Node, decision: Decision) -> None:
    """Tell a step that one of the things it waits for is there, or has ended."""
    live = run.nodes[node.index]
    live.waits -= 1
    if live.state is StepState.PENDING and (live.waits == 0 or (node.arms and choices.is_won(run, node))):
        decision.todo.append((run, node))


def unit_succeeded(run: LiveRun, node: Node, item: int, result: bytes, decision: Decision) -> None:
    """Note that what executed a step run, or one element of a map, has a result."""
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
    if isinstance(live_map, LiveLaps):
        live_map.given, live_map.done = result, item + 1
        _go_round(run, node, live_map, decision)
        return
    live_map.succeed(item, result)
    _pass_on(run, node, item, decision)
    _fill_map(run, node, live_map, decision)


def _pass_on(run: LiveRun, node: Node, item: int, decision: Decision) -> None:
    """Tell the maps that follow a map of an element that has a result."""
    for stream in node.streams:
        following = run.nodes[stream].map
        if isinstance(following, LiveMap) and run.nodes[stream].state is StepState.RUNNING:
            following.ready.append(item)
            _fill_map(run, run.plan.nodes[stream], following, decision)


def unit_failed(run: LiveRun, node: Node, item: int, failure: Failure, decision: Decision) -> None:
    """Note that what executed a step run, or one element of a map, failed for good."""
    decision.touch(run, node)
    live = run.nodes[node.index]
    if item == WHOLE:
        live.unit = None
        if node.undoes is None:
            _close_node(run, node, StepState.FAILED, decision, failure, record=False)
        else:
            undoing.node_ended(run, node, StepState.FAILED, decision)
            end_if_done(run, decision)
        return
    live_map = live.map
    assert live_map is not None
    live_map.units.pop(item, None)
    if isinstance(live_map, LiveLaps):
        _node_failed(run, node, failure, decision)
        return
    live_map.fail(item, failure)
    if node.settled:
        _pass_on(run, node, item, decision)
    _fill_map(run, node, live_map, decision)


def _node_succeeded(run: LiveRun, node: Node, decision: Decision) -> None:
    if node.undoes is not None:
        undoing.node_ended(run, node, StepState.SUCCEEDED, decision)
        end_if_done(run, decision)
        return
    live = run.nodes[node.index]
    live.state = StepState.SUCCEEDED
    run.note_end(node.index)
    decision.touch(run, node)
    if node.over is not None:
        record_node(run, node, StepState.SUCCEEDED, decision)
    for following in node.downstream:
        _signal(run, run.plan.nodes[following], decision)
    end_if_done(run, decision)


def _node_failed(run: LiveRun, node: Node, failure: Failure, decision: Decision) -> None:
    _close_node(run, node, StepState.FAILED, decision, failure)


def _close_node(
    run: LiveRun,
    node: Node,
    state: StepState,
    decision: Decision,
    failure: Failure | None = None,
    *,
    step: str | None = None,
    record: bool = True,
) -> None:
    """End a step without success, and with it everything that needs it; *step* failed, where it is another."""
    if failure is not None:
        run.note_failure(node, step or node.id, failure)
    closing: list[tuple[Node, StepState, Failure | None, bool]] = [(node, state, failure, record)]
    while closing:
        closed, its_state, why, has_record = closing.pop()
        live = run.nodes[closed.index]
        if live.state in FINAL_STEP_STATES:
            continue
        live.state = its_state
        run.note_end(closed.index)
        decision.touch(run, closed)
        if has_record:
            record_node(run, closed, its_state, decision, why, step=step if closed is node else None)
        for index in (*closed.downstream, *closed.streams):
            following, its_live = run.plan.nodes[index], run.nodes[index]
            if following.arms:
                _signal(run, following, decision)
            elif not isinstance(its_live.map, LiveMap):
                closing.append((following, StepState.UPSTREAM_FAILED, None, True))
            elif its_live.state is StepState.RUNNING:
                its_live.map.blocked = True
                if not its_live.map.units:
                    closing.append((following, StepState.UPSTREAM_FAILED, None, True))
    end_if_done(run, decision)


def end_if_done(run: LiveRun, decision: Decision) -> None:
    """End a run whose last step has ended, after it has undone what it did if need be, and tell the run above."""
    if run.open_nodes > len(run.plan.closing) or run.state is not RunState.RUNNING:
        return
    if run.open_nodes and not closing.is_closing(run):
        return
    if run.ending is not None and undoing.go_on(run, decision):
        return
    state, result = outcome(run, decision)
    if state is RunState.FAILED and run.ending is None and undoing.begin(run, state, decision):
        return
    if closing.go_on(run, state, decision):
        return
    if result is None:
        _end_without_success(run, state, decision)
        return
    end_run(run, state, decision, result)
    if run.parent is not None:
        parent, node, item = run.parent
        record_sub_step(parent, node, item, StepState.SUCCEEDED, decision, result=result, started_at=run.created_at)
        unit_succeeded(parent, node, item, result, decision)


def _end_without_success(run: LiveRun, state: RunState, decision: Decision) -> None:
    """End a run that failed or was cancelled, and tell the run above."""
    end_run(run, state, decision)
    if run.parent is None or run.parent.run.state is not RunState.RUNNING:
        return
    if state is RunState.FAILED:
        sub_run_failed(run, why_failed(run), decision)
    elif run.parent.run.ending is RunState.CANCELLED:
        _sub_run_cancelled(run, decision)
    else:
        sub_run_failed(run, why_cancelled(run), decision)


def _sub_run_cancelled(run: LiveRun, decision: Decision) -> None:
    """Cancel the step run that a sub-run was the execution of, in a run that is cancelled and waited for it."""
    assert run.parent is not None
    parent, node, item = run.parent
    record_sub_step(parent, node, item, StepState.CANCELLED, decision, started_at=run.created_at)
    decision.touch(parent, node)
    live = parent.nodes[node.index]
    if item == WHOLE:
        live.unit = None
        _close_node(parent, node, StepState.CANCELLED, decision, record=False)
        return
    assert live.map is not None
    live.map.units.pop(item, None)
    if isinstance(live.map, LiveMap):
        _fill_map(parent, node, live.map, decision)
    else:
        _close_node(parent, node, StepState.CANCELLED, decision)


def sub_run_failed(run: LiveRun, failure: Failure, decision: Decision) -> None:
    """Fail the step run that a sub-run was the execution of."""
    assert run.parent is not None
    parent, node, item = run.parent
    record_sub_step(parent, node, item, StepState.FAILED, decision, failure=failure, started_at=run.created_at)
    unit_failed(parent, node, item, failure, decision)
