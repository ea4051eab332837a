"""What becomes of ticks that are due: on time, after an outage, while a run is going on."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopline.timing import timing_of
from hopline_engine.core.backfills import Pace, planned, startable
from hopline_engine.core.schedules import complete, jitter_of, shard_of_schedule, tick_key, tick_of_key, values_of
from hopline_engine.core.shards import SHARDS
from hopline_engine.core.ticks import MOST_CAUGHT_UP, Standing, TickState, Verdict, decide, first_tick

HOUR = 3600.0
NOON = 1_795_262_400.0  # 2026-11-21T12:00Z
DUE, QUEUED, SKIPPED, MISSED = TickState.DUE, TickState.QUEUED, TickState.SKIPPED, TickState.MISSED


def hourly(**policies: Any) -> dict[str, Any]:
    return complete({"kind": "every", "seconds": HOUR, **policies})


def verdict(schedule: dict[str, Any], *, since: float, now: float, running: int = 0, queued: int = 0) -> Verdict:
    return decide(
        Standing(
            name="s",
            schedule=schedule,
            timing=timing_of(schedule, 0.0),
            next_tick=since,
            now=now,
            running=running,
            queued=queued,
        )
    )


def states(schedule: dict[str, Any], **standing: Any) -> list[tuple[float, TickState]]:
    return [((tick.at - NOON) / HOUR, tick.state) for tick in verdict(schedule, **standing).ticks]


def test_tick_on_time_starts_a_run_and_the_next_one_follows_from_it() -> None:
    found = verdict(hourly(), since=NOON, now=NOON + 0.5)
    assert [(tick.at, tick.state, tick.reason) for tick in found.ticks] == [(NOON, DUE, None)]
    assert (found.next_tick, found.due_at) == (NOON + HOUR, NOON + HOUR)


def test_nothing_happens_before_the_time() -> None:
    assert verdict(hourly(), since=NOON, now=NOON - 0.001) == Verdict(ticks=[], next_tick=NOON, due_at=NOON)


@pytest.mark.parametrize(
    "overlap, running, queued, state",
    [
        ("skip", 1, 0, SKIPPED),
        ("skip", 0, 1, SKIPPED),
        ("queue_one", 0, 0, DUE),
        ("queue_one", 1, 0, QUEUED),
        ("queue_one", 1, 1, SKIPPED),
        ("queue_all", 1, 5, QUEUED),
        ("queue_all", 1, 1000, SKIPPED),
        ("cancel_running", 1, 0, DUE),
        ("allow", 7, 0, DUE),
    ],
)
def test_tick_while_a_run_goes_on_follows_the_policy(overlap: str, running: int, queued: int, state: TickState) -> None:
    found = states(hourly(overlap=overlap), since=NOON, now=NOON + 1, running=running, queued=queued)
    assert found == [(0, state)]


# An outage from 09:30 to 12:30: the ticks of 10:00, 11:00 and 12:00 were missed.
OUTAGE = {"since": NOON - 2 * HOUR, "now": NOON + HOUR / 2}


@pytest.mark.parametrize("overlap", ["skip", "queue_one", "queue_all", "cancel_running", "allow"])
@pytest.mark.parametrize("catchup", ["none", "latest", "all"])
def test_outage_of_three_hours_gives_what_the_policy_promises(catchup: str, overlap: str) -> None:
    at_once = [DUE, DUE, DUE] if overlap == "allow" else [DUE, QUEUED, QUEUED]
    expected = {"none": [MISSED, MISSED, MISSED], "latest": [MISSED, MISSED, DUE], "all": at_once}
    found = states(hourly(catchup=catchup, overlap=overlap), **OUTAGE)
    assert found == list(zip([-2, -1, 0], expected[catchup], strict=True))


@pytest.mark.parametrize(
    "overlap, latest, every",
    [
        ("skip", SKIPPED, QUEUED),
        ("queue_one", QUEUED, QUEUED),
        ("queue_all", QUEUED, QUEUED),
        ("cancel_running", DUE, QUEUED),
        ("allow", DUE, DUE),
    ],
)
def test_outage_during_a_run_gives_what_the_policy_promises(overlap: str, latest: TickState, every: TickState) -> None:
    """The run was going on before the outage, and goes on after it."""
    caught_up = states(hourly(catchup="latest", overlap=overlap), **OUTAGE, running=1)
    assert caught_up == [(-2, MISSED), (-1, MISSED), (0, latest)]
    assert states(hourly(catchup="all", overlap=overlap), **OUTAGE, running=1) == [(-2, every), (-1, every), (0, every)]


@pytest.mark.parametrize("overlap, on_time", [("skip", QUEUED), ("allow", DUE)])
def test_tick_on_time_after_those_that_are_made_up_for_does_not_say_that_it_is_one(
    overlap: str, on_time: TickState
) -> None:
    found = verdict(hourly(catchup="all", overlap=overlap), since=NOON - HOUR, now=NOON + 1)
    assert [tick.reason and tick.reason.partition(":")[0] for tick in found.ticks] == [
        "made up for",
        "waited for the run before it" if on_time is QUEUED else None,
    ]
    assert found.ticks[1].state is on_time


def test_after_an_outage_the_tick_that_is_on_time_is_the_latest() -> None:
    at_noon = {"since": NOON - 2 * HOUR, "now": NOON + 1}
    assert states(hourly(catchup="latest"), **at_noon) == [(-2, MISSED), (-1, MISSED), (0, DUE)]
    assert states(hourly(catchup="none"), **at_noon) == [(-2, MISSED), (-1, MISSED), (0, DUE)]


def test_tick_within_the_grace_was_not_missed() -> None:
    assert states(hourly(catchup="none"), since=NOON, now=NOON + 59) == [(0, DUE)]
    assert states(hourly(catchup="none"), since=NOON, now=NOON + 61) == [(0, MISSED)]


def test_ticks_that_are_made_up_for_are_capped_to_the_last_ones() -> None:
    found = verdict(hourly(catchup="all", overlap="allow"), since=NOON - 1000 * HOUR, now=NOON + 1)
    assert len(found.ticks) == MOST_CAUGHT_UP
    assert (found.ticks[-1].at, found.next_tick) == (NOON, NOON + HOUR)


def test_year_of_outage_of_a_schedule_of_seconds_takes_no_time() -> None:
    schedule = complete({"kind": "cron", "expression": "*/5 * * * * *"})
    found = verdict(schedule, since=NOON - 365 * 24 * HOUR, now=NOON + 1)
    assert found.next_tick == NOON + 5
    assert sum(tick.state is DUE for tick in found.ticks) == 1


def test_single_time_has_no_tick_after_its_last() -> None:
    schedule = complete({"kind": "at", "times": ["2026-11-21T12:00:00"]})
    found = verdict(schedule, since=NOON, now=NOON + 1)
    assert [tick.state for tick in found.ticks] == [DUE]
    assert (found.next_tick, found.due_at) == (None, None)
    assert first_tick("s", schedule, timing_of(schedule, 0.0), NOON) == (None, None)


@given(st.text(min_size=1, max_size=20), st.integers(0, 10**6), st.floats(1, 3000))
def test_jitter_is_the_same_everywhere_and_below_its_bound(name: str, number: int, jitter: float) -> None:
    at = NOON + number * HOUR
    found = jitter_of(name, at, jitter)
    assert 0 <= found <= jitter
    assert found == jitter_of(name, at, jitter)


def test_jitter_spreads_schedules_and_ticks() -> None:
    of_schedules = {jitter_of(f"s{number}", NOON, 600) for number in range(100)}
    of_ticks = {jitter_of("s", NOON + number * HOUR, 600) for number in range(100)}
    assert min(len(of_schedules), len(of_ticks)) > 95
    assert max(of_schedules) > 550 > 50 > min(of_schedules)


@given(
    st.sampled_from(["skip", "queue_one", "queue_all", "cancel_running", "allow"]),
    st.sampled_from(["none", "latest", "all"]),
    st.integers(0, 90),
    st.floats(0, 500),
    st.lists(st.floats(0.01, 20_000), min_size=1, max_size=12),
)
def test_every_tick_is_decided_on_once_however_often_it_is_looked(
    overlap: str, catchup: str, ahead: int, jitter: float, rests: list[float]
) -> None:
    schedule = complete({"kind": "every", "seconds": 600.0, "overlap": overlap, "catchup": catchup, "jitter": jitter})
    next_tick: float | None = NOON
    now = NOON + ahead
    seen: list[float] = []
    for rest in rests:
        now += rest
        assert next_tick is not None
        found = verdict(schedule, since=next_tick, now=now)
        seen += [tick.at for tick in found.ticks]
        next_tick = found.next_tick
    assert seen == [NOON + 600 * number for number in range(len(seen))]
    assert next_tick == NOON + 600 * len(seen)


# --- what a run is told -----------------------------------------------------------------------------------------------


def test_run_is_told_date_and_time_in_the_zone_of_its_schedule() -> None:
    schedule = complete({"kind": "cron", "expression": "0 6 * * *", "tz": "Pacific/Auckland"})
    parameters = {
        "properties": {
            "day": {"format": "date", "x-hopline-scheduled": "date"},
            "at": {"format": "date-time", "x-hopline-scheduled": "time"},
            "shop": {"type": "string"},
        }
    }
    assert values_of(parameters, NOON, timing_of(schedule, 0.0).zone) == {
        "day": "2026-11-22",
        "at": "2026-11-22T01:00:00+13:00",
    }


@given(st.from_regex(r"[a-z][a-z/_-]{0,20}", fullmatch=True), st.integers(0, 10**13).map(lambda ms: ms / 1000))
def test_key_of_a_tick_says_which_tick_it_is(name: str, at: float) -> None:
    assert tick_of_key(tick_key(name, at)) == (name, at)
    assert tick_of_key("order-7") is None


def test_schedules_are_spread_over_the_shards() -> None:
    assert len({shard_of_schedule(f"s{number}") for number in range(1000)}) == SHARDS


@pytest.mark.parametrize(
    "given_, why",
    [
        ({"kind": "hourly"}, "kind"),
        ({"kind": "every"}, "seconds"),
        ({"kind": "every", "seconds": 0}, "seconds"),
        ({"kind": "every", "seconds": 60, "overlap": "drop"}, "overlap"),
        ({"kind": "every", "seconds": 60, "timezone": "UTC"}, "timezone"),
        ({"kind": "cron", "expression": 6}, "expression"),
        ({"kind": "at", "times": []}, "times"),
        ({"kind": "at", "times": ["tomorrow"]}, "times"),
    ],
)
def test_schedule_that_is_malformed_is_refused_with_the_member(given_: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        complete(given_)


# --- back-fills -------------------------------------------------------------------------------------------------------


def test_backfill_uses_the_schedule_that_was_in_force_at_each_time() -> None:
    versions = [(NOON - 5 * HOUR, hourly()), (NOON - 2 * HOUR - 1, complete({"kind": "every", "seconds": 1800.0}))]
    found = planned(versions, NOON - 4 * HOUR, NOON - HOUR, {})
    assert [(tick.at - NOON) / HOUR for tick in found] == [-4, -3, -2, -1.5, -1]


def test_backfill_before_the_first_schedule_uses_that() -> None:
    found = planned([(NOON, hourly())], NOON - 2 * HOUR, NOON - HOUR, {NOON - HOUR: TickState.DONE})
    assert [(tick.at, tick.is_wanted) for tick in found] == [(NOON - 2 * HOUR, True), (NOON - HOUR, False)]


@pytest.mark.parametrize("state, wanted", [(SKIPPED, True), (MISSED, True), (TickState.STARTED, False), (DUE, False)])
def test_backfill_takes_ticks_that_have_no_run(state: TickState, wanted: bool) -> None:
    (tick,) = planned([(0.0, hourly())], NOON, NOON, {NOON: state})
    assert tick.is_wanted is wanted


def test_backfill_keeps_to_its_pace() -> None:
    assert startable(Pace(max_parallel=3), running=1, waiting=9, now=NOON)[0] == 2
    assert startable(Pace(max_parallel=3, is_paused=True), running=0, waiting=9, now=NOON)[0] == 0
    pace, started = Pace(max_parallel=100, interval=0.5), 0
    for second in range(10):
        count, pace = startable(pace, running=0, waiting=1000, now=NOON + second)
        started += count
    assert 18 <= started <= 22
