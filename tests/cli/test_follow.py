"""What is told of a run in a pipe: one line for each thing that changed."""

import pytest

from hopline_cli.follow import changes, merged
from hopline_cli.when import unix
from tests.cli.fake_api import T0, Json, a_run, a_step, at

NOW = unix(T0) + 9


def told(old: Json | None, new: Json) -> list[str]:
    return [line.plain.partition("  ")[2] for line in changes(old, new, NOW)]  # type: ignore[arg-type]


def test_first_sight_tells_the_run_and_every_step_that_moved() -> None:
    run = a_run("r_1", "running", a_step("a", ended_at=at(2)), a_step("b", "pending"), a_step("c", "running"))
    assert told(None, run) == ["r_1  daily_etl  begins", "a  succeeded", "c  running"]


def test_same_again_tells_nothing() -> None:
    run = a_run("r_1", "running", a_step("a", "running", attempts=1))
    assert told(run, run) == []


def test_steps_are_told_in_the_order_of_their_times() -> None:
    old = a_run("r_1", "running", a_step("a", "pending"), a_step("b", "pending"))
    late = a_step("a", started_at=at(1), ended_at=at(3))
    early = a_step("b", "failed", started_at=at(1), ended_at=at(2), error={"message": "no\x1b[2J"})
    assert told(old, a_run("r_1", "running", late, early)) == ["b  failed  1.0 s  no\\x1b[2J", "a  succeeded  2.0 s"]


def test_another_attempt_of_a_step_is_told_and_of_an_item_is_not() -> None:
    items = {"total": 9, "succeeded": 3, "failed": 0, "running": 1}
    old = a_run("r_1", "running", a_step("a", "running", attempts=1), a_step("m", "running", attempts=1, items=items))
    new = a_run("r_1", "running", a_step("a", "running", attempts=2), a_step("m", "running", attempts=2, items=items))
    assert told(old, new) == ["a  running  2 attempts"]


def test_end_of_a_step_is_told_once_when_its_record_is_complete() -> None:
    running = a_run("r_1", "running", a_step("a", "running"))
    ending = a_run("r_1", "running", a_step("a", "failed"))
    ended = a_run("r_1", "running", a_step("a", "failed", attempts=2, ended_at=at(3)))
    assert told(running, ending) == []
    assert told(ending, ended) == ["a  failed  2 attempts"]
    assert told(running, a_run("r_1", "failed", a_step("a", "failed")))[0] == "a  failed"


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_end_of_the_run_is_told_last_with_how_long_it_took(state: str) -> None:
    old = a_run("r_1", "running", a_step("a", "running"))
    new = a_run("r_1", state, a_step("a", started_at=at(1), ended_at=at(4)))
    assert told(old, new) == ["a  succeeded  3.0 s", f"r_1  daily_etl  {state}  4.4 s"]


def test_events_change_only_what_they_are_about() -> None:
    run = a_run("r_1", "running", a_step("a", "running"), a_step("b", "pending"))
    after = merged(run, "step", a_step("b", "running"))
    assert [step["state"] for step in after["steps"]] == ["running", "running"]
    assert merged(run, "run", {"state": "failed"}) == run | {"state": "failed"}
    assert merged(run, "weather", {"state": "sunny"}) == run
