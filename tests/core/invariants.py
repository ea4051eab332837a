"""What is true after every commit, checked against the rows alone and against the memory of the owner of the runs.

The numbers are those of the invariants in the design of correctness; each function is one of them, or several that
are seen by the same look.
"""

from collections.abc import Mapping, Sequence

import msgspec

from hopline_engine.core.live import LiveLaps, LiveMap, LiveRun, LiveTask, StoredTask
from hopline_engine.core.model import (
    UNDER_WAY,
    WHOLE,
    RunId,
    RunState,
    StepEnded,
    StepState,
    TaskState,
)
from hopline_engine.core.plan import Node, Plan
from hopline_engine.core.states import FINAL_RUN_STATES, FINAL_STEP_STATES
from tests.core.rows import Rows


def check(rows: Rows, live: Mapping[RunId, LiveRun], plans: Mapping[str, Plan]) -> None:
    """Fail if anything that must be true after a commit is not."""
    assert set(live) == set(rows.runs) - set(rows.ended) - rows.parked, (
        "the runs in memory are not the stored open ones"
    )
    for run, row in rows.runs.items():
        nodes = plans[row.workflow].nodes
        open_nodes = [node for node in nodes if (node.index, WHOLE) not in rows.steps[run]]
        _check_end(rows, run, nodes, open_nodes)
        if run in live:
            _check_live(live[run], rows, open_nodes)
    _check_tasks(rows, live)
    _check_attempts(rows, plans)


def _check_end(rows: Rows, run: RunId, nodes: Sequence[Node], open_nodes: list[Node]) -> None:
    """I5: a run has ended if and only if all its steps have."""
    end = rows.ended.get(run)
    undoes = end is None and run in rows.moved and rows.moved[run].ending is not None
    assert undoes or (end is not None) == (not open_nodes), f"run {run}: {end} with {len(open_nodes)} open steps"
    states = {row.state for (_, item), row in rows.steps[run].items() if item == WHOLE}
    assert states <= FINAL_STEP_STATES
    if end is not None:
        assert end.state in FINAL_RUN_STATES
        if end.state == RunState.SUCCEEDED:
            outside = {
                rows.steps[run][node.index, WHOLE].state for node in nodes if node.within is None and not node.closes
            }
            assert outside <= {StepState.SUCCEEDED, StepState.SKIPPED}
            assert end.result is not None
            assert end.error is None
        if end.state == RunState.FAILED:
            assert end.error is not None


def _check_live(run: LiveRun, rows: Rows, open_nodes: list[Node]) -> None:
    """I2, I5, I12: the counters are right, and something will happen to the run by itself."""
    assert run.open_nodes == len(open_nodes)
    assert next(run.units(), None) is not None, f"nothing will ever wake run {run.id}"
    steps = rows.steps[run.id]
    for node, live in zip(run.plan.nodes, run.nodes, strict=False):
        if isinstance(live.map, LiveMap) and live.state is not StepState.CANCELLED:
            _check_elements(node, live.map, steps)
        elif isinstance(live.map, LiveLaps) and (node.index, WHOLE) not in steps:
            _check_laps(node, live.map, steps)
        ended = steps.get((node.index, WHOLE))
        if ended is not None:
            assert live.state == ended.state
            assert live.unit is None
            assert live.map is None or not live.map.units
            continue
        assert live.state in {StepState.PENDING, StepState.RUNNING}
        counted = FINAL_STEP_STATES if node.arms else {StepState.SUCCEEDED, StepState.SKIPPED}
        done = sum(run.nodes[upstream].state in counted for upstream in node.upstream)
        followed = run.nodes[node.stream_from] if node.stream_from is not None else None
        streams = followed is not None and (followed.map is not None or followed.state is StepState.SKIPPED)
        assert live.waits == node.waits - done - streams >= 0
        assert node.waits == len(node.upstream) + (node.stream_from is not None) + (node.closes is not None)
        is_open = live.unit is not None or live.map is not None
        assert is_open == (live.state is StepState.RUNNING), f"{node.id} is {live.state}"
        is_due = live.waits == 0 if node.closes is None else is_open
        assert is_open == is_due, f"{node.id} waits for {live.waits} and is {live.state}"
        if isinstance(live.map, LiveMap):
            _check_map(run, node, live.map)


def _check_laps(node: Node, laps: LiveLaps, steps: Mapping[tuple[int, int], StepEnded]) -> None:
    """An open loop has one open lap, the one after those that are stored, and that is given the result of the last."""
    done = {item: row.result for (index, item), row in steps.items() if index == node.index}
    assert set(done) == set(range(laps.done))
    assert set(laps.units) == {laps.done}
    assert not done or laps.given == done[laps.done - 1]


def _check_elements(node: Node, live_map: LiveMap, steps: Mapping[tuple[int, int], StepEnded]) -> None:
    """A map that was opened knows how its elements ended, also when it has ended itself."""
    ended = {item: row for (index, item), row in steps.items() if index == node.index and item != WHOLE}
    succeeded = {item: row.result for item, row in ended.items() if row.state == StepState.SUCCEEDED}
    if node.settled:
        results: dict[int, bytes | None] = {
            item: _settled(row) for item, row in ended.items() if row.state != StepState.CANCELLED
        }
    else:
        results = succeeded
    assert {item: result for item, result in enumerate(live_map.results) if result is not None} == results
    assert live_map.done == len(succeeded)
    assert live_map.failed == sum(row.state == StepState.FAILED for row in ended.values())
    assert not ended.keys() & live_map.units.keys()


def _settled(row: StepEnded) -> bytes:
    """Return what became of an element, as the steps after its map see it."""
    if row.state == StepState.SUCCEEDED:
        return b'{"ok":%b}' % (row.result or b"null")
    error = msgspec.json.decode(row.error or b"{}")
    return msgspec.json.encode({"err": {name: error[name] for name in ("type", "message", "status")}})


def _check_map(run: LiveRun, node: Node, live_map: LiveMap) -> None:
    """An open map waits for at least one of its elements, or for the map that it follows."""
    assert (live_map.failure is not None) == (live_map.failed > 0 and not node.settled)
    if not live_map.units:
        assert node.stream_from is not None, f"{node.id} is open without an open element"
        assert run.nodes[node.stream_from].state is StepState.RUNNING


def _check_tasks(rows: Rows, live: Mapping[RunId, LiveRun]) -> None:
    """I1: an open step run has exactly one task, as it is in memory; nothing else has one."""
    units = [unit for run in live.values() for unit in run.units()]
    tasks = {unit.id: unit for unit in units if isinstance(unit, LiveTask)}
    assert len(tasks) + sum(isinstance(unit, LiveRun) for unit in units) == len(units)
    awake = {task: row for task, row in rows.tasks.items() if row.run_id not in rows.parked}
    assert tasks.keys() == awake.keys()
    places = {(row.run_id, row.node, row.item) for row in rows.tasks.values()}
    assert len(places) == len(rows.tasks), "a step run has two tasks"
    for task_id, task in tasks.items():
        assert rows.tasks[task_id] == as_stored(task)
        assert (task.node.index, task.item) not in rows.steps[task.run.id], f"{task.name} has ended, but has a task"
        assert task.state is not TaskState.ACCEPTED or task.deadline_time is not None, "an endless wait"
    events = {task.id for task in tasks.values() if task.node.kind == "event"}
    waits = {task for task, wait in rows.waits.items() if wait.run_id not in rows.parked}
    assert events == waits, "what waits for an event cannot be found by it, or the other way round"
    for run in (unit for unit in units if isinstance(unit, LiveRun)):
        assert live[run.id] is run, "a step waits for a run that has ended"


def _check_attempts(rows: Rows, plans: Mapping[str, Plan]) -> None:
    """I7: attempts are numbered without gaps, and only the last one may be open."""
    open_attempts = {(task.run_id, task.node, task.item): task for task in rows.tasks.values()}
    for place, ended in rows.attempts.items():
        assert [row.attempt for row in ended] == list(range(1, len(ended) + 1)), f"attempts of {place}: {ended}"
        task = open_attempts.get(place)
        run, node, item = place
        if plans[rows.runs[run].workflow].nodes[node].kind == "dynamic" and task is None:
            continue  # its attempts were those at tracing; what it is since then is a run
        if task is None:
            assert rows.steps[run][node, item].attempts == len(ended)
    for place, task in open_attempts.items():
        under_way = task.state in UNDER_WAY
        assert task.attempt == len(rows.attempts.get(place, ())) + under_way
        assert (task.leased_at is not None) == under_way
        is_looking = plans[rows.runs[task.run_id].workflow].nodes[task.node].every is not None
        assert is_looking or (task.first_attempt_at is not None) == (task.attempt > 0 or task.state == TaskState.PARKED)
        lost = sum(row.state == "lost" for row in rows.attempts.get(place, ()))
        assert task.lost == lost >= task.blamed


def as_stored(task: LiveTask) -> StoredTask:
    """Return the row that a live task should have."""
    return StoredTask(
        id=task.id,
        run_id=task.run.id,
        node=task.node.index,
        item=task.item,
        queue=task.node.queue,
        state=task.state,
        attempt=task.attempt,
        lost=task.lost,
        blamed=task.blamed,
        schedule_time=task.schedule_time,
        deadline_time=task.deadline_time,
        first_attempt_at=task.first_attempt_at,
        leased_at=task.leased_at,
        epoch=task.epoch,
    )
