"""The token bucket never gives more than it was given, whatever is asked and whatever the clock does."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopline_engine.core.rate import Bucket, default_burst

rates = st.floats(0.01, 10_000)
bursts = st.integers(1, 1000)
steps = st.lists(st.floats(0, 100), max_size=60)
EPSILON = 1e-6


def full_bucket(rate: float, burst: float, at: float = 0.0) -> Bucket:
    return Bucket(rate, burst, burst, at)


def times_of(steps: list[float]) -> list[float]:
    times = [0.0]
    for step in steps:
        times.append(times[-1] + step)
    return times


@given(rates, bursts, steps, st.integers(1, 5))
def test_no_window_has_more_dispatches_than_its_length_allows(
    rate: float, burst: int, steps: list[float], asks: int
) -> None:
    bucket = full_bucket(rate, burst)
    taken = [time for time in times_of(steps) for _ in range(asks) if bucket.take(time)]
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            window = taken[last] - taken[first]
            assert last - first + 1 <= burst + rate * window + EPSILON * (1 + rate * window)


@given(rates, bursts, st.lists(st.floats(-1000, 1000), max_size=60))
def test_clock_that_jumps_gives_no_more_than_its_way_forward(rate: float, burst: int, moves: list[float]) -> None:
    bucket = full_bucket(rate, burst, 5000.0)
    times = [5000.0]
    for move in moves:
        times.append(times[-1] + move)
    taken = sum(bucket.take(time) for time in times)
    forward = sum(max(0.0, after - before) for before, after in pairwise(times))
    assert taken <= burst + rate * forward + EPSILON * (1 + rate * forward)


@given(rates, bursts, st.floats(0, 1e6))
def test_clock_that_went_back_takes_nothing_and_stops_nothing(rate: float, burst: int, back: float) -> None:
    bucket = Bucket(rate, burst, 0.5, 1e6)
    bucket.refill(1e6 - back)
    assert bucket.tokens == 0.5
    assert bucket.next_at() <= 1e6 - back + 1 / rate
    assert bucket.take(bucket.next_at() + 1 / rate)


@given(rates, bursts, steps)
def test_bucket_never_holds_more_than_its_burst_nor_less_than_nothing(
    rate: float, burst: int, steps: list[float]
) -> None:
    bucket = full_bucket(rate, burst)
    for time in times_of(steps):
        bucket.take(time)
        assert 0.0 <= bucket.tokens <= burst


@given(rates, bursts, steps)
def test_next_token_is_there_when_it_was_said_to_be(rate: float, burst: int, steps: list[float]) -> None:
    bucket = full_bucket(rate, burst)
    for time in times_of(steps):
        if not bucket.take(time):
            at = bucket.next_at()
            assert at > time
            assert not Bucket(rate, burst, bucket.tokens, bucket.at).take(at - 2 / rate)
            assert Bucket(rate, burst, bucket.tokens, bucket.at).take(at + EPSILON * (1 + at))


def test_full_bucket_lets_a_burst_go_and_then_the_rate() -> None:
    bucket = full_bucket(2.0, 3)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.next_at() == 0.5
    assert [bucket.take(0.5) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(("rate", "burst"), [(0.01, 1), (1.0, 1), (10.0, 2), (100.0, 20), (500.0, 100), (1e6, 100)])
def test_burst_of_a_queue_that_names_only_its_rate(rate: float, burst: float) -> None:
    assert default_burst(rate) == burst
