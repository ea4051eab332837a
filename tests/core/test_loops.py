"""Loops: one lap after the other, each with the result of the one before, until a condition holds."""

from typing import Any

import msgspec
import pytest

from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import RunState, StepState, TaskState
from hopline_engine.core.plan import PlanError
from tests.core.small_worlds import CHILD, call, failing, with_child, world
from tests.core.worlds import Outcome, World, loop_step, plan, ref, step


def count(_: LiveTask, arguments: dict[str, Any]) -> Outcome:
    """Return one more than what was given."""
    return msgspec.json.encode(arguments["x"] + 1)


def counting(*nodes: dict[str, Any], **more: Any) -> World:
    return world(*nodes, execute=count, **more)


def test_laps_follow_each_other_until_the_condition_holds() -> None:
    w = counting(loop_step(), step("after", {"x": ref("l")}), result=ref("after"))
    run = w.start()
    for lap in range(3):
        assert w.open_steps() == [f"l[{lap}]"]
        w.run_step(f"l[{lap}]")
    assert w.step_state(run, "l") is StepState.SUCCEEDED
    w.finish()
    assert w.result(run) == 4


def test_first_lap_may_be_the_last() -> None:
    w = counting(loop_step(start=7), result=ref("l"))
    run = w.start()
    w.finish()
    assert w.result(run) == 8
    assert len(w.sent) == 1


def test_loop_begins_with_the_result_of_a_step() -> None:
    w = counting(step("a", {"x": 1}), loop_step(start=ref("a")), result=ref("l"))
    run = w.start()
    w.finish()
    assert [sent.step for sent in w.sent] == ["a", "l[0]"]
    assert w.result(run) == 3


def test_results_of_laps_are_kept() -> None:
    w = counting(loop_step())
    run = w.start()
    w.finish()
    rows = [w.step_row(run, name) for name in ("l[0]", "l[1]", "l[2]", "l")]
    assert [row.result for row in rows if row] == [b"1", b"2", b"3", b"3"]


def test_loop_at_its_limit_fails_and_says_what_did_not_hold() -> None:
    w = counting(loop_step(limit=2), step("after", after=["l"]))
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.FAILED
    assert w.error(run)["type"] == "hopline.errors.LoopLimitError"
    assert w.error(run)["message"] == "after 2 laps, which is its limit, $item >= 3 still does not hold"
    assert w.step_state(run, "after") is StepState.UPSTREAM_FAILED
    assert len(w.sent) == 2


def test_failed_lap_fails_the_loop_step() -> None:
    w = counting(loop_step())
    run = w.start()
    w.run_step("l[0]")
    w.execute = failing("l[1]")
    w.finish()
    assert w.state(run) is RunState.FAILED
    assert (w.error(run)["step"], w.error(run)["message"]) == ("l", "broken")


def test_each_lap_has_its_own_attempts() -> None:
    w = counting(loop_step(attempts=2))
    run = w.start()
    for lap in range(2):
        w.execute = failing(f"l[{lap}]")
        w.run_step(f"l[{lap}]")
        w.execute = count
        w.run_step(f"l[{lap}]")
        assert w.attempts(run, f"l[{lap}]") == ["failed", "succeeded"]


def test_next_lap_waits_as_long_as_it_is_told() -> None:
    w = counting(loop_step(every=60.0))
    w.start()
    ended = w.now
    w.run_step("l[0]")
    task = w.task("l[1]")
    assert (task.state, task.schedule_time) == (TaskState.SCHEDULED, ended + 60.0)


def test_condition_that_cannot_be_told_fails_the_loop_step() -> None:
    w = world(loop_step(), execute=lambda *_: b'"text"')
    run = w.start()
    w.run_step("l[0]")
    assert w.state(run) is RunState.FAILED
    assert w.error(run)["message"] == '$item >= 3 compares "text" with 3'


def test_condition_may_look_at_other_steps() -> None:
    node = loop_step()
    node["loop"]["until"]["args"][1] = ref("most")
    w = counting(step("most", {"x": 1}), node, result=ref("l"))
    run = w.start()
    assert w.open_steps() == ["most"]
    w.finish()
    assert w.result(run) == 2


@pytest.mark.parametrize("laps", range(3))
def test_after_a_restart_the_loop_goes_on_with_the_lap_it_was_in(laps: int) -> None:
    w = counting(loop_step(every=60.0), result=ref("l"))
    run = w.start()
    for lap in range(laps):
        w.run_step(f"l[{lap}]")
    before = w.task(f"l[{laps}]").schedule_time
    w.crash()
    assert w.task(f"l[{laps}]").schedule_time == before
    w.finish()
    assert w.result(run) == 3
    assert len(w.sent) == 3


@pytest.mark.parametrize("every", [None, 60.0])
def test_laps_may_be_runs(every: float | None) -> None:
    w = with_child(CHILD, loop_step(every=every, over="v", workflow=("child", "child")), result=ref("l"))
    w.execute = count
    run = w.start()
    for lap in range(2):
        assert w.sub_run(f"l[{lap}]").input.raw == b'{"v":%d}' % (2 * lap)
        w.run_step("first")
        w.run_step("second")
        w.crash()
        if every is not None and lap == 0:
            waiting = w.task("l[1]")
            assert (waiting.state, waiting.schedule_time) == (TaskState.PARKED, w.now + 60.0)
            w.wake(waiting)
    assert w.result(run) == 4


def test_cancel_ends_a_loop_between_laps() -> None:
    w = with_child(CHILD, loop_step(every=60.0, over="v", workflow=("child", "child")))
    w.execute = count
    run = w.start()
    w.run_step("first")
    w.run_step("second")
    w.cancel(run)
    assert w.state(run) is RunState.CANCELLED
    assert w.rows.tasks == {}


def test_run_that_goes_on_from_another_keeps_the_laps_that_are_done() -> None:
    w = counting(loop_step(), result=ref("l"))
    first = w.start()
    w.run_step("l[0]")
    w.execute = failing("l[1]")
    w.finish()
    w.execute = count
    second = w.start(earlier=w.earlier(first.id))
    assert w.open_steps() == ["l[1]"]
    w.finish()
    assert w.result(second) == 3


@pytest.mark.parametrize(
    "node",
    [
        {**loop_step(), "over": "x"},
        {**loop_step(), "kind": "python"},
        {**step("l"), "kind": "loop"},
        {**loop_step(), "inputs": {}},
        {**loop_step(), "loop": {**loop_step()["loop"], "limit": 0}},
        {**loop_step(), "loop": {**loop_step()["loop"], "kind": "loop"}},
        {**loop_step(), "loop": {**loop_step()["loop"], "until": {"$op": "?", "args": []}}},
        {**loop_step(), "loop": {**loop_step()["loop"], "until": {"$op": "==", "args": [ref("nobody"), 1]}}},
        {**loop_step(), "loop": {**loop_step()["loop"], "kind": "http"}},
        {**call(), "kind": "loop", "loop": {**loop_step()["loop"]}},
    ],
)
def test_malformed_loops_are_refused(node: dict[str, Any]) -> None:
    with pytest.raises(PlanError):
        plan([node])
