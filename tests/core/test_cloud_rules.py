"""The rules of the queue service: retrying, counting, names, overrides, filters and pages, as tables and properties."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopline_engine.core.cloud.attempts import Counters, Ended, Verdict, settle
from hopline_engine.core.cloud.delivery import overridden_url
from hopline_engine.core.cloud.errors import CloudTasksError, Code
from hopline_engine.core.cloud.filters import asks_for_oldest_tag, parse_filter, parse_tag
from hopline_engine.core.cloud.model import UNLIMITED, RetryConfig, UriOverride
from hopline_engine.core.cloud.names import QueueName, parse_queue, parse_task, queue_of_key
from hopline_engine.core.cloud.paging import TOKEN_SECONDS, last_of, page_token
from hopline_engine.core.cloud.retrying import (
    Tried,
    backoff,
    is_used_up,
    next_delay,
    parse_retry_after,
    status_of_answer,
)

configs = st.builds(
    RetryConfig,
    min_backoff=st.floats(0, 100),
    max_backoff=st.floats(100, 10_000),
    max_doublings=st.integers(0, 5000),
)


@pytest.mark.parametrize(
    ("shortest", "longest", "doublings", "delays"),
    [
        (10, 300, 3, [10, 20, 40, 80, 160, 240, 300, 300]),
        (0.1, 3600, 16, [0.1, 0.2, 0.4]),
        (1, 60, 0, [1, 2, 3, 4, 5]),
        (1, 60, 1, [1, 2, 4, 6, 8, 10]),
        (2, 20, 2, [2, 4, 8, 16, 20, 20]),
        (30, 30, 7, [30, 30, 30]),
        (0, 5, 3, [0, 0, 0]),
    ],
)
def test_delays_are_those_of_the_reference(
    shortest: float, longest: float, doublings: int, delays: list[float]
) -> None:
    config = RetryConfig(min_backoff=shortest, max_backoff=longest, max_doublings=doublings)

    assert [backoff(config, failed) for failed in range(1, len(delays) + 1)] == pytest.approx(delays)


def test_the_default_doubles_up_to_its_longest() -> None:
    late = [backoff(RetryConfig(), failed) for failed in (15, 16, 17, 18)]

    assert late == pytest.approx([1638.4, 3276.8, 3600, 3600])


@given(configs, st.integers(1, 10_000))
def test_delays_never_shrink_and_stay_within_bounds(config: RetryConfig, failed: int) -> None:
    delay, later = backoff(config, failed), backoff(config, failed + 1)

    assert min(config.min_backoff, config.max_backoff) <= delay <= later <= config.max_backoff


@pytest.mark.parametrize(
    ("attempts", "duration", "made", "seconds", "used_up"),
    [
        (3, 0, 2, 9999, False),
        (3, 0, 3, 0, True),
        (UNLIMITED, 60, 9999, 59, False),
        (UNLIMITED, 60, 1, 60, True),
        (3, 60, 3, 59, False),
        (3, 60, 2, 61, False),
        (3, 60, 3, 60, True),
        (UNLIMITED, 0, 9999, 10**9, False),
    ],
)
def test_attempts_are_used_up_when_both_limits_are(
    attempts: int, duration: float, made: int, seconds: float, *, used_up: bool
) -> None:
    config = RetryConfig(max_attempts=attempts, max_retry_duration=duration)

    assert is_used_up(config, Tried(made, 1000.0, 1000.0 + seconds)) is used_up


def test_retry_after_can_only_make_the_wait_longer_and_no_longer_than_an_hour() -> None:
    config = RetryConfig(min_backoff=10, max_backoff=20)

    assert next_delay(config, 1, 5) == 10
    assert next_delay(config, 1, 100) == 100
    assert next_delay(config, 1, 10**9) == 3600
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT", 1445412470.0) == 10.0
    assert parse_retry_after(None, 0) is None


@pytest.fixture
def tokyo() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_retry_after_may_be_a_date_in_each_form_of_http() -> None:
    forms = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994")
    assert [parse_retry_after(form, 784111767.0) for form in forms] == [10.0, 10.0, 10.0]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((200, 0), (299, 0), (302, 2), (400, 3), (401, 16), (403, 7), (404, 5), (409, 6), (418, 2), (429, 8)),
        *((499, 1), (500, 13), (501, 12), (502, 13), (503, 14), (504, 4)),
    ],
)
def test_answers_have_the_codes_of_the_original(status: int, code: int) -> None:
    assert status_of_answer(status).code == code


def counters(**given: Any) -> Counters:
    values = {"dispatched": 1, "answered": 0, "executed": 0, "lost": 0, "first_dispatch_time": 0.0}
    return Counters(**{**values, "previous_response": None, "retry_reason": "", **given})


def ended(status: int | None, **given: Any) -> Ended:
    return Ended(**{"dispatch_time": 10.0, "end_time": 20.0, "status": status, **given})


ONE_SECOND = RetryConfig(min_backoff=1, max_backoff=1, max_attempts=2)


def test_an_attempt_that_fails_is_tried_again_from_its_end_and_one_that_was_forced_from_its_beginning() -> None:
    assert settle(1, ended(500), counters(), ONE_SECOND).schedule_time == 21.0
    assert settle(1, ended(500, is_forced=True), counters(), ONE_SECOND).schedule_time == 11.0


def test_lost_attempts_do_not_count_against_the_limit() -> None:
    assert settle(2, ended(500), counters(dispatched=2), ONE_SECOND).verdict is Verdict.DEAD
    assert settle(2, ended(500), counters(dispatched=2, lost=1), ONE_SECOND).verdict is Verdict.AGAIN


def test_of_two_attempts_at_once_the_later_decides_unless_the_earlier_succeeds() -> None:
    assert settle(1, ended(500), counters(dispatched=2), ONE_SECOND).verdict is Verdict.SUPERSEDED
    assert settle(1, ended(204), counters(dispatched=2), ONE_SECOND).verdict is Verdict.SUCCEEDED


def test_silence_is_told_as_the_original_tells_it() -> None:
    late = settle(1, ended(None, silence=Code.DEADLINE_EXCEEDED), counters(), ONE_SECOND)
    assert (late.previous_response, late.retry_reason, late.answered, late.executed) == (504, "", 0, 0)
    late = settle(1, ended(None, silence=Code.DEADLINE_EXCEEDED, is_app_engine=True), counters(), ONE_SECOND)
    assert (late.previous_response, late.retry_reason) == (0, "Instance Unavailable")
    away = settle(2, ended(None), counters(dispatched=2, previous_response=503), ONE_SECOND)
    assert away.previous_response == 503


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (UriOverride(host="b"), "http://b:1/p?q=1"),
        (UriOverride(scheme="HTTPS", port=0), "https://a/p?q=1"),
        (UriOverride(path="", query=""), "http://a:1"),
        (UriOverride(path="x", query="y=2"), "http://a:1/x?y=2"),
        (UriOverride(path="/x", query="y=2", always=False), "http://a:1/p?q=1"),
    ],
)
def test_a_queue_overrides_parts_of_urls(override: UriOverride, expected: str) -> None:
    assert overridden_url("http://a:1/p?q=1", override) == expected


def test_a_queue_can_fill_in_only_what_urls_lack() -> None:
    assert overridden_url("http://a", UriOverride(path="/x", query="y=2", always=False)) == "http://a/x?y=2"


def test_local_queues_are_those_of_steps_and_others_keep_their_names_apart() -> None:
    local = parse_queue("projects/local/locations/local/queues/mail")
    other = parse_queue("projects/p/locations/l/queues/mail")

    assert local.key == "mail"
    assert other.key == str(other)
    assert [queue_of_key(name.key) for name in (local, other)] == [local, other]


@given(st.text())
def test_no_text_makes_names_fail_in_another_way(text: str) -> None:
    for parse in (parse_queue, parse_task):
        for name in (text, f"projects/p/locations/l/queues/{text}", f"projects/p/locations/l/queues/q/tasks/{text}"):
            try:
                assert str(parse(name)) == name
            except CloudTasksError as error:
                assert error.status is Code.INVALID_ARGUMENT


QUEUE = {"name": "projects/p/queues/mail", "state": "PAUSED", "rate_limits": {"max_dispatches_per_second": 5.0}}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", True),
        ("state: PAUSED", True),
        ("state = RUNNING", False),
        ("state != RUNNING", True),
        ("name: mail", True),
        ('name = "projects/p/queues/mail"', True),
        ("rateLimits.maxDispatchesPerSecond < 6", True),
        ("rate_limits.max_dispatches_per_second >= 6", False),
        ("app_engine_http_target: *", False),
        ("rate_limits: *", True),
        ("state: RUNNING OR state: PAUSED", True),
        ("state: PAUSED AND name: nobody", False),
        ("state: PAUSED name: mail", True),
        ("NOT state: PAUSED", False),
        ("NOT (state: RUNNING OR name: nobody)", True),
    ],
)
def test_filters_choose_by_fields(text: str, *, wanted: bool) -> None:
    assert parse_filter(text)(QUEUE) is wanted


@given(st.text(alphabet='stae:=<>!()" ANDORNOT*.\\', max_size=40))
def test_no_filter_fails_in_another_way_than_by_being_refused(text: str) -> None:
    try:
        assert parse_filter(text)(QUEUE) in (True, False)
    except CloudTasksError as error:
        assert error.status is Code.INVALID_ARGUMENT


def test_leases_ask_for_tags_in_two_ways() -> None:
    assert parse_tag("tag=a b") == "a b"
    assert parse_tag('tag="a\\"b"') == 'a"b'
    assert asks_for_oldest_tag(" tag_function = oldest_tag() ")
    with pytest.raises(CloudTasksError):
        parse_tag("colour=red")


def test_a_page_token_is_good_for_two_hours_and_for_its_listing() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    token = page_token("q7", "listing", now)

    assert last_of(token, "listing", now + TOKEN_SECONDS) == "q7"
    for listing, at in (("other", now), ("listing", now + TOKEN_SECONDS + 2)):
        with pytest.raises(CloudTasksError):
            last_of(token, listing, at)


@given(st.text(max_size=60))
def test_no_text_makes_a_page_token_fail_in_another_way(text: str) -> None:
    try:
        last_of(text, "listing", 0.0)
    except CloudTasksError as error:
        assert error.status is Code.INVALID_ARGUMENT


def test_a_key_of_a_queue_is_its_id_or_its_name() -> None:
    assert queue_of_key("mail") == QueueName("local", "local", "mail")
