"""The steps that a run closes with, one sentence at a time."""

from typing import Any

import msgspec
import pytest

from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import RunState, StepState
from hopline_engine.core.plan import PlanError
from tests.core.small_worlds import BROKEN, call, failing, with_child, world
from tests.core.worlds import Outcome, choice, closing, plan, ref, step

TOLD = closing("on_failure", "told", why=ref("$failure"), x=ref("$input", "x"))
LAST = closing("finally", "last", x=ref("$input", "x"))


def test_run_that_failed_tells_and_then_closes() -> None:
    w = world(step("bad", attempts=2), step("slow"), TOLD, LAST, execute=failing("bad"))
    run = w.start(input_=b'{"x":7}')
    w.run_step("bad")
    w.run_step("bad")
    assert w.open_steps() == ["slow"]
    w.run_step("slow")
    assert w.state(run) is RunState.RUNNING
    assert w.open_steps() == ["told"]
    w.run_step("told")
    assert w.open_steps() == ["last"]
    w.run_step("last")
    assert w.state(run) is RunState.FAILED
    assert w.error(run)["step"] == "bad"
    row = w.step_row(run, "told")
    assert row is not None
    given = msgspec.json.decode(row.result or b"")
    assert given["x"] == 7
    assert {name: given["why"][name] for name in ("step", "error", "type", "attempts", "run")} == {
        "step": "bad",
        "error": "broken",
        "type": "ValueError",
        "attempts": 2,
        "run": run.public_id,
    }


def test_run_that_succeeded_closes_without_telling() -> None:
    w = world(step("a", {"x": 5}), TOLD, LAST, result=ref("a"))
    run = w.start(input_=b'{"x":7}')
    w.run_step("a")
    assert w.step_state(run, "told") is StepState.SKIPPED
    assert w.open_steps() == ["last"]
    w.run_step("last")
    assert (w.state(run), w.result(run)) == (RunState.SUCCEEDED, 5)


def test_result_that_cannot_be_put_together_is_a_failure_that_is_told() -> None:
    w = world(step("a", {"x": {}}), TOLD, result=ref("a", "gone"))
    run = w.start(input_=b'{"x":7}')
    w.run_step("a")
    assert w.open_steps() == ["told"]
    w.crash()
    w.run_step("told")
    assert (w.state(run), w.error(run)["step"]) == (RunState.FAILED, "result")


@pytest.mark.parametrize("body", [(), ("bad",)])
def test_failure_of_a_closing_step_is_seen_and_changes_nothing(body: tuple[str, ...]) -> None:
    w = world(step("a"), step("bad"), TOLD, LAST, execute=failing("told", "last", *body))
    run = w.start(input_=b'{"x":7}')
    w.finish()
    assert w.state(run) is (RunState.FAILED if body else RunState.SUCCEEDED)
    assert w.step_state(run, "last") is StepState.FAILED
    if body:
        assert w.error(run)["step"] == "bad"


def test_failure_that_was_recovered_from_is_not_told() -> None:
    caught = choice("recover", "caught", [{"value": None, "steps": ["bad"]}])
    w = world(step("bad"), caught, TOLD, execute=failing("bad"))
    run = w.start(input_=b'{"x":7}')
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED
    assert w.step_state(run, "told") is StepState.SKIPPED


def test_cancelled_run_closes_and_ends_as_cancelled_even_after_a_crash() -> None:
    w = world(step("a"), TOLD, LAST)
    run = w.start(input_=b'{"x":7}')
    w.lease(w.task("a"))
    w.cancel(run)
    assert w.step_state(run, "a") is StepState.CANCELLED
    assert w.step_state(run, "told") is StepState.SKIPPED
    assert w.open_steps() == ["last"]
    w.crash()
    w.finish()
    assert w.state(run) is RunState.CANCELLED
    assert w.step_state(run, "last") is StepState.SUCCEEDED


def test_cancel_while_it_closes_cuts_that_off_and_changes_nothing_else() -> None:
    w = world(step("bad"), TOLD, LAST, execute=failing("bad"))
    run = w.start(input_=b'{"x":7}')
    w.run_step("bad")
    w.cancel(run)
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "told") is StepState.CANCELLED
    assert w.step_state(run, "last") is StepState.CANCELLED


CLOSING_CHILD = plan([step("first"), closing("finally", "last", v=ref("$input", "v"))], ref("first"), name="child")


def test_run_above_waits_until_a_sub_run_has_closed() -> None:
    w = with_child(CLOSING_CHILD, call("sub"), step("after", {"x": ref("sub")}), execute=failing("first"))
    run = w.start(input_=b"{}")
    sub = w.sub_run("sub")
    w.run_step("first", sub)
    assert w.open_steps() == ["last"]
    assert w.step_state(run, "sub") is StepState.RUNNING
    w.finish()
    assert w.state(run) is RunState.FAILED


@pytest.mark.parametrize("crashes", [False, True])
def test_cancelled_run_waits_until_its_sub_runs_have_closed(crashes: bool) -> None:
    w = with_child(CLOSING_CHILD, call("sub"), step("other"), call("again", after=["other"]), LAST)
    run = w.start(input_=b'{"x":7}')
    sub = w.sub_run("sub")
    w.cancel(run)
    assert w.step_state(run, "other") is StepState.CANCELLED
    assert w.step_state(run, "sub") is StepState.RUNNING
    assert w.open_steps() == ["last"]
    if crashes:
        w.crash()
    w.run_step("last")
    assert w.state(sub) is RunState.CANCELLED
    assert w.step_state(run, "sub") is StepState.CANCELLED
    assert w.open_steps() == ["last"]
    w.finish()
    assert w.state(run) is RunState.CANCELLED


def test_step_that_tells_goes_on_after_a_crash_although_the_run_above_was_cancelled_meanwhile() -> None:
    child = plan([step("first"), closing("on_failure", "told"), closing("finally", "last")], name="child")
    w = with_child(child, call("sub"), execute=failing("first"))
    run = w.start()
    sub = w.sub_run("sub")
    w.run_step("first", sub)
    w.cancel(run)
    assert w.open_steps() == ["told"]
    w.crash()
    assert w.open_steps() == ["told"]
    w.finish()
    assert [w.step_state(sub, name) for name in ("told", "last")] == [StepState.SUCCEEDED] * 2
    assert (w.state(sub), w.state(run)) == (RunState.CANCELLED, RunState.CANCELLED)


def test_retry_closes_a_sub_run_of_which_everything_else_is_kept() -> None:
    w = with_child(CLOSING_CHILD, call("sub"))
    first = w.start()
    w.run_step("first")
    w.cancel(first)
    w.cancel(w.live[first.id])
    assert w.live == {}
    second = w.start(earlier=w.earlier(first.id))
    assert w.open_steps() == ["last"]
    w.finish()
    assert w.state(second) is RunState.SUCCEEDED


def test_sub_run_that_does_nothing_else_closes() -> None:
    w = with_child(plan([closing("finally", "last")], name="child"), call("sub"))
    run = w.start()
    assert w.open_steps() == ["last"]
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED


def test_cancel_of_a_run_above_lets_a_sub_run_close_that_closes_already() -> None:
    w = with_child(CLOSING_CHILD, call("sub"), step("after", {"x": ref("sub")}))
    run = w.start()
    w.run_step("first")
    assert w.open_steps() == ["last"]
    w.cancel(run)
    assert w.open_steps() == ["last"]
    w.finish()
    assert w.state(run) is RunState.CANCELLED
    assert w.step_state(run, "after") is StepState.CANCELLED


def test_sub_run_that_lost_a_race_closes_while_the_run_goes_on() -> None:
    race = choice("first", "race", [{"value": ref("fast"), "steps": ["fast"]}, {"value": ref("sub"), "steps": ["sub"]}])
    w = with_child(CLOSING_CHILD, step("fast"), call("sub"), race, step("after", {"x": ref("race")}))
    run = w.start(input_=b"{}")
    sub = w.sub_run("sub")
    w.run_step("fast")
    assert w.open_steps() == ["after", "last"]
    w.run_step("after")
    assert w.state(run) is RunState.SUCCEEDED
    w.crash()
    w.finish()
    assert w.state(sub) is RunState.CANCELLED


def test_step_of_a_run_that_somebody_cancelled_fails_when_that_has_closed() -> None:
    w = with_child(CLOSING_CHILD, call("sub"))
    run = w.start(input_=b"{}")
    w.cancel(w.sub_run("sub"))
    assert w.step_state(run, "sub") is StepState.RUNNING
    w.finish()
    assert (w.state(run), w.error(run)["type"]) == (RunState.FAILED, "Cancelled")


def test_retry_tells_and_closes_again() -> None:
    w = world(step("good"), step("bad"), TOLD, LAST, execute=failing("bad"))
    first = w.start(input_=b'{"x":7}')
    w.finish()
    second = w.start(input_=b'{"x":7}', earlier=w.earlier(first.id))
    w.finish()
    assert w.state(second) is RunState.FAILED
    assert w.attempts(second, "good") == []
    assert w.attempts(second, "told") == w.attempts(second, "last") == ["succeeded"]


def test_waiting_closing_step_is_taken_up_after_a_crash() -> None:
    calls: list[int] = []

    def execute(task: LiveTask, _: dict[str, Any]) -> Outcome:
        if task.name == "last":
            calls.append(task.attempt)
            return BROKEN if len(calls) == 1 else b"1"
        return b"1"

    w = world(step("a"), closing("finally", "last") | {"policy": step("x", attempts=3)["policy"]}, execute=execute)
    run = w.start()
    w.run_step("a")
    w.run_step("last")
    w.crash()
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED
    assert w.attempts(run, "last") == ["failed", "succeeded"]


@pytest.mark.parametrize(
    ("nodes", "result", "message"),
    [
        ([step("a"), closing("finally", "z", x=ref("a"))], None, "input and the failure alone"),
        ([closing("finally", "z", x=ref("$failure"))], None, "input and the failure alone|does not exist"),
        ([closing("finally", "y"), closing("finally", "z")], None, "there can be one"),
        ([closing("finally", "z"), step("a", after=["z"])], None, "'z', which does not exist"),
        ([closing("finally", "z")], ref("z"), "'z', which does not exist"),
        ([step("a", {"x": ref("$failure")})], None, "does not exist"),
    ],
)
def test_closing_step_that_means_nothing_is_refused(nodes: list[dict[str, Any]], result: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(nodes, result)
