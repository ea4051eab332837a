"""The transition tables say what happens, all of it and nothing else."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeVar

import msgspec
import pytest

from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import RunState, StepState, TaskState
from hopline_engine.core.retry import Failure
from hopline_engine.core.states import FINAL_RUN_STATES, FINAL_STEP_STATES, RUN, STEP, TASK
from tests.core.worlds import ACCEPT, Outcome, World, loop_step, plan, ref, sleep_step, step

S = TypeVar("S", bound=Enum)
FAILURE = Failure("ValueError", "no", ("ValueError",))


def reachable(table: Mapping[S, frozenset[S]], start: S) -> set[S]:
    found, fresh = {start}, [start]
    while fresh:
        following = table[fresh.pop()] - found
        found |= following
        fresh += following
    return found


def test_every_state_has_a_row() -> None:
    assert set(RUN) == set(RunState)
    assert set(STEP) == set(StepState)
    assert set(TASK) == set(TaskState)


def test_every_state_can_be_reached() -> None:
    assert reachable(RUN, RunState.RUNNING) == set(RunState)
    assert reachable(STEP, StepState.PENDING) == set(StepState)
    assert reachable(TASK, TaskState.SCHEDULED) | reachable(TASK, TaskState.PARKED) == set(TaskState)


def test_every_step_and_run_can_come_to_an_end() -> None:
    for state in StepState:
        assert reachable(STEP, state) & FINAL_STEP_STATES
    for run in RunState:
        assert reachable(RUN, run) & FINAL_RUN_STATES


def test_final_states_are_absorbing() -> None:
    assert {state for state in RunState if not RUN[state]} == FINAL_RUN_STATES == set(RunState) - {RunState.RUNNING}
    ended = {"succeeded", "failed", "skipped", "upstream_failed", "cancelled"}
    assert {state for state in StepState if not STEP[state]} == FINAL_STEP_STATES == set(map(StepState, ended))


def test_nothing_becomes_what_it_is() -> None:
    for table in (RUN, STEP, TASK):
        assert all(state not in following for state, following in table.items())


def test_cancel_can_come_at_any_time() -> None:
    for state, following in STEP.items():
        assert (StepState.CANCELLED in following) == (state not in FINAL_STEP_STATES)


# --- what really happens --------------------------------------------------------------------------------------------


def answer(task: LiveTask, arguments: dict[str, Any]) -> Outcome:
    """Do what the name of the step says."""
    if "accepts" in task.name and task.state is TaskState.LEASED:
        return ACCEPT
    if "fails" in task.name:
        return FAILURE
    return msgspec.json.encode(arguments.get("x"))


def busy_world() -> World:
    child = plan([step("accepts")], name="child")
    empty = plan([], name="empty")
    nodes = [
        step("works"),
        sleep_step("sleeps", 5.0),
        step("fails"),
        step("fails_twice", attempts=2),
        step("fails_at_once", attempts=2, first=0.0),
        step("accepts"),
        step("accepts_fails_twice", attempts=2),
        step("accepts_fails_at_once", attempts=2, first=0.0),
        step("list", {"x": {}}),
        step("after_fails", after=["fails"]),
        step("m", {"x": [1, 2]}, over="x", max_parallel=1),
        step("over_nothing", {"x": []}, over="x"),
        step("over_no_list", {"x": ref("list", "missing")}, over="x"),
        step("sub", workflow=("child", "child")),
        step("empty", workflow=("empty", "empty")),
        step("m_fails", {"x": [1, 2]}, over="x", max_parallel=1),
        step("over_m_fails", {"x": ref("m_fails")}, over="x"),
        loop_step("laps", every=5.0, limit=2),
        loop_step("laps_of_runs", every=5.0, limit=2, workflow=("child", "child")),
    ]
    nodes[-1]["loop"]["until"]["args"][0] = 0  # which is never 3
    top = plan(nodes, children={"child": child, "empty": empty})
    return World({"w": top, "child": child, "empty": empty}, answer)


EVENTS: dict[str, Callable[[World], None]] = {
    "lease": lambda world: world.lease(world.task("s")),
    "unlease": lambda world: world.unlease(world.task("s")),
    "lose": lambda world: world.lose(world.task("s")),
    "fail": lambda world: world.fail(world.task("s"), FAILURE),
    "accept": lambda world: world.answer(world.task("s")),
    "expire": lambda world: world.expire(world.task("s")),
    "wake": lambda world: world.sleep_until(world.task("s").schedule_time),
    "almost_expire": lambda world: world.sleep_until((world.task("s").deadline_time or 0.0) - 0.1),
    "cancel": lambda world: world.cancel(next(iter(world.live.values()))),
    "crash": lambda world: world.crash(),
}
"""What can happen to the one step of a run; every request is answered with 202."""

SCENARIOS = [
    "expire",
    "cancel",
    "lease cancel",
    "lease unlease lease lose lease crash",
    "lease fail wake lease",
    "lease fail cancel",
    "lease lose lease almost_expire lose expire",
    "lease accept cancel",
    "lease accept expire",
]


def changes_of_single_step(scenario: str) -> set[tuple[StepState, StepState]]:
    world = World({"w": plan([step("s", attempts=3, deadline=1000.0)])}, lambda *_: ACCEPT)
    world.start()
    for event in scenario.split():
        EVENTS[event](world)
    return world.transitions


def changes_of_busy_run(turns: int) -> set[tuple[StepState, StepState]]:
    """Run every kind of step for some turns, and cancel."""
    world = busy_world()
    run = world.start()
    for _ in range(turns):
        world.turn()
    if world.state(run) is RunState.RUNNING:
        world.cancel(run)
    return world.transitions


@pytest.fixture(scope="module")
def made() -> set[tuple[StepState, StepState]]:
    """Every change of state that a step can be made to go through."""
    single = (changes_of_single_step(scenario) for scenario in SCENARIOS)
    busy = (changes_of_busy_run(turns) for turns in range(0, 60, 3))
    return set().union(*single, *busy)


TABLE = {(before, after) for before, following in STEP.items() for after in following}
BY_TIME = {(StepState.SCHEDULED, StepState.RUNNING)}
"""Seen only by who looks away at the moment when the time has come."""


def test_every_change_that_is_made_is_in_the_table(made: set[tuple[StepState, StepState]]) -> None:
    assert made - TABLE == set()


def test_every_change_in_the_table_is_made(made: set[tuple[StepState, StepState]]) -> None:
    not_in_this_version = {change for change in TABLE if StepState.SKIPPED in change}
    assert TABLE - made - not_in_this_version - BY_TIME == set()


def test_task_that_may_not_become_what_is_asked_is_refused() -> None:
    world = World({"w": plan([step("s")])})
    world.start()
    with pytest.raises(AssertionError, match="cannot become"):
        world.unlease(world.task("s"))
