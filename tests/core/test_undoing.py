"""What a run did is undone when it does not succeed, last things first, whatever dies in between."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hopline_engine.core.decision import Limits
from hopline_engine.core.live import LiveRun
from hopline_engine.core.model import WHOLE, Digest, RunId, RunState, StepState
from hopline_engine.core.plan import Plan, PlanError
from hopline_engine.core.planning import build_plan
from tests.core.flows import MAIN, Flow, compensating, flows
from tests.core.small_worlds import failing
from tests.core.worlds import Execute, Faults, World, definition, ref, step

SEEDS = st.integers(0, 2**32)
TURNS = st.integers(0, 60)
FAULTS = Faults(crash=0.1, undo=0.05, lose=0.1, unlease=0.1)
LIMITS = Limits(map_window=2, lost_limit=1000)
many = settings(max_examples=80)


def undo(name: str, attempts: int = 1) -> dict[str, Any]:
    """Return the step that undoes another one."""
    node = step(name, {"result": ref("$item")}, attempts=attempts)
    return {key: node[key] for key in ("id", "kind", "step", "signature", "inputs", "request", "result", "policy")}


def undone(name: str, inputs: dict[str, Any] | None = None, *, attempts: int = 1, **more: Any) -> dict[str, Any]:
    """Return a step with an undo step called ``undo_`` and its name."""
    return step(name, inputs, **more) | {"undo": undo(f"undo_{name}", attempts)}


def saga(*nodes: dict[str, Any], children: dict[str, Plan] | None = None, name: str = "w", **more: Any) -> Plan:
    body = definition(name, list(nodes), None) | {"compensate": True} | more
    return build_plan(body, Digest(name), children or {})


def world(plan: Plan, execute: Execute, **children: Plan) -> World:
    return World({plan.name: plan, **children}, execute)


def calls(w: World, run: LiveRun) -> list[str]:
    """Return the steps that were sent, in order."""
    return [sent.step for sent in w.sent if sent.run == run.id]


def chain(**more: Any) -> Plan:
    return saga(undone("a"), undone("b", {"x": ref("a")}, **more), step("c", {"x": ref("b")}))


def test_element_of_a_settled_map_is_undone_whose_result_is_kept_elsewhere() -> None:
    plan = saga(undone("a", {"x": [1, 2]}, over="x") | {"settled": True}, step("bad", after=["a"]))
    w = World({"w": plan}, failing("bad", "a[1]"), spills=1.0)
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.FAILED
    assert [name for name in calls(w, run) if name.startswith("undo")] == ["undo_a[0]"]


def test_failed_run_undoes_its_steps_in_reverse_order_of_completion() -> None:
    w = world(chain(), failing("c"))
    run = w.start()
    w.finish()
    assert calls(w, run) == ["a", "b", "c", "undo_b", "undo_a"]
    assert w.state(run) is RunState.FAILED
    assert w.error(run)["step"] == "c", "the run says why it failed, not what was undone"


def test_undo_step_is_given_the_result_of_the_step_that_it_undoes() -> None:
    w = world(chain(), failing("c"))
    run = w.start()
    w.finish()
    row = w.step_row(run, "undo_b")
    assert row is not None
    assert msgspec.json.decode(row.result or b"") == {"result": {"x": {}}}


def test_run_that_succeeds_undoes_nothing() -> None:
    w = world(chain(), failing())
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED
    assert calls(w, run) == ["a", "b", "c"]


def test_workflow_that_does_not_compensate_undoes_nothing() -> None:
    w = world(saga(undone("a"), step("b", {"x": ref("a")}), compensate=False), failing("b"))
    run = w.start()
    w.finish()
    assert calls(w, run) == ["a", "b"]


def test_undo_step_that_fails_is_retried_stays_visible_and_stops_no_other() -> None:
    w = world(chain(attempts=3), failing("c", "undo_b"))
    run = w.start()
    w.finish()
    assert calls(w, run) == ["a", "b", "c", "undo_b", "undo_b", "undo_b", "undo_a"]
    states = [getattr(w.step_row(run, name), "state", None) for name in ("undo_b", "undo_a")]
    assert states == ["failed", "succeeded"]
    assert w.state(run) is RunState.FAILED


def test_elements_of_a_map_are_undone_one_by_one_also_when_the_map_failed() -> None:
    plan = saga(undone("m", {"x": [1, 2, 3]}, over="x", max_parallel=1))
    w = world(plan, failing("m[2]", "undo_m[0]"))
    run = w.start()
    w.finish()
    assert calls(w, run)[:3] == ["m[0]", "m[1]", "m[2]"]
    assert sorted(calls(w, run)[3:]) == ["undo_m[0]", "undo_m[1]"]
    assert w.rows.steps[run.id][-1, WHOLE].state == StepState.FAILED
    assert w.state(run) is RunState.FAILED


def test_elements_of_a_settled_map_that_failed_are_not_undone() -> None:
    plan = saga({**undone("m", {"x": [1, 2]}, over="x"), "settled": True}, step("b", {"x": ref("m")}))
    w = world(plan, failing("m[0]", "b"))
    run = w.start()
    w.finish()
    assert calls(w, run)[-1] == "undo_m[1]"
    row = w.step_row(run, "undo_m[1]")
    assert row is not None
    assert msgspec.json.decode(row.result or b"") == {"result": {"x": 2}}


def test_cancelled_run_undoes_what_it_did_before_it_ends() -> None:
    w = world(chain(), failing())
    run = w.start()
    w.run_step("a")
    w.cancel(w.live[run.id])
    assert w.open_steps() == ["undo_a"]
    assert w.state(run) is RunState.RUNNING
    w.crash()
    w.finish()
    assert w.state(run) is RunState.CANCELLED
    assert w.step_state(run, "b") is StepState.CANCELLED


def test_run_that_is_cancelled_while_it_undoes_ends_at_once() -> None:
    w = world(chain(), failing())
    run = w.start()
    w.run_step("a")
    for _ in range(2):
        w.cancel(w.live[run.id])
    assert w.state(run) is RunState.CANCELLED
    assert w.tasks() == []


def test_cancelled_run_with_nothing_to_undo_ends_at_once() -> None:
    w = world(chain(), failing())
    run = w.start()
    w.cancel(w.live[run.id])
    assert w.state(run) is RunState.CANCELLED


def nested(*names: str) -> World:
    child = saga(undone("x"), step("y", {"x": ref("x")}), name="child")
    node = step("sub", {}, workflow=("child", "child"))
    return world(saga(undone("a"), {**node, "after": ["a"]}, children={"child": child}), failing(*names), child=child)


def test_sub_workflow_that_fails_undoes_its_own_steps_before_the_run_above_undoes_its() -> None:
    w = nested("y")
    run = w.start()
    w.finish()
    assert [sent.step for sent in w.sent] == ["a", "x", "y", "undo_x", "undo_a"]
    assert w.state(run) is RunState.FAILED


def test_cancelled_run_waits_until_its_sub_runs_have_undone_what_they_did() -> None:
    w = nested()
    run = w.start()
    w.run_step("a")
    w.run_step("x")
    w.cancel(w.live[run.id])
    assert w.open_steps() == ["undo_x"]
    w.crash()
    w.run_step("undo_x")
    assert w.open_steps() == ["undo_a"]
    w.finish()
    assert set(w.rows.ended) == set(w.rows.runs)
    assert {ended.state for ended in w.rows.ended.values()} == {"cancelled"}
    assert w.step_state(run, "sub") is StepState.CANCELLED


def test_sub_workflow_that_succeeded_is_undone_by_the_undo_step_that_it_has_itself() -> None:
    child = saga(undone("x"), name="child")
    node = step("sub", {}, workflow=("child", "child")) | {"undo": undo("undo_sub")}
    w = world(saga(node, step("b", after=["sub"]), children={"child": child}), failing("b"), child=child)
    run = w.start()
    w.finish()
    assert calls(w, run) == ["b", "undo_sub"]


def test_retry_of_an_undone_run_makes_again_what_was_undone() -> None:
    w = world(saga(step("z"), undone("a", {"x": ref("z")}), step("b", {"x": ref("a")})), failing("b"))
    first = w.start()
    w.finish()
    w.execute = failing()
    second = w.start(earlier=w.earlier(first.id))
    w.finish()
    assert calls(w, second) == ["a", "b"]
    assert w.state(second) is RunState.SUCCEEDED


def test_undo_step_can_refer_to_nothing_but_the_result_and_the_input() -> None:
    bad = undone("a") | {"undo": undo("undo_a") | {"inputs": {"x": ref("b")}}}
    with pytest.raises(PlanError, match="refers to more than the result"):
        saga(bad, step("b"))


def expected_undos(w: World, run: RunId) -> set[tuple[int, int]]:
    """Return the step runs that have to be undone, from the rows alone."""
    undos = w.plans[w.rows.runs[run].workflow].undos
    rows = w.rows.steps[run]
    found = {place for place, row in rows.items() if row.state == "succeeded" and ~place[0] in undos}
    mapped = {~index for index, node in undos.items() if node.over is not None}
    return {(node, item) for node, item in found if node >= 0 and (node not in mapped or item != WHOLE)}


def assert_undone(w: World) -> None:
    """Check of every run that exactly what it had to undo was undone, in reverse order of completion."""
    for run in w.rows.runs:
        rows = w.rows.steps[run]
        its_undos = [(node, item) for node, item in rows if node < 0]
        mapped = {index for index, node in w.plans[w.rows.runs[run].workflow].undos.items() if node.over is not None}
        single = {(~node, item) for node, item in its_undos if node not in mapped or item != WHOLE}
        should = expected_undos(w, run) if w.rows.ended[run].state != "succeeded" else set()
        assert single == should
        ends = [rows[~node, WHOLE].ended_at for node, item in its_undos if item == WHOLE]
        assert ends == sorted(ends, reverse=True)


@many
@given(flows(), SEEDS, TURNS, st.booleans(), st.frozensets(st.sampled_from("abcdef"), max_size=2))
def test_whatever_happens_exactly_what_was_done_is_undone(
    flow: Flow, seed: int, turns: int, is_cancelled: bool, bad: frozenset[str]
) -> None:
    flow = compensating(flow, bad)
    w = World(flow.plans(), flow.execute, seed=seed, limits=LIMITS, haste=seed % 3 / 2)
    run = w.start(MAIN)
    for _ in range(turns):
        w.turn(FAULTS)
    if is_cancelled and run.id in w.live and w.live[run.id].ending is None:
        w.cancel(w.live[run.id])
    w.finish(FAULTS)
    assert_undone(w)


@many
@given(flows(), SEEDS, TURNS)
def test_pause_holds_undo_steps_back_and_forgets_none(flow: Flow, seed: int, turns: int) -> None:
    flow = compensating(flow)
    w = World(flow.plans(), flow.execute, seed=seed, limits=LIMITS)
    run = w.start(MAIN)
    for _ in range(turns):
        w.turn(FAULTS)
    if run.id in w.live:
        w.pause(w.live[run.id])
        while w.turn(FAULTS):
            pass
        if run.id in w.live:
            w.resume(w.live[run.id])
    w.finish(FAULTS)
    assert_undone(w)
