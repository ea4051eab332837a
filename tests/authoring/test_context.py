import threading
from datetime import UTC, datetime

import pytest

from hopline import Context, context, step
from hopline.context import entered
from hopline.errors import Fail, RetryAfter

REAL = Context(
    run_id="r_1",
    step="charge",
    item=3,
    attempt=2,
    deadline=datetime(2026, 11, 20, tzinfo=UTC),
    idempotency_key="r_1/charge/3",
    callback_url="https://a.example.com/callback",
    callback_token="t",
    traceparent="00-0-0-01",
)


@step
def key() -> str:
    return context().idempotency_key


def test_step_outside_the_engine_has_a_local_context() -> None:
    assert key() == "local/local"
    assert context() == Context()
    assert (context().attempt, context().item, context().callback_url) == (1, None, None)


def test_entered_context_is_what_the_step_sees_until_it_is_left() -> None:
    with entered(REAL):
        assert context() is REAL
        assert key() == "r_1/charge/3"
        with entered(Context(run_id="r_2")):
            assert context().run_id == "r_2"
        assert context() is REAL
    assert context().run_id == "local"


def test_context_is_left_when_the_step_fails() -> None:
    with pytest.raises(RuntimeError), entered(REAL):
        raise RuntimeError
    assert context().run_id == "local"


def test_context_belongs_to_its_thread() -> None:
    seen: list[str] = []
    with entered(REAL):
        thread = threading.Thread(target=lambda: seen.append(context().run_id))
        thread.start()
        thread.join()
    assert seen == ["local"]


@pytest.mark.parametrize(("wait", "seconds"), [("2m30s", 150.0), (5, 5.0), (0.5, 0.5), (0, 0.0)])
def test_retry_after_takes_seconds_or_a_duration(wait: float | str, seconds: float) -> None:
    assert RetryAfter(wait).seconds == seconds
    assert str(RetryAfter(wait, "later")) == "later"
    assert str(RetryAfter(wait)) == f"try again in {seconds:g} s"


@pytest.mark.parametrize("wait", [-1, float("nan"), float("inf"), "soon", 1e12])
def test_retry_after_refuses_what_is_no_time_to_wait(wait: float | str) -> None:
    with pytest.raises(ValueError, match=r"duration|time to wait"):
        RetryAfter(wait)


def test_fail_says_why() -> None:
    assert str(Fail("card declined")) == "card declined"
