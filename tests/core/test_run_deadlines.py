"""What becomes of a run that is over its deadline, one sentence at a time, and whatever else happens."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopline_engine.core.model import Digest, RunState, StepState
from hopline_engine.core.plan import Plan
from hopline_engine.core.planning import build_plan
from tests.core.drawn_worlds import FAULTS, LIMITS, SEEDS
from tests.core.flows import MAIN, Flow, compensating, flows
from tests.core.small_worlds import call, failing, identity, with_child
from tests.core.test_undoing import TURNS, assert_undone, many, undone
from tests.core.worlds import World, choice, closing, definition, event_step, plan, ref, step

HOUR = 3600.0


def limited(*nodes: dict[str, Any], children: dict[str, Plan] | None = None, name: str = "w", **more: Any) -> Plan:
    """Return a plan whose runs may take an hour."""
    body = definition(name, list(nodes), None) | {"deadline": HOUR} | more
    return build_plan(body, Digest(name), children or {})


def world(made: Plan, *failures: str) -> World:
    return World({"w": made}, failing(*failures) if failures else identity)


def told(w: World, run: Any) -> tuple[str, str]:
    error = w.error(run)
    return error["step"], error["type"]


@pytest.mark.parametrize("crashes", [False, True])
def test_run_over_its_deadline_fails_and_what_is_open_is_cancelled(*, crashes: bool) -> None:
    w = world(limited(step("a"), step("b"), step("c", {"x": ref("a")})))
    run = w.start()
    w.lease(w.task("a"))
    if crashes:
        w.crash()
    w.expire_run(w.live[run.id])
    assert w.state(run) is RunState.FAILED
    assert told(w, run) == ("a", "DeadlineExceeded")
    assert w.error(run)["message"] == f"run {run.public_id} was over its deadline of 1h"
    assert {w.step_state(run, name) for name in ("b", "c")} == {StepState.CANCELLED}
    assert not w.tasks()


def test_deadline_counts_from_the_start_of_the_run_also_after_a_restart() -> None:
    w = world(limited(step("a")))
    run = w.start()
    before = run.deadline_time
    w.sleep_until(run.created_at + 100)
    w.crash()
    assert w.live[run.id].deadline_time == before == run.created_at + HOUR


@pytest.mark.parametrize("crashes", [False, True])
def test_run_over_its_deadline_undoes_tells_and_closes_and_ends_as_failed(*, crashes: bool) -> None:
    tell = closing("on_failure", "tell", why=ref("$failure"))
    made = limited(undone("a"), event_step("b", "k", after=["a"]), tell, closing("finally", "last"), compensate=True)
    w = World({"w": made}, failing())
    run = w.start()
    w.run_step("a")
    w.expire_run(run)
    assert w.open_steps() == ["undo_a"]
    if crashes:
        w.crash()
    w.run_step("undo_a")
    w.run_step("tell")
    w.run_step("last")
    assert w.state(run) is RunState.FAILED
    assert told(w, run) == ("b", "DeadlineExceeded")
    row = w.step_row(run, "tell")
    assert row is not None
    assert b'"type":"DeadlineExceeded"' in (row.result or b"")


def test_deadline_is_no_failure_that_is_recovered_from_inside_of_the_run() -> None:
    caught = choice("recover", "caught", [{"value": ref("slow"), "steps": ["slow"]}])
    w = world(limited(step("slow"), caught, step("after", {"x": ref("caught")})))
    run = w.start()
    w.expire_run(run)
    assert told(w, run) == ("caught", "DeadlineExceeded")
    assert w.state(run) is RunState.FAILED


def test_step_that_had_failed_before_is_what_the_run_failed_of() -> None:
    w = world(limited(step("bad"), step("slow")), "bad")
    run = w.start()
    w.run_step("bad")
    w.expire_run(run)
    assert w.state(run) is RunState.FAILED
    assert told(w, run) == ("bad", "ValueError")


def test_run_that_undoes_or_closes_by_then_ends_as_it_would_have() -> None:
    w = world(limited(step("a"), closing("finally", "last")))
    run = w.start()
    w.run_step("a")
    w.expire_run(run)
    w.run_step("last")
    assert w.state(run) is RunState.SUCCEEDED

    w = world(limited(undone("a"), step("b", {"x": ref("a")}), compensate=True))
    run = w.start()
    w.run_step("a")
    w.cancel(run)
    w.expire_run(run)
    w.finish()
    assert w.state(run) is RunState.CANCELLED


def test_element_of_a_map_that_is_open_is_cancelled_and_the_map_fails() -> None:
    w = world(limited(step("m", {"x": ref("$input", "xs")}, over="x")))
    run = w.start(input_=b'{"xs":[1,2,3]}')
    w.expire_run(run)
    assert told(w, run) == ("m", "DeadlineExceeded")
    assert w.step_state(run, "m") is StepState.FAILED
    assert not w.tasks()


def test_sub_run_over_its_deadline_fails_the_step_that_called_it() -> None:
    child = limited(step("first"), name="child")
    w = with_child(child, call("sub"), step("after", {"x": ref("sub")}))
    run = w.start()
    w.expire_run(w.sub_run("sub"))
    assert w.state(run) is RunState.FAILED
    assert told(w, run) == ("sub", "DeadlineExceeded")


@pytest.mark.parametrize("crashes", [False, True])
def test_run_over_its_deadline_waits_until_a_sub_run_has_undone_what_it_did(*, crashes: bool) -> None:
    child = build_plan(
        definition("child", [undone("a"), step("b", {"x": ref("a")})], None) | {"compensate": True}, Digest("child"), {}
    )
    made = limited(call("sub"), step("slow"), children={"child": child})
    w = World({"w": made, "child": child}, failing())
    run = w.start()
    w.run_step("a", w.sub_run("sub"))
    w.expire_run(run)
    assert w.open_steps() == ["undo_a"]
    if crashes:
        w.crash()
    w.finish()
    assert w.state(run) is RunState.FAILED
    assert told(w, run) == ("slow", "DeadlineExceeded")


def test_workflow_without_a_deadline_has_none() -> None:
    assert World({"w": plan([step("a")])}, identity).start().deadline_time is None


@many
@given(flows(), SEEDS, TURNS, st.booleans())
def test_whatever_happens_a_run_over_its_deadline_fails_and_undoes_exactly_what_was_done(
    flow: Flow, seed: int, turns: int, is_below: bool
) -> None:
    flow = compensating(flow)
    flow = Flow({name: body | {"deadline": HOUR} for name, body in flow.definitions.items()}, flow.conducts)
    w = World(flow.plans(), flow.execute, seed=seed, limits=LIMITS, haste=seed % 3 / 2)
    run = w.start(MAIN)
    for _ in range(turns):
        w.turn(FAULTS)
    below = [each for each in w.live.values() if (each.parent is not None) == is_below]
    if not below:
        return
    late = min(below, key=lambda each: each.id)
    had_got_far = late.ending is not None
    w.expire_run(late)
    w.finish(FAULTS)
    if not had_got_far:
        assert w.state(late) is RunState.FAILED
        if not is_below:
            assert w.state(run) is RunState.FAILED
    assert_undone(w)
