"""Cron expressions: the table worked out by hand, the oracle, cronsim, and what is refused."""

# ruff: noqa: DTZ001  # wall-clock times

import string
import time
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import croniter
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from hopline import cron
from hopline.cron import Change, CronError
from hopline.wall_times import wall_times
from tests.authoring import whole_oracle
from tests.authoring.cron_cases import BERLIN, CASES, Case
from tests.authoring.cron_oracle import changes, expressions, oracle, ours

SLOWEST_SECONDS = 0.010


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def told(at: float, zone: str) -> str:
    return datetime.fromtimestamp(at, ZoneInfo(zone)).isoformat()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.zone} {case.expression} after {case.after}")
def test_ticks_are_those_worked_out_by_hand(case: Case) -> None:
    found = islice(cron.parse(case.expression, ZoneInfo(case.zone)).ticks(unix(case.after)), len(case.ticks))
    assert [told(tick.at, case.zone) for tick in found] == [told(unix(tick), case.zone) for tick in case.ticks]


def test_table_has_the_promised_size() -> None:
    assert len(CASES) >= 40


ZONES = [
    BERLIN,
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/Havana",
    "Asia/Kathmandu",
    "Africa/Cairo",
    "America/Santiago",
    "Antarctica/Troll",
    "UTC",
]


@pytest.mark.parametrize("name", ZONES)
def test_ticks_around_clock_changes_are_those_of_looking_at_every_minute(name: str) -> None:
    zone = ZoneInfo(name)
    days = list(changes(zone, date(2025, 1, 1), date(2026, 12, 31)))[:2] or [datetime(2026, 3, 1)]
    for day in days:
        start, end = day - timedelta(hours=8), day + timedelta(days=1, hours=12)
        for expression in expressions(16):
            assert ours(expression, zone, start, end) == oracle(expression, zone, start, end), expression


def test_ticks_of_a_day_that_never_was_are_those_of_looking_at_every_minute() -> None:
    start, end = datetime(2011, 12, 29), datetime(2012, 1, 1)
    for expression in expressions(24):
        zone = ZoneInfo("Pacific/Apia")
        assert ours(expression, zone, start, end) == oracle(expression, zone, start, end), expression


@cache
def calendar_of(first_year: int) -> tuple[whole_oracle.Span, whole_oracle.Calendar]:
    span = whole_oracle.Span.of_years(first_year, 1)
    return span, whole_oracle.Calendar(span)


@pytest.mark.parametrize(
    "name", [BERLIN, "Australia/Lord_Howe", "Africa/Casablanca", "America/Havana", "Antarctica/Troll", "Pacific/Apia"]
)
def test_whole_oracle_says_of_a_time_what_the_plain_one_says(name: str) -> None:
    year = 2011 if name == "Pacific/Apia" else 2026
    zone, (span, calendar) = ZoneInfo(name), calendar_of(year)
    clock = whole_oracle.shown(zone, span)
    days = list(changes(zone, date(year, 1, 2), date(year, 12, 31)))
    assert days
    for expression in expressions(12):
        is_rhythm = expression.split()[1].startswith("*")
        bits = whole_oracle.expected(calendar.fitting(expression), clock, span, is_rhythm=is_rhythm)
        for day in days:
            start, end = day - timedelta(hours=8), day + timedelta(days=1, hours=12)
            minutes = range(*(int(each.replace(tzinfo=UTC).timestamp() - span.start) // 60 for each in (start, end)))
            expected = [float(span.start + 60 * minute) for minute in minutes if bits >> minute & 1]
            assert expected == oracle(expression, zone, start, end), expression


@pytest.mark.parametrize("name", [BERLIN, "Africa/Casablanca"])
def test_ticks_of_a_year_are_those_of_the_whole_oracle(name: str) -> None:
    span, calendar = calendar_of(2026)
    ticks, wrong = whole_oracle.compare(name, expressions(60), calendar, span)
    assert ticks > 60_000
    assert wrong == []


def test_zones_that_the_whole_oracle_takes_for_the_same_show_the_same() -> None:
    span = whole_oracle.Span.of_years(2020, 10)
    families = whole_oracle.families(sorted(available_timezones() - {"localtime", "posixrules"}), span)
    assert 50 < len(families) < 150
    for first, *others in families:
        moments = [datetime.fromtimestamp(at, UTC) for at in range(span.start, span.end, 100 * 3600)]
        for other in others:
            for moment in moments:
                assert moment.astimezone(ZoneInfo(first)).utcoffset() == moment.astimezone(ZoneInfo(other)).utcoffset()


def test_no_clocks_change_twice_within_two_days() -> None:
    span = whole_oracle.Span.of_years(1970, 130)
    for name in sorted(available_timezones() - {"localtime", "posixrules"}):
        moments = [at for at, _ in whole_oracle.clocks(name, span).changes]
        assert all(behind - before > 2 * 86_400 for before, behind in pairwise(moments)), name


@pytest.mark.parametrize("name", [BERLIN, "America/New_York", "UTC"])
@pytest.mark.parametrize(
    "expression", ["0 6 * * *", "30 2 * * *", "0 * * * *", "*/15 * * * *", "0 6 * * 1-5", "0 6 L * *"]
)
def test_cronsim_agrees(name: str, expression: str) -> None:
    start = datetime(2026, 3, 1, tzinfo=ZoneInfo(name))
    theirs = CronSim(expression, start)
    mine = cron.parse(expression, ZoneInfo(name)).ticks(start.timestamp())
    assert [tick.at for tick in islice(mine, 1000)] == [next(theirs).timestamp() for _ in range(1000)]


def test_cronsim_agrees_on_expressions_of_every_kind() -> None:
    start = datetime(2026, 3, 20, tzinfo=ZoneInfo(BERLIN))
    for expression in expressions(120):
        minute, hour, day, _, weekday = expression.split()
        if minute.startswith("*") and not hour.startswith("*"):
            continue  # a rhythm for cronsim, times of the day for us
        if (day.startswith("*/") and weekday != "*") or not _ever_fires(expression):
            continue  # where one of two days begins with *, cronsim wants both to fit
        theirs = CronSim(expression, start)
        mine = cron.parse(expression, ZoneInfo(BERLIN)).ticks(start.timestamp())
        assert [tick.at for tick in islice(mine, 60)] == [next(theirs).timestamp() for _ in range(60)], expression


def _ever_fires(expression: str) -> bool:
    try:
        cron.parse(expression, UTC)
    except CronError:
        return False
    return True


@pytest.mark.parametrize("name", ZONES)
def test_daily_tick_is_once_on_every_day(name: str) -> None:
    for hour in (0, 2, 6):
        ticks = cron.parse(f"30 {hour} * * *", ZoneInfo(name)).ticks(
            datetime(2026, 1, 1, tzinfo=ZoneInfo(name)).timestamp()
        )
        days = [datetime.fromtimestamp(tick.at, ZoneInfo(name)).date() for tick in islice(ticks, 364)]
        assert days == [date(2026, 1, 1) + timedelta(days=number) for number in range(364)]


# --- what is said otherwise -------------------------------------------------------------------------------------------


def ticks(expression: str, after: str, count: int, **rules: str) -> list[tuple[str, Change | None]]:
    timing = cron.parse(expression, ZoneInfo(BERLIN), **rules)  # type: ignore[arg-type]
    return [(told(tick.at, BERLIN), tick.change) for tick in islice(timing.ticks(unix(after)), count)]


def test_time_that_does_not_exist_is_skipped_when_that_is_said() -> None:
    assert ticks("30 2 * * *", "2026-03-28T12:00+01:00", 1, gap="skip") == [("2026-03-30T02:30:00+02:00", None)]


def test_time_that_comes_twice_fires_twice_when_that_is_said() -> None:
    assert ticks("30 2 * * *", "2026-10-24T12:00+02:00", 3, fold="twice") == [
        ("2026-10-25T02:30:00+02:00", Change.FIRST),
        ("2026-10-25T02:30:00+01:00", Change.AGAIN),
        ("2026-10-26T02:30:00+01:00", None),
    ]


def test_rhythm_pauses_for_an_hour_that_is_repeated_when_that_is_said() -> None:
    assert [at for at, _ in ticks("0 * * * *", "2026-10-25T01:30+02:00", 2, fold="once")] == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T03:00:00+01:00",
    ]


def test_tick_that_was_shifted_says_so_and_keeps_its_name() -> None:
    (tick,) = islice(cron.parse("30 2 * * *", ZoneInfo(BERLIN)).ticks(unix("2026-03-28T12:00+01:00")), 1)
    assert (tick.change, tick.wall) == (Change.SHIFTED, datetime(2026, 3, 29, 2, 30))


def test_changes_of_the_clocks_are_told_with_the_ticks_they_touch() -> None:
    timing = cron.parse("30 2 * * *", ZoneInfo(BERLIN), gap="skip")
    found = timing.changes(unix("2026-01-01T00:00Z"), unix("2027-01-01T00:00Z"))
    assert [(tick.wall, tick.change) for tick in found] == [
        (datetime(2026, 3, 29, 2, 30), Change.SKIPPED),
        (datetime(2026, 10, 25, 2, 30), Change.FIRST),
    ]
    assert not list(cron.parse("0 6 * * *", ZoneInfo(BERLIN)).changes(0.0, unix("2027-01-01T00:00Z")))


@pytest.mark.parametrize(
    "expression, period",
    [
        ("0 6 * * *", 86_400),
        ("0 6 * * MON", 86_400),
        ("0 6,7,20 * * *", 3600),
        ("0 1,23 * * *", 7200),
        ("5,50 6 * * *", 45 * 60),
        ("5,50 6,7 * * *", 15 * 60),
        ("* * * * *", 60),
        ("* * * * * *", 1),
        ("*/20 * * * * *", 20),
        ("5,50 * * * * *", 15),
        ("5,50 0 * * * *", 45),
        ("30 0 6 * * *", 86_400),
    ],
)
def test_period_is_the_shortest_time_between_two_ticks(expression: str, period: int) -> None:
    assert cron.parse(expression, UTC).period == period


# --- days that fields name --------------------------------------------------------------------------------------------


@given(
    days=st.sampled_from(["*", "1", "L", "1,L", "*/7", "13-20", "29,30,31", "31"]),
    months=st.sampled_from(["*", "FEB-APR", "*/5", "12"]),
    weekdays=st.sampled_from(["*", "MON-FRI", "0", "7", "6,0", "MON#1", "L5", "FRI#5,MON#1", "*/2"]),
    start=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
)
@settings(deadline=None, max_examples=40)
def test_days_are_those_that_croniter_counts(days: str, months: str, weekdays: str, start: datetime) -> None:
    if days != "*" and weekdays != "*":
        weekdays = "*"  # croniter may need seconds for these, or wants both to fit
    expression = f"30 6,18 {days} {months} {weekdays}"
    theirs = croniter(expression, start.replace(microsecond=0), datetime)
    mine = islice(wall_times(expression, start.replace(microsecond=0)), 12)
    assert list(mine) == [theirs.get_next(datetime) for _ in range(12)]


def test_day_that_fits_either_of_two_fields_counts_also_where_weekdays_are_numbered() -> None:
    found = islice(wall_times("0 0 13 * MON#1", datetime(2026, 1, 1)), 4)
    assert [each.day for each in found] == [5, 13, 2, 13]
    assert next(wall_times("0 0 31 2 MON-FRI", datetime(2026, 2, 28))) == datetime(2027, 2, 1)


def test_next_tick_is_found_in_no_time_where_one_of_two_day_fields_never_comes() -> None:
    best = float("inf")
    for number in range(3):
        start = time.process_time()
        timing = cron.parse(f"{number} 0 31 2 MON-FRI", UTC)
        found = list(islice(timing.ticks(unix(f"20{40 + number}-02-28T00:00Z")), 200))
        best = min(best, time.process_time() - start)
        assert len(found) == 200
    assert best < SLOWEST_SECONDS


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression, why",
    [
        ("0 0 30 2 *", "no tick within 5 years"),
        ("0 0 31 4,6,9,11 *", "no tick within 5 years"),
        ("R * * * *", "R is not a month"),
        ("H * * * *", "H is not a month"),
        ("0 0 15W * *", "W is not a month"),
        ("0 0 ? * *", "fields are made of"),
        ("60 * * * *", "not a cron expression"),
        ("0 24 * * *", "not a cron expression"),
        ("0 0 0 * *", "not a cron expression"),
        ("0 0 * 13 *", "not a cron expression"),
        ("0 0 * * 8", "not a cron expression"),
        ("*/0 * * * *", "not a cron expression"),
        ("0 6 * *", "4 fields"),
        ("0 0 6 * * * 2026", "7 fields"),
        ("", "0 fields|1 fields|fields are made of"),
        ("@reboot", "fields are made of"),
        ("0 6 * * * " * 30, "more than 256"),
        ("0 000000006 * * *", "more than two digits"),
        ("٣ 6 * * *", "fields are made of"),
    ],
)
def test_expression_that_cannot_be_used_is_refused_with_the_reason(expression: str, why: str) -> None:
    with pytest.raises(CronError, match=why):
        cron.parse(expression, UTC)


def judged(text: str) -> float:
    """Return how many seconds it takes to accept or refuse a text."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        with suppress(CronError):
            cron.parse(text, UTC)
        best = min(best, time.process_time() - start)
    return best


@given(st.text(max_size=300) | st.text(st.sampled_from("0123456789*,/-#L \tMONFRIJAN"), max_size=300))
@settings(deadline=None, max_examples=300)
def test_no_text_takes_long_to_accept_or_refuse(text: str) -> None:
    assert judged(text) < SLOWEST_SECONDS


@given(
    st.lists(st.text(st.sampled_from("0123456789*,/-#L"), min_size=1, max_size=50), min_size=5, max_size=6),
)
@settings(deadline=None, max_examples=300)
def test_no_fields_take_long_to_accept_or_refuse(fields: list[str]) -> None:
    assert judged(" ".join(fields)) < SLOWEST_SECONDS


@given(
    st.lists(
        st.text(st.sampled_from("0123456789*,/-#L"), min_size=1, max_size=8)
        | st.sampled_from(["*", "0", "L", "*/7", "1-5", "L5", "MON#2", "29", "31", "2"]),
        min_size=5,
        max_size=6,
    ),
    st.integers(0, 4 * 10**9),
)
@settings(deadline=None, max_examples=400)
def test_what_is_accepted_has_ticks_that_rise(fields: list[str], after: int) -> None:
    try:
        timing = cron.parse(" ".join(fields), ZoneInfo(BERLIN))
    except CronError:
        return
    found = [tick.at for tick in islice(timing.ticks(after), 5)]
    assert found == sorted(set(found))
    assert all(at > after for at in found)
    assert len(found) == 5
    assert timing.period <= min(behind - before for before, behind in pairwise(found))


@pytest.mark.parametrize(
    "text",
    [
        "0 " * 200_000,
        ",".join(["*/1"] * 50) + " * * * *",
        " ".join([",".join(["*"] * 25)] * 5),
        "0 0 " + ",".join(map(str, range(1, 32))) + " " + ",".join(map(str, range(1, 13))) + " " + "MON#5,TUE#5,FRI#5",
        "0 0 31 2 *",
        "59 59 23 31 2,4,6,9,11 *",
        "0 0 29 2 MON#5",
        string.printable * 4000,
    ],
)
def test_text_made_to_be_slow_is_not(text: str) -> None:
    assert judged(text) < SLOWEST_SECONDS
