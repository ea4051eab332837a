"""When a failed attempt is tried again: bounds, shape and meaning of policies."""

import math
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopline_engine.core.definition import RetrySpec
from hopline_engine.core.retry import Failure, RetryPolicy, backoff, is_retryable, lost_delay, retry_delay

durations = st.floats(0, 1e9)
randoms = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 10_000),
    first=durations,
    factor=st.floats(1, 1e9),
    max=durations,
    jitter=st.sampled_from(["none", "full", "equal"]),
)
retries = st.integers(1, 10_000)
KINDS = ["python", "http"]


def failure(*types: str, status: int | None = None, **more: Any) -> Failure:
    return Failure(types[0] if types else "HTTPError", "no", types, status, **more)


# --- how long -------------------------------------------------------------------------------------------------------


@given(policies, retries, randoms)
def test_wait_is_never_negative_and_never_longer_than_the_longest(
    policy: RetryPolicy, retry: int, random: float
) -> None:
    assert 0 <= backoff(policy, retry, random) <= policy.max


@given(policies, retries, randoms)
def test_wait_without_jitter_never_shrinks(policy: RetryPolicy, retry: int, random: float) -> None:
    policy = replace(policy, jitter="none")
    assert backoff(policy, retry, random) <= backoff(policy, retry + 1, random)


@given(policies, retries, randoms)
def test_full_jitter_spreads_the_wait_down_to_nothing_and_equal_jitter_to_its_half(
    policy: RetryPolicy, retry: int, random: float
) -> None:
    whole = backoff(replace(policy, jitter="none"), retry, random)
    assert backoff(replace(policy, jitter="full"), retry, random) <= whole
    assert whole / 2 <= backoff(replace(policy, jitter="equal"), retry, random) <= whole
    assert backoff(replace(policy, jitter="full"), retry, 0.0) == 0.0
    assert backoff(replace(policy, jitter="equal"), retry, 0.0) == whole / 2


@given(policies, randoms)
def test_first_wait_is_the_first_of_the_policy(policy: RetryPolicy, random: float) -> None:
    assert backoff(replace(policy, jitter="none"), 1, random) == min(policy.first, policy.max)


@given(policies, retries, randoms)
def test_policy_that_does_not_wait_at_first_never_waits(policy: RetryPolicy, retry: int, random: float) -> None:
    assert backoff(replace(policy, first=0.0), retry, random) == 0.0


def test_wait_grows_by_the_factor() -> None:
    policy = RetryPolicy(first=2.0, factor=3.0, max=100.0, jitter="none")
    assert [backoff(policy, retry, 0.5) for retry in range(1, 7)] == [2.0, 6.0, 18.0, 54.0, 100.0, 100.0]


def test_wait_that_no_number_can_hold_is_the_longest() -> None:
    policy = RetryPolicy(first=1e9, factor=1e9, max=1e9, jitter="none")
    assert backoff(policy, 10_000, 0.0) == 1e9


# --- whether --------------------------------------------------------------------------------------------------------


@given(policies, st.integers(1, 10_000), randoms)
def test_policy_is_given_up_after_its_attempts(policy: RetryPolicy, made: int, random: float) -> None:
    delay = retry_delay(policy, "python", failure("ValueError"), made=made, random=random, retry_after_cap=60.0)
    assert (delay is None) == (made >= policy.attempts)


@given(policies, st.floats(-1e9, 1e9), st.floats(0, 1e6), randoms)
def test_retry_after_replaces_the_wait_up_to_the_cap(
    policy: RetryPolicy, asked: float, cap: float, random: float
) -> None:
    policy = replace(policy, attempts=2)
    delay = retry_delay(
        policy, "http", failure(status=503, retry_after=asked), made=1, random=random, retry_after_cap=cap
    )
    assert delay == min(max(asked, 0.0), cap)


def test_retry_after_does_not_make_a_failure_retryable() -> None:
    policy = RetryPolicy(attempts=5)
    asked = failure(status=404, retry_after=1.0)
    assert retry_delay(policy, "http", asked, made=1, random=0.5, retry_after_cap=60.0) is None


@pytest.mark.parametrize("kind", KINDS)
@given(policies)
def test_final_failure_is_never_retried(kind: str, policy: RetryPolicy) -> None:
    policy = replace(policy, errors=frozenset({"ValueError"}), statuses=((100, 600),))
    assert not is_retryable(policy, kind, failure("ValueError", status=503, final=True))


def test_python_step_retries_every_error_by_default() -> None:
    assert is_retryable(RetryPolicy(), "python", failure("ValueError", "Exception"))
    assert is_retryable(RetryPolicy(), "python", failure())


@given(st.integers(100, 599))
def test_http_step_retries_what_may_pass_by_default(status: int) -> None:
    assert is_retryable(RetryPolicy(), "http", failure(status=status)) == (status in {408, 429} or status >= 500)


def test_http_step_retries_network_errors_by_default() -> None:
    for types in (("ConnectionRefusedError", "ConnectionError", "OSError"), ("TimeoutError", "OSError")):
        assert is_retryable(RetryPolicy(), "http", failure(*types))
    assert not is_retryable(RetryPolicy(), "http", failure("InvalidResult"))
    assert not is_retryable(RetryPolicy(), "http", failure("InvalidResult", "ConnectionError", status=200))


@pytest.mark.parametrize("kind", KINDS)
def test_policy_that_names_failures_is_taken_at_its_word(kind: str) -> None:
    policy = RetryPolicy(statuses=((404, 405),), errors=frozenset({"OSError"}))
    assert is_retryable(policy, kind, failure(status=404))
    assert not is_retryable(policy, kind, failure(status=503))
    assert is_retryable(policy, kind, failure("TimeoutError", "OSError", "Exception"))
    assert not is_retryable(policy, kind, failure("ValueError", "Exception"))
    assert not is_retryable(policy, kind, failure())


@given(st.integers(100, 599), st.integers(100, 599), st.integers(100, 599))
def test_range_of_statuses_is_half_open(low: int, high: int, status: int) -> None:
    policy = RetryPolicy(statuses=((low, high),))
    assert is_retryable(policy, "http", failure(status=status)) == (low <= status < high)


# --- from a definition ----------------------------------------------------------------------------------------------


def spec(**changes: Any) -> RetrySpec:
    value = {"attempts": 5, "first": 2, "factor": 2.0, "max": 300.0, "jitter": "full", "on": []} | changes
    return msgspec.convert(value, RetrySpec)


def test_no_policy_is_a_single_attempt() -> None:
    policy = RetryPolicy.from_spec(None)
    assert retry_delay(policy, "python", failure("ValueError"), made=1, random=0.5, retry_after_cap=1.0) is None


def test_policy_of_a_definition() -> None:
    on = [{"status": 429}, {"range": [500, 600]}, {"error": "TimeoutError"}, {"error": "requests.Timeout"}]
    assert RetryPolicy.from_spec(spec(on=on)) == RetryPolicy(
        attempts=5,
        first=2.0,
        factor=2.0,
        max=300.0,
        jitter="full",
        statuses=((429, 430), (500, 600)),
        errors=frozenset({"TimeoutError", "requests.Timeout"}),
    )


@pytest.mark.parametrize(
    "named", [{}, {"stauts": 1}, {"status": "429"}, {"range": [1]}, {"range": [1, 2, 3]}, {"error": 5}]
)
def test_failures_named_in_an_unknown_way_are_refused(named: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot name failures"):
        RetryPolicy.from_spec(spec(on=[{"status": 500}, named]))


@pytest.mark.parametrize(
    "change",
    [
        {"attempts": 0},
        {"attempts": 1.5},
        {"first": -1},
        {"first": math.inf},
        {"max": math.nan},
        {"factor": 0.9},
        {"factor": math.nan},
        {"jitter": "some"},
        {"on": None},
        {"on": ["TimeoutError"]},
    ],
)
def test_policy_out_of_range_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        spec(**change)


# --- lost attempts --------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), randoms)
def test_wait_after_a_loss_stays_within_a_minute(lost: int, random: float) -> None:
    assert 0.0 <= lost_delay(lost, random) <= 60.0


@given(randoms)
def test_first_loss_is_made_good_at_once(random: float) -> None:
    assert lost_delay(1, random) == 0.0


@given(st.integers(1, 10_000), randoms)
def test_wait_after_a_loss_never_shrinks(lost: int, random: float) -> None:
    assert lost_delay(lost, random) <= lost_delay(lost + 1, random)


@given(st.integers(2, 10_000), randoms)
def test_steps_lost_together_do_not_come_back_together(lost: int, random: float) -> None:
    assert lost_delay(lost, 0.0) <= lost_delay(lost, random) <= 2 * lost_delay(lost, 0.0)
    assert lost_delay(lost, 0.0) > 0.0


@pytest.mark.parametrize("policy", [RetryPolicy(attempts=2), RetryPolicy(attempts=2, statuses=((429, 430),))])
def test_what_was_not_sent_for_want_of_a_secret_is_tried_again_by_every_policy(policy: RetryPolicy) -> None:
    assert is_retryable(policy, "http", failure("SecretMissing"))
