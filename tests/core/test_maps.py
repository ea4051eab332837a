"""Mapped steps: windows, joins, failures, and maps that follow maps element by element."""

from typing import Any

import msgspec
import pytest

from hopline_engine.core.decision import Limits
from hopline_engine.core.model import RunState, StepState
from tests.core.small_worlds import failing, identity, world
from tests.core.worlds import World, ref, step


def test_map_runs_every_item_and_collects_results_in_order() -> None:
    w = world(step("m", {"x": [3, 1, 2]}, over="x"), result=ref("m"))
    run = w.start()
    assert w.open_steps() == ["m[0]", "m[1]", "m[2]"]
    for name in ("m[1]", "m[2]", "m[0]"):
        w.run_step(name)
    assert w.result(run) == [3, 1, 2]


def test_map_is_recorded_from_its_opening_to_the_end_of_its_last_item() -> None:
    w = world(step("a"), step("m", {"x": [1, 2]}, over="x", after=["a"]))
    run = w.start()
    w.sleep_until(w.now + 1.0)
    w.run_step("a")
    opened = w.now
    w.sleep_until(w.now + 1.0)
    w.run_step("m[0]")
    w.sleep_until(w.now + 1.0)
    w.run_step("m[1]")
    row = w.step_row(run, "m")
    assert row is not None
    assert (row.started_at, row.ended_at, row.result, row.attempts) == (opened, opened + 2.0, None, 0)


def test_map_over_nothing_succeeds_with_an_empty_list() -> None:
    w = world(step("m", {"x": []}, over="x"), step("b", {"x": ref("m")}), result=ref("b"))
    run = w.start()
    assert w.step_state(run, "m") is StepState.SUCCEEDED
    w.finish()
    assert w.result(run) == []


@pytest.mark.parametrize("value", [None, 5, "text", {"a": 1}])
def test_map_over_what_is_no_list_fails_the_step(value: Any) -> None:
    w = world(step("a", {"x": value}), step("m", {"x": ref("a")}, over="x"), step("b", after=["m"]))
    run = w.start()
    w.run_step("a")
    assert w.state(run) is RunState.FAILED
    assert (w.error(run)["step"], w.error(run)["message"]) == ("m", "the value to map over is not a list")
    assert w.step_state(run, "b") is StepState.UPSTREAM_FAILED


def test_map_over_a_path_that_is_missing_fails_the_step() -> None:
    w = world(step("a", {"x": {}}), step("m", {"x": ref("a", "files")}, over="x"))
    run = w.start()
    w.run_step("a")
    assert w.step_state(run, "m") is StepState.FAILED
    assert w.error(run)["type"] == "BindingError"


def test_map_opens_no_more_items_than_max_parallel() -> None:
    w = world(step("m", {"x": [0, 1, 2, 3]}, over="x", max_parallel=2))
    w.start()
    assert w.open_steps() == ["m[0]", "m[1]"]
    w.run_step("m[1]")
    assert w.open_steps() == ["m[0]", "m[2]"]


def test_map_opens_no_more_items_than_the_window_of_the_engine() -> None:
    w = world(step("m", {"x": [0, 1, 2, 3]}, over="x", max_parallel=100), limits=Limits(map_window=3))
    w.start()
    assert w.open_steps() == ["m[0]", "m[1]", "m[2]"]


def test_failed_item_stops_new_items_but_lets_open_ones_finish() -> None:
    w = world(step("m", {"x": [0, 1, 2, 3]}, over="x", max_parallel=2), step("b", after=["m"]), execute=failing("m[0]"))
    run = w.start()
    w.run_step("m[0]")
    assert w.open_steps() == ["m[1]"]
    assert w.step_state(run, "m") is StepState.RUNNING
    w.run_step("m[1]")
    assert w.step_state(run, "m") is StepState.FAILED
    assert w.step_state(run, "m[1]") is StepState.SUCCEEDED
    assert w.step_row(run, "m[2]") is None
    assert w.step_state(run, "b") is StepState.UPSTREAM_FAILED
    assert w.error(run)["step"] == "m"


def test_failed_item_stops_new_items_also_after_a_restart() -> None:
    w = world(step("m", {"x": [0, 1, 2, 3]}, over="x", max_parallel=2), execute=failing("m[0]"))
    run = w.start()
    w.run_step("m[0]")
    w.crash()
    w.finish()
    assert w.state(run) is RunState.FAILED
    assert {sent.step for sent in w.sent} == {"m[0]", "m[1]"}


def test_item_is_retried_while_others_go_on() -> None:
    w = world(step("m", {"x": [0, 1]}, over="x", attempts=2), result=ref("m"), execute=failing("m[0]"))
    run = w.start()
    w.run_step("m[0]")
    w.run_step("m[1]")
    w.execute = identity
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED
    assert w.attempts(run, "m[0]") == ["failed", "succeeded"]


def test_step_after_a_map_waits_for_all_of_it() -> None:
    w = world(step("m", {"x": [0, 1]}, over="x"), step("b", {"x": ref("m", 0)}))
    w.start()
    w.run_step("m[0]")
    assert w.open_steps() == ["m[1]"]
    w.run_step("m[1]")
    assert w.open_steps() == ["b"]


def test_map_takes_its_other_arguments_from_steps_and_input() -> None:
    w = world(
        step("a", {"x": 5}),
        step("m", {"x": [0, 1], "y": ref("a"), "z": ref("$input", "z")}, over="x"),
        result=ref("m"),
        execute=lambda task, arguments: b"5" if task.name == "a" else msgspec.json.encode(arguments),
    )
    run = w.start(input_=b'{"z":7}')
    w.finish()
    assert w.result(run) == [{"x": 0, "y": 5, "z": 7}, {"x": 1, "y": 5, "z": 7}]


# --- maps over maps -------------------------------------------------------------------------------------------------


def pipeline(**more: Any) -> World:
    return world(step("a", {"x": [1, 2, 3]}, over="x"), step("b", {"x": ref("a")}, over="x"), result=ref("b"), **more)


def test_map_over_a_map_starts_each_element_as_soon_as_it_is_there() -> None:
    w = pipeline()
    run = w.start()
    assert w.open_steps() == ["a[0]", "a[1]", "a[2]"]
    w.run_step("a[2]")
    assert w.open_steps() == ["a[0]", "a[1]", "b[2]"]
    w.run_step("b[2]")
    w.finish()
    assert w.result(run) == [1, 2, 3]


def test_map_over_a_map_over_nothing_succeeds() -> None:
    w = world(step("a", {"x": []}, over="x"), step("b", {"x": ref("a")}, over="x"), result=ref("b"))
    run = w.start()
    assert w.result(run) == []


def test_map_over_a_map_that_also_needs_its_whole_waits_for_it() -> None:
    w = world(
        step("a", {"x": [1, 2]}, over="x"),
        step("b", {"x": ref("a"), "all": ref("a")}, over="x"),
        result=ref("b"),
        execute=lambda task, arguments: msgspec.json.encode(arguments if task.node.id == "b" else arguments["x"]),
    )
    run = w.start()
    w.run_step("a[0]")
    assert w.open_steps() == ["a[1]"]
    w.finish()
    assert w.result(run) == [{"x": 1, "all": [1, 2]}, {"x": 2, "all": [1, 2]}]


def test_map_over_a_map_that_opens_late_takes_up_what_is_there() -> None:
    w = world(
        step("slow"),
        step("a", {"x": [1, 2, 3]}, over="x"),
        step("b", {"x": ref("a")}, over="x", after=["slow"]),
        result=ref("b"),
    )
    run = w.start()
    w.run_step("a[1]")
    assert w.open_steps() == ["a[0]", "a[2]", "slow"]
    w.run_step("slow")
    assert w.open_steps() == ["a[0]", "a[2]", "b[1]"]
    w.finish()
    assert w.result(run) == [1, 2, 3]


def test_failed_element_ends_the_following_map_but_lets_its_open_elements_finish() -> None:
    w = pipeline(execute=failing("a[1]"))
    run = w.start()
    w.run_step("a[0]")
    w.run_step("a[1]")
    w.run_step("a[2]")
    assert w.step_state(run, "a") is StepState.FAILED
    assert w.step_state(run, "b") is StepState.RUNNING
    assert w.open_steps() == ["b[0]", "b[2]"]
    w.finish()
    assert w.step_state(run, "b") is StepState.UPSTREAM_FAILED
    assert w.step_state(run, "b[0]") is StepState.SUCCEEDED
    assert w.error(run)["step"] == "a"


def test_following_map_opens_no_more_elements_once_the_map_before_it_has_failed() -> None:
    w = world(
        step("a", {"x": [1, 2, 3]}, over="x"),
        step("b", {"x": ref("a")}, over="x", max_parallel=1),
        execute=failing("a[2]"),
    )
    run = w.start()
    for name in ("a[0]", "a[1]", "a[2]"):
        w.run_step(name)
    w.run_step("b[0]")
    assert w.open_steps() == []
    assert w.step_state(run, "b") is StepState.UPSTREAM_FAILED
    assert w.step_row(run, "b[1]") is None


def test_following_map_without_open_elements_ends_with_the_map_it_follows() -> None:
    w = pipeline(execute=failing("a[0]"))
    run = w.start()
    w.run_step("a[1]")
    w.run_step("b[1]")
    w.run_step("a[0]")
    w.run_step("a[2]")
    w.run_step("b[2]")
    assert w.step_state(run, "b") is StepState.UPSTREAM_FAILED
    assert w.state(run) is RunState.FAILED


@pytest.mark.parametrize("last", [1, 2])
def test_following_map_of_a_failed_map_ends_also_after_a_restart(last: int) -> None:
    w = world(
        step("a", {"x": [1, 2, 3]}, over="x", max_parallel=last),
        step("b", {"x": ref("a")}, over="x"),
        step("c", {"x": ref("b")}, over="x"),
        step("d", after=["c"]),
        execute=failing(f"a[{last}]"),
    )
    run = w.start()
    w.run_step("a[0]")
    w.run_step("b[0]")
    while w.step_state(run, "a") is StepState.RUNNING:
        w.run_step(next(name for name in w.open_steps() if name.startswith("a")))
    assert w.step_state(run, "b") in {StepState.RUNNING, StepState.UPSTREAM_FAILED}
    w.crash()
    w.finish()
    assert w.state(run) is RunState.FAILED
    states = [w.step_state(run, name) for name in "abcd"]
    assert states == [StepState.FAILED, *[StepState.UPSTREAM_FAILED] * 3]


def test_element_that_fails_in_the_following_map_does_not_stop_the_map_before_it() -> None:
    w = pipeline(execute=failing("b[0]"))
    run = w.start()
    w.run_step("a[0]")
    w.run_step("b[0]")
    assert w.step_state(run, "b") is StepState.FAILED
    assert w.open_steps() == ["a[1]", "a[2]"]
    w.finish()
    assert w.step_state(run, "a") is StepState.SUCCEEDED
    assert w.state(run) is RunState.FAILED


def test_two_maps_may_follow_one() -> None:
    w = world(
        step("a", {"x": [1, 2]}, over="x"),
        step("b", {"x": ref("a")}, over="x"),
        step("c", {"x": ref("a")}, over="x"),
        result=[ref("b"), ref("c")],
    )
    run = w.start()
    w.run_step("a[0]")
    assert w.open_steps() == ["a[1]", "b[0]", "c[0]"]
    w.finish()
    assert w.result(run) == [[1, 2], [1, 2]]
