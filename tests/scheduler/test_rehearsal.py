"""Taking runs up again for show: nothing is missing of runs that are right, and what was taken away is."""

from collections.abc import Iterator

import pytest

from hopline_engine.core.live import StoredTask
from hopline_engine.core.model import RunId
from hopline_engine.core.plan import Plan
from hopline_engine.scheduler.rehearsal import rehearse
from hopline_engine.store.audit import Finding
from hopline_engine.store.recovery import LiveChild, StoredRun
from tests.core.worlds import Faults, World, plan, ref, step

HARM = Faults(crash=0.05, lose=0.1, unlease=0.1)


def busy_world(seed: int) -> World:
    """Return a world with chains, maps, maps that follow maps, sub-runs and maps of sub-runs."""
    child = plan([step("in"), step("out", {"x": ref("in")})], ref("out"), name="child")
    nodes = [
        step("a"),
        step("b", {"x": ref("a")}, attempts=3),
        step("sub", {"x": ref("a")}, workflow=("child", "child")),
        step("m", {"x": [1, 2, 3, 4]}, over="x", max_parallel=2),
        step("n", {"x": ref("m")}, over="x"),
        step("subs", {"x": [1, 2, 3]}, over="x", workflow=("child", "child")),
        step("end", {"x": ref("n"), "y": ref("sub")}),
    ]
    top = plan(nodes, ref("end"), children={"child": child})
    return World({"w": top, "child": child}, seed=seed)


def stored(world: World, run: RunId, without: StoredTask | None = None) -> StoredRun:
    tasks = [task for task in world.rows.tasks.values() if task.run_id == run and task != without]
    return StoredRun(run=world.rows.runs[run], steps=list(world.rows.steps[run].values()), tasks=tasks)


def children(world: World, run: RunId) -> list[LiveChild]:
    below = [live for live in world.live.values() if live.parent is not None and live.parent.run.id == run]
    return [LiveChild(live.id, run, live.parent.node.index, live.parent.item) for live in below if live.parent]


def rehearsed(world: World, run: RunId, without: StoredTask | None = None) -> list[Finding]:
    found = stored(world, run, without)
    its_plan = world.plans[found.run.workflow]
    return list(rehearse(found, its_plan, children(world, run), now=world.now, limits=world.limits))


def steps_of(seed: int) -> Iterator[World]:
    """Yield a world after each of its turns, as long as something is open."""
    world = busy_world(seed)
    world.start()
    yield world
    while world.turn(HARM):
        yield world


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_missing_of_runs_that_are_right_whatever_happened_to_them(seed: int) -> None:
    for world in steps_of(seed):
        for run in world.live:
            assert rehearsed(world, run) == []


@pytest.mark.parametrize("seed", range(10))
def test_open_step_whose_task_was_taken_away_is_found(seed: int) -> None:
    for world in steps_of(seed):
        for task in world.rows.tasks.values():
            node = world.plans[world.rows.runs[task.run_id].workflow].nodes[task.node]
            if node.over is None:
                (found,) = rehearsed(world, task.run_id, without=task)
                assert (found.audit.name, found.evidence["steps"]) == ("open-step-without-task", [node.id])


def test_element_of_a_map_that_was_taken_away_is_found_by_those_after_it() -> None:
    world = World({"w": plan([step("m", {"x": [1, 2, 3, 4]}, over="x", max_parallel=3)])})
    run = world.start()
    second = next(task for task in world.rows.tasks.values() if task.item == 1)
    (found,) = rehearsed(world, run.id, without=second)
    assert found.evidence["steps"] == ["m[1]"]


def test_window_that_grew_since_is_no_finding() -> None:
    world = World({"w": plan([step("m", {"x": [1, 2, 3, 4]}, over="x")])})
    world.limits = type(world.limits)(map_window=2)
    run = world.start()
    world.limits = type(world.limits)(map_window=4)
    assert rehearsed(world, run.id) == []


def test_end_that_was_not_recorded_is_found() -> None:
    world = World({"w": plan([step("a")])})
    run = world.start()
    world.run_step("a")
    del world.rows.ended[run.id]
    (found,) = rehearsed(world, run.id)
    assert (found.audit.name, found.evidence["run_state"]) == ("end-not-recorded", "succeeded")


def test_run_whose_rows_are_none_of_its_plan_is_found_and_not_raised() -> None:
    world = World({"w": plan([step("a"), step("b")])})
    run = world.start()
    world.run_step("b")
    smaller: Plan = plan([step("a")])
    (found,) = rehearse(stored(world, run.id), smaller, [], now=world.now, limits=world.limits)
    assert found.audit.name == "unreadable-run"
    assert "IndexError" in found.evidence["error"]
