"""Schedules as they are written in workflow files: what they become in a definition, and what is refused."""

from datetime import UTC, date, datetime
from itertools import islice
from typing import Any

import pytest

from hopline import At, Cron, DefinitionError, Every, HoplineError, scheduled, step, workflow
from hopline.timing import ScheduleError, check, timing_of, warnings, zone_of

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


@step
def load(day: date) -> int:
    return day.day


@workflow(schedule=Cron("0 6 * * *", tz="Europe/Berlin"))
def daily(day: date = scheduled.date) -> int:
    return load(day)


def ticks(schedule: Cron | Every | At, count: int, after: float = NOON) -> list[str]:
    found = islice(timing_of(schedule.to_json(), after).ticks(after), count)
    return [datetime.fromtimestamp(tick.at, UTC).isoformat() for tick in found]


def test_schedule_stands_in_the_definition_with_all_that_it_says() -> None:
    assert daily.compile().to_json()["schedule"] == {
        "kind": "cron",
        "expression": "0 6 * * *",
        "tz": "Europe/Berlin",
        "gap": None,
        "fold": None,
        "overlap": "skip",
        "catchup": "latest",
        "jitter": 0.0,
    }


def test_workflow_without_schedule_has_no_such_member() -> None:
    @workflow
    def plain(day: date) -> int:
        return load(day)

    assert "schedule" not in plain.compile().to_json()


def test_parameter_that_a_schedule_fills_is_needed_and_marked() -> None:
    parameters = daily.compile().parameters
    assert parameters["required"] == ["day"]
    assert parameters["properties"]["day"] == {"type": "string", "format": "date", "x-hopline-scheduled": "date"}


def test_workflow_that_is_called_plainly_asks_for_the_value() -> None:
    assert daily(date(2026, 11, 21)) == 21
    with pytest.raises(HoplineError, match="not started by a schedule, which would say day"):
        daily()


def test_intervals_are_aligned_unless_they_count_from_the_start() -> None:
    after = NOON + 100
    assert ticks(Every("15m"), 2, after) == ["2026-11-21T12:15:00+00:00", "2026-11-21T12:30:00+00:00"]
    assert ticks(Every("15m", aligned=False), 2, after) == ["2026-11-21T12:16:40+00:00", "2026-11-21T12:31:40+00:00"]


def test_single_times_come_in_their_order_and_end() -> None:
    times = At("2026-12-24T18:00", "2026-12-01T06:30", "2020-01-01", tz="Europe/Berlin")
    assert ticks(times, 9) == ["2026-12-01T05:30:00+00:00", "2026-12-24T17:00:00+00:00"]


def test_single_time_that_does_not_exist_is_shifted() -> None:
    assert ticks(At("2027-03-28T02:30", tz="Europe/Berlin"), 1) == ["2027-03-28T01:00:00+00:00"]


def test_warning_says_on_which_date_clocks_change() -> None:
    told = warnings(Cron("30 2 * * *", tz="Europe/Berlin").to_json(), NOON)
    assert told == [
        "2027-03-28 02:30 does not exist, as the clocks go forward; the tick comes when they have",
        "2027-10-31 02:30 comes twice, as the clocks go back; the first of the two counts",
    ]
    assert warnings(Cron("0 6 * * *", tz="Europe/Berlin").to_json(), NOON) == []
    assert warnings(Cron("*/15 * * * *", tz="Europe/Berlin").to_json(), NOON) == []


@pytest.mark.parametrize(
    "given, meant", [("Europe/Berlim", "Europe/Berlin"), ("berlin", "Europe/Berlin"), ("new york", "America/New_York")]
)
def test_zone_that_does_not_exist_is_answered_with_the_one_that_was_meant(given: str, meant: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        zone_of(given)
    assert refused.value.hint == f'did you mean "{meant}"?'


@pytest.mark.parametrize(
    "schedule, why",
    [
        (At("2020-01-01"), "no tick within 5 years"),
        (At("2040-01-01"), "no tick within 5 years"),
        (At("0001-01-01T00:00", tz="Asia/Tokyo"), "not in the calendar"),
        (Every("5s"), "5 s apart"),
        (Cron("* * * * * *"), "1 s apart"),
        (Cron("0 6 * * * " * 30), "the expression has 300 characters, more than 256"),
        (Cron("0 6 30 2 *"), "no tick within 5 years"),
    ],
)
def test_new_schedule_is_checked_against_time_and_settings(schedule: Cron | Every | At, why: str) -> None:
    with pytest.raises(ScheduleError, match=why):
        check(schedule.to_json(), NOON, 10.0)


@pytest.mark.parametrize("schedule", [Cron("0 6 * * *", jitter="5m"), Cron("0 6,18 * * *", jitter="11h")])
def test_schedule_of_some_times_of_the_day_is_as_rare_as_these(schedule: Cron) -> None:
    check(schedule.to_json(), NOON, 6 * 3600.0)


@pytest.mark.parametrize(
    "make, why",
    [
        (lambda: Cron(6), "not a text"),  # type: ignore[arg-type]
        (lambda: Cron("0 6 * * *", overlap="drop"), "overlap"),  # type: ignore[arg-type]
        (lambda: Cron("0 6 * * *", catchup="some"), "catchup"),  # type: ignore[arg-type]
        (lambda: Cron("0 6 * * *", jitter="soon"), "not a duration"),
        (lambda: Cron("0 6 * * *", gap="jump"), "gap"),  # type: ignore[arg-type]
        (lambda: Every("0s"), "zero"),
        (lambda: Every("often"), "not a duration"),
        (lambda: At(), "names no time"),
        (lambda: At("tomorrow"), "not a time"),
        (lambda: At("2026-12-24T18:00+01:00"), "offset of its own"),
        (lambda: workflow(schedule="0 6 * * *"), "schedule is '0 6 "),  # type: ignore[call-overload]
    ],
)
def test_value_that_means_nothing_is_refused_where_it_is_written(make: Any, why: str) -> None:
    with pytest.raises(DefinitionError, match=why) as refused:
        make()
    assert refused.value.file == __file__


@pytest.mark.parametrize(
    "schedule, why",
    [
        (Cron("0 0 30 2 *"), "no tick within 5 years"),
        (Cron("0 6 * * *", tz="Europe/Berlim"), "no time zone 'Europe/Berlim'"),
        (Cron("0 6 * * *", tz="../../etc/passwd"), "no time zone"),
        (Cron("0 6 * * 9"), "not a cron expression"),
        (Every("15m", jitter="15m"), "jitter of 900 s is too long"),
        (Cron("0 6,18 * * *", jitter="12h"), "jitter of 43200 s is too long"),
    ],
)
def test_schedule_that_cannot_be_used_is_refused_at_compile(schedule: Cron | Every | At, why: str) -> None:
    @workflow(schedule=schedule)
    def bad(day: date = scheduled.date) -> int:
        return load(day)

    with pytest.raises(DefinitionError, match=why) as refused:
        bad.compile()
    assert refused.value.line is not None


def test_scheduled_workflow_needs_a_value_for_every_parameter() -> None:
    @workflow(schedule=Every("1h"))
    def bad(day: date) -> int:
        return load(day)

    with pytest.raises(DefinitionError, match="no value for the parameter 'day'"):
        bad.compile()


def test_scheduled_value_must_fit_the_type_of_its_parameter() -> None:
    @workflow
    def bad(day: int = scheduled.date) -> int:  # type: ignore[assignment]
        return day

    with pytest.raises(DefinitionError, match=r"write day: date = scheduled\.date"):
        bad.compile()


def test_step_cannot_have_a_scheduled_default() -> None:
    with pytest.raises(DefinitionError, match="only workflows know"):

        @step
        def bad(day: date = scheduled.date) -> int:
            return day.day


def test_workflow_that_calls_a_scheduled_one_passes_the_value() -> None:
    @workflow
    def outer() -> int:
        return daily()

    with pytest.raises(DefinitionError, match="not started by its schedule here"):
        outer.compile()

    @workflow
    def passing(day: date = scheduled.date) -> int:
        return daily(day)

    assert passing.compile().digest
