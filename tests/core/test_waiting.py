"""Steps that wait and are never sent."""

from typing import Any

import pytest

from hopline_engine.core import advance, waiting
from hopline_engine.core.live import LiveRun
from hopline_engine.core.model import ApprovalDecided, RunState, StepState, TaskState
from hopline_engine.core.plan import PlanError
from hopline_engine.core.retry import Failure
from hopline_engine.core.waits import NEVER
from tests.core.worlds import World, event_step, plan, ref, sleep_step, step


def until(name: str, time: object) -> dict[str, Any]:
    return step(name, {"until": time}) | {"kind": "sleep", "signature": ""}


def test_step_after_a_sleep_opens_when_its_time_has_come() -> None:
    world = World({"w": plan([sleep_step("sleep", 259_200.0), step("a", after=["sleep"])], ref("a", "step"))})
    run = world.start()
    assert world.open_steps() == ["sleep"]
    assert world.step_state(run, "sleep") is StepState.WAITING
    world.wake(world.task("sleep"))
    assert world.now == 1000.0 + 259_200.0
    assert world.open_steps() == ["a"]
    world.run_step("a")
    assert world.result(run) == "a"


def test_sleep_makes_no_attempt() -> None:
    world = World({"w": plan([sleep_step("sleep", 1.0)])})
    run = world.start()
    world.wake(world.task("sleep"))
    row = world.step_row(run, "sleep")
    assert row is not None
    assert (row.state, row.result, row.attempts, row.started_at, row.ended_at) == ("succeeded", b"null", 0, 1000, 1001)
    assert world.attempts(run, "sleep") == []


def test_wait_that_is_fired_too_early_goes_on() -> None:
    world = World({"w": plan([sleep_step("sleep", 10.0)])})
    run = world.start()
    world.sleep_until(1009.0)
    with world.event() as decision:
        waiting.fire(world.task("sleep"), decision)
    assert world.state(run) is RunState.RUNNING


def test_sleep_goes_on_after_a_crash_until_the_time_that_was_decided() -> None:
    world = World({"w": plan([sleep_step("sleep", 100.0)])})
    run = world.start()
    world.sleep_until(1050.0)
    world.crash()
    task = world.task("sleep")
    assert (task.state, task.schedule_time) == (TaskState.PARKED, 1100.0)
    world.wake(task)
    assert world.state(run) is RunState.SUCCEEDED


@pytest.mark.parametrize(
    ("given", "time"),
    [("1970-01-02", 86_400.0), ("1970-01-01T02:00:00+01:00", 3600.0), ("2400-01-01T00:00:00Z", 13_569_465_600.0)],
)
def test_sleep_until_a_date_of_a_result_ends_then(given: str, time: float) -> None:
    world = World({"w": plan([step("a"), until("sleep", ref("a"))])}, lambda *_: f'"{given}"'.encode())
    world.start()
    world.run_step("a")
    assert world.task("sleep").schedule_time == time


@pytest.mark.parametrize("given", [b'"tomorrow"', b"5", b'"2027-01-31T08:00:00"', b"null"])
def test_sleep_until_what_is_no_time_fails_the_step(given: bytes) -> None:
    world = World({"w": plan([step("a"), until("sleep", ref("a"))])}, lambda *_: given)
    run = world.start()
    world.run_step("a")
    assert world.state(run) is RunState.FAILED
    assert "it sleeps until" in world.error(run)["message"]


def test_cancel_ends_a_sleep() -> None:
    world = World({"w": plan([sleep_step("sleep", 100.0)])})
    run = world.start()
    world.cancel(run)
    assert world.step_state(run, "sleep") is StepState.CANCELLED
    assert world.rows.tasks == {}


def test_sleep_without_a_time_is_no_plan() -> None:
    with pytest.raises(PlanError, match="has the input seconds or until"):
        plan([step("sleep") | {"kind": "sleep"}])


def test_event_is_the_result_of_the_step_that_waits_for_it() -> None:
    nodes = [step("a"), event_step("e", ref("a", "step"), after=["a"])]
    world = World({"w": plan(nodes, ref("e", "place"))})
    run = world.start()
    world.run_step("a")
    (wait,) = world.rows.waits.values()
    assert (wait.run_id, wait.name, wait.key) == (run.id, "happened", "a")
    world.crash()
    world.happen(world.task("e"), b'{"place":"Bonn"}')
    assert world.result(run) == "Bonn"
    assert world.rows.waits == {}


def test_event_that_does_not_come_in_time_fails_the_step() -> None:
    world = World({"w": plan([event_step("e", "k", deadline=60.0)])})
    run = world.start()
    world.wake(world.task("e"))
    assert (world.now, world.state(run)) == (1060.0, RunState.FAILED)
    assert world.error(run)["message"] == 'no event "happened" with the key "k" came within 60 s'


def test_event_is_waited_for_without_an_end() -> None:
    world = World({"w": plan([event_step("e", "k")])})
    world.start()
    assert world.task("e").schedule_time == NEVER


@pytest.mark.parametrize("key", [b"5", b'""', b"null", b'"' + b"k" * 501 + b'"'])
def test_key_that_is_none_fails_the_step(key: bytes) -> None:
    world = World({"w": plan([step("a"), event_step("e", ref("a"))])}, lambda *_: key)
    run = world.start()
    world.run_step("a")
    assert "a key is a text of 1 to 500 characters" in world.error(run)["message"]
    assert world.rows.waits == {}


def test_cancel_ends_the_wait_for_an_event() -> None:
    world = World({"w": plan([event_step("e", "k")])})
    run = world.start()
    world.cancel(run)
    assert world.step_state(run, "e") is StepState.CANCELLED
    assert world.rows.waits == {}


def sensor(every: float, deadline: float | None = None) -> dict[str, Any]:
    node = step("s", attempts=2, deadline=deadline)
    node["policy"]["every"] = every
    return node


def look(world: World, run: LiveRun) -> None:
    world.lease(world.task("s"))
    with world.event() as decision:
        advance.look_again(world.task("s"), decision)


def test_sensor_looks_again_after_a_rest_and_that_is_no_attempt() -> None:
    world = World({"w": plan([sensor(30.0)], ref("s"))}, lambda *_: b'"found"')
    run = world.start()
    for looks in range(1, 4):
        look(world, run)
        assert (world.task("s").attempt, world.task("s").schedule_time) == (0, 1000.0 + 30 * looks)
        world.crash()
    world.run_step("s")
    assert (world.result(run), world.attempts(run, "s")) == ("found", ["succeeded"])
    row = world.step_row(run, "s")
    assert row is not None
    assert (row.started_at, row.ended_at) == (1000.0, 1090.0), "it began with its first look"


def test_looks_do_not_use_up_the_attempts_of_a_sensor() -> None:
    world = World({"w": plan([sensor(30.0)])})
    run = world.start()
    look(world, run)
    failure = Failure("OSError", "away", ("OSError",))
    world.lease(world.task("s"))
    world.fail(world.task("s"), failure)
    look(world, run)
    world.lease(world.task("s"))
    world.fail(world.task("s"), failure)
    assert (world.state(run), world.attempts(run, "s")) == (RunState.FAILED, ["failed", "failed"])


def test_sensor_that_finds_nothing_in_time_says_so() -> None:
    world = World({"w": plan([sensor(30.0, deadline=50.0)])})
    run = world.start()
    look(world, run)
    world.expire(world.task("s"))
    assert (world.error(run)["type"], world.error(run)["message"]) == ("TimeoutError", "it found nothing within 50 s")


def approval(name: str, prompt: Any, **options: Any) -> dict[str, Any]:
    return step(name, {"prompt": prompt, "to": ["ada"]}, **options) | {"kind": "approval", "signature": ""}


def test_decision_is_kept_once_with_who_made_it() -> None:
    world = World({"w": plan([approval("a", "Go?")], ref("a", "approved"))})
    run = world.start()
    (asked,) = world.rows.approvals.values()
    assert (asked.prompt, asked.recipients, asked.expires_at) == ("Go?", b'["ada"]', None)
    world.crash()
    with world.event() as decision:
        answer = ApprovalDecided(True, "Ada", b"null", world.now, world.task("a").id)
        waiting.decide(world.task("a"), answer, b'{"approved":true}', decision)
    assert (world.result(run), list(world.rows.answers.values())) == (True, [answer])


def test_decision_that_does_not_come_in_time_fails_the_step() -> None:
    world = World({"w": plan([approval("a", "Go?", deadline=60.0)])})
    run = world.start()
    world.wake(world.task("a"))
    assert world.error(run)["message"] == "nobody decided within 60 s"
    assert world.rows.answers == {}


def test_question_that_is_no_text_fails_the_step() -> None:
    world = World({"w": plan([approval("a", 5)])})
    run = world.start()
    assert "an approval asks with a text" in world.error(run)["message"]
    assert world.rows.approvals == {}
