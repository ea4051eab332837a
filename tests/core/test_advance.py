"""What each event does to a run, one sentence at a time."""

import pytest

from hopline_engine.core import advance
from hopline_engine.core.decision import Decision, Limits
from hopline_engine.core.live import LiveRun
from hopline_engine.core.model import AttemptState, RunState, StepState, TaskState
from hopline_engine.core.records import record_run
from hopline_engine.core.retry import Failure
from tests.core.small_worlds import BROKEN, CHILD, call, failing, identity, with_child, world
from tests.core.worlds import ACCEPT, Sent, World, ref, step

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


def test_task_that_is_opened_and_leased_by_one_decision_is_one_row() -> None:
    w = world(step("a"), haste=1.0)
    with w.event() as decision:
        run = begun(w, decision)
    assert (len(decision.rows.tasks_added), decision.rows.tasks_moved) == (1, [])
    assert decision.rows.tasks_added[0].state == TaskState.LEASED
    assert w.step_state(run, "a") is StepState.RUNNING


def test_task_that_is_opened_and_closed_by_one_decision_is_no_row() -> None:
    w = world(step("a"))
    with w.event() as decision:
        run = begun(w, decision)
        advance.cancel(run, decision)
    rows = decision.rows
    assert (rows.tasks_added, rows.tasks_moved, rows.tasks_removed) == ([], [], [])
    assert w.state(run) is RunState.CANCELLED


def test_task_that_is_moved_and_closed_by_one_decision_is_only_removed() -> None:
    w = world(step("a"))
    run = w.start()
    task = w.task("a")
    w.lease(task)
    with w.event() as decision:
        advance.unlease(task, decision)
        advance.cancel(run, decision)
    assert decision.rows.tasks_moved == []
    assert [row.id for row in decision.rows.tasks_removed] == [task.id]


def begun(w: World, decision: Decision) -> LiveRun:
    run = LiveRun.fresh(w.ids.next_run(), w.plans["w"], b"{}", w.now, None)
    record_run(run, decision)
    advance.begin(run, decision)
    return run


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


def test_restarts_of_the_engine_never_fail_a_step() -> None:
    w = world(step("a"), limits=Limits(lost_limit=3))
    run = w.start()
    for _ in range(5):
        w.lease(w.task("a"))
        w.crash()
        run = w.live[run.id]
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED
    assert w.attempts(run, "a") == ["lost"] * 5 + ["succeeded"]


def test_restarts_do_not_use_up_what_losses_of_the_worker_are_allowed() -> None:
    w = world(step("a"), limits=Limits(lost_limit=3))
    run = w.start()
    for _ in range(10):
        w.lease(w.task("a"))
        w.crash()
    for _ in range(2):
        w.lease(w.task("a"))
        w.lose(w.task("a"))
    assert (w.task("a").lost, w.task("a").blamed) == (12, 2)
    w.crash()
    assert w.task("a").blamed == 2, "what counts is stored"
    w.lease(w.task("a"))
    w.lose(w.task("a"))
    assert w.state(w.live.get(run.id, run)) is RunState.FAILED
    assert "lost 3 times" in w.error(run)["message"]


def test_step_that_an_engine_left_is_tried_again_at_once() -> None:
    w = world(step("a"))
    w.start()
    for _ in range(5):
        w.lease(w.task("a"))
        w.crash()
        assert w.task("a").schedule_time == w.now


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
    message = "its deadline passed after 1 attempt; the last one failed with ValueError: broken"
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


def test_callback_that_does_not_come_is_tried_again_by_the_policy() -> None:
    w = world(step("a", attempts=2), execute=lambda task, _: ACCEPT, limits=Limits(accepted_timeout=60.0))
    run = w.start()
    w.run_step("a")
    w.expire(w.task("a"))
    assert w.step_state(run, "a") is StepState.SCHEDULED
    assert w.task("a").deadline_time is None, "only the wait was over"
    w.run_step("a")
    w.expire(w.task("a"))
    assert w.attempts(run, "a") == ["timed_out", "timed_out"]
    assert w.error(run)["type"] == "TimeoutError"
    assert "no callback came within 60 s" in w.error(run)["message"]


def test_callback_that_fails_shortly_before_its_time_is_over_is_tried_again_afterwards() -> None:
    w = world(step("a", attempts=2, first=30.0), execute=lambda task, _: ACCEPT, limits=Limits(accepted_timeout=60.0))
    run = w.start()
    w.run_step("a")
    w.sleep_until(w.now + 59.0)
    w.fail(w.task("a"), BROKEN)
    assert w.step_state(run, "a") is StepState.SCHEDULED


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
