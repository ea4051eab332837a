import linecache
from collections.abc import Callable
from typing import Any

import pytest

from hopline import DefinitionError, Fail, Queue, Retry, RetryAfter, step, workflow
from hopline.policy import Policy, exception_name


class OwnError(Exception):
    pass


@step
def fetch() -> int:
    return 1


def test_retry_says_waits_in_seconds_and_names_what_is_retried() -> None:
    retry = Retry(5, first="2s", factor=3, max="5m", jitter="equal", on=(429, range(500, 600), TimeoutError, OwnError))
    assert retry.to_json() == {
        "attempts": 5,
        "first": 2.0,
        "factor": 3.0,
        "max": 300.0,
        "jitter": "equal",
        "on": [{"status": 429}, {"range": [500, 600]}, {"error": "TimeoutError"}, {"error": f"{__name__}.OwnError"}],
    }


def test_retry_defaults_to_doubling_waits_from_a_second_to_an_hour() -> None:
    expected = {"attempts": 3, "first": 1.0, "factor": 2.0, "max": 3600.0, "jitter": "full", "on": []}
    assert Retry(3).to_json() == expected


def test_exceptions_of_other_modules_carry_their_module() -> None:
    assert exception_name(ConnectionRefusedError) == "ConnectionRefusedError"
    assert exception_name(OwnError) == f"{__name__}.OwnError"


def test_equal_policies_are_equal_values() -> None:
    assert Retry(3, on=[429]) == Retry(3, on=(429,))
    assert hash(Queue("erp", rate="10/s")) == hash(Queue("erp", rate="10/s"))


BAD: Any = ...  # of a type that checkers would not let through


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(0),
        lambda: Retry(BAD),
        lambda: Retry(True),
        lambda: Retry(3, first="soon"),
        lambda: Retry(3, first=BAD),
        lambda: Retry(3, first="2m", max="1m"),
        lambda: Retry(3, factor=0.5),
        lambda: Retry(3, factor=float("inf")),
        lambda: Retry(3, factor=float("nan")),
        lambda: Retry(3, jitter=BAD),
        lambda: Retry(3, on=BAD),
        lambda: Retry(3, on=(99,)),
        lambda: Retry(3, on=(600,)),
        lambda: Retry(3, on=(True,)),
        lambda: Retry(3, on=(range(500, 601),)),
        lambda: Retry(3, on=(range(599, 500),)),
        lambda: Retry(3, on=(range(400, 500, 2),)),
        lambda: Retry(3, on=(BAD,)),
        lambda: Retry(3, on=(Fail,)),
        lambda: Retry(3, on=(RetryAfter,)),
        lambda: Queue(""),
        lambda: Queue("a b"),
        lambda: Queue("x" * 101),
        lambda: Queue("default"),
        lambda: Queue("erp", rate="10"),
        lambda: Queue("erp", rate="0/s"),
        lambda: Queue("erp", rate="10/d"),
        lambda: Queue("erp", rate=BAD),
        lambda: Queue("erp", burst=0),
        lambda: Queue("erp", max_concurrent=BAD),
        lambda: step(timeout="0s"),
        lambda: step(timeout="5 minutes"),
        lambda: step(deadline="1w"),
        lambda: step(max_parallel=0),
        lambda: step(queue="a b"),
        lambda: step(queue=BAD),
        lambda: step(retry=BAD),
        lambda: fetch.using(timeout="x"),
    ],
)
def test_bad_policy_is_refused_at_the_line_that_says_it(make: Callable[[], object]) -> None:
    with pytest.raises(DefinitionError) as caught:
        make()
    assert caught.value.file == __file__
    assert caught.value.hint
    assert "lambda:" in linecache.getline(__file__, caught.value.line or 0)


@pytest.mark.parametrize(("rate", "per_second"), [("10/s", 10.0), ("90/m", 1.5), ("1800/h", 0.5), ("0.5/s", 0.5)])
def test_queue_rate_is_stored_per_second(rate: str, per_second: float) -> None:
    assert Queue("erp", rate=rate, burst=3, max_concurrent=20).to_json() == {
        "name": "erp",
        "max_dispatches_per_second": per_second,
        "max_burst_size": 3,
        "max_concurrent_dispatches": 20,
    }


def test_using_replaces_what_it_names_and_keeps_the_rest() -> None:
    slow = step(retry=Retry(3), timeout="1m", queue="erp")(fetch.fn)
    changed = slow.using(timeout="2m", max_parallel=7)
    assert changed.policy == Policy(retry=Retry(3), timeout="2m", queue="erp", max_parallel=7)
    assert slow.policy == Policy(retry=Retry(3), timeout="1m", queue="erp")


def test_definition_lists_the_queues_that_its_steps_use() -> None:
    @workflow
    def all_three() -> list[int]:
        a = fetch.using(queue=Queue("erp", rate="1/s"))()
        b = fetch.using(queue=Queue("bulk", max_concurrent=2))()
        return [a, b, fetch.using(queue="elsewhere")(), fetch()]

    definition = all_three.compile()
    assert [queue["name"] for queue in definition.queues] == ["bulk", "erp"]
    assert [node.policy["queue"] for node in definition.nodes.values()] == ["erp", "bulk", "elsewhere", "default"]


def test_same_limits_said_twice_are_one_queue() -> None:
    @workflow
    def twice() -> list[int]:
        return [fetch.using(queue=Queue("erp", rate="1/s"))(), fetch.using(queue=Queue("erp", rate="60/m"))()]

    assert len(twice.compile().queues) == 1
