"""``@workflow(deadline=)`` on the engine in virtual time, over deaths of it and while runs are parked."""

from pathlib import Path

import pytest

from hopline import DefinitionError, Event, Failure, Retry, recover, sleep, step, workflow
from hopline.testing import Engine

arrived = Event("arrived", str)
told: list[str] = []


@step
def begin(number: int) -> int:
    return number


@step(retry=Retry(100, first="10m", jitter="none"))
def flaky(number: int) -> int:
    raise ConnectionError("not now")


@step
def tell(why: Failure) -> None:
    told.append(f"{why.step}: {why.type}")


@workflow(deadline="4h", on_failure=tell)
def waits(number: int) -> str:
    return arrived.after(begin(number)).wait(key="k")


@workflow(deadline="1h")
def tries(number: int) -> int:
    return flaky(begin(number))


@step
def instead() -> int:
    return -1


@workflow(deadline="1d")
def above(number: int) -> int:
    return recover(lambda: tries(number), instead)


@workflow(deadline="2h")
def sleeps(number: int) -> int:
    return begin.after(sleep("1h59m"))(number)


@workflow
def plain(number: int) -> int:
    return begin(number)


@pytest.mark.parametrize("dies", [False, True])
def test_run_that_waits_past_its_deadline_fails_and_tells(engine: Engine, *, dies: bool) -> None:
    told.clear()
    run = engine.start(waits, 1)
    engine.advance("3h59m")
    assert run.state == "running"
    assert run.detail.deadline_at == run.detail.created_at + 4 * 3600
    if dies:
        engine.crash()
    engine.advance("1m1s")
    assert run.state == "failed"
    assert run.error is not None
    assert (run.error.step, run.error.type) == ("arrived", "DeadlineExceeded")
    assert run.error.message == f"run {run.id} was over its deadline of 4h"
    assert told == ["arrived: DeadlineExceeded"]


def test_engine_that_was_away_at_the_deadline_fails_the_run_when_it_is_back(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    run = engine.start(waits, 1)
    engine.close()
    later = Engine(tmp_path, start=engine.now.replace(hour=6))
    later.register(waits)
    later.advance("1s")
    detail = later.ask(lambda service: service.run_detail(run.id))
    later.close()
    assert detail.state == "failed"


def test_retries_end_with_the_run(engine: Engine) -> None:
    run = engine.start(tries, 1)
    engine.advance("1h1s")
    assert run.state == "failed"
    assert run.step("flaky").attempts == 3


def test_sub_workflow_over_its_deadline_may_be_recovered_from(engine: Engine) -> None:
    run = engine.start(above, 1)
    engine.advance("1h1s")
    assert run.result() == -1


def test_run_that_ends_in_time_is_not_touched(engine: Engine) -> None:
    run = engine.start(sleeps, 1)
    engine.advance("3h")
    assert run.result() == 1


def test_deadline_is_part_of_the_version_only_where_there_is_one() -> None:
    assert sleeps.compile().to_json()["deadline"] == 7200.0
    assert "deadline" not in plain.compile().to_json()


@pytest.mark.parametrize(("deadline", "problem"), [("soon", "deadline"), ("0s", "deadline")])
def test_deadline_that_is_none_is_refused(deadline: str, problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        workflow(deadline=deadline)
