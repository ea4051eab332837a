"""Maps whose elements may fail: each element says what became of it, and the map succeeds."""

from typing import Any

import msgspec
import pytest

from hopline_engine.core.decision import Limits
from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import RunState, StepState
from hopline_engine.core.plan import PlanError
from hopline_engine.core.retry import Failure
from tests.core.small_worlds import CHILD, call, failing, identity, with_child, world
from tests.core.worlds import Outcome, World, plan, ref, step

BROKEN = {"err": {"type": "ValueError", "message": "broken", "status": None}}


def settled(name: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**step(name, inputs, over="x", **more), "settled": True}


def some_fail(task: LiveTask, arguments: dict[str, Any]) -> Outcome:
    """Fail the second and the fourth element of each map."""
    return failing()(task, arguments) if task.item not in {1, 3} else failing(task.name)(task, arguments)


def mapped(**more: Any) -> World:
    return world(settled("m", {"x": [0, 1, 2, 3]}), result=ref("m"), execute=some_fail, **more)


def test_failed_elements_are_results_like_the_others() -> None:
    w = mapped()
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED
    assert w.result(run) == [{"ok": {"x": 0}}, BROKEN, {"ok": {"x": 2}}, BROKEN]


def test_rows_say_which_elements_failed() -> None:
    w = mapped()
    run = w.start()
    w.finish()
    assert [w.step_state(run, f"m[{item}]") for item in range(4)] == [
        StepState.SUCCEEDED,
        StepState.FAILED,
        StepState.SUCCEEDED,
        StepState.FAILED,
    ]
    assert w.step_state(run, "m") is StepState.SUCCEEDED


def test_elements_are_opened_after_one_that_failed() -> None:
    w = mapped(limits=Limits(map_window=1))
    run = w.start()
    for item in range(4):
        assert w.open_steps() == [f"m[{item}]"]
        w.run_step(f"m[{item}]")
    assert w.state(run) is RunState.SUCCEEDED


def test_restart_keeps_what_became_of_each_element() -> None:
    w = mapped(limits=Limits(map_window=1))
    run = w.start()
    for _ in range(2):
        w.turn()
        w.turn()
    w.crash()
    assert w.open_steps() == ["m[2]"]
    w.finish()
    assert w.result(run) == [{"ok": {"x": 0}}, BROKEN, {"ok": {"x": 2}}, BROKEN]


def test_status_of_an_answer_is_part_of_what_became_of_it() -> None:
    w = mapped()
    run = w.start()
    w.lease(w.task("m[1]"))
    w.fail(w.task("m[1]"), Failure("HTTP404", "broken", status=404, traceback="long", final=True))
    w.execute = identity
    w.finish()
    assert w.result(run)[1] == {"err": {"type": "HTTP404", "message": "broken", "status": 404}}


def test_step_after_it_gets_the_whole_list() -> None:
    w = world(
        settled("m", {"x": [0, 1]}), step("b", {"x": ref("m", 1, "err", "message")}), result=ref("b"), execute=some_fail
    )
    run = w.start()
    w.run_step("m[0]")
    w.run_step("m[1]")
    w.execute = identity
    w.finish()
    assert w.result(run) == "broken"


def test_map_that_follows_it_has_an_element_for_each_of_both_kinds() -> None:
    w = world(
        settled("a", {"x": [0, 1]}), step("b", {"x": ref("a")}, over="x"), result=ref("b"), execute=failing("a[1]")
    )
    run = w.start()
    w.run_step("a[1]")
    assert w.open_steps() == ["a[0]", "b[1]"]
    w.finish()
    assert w.result(run) == [{"x": {"ok": {"x": 0}}}, {"x": BROKEN}]


def test_settled_map_fails_with_the_map_that_it_follows() -> None:
    w = world(step("a", {"x": [0, 1]}, over="x"), settled("b", {"x": ref("a")}), execute=failing("a[0]"))
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "b") is StepState.UPSTREAM_FAILED


def test_settled_map_over_what_is_no_list_fails() -> None:
    w = world(step("a", {"x": 5}), settled("m", {"x": ref("a")}))
    run = w.start()
    w.run_step("a")
    assert w.step_state(run, "m") is StepState.FAILED


def test_cancelled_and_failed_sub_runs_are_settled_like_steps() -> None:
    w = with_child(CHILD, {**call("m", v=ref("$input", "v"), over="v"), "settled": True}, result=ref("m"))
    run = w.start(input_=b'{"v":[1,2,3]}')
    below = [live for live in w.live.values() if live.parent is not None]
    w.cancel(below[0])
    w.execute = lambda task, arguments: (failing("second") if task.run is below[1] else identity)(task, arguments)
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED
    cancelled, failed, done = w.result(run)
    assert cancelled["err"]["type"] == "Cancelled"
    assert failed["err"]["message"] == f"step second of run {below[1].public_id}: broken"
    assert done == {"ok": 3}


def test_thousands_of_elements_that_cannot_be_begun_are_settled_without_recursion() -> None:
    every = {**call("m", over="x"), "inputs": {"x": ref("$input", "xs"), "v": ref("$input", "missing")}}
    w = with_child(CHILD, {**every, "settled": True}, result=ref("m"))
    run = w.start(input_=msgspec.json.encode({"xs": list(range(5000))}))
    assert w.state(run) is RunState.SUCCEEDED
    assert {result["err"]["type"] for result in w.result(run)} == {"BindingError"}


def test_run_that_goes_on_from_another_keeps_a_settled_map_whole() -> None:
    w = world(settled("m", {"x": [0, 1]}), step("b", {"x": ref("m")}), result=ref("b"), execute=failing("m[0]", "b"))
    first = w.start()
    w.finish()
    assert w.state(first) is RunState.FAILED
    w.execute = failing()
    second = w.start(earlier=w.earlier(first.id))
    assert w.open_steps() == ["b"]
    w.finish()
    assert w.result(second) == {"x": [BROKEN, {"ok": {"x": 1}}]}


def test_only_mapped_steps_are_settled() -> None:
    with pytest.raises(PlanError, match="not mapped"):
        plan([{**step("a"), "settled": True}])
