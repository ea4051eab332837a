"""What each event does to a run, one sentence at a time."""

from typing import Any

import msgspec
import pytest

from hopline_engine.core.decision import Limits
from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import AttemptState, RunState, StepState, TaskState
from hopline_engine.core.plan import Plan
from hopline_engine.core.retry import Failure
from tests.core.worlds import ACCEPT, Execute, Outcome, Sent, World, plan, ref, step

BROKEN = Failure("ValueError", "broken", ("ValueError", "Exception"))


def failing(*names: str) -> Execute:
    """Return an executor under which these steps fail and all others return their arguments."""

    def execute(task: LiveTask, arguments: dict[str, Any]) -> Outcome:
        return BROKEN if task.name in names else msgspec.json.encode(arguments)

    return execute


def identity(_: LiveTask, arguments: dict[str, Any]) -> Outcome:
    """Return the one argument of a step."""
    return msgspec.json.encode(next(iter(arguments.values()), None))


def world(*nodes: dict[str, Any], result: Any = None, execute: Execute = identity, **more: Any) -> World:
    return World({"w": plan(list(nodes), result)}, execute, **more)


def with_child(child: Plan, *nodes: dict[str, Any], result: Any = None, execute: Execute = identity) -> World:
    return World({"w": plan(list(nodes), result, {child.name: child}), child.name: child}, execute)


CHILD = plan(
    [step("first", {"x": ref("$input", "v")}), step("second", {"x": ref("first")})], ref("second"), name="child"
)


def call(name: str = "sub", v: Any = 1, **more: Any) -> dict[str, Any]:
    """Return a step that runs the child workflow."""
    return step(name, {"v": v}, workflow=("child", "child"), **more)


# --- one step -------------------------------------------------------------------------------------------------------


def test_success_records_the_result_and_opens_what_follows() -> None:
    w = world(step("a", {"x": 1}), step("b", {"x": ref("a")}), result=ref("b"))
    run = w.start()
    assert w.open_steps() == ["a"]
    w.run_step("a")
    assert w.open_steps() == ["b"]
    row = w.step_row(run, "a")
    assert row is not None
    assert (row.state, row.result, row.attempts) == ("succeeded", b"1", 1)
    w.run_step("b")
    assert w.state(run) is RunState.SUCCEEDED
    assert w.result(run) == 1


def test_failed_attempt_waits_for_its_retry_and_then_runs_again() -> None:
    w = world(step("a", attempts=3), execute=failing("a"))
    run = w.start()
    w.run_step("a")
    assert w.step_state(run, "a") is StepState.SCHEDULED
    assert w.task("a").schedule_time == w.now + 1.0
    w.run_step("a")
    assert w.task("a").schedule_time == w.now + 2.0
    w.execute = identity
    w.run_step("a")
    assert w.state(run) is RunState.SUCCEEDED
    assert w.attempts(run, "a") == ["failed", "failed", "succeeded"]


def test_final_failure_closes_descendants_and_nothing_else() -> None:
    w = world(
        step("bad"),
        step("child", {"x": ref("bad")}),
        step("grandchild", after=["child"]),
        step("good"),
        step("after_good", after=["good"]),
        execute=failing("bad"),
    )
    run = w.start()
    w.run_step("bad")
    assert w.step_state(run, "child") is StepState.UPSTREAM_FAILED
    assert w.step_state(run, "grandchild") is StepState.UPSTREAM_FAILED
    assert w.open_steps() == ["good"]
    assert w.state(run) is RunState.RUNNING
    w.finish()
    assert w.step_state(run, "after_good") is StepState.SUCCEEDED
    assert w.state(run) is RunState.FAILED
    assert w.error(run) == {"step": "bad", "type": "ValueError", "message": "broken", "status": None}


def test_failure_that_cannot_be_helped_is_not_tried_again() -> None:
    w = world(step("a", attempts=5))
    run = w.start()
    w.lease(w.task("a"))
    w.fail(w.task("a"), BROKEN._replace(final=True))
    assert w.state(run) is RunState.FAILED
    assert w.attempts(run, "a") == ["failed"]


def test_attempt_that_timed_out_is_recorded_as_such() -> None:
    w = world(step("a", attempts=2))
    run = w.start()
    w.lease(w.task("a"))
    w.fail(w.task("a"), BROKEN, AttemptState.TIMED_OUT)
    assert w.attempts(run, "a") == ["timed_out"]
    assert w.step_state(run, "a") is StepState.SCHEDULED


def test_run_without_steps_ends_as_it_begins() -> None:
    w = world(result={"shop": "Kiel"})
    run = w.start()
    assert w.state(run) is RunState.SUCCEEDED
    assert w.result(run) == {"shop": "Kiel"}


def test_run_whose_result_lacks_a_path_fails() -> None:
    w = world(step("a", {"x": {"n": 1}}), result=ref("a", "m"))
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "a") is StepState.SUCCEEDED
    error = w.error(run)
    assert (error["step"], error["type"]) == ("result", "BindingError")
    assert "['m']" in error["message"]


def test_request_that_cannot_be_made_fails_the_step_at_once() -> None:
    w = world(step("a", attempts=5), step("b", after=["a"]))
    run = w.start()
    w.lease(w.task("a"))
    w.reject(w.task("a"), Failure("BindingError", "no ['x']", ("BindingError",), final=True))
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "b") is StepState.UPSTREAM_FAILED


# --- attempts that did not count ------------------------------------------------------------------------------------


def test_attempt_that_reached_nobody_leaves_no_trace() -> None:
    w = world(step("a"))
    run = w.start()
    w.lease(w.task("a"))
    w.sleep_until(w.now + 5.0)
    w.unlease(w.task("a"))
    task = w.task("a")
    assert (task.attempt, task.first_attempt_at, task.state) == (0, None, TaskState.SCHEDULED)
    assert task.schedule_time == w.now
    assert w.step_state(run, "a") is StepState.QUEUED
    w.run_step("a")
    assert w.attempts(run, "a") == ["succeeded"]


def test_lost_attempt_is_tried_again_without_using_up_the_policy() -> None:
    w = world(step("a", attempts=1))
    run = w.start()
    for _ in range(3):
        w.lease(w.task("a"))
        w.lose(w.task("a"))
    assert w.task("a").made == 0
    w.run_step("a")
    assert w.attempts(run, "a") == ["lost", "lost", "lost", "succeeded"]
    assert w.state(run) is RunState.SUCCEEDED


def test_step_that_is_lost_too_often_fails() -> None:
    w = world(step("a", attempts=100), limits=Limits(lost_limit=3))
    run = w.start()
    for _ in range(3):
        w.lease(w.task("a"))
        w.lose(w.task("a"))
    assert w.state(run) is RunState.FAILED
    assert w.error(run)["type"] == "AttemptLost"
    assert "lost 3 times" in w.error(run)["message"]


def test_losses_come_at_growing_distances() -> None:
    w = world(step("a"))
    w.start()
    waits = []
    for _ in range(6):
        w.lease(w.task("a"))
        w.lose(w.task("a"))
        waits.append(w.task("a").schedule_time - w.now)
    assert waits[0] == 0.0
    assert waits[5] > 4 * waits[1] > 0.0


def test_attempt_lost_after_the_deadline_fails_the_step() -> None:
    w = world(step("a", deadline=10.0))
    run = w.start()
    w.lease(w.task("a"))
    w.sleep_until(w.now + 10.0)
    w.lose(w.task("a"))
    assert w.state(run) is RunState.FAILED
    assert w.error(run)["type"] == "DeadlineExceeded"
    assert w.attempts(run, "a") == ["lost"]


def test_restart_loses_what_was_sent_and_keeps_what_was_not() -> None:
    w = world(step("sent"), step("unsent"), step("accepted"), execute=lambda task, _: ACCEPT)
    run = w.start()
    w.lease(w.task("sent"))
    w.run_step("accepted")
    w.crash()
    assert w.attempts(run, "sent") == ["lost"]
    assert w.task("unsent").attempt == 0
    assert w.task("accepted").state is TaskState.ACCEPTED


# --- deadlines ------------------------------------------------------------------------------------------------------


def test_step_whose_deadline_comes_before_its_first_attempt_fails() -> None:
    w = world(step("a", deadline=5.0))
    run = w.start()
    w.expire(w.task("a"))
    assert w.state(run) is RunState.FAILED
    assert w.error(run)["message"] == "its deadline passed before its first attempt"
    assert w.attempts(run, "a") == []


def test_deadline_names_the_failure_that_came_before_it() -> None:
    w = world(step("a", deadline=1.5, attempts=5), execute=failing("a"))
    run = w.start()
    w.run_step("a")
    w.expire(w.task("a"))
    message = "its deadline passed after 1 attempts; the last one failed with ValueError: broken"
    assert w.error(run)["message"] == message


def test_retry_that_would_come_after_the_deadline_is_not_waited_for() -> None:
    w = world(step("a", attempts=5, deadline=0.5), execute=failing("a"))
    run = w.start()
    w.run_step("a")
    assert w.state(run) is RunState.FAILED
    assert w.error(run)["type"] == "ValueError"


def test_deadline_of_an_element_begins_when_it_is_opened() -> None:
    w = world(step("m", {"x": [1, 2]}, over="x", deadline=10.0, max_parallel=1))
    w.start()
    w.sleep_until(w.now + 5.0)
    w.run_step("m[0]")
    assert w.task("m[1]").deadline_time == w.now + 10.0


# --- callbacks ------------------------------------------------------------------------------------------------------


def test_accepted_step_waits_and_ends_with_its_callback() -> None:
    w = world(step("a"), step("b", {"x": ref("a")}), result=ref("b"), execute=lambda task, _: ACCEPT)
    run = w.start()
    w.run_step("a")
    assert w.step_state(run, "a") is StepState.WAITING
    w.execute = lambda task, _: b'"paid"'
    w.answer(w.task("a"))
    assert w.attempts(run, "a") == ["succeeded"]
    w.finish()
    assert w.result(run) == "paid"


def test_wait_for_a_callback_always_has_an_end() -> None:
    w = world(step("a"), execute=lambda task, _: ACCEPT, limits=Limits(accepted_timeout=60.0))
    run = w.start()
    w.run_step("a")
    assert w.task("a").deadline_time == w.now + 60.0
    w.expire(w.task("a"))
    assert w.state(run) is RunState.FAILED
    assert w.attempts(run, "a") == ["timed_out"]


def test_wait_for_a_callback_keeps_the_deadline_of_the_step() -> None:
    w = world(step("a", deadline=10.0), execute=lambda task, _: ACCEPT)
    run = w.start()
    begun = w.now
    w.run_step("a")
    assert w.task("a").deadline_time == begun + 10.0
    w.expire(w.task("a"))
    assert w.error(run)["type"] == "DeadlineExceeded"


def test_failed_callback_is_tried_again_by_the_policy() -> None:
    w = world(step("a", attempts=2), execute=lambda task, _: ACCEPT)
    run = w.start()
    w.run_step("a")
    w.fail(w.task("a"), BROKEN)
    assert w.step_state(run, "a") is StepState.SCHEDULED
    w.execute = lambda task, _: b"1"
    w.run_step("a")
    assert w.attempts(run, "a") == ["failed", "succeeded"]


def test_alarm_of_a_wait_that_is_over_is_set_anew_for_the_next_one() -> None:
    w = world(step("a", attempts=3), execute=lambda task, _: ACCEPT)
    w.start()
    w.run_step("a")
    w.task("a").has_alarm = True  # as the coordinator notes
    w.fail(w.task("a"), BROKEN)
    assert not w.task("a").has_alarm


def test_each_attempt_has_the_whole_time_to_be_called_back() -> None:
    w = world(step("a", attempts=3), execute=lambda task, _: ACCEPT, limits=Limits(accepted_timeout=60.0))
    w.start()
    w.run_step("a")
    w.sleep_until(w.now + 50.0)
    w.fail(w.task("a"), BROKEN)
    assert w.task("a").deadline_time is None, "a retry without a deadline has none"
    w.run_step("a")
    assert w.task("a").deadline_time == w.now + 60.0


# --- maps -----------------------------------------------------------------------------------------------------------


def test_map_runs_every_item_and_collects_results_in_order() -> None:
    w = world(step("m", {"x": [3, 1, 2]}, over="x"), result=ref("m"))
    run = w.start()
    assert w.open_steps() == ["m[0]", "m[1]", "m[2]"]
    for name in ("m[1]", "m[2]", "m[0]"):
        w.run_step(name)
    assert w.result(run) == [3, 1, 2]


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


# --- sub-workflows --------------------------------------------------------------------------------------------------


def test_sub_workflow_runs_as_a_run_of_its_own() -> None:
    w = with_child(CHILD, call(v=7), step("after", {"x": ref("sub")}), result=ref("after"))
    run = w.start()
    sub = w.sub_run("sub")
    row = w.rows.runs[sub.id]
    assert (row.parent_id, row.workflow, row.input) == (run.id, "child", b'{"v":7}')
    assert w.step_state(run, "sub") is StepState.RUNNING
    w.finish()
    assert w.state(sub) is RunState.SUCCEEDED
    assert w.result(run) == 7


def test_mapped_sub_workflows_nest_maps() -> None:
    inner = plan([step("m", {"x": ref("$input", "v")}, over="x")], ref("m"), name="child")
    w = with_child(inner, call(v=[[1, 2], [], [3]], over="v"), result=ref("sub"))
    run = w.start()
    w.finish()
    assert w.result(run) == [[1, 2], [], [3]]


def test_failed_sub_run_fails_its_step_and_says_where() -> None:
    w = with_child(CHILD, call(), step("after", after=["sub"]), execute=failing("second"))
    run = w.start()
    sub = w.sub_run("sub")
    w.finish()
    assert w.state(sub) is RunState.FAILED
    assert w.step_state(run, "sub") is StepState.FAILED
    assert w.step_state(run, "after") is StepState.UPSTREAM_FAILED
    error = w.error(run)
    assert error["step"] == "sub"
    assert error["message"] == f"step second of run {sub.public_id}: broken"


def test_failed_element_that_is_a_sub_run_fails_the_map() -> None:
    w = with_child(CHILD, call(v=[1, 2], over="v"), execute=failing("first"))
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "sub") is StepState.FAILED


def test_sub_run_whose_input_cannot_be_bound_fails_its_step() -> None:
    w = with_child(CHILD, step("a", {"x": {}}), call(v=ref("a", "missing")))
    run = w.start()
    w.run_step("a")
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "sub") is StepState.FAILED
    assert len(w.rows.runs) == 1


def test_mapped_sub_run_whose_input_cannot_be_bound_fails_the_map() -> None:
    node = step("sub", {"v": [1, 2, 3], "w": ref("a", "missing")}, over="v", workflow=("child", "child"))
    w = with_child(CHILD, step("a", {"x": {}}), node)
    run = w.start()
    w.run_step("a")
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "sub[0]") is StepState.FAILED
    assert w.step_row(run, "sub[1]") is None


def test_cancelled_sub_run_fails_the_step_that_waits_for_it() -> None:
    w = with_child(CHILD, call(), step("other"))
    run = w.start()
    w.cancel(w.sub_run("sub"))
    assert w.step_state(run, "sub") is StepState.FAILED
    assert w.open_steps() == ["other"]
    w.finish()
    assert w.error(run)["type"] == "Cancelled"


def test_sub_workflow_without_steps_has_its_result_at_once() -> None:
    empty = plan([], ref("$input", "v"), name="child")
    w = with_child(empty, call(v=3), step("after", {"x": ref("sub")}), result=ref("after"))
    run = w.start()
    assert w.step_state(run, "sub") is StepState.SUCCEEDED
    w.finish()
    assert w.result(run) == 3


def test_thousands_of_sub_workflows_without_steps_end_in_one_decision() -> None:
    empty = plan([], ref("$input", "v"), name="child")
    w = with_child(empty, call(v=ref("$input", "all"), over="v"), result=ref("sub"))
    everything = list(range(5000))
    run = w.start(input_=msgspec.json.encode({"all": everything}))
    assert w.state(run) is RunState.SUCCEEDED
    assert w.result(run) == everything


def test_thousands_of_sub_workflows_without_steps_follow_a_map() -> None:
    empty = plan([], ref("$input", "v"), name="child")
    w = with_child(
        empty,
        call("first", ref("$input", "all"), over="v"),
        call("second", ref("first"), over="v"),
        result=ref("second"),
    )
    everything = list(range(2000))
    run = w.start(input_=msgspec.json.encode({"all": everything}))
    assert w.result(run) == everything


def test_sub_workflow_without_steps_and_with_a_bad_result_fails_its_step() -> None:
    bad = plan([], ref("$input", "missing"), name="child")
    w = with_child(bad, call(), step("after", after=["sub"]))
    run = w.start()
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "after") is StepState.UPSTREAM_FAILED


def test_long_chain_of_sub_workflows_without_steps_ends_in_one_decision() -> None:
    empty = plan([], 1, name="child")
    nodes = [call("s0000"), *(call(f"s{n:04}", ref(f"s{n - 1:04}")) for n in range(1, 2000))]
    w = with_child(empty, *nodes)
    run = w.start()
    assert w.state(run) is RunState.SUCCEEDED


def test_sub_runs_of_sub_runs_end_their_parents() -> None:
    leaf = plan([step("leaf", {"x": ref("$input", "v")})], ref("leaf"), name="leaf_flow")
    middle = plan(
        [step("inner", {"v": ref("$input", "v")}, workflow=("leaf_flow", "leaf_flow"))],
        ref("inner"),
        {"leaf_flow": leaf},
        "child",
    )
    top = plan([call(v=9)], ref("sub"), {"child": middle})
    w = World({"w": top, "child": middle, "leaf_flow": leaf}, identity)
    run = w.start()
    assert len(w.live) == 3
    w.run_step("leaf")
    assert w.result(run) == 9
    assert w.live == {}


# --- cancel ---------------------------------------------------------------------------------------------------------


def busy_world() -> tuple[World, LiveRun]:
    """Return a world with a step of a run in each state."""
    w = with_child(
        CHILD,
        step("accepted"),
        step("leased"),
        step("queued"),
        step("retrying", attempts=5),
        step("done"),
        step("pending", after=["queued"]),
        step("m", {"x": [1, 2, 3]}, over="x", max_parallel=2),
        call(),
    )
    run = w.start()
    w.execute = lambda task, _: ACCEPT
    w.run_step("accepted")
    w.execute = failing("retrying")
    w.run_step("retrying")
    w.run_step("done")
    w.run_step("m[0]")
    w.lease(w.task("leased"))
    w.lease(w.task("m[1]"))
    return w, run


def test_cancel_ends_the_run_its_sub_runs_and_every_open_step() -> None:
    w, run = busy_world()
    sub = w.sub_run("sub")
    w.cancel(run)
    assert w.state(run) is RunState.CANCELLED
    assert w.state(sub) is RunState.CANCELLED
    assert w.rows.tasks == {}
    names = ("accepted", "leased", "queued", "retrying", "pending", "m", "m[1]", "m[2]", "sub")
    assert {name: w.step_state(run, name) for name in names} == dict.fromkeys(names, StepState.CANCELLED)
    assert w.step_state(run, "done") is StepState.SUCCEEDED
    assert w.step_state(run, "m[0]") is StepState.SUCCEEDED
    assert w.step_state(sub, "first") is StepState.CANCELLED
    assert w.step_state(sub, "second") is StepState.CANCELLED


def test_cancel_records_the_attempts_that_were_under_way() -> None:
    w, run = busy_world()
    w.cancel(run)
    assert w.attempts(run, "leased") == ["cancelled"]
    assert w.attempts(run, "accepted") == ["cancelled"]
    assert w.attempts(run, "retrying") == ["failed"]
    assert w.attempts(run, "queued") == []


def test_nothing_starts_after_a_cancel() -> None:
    w, run = busy_world()
    w.cancel(run)
    assert w.tasks() == []
    assert next(run.units(), None) is None, "a late answer finds nothing to apply to"
    before = list(w.sent)
    w.crash()
    w.finish()
    assert w.sent == before


def test_cancel_leaves_other_runs_alone() -> None:
    w = world(step("a", {"x": 1}), result=ref("a"))
    cancelled, other = w.start(), w.start()
    w.cancel(cancelled)
    w.finish()
    assert w.state(cancelled) is RunState.CANCELLED
    assert w.state(other) is RunState.SUCCEEDED
    assert w.sent == [Sent(other.id, "a", 1)]


# --- ends -----------------------------------------------------------------------------------------------------------


def test_first_failure_is_the_reason_of_the_run() -> None:
    w = world(step("a"), step("b"), execute=failing("a", "b"))
    run = w.start()
    w.run_step("b")
    w.run_step("a")
    assert w.error(run)["step"] == "b"


@pytest.mark.parametrize("seed", range(5))
def test_first_failure_stays_the_reason_after_a_restart(seed: int) -> None:
    w = world(step("a"), step("b"), step("c"), step("d"), execute=failing("b", "c", "d"), seed=seed)
    run = w.start()
    for name in ("c", "b", "d"):
        w.sleep_until(w.now + 1.0)
        w.run_step(name)
    w.crash()
    w.run_step("a")
    assert w.error(run)["step"] == "c"


def test_step_that_is_never_called_is_not_recorded_as_begun() -> None:
    w = world(step("a"), step("b", after=["a"]), execute=failing("a"))
    run = w.start()
    w.finish()
    row = w.step_row(run, "b")
    assert row is not None
    assert (row.attempts, row.started_at, row.result, row.error) == (0, None, None, None)


def test_chain_of_ten_thousand_steps_closes_without_recursion() -> None:
    nodes = [step("s00000"), *(step(f"s{n:05}", after=[f"s{n - 1:05}"]) for n in range(1, 10_000))]
    w = world(*nodes, execute=failing("s00000"))
    run = w.start()
    w.run_step("s00000")
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "s09999") is StepState.UPSTREAM_FAILED
