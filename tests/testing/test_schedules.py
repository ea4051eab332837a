"""Schedules on the engine of a test: as many runs as are promised, in virtual time."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from time import process_time

import pytest

from hopline import Cron, Every, scheduled, sleep, step, workflow
from hopline_engine.testing import Engine, Run

SATURDAY_BEFORE_SUMMER_TIME = datetime(2026, 3, 28, 12, tzinfo=UTC)


@step
def report(day: date) -> str:
    return f"of {day}"


@workflow(schedule=Cron("30 2 * * *", tz="Europe/Berlin"))
def nightly(day: date = scheduled.date) -> str:
    return report(day)


@workflow(schedule=Every("1h", catchup="all", overlap="allow"))
def hourly(day: date = scheduled.date) -> str:
    return report(day)


@workflow(schedule=Every("1h", catchup="latest"))
def latest(day: date = scheduled.date) -> str:
    return report(day)


@workflow(schedule=Every("1h", overlap="queue_one"))
def slow(day: date = scheduled.date) -> str:
    return report.after(sleep("90m"))(day)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = Engine(tmp_path, start=SATURDAY_BEFORE_SUMMER_TIME)
    yield opened
    opened.close()


def ticks(runs: list[Run[str]]) -> list[str]:
    return [run.detail.scheduled.local for run in runs if run.detail.scheduled is not None]


def test_scheduled_workflow_fires_as_often_as_is_promised_over_a_change_of_the_clocks(engine: Engine) -> None:
    engine.register(nightly)
    engine.advance("3d")
    assert [run.result() for run in engine.runs(nightly)] == ["of 2026-03-29", "of 2026-03-30", "of 2026-03-31"]
    shown = [local.split(" ", 2)[2] for local in ticks(engine.runs(nightly))]
    assert shown == ["03:00:00 CEST", "02:30:00 CEST", "02:30:00 CEST"]


def test_tick_of_the_very_moment_to_which_time_passes_fires(engine: Engine) -> None:
    engine.advance("13s")
    engine.register(hourly)
    engine.advance("59m46s")
    assert engine.runs(hourly) == []
    engine.advance("1s")
    (run,) = engine.runs(hourly)
    assert run.state == "succeeded"


def test_workflow_that_a_test_only_starts_does_not_fire_by_itself(engine: Engine) -> None:
    engine.start(hourly, date(2026, 3, 28))
    engine.advance("3d")
    assert len(engine.runs(hourly)) == 1


def test_ticks_of_an_outage_are_made_up_for_as_the_schedule_says(engine: Engine) -> None:
    engine.register(hourly, latest)
    engine.advance("1h")
    engine.crash(down="5h30m")
    engine.advance("1m")
    assert len(engine.runs(hourly)) == 1 + 5
    assert len(engine.runs(latest)) == 1 + 1
    engine.advance("1h")
    assert len(engine.runs(hourly)) == len(engine.runs(latest)) + 4 == 7


def test_crash_neither_loses_a_tick_nor_fires_it_twice(engine: Engine) -> None:
    engine.register(hourly)
    for _ in range(10):
        engine.advance("1h")
        engine.crash()
    assert len(set(ticks(engine.runs(hourly)))) == len(engine.runs(hourly)) == 10


def test_tick_waits_for_the_run_before_it_where_it_should(engine: Engine) -> None:
    engine.register(slow)
    engine.advance("5h")
    begun = [run.detail.created_at for run in engine.runs(slow)]
    assert [after - before for before, after in pairwise(begun)] == [pytest.approx(90 * 60, abs=61) for _ in begun[1:]]


def test_two_months_of_nights_take_seconds(engine: Engine) -> None:
    engine.register(nightly)
    begun = process_time()
    engine.advance("60d")
    assert process_time() - begun < 10
    assert len(engine.runs(nightly)) == 60
